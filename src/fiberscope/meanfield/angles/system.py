"""The dynamics of angles as a system of ordinary differential equations, and what is measured along it.

For the target ||x_H|| on the sphere of R^d the signed measure of the neurons stays a measure on the angle theta in
[0, pi/2] between a neuron and H (arXiv 2211.08771, section 4). Here it is a sum of particles, and the kernel that
couples them is summed in the even spherical harmonics that depend on theta only; nothing is sampled. The harmonics
are polynomials in cos 2 theta, so that the kernel is one fixed matrix between cosines of even multiples of theta.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count
from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.jacobi import gauss_jacobi, jacobi_values
from fiberscope.meanfield.harmonics.kernels import alpha_of, relu_eigenvalues

FloatArray = NDArray[np.float64]
_MODES = 4096
"""More harmonics are refused: their matrix alone would be 128 MiB."""
_ENTRIES = 1 << 20
"""Entries of the array of complex exponentials held at once (16 MiB)."""


class AngleSystem:
    """State y = (log c+, log c-, theta+, theta-), masses c and angles theta of particles of sign +1 and -1.

    With lam_n the eigenvalue of the ReLU in degree 2n and p_n the orthonormal Jacobi polynomial of cos 2 theta for
    the law of the angle, tau_n = sum_j eps_j c_j p_n(theta_j), the residual f* - f has the coefficients
    R_n = lam_n (alpha p_n(0) - tau_n), the potential is G = sum_n lam_n R_n p_n, the energy 1/2 sum_n R_n^2, and

        (log c_j)' = 2 eps_j G(theta_j),   theta_j' = eps_j G'(theta_j),

    the gradient flow of the energy that keeps only `modes` harmonics. Both ends of [0, pi/2] are never crossed.

    Args:
        d: dimension of the inputs.
        dH: dimension of H, 1 <= dH < d.
        modes: number of harmonics kept, at least 2.
        counts: number of particles of sign +1 and of sign -1; None for as many of both as the state has.

    Attributes:
        dimension: d.
        subspace_dimension: dH.
        modes: number of harmonics.
        counts: the particles of each sign, or None.
        alpha: the mass for which alpha delta_0 represents the target.
        eigenvalues: (modes,), lam_n.
        drive: (modes,), lam_n alpha p_n(0), the coefficients of the target.

    Raises:
        InputError: unless 1 <= dH < d and 2 <= modes <= 4096, or where so many leave the range of floats.

    >>> system = AngleSystem(4, 2, 8)
    >>> start = system.gauss_start(1)  # one particle of each sign at pi/4: f = 0, so E[R] = E||x_H|| = 2/3
    >>> system.observables(start[None])["residual_mean"].round(12).tolist()
    [0.666666666667]
    """

    def __init__(self, d: int, dH: int, modes: int, counts: tuple[int, int] | None = None) -> None:
        check_dimensions(d, dH)
        if not 2 <= as_count(modes, "modes") <= _MODES:
            raise InputError(f"{modes} modes; give at least 2 and at most {_MODES}")
        self.dimension, self.subspace_dimension, self.modes, self.counts = d, dH, modes, counts
        self.alpha = alpha_of(dH)
        self.eigenvalues = relu_eigenvalues(d, modes)
        self._matrix, at_zero = _cosine_matrix(d, dH, modes, self.eigenvalues)
        self.drive = self.alpha * at_zero
        self._multiples = 2.0 * np.arange(modes)
        self._factors = self._multiples ** np.arange(3)[:, None]
        self._back = np.ascontiguousarray(self._matrix.T)

    # -- states ------------------------------------------------------------------------------------------------

    def split(self, size: int) -> tuple[int, int]:
        """Particles of sign +1 and of sign -1 in a state of this size.

        Raises:
            InputError: for a size that does not fit.
        """
        counts = (size // 4, size // 4) if self.counts is None else self.counts
        if size != 2 * sum(counts):
            raise InputError(f"a state of size {size} for {counts[0]} + {counts[1]} particles; two numbers a particle")
        return counts

    def signs(self, size: int) -> FloatArray:
        """The signs of the particles of a state of this size, (m,)."""
        return _signs(*self.split(size))

    def pack(self, masses: ArrayLike, angles: ArrayLike) -> FloatArray:
        """The state of particles, those of sign +1 first: masses (m,) > 0, angles (m,) in [0, pi/2] -> (2m,)."""
        return np.concatenate([np.log(np.asarray(masses, float)), np.asarray(angles, float)])

    def gauss_start(self, nodes: int) -> FloatArray:
        """The starting measure by `nodes` Gauss-Jacobi nodes per sign, (4 nodes,); mass 1/2 for each sign.

        The nodes are labels of a smooth flow, so the error falls faster than any power of their number.
        """
        angles, weights = gauss_angles(self.dimension, self.subspace_dimension, nodes)
        return self.pack(np.tile(weights / 2, 2), np.tile(angles, 2))

    def quantile_start(self, nodes: int) -> FloatArray:
        """The starting measure by the middles of `nodes` parts of equal mass per sign, (4 nodes,)."""
        angles = quantile_angles(self.dimension, self.subspace_dimension, nodes)
        return self.pack(np.full(2 * nodes, 0.5 / nodes), np.tile(angles, 2))

    def graded_start(self, nodes: int) -> FloatArray:
        """The starting measure by `nodes` points per sign evenly spaced in log tan theta, (4 nodes,).

        What the flow pulls apart near 0 and pi/2 stays resolved: better than Gauss nodes for W2 and for long times
        from about 48 nodes on, worse below.
        """
        angles, weights = graded_angles(self.dimension, self.subspace_dimension, nodes)
        return self.pack(np.tile(weights / 2, 2), np.tile(angles, 2))

    # -- the equation ------------------------------------------------------------------------------------------

    def residual(self, y: FloatArray) -> FloatArray:
        """The coefficients R_n of f* - f, (modes,)."""
        half = len(y) // 2
        return self._residual(_powers(y[half:], self.modes), np.exp(y[:half]) * self.signs(len(y)))

    def _residual(self, powers: NDArray[np.complex128], loads: FloatArray) -> FloatArray:
        result: FloatArray = self.drive - self._matrix @ (powers @ loads).real
        return result

    def rate(self, t: float, y: FloatArray) -> FloatArray:
        """The time derivative of the state: (4m,) -> (4m,). Autonomous; O(m modes + modes^2)."""
        half = len(y) // 2
        signs = self.signs(len(y))
        powers = _powers(y[half:], self.modes)
        coefficients = self._back @ self._residual(powers, np.exp(y[:half]) * signs)
        both = (coefficients * self._factors[:2]) @ powers
        return np.concatenate([2.0 * signs * both[0].real, -signs * both[1].imag])

    def jacobian(self, t: float, y: FloatArray) -> FloatArray:
        """The derivative of `rate` in the state, (4m, 4m), by closed formulas. O(m^2 modes + m modes^2)."""
        half = len(y) // 2
        signs = self.signs(len(y))
        loads = np.exp(y[:half]) * signs
        powers = _powers(y[half:], self.modes)
        coefficients = self._back @ self._residual(powers, loads)
        values = self._matrix @ powers.real
        slopes = self._matrix @ (-self._multiples[:, None] * powers.imag)
        stacked = (coefficients * self._factors[1:]) @ powers
        result = np.empty((2 * half, 2 * half))
        result[:half, :half] = values.T @ values
        result[:half, half:] = values.T @ slopes
        result[half:, :half] = result[:half, half:].T
        result[half:, half:] = slopes.T @ slopes
        result *= -np.concatenate([loads, loads])
        line = np.arange(half)
        result[line, half + line] -= stacked[0].imag
        result[half + line, half + line] -= stacked[1].real
        result *= np.concatenate([2.0 * signs, signs])[:, None]
        return result

    def potential(self, residual: FloatArray, angles: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """G, G' and G'' at angles (k,), from the coefficients of the residual (modes,); three arrays (k,)."""
        powers = _powers(np.asarray(angles, float), self.modes)
        fields = ((self._back @ residual) * self._factors) @ powers
        return fields[0].real, -fields[1].imag, -fields[2].real

    # -- what is measured --------------------------------------------------------------------------------------

    def observables(self, states: FloatArray) -> dict[str, FloatArray]:
        """What is measured in states (T, 4m), each (T,).

        mass_plus and mass_minus; w2_plus and w2_minus, the W2 distances of the normalised parts to the point masses
        at 0 and at pi/2; mean_plus and mean_minus, their mean angles; mass_plus_rate and mass_minus_rate, the time
        derivatives of the masses; energy, its time derivative dissipation = -sum_j c_j (2 G^2 + G'^2);
        residual_mean = E[R], by Gauss nodes; identity_defect, what m+ - alpha = m- - E[R]/lam_0 misses.

        Args:
            states: (T, 4m).

        Complexity: O(T (m modes + modes^2)).
        """
        size = states.shape[1] // 2
        step = max(1, _ENTRIES // (size * self.modes))
        parts = [self._observed(states[k : k + step]) for k in range(0, len(states), step)]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _observed(self, states: FloatArray) -> dict[str, FloatArray]:
        size = states.shape[1] // 2
        plus, _ = self.split(states.shape[1])
        signs = self.signs(states.shape[1])
        masses, angles = np.exp(states[:, :size]), states[:, size:]
        powers = _powers(angles.ravel(), self.modes).reshape(self.modes, len(states), size).transpose(1, 0, 2)
        moments = (powers @ (masses * signs)[:, :, None]).real[:, :, 0]
        residual = self.drive - moments @ self._back
        fields = ((residual @ self._matrix)[:, None] * self._factors[:2]) @ powers
        value, slope = fields[:, 0].real, -fields[:, 1].imag
        found = {
            "mass_plus": masses[:, :plus].sum(axis=1),
            "mass_minus": masses[:, plus:].sum(axis=1),
            "mass_plus_rate": 2.0 * (masses[:, :plus] * value[:, :plus]).sum(axis=1),
            "mass_minus_rate": -2.0 * (masses[:, plus:] * value[:, plus:]).sum(axis=1),
            "energy": 0.5 * (residual * residual).sum(axis=1),
            "dissipation": -(masses * (2.0 * value * value + slope * slope)).sum(axis=1),
            "residual_mean": self._mean(residual),
        }
        for name, part, end in (("plus", slice(None, plus), 0.0), ("minus", slice(plus, None), math.pi / 2)):
            with np.errstate(invalid="ignore", divide="ignore"):  # a sign without particles has no mean
                shares = masses[:, part] / found[f"mass_{name}"][:, None]
            found[f"w2_{name}"] = np.sqrt((shares * (angles[:, part] - end) ** 2).sum(axis=1))
            found[f"mean_{name}"] = (shares * angles[:, part]).sum(axis=1)
        lowest = float(self.eigenvalues[0])
        found["identity_defect"] = (
            found["mass_plus"] - self.alpha - found["mass_minus"] + found["residual_mean"] / lowest
        )
        return found

    def _mean(self, residual: FloatArray) -> FloatArray:
        """E[R] by quadrature over the angle of the input: another way than R_0, so that the identity is a check."""
        angles, weights = gauss_angles(self.dimension, self.subspace_dimension, self.modes)
        x = np.cos(2.0 * angles)
        table, _ = jacobi_values(self.modes, *exponents(self.dimension, self.subspace_dimension), x)
        result: FloatArray = residual @ (table @ weights)
        return result


@functools.lru_cache(maxsize=64)
def _signs(plus: int, minus: int) -> FloatArray:
    found = np.repeat([1.0, -1.0], [plus, minus])
    found.flags.writeable = False
    return found


def check_dimensions(d: int, dH: int) -> None:
    """Refuse a subspace that is not a proper one.

    Raises:
        InputError: unless 1 <= dH < d.
    """
    as_count(d, "d", 1)
    if as_count(dH, "dH", 1) >= d:
        raise InputError(f"a subspace of dimension {dH} in dimension {d}; its complement must not be 0, give dH < d")


def exponents(d: int, dH: int) -> tuple[float, float]:
    """The Jacobi exponents (at cos 2 theta = 1, at -1) of the law of the angle: (dp/2 - 1, dH/2 - 1), dp = d - dH.

    >>> exponents(30, 5)
    (11.5, 1.5)
    """
    return (d - dH) / 2 - 1, dH / 2 - 1


def gauss_angles(d: int, dH: int, nodes: int) -> tuple[FloatArray, FloatArray]:
    """Gauss rule in cos 2 theta for the law of the angle between H and a point of U(S^{d-1}).

    Returns:
        increasing angles (nodes,) in (0, pi/2) and their probabilities (nodes,).

    >>> gauss_angles(4, 2, 1)[0] / np.pi
    array([0.25])
    """
    if nodes < 1:
        raise InputError(f"{nodes} nodes; at least one is needed for each sign")
    points, weights = gauss_jacobi(nodes, *exponents(d, dH))
    angles = np.arctan2(np.sqrt(1.0 - points), np.sqrt(1.0 + points))
    return angles[::-1].copy(), weights[::-1].copy()


def quantile_angles(d: int, dH: int, nodes: int) -> FloatArray:
    """The angles (i + 1/2)/nodes of the way through the law of the angle, (nodes,); cos^2 has a beta law.

    >>> quantile_angles(2, 1, 1) / np.pi
    array([0.25])
    """
    from scipy.special import betaincinv

    if nodes < 1:
        raise InputError(f"{nodes} nodes; at least one is needed for each sign")
    share = (np.arange(nodes) + 0.5) / nodes
    squares = betaincinv((d - dH) / 2, dH / 2, share)
    angles: FloatArray = np.arctan2(np.sqrt(squares), np.sqrt(1.0 - squares))
    return angles


def graded_angles(d: int, dH: int, nodes: int) -> tuple[FloatArray, FloatArray]:
    """The trapezoid rule in u = log tan theta for the law of the angle, of density ~ sin^dp cos^dH in u.

    Spacing h with nodes h = L (1/dp + 1/dH) and L = pi^2/h: what lies outside and what the rule misses of the law
    are then both of order exp(-L). Beyond L = 30 more nodes make the spacing finer only.

    Returns:
        increasing angles (nodes,) in (0, pi/2) and their probabilities (nodes,).

    >>> graded_angles(4, 2, 1)[0] / np.pi
    array([0.25])
    """
    if nodes < 1:
        raise InputError(f"{nodes} nodes; at least one is needed for each sign")
    dp = d - dH
    span = min(math.pi * math.sqrt(nodes / (1 / dp + 1 / dH)), 30.0)
    spacing = span * (1 / dp + 1 / dH) / nodes
    u = np.asarray(spacing * (np.arange(nodes) + 0.5) - span / dp, float)
    logs = label_law(d, dH, u)
    weights = np.exp(logs - logs.max())
    return np.arctan(np.exp(u)), weights / weights.sum()


def label_law(d: int, dH: int, u: FloatArray) -> FloatArray:
    """The log density of u = log tan theta, (k,) -> (k,): log(2 sin^dp cos^dH / B(dH/2, dp/2)).

    >>> round(float(np.exp(label_law(2, 1, np.zeros(1)))[0] * np.pi), 12)
    1.0
    """
    dp = d - dH
    beta = math.lgamma(dH / 2) + math.lgamma(dp / 2) - math.lgamma(d / 2)
    result: FloatArray = (
        math.log(2.0) - beta - 0.5 * dp * np.logaddexp(0.0, -2.0 * u) - 0.5 * dH * np.logaddexp(0.0, 2.0 * u)
    )
    return result


def fastest_rate(d: int, dH: int) -> float:
    """2 alpha K(0, 0) = 2 dH / (d alpha) for the kernel K of G: the rate at which mass alpha at angle 0 relaxes.

    The other rates of the flow near its limits are smaller, or larger by at most about fifteen per cent, so that an
    explicit method needs about this times the time span, divided by five, steps.

    >>> fastest_rate(4, 1)
    0.25
    """
    return 2.0 * dH / (d * alpha_of(dH))


def truncation(d: int, dH: int, modes: int) -> float:
    """What the harmonics beyond `modes` would add to the rates of mass alpha at the ends: 2 alpha times the tail of K.

    K(theta, theta) = sum_n (lam_n p_n(theta))^2 is dH/(d alpha(dH)^2) at 0 and dp/(d alpha(dp)^2) at pi/2, where the
    tails are largest.

    >>> truncation(30, 5, 16) > truncation(30, 5, 64) > 0
    True
    """
    return float(_tails(d, dH, modes)[-1])


def _tails(d: int, dH: int, modes: int) -> FloatArray:
    """`truncation` for 1, ..., modes."""
    with np.errstate(over="ignore", invalid="ignore"):  # only long after the tails have vanished
        values, _ = jacobi_values(modes, *exponents(d, dH), np.array([1.0, -1.0]))
        squares = (values * relu_eigenvalues(d, modes)[:, None]) ** 2
    whole = np.array([n / (d * alpha_of(n) ** 2) for n in (dH, d - dH)])
    tails = np.fmax(whole - np.cumsum(squares, axis=0), 2e-16 * whole)
    result: FloatArray = 2.0 * alpha_of(dH) * tails.max(axis=1)
    return result


def modes_for(d: int, dH: int, nodes: int) -> int:
    """How many harmonics `nodes` particles per sign call for: 2 nodes, or more until `truncation` is below 1e-9.

    Never more than 256 beyond 2 nodes: for dH = 1 or dp = 1 the tail falls only like the third power.

    >>> modes_for(30, 5, 32), modes_for(2, 1, 32)
    (64, 256)
    """
    tails = _tails(d, dH, 256)
    enough = int(np.argmax(tails <= 1e-9)) + 1 if tails[-1] <= 1e-9 else len(tails)
    return max(2 * nodes, 2, enough)


def _cosine_matrix(d: int, dH: int, modes: int, eigenvalues: FloatArray) -> tuple[FloatArray, FloatArray]:
    """lam_n p_n as a sum of cos 2k theta, (modes, modes), and lam_n p_n(0), (modes,).

    Interpolation in the Chebyshev points, exact for these degrees. The p_n are huge near the ends while lam_n p_n
    is not, hence the factor comes first.
    """
    middle = np.pi * (np.arange(modes) + 0.5) / modes
    points = np.append(np.cos(middle), 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        values, _ = jacobi_values(modes, *exponents(d, dH), points)
        values *= eigenvalues[:, None]
    if not np.isfinite(values).all():
        raise InputError(f"{modes} modes in dimension {d} leave the range of floats; ask for fewer")
    table = np.cos(np.outer(middle, np.arange(modes))) * (2.0 / modes)
    table[:, 0] /= 2.0
    return values[:, :-1] @ table, values[:, -1].copy()


def _powers(angles: FloatArray, count: int) -> NDArray[np.complex128]:
    """exp(2 i k theta), k < count: (m,) -> (count, m), by doubling: log2(count) products and one exponential."""
    powers = np.empty((count, len(angles)), complex)
    powers[0] = 1.0
    np.exp(2j * angles, out=powers[1])
    filled = 2
    while filled < count:
        more = min(filled, count - filled)
        np.multiply(powers[:more], powers[filled - 1] * powers[1], out=powers[filled : filled + more])
        filled += more
    return powers
