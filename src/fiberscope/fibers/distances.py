"""Distance: certified enclosures of sup |f - g| over a box."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Rational, Real

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_generator, shown
from fiberscope.bounds import difference_bound
from fiberscope.domains import Box
from fiberscope.errors import InputError, UndecidedError
from fiberscope.fibers.alignment import align
from fiberscope.fibers.ascent import Ascent, exact_gap
from fiberscope.fibers.forms import canonical
from fiberscope.fibers.pairings import PairedLayer, paired_layers, value_layer
from fiberscope.fibers.zonotopes import Spans, difference_spans, spans_apart
from fiberscope.network import Network, require_network
from fiberscope.results import Answer, Budget, Progress, Result, Rigor, Stopwatch, outward

FloatArray = npt.NDArray[np.float64]
Sweep = Callable[[FloatArray, FloatArray], Spans]

DEFAULT_SECONDS = 60.0, 10.0
"""The budget of `distance` when none is given: with `below`, and without."""

_ROOM = 3_000_000
"""Floats that the largest array of one batch may hold."""
_BATCH = 128
_RESTS_ON = {
    "the same weights after permuting and rescaling": ("permutation-scaling",),
    "an enclosure of each network": ("interval-enclosure",),
    "interval differences": ("interval-enclosure", "lipschitz-difference"),
    "difference intervals": ("interval-enclosure", "lipschitz-difference"),
    "two zonotopes": ("interval-enclosure", "difference-zonotope"),
    "difference zonotopes": ("interval-enclosure", "lipschitz-difference", "difference-zonotope"),
}
"""The theorems behind an upper end, by method."""
_NEAR = 1 / 32
"""Without `below`, boxes within this of the best witness are not split any further."""
_FLOOR = 1e-12
"""Without `below`, bounds this small against the outputs are not improved."""


@dataclass(frozen=True, eq=False)
class Bound(Result):
    """lower <= sup over the domain of max_k |f_k(x) - g_k(x)| <= upper.

    Args:
        lower: the difference at `witness`, evaluated exactly and rounded down.
        upper: proved, rounded outward; inf if nothing is known, 0 if the functions are the same.
        witness: (n0,) a point of the domain.
        exact: what was proved of the difference at the witness, as a rational (for smooth activations a lower bound).
        answer: whether the distance is proved to be below `below` (YES), or the witness refutes it (NO); None without
            `below`.
        below: the threshold asked for.
        boxes: boxes that were enclosed.
        method: how the upper bound was obtained.
        reason: one sentence.
        wall_s: seconds.
        domain: where.
        rigor: INTERVAL, of the upper bound.
        theorems: what it rests on.
    """

    lower: float
    upper: float
    witness: FloatArray
    exact: Fraction
    answer: Answer | None
    below: Fraction | None
    boxes: int
    method: str
    reason: str
    wall_s: float
    domain: Box
    rigor: Rigor = Rigor.INTERVAL
    theorems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether the distance is proved to be below `below`: True for YES, False for NO.

        Raises:
            UndecidedError: for UNDECIDED, and where no `below` was asked for.
        """
        if self.answer is None:
            raise UndecidedError("a bound without a threshold is no yes or no; give below=..., or compare .upper")
        if self.answer is Answer.UNDECIDED:
            raise UndecidedError(f"it is undecided whether this is below ({self.reason}); compare .answer instead")
        return self.answer is Answer.YES

    def __str__(self) -> str:
        """One screen."""
        ends = outward(self.lower, up=False, digits=6), outward(self.upper, up=True, digits=6)
        lines = [f"{ends[0]} <= sup |f - g| <= {ends[1]} on {self.domain}"]
        if self.answer is not None and self.below is not None:
            lines[0] = f"{self.answer.name}: {self.reason}\n  {lines[0]}"
        else:
            lines.append(f"  {self.reason}")
        shown = ", ".join(f"{v:.6g}" for v in self.witness[:8].tolist())
        lines.append(f"  the lower end is taken at ({shown}{', ...' if self.witness.size > 8 else ''})")
        lines.append(f"  {self.method}; {self.boxes:,} boxes, {self.wall_s:.2f} s")
        return "\n".join(lines)


def distance(
    f: Network,
    g: Network,
    domain: Box | str | None = None,
    *,
    below: Fraction | float | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Bound:
    """Certified enclosure of sup_x max_k |f_k(x) - g_k(x)| over a box, of the logits where there is a head.

    Lower end: samples and projected ascent propose a point, which is evaluated exactly. Upper end: g is aligned with f
    (`align`), g - f is propagated as a zonotope (`zonotopes`), and the box is bisected at float midpoints, so that the
    halves cover it, along the input to which the bound's error symbols owe most.

    Args:
        f: a network of n0 inputs and m outputs.
        g: another; of any shape and activations between. Of f's own shape, its neurons are paired with those of f.
        domain: the box, or text such as "[0,1]" or "file"; None is all of R^n0. Where it is unbounded there is an upper
            end only if the two are the same, or if their activations are bounded.
        below: stop as soon as "distance < below" is proved or refuted.
        budget: seconds, or a `Budget` whose cells are boxes; None is 60 seconds, 10 without `below`.
        progress: called with the fraction of the box that is done, and the bound.
        seed: of the samples.

    Returns:
        The bound; it holds whenever the budget ends.

    Raises:
        InputError: if f or g is no `Network`, inputs, outputs or the domain do not fit, or `below` is no positive
            number.

    Complexity: O(parameters) for one interval sweep, O(depth width^2 symbols) for a box, exponentially many boxes in
    the worst case. Source: difference bounds as in ReluDiff (Paulsen et al., arXiv 2001.03662), zonotopes as in DeepZ.

    >>> f = Network.from_arrays(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    >>> g = Network.from_arrays(([[-2.0], [1.0]], [0.0, 0.0]), ([[0.5, 1.25]], [0.0]))
    >>> found = distance(f, g, Box.parse("[-1,1]", 1), below=0.26)
    >>> found.answer.name, found.exact, bool(found.upper < 0.26)
    ('YES', Fraction(1, 4), True)
    """
    spend = Budget(seconds=DEFAULT_SECONDS[below is None]) if budget is None else Budget.of(budget)
    clock = spend.start()
    threshold, box = _checked(f, g, below), f.domain(domain)
    as_generator(seed)
    first, second = _of_one_shape(f, g, box)
    ascent = Ascent(first, second, box, seed)
    found = _Search(first, second, box, threshold, spend, clock, progress, ascent).run()
    if first is f or found.upper == math.inf:
        return found
    return replace(found, theorems=("lossless-moves", "canonical-form", *found.theorems))  # of the moves to one shape


def _of_one_shape(f: Network, g: Network, box: Box) -> tuple[Network, Network]:
    """Networks of other widths without their duplicate and unread neurons, where that makes their widths equal."""
    if f.widths == g.widths:
        return f, g
    plain = (replace(net, head=None) for net in (f, g))  # a form with a head keeps less than the logits
    first, second = (canonical(net, box, linear_part=False).as_network() for net in plain)
    if first is None or second is None or first.widths != second.widths:
        return f, g
    return replace(first, head=f.head), replace(second, head=g.head)


def _checked(f: Network, g: Network, below: object) -> Fraction | None:
    """The threshold as a rational, once inputs, outputs and threshold make sense."""
    require_network(f, "f")
    require_network(g, "g")
    for name, end in (("inputs", 0), ("outputs", -1)):
        if f.widths[end] != g.widths[end]:
            raise InputError(f"networks have {f.widths[end]} and {g.widths[end]} {name}; a distance needs as many")
    if below is None:
        return None
    threshold = Fraction(0)
    if isinstance(below, Rational):
        threshold = Fraction(below)
    elif isinstance(below, Real) and math.isfinite(float(below)):
        threshold = Fraction(float(below))
    if not 0 < threshold <= Fraction(sys.float_info.max) or isinstance(below, bool):
        raise InputError(f"below = {shown(below)}; give a positive number")
    return threshold


class _Search:
    """The state of one call: the pool of boxes, and the bounds so far."""

    def __init__(
        self,
        f: Network,
        g: Network,
        box: Box,
        below: Fraction | None,
        budget: Budget,
        clock: Stopwatch,
        progress: Progress | None,
        ascent: Ascent,
    ) -> None:
        self.f, self.g, self.box, self.below = f, g, box, below
        self.budget, self.clock, self.progress, self.ascent = budget, clock, progress, ascent
        self.goal = math.inf if below is None else _down(below)
        self.exact, self.witness = Fraction(0), ascent.point
        self.boxes, self.method = 0, "samples only"
        self.layers: list[PairedLayer] | None = None
        with np.errstate(all="ignore"):
            sizes = np.abs([net(ascent.point) for net in (f, g)])
        self.floor = float(_FLOOR * np.nan_to_num(sizes).max())

    # ---- the outline

    def run(self) -> Bound:
        """Cheap arguments first."""
        if self._same():
            self._replay()
            return self._bound(0.0, f"the networks are the same function{self._heads()}")
        size = self.f.parameter_count + self.g.parameter_count
        samples = int(min(4096, max(64, 2e8 / size)))
        self.ascent.search(samples, starts=min(64, samples), steps=30)
        if self._refuted():
            return self._bound(math.inf, "")
        if not self.box.bounded:
            return self._unbounded()
        upper = self._bounded()
        self._replay()
        return self._bound(upper, "")

    def _same(self) -> bool:
        """Whether the two are equal as they are, or after an alignment that rounds nothing."""
        if self.f.widths != self.g.widths or any(
            a.activation != b.activation for a, b in zip(self.f.layers, self.g.layers, strict=True)
        ):
            return False
        self.method = "the same weights"
        if _equal_layers(self.f, self.g):
            return True
        self.method += " after permuting and rescaling"
        aligned = align(self.f, self.g, domain=self.box)
        self.layers = paired_layers(self.f, aligned)
        if all(layer.identical for layer in self.layers):
            return True
        rational = any(rationals.is_rational(row.weight) for net in (self.f, self.g) for row in net.layers)
        powers = all(_is_power(q) for move in aligned.moves for q in move.factors)
        return rational and powers and max(aligned.after) < 1e-9 and _equal_layers(aligned.network, self.f)

    def _unbounded(self) -> Bound:
        upper, self.method = _enclosures_apart(self.f, self.g, self.box), "an enclosure of each network"
        if self.layers is not None:
            constant, slope = difference_bound(self.f, self.g, self.box)
            if slope == 0 and constant < upper:
                upper, self.method = constant, "interval differences"
        self._replay()
        return self._bound(upper, "the domain is unbounded" if upper == math.inf else "")

    def _replay(self) -> None:
        """Evaluate the best point exactly, if that is new."""
        point = self.ascent.point
        if self.boxes and np.array_equal(point, self.witness) and self.exact > 0:
            return
        found = exact_gap(self.f, self.g, point)
        if found >= self.exact:
            self.exact, self.witness = found, point

    def _refuted(self) -> bool:
        """Whether the best point, evaluated exactly, is a counterexample to `below`."""
        if self.below is None or self.ascent.value < self.goal * (1 - 1e-9):
            return False
        self._replay()
        return self.exact >= self.below

    def _heads(self) -> str:
        return "" if self.f.head == self.g.head else "; their output heads differ, and logits were compared"

    def _bound(self, upper: float, reason: str) -> Bound:
        lower, answer = max(0.0, _down(self.exact)), None
        upper = max(upper, lower)
        if self.below is not None:
            shown = f"{float(self.below):g}"
            if self.exact >= self.below:
                answer, reason = (
                    Answer.NO,
                    f"at the witness they differ by {outward(lower, up=False, digits=6)} >= {shown}",
                )
            elif upper < self.below:
                answer, reason = Answer.YES, f"they differ by less than {shown} everywhere" + self._heads()
            else:
                answer = Answer.UNDECIDED
                ends = outward(lower, up=False, digits=3), outward(upper, up=True, digits=3)
                reason = (reason or "the budget ended") + f"; the distance is between {ends[0]} and {ends[1]}"
        reason = (
            reason or ("enclosed as far as the budget allows" if self.clock.expired else "enclosed") + self._heads()
        )
        return Bound(
            lower, upper, self.witness, self.exact, answer, self.below, self.boxes, self.method, reason,
            self.clock.elapsed, self.box, theorems=_RESTS_ON.get(self.method, ()) if upper < math.inf else (),
        )  # fmt: skip

    # ---- branch and bound

    def _bounded(self) -> float:
        sweeps = self._sweeps()
        low, high = self.box.lower[None], self.box.upper[None]
        upper = _enclosures_apart(self.f, self.g, self.box)
        for sweep in sweeps:
            self.boxes += 1
            upper = min(upper, float(sweep(low, high).upper.max()))
            if upper < self._target() or self._over():
                return upper
        return self._branch(sweeps[-1], upper) if self.splits else upper

    def _sweeps(self) -> list[Sweep]:
        """Enclosures of the difference over boxes, from cheap to dear."""
        f, g = self.f, self.g
        width, depth = max(*f.widths, *g.widths), max(f.depth, g.depth)
        wide = max(16, min(width, _ROOM // (width * depth)))
        keep = 16 if f.widths[0] <= 16 else wide
        self.batch = int(np.clip(_ROOM // (width * (f.widths[0] + keep * depth)), 1, _BATCH))
        self.splits = small = f.widths[0] * width <= 10 * _ROOM
        if self.layers is None:
            first, second = ([value_layer(row) for row in net.layers] for net in (f, g))
            self.method = "two zonotopes"
            return [lambda low, high: spans_apart(first, second, low, high, keep=keep)] if small else []
        layers = self.layers
        self.method = "difference zonotopes" if small else "difference intervals"
        out: list[Sweep] = [lambda low, high: difference_spans(layers, low, high, linear=False)]
        if small:
            out.append(lambda low, high: difference_spans(layers, low, high, keep=keep))
        return out

    def _target(self) -> float:
        """Boxes with a smaller bound are done."""
        return self.goal if self.below is not None else max(self.ascent.value * (1 + _NEAR), self.floor)

    def _branch(self, sweep: Sweep, root: float) -> float:
        """Bisect until every box is done or the budget ends; the largest bound of all boxes."""
        pool = _Pool(self.box.lower, self.box.upper, root)
        closed, done = 0.0, 0.0
        while pool.size and not self._over():
            low, high, known, share = pool.take(self.batch, best=self.below is None)
            found = sweep(low, high)
            self.boxes += len(low)
            upper = np.minimum(found.upper.max(axis=1), known)
            open_ = upper >= self._target()
            axis, middle, proper = _halves(low, high, found.scores)
            stuck = open_ & ~proper
            closed = max(closed, float(upper[~open_ | stuck].max(initial=0.0)))
            done += float(share[~open_].sum())
            keep = open_ & ~stuck
            self._hunt(low[keep], high[keep], upper[keep], found.inputs[:, keep], found.upper[keep])
            if self._refuted():
                return math.inf
            pool.split(low[keep], high[keep], upper[keep], share[keep], axis[keep], middle[keep])
            if self.progress is not None:
                self.progress(min(done, 1.0), f"{self.boxes:,} boxes, {pool.size:,} open")
        return max(closed, pool.largest)

    def _over(self) -> bool:
        return self.clock.expired or (self.budget.cells is not None and self.boxes >= self.budget.cells)

    def _hunt(self, low: FloatArray, high: FloatArray, upper: FloatArray, inputs: FloatArray, ends: FloatArray) -> None:
        """Try the corners to which the linear part of the worst boxes' bounds points."""
        worst = np.argsort(-upper)[:16]
        if not worst.size:
            return
        output = ends[worst].argmax(axis=1)
        ascending = inputs[:, worst, output].T > 0
        a, b = low[worst], high[worst]
        middle = np.clip(0.5 * a + 0.5 * b, a, b)
        self.ascent.look(np.concatenate([middle, np.where(ascending, a, b), np.where(ascending, b, a)]))


class _Pool:
    """Open boxes, with known upper bounds and their shares of the whole."""

    def __init__(self, low: FloatArray, high: FloatArray, upper: float) -> None:
        self.low, self.high = low[None], high[None]
        self.upper, self.share = np.array([upper]), np.ones(1)

    @property
    def size(self) -> int:
        """Number of open boxes."""
        return len(self.upper)

    @property
    def largest(self) -> float:
        """The largest known bound."""
        return float(self.upper.max(initial=0.0))

    def take(self, count: int, *, best: bool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Remove and return the newest boxes, or those of the largest bounds."""
        if best and self.size > count:
            order = np.argpartition(self.upper, self.size - count)
            self._set(*(v[order] for v in self._arrays()))
        out = tuple(v[-count:] for v in self._arrays())
        self._set(*(v[:-count] for v in self._arrays()))
        return out[0], out[1], out[2], out[3]

    def split(
        self, low: FloatArray, high: FloatArray, upper: FloatArray, share: FloatArray, axis: npt.NDArray[np.intp],
        middle: FloatArray,
    ) -> None:  # fmt: skip
        """Add both halves of each box; they share the face x[axis] = middle."""
        rows = np.arange(len(axis))
        top, bottom = high.copy(), low.copy()
        top[rows, axis], bottom[rows, axis] = middle, middle
        self._set(
            np.concatenate([self.low, low, bottom]),
            np.concatenate([self.high, top, high]),
            np.concatenate([self.upper, upper, upper]),
            np.concatenate([self.share, share / 2, share / 2]),
        )

    def _arrays(self) -> tuple[FloatArray, ...]:
        return self.low, self.high, self.upper, self.share

    def _set(self, low: FloatArray, high: FloatArray, upper: FloatArray, share: FloatArray) -> None:
        self.low, self.high, self.upper, self.share = low, high, upper, share


def _enclosures_apart(f: Network, g: Network, box: Box) -> float:
    """The far ends of separate enclosures of f and g, rounded up; inf where one is unbounded."""
    with np.errstate(all="ignore"):
        first, second = (net.layers[-1].activation.enclose(*net.enclose(box)[-1]) for net in (f, g))
        far = np.maximum(first[1] - second[0], second[1] - first[0])
        far = np.nextafter(far, np.inf)
    return float(np.where(np.isnan(far), np.inf, far).max())


def _halves(
    low: FloatArray, high: FloatArray, scores: FloatArray
) -> tuple[npt.NDArray[np.intp], FloatArray, npt.NDArray[np.bool_]]:
    """Where to bisect each box: axis, middle, and whether there is a float between the ends."""
    with np.errstate(all="ignore"):
        middle = np.clip(0.5 * low + 0.5 * high, low, high)
        width = np.minimum(high - low, np.finfo(np.float64).max)
    proper = (middle > low) & (middle < high)
    value = np.where(proper, np.where((scores > 0).any(axis=1, keepdims=True), scores, width), -1.0)
    axis = value.argmax(axis=1)
    rows = np.arange(len(axis))
    return axis, middle[rows, axis], proper[rows, axis]


def _down(q: Fraction) -> float:
    """The largest float <= q, up to one unit in the last place."""
    try:
        value = float(q)
    except OverflowError:
        return float(np.finfo(np.float64).max)
    return value if Fraction(value) <= q else math.nextafter(value, -math.inf)


def _is_power(q: Fraction) -> bool:
    return all(abs(v) & (abs(v) - 1) == 0 for v in (q.numerator, q.denominator))


def _equal_layers(f: Network, g: Network) -> bool:
    return all(
        rationals.equal(a.weight, b.weight) and rationals.equal(a.bias, b.bias)
        for a, b in zip(f.layers, g.layers, strict=True)
    )
