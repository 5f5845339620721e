"""Activity patterns on data, decided exactly, and how far theta may move before one of them changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.activations.rows import below
from fiberscope.arguments import as_exact
from fiberscope.errors import InputError, ScopeError
from fiberscope.network import Layer, Network, require_network
from fiberscope.results import Result, Rigor, Stopwatch

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_EPS = float(np.finfo(np.float64).eps)
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Activity(Result):
    """On which linear piece each hidden neuron runs at each data point.

    Args:
        pieces: per hidden layer (N, n_l), the number of breakpoints below the pre-activation (ReLU: 1 active, 0 not).
        slopes: per hidden layer (N, n_l), s'(z), at a breakpoint the value on the left (relu'(0) = 0).
        intercepts: per hidden layer (N, n_l), s(z) - s'(z) z.
        margins: per hidden layer (N, n_l), a lower bound of the distance of z to the nearest breakpoint, 0 at one.
        reaches: per affine layer (N,), an upper bound of |h| for the input h of that layer (without the bias's 1).
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"slopes", "intercepts", "reaches"})

    pieces: tuple[IntArray, ...]
    slopes: tuple[FloatArray, ...]
    intercepts: tuple[FloatArray, ...]
    margins: tuple[FloatArray, ...]
    reaches: tuple[FloatArray, ...]

    def same_as(self, other: Activity) -> bool:
        """Whether two patterns on the same data agree everywhere."""
        pairs = zip(self.pieces, other.pieces, strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)

    def __str__(self) -> str:
        """Counts per hidden layer in one phrase."""
        rows = []
        for k, slope in enumerate(self.slopes):
            on = (slope != 0).mean(axis=0)
            live = int(((on > 0) & (on < 1)).sum())
            rows.append(f"layer {k + 1}: {int((on == 1).sum())} always on, {int((on == 0).sum())} off, {live} both")
        return f"activity on {len(self.reaches[0])} inputs; " + "; ".join(rows)


def activity(net: Network, data: npt.ArrayLike) -> Activity:
    """The activity pattern of a piecewise-linear network on data, every sign decided exactly.

    z_l = W_l h_(l-1) + b_l is enclosed in floats; points where that leaves a sign open are done again over Q.

    Args:
        net: hidden activations piecewise linear (ReLU, leaky ReLU, abs, clip, ...); the last layer's is not looked at.
        data: inputs, (N, n_0) or (n_0,), floats or rationals.

    Raises:
        ScopeError: if a hidden activation is not piecewise linear.
        InputError: if the data do not fit or are not finite.

    O(N parameters) float operations, rational ones only at points near a kink.

    >>> net = Network.from_arrays(([[1.0], [-1.0]], [0.0, 1.0]), ([[1.0, 1.0]], [0.0]))
    >>> pattern = activity(net, [[2.0], [0.25]])
    >>> pattern.pieces[0].tolist(), pattern.margins[0].round(6).tolist()
    ([[1, 0], [1, 1]], [[2.0, 1.0], [0.25, 0.75]])
    """
    return activity_in_time(net, data)[0]


def activity_in_time(
    net: Network, data: npt.ArrayLike, clock: Stopwatch | None = None
) -> tuple[Activity, npt.NDArray[np.int64]]:
    """The activity pattern on those of the data that a clock leaves time for, and which they are.

    Args:
        net: as in `activity`.
        data: inputs, (N, n_0) or (n_0,).
        clock: once it has expired, points that floats leave open are left out.

    Raises:
        ScopeError: if a hidden activation is not piecewise linear.
        InputError: if the data do not fit or are not finite.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    >>> activity_in_time(net, [[1.0], [0.0]])[1].tolist()
    [0, 1]
    """
    require_network(net)
    require_linear_pieces(net)
    points = as_points(net, data)
    layers, reaches, doubtful = _enclosed(net, points)
    for n in np.flatnonzero(doubtful):
        if clock is not None and clock.expired:
            break
        for (piece, margin), (own, gap) in zip(layers, _exactly(net, points[n]), strict=True):
            piece[n], margin[n] = own, gap
        doubtful[n] = False
    kept = np.flatnonzero(~doubtful)
    if kept.size < len(points):
        layers = [(piece[kept], margin[kept]) for piece, margin in layers]
        reaches = [reach[kept] for reach in reaches]
    slopes, intercepts = [], []
    for layer, (piece, _) in zip(net.hidden, layers, strict=True):
        rows = layer.activation.pieces or ()
        slopes.append(np.array([float(p.slope) for p in rows])[piece])
        intercepts.append(np.array([float(p.intercept) for p in rows])[piece])
    pieces, margins = tuple(v[0] for v in layers), tuple(v[1] for v in layers)
    return Activity(pieces, tuple(slopes), tuple(intercepts), margins, tuple(reaches)), kept


def require_linear_pieces(net: Network) -> None:
    """Refuse networks whose hidden activations are not all piecewise linear.

    Raises:
        ScopeError: the layer is named.
    """
    for layer in net.hidden:
        if layer.activation.pieces is None:
            raise ScopeError(
                f"{layer.name} has {layer.activation.label}; activity patterns need piecewise-linear activations"
            )


def as_points(net: Network, data: npt.ArrayLike) -> ExactArray:
    """Data as an exact array of shape (N, n_0).

    Raises:
        InputError: if they do not fit the network or are not finite.
    """
    points = np.atleast_2d(as_exact(data, "data"))
    if points.ndim != 2 or points.shape[1] != net.widths[0] or not len(points):
        raise InputError(f"data have shape {points.shape}; expected (N, {net.widths[0]}) with N >= 1")
    if not rationals.is_rational(points) and not np.isfinite(points).all():
        raise InputError("data hold NaN or infinite values; give finite inputs")
    return points


def _breakpoints(row: Activation) -> list[Fraction]:
    return [p.hi for p in row.pieces or () if p.hi is not None]


def _enclosed(
    net: Network, points: ExactArray
) -> tuple[list[tuple[IntArray, FloatArray]], list[FloatArray], npt.NDArray[np.bool_]]:
    """(piece, margin) per hidden layer, norms per affine layer, and the points where a sign is left open."""
    exact = not rationals.is_rational(points)
    middle = np.asarray(points.astype(np.float64) if exact else rationals.rounded(points, np.float64))
    radius = np.zeros(middle.shape) if exact else _EPS * np.abs(middle) + _TINY
    doubtful = np.zeros(len(points), dtype=bool)
    layers, reaches = [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for k, layer in enumerate(net.layers):
            reaches.append(_norm(np.abs(middle) + radius))
            if k == net.depth - 1:
                break
            z, error = _affine(layer, middle, radius)
            ends = _breakpoints(layer.activation)
            piece = np.zeros(z.shape, dtype=np.int64)
            margin = np.full(z.shape, math.inf)
            for end in ends:
                at = float(end)
                slack = error + 4 * _EPS * (np.abs(z) + abs(at)) + (_TINY if at else 0.0)
                gap = np.abs(z - at) - slack
                doubtful |= ~(gap > 0).all(axis=1)
                piece += z > at
                margin = np.minimum(margin, np.maximum(gap, 0.0))
            layers.append((piece, np.nan_to_num(margin * (1 - 4 * _EPS), posinf=math.inf)))
            low, high = layer.activation.enclose(z - error - _EPS * np.abs(z), z + error + _EPS * np.abs(z))
            middle = np.where(np.isfinite(low) & np.isfinite(high), low / 2 + high / 2, 0.0)
            radius = np.maximum(high - middle, middle - low) * (1 + 4 * _EPS) + np.where(high > low, _TINY, 0.0)
    return layers, reaches, doubtful


def _affine(layer: Layer, middle: FloatArray, radius: FloatArray) -> tuple[FloatArray, FloatArray]:
    """W h + b in floats and a bound of its distance to the exact values for |h - middle| <= radius, (N, n_out) each.

    Dot products of n terms err by at most n u sum |w||h| / (1 - n u) (Higham, section 3.1); rational weights by u |w|.
    """
    size = np.abs(layer.weight64).T
    z = middle @ layer.weight64.T + layer.bias64
    gamma = 4 * (layer.n_in + 4) * _EPS
    spread = radius @ size
    terms = np.abs(middle) @ size + np.abs(layer.bias64)
    tiny = _TINY * (1 + (np.abs(middle) + radius).sum(axis=1, keepdims=True))
    return z, np.asarray(spread * (1 + gamma) + gamma * terms + tiny)


def _exactly(net: Network, point: ExactArray) -> list[tuple[IntArray, FloatArray]]:
    """(piece, margin) of every hidden neuron at one point, over Q."""
    h = point
    out = []
    for layer in net.hidden:
        z = rationals.fractions(rationals.add(rationals.matmul(layer.weight, h), layer.bias))
        ends = _breakpoints(layer.activation)
        piece = np.array([sum(q > end for end in ends) for q in z], dtype=np.int64)
        gaps = [min((abs(q - end) for end in ends), default=None) for q in z]
        out.append((piece, np.array([math.inf if g is None else _down(g) for g in gaps])))
        rows = layer.activation.pieces or ()
        values = [rows[p].slope * q + rows[p].intercept for p, q in zip(piece, z, strict=True)]
        h = rationals.simplified(np.array(values, dtype=object))
    return out


def _down(q: Fraction) -> float:
    try:
        return max(below(q), 0.0)
    except OverflowError:
        return float(np.finfo(np.float64).max)


def _norm(rows: FloatArray) -> FloatArray:
    """Upper bound of the Euclidean norm along the last axis of nonnegative entries."""
    grow = 1 + 4 * (rows.shape[-1] + 8) * _EPS
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt((rows * rows).sum(axis=-1) * grow + _TINY) * grow)


@dataclass(frozen=True, eq=False)
class Radius(Result):
    """How far theta may move, in any direction, before an activity pattern on the data can change.

    Args:
        value: certified lower bound of the distance in the Euclidean norm of theta (0 where a neuron sits on a kink,
            inf where no activation has one).
        layer: hidden layer of the neuron that limits it (None if there is none).
        neuron: that neuron.
        point: the data point where it does.
        rigor: INTERVAL, rounded down.
    """

    value: float
    layer: int | None = None
    neuron: int | None = None
    point: int | None = None
    rigor: Rigor = Rigor.INTERVAL

    def __str__(self) -> str:
        """One line."""
        if self.layer is None:
            return f"no activity pattern can change within {self.value:g}"
        where = f"neuron {self.neuron} of layer {self.layer + 1} at input {self.point}"
        return f"the pattern is constant for |theta' - theta| <= {self.value:.6g} (limited by {where})"


def safe_radius(net: Network, data: npt.ArrayLike) -> Radius:
    """A radius r such that |theta' - theta| <= r leaves the activity pattern on the data as it is.

    Until the first sign changes every neuron stays on its piece, so |dz_li(x)| <= r g_li with
    g_1i^2 = 1 + |x|^2 and g_li^2 = |w_li D|^2 g_(l-1)^2 + 1 + (|h_(l-1)| + r |D| g_(l-1))^2 (Cauchy-Schwarz over the
    layers), D the slopes below at x and g_l the same with the operator norm of W_l D. The largest float r with
    r g_li(r) < margin_li for all l, i, x that bisection finds; for one hidden layer the exact distance, rounded down.

    Args:
        net: hidden activations piecewise linear.
        data: inputs, (N, n_0).

    Raises:
        ScopeError: if a hidden activation is not piecewise linear.
        InputError: if the data do not fit.

    O(60 N neurons + N parameters).

    >>> net = Network.from_arrays(([[1.0, 0.0]], [0.0]), ([[1.0]], [0.0]))
    >>> safe_radius(net, [[2.0, 2.0]]).value  # margin 2 over |(2, 2, 1)| = 3
    0.666...
    """
    return pattern_radius(net, activity(net, data))


def pattern_radius(net: Network, pattern: Activity) -> Radius:
    """`safe_radius` for a pattern that is already known."""
    steps = _steps(net, pattern, masked=True)
    least = min((float(m.min()) for m in pattern.margins), default=math.inf)
    if math.isinf(least):
        return Radius(least)

    def holds(r: FloatArray) -> npt.NDArray[np.bool_]:
        return np.array([all(_within(r, g, m).all() for g, m in _growths(steps, pattern, float(r[0])))])

    value = float(_bisect(holds, np.array([least]))[0])
    return Radius(value, *_tightest(steps, pattern, value))


def neuron_radii(net: Network, pattern: Activity, layer: int) -> FloatArray:
    """For each neuron of one hidden layer, a radius within which it keeps its own pattern, (n,).

    Other neurons may change theirs, so Lipschitz constants stand for their slopes; otherwise as `safe_radius`.
    """
    steps = _steps(net, pattern, masked=False)[: layer + 1]
    margins = pattern.margins[layer]

    def holds(r: FloatArray) -> npt.NDArray[np.bool_]:
        growth = np.zeros((len(margins), len(r)))
        for step in steps[:-1]:
            growth = step.growth(growth, r, step.norm[:, None])
        return np.asarray(_within(r, steps[-1].growth(growth, r, steps[-1].rows), margins).all(axis=0))

    return _bisect(holds, margins.min(axis=0))


@dataclass(frozen=True, eq=False)
class _Step:
    """One hidden layer at N points, D the slopes of the layer below there.

    `rows` (N, n) bounds the norms of the rows of W D, `norm` (N,) its operator norm, `slope` (N, 1) the largest entry
    of D and `reach` (N, 1) the norm of the layer's input.
    """

    rows: FloatArray
    norm: FloatArray
    slope: FloatArray
    reach: FloatArray

    def growth(self, under: FloatArray, r: FloatArray | float, norm: FloatArray) -> FloatArray:
        """G with |dz| <= r g, from the g of the layer below and a norm of W D; rounded up."""
        with np.errstate(over="ignore", invalid="ignore"):
            moved = self.reach + r * self.slope * under
            return np.asarray(np.sqrt((norm * under) ** 2 + 1 + moved * moved) * (1 + 16 * _EPS))


def _steps(net: Network, pattern: Activity, *, masked: bool) -> list[_Step]:
    count = len(pattern.reaches[0])
    slopes = np.ones((count, net.widths[0]))
    out = []
    for k, layer in enumerate(net.hidden):
        size = np.abs(layer.weight64) + (_TINY if layer.rational else 0.0)
        grow = 1 + 4 * (layer.n_in + 8) * _EPS  # covers the rounding of rational weights too
        with np.errstate(over="ignore"):
            rows = np.sqrt(((slopes * slopes) @ (size * size).T) * grow + _TINY) * grow
        slope = slopes.max(axis=1)
        norm = np.fmin(_operator(layer, size) * slope * (1 + 4 * _EPS), _norm(rows))
        out.append(_Step(rows, norm, slope[:, None], pattern.reaches[k][:, None]))
        own = max(abs(float(p.slope)) for p in layer.activation.pieces or ())
        slopes = np.abs(pattern.slopes[k]) if masked else np.full((count, layer.n_out), own)
        slopes = slopes * (1 + 2 * _EPS)
    return out


def _operator(layer: Layer, size: FloatArray) -> float:
    """Upper bound of the spectral norm of W: |W|_2^2 <= |W W^T|_F, and <= |W|_1 |W|_inf."""
    weight = layer.weight64
    narrow = weight if weight.shape[0] <= weight.shape[1] else weight.T
    grow = 1 + 8 * (max(weight.shape) + 8) * _EPS
    with np.errstate(over="ignore", invalid="ignore"):
        total = float((size * size).sum()) * grow + _TINY
        gram = float(np.sqrt(((narrow @ narrow.T) ** 2).sum())) * grow + (grow - 1) * total + _TINY
        corners = float(size.sum(axis=0).max() * size.sum(axis=1).max()) * grow + _TINY
    return float(np.sqrt(np.nanmin([gram, corners, total])) * grow)


def _within(r: FloatArray | float, growth: FloatArray, margins: FloatArray) -> npt.NDArray[np.bool_]:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((r * growth * (1 + 4 * _EPS) < margins) | np.isinf(margins))


def _growths(steps: Sequence[_Step], pattern: Activity, r: float) -> list[tuple[FloatArray, FloatArray]]:
    growth = np.zeros((len(pattern.reaches[0]), 1))
    out = []
    for step, margins in zip(steps, pattern.margins, strict=True):
        out.append((step.growth(growth, r, step.rows), margins))
        growth = step.growth(growth, r, step.norm[:, None])
    return out


def _tightest(steps: Sequence[_Step], pattern: Activity, r: float) -> tuple[int, int, int]:
    best = math.inf, (0, 0, 0)
    for k, (growth, margins) in enumerate(_growths(steps, pattern, r)):
        with np.errstate(over="ignore", invalid="ignore"):
            room = np.where(np.isinf(margins), math.inf, np.nan_to_num(margins / growth))
        n, i = (int(v) for v in np.unravel_index(int(room.argmin()), room.shape))
        best = min(best, (float(room[n, i]), (k, i, n)))
    return best[1]


def _bisect(holds: Callable[[FloatArray], npt.NDArray[np.bool_]], high: FloatArray) -> FloatArray:
    """The largest r < high for which a monotone condition was seen to hold, entry by entry; 0 if never, inf stays."""
    free = np.isinf(high)
    low, top = np.zeros_like(high), np.where(free, 0.0, high)
    for _ in range(200):
        # by factors until the first success, then by halves
        middle = np.where(low == 0.0, top * 1e-2, low / 2 + top / 2)
        good = holds(middle) & (middle > low)
        low, top = np.where(good, middle, low), np.where(good, top, middle)
        if (top - low <= 1e-12 * top).all():
            break
    return np.where(free, math.inf, low)
