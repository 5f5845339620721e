"""The kernel phi~ at single angles, and the network that particles on the angle represent.

phi~(theta; phi) is the mean of relu(b.x) over all unit b at angle theta to H, for a unit input x at angle phi. Its
series in harmonics diverges slowly near the ends; here it is a one-dimensional integral, good to about 1e-14.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_floats
from fiberscope.errors import InputError
from fiberscope.meanfield.angles.system import check_dimensions

FloatArray = NDArray[np.float64]
_CHUNK = 1 << 20
"""Values of the inner mean held at once (8 MiB an array)."""


def angle_kernel(d: int, dH: int, theta: ArrayLike, phi: ArrayLike) -> FloatArray:
    """phi~(theta; phi) = 1/2 E|r A + s B|, A = cos theta cos phi, B = sin theta sin phi; the arguments broadcast.

    r and s are first coordinates of independent uniform points of the unit spheres in dimension dH and dp = d - dH.
    The mean over the coordinate of the larger sphere is a closed form, `mean_of_shift`; the other is integrated with
    Gauss nodes on both sides of the kink, graded towards it. For dH = 1 and for dp = 1 there is nothing to integrate.
    O(32 + sqrt(2d)) values of the closed form for each entry. arXiv 2211.08771, Lemma C.2.

    Args:
        d: dimension of the inputs.
        dH: dimension of H.
        theta: angles of neurons in [0, pi/2].
        phi: angles of inputs in [0, pi/2].

    Raises:
        InputError: unless 1 <= dH < d and the angles are in [0, pi/2].

    >>> angle_kernel(2, 1, 0.0, 0.0).tolist()  # two neurons +-e_1, input e_1: (relu(1) + relu(-1)) / 2
    0.5
    """
    check_dimensions(d, dH)
    first, second = checked_angles(theta), checked_angles(phi)
    inner, outer = np.sin(first) * np.sin(second), np.cos(first) * np.cos(second)
    small, large = dH, d - dH
    if dH > d - dH:  # the closed form is smoother in the larger dimension
        inner, outer, small, large = outer, inner, d - dH, dH
    shape = inner.shape
    a, b = outer.ravel(), inner.ravel()
    nodes = 32 + math.isqrt(2 * d)  # the law of r narrows like d^(-1/2)
    step = max(1, _CHUNK // nodes)
    parts = [_mean(small, large, a[k : k + step], b[k : k + step], nodes) for k in range(0, len(a), step)]
    return 0.5 * np.concatenate(parts).reshape(shape) if parts else np.zeros(shape)


def mean_of_shift(p: int, a: FloatArray, b: FloatArray) -> FloatArray:
    """E|a + b s| for a, b >= 0 and s the first coordinate of a uniform point of the unit sphere in dimension p.

    max(a, b) for p = 1. Else, with x = a/b: a for x >= 1, and for x < 1
    a I(x^2; 1/2, (p-1)/2) + 2 b c/(p-1) (1-x^2)^((p-1)/2), c = Gamma(p/2) / (sqrt(pi) Gamma((p-1)/2)).

    >>> mean_of_shift(3, np.array([0.0, 2.0]), np.array([1.0, 1.0])).round(12).tolist()
    [0.5, 2.0]
    """
    if p == 1:
        return np.maximum(a, b)
    from scipy.special import betainc

    density = math.exp(math.lgamma(p / 2) - math.lgamma((p - 1) / 2)) / math.sqrt(math.pi)
    squares = np.divide(a, b, out=np.ones_like(a), where=b > a) ** 2
    share = betainc(0.5, (p - 1) / 2, squares)
    result: FloatArray = a * share + b * (2.0 * density / (p - 1)) * (1.0 - squares) ** ((p - 1) / 2)
    return result


def _mean(small: int, large: int, a: FloatArray, b: FloatArray, nodes: int) -> FloatArray:
    """E|r a + s b| with r from the smaller sphere."""
    if small == 1:
        return mean_of_shift(large, a, b)
    graded, plain = _rules(nodes)
    # r = sin v of density ~ cos^(small-2) v; the inner mean has its kink at sin v = b/a
    safe = np.where(a > b, a, 1.0)
    kink = np.where(a > b, np.arcsin(np.minimum(np.where(a > b, b, 1.0) / safe, 1.0)), math.pi / 2)[:, None]
    norm = 2.0 * math.exp(math.lgamma(small / 2) - math.lgamma((small - 1) / 2)) / math.sqrt(math.pi)
    angles = kink * graded[0]
    values = mean_of_shift(large, a[:, None] * np.sin(angles), np.broadcast_to(b[:, None], angles.shape))
    total = (kink * graded[1] * np.cos(angles) ** (small - 2) * values).sum(axis=1)
    rest = math.pi / 2 - kink
    angles = kink + rest * plain[0]
    total += a * (rest * plain[1] * np.cos(angles) ** (small - 2) * np.sin(angles)).sum(axis=1)
    result: FloatArray = norm * total
    return result


@functools.lru_cache(maxsize=16)
def _rules(nodes: int) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Rules on [0, 1]: one graded towards 1, where the integrand may have a branch point, and a plain one."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    half = (points + 1.0) / 2.0
    power = 3
    graded = 1.0 - (1.0 - half) ** power, weights / 2.0 * power * (1.0 - half) ** (power - 1)
    return graded, (half, weights / 2.0)


def network_values(d: int, dH: int, angles: FloatArray, loads: FloatArray, phi: ArrayLike) -> FloatArray:
    """f(x) = sum_j eps_j c_j phi~(theta_j; phi) on unit inputs at angles phi to H, for T states at once.

    Args:
        d: dimension of the inputs.
        dH: dimension of H.
        angles: (T, m), theta_j.
        loads: (T, m), eps_j c_j.
        phi: (k,).

    Returns:
        (T, k).

    >>> network_values(2, 1, np.zeros((1, 1)), np.full((1, 1), 2.0), [0.0]).tolist()  # alpha delta_0 is |x_H|
    [[1.0]]
    """
    inputs = np.atleast_1d(checked_angles(phi))
    rows = [load @ angle_kernel(d, dH, angle[:, None], inputs) for angle, load in zip(angles, loads, strict=True)]
    return np.stack(rows) if rows else np.zeros((0, len(inputs)))


def angles_of(points: ArrayLike, d: int, dH: int, basis: ArrayLike | None = None) -> tuple[FloatArray, FloatArray]:
    """Norms of inputs and their angles to H, (n, d) -> (n,), (n,); H is spanned by the first dH axes unless given.

    Args:
        points: (n, d).
        d: dimension of the inputs.
        dH: dimension of H.
        basis: (dH, d), orthonormal rows that span H.

    Raises:
        InputError: for shapes that do not fit, or rows that are not orthonormal.

    >>> angles_of([[3.0, 4.0]], 2, 1)[0]
    array([5.])
    """
    inputs = np.atleast_2d(np.asarray(points, float))
    if inputs.ndim != 2 or inputs.shape[1] != d or not np.isfinite(inputs).all():
        raise InputError(f"inputs of shape {inputs.shape} in dimension {d}; give finite numbers of shape (n, {d})")
    rows = np.eye(d)[:dH] if basis is None else np.asarray(basis, float)
    if rows.shape != (dH, d):
        raise InputError(f"a basis of H of shape {rows.shape}; give ({dH}, {d})")
    if np.abs(rows @ rows.T - np.eye(dH)).max() > 1e-9:
        raise InputError("the rows of the basis of H are not orthonormal")
    along = inputs @ rows.T
    across = np.linalg.norm(inputs - along @ rows, axis=1)
    length = np.linalg.norm(along, axis=1)
    return np.hypot(length, across), np.arctan2(across, length)


def checked_angles(angles: ArrayLike) -> FloatArray:
    """Angles as an array.

    Raises:
        InputError: unless they lie in [0, pi/2].
    """
    found: FloatArray = as_floats(angles, "angles")
    if not ((found >= 0) & (found <= math.pi / 2)).all():
        raise InputError("angles to H lie between 0 and pi/2 = 1.5707963...")
    return found
