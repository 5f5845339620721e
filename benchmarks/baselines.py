"""What a user would write instead: random inputs, weight matching, and a mixed-integer program over a box."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse

from fiberscope.network import Network

FloatArray = npt.NDArray[np.float64]

TOLERANCE = 1e-5
SEEN = 1e-6
"""Differences that a solver with tolerances of 1e-6 can be trusted to have seen."""


@dataclass
class Baseline:
    """What a baseline says (it never proves anything), and the seconds it took."""

    word: str
    detail: str
    seconds: float


def random_inputs(f: Network, g: Network, count: int = 10_000, seed: int = 0) -> Baseline:
    """np.allclose with atol 1e-5 on the outputs in the networks' own dtype, at random inputs of [-1, 1]^n."""
    start = time.perf_counter()
    points = np.random.default_rng(seed).uniform(-1, 1, (count, f.widths[0]))
    first, second = f.replay(points), g.replay(points)
    word = "equal" if np.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE) else "different"
    return Baseline(word, f"max {np.abs(first - second).max():.1e}", time.perf_counter() - start)


def weight_matching(f: Network, g: Network) -> Baseline:
    """Norm-scaled rows of each layer assigned to each other (Hungarian method), and the largest residual."""
    start = time.perf_counter()
    if f.widths != g.widths:
        return Baseline("cannot", "shapes differ", time.perf_counter() - start)
    first, second = ([(k.weight64.copy(), k.bias64.copy()) for k in net.layers] for net in (f, g))
    worst = 0.0
    for k in range(f.depth - 1):
        for chain in (first, second):
            _normalise(chain, k)
        (a, p), (b, q) = first[k], second[k]
        rows, columns = np.column_stack([a, p]), np.column_stack([b, q])
        _, order = optimize.linear_sum_assignment(rows @ columns.T, maximize=True)
        second[k] = (b[order], q[order])
        second[k + 1] = (second[k + 1][0][:, order], second[k + 1][1])
        worst = max(worst, float(np.abs(rows - columns[order]).max()))
    worst = max([worst] + [float(np.abs(a - b).max()) for a, b in zip(first[-1], second[-1], strict=True)])
    word = "equal" if worst <= TOLERANCE else "different"
    return Baseline(word, f"residual {worst:.1e}", time.perf_counter() - start)


def _normalise(chain: list[tuple[FloatArray, FloatArray]], k: int) -> None:
    (weight, bias), (above, shift) = chain[k], chain[k + 1]
    norms = np.sqrt((weight**2).sum(axis=1) + bias**2)
    norms[norms == 0] = 1
    chain[k], chain[k + 1] = (weight / norms[:, None], bias / norms), (above * norms, shift)


@dataclass
class _Program:
    """Rows and columns of a mixed-integer program while it is built: low <= A v <= high, ends of v, which are 0/1."""

    blocks: list[tuple[Any, Any, Any]] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)
    rows: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    ends: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    whole: list[npt.NDArray[np.int64]] = field(default_factory=list)
    height: int = 0
    width: int = 0

    def variables(self, low: FloatArray, high: FloatArray, *, whole: bool = False) -> npt.NDArray[np.int64]:
        """New variables between these ends; their columns."""
        self.ends.append((low, high))
        self.whole.append(np.full(len(low), int(whole)))
        self.width += len(low)
        return np.arange(self.width - len(low), self.width)

    def constrain(
        self, parts: list[tuple[FloatArray, npt.NDArray[np.int64]]], low: FloatArray, high: FloatArray
    ) -> None:
        """Add rows low <= sum of matrix @ variables <= high."""
        for matrix, columns in parts:
            block = sparse.coo_array(matrix)
            self.blocks.append((block.data, block.coords[0] + self.height, columns[block.coords[1]]))
        self.rows.append((low, high))
        self.height += len(low)

    def maximise(self, gain: FloatArray, seconds: float) -> Any:
        """Ask HiGHS."""
        data, at, of = (np.concatenate(v) for v in zip(*self.blocks, strict=True))
        matrix = sparse.csr_array((data, (at, of)), shape=(self.height, self.width))
        (low, high), (least, most) = ([np.concatenate(v) for v in zip(*w, strict=True)] for w in (self.rows, self.ends))
        return optimize.milp(
            -gain, integrality=np.concatenate(self.whole), bounds=optimize.Bounds(least, most),
            constraints=optimize.LinearConstraint(matrix, low, high), options={"time_limit": seconds},
        )  # fmt: skip


def _encode(program: _Program, net: Network, x: npt.NDArray[np.int64], ends: tuple[FloatArray, FloatArray]) -> Any:
    """Add a network with big-M constants from intervals; returns the last matrix, its variables, and its bias."""
    h, (low, high) = x, ends
    for layer in net.hidden:
        weight, bias = layer.weight64, layer.bias64
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)
        z_low, z_high = up @ low + down @ high + bias, up @ high + down @ low + bias
        low, high = np.maximum(z_low, 0), np.maximum(z_high, 0)
        out = program.variables(low, high)
        eye, open_ = np.eye(len(bias)), (z_low < 0) & (z_high > 0)
        program.constrain([(weight, h), (-eye, out)], np.full(len(bias), -np.inf), np.where(z_high > 0, -bias, np.inf))
        on = z_low >= 0
        program.constrain([(weight[on], h), (-eye[on], out)], -bias[on], np.full(on.sum(), np.inf))
        if open_.any():
            phase = program.variables(np.zeros(open_.sum()), np.ones(open_.sum()), whole=True)
            least, most, none = z_low[open_], z_high[open_], np.full(open_.sum(), -np.inf)
            program.constrain([(eye[open_], out), (-np.diag(most), phase)], none, np.zeros(len(most)))
            program.constrain(
                [(eye[open_], out), (-weight[open_], h), (-np.diag(least), phase)], none, bias[open_] - least
            )
        h = out
    return net.layers[-1].weight64, h, net.layers[-1].bias64


def mixed_integer(f: Network, g: Network, seconds: float) -> Baseline:
    """Maximise each (f - g)_k and (g - f)_k over [-1, 1]^n by HiGHS until one optimum exceeds 1e-6, or time is up.

    "equal" only says that the solver's float optima all stay below 1e-6.
    """
    start = time.perf_counter()
    program = _Program()
    ends = (-np.ones(f.widths[0]), np.ones(f.widths[0]))
    x = program.variables(*ends)
    last = [_encode(program, net, x, ends) for net in (f, g)]
    best, bound, closed = 0.0, 0.0, 0
    questions = [(k, sign) for k in range(f.widths[-1]) for sign in (1.0, -1.0)]
    for k, sign in questions:
        left = seconds - (time.perf_counter() - start)
        if left <= 0:
            break
        gain = np.zeros(program.width)
        for (matrix, columns, _), s in zip(last, (sign, -sign), strict=True):
            gain[columns] += s * matrix[k]
        constant = sign * (last[0][2][k] - last[1][2][k])
        found = program.maximise(gain, left)
        if found.x is not None:
            point = np.clip(found.x[x], -1, 1)
            best = max(best, float(np.abs(f(point) - g(point)).max()))
        if best > SEEN:
            return Baseline("different", f"replayed {best:.1e}", time.perf_counter() - start)
        if found.status != 0:
            break
        bound, closed = max(bound, constant - found.fun), closed + 1
    binaries = int(sum(w.sum() for w in program.whole))
    if closed == len(questions):
        return Baseline("equal", f"bound {bound:.1e}", time.perf_counter() - start)
    detail = f"{closed} of {len(questions)} programs closed, {binaries} binaries"
    return Baseline("time", detail, time.perf_counter() - start)
