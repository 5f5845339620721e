"""Closed forms of the ReLU on the sphere: its eigenvalues, the arc-cosine kernel and the gradient of it.

Inputs are x ~ U(S^{d-1}) throughout; a Gaussian input of covariance I/d gives the same kernel of degree one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.errors import InputError

FloatArray = NDArray[np.float64]
_CHUNK = 1 << 21
"""Entries of the Gram matrix held at once (16 MiB a copy)."""


def half_gamma_ratio(n: int) -> float:
    """Gamma((n+1)/2) / Gamma(n/2) for n >= 1, to a few units in the last place for every n.

    Where the gamma function would overflow the series of the ratio at infinity is summed; the next term is below eps.

    >>> round(half_gamma_ratio(2) ** 2 * 4 / math.pi, 14)
    1.0
    """
    if n <= 300:
        return math.gamma((n + 1) / 2) / math.gamma(n / 2)
    inverse = 2.0 / n
    series = 0.0
    for term in (-399 / 262144, -21 / 32768, 5 / 1024, 1 / 128, -1 / 8, 1.0):
        series = series * inverse + term
    return math.sqrt(n / 2) * series


def relu_eigenvalues(d: int, count: int) -> FloatArray:
    """The even eigenvalues lam_0, lam_2, lam_4, ... of the ReLU: E[Y(x) relu(u.x)] = lam_n Y(u) in degree n, |u| = 1.

    lam_0 = Gamma(d/2) / (2 sqrt(pi) Gamma((d+1)/2)), lam_{2n+2} = -(2n-1)/(2n+d+1) lam_{2n}. In odd degrees only
    lam_1 = 1/(2d) is nonzero, since relu(s) = (s + |s|)/2 (see `relu_eigenvalue`). O(count); arXiv 2211.08771.

    Args:
        d: dimension of the inputs, at least 1.
        count: how many.

    Returns:
        (count,): entry n is lam_{2n}.

    Raises:
        InputError: for d < 1 or count < 1.

    >>> relu_eigenvalues(3, 4).tolist()
    [0.25, 0.0625, -0.010416666666666666, 0.00390625]
    """
    if d < 1:
        raise InputError(f"dimension {d}; the sphere needs d >= 1")
    if count < 1:
        raise InputError(f"{count} eigenvalues; ask for at least one")
    n = np.arange(count - 1, dtype=float)
    factors = np.concatenate([[0.5 / math.sqrt(math.pi) / half_gamma_ratio(d)], -(2 * n - 1) / (2 * n + d + 1)])
    values: FloatArray = np.cumprod(factors)
    return values


def relu_eigenvalue(d: int, degree: int) -> float:
    """The eigenvalue of the ReLU on spherical harmonics of one degree (zero in odd degrees from 3 on).

    >>> relu_eigenvalue(10, 1), relu_eigenvalue(10, 3), relu_eigenvalue(3, 2)
    (0.05, 0.0, 0.0625)
    """
    if degree < 0:
        raise InputError(f"degree {degree}; degrees start at 0")
    if degree % 2:
        relu_eigenvalues(d, 1)
        return 0.5 / d if degree == 1 else 0.0
    return float(relu_eigenvalues(d, degree // 2 + 1)[-1])


def alpha_of(subspace_dimension: int) -> float:
    """The mass alpha with alpha E_{v ~ U(S(H))}[relu(v.x)] = ||x_H||: 2 sqrt(pi) Gamma((dH+1)/2) / Gamma(dH/2).

    Raises:
        InputError: for dH < 1.

    >>> alpha_of(1), round(alpha_of(3), 12)
    (2.0, 4.0)
    """
    if subspace_dimension < 1:
        raise InputError(f"a subspace of dimension {subspace_dimension}; give dH >= 1")
    return 1.0 / relu_mean(subspace_dimension)


def relu_mean(n: int) -> float:
    """E[relu(s)] for the first coordinate s of U(S^{n-1}), n >= 1: lam_0 in dimension n.

    >>> relu_mean(1), relu_mean(3)
    (0.5, 0.25)
    """
    return float(relu_eigenvalues(n, 1)[0])


def _checked(u: ArrayLike, v: ArrayLike) -> tuple[FloatArray, FloatArray]:
    left, right = np.asarray(u, float), np.asarray(v, float)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InputError(
            f"arrays of shapes {left.shape} and {right.shape}; give rows of one dimension, (m, d) and (n, d)"
        )
    return left, right


def unit_rows(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows divided by their norms, and the norms; zero rows stay zero.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))[1]
    array([5., 0.])
    """
    # scaled first: squares of tiny or huge entries would leave the range of floats
    peak = np.max(np.abs(rows), axis=1, initial=0.0)
    scale = np.where(peak > 0, peak, 1.0)
    scaled = rows / scale[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    units = scaled / np.where(norms > 0, norms, 1.0)[:, None]
    return units, norms * scale


def _half_angles(left: FloatArray, right: FloatArray) -> FloatArray:
    """Angles between unit rows, accurate near 0 and pi."""
    near = np.linalg.norm(left - right, axis=-1)
    far = np.linalg.norm(left + right, axis=-1)
    angles: FloatArray = 2.0 * np.arctan2(near, far)
    return angles


def _cap(angles: FloatArray) -> FloatArray:
    """Of the angle a: sin a + (pi - a) cos a, without cancellation near pi."""
    rest = np.pi - angles
    direct = np.sin(rest) - rest * np.cos(rest)
    square = rest * rest
    series = rest * square * (1 / 3 - square * (1 / 30 - square * (1 / 840 - square / 45360)))
    value: FloatArray = np.where(rest < 0.1, series, direct)
    return value


def arccos_value(u: ArrayLike, v: ArrayLike) -> FloatArray:
    """E[relu(u_i.x) relu(v_i.x)] of pairs of rows: |u||v| (sin a + (pi - a) cos a) / (2 pi d), a the angle.

    Accurate relatively to the angle, also near 0 and pi. O(m d); zero rows give 0.

    Args:
        u: (m, d).
        v: (m, d).

    >>> arccos_value([[1.0, 0.0]], [[1.0, 0.0]])
    array([0.25])
    """
    left, right = _checked(u, v)
    units, norms = unit_rows(left)
    others, lengths = unit_rows(right)
    value: FloatArray = norms * lengths * _cap(_half_angles(units, others)) / (2 * np.pi * left.shape[1])
    return value


def arccos_gradients(u: ArrayLike, v: ArrayLike) -> FloatArray:
    """Gradients in u_i of `arccos_value`: (|v| sin a u/|u| + (pi - a) v) / (2 pi d), (m, d).

    At u = 0 the function has no gradient and 0 is returned. O(m d).

    >>> arccos_gradients([[2.0, 0.0]], [[1.0, 0.0]])
    array([[0.25, 0.  ]])
    """
    left, right = _checked(u, v)
    units, norms = unit_rows(left)
    others, lengths = unit_rows(right)
    angles = _half_angles(units, others)
    gradient = np.sin(angles)[:, None] * units + (np.pi - angles)[:, None] * others
    live = ((norms > 0) & (lengths > 0)).astype(float)
    result: FloatArray = gradient * (live * lengths / (2 * np.pi * left.shape[1]))[:, None]
    return result


def _gram_angles(units: FloatArray, others: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cosines, sines and angles of all pairs.

    The angle itself is good to sqrt(eps) at 0 and pi only, but the kernel and its gradient depend on it there
    through a^2 and a times the difference of the rows, so that both stay good to eps.
    """
    cosines = np.clip(units @ others.T, -1.0, 1.0)
    sines = np.sqrt((1.0 - cosines) * (1.0 + cosines))
    return cosines, sines, np.arctan2(sines, cosines)


def arccos_gram(u: ArrayLike, v: ArrayLike | None = None) -> FloatArray:
    """E[relu(u_i.x) relu(v_j.x)] for all pairs of rows (v = u by default): (m, n), absolute error a few eps |u||v|.

    One matrix product, O(m n d). arXiv 2211.08771.

    Args:
        u: (m, d).
        v: (n, d).

    >>> arccos_gram([[1.0, 0.0], [-2.0, 0.0]])
    array([[0.25, 0.  ],
           [0.  , 1.  ]])
    """
    left, right = _checked(u, u if v is None else v)
    units, norms = unit_rows(left)
    others, lengths = unit_rows(right)
    cosines, sines, angles = _gram_angles(units, others)
    gram: FloatArray = (sines + (np.pi - angles) * cosines) * np.outer(norms, lengths) / (2 * np.pi * left.shape[1])
    return gram


def arccos_potential(u: ArrayLike, v: ArrayLike, weights: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """sum_j w_j E[relu(u_i.x) relu(v_j.x)] and its gradient in u_i, never holding more than a chunk of the Gram.

    Two matrix products a chunk, O(m n d) time, O(m d + n d) memory beside the chunk.

    Args:
        u: (m, d).
        v: (n, d).
        weights: (n,).

    Returns:
        values (m,) and gradients (m, d); both 0 where u_i = 0.

    >>> arccos_potential([[1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]], [1.0, 5.0])
    (array([0.25]), array([[0.25, 0.  ]]))
    """
    left, right = _checked(u, v)
    factors = np.asarray(weights, float)
    if factors.shape != (len(right),):
        raise InputError(f"weights of shape {factors.shape} for {len(right)} rows; give one number a row")
    units, norms = unit_rows(left)
    others, lengths = unit_rows(right)
    loads = factors * lengths / (2 * np.pi * left.shape[1])
    values, gradients = np.zeros(len(left)), np.zeros(left.shape)
    step = max(1, _CHUNK // max(1, len(right)))
    for begin in range(0, len(left), step):
        rows = slice(begin, begin + step)
        cosines, sines, angles = _gram_angles(units[rows], others)
        np.subtract(np.pi, angles, out=angles)
        gradients[rows] = (sines @ loads)[:, None] * units[rows] + (angles * loads) @ others
        sines += angles * cosines
        values[rows] = sines @ loads
    gradients[norms == 0] = 0.0
    return values * norms, gradients


def relu_slab(a: FloatArray, b: FloatArray, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E[relu(a + b y)] and its partial derivatives in a and b, y the first coordinate of U(S^{n-1}), b >= 0.

    E|a + b y| = a P + b Q with P = sign(a) I_{x^2}(1/2, (n-1)/2), Q = 2 lam_0(n) (1-x^2)^((n-1)/2), x = |a|/b; P and
    Q are its partial derivatives; for x >= 1 it is |a|. The incomplete beta function is a finite sum for every n.
    O(n) array operations.

    Args:
        a: any shape.
        b: the same shape, nonnegative.
        n: dimension of the sphere's space (0 where b = 0 throughout).

    Returns:
        value, derivative in a, derivative in b.

    >>> value, da, db = relu_slab(np.array([0.0]), np.array([1.0]), 3)
    >>> float(value[0]), float(da[0]), float(db[0])
    (0.25, 0.5, 0.25)
    """
    size = np.abs(a)
    inside = size < b
    x = np.where(inside, size / np.where(inside, b, 1.0), 1.0)
    rest = (1.0 - x) * (1.0 + x)
    share = np.copysign(_beta_half(x, rest, n), a)
    decay = np.where(inside, 2 * relu_mean(max(n, 1)) * rest ** (max(n - 1, 0) / 2), 0.0)
    slope_a, slope_b = (1.0 + share) / 2, decay / 2
    return slope_a * a + slope_b * b, slope_a, slope_b


def _beta_half(x: FloatArray, rest: FloatArray, n: int) -> FloatArray:
    """I_{x^2}(1/2, (n-1)/2) = P(|y| <= x) for 0 <= x <= 1, rest = 1 - x^2."""
    if n == 1:
        return (x >= 1.0).astype(float)
    if n > 128:
        from scipy.special import betainc

        beta: FloatArray = betainc(0.5, (n - 1) / 2, x * x)
        return beta
    half = (n - 1) // 2
    odd = n % 2 == 1
    total = np.zeros_like(x)
    for j in range(half - 1, -1, -1):
        # ratio of the terms j+1 and j of the finite sum
        total = 1.0 + total * rest * ((j + 0.5) / (j + 1) if odd else (j + 1) / (j + 1.5))
    if odd:
        return np.minimum(x * total, 1.0)
    value: FloatArray = (2 / np.pi) * (np.arcsin(x) + x * np.sqrt(rest) * total)
    return np.minimum(value, 1.0)
