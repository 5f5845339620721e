"""Gradient flow of many small networks at once, followed faithfully from tiny initialisations to the last digit.

d theta / dt = -D grad L(theta), D a diagonal metric (1, or the multipliers of a reduced network). In the coordinates
D^(-1/2) theta this is the plain flow of L with the symmetric Hessian H, so one eigendecomposition a step gives what a
stiff step needs: the exact lambda_min, and any function of h H. Runs keep their own step sizes and leave when done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError
from fiberscope.invariants.recovery.ladders.flowsteps import ORDER, STEPS, Local
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.network import Network
from fiberscope.results import Budget, Progress, Result, Rigor

FloatArray = npt.NDArray[np.float64]
Method = Literal["exponential", "rosenbrock", "explicit"]

STIFF_LIMIT = 250
"""Parameters up to which `method=None` means "exponential", beyond it "explicit"."""

REASONS = ("floor", "minimum", "saddle", "time", "steps", "budget", "stuck")
"""Why a run ends: the loss is at the floor; a point where the model of second order sees no decrease (then a local
minimum, or a saddle that the run sits on exactly); the limits; steps below rounding, or values that are not finite."""

_LARGEST = 1e30
_STILL = 1e-13
"""A local minimum: the decrease that the second-order model predicts is below this part of the loss."""


@dataclass(frozen=True, eq=False)
class Flow(Result):
    """Where the runs of a batch ended; arrays have one entry for each run.

    Args:
        landscape: the losses.
        theta: end points (B, M).
        losses: training losses there.
        times: times reached.
        steps: accepted steps.
        rejected: rejected steps.
        binding: steps whose size the cap h <= cap / |lambda_min| decided.
        sharpest: the largest h |lambda_min| of an accepted step over negative lambda_min; None for "explicit".
        slopes: norms of the gradient at the end, in the metric.
        reasons: one of `REASONS` for each run.
        method: integrator.
        rtol: tolerance of one step.
        cap: bound of h |lambda_min|; None for no bound.
        floor: loss at which a run is done.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"landscape", "theta"})

    landscape: Landscape
    theta: FloatArray
    losses: FloatArray
    times: FloatArray
    steps: npt.NDArray[np.int64]
    rejected: npt.NDArray[np.int64]
    binding: npt.NDArray[np.int64]
    sharpest: FloatArray | None
    slopes: FloatArray
    reasons: tuple[str, ...]
    method: str
    rtol: float
    cap: float | None
    floor: float
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ()

    @property
    def interpolates(self) -> npt.NDArray[np.bool_]:
        """Which runs reached the floor, (B,)."""
        return self.losses <= self.floor

    def network(self, run: int) -> Network:
        """The network where a run ended."""
        return self.landscape.network(self.theta[run])

    def errors(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
        """Mean squared errors (B,) at other points: x (n, n_0), y (n,) or (n, n_L)."""
        test = Landscape(self.landscape.widths, self.landscape.rows, x, y)
        miss = self.landscape.outputs(self.theta, test.x) - test.y
        return np.asarray((miss**2).mean(axis=(1, 2)))

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of equal length, one row for each run."""
        frame: dict[str, list[Any]] = {"run": list(range(len(self.losses)))}
        for name in ("losses", "times", "steps", "rejected", "binding", "slopes"):
            frame[name.removesuffix("s") if name in ("losses", "times", "slopes") else name] = getattr(
                self, name
            ).tolist()
        frame["sharpest"] = [None] * len(self.losses) if self.sharpest is None else self.sharpest.tolist()
        frame["reason"] = list(self.reasons)
        return frame

    def __str__(self) -> str:
        """One screen."""
        ends = {name: self.reasons.count(name) for name in REASONS if name in self.reasons}
        lines = [
            f"gradient flow of {len(self.losses)} runs, {self.landscape.size} parameters, {self.method}, "
            f"tolerance {self.rtol:g} ({self.rigor.name})",
            f"  ended by: {', '.join(f'{name} {count}' for name, count in ends.items())}",
            f"  training loss: {_span(self.losses)}; at most {self.floor:g} in {int(self.interpolates.sum())} runs",
            f"  time {_span(self.times)}; steps {_span(self.steps)}, rejected {int(self.rejected.sum())}",
        ]
        if self.sharpest is not None:
            bound = "no cap" if self.cap is None else f"cap {self.cap:g}"
            lines.append(
                f"  h |lambda_min| at most {self.sharpest.max():.2g} ({bound}, binding in {int(self.binding.sum())} "
                f"of {int(self.steps.sum())} steps)"
            )
        return "\n".join(lines)


def _span(values: npt.NDArray[Any]) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"


def flow(
    landscape: Landscape,
    start: npt.ArrayLike,
    *,
    metric: npt.ArrayLike | None = None,
    method: Method | None = None,
    rtol: float = 1e-6,
    cap: float | None = 0.5,
    floor: float = 1e-18,
    steps: int = 3000,
    time: float | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Flow:
    """Follow d theta / dt = -D grad L from every start until the loss is at the floor, a minimum, or a limit.

    "exponential": Rosenbrock of order 4(3) that is exact on the linear part, so instabilities are followed at any step
    size. "rosenbrock": Rodas3, linearly implicit of order 3(2) and L-stable; the cap keeps it from damping an
    instability. Both take the exact Hessian. "explicit": Dormand-Prince 5(4), gradients only; no step may raise the
    loss. An error of a step is the root mean square of its components over |theta_j| + rms(theta), so that a start at
    1e-10 is followed as well as one at 1.

    Args:
        landscape: the losses, M parameters.
        start: (B, M), or (M,) for one run.
        metric: the diagonal of D, (M,) or (B, M), entries > 0; 1 if None.
        method: None: "exponential" up to `STIFF_LIMIT` parameters, else "explicit".
        rtol: tolerance of one step.
        cap: h <= cap / |lambda_min| wherever lambda_min < 0; None: no bound. "explicit" has none.
        floor: loss at which a run is done.
        steps: limit of attempted steps of one run.
        time: limit of the flow's time, or None.
        budget: seconds; what was reached by then is returned.
        progress: called with (fraction of runs done, text).

    Raises:
        InputError: if shapes do not fit, or numbers are out of range.

    Complexity: a step costs O(n M^2 + M^3) and four gradients for each run ("explicit": six gradients).
    Source: Hochbruck, Ostermann, Schweitzer, SIAM J. Numer. Anal. 47 (2009), exprb43; Sandu et al., Atmos. Environ. 31
    (1997), Rodas3; the checks of faithfulness are of the theory page.

    >>> well = Landscape((1, 1), (), [[1.0]], [3.0], weights=[0.5])  # L = (theta - 3)^2 / 2
    >>> end = flow(well, [[1.0]], time=1.0)
    >>> bool(abs(end.theta[0, 0] - (3 - 2 * np.exp(-1))) < 1e-12), end.reasons
    (True, ('time',))
    """
    theta = np.array(np.atleast_2d(np.asarray(start, np.float64)))
    if theta.shape[1] != landscape.size or not len(theta):
        raise InputError(f"starts of shape {np.shape(start)}; the landscape has {landscape.size} parameters")
    if not np.isfinite(theta).all() or rtol <= 0 or steps < 1 or (cap is not None and cap <= 0):
        raise InputError("starts must be finite, rtol and cap > 0, steps >= 1")
    weights = np.ones(landscape.size) if metric is None else np.asarray(metric, np.float64)
    if weights.shape not in ((landscape.size,), theta.shape) or not (weights > 0).all():
        raise InputError(f"metric of shape {weights.shape}; give {landscape.size} numbers > 0, or as many for each run")
    chosen = method or ("exponential" if landscape.size <= STIFF_LIMIT else "explicit")
    if chosen not in ORDER:
        raise InputError(f"method {chosen!r}; give one of {', '.join(ORDER)}")
    run = _Runs(landscape, theta, np.broadcast_to(np.sqrt(weights), theta.shape), chosen, rtol, cap, floor)
    return run.to_the_end(steps, np.inf if time is None else float(time), Budget.of(budget), progress)


class _Runs:
    """The runs still under way (`alive`) and the record of all."""

    def __init__(
        self, landscape: Landscape, theta: FloatArray, scale: FloatArray, method: str, rtol: float, cap: float | None,
        floor: float,
    ) -> None:  # fmt: skip
        self.landscape, self.method, self.rtol, self.cap, self.floor = landscape, method, rtol, cap, floor
        runs = len(theta)
        self.theta, self.scale = theta, scale
        self.losses, self.slopes, self.times = np.full(runs, np.inf), np.zeros(runs), np.zeros(runs)
        self.steps, self.rejected, self.binding = (np.zeros(runs, np.int64) for _ in range(3))
        self.sharpest = np.zeros(runs)
        self.h = np.full(runs, np.nan)
        self.reasons = ["steps"] * runs
        self.local = Local.empty(runs, landscape.size, stiff=method != "explicit")

    def to_the_end(self, steps: int, until: float, budget: Budget, progress: Progress | None) -> Flow:
        clock = budget.start()
        alive = np.arange(len(self.theta))
        self._look(alive)
        alive = self._ended(alive, until)
        for turn in range(steps):
            if not len(alive) or clock.expired:
                break
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                moved = self._step(alive, until)
            self._look(moved)
            alive = self._ended(alive, until)
            if progress is not None and turn % 20 == 0:
                progress(1 - len(alive) / len(self.theta), f"{len(alive)} runs under way after {turn + 1} steps")
        if clock.expired:
            for run in alive:
                self.reasons[run] = "budget"
        stiff = self.method != "explicit"
        return Flow(
            self.landscape, self.theta, self.losses, self.times, self.steps, self.rejected, self.binding,
            self.sharpest if stiff else None, self.slopes, tuple(self.reasons), self.method, self.rtol,
            self.cap if stiff else None, self.floor,
        )  # fmt: skip

    def _look(self, runs: npt.NDArray[np.int64]) -> None:
        """Loss, gradient and (stiff methods) eigendecomposition at the points just reached."""
        if not len(runs):
            return
        part, scale, local = self.landscape.take(runs), self.scale[runs], self.local
        if local.vectors is None:
            loss, slope = part.slopes(self.theta[runs])
            local.force[runs] = -scale * slope
        else:
            loss, slope, hessian = part.curvature(self.theta[runs])
            values, vectors = np.linalg.eigh(scale[:, :, None] * hessian * scale[:, None])
            local.values[runs], local.vectors[runs] = values, vectors
            local.force[runs] = -scale * slope
        self.losses[runs] = loss
        self.slopes[runs] = np.sqrt((local.force[runs] ** 2).sum(axis=1))
        first = np.isnan(self.h[runs])
        if first.any():  # a first step moves by 1% of theta, later ones are controlled
            size = np.sqrt(((self.theta[runs] / scale) ** 2).sum(axis=1))
            self.h[runs] = np.where(first, 0.01 * size / np.maximum(self.slopes[runs], 1e-300), self.h[runs])
            self.h[runs] = np.clip(self.h[runs], 1e-12, _LARGEST)

    def _ended(self, alive: npt.NDArray[np.int64], until: float) -> npt.NDArray[np.int64]:
        """Those that go on; the others get their reason."""
        loss = self.losses[alive]
        code = np.where(loss <= self.floor, "floor", np.where(self.times[alive] >= until, "time", ""))
        code = np.where(np.isfinite(loss) & (self.h[alive] > 1e-280), code, "stuck")
        if self.local.vectors is not None:
            values = self.local.values[alive]
            along = (self.local.vectors[alive].swapaxes(1, 2) @ self.local.force[alive][..., None])[..., 0]
            largest = np.abs(values).max(axis=1, keepdims=True)
            gain = (along**2 / (2 * np.maximum(np.abs(values), 1e-13 * largest + 1e-300))).sum(axis=1)
            convex = values[:, 0] >= -1e-9 * largest[:, 0]
            code = np.where((code == "") & (gain <= _STILL * loss) & convex, "minimum", code)
            code = np.where((code == "") & (gain <= 1e-28 * loss), "saddle", code)
        else:
            still = self.slopes[alive] <= 1e-15 * np.sqrt(loss)
            code = np.where((code == "") & still, "minimum", code)
        for run, name in zip(alive.tolist(), code.tolist(), strict=True):
            if name:
                self.reasons[run] = name
        return np.asarray(alive[code == ""])

    def _step(self, alive: npt.NDArray[np.int64], until: float) -> npt.NDArray[np.int64]:
        """One attempted step of every run; the runs that moved."""
        h = self.h[alive]
        low = np.zeros(len(alive)) if self.local.vectors is None else np.minimum(self.local.values[alive, 0], 0.0)
        bound = np.zeros(len(alive), dtype=bool)
        if self.cap is not None and self.local.vectors is not None:
            most = self.cap / np.maximum(-low, 1e-300)
            bound = most < h
            h = np.minimum(h, most)
        left = until - self.times[alive]
        last = h >= left
        h = np.where(last, left, h)
        scale, theta = self.scale[alive], self.theta[alive]
        part = self.landscape.take(alive)

        def force(shift: FloatArray) -> FloatArray:
            return -scale * part.slopes(theta + scale * shift)[1]

        shift, error = STEPS[self.method](force, self.local.at(alive), h[:, None])
        size = np.abs(theta) + np.sqrt((theta**2).mean(axis=1, keepdims=True)) + 1e-290
        miss = np.sqrt(((scale * error / size) ** 2).mean(axis=1)) / self.rtol
        miss = np.where(np.isfinite(miss), miss, np.inf)
        if self.local.vectors is None:  # at the limit of stability errors stay small while the loss stalls
            rise = part.loss(theta + scale * shift) > self.losses[alive]
            miss = np.where(rise, np.maximum(miss, 4.0), miss)
        good = miss <= 1.0
        rate = np.clip(0.9 * np.maximum(miss, 1e-12) ** (-1.0 / ORDER[self.method]), 0.15, 5.0)
        self.h[alive] = np.minimum(np.where(last & good, self.h[alive], h * rate), _LARGEST)
        moved = alive[good]
        self.theta[moved] = (theta + scale * shift)[good]
        self.times[moved] += h[good]
        self.times[alive[good & last]] = until
        self.steps[moved] += 1
        self.binding[alive[good & bound]] += 1
        self.rejected[alive[~good]] += 1
        self.sharpest[moved] = np.maximum(self.sharpest[moved], (-h * low)[good])
        return moved
