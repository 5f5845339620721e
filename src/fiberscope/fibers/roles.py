"""The discrete side of a fiber: labelings, orientations and turns, counted and not listed.

A set F of split neurons can be flipped if the always-active block can then represent L_F = L + sum over F of v_j u_j^T
as sum over A of v u^T with u >= 0. With a = |A| this needs rank L_F <= a. Below a it is always possible: rank + 1
vectors span a space with coefficients >= 0. At rank a it is possible exactly if a cone with a generators holds all
columns of L_F, that is if some w has w l > 0 for every nonzero column l: a pointed cone lies in a simplicial one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.fibers.generators import turns
from fiberscope.network import Network
from fiberscope.results import Result
from fiberscope.symmetries import neuron_types

ExactArray = npt.NDArray[Any]

_SUBSETS = 10


@dataclass(frozen=True)
class Roles(Result):
    """How many parts the generic fiber of a three-layer ReLU network has with as many neurons of each type, by roles.

    Args:
        labelings: ways to give roles to places, n1! n2! / (a! d!): dead neurons can be exchanged on a path,
            always-active ones at least in part; None when that has more than 18 digits.
        labelings_log10: its logarithm.
        orientations: sets of split neurons that can be flipped, the empty one included; None if not counted.
        turns: first-layer neurons that can be turned round onto a hidden one.
        joined: whether second-layer permutations are joined by paths, through a dead neuron of the network.
        certain: whether every set counted as impossible is proved to be so (linear programs decide some).
    """

    labelings: int | None
    labelings_log10: float
    orientations: int | None
    turns: int
    joined: bool
    certain: bool

    @property
    def count(self) -> int | None:
        """Labelings times orientations times 2^turns, None if one of them is not counted."""
        if self.labelings is None or self.orientations is None:
            return None
        return self.labelings * self.orientations * (1 << self.turns)

    def __str__(self) -> str:
        """One line."""
        labels = f"{self.labelings}" if self.labelings is not None else f"about 10^{self.labelings_log10:.1f}"
        flips = "an unknown number of" if self.orientations is None else f"{self.orientations}"
        turned = f" x {1 << self.turns} by turns of neurons onto a hidden one" if self.turns else ""
        joined = "; second-layer permutations are joined through a dead neuron" if self.joined else ""
        return f"{labels} labelings of the neurons x {flips} orientations of the split ones{turned}{joined}"


def count_roles(net: Network) -> Roles:
    """Count labelings, orientations and turns of a three-layer ReLU network; O(2^s) subsets for s <= 10 split neurons.

    >>> net = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[1, -1], [3, 2]], [-1, 1]), ([[1, 1]], [0]))
    >>> print(count_roles(net))  # the block can pay: (3, 2) + (1, -1) >= 0
    4 labelings of the neurons x 2 orientations of the split ones
    """
    types = neuron_types(net.layers[1].weight, net.layers[1].bias)
    a, d = len(types.active), len(types.dead)
    log = sum(sign * math.lgamma(n + 1) for sign, n in ((1, net.widths[1]), (1, net.widths[2]), (-1, a), (-1, d)))
    log /= math.log(10)
    small = log < 18
    labels = None
    if small:
        above, below = (math.factorial(p) * math.factorial(q) for p, q in ((net.widths[1], net.widths[2]), (a, d)))
        labels = above // below
    orientations, certain = _orientations(net, list(types.active), list(types.split))
    turned = len({k for k, _ in turns(net)}) if net.widths[1] <= 64 else 0
    return Roles(labels, log, orientations, turned, bool(d) and bool(types.split or a), certain)


def _orientations(net: Network, active: list[int], split: list[int]) -> tuple[int | None, bool]:
    if not active or not split:
        return 1, True
    if len(split) > _SUBSETS:
        return None, True
    u, v = rationals.fractions(net.layers[1].weight), rationals.fractions(net.layers[2].weight)
    base = v[:, active] @ u[active]
    count, certain = 0, True
    for size in range(len(split) + 1):
        for chosen in itertools.combinations(split, size):
            index = list(chosen)
            possible, sure = payable(base + v[:, index] @ u[index] if index else base, len(active))
            count, certain = count + possible, certain and sure
    return count, certain


def payable(linear: ExactArray, count: int) -> tuple[bool, bool]:
    """Whether a matrix is a sum of `count` products v u^T with u >= 0, and whether that answer is proved.

    Args:
        linear: (n3, n1), over Q.
        count: number of always-active neurons.

    >>> payable(np.array([[1.0, -1.0]]), 1), payable(np.array([[1.0, -1.0]]), 2), payable(np.array([[-1.0, -3.0]]), 1)
    ((False, True), (True, True), (True, True))
    """
    rank = rationals.rank(linear)
    if rank != count:
        return rank < count, True
    columns = rationals.fractions(linear)
    columns = columns[:, np.asarray(columns != 0, dtype=bool).any(axis=0)]
    if rank == 1:
        k = int(np.flatnonzero(np.asarray(columns != 0, dtype=bool).all(axis=1))[0])
        return len({v > 0 for v in columns[k]}) == 1, True
    return _pointed(columns)


def _pointed(columns: ExactArray) -> tuple[bool, bool]:
    """Whether w l > 0 for all columns l has a solution; one that is found is checked, that none exists is not."""
    from scipy.optimize import linprog

    table = rationals.rounded(columns, np.float64)
    table = table / np.linalg.norm(table, axis=0)
    rows = len(table)
    # maximise t with w l >= t, |w| <= 1
    found = linprog(
        np.append(np.zeros(rows), -1.0), A_ub=np.column_stack([-table.T, np.ones(table.shape[1])]),
        b_ub=np.zeros(table.shape[1]), bounds=[(-1, 1)] * rows + [(0, 1)],
    )  # fmt: skip
    w = np.array([Fraction(float(q)) for q in found.x[:rows]], dtype=object)
    if bool((w @ columns > 0).all()):
        return True, True
    return False, False
