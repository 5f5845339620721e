"""Architectures of plain chains of dense layers: from widths, from a network, or guessed from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.arguments import as_count, shown
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io import state_dicts
from fiberscope.network import Layer, Network
from fiberscope.neurons import multiples
from fiberscope.training.architectures.architecture import (
    Architecture,
    Axis,
    Dense,
    Law,
    Population,
    Skipped,
    Slot,
    checked_parameters,
)

Array = npt.NDArray[Any]
_TENSOR = re.compile(r"[./]?(weight|kernel)(:0)?$")
_PER_CHANNEL = re.compile(r"(?:^|[./])(weight|bias|scale|gamma|beta|gain|offset)(?::0)?$")


def chain_architecture(
    widths_or_network: Sequence[int] | Network,
    *,
    activation: str | Activation | Sequence[str | Activation] = "relu",
    names: Sequence[str] | None = None,
    transposed: bool = False,
    biases: bool = True,
) -> Architecture:
    """What permutes, flips and balances in f(x) = W_L s(... s(W_1 x + b_1) ...) + b_L.

    Every hidden layer is a population named after its layer: its rows of W_l and entries of b_l are "in", its columns
    of W_(l+1) are "out". `signs` is set for odd s, `null` for s(0) = 0. For even s a sign flip of the incoming side
    alone keeps the function too; that is another symmetry, and none is claimed. Laws: |w_i|^2 + b_i^2 - d |v_i|^2 for
    each neuron where s is homogeneous of degree d >= 1; W W^T + b b^T - V^T V where s is the identity.

    Args:
        widths_or_network: (n_0, ..., n_L), or a network whose widths, activations and names are taken.
        activation: hidden activation, or one for each layer; not looked at for a network.
        names: of the L layers, as in "fc1", whose parameters are then "fc1.weight" and "fc1.bias"; None for the
            network's own names of its tensors, or "1", ..., "L".
        transposed: whether weights are stored as (inputs, outputs), named "fc1.kernel".
        biases: whether the layers have biases; a network whose tensors have names says so itself.

    Raises:
        InputError: if there are fewer than two widths, or the number of names or activations is wrong.

    O(L). Source of the laws: arXiv 2307.00144.

    >>> found = chain_architecture((2, 3, 1), activation="tanh")
    >>> [slot.name for slot in found.slots], [(p.name, p.count, p.signs) for p in found.populations]
    (['1.weight', '1.bias', '2.weight', '2.bias'], [('1', 3, True)])
    >>> chain_architecture((2, 3, 1), activation="square", names=["a", "b"]).laws[0].name
    '|a.weight|^2 + a.bias^2 - 2 |b.weight|^2'
    """
    if isinstance(widths_or_network, Network):
        widths: tuple[int, ...] = widths_or_network.widths
        rows = [layer.activation for layer in widths_or_network.layers]
        denses = _own_names(widths_or_network, names, transposed=transposed, biases=biases)
    else:
        try:
            widths = tuple(as_count(n, "widths", 1) for n in widths_or_network)
        except TypeError:
            raise InputError(f"widths {shown(widths_or_network)}; give at least two numbers >= 1") from None
        if len(widths) < 2:
            raise InputError(f"widths {widths}; give at least two numbers >= 1")
        rows = state_dicts.activations_for(len(widths) - 1, activation)
        denses = _given_names(len(widths) - 1, names, transposed=transposed, biases=biases)
    chain = tuple(Dense(w, b, row, transposed) for (w, b), row in zip(denses, rows, strict=True))
    return _assembled([(chain, widths)], ())


def parameters_of(
    network: Network, *, names: Sequence[str] | None = None, transposed: bool = False, biases: bool = True
) -> dict[str, Array]:
    """The parameters of a network under the names that `chain_architecture` gives them, with the same options.

    Weights are in the network's own dtype, exact ones rounded to float64. O(parameters).

    Raises:
        InputError: if the number of names is wrong.

    >>> net = Network.from_arrays(([[1.0], [2.0]], [0.0, 5.0]), ([[3.0, 4.0]], [6.0]))
    >>> {name: value.tolist() for name, value in parameters_of(net).items()}
    {'1.weight': [[1.0], [2.0]], '1.bias': [0.0, 5.0], '2.weight': [[3.0, 4.0]], '2.bias': [6.0]}
    """
    if not isinstance(network, Network):
        raise InputError(f"{type(network).__name__} is no Network; parameters_of reads one of fs.load or from_arrays")
    out: dict[str, Array] = {}
    pairs = _own_names(network, names, transposed=transposed, biases=biases)
    for layer, (weight, bias) in zip(network.layers, pairs, strict=True):
        matrix = _plain(layer.weight)
        out[weight] = matrix.T if transposed else matrix
        if bias is not None:
            out[bias] = _plain(layer.bias)
    return out


def architecture_of(
    params: Mapping[str, Any],
    *,
    activation: str | Activation | Sequence[str | Activation] | None = None,
    part: str | None = None,
    ordered: bool | None = None,
) -> Architecture:
    """The chain, or the chains beside each other, that names and shapes of parameters allow: a guess, to be confirmed.

    "fc1.weight" (n_out, n_in) and "Dense_0/kernel" (n_in, n_out) are weights. What fits no chain is named as skipped.
    Names say nothing of residual connections or of activations: ask `confirmed` where the model can be evaluated.

    Args:
        params: names to arrays, or nested mappings of them, whose names are then joined by "/" (see `flattened`).
        activation: hidden activation, or one for each layer; None if it is not known, only that it is pointwise: then
            nothing is claimed but permutations.
        part: which chain is meant, such as "policy_net"; None for all of them.
        ordered: whether the order of the names is that of the layers; None: it is, unless there are kernels (JAX
            sorts names).

    Raises:
        InputError: if there is no such part, or the activations do not fit.
        UnsupportedError: if no weights are found, they form no chain, or there are convolutions or normalisations.

    O(number of parameters' names).

    >>> import numpy as np
    >>> params = {"fc1.weight": np.ones((3, 2)), "fc1.bias": np.ones(3), "fc2.weight": np.ones((1, 3)), "t": np.ones(2)}
    >>> found = architecture_of(params, activation="relu")
    >>> found.named["fc1"].count, found.laws[0].name, found.skipped[0].name
    (3, '|fc1.weight|^2 + fc1.bias^2 - |fc2.weight|^2', 't')
    """
    tensors = {name: _shell(value, name) for name, value in flattened(params).items()}
    if ordered is None:
        ordered = not any(name.split("/")[-1].split(".")[-1].startswith("kernel") for name in tensors)
    found = state_dicts.inventory(tensors, ordered=ordered)
    if not found.layers:
        listing = ", ".join(list(tensors)[:6])
        where = f"among {listing}" if listing else "since there are no parameters at all"
        raise UnsupportedError(f"found no weights named like 'fc1.weight' or 'Dense_0/kernel' {where}")
    available = state_dicts.parts(found)
    if part is not None and not isinstance(part, str):
        raise InputError(f"part is a {type(part).__name__}; give the name of a chain")
    if part is not None or len(available) == 1:
        groups = [available[state_dicts.choose(available, part)]]
    else:
        groups = [layers for name, layers in available.items() if name != state_dicts.WHOLE]
        if not (activation is None or isinstance(activation, str | Activation)):
            raise InputError(f"holds {len(groups)} chains; give one activation for all, or part=...")
    chains = []
    for layers in groups:
        rows = state_dicts.activations_for(len(layers), "identity" if activation is None else activation)
        chain = tuple(
            Dense(layer.weight_name, layer.bias_name or None, row, layer.transposed)
            for layer, row in zip(layers, rows, strict=True)
        )
        chains.append((chain, (layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers))))
    known = {name for chain, _ in chains for dense in chain for name in (dense.weight, dense.bias)}
    skipped = [
        Skipped(name, f"shape {value.shape}: no dense layer of the chain")
        for name, value in tensors.items()
        if name not in known
    ]
    out = _assembled(chains, tuple(skipped))
    if activation is None:
        unknown = Skipped("activation", "not given: sign changes, silent neurons and balance laws are not looked for")
        plain = tuple(replace(p, activation=None, signs=False, null=False) for p in out.populations)
        out = replace(out, populations=plain, laws=(), chain=(), skipped=(*out.skipped, unknown))
    return _without_ambiguous(out, tensors, known)


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by "/", in their order.

    >>> flattened({"params": {"Dense_0": {"kernel": 1, "bias": 2}}})
    {'params/Dense_0/kernel': 1, 'params/Dense_0/bias': 2}
    """
    out: dict[str, Any] = {}
    for key, value in checked_parameters(params).items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out.update(flattened(value, f"{name}/"))
        else:
            out[name] = value
    return out


def _shell(value: Any, name: str) -> Array:
    """An array of the same shape and kind that takes no memory: only names and shapes are asked."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        value = np.asarray(value)
    dtype, shape = str(value.dtype), tuple(int(n) for n in value.shape)
    floating = "float" in dtype or dtype == "object"
    if not floating and not any(kind in dtype for kind in ("int", "bool")):
        raise InputError(f"{name} is a {type(value).__name__}, not a tensor of numbers")
    return np.broadcast_to(np.zeros((), np.float64 if floating else np.int64), shape)


def _plain(array: Array) -> Array:
    return np.asarray(rationals.rounded(array, np.float64)) if rationals.is_rational(array) else array


def _own_names(
    network: Network, names: Sequence[str] | None, *, transposed: bool, biases: bool
) -> list[tuple[str, str | None]]:
    """(weight, bias) names of the layers: the file's own, where these tensors are the layers' parameters."""
    own = [layer.weight_name for layer in network.layers]
    if names is not None or not all(own) or len(set(own)) < len(own) or any(map(_folded, network.layers)):
        return _given_names(network.depth, names, transposed=transposed, biases=biases)
    return [(layer.weight_name, layer.bias_name or None) for layer in network.layers]


def _folded(layer: Layer) -> bool:
    return bool(layer.folded) or layer.frame is not None


def _given_names(
    count: int, names: Sequence[str] | None, *, transposed: bool, biases: bool
) -> list[tuple[str, str | None]]:
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence)):
        raise InputError(f"names {shown(names)}; give a list of {count} names, one for each layer")
    stems = [str(k + 1) for k in range(count)] if names is None else [str(name) for name in names]
    if len(stems) != count or len(set(stems)) < count:
        raise InputError(f"{len(stems)} names ({', '.join(stems[:6])}) for {count} layers; give one for each layer")
    kind = "kernel" if transposed else "weight"
    return [(f"{stem}.{kind}", f"{stem}.bias" if biases else None) for stem in stems]


def _stem(weight: str) -> str:
    return _TENSOR.sub("", weight) or weight


def _assembled(
    chains: Sequence[tuple[tuple[Dense, ...], tuple[int, ...]]], skipped: tuple[Skipped, ...]
) -> Architecture:
    """One architecture of chains beside each other; it is itself a chain if there is only one."""
    slots: list[Slot] = []
    populations: list[Population] = []
    laws: list[Law] = []
    for chain, widths in chains:
        below: str | None = None
        places: list[list[int]] = []
        for k, dense in enumerate(chain):
            name = _stem(dense.weight) if k + 1 < len(chain) else None
            places.append([len(slots)])
            axes = (None if name is None else Axis(name, "in"), None if below is None else Axis(below, "out"))
            shape = (widths[k + 1], widths[k])
            if dense.transposed:
                axes, shape = axes[::-1], shape[::-1]
            slots.append(Slot(dense.weight, shape, shape, axes))
            if dense.bias is not None:
                places[-1].append(len(slots))
                bias = (widths[k + 1],)
                slots.append(Slot(dense.bias, bias, bias, (None if name is None else Axis(name, "in"),)))
            if name is not None:
                populations.append(neurons_of(name, widths[k + 1], dense.activation))
            below = name
        for (inner, here), (outer, above) in pairwise(zip(chain, places, strict=True)):
            laws += _laws(inner, outer, tuple(here), (above[0],))
    return Architecture(
        tuple(slots), tuple(populations), tuple(laws), skipped, chains[0][0] if len(chains) == 1 else ()
    )


def neurons_of(name: str, count: int, activation: Activation) -> Population:
    """A population of dense units with the flags that its activation allows: `signs` if odd, `null` if s(0) = 0.

    >>> from fiberscope.activations import activation
    >>> neurons_of("fc1", 4, activation("sigmoid")).null
    False
    """
    rule = multiples(activation)
    return Population(name, count, "neurons", activation, signs=activation.parity == "odd", null=rule.null)


def balance_text(plus: Sequence[str], minus: Sequence[str], degree: int = 1) -> str:
    """The formula of a balance in the names of the parameters; biases are written without bars.

    >>> balance_text(["fc1.weight", "fc1.bias"], ["fc2.weight"])
    '|fc1.weight|^2 + fc1.bias^2 - |fc2.weight|^2'
    """
    factor = f"{degree} " if degree != 1 else ""
    gains = " + ".join(f"{name}^2" if _is_bias(name) else f"|{name}|^2" for name in plus)
    return gains + "".join(f" - {factor}|{name}|^2" for name in minus)


def _is_bias(name: str) -> bool:
    return re.split(r"[./]", name)[-1].split(":")[0] == "bias"


def _laws(inner: Dense, outer: Dense, plus: tuple[int, ...], minus: tuple[int, ...]) -> list[Law]:
    row, name = inner.activation, _stem(inner.weight)
    straight = row.pieces is not None and len(row.pieces) == 1 and row.pieces[0].intercept == 0
    if straight:
        first = f"{inner.weight}^T {inner.weight}" if inner.transposed else f"{inner.weight} {inner.weight}^T"
        middle = "" if inner.bias is None else f" + {inner.bias} {inner.bias}^T"
        last = f"{outer.weight} {outer.weight}^T" if outer.transposed else f"{outer.weight}^T {outer.weight}"
        return [Law(f"{first}{middle} - {last}", "matrix", name, plus, minus)]
    degree = row.homogeneity
    if degree is None or degree < 1:
        return []
    names = [inner.weight] if inner.bias is None else [inner.weight, inner.bias]
    return [Law(balance_text(names, [outer.weight], degree), "balance", name, plus, minus, degree=float(degree))]


def _without_ambiguous(found: Architecture, tensors: Mapping[str, Array], known: set[str | None]) -> Architecture:
    """Take out populations that a gain or shift of unknown place may belong to."""
    for name, value in tensors.items():
        if name in known or value.ndim != 1 or not _PER_CHANNEL.search(name):
            continue
        for population in [p.name for p in found.populations if p.count == value.size]:
            found = found.without(
                population, f"{name} has {value.size} entries too, and its place among the layers is not in the names"
            )
    return found
