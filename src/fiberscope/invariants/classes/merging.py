"""The merge tree of a network: nested partitions from all neurons apart to one class, with their distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError
from fiberscope.invariants.classes.nearby import near_classes, rounding_tolerances, unit_points
from fiberscope.invariants.classes.projections import partition_distance
from fiberscope.network import Network
from fiberscope.neurons import Classes, multiples, still_layers
from fiberscope.results import Result, Rigor
from fiberscope.rowclasses import in_order

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CAP = 1000
"""Units of the Ward stage: more are first merged by growing tolerance."""
_RATIO = 10.0
"""Consecutive heights this far apart make a number of classes stand out."""
_LADDER = (*(10.0**-k for k in range(14, 4, -1)), *(10.0 ** (-k / 2) for k in range(8, 0, -1)))  # 1e-14 to 0.316
_CLOSE = 1e-6
"""Squared distances below this share of the lengths are computed from differences."""


@dataclass(frozen=True)
class Step:
    """One level of the hierarchy.

    Args:
        classes: number of classes, all hidden layers together, null neurons not counted.
        widths: classes of each hidden layer.
        distance: distance of theta from the manifold of these classes.
        dimension: of a leaf of that manifold.
        height: how far apart what was merged last is: sqrt(2 * added squared distance) by Ward merges, the same on
            average by a tolerance; in deep networks the tolerance itself.
        by: "start", "tolerance" or "ward".
    """

    classes: int
    widths: tuple[int, ...]
    distance: float
    dimension: int
    height: float
    by: str


@dataclass(frozen=True, eq=False)
class MergeTree(Result):
    """Nested partitions of the hidden neurons, finest first.

    Args:
        steps: the levels.
        suggested: the number of classes before the largest jump of the heights, None where no jump is tenfold.
        ratio: that jump.
        capped: what was left out, "" if nothing.
        rigor: NUMERICAL.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "kept", "merges"})

    steps: tuple[Step, ...]
    suggested: int | None
    ratio: float | None
    capped: str
    network: Network
    kept: tuple[tuple[Classes, ...], ...]
    merges: tuple[tuple[int, int, float], ...]
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ("equitable-sim",)

    def partition(self, classes: int) -> tuple[Classes, ...]:
        """The partition of the level with so many classes, one `Classes` for each hidden layer.

        Raises:
            InputError: if no level has so many.
        """
        found = [k for k, step in enumerate(self.steps) if step.classes == classes]
        if not found:
            near = min((s.classes for s in self.steps), key=lambda n: abs(n - classes))
            raise InputError(f"the merge tree has no level with {classes} classes; the nearest has {near}")
        at = found[-1]
        if at < len(self.kept):
            return self.kept[at]
        return (_replayed(self.network, self.kept[-1][0], self.merges[: at - len(self.kept) + 1]),)

    def __str__(self) -> str:
        """One screen: the coarse end of the tree."""
        if self.suggested is None:
            head = "merge tree: no number of classes stands out (no tenfold jump between merges)"
        else:
            head = f"merge tree: {self.suggested:,} classes stand out (the next merge is {_times(self.ratio)} wider)"
        lines = [head]
        shown = _shown(self.steps, self.suggested)
        for step, following in zip(shown, [*shown[1:], None], strict=True):
            mark = "  <-" if step.classes == self.suggested else ""
            noun = "class  " if step.classes == 1 else "classes"
            lines.append(
                f"  {step.classes:>9,} {noun}   distance {step.distance:10.3g}   dimension {step.dimension:>11,}{mark}"
            )
            if following is not None and self.steps.index(following) != self.steps.index(step) + 1:
                lines.append("        ...")
        return "\n".join([*lines, *([f"  {self.capped}"] if self.capped else [])])


def _times(ratio: float | None) -> str:
    return "infinitely" if ratio is None or not np.isfinite(ratio) else f"{ratio:.3g} times"


def _shown(steps: Sequence[Step], suggested: int | None, limit: int = 8) -> list[Step]:
    """All of a few; else the start, the suggestion with its neighbours, and the coarsest levels."""
    if len(steps) <= limit + 2:
        return list(steps)
    at = next((k for k, s in enumerate(steps) if s.classes == suggested), None)
    near = set() if at is None else {at - 1, at, at + 1}
    chosen = sorted({0, *near, *range(max(0, len(steps) - limit + 1 + len(near)), len(steps))} & set(range(len(steps))))
    return [steps[k] for k in chosen]


def merge_tree(
    net: Network, base: Sequence[Classes], *, start: float | None = None, cap: int = CAP, seed: int = 0
) -> MergeTree:
    """Nested coarser partitions above a given one, with the distance of theta from each one's manifold.

    Two-layer networks: agglomeration by Ward's criterion on the vectors (a, w, b) of the classes, which adds to the
    squared distance what the merge costs (half the squared height); signs are aligned for odd and even activations,
    joining the null class costs |u|^2 where s(0) = 0, and for positively homogeneous activations a merge costs the
    smaller eigenvalue of the pair's Gram matrix (an upper bound of what it adds). More than `cap` classes are first
    merged by growing tolerances. Deeper networks: `near_classes` with growing tolerances, each seeded with the one
    before, so that the levels are nested.

    Args:
        net: the network.
        base: the finest partition, one `Classes` for each hidden layer.
        start: distance of theta from the manifold of `base` where it is known (0 for exact classes); else computed.
        cap: units of the Ward stage.
        seed: of the random projections.

    Complexity: O(cap^2 (D + rescans)) for the Ward stage with D parameters of a neuron, `near_classes` per tolerance.
    Source: theory page, section on detection (Ward 1963).

    >>> from fiberscope.neurons import colour_classes
    >>> net = Network.from_arrays(([[1.0], [1.1], [5.0]], [0, 0, 0]), ([[1.0, 1.0, 9.0]], [0]), activation="softplus")
    >>> tree = merge_tree(net, colour_classes(net))
    >>> [(s.classes, s.dimension, round(s.distance, 4)) for s in tree.steps[:2]], tree.suggested
    ([(3, 10, 0.0), (2, 7, 0.0707)], 2)
    """
    kept, tolerances = _climb(net, tuple(base), 1 if net.depth != 2 else cap, seed)
    steps: list[Step] = []
    last, deep = 0.0, net.depth != 2
    for partition, tolerance in zip(kept, tolerances, strict=True):
        known = start if tolerance is None else None
        distance = partition_distance(net, partition).absolute if known is None else known
        height = _start_height(net, partition, distance) if tolerance is None else tolerance
        if tolerance is not None and not deep:
            merged = steps[-1].classes - sum(c.count for c in partition)
            height = (2.0 * max(distance**2 - last, 0.0) / max(merged, 1)) ** 0.5
        last = distance**2
        steps.append(_step(net, [c.count for c in partition], distance, height, tolerance))
    merges: list[tuple[int, int, float]] = []
    capped = ""
    if not deep and kept[-1][0].count <= cap:
        merges, costs = _ward(net, kept[-1], seed)
        width = kept[-1][0].count
        for k, cost in enumerate(costs):
            last += cost
            steps.append(_step(net, [width - k - 1], last**0.5, (2.0 * cost) ** 0.5, "ward"))
    elif not deep:
        capped = (
            f"{kept[-1][0].count:,} classes are left at tolerance {_LADDER[-1]:.2g}; pairs are merged from {cap:,} down"
        )
    ended = steps[-1].classes <= 1 or bool(merges)
    suggested, ratio = _suggestion(steps, None if ended else _LADDER[-1] * (1.0 if deep else _typical(net, kept[-1])))
    return MergeTree(tuple(steps), suggested, ratio, capped, net, tuple(kept), tuple(merges))


def leaf_dimension(net: Network, widths: Sequence[int]) -> int:
    """Parameters that move if the hidden layers have so many classes: sum_l k_l k_(l-1) + k_l.

    The sum begins above the last layer without a class; see `still_layers`.

    >>> leaf_dimension(Network.random((2, 9, 1), seed=0), [3]), leaf_dimension(Network.random((2, 1, 1, 1)), [1, 0])
    (13, 1)
    """
    counts = (net.widths[0], *widths, net.widths[-1])
    return sum(a * b + b for a, b in list(zip(counts, counts[1:], strict=False))[still_layers(widths) :])


def _step(net: Network, widths: Sequence[int], distance: float, height: float, by: float | str | None) -> Step:
    word = by if isinstance(by, str) else "start" if by is None else "tolerance"
    return Step(sum(widths), tuple(widths), distance, leaf_dimension(net, widths), height, word)


def _start_height(net: Network, base: Sequence[Classes], distance: float) -> float:
    """What counts as the height of the finest level: 0 if nothing is merged, else what rounding explains."""
    merged = sum(c.labels.size - c.count for c in base)
    if not merged:
        return 0.0
    if net.depth != 2:
        return max(rounding_tolerances(net))
    return max(rounding_tolerances(net)[0] * _typical(net, base), float((2.0 / merged) ** 0.5 * distance))


def _typical(net: Network, base: Sequence[Classes]) -> float:
    """Median length of the vectors of the classes of a two-layer network."""
    points, _, _ = unit_points(net, base, 0)
    lengths = np.sqrt(np.einsum("ij,ij->i", points, points))
    return float(np.median(lengths[lengths > 0])) if (lengths > 0).any() else 1.0


def _suggestion(steps: Sequence[Step], beyond: float | None) -> tuple[int | None, float | None]:
    """The number of classes before the largest jump of heights, if it is at least tenfold.

    `beyond`: what the height of a merge after the last level is at least; None where nothing is left to merge.
    """
    best: tuple[float, int] | None = None
    top = 0.0
    heights = [step.height for step in steps[1:]] + ([] if beyond is None else [beyond])
    for here, after in zip(steps, heights, strict=False):
        top = max(top, here.height)
        if top > 0 and after >= _RATIO * top and (best is None or after / top > best[0]):
            best = (after / top, here.classes)
    return (None, None) if best is None else (best[1], best[0])


# ---- by tolerance


def _climb(
    net: Network, base: tuple[Classes, ...], target: int, seed: int
) -> tuple[list[tuple[Classes, ...]], list[float | None]]:
    """Partitions at growing tolerances until at most `target` classes are left, repetitions left out."""
    kept: list[tuple[Classes, ...]] = [base]
    tolerances: list[float | None] = [None]
    floor = max(rounding_tolerances(net), default=0.0)
    ladder = [t for t in _LADDER if t > floor]
    low, high = 0, len(ladder)
    if _size(base) <= target or not ladder:
        return kept, tolerances
    while low < high:  # below the first tolerance that merges anything there is nothing to see
        middle = high - 1 if high == len(ladder) else (low + high) // 2
        if _size(near_classes(net, base, ladder[middle], seed=seed)) < _size(base):
            high = middle
        elif high == len(ladder):
            return kept, tolerances
        else:
            low = middle + 1
    for tolerance in ladder[low:]:
        new = near_classes(net, kept[-1], tolerance, seed=seed)
        if _size(new) < _size(kept[-1]):
            kept.append(new)
            tolerances.append(tolerance)
        if _size(new) <= target:
            break
    return kept, tolerances


def _size(partition: Sequence[Classes]) -> int:
    return sum(c.count for c in partition)


# ---- Ward


def _ward(net: Network, base: Sequence[Classes], seed: int) -> tuple[list[tuple[int, int, float]], list[float]]:
    """Merges (kept unit, absorbed unit or -1 for the null class, sign), and what each adds to the squared distance."""
    points, weights, signed = unit_points(net, base, 0)
    rule = multiples(net.layers[0].activation, training=True)
    make = _Directions if rule.scale else _Means
    return make(points, weights, signed if rule.sign else None, rule.null).agglomerated()


class _Means:
    """Clusters as weighted means, all pairs; what a merge costs is Ward's increment."""

    def __init__(self, points: FloatArray, weights: FloatArray, signed: FloatArray | None, null: bool) -> None:
        self.weights, self.null = weights.astype(np.float64).copy(), null
        self.lengths = np.einsum("ij,ij->i", points, points)
        self.near = squared_distances(points, points)
        self.far = None if signed is None else squared_distances(points, np.where(signed > 0, -points, points))

    def pair_costs(self, i: int) -> FloatArray:
        """Cost of merging i with every cluster."""
        factor = self.weights[i] * self.weights / (self.weights[i] + self.weights)
        return np.asarray(factor * self._closest(i))

    def _closest(self, i: int) -> FloatArray:
        return np.asarray(self.near[i] if self.far is None else np.minimum(self.near[i], self.far[i]))

    def null_cost(self, i: int) -> float:
        """Cost of calling i null."""
        return float(self.weights[i] * self.lengths[i]) if self.null else np.inf

    def merge(self, i: int, j: int) -> float:
        """Put j into i; the sign that aligns them."""
        turned = self.far is not None and self.far[i, j] < self.near[i, j]
        total = self.weights[i] + self.weights[j]
        a, b = self.weights[i] / total, self.weights[j] / total
        gap = (self.far if turned and self.far is not None else self.near)[i, j]
        self.lengths[i] = max(a * self.lengths[i] + b * self.lengths[j] - a * b * gap, 0.0)
        self._mix(i, j, a, b, a * b * gap, turned)
        self.weights[i] = total
        return -1.0 if turned else 1.0

    def _mix(self, i: int, j: int, a: float, b: float, less: float, turned: bool) -> None:
        """Squared distances of a m_i + b F m_j from all means and their images."""
        other = (self.near, self.far) if not turned else (self.far, self.near)
        rows = [np.maximum(a * m[i] + b * o[j] - less, 0.0) for m, o in zip((self.near, self.far), other, strict=True)
                if m is not None and o is not None]  # fmt: skip
        for matrix, row in zip((self.near, self.far), rows, strict=False):
            if matrix is not None:
                matrix[i], matrix[:, i] = row, row

    def agglomerated(self) -> tuple[list[tuple[int, int, float]], list[float]]:
        """Merge the cheapest pair until one cluster is left; O(K^2) memory, O(K) per merge and rescan."""
        count = len(self.weights)
        alive = np.ones(count, dtype=bool)
        costs = np.stack([self.pair_costs(i) for i in range(count)]) if count else np.zeros((0, 0))
        np.fill_diagonal(costs, np.inf)
        nulls = np.array([self.null_cost(i) for i in range(count)])
        best, partner = costs.min(axis=1, initial=np.inf), costs.argmin(axis=1) if count else np.zeros(0, np.int64)
        merges, added = [], []
        for _ in range(count - 1):
            i, lonely = int(best.argmin()), int(nulls.argmin())
            if nulls[lonely] <= best[i]:
                merges.append((lonely, -1, 1.0))
                added.append(float(nulls[lonely]))
                gone, kept = lonely, None
            else:
                i, gone = min(i, int(partner[i])), max(i, int(partner[i]))
                added.append(float(costs[i, gone]))
                merges.append((i, gone, self.merge(i, gone)))
                kept = i
            alive[gone] = False
            costs[gone], costs[:, gone], nulls[gone], best[gone] = np.inf, np.inf, np.inf, np.inf
            stale = alive & (partner == gone)
            if kept is not None:
                row = np.where(alive, self.pair_costs(kept), np.inf)
                row[kept] = np.inf
                costs[kept], costs[:, kept] = row, row
                nulls[kept] = self.null_cost(kept)
                stale |= alive & (partner == kept)
                stale[kept] = True
                better = alive & (row < best)
                best[better], partner[better] = row[better], kept
            at = np.flatnonzero(stale)
            best[at], partner[at] = costs[at].min(axis=1), costs[at].argmin(axis=1)
        return merges, added


class _Directions(_Means):
    """Clusters as directions with an energy: their members may have any positive length."""

    def __init__(self, points: FloatArray, weights: FloatArray, signed: FloatArray | None, null: bool) -> None:
        length = np.sqrt(np.einsum("ij,ij->i", points, points))
        super().__init__(points / np.where(length > 0, length, 1.0)[:, None], weights * length**2, signed, null)
        self.lengths = np.ones(len(points))

    def pair_costs(self, i: int) -> FloatArray:
        """The smaller eigenvalue of [[p, c sqrt(pq)], [., q]]; without a common half space, no merge."""
        chord = self._closest(i)
        p, q = self.weights[i], self.weights
        cosine = 1.0 - chord / 2.0
        sine2 = chord * (1.0 - chord / 4.0)
        larger = (p + q) / 2.0 + np.sqrt(((p - q) / 2.0) ** 2 + p * q * cosine**2)
        return np.where(cosine > 0, p * q * sine2 / np.where(larger > 0, larger, 1.0), np.inf)

    def merge(self, i: int, j: int) -> float:
        """Put j into i: the top eigenvector of the pair's Gram matrix gives the new direction."""
        turned = self.far is not None and self.far[i, j] < self.near[i, j]
        chord = float((self.far if turned and self.far is not None else self.near)[i, j])
        p, q = float(self.weights[i]), float(self.weights[j])
        off = (p * q) ** 0.5 * (1.0 - chord / 2.0)
        larger = (p + q) / 2.0 + (((p - q) / 2.0) ** 2 + off**2) ** 0.5
        angle = 0.5 * np.arctan2(2.0 * off, p - q)
        a, b = float(np.cos(angle)) * (p / larger) ** 0.5, float(np.sin(angle)) * (q / larger) ** 0.5
        excess = a * b * chord / (1.0 + (1.0 + a * b * chord) ** 0.5)  # a + b - 1, without cancellation
        self._mix(i, j, a, b, 2.0 * excess, turned)
        self.weights[i] = larger
        return -1.0 if turned else 1.0


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """|a_i - b_j|^2, (m, n); small ones from differences, so that they keep their digits.

    >>> squared_distances(np.array([[1.0]]), np.array([[1.0 + 1e-9], [3.0]])).round(20).tolist()
    [[1e-18, 4.0]]
    """
    p, q = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    both = p[:, None] + q[None, :]
    out = np.asarray(both - 2.0 * (a @ b.T))
    rows, columns = np.nonzero(out <= _CLOSE * both)
    for k in range(0, rows.size, 1 << 14):
        i, j = rows[k : k + (1 << 14)], columns[k : k + (1 << 14)]
        off = a[i] - b[j]
        out[i, j] = np.einsum("ij,ij->i", off, off)
    return out


def _replayed(net: Network, base: Classes, merges: Sequence[tuple[int, int, float]]) -> Classes:
    """The classes after some merges."""
    count = base.count
    parent, signs = np.arange(count), np.ones(count)
    for i, j, sign in merges:
        here = parent == (j if j >= 0 else i)
        signs[here] *= sign
        parent[here] = i if j >= 0 else -1
    factors = signs
    if multiples(net.layers[0].activation, training=True).scale:
        points, weights, _ = unit_points(net, (base,), 0)
        factors = _amplitudes(points, weights, parent, signs)
    first = {int(p): k for k, p in reversed(list(enumerate(parent)))}
    unit = np.array([factors[k] / factors[first[int(p)]] for k, p in enumerate(parent)])
    exact = np.array([Fraction(float(v)) for v in [*unit, 0.0]], dtype=object)  # the last serves null neurons
    labels = np.append(parent, -1)[base.labels]
    numbers = exact[base.labels] * base.factors
    numbers[labels < 0] = Fraction(0)
    return in_order(labels.astype(np.int64), numbers)


def _amplitudes(points: FloatArray, weights: FloatArray, parent: IntArray, signs: FloatArray) -> FloatArray:
    """Lengths of the units along the leading direction of their class."""
    out = np.ones(len(points))
    for p in np.unique(parent[parent >= 0]):
        at = np.flatnonzero(parent == p)
        scaled = points[at] * signs[at, None] * np.sqrt(weights[at])[:, None]
        lead: Any = np.linalg.svd(scaled, full_matrices=False)[2][0]
        along = (points[at] * signs[at, None]) @ lead
        along = along if along.sum() >= 0 else -along
        out[at] = signs[at] * np.maximum(along, 1e-12 * along.max())
    return out
