"""The activation patterns that a piecewise linear network realises on a domain, each with an exact interior point.

Small networks: all of them, by cutting polyhedra in floats and proving over Q that what was cut away has no interior.
Others: a search, which proves the patterns it finds but not that there are no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.domains import Box
from fiberscope.network import Network
from fiberscope.programs import Polyhedron, inner_point, strict_solution
from fiberscope.results import Stopwatch
from fiberscope.symmetries.patterns import activity, activity_in_time

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_INPUTS = 8
"""Largest number of free inputs for complete enumeration."""
_SCALES = (0.1, 1.0, 10.0, 1000.0)
_DRAWN = 512


@dataclass(frozen=True, eq=False)
class Regions:
    """Patterns found, one row each.

    Args:
        points: (P, n_0) exact inputs in the domain, inside their region; coordinates are 0 only where the domain is.
        pieces: for each hidden layer (P, n_l), the linear pieces' numbers.
        slopes: for each hidden layer (P, n_l).
        intercepts: for each hidden layer (P, n_l).
        complete: whether it is proved that no other pattern has an open region in the domain.
        open: whether the patterns stay the only ones as theta moves a little, as far as kinks that fill a region go.
        free: (n_0,) inputs that the domain does not fix.
        note: why the list may be incomplete, or what is degenerate.
    """

    points: Array
    pieces: tuple[npt.NDArray[np.int64], ...]
    slopes: tuple[FloatArray, ...]
    intercepts: tuple[FloatArray, ...]
    complete: bool
    open: bool
    free: npt.NDArray[np.bool_]
    note: str = ""

    @property
    def patterns(self) -> set[bytes]:
        """The patterns, to be compared."""
        return _rows(self.pieces)

    @property
    def count(self) -> int:
        """Number of patterns."""
        return len(self.points)


def realised_regions(
    net: Network, box: Box, *, bias: bool = True, seed: int = 0, clock: Stopwatch, most: int = 3000,
    beside: Network | None = None,
) -> Regions:  # fmt: skip
    """The activation patterns with an open region in the domain.

    Args:
        net: hidden activations piecewise linear.
        box: the domain; inputs with equal ends are fixed.
        bias: whether biases move; if not, a layer that reads only zeros stays at its kinks.
        seed: of the search.
        clock: ends the enumeration, after which what was found is completed by search.
        most: largest number of regions enumerated.
        beside: a network at parameters next to these; if its patterns are others, theta sits where kinks coincide, or
            where one touches the domain's edge, and `open` is False.

    Complexity: a few pivots and one exact check for each region and neuron.

    >>> from fiberscope.results import Budget
    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.0, -1.0]), ([[1.0, 1.0]], [0.0]))
    >>> found = realised_regions(net, Box.everywhere(1), clock=Budget().start())
    >>> sorted(found.slopes[0].tolist()), found.complete
    ([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], True)
    """
    free = np.asarray(box.lower < box.upper)
    found: list[Array] = []
    note = f"more than {_INPUTS} inputs"
    stays = True
    if free.sum() <= _INPUTS:
        search = _Enumeration(net, box, free, bias, clock, most)
        note = search.run()
        found, stays = search.points, search.open
    complete = not note
    if not complete:
        found = [*found, *_searched(net, box, np.random.default_rng(seed), clock)]
        note = f"patterns beyond those found may exist ({note})"
    points = _off_axes(net, _stacked(found, net.widths[0]), free, None if complete else clock)
    pattern, decided = activity_in_time(net, points, None if complete else clock)
    points = points[decided]
    inside = np.all([m.min(axis=1, initial=np.inf) > 0 for m in pattern.margins], axis=0)
    if complete:
        inside[:] = True  # the enumeration has checked them; what is left are kinks that fill a region
        note = "" if stays else "a kink fills a region of inputs: other patterns occur as soon as theta moves"
        if stays and beside is not None:
            around = realised_regions(beside, box, bias=bias, seed=seed, clock=clock, most=most)
            stays = around.complete and around.patterns == _rows(pattern.pieces)
            note = "" if stays else "kinks coincide or touch the domain's edge: other patterns occur as theta moves"
    table = np.concatenate(pattern.pieces, axis=1)[inside]
    kept = np.flatnonzero(inside)[np.unique(table, axis=0, return_index=True)[1]]
    slopes, intercepts = (tuple(part[kept] for part in parts) for parts in (pattern.slopes, pattern.intercepts))
    pieces = tuple(part[kept] for part in pattern.pieces)
    return Regions(points[kept], pieces, slopes, intercepts, complete, stays, free, note)


def nearby(net: Network, *, bias: bool = True, seed: int = 0) -> Network:
    """The network at parameters moved by about 2^-40 of their size, exactly.

    >>> net = Network.from_arrays(([[1.0]], [0.5]), ([[2.0]], [0.0]))
    >>> bool(abs(float(nearby(net).layers[0].weight[0, 0]) - 1.0) < 1e-11)
    True
    """
    rng = np.random.default_rng((seed, 11))
    parts: list[Array] = []
    for layer in net.layers:
        unit = Fraction(float(np.abs(layer.weight64).max(initial=0.0)) or 1.0) / 2**40
        for k, block in enumerate((layer.weight, layer.bias)):
            steps = rng.integers(-1000, 1001, block.size) * (1 if bias or k == 0 else 0)
            exact = rationals.fractions(rationals.exact_array(block)).reshape(-1)
            parts.append(np.array([q + int(n) * unit / 1000 for q, n in zip(exact, steps, strict=True)], dtype=object))
    return net.with_theta(np.concatenate(parts))


def _rows(pieces: Sequence[npt.NDArray[np.int64]]) -> set[bytes]:
    return {row.tobytes() for row in np.concatenate(pieces, axis=1).astype(np.int64)}


def _off_axes(net: Network, points: Array, free: npt.NDArray[np.bool_], clock: Stopwatch | None) -> Array:
    """The same regions by points without a zero coordinate: what is zero at a point is not zero in an open region."""
    zero = np.asarray(points == 0, dtype=bool) & free
    rows = np.flatnonzero(zero.any(axis=1))
    if not rows.size:
        return points
    pattern, decided = activity_in_time(net, points[rows], clock)
    rows, before = rows[decided], np.concatenate(pattern.pieces, axis=1)
    out = rationals.fractions(rationals.exact_array(points)).copy()
    left = np.arange(len(rows))
    for power in (10, 30, 60, 120, 240):
        step = Fraction(1, 2**power)
        moved = out[rows[left]].copy()
        moved[zero[rows[left]]] = step
        same = (np.concatenate(activity(net, moved).pieces, axis=1) == before[left]).all(axis=1)
        out[rows[left[same]]] = moved[same]
        left = left[~same]
        if not left.size:
            break
    return out


def _stacked(points: Sequence[Array], n: int) -> Array:
    if not points:
        return np.zeros((0, n))
    if any(rationals.is_rational(p) for p in points):
        return rationals.simplified(np.stack([rationals.fractions(p) for p in points]))
    return np.stack(points)


@dataclass(frozen=True, eq=False)
class _Cell:
    """A polyhedron on which the neurons decided so far keep their pieces.

    `rows` are its inequalities row . (x, 1) >= 0 over Q by label, `forms` (n_l, n + 1) the pre-activations of the
    current layer and `values` the outputs of its neurons so far as affine forms of the free inputs; `silent` says that
    the layer reads only zeros.
    """

    body: Polyhedron
    rows: tuple[Array, ...]
    forms: Array
    layer: int
    neuron: int
    knot: int
    values: tuple[Array, ...]
    silent: bool = False


class _Enumeration:
    """Depth-first enumeration of the regions."""

    def __init__(
        self, net: Network, box: Box, free: npt.NDArray[np.bool_], bias: bool, clock: Stopwatch, most: int
    ) -> None:
        self.net, self.box, self.free, self.bias, self.clock, self.most = net, box, free, bias, clock, most
        self.open = True
        self.index = np.flatnonzero(free)
        self.points: list[Array] = []

    def run(self) -> str:
        """Enumerate; "" if all regions were found, else why not."""
        stack = [self._start()]
        while stack:
            if self.clock.expired:
                return "the time was over"
            if len(self.points) >= self.most:
                return f"more than {self.most} regions"
            cell = stack.pop()
            if cell.layer == len(self.net.hidden):
                point = self._inside(cell)
                if point is None:
                    return "a region was too thin for floats"
                self.points.append(point)
                continue
            parts = self._split(cell)
            if parts is None:
                return "a cut was too close to call in floats"
            stack += parts
        return ""

    def _start(self) -> _Cell:
        lower, upper = self.box.lower[self.index], self.box.upper[self.index]
        n = len(self.index)
        ends: list[Array] = []
        labels: list[int] = []
        for i in range(n):
            for side, end in ((1, lower[i]), (-1, upper[i])):
                labels.append(len(ends))
                if np.isfinite(end):
                    row = np.array([Fraction(0)] * (n + 1), dtype=object)
                    row[i], row[n] = Fraction(side), -side * Fraction(float(end))
                    ends.append(row)
        body = Polyhedron.from_ends(lower, upper, labels)
        first = np.full((self.net.widths[0], n + 1), Fraction(0), dtype=object)
        first[self.index, np.arange(n)] = Fraction(1)
        for j in np.flatnonzero(~self.free):
            first[j, n] = Fraction(float(self.box.lower[j]))
        return _Cell(body, tuple(ends), self._forms(0, first), 0, 0, 0, ())

    def _forms(self, k: int, below: Array) -> Array:
        """Pre-activations of layer k as forms."""
        layer = self.net.layers[k]
        forms = rationals.fractions(rationals.matmul(layer.weight, below)).copy()
        forms[:, -1] += rationals.fractions(layer.bias)
        return forms

    def _split(self, cell: _Cell) -> list[_Cell] | None:
        """The cells on either side of the next kink."""
        pieces = self.net.layers[cell.layer].activation.pieces or ()
        knots = [p.hi for p in pieces[:-1]]
        if cell.knot == len(knots):
            return [self._decided(cell, len(knots))]
        row = cell.forms[cell.neuron].copy()
        row[-1] -= knots[cell.knot]
        scale = max((abs(v) for v in row[:-1]), default=Fraction(0))
        if not scale:
            if not row[-1] and (self.bias or not cell.silent):
                self.open = False
            return [self._decided(cell, cell.knot)] if row[-1] <= 0 else [replace(cell, knot=cell.knot + 1)]
        row = row / scale
        cut = cell.body.cut(np.array([float(v) for v in row]), len(cell.rows))
        if cut is None:
            return None
        out = []
        for part, sign in ((cut.below, -1), (cut.above, 1)):
            if part is None:
                hint = [cell.rows[i] for i in cut.support]
                if not _empty([*hint, sign * row]) and not _empty([*cell.rows, sign * row]):
                    return None
                continue
            rows = (*cell.rows, sign * row) if cut.below is not None and cut.above is not None else cell.rows
            if sign < 0:
                out.append(self._decided(replace(cell, body=part, rows=rows), cell.knot))
            else:
                out.append(replace(cell, body=part, rows=rows, knot=cell.knot + 1))
        return out

    def _decided(self, cell: _Cell, piece: int) -> _Cell:
        """The neuron runs on this piece; on to the next one."""
        layer = self.net.layers[cell.layer]
        chosen = (layer.activation.pieces or ())[piece]
        value = cell.forms[cell.neuron] * chosen.slope
        value[-1] += chosen.intercept
        values = (*cell.values, value)
        if cell.neuron + 1 < layer.n_out:
            return replace(cell, neuron=cell.neuron + 1, knot=0, values=values)
        k, outputs = cell.layer + 1, np.stack(values)
        forms = self._forms(k, outputs) if k < len(self.net.hidden) else cell.forms
        return replace(cell, layer=k, neuron=0, knot=0, values=(), forms=forms, silent=not outputs.any())

    def _inside(self, cell: _Cell) -> Array | None:
        """An input strictly inside, checked over Q."""
        n = len(self.index)
        free: Array = np.zeros(n)
        if n and cell.rows:
            table = np.stack(cell.rows)
            near = inner_point(table.astype(np.float64))
            if near is not None and self._strict(table, near):
                free = near
            else:
                exact, _ = strict_solution([_integral(row) for row in table], self.clock)
                if exact is None:
                    return None
                free = np.array(exact, dtype=object)
        out = np.array([Fraction(float(v)) if np.isfinite(v) else Fraction(0) for v in self.box.lower], dtype=object)
        out[self.index] = rationals.fractions(free)
        return rationals.simplified(out)

    def _strict(self, table: Array, point: FloatArray) -> bool:
        x = np.array([*(Fraction(float(v)) for v in point), Fraction(1)], dtype=object)
        return bool((table @ x > 0).all())


def _integral(row: Array) -> list[int]:
    unit = lcm(*(v.denominator for v in row))
    return [int(v * unit) for v in row]


def _empty(rows: list[Array]) -> bool:
    """Whether row . (x, 1) > 0 for all rows is proved impossible."""
    point, proof = strict_solution([_integral(row) for row in rows])
    return point is None and bool(proof)


# ---- search


def _searched(net: Network, box: Box, rng: np.random.Generator, clock: Stopwatch) -> list[Array]:
    """Inputs of several sizes, near the kinks of every neuron, and where neurons that seem to be dead are largest."""
    parts = [np.asarray(box.sample(_DRAWN, rng, scale=scale), np.float64) for scale in _SCALES]
    for layer in range(len(net.hidden)):
        start = np.concatenate(parts[: len(_SCALES) + layer])[-4 * _DRAWN :]
        values = net.preactivations(start)[layer]
        near = []
        for i in range(values.shape[1]):
            if clock.expired:
                break
            above, below = start[values[:, i] > 0], start[values[:, i] <= 0]
            if len(above) and len(below):
                near.append(_crossing(net, layer, i, above[:16], below[:16], box))
            else:
                start_ = start[np.argsort(np.abs(values[:, i]))[:8]]
                near.append(_climbed(net, layer, i, start_, 1.0 if not len(above) else -1.0, box, rng))
        parts.extend([np.concatenate(near)] if near else [])
    return list(np.concatenate(parts))


def _crossing(net: Network, layer: int, neuron: int, high: FloatArray, low: FloatArray, box: Box) -> FloatArray:
    """Points close to the neuron's kink on both sides, by bisection on segments."""
    m = min(len(high), len(low))
    high, low = high[:m], low[:m]
    for _ in range(40):
        middle = (high + low) / 2
        on = net.preactivations(middle)[layer][:, neuron] > 0
        high, low = np.where(on[:, None], middle, high), np.where(on[:, None], low, middle)
    gap = np.maximum(np.abs(high), 1.0) * 1e-6 * np.sign(high - low)
    return np.asarray(np.clip(np.concatenate([high + gap, low - gap]), box.lower, box.upper))


def _climbed(
    net: Network, layer: int, neuron: int, start: FloatArray, way: float, box: Box, rng: np.random.Generator
) -> FloatArray:
    """Random ascent of one pre-activation inside the box."""
    best = start.copy()
    height = way * net.preactivations(best)[layer][:, neuron]
    step = np.maximum(np.abs(best).max(axis=1, keepdims=True), 1.0)
    for _ in range(60):
        trial = np.clip(best + step * rng.standard_normal(best.shape), box.lower, box.upper)
        value = way * net.preactivations(trial)[layer][:, neuron]
        better = value > height
        best, height = np.where(better[:, None], trial, best), np.where(better, value, height)
        step = np.where(better[:, None], 1.5 * step, 0.8 * step)
    return np.asarray(best)
