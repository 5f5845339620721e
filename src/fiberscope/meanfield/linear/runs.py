"""Runs of the closed equation of linear networks: the smallest system, its integration, and what is read off it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_choice, as_finite, as_number
from fiberscope.errors import InputError, IntegrationError
from fiberscope.meanfield.arguments import check_run
from fiberscope.meanfield.integrators import Trajectory, integrate
from fiberscope.meanfield.linear.solution import LinearFlow
from fiberscope.meanfield.linear.system import Hyperbolic, Modes, Moments, System, lorentz_invariants
from fiberscope.results import Budget, Progress

FloatArray = NDArray[np.float64]
Method = Literal["auto", "DOP853", "Radau", "BDF"]
RANGE = 1e100
"""Numbers beyond it, or below its inverse, are refused."""
_CONSISTENT = 1e-3
"""Largest difference of the two ways to the residual, relative to its start, that a result may have."""
_STIFF = 2e4
"""Largest product of rate and time for the explicit method."""
_MEMORY = 2 << 30
"""Bytes of states."""


@dataclass(frozen=True, eq=False)
class LinearRun:
    """One integration: its options, checked, then from modes to a result.

    Args:
        times: (T,) increasing.
        slope: of the odd part of the activation.
        method: "auto" or an integrator.
        rtol: relative tolerance.
        path: checkpoint file.
        budget: seconds, or `Budget`.
        progress: callback.

    Raises:
        InputError: which of them is wrong.
    """

    times: FloatArray
    slope: float
    method: Method
    rtol: float
    path: str | os.PathLike[str] | None
    budget: Budget | float | None
    progress: Progress | None

    def __post_init__(self) -> None:
        """Refuse bad options before any work is done."""
        if self.slope > RANGE:
            raise InputError(f"slope {self.slope:g} leaves the range of floats; rescale beta and C")
        as_choice(self.method, "method", get_args(Method))
        check_run(self.path, self.budget, self.progress)
        if not 1e-13 <= as_number(self.rtol, "rtol") <= 1e-2:
            raise InputError(f"rtol {self.rtol:g}; give a number between 1e-13 and 1e-2")

    def solve(self, modes: Modes, total: float, moments: ArrayLike | None, floor: float | None) -> LinearFlow:
        """Choose the smallest system, integrate it, and read everything off."""
        d = len(modes.basis)
        inner = None if moments is None else _checked_moments(moments, d)
        if inner is None or _isotropic(inner):
            # |a| = |b| in every neuron makes sa^2 = d sb^2
            square = as_number(total, "V", above=0) / (d + 1) if inner is None else float(inner[1, 1])
            total = float(total) if inner is None else float(inner[0, 0] + inner[1, 1])
            invariants = np.array([total - square, *[-square] * d])
            text = f"isotropic, V = {total:.6g}"
            lowest = float(modes.values.min(initial=math.inf))
            bound = 2 * self.slope**2 * as_number(total, "V", above=0) * lowest if math.isfinite(lowest) else 0.0
            active = modes.excited()
            if not len(active.values):
                return self._still(modes, total, invariants, bound, floor, text)
            return self._moving(Hyperbolic(active, total, self.slope), modes, invariants, bound, total, floor, text)
        invariants = lorentz_invariants(inner)
        turn = np.eye(d + 1)
        turn[1:, 1:] = np.column_stack([modes.basis, modes.kernel])
        system = Moments(modes, turn.T @ inner @ turn, self.slope)
        if not len(modes.values) or system.size == 0.0:
            return self._still(modes, None, invariants, 0.0, floor, "given moments", inner)
        # S(0) = L diag(l, mu_1, ..) L^T for a boost L; hence S(t) >= -mu_min J + (l + mu_min) p p^T for some p with
        # p0^2 - |pv|^2 = 1 at each time, and H >= slope^2 (l + mu_min)
        bound = 2 * self.slope**2 * max(float(invariants[0] - invariants[1]), 0.0) * float(modes.values.min())
        return self._moving(system, modes, invariants, bound, None, floor, "given moments")

    def _moving(
        self, system: System, modes: Modes, invariants: FloatArray, bound: float, total: float | None,
        floor: float | None, text: str,
    ) -> LinearFlow:  # fmt: skip
        path, method = self._trajectory(system, bound, total)
        states = path.states
        log_ratio = states[:, system.residuals]
        log_gap = math.log(0.5) + 2 * math.log(system.size) + 2 * log_ratio
        w, drift, residual = _read(system, states, self.slope, total)
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
        slack = 100 * self.rtol * max(1.0, float(np.abs(log_ratio).max()))
        with np.errstate(under="ignore"):
            gap = np.exp(log_gap)
        return LinearFlow(
            dimension=len(star), scale=total, slope=self.slope, rank=len(modes.values), active=system.modes.beta.size,
            times=path.times, w=w @ frame.T, w_star=star, gap=gap, log_gap=log_gap, decay_rate=decays,
            invariants=invariants, invariant_drift=drift, residual_defect=residual, rate_bound=bound,
            bound_margin=margin, bound_holds=margin >= -slack, rate_asymptotic=2 * float(np.linalg.eigvalsh(limit)[0]),
            rate_measured=fitted, rate_window=window, risk_floor=floor,
            theorems=self._theorems(text), initial=text, method=method, steps=path.steps,
            complete=path.complete, reason=path.reason, system=system, states=states, frame=frame,
        )  # fmt: skip

    def _theorems(self, text: str) -> tuple[str, ...]:
        """A linear network (slope 1) is linear anyway; the closed equation is for isotropic starts."""
        return ("odd-linear", "linear-rate") if self.slope != 1 and text != "given moments" else ("linear-rate",)

    def _still(
        self, modes: Modes, total: float | None, invariants: FloatArray, bound: float, floor: float | None, text: str,
        moments: FloatArray | None = None,
    ) -> LinearFlow:  # fmt: skip
        """The start is the minimum: nothing moves."""
        count, d = len(self.times), len(modes.basis)
        star = modes.basis @ modes.w_star
        w = np.zeros(d) if moments is None else self.slope * moments[0, 1:]
        system = None if moments is None else Moments(Modes(np.eye(d), np.zeros(0), np.zeros(0), np.eye(d)), moments, 1)
        return LinearFlow(
            dimension=d, scale=total, slope=self.slope, rank=len(modes.values), active=0, times=self.times,
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
        if 8 * size * len(self.times) > _MEMORY:
            raise InputError(
                f"{len(self.times)} times of a state of {size} numbers need more than 2 GiB; ask for fewer times"
            )
        frozen = system.frozen_time(bound)
        late = self.times > frozen
        times = np.append(self.times[~late], frozen) if late.any() else self.times
        kind, method = self._kind(system, float(times[-1]))
        task = {
            "flow": "linear", "system": system.digest(), "scale": total, "slope": self.slope, "rtol": self.rtol,
            "method": kind,
        }  # fmt: skip
        path = integrate(
            system.rate, system.start, times, rtol=self.rtol, atol=system.tolerances(self.rtol), method=kind,
            jacobian=system.jacobian if isinstance(system, Hyperbolic) else None, path=self.path,
            task=task, budget=self.budget, progress=self.progress,
        )  # fmt: skip
        if not len(path.times):
            path = Trajectory(np.zeros(1), system.start[None], path.steps, path.evaluations, False, path.reason)
        if not path.complete or not late.any():
            known = path.times <= self.times[-1]
            return Trajectory(path.times[known], path.states[known], path.steps, path.evaluations, path.complete,
                              path.reason), method  # fmt: skip
        tail = system.tail(path.states[-1], self.times[late] - frozen)
        found = Trajectory(self.times, np.concatenate([path.states[:-1], tail]), path.steps, path.evaluations)
        return found, f"{method}, then the exact exponential from t = {frozen:.4g}"

    def _kind(self, system: System, end: float) -> tuple[Literal["DOP853", "Radau", "BDF"], str]:
        if self.method != "auto":
            return self.method, self.method
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
    found = as_finite(moments, "moments")
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
