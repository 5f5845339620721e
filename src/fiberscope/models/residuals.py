"""Residual blocks as a model: the laws of each branch, as without the skips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_sizes
from fiberscope.autodiff.families import Data, GradientFamily
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable
from fiberscope.models.affine import paired
from fiberscope.models.model import Model, balances, offsets_of
from fiberscope.models.networks import PATHS

Array = npt.NDArray[Any]


def residual(inputs: int, hidden: int, *, blocks: int = 1) -> Model:
    """Blocks h <- h + U_l relu(V_l h) for l = 1, ..., blocks: |V_i|^2 - |U_i|^2 for each hidden unit of each block.

    Args:
        inputs: d, the width of the stream.
        hidden: units of each block.
        blocks: number of blocks.

    Raises:
        InputError: for a size that is no whole number >= 1.

    Source: arXiv 2506.06194.

    >>> residual(2, 4, blocks=2).size
    32
    """
    inputs, hidden, blocks = as_sizes(inputs=inputs, hidden=hidden, blocks=blocks)
    shapes = tuple(
        (f"{name}{k}", shape) for k in range(1, blocks + 1) for name, shape in
        (("V", (hidden, inputs)), ("U", (inputs, hidden)))
    )  # fmt: skip

    def forward(tape: Tape, parts: Sequence[Variable], data: Data) -> Variable:
        h = tape.constant(data[0])
        for k in range(blocks):
            h = h + (h @ parts[2 * k].T * tape.constant(data[1 + k])) @ parts[2 * k + 1].T
        return h

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        gates = (ring.random(rng, (count, 1, hidden)) for _ in range(blocks))
        return (ring.random(rng, (count, 1, inputs)), *gates)

    places = offsets_of(shapes)
    size = 2 * blocks * inputs * hidden
    units = [(i, i) for i in range(hidden)]
    laws = tuple(
        balances(paired(size, places[f"V{k}"], places[f"U{k}"].T, units), f"V{k}_i", f"U{k}_i")
        for k in range(1, blocks + 1)
    )
    family = GradientFamily(f"{blocks} residual blocks of {hidden} units", shapes, forward, draw, (1, inputs))
    return Model(family.name, family, laws, "arXiv 2506.06194", note=PATHS)
