"""Linear and mixed-integer programs that propose what exact arithmetic then proves: a solver's word is only a hint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Piece
from fiberscope.bounds import Bounds, preactivation_bounds, unstable
from fiberscope.domains import Box
from fiberscope.network import Network
from fiberscope.results import Progress, Stopwatch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ObjectArray = npt.NDArray[np.object_]
_Sides = dict[str, FloatArray]

_SAMPLES = 2000
_SHARE = 0.2
_REACH = 0.25
"""Only enclosures that reach beyond zero by at most this part of their width are worth a program."""
_LIFT = 1e-6
"""Chords are lifted by this part of their width, lest they meet the lower lines and the dual mixes all three."""
_PATIENCE = 8
"""Programs without success in a row after which a layer is given up: candidates are asked most hopeful first."""
_ZERO = 1e-9
"""Values of this size relative to the terms of a form count as 0."""
_AGE = 40
"""Pivots after which a dictionary is computed anew."""
_GREEDY, _STEPS = 60, 400
"""Pivots by the steepest column before Bland's rule, and in all."""
_PROGRAM = 30.0
"""Seconds that one mixed-integer program may take."""


def tighten_unstable(
    net: Network, box: Box, outer: Stopwatch, *, progress: Progress | None = None, seed: int = 0
) -> Bounds | None:
    """Prove more ReLU-like neurons stable on a bounded box, by linear programs over the triangle relaxation.

    For each neuron that never changes sign on samples, the smallest (or largest) pre-activation over the relaxation
    h >= z, h >= flat z, h <= chord is a linear program. Its dual says how to mix the two lower lines of every earlier
    neuron: alpha = lambda_z / (lambda_z + lambda_0). Any alpha in [0, 1] gives a sound bound, and the optimal ones give
    the program's optimum; so the solver's float answer is used for alpha only and the bound is proved in `bounds`.

    Args:
        net: the network.
        box: a bounded box.
        outer: stops between programs, and each program; at most a fifth of the time left is spent here.
        progress: called with (fraction, text).
        seed: of the samples.

    Returns:
        Bounds with the slopes that decided new neurons, or None if there are none. One program per candidate.

    Source: convex relaxation and its dual (Salman et al., arXiv 1902.08722; alpha-CROWN, arXiv 2011.13824).
    """
    clock = Stopwatch(None if math.isinf(outer.left) else _SHARE * outer.left, lambda: outer.expired)
    points = np.concatenate([box.sample(_SAMPLES, np.random.default_rng(seed)), _corners(box, seed)])
    sampled = net.preactivations(points)
    bounds = preactivation_bounds(net, box)
    found: dict[int, dict[int, _Sides]] = {}
    for k in range(1, len(net.hidden)):
        if clock.expired:
            break
        open_ = unstable(bounds, net)[k]
        low, high = sampled[k].min(axis=0), sampled[k].max(axis=0)
        asked = [(int(i), "lower" if low[i] >= 0 else "upper") for i in open_ if low[i] >= 0 or high[i] <= 0]
        asked = sorted(
            (c for c in asked if _overshoot(bounds, k, *c) <= _REACH), key=lambda c: _overshoot(bounds, k, *c)
        )
        if not asked or not _relaxable(net, k):
            continue
        decided = _decide(net, bounds, box, k, asked, clock, progress)
        if decided:
            found[k] = decided
            bounds = preactivation_bounds(net, box, slopes=found)
    return bounds if found else None


def _corners(box: Box, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed + 1)
    return np.where(rng.random((256, box.dimension)) < 0.5, box.lower, box.upper)


def _relaxable(net: Network, k: int) -> bool:
    return all(layer.activation.name == "relu" for layer in net.layers[:k])


def _overshoot(bounds: Bounds, k: int, i: int, side: str) -> float:
    """How far the enclosure reaches beyond zero, relative to its width."""
    low, high = float(bounds.lower[k][i]), float(bounds.upper[k][i])
    return (-low if side == "lower" else high) / (high - low)


def _decide(
    net: Network, bounds: Bounds, box: Box, k: int, asked: list[tuple[int, str]], clock: Stopwatch,
    progress: Progress | None,
) -> dict[int, _Sides]:  # fmt: skip
    program = _Relaxation(net, bounds, box, k)
    out: dict[int, _Sides] = {}
    layer, failures = net.layers[k], 0
    for number, (i, side) in enumerate(asked):
        if clock.expired or failures >= _PATIENCE:
            break
        if progress is not None:
            progress(number / len(asked), f"layer {k + 1}: {len(out)} more neurons stable")
        sign = 1.0 if side == "lower" else -1.0
        answer = program.minimise(sign * layer.weight64[i], clock)
        failures += 1
        if answer is not None and answer[0] + sign * layer.bias64[i] > -1e-5:
            out[i] = {side: answer[1]}
            failures = 0
    if not out:
        return {}
    trial = preactivation_bounds(net, box, slopes={**(bounds.slopes or {}), k: out})
    kept = {
        i: sides for i, sides in out.items()
        if ("lower" in sides and trial.lower[k][i] >= 0) or ("upper" in sides and trial.upper[k][i] <= 0)
    }  # fmt: skip
    return kept


class _Relaxation:
    """The triangle relaxation of the ReLU layers below layer k, one column per input and per hidden neuron."""

    def __init__(self, net: Network, bounds: Bounds, box: Box, k: int) -> None:
        import highspy

        self.solver = highspy.Highs()
        self.solver.setOptionValue("output_flag", False)
        self.solver.setOptionValue("presolve", "off")  # it calls some narrow relaxations infeasible
        self.widths = list(net.widths[: k + 1])
        self.start = np.concatenate([[0], np.cumsum(self.widths)])
        # only what the bound uses too: no ends for h where its lines imply them, lest the dual leans on those
        low = [box.lower] + [np.where(v >= 0, -np.inf, 0.0) for v in bounds.lower[:k]]
        high = [box.upper] + [np.where(v > 0, np.inf, 0.0) for v in bounds.upper[:k]]
        total = int(self.start[-1])
        self.solver.addVars(total, np.concatenate(low), np.concatenate(high))
        self.rows: list[tuple[int, int]] = []  # (row of h >= z, hidden neuron) of the unstable ones
        count = hidden = 0
        for j in range(k):
            layer = net.layers[j]
            below = np.arange(self.start[j], self.start[j + 1], dtype=np.int32)
            for i in range(layer.n_out):
                lower, upper = float(bounds.lower[j][i]), float(bounds.upper[j][i])
                own = np.int32(self.start[j + 1] + i)
                if upper > 0:
                    columns = np.append(below, own)
                    values = np.append(-layer.weight64[i], 1.0)
                    bias = float(layer.bias64[i])
                    self.solver.addRow(bias, bias if lower >= 0 else highspy.kHighsInf, columns.size, columns, values)
                    count += 1
                    if lower < 0:
                        self.rows.append((count - 1, hidden))
                        steep = upper / (upper - lower)
                        chord = np.append(-steep * layer.weight64[i], 1.0)
                        top = steep * (bias - lower) + _LIFT * (upper - lower)
                        self.solver.addRow(-highspy.kHighsInf, top, columns.size, columns, chord)
                        count += 1
                hidden += 1
        self.hidden, self.count = hidden, count

    def minimise(self, cost: FloatArray, clock: Stopwatch) -> tuple[float, FloatArray] | None:
        """Smallest cost . h over the last layer's outputs, and alpha for every hidden neuron from the dual."""
        import highspy

        total = int(self.start[-1])
        costs = np.zeros(total)
        costs[self.start[-2] :] = cost
        self.solver.changeColsCost(total, np.arange(total, dtype=np.int32), costs)
        if np.isfinite(clock.left):
            self.solver.setOptionValue("time_limit", float(self.solver.getRunTime() + max(clock.left, 0.01)))
        self.solver.run()
        if self.solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution: Any = self.solver.getSolution()
        rows, columns = np.array(solution.row_dual), np.array(solution.col_dual)
        if rows.size != self.count or columns.size != total:  # the solver refused a row, for instance a huge number
            return None
        alphas = np.zeros(self.hidden)
        offset = self.widths[0]
        for row, neuron in self.rows:
            ray, floor = max(rows[row], 0.0), max(columns[offset + neuron], 0.0)
            alphas[neuron] = ray / (ray + floor) if ray + floor > 0 else 0.0
        return float(self.solver.getInfo().objective_function_value), np.clip(alphas, 0.0, 1.0)


# ---- polyhedra given by inequalities


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


# ---- programs with binaries that look for a difference


def propose_witnesses(f: Network, g: Network, box: Box, clock: Stopwatch, *, count: int = 4) -> list[FloatArray]:
    """Points of a bounded box where a mixed-integer program finds f and g far apart; proposals only.

    One binary for each knot of each hidden neuron that the enclosures leave open, big-M from `preactivation_bounds`;
    +-(f - g)_k is maximised output by output and the incumbents are returned, whatever the solver claims.

    Args:
        f: a network with piecewise-linear activations.
        g: another with as many inputs and outputs.
        box: a bounded box.
        clock: time is shared evenly among the programs.
        count: largest number of points.

    Returns:
        At most `count` points of the box, (n,) float64, of the largest differences first; empty if the box is
        unbounded or an activation is not piecewise linear.
    Complexity: exponential in the number of open knots.
    Source: big-M encodings as in Tjeng, Xiao and Tedrake, arXiv 1711.07356.

    >>> f = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.0]], [-1.0]), ([[1.0]], [0.0]))
    >>> [x] = propose_witnesses(f, g, Box.parse("[-2,2]", 1), Stopwatch(10.0), count=1)
    >>> float(f(x)[0] - g(x)[0])
    1.0
    """
    if not box.bounded or not all(layer.activation.pieces for net in (f, g) for layer in net.layers):
        return []
    program = _Difference(f, g, box)
    found: list[tuple[float, FloatArray]] = []
    tasks = [(k, sign) for k in range(f.widths[-1]) for sign in (1.0, -1.0)]
    for number, (k, sign) in enumerate(tasks):
        if clock.expired or len(found) >= 2 * count:
            break
        point = program.largest(k, sign, clock.left / (len(tasks) - number))
        if point is not None:
            x = np.clip(point, box.lower, box.upper)
            found.append((float(np.abs(f(x) - g(x)).max()), x))
    return [x for _, x in sorted(found, key=lambda pair: -pair[0])[:count]]


class _Difference:
    """Both networks over one input as rows and columns of a mixed-integer program."""

    def __init__(self, f: Network, g: Network, box: Box) -> None:
        import highspy

        self.solver = highspy.Highs()
        self.solver.setOptionValue("output_flag", False)
        self.count = self.inputs = box.dimension
        self.solver.addVars(self.count, box.lower, box.upper)
        self.outputs = [self._add_net(net, preactivation_bounds(net, box)) for net in (f, g)]

    def _column(self, low: float, high: float, *, binary: bool = False) -> int:
        import highspy

        self.solver.addVar(low, high)
        if binary:
            self.solver.changeColIntegrality(self.count, highspy.HighsVarType.kInteger)
        self.count += 1
        return self.count - 1

    def _row(self, low: float, high: float, terms: dict[int, float]) -> None:
        columns = np.array(list(terms), dtype=np.int32)
        self.solver.addRow(low, high, columns.size, columns, np.array(list(terms.values()), dtype=np.float64))

    def _add_net(self, net: Network, bounds: Bounds) -> list[tuple[dict[int, float], float]]:
        """The network's outputs as (terms, constant) of columns."""
        values: list[tuple[dict[int, float], float]] = [({i: 1.0}, 0.0) for i in range(self.inputs)]
        for k, layer in enumerate(net.layers):
            out = []
            for i in range(layer.n_out):
                terms: dict[int, float] = {}
                shift = float(layer.bias64[i])
                for weight, (parts, constant) in zip(layer.weight64[i].tolist(), values, strict=True):
                    shift += weight * constant
                    for c, v in parts.items():
                        terms[c] = terms.get(c, 0.0) + weight * v
                low, high = float(bounds.lower[k][i]), float(bounds.upper[k][i])
                z = self._column(low, high)
                self._row(shift, shift, {z: 1.0, **{c: -v for c, v in terms.items() if v}})
                out.append(self._activated(layer.activation.pieces or (), z, low, high))
            values = out
        return values

    def _activated(self, pieces: tuple[Piece, ...], z: int, low: float, high: float) -> tuple[dict[int, float], float]:
        """s(z) = first piece + sum over knots t of (jump of the slope) relu(z - t)."""
        terms, constant = {z: float(pieces[0].slope)}, float(pieces[0].intercept)
        for before, after in zip(pieces, pieces[1:], strict=False):
            knot, jump = float(before.hi or 0), float(after.slope - before.slope)
            if high <= knot or jump == 0.0:
                continue
            if low >= knot:
                terms[z] += jump
                constant -= jump * knot
                continue
            y, on = self._column(0.0, high - knot), self._column(0.0, 1.0, binary=True)
            self._row(-knot, np.inf, {y: 1.0, z: -1.0})
            self._row(-np.inf, -low, {y: 1.0, z: -1.0, on: knot - low})
            self._row(-np.inf, 0.0, {y: 1.0, on: knot - high})
            terms[y] = jump
        return terms, constant

    def largest(self, k: int, sign: float, seconds: float) -> FloatArray | None:
        """The best input found for sign (f - g)_k."""
        import highspy

        costs = np.zeros(self.count)
        for way, outputs in zip((sign, -sign), self.outputs, strict=True):
            for column, value in outputs[k][0].items():
                costs[column] += way * value
        self.solver.changeColsCost(self.count, np.arange(self.count, dtype=np.int32), costs)
        self.solver.changeObjectiveSense(highspy.ObjSense.kMaximize)
        self.solver.setOptionValue("time_limit", float(self.solver.getRunTime() + min(max(seconds, 0.01), _PROGRAM)))
        self.solver.run()
        info = self.solver.getInfo()
        if info.primal_solution_status != 2:  # no feasible incumbent
            return None
        return np.array(self.solver.getSolution().col_value, dtype=np.float64)[: self.inputs]
