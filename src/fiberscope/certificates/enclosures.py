"""Enclosures of the checker: intervals, and linear relaxations substituted back to the input.

Everything is float64 with a-priori error terms added outward (Higham, Accuracy and Stability, section 3.1): a dot
product of n terms is wrong by at most n u / (1 - n u) times the sum of the magnitudes. The factor `_SLACK` and the
extra terms cover the rounding of weights that are no float64, and of the error terms themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.certificates.matrices import Matrix, upward

FloatArray = npt.NDArray[np.float64]
Pair = tuple[FloatArray, FloatArray]
Slopes = Mapping[int, Mapping[int, Mapping[str, FloatArray]]]
"""layer -> neuron -> "lower" | "upper" -> slopes of all earlier hidden neurons, each in [0, 1]."""

EPS = float(np.finfo(np.float64).eps)
_SLACK = 2.0
TINY = 1e-300
"""More than all underflows of one dot product together."""


@dataclass(frozen=True, eq=False)
class Affine:
    """One layer while replaying: W (m, n), b (m, 1), and the activation after it."""

    weight: Matrix
    bias: Matrix
    activation: Activation

    @property
    def shift(self) -> FloatArray:
        """The bias as nearest floats, (m,)."""
        return self.bias.near[:, 0]


def gamma(n: int) -> float:
    """Relative error allowed for a float64 dot product of n terms."""
    return _SLACK * (n + 4) * EPS


def times(matrix: npt.NDArray[Any], vector: FloatArray) -> FloatArray:
    """Matrix @ vector for nonnegative entries with 0 * inf = 0; NaN (from overflow) becomes inf."""
    matrix = matrix.astype(np.float64, copy=False)
    finite = np.isfinite(vector)
    if finite.all():
        out = matrix @ vector
    else:
        out = matrix @ np.where(finite, vector, 0.0)
        out = np.where((matrix[:, ~finite] != 0).any(axis=1), np.inf, out)
    return np.where(np.isnan(out), np.inf, out)


# ---- intervals


def interval(affine: Affine, low: FloatArray, high: FloatArray) -> Pair:
    """Enclosure of W y + b over low <= y <= high, (m,) each. Ends may be infinite; 0 * inf = 0.

    A row whose every product is zero encloses its bias without widening, so arguments by signs stay exact.
    """
    weight, bias = affine.weight.near, affine.shift
    exact = affine.weight.is_float and affine.bias.is_float
    with np.errstate(all="ignore"):
        plus, minus = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
        lower = _least(plus, minus, bias, low, high, exact)
        upper = -_least(-minus, -plus, -bias, low, high, exact)
    return lower, upper


def _least(
    plus: FloatArray, minus: FloatArray, bias: FloatArray, low: FloatArray, high: FloatArray, exact: bool
) -> FloatArray:
    """A lower bound of plus y + minus y + bias with plus >= 0 >= minus."""
    below, above = (np.where(np.isfinite(v), v, 0.0) for v in (low, high))
    value = plus @ below + minus @ above + bias
    size = plus @ np.abs(below) - minus @ np.abs(above) + np.abs(bias)
    error = gamma(plus.shape[1]) * size + TINY
    if not exact:  # weights beneath the normal range are wrong by a subnormal each
        error = error + 1e-307 * (np.abs(below).sum() + np.abs(above).sum())
    for i in np.flatnonzero(size == np.abs(bias)).tolist():
        if not (plus[i] * (below != 0)).any() and not (minus[i] * (above != 0)).any():
            error[i] = 0.0 if exact else EPS * abs(bias[i])
    least = value - error
    for end, part in ((low == -np.inf, plus), (high == np.inf, minus)):
        if end.any():
            least = np.where((part[:, end] != 0).any(axis=1), -np.inf, least)
    return np.where(np.isfinite(least), least, -np.inf)


# ---- linear relaxations of one layer's activation


@dataclass(frozen=True, eq=False)
class _Lines:
    """For z in [lower, upper]: s_low z + t_low <= s(z) <= s_high z + t_high; (n,) each.

    `steep` and `flat` are the ends between which s_low may lie where `open_` (an unstable ReLU), else unused.
    """

    s_low: FloatArray
    t_low: FloatArray
    s_high: FloatArray
    t_high: FloatArray
    open_: npt.NDArray[np.bool_]
    flat: float
    steep: float
    size: FloatArray

    def with_shares(self, shares: FloatArray) -> FloatArray:
        """Lower slopes with those of the open neurons at the given shares of the way from flat to steep."""
        slopes = np.clip(self.flat + shares * (self.steep - self.flat), self.flat, self.steep)
        return np.where(self.open_, slopes, self.s_low)


def _relax(activation: Activation, lower: FloatArray, upper: FloatArray) -> _Lines:
    """Constants by default; for ReLU and leaky ReLU s(z) = z where active, chord and ray where unstable."""
    low, high = activation.enclose(lower, upper)
    s_low, s_high = np.zeros(len(lower)), np.zeros(len(lower))
    t_low, t_high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    size = np.maximum(np.abs(lower), np.abs(upper))
    flat, steep = _kink(activation)
    relu_like = flat < steep
    active = (lower >= 0) & relu_like
    s_low[active] = s_high[active] = 1.0
    t_low[active] = t_high[active] = 0.0
    open_ = (lower < 0) & (upper > 0) & np.isfinite(size) & relu_like
    s_low[open_] = np.where(upper[open_] > -lower[open_], steep, flat)
    t_low[open_] = 0.0
    s_high[open_], t_high[open_] = _chord(lower[open_], upper[open_], flat, steep)
    return _Lines(s_low, t_low, s_high, t_high, open_, flat, steep, size)


def _kink(activation: Activation) -> tuple[float, float]:
    """Slopes (flat, 1) of s(z) = flat z for z < 0 and z for z > 0, 0 <= flat < 1; (1, 1) for all other activations."""
    pieces = activation.pieces or ()
    if len(pieces) != 2 or pieces[0].hi != 0 or any(p.intercept != 0 for p in pieces) or pieces[1].slope != 1:
        return 1.0, 1.0
    slope = pieces[0].slope
    return (upward(slope), 1.0) if slope == 0 or 1e-300 < slope < 1 else (1.0, 1.0)


def _chord(lower: FloatArray, upper: FloatArray, flat: float, steep: float) -> Pair:
    """A line above flat z for z <= 0 and steep z for z >= 0 on [lower, upper], for lower < 0 < upper.

    For any slope, s(z) - slope z is convex, so its largest value is at an end; rounded up it is the intercept.
    """
    with np.errstate(all="ignore"):
        slope = (steep * upper - flat * lower) / (upper - lower)
        slope = np.clip(np.where(np.isfinite(slope), slope, steep), flat, steep)
        ends = np.maximum((flat - slope) * lower, (steep - slope) * upper)
        room = 4 * EPS * ((flat + slope) * -lower + (steep + slope) * upper) + TINY
    return slope, np.maximum(ends, 0.0) + room


# ---- enclosures of a whole network


@dataclass(eq=False)
class Snapshot:
    """A network at one moment of the replay, with enclosures of its pre-activations computed when asked for.

    Args:
        layers: the network.
        low, high: the box.
        method: "interval", or "backward": linear relaxations substituted back to the input, intersected with intervals.
        slopes: lower-relaxation slopes for single neurons, on top of the default rule.
    """

    layers: Sequence[Affine]
    low: FloatArray
    high: FloatArray
    method: str = "interval"
    slopes: Slopes = field(default_factory=dict)
    _known: list[Pair] = field(default_factory=list)
    _lines: list[_Lines] = field(default_factory=list)
    _plain: Snapshot | None = None

    def layer(self, index: int) -> Pair:
        """Lower and upper ends of the pre-activations of one layer."""
        while len(self._known) <= index:
            self._known.append(self._next(len(self._known)))
        return self._known[index]

    def input_of(self, index: int) -> Pair:
        """Enclosure of what a layer takes."""
        if index == 0:
            return self.low, self.high
        return self.layers[index - 1].activation.enclose(*self.layer(index - 1))

    def _next(self, index: int) -> Pair:
        lower, upper = interval(self.layers[index], *self.input_of(index))
        if self.method == "backward" and index:
            self._lines.append(_relax(self.layers[index - 1].activation, *self._known[index - 1]))
            weight, bias = self.layers[index].weight.near, self.layers[index].shift
            lower = np.maximum(lower, self._substitute(index, weight, bias, None))
            upper = np.minimum(upper, -self._substitute(index, -weight, -bias, None))
            self._use_slopes(index, lower, upper)
        if self.slopes:  # also at least as tight as without any
            if self._plain is None:
                self._plain = Snapshot(self.layers, self.low, self.high, self.method)
            plain = self._plain.layer(index)
            lower, upper = np.maximum(lower, plain[0]), np.minimum(upper, plain[1])
        return lower, upper

    def _use_slopes(self, index: int, lower: FloatArray, upper: FloatArray) -> None:
        rows = self.slopes.get(index, {})
        weight, bias = self.layers[index].weight.near, self.layers[index].shift
        for side, ends, sign in (("lower", lower, 1.0), ("upper", upper, -1.0)):
            chosen = [i for i, given in rows.items() if side in given]
            if chosen:
                shares = np.array([rows[i][side] for i in chosen])
                found = sign * self._substitute(index, sign * weight[chosen], sign * bias[chosen], shares)
                ends[chosen] = np.maximum(ends[chosen], found) if sign > 0 else np.minimum(ends[chosen], found)

    def _substitute(self, index: int, rows: FloatArray, constants: FloatArray, shares: FloatArray | None) -> FloatArray:
        """Lower bounds of rows h + constants, h the outputs below layer `index`; the best over all depths.

        `rows` are nearest floats of exact weights. Invariant: the exact value is at least rows h + constants - error.
        """
        with np.errstate(all="ignore"):
            error = EPS * np.abs(constants) + TINY
            error += self._rounded_weights(index, rows)
            best = np.full(len(rows), -np.inf)
            stop = sum(self.layers[k].weight.shape[0] for k in range(index))
            for k in range(index - 1, -1, -1):
                width = self.layers[k].weight.shape[0]
                part = None if shares is None else shares[:, stop - width : stop]
                stop -= width
                rows, constants, error = self._through(k, rows, constants, error, part)
                low, high = self.input_of(k)
                plus, minus = np.maximum(rows, 0.0), np.minimum(rows, 0.0)
                least = _least(plus, minus, constants, low, high, exact=False) - error
                least = np.where(np.isfinite(least), least, -np.inf)
                best = np.maximum(best, least - EPS * np.abs(least))
        return best

    def _rounded_weights(self, index: int, rows: FloatArray) -> FloatArray:
        if self.layers[index].weight.is_float:
            return np.zeros(len(rows))
        low, high = self.input_of(index)
        size = np.maximum(np.abs(low), np.abs(high))
        return EPS * times(np.abs(rows), size) + 1e-307 * times(rows != 0, size)

    def _through(
        self, k: int, rows: FloatArray, constants: FloatArray, error: FloatArray, shares: FloatArray | None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Through the activation and the affine map of hidden layer k."""
        lines, layer = self._lines[k], self.layers[k]
        slopes = lines.s_low if shares is None else lines.with_shares(shares)
        plus, minus = np.maximum(rows, 0.0), np.minimum(rows, 0.0)
        # value >= plus (s_low z + t_low) + minus (s_high z + t_high) + constants - error
        below, above = (np.where(np.isfinite(t), t, 0.0) for t in (lines.t_low, lines.t_high))
        lost = ((plus[:, below != lines.t_low] != 0).any(axis=1)) | ((minus[:, above != lines.t_high] != 0).any(axis=1))
        constants = constants + plus @ below + minus @ above
        size = plus @ np.abs(below) - minus @ np.abs(above) + np.abs(constants)
        error = error + gamma(rows.shape[1]) * size + TINY
        rows = plus * slopes + minus * lines.s_high
        odd = lines.open_  # the other slopes are 0 and 1, which do not round
        if odd.any():
            used = (plus[:, odd] != 0) | (minus[:, odd] != 0)
            error = error + EPS * times(np.abs(rows[:, odd]), lines.size[odd]) + 1e-307 * times(used, lines.size[odd])
        # z = W h + b
        low, high = self.input_of(k)
        reach = np.maximum(np.abs(low), np.abs(high))
        spread = times(np.abs(layer.weight.near), reach) + np.abs(layer.shift)
        constants = constants + rows @ layer.shift
        error = error + gamma(rows.shape[1]) * (times(np.abs(rows), spread) + np.abs(constants)) + TINY
        if not layer.weight.is_float or not layer.bias.is_float:
            error = error + 1e-307 * times(np.abs(rows), np.full(rows.shape[1], 1.0 + reach.sum()))
        # underflow of a product: in rows (times |z|), in rows W (times |h|), in spread
        faint = 1e-307 * (sum(layer.weight.shape) + 2) * (1.0 + reach.sum())
        error = error + 1e-307 * spread.sum() + faint * (1.0 + np.abs(rows).sum(axis=1))
        rows = rows @ layer.weight.near
        ok = ~lost & np.isfinite(rows).all(axis=1) & np.isfinite(constants) & np.isfinite(error)
        return np.where(ok[:, None], rows, 0.0), np.where(ok, constants, 0.0), np.where(ok, error, np.inf)
