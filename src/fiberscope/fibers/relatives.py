"""Relatives of a network: wider ones of the same function, near misses, and random ones with given neuron types.

Each of the first kind is an identity on outputs >= 0 of the layer below, checked over Q by tests: a copy, a dead,
unread or constant neuron, a kink carried by the second layer instead of the first. Source: arXiv 2605.18319.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_generator
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.walks import ONE, ZERO, Move, State, entries, own, rebuilt, zeros
from fiberscope.network import Network

ExactArray = npt.NDArray[Any]


def split_neuron(net: Network, layer: int, neuron: int, *, share: Fraction = Fraction(1, 4)) -> Network:
    """A copy of a hidden neuron is put last in its layer, and the outgoing weights are shared between the two.

    >>> net = split_neuron(Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [0.0])), 0, 0)
    >>> net.layers[1].weight.tolist()
    [[1.5, 0.5]]
    """
    weights, biases = _parts(net, layer)
    column = weights[layer + 1][:, neuron].copy()
    weights[layer + 1][:, neuron] = column * (1 - share)
    return _grown(net, weights, biases, layer, weights[layer][neuron], biases[layer][neuron], column * share)


def add_unread(net: Network, layer: int, seed: int | np.random.Generator | None = 0) -> Network:
    """A random neuron that nothing reads is put last in a hidden layer.

    >>> add_unread(Network.random((2, 3, 1), seed=0), 0).widths
    (2, 4, 1)
    """
    weights, biases = _parts(net, layer)
    rng = as_generator(seed)
    row = entries(rng, weights[layer].shape[1], 0)
    above = zeros(len(biases[layer + 1]))
    return _grown(net, weights, biases, layer, row, entries(rng, 1, 0)[0], above)


def add_dead(net: Network, layer: int, seed: int | np.random.Generator | None = 0) -> Network:
    """A neuron that is zero on all inputs >= 0, read at random, is put last in a ReLU layer above another one.

    Raises:
        ScopeError: if the layer or the one below is not ReLU.

    >>> add_dead(Network.random((2, 3, 3, 1), seed=0), 1).widths
    (2, 3, 4, 1)
    """
    _require_stack(net, layer)
    weights, biases = _parts(net, layer)
    rng = as_generator(seed)
    row, column = entries(rng, weights[layer].shape[1], -1), entries(rng, len(biases[layer + 1]), 0)
    return _grown(net, weights, biases, layer, row, entries(rng, 1, -1)[0], column)


def add_constant(net: Network, layer: int, seed: int | np.random.Generator | None = 0) -> Network:
    """A neuron with zero weights and a positive bias is put last in a ReLU layer; the next bias pays.

    >>> net = add_constant(Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [0.0])), 0)
    >>> net.exact([5])
    (Fraction(10, 1),)
    """
    if net.layers[layer].activation.name != "relu":
        raise ScopeError(f"a constant neuron needs a ReLU layer; layer {layer} is {net.layers[layer].activation.label}")
    weights, biases = _parts(net, layer)
    rng = as_generator(seed)
    value, column = entries(rng, 1, 1)[0], entries(rng, len(biases[layer + 1]), 0)
    biases[layer + 1] = biases[layer + 1] - column * value
    return _grown(net, weights, biases, layer, zeros(weights[layer].shape[1]), value, column)


def transfer_kink(net: Network, neuron: int, by: Fraction = ONE) -> Network:
    """relu(z) = relu(relu(z + t) - t), t > 0: the second layer takes over the kink of a first-layer neuron.

    b_i += t; the linear coefficient of y_i in the always-active block moves to a new second-layer neuron that reads y_i
    alone with bias -t.

    Args:
        net: three-layer ReLU network in which no split second-layer neuron reads the neuron.
        neuron: i.
        by: t.

    Raises:
        ScopeError: if a split neuron reads it, or the network has another shape.

    >>> net = transfer_kink(Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [1.0]), ([[1.0]], [0.0])), 0)
    >>> [layer.bias.tolist() for layer in net.layers], net.exact([3])
    ([[1.0], [1.0, -1.0], [0.0]], (Fraction(7, 1),))
    """
    if net.depth != 3:
        raise ScopeError(f"a kink transfer needs three affine layers; found {net.depth}")
    _require_stack(net, 1)
    if by <= 0:
        raise InputError(f"kink transfer by {by}; give a number > 0")
    state = State.of(net, np.random.default_rng(0), False, True)
    if any(state.weights[1][j, neuron] for j in state.split()):
        raise ScopeError(f"first-layer neuron {neuron} is read by a split second-layer neuron; no transfer is known")
    block = state.active()
    column = state.weights[2][:, block] @ state.weights[1][block, neuron] if block else zeros(len(state.biases[2]))
    for j in range(len(state.biases[1])):
        state.weights[1][j, neuron] = ZERO
    state.biases[0][neuron] += by
    row = zeros(net.widths[1])
    row[neuron] = ONE
    return _grown(net, state.weights, state.biases, 1, row, -by, column)


def near_miss(net: Network, kind: str = "ulp", seed: int | np.random.Generator | None = 0) -> tuple[Network, Move]:
    """A parameter that differs in one number: nearly always another function, by very little.

    Args:
        net: any chain.
        kind: "ulp" (a weight moves to the next float of its dtype; a rational by 2^-52 of itself), "sign" (a nonzero
            weight changes its sign) or "bias" (a bias changes by 2^-10 of itself, or of 1 where it is 0).
        seed: seed or generator.

    Returns:
        (network, what was changed).

    Raises:
        InputError: for another kind, or if there is nothing to change.

    >>> other, change = near_miss(Network.from_arrays(([[1.0]], [0.0]), ([[3.0]], [1.0])), "sign", seed=1)
    >>> change["after"] == -change["before"]
    True
    """
    if kind not in ("ulp", "sign", "bias"):
        raise InputError(f"near miss of kind {kind!r}; expected 'ulp', 'sign' or 'bias'")
    rng = as_generator(seed)
    arrays = [(layer.bias if kind == "bias" else layer.weight) for layer in net.layers]
    places = [(k, p) for k, a in enumerate(arrays) for p in np.flatnonzero(a.reshape(-1) != 0 if kind == "sign" else
              np.ones(a.size, dtype=bool)).tolist()]  # fmt: skip
    if not places:
        raise InputError(f"near miss of kind {kind!r}: the network has no such parameter")
    k, p = places[int(rng.integers(len(places)))]
    array = np.array(arrays[k])
    flat = array.reshape(-1)
    before = flat[p]
    flat[p] = after = _moved(before, kind, 1 if rng.random() < 0.5 else -1)
    before, after = (v if isinstance(v, Fraction) else float(v) for v in (before, after))
    weights, biases = [la.weight for la in net.layers], [la.bias for la in net.layers]
    (biases if kind == "bias" else weights)[k] = array
    place = {"kind": kind, "layer": k, "index": [int(v) for v in np.unravel_index(p, array.shape)]}
    return rebuilt(net, weights, biases), {**place, "before": before, "after": after}


def _moved(value: Any, kind: str, side: int) -> Any:
    if kind == "sign":
        return -value
    exact = isinstance(value, Fraction)
    if kind == "ulp":
        return value + side * (abs(value) or ONE) * Fraction(1, 2**52) if exact else np.nextafter(value, side * np.inf)
    step = (abs(value) or 1) / 1024
    return value + side * (Fraction(step) if exact else step)


def typed_network(
    widths: Sequence[int], types: str, *, hidden: int | None = None, seed: int | np.random.Generator | None = 0
) -> Network:
    """A random three-layer ReLU network of small rationals whose second-layer neurons have given types.

    Args:
        widths: (n0, n1, n2, n3), n1 <= n0.
        types: n2 letters: S split, A always active, D dead.
        hidden: a first-layer neuron that the second layer hides (then every neuron that is not dead must be split).
        seed: seed or generator.

    Returns:
        Weights k / 8 with small k, all nonzero; rows of W1 independent (checked). Generic for its signs except by bad
        luck.

    Raises:
        InputError: if the arguments contradict each other.

    >>> from fiberscope.symmetries import neuron_types
    >>> net = typed_network((3, 2, 4, 1), "SADS", seed=0)
    >>> str(neuron_types(net.layers[1].weight, net.layers[1].bias))
    '2 split, 1 always active, 1 dead'
    """
    n0, n1, n2, n3 = widths
    if len(types) != n2 or set(types) - set("SAD") or n1 > n0 or (hidden is not None and "A" in types):
        raise InputError(
            f"widths {tuple(widths)} and types {types!r}; give n1 <= n0, n2 letters S, A, D, no A if hidden"
        )
    rng = as_generator(seed)
    while True:
        first = entries(rng, n1 * n0, 0).reshape(n1, n0)
        if rationals.rank(first) == n1:
            break
    rows = np.array([_typed_row(rng, n1, letter, hidden) for letter in types], dtype=object).reshape(n2, n1 + 1)
    pairs = (first, entries(rng, n1, 0)), (rows[:, :-1], rows[:, -1]), (
        entries(rng, n3 * n2, 0).reshape(n3, n2), entries(rng, n3, 0),
    )  # fmt: skip
    return Network.from_arrays(*((rationals.simplified(w), rationals.simplified(b)) for w, b in pairs))


def _typed_row(rng: np.random.Generator, n1: int, letter: str, hidden: int | None) -> ExactArray:
    if letter != "S":
        return entries(rng, n1 + 1, 1 if letter == "A" else -1)
    if hidden is not None:
        row = entries(rng, n1 + 1, -1)
        row[hidden] = -row[hidden]
        return row
    while True:
        row = entries(rng, n1 + 1, 0)
        if (row > 0).any() and (row < 0).any():
            return row


def _parts(net: Network, layer: int) -> tuple[list[ExactArray], list[ExactArray]]:
    if not 0 <= layer < net.depth - 1:
        raise InputError(f"hidden layer {layer}; the network has hidden layers 0 to {net.depth - 2}")
    return [own(la.weight) for la in net.layers], [own(la.bias) for la in net.layers]


def _grown(
    net: Network, weights: list[ExactArray], biases: list[ExactArray], layer: int, row: ExactArray, bias: Fraction,
    column: ExactArray,
) -> Network:  # fmt: skip
    weights[layer] = np.vstack([weights[layer], row])
    biases[layer] = np.concatenate([biases[layer], [bias]])
    weights[layer + 1] = np.column_stack([weights[layer + 1], column])
    return rebuilt(net, weights, biases)


def _require_stack(net: Network, layer: int) -> None:
    names = [net.layers[k].activation.name for k in (layer - 1, layer) if 0 <= k < net.depth - 1]
    if names != ["relu", "relu"]:
        raise ScopeError(f"a dead or moved neuron needs two ReLU layers, {layer - 1} and {layer}; found {names}")
