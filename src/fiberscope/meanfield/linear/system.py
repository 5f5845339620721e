"""The equations of a two-layer network that is linear in its input, in the eigenbasis of the covariance.

Neurons c = (a, b) move by c' = slope [[0, g^T], [g, 0]] c with g = beta - C w and w = slope E[a b], so that the second
moments S = E[c c^T] close: S' = A S + S A. From S(0) = diag(sa^2, sb^2 I) they stay on S = -sb^2 J + V p p^T with
J = diag(1, -I), V = sa^2 + sb^2 and p = (p0, q) on the hyperboloid p0^2 - |q|^2 = 1 (A generates Lorentz boosts):
    p0' = slope q.g,   q' = slope p0 g,   w = slope V p0 q.
The residual e = C^(1/2) (w* - w) obeys e' = -K e, K = C^(1/2) H C^(1/2), H = slope^2 (S_00 I + S_vv), and the excess
risk is |e|^2 / 2. It is carried along as log |e| and the direction e / |e|, so that nothing cancels at any time.
"""

from __future__ import annotations

import abc
import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError

FloatArray = NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)
_SAME = 1e-13
"""Eigenvalues this close, relative to the largest, are one."""
_FROZEN = 45.0
"""Once log |e| has fallen by so much the network moves no more in float64, and e(t) is a matrix exponential."""


@dataclass(frozen=True, eq=False)
class Modes:
    """beta and C on an orthonormal basis of eigenvectors.

    Args:
        basis: (d, r) orthonormal columns.
        values: (r,) positive eigenvalues.
        beta: (r,) coordinates of beta.
        kernel: (d, k) orthonormal columns of the kernel of C.
    """

    basis: FloatArray
    values: FloatArray
    beta: FloatArray
    kernel: FloatArray

    @property
    def roots(self) -> FloatArray:
        """Square roots of the eigenvalues, (r,)."""
        found: FloatArray = np.sqrt(self.values)
        return found

    @property
    def w_star(self) -> FloatArray:
        """The best linear map in these coordinates: beta_i / c_i, (r,)."""
        return self.beta / self.values

    def excited(self) -> Modes:
        """The directions that a start at w = 0 with isotropic moments ever uses.

        Eigenvectors of one eigenvalue are turned so that beta has one coordinate among them; the others, and those
        where beta has no coordinate (to rounding), stay at 0 for all times.
        """
        order = np.argsort(self.values)
        values = self.values[order]
        cut = np.flatnonzero(np.diff(values) > _SAME * values.max(initial=0.0)) + 1
        columns, kept, strengths = [], [], []
        floor = 4 * _EPS * math.sqrt(len(self.basis)) * float(np.linalg.norm(self.beta))
        for group in np.split(order, cut):
            strength = float(np.linalg.norm(self.beta[group]))
            if strength > floor:
                columns.append(self.basis[:, group] @ (self.beta[group] / strength))
                kept.append(float(np.mean(self.values[group])))
                strengths.append(strength)
        basis = np.column_stack(columns) if columns else np.zeros((len(self.basis), 0))
        return Modes(basis, np.array(kept), np.array(strengths), self.kernel)


def modes_of(covariance: FloatArray, beta: FloatArray) -> Modes:
    """Modes of a covariance (d, d) and beta (d,).

    Raises:
        InputError: unless C is symmetric and positive semidefinite and beta lies in its range.
    """
    size = float(np.abs(covariance).max(initial=0.0))
    if np.abs(covariance - covariance.T).max(initial=0.0) > 1e-10 * size:
        raise InputError("C is not symmetric; give a covariance")
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    floor = len(values) * _EPS * float(np.abs(values).max(initial=0.0))
    if values[0] < -max(1e-10 * size, floor):
        raise InputError(f"C has the eigenvalue {values[0]:.3g} < 0; give a covariance")
    live = values > floor
    kernel = vectors[:, ~live]
    outside = float(np.linalg.norm(kernel.T @ beta))
    if outside > 1e-8 * float(np.linalg.norm(beta)):
        raise InputError(
            f"beta has a part of norm {outside:.3g} outside the range of C, which no E[y x] has; "
            "the risk would have no minimum"
        )
    return Modes(vectors[:, live], values[live], vectors[:, live].T @ beta, kernel)


def modes_of_data(inputs: FloatArray, labels: FloatArray, *, kernel: bool = False) -> Modes:
    """Modes of C = X^T X / n and beta = X^T y / n by the singular values of X (n, d), without forming C.

    Args:
        inputs: X.
        labels: y, (n,).
        kernel: whether a basis of the kernel of C is needed too.
    """
    n, d = inputs.shape
    left, singular, right = np.linalg.svd(inputs, full_matrices=False)
    live = singular > max(n, d) * _EPS * float(singular.max(initial=0.0))
    rank = int(live.sum())
    beta = singular[:rank] / n * (left[:, :rank].T @ labels)
    basis = right[:rank].T
    rest = np.linalg.qr(basis, mode="complete")[0][:, rank:] if kernel else np.zeros((d, 0))
    return Modes(basis, singular[:rank] ** 2 / n, beta, rest)


class System(abc.ABC):
    """An ordinary differential equation whose last coordinates are log |e| - log |e(0)| and the direction of e.

    Attributes:
        modes: the directions it lives in.
        start: the state at time 0.
        size: |e(0)|.
        direction: where the coordinates of the direction are.
    """

    modes: Modes
    start: FloatArray
    size: float
    direction: slice

    @abc.abstractmethod
    def rate(self, time: float, state: FloatArray) -> FloatArray:
        """Derivative of the state."""

    @abc.abstractmethod
    def tolerances(self, rtol: float) -> FloatArray:
        """Absolute tolerances of the coordinates."""

    @abc.abstractmethod
    def decays(self, states: FloatArray) -> FloatArray:
        """Half the rate of the excess risk, n.K n / n.n, at states (T, n): (T,)."""

    @abc.abstractmethod
    def kernel(self, state: FloatArray) -> FloatArray:
        """K at a state, (r, r), on these modes."""

    @property
    def residuals(self) -> int:
        """Where log |e| - log |e(0)| is."""
        return int(self.direction.start) - 1

    def digest(self) -> str:
        """Sha256 of C, beta and the start."""
        parts = (self.modes.values, self.modes.beta, self.start)
        return hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest()

    def frozen_time(self, rate_bound: float) -> float:
        """A time from which on the network moves no more in float64, given a bound of the rate of the risk."""
        return 2.0 * _FROZEN / rate_bound if rate_bound > 0 else math.inf

    def tail(self, state: FloatArray, waits: FloatArray) -> FloatArray:
        """States after waiting times from a state that is frozen: e -> exp(-K wait) e, (len(waits), n)."""
        values, vectors = np.linalg.eigh(self.kernel(state))
        parts = vectors.T @ state[self.direction]
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs(parts))[None, :] - np.outer(waits, values)
        top = logs.max(axis=1, keepdims=True)
        norms = np.sqrt(np.sum(np.exp(2 * (logs - top)), axis=1))
        found = np.tile(state, (len(waits), 1))
        found[:, self.residuals] += top[:, 0] + np.log(norms)
        found[:, self.direction] = (np.sign(parts) * np.exp(logs - top) / norms[:, None]) @ vectors.T
        return found


class Hyperbolic(System):
    """Isotropic moments: the state is (p0, q, log, direction), 2 r + 2 numbers; O(r) a call.

    Args:
        modes: the excited modes.
        scale: V.
        slope: of the odd part of the activation.
    """

    def __init__(self, modes: Modes, scale: float, slope: float) -> None:
        self.modes, self._scale, self._slope = modes, scale, slope
        self._roots = modes.roots
        first = modes.beta / self._roots
        self.size = float(np.linalg.norm(first))
        r = self._r = len(first)
        self.direction = slice(r + 2, 2 * r + 2)
        self.start = np.concatenate([[1.0], np.zeros(r), [0.0], first / self.size])

    def rate(self, time: float, state: FloatArray) -> FloatArray:
        """See `System`; K n = slope^2 V (p0^2 c n + c^(1/2) q (q.c^(1/2) n))."""
        r = self._r
        p0, q, n = state[0], state[1 : r + 1], state[r + 2 :]
        pulled = self._roots * n
        along = float(q @ pulled)
        step = self._slope * self.size * math.exp(min(state[r + 1], 700.0))
        kn = (self._slope**2 * self._scale) * self._roots * ((p0 * p0) * pulled + along * q)
        decay = float(n @ kn) / float(n @ n)
        out = np.empty_like(state)
        out[0] = step * along
        out[1 : r + 1] = (step * p0) * pulled
        out[r + 1] = -decay
        out[r + 2 :] = decay * n - kn
        return out

    def jacobian(self, time: float, state: FloatArray) -> FloatArray:
        """Derivative of `rate`, (2 r + 2, 2 r + 2)."""
        r, s = self._r, self._roots
        p0, q, n = state[0], state[1 : r + 1], state[r + 2 :]
        pulled, total = s * n, self._slope**2 * self._scale
        along, square = float(q @ pulled), float(n @ n)
        step = self._slope * self.size * math.exp(min(state[r + 1], 700.0))
        kernel = total * (p0 * p0 * np.diag(self.modes.values) + np.outer(s * q, s * q))
        kn = kernel @ n
        decay = float(n @ kn) / square
        kn_p0 = 2 * total * p0 * s * pulled
        kn_q = total * (along * np.diag(s) + np.outer(s * q, pulled))
        decay_n = 2 * (kn - decay * n) / square
        at_q, at_n = slice(1, r + 1), slice(r + 2, 2 * r + 2)
        out = np.zeros((2 * r + 2, 2 * r + 2))
        out[0, at_q], out[0, r + 1], out[0, at_n] = step * pulled, step * along, step * s * q
        out[at_q, 0], out[at_q, r + 1], out[at_q, at_n] = step * pulled, step * p0 * pulled, step * p0 * np.diag(s)
        decay_p0, decay_q = float(n @ kn_p0) / square, (n @ kn_q) / square
        out[r + 1, 0], out[r + 1, at_q], out[r + 1, at_n] = -decay_p0, -decay_q, -decay_n
        out[at_n, 0] = decay_p0 * n - kn_p0
        out[at_n, at_q] = np.outer(n, decay_q) - kn_q
        out[at_n, at_n] = decay * np.eye(r) + np.outer(n, decay_n) - kernel
        return out

    def tolerances(self, rtol: float) -> FloatArray:
        """Each q_i keeps its sign, so it can be held relatively; e may pass 0 in a mode."""
        r = self._r
        strength = np.abs(self.modes.beta)
        q = 1e-6 * rtol * strength / max(float(strength.max()), 1e-300)
        return np.concatenate([[0.1 * rtol], np.maximum(q, 1e-300), [0.1 * rtol], np.full(r, 0.01 * rtol)])

    def kernel(self, state: FloatArray) -> FloatArray:
        """See `System`."""
        r = self._r
        found: FloatArray = (self._slope**2 * self._scale) * (
            state[0] ** 2 * np.diag(self.modes.values)
            + np.outer(self._roots * state[1 : r + 1], self._roots * state[1 : r + 1])
        )
        return found

    def limit_kernel(self) -> FloatArray:
        """K at t = infinity: |w*| = (slope V/2) sinh(2 xi), p0 = cosh xi, q = sinh xi w*/|w*|."""
        w = self.modes.w_star
        sinh2 = 2.0 * float(np.linalg.norm(w)) / (self._slope * self._scale)
        p0 = math.sqrt(0.5 * (1.0 + math.hypot(1.0, sinh2)))
        state = np.concatenate([[p0], w / (self._slope * self._scale * p0), np.zeros(self._r + 1)])
        return self.kernel(state)

    def decays(self, states: FloatArray) -> FloatArray:
        """See `System`."""
        r = self._r
        n, q = states[:, r + 2 :], states[:, 1 : r + 1]
        pulled = n * self._roots
        total = states[:, 0] ** 2 * np.sum(pulled**2, axis=1) + np.sum(q * pulled, axis=1) ** 2
        rates: FloatArray = self._slope**2 * self._scale * total / np.sum(n * n, axis=1)
        return rates


class Moments(System):
    """Any moments: the state is (S, log, direction), (d + 1)^2 + r + 1 numbers; O(d^2) a call.

    Args:
        modes: all modes, the kernel of C among them.
        start: (d + 1, d + 1) S(0) in the coordinates (a, modes.basis, modes.kernel).
        slope: of the odd part of the activation.
    """

    def __init__(self, modes: Modes, start: FloatArray, slope: float) -> None:
        self.modes, self._slope = modes, slope
        self._roots = modes.roots
        self._d, self._r = len(start) - 1, len(modes.values)
        first = self._roots * (modes.w_star - slope * start[0, 1 : self._r + 1])
        self.size = float(np.linalg.norm(first))
        count = start.size
        self.direction = slice(count + 1, count + 1 + self._r)
        self.start = np.concatenate([start.ravel(), [0.0], first / self.size if self.size else first])

    def matrix(self, state: FloatArray) -> FloatArray:
        """S at a state."""
        return state[: (self._d + 1) ** 2].reshape(self._d + 1, self._d + 1)

    def rate(self, time: float, state: FloatArray) -> FloatArray:
        """See `System`; S' = A S + (A S)^T."""
        r, moments, n = self._r, self.matrix(state), state[self.direction]
        pulled = self._roots * n
        kn = self._slope**2 * self._roots * (moments[0, 0] * pulled + moments[1 : r + 1, 1 : r + 1] @ pulled)
        decay = float(n @ kn) / float(n @ n)
        force = self._slope * self.size * math.exp(min(state[self.residuals], 700.0)) * pulled
        moved = np.zeros_like(moments)
        moved[0] = force @ moments[1 : r + 1]
        moved[1 : r + 1] = np.outer(force, moments[0])
        return np.concatenate([(moved + moved.T).ravel(), [-decay], decay * n - kn])

    def tolerances(self, rtol: float) -> FloatArray:
        """Relative to the largest moment."""
        out = np.full(len(self.start), 0.01 * rtol)
        out[: self.residuals] *= float(np.trace(self.matrix(self.start))) / (self._d + 1)
        out[self.residuals] = 0.1 * rtol
        return out

    def kernel(self, state: FloatArray) -> FloatArray:
        """See `System`."""
        r, moments = self._r, self.matrix(state)
        inner = moments[0, 0] * np.eye(r) + moments[1 : r + 1, 1 : r + 1]
        found: FloatArray = self._slope**2 * self._roots[:, None] * inner * self._roots
        return found

    def decays(self, states: FloatArray) -> FloatArray:
        """See `System`."""
        r = self._r
        n = states[:, self.direction]
        pulled = n * self._roots
        moments = states[:, : self.residuals].reshape(len(states), self._d + 1, self._d + 1)
        inner = np.einsum("ti,tij,tj->t", pulled, moments[:, 1 : r + 1, 1 : r + 1], pulled)
        total = moments[:, 0, 0] * np.sum(pulled**2, axis=1) + inner
        rates: FloatArray = self._slope**2 * total / np.sum(n * n, axis=1)
        return rates


def lorentz_invariants(moments: FloatArray) -> FloatArray:
    """Eigenvalues of S J, J = diag(1, -I), conserved by the flow: one >= 0, then d that are <= 0, descending.

    Those of the symmetric S^(1/2) J S^(1/2), hence real.

    >>> lorentz_invariants(np.diag([1.0, 0.5, 0.5])).round(12).tolist()
    [1.0, -0.5, -0.5]
    """
    values, vectors = np.linalg.eigh(moments)
    half = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    flipped = half.copy()
    flipped[:, 1:] *= -1.0
    product = flipped @ half
    found: FloatArray = np.linalg.eigvalsh(0.5 * (product + product.T))[::-1]
    return found
