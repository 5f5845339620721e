"""Slow, obviously right versions: fixed spaces of all subgroups by linear algebra, inclusion by projectors."""

from __future__ import annotations

import itertools

import numpy as np

PRIME = 1_000_003


def signed_permutations(m, signs):
    """All signed permutation matrices of size m."""
    for order in itertools.permutations(range(m)):
        for flips in itertools.product((1, -1), repeat=m) if signs else ((1,) * m,):
            out = np.zeros((m, m), dtype=int)
            out[np.arange(m), order] = flips
            yield out


def two_layer_actions(m, kind):
    """The action of every symmetry on theta = (w, b, a, c) of a 1-m-1 network; even activations keep outgoing signs."""
    for g in signed_permutations(m, kind in ("odd", "even")):
        out = np.eye(3 * m + 1, dtype=int)
        out[:m, :m] = out[m : 2 * m, m : 2 * m] = g
        out[2 * m : 3 * m, 2 * m : 3 * m] = abs(g) if kind == "even" else g
        yield out


def echelon(rows):
    """Reduced row echelon form modulo a prime, as sparse rows: one name for one space of solutions."""
    basis: dict[int, dict[int, int]] = {}  # pivot column -> sparse row that is 1 there and 0 at the other pivots
    for dense in np.asarray(rows).tolist():
        row = {c: v % PRIME for c, v in enumerate(dense) if v}
        for column in [c for c in row if c in basis]:
            subtract(row, row[column], basis[column])
        if not row:
            continue
        pivot = min(row)
        inverse = pow(row[pivot], -1, PRIME)
        row = {c: v * inverse % PRIME for c, v in row.items()}
        for other in basis.values():
            if pivot in other:
                subtract(other, other[pivot], row)
        basis[pivot] = row
    return tuple(tuple(sorted(basis[pivot].items())) for pivot in sorted(basis))


def subtract(row, factor, other):
    """Row - factor other, in place, modulo the prime."""
    for c, v in other.items():
        value = (row.get(c, 0) - factor * v) % PRIME
        if value:
            row[c] = value
        else:
            row.pop(c, None)


def dense_rows(space, size):
    """The equations of a space as a matrix of small integers."""
    out = np.zeros((len(space), size), dtype=int)
    for i, row in enumerate(space):
        for c, v in row:
            out[i, c] = v if v < PRIME // 2 else v - PRIME
    return out


def intersections(spaces):
    """The closure of spaces of solutions under intersection."""
    single = list(dict.fromkeys(spaces))
    size = 1 + max((c for space in single for row in space for c, _ in row), default=0)
    dense = [dense_rows(space, size) for space in single]
    known, waiting = set(single), list(single)
    while waiting:
        now = dense_rows(waiting.pop(), size)
        for other in dense:
            new = echelon(np.concatenate([now, other]))
            if new not in known:
                known.add(new)
                waiting.append(new)
    return known


def symmetric_spaces(m, kind):
    """Fixed spaces of all groups of symmetries of a 1-m-1 network; with null flats for s(0) = 0 ("vanishing")."""
    size = 3 * m + 1
    spaces = [echelon(g - np.eye(size, dtype=int)) for g in two_layer_actions(m, kind)]
    if kind == "vanishing":
        unit = np.eye(size, dtype=int)
        spaces += [echelon(unit[[k, m + k, 2 * m + k]]) for k in range(m)]
    return intersections(spaces)


def subgroups(elements):
    """All subgroups of a finite group of matrices, as frozensets of positions in the list: joins of cyclic ones."""
    place = {g.tobytes(): k for k, g in enumerate(elements)}
    times = [[place[(g @ h).tobytes()] for h in elements] for g in elements]

    def generated(start):
        group, fresh = set(start), list(start)
        while fresh:
            g = fresh.pop()
            for h in list(group):
                for key in (times[g][h], times[h][g]):
                    if key not in group:
                        group.add(key)
                        fresh.append(key)
        return frozenset(group)

    cyclic = {generated([key]) for key in range(len(elements))}
    known, waiting = set(cyclic), list(cyclic)
    while waiting:
        now = waiting.pop()
        for other in cyclic:
            if not other <= now:
                new = generated([*now, *other])
                if new not in known:
                    known.add(new)
                    waiting.append(new)
    return known


def covers(projectors):
    """Pairs (a, b) of distinct spaces with b in a and nothing of the list between; projectors as float arrays."""
    stack = np.array(projectors)
    inside = np.array([np.abs(p @ stack - stack).max(axis=(1, 2)) < 1e-9 for p in stack])
    np.fill_diagonal(inside, False)
    between = (inside.astype(int) @ inside.astype(int)) > 0
    return {(int(a), int(b)) for a, b in zip(*np.nonzero(inside & ~between), strict=True)}
