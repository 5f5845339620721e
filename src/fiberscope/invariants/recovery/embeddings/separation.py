"""Leaving the invariant manifold on which copies of a neuron, and null neurons, stay for ever."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_choice, as_count, as_number
from fiberscope.bounds import difference_bound
from fiberscope.domains import Box
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.classes.projections import partition_distance
from fiberscope.invariants.classes.smallest import smallest_sim
from fiberscope.invariants.recovery.embeddings.embedding import Embedding
from fiberscope.invariants.recovery.embeddings.layermaps import LayerMap, assemble
from fiberscope.network import Network
from fiberscope.results import Result, Rigor

ExactArray = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Separation(Result):
    """A wide network moved off the manifold of its copies.

    Args:
        network: the moved network.
        how: "shares" or "noise".
        change: (constant, slope): no output changes by more than constant + slope max|x_i| on the domain; (0, 0) for
            the same function.
        distance: from the manifold that the embedding lay on.
        dimension_before, dimension_after: of the smallest known invariant manifold around the network.
        domain: where the bound holds.
        statement: what holds, in a sentence.
        rigor: EXACT for the same function, INTERVAL for a certified bound.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "domain"})

    network: Network
    how: str
    change: tuple[float, float]
    distance: float
    dimension_before: int
    dimension_after: int
    domain: Box
    statement: str
    rigor: Rigor
    theorems: tuple[str, ...]

    def __str__(self) -> str:
        """A few lines."""
        return (
            f"moved by {self.how} to distance {self.distance:.3g} from the manifold of the copies ({self.rigor.name})\n"
            f"  smallest known invariant manifold: dimension {self.dimension_before} -> {self.dimension_after} of "
            f"{self.network.parameter_count}\n  {self.statement}"
        )


def break_symmetry(
    embedding: Embedding,
    size: float | Fraction = 1e-2,
    seed: int = 0,
    *,
    how: Literal["shares", "noise"] = "shares",
    domain: Box | str | None = None,
) -> Separation:
    """Move a wide network off the manifold on which its copies never separate, changing its function by a known amount.

    "shares" keeps the function exactly: shares of copies become different by about `size`, and null neurons that send
    nothing get random weights to read with. Copies then separate at speeds in the ratio of their shares, but nothing
    moves where the gradient vanishes. "noise" adds Gaussian noise to every parameter and bounds the change.

    Args:
        embedding: what `embed` gave.
        size: of shares: the largest change of a share; of noise: standard deviation, relative to the root mean square
            of the layer's weights.
        seed: of the random numbers.
        how: "shares" or "noise".
        domain: where noise is to be bounded: a `Box`, text, or None for all inputs.

    Raises:
        InputError: if size is not positive, or `how` is unknown.
        ScopeError: if no finite bound exists on the domain.

    Complexity: O(parameters) rational operations.

    >>> from fiberscope.invariants.recovery.embeddings.embedding import embed
    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [0.0]), activation="tanh")
    >>> moved = break_symmetry(embed(net, [2]), 0.25)
    >>> sorted(moved.network.layers[1].weight[0].tolist()), moved.change
    ([0.5, 1.5], (0.0, 0.0))
    >>> moved.dimension_before, moved.dimension_after
    (4, 7)
    """
    if not isinstance(embedding, Embedding):
        raise InputError(f"embedding of type {type(embedding).__name__}; give what fs.embed returns")
    as_choice(how, "how", ("shares", "noise"))
    as_number(size, "size", above=0)
    seed = as_count(seed, "seed")
    box, rng = embedding.network.domain(domain), np.random.default_rng(seed)
    if how == "shares":
        moved = _unequal(embedding, rationals.as_fraction(size), rng)
        change, rigor, kept = (0.0, 0.0), Rigor.EXACT, "embedding-principle"
    else:
        moved = _noisy(embedding.network, float(size), rng)
        change = difference_bound(embedding.network, moved, box)
        if not np.isfinite(change).all():
            raise ScopeError("no finite bound on the change exists on this domain; give a bounded one")
        rigor, kept = Rigor.INTERVAL, "lipschitz-difference"
    here = smallest_sim(moved)
    before, after = embedding.sim.dimension, here.dimension
    theorems = tuple(dict.fromkeys((kept, *embedding.sim.theorems, *here.theorems)))
    distance = partition_distance(moved, embedding.sim.partition).absolute
    statement = _sentence(how, change, before, after, moved.parameter_count)
    return Separation(moved, how, change, distance, before, after, box, statement, rigor, theorems)


def _sentence(how: str, change: tuple[float, float], before: int, after: int, ambient: int) -> str:
    if how == "shares":
        text = "The function is the same, exactly; copies separate wherever the gradient does not vanish."
    else:
        slope = f" + {change[1]:.3g} max|x|" if change[1] else ""
        text = f"No output changes by more than {change[0]:.3g}{slope}."
    if before == ambient:
        return f"{text} The embedding lay on no known manifold before."
    free = "No two neurons are known to stay together any more." if after == ambient else ""
    return f"{text} {free or 'Some neurons still move together or stay silent.'}"


def _unequal(embedding: Embedding, size: Fraction, rng: np.random.Generator) -> Network:
    """Shares moved by size times distinct numbers in [-1, 1] that add up to 0, and null neurons that read something."""
    maps = []
    for own, narrow in zip(embedding.map, embedding.original.widths[1:-1], strict=True):
        shares = own.shares.copy()
        for copies in own.copies(narrow):
            last = len(copies) - 1
            if last:
                steps = [Fraction(2 * int(v) - last, last) for v in rng.permutation(len(copies))]
                shares[copies] = shares[copies] + size * np.array(steps, dtype=object)
        maps.append(LayerMap(own.labels, own.factors, shares, own.offsets))
    same = replace(embedding, network=assemble(embedding.original, maps, embedding.free), map=tuple(maps))
    return _awake(same.network, maps, rng)


def _awake(net: Network, maps: list[LayerMap], rng: np.random.Generator) -> Network:
    """Random incoming weights for null neurons that send nothing, of the size of the layer's."""
    layers = list(net.layers)
    for k, own in enumerate(maps):
        layer, above = layers[k], layers[k + 1].weight
        silent = [int(j) for j in own.null if not (above[:, j] != 0).any()]
        if not silent:
            continue
        scale = _root_mean_square(layer.weight) or 1.0
        weight = rationals.fractions(layer.weight).copy()
        drawn = scale * rng.standard_normal((len(silent), layer.n_in))
        weight[silent] = rationals.fractions(drawn)
        layers[k] = replace(layer, weight=rationals.simplified(weight))
    return net.with_layers(layers)


def _noisy(net: Network, size: float, rng: np.random.Generator) -> Network:
    layers = []
    for layer in net.layers:
        scale = size * (_root_mean_square(layer.weight) or 1.0)
        weight = layer.weight64 + scale * rng.standard_normal(layer.weight.shape)
        bias = layer.bias64 + scale * rng.standard_normal(layer.bias.shape)
        layers.append(replace(layer, weight=weight, bias=bias))
    return net.with_layers(layers)


def _root_mean_square(weight: ExactArray) -> float:
    return float(np.sqrt(np.mean(rationals.nearest_floats(weight) ** 2)))
