"""The curves on which the coordinates of a diagonal network move, as pairs (sigma, k) that are increasing in xi.

k_i is an increasing function of tau_i, with d tau / dt = X^T (y - X k(tau)). In the unit of time log(1/s) (two layers)
or s^-(L-2) (more), sigma = tau in that unit and d sigma / dT = X^T (y - X k). As s -> 0 the graph of (sigma_i, k_i)
tends to k = 0 on (-t-, t+) with upright ends; as functions of z = sigma + k both have slopes in [0, 1] whatever s is,
so `locate` finds them from z although k may change by a factor of 1e1000 within the last digit of sigma.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fiberscope.invariants.recovery.diagonals.growth import PANEL, Corner, Curves

FloatArray = npt.NDArray[np.float64]
State = tuple[FloatArray, FloatArray, FloatArray, FloatArray]

_TERMS = 12
"""Chebyshev points in each panel: with strips of analyticity of width pi / 2, enough for the last digit."""
_LARGEST = math.log(1e12)
"""Log of the largest |k_i| the tables of a curve reach."""


class Orbits(Protocol):
    """d increasing curves (sigma_i, k_i), both as functions of xi_i, with tables to start Newton's method from.

    `nodes` and `sums` hold xi and sigma + k per coordinate, `start` is xi at the start, where sigma = 0, and within
    `reach` of a point the curve bends little enough for a Newton step.
    """

    nodes: list[FloatArray]
    sums: list[FloatArray]
    start: FloatArray
    reach: FloatArray

    def state(self, xi: FloatArray) -> State:
        """sigma, k and their derivatives at xi, each (d,)."""
        ...


class QuadraticOrbits:
    """Two layers: k = (p^2 / t+ - q^2 / t-) / 2 with p = p_0 e^(tau / t+), q = q_0 e^(-tau / t-), and xi = tau.

    Args:
        start: (2, d) p_0 and q_0, of the unscaled start.
        times: (2, d) t+ and t-, the reciprocal eigenvalues of the Hessian of k at 0.
        scale: log(1 / s).

    >>> orbits = QuadraticOrbits(np.ones((2, 1)), np.ones((2, 1)), 100.0)
    >>> sigma, k, *_ = orbits.state(np.array([100.0]))
    >>> sigma.tolist(), k.round(12).tolist()
    ([1.0], [0.5])
    """

    def __init__(self, start: FloatArray, times: FloatArray, scale: float) -> None:
        self.scale, (up, down) = scale, times
        with np.errstate(divide="ignore"):
            self.up_size, self.down_size = np.log(start**2 / (2.0 * times)) - 2.0 * scale
        self.up, self.down = 2.0 / up, 2.0 / down
        self.speed = np.full(len(up), 1.0 / scale)
        self.start, self.reach = np.zeros(len(up)), np.minimum(np.minimum(up, down), 2.0 * scale)
        high = np.where(np.isfinite(self.up_size), (_LARGEST - self.up_size) / self.up, self.reach)
        low = np.where(np.isfinite(self.down_size), (_LARGEST - self.down_size) / self.down, self.reach)
        self.nodes = [
            np.linspace(-a, b, 2 + math.ceil(4.0 * (a + b) / c)) for a, b, c in zip(low, high, self.reach, strict=True)
        ]
        self.sums = []
        for i, nodes in enumerate(self.nodes):
            grown, sunk = self._parts(nodes, i)
            self.sums.append(nodes / scale + grown - sunk)

    def _parts(self, xi: FloatArray, i: Any) -> tuple[FloatArray, FloatArray]:
        grown = np.exp(np.minimum(self.up[i] * xi + self.up_size[i], 300.0))
        return grown, np.exp(np.minimum(self.down_size[i] - self.down[i] * xi, 300.0))

    def state(self, xi: FloatArray) -> State:
        """See `Orbits`."""
        grown, sunk = self._parts(xi, slice(None))
        return xi * self.speed, grown - sunk, self.speed, self.up * grown + self.down * sunk


class ProductOrbits:
    """L >= 3 layers: k = s^L x prod_j sqrt(x^2 + mu_j^2) and sigma = the time from the start to x, see `growth`.

    Args:
        corners: where each coordinate starts; those with two zero factors never move.
        scale: log(1 / s).

    >>> orbits = ProductOrbits([Corner(0.0, (1.0, 1.0), 0)], 2000.0)
    >>> sigma, k, *_ = orbits.state(np.array([2000.0 + math.log(2.0)]))  # x = 1 / s
    >>> bool(abs(sigma[0] - math.pi / 2) < 1e-14), k.round(9).tolist()
    (True, [1.0])
    """

    def __init__(self, corners: Sequence[Corner], scale: float) -> None:
        self.depth, self.scale = 1 + len(corners[0].gaps), scale
        self.dead = np.array([c.dead for c in corners])
        live = [Corner(1.0, (1.0,) * len(c.gaps), 0) if c.dead else c for c in corners]
        self.curves = Curves.of(live)
        self.start, self.reach = np.where(self.dead, 0.0, self.curves.start), np.full(len(live), 0.5)
        tables = {c: self._table(c) for c in dict.fromkeys(live)}
        self.nodes = [tables[c][0] for c in live]
        self.series = [tables[c][1] for c in live]
        self.sums = [tables[c][2] for c in live]
        for i in np.flatnonzero(self.dead):
            self.nodes[i] = self.sums[i] = np.array([-1.0, 1.0])
            self.series[i] = np.zeros((1, _TERMS + 1))
        self.first = np.array([n[0] for n in self.nodes])
        self.last = np.array([len(n) - 2 for n in self.nodes])
        self.width = np.array([(n[-1] - n[0]) / (len(n) - 1) for n in self.nodes])

    def _table(self, corner: Corner) -> tuple[FloatArray, FloatArray, FloatArray]:
        """xi, sigma and sigma + k at equal distances, from far below k = -1 to far above k = 1."""
        curve = Curves.of([corner])
        middle = float(curve.start[0])
        top = self.scale + _LARGEST / self.depth + 2.0 + (0.0 if corner.ties else -0.5 * float(curve.gaps[0, 0]))
        low = high = max(top, abs(middle) + 2.0)
        if corner.ties:  # x -> 0 takes forever, and so does k -> 0
            back = abs(middle) + (40.0 if corner.ties == 1 else 20.0 / (corner.ties - 1))
            low, high = (back, high) if corner.x > 0 else (low, back)
        nodes = np.linspace(-low, high, 2 + math.ceil((low + high) / PANEL))
        points, primitive = _chebyshev()
        half = 0.5 * np.diff(nodes)[:, None]
        series = half * (curve.speeds((0.5 * (nodes[:-1] + nodes[1:])[:, None] + half * points)[None])[0] @ primitive)
        steps = series.sum(axis=1)
        # sums from the start on, each side by itself: sigma may be 1e8 far below it and must be exact above
        at = int(np.clip(np.searchsorted(nodes, middle) - 1, 0, len(nodes) - 2))
        first = float(curve.panels(nodes[at : at + 1], np.array([middle]))[0])
        below = -np.cumsum(steps[:at][::-1])[::-1] - first
        base = np.concatenate([below, [-first], np.cumsum(steps[at:]) - first])
        series[:, 0] += base[:-1]
        return nodes, series, base + self._height(curve, nodes[None])[0][0]

    def _height(self, curves: Curves, xi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """k, dk/dxi and d sigma/dxi."""
        sign, size, speed, roots = curves.logarithms(xi)
        half = 0.5 * roots.sum(axis=-1)
        lift = half - self.depth * self.scale
        k = sign * np.exp(np.minimum(size + lift, 300.0))
        inner = 1.0 + np.exp(2.0 * size[..., None] - roots).sum(axis=-1)
        return k, np.exp(np.minimum(speed + lift, 300.0)) * inner, np.exp(speed - half)

    def state(self, xi: FloatArray) -> State:
        """See `Orbits`."""
        panel = np.clip((xi - self.first) // self.width, 0, self.last).astype(np.int64)
        series = np.array([values[j] for values, j in zip(self.series, panel, strict=True)])
        low = np.array([nodes[j] for nodes, j in zip(self.nodes, panel, strict=True)])
        place = 2.0 * (xi - low) / self.width - 1.0
        inside = np.clip(place, -1.0, 1.0)
        sigma = (series * np.cos(np.arccos(inside)[:, None] * np.arange(_TERMS + 1))).sum(axis=1)
        k, rate, speed = self._height(self.curves, xi)
        sigma += 0.5 * self.width * (place - inside) * speed  # beyond the tables the curve is straight
        if self.dead.any():
            sigma, k = np.where(self.dead, xi, sigma), np.where(self.dead, 0.0, k)
            rate, speed = np.where(self.dead, 0.0, rate), np.where(self.dead, 1.0, speed)
        return sigma, k, speed, rate


@functools.cache
def _chebyshev() -> tuple[FloatArray, FloatArray]:
    """Chebyshev points of [-1, 1], and the matrix that takes values there to the series of the integral from -1."""
    points = np.cos(np.pi * (np.arange(_TERMS) + 0.5) / _TERMS)
    values = np.polynomial.chebyshev.chebvander(points, _TERMS - 1)
    primitive = [np.polynomial.chebyshev.chebint(row, lbnd=-1.0) for row in np.linalg.inv(values).T]
    return points, np.array(primitive)


@dataclass(frozen=True, eq=False)
class Point:
    """Where all coordinates are on their curves, and the slopes there, each (d,)."""

    xi: FloatArray
    sigma: FloatArray
    k: FloatArray
    speed: FloatArray
    rate: FloatArray

    @property
    def z(self) -> FloatArray:
        """The sum sigma + k."""
        return self.sigma + self.k

    @property
    def slope(self) -> FloatArray:
        """The slope dz / dxi; it underflows to 0 where the curve is at an upright end but k has not grown yet."""
        return self.speed + self.rate

    @property
    def share(self) -> FloatArray:
        """The part of k in dz, in [0, 1]."""
        slope = self.slope
        flat = slope <= 0.0
        return np.where(flat, 0.5, self.rate / np.where(flat, 1.0, slope))

    @property
    def noise(self) -> FloatArray:
        """How well floats know sigma + k: what the last digits of the two sums and of xi are worth."""
        return 5e-16 * (np.abs(self.sigma) + np.abs(self.k)) + 3e-16 * self.rate * np.abs(self.xi) + 1e-300

    def moves(self, dz: FloatArray) -> FloatArray:
        """The change of xi that changes z by dz to first order, infinite where the slope underflows."""
        slope = self.slope
        flat = slope <= 1e-300
        return np.where(flat & (dz != 0.0), np.inf, dz / np.where(flat, 1.0, slope))


def locate(orbits: Orbits, z: FloatArray) -> Point:
    """Solve sigma_i + k_i = z_i on every curve: the table brackets xi, Newton's method finishes. O(log N) each."""
    panel = [min(max(int(np.searchsorted(s, v)) - 1, 0), len(s) - 2) for s, v in zip(orbits.sums, z, strict=True)]
    low, high = np.array([n[j : j + 2] for n, j in zip(orbits.nodes, panel, strict=True)]).T
    below, above = np.array([s[j : j + 2] for s, j in zip(orbits.sums, panel, strict=True)]).T
    rising = above > below
    part = np.where(rising, (z - below) / np.where(rising, above - below, 1.0), 0.5)
    xi = low + np.clip(part, 0.0, 1.0) * (high - low)
    # beyond the table (a direction without growth) the curve is straight, so that Newton's steps need no end there
    low, high = np.where(z < below, -np.inf, low), np.where(z > above, np.inf, high)
    for _ in range(60):
        point = Point(xi, *orbits.state(xi))
        excess = point.z - z
        move = point.moves(excess)
        if (np.abs(excess) <= point.noise).all():
            break
        low, high = np.where(excess < 0, np.maximum(low, xi), low), np.where(excess > 0, np.minimum(high, xi), high)
        new = xi - move
        outside = ((new < low) | (new > high)) & np.isfinite(low + high)
        new = np.where(outside, 0.5 * (low + high), new)
        if (np.abs(new - xi) <= 1e-15 * np.abs(xi)).all():
            break
        xi = new
    return point
