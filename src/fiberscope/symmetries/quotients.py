"""Quotients of a network by an equitable partition of its neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.network import Network, require_network
from fiberscope.neurons import Classes

ExactArray = npt.NDArray[Any]


def quotient(net: Network, classes: Sequence[Classes]) -> Network:
    """The reduced network of an equitable partition: R = (E^T E)^{-1} E_l^T W E_{l-1}, biases likewise.

    It computes the same function with one neuron per class (theorem "reduced-network"). Exact over Q.

    Args:
        net: the network.
        classes: one partition per hidden layer, equitable (`neurons.colour_classes`).

    Raises:
        InputError: if there is not one partition of the right size for each hidden layer, or a layer has only nulls.

    O(parameters) rational operations. Source: arXiv 2510.09564. That the partition is equitable is not looked at.

    >>> from fiberscope.neurons import colour_classes
    >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[2.0, 3.0]], [0]), activation="softplus")
    >>> quotient(net, colour_classes(net)).widths
    (1, 2, 1)
    """
    require_network(net)
    if not isinstance(classes, Sequence) or not all(isinstance(c, Classes) for c in classes):
        raise InputError("classes are no sequence of Classes; give one for each hidden layer, as colour_classes does")
    if len(classes) != len(net.hidden):
        raise InputError(f"{len(classes)} partitions for {len(net.hidden)} hidden layers; give one for each")
    for layer, given in zip(net.hidden, classes, strict=True):
        if len(given.labels) != layer.n_out:
            raise InputError(f"{layer.name} has {layer.n_out} neurons; its partition has {len(given.labels)} labels")
    if any(c.count == 0 for c in classes):
        raise InputError(
            "a hidden layer has only null neurons; the function is constant and has no quotient of width >= 1"
        )
    layers, below = [], None
    for layer, here in zip(net.layers, [*classes, None], strict=True):
        weight = layer.weight
        if below is not None:
            even = net.layers[len(layers) - 1].activation.parity == "even"
            weight = _sums(weight.T, below, even).T
        bias = layer.bias
        if here is not None:
            first = [members[0] for members in here.members]
            weight, bias = weight[first], bias[first]
        layers.append(replace(layer, weight=weight, bias=bias))
        below = here
    return net.with_layers(layers)


def _sums(columns: ExactArray, classes: Classes, even: bool) -> ExactArray:
    rows = []
    for members in classes.members:
        total = columns[members[0]]
        for i in members[1:]:
            factor = Fraction(classes.factors[i])
            total = rationals.add(total, rationals.scale(columns[i], abs(factor) if even else factor))
        rows.append(total)
    if any(rationals.is_rational(r) for r in rows):
        rows = [rationals.fractions(r) for r in rows]
    return np.stack(rows)
