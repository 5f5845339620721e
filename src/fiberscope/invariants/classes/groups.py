"""Groups of points that lie close together, found by sorting and gaps in random projections, never by a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_STILL = 4
"""Random directions without any gap before a group counts as connected."""
_ROUNDS = 12
_CALM = 3
_DRAWS = 2
"""Cuts through crowded groups are drawn so often; what one draw keeps whole, stays whole."""


def close_groups(
    points: FloatArray, radius: float, start: IntArray, *, weights: FloatArray | None = None,
    signed: FloatArray | None = None, rng: np.random.Generator,
) -> tuple[IntArray, FloatArray]:  # fmt: skip
    """Groups of points within a radius of their mean, inside given groups, found by sorting along random directions.

    First groups are cut wherever a projection has a gap above 2 * radius: no two points so far apart belong together.
    What is still wider than the radius is cut at wide central gaps until it is not; two such runs are joined where the
    union is narrow enough, since a tight cluster that one run cuts is whole in the other.

    Args:
        points: (m, d).
        radius: largest distance from the mean.
        start: (m,) groups that are only cut.
        weights: (m,) of the points in the means; 1 without.
        signed: (d,) 1 for coordinates that may change sign together, 0 for the others; None: no signs.
        rng: of the directions.

    Returns:
        (labels, signs): (m,) groups, and signs relative to one member of each.

    Complexity: O(m d log m) where clusters lie apart.

    >>> rng = np.random.default_rng(0)
    >>> found, _ = close_groups(np.array([[0.0], [0.1], [5.0]]), 0.2, np.zeros(3, np.int64), rng=rng)
    >>> found.tolist()
    [0, 0, 1]
    """
    weights = np.ones(len(points)) if weights is None else weights
    labels = _ranked(start)
    still = 0
    for _ in range(_ROUNDS):
        new = _cut_gaps(_shadow(points, signed, rng), labels, 2.0 * radius)
        still = still + 1 if new.max(initial=0) == labels.max(initial=0) else 0
        labels = new
        if still == _STILL:
            break
    first = _narrowed_groups(points, radius, labels, weights, signed, rng)
    if _same(first, labels):
        return first, _signs(points, first, signed)
    for _ in range(_DRAWS - 1):
        other = _narrowed_groups(points, radius, labels, weights, signed, rng)
        joined = _joined(first, other)
        bad = _too_wide(points, joined, weights, signed, radius)
        first = _ranked(np.where(bad, first + int(joined.max(initial=0)) + 1, joined))
    return first, _signs(points, first, signed)


def _ranked(labels: IntArray) -> IntArray:
    return np.asarray(np.unique(labels, return_inverse=True)[1]).reshape(-1)


def _same(a: IntArray, b: IntArray) -> bool:
    return int(a.max(initial=0)) == int(b.max(initial=0))


def _shadow(points: FloatArray, signed: FloatArray | None, rng: np.random.Generator) -> FloatArray:
    """One random projection that a change of sign does not change."""
    direction = rng.standard_normal(points.shape[1])
    direction /= max(float(np.linalg.norm(direction)), 1e-300)
    if signed is None:
        return np.asarray(points @ direction)
    turned = np.abs(points @ (direction * signed))
    return turned if signed.all() else turned + points @ (direction * (1.0 - signed))


def _cut_gaps(shadow: FloatArray, labels: IntArray, gap: float) -> IntArray:
    order = np.lexsort((shadow, labels))
    apart = (np.diff(shadow[order]) > gap) | (np.diff(labels[order]) != 0)
    out = np.empty_like(labels)
    out[order] = np.concatenate([[0], np.cumsum(apart)])[: order.size]
    return out


def _signs(points: FloatArray, labels: IntArray, signed: FloatArray | None) -> FloatArray:
    """Signs that align every point with the longest of its group."""
    if signed is None or not len(points):
        return np.ones(len(points))
    turned = points if signed.all() else points * signed
    length = np.einsum("ij,ij->i", turned, turned)
    order = np.lexsort((-length, labels))
    leader = order[np.concatenate([[True], np.diff(labels[order]) != 0])]
    return np.where(np.einsum("ij,ij->i", turned, turned[leader[labels]]) < 0, -1.0, 1.0)


def _aligned(points: FloatArray, signs: FloatArray, signed: FloatArray | None) -> FloatArray:
    if signed is None or (signs == 1).all():
        return points
    return np.asarray(
        points * signs[:, None] if signed.all() else np.where(signed > 0, points * signs[:, None], points)
    )


def _reach(aligned: FloatArray, labels: IntArray, weights: FloatArray) -> FloatArray:
    """Distance of every point from the weighted mean of its group."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(labels[order]) != 0]))
    total = np.add.reduceat(weights[order], starts)
    sums = np.add.reduceat(aligned[order] * weights[order, None], starts, axis=0)
    off = aligned - (sums / np.where(total > 0, total, 1.0)[:, None])[labels]
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", off, off)))


def _narrowed_groups(
    points: FloatArray, radius: float, labels: IntArray, weights: FloatArray, signed: FloatArray | None,
    rng: np.random.Generator,
) -> IntArray:  # fmt: skip
    """Cut groups that reach beyond the radius, at gaps that are wide and central, until none does.

    A projection longer than two radii shows that a group is too wide; only where several do not, means are computed.
    """
    labels, fresh = labels.copy(), int(labels.max(initial=-1)) + 1
    active = np.flatnonzero(np.bincount(labels)[labels] > 1) if labels.size else np.zeros(0, dtype=np.int64)
    calm = np.zeros(len(points), dtype=np.int64)
    while active.size:
        here, groups = points[active], _ranked(labels[active])
        upper, length = _upper_part(_shadow(here, signed, rng), groups)
        cut = length[groups] > 2.0 * radius
        calm[active] = np.where(cut, 0, calm[active] + 1)
        done = calm[active] >= _CALM
        if done.any():
            bad = _too_wide(here[done], _ranked(groups[done]), weights[active[done]], signed, radius)
            place = np.flatnonzero(done)
            cut[place[bad]], calm[active[place[bad]]] = True, 0
            done[place[bad]] = False
        labels[active[cut]] = fresh + 2 * groups[cut] + upper[cut]
        fresh = int(labels.max()) + 1
        active = active[~done]
        active = active[np.bincount(labels[active], minlength=fresh)[labels[active]] > 1]
    return _ranked(labels)


def _too_wide(
    points: FloatArray, groups: IntArray, weights: FloatArray, signed: FloatArray | None, radius: float
) -> npt.NDArray[np.bool_]:
    """For every point, whether its group reaches beyond the radius."""
    signs = _signs(points, groups, signed)
    wide = _reach(_aligned(points, signs, signed), groups, weights) > radius
    return np.asarray((np.bincount(groups, weights=wide) > 0)[groups])


def _upper_part(shadow: FloatArray, groups: IntArray) -> tuple[IntArray, FloatArray]:
    """Which points lie above the best gap of their group, wide and with many points on either side; its length."""
    order = np.lexsort((shadow, groups))
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(sorted_groups) != 0]))
    size = np.diff(np.concatenate([starts, [order.size]]))
    place = np.arange(order.size) - starts[sorted_groups]  # rank inside the group
    length = shadow[order[starts + size - 1]] - shadow[order[starts]]
    gap = np.diff(shadow[order], prepend=0.0)
    score = gap * np.minimum(place, size[sorted_groups] - place)
    score[starts] = -1.0
    best = np.maximum.reduceat(score, starts)
    chosen = np.where((score == best[sorted_groups]) & (place > 0), place, order.size)
    cut = np.minimum.reduceat(chosen, starts)
    out = np.empty(order.size, dtype=np.int64)
    out[order] = place >= cut[sorted_groups]
    return out, length


def _joined(a: IntArray, b: IntArray) -> IntArray:
    """The finest partition that both refine."""
    label = a.copy()
    while True:
        low = np.full(int(b.max(initial=0)) + 1, label.size, dtype=np.int64)
        np.minimum.at(low, b, label)
        once = low[b]
        low = np.full(int(a.max(initial=0)) + 1, label.size, dtype=np.int64)
        np.minimum.at(low, a, once)
        new = low[a]
        if (new == label).all():
            return _ranked(label)
        label = new
