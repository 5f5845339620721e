"""Least squares from many starts: where to start, Levenberg-Marquardt in batches, poor starts given up early.

This is a search for points of small loss, not a simulation of training: it says nothing about what gradient descent
finds. Data are shared by all runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.results import Stopwatch

FloatArray = npt.NDArray[np.float64]

_CHUNK = 8_000_000
"""Numbers in the Jacobians that are held at once."""
_LADDER = ((20, 3), (40, 3), (60, 2))
"""Successive halving: after so many more steps, 1 in so many of the runs goes on."""
_STILL = 1e-13
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Fits:
    """Runs that survived, best first: theta (B, M), losses (B,), and steps attempted by all runs together."""

    theta: FloatArray
    losses: FloatArray
    steps: int

    def best(self, count: int) -> Fits:
        """The best few."""
        return Fits(self.theta[:count], self.losses[:count], self.steps)


def levenberg(
    landscape: Landscape, start: npt.ArrayLike, *, steps: int = 300, floor: float = 0.0, clock: Stopwatch | None = None
) -> Fits:
    """Levenberg-Marquardt from every start: (J^T J + mu D) step = -J^T r, D = diag(J^T J) + its mean / 1000.

    A run ends at the floor, when the linear model predicts no decrease, or after `steps` steps.

    Args:
        landscape: losses with shared data.
        start: (B, M).
        steps: limit for each run.
        floor: loss at which a run is done.
        clock: an expired one ends all runs.

    Complexity: O(B n n_L M^2 + B M^3) for a step. Source: Marquardt 1963.

    >>> line = Landscape((1, 1), (), [[1.0], [2.0]], [2.0, 4.0])
    >>> bool(abs(levenberg(line, [[0.0]]).theta[0, 0] - 2) < 1e-12)
    True
    """
    theta = np.array(start, dtype=np.float64)
    loss, mu = landscape.loss(theta), np.full(len(theta), 1e-2)
    loss[~np.isfinite(loss)] = np.inf
    alive = np.flatnonzero((loss > floor) & np.isfinite(loss))
    rows = landscape.points * landscape.widths[-1]
    chunk, done = max(1, _CHUNK // max(1, rows * landscape.whole)), 0
    for _ in range(steps):
        going = []
        for at in range(0, len(alive), chunk):
            if clock is not None and clock.expired:
                break
            runs = alive[at : at + chunk]
            still = _marquardt(landscape, theta, loss, mu, runs)
            going.append(runs[~still & (loss[runs] > floor)])
            done += len(runs)
        alive = np.concatenate([np.zeros(0, np.int64), *going])
        if not len(alive):
            break
    order = np.argsort(loss, kind="stable")
    return Fits(theta[order], loss[order], done)


def _marquardt(
    landscape: Landscape, theta: FloatArray, loss: FloatArray, mu: FloatArray, runs: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """One step of some runs, in place; which of them have nowhere to go."""
    with np.errstate(over="ignore", invalid="ignore"):
        residual, jac = landscape.jacobian(theta[runs])
        square = jac.swapaxes(1, 2) @ jac
        slope = (jac.swapaxes(1, 2) @ residual[..., None])[..., 0]
        diagonal = np.einsum("bii->bi", square)
        damping = mu[runs, None] * (diagonal + 1e-3 * diagonal.mean(axis=1, keepdims=True) + 1e-300)
        index = np.arange(landscape.size)
        square[:, index, index] += damping
        bad = ~np.isfinite(square).all(axis=(1, 2)) | ~np.isfinite(slope).all(axis=1)
        square[bad], slope[bad] = np.eye(landscape.size), 0.0
        move = _solved(square, slope)
        new = theta[runs] - move
        value = landscape.loss(new)
    good = np.isfinite(value) & (value < loss[runs])
    gain = (move * slope).sum(axis=1)
    still = bad | (gain <= _STILL * loss[runs]) | (mu[runs] > 1e12)
    theta[runs[good]], loss[runs[good]] = new[good], value[good]
    mu[runs] = np.clip(np.where(good, mu[runs] / 3, mu[runs] * 4), 1e-15, 1e13)
    return np.asarray(still)


def _solved(square: FloatArray, slope: FloatArray) -> FloatArray:
    try:
        return np.asarray(np.linalg.solve(square, slope[..., None])[..., 0])
    except np.linalg.LinAlgError:
        return np.asarray((np.linalg.pinv(square, hermitian=True) @ slope[..., None])[..., 0])


def survivors(
    landscape: Landscape,
    start: FloatArray,
    *,
    steps: int = 300,
    floor: float = 0.0,
    keep: int = 12,
    clock: Stopwatch | None = None,
) -> Fits:
    """`levenberg` with successive halving: after 20, 60 and 120 steps only the best runs go on, `keep` at least.

    Args:
        landscape: losses with shared data.
        start: (B, M).
        steps: limit for each run that survives.
        floor: loss at which a run is done; the search ends once a round has one.
        keep: runs that always survive.
        clock: an expired one ends all runs.

    Returns:
        The survivors, best first.

    >>> line = Landscape((1, 1), (), [[1.0]], [2.0])
    >>> len(survivors(line, np.linspace(-9, 9, 40)[:, None], keep=5).losses) <= 14
    True
    """
    theta, used, total = start, 0, 0
    fits = Fits(theta, np.full(len(theta), np.inf), 0)
    for more, part in _LADDER:
        fits = levenberg(landscape, theta, steps=more, floor=floor, clock=clock)
        total += fits.steps
        used += more
        fits = fits.best(max(keep, -(-len(theta) // part)))
        theta = fits.theta
        if len(theta) <= keep:
            break
    last = levenberg(landscape, theta, steps=max(1, steps - used), floor=floor, clock=clock)
    return Fits(last.theta, last.losses, total + last.steps)


# ---- starts for one hidden layer


def drawn(landscape: Landscape, count: int, rng: np.random.Generator) -> FloatArray:
    """Starts (count, M) at the scale of the data: z = w.(x - mean)/std + b with |w| log-uniform, outputs by ridge.

    >>> drawn(Landscape((2, 3, 1), "tanh", [[0.0, 1.0], [1.0, 3.0]], [1.0, 2.0]), 5, np.random.default_rng(0)).shape
    (5, 12)
    """
    return with_outputs(landscape, *_hidden(landscape, count, landscape.widths[1], rng))


def _hidden(
    landscape: Landscape, count: int, width: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    d, x = landscape.widths[0], landscape.x[0]
    spread = x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    w = rng.standard_normal((count, width, d)) * np.exp(rng.uniform(-1.0, 1.0, (count, width, 1))) / np.sqrt(d) / spread
    if not landscape.bias:
        return w, np.zeros((count, width))
    return w, 0.3 * rng.standard_normal((count, width)) - w @ x.mean(axis=0)


def _features(landscape: Landscape, w: FloatArray, b: FloatArray) -> FloatArray:
    """Hidden outputs (B, n, r), times the roots of the weights."""
    root = np.sqrt(landscape.c[0])
    s = landscape.rows[0](landscape.x @ w.swapaxes(1, 2) + b[:, None])
    return np.asarray(root * (np.concatenate([s, np.ones((*s.shape[:2], 1))], axis=2) if landscape.output_bias else s))


def with_outputs(landscape: Landscape, w: FloatArray, b: FloatArray) -> FloatArray:
    """Starts (B, M) from hidden weights (B, r, d) and biases (B, r): the outer layer by ridge regression.

    >>> field = Landscape((1, 1, 1), "identity", [[1.0], [2.0]], [3.0, 6.0], bias=False)
    >>> with_outputs(field, np.ones((1, 1, 1)), np.zeros((1, 1))).round(1).tolist()
    [[1.0, 3.0]]
    """
    s = _features(landscape, w, b)
    square = s.swapaxes(1, 2) @ s
    size = np.einsum("bii->b", square)[:, None, None] / square.shape[1]
    square = square + _RIDGE * np.maximum(size, 1e-12) * np.eye(square.shape[1])
    outer = np.linalg.solve(square, s.swapaxes(1, 2) @ (np.sqrt(landscape.c[0]) * landscape.y[0])).swapaxes(1, 2)
    return assembled(landscape, w, b, outer)


def assembled(landscape: Landscape, w: FloatArray, b: FloatArray, outer: FloatArray) -> FloatArray:
    """Theta (B, M) from w (B, r, d), b (B, r) and the outer layer (B, n_L, r or r + 1 with the output bias last)."""
    runs, width = b.shape
    shift = outer[:, :, width] if outer.shape[2] > width else np.zeros((runs, outer.shape[1]))
    parts = [w.reshape(runs, -1), b, outer[:, :, :width].reshape(runs, -1), shift]
    return np.asarray(np.concatenate(parts, axis=1)[:, landscape.kept])


def taken_apart(landscape: Landscape, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Inverse of `assembled`: (B, r, d), (B, r), (B, n_L, r)."""
    d, r, q = landscape.widths
    whole = landscape.full(theta)
    ends = np.cumsum([r * d, r, q * r])
    w, b, outer, _ = np.split(whole, ends, axis=1)
    return w.reshape(-1, r, d), b, outer.reshape(-1, q, r)


def split(
    landscape: Landscape, small: Landscape, parents: FloatArray, count: int, rng: np.random.Generator
) -> FloatArray:
    """Starts (count, M) from networks with one neuron less: one neuron becomes two, moved apart by half its size.

    Arguments as for `grown`.
    """
    w, b, _ = taken_apart(small, parents)
    mother = np.arange(count) % len(parents)
    which = rng.integers(0, small.widths[1], count)
    old_w, old_b = w[mother, which], b[mother, which]
    size = np.sqrt((old_w**2).sum(axis=1, keepdims=True))
    step = 0.5 * size * rng.standard_normal(old_w.shape) / np.sqrt(old_w.shape[1])
    tilt = 0.5 * size[:, 0] * rng.standard_normal(count) if landscape.bias else np.zeros(count)
    new_w, new_b = w[mother].copy(), b[mother].copy()
    new_w[np.arange(count), which] = old_w + step
    new_b[np.arange(count), which] = old_b + tilt
    out_w = np.concatenate([new_w, (old_w - step)[:, None]], axis=1)
    return with_outputs(landscape, out_w, np.concatenate([new_b, (old_b - tilt)[:, None]], axis=1))


def mixed(
    landscape: Landscape,
    count: int,
    rng: np.random.Generator,
    small: Landscape | None = None,
    parents: FloatArray | None = None,
) -> FloatArray:
    """Starts (count, M): half drawn, half split from `parents` of one neuron less; all drawn without them.

    In measurements splits of good narrow networks led to interpolation about twice as often as drawn starts, while
    some targets were found by drawn ones only; inserting the neuron that best matches the residual did worse than both.
    """
    if small is None or parents is None or not len(parents):
        return drawn(landscape, count, rng)
    half = count // 2
    return np.concatenate([drawn(landscape, count - half, rng), split(landscape, small, parents, half, rng)])
