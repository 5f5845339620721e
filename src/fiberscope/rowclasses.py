"""Classes of rows that are multiples of each other, found by projections and confirmed over Q.

Candidates come from random projections in float64 with a proved error bound: two rows whose projections differ by more
than that bound are different, so nothing equal is ever missed; what remains is compared over Q before it is called
equal. Cost: one pass over the matrices for generic networks, plus exact work on the candidates only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_CHUNK = 1 << 19
"""Entries converted to float64 at a time: fits the second-level cache."""
_ONE = Fraction(1)
_BATCH = 1 << 23
"""Entries of candidate rows gathered at a time."""


@dataclass(frozen=True)
class Multiples:
    """Which multiples of a neuron's row count as the same neuron.

    Args:
        sign: e = -1 does: for odd activations everywhere, for even ones on the incoming side only (`even`).
        scale: every e > 0 does.
        even: the sign is forgotten by the activation, so that outgoing weights keep theirs.
        null: s(0) = 0, so that a neuron with a zero row is silent.
    """

    sign: bool = False
    scale: bool = False
    even: bool = False
    null: bool = False


@dataclass(frozen=True, eq=False)
class Classes:
    """A partition of the neurons of one layer into classes of multiples.

    Args:
        labels: (n,) int64, class of each neuron, numbered by first member; -1 for null neurons.
        factors: (n,) Fractions, row_i = factors[i] * row of the class's first member; 0 for null neurons.
    """

    labels: IntArray
    factors: ExactArray

    @property
    def count(self) -> int:
        """Number of classes without the null class."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The neurons of each class, in order."""
        order = np.argsort(self.labels, kind="stable")
        cuts = np.searchsorted(self.labels[order], np.arange(self.count + 1))
        return tuple(tuple(int(i) for i in order[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))

    @property
    def null(self) -> tuple[int, ...]:
        """The null neurons."""
        return tuple(int(i) for i in np.flatnonzero(self.labels < 0))

    @property
    def trivial(self) -> bool:
        """Whether every neuron is alone in its class and none is null."""
        return self.count == self.labels.size


def discrete(n: int) -> Classes:
    """Everyone alone."""
    return Classes(np.arange(n), np.full(n, _ONE, dtype=object))


@dataclass(frozen=True, eq=False)
class Part:
    """The columns of a matrix summed over classes, sum_(j in B) matrix[i, j] weights[j]; `signed`: takes the sign."""

    matrix: ExactArray
    labels: IntArray
    weights: ExactArray
    signed: bool = True

    @cached_property
    def count(self) -> int:
        """Number of classes."""
        return int(self.labels.max(initial=-1)) + 1

    @cached_property
    def factored(self) -> bool:
        """Whether a weight differs from 1."""
        return any(w is not _ONE and w != 1 for w in self.weights)

    def project(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Two random projections of every row, (n, 2), and a bound on their errors, (n,)."""
        values = rng.uniform(1.0, 2.0, (self.count + 1, 2)) * rng.choice([-1.0, 1.0], (self.count + 1, 2))
        values[-1] = 0.0  # label -1: null columns do not count
        weights = np.array([float(w) for w in self.weights]) if self.factored else np.ones(len(self.weights))
        vectors = values[self.labels] * weights[:, None]
        n, width = self.matrix.shape
        out, size = np.empty((n, 2)), np.empty(n)
        step = max(1, _CHUNK // max(1, width))
        span = np.abs(vectors).max(axis=1, initial=0.0)
        for start in range(0, n, step):
            chunk = self.matrix[start : start + step]
            block = _block64(chunk)
            out[start : start + step] = block @ vectors
            size[start : start + step] = np.abs(block) @ span
        return out, 4.0 * (width + 8) * np.finfo(np.float64).eps * size + 1e-300

    def exact(self, rows: IntArray) -> tuple[npt.NDArray[Any], Fraction]:
        """Class sums of the given rows as integers times one unit, (len(rows), count)."""
        chunk = self.matrix[rows]
        if self.count == self.labels.size and not self.factored:
            order = np.argsort(self.labels)
            ints, unit = _integers(chunk[:, order])
            return ints, unit
        keep = self.labels >= 0
        labels, columns = self.labels[keep], chunk[:, keep]
        if self.factored:
            columns = rationals.fractions(columns) * self.weights[keep]
        ints, unit = _integers(columns)
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], np.arange(self.count))
        if not self.count:
            return np.zeros((len(rows), 0), dtype=np.int64), unit
        return np.add.reduceat(ints[:, order], starts, axis=1), unit


def _block64(chunk: ExactArray) -> FloatArray:
    if rationals.is_rational(chunk):
        return np.asarray(rationals.rounded(chunk, np.float64))
    return chunk.astype(np.float64)


def _integers(array: ExactArray) -> tuple[npt.NDArray[Any], Fraction]:
    if rationals.is_rational(array):
        return rationals.integers(array)
    ints, exponent = rationals.dyadic(array)
    return ints, Fraction(2) ** exponent


def partition(parts: Sequence[Part], rule: Multiples, old: IntArray, rng: np.random.Generator) -> Classes:
    """Group rows whose concatenated class sums agree up to `rule`, inside the old classes."""
    n = old.size
    projected, error = np.zeros((n, 2)), np.zeros(n)
    fixed = np.zeros((n, 2))  # the side whose sign counts even when the activation is even
    for part in parts:
        values, bound = part.project(rng)
        if rule.even and not part.signed:
            fixed += values
        else:
            projected += values
        error += bound
    labels = np.full(n, -1, dtype=np.int64)
    factors = np.full(n, Fraction(0), dtype=object)
    clusters, alone = _clusters(projected, fixed, error, rule, old, lambda rows: _all_zero(parts, rows))
    labels[alone], factors[alone] = np.arange(alone.size), _ONE
    fresh = alone.size
    size = np.abs(projected).max(axis=1) + np.abs(fixed).max(axis=1)
    for kinds in _copies(parts, rule, clusters):
        first = np.array(list(kinds), dtype=np.int64)
        if len(first) == 1 and size[first[0]] > 4.0 * error[first[0]]:
            groups: list[tuple[IntArray, ExactArray | None]] = [(first, np.array([_ONE], dtype=object))]
        else:
            groups = _exact_groups(parts, rule, first)
        for members, multiples_of_first in groups:
            if multiples_of_first is None:
                continue  # null rows keep label -1, and so do their copies
            for kind, factor in zip(members.tolist(), multiples_of_first, strict=True):
                for row, e in kinds[kind]:
                    labels[row], factors[row] = fresh, factor * e
            fresh += 1
    return _in_order(labels, factors)


def refine(parts: Sequence[Part], rule: Multiples, old: Classes, rng: np.random.Generator) -> Classes:
    """`partition` inside the old classes, looking only at rows that are not alone already."""
    size = np.bincount(old.labels[old.labels >= 0], minlength=1)
    open_ = (old.labels < 0) | (size[old.labels] > 1)  # a null row may turn out not to be null
    rows = np.flatnonzero(open_)
    if rows.size == open_.size:
        return partition(parts, rule, old.labels, rng)
    blocks = zip(parts, _gathered(parts, rows), strict=True)
    inner = partition([replace(part, matrix=block) for part, block in blocks], rule, old.labels[rows], rng)
    labels, factors = np.full(open_.size, -1, dtype=np.int64), np.full(open_.size, _ONE, dtype=object)
    labels[~open_] = np.arange(open_.size - rows.size)
    labels[rows] = np.where(inner.labels >= 0, inner.labels + open_.size - rows.size, -1)
    factors[rows] = inner.factors
    return _in_order(labels, factors)


_Kinds = dict[int, list[tuple[int, Fraction]]]
"""For some rows the rows that are their multiples bit by bit, with the multiples; each is its own with 1."""


def _copies(parts: Sequence[Part], rule: Multiples, clusters: Sequence[IntArray]) -> Iterator[_Kinds]:
    """Each cluster by one row of every kind.

    Rows that agree bit by bit, or up to a sign and a power of two, have class sums that do, whatever the classes; so
    exact sums are needed for one of them only. Rows are gathered in batches, since columns are far apart in memory.
    """
    if any(rationals.is_rational(part.matrix) for part in parts):
        for cluster in clusters:
            yield {row: [(row, _ONE)] for row in cluster.tolist()}
        return
    width = sum(part.matrix.shape[1] for part in parts)
    start = 0
    while start < len(clusters):
        stop, total = start + 1, len(clusters[start])
        while stop < len(clusters) and (total + len(clusters[stop])) * width <= _BATCH:
            total += len(clusters[stop])
            stop += 1
        batch = [{row: [(row, _ONE)] for row in cluster.tolist()} for cluster in clusters[start:stop]]
        batch = _collapsed(batch, lambda rows: _raw_keys(parts, rows))
        if rule.sign or rule.scale:
            several = _collapsed(
                [kinds for kinds in batch if len(kinds) > 1], lambda rows: _bit_keys(parts, rule, rows)
            )
            batch = [kinds for kinds in batch if len(kinds) == 1] + several
        yield from batch
        start = stop


def _collapsed(batch: list[_Kinds], keys: Callable[[IntArray], list[tuple[Any, Fraction]]]) -> list[_Kinds]:
    """Join kinds with equal keys, inside each cluster."""
    if not batch:
        return []
    found = iter(keys(np.array([row for kinds in batch for row in kinds], dtype=np.int64)))
    out = []
    for kinds in batch:
        place: dict[Any, tuple[int, Fraction]] = {}
        joined: _Kinds = {}
        for row, members in kinds.items():
            key, unit = next(found)
            first, its_unit = place.setdefault(key, (row, unit))
            e = unit / its_unit if unit != its_unit else _ONE
            joined.setdefault(first, []).extend((r, own * e if e != 1 else own) for r, own in members)
        out.append(joined)
    return out


def _gathered(parts: Sequence[Part], rows: IntArray) -> list[npt.NDArray[Any]]:
    return [part.matrix.T[:, rows].T if _by_column(part.matrix) else part.matrix[rows] for part in parts]


def _raw_keys(parts: Sequence[Part], rows: IntArray) -> list[tuple[Any, Fraction]]:
    table = np.ascontiguousarray(np.concatenate(_gathered(parts, rows), axis=1))
    table += table.dtype.type(0)  # -0.0 and 0.0 are one
    return [(row.tobytes(), _ONE) for row in table]


def _bit_keys(parts: Sequence[Part], rule: Multiples, rows: IntArray) -> list[tuple[Any, Fraction]]:
    """For each row a key and e with row = e * (row of that key): equal keys mean multiples; the converse may fail."""
    blocks = [block.astype(np.float64) for block in _gathered(parts, rows)]
    table = np.concatenate(blocks, axis=1) + 0.0
    unit = np.ones(len(rows))
    if rule.scale:
        unit = np.ldexp(1.0, np.frexp(np.abs(table).max(axis=1, initial=0.0))[1].clip(-900, 900))
    if rule.sign:
        signed = np.concatenate(
            [block for part, block in zip(parts, blocks, strict=True) if part.signed or not rule.even], axis=1
        )
        lead = signed[np.arange(len(rows)), np.argmax(signed != 0, axis=1)]
        unit = np.where(lead < 0, -unit, unit)
    turned = table / unit[:, None]
    if rule.even:  # the other side keeps its sign
        turned = np.where(_sides(parts), turned, table / np.abs(unit)[:, None])
    faithful = (np.abs(turned) * np.abs(unit)[:, None] == np.abs(table)).all(axis=1).tolist()
    turned = np.ascontiguousarray(turned + 0.0)
    return [
        (turned[k].tobytes(), Fraction(e)) if ok else ((int(rows[k]),), _ONE)
        for k, (ok, e) in enumerate(zip(faithful, unit.tolist(), strict=True))
    ]


def _by_column(matrix: ExactArray) -> bool:
    return matrix.strides[0] < matrix.strides[-1]


def _sides(parts: Sequence[Part]) -> npt.NDArray[np.bool_]:
    return np.concatenate([np.full(part.matrix.shape[1], part.signed) for part in parts])


def _all_zero(parts: Sequence[Part], rows: IntArray) -> bool:
    return not any(part.exact(rows)[0].any() for part in parts)


def _in_order(labels: IntArray, factors: ExactArray) -> Classes:
    """Number classes by their first member."""
    live, first = np.unique(labels, return_index=True)
    if live.size and live[0] < 0:
        live, first = live[1:], first[1:]
    rank = np.full(int(live.max(initial=0)) + 2, -1, dtype=np.int64)  # the last entry serves label -1
    rank[live[np.argsort(first)]] = np.arange(live.size)
    new = rank[labels]
    return Classes(new, factors)


def _clusters(
    projected: FloatArray,
    fixed: FloatArray,
    error: FloatArray,
    rule: Multiples,
    old: IntArray,
    vanishes: Callable[[IntArray], bool],
) -> tuple[list[IntArray], IntArray]:
    """Sets of rows that may be multiples of each other, and rows that certainly are multiples of no other."""
    period: float | None
    size = np.hypot(projected[:, 0], projected[:, 1])
    whole = np.hypot(size, np.hypot(fixed[:, 0], fixed[:, 1]))
    tiny = whole <= 4.0 * error
    if rule.scale:
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = np.where(tiny, 0.0, error / np.where(whole > 0, whole, 1.0)) * 4.0
        angle = np.arctan2(projected[:, 1], projected[:, 0])
        if rule.sign:
            angle = np.mod(angle, math.pi)
        key, period = angle, (math.pi if rule.sign else 2 * math.pi)
        if rule.even and fixed.any():  # the signed side's angle says nothing where that side is small
            key, period = np.arctan2(fixed[:, 0], np.hypot(size, fixed[:, 1])), None
    else:
        key = np.abs(projected[:, 0]) + fixed[:, 0] * math.e if rule.sign else projected[:, 0] + fixed[:, 0]
        radius, period = error * 4.0, None
    clusters: list[IntArray] = []
    alone: list[IntArray] = []
    for group in [np.flatnonzero(old == v) for v in np.unique(old)]:
        zero = group[tiny[group]]
        if zero.size and rule.scale and not vanishes(zero):
            clusters.append(group)  # no direction is known for a nonzero row this small
            continue
        if zero.size:
            clusters.append(zero)
        several, single = _chains(group[~tiny[group]], key, radius, period)
        clusters.extend(several)
        alone.append(single)
    return clusters, np.concatenate(alone) if alone else np.zeros(0, dtype=np.int64)


def _chains(
    group: IntArray, key: FloatArray, radius: FloatArray, period: float | None
) -> tuple[list[IntArray], IntArray]:
    """Chains of rows whose keys overlap, and the rows that overlap with none."""
    if group.size <= 1:
        return [], group
    order = group[np.argsort(key[group], kind="stable")]
    if period is not None:  # start a circle at its widest gap, so that no chain is cut in two
        around = np.diff(key[order], append=key[order[0]] + period)
        order = np.roll(order, -1 - int(np.argmax(around)))
    gap = np.diff(key[order]) if period is None else np.mod(np.diff(key[order]), period)
    apart = np.concatenate([[True], gap > radius[order][1:] + radius[order][:-1], [True]])
    single = apart[1:] & apart[:-1]
    pieces = np.split(order, np.flatnonzero(apart[1:-1]) + 1)
    return [np.sort(piece) for piece in pieces if piece.size > 1], order[single]


def _exact_groups(parts: Sequence[Part], rule: Multiples, rows: IntArray) -> list[tuple[IntArray, ExactArray | None]]:
    """Split candidate rows into true classes: (members, factors relative to the first), factors None for null rows."""
    blocks = [part.exact(rows) for part in parts]
    common = Fraction(1, math.lcm(1, *(unit.denominator for _, unit in blocks)))
    scaled = [ints if unit == common else ints.astype(object) * int(unit / common) for ints, unit in blocks]
    table: dict[Any, list[tuple[int, Fraction]]] = {}
    for k, row in enumerate(rows):
        signed = [v for part, block in zip(parts, scaled, strict=True) if part.signed for v in block[k].tolist()]
        other = [v for part, block in zip(parts, scaled, strict=True) if not part.signed for v in block[k].tolist()]
        key, factor = _canonical(signed, other, rule)
        table.setdefault(key, []).append((int(row), factor))
    out: list[tuple[IntArray, ExactArray | None]] = []
    for key, found in table.items():
        members = np.array([row for row, _ in found], dtype=np.int64)
        if rule.null and key is None:
            out.append((members, None))
            continue
        first = found[0][1]
        out.append((members, np.array([factor / first for _, factor in found], dtype=object)))
    return out


def _canonical(signed: list[int], other: list[int], rule: Multiples) -> tuple[Any, Fraction]:
    """The representative of a row's class and the multiple of it that the row is; key None for a zero row."""
    everything = signed + other
    if not any(everything):
        return None, Fraction(1)
    factor = 1
    if rule.scale:
        factor = math.gcd(*everything)
    sign = 1
    if rule.sign:
        turned = signed if rule.even else everything
        sign = -1 if next((v for v in turned if v), 1) < 0 else 1
    first = tuple(sign * v // factor for v in signed)
    last = tuple((v if rule.even else sign * v) // factor for v in other)
    return (first, last), Fraction(sign * factor)
