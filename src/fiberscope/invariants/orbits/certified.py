"""Ranks of brackets proved in ball arithmetic: rigorous lower bounds of orbit dimensions for smooth activations."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import balls
from fiberscope.autodiff.families import Family
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.liebrackets import brackets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.objects import BallJets, Objects

BITS = 256
"""Working precision: derivatives of order 6 lose some tens of bits."""


def proves_rank(family: Family, theta: npt.NDArray[Any], rank: int, depth: int, rng: np.random.Generator) -> bool:
    """Whether brackets up to a depth at theta are proved to have at least this rank.

    Rows are chosen in floating point; their brackets at the exact theta are then enclosed by balls, and a matrix A of
    balls has independent rows if |I - A B| < 1 for some B. Where this succeeds the orbit has at least this dimension.

    Args:
        family: the fields; their activations must be analytic.
        theta: (M,) exact array.
        rank: to be proved.
        depth: of the brackets.
        rng: of the data.

    Complexity: `rank` gradients in object arrays, 3^depth times a plain one; meant for up to 100 parameters.
    """
    from scipy.linalg import qr

    if rank == 0:
        return True
    count = rank + 8
    floats = NumpyFamily(family, np.array([float(v) for v in theta]))
    data = [floats.draw(rng, count) for _ in range(depth)]
    blocks = floats.brackets(floats.start, data)
    rows = np.concatenate(blocks)
    size = np.linalg.norm(rows, axis=1)
    live = np.flatnonzero(size > 1e-10 * size.max(initial=0.0))
    if len(live) < rank:
        return False
    chosen = live[qr((rows[live] / size[live][:, None]).T, mode="r", pivoting=True)[1][:rank]]
    with balls.precision(BITS):
        ring = Objects(balls.one())
        point = Nilpotent(ring, {0: ring.array(theta)[None]})
        pick = sorted({int(i) % count for i in chosen})
        place = {i: k for k, i in enumerate(pick)}
        parts = [tuple(ring.array(a[pick]) for a in d) for d in data]
        terms = brackets(family, point, parts, BallJets(ring))
        proved = []
        for i in chosen:
            row = np.broadcast_to(terms[int(i) // count].real, (len(pick), family.size))[place[int(i) % count]]
            proved.append(ring.multiply(row, ring.constant(1) / ring.constant(Fraction(float(size[i])))))
        return balls.full_row_rank(np.stack(proved))
