"""Layers: one affine map with the activation after it, the normalisation folded into it, and its enclosure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_exact
from fiberscope.errors import FormatError, InputError

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """Diagonal affine maps around a file's own layer that were folded into it, such as input normalisation.

    W = diag(out_scale) W_file diag(in_scale), b = out_scale * (W_file in_shift + b_file) + out_shift, all exact.

    Args:
        in_scale, in_shift: (n_in,), the map y -> in_scale * y + in_shift before the file's layer.
        out_scale, out_shift: (n_out,), the map z -> out_scale * z + out_shift after it.
    """

    in_scale: ExactArray
    in_shift: ExactArray
    out_scale: ExactArray
    out_shift: ExactArray

    @classmethod
    def of(cls, n_out: int, n_in: int, *, before: Any = None, after: Any = None) -> Frame:
        """A frame from (scale, shift) pairs on either side; None is the identity."""
        a, b = before or (np.ones(n_in), np.zeros(n_in))
        c, d = after or (np.ones(n_out), np.zeros(n_out))
        return cls(*(rationals.exact_array(v) for v in (a, b, c, d)))

    def own(self, weight: ExactArray, bias: ExactArray) -> tuple[ExactArray, ExactArray]:
        """The file's own (W_file, b_file) behind a chain layer's (W, b); exact.

        >>> frame = Frame.of(1, 1, before=([0.5], [1.0]))
        >>> frame.own(*frame.folded(np.array([[3.0]]), np.array([2.0])))
        (array([[3.]]), array([2.]))
        """
        out = rationals.fractions(self.out_scale)
        inner = rationals.fractions(weight) / out[:, None] / rationals.fractions(self.in_scale)[None, :]
        matrix = rationals.simplified(np.asarray(inner))
        rest = (rationals.fractions(bias) - rationals.fractions(self.out_shift)) / out
        shift = rationals.fractions(rationals.matmul(matrix, self.in_shift))
        return matrix, rationals.simplified(np.asarray(rest - shift))

    def resized(self, rows: npt.NDArray[np.int64] | None, columns: npt.NDArray[np.int64] | None) -> Frame:
        """The frame after keeping these rows and columns; index -1 stands for a new one without any map."""
        parts = [
            (columns, self.in_scale, 1),
            (columns, self.in_shift, 0),
            (rows, self.out_scale, 1),
            (rows, self.out_shift, 0),
        ]
        return Frame(*(v if index is None else _taken(v, index, default) for index, v, default in parts))

    def folded(self, weight: ExactArray, bias: ExactArray) -> tuple[ExactArray, ExactArray]:
        """The chain layer's (W, b) of the file's own (W_file, b_file); exact."""
        out = rationals.fractions(self.out_scale)
        inner = rationals.fractions(weight) * out[:, None] * rationals.fractions(self.in_scale)[None, :]
        shift = rationals.fractions(rationals.matmul(weight, self.in_shift)) + rationals.fractions(bias)
        return rationals.simplified(np.asarray(inner)), rationals.simplified(
            np.asarray(shift * out + rationals.fractions(self.out_shift))
        )


def _taken(values: ExactArray, index: npt.NDArray[np.int64], default: int) -> ExactArray:
    exact = rationals.fractions(values)
    return rationals.exact_array(np.array([exact[i] if i >= 0 else Fraction(default) for i in index], dtype=object))


@dataclass(frozen=True, eq=False)
class Layer:
    """One affine map and the activation after it, h = s(W y + b).

    Args:
        weight: W, (n_out, n_in): floats of any dtype (read as the rationals they are) or `Fraction` objects.
        bias: b, (n_out,).
        activation: s, applied elementwise; a name is looked up.
        name: the layer's name in its file, or "layer k".
        weight_name: the tensor's name in its file ("" if there is none).
        bias_name: likewise for the bias.
        folded: what was folded or unrolled into this layer ("Conv conv1 unrolled"); empty when W and b are the
            file's own parameters.
        frame: the diagonal maps folded into it, when that is all that was folded.

    Raises:
        FormatError: if shapes do not fit or a weight is NaN or infinite.
        UnsupportedError: for an unknown activation.

    >>> layer = Layer([[1, 2]], [0], "relu")
    >>> layer.n_in, layer.n_out, layer.activation.label
    (2, 1, 'relu')
    """

    weight: ExactArray
    bias: ExactArray
    activation: Activation
    name: str = ""
    weight_name: str = ""
    bias_name: str = ""
    folded: tuple[str, ...] = ()
    frame: Frame | None = None

    def __post_init__(self) -> None:
        """Freeze copies of the arrays and check them."""
        for attribute, dimensions in (("weight", 2), ("bias", 1)):
            try:
                array = np.array(as_exact(getattr(self, attribute), attribute))
            except InputError as exc:
                raise FormatError(f"{self.name or 'layer'}: {exc}") from exc
            if array.ndim != dimensions:
                wanted = "(n_out, n_in)" if dimensions == 2 else "(n_out,)"
                raise FormatError(f"{self.name or 'layer'}: {attribute} has shape {array.shape}; expected {wanted}")
            if not rationals.is_rational(array) and not np.isfinite(array).all():
                where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise FormatError(
                    f"{self.name or 'layer'}: {attribute}{list(where)} is {array[where]}; weights must be finite"
                )
            array.setflags(write=False)
            object.__setattr__(self, attribute, array)
        if self.weight.shape[0] != self.bias.shape[0]:
            turned = self.weight.shape[1] == self.bias.shape[0]
            raise FormatError(
                f"{self.name or 'layer'}: weight {self.weight.shape} and bias {self.bias.shape} do not fit; "
                f"expected (n_out, n_in) and (n_out,){'; give the transposed weight' if turned else ''}"
            )
        if 0 in self.weight.shape:
            raise FormatError(f"{self.name or 'layer'}: weight has shape {self.weight.shape}; every width must be >= 1")
        object.__setattr__(self, "activation", find_activation(self.activation))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made by the constructor, so that their arrays are frozen too."""
        return Layer, tuple(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        """Shape, activation and name in one line."""
        words = ", ".join(w for w in (f"{self.n_in} -> {self.n_out} {self.activation.label}", self.name) if w)
        return f"Layer({words})"

    @property
    def own(self) -> tuple[ExactArray, ExactArray]:
        """(W, b) as the file holds them: without the folded normalisation if `frame` knows it."""
        return (self.weight, self.bias) if self.frame is None else self.frame.own(self.weight, self.bias)

    @property
    def n_out(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[0])

    @property
    def n_in(self) -> int:
        """Number of inputs of each neuron."""
        return int(self.weight.shape[1])

    @cached_property
    def weight64(self) -> FloatArray:
        """W rounded to float64 (exact for float16, float32 and float64 weights)."""
        return _float64(self.weight)

    @cached_property
    def bias64(self) -> FloatArray:
        """The bias rounded to float64."""
        return _float64(self.bias)

    @cached_property
    def rational(self) -> bool:
        """Whether a weight or bias is no float64, so that `weight64` or `bias64` is a rounding."""
        return rationals.is_rational(self.weight) or rationals.is_rational(self.bias)


def _float64(array: ExactArray) -> FloatArray:
    if rationals.is_rational(array):
        out = np.asarray(rationals.rounded(array, np.float64))
        lost = (out == 0.0) & (array != 0)  # keep the sign of what underflows
        out[lost] = np.where(array[lost] > 0, 1.0, -1.0) * np.finfo(np.float64).smallest_subnormal
        return out
    return array.astype(np.float64, copy=False)


def affine_enclosure(
    layer: Layer, low: FloatArray, high: FloatArray, slack: float = 4.0
) -> tuple[FloatArray, FloatArray]:
    """Outward-rounded enclosure of W y + b over low <= y <= high (infinite ends allowed, 0 * inf = 0).

    The error of a float64 dot product of n terms is at most gamma_n sum |w||y| with gamma_n = n u / (1 - n u)
    (Higham, Accuracy and Stability, section 3.1); `slack` multiplies it. Where all terms are zero nothing is added,
    so that signs alone give exact statements. Returns (lower, upper), each (n_out,).
    """
    weight = layer.weight64
    positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    finite_low, finite_high = (np.where(np.isfinite(v), v, 0.0) for v in (low, high))
    gamma = slack * (layer.n_in + 4) * np.finfo(np.float64).eps
    with np.errstate(over="ignore", invalid="ignore"):
        return _enclosed(layer, (low, high), (finite_low, finite_high), (positive, negative), gamma)


def _enclosed(
    layer: Layer,
    ends: tuple[FloatArray, FloatArray],
    finite: tuple[FloatArray, FloatArray],
    parts: tuple[FloatArray, FloatArray],
    gamma: float,
) -> tuple[FloatArray, FloatArray]:
    (low, high), (finite_low, finite_high), (positive, negative) = ends, finite, parts
    terms_low = positive @ np.abs(finite_low) - negative @ np.abs(finite_high)
    terms_high = positive @ np.abs(finite_high) - negative @ np.abs(finite_low)
    lower = positive @ finite_low + negative @ finite_high + layer.bias64
    upper = positive @ finite_high + negative @ finite_low + layer.bias64
    lower = lower - _rounding(layer, terms_low, gamma, finite_low, finite_high)
    upper = upper + _rounding(layer, terms_high, gamma, finite_high, finite_low)
    open_low = (positive @ (low == -np.inf) > 0) | (negative @ (high == np.inf) < 0)
    open_high = (positive @ (high == np.inf) > 0) | (negative @ (low == -np.inf) < 0)
    open_low, open_high = open_low | np.isnan(lower), open_high | np.isnan(upper)  # overflow that cancels
    return np.where(open_low, -np.inf, lower), np.where(open_high, np.inf, upper)


def _rounding(layer: Layer, terms: FloatArray, gamma: float, plus: FloatArray, minus: FloatArray) -> FloatArray:
    error = gamma * (terms + np.abs(layer.bias64)) + 1e-300
    # a row whose every product is zero is exact; underflow can fake that, so ask the factors
    for i in np.flatnonzero(terms == 0.0):
        row = layer.weight64[i]
        silent = not ((row > 0) & (plus != 0)).any() and not ((row < 0) & (minus != 0)).any()
        if silent and not layer.rational:
            error[i] = 0.0
    return np.asarray(error)
