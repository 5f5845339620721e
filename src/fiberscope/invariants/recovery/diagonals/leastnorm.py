"""Exact minimisers of the weighted l1 norm among least squares solutions, and whether they are the only ones.

Two-phase simplex method on integer tableaus (Edmonds' fraction-free pivots): nothing is rounded, so an optimum and its
uniqueness are proved by the signs of the last row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.invariants.recovery.diagonals.growth import Weight
from fiberscope.results import Stopwatch

ObjectArray = npt.NDArray[np.object_]

_GREEDY = 2000
"""Pivots by the steepest column before Bland's rule, which cannot cycle."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """An optimal vertex of a linear program in standard form.

    Args:
        point: (N,) of `Fraction`.
        value: cost . point.
        unique: whether no other point is optimal.
    """

    point: ObjectArray
    value: Fraction
    unique: bool


def standard_minimum(
    matrix: rationals.ExactArray,
    right: rationals.ExactArray,
    cost: rationals.ExactArray,
    clock: Stopwatch | None = None,
) -> Minimum | None:
    """Minimise cost . z over z >= 0 with matrix z = right, exactly, and decide whether the minimiser is unique.

    At an optimal vertex the optimal set is {z >= 0: matrix z = right, z_j = 0 where the reduced cost is positive}. It
    is one point iff the free columns outside the basis cannot grow within it, which a second objective finds out.

    Args:
        matrix: (m, N) exact array, rows may be dependent.
        right: (m,) exact array.
        cost: (N,) exact array, nonnegative, so that the program is bounded.
        clock: stops between pivots.

    Returns:
        The minimum; None if the clock ran out.

    Raises:
        InputError: if there is no feasible point, or a cost is negative.

    Complexity: O(m N) integer operations per pivot.

    >>> found = standard_minimum(np.array([[1.0, 2.0]]), np.array([2.0]), np.array([1.0, 1.0]))
    >>> [str(v) for v in found.point], str(found.value), found.unique
    (['0', '1'], '1', True)
    >>> standard_minimum(np.array([[1.0, 1.0]]), np.array([2.0]), np.array([1.0, 1.0])).unique
    False
    """
    if any(v < 0 for v in rationals.fractions(cost)):
        raise InputError("a cost is negative; the costs of a weighted l1 norm are positive")
    table = _Tableau(matrix, right)
    if not table.feasible(clock):
        return None
    count = table.count
    prices = table.price(rationals.integers(cost)[0])
    if not table.improve(range(count), clock):
        return None
    prices = table.rows[0]
    basis = set(table.basis)
    free = [j for j in range(count) if prices[j] == 0 and j not in basis]
    point = table.point()
    value = sum((c * z for c, z in zip(rationals.fractions(cost), point, strict=True)), Fraction(0))
    if not free:
        return Minimum(point, value, True)
    allowed = [j for j in range(count) if prices[j] == 0]
    wish = np.zeros(count, dtype=object)
    wish[free] = -1
    table.price(wish)
    if not table.improve(allowed, clock, stop_below=True):
        return None
    return Minimum(point, value, table.rows[0][-1] == 0)


@dataclass(frozen=True, eq=False)
class LeastNorm:
    """The least weighted l1 norm among least squares solutions.

    Args:
        k: (d,) a minimiser, of `Fraction` or float64.
        value: sum t+ k+ + t- k-.
        unique: whether it is the only minimiser; None where floats cannot tell.
    """

    k: npt.NDArray[Any]
    value: Weight
    unique: bool | None


def least_norm(
    features: rationals.ExactArray,
    fitted: rationals.ExactArray,
    plus: Sequence[Weight],
    minus: Sequence[Weight],
    clock: Stopwatch | None = None,
    *,
    exact: bool = True,
) -> LeastNorm | None:
    """Minimise sum t+ k+ + t- k- over all k with X^T X k = X^T (fitted values); k_i >= 0 or <= 0 where a weight is inf.

    Args:
        features: (n, d) exact array X.
        fitted: (n,) exact array; y itself gives all least squares solutions.
        plus: (d,) positive weights t+.
        minus: (d,) t-.
        clock: stops between pivots.
        exact: rational simplex method, deciding uniqueness; else HiGHS in floats.

    Returns:
        The least norm; None if the clock ran out or the float solver failed.

    Raises:
        InputError: if no k of the right signs exists.

    >>> one = [Fraction(1)] * 2
    >>> found = least_norm(np.array([[2.0, 1.0]]), np.array([2.0]), one, one)
    >>> str(found.value), [str(v) for v in found.k], found.unique
    ('1', ['1', '0'], True)
    """
    d = features.shape[1]
    gram, right = rationals.matmul(features.T, features), rationals.matmul(features.T, fitted)
    columns = [(i, way, t) for i in range(d) for way, t in ((1, plus[i]), (-1, minus[i])) if t != math.inf]
    if not exact:
        return _float_norm(rationals.nearest_floats(gram), rationals.nearest_floats(right), columns)
    table = np.full((d, len(columns)), Fraction(0), dtype=object)
    for j, (i, way, _) in enumerate(columns):
        table[:, j] = rationals.fractions(gram)[:, i] * way
    cost = np.array([Fraction(t) for *_, t in columns], dtype=object)
    found = standard_minimum(table, right, cost, clock)
    if found is None:
        return None
    k = np.full(d, Fraction(0), dtype=object)
    for (i, way, _), v in zip(columns, found.point, strict=True):
        k[i] += way * v
    return LeastNorm(k, found.value, found.unique)


def _float_norm(
    gram: npt.NDArray[np.float64], right: npt.NDArray[np.float64], columns: Sequence[tuple[int, int, Weight]]
) -> LeastNorm | None:
    from scipy.optimize import linprog

    index, ways = [i for i, *_ in columns], np.array([float(way) for _, way, _ in columns])
    cost = np.array([float(t) for *_, t in columns])
    found = linprog(cost, A_eq=gram[:, index] * ways, b_eq=right, bounds=(0, None), method="highs")
    if found.x is None or not found.success:
        return None
    k = np.zeros(len(right))
    np.add.at(k, index, ways * found.x)
    return LeastNorm(k, float(found.fun), None)


class _Tableau:
    """Rows [A | b] in the basis, times one positive integer `unit`; row 0 is the objective, its last entry -value."""

    def __init__(self, matrix: rationals.ExactArray, right: rationals.ExactArray) -> None:
        both = np.empty((matrix.shape[0], matrix.shape[1] + 1), dtype=object)
        both[:, :-1], both[:, -1] = rationals.fractions(matrix), rationals.fractions(right)
        pivots, form = rationals.row_reduce(both)
        self.count = matrix.shape[1]
        if pivots and pivots[-1] == self.count:
            raise InputError("the linear program has no feasible point: its equations contradict each other")
        body, _ = rationals.integers(form)
        body = np.where((body[:, -1] < 0)[:, None], -body, body) if len(body) else body
        m = len(body)
        self.rows = np.zeros((m + 1, self.count + m + 1), dtype=object)
        self.rows[1:, : self.count], self.rows[1:, -1] = body[:, :-1], body[:, -1]
        for i in range(m):
            self.rows[1 + i, self.count + i] = 1
        self.unit, self.basis, self.pivots = 1, [self.count + i for i in range(m)], 0

    def price(self, cost: ObjectArray) -> ObjectArray:
        """Write reduced costs of integer costs (one per column without the right side) into row 0."""
        full = np.zeros(self.rows.shape[1], dtype=object)
        full[: len(cost)] = cost
        row = full * self.unit
        for i, j in enumerate(self.basis):
            if full[j]:
                row = row - full[j] * self.rows[1 + i]
        self.rows[0] = row
        return row

    def feasible(self, clock: Stopwatch | None) -> bool:
        """Phase one: drive the artificial columns to zero, then out of the basis; False if the clock ran out."""
        width = self.rows.shape[1] - 1
        cost = np.zeros(width, dtype=object)
        cost[self.count :] = 1
        self.price(cost)
        if not self.improve(range(self.count), clock):
            return False
        if self.rows[0][-1] != 0:
            raise InputError("the linear program has no feasible point with these signs")
        for i, j in enumerate(self.basis):
            if j >= self.count:
                row = self.rows[1 + i]
                entry = next(c for c in range(self.count) if row[c])  # rows are independent
                if row[entry] < 0:
                    self.rows[1 + i] = -row  # its right side is 0
                self.pivot(i, entry)
        self.rows = np.delete(self.rows, np.s_[self.count : width], axis=1)
        return True

    def improve(self, columns: Sequence[int] | range, clock: Stopwatch | None, *, stop_below: bool = False) -> bool:
        """Pivot among some columns until no reduced cost is negative; `stop_below`: or the value is."""
        allowed = np.array(list(columns), dtype=np.int64)
        while clock is None or not clock.expired:
            prices = self.rows[0]
            rising = [int(j) for j in allowed if prices[j] < 0]
            if not rising or (stop_below and prices[-1] != 0):
                return True
            j = min(rising, key=lambda c: prices[c]) if self.pivots < _GREEDY else rising[0]
            blocking = [i for i in range(len(self.basis)) if self.rows[1 + i, j] > 0]
            if not blocking:  # only the second objective is unbounded: the optimal set is
                self.rows[0][-1] = 1
                return True
            self.pivot(min(blocking, key=lambda i: (self._ratio(i, j), self.basis[i])), j)
        return False

    def _ratio(self, i: int, j: int) -> Fraction:
        return Fraction(self.rows[1 + i, -1], self.rows[1 + i, j])

    def pivot(self, i: int, j: int) -> None:
        row, column, entry = self.rows[1 + i].copy(), self.rows[:, j].copy(), self.rows[1 + i, j]
        self.rows = (self.rows * entry - np.outer(column, row)) // self.unit
        self.rows[1 + i] = row
        self.unit, self.basis[i] = entry, j
        self.pivots += 1

    def point(self) -> ObjectArray:
        out = np.full(self.count, Fraction(0), dtype=object)
        for i, j in enumerate(self.basis):
            out[j] = Fraction(self.rows[1 + i, -1], self.unit)
        return out
