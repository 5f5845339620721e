"""A finished run of the angles: the states between the outputs, when the mass passes alpha, where masses turn."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fiberscope.meanfield.angles.system import AngleSystem
from fiberscope.meanfield.integrators import integrate

FloatArray = NDArray[np.float64]
Method = Literal["DOP853", "Radau", "BDF"]


@dataclass(frozen=True, eq=False)
class AngleRun:
    """What a flow was made from: the system and the states at many more times than were asked for.

    Args:
        system: the system.
        times: (S,), those asked for and those of `fine_times`, as far as they were reached.
        states: (S, 4m).
        init: what was asked to start from.
        rtol: the relative tolerance of the run.
        method: the method that integrated.
    """

    system: AngleSystem
    times: FloatArray
    states: FloatArray
    init: Any
    rtol: float
    method: Method

    @functools.cached_property
    def observed(self) -> dict[str, FloatArray]:
        """What is measured at all these times."""
        return self.system.observables(self.states)


def fine_times(wanted: FloatArray, rate: float) -> FloatArray:
    """The output times and enough others, evenly spaced in log(1 + rate t), to see every turn of the masses.

    >>> len(fine_times(np.array([1.0]), 1.0))
    29
    """
    end = float(wanted[-1])
    if end == 0:
        return wanted
    span = math.log1p(rate * end)
    more = np.expm1(np.linspace(0.0, span, 1 + max(16, math.ceil(40 * span)))) / rate
    more[-1] = end
    return np.unique(np.concatenate([wanted, more[more <= end]]))


def critical_time(run: AngleRun) -> float | None:
    """The first time with m+ = alpha: bracketed by the outputs, then Newton on short runs from the bracket.

    None if the outputs never reach alpha.
    """
    alpha = run.system.alpha
    mass = run.observed["mass_plus"]
    if mass[0] >= alpha:
        return float(run.times[0])
    above = np.flatnonzero(mass >= alpha)
    if not above.size:
        return None
    k = int(above[0])
    begin, length = run.states[k - 1], float(run.times[k] - run.times[k - 1])
    lower, upper, guess = 0.0, length, length * (alpha - mass[k - 1]) / (mass[k] - mass[k - 1])
    for _ in range(30):
        guess = min(max(guess, lower), upper)
        now = begin if guess == 0 else integrate(
            run.system.rate, begin, np.array([guess]), rtol=run.rtol, atol=1e-3 * run.rtol, method=run.method,
            jacobian=run.system.jacobian,
        ).states[-1]  # fmt: skip
        seen = run.system.observables(now[None])
        gap, slope = float(seen["mass_plus"][0]) - alpha, float(seen["mass_plus_rate"][0])
        lower, upper = (guess, upper) if gap < 0 else (lower, guess)
        step = -gap / slope if slope > 0 else 0.5 * (lower + upper) - guess
        if abs(step) <= 1e-12 * (float(run.times[k]) + length):
            break
        guess = guess + step if lower < guess + step < upper else 0.5 * (lower + upper)
    return float(run.times[k - 1] + guess)


def turning_points(times: FloatArray, values: FloatArray, slopes: FloatArray, sign: int) -> list[tuple[float, float]]:
    """Inner local maxima (sign +1) or minima (-1) as (time, value), by cubic Hermite interpolation.

    >>> turning_points(np.array([-1.0, 2.0]), np.array([-1.0, -4.0]), np.array([2.0, -4.0]), +1)  # of -t^2
    [(0.0, 0.0)]
    """
    found = []
    for k in np.flatnonzero((sign * slopes[:-1] > 0) & (sign * slopes[1:] <= 0)):
        h = float(times[k + 1] - times[k])
        rise = float(values[k + 1] - values[k])
        first, last = h * float(slopes[k]), h * float(slopes[k + 1])
        # value(s) = values[k] + first s + b s^2 + c s^3
        b, c = 3 * rise - 2 * first - last, first + last - 2 * rise
        roots = np.roots([3 * c, 2 * b, first])
        inner = [float(r.real) for r in roots if abs(r.imag) < 1e-9 and -1e-9 <= r.real <= 1 + 1e-9]
        s = inner[0] if len(inner) == 1 else first / (first - last)
        found.append((float(times[k]) + h * s, float(values[k]) + s * (first + s * (b + s * c))))
    return found
