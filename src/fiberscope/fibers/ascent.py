"""Search for inputs where two networks differ most: samples, corners, and projected sign ascent. Proves nothing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_generator
from fiberscope.domains import Box
from fiberscope.errors import ScopeError
from fiberscope.network import Network

FloatArray = npt.NDArray[np.float64]

_FAR = (1.0, 10.0, 1000.0)
"""Scales of samples of unbounded inputs."""


def gaps(f: Network, g: Network, x: FloatArray) -> FloatArray:
    """max_k |f_k(x) - g_k(x)| in floats, (B,) for x (B, n0); -inf where it is no number.

    >>> f = Network.from_arrays(([[1.0]], [0.0]))
    >>> g = Network.from_arrays(([[2.0]], [0.0]))
    >>> gaps(f, g, np.array([[3.0], [-4.0]])).tolist()
    [3.0, 4.0]
    """
    with np.errstate(all="ignore"):
        worst = np.abs(f(x) - g(x)).max(axis=1)
    return np.where(np.isfinite(worst), worst, -np.inf)


def exact_gap(f: Network, g: Network, x: FloatArray) -> Fraction:
    """A proved lower bound of max_k |f_k(x) - g_k(x)|: the exact value where activations map rationals to rationals.

    Else the distance of outward-rounded enclosures of f(x) and g(x), at least 0. O(parameters) rational operations.

    Args:
        f: a network.
        g: another, with as many inputs and outputs.
        x: the point, (n0,), read as the rationals that the floats are.

    >>> f = Network.from_arrays(([[1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.0]], [Fraction(1, 3)]))
    >>> exact_gap(f, g, np.array([0.1]))
    Fraction(1, 3)
    """
    point = [Fraction(v) for v in x.tolist()]
    try:
        pairs = zip(f.exact(point), g.exact(point), strict=True)
        return max(abs(a - b) for a, b in pairs)
    except ScopeError:
        (low_f, high_f), (low_g, high_g) = (_outputs(net, x) for net in (f, g))
    with np.errstate(all="ignore"):
        ends = [(a, b) for a, b in zip([*low_g, *low_f], [*high_f, *high_g], strict=True)]
    apart = [Fraction(float(a)) - Fraction(float(b)) for a, b in ends if np.isfinite(a) and np.isfinite(b)]
    return max([Fraction(0), *apart])


def _outputs(net: Network, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    return net.layers[-1].activation.enclose(*net.enclose(Box(x, x))[-1])


class Ascent:
    """The best input seen so far: `point` (n0,), its float difference `value`."""

    def __init__(self, f: Network, g: Network, box: Box, seed: int) -> None:
        """Remember what to compare and where; the seed fixes all samples."""
        self.f, self.g, self.box = f, g, box
        self.rng = as_generator(seed)
        middle = np.where(np.isfinite(box.lower), box.lower, np.where(np.isfinite(box.upper), box.upper, 0.0))
        if box.bounded:
            middle = np.clip(0.5 * box.lower + 0.5 * box.upper, box.lower, box.upper)
        self.point, self.value = middle, float(gaps(f, g, middle[None])[0])

    def look(self, x: FloatArray) -> FloatArray:
        """Evaluate points (B, n0) of the box, remember the best, return their differences (B,)."""
        found = gaps(self.f, self.g, x)
        if len(found) and found.max() > self.value:
            self.point, self.value = x[found.argmax()].copy(), float(found.max())
        return found

    def search(self, samples: int, starts: int, steps: int) -> None:
        """Samples and corners, then ascent from the best of them."""
        box = self.box
        scales = (1.0,) if box.bounded else _FAR
        points = np.concatenate([box.sample(max(1, samples // len(scales)), self.rng, scale=s) for s in scales])
        corners = np.where(self.rng.random(points.shape) < 0.5, box.lower, box.upper)
        points = np.concatenate([points, np.where(np.isfinite(corners), corners, points)])
        points = np.clip(points, box.lower, box.upper)
        found = self.look(points)
        self.climb(points[np.argsort(-found)[:starts]], steps)

    def climb(self, x: FloatArray, steps: int) -> None:
        """Projected sign ascent from x (B, n0), with steps that shrink from half the box to a thousandth."""
        box = self.box
        with np.errstate(all="ignore"):
            width = np.where(
                np.isfinite(box.upper - box.lower), box.upper - box.lower, 1.0 + np.abs(x).max(initial=0.0)
            )
            kept, value = x, gaps(self.f, self.g, x)
            for rate in np.geomspace(0.5, 1e-3, max(steps, 1)).tolist():
                moved = np.clip(kept + rate * width * np.sign(self._gradient(kept)), box.lower, box.upper)
                moved = np.where(np.isnan(moved), kept, moved)
                found = self.look(moved)
                better = found > value
                kept, value = np.where(better[:, None], moved, kept), np.maximum(found, value)

    def _gradient(self, x: FloatArray) -> FloatArray:
        """Gradient of the largest |g_k - f_k| at each point, (B, n0)."""
        apart = self.g(x) - self.f(x)
        worst = np.nan_to_num(np.abs(apart)).argmax(axis=1)
        seed = np.zeros_like(apart)
        seed[np.arange(len(x)), worst] = np.sign(apart[np.arange(len(x)), worst])
        return np.nan_to_num(_pullback(self.g, x, seed) - _pullback(self.f, x, seed))


def _pullback(net: Network, x: FloatArray, seed: FloatArray) -> FloatArray:
    for layer, z in zip(reversed(net.layers), reversed(net.preactivations(x)), strict=True):
        seed = (seed * layer.activation.derivative(z)) @ layer.weight64
    return seed
