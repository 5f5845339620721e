"""optax transformations for reduced networks: the reduced parameters then train like the wide network, step by step."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fiberscope.arguments import as_number
from fiberscope.errors import InputError, import_optional
from fiberscope.invariants.dynamics.reduced import ReducedNetwork
from fiberscope.invariants.dynamics.updates import FAMILIES, Family, Optimiser
from fiberscope.training.torch_optimisers import checked_reduced

_WORDS = re.compile(r"(\d+)")


def scale_reduced(transformation: Any, reduced: ReducedNetwork, *, family: Family, coupled_decay: bool = False) -> Any:
    """An optax transformation of the reduced network's parameters whose steps are those of the wide network.

    It runs `transformation` on p * R with gradients q * G (`ReducedNetwork.coordinates`) and divides its updates by p.
    With family "orthogonal" the norms inside it are those of the wide network, so `optax.clip_by_global_norm` may be
    part of a chain of linear rules; else put `clip_by_wide_norm` before it.

    Args:
        transformation: such as `optax.adam(1e-3)`; optax does not tell what it does.
        reduced: from `reduced_network`.
        family: "linear" (sgd, momentum, nesterov), "orthogonal" (these after clipping by the norm), or "elementwise"
            (adam, adamw, rmsprop, sign_sgd).
        coupled_decay: whether decay is added to gradients before an elementwise rule
            (`chain(add_decayed_weights(d), adam(r))`).

    Returns:
        An `optax.GradientTransformation`. Parameters may be any tree whose layers hold a matrix and maybe a vector:
        pairs (W, b), Flax dictionaries (a leaf named kernel is (n_in, n_out)), Equinox modules; layers are taken in
        the natural order of their names.

    Raises:
        ScopeError: if the wide network leaves its manifold under such a rule; the reason is named.
        InputError: for another family; when used, if the tree does not fit the reduced network.
    """
    optax = import_optional("optax", extra="dev-frameworks", purpose="wrap an optax transformation")
    if family not in tuple(FAMILIES.values()):
        raise InputError(f"family {family!r}; give 'linear', 'orthogonal' or 'elementwise'")
    checked_reduced(reduced)
    rule = next(name for name, group in FAMILIES.items() if group == family)
    reduced.require(Optimiser(rule, 1.0, decay=float(coupled_decay)))
    parameter, slope = (reduced._layered(v) for v in reduced.coordinates(family))

    def init(params: Any) -> Any:
        return transformation.init(_times(params, parameter))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        seen = None if params is None else _times(params, parameter)
        moved, new = transformation.update(_times(updates, slope), state, seen, **extra)
        return _times(moved, parameter, lambda leaf, factor: leaf / factor), new

    return optax.GradientTransformationExtraArgs(init, update)


def clip_by_wide_norm(max_norm: float, reduced: ReducedNetwork) -> Any:
    """An optax transformation that clips by the norm of the wide network's gradient, root of sum (n_B / n_A) G^2.

    Args:
        max_norm: the bound that the wide run uses.
        reduced: from `reduced_network`.

    Raises:
        InputError: when used, if the tree does not fit the reduced network.
    """
    optax = import_optional("optax", extra="dev-frameworks", purpose="wrap an optax transformation")
    if not hasattr(max_norm, "dtype"):  # `optax.inject_hyperparams` hands over traced arrays
        as_number(max_norm, "max_norm", above=0)
    checked_reduced(reduced)
    squares = tuple(zip(reduced.weight_multipliers, reduced.bias_multipliers, strict=True))

    def init(params: Any) -> Any:
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        jax = import_optional("jax", extra="jax", purpose="wrap an optax transformation")
        weighted = _times(updates, squares, lambda leaf, factor: (factor * leaf * leaf).sum())
        size = sum(jax.tree_util.tree_leaves(weighted)) ** 0.5
        factor = jax.numpy.minimum(1.0, max_norm / size)  # no gradient: 1
        return jax.tree_util.tree_map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


_Factors = tuple[tuple[Any, Any], ...]


def _times(tree: Any, factors: _Factors, combine: Callable[[Any, Any], Any] | None = None) -> Any:
    """Every matrix and vector of the tree combined with the factors of its layer (multiplied if nothing is said)."""
    jax = import_optional("jax", extra="jax", purpose="wrap an optax transformation")
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    layers: dict[Any, list[int]] = {}
    for at, (path, _) in enumerate(leaves):
        layers.setdefault(tuple(_key(jax, part) for part in path[:-1]), []).append(at)
    if len(layers) != len(factors):
        raise InputError(f"the tree holds parameters of {len(layers)} layers; the reduced network has {len(factors)}")
    out: list[Any] = [None] * len(leaves)
    for k, parent in enumerate(sorted(layers)):
        for at in layers[parent]:
            path, leaf = leaves[at]
            out[at] = _combined(jax, path, leaf, factors[k], combine, k)
    return jax.tree_util.tree_unflatten(structure, out)


def _combined(jax: Any, path: Any, leaf: Any, factors: tuple[Any, Any], combine: Any, k: int) -> Any:
    factor = factors[0] if leaf.ndim == 2 else factors[1]
    if path and str(getattr(path[-1], "key", "")) == "kernel":
        factor = factor.T
    if leaf.shape != factor.shape:
        raise InputError(f"layer {k + 1} at {jax.tree_util.keystr(path)}: shape {leaf.shape}; expected {factor.shape}")
    values = jax.numpy.asarray(np.array(factor), dtype=leaf.dtype)
    return leaf * values if combine is None else combine(leaf, values)


def _key(jax: Any, part: Any) -> tuple[tuple[int, Any], ...]:
    """Sorts names naturally: layer2 before layer10."""
    name = getattr(part, "idx", getattr(part, "key", getattr(part, "name", part)))
    pieces = _WORDS.split(str(name))
    return tuple((0, int(p)) if p.isdigit() else (1, p) for p in pieces if p)
