"""The dynamics of angles: vectors, an oracle of particles in R^d, identities, orders of convergence, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson, solve_ivp

from fiberscope.errors import InputError, IntegrationError
from fiberscope.meanfield.angles.flow import AngleFlow, angle_flow
from fiberscope.meanfield.angles.kernel import angle_kernel, angles_of, mean_of_shift
from fiberscope.meanfield.angles.system import (
    AngleSystem,
    fastest_rate,
    gauss_angles,
    graded_angles,
    label_law,
    modes_for,
    quantile_angles,
    truncation,
)  # fmt: skip
from fiberscope.meanfield.integrators import log_times

VECTORS = json.loads((Path(__file__).parent / "data" / "meanfield.json").read_text())
NAMES = {
    "mp": "mass_plus", "mm": "mass_minus", "W2p": "w2_plus", "W2m": "w2_minus", "meanp": "mean_plus",
    "meanm": "mean_minus", "A": "energy", "ER": "residual_mean",
}  # fmt: skip
PAIRS = [(30, 5), (20, 5), (10, 2), (6, 3), (2, 1), (3, 1), (3, 2)]


@pytest.fixture(scope="module")
def standard() -> AngleFlow:
    return angle_flow(30, 5, VECTORS["angle1d_meanfield"][0]["t"])


def gap(one: Any, other: Any) -> float:
    return float(np.max(np.abs(np.asarray(one) - np.asarray(other))))


# -- vectors -------------------------------------------------------------------------------------------------------


def test_vectors_of_the_flow_at_the_default_settings(standard: AngleFlow) -> None:
    row = VECTORS["angle1d_meanfield"][0]
    limits = {"mp": 1e-8, "mm": 1e-9, "W2p": 1e-6, "W2m": 1e-10, "meanp": 2e-7, "meanm": 1e-7, "A": 1e-10, "ER": 1e-9}
    for key, name in NAMES.items():
        assert gap(getattr(standard, name), row[key]) <= limits[key], name
    assert standard.method == "DOP853" and standard.complete


def test_vectors_within_their_own_accuracy() -> None:
    row = VECTORS["angle1d_meanfield"][0]
    fine = angle_flow(30, 5, row["t"], nodes=64, modes=80, rtol=1e-11)
    for key, name in NAMES.items():
        assert gap(getattr(fine, name), row[key]) <= 4 * max(row["max_change_under_refinement"][key], 2e-12), name


def test_critical_time_and_the_turns_of_the_masses(standard: AngleFlow) -> None:
    row = VECTORS["angle1d_tstar"]
    found = standard.overshoot()
    assert standard.critical_time == pytest.approx(row["t_star"], abs=1e-6)
    assert found["critical_time"] == standard.critical_time
    assert found["lowest"]["mass_minus"] == pytest.approx(row["min_mass_minus"], abs=1e-6)
    assert found["lowest"]["time"] == pytest.approx(103.4, abs=0.1)
    assert found["first_peak"]["excess"] == pytest.approx(row["first_local_max_excess"], abs=1e-6)
    assert found["final"] == pytest.approx(standard.mass_plus[-1] - standard.alpha, abs=1e-14)
    assert angle_flow(30, 5, [100.0]).critical_time is None


def test_vectors_of_thirty_two_quantiles() -> None:
    row = VECTORS["angle1d_quantile32"]
    flow = angle_flow(30, 5, row["t"], nodes=32, modes=80, init="quantile", rtol=1e-11)
    for key in ("mp", "mm", "A", "meanp", "meanm"):
        assert gap(getattr(flow, NAMES[key]), row[key]) <= 1e-8, key
    given_ = angle_flow(
        30, 5, row["t"], modes=80, rtol=1e-11,
        init=(np.tile(quantile_angles(30, 5, 32), 2), np.full(64, 1 / 64), np.repeat([-1, 1], 32)),
    )  # fmt: skip
    assert gap(given_.mass_plus, flow.mass_plus) <= 1e-12 and given_.initial == "given"


@pytest.mark.parametrize("row", VECTORS["phi_tilde"])
def test_vectors_of_the_kernel(row: dict[str, Any]) -> None:
    assert angle_kernel(row["dH"] + row["dp"], row["dH"], row["theta"], row["phi"]) == pytest.approx(
        row["value"], abs=1e-14
    )


def test_two_discretisations_agree_for_the_other_pairs() -> None:
    for d, dH, limit in ((20, 5, 1e-8), (10, 2, 1e-7), (6, 3, 1e-6)):
        gauss = angle_flow(d, dH, [0, 10, 100, 500], rtol=1e-10)
        graded = angle_flow(d, dH, [0, 10, 100, 500], nodes=64, init="graded", rtol=1e-10)
        assert gap(gauss.mass_plus, graded.mass_plus) <= limit
        assert gap(gauss.mass_minus, graded.mass_minus) <= limit


# -- an oracle that knows nothing of angles and harmonics -----------------------------------------------------------


def particles_in_space(
    d: int, dH: int, angles: Any, masses: Any, signs: Any, end: float, points: int = 32
) -> np.ndarray:
    """Full particles of R^d: every angle is a symmetric orbit, the target a teacher; masses and angles at the end.

    The kernel is E relu relu on the sphere (arc-cosine). Circles in H and its complement become regular polygons.
    """

    def sphere(n: int) -> np.ndarray:
        if n == 1:
            return np.array([[1.0], [-1.0]])
        turn = 2 * np.pi * np.arange(points) / points
        return np.stack([np.cos(turn), np.sin(turn)], axis=1)

    along, across = sphere(dH), sphere(d - dH)
    alpha = {1: 2.0, 2: np.pi}[dH]
    teacher = np.concatenate([along, np.zeros((len(along), d - dH))], axis=1)
    pairs = [np.repeat(along, len(across), axis=0), np.tile(across, (len(along), 1))]

    def field(t: float, y: np.ndarray) -> np.ndarray:
        c, theta = np.exp(y[: len(y) // 2]), y[len(y) // 2 :]
        everyone = np.concatenate(
            [np.concatenate([np.cos(a) * pairs[0], np.sin(a) * pairs[1]], axis=1) for a in theta] + [teacher]
        )
        loads = np.concatenate(
            [np.repeat(-signs * c / len(pairs[0]), len(pairs[0])), np.full(len(teacher), alpha / len(teacher))]
        )
        here = np.stack([np.concatenate([np.cos(a) * along[0], np.sin(a) * across[0]]) for a in theta])
        move = np.stack([np.concatenate([-np.sin(a) * along[0], np.cos(a) * across[0]]) for a in theta])
        cosine = np.clip(here @ everyone.T, -1.0, 1.0)
        rest = np.pi - np.arccos(cosine)
        value = (np.sqrt(1 - cosine**2) + rest * cosine) @ loads / (2 * np.pi * d)
        slope = (rest * (move @ everyone.T)) @ loads / (2 * np.pi * d)
        return np.concatenate([2 * signs * value, signs * slope])

    y = np.concatenate([np.log(masses), angles])
    return solve_ivp(field, (0, end), y, rtol=1e-9, atol=1e-11, method="DOP853").y[:, -1]


@pytest.mark.parametrize(("d", "dH", "limit"), [(2, 1, 1e-7), (3, 1, 1e-6), (3, 2, 1e-6), (4, 2, 1e-6)])
def test_particles_of_the_whole_space_move_the_same(d: int, dH: int, limit: float) -> None:
    angles, masses = np.array([0.35, 0.9, 1.3, 0.5, 1.1]), np.array([0.2, 0.3, 0.1, 0.25, 0.3])
    signs = np.array([1.0, 1.0, 1.0, -1.0, -1.0])
    oracle = particles_in_space(d, dH, angles, masses, signs, 8.0)
    flow = angle_flow(d, dH, [0, 8.0], init=(angles, masses, signs), modes=400)
    weights = np.concatenate([flow.weights_plus[-1], flow.weights_minus[-1]])
    found = np.concatenate([np.log(weights), flow.angles_plus[-1], flow.angles_minus[-1]])
    assert gap(found, oracle) <= limit
    assert gap(oracle[:5], np.log(masses)) > 0.1  # something happened


# -- the equation --------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    pair=st.sampled_from(PAIRS),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**31),
)
def test_the_jacobian_is_the_derivative_of_the_rate(pair: tuple[int, int], counts: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    system = AngleSystem(*pair, 12, counts)
    size = sum(counts)
    y = system.pack(rng.uniform(0.1, 1, size), rng.uniform(0.05, 1.5, size))
    step = 1e-6
    sides = [(system.rate(0, y + step * e) - system.rate(0, y - step * e)) / (2 * step) for e in np.eye(2 * size)]
    exact = system.jacobian(0, y)
    assert gap(exact, np.stack(sides, axis=1)) <= 1e-7 * (1 + np.abs(exact).max())


@settings(max_examples=30)
@given(pair=st.sampled_from(PAIRS), seed=st.integers(0, 2**31))
def test_the_rate_is_the_gradient_of_the_energy(pair: tuple[int, int], seed: int) -> None:
    """dA/dc_j = -eps_j G(theta_j) and dA/dtheta_j = -eps_j c_j G'(theta_j), so A' = -sum c (2 G^2 + G'^2)."""
    rng = np.random.default_rng(seed)
    system = AngleSystem(*pair, 16, (2, 3))
    y = system.pack(rng.uniform(0.1, 1, 5), rng.uniform(0.05, 1.5, 5))

    def energy(z: np.ndarray) -> float:
        return float(system.observables(z[None])["energy"][0])

    slopes = np.array([(energy(y + 1e-5 * e) - energy(y - 1e-5 * e)) / 2e-5 for e in np.eye(10)])
    masses, rate = np.exp(y[:5]), system.rate(0, y)
    assert gap(slopes[:5], -masses * rate[:5] / 2) <= 1e-8
    assert gap(slopes[5:], -masses * rate[5:]) <= 1e-8
    assert slopes @ rate == pytest.approx(float(system.observables(y[None])["dissipation"][0]), abs=1e-8)


@pytest.mark.parametrize(("d", "dH"), PAIRS)
def test_the_potential_is_the_mean_of_residual_times_kernel(d: int, dH: int) -> None:
    """G(theta) = E[(f* - f)(phi) phi~(theta; phi)] by quadrature over the angle of the input, f pointwise."""
    flow = angle_flow(d, dH, [0, 5.0], nodes=3, modes=500)
    phi, weights = gauss_angles(d, dH, 800)
    residual = np.cos(phi) - flow.predict(phi)[-1]
    theta = np.array([0.2, 0.8, 1.4])
    direct = angle_kernel(d, dH, theta[:, None], phi) @ (weights * residual)
    value, _, _ = flow.run.system.potential(flow.run.system.residual(flow.run.states[-1]), theta)
    assert gap(value, direct) <= 2e-7
    assert flow.residual_mean[-1] == pytest.approx(float(weights @ residual), abs=2e-7)
    assert flow.energy[-1] == pytest.approx(0.5 * float(weights @ residual**2), abs=2e-7)


@pytest.mark.parametrize(("d", "dH"), [*PAIRS, (30, 1), (30, 29), (600, 300)])
def test_the_mass_identity_along_runs(d: int, dH: int) -> None:
    flow = angle_flow(d, dH, [0, *np.geomspace(1, 300, 30)], nodes=16)
    assert np.abs(flow.identity_defect).max() <= 1e-12
    assert np.abs(flow.residual_mean).max() > 1e-3


def test_energy_never_increases_and_its_slope_is_the_dissipation() -> None:
    times = np.linspace(0, 3000, 3001)
    flow = angle_flow(30, 5, times, rtol=1e-11)
    assert (np.diff(flow.energy) < 0).all() and (flow.dissipation < 0).all()
    central = (flow.energy[:-4] - 8 * flow.energy[1:-3] + 8 * flow.energy[3:-1] - flow.energy[4:]) / 12
    assert gap(central, flow.dissipation[2:-2]) <= 3e-9
    assert central[18] == pytest.approx(flow.dissipation[20], rel=1e-6)
    assert flow.energy[0] == pytest.approx(5 / 60, abs=1e-11)


def test_the_limits_of_the_rates_are_known() -> None:
    for d, dH in PAIRS:
        system = AngleSystem(d, dH, 400, (1, 1))
        y = system.pack([system.alpha, 1e-300], [0.0, 1.0])
        assert -system.jacobian(0, y)[0, 0] == pytest.approx(fastest_rate(d, dH), rel=1e-4)
        beyond = 2 * system.alpha * float(((system.drive[40:] / system.alpha) ** 2).sum())
        other = AngleSystem(d, d - dH, 400)
        across = 2 * system.alpha * float(((other.drive[40:] / other.alpha) ** 2).sum())
        assert truncation(d, dH, 40) == pytest.approx(max(beyond, across), rel=5e-3)
        assert modes_for(d, dH, 8) >= 16 and modes_for(d, dH, 200) >= 400


# -- starts and orders of convergence ------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "dH"), PAIRS)
def test_the_rules_integrate_the_law_of_the_angle(d: int, dH: int) -> None:
    """cos^2 theta has the moments of a beta law: mean dH/d, second moment dH (dH + 2)/(d (d + 2))."""
    for angles, weights in (gauss_angles(d, dH, 8), graded_angles(d, dH, 250)):
        squares = np.cos(angles) ** 2
        assert (np.diff(angles) > 0).all() and weights.sum() == pytest.approx(1, abs=1e-14)
        assert weights @ squares == pytest.approx(dH / d, abs=1e-10)
        assert weights @ squares**2 == pytest.approx(dH * (dH + 2) / (d * (d + 2)), abs=1e-10)
    assert np.cos(quantile_angles(d, dH, 4000)) ** 2 @ np.full(4000, 1 / 4000) == pytest.approx(dH / d, abs=1e-3)


def test_errors_fall_faster_than_any_power_in_the_nodes() -> None:
    fine = angle_flow(30, 5, [300, 3000], nodes=48, rtol=1e-11)
    counts = (4, 8, 16, 32)
    error = [gap(angle_flow(30, 5, [300, 3000], nodes=m, rtol=1e-11).mass_minus, fine.mass_minus) for m in counts]
    orders = -np.diff(np.log2(error))
    assert (np.diff(orders) > 0.5).all() and orders[-1] > 7
    assert error[-1] < 1e-9


def test_equal_masses_converge_like_one_over_their_number() -> None:
    fine = angle_flow(30, 5, [30, 300], rtol=1e-8)
    counts = (8, 16, 32, 64)
    error = [
        gap(angle_flow(30, 5, [30, 300], nodes=m, init="quantile", rtol=1e-8).mass_plus, fine.mass_plus) for m in counts
    ]
    assert 0.9 < -np.polyfit(np.log(counts), np.log(error), 1)[0] < 1.4


@pytest.mark.parametrize(
    ("d", "dH", "nodes", "init"), [(30, 5, 8, "gauss"), (10, 2, 16, "gauss"), (6, 3, 12, "graded")]
)
def test_refine_brackets_the_error(d: int, dH: int, nodes: int, init: Any) -> None:
    times = [0, 10, 100, 500]
    flow = angle_flow(d, dH, times, nodes=nodes, init=init)
    best = angle_flow(d, dH, times, nodes=120, modes=256, rtol=1e-12)
    found = flow.refine()
    assert flow.error is None and found.error is not None
    for name in ("mass_plus", "mass_minus", "w2_plus", "mean_minus", "energy", "residual_mean"):
        true = gap(getattr(flow, name), getattr(best, name))
        assert true <= 2 * found.error[name] + 1e-11 and found.error[name] <= 3 * true + 1e-8, name
    assert "error estimates: mass_plus" in str(found)


def test_stiff_methods_agree_and_long_runs_use_them() -> None:
    times = [0, 100.0, 5e3]
    runs = [angle_flow(30, 5, times, nodes=8, modes=24, method=m) for m in ("DOP853", "Radau", "BDF", "auto")]
    assert runs[-1].method == "Radau" and gap(runs[-1].mass_plus, runs[1].mass_plus) == 0
    for other in runs[1:]:
        assert gap(runs[0].mass_minus, other.mass_minus) <= 1e-7
        assert runs[0].critical_time == pytest.approx(other.critical_time, abs=1e-5)
    assert angle_flow(30, 5, [5e3], nodes=101, modes=16, rtol=1e-3).method == "BDF"


def test_a_run_to_ten_million() -> None:
    flow = angle_flow(30, 5, log_times(1, 1e7, 8), nodes=32, modes=60, rtol=1e-8)
    assert (np.diff(flow.energy) < 0).all()
    assert flow.mass_minus[-1] == pytest.approx(0.0679301, abs=1e-6)  # of this discretisation, three integrators
    assert np.abs(flow.identity_defect).max() <= 1e-12


# -- densities, predictions, reports -------------------------------------------------------------------------------


def test_densities_are_carried_from_the_law(standard: AngleFlow) -> None:
    theta = np.linspace(1e-4, math.pi / 2 - 1e-4, 4001)
    plus, minus = standard.density(theta)
    law = 0.5 * np.exp(label_law(30, 5, np.log(np.tan(theta)))) / (np.sin(theta) * np.cos(theta))
    assert gap(plus[0], law) <= 1e-10 and gap(minus[0], law) <= 1e-10
    assert gap(simpson(plus, x=theta), standard.mass_plus) <= 2e-7
    assert gap(simpson(minus, x=theta), standard.mass_minus) <= 2e-7
    row = VECTORS["angle1d_meanfield"][0]
    assert gap(np.sqrt(simpson(plus * theta**2, x=theta) / standard.mass_plus), row["W2p"]) <= 5e-8
    assert gap(simpson(minus * theta, x=theta) / standard.mass_minus, row["meanm"]) <= 5e-8


def test_densities_where_the_law_does_not_vanish_at_the_ends() -> None:
    flow = angle_flow(2, 1, [0, 3.0, 30.0], nodes=64)
    theta = np.linspace(1e-6, math.pi / 2 - 1e-6, 20001)
    plus, minus = flow.density(theta)
    assert plus[0] == pytest.approx(np.full(20001, 1 / math.pi), abs=1e-7)
    assert gap(simpson(plus, x=theta), flow.mass_plus) <= 1e-3
    assert gap(simpson(minus, x=theta), flow.mass_minus) <= 1e-3
    assert flow.density(1e-3)[0].shape == (3, 1)


def test_histograms_hold_the_masses(standard: AngleFlow) -> None:
    edges, plus, minus = standard.histogram(30)
    assert edges.shape == (31,) and plus.shape == minus.shape == (len(standard.times), 30)
    assert gap(plus.sum(axis=1) * edges[1], standard.mass_plus) <= 2e-7
    assert gap(minus.sum(axis=1) * edges[1], standard.mass_minus) <= 2e-7
    counted = angle_flow(30, 5, [0, 10.0], nodes=1000, modes=20, init="quantile", rtol=1e-5)
    smooth = angle_flow(30, 5, [0, 10.0], nodes=16)
    assert gap(counted.histogram(6)[1], smooth.histogram(6)[1]) <= 2e-3
    with pytest.raises(InputError, match="density"):
        counted.density([0.5])


@pytest.mark.parametrize(("d", "dH"), [(5, 2), (7, 4), (3, 1), (4, 3), (2, 1)])
def test_the_kernel_is_a_mean_over_the_sphere(d: int, dH: int) -> None:
    rng = np.random.default_rng(d)
    x = rng.standard_normal((400_000, d))
    first = x[:, :dH] / np.linalg.norm(x[:, :dH], axis=1)[:, None]
    second = x[:, dH:] / np.linalg.norm(x[:, dH:], axis=1)[:, None]
    for theta, phi in ((0.3, 0.4), (1.2, 0.3), (0.9, 1.1)):
        dots = first[:, 0] * np.cos(theta) * np.cos(phi) + second[:, 0] * np.sin(theta) * np.sin(phi)
        values = np.maximum(dots, 0)
        spread = values.std() / math.sqrt(len(values))
        assert abs(float(angle_kernel(d, dH, theta, phi)) - values.mean()) <= 5 * spread


@given(d=st.integers(2, 40), share=st.floats(0, 1), theta=st.floats(0, math.pi / 2), phi=st.floats(0, math.pi / 2))
def test_the_kernel_is_symmetric_and_swaps_the_spaces(d: int, share: float, theta: float, phi: float) -> None:
    dH = 1 + int(share * (d - 2))
    value = float(angle_kernel(d, dH, theta, phi))
    assert value == pytest.approx(float(angle_kernel(d, dH, phi, theta)), abs=1e-13)
    other = float(angle_kernel(d, d - dH, math.pi / 2 - theta, math.pi / 2 - phi))
    assert value == pytest.approx(other, abs=1e-13)
    assert 0 <= value <= 0.5


def test_the_kernel_at_the_ends_is_closed() -> None:
    phi = np.linspace(0, math.pi / 2, 7)
    for d, dH in PAIRS:
        alpha = AngleSystem(d, dH, 2).alpha
        assert angle_kernel(d, dH, 0.0, phi) == pytest.approx(np.cos(phi) / alpha, abs=1e-14)
    assert mean_of_shift(2, np.zeros(1), np.ones(1)) == pytest.approx(2 / math.pi, abs=1e-15)


def test_predictions_fit_the_target_in_the_end(standard: AngleFlow) -> None:
    phi = np.linspace(0, math.pi / 2, 9)
    values = standard.predict(phi)
    assert values.shape == (10, 9)
    assert np.abs(values[0]).max() <= 1e-15
    assert gap(values[-1], np.cos(phi)) <= 0.08 < 0.5 < gap(values[2], np.cos(phi))
    phi, weights = gauss_angles(30, 5, 50)
    assert 0.5 * (np.cos(phi) - standard.predict(phi)) ** 2 @ weights == pytest.approx(standard.energy, abs=1e-8)
    points = np.zeros((2, 30))
    points[0, [0, 10]] = 3.0, 4.0
    points[1, 29] = 2.0
    found = standard.predict_points(points)
    assert gap(found[:, 0], 5 * standard.predict([math.atan2(4, 3)])[:, 0]) <= 1e-13
    rows = np.eye(30)[10:15]
    turned = standard.predict_points(points, rows)
    assert gap(turned[:, 0], 5 * standard.predict([math.atan2(3, 4)])[:, 0]) <= 1e-13
    assert angles_of(points, 30, 5)[1][1] == pytest.approx(math.pi / 2)


def test_reports_data_and_frames(standard: AngleFlow) -> None:
    text = str(standard)
    assert "m+ reaches alpha at time 102.0855" in text and len(text.splitlines()) < 20
    data = json.loads(standard.to_json())
    assert len(data["histogram"]["plus"]) == 10 and len(data["histogram"]["edges"]) == 46
    assert data["overshoot"]["lowest"]["mass_minus"] == pytest.approx(0.05065, abs=1e-4)
    assert "angles_plus" not in data and data["theorems"] == ["angle-reduction", "mass-identity"]
    many = angle_flow(30, 5, np.linspace(0, 100, 400), nodes=8)
    assert len(many.to_dict()["histogram"]["plus"]) == 100
    frame = standard.to_frame()
    assert {len(column) for column in frame.values()} == {10} and "energy" in frame
    assert "does not reach" in str(angle_flow(30, 5, [1.0], nodes=4))


# -- budgets, files, refusals --------------------------------------------------------------------------------------


def test_a_spent_budget_gives_what_was_reached() -> None:
    flow = angle_flow(30, 5, [0, 3000.0], nodes=8, budget=0.0)
    assert not flow.complete and flow.times.tolist() == [0.0] and "budget spent" in str(flow)
    assert len(flow.to_dict()["histogram"]["plus"]) == 1
    nothing = angle_flow(30, 5, [3000.0], nodes=8, budget=0.0)
    assert nothing.times.size == 0 and str(nothing) and nothing.to_json() and nothing.predict([0.1]).shape == (0, 1)
    with pytest.raises(InputError, match="none of the times"):
        nothing.refine()


def test_a_file_takes_up_a_run(tmp_path: Path) -> None:
    seen: list[str] = []
    path = tmp_path / "run.jsonl"
    whole = angle_flow(
        30, 5, [0, 300.0], nodes=8, path=tmp_path / "whole.jsonl", progress=lambda f, text: seen.append(text)
    )
    assert "m+ =" in seen[-1]
    first = angle_flow(30, 5, [0, 300.0], nodes=8, path=path, budget=0.0)
    again = angle_flow(30, 5, [0, 300.0], nodes=8, path=path)
    assert not first.complete and again.complete
    assert gap(again.mass_plus, whole.mass_plus) == 0
    with pytest.raises(InputError):
        angle_flow(30, 5, [0, 300.0], nodes=9, path=path)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((5, 5, [1.0]), {}, "complement"),
        ((5, 0, [1.0]), {}, "dH: 0; give a whole number >= 1"),
        ((1, 1, [1.0]), {}, "complement"),
        ((5.5, 2, [1.0]), {}, "whole number"),
        ((5, 2, [-1.0]), {}, "time -1"),
        ((5, 2, [2.0, 1.0]), {}, "increasing"),
        ((5, 2, [float("nan")]), {}, "finite"),
        ((5, 2, [1.0]), {"nodes": 0}, "nodes.*: 0; give a whole number >= 1"),
        ((5, 2, [1.0]), {"modes": 1}, "at least 2"),
        ((5, 2, [1.0]), {"rtol": 0.0}, "rtol"),
        ((5, 2, [1.0]), {"method": "Euler"}, "method"),
        ((5, 2, [1.0]), {"method": "dop853"}, "did you mean 'DOP853'"),
        ((5, 2, [1.0]), {"modes": "many"}, "modes: 'many'"),
        ((5, 2, [1.0]), {"rtol": None}, "rtol: None; give a finite number"),
        ((5, 2, [1.0]), {"budget": -1}, "budget -1; give seconds >= 0"),
        ((5, 2, np.array(["2020"], dtype="datetime64[D]")), {}, "give numbers, for instance"),
        ((5, 2, [1.0]), {"init": "random"}, "init"),
        ((5, 2, [1.0]), {"init": ([0.1], [1.0])}, "three lists"),
        ((5, 2, [1.0]), {"init": ([0.1, 0.2], [1.0], [1.0])}, "shapes"),
        ((5, 2, [1.0]), {"init": ([0.1, 2.0], [1.0, 1.0], [1.0, -1.0])}, "between 0 and pi/2"),
        ((5, 2, [1.0]), {"init": ([0.1, 0.2], [1.0, 0.0], [1.0, -1.0])}, "positive"),
        ((5, 2, [1.0]), {"init": ([0.1, 0.2], [1.0, 1.0], [1.0, 1.0])}, "at least one of each"),
    ],
)
def test_refusals(arguments: Any, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        angle_flow(*arguments, **options)


def test_refusals_of_the_rest() -> None:
    flow = angle_flow(5, 2, [1.0], nodes=2)
    for call in (
        lambda: flow.density([0.0]),
        lambda: flow.histogram(0),
        lambda: flow.predict([-0.1]),
        lambda: flow.predict_points(np.zeros((1, 4))),
        lambda: flow.predict_points(np.zeros((1, 5)), np.ones((2, 5))),
        lambda: flow.predict_points(np.zeros((1, 5)), np.ones((1, 5))),
        lambda: AngleSystem(5, 2, 8).split(6),
        lambda: AngleSystem(5, 2, 8).gauss_start(0),
        lambda: AngleSystem(300, 2, 20000),
        lambda: AngleSystem(2000, 2, 500),
    ):
        with pytest.raises(InputError):
            call()


def test_a_failed_run_says_when() -> None:
    with pytest.raises(IntegrationError) as caught:
        angle_flow(4, 2, [1.0], init=([0.5, 0.6], [1e200, 1.0], [1, -1]))
    assert caught.value.time == 0.0 and "failed at time" in str(caught.value)
