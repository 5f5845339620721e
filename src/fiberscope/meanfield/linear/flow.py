"""Two-layer networks that are linear in their input: the closed dynamics of w(t) for any covariance, and its rates.

Two readings. A ReLU network with an odd target and an even input law (x and -x alike) has f(x) = w.x with slope 1/2; a
network with linear activation has slope 1. The two are one: ReLU at scale V and time t is the linear network at scale
V/2 and time t/2.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.errors import InputError, IntegrationError
from fiberscope.meanfield.integrators import Trajectory, checked_times, integrate
from fiberscope.meanfield.linear.system import (
    Hyperbolic,
    Modes,
    Moments,
    System,
    lorentz_invariants,
    modes_of,
    modes_of_data,
)
from fiberscope.meanfield.tables import time_table
from fiberscope.results import Budget, Progress, Result, Rigor, jsonable

FloatArray = NDArray[np.float64]
Method = Literal["auto", "DOP853", "Radau", "BDF"]
_CONSISTENT = 1e-3
"""Largest difference of the two ways to the residual, relative to its start, that a result may have."""
_RANGE = 1e100
_STIFF = 2e4
"""Largest product of rate and time for the explicit method."""
_SHOWN = 4000
"""Numbers of w in `to_dict`."""
_MEMORY = 2 << 30
"""Bytes of states."""


@dataclass(frozen=True, eq=False)
class LinearFlow(Result):
    """The linear map w(t) that the network is, and how fast its risk falls.

    Args:
        dimension: d.
        scale: V, or None for general moments.
        slope: of the activation's odd part.
        rank: of C; w moves in the range of C only when the moments are isotropic.
        active: number of eigendirections that ever move.
        times: (T,) those reached.
        w: (T, d).
        w_star: (d,) the minimiser: that of least norm when C is singular.
        gap: (T,) excess risk Q(w) - min Q; relatively accurate, however small.
        log_gap: (T,) its logarithm, also below all floats; -inf where the start is optimal.
        decay_rate: (T,) -d log gap/dt at each time.
        invariants: (d+1,) eigenvalues of S J, conserved.
        invariant_drift: largest change of them along the run, relative to the moments.
        residual_defect: largest difference of the two ways to know C^(1/2)(w* - w), relative to its start.
        rate_bound: proved: gap(t) <= gap(0) exp(-rate_bound t) for all t >= 0.
        bound_margin: smallest log(bound / gap) along the run.
        bound_holds: whether the bound was kept, up to the tolerance of the integration.
        rate_asymptotic: the rate as t -> infinity (from w*; for general moments from the last state).
        rate_measured: slope of -log gap, fitted over `rate_window`; None with fewer than 3 times there.
        rate_window: the last half of the time span.
        risk_floor: min Q where it is known (data), else None.
        initial: what S(0) is.
        method: how it was integrated.
        steps: accepted steps.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"system", "states", "frame", "w", "log_gap"})

    dimension: int
    scale: float | None
    slope: float
    rank: int
    active: int
    times: FloatArray
    w: FloatArray
    w_star: FloatArray
    gap: FloatArray
    log_gap: FloatArray
    decay_rate: FloatArray
    invariants: FloatArray
    invariant_drift: float
    residual_defect: float
    rate_bound: float
    bound_margin: float
    bound_holds: bool
    rate_asymptotic: float | None
    rate_measured: float | None
    rate_window: tuple[float, float] | None
    risk_floor: float | None
    initial: str
    method: str
    steps: int
    complete: bool
    reason: str
    system: System | None = field(repr=False)
    states: FloatArray = field(repr=False)
    frame: FloatArray = field(repr=False)
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ("linear-rate",)

    @property
    def energy(self) -> FloatArray:
        """The risk above `risk_floor` (the gap), (T,)."""
        return self.gap

    @property
    def bound_curve(self) -> FloatArray:
        """gap(0) exp(-rate_bound t), (T,): proved to lie above the gap."""
        first = math.exp(self._first_log_gap()) if self.active else 0.0
        curve: FloatArray = first * np.exp(-self.rate_bound * self.times)
        return curve

    def _first_log_gap(self) -> float:
        return math.log(0.5) + 2 * math.log(self.system.size) if self.system is not None else -math.inf

    def second_moments(self, index: int) -> FloatArray:
        """S = E[c c^T], c = (a, b), at one of the times: (d+1, d+1). O(d^2).

        For isotropic moments S = -sb^2 J + V p p^T.
        """
        turn = np.eye(self.dimension + 1)
        if isinstance(self.system, Moments):
            turn[1:, 1:] = self.frame
            return turn @ self.system.matrix(self.states[index]) @ turn.T
        p = self.hyperboloid(index)
        balanced = -float(self.invariants[-1])
        total = float(self.invariants[0] - self.invariants[-1])
        moments: FloatArray = total * np.outer(p, p) - balanced * np.diag([1.0, *[-1.0] * self.dimension])
        return moments

    def hyperboloid(self, index: int) -> FloatArray:
        """(p0, pv) at one of the times for isotropic moments, (d+1,): p0^2 - |pv|^2 = 1, w = slope V p0 pv."""
        if isinstance(self.system, Moments):
            raise InputError("general moments have no single point p; use second_moments")
        p = np.zeros(self.dimension + 1)
        p[0] = 1.0
        if self.system is not None:
            state = self.states[index]
            p[0], p[1:] = state[0], self.frame @ state[1 : self.active + 1]
        return p

    def operator(self, index: int) -> FloatArray:
        """H = slope^2 (S_00 I + S_vv) at one of the times, (d, d): w' = H (beta - C w)."""
        moments = self.second_moments(index)
        found: FloatArray = self.slope**2 * (moments[0, 0] * np.eye(self.dimension) + moments[1:, 1:])
        return found

    def to_frame(self) -> dict[str, FloatArray]:
        """Columns of equal length."""
        return {
            "time": self.times, "w_norm": np.linalg.norm(self.w, axis=1), "gap": self.gap,
            "bound": self.bound_curve, "decay_rate": self.decay_rate,
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; w at so many times that it stays small."""
        count = max(1, min(len(self.times), _SHOWN // max(1, self.dimension)))
        rows = np.unique(np.linspace(0, len(self.times) - 1, count).round().astype(int))
        found = super().to_dict()
        found["w"] = {"index": rows.tolist(), "values": jsonable(self.w[rows])}
        found["bound"] = jsonable(self.bound_curve)
        return found

    def __str__(self) -> str:
        """One screen."""
        many = f"{self.active} of {self.dimension} directions move"
        fit = "" if self.rate_measured is None or self.rate_window is None else (
            f", fitted {self.rate_measured:.6g} over [{self.rate_window[0]:g}, {self.rate_window[1]:g}]"
        )  # fmt: skip
        last = "" if self.rate_asymptotic is None else f", asymptotic {self.rate_asymptotic:.6g}"
        lines = [
            f"linear map w(t) of a two-layer network, d = {self.dimension}, rank of C {self.rank}; {many}",
            f"  initial moments: {self.initial}; slope {self.slope:g}",
            f"  rate of the excess risk: proved {self.rate_bound:.6g} from t = 0{last}{fit}",
            *time_table({"t": self.times, "|w|": np.linalg.norm(self.w, axis=1), "gap": self.gap,
                         "rate": self.decay_rate}),
            f"  bound kept: {'yes' if self.bound_holds else 'NO'}; invariants drift {self.invariant_drift:.1e}; "
            f"two ways to the residual differ by {self.residual_defect:.1e}",
            f"  {self.method}, {self.steps} steps; {self.rigor.value}",
        ]  # fmt: skip
        return "\n".join(lines if self.complete else [*lines, f"  stopped early: {self.reason}"])


def linear_flow(
    C: ArrayLike,
    beta: ArrayLike,
    V: float | None,
    times: ArrayLike,
    *,
    moments: ArrayLike | None = None,
    slope: float = 0.5,
    method: Method = "auto",
    rtol: float = 1e-9,
    path: str | os.PathLike[str] | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> LinearFlow:
    """The dynamics of w for any covariance: pv' = slope p0 (beta - C w), p0^2 = 1 + |pv|^2, w = slope V p0 pv.

    The excess risk of w is at most its start times exp(-2 slope^2 V lam t), lam the smallest positive eigenvalue of C:
    w' = H (beta - C w) with H = slope^2 V (p0^2 I + pv pv^T) >= slope^2 V I. For slope 1/2 this is the rate 2 eta lam
    of Theorem 3.3.2 with eta = V/4 from t = 0 on. For general moments V is the sum of the positive eigenvalue of S J
    and the smallest absolute value among the others (a boost turns S(0) into a diagonal matrix).

    Args:
        C: (d, d) covariance E[x x^T], positive semidefinite. If it is singular, w converges on its range.
        beta: (d,) E[f*(x) x], in the range of C.
        V: E[a^2] + E[|b|^2]/d of the neurons at time 0, with isotropic moments diag(sa^2, sb^2 I); None is 1 + 1/d.
        times: (T,) increasing, from 0 on.
        moments: (d+1, d+1) S(0) = E[c c^T], c = (a, b), for any other start (then V is None).
        slope: of the odd part of the activation: 1/2 for ReLU, (1 + c)/2 for leaky ReLU, 1 for a linear network.
        method: "auto" is "Radau" with the analytic Jacobian for stiff problems, else "DOP853".
        rtol: relative tolerance.
        path: checkpoint file.
        budget: seconds, or `Budget`.
        progress: callback.

    Raises:
        InputError: for shapes that do not fit, a C that is no covariance, beta outside its range, V <= 0.
        IntegrationError: if the integration fails.

    Complexity: one eigendecomposition O(d^3), then O(d) a step and O(d) an output; O(d^2) with moments.
    Source: arXiv 2211.08771, Theorems 3.3.1 and 3.3.2; the closed equation and constants are derived here.

    >>> flow = linear_flow(np.eye(2), [0.0, 1.0], 2.0, [0, 1, 100])
    >>> flow.w[-1].round(9).tolist(), flow.rate_bound, flow.active
    ([0.0, 1.0], 1.0, 1)
    """
    covariance, vector = _checked_problem(C, beta)
    d = len(vector)
    if moments is not None and V is not None:
        raise InputError("V and moments both given; the moments hold V, so pass V=None")
    run = _Run(checked_times(times), _positive(slope, "slope"), method, rtol, path, budget, progress)
    total = 1.0 + 1.0 / d if V is None else V
    return run.solve(modes_of(covariance, vector), total, moments, None)


def linear_flow_of(
    X: ArrayLike,
    y: ArrayLike,
    V: float | None,
    times: ArrayLike,
    *,
    centre: bool = False,
    moments: ArrayLike | None = None,
    slope: float = 1.0,
    method: Method = "auto",
    rtol: float = 1e-9,
    path: str | os.PathLike[str] | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> LinearFlow:
    """Gradient flow of a two-layer linear network on a dataset: risk 1/(2n) sum_i (y_i - w.x_i)^2, w = E[a b].

    C = X^T X / n and beta = X^T y / n are uncentred moments (there is no bias). With a finite network
    f(x) = (1/m) sum_j a_j b_j.x, a_j' = -m dF/da_j, b_j' = -m dF/db_j, and `moments=moments_of(a, B)` this is its
    training exactly, for any m.

    Args:
        X: (n, d) inputs.
        y: (n,) labels.
        V: as in `linear_flow`.
        times: (T,).
        centre: subtract the means of X and y first (a model whose output bias is always fitted best).
        moments: as in `linear_flow`.
        slope: 1 for the linear network; 1/2 for ReLU when the law of (x, y) is that of (-x, -y).
        method: as in `linear_flow`.
        rtol: relative tolerance.
        path: checkpoint file.
        budget: seconds, or `Budget`.
        progress: callback.

    Raises:
        InputError: for shapes that do not fit or values that are not finite.

    Complexity: singular values of X, O(n d min(n, d)), then as `linear_flow`; C is never formed.

    >>> flow = linear_flow_of([[1.0, 0.0], [0.0, 2.0]], [3.0, 4.0], 2.0, [0, 100])
    >>> flow.w[-1].round(9).tolist(), flow.risk_floor
    ([3.0, 2.0], 0.0)
    """
    inputs, labels = _in_range(X, "X"), _in_range(y, "y")
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1] or not inputs.size:
        raise InputError(f"X of shape {inputs.shape} and y of shape {labels.shape}; give (n, d) and (n,)")
    if moments is not None and V is not None:
        raise InputError("V and moments both given; the moments hold V, so pass V=None")
    if centre:
        inputs, labels = inputs - inputs.mean(axis=0), labels - labels.mean()
    run = _Run(checked_times(times), _positive(slope, "slope"), method, rtol, path, budget, progress)
    modes = modes_of_data(inputs, labels, kernel=moments is not None)
    rest = labels - inputs @ (modes.basis @ modes.w_star)
    total = 1.0 + 1.0 / inputs.shape[1] if V is None else V
    return run.solve(modes, total, moments, 0.5 * float(rest @ rest) / len(rest))


def moments_of(a: ArrayLike, B: ArrayLike) -> FloatArray:
    """Second moments (1/m) sum_j c_j c_j^T of neurons c = (a, b): a (m,), B (m, d) -> (d+1, d+1). O(m d^2).

    >>> moments_of([1.0, -1.0], [[1.0], [1.0]]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    heads, rows = _finite(a, "a"), _finite(B, "B")
    if rows.ndim != 2 or heads.shape != rows.shape[:1] or not rows.size:
        raise InputError(f"a of shape {heads.shape} and B of shape {rows.shape}; give (m,) and (m, d)")
    neurons = np.column_stack([heads, rows])
    found: FloatArray = neurons.T @ neurons / len(neurons)
    return found


class _Run:
    """One call: options, then modes to a result."""

    def __init__(
        self,
        times: FloatArray,
        slope: float,
        method: Method,
        rtol: float,
        path: str | os.PathLike[str] | None,
        budget: Budget | float | None,
        progress: Progress | None,
    ) -> None:
        self._times, self._slope, self._method, self._rtol = times, slope, method, rtol
        self._path, self._budget, self._progress = path, budget, progress
        if method not in ("auto", "DOP853", "Radau", "BDF"):
            raise InputError(f"method {method!r}; give auto, DOP853, Radau or BDF")
        if not 1e-13 <= rtol <= 1e-2:
            raise InputError(f"rtol {rtol:g}; give a number between 1e-13 and 1e-2")

    def solve(self, modes: Modes, total: float, moments: ArrayLike | None, floor: float | None) -> LinearFlow:
        """Choose the smallest system, integrate it, and read everything off."""
        d = len(modes.basis)
        inner = None if moments is None else _checked_moments(moments, d)
        if inner is None or _isotropic(inner):
            # |a| = |b| in every neuron makes sa^2 = d sb^2
            square = _positive(total, "V") / (d + 1) if inner is None else float(inner[1, 1])
            total = float(total) if inner is None else float(inner[0, 0] + inner[1, 1])
            invariants = np.array([total - square, *[-square] * d])
            text = f"isotropic, V = {total:.6g}"
            lowest = float(modes.values.min(initial=math.inf))
            bound = 2 * self._slope**2 * _positive(total, "V") * lowest if math.isfinite(lowest) else 0.0
            active = modes.excited()
            if not len(active.values):
                return self._still(modes, total, invariants, bound, floor, text)
            return self._moving(Hyperbolic(active, total, self._slope), modes, invariants, bound, total, floor, text)
        invariants = lorentz_invariants(inner)
        turn = np.eye(d + 1)
        turn[1:, 1:] = np.column_stack([modes.basis, modes.kernel])
        system = Moments(modes, turn.T @ inner @ turn, self._slope)
        if not len(modes.values) or system.size == 0.0:
            return self._still(modes, None, invariants, 0.0, floor, "given moments", inner)
        # S(0) = L diag(l, mu_1, ..) L^T for a boost L; hence S(t) >= -mu_min J + (l + mu_min) p p^T for some p with
        # p0^2 - |pv|^2 = 1 at each time, and H >= slope^2 (l + mu_min)
        bound = 2 * self._slope**2 * max(float(invariants[0] - invariants[1]), 0.0) * float(modes.values.min())
        return self._moving(system, modes, invariants, bound, None, floor, "given moments")

    def _moving(
        self, system: System, modes: Modes, invariants: FloatArray, bound: float, total: float | None,
        floor: float | None, text: str,
    ) -> LinearFlow:  # fmt: skip
        path, method = self._trajectory(system, bound, total)
        states = path.states
        log_ratio = states[:, system.residuals]
        log_gap = math.log(0.5) + 2 * math.log(system.size) + 2 * log_ratio
        w, drift, residual = _read(system, states, self._slope, total)
        if residual > _CONSISTENT:
            raise IntegrationError(
                f"the integration failed by time {path.times[-1]:.6g}: two ways to the residual differ by "
                f"{residual:.1g} of its start; ask for a smaller rtol, or rescale beta and C",
                float(path.times[-1]), states[-1],
            )  # fmt: skip
        margin = float(np.min(-bound * path.times - 2 * log_ratio))
        decays = 2 * system.decays(states)
        fitted, window = _fitted(path.times, log_gap)
        limit = system.limit_kernel() if isinstance(system, Hyperbolic) else system.kernel(states[-1])
        frame = system.modes.basis
        if isinstance(system, Moments):
            frame = np.column_stack([modes.basis, modes.kernel])
        star = modes.basis @ modes.w_star
        slack = 100 * self._rtol * max(1.0, float(np.abs(log_ratio).max()))
        with np.errstate(under="ignore"):
            gap = np.exp(log_gap)
        return LinearFlow(
            dimension=len(star), scale=total, slope=self._slope, rank=len(modes.values), active=system.modes.beta.size,
            times=path.times, w=w @ frame.T, w_star=star, gap=gap, log_gap=log_gap, decay_rate=decays,
            invariants=invariants, invariant_drift=drift, residual_defect=residual, rate_bound=bound,
            bound_margin=margin, bound_holds=margin >= -slack, rate_asymptotic=2 * float(np.linalg.eigvalsh(limit)[0]),
            rate_measured=fitted, rate_window=window, risk_floor=floor,
            theorems=self._theorems(text), initial=text, method=method, steps=path.steps,
            complete=path.complete, reason=path.reason, system=system, states=states, frame=frame,
        )  # fmt: skip

    def _theorems(self, text: str) -> tuple[str, ...]:
        """A linear network (slope 1) is linear anyway; the closed equation is for isotropic starts."""
        return ("odd-linear", "linear-rate") if self._slope != 1 and text != "given moments" else ("linear-rate",)

    def _still(
        self, modes: Modes, total: float | None, invariants: FloatArray, bound: float, floor: float | None, text: str,
        moments: FloatArray | None = None,
    ) -> LinearFlow:  # fmt: skip
        """The start is the minimum: nothing moves."""
        count, d = len(self._times), len(modes.basis)
        star = modes.basis @ modes.w_star
        w = np.zeros(d) if moments is None else self._slope * moments[0, 1:]
        system = None if moments is None else Moments(Modes(np.eye(d), np.zeros(0), np.zeros(0), np.eye(d)), moments, 1)
        return LinearFlow(
            dimension=d, scale=total, slope=self._slope, rank=len(modes.values), active=0, times=self._times,
            w=np.tile(w, (count, 1)), w_star=star, gap=np.zeros(count), log_gap=np.full(count, -math.inf),
            decay_rate=np.zeros(count), invariants=invariants, invariant_drift=0.0, residual_defect=0.0,
            rate_bound=bound, bound_margin=0.0, bound_holds=True, rate_asymptotic=None, rate_measured=None,
            rate_window=None, risk_floor=floor,
            theorems=self._theorems(text), initial=text, method="none needed", steps=0, complete=True, reason="",
            system=system, states=np.tile(np.zeros(0) if system is None else system.start, (count, 1)), frame=np.eye(d),
        )  # fmt: skip

    def _trajectory(self, system: System, bound: float, total: float | None) -> tuple[Trajectory, str]:
        """Integrate until the network is frozen; after that the residual is a matrix exponential."""
        size = len(system.start)
        if 8 * size * len(self._times) > _MEMORY:
            raise InputError(
                f"{len(self._times)} times of a state of {size} numbers need more than 2 GiB; ask for fewer times"
            )
        frozen = system.frozen_time(bound)
        late = self._times > frozen
        times = np.append(self._times[~late], frozen) if late.any() else self._times
        kind, method = self._kind(system, float(times[-1]))
        task = {
            "flow": "linear", "system": system.digest(), "scale": total, "slope": self._slope, "rtol": self._rtol,
            "method": kind,
        }  # fmt: skip
        path = integrate(
            system.rate, system.start, times, rtol=self._rtol, atol=system.tolerances(self._rtol), method=kind,
            jacobian=system.jacobian if isinstance(system, Hyperbolic) else None, path=self._path,
            task=task, budget=self._budget, progress=self._progress,
        )  # fmt: skip
        if not len(path.times):
            path = Trajectory(np.zeros(1), system.start[None], path.steps, path.evaluations, False, path.reason)
        if not path.complete or not late.any():
            known = path.times <= self._times[-1]
            return Trajectory(path.times[known], path.states[known], path.steps, path.evaluations, path.complete,
                              path.reason), method  # fmt: skip
        tail = system.tail(path.states[-1], self._times[late] - frozen)
        found = Trajectory(self._times, np.concatenate([path.states[:-1], tail]), path.steps, path.evaluations)
        return found, f"{method}, then the exact exponential from t = {frozen:.4g}"

    def _kind(self, system: System, end: float) -> tuple[Literal["DOP853", "Radau", "BDF"], str]:
        if self._method != "auto":
            return self._method, self._method
        if isinstance(system, Hyperbolic):
            fastest = float(np.linalg.eigvalsh(system.limit_kernel())[-1])
            if fastest * end > _STIFF:
                return "Radau", "Radau"
        return "DOP853", "DOP853"


def _read(system: System, states: FloatArray, slope: float, total: float | None) -> tuple[FloatArray, float, float]:
    """Coordinates of w (T, .), drift of the invariants, difference of the two ways to the residual."""
    r = len(system.modes.values)
    if isinstance(system, Hyperbolic):
        p0, q = states[:, 0], states[:, 1 : r + 1]
        w = slope * (total or 0.0) * p0[:, None] * q
        drift = float(np.max(np.abs(p0**2 - np.sum(q * q, axis=1) - 1.0) / p0**2))
    else:
        d = math.isqrt(system.residuals) - 1
        cubes = states[:, : system.residuals].reshape(len(states), d + 1, d + 1)
        w = slope * cubes[:, 0, 1:]
        rows = np.unique(np.linspace(0, len(states) - 1, min(33, len(states))).round().astype(int))
        first = lorentz_invariants(system.start[: system.residuals].reshape(d + 1, d + 1))
        drift = max(float(np.abs(lorentz_invariants(c) - first).max()) / float(np.trace(c)) for c in cubes[rows])
    ratios = np.exp(states[:, system.residuals])[:, None]
    carried = system.size * ratios * states[:, system.direction]
    direct = system.modes.roots * (system.modes.w_star - w[:, :r])
    # near the end the small residual tells w to more digits than the large factors do
    better = system.modes.w_star - carried / system.modes.roots
    w = np.concatenate([np.where(ratios < 0.5, better, w[:, :r]), w[:, r:]], axis=1)
    return w, drift, float(np.abs(carried - direct).max()) / system.size


def _fitted(times: FloatArray, log_gap: FloatArray) -> tuple[float | None, tuple[float, float] | None]:
    """Minus the slope of log gap over the last half of the time span."""
    late = times >= 0.5 * times[-1]
    if late.sum() < 3:
        return None, None
    t, values = times[late] - times[late].mean(), log_gap[late] - log_gap[late].mean()
    return -float(t @ values) / float(t @ t), (float(times[late][0]), float(times[-1]))


def _isotropic(moments: FloatArray) -> bool:
    inner = moments[1, 1] * np.eye(len(moments))
    inner[0, 0] = moments[0, 0]
    return np.array_equal(inner, moments) and moments[0, 0] + moments[1, 1] > 0


def _checked_moments(moments: ArrayLike, d: int) -> FloatArray:
    found = _finite(moments, "moments")
    if found.shape != (d + 1, d + 1):
        raise InputError(f"moments of shape {found.shape}; give ({d + 1}, {d + 1}) for d = {d}")
    size = float(np.abs(found).max())
    if size == 0.0:
        raise InputError("the moments are 0: all neurons are 0 and none would ever move")
    if np.abs(found - found.T).max() > 1e-12 * size:
        raise InputError("the moments are not symmetric; give E[c c^T] of c = (a, b)")
    lowest = float(np.linalg.eigvalsh(found)[0])
    if lowest < -1e-12 * size:
        raise InputError(f"the moments have the eigenvalue {lowest:.3g} < 0; give E[c c^T] of c = (a, b)")
    return 0.5 * (found + found.T)


def _checked_problem(C: ArrayLike, beta: ArrayLike) -> tuple[FloatArray, FloatArray]:
    covariance, vector = _in_range(C, "C"), _in_range(beta, "beta")
    if vector.ndim != 1 or covariance.shape != (len(vector), len(vector)) or not len(vector):
        raise InputError(f"C of shape {covariance.shape} and beta of shape {vector.shape}; give (d, d) and (d,)")
    return covariance, vector


def _in_range(values: ArrayLike, name: str) -> FloatArray:
    found = _finite(values, name)
    size = float(np.abs(found).max(initial=0.0))
    if size and not 1 / _RANGE <= size <= _RANGE:
        raise InputError(f"{name} has entries of size {size:.1g}, too near the ends of the floats; rescale it")
    return found


def _finite(values: ArrayLike, name: str) -> FloatArray:
    try:
        found = np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(f"{name} is no array of numbers") from None
    if not np.isfinite(found).all():
        raise InputError(f"{name} has entries that are not finite")
    return found


def _positive(value: float, name: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} {value}; give a finite number > 0")
    return float(value)
