"""Proved upper bounds of orbit dimensions: invariant manifolds and conservation laws that confine every orbit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.autodiff.elimination import rank_of
from fiberscope.autodiff.rings import Residues
from fiberscope.invariants.classes.critical import leaf_without_constants
from fiberscope.network import Network
from fiberscope.neurons import colour_classes, still_layers
from fiberscope.rowclasses import Classes
from fiberscope.symmetries import laws

IntArray = npt.NDArray[np.int64]

_ROWS = 9000
"""Law gradients and tangent vectors up to here are ranked; beyond, laws are not counted."""


@dataclass(frozen=True)
class Ceiling:
    """An upper bound of the dimension of an orbit, and why it holds."""

    value: int
    reason: str
    theorems: tuple[str, ...]


def ceiling(net: Network, free: Sequence[str], *, everywhere: bool = False,
            points: npt.NDArray[Any] | None = None,
            partition: Sequence[Classes] | None = None) -> Ceiling:  # fmt: skip
    """The least proved upper bound of the orbit's dimension at the network's parameters.

    The orbit lies in the leaf of the coarsest equitable partition (theorem "equitable-sim"), whose tangent space is the
    image of E_l (.) E_(l-1)^T and E_l, over the layers above the last null one; and in the level set of every
    conservation law, so its tangent space lies in the kernel of their gradients. The rank of the gradients on the leaf
    is taken modulo a prime: a lower bound of the rational rank, hence an upper bound of the dimension.

    Args:
        net: a chain whose layers are trained.
        free: names of the trained blocks, "W1", "b1", ...
        partition: the coarsest equitable one, if it is known already.
        points: inputs whose activation patterns are all that occur; None: laws of all inputs.
        everywhere: count only laws that hold at every theta, as a bound for generic points.

    Complexity: one colour refinement, and the rank of a matrix (laws, leaf dimension).

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    >>> ceiling(net, ("W1", "b1", "W2", "b2")).value
    4
    """
    partition = colour_classes(net) if partition is None else partition
    blocks = set(free)
    dimension = trained_dimension(net, partition, blocks)
    trivial = all(c.trivial for c in partition)
    every = sum(size for name, size in _sizes(net).items() if name in blocks)
    why = "all parameters" if trivial else "the leaf of the coarsest equitable partition, which no gradient flow leaves"
    found = Ceiling(dimension, why, () if trivial else ("equitable-sim",))
    constant = leaf_without_constants(net) if set(_sizes(net)) - blocks <= {f"b{net.depth}"} else None
    if constant is not None and constant < dimension:
        reason = "the leaf on which neurons that read nothing at a critical point are constants"
        return Ceiling(constant, reason, ("equitable-sim",))
    entries = laws(net, points).entries if _laws_hold(net, blocks) else ()
    known = [law for law in entries if law.size and (law.kind == "global" or (not everywhere and law.radius > 0))]
    total = sum(law.size for law in known)
    if not total or every > _ROWS:
        return found
    ring = Residues()
    theta = ring.array(rationals.exact_array(net.theta))
    gradients = np.concatenate([law.residues(theta, ring.prime) for law in known])
    if trivial:
        inside = gradients[:, np.concatenate([np.full(n, name in blocks) for name, n in _sizes(net).items()])]
    else:
        basis = _leaf(net, partition, blocks)
        inside = ring.matmul(gradients[None], np.ascontiguousarray(basis.T)[None])[0]
    rank = rank_of(inside, ring.prime)
    if rank == 0:
        return found
    names = tuple(dict.fromkeys(law.theorem for law in known))
    where = "" if trivial else " inside that leaf"
    reason = f"{rank} independent conservation law{'s' * (rank != 1)}{where}"
    return Ceiling(dimension - rank, reason, (*found.theorems, *names))


def trained_dimension(net: Network, partition: Sequence[Classes], free: set[str]) -> int:
    """Dimension of the leaf of an equitable partition in the trained blocks: k_l k_(l-1) and k_l above null layers."""
    counts = (net.widths[0], *(c.count for c in partition), net.widths[-1])
    still = still_layers(counts[1:-1])
    pairs = enumerate(zip(counts, counts[1:], strict=False), start=1)
    return sum(low * high * (f"W{k}" in free) + high * (f"b{k}" in free) for k, (low, high) in pairs if k > still)


def _sizes(net: Network) -> dict[str, int]:
    out = {}
    for k, layer in enumerate(net.layers, start=1):
        out[f"W{k}"], out[f"b{k}"] = layer.weight.size, layer.bias.size
    return out


def _laws_hold(net: Network, free: set[str]) -> bool:
    """Whether the laws, which are about training everything, hold with the other blocks held fixed."""
    for k, layer in enumerate(net.layers, start=1):
        if f"W{k}" not in free:
            return False
        if f"b{k}" not in free and k < net.depth and np.asarray(layer.bias != 0, dtype=bool).any():
            return False
    return True


def _leaf(net: Network, partition: Sequence[Classes], free: set[str]) -> IntArray:
    """Residues of a basis of the leaf's tangent space, (dimension, M), in the trained blocks that move."""
    ring = Residues()
    inside, outside = [np.eye(net.widths[0], dtype=np.int64)], []
    for layer, classes in zip(net.hidden, partition, strict=True):
        outside.append(_indicator(classes, classes.factors, ring))
        even = layer.activation.parity == "even"  # it forgets the sign
        inside.append(_indicator(classes, [abs(f) for f in classes.factors], ring) if even else outside[-1])
    outside.append(np.eye(net.widths[-1], dtype=np.int64))
    blocks, at = [], 0
    count, still = net.parameter_count, still_layers([c.count for c in partition])
    for k, layer in enumerate(net.layers, start=1):
        into, out = inside[k - 1], outside[k - 1]
        outer = out.T[:, None, :, None] * into.T[None, :, None, :] % ring.prime
        for name, rows in ((f"W{k}", outer.reshape(-1, layer.weight.size)), (f"b{k}", out.T)):
            if name in free and k > still:
                block = np.zeros((len(rows), count), dtype=np.int64)
                block[:, at : at + rows.shape[1]] = rows
                blocks.append(block)
            at += rows.shape[1]
    return np.concatenate(blocks) if blocks else np.zeros((0, count), dtype=np.int64)


def _indicator(classes: Classes, factors: Any, ring: Residues) -> IntArray:
    out = np.zeros((len(classes.labels), classes.count), dtype=np.int64)
    live = np.flatnonzero(classes.labels >= 0)
    out[live, classes.labels[live]] = [ring.constant(factors[i]) for i in live]
    return out
