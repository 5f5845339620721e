"""Odd targets and linear networks: closed forms against each other, against slow integrations, and their rates."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from fiberscope.errors import InputError, IntegrationError
from fiberscope.meanfield.harmonics.kernels import arccos_potential
from fiberscope.meanfield.integrators import log_times
from fiberscope.meanfield.linear.flow import linear_flow, linear_flow_of, moments_of
from fiberscope.meanfield.linear.odd import odd_flow
from fiberscope.meanfield.linear.system import Hyperbolic, Moments, lorentz_invariants, modes_of
from fiberscope.meanfield.tables import time_table

VECTORS = json.loads((Path(__file__).parent / "data" / "meanfield.json").read_text())


def problem(d, seed, *, rank=None):
    """A covariance, a beta in its range, and the best map of least norm."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((rank or d, d))
    C = rows.T @ rows / d
    w_star = np.linalg.pinv(C, rcond=1e-12) @ C @ rng.standard_normal(d)
    return C, C @ w_star, w_star


def excess(C, w, w_star):
    delta = w - w_star
    return 0.5 * np.einsum("ti,ij,tj->t", delta, C, delta)


def moment_oracle(C, beta, S0, times, slope):
    """w(t) from S' = A S + S A, nothing used but the definition."""
    d = len(beta)

    def rate(t, flat):
        S = flat.reshape(d + 1, d + 1)
        g = beta - C @ (slope * S[0, 1:])
        A = np.zeros((d + 1, d + 1))
        A[0, 1:] = A[1:, 0] = slope * g
        return (A @ S + S @ A).ravel()

    run = solve_ivp(rate, (0, times[-1]), S0.ravel(), method="DOP853", t_eval=times, rtol=1e-12, atol=1e-13)
    return slope * run.y.T.reshape(-1, d + 1, d + 1)[:, 0, 1:]


# ---- the explicit formula


def test_odd_flow_matches_the_vectors():
    v = VECTORS["odd_isotropic"]
    flow = odd_flow(v["bnorm"], v["d"], v["t"], variance=v["v"], scale=v["V"])
    np.testing.assert_allclose(flow.w_norm, v["w_norm"], atol=1e-13, rtol=1e-13)
    assert flow.w_norm[0] == 0.0
    np.testing.assert_array_equal(odd_flow(v["bnorm"], v["d"], v["t"]).w_norm, flow.w_norm)


@pytest.mark.parametrize("slope", [0.5, 0.55, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.05, 40.0])
def test_odd_flow_solves_its_equation(slope, scale):
    beta, v = 0.7, 0.3
    times = np.linspace(0.5, 12, 9)

    def rate(t, y):
        return slope * math.sqrt(1 + y[0] ** 2) * (beta - v * slope * scale * math.sqrt(1 + y[0] ** 2) * y[0])

    run = solve_ivp(lambda t, y: [rate(t, y)], (0, 12), [0.0], method="DOP853", t_eval=times, rtol=1e-11, atol=1e-13)
    w = slope * scale * np.sqrt(1 + run.y[0] ** 2) * run.y[0]
    flow = odd_flow(beta, 4, times, variance=v, scale=scale, slope=slope)
    np.testing.assert_allclose(flow.w_norm, w, rtol=2e-8)
    np.testing.assert_allclose(flow.gap, 0.5 * v * (beta / v - flow.w_norm) ** 2, rtol=1e-9, atol=1e-14)


def test_odd_flow_rate_is_exact_and_bounded_from_the_start():
    flow = odd_flow(0.15, 20, np.linspace(0, 4000, 401))
    late = np.diff(flow.log_gap) / np.diff(flow.times)
    assert late[-1] == pytest.approx(-flow.rate, rel=1e-12)
    assert flow.rate == pytest.approx(2 * math.hypot(0.15, 1.05 / 80), rel=1e-15)
    assert flow.rate_bound == pytest.approx(1.05 / 40, rel=1e-15)
    assert (flow.gap <= flow.bound_curve * (1 + 1e-12)).all()
    assert np.isfinite(flow.log_gap).all() and flow.gap[-1] == 0.0


@pytest.mark.parametrize("scale", [1e-250, 1e-12, 1e12, 1e250])
def test_odd_flow_at_extreme_scales(scale):
    flow = odd_flow(0.15, 20, [0, 1, 1e4, 1e9], scale=scale)
    assert np.isfinite(flow.w_norm).all() and (np.diff(flow.w_norm) >= 0).all()
    assert flow.w_norm[-1] == pytest.approx(3.0, rel=1e-14)
    # for a small scale and a short time w = (slope V / 2) sinh(2 slope |beta| t)
    if scale < 1:
        assert flow.w_norm[1] == pytest.approx(scale / 4 * math.sinh(0.15), rel=1e-11)


def test_odd_flow_of_a_small_or_no_signal():
    tiny = odd_flow(1e-200, 5, [0, 1, 1e3])
    b = 1.2 / 20
    np.testing.assert_allclose(tiny.w_norm / 5e-200, -np.expm1(-b * tiny.times), rtol=1e-13)
    none = odd_flow(0.0, 5, [0, 1])
    assert none.w_norm.tolist() == none.gap.tolist() == [0.0, 0.0]
    assert none.rate == none.rate_bound
    json.loads(none.to_json())


@pytest.mark.parametrize("arguments", [(-1.0, 3), (math.nan, 3), (1.0, 0), (1.0, 2.5), (math.inf, 3)])
def test_odd_flow_refuses(arguments):
    with pytest.raises(InputError):
        odd_flow(*arguments, [0, 1])


@pytest.mark.parametrize("options", [{"variance": 0.0}, {"scale": 0.0}, {"slope": -1.0}, {"variance": math.nan}])
def test_odd_flow_refuses_options(options):
    with pytest.raises(InputError):
        odd_flow(1.0, 3, [0, 1], **options)
    with pytest.raises(InputError):
        odd_flow(1.0, 3, [-1, 1])


# ---- the closed equation


def test_linear_flow_of_an_isotropic_covariance_is_the_explicit_formula():
    times = [0, 1, 10, 100, 1e3, 1e5]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    flow = linear_flow(np.eye(20) / 20, 0.15 * turn[0], None, times, rtol=1e-11)
    exact = odd_flow(0.15, 20, times)
    assert flow.active == 1
    np.testing.assert_allclose(flow.w, np.outer(exact.w_norm, turn[0]), atol=2e-10)
    np.testing.assert_allclose(flow.log_gap, exact.log_gap, rtol=1e-9)
    assert flow.rate_asymptotic == pytest.approx(exact.rate, rel=1e-12)
    assert flow.rate_bound == pytest.approx(exact.rate_bound, rel=1e-12)


@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_closed_equation_matches_the_moment_equation(slope):
    d, times = 4, np.linspace(0, 15, 7)
    C, beta, w_star = problem(d, 1)
    S0 = np.diag([1.0, *[1 / d] * d])
    flow = linear_flow(C, beta, 1 + 1 / d, times, slope=slope, rtol=1e-11)
    slow = moment_oracle(C, beta, S0, times, slope)
    np.testing.assert_allclose(flow.w, slow, atol=2e-10)
    np.testing.assert_allclose(flow.gap, excess(C, slow, w_star), atol=1e-10)
    np.testing.assert_allclose(flow.w_star, w_star, atol=1e-10)


@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_general_moments_match_the_moment_equation(slope):
    d, times = 4, np.linspace(0, 10, 6)
    C, beta, _ = problem(d, 2, rank=3)
    half = np.random.default_rng(3).standard_normal((d + 1, d + 1)) / 2
    S0 = half @ half.T
    flow = linear_flow(C, beta, None, times, moments=S0, slope=slope, rtol=1e-11)
    np.testing.assert_allclose(flow.w, moment_oracle(C, beta, S0, times, slope), atol=3e-10)
    assert flow.invariant_drift < 1e-9 and flow.residual_defect < 1e-9
    for k in (0, 3, 5):
        np.testing.assert_allclose(lorentz_invariants(flow.second_moments(k)), flow.invariants, atol=1e-8)
        np.testing.assert_allclose(slope * flow.second_moments(k)[0, 1:], flow.w[k], atol=1e-12)


def test_isotropic_moments_take_the_short_way():
    C, beta, _ = problem(3, 5)
    given_moments = linear_flow(C, beta, None, [0, 1, 5], moments=np.diag([2.0, 0.5, 0.5, 0.5]))
    plain = linear_flow(C, beta, 2.5, [0, 1, 5])
    np.testing.assert_array_equal(given_moments.w, plain.w)
    np.testing.assert_allclose(given_moments.invariants, [2.0, -0.5, -0.5, -0.5])
    # |a| = |b| in every neuron: sa^2 = d sb^2
    np.testing.assert_allclose(plain.invariants, [1.875, -0.625, -0.625, -0.625])
    np.testing.assert_allclose(lorentz_invariants(given_moments.second_moments(2)), given_moments.invariants, atol=1e-8)


def test_moments_and_operator_fit_the_equation():
    C, beta, _ = problem(4, 7)
    times = np.array([2.0, 2.0 + 1e-4])
    flow = linear_flow(C, beta, 1.3, times, rtol=1e-12)
    speed = (flow.w[1] - flow.w[0]) / 1e-4
    middle = 0.5 * (flow.operator(0) @ (beta - C @ flow.w[0]) + flow.operator(1) @ (beta - C @ flow.w[1]))
    np.testing.assert_allclose(speed, middle, rtol=1e-6)
    p = flow.hyperboloid(0)
    assert p[0] ** 2 - p[1:] @ p[1:] == pytest.approx(1.0, rel=1e-9)
    np.testing.assert_allclose(flow.operator(0), 1.3 / 4 * (p[0] ** 2 * np.eye(4) + np.outer(p[1:], p[1:])), rtol=1e-9)


def test_relu_is_the_linear_network_at_half_the_scale_and_time():
    C, beta, _ = problem(3, 11)
    relu = linear_flow(C, beta, 1.4, [0, 2, 8])
    line = linear_flow(C, beta, 0.7, [0, 1, 4], slope=1.0)
    np.testing.assert_allclose(relu.w, line.w, atol=1e-8)


def test_jacobian_is_the_derivative_of_the_rate():
    C, beta, _ = problem(3, 13)
    system = Hyperbolic(modes_of(C, beta).excited(), 1.2, 0.5)
    rng = np.random.default_rng(0)
    state = system.start + 0.3 * rng.standard_normal(len(system.start))
    steps = 1e-6 * np.eye(len(state))
    columns = [(system.rate(0, state + h) - system.rate(0, state - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(system.jacobian(0, state), np.column_stack(columns), atol=1e-8)


def test_stiff_and_explicit_methods_agree():
    C = np.diag(np.logspace(0, -2, 6))
    times = [0, 1, 30, 300]
    explicit = linear_flow(C, C.diagonal(), None, times, method="DOP853", rtol=1e-8)
    stiff = linear_flow(C, C.diagonal(), None, times, method="Radau", rtol=1e-8)
    np.testing.assert_allclose(stiff.w, explicit.w, atol=1e-6)
    np.testing.assert_allclose(stiff.log_gap, explicit.log_gap, atol=1e-5)


def test_the_frozen_tail_continues_the_integration():
    C, _, w_star = problem(3, 17)
    C = C + 0.3 * np.eye(3)
    beta = C @ w_star
    flow = linear_flow(C, beta, 30.0, [0, 1, 5, 2e5], rtol=1e-11)
    assert "exponential" in flow.method
    end = 1.01 * 90 / flow.rate_bound
    early = linear_flow(C, beta, 30.0, [0, 0.5 * end], rtol=1e-11)
    late = linear_flow(C, beta, 30.0, [0, 0.5 * end, end], rtol=1e-11)
    assert "exponential" not in early.method and "exponential" in late.method
    assert late.log_gap[1] == pytest.approx(early.log_gap[1], rel=1e-9)
    slope = (late.log_gap[2] - late.log_gap[1]) / (0.5 * end)
    assert slope == pytest.approx(-late.rate_asymptotic, rel=1e-6)
    assert np.isfinite(flow.log_gap).all() and flow.gap[-1] == 0.0


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e4])
def test_extreme_scales_match_the_explicit_formula(scale):
    times = [0, 1, 10, 50, 200]
    flow = linear_flow(np.eye(3) / 3, [0.0, 0.4, 0.0], scale, times, rtol=1e-10)
    exact = odd_flow(0.4, 3, times, scale=scale)
    np.testing.assert_allclose(flow.w[:, 1], exact.w_norm, rtol=1e-7)
    np.testing.assert_allclose(flow.log_gap, exact.log_gap, rtol=1e-7, atol=1e-7)


def test_singular_covariance_converges_on_its_range():
    C, beta, w_star = problem(5, 19, rank=2)
    flow = linear_flow(C, beta, None, [0, 10, 1e4])
    assert flow.rank == 2 and flow.active == 2
    np.testing.assert_allclose(flow.w[-1], w_star, atol=1e-8)
    outside = np.linalg.svd(C)[2][2:]
    np.testing.assert_allclose(flow.w @ outside.T, 0, atol=1e-13)
    with pytest.raises(InputError, match="outside the range"):
        linear_flow(C, outside[0], None, [0, 1])


# ---- rates


@settings(max_examples=20, deadline=None)
@given(
    d=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    scale=st.floats(0.05, 20),
    slope=st.sampled_from([0.5, 1.0]),
    spread=st.floats(0, 3),
)
def test_the_bound_holds(d, seed, scale, slope, spread):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    C = (turn * np.exp(-spread * rng.random(d))) @ turn.T
    w_star = rng.standard_normal(d)
    flow = linear_flow(C, C @ w_star, scale, np.linspace(0, 10, 20), slope=slope)
    direct = excess(C, flow.w, w_star)
    rate = 2 * slope**2 * scale * np.linalg.eigvalsh(C)[0]
    assert flow.rate_bound == pytest.approx(rate, rel=1e-9)
    assert (direct <= direct[0] * np.exp(-rate * flow.times) * (1 + 1e-6) + 1e-14).all()
    assert flow.bound_holds and (np.diff(flow.log_gap) <= 0).all()
    np.testing.assert_allclose(np.sqrt(flow.gap), np.sqrt(direct), atol=1e-7)


@settings(max_examples=12, deadline=None)
@given(d=st.integers(1, 4), m=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_the_bound_holds_for_any_moments(d, m, seed):
    rng = np.random.default_rng(seed)
    C, beta, w_star = problem(d, seed)
    S0 = moments_of(rng.standard_normal(m), rng.standard_normal((m, d)))
    flow = linear_flow(C, beta, None, np.linspace(0, 6, 13), moments=S0, slope=1.0)
    direct = excess(C, flow.w, w_star)
    bound = direct[0] * np.exp(-flow.rate_bound * flow.times)
    assert (direct <= bound * (1 + 1e-5) + 1e-12).all() and flow.bound_holds
    constant = float(flow.invariants[0] - flow.invariants[1])
    for k in (0, 6, 12):
        assert np.linalg.eigvalsh(flow.operator(k))[0] >= constant * (1 - 1e-6) - 1e-9


def test_the_bound_of_general_moments_is_attained_by_a_boosted_start():
    # one direction of beta, moments diag(3, 1): H starts at (3 + 1) slope^2, the bound exactly
    flow = linear_flow([[2.0]], [1.0], None, [0, 1], moments=[[3.0, 0.0], [0.0, 1.0]], slope=1.0)
    assert flow.decay_rate[0] == pytest.approx(flow.rate_bound, rel=1e-12) == pytest.approx(16.0)
    turned = linear_flow(np.eye(2), [1.0, 0.0], None, [0, 1], moments=np.diag([3.0, 1.0, 0.5]), slope=1.0)
    assert turned.rate_bound == pytest.approx(2 * 3.5)


def test_rates_are_those_of_the_fit():
    C, _, w_star = problem(4, 23)
    C = C + 0.2 * np.eye(4)
    beta = C @ w_star
    flow = linear_flow(C, beta, None, np.linspace(0, 400, 400), rtol=1e-10)
    assert flow.rate_measured == pytest.approx(flow.rate_asymptotic, rel=1e-5)
    assert flow.rate_asymptotic > flow.rate_bound
    assert flow.rate_window[0] >= 200 and flow.rate_window[1] == 400
    np.testing.assert_allclose(flow.decay_rate[-1], flow.rate_asymptotic, rtol=1e-6)
    early = linear_flow(C, beta, None, np.linspace(0, 5, 2001), rtol=1e-10)
    slopes = -np.gradient(np.log(excess(C, early.w, w_star)), early.times)
    np.testing.assert_allclose(early.decay_rate[5:-5], slopes[5:-5], rtol=1e-4)


def test_directions_without_signal_do_not_count_for_the_asymptotic_rate():
    flow = linear_flow(np.diag([1.0, 0.01]), [1.0, 0.0], None, [0, 10, 20, 30, 40])
    single = linear_flow([[1.0]], [1.0], 1.5, [0, 10, 20, 30, 40])
    assert flow.active == 1
    assert flow.rate_asymptotic == pytest.approx(single.rate_asymptotic, rel=1e-12)
    assert flow.rate_measured == pytest.approx(flow.rate_asymptotic, rel=1e-6)


# ---- networks


def test_a_finite_linear_network_trains_like_this():
    rng = np.random.default_rng(29)
    n, d, m = 30, 5, 9
    X, times = rng.standard_normal((n, d)), np.linspace(0, 8, 9)
    y = X @ rng.standard_normal(d) + 0.1 * rng.standard_normal(n)
    a, B = rng.standard_normal(m), rng.standard_normal((m, d))

    def rate(t, state):
        heads, rows = state[:m], state[m:].reshape(m, d)
        # m times minus the gradient of 1/(2n) |y - X B^T a / m|^2
        pull = X.T @ (y - X @ (rows.T @ heads) / m) / n
        return np.concatenate([rows @ pull, np.outer(heads, pull).ravel()])

    start = np.concatenate([a, B.ravel()])
    run = solve_ivp(rate, (0, 8), start, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-13)
    w = np.array([s[m:].reshape(m, d).T @ s[:m] / m for s in run.y.T])
    flow = linear_flow_of(X, y, None, times, moments=moments_of(a, B), rtol=1e-11)
    np.testing.assert_allclose(flow.w, w, atol=1e-9)
    risk = 0.5 * np.mean((y - w @ X.T) ** 2, axis=1)
    np.testing.assert_allclose(flow.risk_floor + flow.gap, risk, atol=1e-9)


@pytest.mark.parametrize("d", [2, 5])
def test_relu_particles_on_the_axes_are_the_infinite_network(d):
    beta = np.zeros(d)
    beta[0] = 3 / (d * (d + 2))  # of the odd target x_1^3
    signs = np.array([1.0, -1.0])
    a = np.repeat(signs, 2 * d)
    B = np.tile(np.concatenate([np.eye(d), -np.eye(d)]), (2, 1))
    m, times = len(a), np.array([0.0, 3.0, 10.0, 40.0])
    np.testing.assert_allclose(moments_of(a, B), np.diag([1.0, *[1 / d] * d]))

    def rate(t, state):
        heads, rows = state[:m], state[m:].reshape(m, d)
        values, slopes = arccos_potential(rows, rows, heads / m)
        # E[f* relu(b.x)] = E[f* b.x] / 2 for odd f*
        return np.concatenate([0.5 * rows @ beta - values, (heads[:, None] * (0.5 * beta - slopes)).ravel()])

    start = np.concatenate([a, B.ravel()])
    run = solve_ivp(rate, (0, 40), start, method="DOP853", t_eval=times, rtol=1e-11, atol=1e-13)
    w = np.array([0.5 * s[m:].reshape(m, d).T @ s[:m] / m for s in run.y.T])
    exact = odd_flow(float(beta[0]), d, times)
    np.testing.assert_allclose(w[:, 0], exact.w_norm, atol=1e-9)
    np.testing.assert_allclose(linear_flow(np.eye(d) / d, beta, None, times, rtol=1e-11).w, w, atol=1e-9)


def test_data_and_covariance_agree():
    rng = np.random.default_rng(31)
    X = rng.standard_normal((12, 3)) + 0.5
    y = rng.standard_normal(12)
    times = [0, 1, 5, 400]
    flow = linear_flow_of(X, y, 1.1, times, slope=0.5)
    np.testing.assert_allclose(flow.w, linear_flow(X.T @ X / 12, X.T @ y / 12, 1.1, times).w, atol=1e-8)
    np.testing.assert_allclose(flow.w[-1], np.linalg.lstsq(X, y, rcond=None)[0], atol=1e-7)
    centred = linear_flow_of(X, y, 1.1, [0, 2000], centre=True)
    fit = np.linalg.lstsq(np.column_stack([X, np.ones(12)]), y, rcond=None)[0]
    np.testing.assert_allclose(centred.w[-1], fit[:3], atol=1e-7)


def test_more_inputs_than_samples():
    rng = np.random.default_rng(37)
    X, y = rng.standard_normal((3, 6)), rng.standard_normal(3)
    flow = linear_flow_of(X, y, None, [0, 1e3])
    np.testing.assert_allclose(flow.w[-1], np.linalg.pinv(X) @ y, atol=1e-8)
    assert flow.rank == 3 and flow.risk_floor == pytest.approx(0, abs=1e-25)
    a, B = rng.standard_normal(4), rng.standard_normal((4, 6))
    full = linear_flow_of(X, y, None, [0, 1.0, 2.0], moments=moments_of(a, B), rtol=1e-11)
    slow = moment_oracle(X.T @ X / 3, X.T @ y / 3, moments_of(a, B), np.array([0, 1.0, 2.0]), 1.0)
    np.testing.assert_allclose(full.w, slow, atol=1e-9)


# ---- runs


def test_no_signal_and_an_optimal_start_stand_still():
    none = linear_flow(np.eye(2), [0.0, 0.0], None, [0, 5])
    assert none.w.tolist() == [[0, 0], [0, 0]] and none.gap.tolist() == [0, 0] and none.bound_holds
    np.testing.assert_allclose(none.second_moments(1), np.diag([1.0, 0.5, 0.5]))
    S0 = np.array([[1.0, 0.5], [0.5, 1.0]])
    there = linear_flow([[1.0]], [0.5], None, [0, 5], moments=S0, slope=1.0)
    assert there.w.tolist() == [[0.5], [0.5]] and there.active == 0
    np.testing.assert_array_equal(there.second_moments(1), S0)
    assert linear_flow(np.zeros((2, 2)), [0.0, 0.0], None, [1]).rank == 0
    for flow in (none, there):
        json.loads(flow.to_json())
        assert "linear map" in str(flow)


def test_budget_and_checkpoint(tmp_path):
    C, beta, _ = problem(3, 41)
    times = np.linspace(0, 30, 80)
    whole = linear_flow(C, beta, None, times, path=tmp_path / "run.jsonl")
    again = linear_flow(C, beta, None, times, path=tmp_path / "run.jsonl")
    np.testing.assert_array_equal(whole.w, again.w)
    for other in ((C, 2 * beta, None), (C, beta, 2.0), (2 * C, 2 * beta, None)):
        with pytest.raises(InputError):
            linear_flow(*other, times, path=tmp_path / "run.jsonl")
    short = linear_flow(C, beta, None, times, budget=0)
    assert not short.complete and short.reason and len(short.w) == len(short.times) < 80
    first = linear_flow(C, beta, None, [1.0, 2.0], budget=0)
    assert first.times.tolist() == [0.0] and first.w.tolist() == [[0, 0, 0]]
    assert "stopped early" in str(short)


def test_reports():
    C, beta, _ = problem(60, 43)
    flow = linear_flow(C, beta, None, np.linspace(0, 50, 501))
    text = flow.to_json()
    assert len(text) < 300_000 and "NaN" not in text
    assert len({len(column) for column in flow.to_frame().values()}) == 1
    assert len(str(flow).splitlines()) < 20
    seen = []
    linear_flow(C, beta, None, [0, 1, 20], progress=lambda fraction, note: seen.append(fraction))
    assert seen and seen[-1] == 1.0
    assert len(time_table({"t": np.arange(100.0)})) == 9


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((np.eye(3), [1.0, 2.0], 1.0), {}),
        (([[1.0, 2.0], [0.0, 1.0]], [1.0, 0.0], 1.0), {}),
        ((-np.eye(2), [1.0, 0.0], 1.0), {}),
        ((np.eye(2), [1.0, math.nan], 1.0), {}),
        ((np.eye(2), ["x", "y"], 1.0), {}),
        ((np.eye(2), [1.0, 0.0], -1.0), {}),
        ((np.eye(2), [1.0, 0.0], 1.0), {"slope": 0.0}),
        ((np.eye(2), [1.0, 0.0], 1.0), {"method": "Euler"}),
        ((np.eye(2), [1.0, 0.0], 1.0), {"rtol": 0.0}),
        ((np.eye(2), [1.0, 0.0], 1.0), {"moments": np.eye(3)}),
        ((np.eye(2), [1.0, 0.0], None), {"moments": np.eye(2)}),
        ((np.eye(2), [1.0, 0.0], None), {"moments": -np.eye(3)}),
        ((np.eye(2), [1.0, 0.0], None), {"moments": np.zeros((3, 3))}),
        ((np.eye(2), [1.0, 0.0], None), {"moments": [[1.0, 1, 0], [0, 1, 0], [0, 0, 1]]}),
    ],
)
def test_linear_flow_refuses(arguments, options):
    with pytest.raises(InputError):
        linear_flow(*arguments, [0, 1], **options)


def test_linear_flow_of_refuses():
    with pytest.raises(InputError):
        linear_flow_of(np.ones((3, 2)), np.ones(4), 1.0, [0, 1])
    with pytest.raises(InputError):
        linear_flow_of([[math.inf]], [1.0], 1.0, [0, 1])
    with pytest.raises(InputError):
        moments_of([1.0], np.ones((2, 3)))
    with pytest.raises(InputError, match="fewer times"):
        linear_flow(np.eye(300), np.ones(300), None, np.linspace(0, 1, 10001), moments=np.diag(np.arange(1.0, 302)))


def test_general_moments_need_no_single_point():
    flow = linear_flow(np.eye(2), [1.0, 0.0], None, [0, 1], moments=np.diag([1.0, 2.0, 3.0]))
    assert isinstance(flow.system, Moments)
    with pytest.raises(InputError):
        flow.hyperboloid(0)


@pytest.mark.parametrize("size", [1e160, 1e-160])
def test_numbers_at_the_ends_of_the_floats_are_refused(size):
    with pytest.raises(InputError, match="rescale"):
        linear_flow(np.eye(2), [size, 0], 1.5, [0, 1])
    with pytest.raises(InputError, match="rescale"):
        linear_flow_of([[size, 0.0], [0.0, size]], [1.0, 2.0], None, [0, 1])
    if size > 1:
        with pytest.raises(InputError, match="range of floats"):
            odd_flow(size, 3, [0, 1])


def test_a_run_that_contradicts_itself_is_an_error():
    with pytest.raises(IntegrationError, match="two ways to the residual differ"):
        linear_flow(np.eye(2), [1e10, 0], 1.5, [0, 1, 100])


def test_the_end_is_known_to_the_last_digit_and_fits_the_gap():
    flow = linear_flow(np.diag([1.0, 3.0]), [1e8, 2e8], 1.5, [0, 1, 100])
    assert flow.w[-1] == pytest.approx(flow.w_star, rel=1e-12)
    rng = np.random.default_rng(0)
    flow = linear_flow_of(rng.normal(size=(50, 3)), rng.normal(size=50), None, [0, 1, 5, 20])
    C, w = flow.system.modes.values, (flow.w - flow.w_star) @ flow.frame
    assert 0.5 * np.sum(C * w**2, axis=1) == pytest.approx(flow.gap, rel=1e-6, abs=1e-24)


def test_only_relu_networks_rest_on_the_theorem_for_odd_targets():
    C, beta = np.eye(2), [1.0, 0.0]
    assert "odd-linear" in linear_flow(C, beta, 1.5, [0, 1]).theorems
    assert "odd-linear" not in linear_flow(C, beta, 1.5, [0, 1], slope=1.0).theorems
    assert "odd-linear" not in linear_flow_of(C, beta, None, [0, 1]).theorems


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: odd_flow("big", 3, [1]), "beta_norm: 'big'; give a finite number >= 0"),
        (lambda: odd_flow(0.1, None, [1]), "d: None; give a whole number >= 1"),
        (lambda: odd_flow(0.1, 3, [1], variance=[1.0]), r"variance: \[1.0\]; give a finite number > 0"),
        (lambda: odd_flow(0.1, 3, [1], slope=True), "slope: True"),
        (lambda: odd_flow(0.1, 3, [1], slope=1e300), "range of floats"),
        (lambda: linear_flow(np.eye(2), [1, 1], "one", [1]), "V: 'one'"),
        (lambda: linear_flow(np.eye(2), [1, 1], 1, [1], slope=None), "slope: None"),
        (lambda: linear_flow(np.eye(2), [1, 1], 1, [1], rtol="x"), "rtol: 'x'"),
        (lambda: linear_flow(np.eye(2), [1, 1], 1, [1], method="radau"), "did you mean 'Radau'"),
        (lambda: linear_flow([["a"]], [1], 1, [1]), "C: .*'a'.* is no number"),
        (lambda: linear_flow_of([[1.0]], [1.0], 1, [1], path=4), "path 4; give the path of a file"),
        (lambda: linear_flow_of([[1.0]], [1.0], 1, [1], progress=4), "progress 4; give a function"),
        (lambda: linear_flow(np.eye(2), [1, 1], 1, [1], slope=1e300), "range of floats"),
        (lambda: log_times("a", 2, 3), "first: 'a'"),
        (lambda: log_times(1, 2, 2.5), "count: 2.5"),
    ],
)
def test_wrong_arguments_get_one_clear_line(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
