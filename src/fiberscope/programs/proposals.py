"""Mixed-integer programs that look for an input where two networks are far apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Piece
from fiberscope.bounds import Bounds, preactivation_bounds
from fiberscope.domains import Box
from fiberscope.network import Network
from fiberscope.results import Stopwatch

FloatArray = npt.NDArray[np.float64]

_PROGRAM = 30.0
"""Seconds that one mixed-integer program may take."""


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
