"""The exact network while its normal form is sought: every change is a move that a certificate records.

A chain is W_k, b_k, s_k with one affine `skip` past the last hidden layer,

    f(x) = V s(U y + c) + skip y + d,    y the outputs of the layers below (in two-layer networks the inputs),

because folding always-active neurons and turning neurons round leaves a linear part (arXiv 2605.18319).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation, activation
from fiberscope.domains import Box
from fiberscope.network import Network
from fiberscope.neurons import output_factor

ExactArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Step = dict[str, Any]

# s(t) = sign s(-t) + slope t + shift for all t, beyond what parity says
_REFLECTIONS: Mapping[str, tuple[int, int, int]] = {
    "relu": (1, 1, 0),
    "softplus": (1, 1, 0),
    "silu": (1, 1, 0),
    "gelu": (1, 1, 0),
    "gelu_tanh": (1, 1, 0),
    "sigmoid": (-1, 0, 1),
}


def reflection(row: Activation) -> tuple[int, int, int] | None:
    """(sign, slope, shift) with s(t) = sign s(-t) + slope t + shift for all real t, or None.

    >>> reflection(activation("relu")), reflection(activation("tanh"))
    ((1, 1, 0), (-1, 0, 0))
    """
    if row.parity is not None:
        return (-1 if row.parity == "odd" else 1), 0, 0
    return _REFLECTIONS.get(row.name)


@dataclass
class Chain:
    """Weights, biases and activations of every layer, the skip, and the moves made so far.

    Args:
        weights, biases, activations: one for each affine layer.
        domain: inputs on which the function is kept.
        head: output head of the network.
        skip: (n_out, n) matrix past the last hidden layer, or None for zero.
        steps: the moves, as a certificate stores them.
    """

    weights: list[ExactArray]
    biases: list[ExactArray]
    activations: list[Activation]
    domain: Box
    head: str | None = None
    skip: ExactArray | None = None
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def of(cls, net: Network, domain: Box) -> Chain:
        """The network before the first move."""
        return cls(
            [_plain(layer.weight) for layer in net.layers],
            [_plain(layer.bias) for layer in net.layers],
            [layer.activation for layer in net.layers],
            domain,
            net.head,
        )

    @property
    def last(self) -> int:
        """Index of the last hidden layer."""
        return len(self.weights) - 2

    def width(self, layer: int) -> int:
        """Neurons of a layer."""
        return len(self.biases[layer])

    def nonnegative_inputs(self, layer: int) -> bool:
        """Whether everything that a layer takes is >= 0."""
        if layer == 0:
            return bool((self.domain.lower >= 0).all())
        return self.activations[layer - 1].range_[0] >= 0

    def columns(self, layer: int, neurons: Sequence[int]) -> ExactArray:
        """Outgoing weights of neurons of a hidden layer, the skip below them: (m, len(neurons))."""
        above = self.weights[layer + 1][:, list(neurons)]
        if self.skip is None or layer != self.last - 1:
            return above
        return stacked(above, self.skip[:, list(neurons)])

    def read(self, layer: int) -> npt.NDArray[np.bool_]:
        """Which neurons of a hidden layer anything reads."""
        seen = np.asarray(self.weights[layer + 1] != 0, dtype=bool).any(axis=0)
        if self.skip is not None and layer == self.last - 1:
            seen = seen | np.asarray(self.skip != 0, dtype=bool).any(axis=0)
        return np.asarray(seen)

    # ---- moves that any hidden layer allows

    def scale(self, layer: int, factors: Sequence[Fraction]) -> None:
        """Multiply rows by factors e with s(e z) = phi s(z), and divide the outgoing columns by phi."""
        if all(e == 1 for e in factors):
            return
        row = self.activations[layer]
        phi = [output_factor(row, e) or Fraction(1) for e in factors]
        self.weights[layer] = rationals.scale_rows(self.weights[layer], factors)
        self.biases[layer] = rationals.scale_rows(self.biases[layer], factors)
        self._set_columns(layer, lambda columns: rationals.scale_columns(columns, [1 / p for p in phi]))
        self.steps.append({"move": "scale", "layer": layer, "factors": [str(e) for e in factors]})

    def permute(self, layer: int, order: Sequence[int]) -> None:
        """Neuron order[i] becomes neuron i."""
        if list(order) == list(range(len(order))):
            return
        self._keep(layer, np.asarray(order, dtype=np.int64))
        self.steps.append({"move": "permute", "layer": layer, "order": [int(i) for i in order]})

    def merge(self, layer: int, pairs: Sequence[tuple[int, int, Fraction]]) -> None:
        """Remove neuron i for every (i, j, e): its row and bias are e times those of neuron j, which stays."""
        if not pairs:
            return
        row = self.activations[layer]
        groups: dict[int, list[tuple[int, Fraction]]] = {}
        for i, j, e in pairs:
            groups.setdefault(j, []).append((i, output_factor(row, e) or Fraction(1)))
        self._set_columns(layer, lambda columns: _gathered(columns, groups))
        self._without(layer, [i for i, _, _ in pairs])
        self.steps.append({"move": "merge", "layer": layer, "pairs": [[int(i), int(j), str(e)] for i, j, e in pairs]})

    def drop(self, layer: int, neurons: Sequence[int]) -> None:
        """Remove neurons that nothing reads."""
        if len(neurons):
            self._may_empty(layer, neurons)
            self._without(layer, neurons)
            self.steps.append({"move": "drop", "layer": layer, "neurons": [int(i) for i in neurons]})

    def constant(self, layer: int, neurons: Sequence[int], values: Sequence[Fraction]) -> None:
        """Remove neurons whose output is constant; the next bias takes it."""
        if not len(neurons):
            return
        self._may_empty(layer, neurons)
        self._add_constant(layer, rationals.matmul(self.columns(layer, neurons), _vector(values)))
        self._without(layer, neurons)
        texts = [str(v) for v in values]
        self.steps.append({"move": "constant", "layer": layer, "neurons": [int(i) for i in neurons], "values": texts})

    def flip(self, layer: int, neurons: Sequence[int]) -> None:
        """Turn rows round by s(t) = sign s(-t) + slope t + shift; a slope is paid by the skip of the last layer."""
        if not len(neurons):
            return
        index = list(neurons)
        sign, slope, shift = reflection(self.activations[layer]) or (1, 0, 0)
        if shift:
            self._add_constant(layer, rationals.matmul(self.columns(layer, index), np.full(len(index), float(shift))))
        if slope:
            self._pay(index, [Fraction(slope)] * len(index))
        for rows in (self.weights, self.biases):
            rows[layer] = _negated_rows(rows[layer], index)
        if sign < 0:
            self._set_columns(layer, lambda table: _negated_rows(table.T, index).T)
        self.steps.append({"move": "flip", "layer": layer, "neurons": [int(i) for i in index]})

    # ---- moves of the last hidden layer

    def absorb(self, neurons: Sequence[int], slopes: Sequence[Fraction], intercepts: Sequence[Fraction]) -> None:
        """Remove last-layer neurons that are slope z + intercept on the domain; the skip takes them."""
        if not len(neurons):
            return
        self._pay(list(neurons), slopes)
        held = rationals.matmul(self.weights[-1][:, list(neurons)], _vector(intercepts))
        self.biases[-1] = rationals.add(self.biases[-1], held)
        self._without(self.last, neurons)
        self.steps.append({"move": "absorb", "neurons": [int(i) for i in neurons]})

    def resolve(self) -> None:
        """Write a piecewise-linear last activation as ReLUs, a sigmoid as tanh.

        s(t) = m t + q + sum over kinks of (jump of the slope) relu(t - kink); sigmoid(t) = 1/2 + tanh(t / 2) / 2.
        """
        row = self.activations[self.last]
        pieces = row.pieces or ()
        everyone = list(range(self.width(self.last)))
        if row.name == "sigmoid":
            half = Fraction(1, 2)
            held = rationals.matmul(self.weights[-1], _vector([half] * len(everyone)))
            self.biases[-1] = rationals.add(self.biases[-1], held)
            for part, layer in ((self.weights, self.last), (self.biases, self.last), (self.weights, -1)):
                part[layer] = rationals.scale(part[layer], half)
            self.activations[self.last] = activation("tanh")
            self.steps.append({"move": "resolve"})
        if row.name == "relu" or not pieces:
            return
        first = pieces[0]
        self._pay(everyone, [first.slope] * len(everyone))
        held = rationals.matmul(self.weights[-1], _vector([first.intercept] * len(everyone)))
        self.biases[-1] = rationals.add(self.biases[-1], held)
        rows, biases, columns = [], [], []
        for before, after in zip(pieces, pieces[1:], strict=False):
            kink = before.hi if before.hi is not None else Fraction(0)
            rows.append(self.weights[self.last])
            biases.append(rationals.add(self.biases[self.last], _vector([-kink] * len(everyone))))
            columns.append(rationals.scale(self.weights[-1], after.slope - before.slope))
        self.weights[-1] = stacked(*(c.T for c in columns)).T
        self.weights[self.last] = stacked(*rows)
        self.biases[self.last] = stacked(*(b.reshape(-1, 1) for b in biases))[:, 0]
        self.activations[self.last] = activation("relu")
        self.steps.append({"move": "resolve"})

    def shift(self, neuron: int, by: Fraction) -> None:
        """Move the kink of a hidden neuron below the last hidden layer: b_i += by, c_j -= u_ji by."""
        layer = self.last - 1
        moved = rationals.scale(self.weights[self.last][:, neuron], -by)
        self.biases[self.last] = rationals.add(self.biases[self.last], moved)
        bias = rationals.fractions(self.biases[layer]).copy()
        bias[neuron] += by
        self.biases[layer] = rationals.simplified(bias)
        self.steps.append({"move": "shift", "neuron": int(neuron), "by": str(by)})

    def turn(self, neuron: int, onto: int, ratio: Fraction) -> None:
        """Turn neuron k below the last hidden layer round and add ratio times its row to the hidden neuron i."""
        layer = self.last - 1
        for part in (self.weights, self.biases):
            table = rationals.fractions(part[layer]).copy()
            table[onto] = table[onto] + ratio * table[neuron]
            table[neuron] = -table[neuron]
            part[layer] = rationals.simplified(table)
        self.steps.append({"move": "turn", "neuron": int(neuron), "onto": int(onto), "ratio": str(ratio)})

    def fan(self, neuron: int, other: int, reader: int) -> None:
        """J relu(g - h) - J g = -J min(g, h) for g, h >= 0: read it as -J relu(z_g - relu(z_g - z_h)).

        `reader` is J relu(u y_a - v y_b), the linear part reads a with -J u, and nothing else reads a or b.
        """
        below = self.last - 1
        upper = rationals.fractions(self.weights[self.last]).copy()
        u, v = upper[reader, neuron], -upper[reader, other]
        for part in (self.weights, self.biases):
            table = rationals.fractions(part[below]).copy()
            table[neuron] = u * table[neuron]
            table[other] = table[neuron] - v * table[other]
            part[below] = rationals.simplified(table)
        upper[reader, neuron], upper[reader, other] = Fraction(1), Fraction(-1)
        self.weights[self.last] = rationals.simplified(upper)
        self.weights[-1] = _negated_rows(self.weights[-1].T, [reader]).T
        self._unread(neuron)
        self.steps.append({"move": "fan", "neuron": int(neuron), "other": int(other), "reader": int(reader)})

    def corner(self, neuron: int, other: int, reader: int, cut: int) -> None:
        """P - relu(P - c) + relu(Q - P) = relu(c - relu(c - z_P) + relu(z_Q - z_P)) for P, Q, c >= 0.

        `reader` reads p and q alone, with opposite signs and no bias, `cut` reads p alone: J1 relu(t y_p - t c / s);
        the linear part makes the rest of J times the left side, and nothing else reads p or q.
        """
        below = self.last - 1
        upper, bias = rationals.fractions(self.weights[self.last]).copy(), rationals.fractions(self.biases[self.last])
        s, t = abs(upper[reader, neuron]), abs(upper[reader, other])
        end = -s * bias[cut] / upper[cut, neuron]
        for part, constant in ((self.weights, Fraction(0)), (self.biases, end)):
            table = rationals.fractions(part[below]).copy()
            first, second = s * table[neuron], t * table[other]
            table[neuron], table[other] = constant - first, second - first
            part[below] = rationals.simplified(table)
        bias = bias.copy()
        upper[reader, neuron], upper[reader, other], bias[reader] = Fraction(-1), Fraction(1), end
        self.weights[self.last], self.biases[self.last] = rationals.simplified(upper), rationals.simplified(bias)
        self._unread(neuron)
        self._unread(other)
        self._without(self.last, [cut])
        roles = {"neuron": neuron, "other": other, "reader": reader, "cut": cut}
        self.steps.append({"move": "corner", **{name: int(index) for name, index in roles.items()}})

    def _unread(self, neuron: int) -> None:
        """The linear part no longer reads a neuron below the last hidden layer."""
        if self.skip is not None:
            skip = self.skip.copy()
            skip[:, neuron] = 0 * skip[:, neuron]
            self.skip = skip if bool((skip != 0).any()) else None

    def unroll(self) -> None:
        """Make one layer of the last two hidden ones when no neuron of the last one mixes those below it."""
        upper = rationals.fractions(self.weights[self.last])
        below = self.last - 1
        rows, biases, columns = [], [], []
        table, shifts = rationals.fractions(self.weights[below]), rationals.fractions(self.biases[below])
        if self.skip is not None:
            skip = rationals.fractions(self.skip)
            for i in np.flatnonzero((skip != 0).any(axis=0)).tolist():
                rows.append(table[i])
                biases.append(shifts[i])
                columns.append(skip[:, i])
        out = rationals.fractions(self.weights[-1])
        for j, row in enumerate(upper):
            i = int(np.flatnonzero(row != 0)[0])
            rows.append(row[i] * table[i])
            biases.append(row[i] * shifts[i] + rationals.as_fraction(self.biases[self.last][j]))
            columns.append(out[:, j])
        self.weights[below : below + 3] = [
            _table(rows, table.shape[1]), _table(columns, out.shape[0]).T,
        ]  # fmt: skip
        self.biases[below : below + 2] = [_vector(biases)]
        del self.activations[self.last]
        self.skip = None
        self.steps.append({"move": "unroll"})

    def flatten(self) -> None:
        """Make an affine map of a two-layer network without neurons."""
        out, inputs = len(self.biases[-1]), self.weights[0].shape[1]
        self.weights = [np.zeros((out, inputs)) if self.skip is None else self.skip]
        del self.biases[0], self.activations[0]
        self.skip = None
        self.steps.append({"move": "flatten"})

    def centre(self) -> None:
        """Subtract the first logit from all: a softmax forgets a common shift."""
        self.weights[-1] = _differences(self.weights[-1])
        self.biases[-1] = _differences(self.biases[-1].reshape(-1, 1))[:, 0]
        self.steps.append({"move": "centre"})

    def stretch(self) -> None:
        """Make all weights and biases that reach the logits primitive together: argmax forgets a positive factor."""
        parts = [self.weights[-1], self.biases[-1], *([] if self.skip is None else [self.skip])]
        unit = rationals.primitive_rows(stacked(*(part.reshape(-1, 1) for part in parts)).T)[1][0]
        if unit == 1:
            return
        self.weights[-1], self.biases[-1], *skip = (rationals.scale(part, 1 / unit) for part in parts)
        self.skip = skip[0] if skip else None
        self.steps.append({"move": "stretch", "factor": str(1 / unit)})

    # ---- parts

    def _pay(self, neurons: list[int], slopes: Sequence[Fraction]) -> None:
        """Add slope v (u y + c) of these last-layer neurons to the linear part."""
        if not any(slopes):
            return
        columns = rationals.scale_columns(self.weights[-1][:, neurons], slopes)
        linear = rationals.matmul(columns, self.weights[self.last][neurons])
        total = linear if self.skip is None else rationals.add(self.skip, linear)
        self.skip = total if bool((total != 0).any()) else None
        self.biases[-1] = rationals.add(self.biases[-1], rationals.matmul(columns, self.biases[self.last][neurons]))

    def _may_empty(self, layer: int, neurons: Sequence[int]) -> None:
        """Say once, before a layer loses all its neurons, that layers may."""
        if len(neurons) == self.width(layer) and all(step["move"] != "hollow" for step in self.steps):
            self.steps.append({"move": "hollow"})

    def _add_constant(self, layer: int, part: ExactArray) -> None:
        """Add what leaves neurons of a layer, in the order of `columns`, to the biases that it reaches."""
        size = len(self.weights[layer + 1])
        self.biases[layer + 1] = rationals.add(self.biases[layer + 1], part[:size])
        if len(part) > size:
            self.biases[-1] = rationals.add(self.biases[-1], part[size:])

    def _set_columns(self, layer: int, change: Any) -> None:
        self.weights[layer + 1] = change(self.weights[layer + 1])
        if self.skip is not None and layer == self.last - 1:
            skip = change(self.skip)
            self.skip = skip if bool((skip != 0).any()) else None

    def _keep(self, layer: int, stay: IntArray) -> None:
        self.weights[layer], self.biases[layer] = self.weights[layer][stay], self.biases[layer][stay]
        self._set_columns(layer, lambda columns: columns[:, stay])

    def _without(self, layer: int, neurons: Sequence[int]) -> None:
        stay = np.ones(self.width(layer), dtype=bool)
        stay[list(neurons)] = False
        self._keep(layer, np.flatnonzero(stay))


def _plain(array: ExactArray) -> ExactArray:
    """Float64, or rationals if an entry is no float64."""
    return rationals.simplified(array) if rationals.is_rational(array) else array.astype(np.float64, copy=False)


def _vector(values: Sequence[Fraction]) -> ExactArray:
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return rationals.simplified(out)


def _table(rows: Sequence[ExactArray], width: int) -> ExactArray:
    out = np.empty((len(rows), width), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return rationals.simplified(out)


def stacked(*tables: ExactArray) -> ExactArray:
    """Exact matrices below each other."""
    if any(rationals.is_rational(t) for t in tables):
        return np.concatenate([rationals.fractions(t) for t in tables])
    return np.concatenate(tables)


def with_bias(weight: ExactArray, bias: ExactArray) -> ExactArray:
    """(W, b) as one matrix."""
    return stacked(weight.T, bias.reshape(1, -1)).T


def _gathered(columns: ExactArray, groups: Mapping[int, Sequence[tuple[int, Fraction]]]) -> ExactArray:
    """Columns with, for every j, phi times column i added to column j."""
    keys = list(groups)
    sums = []
    for j in keys:
        total = columns[:, j]
        for i, phi in groups[j]:
            total = rationals.add(total, rationals.scale(columns[:, i], phi))
        sums.append(total)
    if any(rationals.is_rational(t) for t in (columns, *sums)):
        columns, sums = rationals.fractions(columns), [rationals.fractions(s) for s in sums]
    out = columns.copy()
    for j, total in zip(keys, sums, strict=True):
        out[:, j] = total
    return out


def _negated_rows(array: ExactArray, index: Sequence[int]) -> ExactArray:
    out = array.copy()
    out[index] = -out[index]
    return out


def _differences(table: ExactArray) -> ExactArray:
    return rationals.add(table, -np.broadcast_to(table[:1], table.shape))
