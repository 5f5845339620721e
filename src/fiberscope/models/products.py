"""Small models with closed-form laws: products of coordinates, exponentials, a single polynomial field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_count, as_sizes
from fiberscope.autodiff.families import Data, GradientFamily
from fiberscope.autodiff.jets import Jets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable
from fiberscope.models.affine import AffineFields
from fiberscope.models.formulas import exponential
from fiberscope.models.model import Model, Symmetry

Array = npt.NDArray[Any]


def product(size: int) -> Model:
    """phi(x) = x_1 x_2 ... x_D: the D - 1 laws x_i^2 - x_(i+1)^2. Source: arXiv 2307.00144.

    Raises:
        InputError: for a size that is no whole number >= 1.

    >>> product(3).symmetries[0].fields.count
    2
    """
    (size,) = as_sizes(size=size)

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        out = blocks[0].part(0, 1)
        for i in range(1, size):
            out = out * blocks[0].part(i, i + 1)
        return out

    family = GradientFamily(f"x1...x{size}", (("x", (size,)),), forward, lambda ring, rng, count: (), (1, 1))
    fields = AffineFields.diagonal(size, [[([i], 2), ([i + 1], -2)] for i in range(size - 1)])
    symmetry = Symmetry("balance", "x_i^2 - x_(i+1)^2", "x_i^2 - x_{i+1}^2", fields)
    one = (1, "all fields are multiples of one")
    return Model(family.name, family, (symmetry,) if size > 1 else (), "arXiv 2307.00144", bound=one)


def exponential_network(inputs: int, hidden: int, outputs: int = 1) -> Model:
    """sum_i a_i e^(w_i.x + b_i): the law b_i - |a_i|^2 / 2 of each neuron, from the shift of b_i that scales a_i.

    Raises:
        InputError: for a size that is no whole number >= 1.

    >>> exponential_network(1, 2).symmetries[0].fields.count
    2
    """
    inputs, hidden, outputs = as_sizes(inputs=inputs, hidden=hidden, outputs=outputs)
    shapes = (("W", (hidden, inputs)), ("b", (hidden,)), ("A", (outputs, hidden)))

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        return exponential(tape.constant(data[0]) @ blocks[0].T + blocks[1]) @ blocks[2].T

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        return (ring.random(rng, (count, 1, inputs)),)

    size, at = hidden * (inputs + 1 + outputs), hidden * inputs
    columns = at + hidden + np.arange(outputs * hidden).reshape(outputs, hidden)
    linear = [(i, columns[:, i], columns[:, i], -1) for i in range(hidden)]
    fields = AffineFields.of(size, hidden, linear, [(i, at + i, 1) for i in range(hidden)])
    law = Symmetry("shift", "b_i - |a_i|^2 / 2", r"b_i - \tfrac12 \lVert a_i \rVert^2", fields)
    family = GradientFamily(f"{inputs}-{hidden}-{outputs} exp", shapes, forward, draw, (1, outputs))
    return Model(family.name, family, (law,), "fiberscope", polynomial=False)


@dataclass(frozen=True, eq=False)
class PolynomialField:
    """Multiples of one vector field with polynomial components.

    Args:
        size: D.
        degree: largest degree of the components.
        seed: of their integer coefficients, from -9 to 9.
    """

    size: int
    degree: int
    seed: int

    @property
    def monomials(self) -> list[tuple[int, ...]]:
        """The variables of each monomial."""
        return [m for d in range(self.degree + 1) for m in combinations_with_replacement(range(self.size), d)]

    def draw(self, ring: Ring, rng: np.random.Generator, count: int) -> Data:
        """The factors."""
        return (ring.random(rng, (count, 1)),)

    def fields(self, theta: Nilpotent, data: Data, jets: Jets) -> Nilpotent:
        """The multiples of the field at theta."""
        ring = theta.ring
        coordinates = [Nilpotent(ring, {m: a[:, i : i + 1] for m, a in theta.parts.items()}) for i in range(self.size)]
        table = np.random.default_rng(self.seed).integers(-9, 10, (len(self.monomials), self.size))
        total = Nilpotent(ring, {0: np.zeros((1, self.size), dtype=theta.real.dtype)})
        for row, monomial in zip(table, self.monomials, strict=True):
            value = Nilpotent(ring, {0: np.full((1, 1), ring.constant(1), dtype=theta.real.dtype)})
            for i in monomial:
                value = value * coordinates[i]
            weights = np.array([[ring.constant(int(v)) for v in row]], dtype=theta.real.dtype)
            total = total + value * Nilpotent(ring, {0: weights})
        return total * Nilpotent(ring, {0: data[0]})


def polynomial_field(size: int = 5, *, degree: int = 2, seed: int = 0) -> Model:
    """One generic polynomial vector field: D - 1 local laws, in general none of them polynomial.

    Raises:
        InputError: for a size that is no whole number >= 1.

    Source: arXiv 2307.00144.

    >>> polynomial_field(3).bound[0]
    1
    """
    size, degree, seed = as_count(size, "size", 1), as_count(degree, "degree"), as_count(seed, "seed")
    one = (1, "all fields are multiples of one")
    return Model(
        f"one polynomial field on R^{size}", PolynomialField(size, degree, seed), (), "arXiv 2307.00144", bound=one
    )
