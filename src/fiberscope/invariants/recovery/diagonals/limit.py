"""The limit of infinitesimal initialisation for diagonal networks, stage by stage, in rational arithmetic.

Let c = X^T y, G = X^T X and let coordinate i need time t+_i of pull 1 to grow upwards and t-_i downwards. Start from
s = 0, k = 0 and repeat: u = c - G k; delta = the first time at which s + delta u reaches an end of some [-t-_i, t+_i];
move s there; k = the least squares solution whose coordinates may be positive only where s_i = t+_i and negative only
where s_i = -t-_i. Every stage is a saddle of the flow; the last k minimises sum t+ k+ + t- k- among the least squares
solutions, for s lies in the row space and proves it. arXiv 2607.12332, Algorithm 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.invariants.recovery.diagonals.growth import Weight
from fiberscope.invariants.recovery.diagonals.leastnorm import standard_minimum
from fiberscope.results import Progress, Stopwatch

Vector = npt.NDArray[Any]
"""(d,) of `Fraction` in exact arithmetic, else float64."""
IntArray = npt.NDArray[np.int64]

_ROUNDING = 1e-11
"""In floats: pulls below this part of the largest number they are made of count as 0."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage: a plateau that ends when coordinates have grown, and the saddle (or minimum) reached then.

    Args:
        pull: (d,) u = X^T (y - X k) on the plateau.
        waits: (d,) time after which each coordinate would reach its growth time; math.inf if never.
        duration: the smallest of them; time: the sum so far. Unit: log(1/s), or s^-(L-2) for L >= 3 layers.
        reached: the coordinates that attain it, signed by direction (i + 1 or -(i + 1)); several are a tie.
        level: (d,) s after the stage.
        k: (d,) after the stage.
        loss: |X k - y|^2 / 2 after the stage.
        unique: whether k is the only sign-constrained least squares solution; else only X k is determined.
        touching: coordinates that may grow, are 0 and feel no pull: the limit stands on an edge there.
    """

    pull: Vector
    waits: Vector
    duration: Weight
    time: Weight
    reached: tuple[int, ...]
    level: Vector
    k: Vector
    loss: Weight
    unique: bool
    touching: tuple[int, ...]

    @property
    def support(self) -> tuple[int, ...]:
        """Coordinates with k_i != 0; all others span the invariant coordinate subspace on which the flow now rests."""
        return tuple(int(i) for i in np.flatnonzero(self.k != 0))

    @property
    def zeros(self) -> tuple[int, ...]:
        """Coordinates with k_i = 0: the saddle lies on the invariant manifold theta_i = 0 of all these."""
        return tuple(int(i) for i in np.flatnonzero(self.k == 0))

    @property
    def tie(self) -> bool:
        """Whether several coordinates grow at the same time."""
        return len(self.reached) > 1


@dataclass(frozen=True, eq=False)
class LimitPath:
    """All stages. `finished` is False if the budget ended them early; `exact` tells the arithmetic."""

    stages: tuple[Stage, ...]
    start_loss: Weight
    size: int
    finished: bool
    exact: bool

    @property
    def k(self) -> Vector:
        """(d,) the last coordinates; 0 without stages."""
        if self.stages:
            return self.stages[-1].k
        return np.full(self.size, Fraction(0), dtype=object) if self.exact else np.zeros(self.size)

    @property
    def level(self) -> Vector:
        """(d,) the last s, which lies in the row space of X and certifies the minimum."""
        return self.stages[-1].level if self.stages else 0 * self.k


def limit_path(
    features: rationals.ExactArray,
    targets: rationals.ExactArray,
    plus: Sequence[Weight],
    minus: Sequence[Weight],
    *,
    exact: bool = True,
    clock: Stopwatch | None = None,
    progress: Progress | None = None,
) -> LimitPath:
    """The stages of a diagonal network's gradient flow from an infinitesimal start (Algorithm 1 of the paper).

    Args:
        features: (n, d) exact array X.
        targets: (n,) exact array y.
        plus: (d,) growth times t+ > 0 (math.inf: never), floats counting as the rationals they are.
        minus: (d,) t-.
        exact: rational arithmetic; else float64, where pulls below 1e-11 of their terms count as 0.
        clock: stops between stages.
        progress: called with (None, text).

    Raises:
        InputError: if the shapes do not fit or a growth time is not positive.

    Complexity: d stages typically (no polynomial bound is known), O(d^3) arithmetic operations each.
    Source: arXiv 2607.12332, Algorithm 1.

    >>> one = [Fraction(1)] * 2
    >>> path = limit_path(np.array([[2.0, 1.0]]), np.array([2.0]), one, one)
    >>> [str(stage.time) for stage in path.stages], [str(v) for v in path.k]
    (['1/4'], ['1', '0'])
    """
    sums = _Sums(features, targets, exact)
    up, down = sums.vector(plus), sums.vector(minus)
    if not (len(up) == len(down) == sums.size) or not all(v > 0 for v in (*up, *down)):
        raise InputError(f"growth times must be {sums.size} positive numbers upwards and as many downwards")
    k, level, time = sums.zeros(), sums.zeros(), sums.number(0)
    signs = np.zeros(sums.size, dtype=np.int64)
    stages: list[Stage] = []
    start_loss = sums.loss(k)
    while clock is None or not clock.expired:
        pull = sums.pull(k)
        waits = _waits(pull, level, up, down)
        duration = min(waits, default=math.inf)
        if duration == math.inf:
            return LimitPath(tuple(stages), start_loss, sums.size, True, exact)
        meets = np.flatnonzero(waits == duration if exact else waits <= duration * (1 + _ROUNDING))
        level = level + duration * pull
        ways = np.where(pull > 0, 1, -1)[meets]
        level[meets] = np.where(ways > 0, up[meets], -down[meets])
        signs = np.where(pull == 0, signs, 0)  # whatever is pulled back has left its end by now
        signs[meets] = ways
        k = sums.fit(signs, k)
        time = time + duration
        edges = tuple(int(i) for i in np.flatnonzero((signs != 0) & (k == 0) & (sums.pull(k) == 0)))
        stages.append(
            Stage(pull, waits, duration, time, tuple(int(w * (i + 1)) for w, i in zip(ways, meets, strict=True)), level,
                  k, sums.loss(k), sums.only(signs, k), edges)
        )  # fmt: skip
        if progress is not None:
            progress(None, f"stage {len(stages)}: {len(stages[-1].support)} of {sums.size} coordinates have grown")
    return LimitPath(tuple(stages), start_loss, sums.size, False, exact)


def _waits(pull: Vector, level: Vector, up: Vector, down: Vector) -> Vector:
    out = np.full(len(pull), math.inf, dtype=pull.dtype)
    for i, u in enumerate(pull):
        if u != 0:
            end = up[i] if u > 0 else -down[i]
            out[i] = math.inf if abs(end) == math.inf else (end - level[i]) / u
    return out


class _Sums:
    """The normal equations in rational or float arithmetic, and sign-constrained least squares in them."""

    def __init__(self, features: rationals.ExactArray, targets: rationals.ExactArray, exact: bool) -> None:
        if features.ndim != 2 or targets.shape != features.shape[:1]:
            raise InputError(
                f"features of shape {features.shape} with targets of shape {targets.shape}; expected (n, d) with (n,)"
            )
        self.exact, self.size = exact, features.shape[1]
        if exact:
            self.gram = rationals.fractions(rationals.matmul(features.T, features))
            self.right = rationals.fractions(rationals.matmul(features.T, targets))
            self.square = sum((v * v for v in rationals.fractions(targets)), Fraction(0))
        else:
            x, y = rationals.nearest_floats(features), rationals.nearest_floats(targets)
            self.gram, self.right, self.square = x.T @ x, x.T @ y, float(y @ y)

    def number(self, value: Weight) -> Weight:
        return Fraction(value) if self.exact and value != math.inf else float(value)

    def vector(self, values: Sequence[Weight]) -> Vector:
        return np.array([self.number(v) for v in values], dtype=object if self.exact else np.float64)

    def zeros(self) -> Vector:
        return self.vector([0] * self.size)

    def pull(self, k: Vector) -> Vector:
        """X^T (y - X k), exact zeros where floats cannot tell."""
        out = self.right - self.gram @ k
        if not self.exact:
            out[np.abs(out) <= _ROUNDING * (np.abs(self.right) + np.abs(self.gram) @ np.abs(k))] = 0.0
        return np.asarray(out)

    def loss(self, k: Vector) -> Weight:
        """|X k - y|^2 / 2."""
        value = (self.square - 2 * (self.right @ k) + k @ (self.gram @ k)) / 2
        return Fraction(value) if self.exact else max(float(value), 0.0)

    def fit(self, signs: IntArray, start: Vector) -> Vector:
        """Least squares with k_i >= 0, <= 0, = 0 where signs say 1, -1, 0 (Lawson and Hanson's active sets)."""
        k = start.copy()
        inside = k != 0
        for _ in itertools.count() if self.exact else range(20 * self.size + 100):  # rounding might make floats cycle
            k, inside = self._inner(k, inside, signs)
            pull = self.pull(k) * signs
            pull[inside] = 0
            best = int(np.argmax(pull)) if self.size else 0
            if not self.size or pull[best] <= 0:
                break
            inside[best] = True
        return k

    def _inner(self, k: Vector, inside: npt.NDArray[np.bool_], signs: IntArray) -> tuple[Vector, npt.NDArray[np.bool_]]:
        """The unconstrained fit on `inside`, dropping coordinates whose sign it would change."""
        while True:
            at = np.flatnonzero(inside)
            goal = self.zeros()
            goal[at] = self._solve(at)
            wrong = [int(i) for i in at if goal[i] * int(signs[i]) <= 0]
            if not wrong:
                return goal, inside
            shares = [k[i] / (k[i] - goal[i]) if k[i] != goal[i] else k[i] * 0 for i in wrong]
            share = min(shares)
            k = k + share * (goal - k)
            gone = [i for i, v in zip(wrong, shares, strict=True) if v == share]
            k[gone] = self.number(0)
            inside = inside.copy()
            inside[gone] = False

    def _solve(self, at: IntArray) -> Vector:
        if not len(at):
            return self.zeros()[:0]
        if not self.exact:
            return np.asarray(np.linalg.solve(self.gram[np.ix_(at, at)], self.right[at]))
        both = np.concatenate([self.gram[np.ix_(at, at)], self.right[at][:, None]], axis=1)
        return rationals.fractions(rationals.row_reduce(both)[1])[:, -1]

    def only(self, signs: IntArray, k: Vector) -> bool:
        """Whether no other k of these signs fits as well: pulled coordinates stay 0, the others solve G k = c."""
        at = np.flatnonzero((signs != 0) & (self.pull(k) == 0))
        gram = self.gram[np.ix_(at, at)]
        if not self.exact:
            return not len(at) or int(np.linalg.matrix_rank(gram, hermitian=True)) == len(at)
        if not len(at) or rationals.rank(gram) == len(at):
            return True
        found = standard_minimum(gram * signs[at], gram @ k[at], np.zeros(len(at)))
        return found is not None and found.unique
