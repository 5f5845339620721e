"""The invariant manifolds of a two-layer network by type, with dimensions, numbers, and which lies in which."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class SimType:
    """All manifolds that are equal up to relabelling neurons (and signs): class sizes and number of null neurons."""

    sizes: tuple[int, ...]
    null: int
    dimension: int
    count: int

    @property
    def name(self) -> str:
        """Class sizes in one word, "2+1+0" with the null class last."""
        return (
            "+".join(map(str, self.sizes)) + (f" null {self.null}" if self.null else "") if self.sizes else "all null"
        )


@dataclass(frozen=True)
class Lattice:
    """Types in order of falling dimension; (a, b) in `edges` when manifolds of type b lie directly in type a."""

    types: tuple[SimType, ...]
    edges: tuple[tuple[int, int], ...]

    def index(self, sizes: tuple[int, ...], null: int) -> int:
        """Position of a type."""
        return next(
            k for k, t in enumerate(self.types) if t.sizes == tuple(sorted(sizes, reverse=True)) and t.null == null
        )


def two_layer_lattice(width: int, per_class: int, fixed: int, *, signs: bool, null: bool) -> Lattice:
    """The lattice of closed linear invariant manifolds of a two-layer network, by type.

    Generic activations: set partitions (Bell numbers in total); odd ones: partitions with relative signs and a zero
    block (Dowling numbers); s(0) = 0 and not odd: partitions with a null class. A type with K classes has dimension
    per_class * K + fixed. Source: arXiv 2510.09564; counting as for the intersection lattices of types A and B.

    Args:
        width: number of hidden neurons.
        per_class: parameters of one neuron, n0 + 1 + n2 with bias.
        fixed: parameters of no neuron (output biases).
        signs: whether classes carry relative signs (odd activations).
        null: whether a null class exists.

    >>> [t.count for t in two_layer_lattice(2, 3, 1, signs=True, null=True).types]
    [1, 2, 2, 1]
    """
    found = []
    for zero in range(width + 1 if null else 1):
        for sizes in _partitions(width - zero, width - zero):
            found.append(SimType(sizes, zero, per_class * len(sizes) + fixed, _count(width, sizes, zero, signs)))
    found.sort(key=lambda t: (-t.dimension, t.null, t.sizes))
    place = {(t.sizes, t.null): k for k, t in enumerate(found)}
    edges = {
        (k, place[below]) for k, t in enumerate(found) for below in _covered(t.sizes, t.null, null) if below in place
    }
    return Lattice(tuple(found), tuple(sorted(edges)))


def _partitions(n: int, largest: int) -> Iterator[tuple[int, ...]]:
    if n == 0:
        yield ()
        return
    for first in range(min(n, largest), 0, -1):
        for rest in _partitions(n - first, first):
            yield (first, *rest)


def _count(width: int, sizes: tuple[int, ...], zero: int, signs: bool) -> int:
    ways = math.factorial(width) // math.factorial(zero)
    for size in sizes:
        ways //= math.factorial(size)
    for repeated in Counter(sizes).values():
        ways //= math.factorial(repeated)
    return ways * (2 ** (sum(sizes) - len(sizes)) if signs else 1)


def _covered(sizes: tuple[int, ...], zero: int, null: bool) -> Iterator[tuple[tuple[int, ...], int]]:
    for i in range(len(sizes)):
        rest = sizes[:i] + sizes[i + 1 :]
        if null:
            yield rest, zero + sizes[i]
        for j in range(i, len(rest)):
            merged = rest[:j] + rest[j + 1 :] + (sizes[i] + rest[j],)
            yield tuple(sorted(merged, reverse=True)), zero
