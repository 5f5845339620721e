"""Directions of the neurons of a layer: how many there are, at which tolerance, and in which order to draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.errors import InputError
from fiberscope.invariants.classes.groups import close_groups
from fiberscope.network import Network
from fiberscope.neurons import multiples
from fiberscope.results import jsonable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ORDERED = 300
"""Directions up to which neighbours are put side by side by optimal leaf order, whose cost grows like their cube."""
_FAINT = 1e-12
"""Share of the largest amplitude below which a neuron's weight in a mean no longer shrinks."""


@dataclass(frozen=True, eq=False)
class Directions:
    """One hidden layer: unit incoming vectors u_i = (w_i, b_i) / |(w_i, b_i)| and amplitudes A_i = |(w_i, b_i)| |v_i|.

    v_i are the outgoing weights of neuron i. Where the activation is odd or even, u and -u are one direction.

    Args:
        layer: number of the hidden layer, from 1.
        name: of the layer.
        activation: its activation.
        folded: whether u and -u count as one direction.
        orientations: (n, D) the u_i, turned to the heaviest neuron of their class where signs are folded; 0 where u_i
            is not defined.
        amplitudes: (n,) the A_i.
        tolerances: growing distances t.
        labels: (len(tolerances), n) class of each neuron: its direction is within t of the mean of its class, in the
            classes found before; -1 for neurons without a direction.
        twins: (len(tolerances), n) classes of neurons that nearly compute one function: incoming vectors within t times
            their median length of the mean of their class, up to sign where signs are folded; classes of directions
            where the activation is positively homogeneous; -1 for vectors within t times that length of 0 if s(0) = 0.
        order: (n,) neurons with like directions side by side, those without a direction last.
        spectrum: eigenvalues of S = sum_i p_i u_i u_i^T with p = A / sum A, falling; their sum is 1.
    """

    layer: int
    name: str
    activation: str
    folded: bool
    orientations: FloatArray
    amplitudes: FloatArray
    tolerances: tuple[float, ...]
    labels: IntArray
    twins: IntArray
    order: IntArray
    spectrum: FloatArray

    @property
    def width(self) -> int:
        """Number n of neurons."""
        return len(self.amplitudes)

    @property
    def silent(self) -> int:
        """Number of neurons without a direction, or without amplitude."""
        return int(((self.labels[0] < 0) | (self.amplitudes == 0)).sum())

    @property
    def effective(self) -> float:
        """exp(-sum_k s_k log s_k) over the spectrum s: between 1 and min(n, D); 0 for a layer without amplitude."""
        return exp_entropy(self.spectrum)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of classes at each tolerance."""
        return tuple(int(row.max(initial=-1)) + 1 for row in self.labels)

    @property
    def neurons(self) -> tuple[int, ...]:
        """Number of different neurons, classes of twins, at each tolerance."""
        return tuple(int(row.max(initial=-1)) + 1 for row in self.twins)

    @cached_property
    def masses(self) -> tuple[FloatArray, ...]:
        """At each tolerance the shares P_c = sum_(i in c) p_i of the classes."""
        total = self.amplitudes.sum()
        share = self.amplitudes / total if total > 0 else self.amplitudes
        live = self.labels[0] >= 0
        return tuple(
            np.asarray(np.bincount(row[live], weights=share[live], minlength=count), np.float64)
            for row, count in zip(self.labels, self.counts, strict=True)
        )

    @property
    def effective_counts(self) -> tuple[float, ...]:
        """exp(-sum_c P_c log P_c) at each tolerance: not bounded by the input dimension, unlike `effective`."""
        return tuple(exp_entropy(masses) for masses in self.masses)

    def holding(self, share: float) -> tuple[int, ...]:
        """At each tolerance the least number of classes that hold this share of the amplitude."""
        out = []
        for masses in self.masses:
            held = np.cumsum(np.sort(masses)[::-1])
            out.append(int((held < share - 1e-12).sum()) + 1 if held.size and held[-1] > 0 else 0)
        return tuple(out)

    def cosines(self, limit: int | None = None) -> tuple[IntArray, FloatArray]:
        """Neurons in order and their cosines (absolute ones where signs are folded), at most `limit` of them, evenly.

        >>> net = Network.from_arrays(([[1.0], [2.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="tanh")
        >>> [part.tolist() for part in layer_directions(net, 0).cosines()]
        [[1, 0], [[1.0, 1.0], [1.0, 1.0]]]
        """
        live = self.order[self.labels[0][self.order] >= 0]
        if limit is not None and live.size > limit:
            live = live[np.linspace(0, live.size - 1, limit).astype(int)]
        u = self.orientations[live]
        product = np.clip(u @ u.T, -1.0, 1.0)
        return live, np.abs(product) if self.folded else product

    def summary(self, *, spectrum: bool = True) -> dict[str, Any]:
        """The numbers, JSON-ready, without orientations."""
        return {
            "layer": self.layer, "name": self.name, "activation": self.activation, "width": self.width,
            "folded": self.folded, "silent": self.silent, "effective": self.effective,
            "spectrum": jsonable(self.spectrum[:32]) if spectrum else None, "counts": list(self.counts),
            "effective_counts": list(self.effective_counts), "neurons": list(self.neurons),
        }  # fmt: skip

    def drawing(self, limit: int) -> dict[str, Any]:
        """What a picture needs, JSON-ready and thinned to `limit` neurons: cosines to three digits, amplitudes."""
        shown, cosines = self.cosines(limit)
        short = self.orientations.shape[1] <= 16
        return {
            "neurons": shown.tolist(), "cosines": (np.round(cosines, 3) + 0.0).tolist(),
            "amplitudes": self.amplitudes[shown].tolist(), "labels": self.labels[:, shown].tolist(),
            "orientations": np.round(self.orientations[shown], 6).tolist() if short else None,
        }  # fmt: skip


def exp_entropy(weights: npt.ArrayLike) -> float:
    """exp(-sum p log p) of p = weights / sum of weights: k for k equal weights, 0 if all are 0.

    >>> round(exp_entropy([3.0, 3.0, 0.0]), 12), exp_entropy([0.0])
    (2.0, 0.0)
    """
    values = np.asarray(weights, np.float64)
    total = float(values.sum())
    if total <= 0:
        return 0.0
    p = values[values > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def layer_directions(
    net: Network, k: int, tolerances: Sequence[float] = (1e-6, 1e-3, 1e-2, 0.1), *, seed: int = 0
) -> Directions:
    """Orientations, amplitudes and direction classes of one hidden layer.

    Args:
        net: the network.
        k: the hidden layer, from 0.
        tolerances: distances between unit vectors, growing; about angles in radians.
        seed: of the random projections that find classes.

    Raises:
        InputError: if the tolerances do not grow from above 0 to at most 1, or there is no such layer.

    Complexity: O(n D (log n + min(n, D))) for n neurons with D incoming parameters, where classes lie apart.

    >>> net = Network.from_arrays(([[3.0, 4.0], [-6.0, -8.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="tanh")
    >>> found = layer_directions(net, 0)
    >>> found.amplitudes.tolist(), found.counts, round(found.effective, 9)
    ([5.0, 10.0], (1, 1, 1, 1), 1.0)
    """
    limits = tuple(float(t) for t in tolerances)
    if not limits or not 0 < limits[0] <= limits[-1] <= 1 or list(limits) != sorted(set(limits)):
        raise InputError(f"tolerances {limits}; give growing numbers above 0 and at most 1")
    if not 0 <= k < net.depth - 1:
        raise InputError(f"hidden layer {k}; the network has {net.depth - 1}, counted from 0")
    layer, row = net.layers[k], net.layers[k].activation
    rows = np.column_stack([rationals.nearest_floats(layer.weight), rationals.nearest_floats(layer.bias)])
    lengths, units = _lengths(rows)
    outgoing = _lengths(rationals.nearest_floats(net.layers[k + 1].weight).T)[0]
    amplitudes = lengths * outgoing
    folded = row.parity is not None
    live = np.flatnonzero(lengths > 0)
    inner = _nested(units[live], amplitudes[live], limits, folded, seed, unit=True)
    labels = np.full((len(limits), len(rows)), -1, dtype=np.int64)
    labels[:, live] = inner
    twins = labels if multiples(row).scale else _twins(rows, lengths, outgoing, limits, row, seed)
    if folded:
        units[live] = _turned(units[live], amplitudes[live], inner[-1])
    order = np.concatenate([live[_order(units[live], amplitudes[live], inner, folded)], np.flatnonzero(lengths == 0)])
    return Directions(
        layer=k + 1, name=layer.name, activation=row.name, folded=folded, orientations=units, amplitudes=amplitudes,
        tolerances=limits, labels=labels, twins=twins, order=order, spectrum=_spectrum(units, amplitudes),
    )  # fmt: skip


def _lengths(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lengths of rows and the rows divided by them; squares of tiny entries do not vanish."""
    top = np.abs(rows).max(axis=1, initial=0.0)
    scaled = rows / np.where(top > 0, top, 1.0)[:, None]
    inner = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    return top * inner, scaled / np.where(inner > 0, inner, 1.0)[:, None]


def _spectrum(units: FloatArray, amplitudes: FloatArray) -> FloatArray:
    total = float(amplitudes.sum())
    root = np.sqrt(amplitudes / total) if total > 0 else amplitudes
    weighted = units * root[:, None]
    small = weighted.T @ weighted if units.shape[1] <= units.shape[0] else weighted @ weighted.T
    return np.asarray(np.maximum(np.linalg.eigvalsh(small)[::-1], 0.0))


def _twins(
    rows: FloatArray, lengths: FloatArray, outgoing: FloatArray, limits: Sequence[float], row: Activation, seed: int
) -> IntArray:
    out = np.zeros((len(limits), len(rows)), dtype=np.int64)
    live = lengths > 0
    if not live.any():
        return out - 1 if row.value(Fraction(0)) == 0 else out
    scaled = rows / float(np.median(lengths[live]))
    size = lengths / float(np.median(lengths[live]))
    out[:] = _nested(scaled, outgoing, limits, row.parity is not None, seed, unit=False)
    if row.value(Fraction(0)) == 0:
        for level, limit in enumerate(limits):
            out[level, size <= limit] = -1
            live = out[level] >= 0
            out[level, live] = np.unique(out[level, live], return_inverse=True)[1].reshape(-1)
    return out


def _nested(
    points: FloatArray, weights: FloatArray, limits: Sequence[float], folded: bool, seed: int, *, unit: bool
) -> IntArray:
    """Classes at growing tolerances: the means of one level are the points of the next, so that levels are nested.

    Classes are numbered by falling weight; `unit`: means are put back on the unit sphere.
    """
    out = np.zeros((len(limits), len(points)), dtype=np.int64)
    if not len(points):
        return out
    signed = np.ones(points.shape[1]) if folded else None
    top = float(weights.max())
    masses = np.maximum(weights, _FAINT * top) if top > 0 else np.ones(len(points))
    place = np.arange(len(points))
    for level, limit in enumerate(limits):
        start = np.zeros(len(points), dtype=np.int64)
        rng = np.random.default_rng(seed)
        groups, signs = close_groups(points, limit, start, weights=masses, signed=signed, rng=rng)
        count = int(groups.max(initial=-1)) + 1
        sums = np.zeros((count, points.shape[1]))
        np.add.at(sums, groups, points * (signs * masses)[:, None])
        total = np.bincount(groups, weights=masses, minlength=count)
        heaviest = np.argsort(-total, kind="stable")
        rank = np.empty(count, dtype=np.int64)
        rank[heaviest] = np.arange(count)
        points = (_lengths(sums)[1] if unit else sums / total[:, None])[heaviest]
        masses, place = total[heaviest], rank[groups[place]]
        out[level] = place
    return out


def _turned(units: FloatArray, amplitudes: FloatArray, labels: IntArray) -> FloatArray:
    """Every direction turned to the side of the heaviest of its class, whose largest entry is positive."""
    if not len(units):
        return units
    by_weight = np.lexsort((-amplitudes, labels))
    first = by_weight[np.searchsorted(labels[by_weight], np.arange(int(labels.max()) + 1))]
    leaders = units[first]
    largest = np.take_along_axis(leaders, np.abs(leaders).argmax(axis=1)[:, None], axis=1)
    leaders = leaders * np.where(largest < 0, -1.0, 1.0)
    along = np.einsum("ij,ij->i", units, leaders[labels])
    return np.asarray(units * np.where(along < 0, -1.0, 1.0)[:, None])


def _order(units: FloatArray, amplitudes: FloatArray, labels: IntArray, folded: bool) -> IntArray:
    """Leaf order of the finest level that is small enough, heavier neurons first inside a class."""
    if len(units) < 3:
        return np.lexsort((-amplitudes, labels[0]))
    levels = [np.arange(len(units)), *labels]
    fine = next((row for row in levels if int(row.max()) < _ORDERED), None)
    if fine is None:  # as by the dendrogram of the nested classes
        return np.lexsort((-amplitudes, *labels))
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    count = int(fine.max()) + 1
    heavy = np.lexsort((-amplitudes, fine))
    first = heavy[np.searchsorted(fine[heavy], np.arange(count))]
    cosines = np.clip(units[first] @ units[first].T, -1.0, 1.0)
    chords = np.sqrt(np.maximum(2.0 - 2.0 * (np.abs(cosines) if folded else cosines), 0.0))
    if count < 3:
        return heavy
    leaves = leaves_list(linkage(squareform(chords, checks=False), "average", optimal_ordering=True))
    rank = np.empty(count, dtype=np.int64)
    rank[leaves] = np.arange(count)
    return np.lexsort((-amplitudes, rank[fine]))
