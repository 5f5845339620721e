"""Difference zonotopes: f and g - f over many boxes at once, as affine forms in shared symbols.

For every x of a box there are e in [-1, 1]^S and remainders with |p| <= P, |q| <= Q such that, exactly,

    h_f(x) = c + sum_s e_s F_s + p,        h_g(x) - h_f(x) = d + sum_s e_s D_s + sum_t e_t O_t + q.

The first symbols are the inputs, the others the errors of the relaxed activations (e_s of f, e_t of the difference).
c, F, d, D, O are float64; P and Q hold the a-priori errors of all operations (gamma_n sum |w||y|, Higham, section 3.1,
with a slack of 4) and the symbols that were too many to keep. Boxes whose numbers overflow have no bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.fibers.relaxations import Strips, secants, strips
from fiberscope.network import Layer

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_EPS = float(np.finfo(np.float64).eps)
_SLACK = 4.0
_TINY = 1e-300
"""More than all underflows of one dot product together."""
_FAINT = 1e-307
"""More than one underflow: of a product, or of a weight beneath the normal range."""
_WORTH = 1e-250
"""Errors beneath this get no symbol of their own."""


@dataclass(frozen=True, eq=False)
class ValueLayer:
    """One layer in float64, transposed: rows are inputs.

    Args:
        first: W^T, (n, m); entries within 4 eps |w| + 5e-324 of the exact ones.
        first_size: |first|.
        bias: b, (m,), likewise.
        activation: s.
    """

    first: FloatArray
    first_size: FloatArray
    bias: FloatArray
    activation: Activation


@dataclass(frozen=True, eq=False)
class PairedLayer(ValueLayer):
    """One layer of f (`first`, `bias`) and what g has instead.

    Args:
        second: W_g^T, (n, m); entries within 4 eps |w| + 5e-324 of the exact ones.
        second_size: |second|.
        gap: W_g^T - W_f^T.
        gap_size: |gap|.
        gap_error: (n, m), how far each entry of `gap` may be from the exact difference.
        bias_gap: b_g - b_f, (m,).
        bias_gap_error: (m,), likewise.
    """

    second: FloatArray
    second_size: FloatArray
    gap: FloatArray
    gap_size: FloatArray
    gap_error: FloatArray
    bias_gap: FloatArray
    bias_gap_error: FloatArray

    @property
    def identical(self) -> bool:
        """Whether the exact layers are known to be the same."""
        return not any(v.any() for v in (self.gap, self.gap_error, self.bias_gap, self.bias_gap_error))


@dataclass(frozen=True, eq=False)
class Spans:
    """What one sweep says about each of B boxes.

    Args:
        upper: (B, m) bounds of |g_k - f_k|, rounded up; inf where nothing is known.
        inputs: (n0, B, m) coefficients of the inputs in the difference, a guide to where it is large.
        scores: (B, n0) how much each input matters for the worst output: its own coefficient, and its share of each
            error symbol, by what it does to that symbol's neuron.
    """

    upper: FloatArray
    inputs: FloatArray
    scores: FloatArray


def value_layer(layer: Layer) -> ValueLayer:
    """A layer of one network for `spans_apart`."""
    weight = np.ascontiguousarray(layer.weight64.T)
    return ValueLayer(weight, np.abs(weight), layer.bias64, layer.activation)


def paired_layer(
    first: Layer, weight: FloatArray, bias: FloatArray, weight_error: FloatArray, bias_error: FloatArray
) -> PairedLayer:
    """Pair a layer of f with rounded weights of g.

    Args:
        first: the layer of f.
        weight: (m, n), the weights of g rounded to float64.
        bias: (m,), its biases.
        weight_error: (m, n), how far each entry may be from the exact one, at most 4 eps |w| + 5e-324.
        bias_error: (m,), likewise.

    Returns:
        The pair, its errors including the rounding of f's own weights. O(parameters).
    """
    mine, shift = first.weight64, first.bias64
    gap, bias_gap = weight - mine, bias - shift
    gap_error = _sum_up(weight_error, rounding(first.weight, mine), _EPS * np.abs(gap))
    bias_gap_error = _sum_up(bias_error, rounding(first.bias, shift), _EPS * np.abs(bias_gap))
    own = value_layer(first)
    second, apart, error = (np.ascontiguousarray(v.T) for v in (weight, gap, gap_error))
    return PairedLayer(
        own.first, own.first_size, own.bias, own.activation, second, np.abs(second), apart, np.abs(apart), error,
        bias_gap, bias_gap_error,
    )  # fmt: skip


def _sum_up(*parts: FloatArray) -> FloatArray:
    total = sum(parts[1:], parts[0])
    return np.where(total > 0, total * (1 + 4 * _EPS), 0.0)


def rounding(exact: npt.NDArray[np.generic], near: FloatArray) -> FloatArray:
    """Bounds of |exact - near| for nearest floats: 0 for an array of floats, else eps |near| and one underflow."""
    return np.abs(near) * _EPS + _FAINT if rationals.is_rational(exact) else np.zeros(near.shape)


def difference_spans(
    layers: Sequence[PairedLayer], low: FloatArray, high: FloatArray, *, keep: int = 16, linear: bool = True
) -> Spans:
    """Enclose g - f on boxes by pairing each neuron of f with one of g.

    An activation s turns a difference dz into theta dz with theta between the least and the largest secant slope of s
    where both networks run: mean slope, and an error symbol. Where it is narrower, both values are relaxed instead and
    subtracted, the errors of f keeping their symbols: this is what converges for neurons in opposite phases.

    Args:
        layers: the paired layers.
        low: (B, n0) finite lower ends.
        high: (B, n0) finite upper ends, low <= high.
        keep: error symbols kept per layer and box, of f and of the difference each; the smaller ones are added up.
        linear: whether inputs are symbols; if not, this is an interval sweep, O(B parameters), with zero scores.

    Returns:
        The spans. O(B depth width^2 (n0 + depth keep)).
        Source: zonotopes for ReLU (DeepZ, Singh et al., NeurIPS 2018) of differences (ReluDiff, arXiv 2001.03662).
    """
    with np.errstate(all="ignore"):
        sweep = _Differences(low, high, keep if linear else 0, linear)
        for layer in layers:
            sweep.through(layer)
        return sweep.spans()


def spans_apart(
    first: Sequence[ValueLayer], second: Sequence[ValueLayer], low: FloatArray, high: FloatArray, *, keep: int = 16
) -> Spans:
    """Enclose g - f on boxes for networks of any two shapes: two sweeps that share the inputs only.

    Args:
        first: layers of f.
        second: layers of g, with as many inputs and outputs.
        low: (B, n0) finite lower ends.
        high: (B, n0) finite upper ends, low <= high.
        keep: as in `difference_spans`.

    Returns:
        The spans.
    """
    with np.errstate(all="ignore"):
        f, g = _Values(low, high, keep), _Values(low, high, keep)
        for sweep, layers in ((f, first), (g, second)):
            for layer in layers:
                sweep.through(layer)
        n = f.inputs
        inputs, own = g.forms[:n] - f.forms[:n], np.concatenate([f.forms[n:], g.forms[n:]])
        size = sum(np.abs(v.center) + np.abs(v.forms).sum(axis=0) for v in (f, g))
        rest = f.rest + g.rest + _SLACK * _EPS * size + _TINY
        return _spans(g.center - f.center, inputs, own, [*f.shares, *g.shares], rest, f.lost | g.lost)


def _spans(
    center: FloatArray,
    inputs: FloatArray,
    errors: FloatArray,
    shares: list[FloatArray],
    rest: FloatArray,
    lost: npt.NDArray[np.bool_],
) -> Spans:
    widen = 1 + _SLACK * _EPS * (len(inputs) + len(errors) + 8)
    noise = np.abs(errors)
    upper = (np.abs(center) + np.abs(inputs).sum(axis=0) + noise.sum(axis=0) + rest) * widen
    upper = np.where(np.isfinite(upper) & ~lost[:, None], upper, np.inf)
    batch, worst = np.arange(len(upper)), upper.argmax(axis=1)
    scores = np.abs(inputs[:, batch, worst]).T.copy()
    if shares and len(inputs):
        scores += np.einsum("tb,tbn->bn", noise[:, batch, worst], np.concatenate(shares))
    return Spans(upper, inputs, np.nan_to_num(scores))


@dataclass(frozen=True, eq=False)
class _Plan:
    """How one activation layer of f is relaxed, arrays (B, n); which errors get a symbol, (K, B)."""

    low: FloatArray
    high: FloatArray
    strip: Strips
    index: IntArray
    kept: FloatArray
    left: FloatArray
    shares: FloatArray


class _Values:
    """Affine forms of one network: `center` (B, n), `forms` (S, B, n), `rest` (B, n).

    `total` is an upper bound of sum_s |forms_s| up to rounding; `live` the columns that are not zero in all boxes,
    which are all that `forms` holds between an activation and the next affine map.
    """

    def __init__(self, low: FloatArray, high: FloatArray, keep: int, linear: bool = True) -> None:
        self.keep, self.inputs = keep, low.shape[1] if linear else 0
        self.center = 0.5 * low + 0.5 * high
        radius = np.maximum(high - self.center, self.center - low) * (1 + 2 * _EPS)  # covers the box
        self.total = radius if linear else np.zeros(low.shape)
        self.rest = np.zeros(low.shape) if linear else radius
        self.forms = radius.T[: self.inputs, :, None] * np.eye(low.shape[1])[: self.inputs, None, :]
        self.shares: list[FloatArray] = []  # of the error symbols, (K, B, n0) each
        self.lost = np.zeros(len(low), dtype=bool)
        self.live: IntArray | slice = slice(None)

    def through(self, layer: ValueLayer) -> None:
        """Through one affine map and its activation."""
        self.affine(layer)
        if layer.activation.name != "identity":
            self.apply(self.plan(layer.activation))

    def affine(self, layer: ValueLayer) -> None:
        """Through one affine map."""
        self.forms = _product(self.forms, layer.first[self.live])
        self.live = slice(None)
        gamma = _gamma(len(layer.first))
        size = np.abs(self.center) + self.total
        faint = _TINY + _FAINT * (1 + (size + self.rest).sum(axis=1, keepdims=True))
        self.center = self.center @ layer.first + layer.bias
        rest = (self.rest + gamma * size) @ layer.first_size + gamma * np.abs(layer.bias) + faint
        self.rest = rest * (1 + gamma)
        self.total = np.abs(self.forms).sum(axis=0)

    def plan(self, row: Activation) -> _Plan:
        """How to relax the activation on what is known of its arguments."""
        spread = (self.total + self.rest) * (1 + _SLACK * _EPS * (len(self.forms) + 8))
        spread = spread + _SLACK * _EPS * np.abs(self.center) + _TINY
        low, high = self.center - spread, self.center + spread
        self.lose(~(np.isfinite(low) & np.isfinite(high)), low, high)
        strip = strips(row, low, high)
        self.lose(~np.isfinite(strip.room), strip.room, strip.shift)
        index, kept, left = _largest(strip.room, self.keep)
        return _Plan(low, high, strip, index, kept, left, self.shares_of(index))

    def lose(self, bad: npt.NDArray[np.bool_], *arrays: FloatArray) -> None:
        """Give up boxes, and keep their numbers finite."""
        if bad.any():
            self.lost |= bad.any(axis=1)
            for values in arrays:
                values[bad] = 0.0

    def shares_of(self, index: IntArray) -> FloatArray:
        """For each new symbol (K, B) the inputs' shares of its neuron's range, (K, B, n0)."""
        picked = np.abs(self.forms[: self.inputs, np.arange(index.shape[1]), index])
        total = picked.sum(axis=0)
        return np.asarray((picked / np.where(total > 0, total, 1.0)).transpose(1, 2, 0))

    def apply(self, plan: _Plan) -> None:
        """Relax the activation."""
        strip = plan.strip
        slope = np.abs(strip.slope)
        size = slope * (np.abs(self.center) + self.total) + np.abs(strip.shift)
        rough = (strip.slope != 0) & (strip.slope != 1)
        error = np.where(rough, 2 * _SLACK * _EPS * size + _TINY, _SLACK * _EPS * np.abs(strip.shift))
        self.rest = (slope * self.rest + plan.left + error) * (1 + 8 * _EPS)
        self.center = strip.slope * self.center + strip.shift
        self.total = slope * self.total + strip.room
        if isinstance(self.live, slice):
            self.choose(slope > 0, strip.room > 0)
        self.forms = _extended(self.forms, strip.slope, plan.index, plan.kept, self.live)
        self.shares.append(plan.shares)

    def choose(self, *used: npt.NDArray[np.bool_]) -> None:
        """Keep the columns that one of the masks (B, n) uses."""
        live = np.zeros(used[0].shape[1], dtype=bool)
        for part in used:
            live |= part.any(axis=0)
        self.live = np.flatnonzero(live)


class _Differences:
    """Affine forms of f (`f`) and of g - f: `gap` (B, n), `shared` (S, B, n), `own` (T, B, n), `rest` (B, n)."""

    def __init__(self, low: FloatArray, high: FloatArray, keep: int, linear: bool = True) -> None:
        self.f = _Values(low, high, keep, linear)
        self.gap, self.rest, self.total = (np.zeros(low.shape) for _ in range(3))
        self.shared, self.own = np.zeros(self.f.forms.shape), np.zeros((0, *low.shape))
        self.own_shares: list[FloatArray] = []

    def through(self, layer: PairedLayer) -> None:
        """Through one affine map and its activation."""
        live = self.f.live
        shared = _product(self.shared, layer.second[live])
        shared += _product(self.f.forms, layer.gap[live])
        self.shared, self.own = shared, _product(self.own, layer.second[live])
        self._move(layer)
        self.f.affine(layer)
        if layer.activation.name != "identity":
            self._relax(layer.activation)

    def _move(self, layer: PairedLayer) -> None:
        """Center and rest of the difference, before those of f are moved."""
        f, gamma = self.f, _gamma(len(layer.first))
        size, gap_size = np.abs(f.center) + f.total, np.abs(self.gap) + self.total
        reach = size + f.rest
        faint = _TINY + _FAINT * (1 + (reach + gap_size).sum(axis=1, keepdims=True))
        self.gap = self.gap @ layer.second + f.center @ layer.gap + layer.bias_gap
        rest = (self.rest + gamma * gap_size) @ layer.second_size + (f.rest + gamma * size) @ layer.gap_size
        rest += reach @ layer.gap_error + gamma * np.abs(layer.bias_gap) + layer.bias_gap_error + faint
        self.rest = rest * (1 + gamma)

    def _relax(self, row: Activation) -> None:
        f = self.f
        plan = f.plan(row)
        strip = plan.strip
        widen = 1 + _SLACK * _EPS * (len(f.forms) + len(self.own) + 8)
        own = np.abs(self.own).sum(axis=0)
        self.total = np.abs(self.shared).sum(axis=0) + own
        far = np.abs(self.gap) + (self.total + self.rest) * widen
        spread = (np.abs(f.forms + self.shared).sum(axis=0) + own + f.rest + self.rest) * widen
        spread += _SLACK * _EPS * (np.abs(f.center) + np.abs(self.gap)) + _TINY
        low, high = f.center + self.gap - spread, f.center + self.gap + spread
        f.lose(~(np.isfinite(low) & np.isfinite(high) & np.isfinite(far)), low, high, far)

        # theta dz with theta between the secants of where f and g run
        least, most = secants(row, np.minimum(plan.low, low), np.maximum(plan.high, high))
        scale, error = 0.5 * least + 0.5 * most, (0.5 * most - 0.5 * least) * far
        error = np.where(error > 0, error * (1 + 16 * _EPS) + _TINY, 0.0)
        # or the relaxed g minus the relaxed f
        other = strips(row, low, high)
        apart = other.room + strip.room < error
        error = np.where(apart, other.room, error)
        scale = np.where(apart, other.slope, scale)
        f.lose(~(np.isfinite(error) & np.isfinite(scale)), error, scale)
        self._apply(plan, scale, error, apart, other)

    def _apply(
        self, plan: _Plan, scale: FloatArray, error: FloatArray, apart: npt.NDArray[np.bool_], other: Strips
    ) -> None:
        """New difference: scale dz + tilt z_f + shift +- error, where tilt and shift are 0 unless `apart`."""
        f, strip = self.f, plan.strip
        b, i = np.nonzero(apart)
        tilt = other.slope[b, i] - strip.slope[b, i]
        shift = other.shift[b, i] - strip.shift[b, i] + tilt * f.center[b, i]
        cross = f.forms[:, b, i] * tilt
        # rounding: of scale dz, and of everything that `apart` adds
        steep = np.abs(scale)
        rough = (scale != 0) & (scale != 1)
        rest = np.where(rough, 2 * _SLACK * _EPS * steep * (np.abs(self.gap) + self.total) + _TINY, 0.0)
        rest += steep * self.rest
        size = np.abs(other.shift[b, i]) + np.abs(strip.shift[b, i])
        size += (np.abs(other.slope[b, i]) + np.abs(strip.slope[b, i])) * (np.abs(f.center[b, i]) + f.total[b, i])
        size += steep[b, i] * (np.abs(self.gap[b, i]) + self.total[b, i])
        rest[b, i] += np.abs(tilt) * f.rest[b, i] * (1 + 4 * _EPS) + 4 * _SLACK * _EPS * size + _TINY
        rest += np.where(apart, plan.left, 0.0)
        total = steep * self.total + error
        total[b, i] += np.abs(tilt) * f.total[b, i] + strip.room[b, i]
        self.gap = scale * self.gap
        self.gap[b, i] += shift
        self.shared[:, b, i] = self.shared[:, b, i] * scale[b, i] + cross

        index, kept, left = _largest(error, f.keep)
        self.own_shares.append(f.shares_of(index))
        tied = np.where(np.take_along_axis(apart.T, plan.index, axis=0), -plan.kept, 0.0)
        f.choose(strip.slope != 0, strip.room > 0, scale != 0, error > 0, apart)
        factor = np.where(apart, 1.0, scale)  # those are scaled already
        self.shared = _extended(self.shared, factor, plan.index, tied, f.live)
        self.own = _extended(self.own, scale, index, kept, f.live)
        self.rest, self.total = (rest + left) * (1 + 8 * _EPS), total
        f.apply(plan)

    def spans(self) -> Spans:
        """What the forms say of the outputs."""
        n = self.f.inputs
        errors = np.concatenate([self.shared[n:], self.own])
        return _spans(self.gap, self.shared[:n], errors, [*self.f.shares, *self.own_shares], self.rest, self.f.lost)


def _largest(room: FloatArray, keep: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """Indices (K, B) of the largest entries of each row, those entries, and the rest of the rows, (B, n)."""
    count = min(keep, int((room > _WORTH).sum(axis=1).max(initial=0)))
    index = np.argsort(-room, axis=1)[:, :count]
    kept = np.take_along_axis(room, index, axis=1)
    left = room.copy()
    np.put_along_axis(left, index, 0.0, axis=1)
    return np.ascontiguousarray(index.T), kept.T, left


def _extended(
    forms: FloatArray, scale: FloatArray, index: IntArray, values: FloatArray, live: IntArray | slice
) -> FloatArray:
    """The live columns of forms * scale, with one more symbol for each of the values."""
    count, (old, batch, n) = len(index), forms.shape
    fresh = np.zeros((count, batch, n))
    np.put_along_axis(fresh, index[:, :, None], values[:, :, None], axis=2)
    fresh = fresh[:, :, live]
    out = np.empty((old + count, *fresh.shape[1:]))
    np.multiply(forms[:, :, live], scale[:, live], out=out[:old])
    out[old:] = fresh
    return out


def _gamma(n: int) -> float:
    """Relative error of sums of two dot products of n terms, with slack."""
    return _SLACK * _EPS * (2 * n + 12)


def _product(forms: FloatArray, matrix: FloatArray) -> FloatArray:
    count, batch, n = forms.shape
    out: FloatArray = forms.reshape(count * batch, n) @ matrix
    return out.reshape(count, batch, matrix.shape[1])
