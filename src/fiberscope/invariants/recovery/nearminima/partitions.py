"""Partitions of neurons into named, unnamed and null classes of least cost: over all of them, or greedily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """A class of neurons with their signs, named for a target neuron or not (None)."""

    members: tuple[int, ...]
    signs: tuple[int, ...]
    target: int | None


Partition = tuple[tuple[Block, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Cloud:
    """Neurons and target neurons as points.

    Args:
        rows: (m, d) what the neurons read, biases last.
        out: (m, q) outgoing weights.
        targets: (m0, d) what the target's neurons read.
        wanted: (m0, q) their outgoing weights.
        signs: whether w and -w count as equal.
        even: whether the outgoing weights then keep their signs.
        silent: whether neurons with w = 0 send nothing.
    """

    rows: FloatArray
    out: FloatArray
    targets: FloatArray
    wanted: FloatArray
    signs: bool = False
    even: bool = False
    silent: bool = False

    def cost(self, members: Sequence[int], signs: Sequence[int], target: int | None) -> float:
        """Squared distance of the neurons from one class."""
        turn = np.array(signs, dtype=np.float64)[:, None]
        rows = self.rows[list(members)] * turn
        sums = (self.out[list(members)] * (1.0 if self.even else turn)).sum(axis=0)
        centre = rows.mean(axis=0)
        if target is not None:
            centre, sums = self.targets[target], sums - self.wanted[target]
        return float(((rows - centre) ** 2).sum() + (sums**2).sum() / len(members))

    def best_signs(self, members: Sequence[int], target: int | None) -> tuple[int, ...]:
        """The signs of least cost; the first is 1 in unnamed classes. O(2^size)."""
        ones = (1,) * len(members)
        if not self.signs:
            return ones
        heads = ((1,),) if target is None else ((1,), (-1,))
        choices = ((*h, *t) for h in heads for t in product((1, -1), repeat=len(members) - 1))
        return min(choices, key=lambda s: self.cost(members, s, target))


def best_partitions(cloud: Cloud, every: bool) -> Iterator[Partition]:
    """For each number of classes, the partition of least cost: over all, or (`every` False) found by greedy merging."""
    if every:
        yield from _over_all(cloud)
        return
    least: dict[int, tuple[float, Partition]] = {}
    for alike in (False, True):
        for blocks, null in _merged(cloud, _matched(cloud, alike)):
            total = sum(cloud.cost(b.members, b.signs, b.target) for b in blocks)
            total += float((cloud.rows[list(null)] ** 2).sum())
            if total < least.get(len(blocks), (np.inf,))[0]:
                least[len(blocks)] = total, (blocks, null)
    yield from (partition for _, partition in least.values())


def close_partition(cloud: Cloud, radius: float) -> Partition | None:
    """Neurons within a radius of a target's, of 0, or of a first neuron, as classes; None if a target has none.

    O(m^2 d).
    """
    names: list[int | None] = list(range(len(cloud.targets)))
    centres = [*cloud.targets]
    members: list[list[tuple[int, int]]] = [[] for _ in centres]
    null = []
    for k, row in enumerate(cloud.rows):
        if cloud.silent and np.linalg.norm(row) <= radius:
            null.append(k)
            continue
        turns = (1, -1) if cloud.signs else (1,)
        gaps = np.linalg.norm(np.array(centres)[:, None] - np.array(turns)[:, None] * row, axis=2)
        near, turn = divmod(int(gaps.argmin()), len(turns))
        if gaps[near, turn] <= radius:
            members[near].append((k, turns[turn]))
        else:
            names.append(None)
            centres.append(row)
            members.append([(k, 1)])
    if not all(members):
        return None
    blocks = []
    for name, block in zip(names, members, strict=True):
        at, signs = zip(*block, strict=True)
        blocks.append(Block(at, signs, name))
    return tuple(blocks), tuple(null)


# ---- all partitions, by subsets


def _over_all(cloud: Cloud) -> Iterator[Partition]:
    """Dynamic programming over subsets: null neurons first, then unnamed classes, then one class for each target."""
    m, m0 = len(cloud.rows), len(cloud.targets)
    size = 1 << m
    subsets = _subsets(m)
    best = np.full((m + 1, size), np.inf)
    best[0] = _doubled((cloud.rows**2).sum(axis=1)) if cloud.silent else np.where(np.arange(size) == 0, 0.0, np.inf)
    stages: list[IntArray] = []
    free = _class_costs(cloud, None)
    choice = np.zeros((m + 1, size), dtype=np.int64)
    for mask in range(1, size):
        inner = subsets[mask][1:]
        options = best[:-1, mask ^ inner] + free[inner]
        pick = options.argmin(axis=1)
        value = options[np.arange(m), pick]
        choice[1:, mask] = inner[pick]
        best[1:, mask] = value
    stages.append(choice)
    for t in range(m0):
        costs = _class_costs(cloud, t)
        new, choice = np.full_like(best, np.inf), np.zeros((m + 1, size), dtype=np.int64)
        for mask in range(1, size):
            inner = subsets[mask][1:]
            options = best[:-1, mask ^ inner] + costs[inner]
            pick = options.argmin(axis=1)
            choice[1:, mask] = inner[pick]
            new[1:, mask] = options[np.arange(m), pick]
        stages.append(choice)
        best = new
    for r in range(m0, m + 1):
        if np.isfinite(best[r, -1]):
            yield _traced(cloud, stages, r, size - 1)


def _traced(cloud: Cloud, stages: Sequence[IntArray], r: int, mask: int) -> Partition:
    blocks = []
    for t in range(len(stages) - 2, -1, -1):
        chosen = int(stages[t + 1][r, mask])
        blocks.append((_members(chosen), t))
        r, mask = r - 1, mask ^ chosen
    unnamed = []
    while r:
        chosen = int(stages[0][r, mask])
        unnamed.append(_members(chosen))
        r, mask = r - 1, mask ^ chosen
    named = [Block(members, cloud.best_signs(members, t), t) for members, t in blocks]
    rest = [Block(members, cloud.best_signs(members, None), None) for members in unnamed]
    return (*named, *rest), _members(mask)


def _members(mask: int) -> tuple[int, ...]:
    return tuple(k for k in range(mask.bit_length()) if mask >> k & 1)


def _subsets(m: int) -> list[IntArray]:
    """All subsets of every set, the empty one first."""
    out = [np.zeros(1, dtype=np.int64)]
    for mask in range(1, 1 << m):
        top = 1 << (mask.bit_length() - 1)
        below = out[mask ^ top]
        out.append(np.concatenate([below, below | top]))
    return out


def _doubled(values: FloatArray) -> FloatArray:
    """Sums over all subsets, (2^m,)."""
    out = np.zeros(1)
    for v in values:
        out = np.concatenate([out, out + v])
    return out


def _class_costs(cloud: Cloud, target: int | None) -> FloatArray:
    """The least cost over signs of every subset as one class, (2^m,); entry 0 is meaningless.

    States list for each neuron whether it is out, in, or in with a minus: 2^m or 3^m of them, the first neuron fastest.
    Spreads are sums over pairs, so that equal neurons cost exactly 0.
    """
    m = len(cloud.rows)
    turns = (1.0, -1.0) if cloud.signs else (1.0,)
    spread, count = np.zeros(1), np.zeros(1)
    sums = np.zeros((1, cloud.out.shape[1])) - (0.0 if target is None else cloud.wanted[target])
    for k in range(m):
        parts, new_sums = [spread], [sums]
        for turn in turns:
            row = turn * cloud.rows[k]
            own = 0.0 if target is None else float(((row - cloud.targets[target]) ** 2).sum())
            parts.append(spread + (_pairs(cloud, k, turn, turns) if target is None else own))
            new_sums.append(sums + (1.0 if cloud.even else turn) * cloud.out[k])
        spread, sums = np.concatenate(parts), np.concatenate(new_sums)
        count = np.concatenate([count, *([count + 1] * len(turns))])
    size = np.maximum(count, 1.0)
    total = (spread / size if target is None else spread) + (sums**2).sum(axis=1) / size
    if not cloud.signs:
        return np.asarray(total)
    cube = total.reshape((3,) * m)
    for axis in range(m):
        out, plus, minus = (np.take(cube, [k], axis=axis) for k in range(3))
        cube = np.concatenate([out, np.minimum(plus, minus)], axis=axis)
    return np.asarray(cube.reshape(-1))


def _pairs(cloud: Cloud, k: int, turn: float, turns: Sequence[float]) -> FloatArray:
    """Sums of squared differences of neuron k from the earlier neurons of every state."""
    out = np.zeros(1)
    for j in range(k):
        steps = [float(((turn * cloud.rows[k] - t * cloud.rows[j]) ** 2).sum()) for t in turns]
        out = np.concatenate([out, *(out + s for s in steps)])
    return out


# ---- greedy merging


def _merged(cloud: Cloud, blocks: list[Block]) -> Iterator[Partition]:
    """From one class for each neuron down: at every step the merge, or the neuron made null, that costs least."""
    null: tuple[int, ...] = ()
    costs = [cloud.cost(b.members, b.signs, b.target) for b in blocks]
    merges: dict[tuple[int, int], tuple[float, Block]] = {}
    names = list(range(len(blocks)))
    fresh = len(blocks)
    yield tuple(blocks), null
    while sum(b.target is None for b in blocks):
        best: tuple[float, int, int | None, Block | None] = (np.inf, -1, None, None)
        for i, b in enumerate(blocks):
            if b.target is not None:
                continue
            if cloud.silent:
                gain = float((cloud.rows[list(b.members)] ** 2).sum()) - costs[i]
                best = min(best, (gain, i, None, None), key=lambda v: v[0])
            for j, other in enumerate(blocks):
                if j == i or (other.target is None and j < i):
                    continue
                key = names[i], names[j]
                if key not in merges:
                    merges[key] = _joined(cloud, b, other)
                cost, joined = merges[key]
                best = min(best, (cost - costs[i] - costs[j], i, j, joined), key=lambda v: v[0])
        _, i, partner, joined_block = best
        if partner is None or joined_block is None:
            null = tuple(sorted((*null, *blocks[i].members)))
        else:
            blocks[partner], names[partner] = joined_block, fresh
            costs[partner] = cloud.cost(joined_block.members, joined_block.signs, joined_block.target)
            fresh += 1
        del blocks[i], costs[i], names[i]
        yield tuple(blocks), null


def _joined(cloud: Cloud, block: Block, other: Block) -> tuple[float, Block]:
    """The cheaper way to put an unnamed class into another."""
    found = []
    for turn in (1, -1) if cloud.signs else (1,):
        pairs = [*zip(other.members, other.signs, strict=True)]
        pairs += [(k, turn * s) for k, s in zip(block.members, block.signs, strict=True)]
        members, signs = zip(*sorted(pairs), strict=True)
        found.append((cloud.cost(members, signs, other.target), Block(members, signs, other.target)))
    return min(found, key=lambda v: v[0])


def _matched(cloud: Cloud, alike: bool) -> list[Block]:
    """One neuron for each target by least total cost (`alike`: by what they read only), the others alone."""
    from scipy.optimize import linear_sum_assignment

    m, m0 = len(cloud.rows), len(cloud.targets)
    turns = (1, -1) if cloud.signs else (1,)
    spread = np.stack([((cloud.rows - s * goal) ** 2).sum(axis=1) for goal in cloud.targets for s in turns])
    sums = np.stack([
        ((cloud.out * (1 if cloud.even else s) - goal) ** 2).sum(axis=1) for goal in cloud.wanted for s in turns
    ])  # fmt: skip
    costs = (spread if alike else spread + sums).reshape(m0, len(turns), m).swapaxes(1, 2)
    saved = 0.0 if alike else (cloud.out**2).sum(axis=1)  # what a neuron costs in a class of its own
    chosen, taken = linear_sum_assignment(costs.min(axis=2) - saved)
    named = {int(k): int(t) for t, k in zip(chosen, taken, strict=True)}
    out = []
    for k in range(m):
        t = named.get(k)
        sign = 1 if t is None else turns[int(costs[t, k].argmin())]
        out.append(Block((k,), (sign,), t))
    return out
