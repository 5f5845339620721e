"""Is the orbit of a deep network as large as its smallest reduced network? A search for counterexamples.

The dimension of the orbit at theta is compared with the number of parameters of the reduced network of the coarsest
equitable partition (signed for odd s, with null neurons where s(0) = 0), which is a proved upper bound. Dimensions are
ranks modulo a prime with random derivatives: a generic activation of the class. A point whose rank stays below the
prediction is an exception of one of the known kinds, or is moved along flows in floating point, or is printed.

Run: python benchmarks/deep_orbits_study.py [--part patterns|signs|all] [--seconds 600] [--seed 0]
Theory: docs/theory/deep_orbits.md, arXiv 2510.09564.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.autodiff.families import Family, RestrictedFamily
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.liebrackets import brackets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import PRIME, Residues
from fiberscope.invariants.orbits.flows import wander
from fiberscope.invariants.orbits.spans import span_of
from fiberscope.models.chains import blocks_of, chain_family

Ints = npt.NDArray[np.int64]
Widths = tuple[int, ...]

ACTIVATIONS = {"generic": "sigmoid", "odd": "tanh", "null": "gelu"}
"""The class of random derivatives, and a member of it for flows."""
UNIT = 12
"""Projectors of classes of up to four neurons, times this, are integers."""
BATCH = 6000
UNKNOWN = -1


# ---- partitions


def partitions(n: int, law: str) -> list[Ints]:
    """All (n, k) matrices E of a layer: disjoint columns of 1 (or +-1), with zero rows where s(0) = 0."""
    out = []
    for labels in itertools.product(range(-1 if law != "generic" else 0, n), repeat=n):
        used = sorted({v for v in labels if v >= 0})
        if used != list(range(len(used))) or [labels.index(v) for v in used] != sorted(labels.index(v) for v in used):
            continue
        free = [i for i, v in enumerate(labels) if v >= 0 and labels.index(v) != i]
        for signs in itertools.product((1, -1) if law == "odd" else (1,), repeat=len(free)):
            matrix = np.zeros((n, len(used)), dtype=np.int64)
            for i, v in enumerate(labels):
                if v >= 0:
                    matrix[i, v] = signs[free.index(i)] if i in free else 1
            out.append(matrix)
    return out


def shapes(n: int, law: str) -> list[Ints]:
    """One partition of each type: up to the order of neurons and their signs."""
    seen: dict[tuple[int, ...], Ints] = {}
    for matrix in partitions(n, "null" if law != "generic" else law):
        seen.setdefault(tuple(sorted(matrix.sum(axis=0))), matrix)
    return list(seen.values())


def projector(matrix: Ints) -> Ints:
    """UNIT times E (E^T E)^-1 E^T."""
    return matrix @ np.diag(UNIT // np.maximum((matrix**2).sum(axis=0), 1)) @ matrix.T


def split(points: npt.NDArray[Any], widths: Widths) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """(W, b) of each layer, for points (P, M) with biases."""
    out, at = [], 0
    for low, high in itertools.pairwise(widths):
        weight = points[:, at : at + low * high].reshape(-1, high, low)
        out.append((weight, points[:, at + low * high : at + low * high + high]))
        at += low * high + high
    return out


@dataclass(frozen=True)
class Coarsest:
    """The coarsest equitable partition of each of P points.

    Args:
        counts: classes of each layer, inputs and outputs with them, (P, L + 1).
        dimension: parameters of the reduced network, (P,).
    """

    counts: Ints
    dimension: Ints


def coarsest(points: Ints, widths: Widths, law: str, biases: bool) -> Coarsest:
    """By trying all partitions: the equitable one with the fewest parameters, layer by layer (Viterbi).

    A slow oracle, which shares no code with colour refinement: W P = P W and b in range P, in integers.
    """
    choices = [[np.eye(widths[0], dtype=np.int64)], *(partitions(n, law) for n in widths[1:-1])]
    choices.append([np.eye(widths[-1], dtype=np.int64)])
    far = 10**6
    total = np.zeros((1, len(points)), dtype=np.int64)
    history = []
    for (weight, bias), before, after in zip(split(points, widths), choices, choices[1:], strict=False):
        cost = np.full((len(after), len(points)), far, dtype=np.int64)
        came = np.zeros((len(after), len(points)), dtype=np.int64)
        right = [weight @ projector(e) for e in before]
        for j, out in enumerate(after):
            p = projector(out)
            inside = (bias @ p == UNIT * bias).all(axis=1)
            left = p @ weight
            for i, into in enumerate(before):
                fits = inside & (right[i] == left).all(axis=(1, 2))
                value = np.where(fits, total[i] + out.shape[1] * (into.shape[1] + biases), far)
                came[j] = np.where(value < cost[j], i, came[j])
                cost[j] = np.minimum(cost[j], value)
        history.append(came)
        total = cost
    state = np.zeros(len(points), dtype=np.int64)
    counts = [np.full(len(points), widths[-1])]
    for came, before in zip(history[::-1], choices[-2::-1], strict=True):
        state = came[state, np.arange(len(points))]
        counts.append(np.array([e.shape[1] for e in before])[state])
    return Coarsest(np.stack(counts[::-1], axis=1), total[0])


def expected(found: Coarsest, points: Ints, widths: Widths, law: str, biases: bool) -> Ints:
    """The dimension of the orbit: of the reduced network, or what is left where a whole layer is null.

    The parameters up to a null layer, and the weights out of it, stand still. What follows has no input: with one
    output it has a single gradient field; with more and one hidden layer left, a conservation law for each of its
    classes; with more hidden layers left it has more laws, which are not counted here.
    """
    out = found.dimension.copy()
    for p, counts in enumerate(found.counts):
        empty = np.flatnonzero(counts == 0)
        if empty.size and biases:
            rest = counts[empty[-1] + 1 :]
            moving = int(sum(rest) + sum(a * b for a, b in itertools.pairwise(rest)))
            laws = int(rest[0]) if len(rest) > 1 else 0
            out[p] = min(moving, 1) if counts[-1] == 1 else moving - laws if len(rest) <= 2 else UNKNOWN
    return out if biases or law == "generic" else np.where(silent(points, widths, law), 0, out)


def silent(points: Ints, widths: Widths, law: str) -> npt.NDArray[np.bool_]:
    """Whether, without biases, some layer puts out zero and the weights after it multiply to zero: no field is left.

    Whether the layer puts out zero is seen at random inputs modulo the prime, with random values of s.
    """
    ring, rng = Residues(), np.random.default_rng(0)
    jets, weights = FormalJets(ring, 0, law), [w for w, _ in split(points, widths)]
    h = ring.random(rng, (1, widths[0], 4))
    found = np.zeros(len(points), dtype=bool)
    for k, weight in enumerate(weights[:-1], start=1):
        h = jets(activation("tanh"), ring.matmul(weight % PRIME, h), 0)[0]
        product = weights[k].astype(object)
        for above in weights[k + 1 :]:
            product = above.astype(object) @ product
        found |= ~h.any(axis=(1, 2)) & ~(product != 0).any(axis=(1, 2))
    return found


# ---- dimensions


def family_of(widths: Widths, biases: bool) -> Family:
    """The gradient fields; without biases the biases stand still at zero."""
    family = chain_family(widths, [activation("tanh")] * (len(widths) - 2))
    return family if biases else RestrictedFamily(family, np.zeros(family.size), trained(widths, biases))


def trained(widths: Widths, biases: bool) -> Ints:
    """Indices of the parameters that are trained."""
    keep = [np.full(int(np.prod(shape)), biases or name[0] == "W") for name, shape in blocks_of(widths)]
    return np.flatnonzero(np.concatenate(keep))


def ranks(
    family: Family, points: Ints, goals: Ints, law: str, deepest: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Rank and bracket depth at each point (P, M), deepened until its goal is met."""
    ring = Residues()
    jets = FormalJets(ring, int(rng.integers(2**31)), law)
    rank, depth = np.zeros(len(points), dtype=np.int64), np.zeros(len(points), dtype=np.int64)
    for level in range(1, deepest + 1):
        live = np.flatnonzero(rank < goals)
        if not live.size:
            break
        rows = int(goals[live].max()) + 4
        size = max(1, BATCH // rows >> max(0, level - 3))
        for part in np.split(live, range(size, len(live), size)):
            theta = Nilpotent(ring, {0: np.repeat(points[part] % PRIME, rows, axis=0)})
            terms = brackets(family, theta, [family.draw(ring, rng, len(part) * rows) for _ in range(level)], jets)
            total = np.zeros((len(part) * rows, family.size), dtype=np.int64)
            for term in terms:
                share = ring.multiply(np.broadcast_to(term.real, total.shape), ring.random(rng, (len(total), 1)))
                total = ring.add(total, share)
            for p, table in zip(part, total.reshape(len(part), rows, -1), strict=True):
                rank[p] = rationals.rank_mod(table, PRIME)
        depth[live] = level
    return rank, depth


class Series(Nilpotent):
    """Power series in one variable t, up to t^top: `parts[k]` is the coefficient of t^k."""

    __slots__ = ("top",)

    def __init__(self, ring: Residues, parts: dict[int, Ints], top: int) -> None:
        """Wrap the coefficients."""
        super().__init__(ring, parts)
        self.top = top

    @property
    def order(self) -> int:
        """Powers of a series without constant vanish beyond this."""
        return self.top

    def map(self, function: Any) -> Series:
        """A linear map, applied to every coefficient."""
        return Series(self.ring, {k: function(a) for k, a in self.parts.items()}, self.top)

    def product(self, other: Nilpotent, bilinear: Any) -> Series:
        """A bilinear product, truncated."""
        out: dict[int, Ints] = {}
        for i, a in self.parts.items():
            for j, b in other.parts.items():
                if i + j <= self.top:
                    value = bilinear(a, b)
                    out[i + j] = self.ring.add(out[i + j], value) if i + j in out else value
        return Series(self.ring, out, self.top)

    def __add__(self, other: Nilpotent) -> Series:
        """The sum."""
        return Series(self.ring, super().__add__(other).parts, self.top)

    __radd__ = __add__

    def __rmul__(self, other: Nilpotent) -> Series:
        """The product with a constant."""
        return self.product(other, self.ring.multiply)

    def __rmatmul__(self, other: Nilpotent) -> Series:
        """The product of a constant stack of matrices with this one."""
        return self.product(other, lambda a, b: self.ring.matmul(b, a))

    def expand(self, jets: list[Ints]) -> Series:
        """s(self) from the derivatives of s at the constant coefficient, by Horner's rule."""
        small = Series(self.ring, {k: a for k, a in self.parts.items() if k}, self.top)
        terms = [self.ring.multiply(jet, self.ring.constant(Fraction(1, factorial(j)))) for j, jet in enumerate(jets)]
        out = Series(self.ring, {0: terms[self.top]}, self.top)
        for term in terms[self.top - 1 :: -1] if self.top else ():
            out = small.product(out, self.ring.multiply) + Nilpotent(self.ring, {0: term})
        return out


def flow_ranks(widths: Widths, biases: bool, points: Ints, law: str, top: int, rng: np.random.Generator) -> Ints:
    """Rank over F_p((t)) of the fields at theta(t), which a random combination of fields moves: exact flow-then-rank.

    dim O is the same all along the orbit, so this too is a lower bound of dim O(theta); its cost is polynomial in the
    order of contact, that of brackets exponential in their depth.
    """
    ring, at = Residues(), trained(widths, biases)
    jets, family = FormalJets(ring, int(rng.integers(2**31)), law), family_of(widths, True)
    mask = np.zeros(family.size, dtype=np.int64)
    mask[at] = 1
    mix, count = 3, len(points)
    data = family.draw(ring, rng, count * mix)
    parts = {0: points % PRIME}
    for k in range(top):
        now = Series(ring, {j: np.repeat(a, mix, axis=0) for j, a in parts.items()}, k)
        speed = family.fields(now, data, jets).parts.get(k)
        if speed is None:
            speed = np.zeros((count * mix, family.size), dtype=np.int64)
        move = np.broadcast_to(speed, (count * mix, family.size)).reshape(count, mix, -1).sum(axis=1) % PRIME * mask
        parts[k + 1] = ring.multiply(move, ring.constant(Fraction(1, k + 1)))
    rows = len(at) + 4
    moved = Series(ring, {j: np.repeat(a, rows, axis=0) for j, a in parts.items()}, top)
    fields = family.fields(moved, family.draw(ring, rng, count * rows), jets)
    table = np.zeros((count * rows, len(at), top + 1), dtype=np.int64)
    for k, a in fields.parts.items():
        table[:, :, k] = a[:, at]
    return np.array([series_rank(t) for t in table.reshape(count, rows, len(at), top + 1)])


def series_rank(table: Ints) -> int:
    """Rank of a matrix of truncated power series (R, M, N) modulo the prime: pivots of least order; a lower bound."""
    rank = 0
    while table.size and table.any():
        least = int(np.flatnonzero(table.any(axis=(0, 1)))[0])
        table = table[:, :, least:]  # all entries have at least this order
        i, j = (int(v[0]) for v in np.nonzero(table[:, :, 0]))
        n = table.shape[2]
        pivot, unit = table[i, j], np.zeros(n, dtype=np.int64)
        first = pow(int(pivot[0]), -1, PRIME)
        unit[0] = first
        for k in range(1, n):
            unit[k] = (
                -int(sum(int(a) * int(b) for a, b in zip(pivot[1 : k + 1], unit[k - 1 :: -1], strict=False)))
                * first
                % PRIME
            )
        row = np.zeros_like(table[i])
        for k in range(n):
            row[:, k:] = (row[:, k:] + table[i][:, : n - k] * unit[k]) % PRIME
        rest, column = np.delete(table, i, axis=0), np.delete(table[:, j], i, axis=0)
        for k in range(n):
            rest[:, :, k:] = (rest[:, :, k:] - column[:, None, k, None] * row[None, :, : n - k]) % PRIME
        table = np.delete(rest, j, axis=1)
        rank += 1
    return rank


def flowed(point: Ints, widths: Widths, law: str, biases: bool, rng: np.random.Generator) -> int:
    """The dimension in floating point, at points of the orbit that long flows of a concrete activation reach.

    Each block is scaled to moderate size first, which keeps the partition and everything that vanishes or is equal.
    """
    rows = [activation(ACTIVATIONS[law])] * (len(widths) - 2)
    chain: Family = chain_family(widths, rows)
    if not biases:
        chain = RestrictedFamily(chain, np.zeros(chain.size), trained(widths, biases))
    blocks = []
    for block in itertools.chain.from_iterable(split(point[None].astype(np.float64), widths)):
        blocks.append(
            (block / max(1.0, float(np.abs(block).max()) / 1.5)).reshape(-1)
        )  # the same partition, unsaturated
    floats = NumpyFamily(chain, np.concatenate(blocks)[trained(widths, biases)])
    ends = [wander(floats, floats.start, rng, legs=10, length=length) for length in (6.0, 10.0, 15.0, 30.0)]
    return max(numerical_rank(floats, end, rng) for end in ends)


def numerical_rank(floats: NumpyFamily, point: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """Rank of brackets of depths 1 to 3, without those that are rounding of zero."""
    terms = floats.brackets(point, [floats.draw(rng, floats.size + 8) for _ in range(3)])
    typical = float(np.median(np.linalg.norm(terms[0], axis=1)))
    rows = [t[np.linalg.norm(t, axis=1) > 1e-12 * typical**j] for j, t in enumerate(terms, start=1)]
    return span_of(np.concatenate(rows)).rank if typical > 1e-12 else 0


# ---- points


def entries(rng: np.random.Generator, shape: Sequence[int], kind: str) -> Ints:
    """Small integers: "wide" without zeros, "signs" +-1, "sparse" with many zeros, "one" all equal, "zero"."""
    if kind == "zero":
        return np.zeros(shape, dtype=np.int64)
    if kind == "one":
        return np.ones(shape, dtype=np.int64)
    if kind == "rank":
        return np.multiply.outer(rng.integers(1, 4, shape[0]), rng.integers(-2, 3, shape[1:])).astype(np.int64)
    sign = 2 * rng.integers(0, 2, shape) - 1
    size = rng.integers(1, 8, shape) if kind == "wide" else rng.integers(0, 2, shape) if kind == "sparse" else 1
    return np.asarray(sign * size, dtype=np.int64)


def pattern_points(widths: Widths, law: str, biases: bool, draws: int, rng: np.random.Generator) -> Ints:
    """Points on the manifold of every type of partition, generic and degenerate, with D = Q W Q and without."""
    out = []
    ends = [np.eye(widths[0], dtype=np.int64)], [np.eye(widths[-1], dtype=np.int64)]
    for choice in itertools.product(ends[0], *(shapes(n, law) for n in widths[1:-1]), ends[1]):
        inside = [projector(e) for e in choice]
        for _ in range(draws):
            kinds = rng.choice(["wide", "wide", "signs", "sparse", "one", "rank", "zero"], (2, len(widths) - 1))
            generic = rng.random() < 0.3
            deviation = bool(rng.random() < 0.7)
            theta = []
            for k, (low, high) in enumerate(itertools.pairwise(widths)):
                p, q = inside[k + 1], inside[k]
                kind = "wide" if generic else str(kinds[0, k])
                weight = p @ entries(rng, (high, low), kind) @ q
                if deviation:
                    fresh = entries(rng, (high, low), "wide" if generic else str(kinds[1, k]))
                    weight = weight + (UNIT * np.eye(high, dtype=np.int64) - p) @ fresh @ (
                        UNIT * np.eye(low, dtype=np.int64) - q
                    )
                bias = entries(rng, (high,), str(rng.choice(["wide", "zero", "one"])) if biases else "zero")
                theta += [weight.reshape(-1), p @ bias]
            out.append(np.concatenate(theta))
    return np.unique(np.array(out), axis=0)


def sign_points(widths: Widths, law: str, biases: bool) -> Iterator[Ints]:
    """All parameters in {-1, 0, 1} up to symmetry: order and (odd s) signs of neurons, signs of inputs and outputs.

    Output biases, which do not matter, are 0. In chunks of points that are least in their class.
    """
    free = [np.array([0]) if name == f"b{len(widths) - 1}" or (name[0] == "b" and not biases) else np.array([0, 1, -1])
            for name, shape in blocks_of(widths) for _ in range(int(np.prod(shape)))]  # fmt: skip
    maps = symmetries(widths, law)
    sizes = [len(v) for v in free]
    total = int(np.prod([float(s) for s in sizes]))
    base = 3 ** np.arange(len(free), dtype=np.int64)[::-1]
    for start in range(0, total, 100_000):
        digits = np.stack(np.unravel_index(np.arange(start, min(total, start + 100_000)), sizes), axis=1)
        points = np.where(digits == 2, -1, digits)
        code = (points % 3) @ base
        least = np.ones(len(points), dtype=bool)
        for order, sign in maps:
            least &= ((points[:, order] * sign) % 3) @ base >= code
        yield points[least]


def symmetries(widths: Widths, law: str) -> list[tuple[Ints, Ints]]:
    """Signed permutations of the parameters that map the family to itself, as (index, sign)."""
    ends = [[np.diag(s) for s in itertools.product((1, -1), repeat=n)] for n in (widths[0], widths[-1])]
    hidden = []
    for n in widths[1:-1]:
        orders = [np.eye(n, dtype=np.int64)[list(o)] for o in itertools.permutations(range(n))]
        signs = [np.diag(s) for s in itertools.product((1, -1) if law == "odd" else (1,), repeat=n)]
        hidden.append([s @ o for o in orders for s in signs])
    size = sum(int(np.prod(shape)) for _, shape in blocks_of(widths))
    labels = np.arange(1, size + 1)
    out = []
    for choice in itertools.product(ends[0], *hidden, ends[1]):
        moved = []
        for k, (weight, bias) in enumerate(split(labels[None], widths)):
            moved += [(choice[k + 1] @ weight[0] @ choice[k].T).reshape(-1), choice[k + 1] @ bias[0]]
        image = np.concatenate(moved)
        out.append((np.abs(image) - 1, np.sign(image)))
    return out


# ---- the search


@dataclass
class Tally:
    """What a search found."""

    nets: int = 0
    points: int = 0
    agree: int = 0
    depths: Counter[int] = field(default_factory=Counter)
    null_layers: int = 0
    uncounted: int = 0
    series: int = 0
    flows: int = 0
    open: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        depths = ", ".join(f"{n} at depth {d}" for d, n in sorted(self.depths.items()) if d)
        return (
            f"{self.nets} architectures and classes, {self.points} points; as predicted {self.agree} ({depths}; "
            f"{self.series} along an exact flow, {self.flows} along one in floats), without input {self.null_layers} "
            f"(and {self.uncounted} without prediction), "
            f"open {len(self.open)}, wrong {len(self.wrong)}"
        )


def examine(widths: Widths, law: str, biases: bool, points: Ints, rng: np.random.Generator, tally: Tally,
            deepest: int = 3, orders: Sequence[int] = (8, 16, 28)) -> None:  # fmt: skip
    """Compare dimension and prediction at all points (P, M)."""
    if not len(points):
        return
    family, at = family_of(widths, biases), trained(widths, biases)
    found = coarsest(points, widths, law, biases)
    goal = expected(found, points, widths, law, biases)
    tally.uncounted += int((goal == UNKNOWN).sum())
    points, goal = points[goal != UNKNOWN], goal[goal != UNKNOWN]
    if not len(points):
        return
    found = coarsest(points, widths, law, biases)
    rank, _ = ranks(family, points[:, at], found.dimension + 1, law, 1, rng)  # beyond the goal, to see more than it
    some, depth = ranks(family, points[:, at], goal, law, deepest, rng)
    rank = np.maximum(rank, some)
    for top in orders:
        rest = np.flatnonzero(rank < goal)
        for part in np.split(rest, range(100, len(rest), 100)):
            if len(part):
                rank[part] = np.maximum(rank[part], flow_ranks(widths, biases, points[part], law, top, rng))
                depth[part] = 0
    tally.series += int(((rank == goal) & (depth == 0) & (goal > 0)).sum())
    rest = np.flatnonzero(rank < goal)
    rank[rest], depth[rest] = ranks(family, points[rest][:, at], goal[rest], law, 6 if len(at) <= 24 else 5, rng)
    tally.points += len(points)
    null = goal != found.dimension
    for p in np.flatnonzero(rank != goal):
        label = (
            f"{'-'.join(map(str, widths))} {law} {'' if biases else 'no '}biases, classes {found.counts[p].tolist()}: "
        )
        label += f"rank {rank[p]}, expected {goal[p]}, reduced {found.dimension[p]}, theta {points[p].tolist()}"
        if rank[p] > goal[p]:
            tally.wrong.append(label)
        elif flowed(points[p], widths, law, biases, rng) == goal[p]:
            tally.flows += 1
            rank[p] = goal[p]
        else:
            tally.open.append(label)
    good = rank == goal
    tally.agree += int((good & ~null).sum())
    tally.null_layers += int((good & null).sum())
    tally.depths.update(depth[good].tolist())


def small_nets(part: str) -> Iterator[tuple[Widths, bool]]:
    """Widths, and whether there are biases."""
    if part == "signs":
        tiny = [(1, 1, 1, 1), (1, 1, 1, 2), (2, 1, 1, 1), (1, 1, 2, 1), (1, 2, 1, 1)]
        yield from ((w, False) for w in [*tiny, (1, 1, 1, 1, 1), (1, 1, 1, 1, 2)])
        for w in ((1, 2, 2, 1), (2, 2, 1, 1), (1, 2, 1, 2), (1, 1, 2, 2)):
            yield w, False
        yield from ((w, False) for w in ((1, 2, 1, 1, 1), (1, 1, 1, 2, 1), (1, 1, 2, 1, 1)))
        yield from ((w, True) for w in [*tiny, (1, 2, 2, 1), (1, 1, 1, 1, 1), (1, 1, 1, 1, 2)])
        return
    for ends in itertools.product((1, 2), (1, 2)):
        for hidden in itertools.product((1, 2, 3), repeat=2):
            yield from (((ends[0], *hidden, ends[1]), b) for b in (False, True))
    for ends in itertools.product((1, 2), (1, 2)):
        for hidden in itertools.product((1, 2), repeat=3):
            yield from (((ends[0], *hidden, ends[1]), b) for b in (False, True))
    for hidden in ((4, 2), (2, 4), (3, 3, 2), (2, 3, 2), (4, 4)):
        yield from (((1, *hidden, 1), b) for b in (False, True))


def main(part: str, seconds: float, seed: int, draws: int, most: int) -> int:
    """Search, and print what was found; 1 if anything contradicts the statement."""
    rng, start, tally = np.random.default_rng(seed), time.perf_counter(), Tally()
    for name in ("signs", "patterns") if part == "all" else (part,):
        nets = list(small_nets(name))
        for widths, biases in nets if name == "signs" else [nets[i] for i in rng.permutation(len(nets))]:
            for law in ACTIVATIONS:
                if time.perf_counter() - start > seconds:
                    print("stopped by the clock before", name, widths, law)
                    return report(tally)
                tally.nets += 1
                before = tally.points
                if name == "signs":
                    points = np.concatenate(list(sign_points(widths, law, biases)))
                    if len(points) > most:
                        points = points[np.sort(rng.choice(len(points), most, replace=False))]
                    examine(widths, law, biases, points, rng, tally)
                else:
                    examine(widths, law, biases, pattern_points(widths, law, biases, draws, rng), rng, tally)
                seconds_now, kind = time.perf_counter() - start, f"{law} {'with' if biases else 'without'} biases"
                state = f"{tally.points - before} points; open {len(tally.open)}, wrong {len(tally.wrong)}"
                print(f"{seconds_now:7.1f} s  {name} {widths} {kind}: {state}", flush=True)
    return report(tally)


def report(tally: Tally) -> int:
    """Print the outcome; 1 if anything is open or contradicts the statement."""
    print(tally)
    for line in [*tally.wrong[:40], *tally.open[:40]]:
        print("  ", line)
    return int(bool(tally.wrong or tally.open))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("patterns", "signs", "all"), default="all")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=6, help="points for each pattern")
    parser.add_argument(
        "--most", type=int, default=1000, help="points of one architecture with entries -1, 0, 1; random beyond"
    )
    options = parser.parse_args()
    sys.exit(main(options.part, options.seconds, options.seed, options.draws, options.most))
