"""Families of vector fields on parameter space, and the polynomials in theta and data that they come from.

The family of a model F is {grad_theta <c, F(theta)(x)>} over inputs x and cotangents c (arXiv 2510.09564). Data enter
as a tuple of ring arrays whose first axis is the batch: one field for each batch member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.jets import Jets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable

Array = npt.NDArray[Any]
Data = tuple[Array, ...]


@runtime_checkable
class Family(Protocol):
    """Vector fields X_d(theta) on R^size, one for each value of the data d."""

    @property
    def size(self) -> int:
        """Number of coordinates M."""
        ...

    def draw(self, ring: Ring, rng: np.random.Generator, count: int) -> Data:
        """Random data of `count` fields."""
        ...

    def fields(self, theta: Nilpotent, data: Data, jets: Jets) -> Nilpotent:
        """The fields at theta, (batch, M): theta is (1, M) or (batch, M)."""
        ...


Forward = Callable[[Tape, Sequence[Variable], Data], Variable]
Draw = Callable[[Ring, np.random.Generator, int], Data]


@dataclass(frozen=True)
class GradientFamily:
    """The gradients of <c, F(theta)(x)>.

    Args:
        name: of the model.
        shapes: name and shape of each parameter block; theta is their concatenation, each row by row.
        forward: F from the parameter blocks, each (batch or 1, *shape) with vectors as (., 1, n), and the data.
        inputs: draws the data that `forward` reads, batch axis first.
        output: shape of F(theta)(x) without the batch axis; the cotangent c has it.
    """

    name: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    forward: Forward
    inputs: Draw
    output: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(prod(shape) for _, shape in self.shapes)

    def draw(self, ring: Ring, rng: np.random.Generator, count: int) -> Data:
        """Cotangents first, then the inputs."""
        return (ring.random(rng, (count, *self.output)), *self.inputs(ring, rng, count))

    def blocks(self, tape: Tape, theta: Nilpotent) -> list[Variable]:
        """The parameter blocks of theta (batch or 1, M); a vector of n becomes (batch or 1, 1, n)."""
        out, at = [], 0
        for _, shape in self.shapes:
            full = (1, *shape) if len(shape) == 1 else shape
            stop = at + prod(shape)
            out.append(tape.variable(theta.map(_cut(at, stop, full))))
            at = stop
        return out

    def fields(self, theta: Nilpotent, data: Data, jets: Jets) -> Nilpotent:
        """The gradients, (batch, M)."""
        tape = Tape(theta.ring, jets)
        cotangent, inputs = data[0], data[1:]
        blocks = self.blocks(tape, theta)
        output = self.forward(tape, blocks, inputs)
        parts = tape.gradient(output, Nilpotent(theta.ring, {0: cotangent}), blocks)
        sizes = [prod(shape) for _, shape in self.shapes]
        return _joined(parts, sizes, len(cotangent))

    def values(self, theta: Nilpotent, data: Data, jets: Jets) -> Nilpotent:
        """F(theta)(x) for each batch member; data without the cotangent."""
        tape = Tape(theta.ring, jets)
        return self.forward(tape, self.blocks(tape, theta), data).value


def _cut(start: int, stop: int, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda a: a[:, start:stop].reshape(a.shape[0], *shape)


def _joined(parts: Sequence[Nilpotent], sizes: Sequence[int], count: int) -> Nilpotent:
    masks = sorted({mask for part in parts for mask in part.parts})
    first = next(iter(parts[0].parts.values()))
    out = {}
    for mask in masks:
        whole = np.zeros((count, sum(sizes)), dtype=first.dtype)
        at = 0
        for part, size in zip(parts, sizes, strict=True):
            if mask in part.parts:
                a = part.parts[mask]
                if a.size != a.shape[0]:
                    whole[:, at : at + size] = a.reshape(a.shape[0], size)
                else:
                    whole[:, at : at + size] = a.reshape(a.shape[0], 1)
            at += size
        out[mask] = whole
    return Nilpotent(parts[0].ring, out)


@dataclass(frozen=True)
class RestrictedFamily:
    """The fields of a family on which some coordinates are held fixed.

    Args:
        family: on all coordinates.
        held: exact values of all coordinates; only those of fixed ones are read.
        free: indices of the coordinates that move.
    """

    family: Family
    held: Array
    free: Array

    @property
    def size(self) -> int:
        """Number of free coordinates."""
        return len(self.free)

    def draw(self, ring: Ring, rng: np.random.Generator, count: int) -> Data:
        """As the whole family."""
        return self.family.draw(ring, rng, count)

    def fields(self, theta: Nilpotent, data: Data, jets: Jets) -> Nilpotent:
        """The free components of the fields."""
        ring, size = theta.ring, self.family.size

        def spread(a: Array, start: Array | None = None) -> Array:
            out = np.zeros((a.shape[0], size), dtype=a.dtype) if start is None else np.tile(start, (a.shape[0], 1))
            out[:, self.free] = a
            return out

        fixed = ring.array(self.held)
        parts = {mask: spread(a, None if mask else fixed) for mask, a in theta.parts.items()}
        return self.family.fields(Nilpotent(ring, parts), data, jets).map(lambda a: a[:, self.free])
