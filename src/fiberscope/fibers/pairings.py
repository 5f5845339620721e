"""Layers of f and g in float64, neuron by neuron, with bounds of every rounding: what the zonotopes run on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.fibers.alignment import Alignment
from fiberscope.network import Layer, Network

FloatArray = npt.NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_FAINT = 1e-307
"""More than one underflow: of a product, or of a weight beneath the normal range."""


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
    with np.errstate(all="ignore"):
        (gap, lost), (bias_gap, bias_lost) = _difference(weight, mine), _difference(bias, shift)
    gap_error = _sum_up(weight_error, rounding(first.weight, mine), lost)
    bias_gap_error = _sum_up(bias_error, rounding(first.bias, shift), bias_lost)
    own = value_layer(first)
    second, apart, error = (np.ascontiguousarray(v.T) for v in (weight, gap, gap_error))
    return PairedLayer(
        own.first, own.first_size, own.bias, own.activation, second, np.abs(second), apart, np.abs(apart), error,
        bias_gap, bias_gap_error,
    )  # fmt: skip


def _difference(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rounded a - b and the size of its error, 0 where it is exact (Knuth's two-sum)."""
    out = a - b
    part = out - a
    error = np.abs((a - (out - part)) - (b + part))
    return out, np.where(np.isfinite(error), error, np.inf)


def _sum_up(*parts: FloatArray) -> FloatArray:
    total = sum(parts[1:], parts[0])
    return np.where(total > 0, total * (1 + 4 * _EPS), 0.0)


def rounding(exact: npt.NDArray[np.generic], near: FloatArray) -> FloatArray:
    """Bounds of |exact - near| for nearest floats: 0 for an array of floats, else eps |near| and one underflow."""
    return np.abs(near) * _EPS + _FAINT if rationals.is_rational(exact) else np.zeros(near.shape)


def paired_layers(f: Network, aligned: Alignment) -> list[PairedLayer]:
    """Pair the layers of f with those of an aligned g, rounded to float64 with error bounds.

    Args:
        f: a network.
        aligned: what `align(f, g)` found.

    Returns:
        One pair for each layer. Factors that are powers of two round nothing. O(parameters).
    """
    out = []
    below = np.ones(f.widths[0])
    order_below: npt.NDArray[np.intp] | slice = slice(None)
    for k, (mine, theirs) in enumerate(zip(f.layers, aligned.source.layers, strict=True)):
        order, scale = np.arange(mine.n_out), np.ones(mine.n_out)
        if k < len(aligned.moves):
            order = np.array(aligned.moves[k].permutation, dtype=np.intp)
            scale = np.array([float(q) for q in aligned.moves[k].factors])  # exact: they are floats
        ratio = scale[:, None] / below[None, :]
        weight, weight_error = _scaled(
            theirs.weight[order][:, order_below], theirs.weight64[order][:, order_below], ratio
        )
        bias, bias_error = _scaled(theirs.bias[order], theirs.bias64[order], scale)
        out.append(paired_layer(mine, weight, bias, weight_error, bias_error))
        below, order_below = scale, order
    return out


def _scaled(exact: npt.NDArray[np.generic], near: FloatArray, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Product near * ratio, and how far that is from the exact product; ratio is within eps of the exact one."""
    with np.errstate(all="ignore"):
        out = near * ratio
        power = np.abs(np.frexp(ratio)[0]) == 0.5
        error = np.where(power, 0.0, 2 * _EPS * np.abs(out)) + rounding(exact, near) * np.abs(ratio) * (1 + 4 * _EPS)
        faint = (near != 0) & (np.abs(out) < 1e-290)
        return out, error + np.where(faint, _FAINT, 0.0)
