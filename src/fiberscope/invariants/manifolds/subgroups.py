"""Fixed spaces of groups of neuron symmetries, also of groups that act on several layers at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.errors import InputError
from fiberscope.invariants.manifolds.rules import class_rules
from fiberscope.network import Network
from fiberscope.neurons import colour_classes, still_layers

Code = tuple[int, ...]
"""A space of vectors whose entries coincide up to sign or vanish: entry c is +-(1 + first entry equal to it), or 0."""

Move = tuple[tuple[int, ...], tuple[int, ...]]
"""A signed permutation of coordinates: entry c of the image is signs[c] times entry source[c]."""


@dataclass(frozen=True)
class FixedSpace:
    """The fixed spaces of one conjugacy class of groups of neuron symmetries.

    Args:
        dimension: of the space, which is invariant under gradient flow.
        leaf_dimension: parameters of the reduced network of the coarsest equitable partition at a random integer point
            of the space, without what stands still below a null layer, at most `dimension`: training moves in no more
            dimensions than this.
        classes: that partition, for each hidden layer the classes of live neurons.
        null: its null neurons.
        count: number of spaces in the conjugacy class.
        code: one of the spaces, entry by entry of the parameters: 0, or +-(1 + first parameter equal to it).
    """

    dimension: int
    leaf_dimension: int
    classes: tuple[tuple[tuple[int, ...], ...], ...]
    null: tuple[tuple[int, ...], ...]
    count: int
    code: Code

    @property
    def condensed(self) -> bool:
        """Whether training moves in all its dimensions; if not, part of each weight matrix is frozen on it."""
        return self.dimension == self.leaf_dimension

    def contains(self, theta: Sequence[Any] | Network) -> bool:
        """Whether the parameters that exist lie in the space of `code`, exactly.

        Raises:
            InputError: if the number of parameters differs.
        """
        values = theta.theta if isinstance(theta, Network) else theta
        vector = rationals.fractions(rationals.exact_array(values))
        if vector.shape != (len(self.code),):
            raise InputError(f"theta has shape {vector.shape}; the space lies in {len(self.code)} parameters")
        return all(
            v == (0 if c == 0 else (1 if c > 0 else -1) * vector[abs(c) - 1])
            for v, c in zip(vector, self.code, strict=True)
        )


def fixed_spaces(
    widths: Sequence[int], row: Activation, *, bias: bool = True, output_bias: bool = True, limit: int = 3000
) -> tuple[FixedSpace, ...]:
    """All fixed spaces V^G of subgroups G of the neuron symmetries, up to conjugation, in order of falling dimension.

    The symmetries are prod_l S_(n_l), with signs where the activation is odd or even; they act on the weights by
    signed permutations, so V^G, the intersection of the V^g with g in G, is a partition of the parameters with signs.
    The spaces are the closure of {V^g} under intersection. In two-layer networks these are the partitions and signed
    partitions of the list; in deep ones G may act on several layers at once, and V^G is larger than what training
    moves in.

    Args:
        widths: (n_0, ..., n_L).
        row: activation of the hidden layers.
        bias: whether hidden layers have biases.
        output_bias: whether the last layer has biases.
        limit: largest order of the whole group, and largest number of spaces.

    Raises:
        InputError: if the group or the number of spaces is larger than `limit`; the number is told.

    Complexity: O(conjugacy classes * group order * parameters). Source: arXiv 2510.09564 (symmetries fix manifolds).

    >>> from fiberscope.activations import activation
    >>> found = fixed_spaces((1, 2, 2, 1), activation("softplus"), output_bias=False)
    >>> [(v.dimension, v.leaf_dimension) for v in found]
    [(12, 12), (8, 8), (8, 8), (6, 5), (5, 5)]
    """
    order = group_order(widths, row)
    if order > limit:
        raise InputError(f"the symmetry group of these widths has {order:,} elements; the limit is {limit:,}")
    actions = _Action(tuple(widths), row, bias, output_bias)
    found = _closure(actions, limit)
    spaces = [_space(actions, code, count) for code, count in found]
    return tuple(sorted(spaces, key=lambda v: (-v.dimension, -v.leaf_dimension, v.code)))


def group_order(widths: Sequence[int], row: Activation) -> int:
    """The order of the group of neuron symmetries: the product of n_l!, times 2^n_l with signs, over hidden layers.

    >>> from fiberscope.activations import activation
    >>> group_order((1, 3, 2, 1), activation("tanh"))
    384
    """
    signs = class_rules(row).signs
    return math.prod(math.factorial(n) * (2**n if signs else 1) for n in widths[1:-1])


class _Action:
    """The symmetries of an architecture as signed permutations of its parameters."""

    def __init__(self, widths: tuple[int, ...], row: Activation, bias: bool, output_bias: bool) -> None:
        rules = class_rules(row)
        self.widths, self.row, self.signs, self.even = widths, row, rules.signs, rules.even
        self.biases = (*([bias] * (len(widths) - 2)), output_bias)

    def elements(self) -> Iterator[Move]:
        """All of the group."""
        for choice in itertools.product(*(list(_signed(n, self.signs)) for n in self.widths[1:-1])):
            yield self.move(choice)

    def generators(self) -> list[Move]:
        """Neighbouring exchanges, and the sign of the first neuron, in each layer."""
        still = [(tuple(range(n)), (1,) * n) for n in self.widths[1:-1]]
        out = []
        for k, n in enumerate(self.widths[1:-1]):
            changes = []
            for i in range(n - 1):
                order = list(range(n))
                order[i], order[i + 1] = i + 1, i
                changes.append((tuple(order), (1,) * n))
            if self.signs and n:
                changes.append((tuple(range(n)), (-1,) + (1,) * (n - 1)))
            out += [self.move((*still[:k], change, *still[k + 1 :])) for change in changes]
        return out

    def move(self, choice: Sequence[Move]) -> Move:
        """The action of one signed permutation of each hidden layer on the parameters: W -> rho_l W rho_(l-1)^T."""
        ends = [(tuple(range(n)), (1,) * n) for n in (self.widths[0], self.widths[-1])]
        rho = [ends[0], *choice, ends[1]]
        source, signs, at = [], [], 0
        for k, has in enumerate(self.biases):
            (right, right_signs), (left, left_signs) = rho[k], rho[k + 1]
            n, m = self.widths[k], self.widths[k + 1]
            for i in range(m):
                for j in range(n):
                    source.append(at + left[i] * n + right[j])
                    signs.append(left_signs[i] * (1 if self.even else right_signs[j]))
            at += n * m
            if has:
                source += [at + left[i] for i in range(m)]
                signs += list(left_signs)
                at += m
        return tuple(source), tuple(signs)


def _signed(n: int, signs: bool) -> Iterator[Move]:
    for order in itertools.permutations(range(n)):
        for flips in itertools.product((1, -1), repeat=n) if signs else ((1,) * n,):
            yield order, flips


def _join(size: int, relations: Iterable[tuple[int, int, int]]) -> Code:
    """The code of {v_a = sign v_b for all (a, b, sign)}; a block in which some v = -v is zero."""
    parent, parity, zero = list(range(size)), [1] * size, [False] * size

    def find(c: int) -> tuple[int, int]:
        sign = 1
        while parent[c] != c:
            sign *= parity[c]
            c = parent[c]
        return c, sign

    for a, b, sign in relations:
        (x, p), (y, q) = find(a), find(b)
        if x == y:
            zero[x] |= p * q != sign
            continue
        x, y = min(x, y), max(x, y)  # the first coordinate of a block is its root
        parent[y], parity[y] = x, p * q * sign
        zero[x] |= zero[y]
    out = []
    for c in range(size):
        root, sign = find(c)
        out.append(0 if zero[root] else sign * (root + 1))
    return tuple(out)


def _relations(code: Code) -> Iterator[tuple[int, int, int]]:
    for c, value in enumerate(code):
        if value == 0:
            yield c, c, -1
        elif abs(value) != c + 1:
            yield c, abs(value) - 1, 1 if value > 0 else -1


def _image(code: Code, move: Move) -> Code:
    """The image of a space under a signed permutation."""
    first: dict[int, tuple[int, int]] = {}
    out = []
    for c, (source, sign) in enumerate(zip(*move, strict=True)):
        value = code[source] * sign
        if value == 0:
            out.append(0)
            continue
        lead, way = first.setdefault(abs(value), (c + 1, 1 if value > 0 else -1))
        out.append(lead if (value > 0) == (way > 0) else -lead)
    return tuple(out)


def _closure(actions: _Action, limit: int) -> list[tuple[Code, int]]:
    """Representatives of the conjugacy classes of all intersections of fixed spaces of elements, with their sizes."""
    moves = list(actions.elements())
    size = len(moves[0][0])
    single = list({_join(size, ((c, s, sign) for c, (s, sign) in enumerate(zip(*g, strict=True)))) for g in moves})
    relations = [list(_relations(code)) for code in single]
    generators = actions.generators()
    known: set[Code] = set()
    waiting: list[Code] = []
    out: list[tuple[Code, int]] = []

    def add(code: Code) -> None:
        if code in known:
            return
        orbit, fresh = {code}, [code]
        while fresh:
            now = fresh.pop()
            for move in generators:
                image = _image(now, move)
                if image not in orbit:
                    orbit.add(image)
                    fresh.append(image)
        known.update(orbit)
        if len(known) > limit:
            raise InputError(f"more than {limit:,} fixed spaces (the group has {len(moves):,} elements); raise limit")
        out.append((min(orbit), len(orbit)))
        waiting.append(code)

    add(tuple(range(1, size + 1)))
    while waiting:
        code = waiting.pop()
        own = list(_relations(code))
        for other in relations:
            add(_join(size, own + other))
    return out


def _space(actions: _Action, code: Code, count: int) -> FixedSpace:
    """The coarsest equitable partition at a random integer point of the space, exactly."""
    rng = np.random.default_rng(0)
    values = rng.integers(1 << 20, 1 << 30, len(code))
    point = [Fraction(0) if c == 0 else Fraction(int(values[abs(c) - 1])) * (1 if c > 0 else -1) for c in code]
    pairs, at = [], 0
    for n, m, has in zip(actions.widths, actions.widths[1:], actions.biases, strict=False):
        weight = np.array(point[at : at + n * m], dtype=object).reshape(m, n)
        at += n * m
        shift = np.array(point[at : at + m] if has else [Fraction(0)] * m, dtype=object)
        at += m if has else 0
        pairs.append((weight, shift))
    classes = colour_classes(Network.from_arrays(*pairs, activation=actions.row))
    sizes = (actions.widths[0], *(c.count for c in classes), actions.widths[-1])
    moves = [b * (a + has) for a, b, has in zip(sizes, sizes[1:], actions.biases, strict=False)]
    leaf = sum(moves[still_layers(sizes[1:-1]) :])
    dimension = len({abs(c) for c in code if c})
    return FixedSpace(
        dimension=dimension, leaf_dimension=min(leaf, dimension), classes=tuple(c.members for c in classes),
        null=tuple(c.null for c in classes), count=count, code=code,
    )  # fmt: skip
