"""Replay of each move of a certificate on an exact network, over Q."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.certificates.enclosures import Affine, Pair, interval
from fiberscope.certificates.format import rational
from fiberscope.certificates.matrices import Matrix, combined_rows, first_unequal, nearest, upward, zeros
from fiberscope.certificates.state import State
from fiberscope.errors import CertificateError

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Step = dict[str, Any]


class Refusal(Exception):
    """A move is well-formed but does not follow; the text says why."""


# ---- what a step may name


def hidden_layer(state: State, step: Step) -> int:
    """The hidden layer that a step names."""
    layer: int = step["layer"]
    if layer >= len(state.layers) - 1:
        raise CertificateError(f"layer {layer} is no hidden layer; there are {len(state.layers) - 1}")
    return layer


def _neurons(state: State, step: Step) -> tuple[int, list[int]]:
    layer = hidden_layer(state, step)
    neurons: list[int] = step["neurons"]
    check_indices(state, layer, neurons)
    return layer, neurons


def check_indices(state: State, layer: int, neurons: Sequence[int]) -> None:
    """Refuse neurons that do not exist."""
    worst = max(neurons, default=-1)
    if worst >= state.width(layer):
        raise CertificateError(f"neuron {worst} does not exist; layer {layer} has {state.width(layer)} neurons then")


def _table(rows: list[list[str]], shape: tuple[int, int], name: str) -> Matrix:
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        seen = len(rows[0]) if rows else 0
        raise CertificateError(f"{name} has {len(rows)} rows of {seen} entries; expected {shape[0]} of {shape[1]}")
    out = np.empty(shape, dtype=object)
    for i, row in enumerate(rows):
        for j, text in enumerate(row):
            out[i, j] = rational(text)
    return Matrix.of(out) if len(rows) else zeros(*shape)


def _list(values: list[str], size: int, name: str) -> Matrix:
    return _table([[text] for text in values], (size, 1), name)


# ---- the moves


def _bound(state: State, step: Step) -> None:
    slopes: dict[int, dict[int, dict[str, FloatArray]]] = {}
    if "slopes" in step and step["slopes"] and step["method"] != "backward":
        raise CertificateError('slopes are given with method "interval"; they belong to "backward"')
    for name, rows in step.get("slopes", {}).items():
        layer = int(name)
        if not layer < len(state.layers):
            raise CertificateError(f"slopes for layer {layer}; there are {len(state.layers)} layers")
        earlier = sum(state.width(k) for k in range(layer))
        for number, sides in rows.items():
            check_indices(state, layer, [int(number)])
            for side, shares in sides.items():
                if len(shares) != earlier:
                    raise CertificateError(
                        f"slopes of layer {layer}, neuron {number}, {side}: {len(shares)} numbers; expected {earlier}"
                    )
                slopes.setdefault(layer, {}).setdefault(int(number), {})[side] = np.array(shares, dtype=np.float64)
    state.take_snapshot(step["method"], slopes)


def _silent(state: State, layer: int, neurons: Sequence[int]) -> None:
    loud = np.flatnonzero((state.columns(layer).near[:, list(neurons)] != 0).any(axis=0))
    if loud.size:
        raise Refusal(f"neuron {neurons[int(loud[0])]} has a nonzero outgoing weight")


def _drop(state: State, step: Step) -> None:
    layer, neurons = _neurons(state, step)
    if len(neurons) == state.width(layer) and not state.hollow:
        raise CertificateError(f"all {len(neurons)} neurons of layer {layer} would go; one must stay")
    _silent(state, layer, neurons)
    state.remove(layer, neurons)


def _clear(state: State, step: Step) -> None:
    layer, neurons = _neurons(state, step)
    _silent(state, layer, neurons)
    state.silence(layer, neurons)


def _constant(state: State, step: Step) -> None:
    layer, neurons = _neurons(state, step)
    if len(step["values"]) != len(neurons):
        raise CertificateError(f"{len(step['values'])} values for {len(neurons)} neurons")
    values = [rational(text) for text in step["values"]]
    here = state.layers[layer]
    moving = here.weight.nonzero_rows()
    pending = [
        (i, value)
        for i, value in zip(neurons, values, strict=True)
        if moving[i] or here.activation.value(here.bias.entry(i, 0)) != value
    ]
    if pending:
        low, high = state.preactivation(layer)
        for i, value in pending:
            flat = _is_flat(here.activation, float(low[i]), float(high[i]), value)
            if not flat and not (state.rearranging and _flat_by_signs(state, layer, i, value)):
                raise Refusal(f"the output of neuron {i} is not proved to be {value} on the domain")
    columns = state.columns(layer)
    parts = [(i, value) for i, value in zip(neurons, values, strict=True) if value]
    state.shift(layer, combined_rows(columns.T, [parts]).exact()[0])
    leaving = neurons
    if len(neurons) == state.width(layer) and not state.hollow:
        leaving = neurons[:-1]
        state.set_columns(layer, neurons[-1:], zeros(columns.shape[0], 1))
    state.remove(layer, leaving)


def _is_flat(activation: Activation, low: float, high: float, value: Fraction) -> bool:
    return any(
        piece.slope == 0 and piece.intercept == value and _contains(piece, low, high)
        for piece in activation.pieces or ()
    )


def _flat_by_signs(state: State, layer: int, i: int, value: Fraction) -> bool:
    """`_is_flat` on the exact range of the neuron over all that its layer may take."""
    here, ends = state.layers[layer], state.input_of(layer)
    least, most = (extreme(here.weight, here.bias, i, pair) for pair in (ends, ends[::-1]))
    return any(
        piece.slope == 0 and piece.intercept == value and inside(piece.lo, least, 1) and inside(piece.hi, most, -1)
        for piece in here.activation.pieces or ()
    )


def _contains(piece: Any, low: float | Fraction, high: float | Fraction) -> bool:
    return (piece.lo is None or piece.lo <= low) and (piece.hi is None or high <= piece.hi)


def output_factor(activation: Activation, e: Fraction) -> Fraction | None:
    """Phi with s(e z) = phi s(z) for all real z, or None."""
    if e == 1:
        return Fraction(1)
    factor = Fraction(1)
    if e < 0:
        if activation.parity is None:
            return None
        factor = Fraction(-1 if activation.parity == "odd" else 1)
    if abs(e) != 1:
        if activation.homogeneity is None:
            return None
        factor *= abs(e) ** activation.homogeneity
    return factor


def _merge(state: State, step: Step) -> None:
    layer = hidden_layer(state, step)
    pairs = [(i, j, rational(text)) for i, j, text in step["pairs"]]
    gone = [i for i, _, _ in pairs]
    check_indices(state, layer, [n for i, j, _ in pairs for n in (i, j)])
    if len(set(gone)) != len(gone):
        raise CertificateError("a neuron is removed twice")
    lost = set(gone) & {j for _, j, _ in pairs}
    if lost:
        raise CertificateError(f"neuron {min(lost)} is removed and kept in one move")
    here = state.layers[layer]
    groups: dict[int, list[tuple[int, Fraction]]] = {}
    for i, j, e in pairs:
        phi = output_factor(here.activation, e)
        if phi is None:
            raise Refusal(f"{here.activation.label} has no rule for the factor {_short(e)} (neurons {i} and {j})")
        groups.setdefault(j, [(j, Fraction(1))]).append((i, phi))
    for part in (here.weight, here.bias):
        wrong = first_unequal(part, pairs)
        if wrong is None:
            continue
        i, j, e = pairs[wrong]
        raise Refusal(f"row and bias of neuron {i} are not {_short(e)} times those of neuron {j}")
    state.set_columns(layer, list(groups), combined_rows(state.columns(layer).T, list(groups.values())).T)
    state.remove(layer, gone)


def _short(q: Fraction) -> str:
    text = str(q)
    return text if len(text) <= 24 else f"about {nearest(q)[0]:.6g}"


def _fold(state: State, step: Step) -> None:
    layer, neurons = _neurons(state, step)
    here, next_ = state.layers[layer], state.layers[layer + 1]
    count = len(step["rows"])
    rows = _table(step["rows"], (count, here.weight.shape[1]), "rows")
    biases = _list(step["biases"], count, "biases")
    columns = _table(step["columns"], (next_.weight.shape[0], count), "columns")
    if len(set(neurons)) == state.width(layer) and not count:
        raise CertificateError(f"all {len(neurons)} neurons of layer {layer} would go; one must stay")
    slopes, intercepts = _linear_pieces(state, layer, neurons)
    ends = _identity_ends(here, rows, biases, state.input_of(layer))
    out = next_.weight.take_columns(neurons).exact()
    scaled = rationals.simplified(rationals.fractions(out) * slopes) if (slopes != 1).any() else out
    # in y: scaled (U y + c) + out t  ==  columns (rows y + biases) + d
    old, minus = Matrix.of(scaled), Matrix.of(rationals.scale(columns.exact(), Fraction(-1)))
    both = old.beside(minus).exact()
    linear = rationals.matmul(both, here.weight.take_rows(neurons).below(rows).exact())
    if (linear != 0).any():
        i, j = (int(v) for v in np.argwhere(linear != 0)[0])
        raise Refusal(f"the new neurons' linear map differs at output {i}, input {j}")
    constant = rationals.matmul(both, here.bias.take_rows(neurons).below(biases).exact()[:, 0])
    if (intercepts != 0).any():
        constant = rationals.add(constant, rationals.matmul(out, intercepts))
    state.shift(layer, constant)
    state.remove(layer, neurons)
    state.append(layer, rows, biases, columns, ends)


def _linear_pieces(state: State, layer: int, neurons: Sequence[int]) -> tuple[ExactArray, ExactArray]:
    """Slope and intercept of the piece in which each neuron runs; at a kink the steeper one."""
    low, high = state.preactivation(layer)
    activation = state.layers[layer].activation
    slopes, intercepts = np.empty(len(neurons), dtype=object), np.empty(len(neurons), dtype=object)
    for k, i in enumerate(neurons):
        fit = [p for p in activation.pieces or () if _contains(p, float(low[i]), float(high[i]))]
        if not fit:
            raise Refusal(f"neuron {i} is not proved to stay in one linear piece of {activation.label}")
        piece = max(fit, key=lambda p: abs(p.slope))
        slopes[k], intercepts[k] = piece.slope, piece.intercept
    return slopes, intercepts


def _identity_ends(here: Affine, rows: Matrix, biases: Matrix, inputs: Pair) -> Pair:
    """Enclosures of the new neurons, proved to lie in the piece s(z) = z; floats first, then rationals at the edge."""
    pieces = [p for p in here.activation.pieces or () if p.slope == 1 and p.intercept == 0]
    if rows.shape[0] and not pieces:
        raise Refusal(f"{here.activation.label} has no piece with s(z) = z")
    low, high = interval(Affine(rows, biases, here.activation), *inputs)
    for k in range(rows.shape[0]):
        if any(_contains(p, float(low[k]), float(high[k])) for p in pieces):
            continue
        least, most = (extreme(rows, biases, k, ends) for ends in (inputs, inputs[::-1]))
        for piece in pieces:
            if inside(piece.lo, least, 1) and inside(piece.hi, most, -1):
                low[k] = low[k] if piece.lo is None else max(low[k], -upward(-piece.lo))
                high[k] = high[k] if piece.hi is None else min(high[k], upward(piece.hi))
                break
        else:
            raise Refusal(f"new neuron {k} is not proved to stay where {here.activation.label} is the identity")
    return low, high


def inside(edge: Fraction | None, value: Fraction | None, sign: int) -> bool:
    """Whether an end of an enclosure lies within the edge of a piece; an infinite edge holds everything."""
    return edge is None or (value is not None and sign * value >= sign * edge)


def extreme(rows: Matrix, biases: Matrix, k: int, ends: Pair) -> Fraction | None:
    """Exact minimum of row y + bias over ends = (low, high), maximum over (high, low); None if infinite."""
    total = biases.entry(k, 0)
    for j in np.flatnonzero(rows.near[k]).tolist():
        end = float(ends[0][j] if rows.near[k, j] > 0 else ends[1][j])
        if not np.isfinite(end):
            return None
        if end:
            total += rows.entry(k, j) * Fraction(end)
    return total


def _replace(state: State, step: Step) -> None:
    layer, neurons = step["layer"], step["neurons"]  # the last layer may be replaced too
    if layer >= len(state.layers):
        raise CertificateError(f"layer {layer} does not exist; there are {len(state.layers)}")
    check_indices(state, layer, neurons)
    before = list(state.layers)
    rows = _table(step["rows"], (len(neurons), state.layers[layer].weight.shape[1]), "rows")
    state.set_rows(layer, neurons, rows, _list(step["biases"], len(neurons), "biases"))
    _approximated(state, before)


def _round(state: State, step: Step) -> None:
    before = list(state.layers)
    try:
        state.layers = [
            replace(row, weight=row.weight.rounded(step["dtype"]), bias=row.bias.rounded(step["dtype"]))
            for row in state.layers
        ]
    except OverflowError as exc:
        raise Refusal(str(exc)) from exc
    _approximated(state, before)


def _approximated(state: State, before: list[Affine]) -> None:
    same = all(
        old.weight.same_as(new.weight) and old.bias.same_as(new.bias)
        for old, new in zip(before, state.layers, strict=True)
    )
    if not same:
        state.approximations.append((before, list(state.layers)))
    state.forget()


MOVES: dict[str, Callable[[State, Step], None]] = {
    "bound": _bound,
    "drop": _drop,
    "constant": _constant,
    "merge": _merge,
    "clear": _clear,
    "fold": _fold,
    "replace": _replace,
    "round": _round,
}
"""What each move does to the state; raises `Refusal` if it does not follow, `CertificateError` if it makes no sense."""
