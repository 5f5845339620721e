"""Ranks modulo a prime of large matrices: elimination in blocks, by float64 matrix products that are exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.autodiff.rings import PRIME
from fiberscope.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_HALF = float(1 << 15)
_BLOCK = 128
"""Centred residues (2^30) times their halves (2^15 and 2^14), summed over a block (2^7), stay below 2^53."""
_CHUNK = 512
"""Rows reduced together."""
_STRIP = 1024
"""Columns multiplied at a time, so that what is reduced modulo the prime is still in the cache."""
SMALL = 250
"""Ranks up to here are left to FLINT."""


class Echelon:
    """The row space of a matrix modulo a prime, grown by rows: its rank, and how much further rows add to it.

    Rows are kept as blocks [I | V] in an order of the columns that puts pivots first: each block is reduced, and zero
    at the pivots of those before it. A new row is reduced by one product with each block.

    Args:
        columns: length of the rows.
        prime: below 2^31.

    Raises:
        InputError: if the modulus is too large.

    Complexity: O(rank) products of 128 columns for each row, 2 rank^2 columns flops in all.

    >>> space = Echelon(3)
    >>> space.add(np.array([[1, 2, 3], [2, 4, 6]])), space.add(np.array([[0, 1, 1], [1, 3, 4]])), space.rank
    (1, 1, 2)
    """

    def __init__(self, columns: int, prime: int = PRIME) -> None:
        """An empty space."""
        if not 2 <= prime < 1 << 31:
            raise InputError(f"modulus {prime}; expected a prime below 2^31")
        self.columns = columns
        self.prime = prime
        self.rank = 0
        self._order = np.arange(columns)
        self._blocks: list[tuple[int, FloatArray]] = []
        self._work = np.empty((2, _CHUNK * min(_STRIP, max(columns, 1))))

    def add(self, rows: npt.ArrayLike) -> int:
        """Add rows of residues (B, columns) and return by how much the rank grew.

        Raises:
            InputError: if the rows have another length.
        """
        table = np.asarray(rows)
        if table.ndim != 2 or table.shape[1] != self.columns or table.dtype.kind not in "iu":
            raise InputError(f"rows of shape {table.shape}; expected integers (B, {self.columns})")
        before = self.rank
        for start in range(0, len(table), _CHUNK):
            if self.rank == self.columns:
                break
            part = table[start : start + _CHUNK][:, self._order] % self.prime
            self._extend(np.where(2 * part > self.prime, part - self.prime, part).astype(np.float64))
        return self.rank - before

    def _extend(self, rows: FloatArray) -> None:
        """Add centred rows whose columns are in the present order."""
        for start, block in self._blocks:
            self._clear(rows, start, block)
        for top in range(0, len(rows), _BLOCK):
            first = self.rank
            fresh, moved = self._reduced(rows[top : top + _BLOCK, first:])
            if not len(fresh):
                continue
            if moved is not None:
                self._order[first:] = self._order[first:][moved]
                _permute(rows[top + _BLOCK :, first:], moved)
                for start, block in self._blocks:
                    _permute(block[:, first - start - len(block) // 2 :], moved)
            self.rank += len(fresh)
            self._blocks.append((first, self._doubled(fresh)))
            self._clear(rows[top + _BLOCK :], *self._blocks[-1])

    def _clear(self, rows: FloatArray, start: int, block: FloatArray) -> None:
        """Subtract multiples of a block, given doubled, so that the rows are zero at its pivots."""
        stop = start + len(block) // 2
        if len(rows) and stop < self.columns:
            self._subtract(rows[:, stop:], rows[:, start:stop], block)

    def _reduced(self, rows: FloatArray) -> tuple[FloatArray, IntArray | None]:
        """Rows [I | V] that span the same: V, and the order of the columns (None if unchanged)."""
        count, width = rows.shape
        if not rows.any():
            return np.zeros((0, width)), None
        if count == 1:
            return self._pivot(rows[0])
        above, order = self._reduced(rows[: count // 2])
        below = rows[count // 2 :]
        if order is not None:
            below = below[:, order]
        have = len(above)
        rest = below[:, have:].copy() if order is None else below[:, have:]
        if have:
            self._subtract(rest, below[:, :have], self._doubled(above))
        under, moved = self._reduced(rest)
        if moved is not None:
            order = np.arange(width) if order is None else order
            order[have:] = order[have:][moved]
            _permute(above, moved)
        if not have or not len(under):
            return (under, order) if not have else (above, order)
        upper = above[:, len(under) :].copy()
        self._subtract(upper, above[:, : len(under)], self._doubled(under))
        return np.concatenate([upper, under]), order

    def _pivot(self, row: FloatArray) -> tuple[FloatArray, IntArray | None]:
        """One row that is not zero, divided by its first entry that is not."""
        at, moved = int(np.argmax(row != 0)), None
        if at:
            moved = np.arange(len(row))
            moved[[0, at]] = at, 0
            row = row[moved]
        inverse = pow(int(row[0]), -1, self.prime)
        scaled = row[None, 1:].astype(np.int64) * inverse % self.prime
        return np.where(2 * scaled > self.prime, scaled - self.prime, scaled).astype(np.float64), moved

    def _doubled(self, block: FloatArray) -> FloatArray:
        """The rows of a block times 2^15, then the rows themselves."""
        high = block * _HALF
        for start in range(0, block.shape[1], _STRIP):
            strip = high[:, start : start + _STRIP]
            self._centre(strip, self._work[1][: strip.size].reshape(strip.shape))
        return np.concatenate([high, block])

    def _subtract(self, rows: FloatArray, factors: FloatArray, doubled: FloatArray) -> None:
        """Rows - factors @ block modulo the prime, in place; all centred, at most 128 factors for each row."""
        high = np.rint(factors / _HALF)
        halves = np.concatenate([high, factors - high * _HALF], axis=1)
        for start in range(0, rows.shape[1], _STRIP):
            strip, part = rows[:, start : start + _STRIP], doubled[:, start : start + _STRIP]
            product, other = (work[: strip.size].reshape(strip.shape) for work in self._work)
            strip -= np.matmul(halves, part, out=product)
            self._centre(strip, other)

    def _centre(self, values: FloatArray, quotient: FloatArray) -> None:
        """Reduce integers up to 2^53 to at most (p + 1) / 2 in size, in place; the second array is scratch."""
        np.multiply(values, 1.0 / self.prime, out=quotient)
        np.rint(quotient, out=quotient)
        quotient *= self.prime
        values -= quotient


def _permute(rows: FloatArray, order: IntArray) -> None:
    """Reorder columns in place, touching only those that move."""
    if len(rows):
        at = np.flatnonzero(order != np.arange(len(order)))
        rows[:, at] = rows[:, order[at]]


def rank_of(rows: IntArray, prime: int = PRIME) -> int:
    """Rank of a matrix of residues modulo a prime below 2^31.

    A matrix over Q whose denominators are units has at least this rank.

    Complexity: 2 rank^2 max(m, n) flops of float64 products; FLINT for small matrices.

    >>> rank_of(np.array([[1, 2], [3, 6]]), 7)
    1
    """
    table = rows if rows.shape[0] <= rows.shape[1] else rows.T
    if table.shape[0] <= SMALL:
        return rationals.rank_mod(np.asarray(table), prime)
    space = Echelon(table.shape[1], prime)
    space.add(table)
    return space.rank
