"""Networks whose rows of weights are divided by their norms: scale invariance keeps each |w_i|^2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_sizes
from fiberscope.autodiff.families import Data, GradientFamily
from fiberscope.autodiff.rings import Residues, Ring
from fiberscope.autodiff.tape import Tape, Variable
from fiberscope.models.affine import AffineFields
from fiberscope.models.formulas import inverse_root
from fiberscope.models.model import Model, Symmetry, offsets_of

Array = npt.NDArray[Any]


def normalised(inputs: int, hidden: int, outputs: int, activation: str | Activation = "tanh") -> Model:
    """U s(W x / |W_i|), row by row: |w_i|^2 for each row.

    Args:
        inputs: d.
        hidden: rows of W.
        outputs: m.
        activation: s.

    Raises:
        InputError: for a size that is no whole number >= 1, or an unknown activation.

    Source: arXiv 2012.04728 (scale symmetry).

    >>> normalised(3, 4, 2).symmetries[0].fields.count
    4
    """
    inputs, hidden, outputs = as_sizes(inputs=inputs, hidden=hidden, outputs=outputs)
    row = find_activation(activation)
    shapes = (("W", (hidden, inputs)), ("U", (outputs, hidden)))

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        w = blocks[0]
        scale = inverse_root((w * w).sum(-1))
        return (tape.constant(data[0]) @ (w * scale).T).apply(row) @ blocks[1].T

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        return (ring.random(rng, (count, 1, inputs)),)

    size = hidden * (inputs + outputs)
    fields = AffineFields.diagonal(size, [[(index, 2)] for index in offsets_of(shapes)["W"]])
    law = Symmetry("norm", "|w_i|^2", r"\lVert w_i \rVert^2", fields)
    family = GradientFamily(f"normalised {inputs}-{hidden}-{outputs} {row.label}", shapes, forward, draw, (1, outputs))

    def theta(ring: Ring, rng: np.random.Generator) -> Array:
        rows = [square_norm(ring, rng, inputs) for _ in range(hidden)]
        return np.concatenate([*rows, ring.random(rng, (hidden * outputs,))])

    return Model(family.name, family, (law,), "arXiv 2012.04728", polynomial=False, point=theta)


def square_norm(ring: Ring, rng: np.random.Generator, count: int) -> Array:
    """A random vector whose squared norm has a square root in the ring."""
    while True:
        w = ring.random(rng, (count,))
        if not isinstance(ring, Residues):
            return w
        total = ring.sum(ring.multiply(w, w)[None], -1)
        if int(ring.power(total, (ring.prime - 1) // 2)[0, 0]) == 1:
            return w
