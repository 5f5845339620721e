"""Signed permutations of coordinates that keep a set of lines and a vector: colour refinement with backtracking.

The points +-e_i and the rows +-v_k form a bipartite graph whose edges carry the values of the entries; a signed
permutation that permutes the rows is an automorphism of it. Refined colours prune the search, found maps unite the
points that need no search of their own, so that very symmetric sets cost no more than generic ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Words = NDArray[np.uint64]
SignedMap = tuple[IntArray, FloatArray]
_ALIKE = 1e-11
_NODES = 20_000


@dataclass(frozen=True, eq=False)
class Found:
    """Generators, and whether the search was finished (else they generate a subgroup).

    Args:
        generators: pairs (perm, sign) with (T x)_i = sign_i x_{perm_i}.
        complete: whether all such maps are generated.
    """

    generators: tuple[SignedMap, ...]
    complete: bool


def signed_automorphisms(lines: FloatArray, colours: IntArray, vectors: FloatArray) -> Found:
    """Generators of the signed permutations T that permute the lines +-v_k of one colour and fix given vectors.

    Entries count as equal within 1e-11 of the largest. Coordinates on which nothing depends are permuted and flipped
    freely. Cost: a few refinements, O(rows x d) each, per coordinate and level of the chain of stabilisers.

    Args:
        lines: (n, d), each meant up to sign.
        colours: (n,) classes that must be kept, numbers >= 0.
        vectors: (k, d), to be fixed.

    >>> found = signed_automorphisms(np.eye(2), np.array([1, 1]), np.zeros((0, 2)))
    >>> found.complete, len(found.generators) >= 2
    (True, True)
    """
    d = lines.shape[1]
    table = np.concatenate([lines, vectors])
    used = np.flatnonzero(np.any(np.abs(table) > 0, axis=0))
    free = np.setdiff1d(np.arange(d), used)
    generators = [_flip(d, int(free[0]))] if len(free) else []
    generators += [_swap(d, int(i), int(j)) for i, j in zip(free[:-1], free[1:], strict=True)]
    if not len(used):
        return Found(tuple(generators), True)
    search = _Search(lines[:, used], colours, vectors[:, used])
    inner, complete = search.run()
    for perm, sign in inner:
        whole, signs = np.arange(d), np.ones(d)
        whole[used], signs[used] = used[perm], sign
        generators.append((whole, signs))
    return Found(tuple(generators), complete)


def pruned(moves: list[SignedMap]) -> list[SignedMap]:
    """The same group by fewer generators: a flip is left out if an exchange joins its coordinate to a later flip.

    >>> len(pruned([_flip(2, 0), _flip(2, 1), _swap(2, 0, 1)]))
    2
    """
    leader: dict[int, int] = {}

    def head(i: int) -> int:
        while i in leader:
            i = leader[i]
        return i

    for perm, _ in moves:
        moved = np.flatnonzero(perm != np.arange(len(perm))).tolist()
        if len(moved) == 2 and head(moved[0]) != head(moved[1]):
            leader[head(moved[0])] = head(moved[1])
    kept, seen = [], set()
    for perm, sign in moves:
        flipped = np.flatnonzero(sign < 0).tolist()
        if len(flipped) == 1 and np.array_equal(perm, np.arange(len(perm))):
            if head(flipped[0]) in seen:
                continue
            seen.add(head(flipped[0]))
        kept.append((perm, sign))
    return kept


def _flip(d: int, i: int) -> SignedMap:
    sign = np.ones(d)
    sign[i] = -1.0
    return np.arange(d), sign


def _swap(d: int, i: int, j: int) -> SignedMap:
    perm = np.arange(d)
    perm[[i, j]] = perm[[j, i]]
    return perm, np.ones(d)


def _mix(words: Words) -> Words:
    """A bijective scrambling of 64-bit words (splitmix64)."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _value_classes(table: FloatArray) -> IntArray:
    """Signed class of each entry: entries are in one class if a chain of them within the tolerance joins them."""
    size = np.abs(table).ravel()
    order = np.argsort(size)
    steps = np.diff(size[order], prepend=0.0) > _ALIKE * float(size.max(initial=0.0))
    classes = np.empty(size.size, dtype=np.int64)
    classes[order] = np.cumsum(steps)
    signed: IntArray = classes.reshape(table.shape) * np.sign(table).astype(np.int64)
    return signed


class _Search:
    def __init__(self, lines: FloatArray, colours: IntArray, vectors: FloatArray) -> None:
        self._lines, self._colours, self._vectors = lines, colours, vectors
        self._d = lines.shape[1]
        classes = _value_classes(np.concatenate([lines, vectors]))
        both = np.concatenate([classes, -classes])
        edges = np.concatenate([both, -both], axis=1)
        self._edges = _mix(edges.astype(np.int64).view(np.uint64))
        n, k = len(lines), len(vectors)
        # colours are not negative, so that no vector is taken for a line
        own = np.arange(k)
        marks = np.concatenate([colours + 10, -2 * own - 1, colours + 10, -2 * own - 2])
        self._right = _mix(marks.astype(np.int64).view(np.uint64))
        self._scale = float(np.max(np.abs(np.concatenate([lines, vectors])), initial=0.0))
        self._nodes = 0
        self._rows = n + k

    def run(self) -> tuple[list[SignedMap], bool]:
        """Generators, from the last point of the base to the first; False if the search was cut short."""
        trail = [self._refined(np.zeros(2 * self._d, dtype=np.uint64))]
        base: list[int] = []
        while (cell := _open_cell(trail[-1])) is not None:
            base.append(int(cell[0]))
            trail.append(self._refined(_marked(trail[-1], base[-1])))
        found = self._twins()
        known = [self._image(move) for move in found]
        found = pruned(found)
        complete = True
        for level in range(len(base) - 1, -1, -1):
            colours, point = trail[level], base[level]
            images = [image for image in known if np.array_equal(image[base[:level]], base[:level])]
            orbit = _orbit(point, images)
            refused: set[int] = set()
            for candidate in np.flatnonzero(colours == colours[point]).tolist():
                if candidate in orbit or candidate in refused:
                    continue
                self._nodes = 0
                image = self._extended(_marked(colours, point), _marked(colours, candidate))
                if image is None:
                    complete = complete and self._nodes <= _NODES
                    refused |= _orbit(candidate, images)
                    continue
                images.append(image)
                known.append(image)
                found.append(self._signed(image))
                orbit = _orbit(point, images)
        return found, complete

    def _twins(self) -> list[SignedMap]:
        """Flips of one coordinate and exchanges of two (in chains): found without a search, and most there is."""
        d = self._d
        found = [move for move in (_flip(d, i) for i in range(d)) if self._keeps_map(move)]
        classes: list[list[int]] = []
        for i in range(d):
            for group in classes:
                perm, sign = _swap(d, group[-1], i)
                other = sign.copy()
                other[[group[-1], i]] = -1.0
                move = next((m for m in ((perm, sign), (perm, other)) if self._keeps_map(m)), None)
                if move is not None:
                    found.append(move)
                    group.append(i)
                    break
            else:
                classes.append([i])
        return found

    def _keeps_map(self, move: SignedMap) -> bool:
        return keeps_lines(self._lines, self._colours, self._vectors, *move, _ALIKE * self._scale * 10)

    def _image(self, move: SignedMap) -> IntArray:
        perm, sign = move
        image = np.empty(2 * self._d, dtype=np.int64)
        image[perm] = np.arange(self._d) + np.where(sign > 0, 0, self._d)
        image[perm + self._d] = np.arange(self._d) + np.where(sign > 0, self._d, 0)
        return image

    def _refined(self, left: Words) -> Words:
        refined, _ = self._steady(left, None)
        return refined

    def _steady(self, left: Words, other: Words | None) -> tuple[Words, Words | None]:
        """Colours refined until no class splits; for a pair the rounds are made in step."""
        rights = [self._right, self._right]
        lefts = [left] if other is None else [left, other]
        count = -1
        while True:
            for k, colours in enumerate(lefts):
                rights[k] = _mix(rights[k] + _mix(self._edges + colours).sum(axis=1, dtype=np.uint64))
                sums = _mix(self._edges + rights[k][:, None]).sum(axis=0, dtype=np.uint64)
                # -e_i goes where +e_i goes: each takes up the colour of the other
                lefts[k] = _mix(colours + sums + _mix(np.roll(colours, self._d) + np.uint64(5)))
            now = len(np.unique(lefts[0])) + len(np.unique(rights[0]))
            if now == count:
                return lefts[0], (lefts[1] if other is not None else None)
            count = now

    def _extended(self, left: Words, right: Words) -> IntArray | None:
        """A map of the points that carries one colouring to the other, or None."""
        self._nodes += 1
        if self._nodes > _NODES:
            return None
        fine, other = self._steady(left, right)
        if other is None or not np.array_equal(np.sort(fine), np.sort(other)):
            return None
        cell = _open_cell(fine)
        if cell is None:
            image = np.empty(2 * self._d, dtype=np.int64)
            image[np.argsort(fine)] = np.argsort(other)
            return image if self._keeps(image) else None
        point = int(cell[0])
        for candidate in np.flatnonzero(other == fine[point]).tolist():
            image_or_none = self._extended(_marked(fine, point), _marked(other, candidate))
            if image_or_none is not None:
                return image_or_none
        return None

    def _signed(self, image: IntArray) -> SignedMap:
        d = self._d
        perm, sign = np.empty(d, dtype=np.int64), np.empty(d)
        target = image[:d] % d
        perm[target], sign[target] = np.arange(d), np.where(image[:d] < d, 1.0, -1.0)
        return perm, sign

    def _keeps(self, image: IntArray) -> bool:
        d = self._d
        if not np.array_equal((image[:d] + d) % (2 * d), image[d:]):
            return False
        return self._keeps_map(self._signed(image))


def keeps_lines(
    lines: FloatArray, colours: IntArray, vectors: FloatArray, perm: IntArray, sign: FloatArray, tolerance: float
) -> bool:
    """Whether (T x)_i = sign_i x_{perm_i} permutes the lines of each colour and fixes the vectors, within a tolerance.

    >>> keeps_lines(np.eye(2), np.array([1, 1]), np.zeros((0, 2)), np.array([1, 0]), np.ones(2), 0.0)
    True
    """
    if len(vectors) and np.max(np.abs(vectors[:, perm] * sign - vectors)) > tolerance:
        return False
    moved = lines[:, perm] * sign
    if moved.size > 1 << 14 and not _same_sums(lines, moved, tolerance):
        return False
    for colour in np.unique(colours):
        group = colours == colour
        here, there = lines[group], moved[group]
        gaps = np.minimum(
            np.max(np.abs(there[:, None] - here[None]), axis=2), np.max(np.abs(there[:, None] + here[None]), axis=2)
        )
        nearest = np.argmin(gaps, axis=1)
        if len(np.unique(nearest)) < len(nearest) or np.max(gaps[np.arange(len(nearest)), nearest]) > tolerance:
            return False
    return True


def _same_sums(lines: FloatArray, moved: FloatArray, tolerance: float) -> bool:
    """A cheap necessary condition: the sum of the projectors to the lines is kept."""
    slack = 4 * len(lines) * (tolerance + 1e-14 * float(np.max(np.abs(lines)))) * float(np.max(np.abs(lines)))
    return bool(np.max(np.abs(moved.T @ moved - lines.T @ lines)) <= slack)


def _marked(colours: Words, point: int) -> Words:
    fresh = colours.copy()
    fresh[point] = _mix(fresh[point : point + 1] + np.uint64(77))[0]
    return fresh


def _open_cell(colours: Words) -> IntArray | None:
    """The members of a smallest class of more than one point."""
    _, inverse, counts = np.unique(colours, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return None
    sizes = np.where(counts > 1, counts, counts.max() + 1)
    # the class of the first point that has the smallest size, so that the choice does not hang on hash values
    smallest = int(np.flatnonzero(sizes[inverse] == sizes.min())[0])
    cell: IntArray = np.flatnonzero(inverse == inverse[smallest])
    return cell


def _orbit(point: int, images: Sequence[IntArray]) -> set[int]:
    seen, queue = {point}, [point]
    while queue:
        here = queue.pop()
        for image in images:
            there = int(image[here])
            if there not in seen:
                seen.add(there)
                queue.append(there)
    return seen
