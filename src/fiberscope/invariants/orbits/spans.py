"""Numerical rank of a family of rows, with the gap between what was kept and what was dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TOLERANCE = 1e-9
"""Relative singular values below are dropped ..."""
GAP = 1e3
"""... and the smallest kept one must be this many times the largest dropped one, or the rank is only a lower bound."""
DENSE = 1200


@dataclass(frozen=True, eq=False)
class Span:
    """Rank of some rows in floating point.

    Args:
        rank: number of singular values kept.
        kept: the smallest one kept, relative to the largest (0 if none).
        dropped: the largest one dropped, relative (0 if none).
        basis: (rank, M) orthonormal rows that span the same space, None for large ones.
    """

    rank: int
    kept: float
    dropped: float
    basis: FloatArray | None

    @property
    def clear(self) -> bool:
        """Whether the gap leaves no doubt: `GAP` between kept and dropped."""
        return self.rank == 0 or self.kept >= GAP * self.dropped


def span_of(rows: npt.NDArray[Any], *, tolerance: float = TOLERANCE, basis: bool = True) -> Span:
    """Numerical rank of the rows, each scaled to length 1.

    Args:
        rows: (B, M).
        tolerance: relative singular values below it are dropped.
        basis: whether to keep one, which takes twice as long.

    Returns:
        The rank with its gap. Singular values up to 1200 rows or columns; beyond, the diagonal of a QR factorisation,
        which serves as well where the rows are in random order (each entry is the distance of a row to the span of
        those before it). O(B M min(B, M)).

    >>> span_of(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])).rank
    2
    """
    values = np.asarray(rows, dtype=np.float64)
    size = np.sqrt(np.einsum("ij,ij->i", values, values))
    live = size > 1e-150  # what is smaller is rounding of zero
    values = values[live] / size[live][:, None]
    if not values.size:
        return Span(0, 0.0, 0.0, np.zeros((0, rows.shape[1])))
    if min(values.shape) <= DENSE:
        if not basis:
            return Span(*_cut(np.linalg.svd(values, compute_uv=False), tolerance), None)
        _, spectrum, right = np.linalg.svd(values, full_matrices=False)
        rank, kept, dropped = _cut(spectrum, tolerance)
        return Span(rank, kept, dropped, right[:rank])
    from scipy.linalg import qr

    corner = qr(np.asfortranarray(values.T), mode="r", overwrite_a=True, check_finite=False)[0]
    spectrum = np.sort(np.abs(np.diagonal(corner)))[::-1]
    return Span(*_cut(spectrum, tolerance), None)


class GrowingSpan:
    """The span of rows in floating point, grown in chunks: how many of them are new, by Householder reflections.

    Each row's distance to the span of those before it decides, which serves as well as singular values where rows are
    in random order. A chunk is reflected by the blocks I - V T V' before it, then factored itself.

    Args:
        columns: length M of the rows.
        tolerance: distances below it (of rows of length 1) are rounding.

    Complexity: 2 rank^2 (M - rank / 3) flops for all rows together, instead of once for each depth of brackets.

    >>> space = GrowingSpan(3)
    >>> space.add(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])), space.add(np.eye(3)), space.rank
    (1, 2, 3)
    """

    def __init__(self, columns: int, *, tolerance: float = TOLERANCE) -> None:
        """An empty span."""
        self.columns = columns
        self.tolerance = tolerance
        self.rank = 0
        self.kept = 1.0
        self.dropped = 0.0
        self._blocks: list[tuple[FloatArray, FloatArray]] = []

    @property
    def span(self) -> Span:
        """Rank and gap so far, without a basis."""
        return Span(self.rank, self.kept if self.rank else 0.0, self.dropped, None)

    def add(self, rows: npt.NDArray[Any]) -> int:
        """Add rows (B, M), each scaled to length 1, zeros left out; return by how much the rank grew."""
        from scipy.linalg import qr, solve_triangular

        values = np.asarray(rows, dtype=np.float64)
        size = np.sqrt(np.einsum("ij,ij->i", values, values))
        live = size > 1e-150
        rest = np.ascontiguousarray((values[live] / size[live][:, None]).T)
        for reflectors, triangle in self._blocks:
            inner = solve_triangular(triangle, reflectors.T @ rest, trans="T", check_finite=False)
            rest -= reflectors @ inner
            rest = rest[reflectors.shape[1] :]
        if not rest.size or self.rank == self.columns:
            return 0
        (packed, scales), corner = qr(rest, mode="raw", check_finite=False)
        new, left = self._leading(corner)
        if left > self.tolerance:  # rows that are not in random order: largest first
            (packed, scales), corner, _ = qr(rest, mode="raw", pivoting=True, check_finite=False)
            new, left = self._leading(corner)
        self.dropped = max(self.dropped, left)
        if new:
            self.kept = min(self.kept, float(np.abs(np.diagonal(corner)[:new]).min()))
            self.rank += new
        if new and self.rank < self.columns:
            reflectors = np.tril(packed[:, :new], -1)
            np.fill_diagonal(reflectors, 1.0)
            triangle = np.triu(reflectors.T @ reflectors, 1)
            np.fill_diagonal(triangle, 1.0 / scales[:new])
            self._blocks.append((reflectors, triangle))
        return new

    def _leading(self, corner: FloatArray) -> tuple[int, float]:
        """How many leading columns of a triangle are new, and the largest distance of another one to their span."""
        small = np.abs(np.diagonal(corner)) <= self.tolerance
        new = int(np.argmax(small)) if small.any() else len(small)
        rest = corner[new:, new:]
        return new, float(np.sqrt(np.einsum("ij,ij->j", rest, rest)).max(initial=0.0))


def _cut(spectrum: FloatArray, tolerance: float) -> tuple[int, float, float]:
    relative = spectrum / spectrum[0]
    rank = int((relative > tolerance).sum())
    return rank, float(relative[rank - 1]), float(relative[rank]) if rank < len(relative) else 0.0
