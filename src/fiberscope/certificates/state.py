"""The exact network while a certificate is replayed, with enclosures that follow its neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.certificates.enclosures import Affine, Pair, Slopes, Snapshot
from fiberscope.certificates.matrices import Matrix, zeros
from fiberscope.domains import Box
from fiberscope.errors import CertificateError
from fiberscope.network import Network

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass
class _Track:
    """Enclosures of one layer that follow its neurons: `origin[i]` is the neuron's place in the snapshot, or -1.

    Neurons of origin -1 were made or changed since; `low` and `high` then hold their own ends.
    """

    origin: IntArray
    low: FloatArray
    high: FloatArray


@dataclass
class State:
    """The network while replaying.

    Args:
        layers: exact weights; replaced, never changed in place.
        low, high: the domain.
        approximations: (before, after) of every approximate move that changed a weight.
        used_enclosures: whether a move rested on an enclosure.
        head: output head of the network.
        rearranging: whether this is a side of an equality, on the way to a normal form.
        hollow: whether a layer may lose all its neurons.
        skip: (n_out, n) linear part past the last hidden layer, None for zero.
    """

    layers: list[Affine]
    low: FloatArray
    high: FloatArray
    approximations: list[tuple[list[Affine], list[Affine]]] = field(default_factory=list)
    used_enclosures: bool = False
    head: str | None = None
    rearranging: bool = False
    hollow: bool = False
    skip: Matrix | None = None
    _snapshot: Snapshot | None = None
    _tracks: list[_Track] = field(default_factory=list)

    @classmethod
    def of(cls, net: Network, box: Box, *, rearranging: bool = False) -> State:
        """The state before the first move."""
        return cls(affine_layers(net), box.lower, box.upper, head=net.head, rearranging=rearranging)

    def width(self, layer: int) -> int:
        """Number of neurons of a layer."""
        return self.layers[layer].weight.shape[0]

    def require_hidden(self, count: int) -> None:
        """Refuse a move that needs so many hidden layers.

        Raises:
            CertificateError: if there are fewer.
        """
        if len(self.layers) < count + 1:
            raise CertificateError(f"there are {len(self.layers) - 1} hidden layers; the move needs {count}")

    # ---- enclosures

    def take_snapshot(self, method: str, slopes: Slopes) -> None:
        """From now on use enclosures of the present network; they are computed when a move needs them."""
        self._snapshot = Snapshot(list(self.layers), self.low, self.high, method, slopes)
        self._tracks = [_fresh_track(self.width(k)) for k in range(len(self.layers))]

    def forget(self) -> None:
        """Drop all enclosures."""
        self._snapshot, self._tracks = None, []

    def preactivation(self, layer: int) -> Pair:
        """Enclosure of the present pre-activations of a layer; all of R without a `bound` move."""
        self.used_enclosures = True
        if self._snapshot is None:
            return np.full(self.width(layer), -np.inf), np.full(self.width(layer), np.inf)
        track = self._tracks[layer]
        low, high = track.low.copy(), track.high.copy()
        old = track.origin >= 0
        if old.any():
            ends = self._snapshot.layer(layer)
            low[old], high[old] = ends[0][track.origin[old]], ends[1][track.origin[old]]
        return low, high

    def input_of(self, layer: int) -> Pair:
        """Enclosure of what a layer takes."""
        if layer == 0:
            return self.low, self.high
        return self.layers[layer - 1].activation.enclose(*self.preactivation(layer - 1))

    # ---- changes

    def keep(self, layer: int, stay: IntArray) -> None:
        """Keep these neurons of a hidden layer, with their rows and outgoing columns."""
        here = self.layers[layer]
        self.layers[layer] = replace(here, weight=here.weight.take_rows(stay), bias=here.bias.take_rows(stay))
        self.map_columns(layer, lambda columns: columns.take_columns(stay))
        if self._tracks:
            track = self._tracks[layer]
            self._tracks[layer] = _Track(track.origin[stay], track.low[stay], track.high[stay])

    def remove(self, layer: int, neurons: Sequence[int]) -> None:
        """Drop these neurons of a hidden layer."""
        stay = np.ones(self.width(layer), dtype=bool)
        stay[list(neurons)] = False
        self.keep(layer, np.flatnonzero(stay))

    def append(self, layer: int, rows: Matrix, biases: Matrix, columns: Matrix, ends: Pair) -> None:
        """Add neurons at the end of a hidden layer, with known enclosures."""
        here, next_ = self.layers[layer], self.layers[layer + 1]
        self.layers[layer] = replace(here, weight=here.weight.below(rows), bias=here.bias.below(biases))
        self.layers[layer + 1] = replace(next_, weight=next_.weight.beside(columns))
        if self._tracks:
            track = self._tracks[layer]
            self._tracks[layer] = _Track(
                np.concatenate([track.origin, np.full(len(ends[0]), -1)]),
                np.concatenate([track.low, ends[0]]),
                np.concatenate([track.high, ends[1]]),
            )

    def silence(self, layer: int, neurons: Sequence[int]) -> None:
        """Set rows and biases to zero: the pre-activation is exactly 0."""
        self.set_rows(layer, neurons, zeros(len(neurons), self.layers[layer].weight.shape[1]), zeros(len(neurons), 1))
        if self._tracks:
            track = self._tracks[layer]
            origin, low, high = track.origin.copy(), track.low.copy(), track.high.copy()
            origin[neurons], low[neurons], high[neurons] = -1, 0.0, 0.0
            self._tracks[layer] = _Track(origin, low, high)

    def set_rows(self, layer: int, neurons: Sequence[int], rows: Matrix, biases: Matrix) -> None:
        """Replace rows and biases."""
        here = self.layers[layer]
        self.layers[layer] = replace(
            here, weight=here.weight.with_rows(neurons, rows), bias=here.bias.with_rows(neurons, biases)
        )

    def _skipped(self, layer: int) -> bool:
        """Whether the linear part reads a hidden layer."""
        return self.skip is not None and layer == len(self.layers) - 3

    def columns(self, layer: int) -> Matrix:
        """Everything that leaves the neurons of a hidden layer: the next weights, below them the linear part."""
        above = self.layers[layer + 1].weight
        return above.below(self.skip) if self.skip is not None and self._skipped(layer) else above

    def map_columns(self, layer: int, change: Callable[[Matrix], Matrix]) -> None:
        """Change what leaves the neurons of a hidden layer, column by column."""
        next_ = self.layers[layer + 1]
        self.layers[layer + 1] = replace(next_, weight=change(next_.weight))
        if self.skip is not None and self._skipped(layer):
            self.skip = change(self.skip)

    def set_columns(self, layer: int, neurons: Sequence[int], columns: Matrix) -> None:
        """Replace what leaves neurons of a hidden layer, in the order of `columns`."""
        next_ = self.layers[layer + 1]
        size = next_.weight.shape[0]
        part = columns.take_rows(range(size))
        self.layers[layer + 1] = replace(next_, weight=next_.weight.with_columns(neurons, part))
        if self.skip is not None and self._skipped(layer):
            part = columns.take_rows(range(size, columns.shape[0]))
            self.skip = self.skip.with_columns(neurons, part)

    def shift(self, layer: int, by: ExactArray) -> None:
        """Add to the biases that a constant neuron of a hidden layer reaches, in the order of `columns`."""
        self.add_bias(layer + 1, by[: len(self.layers[layer + 1].shift)])
        if self._skipped(layer):
            self.add_bias(len(self.layers) - 1, by[len(self.layers[layer + 1].shift) :])

    def add_bias(self, layer: int, by: ExactArray) -> None:
        """Add to the biases of a layer."""
        here = self.layers[layer]
        self.layers[layer] = replace(here, bias=Matrix.of(rationals.add(here.bias.exact()[:, 0], by)))


def affine_layers(net: Network) -> list[Affine]:
    """The exact layers of a network."""
    return [Affine(Matrix.of(row.weight), Matrix.of(row.bias), row.activation) for row in net.layers]


def _fresh_track(width: int) -> _Track:
    return _Track(np.arange(width), np.zeros(width), np.zeros(width))
