"""Particles on the sphere of (u_H, |u_perp|): the target seen from there, initial measures, the right-hand side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count, as_finite, shown
from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.ball import BallExpansion
from fiberscope.meanfield.harmonics.jacobi import gauss_jacobi, sphere_rule
from fiberscope.meanfield.harmonics.kernels import arccos_gram, arccos_potential
from fiberscope.meanfield.lowdim.kernel import kernel_potential
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import Linear, Teacher
from fiberscope.meanfield.targets.projected import Projected, lifted
from fiberscope.meanfield.targets.sums import Scaled, Sum
from fiberscope.results import Rigor

FloatArray = NDArray[np.float64]
Potential = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
Rule = tuple[FloatArray, FloatArray]
_UNIT = 1e-8
_SAME = 1e-9
"""Largest change with x_perp of a function of x_H, in units of its size."""
_PROBES = 64


@dataclass(frozen=True, eq=False)
class SeenTarget:
    """A function of x_H on the sphere of R^d as the particles feel it.

    Args:
        dimension: d.
        basis: (dH, d), orthonormal rows of H.
        potential: q (m, dH+1) -> E[f* relu(u.x)] (m,) and a gradient (m, dH+1) of which the tangential part counts.
        second_moment: E[f*^2].
        form: how the potential is found.
        error: estimate of the largest error of the potential; 0 for closed forms.
        rigor: as of the target.
    """

    dimension: int
    basis: FloatArray
    potential: Potential
    second_moment: float
    form: str
    error: float = 0.0
    rigor: Rigor = Rigor.NUMERICAL


def seen_target(target: Target, d: int, tolerance: float) -> SeenTarget:
    """The potential on S^{dH} of f*(x) = f_H(x_H): the closed form where there is one, else an expansion in harmonics.

    Args:
        target: f_H on R^{dH}, dH < d; or f* itself on R^d, which must depend on x_H only for its `subspace` H, as
            `Projected(f_H, (d, dH))` does for any callable f_H.
        d: dimension of the inputs.
        tolerance: of the expansion, relative to sqrt(E f*^2).

    Raises:
        InputError: if H is no proper subspace of R^d, or f* does not depend on x_H alone.

    >>> seen = seen_target(Teacher([1.0], [[0.0, 2.0, 0.0]]), 3, 1e-9)  # 2 relu(x_2): E[relu(x_2)^2] = 1/6
    >>> seen.form, round(float(seen.potential(np.array([[1.0, 0.0]]))[0][0]) * 3, 12)
    ('closed form', 1.0)
    """
    whole = target.dimension == d
    basis = target.subspace if whole else np.eye(min(target.dimension, d), d)
    if not 1 <= len(basis) < d or target.dimension > d:
        raise InputError(f"a target on H of dimension {min(len(basis), target.dimension)} in R^{d}; give 1 <= dH < d")
    if whole:
        _check_dependence(target, basis)
    lift = target if whole else lifted(target, basis)
    if lift is not None:
        network = _as_teacher(lift)
        if network is not None:
            return _teacher(*network, basis)
        if lift.exact:
            return _embedded(lift, basis)
    found = BallExpansion(partial(_on_sphere, target, basis) if whole else target, len(basis), d, tolerance)
    form = f"spherical harmonics to degree {found.degree}"
    return SeenTarget(d, basis, found.potential, found.second_moment, form, found.error)


def _teacher(weights: FloatArray, rows: FloatArray, basis: FloatArray) -> SeenTarget:
    d = basis.shape[1]
    inner = np.concatenate([rows @ basis.T, np.zeros((len(rows), 1))], axis=1)
    factor = inner.shape[1] / d  # the kernel of arccos_potential is that of S^{dH}

    def potential(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, gradients = arccos_potential(points, inner, weights)
        return factor * values, factor * gradients

    moment = factor * float(weights @ arccos_gram(inner) @ weights)
    return SeenTarget(d, basis, potential, max(0.0, moment), "closed form")


def _embedded(target: Target, basis: FloatArray) -> SeenTarget:
    """Through the potential of the target on R^d, along one unit vector orthogonal to H."""
    frame = np.concatenate([basis, normals(basis)[:1]])

    def potential(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, gradients = target.potential(points @ frame)
        return values, gradients @ frame.T

    return SeenTarget(target.dimension, basis, potential, target.second_moment, "closed form", 0.0, target.rigor)


def normals(basis: FloatArray) -> FloatArray:
    """Orthonormal rows of the orthogonal complement of orthonormal rows (k, d): (d-k, d).

    >>> normals(np.array([[0.0, 1.0]])).round(12) + 0.0
    array([[1., 0.]])
    """
    _, _, vectors = np.linalg.svd(basis, full_matrices=True)
    rest = vectors[len(basis) :]
    signs = np.sign(rest[np.arange(len(rest)), np.argmax(np.abs(rest), axis=1)])
    found: FloatArray = rest * signs[:, None]
    return found


def _as_teacher(target: Target) -> tuple[FloatArray, FloatArray] | None:
    """Weights and rows of the same function as a network, for targets made of teachers and linear functions."""
    if isinstance(target, Teacher):
        return target.c, target.B
    if isinstance(target, Linear):
        return np.array([1.0, -1.0]), np.stack([target.beta, -target.beta])
    if isinstance(target, Projected):
        return None if target.lift is target else _as_teacher(target.lift)
    if isinstance(target, Scaled):
        inner = _as_teacher(target.part)
        return None if inner is None else (target.factor * inner[0], inner[1])
    if isinstance(target, Sum):
        parts = [_as_teacher(part) for part in target.parts]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return np.concatenate([c for c, _ in known]), np.concatenate([rows for _, rows in known])
    return None


def _on_sphere(target: Target, basis: FloatArray, points: FloatArray) -> FloatArray:
    """f* at unit vectors with these parts in H: what f* is off the sphere has no meaning here."""
    height = np.sqrt(np.maximum(0.0, 1.0 - np.einsum("ij,ij->i", points, points)))
    values: FloatArray = target(points @ basis + height[:, None] * normals(basis)[0])
    return values


def _check_dependence(target: Target, basis: FloatArray) -> None:
    """f* must be the same at unit vectors with one x_H and different x_perp."""
    rng = np.random.default_rng(7)
    points = rng.normal(size=(_PROBES, target.dimension))
    points /= np.linalg.norm(points, axis=1)[:, None]
    inside = points @ basis.T @ basis
    turned = rng.normal(size=points.shape)
    turned -= turned @ basis.T @ basis
    turned *= (np.linalg.norm(points - inside, axis=1) / np.linalg.norm(turned, axis=1))[:, None]
    # x_perp = +-|x_perp| only, for dp = 1: the opposite one is always among those compared
    values = [target(points), *(target(inside + other) for other in (turned, inside - points))]
    defect = max(float(np.max(np.abs(other - values[0]))) for other in values[1:])
    size = float(np.max(np.abs(values)))
    if not defect <= _SAME * size:
        raise InputError(
            f"the target changes by {defect:.3g} with x_perp on the sphere, with values up to {size:.3g}; "
            "it must depend on x_H only (check subspace)"
        )


def initial_measure(
    dH: int, d: int, nodes: int | tuple[int, ...] | None, seed: int
) -> tuple[FloatArray, FloatArray, tuple[int, ...], str]:
    """Particles of one sign for u ~ U(S^{d-1}), as q = (u_H, |u_perp|), with probability weights.

    dH <= 3: Gauss-Jacobi in |u_H|^2 times a rule of the sphere of H (`label_rule`). Beyond: scrambled Sobol points,
    made Gaussian and normalised.

    Args:
        dH: dimension of H.
        d: dimension of the inputs.
        nodes: radii and directions along each axis, (n,) or n for dH = 1, (n, k) or n = (n, n) for dH = 2, 3; their
            number for dH > 3.
        seed: of the Sobol points.

    Returns:
        points (m, dH+1), weights (m,), the nodes as used, and "gauss" or "sobol".

    Raises:
        InputError: for nodes that do not fit.

    >>> points, weights, _, _ = initial_measure(2, 5, (3, 3), 0)
    >>> len(points), (5 * weights @ points**2).round(12).tolist()
    (18, [1.0, 1.0, 3.0])
    """
    given = (nodes,) if isinstance(nodes, int | np.integer) else nodes
    if given is None:
        given = {1: (24,), 2: (6, 10), 3: (4, 5)}.get(dH, (256,))
    if not isinstance(given, tuple | list):
        raise InputError(f"nodes {shown(nodes)}; give a whole number or a tuple of them")
    counts = tuple(as_count(n, "nodes", 1) for n in given)
    if dH in (2, 3) and len(counts) == 1:
        counts *= 2
    if not counts or len(counts) != (2 if dH in (2, 3) else 1):
        raise InputError(f"nodes {nodes!r} for dH = {dH}; give (radii, directions) for dH = 2, 3, else one number")
    if dH <= 3:
        flat, weights = label_rule(dH, d, counts[0], counts[-1])
        how = "gauss"
    else:
        flat, weights, how = *_sobol(dH, d, counts[0], seed), "sobol"
    height = np.sqrt(np.maximum(1.0 - np.einsum("ij,ij->i", flat, flat), 0.0))
    return np.column_stack([flat, height]), weights, counts, how


def label_rule(dH: int, d: int, radial: int, angular: int) -> tuple[FloatArray, FloatArray]:
    """Gauss rule for u_H, u ~ U(S^{d-1}): Gauss-Jacobi in |x_H|^2 ~ Beta(dH/2, dp/2) times a rule of the sphere of H.

    Exact for polynomials of degree min(4 radial, 2 angular) - 1; weights positive, sum one.

    Args:
        dH: dimension of H, at least 1.
        d: dimension of the inputs, above dH.
        radial: number of radii.
        angular: as in `sphere_rule` (2 directions for dH = 1, whatever is given).

    Returns:
        points (k, dH) and weights (k,).

    Raises:
        InputError: for dimensions or counts that make no rule.

    >>> points, weights = label_rule(1, 3, 2, 1)  # x_1 is uniform on [-1, 1]
    >>> round(5 * float(weights @ points[:, 0] ** 4), 12)
    1.0
    """
    if not 1 <= dH < d:
        raise InputError(f"H of dimension {dH} in R^{d}; give 1 <= dH < d")
    line, shares = gauss_jacobi(radial, (d - dH) / 2 - 1, dH / 2 - 1)
    directions, masses = sphere_rule(dH, angular)
    radii = np.sqrt((1.0 + line) / 2)
    points = radii[:, None, None] * directions
    return points.reshape(-1, dH), np.outer(shares, masses).ravel()


def _sobol(dH: int, d: int, count: int, seed: int) -> tuple[FloatArray, FloatArray]:
    from scipy.special import gammaincinv, ndtri
    from scipy.stats import qmc

    if count & (count - 1):
        raise InputError(f"{count} particles for each sign; a Sobol sequence needs a power of two")
    cube = np.clip(qmc.Sobol(dH + 1, seed=seed).random(count), 1e-12, 1 - 1e-12)
    flat = ndtri(cube[:, :dH])
    square = 2.0 * gammaincinv((d - dH) / 2, cube[:, dH])
    return flat / np.sqrt(np.sum(flat**2, axis=1) + square)[:, None], np.full(count, 1.0 / count)


def checked_start(init: tuple[ArrayLike, ArrayLike, ArrayLike], dH: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points (m, dH+1), masses (m,), signs (m,) as given, or one line that says what is wrong.

    >>> checked_start(([[0.6, 0.8]], 0.5, [1]), 1)[1]
    array([0.5])
    """
    try:
        points, masses, signs = (as_finite(a, "init") for a in init)
    except (TypeError, ValueError):
        raise InputError("init is not (points, masses, signs) of finite numbers") from None
    if points.ndim != 2 or points.shape[1] != dH + 1 or not len(points):
        raise InputError(f"initial points of shape {points.shape}; give rows (u_H, |u_perp|), (m, {dH + 1})")
    try:
        masses, signs = (np.broadcast_to(a, len(points)).copy() for a in (masses, signs))
    except ValueError:
        raise InputError(f"masses {masses.shape}, signs {signs.shape} for {len(points)} points") from None
    if not (masses > 0).all() or not np.isfinite(masses).all():
        raise InputError("initial masses must be positive and finite; the sign of a neuron goes into signs")
    if not np.isin(signs, (-1.0, 1.0)).all():
        raise InputError("signs must be +1 or -1")
    sizes = np.linalg.norm(points, axis=1)
    if not (np.abs(sizes - 1) <= _UNIT).all() or not (points[:, -1] >= 0).all():
        raise InputError("initial points must be unit rows (u_H, |u_perp|) whose last entry is not negative")
    return points / sizes[:, None], masses, signs


class LowdimSystem:
    """State (log c_1 .. log c_m, q_1 .. q_m, D): masses, unit rows of S^{dH}, and what the energy has lost.

    G(q) = E[f* relu(u.x)] - sum_j eps_j c_j K(q, q_j); (log c_j)' = 2 eps_j G(q_j), q_j' = eps_j grad G(q_j) on the
    sphere, D' = sum_j c_j (2 G^2 + |grad G|^2) = -F' (arXiv 2211.08771, Lemma 3.4.2, in the chart of `lowdimkernel`).

    Args:
        seen: the target.
        signs: (m,).
        rule: of `side_rule`.

    >>> seen = seen_target(Teacher([1.0], [[1.0]]), 2, 1e-9)  # relu(x_1) from one particle at u = e_1: G = (1-c)/4
    >>> system = LowdimSystem(seen, np.ones(1), (np.array([-1.0, 1.0]), np.array([0.5, 0.5])))
    >>> system.rate(0.0, system.pack(np.array([0.5]), np.array([[1.0, 0.0]]))).round(12).tolist()
    [0.25, 0.0, 0.0, 0.015625]
    """

    def __init__(self, seen: SeenTarget, signs: FloatArray, rule: Rule) -> None:
        self.seen, self.signs, self.rule = seen, signs, rule

    def pack(self, masses: FloatArray, points: FloatArray) -> FloatArray:
        """The state at time 0."""
        return np.concatenate([np.log(masses), points.ravel(), [0.0]])

    def unpack(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Masses (m,) and unit rows (m, dH+1) with last entry >= 0."""
        m = len(self.signs)
        rows = state[m:-1].reshape(m, -1)
        points = rows / np.linalg.norm(rows, axis=1)[:, None]
        points[:, -1] = np.abs(points[:, -1])  # rounding only: rho = 0 is never crossed
        return np.exp(state[:m]), points

    def field(self, masses: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """G, its tangential gradient, and the target's potential at the particles: (m,), (m, dH+1), (m,)."""
        drive, pull = self.seen.potential(points)
        own, push = kernel_potential(points, self.signs * masses, self.seen.dimension, self.rule)
        gradient = pull - push
        gradient[points[:, -1] == 0.0, -1] = 0.0  # neurons in H stay there; rounding must not lift them
        gradient -= np.einsum("ij,ij->i", gradient, points)[:, None] * points
        return drive - own, gradient, drive

    def rate(self, time: float, state: FloatArray) -> FloatArray:
        """The right-hand side."""
        masses, points = self.unpack(state)
        value, gradient, _ = self.field(masses, points)
        return np.concatenate(
            [2 * self.signs * value, (self.signs[:, None] * gradient).ravel(), [_loss(masses, value, gradient)]]
        )

    def observe(self, masses: FloatArray, points: FloatArray) -> tuple[float, float]:
        """Energy F = 1/2 E f*^2 - 1/2 sum_j eps_j c_j (g + G)(q_j), and -F'."""
        value, gradient, drive = self.field(masses, points)
        energy = 0.5 * self.seen.second_moment - 0.5 * float((self.signs * masses) @ (drive + value))
        return energy, _loss(masses, value, gradient)


def _loss(masses: FloatArray, value: FloatArray, gradient: FloatArray) -> float:
    return float(masses @ (2 * value**2 + np.einsum("ij,ij->i", gradient, gradient)))
