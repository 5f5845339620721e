"""JAX pytrees: Flax parameters and Equinox MLPs, recognised by their shape; JAX itself is not imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io import state_dicts
from fiberscope.io.files import Options
from fiberscope.network import Network, Source

_MAX_DEPTH = 20

_KNOWN = {
    "relu", "tanh", "sigmoid", "softplus", "silu", "elu", "hard_tanh",
}  # fmt: skip
"""Functions of jax.nn and jax.numpy that mean what their name says here."""


def is_nested(tree: Mapping[Any, Any]) -> bool:
    """Whether a mapping holds mappings, as Flax parameters do."""
    return any(isinstance(value, Mapping) for value in tree.values())


def from_flax(tree: Mapping[Any, Any], options: Options) -> Network:
    """A network from Flax parameters {"params": {"Dense_0": {"kernel": (n_in, n_out), "bias": (n_out,)}, ...}}.

    Raises:
        InputError: as for state dicts: the activation must be given.
    """
    inner = tree["params"] if set(tree) == {"params"} and isinstance(tree["params"], Mapping) else tree
    tensors = {path: state_dicts.as_array(leaf, path) for path, leaf in _leaves(inner, "", 0)}
    found = state_dicts.inventory(tensors, ordered=False)
    name, layers, notes = state_dicts.selected(found, options, tensors)
    rows = state_dicts.activations_for(len(layers), options.activation)
    return state_dicts.chain(layers, rows, _place("flax", layers, name, notes))


def _leaves(tree: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _MAX_DEPTH:
        raise InputError("the tree is nested too deeply; expected Flax parameters")
    for key, value in tree.items():
        place = f"{path}/{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from _leaves(value, place, depth + 1)
        else:
            yield place, getattr(value, "value", value)  # Flax boxes leaves that carry sharding


def _place(kind: str, layers: tuple[state_dicts.Dense, ...], part: str, notes: tuple[str, ...]) -> Source:
    own = {key: value for layer in layers for key, value in layer.tensors.items()}
    return Source(
        format=kind,
        dtype=state_dicts.dtype_of(own).name,
        parameter_count=sum(v.size for v in own.values()),
        tensors=tuple((k, v.shape) for k, v in own.items()),
        part=None if part == state_dicts.WHOLE else part,
        notes=notes,
    )


def from_equinox(module: Any, options: Options) -> Network:
    """A network from an Equinox MLP, or any module with `layers` of (n_out, n_in) `weight` and `bias`.

    The activation is read off `module.activation` if that is a function of JAX that is known; else it must be given.

    Raises:
        UnsupportedError: if the module has no such layers.
    """
    children = [child for child in getattr(module, "layers", ()) if getattr(child, "weight", None) is not None]
    if not children or any(np.ndim(child.weight) != 2 for child in children):
        raise UnsupportedError(f"a {type(module).__name__} has no `layers` of linear maps; an equinox.nn.MLP is known")
    layers = []
    for k, child in enumerate(children):
        weight = state_dicts.as_array(child.weight, f"layers.{k}.weight")
        bias = getattr(child, "bias", None)
        shift = None if bias is None else state_dicts.as_array(bias, f"layers.{k}.bias")
        layers.append(
            state_dicts.Dense(
                f"layers.{k}", weight, shift, f"layers.{k}.weight", f"layers.{k}.bias" if bias is not None else ""
            )
        )
    chain = state_dicts.arranged(layers, ordered=True)
    given = options.activation
    if given is None and hasattr(module, "activation"):
        hidden, final = _named(module.activation), _named(getattr(module, "final_activation", None))
        given = [hidden] * (len(chain) - 1) + [final] if hidden is not None and final is not None else None
    rows = state_dicts.activations_for(len(chain), given)
    return state_dicts.chain(chain, rows, _place("equinox", chain, state_dicts.WHOLE, ()))


def _named(function: Any) -> str | None:
    """Our name of an activation of JAX or Equinox, None if it is not recognised."""
    for _ in range(8):
        name, module = getattr(function, "__name__", None), str(getattr(function, "__module__", ""))
        if name == "<lambda>" and module.startswith("equinox.nn"):
            return "identity"
        if name in ("identity", "_identity") and module.startswith(("jax", "equinox")):
            return "identity"
        if isinstance(name, str) and name in _KNOWN and module.startswith(("jax", "jax.")):
            return name
        inner = getattr(function, "__wrapped__", None) or getattr(function, "_fun", None)
        if inner is None or inner is function:
            return None
        function = inner
    return None
