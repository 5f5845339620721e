"""Batched losses with exact Hessians, and gradient flow through saddles to the last digit."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from fiberscope.errors import InputError
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.dynamics.reduced import reduced_network
from fiberscope.invariants.recovery.ladders import flowsteps
from fiberscope.invariants.recovery.ladders.flowsteps import phis
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.invariants.recovery.ladders.stiffflow import Method, flow
from fiberscope.network import Network
from fiberscope.rowclasses import Classes

Array = npt.NDArray[Any]
METHODS: tuple[Method, ...] = ("exponential", "rosenbrock", "explicit")
SHAPES = [
    ((3, 4, 1), {}), ((3, 4, 2), {"output_bias": True}), ((2, 3, 3, 2), {"bias": False}),
    ((2, 3, 2, 3, 1), {"output_bias": True}), ((3, 2), {"output_bias": True}),
]  # fmt: skip
TARGET = np.array([[0.6, 0.8, 1, 0, 0], [0, 0.6, 0.8, 1, 0], [0, 0, 0.6, 0.8, 1]])


def target(x: Array) -> Array:
    return np.asarray(np.tanh(x @ TARGET.T).sum(axis=-1))


def differences(field: Landscape, theta: Array, step: float = 1e-5) -> tuple[Array, Array]:
    slope, hessian = np.empty(theta.shape), np.empty((*theta.shape, field.size))
    for i in range(field.size):
        d = step * np.eye(field.size)[i]
        slope[:, i] = (field.loss(theta + d) - field.loss(theta - d)) / (2 * step)
        hessian[:, :, i] = (field.slopes(theta + d)[1] - field.slopes(theta - d)[1]) / (2 * step)
    return slope, hessian


# ---- landscapes


@pytest.mark.parametrize(("widths", "options"), SHAPES)
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
@pytest.mark.parametrize("shared", [True, False])
def test_derivatives_are_those_of_finite_differences(
    widths: tuple[int, ...], options: dict[str, bool], activation: str, shared: bool
) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, widths[0]) if shared else (3, 7, widths[0]))
    y = rng.normal(size=(*x.shape[:-1], widths[-1]))
    field = Landscape(widths, activation, x, y, weights=rng.uniform(0.1, 1, x.shape[:-1]), **options)
    theta = rng.normal(size=(3, field.size))
    slope, hessian = differences(field, theta)
    loss, g, h = field.curvature(theta)
    assert np.allclose(loss, field.loss(theta), rtol=1e-13)
    assert np.allclose(g, slope, atol=1e-7) and np.allclose(field.slopes(theta)[1], g, atol=1e-13)
    assert np.allclose(h, hessian, atol=1e-6) and np.allclose(h, h.swapaxes(1, 2), atol=1e-13)
    residual, jac = field.jacobian(theta)
    assert np.allclose((residual**2).sum(axis=1), loss, rtol=1e-13)
    assert np.allclose(2 * np.einsum("bi,bij->bj", residual, jac), g, atol=1e-12)


def test_losses_and_gradients_are_those_of_backprop() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    field = Landscape((3, 4, 5, 2), ("tanh", "softplus"), x, y, output_bias=True)
    theta = rng.normal(size=(1, field.size))
    net = field.network(theta[0])
    value, slope = Chain(net).gradient(theta[0], Batch(x, y))
    assert field.loss(theta)[0] == pytest.approx(value, rel=1e-13)
    assert np.allclose(field.slopes(theta)[1][0], slope, atol=1e-13)
    assert np.allclose(field.outputs(theta)[0], net(x), atol=1e-13)


def test_biases_that_are_not_trained_are_zero() -> None:
    field = Landscape((2, 3, 1), "tanh", np.ones((1, 2)), [1.0], bias=False)
    net = field.network(np.arange(1.0, 10.0))
    assert field.size == 9 and not net.layers[0].bias.any() and not net.layers[1].bias.any()
    assert net.layers[1].weight.tolist() == [[7.0, 8.0, 9.0]]


def test_spare_points_of_weight_zero_change_nothing() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(5, 2)), rng.normal(size=5)
    theta = rng.normal(size=(1, 12))
    plain = Landscape((2, 3, 1), "tanh", x, y).curvature(theta)
    weights = np.array([[0.2] * 5 + [0.0] * 2])
    padded = Landscape((2, 3, 1), "tanh", np.pad(x, ((0, 2), (0, 0)))[None], np.pad(y, (0, 2))[None], weights=weights)
    for a, b in zip(plain, padded.curvature(theta), strict=True):
        assert np.allclose(a, b, atol=1e-14)


def test_data_that_do_not_fit_are_refused() -> None:
    x, y = np.ones((4, 2)), np.ones(4)
    for bad in (lambda: Landscape((2,), "tanh", x, y), lambda: Landscape((3, 2, 1), "tanh", x, y),
                lambda: Landscape((2, 2, 1), "tanh", x, np.ones(3)), lambda: Landscape((2, 2, 2), "tanh", x, y),
                lambda: Landscape((2, 2, 1), "tanh", x, y, weights=-y), lambda: Landscape((2, 2, 1), (), x, y),
                lambda: Landscape((2, 2, 1), "tanh", x * math.nan, y)):  # fmt: skip
        with pytest.raises(InputError):
            bad()


# ---- integrators


@given(st.floats(-60, 5).filter(lambda z: abs(z) > 1e-20))
@settings(max_examples=30)
def test_phi_functions_are_those_of_exact_arithmetic(z: float) -> None:
    with localcontext() as context:
        context.prec = 120  # exp z minus its Taylor polynomial loses up to 80 digits
        q = Decimal(z)
        for k, value in zip((1, 3, 4), phis(np.array([z])), strict=True):
            head = sum((q**j / math.factorial(j) for j in range(k)), start=Decimal(0))
            assert value[0] == pytest.approx(float((q.exp() - head) / q**k), rel=1e-10)


def test_the_explicit_step_meets_the_order_conditions() -> None:
    nodes = [0.0, *(sum(row) for row in flowsteps._DOPRI[:-1])]
    assert nodes == pytest.approx([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1])
    weights = np.array([*flowsteps._DOPRI[-1], 0.0])
    for k in range(5):
        assert weights @ np.array([*nodes, 1.0]) ** k == pytest.approx(1 / (k + 1))
        embedded = weights - flowsteps._DOPRI_ERROR
        assert k == 4 or embedded @ np.array([*nodes, 1.0]) ** k == pytest.approx(1 / (k + 1))


def quadratic(matrix: Array) -> Landscape:
    """L = |A theta - 1|^2 / 2."""
    return Landscape((matrix.shape[1], 1), (), matrix, np.ones(len(matrix)), weights=np.full(len(matrix), 0.5))


@pytest.mark.parametrize("method", METHODS)
def test_linear_flow_has_its_closed_form(method: Method) -> None:
    rng = np.random.default_rng(4)
    a = rng.normal(size=(5, 3))
    values, vectors = np.linalg.eigh(a.T @ a)
    best = np.linalg.lstsq(a, np.ones(5), rcond=None)[0]
    start = rng.normal(size=(2, 3))
    end = flow(quadratic(a), start, method=method, rtol=1e-8, time=0.7, floor=1e-300)
    exact = best + (start - best) @ vectors @ np.diag(np.exp(-0.7 * values)) @ vectors.T
    assert np.allclose(end.theta, exact, atol=1e-12 if method == "exponential" else 1e-6)
    assert end.reasons == ("time", "time") and end.times.tolist() == [0.7, 0.7]


def product(y: float = 1.0) -> Landscape:
    """L = (a w - y)^2."""
    return Landscape((1, 1, 1), "identity", [[1.0]], [y], bias=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e-10, 0.3])
def test_escape_from_a_saddle_is_the_logistic_curve(method: Method, size: float) -> None:
    # a = w = u: (u^2)' = 4 u^2 (1 - u^2)
    time = 0.25 * math.log(1 / size**2 - 1)
    end = flow(product(), [[size, size]], method=method, rtol=1e-5, time=time)
    assert np.allclose(end.theta**2, 0.5, rtol=3e-3)


@pytest.mark.parametrize("method", METHODS)
def test_flow_of_a_network_agrees_with_scipy(method: Method) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 8, 2))
    field = Landscape((2, 3, 1), "tanh", x, np.sin(3 * x[..., 0]))
    start = rng.normal(size=(2, field.size))
    end = flow(field, start, method=method, rtol=1e-7, time=20.0)
    for k in range(2):
        one = field.take(np.array([k]))
        reference = solve_ivp(
            lambda t, v, one=one: -one.slopes(v[None])[1][0], (0, 20), start[k], method="DOP853", rtol=1e-11, atol=1e-13
        )  # fmt: skip
        assert np.allclose(end.theta[k], reference.y[:, -1], rtol=2e-5, atol=2e-5)


def test_tighter_tolerances_come_closer_at_the_order_of_the_method() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(8, 2))
    field = Landscape((2, 3, 1), "tanh", x, np.sin(3 * x[:, 0]))
    start = rng.normal(size=(1, field.size))
    exact = flow(field, start, method="explicit", rtol=1e-12, time=5.0, steps=20000).theta
    for method, order in (("exponential", 4), ("rosenbrock", 3)):
        ends = [flow(field, start, method=method, rtol=rtol, time=5.0) for rtol in (1e-4, 1e-8)]
        miss = [np.abs(end.theta - exact).max() for end in ends]
        assert miss[1] < 0.01 * miss[0] and miss[1] < 1e-6
        growth = ends[1].steps[0] / ends[0].steps[0]
        assert growth == pytest.approx(1e4 ** (1 / order), rel=0.5)  # steps ~ rtol^(-1 / order)


def test_runs_of_a_batch_do_not_see_each_other() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(3, 10, 5))
    field = Landscape((5, 4, 1), "tanh", x, target(x))
    start = field.normal(range(3), 1e-3)
    together = flow(field, start, time=30.0)
    for k in range(3):
        alone = flow(Landscape((5, 4, 1), "tanh", x[k], target(x[k])), start[k], time=30.0)
        assert np.allclose(alone.theta[0], together.theta[k], rtol=1e-7, atol=1e-10)
        assert abs(int(alone.steps[0]) - int(together.steps[k])) <= 2


@given(st.floats(0.1, 2), st.floats(-2, 2), st.floats(-1, 1))
@settings(max_examples=10)
def test_the_balance_is_conserved_and_the_loss_falls(a: float, w: float, y: float) -> None:
    field = product(y)
    end = flow(field, [[w, a]], rtol=1e-7, time=3.0)
    assert end.theta[0, 1] ** 2 - end.theta[0, 0] ** 2 == pytest.approx(a * a - w * w, abs=1e-5)
    assert end.losses[0] <= field.loss(np.array([[w, a]]))[0] * (1 + 1e-12)


def test_the_metric_makes_the_reduced_network_flow_like_the_wide_one() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(9, 2))
    y = np.sin(3 * x[:, 0])
    labels = np.array([0, 0, 0, 1, 1])
    inner, share = rng.normal(size=(2, 3)), rng.normal(size=(1, 2))
    net = Network.from_arrays((inner[labels, :2], inner[labels, 2]), (share[:, labels], np.zeros(1)), activation="tanh")
    small = reduced_network(net, (Classes(labels, np.array([1] * 5, dtype=object)),))
    wide, narrow = Landscape((2, 5, 1), "tanh", x, y), Landscape((2, 2, 1), "tanh", x, y)
    metric = small.coordinates("linear")[1][narrow.kept]
    start = np.asarray(small.network.theta, float)[narrow.kept]
    one = flow(narrow, start, metric=metric, rtol=1e-9, time=4.0)
    two = flow(wide, np.asarray(net.theta, float)[wide.kept], rtol=1e-9, time=4.0)
    lifted = small.lift(one.network(0))
    assert np.allclose(np.asarray(lifted.theta, float)[wide.kept], two.theta[0], atol=1e-6)
    off = flow(narrow, start, rtol=1e-9, time=4.0)  # without the metric it is another flow
    assert np.abs(off.theta - one.theta).max() > 1e-3


def test_the_cap_binds_and_is_kept() -> None:
    free = flow(product(), [[1e-3, 1e-3]], cap=None, rtol=1e-4)
    capped = flow(product(), [[1e-3, 1e-3]], cap=0.05, rtol=1e-4)
    assert free.sharpest is not None and capped.sharpest is not None
    assert free.sharpest[0] > 0.05 and free.binding[0] == 0 and free.cap is None
    assert capped.sharpest[0] <= 0.05 * (1 + 1e-12) and capped.binding[0] > 50
    assert flow(product(), [[0.1, 0.2]], method="explicit").sharpest is None


def test_every_run_says_why_it_ended() -> None:
    assert flow(product(), [[0.5, 0.6]]).reasons == ("floor",)
    assert flow(product(), [[0.0, 0.0]]).reasons == ("saddle",)
    assert flow(product(), [[0.5, 0.6]], steps=2).reasons == ("steps",)
    assert flow(product(), [[0.5, 0.6]], time=0.1).reasons == ("time",)
    assert flow(product(), [[0.5, 0.6]], budget=0.0).reasons == ("budget",)
    end = flow(Landscape((1, 1), (), [[1.0], [1.0]], [0.0, 2.0]), [[5.0]])
    assert end.reasons == ("minimum",) and end.losses[0] == pytest.approx(1.0) and not end.interpolates[0]


def test_a_saddle_that_is_left_by_a_hair_is_left() -> None:
    # (w, a) = (e, -e) for y = 1 runs into the saddle at 0 along its stable line; a hair beside it must escape
    end = flow(product(), [[0.5, -0.5], [0.5, -0.5 + 1e-9]], rtol=1e-8)
    assert end.reasons[1] == "floor" and end.losses[1] <= 1e-18


def test_beyond_the_limit_gradients_alone_are_used() -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(4, 5))
    field = Landscape((5, 40, 1), "tanh", x, target(x))
    end = flow(field, 0.3 * rng.normal(size=(2, field.size)), rtol=1e-3, floor=1e-4)
    assert field.size == 280 and end.method == "explicit" and end.interpolates.all()


def test_the_report_is_one_screen_and_json() -> None:
    end = flow(product(), [[0.5, 0.6], [0.0, 0.0]])
    assert "floor 1" in str(end) and len(str(end).splitlines()) <= 6
    frame = end.to_frame()
    assert {len(column) for column in frame.values()} == {2} and frame["reason"] == ["floor", "saddle"]
    assert "theta" not in end.to_dict() and '"reasons"' in end.to_json()


def test_bad_options_are_refused() -> None:
    for options in (
        {"rtol": 0},
        {"cap": -1.0},
        {"steps": 0},
        {"metric": [1.0]},
        {"metric": [0.0, 1.0]},
        {"method": "euler"},
    ):
        with pytest.raises(InputError):
            flow(product(), [[1.0, 1.0]], **options)  # type: ignore[arg-type]
    for start in ([[1.0]], [[math.nan, 1.0]], np.zeros((0, 2))):
        with pytest.raises(InputError):
            flow(product(), start)


# ---- the measured table


def phase(width: int, std: float, n: int, seeds: int, **options: Any) -> tuple[Any, Array]:
    x = np.stack([np.random.default_rng(1000 + s).standard_normal((n, 5)) for s in range(seeds)])
    field = Landscape((5, width, 1), "tanh", x, target(x))
    end = flow(field, field.normal(range(seeds), std), **options)
    test = np.random.default_rng(9).standard_normal((1000, 5))
    return end, end.errors(test, target(test))


def test_small_starts_recover_earlier_than_large_ones() -> None:
    small, error = phase(9, 1e-10, 63, 3, rtol=1e-4)
    assert small.interpolates.all() and (error < 1e-6).all()
    early, error = phase(9, 1e-10, 24, 3, rtol=1e-4)
    assert early.interpolates.all() and (error > 1e-4).all()


@pytest.mark.slow
def test_controls_agree_with_the_default_flow() -> None:
    _, plain = phase(9, 1e-10, 30, 2)
    controls: tuple[dict[str, Any], ...] = (
        {"cap": 0.02, "steps": 6000}, {"rtol": 1e-7}, {"method": "rosenbrock", "rtol": 1e-5}
    )  # fmt: skip
    for options in controls:
        end, other = phase(9, 1e-10, 30, 2, **options)
        assert np.allclose(other, plain, rtol=0.02)
        if "cap" in options:
            assert end.binding.min() > 100
