"""The state of a reduction: exact weights, enclosures that follow neurons, where each neuron went, the steps taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.bounds import Bounds
from fiberscope.network import Network, affine_enclosure
from fiberscope.neurons import output_factor

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass
class Neuron:
    """A neuron of the current network: the original neurons whose output it carries, h_old = factor * h."""

    sources: list[tuple[int, Fraction]]
    block: bool = False
    """Whether it replaces a block of always-linear neurons rather than carrying one of them."""


@dataclass
class State:
    """A network being reduced. Every change is one step of the certificate."""

    net: Network
    original: Network
    scope: str = "everywhere"
    neurons: list[list[Neuron]] = field(default_factory=list)
    gone: list[dict[int, str]] = field(default_factory=list)
    counts: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)
    """(layer, kind, scope, rigor) -> neurons removed."""
    near: bool = False
    """Whether an approximate step was taken, so that nothing after it is about the original network exactly."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    lower: list[FloatArray] | None = None
    upper: list[FloatArray] | None = None

    def __post_init__(self) -> None:
        """Every neuron starts as itself."""
        if not self.neurons:
            self.neurons = [[Neuron([(i, Fraction(1))]) for i in range(n)] for n in self.net.widths[1:-1]]
            self.gone = [{} for _ in self.net.hidden]

    # ---- enclosures

    def enclose(self, bounds: Bounds, slopes: dict[str, Any] | None = None) -> None:
        """Take new enclosures of all pre-activations of the current network."""
        self.lower, self.upper = [a.copy() for a in bounds.lower], [a.copy() for a in bounds.upper]
        step: dict[str, Any] = {"move": "bound", "method": bounds.method}
        if slopes:
            step["slopes"] = slopes
        self.steps.append(step)

    def input_of(self, layer: int, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Enclosure of what the layer takes: the box (low, high) for the first, else the outputs below."""
        if layer == 0 or self.lower is None or self.upper is None:
            return low, high
        return self.net.layers[layer - 1].activation.enclose(self.lower[layer - 1], self.upper[layer - 1])

    # ---- moves

    def _set(self, layer: int, weight: ExactArray, bias: ExactArray) -> None:
        layers = list(self.net.layers)
        layers[layer] = replace(layers[layer], weight=weight, bias=bias)
        self.net = self.net.with_layers(layers)

    def _change(
        self, layer: int, index: IntArray, rows: tuple[ExactArray, ExactArray], above: tuple[ExactArray, ExactArray]
    ) -> None:
        """New rows here and columns above; `index` says which old neuron each one was, -1 for a new one."""
        layers = list(self.net.layers)
        here, there = layers[layer].frame, layers[layer + 1].frame
        layers[layer] = replace(
            layers[layer], weight=rows[0], bias=rows[1], frame=None if here is None else here.resized(index, None)
        )
        layers[layer + 1] = replace(
            layers[layer + 1],
            weight=above[0],
            bias=above[1],
            frame=None if there is None else there.resized(None, index),
        )
        self.net = self.net.with_layers(layers)

    def _remove(self, layer: int, leaving: Sequence[int], above: ExactArray, shift: ExactArray) -> None:
        stay = np.setdiff1d(np.arange(self.net.layers[layer].n_out), np.asarray(leaving, dtype=np.int64))
        self._leave(layer, stay, above[:, stay], shift)

    def _leave(self, layer: int, stay: IntArray, above: ExactArray, shift: ExactArray) -> None:
        here = self.net.layers[layer]
        self._change(layer, stay, (here.weight[stay], here.bias[stay]), (above, shift))
        self.neurons[layer] = [self.neurons[layer][i] for i in stay]
        if self.lower is not None and self.upper is not None:
            self.lower[layer], self.upper[layer] = self.lower[layer][stay], self.upper[layer][stay]

    def _count(self, layer: int, how: str, number: int, exact: bool = True) -> None:
        self.counts[layer, how, self.scope, "EXACT" if exact and not self.near else "INTERVAL"] += number

    def _record(self, layer: int, neurons: Sequence[int], how: str, exact: bool = True) -> None:
        for i in neurons:
            self.gone[layer].update({old: how for old, _ in self.neurons[layer][i].sources})
        self._count(layer, how, len(neurons), exact)

    def drop(self, layer: int, neurons: Sequence[int]) -> None:
        """Remove neurons whose outgoing weights are zero."""
        self.steps.append({"move": "drop", "layer": layer, "neurons": list(neurons)})
        self._record(layer, neurons, "zero_output")
        above = self.net.layers[layer + 1]
        self._remove(layer, neurons, above.weight, above.bias)

    def clear(self, layer: int, neurons: Sequence[int]) -> None:
        """Zero the incoming weights of neurons whose outgoing weights are zero."""
        self.steps.append({"move": "clear", "layer": layer, "neurons": list(neurons)})
        here = self.net.layers[layer]
        self._set(layer, _zeroed(here.weight, neurons), _zeroed(here.bias, neurons))
        if self.lower is not None and self.upper is not None:
            self.lower[layer][list(neurons)] = self.upper[layer][list(neurons)] = 0.0

    def constant(self, layer: int, neurons: Sequence[int], values: Sequence[Fraction], exact: Sequence[bool]) -> None:
        """Fold neurons of constant output into the next bias; the last one of a layer stays, disconnected.

        `exact` says of which neurons signs alone, or a zero row, prove it.
        """
        self.steps.append(
            {"move": "constant", "layer": layer, "neurons": list(neurons), "values": [str(v) for v in values]}
        )
        above = self.net.layers[layer + 1]
        shift = above.bias
        for i, value in zip(neurons, values, strict=True):
            if value:
                shift = rationals.add(shift, rationals.scale(above.weight[:, i], value))
        leaving = list(neurons)
        weight = above.weight
        if len(leaving) == self.net.layers[layer].n_out:
            kept = leaving.pop()
            weight = _zeroed(above.weight.T, [kept]).T
        for i, value, sure in zip(leaving, values, exact, strict=False):
            self._record(layer, [i], "constant" if value else "dead", sure)
        self._remove(layer, leaving, weight, shift)

    def merge(self, layer: int, pairs: Sequence[tuple[int, int, Fraction]], how: Sequence[str]) -> None:
        """Merge neuron i into j where row_i = e row_j, for all (i, j, e)."""
        here, above = self.net.layers[layer], self.net.layers[layer + 1]
        self.steps.append({"move": "merge", "layer": layer, "pairs": [[i, j, str(e)] for i, j, e in pairs]})
        terms: dict[int, list[ExactArray]] = {}
        for (i, j, e), kind in zip(pairs, how, strict=True):
            phi = output_factor(here.activation, e)
            if phi is None:
                raise ValueError(f"{here.activation.label} does not forgive the factor {e}")
            terms.setdefault(j, [above.weight[:, j]]).append(rationals.scale(above.weight[:, i], phi))
            self.neurons[layer][j].sources += [(old, f * phi) for old, f in self.neurons[layer][i].sources]
            self._count(layer, kind, 1)
        gone = [i for i, _, _ in pairs]
        kept = np.setdiff1d(np.arange(here.n_out), gone)
        place = {int(j): k for k, j in enumerate(kept)}
        columns = {place[j]: rationals.total(_rows(found)) for j, found in terms.items()}
        weight = _with_columns(above.weight[:, kept], columns)  # after the others left: rationals are costly
        self._leave(layer, kept, weight, above.bias)

    def fold(
        self,
        layer: int,
        block: Sequence[int],
        new: tuple[ExactArray, ExactArray, ExactArray],
        shift: ExactArray,
        low: FloatArray,
        high: FloatArray,
    ) -> None:
        """Replace always-linear neurons by fewer: rows (r, n_in), biases (r,), columns (n_out, r)."""
        rows, biases, columns = new
        here, above = self.net.layers[layer], self.net.layers[layer + 1]
        self.steps.append({
            "move": "fold", "layer": layer, "neurons": list(block), "rows": rationals.texts(rows),
            "biases": rationals.texts(biases), "columns": rationals.texts(columns),
        })  # fmt: skip
        lower, upper = np.zeros(0), np.zeros(0)
        if len(rows):
            fresh = replace(here, weight=rows, bias=biases, frame=None)
            lower, upper = affine_enclosure(fresh, *self.input_of(layer, low, high))
        for i in block:
            self.gone[layer].update({old: "linear" for old, _ in self.neurons[layer][i].sources})
        self._count(layer, "linear", len(block) - len(rows), exact=False)
        stay = np.setdiff1d(np.arange(here.n_out), np.asarray(block, dtype=np.int64))
        self._change(
            layer,
            np.concatenate([stay, np.full(len(rows), -1)]),
            (_stack(here.weight[stay], rows), _stack(here.bias[stay], biases)),
            (_stack(above.weight[:, stay].T, columns.T).T, rationals.add(above.bias, shift)),
        )
        self.neurons[layer] = [self.neurons[layer][i] for i in stay] + [Neuron([], block=True) for _ in rows]
        if self.lower is not None and self.upper is not None:
            self.lower[layer] = np.concatenate([self.lower[layer][stay], np.maximum(lower, 0.0)])
            self.upper[layer] = np.concatenate([self.upper[layer][stay], upper])

    def replace_rows(self, layer: int, neurons: Sequence[int], rows: ExactArray, biases: ExactArray) -> None:
        """Approximate: set the rows of some neurons; enclosures are forgotten."""
        self.steps.append({
            "move": "replace", "layer": layer, "neurons": list(neurons),
            "rows": rationals.texts(rows), "biases": rationals.texts(biases),
        })  # fmt: skip
        here = self.net.layers[layer]
        self._set(layer, _with_rows(here.weight, neurons, rows), _with_rows(here.bias, neurons, biases))
        self.lower = self.upper = None
        self.near = True

    def snapshot(self) -> State:
        """A copy to come back to."""
        return State(
            self.net, self.original, self.scope,
            [[Neuron(list(n.sources), n.block) for n in layer] for layer in self.neurons],
            [dict(g) for g in self.gone], Counter(self.counts), self.near, list(self.steps),
            None if self.lower is None else [a.copy() for a in self.lower],
            None if self.upper is None else [a.copy() for a in self.upper],
        )  # fmt: skip


def _pair(a: ExactArray, b: ExactArray) -> tuple[ExactArray, ExactArray]:
    if rationals.is_rational(a) or rationals.is_rational(b):
        return rationals.fractions(a), rationals.fractions(b)
    return a, b


def _rows(arrays: Sequence[ExactArray]) -> ExactArray:
    if any(rationals.is_rational(a) for a in arrays):
        arrays = [rationals.fractions(a) for a in arrays]
    return np.stack(arrays)


def _stack(a: ExactArray, b: ExactArray) -> ExactArray:
    return np.concatenate(_pair(a, b))


def _zeroed(array: ExactArray, rows: Sequence[int]) -> ExactArray:
    out = array.copy()
    out[list(rows)] = Fraction(0) if rationals.is_rational(array) else 0.0
    return out


def _with_rows(array: ExactArray, rows: Sequence[int], values: ExactArray) -> ExactArray:
    base, new = _pair(array, values)
    out = base.astype(np.result_type(base.dtype, new.dtype), copy=True)
    out[list(rows)] = new
    return out


def _with_columns(array: ExactArray, columns: dict[int, ExactArray]) -> ExactArray:
    if not columns:
        return array
    return _with_rows(array.T, list(columns), _rows(list(columns.values()))).T
