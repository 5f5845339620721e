"""The invariant manifolds of a two-layer network by type, with dimensions, numbers, and which lies in which."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fiberscope.invariants.manifolds.counts import ClassRules


class Profile(NamedTuple):
    """How one layer falls into classes, up to relabelling: class sizes, null neurons, sizes of quiet classes."""

    sizes: tuple[int, ...]
    null: int = 0
    quiet: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Class sizes in one word, then the null and quiet neurons: "2+1 null 1"."""
        words = ["+".join(map(str, self.sizes))] if self.sizes else []
        words += [f"null {self.null}"] if self.null and (self.sizes or self.quiet) else []
        words += ["quiet " + "+".join(map(str, self.quiet))] if self.quiet else []
        return " ".join(words) or "all null"

    @property
    def alone(self) -> Profile:
        """The same with every quiet neuron in a class of its own."""
        return Profile(self.sizes, self.null, (1,) * sum(self.quiet))


@dataclass(frozen=True)
class SimType:
    """All manifolds that are equal up to relabelling neurons (and signs): class sizes and number of null neurons."""

    sizes: tuple[int, ...]
    null: int
    dimension: int
    count: int
    quiet: tuple[int, ...] = ()

    @property
    def profile(self) -> Profile:
        """The class sizes without dimension and count."""
        return Profile(self.sizes, self.null, self.quiet)

    @property
    def name(self) -> str:
        """Class sizes in one word, then the null and quiet neurons: "2+1 null 1"."""
        return self.profile.name


@dataclass(frozen=True)
class Lattice:
    """Types in order of falling dimension; (a, b) in `edges` when manifolds of type b lie directly in type a."""

    types: tuple[SimType, ...]
    edges: tuple[tuple[int, int], ...]

    def index(self, sizes: tuple[int, ...], null: int, quiet: tuple[int, ...] = ()) -> int:
        """Position of a type."""
        wanted = Profile(_falling(sizes), null, _falling(quiet))
        return next(k for k, t in enumerate(self.types) if t.profile == wanted)


def two_layer_lattice(
    width: int, per_class: int, fixed: int, *, signs: bool, null: bool, per_quiet: int = 0
) -> Lattice:
    """The lattice of closed linear invariant manifolds of a two-layer network, by type.

    Generic activations: set partitions (Bell numbers in total); odd ones: partitions with relative signs and a zero
    block (Dowling numbers); s(0) = 0 and not odd: partitions with a null class; even ones: partitions with relative
    signs and a set of quiet neurons (no incoming weights) that is itself partitioned. A type with K classes and J
    quiet classes has dimension per_class * K + per_quiet * J + fixed. Source: arXiv 2510.09564; counting as for the
    intersection lattices of types A and B.

    Args:
        width: number of hidden neurons.
        per_class: parameters of one neuron, n0 + 1 + n2 with bias.
        fixed: parameters of no neuron (output biases).
        signs: whether classes carry relative signs (odd and even activations).
        null: whether a null class exists.
        per_quiet: parameters of one quiet class, n2; 0 if there are none.

    >>> [t.count for t in two_layer_lattice(2, 3, 1, signs=True, null=True).types]
    [1, 2, 2, 1]
    """
    rules = ClassRules(signs=signs, even=per_quiet > 0, null=null, quiet=per_quiet > 0)
    found = [
        SimType(p.sizes, p.null, per_class * len(p.sizes) + per_quiet * len(p.quiet) + fixed,
                profile_count(p, rules), p.quiet)
        for p in profiles(width, rules)
    ]  # fmt: skip
    found.sort(key=lambda t: (-t.dimension, t.null, t.sizes, t.quiet))
    place = {t.profile: k for k, t in enumerate(found)}
    edges = {(k, place[below]) for k, t in enumerate(found) for below in covered_profiles(t.profile, rules)}
    return Lattice(tuple(found), tuple(sorted(edges)))


def profiles(width: int, rules: ClassRules) -> Iterator[Profile]:
    """All profiles of a layer of `width` neurons.

    >>> [p.name for p in profiles(2, ClassRules(null=True))]
    ['2', '1+1', '1 null 1', 'all null']
    """
    for zero in range(width + 1 if rules.null else 1):
        for silent in range(width - zero + 1 if rules.quiet else 1):
            live = width - zero - silent
            for sizes in _partitions(live, live):
                for quiet in _partitions(silent, silent):
                    yield Profile(sizes, zero, quiet)


def profile_count(profile: Profile, rules: ClassRules) -> int:
    """The number of labelled manifolds of one profile: a multinomial number, times 2 for each relative sign.

    >>> profile_count(Profile((2, 1)), ClassRules(signs=True))
    6
    """
    sizes, zero, quiet = profile
    ways = math.factorial(sum(sizes) + zero + sum(quiet)) // math.factorial(zero)
    for blocks in (sizes, quiet):
        for size in blocks:
            ways //= math.factorial(size)
        for repeated in Counter(blocks).values():
            ways //= math.factorial(repeated)
    return ways * (2 ** (sum(sizes) - len(sizes)) if rules.signs else 1)


def covered_profiles(profile: Profile, rules: ClassRules) -> Iterator[Profile]:
    """Profiles of the largest manifolds strictly inside: two classes merge, or one becomes null or quiet.

    >>> [p.name for p in covered_profiles(Profile((2, 1)), ClassRules(null=True))]
    ['1 null 2', '3', '2 null 1']
    """
    sizes, zero, quiet = profile
    for i in range(len(sizes)):
        rest = sizes[:i] + sizes[i + 1 :]
        if rules.null:
            yield Profile(rest, zero + sizes[i], quiet)
        if rules.quiet:
            yield Profile(rest, zero, _falling((*quiet, sizes[i])))
        for j in range(i, len(rest)):
            yield Profile(_falling((*rest[:j], *rest[j + 1 :], sizes[i] + rest[j])), zero, quiet)
    for i in range(len(quiet)):
        for j in range(i + 1, len(quiet)):
            merged = (*quiet[:i], *quiet[i + 1 : j], *quiet[j + 1 :], quiet[i] + quiet[j])
            yield Profile(sizes, zero, _falling(merged))


def _falling(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(sizes, reverse=True))


def _partitions(n: int, largest: int) -> Iterator[tuple[int, ...]]:
    if n == 0:
        yield ()
        return
    for first in range(min(n, largest), 0, -1):
        for rest in _partitions(n - first, first):
            yield (first, *rest)
