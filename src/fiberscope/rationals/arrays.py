"""Exact arrays: floats read as the dyadic rationals they are, or `Fraction` objects; conversion, rounding and text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from numbers import Rational
from typing import Any

import numpy as np
import numpy.typing as npt

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


def exact_array(values: npt.ArrayLike) -> ExactArray:
    """An exact array from floats of any dtype, integers, or rationals.

    Integers become float64 when that is exact; objects must be integers or rationals.

    Raises:
        TypeError: if an entry is neither a float, an integer nor a rational.

    >>> exact_array([1, 2]).dtype.name
    'float64'
    >>> exact_array([Fraction(1, 3)])[0]
    Fraction(1, 3)
    """
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return array if array.dtype.itemsize <= 8 else simplified(_fractions_of_long(array))
    if array.dtype.kind in "iub":
        return simplified(mapped(lambda v: Fraction(int(v)), array.astype(object)))
    if array.dtype.kind == "O":
        return mapped(as_fraction, array)
    raise TypeError(f"array of dtype {array.dtype}; expected floats, integers or rationals")


def as_fraction(value: Any) -> Fraction:
    """The exact rational of one entry: a float of any width, an integer or a rational.

    >>> as_fraction(np.float32(0.5))
    Fraction(1, 2)
    """
    if isinstance(value, Fraction):
        return value
    if isinstance(value, Rational | int | float | np.integer | np.floating):
        return Fraction(value if isinstance(value, Rational | int | float) else value.item())
    raise TypeError(f"entry {value!r} of type {type(value).__name__}; expected a float, an integer or a rational")


def _fractions_of_long(array: npt.NDArray[Any]) -> ExactArray:
    return mapped(lambda v: Fraction(*np.longdouble(v).as_integer_ratio()), array.astype(object))


def mapped(function: Callable[[Any], Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The object array of the values of a function, entry by entry; never an array of arrays.

    >>> mapped(Fraction, np.array([0.5]))[0]
    Fraction(1, 2)
    """
    out = np.empty(array.shape, dtype=object)
    flat = out.reshape(-1)
    for k, value in enumerate(array.reshape(-1)):
        flat[k] = function(value)
    return out


def is_rational(array: ExactArray) -> bool:
    """Whether the array holds `Fraction` objects rather than floats."""
    return array.dtype == object


def fractions(array: ExactArray) -> ExactArray:
    """The same values as an object array of `Fraction`. O(size) Python operations.

    >>> fractions(np.array([0.5]))[0]
    Fraction(1, 2)
    """
    if is_rational(array):
        return array
    return mapped(Fraction, array.astype(np.float64).astype(object))


def representable(array: ExactArray, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[np.bool_]:
    """Which entries are values of the float dtype.

    >>> representable(exact_array([0.1, 0.5]), np.float32).tolist()
    [False, True]
    """
    target = np.dtype(dtype)
    if not is_rational(array):
        with np.errstate(over="ignore"):
            return np.asarray(array.astype(target).astype(array.dtype) == array)
    return np.asarray(mapped(lambda q: _is_float(q, target), array), dtype=bool)


def _is_float(q: Fraction, dtype: np.dtype[Any]) -> bool:
    if q.denominator & (q.denominator - 1):
        return False
    try:
        with np.errstate(over="ignore"):
            value = dtype.type(float(q))
    except OverflowError:
        return False
    return bool(np.isfinite(value)) and Fraction(float(value)) == q


def simplified(array: ExactArray) -> ExactArray:
    """The same values in float64 when every entry is a float64, unchanged otherwise."""
    if not is_rational(array):
        return array
    flat = array.reshape(-1)
    out = np.empty(flat.shape, dtype=np.float64)
    for k, q in enumerate(flat):
        if not _is_float(q, np.dtype(np.float64)):
            return array
        out[k] = float(q)
    return out.reshape(array.shape)


def rounded(array: ExactArray, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Round to nearest, ties to even, in a float dtype.

    Raises:
        OverflowError: if a value is beyond the largest finite number of the dtype.

    >>> float(rounded(exact_array([Fraction(1, 3)]), np.float32)[0])
    0.3333333432674408
    """
    target = np.dtype(dtype)
    if not is_rational(array):
        with np.errstate(over="ignore"):
            out = array.astype(target)
        if not np.isfinite(out).all():
            raise OverflowError(f"a weight exceeds the largest {target.name}")
        return out
    flat = array.reshape(-1)
    try:
        wide = np.array([float(q) for q in flat], dtype=np.float64)  # correctly rounded to 53 bits
    except OverflowError as exc:
        raise OverflowError(f"a weight exceeds the largest {target.name}") from exc
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        out = wide.astype(target)
        if target != np.float64:
            # a second rounding can be off by one unit only where the first one landed next to a tie: half a unit from
            # the result, or a quarter below a power of two
            unit = np.abs(np.spacing(out)).astype(np.float64)
            gap = np.abs(wide - out.astype(np.float64)) / unit
            power = np.abs(np.frexp(out)[0]) == 0.5
            for k in np.flatnonzero(~np.isfinite(gap) | (gap > 0.499) | (power & (np.abs(gap - 0.25) < 1e-3))):
                out[k] = _nearest(flat[k], target)
    if not np.isfinite(out).all():
        raise OverflowError(f"a weight exceeds the largest {target.name}")
    return np.asarray(out.reshape(array.shape))


def _nearest(q: Fraction, dtype: np.dtype[Any]) -> Any:
    # float(q) is correctly rounded to 53 bits; a second rounding may be off by one unit, so look at both neighbours
    with np.errstate(over="ignore"):
        first = dtype.type(float(q))
    if not np.isfinite(first):
        raise OverflowError(f"a weight exceeds the largest {dtype.name}")
    with np.errstate(over="ignore", under="ignore"):
        near = [first, np.nextafter(first, dtype.type(np.inf)), np.nextafter(first, dtype.type(-np.inf))]
    candidates = [c for c in near if np.isfinite(c)]
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return min(candidates, key=lambda c: (abs(Fraction(float(c)) - q), int(np.asarray(c).view(unsigned)) & 1))


def nearest_floats(array: ExactArray) -> FloatArray:
    """The nearest float64 of every entry, infinite beyond the largest.

    >>> nearest_floats(exact_array([Fraction(1, 3), Fraction(10) ** 400])).tolist()
    [0.3333333333333333, inf]
    """
    if not is_rational(array):
        return array.astype(np.float64, copy=False)
    return np.asarray(mapped(_nearest_float, array), dtype=np.float64)


def _nearest_float(q: Fraction) -> float:
    try:
        return float(q)
    except OverflowError:
        return math.inf if q > 0 else -math.inf


def equal(a: ExactArray, b: ExactArray) -> bool:
    """Whether two exact arrays hold the same rational numbers."""
    if a.shape != b.shape:
        return False
    if not is_rational(a) and not is_rational(b):
        return bool(np.array_equal(a.astype(np.float64), b.astype(np.float64)))
    return bool((fractions(a) == fractions(b)).all())


def canonical_bytes(array: ExactArray) -> bytes:
    """Bytes that depend on the rational values only, whatever dtype holds them; for hashing."""
    plain = simplified(array)
    if is_rational(plain):
        return ("q" + ",".join(str(q) for q in plain.reshape(-1))).encode()
    return b"f" + (plain.astype("<f8") + 0.0).tobytes()  # adding 0.0 makes -0.0 and 0.0 one


def text(q: Fraction | int) -> str:
    """A rational as "p/q" or "p"."""
    return str(Fraction(q))


def texts(array: ExactArray) -> list[Any]:
    """Nested lists of "p/q" strings of an exact array."""
    out: list[Any] = mapped(text, fractions(array)).tolist()
    return out


def from_texts(values: Sequence[Any], shape: tuple[int, ...]) -> ExactArray:
    """Inverse of `texts` for a known shape.

    Raises:
        ValueError: if an entry is no rational or the number of entries differs.
    """
    flat = np.asarray(values, dtype=object).reshape(-1)
    if flat.size != math.prod(shape):
        raise ValueError(f"{flat.size} entries where shape {shape} needs {math.prod(shape)}")
    return simplified(mapped(lambda v: Fraction(str(v)), flat).reshape(shape))
