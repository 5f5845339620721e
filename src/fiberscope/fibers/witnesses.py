"""Counterexamples: inputs at which two networks differ, replayed exactly, with as few digits as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.domains import Box
from fiberscope.errors import ScopeError
from fiberscope.network import Network
from fiberscope.results import Result, Stopwatch

FloatArray = npt.NDArray[np.float64]

_SHIFTABLE = ("softmax", "log_softmax", "argmax")
_SCALES = (1.0, 0.1, 10.0, 100.0, 1000.0)
_BATCH = 1 << 22
"""Entries of a batch of points times the widest layer."""


@dataclass(frozen=True, eq=False)
class Counterexample(Result):
    """An input at which f and g differ, and how much.

    Args:
        x: the input, exact.
        f, g: logits of both networks there; exact, or float64 enclosures (lower, upper) for activations such as tanh.
        output: an output at which they differ; with a softmax head, relative to the first logit.
        difference: f - g at that output, or the end of its enclosure nearest to 0.
        exact: whether f and g are exact rationals.
        replay_f, replay_g: logits computed in each file's own dtype, as its runtime would.
        dtypes: of these replays.
    """

    x: tuple[Fraction, ...]
    f: tuple[Any, ...]
    g: tuple[Any, ...]
    output: int
    difference: Fraction
    exact: bool
    replay_f: tuple[float, ...]
    replay_g: tuple[float, ...]
    dtypes: tuple[str, str]

    @property
    def shows_in_dtype(self) -> bool:
        """Whether the two files' own dtypes show the difference too."""
        return self.replay_f != self.replay_g

    def table(self) -> str:
        """Both networks' logits there, exact and replayed."""
        rows = [("", "f", "g", f"f in {self.dtypes[0]}", f"g in {self.dtypes[1]}")]
        order = sorted(range(len(self.f)), key=lambda k: k != self.output)[:6]
        for k in order:
            exact = (_about(self.f[k]), _about(self.g[k]))
            rows.append((f"output {k}", *exact, f"{self.replay_f[k]:.9g}", f"{self.replay_g[k]:.9g}"))
        sizes = [max(len(row[c]) for row in rows) for c in range(5)]
        return "\n".join("  " + "  ".join(v.ljust(n) for v, n in zip(row, sizes, strict=True)).rstrip() for row in rows)

    def snippet(self, f: str = "f", g: str = "g") -> str:
        """Python that shows the difference."""
        point = ", ".join(_short(v) for v in self.x)
        return f"import numpy as np\nx = np.array([{point}])\nprint({f}(x), {g}(x))"

    def __str__(self) -> str:
        """Where, and by how much."""
        size = float(self.difference)
        text = f"f - g = {size:.6g} at output {self.output} for x = {_listed(self.x)}"
        if not self.shows_in_dtype:
            text += f"; rounding in {self.dtypes[0]} hides it"
        return text


def _short(value: Fraction) -> str:
    return repr(float(value)) if Fraction(float(value)) == value else f"{value.numerator}/{value.denominator}"


def _about(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{float(value[0]):.12g}, {float(value[1]):.12g}]"
    return f"{float(value):.12g}"


def _listed(x: tuple[Fraction, ...]) -> str:
    live = [i for i, v in enumerate(x) if v]
    if len(x) > 8 and len(live) <= 6:
        return "0 except " + ", ".join(f"x[{i}] = {float(x[i]):.10g}" for i in live) if live else "0"
    shown = ", ".join(f"{float(v):.10g}" for v in x[:8])
    return f"[{shown}{', ...' if len(x) > 8 else ''}]"


def replayed(f: Network, g: Network, x: Iterable[Any]) -> Counterexample | None:
    """The counterexample at x if the networks provably differ there, else None.

    Exact rational arithmetic where the activations have rational values; disjoint enclosures elsewhere. With a softmax
    head logits are compared relative to the first one; with argmax the largest logit must be another one.
    """
    point = tuple(Fraction(v) for v in x)
    try:
        values: tuple[tuple[Any, ...], tuple[Any, ...]] = (f.exact(point), g.exact(point))
        exact = True
        gaps = _gaps(f.head, *((v, v) for v in values))
    except ScopeError:
        if any(Fraction(float(v)) != v for v in point):
            return None
        box = Box(np.array(point, dtype=float), np.array(point, dtype=float))
        ends = []
        for net in (f, g):
            low, high = net.enclose(box)[-1]
            low, high = net.layers[-1].activation.enclose(low, high)
            ends.append(tuple(tuple(map(Fraction, v.tolist())) for v in (low, high)))
        exact, values = False, tuple(tuple(zip(*e, strict=True)) for e in ends)  # type: ignore[assignment]
        gaps = _gaps(f.head, *ends)
    if not any(gaps):
        return None
    output = max(range(len(gaps)), key=lambda k: abs(gaps[k]))
    near = np.array(point, dtype=float)
    first, second = (tuple(float(v) for v in net.replay(near)) for net in (f, g))
    return Counterexample(
        point, values[0], values[1], output, gaps[output], exact, first, second, (str(f.dtype), str(g.dtype))
    )


def _gaps(head: str | None, first: Any, second: Any) -> list[Fraction]:
    """Differences f - g at each output as far from 0 as is proved, from (lower, upper) of each."""
    (low_f, high_f), (low_g, high_g) = first, second
    if head == "argmax":
        return _argmax_gaps(low_f, high_f, low_g, high_g)
    if head in _SHIFTABLE:
        low_f, high_f = _relative(low_f, high_f)
        low_g, high_g = _relative(low_g, high_g)
    out = []
    for a, b, c, d in zip(low_f, high_f, low_g, high_g, strict=True):
        out.append(a - d if a > d else (b - c if b < c else Fraction(0)))
    return out


def _relative(low: Any, high: Any) -> tuple[list[Fraction], list[Fraction]]:
    return [v - (high[0] if i else v) for i, v in enumerate(low)], [
        v - (low[0] if i else v) for i, v in enumerate(high)
    ]


def _argmax_gaps(low_f: Any, high_f: Any, low_g: Any, high_g: Any) -> list[Fraction]:
    out = [Fraction(0)] * len(low_f)
    winners = []
    for low, high in ((low_f, high_f), (low_g, high_g)):
        best = max(range(len(low)), key=lambda k: low[k])
        if any(high[k] >= low[best] for k in range(len(low)) if k != best):
            return out
        winners.append(best)
    if winners[0] != winners[1]:
        out[winners[0]] = low_f[winners[0]] - max(low_f[k] for k in range(len(low_f)) if k != winners[0])
    return out


# ---- where to look


def find_witness(
    f: Network, g: Network, box: Box, clock: Stopwatch, *, seed: int = 0, thorough: bool = True
) -> Counterexample | None:
    """Look for an input of the box at which f and g differ; None proves nothing.

    Floats screen many points (simple ones a person can type, random ones at several scales, corners, points beside
    every kink); exact arithmetic decides. The difference must show at one of three points across a kink that only one
    network has, and at a random point if an affine part differs.

    Args:
        f: a network.
        g: another with as many inputs and outputs.
        box: where to look.
        clock: stops between batches.
        seed: of the points.
        thorough: also points beside kinks, and exact evaluation where floats see nothing.
    """
    rng = np.random.default_rng(seed)
    makers: list[Callable[[], FloatArray]] = [
        lambda: simple_points(box, rng), lambda: _random_points(box, rng, 256), lambda: _corners(box, rng, 64),
    ]  # fmt: skip
    if thorough:
        makers += [lambda net=net: _beside_kinks(net, box, rng) for net in (f, g)]  # type: ignore[misc]
        makers.append(lambda: _climbed(f, g, box, rng, clock))
    unseen: list[FloatArray] = []
    for make in makers:
        points = make()
        size = float(np.sqrt(_BATCH / max(1, max(f.widths), max(g.widths))))
        for start in range(0, len(points), max(16, int(size))):
            part = points[start : start + max(16, int(size))]
            gap, noise = difference(f, g, part)
            seen = np.flatnonzero(gap > noise)
            if seen.size:
                found = _simplest(f, g, box, part[seen], gap[seen], clock)
                if found is not None:
                    return found
            unseen.append(part[:: max(1, len(part) // 4)][:4])
            if clock.expired:
                return None
    if not thorough:
        return None
    for x in np.concatenate(unseen) if unseen else []:
        if clock.expired:
            break
        found = replayed(f, g, x.tolist())
        if found is not None:
            return found
    return None


def difference(f: Network, g: Network, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """max_k |f_k - g_k| at each point in float64, and what rounding may explain of it. Both (B,)."""
    with np.errstate(all="ignore"):
        a, b = f(points), g(points)
        if f.head in _SHIFTABLE:
            a, b = a - a[:, :1], b - b[:, :1]
        gap = np.abs(a - b).max(axis=1)
        noise = 1e-11 * (np.abs(a) + np.abs(b)).max(axis=1) + 1e-13 * _reach(f, points) + 1e-13 * _reach(g, points)
        if f.head == "argmax":
            gap = np.where(a.argmax(axis=1) != b.argmax(axis=1), np.inf, 0.0)
    bad = ~np.isfinite(noise)
    return np.where(bad, 0.0, gap), np.where(bad, np.inf, noise)


def _reach(net: Network, points: FloatArray) -> FloatArray:
    """A size that intermediate sums may have, from norms only."""
    size = np.abs(points).max(axis=1, initial=0.0)
    for layer in net.layers:
        size = size * float(np.abs(layer.weight64).sum(axis=1).max(initial=0.0)) ** 0.5
        size = size + float(np.abs(layer.bias64).max(initial=0.0))
    return np.asarray(size)


def _simplest(
    f: Network, g: Network, box: Box, points: FloatArray, gap: FloatArray, clock: Stopwatch
) -> Counterexample | None:
    """The replay of the first point (they come in the order of simplicity), or of the clearest one, then shortened."""
    first, clearest = 0, int(np.argmax(gap))
    order = [first, clearest] if gap[first] > 1e-3 * gap[clearest] else [clearest, first]
    for k in dict.fromkeys(order):
        found = replayed(f, g, points[k].tolist())
        if found is not None:
            return _shortened(f, g, box, found, clock)
    return None


def _shortened(f: Network, g: Network, box: Box, found: Counterexample, clock: Stopwatch) -> Counterexample:
    """The counterexample with fewer nonzero entries and digits, as long as most of the difference stays."""
    x = np.array([float(v) for v in found.x])
    if any(Fraction(v) != q for v, q in zip(x.tolist(), found.x, strict=True)):
        return found
    enough = abs(float(found.difference)) / 4
    trials = [np.round(x, d) for d in (0, 1, 2, 3)] + [np.array([float(f"{v:.{d}g}") for v in x]) for d in (1, 2, 3)]
    candidates = np.clip(np.array(trials), box.lower, box.upper)
    gap, noise = difference(f, g, candidates)
    best = next((candidates[k] for k in range(len(trials)) if gap[k] > max(noise[k], enough)), x)
    best = _sparse(f, g, box, best, enough, clock)
    if np.array_equal(best, x):
        return found
    shorter = replayed(f, g, best.tolist())
    return found if shorter is None else shorter


def _sparse(f: Network, g: Network, box: Box, x: FloatArray, enough: float, clock: Stopwatch) -> FloatArray:
    """Set entries to 0 by halves, then one by one, where the box allows and the difference stays."""
    free = np.flatnonzero((x != 0) & (box.lower <= 0) & (box.upper >= 0))
    size = len(free)
    rounds = 0
    while size and rounds < 64 and not clock.expired:
        rounds += 1
        chunks = [free[k : k + size] for k in range(0, len(free), size)][:64]
        trials = np.repeat(x[None], len(chunks), axis=0)
        for row, chunk in zip(trials, chunks, strict=True):
            row[chunk] = 0.0
        gap, noise = difference(f, g, trials)
        good = np.flatnonzero(gap > np.maximum(noise, enough))
        if good.size:
            x = trials[good[np.argmax(gap[good])]]
            free = np.flatnonzero((x != 0) & (box.lower <= 0) & (box.upper >= 0))
            size = min(size, len(free))
        else:
            size //= 2
    return x


def simple_points(box: Box, rng: np.random.Generator) -> FloatArray:
    """Points that a person can type, simplest first; inside the box."""
    n = box.dimension
    zero = np.clip(np.zeros(n), box.lower, box.upper)
    rows = [zero, np.clip(np.ones(n), box.lower, box.upper), np.clip(-np.ones(n), box.lower, box.upper)]
    places = range(n) if n <= 32 else rng.choice(n, 32, replace=False).tolist()
    for size in (1.0, -1.0, 10.0, -10.0):
        for i in places:
            row = zero.copy()
            row[i] = size
            rows.append(row)
    for count in {2, 3, max(1, n // 2), n}:
        for _ in range(16):
            row = zero.copy()
            index = rng.choice(n, min(n, count), replace=False)
            row[index] = rng.choice([-5.0, -3, -2, -1, -0.5, 0.5, 1, 2, 3, 5, 10, -10, 20, -20], len(index))
            rows.append(row)
    return np.asarray(np.clip(np.array(rows), box.lower, box.upper))


def _random_points(box: Box, rng: np.random.Generator, count: int) -> FloatArray:
    if box.bounded:
        return box.sample(count * 4, rng)
    return np.concatenate([box.sample(count, rng, scale=s) for s in _SCALES])


def _corners(box: Box, rng: np.random.Generator, count: int) -> FloatArray:
    low = np.where(np.isfinite(box.lower), box.lower, -10.0)
    high = np.where(np.isfinite(box.upper), box.upper, 10.0)
    low, high = np.minimum(low, box.upper), np.maximum(high, box.lower)
    return np.asarray(np.where(rng.random((count, box.dimension)) < 0.5, low, high))


def _beside_kinks(net: Network, box: Box, rng: np.random.Generator) -> FloatArray:
    """Points beside and beyond the zero of hidden pre-activations, and the corners that drive first-layer neurons."""
    out = []
    first = net.layers[0]
    rows = np.arange(first.n_out) if first.n_out <= 512 else rng.choice(first.n_out, 512, replace=False)
    weight, bias = first.weight64[rows], first.bias64[rows]
    low = np.where(np.isfinite(box.lower), box.lower, -10.0)
    high = np.where(np.isfinite(box.upper), box.upper, 10.0)
    out += [np.where(weight > 0, high, low), np.where(weight > 0, low, high)]
    norms = np.maximum((weight**2).sum(axis=1), 1e-290)
    if box.dimension <= 64:
        starts = np.repeat(_random_points(box, rng, 4), 1, axis=0)[:16]
        for start in starts:
            away = (weight @ start + bias) / norms
            for step in (1.0, 1.001, 0.999, 1.3, 3.0):
                out.append(start - step * away[:, None] * weight)
        out.append(_crossings(net, box, rng))
    else:
        away = bias / norms
        out += [-step * away[:, None] * weight for step in (1.01, 2.0, 10.0)]
    return np.asarray(np.clip(np.concatenate(out), box.lower, box.upper))


def _crossings(net: Network, box: Box, rng: np.random.Generator) -> FloatArray:
    """Points where hidden pre-activations of deeper layers change sign along random segments, by bisection."""
    a, b = (_random_points(box, rng, 48)[:240] for _ in range(2))
    count = min(len(a), len(b))
    a, b = a[:count], rng.permutation(b[:count])
    out = []
    for k in range(1, len(net.hidden)):
        za, zb = net.preactivations(a)[k], net.preactivations(b)[k]
        for i in range(min(net.layers[k].n_out, 64)):
            live = np.flatnonzero((za[:, i] > 0) != (zb[:, i] > 0))[:4]
            if not live.size:
                continue
            p, q, side = a[live], b[live], za[live, i] > 0
            for _ in range(30):
                middle = (p + q) / 2
                same = (net.preactivations(middle)[k][:, i] > 0) == side
                p, q = np.where(same[:, None], middle, p), np.where(same[:, None], q, middle)
            out += [p, q, p + 1e-3 * (a[live] - b[live]), q - 1e-3 * (a[live] - b[live])]
    return np.concatenate(out) if out else a[:0]


def _climbed(f: Network, g: Network, box: Box, rng: np.random.Generator, clock: Stopwatch) -> FloatArray:
    """Random points moved coordinate by coordinate towards a larger difference."""
    x = np.concatenate([_random_points(box, rng, 16)[:48], _corners(box, rng, 16)])
    low = np.where(np.isfinite(box.lower), box.lower, -100.0)
    high = np.where(np.isfinite(box.upper), box.upper, 100.0)
    best, _ = difference(f, g, x)
    for _ in range(60):
        if clock.expired:
            break
        trial = x.copy()
        mask = rng.random(x.shape) < max(1.0 / box.dimension, 0.05)
        trial[mask] = rng.uniform(np.broadcast_to(low, x.shape)[mask], np.broadcast_to(high, x.shape)[mask])
        trial = np.clip(trial, box.lower, box.upper)
        gap, _ = difference(f, g, trial)
        better = gap > best
        x[better], best[better] = trial[better], gap[better]
    return np.asarray(x[np.argsort(-best)])
