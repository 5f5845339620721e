"""The ReLU kernel averaged over the directions orthogonal to H, on the sphere of (y, rho) = (u_H, |u_perp|).

A neuron direction u in S^{d-1} is known up to the rotations of H-perp by q = (y, rho) in S^{dH}, rho >= 0. In this
chart nothing is singular: neither where u lies in H (rho = 0) nor where it is orthogonal to H (y = 0). Averaged over
those rotations the kernel E[relu(u.x) relu(u'.x)], x ~ U(S^{d-1}), is (arXiv 2211.08771, Lemma 3.4.2)

    K(q, q') = (1/d) E_s kap(y.y' + s rho rho'),   kap(c) = (sqrt(1-c^2) + (pi - arccos c) c) / (2 pi),

with s the first coordinate of U(S^{dp-1}), dp = d - dH.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.jacobi import gauss_jacobi

FloatArray = NDArray[np.float64]
_TILE = 48
"""Rows and columns of the Gram matrix treated at once; with the side rule this stays in the cache."""
_MOST = 160
_SMOOTH = {1: (1.0,), 2: (1.0, 0.5), 3: (1.0, 1.125, 0.375)}
"""By order k: the polynomial h of 1 - g(x) = (1-x)^k h(x), for the odd g with g' proportional to (1-x^2)^(k-1)."""


def side_rule(dp: int, tolerance: float = 1e-10) -> tuple[FloatArray, FloatArray]:
    """Points and probability weights for s, the first coordinate of U(S^{dp-1}), made for this kernel.

    The kernel as a function of s is smooth but for a branch point (1-s)^{3/2} that comes close to s = 1 when two
    neurons come close to each other. So s = g(x), an odd polynomial with 1 - g(x) = (1-x)^k h(x), k = 3 for dp < 8,
    2 for dp < 32 and 1 beyond, and Gauss-Jacobi in x: the branch point is all but gone. As few points are taken as keep
    values and tangential forces of a fixed set of pairs, from far apart to 1e-7 and 0, within the tolerance.

    Args:
        dp: dimension of H-perp, at least 1; for dp = 1 the two points -1 and 1 are exact.
        tolerance: absolute error of d K and of its tangential gradient; at least 1e-13 is aimed at.

    Returns:
        increasing points (n,) and weights (n,), read-only.

    Raises:
        InputError: for dp < 1.

    Complexity: O(n^3) once for each dp and tolerance; n = 26 for dp = 2, 20 for dp = 3, 8 for dp = 10, at 1e-10.

    >>> side_rule(1)
    (array([-1.,  1.]), array([0.5, 0.5]))
    >>> points, weights = side_rule(4)
    >>> round(4 * float(weights @ points**2), 12)
    1.0
    """
    if dp < 1:
        raise InputError(f"H-perp of dimension {dp}; at least one direction must be left to average over")
    if dp == 1:
        return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    return _chosen_rule(int(dp), max(float(tolerance), 1e-13))


def graded_rule(dp: int, count: int, order: int) -> tuple[FloatArray, FloatArray]:
    """The rule of `side_rule` with a given number of points and order k of the substitution (1, 2 or 3), dp >= 2.

    Gauss-Jacobi of exponent k(dp-1)/2 - 1 in x; what the density of s = g(x) has beyond (1-x^2) to that power is
    smooth and goes into the weights.

    >>> points, weights = graded_rule(3, 6, 2)
    >>> round(float(weights @ points**2), 4)
    0.3333
    """
    exponent = order * (dp - 1) / 2 - 1
    x, weights = gauss_jacobi(count, exponent, exponent)
    right, left = np.polynomial.polynomial.polyval(np.stack([x, -x]), _SMOOTH[order])
    density = weights * (right * left) ** ((dp - 3) / 2)
    # s from the nearer end: 1 - |s| keeps its relative accuracy
    points = np.where(x < 0, -1.0, 1.0) * (1.0 - (1.0 - np.abs(x)) ** order * np.where(x < 0, left, right))
    return points, density / density.sum()


@functools.lru_cache(maxsize=64)
def _chosen_rule(dp: int, tolerance: float) -> tuple[FloatArray, FloatArray]:
    order = 3 if dp < 8 else 2 if dp < 32 else 1
    truth = _probe(*graded_rule(dp, _MOST, 3))
    found = graded_rule(dp, _MOST, 3)
    for count in range(4, 80, 2):
        rule = graded_rule(dp, count, order)
        if np.max(np.abs(_probe(*rule) - truth)) <= tolerance:
            found = rule
            break
    for array in found:
        array.flags.writeable = False
    return found


def _probe(points: FloatArray, weights: FloatArray) -> FloatArray:
    """Values and tangential forces of pairs of all distances, by one rule."""
    first = np.linspace(0.0, np.pi / 2, 33)[1:, None, None]
    second = first + np.concatenate([[0.0], np.geomspace(1e-7, 1.0, 29)])[:, None]
    turn = np.array([0.0, 1e-3, 0.05, 1.0])
    first, second, turn = (a.ravel() for a in np.broadcast_arrays(first, second, turn))
    across = np.sin(first) * np.abs(np.sin(second))
    along = np.cos(first) * np.cos(second) * np.cos(turn)
    value, d_along, d_across = _averages(along, across, points, weights)
    y = np.cos(second) * np.cos(turn)
    polar = d_across * np.cos(first) * np.abs(np.sin(second)) - d_along * np.sin(first) * y
    return np.stack([value, polar, d_along * np.cos(second) * np.sin(turn)])


def _averages(
    along: FloatArray, across: FloatArray, points: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E_s e(A + sB) and its derivatives in A and B; e(c) = (sqrt(1-c^2) + c arcsin c)/(2 pi) = kap(c) - c/4.

    e is even, and e' = arcsin/(2 pi). Near c = 1 arcsin is good to sqrt(eps) only, but there the tangential force has
    the factor sqrt(1-c) from the difference of the neurons, and the value the factor 1-c: both stay good to eps.
    """
    # rounding must not push |A| + |s| B beyond 1
    along = np.clip(along, -1.0, 1.0)
    cosine = points[:, None] * np.minimum(across, 1.0 - np.abs(along))
    cosine += along
    slope = np.arcsin(cosine)
    np.multiply(cosine, cosine, out=cosine)
    np.sqrt(np.maximum(1.0 - cosine, 0.0, out=cosine), out=cosine)
    scaled = weights / (2 * np.pi)
    d_along, d_across = np.stack([scaled, scaled * points]) @ slope
    return scaled @ cosine + along * d_along + across * d_across, d_along, d_across


def kernel_potential(
    points: FloatArray, loads: FloatArray, d: int, rule: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """sum_j w_j K(q_i, q_j) and its gradient in q_i: what a measure on S^{dH} exerts on its own particles.

    dK/dy = (1/d) E kap' y', dK/drho = (1/d) E kap' s rho'. Only the part tangential to the sphere means something.
    The Gram matrix is symmetric: tiles above the diagonal serve twice.

    Args:
        points: (m, dH+1), unit rows with nonnegative last entry.
        loads: (m,), signed masses.
        d: dimension of the inputs.
        rule: of `side_rule(d - dH)`.

    Returns:
        values (m,) and gradients (m, dH+1).

    Complexity: O(m^2 n / 2) arcsines for n side points, O(tile^2 n) memory.

    >>> south, east = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> value, force = kernel_potential(south, np.ones(1), 3, side_rule(2))
    >>> round(float(value[0]) * 3, 12)  # kap(1) = 1/2
    0.5
    """
    m = len(points)
    flat, height = np.ascontiguousarray(points[:, :-1]), np.abs(points[:, -1])
    values, gradients = np.zeros(m), np.zeros(points.shape)
    pieces = [slice(k[0], k[-1] + 1) for k in np.array_split(np.arange(m), -(-m // _TILE)) if len(k)]
    for i, rows in enumerate(pieces):
        for columns in pieces[i:]:
            along, across = flat[rows] @ flat[columns].T, np.outer(height[rows], height[columns])
            shape = along.shape
            value, d_along, d_across = (
                a.reshape(shape) for a in _averages(along.ravel(), across.ravel(), rule[0], rule[1])
            )
            value = value + 0.25 * along
            d_along = d_along + 0.25
            sides = [(rows, columns, value, d_along, d_across)]
            if rows != columns:
                sides.append((columns, rows, value.T, d_along.T, d_across.T))
            for into, of, v, a, b in sides:
                values[into] += v @ loads[of]
                gradients[into, :-1] += a @ (loads[of, None] * flat[of])
                gradients[into, -1] += b @ (loads[of] * height[of])
    return values / d, gradients / d


def kernel_gram(left: FloatArray, right: FloatArray, d: int, rule: tuple[FloatArray, FloatArray]) -> FloatArray:
    """K(q_i, q'_j) for all pairs: (m, dH+1) and (n, dH+1) -> (m, n). O(m n) times the number of side points.

    >>> rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> (3 * kernel_gram(rows, rows, 3, side_rule(2))).round(12) + 0.0
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    along = left[:, :-1] @ right[:, :-1].T
    across = np.abs(np.outer(left[:, -1], right[:, -1]))
    gram = np.empty(along.shape)
    for k in range(len(gram)):  # row by row: the side rule multiplies the memory
        gram[k] = _averages(along[k], across[k], rule[0], rule[1])[0]
    return (gram + 0.25 * along) / d
