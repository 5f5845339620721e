"""Training on an invariant manifold in floating point: beside the reduced network, and how fast rounding leaves it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_count, as_generator, as_number, as_switch, shown
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.dynamics.averages import Averages
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.dynamics.reduced import ReducedNetwork, reduced_network
from fiberscope.invariants.dynamics.updates import Optimiser, State, optimiser
from fiberscope.network import Network, require_network
from fiberscope.neurons import colour_classes
from fiberscope.results import Budget, Progress, Result, Rigor
from fiberscope.rowclasses import Classes

Array = npt.NDArray[Any]

FLOOR = 30.0
"""Distances above this many rounding units of |theta| are read as growth, not as noise of the sums."""
LINEAR = 1e-2
"""Distances up to this part of |theta| are read as the linear regime."""
_POINTS = 5


@dataclass(frozen=True, eq=False)
class Growth(Result):
    """Distance to an invariant manifold along a training run, with the exponent at which it grew.

    Args:
        steps: step numbers.
        distances: Euclidean distance of theta to the linear manifold V_P at those steps.
        relative: the same divided by |theta| at the start.
        exponent: slope of log(distance) per step in the window, None if it never grew clear of rounding.
        window: first and last step of the fit, None without a fit.
        scatter: root mean square of the fit's residuals of log(distance).
        escaped: whether the distance left the linear regime (1e-2 of |theta|).
        dtype: float type of the run.
        optimiser: name and rate of the rule.
        codimension: of the manifold V_P.
        reprojected: whether the run was put back on the manifold in every step.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network"})

    steps: tuple[int, ...]
    distances: tuple[float, ...]
    relative: tuple[float, ...]
    exponent: float | None
    window: tuple[int, int] | None
    scatter: float | None
    escaped: bool
    dtype: str
    optimiser: str
    codimension: int
    reprojected: bool
    network: Network
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ("equitable-sim",)

    def __str__(self) -> str:
        """One screen."""
        lines = [
            f"distance to the invariant manifold (codimension {self.codimension}) under {self.optimiser}, {self.dtype}"
            + (", re-projected in every step" if self.reprojected else "")
        ]
        for k in np.unique(np.linspace(0, len(self.steps) - 1, 8).astype(int)):
            lines.append(f"  step {self.steps[k]:>8}: {self.distances[k]:.3g}")
        if self.exponent is None:
            lines.append("  no growth clear of rounding was seen; this is no proof that there is none")
        else:
            first, last = self.window or (0, 0)
            lines.append(
                f"  grows like exp({self.exponent:.3g} step) from step {first} to {last} "
                f"(scatter {self.scatter:.2g} in the logarithm): "
                + ("the manifold repels" if self.exponent > 0 else "the manifold attracts")
                + " here"
            )
        if self.escaped:
            lines.append("  the run left the manifold, which exact arithmetic would not have done")
        return "\n".join(lines)


def growth(
    net: Network,
    data: Batch | tuple[npt.ArrayLike, npt.ArrayLike],
    *,
    steps: int = 1000,
    rule: Optimiser | None = None,
    partition: Sequence[Classes] | None = None,
    perturbation: float = 0.0,
    dtype: npt.DTypeLike = np.float64,
    every: int | None = None,
    reproject: bool = False,
    seed: int = 0,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Growth:
    """Train in floats and measure how fast the run leaves the manifold of a partition: d/dt log dist(theta, V_P).

    In exact arithmetic the distance would stay 0. Rounding leaves a trace of about 1e-16 |theta|, which grows wherever
    the manifold repels; `perturbation` starts it larger, so that the exponent shows before rounding matters.

    Args:
        net: a network on the manifold.
        data: a `Batch` of inputs, targets and the loss, or a pair (x, y) for the mean square.
        steps: number of steps.
        rule: the optimiser; gradient descent of rate 0.05 if None.
        partition: classes of every hidden layer; the coarsest equitable ones if None.
        perturbation: norm of a random start displacement transversal to the manifold.
        dtype: float32, float64 or longdouble.
        every: record the distance every so many steps (about 200 times if None).
        reproject: average gradients over classes and put theta on the manifold in every step.
        seed: of the displacement.
        budget: seconds; the run ends early and says so by its last step.
        progress: called with (fraction, text).

    Raises:
        ScopeError: if a layer was folded.
        InputError: if the partition is not equitable, or puts every neuron alone; for data or options that do not fit.

    Complexity: O(steps N M). Source: measured fact of the theory page; the manifold is that of arXiv 2510.09564.

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="tanh")
    >>> data = Batch(np.array([[0.5], [1.0]]), np.array([[0.1], [1.5]]))
    >>> growth(net, data, steps=20, perturbation=1e-8).steps[-1]
    20
    """
    require_network(net)
    small = reduced_network(net, colour_classes(net) if partition is None else partition)
    if all(c.trivial for c in small.partition):
        raise InputError("no two neurons share a class, so the manifold is everything; there is no distance to it")
    batch, rule = Batch.of(data, net), _checked(optimiser("gd", 0.05) if rule is None else rule)
    steps, every = as_count(steps, "steps", 1), None if every is None else as_count(every, "every", 1)
    perturbation, kind = as_number(perturbation, "perturbation", least=0), _float_kind(dtype)
    rng = as_generator(seed)
    averages = Averages(net, small.partition)
    theta = np.asarray(net.theta, dtype=np.float64).astype(kind)
    size = float(np.linalg.norm(theta))
    if perturbation:
        away = averages.residual(rng.standard_normal(theta.size).astype(kind))
        theta = theta + (away * (perturbation / float(np.linalg.norm(away)))).astype(kind)
    every = every or max(1, steps // 200)
    clock = Budget.of(budget).start()
    run = _Run(averages, batch, rule, as_switch(reproject, "reproject"))
    at, distances, state = [0], [averages.distance(theta)], State()
    for t in range(1, steps + 1):
        theta, state = run.step(theta, state)
        if t % every == 0 or t == steps:
            at.append(t)
            distances.append(averages.distance(theta))
            if progress is not None:
                progress(t / steps, f"step {t}: distance {distances[-1]:.2g}")
            if clock.expired or not math.isfinite(distances[-1]):
                break
    exponent, window, scatter = _fit(at, distances, size, float(np.finfo(kind).eps))
    return Growth(
        tuple(at), tuple(distances), tuple(d / size for d in distances), exponent, window, scatter,
        bool(not math.isfinite(distances[-1]) or max(distances) > LINEAR * size), kind.name,
        f"{rule.name} of rate {rule.rate:g}", _codimension(small), reproject, net,
        theorems=("equitable-sim", *(("optimiser-equivariance",) if _keeps(small, rule) else ())),
    )  # fmt: skip


def _checked(rule: object) -> Optimiser:
    if not isinstance(rule, Optimiser):
        raise InputError(f"rule: {shown(rule)}; give an `Optimiser`, as optimiser('adam', 0.01)")
    return rule


def _float_kind(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind not in (np.float32, np.float64, np.longdouble):
        raise InputError(f"dtype: {shown(dtype)}; give float32, float64 or longdouble")
    return kind


def _keeps(small: ReducedNetwork, rule: Optimiser) -> bool:
    try:
        small.require(rule)
    except ScopeError:
        return False
    return True


def _codimension(small: ReducedNetwork) -> int:
    total = 0
    wide, narrow = small.original.widths, small.network.widths
    for k in range(len(wide) - 1):
        free = narrow[k] * narrow[k + 1] + (wide[k] - narrow[k]) * (wide[k + 1] - narrow[k + 1])
        total += wide[k] * wide[k + 1] - free + wide[k + 1] - narrow[k + 1]
    return total


class _Run:
    """Steps of the wide network, put back on the manifold if asked."""

    def __init__(self, averages: Averages, data: Batch, rule: Optimiser, reproject: bool) -> None:
        self.averages, self.data, self.rule, self.reproject = averages, data, rule, reproject
        self.blocks = [(w, shape) for w, _, shape in averages.chain.places]

    def step(self, theta: Array, state: State) -> tuple[Array, State]:
        _, gradient = self.averages.chain.gradient(theta, self.data)
        if self.reproject:
            gradient = self.averages.average(gradient)
        theta, state = self.rule.step(theta, gradient, state, blocks=self.blocks)
        return (self.averages.nearest(theta) if self.reproject else theta), state


def _fit(
    steps: Sequence[int], distances: Sequence[float], size: float, eps: float
) -> tuple[float | None, tuple[int, int] | None, float | None]:
    """Slope of log(distance) from the first time it is clear of rounding to the end of the linear regime."""
    low, high = FLOOR * eps * size, LINEAR * size
    d = np.array(distances)
    first = next((k for k in range(d.size) if low < d[k] < high), d.size)
    last = next((k for k in range(first, d.size) if not low < d[k] < high), d.size)
    if last - first < _POINTS:
        return None, None, None
    t, y = np.array(steps[first:last], dtype=float), np.log(d[first:last])
    slope, start = np.polyfit(t, y, 1)
    if abs(slope) * (t[-1] - t[0]) < math.log(10.0):
        return None, None, None  # less than one decade is no growth
    return float(slope), (steps[first], steps[last - 1]), float(np.sqrt(np.mean((y - slope * t - start) ** 2)))


@dataclass(frozen=True, eq=False)
class SideBySide(Result):
    """A wide network and its reduced one trained on the same data with the same rule.

    Args:
        steps: number of steps taken.
        gap: largest |f_wide - f_reduced| over all data and recorded steps.
        final_gap: the same at the last step.
        sensitivity: largest difference of outputs between the reduced run and one started a rounding unit away; a gap
            of that size says nothing about the manifold, for the training itself amplifies rounding.
        distance: of the wide network to the manifold at the end.
        loss: of the wide network at the start and the end.
        reprojected: whether the wide network was put back on the manifold in every step.
        wide: the wide network at the end, in floats.
        small: the reduced network at the end.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"wide", "small"})

    steps: int
    gap: float
    final_gap: float
    sensitivity: float
    distance: float
    loss: tuple[float, float]
    reprojected: bool
    optimiser: str
    wide: Network
    small: Network
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ("reduced-network", "optimiser-equivariance")

    def __str__(self) -> str:
        """A few lines."""
        return (
            f"{self.steps} steps of {self.optimiser}: loss {self.loss[0]:.4g} -> {self.loss[1]:.4g}\n"
            f"  largest |f_wide - f_reduced| {self.gap:.2g}, at the end {self.final_gap:.2g}; "
            f"a rounding unit at the start moves f_reduced by {self.sensitivity:.2g}\n"
            f"  distance of the wide network to its manifold at the end {self.distance:.2g}"
            + (" (re-projected in every step)" if self.reprojected else " (never re-projected)")
        )


def side_by_side(
    net: Network,
    data: Batch | tuple[npt.ArrayLike, npt.ArrayLike],
    rule: Optimiser,
    *,
    steps: int = 1000,
    partition: Sequence[Classes] | None = None,
    reproject: bool = True,
    every: int = 20,
) -> SideBySide:
    """Train a network and its reduced network on the same data, and compare their outputs.

    Args:
        net: a network on the manifold of the partition.
        data: a `Batch` of inputs, targets and the loss, or a pair (x, y) for the mean square.
        rule: the optimiser of the wide network; the reduced one gets the multipliers.
        steps: number of steps.
        partition: classes of every hidden layer; the coarsest equitable ones if None.
        reproject: put the wide network back on the manifold in every step; without, rounding may leave it.
        every: compare the outputs every so many steps.

    Raises:
        ScopeError: if the rule does not keep the manifold, or a layer was folded.
        InputError: if the partition is not equitable; for data or options that do not fit.

    Complexity: O(steps N M).

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="tanh")
    >>> data = Batch(np.array([[0.5], [1.0]]), np.array([[0.1], [1.5]]))
    >>> side_by_side(net, data, optimiser("adam", 0.01), steps=50).gap < 1e-12
    True
    """
    require_network(net)
    small = reduced_network(net, colour_classes(net) if partition is None else partition)
    batch, steps, every = Batch.of(data, net), as_count(steps, "steps", 1), as_count(every, "every", 1)
    small.require(_checked(rule))
    averages = Averages(net, small.partition)
    run, chain = _Run(averages, batch, rule, as_switch(reproject, "reproject")), Chain(small.network)
    theta = np.asarray(net.theta, dtype=np.float64)
    narrow = np.asarray(small.network.theta, dtype=np.float64)
    start, gap, last, drift = chain.gradient(narrow, batch)[0], 0.0, 0.0, 0.0
    state, own, beside = State(), State(), State()
    shifted = narrow * (1.0 + float(np.finfo(np.float64).eps))
    for t in range(1, steps + 1):
        theta, state = run.step(theta, state)
        narrow, own = small.step(rule, narrow, chain.gradient(narrow, batch)[1], own)
        shifted, beside = small.step(rule, shifted, chain.gradient(shifted, batch)[1], beside)
        if t % every == 0 or t == steps:
            f = chain.outputs(narrow, batch.x)
            last = float(np.abs(averages.chain.outputs(theta, batch.x) - f).max())
            gap = max(gap, last) if math.isfinite(last) else math.inf
            drift = max(drift, float(np.abs(chain.outputs(shifted, batch.x) - f).max()))
    end = averages.chain.gradient(theta, batch)[0]
    return SideBySide(
        steps, gap, last, drift, averages.distance(theta), (start, end), reproject,
        f"{rule.name} of rate {rule.rate:g}", net.with_theta(theta), small.network.with_theta(narrow),
    )  # fmt: skip
