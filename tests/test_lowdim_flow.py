"""The dynamics on the sphere of (u_H, |u_perp|): vectors, full networks, the angle dynamics, identities, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fiberscope.errors import InputError
from fiberscope.meanfield.angles.flow import angle_flow
from fiberscope.meanfield.harmonics.ball import BallExpansion, BallHarmonics
from fiberscope.meanfield.harmonics.kernels import arccos_gram, arccos_potential, relu_slab
from fiberscope.meanfield.integrators import integrate
from fiberscope.meanfield.lowdim.flow import LowdimFlow, lowdim_flow
from fiberscope.meanfield.lowdim.kernel import graded_rule, kernel_gram, kernel_potential, side_rule
from fiberscope.meanfield.lowdim.system import (
    LowdimSystem,
    initial_measure,
    label_rule,
    normals,
    seen_target,
)
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import Constant, Linear, Teacher
from fiberscope.meanfield.targets.polynomial import Polynomial
from fiberscope.meanfield.targets.projected import Projected
from fiberscope.meanfield.targets.sampled import Sampled
from fiberscope.meanfield.targets.zonal import NormH
from fiberscope.results import Rigor

Array = NDArray[np.float64]
VECTORS = json.loads((Path(__file__).parent / "data" / "meanfield.json").read_text(encoding="utf-8"))
PLANE = Teacher([1.0, -0.7, 0.5], [[1.0, 0.0], [-0.6, 0.8], [0.3, -1.0]])
LINE = Teacher([1.0, -0.7, 1.0], [[1.0], [-1.0], [0.5]])
SPACE = Teacher([1.0, -0.7, 0.5], [[1.0, 0.0, 0.2], [-0.6, 0.8, 0.0], [0.3, -1.0, 0.5]])


def spread(m: int, dH: int, seed: int = 0) -> Array:
    """Random unit rows with last entry >= 0."""
    rows = np.random.default_rng(seed).normal(size=(m, dH + 1))
    rows[:, -1] = np.abs(rows[:, -1])
    return rows / np.linalg.norm(rows, axis=1)[:, None]


def polygon(dp: int, sides: int) -> Array:
    """Directions of H-perp over which the full networks are symmetric."""
    if dp == 1:
        return np.array([[1.0], [-1.0]])
    angles = 2 * np.pi * np.arange(sides) / sides
    return np.column_stack([np.cos(angles), np.sin(angles)])


def polygon_rule(dp: int, sides: int) -> tuple[Array, Array]:
    first = polygon(dp, sides)[:, 0]
    return first, np.full(len(first), 1 / len(first))


def full_network(
    target: Target, start: Array, mass: float, signs: Array, sides: Array, times: Array
) -> tuple[Array, Array]:
    """The oracle: all d-dimensional neurons, folded back to masses (T, m) and points (T, m, dH+1) at the end."""
    m, k, dH = len(start), len(sides), start.shape[1] - 1
    rows = np.concatenate(
        [np.repeat(start[:, :-1], k, 0), np.repeat(start[:, -1:], k, 0) * np.tile(sides, (m, 1))], axis=1
    )
    eps = np.repeat(signs, k)

    def rate(_: float, state: Array) -> Array:
        c, b = np.exp(state[: m * k]), state[m * k :].reshape(m * k, -1)
        b = b / np.linalg.norm(b, axis=1)[:, None]
        g, slope = target.potential(b)
        own, push = arccos_potential(b, b, eps * c)
        force = slope - push
        force -= np.sum(force * b, axis=1)[:, None] * b
        return np.concatenate([2 * eps * (g - own), (eps[:, None] * force).ravel()])

    first = np.concatenate([np.full(m * k, np.log(mass / k)), rows.ravel()])
    run = integrate(rate, first, times, rtol=1e-11, atol=1e-13)
    masses = np.exp(run.states[:, : m * k]).reshape(-1, m, k).sum(axis=2)
    neurons = run.states[:, m * k :].reshape(len(times), m, k, -1)
    neurons = neurons / np.linalg.norm(neurons, axis=-1, keepdims=True)
    height = np.linalg.norm(neurons[..., 0, dH:], axis=-1)
    return masses, np.concatenate([neurons[:, :, 0, :dH], height[..., None]], axis=-1)


def lift(target: Teacher, d: int) -> Teacher:
    return Teacher(target.c, np.pad(target.B, ((0, 0), (0, d - target.dimension))))


# -- vectors and full networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["lowdim"])
def test_vectors(case: dict[str, object]) -> None:
    d = int(case["dH"]) + int(case["dperp"])  # type: ignore[call-overload]
    target = Teacher(case["t_k"], case["v_k"])  # type: ignore[arg-type]
    init = (case["q0"], case["c0"], case["eps"])
    flow = lowdim_flow(target, d, case["t"], init=init, rtol=1e-11)  # type: ignore[arg-type]
    accuracy = 2 * float(case["change_ns96_to_192"])  # type: ignore[arg-type]
    assert np.max(np.abs(flow.masses - np.array(case["c"]))) <= accuracy
    assert np.max(np.abs(flow.points - np.array(case["q"]))) <= accuracy


@pytest.mark.parametrize(("dH", "dp"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)])
def test_full_network_agrees(dH: int, dp: int) -> None:
    target = {1: LINE, 2: PLANE, 3: SPACE}[dH]
    times = np.array([0.0, 2.0, 8.0])
    signs, start = np.array([1.0, -1.0, 1.0, -1.0]), spread(4, dH, seed=dH)
    sides = polygon(dp, 8)
    masses, points = full_network(lift(target, dH + dp), start, 0.25, signs, sides, times)
    system = LowdimSystem(seen_target(target, dH + dp, 1e-12), signs, polygon_rule(dp, 8))
    run = integrate(system.rate, system.pack(np.full(4, 0.25), start), times, rtol=1e-11, atol=1e-13)
    for k, state in enumerate(run.states):
        c, q = system.unpack(state)
        assert np.max(np.abs(c - masses[k])) < 3e-9
        assert np.max(np.abs(q - points[k])) < 3e-9
    assert np.max(np.abs(masses[-1] - 0.25)) > 0.01


def test_polygons_converge_to_the_average() -> None:
    start, signs, times = spread(3, 1), np.array([1.0, -1.0, 1.0]), np.array([0.0, 4.0])
    flow = lowdim_flow(LINE, 3, times, init=(start, 0.3, signs), rtol=1e-10)
    gaps = []
    for sides in (6, 24):
        masses, _ = full_network(lift(LINE, 3), start, 0.3, signs, polygon(2, sides), times)
        gaps.append(np.max(np.abs(masses[-1] - flow.masses[-1])))
    assert gaps[1] < 1e-6
    assert gaps[1] < gaps[0] / 16


def test_neurons_cross_the_equator() -> None:
    """A particle runs through u orthogonal to H, where angles and directions in H would be singular."""
    start, signs, times = np.array([[-0.3, np.sqrt(0.91)]]), np.ones(1), np.linspace(0.0, 12.0, 25)
    flow = lowdim_flow(LINE, 2, times, init=(start, 1.0, signs), rtol=1e-10)
    y = flow.points[:, 0, 0]
    assert y[0] < 0 < y[-1] and np.max(flow.points[:, 0, 1]) > 0.999
    masses, points = full_network(lift(LINE, 2), start, 1.0, signs, polygon(1, 2), times)
    assert np.max(np.abs(points - flow.points)) < 1e-8
    assert np.max(np.abs(masses - flow.masses)) < 1e-8


@pytest.mark.parametrize(
    ("d", "dH", "nodes", "bound"), [(2, 1, 24, 1e-5), (3, 1, 24, 3e-6), (8, 1, 12, 1e-7), (6, 2, (4, 8), 5e-5)]
)
def test_norms_agree_with_the_angle_dynamics(d: int, dH: int, nodes: object, bound: float) -> None:
    times = [0.0, 2.0, 10.0, 30.0]
    angles = angle_flow(d, dH, times, nodes=48)
    flow = lowdim_flow(NormH((d, dH)), d, times, nodes=nodes)  # type: ignore[arg-type]
    for name in ("mass_plus", "mass_minus", "energy"):
        assert np.max(np.abs(getattr(flow, name) - getattr(angles, name))) < bound, name


def test_nodes_converge_faster_than_a_fourth_power() -> None:
    """For the norm in R^8, dH = 1: the errors of the masses against the angle dynamics."""
    times = [0.0, 10.0, 40.0]
    angles = angle_flow(8, 1, times, nodes=48)
    errors = []
    for nodes in (2, 4, 8):
        flow = lowdim_flow(NormH((8, 1)), 8, times, nodes=nodes)
        errors.append(np.max(np.abs(flow.mass_plus - angles.mass_plus)))
    assert errors[1] < errors[0] / 16 and errors[2] < errors[1] / 16


# -- the kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dp", [1, 2, 3, 5, 9, 40])
def test_side_rule_moments(dp: int) -> None:
    points, weights = side_rule(dp, 1e-12)
    assert np.min(weights) > 0 and abs(np.sum(weights) - 1) < 1e-14
    assert abs(weights @ points) < 1e-15
    assert abs(weights @ points**2 - 1 / dp) < 1e-11
    assert abs(weights @ points**4 - 3 / (dp * (dp + 2))) < 1e-11


@pytest.mark.parametrize("dp", [2, 3, 4, 10])
def test_kernel_against_adaptive_quadrature(dp: int) -> None:
    from scipy.integrate import quad
    from scipy.special import beta

    left, right = spread(1, 2, 3), spread(1, 2, 4)
    near = left + 1e-3 * (right - left)
    near /= np.linalg.norm(near)
    for other in (right, near, left):
        along, across = float(left[0, :-1] @ other[0, :-1]), float(left[0, -1] * other[0, -1])

        def density(angle: float, a: float = along, b: float = across) -> float:
            c = min(1.0, a + b * np.cos(angle))
            cap = (np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c) / (2 * np.pi)
            return float(cap * np.sin(angle) ** (dp - 2) / beta(0.5, (dp - 1) / 2))

        truth = quad(density, 0, np.pi, epsabs=1e-13, epsrel=1e-13, limit=400)[0] / (dp + 2)
        assert abs(kernel_gram(left, other, dp + 2, side_rule(dp))[0, 0] - truth) < 1e-10


def test_orders_of_the_side_rules() -> None:
    """dp = 2, force of a close neuron: equal angles lose to the kink at a low power, the graded rule does not."""
    start = np.array([[0.6, 0.8], [np.cos(0.93), np.sin(0.93)]])

    def force(rule: tuple[Array, Array]) -> float:
        _, gradient = kernel_potential(start, np.array([0.0, 1.0]), 3, rule)
        return float(gradient[0] @ [-0.8, 0.6])

    truth = force(graded_rule(2, 150, 3))
    counts = np.array([8, 16, 32])
    equal = [abs(force(polygon_rule(2, n)) - truth) for n in counts]
    graded = [abs(force(graded_rule(2, n, 3)) - truth) for n in counts]
    slope = np.polyfit(np.log(counts), np.log(equal), 1)[0]
    assert -4.5 < slope < -2.0
    assert np.polyfit(np.log(counts), np.log(graded), 1)[0] < -6.0
    assert graded[-1] < 1e-10 < equal[-1]


def test_tiles_add_up_and_gradients_are_derivatives() -> None:
    points, loads = spread(113, 2), np.random.default_rng(1).normal(size=113)
    rule = side_rule(3, 1e-12)
    values, gradients = kernel_potential(points, loads, 5, rule)
    assert np.max(np.abs(values - kernel_gram(points, points, 5, rule) @ loads)) < 1e-13
    turns = np.random.default_rng(2).normal(size=points.shape)
    turns -= np.sum(turns * points, axis=1)[:, None] * points
    step = 1e-5
    ends = []
    for sign in (1, -1):
        moved = points + sign * step * turns
        moved /= np.linalg.norm(moved, axis=1)[:, None]
        ends.append(kernel_gram(moved, points, 5, rule) @ loads)
    assert np.max(np.abs((ends[0] - ends[1]) / (2 * step) - np.sum(gradients * turns, axis=1))) < 1e-8


def test_kernel_is_the_mean_over_the_polygon() -> None:
    points, rule = spread(5, 2), polygon_rule(2, 10)
    sides = polygon(2, 10)
    full = np.concatenate(
        [np.repeat(points[:, :2], 10, 0), np.repeat(points[:, 2:], 10, 0) * np.tile(sides, (5, 1))], axis=1
    )
    gram = arccos_gram(full).reshape(5, 10, 5, 10).mean(axis=(1, 3))
    assert np.max(np.abs(kernel_gram(points, points, 4, rule) - gram)) < 1e-15


# -- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dH", "d", "degree"), [(1, 2, 9), (1, 3, 8), (2, 3, 8), (2, 7, 7), (3, 4, 6), (4, 6, 4)])
def test_harmonics_are_orthonormal(dH: int, d: int, degree: int) -> None:
    basis = BallHarmonics(dH, d, degree)
    points, weights = label_rule(dH, d, degree + 1, degree + 1)
    values = basis.values(points)
    assert np.max(np.abs(values * weights @ values.T - np.eye(len(values)))) < 1e-12
    coefficients = np.random.default_rng(0).normal(size=len(values))
    inside = 0.5 * spread(6, dH)[:, :-1]
    whole, slopes = basis.combination(coefficients, inside)
    assert np.max(np.abs(whole - coefficients @ basis.values(inside))) < 1e-12
    for j, axis in enumerate(np.eye(dH)):
        ends = [coefficients @ basis.values(inside + s * 1e-5 * axis) for s in (1, -1)]
        assert np.max(np.abs((ends[0] - ends[1]) / 2e-5 - slopes[:, j])) < 1e-6


@settings(max_examples=10)
@given(st.integers(1, 2), st.integers(1, 6), st.integers(0, 2**16))
def test_expansions_keep_their_error(dH: int, dp: int, seed: int) -> None:
    """A kinked teacher, expanded as if it were any function, against its closed form."""
    rng = np.random.default_rng(seed)
    teacher = Teacher(rng.normal(size=2), rng.normal(size=(2, dH)))
    exact = seen_target(teacher, dH + dp, 1e-9)
    found = BallExpansion(teacher, dH, dH + dp, 1e-4)
    points = spread(50, dH, seed)
    assert np.max(np.abs(found.potential(points)[0] - exact.potential(points)[0])) <= 3 * found.error + 1e-13
    assert found.error < 1e-3 * max(1.0, float(np.sqrt(exact.second_moment)))
    assert abs(found.second_moment - exact.second_moment) < 1e-3 * exact.second_moment


def test_expansions_see_kinks_off_the_origin() -> None:
    """|x_1 - 0.37| on the sphere of R^10: the rule is what is wrong, long before the degree."""
    from scipy.integrate import quad
    from scipy.special import beta

    found = BallExpansion(lambda y: np.abs(y[:, 0] - 0.37), 1, 10, 1e-9)

    def truth(q: Array) -> float:
        def density(t: float) -> float:
            mean, _, _ = relu_slab(np.array([q[0] * t]), np.array([q[1] * np.sqrt(1 - t * t)]), 9)
            return float(abs(t - 0.37) * mean[0] * (1 - t * t) ** 3.5 / beta(0.5, 4.5))

        return float(quad(density, -1, 1, points=[0.37, -q[1], q[1]], epsabs=1e-12, limit=300)[0])

    points = spread(6, 1, 3)
    gap = np.max(np.abs(found.potential(points)[0] - [truth(q) for q in points]))
    assert 1e-9 < gap <= 3 * found.error < 1e-3


@pytest.mark.parametrize(
    "target",
    [
        PLANE,
        lift(PLANE, 5),
        2.0 * PLANE + Linear([0.3, -1.0]),
        Polynomial({(2, 0): 1.0, (1, 1): -0.5, (0, 1): 1.0}),
        Projected(lambda z: np.sin(2 * z[:, 0]) * np.exp(z[:, 1]), (5, 2)),
        NormH((2, 2)),
        Constant(0.7, 2) + PLANE,
    ],
)
def test_potentials_against_a_sphere_rule(target: Target) -> None:
    """E[f_H(x_H) relu(u.x)] for x ~ U(S^4) by a fine rule of the ball of H and the closed mean over H-perp."""
    seen = seen_target(target, 5, 1e-10)
    points, weights = label_rule(2, 5, 150, 150)
    values = target(points @ np.eye(2, 5) if target.dimension == 5 else points)
    s, shares = graded_rule(3, 150, 1)
    u = spread(4, 2)
    height = np.sqrt(np.maximum(0.0, 1 - np.sum(points**2, axis=1)))
    truth = [
        float(weights @ (values * (np.maximum((points @ q[:2])[:, None] + q[2] * height[:, None] * s, 0.0) @ shares)))
        for q in u
    ]
    found, gradients = seen.potential(u)
    assert np.max(np.abs(found - truth)) < 2e-5
    assert abs(seen.second_moment - float(weights @ values**2)) < 1e-3
    turn = np.cross(u, [0.3, 0.5, -0.2])
    ends = []
    for sign in (1, -1):
        moved = u + sign * 1e-5 * turn
        ends.append(seen.potential(moved / np.linalg.norm(moved, axis=1)[:, None])[0])
    assert np.max(np.abs((ends[0] - ends[1]) / 2e-5 - np.sum(gradients * turn, axis=1))) < 1e-8


def test_homogeneous_functions_on_a_line_are_two_neurons() -> None:
    """f_H(z) = 2 relu(z) - 0.5 relu(-z), as a network and as any callable."""
    times, function = [0.0, 3.0, 20.0], Projected(lambda z: np.where(z[:, 0] > 0, 2.0, 0.5) * z[:, 0], (4, 1))
    exact = lowdim_flow(Teacher([2.0, -0.5], [[1.0], [-1.0]]), 4, times, nodes=3, rtol=1e-7)
    other = lowdim_flow(function, 4, times, nodes=3, rtol=1e-7)
    assert np.max(np.abs(exact.masses - other.masses)) < 1e-6
    assert np.max(np.abs(exact.energy - other.energy)) < 1e-6
    assert exact.energy[-1] < 0.02 * exact.energy[0]


def test_linear_targets_stay_linear() -> None:
    """For f*(x) = beta.x the network is w.x: odd in the input (arXiv 2211.08771, Theorem 3.3.1)."""
    flow = lowdim_flow(Linear([0.6, 0.8]), 4, [0.0, 3.0, 30.0], nodes=(3, 4))
    inputs = 0.7 * spread(9, 1)
    assert np.max(np.abs(flow.predict(inputs) + flow.predict(-inputs))) < 1e-9
    assert np.max(np.abs(flow.predict(inputs) - 0.5 * flow.predict(2 * inputs, perp=2 * np.sqrt(0.51)))) < 1e-12
    assert flow.energy[-1] < 1e-4


# -- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "d", "nodes"), [(LINE, 2, 8), (LINE, 7, 8), (PLANE, 3, (3, 4)), (PLANE, 9, (3, 4)), (SPACE, 5, (2, 2))]
)
def test_energy_never_grows_and_balances(target: Teacher, d: int, nodes: object) -> None:
    times = np.linspace(0.0, 40.0, 81)
    flow = lowdim_flow(target, d, times, nodes=nodes, rtol=1e-10)  # type: ignore[arg-type]
    assert abs(flow.mass_plus[0] - 0.5) < 1e-13 and abs(flow.mass_minus[0] - 0.5) < 1e-13
    assert abs(flow.energy[0] - 0.5 * lift(target, d).second_moment) < 1e-13
    assert np.all(np.diff(flow.energy) < 0)
    assert np.max(np.abs(flow.dissipation_defect)) < 1e-8
    # the rate itself, by the fourth-order difference of the energies
    e, h = flow.energy, times[1]
    slope = (e[:-4] - 8 * e[1:-3] + 8 * e[3:-1] - e[4:]) / (12 * h)
    assert np.max(np.abs(slope[8:] + flow.dissipation[2:-2][8:])) < 2e-3 * flow.dissipation[0]
    assert np.allclose(np.linalg.norm(flow.points, axis=2), 1.0, atol=1e-14)
    assert np.min(flow.points[..., -1]) >= 0


@settings(max_examples=8)
@given(st.integers(0, 2**16))
def test_flow_commutes_with_rotations_of_h(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    start, signs = spread(4, 2, seed), np.array([1.0, -1.0, 1.0, -1.0])
    flow = lowdim_flow(PLANE, 4, [0.0, 6.0], init=(start, 0.3, signs))
    moved = np.column_stack([start[:, :2] @ turn.T, start[:, 2]])
    other = lowdim_flow(Teacher(PLANE.c, PLANE.B @ turn.T), 4, [0.0, 6.0], init=(moved, 0.3, signs))
    assert np.max(np.abs(flow.masses - other.masses)) < 1e-7
    assert np.max(np.abs(flow.points[..., :2] @ turn.T - other.points[..., :2])) < 1e-7


def test_particles_in_h_stay_in_h() -> None:
    start = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.6, 0.0, 0.8]])
    flow = lowdim_flow(PLANE, 5, [0.0, 10.0], init=(start, 0.3, [1, -1, 1]))
    assert np.array_equal(flow.points[-1, :2, 2], [0.0, 0.0])


def test_coinciding_particles_are_one() -> None:
    start, times = spread(2, 2), [0.0, 5.0]
    split = lowdim_flow(PLANE, 4, times, init=(start[[0, 0, 1]], [0.1, 0.3, 0.2], [1, 1, -1]))
    whole = lowdim_flow(PLANE, 4, times, init=(start, [0.4, 0.2], [1, -1]))
    assert np.max(np.abs(split.mass_plus - whole.mass_plus)) < 1e-9
    assert np.max(np.abs(split.points[:, 1:] - whole.points)) < 1e-9


# -- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "count", "bound"), [(3, 2, 1e-12), (4, 64, 2e-4), (6, 400, 0.05)])
def test_unfolded_networks_compute_the_prediction(d: int, count: int, bound: float) -> None:
    flow = lowdim_flow(lift(PLANE, d), d, [0.0, 10.0], nodes=(2, 3))
    a, b = flow.unfold(count)
    assert np.max(np.abs(np.abs(a) - np.linalg.norm(b, axis=1))) < 1e-12
    inputs = np.random.default_rng(0).normal(size=(20, d))
    inputs /= np.linalg.norm(inputs, axis=1)[:, None]
    assert np.max(np.abs(b[:, 2:].reshape(len(flow.signs), count, d - 2).sum(axis=1))) < 1e-11
    outputs = np.maximum(inputs @ b.T, 0.0) @ a / len(a)
    assert np.max(np.abs(outputs - flow.predict(inputs @ flow.basis.T))) < bound
    assert np.max(np.abs(flow.predict(inputs @ flow.basis.T, at=0))) < 1e-15  # both signs start alike


def test_prediction_has_the_energy() -> None:
    """1/2 E (f* - f)^2 by a rule of the ball, f from `predict`."""
    flow = lowdim_flow(PLANE, 4, [0.0, 15.0], nodes=(3, 5))
    points, weights = label_rule(2, 4, 60, 80)
    risk = 0.5 * float(weights @ (PLANE(points) - flow.predict(points)) ** 2)
    assert abs(risk - flow.energy[-1]) < 1e-6


def test_refine_estimates_the_error() -> None:
    times = [0.0, 10.0, 20.0]
    coarse = lowdim_flow(PLANE, 8, times, nodes=(2, 3), rtol=1e-7).refine()
    fine = lowdim_flow(PLANE, 8, times, nodes=(4, 8), rtol=1e-7)
    assert coarse.error is not None and coarse.error["times"] == 3
    for name in ("mass_plus", "mass_minus"):
        truth = np.max(np.abs(getattr(coarse, name) - getattr(fine, name)))
        assert truth / 3 < coarse.error[name] < 3 * truth
    assert "change under refinement" in str(coarse)


def test_many_dimensions_by_sobol_points() -> None:
    target = Teacher([1.0, -1.0], [[1.0, 0.0, 0.0, 0.0], [0.0, 0.6, 0.8, 0.0]])
    times = [0.0, 20.0]
    flow = lowdim_flow(target, 6, times, nodes=32, rtol=1e-6)
    again = lowdim_flow(target, 6, times, nodes=32, rtol=1e-6)
    assert flow.rigor is Rigor.SAMPLED and flow.initial == "sobol" and flow.points.shape == (2, 64, 5)
    assert np.array_equal(flow.masses, again.masses)
    smaller = lowdim_flow(lift(Teacher([1.0, -1.0], [[1.0, 0.0], [0.0, 1.0]]), 6), 6, times, nodes=(4, 5), rtol=1e-6)
    assert np.max(np.abs(flow.mass_plus - smaller.mass_plus)) < 0.03
    points, weights, _, _ = initial_measure(4, 6, 4096, 0)
    assert np.max(np.abs(6 * weights @ points[:, :4] ** 2 - 1)) < 0.02
    assert abs(6 * weights @ points[:, 4] ** 2 - 2) < 0.02


def test_sobol_points_are_compared_with_another_scramble() -> None:
    """The estimate must be of the size of the error; points that hold the first ones would tell less."""
    target, same = [Teacher([1.0, -1.0], np.eye(4)[:2, :n]) for n in (4, 2)]
    times = [0.0, 10.0]
    truth = lowdim_flow(same, 6, times, nodes=(4, 6), rtol=1e-6).mass_plus
    told, errors = [], []
    for seed in range(0, 12, 2):
        flow = lowdim_flow(target, 6, times, nodes=8, rtol=1e-5, seed=seed).refine()
        assert flow.error is not None
        told.append(flow.error["mass_plus"])
        errors.append(np.max(np.abs(flow.mass_plus - truth)))
    assert np.sqrt(np.mean(np.square(told))) > 0.8 * np.sqrt(np.mean(np.square(errors))) > 1e-4
    other = lowdim_flow(target, 6, times, nodes=16, rtol=1e-6, seed=11)
    assert told[-1] == pytest.approx(np.max(np.abs(other.mass_plus - flow.mass_plus)), rel=1e-12)
    assert "another scramble" in str(flow)


def test_functions_of_x_H_on_the_sphere_only() -> None:
    """x_1^2 + x_2^2 = 1 - x_3^2 for |x| = 1: H is the line of x_3."""
    times = [0.0, 1.0, 10.0]
    flow = lowdim_flow(Polynomial({(2, 0, 0): 1.0, (0, 2, 0): 1.0}), 3, times)
    line = lowdim_flow(Polynomial({(0,): 1.0, (2,): -1.0}), 3, times)
    assert flow.subspace_dimension == 1
    assert np.max(np.abs(flow.masses - line.masses)) < 1e-9 and np.max(np.abs(flow.energy - line.energy)) < 1e-9
    # the same by its values, as a function that is no polynomial of x_H off the sphere
    by_values = Sampled(lambda x: x[:, 0] ** 2 + x[:, 1] ** 2, 3, subspace=[[0.0, 0.0, 1.0]])
    seen, exact = seen_target(by_values, 3, 1e-10), seen_target(Polynomial({(0,): 1.0, (2,): -1.0}), 3, 1e-10)
    points = spread(20, 1)
    assert "harmonics" in seen.form
    assert np.max(np.abs(seen.potential(points)[0] - exact.potential(points)[0])) < 1e-12
    assert abs(seen.second_moment - exact.second_moment) < 1e-12


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_dependence_on_x_perp_is_measured_by_the_size_of_the_target(size: float) -> None:
    basis = [[1.0, 0.0, 0.0]]
    kept = Sampled(lambda x: size * np.abs(x[:, 0]), 3, subspace=basis)
    assert seen_target(kept, 3, 1e-6).second_moment == pytest.approx(size**2 / 3, rel=1e-6)
    for change in (lambda x: 1e-6 * x[:, 1], lambda x: 1e-6 * np.abs(x[:, 1])):
        moved = Sampled(lambda x, f=change: size * (np.abs(x[:, 0]) + f(x)), 3, subspace=basis)
        with pytest.raises(InputError, match="with x_perp on the sphere"):
            seen_target(moved, 3, 1e-6)
    with pytest.raises(InputError, match="with x_perp on the sphere"):  # dp = 1: the opposite point only
        seen_target(Sampled(lambda x: size * (x[:, 0] + 1e-6 * x[:, 2]), 3, subspace=np.eye(3)[:2]), 3, 1e-6)


def test_files_and_budgets(tmp_path: Path) -> None:
    times = np.linspace(0.0, 10.0, 41)
    plain = lowdim_flow(LINE, 3, times, nodes=3, path=tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "b.jsonl").write_text("".join(lines[:5]), encoding="utf-8")
    resumed = lowdim_flow(LINE, 3, times, nodes=3, path=tmp_path / "b.jsonl")
    assert np.array_equal(plain.masses, resumed.masses) and np.array_equal(plain.points, resumed.points)
    with pytest.raises(InputError):
        lowdim_flow(PLANE, 3, times, nodes=(2, 3), path=tmp_path / "a.jsonl")
    seen: list[float | None] = []
    short = lowdim_flow(LINE, 3, times, nodes=3, budget=0.0)
    assert not short.complete and short.reason and len(short.times) == 1 and len(short.masses) == 1
    assert json.loads(short.to_json())["complete"] is False and "not complete" in str(short)
    none = lowdim_flow(LINE, 3, [1.0, 2.0], nodes=3, budget=0.0)
    assert len(none.times) == 0 and str(none) and none.to_json()
    lowdim_flow(LINE, 3, times, nodes=3, progress=lambda done, text: seen.append(done))
    assert seen[-1] == 1.0


def test_documents_are_small_and_complete() -> None:
    flow = lowdim_flow(PLANE, 10, np.linspace(0.0, 20.0, 61), nodes=(6, 10), rtol=1e-6)
    text = flow.to_json()
    assert len(text) < 300_000
    found = json.loads(text)
    frames = found["frames"]
    assert frames["times"][0] == 0.0 and frames["times"][-1] == 20.0
    assert np.array(frames["points"]).shape == (len(frames["times"]), 240, 3)
    assert np.max(np.abs(np.sum(frames["masses"][-1]) - flow.mass_plus[-1] - flow.mass_minus[-1])) < 1e-4
    assert {len(column) for column in flow.to_frame().values()} == {61}
    report = str(flow)
    assert len(report.splitlines()) < 20 and max(map(len, report.splitlines())) < 120
    assert "settings" not in found and isinstance(flow, LowdimFlow)


# -- refusals --------------------------------------------------------------------------------------------------------

POINT = ([[0.6, 0.8]], 0.5, 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d": 1}, "1 <= dH < d"),
        ({"d": 0}, "dimension d: 0; give a whole number >= 1"),
        ({"target_on_H": "norm"}, "'norm' is no target; give one of fs.meanfield"),
        ({"target_on_H": Teacher([1.0], [[1.0, 0.0, 1.0]]), "d": 2}, "1 <= dH < d"),
        ({"target_on_H": Teacher([1.0, 1.0], [[1.0, 0.0], [0.0, 1.0]]), "d": 2}, "1 <= dH < d"),
        ({"target_on_H": Constant(1.0, 3), "d": 3}, "1 <= dH < d"),
        ({"times": [0.0, -1.0]}, "time -1"),
        ({"times": [2.0, 1.0]}, "increasing"),
        ({"times": [0.0, np.nan]}, "time"),
        ({"nodes": 0}, "nodes: 0; give a whole number >= 1"),
        ({"nodes": "many"}, "nodes 'many'; give a whole number"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": np.random.default_rng(0)}, "seed: Generator"),
        ({"nodes": (3, 3)}, "nodes"),
        ({"nodes": 3, "init": POINT}, "one of them"),
        ({"rtol": 0.0}, "rtol"),
        ({"init": ([[0.6, 0.7]], 0.5, 1.0)}, "unit rows"),
        ({"init": ([[0.6, -0.8]], 0.5, 1.0)}, "unit rows"),
        ({"init": ([[0.6, 0.8, 0.0]], 0.5, 1.0)}, "shape"),
        ({"init": ([[0.6, 0.8]], 0.0, 1.0)}, "positive"),
        ({"init": ([[0.6, 0.8]], np.inf, 1.0)}, "finite numbers"),
        ({"init": ([[0.6, 0.8]], 0.5, 0.5)}, "signs"),
        ({"init": ([[0.6, 0.8]], [0.5, 0.5], 1.0)}, "masses"),
        ({"init": ([["a", 0.8]], 0.5, 1.0)}, "numbers"),
        ({"init": ([[np.nan, 0.8]], 0.5, 1.0)}, "finite numbers"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], words: str) -> None:
    options: dict[str, object] = {"target_on_H": LINE, "d": 3, "times": [0.0, 1.0], **change}
    with pytest.raises(InputError, match=words) as caught:
        lowdim_flow(options.pop("target_on_H"), options.pop("d"), options.pop("times"), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_claimed_subspaces_are_checked() -> None:
    class Wrong(Teacher):
        @property
        def subspace(self) -> Array:  # type: ignore[override]
            return np.eye(1, self.dimension)

    with pytest.raises(InputError, match="x_perp"):
        lowdim_flow(Wrong([1.0], [[1.0, 0.1, 0.0]]), 3, [0.0, 1.0])
    with pytest.raises(InputError, match="no quadrature"):
        lowdim_flow(Projected(lambda z: z[:, 0] ** 2, (12, 9), counts=(1, 2)), 12, [0.0, 1.0])


def test_wrong_uses_of_results() -> None:
    flow = lowdim_flow(PLANE, 3, [0.0], nodes=(2, 2))
    for call in (
        lambda: flow.predict([[0.1]]),
        lambda: flow.predict([[1.0, 1.0]]),
        lambda: flow.predict([[0.1, 0.1]], perp=-1.0),
        lambda: flow.unfold(3),
    ):
        with pytest.raises(InputError):
            call()
    assert flow.predict([[1.0, 1.0]], perp=0.5).shape == (1,)
    rows = normals(np.array([[0.6, 0.8, 0.0]]))
    assert np.allclose(rows @ rows.T, np.eye(2)) and np.allclose(rows @ [0.6, 0.8, 0.0], 0)
