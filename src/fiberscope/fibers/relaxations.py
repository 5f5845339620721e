"""One activation on many intervals: slopes of its secants, and parallel lines that enclose its graph.

Everything is rounded outward; where floats overflow the room becomes infinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation, activation

FloatArray = npt.NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_TINY = 1e-300
"""More than all underflows of a few operations together."""


@dataclass(frozen=True, eq=False)
class Strips:
    """|s(z) - slope z - shift| <= room on each interval; arrays of one shape, all float64."""

    slope: FloatArray
    shift: FloatArray
    room: FloatArray


def kink(row: Activation) -> float | None:
    """The slope on z < 0 of a ReLU-like activation that is z on z > 0, if it is a float in [0, 1); else None.

    >>> kink(activation("relu")), kink(activation("abs"))
    (0.0, None)
    """
    pieces = row.pieces or ()
    if len(pieces) != 2 or pieces[0].hi != 0 or any(p.intercept for p in pieces) or pieces[1].slope != 1:
        return None
    slope = pieces[0].slope
    return float(slope) if 0 <= slope < 1 and Fraction(float(slope)) == slope else None


def strips(row: Activation, low: FloatArray, high: FloatArray) -> Strips:
    """Parallel lines around the graph of s on each interval.

    Piecewise linear s: the chord's slope, and the ends of s(z) - slope z at the ends and knots. Others: the least slope
    a of a secant, since s(z) - a z is then non-decreasing; 0 where none is known.

    Args:
        row: the activation s.
        low: finite lower ends, any shape.
        high: finite upper ends of the same shape, low <= high.

    Returns:
        The strips; room is inf where nothing is known. O(size) evaluations of s.
        Source: DeepZ (Singh et al., NeurIPS 2018) for ReLU.

    >>> found = strips(activation("relu"), np.array([-1.0]), np.array([3.0]))
    >>> found.slope.tolist(), bool(abs(found.room[0] - 0.375) < 1e-9)
    ([0.75], True)
    """
    flat = kink(row)
    with np.errstate(all="ignore"):
        if flat is not None:
            return _kinked(flat, low, high)
        if row.pieces is not None:
            return _piecewise(row, low, high)
        return _monotone(row, low, high)


def _kinked(flat: float, low: FloatArray, high: FloatArray) -> Strips:
    slope = np.where(low >= 0, 1.0, flat)
    room = np.zeros(low.shape)
    open_ = (low < 0) & (high > 0)
    a, b = low[open_], high[open_]
    steep = np.clip((b - flat * a) / (b - a), flat, 1.0)
    # s(z) - steep z is convex, 0 at 0 and not below: largest at an end
    top = np.maximum((flat - steep) * a, (1.0 - steep) * b)
    half = 0.5 * top * (1 + 8 * _EPS) + _TINY
    slope[open_], room[open_] = steep, half
    return Strips(slope, room.copy(), room)  # the room has space for the middle's own rounding: it is the middle


def _piecewise(row: Activation, low: FloatArray, high: FloatArray) -> Strips:
    first, last = row.enclose(low, low), row.enclose(high, high)
    slope = np.where(high > low, (last[0] - first[0]) / (high - low), 0.0)
    steepest = max((abs(float(p.slope)) for p in row.pieces or ()), default=0.0)
    slope = np.clip(np.where(np.isfinite(slope), slope, 0.0), -steepest, steepest)
    reach = np.maximum(np.abs(low), np.abs(high))
    least = np.minimum(first[0] - slope * low, last[0] - slope * high)
    most = np.maximum(first[1] - slope * low, last[1] - slope * high)
    for piece in (row.pieces or ())[:-1]:
        knot = float(piece.hi or 0)
        before, after = np.nextafter(knot, -np.inf), np.nextafter(knot, np.inf)
        near = row.enclose(np.full(low.shape, before), np.full(low.shape, after))  # the knot may be no float
        inside = (low <= after) & (before <= high)
        least = np.where(inside, np.minimum(least, near[0] - slope * knot), least)
        most = np.where(inside, np.maximum(most, near[1] - slope * knot), most)
        reach = np.where(inside, np.maximum(reach, abs(knot)), reach)
    return _between(slope, least, most, reach)


def _monotone(row: Activation, low: FloatArray, high: FloatArray) -> Strips:
    slope = np.maximum(secants(row, low, high)[0], -1e100)
    slope = np.where(np.isfinite(slope), slope, 0.0)
    reach = np.maximum(np.abs(low), np.abs(high))
    first, last = row.enclose(low, low), row.enclose(high, high)
    rising = secants(row, low, high)[0] == slope
    plain = row.enclose(low, high)
    least = np.where(rising, first[0] - slope * low, plain[0])
    most = np.where(rising, last[1] - slope * high, plain[1])
    return _between(np.where(rising, slope, 0.0), least, most, reach)


def _between(slope: FloatArray, least: FloatArray, most: FloatArray, reach: FloatArray) -> Strips:
    """The strip from `least` to `most`, each a difference of two floats with a rounded product."""
    shift = 0.5 * least + 0.5 * most
    room = np.maximum(most - shift, shift - least)
    size = np.abs(slope) * reach + np.maximum(np.abs(least), np.abs(most))
    room = room * (1 + 8 * _EPS) + 8 * _EPS * size + _TINY
    lost = ~np.isfinite(room) | ~np.isfinite(shift)
    return Strips(np.where(lost, 0.0, slope), np.where(lost, 0.0, shift), np.where(lost, np.inf, room))


def secants(row: Activation, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Bounds of all secant slopes (s(y) - s(z)) / (y - z), y and z in [low, high], elementwise.

    Args:
        row: the activation s.
        low: lower ends, any shape.
        high: upper ends of the same shape.

    Returns:
        (least, most): of the linear pieces that meet the inside of the interval; for tanh, sigmoid and softplus from
        an enclosure of s'; for polynomials +- sum k |c_k| reach^(k-1); else from the global Lipschitz constant.
        Infinite where nothing is known.

    >>> least, most = secants(activation("relu"), np.array([-2.0, 1.0, -1.0]), np.array([-1.0, 2.0, 1.0]))
    >>> least.tolist(), most.tolist()
    ([0.0, 1.0, 0.0], [0.0, 1.0, 1.0])
    """
    if row.pieces is not None:
        return _pieces_met(row, low, high)
    if row.name == "tanh":
        small, large = _squares(*row.enclose(low, high))
        return np.maximum(0.0, (1 - large) - 4 * _EPS), np.minimum(1.0, (1 - small) + 4 * _EPS)
    if row.name == "softplus" and not row.parameters:
        return activation("sigmoid").enclose(low, high)
    if row.name == "sigmoid":
        bottom, top = row.enclose(low, high)
        slopes = [bottom * (1 - bottom), top * (1 - top)]
        most = np.where((bottom <= 0.5) & (top >= 0.5), 0.25, np.maximum(*slopes))
        return np.maximum(0.0, np.minimum(*slopes) - 4 * _EPS), np.minimum(0.25, most + 4 * _EPS)
    if np.isfinite(row.lipschitz):
        most = np.full(low.shape, row.lipschitz)
        return np.zeros(low.shape) if row.monotone else -most, most
    return _polynomial(row, low, high)


def _squares(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Enclosure of t^2 for t in [low, high] in [-1, 1], up to 2 eps."""
    ends = low * low, high * high
    return np.where((low <= 0) & (high >= 0), 0.0, np.minimum(*ends)), np.maximum(*ends)


def _pieces_met(row: Activation, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    least, most = np.full(low.shape, np.inf), np.full(low.shape, -np.inf)
    for piece in row.pieces or ():
        meets = np.ones(low.shape, dtype=bool)
        if piece.lo is not None:
            meets &= high > _down(piece.lo)
        if piece.hi is not None:
            meets &= low < -_down(-piece.hi)
        down, up = _down(piece.slope), 0.0 - _down(-piece.slope)
        least = np.where(meets, np.minimum(least, down), least)
        most = np.where(meets, np.maximum(most, up), most)
    none = least > most  # an interval that is one knot
    return np.where(none, 0.0, least), np.where(none, 0.0, most)


def _down(q: Fraction) -> float:
    value = float(q)
    return value if Fraction(value) <= q else float(np.nextafter(value, -np.inf))


def _polynomial(row: Activation, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    if row.name not in ("square", "polynomial"):
        return np.full(low.shape, -np.inf), np.full(low.shape, np.inf)
    terms = row.parameters or (Fraction(0), Fraction(0), Fraction(1))
    reach = np.maximum(np.abs(low), np.abs(high))
    total = np.zeros(low.shape)
    with np.errstate(all="ignore"):
        for k, c in enumerate(terms):
            if k and c:
                total = total + -_down(-k * abs(c)) * reach ** (k - 1)
        most = total * (1 + 16 * _EPS * len(terms)) + _TINY
    most = np.where(np.isnan(most), np.inf, most)
    return -most, most
