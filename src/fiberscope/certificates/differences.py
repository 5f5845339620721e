"""How far two networks of one shape can be apart: Lipschitz propagation with outward rounding, for the checker."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.certificates.enclosures import EPS, TINY, Affine, Pair, Snapshot, gamma, times
from fiberscope.certificates.matrices import upward

FloatArray = npt.NDArray[np.float64]


def difference(
    before: Sequence[Affine], after: Sequence[Affine], low: FloatArray, high: FloatArray, method: str
) -> tuple[float, float]:
    """(constant, slope) with |f(x) - g(x)|_inf <= constant + slope |x|_inf for low <= x <= high.

    With z = W h + b and z' = W' h' + b': |dz| <= |W'| |dh| + |W - W'| |h| + |b - b'|, and |dh| <= Lip |dz| with the
    Lipschitz constant of the activation where the pre-activations run. All magnitudes are pairs (a, b) standing for
    a + b |x|_inf; b = 0 wherever an enclosure is finite. Zero exactly where nothing changed.
    """
    first, second = (Snapshot(layers, low, high, method) for layers in (before, after))
    size = _reach(low, high)
    gap = np.zeros((len(low), 2))
    with np.errstate(all="ignore"):
        for k, (old, new) in enumerate(zip(before, after, strict=True)):
            ends, ends2 = first.layer(k), second.layer(k)
            gap = _capped(_affine_gap(old, new, size, gap), ends, ends2)
            hull = np.minimum(ends[0], ends2[0]), np.maximum(ends[1], ends2[1])
            gap = _stretched(gap, _lipschitz(old.activation, *hull))
            outputs = old.activation.enclose(*ends)
            gap = _capped(gap, outputs, old.activation.enclose(*ends2))
            size = _sizes(old, size, outputs)
    worst = gap.max(axis=0)
    return float(worst[0]), float(worst[1])


def _reach(low: FloatArray, high: FloatArray) -> FloatArray:
    """|x_i| <= a + b |x|_inf: (|end|, 0) where bounded, (0, 1) where not. (n, 2)."""
    ends = np.maximum(np.abs(low), np.abs(high))
    free = ~np.isfinite(ends)
    return np.stack([np.where(free, 0.0, ends), free.astype(np.float64)], axis=1)


def _sum(terms: Sequence[tuple[npt.NDArray[Any], FloatArray]]) -> FloatArray:
    """Sum of matrix @ column over nonnegative terms, (m, 2), rounded up, zero only where every product is."""
    total: Any = 0.0
    live: Any = False
    for matrix, columns in terms:
        total = total + np.stack([times(matrix, columns[:, k]) for k in (0, 1)], axis=1)
        live = live | ((matrix != 0).astype(np.float64) @ (columns != 0).astype(np.float64) > 0)
    width = sum(matrix.shape[1] for matrix, _ in terms)
    return np.where(live, total * (1 + gamma(width)) + TINY, 0.0)


def _affine_gap(old: Affine, new: Affine, size: FloatArray, gap: FloatArray) -> FloatArray:
    weights = _magnitude(new)
    change, shift = old.weight.distance(new.weight), old.bias.distance(new.bias)
    one = np.array([[1.0, 0.0]])
    return _sum([(weights, gap), (change, size), (shift, one)])


def _magnitude(affine: Affine) -> FloatArray:
    """|W| rounded up."""
    near = np.abs(affine.weight.near)
    return near if affine.weight.is_float else np.where(affine.weight.inexact, np.nextafter(near, np.inf), near)


def _capped(gap: FloatArray, ends: Pair, ends2: Pair) -> FloatArray:
    """Two numbers in known intervals are no further apart than their far ends."""
    far = np.maximum(ends[1] - ends2[0], ends2[1] - ends[0])
    far = np.where(far == 0, 0.0, np.nextafter(np.maximum(far, 0.0), np.inf))
    closer = far < gap[:, 0]
    return np.where(closer[:, None], np.stack([far, np.zeros_like(far)], axis=1), gap)


def _stretched(gap: FloatArray, factor: FloatArray) -> FloatArray:
    """Gap times factor, rounded up unless the factor is 0 or 1; 0 * inf = 0."""
    product = np.where((gap == 0) | (factor == 0)[:, None], 0.0, gap * factor[:, None] * (1 + 2 * EPS) + TINY)
    return np.where((factor == 1)[:, None], gap, product)


def _sizes(layer: Affine, size: FloatArray, outputs: Pair) -> FloatArray:
    """|h| as (a, b): its enclosure where that is finite, else |s(0)| + Lip (|W| |y| + |b|)."""
    ends = np.maximum(np.abs(outputs[0]), np.abs(outputs[1]))
    bias = np.abs(layer.bias.near) if layer.bias.is_float else np.nextafter(np.abs(layer.bias.near), np.inf)
    sums = _sum([(_magnitude(layer), size), (bias, np.array([[1.0, 0.0]]))])
    factor = np.full(len(sums), _upper_lipschitz(layer.activation))
    zero = np.zeros(1)
    origin = float(np.max(np.abs(layer.activation.enclose(zero, zero))))
    grown = _stretched(sums, factor)
    grown[:, 0] = np.where(origin > 0, (grown[:, 0] + origin) * (1 + 2 * EPS), grown[:, 0])
    finite = np.isfinite(ends)
    return np.where(finite[:, None], np.stack([ends, np.zeros_like(ends)], axis=1), grown)


def _upper_lipschitz(activation: Activation) -> float:
    if activation.pieces is not None:
        return max(upward(abs(piece.slope)) for piece in activation.pieces)
    return float(activation.lipschitz)


def _lipschitz(activation: Activation, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Lipschitz constant on [lower, upper], (m,), rounded up."""
    if activation.pieces is not None:
        out = np.zeros(len(lower))
        for piece in activation.pieces:
            met = np.ones(len(lower), dtype=bool)
            if piece.lo is not None:
                met &= -upward(-piece.lo) < upper
            if piece.hi is not None:
                met &= upward(piece.hi) > lower
            out = np.where(met, np.maximum(out, upward(abs(piece.slope))), out)
        return out
    coefficients = _polynomial(activation)
    if coefficients is None:
        return np.full(len(lower), float(activation.lipschitz))
    size = np.maximum(np.abs(lower), np.abs(upper))
    total = np.zeros(len(lower))  # |s'| <= sum k |c_k| size^(k-1)
    for k, c in reversed(list(enumerate(coefficients))[1:]):
        grown = np.where(total > 0, total * size * (1 + 2 * EPS) + TINY, 0.0)
        total = (grown + upward(k * abs(c))) * (1 + 2 * EPS)
    return total


def _polynomial(activation: Activation) -> Sequence[Fraction] | None:
    if activation.name == "square":
        return Fraction(0), Fraction(0), Fraction(1)
    return activation.parameters if activation.name == "polynomial" else None
