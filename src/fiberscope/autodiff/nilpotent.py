"""Nilpotent (multi-dual) numbers: polynomials in eps_1, eps_2, ... with eps_i^2 = 0 over a ring, as sparse arrays.

f(theta + eps v) = f(theta) + eps Df(theta) v holds without error, and nesting it gives higher derivatives: the
coefficient of eps_1 eps_2 in f(theta + eps_1 u + eps_2 v) is D^2 f(theta)[u, v].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import factorial
from typing import Any

import numpy.typing as npt

from fiberscope.autodiff.rings import Ring

Array = npt.NDArray[Any]


class Nilpotent:
    """An array of nilpotent numbers: `parts[mask]` is the coefficient of the product of eps_i over the bits of mask.

    Absent parts are zero; shapes of parts may differ by broadcasting.

    >>> import numpy as np
    >>> from fiberscope.autodiff.rings import Floats
    >>> x = Nilpotent(Floats(), {0: np.array([3.0]), 1: np.array([1.0])})  # 3 + eps
    >>> float((x * x).parts[1][0])  # the derivative of x^2
    6.0
    """

    __slots__ = ("parts", "ring")

    def __init__(self, ring: Ring, parts: Mapping[int, Array]) -> None:
        """Wrap the given parts; they are not copied."""
        self.ring = ring
        self.parts = dict(parts)

    @property
    def real(self) -> Array:
        """The part without eps."""
        return self.parts[0]

    @property
    def order(self) -> int:
        """Number of different eps: products of more than this many infinitesimals vanish."""
        union = 0
        for mask in self.parts:
            union |= mask
        return union.bit_count()

    def part(self, bit: int) -> Nilpotent | None:
        """The factor of eps_bit, or None if it is zero."""
        found = {mask & ~(1 << bit): a for mask, a in self.parts.items() if mask >> bit & 1}
        return Nilpotent(self.ring, found) if found else None

    def without(self, bit: int) -> Nilpotent:
        """The parts without eps_bit."""
        return Nilpotent(self.ring, {mask: a for mask, a in self.parts.items() if not mask >> bit & 1})

    def along(self, direction: Nilpotent, bit: int) -> Nilpotent:
        """Self + eps_bit direction."""
        return Nilpotent(self.ring, {**self.parts, **{mask | 1 << bit: a for mask, a in direction.parts.items()}})

    def map(self, function: Callable[[Array], Array]) -> Nilpotent:
        """A linear map without constant, applied to every part."""
        return Nilpotent(self.ring, {mask: function(a) for mask, a in self.parts.items()})

    def product(self, other: Nilpotent, bilinear: Callable[[Array, Array], Array]) -> Nilpotent:
        """A bilinear product, extended to the eps. 3^k products for k eps in both factors."""
        out: dict[int, Array] = {}
        for left, a in self.parts.items():
            for right, b in other.parts.items():
                if left & right == 0:
                    value = bilinear(a, b)
                    mask = left | right
                    out[mask] = self.ring.add(out[mask], value) if mask in out else value
        return Nilpotent(self.ring, out)

    def __add__(self, other: Nilpotent) -> Nilpotent:
        """The sum."""
        out = dict(self.parts)
        for mask, b in other.parts.items():
            out[mask] = self.ring.add(out[mask], b) if mask in out else b
        return Nilpotent(self.ring, out)

    def __neg__(self) -> Nilpotent:
        """The negative."""
        return self.map(self.ring.negative)

    def __sub__(self, other: Nilpotent) -> Nilpotent:
        """The difference."""
        return self + (-other)

    def __mul__(self, other: Nilpotent) -> Nilpotent:
        """The product, entry by entry."""
        return self.product(other, self.ring.multiply)

    def __matmul__(self, other: Nilpotent) -> Nilpotent:
        """The product of stacks of matrices."""
        return self.product(other, self.ring.matmul)

    def scaled(self, factor: Any) -> Nilpotent:
        """Times a ring element."""
        return self.map(lambda a: self.ring.multiply(a, factor))

    def expand(self, jets: list[Array]) -> Nilpotent:
        """s(self) for the derivatives jets[j] = s^(j)(real): the sum of jets[j] n^j / j! with n = self - real."""
        small = Nilpotent(self.ring, {mask: a for mask, a in self.parts.items() if mask})
        out = Nilpotent(self.ring, {0: jets[0]})
        power: Nilpotent | None = None
        for j in range(1, min(len(jets) - 1, self.order) + 1):
            power = small if power is None else power.product(small, self.ring.multiply)
            if not power.parts:
                break
            # the square of a nilpotent counts each pair twice, so that n^j / j! has no denominators left
            share = power.scaled(_inverse_factorial(self.ring, j)) if j > 1 else power
            out = out + share.product(Nilpotent(self.ring, {0: jets[j]}), self.ring.multiply)
        return out


def _inverse_factorial(ring: Ring, j: int) -> Any:
    return ring.constant(Fraction(1, factorial(j)))
