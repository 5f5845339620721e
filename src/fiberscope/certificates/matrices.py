"""Exact matrices for the checker: float64 entries, and rationals only where an entry is no float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_CHUNK = 1 << 18
"""Entries handled at a time by the vectorised exact operations."""
_EPS = float(np.finfo(np.float64).eps)
_SAFE = (1e-250, 1e290)
"""Magnitudes for which Dekker's product neither underflows nor overflows."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A rational matrix, (m, n): near + tail, but `values` at the positions (rows, columns).

    The representation is unique: `near` is the nearest float64 (never 0 for a nonzero entry, so that it has the signs
    and zeros of the matrix, and infinite beyond the largest), `tail` is the rest where that is a float64, and only
    entries that no two floats hold are in `values`.

    Args:
        near: (m, n) float64.
        tail: (m, n) float64, or None for zero.
        rows, columns: (k,) positions.
        values: (k,) entries as `Fraction`; `tail` is 0 there.
    """

    near: FloatArray
    tail: FloatArray | None = None
    rows: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    columns: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    values: ExactArray = field(default_factory=lambda: np.zeros(0, object))

    @classmethod
    def of(cls, array: ExactArray) -> Matrix:
        """From an exact array of shape (m, n), or (m,) as one column."""
        table = array if array.ndim == 2 else array[:, None]
        if not rationals.is_rational(table):
            return cls(table.astype(np.float64, copy=False))
        near, tail = np.zeros(table.shape), np.zeros(table.shape)
        entries = {(i, j): q for i, row in enumerate(table) for j, q in enumerate(row)}
        return _with_entries(near, tail, entries)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.near.shape[0], self.near.shape[1]

    @property
    def is_float(self) -> bool:
        """Whether every entry is a float64."""
        return self.tail is None and not self.values.size

    @cached_property
    def lookup(self) -> dict[tuple[int, int], Fraction]:
        """The entries that no two floats hold, by position."""
        places = zip(self.rows.tolist(), self.columns.tolist(), strict=True)
        return dict(zip(places, self.values, strict=True))

    def entry(self, i: int, j: int) -> Fraction:
        """One entry."""
        found = self.lookup.get((i, j)) if self.values.size else None
        if found is not None:
            return found
        near = Fraction(float(self.near[i, j]))
        return near if self.tail is None else near + Fraction(float(self.tail[i, j]))

    def exact(self) -> ExactArray:
        """As an exact array: float64 if every entry is one."""
        if self.is_float:
            return self.near
        out = np.empty(self.shape, dtype=object)
        for i, j in np.ndindex(*self.shape):
            out[i, j] = self.entry(i, j)
        return out

    @cached_property
    def others(self) -> npt.NDArray[np.bool_] | None:
        """Mask of the entries that no two floats hold, None if there are none."""
        if not self.values.size:
            return None
        out = np.zeros(self.shape, dtype=bool)
        out[self.rows, self.columns] = True
        return out

    @property
    def inexact(self) -> npt.NDArray[np.bool_]:
        """Mask of the entries that are no float64."""
        out = np.zeros(self.shape, dtype=bool) if self.tail is None else self.tail != 0
        out[self.rows, self.columns] = True
        return out

    @property
    def T(self) -> Matrix:
        """The transpose."""
        return Matrix(self.near.T, None if self.tail is None else self.tail.T, self.columns, self.rows, self.values)

    def take_rows(self, index: Sequence[int] | IntArray) -> Matrix:
        """The rows with these (distinct) indices, in this order."""
        chosen = np.asarray(index, dtype=np.int64)
        place = np.full(self.shape[0], -1, dtype=np.int64)
        place[chosen] = np.arange(chosen.size)
        rows = place[self.rows]
        live = rows >= 0
        tail = None if self.tail is None else _or_none(self.tail[chosen])
        return Matrix(self.near[chosen], tail, rows[live], self.columns[live], self.values[live])

    def take_columns(self, index: Sequence[int] | IntArray) -> Matrix:
        """The columns with these (distinct) indices, in this order."""
        return self.T.take_rows(index).T

    def below(self, other: Matrix) -> Matrix:
        """The rows of self, then those of other."""
        tail = None
        if self.tail is not None or other.tail is not None:
            tail = np.concatenate([_or_zeros(self), _or_zeros(other)])
        return Matrix(
            np.concatenate([self.near, other.near]),
            tail,
            np.concatenate([self.rows, other.rows + self.shape[0]]),
            np.concatenate([self.columns, other.columns]),
            np.concatenate([self.values, other.values]),
        )

    def beside(self, other: Matrix) -> Matrix:
        """The columns of self, then those of other."""
        return self.T.below(other.T).T

    def with_rows(self, index: Sequence[int] | IntArray, new: Matrix) -> Matrix:
        """The rows with these indices set to those of `new`."""
        chosen = np.asarray(index, dtype=np.int64)
        near = self.near.copy()
        near[chosen] = new.near
        tail = None
        if self.tail is not None or new.tail is not None:
            tail = np.array(_or_zeros(self))
            tail[chosen] = _or_zeros(new)
        live = ~np.isin(self.rows, chosen)
        return Matrix(
            near,
            _or_none(tail),
            np.concatenate([self.rows[live], chosen[new.rows]]),
            np.concatenate([self.columns[live], new.columns]),
            np.concatenate([self.values[live], new.values]),
        )

    def with_columns(self, index: Sequence[int] | IntArray, new: Matrix) -> Matrix:
        """The columns with these indices set to those of `new`."""
        return self.T.with_rows(index, new.T).T

    def nonzero_rows(self) -> npt.NDArray[np.bool_]:
        """(m,) which rows have a nonzero entry."""
        return np.asarray((self.near != 0).any(axis=1))

    def same_as(self, other: Matrix) -> bool:
        """Whether two matrices hold the same rational numbers."""
        if self.shape != other.shape or len(self.values) != len(other.values):
            return False
        if not np.array_equal(self.near, other.near) or self.lookup != other.lookup:
            return False
        plain = self.tail is None and other.tail is None
        return plain or bool(np.array_equal(_or_zeros(self), _or_zeros(other)))

    def rounded(self, dtype: npt.DTypeLike) -> Matrix:
        """Every entry rounded to nearest, ties to even.

        Raises:
            OverflowError: if an entry exceeds the dtype.
        """
        if self.is_float:
            return Matrix(rationals.rounded(self.near, dtype).astype(np.float64))
        hard = np.zeros(self.shape, dtype=bool) if self.others is None else self.others.copy()
        if self.tail is not None and np.dtype(dtype) != np.float64:
            # near is rounded first: where it is no value of the dtype, a tail may break a tie the other way
            with np.errstate(over="ignore"):
                hard |= (self.tail != 0) & _near_tie(self.near, np.dtype(dtype))
        near = rationals.rounded(np.where(hard, 0.0, self.near), dtype).astype(np.float64)
        for i, j in np.argwhere(hard).tolist():
            value = np.array([self.entry(i, j)], dtype=object)
            near[i, j] = float(rationals.rounded(value, dtype)[0])
        return Matrix(near)

    def distance(self, other: Matrix) -> FloatArray:
        """|self - other| entry by entry, rounded up, zero only where the entries are equal. (m, n)."""
        with np.errstate(over="ignore", invalid="ignore"):
            gap = self.near - other.near
            size = np.abs(gap)
            if self.tail is not None or other.tail is not None:
                # gap + (its rounding error + difference of tails), which may cancel in part
                gap, error = _two_sum(self.near, -other.near)
                rest = _or_zeros(self) - _or_zeros(other)
                error = error + rest
                gap = gap + error
                size = np.abs(gap) + _EPS * (np.abs(gap) + np.abs(error) + np.abs(rest))
            out = np.where(size == 0, 0.0, np.nextafter(size, np.inf))
        for i, j in {*self.lookup, *other.lookup}:
            out[i, j] = upward(abs(self.entry(i, j) - other.entry(i, j)))
        return np.where(np.isnan(out), np.inf, out)


def zeros(m: int, n: int) -> Matrix:
    """The zero matrix."""
    return Matrix(np.zeros((m, n)))


def _or_zeros(matrix: Matrix) -> FloatArray:
    return np.broadcast_to(np.zeros(1), matrix.shape) if matrix.tail is None else matrix.tail


def _or_none(tail: FloatArray | None) -> FloatArray | None:
    return tail if tail is not None and tail.any() else None


def _near_tie(near: FloatArray, dtype: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    """Where a value lies in the middle of two neighbours of the dtype, or beyond its range."""
    first = near.astype(dtype)
    other = np.nextafter(first, np.where(near > first, np.inf, -np.inf).astype(dtype))
    a, b = first.astype(np.float64), other.astype(np.float64)
    return np.asarray((near != a) & ~(np.abs(near - a) < np.abs(b - near)) | ~np.isfinite(a) | ~np.isfinite(b))


def _with_entries(near: FloatArray, tail: FloatArray, entries: Mapping[tuple[int, int], Fraction]) -> Matrix:
    """The matrix near + tail with some entries set (in place)."""
    rest: dict[tuple[int, int], Fraction] = {}
    for place, q in entries.items():
        near[place], exact = nearest(q)
        tail[place] = 0.0
        if not exact and math.isfinite(near[place]):
            tail[place], exact = nearest(q - Fraction(float(near[place])))
        if not exact:
            tail[place] = 0.0
            rest[place] = q
    where = np.array(list(rest), dtype=np.int64).reshape(-1, 2)
    values = np.empty(len(rest), dtype=object)
    values[:] = list(rest.values())
    return Matrix(near, _or_none(tail), where[:, 0], where[:, 1], values)


def row_times(matrix: Matrix, factors: Sequence[Fraction]) -> Matrix:
    """Every row times its factor."""
    return Matrix.of(rationals.scale_rows(matrix.exact(), factors))


def column_times(matrix: Matrix, factors: Sequence[Fraction]) -> Matrix:
    """Every column times its factor."""
    return row_times(matrix.T, factors).T


def nearest(q: Fraction) -> tuple[float, bool]:
    """The nearest float64 (never 0 for q != 0, infinite beyond the largest) and whether it is q itself.

    >>> nearest(Fraction(1, 2)), nearest(Fraction(1, 10**400))
    ((0.5, True), (5e-324, False))
    """
    try:
        value = q.numerator / q.denominator
    except OverflowError:
        return (math.inf if q > 0 else -math.inf), False
    if value == 0 and q != 0:
        return math.copysign(5e-324, q), False
    if q.denominator & (q.denominator - 1):
        return value, False
    return value, Fraction(value) == q


def upward(q: Fraction) -> float:
    """The smallest float64 that is at least q."""
    value, exact = nearest(q)
    return value if exact or value > q else math.nextafter(value, math.inf)


# ---- exact products and sums of floats


def _product(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Dekker: a b = high + low exactly, with high = fl(a b), where the mask holds (a factor 0, or no underflow)."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        high = a * b
        a1, b1 = (v * 134217729.0 for v in (a, b))
        a1, b1 = a1 - (a1 - a), b1 - (b1 - b)
        a2, b2 = a - a1, b - b1
        low = ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2
        size = np.abs(high)
        sure = (size > _SAFE[0]) & (size < _SAFE[1]) & (np.abs(a) < _SAFE[1]) & (np.abs(b) < _SAFE[1])
        zero = (a == 0) | (b == 0)
        low = np.where(zero, 0.0, low)
    return high, low, sure & np.isfinite(low) | zero


def _factors(numbers: Sequence[Fraction | int]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The numbers as one column of floats, and which of them are floats."""
    pairs = [nearest(Fraction(q)) for q in numbers]
    near = np.array([value for value, _ in pairs]).reshape(-1, 1)
    return near, np.array([exact for _, exact in pairs], dtype=bool).reshape(-1, 1)


def _proportional(a: FloatArray, b: FloatArray, factors: Sequence[Fraction]) -> npt.NDArray[np.bool_]:
    """Where a = e b is certain, row k with e = factors[k]: a times its denominator is b times its numerator."""
    if all(e == 1 for e in factors):
        return np.asarray(a == b)
    (top, sure_top), (bottom, sure_bottom) = (
        _factors([getattr(e, name) for e in factors]) for name in ("numerator", "denominator")
    )
    high, low, sure = _product(a, bottom)
    high2, low2, sure2 = _product(b, top)
    return np.asarray((high == high2) & (low == low2) & sure & sure2 & sure_top & sure_bottom)


def first_unequal(matrix: Matrix, pairs: Sequence[tuple[int, int, Fraction]]) -> int | None:
    """The first k for which row_i = e row_j fails, (i, j, e) = pairs[k]; None if all hold. Exact.

    Floats are compared by error-free products; entries for which that cannot decide go through `Fraction`.
    """
    step = max(1, _CHUNK // max(1, matrix.shape[1]))
    other = matrix.others
    for begin in range(0, len(pairs), step):
        part = pairs[begin : begin + step]
        left, right = (np.array([p[k] for p in part], dtype=np.int64) for k in (0, 1))
        factors = [p[2] for p in part]
        equal = _proportional(matrix.near[left], matrix.near[right], factors)
        if matrix.tail is not None:
            equal &= _proportional(matrix.tail[left], matrix.tail[right], factors)
        if other is not None:
            equal &= ~(other[left] | other[right])
        for k, j in np.argwhere(~equal).tolist():
            if matrix.entry(int(left[k]), j) != factors[k] * matrix.entry(int(right[k]), j):
                return begin + int(k)
    return None


def _two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Knuth: a + b = total + error exactly; the error is NaN after an overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = a + b
        shift = total - a
        return total, (a - (total - shift)) + (b - shift)


def combined_rows(matrix: Matrix, groups: Sequence[Sequence[tuple[int, Fraction]]]) -> Matrix:
    """Row k is the sum of q * row_i over (i, q) in groups[k], exactly. (len(groups), n).

    Sums of floats are carried as two floats without error (Dekker's product, Knuth's sum); where these do not suffice
    the sum is done over Q.
    """
    shape = len(groups), matrix.shape[1]
    near, tail, hard = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    step = max(1, _CHUNK // max(1, shape[1]))
    for begin in range(0, len(groups), step):
        part = slice(begin, begin + step)
        near[part], tail[part], hard[part] = _two_float_sums(matrix, groups[part])
    entries = {
        (k, j): sum((q * matrix.entry(i, j) for i, q in groups[k]), Fraction(0)) for k, j in np.argwhere(hard).tolist()
    }
    return _with_entries(near, tail, entries)


def _two_float_sums(
    matrix: Matrix, groups: Sequence[Sequence[tuple[int, Fraction]]]
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """(near, tail, hard): the sums of `combined_rows` are near + tail except where hard."""
    shape = len(groups), matrix.shape[1]
    near, tail, hard = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    other = matrix.others
    for depth in range(max(map(len, groups))):
        live = np.array([k for k, group in enumerate(groups) if len(group) > depth], dtype=np.int64)
        index = np.array([groups[k][depth][0] for k in live.tolist()], dtype=np.int64)
        high, low, sure = _scaled(matrix, index, [groups[k][depth][1] for k in live.tolist()])
        total, error = _two_sum(near[live], high)
        rest, lost = _two_sum(tail[live], error)
        rest, lost2 = _two_sum(rest, low)
        near[live], tail[live] = _two_sum(total, rest)
        hard[live] |= ~(sure & (lost == 0) & (lost2 == 0))  # NaN is not 0
        if other is not None:
            hard[live] |= other[index]
    return near, tail, hard | ~np.isfinite(near) | ~np.isfinite(tail)


def _scaled(
    matrix: Matrix, index: IntArray, factors: Sequence[Fraction]
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Rows times factors as two floats, and where that is exact."""
    a = matrix.near[index]
    if all(q == 1 for q in factors):
        low = np.zeros(a.shape) if matrix.tail is None else matrix.tail[index]
        return a, low, np.ones(a.shape, dtype=bool)
    factor, known = _factors(factors)
    high, low, sure = _product(a, factor)
    sure = sure & known
    if matrix.tail is not None:  # two floats times a factor: only where one of the halves adds nothing
        more, rest, safe = _product(matrix.tail[index], factor)
        low, lost = _two_sum(low, more)
        sure &= safe & (rest == 0) & (lost == 0)
    return high, low, sure
