"""What a linear network does over time: the map w(t), its risk, and the rates of both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError
from fiberscope.meanfield.linear.system import Moments, System
from fiberscope.meanfield.tables import time_table
from fiberscope.results import Result, Rigor, jsonable

FloatArray = NDArray[np.float64]
_SHOWN = 4000
"""Numbers of w in `to_dict`."""


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
