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

from fiberscope.activations import Activation
from fiberscope.fibers.pairings import PairedLayer, ValueLayer
from fiberscope.fibers.relaxations import Strips, kink, secants, strips

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
        marks = _joined(f.marks, g.marks, len(f.forms) - n)
        return _spans(g.center - f.center, inputs, own, marks, rest, f.lost | g.lost)


@dataclass(frozen=True, eq=False)
class _Mark:
    """Whose errors symbols are: `place` (P,) of box `row`, with the inputs' `shares` (P, n0) of its neuron."""

    place: IntArray
    row: IntArray
    shares: FloatArray


@dataclass(frozen=True, eq=False)
class _Open:
    """Entries (row, column) of a batch whose activation is not settled; `strip` and the ends are (P,).

    Args:
        row: box of each entry, ascending.
        column: its neuron.
        live: (n,) neurons that are not zero in all boxes.
    """

    row: IntArray
    column: IntArray
    live: npt.NDArray[np.bool_]

    @property
    def where(self) -> tuple[IntArray, IntArray]:
        """Index of the entries in a (B, n) array."""
        return self.row, self.column

    def slots(self, room: FloatArray, keep: int) -> tuple[IntArray, IntArray, int]:
        """(entries, place, count): the `keep` largest of each box, and their places among `count` new symbols."""
        order = np.lexsort((-room, self.row))
        order = order[room[order] > _WORTH]
        rows = self.row[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = place < keep
        return order[kept], place[kept], int(place[kept].max(initial=-1)) + 1


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
        self.marks: list[_Mark] = []
        self.lost = np.zeros(len(low), dtype=bool)
        self.live: npt.NDArray[np.bool_] | slice = slice(None)

    def through(self, layer: ValueLayer) -> None:
        """Through one affine map and its activation."""
        self.affine(layer)
        if layer.activation.name != "identity":
            low, high = self.ends()
            slope, entries = _settled(layer.activation, low, high)
            strip = strips(layer.activation, low[entries.where], high[entries.where])
            self.lose_entries(entries, strip.room, strip.shift)
            self.relax(slope, entries, strip)

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

    def ends(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends of the pre-activations, (B, n)."""
        self.total = np.abs(self.forms).sum(axis=0)
        spread = (self.total + self.rest) * (1 + _SLACK * _EPS * (len(self.forms) + 8))
        spread += _SLACK * _EPS * np.abs(self.center) + _TINY
        low, high = self.center - spread, self.center + spread
        self.lose(low, high)
        return low, high

    def lose(self, *arrays: FloatArray) -> None:
        """Give up boxes with numbers (B, n) that overflowed, and put zeros there."""
        finite = np.isfinite(arrays[0])
        for values in arrays[1:]:
            finite &= np.isfinite(values)
        if not finite.all():
            self.lost |= ~finite.all(axis=1)
            for values in arrays:
                values[~finite] = 0.0

    def lose_entries(self, entries: _Open, *arrays: FloatArray) -> None:
        """Give up the boxes of entries with numbers (P,) that overflowed, and put zeros there."""
        for values in arrays:
            bad = ~np.isfinite(values)
            self.lost[entries.row[bad]] = True
            values[bad] = 0.0

    def mark(self, entries: _Open, chosen: IntArray, place: IntArray) -> _Mark:
        """Whose errors new symbols are; before the forms are relaxed."""
        row, column = entries.row[chosen], entries.column[chosen]
        picked = np.abs(self.forms[: self.inputs, row, column])
        total = picked.sum(axis=0)
        return _Mark(place, row, np.asarray((picked / np.where(total > 0, total, 1.0)).T))

    def relax(self, slope: FloatArray, entries: _Open, strip: Strips) -> tuple[IntArray, IntArray, int]:
        """Put slope z in place of each settled activation, and the strip of each open one; the slots of new symbols."""
        at = entries.where
        error = (
            2 * _SLACK * _EPS * (np.abs(strip.slope) * (np.abs(self.center[at]) + self.total[at]) + np.abs(strip.shift))
        )
        error = np.where((strip.room == 0) & (strip.shift == 0) & _is_plain(strip.slope), 0.0, error + _TINY)
        slope[at] = strip.slope
        chosen, place, count = entries.slots(strip.room, self.keep)
        self.marks.append(self.mark(entries, chosen, place + len(self.forms) - self.inputs))
        left = strip.room.copy()
        left[chosen] = 0.0
        size = np.abs(slope)
        self.rest, self.total, self.center = size * self.rest, size * self.total, slope * self.center
        self.rest[at] = (self.rest[at] + error + left) * (1 + 8 * _EPS)
        self.total[at] += strip.room
        self.center[at] += strip.shift
        self.forms = _scaled(self.forms, slope, entries.live, count)
        self.forms[len(self.forms) - count + place, entries.row[chosen], _position(entries)[chosen]] = strip.room[
            chosen
        ]
        self.live = entries.live
        return chosen, place, count


class _Differences:
    """Affine forms of f (`f`) and of g - f: `gap` (B, n), `shared` (S, B, n), `own` (T, B, n), `rest` (B, n)."""

    def __init__(self, low: FloatArray, high: FloatArray, keep: int, linear: bool = True) -> None:
        self.f = _Values(low, high, keep, linear)
        self.gap, self.rest, self.total = (np.zeros(low.shape) for _ in range(3))
        self.shared, self.own = np.zeros(self.f.forms.shape), np.zeros((0, *low.shape))
        self.marks: list[_Mark] = []

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

    def _ends(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Lower and upper ends of g's pre-activations, and bounds of |difference|, (B, n)."""
        f = self.f
        widen = 1 + _SLACK * _EPS * (len(f.forms) + len(self.own) + 8)
        own = np.abs(self.own).sum(axis=0) + self.rest
        self.total = np.abs(self.shared).sum(axis=0) + own
        far = (np.abs(self.gap) + self.total) * widen
        joint = f.forms + self.shared
        spread = (np.abs(joint, out=joint).sum(axis=0) + own + f.rest) * widen
        spread += _SLACK * _EPS * (np.abs(f.center) + np.abs(self.gap)) + _TINY
        center = f.center + self.gap
        low, high = center - spread, center + spread
        f.lose(low, high, far)
        return low, high, far

    def _relax(self, row: Activation) -> None:
        f = self.f
        low_f, high_f = f.ends()
        low_g, high_g, far = self._ends()
        low, high = np.minimum(low_f, low_g), np.maximum(high_f, high_g)
        slope, entries = _settled(row, low, high)
        at = entries.where
        strip, other = strips(row, low_f[at], high_f[at]), strips(row, low_g[at], high_g[at])
        # theta dz with theta between the secants of where f and g run, or the relaxed g minus the relaxed f
        least, most = secants(row, low[at], high[at])
        scale, error = 0.5 * least + 0.5 * most, (0.5 * most - 0.5 * least) * far[at]
        error = np.where(error > 0, error * (1 + 16 * _EPS) + _TINY, 0.0)
        apart = other.room + strip.room < error
        error, scale = np.where(apart, other.room, error), np.where(apart, other.slope, scale)
        f.lose_entries(entries, strip.room, strip.shift, error, scale)
        self._apply(slope, entries, strip, other, scale, error, np.flatnonzero(apart))

    def _apply(
        self,
        slope: FloatArray,
        entries: _Open,
        strip: Strips,
        other: Strips,
        scale: FloatArray,
        error: FloatArray,
        apart: IntArray,
    ) -> None:
        """New difference: scale dz + tilt z_f + shift +- error, where tilt and shift are 0 unless `apart`."""
        f, at = self.f, entries.where
        b, i = entries.row[apart], entries.column[apart]
        tilt = other.slope[apart] - strip.slope[apart]
        cross = f.forms[:, b, i] * tilt
        values = np.abs(f.center[b, i]) + f.total[b, i]
        # rounding: of scale dz, and of everything that `apart` adds
        size = np.abs(scale) * (np.abs(self.gap[at]) + self.total[at])
        extra = np.where(_is_plain(scale), 0.0, 2 * _SLACK * _EPS * size + _TINY)
        more = np.abs(other.shift[apart]) + np.abs(strip.shift[apart]) + size[apart]
        more += (np.abs(other.slope[apart]) + np.abs(strip.slope[apart])) * values
        extra[apart] += np.abs(tilt) * f.rest[b, i] * (1 + 4 * _EPS) + 4 * _SLACK * _EPS * more + _TINY
        shift = other.shift[apart] - strip.shift[apart] + tilt * f.center[b, i]
        grown = np.abs(tilt) * f.total[b, i] + strip.room[apart]

        chosen, place, count = entries.slots(error, f.keep)
        self.marks.append(f.mark(entries, chosen, place + len(self.own)))
        left = error.copy()
        left[chosen] = 0.0
        factor = slope.copy()
        factor[at] = scale
        steep = np.abs(factor)
        self.rest, self.total, self.gap = steep * self.rest, steep * self.total, factor * self.gap
        self.gap[b, i] += shift
        self.total[at] += error
        self.total[b, i] += grown

        column = _position(entries)
        self.own = _scaled(self.own, factor, entries.live, count)
        self.own[len(self.own) - count + place, entries.row[chosen], column[chosen]] = error[chosen]
        tied, slot, count = f.relax(slope, entries, strip)
        self.shared = _scaled(self.shared, factor, entries.live, count)
        self.shared[: len(cross), b, column[apart]] += cross
        # the errors of f, in the symbols that they got
        is_apart = np.zeros(len(error), dtype=bool)
        is_apart[apart] = True
        unkept = np.where(is_apart, strip.room, 0.0)
        unkept[tied] = 0.0
        self.rest[at] = (self.rest[at] + extra + left + unkept) * (1 + 8 * _EPS)
        place = len(self.shared) - count + slot
        self.shared[place, entries.row[tied], column[tied]] = np.where(is_apart[tied], -strip.room[tied], 0.0)

    def spans(self) -> Spans:
        """What the forms say of the outputs."""
        n = self.f.inputs
        errors = np.concatenate([self.shared[n:], self.own])
        marks = _joined(self.f.marks, self.marks, len(self.shared) - n)
        return _spans(self.gap, self.shared[:n], errors, marks, self.rest, self.f.lost)


def _spans(
    center: FloatArray,
    inputs: FloatArray,
    errors: FloatArray,
    marks: Sequence[_Mark],
    rest: FloatArray,
    lost: npt.NDArray[np.bool_],
) -> Spans:
    widen = 1 + _SLACK * _EPS * (len(inputs) + len(errors) + 8)
    upper = (np.abs(center) + np.abs(inputs).sum(axis=0) + np.abs(errors).sum(axis=0) + rest) * widen
    upper = np.where(np.isfinite(upper) & ~lost[:, None], upper, np.inf)
    batch, worst = np.arange(len(upper)), upper.argmax(axis=1)
    scores = np.abs(inputs[:, batch, worst]).T.copy()
    for mark in marks if len(inputs) else ():
        size = np.abs(errors[mark.place, mark.row, worst[mark.row]])
        np.add.at(scores, mark.row, size[:, None] * mark.shares)
    return Spans(upper, inputs, np.nan_to_num(scores))


def _joined(first: Sequence[_Mark], second: Sequence[_Mark], offset: int) -> list[_Mark]:
    """Marks of two runs of symbols, the second one `offset` places later."""
    return [*first, *(_Mark(mark.place + offset, mark.row, mark.shares) for mark in second)]


def _settled(row: Activation, low: FloatArray, high: FloatArray) -> tuple[FloatArray, _Open]:
    """Slopes (B, n) where a ReLU is linear on [low, high], and the entries where it is not; all others are open."""
    slope = np.zeros(low.shape)
    if kink(row) != 0:
        open_ = np.ones(low.shape, dtype=bool)
    else:
        on = low >= 0
        slope[on] = 1.0
        open_ = ~on & (high > 0)
    live = (slope != 0).any(axis=0) | open_.any(axis=0)
    at, column = np.nonzero(open_)
    return slope, _Open(at, column, live)


def _position(entries: _Open) -> IntArray:
    """Columns of the entries among the live ones."""
    return np.asarray((np.cumsum(entries.live) - 1)[entries.column], dtype=np.intp)


def _is_plain(slope: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether products with the slope are exact."""
    return np.asarray((slope == 0) | (slope == 1))


def _scaled(forms: FloatArray, scale: FloatArray, live: npt.NDArray[np.bool_], count: int) -> FloatArray:
    """The live columns of forms * scale, and room for so many more symbols, zero."""
    old = len(forms)
    out = np.empty((old + count, forms.shape[1], int(live.sum())))
    np.multiply(forms[:, :, live], scale[:, live], out=out[:old])
    out[old:] = 0.0
    return out


def _gamma(n: int) -> float:
    """Relative error of sums of two dot products of n terms, with slack."""
    return _SLACK * _EPS * (2 * n + 12)


def _product(forms: FloatArray, matrix: FloatArray) -> FloatArray:
    count, batch, n = forms.shape
    out: FloatArray = forms.reshape(count * batch, n) @ matrix
    return out.reshape(count, batch, matrix.shape[1])
