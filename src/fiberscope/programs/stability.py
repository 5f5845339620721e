"""Linear programs over the triangle relaxation that show which slopes prove a neuron stable."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.bounds import Bounds, preactivation_bounds, unstable
from fiberscope.domains import Box
from fiberscope.network import Network
from fiberscope.results import Progress, Stopwatch

FloatArray = npt.NDArray[np.float64]
_Sides = dict[str, FloatArray]

_SAMPLES = 2000
_SHARE = 0.2
_REACH = 0.25
"""Only enclosures that reach beyond zero by at most this part of their width are worth a program."""
_LIFT = 1e-6
"""Chords are lifted by this part of their width, lest they meet the lower lines and the dual mixes all three."""
_PATIENCE = 8
"""Programs without success in a row after which a layer is given up: candidates are asked most hopeful first."""


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
