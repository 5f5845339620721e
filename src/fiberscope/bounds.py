"""Certified enclosures of a network over a box: intervals, and linear relaxations substituted back to the input.

All sums are float64 with the a-priori error of a dot product of n terms, gamma_n sum |w||y| (Higham, Accuracy and
Stability, section 3.1), added outward and multiplied by a slack of 4, so that a checker with a smaller slack confirms
every claim made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    below (alpha = 1 if upper > -lower else 0), substitutes the linear forms back to the input and takes the tighter;
    other activations enter as constants. Any alpha in [0, 1] is sound, so `slopes` may come from a float solver.

    Args:
        net: the network.
        box: domain of the inputs, possibly unbounded (then "backward" is as good as "interval").
        method: see above.
        slopes: extra alphas for single neurons (see `Slopes`).

    Raises:
        InputError: if the box does not fit the network.

    Complexity: O(parameters) for intervals, O(depth^2 * largest width^3) matrix products backward.
    Source: DeepPoly/CROWN bounds (Zhang et al., arXiv 1811.00866) with outward rounding.

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[1.0, -1.0]], [0]), activation="relu")
    >>> bounds = preactivation_bounds(net, Box.parse("[1,2]", 1))
    >>> bool(abs(bounds.upper[1][0]) < 1e-12)
    True
    """
    if box.dimension != net.widths[0]:
        raise InputError(f"domain has {box.dimension} inputs; the network takes {net.widths[0]}")
    if method == "interval" or not box.bounded:
        pairs = net.enclose(box)
        return Bounds(
            tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), box, "interval" if method == "interval" else method
        )
    work = _Backward(net, box)
    for k in range(net.depth):
        work.next(slopes.get(k, {}) if slopes else {})
    return Bounds(tuple(work.lower), tuple(work.upper), box, "backward", slopes)


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
    value = float(slope)
    return value if Fraction(value) >= slope else float(np.nextafter(value, 1.0))


class _Backward:
    """Enclosures layer by layer, each by substitution through the relaxations below it."""

    def __init__(self, net: Network, box: Box) -> None:
        self.net, self.box = net, box
        self.lower: list[FloatArray] = []
        self.upper: list[FloatArray] = []
        self.inputs: list[tuple[FloatArray, FloatArray]] = [(box.lower, box.upper)]
        self.lines: list[_Lines] = []
        self.reach: list[FloatArray] = []  # |W| |y| + |b|: bounds every term of a layer's pre-activations

    def next(self, rows: Mapping[int, Mapping[str, FloatArray]]) -> None:
        """Enclose the next layer."""
        k = len(self.lower)
        layer = self.net.layers[k]
        lower, upper = affine_enclosure(layer, *self.inputs[k])
        if k:
            lower = np.maximum(lower, self._least(k, layer.weight64, layer.bias64))
            upper = np.minimum(upper, -self._least(k, -layer.weight64, -layer.bias64))
            for i, sides in rows.items():
                weight, bias = layer.weight64[i : i + 1], layer.bias64[i : i + 1]
                if "lower" in sides:
                    lower[i] = max(lower[i], self._least(k, weight, bias, sides["lower"])[0])
                if "upper" in sides:
                    upper[i] = min(upper[i], -self._least(k, -weight, -bias, sides["upper"])[0])
        self.lower.append(lower)
        self.upper.append(upper)
        self.inputs.append(layer.activation.enclose(lower, upper))
        self.lines.append(_lines(layer.activation, lower, upper))
        size = np.maximum(*(np.abs(v) for v in self.inputs[k]))
        self.reach.append(np.abs(layer.weight64) @ size + np.abs(layer.bias64))

    def _least(self, k: int, form: FloatArray, shift: FloatArray, shares: FloatArray | None = None) -> FloatArray:
        """Lower bounds of form h + shift, h the outputs below layer k; -inf where floats overflow."""
        # invariant: the exact value is at least form h + shift - error
        error = _SLACK * _EPS * (np.abs(form) @ np.maximum(*(np.abs(v) for v in self.inputs[k])) + np.abs(shift))
        stop = sum(layer.n_out for layer in self.net.layers[:k])
        for j in range(k - 1, -1, -1):
            layer, lines = self.net.layers[j], self.lines[j]
            low = lines.low
            if shares is not None:
                chosen = lines.flat + shares[stop - layer.n_out : stop] * (1.0 - lines.flat)
                low = np.where(lines.free, np.clip(chosen, lines.flat, 1.0), low)
            stop -= layer.n_out
            plus, minus = np.maximum(form, 0.0), np.minimum(form, 0.0)
            shift = shift + plus @ lines.low_shift + minus @ lines.high_shift
            size = plus @ np.abs(lines.low_shift) - minus @ np.abs(lines.high_shift) + np.abs(shift)
            form = plus * low + minus * lines.high
            gamma = _SLACK * _EPS * (layer.n_in + layer.n_out + 8)
            shift = shift + form @ layer.bias64
            error = error + gamma * (size + np.abs(form) @ self.reach[j] + np.abs(shift)) + _TINY
            form = form @ layer.weight64
        plus, minus = np.maximum(form, 0.0), np.minimum(form, 0.0)
        value = shift + plus @ self.box.lower + minus @ self.box.upper
        size = np.abs(form) @ np.maximum(np.abs(self.box.lower), np.abs(self.box.upper)) + np.abs(shift)
        out = value - error - _SLACK * _EPS * (form.shape[1] + 4) * size - _TINY
        return np.asarray(np.where(np.isfinite(out), out, -np.inf))


# ---- how far apart two networks of one shape are


def difference_bound(f: Network, g: Network, box: Box) -> tuple[float, float]:
    """(constant, slope) with |f(x) - g(x)|_inf <= constant + slope |x|_inf for all x in the box.

    |dz_l| <= |W'_l| |dh_(l-1)| + |dW_l| |h_(l-1)| + |db_l| and |dh_l| <= Lip |dz_l|; on an unbounded box magnitudes are
    carried as a + b |x|_inf. Rounded outward; 0 exactly when nothing differs.

    Args:
        f: a network.
        g: another of the same widths and activations.
        box: the domain.

    Raises:
        InputError: if the shapes or activations differ.

    >>> f = Network.from_arrays(([[1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.5]], [0.25]))
    >>> [round(v, 9) for v in difference_bound(f, g, Box.parse("[-2,2]", 1))]
    [1.25, 0.0]
    """
    if f.widths != g.widths or any(a.activation != b.activation for a, b in zip(f.layers, g.layers, strict=True)):
        raise InputError(f"networks {f.architecture} and {g.architecture} differ in shape; expected the same one")
    pairs = [zip(a, b, strict=True) for a, b in zip(f.enclose(box), g.enclose(box), strict=True)]
    ends = np.maximum(np.abs(box.lower), np.abs(box.upper))
    free = ~np.isfinite(ends)
    size = np.stack([np.where(free, 0.0, ends), free.astype(float)])  # |h| <= size[0] + size[1] |x|_inf
    gap = np.zeros((2, box.dimension))
    for a, b, pair in zip(f.layers, g.layers, pairs, strict=True):
        (low_a, low_b), (high_a, high_b) = pair
        low, high = np.minimum(low_a, low_b), np.maximum(high_a, high_b)
        change, shift = _distance(a.weight, b.weight), _distance(a.bias, b.bias)
        gamma = 1 + _SLACK * _EPS * (2 * a.n_in + 8)
        grown = gap @ np.abs(b.weight64).T + size @ change.T
        grown[0] += shift
        gap = np.where(grown > 0, grown * gamma + _TINY, 0.0)
        factor = _lipschitz(a.activation, low, high)
        gap = np.where(gap > 0, gap * factor * (1 + 4 * _EPS), 0.0)
        size = _output_size(a, size, low_a, high_a)
    worst = gap.max(axis=1, initial=0.0)
    return float(worst[0]), float(worst[1])


def _distance(a: ExactArray, b: ExactArray) -> FloatArray:
    """|a - b| rounded up, zero exactly where equal."""
    if not rationals.is_rational(a) and not rationals.is_rational(b):
        x, y = a.astype(np.float64), b.astype(np.float64)
        gap = np.abs(x - y)
        return np.where(gap > 0, gap * (1 + 2 * _EPS), np.where(x == y, 0.0, _TINY))
    exact = np.abs(rationals.fractions(a) - rationals.fractions(b))
    near = rationals.rounded(exact, np.float64)
    return np.where(exact != 0, near * (1 + 2 * _EPS) + _TINY, 0.0).astype(np.float64)


def _lipschitz(row: Activation, low: FloatArray, high: FloatArray) -> FloatArray:
    """Lipschitz constants on [low, high], rounded up: by pieces, else the global one."""
    if row.pieces is None:
        if np.isfinite(row.lipschitz):
            return np.full(low.size, row.lipschitz)
        return _local_lipschitz(row, low, high)
    out = np.zeros(low.size)
    for piece in row.pieces:
        meets = np.ones(low.size, dtype=bool)
        if piece.lo is not None:
            meets &= high > np.nextafter(float(piece.lo), -np.inf)
        if piece.hi is not None:
            meets &= low < np.nextafter(float(piece.hi), np.inf)
        slope = float(abs(piece.slope))
        slope = slope if Fraction(slope) >= abs(piece.slope) else float(np.nextafter(slope, np.inf))
        out = np.where(meets, np.maximum(out, slope), out)
    return out


def _local_lipschitz(row: Activation, low: FloatArray, high: FloatArray) -> FloatArray:
    """For polynomials: |s'(z)| <= sum k |c_k| max|z|^(k-1)."""
    terms = row.parameters or (Fraction(0), Fraction(0), Fraction(1))
    reach = np.maximum(np.abs(low), np.abs(high))
    total = np.zeros(low.size)
    for k, c in enumerate(terms):
        if k and c:
            total = total + float(k * abs(c)) * reach ** (k - 1)
    return total * (1 + 16 * _EPS * len(terms)) + _TINY


def _output_size(layer: Layer, size: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Magnitudes (a, b) of the layer's outputs: the enclosure where finite, else |s(0)| + Lip (|W| |h| + |b|)."""
    first, last = layer.activation.enclose(low, high)
    ends = np.maximum(np.abs(first), np.abs(last))
    if np.isfinite(ends).all():
        return np.stack([ends, np.zeros(ends.size)])
    grown = size @ np.abs(layer.weight64).T
    grown[0] += np.abs(layer.bias64)
    grown = np.where(grown > 0, grown * (1 + _SLACK * _EPS * (layer.n_in + 8)) + _TINY, 0.0)
    everywhere = np.array([-np.inf]), np.array([np.inf])
    grown = np.where(grown > 0, grown * _lipschitz(layer.activation, *everywhere), 0.0)
    origin = np.abs(np.array(layer.activation.enclose(np.zeros(1), np.zeros(1)))).max()
    grown[0] += origin * (1 + 4 * _EPS)
    return np.where(np.isfinite(ends), np.stack([ends, np.zeros(ends.size)]), grown)


def with_alphas(bounds: Bounds, slopes: Slopes) -> Bounds:
    """The same enclosures with extra slopes recorded."""
    return replace(bounds, slopes=slopes)


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
