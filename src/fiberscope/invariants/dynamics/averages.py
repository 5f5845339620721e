"""The manifold of a partition on parameter vectors: where gradients live, the nearest point, and the distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.invariants.classes.projections import projectors
from fiberscope.invariants.dynamics.backprop import Chain
from fiberscope.network import Network
from fiberscope.rowclasses import Classes

Array = npt.NDArray[Any]


class Averages:
    """V_P = {W_l P_(l-1) = P_l W_l, b_l in range P_l} for vectors laid out as `Network.theta`, of any float dtype.

    Members of a class with factors 1 and -1 get the same bits.

    Args:
        net: gives widths and activations.
        partition: one `Classes` for each hidden layer.

    Raises:
        InputError: if the partition does not fit the hidden layers.

    >>> from fractions import Fraction
    >>> net = Network.from_arrays(([[1.0], [3.0]], [0, 0]), ([[2.0, 2.0]], [0]), activation="tanh")
    >>> together = Classes(np.array([0, 0]), np.array([Fraction(1)] * 2))
    >>> Averages(net, [together]).nearest(np.asarray(net.theta)).tolist()
    [2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 0.0]
    """

    def __init__(self, net: Network, partition: Sequence[Classes]) -> None:
        """Sort the neurons of every layer once."""
        self.chain = Chain(net)
        self._sides = projectors(net, partition)

    def average(self, theta: Array) -> Array:
        """P W P and P b for every layer, (M,). O(M)."""
        out = np.empty_like(theta)
        for k, (w, b, shape) in enumerate(self.chain.places):
            left, right = self._sides[k + 1][0], self._sides[k][1]
            out[w] = right.apply(left.apply(theta[w].reshape(shape)).T).T.reshape(-1)
            out[b] = left.apply(theta[b][:, None])[:, 0]
        return out

    def residual(self, theta: Array) -> Array:
        """P W Q + Q W P and Q b for every layer, (M,): what separates theta from the nearest point of V_P. O(M)."""
        out = np.empty_like(theta)
        for k, (w, b, shape) in enumerate(self.chain.places):
            left, right = self._sides[k + 1][0], self._sides[k][1]
            weight = theta[w].reshape(shape)
            rows = left.apply(weight)
            both = right.apply(rows.T).T
            out[w] = ((rows - both) + (right.apply(weight.T).T - both)).reshape(-1)
            out[b] = theta[b] - left.apply(theta[b][:, None])[:, 0]
        return out

    def nearest(self, theta: Array) -> Array:
        """The nearest point of V_P: P W P + Q W Q and P b for every layer, (M,)."""
        return np.asarray(theta - self.residual(theta))

    def distance(self, theta: Array) -> float:
        """Euclidean distance to V_P, with an error of a few rounding units of |theta|."""
        return float(np.linalg.norm(self.residual(theta)))
