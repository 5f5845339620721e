"""Forces on the neurons of a finite net: exact over the sphere, by a rule of nodes, or of a finite dataset.

The net is f(x) = (1/m) sum_j a_j s(b_j.x), and the flow of its risk F = E l(f*(x), f(x)) in the time of the mean field
is a_j' = g(b_j), b_j' = a_j grad g(b_j) with g(b) = E[R(x) s(b.x)], R = -dl/df (arXiv 2211.08771).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.activations import Activation
from fiberscope.activations import activation as row_of
from fiberscope.arguments import as_choice, as_count, as_finite
from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.jacobi import sphere_rule
from fiberscope.meanfield.harmonics.kernels import arccos_potential
from fiberscope.meanfield.targets.base import Target
from fiberscope.results import Rigor

if TYPE_CHECKING:
    from fiberscope.meanfield.symmetry.groups import OrthogonalGroup

FloatArray = NDArray[np.float64]
Loss = Literal["squared", "logistic"]
_CHUNK = 1 << 20
"""Values of s(b.x) held at once (8 MiB a copy)."""
_MOST_NODES = 1 << 20
"""Most nodes of a rule after averaging over a group."""
_FEW = 8
"""Samples below which an error is estimated by more of them, not by fewer."""
_DIRECTIONS = 32
"""In which the potential of a target is compared between runs."""


class Forces(abc.ABC):
    """What moves the neurons.

    Attributes:
        dimension: d.
        rigor: NUMERICAL for closed forms, deterministic rules and datasets; SAMPLED for sampled expectations.
        label: how the expectation is taken, for people.
        homogeneous: whether s(tz) = t s(z) for t > 0, so that a_j^2 - |b_j|^2 is conserved.
        smooth: whether the forces are known to have no jumps. Kinks of s at finitely many nodes are jumps of grad g,
            and neurons can come to rest on them; no integrator of high order gets past.
        slope: Lip(s) sqrt(E|x|^2), which bounds the curvature of the risk.
    """

    dimension: int
    rigor: Rigor
    label: str
    homogeneous: bool
    smooth: bool = True
    slope: float = 1.0

    @abc.abstractmethod
    def evaluate(
        self, a: FloatArray, B: FloatArray, rows: FloatArray | None = None, heads: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray, float]:
        """The force g and its gradient at some rows, and the risk F, for the net of a (m,) and B (m, d).

        Args:
            a: (m,).
            B: (m, d).
            rows: (r, d), by default B.
            heads: (r,), with rows, for a net that is a union of orbits of a group: the a of the neurons that stand for
                them times the sizes of the orbits, so that sum_r heads_r T(rows_r) = sum_j a_j T(b_j) for invariant T.

        Returns:
            values (r,), gradients (r, d), F.
        """

    @abc.abstractmethod
    def identity(self) -> list[FloatArray]:
        """Arrays that tell these forces from others, to the bit."""

    @abc.abstractmethod
    def error_at(self, a: FloatArray, B: FloatArray) -> float | None:
        """Estimate of the largest error of g at the neurons; 0 if it is rounding only, None if not known."""


class PopulationForces(Forces):
    """ReLU, squared loss, x ~ U(S^{d-1}): net against net by the arc-cosine kernel, net against target by the target.

    g(b) = E[f* relu(b.x)] - (1/m) sum_j a_j E[relu(b.x) relu(b_j.x)]; O(r m d) a call, memory in chunks.
    """

    def __init__(self, target: Target, group: OrthogonalGroup | None = None) -> None:
        """Of a target; a potential that is computed, not exact, is averaged over the group."""
        self.target = target
        self.group = group
        self._maps = None if group is None or target.exact else group.elements()
        self.dimension = target.dimension
        self.rigor = target.rigor
        self.label = "exact expectation" if target.exact else "exact net, computed target"
        self.homogeneous = True
        self.smooth = bool(target.exact) or target.rigor is not Rigor.SAMPLED
        self._constant = 0.5 * target.second_moment

    def evaluate(
        self, a: FloatArray, B: FloatArray, rows: FloatArray | None = None, heads: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray, float]:
        """See `Forces.evaluate`; where b = 0 the gradient is taken as 0.

        F = E[f*^2]/2 - sum a_j (T(b_j) + g(b_j)) / (2m), T the potential of the target.
        """
        at = B if rows is None else rows
        wanted, slopes = self._wanted(at)
        got, turns = self._net(at, B, a / len(a))
        heads = a if heads is None else heads
        risk = self._constant - float(heads @ (wanted - 0.5 * got)) / len(a)
        return wanted - got, slopes - turns, risk

    def identity(self) -> list[FloatArray]:
        """The potential of the target in fixed directions, and E[f*^2]."""
        angles = np.arange(1.0, _DIRECTIONS * self.dimension + 1) ** 2
        values, slopes = self.target.potential(np.cos(angles).reshape(_DIRECTIONS, self.dimension))
        return [values, slopes, np.array([self._constant])]

    def error_at(self, a: FloatArray, B: FloatArray) -> float | None:
        """That of the potential of the target, which is 1-homogeneous."""
        if self.target.exact:
            return 0.0
        told = getattr(self.target, "error", None)
        return None if told is None else float(told) * float(np.linalg.norm(B, axis=1).max())

    def _wanted(self, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self._maps is None:
            return self.target.potential(at)
        images = np.einsum("gij,rj->gri", self._maps, at)
        values, slopes = self.target.potential(images.reshape(-1, self.dimension))
        turned = np.einsum("gij,gri->rj", self._maps, slopes.reshape(images.shape))
        return values.reshape(images.shape[:2]).mean(axis=0), turned / len(self._maps)

    def _net(self, at: FloatArray, B: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        return arccos_potential(at, B, weights)


class RuleForces(Forces):
    """Any activation and loss on weighted nodes: F = sum_i w_i l(y_i, f(x_i)). O(n (m + r) d), memory in chunks.

    "squared" is l = (y - f)^2 / 2; "logistic" is l = log(1 + e^f) - p f with p the probability of the label +1.
    """

    def __init__(
        self,
        points: FloatArray,
        weights: FloatArray,
        labels: FloatArray,
        *,
        loss: Loss = "squared",
        row: Activation,
        rigor: Rigor = Rigor.NUMERICAL,
        label: str = "nodes",
        other: Callable[[], RuleForces] | None = None,
    ) -> None:
        """Of nodes (n, d), weights (n,) and labels (n,), probabilities for "logistic"; `other` makes another rule."""
        self.points, self.weights, self.labels = points, weights, labels
        self._other = other
        self.dimension = points.shape[1]
        self.rigor = rigor
        self.label = label
        self.row = row
        self.homogeneous = row.homogeneity == 1
        self.smooth = row.analytic
        self.slope = row.lipschitz * float(np.sqrt(weights @ np.square(points).sum(axis=1)))
        self._residual, self._loss = _LOSSES[loss]

    def _chunks(self, m: int) -> Any:
        step = max(1, _CHUNK // max(1, m))
        return (slice(k, k + step) for k in range(0, len(self.points), step))

    def evaluate(
        self, a: FloatArray, B: FloatArray, rows: FloatArray | None = None, heads: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray, float]:
        """See `Forces.evaluate`; the derivative at a kink is the one on the left."""
        at = B if rows is None else rows
        values, gradients, risk = np.zeros(len(at)), np.zeros(at.shape), 0.0
        for part in self._chunks(max(len(B), len(at))):
            x, labels, weights = self.points[part], self.labels[part], self.weights[part]
            z = x @ B.T
            out = self.row(z)
            f = out @ a / len(a)
            risk += float(weights @ self._loss(labels, f))
            pull = weights * self._residual(labels, f)
            if rows is not None:
                z = x @ rows.T
                out = self.row(z)
            values += pull @ out
            slope = self.row.derivative(z)
            slope *= pull[:, None]
            gradients += slope.T @ x
        return values, gradients, risk

    def identity(self) -> list[FloatArray]:
        """Nodes, weights and labels."""
        return [self.points, self.weights, self.labels]

    def error_at(self, a: FloatArray, B: FloatArray) -> float | None:
        """What changes under the other rule; 0 for a dataset, whose sums are the risk itself."""
        if self._other is None:
            return 0.0
        return float(np.abs(self.evaluate(a, B)[0] - self._other().evaluate(a, B)[0]).max())


def _sigmoid(z: FloatArray) -> FloatArray:
    value: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * z))
    return value


def _logistic_loss(p: FloatArray, f: FloatArray) -> FloatArray:
    value: FloatArray = np.logaddexp(0.0, f) - p * f
    return value


_Pair = tuple[Callable[[FloatArray, FloatArray], FloatArray], Callable[[FloatArray, FloatArray], FloatArray]]
_LOSSES: dict[str, _Pair] = {
    "squared": (lambda y, f: y - f, lambda y, f: 0.5 * (y - f) ** 2),
    "logistic": (lambda p, f: p - _sigmoid(f), _logistic_loss),
}


def population_forces(a: ArrayLike, B: ArrayLike, target: Target) -> tuple[FloatArray, FloatArray]:
    """g(b_j) = E[(f* - f)(x) relu(b_j.x)] and its gradients for a finite ReLU net, x ~ U(S^{d-1}), without samples.

    The gradient of the risk F = E(f* - f)^2 / 2 is -g(b_j)/m in a_j and -a_j grad g(b_j)/m in b_j. Exact (to rounding)
    for targets that are. O(m^2 d); arXiv 2211.08771.

    Args:
        a: (m,).
        B: (m, d).
        target: of dimension d.

    Returns:
        values (m,) and gradients (m, d).

    Raises:
        InputError: for shapes that do not fit or entries that are not finite.

    >>> from fiberscope.meanfield.targets.finite import Linear
    >>> population_forces([0.0], [[1.0, 0.0]], Linear([1.0, 0.0]))  # E[x_1 relu(x_1)] = 1/(2d)
    (array([0.25]), array([[0.25, 0.  ]]))
    """
    heads, rows = checked_neurons(a, B, target.dimension)
    return PopulationForces(target).evaluate(heads, rows)[:2]


def population_risk(a: ArrayLike, B: ArrayLike, target: Target) -> float:
    """F = E(f*(x) - f(x))^2 / 2 of a finite ReLU net, x ~ U(S^{d-1}). O(m^2 d).

    The absolute error is a few units of rounding of E[f*^2]: a risk much smaller than 1e-16 of it is not resolved.

    >>> from fiberscope.meanfield.targets.finite import Linear
    >>> population_risk([0.0], [[1.0, 0.0]], Linear([1.0, 0.0]))  # E[x_1^2] / 2
    0.25
    """
    heads, rows = checked_neurons(a, B, target.dimension)
    return PopulationForces(target).evaluate(heads, rows)[2]


def checked_neurons(a: ArrayLike, B: ArrayLike, dimension: int | None = None) -> tuple[FloatArray, FloatArray]:
    """Neurons as float arrays (m,), (m, d), or `InputError`.

    >>> checked_neurons([1], [[0, 2]])
    (array([1.]), array([[0., 2.]]))
    """
    heads, rows = as_finite(a, "a").copy(), as_finite(B, "B").copy()
    if heads.ndim != 1 or rows.ndim != 2 or len(heads) != len(rows) or not rows.size:
        raise InputError(f"neurons of shapes {heads.shape} and {rows.shape}; give a of (m,) and B of (m, d), m >= 1")
    if dimension is not None and rows.shape[1] != dimension:
        raise InputError(f"neurons of dimension {rows.shape[1]} for a problem of dimension {dimension}")
    return heads, rows


@dataclass(frozen=True)
class _Nodes:
    points: FloatArray
    weights: FloatArray
    rigor: Rigor
    label: str


def forces_of(
    target: Target | None,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    loss: Loss = "squared",
    activation: str | Activation = "relu",
    group: OrthogonalGroup | None = None,
    samples: int = 4096,
    seed: int = 0,
) -> Forces:
    """The forces of a problem: closed form where there is one, else a rule of nodes on the sphere, or a dataset.

    ReLU with the squared loss is exact. Anything else over the sphere uses a product rule for d <= 3 and a scrambled
    Sobol sequence above, averaged over the group if one is given (without it no rule is invariant, and the flow keeps
    a symmetry only as well as the rule does).

    Args:
        target: f*, with x ~ U(S^{d-1}). For loss "logistic" f*(x) is the log-odds of the label +1. With data it is
            not used here.
        data: (X, y) of shapes (n, d), (n,): the empirical measure takes the place of the sphere. For "logistic" y holds
            labels -1, +1 or probabilities of the label +1 in [0, 1].
        loss: "squared" or "logistic".
        activation: any row of the table.
        group: the nodes are averaged over it; a dataset must be invariant by itself.
        samples: number of nodes (before the average over the group).
        seed: of the scrambling.

    Raises:
        InputError: for unknown losses, malformed data, or labels that are no labels.
    """
    row = row_of(activation)
    as_choice(loss, "loss", get_args(Loss))
    samples = as_count(samples, "samples", 1)
    seed = as_count(seed, "seed")
    if data is not None:
        points, labels = _checked_data(data, loss)
        n = len(points)
        label = f"dataset of {n} points"
        return RuleForces(points, np.full(n, 1.0 / n), labels, loss=loss, row=row, label=label)
    if target is None:
        raise InputError("neither a target nor data; give one of them")
    if row == row_of("relu") and loss == "squared":
        return PopulationForces(target, group)
    # half the nodes and another scramble: the change is the error of the coarser rule, or more than that
    fewer = samples // 2 if samples >= _FEW else 2 * samples

    def ruled(count: int, seed: int, other: Callable[[], RuleForces] | None) -> RuleForces:
        nodes = _nodes(target.dimension, group, count, seed)
        values = np.asarray(target(nodes.points), float)
        labels = _sigmoid(values) if loss == "logistic" else values
        return RuleForces(
            nodes.points, nodes.weights, labels, loss=loss, row=row, rigor=nodes.rigor, label=nodes.label, other=other
        )

    return ruled(samples, seed, lambda: ruled(fewer, seed + 1, None))


def _checked_data(data: Any, loss: Loss) -> tuple[FloatArray, FloatArray]:
    try:
        X, y = data
    except (TypeError, ValueError):
        raise InputError("data are no pair of arrays; give (X, y) of shapes (n, d), (n,)") from None
    points, labels = as_finite(X, "X of the data").copy(), as_finite(y, "y of the data").copy()
    if points.ndim != 2 or labels.shape != (len(points),) or not points.size:
        raise InputError(f"data of shapes {points.shape}, {labels.shape}; give X of (n, d) and y of (n,)")
    if loss == "squared":
        return points, labels
    if np.isin(labels, (-1.0, 1.0)).all():
        return points, 0.5 * (labels + 1.0)
    if ((labels < 0) | (labels > 1)).any():
        bad = labels[(labels < 0) | (labels > 1)][0]
        raise InputError(f"label {bad:g} with the logistic loss; give -1 and +1, or probabilities in [0, 1]")
    return points, labels


def _nodes(d: int, group: OrthogonalGroup | None, samples: int, seed: int) -> _Nodes:
    if d <= 3:
        points, weights = sphere_rule(
            d, max(1, -(-samples // 2)) if d < 3 else max(1, round(float(np.sqrt(samples / 2))))
        )
        rigor, label = Rigor.NUMERICAL, f"rule of {len(points)} nodes"
    else:
        from scipy.special import ndtri
        from scipy.stats import qmc

        count = 1 << max(0, int(samples - 1).bit_length())  # Sobol sequences are balanced at powers of two
        uniform = qmc.Sobol(d, seed=seed).random(count)
        # a coordinate 0 has no quantile; half a step of the sequence is the usual stand-in
        gauss = ndtri(np.clip(uniform, 2.0**-33, 1 - 2.0**-33))
        points = gauss / np.linalg.norm(gauss, axis=1, keepdims=True)
        weights = np.full(count, 1.0 / count)
        rigor, label = Rigor.SAMPLED, f"scrambled Sobol sequence of {count} nodes"
    if group is None:
        return _Nodes(points, weights, rigor, label)
    order = group.order()
    if order is None or order * len(points) > _MOST_NODES:
        raise InputError(
            f"{len(points)} nodes averaged over a group of order {order or 'unknown'} exceed {_MOST_NODES}; "
            "give fewer samples"
        )
    points = np.concatenate([points @ element.T for element in group.elements()])
    weights = np.tile(weights / order, order)
    return _Nodes(points, weights, rigor, f"{label}, averaged over {order} maps")
