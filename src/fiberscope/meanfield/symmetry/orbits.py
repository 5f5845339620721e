"""Rows and the orbits they form: distinct rows, images found among rows, and the words that unfold representatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SignedMap = tuple[IntArray, FloatArray]


@dataclass(frozen=True, eq=False)
class Orbits:
    """Rows as images of representatives: row j is T_j applied to the representative `label[j]`.

    Args:
        rows: (r,) index of each representative among the rows.
        label: (m,) which representative each row comes from.
        counts: (r,) rows of each orbit.
        permutations: (m, d) and signs (m, d) with row_j = signs[j] * representative[permutations[j]], or None.
        signs: see above.
        matrices: (m, d, d) T_j where these are not signed permutations, else None.
    """

    rows: IntArray
    label: IntArray
    counts: IntArray
    permutations: IntArray | None
    signs: FloatArray | None
    matrices: FloatArray | None

    def unfold(self, representatives: ArrayLike) -> FloatArray:
        """All rows from the representatives: (r, d) -> (m, d); no rounding for signed permutations. O(m d)."""
        found = np.asarray(representatives, float)[self.label]
        if self.matrices is not None:
            turned: FloatArray = np.einsum("mij,mj->mi", self.matrices, found)
            return turned
        if self.permutations is None or self.signs is None:
            return found
        moved: FloatArray = np.take_along_axis(found, self.permutations, axis=1) * self.signs
        return moved


class RowSet:
    """Distinct rows in the order found; exact, or up to a tolerance."""

    def __init__(self, width: int, *, exact: bool, tolerance: float) -> None:
        self._blocks: list[FloatArray] = []
        self._known: set[bytes] = set()
        self._width = width
        self._exact = exact
        self._tolerance = tolerance

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    @property
    def rows(self) -> FloatArray:
        """All of them, (n, width)."""
        return np.concatenate(self._blocks) if self._blocks else np.zeros((0, self._width))

    def add(self, rows: FloatArray) -> FloatArray:
        """The new ones among them."""
        fresh = self._add_exact(rows) if self._exact else self._add_near(rows)
        if len(fresh):
            self._blocks.append(fresh)
        return fresh

    def _add_exact(self, rows: FloatArray) -> FloatArray:
        keep = []
        for k, row in enumerate(np.ascontiguousarray(rows)):
            key = row.tobytes()
            if key not in self._known:
                self._known.add(key)
                keep.append(k)
        return rows[keep]

    def _add_near(self, rows: FloatArray) -> FloatArray:
        from scipy.spatial import cKDTree

        radius = self._tolerance * max(1.0, float(np.max(np.linalg.norm(rows, axis=1), initial=0.0)))
        if self._blocks and len(rows):
            distance, _ = cKDTree(self.rows).query(rows)
            rows = rows[distance > radius]
        if len(rows) < 2:
            return rows
        close = cKDTree(rows).query_pairs(radius, output_type="ndarray")
        fresh: FloatArray = np.delete(rows, np.unique(close.max(axis=1)), axis=0) if len(close) else rows
        return fresh


class Matcher:
    """Finds for images of rows under one generator which rows they are, as a bijection."""

    def __init__(self, rows: FloatArray, labels: FloatArray, *, exact: bool, tolerance: float) -> None:
        self._rows, self._labels, self._exact = rows, labels, exact
        self._radius = tolerance * max(float(np.max(np.linalg.norm(rows, axis=1), initial=0.0)), 1e-300)

    def image(self, moved: FloatArray, index: int) -> IntArray:
        """Index of the row that each image is.

        Raises:
            InputError: if some image is no row.
        """
        table = np.concatenate([self._rows, self._labels], axis=1)
        wanted = np.concatenate([moved, self._labels], axis=1)
        # sorting both sides pairs equal rows, repeated ones among them, one to one
        found = np.empty(len(table), dtype=np.int64)
        if self._exact:
            left, right = np.lexsort(table.T[::-1]), np.lexsort(wanted.T[::-1])
            if not np.array_equal(table[left], wanted[right]):
                self._refuse(table, wanted, index)
            found[right] = left
            return found
        return self._near(table, wanted, index)

    def _near(self, table: FloatArray, wanted: FloatArray, index: int) -> IntArray:
        from scipy.spatial import cKDTree

        # one class per set of rows that lie together; images are then paired within a class
        distance, nearest = cKDTree(table).query(wanted)
        if float(np.max(distance, initial=0.0)) > self._radius:
            self._refuse(table, wanted, index)
        classes = np.arange(len(table))
        for a, b in cKDTree(table).query_pairs(2 * self._radius, output_type="ndarray"):
            classes[classes == classes[b]] = classes[a]
        sources, targets = np.argsort(classes[nearest], kind="stable"), np.argsort(classes, kind="stable")
        if not np.array_equal(classes[nearest][sources], classes[targets]):
            raise InputError(f"rows that coincide are not as many all over an orbit of generator {index}")
        found = np.empty(len(table), dtype=np.int64)
        found[sources] = targets
        return found

    def _refuse(self, table: FloatArray, wanted: FloatArray, index: int) -> None:
        from scipy.spatial import cKDTree

        distance, _ = cKDTree(table).query(wanted)
        worst = int(np.argmax(distance))
        if distance[worst] == 0.0:
            raise InputError(f"rows that are equal are not as many all over an orbit of generator {index}")
        raise InputError(
            f"the rows are not a union of orbits: generator {index} moves row {worst} to no row "
            f"(with equal labels); the nearest is {distance[worst]:.3g} away"
        )


def unfolding(
    maps: Sequence[FloatArray], parts: Sequence[SignedMap] | None, d: int, m: int, images: Sequence[IntArray]
) -> Orbits:
    """Breadth first: each row gets a word that leads to it from its representative.

    Args:
        maps: the generators as matrices.
        parts: the same as signed permutations, or None.
        d: dimension.
        m: number of rows.
        images: which row each generator makes of each row.

    >>> flip = np.diag([-1.0, 1.0])
    >>> unfolding([flip], None, 2, 2, [np.array([1, 0])]).unfold([[3.0, 1.0]]).tolist()
    [[3.0, 1.0], [-3.0, 1.0]]
    """
    label, source, through = np.full(m, -1), np.full(m, -1), np.full(m, -1)
    waves: list[IntArray] = []
    rows: list[int] = []
    for start in range(m):
        if label[start] >= 0:
            continue
        label[start] = len(rows)
        rows.append(start)
        wave = np.array([start])
        while len(wave):
            fresh = []
            for k, image in enumerate(images):
                target = image[wave]
                new = label[target] < 0
                label[target[new]], source[target[new]], through[target[new]] = label[start], wave[new], k
                fresh.append(target[new])
            wave = np.concatenate(fresh) if fresh else wave[:0]
            if len(wave):
                waves.append(wave)
    counts = np.bincount(label, minlength=len(rows)).astype(np.int64)
    index = np.array(rows, dtype=np.int64)
    if parts is None:
        matrices = np.broadcast_to(np.eye(d), (m, d, d)).copy()
        for wave in waves:
            steps = np.stack([maps[k] for k in through[wave]])
            matrices[wave] = steps @ matrices[source[wave]]
        return Orbits(index, label, counts, None, None, matrices)
    perms, signs = np.tile(np.arange(d), (m, 1)), np.ones((m, d))
    for wave in waves:
        step_perm = np.stack([parts[k][0] for k in through[wave]])
        step_sign = np.stack([parts[k][1] for k in through[wave]])
        perms[wave] = np.take_along_axis(perms[source[wave]], step_perm, axis=1)
        signs[wave] = np.take_along_axis(signs[source[wave]], step_perm, axis=1) * step_sign
    return Orbits(index, label, counts, perms, signs, None)
