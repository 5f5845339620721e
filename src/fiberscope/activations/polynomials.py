"""Polynomial rows with exact rational coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from fiberscope import balls
from fiberscope.activations.rows import INF, Activation, Array, FloatArray, above, below
from fiberscope.activations.smooth import smooth_row
from fiberscope.errors import UnsupportedError

Brackets = Sequence[tuple[float, float]]

_MAX_DEGREE = 100
"""Isolating the roots of more takes seconds."""


def square() -> Activation:
    """z^2."""
    return _row([Fraction(0), Fraction(0), Fraction(1)], "square", ())


def polynomial(*coefficients: Fraction) -> Activation:
    """c_0 + c_1 z + ..."""
    terms = list(coefficients)
    while len(terms) > 1 and terms[-1] == 0:
        terms.pop()
    if not terms:
        raise UnsupportedError("polynomial without coefficients; give c_0, c_1, ...")
    if len(terms) > _MAX_DEGREE + 1:
        raise UnsupportedError(f"polynomial of degree {len(terms) - 1}; the limit is {_MAX_DEGREE}")
    return _row(terms, "polynomial", tuple(terms))


def _row(terms: list[Fraction], name: str, parameters: tuple[Fraction, ...]) -> Activation:
    slope = [k * c for k, c in enumerate(terms)][1:] or [Fraction(0)]
    critical, zeros = balls.real_roots(slope), balls.real_roots(terms)
    live = [k for k, c in enumerate(terms) if c]

    def exact(q: Fraction) -> Fraction:
        total = Fraction(0)
        for c in reversed(terms):
            total = total * q + c
        return total

    def ball(x: balls.Ball) -> balls.Ball:
        total = type(x)(0)
        for c in reversed(terms):
            total = total * x + type(x)(c.numerator) / c.denominator
        return total

    def constant(lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        return np.full_like(lo, below(terms[0])), np.full_like(hi, above(terms[0]))

    sign = 1 if terms[-1] > 0 else -1
    limits = (sign * (-1) ** (len(terms) - 1) * INF, sign * INF)
    degree = len(terms) - 1
    claims = {"enclosure": constant} if degree == 0 else {}
    return smooth_row(
        name, " + ".join(f"{c} z^{k}" for k, c in enumerate(terms) if c) or "0", _horner(terms), _horner(slope), ball,
        parameters=parameters, exact=exact, exact_over_q=True,
        parity="even" if not any(terms[1::2]) else "odd" if not any(terms[0::2]) else None,
        homogeneity=live[0] if len(live) == 1 and live[0] else None, monotone=_never_negative(slope, critical),
        lipschitz=INF if degree > 1 else above(abs(slope[0])),
        range_=_range(ball, critical, limits) if degree else (below(terms[0]), above(terms[0])),
        zeros=_middles(zeros), critical_points=_middles(critical), limits=limits, extrema=critical or (), **claims,
    )  # fmt: skip


def _middles(brackets: Brackets | None) -> tuple[float, ...] | None:
    return None if brackets is None else tuple(a / 2 + b / 2 for a, b in brackets)


def _range(ball: balls.BallFunction, critical: Brackets | None, limits: tuple[float, float]) -> tuple[float, float]:
    values = [(end, end) for end in limits] + [balls.over(ball, a, b) for a, b in critical or ()]
    return min(v[0] for v in values), max(v[1] for v in values)


def _never_negative(terms: Sequence[Fraction], roots: Brackets | None) -> bool:
    """Whether a polynomial is >= 0 everywhere, by its sign between its roots; False where they are not separated."""
    brackets = list(roots or ((0.0, 0.0),))
    if any(not math.isfinite(v) for bracket in brackets for v in bracket):
        return False
    if any(left[1] >= right[0] for left, right in zip(brackets, brackets[1:], strict=False)):
        return False
    ends = [Fraction(v) for bracket in brackets for v in bracket]
    points = [ends[0] - 1, *((a + b) / 2 for a, b in zip(ends[1::2], ends[2::2], strict=False)), ends[-1] + 1]
    return all(sum((c * x**k for k, c in enumerate(terms)), Fraction(0)) >= 0 for x in points)


def _horner(coefficients: Sequence[Fraction]) -> Callable[[Array], Array]:
    near = [_float(c) for c in coefficients]

    def evaluate(z: Array) -> Array:
        kind = z.dtype.type
        total: Array = np.full_like(z, near[-1] if near else 0.0)  # from the leading one: 0 * inf would be NaN
        for c in reversed(near[:-1]):
            total = np.asarray(total * z + kind(c))
        return total

    return evaluate


def _float(q: Fraction) -> float:
    """The nearest float, infinite on overflow."""
    try:
        return float(q)
    except OverflowError:
        return math.copysign(INF, q)
