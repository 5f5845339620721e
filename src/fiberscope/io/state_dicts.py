"""Networks from named tensors: how state dicts name the layers of a chain, and in which order they come."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation, Given, layer_activations
from fiberscope.activations import activation as find_activation
from fiberscope.activations import names as activation_names
from fiberscope.arguments import as_exact, plain, shown
from fiberscope.errors import FormatError, InputError, PartError, UnsupportedError
from fiberscope.io.files import Options, shapes
from fiberscope.network import Layer, Network, Source

Tensor = npt.NDArray[Any]

_WEIGHT = re.compile(r"^(?:(?P<stem>.*)[./])?(?P<kind>weight|kernel)(?P<tail>:0)?$")
_STATISTICS = re.compile(r"(?:^|[./])(running_mean|running_var|moving_mean|moving_variance|mean|var|scale)(?::0)?$")
_NUMBER = re.compile(r"\d+")

WHOLE = "all"
"""Name of the part that runs through all groups of a file."""


@dataclass(frozen=True)
class Dense:
    """One affine map among named tensors: weight (n_out, n_in), bias (n_out,) or None."""

    stem: str
    weight: Tensor
    bias: Tensor | None
    weight_name: str
    bias_name: str
    transposed: bool = False

    @property
    def group(self) -> str:
        """The module it sits in: "net" for "net.0"."""
        return re.split(r"[./](?=[^./]*$)", self.stem)[0] if re.search(r"[./]", self.stem) else ""

    def layer(self, activation: Activation, name: str = "") -> Layer:
        """The network's layer."""
        bias = np.zeros(self.weight.shape[0], self.weight.dtype) if self.bias is None else self.bias
        return Layer(self.weight, bias, activation, name or self.stem or "layer", self.weight_name, self.bias_name)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The file's own tensors, as the file shapes them."""
        out = {self.weight_name: self.weight.T if self.transposed else self.weight}
        return out if self.bias is None else {**out, self.bias_name: self.bias}


@dataclass(frozen=True)
class Inventory:
    """Named tensors sorted into affine maps and the rest.

    Args:
        layers: affine maps in file order.
        rest: float tensors that are no part of any.
        ordered: whether the file's order means anything (safetensors and pytrees sort by name).
    """

    layers: tuple[Dense, ...]
    rest: dict[str, Tensor] = field(default_factory=dict)
    ordered: bool = True


def inventory(tensors: Mapping[str, Tensor], *, ordered: bool = True) -> Inventory:
    """Find the affine maps among named tensors.

    "fc1.weight" (n_out, n_in) and "dense/kernel" (n_in, n_out) are weights, "fc1.bias" belongs to "fc1.weight".

    Raises:
        FormatError: if a bias does not fit its weight.
        UnsupportedError: if there are convolutions or batch normalisations: their place among the activations is not
            in such a file.
    """
    floats = {name: value for name, value in tensors.items() if value.dtype.kind == "f" or value.dtype == object}
    layers, used = [], set()
    for name, value in floats.items():
        match = _WEIGHT.match(name)
        if match is None:
            continue
        if value.ndim > 2:
            raise UnsupportedError(
                f"tensor {name} {value.shape} is a convolution, whose stride and input size are not in a state dict; "
                "load the torch module or an ONNX export"
            )
        if value.ndim == 2:
            layers.append(_dense(name, value, match, floats))
            used |= set(layers[-1].tensors)
    rest = {name: value for name, value in floats.items() if name not in used}
    norms = [name for name in rest if _STATISTICS.search(name)]
    if norms:
        raise UnsupportedError(
            f"tensor {norms[0]} belongs to a normalisation layer, whose place among the activations is not in a state "
            "dict; load the torch module or an ONNX export"
        )
    return Inventory(tuple(layers), rest, ordered)


def _dense(name: str, value: Tensor, match: re.Match[str], floats: Mapping[str, Tensor]) -> Dense:
    bias_name = name[: match.start("kind")] + "bias" + (match.group("tail") or "")
    weight = value.T if match.group("kind") == "kernel" else value
    bias = floats.get(bias_name)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise FormatError(f"tensors {name} {value.shape} and {bias_name} {bias.shape} do not fit")
    stem = match.group("stem") or ""
    return Dense(stem, weight, bias, name, bias_name if bias is not None else "", match.group("kind") == "kernel")


def _natural(text: str) -> tuple[tuple[int, Any], ...]:
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text) if part)


def _fits(layers: Sequence[Dense]) -> bool:
    return all(a.weight.shape[0] == b.weight.shape[1] for a, b in zip(layers, layers[1:], strict=False))


def arranged(layers: Sequence[Dense], *, ordered: bool) -> tuple[Dense, ...]:
    """The layers in the order they are applied.

    Names that differ only in numbers are sorted by them. Else the file's order counts if it means anything, and if it
    does not the shapes must allow one order only.

    Raises:
        UnsupportedError: if the layers form no chain, or the order is open.
    """
    if len({_NUMBER.sub("#", layer.stem) for layer in layers}) == 1:
        chain = tuple(sorted(layers, key=lambda layer: _natural(layer.stem)))
    elif ordered:
        chain = tuple(layers)
    else:
        orders = _orders(layers)
        if len(orders) > 1:
            raise UnsupportedError(
                f"this format keeps no order, and the shapes allow several: {_listed(orders[0])} or "
                f"{_listed(orders[1])}; number the layers in their names"
            )
        chain = orders[0] if orders else tuple(layers)
    if not _fits(chain):
        raise UnsupportedError(f"the matrices form no chain: {_listed(chain)}; each must take what the last one gives")
    return chain


def _listed(layers: Sequence[Dense], limit: int = 6) -> str:
    shown = [f"{layer.stem or layer.weight_name} {layer.weight.shape[1]}->{layer.weight.shape[0]}" for layer in layers]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")


def _orders(layers: Sequence[Dense], limit: int = 2) -> list[tuple[Dense, ...]]:
    """Up to two orders in which the shapes fit; gives up on more than 10 layers by returning none."""
    found: list[tuple[Dense, ...]] = []
    if len(layers) > 10:
        return found

    def extend(chain: tuple[Dense, ...], left: tuple[Dense, ...]) -> None:
        if len(found) >= limit:
            return
        if not left:
            found.append(chain)
        for k, layer in enumerate(left):
            if not chain or chain[-1].weight.shape[0] == layer.weight.shape[1]:
                extend((*chain, layer), left[:k] + left[k + 1 :])

    extend((), tuple(layers))
    return found


def parts(found: Inventory) -> dict[str, tuple[Dense, ...]]:
    """The networks in a file by name, each a chain of layers in order.

    Layers of one module make one part, or one each where they form no chain. A file of several modules of which at
    most one has several layers (a body and a head) is one chain when the shapes fit; more would be guessing, since
    networks beside each other, or residual blocks, can have shapes that fit too.
    """
    groups: dict[str, list[Dense]] = {}
    for layer in found.layers:
        groups.setdefault(layer.group, []).append(layer)
    if len(groups) > 1 and sum(len(g) > 1 for g in groups.values()) <= 1:
        try:
            return {WHOLE: arranged(found.layers, ordered=found.ordered)}
        except UnsupportedError:
            pass
    if len(groups) == 1:
        return {WHOLE: arranged(found.layers, ordered=found.ordered)}
    out: dict[str, tuple[Dense, ...]] = {}
    for name, group in groups.items():
        try:
            out[name or "(top)"] = arranged(group, ordered=found.ordered)
        except UnsupportedError:  # heads side by side, or a jumble: each layer for itself
            if len(group) == len(found.layers):
                raise
            out.update({layer.stem or layer.weight_name: (layer,) for layer in group})
    try:
        out[WHOLE] = arranged(found.layers, ordered=found.ordered)
    except UnsupportedError:
        pass
    return out


def choose(available: Mapping[str, Any], part: str | None) -> str:
    """The name of the part to read.

    Raises:
        InputError: if there are several and none is named, or there is no such part; the error lists them.
    """
    listing = ", ".join(available)
    if part is None:
        if len(available) == 1:
            return next(iter(available))
        text = f"holds {len(available)} networks: {listing}; choose one with --part NAME (part=...)"
        raise PartError(text, tuple(available))
    if part not in available:
        raise InputError(f"has no part {part!r}; its networks are {listing}")
    return part


def activations_for(count: int, given: Given | Sequence[Given] | None) -> list[Activation]:
    """One activation per layer, from what the user gave: the last layer has none unless all are listed.

    Raises:
        InputError: if none was given although there are hidden layers, or their number is wrong.

    >>> [row.name for row in activations_for(3, "relu")]
    ['relu', 'relu', 'identity']
    """
    if given is None:
        if count == 1:
            return [find_activation("identity")]
        known = ", ".join(activation_names())
        raise InputError(
            "holds tensors only and does not say the activation; give it with --activation NAME (activation=...): "
            f"{known}"
        )
    return layer_activations(count, given)


def chain(
    layers: Sequence[Dense],
    rows: Sequence[Activation],
    source: Source | None = None,
    head: str | None = None,
) -> Network:
    """The network of a chain of named tensors."""
    return Network(tuple(d.layer(row) for d, row in zip(layers, rows, strict=True)), head, source)


def selected(
    found: Inventory, options: Options, seen: Mapping[str, Any]
) -> tuple[str, tuple[Dense, ...], tuple[str, ...]]:
    """The part the options ask for: (its name, its layers, notes for the reader).

    Raises:
        UnsupportedError: if there are no weight matrices at all; says which tensors were seen.
    """
    if not found.layers:
        seen_text = shapes(seen) or "no tensors"
        raise UnsupportedError(f"holds no network: expected weight matrices named like 'fc1.weight', saw {seen_text}")
    available = parts(found)
    name = choose(available, options.part)
    layers = available[name]
    notes = []
    used = {id(layer) for layer in layers}
    if len({layer.group for layer in layers}) > 1:
        notes.append(
            "Read as one chain through " + ", ".join(dict.fromkeys(layer.group or layer.stem for layer in layers)) + "."
        )
    unused = {k: v for layer in found.layers if id(layer) not in used for k, v in layer.tensors.items()}
    unused.update(found.rest)
    if unused:
        notes.append(f"Not part of this network: {shapes(unused)}; what the model does with them is not in the file.")
    return name, layers, tuple(notes)


def from_mapping(tensors: Mapping[str, Any], options: Options) -> Network:
    """A network from a state dict in memory: names to arrays or torch tensors.

    Raises:
        InputError: as the file readers do.
    """
    converted = {str(name): as_array(value, str(name)) for name, value in tensors.items()}
    for name, array in converted.items():  # weights may be plain integers; counters are no weights, nor quantised ones
        if array.dtype.kind in "iu" and array.ndim and array.dtype.itemsize >= 4:
            converted[name] = as_exact(array, name)
    name, layers, notes = selected(inventory(converted), options, converted)
    own = {k: v for layer in layers for k, v in layer.tensors.items()}
    rows = activations_for(len(layers), options.activation)
    place = Source(
        format="state dict",
        dtype=np.result_type(*own.values()).name if all(v.dtype.kind == "f" for v in own.values()) else "float64",
        parameter_count=sum(v.size for v in own.values()),
        tensors=tuple((k, v.shape) for k, v in own.items()),
        part=None if name == WHOLE else name,
        notes=notes,
    )
    return chain(layers, rows, place)


def as_array(value: Any, name: str) -> Tensor:
    """A NumPy array from what a framework calls a tensor; bfloat16 is widened to float32, exactly.

    Raises:
        InputError: if it is none.
    """
    try:
        array = np.asarray(plain(value))
    except (TypeError, ValueError) as exc:
        raise InputError(f"{name} is {shown(value)}, no rectangular array of numbers") from exc
    if array.dtype.kind not in "fiubO" or (array.dtype == object and not array.ndim):
        what = f"of dtype {array.dtype}" if hasattr(value, "dtype") else f"a {type(value).__name__}"
        raise InputError(f"{name} is {what}, not a tensor of real numbers")
    return array


def dtype_of(tensors: Mapping[str, Tensor]) -> np.dtype[Any]:
    """The widest float dtype among tensors."""
    kinds = [v.dtype for v in tensors.values() if v.dtype.kind == "f"]
    return np.result_type(*kinds) if kinds else np.dtype(np.float64)


def file_network(
    path: Path,
    data: bytes,
    kind: str,
    tensors: Mapping[str, Tensor],
    options: Options,
    *,
    ordered: bool = True,
    notes: Sequence[str] = (),
) -> Network:
    """A network from the named tensors of a file that does not say its architecture."""
    from fiberscope.io.files import source

    name, layers, seen = selected(inventory(tensors, ordered=ordered), options, tensors)
    own = {k: v for layer in layers for k, v in layer.tensors.items()}
    rows = activations_for(len(layers), options.activation)
    given = () if len(layers) == 1 else ("The file does not say the activation; it was given.",)
    part = None if name == WHOLE else name
    place = source(path, data, kind, own, dtype_of(own), part=part, notes=(*notes, *seen, *given))
    return chain(layers, rows, place)
