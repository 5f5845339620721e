"""The exact network while a certificate is replayed, with enclosures that follow its neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.certificates.enclosures import Affine, Pair, Slopes, Snapshot
from fiberscope.certificates.matrices import Matrix, zeros
from fiberscope.domains import Box
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
    """

    layers: list[Affine]
    low: FloatArray
    high: FloatArray
    approximations: list[tuple[list[Affine], list[Affine]]] = field(default_factory=list)
    used_enclosures: bool = False
    _snapshot: Snapshot | None = None
    _tracks: list[_Track] = field(default_factory=list)

    @classmethod
    def of(cls, net: Network, box: Box) -> State:
        """The state before the first move."""
        return cls(affine_layers(net), box.lower, box.upper)

    def width(self, layer: int) -> int:
        """Number of neurons of a layer."""
        return self.layers[layer].weight.shape[0]

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
        here, next_ = self.layers[layer], self.layers[layer + 1]
        self.layers[layer] = replace(here, weight=here.weight.take_rows(stay), bias=here.bias.take_rows(stay))
        self.layers[layer + 1] = replace(next_, weight=next_.weight.take_columns(stay))
        if self._tracks:
            track = self._tracks[layer]
            self._tracks[layer] = _Track(track.origin[stay], track.low[stay], track.high[stay])

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

    def set_columns(self, layer: int, neurons: Sequence[int], columns: Matrix) -> None:
        """Replace the outgoing columns of neurons of a hidden layer."""
        next_ = self.layers[layer + 1]
        self.layers[layer + 1] = replace(next_, weight=next_.weight.with_columns(neurons, columns))

    def shift(self, layer: int, by: ExactArray) -> None:
        """Add to the bias of the layer after a hidden layer."""
        next_ = self.layers[layer + 1]
        total = rationals.add(next_.bias.exact()[:, 0], by)
        self.layers[layer + 1] = replace(next_, bias=Matrix.of(total))


def affine_layers(net: Network) -> list[Affine]:
    """The exact layers of a network."""
    return [Affine(Matrix.of(row.weight), Matrix.of(row.bias), row.activation) for row in net.layers]


def _fresh_track(width: int) -> _Track:
    return _Track(np.arange(width), np.zeros(width), np.zeros(width))
