"""Odd targets with isotropic inputs: the infinite-width network is a linear map along beta, by an explicit formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count, as_number
from fiberscope.errors import InputError
from fiberscope.meanfield.integrators import checked_times
from fiberscope.meanfield.tables import time_table
from fiberscope.results import Result, Rigor

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OddFlow(Result):
    """The linear map w(t) = w_norm(t) beta/|beta| that the network is at each time.

    Args:
        dimension: d.
        beta_norm: |beta|, beta = E[f*(x) x].
        variance: v, the covariance of the inputs is v I.
        scale: V = E[a^2] + E[|b|^2]/d at time 0.
        slope: of the activation's odd part.
        times: (T,).
        w_norm: (T,) |w(t)|.
        w_star_norm: |beta| / v, the limit.
        gap: (T,) Q(w(t)) - Q(w*) = (v/2) (|w*| - |w|)^2; relatively accurate, however small.
        log_gap: (T,) its logarithm, also where the gap itself is below all floats.
        rate: 2 s, the exact exponential rate of the gap as t -> infinity.
        rate_bound: 2 slope^2 V v, a rate that holds from t = 0 on.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"log_gap"})

    dimension: int
    beta_norm: float
    variance: float
    scale: float
    slope: float
    times: FloatArray
    w_norm: FloatArray
    w_star_norm: float
    gap: FloatArray
    log_gap: FloatArray
    rate: float
    rate_bound: float
    complete: bool = True
    reason: str = ""
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ("linear-rate",)

    @property
    def energy(self) -> FloatArray:
        """The gap: the risk without its part that no linear map can remove, (T,)."""
        return self.gap

    @property
    def bound_curve(self) -> FloatArray:
        """gap(0) exp(-rate_bound t), (T,): the gap is never above it."""
        first = 0.5 * self.variance * self.w_star_norm**2
        curve: FloatArray = first * np.exp(-self.rate_bound * self.times)
        return curve

    def to_frame(self) -> dict[str, FloatArray]:
        """Columns of equal length."""
        return {"time": self.times, "w_norm": self.w_norm, "gap": self.gap, "bound": self.bound_curve}

    def __str__(self) -> str:
        """One screen."""
        lines = [
            f"odd target, d = {self.dimension}: f(t; x) = w(t).x with w along beta, |w*| = {self.w_star_norm:.6g}",
            f"  risk above the best linear map falls like exp(-{self.rate:.6g} t); "
            f"at least like exp(-{self.rate_bound:.6g} t) from the start",
            *time_table({"t": self.times, "|w|": self.w_norm, "gap": self.gap}),
            f"  explicit formula; {self.rigor.value}",
        ]
        return "\n".join(lines)


def odd_flow(
    beta_norm: float,
    d: int,
    times: ArrayLike,
    *,
    variance: float | None = None,
    scale: float | None = None,
    slope: float = 0.5,
) -> OddFlow:
    """The dynamics for an odd target whose inputs have covariance v I, explicitly.

    With A = 2 slope |beta|, B = slope^2 V v, s = sqrt(A^2 + B^2), tau = tanh(s t/2):
    |w| = (slope V/2) sinh y, y' = A - B sinh y, y(0) = 0, is solved by tanh(y/2) = A tau / (s + B tau), hence
    |w| / |w*| = 2 B tau (s + B tau) / (s^2 sech^2(s t/2) + 2 B tau (s + B tau)); nothing in it cancels.

    Args:
        beta_norm: |beta|, beta = E[f*(x) x].
        d: dimension of the inputs.
        times: (T,) increasing, from 0 on.
        variance: v; by default 1/d, that of U(S^{d-1}).
        scale: V = E[a^2] + E[|b|^2]/d at time 0; by default 1 + 1/d, that of |a| = |b| = 1.
        slope: of the odd part of the activation: 1/2 for ReLU, (1 + c)/2 for leaky ReLU, 1 for a linear network.

    Raises:
        InputError: for a number that is negative, zero where it must not be, or not finite.

    Complexity: O(T). Source: arXiv 2211.08771, Theorem 3.3.1 and 3.3.2; the formula is derived here.

    >>> flow = odd_flow(0.15, 20, [0, 10, 1000])
    >>> [f"{w:.6f}" for w in flow.w_norm]
    ['0.000000', '0.494048', '3.000000']
    >>> flow.rate >= flow.rate_bound
    True
    """
    moments = checked_times(times)
    d, beta_norm, slope = (
        as_count(d, "d", 1),
        as_number(beta_norm, "beta_norm", least=0),
        as_number(slope, "slope", above=0),
    )
    v = 1.0 / d if variance is None else as_number(variance, "variance", above=0)
    total = 1.0 + 1.0 / d if scale is None else as_number(scale, "scale", above=0)
    a, b = 2.0 * slope * beta_norm, slope * slope * total * v
    s = math.hypot(a, b)
    w_star = beta_norm / v
    if b == 0.0 or not math.isfinite(s) or not math.isfinite(w_star * w_star * v):
        raise InputError(f"|beta| {beta_norm:g}, variance {v:g}, scale {total:g} leave the range of floats")
    # everything over s^2, so that nothing overflows
    ratio = b / s
    tau = np.tanh(0.5 * s * moments)
    decay = np.exp(-s * moments)
    sech2 = 4.0 * decay / (1.0 + decay) ** 2
    grown = 2.0 * ratio * tau * (1.0 + ratio * tau)
    whole = sech2 + grown
    log_sech2 = math.log(4.0) - s * moments - 2.0 * np.log1p(decay)
    with np.errstate(divide="ignore"):
        log_gap = np.log(0.5 * v) + 2.0 * np.log(w_star) + 2.0 * (log_sech2 - np.log(whole))
    return OddFlow(
        dimension=d, beta_norm=beta_norm, variance=v, scale=total, slope=slope, times=moments,
        w_norm=w_star * (grown / whole), w_star_norm=w_star, gap=0.5 * v * (w_star * (sech2 / whole)) ** 2,
        log_gap=log_gap, rate=2.0 * s, rate_bound=2.0 * b,
        theorems=("odd-linear", "linear-rate") if slope != 1 else ("linear-rate",),  # a linear network is linear anyway
    )  # fmt: skip
