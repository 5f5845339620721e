"""Parameter derivatives of networks at inputs, in floats or over Q, and ranks of them in floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.objects import ExactJets, Objects
from fiberscope.autodiff.rings import Floats
from fiberscope.invariants.orbits.spans import span_of
from fiberscope.models.chains import chain_family
from fiberscope.network import Network

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_FLOOR = 1e-8
"""Relative singular values above it are never dropped; the widest gap below decides."""
_DENSE = 1200
"""Singular values up to so many rows or columns, a QR factorisation beyond."""


def last_activation(net: Network) -> Activation | None:
    """The activation after the last layer, None for the identity."""
    row = net.layers[-1].activation
    return None if row.name == "identity" else row


def network_rows(net: Network, points: Array, *, exact: bool = False) -> Array:
    """D f_o(x) / d theta for every point and output, (n p, M): float64, or over Q for polynomial networks."""
    p = net.widths[-1]
    family = chain_family(net.widths, [layer.activation for layer in net.hidden], output=last_activation(net))
    ring = Objects() if exact else Floats()
    turn = np.tile(np.eye(p), (len(points), 1))[:, None, :]
    data = ring.array(turn), ring.array(np.repeat(points, p, axis=0)[:, None, :])
    if exact:
        theta = Nilpotent(ring, {0: ring.array(net.theta).reshape(1, -1)})
        return np.asarray(family.fields(theta, data, ExactJets()).real)
    return NumpyFamily(family, rationals.nearest_floats(net.theta)).fields(rationals.nearest_floats(net.theta), data)


def trained_columns(net: Network, bias: bool, output_bias: bool) -> Array:
    """Places in `Network.theta` of what is trained."""
    keep = []
    for k, layer in enumerate(net.layers):
        keep += [True] * layer.weight.size
        keep += [output_bias if k == net.depth - 1 else bias] * layer.bias.size
    return np.flatnonzero(keep)


def kept_columns(net: Network, rows: Array, bias: bool, output_bias: bool) -> Array:
    """The columns of what is trained."""
    return rows if bias and output_bias else rows[:, trained_columns(net, bias, output_bias)]


def widest_gap(rows: FloatArray) -> tuple[int, tuple[float, float]]:
    """Rank by the widest gap below 1e-8 of the largest singular value, rows and columns scaled to length 1."""
    size = np.sqrt(np.einsum("ij,ij->j", rows, rows))
    values = rows[:, size > 1e-150] / size[size > 1e-150]
    if not values.size:
        return 0, (0.0, 0.0)
    if min(values.shape) > _DENSE:
        span = span_of(values, basis=False)
        return span.rank, (span.kept, span.dropped)
    length = np.sqrt(np.einsum("ij,ij->i", values, values))
    spectrum = np.linalg.svd(values[length > 0] / length[length > 0][:, None], compute_uv=False)
    relative = spectrum / spectrum[0]
    padded = np.append(np.maximum(relative, 1e-17), 1e-17)
    drops = np.where(padded[1:] < _FLOOR, padded[:-1] / padded[1:], 0.0)
    rank = int(np.argmax(drops)) + 1
    return rank, (float(relative[rank - 1]), float(relative[rank]) if rank < relative.size else 0.0)
