"""Chains of affine maps and activations as families of gradient fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.autodiff.families import Data, Draw, GradientFamily
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable

Array = npt.NDArray[Any]


def blocks_of(widths: Sequence[int]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of the parameters in the order of `Network.theta`: W1, b1, W2, b2, ...

    >>> blocks_of((2, 3, 1))
    (('W1', (3, 2)), ('b1', (3,)), ('W2', (1, 3)), ('b2', (1,)))
    """
    out: list[tuple[str, tuple[int, ...]]] = []
    for k, (low, high) in enumerate(zip(widths, widths[1:], strict=False), start=1):
        out += [(f"W{k}", (high, low)), (f"b{k}", (high,))]
    return tuple(out)


def chain_family(
    widths: Sequence[int], rows: Sequence[Activation], *, output: Activation | None = None, samples: int = 1,
    inputs: Draw | None = None,
) -> GradientFamily:  # fmt: skip
    """The gradient fields of W_L s(... s(W_1 x + b_1) ...) + b_L.

    Args:
        widths: (n_0, ..., n_L), at least two.
        rows: the L - 1 hidden activations.
        output: an activation after the last layer.
        samples: data points whose gradients are added in one field.
        inputs: draws x, (count, samples, n_0); None: Gaussian of several sizes, or uniform residues.
    """
    shapes = blocks_of(widths)

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        h = tape.constant(data[0])
        for k, row in enumerate(rows):
            h = (h @ blocks[2 * k].T + blocks[2 * k + 1]).apply(row)
        h = h @ blocks[-2].T + blocks[-1]
        return h if output is None else h.apply(output)

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        x = ring.random(rng, (count, samples, widths[0]))
        if not ring.exact:  # inputs of several sizes see more of an activation
            x = x * np.exp(rng.uniform(-1.0, 1.5, (count, samples, 1)))
        return (x,)

    name = "-".join(map(str, widths)) + " " + "/".join(dict.fromkeys(r.label for r in rows) or ("affine",))
    return GradientFamily(name, shapes, forward, inputs or draw, (samples, widths[-1]))
