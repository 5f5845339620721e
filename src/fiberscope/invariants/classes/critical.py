"""Neurons with a constant output that training never moves, and the network without them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.network import Layer, Network
from fiberscope.neurons import colour_classes, still_layers

ExactArray = npt.NDArray[Any]


def is_critical(row: Activation, point: Fraction) -> bool:
    """Whether s'(point) = 0 exactly: 0 for even analytic s, the inside of flat pieces, rational roots of polynomials.

    Critical points that are no rational numbers (GELU, SiLU, sin) cannot be reached by a float and are not asked for.

    >>> from fiberscope.activations import activation
    >>> is_critical(activation("gaussian"), Fraction(0)), is_critical(activation("relu"), Fraction(-1))
    (True, True)
    >>> is_critical(activation("tanh"), Fraction(0)), is_critical(activation("abs"), Fraction(0))
    (False, False)
    """
    if row.analytic and row.parity == "even" and point == 0:
        return True
    for piece in row.pieces or ():
        inside = (piece.lo is None or piece.lo < point) and (piece.hi is None or point < piece.hi)
        if inside and piece.slope == 0:
            return True
    if row.name == "polynomial":
        return sum((k * c * point ** (k - 1) for k, c in enumerate(row.parameters) if k), Fraction(0)) == 0
    return False


def frozen_neurons(net: Network) -> tuple[tuple[int, ...], ...]:
    """For every hidden layer, the neurons that read nothing and sit at a critical point of the activation.

    Where the weights into neuron i from neurons that are not such constants are zero and s'(b) = 0 for its effective
    bias b = b_i + (what the constants below send), it has delta_i = 0 for every input and loss: it never moves.

    >>> net = Network.from_arrays(([[0.0], [1.0]], [0.0, 0.0]), ([[3.0, 1.0]], [0.0]), activation="gaussian")
    >>> frozen_neurons(net)
    ((0,),)
    """
    return tuple(tuple(int(i) for i in np.flatnonzero(mask)) for mask in _frozen(net)[0])


def _frozen(net: Network) -> tuple[list[npt.NDArray[np.bool_]], list[ExactArray]]:
    """Masks of the frozen neurons of the hidden layers, and the effective biases of all layers."""
    masks: list[npt.NDArray[np.bool_]] = []
    biases: list[ExactArray] = []
    live, sent = np.ones(net.widths[0], dtype=bool), None
    for k, layer in enumerate(net.layers):
        bias = layer.bias
        if sent is not None and not live.all():
            values = rationals.simplified(np.array(sent, dtype=object))
            bias = rationals.add(bias, rationals.matmul(layer.weight[:, ~live], values))
        biases.append(bias)
        if k == net.depth - 1:
            break
        mask, sent = np.zeros(layer.n_out, dtype=bool), []
        for i in _silent_rows(layer.weight, live):
            point = rationals.as_fraction(bias[i])
            value = layer.activation.value(point)
            known = value is not None or k == net.depth - 2  # the output biases decide no class
            if known and is_critical(layer.activation, point):
                mask[i] = True
                sent.append(Fraction(0) if value is None else value)
        masks.append(mask)
        live = ~mask
    return masks, biases


def _silent_rows(weight: ExactArray, live: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rows without a nonzero weight in live columns."""
    if not live.any():
        return np.arange(len(weight))
    at = np.flatnonzero(weight[:, int(live.argmax())] == 0)  # most networks have none
    return np.asarray(at[~((weight[at] != 0) & live).any(axis=1)])


def leaf_without_constants(net: Network) -> int | None:
    """Dimension of the leaf through theta on which frozen neurons stay and their columns move with the bias above.

    Frozen neurons have constant outputs h_i, so the velocity of their column is h_i times that of the bias above: the
    differences W_ji - h_i b_j never change. What is left is a network without them, with biases b_j + sum_i W_ji h_i,
    whose coarsest equitable partition gives the leaf. If a whole layer is frozen, all below it is frozen too.
    None where no neuron is frozen.

    >>> net = Network.from_arrays(([[0.0], [0.0]], [0.0, 0.0]), ([[3.0, 1.0]], [0.0]), activation="gaussian")
    >>> leaf_without_constants(net)  # a_1, a_2 and the output bias move along one direction
    1
    """
    masks, biases = _frozen(net)
    if not any(mask.any() for mask in masks):
        return None
    cut = max((k + 1 for k, mask in enumerate(masks) if mask.all()), default=0)
    layers: list[Layer] = []
    live = np.ones(net.layers[cut].n_in, dtype=bool)
    for k, layer in enumerate(net.layers[cut:], start=cut):
        keep = ~masks[k] if k < len(masks) else np.ones(layer.n_out, dtype=bool)
        weight = layer.weight[keep][:, live]
        if k == cut and cut:
            weight = np.zeros((int(keep.sum()), 1))  # nothing is read here: one input that nobody sees
        layers.append(replace(layer, weight=weight, bias=biases[k][keep]))
        live = keep
    inner = net.with_layers(layers)
    counts = (0 if cut else inner.widths[0], *(c.count for c in colour_classes(inner)), inner.widths[-1])
    still = still_layers(counts[1:-1])
    return sum(a * b + b for a, b in list(zip(counts, counts[1:], strict=False))[still:])
