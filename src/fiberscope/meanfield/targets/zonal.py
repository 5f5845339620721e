"""Targets of one variable: functions of v.x by panels of Gauss points, and the norm of a projection in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_finite, as_floats, as_number, shown
from fiberscope.errors import InputError
from fiberscope.meanfield.arguments import checked_function, checked_parity
from fiberscope.meanfield.harmonics.jacobi import gauss_jacobi
from fiberscope.meanfield.harmonics.kernels import alpha_of, half_gamma_ratio, relu_slab, unit_rows
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import rows_of, vector

FloatArray = NDArray[np.float64]
_ENTRIES = 1 << 20
_PARITY = 1e-9
_ORDERS = (16, 24, 32, 48, 64, 96, 128, 192, 256)


class SingleIndex(Target):
    """f*(x) = h(v.x) for any function h of one variable, smooth between named kinks. Quadrature in one variable.

    With s = sin w the first coordinate along v, b at the angle theta from v and y the first coordinate of U(S^{d-2}),
    E[f* relu(b.x)] = |b| E_s[h(|v| s) E_y relu(cos(theta) sin(w) + sin(theta) cos(w) y)]; the inner mean is a closed
    form (`kernels.relu_slab`), singular where |sin w| = sin theta. Panels end there and at the kinks, and inside
    each the points crowd towards the ends so that half-integer powers do no harm: convergence is spectral. The
    number of points is raised until two orders agree to `rtol`; `error` is what is left.

    Args:
        v: (d,) any nonzero vector.
        h: vectorised function of an array of numbers v.x in [-|v|, |v|].
        kinks: values of v.x where h, or a derivative of it, jumps.
        rtol: accuracy of potentials relative to the root of E[f*^2].
        parity: +1 or -1 if h is known to be even or odd, compared with h at the points of the rule; found from values
            at 257 points if not given.

    Raises:
        InputError: for v = 0, h that is not vectorised, values that are not finite, or a parity that h has not.

    >>> f = SingleIndex([1.0, 0.0, 0.0], np.abs)
    >>> f.potential(np.array([[1.0, 0.0, 0.0]]))[0].round(12), round(f.second_moment, 12), f.parity
    (array([0.16666667]), 0.333333333333, 1)
    """

    exact = False

    def __init__(
        self,
        v: ArrayLike,
        h: Callable[[FloatArray], ArrayLike],
        *,
        kinks: Sequence[float] = (0.0,),
        rtol: float = 1e-11,
        parity: int | None = None,
    ) -> None:
        self.v = vector(v, "direction v")
        self.dimension = len(self.v)
        units, norms = unit_rows(self.v[None])
        self._unit, self._length = units[0], float(norms[0])
        if self._length == 0.0:
            raise InputError("direction v = 0; give a nonzero vector, or use Constant")
        self.h = checked_function(h, "h")
        places = as_finite(kinks, "kinks")
        if places.ndim != 1:
            raise InputError(f"kinks {shown(kinks)}; give a list of values of v.x")
        self.kinks = tuple(places.tolist())
        self._kinks = np.unique(np.arcsin(places[np.abs(places) < self._length] / self._length))
        self.given_parity = parity = checked_parity(parity)
        self.order, self.error = self._resolved(as_number(rtol, "rtol", above=0))
        if parity is not None:
            self._compare(parity)

    def _compare(self, parity: int) -> None:
        """Refuse a parity that the values at the points of the rule deny."""
        t = self._length * np.sin(np.ravel(self._panels(np.zeros((1, 0)), 2 * self.order)[0]))
        plus, minus = self._h(t), self._h(-t)
        off = np.abs(plus - parity * minus)
        if np.max(off) > _PARITY * float(np.max(np.abs(plus) + np.abs(minus))):
            at, kind = int(np.argmax(off)), "even" if parity == 1 else "odd"
            raise InputError(
                f"parity {parity}, but h is not {kind}: {plus[at]:g} at {t[at]:g} and {minus[at]:g} at {-t[at]:g}"
            )

    def _h(self, t: FloatArray) -> FloatArray:
        values: FloatArray = as_floats(self.h(t), "values of h")
        if values.shape != t.shape:
            raise InputError(f"h maps an array of shape {t.shape} to {values.shape}; it must act entry by entry")
        if not np.isfinite(values).all():
            raise InputError(f"h is not finite at v.x = {float(t[~np.isfinite(values)][0]):g}")
        return values

    def _panels(self, splits: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
        """Points w and their probabilities for panels between +-pi/2, the kinks and splits (m, k): (m, q) each."""
        m = len(splits)
        if self.dimension == 1:
            return np.tile([-np.pi / 2, np.pi / 2], (m, 1)), np.full((m, 2), 0.5)
        fixed = np.broadcast_to(np.concatenate([[-np.pi / 2, np.pi / 2], self._kinks]), (m, 2 + len(self._kinks)))
        edges = np.sort(np.concatenate([fixed, splits], axis=1), axis=1)
        nodes, weights = gauss_jacobi(order, 0.0, 0.0)
        crowded = (3 * nodes - nodes**3) / 2
        shares = weights * 1.5 * (1 - nodes**2)
        low, high = edges[:, :-1, None], edges[:, 1:, None]
        w = (low + high) / 2 + (high - low) / 2 * crowded
        d = self.dimension
        density = half_gamma_ratio(d - 1) / math.sqrt(math.pi)
        mass = (high - low) * shares * density * np.cos(w) ** (d - 2)
        return w.reshape(m, -1), mass.reshape(m, -1)

    def _zonal(self, theta: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
        """The potential of a unit vector at the angle theta from v, and its derivative in theta."""
        values, slopes = np.empty(len(theta)), np.empty(len(theta))
        step = max(1, _ENTRIES // (order * (3 + len(self._kinks))))
        for begin in range(0, len(theta), step):
            part = slice(begin, begin + step)
            angle = theta[part]
            fold = np.minimum(angle, np.pi - angle)
            w, mass = self._panels(np.stack([-fold, fold], axis=1), order)
            sin_w, cos_w = np.sin(w), np.cos(w)
            sin_t, cos_t = np.sin(angle)[:, None], np.cos(angle)[:, None]
            inner, by_a, by_b = relu_slab(cos_t * sin_w, sin_t * cos_w, self.dimension - 1)
            load = mass * self._h(self._length * sin_w)
            values[part] = np.einsum("mq,mq->m", load, inner)
            slopes[part] = np.einsum("mq,mq->m", load, by_b * cos_t * cos_w - by_a * sin_t * sin_w)
        return values, slopes

    def _resolved(self, rtol: float) -> tuple[int, float]:
        grid: FloatArray = (np.arange(33, dtype=float) + 0.5) * (np.pi / 33)
        before = self._zonal(grid, _ORDERS[0])
        gap = math.inf
        for order in _ORDERS[1:]:
            after = self._zonal(grid, order)
            scale = max(math.sqrt(self._mean_of_order(order, 2)), 1e-300)
            gap = max(float(np.max(np.abs(a - b))) for a, b in zip(before, after, strict=True))
            if gap <= rtol * scale:
                return order, gap
            before = after
        return _ORDERS[-1], gap

    def _mean_of_order(self, order: int, power: int, factor: int = 0) -> float:
        w, mass = self._panels(np.zeros((1, 0)), 2 * order)
        s = np.sin(w)
        return float(np.sum(mass * self._h(self._length * s) ** power * s**factor))

    def zonal_coefficient(self, n: int) -> float:
        """E[h(|v| s) P_n(s)], P_n the zonal harmonic of degree n with P_n(1) = 1: E[f* Y] = this times Y(v/|v|)."""
        w, mass = self._panels(np.zeros((1, 0)), 2 * self.order + n)
        s = np.sin(w).ravel()
        before, now = np.ones_like(s), s.copy()
        d = self.dimension
        if n == 0:
            now = before
        for k in range(1, n):
            # Gegenbauer's recurrence, normalised at 1
            before, now = now, ((2 * k + d - 2) * s * now - k * before) / (k + d - 2)
        return float(np.sum(mass.ravel() * self._h(self._length * s) * now))

    def moment_with(self, other: SingleIndex) -> float:
        """E[h(v.x) g(u.x)]: panels in v.x, and inside each in the next coordinate, split at the kinks of both."""
        cosine = float(np.clip(self._unit @ other._unit, -1, 1))
        tilt = 2 * math.atan2(
            float(np.linalg.norm(self._unit - other._unit)), float(np.linalg.norm(self._unit + other._unit))
        )
        if self.dimension <= 2 or min(tilt, math.pi - tilt) < 1e-12:
            return self._moment_on_circle(other)
        order = max(self.order, other.order)
        # the inner mean is singular in w where sin(w +- tilt) is a kink of the other function
        turns = [(base + sign * tilt) for k in other._kinks for base in (k, np.pi - k) for sign in (1, -1)]
        meets = [w + 2 * np.pi * j for w in turns for j in (-1, 0, 1)]
        splits = np.array([w for w in meets if abs(w) < np.pi / 2] or [0.0])
        w, mass = self._panels(splits[None], order)
        s, height = np.sin(w[0]), np.cos(w[0])
        # u.x/|u| = cosine s + sine height y, y the first coordinate of U(S^{d-2})
        sine = math.sin(tilt)
        inner = SingleIndex.__new__(SingleIndex)
        inner.dimension, inner._kinks = self.dimension - 1, np.zeros(0)
        reach = np.where(height > 0, sine * height, 1.0)[:, None]
        cuts = (np.sin(other._kinks)[None] - cosine * s[:, None]) / reach
        angles, shares = inner._panels(np.arcsin(np.clip(cuts, -1, 1)), order)
        t = cosine * s[:, None] + sine * height[:, None] * np.sin(angles)
        return float(np.sum(mass[0] * self._h(self._length * s) * np.sum(shares * other._h(other._length * t), axis=1)))

    def _moment_on_circle(self, other: SingleIndex) -> float:
        if self.dimension == 1:
            signs = np.array([1.0, -1.0])
            return float(np.mean(self._h(signs * self.v[0]) * other._h(signs * other.v[0])))
        if self.dimension == 2:
            mine, theirs = (math.atan2(float(u[1]), float(u[0])) for u in (self._unit, other._unit))
            # v.x/|v| = sin w twice on the circle
            ends = [mine + sign * (np.pi / 2 - k) for k in self._kinks for sign in (1, -1)]
            ends += [theirs + sign * (np.pi / 2 - k) for k in other._kinks for sign in (1, -1)]
            edges = np.unique(np.concatenate([[0.0, 2 * np.pi], np.mod(np.array(ends, float), 2 * np.pi)]))
            nodes, weights = gauss_jacobi(2 * max(self.order, other.order), 0.0, 0.0)
            phi = (edges[:-1, None] + edges[1:, None]) / 2 + np.diff(edges)[:, None] / 2 * nodes
            shares = np.diff(edges)[:, None] / (2 * np.pi) * weights
            left, right = self._h(self._length * np.cos(phi - mine)), other._h(other._length * np.cos(phi - theirs))
            return float(np.sum(shares * left * right))
        sign = 1.0 if float(self._unit @ other._unit) > 0 else -1.0
        w, mass = self._panels((sign * other._kinks)[None], 2 * max(self.order, other.order))
        s = np.sin(w)
        return float(np.sum(mass * self._h(self._length * s) * other._h(sign * other._length * s)))

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        return self._h(rows_of(points, self.dimension) @ self.v)

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`), by quadrature to `error`."""
        units, norms = unit_rows(rows_of(directions, self.dimension))
        near = np.linalg.norm(units - self._unit, axis=1)
        far = np.linalg.norm(units + self._unit, axis=1)
        theta = 2 * np.arctan2(near, far)
        values, slopes = self._zonal(theta, self.order)
        across = np.cos(theta)[:, None] * units - self._unit
        size = np.linalg.norm(across, axis=1, keepdims=True)
        gradients = values[:, None] * units + slopes[:, None] * np.where(
            size > 0, across / np.where(size > 0, size, 1), 0
        )
        gradients[norms == 0] = 0.0
        return norms * values, gradients

    @cached_property
    def second_moment(self) -> float:
        """E[f*^2]."""
        return self._mean_of_order(self.order, 2)

    @cached_property
    def mean(self) -> float:
        """E[f*]."""
        return self._mean_of_order(self.order, 1)

    @cached_property
    def linear_part(self) -> FloatArray:
        """E[f* x], along v."""
        part: FloatArray = self._unit * self._mean_of_order(self.order, 1, 1)
        return part

    @cached_property
    def parity(self) -> int | None:
        """As given, or from values at 257 points."""
        if self.given_parity is not None:
            return self.given_parity
        t = self._length * np.sin(np.linspace(0, np.pi / 2, 257))
        plus, minus = self._h(t), self._h(-t)
        scale = 1e-13 * max(float(np.max(np.abs(plus))), float(np.max(np.abs(minus))))
        if np.max(np.abs(plus - minus)) <= scale:
            return 1
        return -1 if np.max(np.abs(plus + minus)) <= scale else None

    @property
    def subspace(self) -> FloatArray:
        """The line of v."""
        line: FloatArray = self._unit[None].copy()
        return line


class NormH(Target):
    """f*(x) = |x_H|, the norm of the projection to a subspace H. Exact.

    E[f* relu(b.x)] = |b| alpha / (2 pi d) 2F1(-1/2, -1/2; dH/2; cos^2 phi), phi the angle of b to H and alpha as in
    `kernels.alpha_of`: |x_H| = alpha E relu(v.x) over v ~ U(S(H)), and the even part of the arc-cosine kernel,
    sqrt(1-c^2) + c asin c = 2F1(-1/2, -1/2; 1/2; c^2), averages over c = cos(phi) s term by term, as
    E s^{2n} = (1/2)_n / (dH/2)_n. arXiv 2211.08771, section 3.4, for the function.

    Args:
        H: orthonormal rows (dH, d), or the pair (d, dH) for the first dH coordinates.

    Raises:
        InputError: unless 1 <= dH <= d and the rows are orthonormal.

    >>> f = NormH((3, 1))  # |x_1|
    >>> f(np.array([[-0.6, 0.8, 0.0]])), f.potential(np.eye(3)[:1])[0].round(12), f.alpha
    (array([0.6]), array([0.16666667]), 2.0)
    """

    def __init__(self, H: ArrayLike | tuple[int, int]) -> None:
        self.H = basis_of(H)
        self.dimension = self.H.shape[1]
        self.alpha = alpha_of(len(self.H))

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        values: FloatArray = np.linalg.norm(rows_of(points, self.dimension) @ self.H.T, axis=1)
        return values

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        from scipy.special import hyp2f1

        units, norms = unit_rows(rows_of(directions, self.dimension))
        inside = units @ self.H.T
        z = np.minimum(np.einsum("mk,mk->m", inside, inside), 1.0)
        half = len(self.H) / 2
        factor = self.alpha / (2 * np.pi * self.dimension)
        values = factor * hyp2f1(-0.5, -0.5, half, z)
        slopes = factor / (4 * half) * hyp2f1(0.5, 0.5, half + 1, z)
        gradients = (values - 2 * slopes * z)[:, None] * units + 2 * slopes[:, None] * (inside @ self.H)
        gradients[norms == 0] = 0.0
        return norms * values, gradients

    @property
    def second_moment(self) -> float:
        """E[f*^2] = dH/d."""
        return len(self.H) / self.dimension

    @property
    def mean(self) -> float:
        """E[f*] = Gamma((dH+1)/2) Gamma(d/2) / (Gamma(dH/2) Gamma((d+1)/2))."""
        return half_gamma_ratio(len(self.H)) / half_gamma_ratio(self.dimension)

    @property
    def linear_part(self) -> FloatArray:
        """0."""
        return np.zeros(self.dimension)

    @property
    def parity(self) -> int:
        """+1."""
        return 1

    @property
    def subspace(self) -> FloatArray:
        """H (the zero space for dH = d, where f* is the constant 1)."""
        return self.H.copy() if len(self.H) < self.dimension else np.zeros((0, self.dimension))


def basis_of(given: ArrayLike | tuple[int, int]) -> FloatArray:
    """Orthonormal rows as given, or the first dH coordinate vectors of R^d from the pair (d, dH).

    Raises:
        InputError: for rows that are not orthonormal to 1e-12, or a pair without 1 <= dH <= d.

    >>> basis_of((3, 1))
    array([[1., 0., 0.]])
    """
    if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(n, int | np.integer) for n in given):
        d, k = int(given[0]), int(given[1])
        if not 1 <= k <= d:
            raise InputError(f"a subspace of dimension {k} of R^{d}; give 1 <= dH <= d")
        return np.eye(k, d)
    found = as_finite(given, "subspace H")
    if found.ndim != 2 or not 1 <= len(found) <= found.shape[1]:
        raise InputError(
            f"subspace H of shape {found.shape}; give orthonormal rows (dH, d), or the pair (d, dH) of first axes"
        )
    defect = float(np.max(np.abs(found @ found.T - np.eye(len(found)))))
    if defect > 1e-12:
        raise InputError(f"the rows of H are not orthonormal: off by {defect:.3g}")
    return found.copy()
