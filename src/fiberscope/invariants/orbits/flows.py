"""Flows along random members of a family, and what they carry: orbits are what such flows reach (Sussmann)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.floats import FloatFamily
from fiberscope.invariants.orbits.spans import Span, span_of

FloatArray = npt.NDArray[np.float64]
Data = Any

_MIX = 4
"""Fields added in one random direction of `wander`; transport, which costs a product for each, takes single ones."""
_RTOL, _ATOL = 1e-11, 1e-13
_STEPS = 60
"""Steps of one leg."""


class Leg:
    """One leg of a path: the flow of a fixed combination of fields, scaled to a given length at its start."""

    def __init__(
        self, family: FloatFamily, theta: FloatArray, rng: np.random.Generator, length: float, mix: int = 1
    ) -> None:
        """Draw a direction at theta."""
        self.family = family
        self.time = 1.0
        self.data = family.draw(rng, mix)
        self.weights = rng.standard_normal(mix)
        speed = float(np.linalg.norm(self._raw(theta)))
        self.factor = length / speed if speed > 1e-12 else 0.0

    def _raw(self, theta: FloatArray) -> FloatArray:
        return np.asarray(self.weights @ np.asarray(self.family.fields(theta, self.data)))

    def velocity(self, theta: FloatArray) -> FloatArray:
        """The field of the leg."""
        return self.factor * self._raw(theta)

    def tangent(self, theta: FloatArray, vectors: FloatArray) -> FloatArray:
        """The derivative of `velocity` along each of the rows of `vectors`."""
        total = np.zeros_like(vectors)
        for k, w in enumerate(self.weights):
            total += w * np.asarray(self.family.tangent(theta, vectors, tuple(a[k : k + 1] for a in self.data)))
        return self.factor * total

    def follow(self, theta: FloatArray, sign: float = 1.0) -> FloatArray:
        """The point that the flow reaches after time `sign`, or earlier where it becomes fast; `time` says when."""
        if self.factor == 0.0:
            return theta
        self.time, end = _solved(lambda y: sign * self.velocity(y), theta, 1.0, _RTOL, _ATOL)
        return end

    def carry(self, theta: FloatArray, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The end point after `time`, and the rows of `vectors` pushed forward there."""
        if self.factor == 0.0:
            return theta, vectors
        count, size = vectors.shape

        def rate(y: FloatArray) -> FloatArray:
            point, rest = y[:size], y[size:].reshape(count, size)
            return np.concatenate([self.velocity(point), self.tangent(point, rest).reshape(-1)])

        start = np.concatenate([theta, vectors.reshape(-1)])
        _, end = _solved(rate, start, self.time, 1e-9, 1e-11)
        return end[:size], end[size:].reshape(count, size)


def _solved(
    rate: Callable[[FloatArray], FloatArray], start: FloatArray, time: float, rtol: float, atol: float
) -> tuple[float, FloatArray]:
    """(time reached, state there); a flow that blows up is left where its steps become many."""
    from scipy.integrate import DOP853

    with np.errstate(over="ignore", invalid="ignore"):
        solver = DOP853(lambda _t, y: rate(y), 0.0, start, time, rtol=rtol, atol=atol)
        for _ in range(_STEPS):
            before = float(solver.t), solver.y.copy()
            if solver.status != "running":
                break
            solver.step()
            if not np.isfinite(solver.y).all():
                return before
    return float(solver.t), np.asarray(solver.y)


def wander(family: FloatFamily, theta: FloatArray, rng: np.random.Generator, *, legs: int, length: float) -> FloatArray:
    """A point of the orbit of theta, reached along random legs.

    Args:
        family: the vector fields.
        theta: (M,), where to start.
        rng: of the directions.
        legs: number of legs.
        length: of each leg, times max(1, |theta|) / legs.

    Returns:
        (M,). The dimension of the orbit is the same there, and brackets of low depth show it (arXiv 2510.09564).
    """
    point = theta
    for _ in range(legs):
        size = length * max(1.0, float(np.linalg.norm(point))) / legs
        point = Leg(family, point, rng, size, _MIX).follow(point)
    return point


def transported_span(
    family: FloatFamily, theta: FloatArray, rng: np.random.Generator, *, legs: int = 6, length: float = 1.0
) -> Span:
    """The tangent space of the orbit at theta, spanned by fields pushed forward along flows that end at theta.

    The path is first followed backward from theta, then forward; at each corner the fields there join what is carried.
    By Sussmann's theorem the span of all such push-forwards is the tangent space; no bracket is needed.

    Returns:
        The span at theta. Cost: O(legs) variational equations for (M + 8) legs vectors, O(legs M) products with the
        Hessian for each step.
    """
    path, point = [], theta
    for _ in range(legs):
        leg = Leg(family, point, rng, length * max(1.0, float(np.linalg.norm(point))) / legs)
        path.append(leg)
        point = leg.follow(point, -1.0)
    vectors = np.zeros((0, family.size))
    for leg in reversed(path):
        fresh = np.asarray(family.fields(point, family.draw(rng, family.size + 8)))
        vectors = np.concatenate([vectors, _unit(fresh)])
        point, vectors = leg.carry(point, vectors)
        vectors = _unit(vectors)
    fresh = np.asarray(family.fields(point, family.draw(rng, family.size + 8)))
    found = span_of(np.concatenate([vectors, _unit(fresh)]))
    if np.linalg.norm(point - theta) > 1e-6 * max(1.0, float(np.linalg.norm(theta))):
        return replace(found, basis=None)  # a path that did not close spans the tangent space elsewhere in the orbit
    return found


def _unit(rows: FloatArray) -> FloatArray:
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows[size[:, 0] > 1e-150] / size[size[:, 0] > 1e-150])
