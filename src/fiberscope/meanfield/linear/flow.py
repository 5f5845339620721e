"""Two-layer networks that are linear in their input: the closed dynamics of w(t) for any covariance, and its rates.

Two readings. A ReLU network with an odd target and an even input law (x and -x alike) has f(x) = w.x with slope 1/2; a
network with linear activation has slope 1. The two are one: ReLU at scale V and time t is the linear network at scale
V/2 and time t/2.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_finite, as_number
from fiberscope.errors import InputError
from fiberscope.meanfield.integrators import checked_times
from fiberscope.meanfield.linear.runs import RANGE, LinearRun, Method
from fiberscope.meanfield.linear.solution import LinearFlow
from fiberscope.meanfield.linear.system import modes_of, modes_of_data
from fiberscope.results import Budget, Progress

FloatArray = NDArray[np.float64]


def linear_flow(
    C: ArrayLike,
    beta: ArrayLike,
    V: float | None,
    times: ArrayLike,
    *,
    moments: ArrayLike | None = None,
    slope: float = 0.5,
    method: Method = "auto",
    rtol: float = 1e-9,
    path: str | os.PathLike[str] | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> LinearFlow:
    """The dynamics of w for any covariance: pv' = slope p0 (beta - C w), p0^2 = 1 + |pv|^2, w = slope V p0 pv.

    The excess risk of w is at most its start times exp(-2 slope^2 V lam t), lam the smallest positive eigenvalue of C:
    w' = H (beta - C w) with H = slope^2 V (p0^2 I + pv pv^T) >= slope^2 V I. For slope 1/2 this is the rate 2 eta lam
    of Theorem 3.3.2 with eta = V/4 from t = 0 on. For general moments V is the sum of the positive eigenvalue of S J
    and the smallest absolute value among the others (a boost turns S(0) into a diagonal matrix).

    Args:
        C: (d, d) covariance E[x x^T], positive semidefinite. If it is singular, w converges on its range.
        beta: (d,) E[f*(x) x], in the range of C.
        V: E[a^2] + E[|b|^2]/d of the neurons at time 0, with isotropic moments diag(sa^2, sb^2 I); None is 1 + 1/d.
        times: (T,) increasing, from 0 on.
        moments: (d+1, d+1) S(0) = E[c c^T], c = (a, b), for any other start (then V is None).
        slope: of the odd part of the activation: 1/2 for ReLU, (1 + c)/2 for leaky ReLU, 1 for a linear network.
        method: "auto" is "Radau" with the analytic Jacobian for stiff problems, else "DOP853".
        rtol: relative tolerance.
        path: checkpoint file.
        budget: seconds, or `Budget`.
        progress: callback.

    Raises:
        InputError: for shapes that do not fit, a C that is no covariance, beta outside its range, V <= 0.
        IntegrationError: if the integration fails.

    Complexity: one eigendecomposition O(d^3), then O(d) a step and O(d) an output; O(d^2) with moments.
    Source: arXiv 2211.08771, Theorems 3.3.1 and 3.3.2; the closed equation and constants are derived here.

    >>> flow = linear_flow(np.eye(2), [0.0, 1.0], 2.0, [0, 1, 100])
    >>> flow.w[-1].round(9).tolist(), flow.rate_bound, flow.active
    ([0.0, 1.0], 1.0, 1)
    """
    covariance, vector = _checked_problem(C, beta)
    d = len(vector)
    if moments is not None and V is not None:
        raise InputError("V and moments both given; the moments hold V, so pass V=None")
    run = LinearRun(checked_times(times), as_number(slope, "slope", above=0), method, rtol, path, budget, progress)
    total = 1.0 + 1.0 / d if V is None else V
    return run.solve(modes_of(covariance, vector), total, moments, None)


def linear_flow_of(
    X: ArrayLike,
    y: ArrayLike,
    V: float | None,
    times: ArrayLike,
    *,
    centre: bool = False,
    moments: ArrayLike | None = None,
    slope: float = 1.0,
    method: Method = "auto",
    rtol: float = 1e-9,
    path: str | os.PathLike[str] | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> LinearFlow:
    """Gradient flow of a two-layer linear network on a dataset: risk 1/(2n) sum_i (y_i - w.x_i)^2, w = E[a b].

    C = X^T X / n and beta = X^T y / n are uncentred moments (there is no bias). With a finite network
    f(x) = (1/m) sum_j a_j b_j.x, a_j' = -m dF/da_j, b_j' = -m dF/db_j, and `moments=moments_of(a, B)` this is its
    training exactly, for any m.

    Args:
        X: (n, d) inputs.
        y: (n,) labels.
        V: as in `linear_flow`.
        times: (T,).
        centre: subtract the means of X and y first (a model whose output bias is always fitted best).
        moments: as in `linear_flow`.
        slope: 1 for the linear network; 1/2 for ReLU when the law of (x, y) is that of (-x, -y).
        method: as in `linear_flow`.
        rtol: relative tolerance.
        path: checkpoint file.
        budget: seconds, or `Budget`.
        progress: callback.

    Raises:
        InputError: for shapes that do not fit or values that are not finite.

    Complexity: singular values of X, O(n d min(n, d)), then as `linear_flow`; C is never formed.

    >>> flow = linear_flow_of([[1.0, 0.0], [0.0, 2.0]], [3.0, 4.0], 2.0, [0, 100])
    >>> flow.w[-1].round(9).tolist(), flow.risk_floor
    ([3.0, 2.0], 0.0)
    """
    inputs, labels = _in_range(X, "X"), _in_range(y, "y")
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1] or not inputs.size:
        raise InputError(f"X of shape {inputs.shape} and y of shape {labels.shape}; give (n, d) and (n,)")
    if moments is not None and V is not None:
        raise InputError("V and moments both given; the moments hold V, so pass V=None")
    if centre:
        inputs, labels = inputs - inputs.mean(axis=0), labels - labels.mean()
    run = LinearRun(checked_times(times), as_number(slope, "slope", above=0), method, rtol, path, budget, progress)
    modes = modes_of_data(inputs, labels, kernel=moments is not None)
    rest = labels - inputs @ (modes.basis @ modes.w_star)
    total = 1.0 + 1.0 / inputs.shape[1] if V is None else V
    return run.solve(modes, total, moments, 0.5 * float(rest @ rest) / len(rest))


def moments_of(a: ArrayLike, B: ArrayLike) -> FloatArray:
    """Second moments (1/m) sum_j c_j c_j^T of neurons c = (a, b): a (m,), B (m, d) -> (d+1, d+1). O(m d^2).

    >>> moments_of([1.0, -1.0], [[1.0], [1.0]]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    heads, rows = as_finite(a, "a"), as_finite(B, "B")
    if rows.ndim != 2 or heads.shape != rows.shape[:1] or not rows.size:
        raise InputError(f"a of shape {heads.shape} and B of shape {rows.shape}; give (m,) and (m, d)")
    neurons = np.column_stack([heads, rows])
    found: FloatArray = neurons.T @ neurons / len(neurons)
    return found


def _checked_problem(C: ArrayLike, beta: ArrayLike) -> tuple[FloatArray, FloatArray]:
    covariance, vector = _in_range(C, "C"), _in_range(beta, "beta")
    if vector.ndim != 1 or covariance.shape != (len(vector), len(vector)) or not len(vector):
        raise InputError(f"C of shape {covariance.shape} and beta of shape {vector.shape}; give (d, d) and (d,)")
    return covariance, vector


def _in_range(values: ArrayLike, name: str) -> FloatArray:
    found = as_finite(values, name)
    size = float(np.abs(found).max(initial=0.0))
    if size and not 1 / RANGE <= size <= RANGE:
        raise InputError(f"{name} has entries of size {size:.1g}, too near the ends of the floats; rescale it")
    return found
