"""Relations between neurons: equal up to what the activation forgives, and the coarsest equitable partition."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.arguments import as_generator, shown
from fiberscope.errors import InputError
from fiberscope.network import Layer, Network, require_network
from fiberscope.rowclasses import Classes as Classes
from fiberscope.rowclasses import Multiples as Multiples
from fiberscope.rowclasses import Part, discrete, partition, refine

ExactArray = npt.NDArray[Any]


def multiples(row: Activation, *, training: bool = False) -> Multiples:
    """The multiples an activation forgives, as functions or (`training`) as moving together under gradient flow.

    For functions s(e z) = phi(e) s(z) is enough. For invariant manifolds s' must also map the class into itself, which
    for positive multiples holds only in degree 1 (arXiv 2510.09564; weighted classes of ReLU networks).

    >>> from fiberscope.activations import activation
    >>> multiples(activation("tanh")).sign, multiples(activation("relu")).scale
    (True, True)
    """
    degree = row.homogeneity
    return Multiples(
        sign=row.parity is not None,
        scale=degree == 1 if training else degree is not None and degree >= 1,
        even=row.parity == "even",
        null=row.value(Fraction(0)) == 0,
    )


def output_factor(row: Activation, e: Fraction) -> Fraction | None:
    """Phi with s(e z) = phi s(z) for all z, or None if the activation has no such number.

    >>> from fiberscope.activations import activation
    >>> output_factor(activation("relu"), Fraction(3)), output_factor(activation("tanh"), Fraction(-1))
    (Fraction(3, 1), Fraction(-1, 1))
    """
    if e == 1:
        return Fraction(1)
    if e == 0 or (e < 0 and row.parity is None):
        return None
    sign = -1 if e < 0 and row.parity == "odd" else 1
    if abs(e) == 1:
        return Fraction(sign)
    return None if row.homogeneity is None else sign * abs(e) ** row.homogeneity


def still_layers(counts: Sequence[int]) -> int:
    """How many layers of a chain no gradient flow moves, from the number of classes in every hidden layer.

    A hidden layer l without a class (all neurons null, or constants that never move) passes no gradient back: on the
    manifold W_(l+1)^T delta_(l+1) = 0 at null neurons and s' = 0 at the others, so delta_l = 0 and with it delta_j for
    all j <= l. Layers 1 to l stand still, and so do the weights that read null neurons.

    >>> still_layers([2, 0, 3]), still_layers([2, 1, 3])
    (2, 0)
    """
    return max((k for k, count in enumerate(counts, start=1) if count == 0), default=0)


def proportional_rows(layer: Layer, *, seed: int = 0) -> Classes:
    """Neurons of a layer that compute multiples of one function: row_i = e_i row_j with s(e z) = phi s(z), exactly.

    Args:
        layer: any layer; its activation decides which multiples count (any e > 0 for ReLU, e = -1 for odd and even
            activations, none for generic ones). A zero row is null when s(0) = 0.
        seed: of the random projections; the result does not depend on it.

    Returns:
        The classes of the n neurons. O(n_out n_in) for a generic layer.

    Raises:
        InputError: for what is no layer.

    >>> import numpy as np
    >>> rows = [[1.0, 2.0], [3.0, 6.0], [-1.0, -2.0]]
    >>> net = Network.from_arrays((rows, [1.0, 3.0, -1.0]), ([[1.0, 1.0, 1.0]], [0.0]))
    >>> proportional_rows(net.layers[0]).members
    ((0, 1), (2,))
    """
    if not isinstance(layer, Layer):
        raise InputError(f"layer {shown(layer)} is no Layer; give one of net.layers")
    rule = multiples(layer.activation)
    ones = np.full(layer.n_in, Fraction(1), dtype=object)
    parts = [
        Part(layer.weight, np.arange(layer.n_in), ones),
        Part(layer.bias.reshape(-1, 1), np.zeros(1, dtype=np.int64), ones[:1]),
    ]
    old = np.full(layer.n_out, -1, dtype=np.int64)
    return partition(parts, rule, old, as_generator(seed))


def colour_classes(net: Network, *, seed: int = 0) -> tuple[Classes, ...]:
    """The coarsest equitable partition of the hidden neurons, signed or weighted as the activations allow.

    A partition with vectors E_l (entries 1; +-1 for odd activations; positive for positively homogeneous ones; 0 for
    null neurons when s(0) = 0) is equitable when W_l E_{l-1} has proportional rows and W_l^T E_l proportional columns
    inside every class, and the biases too: W_l P_{l-1} = P_l W_l for P_l = E_l (E_l^T E_l)^{-1} E_l^T. Such partitions
    are structural invariant manifolds (after arXiv 2510.09564). Inputs and outputs are each alone in their class.

    Args:
        net: any chain.
        seed: of the random projections; the result does not depend on it.

    Returns:
        One `Classes` for each hidden layer. Colour refinement: O(rounds * parameters).

    Raises:
        InputError: for what is no network.

    >>> square = [[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]
    >>> pairs = ([[1.0]] * 3, [0.0] * 3), (square, [0.0] * 3), ([[1.0] * 3], [0.0])
    >>> net = Network.from_arrays(*pairs, activation="softplus")
    >>> [c.members for c in colour_classes(net)]
    [((0, 1, 2),), ((0, 1, 2),)]
    """
    require_network(net)
    rng = as_generator(seed)
    rules = [multiples(layer.activation, training=True) for layer in net.hidden]
    state = [discrete(net.widths[0])]
    for layer, rule in zip(net.hidden, rules, strict=True):
        old = np.full(layer.n_out, -1, dtype=np.int64)
        state.append(partition(_forward(layer, state[-1], _outgoing(state, rules)), rule, old, rng))
    state.append(discrete(net.widths[-1]))
    waiting = set(range(1, net.depth))
    while waiting:
        k = max(waiting)
        waiting.discard(k)
        if state[k].trivial:
            continue
        parts = _forward(net.layers[k - 1], state[k - 1], _outgoing(state[:k], rules))
        above = state[k + 1]
        parts.append(Part(net.layers[k].weight.T, above.labels, above.factors, signed=not rules[k - 1].even))
        new = refine(parts, rules[k - 1], state[k], rng)
        if new.count != state[k].count or new.null != state[k].null:
            waiting |= {k - 1, k + 1} & set(range(1, net.depth))
        state[k] = new
    return tuple(state[1:-1])


def _outgoing(state: Sequence[Classes], rules: Sequence[Multiples]) -> ExactArray:
    """Factors of the outputs of the last layer in `state`: an even activation forgets the sign."""
    last = state[-1]
    if len(state) >= 2 and rules[len(state) - 2].even:
        return np.array([abs(f) for f in last.factors], dtype=object)
    return last.factors


def _forward(layer: Layer, below: Classes, factors: ExactArray) -> list[Part]:
    return [
        Part(layer.weight, below.labels, factors),
        Part(layer.bias.reshape(-1, 1), np.zeros(1, dtype=np.int64), np.full(1, Fraction(1), dtype=object)),
    ]
