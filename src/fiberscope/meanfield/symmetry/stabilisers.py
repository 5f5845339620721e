"""The order of a group of signed permutations, by a base and strong generators (Schreier and Sims)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def signed_order(parts: Sequence[tuple[IntArray, FloatArray]], d: int) -> int:
    """Order of a group of signed permutations, as permutations of the 2d points +-e_i (Schreier and Sims).

    Args:
        parts: (perm, sign) with (T x)_i = sign_i x_{perm_i}.
        d: dimension.

    >>> signed_order([(np.array([1, 0]), np.ones(2)), (np.array([0, 1]), np.array([-1.0, 1.0]))], 2)
    8
    """
    points = [tuple(_doubled(perm, sign, d)) for perm, sign in parts]
    return _Chain(2 * d).extended(points)


def _doubled(perm: IntArray, sign: FloatArray, d: int) -> list[int]:
    # T e_j = sign_i e_i with perm_i = j; the point j + d stands for -e_j
    image = [0] * (2 * d)
    for i, j in enumerate(perm.tolist()):
        negative = sign[i] < 0
        image[j] = i + d if negative else i
        image[j + d] = i if negative else i + d
    return image


class _Chain:
    """A base and strong generating set, grown one generator at a time."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._identity = tuple(range(n))
        self._base: list[int] = []
        self._generators: list[list[tuple[int, ...]]] = []
        self._orbits: list[dict[int, tuple[int, ...]]] = []

    def extended(self, generators: Iterable[tuple[int, ...]]) -> int:
        for generator in generators:
            residue, level = self._sifted(generator, 0)
            if residue != self._identity:
                self._insert_all(residue, 0, level)
        return math.prod(len(orbit) for orbit in self._orbits)

    def _sifted(self, element: tuple[int, ...], level: int) -> tuple[tuple[int, ...], int]:
        while level < len(self._base):
            image = element[self._base[level]]
            carrier = self._orbits[level].get(image)
            if carrier is None:
                return element, level
            element = _after(_inverse(carrier), element)
            level += 1
        return element, level

    def _insert(self, element: tuple[int, ...], level: int) -> None:
        """Add an element that fixes the first `level` base points, and close the chain under it."""
        if level == len(self._base):
            self._base.append(next(i for i in range(self._n) if element[i] != i))
            self._generators.append([])
            self._orbits.append({self._base[level]: self._identity})
        self._generators[level].append(element)
        orbit = self._orbits[level]
        # every pair (point, generator) not yet seen gives a Schreier generator for the next level
        queue = [(point, element) for point in list(orbit)]
        while queue:
            point, step = queue.pop()
            moved = _after(step, orbit[point])
            image = step[point]
            if image not in orbit:
                orbit[image] = moved
                queue += [(image, g) for g in self._generators[level]]
                continue
            residue, depth = self._sifted(_after(_inverse(orbit[image]), moved), level + 1)
            if residue != self._identity:
                self._insert_all(residue, level + 1, depth)

    def _insert_all(self, element: tuple[int, ...], first: int, last: int) -> None:
        # it fixes the base points before `last`, so it generates at every level up to it
        for level in range(last, first - 1, -1):
            self._insert(element, level)


def _after(second: tuple[int, ...], first: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([second[i] for i in first])


def _inverse(element: tuple[int, ...]) -> tuple[int, ...]:
    inverse = [0] * len(element)
    for i, j in enumerate(element):
        inverse[j] = i
    return tuple(inverse)
