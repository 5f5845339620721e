"""The types of manifolds of an architecture with their numbers and the steps between them, layer by layer."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from fiberscope.invariants.manifolds.counts import ClassRules, level_counts, level_types
from fiberscope.invariants.manifolds.lattice import Profile, covered_profiles, profile_count, profiles
from fiberscope.invariants.manifolds.members import LayerClasses, Manifold
from fiberscope.neurons import still_layers

_Layer = TypeVar("_Layer", Profile, LayerClasses)
_LEVELS, _QUIET_LEVELS = 300, 40


@dataclass(frozen=True)
class ManifoldType:
    """All manifolds that are equal up to relabelling neurons and changing signs.

    Args:
        layers: class sizes of each hidden layer.
        dimension: of the linear manifold on which neurons of a class coincide (in deep networks: its weights too).
        leaf_dimension: parameters of the reduced network that training moves: none below a null layer.
        linear_dimension: of the equitable manifold {W_l P_(l-1) = P_l W_l} around it; more only in deep networks.
        reduced_widths: widths of the reduced network.
        count: number of labelled manifolds.
    """

    layers: tuple[Profile, ...]
    dimension: int
    leaf_dimension: int
    linear_dimension: int
    reduced_widths: tuple[int, ...]
    count: int

    @property
    def name(self) -> str:
        """The profiles of the layers: "2+1" or "2+1 | 1+1+1"."""
        return " | ".join(p.name for p in self.layers) or "all parameters"


@dataclass(frozen=True)
class Level:
    """All manifolds of one dimension: number of types and of labelled manifolds."""

    dimension: int
    types: int
    count: int


def list_types(plain: Manifold) -> tuple[tuple[ManifoldType, ...], tuple[tuple[int, int], ...]]:
    """The types of a product of layers and their covering relations: one layer changes by one step."""
    rules = plain.rules
    choices = itertools.product(*(list(profiles(n, rules)) for n in plain.widths[1:-1]))
    found = [_type(plain, layers) for layers in choices if one_name(layers) == layers]
    found.sort(key=lambda t: (-t.dimension, -t.leaf_dimension, sum(p.null for p in t.layers), t.layers))
    place = {t.layers: k for k, t in enumerate(found)}
    edges = {
        (k, place[one_name((*t.layers[:at], below, *t.layers[at + 1 :]))])
        for k, t in enumerate(found)
        for at, profile in enumerate(t.layers)
        for below in covered_profiles(profile, rules)
        if is_direct(t.layers, at, below)
    }
    return tuple(found), tuple(sorted(edges))


def one_name(layers: tuple[_Layer, ...]) -> tuple[_Layer, ...]:
    """The same manifold with one name: quiet neurons below a layer without live neurons have no outgoing weights.

    There how they fall into classes says nothing, so each is written alone.
    """
    pairs = zip(layers, layers[1:], strict=False)
    return tuple(layer if _live(above) else layer.alone for layer, above in pairs) + layers[-1:]


def is_direct(layers: tuple[_Layer, ...], at: int, below: _Layer) -> bool:
    """Whether changing one layer so is a step to another manifold with none between, see `one_name`."""
    if at + 1 < len(layers) and not _live(layers[at + 1]) and len(below.quiet) < len(layers[at].quiet):
        return False  # quiet classes that nobody reads merge: the same manifold
    dies = _live(layers[at]) > 0 and not _live(below)
    return not (dies and at and len(layers[at - 1].quiet) > 1)  # the quiet classes below could merge first


def _live(layer: Profile | LayerClasses) -> int:
    return len(layer.sizes if isinstance(layer, Profile) else layer.classes)


def total_number(hidden: Sequence[int], rules: ClassRules, number: Callable[[int, ClassRules], int]) -> int:
    """The product of the numbers of the layers, quiet classes that nobody reads counted once, see `one_name`."""
    if not rules.quiet or len(hidden) == 1:
        return math.prod(number(n, rules) for n in hidden)
    alone = replace(rules, quiet=False, null=True)
    live, silent = 1, 0  # ways for the layers above whose lowest has live neurons, or none
    for n in reversed(hidden):
        dead = number(n, ClassRules())
        live, silent = (
            (number(n, rules) - dead) * live + (number(n, alone) - 1) * silent,
            dead * live + silent,
        )
    return live + silent


def _type(plain: Manifold, layers: tuple[Profile, ...]) -> ManifoldType:
    """The numbers of a type, from the numbers of classes alone."""
    rules, widths = plain.rules, plain.widths
    live = [widths[0], *(len(p.sizes) for p in layers), widths[-1]]
    quiet = [0, *(len(p.quiet) for p in layers), 0]
    dimension = leaf = linear = 0
    still = still_layers(live[1:-1])
    for k in range(1, len(widths)):
        has = plain.output_bias if k == len(widths) - 1 else plain.bias
        columns = live[k - 1] + quiet[k - 1]
        dimension += live[k] * (columns + has)
        linear += (widths[k] - live[k]) * (widths[k - 1] - columns)
        if k > still:
            leaf += live[k] * (live[k - 1] + (has or (quiet[k - 1] > 0 and rules.constant)))
    count = math.prod(profile_count(p, rules) for p in layers)
    return ManifoldType(layers, dimension, leaf, dimension + linear, tuple(live), count)


def list_levels(plain: Manifold, types: Sequence[ManifoldType]) -> tuple[Level, ...]:
    """The numbers by dimension, from the types or, where they are not listed, from the numbers of classes."""
    totals: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    if types:
        for t in types:
            totals[t.dimension][0] += 1
            totals[t.dimension][1] += t.count
    elif len(plain.widths) == 3 and plain.widths[1] <= (_QUIET_LEVELS if plain.rules.quiet else _LEVELS):
        n, m, o = plain.widths
        kinds = level_types(m, plain.rules)
        for (k, j), ways in level_counts(m, plain.rules).items():
            dimension = k * (n + plain.bias + o) + j * o + (o if plain.output_bias else 0)
            totals[dimension][0] += kinds[k, j]
            totals[dimension][1] += ways
    return tuple(Level(d, *totals[d]) for d in sorted(totals, reverse=True))
