"""Polyhedra given by inequalities, cut by hyperplanes in floats: hints for what `exact` then proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ZERO = 1e-9
"""Values of this size relative to the terms of a form count as 0."""
_AGE = 40
"""Pivots after which a dictionary is computed anew."""
_GREEDY, _STEPS = 60, 400
"""Pivots by the steepest column before Bland's rule, and in all."""


@dataclass(frozen=True, eq=False)
class Cut:
    """What a hyperplane does to a polyhedron, in floats: a hint, never a proof.

    Args:
        below, above: the parts where the form is <= 0 and >= 0; None if that part seems to have no interior.
        support: if one part is None, labels of inequalities of which the form (above) or its negative (below) seems to
            be a nonnegative combination plus a constant >= 0.
    """

    below: Polyhedron | None
    above: Polyhedron | None
    support: tuple[int, ...] = ()


class Polyhedron:
    """A polyhedron with interior as a simplex dictionary at one vertex: points and slacks as affine forms of n slacks.

    Args:
        table: (n + m, n + 1): the n coordinates, then the m slacks, as affine forms of the n variables that are 0 at
            the vertex; the last column is their value there.
        at: (n,) which slack each column is, or -1 - i for coordinate i, which no inequality holds yet.
        rows: (m, n + 1) the inequalities row . (x, 1) >= 0.
        labels: (m,) names of the inequalities, chosen by the caller.

    >>> square = Polyhedron.from_ends(np.zeros(2), np.ones(2), labels=(0, 1, 2, 3))
    >>> cut = square.cut(np.array([1.0, 1.0, -1.5]), 4)
    >>> cut.below is None, cut.above is None
    (False, False)
    >>> square.cut(np.array([1.0, 1.0, 0.5]), 4).support
    (0, 2)
    """

    def __init__(
        self, table: FloatArray, at: IntArray, rows: FloatArray, labels: tuple[int, ...], age: int = 0
    ) -> None:
        self.table, self.at, self.rows, self.labels, self.age = table, at, rows, labels, age

    @classmethod
    def from_ends(cls, lower: FloatArray, upper: FloatArray, labels: Sequence[int]) -> Polyhedron:
        """A box with lower < upper; labels of all 2 n ends, lower and upper of the first coordinate first."""
        n = lower.size
        identity = np.eye(n)
        table: list[FloatArray] = []
        names: list[int] = []
        rows: list[FloatArray] = []
        at = -1 - np.arange(n)
        start = np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, 0.0))
        turn = np.where(np.isfinite(lower) | ~np.isfinite(upper), 1.0, -1.0)  # the slack of an upper end falls with x
        for i in range(n):
            for side, end in ((1.0, lower[i]), (-1.0, upper[i])):
                if np.isfinite(end):
                    if at[i] < 0:
                        at[i] = len(rows)
                    rows.append(np.append(side * identity[i], -side * end))
                    table.append(np.append(side * turn[i] * identity[i], side * (start[i] - end)))
                    names.append(labels[2 * i + (side < 0)])
        top = np.column_stack([identity * turn, start])
        body = np.array(table).reshape(-1, n + 1)
        return cls(np.concatenate([top, body]), at, np.array(rows).reshape(-1, n + 1), tuple(names))

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return int(self.at.size)

    def cut(self, row: FloatArray, label: int) -> Cut | None:
        """Both sides of row . (x, 1) = 0, largest entry of the row's linear part 1; None if floats give up.

        The simplex method walks to where the form is smallest and stops where it crosses 0: that vertex serves both
        parts. Complexity: O(m n) per pivot.
        """
        n = self.dimension
        form = row[:n] @ self.table[:n]
        form[n] += row[n]
        scale = 1.0 + abs(float(row[n])) + float(np.abs(row[:n] * self.table[:n, n]).sum())
        flips = (1.0, -1.0) if abs(form[n]) <= _ZERO * scale else ((1.0,) if form[n] > 0 else (-1.0,))
        walk: _Walk | None = None
        for flip in flips:
            walk = _Walk(self, flip * form, _ZERO * scale)
            if not walk.run():
                return None
            if not walk.crossed:
                same = self._moved(walk)
                support = tuple(self.labels[walk.at[j]] for j in walk.support)
                return Cut(None, same, support) if flip > 0 else Cut(same, None, support)
        return None if walk is None else self._parts(walk, flips[-1] * row, flips[-1], label)

    def _moved(self, walk: _Walk) -> Polyhedron:
        return Polyhedron(walk.table[:-1], walk.at, self.rows, self.labels, self.age + walk.steps)._fresh()

    def _parts(self, walk: _Walk, row: FloatArray, flip: float, label: int) -> Cut:
        """The two polyhedra on either side of the form that the walk brought to 0."""
        age, labels = self.age + walk.steps, (*self.labels, label)
        plus = Polyhedron(walk.table, walk.at, np.concatenate([self.rows, row[None]]), labels, age)._fresh()
        table = walk.table.copy()
        table[:, walk.column] *= -1.0
        table[-1] *= -1.0
        minus = Polyhedron(table, walk.at.copy(), np.concatenate([self.rows, -row[None]]), labels, age)._fresh()
        return Cut(minus, plus) if flip > 0 else Cut(plus, minus)

    def _fresh(self) -> Polyhedron:
        """Compute the dictionary anew from its basis before rounding errors add up."""
        if self.age < _AGE:
            return self
        n = self.dimension
        basis, shift = np.eye(n)[np.where(self.at < 0, -1 - self.at, 0)], np.zeros(n)
        held = self.at >= 0
        basis[held], shift[held] = self.rows[self.at[held], :n], self.rows[self.at[held], n]
        try:
            inverse = np.linalg.inv(basis)
        except np.linalg.LinAlgError:
            return self
        top = np.column_stack([inverse, -inverse @ shift])
        body = self.rows[:, :n] @ top
        body[:, n] += self.rows[:, n]
        self.table, self.age = np.concatenate([top, body]), 0
        return self


class _Walk:
    """One run of the primal simplex method that minimises a form on a polyhedron until it crosses 0."""

    def __init__(self, start: Polyhedron, form: FloatArray, zero: float) -> None:
        self.table = np.concatenate([start.table, form[None]])
        self.at = start.at.copy()
        self.zero = zero
        self.steps, self.column, self.crossed = 0, -1, False
        self.support: list[int] = []

    def run(self) -> bool:
        """Walk; False if floats give up."""
        n = self.at.size
        for _ in range(_STEPS):
            form = self.table[-1]
            slope = np.where(self.at >= 0, form[:n], -np.abs(form[:n]))
            falling = np.flatnonzero(slope < -_ZERO)
            if not falling.size:
                self.support = [j for j in range(n) if form[j] > _ZERO and self.at[j] >= 0]
                return True
            j = int(
                falling[np.argmin(slope[falling])] if self.steps < _GREEDY else falling[np.argmin(self.at[falling])]
            )
            if self._step(j, -1.0 if self.at[j] < 0 and form[j] > 0 else 1.0):
                return True
        return False

    def _step(self, j: int, way: float) -> bool:
        """Let column j grow (or fall) as far as the slacks allow; True once the form crosses 0."""
        n = self.at.size
        rate = way * self.table[n:-1, j]
        blocking = np.flatnonzero(rate < -_ZERO)
        room = np.maximum(self.table[n:-1, n][blocking], 0.0) / -rate[blocking]
        form, fall = max(float(self.table[-1, n]), 0.0), way * float(self.table[-1, j])
        length = float(room.min()) if room.size else np.inf
        if length == np.inf or form + fall * length < -self.zero:
            self._pivot(len(self.table) - 1, j)
            self.column, self.crossed = j, True
            self.at[j] = len(self.table) - 1 - n
            return True
        ties = blocking[room <= length * (1 + 1e-12) + 1e-14]
        best = ties[np.argmin(rate[ties])] if self.steps < _GREEDY else ties[0]
        self._pivot(n + int(best), j)
        self.at[j] = int(best)
        return False

    def _pivot(self, r: int, j: int) -> None:
        row = self.table[r].copy()
        column = self.table[:, j] / row[j]
        self.table -= np.outer(column, row)
        self.table[:, j] = column
        self.table[r] = 0.0
        self.table[r, j] = 1.0
        self.steps += 1


def inner_point(rows: FloatArray) -> FloatArray | None:
    """A point with row . (x, 1) > 0 for all rows and the largest smallest value up to 1, in floats; None without one.

    Args:
        rows: (m, n + 1).

    >>> inner_point(np.array([[1.0, 0.0], [-1.0, 1.0]]))
    array([0.5])
    """
    import highspy

    count, n = rows.shape[0], rows.shape[1] - 1
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    low, high = np.append(np.full(n, -np.inf), -np.inf), np.append(np.full(n, np.inf), 1.0)
    solver.addVars(n + 1, low, high)
    solver.changeColCost(n, -1.0)
    columns = np.arange(n + 1, dtype=np.int32)
    for row in rows:
        solver.addRow(-float(row[n]), highspy.kHighsInf, n + 1, columns, np.append(row[:n], -1.0))
    solver.run()
    point = np.array(solver.getSolution().col_value, dtype=np.float64)
    if point.size != n + 1 or solver.getNumRow() != count or not np.isfinite(point).all():
        return None
    return point[:n] if point[n] > 0 else None
