"""Trees of arrays as flat mappings: names such as "params/Dense_0/kernel", values converted one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError, import_optional
from fiberscope.io import state_dicts

Array = npt.NDArray[Any]

_MAX_DEPTH = 64
_ARRAYS = "fc"  # floats and complex numbers; bfloat16 and its kin have kind V


class Leaves(Mapping[str, Array]):
    """Arrays of a tree by path, converted to NumPy when they are read and not kept.

    On the CPU a value is a view of the device's memory; from an accelerator one leaf is copied at a time. Drop what was
    read before the tree is donated to a compiled step: JAX does not reuse memory that is still looked at.

    Args:
        leaves: by name.
    """

    def __init__(self, leaves: Mapping[str, Any]) -> None:
        self._leaves = dict(leaves)

    def __getitem__(self, name: str) -> Array:
        leaf = self._leaves[name]
        deleted = getattr(leaf, "is_deleted", None)
        if callable(deleted) and deleted():
            raise InputError(
                f"{name} was deleted: its tree was donated to a compiled step; hand over what that step returned"
            )
        return state_dicts.as_array(_on_host(leaf, name), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def without(self, dropped: Callable[[str], bool]) -> Leaves:
        """The others."""
        return Leaves({name: leaf for name, leaf in self._leaves.items() if not dropped(name)})

    def leaf(self, name: str) -> Any:
        """The array of the framework itself."""
        return self._leaves[name]


def _on_host(leaf: Any, name: str) -> Any:
    """The leaf where NumPy can look at it; JAX would keep a copy of its own otherwise."""
    if getattr(leaf, "is_fully_addressable", True) is False:
        raise InputError(f"{name} is spread over several processes; gather it first")
    devices = getattr(leaf, "devices", None)
    if callable(devices) and any(device.platform != "cpu" for device in devices()):
        jax = import_optional("jax", extra="jax", purpose="read arrays of JAX")
        return jax.device_put(leaf, jax.devices("cpu")[0])
    return leaf


def leaves_of(tree: Any) -> Leaves:
    """The float arrays of a tree by path, parts joined by "/".

    Mappings, lists, tuples and named tuples need no framework; other trees (Equinox modules, `nnx.State`, `nnx.Module`)
    are flattened by JAX. Integers, random keys, functions and other leaves that are no parameters are left out.

    Args:
        tree: of parameters, or of anything of their structure, such as gradients or moments.

    Raises:
        InputError: if the tree is nested too deeply, or two leaves have one name.

    O(number of leaves).

    >>> found = leaves_of({"params": {"Dense_0": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}}, "step": 7})
    >>> [(name, found[name].shape) for name in found]
    [('params/Dense_0/kernel', (2, 3)), ('params/Dense_0/bias', (3,))]
    >>> list(leaves_of([(np.ones((3, 2)), np.ones(3))]))
    ['0/0', '0/1']
    """
    if isinstance(tree, Leaves):
        return tree
    out: dict[str, Any] = {}
    for name, leaf in _walk(tree, "", 0):
        if _is_array(leaf):
            if name in out:
                raise InputError(f"two leaves of the tree are called {name!r}")
            out[name] = leaf
    return Leaves(out)


def _walk(tree: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _MAX_DEPTH:
        raise InputError(f"the tree is nested more than {_MAX_DEPTH} deep at {path[:80]}...")
    if tree is None:
        return
    if type(tree).__module__.partition(".")[0] != "flax" and isinstance(tree, Mapping):
        children: Any = tree.items()
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        children = zip(tree._fields, tree, strict=True)
    elif isinstance(tree, list | tuple):
        children = enumerate(tree)
    elif hasattr(tree, "shape") and hasattr(tree, "dtype"):
        yield path, tree
        return
    else:
        yield from _by_jax(tree, path)
        return
    for key, value in children:
        yield from _walk(value, f"{path}/{key}" if path else str(key), depth + 1)


def paths_of(tree: Any) -> list[str]:
    """The names of all leaves in the order of `jax.tree_util.tree_flatten`, arrays or not, as `leaves_of` has them."""
    return [path for path, _ in _by_jax(tree, "")]


def _by_jax(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Leaves of a class that is registered with JAX; without JAX the thing is a leaf itself."""
    if isinstance(tree, int | float | complex | str | bytes):
        return
    try:
        jax = import_optional("jax", extra="jax", purpose="flatten this tree")
    except ImportError:
        return
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    for keys, leaf in found:
        parts = [str(_key(key)) for key in keys]
        if len(parts) > 1 and parts[-1] in ("value", "raw_value") and type(keys[-1]).__name__ == "GetAttrKey":
            parts.pop()  # nnx keeps every array in a Variable
        name = "/".join(parts)
        yield (f"{path}/{name}" if path and name else path or name), leaf


def _key(key: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key


def _is_array(leaf: Any) -> bool:
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return False
    try:
        kind = np.dtype(leaf.dtype)
    except TypeError:  # random keys
        return False
    return kind.kind in _ARRAYS or kind.name == "bfloat16"


def is_statistic(name: str, names: Collection[str]) -> bool:
    """Whether a leaf is a running average or other state that no optimiser moves.

    In a tree of Flax variables that is all outside of "params"; else what is called mean or var.

    >>> names = ["params/Dense_0/kernel", "batch_stats/BatchNorm_0/mean"]
    >>> [is_statistic(name, names) for name in names]
    [False, True]
    """
    if any(other.startswith("params/") for other in names):
        return not name.startswith("params/")
    return name.rpartition("/")[2] in ("mean", "var", "moving_mean", "moving_variance")


def rebuilt(tree: Any, values: Mapping[str, Any]) -> Any:
    """The tree with its arrays replaced by those of a mapping of `leaves_of`'s names.

    Args:
        tree: the pattern.
        values: new arrays; leaves that are not named stay.

    Raises:
        MissingDependencyError: if the tree has classes that only JAX can rebuild, and JAX is not installed.

    >>> rebuilt({"a": (np.zeros(2), 7)}, {"a/0": np.ones(2)})
    {'a': (array([1., 1.]), 7)}
    """
    return _rebuilt(tree, values, "")


def _rebuilt(tree: Any, values: Mapping[str, Any], path: str) -> Any:
    def inner(key: Any, value: Any) -> Any:
        return _rebuilt(value, values, f"{path}/{key}" if path else str(key))

    if tree is None:
        return None
    if type(tree) is dict:
        return {key: inner(key, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(inner(k, v) for k, v in zip(tree._fields, tree, strict=True)))
    if type(tree) in (list, tuple):
        return type(tree)(inner(k, v) for k, v in enumerate(tree))
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return values.get(path, tree)
    if isinstance(tree, int | float | complex | str | bytes):
        return tree
    jax = import_optional("jax", extra="jax", purpose="rebuild this tree")
    leaves, structure = jax.tree_util.tree_flatten(tree)
    names = [name for name, _ in _by_jax(tree, path)]
    return jax.tree_util.tree_unflatten(
        structure, [values.get(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
    )
