"""Counterexamples: inputs at which two networks differ, replayed exactly, with as few digits as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_generator
from fiberscope.domains import Box
from fiberscope.errors import ScopeError
from fiberscope.network import HEADS, Network
from fiberscope.results import Result, Stopwatch

FloatArray = npt.NDArray[np.float64]

_SCALES = (1.0, 0.1, 10.0, 100.0, 1000.0)
_PATIENCE = 1.0
"""Seconds for making a counterexample shorter."""
_SLOW = 200_000
"""Parameters from which an exact evaluation takes a good part of a second."""
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
        """Python that shows the difference; in rational arithmetic where the file's dtype hides it."""
        live = {i: v for i, v in enumerate(self.x) if v}
        if self.exact and not self.shows_in_dtype:
            entries = ", ".join(f"{i}: Fraction({str(v)!r})" for i, v in live.items())
            point = f"[{{{entries}}}.get(i, 0) for i in range({len(self.x)})]"
            return f"from fractions import Fraction\nx = {point}\nprint({f}.exact(x), {g}.exact(x))"
        if len(live) <= 6 < len(self.x) // 2:
            entries = "".join(f"\nx[{i}] = {_short(v)}" for i, v in live.items())
            return f"import numpy as np\nx = np.zeros({len(self.x)}){entries}\nprint({f}(x), {g}(x))"
        point = ", ".join(_short(v) for v in self.x)
        return f"import numpy as np\nx = np.array([{point}])\nprint({f}(x), {g}(x))"

    def __str__(self) -> str:
        """Where, and by how much."""
        text = f"f - g = {_size(self.difference)} at output {self.output} for x = {_listed(self.x)}"
        if not self.shows_in_dtype:
            text += f"; rounding in {self.dtypes[0]} hides it"
        return text


def _short(value: Fraction) -> str:
    return repr(float(value)) if Fraction(float(value)) == value else f"{value.numerator}/{value.denominator}"


def _size(value: Fraction) -> str:
    """A difference to six digits; as a power of two where float64 has no room for it."""
    try:
        near = float(value)
    except OverflowError:
        near = 0.0
    if near or not value:
        return f"{near:.6g}"
    power = abs(value.numerator).bit_length() - value.denominator.bit_length()
    return f"about {'-' if value < 0 else ''}2^{power}"


def _about(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{float(value[0]):.12g}, {float(value[1]):.12g}]"
    return f"{float(value):.12g}"


def _listed(x: tuple[Fraction, ...]) -> str:
    live = [i for i, v in enumerate(x) if v]
    if len(x) <= 8:
        return f"[{', '.join(f'{float(v):.10g}' for v in x)}]"
    if not live:
        return "0"
    shown = ", ".join(f"x[{i}] = {float(x[i]):.10g}" for i in live[:6])
    return f"0 except {shown}" if len(live) <= 6 else f"{shown}, ... ({len(live)} of {len(x)} entries are not 0)"


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
    if head in HEADS:
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

Target = tuple[Network, int, int]
"""A network, a hidden layer and a neuron of it that only one of the two functions seems to have."""


def find_witness(
    f: Network, g: Network, box: Box, clock: Stopwatch, *, seed: int = 0, thorough: bool = True,
    targets: Sequence[Target] = (),
) -> Counterexample | None:  # fmt: skip
    """Look for an input of the box at which f and g differ; None proves nothing.

    Floats screen many points (simple ones a person can type, random ones at several scales, corners, points that drive
    the targets, points beside kinks); exact arithmetic decides.

    Args:
        f: a network.
        g: another with as many inputs and outputs.
        box: where to look.
        clock: stops between batches.
        seed: of the points.
        thorough: also points at targets and kinks, and exact evaluation where floats see nothing.
        targets: neurons to make active.
    """
    rng = as_generator(seed)
    count = int(np.clip(2e7 / max(f.parameter_count, g.parameter_count), 16, 256))
    makers: list[Callable[[], FloatArray]] = [
        lambda: simple_points(box, rng), lambda: _random_points(box, rng, count), lambda: _corners(box, rng, 64),
    ]  # fmt: skip
    if thorough:
        makers += [lambda: _driving(targets, box, rng, clock)]
        makers += [lambda net=net: _beside_kinks(net, box, rng) for net in (f, g)]  # type: ignore[misc]
        makers += [lambda: _climbed(f, g, box, rng, clock)]
    for make in makers:
        points = make()
        doubtful: list[tuple[float, FloatArray]] = []
        size = max(16, _BATCH // max(1, *f.widths, *g.widths))
        for start in range(0, len(points), size):
            part = points[start : start + size]
            gap, noise = difference(f, g, part)
            seen = np.flatnonzero(gap > noise)
            if seen.size:
                found = _simplest(f, g, box, part[seen], gap[seen], clock)
                if found is not None:
                    return found
            best = np.argsort(-gap / noise)[:3]
            doubtful += [(float(gap[k] / noise[k]), part[k]) for k in best]
            if clock.expired:
                return None
        if thorough:
            replays = 4 if max(f.parameter_count, g.parameter_count) < _SLOW else 1
            for _, x in sorted(doubtful, key=lambda pair: -pair[0])[:replays]:
                found = None if clock.expired else replayed(f, g, x.tolist())
                if found is not None:
                    return found
    return None


def difference(f: Network, g: Network, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """max_k |f_k - g_k| at each point in float64, and a size that rounding may well explain. Both (B,)."""
    with np.errstate(all="ignore"):
        sums = [net.preactivations(points) for net in (f, g)]
        a, b = (net.layers[-1].activation(z[-1]) for net, z in zip((f, g), sums, strict=True))
        if f.head in HEADS:
            a, b = a - a[:, :1], b - b[:, :1]
        gap = np.abs(a - b).max(axis=1)
        noise = 1e-300 + 1e-13 * np.max([np.abs(z).max(axis=1, initial=0.0) for part in sums for z in part], axis=0)
        if f.head == "argmax":
            gap = np.where(a.argmax(axis=1) != b.argmax(axis=1), np.inf, 0.0)
    bad = ~np.isfinite(noise) | np.isnan(gap)
    return np.where(bad, 0.0, gap), np.where(bad, 1.0, noise)


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
    size, own = len(free), Stopwatch(_PATIENCE)
    while size and not own.expired and not clock.expired:
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
    low, high = _finite_ends(box)
    return np.asarray(np.where(rng.random((count, box.dimension)) < 0.5, low, high))


def _driving(targets: Sequence[Target], box: Box, rng: np.random.Generator, clock: Stopwatch) -> FloatArray:
    """Points at which the targets are active, and the way there, by steps along their gradient."""
    out = [np.zeros((0, box.dimension))]
    low, high = _finite_ends(box)
    for net, layer, neuron in targets:
        if clock.expired:
            break
        x = np.concatenate([_random_points(box, rng, 8)[:24], simple_points(box, rng)[:4]])
        with suppress(OverflowError), np.errstate(all="ignore"):  # exact weights may exceed float64
            for step in (1.0, 1.0, 0.5, 2.0, 0.5, 4.0):
                value, slope = _gradient(net, layer, neuron, x)
                length = np.maximum((slope**2).sum(axis=1), 1e-290)
                away = (step * (np.abs(value) + 1e-3 * np.sqrt(length)) / length)[:, None] * slope
                x = np.clip(x + np.where(np.isfinite(away), away, 0.0), box.lower, box.upper)
                out.append(x)
            out.append(np.where(slope > 0, high, low))
    return np.concatenate(out)


def _gradient(net: Network, layer: int, neuron: int, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pre-activation of a neuron and its gradient in x, (B,) and (B, n_0)."""
    z = net.preactivations(x)
    back = np.broadcast_to(net.layers[layer].weight64[neuron], (len(x), net.layers[layer].n_in))
    for k in range(layer - 1, -1, -1):
        back = (back * net.layers[k].activation.derivative(z[k])) @ net.layers[k].weight64
    return z[layer][:, neuron], np.asarray(back, dtype=np.float64)


def _finite_ends(box: Box) -> tuple[FloatArray, FloatArray]:
    low = np.where(np.isfinite(box.lower), box.lower, np.minimum(-10.0, box.upper - 10.0))
    high = np.where(np.isfinite(box.upper), box.upper, np.maximum(10.0, box.lower + 10.0))
    return low, high


def _beside_kinks(net: Network, box: Box, rng: np.random.Generator) -> FloatArray:
    """Points on either side of first-layer kinks, near and far, and the corners that drive those neurons."""
    first = net.layers[0]
    rows = np.arange(first.n_out) if first.n_out <= 512 else rng.choice(first.n_out, 512, replace=False)
    weight, bias = first.weight64[rows], first.bias64[rows]
    low, high = _finite_ends(box)
    norms = np.maximum((weight**2).sum(axis=1), 1e-290)
    out = [np.where(weight > 0, high, low), np.where(weight > 0, low, high)]
    for start in _random_points(box, rng, 4)[:16] if box.dimension <= 64 else np.zeros((1, box.dimension)):
        away = (weight @ start + bias) / norms
        out += [start - step * away[:, None] * weight for step in (1.0, 1.001, 0.999, 1.3, 3.0)]
    return np.asarray(np.clip(np.concatenate(out), box.lower, box.upper))


def _climbed(f: Network, g: Network, box: Box, rng: np.random.Generator, clock: Stopwatch) -> FloatArray:
    """Random points moved coordinate by coordinate towards a larger difference."""
    x = np.concatenate([_random_points(box, rng, 16)[:48], _corners(box, rng, 16)])
    low, high = _finite_ends(box)
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
