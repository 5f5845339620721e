"""All pairs of neurons of a population, some rows of their Gram matrix at a time, and what rounding may hide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.training.architectures.architecture import Architecture, Array, Parameters, Population

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HEIGHT = 128
"""Rows of a Gram matrix that are held at a time."""
LOWER = np.tri(HEIGHT, dtype=bool)
"""Where a corner on the diagonal is not above it."""
_GROUP = 8
"""A contraction keeps one number for so many entries."""
_CONVERTED = 1 << 15
"""Entries that are converted to float64 at a time."""
_KEPT = 16
"""Pairs whose distance is computed exactly."""
_LARGEST_FLOOR = 1e-2
"""Rounding floors of low precisions stay below this: beyond it nothing would be different."""


def precision(dtype: np.dtype[Any]) -> float:
    """Distance of 1 from the next number; 2^-7 for bfloat16, float64's for numbers that are no floats."""
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(np.float64).eps)


def computable(values: Array) -> Array:
    """The same numbers in a dtype of matrix products: float32 for half precisions, float64 for rationals, integers."""
    if values.dtype in (np.float32, np.float64):
        return values
    if values.dtype == object:
        return rationals.nearest_floats(values)
    return values.astype(np.float32 if values.dtype.itemsize <= 2 and values.dtype.kind not in "iub" else np.float64)


@dataclass(frozen=True, eq=False)
class Neurons:
    """The entries of all neurons of a population, slot by slot.

    Args:
        population: which.
        parts: (count, entries of the neuron there) for every place, places that make the neuron first.
        incoming: how many of the parts those are.
        squares: (count,) squared lengths |u_i|^2.
        incoming_squares: (count,) the same of the incoming parts.
        doubled: whether some parameter is indexed by the population on two axes.
        eps: of the coarsest dtype of the parameters.
    """

    population: Population
    parts: tuple[Array, ...]
    incoming: int
    squares: FloatArray
    incoming_squares: FloatArray
    doubled: bool
    eps: float

    @classmethod
    def of(cls, architecture: Architecture, parameters: Parameters, population: str) -> Neurons | None:
        """Read them; None without any entry, or where a weight is not finite.

        Complexity: O(entries); parts whose axis is not the first of three or more are copied, no others.
        """
        rows: list[Array] = []
        incoming = 0
        for role in ("in", "out"):
            rows += [values for _, values in architecture.rows(parameters, population, role)]
            incoming = incoming or len(rows) if role == "in" else incoming
        if not rows:
            return None
        eps = max(precision(dtype) for dtype in {values.dtype for values in rows})
        parts = tuple(computable(values) for values in rows)
        squares, inner = _squares(parts, incoming)
        if squares.size and not 1e-20 < squares.max() < 1e30 and any(part.dtype == np.float32 for part in parts):
            parts = tuple(part.astype(np.float64) for part in parts)  # squares of such numbers are no float32
            squares, inner = _squares(parts, incoming)
        if not np.isfinite(squares).all():
            return None
        seen = [s for s, _, _ in architecture.places[population]]
        return cls(architecture.named[population], parts, incoming, squares, inner, len(set(seen)) < len(seen), eps)

    @property
    def count(self) -> int:
        """Number of neurons."""
        return len(self.squares)

    @property
    def size(self) -> int:
        """Number D of entries of one neuron."""
        return sum(part.shape[1] for part in self.parts)

    @cached_property
    def lengths(self) -> FloatArray:
        """(count,) lengths |u_i|."""
        return np.asarray(np.sqrt(self.squares))

    @cached_property
    def typical(self) -> float:
        """Median length of the neurons that are not 0; 0 if all are. Of an even number, root mean square of two."""
        live = np.sort(self.squares[self.squares > 0])
        half = live.size // 2
        return float(np.sqrt((live[half] + live[-1 - half]) / 2)) if live.size else 0.0

    @property
    def floor(self) -> float:
        """10 sqrt(D) eps: the relative difference of equal neurons that rounding explains (theory page, detection)."""
        return float(min(10.0 * self.size**0.5 * self.eps, _LARGEST_FLOOR))

    @cached_property
    def slack(self) -> float:
        """Number e with |computed u_i . u_j - u_i . u_j| <= e (|u_i|^2 + |u_j|^2) / 2, for the squares too.

        A dot product of n terms errs by at most gamma_n sum |a_k b_k| in any order (Higham, Accuracy, section 3.1).
        """
        eps = max(float(np.finfo(dtype).eps) for dtype in {part.dtype for part in self.parts})
        return 2.0 * (self.size + 2 * _GROUP + 8) * eps

    def contracted(self, rng: np.random.Generator) -> Neurons:
        """Shorter neurons P u with P P^T = 1, so that |P u_i - P u_j| <= |u_i - u_j|: sums of groups of signed entries.

        Groups share no entry, so the rows of P are orthonormal, and applying it costs one pass.
        """
        parts = tuple(_contracted(part, rng) for part in self.parts)
        squares, inner = _squares(parts, self.incoming)
        return replace(self, parts=parts, squares=squares, incoming_squares=inner)

    def differences(self, chosen: IntArray, signs: FloatArray, *, first: int = 0) -> Iterator[FloatArray]:
        """e_i u_i - e_0 u_0 for the chosen neurons from the given place on, in float64, a few entries at a time."""
        step = max(16, _CONVERTED // max(1, len(chosen)))
        for part in self.parts:
            for at in range(0, part.shape[1], step):
                block = part[chosen[first:], at : at + step].astype(np.float64) * signs[first:, None]
                yield block - signs[0] * part[chosen[0], at : at + step].astype(np.float64)


def _squares(parts: Sequence[Array], incoming: int) -> tuple[FloatArray, FloatArray]:
    """Squared lengths in all, and of the incoming parts."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rows = [_row_squares(part).astype(np.float64) for part in parts]
    inner = sum(rows[:incoming], np.zeros(len(parts[0])))
    return sum(rows[incoming:], inner), inner


def _row_squares(part: Array) -> Array:
    if part.flags.c_contiguous:
        return np.asarray(np.vecdot(part, part))
    return np.asarray(np.einsum("ij,ij->i", part, part))


def _contracted(part: Array, rng: np.random.Generator) -> Array:
    """Entries c, c + k, c + 2k, ... of a neuron, with random signs, added up and divided by sqrt(how many)."""
    width = part.shape[1]
    if width < 2 * _GROUP:
        return part
    kept = -(-width // _GROUP)
    signs = (2 * rng.integers(0, 2, width) - 1).astype(part.dtype)
    along = part.T if part.strides[0] < part.strides[1] else part
    out = np.zeros((kept, len(part)) if along is not part else (len(part), kept), part.dtype)
    groups = width // kept
    whole, rest = groups * kept, width - groups * kept
    table = signs[:whole].reshape(groups, kept)
    if along is part:
        np.einsum("ngk,gk->nk", part[:, :whole].reshape(len(part), groups, kept), table, out=out)
        out[:, :rest] += part[:, whole:] * signs[whole:]
    else:
        np.einsum("gkn,gk->kn", along[:whole].reshape(groups, kept, len(part)), table, out=out)
        out[:rest] += along[whole:] * signs[whole:, None]
    sizes = np.full(kept, groups, part.dtype)
    sizes[:rest] += 1
    rows = out if along is part else out.T
    rows /= np.sqrt(sizes)
    return rows


def gram_blocks(neurons: Neurons, height: int = HEIGHT) -> Iterator[tuple[int, Array, bool]]:
    """Rows of the Gram matrices, from the diagonal on: (first row i, products of i, i+1, ... with i, ..., n-1, whole).

    For every block of rows first the products of the incoming entries (whole = False), then those of all entries. The
    arrays are overwritten by the next step.

    Complexity: O(n^2 D) by matrix products, half of them by symmetry; memory 2 * height * n numbers.
    """
    dtype = np.result_type(*(part.dtype for part in neurons.parts))
    store = np.empty((2, height * neurons.count), dtype)
    for at in range(0, neurons.count, height):
        rows, columns = min(height, neurons.count - at), neurons.count - at
        total, extra = (flat[: rows * columns].reshape(rows, columns) for flat in store)
        total[:] = 0.0
        for k, part in enumerate(neurons.parts):
            if k == neurons.incoming:
                yield at, total, False
            _add_product(total, extra, part[at : at + height], part[at:], first=k in (0,))
        if neurons.incoming == len(neurons.parts):
            yield at, total, False
        yield at, total, True


def _add_product(total: Array, extra: Array, left: Array, right: Array, *, first: bool) -> None:
    target = total if first else extra
    if left.shape[1] == 1:  # a bias
        np.multiply(left, right.T, out=target)
    else:
        np.matmul(left, right.T, out=target)
    if not first:
        total += extra


class Forest:
    """Connected components of a graph whose edges arrive in batches.

    With signs the graph lives on pairs (node, sign): an edge of sign -1 joins (i, +) to (j, -), as in a double cover.

    >>> forest = Forest(3, signed=True)
    >>> forest.join(np.array([0]), np.array([2]), np.array([-1.0]))
    >>> forest.count(np.ones(3, bool)), forest.names().tolist()
    (2, [0, 1, 0])
    """

    def __init__(self, count: int, *, signed: bool = False) -> None:
        self.size = count
        self.signed = signed
        self.labels = np.arange(2 * count if signed else count)
        self._joined = False

    def join(self, a: IntArray, b: IntArray, signs: FloatArray | None = None) -> None:
        """Add edges between nodes a and b, both (m,); signs (m,) of +1 and -1 count in a signed forest only."""
        if not len(a):
            return
        self._joined = True
        if self.signed:
            shift = np.zeros(len(a), np.int64) if signs is None else np.where(signs < 0, self.size, 0)
            a, b = np.concatenate([a, a + self.size]), np.concatenate([b + shift, b + self.size - shift])
        while True:
            first, second = self.labels[a], self.labels[b]
            apart = first != second
            if not apart.any():
                return
            a, b, first, second = a[apart], b[apart], first[apart], second[apart]
            table = np.arange(len(self.labels))
            np.minimum.at(table, np.maximum(first, second), np.minimum(first, second))
            while (table[table] != table).any():
                table = table[table]
            self.labels = table[self.labels]

    def names(self) -> IntArray:
        """(size,) for every node a number that its component shares, signs forgotten."""
        return np.minimum(self.labels[: self.size], self.labels[self.size :]) if self.signed else self.labels

    def count(self, live: npt.NDArray[np.bool_]) -> int:
        """Components among the live nodes."""
        return len(np.unique(self.names()[live])) if self._joined else int(live.sum())

    def groups(self) -> list[tuple[IntArray, FloatArray]]:
        """Components of two and more nodes with the signs that align them; both signs where a component has both."""
        if not self._joined:
            return []
        names = self.names()
        order = np.argsort(names, kind="stable")
        cuts = np.flatnonzero(np.diff(names[order])) + 1
        out = []
        for members in np.split(order, cuts):
            if len(members) < 2:
                continue
            if not self.signed:
                out.append((members, np.ones(len(members))))
            elif self.labels[members[0]] == self.labels[members[0] + self.size]:
                out.append((np.tile(members, 2), np.repeat([1.0, -1.0], len(members))))
            else:
                out.append((members, np.where(self.labels[members] == names[members], 1.0, -1.0)))
        return out


class Shortlist:
    """The pairs with the smallest lower bounds of their squared distance, and a bound for all others."""

    def __init__(self) -> None:
        self.first = np.zeros(0, np.int64)
        self.second = np.zeros(0, np.int64)
        self.signs = np.zeros(0)
        self.low = np.zeros(0)
        self._dropped = np.inf

    @property
    def rest(self) -> float:
        """Lower bound of the squared distance of every pair that was offered and is not on the list."""
        return self._dropped

    def offer(self, low: Array, base: Array, minima: Array, at: int, products: Array | None) -> None:
        """A block of lower bounds low + base[:, None], inf where there is no pair; rows and columns begin at `at`.

        Args:
            low: (rows, columns).
            base: (rows,) what is added to each row.
            minima: (rows,) of the rows, base included.
            at: the neuron of the first row and column.
            products: of the neurons where signs count: the sign of a product is that of the nearer of u and -u.
        """
        limit = float(self.low[-1]) if len(self.low) == _KEPT else np.inf
        if len(minima) > _KEPT:  # so many pairs are below it, one in each row
            limit = min(limit, float(np.partition(minima, _KEPT)[_KEPT]))
        self.unlisted(limit)
        rows = np.flatnonzero(minima < limit)
        if not rows.size:
            return
        few = low[rows] + base[rows, None]
        k, column = np.nonzero(few < limit)
        found = few[k, column]
        if found.size > _KEPT:
            order = np.argpartition(found, _KEPT)[: _KEPT + 1]
            self.unlisted(float(found[order[_KEPT]]))
            k, column, found = k[order[:_KEPT]], column[order[:_KEPT]], found[order[:_KEPT]]
        signs = np.ones(len(k)) if products is None else np.where(products[rows[k], column] < 0, -1.0, 1.0)
        self.add(rows[k] + at, column + at, signs, found.astype(np.float64))

    def add(self, first: IntArray, second: IntArray, signs: FloatArray, low: FloatArray) -> None:
        """Pairs one by one, (m,) each."""
        low = np.concatenate([self.low, low])
        order = np.argsort(low, kind="stable")
        if len(order) > _KEPT:
            self._dropped = min(self._dropped, float(low[order[_KEPT]]))
        keep = order[:_KEPT]
        self.low = low[keep]
        self.first = np.concatenate([self.first, first])[keep]
        self.second = np.concatenate([self.second, second])[keep]
        self.signs = np.concatenate([self.signs, signs])[keep]

    def unlisted(self, low: float) -> None:
        """Some pairs are not offered; their squared distance is at least `low`."""
        self._dropped = min(self._dropped, low)
