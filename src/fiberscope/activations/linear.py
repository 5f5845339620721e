"""Piecewise linear rows: ReLU and its kin, described by their pieces over Q."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations.rows import INF, Activation, Array, Enclosure, Exact, FloatArray, Piece, above, below
from fiberscope.errors import UnsupportedError

BoolArray = npt.NDArray[np.bool_]

_ZERO, _ONE = Fraction(0), Fraction(1)
_EPS = float(np.finfo(np.float64).eps)
_HUGE = float(np.finfo(np.float64).max) * (1 - 4 * _EPS)
_TINY = 1e-300
"""More than all underflow of one product and one sum."""


def _linear_pieces(knots: Sequence[Fraction], slopes: Sequence[Fraction], value: Fraction) -> tuple[Piece, ...]:
    """Pieces of the continuous function with these knots and slopes and this value at the first knot."""
    ends: list[Fraction | None] = [None, *knots, None]
    out, intercept = [], value - slopes[0] * knots[0]
    for k, slope in enumerate(slopes):
        if k:
            intercept += (slopes[k - 1] - slope) * knots[k - 1]
        out.append(Piece(ends[k], ends[k + 1], slope, intercept))
    return tuple(out)


def _piecewise(pieces: tuple[Piece, ...]) -> tuple[Exact, Enclosure]:
    knots = [p.hi for p in pieces[:-1] if p.hi is not None]

    def exact(q: Fraction) -> Fraction:
        piece = next(p for p in pieces if p.hi is None or q <= p.hi)
        return piece.slope * q + piece.intercept

    def at(x: FloatArray, up: bool) -> FloatArray:
        """s(x) rounded up or down, exact where the value is a float."""
        out = np.empty_like(x)
        for k, piece in enumerate(pieces):
            inside = np.ones(x.shape, np.bool_) if k == 0 else x >= float(knots[k - 1])
            out[inside] = _affine(piece, x[inside], up)
        return out

    def enclosure(lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        lower = np.minimum(at(lo, False), at(hi, False))
        upper = np.maximum(at(lo, True), at(hi, True))
        # a knot between two floats counts for both ends it may round to, so `at` may take either piece there
        for knot in knots:
            meets, value = (lo <= float(knot)) & (float(knot) <= hi), exact(knot)
            lower = np.where(meets, np.minimum(lower, below(value)), lower)
            upper = np.where(meets, np.maximum(upper, above(value)), upper)
        return lower, upper

    return exact, enclosure


def _affine(piece: Piece, x: FloatArray, up: bool) -> FloatArray:
    """The value slope x + intercept rounded up or down, exact where no operation rounds."""
    if piece.slope == 0:
        return np.full_like(x, above(piece.intercept) if up else below(piece.intercept))
    slope, shift = float(piece.slope), float(piece.intercept)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        product = slope * x
        out = product + shift
        kept = (x == 0) if Fraction(slope) != piece.slope else _product_is_exact(slope, x, product)
        kept = kept & _sum_is_exact(product, shift) & (Fraction(shift) == piece.intercept)
        # two rounded coefficients, a product and a sum: under 4 units of the sizes
        slack = 4 * _EPS * (np.abs(product) + abs(shift)) + _TINY
        moved = out + slack if up else out - slack
    # a product that overflows is at least almost the largest float in size; nothing more is known with a shift
    away, far = (-INF, -_HUGE) if up else (INF, _HUGE)
    moved = np.where(np.isnan(moved), np.where((out == away) & (shift == 0), far, -away), moved)
    return np.asarray(np.where(kept | np.isinf(x), out, moved))


def _sum_is_exact(a: FloatArray, b: float) -> BoolArray:
    """Whether a + b does not round: Knuth's error term is zero."""
    if b == 0:
        return np.isfinite(a)
    total = a + b
    other = total - a
    return np.asarray((a - (total - other)) + (b - other) == 0)


def _product_is_exact(a: float, x: FloatArray, product: FloatArray) -> BoolArray:
    """Whether a x does not round: Dekker's error term is zero, where it cannot underflow."""
    if abs(a) == 1:
        return np.ones(x.shape, np.bool_)
    (a_high, a_low), (x_high, x_low) = _halves(np.float64(a)), _halves(x)
    rest = ((a_high * x_high - product) + a_high * x_low + a_low * x_high) + a_low * x_low
    large = (np.abs(product) > 1e-250) & (np.abs(x) > 1e-250) & (abs(a) > 1e-250)
    return np.asarray((x == 0) | ((rest == 0) & large))


def _halves(x: Any) -> tuple[Any, Any]:
    """Veltkamp's splitting x = high + low into 26 bits each."""
    scaled = 134217729.0 * x
    high = scaled - (scaled - x)
    return high, x - high


def _row(pieces: tuple[Piece, ...], function: Callable[[Array], Array], name: str, **claims: Any) -> Activation:
    exact, enclosure = _piecewise(pieces)
    slopes = [float(p.slope) for p in pieces]

    def derivative(z: Array) -> Array:
        out = np.full(np.shape(z), slopes[0], dtype=np.asarray(z).dtype)
        for left, slope in zip(pieces, slopes[1:], strict=False):
            if left.hi is not None:
                out = np.where(z > float(left.hi), np.asarray(slope, out.dtype), out)
        return out

    return Activation(
        name, claims.pop("parameters", ()), claims.pop("formula"), function, derivative, exact, enclosure,
        analytic=len(pieces) == 1, lipschitz=above(max(abs(p.slope) for p in pieces)), pieces=pieces,
        exact_over_q=True, **claims,
    )  # fmt: skip


def relu() -> Activation:
    """max(0, z)."""
    return _row(
        _linear_pieces([_ZERO], [_ZERO, _ONE], _ZERO), lambda z: np.maximum(z, z.dtype.type(0)), "relu",
        formula="max(0, z)", homogeneity=1, monotone=True, range_=(0.0, INF), zeros=None, critical_points=None,
    )  # fmt: skip


def leaky_relu(slope: Fraction = Fraction(1, 100)) -> Activation:
    """The identity for z > 0, slope z below."""
    pieces = _linear_pieces([_ZERO], [slope, _ONE], _ZERO)
    return _row(
        pieces, lambda z: np.where(z > 0, z, z * z.dtype.type(float(slope))), "leaky_relu", parameters=(slope,),
        formula="z if z > 0 else slope z", homogeneity=1, monotone=slope >= 0,
        range_=(0.0 if slope <= 0 else -INF, INF), zeros=(0.0,) if slope else None,
        critical_points=() if slope else None,
    )  # fmt: skip


def clip(low: Fraction = _ZERO, high: Fraction = Fraction(6)) -> Activation:
    """min(max(z, low), high)."""
    return _clip(low, high, "clip", (low, high))


def hard_tanh() -> Activation:
    """min(max(z, -1), 1)."""
    return _clip(-_ONE, _ONE, "hard_tanh", ())


def _clip(low: Fraction, high: Fraction, name: str, parameters: tuple[Fraction, ...]) -> Activation:
    if low > high:
        raise UnsupportedError(f"clip with lower end {float(low):g} above upper end {float(high):g}; give low <= high")
    a, b = float(low), float(high)
    zeros = None if low == 0 or high == 0 else ((0.0,) if low < 0 < high else ())
    return _row(
        _linear_pieces([low, high], [_ZERO, _ONE, _ZERO], low),
        lambda z: np.clip(z, z.dtype.type(a), z.dtype.type(b)), name,
        parameters=parameters, formula=f"min(max(z, {a:g}), {b:g})", parity="odd" if low == -high else None,
        monotone=True, range_=(below(low), above(high)), zeros=zeros, critical_points=None,
    )  # fmt: skip


def absolute() -> Activation:
    """|z|."""
    return _row(
        _linear_pieces([_ZERO], [-_ONE, _ONE], _ZERO), np.abs, "abs", formula="|z|", parity="even", homogeneity=1,
        range_=(0.0, INF), zeros=(0.0,),
    )  # fmt: skip


def identity() -> Activation:
    """The activation z."""
    return _row(
        (Piece(None, None, _ONE, _ZERO),), lambda z: z, "identity", formula="z", parity="odd", homogeneity=1,
        monotone=True, zeros=(0.0,),
    )  # fmt: skip
