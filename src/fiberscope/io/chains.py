"""Chains built step by step: affine steps are collected until an activation closes a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io.folding import Affine, normalisation
from fiberscope.network import Frame, Layer

Tensor = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight matrix of the file: weight (n_out, n_in), bias (n_out,) or None, and their names."""

    weight: Tensor
    bias: Tensor | None
    name: str
    weight_name: str
    bias_name: str

    @property
    def shift(self) -> Tensor:
        """The bias, zeros if there is none."""
        return np.zeros(self.weight.shape[0], self.weight.dtype) if self.bias is None else self.bias


@dataclass
class Builder:
    """A chain under construction.

    Args:
        shape: shape of one sample where the chain has got to; None while it is unknown.
        layers: finished layers.
        head: the output head, once it was met; nothing may follow.
        approximations: folds that had to round.
    """

    shape: tuple[int, ...] | None = None
    layers: list[Layer] = field(default_factory=list)
    head: str | None = None
    approximations: list[str] = field(default_factory=list)
    _before: Affine | None = None
    _matrix: Matrix | None = None
    _after: Affine | None = None
    _texts: list[str] = field(default_factory=list)

    @property
    def size(self) -> int | None:
        """Number of entries of one sample."""
        return None if self.shape is None else int(np.prod(self.shape))

    @property
    def open_weight(self) -> Tensor | None:
        """The weight matrix that is waiting for its activation."""
        return None if self._matrix is None else self._matrix.weight

    def _open(self, title: str) -> None:
        if self.head is not None:
            raise UnsupportedError(f"{title} follows {self.head}; it is known only at the very end")

    def matrix(self, step: Matrix) -> None:
        """Apply a weight matrix to a flat sample.

        Raises:
            FormatError: if it does not fit.
            UnsupportedError: if the sample is not flat.
        """
        self._open(step.name)
        n_out, n_in = step.weight.shape
        if self.shape is not None and len(self.shape) > 1:
            raise UnsupportedError(
                f"{step.name} acts on an input of shape {self.shape}; expected it to be flattened before"
            )
        if self.shape is not None and self.shape != (n_in,):
            raise FormatError(f"{step.name} takes {n_in} inputs but gets {self.size}")
        if self._matrix is not None:  # two matrices without an activation between
            self._before, self._after = self._affine(), None
            self._texts.append(f"{self._matrix.name} and {step.name} multiplied")
        self._matrix, self.shape = step, (n_out,)

    def affine(self, step: Affine, title: str, shape: tuple[int, ...] | None = None) -> None:
        """Apply any affine map to the flat sample; `shape` is the sample's shape after it."""
        self._open(title)
        if self.size is not None and self.size != step.n_in:
            raise FormatError(f"{title} takes {step.n_in} inputs but gets {self.size}")
        if not step.is_identity:
            self._texts.append(title)
            if self._matrix is not None:
                self._after = step if self._after is None else self._after.then(step)
            else:
                self._before = step if self._before is None else self._before.then(step)
        self.shape = (step.n_out,) if shape is None else shape

    def activation(self, row: Activation, title: str) -> None:
        """Close a layer with an activation."""
        self._open(title)
        if row.name == "identity":
            return
        if self.size is None:
            raise UnsupportedError(
                f"{title} comes before the first matrix; give the shape of one input (input_shape=...)"
            )
        if self._matrix is None and self._before is None:
            self._texts.append(f"there is no matrix before {title}; the identity was put in")
            self._before = Affine.identity(self.size)
        self._close(row)

    def set_head(self, name: str, title: str) -> None:
        """Note the output head."""
        self._open(title)
        self.head = name

    def finish(self) -> tuple[Layer, ...]:
        """All layers, with the last one closed.

        Raises:
            UnsupportedError: if there is no affine map at all.
        """
        if self._matrix is not None or self._before is not None or (self.head is not None and not self._ends_linear()):
            if self._matrix is None and self._before is None and self.size is not None:
                self._before = Affine.identity(self.size)
            self._close(find_activation("identity"))
        if not self.layers:
            raise UnsupportedError("holds no affine layer, so there is no network")
        return tuple(self.layers)

    def _ends_linear(self) -> bool:
        return bool(self.layers) and self.layers[-1].activation.name == "identity"

    def _affine(self) -> Affine:
        if self._matrix is None:
            return self._before or Affine.identity(self.size or 0)
        step = Affine(self._matrix.weight.shape[1], self._matrix.weight, bias=self._matrix.bias)
        whole = step if self._before is None else self._before.then(step)
        return whole if self._after is None else whole.then(self._after)

    def _close(self, row: Activation) -> None:
        name = f"layer {len(self.layers) + 1}" if self._matrix is None else self._matrix.name
        folded, matrix = tuple(dict.fromkeys(self._texts)), self._matrix
        if matrix is not None and self._before is None and self._after is None:
            layer = Layer(matrix.weight, matrix.shift, row, name, matrix.weight_name, matrix.bias_name)
        elif matrix is not None and _diagonal(self._before) and _diagonal(self._after):
            Layer(matrix.weight, matrix.shift, row, name)  # refuses NaN before any arithmetic
            sides = [None if a is None else (_scale(a), a.offset) for a in (self._before, self._after)]
            frame = Frame.of(*matrix.weight.shape, before=sides[0], after=sides[1])
            usable = all(frame_part.all() for frame_part in (frame.in_scale, frame.out_scale))
            weight, bias = frame.folded(matrix.weight, matrix.shift)
            names = (matrix.weight_name, matrix.bias_name)
            layer = Layer(weight, bias, row, name, *names, folded, frame if usable else None)
        else:
            whole = self._affine()
            layer = Layer(whole.weight, whole.offset, row, name, folded=folded or ("it is no matrix of the file",))
        self.layers.append(layer)
        self._before = self._matrix = self._after = None
        self._texts = []

    def normalise(
        self,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
        epsilon: Fraction,
        title: str,
        axis: int,
    ) -> None:
        """Batch normalisation at inference along one axis of the sample's shape."""
        shape = self.shape or (mean.size,)
        if not -len(shape) <= axis < len(shape) or {v.shape for v in (gamma, beta, mean, variance)} != {(shape[axis],)}:
            raise FormatError(f"{title} has {mean.size} channels; its input has shape {shape}")
        if not all(np.isfinite(v).all() for v in (gamma, beta, mean, variance)):
            raise FormatError(f"{title} has parameters that are NaN or infinite")
        scale, shift, exact = normalisation(gamma, beta, mean, variance, epsilon)
        if not exact:
            self.approximations.append(f"{title}: its scales are square roots, rounded to the nearest float64")
        where = np.moveaxis(
            np.broadcast_to(np.arange(shape[axis]), (*_without(shape, axis), shape[axis])), -1, axis
        ).reshape(-1)
        step = Affine.identity(where.size).scaled(np.asarray(scale)[where]).shifted(np.asarray(shift)[where])
        self.affine(step, f"{title} folded", shape)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    left = list(shape)
    del left[axis]
    return tuple(left)


def _diagonal(step: Affine | None) -> bool:
    return step is None or step.is_diagonal


def _scale(step: Affine) -> Tensor:
    return np.ones(step.n_in) if step.scale is None else step.scale


def exact_parameter(value: Any, dtype: npt.DTypeLike, title: str) -> Fraction:
    """A setting such as a slope, as the number that a runtime of the weights' dtype computes with.

    Raises:
        FormatError: if it is no finite number.

    >>> exact_parameter(0.25, np.float32, "slope")
    Fraction(1, 4)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"{title} is {str(value)[:40]!r}; expected a number")
    try:
        with np.errstate(over="ignore"):
            number = float(np.array(float(value), dtype=dtype))
    except OverflowError:
        number = math.inf
    if not np.isfinite(number):
        raise FormatError(f"{title} is {value}; expected a finite number")
    return Fraction(number)


def scaled_by(n: int, factor: Fraction, shift: Fraction) -> Affine:
    """Y -> factor y + shift on n entries."""
    step = Affine.identity(n)
    step = step if factor == 1 else step.scaled(np.array([factor] * n, dtype=object))
    return step if shift == 0 else step.shifted(np.array([shift] * n, dtype=object))


def clip_row(low: Fraction, high: Fraction) -> Activation:
    """min(max(z, low), high), by its usual name."""
    return find_activation("hard_tanh") if low == -1 and high == 1 else find_activation("clip", low, high)
