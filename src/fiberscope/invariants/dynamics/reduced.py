"""The reduced network of an equitable partition with the learning-rate multipliers that make it train alike.

With E_l the class vectors of layer l (entries e_i: 1, -1, positive for ReLU-like activations, 0 for null neurons) and
n_A = sum of e_i^2 over a class, R_AB = sum over j in B of W_ij f_j / e_i and r_A = b_i / e_i, where f = e, or f = |e|
for even activations. The wide network's gradients are e_i f_j G_AB / n_A with G the reduced one's. After arXiv
2510.09564.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.dynamics.backprop import Chain
from fiberscope.invariants.dynamics.equitable import (
    blocks_constant,
    class_sides,
    require_equitable,
    require_fit,
    spread,
    spread_bias,
)
from fiberscope.invariants.dynamics.updates import Family, Optimiser, State, optimiser
from fiberscope.network import Network, require_network
from fiberscope.results import Result, Rigor
from fiberscope.rowclasses import Classes
from fiberscope.symmetries.quotients import quotient

FloatArray = npt.NDArray[np.float64]

_LISTED = 10_000
"""Entries of a multiplier matrix up to which `to_dict` writes it out; the sizes give it in any case."""


@dataclass(frozen=True, eq=False)
class Multipliers:
    """What an optimiser of the reduced network multiplies, for each layer (weights (k_l, k_(l-1)), biases (k_l,)).

    Feed `gradient` * G to the rule, and multiply the update it returns by `rate`; neither touches weight decay, except
    that `coupled_decay` * theta is what a rule that mixes decay into its gradient must see per unit of decay.
    """

    optimiser: str
    gradient: tuple[tuple[FloatArray, FloatArray], ...]
    rate: tuple[tuple[FloatArray, FloatArray], ...]
    coupled_decay: tuple[tuple[FloatArray, FloatArray], ...]


@dataclass(frozen=True, eq=False)
class ReducedNetwork(Result):
    """The network with one neuron for each class, and the metric in which it trains like the wide one.

    Args:
        network: the exact quotient; it computes the same function.
        original: the wide network.
        partition: the classes of every hidden layer.
        sizes: n_A for every class of every hidden layer, exact.
        unit: whether all class vectors have entries 0, 1, -1 only; elementwise rules need it.
        deviation: whether the wide weights have a part that no gradient moves (entries that differ inside a block).
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "original", "partition"})

    network: Network
    original: Network
    partition: tuple[Classes, ...]
    sizes: tuple[tuple[Fraction, ...], ...]
    unit: bool
    deviation: bool
    rigor: Rigor = Rigor.EXACT
    theorems: tuple[str, ...] = ("equitable-sim", "reduced-network", "optimiser-equivariance")

    # ---- multipliers as data

    @property
    def weight_multipliers(self) -> tuple[FloatArray, ...]:
        """For each layer n_B / n_A, shape (k_l, k_(l-1)): learning-rate factors of R_AB under linear rules."""
        return tuple(below[None, :] / above[:, None] for below, above in self._ends)

    @property
    def bias_multipliers(self) -> tuple[FloatArray, ...]:
        """For each layer 1 / n_A, shape (k_l,)."""
        return tuple(1.0 / above for _, above in self._ends)

    @cached_property
    def _ends(self) -> list[tuple[FloatArray, FloatArray]]:
        """Sizes of the classes below and above each layer, inputs and outputs 1 each."""
        widths = self.network.widths
        inner = [np.array([float(n) for n in sizes]) for sizes in self.sizes]
        around = [np.ones(widths[0]), *inner, np.ones(widths[-1])]
        return list(zip(around, around[1:], strict=False))

    def multipliers(self, rule: str | Optimiser = "sgd", *, weight_decay: bool = False) -> Multipliers:
        """Gradient and learning-rate multipliers for a rule: the wide run is then reproduced step by step.

        Linear rules (gd, sgd, momentum, nesterov): gradients times n_B / n_A for weights and 1 / n_A for biases.
        Elementwise ones (adam, adamw, rmsprop, adagrad, sign): gradients times 1 / n_A, learning rate times n_B for
        weights. Decay must not be multiplied: R shrinks by the same factor as W.

        Args:
            rule: name of a rule in `updates.FAMILIES`, or a rule.
            weight_decay: whether a rule given by name decays (coupled, except for adamw).

        Raises:
            InputError: for an unknown name.
            ScopeError: if the rule does not keep this manifold, or (muon) scales no single entries; the reason is
                named.
        """
        given = optimiser(rule, 1.0) if isinstance(rule, str) else rule
        if weight_decay:
            given = replace(given, decay=given.decay or 1.0)
        self.require(given)
        if given.family == "orthogonal":
            raise ScopeError(
                f"{given.name} acts on whole matrices, so entries have no multipliers of their own; use the "
                "coordinates sqrt(n_A / n_B) R (`coordinates`)"
            )
        parameter, gradient = self.coordinates(given.family)
        rate = 1.0 / parameter
        return Multipliers(given.name, *(self._layered(v) for v in (gradient, rate, parameter)))

    def coordinates(self, family: Family) -> tuple[FloatArray, FloatArray]:
        """Factors (p, q), each (M_reduced,): the plain rule on p * theta with gradients q * G is the wide run.

        Linear rules: p = 1 and q the multipliers n_B / n_A, 1 / n_A. Orthogonal rules: p = sqrt(n_A / n_B) = 1 / q, in
        which metric and norms are those of the wide network. Elementwise rules: p = 1 / n_B and q = 1 / n_A, the
        entries of the wide network. For biases read n_B = 1.
        """
        return self._coordinates[family]

    @cached_property
    def _coordinates(self) -> dict[Family, tuple[FloatArray, FloatArray]]:
        families: tuple[Family, ...] = ("linear", "orthogonal", "elementwise")
        return {family: self._scales(family) for family in families}

    def _scales(self, family: Family) -> tuple[FloatArray, FloatArray]:
        parameter, slope = [], []
        for below, above in self._ends:
            b, a = below[None, :], above[:, None]
            if family == "elementwise":
                scales = (1.0 / b + 0.0 * a, np.ones(above.size)), (1.0 / a + 0.0 * b, 1.0 / above)
            elif family == "orthogonal":
                scales = (np.sqrt(a / b), np.sqrt(above)), (np.sqrt(b / a), 1.0 / np.sqrt(above))
            else:
                scales = (np.ones((above.size, below.size)), np.ones(above.size)), (b / a, 1.0 / above)
            parameter += [v.reshape(-1) for v in scales[0]]
            slope += [v.reshape(-1) for v in scales[1]]
        return np.concatenate(parameter), np.concatenate(slope)

    @cached_property
    def _blocks(self) -> list[tuple[slice, tuple[int, int]]]:
        return [(weight, shape) for weight, _, shape in Chain(self.network).places]

    def _layered(self, vector: FloatArray) -> tuple[tuple[FloatArray, FloatArray], ...]:
        out, at = [], 0
        for below, above in self._ends:
            size = above.size * below.size
            weight = vector[at : at + size].reshape(above.size, below.size)
            out.append((weight, vector[at + size : at + size + above.size]))
            at += size + above.size
        return tuple(out)

    @cached_property
    def _squared(self) -> FloatArray:
        return np.concatenate([
            np.concatenate([w.reshape(-1), b])
            for w, b in zip(self.weight_multipliers, self.bias_multipliers, strict=True)
        ])  # fmt: skip

    def gradient_norm(self, gradient: npt.ArrayLike) -> float:
        """The norm of the wide network's gradient from the reduced one's (M_reduced,); what clipping must use.

        It is the root of sum (n_B / n_A) G_AB^2 + sum G_A^2 / n_A.
        """
        return math.sqrt(float((self._squared * np.square(np.asarray(gradient, dtype=np.float64))).sum()))

    # ---- which rules

    def require(self, rule: Optimiser) -> None:
        """Refuse a rule under which the wide network leaves the manifold.

        Raises:
            ScopeError: for elementwise rules on weighted classes, and for coupled decay in an elementwise rule when
                blocks are not constant.
        """
        if rule.family != "elementwise":
            return
        if not self.unit:
            raise ScopeError(
                f"{rule.name} acts on every entry by itself, and neurons of a class here are multiples with factors "
                "other than 1 and -1: the wide network leaves the manifold; use a rule linear in the gradient"
            )
        if rule.decay and rule.coupled and self.deviation:
            raise ScopeError(
                f"{rule.name} with decay inside the gradient treats unequal entries of a block unequally: the wide "
                "network stops following the reduced one; use decoupled decay, or constant blocks (lift, deviation 0)"
            )

    def step(self, rule: Optimiser, theta: FloatArray, gradient: FloatArray, state: State) -> tuple[FloatArray, State]:
        """One step of training the reduced network that equals the wide network's step.

        Args:
            rule: the rule that trains the wide network.
            theta: parameters of the reduced network (M_reduced,), as in `Network.theta`.
            gradient: its gradient (M_reduced,).
            state: memory of the rule; start with `State()`.

        Raises:
            ScopeError: if the rule does not keep the manifold.

        >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[2.0, 2.0]], [0]), activation="tanh")
        >>> small = reduced_network(net, (Classes(np.array([0, 0]), np.array([Fraction(1)] * 2)),))
        >>> theta = np.asarray(small.network.theta, float)
        >>> small.step(optimiser("gd", 1.0), theta, np.ones(4), State())[0].tolist()
        [0.5, -0.5, 2.0, -1.0]
        """
        self.require(rule)
        parameter, slope = self.coordinates(rule.family)
        norm = None if rule.clip is None else self.gradient_norm(gradient)
        moved, new = rule.step(parameter * theta, slope * gradient, state, norm=norm, blocks=self._blocks)
        return moved / parameter, new

    # ---- back to the wide network

    def lift(self, network: Network | None = None, *, deviation: Fraction | float = 1) -> Network:
        """The wide network on the manifold whose quotient is `network`, exactly: W = E R (E^T E)^(-1) E^T + c D.

        D is the part of the original weights that gradients do not move; it is all of them that touch null neurons.

        Args:
            network: parameters of the reduced network (its own if None).
            deviation: c; weight decay shrinks D, for instance by (1 - rate * decay) in each step of gradient descent.

        Raises:
            InputError: if the widths are not those of the reduced network.
        """
        small = self.network if network is None else network
        if small.widths != self.network.widths:
            raise InputError(f"a network of widths {small.widths}; expected {self.network.widths}")
        layers = []
        around = class_sides(self.original, self.partition)
        factor = Fraction(deviation)
        for k, (layer, source, own) in enumerate(
            zip(self.original.layers, small.layers, self.network.layers, strict=True)
        ):
            below, above = around[k], around[k + 1]
            weight = spread(source.weight, below, above)
            if self.deviation and factor:
                frozen = rationals.add(layer.weight, rationals.scale(spread(own.weight, below, above), Fraction(-1)))
                weight = rationals.add(weight, rationals.scale(frozen, factor))
            layers.append(replace(layer, weight=weight, bias=spread_bias(source.bias, above)))
        return self.original.with_layers(layers)

    # ---- reports

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; multiplier matrices of more than 10,000 entries are left to the sizes."""
        out = super().to_dict()
        out["widths"] = list(self.network.widths)
        out["original_widths"] = list(self.original.widths)
        out["parameters"] = self.network.parameter_count
        out["original_parameters"] = self.original.parameter_count
        out["weight_multipliers"] = [m.tolist() if m.size <= _LISTED else None for m in self.weight_multipliers]
        out["bias_multipliers"] = [m.tolist() for m in self.bias_multipliers]
        out["elementwise"] = self._elementwise()
        return out

    def _elementwise(self) -> str:
        if not self.unit:
            return "no: neurons of a class are multiples with factors other than 1 and -1"
        if self.deviation:
            return "yes, with decoupled decay only: blocks of the wide network are not constant"
        return "yes"

    def __str__(self) -> str:
        """One screen."""
        small, wide = self.network, self.original
        lines = [
            f"reduced network {small.architecture} of {wide.architecture}: {small.parameter_count} of "
            f"{wide.parameter_count} parameters, the same function ({self.rigor.name})",
            "  trains like the wide one with these multipliers of its gradients (n_B / n_A for weights, 1 / n_A for "
            "biases):",
        ]
        for k, (w, b) in enumerate(zip(self.weight_multipliers, self.bias_multipliers, strict=True)):
            lines.append(f"    layer {k + 1}: weights {_span(w)}, biases {_span(b)}")
        lines.append("  gradient descent, momentum, clipping by the wide norm, weight decay (not multiplied): yes")
        lines.append(f"  elementwise rules (Adam, RMSprop, sign): {self._elementwise()}")
        if any(c.null for c in self.partition):
            lines.append("  null neurons: in floating point Adam moves the wide network off the manifold unless all")
            lines.append("  weights that touch them are 0; the reduced network has no such trouble")
        return "\n".join(lines)


def _span(values: FloatArray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def reduced_network(net: Network, partition: Sequence[Classes]) -> ReducedNetwork:
    """The exact reduced network of an equitable partition, with its learning-rate multipliers.

    It has weights (E^T E)^(-1) E_l^T W E_(l-1), computes the same function, and training it with n_B / n_A times the
    gradients of its weights and 1 / n_A times those of its biases is training the wide network, step by step.

    Args:
        net: the wide network, whose layers are the parameters that are trained.
        partition: one `Classes` for each hidden layer, as `neurons.colour_classes` gives.

    Raises:
        ScopeError: if a layer was folded or unrolled from something else.
        InputError: if the partition does not fit the network, or is not equitable; the first class that fails is named.

    Complexity: O(parameters), in rational arithmetic for classes of several neurons. Source: arXiv 2510.09564 and the
    theory page on equitable partitions.

    >>> from fiberscope.neurons import colour_classes
    >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[2.0, 2.0]], [0]), activation="softplus")
    >>> small = reduced_network(net, colour_classes(net))
    >>> small.network.widths, [m.tolist() for m in small.weight_multipliers]
    ((1, 1, 1), [[[0.5]], [[2.0]]])
    """
    require_network(net)
    net.require_own_parameters("a reduced network that trains like the wide one")
    classes = tuple(partition) if isinstance(partition, Iterable) else (partition,)
    require_fit(net, classes)
    small = quotient(net, classes)
    around = class_sides(net, classes)
    for k, layer in enumerate(net.layers):
        require_equitable(k, layer, around[k], around[k + 1])
    sizes = tuple(tuple(side.sizes) for side in around[1:-1])
    unit = all(abs(Fraction(e)) in (0, 1) for c in classes for e in c.factors)
    deviation = any(not blocks_constant(layer.weight, around[k], around[k + 1]) for k, layer in enumerate(net.layers))
    return ReducedNetwork(small, net, classes, sizes, unit, deviation)
