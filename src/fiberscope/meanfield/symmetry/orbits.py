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
_NULL = 1e-12
"""Eigenvalues of normal matrices that are zero but for rounding, an equation."""
_ROUNDING = 1e-14


@dataclass(frozen=True, eq=False)
class FixedSpaces:
    """What the stabilisers of some representatives fix; the other representatives have trivial ones.

    Args:
        which: (s,) the representatives with a stabiliser.
        classes: (s, d) coordinates of one number are equal up to sign all over the fixed space; None for `projectors`.
        factors: (s, d) these signs; 0 where the fixed space has a zero.
        projectors: (s, d, d) orthogonal projectors where the maps are no signed permutations, else None.
    """

    which: IntArray
    classes: IntArray | None = None
    factors: FloatArray | None = None
    projectors: FloatArray | None = None

    def project(self, representatives: ArrayLike) -> FloatArray:
        """Each representative on the space that its stabiliser fixes: (r, d) -> (r, d). O(r d), O(r d^2) with matrices.

        For signed permutations the result lies in that space bit for bit, and what lies there is not changed.
        """
        rows = np.array(representatives, float)
        if not len(self.which):
            return rows
        inner = rows[self.which]
        if self.projectors is not None:
            rows[self.which] = np.einsum("sij,sj->si", self.projectors, inner)
        elif self.classes is not None and self.factors is not None:
            names, loads = self.classes.ravel(), (self.factors * inner).ravel()
            # a mean of differences to one of them: equal numbers stay what they are
            base = np.zeros(names.max() + 1)
            base[names] = loads
            mean = base + np.bincount(names, loads - base[names]) / np.maximum(np.bincount(names), 1)
            rows[self.which] = self.factors * mean[self.classes] + 0.0
        return rows


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
        fixed: where representatives must lie for their images to be the rows of the orbit again.
    """

    rows: IntArray
    label: IntArray
    counts: IntArray
    permutations: IntArray | None
    signs: FloatArray | None
    matrices: FloatArray | None
    fixed: FixedSpaces

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
    """Finds for images of rows under one generator which rows they are, as a bijection that keeps labels.

    Args:
        rows: (m, d).
        labels: (m, k).
        exact: whether images must be rows bit for bit.
        tolerance: otherwise, how far an image may be from its row, in units of the row's norm.
        label_tolerance: how far labels may differ then.
    """

    def __init__(
        self, rows: FloatArray, labels: FloatArray, *, exact: bool, tolerance: float, label_tolerance: float = 0.0
    ) -> None:
        self._rows, self._labels, self._exact = rows, labels, exact
        self._tolerance, self._label_tolerance = tolerance, label_tolerance
        self._sizes = np.linalg.norm(rows, axis=1)

    def image(self, moved: FloatArray, index: int) -> IntArray:
        """Index of the row that each image is.

        Raises:
            InputError: if some image is no row.
        """
        if not self._exact:
            return self._near(moved, index)
        table = np.concatenate([self._rows, self._labels], axis=1)
        wanted = np.concatenate([moved, self._labels], axis=1)
        # sorting both sides pairs equal rows, repeated ones among them, one to one
        found = np.empty(len(table), dtype=np.int64)
        left, right = np.lexsort(table.T[::-1]), np.lexsort(wanted.T[::-1])
        if not np.array_equal(table[left], wanted[right]):
            self._refuse(table, wanted, index)
        found[right] = left
        return found

    def _near(self, moved: FloatArray, index: int) -> IntArray:
        from scipy.spatial import cKDTree

        distance, nearest = cKDTree(self._rows).query(moved)
        if (distance > self._tolerance * self._sizes).any():
            self._refuse(self._rows, moved, index)
        # rows coincide if no farther apart than images are from rows; what is just near is told apart if possible
        seen = float(np.max(distance / np.where(self._sizes > 0, self._sizes, 1.0), initial=0.0))
        pairings = (self._paired(self._classes(2 * reach), nearest) for reach in (seen, self._tolerance))
        found = next((p for p in pairings if p is not None), None)
        if found is None:
            raise InputError(f"rows that coincide are not as many all over an orbit of generator {index}")
        gap = np.abs(self._labels - self._labels[found]).max(axis=1, initial=0.0)
        if (gap > self._label_tolerance).any():
            worst = int(np.argmax(gap))
            raise InputError(
                f"the rows are not a union of orbits: generator {index} moves row {worst} to no row "
                f"(with equal labels); labels differ by {gap[worst]:.3g}"
            )
        return found

    def _classes(self, reach: float) -> IntArray:
        """One number for rows that lie together: within `reach` times the larger norm, or in a chain of such."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
        from scipy.spatial import cKDTree

        m = len(self._rows)
        pairs = cKDTree(self._rows).query_pairs(reach * float(self._sizes.max(initial=0.0)), output_type="ndarray")
        a, b = pairs[:, 0], pairs[:, 1]
        gap = np.linalg.norm(self._rows[a] - self._rows[b], axis=1)
        near = gap <= reach * np.maximum(self._sizes[a], self._sizes[b])
        graph = coo_matrix((np.ones(near.sum()), (a[near], b[near])), shape=(m, m))
        names: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
        return names

    def _paired(self, classes: IntArray, nearest: IntArray) -> IntArray | None:
        """Images and rows of a class one to one, by labels and then in their order; None if they are not as many."""
        keys = list(self._labels.T[::-1])
        left, right = np.lexsort([*keys, classes]), np.lexsort([*keys, classes[nearest]])
        if not np.array_equal(classes[left], classes[nearest][right]):
            return None
        found = np.empty(len(classes), dtype=np.int64)
        found[right] = left
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
        return Orbits(index, label, counts, None, None, matrices, _fixed_by_maps(maps, matrices, counts, label, images))
    perms, signs = np.tile(np.arange(d), (m, 1)), np.ones((m, d))
    for wave in waves:
        step_perm = np.stack([parts[k][0] for k in through[wave]])
        step_sign = np.stack([parts[k][1] for k in through[wave]])
        perms[wave] = np.take_along_axis(perms[source[wave]], step_perm, axis=1)
        signs[wave] = np.take_along_axis(signs[source[wave]], step_perm, axis=1) * step_sign
    return Orbits(index, label, counts, perms, signs, None, _fixed_by_signed(parts, perms, signs, label, images))


# By Schreier's lemma the stabiliser of a representative is generated by T_i^-1 g T_j over the rows j of its orbit and
# the generators g, i the row that g makes of j; x is fixed if and only if g T_j x = T_i x for all of them.


def _fixed_by_signed(
    parts: Sequence[SignedMap], perms: IntArray, signs: FloatArray, label: IntArray, images: Sequence[IntArray]
) -> FixedSpaces:
    """Each equation says that two coordinates of a representative are equal, or opposite: components of a graph."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    m, d = perms.shape
    size = (int(label.max()) + 1) * d if m else 0
    left, right, same = [], [], []
    for (perm, sign), image in zip(parts, images, strict=True):
        one, other = label[:, None] * d + perms[:, perm], label[:, None] * d + perms[image]
        equal = signs[:, perm] * sign == signs[image]
        told = (one != other) | ~equal
        left.append(one[told])
        right.append(other[told])
        same.append(equal[told])
    if not sum(map(len, left)):
        return FixedSpaces(np.zeros(0, dtype=np.int64))
    u, v, equal = np.concatenate(left), np.concatenate(right), np.concatenate(same)
    # node k is a coordinate, node k + size its opposite
    edges = np.concatenate([u, u + size]), np.concatenate([v + size * ~equal, v + size * equal])
    graph = coo_matrix((np.ones(2 * len(u)), edges), shape=(2 * size, 2 * size))
    names = connected_components(graph, directed=False)[1].astype(np.int64)
    plus, minus = names[:size].reshape(-1, d), names[size:].reshape(-1, d)
    which = np.unique(u // d)
    plus, minus = plus[which], minus[which]
    return FixedSpaces(which, np.minimum(plus, minus), np.sign(minus - plus).astype(float))


def _fixed_by_maps(
    maps: Sequence[FloatArray], matrices: FloatArray, counts: IntArray, label: IntArray, images: Sequence[IntArray]
) -> FixedSpaces:
    """The null space of the equations, from their normal matrix: other eigenvalues are at least (4 / order)^2."""
    d = matrices.shape[1]
    normal = np.zeros((len(counts), d, d))
    for step, image in zip(maps, images, strict=True):
        gap = step @ matrices - matrices[image]
        np.add.at(normal, label, gap.transpose(0, 2, 1) @ gap)
    values, vectors = np.linalg.eigh(normal)
    free = values <= _NULL * counts[:, None]
    which = np.flatnonzero(~free.all(axis=1))
    kept = vectors[which] * free[which][:, None, :]
    projectors = kept @ kept.transpose(0, 2, 1)
    projectors[np.abs(projectors) < _ROUNDING] = 0.0
    return FixedSpaces(which, None, None, projectors)
