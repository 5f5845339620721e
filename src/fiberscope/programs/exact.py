"""Linear inequalities and equations decided over the integers: points, or multipliers that prove there are none."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fiberscope.results import Stopwatch

ObjectArray = npt.NDArray[np.object_]


def strict_solution(
    rows: Sequence[Sequence[int]], clock: Stopwatch | None = None
) -> tuple[list[Fraction] | None, dict[int, Fraction]]:
    """Solve a x + b > 0 for all rows (a, b) exactly, or prove that it cannot be done.

    Simplex method over the integers (fraction-free pivots, Bland's rule) for the largest t with a x + b >= t, stopped
    as soon as t > 0.

    Args:
        rows: m rows of n + 1 integers.
        clock: stops between pivots.

    Returns:
        (x, {}) with every a x + b > 0, or (None, multipliers): multipliers[i] > 0 with sum a_i multipliers[i] = 0 and
        sum b_i multipliers[i] <= 0 (Motzkin's alternative); (None, {}) if the clock ran out.

    Complexity: O(m n) integer operations per pivot.

    >>> strict_solution([(1, 0), (-1, 2)])[0] is not None
    True
    >>> point, proof = strict_solution([(1, -1), (-2, 2)])
    >>> point, sorted(proof) == [0, 1], proof[0] == 2 * proof[1]
    (None, True, True)
    """
    n = len(rows[0]) - 1 if rows else 0
    low = min(range(len(rows)), key=lambda i: rows[i][n], default=-1)
    if low < 0 or rows[low][n] > 0:
        return [Fraction(0)] * n, {}
    # columns: x_1 .. x_n, slack of the lowest row, 1; rows of the table: t, x_1 .. x_n, slacks a x + b - t
    table = np.zeros((1 + n + len(rows), n + 2), dtype=object)
    body = np.array([list(map(int, row)) for row in rows], dtype=object)
    table[0, :n], table[0, n], table[0, n + 1] = body[low, :n], -1, body[low, n]
    for i in range(n):
        table[1 + i, i] = 1
    table[1 + n :, :n], table[1 + n :, n + 1] = body[:, :n] - body[low, :n], body[:, n] - body[low, n]
    table[1 + n :, n] = 1
    at, unit = [-1] * n + [low], 1
    while clock is None or not clock.expired:
        top = table[0]
        if top[n + 1] > 0:
            return [Fraction(v, unit) for v in table[1 : 1 + n, n + 1]], {}
        rising = [j for j in range(n + 1) if (top[j] > 0 if at[j] >= 0 else top[j] != 0)]
        if not rising:
            return None, {at[j]: Fraction(-top[j], unit) for j in range(n + 1) if at[j] >= 0 and top[j]}
        j = min(rising, key=lambda c: at[c])
        way = 1 if top[j] > 0 else -1
        blocking = [i for i in range(len(rows)) if way * table[1 + n + i, j] < 0]
        if not blocking:
            length = Fraction(unit - top[n + 1], abs(top[j]))  # t = 1 there
            return [
                (v + way * length * d) / unit for v, d in zip(table[1 : 1 + n, n + 1], table[1 : 1 + n, j], strict=True)
            ], {}
        r = min(blocking, key=lambda i: (Fraction(table[1 + n + i, n + 1], -way * table[1 + n + i, j]), i))
        table, unit = _integer_pivot(table, unit, 1 + n + r, j)
        at[j] = r
    return None, {}


def _integer_pivot(table: ObjectArray, unit: int, r: int, j: int) -> tuple[ObjectArray, int]:
    """Swap column j with row r of the dictionary table / unit; every division is exact (Edmonds)."""
    row, column, pivot = table[r].copy(), table[:, j].copy(), table[r, j]
    sign = 1 if pivot > 0 else -1
    out = (table * pivot - np.outer(column, row)) // unit * sign
    out[:, j] = column * sign
    out[r], out[r, j] = 0, abs(pivot)
    return out, abs(pivot)


def combination(rows: Sequence[Sequence[int]], target: Sequence[int]) -> tuple[list[Fraction], Fraction] | None:
    """(multipliers, rest) with target = sum of multipliers * rows + (0, ..., 0, rest); None if there are none.

    Rows with one linear entry, such as the ends of a box, take what the others leave in their columns; these are found
    by elimination without fractions.

    Args:
        rows: m rows of n + 1 integers, whose first n entries should be linearly independent.
        target: n + 1 integers.

    Complexity: O(k^2 n) integer operations for k rows with several linear entries.

    >>> combination([(1, 0, -1), (1, 2, 0)], (3, 4, 5))  # (3, 4, 5) = (1, 0, -1) + 2 (1, 2, 0) + (0, 0, 6)
    ([Fraction(1, 1), Fraction(2, 1)], Fraction(6, 1))
    """
    n = len(target) - 1
    single: dict[int, int] = {}
    for k, row in enumerate(rows):
        live = [c for c in range(n) if row[c]]
        if len(live) == 1 and live[0] not in single:
            single[live[0]] = k
    lone = set(single.values())
    rest = [k for k in range(len(rows)) if k not in lone]
    solved = _eliminated([[rows[k][c] for k in rest] + [target[c]] for c in range(n) if c not in single], len(rest))
    if solved is None:
        return None
    factors = [Fraction(0)] * len(rows)
    for k, v in zip(rest, solved, strict=True):
        factors[k] = v
    for c, k in single.items():
        factors[k] = (target[c] - sum((factors[j] * rows[j][c] for j in rest if rows[j][c]), Fraction(0))) / rows[k][c]
    return factors, target[n] - sum((v * row[n] for v, row in zip(factors, rows, strict=True) if row[n]), Fraction(0))


def _eliminated(table: list[list[int]], count: int) -> list[Fraction] | None:
    """The solution of `count` unknowns from rows (coefficients, right-hand side), if there is exactly one."""
    unit = 1
    for k in range(count):
        pivot = next((r for r in range(k, len(table)) if table[r][k]), None)
        if pivot is None:
            return None
        table[k], table[pivot] = table[pivot], table[k]
        head = table[k]
        for r, row in enumerate(table):
            if r != k:
                table[r] = [(head[k] * v - row[k] * h) // unit for v, h in zip(row, head, strict=True)]
        unit = head[k]
    if any(row[count] for row in table[count:]):
        return None
    return [Fraction(table[k][count], unit) for k in range(count)]
