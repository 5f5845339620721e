"""Losses and their gradients on a batch, for chains of affine maps: plain NumPy, one pass forward and one backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_choice, as_floats, plain, require_finite
from fiberscope.errors import InputError
from fiberscope.invariants.arguments import as_pair
from fiberscope.network import Network

Array = npt.NDArray[Any]
Loss = Literal["mse", "cross_entropy"]


class Chain:
    """The map (theta, x) -> outputs of a network with its parameters as one float vector, laid out as `Network.theta`.

    Args:
        net: gives widths and activations; its parameters are not kept.

    >>> chain = Chain(Network.from_arrays(([[2.0]], [1.0]), activation="tanh"))
    >>> chain.outputs(np.array([2.0, 1.0]), np.array([[3.0]])).tolist()
    [[7.0]]
    """

    def __init__(self, net: Network) -> None:
        """Lay out the parameters."""
        self.rows = tuple(layer.activation for layer in net.layers)
        self.widths = net.widths
        self.places: list[tuple[slice, slice, tuple[int, int]]] = []
        at = 0
        for n_in, n_out in zip(self.widths, self.widths[1:], strict=False):
            weight = slice(at, at + n_in * n_out)
            self.places.append((weight, slice(weight.stop, weight.stop + n_out), (n_out, n_in)))
            at = weight.stop + n_out
        self.size = at

    def split(self, theta: Array) -> list[tuple[Array, Array]]:
        """Views (W, b) into the vector, for each layer."""
        return [(theta[w].reshape(shape), theta[b]) for w, b, shape in self.places]

    def outputs(self, theta: Array, x: Array) -> Array:
        """Logits (N, n_L) for inputs (N, n_0), in the dtype of theta."""
        h = x.astype(theta.dtype, copy=False)
        for (weight, bias), row in zip(self.split(theta), self.rows, strict=True):
            h = row(h @ weight.T + bias)
        return h

    def gradient(self, theta: Array, data: Batch) -> tuple[float, Array]:
        """Value and gradient (M,) of the loss at theta, in its dtype. O(N M).

        At a kink of an activation the derivative on the left is used, as in `Activation.derivative`.
        """
        layers = self.split(theta)
        before, inputs = [], [data.x.astype(theta.dtype, copy=False)]
        for (weight, bias), row in zip(layers, self.rows, strict=True):
            before.append(inputs[-1] @ weight.T + bias)
            inputs.append(row(before[-1]))
        value, cotangent = data.loss_and_slope(inputs[-1])
        out = np.empty_like(theta)
        for (weight, _), (w, b, shape), row, z, h in zip(
            reversed(layers), reversed(self.places), reversed(self.rows), reversed(before), reversed(inputs[:-1]),
            strict=True,
        ):  # fmt: skip
            delta = cotangent * row.derivative(z)
            out[w] = (delta.T @ h).reshape(shape[0] * shape[1])
            out[b] = delta.sum(axis=0)
            cotangent = delta @ weight
        return value, out


@dataclass(frozen=True, eq=False)
class Batch:
    """Data with a loss: "mse", the mean of (f - y)^2 over all entries, or "cross_entropy" of softmax, mean over points.

    Args:
        x: inputs (N, n_0).
        y: targets (N, n_L); for cross-entropy class probabilities, or labels (N,).
        loss: which loss.

    >>> Batch(np.zeros((1, 1)), np.zeros((1, 2))).loss_and_slope(np.array([[1.0, 3.0]]))
    (5.0, array([[1., 3.]]))
    """

    x: Array
    y: Array
    loss: Loss = "mse"

    def __post_init__(self) -> None:
        """Refuse data that do not fit together."""
        as_choice(self.loss, "loss", ("mse", "cross_entropy"))
        for name, what in (("x", "inputs"), ("y", "targets")):
            given = np.asarray(plain(getattr(self, name)))
            whole = name == "y" and given.dtype.kind in "iu"  # labels stay what they are
            values = given if whole else as_floats(given, what, None)
            require_finite(values, what)
            object.__setattr__(self, name, values)
        if self.x.ndim != 2 or len(self.x) != len(self.y) or not len(self.x):
            raise InputError(f"inputs {self.x.shape} and targets {self.y.shape}; give (N, n_in) and N targets")

    @classmethod
    def of(cls, data: Any, net: Network) -> Batch:
        """A batch that fits a network, from one or from a pair (x, y) with the loss "mse".

        Raises:
            InputError: if it is neither, or has another number of inputs.
        """
        batch = data if isinstance(data, cls) else cls(*as_pair(data))
        if batch.x.shape[1] != net.widths[0]:
            raise InputError(f"inputs {batch.x.shape}; the network takes {net.widths[0]}, give (N, {net.widths[0]})")
        return batch

    def loss_and_slope(self, f: Array) -> tuple[float, Array]:
        """Loss of logits (N, n_L) and its derivative by them, same shape."""
        y = self._targets(f)
        if self.loss == "mse":
            residual = f - y
            return float(np.mean(residual**2)), residual * (2.0 / f.size)
        shifted = f - f.max(axis=1, keepdims=True)
        total = np.exp(shifted).sum(axis=1, keepdims=True)
        value = -(y * (shifted - np.log(total))).sum() / len(f)
        return float(value), (np.exp(shifted) / total * y.sum(axis=1, keepdims=True) - y) / len(f)

    def _targets(self, f: Array) -> Array:
        if self.loss == "cross_entropy" and self.y.ndim == 1:
            if self.y.dtype.kind not in "iu" or self.y.min() < 0 or self.y.max() >= f.shape[1]:
                raise InputError(f"labels must be integers from 0 to {f.shape[1] - 1}")
            return np.eye(f.shape[1], dtype=f.dtype)[self.y]
        if self.y.shape != f.shape:
            raise InputError(f"targets have shape {self.y.shape}; the network's outputs {f.shape}")
        return self.y.astype(f.dtype, copy=False)
