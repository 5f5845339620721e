"""Symmetries of the parameters that give no conservation law, and why."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.network import Network, require_network
from fiberscope.results import Result
from fiberscope.symmetries.dimensions import hidden_neurons, neuron_types

ExactArray = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Lawless(Result):
    """A symmetry of the parameters that gives no conserved function, and why.

    Args:
        name: "hidden-shift", "flip", "permutation" or "sign".
        statement: the symmetry.
        reason: why gradient flow conserves nothing for it.
        layer: hidden layer, None for all.
        neurons: the neurons it moves at this theta; empty for discrete symmetries, or where there is none.
        present: whether this network has it; None where that was not decided.
    """

    name: str
    statement: str
    reason: str
    layer: int | None
    neurons: tuple[int, ...]
    present: bool | None

    def __str__(self) -> str:
        """Two sentences."""
        return f"{self.statement} {self.reason}"


def symmetries_without_law(net: Network) -> tuple[Lawless, ...]:
    """The symmetries of ReLU networks, and of odd and even activations, that no law comes from.

    >>> [s.name for s in symmetries_without_law(Network.random((2, 3, 1), activation="tanh", seed=0))]
    ['permutation', 'sign']
    """
    require_network(net)
    hidden = hidden_neurons(net)
    shift = Lawless(
        "hidden-shift",
        "A hidden first-layer neuron i may be shifted: b_i + t, c_j - u_ji t for every reader j that is not dead.",
        "Its generator X = d/db_i - sum_j u_ji d/dc_j is no gradient field (dX_cj/du_ji = -1, dX_uji/dc_j = 0), nor is "
        "any multiple of it (X ^ dX is not 0), so it gives no conserved function.",
        0,
        hidden or (),
        None if hidden is None else bool(hidden),
    )
    discrete = "It is discrete: it has no generator, and Noether's argument gives nothing."
    relu = any(layer.activation.name == "relu" for layer in net.hidden)
    flip = "A hyperplane may be flipped, relu(z) = z + relu(-z), where the linear part is paid for by other neurons."
    swap = "Neurons of one layer may be permuted."
    sign = "Neurons with an odd or even activation may change sign."
    parity = any(layer.activation.parity is not None for layer in net.hidden)
    return (
        *((shift, Lawless("flip", flip, discrete, None, (), None)) if relu else ()),
        Lawless("permutation", swap, discrete, None, (), max(net.widths[1:-1], default=1) > 1),
        *((Lawless("sign", sign, discrete, None, (), True),) if parity else ()),
    )


def shift_generator(net: Network, neuron: int) -> ExactArray:
    """The generator d/db_i - sum_j u_ji d/dc_j of the shift of a hidden first-layer neuron i, exactly, (M,).

    The sum is over second-layer neurons that are not dead. Moving theta along it keeps the function while i is hidden.

    Raises:
        InputError: if the neuron is not hidden (`hidden_neurons`).

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> [int(v) for v in shift_generator(net, 0)]
    [0, 1, 0, -2, 0, 0]
    """
    if neuron not in (hidden_neurons(net) or ()):
        raise InputError(
            f"first-layer neuron {neuron} is not hidden behind the second layer; hidden_neurons names those"
        )
    second = net.layers[1]
    dead = neuron_types(second.weight, second.bias).dead
    out = np.full(net.parameter_count, Fraction(0), dtype=object)
    first = net.layers[0].weight.size
    start = first + net.widths[1] + second.weight.size
    out[first + neuron] = Fraction(1)
    for j, u in enumerate(rationals.fractions(second.weight[:, neuron])):
        if j not in dead:
            out[start + j] = -u
    return out
