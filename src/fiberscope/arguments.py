"""Arguments as users give them: arrays, numbers, words, dtypes and seeds are read, or refused in one line."""

from __future__ import annotations

import contextlib
import difflib
import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Rational, Real
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

FLOAT_DTYPES = ("float16", "float32", "float64")
"""Names of the float dtypes that weights are kept in."""

_WHOLE = 2.0**53
"""Up to here every integer is a float64."""

_FLOATS = f"{', '.join(FLOAT_DTYPES[:-1])} or {FLOAT_DTYPES[-1]}"


def plain(values: Any) -> Any:
    """A framework's tensor as a NumPy array, detached and on the CPU; bfloat16 is widened to float32, exactly.

    >>> plain([1.0, 2.0])
    [1.0, 2.0]
    """
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    if getattr(getattr(values, "dtype", None), "name", "") == "bfloat16":
        values = np.asarray(values).astype(np.float32)
    return values


def shown(value: Any, limit: int = 60) -> str:
    """What was given, short enough for a message.

    >>> shown("x" * 100, 10)
    "'xxxxxx..."
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def kind_of(value: Any) -> str:
    """The type of what was given, for a message.

    >>> kind_of([]), kind_of(np.zeros(1))
    ('list', 'numpy.ndarray')
    """
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def as_exact(values: Any, name: str) -> ExactArray:
    """An exact array (see `rationals`) of floats, integers or rationals of any shape.

    Args:
        values: array, nested lists, or a framework's tensor.
        name: what it is, in words that begin the message.

    Raises:
        InputError: if rows have different lengths, or an entry is no number; NaN and infinities pass in float arrays.

    >>> as_exact([[1, 2]], "W1").tolist()
    [[1.0, 2.0]]
    """
    array = _rectangular(values, name)
    try:
        return rationals.exact_array(_unrounded(values, array))
    except TypeError as exc:
        raise InputError(f"{name}: {exc}") from exc
    except (ValueError, OverflowError) as exc:  # NaN or an infinity among rationals
        raise InputError(f"{name}: NaN or an infinity among its entries; give finite numbers") from exc


def _unrounded(values: Any, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same entries as objects where NumPy has made floats of integers beside floats and may have rounded them."""
    if array.dtype.kind != "f" or hasattr(values, "dtype") or not (np.abs(array) >= _WHOLE).any():
        return array
    if not np.isfinite(array).all():
        return array
    objects = np.asarray(values, dtype=object)
    if objects.shape != array.shape or not any(isinstance(v, int | np.integer) for v in objects.reshape(-1)):
        return array
    return rationals.simplified(rationals.exact_array(objects))


def as_floats(values: Any, name: str, dtype: npt.DTypeLike | None = np.float64) -> npt.NDArray[Any]:
    """A float array of any shape; NaN and infinities pass. The caller's array is returned if it has that dtype.

    Args:
        values: array, nested lists, or a framework's tensor; integers and rationals are rounded to nearest.
        name: what it is, in words that begin the message.
        dtype: float dtype; None keeps that of a float array and is float64 for others.

    Raises:
        InputError: if rows have different lengths, or an entry is no number.

    >>> as_floats([1, 2], "input").tolist()
    [1.0, 2.0]
    """
    if type(values) is np.ndarray and values.dtype == (dtype or values.dtype) and values.dtype.kind == "f":
        return values  # called with every evaluation
    array = _rectangular(values, name)
    dtype = dtype or (array.dtype if array.dtype.kind == "f" else np.float64)
    if array.dtype.kind in "fiub":
        with np.errstate(over="ignore"):
            return array.astype(dtype, copy=False)
    strange = next((v for v in array.reshape(-1) if not isinstance(v, Rational | float | np.number)), None)
    if array.dtype != object or not array.size or strange is not None:
        what = shown(strange if array.dtype == object and array.size else values)
        raise InputError(f"{name}: {what} is no number; expected an array of floats or integers")
    endless = np.array([isinstance(v, float | np.floating) and not np.isfinite(v) for v in array.reshape(-1)])
    endless = endless.reshape(array.shape)
    found = rationals.nearest_floats(as_exact(np.where(endless, 0, array), name))
    found[endless] = array[endless].astype(np.float64)
    return found.astype(dtype, copy=False)


def _rectangular(values: Any, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(plain(values))
    except (TypeError, ValueError, RuntimeError, OverflowError) as exc:
        if "inhomogeneous" in str(exc):
            raise InputError(f"{name}: rows of different lengths; give a rectangular array") from exc
        raise InputError(f"{name}: {' '.join(str(exc).split())}") from exc


def as_count(value: Any, name: str, least: int = 0) -> int:
    """A whole number of at least `least`.

    Raises:
        InputError: if it is none; True and 2.0 are none.

    >>> as_count(np.int64(3), "number of inputs")
    3
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{name}: {shown(value)}; give a whole number >= {least}")
    return number


def require_finite(array: ExactArray, name: str) -> None:
    """Refuse an array (floats, integers or rationals) with NaN or an infinity in it.

    Raises:
        InputError: if there is one.

    >>> require_finite(np.array([1.0, 2.0]), "x")
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{name}: NaN or an infinity among its entries; give finite numbers")


def as_finite(values: Any, name: str) -> FloatArray:
    """A float64 array of finite numbers, of any shape; the caller's own if it is one already.

    Raises:
        InputError: if an entry is no finite number.

    >>> as_finite([[1, 2]], "x").shape
    (1, 2)
    """
    found: FloatArray = as_floats(values, name)
    require_finite(found, name)
    return found


def as_number(
    value: object, name: str, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """A finite number within bounds; a scalar of NumPy or a tensor without axes is one.

    Raises:
        InputError: for anything else; True is no number.

    >>> as_number(np.float32(0.5), "share", above=0, most=1)
    0.5
    """
    given: Any = value
    if getattr(given, "ndim", None) == 0 and hasattr(given, "item"):
        given = given.item()
    number = math.nan
    with contextlib.suppress(OverflowError):
        number = math.nan if isinstance(given, bool) or not isinstance(given, Real) else float(given)
    if math.isfinite(number) and least <= number <= most and number > above:
        return number
    ends = (("> ", above), (">= ", least), ("<= ", most))
    bounds = " and ".join(f"{sign}{end:g}" for sign, end in ends if math.isfinite(end))
    raise InputError(f"{name}: {shown(value)}; give a finite number{' ' if bounds else ''}{bounds}")


def as_counts(values: object, name: str, least: int = 1) -> tuple[int, ...]:
    """At least one whole number, as they are given.

    Raises:
        InputError: for a lone number, a text, nothing, or an entry that is no whole number of at least `least`.

    >>> as_counts(np.array([2, 5]), "widths")
    (2, 5)
    """
    given = list(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else []
    try:
        if given:
            return tuple(as_count(v, name, least) for v in given)
    except InputError:
        pass
    raise InputError(f"{name}: {shown(values)}; give a list of whole numbers >= {least}")


def as_sizes(**given: object) -> tuple[int, ...]:
    """Whole numbers of at least 1, in the order of their names.

    Raises:
        InputError: for the first that is none.

    >>> as_sizes(inputs=2, hidden=np.int64(3))
    (2, 3)
    """
    return tuple(as_count(value, name, 1) for name, value in given.items())


def as_switch(value: object, name: str) -> bool:
    """True or False, and nothing that merely counts as one of them.

    Raises:
        InputError: for anything else; "no" and None are neither.

    >>> as_switch(np.bool_(True), "bias")
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}: {shown(value)}; give True or False")
    return bool(value)


def as_choice(value: object, name: str, allowed: Sequence[str]) -> str:
    """One of some words.

    Raises:
        InputError: for any other; the allowed ones are named, and the nearest.

    >>> as_choice("auto", "method", ("auto", "Heun"))
    'auto'
    """
    if isinstance(value, str) and value in allowed:
        return value
    hint = ""
    if isinstance(value, str):
        words = {word.lower(): word for word in allowed}
        near = difflib.get_close_matches(value.lower(), words, n=1)
        hint = f"did you mean {words[near[0]]!r}? " if near else ""
    raise InputError(f"{name}: {shown(value)}; {hint}give {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}")


def as_float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """A float dtype that weights are kept in.

    Raises:
        InputError: if it is none of `FLOAT_DTYPES`.

    >>> as_float_dtype("float32")
    dtype('float32')
    """
    try:
        out = np.dtype(dtype)
    except TypeError as exc:
        raise InputError(f"dtype {shown(dtype)} is unknown; choose {_FLOATS}") from exc
    if out.name not in FLOAT_DTYPES:
        raise InputError(f"dtype {out.name} is no float dtype; choose {_FLOATS}")
    return out


def as_generator(seed: np.random.Generator | SupportsIndex | None) -> np.random.Generator:
    """A generator of random numbers, from a seed or as it is; NumPy's global state is never touched.

    Raises:
        InputError: if the seed is no whole number >= 0, sequence of them, generator or None.

    >>> as_generator(0).integers(10)
    np.int64(8)
    """
    try:
        if isinstance(seed, bool | np.bool_):
            raise TypeError("a switch is no seed")
        return np.random.default_rng(seed)  # type: ignore[arg-type]
    except (TypeError, ValueError) as exc:
        raise InputError(f"seed {shown(seed)}; give a whole number >= 0 or a numpy.random.Generator") from exc
