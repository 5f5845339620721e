"""Classes up to a tolerance: neurons that nearly move together, grouped by sorting and gaps, never by a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.invariants.classes.groups import close_groups
from fiberscope.invariants.classes.projections import ClassProjector
from fiberscope.network import Network
from fiberscope.neurons import Classes, multiples
from fiberscope.rowclasses import Multiples, discrete, in_order

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SKETCH = 64
"""Coordinates that neurons are compared in first; longer vectors are compared in so many random projections."""
_LOOSE = 1.5
"""Projections may shorten and stretch distances: classes found in them are found with this much more room."""
_SAFETY = 10.0
"""Rounding level of a neuron: 10 eps sqrt(number of its parameters) of its length (theory page, detection)."""


def rounding_tolerances(net: Network) -> tuple[float, ...]:
    """For every hidden layer, the relative difference that rounding in the network's dtype explains.

    10 eps sqrt(D), D = parameters of a neuron: errors of sums of D terms grow like sqrt(D) eps.

    >>> [round(t / np.finfo(np.float64).eps) for t in rounding_tolerances(Network.random((2, 3, 1), seed=0))]
    [20]
    """
    eps = float(np.finfo(net.dtype).eps)
    sizes = zip(net.layers, net.layers[1:], strict=False)
    return tuple(float(_SAFETY * eps * np.sqrt(a.n_in + 1 + b.n_out)) for a, b in sizes)


def near_classes(
    net: Network, base: Sequence[Classes], tolerance: float | Sequence[float], *, seed: int = 0
) -> tuple[Classes, ...]:
    """A coarse partition of the hidden neurons that is equitable up to a relative tolerance, above a given one.

    Neurons i of a class A satisfy |u_i - e_i u_A| <= t r, where u_i are the class sums of the weights into and out of
    neuron i and its bias, scaled so that |u_i - e_i u_A|^2 is what neuron i adds to the squared distance from the
    manifold; u_A is the class mean, e_i the factor that the activation allows, and r the median length of a neuron of
    the layer. For positively homogeneous activations directions are compared. Neurons with |u_i| <= t r are null where
    s(0) = 0. NUMERICAL: which of several such partitions is found may depend on the seed.

    Args:
        net: the network.
        base: classes that stay together, one `Classes` for each hidden layer (`colour_classes`, or an earlier result).
        tolerance: t, one number or one for each hidden layer.
        seed: of the random projections.

    Returns:
        One `Classes` for each hidden layer, every class a union of classes of `base`.

    Complexity: O(rounds * parameters + neurons * 64 * log(neurons)) for classes that lie apart.
    Source: theory page, section on detection.

    >>> from fiberscope.neurons import colour_classes
    >>> net = Network.from_arrays(([[1.0], [1.01], [3.0]], [0, 0, 0]), ([[2.0, 2.0, 1.0]], [0]), activation="tanh")
    >>> near_classes(net, colour_classes(net), 0.05)[0].members
    ((0, 1), (2,))
    """
    rng = np.random.default_rng(seed)
    limits = [tolerance] * len(base) if isinstance(tolerance, int | float) else list(tolerance)
    layers = [_Units.of(net, k, base[k], limits[k]) for k in range(len(base))]
    state = [discrete(net.widths[0])]
    for units in layers[:-1]:
        state.append(units.grouped(_outer(net, state), None, None, rng))
    if layers:
        last = ClassProjector(np.arange(net.widths[-1]), np.ones(net.widths[-1]))
        state.append(layers[-1].grouped(_outer(net, state), last, None, rng))
    state.append(discrete(net.widths[-1]))
    waiting = set(range(1, net.depth - 1))
    while waiting:
        k = max(waiting)
        waiting.discard(k)
        if state[k].count == base[k - 1].count and state[k].null == base[k - 1].null:
            continue
        above = ClassProjector(state[k + 1].labels, state[k + 1].vector)
        new = layers[k - 1].grouped(_outer(net, state[:k]), above, state[k], rng)
        if new.count != state[k].count or new.null != state[k].null:
            waiting |= {k - 1, k + 1} & set(range(1, net.depth))
        state[k] = new
    return tuple(state[1:-1])


def unit_points(net: Network, base: Sequence[Classes], k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The classes of one hidden layer as points: vectors u_A (units, m), weights n_A, and which coordinates take signs.

    Args:
        net: the network.
        base: one `Classes` for each hidden layer.
        k: the hidden layer, from 0.
    """
    state = [discrete(net.widths[0]), *base, discrete(net.widths[-1])]
    above = ClassProjector(state[k + 2].labels, state[k + 2].vector)
    units = _Units.of(net, k, base[k], 0.0)
    points, signed = units.points(_outer(net, state[: k + 1]), above, None)
    return points, units.own.squares.astype(np.float64), signed


def _outer(net: Network, state: Sequence[Classes]) -> ClassProjector:
    """The projector of the activations of the last layer in `state`."""
    last = state[-1]
    even = len(state) > 1 and net.layers[len(state) - 2].activation.parity == "even"
    return ClassProjector(last.labels, np.abs(last.vector) if even else last.vector)


@dataclass(frozen=True, eq=False)
class _Units:
    """The classes of a finer partition of one layer, each as one neuron: the mean of its members."""

    base: Classes
    rule: Multiples
    radius: float
    own: ClassProjector
    first: IntArray  # the first member of each
    weight: AnyArray  # (n, n_in) of the neurons themselves
    bias: FloatArray
    out: AnyArray  # (n, n_out): columns of the next layer
    forget: bool  # the outgoing side takes no signs

    @staticmethod
    def of(net: Network, k: int, base: Classes, tolerance: float) -> _Units:
        rule = multiples(net.layers[k].activation, training=True)
        weight, out, bias = net.layers[k].weight, net.layers[k + 1].weight.T, net.layers[k].bias
        lengths = np.sqrt(row_squares(weight) + row_squares(out) + rationals.nearest_floats(bias) ** 2)
        typical = float(np.median(lengths[lengths > 0])) if (lengths > 0).any() else 1.0
        radius = tolerance * (1.0 if rule.scale else typical)
        own = ClassProjector(base.labels, base.vector)
        names, first = np.unique(base.labels, return_index=True)
        return _Units(
            base, rule, radius, own, first[names >= 0], weight, rationals.nearest_floats(bias), out, rule.even
        )

    def _side(self, matrix: AnyArray, span: ClassProjector, keep: IntArray | None, vector: AnyArray) -> FloatArray:
        """Class sums of the units' rows, in an orthonormal basis of the classes: (units, span.count)."""
        own = ClassProjector(self.own.labels, vector)
        inside = np.ones(len(matrix), dtype=bool) if keep is None else np.isin(self.own.labels, keep)
        part = own if keep is None else own.restricted(inside)
        rows = part.means(rationals.nearest_floats(matrix if inside.all() else matrix[inside]))
        return rows if span.trivial else span.coordinates(rows)

    def points(
        self, below: ClassProjector, above: ClassProjector | None, keep: IntArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """Vectors u of the units, (units, m), and for each coordinate whether it takes the sign (1) or not (0)."""
        vector = self.own.vector
        parts = [self._side(self.weight, below, keep, vector)]
        parts.append(self._side(self.bias[:, None], ClassProjector(np.zeros(1, np.int64), np.ones(1)), keep, vector))
        signed = [1.0] * (parts[0].shape[1] + 1)
        if above is not None:
            parts.append(self._side(self.out, above, keep, np.abs(vector) if self.forget else vector))
            signed += [0.0 if self.forget else 1.0] * parts[-1].shape[1]
        return np.concatenate(parts, axis=1), np.array(signed)

    def sketch(
        self, below: ClassProjector, above: ClassProjector | None, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray] | None:
        """Random projections of the vectors, or None where the vectors themselves are as short."""
        width = below.count + 1 + (above.count if above is not None else 0)
        if width <= _SKETCH:
            return None
        if not self.own.trivial:
            return self._sketched(*self.points(below, above, None), rng)
        half = _SKETCH if above is None or not self.forget else _SKETCH // 2
        left = _spread(below, rng.standard_normal((below.count, half)))
        lower = blocked_product(self.weight, left) + self.bias[:, None] * rng.standard_normal(half)
        if above is None:
            return lower / half**0.5, np.ones(half)
        upper = blocked_product(self.out, _spread(above, rng.standard_normal((above.count, half))))
        if self.forget:
            both = np.concatenate([lower, upper], axis=1) / half**0.5
            return both, np.repeat([1.0, 0.0], half)
        return (lower + upper) / half**0.5, np.ones(half)

    def _sketched(
        self, points: FloatArray, signed: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        pieces, flags = [], []
        for kind in (1.0, 0.0):
            at = signed == kind
            if at.any():
                pieces.append(points[:, at] @ rng.standard_normal((int(at.sum()), _SKETCH)) / _SKETCH**0.5)
                flags += [kind] * _SKETCH
        return np.concatenate(pieces, axis=1), np.array(flags)

    def grouped(
        self, below: ClassProjector, above: ClassProjector | None, old: Classes | None, rng: np.random.Generator
    ) -> Classes:
        """The units in groups, inside the old classes, as classes of neurons."""
        count = self.base.count
        start = np.zeros(count, dtype=np.int64) if old is None else old.labels[self.first]
        mass = self.own.squares.astype(np.float64)
        silent = np.zeros(count, dtype=bool)
        found = self.sketch(below, above, rng)
        if found is not None:
            points, signed = found
            start, _, silent = self._split(points, mass, signed, start, silent, _LOOSE, rng)
            size = np.bincount(start, minlength=count)
            keep = np.flatnonzero((size[start] > 1) | silent)
        else:
            keep = np.arange(count)
        labels, factors = start.copy(), np.ones(count)
        if keep.size:
            points, signed = self.points(below, above, None if keep.size == count else keep)
            inner, e, quiet = self._split(points, mass[keep], signed, start[keep], silent[keep], 1.0, rng)
            labels[keep], factors[keep] = inner + int(start.max(initial=0)) + 1, e
            silent = np.zeros(count, dtype=bool)
            silent[keep] = quiet
        labels[silent] = -1
        return self._spread_out(labels, factors)

    def _split(
        self, points: FloatArray, weights: FloatArray, signed: FloatArray, start: IntArray,
        silent: npt.NDArray[np.bool_], room: float, rng: np.random.Generator,
    ) -> tuple[IntArray, FloatArray, npt.NDArray[np.bool_]]:  # fmt: skip
        """Labels, factors relative to one member of each group, and which units are null."""
        length = np.sqrt(np.einsum("ij,ij->i", points, points))
        radius, tiny = room * self.radius, np.zeros(len(points), dtype=bool)
        if self.rule.scale:
            live = length[length > 0]
            tiny = length <= radius * (np.median(live) if live.size else 1.0)
            points = points / np.where(tiny, 1.0, length)[:, None]
            weights = weights * np.where(tiny, 1.0, length) ** 2
        elif self.rule.null:
            tiny = length <= radius
        if self.rule.null:
            silent, start = tiny, np.where(tiny, start.max(initial=0) + 1, start)
        labels, signs = close_groups(
            points, radius, start, weights=weights, signed=signed if self.rule.sign else None, rng=rng
        )
        return labels, signs * (np.where(tiny, 1.0, length) if self.rule.scale else 1.0), silent

    def _spread_out(self, labels: IntArray, factors: FloatArray) -> Classes:
        """Classes of neurons from groups of units; the factor of every class's first member is 1."""
        n = self.base.labels.size
        wide, numbers = np.full(n, -1, dtype=np.int64), np.full(n, Fraction(0), dtype=object)
        live = self.base.labels >= 0
        unit = self.base.labels[live]
        wide[live] = labels[unit]
        _, first, place = np.unique(labels, return_index=True, return_inverse=True)
        relative = factors / factors[first][place.reshape(-1)]  # the first unit of a class holds its first member
        exact = np.empty(len(factors), dtype=object)
        exact[:] = [_ONE if v == 1.0 else _MINUS if v == -1.0 else Fraction(v) for v in relative.tolist()]
        own = self.base.factors[live]
        plain = self.own.count == n or all(f is _ONE or f == 1 for f in own)
        numbers[live] = exact[unit] if plain else exact[unit] * own
        numbers[wide < 0] = Fraction(0)
        return in_order(wide, numbers)


_ONE, _MINUS = Fraction(1), Fraction(-1)


def _spread(span: ClassProjector, values: FloatArray) -> FloatArray:
    """E (E^T E)^{-1/2} v for v of shape (count, m); null neurons give 0."""
    scaled = np.concatenate(
        [values / np.sqrt(span.squares.astype(np.float64))[:, None], np.zeros((1, values.shape[1]))]
    )
    return np.asarray(scaled[span.labels] * span.vector[:, None])


def row_squares(matrix: AnyArray, step: int = 1 << 20) -> FloatArray:
    """Squared lengths of the rows, converted to float64 a block at a time."""
    out = np.empty(len(matrix))
    if matrix.strides[0] < matrix.strides[-1]:  # a transposed matrix: go along its memory
        out[:] = 0.0
        height = max(1, step // max(1, len(matrix)))
        for k in range(0, matrix.shape[1], height):
            block = rationals.nearest_floats(matrix[:, k : k + height])
            out += np.einsum("ij,ij->i", block, block)
        return out
    height = max(1, step // max(1, matrix.shape[1]))
    for k in range(0, len(matrix), height):
        block = rationals.nearest_floats(matrix[k : k + height])
        out[k : k + height] = np.einsum("ij,ij->i", block, block)
    return out


def blocked_product(matrix: AnyArray, right: FloatArray, step: int = 1 << 20) -> FloatArray:
    """M R in float64 without a float64 copy of M."""
    if not rationals.is_rational(matrix) and matrix.dtype == np.float64:
        return np.asarray(matrix @ right)
    out = np.zeros((len(matrix), right.shape[1]))
    if matrix.strides[0] < matrix.strides[-1]:
        height = max(1, step // max(1, len(matrix)))
        for k in range(0, matrix.shape[1], height):
            out += rationals.nearest_floats(matrix[:, k : k + height]) @ right[k : k + height]
        return out
    height = max(1, step // max(1, matrix.shape[1]))
    for k in range(0, len(matrix), height):
        out[k : k + height] = rationals.nearest_floats(matrix[k : k + height]) @ right
    return out
