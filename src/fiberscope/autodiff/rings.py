"""The numbers that derivatives are taken over: float64 or residues modulo a prime (objects: `objects`)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PRIME = 2**31 - 1
"""A Mersenne prime: products of two residues fit int64."""
_HALF = 16
_NARROW = 8
"""Inner dimensions up to here are multiplied without splitting into halves."""


class Ring(Protocol):
    """Commutative ring with array operations; all arrays have the batch axis first."""

    exact: bool

    def constant(self, value: Fraction | int) -> Any:
        """A rational number as a ring element.

        Raises:
            ZeroDivisionError: if its denominator is no unit.
        """
        ...

    def array(self, values: Array) -> Array:
        """Ring elements from an exact array (floats are the rationals that they are, or `Fraction` objects)."""
        ...

    def random(self, rng: np.random.Generator, shape: Sequence[int]) -> Array:
        """Random elements: standard normal, or uniform residues."""
        ...

    def add(self, a: Array, b: Array) -> Array:
        """The sum, with broadcasting."""
        ...

    def negative(self, a: Array) -> Array:
        """The negative."""
        ...

    def multiply(self, a: Array, b: Any) -> Array:
        """The product, entry by entry with broadcasting."""
        ...

    def matmul(self, a: Array, b: Array) -> Array:
        """The product of stacks of matrices, (b1, m, k) with (b2, k, n), b1 = b2 or one of them 1."""
        ...

    def sum(self, a: Array, axis: int) -> Array:
        """The sum over one axis, which is kept with length 1."""
        ...

    def inverse(self, a: Array) -> Array:
        """1 / a, entry by entry."""
        ...


class Floats:
    """Float64."""

    exact = False

    def constant(self, value: Fraction | int) -> float:
        """The nearest float."""
        return float(value)

    def array(self, values: Array) -> Array:
        """Entries rounded to float64."""
        return np.asarray(values, dtype=np.float64)

    def random(self, rng: np.random.Generator, shape: Sequence[int]) -> Array:
        """Standard normal numbers."""
        return rng.standard_normal(tuple(shape))

    def add(self, a: Array, b: Array) -> Array:
        """The sum."""
        return np.asarray(a + b)

    def negative(self, a: Array) -> Array:
        """The negative."""
        return np.asarray(-a)

    def multiply(self, a: Array, b: Any) -> Array:
        """The product, entry by entry."""
        return np.asarray(a * b)

    def matmul(self, a: Array, b: Array) -> Array:
        """A b; one large product where the right factor is shared by the batch."""
        return _shared_matmul(a, b)

    def sum(self, a: Array, axis: int) -> Array:
        """Sum over one axis, kept."""
        return np.asarray(a.sum(axis=axis, keepdims=True))

    def inverse(self, a: Array) -> Array:
        """1 / a."""
        return np.asarray(1.0 / a)


class Residues:
    """Integers modulo a prime below 2^31, in int64.

    A matrix of residues has at most the rank of the rational (generic: polynomial) matrix it comes from.

    >>> ring = Residues()
    >>> int(ring.multiply(ring.array(np.array([0.5])), 2)[0])
    1
    """

    exact = True

    def __init__(self, prime: int = PRIME) -> None:
        """Residues modulo `prime`."""
        self.prime = prime

    def constant(self, value: Fraction | int) -> int:
        """The residue of a rational number."""
        q = Fraction(value)
        if q.denominator % self.prime == 0:
            raise ZeroDivisionError(f"the denominator of {q} is divisible by the prime {self.prime}")
        return q.numerator * pow(q.denominator, -1, self.prime) % self.prime

    def array(self, values: Array) -> Array:
        """The residues of floats (dyadic rationals) and `Fraction` objects."""
        array = np.asarray(values)
        if array.dtype.kind in "iu":
            return np.asarray(array.astype(np.int64) % self.prime)
        if array.dtype == object:
            flat = [self.constant(v) for v in array.reshape(-1)]
            return np.array(flat, dtype=np.int64).reshape(array.shape)
        mantissa, power = np.frexp(array.astype(np.float64))
        ints = np.ldexp(mantissa, 53).astype(np.int64) % self.prime
        # 2^31 = 1 modulo the Mersenne prime would do; a table serves every prime
        shifts, where = np.unique(power.astype(np.int64) - 53, return_inverse=True)
        two = Fraction(2)
        table = np.array([self.constant(two ** int(s)) for s in shifts], dtype=np.int64)
        return np.asarray(ints * table[where].reshape(ints.shape) % self.prime)

    def random(self, rng: np.random.Generator, shape: Sequence[int]) -> Array:
        """Uniform residues."""
        return rng.integers(0, self.prime, tuple(shape), dtype=np.int64)

    def add(self, a: Array, b: Array) -> Array:
        """The sum."""
        total = np.asarray(a + b)
        less = total - self.prime  # where negative, large without its sign
        return np.asarray(np.minimum(total.view(np.uint64), less.view(np.uint64))).view(np.int64)

    def negative(self, a: Array) -> Array:
        """The negative."""
        return np.asarray(np.where(a == 0, a, self.prime - a))

    def multiply(self, a: Array, b: Any) -> Array:
        """The product, entry by entry."""
        return np.asarray(a * b % self.prime)

    def matmul(self, a: Array, b: Array) -> Array:
        """A b by float64 products of 16-bit halves, exact for inner dimensions up to 2^21."""
        inner = a.shape[-1]
        if not inner:
            return np.zeros((max(a.shape[0], b.shape[0]), a.shape[1], b.shape[2]), dtype=np.int64)
        if inner <= _NARROW and a.shape[-2] * b.shape[-1] * max(a.shape[0], b.shape[0]) <= 1 << 22:
            out = a[..., :, :1] * b[..., :1, :] % self.prime
            for k in range(1, inner):
                out += a[..., :, k : k + 1] * b[..., k : k + 1, :] % self.prime
            return np.asarray(out % self.prime)
        (a1, a0), (b1, b0) = self._halves(a), self._halves(b)
        high, low = self._whole(a1, b1), self._whole(a0, b0)
        cross = (self._whole(a1, b0) + self._whole(a0, b1)) % self.prime
        return np.asarray(((high << _HALF) % self.prime + cross << _HALF) % self.prime + low) % self.prime

    def sum(self, a: Array, axis: int) -> Array:
        """Sum over one axis, kept; exact for up to 2^32 terms."""
        return np.asarray(a.sum(axis=axis, keepdims=True) % self.prime)

    def inverse(self, a: Array) -> Array:
        """1 / a by Fermat's little theorem.

        Raises:
            ZeroDivisionError: if an entry is 0.
        """
        if (a == 0).any():
            raise ZeroDivisionError("0 has no inverse modulo a prime")
        return self.power(a, self.prime - 2)

    def power(self, a: Array, exponent: int) -> Array:
        """A^exponent by repeated squaring."""
        out, base = np.ones_like(a), a
        while exponent:
            if exponent & 1:
                out = out * base % self.prime
            base = base * base % self.prime
            exponent >>= 1
        return np.asarray(out)

    def _halves(self, a: Array) -> tuple[Array, Array]:
        return (a >> _HALF).astype(np.float64), (a & ((1 << _HALF) - 1)).astype(np.float64)

    def _whole(self, a: Array, b: Array) -> Array:
        return np.asarray(_shared_matmul(a, b).astype(np.int64) % self.prime)


def _shared_matmul(a: Array, b: Array) -> Array:
    if b.shape[0] == 1 and a.shape[0] > 1 and a.ndim == 3:
        rows = a.reshape(-1, a.shape[-1]) @ b[0]
        return np.asarray(rows.reshape(a.shape[0], a.shape[1], -1))
    if a.shape[-1] == 1:
        return np.asarray(a * b)
    return np.asarray(a @ b)
