"""Polynomials in numbered symbols over Q, for identities between fields: products, division, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from fiberscope.errors import ScopeError

Monomial = tuple[tuple[int, int], ...]
"""Pairs (symbol, exponent) in ascending order of symbols."""
Number = int | Fraction

LARGEST = 200_000
"""Products of polynomials with more pairs of terms than this are refused."""


class Poly:
    """A polynomial in numbered symbols over Q.

    >>> x, y = Poly.symbol(0), Poly.symbol(1)
    >>> (x + y) * (x - y) - x * x + y * y == 0
    True
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, Number]) -> None:
        """Wrap a dictionary without zero coefficients; it is not copied."""
        self.terms = terms

    @classmethod
    def symbol(cls, index: int) -> Poly:
        """The symbol itself."""
        return cls({((index, 1),): 1})

    @classmethod
    def of(cls, value: Any) -> Poly:
        """A polynomial, from one or from a rational number."""
        if isinstance(value, Poly):
            return value
        q = Fraction(value)
        return cls({(): q} if q else {})

    def __add__(self, other: Any) -> Poly:
        """The sum."""
        if not isinstance(other, Poly | int | Fraction):
            return NotImplemented
        out = dict(self.terms)
        for m, c in Poly.of(other).terms.items():
            total = out.get(m, 0) + c
            if total:
                out[m] = total
            else:
                out.pop(m, None)
        return Poly(out)

    __radd__ = __add__

    def __neg__(self) -> Poly:
        """The negative."""
        return Poly({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Any) -> Poly:
        """The difference."""
        if not isinstance(other, Poly | int | Fraction):
            return NotImplemented
        return self + (-Poly.of(other))

    def __rsub__(self, other: Any) -> Poly:
        """The difference."""
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> Poly:
        """The product.

        Raises:
            ScopeError: if it has too many terms.
        """
        if not isinstance(other, Poly | int | Fraction):
            return NotImplemented
        right = Poly.of(other).terms
        if len(self.terms) * len(right) > LARGEST:
            raise ScopeError(
                f"a product of polynomials with {len(self.terms)} and {len(right)} terms is too large here"
            )
        out: dict[Monomial, Number] = {}
        for m, c in self.terms.items():
            for n, d in right.items():
                key = _times(m, n)
                out[key] = out.get(key, 0) + c * d
        return Poly({m: c for m, c in out.items() if c})

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Poly:
        """Divided by a nonzero number."""
        divisor = Poly.of(other)
        if set(divisor.terms) != {()}:
            raise ScopeError("division by an expression that is no nonzero number; polynomials only")
        return self * (1 / Fraction(divisor.terms[()]))

    def __pow__(self, exponent: int) -> Poly:
        """A power with an exponent 0, 1, 2, ..."""
        if not isinstance(exponent, int) or exponent < 0:
            raise ScopeError(f"power {exponent}; exponents of polynomials are 0, 1, 2, ...")
        out = Poly.of(1)
        for _ in range(exponent):
            out = out * self
        return out

    def __eq__(self, other: object) -> bool:
        """Equality of polynomials and numbers."""
        return isinstance(other, Poly | int | Fraction) and dict(self.terms) == dict(Poly.of(other).terms)

    def __hash__(self) -> int:
        """Of the terms."""
        return hash(frozenset(self.terms.items()))

    def __bool__(self) -> bool:
        """Whether it is not zero."""
        return bool(self.terms)

    @property
    def degree(self) -> int:
        """Total degree, -1 for zero."""
        return max((sum(e for _, e in m) for m in self.terms), default=-1)

    @property
    def symbols(self) -> set[int]:
        """The symbols that occur."""
        return {v for m in self.terms for v, _ in m}

    def text(self, names: Sequence[str], limit: int = 8) -> str:
        """In plain text with a name for each symbol; at most `limit` terms.

        >>> (2 * Poly.symbol(0) ** 2 - Poly.symbol(1)).text(["a", "b"])
        '2 * a^2 - b'
        """
        out = []
        for m in sorted(self.terms, key=_order, reverse=True)[:limit]:
            c = Fraction(self.terms[m])
            factors = [names[v] + (f"^{e}" if e > 1 else "") for v, e in m]
            size = [str(abs(c))] if abs(c) != 1 or not m else []
            out.append(("- " if c < 0 else "+ ") + " * ".join(size + factors))
        more = " + ..." if len(self.terms) > limit else ""
        return (" ".join(out).removeprefix("+ ") or "0") + more

    def derivative(self, symbol: int) -> Poly:
        """The partial derivative."""
        out: dict[Monomial, Number] = {}
        for m, c in self.terms.items():
            for k, (v, e) in enumerate(m):
                if v == symbol:
                    rest = m[:k] + (((v, e - 1),) if e > 1 else ()) + m[k + 1 :]
                    out[rest] = c * e
        return Poly(out)

    def at(self, values: Callable[[int], Any], constant: Callable[[Fraction], Any] = Fraction) -> Any:
        """The value at values(symbol), in whatever numbers these are."""
        total = constant(Fraction(0))
        for m, c in self.terms.items():
            term = constant(Fraction(c))
            for v, e in m:
                for _ in range(e):
                    term = term * values(v)
            total = total + term
        return total

    def remainder(self, divisors: Sequence[Poly]) -> Poly:
        """The remainder of division by several polynomials; zero only if self lies in their ideal.

        For one divisor zero exactly then.
        """
        heads = [max(d.terms, key=_order) for d in divisors]
        left, out = dict(self.terms), Poly({})
        while left:
            top = max(left, key=_order)
            c = left[top]
            for d, head in zip(divisors, heads, strict=True):
                factor = _quotient(top, head)
                if factor is not None:
                    share = Poly({factor: Fraction(c) / d.terms[head]}) * d
                    left = dict((Poly(left) - share).terms)
                    break
            else:
                del left[top]
                out = out + Poly({top: c})
        return out

    def primitive(self) -> tuple[Fraction, Poly]:
        """(c, p) with self = c p, c > 0, and p with coprime integer coefficients; (1, 0) for zero."""
        if not self.terms:
            return Fraction(1), self
        below = lcm(*(Fraction(c).denominator for c in self.terms.values()))
        ints = {m: int(c * below) for m, c in self.terms.items()}
        common = gcd(*ints.values())
        return Fraction(common, below), Poly({m: c // common for m, c in ints.items()})

    @property
    def positive(self) -> bool:
        """Whether its leading coefficient is positive; exactly one of p, -p is, unless p = 0."""
        return bool(self.terms) and self.terms[max(self.terms, key=_order)] > 0


def _times(m: Monomial, n: Monomial) -> Monomial:
    if not m or not n:
        return m or n
    merged = dict(m)
    for v, e in n:
        merged[v] = merged.get(v, 0) + e
    return tuple(sorted(merged.items()))


def _order(m: Monomial) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Graded lexicographic order."""
    return sum(e for _, e in m), tuple((-v, e) for v, e in m)


def _quotient(m: Monomial, n: Monomial) -> Monomial | None:
    left = dict(m)
    for v, e in n:
        left[v] = left.get(v, 0) - e
        if left[v] < 0:
            return None
    return tuple((v, e) for v, e in sorted(left.items()) if e)


class Counter:
    """New symbols, numbered on from a first number."""

    def __init__(self, first: int) -> None:
        """Start at `first`."""
        self.next = first

    def __call__(self) -> Poly:
        """The next symbol."""
        self.next += 1
        return Poly.symbol(self.next - 1)
