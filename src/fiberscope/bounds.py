"""Certified enclosures of a network over a box: intervals, and linear relaxations substituted back to the input.

All sums are float64 with the a-priori error of a dot product of n terms, gamma_n sum |w||y| (Higham, Accuracy and
Stability, section 3.1), added outward and multiplied by a slack of 4, so that a checker with a smaller slack confirms
every claim made here. Products that underflow are paid for separately, and what overflows becomes infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.network import Layer, Network, affine_enclosure
from fiberscope.results import Result, Rigor

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Slopes = Mapping[int, Mapping[int, Mapping[str, FloatArray]]]
"""layer -> neuron -> "lower" | "upper" -> a number in [0, 1] for every earlier hidden neuron."""
Method = Literal["interval", "backward"]

_EPS = float(np.finfo(np.float64).eps)
_SLACK = 4.0
_TINY = 1e-300
"""More than all underflows of one dot product together."""
_FAINT = 1e-307
"""More than one underflow: of a product, or of a rational weight beneath the normal range."""


@dataclass(frozen=True, eq=False)
class Bounds(Result):
    """Enclosures of all pre-activations: lower[l] <= z_(l+1) <= upper[l] on the box. INTERVAL.

    Args:
        lower, upper: one (n_l,) array for each affine layer.
        box: where they hold.
        method: how they were obtained.
        slopes: extra slopes that were used for single neurons.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"slopes"})

    lower: tuple[FloatArray, ...]
    upper: tuple[FloatArray, ...]
    box: Box
    method: Method
    slopes: Slopes | None = None
    rigor: Rigor = Rigor.INTERVAL
    theorems: tuple[str, ...] = ("interval-enclosure",)

    def certificate_slopes(self) -> dict[str, Any]:
        """The slopes as a certificate stores them."""
        return {
            str(layer): {str(i): {side: values.tolist() for side, values in sides.items()} for i, sides in rows.items()}
            for layer, rows in (self.slopes or {}).items()
        }


def preactivation_bounds(
    net: Network, box: Box, *, method: Method = "backward", slopes: Slopes | None = None
) -> Bounds:
    """Certified enclosures of every pre-activation over a box.

    "interval" propagates intervals. "backward" also replaces every unstable ReLU by a chord above and a ray alpha z
    below (alpha = 1 if upper > -lower else 0), substitutes the linear forms back, layer by layer down to the input, and
    takes the tightest end on the way; other activations enter as constants. Any alpha in [0, 1] is sound, so `slopes`
    may come from a float solver.

    Args:
        net: the network.
        box: domain of the inputs, possibly unbounded (then "backward" is as good as "interval").
        method: see above.
        slopes: extra alphas for single neurons (see `Slopes`).

    Raises:
        InputError: if the box or the slopes do not fit the network.

    Complexity: O(parameters) for intervals, O(depth^2 * largest width^3) matrix products backward.
    Source: DeepPoly/CROWN bounds (Zhang et al., arXiv 1811.00866) with outward rounding.

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[1.0, -1.0]], [0]), activation="relu")
    >>> bounds = preactivation_bounds(net, Box.parse("[1,2]", 1))
    >>> bool(abs(bounds.upper[1][0]) < 1e-12)
    True
    """
    if box.dimension != net.widths[0]:
        raise InputError(f"domain has {box.dimension} inputs; the network takes {net.widths[0]}")
    shares = {k: _checked(net, k, rows) for k, rows in (slopes or {}).items()}
    if method == "interval" or not box.bounded:
        pairs = _intervals(net, box)
        return Bounds(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), box, method)
    work = _Backward(net, box)
    with np.errstate(all="ignore"):
        for k in range(net.depth):
            work.next(shares.get(k, {}))
    return Bounds(tuple(work.lower), tuple(work.upper), box, "backward", slopes)


def _checked(net: Network, k: int, rows: Mapping[int, Mapping[str, FloatArray]]) -> dict[int, dict[str, FloatArray]]:
    """The slopes of one layer as arrays, or what is wrong with them."""
    if not 0 <= k < net.depth:
        raise InputError(f"slopes for layer {k}; the network has layers 0 to {net.depth - 1}")
    count = sum(layer.n_out for layer in net.layers[:k])
    out: dict[int, dict[str, FloatArray]] = {}
    for i, sides in rows.items():
        if not 0 <= i < net.layers[k].n_out:
            raise InputError(f"slopes for neuron {i} of layer {k}; it has {net.layers[k].n_out} neurons")
        out[i] = {side: np.asarray(values, dtype=np.float64) for side, values in sides.items()}
        for side, values in out[i].items():
            if side not in ("lower", "upper") or values.shape != (count,) or not ((values >= 0) & (values <= 1)).all():
                raise InputError(
                    f"slopes {side!r} of neuron {i} of layer {k} have shape {values.shape}; expected 'lower' or "
                    f"'upper' with {count} numbers in [0, 1], one for each earlier hidden neuron"
                )
    return out


def _intervals(net: Network, box: Box) -> list[tuple[FloatArray, FloatArray]]:
    out = []
    low, high = box.lower, box.upper
    for layer in net.layers:
        out.append(_interval(layer, low, high))
        low, high = _outward(*layer.activation.enclose(*out[-1]))
    return out


def _interval(layer: Layer, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`affine_enclosure`, infinite where floats overflow, and by signs exactly 0 also for rational weights."""
    with np.errstate(all="ignore"):
        lower, upper = affine_enclosure(layer, low, high)
    if layer.rational:
        finite = [np.abs(np.where(np.isfinite(v), v, 0.0)).sum() for v in (low, high)]
        faint = _FAINT * (1.0 + sum(finite))
        zero = (layer.bias64 == 0) & ~_moved(layer.weight64, low, high)
        zero_up = (layer.bias64 == 0) & ~_moved(layer.weight64, high, low)
        lower, upper = np.where(zero, 0.0, lower - faint), np.where(zero_up, 0.0, upper + faint)
    return _outward(lower, upper)


def _moved(weight: FloatArray, plus: FloatArray, minus: FloatArray) -> npt.NDArray[np.bool_]:
    """Which rows have a nonzero product: positive weights with `plus`, negative ones with `minus`."""
    return np.asarray((weight[:, plus != 0] > 0).any(axis=1) | (weight[:, minus != 0] < 0).any(axis=1))


def _outward(lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
    """No statement where floats overflowed: NaN, or an infinity on the wrong side."""
    return np.where(lower < np.inf, lower, -np.inf), np.where(upper > -np.inf, upper, np.inf)


@dataclass(frozen=True, eq=False)
class _Lines:
    """low z + low_shift <= s(z) <= high z + high_shift on the enclosure; `free` marks the unstable ReLUs."""

    low: FloatArray
    low_shift: FloatArray
    high: FloatArray
    high_shift: FloatArray
    free: npt.NDArray[np.bool_]
    flat: float


def _lines(row: Activation, lower: FloatArray, upper: FloatArray) -> _Lines:
    first, last = row.enclose(lower, upper)
    slopes = np.zeros((2, lower.size))
    shifts = np.array([first, last])
    free = np.zeros(lower.size, dtype=bool)
    flat = _flat_side(row)
    if flat is not None:
        active = lower >= 0
        slopes[:, active], shifts[:, active] = 1.0, 0.0
        free = (lower < 0) & (upper > 0)
        low, high = lower[free], upper[free]
        steep = (high - flat * low) / (high - low)
        steep = np.clip(steep, flat, 1.0)
        top = np.maximum((flat - steep) * low, (1.0 - steep) * high)
        room = 8 * _EPS * ((flat + steep) * -low + (1.0 + steep) * high) + _TINY
        slopes[1, free], shifts[1, free] = steep, np.maximum(top, 0.0) + room
        slopes[0, free], shifts[0, free] = np.where(high > -low, 1.0, flat), 0.0
    return _Lines(slopes[0], shifts[0], slopes[1], shifts[1], free, 0.0 if flat is None else flat)


def _flat_side(row: Activation) -> float | None:
    """The slope on z < 0 of a ReLU-like activation that is z on z > 0, rounded up; None for all others."""
    pieces = row.pieces or ()
    if len(pieces) != 2 or pieces[0].hi != 0 or any(p.intercept for p in pieces) or pieces[1].slope != 1:
        return None
    slope = pieces[0].slope
    if not 0 <= slope < 1:
        return None
    return _up(slope)


class _Backward:
    """Enclosures layer by layer, each by substitution through the relaxations below it."""

    def __init__(self, net: Network, box: Box) -> None:
        self.net, self.box = net, box
        self.lower: list[FloatArray] = []
        self.upper: list[FloatArray] = []
        self.inputs: list[tuple[FloatArray, FloatArray]] = [(box.lower, box.upper)]
        self.lines: list[_Lines] = []
        self.reach: list[FloatArray] = []  # |W| |y| + |b|: bounds every term of a layer's pre-activations
        self.faint: list[float] = []  # underflow of one row of a form through the layer, for entries up to 1

    def next(self, rows: Mapping[int, Mapping[str, FloatArray]]) -> None:
        """Enclose the next layer."""
        k = len(self.lower)
        layer = self.net.layers[k]
        lower, upper = _interval(layer, *self.inputs[k])
        if k:
            lower = np.maximum(lower, self._least(k, layer.weight64, layer.bias64))
            upper = np.minimum(upper, -self._least(k, -layer.weight64, -layer.bias64))
            for side, ends, sign in (("lower", lower, 1.0), ("upper", upper, -1.0)):
                chosen = [i for i in rows if side in rows[i]]
                if chosen:
                    shares = np.array([rows[i][side] for i in chosen])
                    least = self._least(k, sign * layer.weight64[chosen], sign * layer.bias64[chosen], shares)
                    ends[chosen] = sign * np.maximum(sign * ends[chosen], least)
        self._append(layer, lower, upper)

    def _append(self, layer: Layer, lower: FloatArray, upper: FloatArray) -> None:
        size = np.maximum(*(np.abs(v) for v in self.inputs[-1]))
        self.reach.append(np.abs(layer.weight64) @ size + np.abs(layer.bias64))
        self.faint.append(_FAINT * (layer.n_in + layer.n_out + 2) * (1.0 + float(size.sum())))
        self.lower.append(lower)
        self.upper.append(upper)
        self.inputs.append(_outward(*layer.activation.enclose(lower, upper)))
        self.lines.append(_lines(layer.activation, lower, upper))

    def _least(self, k: int, form: FloatArray, shift: FloatArray, shares: FloatArray | None = None) -> FloatArray:
        """Lower bounds of form h + shift, h the outputs below layer k, the best over all depths at which to stop.

        -inf where floats overflow.
        """
        # invariant: the exact value is at least form h + shift - error
        inputs = np.maximum(*(np.abs(v) for v in self.inputs[k]))
        error = _SLACK * _EPS * (np.abs(form) @ inputs + np.abs(shift)) + _FAINT * (1.0 + inputs.sum())
        best = np.full(len(form), -np.inf)
        stop = sum(layer.n_out for layer in self.net.layers[:k])
        for j in range(k - 1, -1, -1):
            layer, lines = self.net.layers[j], self.lines[j]
            low = lines.low
            if shares is not None:
                chosen = lines.flat + shares[:, stop - layer.n_out : stop] * (1.0 - lines.flat)
                low = np.where(lines.free, np.clip(chosen, lines.flat, 1.0), low)
            stop -= layer.n_out
            plus, minus = np.maximum(form, 0.0), np.minimum(form, 0.0)
            shift = shift + plus @ lines.low_shift + minus @ lines.high_shift
            size = plus @ np.abs(lines.low_shift) - minus @ np.abs(lines.high_shift) + np.abs(shift)
            form = plus * low + minus * lines.high
            gamma = _SLACK * _EPS * (layer.n_in + layer.n_out + 8)
            shift = shift + form @ layer.bias64
            weight = np.abs(form)
            error = error + gamma * (size + weight @ self.reach[j] + np.abs(shift)) + _TINY
            # what underflowed in form (times |z|), in form W (times |y|), in reach and in rational weights
            error = error + _FAINT * self.reach[j].sum() + self.faint[j] * (1.0 + weight.sum(axis=1))
            form = form @ layer.weight64
            best = np.maximum(best, _smallest(form, shift, *self.inputs[j]) - error)
        return np.where(np.isfinite(best), best, -np.inf)


def _smallest(form: FloatArray, shift: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Lower bounds of form y + shift over low <= y <= high; -inf where floats overflow."""
    value = np.maximum(form, 0.0) @ low + np.minimum(form, 0.0) @ high + shift
    size = np.abs(form) @ np.maximum(np.abs(low), np.abs(high)) + np.abs(shift)
    out = value - _SLACK * _EPS * (form.shape[1] + 8) * size - _TINY
    return np.where(np.isfinite(out), out, -np.inf)


# ---- how far apart two networks of one shape are


def difference_bound(f: Network, g: Network, box: Box) -> tuple[float, float]:
    """(constant, slope) with |f(x) - g(x)|_inf <= constant + slope |x|_inf for all x in the box.

    |dz_l| <= |W'_l| |dh_(l-1)| + |dW_l| |h_(l-1)| + |db_l| and |dh_l| <= Lip |dz_l|; on an unbounded box magnitudes are
    carried as a + b |x|_inf. Rounded outward; 0 exactly when nothing differs.

    Args:
        f: a network.
        g: another of the same widths and activations.
        box: the domain.

    Returns:
        Both finite and >= 0, or inf where no finite bound follows; slope is 0 on a bounded box. O(parameters).

    Raises:
        InputError: if the shapes or activations differ, or the box does not fit.

    >>> f = Network.from_arrays(([[1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.5]], [0.25]))
    >>> [round(v, 9) for v in difference_bound(f, g, Box.parse("[-2,2]", 1))]
    [1.25, 0.0]
    """
    if f.widths != g.widths or any(a.activation != b.activation for a, b in zip(f.layers, g.layers, strict=True)):
        raise InputError(f"networks {f.architecture} and {g.architecture} differ in shape; expected the same one")
    if box.dimension != f.widths[0]:
        raise InputError(f"domain has {box.dimension} inputs; the networks take {f.widths[0]}")
    ends = np.maximum(np.abs(box.lower), np.abs(box.upper))
    free = ~np.isfinite(ends)
    size = np.stack([np.where(free, 0.0, ends), free.astype(float)])  # |h| <= size[0] + size[1] |x|_inf
    gap = np.zeros((2, box.dimension))
    with np.errstate(all="ignore"):
        for a, b, first, second in zip(f.layers, g.layers, _intervals(f, box), _intervals(g, box), strict=True):
            gap = _product(gap, _magnitude(b)) + _product(size, _distance(a.weight, b.weight))
            gap = _widened(gap, _distance(a.bias, b.bias), a.n_in)
            gap = _capped(gap, first, second)
            hull = np.minimum(first[0], second[0]), np.maximum(first[1], second[1])
            gap = _scaled(gap, _lipschitz(a.activation, *hull))
            first, second = (_outward(*a.activation.enclose(*pair)) for pair in (first, second))
            gap = _capped(gap, first, second)
            size = _output_size(a, size, *first)
    worst = gap.max(axis=1, initial=0.0)
    return float(worst[0]), float(worst[1])


# arithmetic of magnitudes: rounded up, 0 only where it is exactly 0, 0 * inf = 0


def _widened(size: FloatArray, shift: FloatArray | float, terms: int) -> FloatArray:
    """Shift added to the constants, with room for the rounding of so many terms."""
    total = size + np.stack([np.broadcast_to(shift, size[0].shape), np.zeros_like(size[0])])
    return np.where(total > 0, total * (1 + _SLACK * _EPS * (2 * terms + 8)) + _TINY, 0.0)


def _scaled(size: FloatArray, factor: FloatArray) -> FloatArray:
    grown = np.where(factor == 1, size, size * factor * (1 + 4 * _EPS) + _TINY)
    return np.where((size == 0) | (factor == 0), 0.0, grown)


def _product(size: FloatArray, matrix: FloatArray) -> FloatArray:
    """Product size @ matrix.T for magnitudes (2, n) and (m, n)."""
    if not size.any():
        return np.zeros((2, matrix.shape[0]))
    finite = np.isfinite(size)
    total = np.where(finite, size, 0.0) @ matrix.T
    total = np.where(np.isnan(total), np.inf, total * (1 + _SLACK * _EPS * (matrix.shape[1] + 8)) + _TINY)
    live = (matrix != 0).T.astype(np.float64)
    if not finite.all():
        total = np.where((~finite).astype(np.float64) @ live > 0, np.inf, total)
    return np.where((size != 0).astype(np.float64) @ live > 0, total, 0.0)


def _magnitude(layer: Layer) -> FloatArray:
    """|W| rounded up."""
    near = np.abs(layer.weight64)
    return np.where(near > 0, np.nextafter(near, np.inf), 0.0) if layer.rational else near


def _capped(gap: FloatArray, first: tuple[FloatArray, FloatArray], second: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Two numbers in known intervals are no further apart than the far ends of those."""
    far = np.maximum(first[1] - second[0], second[1] - first[0])
    far = np.where(far == 0, 0.0, np.nextafter(far, np.inf))
    closer = far * (1 + 1e-9) < gap[0]  # no close calls, which a checker might decide the other way
    return np.where(closer, np.stack([far, np.zeros_like(far)]), gap)


def _distance(a: ExactArray, b: ExactArray) -> FloatArray:
    """|a - b| rounded up, zero exactly where equal."""
    if not rationals.is_rational(a) and not rationals.is_rational(b):
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        return np.where(gap > 0, gap * (1 + 2 * _EPS), 0.0)  # floats differ by a float: 0 only if equal
    out = np.zeros(a.shape)
    changed = np.asarray(a != b, dtype=bool)
    if changed.any():
        exact = np.abs(rationals.fractions(a[changed]) - rationals.fractions(b[changed]))
        out[changed] = rationals.rounded(exact, np.float64) * (1 + 2 * _EPS) + _TINY
    return out


def _lipschitz(row: Activation, low: FloatArray, high: FloatArray) -> FloatArray:
    """Lipschitz constants on [low, high], rounded up: of the pieces it meets inside, else the global one."""
    if row.pieces is None:
        if np.isfinite(row.lipschitz):
            return np.full(low.size, row.lipschitz)
        return _local_lipschitz(row, low, high)
    out = np.zeros(low.size)
    for piece in row.pieces:
        meets = np.ones(low.size, dtype=bool)
        if piece.lo is not None:
            meets &= high > -_up(-piece.lo)
        if piece.hi is not None:
            meets &= low < _up(piece.hi)
        out = np.where(meets, np.maximum(out, _up(abs(piece.slope))), out)
    return out


def _up(q: Fraction) -> float:
    value = float(q)
    return value if Fraction(value) >= q else float(np.nextafter(value, np.inf))


def _local_lipschitz(row: Activation, low: FloatArray, high: FloatArray) -> FloatArray:
    """For polynomials: |s'(z)| <= sum k |c_k| max|z|^(k-1)."""
    terms = row.parameters or (Fraction(0), Fraction(0), Fraction(1))
    reach = np.maximum(np.abs(low), np.abs(high))
    total = np.zeros(low.size)
    for k, c in enumerate(terms):
        if k and c:
            total = total + _up(k * abs(c)) * reach ** (k - 1)
    return total * (1 + 16 * _EPS * len(terms)) + _TINY


def _output_size(layer: Layer, size: FloatArray, first: FloatArray, last: FloatArray) -> FloatArray:
    """Magnitudes (a, b) of the layer's outputs: the enclosure where finite, else |s(0)| + Lip (|W| |h| + |b|)."""
    ends = np.maximum(np.abs(first), np.abs(last))
    bounded = np.stack([ends, np.zeros(ends.size)])
    if np.isfinite(ends).all():
        return bounded
    bias = np.abs(layer.bias64)
    bias = np.where(bias > 0, np.nextafter(bias, np.inf), 0.0) if layer.rational else bias
    grown = _widened(_product(size, _magnitude(layer)), bias, layer.n_in)
    everywhere = np.array([-np.inf]), np.array([np.inf])
    grown = _scaled(grown, _lipschitz(layer.activation, *everywhere))
    origin = np.abs(np.array(layer.activation.enclose(np.zeros(1), np.zeros(1)))).max()
    return np.where(np.isfinite(ends), bounded, _widened(grown, origin, 1))


def unstable(bounds: Bounds, net: Network) -> list[npt.NDArray[np.int64]]:
    """For each hidden layer the neurons whose enclosure straddles a kink of a piecewise linear activation."""
    out = []
    for layer, low, high in zip(net.hidden, bounds.lower, bounds.upper, strict=False):
        spans = [
            layer.activation.pieces is not None and layer.activation.piece_on(a, b) is None
            for a, b in zip(low, high, strict=True)
        ]
        out.append(np.flatnonzero(spans))
    return out
