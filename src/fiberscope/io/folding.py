"""Affine maps composed exactly: how normalisations, shape operations and convolutions become one layer.

Nothing here knows a file format. Arrays keep their dtype as long as no arithmetic happens; where it does, the result
is an exact array (float64 when nothing was rounded, rationals otherwise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product as grid
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import FormatError, UnsupportedError

ExactArray = npt.NDArray[Any]
IndexArray = npt.NDArray[np.int64]

MAX_ENTRIES = 20_000_000
"""Largest dense matrix made by unrolling."""

MAX_RATIONALS = 2_000_000
"""Largest array of `Fraction` objects made by folding."""

MAX_WINDOW = 100_000
"""Largest window of an average pooling, times its channels."""

_FEW = 4


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine map z = W y + b, with W dense or with one entry per row.

    Args:
        n_in: number of inputs.
        matrix: W, (n_out, n_in); None if every row has at most one entry, then z_i = scale_i y[index_i] + bias_i.
        index: (n_out,) input of each row, -1 for a zero row; None for 0, 1, ..., n_in - 1.
        scale: (n_out,), None for ones; used only without `matrix`.
        bias: (n_out,), None for zeros.

    >>> half = Affine.identity(2).scaled(np.array([0.5, 0.5])).shifted(np.array([1.0, 0.0]))
    >>> total = half.linear(np.array([[1.0, 1.0]]))
    >>> total.weight.tolist(), total.offset.tolist()
    ([[0.5, 0.5]], [1.0])
    """

    n_in: int
    matrix: ExactArray | None = None
    index: IndexArray | None = None
    scale: ExactArray | None = None
    bias: ExactArray | None = None

    @classmethod
    def identity(cls, n: int) -> Affine:
        """The map z = y."""
        return cls(n)

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        if self.matrix is not None:
            return int(self.matrix.shape[0])
        return self.n_in if self.index is None else int(self.index.size)

    @property
    def is_identity(self) -> bool:
        """Whether z = y."""
        return self.matrix is None and self.index is None and self.scale is None and self.bias is None

    @property
    def is_diagonal(self) -> bool:
        """Whether z_i = scale_i y_i + bias_i."""
        return self.matrix is None and self.index is None

    @property
    def weight(self) -> ExactArray:
        """W as a dense matrix.

        Raises:
            UnsupportedError: if it would have more than `MAX_ENTRIES` entries.
        """
        if self.matrix is not None:
            return self.matrix
        require_size(self.n_out, self.n_in)
        scale = np.ones(self.n_out, np.float32) if self.scale is None else self.scale
        if rationals.is_rational(scale):
            require_size(self.n_out, self.n_in, MAX_RATIONALS)
        dense = np.full((self.n_out, self.n_in), Fraction(0)) if rationals.is_rational(scale) else None
        out = np.zeros((self.n_out, self.n_in), scale.dtype) if dense is None else dense
        index = np.arange(self.n_in) if self.index is None else self.index
        rows = np.flatnonzero(index >= 0)
        out[rows, index[rows]] = scale[rows]
        return out

    @property
    def offset(self) -> ExactArray:
        """The bias as an array; zeros have the dtype of W."""
        if self.bias is not None:
            return self.bias
        array = self.matrix if self.matrix is not None else self.scale
        dtype = np.dtype(np.float32) if array is None else array.dtype
        return np.zeros(self.n_out, np.float64 if dtype.kind == "O" else dtype)

    @property
    def diagonal(self) -> ExactArray:
        """The scale of each output of a diagonal map, (n_out,)."""
        return np.ones(self.n_out, np.float32) if self.scale is None else self.scale

    def take(self, index: npt.ArrayLike) -> Affine:
        """Outputs z[index], a flat list of output positions; -1 gives 0."""
        rows = np.asarray(index, dtype=np.int64).reshape(-1)
        if rows.size == self.n_out and np.array_equal(rows, np.arange(rows.size)):
            return self
        bias = None if self.bias is None else _rows(self.bias, rows)
        if self.matrix is not None:
            require_size(rows.size, self.n_in)
            return replace(self, matrix=_rows(self.matrix, rows), bias=bias)
        inner = np.arange(self.n_in) if self.index is None else self.index
        scale = None if self.scale is None else _rows(self.scale, rows)
        return Affine(self.n_in, None, np.where(rows >= 0, inner[rows], -1), scale, bias)

    def shifted(self, constant: ExactArray) -> Affine:
        """The map y -> z + constant, (n_out,)."""
        if not constant.any():
            return self
        return replace(self, bias=constant if self.bias is None else rationals.add(self.bias, constant))

    def scaled(self, factors: ExactArray) -> Affine:
        """The map y -> factors * z, (n_out,)."""
        if (factors == 1).all():
            return self
        bias = None if self.bias is None else product(self.bias, factors)
        if self.matrix is not None:
            return replace(self, matrix=product(self.matrix, factors[:, None]), bias=bias)
        return replace(self, scale=factors if self.scale is None else product(self.scale, factors), bias=bias)

    def linear(self, weight: ExactArray) -> Affine:
        """The map y -> weight z, for a dense matrix (m, n_out)."""
        if weight.shape[1] != self.n_out:
            raise FormatError(f"a matrix takes {weight.shape[1]} inputs but gets {self.n_out}")
        bias = None if self.bias is None else rationals.matmul(weight, self.bias)
        if self.matrix is not None:
            require_size(weight.shape[0], self.n_in)
            if weight.shape[0] * weight.shape[1] * self.n_in > 4_000_000_000:
                raise UnsupportedError(f"folding {weight.shape} into {self.matrix.shape} exactly is too large")
            return Affine(self.n_in, matrix_product(weight, self.matrix), bias=bias)
        scaled = weight if self.scale is None else product(weight, self.scale[None, :])
        if self.index is None:
            return Affine(self.n_in, scaled, bias=bias)
        return Affine(self.n_in, _scatter(scaled, self.index, self.n_in), bias=bias)

    def then(self, other: Affine) -> Affine:
        """The composition other(self(y))."""
        if self.is_identity:
            return other
        out = self
        if other.matrix is not None:
            out = out.linear(other.matrix)
        else:
            out = out if other.index is None else out.take(other.index)
            out = out if other.scale is None else out.scaled(other.scale)
        return out if other.bias is None else out.shifted(other.bias)

    def inverted(self) -> Affine | None:
        """The inverse of a diagonal map, or None if it is none or has a zero on its diagonal.

        >>> Affine.identity(1).scaled(np.array([3.0])).inverted().scale
        array([Fraction(1, 3)], dtype=object)
        """
        if not self.is_diagonal or (self.scale is not None and not self.scale.all()):
            return None
        inverse = None if self.scale is None else reciprocal(self.scale)
        bias = None if self.bias is None else negated(self.bias)
        if bias is not None and inverse is not None:
            bias = product(bias, inverse)
        return Affine(self.n_in, scale=inverse, bias=bias)


def require_size(rows: int, columns: int, limit: int = MAX_ENTRIES) -> None:
    """Refuse matrices beyond a limit.

    Raises:
        UnsupportedError: if rows * columns > limit.
    """
    if rows * columns > limit:
        kind = "exact rational matrix" if limit == MAX_RATIONALS else "matrix"
        raise UnsupportedError(f"unrolled it is a {rows} x {columns} {kind}, more than {limit:,} entries")


def _rows(array: ExactArray, rows: IndexArray) -> ExactArray:
    out = np.array(array[rows]) if array.size else np.zeros((rows.size, *array.shape[1:]), array.dtype)
    if (rows < 0).any():
        out[rows < 0] = Fraction(0) if rationals.is_rational(array) else 0
    return out


def _scatter(weight: ExactArray, index: IndexArray, n_in: int) -> ExactArray:
    """Columns moved to where they are read; columns read twice are added exactly."""
    require_size(weight.shape[0], n_in)
    live = index >= 0
    if np.unique(index[live]).size < live.sum():
        require_size(index.size, n_in)
        selection = np.zeros((index.size, n_in))
        selection[np.flatnonzero(live), index[live]] = 1.0
        return rationals.matmul(weight, selection)
    zero = Fraction(0) if rationals.is_rational(weight) else 0
    out = np.full((weight.shape[0], n_in), zero, dtype=weight.dtype)
    out[:, index[live]] = weight[:, live]
    return out


def matrix_product(a: ExactArray, b: ExactArray) -> ExactArray:
    """Exact a @ b for matrices; rows of a with few entries are combined in floats as long as nothing is rounded.

    >>> matrix_product(np.array([[1.0, -1.0]]), np.array([[0.5], [0.25]])).tolist()
    [[0.25]]
    """
    if rationals.is_rational(a) or rationals.is_rational(b):
        return rationals.matmul(a, b)
    count = int((a != 0).sum(1).max(initial=0))
    if not 1 <= count <= _FEW:
        return rationals.matmul(a, b)
    first = np.argsort(a == 0, axis=1, kind="stable")[:, :count]  # the nonzero entries come first
    total: ExactArray | None = None
    for k in range(count):
        term = product(np.take_along_axis(a, first[:, k : k + 1], 1), b[first[:, k]])
        total = term if total is None else rationals.add(total, term)
    return rationals.matmul(a, b) if total is None else total


def negated(array: ExactArray) -> ExactArray:
    """-array, exact in any dtype."""
    return np.asarray(-array)


def reciprocal(array: ExactArray) -> ExactArray:
    """1 / array, exact.

    Raises:
        UnsupportedError: if an entry is zero.

    >>> reciprocal(np.array([2.0, 4.0])).tolist()
    [0.5, 0.25]
    """
    if not array.all():
        raise UnsupportedError("it divides by zero")
    require_size(1, array.size, MAX_RATIONALS)
    return rationals.simplified(np.asarray(1 / rationals.fractions(array)))


def product(a: ExactArray, b: ExactArray) -> ExactArray:
    """Exact elementwise product with broadcasting: float64 when nothing is rounded, rationals otherwise.

    >>> product(np.array([0.5]), np.array([3.0])).tolist()
    [1.5]
    """
    if not rationals.is_rational(a) and not rationals.is_rational(b):
        x, y = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(all="ignore"):
            out = x * y
        narrow = max(a.dtype.itemsize, b.dtype.itemsize) <= 4  # 24 + 24 bits fit
        if narrow or not _product_error(x, y, out):
            return np.asarray(out)
    left, right = np.broadcast_arrays(a, b)
    live = (left != 0) & (right != 0)  # zeros are many in unrolled matrices and cost nothing
    require_size(1, int(live.sum()), MAX_RATIONALS)
    values = rationals.simplified(np.asarray(rationals.fractions(left[live]) * rationals.fractions(right[live])))
    result = np.full(left.shape, Fraction(0)) if rationals.is_rational(values) else np.zeros(left.shape)
    result[live] = values
    return result


def _product_error(x: ExactArray, y: ExactArray, out: ExactArray) -> bool:
    """Whether x * y may have been rounded to `out` (Dekker's product; far from under- and overflow)."""
    if not out.size:
        return False
    size = np.abs(out)
    zero = (x == 0) | (y == 0)
    if not (zero | ((size > 1e-200) & (size < 1e200))).all() or max(np.abs(x).max(), np.abs(y).max()) > 1e200:
        return True
    with np.errstate(all="ignore"):
        split_x, split_y = x * 134217729.0, y * 134217729.0
        x1, y1 = split_x - (split_x - x), split_y - (split_y - y)
        x2, y2 = x - x1, y - y1
        error = ((x1 * y1 - out) + x1 * y2 + x2 * y1) + x2 * y2
    return bool(np.any(error != 0))


def positions(weight: ExactArray, count: int) -> ExactArray:
    """The block diagonal matrix that applies a matrix (m, k) at `count` positions, y of shape (count, k)."""
    m, k = weight.shape
    require_size(count * m, count * k)
    out = np.zeros((count, m, count, k), weight.dtype)
    for i in range(count):
        out[i, :, i, :] = weight
    return out.reshape(count * m, count * k)


@dataclass(frozen=True)
class Window:
    """How a kernel slides over the spatial axes.

    Args:
        kernel: size along each axis.
        strides: step along each axis.
        pads: zeros (before, after) along each axis.
        dilations: spacing of the kernel's entries.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]

    def output(self, space: Sequence[int]) -> tuple[int, ...]:
        """Size of the output along each axis.

        Raises:
            FormatError: if sizes are negative, or the kernel does not fit.
        """
        if not space:
            raise FormatError("a window needs at least one spatial axis")
        lengths = (len(self.kernel), len(self.strides), len(self.pads), len(self.dilations))
        if set(lengths) != {len(space)}:
            raise FormatError(f"kernel, strides, pads and dilations have {lengths} axes; the input has {len(space)}")
        if min((*self.kernel, *self.strides, *self.dilations), default=1) < 1:
            raise FormatError("kernel, strides and dilations must be positive")
        if any(p < 0 for pair in self.pads for p in pair):
            raise FormatError(f"pads {self.pads}; expected numbers >= 0")
        if max((*self.kernel, *self.strides, *self.dilations, *(p for pair in self.pads for p in pair))) > MAX_ENTRIES:
            raise UnsupportedError(f"kernel, strides, pads and dilations beyond {MAX_ENTRIES:,}")
        out = tuple(
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(space, self.kernel, self.strides, self.pads, self.dilations, strict=True)
        )
        if min(out, default=1) < 1:
            raise FormatError(f"kernel {self.kernel} does not fit into an input of size {tuple(space)}")
        return out

    def sources(
        self, offset: Sequence[int], space: Sequence[int], out_space: Sequence[int]
    ) -> tuple[IndexArray, IndexArray]:
        """For one entry of the kernel: the flat output places that see an input, and which flat place they see."""
        index = np.zeros((1,) * len(space), np.int64)
        inside = np.ones((1,) * len(space), bool)
        for axis, (k, n, m) in enumerate(zip(offset, space, out_space, strict=True)):
            at = np.arange(m) * self.strides[axis] + k * self.dilations[axis] - self.pads[axis][0]
            at = at.reshape([-1 if a == axis else 1 for a in range(len(space))])
            index, inside = index * n + at, inside & (at >= 0) & (at < n)
        seen = np.flatnonzero(np.broadcast_to(inside, tuple(out_space)))
        return seen, np.broadcast_to(index, tuple(out_space)).reshape(-1)[seen]

    def covers(self, space: Sequence[int]) -> bool:
        """Whether the kernel sees the whole input at once, so that the convolution is a matrix product."""
        plain = all(p == (0, 0) for p in self.pads) and all(
            d == 1 or k == 1 for d, k in zip(self.dilations, self.kernel, strict=True)
        )
        return plain and tuple(space) == self.kernel


def convolution(
    weight: ExactArray, shape: Sequence[int], window: Window, groups: int = 1
) -> tuple[ExactArray, tuple[int, ...]]:
    """A convolution as a dense matrix, O(outputs * inputs) memory.

    Args:
        weight: (M, C / groups, *kernel).
        shape: (C, *space) of one input.
        window: strides, pads, dilations.
        groups: number of groups of channels.

    Returns:
        (matrix, output shape (M, *space_out)); rows and columns are in C order.

    Raises:
        FormatError: if the shapes do not fit.
        UnsupportedError: if the matrix exceeds `MAX_ENTRIES`.

    >>> slide = Window((2,), (1,), ((0, 0),), (1,))
    >>> convolution(np.array([[[1.0, 2.0]]]), (1, 3), slide)[0].tolist()
    [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]
    """
    channels, space = shape[0], tuple(shape[1:])
    out_space = window.output(space)
    outputs = weight.shape[0]
    if groups < 1 or channels % groups or outputs % groups or weight.shape[1] != channels // groups:
        raise FormatError(f"kernel {weight.shape} with {groups} groups does not fit {channels} input channels")
    places, size, area = math.prod(out_space), math.prod(shape), math.prod(space)
    require_size(outputs * places, size)
    out = np.zeros((outputs, places, size), weight.dtype)
    per_in, per_out = channels // groups, outputs // groups
    for offset in grid(*(range(k) for k in window.kernel)):
        seen, source = window.sources(offset, space, out_space)
        if not seen.size:
            continue
        for group in range(groups):
            rows = np.arange(group * per_out, (group + 1) * per_out)
            inner = np.arange(group * per_in, (group + 1) * per_in)
            columns = source[:, None] + area * inner
            kernel: tuple[Any, ...] = (rows, slice(None), *offset)
            out[rows[:, None, None], seen[:, None], columns] = weight[kernel][:, None, :]
    return out.reshape(outputs * places, size), (outputs, *out_space)


def average_pool(shape: Sequence[int], window: Window, *, include_pad: bool = False) -> tuple[Affine, tuple[int, ...]]:
    """Average pooling as an affine map of the flat input, and its output shape.

    Raises:
        UnsupportedError: if the window has more than `MAX_WINDOW` entries over all channels.
    """
    if shape[0] * math.prod(window.kernel) > MAX_WINDOW:
        raise UnsupportedError(f"a window {window.kernel} over {shape[0]} channels is too large to unroll")
    kernel = np.ones((shape[0], 1, *window.kernel), np.float32)
    matrix, out_shape = convolution(kernel, shape, window, groups=shape[0])
    counts = (
        np.full(matrix.shape[0], float(math.prod(window.kernel))) if include_pad else matrix.sum(1, dtype=np.float64)
    )
    return Affine(math.prod(shape), matrix).scaled(reciprocal(counts)), out_shape


def normalisation(
    gamma: ExactArray, beta: ExactArray, mean: ExactArray, variance: ExactArray, epsilon: Fraction
) -> tuple[ExactArray, ExactArray, bool]:
    """Batch normalisation at inference as z -> scale z + shift, each (channels,).

    scale = gamma / sqrt(variance + epsilon), rational only by chance: then it is exact, else the nearest float64;
    shift = beta - mean scale is exact for that scale.

    Returns:
        (scale, shift, whether every scale is exact).

    Raises:
        FormatError: if variance + epsilon is not positive.

    >>> one = np.ones(1)
    >>> scale, shift, exact = normalisation(one, one, one, 4 * one, Fraction(0))
    >>> scale.tolist(), shift.tolist(), exact
    ([0.5], [0.5], True)
    """
    scales: list[Fraction] = []
    exact = True
    for g, v in zip(rationals.fractions(gamma), rationals.fractions(variance), strict=True):
        spread = v + epsilon
        if spread <= 0:
            raise FormatError(f"variance + epsilon is {float(spread):g}; expected a positive number")
        root, clean = square_root(g * g / spread)
        scales.append(root if g >= 0 else -root)
        exact = exact and clean
    scale = rationals.simplified(np.array(scales, dtype=object))
    return scale, rationals.add(beta, negated(product(mean, scale))), exact


def square_root(q: Fraction) -> tuple[Fraction, bool]:
    """Square root of q and True if it is rational, else the nearest float64 and False.

    >>> square_root(Fraction(9, 4))
    (Fraction(3, 2), True)
    """
    top, bottom = math.isqrt(q.numerator), math.isqrt(q.denominator)
    if top * top == q.numerator and bottom * bottom == q.denominator:
        return Fraction(top, bottom), True
    # 80 bits or more of the root, then half a unit: never on a tie of float64, so float() rounds the true value
    shift = max(0, 160 - q.numerator.bit_length() + q.denominator.bit_length())
    shift += shift % 2
    root = math.isqrt((q.numerator << shift) // q.denominator)
    return Fraction(float(Fraction(2 * root + 1, 2 * 2 ** (shift // 2)))), False
