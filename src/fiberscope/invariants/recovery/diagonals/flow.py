"""Gradient flow of a diagonal network from the start s * shape, for scales s down to 1e-1000 and below.

With sigma and k on the curves of `diagonalorbits`, d sigma / dT = X^T (y - X k). An implicit Euler step in
z = sigma + k,

    sigma(z) + h G k(z) = sigma_0 + h c,    G = X^T X,  c = X^T y,

is the optimality condition of a convex program and meets no number larger than those of the data, whatever s is; as
s -> 0 it tends to a step of sign-constrained least squares. Raw parameters are never integrated: differences such as
a - b, which decide when a coordinate may change its sign, drown in rounding there. arXiv 2607.12332 for the model; the
scheme is this package's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError, IntegrationError
from fiberscope.invariants.recovery.diagonals.orbits import Orbits, Point, locate
from fiberscope.results import Progress, Stopwatch

FloatArray = npt.NDArray[np.float64]

_SEQUENCE = (1, 2, 3, 4)
"""Numbers of implicit Euler steps that are extrapolated: order 4."""
_NEWTON, _WHOLE = 30, 12
"""Steps of Newton's method, and how many of them are not damped."""
_RESOLUTION, _SHARE = 1e-7, 0.05
"""A step may lower the loss by this share of all there is to lose, unless it is shorter than this part of the path."""
_LEAST = 1e-13
"""Steps below this part of the horizon are accepted whatever their error: the flow jumps there."""


@dataclass(frozen=True, eq=False)
class DiagonalFlow:
    """The flow from one scale.

    Args:
        scale: s as it was given.
        log_scale: log(1 / s).
        times: (m,) in the unit of the limit, log(1/s) or s^-(L-2).
        losses: (m,) |X k - y|^2 / 2.
        k: (m, d).
        drops: when the loss first passes the middle between two neighbouring plateaus of the limit, None if it does
            not within the horizon; plateaus of equal loss are not asked for.
        predicted: the same in the limit s -> 0.
        spread: the length of the step in which each drop lies, a bound for how exactly its time is read off.
        tolerance: of the local error of sigma in each step.
        finished: False if the budget ended the run before the horizon.
    """

    scale: str
    log_scale: float
    times: FloatArray
    losses: FloatArray
    k: FloatArray
    drops: tuple[float | None, ...]
    predicted: tuple[float, ...]
    spread: tuple[float | None, ...]
    tolerance: float
    finished: bool

    @property
    def final(self) -> FloatArray:
        """(d,) k at the end."""
        return np.asarray(self.k[-1])

    @property
    def final_loss(self) -> float:
        """Loss at the end."""
        return float(self.losses[-1])

    @property
    def steps(self) -> int:
        """Accepted steps."""
        return len(self.times) - 1


class Flow:
    """Implicit Euler steps in sigma, extrapolated to order 4, with the local error of sigma under control.

    Args:
        orbits: the curves.
        features: (n, d) X.
        targets: (n,) y.
        tolerance: of sigma in each step.
    """

    def __init__(self, orbits: Orbits, features: FloatArray, targets: FloatArray, tolerance: float) -> None:
        self.orbits, self.x, self.y, self.tolerance = orbits, features, targets, tolerance
        self.gram, self.right = features.T @ features, features.T @ targets
        self.begin = Point(orbits.start, *orbits.state(orbits.start))

    def loss(self, k: FloatArray) -> float:
        """|X k - y|^2 / 2."""
        rest = self.x @ k - self.y
        return 0.5 * float(rest @ rest)

    def step(self, point: Point, h: float) -> tuple[Point, float]:
        """One extrapolated step and its error relative to the tolerance."""
        table: list[list[FloatArray]] = []
        finest = point
        for row, count in enumerate(_SEQUENCE):
            finest = point
            for _ in range(count):
                finest = self.implicit(finest, h / count)
            table.append([finest.z])
            for m in range(1, row + 1):
                ratio = count / _SEQUENCE[row - m] - 1.0
                table[row].append(table[row][-1] + (table[row][-1] - table[row - 1][m - 1]) / ratio)
        best, next_best = table[-1][-1], table[-1][-2]
        # across a jump of k extrapolation means nothing, while one implicit step after another stays where it should
        wild = np.abs(best - next_best) > 1e-3 * (1.0 + np.abs(best))
        out = self.near(finest, np.where(wild, finest.z, best))
        gap = np.abs(out.sigma - self.near(finest, next_best).sigma)
        return out, float(np.max(gap, initial=0.0)) / self.tolerance

    def near(self, point: Point, z: FloatArray) -> Point:
        """The point of the curves at z: a Newton step or two from a close one, else from the tables."""
        for _ in range(4):
            dz = z - point.z
            if (np.abs(dz) <= point.noise).all():
                return point
            move = point.moves(dz)
            if (np.abs(move) > 0.5 * self.orbits.reach).any():
                break
            xi = point.xi + move
            point = Point(xi, *self.orbits.state(xi))
        return locate(self.orbits, z)

    def implicit(self, point: Point, h: float) -> Point:
        """Solve sigma(z) + h G k(z) = sigma_0 + h c by Newton's method in z, whose matrix is I - D + h G D.

        The first steps are taken whole, since a nearly upright curve is a change of active set, which need not lower
        the residual; then they are halved until they do.

        Raises:
            IntegrationError: if it does not converge; coordinate descent or a shorter step does.
        """
        goal = point.sigma + h * self.right
        size = 1.0 + float(np.max(np.abs(goal), initial=0.0))
        now, rest = point, self._rest(point, goal, h)
        far, moved = float(np.max(np.abs(rest), initial=0.0)), math.inf
        for count in range(_NEWTON):
            if far <= 2e-16 * size or moved <= 1e-13 * size or (count > 3 and far <= self._noise(now, size, h)):
                return now
            share = now.share
            matrix = h * self.gram * share
            matrix.flat[:: len(share) + 1] += 1.0 - share
            try:
                move = np.linalg.solve(matrix, -rest)
            except np.linalg.LinAlgError:
                move = np.linalg.lstsq(matrix, -rest, rcond=None)[0]
            now, rest, nearer = self._moved(
                now, np.asarray(move, dtype=np.float64), math.inf if count < _WHOLE else far, goal, h
            )
            far, moved = nearer, float(np.max(np.abs(move)))
        if far <= 8.0 * self._noise(now, size, h):
            return now
        raise IntegrationError("an implicit step of the reduced flow did not converge", h, now.k)

    def _noise(self, point: Point, size: float, h: float) -> float:
        """What rounding of xi makes of the residual."""
        return 1e-15 * (size + h * float(np.max(np.abs(self.gram) @ (point.rate * np.abs(point.xi)), initial=0.0)))

    def _moved(
        self, now: Point, move: FloatArray, far: float, goal: FloatArray, h: float
    ) -> tuple[Point, FloatArray, float]:
        """Now + move, halved until the residual is below `far`; along xi where the curves bend little."""
        part = 1.0
        while True:
            along = now.moves(part * move)
            if (np.abs(along) <= self.orbits.reach).all():
                new = Point(now.xi + along, *self.orbits.state(now.xi + along))
            else:
                new = locate(self.orbits, now.z + part * move)
            rest = self._rest(new, goal, h)
            nearer = float(np.max(np.abs(rest)))
            if nearer < far or part < 1e-3:
                return new, rest, nearer
            part *= 0.5

    def _rest(self, point: Point, goal: FloatArray, h: float) -> FloatArray:
        return np.asarray(point.sigma + h * (self.gram @ point.k) - goal)


def run_flow(
    flow: Flow,
    *,
    scale: str,
    log_scale: float,
    plateaus: Sequence[float],
    predicted: Sequence[float],
    clock: Stopwatch,
    progress: Progress | None = None,
) -> DiagonalFlow:
    """Integrate until the last plateau is reached or four times its predicted time has passed.

    Args:
        flow: the scheme.
        scale: s as given.
        log_scale: log(1 / s).
        plateaus: losses of the limit's stages, the start first.
        predicted: times of the limit at which each stage but the first begins.
        clock: stops between steps.
        progress: called with (fraction, text).

    Returns:
        The samples of every accepted step and the times of the drops. O(d^3) per implicit step.
    """
    last = max(predicted, default=1.0)
    horizon, settled = 4.0 * last, plateaus[-1] + 1e-3 * (plateaus[-2] - plateaus[-1] if len(plateaus) > 1 else 1.0)
    instant, least = _RESOLUTION * last, _LEAST * horizon
    point, time, h = flow.begin, 0.0, 1e-4 * last
    times, losses, ks = [0.0], [flow.loss(point.k)], [point.k]
    while True:
        finished = time >= horizon or (time >= 1.25 * last and losses[-1] <= settled)
        if finished or clock.expired:
            break
        h = min(h, horizon - time)
        try:
            new, error = flow.step(point, h)
            # over a jump an implicit step finds the mean of k; a very short one more finds what k is then
            k = flow.implicit(new, min(h, instant)).k
        except IntegrationError:
            if h <= least:
                raise
            h *= 0.25
            continue
        loss = flow.loss(k)
        coarse = h > instant and abs(loss - losses[-1]) > _SHARE * _gap(plateaus, losses[-1])
        if not coarse and (error <= 1.0 or h <= least):
            time, point = time + h, new
            times.append(time + min(h, instant))  # that is when k is what it is
            losses.append(loss)
            ks.append(k)
            if progress is not None:
                progress(min(time / (1.25 * last), 1.0), f"s = {scale}: loss {loss:.3g}")
        factor = 0.25 if coarse else min(4.0, max(0.1, 0.9 * max(error, 1e-10) ** -0.25))
        h = min(max(h * factor, 0.5 * least), 0.1 * last)
    at, curve = np.array(times), np.array(losses)
    middles = [0.5 * (a + b) for a, b in zip(plateaus, plateaus[1:], strict=False)]
    found = [_crossing(at, curve, level) for level in middles]
    return DiagonalFlow(
        scale, log_scale, at, curve, np.array(ks), tuple(t for t, _ in found), tuple(predicted),
        tuple(w for _, w in found),
        flow.tolerance, finished,
    )  # fmt: skip


def _gap(plateaus: Sequence[float], loss: float) -> float:
    """The height of the step of the staircase in which a loss lies."""
    # a loss just above a plateau belongs to the step that leads down from it
    gaps = [a - b for a, b in zip(plateaus, plateaus[1:], strict=False) if a + 0.1 * (a - b) >= loss and a > b]
    return gaps[-1] if gaps else math.inf


def _crossing(times: FloatArray, losses: FloatArray, level: float) -> tuple[float | None, float | None]:
    """When the loss first falls to a level, interpolated within its step, and the step's length."""
    below = np.flatnonzero(losses <= level)
    if not below.size or below[0] == 0:
        return (None, None) if not below.size else (0.0, 0.0)
    j = int(below[0])
    width = float(times[j] - times[j - 1])
    part = (losses[j - 1] - level) / (losses[j - 1] - losses[j])
    return float(times[j - 1] + part * width), width


def log_inverse(scale: Fraction) -> float:
    """log(1 / s), also for s far below the smallest float.

    Raises:
        InputError: unless 0 < s < 1.

    >>> round(log_inverse(Fraction("1e-1000")), 6)
    2302.585093
    """
    if not 0 < scale < 1:
        raise InputError(f"initialisation scale {float(scale)!r}; expected a number between 0 and 1, such as '1e-1000'")
    return math.log(scale.denominator) - math.log(scale.numerator)
