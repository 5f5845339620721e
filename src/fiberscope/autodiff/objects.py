"""The kernel's numbers as objects: rationals, balls, and polynomials in symbols, which prove identities of fields.

A field evaluated at symbols is a polynomial; if it is the zero polynomial, the identity holds for every parameter,
input and cotangent. An activation that is no polynomial takes a fresh symbol for each different polynomial z that it is
applied to, subject to its laws (odd, even, homogeneous, value at 0), so that what is proved holds for its whole class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.autodiff.jets import evaluate, rule_of
from fiberscope.autodiff.symbols import Poly
from fiberscope.errors import ScopeError

Array = npt.NDArray[Any]


class Objects:
    """A ring of Python objects with + - *: `Fraction`, polynomials, or balls, in arrays of dtype object.

    Args:
        one: the number 1; every constant is made from it.
        fresh: makes the next random number, or None for small dyadic rationals.
    """

    exact = True

    def __init__(self, one: Any = Fraction(1), fresh: Callable[[], Any] | None = None) -> None:
        """Rationals by default."""
        self.one = one
        self.fresh = fresh

    def constant(self, value: Fraction | int) -> Any:
        """A rational number."""
        q = Fraction(value)
        return self.one * q if isinstance(self.one, Fraction | Poly) else self.one * q.numerator / q.denominator

    def array(self, values: Array) -> Array:
        """From an exact array."""
        return self.map(lambda v: self.constant(rationals.as_fraction(v)), np.asarray(values))

    def random(self, rng: np.random.Generator, shape: Sequence[int]) -> Array:
        """Nonzero eighths between -2 and 2, or new symbols."""
        eighths = rng.integers(1, 17, tuple(shape)) * rng.choice([-1, 1], tuple(shape))
        if self.fresh is not None:
            make = self.fresh
            return self.map(lambda _: make(), eighths)
        return self.map(lambda k: self.constant(Fraction(int(k), 8)), eighths)

    def add(self, a: Array, b: Array) -> Array:
        """The sum."""
        return np.asarray(a + b, dtype=object)

    def negative(self, a: Array) -> Array:
        """The negative."""
        return np.asarray(-a, dtype=object)

    def multiply(self, a: Array, b: Any) -> Array:
        """The product, entry by entry."""
        return np.asarray(a * b, dtype=object)

    def matmul(self, a: Array, b: Array) -> Array:
        """The product of stacks of matrices."""
        return np.asarray(a @ b, dtype=object)

    def sum(self, a: Array, axis: int) -> Array:
        """Sum over one axis, kept."""
        return np.asarray(a.sum(axis=axis, keepdims=True), dtype=object)

    def inverse(self, a: Array) -> Array:
        """1 / a.

        Raises:
            ScopeError: for polynomials.
        """
        if isinstance(self.one, Poly):
            raise ScopeError("the model divides by parameters or data: its fields are no polynomials")
        return self.map(lambda v: self.one / v, a)

    def map(self, function: Callable[[Any], Any], a: Array) -> Array:
        """A function of every entry."""
        out = np.empty(a.shape, dtype=object)
        flat = out.reshape(-1)
        for k, v in enumerate(a.reshape(-1)):
            flat[k] = function(v)
        return out


class SymbolicJets:
    """s(z) and s'(z) for polynomials z, as symbols that obey the laws of the activation's class.

    Args:
        fresh: makes a new symbol.
    """

    def __init__(self, fresh: Callable[[], Poly]) -> None:
        """No values yet."""
        self.fresh = fresh
        self.known: dict[Any, Poly] = {}

    def __call__(self, row: Activation, z: Array, order: int) -> list[Array]:
        """[s(z), s'(z)].

        Raises:
            ScopeError: for derivatives of higher order, which no identity of fields needs.
        """
        if row.name in ("identity", "square", "polynomial"):
            rule = rule_of(row)
            one = Objects(Poly.of(1))
            return [evaluate(rule.derivative(j), [z], one) for j in range(order + 1)]
        if order > 1:
            raise ScopeError("symbols are kept for values and slopes only")
        out = [np.empty(z.shape, dtype=object) for _ in range(order + 1)]
        for k, value in enumerate(z.reshape(-1)):
            for j, entry in enumerate(self._pair(row, Poly.of(value))[: order + 1]):
                out[j].reshape(-1)[k] = entry
        return out

    def _pair(self, row: Activation, z: Poly) -> tuple[Poly, Poly]:
        if row.pieces is not None and row.homogeneity == 1:
            slope = self._slope(row, z)
            return slope * z, slope
        flip = row.parity is not None and not z.positive
        key = -z if flip else z
        value, slope = self._symbol(row, 0, key), self._symbol(row, 1, key)
        if not z.symbols:
            found = row.value(Fraction(z.terms.get((), 0)))
            value = value if found is None else Poly.of(-found if flip and row.parity == "odd" else found)
        if not z and row.parity == "even" and row.analytic:
            slope = Poly.of(0)  # the derivative of an even function at 0
        if flip and z:
            return (-value, slope) if row.parity == "odd" else (value, -slope)
        return value, slope

    def _slope(self, row: Activation, z: Poly) -> Poly:
        """The gate s'(z) of a positively homogeneous piecewise linear activation; s(z) = s'(z) z."""
        if z and not z.symbols:
            q = Fraction(z.terms[()])
            return Poly.of(row.value(q) or 0) / q
        _, key = z.primitive()
        if row.parity == "even" and z and not key.positive:
            return -self._symbol(row, 1, -key)
        return self._symbol(row, 1, key)

    def _symbol(self, row: Activation, order: int, z: Poly) -> Poly:
        key = (row.name, row.parameters, order, z)
        if key not in self.known:
            self.known[key] = self.fresh()
        return self.known[key]


class ExactJets:
    """s(z) and s'(z) over Q, for polynomial and piecewise linear activations.

    >>> from fiberscope.activations import activation
    >>> value, slope = ExactJets()(activation("relu"), np.array([Fraction(-1, 2)], dtype=object), 1)
    >>> int(value[0]), int(slope[0])
    (0, 0)
    """

    def __call__(self, row: Activation, z: Array, order: int) -> list[Array]:
        """[s(z), s'(z), ...].

        Raises:
            ScopeError: if the activation has no values over Q, or z is at a kink.
        """
        ring = Objects()
        if row.name in ("identity", "square", "polynomial"):
            return [evaluate(rule_of(row).derivative(j), [z], ring) for j in range(order + 1)]
        if row.pieces is None or order > 1:
            raise ScopeError(f"{row.label} has no derivatives over the rationals")
        value = ring.map(lambda q: row.value(q), z)
        slope = ring.map(lambda q: _piece_slope(row, q), z)
        return [value, slope][: order + 1]


def _piece_slope(row: Activation, q: Fraction) -> Fraction:
    for piece in row.pieces or ():
        if (piece.lo is None or piece.lo < q) and (piece.hi is None or q < piece.hi):
            return piece.slope
    raise ScopeError(f"{row.label} has a kink at {q}")


class BallJets:
    """s(z), s'(z), ... in ball arithmetic, for the activations with a rule.

    Args:
        ring: whose numbers are balls.
    """

    def __init__(self, ring: Objects) -> None:
        """Keep the ring."""
        self.ring = ring

    def __call__(self, row: Activation, z: Array, order: int) -> list[Array]:
        """The balls.

        Raises:
            ScopeError: if the activation has no rule, or a ball holds a kink.
        """
        if row.pieces is not None and row.name != "identity" and order <= 1:
            value = self.ring.map(lambda ball: _piece(row, ball)[0], z)
            return [value, self.ring.map(lambda ball: _piece(row, ball)[1], z)][: order + 1]
        rule = rule_of(row)
        symbols = [z, *(self.ring.map(base.ball, z) for base in rule.bases)]
        return [evaluate(rule.derivative(j), symbols, self.ring) for j in range(order + 1)]


def _piece(row: Activation, ball: Any) -> tuple[Any, Any]:
    for piece in row.pieces or ():
        low = piece.lo is None or ball * piece.lo.denominator > piece.lo.numerator
        if low and (piece.hi is None or ball * piece.hi.denominator < piece.hi.numerator):
            slope = ball * 0 + piece.slope.numerator
            value = (ball * piece.slope.numerator) / piece.slope.denominator
            return value + (ball * 0 + piece.intercept.numerator) / piece.intercept.denominator, (
                slope / piece.slope.denominator
            )
    raise ScopeError(f"a ball holds a kink of {row.label}")


def proved_sign(compute: Callable[[Objects], Any]) -> tuple[float, float]:
    """Floats (low, high) around a number that is computed in ball arithmetic from the ring given.

    >>> low, high = proved_sign(lambda ring: ring.constant(Fraction(1, 3)))
    >>> low <= 1 / 3 <= high
    True
    """
    from fiberscope import balls

    return balls.evaluate(lambda one: compute(Objects(one)), 1.0)
