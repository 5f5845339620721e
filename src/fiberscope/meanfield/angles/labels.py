"""Where the flow of angles carries the whole starting law: densities, not only the particles.

Labels without mass are moved by the potential G(t, .) of a finished run. In v = log tan theta they start on an even
grid and the map from labels to v is smooth with bounded slope however far the flow pulls neighbours apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fiberscope.meanfield.angles.system import AngleSystem, fastest_rate, label_law

FloatArray = NDArray[np.float64]
_LABELS = 241
_FAR = 12.0
"""Beyond |log tan theta| = 12 the fields V/sin 2 theta and G are constant to 1e-10."""


@dataclass(frozen=True)
class Labels:
    """Labels of one sign at T times.

    Args:
        dimensions: d and dH.
        start: (k,), log tan theta at time 0, evenly spaced.
        place: (T, k), log tan theta.
        growth: (T, k), log of the factor by which the mass at the label grew.
        stretch: (T, k), log of d place / d start.
    """

    dimensions: tuple[int, int]
    start: FloatArray
    place: FloatArray
    growth: FloatArray
    stretch: FloatArray

    def density(self, theta: FloatArray) -> FloatArray:
        """The density of the measure in theta, (k,) in (0, pi/2) -> (T, k).

        It is carried along: law + growth - stretch is the log density in log tan theta.
        """
        from scipy.interpolate import CubicHermiteSpline, CubicSpline

        found = np.empty((len(self.place), len(theta)))
        v = np.log(np.tan(theta))
        change = 1.0 / (np.sin(theta) * np.cos(theta))
        for row, (place, growth, stretch) in enumerate(zip(self.place, self.growth, self.stretch, strict=True)):
            inside = np.clip(v, place[0], place[-1])
            label = CubicHermiteSpline(place, self.start, np.exp(-stretch))(inside)
            # beyond the last labels the flow is linear in v: the label moves with the place
            smooth = CubicSpline(place, growth - stretch)(inside)
            logs = label_law(*self.dimensions, label + (v - inside)) + smooth
            found[row] = 0.5 * np.exp(logs) * change
        return found

    def cumulative(self, theta: FloatArray) -> FloatArray:
        """The mass of the measure on [0, theta], (k,) increasing in [0, pi/2] -> (T, k)."""
        from scipy.interpolate import CubicHermiteSpline, CubicSpline

        with np.errstate(divide="ignore"):
            v = np.log(np.tan(theta))
        found = np.empty((len(self.place), len(theta)))
        for row, (place, growth, stretch) in enumerate(zip(self.place, self.growth, self.stretch, strict=True)):
            label = CubicHermiteSpline(place, self.start, np.exp(-stretch))(np.clip(v, place[0], place[-1]))
            found[row] = CubicSpline(self.start, self._loads(growth)).antiderivative()(label)
        return found

    def _loads(self, growth: FloatArray) -> FloatArray:
        """The density of the mass in the label; each sign starts with mass 1/2."""
        result: FloatArray = 0.5 * np.exp(label_law(*self.dimensions, self.start) + growth)
        return result


def carried(system: AngleSystem, times: FloatArray, states: FloatArray, wanted: FloatArray) -> tuple[Labels, Labels]:
    """The labels of sign +1 and of sign -1 at the wanted times, given a run at many times.

    Classical Runge-Kutta steps from one time of the run to the next, with the residual between them by a cubic
    spline in log(1 + rate t); the fields are slow even where the run itself is stiff. O(labels modes) for a step.

    Args:
        system: the system of the run.
        times: (S,), increasing from 0, dense enough to resolve the run.
        states: (S, 4m).
        wanted: (T,), some of the times.
    """
    from scipy.interpolate import CubicSpline

    d, dH = system.dimension, system.subspace_dimension
    start = np.linspace(-2.0 - 20.0 / (d - dH), 2.0 + 20.0 / dH, _LABELS)
    rate = fastest_rate(d, dH)
    clock = np.log1p(rate * times)
    residual = np.stack([system.residual(y) for y in states])
    middle = 0.5 * (clock[1:] + clock[:-1])
    between = CubicSpline(clock, residual)(middle) if len(times) > 1 else residual[:0]
    state = np.zeros((3, 2, _LABELS))
    state[0] = start
    keep = np.isin(times, wanted)
    kept = [state] if keep[0] else []
    for k in range(len(times) - 1):
        # in the clock s = log(1 + rate t) the fields are multiplied by dt/ds = (1 + rate t)/rate
        ends = np.exp(clock[k]) / rate, np.exp(middle[k]) / rate, np.exp(clock[k + 1]) / rate
        step = clock[k + 1] - clock[k]
        first = ends[0] * _speeds(system, residual[k], state[0])
        second = ends[1] * _speeds(system, between[k], state[0] + 0.5 * step * first[0])
        third = ends[1] * _speeds(system, between[k], state[0] + 0.5 * step * second[0])
        fourth = ends[2] * _speeds(system, residual[k + 1], state[0] + step * third[0])
        state = state + step / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)
        if keep[k + 1]:
            kept.append(state)
    whole = np.stack(kept) if kept else np.zeros((0, *state.shape))
    plus, minus = (Labels((d, dH), start, whole[:, 0, s], whole[:, 1, s], whole[:, 2, s]) for s in (0, 1))
    return plus, minus


def _speeds(system: AngleSystem, residual: FloatArray, place: FloatArray) -> FloatArray:
    """Time derivatives of (place, growth, stretch), (2, k) -> (3, 2, k); the first row is of sign +1."""
    v = np.clip(place, -_FAR, _FAR)
    value, slope, bend = (f.reshape(v.shape) for f in system.potential(residual, np.arctan(np.exp(v)).ravel()))
    speed = slope * np.cosh(v)  # sin 2 theta = 1/cosh v, cos 2 theta = -tanh v
    found = np.stack([2.0 * speed, 2.0 * value, bend + 2.0 * speed * np.tanh(v)])
    found[:, 1] *= -1.0
    return found
