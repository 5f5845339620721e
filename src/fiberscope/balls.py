"""Certified enclosures of elementary functions over float intervals, by ball arithmetic (python-flint's `arb`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Ball = Any
"""An `arb` of python-flint."""
BallFunction = Callable[[Ball], Ball]
"""A function of one `arb` that returns an `arb`."""

_PRECISION = 90


def evaluate(function: BallFunction, x: float) -> tuple[float, float]:
    """Floats (low, high) around function(x) at one float, a few units in the last place apart.

    >>> low, high = evaluate(lambda x: x.tanh(), 0.5)
    >>> low <= math.tanh(0.5) <= high and high - low < 1e-15
    True
    """
    import flint

    with flint.ctx.workprec(_PRECISION):
        return _outward(function(flint.arb(x)))


def over(function: BallFunction, low: float, high: float) -> tuple[float, float]:
    """Floats around the values of the function on a short interval."""
    import flint

    with flint.ctx.workprec(_PRECISION):
        return _outward(function(flint.arb(low).union(flint.arb(high))))


def _outward(ball: Any) -> tuple[float, float]:
    if not ball.is_finite():
        return -math.inf, math.inf
    middle = float(ball)
    if ball.is_exact() and type(ball)(middle) == ball:
        return middle, middle
    low, high = float(ball.lower()), float(ball.upper())
    return math.nextafter(low, -math.inf), math.nextafter(high, math.inf)


def enclose(
    function: BallFunction,
    low: FloatArray,
    high: FloatArray,
    *,
    limits: tuple[float, float],
    extrema: Sequence[tuple[float, float]] = (),
    image: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[FloatArray, FloatArray]:
    """Enclosures of function([low, high]), elementwise, for a function monotone between its extrema.

    Args:
        function: on `arb` balls.
        low: lower ends of the intervals, infinite ones allowed, any shape.
        high: upper ends, of the same shape.
        limits: values at -inf and +inf.
        extrema: brackets (a, b) around all points where monotony changes.
        image: a proved enclosure of all values, which the result is clipped to.

    Returns:
        (lower, upper), float64, rounded outward. O(size) ball evaluations.
    """
    turning = [(a, b, *over(function, a, b)) for a, b in extrema]
    out = np.empty((2, low.size))
    known: dict[float, tuple[float, float]] = {-math.inf: (limits[0],) * 2, math.inf: (limits[1],) * 2}
    for k, (a, b) in enumerate(zip(low.reshape(-1).tolist(), high.reshape(-1).tolist(), strict=True)):
        for x in (a, b):
            if x not in known:
                known[x] = evaluate(function, x)
        values = [known[a], known[b], *(v[2:] for v in turning if a <= v[1] and v[0] <= b)]
        out[0, k] = max(min(v[0] for v in values), image[0])
        out[1, k] = min(max(v[1] for v in values), image[1])
    return out[0].reshape(low.shape), out[1].reshape(low.shape)


def enclose_wave(
    function: BallFunction, low: FloatArray, high: FloatArray, shift: float
) -> tuple[FloatArray, FloatArray]:
    """Enclosures of a wave with maxima 1 at pi (2 k + shift) and minima -1 half a period later."""
    out = np.empty((2, low.size))
    for k, (a, b) in enumerate(zip(low.reshape(-1).tolist(), high.reshape(-1).tolist(), strict=True)):
        if not b - a < 2 * math.pi or max(abs(a), abs(b)) > 1e15:
            out[:, k] = -1.0, 1.0
            continue
        values = [evaluate(function, a), evaluate(function, b)]
        top, bottom = (_meets(a, b, shift + offset) for offset in (0.0, 1.0))
        out[0, k] = -1.0 if bottom else max(min(v[0] for v in values), -1.0)
        out[1, k] = 1.0 if top else min(max(v[1] for v in values), 1.0)
    return out[0].reshape(low.shape), out[1].reshape(low.shape)


def _meets(a: float, b: float, shift: float) -> bool:
    """Whether [a, b] may contain a point pi (2 k + shift)."""
    import flint

    with flint.ctx.workprec(_PRECISION + 60):
        turns = [(flint.arb(x) / flint.arb.pi() - shift) / 2 for x in (a, b)]
        first, last = math.ceil(_outward(turns[0])[0]), math.floor(_outward(turns[1])[1])
    return first <= last


def real_roots(coefficients: Sequence[Fraction]) -> tuple[tuple[float, float], ...] | None:
    """Brackets of the distinct real roots of c_0 + c_1 z + ..., ascending; None for the zero polynomial.

    >>> real_roots([Fraction(0), Fraction(-4), Fraction(0), Fraction(1)])
    ((-2.0, -2.0), (0.0, 0.0), (2.0, 2.0))
    """
    import flint

    if not any(coefficients):
        return None
    common = math.lcm(*(c.denominator for c in coefficients))
    poly = flint.fmpz_poly([int(c * common) for c in coefficients])
    if poly.degree() < 1:
        return ()
    squarefree = poly // poly.gcd(poly.derivative())
    return tuple(sorted(_outward(root.real) for root, _ in squarefree.complex_roots() if root.imag == 0))


def one() -> Ball:
    """The number 1 as a ball; arithmetic with it makes balls of everything."""
    import flint

    return flint.arb(1)


def precision(bits: int = 128) -> Any:
    """A context in which balls are computed with this many bits."""
    import flint

    return flint.ctx.workprec(bits)


def middles(array: npt.NDArray[Any]) -> FloatArray:
    """Midpoints of balls, as floats."""
    return np.array([float(v) for v in array.reshape(-1)]).reshape(array.shape)


def full_row_rank(rows: npt.NDArray[Any]) -> bool:
    """Whether every matrix within the balls has independent rows, proved: |I - A B| < 1 for an approximate inverse B.

    >>> full_row_rank(one() * np.array([[1, 2], [3, 4]], dtype=object))
    True
    >>> full_row_rank(one() * np.array([[1, 2], [2, 4]], dtype=object))
    False
    """
    import flint

    if not rows.size:
        return not len(rows)
    near = np.linalg.pinv(middles(rows))
    if not np.isfinite(near).all():
        return False
    product = flint.arb_mat(rows.tolist()) * flint.arb_mat(near.tolist())
    defect = product - flint.arb_mat([[int(i == j) for j in range(len(rows))] for i in range(len(rows))])
    return all(bool(sum((abs(v) for v in row), flint.arb(0)) < 1) for row in defect.tolist())
