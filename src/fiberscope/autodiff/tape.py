"""Reverse-mode derivatives on nilpotent numbers: a model is written once and differentiated over any ring.

Every array has the batch axis first; parameters may have batch length 1 (shared by the batch). The gradient is taken
for each batch member by itself, so nothing is ever summed over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.autodiff.jets import Jets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Ring

Array = npt.NDArray[Any]
Pull = Callable[[Nilpotent], Sequence[Nilpotent | None]]


class Variable:
    """A value on the tape, with the usual operators; matrices are stacks (batch, m, n).

    >>> from fiberscope.autodiff.jets import TrueJets
    >>> from fiberscope.autodiff.rings import Floats
    >>> tape = Tape(Floats(), TrueJets())
    >>> x = tape.constant(np.array([[3.0]]))
    >>> gradient = tape.gradient(x * x, Nilpotent(tape.ring, {0: np.ones((1, 1))}), [x])[0]
    >>> float(gradient.real[0, 0])
    6.0
    """

    __slots__ = ("index", "parents", "pull", "tape", "value")

    def __init__(self, tape: Tape, value: Nilpotent, parents: tuple[Variable, ...] = (), pull: Pull | None = None):
        """Record a value with its parents and the map from its cotangent to theirs."""
        self.tape = tape
        self.value = value
        self.parents = parents
        self.pull = pull
        self.index = len(tape.trace)
        tape.trace.append(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the batch axis."""
        return tuple(self.value.real.shape[1:])

    def _make(self, value: Nilpotent, parents: tuple[Variable, ...], pull: Pull) -> Variable:
        return Variable(self.tape, value, parents, pull)

    def __add__(self, other: Variable) -> Variable:
        """Sum, with broadcasting."""
        return self._make(
            self.value + other.value, (self, other), lambda g: (_fold(g, self.shape), _fold(g, other.shape))
        )

    def __sub__(self, other: Variable) -> Variable:
        """Difference."""
        return self._make(
            self.value - other.value, (self, other), lambda g: (_fold(g, self.shape), _fold(-g, other.shape))
        )

    def __mul__(self, other: Variable) -> Variable:
        """Product, entry by entry, with broadcasting."""
        return self._make(
            self.value * other.value, (self, other),
            lambda g: (_fold(g * other.value, self.shape), _fold(g * self.value, other.shape)),
        )  # fmt: skip

    def __matmul__(self, other: Variable) -> Variable:
        """Product of stacks of matrices."""
        return self._make(
            self.value @ other.value, (self, other),
            lambda g: (g @ other.value.map(_flip), self.value.map(_flip) @ g),
        )  # fmt: skip

    @property
    def T(self) -> Variable:
        """Transpose of the last two axes."""
        return self._make(self.value.map(_flip), (self,), lambda g: (g.map(_flip),))

    def reshape(self, *shape: int) -> Variable:
        """Another shape, batch axis apart."""
        old = self.shape
        return self._make(
            self.value.map(lambda a: a.reshape(a.shape[0], *shape)), (self,),
            lambda g: (g.map(lambda a: a.reshape(a.shape[0], *old)),),
        )  # fmt: skip

    def sum(self, axis: int) -> Variable:
        """Sum over one axis counted from the end (negative), kept with length 1."""
        ring, length = self.tape.ring, self.shape[axis]
        return self._make(
            self.value.map(lambda a: ring.sum(a, axis)), (self,),
            lambda g: (g.map(lambda a: np.repeat(a, length, axis=axis)),),
        )  # fmt: skip

    def part(self, start: int, stop: int) -> Variable:
        """Entries start, ..., stop - 1 of the last axis."""
        length = self.shape[-1]

        def pull(g: Nilpotent) -> tuple[Nilpotent]:
            return (g.map(lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(start, length - stop)])),)

        return self._make(self.value.map(lambda a: a[..., start:stop]), (self,), pull)

    def take(self, index: Array) -> Variable:
        """Entries of the last axis by an index array, which may repeat entries."""
        ring, length = self.tape.ring, self.shape[-1]

        def back(a: Array) -> Array:
            out = np.zeros((*a.shape[: -index.ndim], length), dtype=a.dtype)
            flat = a.reshape(*a.shape[: -index.ndim], -1)
            for k, i in enumerate(index.reshape(-1)):
                out[..., i] = ring.add(out[..., i], flat[..., k])
            return out

        return self._make(self.value.map(lambda a: a[..., index]), (self,), lambda g: (g.map(back),))

    def apply(self, row: Activation) -> Variable:
        """An activation, entry by entry."""
        order = self.value.order
        jets = self.tape.jets(row, self.value.real, order + 1)
        slope = self.value.expand(jets[1:])
        return self._make(self.value.expand(jets[:-1]), (self,), lambda g: (g * slope,))

    def inverse(self) -> Variable:
        """1 / self, entry by entry."""
        ring, value = self.tape.ring, self.value
        first = ring.inverse(value.real)
        jets, sign = [first], 1
        for j in range(value.order):
            sign = -(j + 1)
            jets.append(ring.multiply(ring.multiply(jets[-1], first), ring.constant(sign)))
        out = value.expand(jets)
        return self._make(out, (self,), lambda g: (-(g * (out * out)),))


class Tape:
    """Records what is computed from its variables.

    Args:
        ring: of all numbers.
        jets: derivatives of activations over that ring.
    """

    def __init__(self, ring: Ring, jets: Jets) -> None:
        """An empty tape."""
        self.ring = ring
        self.jets = jets
        self.trace: list[Variable] = []

    def constant(self, array: Array) -> Variable:
        """Ring elements as a variable, batch axis first."""
        return Variable(self, Nilpotent(self.ring, {0: array}))

    def variable(self, value: Nilpotent) -> Variable:
        """A nilpotent number as a variable."""
        return Variable(self, value)

    def gradient(self, output: Variable, seed: Nilpotent, of: Sequence[Variable]) -> list[Nilpotent]:
        """Derivative of <seed, output> by each of `of`, for each batch member. Cost: a few times the evaluation."""
        found: dict[int, Nilpotent] = {output.index: seed}
        kept = {v.index for v in of}
        for node in reversed(self.trace[: output.index + 1]):
            g = found.get(node.index)
            if g is None or node.pull is None:
                continue
            for parent, share in zip(node.parents, node.pull(g), strict=True):
                if share is not None:
                    found[parent.index] = found[parent.index] + share if parent.index in found else share
            if node.index not in kept:
                del found[node.index]
        zero = Nilpotent(self.ring, {0: np.zeros((1, 1), dtype=seed.real.dtype)})
        return [found.get(v.index, zero) for v in of]


def _flip(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


def _fold(g: Nilpotent, shape: tuple[int, ...]) -> Nilpotent:
    """Sum over the axes along which an operand of this shape was repeated; never over the batch."""

    def fold(a: Array) -> Array:
        for axis, length in enumerate(shape, start=1):
            if length == 1 and a.shape[axis] != 1:
                a = g.ring.sum(a, axis)
        return a

    return g.map(fold)
