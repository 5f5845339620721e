"""How long a coordinate of a diagonal network takes to grow from an infinitesimal start: t+ upwards and t- downwards.

A coordinate k = a_1 ... a_L moves on one curve, because a_l^2 - a_m^2 never changes. With x the factor of smallest size
(its sign times those of the others) and mu_j^2 = a_j^2 - x^2 for the others, dx / dtau = prod_j sqrt(x^2 + mu_j^2), so

    t+ = int_x^inf dv / prod_j sqrt(v^2 + mu_j^2),    t- = int_-inf^x of the same.

For L = 3 that is Carlson's R_F. For two layers growth is exponential and t+- = 1 / |eigenvalue of the Hessian of k at
0|, in units of log(1 / scale). A direction that the curve never reaches takes forever: math.inf. arXiv 2607.12332.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError

FloatArray = npt.NDArray[np.float64]
Weight = Fraction | float
"""A growth time: a rational, or a float (math.inf where the coordinate never grows that way)."""

PANEL = 0.25
"""Width in xi of the panels that are integrated."""
_REACH = 44.0
"""x = mu sinh(xi) up to |xi| = _REACH: what is left of the integral is below the last digit even for L = 3."""


@dataclass(frozen=True, eq=False)
class Growth:
    """Growth times of every coordinate.

    Args:
        plus, minus: (d,) times upwards and downwards.
        error: largest estimated error of one of them; 0 if they are exact.
        method: "closed form", "quadrature", or "given".
    """

    plus: tuple[Weight, ...]
    minus: tuple[Weight, ...]
    error: float
    method: str

    @property
    def exact(self) -> bool:
        """Whether every time is a rational or infinite, not rounded."""
        return self.error == 0.0


@dataclass(frozen=True)
class Corner:
    """Where one deep coordinate starts on its curve.

    Args:
        x: the factor of smallest size, with the sign of the product.
        gaps: mu_j >= 0 of the other factors, rising.
        ties: how many of them are 0 (or below every float); x then never changes its sign.
    """

    x: float
    gaps: tuple[float, ...]
    ties: int

    @property
    def dead(self) -> bool:
        """Whether two factors are 0, so that the coordinate never moves."""
        return self.x == 0.0 and self.ties > 0


def corner(factors: Sequence[Any]) -> Corner:
    """The start of one deep coordinate from its factors (L,), exactly as far as signs and ties go.

    >>> corner([2.0, -1.0, 1.5]).x, corner([1, 1, 1]).ties
    (-1.0, 2)
    """
    values = [rationals.as_fraction(v) for v in factors]
    least = min(range(len(values)), key=lambda j: abs(values[j]))
    others = [v for j, v in enumerate(values) if j != least]
    sign = math.prod(-1 if v < 0 else 1 for v in others)
    gaps = tuple(math.sqrt(q) for q in sorted(v * v - values[least] ** 2 for v in others))
    return Corner(float(sign * values[least]), gaps, gaps.count(0.0))


def growth_times(shape: npt.ArrayLike) -> Growth:
    """Growth times t+ and t- of every coordinate of a diagonal network whose factors start along `shape`.

    Two layers, k = a b: 1, exactly, or infinity where a + b (upwards) or a - b (downwards) is 0. Three layers with
    factors a, b and c the smallest, c >= 0: t+ = R_F(a^2, b^2, c^2) and t+ + t- = 2 R_F(0, a^2 - c^2, b^2 - c^2).
    More layers: Gauss-Legendre panels in xi, x = mu sinh(xi).

    Args:
        shape: (L, d) factors of every coordinate, L >= 2; only their direction matters, time scales with them.

    Raises:
        InputError: if the shape is no (L, d) array with L >= 2, or has an entry that is not finite.

    Complexity: O(L d) beyond 700 nodes per distinct coordinate for L >= 4. Source: arXiv 2607.12332.

    >>> growth_times([[1.0], [0.0]]).plus
    (Fraction(1, 1),)
    >>> round(growth_times([[1.0], [1.0], [0.0]]).plus[0] * 2 / math.pi, 12)
    1.0
    >>> growth_times([[1.0], [1.0], [1.0]]).minus
    (inf,)
    """
    table = _table(shape)
    if table.shape[0] == 2:
        one: list[Weight] = [Fraction(1)]
        plus = [one[0] if a + b else math.inf for a, b in table.T]
        minus = [one[0] if a - b else math.inf for a, b in table.T]
        return Growth(tuple(plus), tuple(minus), 0.0, "closed form")
    starts = [corner(column) for column in table.T]
    single = _carlson if table.shape[0] == 3 else _quadrature
    known = {start: single(start) for start in dict.fromkeys(starts)}
    found = [known[start] for start in starts]
    error = max((error for *_, error in found), default=0.0)
    method = "closed form" if table.shape[0] == 3 else "quadrature"
    return Growth(tuple(up for up, _, _ in found), tuple(down for _, down, _ in found), error, method)


def _table(shape: npt.ArrayLike) -> npt.NDArray[np.object_]:
    try:
        array = rationals.exact_array(shape)
        if array.ndim != 2 or array.shape[0] < 2:
            raise InputError(f"initial factors of shape {array.shape}; expected (depth, features) with depth >= 2")
        return np.asarray(rationals.fractions(array), dtype=object)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InputError("initial factors must be a (depth, features) array of finite numbers") from exc


def _carlson(start: Corner) -> tuple[float, float, float]:
    """(t+, t-, error estimate) for three layers."""
    from scipy.special import elliprf

    if start.dead:
        return math.inf, math.inf, 0.0
    c = abs(start.x)
    first = float(elliprf(c * c, *(c * c + g * g for g in start.gaps)))
    second = math.inf if start.ties else 2.0 * float(elliprf(0.0, *(g * g for g in start.gaps))) - first
    error = 8e-16 * (first + (second if math.isfinite(second) else 0.0))
    return (first, second, error) if start.x >= 0 else (second, first, error)


def _quadrature(start: Corner) -> tuple[float, float, float]:
    """(t+, t-, error estimate) by two Gauss rules on panels in the strip where the integrand is analytic."""
    if start.dead:
        return math.inf, math.inf, 0.0
    curve = Curves.of([start])
    middle = float(curve.start[0])
    reach = _REACH + abs(middle)
    sides = []
    for low, high in ((middle, middle + reach), (middle - reach, middle)):
        if start.ties and (low < middle) == (start.x > 0):
            sides.append((math.inf, 0.0))
            continue
        edges = np.linspace(low, high, 1 + math.ceil((high - low) / PANEL))[None]
        fine, coarse = (float(curve.panels(edges[:, :-1], edges[:, 1:], order).sum()) for order in (10, 8))
        sides.append((fine, abs(fine - coarse) + 4e-16 * fine))
    (up, up_error), (down, down_error) = sides
    return up, down, max(up_error, down_error)


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves of d deep coordinates in a variable xi in which they are analytic in the strip |Im xi| < pi / 2.

    x = mu_1 sinh(xi), or with a tie, where x keeps its sign, x = +-e^(+-xi); all of it as logarithms, so that x may
    be 1e1000.

    Args:
        way: (d,) sign of x where it is kept, 0 where it changes.
        gaps: (d, L - 1) 2 log mu_j, -inf for ties.
        start: (d,) xi of the start.
    """

    way: FloatArray
    gaps: FloatArray
    start: FloatArray

    @classmethod
    def of(cls, corners: Sequence[Corner]) -> Curves:
        """Curves of living corners.

        >>> Curves.of([Corner(0.0, (1.0, 1.0), 0)]).start.tolist()
        [0.0]
        """
        way = np.array([math.copysign(1.0, c.x) if c.ties else 0.0 for c in corners])
        start = [
            math.copysign(1.0, c.x) * math.log(abs(c.x)) if c.ties else math.asinh(c.x / c.gaps[0]) for c in corners
        ]
        with np.errstate(divide="ignore"):
            return cls(way, 2.0 * np.log(np.array([c.gaps for c in corners])), np.array(start))

    def logarithms(self, xi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """sign(x), log |x|, log dx/dxi at xi (d, ...), and log (x^2 + mu_j^2) along a last axis of length L - 1.

        >>> curve = Curves.of([Corner(1.0, (0.0, 0.0), 2)])
        >>> [v.tolist() for v in curve.logarithms(np.array([3000.0]))]
        [[1.0], [3000.0], [3000.0], [[6000.0, 6000.0]]]
        """
        shape = (-1,) + (1,) * (xi.ndim - 1)
        way, tied = self.way.reshape(shape), (self.way != 0.0).reshape(shape)
        scale = np.where(tied, 0.0, 0.5 * self.gaps[:, 0].reshape(shape) - math.log(2.0))
        away = np.abs(xi)
        flat = np.exp(-2.0 * away)
        with np.errstate(divide="ignore"):
            size = np.where(tied, way * xi, scale + away + np.log1p(-flat))
        speed = np.where(tied, way * xi, scale + away + np.log1p(flat))
        sign = np.where(tied, way, np.sign(xi))
        gaps = self.gaps.reshape((len(self.gaps),) + (1,) * (xi.ndim - 1) + (-1,))
        return sign, size, speed, np.logaddexp(2.0 * size[..., None], gaps)

    def speeds(self, xi: FloatArray) -> FloatArray:
        """The derivative of the time by xi, (d, ...)."""
        _, _, speed, roots = self.logarithms(xi)
        return np.asarray(np.exp(speed - 0.5 * roots.sum(axis=-1)))

    def panels(self, low: FloatArray, high: FloatArray, order: int = 10) -> FloatArray:
        """Time from xi = low to xi = high, elementwise (d, ...), by one Gauss-Legendre panel each.

        >>> curve = Curves.of([Corner(0.0, (1.0, 1.0), 0)])  # dxi / cosh(xi)
        >>> bool(abs(curve.panels(np.zeros(1), np.ones(1))[0] - math.atan(math.sinh(1.0))) < 1e-12)
        True
        """
        nodes, weights = _gauss(order)
        half = 0.5 * (high - low)
        points = 0.5 * (high + low)[..., None] + half[..., None] * nodes
        return np.asarray((self.speeds(points) @ weights) * half, dtype=np.float64)


@functools.cache
def _gauss(order: int) -> tuple[FloatArray, FloatArray]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return np.asarray(nodes), np.asarray(weights)
