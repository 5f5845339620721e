"""Classes of rows that are multiples of each other, found by projections and confirmed over Q.

Candidates come from random projections in float64 with a proved error bound: two rows whose projections differ by more
than that bound are different, so nothing equal is ever missed; what remains is compared over Q before it is called
equal. Cost: one pass over the matrices for generic networks, plus exact work on the candidates only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
_MINUS = Fraction(-1)
_BATCH = 1 << 22
"""Entries of rows that are summed exactly at a time."""
_KINDS = 6
"""Rows are compared bit by bit with so many others of their chain."""


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

    @cached_property
    def vector(self) -> FloatArray:
        """(n,) the factors as floats, 0 for null neurons: the columns of E, all in one."""
        out = np.fromiter((1.0 if f is _ONE else float(f) for f in self.factors), np.float64, self.labels.size)
        return np.where(self.labels < 0, 0.0, out)


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

    @cached_property
    def by_column(self) -> bool:
        """Whether neighbours in memory are in one column, as in a transposed matrix."""
        return self.matrix.strides[0] < self.matrix.strides[-1]

    def project(self, rng: np.random.Generator, rows: IntArray, times: int) -> tuple[FloatArray, FloatArray]:
        """So many random projections of some rows, (len(rows), times), and a bound on their errors, (len(rows),).

        The error of a sum of n products is at most about n eps sum|w||v|, and sum|w||v| <= |w| |v| (Cauchy-Schwarz).
        """
        values = rng.uniform(1.0, 2.0, (self.count + 1, times)) * rng.choice([-1.0, 1.0], (self.count + 1, times))
        values[-1] = 0.0  # label -1: null columns do not count
        vectors = values[self.labels]
        if self.factored:
            vectors *= np.array([float(w) for w in self.weights])[:, None]
        n, width = self.matrix.shape
        whole = rows.size == n
        out, squares = np.zeros((rows.size, times)), np.zeros(rows.size)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if self.by_column:
                step = max(1, _CHUNK // max(1, n))
                for start in range(0, width, step):
                    block = self.matrix.T[start : start + step]
                    block = _block64(block if whole else block[:, rows])
                    out += block.T @ vectors[start : start + step]
                    squares += np.einsum("ij,ij->j", block, block)
            else:
                step = max(1, _CHUNK // max(1, width))
                for start in range(0, rows.size, step):
                    at = slice(start, start + step)
                    block = _block64(self.matrix[at] if whole else self.matrix[rows[at]])
                    np.matmul(block, vectors, out=out[at])
                    np.einsum("ij,ij->i", block, block, out=squares[at])
            length = np.sqrt(np.einsum("ij,ij->j", vectors, vectors).max(initial=0.0))
            size = np.sqrt(squares) * length
        odd = np.flatnonzero(~((squares > 1e-250) & (squares < 1e250)))  # zero, or out of the range of squares
        span = np.abs(vectors).max(axis=1, initial=0.0)
        for start in range(0, odd.size, step := max(1, _CHUNK // max(1, width))):
            some = odd[start : start + step]
            size[some] = np.abs(_block64(self.matrix[rows[some]])) @ span
        return out, 4.0 * (width + 8) * np.finfo(np.float64).eps * size + 1e-300

    def matches(self, rows: IntArray, leaders: IntArray, factors: FloatArray) -> npt.NDArray[np.bool_]:
        """Which rows are the given power of two, with sign, times their leader, entry by entry; floats only."""
        unit = bool((np.abs(factors) == 1).all())
        turn = factors.astype(self.matrix.dtype) if unit else factors
        plain, out = bool((factors == 1).all()), np.ones(rows.size, dtype=bool)
        source = self.matrix.T if self.by_column else self.matrix
        axis = 0 if self.by_column else 1
        if not self.by_column and source.shape[1] > 32:  # most that differ do so early
            out = (source[rows, :4] == source[leaders, :4] * turn[:, None]).all(axis=1)
        at, start = np.flatnonzero(out), 0
        step = max(1, _CHUNK // max(1, at.size if self.by_column else source.shape[1]))
        while at.size and start < (len(source) if self.by_column else at.size):
            some = at if self.by_column else at[start : start + step]
            if self.by_column:
                block = source[start : start + step]
                left, right, factor = block[:, rows[some]], block[:, leaders[some]], turn[some]
            else:
                left, right, factor = source[rows[some]], source[leaders[some]], turn[some, None]
            same = (left == (right if plain else right * factor)).all(axis=axis)
            if not unit:
                same &= (left / factor == right).all(axis=axis)  # nothing was lost to underflow
            out[some[~same]] = False
            at = at[out[at]] if self.by_column else at
            start += step
        return out

    def exact(self, rows: IntArray) -> tuple[npt.NDArray[Any], Fraction]:
        """Class sums of the given rows as integers times one unit, (len(rows), count)."""
        if self.by_column or rows.size * self.matrix.shape[1] <= _BATCH:
            return self._exact(self.matrix[rows] if not self.by_column else self.matrix.T[:, rows].T)
        step = max(1, _BATCH // self.matrix.shape[1])
        blocks = [self._exact(self.matrix[rows[k : k + step]]) for k in range(0, rows.size, step)]
        unit = min(u for _, u in blocks)
        unit = unit if all((u / unit).denominator == 1 for _, u in blocks) else _common(u for _, u in blocks)
        return np.concatenate([_rescaled(ints, u, unit) for ints, u in blocks]), unit

    def _exact(self, chunk: ExactArray) -> tuple[npt.NDArray[Any], Fraction]:
        ints, unit = _integers(chunk)
        if self.count == self.labels.size and not self.factored:
            return ints[:, np.argsort(self.labels)], unit
        if not self.count:
            return np.zeros((len(chunk), 0), dtype=np.int64), unit
        live = np.flatnonzero(self.labels >= 0)
        order = live[np.argsort(self.labels[live], kind="stable")]
        starts = np.searchsorted(self.labels[order], np.arange(self.count))
        ints = ints[:, order]
        if self.factored:
            weights = self.weights[order]
            if all(abs(w) == 1 for w in weights):
                ints = ints * np.array([int(w) for w in weights], dtype=np.int64)
            else:
                share = math.lcm(*(w.denominator for w in weights))
                ints, unit = (
                    ints.astype(object) * np.array([int(w * share) for w in weights], dtype=object),
                    unit / share,
                )
        return np.add.reduceat(ints, starts, axis=1), unit


def _common(units: Iterable[Fraction]) -> Fraction:
    """The largest rational that divides all of some."""
    out = Fraction(0)
    for u in units:
        out = Fraction(
            math.gcd(out.numerator * u.denominator, u.numerator * out.denominator), out.denominator * u.denominator
        )
    return out


def _rescaled(ints: npt.NDArray[Any], unit: Fraction, new: Fraction) -> npt.NDArray[Any]:
    return ints if unit == new else ints.astype(object) * int(unit / new)


def _block64(chunk: ExactArray) -> FloatArray:
    if rationals.is_rational(chunk):
        return np.asarray(rationals.rounded(chunk, np.float64))
    return chunk.astype(np.float64, copy=False)


def _integers(array: ExactArray) -> tuple[npt.NDArray[Any], Fraction]:
    if rationals.is_rational(array):
        return rationals.integers(array)
    values = array.astype(np.float64, copy=False)
    top = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    if 1e-200 < top < 1e200:  # often all entries are multiples of one unit, and sums of a row fit 62 bits
        exponent = math.frexp(top)[1] + max(1, array.shape[-1]).bit_length() - 62
        scaled = values * 2.0**-exponent
        ints = scaled.astype(np.int64)
        if (ints == scaled).all() and (np.abs(scaled) < 2.0**62).all():
            return ints, Fraction(2) ** exponent
    ints, exponent = rationals.dyadic(array)
    return ints, Fraction(2) ** exponent


def partition(parts: Sequence[Part], rule: Multiples, old: IntArray, rng: np.random.Generator) -> Classes:
    """Group rows whose concatenated class sums agree up to `rule`, inside the old classes."""
    return in_order(*_split(parts, rule, np.arange(old.size), old, rng))


def refine(parts: Sequence[Part], rule: Multiples, old: Classes, rng: np.random.Generator) -> Classes:
    """`partition` inside the old classes, looking only at rows that are not alone already."""
    size = np.bincount(old.labels[old.labels >= 0], minlength=1)
    open_ = (old.labels < 0) | (size[old.labels] > 1)  # a null row may turn out not to be null
    rows = np.flatnonzero(open_)
    inner, own = _split(parts, rule, rows, old.labels[rows], rng)
    labels, factors = np.full(open_.size, -1, dtype=np.int64), np.full(open_.size, _ONE, dtype=object)
    labels[~open_] = np.arange(open_.size - rows.size)
    labels[rows] = np.where(inner >= 0, inner + open_.size - rows.size, -1)
    factors[rows] = own
    return in_order(labels, factors)


def _split(
    parts: Sequence[Part], rule: Multiples, rows: IntArray, old: IntArray, rng: np.random.Generator
) -> tuple[IntArray, ExactArray]:
    """Labels (-1: null) and factors of the given rows, whose old labels are given."""
    times = 2 if rule.scale else 1
    projected, error = np.zeros((rows.size, times)), np.zeros(rows.size)
    fixed = np.zeros((rows.size, times))  # the side whose sign counts even when the activation is even
    for part in parts:
        values, bound = part.project(rng, rows, times)
        if rule.even and not part.signed:
            fixed += values
        else:
            projected += values
        error += bound
    labels, factors = np.full(rows.size, -1, dtype=np.int64), np.full(rows.size, Fraction(0), dtype=object)
    chain = _chains(projected, fixed, error, rule, old, lambda at: _all_zero(parts, rows[at]))
    size = np.bincount(chain, minlength=1)
    alone = size[chain] == 1
    tiny = _length(projected, fixed) <= 4.0 * error
    alone &= ~tiny
    labels[alone], factors[alone] = np.arange(int(alone.sum())), _ONE
    fresh = int(alone.sum())
    at = np.flatnonzero(~alone)
    leader, turn = _copies(parts, rule, rows, at[np.argsort(chain[at], kind="stable")], chain, projected[:, 0])
    kinds = np.zeros(chain.max(initial=0) + 1, dtype=np.int64)
    first = at[leader[at] == at]
    np.add.at(kinds, chain[first], 1)
    plain = at[(kinds[chain[at]] == 1) & ~tiny[leader[at]]]
    _, numbers = np.unique(chain[plain], return_inverse=True)
    labels[plain], factors[plain] = numbers.reshape(-1) + fresh, _powers(turn[plain])
    fresh = int(labels.max(initial=-1)) + 1
    rest = first[labels[first] < 0]
    rest = rest[np.argsort(chain[rest], kind="stable")]
    for group in np.split(rest, np.flatnonzero(np.diff(chain[rest])) + 1) if rest.size else []:
        for members, multiples_of_first in _exact_groups(parts, rule, rows[group]):
            if multiples_of_first is None:
                continue  # null rows keep label -1, and so do their copies
            here = group[members]
            labels[here], factors[here] = fresh, multiples_of_first
            fresh += 1
    late = at[(labels[at] < 0) & (leader[at] != at)]
    late = late[labels[leader[late]] >= 0]
    labels[late], factors[late] = labels[leader[late]], factors[leader[late]] * _powers(turn[late])
    return labels, factors


def _powers(values: FloatArray) -> ExactArray:
    """Powers of two with signs as Fractions."""
    out = np.empty(values.size, dtype=object)
    out[:] = [_ONE if v == 1.0 else _MINUS if v == -1.0 else Fraction(v) for v in values.tolist()]
    return out


def _copies(
    parts: Sequence[Part], rule: Multiples, rows: IntArray, order: IntArray, chain: IntArray, shadow: FloatArray
) -> tuple[IntArray, FloatArray]:
    """For each candidate (in the order of the chains) one that it equals bit by bit up to a sign and a power of two.

    Such rows have class sums that do, whatever the classes, so that exact sums are needed for one of them only. Some
    may be missed: every row is compared with the first few kinds of its chain only.
    """
    leader, turn = np.arange(shadow.size), np.ones(shadow.size)
    if not order.size or any(rationals.is_rational(part.matrix) for part in parts):
        return leader, turn
    left = order
    for _ in range(_KINDS):
        if not left.size:
            break
        starts = np.concatenate([[True], np.diff(chain[left]) != 0])
        heads = left[starts][np.cumsum(starts) - 1]
        left, heads = left[~starts], heads[~starts]
        ratio = np.ones(left.size)
        if rule.scale or rule.sign:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                ratio = shadow[left] / shadow[heads]
            ratio = np.where(np.isfinite(ratio) & (ratio != 0), ratio, 1.0)
        power = np.ldexp(1.0, np.rint(np.log2(np.abs(ratio))).astype(np.int64).clip(-900, 900)) if rule.scale else 1.0
        factors = power * np.sign(ratio) if rule.sign else np.abs(power * np.ones(left.size))
        same = np.ones(left.size, dtype=bool)
        for part in parts:
            own = np.abs(factors) if rule.even and not part.signed else factors
            some = np.flatnonzero(same)
            same[some] = part.matches(rows[left[some]], rows[heads[some]], own[some])
        leader[left[same]], turn[left[same]] = heads[same], factors[same]
        left = left[~same]
    return leader, turn


def _all_zero(parts: Sequence[Part], rows: IntArray) -> bool:
    return not any(part.exact(rows)[0].any() for part in parts)


def in_order(labels: IntArray, factors: ExactArray) -> Classes:
    """Classes from any numbering of them: -1 for null neurons, else numbered by first member."""
    live, first = np.unique(labels, return_index=True)
    if live.size and live[0] < 0:
        live, first = live[1:], first[1:]
    rank = np.full(int(live.max(initial=0)) + 2, -1, dtype=np.int64)  # the last entry serves label -1
    rank[live[np.argsort(first)]] = np.arange(live.size)
    new = rank[labels]
    return Classes(new, factors)


def _length(projected: FloatArray, fixed: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", projected, projected) + np.einsum("ij,ij->i", fixed, fixed)))


def _chains(
    projected: FloatArray, fixed: FloatArray, error: FloatArray, rule: Multiples, old: IntArray,
    vanishes: Callable[[IntArray], bool],
) -> IntArray:  # fmt: skip
    """A number for each row such that rows with different numbers are certainly no multiples of each other.

    Rows are sorted by a key inside the old classes; a gap beyond the error bounds ends a chain. Rows that may be zero
    have chains of their own.
    """
    size, whole = np.sqrt(np.einsum("ij,ij->i", projected, projected)), _length(projected, fixed)
    tiny, period = whole <= 4.0 * error, 0.0
    groups = np.unique(old, return_inverse=True)[1].reshape(-1).astype(np.int64)
    if rule.scale:
        radius = np.where(tiny, 0.0, error / np.where(whole > 0, whole, 1.0)) * 4.0
        key, period = np.arctan2(projected[:, 1], projected[:, 0]), 2 * math.pi
        if rule.sign:
            key, period = np.mod(key, math.pi), math.pi
        if rule.even and fixed.any():  # the signed side's angle says nothing where that side is small
            key, period = np.arctan2(fixed[:, 0], np.hypot(size, fixed[:, 1])), 0.0
    else:
        key = np.abs(projected[:, 0]) + fixed[:, 0] * math.e if rule.sign else projected[:, 0] + fixed[:, 0]
        radius = error * 4.0
    whole_group = np.zeros(int(groups.max(initial=-1)) + 1, dtype=bool)
    if rule.scale:
        for group in np.unique(groups[tiny]):
            # no direction is known for a nonzero row this small: it may belong to any other
            whole_group[group] = not vanishes(np.flatnonzero(tiny & (groups == group)))
    apart_from_tiny = np.where(whole_group[groups], False, tiny)
    order = np.lexsort((key, apart_from_tiny, groups))
    sections = groups[order] * 2 + apart_from_tiny[order]
    joined = apart_from_tiny[order] | whole_group[groups[order]]
    gap = np.diff(key[order]) > radius[order][1:] + radius[order][:-1]
    new = (np.diff(sections) != 0) | (gap & ~joined[1:])
    numbers = np.concatenate([[0], np.cumsum(new)])[: order.size].astype(np.int64)
    if period and order.size:  # the ends of a circle meet
        starts = np.flatnonzero(np.concatenate([[True], np.diff(sections) != 0]))
        ends = np.concatenate([starts[1:], [order.size]]) - 1
        first, last = order[starts], order[ends]
        meet = key[first] + period - key[last] <= radius[first] + radius[last]
        rename = np.arange(int(numbers.max()) + 1)
        rename[numbers[ends[meet]]] = numbers[starts[meet]]
        numbers = rename[numbers]
    out = np.empty(order.size, dtype=np.int64)
    out[order] = numbers
    return out


def _exact_groups(parts: Sequence[Part], rule: Multiples, rows: IntArray) -> list[tuple[IntArray, ExactArray | None]]:
    """Split candidate rows into true classes: (positions, factors relative to the first), None for null rows."""
    blocks = [part.exact(rows) for part in parts]
    common = Fraction(1, math.lcm(1, *(unit.denominator for _, unit in blocks)))
    scaled = [ints if unit == common else ints.astype(object) * int(unit / common) for ints, unit in blocks]
    table: dict[Any, list[tuple[int, Fraction]]] = {}
    for k in range(len(rows)):
        signed = [v for part, block in zip(parts, scaled, strict=True) if part.signed for v in block[k].tolist()]
        other = [v for part, block in zip(parts, scaled, strict=True) if not part.signed for v in block[k].tolist()]
        key, factor = _canonical(signed, other, rule)
        table.setdefault(key, []).append((k, factor))
    out: list[tuple[IntArray, ExactArray | None]] = []
    for key, found in table.items():
        members = np.array([k for k, _ in found], dtype=np.int64)
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
