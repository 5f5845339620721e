"""Exact linear algebra by FLINT: products, echelon forms, ranks and kernels over Q and modulo a prime."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fiberscope.rationals.arrays import ExactArray, exact_array, simplified
from fiberscope.rationals.sums import integers


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
