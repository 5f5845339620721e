"""Functions of the projection to a subspace: lifted exactly where the function is a target, by quadrature otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count, as_floats, as_number, shown
from fiberscope.errors import InputError
from fiberscope.meanfield.arguments import checked_function
from fiberscope.meanfield.harmonics.ball import BallExpansion
from fiberscope.meanfield.harmonics.jacobi import gauss_jacobi, sphere_rule
from fiberscope.meanfield.harmonics.kernels import relu_slab, unit_rows
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import Constant, Linear, Teacher, rows_of
from fiberscope.meanfield.targets.polynomial import Polynomial
from fiberscope.meanfield.targets.zonal import NormH, SingleIndex, basis_of

FloatArray = NDArray[np.float64]
_ENTRIES = 1 << 19
_COUNTS = {1: (64, 1), 2: (96, 96), 3: (48, 24), 4: (24, 12)}
_POINTS = 400_000


def ball_rule(d: int, k: int, radial: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Rule for x_H, x ~ U(S^{d-1}) and H of dimension k < d: |x_H| = sin w by Gauss points in w, times a sphere rule.

    The density of w is proportional to sin^{k-1} cos^{d-k-1}: smooth, as is |x_{H-perp}| = cos w. Symmetric under
    x -> -x. radial * 2 count^(k-1) points.

    Returns:
        points (n, k) and weights (n,).

    >>> points, weights = ball_rule(5, 2, 12, 6)
    >>> round(5 * float(weights @ points[:, 0] ** 2), 12)
    1.0
    """
    nodes, shares = gauss_jacobi(radial, 0.0, 0.0)
    w = (nodes + 1) * (np.pi / 4)
    masses = shares * np.sin(w) ** (k - 1) * np.cos(w) ** (d - k - 1)
    masses = masses / masses.sum()
    sphere, weights = sphere_rule(k, count)
    points = np.sin(w)[:, None, None] * sphere
    return points.reshape(-1, k), np.outer(masses, weights).ravel()


def lifted(target: Target, basis: ArrayLike) -> Target | None:
    """The function x -> target(H x) on R^d as a target of its own, where its class allows it exactly; else None.

    Args:
        target: a target on R^k.
        basis: orthonormal rows H (k, d).

    >>> lifted(Teacher([1.0], [[2.0]]), [[0.0, 1.0]]).B
    array([[0., 2.]])
    """
    from fiberscope.meanfield.targets.sums import Scaled, Sum

    frame = basis_of(basis)
    if target.dimension != len(frame):
        raise InputError(f"a target on R^{target.dimension} for a subspace of dimension {len(frame)}")
    if isinstance(target, Teacher):
        return Teacher(target.c, target.B @ frame)
    if isinstance(target, Linear):
        return Linear(target.beta @ frame)
    if isinstance(target, Constant):
        return Constant(target.value, frame.shape[1])
    if isinstance(target, NormH):
        return NormH(target.H @ frame)
    if isinstance(target, SingleIndex):
        return SingleIndex(target.v @ frame, target.h, kinks=target.kinks, parity=target.given_parity)
    if isinstance(target, Polynomial):
        return Polynomial(target.terms, frame=frame if target.frame is None else target.frame @ frame)
    if isinstance(target, Projected):
        return Projected(target.function, target.H @ frame, counts=target.counts, rtol=target.rtol)
    if isinstance(target, Scaled):
        inner = lifted(target.part, frame)
        return None if inner is None else Scaled(target.factor, inner)
    if isinstance(target, Sum):
        parts = [lifted(part, frame) for part in target.parts]
        return None if any(part is None for part in parts) else Sum([p for p in parts if p is not None])
    return None


def _column(function: Callable[[FloatArray], ArrayLike], t: FloatArray) -> FloatArray:
    """A function of rows (n, 1) as one of numbers."""
    values: FloatArray = as_floats(function(t.reshape(-1, 1)), "values of f_H")
    if values.size != t.size:
        raise InputError(f"f_H maps rows of shape {(t.size, 1)} to {values.shape}; it must give one number a row")
    return values.reshape(t.shape)


def _checked_counts(given: Any) -> tuple[int, int]:
    try:
        radial, count = given
    except (TypeError, ValueError):
        raise InputError(f"counts {shown(given)}; give the pair (radial points, points an axis)") from None
    return as_count(radial, "radial points", 1), as_count(count, "points an axis", 1)


class Projected(Target):
    """f*(x) = f_H(H x): any function of the projection to a subspace.

    A `Target` f_H is lifted exactly where its class allows (`lifted`); for dH = 1 panels are used (`SingleIndex`, kink
    at 0). Any other callable is expanded in the spherical harmonics of x_H (`BallExpansion`): spectral for smooth f_H,
    and each term is exact. With `counts` (and for dH = d) it is integrated over the ball by `ball_rule`, the mean over
    H-perp in closed form: E[f* relu(b.x)] = sum_k w_k f_H(z_k) E_y relu(b_H.z_k + |b_perp| sqrt(1 - |z_k|^2) y).
    Both are 1-homogeneous with exact gradients, so that a flow in them is a gradient flow; `error` estimates how far
    they are off.

    Args:
        f_H: callable on rows (n, dH), or a Target on R^dH.
        H: orthonormal rows (dH, d), or the pair (d, dH).
        counts: (radial points, points an axis of the sphere of H, an even number) of a direct rule.
        rtol: accuracy asked of the expansion, relative to the root of E[f*^2]; it stops at 2000 functions.

    Raises:
        InputError: for dH > 4 and a callable (use Sampled), and for values of a wrong shape or not finite.

    >>> f = Projected(lambda z: np.abs(z[:, 0]), (5, 2))
    >>> round(float(f.potential(np.eye(5)[:1])[0][0]), 4)  # 1/(2d)
    0.1
    """

    exact = False

    def __init__(
        self,
        f_H: Callable[[FloatArray], ArrayLike] | Target,
        H: ArrayLike | tuple[int, int],
        *,
        counts: tuple[int, int] | None = None,
        rtol: float = 1e-6,
    ) -> None:
        self.H = basis_of(H)
        self.dimension = self.H.shape[1]
        self.function = checked_function(f_H, "f_H")
        self.counts = None if counts is None else _checked_counts(counts)
        self.rtol = as_number(rtol, "rtol", above=0)
        self._inner = self._substitute()
        if self._inner is None:
            self._prepare()
        else:
            self.exact, self.rigor = self._inner.exact, self._inner.rigor

    def _substitute(self) -> Target | None:
        if isinstance(self.function, Target):
            found = lifted(self.function, self.H)
            if found is not None:
                return found
        elif len(self.H) == 1 and self.counts is None:
            function = self.function
            return SingleIndex(self.H[0], lambda t: _column(function, t))
        return None

    def _prepare(self) -> None:
        k, d = self.H.shape
        if k not in _COUNTS and self.counts is None:
            raise InputError(f"a function of {k} coordinates; product rules serve up to 4: use Sampled, or give counts")
        radial, count = self.counts or _COUNTS[k]
        if count % 2 and k > 1:
            raise InputError(f"counts {(radial, count)}; give positive numbers, the second one even")
        if radial * 2 * count ** (k - 1) > _POINTS:
            raise InputError(f"a rule of {radial * 2 * count ** (k - 1)} points; at most {_POINTS} are used")
        points, weights = ball_rule(d, k, radial, count) if k < d else sphere_rule(d, radial)
        self._even, self._masses, self._nodes = self._folded(points, weights)
        self._beta = 2 * (self._masses * self._odd) @ self._nodes

    @cached_property
    def _expansion(self) -> BallExpansion | None:
        k, d = self.H.shape
        return BallExpansion(self._values, k, d, self.rtol) if self.counts is None and k < d else None

    def _folded(self, points: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        # f = even + odd; the odd part meets relu only through its linear part, so half of the symmetric rule will do
        half = points[:, 0] > 0
        nodes, masses = points[half], weights[half]
        plus, minus = self._values(nodes), self._values(-nodes)
        self._odd = (plus - minus) / 2
        return (plus + minus) / 2, masses, nodes

    def _values(self, inner: FloatArray) -> FloatArray:
        found: FloatArray = as_floats(self.function(inner), "values of f_H")
        if found.shape != (len(inner),):
            raise InputError(f"f_H maps points of shape {inner.shape} to {found.shape}; it must give one number a row")
        if not np.isfinite(found).all():
            raise InputError(f"f_H is not finite at {inner[~np.isfinite(found)][0].tolist()}")
        return found

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        return self._values(rows_of(points, self.dimension) @ self.H.T)

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        if self._inner is not None:
            return self._inner.potential(np.asarray(directions, float))
        rows = rows_of(directions, self.dimension)
        units, norms = unit_rows(rows)
        inside = units @ self.H.T
        across = units - inside @ self.H
        reach = np.linalg.norm(across, axis=1)
        away = across / np.where(reach > 0, reach, 1.0)[:, None]
        if self._expansion is not None:
            level, slopes = self._expansion.potential(np.concatenate([inside, reach[:, None]], axis=1))
            # polynomials of u_H on the sphere: their gradient is made tangential, then |b| brings the radial part
            ambient = slopes[:, :-1] @ self.H
            gradients = ambient + (level - np.einsum("md,md->m", ambient, units))[:, None] * units
            gradients[norms == 0] = 0.0
            return norms * level, gradients
        height = np.sqrt(np.maximum(0.0, 1.0 - np.einsum("nk,nk->n", self._nodes, self._nodes)))
        loads = 2 * self._masses * self._even
        values, slopes, inner = np.empty(len(rows)), np.empty(len(rows)), np.empty_like(inside)
        step = max(1, _ENTRIES // len(self._nodes))
        for begin in range(0, len(rows), step):
            part = slice(begin, begin + step)
            _, by_a, by_b = relu_slab(
                inside[part] @ self._nodes.T, np.outer(reach[part], height), self.dimension - len(self.H)
            )
            # the odd part of relu, a/2, belongs to the linear part
            inner[part] = ((by_a - 0.5) * loads) @ self._nodes
            slopes[part] = by_b @ (loads * height)
        inner += self._beta / 2
        values = np.einsum("mk,mk->m", inner, inside) + slopes * reach
        gradients = inner @ self.H + slopes[:, None] * away
        gradients[norms == 0] = 0.0
        return norms * values, gradients

    @cached_property
    def error(self) -> float:
        """That of the expansion; for a rule the largest change of some potentials when it is coarsened by a third."""
        if self._inner is not None:
            return float(getattr(self._inner, "error", 0.0))
        if self._expansion is not None:
            return self._expansion.error
        radial, count = self.counts or _COUNTS[len(self.H)]
        coarse = (max(1, 2 * radial // 3), max(2, 2 * (count // 3)))
        other = Projected(self.function, self.H, counts=coarse)
        rng = np.random.default_rng(0)
        tests = rng.standard_normal((24, len(self.H))) @ self.H
        tests[8:] += rng.standard_normal((16, self.dimension)) / math.sqrt(self.dimension)
        tests = unit_rows(tests)[0]
        return float(np.max(np.abs(self.potential(tests)[0] - other.potential(tests)[0])))

    def _mean(self, values: FloatArray) -> float:
        return 2 * float(self._masses @ values)

    @cached_property
    def second_moment(self) -> float:
        """E[f*^2]."""
        if self._inner is not None:
            return self._inner.second_moment
        return self._mean(self._even**2 + self._odd**2)

    @cached_property
    def mean(self) -> float:
        """E[f*]."""
        if self._inner is not None:
            return float(self._inner.mean)  # type: ignore[attr-defined]
        return self._mean(self._even)

    @cached_property
    def linear_part(self) -> FloatArray:
        """E[f* x]."""
        return self._inner.linear_part if self._inner is not None else self._beta @ self.H

    @cached_property
    def parity(self) -> int | None:
        """That of the lifted target, or from the values at the nodes."""
        if self._inner is not None:
            return self._inner.parity
        scale = 1e-13 * float(np.max(np.abs(self._even) + np.abs(self._odd)))
        if np.max(np.abs(self._odd)) <= scale:
            return 1
        return -1 if np.max(np.abs(self._even)) <= scale else None

    @property
    def subspace(self) -> FloatArray:
        """H, or the smaller subspace of the lifted target."""
        return self._inner.subspace if self._inner is not None else self.H.copy()

    @property
    def lift(self) -> Target:
        """The lifted target where there is one, else this one."""
        return self if self._inner is None else self._inner
