"""Replay of the moves that lead to a normal form: scale, permute, flip, and those that leave a linear part.

Meanwhile a network is V s(U y + c) + skip y + d on top, y the outputs of the layers below.
Each move is an identity of functions on the domain once its own condition holds (arXiv 2605.18319).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation, activation
from fiberscope.certificates.enclosures import Affine
from fiberscope.certificates.format import rational
from fiberscope.certificates.matrices import Matrix, zeros
from fiberscope.certificates.moves import (
    MOVES,
    Refusal,
    Step,
    check_indices,
    extreme,
    hidden_layer,
    inside,
    output_factor,
)
from fiberscope.certificates.state import State
from fiberscope.errors import CertificateError

ExactArray = npt.NDArray[Any]

_TURNS: Mapping[str, tuple[int, int, int]] = {
    "relu": (1, 1, 0), "softplus": (1, 1, 0), "silu": (1, 1, 0), "gelu": (1, 1, 0), "gelu_tanh": (1, 1, 0),
    "sigmoid": (-1, 0, 1),
}  # fmt: skip
"""(e, a, b) with s(t) = e s(-t) + a t + b; odd and even activations are known by their parity."""


def _row_times(matrix: Matrix, factors: Sequence[Fraction]) -> Matrix:
    return Matrix.of(rationals.scale_rows(matrix.exact(), factors))


def _column_times(matrix: Matrix, factors: Sequence[Fraction]) -> Matrix:
    return _row_times(matrix.T, factors).T


def _set_bias(state: State, layer: int, change: ExactArray) -> None:
    here = state.layers[layer]
    state.layers[layer] = replace(here, bias=Matrix.of(rationals.add(here.bias.exact()[:, 0], change)))


def _product(a: Matrix, b: Matrix) -> ExactArray:
    return rationals.matmul(a.exact(), b.exact())


def _vector(values: Sequence[Fraction]) -> ExactArray:
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return rationals.simplified(out)


# ---- any hidden layer


def _scale(state: State, step: Step) -> None:
    layer = hidden_layer(state, step)
    factors = [rational(text) for text in step["factors"]]
    if len(factors) != state.width(layer):
        raise CertificateError(f"{len(factors)} factors; layer {layer} has {state.width(layer)} neurons then")
    here = state.layers[layer]
    inverse = []
    for i, e in enumerate(factors):
        phi = None if e == 0 else output_factor(here.activation, e)
        if phi is None:
            raise Refusal(f"{here.activation.label} has no rule for the factor {e} (neuron {i})")
        inverse.append(1 / phi)
    state.layers[layer] = replace(here, weight=_row_times(here.weight, factors), bias=_row_times(here.bias, factors))
    state.map_columns(layer, lambda columns: _column_times(columns, inverse))


def _permute(state: State, step: Step) -> None:
    layer, order = hidden_layer(state, step), step["order"]
    check_indices(state, layer, order)
    if len(order) != state.width(layer):
        raise CertificateError(f"the order names {len(order)} of the {state.width(layer)} neurons of layer {layer}")
    state.keep(layer, np.asarray(order, dtype=np.int64))


def _flip(state: State, step: Step) -> None:
    layer, neurons = hidden_layer(state, step), step["neurons"]
    check_indices(state, layer, neurons)
    here = state.layers[layer]
    rule = _turn_rule(here.activation)
    if rule is None:
        raise Refusal(f"{here.activation.label} has no rule that relates s(t) and s(-t)")
    sign, slope, shift = rule
    if slope and layer != len(state.layers) - 2:
        raise Refusal(f"turning {here.activation.label} round leaves a linear part; only the last hidden layer may")
    if shift:
        columns = state.columns(layer).take_columns(neurons)  # of the linear part too
        state.shift(layer, rationals.matmul(columns.exact(), np.full(len(neurons), float(shift))))
    if slope:
        _pay(state, neurons, [Fraction(slope)] * len(neurons))
    turned = [Fraction(-1 if i in set(neurons) else 1) for i in range(state.width(layer))]
    state.layers[layer] = replace(here, weight=_row_times(here.weight, turned), bias=_row_times(here.bias, turned))
    if sign < 0:
        state.map_columns(layer, lambda columns: _column_times(columns, turned))


def _turn_rule(row: Activation) -> tuple[int, int, int] | None:
    if row.parity is not None:
        return (-1 if row.parity == "odd" else 1), 0, 0
    return _TURNS.get(row.name)


# ---- the last hidden layer


def _pay(state: State, neurons: Sequence[int], slopes: Sequence[Fraction]) -> None:
    """Add slope v (u y + c) of last-layer neurons to the linear part."""
    here, last = state.layers[-2], state.layers[-1]
    columns = _column_times(last.weight.take_columns(neurons), slopes)
    linear = _product(columns, here.weight.take_rows(neurons))
    state.skip = Matrix.of(linear if state.skip is None else rationals.add(state.skip.exact(), linear))
    _set_bias(state, -1, _product(columns, here.bias.take_rows(neurons))[:, 0])


def _absorb(state: State, step: Step) -> None:
    layer, neurons = len(state.layers) - 2, step["neurons"]
    _has_hidden(state, 1)
    check_indices(state, layer, neurons)
    here = state.layers[layer]
    ends = state.input_of(layer)
    slopes, held = [], []
    for i in neurons:
        least, most = (extreme(here.weight, here.bias, i, pair) for pair in (ends, ends[::-1]))
        fits = [p for p in here.activation.pieces or () if inside(p.lo, least, 1) and inside(p.hi, most, -1)]
        if not fits:
            raise Refusal(f"neuron {i} is not proved to stay in one linear piece of {here.activation.label}")
        slopes.append(fits[0].slope)
        held.append(fits[0].intercept)
    _pay(state, neurons, slopes)
    columns = state.layers[-1].weight.take_columns(neurons)
    _set_bias(state, -1, rationals.matmul(columns.exact(), _vector(held)))
    _leave(state, layer, neurons)


def _leave(state: State, layer: int, neurons: Sequence[int]) -> None:
    stay = np.ones(state.width(layer), dtype=bool)
    stay[list(neurons)] = False
    state.keep(layer, np.flatnonzero(stay))


def _has_hidden(state: State, count: int) -> None:
    if len(state.layers) < count + 1:
        raise CertificateError(f"there are {len(state.layers) - 1} hidden layers; the move needs {count}")


def _resolve(state: State, step: Step) -> None:
    _has_hidden(state, 1)
    here, last = state.layers[-2], state.layers[-1]
    pieces = here.activation.pieces
    if here.activation.name == "sigmoid":  # 1/2 + tanh(t / 2) / 2
        halves = [Fraction(1, 2)] * state.width(len(state.layers) - 2)
        _set_bias(state, -1, rationals.matmul(last.weight.exact(), _vector(halves)))
        state.layers[-2] = Affine(_row_times(here.weight, halves), _row_times(here.bias, halves), activation("tanh"))
        state.layers[-1] = replace(state.layers[-1], weight=_column_times(last.weight, halves))
        return
    if not pieces:
        raise Refusal(f"{here.activation.label} is neither piecewise linear nor a sigmoid")
    for left, right in zip(pieces, pieces[1:], strict=False):
        kink = left.hi
        if (
            kink is None
            or kink != right.lo
            or left.slope * kink + left.intercept != right.slope * kink + right.intercept
        ):
            raise Refusal(f"{here.activation.label} is not continuous")
    everyone = list(range(state.width(len(state.layers) - 2)))
    _pay(state, everyone, [pieces[0].slope] * len(everyone))
    _set_bias(state, -1, rationals.matmul(last.weight.exact(), _vector([pieces[0].intercept] * len(everyone))))
    weight, bias, columns = zeros(0, here.weight.shape[1]), zeros(0, 1), zeros(last.weight.shape[0], 0)
    for left, right in zip(pieces, pieces[1:], strict=False):
        kinks = _vector([-Fraction(left.hi or 0)] * len(everyone))
        weight = weight.below(here.weight)
        bias = bias.below(Matrix.of(rationals.add(here.bias.exact()[:, 0], kinks)))
        columns = columns.beside(_column_times(last.weight, [right.slope - left.slope] * len(everyone)))
    state.layers[-2] = Affine(weight, bias, activation("relu"))
    state.layers[-1] = replace(state.layers[-1], weight=columns)


# ---- the two last hidden ReLU layers


def _relu_pair(state: State) -> tuple[Affine, Affine]:
    _has_hidden(state, 2)
    below, here = state.layers[-3], state.layers[-2]
    if below.activation.name != "relu" or here.activation.name != "relu":
        raise Refusal("the two last hidden layers are not both ReLU")
    return below, here


def _readers(state: State, neuron: int) -> list[int]:
    """The last-layer neurons that see neuron i, all of them silent while z_i <= 0: u_ji > 0, u_jk <= 0, c_j <= 0."""
    _, here = _relu_pair(state)
    check_indices(state, len(state.layers) - 3, [neuron])
    if state.skip is not None and (state.skip.near[:, neuron] != 0).any():
        raise Refusal(f"the linear part reads neuron {neuron}")
    readers = np.flatnonzero(here.weight.near[:, neuron] != 0).tolist()
    for j in readers:
        row = here.weight.near[j]
        if row[neuron] < 0 or (np.delete(row, neuron) > 0).any() or here.bias.near[j, 0] > 0:
            raise Refusal(f"last-layer neuron {j} may be active where neuron {neuron} is not")
    return [int(j) for j in readers]


def _shift(state: State, step: Step) -> None:
    neuron, by = step["neuron"], rational(step["by"])
    readers = _readers(state, neuron)
    below, here = state.layers[-3], state.layers[-2]
    moved = rationals.fractions(here.bias.exact()[:, 0]).copy()
    for j in readers:
        moved[j] -= here.weight.entry(j, neuron) * by
        if moved[j] > 0:
            raise Refusal(f"a shift by {by} lets last-layer neuron {j} be active where neuron {neuron} is not")
    biases = rationals.fractions(below.bias.exact()[:, 0]).copy()
    biases[neuron] += by
    state.layers[-3] = replace(below, bias=Matrix.of(rationals.simplified(biases)))
    state.layers[-2] = replace(here, bias=Matrix.of(rationals.simplified(moved)))


def _turn(state: State, step: Step) -> None:
    neuron, onto, ratio = step["neuron"], step["onto"], rational(step["ratio"])
    readers = _readers(state, onto)
    below, here = state.layers[-3], state.layers[-2]
    check_indices(state, len(state.layers) - 3, [neuron])
    if neuron == onto:
        raise CertificateError(f"neuron {neuron} is turned onto itself")
    if state.skip is not None and (state.skip.near[:, neuron] != 0).any():
        raise Refusal(f"the linear part reads neuron {neuron}")
    for j in range(here.weight.shape[0]):
        if j not in readers and here.weight.near[j, neuron] != 0:
            raise Refusal(f"last-layer neuron {j} reads neuron {neuron} but not neuron {onto}")
        if j in readers and here.weight.entry(j, neuron) != ratio * here.weight.entry(j, onto):
            raise Refusal(f"last-layer neuron {j} does not read neurons {neuron} and {onto} in the ratio {ratio}")
    parts = []
    for part in (below.weight, below.bias):
        table = rationals.fractions(part.exact()).copy()
        table[onto] = table[onto] + ratio * table[neuron]
        table[neuron] = -table[neuron]
        parts.append(Matrix.of(rationals.simplified(table)))
    state.layers[-3] = replace(below, weight=parts[0], bias=parts[1])


def _alone(state: State, neuron: int, readers: set[int]) -> None:
    """Exactly these last-layer neurons read a neuron below."""
    seen = set(np.flatnonzero(state.layers[-2].weight.near[:, neuron] != 0).tolist())
    if seen != readers:
        raise Refusal(f"neuron {neuron} is read by {sorted(seen)}, expected {sorted(readers)}")


def _pair_read(state: State, step: Step) -> tuple[int, int, int, Fraction, Fraction]:
    """(a, b, h, u_ha, u_hb) of a last-layer neuron h without bias that reads a and b alone, with opposite signs."""
    _, here = _relu_pair(state)
    a, b, h = step["neuron"], step["other"], step["reader"]
    check_indices(state, len(state.layers) - 3, [a, b])
    check_indices(state, len(state.layers) - 2, [h])
    if set(np.flatnonzero(here.weight.near[h] != 0).tolist()) != {a, b} or a == b or here.bias.near[h, 0] != 0:
        raise Refusal(f"last-layer neuron {h} does not read neurons {a} and {b} alone without a bias")
    u, v = here.weight.entry(h, a), here.weight.entry(h, b)
    if (u > 0) == (v > 0):
        raise Refusal(f"last-layer neuron {h} reads neurons {a} and {b} with one sign")
    return a, b, h, u, v


def _linear_columns(state: State, neurons: Sequence[int]) -> ExactArray:
    if state.skip is None:
        return np.zeros((state.layers[-1].weight.shape[0], len(neurons)))
    return state.skip.take_columns(neurons).exact()


def _same(a: ExactArray, b: ExactArray) -> bool:
    return not bool((rationals.add(a, -b) != 0).any())


def _fan(state: State, step: Step) -> None:
    a, b, h, u, v = _pair_read(state, step)
    if u < 0:
        raise Refusal(f"last-layer neuron {h} reads neuron {a} with a negative weight")
    _alone(state, a, {h})
    _alone(state, b, {h})
    below, here, last = state.layers[-3:]
    jump = last.weight.take_columns([h]).exact()[:, 0]
    linear = _linear_columns(state, [a, b])
    if not _same(linear[:, 0], rationals.scale(jump, -u)) or (linear[:, 1] != 0).any():
        raise Refusal("the linear part does not complete a fan")
    # -J min(g, h) = -J relu(z_g - relu(z_g - z_h))
    first = [_row_times(part.take_rows([a]), [u]) for part in (below.weight, below.bias)]
    second = [_row_times(part.take_rows([b]), [v]) for part in (below.weight, below.bias)]
    rest = [Matrix.of(rationals.add(p.exact(), q.exact())) for p, q in zip(first, second, strict=True)]
    state.set_rows(len(state.layers) - 3, [a, b], first[0].below(rest[0]), first[1].below(rest[1]))
    _set_pair(state, h, a, b, Fraction(1), Fraction(-1), Fraction(0))
    state.layers[-1] = replace(
        last, weight=last.weight.with_columns([h], _column_times(last.weight.take_columns([h]), [Fraction(-1)]))
    )
    _forget_linear(state, [a])


def _corner(state: State, step: Step) -> None:
    p, q, h, u, v = _pair_read(state, step)
    cut = step["cut"]
    check_indices(state, len(state.layers) - 2, [cut])
    _alone(state, p, {h, cut})
    _alone(state, q, {h})
    below, here, last = state.layers[-3:]
    t, c = here.weight.entry(cut, p), here.bias.entry(cut, 0)
    if cut == h or (here.weight.near[cut] != 0).sum() != 1 or t < 0 or c > 0:
        raise Refusal(f"last-layer neuron {cut} is not relu(t y_i - c) with t > 0 <= c")
    jump = last.weight.take_columns([h]).exact()[:, 0]
    if not _same(rationals.scale(last.weight.take_columns([cut]).exact()[:, 0], t), rationals.scale(jump, -abs(u))):
        raise Refusal(f"last-layer neuron {cut} does not cut off what neuron {h} goes on with")
    linear = _linear_columns(state, [p, q])
    wanted = (Fraction(0), abs(v)) if u > 0 else (abs(u), Fraction(0))
    if any(not _same(linear[:, k], rationals.scale(jump, wanted[k])) for k in (0, 1)):
        raise Refusal("the linear part does not complete a corner")
    end = -abs(u) * c / t
    rows = []
    for part, constant in ((below.weight, Fraction(0)), (below.bias, end)):
        first = _row_times(part.take_rows([p]), [-abs(u)]).exact()
        second = _row_times(part.take_rows([q]), [abs(v)]).exact()
        start = np.full(first.shape, constant, dtype=object)
        rows.append(Matrix.of(rationals.add(first, start)).below(Matrix.of(rationals.add(second, first))))
    state.set_rows(len(state.layers) - 3, [p, q], rows[0], rows[1])
    _set_pair(state, h, p, q, Fraction(-1), Fraction(1), end)
    _forget_linear(state, [p, q])
    _leave(state, len(state.layers) - 2, [cut])


def _set_pair(state: State, h: int, a: int, b: int, u: Fraction, v: Fraction, c: Fraction) -> None:
    row = np.zeros((1, state.layers[-2].weight.shape[1]))
    row[0, a], row[0, b] = float(u), float(v)
    state.set_rows(len(state.layers) - 2, [h], Matrix.of(row), Matrix.of(np.array([c], dtype=object)))


def _forget_linear(state: State, neurons: Sequence[int]) -> None:
    if state.skip is not None:
        state.skip = state.skip.with_columns(neurons, zeros(state.skip.shape[0], len(neurons)))


def _unroll(state: State, step: Step) -> None:
    _has_hidden(state, 2)
    below, here, last = state.layers[-3:]
    if here.weight.shape[0] or state.skip is not None:
        _relu_pair(state)
    rows, biases, columns = zeros(0, below.weight.shape[1]), zeros(0, 1), zeros(last.weight.shape[0], 0)
    if state.skip is not None:
        read = np.flatnonzero((state.skip.near != 0).any(axis=0))
        rows, biases = below.weight.take_rows(read), below.bias.take_rows(read)
        columns = state.skip.take_columns(read)
    for j in range(here.weight.shape[0]):
        seen = np.flatnonzero(here.weight.near[j])
        if seen.size != 1 or here.weight.near[j, seen[0]] < 0 or here.bias.near[j, 0] > 0:
            raise Refusal(f"last-layer neuron {j} is not relu(u y_i + c) with u > 0 >= c")
        u = [here.weight.entry(j, int(seen[0]))]
        rows = rows.below(_row_times(below.weight.take_rows(seen), u))
        shifted = rationals.add(
            _row_times(below.bias.take_rows(seen), u).exact()[:, 0], here.bias.take_rows([j]).exact()[:, 0]
        )
        biases = biases.below(Matrix.of(shifted))
    state.layers[-3:] = [
        Affine(rows, biases, below.activation), replace(last, weight=columns.beside(last.weight)),
    ]  # fmt: skip
    state.skip = None


def _flatten(state: State, step: Step) -> None:
    if len(state.layers) != 2 or state.layers[0].weight.shape[0]:
        raise Refusal("the network is not a two-layer one without neurons")
    first, last = state.layers
    skip = zeros(last.weight.shape[0], first.weight.shape[1]) if state.skip is None else state.skip
    state.layers, state.skip = [replace(last, weight=skip)], None


def _hollow(state: State, step: Step) -> None:
    state.hollow = True


def _centre(state: State, step: Step) -> None:
    if state.head is None:
        raise Refusal("the network has no softmax or argmax head; its logits may not be shifted")
    if state.skip is not None:
        raise CertificateError("centre comes before any move that leaves a linear part")
    last = state.layers[-1]
    if last.activation.name != "identity":
        raise Refusal(f"the head does not take the logits but {last.activation.label} of them")
    parts = []
    for part in (last.weight, last.bias):
        table = part.exact()
        parts.append(Matrix.of(rationals.add(table, -np.broadcast_to(table[:1], table.shape))))
    state.layers[-1] = replace(last, weight=parts[0], bias=parts[1])


_OWN: dict[str, Callable[[State, Step], None]] = {
    "scale": _scale,
    "permute": _permute,
    "flip": _flip,
    "absorb": _absorb,
    "resolve": _resolve,
    "shift": _shift,
    "turn": _turn,
    "fan": _fan,
    "corner": _corner,
    "unroll": _unroll,
    "flatten": _flatten,
    "hollow": _hollow,
    "centre": _centre,
}
_WITH_SKIP = ("drop", "merge", "constant")
"""The moves of reductions that know of the linear part."""


def rearrange(state: State, step: Step) -> None:
    """Make one move of an equality certificate.

    Raises:
        Refusal: if it does not follow.
        CertificateError: if it makes no sense.
    """
    move = step["move"]
    if move in _OWN:
        _OWN[move](state, step)
        state.forget()
    elif state.skip is not None and move not in _WITH_SKIP:
        raise Refusal(f"{move} does not know of the linear part")
    else:
        MOVES[move](state, step)
    if state.skip is not None and not (state.skip.near != 0).any():
        state.skip = None


def unlike(a: State, b: State) -> str | None:
    """Where two replayed networks differ, None if they are the same weight by weight."""
    if len(a.layers) != len(b.layers):
        return f"the moves lead to {len(a.layers)} layers on one side and to {len(b.layers)} on the other"
    for k, (mine, other) in enumerate(zip(a.layers, b.layers, strict=True)):
        if mine.weight.shape != other.weight.shape:
            return f"layer {k} has shape {mine.weight.shape} on one side and {other.weight.shape} on the other"
        if mine.weight.shape[0] and mine.activation != other.activation:
            return f"layer {k} has {mine.activation.label} on one side and {other.activation.label} on the other"
        if not mine.weight.same_as(other.weight) or not mine.bias.same_as(other.bias):
            return f"the weights of layer {k} differ"
    shape = (a.layers[-1].weight.shape[0], a.layers[-2].weight.shape[1]) if len(a.layers) > 1 else (0, 0)
    skips = [zeros(*shape) if s.skip is None else s.skip for s in (a, b)]
    return None if skips[0].same_as(skips[1]) else "the linear parts differ"
