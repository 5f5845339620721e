"""Functions of x_H on the sphere of R^d in spherical harmonics: polynomials of x_H, orthogonal on the ball of H.

A function of x_H alone has harmonics that are polynomials in y = x_H, orthogonal for the law of x_H, whose density is
proportional to (1-|y|^2)^(dp/2-1) on the ball, dp = d - dH. In degree n the ReLU acts on all of them by one factor
lam_n (Funk-Hecke), so E[f(x_H) relu(u.x)] = sum_n lam_n (P_n f)(u) is again a polynomial of u_H: smooth, even where a
quadrature of the expectation would have kinks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.jacobi import gauss_jacobi, jacobi_recurrence, sphere_rule
from fiberscope.meanfield.harmonics.kernels import relu_eigenvalues

FloatArray = NDArray[np.float64]
_LEVELS = (4, 8, 16, 32, 64, 128, 256)
_FUNCTIONS = 2000
_POINTS = 1_000_000
_CHUNK = 1 << 22


class BallHarmonics:
    """Orthonormal polynomials on the ball for the law of x_H: those of degree 1 and of even degree up to `degree`.

    P_a(y) = prod_j r_j^(a_j) p_(a_j)(y_j / r_j), r_j^2 = 1 - y_1^2 - ... - y_(j-1)^2, with p the orthonormal Gegenbauer
    polynomials for (1-s^2)^(e_j + k_j), e_j = (d-2-j)/2, k_j = a_(j+1) + ... + a_dH. In homogeneous form
    C_n(y, r^2) = r^n p_n(y/r) the recurrence y C_n = s_n C_(n+1) + s_(n-1) r^2 C_(n-1) has no singularity.

    Args:
        dH: dimension of H.
        d: dimension of the inputs, above dH.
        degree: highest degree.

    Attributes:
        degrees: (K,), the degree of each.

    >>> round(float(BallHarmonics(1, 3, 2).values(np.array([[1.0]]))[1, 0]) ** 2, 12)  # sqrt(3) y for the uniform law
    3.0
    """

    def __init__(self, dH: int, d: int, degree: int) -> None:
        self.dH, self.d, self.degree = dH, d, degree
        self._powers = np.array(
            [a for a in _multi_indices(dH, degree) if sum(a) == 1 or sum(a) % 2 == 0], dtype=np.int64
        ).reshape(-1, dH)
        self.degrees = self._powers.sum(axis=1)
        after = self.degrees[:, None] - np.cumsum(self._powers, axis=1)
        self._after = after
        self._steps, self._scales = [], []
        for j in range(dH):
            most = 0 if j == dH - 1 else degree
            exponent = (d - 3 - j) / 2
            self._steps.append(
                np.stack([jacobi_recurrence(degree + 1, exponent + k, exponent + k)[1] for k in range(most + 1)])
            )
            norms = [math.exp((_log_mass(exponent) - _log_mass(exponent + k)) / 2) for k in range(most + 1)]
            self._scales.append(np.array(norms))

    def values(self, y: FloatArray) -> FloatArray:
        """All of them at points (m, dH): (K, m). O(K m dH)."""
        rest = _rests(y)
        product = np.ones((len(self._powers), len(y)))
        for j in range(self.dH):
            product *= self._tables(j, y[:, j], rest[j], slopes=False)[0][self._powers[:, j], self._after[:, j]]
        return product

    def combination(self, coefficients: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """sum_a c_a P_a and its gradient in y: (K,), (m, dH) -> (m,), (m, dH). O(K m dH^2)."""
        rest = _rests(y)
        factors = [
            [t[self._powers[:, j], self._after[:, j]] for t in self._tables(j, y[:, j], rest[j])]
            for j in range(self.dH)
        ]
        gradient = np.zeros_like(y)
        for j in range(self.dH):
            others = np.ones_like(factors[0][0])
            for i in range(self.dH):
                if i != j:
                    others = others * factors[i][0]
            gradient[:, j] += np.einsum("k,km,km->m", coefficients, factors[j][1], others)
            by_rest = np.einsum("k,km,km->m", coefficients, factors[j][2], others)
            gradient[:, :j] -= 2.0 * y[:, :j] * by_rest[:, None]
        whole = coefficients @ math.prod((f[0] for f in factors[1:]), start=factors[0][0])
        return whole, gradient

    def _tables(self, j: int, x: FloatArray, rest: FloatArray, slopes: bool = True) -> tuple[FloatArray, ...]:
        """C_n and its derivatives in y_j and r_j^2, by (n, k): (degree+1, k, m) each."""
        step = self._steps[j][:, :, None]
        kinds = 3 if slopes else 1
        found = np.zeros((kinds, self.degree + 1, len(step), len(x)))
        found[0, 0] = self._scales[j][:, None]
        for n in range(self.degree):
            ahead = np.multiply(x, found[:, n], out=found[:, n + 1])
            if slopes:
                ahead[1] += found[0, n]
            if n:
                below = rest * found[:, n - 1]
                if slopes:
                    below[2] += found[0, n - 1]
                below *= step[:, n - 1]
                ahead -= below
            ahead /= step[:, n]
        return tuple(found)


class BallExpansion:
    """The potential E[f(x_H) relu(u.x)] of any function f on the ball of H, as a polynomial of u_H.

    Coefficients by a rule of the ball that is smooth along rays, so that a kink at the origin does no harm; other kinks
    of f make the rule converge slowly, and the error says so. The degree is doubled until the error is below the
    tolerance, or the polynomials (2000) or the points (a million) become too many.

    Args:
        function: values at points (n, dH) -> (n,).
        dH: dimension of H.
        d: dimension of the inputs.
        tolerance: relative to sqrt(E f^2).

    Attributes:
        degree: what was reached.
        error: estimate of the largest error of the potential: what the last quarter of the degrees adds, and the change
            of the coefficients when the rule is made finer.
        second_moment: E[f^2] by the finer rule.

    Raises:
        InputError: if f gives other than finite numbers, one a point, or dH is too large for a rule.

    Complexity: O(K n) for K polynomials and n points of the rule.

    >>> square = BallExpansion(lambda y: y[:, 0] ** 2, 1, 3, 1e-12)  # = 1/3 + P_2: lam_0/3 + lam_2 (1 - 1/3) at u = e_1
    >>> value, gradient = square.potential(np.array([[1.0, 0.0]]))
    >>> bool(abs(value[0] - (0.25 / 3 + 0.0625 * 2 / 3)) < 1e-14)
    True
    """

    degree: int = 0
    error: float = math.inf
    second_moment: float = 0.0

    def __init__(self, function: Callable[[FloatArray], FloatArray], dH: int, d: int, tolerance: float) -> None:
        for degree in _LEVELS:
            radial = degree + (d - dH) // 4 + 8
            angular = (4 if dH == 2 else 1) * degree + degree // 2 + 1
            finer = (radial + 3, angular + angular // 3 + 1)
            if 2 * finer[1] ** (dH - 1) * finer[0] > _POINTS or math.comb(degree + dH, dH) > 2 * _FUNCTIONS:
                break
            basis = BallHarmonics(dH, d, degree)
            even = relu_eigenvalues(d, degree // 2 + 1)
            lams = np.where(basis.degrees == 1, 0.5 / d, even[basis.degrees // 2])
            rough, _ = _coefficients(function, basis, radial, angular)
            fine, self.second_moment = _coefficients(function, basis, *finer)
            self._basis, self._coefficients, self.degree = basis, lams * fine, degree
            tail = np.where(basis.degrees > 0.75 * degree, self._coefficients, 0.0)
            self.error = _largest(basis, tail) + _largest(basis, lams * (fine - rough))
            if self.error <= tolerance * math.sqrt(max(self.second_moment, 1e-300)):
                break
        if not self.degree:
            raise InputError(
                f"no quadrature for a general function on H of dimension {dH}; give a Teacher, or a target on R^{d}"
            )

    def potential(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (m,) and gradients (m, dH+1) at q = (u_H, |u_perp|): zero in the last entry, as |q| = 1 is used up."""
        value, gradient = self._basis.combination(self._coefficients, np.ascontiguousarray(points[:, :-1]))
        return value, np.concatenate([gradient, np.zeros((len(points), 1))], axis=1)


def _coefficients(
    function: Callable[[FloatArray], FloatArray], basis: BallHarmonics, radial: int, angular: int
) -> tuple[FloatArray, float]:
    """E[f P_a] for all polynomials of the basis, and E[f^2]."""
    line, shares = gauss_jacobi(radial, (basis.d - basis.dH) / 2 - 1, basis.dH - 1)
    shares = shares * ((3.0 + line) / 2) ** ((basis.d - basis.dH) / 2 - 1)
    directions, masses = sphere_rule(basis.dH, angular)
    points = ((1.0 + line[:, None, None]) / 2 * directions).reshape(-1, basis.dH)
    loads = np.outer(shares / shares.sum(), masses).ravel()
    seen = np.asarray(function(points), float)
    if seen.shape != loads.shape or not np.isfinite(seen).all():
        raise InputError(f"the target gave values of shape {seen.shape} at {len(points)} points, or not finite ones")
    moment = float(loads @ seen**2)
    loads *= seen
    found = np.zeros(len(basis.degrees))
    rows = max(1, _CHUNK // ((basis.degree + 1) ** 2 + len(found)))
    for begin in range(0, len(points), rows):
        part = slice(begin, begin + rows)
        found += basis.values(points[part]) @ loads[part]
    return found, moment


def _largest(basis: BallHarmonics, coefficients: FloatArray) -> float:
    """Largest sum of |degree n part| over points on and inside the sphere of H."""
    directions, _ = sphere_rule(basis.dH, 7 if basis.dH <= 3 else 2)
    axes = np.concatenate([np.eye(basis.dH), -np.eye(basis.dH), directions])
    terms = coefficients[:, None] * basis.values(np.concatenate([axes, 0.6 * axes]))
    parts = np.zeros((basis.degree + 1, terms.shape[1]))
    np.add.at(parts, basis.degrees, terms)
    return float(np.max(np.sum(np.abs(parts), axis=0)))


def _rests(y: FloatArray) -> list[FloatArray]:
    """r_j^2 for each j."""
    squares = 1.0 - np.cumsum(y**2, axis=1)
    return [np.ones(len(y)), *np.maximum(squares.T[:-1], 0.0)]


def _multi_indices(dH: int, degree: int) -> list[tuple[int, ...]]:
    """Those of sum at most `degree`, by degree."""
    spots = itertools.combinations(range(degree + dH), dH)
    found = [tuple(b - a - 1 for a, b in zip((-1, *s), s, strict=False)) for s in spots]
    return sorted(found, key=lambda a: (sum(a), a))


def _log_mass(exponent: float) -> float:
    """Log of the integral of (1-s^2)^e over [-1, 1]."""
    return math.lgamma(exponent + 1) - math.lgamma(exponent + 1.5) + math.log(math.pi) / 2
