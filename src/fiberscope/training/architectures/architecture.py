"""A trained model as data: populations of interchangeable neurons, the tensors they index, and their balance laws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.errors import InputError
from fiberscope.network import Network

Array = npt.NDArray[Any]
Parameters = Mapping[str, Any]
"""Names of parameters and their values: arrays, or anything `numpy.asarray` takes; may convert one value at a time."""
Role = Literal["in", "out"]
Kind = Literal["neurons", "channels", "heads", "factors", "stream"]
LawKind = Literal["balance", "matrix", "scale", "rotary"]


@dataclass(frozen=True)
class Axis:
    """An axis whose index is the neuron of a population.

    Args:
        population: its name.
        role: "in" if the entries make the neuron (weights into it, its bias, its gain); "out" if others read it there.
    """

    population: str
    role: Role


@dataclass(frozen=True)
class Slot:
    """A parameter, or a part of it, with what its axes index.

    Args:
        name: of the parameter in the mapping.
        shape: as stored.
        view: the shape it is read in, C order, such as (10, 16, 49) for a dense layer behind a flattened (16, 7, 7).
        axes: for every axis of the view the neurons it indexes; None where every index stands for itself.
        take: (axis, start, stop) of the part of the view that is meant, for fused weights; None for all of it.
    """

    name: str
    shape: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[Axis | None, ...]
    take: tuple[int, int, int] | None = None

    def read(self, parameters: Parameters) -> Array:
        """The values in the shape of the view; no copy where NumPy needs none.

        Raises:
            InputError: if the parameter is missing or of another shape.
        """
        if self.name not in parameters:
            known = ", ".join(list(parameters)[:4])
            raise InputError(f"no parameter {self.name!r} among {known}, ...; the architecture is of another model")
        value = np.asarray(parameters[self.name])
        if value.shape != self.shape:
            raise InputError(f"parameter {self.name!r} has shape {value.shape}; the architecture says {self.shape}")
        return self.cut(value.reshape(self.view))

    def cut(self, viewed: Array) -> Array:
        """The part `take` of an array in the shape of the view, itself a view."""
        if self.take is None:
            return viewed
        axis, start, stop = self.take
        return viewed[(slice(None),) * axis + (slice(start, stop),)]

    def where(self, population: str, role: Role | None = None) -> int | None:
        """The axis that indexes a population (in a role), or None; a population occurs once in a slot and role."""
        for k, axis in enumerate(self.axes):
            if axis is not None and axis.population == population and role in (None, axis.role):
                return k
        return None


@dataclass(frozen=True)
class Population:
    """Neurons that may be permuted without changing the function: units, channels, heads, or the stream they share.

    Args:
        name: of the layer that makes them, in the user's spelling.
        count: how many.
        kind: "factors" are the inner dimensions of a product of matrices, such as queries and keys.
        activation: pointwise function behind them, None if there is none or it is not pointwise.
        signs: whether a neuron may change sign, with all that reads it (odd activations).
        null: whether a neuron whose weights, incoming and outgoing, are all 0 stays so (s(0) = 0).
        normalised: whether its preactivations are normalised over the data (BatchNorm) first.
        exchangeable: whether permuting them is a symmetry; False for factors of rotary embeddings.
        guessed: the condition under which all this holds, where it was read off names or an unknown shape and not put
            to the test; empty if it was followed or tested.
        factors: for neurons that are a product, or have a gain of their own in their activation: positions of the slots
            of each factor that is 0 when its entries are. A neuron with two zero factors, what it sends being one
            more, gets no gradient.
    """

    name: str
    count: int
    kind: Kind = "neurons"
    activation: Activation | None = None
    signs: bool = False
    null: bool = False
    normalised: bool = False
    exchangeable: bool = True
    guessed: str = ""
    factors: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Law:
    """A quantity that gradient flow conserves, one number (or matrix) for each neuron (or head).

    Args:
        name: formula in the user's names, such as "|fc1.weight|^2 + fc1.bias^2 - |fc2.weight|^2".
        kind: "balance": Q_i = sum over plus of |T_i|^2 - degree * sum over minus of |T_i|^2, one per neuron i;
            "matrix": Q = sum T T^T over plus - over minus, with T unfolded along the population's axis;
            "scale": a balance with an empty minus side (what is normalised afterwards);
            "rotary": a balance of neurons i and i + count / 2 together.
        population: of which neurons.
        plus: positions of slots in `Architecture.slots` that count with +.
        minus: the same with -.
        per: a population (of heads) whose every index has a law of its own; None for one law in all.
        degree: homogeneity of the activation.
    """

    name: str
    kind: LawKind
    population: str
    plus: tuple[int, ...]
    minus: tuple[int, ...] = ()
    per: str | None = None
    degree: float = 1.0


@dataclass(frozen=True)
class Skipped:
    """A layer or parameter that is not understood, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dense:
    """One layer of a plain chain: names of its parameters, how they are stored, and what follows.

    Args:
        weight: name of the weight.
        bias: name of the bias, None without one.
        activation: pointwise function behind it; the identity for the last layer.
        transposed: whether the weight is stored as (inputs, outputs), as in Flax and Keras.
    """

    weight: str
    bias: str | None
    activation: Activation
    transposed: bool = False


@dataclass(frozen=True)
class Architecture:
    """Which axes of which parameters index the neurons of a model.

    Args:
        slots: parameters with their axes; a fused parameter has several.
        populations: all neurons, in the order of the data flow.
        laws: what gradient flow conserves.
        skipped: everything that is not understood, never silently.
        chain: the layers, if the model is a plain chain of dense layers: then it can be read as a network.
    """

    slots: tuple[Slot, ...]
    populations: tuple[Population, ...]
    laws: tuple[Law, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    chain: tuple[Dense, ...] = ()

    def __post_init__(self) -> None:
        """Refuse labels that fit no population, and populations whose axes have other lengths."""
        for slot in self.slots:
            if math.prod(slot.view) != math.prod(slot.shape) or len(slot.view) != len(slot.axes):
                raise InputError(f"slot {slot.name!r}: view {slot.view}, axes and shape {slot.shape} do not fit")
            for k, axis in enumerate(slot.axes):
                if axis is None:
                    continue
                if axis.population not in self.named:
                    raise InputError(f"slot {slot.name!r}: unknown population {axis.population!r}")
                cut = slot.take[2] - slot.take[1] if slot.take is not None and slot.take[0] == k else slot.view[k]
                if cut != self.named[axis.population].count:
                    raise InputError(
                        f"slot {slot.name!r}: axis {k} has {cut} entries; "
                        f"{axis.population!r} has {self.named[axis.population].count} neurons"
                    )

    @cached_property
    def named(self) -> dict[str, Population]:
        """Populations by name."""
        return {p.name: p for p in self.populations}

    @cached_property
    def places(self) -> dict[str, tuple[tuple[int, int, Role], ...]]:
        """For every population the (slot, axis, role) where it occurs."""
        out: dict[str, list[tuple[int, int, Role]]] = {p.name: [] for p in self.populations}
        for s, slot in enumerate(self.slots):
            for k, axis in enumerate(slot.axes):
                if axis is not None:
                    out[axis.population].append((s, k, axis.role))
        return {name: tuple(rows) for name, rows in out.items()}

    @cached_property
    def parameter_count(self) -> int:
        """Entries of all parameters that some slot names."""
        return sum(math.prod(shape) for shape in {s.name: s.shape for s in self.slots}.values())

    def rows(self, parameters: Parameters, population: str, role: Role | None = None) -> Iterator[tuple[int, Array]]:
        """(slot, matrix of shape (count, entries per neuron)) for every place of a population, one at a time.

        The matrix of an axis that is not the first is a copy of that one part; nothing is kept.
        """
        for s, axis, found in self.places[population]:
            if role in (None, found):
                values = np.moveaxis(self.slots[s].read(parameters), axis, 0)
                yield s, values.reshape(values.shape[0], -1)

    def without(self, population: str, reason: str) -> Architecture:
        """The same with a population taken out, its laws too, and named as skipped."""
        keep = [law for law in self.laws if population not in (law.population, law.per)]
        slots = tuple(
            replace(s, axes=tuple(None if a is not None and a.population == population else a for a in s.axes))
            for s in self.slots
        )
        left = tuple(p for p in self.populations if p.name != population)
        return Architecture(slots, left, tuple(keep), (*self.skipped, Skipped(population, reason)), ())

    def network(self, parameters: Parameters) -> Network:
        """The chain as a network, its weights read exactly.

        Raises:
            InputError: if the model is no plain chain.
        """
        if not self.chain:
            raise InputError("this model is no plain chain of dense layers; it cannot be read as one network")
        pairs = []
        for layer in self.chain:
            weight = np.asarray(parameters[layer.weight])
            weight = weight.T if layer.transposed else weight
            bias = np.zeros(weight.shape[0], weight.dtype) if layer.bias is None else np.asarray(parameters[layer.bias])
            pairs.append((weight, bias))
        rows = [layer.activation for layer in self.chain]
        return Network.from_arrays(*pairs, activation=rows[:-1] if rows[-1].name == "identity" else rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        out: dict[str, Any] = {
            "slots": [asdict(s) for s in self.slots],
            "populations": [_written(p) for p in self.populations],
            "laws": [asdict(law) for law in self.laws],
            "skipped": [asdict(s) for s in self.skipped],
            "chain": [{**asdict(replace(d)), "activation": d.activation.spec} for d in self.chain],
        }
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Inverse of `to_dict`.

        Raises:
            InputError: if the document is malformed.
        """
        try:
            return cls(
                tuple(_slot(s) for s in data["slots"]),
                tuple(_population(p) for p in data["populations"]),
                tuple(Law(**{**d, "plus": tuple(d["plus"]), "minus": tuple(d["minus"])}) for d in data["laws"]),
                tuple(Skipped(**s) for s in data["skipped"]),
                tuple(Dense(**{**d, "activation": Activation.from_spec(d["activation"])}) for d in data["chain"]),
            )
        except (KeyError, TypeError) as exc:
            raise InputError(f"not the description of an architecture: {exc}") from exc


def _written(population: Population) -> dict[str, Any]:
    """A population without the fields that say nothing."""
    out = asdict(replace(population, activation=None))
    out["activation"] = None if population.activation is None else population.activation.spec
    return {key: value for key, value in out.items() if value or key not in ("guessed", "factors")}


def _population(data: Mapping[str, Any]) -> Population:
    factors = tuple(tuple(int(s) for s in places) for places in data.get("factors", ()))
    return Population(**{**data, "activation": _row(data["activation"]), "factors": factors})


def _row(spec: Mapping[str, Any] | None) -> Activation | None:
    return None if spec is None else Activation.from_spec(spec)


def _slot(data: Mapping[str, Any]) -> Slot:
    axes = tuple(None if a is None else Axis(**a) for a in data["axes"])
    take = data["take"]
    part = None if take is None else (int(take[0]), int(take[1]), int(take[2]))
    return Slot(data["name"], tuple(data["shape"]), tuple(data["view"]), axes, part)


def checked_architecture(given: Any) -> Architecture:
    """An architecture, or an error that says how to make one.

    Raises:
        InputError: for anything else.

    >>> checked_architecture(Architecture((), ())).parameter_count
    0
    """
    if isinstance(given, Architecture):
        return given
    raise InputError(
        f"architecture is a {type(given).__name__}; expected an Architecture, such as "
        "chain_architecture([784, 512, 10], activation='relu'); leave it out to have it found"
    )


def checked_parameters(given: Any) -> Parameters:
    """Names and arrays, or an error.

    Raises:
        InputError: for what is no mapping.

    >>> checked_parameters({"w": 1})
    {'w': 1}
    """
    if isinstance(given, Mapping):
        return given
    raise InputError(f"parameters are a {type(given).__name__}; give a mapping of names to arrays")
