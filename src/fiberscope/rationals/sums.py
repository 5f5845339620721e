"""Exact sums and products with numbers: in floats as long as nothing is rounded, which is checked, else over Q."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.rationals.arrays import ExactArray, FloatArray, fractions, is_rational, mapped, simplified

_WORD = 62
"""Bits a sum may use in int64 without overflow."""


def add(a: ExactArray, b: ExactArray) -> ExactArray:
    """Exact sum, elementwise with broadcasting: Knuth's two-sum in float64, rationals where it would round.

    >>> add(np.array([0.1]), np.array([0.2])).dtype == object
    True
    """
    if not is_rational(a) and not is_rational(b):
        x, y = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            total = x + y
            shift = total - x
            error = (x - (total - shift)) + (y - shift)
        if np.isfinite(total).all() and not error.any():
            return np.asarray(total)
    return simplified(np.asarray(fractions(a) + fractions(b)))


def scale(a: ExactArray, factor: Fraction) -> ExactArray:
    """Exact product of an array with one rational number."""
    if factor == 1:
        return a
    if not is_rational(a):
        numerator, denominator = factor.numerator, factor.denominator
        power_of_two = denominator & (denominator - 1) == 0 and abs(numerator) & (abs(numerator) - 1) == 0
        if power_of_two and 2**-900 < abs(factor) < 2**100 or factor == 0:
            out = a.astype(np.float64) * float(factor)
            magnitude = np.abs(out[a != 0])
            if np.isfinite(out).all() and (factor == 0 or not magnitude.size or magnitude.min() > 1e-290):
                return np.asarray(out)
    return simplified(np.asarray(fractions(a) * factor))


def total(rows: ExactArray) -> ExactArray:
    """Exact sum of the rows of a (k, m) array, (m,). One pass of integer arithmetic.

    >>> total(np.array([[0.5, 1.0], [0.25, 2.0]])).tolist()
    [0.75, 3.0]
    """
    if len(rows) == 2:
        return add(rows[0], rows[1])
    ints, unit = integers(rows)
    return simplified(mapped(lambda v: v * unit, np.asarray(ints.sum(axis=0), dtype=object)))


def dyadic(array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Write a float array as integers times one power of two, array = ints * 2**exponent.

    Returns:
        (ints, exponent): ints is int64 when every entry and any sum of a row's length fits, else Python integers.

    >>> ints, exponent = dyadic(np.array([0.5, 3.0]))
    >>> ints.tolist(), exponent
    ([1, 6], -1)
    """
    values = array.astype(np.float64)
    mantissa, power = np.frexp(values)
    ints = np.ldexp(mantissa, 53).astype(np.int64)
    power = power.astype(np.int64) - 53
    live = ints != 0
    if not live.any():
        return ints, 0
    low = np.where(live, ints & -ints, 1)  # lowest set bit, a power of two
    zeros = np.frexp(low.astype(np.float64))[1].astype(np.int64) - 1
    ints, power = ints >> zeros, power + zeros
    exponent = int(power[live].min())
    shift = np.where(live, power - exponent, 0)
    bits = np.frexp(np.abs(ints).astype(np.float64))[1] + shift
    room = _WORD - max(1, array.shape[-1] if array.ndim else 1).bit_length()
    if int(bits.max()) <= room:
        return np.asarray(ints << shift), exponent
    out = ints.astype(object) << shift.astype(object)
    return np.asarray(out), exponent


def integers(array: ExactArray) -> tuple[npt.NDArray[Any], Fraction]:
    """Write an exact array as Python integers times one positive rational unit, array = ints * unit."""
    if not is_rational(array):
        ints, exponent = dyadic(array)
        return ints.astype(object), Fraction(2) ** exponent
    lcm = math.lcm(1, *(q.denominator for q in array.reshape(-1)))
    return mapped(lambda q: int(q.numerator * (lcm // q.denominator)), array), Fraction(1, lcm)


def primitive_rows(array: ExactArray) -> tuple[ExactArray, ExactArray]:
    """Divide each row by the positive rational that makes it primitive: integers without a common divisor.

    Args:
        array: (m, n) exact array.

    Returns:
        (rows, units): array[i] = units[i] * rows[i] exactly; zero rows keep unit 1. rows is float64 wherever the array
        is float, since a divisor only shortens a mantissa; units is (m,) of `Fraction`. O(m n), vectorised for floats.

    >>> rows, units = primitive_rows(np.array([[0.75, -1.5], [0.0, 0.0]]))
    >>> rows.tolist(), [str(u) for u in units]
    ([[1.0, -2.0], [0.0, 0.0]], ['3/4', '1'])
    """
    units = np.empty(len(array), dtype=object)
    if not is_rational(array):
        done = _primitive_floats(array.astype(np.float64))
        if done is not None:
            rows, divisor, exponent = done
            units[:] = [Fraction(int(g)) * Fraction(2) ** int(e) for g, e in zip(divisor, exponent, strict=True)]
            return rows, units
    table = fractions(array)
    out = np.empty(table.shape, dtype=object)
    for i, row in enumerate(table):
        below = math.lcm(1, *(q.denominator for q in row))
        above = math.gcd(*(q.numerator * (below // q.denominator) for q in row)) or below
        units[i] = Fraction(above, below)
        out[i] = [q / units[i] for q in row]
    return simplified(out), units


def _odd_parts(values: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Values as odd integers (or 0) times powers of two."""
    mantissa, power = np.frexp(values)
    ints = np.ldexp(mantissa, 53).astype(np.int64)
    low = np.where(ints != 0, ints & -ints, 1)
    zeros = np.frexp(low.astype(np.float64))[1].astype(np.int64) - 1
    return ints >> zeros, np.where(ints != 0, power.astype(np.int64) - 53 + zeros, 0)


def _primitive_floats(
    values: FloatArray,
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """(rows, divisors, exponents) with values = divisor 2^exponent rows, or None where a row's range is too wide."""
    ints, power = _odd_parts(values)
    live = ints != 0
    some = live.any(axis=1)
    lowest = np.where(live, power, np.iinfo(np.int64).max).min(axis=1, initial=np.iinfo(np.int64).max)
    lowest = np.where(some, lowest, 0)
    divisor = np.gcd.reduce(ints[:, :16], axis=1) if values.shape[1] else np.ones(len(values), dtype=np.int64)
    rest = np.flatnonzero(divisor != 1)  # most rows have no common divisor among their first entries
    if rest.size:
        divisor[rest] = np.gcd.reduce(ints[rest], axis=1)
    divisor = np.where(some, np.abs(divisor), 1)
    shift = np.where(live, power - lowest[:, None], 0)
    if int(shift.max(initial=0)) > 960:
        return None
    return np.ldexp((ints // divisor[:, None]).astype(np.float64), shift), divisor, lowest


def scale_columns(array: ExactArray, factors: Sequence[Fraction]) -> ExactArray:
    """Multiply column j by factors[j], exactly; in floats where every product is one.

    >>> scale_columns(np.array([[1.0, 2.0]]), [Fraction(1, 2), Fraction(3)]).tolist()
    [[0.5, 6.0]]
    """
    if all(q == 1 for q in factors):
        return array
    if not is_rational(array):
        out = _float_columns(array.astype(np.float64), factors)
        if out is not None:
            return out
    row = np.empty(len(factors), dtype=object)
    row[:] = list(factors)
    return simplified(np.asarray(fractions(array) * row))


def _float_columns(values: FloatArray, factors: Sequence[Fraction]) -> FloatArray | None:
    """The products in float64 if all are exact: mantissas that fit, exponents well inside the range."""
    odd, power = [], []
    for q in factors:
        if q.denominator & (q.denominator - 1) or not q:
            return None
        twos = (q.numerator & -q.numerator).bit_length() - 1
        odd.append(q.numerator >> twos)
        power.append(twos - q.denominator.bit_length() + 1)
    if max(abs(v) for v in odd) >= 2**53 or max(map(abs, power)) > 900:
        return None
    if all(abs(v) == 1 for v in odd):
        with np.errstate(over="ignore"):
            out = values * np.ldexp(np.array(odd, dtype=np.float64), power)
        size = np.abs(out[values != 0])
        return out if not size.size or (size.min() > 1e-290 and size.max() < 1e290) else None
    ints, place = _odd_parts(values)
    bits = np.frexp(np.abs(ints).astype(np.float64))[1].max(axis=0, initial=0)
    if (bits + np.array([abs(v).bit_length() for v in odd]) > 53).any():
        wide = np.abs(ints).max(axis=0, initial=0).astype(object) * np.array([abs(v) for v in odd], dtype=object)
        if any(v >= 2**53 for v in wide):
            return None
    exponent = place + np.array(power, dtype=np.int64)
    if (np.abs(np.where(ints != 0, exponent, 0)) > 900).any():
        return None
    return np.ldexp((ints * np.array(odd, dtype=np.int64)).astype(np.float64), exponent)


def scale_rows(array: ExactArray, factors: Sequence[Fraction]) -> ExactArray:
    """Multiply row i of an (m, n) array, or entry i of an (m,) array, by factors[i], exactly."""
    table = array if array.ndim == 2 else array[:, None]
    return scale_columns(table.T, factors).T.reshape(array.shape)
