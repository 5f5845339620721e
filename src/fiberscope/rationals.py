"""Exact arithmetic over Q on arrays: floats are dyadic rationals, everything else is a `Fraction`.

An *exact array* is a NumPy array that is either of a float dtype (each entry is the rational that the float is)
or of object dtype holding `fractions.Fraction`. Functions here take and return exact arrays; they stay in floats as
long as no rounding happens, which is checked, and fall back to rationals otherwise. python-flint is used only here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational
from typing import Any

import numpy as np
import numpy.typing as npt

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_WORD = 62
"""Bits a sum may use in int64 without overflow."""


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
        return simplified(_map(lambda v: Fraction(int(v)), array.astype(object)))
    if array.dtype.kind == "O":
        return _map(as_fraction, array)
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
    return _map(lambda v: Fraction(*np.longdouble(v).as_integer_ratio()), array.astype(object))


def _map(function: Any, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
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
    return _map(Fraction, array.astype(np.float64).astype(object))


def representable(array: ExactArray, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[np.bool_]:
    """Which entries are values of the float dtype.

    >>> representable(exact_array([0.1, 0.5]), np.float32).tolist()
    [False, True]
    """
    target = np.dtype(dtype)
    if not is_rational(array):
        with np.errstate(over="ignore"):
            return np.asarray(array.astype(target).astype(array.dtype) == array)
    return np.asarray(_map(lambda q: _is_float(q, target), array), dtype=bool)


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
    return np.asarray(_map(_nearest_float, array), dtype=np.float64)


def _nearest_float(q: Fraction) -> float:
    try:
        return float(q)
    except OverflowError:
        return math.inf if q > 0 else -math.inf


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
    return simplified(_map(lambda v: v * unit, np.asarray(ints.sum(axis=0), dtype=object)))


def equal(a: ExactArray, b: ExactArray) -> bool:
    """Whether two exact arrays hold the same rational numbers."""
    if a.shape != b.shape:
        return False
    if not is_rational(a) and not is_rational(b):
        return bool(np.array_equal(a.astype(np.float64), b.astype(np.float64)))
    return bool((fractions(a) == fractions(b)).all())


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
    return _map(lambda q: int(q.numerator * (lcm // q.denominator)), array), Fraction(1, lcm)


def matmul(a: ExactArray, b: ExactArray) -> ExactArray:
    """Exact matrix product a @ b, (m, k) times (k, n) or (k,). O(m k n) integer operations in FLINT.

    >>> matmul(np.array([[0.5, 1.0]]), np.array([[2.0], [3.0]])).tolist()
    [[4.0]]
    """
    import flint

    vector = b.ndim == 1
    right = b.reshape(-1, 1) if vector else b
    (x, unit_x), (y, unit_y) = integers(a), integers(right)
    product = flint.fmpz_mat(x.tolist()) * flint.fmpz_mat(y.tolist()) if x.size and y.size else None
    out = np.empty((a.shape[0], right.shape[1]), dtype=object)
    unit = unit_x * unit_y
    if product is None:
        out[...] = Fraction(0)
    else:
        for i, row in enumerate(product.tolist()):
            out[i] = [int(v) * unit for v in row]
    return simplified(out[:, 0] if vector else out)


def row_reduce(array: ExactArray) -> tuple[tuple[int, ...], ExactArray]:
    """Reduced row echelon form over Q.

    Returns:
        (pivots, rref): pivot columns, and the nonzero rows of the form, shape (rank, n).

    >>> pivots, form = row_reduce(exact_array([[1, 2], [2, 4]]))
    >>> pivots, form.tolist()
    ((0,), [[1.0, 2.0]])
    """
    import flint

    ints, _ = integers(array)
    if not ints.size:
        return (), exact_array(np.zeros((0, array.shape[1])))
    form, denominator, count = flint.fmpz_mat(ints.tolist()).rref()
    divisor = int(denominator)
    out = np.empty((count, array.shape[1]), dtype=object)
    pivots = []
    for i in range(count):
        row = [int(form[i, j]) for j in range(array.shape[1])]
        pivots.append(next(j for j, v in enumerate(row) if v))
        out[i] = [Fraction(v, divisor) for v in row]
    return tuple(pivots), simplified(out)


def rank(array: ExactArray) -> int:
    """Exact rank over Q: a rank modulo a 61-bit prime if that is full (a lower bound that meets the upper one).

    >>> rank(exact_array([[1, 2], [2, 4]]))
    1
    """
    import flint

    if not array.size:
        return 0
    ints, _ = integers(array)
    rows = ints.tolist()
    prime = 2**61 - 1
    modular = int(flint.nmod_mat(len(rows), len(rows[0]), [v % prime for row in rows for v in row], prime).rank())
    if modular == min(array.shape):
        return modular
    return int(flint.fmpz_mat(rows).rank())


def rank_mod(rows: npt.NDArray[np.int64], prime: int) -> int:
    """Rank of a matrix of residues modulo a prime. O(m n min(m, n)^0.8) by FLINT.

    A matrix over Q whose denominators are units has at least this rank.

    >>> rank_mod(np.array([[1, 2], [3, 6]]), 7)
    1
    """
    import flint

    if not rows.size:
        return 0
    table = rows if rows.shape[0] <= rows.shape[1] else rows.T
    entries = np.ascontiguousarray(table).reshape(-1).tolist()
    return int(flint.nmod_mat(table.shape[0], table.shape[1], entries, prime).rank())


def text(q: Fraction | int) -> str:
    """A rational as "p/q" or "p"."""
    return str(Fraction(q))


def texts(array: ExactArray) -> list[Any]:
    """Nested lists of "p/q" strings of an exact array."""
    out: list[Any] = _map(text, fractions(array)).tolist()
    return out


def from_texts(values: Sequence[Any], shape: tuple[int, ...]) -> ExactArray:
    """Inverse of `texts` for a known shape.

    Raises:
        ValueError: if an entry is no rational or the number of entries differs.
    """
    flat = np.asarray(values, dtype=object).reshape(-1)
    if flat.size != math.prod(shape):
        raise ValueError(f"{flat.size} entries where shape {shape} needs {math.prod(shape)}")
    return simplified(_map(lambda v: Fraction(str(v)), flat).reshape(shape))


# ---- rows up to a positive factor


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


def canonical_bytes(array: ExactArray) -> bytes:
    """Bytes that depend on the rational values only, whatever dtype holds them; for hashing."""
    plain = simplified(array)
    if is_rational(plain):
        return ("q" + ",".join(str(q) for q in plain.reshape(-1))).encode()
    return b"f" + (plain.astype("<f8") + 0.0).tobytes()  # adding 0.0 makes -0.0 and 0.0 one


def nullspace_mod(rows: npt.NDArray[np.int64], prime: int) -> npt.NDArray[np.int64]:
    """Basis of the kernel of a matrix of residues modulo a prime, (n - rank, n), in reduced row echelon form.

    O(m n min(m, n)^0.8) by FLINT.

    >>> nullspace_mod(np.array([[1, 2, 3]]), 7).tolist()
    [[1, 0, 2], [0, 1, 4]]
    """
    import flint

    count, n = rows.shape
    if not count:
        return np.eye(n, dtype=np.int64)
    kernel, nullity = flint.nmod_mat(count, n, np.ascontiguousarray(rows).reshape(-1).tolist(), prime).nullspace()
    basis = np.array([int(v) for v in kernel.entries()], dtype=np.int64).reshape(n, -1)[:, :nullity].T
    if not nullity:
        return basis
    echelon, _ = flint.nmod_mat(nullity, n, np.ascontiguousarray(basis).reshape(-1).tolist(), prime).rref()
    return np.array([int(v) for v in echelon.entries()], dtype=np.int64).reshape(nullity, n)


def from_residue(residue: int, prime: int) -> Fraction | None:
    """The rational p / q with |p|, q <= sqrt(prime / 2) that has this residue, or None. O(log prime).

    >>> from_residue(3 * pow(2, -1, 101), 101)
    Fraction(3, 2)
    """
    bound = math.isqrt(prime // 2)
    r0, r1, s0, s1 = prime, residue % prime, 0, 1
    while r1 > bound:
        quotient = r0 // r1
        r0, r1, s0, s1 = r1, r0 - quotient * r1, s1, s0 - quotient * s1
    if not s1 or abs(s1) > bound or math.gcd(r1, s1) != 1:
        return None
    return Fraction(r1, s1)
