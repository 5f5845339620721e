"""Silent units: dead on the data at hand, and dead for every input, which is another number and is proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.arguments import as_floats
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.layers import Layer, affine_enclosure
from fiberscope.training.architectures.architecture import Architecture, Array, Parameters, Population
from fiberscope.training.measures.pairs import computable

BoolArray = npt.NDArray[np.bool_]

_BATCH = 128
"""Samples that go through a chain at a time."""
_FIRST = 32
"""Entries of a row that are looked at first."""


@dataclass(frozen=True, eq=False)
class Silence:
    """Which units of a population never speak.

    Args:
        on_data: (n,) whether a unit is dead on every sample; None without data.
        every_input: (n,) whether it is proved dead for every input of the domain; False says only: not proved.
    """

    on_data: BoolArray | None
    every_input: BoolArray


def units(architecture: Architecture) -> tuple[Population, ...]:
    """The populations whose neurons have an activation of their own: what can be dead."""
    return tuple(
        p for p in architecture.populations
        if p.kind in ("neurons", "channels") and p.activation is not None and p.activation.name != "identity"
    )  # fmt: skip


def silent_units(
    architecture: Architecture, parameters: Parameters, *, data: npt.ArrayLike | None = None,
    activations: Mapping[str, Array] | None = None, domain: Box | str | None = None,
) -> dict[str, Silence]:  # fmt: skip
    """Which units are dead: they pass nothing on that depends on the input, so nothing is learned through them.

    On data: the derivative s'(z) is 0 at every sample (and position, for channels), or the output is the same at all
    of at least two samples. For every input: s' = 0 on an enclosure of z over the domain, or z is constant. Without a
    domain all real inputs are meant, and signs decide: z <= 0 always, where no weight is positive, the inputs are never
    negative, and neither is the negative of the bias. With one, intervals are propagated, rounded outward. In models
    that are no plain chain only units without any incoming weight and bias count. What is dead for every input is dead
    on every datum of the domain; if all data lie in it, `on_data` contains `every_input`.

    Args:
        architecture: of the model.
        parameters: by name.
        data: (samples, inputs) for a plain chain, which is run in the dtype of the parameters.
        activations: outputs (or preactivations) of populations, (samples, neurons, ...); instead of data, or with it.
        domain: of the inputs, for plain chains: a Box, or text for `Box.parse`.

    Returns:
        By population (`units`).

    Raises:
        InputError: if shapes do not fit, or a domain is given for a model that is no chain.

    Complexity: O(parameters) without domain, O(parameters * samples) with data.
    Source: interval arithmetic; that a derivative 0 on all data stops a unit is immediate.

    >>> from fiberscope.network import Network
    >>> from fiberscope.training.architectures.chains import chain_architecture, parameters_of
    >>> net = Network.from_arrays(([[1.0], [0.0]], [0, -1]), ([[1.0, 1.0]], [0]), activation="relu")
    >>> found = silent_units(chain_architecture(net), parameters_of(net), data=[[-1.0], [-2.0]])
    >>> [(s.on_data.tolist(), s.every_input.tolist()) for s in found.values()]
    [([True, True], [False, True])]
    """
    places = units(architecture)
    box = _box(architecture, domain)
    proved = _proved(architecture, parameters, places, box)
    seen: dict[str, BoolArray] = {}
    inside = box is None
    if data is not None and architecture.chain:
        points = as_floats(data, "data")
        if points.ndim != 2 or points.shape[1] != _inputs(architecture):
            raise InputError(f"data has shape {points.shape}; expected (samples, {_inputs(architecture)})")
        inside = box is None or bool(((points >= box.lower) & (points <= box.upper)).all())
        seen = _run(architecture, parameters, points)
    if activations is not None and not isinstance(activations, Mapping):
        raise InputError(
            f"activations are a {type(activations).__name__}; give a mapping of populations "
            f"({', '.join(p.name for p in places[:4])}) to outputs (samples, neurons, ...)"
        )
    for p in places:
        if activations is not None and p.name in activations:
            seen[p.name] = _dead_in(p, [as_floats(activations[p.name], f"activations of {p.name}")])
    out = {}
    for p in places:
        on_data = seen.get(p.name)
        if on_data is not None and inside:
            on_data = on_data | proved[p.name]  # rounding may give a dead unit the value 1e-17
        out[p.name] = Silence(on_data, proved[p.name])
    return out


def _inputs(architecture: Architecture) -> int:
    first = architecture.chain[0]
    shape = next(s.shape for s in architecture.slots if s.name == first.weight)
    return shape[0] if first.transposed else shape[1]


def _box(architecture: Architecture, domain: Box | str | None) -> Box | None:
    if domain is None:
        return None
    if not architecture.chain:
        raise InputError("a domain of inputs is understood for plain chains of dense layers only")
    if not isinstance(domain, str | Box):
        raise InputError(f"domain is a {type(domain).__name__}; expected a Box, or text for Box.parse such as '[0,1]'")
    box = Box.parse(domain, _inputs(architecture)) if isinstance(domain, str) else domain
    if box.dimension != _inputs(architecture):
        raise InputError(f"domain has {box.dimension} inputs; the model takes {_inputs(architecture)}")
    return None if box.is_everything else box


def _dense(architecture: Architecture, parameters: Parameters, k: int) -> tuple[Array, Array | None]:
    """Weight (outputs, inputs) and bias of a layer of the chain, no copies."""
    layer = architecture.chain[k]
    weight = np.asarray(parameters[layer.weight])
    bias = None if layer.bias is None else np.asarray(parameters[layer.bias])
    return (weight.T if layer.transposed else weight), bias


def _chain_populations(architecture: Architecture) -> list[str | None]:
    """For every layer of the chain the population of its outputs, None where it has none."""
    out: list[str | None] = []
    for layer in architecture.chain:
        slot = next(s for s in architecture.slots if s.name == layer.weight)
        made = [a.population for a in slot.axes if a is not None and a.role == "in"]
        out.append(made[0] if made else None)
    return out


# ---- on data


def _run(architecture: Architecture, parameters: Parameters, points: Array) -> dict[str, BoolArray]:
    """Run a chain in the dtype of its parameters, a few samples at a time."""
    names = _chain_populations(architecture)
    wanted = {p.name: p for p in units(architecture)}
    tests = {name: _Stillness(p) for name, p in wanted.items()}
    last = max((k for k, name in enumerate(names) if name in wanted), default=-1)
    for at in range(0, len(points), _BATCH):
        h: Array = points[at : at + _BATCH]
        for k in range(last + 1):
            weight, bias = _dense(architecture, parameters, k)
            matrix = computable(weight)
            z = h.astype(matrix.dtype, copy=False) @ matrix.T
            if bias is not None:
                z += computable(bias)
            h = architecture.chain[k].activation(z)
            name = names[k]
            if name in wanted:
                tests[name].see(z, h)
    return {name: test.dead() for name, test in tests.items()}


def _dead_in(population: Population, batches: list[Array]) -> BoolArray:
    test = _Stillness(population)
    for values in batches:
        if values.ndim < 2 or values.shape[1] != population.count:
            raise InputError(
                f"activations of {population.name!r} have shape {values.shape}; "
                f"expected (samples, {population.count}, ...)"
            )
        flat = np.moveaxis(values, 1, -1).reshape(-1, population.count)
        test.see(flat, flat)
    return test.dead()


class _Stillness:
    """Collects whether units of a population had derivative 0, or one value, in all samples so far."""

    def __init__(self, population: Population) -> None:
        row = population.activation
        self.flat = [] if row is None else _flat_pieces(row)
        self.still = np.ones((max(1, len(self.flat)), population.count), dtype=bool)
        if not self.flat:
            self.still[:] = False
        self.low = np.full(population.count, np.inf)
        self.high = np.full(population.count, -np.inf)
        self.samples = 0

    def see(self, before: Array, after: Array) -> None:
        """Preactivations and outputs, (samples, n); outputs may stand for both: flat pieces keep their sides."""
        self.samples += len(before)
        if len(before):
            low, high = before.min(axis=0), before.max(axis=0)
            for k, (start, end) in enumerate(self.flat):
                self.still[k] &= (low >= start) & (high <= end)
            self.low = np.minimum(self.low, after.min(axis=0))
            self.high = np.maximum(self.high, after.max(axis=0))

    def dead(self) -> BoolArray:
        """(n,), all False without samples."""
        if not self.samples:
            return np.zeros(len(self.low), dtype=bool)
        one_value = (self.low == self.high) if self.samples > 1 else np.zeros(len(self.low), dtype=bool)
        return np.asarray(self.still.any(axis=0) | one_value)


def _flat_pieces(row: Activation) -> list[tuple[float, float]]:
    """Where a piecewise linear activation is constant."""
    return [
        (-np.inf if p.lo is None else float(p.lo), np.inf if p.hi is None else float(p.hi))
        for p in row.pieces or ()
        if p.slope == 0
    ]


# ---- for every input


def _proved(
    architecture: Architecture, parameters: Parameters, places: tuple[Population, ...], box: Box | None
) -> dict[str, BoolArray]:
    out = {p.name: np.zeros(p.count, dtype=bool) for p in places}
    if not architecture.chain:
        for p in places:
            rows = [values for _, values in architecture.rows(parameters, p.name, "in")]
            if rows:
                out[p.name] = ~np.any([(values != 0).any(axis=1) for values in rows], axis=0)
        return out
    names = _chain_populations(architecture)
    found = _by_signs(architecture, parameters) if box is None else _by_intervals(architecture, parameters, box)
    for name, dead in zip(names, found, strict=True):
        if name in out:
            out[name] = dead
    return out


def _by_signs(architecture: Architecture, parameters: Parameters) -> list[BoolArray]:
    """For all real inputs: z is constant where no weight reads anything that moves, or z <= 0 by the signs."""
    out: list[BoolArray] = []
    for k, layer in enumerate(architecture.chain):
        weight, bias = _dense(architecture, parameters, k)
        if k == 0:
            moves, nothing, least = np.ones(weight.shape[1], dtype=bool), np.zeros(weight.shape[1], dtype=bool), -np.inf
        dead = _never(weight if moves.all() else weight[:, moves], lambda w: w != 0)
        off = np.zeros(len(weight), dtype=bool)
        flat = _left_flat(layer.activation)
        if flat is not None and least >= 0:
            read = weight[:, ~nothing] if nothing.any() else weight
            shift = np.zeros(len(weight)) if bias is None else bias
            off = _never(read, lambda w: ~(w <= 0)) & np.asarray(shift <= flat[0], dtype=bool)
        dead |= off
        out.append(dead)
        moves, least = ~dead, layer.activation.range_[0]
        nothing = off if flat is not None and flat[1] == 0 else np.zeros(len(weight), dtype=bool)
    return out


def _never(weight: Array, test: Callable[[Array], Any]) -> BoolArray:
    """(rows,) whether no entry passes; most rows are settled by their first entries."""
    out: BoolArray = np.asarray(test(weight[:, :_FIRST]), dtype=bool).any(axis=1) == np.False_
    left = np.flatnonzero(out)
    if left.size and weight.shape[1] > _FIRST:
        out[left] = ~np.asarray(test(weight[left, _FIRST:]), dtype=bool).any(axis=1)
    return np.asarray(out)


def _left_flat(row: Activation) -> tuple[float, float] | None:
    """The largest t with s constant on z <= t, and the constant; None if there is none."""
    for piece in row.pieces or ():
        if piece.lo is None and piece.slope == 0:
            return (np.inf if piece.hi is None else float(piece.hi)), float(piece.intercept)
    return None


def _by_intervals(architecture: Architecture, parameters: Parameters, box: Box) -> list[BoolArray]:
    """The same over a box, by intervals rounded outward, or by the signs."""
    out: list[BoolArray] = []
    low, high = box.lower, box.upper
    signs = _by_signs(architecture, parameters)
    for k, dense in enumerate(architecture.chain):
        weight, bias = _dense(architecture, parameters, k)
        if not np.isfinite(computable(weight)).all() or not (bias is None or np.isfinite(computable(bias)).all()):
            return out + signs[k:]
        layer = Layer(weight, np.zeros(len(weight), weight.dtype) if bias is None else bias, dense.activation)
        z_low, z_high = affine_enclosure(layer, low, high)
        dead = ~(layer.weight64[:, low < high] != 0).any(axis=1) | signs[k]
        for start, end in _flat_pieces(dense.activation):
            dead |= (z_low >= start) & (z_high <= end)
        out.append(np.asarray(dead, dtype=bool))
        low, high = dense.activation.enclose(z_low, z_high)
    return out
