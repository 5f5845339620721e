"""Blocks of always-linear neurons, rewritten with as few neurons as the rank of their linear map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation, Piece
from fiberscope.network import affine_enclosure
from fiberscope.reduction.state import State

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_BITS = 10_000
_ELIMINATION = 2_000_000
"""Largest m n min(m, n) for which an m x n matrix is eliminated over Q: numbers grow with the rank."""


def has_identity_piece(row: Activation) -> bool:
    """Whether s(z) = z for all z >= 0, as for ReLU and its relatives."""
    return any(
        p.slope == 1 and p.intercept == 0 and p.hi is None and (p.lo is None or p.lo <= 0) for p in row.pieces or ()
    )


@dataclass(frozen=True)
class _Block:
    """Always-linear neurons of one layer: s(z) = slope z + intercept on the domain for each."""

    neurons: tuple[int, ...]
    slopes: ExactArray
    intercepts: ExactArray
    rows: ExactArray
    biases: ExactArray
    columns: ExactArray  # outgoing weights times slopes


def linear_block(state: State, layer: int) -> _Block | None:
    """The neurons of a layer whose enclosure lies in one linear piece of nonzero slope."""
    here, above = state.net.layers[layer], state.net.layers[layer + 1]
    if state.lower is None or state.upper is None or not has_identity_piece(here.activation):
        return None
    found: list[tuple[int, Piece]] = []
    for i, (low, high) in enumerate(zip(state.lower[layer].tolist(), state.upper[layer].tolist(), strict=True)):
        piece = _steepest_piece(here.activation, low, high)
        if piece is not None and piece.slope != 0:
            found.append((i, piece))
    if len(found) < 2:
        return None
    index = [i for i, _ in found]
    slopes = np.array([p.slope for _, p in found], dtype=object)
    columns = above.weight[:, index]
    if (slopes != 1).any():
        columns = rationals.simplified(rationals.fractions(columns) * slopes)
    return _Block(
        tuple(index), slopes, np.array([p.intercept for _, p in found], dtype=object),
        here.weight[index], here.bias[index], columns,
    )  # fmt: skip


def _steepest_piece(row: Activation, low: float, high: float) -> Piece | None:
    """The piece that holds the interval; at a kink the steeper of two, as the checker has it."""
    fit = [p for p in row.pieces or () if (p.lo is None or low >= p.lo) and (p.hi is None or high <= p.hi)]
    return max(fit, key=lambda p: abs(p.slope)) if fit else None


def fold_block(state: State, layer: int, low: FloatArray, high: FloatArray) -> bool:
    """Fold the layer's always-linear block if fewer neurons carry the same linear map.

    The block contributes V (U y + c) + const with V (n_out, a), U (a, n_in). For the rank r of V U it is rewritten as
    V' (U' y + c') + const' with r rows, in the cheapest way that keeps the new neurons active on the domain: copies of
    the inputs (r = n_in), the block's outputs themselves (r = n_out), or independent rows of U or of V U. A fold that
    keeps a neuron (independent rows of U) needs no new enclosure. O(a n_in n_out) rational operations.

    Args:
        state: changed in place.
        layer: hidden layer.
        low: lower ends of the input box.
        high: its upper ends.

    Returns:
        Whether neurons were saved.
    """
    block = linear_block(state, layer)
    if block is None:
        return False
    size = len(block.neurons)
    product = rationals.matmul(block.columns, block.rows)
    rank = rationals.rank(product)
    empty = size == state.net.layers[layer].n_out
    if max(rank, 1 if empty else 0) >= size:
        return False
    inputs = state.input_of(layer, low, high)
    for rows, columns in _candidates(block, product, rank, int(empty)):
        if len(rows) >= size:
            continue
        biases = _active_biases(state, layer, rows, inputs)
        if biases is None or not (_short(rows) and _short(columns)):
            continue
        shift = _constant(block, columns, biases)
        state.fold(layer, block.neurons, (rows, biases, columns), shift, low, high)
        return True
    return False


def _short(array: ExactArray) -> bool:
    """Whether every number may be written down: certificates hold integers of at most 4300 digits."""
    if not rationals.is_rational(array):
        return True
    return all(max(q.numerator.bit_length(), q.denominator.bit_length()) < _BITS for q in array.reshape(-1))


def _candidates(block: _Block, product: ExactArray, rank: int, least: int) -> Iterator[tuple[ExactArray, ExactArray]]:
    """Ways (rows, columns) to write the block's map, cheapest first; elimination over Q only where it stays small."""
    outputs, width = product.shape
    if rank == 0:
        yield np.zeros((least, width)), np.zeros((outputs, least))
    if rank == width:
        yield np.eye(width), product
    if rank == outputs:
        yield product, np.eye(outputs)
    for matrix, left in ((block.rows, block.columns), (product, np.eye(outputs))):
        if matrix.size * min(matrix.shape) <= _ELIMINATION:
            yield _independent_rows(matrix, left)


def _independent_rows(matrix: ExactArray, left: ExactArray) -> tuple[ExactArray, ExactArray]:
    """Rows R of the matrix and C with matrix = C R; returns (R, left C)."""
    pivots, form = rationals.row_reduce(matrix.T)
    return matrix[list(pivots)], rationals.matmul(left, form.T)


def _active_biases(
    state: State, layer: int, rows: ExactArray, inputs: tuple[FloatArray, FloatArray]
) -> ExactArray | None:
    """Biases that keep rows y + biases >= 0 for all inputs y, or None where no finite one does."""
    pieces = state.net.layers[layer].activation.pieces or ()
    if not len(rows) or len(pieces) == 1:  # a linear activation needs no sign
        return np.zeros(len(rows))
    fresh = replace(state.net.layers[layer], weight=rows, bias=np.zeros(len(rows)), frame=None)
    lower, upper = affine_enclosure(fresh, *inputs)
    if not np.isfinite(lower).all():
        return None
    out = np.zeros(len(rows))
    for k, (low, high) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        if low < 0.0:
            span = high - low if math.isfinite(high - low) else -low
            out[k] = _round_up(-low + 2.0**-20 * span)
    return out if np.isfinite(out).all() else None


def _round_up(value: float) -> float:
    """A float of 12 significant bits that is at least `value`, so that new biases stay short."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(math.ceil(mantissa * 4096), exponent - 12) if exponent < 1024 else math.inf


def _constant(block: _Block, columns: ExactArray, biases: ExactArray) -> ExactArray:
    """V (c + t / p) - V' c', where the block's columns already carry the slopes p."""
    ratio = rationals.simplified(block.intercepts / block.slopes)
    old = rationals.matmul(block.columns, rationals.add(block.biases, ratio))
    if not biases.size:
        return old
    return rationals.add(old, rationals.scale(rationals.matmul(columns, biases), Fraction(-1)))
