"""Replay of the moves that lead to a normal form: scale, permute, flip, and those that leave a linear part.

Those on the two last hidden ReLU layers are in `pairs`.
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
from fiberscope.certificates.matrices import Matrix, column_times, row_times, zeros
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
from fiberscope.certificates.pairs import PAIR_MOVES
from fiberscope.certificates.state import State
from fiberscope.errors import CertificateError

ExactArray = npt.NDArray[Any]

_TURNS: Mapping[str, tuple[int, int, int]] = {
    "relu": (1, 1, 0), "softplus": (1, 1, 0), "silu": (1, 1, 0), "gelu": (1, 1, 0), "gelu_tanh": (1, 1, 0),
    "sigmoid": (-1, 0, 1),
}  # fmt: skip
"""(e, a, b) with s(t) = e s(-t) + a t + b; odd and even activations are known by their parity."""


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
    state.layers[layer] = replace(here, weight=row_times(here.weight, factors), bias=row_times(here.bias, factors))
    state.map_columns(layer, lambda columns: column_times(columns, inverse))


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
    state.layers[layer] = replace(here, weight=row_times(here.weight, turned), bias=row_times(here.bias, turned))
    if sign < 0:
        state.map_columns(layer, lambda columns: column_times(columns, turned))


def _turn_rule(row: Activation) -> tuple[int, int, int] | None:
    if row.parity is not None:
        return (-1 if row.parity == "odd" else 1), 0, 0
    return _TURNS.get(row.name)


# ---- the last hidden layer


def _pay(state: State, neurons: Sequence[int], slopes: Sequence[Fraction]) -> None:
    """Add slope v (u y + c) of last-layer neurons to the linear part."""
    here, last = state.layers[-2], state.layers[-1]
    columns = column_times(last.weight.take_columns(neurons), slopes)
    linear = _product(columns, here.weight.take_rows(neurons))
    state.skip = Matrix.of(linear if state.skip is None else rationals.add(state.skip.exact(), linear))
    state.add_bias(-1, _product(columns, here.bias.take_rows(neurons))[:, 0])


def _absorb(state: State, step: Step) -> None:
    layer, neurons = len(state.layers) - 2, step["neurons"]
    state.require_hidden(1)
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
    state.add_bias(-1, rationals.matmul(columns.exact(), _vector(held)))
    state.remove(layer, neurons)


def _resolve(state: State, step: Step) -> None:
    state.require_hidden(1)
    here, last = state.layers[-2], state.layers[-1]
    pieces = here.activation.pieces
    if here.activation.name == "sigmoid":  # 1/2 + tanh(t / 2) / 2
        halves = [Fraction(1, 2)] * state.width(len(state.layers) - 2)
        state.add_bias(-1, rationals.matmul(last.weight.exact(), _vector(halves)))
        state.layers[-2] = Affine(row_times(here.weight, halves), row_times(here.bias, halves), activation("tanh"))
        state.layers[-1] = replace(state.layers[-1], weight=column_times(last.weight, halves))
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
    state.add_bias(-1, rationals.matmul(last.weight.exact(), _vector([pieces[0].intercept] * len(everyone))))
    weight, bias, columns = zeros(0, here.weight.shape[1]), zeros(0, 1), zeros(last.weight.shape[0], 0)
    for left, right in zip(pieces, pieces[1:], strict=False):
        kinks = _vector([-Fraction(left.hi or 0)] * len(everyone))
        weight = weight.below(here.weight)
        bias = bias.below(Matrix.of(rationals.add(here.bias.exact()[:, 0], kinks)))
        columns = columns.beside(column_times(last.weight, [right.slope - left.slope] * len(everyone)))
    state.layers[-2] = Affine(weight, bias, activation("relu"))
    state.layers[-1] = replace(state.layers[-1], weight=columns)


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


def _stretch(state: State, step: Step) -> None:
    factor, last = rational(step["factor"]), state.layers[-1]
    if state.head != "argmax":
        raise Refusal("the network has no argmax head; its logits may not be multiplied")
    if last.activation.name != "identity":
        raise Refusal(f"the head does not take the logits but {last.activation.label} of them")
    if factor <= 0:
        raise Refusal(f"the factor {factor} is not positive")

    def grown(part: Matrix) -> Matrix:
        return Matrix.of(rationals.scale(part.exact(), factor))

    state.layers[-1] = replace(last, weight=grown(last.weight), bias=grown(last.bias))
    state.skip = None if state.skip is None else grown(state.skip)


_OWN: dict[str, Callable[[State, Step], None]] = {
    "scale": _scale,
    "permute": _permute,
    "flip": _flip,
    "absorb": _absorb,
    "resolve": _resolve,
    "flatten": _flatten,
    "hollow": _hollow,
    "centre": _centre,
    "stretch": _stretch,
    **PAIR_MOVES,
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
