"""Class projectors P = E (E^T E)^{-1} E^T: distances to the manifold of a partition, and its nearest points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.network import Layer, Network
from fiberscope.neurons import Classes

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_EXACT_PARAMETERS = 20_000
"""Networks up to this size are projected over Q unless floats are asked for."""


@dataclass(frozen=True, eq=False)
class ClassProjector:
    """P = E (E^T E)^{-1} E^T for the classes of one layer, applied without forming it.

    Args:
        labels: (n,) class of each neuron, -1 for null neurons.
        vector: (n,) the entries e_i, floats or Fractions; null neurons count as 0.
    """

    labels: IntArray
    vector: AnyArray

    @cached_property
    def count(self) -> int:
        """Number of classes without the null class."""
        return int(self.labels.max(initial=-1)) + 1

    @cached_property
    def trivial(self) -> bool:
        """Whether P is the identity."""
        return self.count == self.labels.size

    @cached_property
    def open(self) -> npt.NDArray[np.bool_]:
        """(n,) the neurons on which P is not the identity: null ones, and those that are not alone."""
        if not self.count:
            return np.ones(self.labels.size, dtype=bool)
        sizes = np.bincount(self.labels[self.labels >= 0], minlength=self.count)
        return (self.labels < 0) | (sizes[self.labels] > 1)

    @cached_property
    def _sorted(self) -> tuple[IntArray, IntArray]:
        live = np.flatnonzero(self.labels >= 0)
        order = live[np.argsort(self.labels[live], kind="stable")]
        return order, np.searchsorted(self.labels[order], np.arange(self.count))

    @cached_property
    def squares(self) -> AnyArray:
        """(count,) n_A = sum of e_i^2 over each class."""
        order, starts = self._sorted
        if not self.count:
            return np.zeros(0)
        return np.asarray(np.add.reduceat(self.vector[order] ** 2, starts))

    def means(self, matrix: AnyArray) -> AnyArray:
        """(E^T E)^{-1} E^T M for M of shape (n, m): one row for each class, (count, m)."""
        if self.trivial:
            return matrix[self._sorted[0]] if (np.diff(self.labels) != 1).any() else matrix
        order, starts = self._sorted
        if not self.count:
            return np.zeros((0, matrix.shape[1]), dtype=matrix.dtype)
        rows = matrix[order] * self.vector[order, None]
        return np.asarray(np.add.reduceat(rows, starts, axis=0) / self.squares[:, None])

    def coordinates(self, matrix: AnyArray) -> FloatArray:
        """M E (E^T E)^{-1/2} for float M of shape (m, n): coordinates of the rows along the classes, (m, count)."""
        return np.asarray(self.means(matrix.T).T * np.sqrt(self.squares.astype(np.float64)))

    def apply(self, matrix: AnyArray) -> AnyArray:
        """P M for M of shape (n, m)."""
        if self.trivial:
            return matrix
        out = np.zeros_like(matrix)
        live = self.labels >= 0
        out[live] = self.means(matrix)[self.labels[live]] * self.vector[live, None]
        return out

    def restricted(self, keep: npt.NDArray[np.bool_]) -> ClassProjector:
        """The projector on some neurons that contain whole classes."""
        labels = self.labels[keep]
        live = np.unique(labels[labels >= 0])
        rank = np.full(self.count + 1, -1, dtype=np.int64)
        rank[live] = np.arange(live.size)
        return ClassProjector(rank[labels], self.vector[keep])


def projectors(
    net: Network, partition: Sequence[Classes], *, exact: bool = False
) -> list[tuple[ClassProjector, ClassProjector]]:
    """For every layer of neurons, inputs and outputs included, the projectors of pre-activations and of activations.

    They differ for even activations only, which forget the signs of their class vectors.

    Args:
        net: the network.
        partition: one `Classes` for each hidden layer.
        exact: whether the entries are Fractions rather than floats.

    Raises:
        InputError: if the partition does not fit the hidden layers.
    """
    sizes = [c.labels.size for c in partition]
    if sizes != [layer.n_out for layer in net.hidden]:
        raise InputError(f"partition of layers of sizes {sizes}; the hidden layers have {list(net.widths[1:-1])}")
    out = []
    ends = [ClassProjector(np.arange(n), _ones(n, exact)) for n in (net.widths[0], net.widths[-1])]
    out.append((ends[0], ends[0]))
    for layer, classes in zip(net.hidden, partition, strict=True):
        vector = classes.factors if exact else classes.vector
        inner = ClassProjector(classes.labels, vector)
        even = layer.activation.parity == "even"
        out.append((inner, ClassProjector(classes.labels, abs(vector)) if even else inner))
    out.append((ends[1], ends[1]))
    return out


def _ones(n: int, exact: bool) -> AnyArray:
    return np.full(n, Fraction(1), dtype=object) if exact else np.ones(n)


# ---- distances


@dataclass(frozen=True)
class BlockDistance:
    """How far one layer's parameters are from the manifold: root sums of squares.

    Args:
        layer: position of the layer, from 0.
        rows: ||Q W P||, unequal sums into classes: members of a class read differently.
        columns: ||P W Q||, members of a class of the layer below are read differently.
        bias: ||Q b||.
        frozen: ||Q W Q||, the part that training on the manifold leaves alone.
    """

    layer: int
    rows: float
    columns: float
    bias: float
    frozen: float


@dataclass(frozen=True)
class Distance:
    """Distance of a network's parameters from the manifold of a partition.

    Args:
        absolute: sqrt(sum ||Q W P||^2 + ||P W Q||^2 + ||Q b||^2).
        relative: the same over the length of theta.
        condensed: distance to the leaf {W = P W P}, where nothing is frozen: with ||Q W Q||^2 added.
        blocks: the parts, layer by layer.
    """

    absolute: float
    relative: float
    condensed: float
    blocks: tuple[BlockDistance, ...]


def partition_distance(net: Network, partition: Sequence[Classes]) -> Distance:
    """Euclidean distance of theta from V_P = {W_l P_(l-1) = P_l W_l, b_l in range P_l}, in float64.

    dist^2 = sum_l ||Q_l W_l P_(l-1)||^2 + ||P_l W_l Q_(l-1)||^2 + ||Q_l b_l||^2 with Q = 1 - P. For two-layer networks
    this is the within-class sum of squares of the neurons' vectors (a, w, b), signs aligned.

    Args:
        net: the network.
        partition: one `Classes` for each hidden layer, equitable or not.

    Raises:
        InputError: if the partition does not fit.

    Complexity: O(parameters of neurons that share a class). Source: projector theorem of the theory page.

    >>> from fiberscope.neurons import Classes
    >>> net = Network.from_arrays(([[1.0], [1.5]], [0, 0]), ([[2.0, 2.0]], [0]), activation="tanh")
    >>> together = Classes(np.array([0, 0]), np.array([Fraction(1), Fraction(1)], dtype=object))
    >>> round(partition_distance(net, (together,)).absolute, 6)  # 0.25 on either side of 1.25
    0.353553
    """
    spans = projectors(net, partition)
    blocks, length = [], 0.0
    for k, (layer, (_, below), (here, _)) in enumerate(zip(net.layers, spans, spans[1:], strict=False)):
        length += _squared_size(layer.weight) + _squared_size(layer.bias)
        rows = columns = frozen = bias = 0.0
        if not (here.trivial and below.trivial):
            r, c = here.open, below.open
            here, below = here.restricted(r), below.restricted(c)
            if r.any():
                beside = _part(layer.weight, r, ~c)
                rows += _size(beside - here.apply(beside))
                shift = rationals.nearest_floats(layer.bias[r])[:, None]
                bias = _size(shift - here.apply(shift))
            if c.any():
                beside = _part(layer.weight, ~r, c).T
                columns += _size(beside - below.apply(beside))
            if r.any() and c.any():
                both = _part(layer.weight, r, c)
                left, right = here.apply(both), below.apply(both.T).T
                core = below.apply(left.T).T
                rows += _size(right - core)
                columns += _size(left - core)
                frozen = _size(both - left - right + core)
        blocks.append(BlockDistance(k, rows**0.5, columns**0.5, bias**0.5, frozen**0.5))
    squared = sum(b.rows**2 + b.columns**2 + b.bias**2 for b in blocks)
    whole = squared + sum(b.frozen**2 for b in blocks)
    relative = (squared / length) ** 0.5 if length else 0.0
    return Distance(squared**0.5, relative, whole**0.5, tuple(blocks))


def _part(matrix: AnyArray, rows: npt.NDArray[np.bool_], columns: npt.NDArray[np.bool_]) -> FloatArray:
    part = matrix[rows] if columns.all() else matrix[np.ix_(rows, columns)] if not rows.all() else matrix[:, columns]
    return rationals.nearest_floats(part)


def _size(matrix: FloatArray) -> float:
    return float(np.einsum("ij,ij->", matrix, matrix))


def _squared_size(array: AnyArray, step: int = 1 << 19) -> float:
    """Sum of squares, converted a piece at a time."""
    flat = array.reshape(-1)
    pieces = (rationals.nearest_floats(flat[k : k + step]) for k in range(0, flat.size, step))
    return sum(float(piece @ piece) for piece in pieces)


# ---- nearest points


def nearest_on_manifold(
    net: Network, partition: Sequence[Classes], *, condensed: bool = False, exact: bool | None = None
) -> Network:
    """The network on the manifold of a partition that is nearest to this one: W -> P W P + Q W Q, b -> P b.

    Args:
        net: the network.
        partition: one `Classes` for each hidden layer.
        condensed: W -> P W P instead, the nearest point where also the frozen part Q W Q is zero.
        exact: over Q (rational weights where no float fits), or rounded in the network's dtype; by default over Q for
            up to 20,000 parameters. A rounded point of a deep network lies on the manifold up to rounding only; for
            two layers and for `condensed`, with factors 1 and -1, members of a class stay equal bit by bit.

    Raises:
        InputError: if the partition does not fit.

    Complexity: O(parameters). Source: projector theorem of the theory page.

    >>> from fiberscope.neurons import colour_classes
    >>> net = Network.from_arrays(([[1.0], [1.5]], [0, 0]), ([[2.0, 2.0]], [0]), activation="tanh")
    >>> together = Classes(np.array([0, 0]), np.array([Fraction(1), Fraction(1)], dtype=object))
    >>> near = nearest_on_manifold(net, (together,))
    >>> near.layers[0].weight.tolist(), colour_classes(near)[0].count
    ([[1.25], [1.25]], 1)
    """
    over_q = net.parameter_count <= _EXACT_PARAMETERS if exact is None else exact
    spans = projectors(net, partition, exact=over_q)
    layers = [
        _projected(layer, below, here, condensed, over_q)
        for layer, (_, below), (here, _) in zip(net.layers, spans, spans[1:], strict=False)
    ]
    return net.with_layers(layers)


def _projected(layer: Layer, below: ClassProjector, here: ClassProjector, condensed: bool, over_q: bool) -> Layer:
    if here.trivial and below.trivial:
        return layer
    weight = rationals.fractions(layer.weight) if over_q else rationals.nearest_floats(layer.weight)
    bias = rationals.fractions(layer.bias) if over_q else rationals.nearest_floats(layer.bias)
    weight, bias = weight.copy(), bias.copy()
    r, c = here.open, below.open
    inner, outer = here.restricted(r), below.restricted(c)
    both = weight[np.ix_(r, c)]
    if r.any():
        weight[np.ix_(r, ~c)] = inner.apply(weight[np.ix_(r, ~c)])
        bias[r] = inner.apply(bias[r][:, None])[:, 0]
    if c.any():
        weight[np.ix_(~r, c)] = outer.apply(weight[np.ix_(~r, c)].T).T
    if r.any() and c.any():
        left = inner.apply(both)
        core = outer.apply(left.T).T
        if not condensed:
            right = outer.apply(both.T).T
            core = core + (both - left - right + core)
        weight[np.ix_(r, c)] = core
    if over_q:
        return replace(layer, weight=_narrowed(weight, layer.weight), bias=_narrowed(bias, layer.bias))
    kinds = [a.dtype if not rationals.is_rational(a) else np.dtype(np.float64) for a in (layer.weight, layer.bias)]
    return replace(layer, weight=weight.astype(kinds[0]), bias=bias.astype(kinds[1]))


def _narrowed(array: AnyArray, like: AnyArray) -> AnyArray:
    """Rational values in the dtype they came from where that holds them all, then in float64, else as they are."""
    if not rationals.is_rational(like) and rationals.representable(array, like.dtype).all():
        return rationals.rounded(array, like.dtype)
    return rationals.simplified(array)
