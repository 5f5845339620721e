"""The symmetries of one parameter as data: continuous ones with their generators, discrete ones with their numbers.

A generator is a tangent vector d theta / d t of a family of parameters with the same function. Source: arXiv 2605.18319
for three-layer networks; scalings and permutations hold for every chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.fibers.walks import hidden_of
from fiberscope.network import Network
from fiberscope.results import Result
from fiberscope.symmetries import neuron_types

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Sparse = tuple[list[int], list[Any]]

_DENSE = 1 << 25


@dataclass(frozen=True, eq=False)
class Symmetry(Result):
    """A way to move theta without changing the function.

    Args:
        name: "scaling", "free", "exchange", "bias", "refactoring", "shift"; "permutation", "flip", "turn", "sign".
        kind: "continuous" or "discrete".
        statement: what it does.
        layer: hidden layer, from 0.
        neurons: those it moves.
        conserves: what gradient flow conserves for it: "balance", "block", "constants" or "none".
        size: number of generators of a continuous one.
        parameters: M.
        vectors: sparse generators, (indices, values) each.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"vectors"})

    name: str
    kind: str
    statement: str
    layer: int
    neurons: tuple[int, ...]
    conserves: str
    size: int = 0
    parameters: int = 0
    vectors: tuple[Sparse, ...] = field(default=(), repr=False)

    def generator(self, number: int = 0) -> ExactArray:
        """Generator number 0, ..., size - 1 as a vector in the order of `Network.theta`, (M,) exact.

        Raises:
            InputError: if there is no generator of this number.
        """
        if not 0 <= number < self.size:
            raise InputError(f"generator {number} of a {self.kind} symmetry with {self.size} generators")
        index, values = self.vectors[number]
        if not any(isinstance(v, Fraction) for v in values):
            out: ExactArray = np.zeros(self.parameters)
        else:
            out = np.full(self.parameters, Fraction(0), dtype=object)
            values = [rationals.as_fraction(v) for v in values]
        out[index] = values
        return out

    def __str__(self) -> str:
        """One line."""
        count = f" ({self.size} generator{'s' * (self.size != 1)})" if self.kind == "continuous" else ""
        return f"{self.statement}{count}; conserves {self.conserves}"


class _Places:
    """Where the entries of each layer are in theta."""

    def __init__(self, net: Network) -> None:
        self.net, self.starts = net, [0]
        for layer in net.layers:
            self.starts.append(self.starts[-1] + layer.weight.size + layer.bias.size)

    def row(self, k: int, i: int) -> list[int]:
        n = self.net.layers[k].n_in
        return list(range(self.starts[k] + i * n, self.starts[k] + (i + 1) * n))

    def bias(self, k: int, i: int) -> int:
        return self.starts[k] + self.net.layers[k].weight.size + i

    def column(self, k: int, i: int) -> list[int]:
        n = self.net.layers[k].n_in
        return [self.starts[k] + j * n + i for j in range(self.net.layers[k].n_out)]


def continuous_symmetries(net: Network) -> Iterator[Symmetry]:
    """The continuous symmetries of theta that are known: each moves theta within its fiber, at least to one side.

    Scalings of homogeneous neurons in any chain; in three-layer ReLU networks also everything of dead neurons, the
    factorisations of the always-active block, and the shift of a hidden kink.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> [(s.name, s.generator().tolist()) for s in continuous_symmetries(net)][-1]
    ('shift', [0.0, 1.0, 0.0, -2.0, 0.0, 0.0])
    """
    three = net.depth == 3 and all(layer.activation.name == "relu" for layer in net.hidden)
    at = _Places(net)
    types = neuron_types(net.layers[1].weight, net.layers[1].bias) if three else None
    for k, layer in enumerate(net.hidden):
        degree = layer.activation.homogeneity
        if degree is None or degree < 1:
            continue
        for i in range(layer.n_out):
            if types is not None and k == 1 and i in set(types.dead):
                continue
            yield _scaling(net, at, k, i, degree)
    if types is not None:
        yield from _free(net, at, types.dead)
        yield from _block(net, at, list(types.active))
        yield from _shifts(net, at, types.dead)


def _made(
    net: Network, name: str, statement: str, layer: int, neurons: Sequence[int], conserves: str, vectors: list[Sparse]
) -> Symmetry:
    found = tuple(int(i) for i in neurons)
    args = (len(vectors), net.parameter_count, tuple(vectors))
    return Symmetry(name, "continuous", statement, layer, found, conserves, *args)


def _scaling(net: Network, at: _Places, k: int, i: int, degree: int) -> Symmetry:
    layer, above = net.layers[k], net.layers[k + 1]
    index = [*at.row(k, i), at.bias(k, i), *at.column(k + 1, i)]
    values = [*layer.weight[i], layer.bias[i], *(above.weight[:, i] * -degree)]
    power = "" if degree == 1 else f"^{degree}"
    text = f"scale neuron {i} of layer {k + 1}: (w, b) times e, its outgoing weights divided by e{power}"
    return _made(net, "scaling", text, k, [i], "balance", [(index, values)])


def _free(net: Network, at: _Places, dead: Sequence[int]) -> Iterator[Symmetry]:
    live = [j for j in range(net.widths[2]) if j not in set(dead)]
    for j in dead:
        index = [*at.row(1, j), at.bias(1, j), *at.column(2, j)]
        units: list[Sparse] = [([p], [1.0]) for p in index]
        text = f"move dead neuron {j} of layer 2 freely while u <= 0, c <= 0"
        yield _made(net, "free", text, 1, [j], "constants", units)
    read = np.asarray(net.layers[1].weight[live] != 0, dtype=bool).any(axis=0)
    for i in np.flatnonzero(~read).tolist():
        units = [([p], [1.0]) for p in (*at.row(0, i), at.bias(0, i))]
        text = f"move neuron {i} of layer 1 freely: no live neuron reads it"
        yield _made(net, "free", text, 0, [i], "constants", units)


def _block(net: Network, at: _Places, block: list[int]) -> Iterator[Symmetry]:
    """v_j u_j + v_k u_k = v_j (u_j - t u_k) + (v_k + t v_j) u_k, and what ranks below the width of the block leave."""
    (_, second, last), n3 = net.layers, net.widths[3]
    outs = [at.bias(2, m) for m in range(n3)]
    for j in block:
        column = last.weight[:, j]
        text = f"move the bias of always-active neuron {j} of layer 2 while it stays >= 0; the output bias pays"
        values = [second.bias.dtype.type(1) if second.bias.dtype != object else Fraction(1), *(-column)]
        yield _made(net, "bias", text, 1, [j], "none", [([at.bias(1, j), *outs], values)])
    for j in block:
        for k in block:
            if j != k:
                column = last.weight[:, j]
                index = [*at.row(1, j), *at.column(2, k), *outs]
                paid = rationals.fractions(column) * -rationals.as_fraction(second.bias[k])
                values = [*(-second.weight[k]), *column, *rationals.simplified(paid)]
                text = f"exchange in the always-active block: u_{j} - t u_{k}, v_{k} + t v_{j}; the output bias pays"
                yield _made(net, "exchange", text, 1, [j, k], "block", [(index, values)])
    if len(block) > 1:
        yield from _refactorings(net, at, block, outs)


def _refactorings(net: Network, at: _Places, block: list[int], outs: list[int]) -> Iterator[Symmetry]:
    (_, second, last), n1 = net.layers, net.widths[1]
    places = [at.row(1, j) for j in block]
    vectors: list[Sparse] = [
        ([row[i] for row in places], list(mix)) for mix in kernel(last.weight[:, block]) for i in range(n1)
    ]
    for mix in kernel(second.weight[block].T):
        held = -sum((m * rationals.as_fraction(second.bias[j]) for m, j in zip(mix, block, strict=True)), Fraction(0))
        for m, out in enumerate(outs):
            vectors.append(([*(at.column(2, j)[m] for j in block), out], [*mix, held]))
    if vectors:
        text = "change the rows (or columns) of the always-active block by what its columns (or rows) cancel"
        yield _made(net, "refactoring", text, 1, block, "none", vectors)


def kernel(table: ExactArray) -> list[ExactArray]:
    """A basis of {x : table x = 0} over Q, each (n,).

    >>> [[str(v) for v in x] for x in kernel(np.array([[1.0, 2.0, 0.0]]))]
    [['-2', '1', '0'], ['0', '0', '1']]
    """
    pivots, form = rationals.row_reduce(table)
    rows, n = rationals.fractions(form), table.shape[1]
    out = []
    for free in (k for k in range(n) if k not in pivots):
        x = np.full(n, Fraction(0), dtype=object)
        x[free] = Fraction(1)
        for row, p in zip(rows, pivots, strict=True):
            x[p] = -row[free]
        out.append(x)
    return out


def _shifts(net: Network, at: _Places, dead: Sequence[int]) -> Iterator[Symmetry]:
    second = net.layers[1]
    for i, readers in hidden_of(second.weight, second.bias, dead).items():
        index = [at.bias(0, i), *(at.bias(1, j) for j in readers)]
        values = [1.0, *(-second.weight[j, i] for j in readers)]
        text = f"shift the hidden kink of neuron {i} of layer 1: b + t, c_j - u_j{i} t for its readers"
        yield _made(net, "shift", text, 0, [i], "none", [(index, values)])


def discrete_symmetries(net: Network) -> Iterator[Symmetry]:
    """The discrete symmetries of theta's shape: permutations, signs; flips and turns where they could apply.

    >>> [s.name for s in discrete_symmetries(Network.random((2, 3, 1), activation="tanh", seed=0))]
    ['permutation', 'sign']
    """
    for k, layer in enumerate(net.hidden):
        every = tuple(range(layer.n_out))
        if layer.n_out > 1:
            yield Symmetry("permutation", "discrete", f"permute the neurons of layer {k + 1}", k, every, "none")
        if layer.activation.parity is not None:
            text = f"change signs of neurons of layer {k + 1}: s is {layer.activation.parity}"
            yield Symmetry("sign", "discrete", text, k, every, "none")
    if net.depth == 3 and all(layer.activation.name == "relu" for layer in net.hidden):
        second = net.layers[1]
        types = neuron_types(second.weight, second.bias)
        if types.split and types.active:
            text = "flip split neurons of layer 2, relu(t) = relu(-t) + t, where the always-active block can pay"
            yield Symmetry("flip", "discrete", text, 1, types.split, "none")
        for i, onto in turns(net):
            text = f"turn neuron {i} of layer 1 round, z_{onto} + r z_{i}, z_{i} -> -z_{i}"
            yield Symmetry("turn", "discrete", text, 0, (i, onto), "none")


def turns(net: Network) -> list[tuple[int, int]]:
    """(k, i): first-layer neurons k that can be turned round onto a hidden i (all readers see them in one ratio).

    >>> net = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[1, -1]], [-3]), ([[1]], [0]))
    >>> turns(net)
    [(1, 0)]
    """
    second = net.layers[1]
    dead = neuron_types(second.weight, second.bias).dead
    live = [j for j in range(net.widths[2]) if j not in set(dead)]
    upper = rationals.fractions(second.weight)
    out = []
    for i, readers in hidden_of(second.weight, second.bias, dead).items():
        others = [j for j in live if j not in readers]
        for k in range(net.widths[1]):
            ratios = {upper[j, k] / upper[j, i] for j in readers}
            if k != i and len(ratios) == 1 and ratios != {Fraction(0)} and not any(upper[j, k] for j in others):
                out.append((k, i))
    return out


def spanning_set(net: Network) -> ExactArray:
    """All generators as rows, (count, M) exact; they may be dependent.

    Raises:
        InputError: if that array is too large.
    """
    found = list(continuous_symmetries(net))
    count = sum(s.size for s in found)
    if count * net.parameter_count > _DENSE:
        raise InputError(f"{count} generators of {net.parameter_count} entries are too many for one array")
    rows = [s.generator(n) for s in found for n in range(s.size)]
    if not rows:
        return np.zeros((0, net.parameter_count))
    if any(rationals.is_rational(row) for row in rows):
        rows = [rationals.fractions(row) for row in rows]
    return np.vstack(rows)


def tangent_basis(net: Network) -> FloatArray:
    """An orthonormal basis of the span of all generators, (M, dim); dim is the exact rank over Q.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> tangent_basis(net).shape
    (6, 3)
    """
    rows = spanning_set(net)
    if not len(rows):
        return np.zeros((net.parameter_count, 0))
    table = rationals.rounded(rows, np.float64)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    table = table / np.where(norms > 0, norms, 1.0)
    _, _, right = np.linalg.svd(table, full_matrices=False)
    return np.asarray(right[: rationals.rank(rows)].T, dtype=np.float64)
