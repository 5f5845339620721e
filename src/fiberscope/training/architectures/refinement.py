"""Colour refinement over all populations at once: the coarsest classes of neurons that training cannot tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals, rowclasses
from fiberscope.arguments import as_generator, shown
from fiberscope.errors import InputError
from fiberscope.io.state_dicts import as_array
from fiberscope.neurons import multiples
from fiberscope.rowclasses import Classes, Multiples, Part
from fiberscope.training.architectures.architecture import (
    Architecture,
    Axis,
    Parameters,
    Population,
    Role,
    checked_architecture,
    checked_parameters,
)

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ONE = Fraction(1)
_DIRECTIONS = 32
"""Random projections behind a comparison with a tolerance: lengths are right within about a quarter."""
_CHUNK = 1 << 20
"""Entries converted to float64 at a time."""
_ALL_PAIRS = 64
"""Groups above this size lose their lonely members before the others are compared one by one."""


def refine(
    architecture: Architecture, parameters: Parameters, *, tolerance: float = 0.0, seed: int = 0
) -> dict[str, Classes]:
    """The coarsest equitable partition of all populations: every tensor has equal class sums for neurons of one class.

    Neurons i and j of one class satisfy sum_(k in B, l in C, ...) T[i, k, l, ...] = the same for j, for every tensor
    T that they index and all classes B, C, ... of its other axes; axes without a population keep every index apart,
    and so do axes that name the neuron together with this one (both "in" or both "out"; heads and their factors).
    With `signs` neurons may be negatives of each other, with `null` neurons whose sums are all 0 form a null class
    (label -1), which is not counted anywhere else. In a plain chain classes may also be weighted (ReLU) and even, as
    in `neurons.colour_classes`, with which this agrees. Populations that are not exchangeable stay discrete.

    Proved: for plain chains these classes are structural invariant manifolds of (S)GD (arXiv 2510.09564, equitable
    partitions). For other architectures they are by symmetry if `constant_blocks` says True for all populations;
    else that is a conjecture.

    Args:
        architecture: of the model.
        parameters: its parameters.
        tolerance: 0 for exact equality, entries being the rationals that they are (candidates by random projections
            with a proved error bound, then confirmed over Q). Above, neurons are classed with the first one whose
            class sums (each divided by the root of its class size) differ by no more than this, relative to the
            length of its slice, by 32 random projections; null is relative to the layer's root mean square length;
            even activations then get no signs.
        seed: of the projections; at tolerance 0 the result does not depend on it.

    Raises:
        InputError: if parameters are missing or of other shapes, or the tolerance is negative.

    O(rounds * parameters), rounds being 1 for generic parameters and about 3 otherwise; one tensor in memory at a time.

    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> model = chain_architecture((1, 3, 1), activation="softplus", biases=False)
    >>> start = {"1.weight": np.array([[2.0], [1.0], [2.0]]), "2.weight": np.array([[5.0, 5.0, 5.0]])}
    >>> refine(model, start)["1"].members
    ((0, 2), (1,))
    """
    if (
        isinstance(tolerance, bool)
        or not isinstance(tolerance, int | float | np.number | Fraction)
        or not tolerance >= 0
    ):
        raise InputError(f"tolerance {shown(tolerance)}; give a number >= 0")
    rng = as_generator(seed)
    checked_architecture(architecture)
    checked_parameters(parameters)
    rules = {p.name: _rule(p, bool(architecture.chain), tolerance) for p in architecture.populations}
    state = {p.name: _coarsest(p, rules[p.name]) for p in architecture.populations}

    def step(name: str, ready: Set[str]) -> Classes:
        parts = _parts(architecture, parameters, name, state, rules, ready)
        if not parts:
            return state[name]
        if tolerance == 0:
            return rowclasses.refine(parts, rules[name], state[name], rng)
        return _nearly(parts, rules[name], state[name], tolerance, rng)

    ready = {p.name for p in architecture.populations if not p.exchangeable}
    for p in architecture.populations:  # in the order of the data flow most are told apart by what they read
        if p.exchangeable:
            state[p.name] = step(p.name, ready)
            ready.add(p.name)
    beside = _neighbours(architecture)
    waiting = [p.name for p in reversed(architecture.populations)]
    while waiting:
        name = waiting.pop(0)
        if state[name].trivial or not architecture.named[name].exchangeable:
            continue
        new = step(name, ready)
        if new.count != state[name].count or new.null != state[name].null:
            waiting += [other for other in beside[name] if other not in waiting]
        state[name] = new
    return state


def constant_blocks(
    architecture: Architecture, parameters: Parameters, classes: Mapping[str, Classes]
) -> dict[str, bool]:
    """For each population whether neurons of one class are duplicates: slice_i = factor_i * slice of the first.

    Where True for all, every tensor is constant on the blocks of classes (up to the factors), and 0 where it touches
    null neurons: the parameters are a fixed point of permutations and sign changes, whatever the architecture. Where
    False, classes are coupled with others: only class sums agree.

    Raises:
        InputError: if classes are missing or of other sizes.

    O(parameters).

    >>> from fiberscope.network import Network
    >>> from fiberscope.training.architectures.chains import chain_architecture, parameters_of
    >>> square = [[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]
    >>> net = Network.from_arrays(([[1.0]] * 3, None), (square, None), ([[1.0] * 3], None), activation="softplus")
    >>> model, values = chain_architecture(net), parameters_of(net)
    >>> constant_blocks(model, values, refine(model, values))
    {'1': False, '2': False}
    """
    out: dict[str, bool] = {}
    for p in architecture.populations:
        found = classes.get(p.name)
        if found is None or found.labels.size != p.count:
            raise InputError(f"no classes of the {p.count} neurons of {p.name!r}")
        rule = _rule(p, bool(architecture.chain), 0.0)
        out[p.name] = all(
            _duplicates(architecture, parameters, s, axis, role, found, rule)
            for s, axis, role in architecture.places[p.name]
        )
    return out


def _duplicates(
    architecture: Architecture, parameters: Parameters, s: int, axis: int, role: Role, found: Classes, rule: Multiples
) -> bool:
    values = np.moveaxis(as_array(architecture.slots[s].read(parameters), architecture.slots[s].name), axis, 0)
    matrix = values.reshape(values.shape[0], -1)
    if matrix[list(found.null)].any():
        return False
    first = np.zeros(found.count, dtype=np.int64)
    live = np.flatnonzero(found.labels >= 0)
    first[found.labels[live[::-1]]] = live[::-1]
    rows = live[first[found.labels[live]] != live]
    for i in rows.tolist():
        factor, leader = found.factors[i], matrix[first[found.labels[i]]]
        if rule.even and role == "out":
            factor = abs(factor)
        if abs(factor) == 1 and leader.dtype != object:
            same = np.array_equal(matrix[i], leader * leader.dtype.type(int(factor)))
        else:
            same = bool((rationals.fractions(matrix[i]) == factor * rationals.fractions(leader)).all())
        if not same:
            return False
    return True


def _rule(population: Population, chain: bool, tolerance: float) -> Multiples:
    """Which multiples count: positive ones in chains only, where nothing follows an activation but its readers."""
    if not chain or population.activation is None:
        return Multiples(sign=population.signs, null=population.null)
    rule = multiples(population.activation, training=True)
    even = rule.even and tolerance == 0
    return Multiples(population.signs or even, rule.scale, even, population.null)


def _coarsest(population: Population, rule: Multiples) -> Classes:
    n = population.count
    if not population.exchangeable:
        return rowclasses.discrete(n)
    return Classes(np.full(n, -1 if rule.null else 0), np.full(n, _ONE * (not rule.null), dtype=object))


def _neighbours(architecture: Architecture) -> dict[str, list[str]]:
    """Populations that share a tensor; a population is its own neighbour where it indexes two axes."""
    out: dict[str, dict[str, None]] = {p.name: {} for p in architecture.populations}
    for slot in architecture.slots:
        names = [axis.population for axis in slot.axes if axis is not None]
        for k, name in enumerate(names):
            out[name].update(dict.fromkeys(names[:k] + names[k + 1 :]))
    return {name: list(found) for name, found in out.items()}


def _parts(
    architecture: Architecture,
    parameters: Parameters,
    name: str,
    state: Mapping[str, Classes],
    rules: Mapping[str, Multiples],
    ready: Set[str],
) -> list[Part]:
    """The tensors of a population unfolded along it, with the classes of the other axes; unready ones are left out."""
    out = []
    for s, axis, role in architecture.places[name]:
        slot = architecture.slots[s]
        others = [None if _together(architecture, slot.axes[axis], a) else a for a in _without(slot.axes, axis)]
        if any(a is not None and a.population not in ready for a in others):
            continue
        values = np.moveaxis(as_array(slot.read(parameters), slot.name), axis, 0)
        labels, weights = np.zeros(1, dtype=np.int64), np.full(1, _ONE, dtype=object)
        for length, a in zip(values.shape[1:], others, strict=True):
            found = rowclasses.discrete(length) if a is None else state[a.population]
            factors = found.factors
            if a is not None and a.role == "out" and rules[a.population].even:
                factors = np.array([abs(f) for f in factors], dtype=object)
            labels, weights = _product(labels, weights, found.labels, factors, max(1, found.count))
        if (labels >= 0).any():
            signed = not (rules[name].even and role == "out")
            out.append(Part(values.reshape(values.shape[0], -1), labels, weights, signed))
    return out


def _without(axes: Sequence[Axis | None], axis: int) -> list[Axis | None]:
    return [*axes[:axis], *axes[axis + 1 :]]


def _together(architecture: Architecture, own: Axis | None, other: Axis | None) -> bool:
    """Whether two axes name one neuron together, as a head and its factors do: then every index counts for itself.

    Sums over the factors of a head would call heads null whose factors are null because the heads are.
    """
    if own is None or other is None:
        return False
    kinds = {architecture.named[own.population].kind, architecture.named[other.population].kind}
    return own.role == other.role or kinds == {"heads", "factors"}


def _product(labels: IntArray, weights: Array, new: IntArray, factors: Array, count: int) -> tuple[IntArray, Array]:
    """Classes of pairs of indices, in C order; null if one of them is."""
    both = np.where((labels[:, None] >= 0) & (new >= 0), labels[:, None] * count + new, -1).reshape(-1)
    if labels.size == 1:
        return both, np.array([weights[0] * f if weights[0] is not _ONE else f for f in factors], dtype=object)
    repeated, tiled = np.repeat(weights, new.size), np.tile(factors, labels.size)
    if all(f is _ONE or f == 1 for f in factors):
        return both, repeated
    return both, np.asarray(repeated * tiled, dtype=object)


def _nearly(
    parts: Sequence[Part], rule: Multiples, old: Classes, tolerance: float, rng: np.random.Generator
) -> Classes:
    """`rowclasses.refine` with a tolerance: neurons join the first one of their old class that they are near to."""
    keys, sizes = _keys(parts, rng)
    slack = tolerance + 64 * np.finfo(np.float64).eps
    labels, factors = np.full(old.labels.size, -1, dtype=np.int64), np.full(old.labels.size, Fraction(0), dtype=object)
    silent = np.zeros(old.labels.size, dtype=bool)
    if rule.null:
        typical = float(np.sqrt(np.mean(sizes**2)))
        silent = (old.labels < 0) & (np.linalg.norm(keys, axis=1) <= slack * np.maximum(sizes, typical))
    fresh = 0
    for label in np.unique(old.labels[~silent]):
        rows = np.flatnonzero((old.labels == label) & ~silent)
        inner, own = _clusters(keys[rows], sizes[rows], rule, slack)
        labels[rows], factors[rows] = inner + fresh, own
        fresh += int(inner.max()) + 1
    return rowclasses.in_order(labels, factors)


def _keys(parts: Sequence[Part], rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Random projections of the class sums, whose lengths are theirs up to a quarter, and the lengths of the slices."""
    n = parts[0].matrix.shape[0]
    keys, squares = np.zeros((n, _DIRECTIONS)), np.zeros(n)
    for part in parts:
        live = part.labels >= 0
        weights = np.where(live, part.weights.astype(np.float64), 0.0)
        mass = np.bincount(part.labels[live], weights[live] ** 2, minlength=part.count)
        directions = rng.standard_normal((part.count + 1, _DIRECTIONS)) / np.sqrt(_DIRECTIONS)
        directions[:-1] /= np.sqrt(np.where(mass > 0, mass, 1.0))[:, None]
        vectors = directions[part.labels] * weights[:, None]
        step = max(1, _CHUNK // max(1, part.matrix.shape[1]))
        for start in range(0, n, step):
            at = slice(start, start + step)
            chunk = part.matrix[at]
            block = np.asarray(
                rationals.rounded(chunk, np.float64) if rationals.is_rational(chunk) else chunk, dtype=np.float64
            )
            keys[at] += block @ vectors
            squares[at] += np.einsum("ij,ij->i", block, block)
    return keys, np.sqrt(squares)


def _clusters(keys: FloatArray, sizes: FloatArray, rule: Multiples, slack: float) -> tuple[IntArray, Array]:
    """(labels, factors): each row with the first leader near it."""
    n = len(sizes)
    norms = np.linalg.norm(keys, axis=1)
    if rule.scale:  # directions are compared
        keys, sizes = keys / np.where(norms > 0, norms, 1.0)[:, None], np.ones(n)
    labels, factors = np.full(n, -1, dtype=np.int64), np.full(n, _ONE, dtype=object)
    alone = _lonely(keys, sizes, rule, slack)
    labels[alone] = np.arange(int(alone.sum()))
    fresh, left = int(alone.sum()), np.flatnonzero(~alone)
    while left.size:
        leader, radius = left[0], slack * np.maximum(sizes[left], sizes[left[0]])
        apart = np.linalg.norm(keys[left] - keys[leader], axis=1)
        turned = np.linalg.norm(keys[left] + keys[leader], axis=1) if rule.sign else np.full(left.size, np.inf)
        near = np.minimum(apart, turned) <= radius
        near[0] = True
        members, signs = left[near], np.where(turned[near] < apart[near], -1, 1)
        labels[members] = fresh
        for i, sign in zip(members.tolist(), signs.tolist(), strict=True):
            stretch = Fraction(float(norms[i] / norms[leader])) if rule.scale and norms[leader] > 0 else _ONE
            factors[i] = sign * (stretch or _ONE)
        fresh, left = fresh + 1, left[~near]
    return labels, factors


def _lonely(keys: FloatArray, sizes: FloatArray, rule: Multiples, slack: float) -> npt.NDArray[np.bool_]:
    """Rows that are certainly near no other; small groups are not looked at."""
    n = len(sizes)
    out = np.zeros(n, dtype=bool)
    if n <= _ALL_PAIRS:
        return out
    squares = np.einsum("ij,ij->i", keys, keys)
    for start in range(0, n, 1024):
        at = slice(start, start + 1024)
        inner = keys[at] @ keys.T
        total = squares[at, None] + squares
        apart = total - 2 * (np.abs(inner) if rule.sign else inner)
        radius = slack * np.maximum(sizes[at, None], sizes)
        near = apart <= 1.01 * radius**2 + 1e-12 * total  # the second term is for cancellation
        out[at] = near.sum(axis=1) <= 1
    return out
