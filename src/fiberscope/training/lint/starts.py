"""A start as data: its parameters, the neurons that are silent for every input, and the classes of the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import InputError, ScopeError
from fiberscope.io.state_dicts import as_array
from fiberscope.network import Network
from fiberscope.neurons import Classes, colour_classes, multiples
from fiberscope.training.architectures.architecture import Architecture, Role, checked_architecture

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Start:
    """Parameters with their architecture.

    Args:
        architecture: which axes index which neurons.
        parameters: arrays by name, exact ones kept.
        label: what the model is, in a phrase.
        origin: "network" if it came as one, "module" for torch, "mapping" else.
        source: the network it came as, whose activations and head are kept.
        frozen: names of parameters that are not trained.
    """

    architecture: Architecture
    parameters: dict[str, Any]
    label: str
    origin: str
    source: Network | None = None
    frozen: frozenset[str] = frozenset()

    @cached_property
    def network(self) -> Network | None:
        """The chain as a network, None if the model is no plain chain with one population for each hidden layer."""
        chain = self.architecture.chain
        if not chain:
            return None
        net = self.architecture.network(self.parameters)
        fits = tuple(p.count for p in self.architecture.populations) == net.widths[1:-1]
        return net if fits and all(p.exchangeable for p in self.architecture.populations) else None

    def with_parameters(self, parameters: Mapping[str, Any]) -> Start:
        """The same model at other parameters."""
        return replace(self, parameters=dict(parameters))

    def rows(self, population: str, role: Role | None = None) -> list[Array]:
        """Matrices (count, entries per neuron) of a population's places."""
        return [matrix for _, matrix in self.architecture.rows(self.parameters, population, role)]

    def as_network(self) -> Network:
        """The parameters as a network like the one that was given.

        Raises:
            InputError: if none was given.
        """
        if self.source is None:
            raise InputError("the model was not given as a network; it comes back as a mapping")
        layers = []
        for layer, dense in zip(self.source.layers, self.architecture.chain, strict=True):
            bias = layer.bias if dense.bias is None else self.parameters[dense.bias]
            layers.append(replace(layer, weight=self.parameters[dense.weight], bias=bias))
        return self.source.with_layers(layers)


def read_start(model: Any, architecture: Architecture | None = None, *, example: Any = None) -> Start:
    """The parameters and the architecture of a network, a torch module, or a mapping with an architecture.

    Args:
        model: see `lint_init`.
        architecture: found for networks and modules if None.
        example: inputs of a module; with them its populations are put to the test.

    Raises:
        InputError: for a mapping without an architecture, or anything else.
        ScopeError: if a network's layers were folded, so that they are not what is trained.

    O(parameters).

    >>> start = read_start(Network.from_arrays(([[1.0], [2.0]], [0, 0]), ([[1.0, 1.0]], [0])))
    >>> [p.name for p in start.architecture.populations], start.origin
    (['1'], 'network')
    """
    if architecture is not None:
        checked_architecture(architecture)
    if isinstance(model, Network):
        from fiberscope.training.architectures.chains import chain_architecture

        try:
            model.require_own_parameters("the lint of a start")
        except ScopeError as exc:
            raise ScopeError(f"{exc}; give the file as it was before its export, or the torch module itself") from exc
        found = architecture or chain_architecture(model)
        values: dict[str, Any] = {}
        for layer, dense in zip(model.layers, found.chain, strict=True):
            values[dense.weight] = layer.weight.T if dense.transposed else layer.weight
            if dense.bias is not None:
                values[dense.bias] = layer.bias
        return Start(found, values, f"network {model.architecture}", "network", model if architecture is None else None)
    if hasattr(model, "named_parameters"):
        from fiberscope.training.adapters.torch_modules import architecture_of_module, parameters_of_module

        found = architecture or architecture_of_module(model, example)
        values = {name: np.array(value) for name, value in parameters_of_module(model).items()}  # it may train on
        frozen = frozenset(name for name, p in model.named_parameters() if not p.requires_grad)
        return Start(found, values, type(model).__name__, "module", frozen=frozen)
    if isinstance(model, Mapping):
        if architecture is None:
            raise InputError(
                "a mapping of arrays does not say which axes index neurons; give architecture=, "
                "for instance chain_architecture([784, 512, 10], activation=...)"
            )
        return Start(architecture, _copied(model), f"{len(model)} tensors", "mapping")
    raise InputError(f"a {type(model).__name__}; give a Network, a torch module, or a mapping with architecture=")


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_array(values[name], name) for name in values}


def closes_at_zero(row: Activation | None) -> bool:
    """Whether s(z) = 0 and s'(z) = 0 for every z <= 0, as ReLU has it (frameworks take s'(0) = 0).

    >>> from fiberscope.activations import activation
    >>> closes_at_zero(activation("relu")), closes_at_zero(activation("leaky_relu"))
    (True, False)
    """
    if row is None or not row.pieces:
        return False
    first = row.pieces[0]
    flat = first.lo is None and first.slope == 0 and first.intercept == 0
    return flat and first.hi is not None and first.hi >= 0 and float(row.derivative(np.zeros(1))[0]) == 0.0


def silent_neurons(start: Start) -> dict[str, Mask]:
    """For every population the neurons with output 0 and slope 0 for every input: z <= 0 where s closes at 0.

    In a chain, z_i = sum_j W_ij h_j + b_i <= 0 if b_i <= 0 and every weight from a neuron that is not silent itself is
    0, or is <= 0 where the layer below sends nothing negative. Elsewhere only neurons whose incoming weights are all 0
    and whose biases are <= 0 are found, and normalised ones with gain 0 and shift <= 0.

    Such a neuron sends 0 and gets no gradient, whatever the data and the loss; nothing it reads or sends through moves,
    so it stays silent [s'(z) = 0 and h = 0 in every term of its gradients].

    O(parameters).

    >>> net = Network.from_arrays(([[1.0], [-1.0]], [0, 0]), ([[-1.0, -2.0], [1.0, 1.0]], [0, 0]), ([[1.0, 1.0]], [0]))
    >>> silent_neurons(read_start(net))["2"].tolist()
    [True, False]
    """
    if start.network is not None:
        return _silent_in_chain(start)
    out = {}
    for population in start.architecture.populations:
        mask = np.zeros(population.count, dtype=bool)
        inner = start.rows(population.name, "in")
        if closes_at_zero(population.activation) and any(m.shape[1] > 1 for m in inner):
            mask = zero_rows(inner, population.count)
            if population.normalised:
                mask |= _shut(start, population.name, population.count)
            elif start.origin == "module":  # nothing of another sign stands between the bias and the activation
                mask |= _closed(start, population.name, population.count)
        out[population.name] = mask
    return out


def _closed(start: Start, name: str, count: int) -> Mask:
    """Neurons that read nothing, with biases <= 0; of 1-d parameters only those named as biases are taken for such."""
    out, biased = np.ones(count, dtype=bool), 0
    for s, matrix in start.architecture.rows(start.parameters, name, "in"):
        slot = start.architecture.slots[s]
        if len(slot.view) == 1 and is_bias(slot.name):
            out &= np.asarray(matrix[:, 0] <= 0, dtype=bool)
            biased += 1
        else:
            out &= zero_rows([matrix], count)
    return out if biased <= 1 else np.zeros(count, dtype=bool)


def _shut(start: Start, name: str, count: int) -> Mask:
    """Neurons whose normalisation has gain 0 and shift <= 0, so that they send 0 whatever they read."""
    groups: dict[str, list[tuple[str, Array]]] = {}
    for s, matrix in start.architecture.rows(start.parameters, name, "in"):
        if matrix.shape[1] == 1 and len(start.architecture.slots[s].view) == 1:
            tensor = start.architecture.slots[s].name
            groups.setdefault(re.sub(r"[^./]*$", "", tensor), []).append((tensor, matrix))
    out = np.zeros(count, dtype=bool)
    for rows in groups.values():  # gain and shift are parameters of one layer
        gains = [m for tensor, m in rows if is_gain(tensor)]
        shifts = [m for tensor, m in rows if not is_gain(tensor)]
        if len(gains) == 1 and len(shifts) <= 1 and all(is_bias(t) for t, m in rows if not is_gain(t)):
            low = [m[:, 0] <= 0 if start.origin == "module" else m[:, 0] == 0 for m in shifts]
            out |= zero_rows(gains, count) & np.all(low, axis=0)
    return out


def is_bias(name: str) -> bool:
    """Whether a parameter with one entry for each neuron is added, by its name.

    >>> is_bias("fc1.bias"), is_bias("bn1.weight")
    (True, False)
    """
    return re.search(r"(^|[./_])(bias|beta|shift|b)$", name) is not None


def is_gain(name: str) -> bool:
    """Whether a parameter with one entry for each neuron multiplies, by its name.

    >>> is_gain("bn1.weight"), is_gain("bn1.bias")
    (True, False)
    """
    return re.search(r"(^|[./_])(weight|scale|gamma|gain)$", name) is not None


def _silent_in_chain(start: Start) -> dict[str, Mask]:
    net = start.network
    if net is None:
        return {}
    out: dict[str, Mask] = {}
    live, positive = np.ones(net.widths[0], dtype=bool), False
    for layer, population in zip(net.hidden, start.architecture.populations, strict=True):
        mask = np.zeros(layer.n_out, dtype=bool)
        if closes_at_zero(layer.activation):
            # a neuron with one positive weight, as nearly all have, is settled by its first columns
            mask = np.asarray(layer.bias <= 0, dtype=bool)
            columns = np.flatnonzero(live)
            for part in (columns[:16], columns[16:]):
                at = np.flatnonzero(mask)
                block = layer.weight[np.ix_(at, part)]
                mask[at] = ~np.asarray(block > 0 if positive else block != 0, dtype=bool).any(axis=1)
        out[population.name] = mask
        live, positive = ~mask, layer.activation.range_[0] >= 0
    return out


def frozen_constants(start: Start, silent: Mapping[str, Mask]) -> dict[str, tuple[int, ...]]:
    """Neurons of a chain that read nothing and sit where s'(b) = 0, without the silent ones; see `frozen_neurons`."""
    from fiberscope.invariants.classes.critical import frozen_neurons

    if start.network is None:
        return {}
    found = zip(start.architecture.populations, frozen_neurons(start.network), strict=True)
    return {p.name: tuple(i for i in some if not silent[p.name][i]) for p, some in found}


def without_neurons(start: Start, gone: Mapping[str, Mask]) -> Start:
    """The start with everything these neurons read and send set to 0: they take no part in the classes of others.

    Entries of silent neurons are constants that nothing depends on, so neurons that differ in them alone move alike.
    """
    values = dict(start.parameters)
    for name, mask in gone.items():
        if not mask.any():
            continue
        for s, axis, _ in start.architecture.places[name]:
            slot = start.architecture.slots[s]
            fresh = np.array(np.asarray(values[slot.name]), order="C")
            rows = np.moveaxis(slot.cut(fresh.reshape(slot.view)), axis, 0)
            rows[mask] = Fraction(0) if fresh.dtype == object else 0
            values[slot.name] = fresh
    return start.with_parameters(values)


def classes_of(start: Start, *, weighted: bool, tolerance: float = 0.0, seed: int = 0) -> dict[str, Classes]:
    """The coarsest equitable partition of all populations.

    Args:
        start: parameters.
        weighted: whether positive multiples of ReLU neurons count, as rules linear in the gradient keep them.
        tolerance: relative difference of neurons that count as equal, for models that are no chain.
        seed: of random projections.

    Returns:
        One `Classes` for each population. Exact for chains: the partition depends on an activation only through what
        it forgives (`multiples`), so that another activation that forgives no scale stands in if not `weighted`.
    """
    if start.network is None:
        from fiberscope.training.architectures.refinement import refine

        return refine(start.architecture, start.parameters, tolerance=tolerance, seed=seed)
    net = start.network if weighted else _unscaled(start.network)
    found = colour_classes(net, seed=seed)
    return {p.name: c for p, c in zip(start.architecture.populations, found, strict=True)}


def near_duplicates(start: Start, exact: Mapping[str, Classes], tolerance: float) -> dict[str, Classes]:
    """Classes up to rounding, or up to a relative tolerance if that is larger, above the exact ones."""
    from fiberscope.invariants.classes.nearby import near_classes, rounding_tolerances

    if start.network is None:
        eps = max((np.finfo(v.dtype).eps for v in start.parameters.values() if v.dtype.kind == "f"), default=2.2e-16)
        return classes_of(start, weighted=False, tolerance=max(tolerance, 100.0 * float(eps)))
    net = _unscaled(start.network)
    slack = [max(t, tolerance) for t in rounding_tolerances(net)]
    found = near_classes(net, list(exact.values()), slack)
    return {p.name: c for p, c in zip(start.architecture.populations, found, strict=True)}


def _unscaled(net: Network) -> Network:
    layers = []
    for layer in net.layers:
        rule = multiples(layer.activation, training=True)
        stand_in = layer.activation
        if rule.scale:  # sign and s(0) = 0 as they are, homogeneous of degree 1 no more
            stand_in = find_activation("square" if rule.even else "tanh" if rule.sign else "gelu")
        layers.append(replace(layer, activation=stand_in))
    return net.with_layers(layers)


def identical(start: Start, name: str, members: Sequence[int], factors: Sequence[Fraction], *, even: bool) -> bool:
    """Whether the neurons of a class are equal in every entry, up to sign: then exchanging two changes nothing.

    Args:
        start: parameters.
        name: of the population.
        members: the class, its leader first.
        factors: 1 or -1, of each member relative to the leader.
        even: whether the activation forgets the sign, so that it stands on the incoming side alone.
    """
    if any(abs(e) != 1 for e in factors):
        return False
    pick = list(members)
    signs = np.array([int(e) for e in factors])
    for s, axis, role in start.architecture.places[name]:
        slot = start.architecture.slots[s]
        turn = np.abs(signs) if even and role == "out" else signs
        values = slot.read(start.parameters)
        axes = [k for k, a in enumerate(slot.axes) if a is not None and a.population == name]
        if len(axes) == 1:
            rows = np.moveaxis(values, axis, 0)
            shape = (len(pick),) + (1,) * (rows.ndim - 1)
            if not np.asarray(rows[pick] * turn.reshape(shape) == rows[pick[0]], dtype=bool).all():
                return False
        elif not all(_same_swapped(values, axes, pick[0], i, int(t)) for i, t in zip(pick[1:], turn[1:], strict=True)):
            return False
    return True


def _same_swapped(values: Array, axes: Sequence[int], a: int, b: int, sign: int) -> bool:
    """Whether exchanging two neurons (and their signs) on all axes that index them keeps a tensor."""
    other = values
    for axis in axes:
        order = np.arange(values.shape[axis])
        order[[a, b]] = b, a
        turn = np.ones(values.shape[axis], dtype=np.int64)
        turn[[a, b]] = sign
        shape = [1] * values.ndim
        shape[axis] = -1
        other = np.take(other, order, axis=axis) * turn.reshape(shape)
    return bool(np.asarray(other == values, dtype=bool).all())


def zero_rows(matrices: Sequence[Array], count: int) -> Mask:
    """Which neurons have nothing but zeros in all matrices (count, entries)."""
    out = np.ones(count, dtype=bool)
    for matrix in matrices:
        out &= ~np.asarray(matrix != 0, dtype=bool).any(axis=1)
    return out
