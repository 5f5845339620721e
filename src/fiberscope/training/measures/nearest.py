"""The nearest invariant manifolds: two equal neurons, two opposite ones, or one without weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fiberscope.errors import InputError
from fiberscope.training.architectures.architecture import Architecture, Array, Parameters, Slot
from fiberscope.training.measures.classcounts import scales_of
from fiberscope.training.measures.pairs import LOWER, FloatArray, Forest, Neurons, Shortlist

NearKind = Literal["merge", "flip", "null"]


@dataclass(frozen=True)
class Near:
    """A structural invariant manifold near the parameters, and how near.

    Args:
        population: whose neurons.
        kind: "merge": two neurons equal; "flip": one the negative of the other; "null": one without any weight.
        neurons: the two, ascending, or the one.
        distance: of the parameters from it: |u_i - u_j| / sqrt 2, |u_i + u_j| / sqrt 2 or |u_i|.
        relative: the distance over the median length of the neurons of the population.
        lower: proved up to rounding: no manifold of the kind (null, or merge and flip) in this population is nearer.
    """

    population: str
    kind: NearKind
    neurons: tuple[int, ...]
    distance: float
    relative: float
    lower: float

    @property
    def proved(self) -> bool:
        """Whether it is proved to be the nearest of its kind in the population."""
        return self.lower >= self.distance

    def __str__(self) -> str:
        """One phrase."""
        if self.kind == "null":
            what = f"{self.population}[{self.neurons[0]}] = 0"
        else:
            what = f"{self.population}[{self.neurons[0]}] = {'-' if self.kind == 'flip' else ''}[{self.neurons[1]}]"
        return f"{what} at distance {self.distance:.3g} ({self.relative:.2g} of a neuron)"


def sim_distance(
    architecture: Architecture, parameters: Parameters, population: str, kind: NearKind, neurons: tuple[int, ...]
) -> float:
    """Euclidean distance of the parameters from the manifold where two neurons are equal or opposite, or one is null.

    For the isometry s that exchanges the neurons (and changes their signs) it is |theta - s theta| / 2, which is
    |u_i - u_j| / sqrt 2 where no parameter is indexed twice by the population; |u_i| for null.

    Args:
        architecture: of the model.
        parameters: by name.
        population: a name.
        kind: "merge", "flip" or "null".
        neurons: two different ones, or one for "null".

    Raises:
        InputError: if there are no such neurons.

    Complexity: O(entries of the neurons), in float64. Source: arXiv 2510.09564 (fixed spaces of isometries).

    >>> from fiberscope.network import Network
    >>> from fiberscope.training.architectures.chains import chain_architecture, parameters_of
    >>> net = Network.from_arrays(([[1.0], [1.0]], [0, 2]), ([[3.0, 3.0]], [0]), activation="tanh")
    >>> model, values = chain_architecture(net), parameters_of(net)
    >>> round(sim_distance(model, values, model.populations[0].name, "merge", (0, 1)) ** 2, 12)
    2.0
    """
    if population not in architecture.named:
        raise InputError(f"no population {population!r}; there are {', '.join(architecture.named) or 'none'}")
    count = architecture.named[population].count
    wanted = 1 if kind == "null" else 2
    if len(set(neurons)) != wanted or not all(0 <= i < count for i in neurons):
        raise InputError(f"neurons {neurons} of {population!r} for {kind!r}; give {wanted} in 0..{count - 1}")
    total = 0.0
    for s in dict.fromkeys(s for s, _, _ in architecture.places[population]):
        slot = architecture.slots[s]
        axes = [axis for t, axis, _ in architecture.places[population] if t == s]
        total += _slot_square(slot, parameters, axes, kind, neurons)
    return math.sqrt(total)


def _slot_square(
    slot: Slot, parameters: Parameters, axes: list[int], kind: NearKind, neurons: tuple[int, ...]
) -> float:
    """What one slot adds to the squared distance."""
    values = np.moveaxis(slot.read(parameters), axes, range(len(axes)))
    if len(axes) > 2:
        raise InputError(f"parameter {slot.name!r} has a population on {len(axes)} axes; at most 2 are understood")
    sign = -1.0 if kind == "flip" else 1.0
    rows = _float64(values[list(neurons)])
    if kind == "null":
        column = 0.0
        if len(axes) == 2:
            column = _square(_float64(values[:, neurons[0]])) - _square(rows[0, neurons[0]])
        return _square(rows) + column
    if len(axes) == 1:
        return _square(rows[0] - sign * rows[1]) / 2.0
    i, j = neurons
    moved = rows[1] * sign  # entry (i, k) goes where (j, s k) was; between the two both signs cancel
    moved[[i, j]] = rows[1][[j, i]]
    inside = _square(rows[0] - moved)
    columns = _float64(values[:, [i, j]])
    columns[[i, j]] = 0.0
    return (inside + _square(columns[:, 0] - sign * columns[:, 1])) / 2.0


def _float64(values: Array) -> FloatArray:
    return np.array(values, dtype=np.float64)


def _square(values: FloatArray) -> float:
    flat = np.asarray(values).reshape(-1)
    return float(flat @ flat)


class PairSearch:
    """Looks for the nearest pair, and for all pairs within a relative tolerance, in blocks of a Gram matrix.

    Args:
        neurons: of the population.
        source: the same, or contracted, whose Gram matrix arrives: then found distances are lower bounds.
        tolerance: pairs with |u_i - e u_j| <= t max(|u_i|, |u_j|) are joined in `near`, and perhaps others.
    """

    def __init__(self, neurons: Neurons, source: Neurons, tolerance: float) -> None:
        self.neurons = neurons
        self.shortlist = Shortlist()
        self.near = Forest(neurons.count, signed=neurons.population.signs)
        dtype = np.result_type(*(part.dtype for part in source.parts))
        self._sides = (source.squares - neurons.slack * neurons.squares).astype(dtype)
        self._reach = ((tolerance * scales_of(neurons)) ** 2 * (1.0 + 1e-6)).astype(dtype)
        self._work = np.empty(0, dtype)

    def block(self, at: int, products: Array) -> None:
        """Products of neurons at, at+1, ... with all from `at` on."""
        if self._work.size < products.size:
            self._work = np.empty(products.size, products.dtype)
        low = self._work[: products.size].reshape(products.shape)
        signed = self.neurons.population.signs
        if signed:
            np.abs(products, out=low)
            low *= -2.0
        else:
            np.multiply(products, -2.0, out=low)
        low += self._sides[None, at:]
        np.copyto(low[:, : len(low)], np.inf, where=LOWER[: len(low), : len(low)])
        base = self._sides[at : at + len(low)]
        minima = low.min(axis=1) + base
        if (minima <= np.maximum(self._reach[at : at + len(low)], self._reach[at:].max())).any():
            self._join(at, low, base, products, signed)
            minima = low.min(axis=1) + base
        self.shortlist.offer(low, base, minima, at, products if signed else None)

    def _join(self, at: int, low: Array, base: Array, products: Array, signed: bool) -> None:
        """Join the pairs within reach, and take them from the lower bounds: they are looked at again."""
        reach = np.maximum(self._reach[at : at + len(low), None], self._reach[None, at:])
        i, j = np.nonzero(low + base[:, None] <= reach)
        signs = np.where(products[i, j] < 0, -1.0, 1.0) if signed else None
        self.near.join(at + i, at + j, signs)
        if signs is not None:  # near nothing, both signs may be within reach
            both = low[i, j] + base[i] + 4.0 * np.abs(products[i, j]) <= reach[i, j]
            self.near.join(at + i[both], at + j[both], -signs[both])
        low[i, j] = np.inf

    def nearest(self, architecture: Architecture, parameters: Parameters) -> Near | None:
        """The nearest pair, its distance computed anew; None if there are fewer than two neurons."""
        found, neurons = self.shortlist, self.neurons
        if not len(found.low):
            return None
        name = neurons.population.name
        squares = self._squares(architecture, parameters)
        chosen = int(np.argmin(squares))
        best = float(squares[chosen])
        low = 0.0 if neurons.doubled else max(0.0, min(best, found.rest))
        i, j = sorted((int(found.first[chosen]), int(found.second[chosen])))
        distance = math.sqrt(best / 2.0)
        lower = distance if low == best else math.sqrt(low / 2.0)
        return Near(name, _kind(found.signs[chosen]), (i, j), distance, _ratio(distance, neurons.typical), lower)

    def _squares(self, architecture: Architecture, parameters: Parameters) -> FloatArray:
        """|u_i - e u_j|^2 of the pairs of the list, in float64."""
        found, neurons = self.shortlist, self.neurons
        if neurons.doubled:
            name = neurons.population.name
            pairs = zip(found.first.tolist(), found.second.tolist(), found.signs.tolist(), strict=True)
            every = (sim_distance(architecture, parameters, name, _kind(sign), (i, j)) for i, j, sign in pairs)
            return np.array([2.0 * distance**2 for distance in every])
        total = np.zeros(len(found.low))
        for part in neurons.parts:
            gaps = part[found.first].astype(np.float64)
            gaps -= found.signs[:, None] * part[found.second]
            total += np.einsum("ij,ij->i", gaps, gaps)
        return total


def _kind(sign: float) -> NearKind:
    return "merge" if sign > 0 else "flip"


def nearest_null(architecture: Architecture, parameters: Parameters, neurons: Neurons) -> Near | None:
    """The shortest neuron, where one without weights stays so under training."""
    if not neurons.population.null or not neurons.count:
        return None
    name = neurons.population.name
    squares = neurons.squares * (1.0 - neurons.slack)
    distance, chosen = math.inf, 0
    for i in np.argsort(squares, kind="stable").tolist():
        if squares[i] > distance**2 and not neurons.doubled:
            break
        if neurons.doubled:
            length = sim_distance(architecture, parameters, name, "null", (i,))
        else:
            length = math.sqrt(sum(_square(_float64(part[i])) for part in neurons.parts))
        if length < distance:
            distance, chosen = length, i
    return Near(name, "null", (chosen,), distance, _ratio(distance, neurons.typical), distance)


def _ratio(distance: float, length: float) -> float:
    return distance / length if length > 0 else 0.0
