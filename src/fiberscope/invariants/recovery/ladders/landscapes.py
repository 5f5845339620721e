"""Squared errors of many chains at once: values, gradients, Jacobians and exact Hessians, a run for each row.

theta is (B, M), one run in each row, laid out as `Network.theta` without the biases that are not trained. Data are
shared by all runs or one set for each; runs with fewer points than others give the spare points the weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.autodiff.jets import TrueJets
from fiberscope.errors import InputError
from fiberscope.network import Network

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_JETS = TrueJets()
_CHUNK = 4_000_000
"""Numbers in the largest temporary of a deep chain's Hessian."""


class Landscape:
    """L(theta) = sum_i c_i |f(x_i; theta) - y_i|^2 for chains f of affine maps, with derivatives, batched over runs.

    Args:
        widths: (n_0, ..., n_L).
        activation: of all hidden layers, or one for each; analytic, or piecewise linear (then s'' = 0).
        x: inputs (n, n_0) for all runs, or (B, n, n_0).
        y: targets (n,) or (n, n_L); with data of their own (B, n) or (B, n, n_L).
        weights: c, (n,) or (B, n); 1 / (n n_L) if None, which makes L the mean squared error.
        bias: whether hidden biases are trained (else they are 0).
        output_bias: whether the last bias is trained.

    Raises:
        InputError: if shapes do not fit, or numbers are not finite.

    Complexity: values O(B n M); Hessians O(B n M^2) for two layers, times the width of the widest layer for more.

    >>> field = Landscape((1, 1, 1), "tanh", [[1.0]], [0.5], bias=False, output_bias=False)
    >>> loss, slope = field.slopes(np.array([[0.0, 2.0]]))  # f = 2 tanh(0 x)
    >>> loss.tolist(), slope.tolist()
    ([0.25], [[-2.0, 0.0]])
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation | Sequence[str | Activation],
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        weights: npt.ArrayLike | None = None,
        bias: bool = True,
        output_bias: bool = False,
    ) -> None:
        """Check the data and lay out the parameters."""
        self.widths = tuple(int(n) for n in widths)
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise InputError(f"widths {self.widths}; give at least two numbers >= 1")
        self.rows = _rows(len(self.widths) - 2, activation)
        self.bias, self.output_bias = bias, output_bias
        self.x, self.y, self.c = _checked(self.widths, x, y, weights)
        self.blocks: list[tuple[slice, slice, tuple[int, int]]] = []
        at, kept = 0, []
        for k, (low, high) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            weight = slice(at, at + low * high)
            self.blocks.append((weight, slice(weight.stop, weight.stop + high), (high, low)))
            last = k == len(self.widths) - 2
            at = weight.stop + high
            kept.append(np.arange(weight.start, at if (output_bias if last else bias) else weight.stop))
        self.whole = at
        self.kept: IntArray = np.concatenate(kept)
        self.size = len(self.kept)
        self.ones, self._products = _with_one(self.x)
        self._places = _places(self.widths)

    # ---- layout

    @property
    def points(self) -> int:
        """Number n of data points, spare ones included."""
        return int(self.x.shape[1])

    def full(self, theta: FloatArray) -> FloatArray:
        """(B, M) with zeros for the biases that are not trained: the layout of `Network.theta`."""
        if self.size == self.whole:
            return theta
        out = np.zeros((len(theta), self.whole))
        out[:, self.kept] = theta
        return out

    def network(self, theta: npt.ArrayLike) -> Network:
        """The network at one parameter vector (M,)."""
        vector = self.full(np.asarray(theta, np.float64).reshape(1, -1))[0]
        pairs = [(vector[w].reshape(shape), vector[b]) for w, b, shape in self.blocks]
        return Network.from_arrays(*pairs, activation=list(self.rows))

    def take(self, runs: npt.ArrayLike) -> Landscape:
        """The landscape of some of the runs, by indices or a mask; itself where data are shared."""
        if len(self.x) == len(self.y) == len(self.c) == 1:
            return self
        out = object.__new__(type(self))
        out.__dict__.update(self.__dict__)
        for name in ("x", "y", "c", "ones", "_products"):
            value = getattr(self, name)
            setattr(out, name, value if len(value) == 1 else value[runs])
        return out

    def normal(self, seeds: Sequence[int], std: float) -> FloatArray:
        """Gaussian starts of standard deviation std, one for each seed: (len(seeds), M)."""
        return np.stack([std * np.random.default_rng(seed).standard_normal(self.size) for seed in seeds])

    # ---- values

    def _split(self, theta: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        whole = self.full(theta)
        return [(whole[:, w].reshape(-1, *shape), whole[:, None, b]) for w, b, shape in self.blocks]

    def outputs(self, theta: FloatArray, x: npt.ArrayLike | None = None) -> FloatArray:
        """f(x; theta), (B, n, n_L), at the data or at other inputs (n, n_0) or (B, n, n_0)."""
        h = self.x if x is None else _stacked(np.asarray(x, np.float64))
        for k, (weight, shift) in enumerate(self._split(theta)):
            h = h @ weight.swapaxes(1, 2) + shift
            if k < len(self.rows):
                h = self.rows[k](h)
        return h

    def loss(self, theta: FloatArray) -> FloatArray:
        """L, (B,)."""
        return np.asarray((self.c * (self.outputs(theta) - self.y) ** 2).sum(axis=(1, 2)))

    def slopes(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """L (B,) and its gradient (B, M)."""
        layers = self._split(theta)
        inputs, rates, residual = self._forward(layers)
        loss = (self.c * residual**2).sum(axis=(1, 2))
        cotangent = 2 * self.c * residual
        out = np.empty((len(theta), self.whole))
        for k in range(len(layers) - 1, -1, -1):
            if k < len(self.rows):
                cotangent = cotangent * rates[k]
            weight, shift, shape = self.blocks[k]
            out[:, weight] = (cotangent.swapaxes(1, 2) @ inputs[k]).reshape(len(theta), shape[0] * shape[1])
            out[:, shift] = cotangent.sum(axis=1)
            if k:
                cotangent = cotangent @ layers[k][0]
        return loss, self._trained(out)

    def _forward(
        self, layers: list[tuple[FloatArray, FloatArray]], order: int = 1
    ) -> tuple[list[FloatArray], list[Any], FloatArray]:
        """Inputs of every layer, derivatives of every activation (a list of them for order 2), and residuals."""
        inputs, rates = [self.x], []
        for (weight, shift), row in zip(layers, self.rows, strict=False):
            value, *slopes = _JETS(row, inputs[-1] @ weight.swapaxes(1, 2) + shift, order)
            inputs.append(value)
            rates.append(slopes[0] if order == 1 else slopes)
        weight, shift = layers[-1]
        return inputs, rates, inputs[-1] @ weight.swapaxes(1, 2) + shift - self.y

    def _trained(self, out: FloatArray) -> FloatArray:
        return out if self.size == self.whole else out[:, self.kept]

    # ---- Jacobians and Hessians

    def jacobian(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Residuals times sqrt(c), (B, n n_L), whose squared norm is L, and their derivatives (B, n n_L, M)."""
        layers = self._split(theta)
        inputs, rates, residual = self._forward(layers)
        out = self._sensitivities(layers, inputs, rates)[-1]
        root = np.sqrt(self.c)
        count = len(theta), residual.shape[1] * residual.shape[2]
        return (root * residual).reshape(count), (root[..., None] * out).reshape(*count, -1)[:, :, self.kept]

    def _sensitivities(
        self, layers: list[tuple[FloatArray, FloatArray]], inputs: list[FloatArray], rates: list[FloatArray]
    ) -> list[FloatArray]:
        """Derivatives dz_l / dtheta for every layer's pre-activations, each (B, n, n_l, whole)."""
        runs, out = len(layers[0][0]), list[FloatArray]()
        for k, (weight, _) in enumerate(layers):
            columns, shift, (high, low) = self.blocks[k]
            t = np.zeros((runs, self.points, high, self.whole))
            if k:
                below = rates[k - 1][..., None] * out[-1][..., : columns.start]
                flat = below.reshape(runs, self.points, low, -1)
                t[..., : columns.start] = weight[:, None] @ flat
            own = t[..., columns].reshape(runs, self.points, high, high, low)
            for j in range(high):
                own[:, :, j, j] = inputs[k]
            t[..., columns] = own.reshape(runs, self.points, high, high * low)
            t[..., shift] = np.eye(high)
            out.append(t)
        return out

    def curvature(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """L (B,), its gradient (B, M) and its exact Hessian (B, M, M)."""
        if len(self.widths) == 3:
            return self._two_layers(theta)
        largest = self.points * max(self.widths[1:]) * self.whole
        step = max(1, _CHUNK // largest)
        parts = [
            self.take(np.arange(i, min(i + step, len(theta))))._deep(theta[i : i + step])
            for i in range(0, len(theta), step)
        ]
        loss, slope, hessian = (np.concatenate(part) for part in zip(*parts, strict=True))
        return loss, slope, hessian

    def _two_layers(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Gauss-Newton part plus s'' blocks of single neurons and s' blocks between a neuron and its outputs."""
        runs, (d, m, q), n = len(theta), self.widths, self.points
        layers = self._split(theta)
        inputs, rates, residual = self._forward(layers, 2)
        (first, second), outer = rates[0], layers[1][0]
        cotangent = 2 * self.c * residual
        jac = np.zeros((runs, n, q, self.whole))
        back = outer[:, None] * first[:, :, None]
        jac[..., : m * d] = (back[..., None] * self.x[:, :, None, None]).reshape(runs, n, q, m * d)
        jac[..., m * d : m * d + m] = back
        for o in range(q):
            jac[:, :, o, m * d + m + o * m : m * d + m + (o + 1) * m] = inputs[1]
            jac[:, :, o, m * d + m + q * m + o] = 1.0
        flat = jac.reshape(runs, n * q, self.whole)
        slope = (cotangent.reshape(runs, 1, n * q) @ flat)[:, 0]
        hessian = flat.swapaxes(1, 2) @ (2 * np.broadcast_to(self.c, residual.shape).reshape(runs, n * q, 1) * flat)
        own, cross = self._places
        bend = ((cotangent @ outer) * second).swapaxes(1, 2) @ self._products
        hessian[:, own[0], own[1]] += bend.reshape(runs, -1)
        lean = (cotangent[..., None] * first[:, :, None]).reshape(runs, n, q * m).swapaxes(1, 2) @ self.ones
        hessian[:, cross[0], cross[1]] += lean.reshape(runs, -1)
        hessian[:, cross[1], cross[0]] += lean.reshape(runs, -1)
        loss = (self.c * residual**2).sum(axis=(1, 2))
        if self.size < self.whole:
            slope, hessian = slope[:, self.kept], hessian[:, self.kept[:, None], self.kept]
        return loss, slope, hessian

    def _deep(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """With T_l = dz_l/dtheta: Gauss-Newton + sum_l T_l^T (dL/dh_l s'') T_l + terms linear in one weight."""
        runs, n = len(theta), self.points
        layers = self._split(theta)
        inputs, rates, residual = self._forward(layers, 2)
        reach = self._sensitivities(layers, inputs, [first for first, _ in rates])
        cotangent = 2 * self.c * residual
        last = reach[-1].reshape(runs, -1, self.whole)
        slope = (cotangent.reshape(runs, 1, -1) @ last)[:, 0]
        hessian = last.swapaxes(1, 2) @ (2 * np.broadcast_to(self.c, residual.shape).reshape(runs, -1, 1) * last)
        for k in range(len(layers) - 1, 0, -1):
            columns, _, (high, low) = self.blocks[k]
            first, second = rates[k - 1]
            # entry (j, i) of W_k meets h_(k-1),i: sum over points of beta_j dh_i / dtheta
            moved = (first[..., None] * reach[k - 1]).reshape(runs, n, low * self.whole)
            lean = (cotangent.swapaxes(1, 2) @ moved).reshape(runs, high * low, self.whole)
            hessian[:, columns] += lean
            hessian[:, :, columns] += lean.swapaxes(1, 2)
            below = cotangent @ layers[k][0]
            bend = (below * second).reshape(runs, n * low, 1)
            t = reach[k - 1].reshape(runs, n * low, self.whole)
            hessian += t.swapaxes(1, 2) @ (bend * t)
            cotangent = below * first
        loss = (self.c * residual**2).sum(axis=(1, 2))
        if self.size < self.whole:
            slope, hessian = slope[:, self.kept], hessian[:, self.kept[:, None], self.kept]
        return loss, slope, hessian


def _rows(hidden: int, activation: Any) -> tuple[Activation, ...]:
    given = list(activation) if isinstance(activation, list | tuple) else [activation] * hidden
    if len(given) != hidden:
        raise InputError(f"{len(given)} activations for {hidden} hidden layers; give one, or one for each")
    return tuple(find_activation(row) for row in given)


def _stacked(values: FloatArray) -> FloatArray:
    return values if values.ndim == 3 else values[None]


def _checked(
    widths: tuple[int, ...], x: npt.ArrayLike, y: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Arrays x (b, n, n_0), y (b, n, n_L) and c (b, n, 1), each with b = 1 or the number of runs."""
    inputs, targets = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if inputs.ndim == targets.ndim + 1 and widths[-1] == 1:
        targets = targets[..., None]
    if inputs.ndim not in (2, 3) or inputs.shape[-1] != widths[0]:
        raise InputError(f"inputs of shape {inputs.shape}; expected (n, {widths[0]}) or (runs, n, {widths[0]})")
    if targets.shape != (*inputs.shape[:-1], widths[-1]) or not inputs.shape[-2]:
        raise InputError(f"inputs {inputs.shape} and targets {targets.shape} for {widths[-1]} outputs do not fit")
    n = inputs.shape[-2]
    c = np.full(n, 1.0 / (n * widths[-1])) if weights is None else np.asarray(weights, np.float64)
    if c.shape not in ((n,), inputs.shape[:-1]) or (c < 0).any():
        raise InputError(f"weights of shape {c.shape} for {n} points; give one number >= 0 for each point")
    if not all(np.isfinite(a).all() for a in (inputs, targets, c)):
        raise InputError("inputs, targets and weights must be finite numbers")
    return _stacked(inputs), _stacked(targets), c[None, :, None] if c.ndim == 1 else c[:, :, None]


def _with_one(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rows u = (x, 1) and their products u u^T in one row each."""
    u = np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=2)
    return u, (u[..., :, None] * u[..., None, :]).reshape(*x.shape[:2], u.shape[2] ** 2)


def _places(widths: tuple[int, ...]) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
    """Places in the Hessian of two layers: of one neuron's weights among each other, and with its outgoing weights."""
    d, m, q = widths if len(widths) == 3 else (0, 0, 0)
    place = np.concatenate([np.arange(m * d).reshape(m, d), m * d + np.arange(m)[:, None]], axis=1)
    left, right = np.broadcast_arrays(place[:, :, None], place[:, None, :])
    after = m * d + m + np.arange(q * m).reshape(q, m, 1)
    above, below = np.broadcast_arrays(place[None], after)
    return (left.reshape(-1), right.reshape(-1)), (above.reshape(-1), below.reshape(-1))
