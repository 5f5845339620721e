"""Replay of the moves on the two last hidden layers, both ReLU, that lead to a normal form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.certificates.enclosures import Affine
from fiberscope.certificates.format import rational
from fiberscope.certificates.matrices import Matrix, column_times, row_times, zeros
from fiberscope.certificates.moves import Refusal, Step, check_indices
from fiberscope.certificates.state import State
from fiberscope.errors import CertificateError

ExactArray = npt.NDArray[Any]


def _relu_pair(state: State) -> tuple[Affine, Affine]:
    state.require_hidden(2)
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
    first = [row_times(part.take_rows([a]), [u]) for part in (below.weight, below.bias)]
    second = [row_times(part.take_rows([b]), [v]) for part in (below.weight, below.bias)]
    rest = [Matrix.of(rationals.add(p.exact(), q.exact())) for p, q in zip(first, second, strict=True)]
    state.set_rows(len(state.layers) - 3, [a, b], first[0].below(rest[0]), first[1].below(rest[1]))
    _set_pair(state, h, a, b, Fraction(1), Fraction(-1), Fraction(0))
    state.layers[-1] = replace(
        last, weight=last.weight.with_columns([h], column_times(last.weight.take_columns([h]), [Fraction(-1)]))
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
        first = row_times(part.take_rows([p]), [-abs(u)]).exact()
        second = row_times(part.take_rows([q]), [abs(v)]).exact()
        start = np.full(first.shape, constant, dtype=object)
        rows.append(Matrix.of(rationals.add(first, start)).below(Matrix.of(rationals.add(second, first))))
    state.set_rows(len(state.layers) - 3, [p, q], rows[0], rows[1])
    _set_pair(state, h, p, q, Fraction(-1), Fraction(1), end)
    _forget_linear(state, [p, q])
    state.remove(len(state.layers) - 2, [cut])


def _set_pair(state: State, h: int, a: int, b: int, u: Fraction, v: Fraction, c: Fraction) -> None:
    row = np.zeros((1, state.layers[-2].weight.shape[1]))
    row[0, a], row[0, b] = float(u), float(v)
    state.set_rows(len(state.layers) - 2, [h], Matrix.of(row), Matrix.of(np.array([c], dtype=object)))


def _forget_linear(state: State, neurons: Sequence[int]) -> None:
    if state.skip is not None:
        state.skip = state.skip.with_columns(neurons, zeros(state.skip.shape[0], len(neurons)))


def _unroll(state: State, step: Step) -> None:
    state.require_hidden(2)
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
        rows = rows.below(row_times(below.weight.take_rows(seen), u))
        shifted = rationals.add(
            row_times(below.bias.take_rows(seen), u).exact()[:, 0], here.bias.take_rows([j]).exact()[:, 0]
        )
        biases = biases.below(Matrix.of(shifted))
    state.layers[-3:] = [
        Affine(rows, biases, below.activation), replace(last, weight=columns.beside(last.weight)),
    ]  # fmt: skip
    state.skip = None


PAIR_MOVES: Mapping[str, Callable[[State, Step], None]] = {
    "shift": _shift,
    "turn": _turn,
    "fan": _fan,
    "corner": _corner,
    "unroll": _unroll,
}
