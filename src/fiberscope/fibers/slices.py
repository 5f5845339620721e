"""Kinks of a piecewise-linear network in a two-dimensional slice of its inputs: line pieces for drawings, in floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.arguments import as_generator
from fiberscope.errors import InputError, ScopeError
from fiberscope.network import Network
from fiberscope.results import Result

if TYPE_CHECKING:
    from fiberscope.fibers.members import Fiber

FloatArray = npt.NDArray[np.float64]

_TOLERANCE = 1e-11
"""Values this close to a kink, relative to the largest around, lie on it."""
_JUMP = 1e-9
"""Smaller jumps of the slope, relative to the largest slope around, are rounding."""
_SCALES = (0.25, 1.0, 4.0, 16.0)
_PAIRS = 1 << 22
_WORK = 10**9
"""Parameters times pieces that are looked at, about; of more pieces some stand for their neighbours."""


@dataclass(frozen=True)
class Segment:
    """A piece of the line on which one neuron bends, in coordinates (s, t) of the slice.

    Args:
        layer, neuron: whose bend it is; layer 0 is the first hidden one.
        start, end: its ends.
        shows: whether the network's outputs bend there too.
    """

    layer: int
    neuron: int
    start: tuple[float, float]
    end: tuple[float, float]
    shows: bool


@dataclass(frozen=True)
class Slice(Result):
    """The kinks of a network on x = origin + s u + t v with |s|, |t| <= radius; for drawing, no proof.

    Args:
        origin, u, v: (n,) each; v is zero for networks of one input.
        radius: half the side of the square.
        segments: the pieces, layer by layer.
        layers: number of layers whose kinks are all there.
        complete: whether these are all layers; a layer after too many regions is left out.
    """

    origin: tuple[float, ...]
    u: tuple[float, ...]
    v: tuple[float, ...]
    radius: float
    segments: tuple[Segment, ...]
    layers: int
    complete: bool

    @property
    def shown(self) -> frozenset[tuple[int, int]]:
        """(layer, neuron) of all that bend the outputs somewhere in the slice."""
        return frozenset((s.layer, s.neuron) for s in self.segments if s.shows)

    def __str__(self) -> str:
        """One line."""
        drawn = {(s.layer, s.neuron) for s in self.segments}
        return f"{len(drawn)} neurons bend in this slice, {len(self.shown)} of them bend the outputs"


class _Plane(NamedTuple):
    origin: FloatArray
    u: FloatArray
    v: FloatArray
    radius: float


class _Region(NamedTuple):
    """A convex polygon, corners in order, on which the inputs of a layer are matrix @ (s, t) + offset."""

    corners: FloatArray
    matrix: FloatArray
    offset: FloatArray


class _Line(NamedTuple):
    layer: int
    neuron: int
    start: FloatArray
    end: FloatArray


def kinks_in_slice(
    net: Network, origin: npt.ArrayLike | None = None, u: npt.ArrayLike | None = None, v: npt.ArrayLike | None = None,
    radius: float | None = None, *, seed: int = 0, cells: int = 4000,
) -> Slice:  # fmt: skip
    """The lines of a slice of input space along which neurons bend, and on which pieces the outputs bend too.

    Within a linear region of the layers below, neuron i bends on the line w_i (A p + a) + b_i = t for each breakpoint
    t of its activation; that line is clipped to the region. A piece shows if the derivative of the outputs across it
    jumps.

    Args:
        net: a network of piecewise-linear activations.
        origin: (n,), the middle of the slice x = origin + s u + t v; without it one that shows many neurons.
        u: (n,), its first direction.
        v: (n,), its second direction.
        radius: |s|, |t| <= radius.
        seed: of the slice that is chosen.
        cells: most regions that are followed; layers after that are left out (`complete` is False).

    Raises:
        ScopeError: if an activation is not piecewise linear.
        InputError: if only some of origin, u, v and radius are given, or they do not fit.

    Complexity: O(regions (cuts + parameters)) for the lines, quadratic in their number for what shows.
    Source: theory of bent hyperplane arrangements (Rolnick and Kording 2020, arXiv 1910.00744).

    >>> net = Network.from_arrays(([[1.0, 0.0]], [0.0]), ([[1.0]], [-0.5]), ([[1.0]], [0.0]), activation="relu")
    >>> found = kinks_in_slice(net, [0, 0], [1, 0], [0, 1], 1.0)
    >>> [(p.layer, p.start, p.end, p.shows) for p in found.segments]
    [(0, (0.0, -1.0), (0.0, 1.0), False), (1, (0.5, -1.0), (0.5, 1.0), True)]
    """
    for k, layer in enumerate(net.layers):
        if not layer.activation.pieces:
            raise ScopeError(f"layer {k + 1} has {layer.activation.label}; slices need piecewise-linear activations")
    given = [value is not None for value in (origin, u, v, radius)]
    if not any(given):
        return _best(net, seed, cells)
    if origin is None or u is None or v is None or radius is None:
        raise InputError("a slice needs origin, u, v and radius, or none of them")
    places = [np.asarray(value, dtype=np.float64) for value in (origin, u, v)]
    if any(p.shape != (net.widths[0],) or not np.isfinite(p).all() for p in places) or not 0 < radius < np.inf:
        raise InputError(
            f"a slice of {net.widths[0]} inputs needs three finite vectors of that length and a radius > 0; got shapes "
            f"{', '.join(str(p.shape) for p in places)} and {radius}"
        )
    return _cut(net, _Plane(places[0], places[1], places[2], float(radius)), cells)


def sampled_walk(found: Fiber, cut: Slice | None, members: int = 4, *, seed: int = 0) -> list[dict[str, Any]]:
    """Random members of a fiber as data for its page: their moves, how far they went, their kinks in the same slice.

    Args:
        found: the fiber.
        cut: a slice of its network; None leaves the kinks out.
        members: how many.
        seed: of the walks.

    Returns:
        for each member "moves" (their names), "moved" (the largest change of a parameter, a float) and "slice".

    Complexity: that of `Fiber.sample` and of one slice each.

    >>> from fiberscope.fibers.members import fiber
    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> [sorted(row) for row in sampled_walk(fiber(net), None, 1)]
    [['moved', 'moves', 'slice']]
    """
    out = []
    for member in found.sample(members, seed):
        far = max(
            (abs(float(a - b)) for a, b in zip(member.network.theta, found.network.theta, strict=True)), default=0.0
        )
        own = None if cut is None else kinks_in_slice(member.network, cut.origin, cut.u, cut.v, cut.radius, cells=1000)
        moves = [str(move["move"]) for move in member.moves]
        out.append({"moves": moves, "moved": far, "slice": None if own is None else own.to_dict()})
    return out


def _cut(net: Network, plane: _Plane, cells: int) -> Slice:
    lines, layers = _lines(net, plane, cells)
    segments = tuple(_shown(net, plane, lines))
    kinked = [k for k, layer in enumerate(net.layers) if _knots(layer.activation).size]
    complete = all(k < layers for k in kinked)
    return Slice(
        tuple(plane.origin.tolist()), tuple(plane.u.tolist()), tuple(plane.v.tolist()), plane.radius, segments,
        min(layers, len(net.layers)), complete,
    )  # fmt: skip


def _knots(row: Activation) -> FloatArray:
    return np.array([float(p.hi) for p in row.pieces or () if p.hi is not None])


# ---- a slice worth looking at


def _best(net: Network, seed: int, cells: int) -> Slice:
    """Of a few slices near the kinks of the first layer the one in which most neurons bend the outputs."""
    few = min(cells, 300)
    found = [_cut(net, plane, few) for plane in _planes(net, as_generator(seed))]
    best = max(found, key=lambda cut: (len(cut.shown), -cut.radius))
    if best.complete or few == cells:
        return best
    return _cut(net, _Plane(np.array(best.origin), np.array(best.u), np.array(best.v), best.radius), cells)


def _planes(net: Network, rng: np.random.Generator) -> Iterator[_Plane]:
    weight, bias = net.layers[0].weight64, net.layers[0].bias64
    sizes = np.linalg.norm(weight, axis=1)
    live = sizes > 0
    rows, offsets = weight[live] / sizes[live, None], bias[live] / sizes[live]
    n = net.widths[0]
    if not live.any():
        rows, offsets = np.eye(n)[:1], np.zeros(1)
    unit = 1.0 + float(np.median(np.abs(offsets)))
    inverse = np.linalg.pinv(rows)
    for scale in _SCALES:
        size = scale * unit
        if n <= 2:
            frame = np.eye(n, 2) if n == 1 else np.eye(2)
            yield _Plane(inverse @ -offsets, frame[:, 0].copy(), frame[:, 1].copy(), size)
            continue
        for _ in range(3 if weight.size < 20_000 else 1):
            beside = inverse @ (rng.standard_normal(len(rows)) * size / 3 - offsets)
            mixed = rows.T @ rng.standard_normal((len(rows), 2))
            if len(rows) < 2:
                mixed[:, 1] = rng.standard_normal(n)
            frame = np.linalg.qr(mixed)[0]
            yield _Plane(beside, frame[:, 0].copy(), frame[:, 1].copy(), size)


# ---- lines


def _lines(net: Network, plane: _Plane, cells: int) -> tuple[list[_Line], int]:
    """Where the neurons of each layer bend, and the number of layers that were finished."""
    r = plane.radius
    square = np.array([[-r, -r], [r, -r], [r, r], [-r, r]])
    regions = [_Region(square, np.column_stack([plane.u, plane.v]), plane.origin)]
    out: list[_Line] = []
    last = max((k for k, layer in enumerate(net.layers) if _knots(layer.activation).size), default=-1)
    for k, layer in enumerate(net.layers[: last + 1]):
        after: list[_Region] = []
        for region in regions:
            matrix, offset = layer.weight64 @ region.matrix, layer.weight64 @ region.offset + layer.bias64
            cuts = list(_cuts(region.corners, matrix, offset, _knots(layer.activation)))
            out += [_Line(k, i, *_clipped(region.corners, matrix[i], offset[i] - t)) for i, t in cuts]
            if k == last or len(after) > cells:
                continue
            parts = [region.corners]
            for i, t in cuts:
                parts = [p for part in parts for p in _halves(part, matrix[i], offset[i] - t)]
                if len(parts) + len(after) > cells:
                    break
            after += [_above(part, matrix, offset, layer.activation) for part in parts]
        if k < last and len(after) > cells:
            return out, k + 1
        regions = after
    return out, len(net.layers)


def _cuts(
    corners: FloatArray, matrix: FloatArray, offset: FloatArray, knots: FloatArray
) -> Iterator[tuple[int, float]]:
    """(neuron, breakpoint) of the lines that meet the polygon's interior."""
    values = corners @ matrix.T + offset
    slack = _TOLERANCE * (np.abs(corners).max() * np.abs(matrix).sum(axis=1) + np.abs(offset))
    low, high = values.min(axis=0), values.max(axis=0)
    for t in knots.tolist():
        for i in np.flatnonzero((low < t - slack) & (high > t + slack)).tolist():
            yield i, t


def _values(corners: FloatArray, row: FloatArray, offset: float) -> FloatArray:
    """The form at the corners, 0 where it is only rounding."""
    slack = _TOLERANCE * (float(np.abs(corners).max()) * float(np.abs(row).sum()) + abs(offset))
    here = corners @ row + offset
    here[np.abs(here) <= slack] = 0.0
    return here


def _clipped(corners: FloatArray, row: FloatArray, offset: float) -> tuple[FloatArray, FloatArray]:
    """The two ends of the line row . p + offset = 0 in a polygon that it cuts."""
    found = np.array([p for p, kept in _walk(corners, _values(corners, row, offset)) if kept == 0])
    along = found @ np.array([-row[1], row[0]])
    first, second = found[int(np.argmin(along))], found[int(np.argmax(along))]
    return (first, second) if tuple(first) <= tuple(second) else (second, first)


def _walk(corners: FloatArray, values: FloatArray) -> Iterator[tuple[tuple[float, float], int]]:
    """Corners and crossings in order, each with the side on which it lies: 1, -1, or 0 on the line."""
    points, here = corners.tolist(), values.tolist()
    for n, (p, a) in enumerate(zip(points, here, strict=True)):
        yield (p[0], p[1]), (a > 0) - (a < 0)
        q, b = points[(n + 1) % len(points)], here[(n + 1) % len(points)]
        if a * b < 0:
            share = a / (a - b)
            yield (p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])), 0


def _halves(corners: FloatArray, row: FloatArray, offset: float) -> list[FloatArray]:
    """The polygon cut by a line: one or two polygons."""
    values = _values(corners, row, offset)
    if values.min() >= 0 or values.max() <= 0:
        return [corners]
    walk = list(_walk(corners, values))
    return [np.array([p for p, kept in walk if kept != -side]) for side in (1, -1)]


def _above(corners: FloatArray, matrix: FloatArray, offset: FloatArray, row: Activation) -> _Region:
    """The region with the layer's outputs, which are affine on it."""
    pieces = row.pieces or ()
    middle = corners.mean(axis=0)
    which = np.searchsorted(_knots(row), matrix @ middle + offset)
    slopes = np.array([float(p.slope) for p in pieces])[which]
    starts = np.array([float(p.intercept) for p in pieces])[which]
    return _Region(corners, slopes[:, None] * matrix, slopes * offset + starts)


# ---- what shows


def _shown(net: Network, plane: _Plane, lines: list[_Line]) -> Iterator[Segment]:
    """Each line cut where it crosses others, its pieces put together again where the outputs do the same."""
    if not lines:
        return
    starts, ends = np.array([line.start for line in lines]), np.array([line.end for line in lines])
    most = max(1, _WORK // (net.parameter_count * len(lines)))
    stops = [_stops(starts, ends, k, most) for k in range(len(lines))]
    owner = np.repeat(np.arange(len(lines)), [len(s) - 1 for s in stops])
    low, high = (np.concatenate([s[a:b] for s in stops]) for a, b in ((0, -1), (1, None)))
    middle = starts[owner] + ((low + high) / 2)[:, None] * (ends - starts)[owner]
    across = np.roll(ends - starts, 1, axis=1) * [-1.0, 1.0]
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    jumps = _jumps(net, plane, middle, across[owner])
    for k, line in enumerate(lines):
        mine = np.flatnonzero(owner == k)
        begin = 0
        for n in range(1, len(mine) + 1):
            if n < len(mine) and jumps[mine[n]] == jumps[mine[begin]]:
                continue
            a, b = low[mine[begin]], high[mine[n - 1]]
            p, q = (tuple((starts[k] + x * (ends[k] - starts[k]) + 0.0).tolist()) for x in (a, b))
            yield Segment(line.layer, line.neuron, (p[0], p[1]), (q[0], q[1]), bool(jumps[mine[begin]]))
            begin = n


def _stops(starts: FloatArray, ends: FloatArray, k: int, most: int) -> FloatArray:
    """Shares of segment k at which others cross it, with 0 and 1; of very many some."""
    d, other = ends[k] - starts[k], ends - starts
    gap = starts - starts[k]
    cross = d[0] * other[:, 1] - d[1] * other[:, 0]
    flat = np.abs(cross) <= _TOLERANCE * np.hypot(*d) * np.hypot(other[:, 0], other[:, 1])
    safe = np.where(flat, 1.0, cross)
    here = (gap[:, 0] * other[:, 1] - gap[:, 1] * other[:, 0]) / safe
    there = (gap[:, 0] * d[1] - gap[:, 1] * d[0]) / safe
    hit = ~flat & (here > 1e-9) & (here < 1 - 1e-9) & (there > -1e-9) & (there < 1 + 1e-9)
    inner = np.unique(np.round(here[hit], 12))
    return np.concatenate([[0.0], inner[:: 1 + len(inner) // most], [1.0]])


def _jumps(net: Network, plane: _Plane, points: FloatArray, across: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether the derivative of the outputs in the direction `across` jumps at each point (s, t)."""
    frame = np.column_stack([plane.u, plane.v])
    out = []
    for batch in np.array_split(np.arange(len(points)), 1 + len(points) * max(net.widths) // _PAIRS):
        slopes = [
            _derivative(net, plane.origin + (points[batch] + side * across[batch]) @ frame.T, across[batch] @ frame.T)
            for side in (1e-7 * plane.radius, -1e-7 * plane.radius)
        ]
        out.append((np.abs(slopes[0] - slopes[1]), np.abs(slopes[0]) + np.abs(slopes[1])))
    gap, size = (np.concatenate([pair[k] for pair in out]) for k in (0, 1))
    return np.asarray((gap > _JUMP * size.max(axis=0)).any(axis=1), dtype=bool)


def _derivative(net: Network, x: FloatArray, direction: FloatArray) -> FloatArray:
    """Directional derivatives of the logits at points off the kinks, (points, n_out)."""
    y, dy = x, direction
    for layer in net.layers:
        z, dz = y @ layer.weight64.T + layer.bias64, dy @ layer.weight64.T
        y, dy = layer.activation.function(z), layer.activation.derivative(z) * dz
    return np.asarray(dy, dtype=np.float64)
