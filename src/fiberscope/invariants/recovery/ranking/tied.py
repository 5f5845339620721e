"""Two-layer networks whose incoming weights are tied, products of matrices, and products of coordinates, exactly.

A convolution is a two-layer network in which the windows of an image read the same kernel; with a kernel of its own for
each window it is one with fewer connections. Weights are exact arrays (see `rationals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import InputError, ScopeError
from fiberscope.network import Network

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TiedNetwork:
    """f(x) = sum_n outer_n s(rows_n . (x, 1)), with entries of `rows` tied to each other or held fixed.

    Args:
        rows: (N, d + 1) exact incoming weights and, last, the bias of each neuron.
        index: (N, d + 1) number of the trained parameter that each entry is, -1 for entries that are not trained.
        outer: (p, N) exact outgoing weights, all trained and untied.
        activation: s.
        output_bias: whether p output biases are trained too.
        name: of the architecture.
        kernels: (channels, *kernel) where all windows share a kernel, else None.
    """

    rows: ExactArray
    index: IntArray
    outer: ExactArray
    activation: Activation
    output_bias: bool = False
    name: str = "tied"
    kernels: ExactArray | None = None

    def __post_init__(self) -> None:
        """Check that the arrays fit, and that tied entries are equal."""
        if self.rows.shape != self.index.shape or self.outer.shape[1:] != self.rows.shape[:1]:
            raise InputError(
                f"rows {self.rows.shape}, index {self.index.shape}, outer {self.outer.shape}; expected (N, d + 1) "
                "twice and (p, N)"
            )
        there = self.index >= 0
        tied, flat = self.index[there], self.rows[there]
        _, first, group = np.unique(tied, return_index=True, return_inverse=True)
        differ = np.flatnonzero(flat != flat[first][group.reshape(-1)]) if tied.size else tied
        if differ.size:
            raise InputError(f"entries tied as parameter {tied[differ[0]]} differ; tied entries are equal")

    @classmethod
    def dense(
        cls, weight: npt.ArrayLike, bias: npt.ArrayLike | None, outer: npt.ArrayLike,
        activation: str | Activation = "tanh", *, output_bias: bool = False, fixed_bias: bool = False,
    ) -> TiedNetwork:  # fmt: skip
        """A fully connected two-layer network; without `bias` there are none, with `fixed_bias` they are not trained.

        Args:
            weight: (N, d).
            bias: (N,) or None.
            outer: (p, N) or (N,).
            activation: s.
            output_bias: whether output biases are trained.
            fixed_bias: whether hidden biases stay as they are.

        >>> TiedNetwork.dense([[1, 2], [3, 4]], None, [1, 1]).parameters
        6
        """
        w = rationals.exact_array(weight)
        if w.ndim != 2:
            raise InputError(f"weights of shape {w.shape}; expected (N, d)")
        b = rationals.exact_array(np.zeros(len(w)) if bias is None else bias)
        a = np.atleast_2d(rationals.exact_array(outer))
        index = np.arange(w.size + len(w), dtype=np.int64).reshape(len(w), -1)
        if bias is None or fixed_bias:
            index = np.concatenate([np.arange(w.size).reshape(w.shape), np.full((len(w), 1), -1)], axis=1)
        return cls(_beside(w, b), index, a, find_activation(activation), output_bias, "fc")

    @classmethod
    def convolution(
        cls, kernels: npt.ArrayLike, outer: npt.ArrayLike, image: Sequence[int] | int, *,
        bias: npt.ArrayLike | None = None, shared: bool = True, activation: str | Activation = "tanh",
        output_bias: bool = False,
    ) -> TiedNetwork:  # fmt: skip
        """All windows of an image in one or more dimensions, read by every kernel, with an outgoing weight for each.

        Args:
            kernels: (channels, *kernel); without sharing also (channels, *positions, *kernel).
            outer: (channels, *positions) or (p, channels, *positions).
            image: shape of the input, one number for one dimension.
            bias: (channels,); without sharing also (channels, *positions). None: no biases.
            shared: whether all windows of a channel read one kernel.
            activation: s.
            output_bias: whether output biases are trained.

        Raises:
            InputError: if shapes do not fit.

        >>> net = TiedNetwork.convolution([[1, 2, 3]], [[1, 1, 1]], 5)
        >>> net.parameters, net.rows.shape
        (6, (3, 6))
        """
        size = (image,) if isinstance(image, int) else tuple(image)
        k = rationals.exact_array(kernels)
        side = k.shape[-len(size) :]
        places = tuple(n - s + 1 for n, s in zip(size, side, strict=True))
        if k.ndim not in (1 + len(size), 1 + 2 * len(size)) or min(places) < 1:
            raise InputError(f"kernels of shape {k.shape} on images {size}; expected (channels, *kernel) that fit")
        own = k.ndim == 1 + 2 * len(size)
        channels, windows = len(k), int(np.prod(places))
        if own and (shared or k.shape[1 : -len(size)] != places):
            raise InputError(f"kernels of shape {k.shape}; with sharing one kernel for each channel is expected")
        flat = k.reshape(channels, windows if own else 1, -1)
        shift = None if bias is None else rationals.exact_array(bias).reshape(channels, -1)
        if shift is not None and shift.shape[1] not in ((1,) if shared else (1, windows)):
            raise InputError(f"biases for {shift.shape[1]} windows of each channel; expected 1")
        a = rationals.exact_array(outer)
        if a.size % (channels * windows):
            raise InputError(f"outgoing weights of shape {a.shape}; expected ({channels}, {places})")
        grid = np.arange(int(np.prod(size))).reshape(size)
        seen = [
            grid[tuple(slice(p, p + s) for p, s in zip(at, side, strict=True))].reshape(-1)
            for at in product(*(range(n) for n in places))
        ]
        wide = any(rationals.is_rational(v) for v in (flat, shift) if v is not None)
        rows = np.zeros((channels * windows, grid.size + 1))
        if wide:
            rows = rationals.fractions(rows)
        index = np.full(rows.shape, -1, dtype=np.int64)
        width, step = flat.shape[2], flat.shape[2] + (shift is not None)
        for c, w in product(range(channels), range(windows)):
            n, start = c * windows + w, (c if shared else c * windows + w) * step
            rows[n, seen[w]] = flat[c, w if own else 0]
            index[n, seen[w]] = start + np.arange(width)
            if shift is not None:
                rows[n, -1] = shift[c, w if shift.shape[1] > 1 else 0]
                index[n, -1] = start + width
        name = f"{len(size)}-D cnn" + ("" if shared else " without sharing")
        return cls(rows, index, a.reshape(-1, channels * windows), find_activation(activation), output_bias, name,
                   k if shared else None)  # fmt: skip

    @classmethod
    def of(cls, net: Network, *, bias: bool = True, output_bias: bool = True) -> TiedNetwork:
        """A two-layer `Network`; with `bias` or `output_bias` False those are held fixed.

        Raises:
            ScopeError: if it has another depth or an activation after the last layer.
        """
        if net.depth != 2 or net.layers[1].activation.name != "identity":
            raise ScopeError(f"{net.architecture}; expected two layers without an activation after the last")
        low, high = net.layers
        return cls.dense(low.weight, low.bias, high.weight, low.activation, output_bias=output_bias,
                         fixed_bias=not bias)  # fmt: skip

    # ---- numbers

    @property
    def inputs(self) -> int:
        """Number d of inputs."""
        return int(self.rows.shape[1]) - 1

    @property
    def outputs(self) -> int:
        """Number p of outputs."""
        return int(self.outer.shape[0])

    @property
    def tied(self) -> int:
        """Number T of trained incoming parameters."""
        return int(self.index.max(initial=-1)) + 1

    @property
    def parameters(self) -> int:
        """Number M of trained parameters."""
        return self.tied + self.outer.size + self.outputs * self.output_bias

    @cached_property
    def untied(self) -> bool:
        """Whether all incoming weights are trained, all biases or none, and none is tied: a fully connected network."""
        there = self.index >= 0
        uniform = bool(there[:, :-1].all()) and bool((there[:, -1] == there[:1, -1]).all())
        trained = self.index[there]
        return uniform and np.unique(trained).size == trained.size

    @property
    def per_neuron(self) -> int:
        """Trained incoming parameters that the first neuron reads: d, d + 1, or the size of a kernel (+ 1)."""
        return int((self.index[0] >= 0).sum()) if len(self.index) else 0

    # ---- other forms

    def connected(self) -> TiedNetwork:
        """The same function in the fully connected architecture; with trained biases if this one has any."""
        bias = bool((self.index[:, -1] >= 0).any())
        return TiedNetwork.dense(
            self.rows[:, :-1], self.rows[:, -1], self.outer, self.activation, output_bias=self.output_bias,
            fixed_bias=not bias,
        )  # fmt: skip

    def unshared(self) -> TiedNetwork:
        """The same function where every neuron has parameters of its own in the places that it reads."""
        there = self.index >= 0
        index = np.full(self.index.shape, -1, dtype=np.int64)
        index[there] = np.arange(int(there.sum()))
        return replace(self, index=index, name=self.name.split(" without")[0] + " without sharing", kernels=None)

    def network(self) -> Network:
        """The function as a `Network`, output biases 0; one silent neuron where there is none."""
        if not len(self.rows):
            zero = np.zeros((1, self.inputs)), np.zeros(1)
            return Network.from_arrays(zero, (np.zeros((self.outputs, 1)), None), activation=self.activation)
        return Network.from_arrays(
            (self.rows[:, :-1], self.rows[:, -1]), (self.outer, None), activation=self.activation
        )

    def keep(self, neurons: Sequence[int], outer: ExactArray) -> TiedNetwork:
        """Some of the neurons with other outgoing weights (p, len(neurons))."""
        at = np.asarray(neurons, dtype=np.int64)
        index = self.index[at]
        used, compact = np.unique(index, return_inverse=True)
        compact = compact.reshape(index.shape) - (1 if used.size and used[0] < 0 else 0)
        return replace(self, rows=self.rows[at], index=compact.astype(np.int64), outer=outer, kernels=None)

    def jacobian(self, x: npt.ArrayLike) -> FloatArray:
        """D f(x) / d theta in float64, (n p, M): tied weights, then outgoing ones output by output, then biases.

        Args:
            x: inputs (n, d).
        """
        points = np.asarray(x, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.inputs:
            raise InputError(f"inputs of shape {points.shape}; expected (n, {self.inputs})")
        count, p, neurons = len(points), self.outputs, len(self.rows)
        full = np.concatenate([points, np.ones((count, 1))], axis=1)
        z = full @ rationals.nearest_floats(self.rows).T
        value, slope = self.activation(z), self.activation.derivative(z)
        a = rationals.nearest_floats(self.outer)
        out = np.zeros((count, p, self.parameters))
        n, i = np.nonzero(self.index >= 0)
        terms = slope[:, None, n] * a[None][:, :, n] * full[:, None, i]
        for k, t in enumerate(self.index[n, i].tolist()):
            out[:, :, t] += terms[:, :, k]
        for o in range(p):
            out[:, o, self.tied + o * neurons : self.tied + (o + 1) * neurons] = value
            if self.output_bias:
                out[:, o, self.tied + p * neurons + o] = 1.0
        return out.reshape(count * p, -1)


def _beside(weight: ExactArray, bias: ExactArray) -> ExactArray:
    if rationals.is_rational(weight) or rationals.is_rational(bias):
        weight, bias = rationals.fractions(weight), rationals.fractions(bias)
    return np.concatenate([weight, bias[:, None]], axis=1)


@dataclass(frozen=True, eq=False)
class MatrixProduct:
    """W_L ... W_1 as a function of its factors: matrix factorisation (L = 2) and deep linear networks.

    Args:
        factors: (W_1, ..., W_L), exact arrays; W_1 acts first.

    >>> MatrixProduct.of([[1, 0]], [[2], [3]]).parameters
    4
    """

    factors: tuple[ExactArray, ...]

    @classmethod
    def of(cls, *factors: npt.ArrayLike) -> MatrixProduct:
        """From arrays, first to act first.

        Raises:
            InputError: if they do not fit.
        """
        arrays = tuple(rationals.exact_array(w) for w in factors)
        fits = arrays and all(w.ndim == 2 for w in arrays)
        if not fits or any(b.shape[1] != a.shape[0] for a, b in zip(arrays, arrays[1:], strict=False)):
            shapes = ", ".join(str(w.shape) for w in arrays)
            raise InputError(f"factors of shapes {shapes}; expected (n_1, n_0), (n_2, n_1), ...")
        return cls(arrays)

    @property
    def parameters(self) -> int:
        """Number of entries of all factors."""
        return sum(w.size for w in self.factors)

    def around(self, k: int) -> tuple[ExactArray, ExactArray]:
        """(W_L ... W_(k+2), W_k ... W_1): what stands to the left and to the right of factor k (from 0)."""
        top, bottom = self.factors[-1].shape[0], self.factors[0].shape[1]
        left = (
            reduce(lambda a, w: rationals.matmul(w, a), self.factors[k + 2 :], self.factors[k + 1])
            if k + 1 < len(self.factors)
            else np.eye(top)
        )
        right = reduce(lambda a, w: rationals.matmul(w, a), self.factors[1:k], self.factors[0]) if k else np.eye(bottom)
        return left, right

    def product(self) -> ExactArray:
        """W_L ... W_1, exactly."""
        return reduce(lambda a, w: rationals.matmul(w, a), self.factors[1:], self.factors[0])

    def jacobian(self, x: npt.ArrayLike | None = None, entries: npt.ArrayLike | None = None) -> ExactArray:
        """Exact derivatives of all entries of the product, (p q, M); of some (n, 2), or of the product times inputs.

        Args:
            x: inputs (n, q); rows are then ordered output by output, (p n, M).
            entries: (n, 2) row and column of the observed entries.
        """
        blocks = []
        inputs = None if x is None else rationals.exact_array(x)
        for k in range(len(self.factors)):
            left, right = (rationals.fractions(v) for v in self.around(k))
            if inputs is not None:
                right = rationals.fractions(rationals.matmul(right, inputs.T))
            blocks.append(np.kron(left, right.T))
        out = np.concatenate(blocks, axis=1)
        if entries is not None:
            at = np.asarray(entries, dtype=np.int64)
            out = out[at[:, 0] * self.factors[0].shape[1] + at[:, 1]]
        return rationals.simplified(out)


@dataclass(frozen=True, eq=False)
class DiagonalProduct:
    """f(x) = sum_j (a_1j ... a_Lj) x_j as a function of its factors, L >= 2: a diagonal linear network of depth L.

    Args:
        factors: (L, d) exact.

    >>> DiagonalProduct.of([[1, 0], [2, 0]]).jacobian().tolist()
    [[2.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """

    factors: ExactArray

    @classmethod
    def of(cls, factors: npt.ArrayLike) -> DiagonalProduct:
        """From an array (L, d).

        Raises:
            InputError: for other shapes.
        """
        array = rationals.exact_array(factors)
        if array.ndim != 2 or len(array) < 2:
            raise InputError(f"factors of shape {array.shape}; expected (L, d) with L >= 2")
        return cls(array)

    @property
    def parameters(self) -> int:
        """L d."""
        return int(self.factors.size)

    def jacobian(self, x: npt.ArrayLike | None = None) -> ExactArray:
        """Exact derivatives of the d coefficients, (d, L d), or of f at inputs (n, d)."""
        values = rationals.fractions(self.factors)
        depth, size = values.shape
        out = rationals.fractions(np.zeros((size, depth * size)))
        for k in range(depth):
            others = np.prod(np.delete(values, k, axis=0), axis=0)
            out[np.arange(size), k * size + np.arange(size)] = others
        if x is not None:
            out = rationals.fractions(rationals.matmul(rationals.exact_array(x), out))
        return rationals.simplified(out)
