"""Types of second-layer neurons and the dimension of the fiber of a three-layer ReLU network, from signs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.network import Layer, Network, require_network
from fiberscope.results import Assumption, Result, Rigor
from fiberscope.symmetries.scalings import scaling_rank

ExactArray = npt.NDArray[Any]


@dataclass(frozen=True)
class NeuronTypes:
    """Second-layer neurons of a bottleneck ReLU network by signs alone: always active, dead, split on the orthant."""

    active: tuple[int, ...]
    dead: tuple[int, ...]
    split: tuple[int, ...]

    def __str__(self) -> str:
        """Counts in one phrase."""
        return f"{len(self.split)} split, {len(self.active)} always active, {len(self.dead)} dead"


def neuron_types(weight: ExactArray, bias: ExactArray) -> NeuronTypes:
    """Types of neurons relu(u y + c) on the orthant y >= 0, from signs (arXiv 2605.18319).

    Args:
        weight: U, (n2, n1).
        bias: c, (n2,).

    >>> neuron_types(np.array([[1.0, 2.0], [-1.0, 0.0], [1.0, -1.0]]), np.array([0.0, -1.0, 0.0])).split
    (2,)
    """
    up = np.asarray(weight >= 0, dtype=bool).all(axis=1) & np.asarray(bias >= 0, dtype=bool)
    down = np.asarray(weight <= 0, dtype=bool).all(axis=1) & np.asarray(bias <= 0, dtype=bool)
    active, dead = up & ~down, down
    index = np.arange(len(bias))
    return NeuronTypes(*(tuple(index[m].tolist()) for m in (active, dead, ~(active | dead))))


@dataclass(frozen=True)
class FiberDimension(Result):
    """Dimension of the set of parameters of the same function, near theta.

    Args:
        lower_bound: rank of the scaling symmetries at theta (EXACT).
        exact: the value where a theorem gives it (GENERIC: for generic parameters of these signs), else None.
        formula: how the value arises.
        hypotheses: each with what code found.
        theorem: key of the theorem that is about such networks, "" if there is none; it applies if `exact` is given.
    """

    lower_bound: int
    exact: int | None
    formula: str
    hypotheses: tuple[Assumption, ...]
    theorem: str = ""

    @property
    def theorems(self) -> tuple[str, ...]:
        """What the numbers rest on; the theorem only where its hypotheses hold."""
        scalings = ("permutation-scaling",) if self.lower_bound else ()
        return scalings + ((self.theorem,) if self.theorem and self.exact is not None else ())

    @property
    def rigor(self) -> Rigor:
        """Of the value: one theorem is about generic parameters."""
        return Rigor.GENERIC if self.theorem == "relu-fiber-dimension" else Rigor.EXACT

    def __str__(self) -> str:
        """The bound, and the value or why there is none."""
        lower = f"dimension of the fiber: at least {self.lower_bound} (EXACT)"
        if self.exact is not None:
            generic = " for generic parameters" if self.rigor is Rigor.GENERIC else ""
            return f"{lower}, exactly {self.exact}{generic} ({self.rigor.name}): {self.formula}"
        failing = [h.statement for h in self.hypotheses if h.holds is False]
        return f"{lower}; no theorem gives the value" + (f", fails: {failing[0]}" if failing else "")


def fiber_dimension(net: Network) -> FiberDimension:
    """Bounds for the dimension of the fiber at theta, and the value where a theorem applies.

    For generic three-layer ReLU networks with n1 <= n0 and rank W1 = n1 (bottleneck) the dimension is
    n1 + s + d (n1 + 1 + n3) + a (n1 + n3 + 1) - r (n1 + n3 - r) + h with r = min(a, n1, n3), where s, d, a count split,
    dead and always-active second-layer neurons and h = 1 if a first-layer neuron is hidden; M - n3 if s + a = 0.
    For irreducible two-layer tanh networks and for one affine layer it is 0. Source: arXiv 2605.18319; Sussmann 1992.

    Raises:
        InputError: for what is no network.

    O(parameters), and an exact rank for three layers.

    >>> fiber_dimension(Network.random((2, 3, 1), activation="tanh", seed=0)).exact
    0
    """
    require_network(net)
    lower = scaling_rank(net)
    row = net.activation
    if net.depth == 1 and _affine_end(net).holds:
        return FiberDimension(lower, 0, "0: an affine map has one matrix and one bias", (_affine_end(net),))
    if net.depth == 2 and row is not None and row.name == "tanh":
        return _tanh_dimension(net, lower)
    if net.depth != 3 or row is None or row.name != "relu":
        found = f"{net.depth} affine layers, {net.architecture.split(' ', 1)[1]}"
        hypothesis = Assumption(f"three affine layers with ReLU, or two with tanh (found {found})", True, False)
        return FiberDimension(lower, None, "", (hypothesis,))
    return _relu_dimension(net, lower)


def _tanh_dimension(net: Network, lower: int) -> FiberDimension:
    from fiberscope.neurons import proportional_rows

    classes = proportional_rows(net.layers[0])
    rows = np.asarray(net.layers[0].weight != 0, dtype=bool).any(axis=1)
    columns = np.asarray(net.layers[1].weight != 0, dtype=bool).any(axis=0)
    hypotheses = (
        Assumption("no two hidden neurons are equal up to sign", True, classes.count == rows.size),
        Assumption("no hidden neuron is constant", True, bool(rows.all())),
        Assumption("every hidden neuron is read by an output", True, bool(columns.all())),
        _affine_end(net),
    )
    exact = 0 if all(h.holds for h in hypotheses) else None
    return FiberDimension(lower, exact, "0: permutations and signs only", hypotheses, "tanh-identifiability")


def _relu_dimension(net: Network, lower: int) -> FiberDimension:
    (n0, n1, _, n3), (first, second, last) = net.widths, net.layers
    rank = rationals.rank(first.weight) if n1 <= n0 else None
    types = neuron_types(second.weight, second.bias)
    s, d, a = len(types.split), len(types.dead), len(types.active)
    hypotheses = (
        Assumption(f"n1 <= n0 (found {n1} and {n0})", True, n1 <= n0),
        Assumption(
            f"rank W1 = n1 (found {'not computed' if rank is None else rank})",
            rank is not None,
            None if rank is None else rank == n1,
        ),
        Assumption("no second-layer weight, bias or output weight is zero", True, _all_nonzero(second, last)),
        Assumption("no two second-layer neurons lie on one hyperplane", True, _hyperplanes_distinct(second)),
        _affine_end(net),
        Assumption("the parameters are generic for their signs in every other way", False, None),
    )
    holds = rank is not None and all(h.holds for h in hypotheses if h.checked)
    exact = None
    if holds:
        r = min(a, n1, n3)
        hidden = _has_hidden(second.weight, second.bias, types)
        exact = n1 + s + d * (n1 + 1 + n3) + a * (n1 + n3 + 1) - r * (n1 + n3 - r) + int(hidden)
        exact = net.parameter_count - n3 if s + a == 0 else exact
    return FiberDimension(lower, exact, f"{types}", hypotheses, "relu-fiber-dimension")


def _affine_end(net: Network) -> Assumption:
    name = net.layers[-1].activation.label
    return Assumption(f"the last layer has no activation (found {name})", True, name == "identity")


def _all_nonzero(second: Layer, last: Layer) -> bool:
    return all(bool(np.asarray(a != 0, dtype=bool).all()) for a in (second.weight, second.bias, last.weight))


def _hyperplanes_distinct(second: Layer) -> bool:
    from fiberscope.activations import activation
    from fiberscope.neurons import proportional_rows

    # abs forgives every nonzero factor, so its classes are the hyperplanes
    return proportional_rows(replace(second, activation=activation("abs"))).count == second.n_out


def _has_hidden(weight: ExactArray, bias: ExactArray, types: NeuronTypes) -> bool:
    return bool(_hidden(weight, bias, types))


def _hidden(weight: ExactArray, bias: ExactArray, types: NeuronTypes) -> tuple[int, ...]:
    live = [i for i in range(len(bias)) if i not in set(types.dead)]
    if not live or bool(np.asarray(bias[live] >= 0, dtype=bool).any()):
        return ()
    negative = np.asarray(weight[live] < 0, dtype=bool)
    others = negative.sum(axis=1)[:, None] - negative
    return tuple(np.flatnonzero((others == weight.shape[1] - 1).all(axis=0)).tolist())


def hidden_neurons(net: Network) -> tuple[int, ...] | None:
    """First-layer neurons of a three-layer ReLU network that hide behind the second layer, by strict signs.

    Neuron i is hidden when every second-layer neuron j that is not dead has c_j < 0 and u_jk < 0 for all k != i.

    Returns:
        Their indices, or None for other chains, where this is not decided. Source: arXiv 2605.18319.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> hidden_neurons(net)
    (0,)
    """
    row = net.activation
    if net.depth != 3 or row is None or row.name != "relu":
        return None
    second = net.layers[1]
    return _hidden(second.weight, second.bias, neuron_types(second.weight, second.bias))
