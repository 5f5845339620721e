"""The neurons of a two-layer network as a measure: read from many forms, compared exactly, in W2, or as functions."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.activations import activation as row_of
from fiberscope.arguments import as_count, as_exact, as_generator, shown
from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.kernels import arccos_gram
from fiberscope.meanfield.symmetry.groups import OrthogonalGroup, continuous_samples, group_of
from fiberscope.network import Network

FloatArray = NDArray[np.float64]
ExactArray = NDArray[Any]
_LARGEST = 3000
"""Neurons for an assignment problem."""
_DIGITS = 1e-5
"""Relative L2 sizes below this lose too many digits in the closed form."""
_ZERO = 1e-14
"""A function smaller than this, relative to its terms, is 0."""
_CANCELLED = 1e-8
"""Of the squared size of its terms: below it the closed form of the L2 norm has too few digits left."""
_CHUNK = 1 << 21


@dataclass(frozen=True, eq=False)
class Neurons:
    """f(x) = sum_j a_j s(b_j.x + bias_j) + constant.

    Args:
        a: (m, k) outer weights, exact.
        b: (m, d) inner weights, exact.
        bias: (m,) exact, or None.
        constant: (k,) exact, or None.
        row: the activation.
    """

    a: ExactArray
    b: ExactArray
    bias: ExactArray | None
    constant: ExactArray | None
    row: Activation

    @property
    def dimension(self) -> int:
        """Number d of inputs."""
        return int(self.b.shape[1])

    @property
    def closed(self) -> bool:
        """Whether its L2 norm on the sphere is a closed form: ReLU without biases."""
        return self.row.name == "relu" and self.bias is None and self.constant is None

    def floats(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """a, b, bias, constant rounded to float64, zeros for what is missing."""
        m, k = self.a.shape
        parts = (
            self.a, self.b, np.zeros(m) if self.bias is None else self.bias,
            np.zeros(k) if self.constant is None else self.constant,
        )  # fmt: skip
        a, b, bias, constant = (rationals.nearest_floats(p) for p in parts)
        return a, b, bias, constant

    def balanced(self) -> FloatArray:
        """Rows (a_j, b_j, bias_j), (m, k + d + 1); scaled to |a_j| = |(b_j, bias_j)| in degree 1. O(m d)."""
        a, b, bias, _ = self.floats()
        inner = np.column_stack([b, bias])
        if self.row.homogeneity != 1:
            return np.column_stack([a, inner])
        outer, length = np.linalg.norm(a, axis=1), np.linalg.norm(inner, axis=1)
        live = (outer > 0) & (length > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(live, np.sqrt(length / outer), 0.0)
            inverse = np.where(live, np.sqrt(outer / length), 0.0)
        return np.column_stack([a * factor[:, None], inner * inverse[:, None]])

    def masses(self) -> FloatArray:
        """|a_j| |b_j|, (m,)."""
        a, b, _, _ = self.floats()
        found: FloatArray = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return found

    def image(self, turn: ExactArray, sign: int) -> Neurons:
        """Image under (a, b) -> (sign a, T b); exact for signed permutations. Its function is sign f(T^-1 x)."""
        signed = _signed(turn)
        if signed is None:
            moved = rationals.nearest_floats(self.b) @ np.asarray(turn, float).T
        else:
            moved = self.b[:, signed[0]] * (signed[1] if self.b.dtype == object else signed[1].astype(float))
        constant = None if self.constant is None else self.constant * sign
        return replace(self, a=self.a * sign, b=moved, constant=constant)

    def multiset(self) -> Counter[tuple[Any, ...]]:
        """How often each (a, b, bias) occurs, exactly; the constant is a neuron of its own. O(m d)."""
        rows = [tuple(r) for r in np.column_stack([self.a, self.b]).tolist()]
        if self.bias is not None:
            rows = [(*r, v) for r, v in zip(rows, self.bias.tolist(), strict=True)]
        found: Counter[tuple[Any, ...]] = Counter(rows)
        if self.constant is not None:
            found[("constant", *self.constant.tolist())] += 1
        return found

    def rays(self) -> dict[tuple[Any, ...], Fraction]:
        """The total |a||b| on each pair of rays of a and (b, bias), exactly; what degree 1 sees of the measure."""
        inner = self.b
        if self.bias is not None:
            inner = np.column_stack([rationals.fractions(self.b), rationals.fractions(self.bias)])
        outer, outer_units = rationals.primitive_rows(self.a)
        rows, units = rationals.primitive_rows(inner)
        found: dict[tuple[Any, ...], Fraction] = {}
        for left, right, one, other in zip(outer.tolist(), rows.tolist(), outer_units, units, strict=True):
            if any(left) and any(right):
                key = (tuple(left), tuple(right))
                found[key] = found.get(key, Fraction(0)) + one * other
        if self.constant is not None and any(self.constant.tolist()):
            found[("constant", *self.constant.tolist())] = Fraction(1)
        return found

    def values(self, points: FloatArray, *, gross: bool = False) -> FloatArray:
        """Values of f at points (n, d), (n, k), or (`gross`) the sums of the sizes of their terms. O(n m d)."""
        a, b, bias, constant = self.floats()
        if gross:
            a, constant = np.abs(a), np.abs(constant)
        step = max(1, _CHUNK // max(1, len(b)))
        outputs = (lambda z: np.abs(self.row(z))) if gross else self.row
        parts = [outputs(points[k : k + step] @ b.T + bias) @ a for k in range(0, len(points), step)]
        total: FloatArray = np.concatenate(parts) + constant
        return total


def neurons_of(net: Any, *, activation: str | Activation = "relu", at: int = -1) -> Neurons:
    """The neurons of a network of one hidden layer, arrays (a, B), or a flow at one of its times.

    Args:
        net: a `Network` of two layers; a pair (a, B) with a (m,) or (m, k) and B (m, d), arrays of any library; or an
            object with arrays `a` (T, m) and `B` (T, m, d), such as a `ParticleFlow`, whose function is
            (1/m) sum_j a_j s(b_j.x): its `a` is divided by m.
        activation: for arrays and flows.
        at: index of the time for flows.

    Raises:
        InputError: for anything else, or entries that are not finite.

    >>> neurons_of(([1.0, -1.0], [[1.0, 0.0], [0.0, 1.0]])).masses().tolist()
    [1.0, 1.0]
    """
    if isinstance(net, Network):
        return _of_network(net)
    if isinstance(net, tuple | list) and len(net) == 2:
        heads, rows = (_array(part, name) for part, name in zip(net, "aB", strict=True))
    elif hasattr(net, "a") and hasattr(net, "B"):
        heads, rows = _array(net.a, "a"), _array(net.B, "B")
        if rows.ndim == 3:
            if isinstance(at, bool) or not isinstance(at, int | np.integer) or not -len(rows) <= at < len(rows):
                raise InputError(f"at = {shown(at)}; the flow has {len(rows)} times: give the index of one, such as -1")
            heads, rows = heads[at] / rows.shape[1], rows[at]
        activation = getattr(net, "activation", activation)
    else:
        raise InputError(f"{type(net).__name__} is no network; give a Network of two layers, arrays (a, B) or a flow")
    if heads.ndim == 1:
        heads = heads[:, None]
    if rows.ndim != 2 or heads.ndim != 2 or len(heads) != len(rows) or not rows.size:
        raise InputError(f"a of shape {heads.shape} and B of shape {rows.shape}; give (m,) or (m, k), and (m, d)")
    return Neurons(heads, rows, None, None, _row(activation))


def _row(label: str | Activation) -> Activation:
    """An activation by its name or label, "leaky_relu(0.25)"."""
    if isinstance(label, str) and label.endswith(")"):
        name, _, rest = label[:-1].partition("(")
        return row_of(name, *(part.strip() for part in rest.split(",")))
    return row_of(label)


def _of_network(net: Network) -> Neurons:
    if net.depth != 2 or net.layers[1].activation.name != "identity":
        raise InputError(f"{net.architecture}: give a network of one hidden layer and a linear output")
    first, second = net.layers
    zero = not any(v != 0 for v in first.bias.tolist()), not any(v != 0 for v in second.bias.tolist())
    return Neurons(
        second.weight.T, first.weight, None if zero[0] else first.bias, None if zero[1] else second.bias,
        first.activation,
    )  # fmt: skip


def _array(values: Any, name: str) -> ExactArray:
    found = as_exact(values, name)
    if not rationals.is_rational(found) and not np.isfinite(found).all():
        raise InputError(f"{name} has entries that are not finite")
    return found


def maps_of(group: Any, d: int) -> tuple[OrthogonalGroup, list[FloatArray]]:
    """A group from what a user gives, and the maps to test: its generators and samples of its continuous part.

    Raises:
        InputError: for maps that are not orthogonal, or of another dimension.
    """
    group = group_of(group, d)
    more = [t for block in group.continuous for t in continuous_samples(block, d)]
    return group, [*group.generators, *more]


def _signed(turn: ExactArray) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """(perm, sign) with (T x)_i = sign_i x_perm_i, if T is a signed permutation."""
    if not np.isin(turn, (-1, 0, 1)).all() or (np.abs(turn).sum(axis=1) != 1).any():
        return None
    perm = np.argmax(np.abs(turn), axis=1)
    return perm, turn[np.arange(len(turn)), perm].astype(np.int64)


def is_signed(turn: ExactArray) -> bool:
    """Whether a map moves floats without rounding.

    >>> is_signed(-np.eye(2)), is_signed(np.full((2, 2), 0.5))
    (True, False)
    """
    return _signed(turn) is not None


def same_exactly(net: Neurons, turn: FloatArray, sign: int) -> tuple[bool, bool | None]:
    """Whether a signed permutation maps the neurons onto themselves: as parameters, and (degree 1) as rays.

    Exact in every weight; parameters that agree agree as rays.
    """
    image = net.image(turn, sign)
    if net.multiset() == image.multiset():
        return True, True
    return False, net.rays() == image.rays() if net.row.homogeneity == 1 else None


def measure_distance(net: Neurons, image: Neurons) -> float:
    """W2 distance of the two sets of neurons (constant included), relative to the root of sum |c_j|^2.

    Where the nearest neuron is another one for each neuron that is the best matching; otherwise by assignment, O(m^3).

    Raises:
        InputError: when an assignment of more than 3000 neurons would be needed.
    """
    rows, moved = net.balanced(), image.balanced()
    shift = net.floats()[3] - image.floats()[3]
    total = float(np.sum(rows**2)) + float(np.sum(net.floats()[3] ** 2))
    if total == 0.0:
        return 0.0
    match = _matching(rows, moved)
    return math.sqrt((float(np.sum((rows[match] - moved) ** 2)) + float(shift @ shift)) / total)


def _matching(rows: FloatArray, moved: FloatArray) -> NDArray[np.int64]:
    order, other = np.lexsort(rows.T), np.lexsort(moved.T)
    if np.array_equal(rows[order], moved[other]):
        match = np.empty(len(rows), dtype=np.int64)
        match[other] = order
        return match
    lengths = np.sum(rows**2, axis=1)
    step = max(1, _CHUNK // len(rows))
    nearest = np.concatenate(
        [np.argmin(lengths - 2 * moved[k : k + step] @ rows.T, axis=1) for k in range(0, len(rows), step)]
    )
    if len(np.unique(nearest)) == len(rows):
        return nearest
    if len(rows) > _LARGEST:
        raise InputError(f'{len(rows)} neurons are too many for a matching; use kind="function"')
    from scipy.optimize import linear_sum_assignment

    cost = np.sum(moved**2, axis=1)[:, None] + lengths - 2 * moved @ rows.T
    return np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)


def relative_difference(net: Neurons, image: Neurons, points: FloatArray) -> tuple[float, bool]:
    """|f - f'| / |f| in L2(U(S^{d-1})) for the image f' of f under an orthogonal map, and whether it was sampled.

    The image has the norm of f, so that for ReLU without biases the square is 2 - 2 <f, f'> / <f, f> with products by
    the arc-cosine kernel, O(m^2 d); where that cancels, and for all else, by samples at the points.
    A function that is 0 but for rounding has difference 0.
    """
    square = _product(net, net) if net.closed else 0.0
    if square > _CANCELLED * float(net.masses().sum()) ** 2 / net.dimension:
        ratio = math.sqrt(max(0.0, 2.0 - 2.0 * _product(net, image) / square))
        if ratio > _DIGITS:
            return ratio, False
    values = net.values(points)
    size = math.sqrt(float(np.sum(values**2)))
    if size <= _ZERO * math.sqrt(float(np.sum(net.values(points, gross=True) ** 2))):
        return 0.0, True
    return math.sqrt(float(np.sum((values - image.values(points)) ** 2))) / size, True


def _product(one: Neurons, other: Neurons) -> float:
    """<f, f'> in L2 of the sphere."""
    a, b, _, _ = one.floats()
    heads, rows, _, _ = other.floats()
    step = max(1, _CHUNK // max(1, len(rows)))
    parts = (slice(k, k + step) for k in range(0, len(b), step))
    return sum(float(np.sum(a[p] * (arccos_gram(b[p], rows) @ heads))) for p in parts)


def sphere_points(count: int, d: int, seed: int) -> FloatArray:
    """Seeded samples of U(S^{d-1}), (count, d).

    >>> sphere_points(3, 2, 0).shape
    (3, 2)
    """
    drawn = as_generator(seed).standard_normal((as_count(count, "samples", 1), d))
    points: FloatArray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return points
