"""Automorphisms of a parameter: relabelings of hidden neurons that keep it, from twins and by search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import factorial, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.network import Network
from fiberscope.neurons import Classes, colour_classes, proportional_rows
from fiberscope.results import Budget, Result, Rigor, Stopwatch
from fiberscope.rowclasses import Multiples, Part, partition

IntArray = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_ENTRIES = 30_000_000
"""Larger tables of pairs of neurons are not searched; twins are found in any case."""


@dataclass(frozen=True)
class Automorphisms(Result):
    """Relabelings of hidden neurons, with scalings, that keep the parameter.

    Args:
        order: number of them that were found.
        swaps: (layer, neurons) of each class of interchangeable neurons: twins with proportional in- and outputs.
        exact: whether there are no others (else `order` divides the full number).
    """

    order: int
    swaps: tuple[tuple[int, tuple[int, ...]], ...]
    exact: bool


def twin_automorphisms(net: Network) -> Automorphisms:
    """The group of relabelings of hidden neurons (with scalings) that keep theta, as far as twins generate it.

    Every such relabeling keeps the coarsest equitable partition, so where its classes are classes of twins the group is
    the product of their symmetric groups (EXACT); otherwise that product is a subgroup. O(parameters).

    >>> net = Network.from_arrays(([[1.0], [1.0], [2.0]], [0, 0, 1]), ([[5.0, 5.0, 1.0]], [0]))
    >>> twin_automorphisms(net).order
    2
    """
    order, swaps, exact = 1, [], True
    for k, coarse in enumerate(colour_classes(net)):
        alike = proportional_rows(net.layers[k])
        columns = rationals.fractions(net.layers[k + 1].weight)
        for members in coarse.members:
            groups: dict[Any, list[int]] = {}
            for i in members:
                label = int(alike.labels[i])
                unit = Fraction(alike.factors[i]) if label >= 0 else Fraction(1)
                groups.setdefault((label, tuple(columns[:, i] * abs(unit))), []).append(i)
            exact &= len(groups) == 1
            for twins in groups.values():
                if len(twins) > 1:
                    order *= factorial(len(twins))
                    swaps.append((k, tuple(twins)))
        exact &= len(coarse.null) <= 1
    return Automorphisms(order, tuple(swaps), exact)


# ---- search


@dataclass(frozen=True, eq=False)
class NeuronOrbits(Result):
    """Orbits of the group of relabelings (with signs, where the activation has a parity) that keep theta.

    Args:
        orbits: of every hidden layer, neurons that some such relabeling exchanges, up to sign.
        order: of the group: signed permutations of the hidden neurons, layer by layer, that keep every weight.
        generators: how many were found besides exchanges of twins.
        exact: whether the search was complete; else the orbits are unions of fewer and `order` divides the true one.
        rigor: EXACT; every relabeling found keeps the weights as rationals, and a complete search misses none.
    """

    orbits: tuple[tuple[tuple[int, ...], ...], ...]
    order: int
    generators: int
    exact: bool
    rigor: Rigor = Rigor.EXACT

    def __str__(self) -> str:
        """One screen."""
        head = f"{'' if self.exact else 'at least '}{self.order:,} relabelings of hidden neurons keep the weights"
        lines = [head]
        for k, layer in enumerate(self.orbits):
            shared = [o for o in layer if len(o) > 1]
            shown = ", ".join(
                "{" + ",".join(map(str, o[:8])) + (",..." if len(o) > 8 else "") + "}" for o in shared[:6]
            )
            more = f" and {len(shared) - 6:,} more" if len(shared) > 6 else ""
            lines.append(f"  hidden layer {k + 1}: {'orbits ' + shown + more if shared else 'every neuron alone'}")
        return "\n".join(lines)


def neuron_orbits(
    net: Network, classes: Sequence[Classes] | None = None, *, budget: Budget | float | None = 10.0
) -> NeuronOrbits:
    """Orbits of the permutations of hidden neurons, with signs for odd and even activations, that keep theta.

    Every such relabeling keeps the coarsest equitable partition (in deep networks unless an activation is even), so the
    search runs inside its classes; the orbits are finer in general (a magic square of weights has one class and no
    relabeling). First twins, neurons
    with the same in- and outgoing weights up to sign, are put aside: they contribute the product of their factorials.
    The others are found by individualisation and refinement with backtracking, level by level along a base: the order
    is the product of the orbit lengths (Schreier-Sims). Signs: odd activations turn a neuron's row, bias and column,
    even ones its row and bias; a neuron that its sign does not change counts twice.

    Args:
        net: a chain.
        classes: its coarsest equitable partition, found if not given.
        budget: seconds for the search.

    Complexity: O(parameters) for twins; exponential in the worst case for the rest, mostly O(size^2) refinements.

    >>> circulant = [[1.0, 2.0, 4.0], [4.0, 1.0, 2.0], [2.0, 4.0, 1.0]]
    >>> pairs = ([[1.0]] * 3, [0.0] * 3), (circulant, [0.0] * 3), ([[1.0] * 3], [0.0])
    >>> found = neuron_orbits(Network.from_arrays(*pairs, activation="softplus"))
    >>> found.order, found.orbits
    (3, (((0, 1, 2),), ((0, 1, 2),)))
    """
    clock = Budget.of(budget).start()
    classes = colour_classes(net) if classes is None else tuple(classes)
    twins = [_twins(net, k, here) for k, here in enumerate(classes)]
    free = [_turnable(net, k) for k in range(len(classes))]
    order = prod(factorial(len(m)) for t in twins for m in t.members) * 2 ** sum(int(f.sum()) for f in free)
    table = _Table.of(net, classes, twins, free)
    unions = [_Union(t.count) for t in twins]
    exact, generators = True, 0
    if table is None:
        exact = _settled(net, twins, classes, free)
    else:
        search = _Search(table, clock)
        length, exact = search.order()
        order, generators = order * length, len(search.generators)
        for image in search.generators:
            table.unite(image, unions)
    orbits = tuple(
        tuple(sorted(tuple(sorted(i for a in group for i in t.members[a])) for group in u.groups()))
        for t, u in zip(twins, unions, strict=True)
    )
    return NeuronOrbits(orbits, order, generators, exact)


def _parity(net: Network, k: int) -> str | None:
    return net.layers[k].activation.parity


def _twins(net: Network, k: int, classes: Classes) -> Classes:
    """Neurons of one layer with equal rows, biases and columns up to the signs of the activation."""
    layer, above = net.layers[k], net.layers[k + 1]
    one = np.full(max(layer.n_in, above.n_out, 1), Fraction(1), dtype=object)
    even = _parity(net, k) == "even"
    parts = [
        Part(layer.weight, np.arange(layer.n_in), one[: layer.n_in]),
        Part(layer.bias.reshape(-1, 1), np.zeros(1, dtype=np.int64), one[:1]),
        Part(above.weight.T, np.arange(above.n_out), one[: above.n_out], signed=not even),
    ]
    rule = Multiples(sign=_parity(net, k) is not None, even=even)
    return partition(parts, rule, classes.labels, np.random.default_rng(0))


def _turnable(net: Network, k: int) -> npt.NDArray[np.bool_]:
    """Neurons that their sign does not change: zero rows and biases, and for odd activations zero columns."""
    layer = net.layers[k]
    if _parity(net, k) is None:
        return np.zeros(layer.n_out, dtype=bool)
    still = (layer.bias == 0) & ~(layer.weight != 0).any(axis=1)
    if _parity(net, k) == "odd":
        still &= ~(net.layers[k + 1].weight != 0).any(axis=0)
    return np.asarray(still, dtype=bool)


def _settled(
    net: Network, twins: Sequence[Classes], classes: Sequence[Classes], free: Sequence[npt.NDArray[np.bool_]]
) -> bool:
    """Whether twins and signs of single neurons generate everything.

    With inputs and outputs beside them, neurons that are exchanged are twins. Otherwise every class must be one class
    of twins, and null neurons, which a relabeling may turn along with others, must be free to turn alone. The classes
    of even activations in deeper networks bound nothing: a neuron with zero class sums is turned for free there.
    """
    if net.depth <= 2:
        return True
    if any(_parity(net, k) == "even" for k in range(len(classes))):
        return False
    for t, c, f in zip(twins, classes, free, strict=True):
        pairs = {(int(a), int(b)) for a, b in zip(t.labels, c.labels, strict=True)}
        if not len(pairs) == len({b for _, b in pairs}) == t.count or not f[c.labels < 0].all():
            return False
    return True


class _Union:
    """Disjoint sets."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        self.parent[self.find(i)] = self.find(j)

    def groups(self) -> Iterable[list[int]]:
        found: dict[int, list[int]] = {}
        for i in range(len(self.parent)):
            found.setdefault(self.find(i), []).append(i)
        return found.values()


@dataclass(frozen=True, eq=False)
class _Table:
    """Points (class of twins, sign) of all layers, and for neighbouring layers the numbers of their weights' values.

    Args:
        start: first point of every layer, hidden ones and the two ends, and the number of points.
        neuron: (points,) the class of twins of each.
        partner: (points,) the same with the other sign; itself where there is none.
        colours: (points,) what no relabeling changes.
        values: for every matrix (points above, points below), equal numbers for equal weights.
    """

    start: IntArray
    neuron: IntArray
    partner: IntArray
    colours: Words
    values: tuple[Words, ...]

    @staticmethod
    def of(
        net: Network, classes: Sequence[Classes], twins: Sequence[Classes], free: Sequence[npt.NDArray[np.bool_]]
    ) -> _Table | None:
        """None where there is nothing to search, or too much."""
        if _settled(net, twins, classes, free):
            return None
        even = any(_parity(net, k) == "even" for k in range(len(classes)))
        first = [np.array([m[0] for m in t.members], dtype=np.int64) for t in twins]
        first = [np.arange(net.widths[0]), *first, np.arange(net.widths[-1])]
        signs, neurons, colours = [], [], []
        for k, here in enumerate(first):
            hidden = 0 < k < net.depth
            two = np.full(here.size, hidden and _parity(net, k - 1) is not None)
            two &= ~free[k - 1][here] if hidden else True
            neuron = np.concatenate([np.arange(here.size), np.flatnonzero(two)])
            signs.append(np.concatenate([np.ones(here.size), -np.ones(int(two.sum()))]))
            neurons.append(neuron)
            size = np.bincount(twins[k - 1].labels, minlength=here.size) if hidden else np.arange(here.size)
            kind = classes[k - 1].labels[here] + 1 if hidden and not even else np.zeros(here.size, np.int64)
            colours.append(np.stack([np.full(neuron.size, k), size[neuron], kind[neuron]]).astype(np.uint64))
        points = [n.size for n in neurons]
        if sum(a * b for a, b in zip(points, points[1:], strict=False)) > _ENTRIES:
            return None
        start = np.concatenate([[0], np.cumsum(points)])
        values = []
        for k, layer in enumerate(net.layers):
            numbers = _numbered(layer.weight[first[k + 1]][:, first[k]])
            out = np.ones(points[k]) if k and _parity(net, k - 1) == "even" else signs[k]
            turned = numbers[neurons[k + 1]][:, neurons[k]] * np.outer(signs[k + 1], out).astype(np.int64)
            values.append(turned.astype(np.uint64))
            shift = _numbered(layer.bias[first[k + 1]][:, None])[neurons[k + 1], 0] * signs[k + 1].astype(np.int64)
            colours[k + 1] = np.concatenate([colours[k + 1], shift.astype(np.uint64)[None]])
        colours[0] = np.concatenate([colours[0], np.zeros((1, points[0]), np.uint64)])
        partner = np.arange(start[-1])
        for k, neuron in enumerate(neurons):
            single = first[k].size
            partner[start[k] + single + np.arange(neuron.size - single)] = start[k] + neuron[single:]
            partner[start[k] + neuron[single:]] = start[k] + single + np.arange(neuron.size - single)
        mixed = np.zeros(int(start[-1]), np.uint64)
        for row in np.concatenate(colours, axis=1):
            mixed = _mix(mixed, row)
        return _Table(start, np.concatenate(neurons), partner, mixed, tuple(values))

    def unite(self, image: IntArray, unions: Sequence[_Union]) -> None:
        """Join what a relabeling exchanges."""
        for k, union in enumerate(unions, start=1):
            for p in range(int(self.start[k]), int(self.start[k + 1])):
                union.join(int(self.neuron[p]), int(self.neuron[image[p]]))

    def keeps(self, image: IntArray) -> bool:
        """Whether a relabeling of the points keeps all weights; colours carry the biases."""
        if not (image[self.partner] == self.partner[image]).all():
            return False
        for k, table in enumerate(self.values):
            low, high = (image[self.start[j] : self.start[j + 1]] - self.start[j] for j in (k, k + 1))
            if not (table[high][:, low] == table).all():
                return False
        return True


def _numbered(matrix: npt.NDArray[Any]) -> IntArray:
    """Whole numbers that agree where the entries do, with opposite numbers for opposite entries."""
    size = np.abs(matrix)
    known, place = np.unique(size, return_inverse=True)
    ranks = place.reshape(matrix.shape) + (0 if known.size and known[0] == 0 else 1)
    return np.asarray(ranks * np.where(matrix < 0, -1, 1), dtype=np.int64)


def _mix(a: Words, b: Words) -> Words:
    """A 64-bit hash of pairs (splitmix64); equal pairs give equal words."""
    with np.errstate(over="ignore"):
        x = a * np.uint64(0x9E3779B97F4A7C15) + b + np.uint64(0x632BE59BD9B4E019)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


class _Expired(Exception):
    """The budget is spent."""


class _Search:
    """Individualisation and refinement on two copies of a table at once.

    Hash words may agree by accident: then less is refined, and what is found is compared in full, so nothing wrong
    comes out and nothing is missed.
    """

    def __init__(self, table: _Table, clock: Stopwatch) -> None:
        self.table, self.clock = table, clock
        self.generators: list[IntArray] = []

    def order(self) -> tuple[int, bool]:
        """Order of the group, and whether the search was complete (else what was found generates a subgroup)."""
        base: list[tuple[int, IntArray]] = []
        colours = self.refined(self.table.colours)
        while (cell := _open_cell(colours)) is not None:
            base.append((int(cell[0]), cell))
            colours = self.refined(_individual(colours, int(cell[0]), len(base)))
        order, exact = 1, True
        for depth in range(len(base) - 1, -1, -1):
            point, cell = base[depth]
            fixed = [p for p, _ in base[:depth]]
            orbit = self.orbit(point)
            for image in cell[1:].tolist() if exact else []:
                if image in orbit:
                    continue
                try:
                    found = self.mapping(fixed, point, image)
                except _Expired:
                    exact = False
                    break
                if found is not None:
                    self.generators.append(found)
                    orbit = self.orbit(point)
            order *= len(orbit)
        return order, exact

    def orbit(self, point: int) -> set[int]:
        """Of a point under the generators found so far, all of which fix the points before it in the base."""
        found, stack = {point}, [point]
        while stack:
            p = stack.pop()
            for image in self.generators:
                q = int(image[p])
                if q not in found:
                    found.add(q)
                    stack.append(q)
        return found

    def mapping(self, fixed: Sequence[int], point: int, image: int) -> IntArray | None:
        """A relabeling that keeps the weights and the fixed points and takes a point to its image, or None."""
        left = right = self.table.colours
        for n, p in enumerate([*fixed, point], start=1):
            left = _individual(left, p, n)
            right = _individual(right, p if n <= len(fixed) else image, n)
        return self._extended(left, right, len(fixed) + 2)

    def _extended(self, left: Words, right: Words, depth: int) -> IntArray | None:
        if self.clock.expired:
            raise _Expired
        both = self.refined_pair(left, right)
        if both is None:
            return None
        left, right = both
        cell = _open_cell(left)
        if cell is None:
            image = np.empty(left.size, dtype=np.int64)
            image[np.argsort(left)] = np.argsort(right)
            return image if self.table.keeps(image) else None
        marked = _individual(left, int(cell[0]), depth)
        for q in np.flatnonzero(right == left[cell[0]]).tolist():
            found = self._extended(marked, _individual(right, q, depth), depth + 1)
            if found is not None:
                return found
        return None

    def refined(self, colours: Words) -> Words:
        """Colours that tell points apart by what they are joined to, until no more are told apart."""
        return self._steady(colours, colours)[0]

    def refined_pair(self, left: Words, right: Words) -> tuple[Words, Words] | None:
        """The same on two sides, None if they then differ."""
        left, right = self._steady(left, right)
        return (left, right) if (np.sort(left) == np.sort(right)).all() else None

    def _steady(self, left: Words, right: Words) -> tuple[Words, Words]:
        count = np.unique(left).size
        while True:
            again = left is right
            left = self._round(left)
            right = left if again else self._round(right)
            now = np.unique(left).size
            if now <= count:
                return left, right
            count = now

    def _round(self, colours: Words) -> Words:
        table = self.table
        new = _mix(colours, colours[table.partner])
        for k, values in enumerate(table.values):
            low, high = slice(*table.start[k : k + 2]), slice(*table.start[k + 1 : k + 3])
            with np.errstate(over="ignore"):
                new[high] = _mix(new[high], _mix(values, colours[None, low]).sum(axis=1, dtype=np.uint64))
                down = _mix(values, colours[high, None]).sum(axis=0, dtype=np.uint64)
            new[low] = _mix(new[low], down ^ np.uint64(0x5555555555555555))
        return new


def _individual(colours: Words, point: int, mark: int) -> Words:
    """The same colours with one point told apart."""
    out = colours.copy()
    out[point] = _mix(out[point : point + 1], np.array([mark], np.uint64))[0] ^ np.uint64(0xAAAAAAAAAAAAAAAA)
    return out


def _open_cell(colours: Words) -> IntArray | None:
    """The points of the smallest colour that several have, None where all differ."""
    _, first, place, size = np.unique(colours, return_index=True, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(size > 1)
    if not shared.size:
        return None
    least = shared[size[shared] == size[shared].min()]
    chosen = least[np.argmin(first[least])]
    return np.flatnonzero(place.reshape(-1) == chosen)
