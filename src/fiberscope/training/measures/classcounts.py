"""How many different neurons there are: classes of neurons closer than rounding, numerically, approximately."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fiberscope.errors import InputError
from fiberscope.training.measures.pairs import FloatArray, Forest, IntArray, Neurons, Shortlist

NUMERICAL, APPROXIMATE = 1e-4, 5e-2
"""Relative differences of neurons that count as one at the second and third level."""
_ROWS = 32
"""Rows of a float64 Gram matrix that are held at a time."""
_NOTHING = 1e-12
"""Neurons shorter than this part of the typical one are compared at that scale."""


def levels_of(neurons: Neurons, tolerances: Sequence[float | None] | None = None) -> tuple[float, float, float]:
    """The three relative tolerances of a population: the rounding floor, numerical, approximate; never falling.

    Args:
        neurons: of the population.
        tolerances: the three, None for the default of each: the floor 10 sqrt(D) eps, 1e-4 and 5e-2.

    Raises:
        InputError: if they are not three numbers in [0, 1) that do not fall.
    """
    if tolerances is not None and not isinstance(tolerances, Sequence | np.ndarray):
        raise InputError(f"tolerances {tolerances}; give three: exact, numerical, approximate, None for a default")
    given = (None, None, None) if tolerances is None else tuple(tolerances)
    if len(given) != 3 or not all(v is None or isinstance(v, int | float | np.number) for v in given):
        raise InputError(f"tolerances {given}; give three: exact, numerical, approximate, None for a default")
    numbers = [float(value) for value in given if value is not None]
    if not all(0 <= value < 1 for value in numbers) or numbers != sorted(numbers):
        raise InputError(f"tolerances {given}; give growing numbers in [0, 1), or None")
    out: list[float] = []
    for value, default in zip(given, (neurons.floor, NUMERICAL, APPROXIMATE), strict=True):
        out.append(max([*out, default if value is None else float(value)]))
    return out[0], out[1], out[2]


def scales_of(neurons: Neurons) -> FloatArray:
    """(n,) lengths |u_i| that differences are compared with; of neurons that are nearly nothing, a small constant."""
    return np.maximum(neurons.lengths, _NOTHING * neurons.typical)


def null_neurons(neurons: Neurons, tolerance: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) whether |u_i| <= t times the median length, where a neuron without weights stays so under training."""
    if not neurons.population.null:
        return np.zeros(neurons.count, dtype=bool)
    return np.asarray(neurons.lengths <= tolerance * neurons.typical)


def count_classes(
    neurons: Neurons,
    groups: Sequence[tuple[IntArray, FloatArray]],
    levels: tuple[float, float, float],
    shortlist: Shortlist,
) -> tuple[int, int, int]:
    """Numbers of classes of neurons that are not null, at three tolerances.

    Neurons i and j are joined when |u_i - e u_j| <= t max(|u_i|, |u_j|), u_i all entries of neuron i, e = 1, or -1
    where signs count; classes are the connected components (single linkage: the ends of a long chain may be further
    apart than t). Growing tolerances give coarser classes. The first level is what rounding explains: identical
    neurons, and those that only rounding has separated.

    Args:
        neurons: of the population.
        groups: the components of a graph that has all pairs within the largest tolerance, with aligning signs; pairs
            in different groups are not compared again.
        levels: t, three that do not fall.
        shortlist: is offered the pairs inside groups.

    Complexity: O(sum of k^2 D) over groups of k neurons: nothing while no two neurons are near each other.
    Source: theory page, detection; classes of equal neurons are invariant under training (arXiv 2510.09564).
    """
    forests = [Forest(neurons.count, signed=neurons.population.signs) for _ in levels]
    scales = scales_of(neurons)
    for members, signs in groups:
        _join_group(neurons, members, signs, [t for t in levels], forests, scales, shortlist)
    found = [f.count(~null_neurons(neurons, t)) for f, t in zip(forests, levels, strict=True)]
    return found[0], found[1], found[2]


def _join_group(
    neurons: Neurons, members: IntArray, signs: FloatArray, levels: list[float], forests: list[Forest],
    scales: FloatArray, shortlist: Shortlist,
) -> None:  # fmt: skip
    """Join what is near inside a group; differences from one member are taken first, so that little cancels."""
    squares = np.zeros(len(members))
    for block in neurons.differences(members, signs):
        squares += np.einsum("ij,ij->i", block, block)
    scale = scales[members]
    if 2.0 * np.sqrt(squares.max()) <= levels[0] * scale.min():
        same = int(np.argmin(squares[1:])) + 1  # all one class; which two are nearest is a matter of rounding
        ones = np.full(len(members) - 1, members[0])
        for forest in forests:
            forest.join(ones, members[1:], signs[0] * signs[1:])
        shortlist.add(members[:1], members[same : same + 1], signs[:1] * signs[same], np.zeros(1))
        shortlist.unlisted(0.0)
        return
    slack = 2.0 * (neurons.size + 8) * float(np.finfo(np.float64).eps)
    for at in range(0, len(members), _ROWS):
        rows = min(_ROWS, len(members) - at)
        products = np.zeros((rows, len(members) - at))
        for block in neurons.differences(members, signs, first=at):
            products += block[:rows] @ block.T
        both = squares[at : at + rows, None] + squares[None, at:]
        apart = np.maximum(both - 2.0 * products, 0.0)
        apart[np.tril_indices(rows)] = np.inf
        apart[members[at : at + rows, None] == members[None, at:]] = np.inf
        limit = np.maximum(scale[at : at + rows, None], scale[None, at:]) ** 2
        for t, forest in zip(levels, forests, strict=True):
            i, j = np.nonzero(apart <= t * t * limit)
            forest.join(members[at + i], members[at + j], signs[at + i] * signs[at + j])
        low = np.maximum(apart - slack * both, 0.0)
        _offer(shortlist, low, members[at:], signs[at:])


def _offer(shortlist: Shortlist, low: FloatArray, members: IntArray, signs: FloatArray) -> None:
    local = Shortlist()
    local.offer(low, np.zeros(len(low)), low.min(axis=1), 0, None)
    shortlist.unlisted(local.rest)
    a, b = local.first, local.second
    shortlist.add(members[a], members[b], signs[a] * signs[b], local.low)
