"""Orthonormal Jacobi polynomials, Gauss rules, and rules of the uniform law on spheres and of their coordinates.

All weights are normalised to probabilities: the polynomials are orthonormal for the law of density proportional to
(1-x)^a (1+x)^b on [-1, 1], and the weights of every rule are positive and sum to one.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.errors import InputError

FloatArray = NDArray[np.float64]
_POINTS = 5_000_000
"""A product rule on a sphere is refused beyond so many points."""


def jacobi_recurrence(count: int, a: float, b: float) -> tuple[FloatArray, FloatArray]:
    """Coefficients of the three-term recurrence x p_n = s_n p_{n+1} + c_n p_n + s_{n-1} p_{n-1}.

    c_n = (b^2-a^2)/((2n+a+b)(2n+a+b+2)), s_{n-1}^2 = 4n(n+a)(n+b)(n+a+b) / ((2n+a+b)^2 (2n+a+b+1)(2n+a+b-1)); at n = 0
    and n = 1 both are written out, where the general form is 0/0 for a+b = 0 and a+b = -1. O(count).

    Args:
        count: how many of each, at least 1.
        a: exponent at 1, above -1.
        b: exponent at -1, above -1.

    Returns:
        c (count,) and s (count,).

    Raises:
        InputError: for exponents of no finite law, or count < 1.

    >>> jacobi_recurrence(2, -0.5, -0.5)[1].tolist()  # Chebyshev: 1/sqrt(2), then 1/2
    [0.7071067811865476, 0.5]
    """
    if not (a > -1 and b > -1):
        raise InputError(f"Jacobi exponents {a:g}, {b:g}; both must be above -1")
    if count < 1:
        raise InputError(f"{count} coefficients; ask for at least one")
    n = np.arange(count, dtype=float)
    total = 2 * n + a + b
    centre, square = np.empty(count), np.empty(count)
    centre[0] = (b - a) / (a + b + 2)
    square[0] = 4 * (1 + a) * (1 + b) / ((a + b + 2) ** 2 * (a + b + 3))
    centre[1:] = (b * b - a * a) / (total[1:] * (total[1:] + 2))
    k, upper = n[1:] + 1, total[1:] + 2
    square[1:] = 4 * k * (k + a) * (k + b) * (k + a + b) / (upper**2 * (upper + 1) * (upper - 1))
    return centre, np.sqrt(square)


def jacobi_values(count: int, a: float, b: float, x: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The first orthonormal Jacobi polynomials p_0, ..., p_{count-1} and their derivatives at points.

    Orthonormal for the probability law of density proportional to (1-x)^a (1+x)^b, with p_n(1) > 0. By the
    three-term recurrence and its derivative, O(count) vector operations.

    Args:
        count: how many polynomials.
        a: exponent at 1, above -1.
        b: exponent at -1, above -1.
        x: (m,) points in [-1, 1].

    Returns:
        values (count, m) and derivatives (count, m).

    Raises:
        InputError: as `jacobi_recurrence`.

    >>> jacobi_values(2, 0.0, 0.0, [1.0])[0].ravel().tolist()  # Legendre: 1, sqrt(3) x
    [1.0, 1.7320508075688774]
    """
    points = np.atleast_1d(np.asarray(x, float))
    centre, step = jacobi_recurrence(count, a, b)
    values, slopes = np.zeros((count, *points.shape)), np.zeros((count, *points.shape))
    values[0] = 1.0
    for n in range(count - 1):
        shifted = points - centre[n]
        np.multiply(shifted, values[n], out=values[n + 1])
        np.multiply(shifted, slopes[n], out=slopes[n + 1])
        slopes[n + 1] += values[n]
        if n:
            values[n + 1] -= step[n - 1] * values[n - 1]
            slopes[n + 1] -= step[n - 1] * slopes[n - 1]
        values[n + 1] /= step[n]
        slopes[n + 1] /= step[n]
    return values, slopes


@functools.lru_cache(maxsize=256)
def _gauss_jacobi(count: int, a: float, b: float) -> tuple[FloatArray, FloatArray]:
    from scipy.linalg import eigh_tridiagonal

    centre, step = jacobi_recurrence(count, a, b)
    nodes = eigh_tridiagonal(centre, step[:-1], eigvals_only=True) if count > 1 else centre.copy()
    # two Newton steps on p_count = 0 repair what the eigenvalues lost near the ends
    for _ in range(2):
        values, slopes = jacobi_values(count + 1, a, b, nodes)
        nodes = np.clip(nodes - values[count] / slopes[count], -1.0, 1.0)
    values, _ = jacobi_values(count, a, b, nodes)
    weights = 1.0 / np.einsum("nm,nm->m", values, values)
    weights /= weights.sum()
    nodes.flags.writeable = weights.flags.writeable = False
    return nodes, weights


def gauss_jacobi(count: int, a: float, b: float) -> tuple[FloatArray, FloatArray]:
    """Gauss nodes and probability weights for the density proportional to (1-x)^a (1+x)^b on [-1, 1].

    Exact for polynomials of degree 2 count - 1. Eigenvalues of the Jacobi matrix (Golub-Welsch), polished by Newton;
    weights 1 / sum_n p_n(x)^2. O(count^2). The arrays are shared and read-only.

    Returns:
        increasing nodes (count,) and weights (count,).

    Raises:
        InputError: as `jacobi_recurrence`.

    >>> nodes, weights = gauss_jacobi(2, 0.0, 0.0)
    >>> round(3 * float(weights @ nodes**2), 12)
    1.0
    """
    jacobi_recurrence(count, a, b)
    return _gauss_jacobi(int(count), float(a), float(b))


def first_coordinate_rule(n: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Rule for the first coordinate of U(S^{n-1}): points -1, 1 for n = 1; equal angles for n = 2; else Gauss-Jacobi.

    The density is proportional to (1-s^2)^((n-3)/2). Exact for polynomials of degree 2 count - 1 (any, for n = 1).
    For n = 2 the points cos((k + 1/2) pi / count) are the trapezoid rule of the circle with 2 count points.

    Args:
        n: dimension of the space, at least 1.
        count: number of points (2 for n = 1 whatever is asked for).

    Returns:
        increasing points (k,) and weights (k,).

    Raises:
        InputError: for n < 1 or count < 1.

    >>> first_coordinate_rule(1, 7)
    (array([-1.,  1.]), array([0.5, 0.5]))
    """
    if n < 1:
        raise InputError(f"a sphere in dimension {n}; give a dimension of at least 1")
    if count < 1:
        raise InputError(f"a rule of {count} points; ask for at least one")
    if n == 1:
        return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    if n == 2:
        angles = (np.arange(count)[::-1] + 0.5) * (np.pi / count)
        return np.cos(angles), np.full(count, 1.0 / count)
    return gauss_jacobi(count, (n - 3) / 2, (n - 3) / 2)


def sphere_rule(n: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Rule for U(S^{n-1}): the two points for n = 1, 2 count equal angles for n = 2, else a product of these.

    x = (s, sqrt(1-s^2) y) with s by `first_coordinate_rule` and y on S^{n-2} by this rule again. Symmetric under
    x -> -x, weights positive, exact for polynomials of degree 2 count - 1; 2 count^(n-1) points for n >= 2.

    Args:
        n: dimension of the space.
        count: points along each axis.

    Returns:
        points (k, n) and weights (k,).

    Raises:
        InputError: for n < 1, count < 1, or more than five million points.

    >>> points, weights = sphere_rule(3, 4)
    >>> len(points), round(3 * float(weights @ points[:, 1] ** 2), 12)
    (32, 1.0)
    """
    line, shares = first_coordinate_rule(n, count)
    if n == 1:
        return line[:, None], shares
    if 2 * count ** (n - 1) > _POINTS:
        raise InputError(f"a product rule of {2 * count ** (n - 1)} points on the sphere of R^{n}; ask for fewer")
    if n == 2:
        angles = (np.arange(2 * count) + 0.5) * (np.pi / count)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1), np.full(2 * count, 0.5 / count)
    below, masses = sphere_rule(n - 1, count)
    radius = np.sqrt((1.0 - line) * (1.0 + line))
    points = np.empty((len(line), len(below), n))
    points[:, :, 0] = line[:, None]
    points[:, :, 1:] = radius[:, None, None] * below
    return points.reshape(-1, n), np.outer(shares, masses).ravel()
