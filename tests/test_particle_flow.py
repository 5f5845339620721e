"""Particles: forces against differences and quadrature, groups, other losses and activations, runs taken up again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.errors import InputError, IntegrationError, UnsupportedError
from fiberscope.meanfield.angles.flow import angle_flow
from fiberscope.meanfield.angles.system import AngleSystem
from fiberscope.meanfield.harmonics.jacobi import sphere_rule
from fiberscope.meanfield.integrators import integrate
from fiberscope.meanfield.linear.odd import odd_flow
from fiberscope.meanfield.particles.flow import initial_neurons, particle_flow
from fiberscope.meanfield.particles.forces import forces_of, population_forces, population_risk
from fiberscope.meanfield.symmetry.groups import OrthogonalGroup, antipodal, cyclic, reflections
from fiberscope.meanfield.symmetry.invariance import invariance_defect
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import Linear, Teacher
from fiberscope.meanfield.targets.sampled import Sampled
from fiberscope.meanfield.targets.zonal import NormH
from fiberscope.results import Budget, Rigor

RELU = activation("relu")


def random_problem(d, m, seed, terms=3):
    rng = np.random.default_rng(seed)
    target = Teacher(rng.standard_normal(terms), rng.standard_normal((terms, d)))
    return rng.standard_normal(m), rng.standard_normal((m, d)), target


def norms_of_axes(d, count):
    """|x_1| + ... + |x_count|."""
    axes = np.eye(d)[:count]
    return Teacher(np.ones(2 * count), np.concatenate([axes, -axes]))


def halves(d):
    """The 64 maps of R^4 that permute {x1, x2} and {x3, x4} and flip signs."""
    first, second = np.arange(d), np.arange(d)
    first[:2], second[2:4] = [1, 0], [3, 2]
    flips = [np.where(np.arange(d) == k, -1.0, 1.0) for k in range(d)]
    plain = np.ones(d)
    return OrthogonalGroup([(first, plain), (second, plain), *((np.arange(d), f) for f in flips)], d)


def numbers_of(function, point, step=1e-6):
    """Central differences."""
    found = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        moved = point.copy()
        moved[index] += step
        above = function(moved)
        moved[index] -= 2 * step
        found[index] = (above - function(moved)) / (2 * step)
    return found


class Wrapped(Target):
    """A target known by its values only; the potential by a rule of nodes, as of a target that is not exact."""

    exact = False
    rigor = Rigor.SAMPLED

    def __init__(self, inner, nodes):
        self.inner, self.dimension, self.nodes = inner, inner.dimension, nodes

    def __call__(self, points):
        return self.inner(points)

    def potential(self, directions):
        x = self.nodes
        z = x @ directions.T
        pull = self.inner(x) / len(x)
        return pull @ RELU(z), (RELU.derivative(z) * pull[:, None]).T @ x

    second_moment = property(lambda self: self.inner.second_moment)
    linear_part = property(lambda self: self.inner.linear_part)
    parity = property(lambda self: self.inner.parity)
    subspace = property(lambda self: self.inner.subspace)
    group = property(lambda self: self.inner.group)


# -- forces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 3, 7])
def test_forces_are_minus_m_times_the_gradient_of_the_risk(d):
    a, b, target = random_problem(d, 5, d)
    values, gradients = population_forces(a, b, target)
    m = len(a)
    assert np.allclose(values, -m * numbers_of(lambda x: population_risk(x, b, target), a), atol=1e-8, rtol=0)
    by_rows = -m * numbers_of(lambda x: population_risk(a, x, target), b)
    assert np.allclose(a[:, None] * gradients, by_rows, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("d", "count", "error", "jumps"), [(2, 20_000, 1e-8, 2e-4), (3, 400, 2e-5, 5e-4)])
def test_forces_and_risk_against_quadrature(d, count, error, jumps):
    a, b, target = random_problem(d, 4, 10 + d)
    x, w = sphere_rule(d, count)
    z = x @ b.T
    residual = target(x) - RELU(z) @ a / len(a)
    values, gradients = population_forces(a, b, target)
    assert population_risk(a, b, target) == pytest.approx(0.5 * w @ residual**2, abs=error)
    assert np.allclose(values, (w * residual) @ RELU(z), atol=error, rtol=0)
    assert np.allclose(gradients, ((z > 0) * (w * residual)[:, None]).T @ x, atol=jumps, rtol=0)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_forces_of_a_dataset_are_the_gradient_of_its_risk(name, loss):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal(4), rng.standard_normal((4, 3))
    x, y = rng.standard_normal((20, 3)), rng.choice([-1.0, 1.0], 20)
    forces = forces_of(None, data=(x, y), loss=loss, activation=name)
    values, gradients, risk = forces.evaluate(a, b)
    out = activation(name)(x @ b.T) @ a / 4
    by_hand = np.logaddexp(0, -y * out) if loss == "logistic" else 0.5 * (y - out) ** 2
    assert risk == pytest.approx(by_hand.mean(), rel=1e-14)
    assert np.allclose(values, -4 * numbers_of(lambda t: forces.evaluate(t, b)[2], a), atol=1e-8, rtol=0)
    by_rows = -4 * numbers_of(lambda t: forces.evaluate(a, t)[2], b)
    assert np.allclose(a[:, None] * gradients, by_rows, atol=1e-8, rtol=0)


def test_probabilities_and_labels_are_one_thing():
    rng = np.random.default_rng(4)
    a, b, x = rng.standard_normal(3), rng.standard_normal((3, 2)), rng.standard_normal((6, 2))
    y = np.array([1.0, -1, -1, 1, 1, -1])
    first = forces_of(None, data=(x, y), loss="logistic").evaluate(a, b)
    second = forces_of(None, data=(x, (y + 1) / 2), loss="logistic").evaluate(a, b)
    assert all(np.array_equal(u, v) for u, v in zip(first, second, strict=True))


def test_the_log_odds_of_a_target_are_where_the_logistic_force_vanishes():
    target = Teacher([1.0, -2.0], [[1.0, 0.0], [0.0, 1.0]])
    forces = forces_of(target, loss="logistic")
    values, gradients, risk = forces.evaluate(np.array([2.0, -4.0]), np.eye(2))
    assert np.abs(values).max() < 1e-16 and np.abs(gradients).max() < 1e-16
    assert risk < forces.evaluate(np.array([2.0, -3.9]), np.eye(2))[2]


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal(6), rng.standard_normal((6, 3))
    forces = forces_of(None, data=(rng.standard_normal((50, 3)), rng.standard_normal(50)))
    whole = forces.evaluate(a, b)
    monkeypatch.setattr("fiberscope.meanfield.particles.forces._CHUNK", 40)
    for u, v in zip(whole, forces.evaluate(a, b), strict=True):
        assert np.allclose(u, v, atol=1e-15, rtol=1e-14)


def test_neurons_that_coincide_or_are_opposite_or_zero():
    target = Linear([1.0, 0.0, 0.0])
    b = np.array([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0], [0.0, 0, 0]])
    values, gradients = population_forces([4.0, 4, 4, 4], b, target)
    # T(e1) = 1/(2d), K(e1, e1) = 1/(2d), K(e1, -e1) = 0
    assert values == pytest.approx([1 / 6 - 2 / 6, 1 / 6 - 2 / 6, -1 / 6 - 1 / 6, 0], abs=1e-16)
    assert np.array_equal(gradients[3], [0, 0, 0]) and gradients[0] == pytest.approx([-1 / 6, 0, 0], abs=1e-16)


@given(st.floats(1e-12, 1e-3), st.booleans(), st.integers(2, 9))
def test_forces_do_not_lose_digits_between_near_neurons(gap, opposite, d):
    # K = |u||v| (sin t + (pi - t) cos t)/(2 pi d), with t = gap or pi - gap known here without rounding
    b = np.zeros((2, d))
    b[0, 0], b[1, 0], b[1, 1] = 1.0, np.cos(gap) * (-1 if opposite else 1), np.sin(gap)
    _, gradients = population_forces([0.0, 2.0], b, Linear(np.zeros(d)))
    rest = gap if opposite else np.pi - gap
    by_hand = -(np.sin(gap) * b[0] + rest * b[1]) / (2 * np.pi * d)
    assert np.allclose(gradients[0], by_hand, atol=4e-16, rtol=0)


# -- the flow --------------------------------------------------------------------------------------------------------


def test_energy_falls_at_the_rate_of_the_dissipation():
    a, b, target = random_problem(5, 40, 1)
    times = np.concatenate([[0], *([t - 1e-4, t, t + 1e-4] for t in (0.5, 2, 10, 50, 200))])
    flow = particle_flow(a, b, target, times, rtol=1e-11)
    assert (np.diff(flow.energy) < 0).all()
    slopes = (flow.energy[3::3] - flow.energy[1::3]) / 2e-4
    assert np.allclose(slopes, flow.dissipation[2::3], rtol=1e-5, atol=1e-11)
    assert flow.energy[0] == population_risk(a, b, target)
    assert flow.balance_drift.max() < 1e-9


def test_a_teacher_is_learnt():
    target = norms_of_axes(2, 1)
    flow = particle_flow(*initial_neurons(2, 32, seed=3), target, [0, 1000], rtol=1e-6)
    assert flow.energy[-1] < 5e-5 * flow.energy[0]
    x, _ = sphere_rule(2, 50)
    assert np.abs(flow.predict(x) - target(x)).max() < 1e-2
    assert flow.alignment[-1] > 0.8 > flow.alignment[0]


def test_4d_neurons_follow_the_infinite_net_for_odd_targets():
    d, beta = 20, 0.15
    times = [0, 1, 5, 10, 20, 50, 100]
    direction = np.random.default_rng(0).standard_normal(d)
    direction /= np.linalg.norm(direction)
    target = Linear(d * beta * direction)
    flow = particle_flow(*initial_neurons(d, 4 * d, kind="axes"), target, times, rtol=1e-11)
    expected = odd_flow(beta, d, times).w_norm[:, None] * direction
    assert np.abs(flow.linear_part - expected).max() < 1e-9
    x = np.random.default_rng(1).standard_normal((50, d))
    assert np.abs(flow.predict(x) - x @ flow.linear_part[-1]).max() < 1e-12 * np.abs(flow.linear_part[-1]).max() * 10


@pytest.mark.parametrize(("d", "n"), [(2, 0), (3, 12)])
def test_angles_of_symmetric_neurons_follow_the_reduced_dynamics(d, n):
    """f* = |x_1|: orbits of sign flips (d = 2) or of flips and a fine rotation about x_1 (d = 3, up to its error)."""
    angles, masses = np.array([0.3, 0.7, 1.2]), np.array([0.5, 0.3, 0.2])
    signs = np.array([1.0, -1.0, 1.0])
    order = [0, 2, 1]  # the positive ones first
    times = np.array([0.0, 3.0, 10.0])
    system = AngleSystem(d, 1, 400, counts=(2, 1))
    reduced = integrate(system.rate, system.pack(masses[order], angles[order]), times, rtol=1e-11).states
    start = np.stack([np.cos(angles), np.sin(angles), *[np.zeros(3)] * (d - 2)], axis=1)
    turn = cyclic(16 if n else 2, (1, 2) if n else (0, 1), d)
    group = OrthogonalGroup([*turn.generators, *reflections(d).generators[:2]], d)
    orbits = [group.orbit_of(row[None]) for row in start]
    sizes = np.array([len(o) for o in orbits])
    m = sizes.sum()
    heads = signs * np.sqrt(masses * m / sizes)
    rows = np.concatenate([abs(h) * o for h, o in zip(heads, orbits, strict=True)])
    flow = particle_flow(np.repeat(heads, sizes), rows, norms_of_axes(d, 1), times, group=group, rtol=1e-11)
    error = 1e-7 if d == 2 else 1e-3
    ends = np.cumsum(sizes)
    for k, j in enumerate(order):
        found = flow.B[:, ends[j] - 1]
        theta = np.arctan2(np.linalg.norm(found[:, 1:], axis=1), np.abs(found[:, 0]))
        assert np.abs(theta - reduced[:, 3 + k]).max() < error
        mass = sizes[j] / m * np.square(found).sum(axis=1)
        assert np.abs(mass - np.exp(reduced[:, k])).max() < error * 10
    assert np.allclose(flow.mass_plus - flow.mass_minus, np.exp(reduced[:, :3]) @ [1, 1, -1], atol=error * 10)


def test_a_net_for_the_norm_of_a_projection_follows_the_angle_flow():
    """Orbits of 2304 neurons under signed permutations of H and of H-perp stand for those of O(3) x O(3)."""
    d, times = 6, [0, 5, 20]
    swap, turn, flip = [1, 0, 2, 3, 4, 5], [1, 2, 0, 3, 4, 5], [-1.0, 1, 1, 1, 1, 1]
    inside = [(swap, [1.0] * d), (turn, [1.0] * d), (range(d), flip)]
    back = np.array([3, 4, 5, 0, 1, 2])
    outside = [(back[np.array(perm)][back], np.array(sign)[back]) for perm, sign in inside]
    group = OrthogonalGroup([*((np.array(p), np.array(s)) for p, s in inside), *outside], d)
    angles, masses, signs = np.array([0.3, 0.9, 1.3]), np.array([0.6, 0.3, 0.1]), np.array([1.0, 1.0, -1.0])
    # a direction on which the invariants of degree 4 have their mean over the sphere: sum y_i^4 = 3/5
    y = np.sqrt([0.7236067977, 0.2763932023, 0.0])
    rows = np.array([np.concatenate([np.cos(t) * y, np.sin(t) * y]) for t in angles])
    orbits = [group.orbit_of(row[None]) for row in rows]
    m = sum(map(len, orbits))
    heads = [s * np.sqrt(c * m / len(o)) for s, c, o in zip(signs, masses, orbits, strict=True)]
    rows = np.concatenate([abs(h) * o for h, o in zip(heads, orbits, strict=True)])
    start = np.repeat(heads, [len(o) for o in orbits]), rows
    flow = particle_flow(*start, NormH((d, 3)), times, group=group)
    limit = angle_flow(d, 3, times, init=(angles, masses, signs), modes=80)
    assert (flow.rows, flow.width, flow.group_order) == (3, 1728, 2304)
    assert np.abs(flow.mass_plus - limit.mass_plus).max() < 1.5e-3
    assert np.abs(flow.mass_minus - limit.mass_minus).max() < 3e-5
    assert np.abs(flow.energy - limit.energy).max() < 1.5e-4
    assert flow.invariance_defect.max() < 1e-13


@pytest.mark.slow
def test_random_neurons_approach_the_mean_field_like_one_over_the_square_root_of_their_number():
    d, times, sizes = 5, [0, 4], [32, 128, 512]
    limit = odd_flow(0.2, d, times).w_norm[-1]
    errors = []
    for m in sizes:
        found = []
        for seed in range(16):
            flow = particle_flow(*initial_neurons(d, m, seed=seed), Linear([1.0, 0, 0, 0, 0]), times, rtol=1e-4)
            found.append(np.linalg.norm(flow.linear_part[-1] - limit * np.eye(d)[0]))
        errors.append(np.sqrt(np.mean(np.square(found))))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -0.65 < slope < -0.35


# -- groups ----------------------------------------------------------------------------------------------------------


def test_one_neuron_of_each_orbit_gives_the_whole_run():
    group, target = halves(4), norms_of_axes(4, 2)
    a, b = initial_neurons(4, 128, group=group, seed=2)
    folded = particle_flow(a, b, target, [0, 10, 50], group=group)
    whole = particle_flow(a, b, target, [0, 10, 50], group=group, fold=False)
    assert (folded.rows, whole.rows, folded.group_order, folded.width) == (2, 128, 64, 128)
    size = np.abs(whole.B).max()
    assert np.abs(folded.B - whole.B).max() < 1e-12 * size and np.abs(folded.a - whole.a).max() < 1e-12 * size
    assert np.allclose(folded.energy, whole.energy, rtol=1e-12, atol=0)
    assert np.allclose(folded.dissipation, whole.dissipation, rtol=1e-11, atol=0)
    assert folded.invariance_defect.max() <= 1e-13 and whole.invariance_defect.max() <= 1e-13
    assert folded.theorems == ("meanfield-symmetry",) and whole.theorems == ()


def test_neurons_on_mirrors_have_small_orbits():
    group, target = reflections(3), norms_of_axes(3, 3)
    rows = np.concatenate([group.orbit_of([row]) for row in ([1.0, 0, 0], [0, 1.0, 1.0], [1.0, 2.0, 3.0])])
    heads = np.repeat([1.0, -1.0, 0.5], [2, 4, 8])
    shuffled = np.random.default_rng(0).permutation(14)
    rows, heads = rows[shuffled], heads[shuffled]
    folded = particle_flow(heads, rows, target, [0, 5], group=group, rtol=1e-13)
    whole = particle_flow(heads, rows, target, [0, 5], rtol=1e-13)
    assert folded.rows == 3 and np.abs(folded.B - whole.B).max() < 1e-12
    assert np.allclose(folded.energy, whole.energy, rtol=1e-13)


def test_a_rotation_group_is_kept_up_to_rounding():
    group = cyclic(5, (0, 1), 3)
    corners = np.stack([np.cos(2 * np.pi * np.arange(5) / 5), np.sin(2 * np.pi * np.arange(5) / 5), np.ones(5)], axis=1)
    target = Teacher(np.ones(5), corners)
    a, b = initial_neurons(3, 20, group=group, seed=1)
    folded = particle_flow(a, b, target, [0, 5], group=group, rtol=1e-12)
    whole = particle_flow(a, b, target, [0, 5], rtol=1e-12)
    assert folded.rows == 4 and np.abs(folded.B - whole.B).max() < 1e-11


def test_neurons_on_mirrors_stay_there_however_long():
    """The axes lie on mirrors of the group of the square; rounding off them would grow by e^0.02 a unit of time."""
    rows = np.array([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
    target = Teacher(np.ones(4), rows)
    a, b = initial_neurons(3, 12, kind="axes")
    flow = particle_flow(a, b, target, [0, 300, 1200], group=target.group)
    assert flow.rows == 4 and flow.group_order == 16
    assert (np.diff(flow.energy) <= 1e-14).all() and flow.invariance_defect.max() < 1e-14
    # the zeros of the axes, and nothing but them, are kept
    assert np.array_equal(flow.B[-1] == 0, b == 0)
    assert np.array_equal(flow.B[-1][[0, 3]], -flow.B[-1][[3, 0]])
    unfolded = particle_flow(a, b, target, [0, 100], rtol=1e-12)
    folded = particle_flow(a, b, target, [0, 100], group=target.group, rtol=1e-12)
    assert np.abs(unfolded.B - folded.B).max() < 1e-10


def test_neurons_on_diagonal_mirrors_keep_equal_coordinates_to_the_bit():
    group = OrthogonalGroup([([1, 0, 2], [1.0, 1.0, 1.0]), ([0, 1, 2], [1.0, 1.0, -1.0])], 3)
    rows = group.orbit_of([[0.3, 0.3, 0.1]])
    b = np.concatenate([rows, [[0.7, 0.7, 0.0]]])
    target = Teacher(np.ones(4), group.orbit_of([[1.0, 0.2, 0.4]]))
    flow = particle_flow([1.0, 1.0, -1.0], b, target, [0, 3, 40], group=group)
    assert flow.rows == 2 and np.array_equal(flow.B[..., 0], flow.B[..., 1]) and not flow.B[:, 2, 2].any()
    assert np.array_equal(flow.B[:, 0, 2], -flow.B[:, 1, 2]) and np.abs(flow.B[-1] - b).min(axis=0)[0] > 1e-3
    whole = particle_flow([1.0, 1.0, -1.0], b, target, [0, 3, 40], rtol=1e-11)
    assert np.abs(whole.B - flow.B).max() < 1e-7 and np.allclose(whole.dissipation, flow.dissipation, rtol=1e-6)


@pytest.mark.parametrize("n", [3, 5])
def test_neurons_on_the_axis_of_a_rotation_stay_there(n):
    group = cyclic(n, (0, 1), 3)
    target = Teacher(np.ones(n), group.orbit_of([[1.0, 0.2, 0.3]]))
    b = np.concatenate([[[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], group.orbit_of([[0.3, 0.5, 0.2]])])
    a = np.array([1.0, -1.0] + [0.5] * n)
    flow = particle_flow(a, b, target, [0, 100, 500], group=group)
    assert flow.rows == 3 and not flow.B[:, :2, :2].any() and flow.invariance_defect.max() < 1e-14
    assert (np.diff(flow.energy) <= 1e-14).all()
    whole = particle_flow(a, b, target, [0, 20], rtol=1e-12)
    folded = particle_flow(a, b, target, [0, 20], group=group, rtol=1e-12)
    assert np.abs(whole.B - folded.B).max() < 1e-10 and np.allclose(whole.energy, folded.energy, rtol=1e-11)


def test_outer_weights_are_never_matched_nearly():
    group = cyclic(3, (0, 1), 3)
    rows = group.orbit_of([[1.0, 0.2, 0.3]])
    with pytest.raises(InputError, match="with equal labels"):
        particle_flow([1e-4, -1e-4, 1e-4], 1e6 * rows, Teacher(np.ones(3), rows), [0], group=group)
    flow = particle_flow([1e-4, 1e-4, 1e-4], 1e6 * rows, Teacher(np.ones(3), rows), [0], group=group)
    assert flow.rows == 1


def test_a_dataset_of_rotations_may_have_labels_with_rounding():
    group = cyclic(5, (0, 1), 3)
    x = group.orbit_of(np.random.default_rng(0).standard_normal((4, 3)))
    y = np.exp(np.hypot(x[:, 0], x[:, 1]))
    assert len(np.unique(y)) > 4  # rounding tells them apart
    a, b = initial_neurons(3, 10, group=group, seed=1)
    flow = particle_flow(a, b, None, [0, 1], data=(x, y), group=group, activation="tanh")
    assert flow.rows == 2 and flow.invariance_defect.max() < 1e-13
    y[3] += 1e-6
    with pytest.raises(InputError, match="the dataset is not invariant"):
        particle_flow(a, b, None, [0, 1], data=(x, y), group=group, activation="tanh")


def test_random_neurons_are_not_invariant_and_the_watched_group_says_so():
    group, target = halves(4), norms_of_axes(4, 2)
    a, b = initial_neurons(4, 64, seed=2)
    flow = particle_flow(a, b, target, [0, 5], group=group, fold=False)
    assert flow.rows == 64 and flow.invariance_defect.min() > 1e-3
    with pytest.raises(InputError, match="the neurons are not invariant under the group"):
        particle_flow(a, b, target, [0, 5], group=group)
    a, b = initial_neurons(4, 64, group=group, seed=2)
    a[7] += 1e-6
    with pytest.raises(InputError, match="the neurons are not invariant under the group"):
        particle_flow(a, b, target, [0, 5], group=group)


def test_a_target_or_dataset_without_the_symmetry_is_refused():
    group = halves(4)
    a, b = initial_neurons(4, 64, group=group)
    with pytest.raises(InputError, match=r"the target is not invariant under the group: .* reaches"):
        particle_flow(a, b, Linear(np.ones(4)), [0, 1], group=group)
    x = np.random.default_rng(0).standard_normal((8, 4))
    with pytest.raises(InputError, match="the dataset is not invariant under the group"):
        particle_flow(a, b, None, [0, 1], group=group, data=(x, np.ones(8)))
    with pytest.raises(InputError, match="a group in dimension 3"):
        particle_flow(a, b, norms_of_axes(4, 2), [0, 1], group=reflections(3))


def test_odd_pairs_keep_the_net_odd():
    a, b = initial_neurons(4, 40, kind="antipodal", seed=1)
    flow = particle_flow(a, b, Linear([1.0, -1.0, 0.5, 0.0]), [0, 50])
    x = np.random.default_rng(0).standard_normal((30, 4))
    assert np.abs(flow.predict(x) + flow.predict(-x)).max() < 1e-12


def test_targets_that_are_not_exact_are_averaged_over_the_group():
    group, inner = halves(4), norms_of_axes(4, 2)
    nodes = np.random.default_rng(0).standard_normal((64, 4))
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    a, b = initial_neurons(4, 128, group=group, seed=2)
    images = np.concatenate([nodes @ t.T for t in group.elements()])
    averaged = forces_of(Wrapped(inner, nodes), group=group).evaluate(a, b)
    ruled = forces_of(Wrapped(inner, images)).evaluate(a, b)
    plain = forces_of(Wrapped(inner, nodes)).evaluate(a, b)
    for u, v in zip(averaged, ruled, strict=True):
        assert np.allclose(u, v, atol=1e-14, rtol=0)
    assert np.abs(averaged[1] - plain[1]).max() > 1e-3
    folded = particle_flow(a, b, Wrapped(inner, nodes), [0, 0.1], group=group, rtol=1e-4)
    assert folded.rows == 2 and folded.rigor is Rigor.SAMPLED and folded.invariance_defect[-1] < 1e-13


# -- other losses, activations, datasets -----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("name", ["relu", "tanh", "softplus"])
def test_any_activation_and_loss_keeps_the_symmetry_of_a_dataset(name, loss):
    group = OrthogonalGroup([([1, 0], [1.0, 1.0])], 2)
    x = np.array([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])
    y = np.array([1.0, -1, -1, -1])
    a, b = initial_neurons(2, 8, group=group, seed=5)
    whole = particle_flow(a, b, None, [0, 1, 8], data=(x, y), loss=loss, activation=name, group=group, fold=False)
    folded = particle_flow(a, b, None, [0, 1, 8], data=(x, y), loss=loss, activation=name, group=group)
    assert whole.invariance_defect.max() <= 1e-13 and (np.diff(whole.energy) < 0).all()
    assert folded.rows == 4 and np.abs(folded.B - whole.B).max() < 1e-12 * np.abs(whole.B).max()
    assert (folded.balance_drift is not None) == (name == "relu")
    by_hand = sum(folded.a[-1, j] * activation(name)(x @ folded.B[-1, j]) for j in range(8)) / 8
    assert np.allclose(folded.predict(x), by_hand, rtol=1e-13)
    assert np.allclose(folded.energy, whole.energy, rtol=1e-12)


def test_a_rule_for_other_activations_is_invariant_once_averaged():
    group, target = cyclic(4, (0, 1), 5), norms_of_axes(5, 2)
    a, b = initial_neurons(5, 24, group=group, seed=3)
    flow = particle_flow(a, b, target, [0, 3, 10], group=group, activation="tanh", samples=128)
    assert flow.rows == 6 and flow.invariance_defect.max() < 1e-13 and flow.rigor is Rigor.SAMPLED
    assert "averaged over 4 maps" in flow.expectation and (np.diff(flow.energy) < 0).all()
    alone = particle_flow(a, b, target, [0, 10], group=group, fold=False, activation="tanh", samples=128)
    assert alone.invariance_defect[-1] > 1e-6  # the rule itself is not invariant


def test_rules_converge_to_the_closed_form():
    # leaky ReLU of slope 0 is ReLU, but goes through the rules
    for d, samples, error in ((2, 4000, 1e-6), (3, 20_000, 2e-4), (6, 1 << 15, 2e-3)):
        a, b, target = random_problem(d, 6, 20 + d)
        exact = forces_of(target).evaluate(a, b)
        ruled = forces_of(target, activation=activation("leaky_relu", 0), samples=samples)
        assert ruled.rigor is (Rigor.NUMERICAL if d <= 3 else Rigor.SAMPLED)
        found = ruled.evaluate(a, b)
        assert np.abs(found[0] - exact[0]).max() < error and abs(found[2] - exact[2]) < error


def test_averaging_a_rule_leaves_the_mean_of_invariant_functions():
    group, target = cyclic(4, (0, 1), 5), norms_of_axes(5, 2)
    plain = forces_of(target, activation="tanh", samples=512)
    averaged = forces_of(target, activation="tanh", samples=512, group=group)
    assert len(averaged.points) == 4 * len(plain.points) == 2048
    assert averaged.weights.sum() == pytest.approx(1, rel=1e-12)
    zero = np.zeros(1), np.zeros((1, 5))  # the risk of the net 0 is E[f*^2] / 2
    assert averaged.evaluate(*zero)[2] == pytest.approx(plain.evaluate(*zero)[2], rel=1e-12)
    with pytest.raises(InputError, match="give fewer samples"):
        forces_of(target, activation="tanh", samples=1 << 19, group=group)


def test_a_flow_is_read_by_the_checks_of_invariance():
    group, slope = reflections(3), activation("leaky_relu", 0.25)
    a, b = initial_neurons(3, 16, group=group, seed=2)
    x = np.random.default_rng(0).standard_normal((5, 3))
    x = group.orbit_of(x)
    flow = particle_flow(a, b, None, [0, 2], group=group, data=(x, np.abs(x[:, 0])), activation=slope)
    assert flow.activation is slope and flow.to_dict()["activation"] == "leaky_relu(0.25)"
    assert invariance_defect(flow, group) == 0.0 and invariance_defect(flow, group, kind="function") < 1e-13
    first = flow.balance_drift[-1]
    assert 0 < first < 1e-2


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["DOP853", "Heun"])
def test_a_run_taken_up_again_is_the_same_to_the_bit(tmp_path, method):
    a, b, target = random_problem(4, 12, 7)
    times = np.linspace(0, 20, 41)
    calls = []

    def enough():
        calls.append(1)
        return len(calls) > (12 if method == "DOP853" else 60)

    options = {"method": method, "path": tmp_path / "run"}
    broken = particle_flow(a, b, target, times, budget=Budget(cancelled=enough), **options)
    assert not broken.complete and 0 < len(broken.times) < 41 and "budget" in broken.reason
    assert "stopped at t = " in str(broken)
    again = particle_flow(a, b, target, times, **options)
    undisturbed = particle_flow(a, b, target, times, method=method, path=tmp_path / "other")
    assert again.complete and np.array_equal(again.B, undisturbed.B) and np.array_equal(again.a, undisturbed.a)
    with pytest.raises(InputError):
        particle_flow(a, 2 * b, target, times, **options)


def test_a_file_of_another_problem_is_refused(tmp_path):
    """Runs that differ in one thing only, some with equal means of the sizes of all forces."""
    a, b = np.array([1.0, -1.0]), np.array([[1.0, 0.0], [0.0, 1.0]])
    turn = OrthogonalGroup([([1, 0], [-1.0, 1.0])], 2)
    mirror = OrthogonalGroup([([0, 1], [-1.0, 1.0]), ([0, 1], [1.0, -1.0])], 2)
    c, corners = np.ones(4), np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    square = Teacher(np.ones(4), np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    pairs = [
        [(a, b, Linear([1.0, 0.0])), (a, b, Linear([0.0, 1.0]))],
        [(a, b, Linear([1.0, 0.0])), (a, b, Linear([1.0 + 1e-15, 0.0]))],
        [(a, b, None, {"data": (x, [1.0, 2.0])}), (a, b, None, {"data": (x, [2.0, 1.0])})],
        [(a, b, None, {"data": (x, [1.0, 2.0])}), (a, b, None, {"data": (2 * x, [1.0, 2.0])})],
        [(c, corners, square, {"group": turn}), (c, corners, square, {"group": mirror})],
        [(c, corners, square, {"group": turn}), (c, corners, square, {"group": turn, "fold": False})],
        [(a, b, Linear([1.0, 0.0]), {"rtol": 1e-6}), (a, b, Linear([1.0, 0.0]), {"rtol": 1e-7})],
    ]
    for k, runs in enumerate(pairs):
        (first, second) = (run if len(run) == 4 else (*run, {}) for run in runs)
        path = tmp_path / str(k)
        done = particle_flow(*first[:3], [0, 1], path=path, **first[3])
        with pytest.raises(InputError, match="belongs to another task"):
            particle_flow(*second[:3], [0, 1], path=path, **second[3])
        again = particle_flow(*first[:3], [0, 1], path=path, **first[3])
        assert np.array_equal(again.B, done.B)


@pytest.mark.parametrize("group", [None, antipodal(2)])
def test_a_budget_spent_before_the_first_output_gives_no_times(group):
    target = Teacher([1.0, 1.0], [[1.0, 0.0], [-1.0, 0.0]])
    flow = particle_flow([1.0, 1.0], [[0.7, 0.7], [-0.7, -0.7]], target, [5.0, 10.0], group=group, budget=1e-9)
    assert not flow.complete and flow.times.shape == (0,) and flow.B.shape == (0, 2, 2) and flow.energy.shape == (0,)
    assert "budget" in str(flow) and json.loads(flow.to_json())["times"] == []
    assert {len(column) for column in flow.to_frame().values()} == {0} and flow.linear_part.shape == (0, 2)


def test_the_error_of_the_expectation_is_told_where_it_is_known():
    a, b, target = random_problem(4, 3, 1)
    exact = particle_flow(a, b, target, [0, 0.1])
    assert exact.expectation_error == 0.0 and "error estimate" not in str(exact)
    f = lambda x: np.exp(x[:, 0])  # noqa: E731
    sampled = Sampled(f, 4, count=256)
    flow = particle_flow(a, b, sampled, [0], rtol=1e-4)
    assert flow.expectation_error == pytest.approx(sampled.error * np.linalg.norm(b, axis=1).max(), rel=1e-14)
    best = forces_of(Sampled(f, 4, count=1 << 16)).evaluate(a, b)[0]
    truth = np.abs(forces_of(sampled).evaluate(a, b)[0] - best).max()
    assert truth < 4 * flow.expectation_error and f"{flow.expectation_error:.1e}" in str(flow)
    unknown = particle_flow(a, b, Wrapped(target, np.eye(4)), [0])
    assert unknown.expectation_error is None and "no estimate" in str(unknown)
    data = particle_flow(a, b, None, [0, 0.1], data=(np.eye(4), np.ones(4)))
    assert data.expectation_error == 0.0
    for d, samples in ((3, 64), (5, 128)):
        a, b, target = random_problem(d, 3, d)
        rule = particle_flow(a, b, target, [0], activation="tanh", samples=samples)
        fine = forces_of(target, activation="tanh", samples=1 << 15)
        truth = np.abs(forces_of(target, activation="tanh", samples=samples).evaluate(a, b)[0] - fine.evaluate(a, b)[0])
        assert truth.max() / 3 < rule.expectation_error < 0.1
        assert json.loads(rule.to_json())["expectation_error"] == rule.expectation_error


@pytest.mark.parametrize("times", [[0.0], [0.0, 1.0]])
def test_nothing_beyond_the_range_of_floats_leaves(times):
    with pytest.raises(IntegrationError, match="beyond the range of floats"):
        particle_flow([1e160], [[1e160, 0.0]], Linear([1.0, 0.0]), times)
    with pytest.raises(IntegrationError, match="beyond the range of floats"):
        particle_flow([1e100, 1.0], [[1e60, 0.0], [1e150, 1e160]], Linear([1.0, 0.0]), [0.0])


def test_a_run_that_blows_up_raises_with_the_time_reached():
    with pytest.raises(IntegrationError, match="failed at time") as caught:
        particle_flow([1.0], [[1.0, 1.0]], None, [0, 10], data=([[1.0, 1.0]], [1e200]), activation="square")
    assert 0 <= caught.value.time < 10


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1.0], [[np.nan, 0.0]]), {}, "NaN or an infinity"),
        (([1.0, 2.0], [[1.0, 0.0]]), {}, "neurons of shapes"),
        (([1.0], [[1.0, 0.0, 0.0]]), {}, "neurons of dimension 3"),
        ((["one"], [[1.0, 0.0]]), {}, "a: .* no number"),
        (([1.0], [[1.0, 0.0]]), {"loss": "hinge"}, "loss: 'hinge'"),
        (([1.0], [[1.0, 0.0]]), {"device": "tpu"}, "device: 'tpu'"),
        (([1.0], [[1.0, 0.0]]), {"rtol": 0}, "rtol: 0; .* > 0"),
        (([1.0], [[1.0, 0.0]]), {"method": "Euler"}, "method: 'Euler'"),
        (([1.0], [[1.0, 0.0]]), {"method": "dop853"}, "did you mean 'DOP853'"),
        (([1.0], [[1.0, 0.0]]), {"rtol": "tiny"}, "rtol: 'tiny'; give a finite number"),
        (([1.0], [[1.0, 0.0]]), {"group": "flips"}, "group: 'flips'"),
        (([1.0], [[1.0, 0.0]]), {"group": np.eye(3)}, "shape"),
        (([1.0], [[1.0, 0.0]]), {"path": 3}, "path 3; give the path"),
        (([1.0], [[1.0, 0.0]]), {"budget": "soon"}, "budget 'soon'; give seconds"),
        (([1.0], [[1.0, 0.0]]), {"progress": 1}, "progress 1; give a function"),
        (([1.0], [[1.0, 0.0]]), {"activation": "tanh", "seed": -1}, "seed: -1"),
        (([1.0], [[1.0, 0.0]]), {"activation": "tanh", "seed": np.random.default_rng(0)}, "seed: Generator"),
        (([1.0], [[1.0, 0.0]]), {"step": -1.0}, "step: -1.0; .* > 0"),
        (([1.0], [[1.0, 0.0]]), {"activation": "tanh", "samples": 0}, "samples: 0; .* >= 1"),
        (([1.0], [[1.0, 0.0]]), {"data": ([[1.0, 0.0]], [1.0, 2.0])}, "data of shapes"),
        (([1.0], [[1.0, 0.0]]), {"data": ([[1.0, 0.0]], [np.inf])}, "NaN or an infinity"),
        (([1.0], [[1.0, 0.0]]), {"data": 3.0}, "no pair of arrays"),
        (([1.0], [[1.0, 0.0]]), {"data": ([[1.0, 0.0]], [2.0]), "loss": "logistic"}, "label 2"),
    ],
)
def test_bad_input_gets_one_clear_line(arguments, options, message):
    with pytest.raises(InputError, match=message):
        particle_flow(*arguments, Linear([1.0, 0.0]), [0, 1], **options)


@pytest.mark.parametrize("target", ["linear:1,0", 3, [1.0, 0.0], lambda x: x[:, 0]])
def test_what_is_no_target_is_named(target):
    with pytest.raises(InputError, match="is no target; give one of fs.meanfield"):
        particle_flow([1.0], [[1.0, 0.0]], target, [0, 1])


def test_a_group_may_be_given_by_its_matrices():
    a, B = initial_neurons(2, 4, group=[[0.0, 1.0], [1.0, 0.0]])
    swapped = sorted(map(tuple, np.column_stack([a, B[:, ::-1]])))
    assert swapped == sorted(map(tuple, np.column_stack([a, B])))
    flow = particle_flow(a, B, NormH((2, 2)), [0, 1], group=[[0.0, 1.0], [1.0, 0.0]])
    assert flow.group_order == 2 and flow.rows == 2


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("two", 4), {}, "dimension d: 'two'"),
        ((2, 4.5), {}, "neurons m: 4.5; give a whole number >= 1"),
        ((2, 4), {"kind": "axis"}, "did you mean 'axes'"),
        ((2, 4), {"seed": "x"}, "seed 'x'"),
    ],
)
def test_bad_starts_get_one_clear_line(arguments, options, message):
    with pytest.raises(InputError, match=message):
        initial_neurons(*arguments, **options)


def test_heun_gets_past_kinks_and_converges_in_the_second_order():
    x = np.random.default_rng(1).standard_normal((40, 3))
    data = (x, np.maximum(x[:, 0], 0))
    a, b = initial_neurons(3, 12, seed=1)
    flow = particle_flow(a, b, None, [0, 1, 10, 30], data=data)
    assert flow.method == "Heun" and (np.diff(flow.energy) < 0).all() and flow.energy[-1] < 0.1 * flow.energy[0]
    smooth = {"data": data, "activation": "tanh"}
    best = particle_flow(a, b, None, [0, 0.77, 2], rtol=1e-12, **smooth)
    assert best.method == "DOP853"
    errors = []
    for step in (0.1, 0.05, 0.025):
        found = particle_flow(a, b, None, [0, 0.77, 2], method="Heun", step=step, **smooth)
        errors.append(np.abs(found.B - best.B).max(axis=(1, 2)))
    orders = np.log2(np.array(errors)[:-1, 1:] / np.array(errors)[1:, 1:])
    assert (orders > 1.8).all() and (orders < 2.3).all()
    with pytest.raises(InputError, match="unbounded slope"):
        particle_flow(a, b, None, [0, 1], data=data, activation="square", method="Heun")


def test_a_step_of_heun_ends_where_the_run_ends():
    a, b = np.array([1.0, -2.0]), np.array([[1.0, 0.5], [0.3, -1.0]])
    data = np.array([[1.0, 2.0], [-1.0, 0.7]]), np.array([1.0, 2.0])
    flow = particle_flow(a, b, None, [0, 0.5], data=data, activation="tanh", method="Heun", step=7.0)
    forces = forces_of(None, data=data, activation="tanh")

    def velocity(a, b):
        values, gradients, _ = forces.evaluate(a, b)
        return values, a[:, None] * gradients

    first = velocity(a, b)
    second = velocity(a + 0.5 * first[0], b + 0.5 * first[1])
    assert np.allclose(flow.a[1], a + 0.25 * (first[0] + second[0]), rtol=1e-14)
    assert np.allclose(flow.B[1], b + 0.25 * (first[1] + second[1]), rtol=1e-14)
    assert (flow.steps, flow.evaluations) == (1, 2)


def test_neither_target_nor_data():
    with pytest.raises(InputError, match="neither a target nor data"):
        particle_flow([1.0], [[1.0, 0.0]], None, [0, 1])
    with pytest.raises(UnsupportedError):
        particle_flow([1.0], [[1.0, 0.0]], Linear([1.0, 0.0]), [0, 1], activation="no such row")


def test_the_report_and_the_data():
    a, b, target = random_problem(3, 6, 8, terms=1)
    flow = particle_flow(a, b, target, np.linspace(0, 3, 13), group=antipodal(3), fold=False)
    text = str(flow)
    assert text.count("\n") < 12 and "alignment" in text and "6 relu neurons, d = 3" in text
    data = json.loads(flow.to_json())
    assert (
        "B" not in data and data["activation"] == "relu" and len(data["energy"]) == 13 and data["rigor"] == "NUMERICAL"
    )
    assert {len(column) for column in flow.to_frame().values()} == {13}


# -- initial neurons -------------------------------------------------------------------------------------------------


def test_initial_neurons_are_balanced_and_of_the_kind_asked_for():
    group = halves(4)
    for options in ({"m": 10}, {"m": 10, "kind": "antipodal"}, {"m": 16, "kind": "axes"}, {"m": 128, "group": group}):
        m = options.pop("m")
        a, b = initial_neurons(4, m, **options)
        assert a.shape == (m,) and np.allclose(np.linalg.norm(b, axis=1), 1) and set(np.abs(a)) == {1.0}
    pairs = initial_neurons(4, 10, kind="antipodal")
    assert np.array_equal(pairs[1][:5], -pairs[1][5:]) and np.array_equal(pairs[0][:5], -pairs[0][5:])
    assert np.array_equal(initial_neurons(4, 9, seed=1)[1], initial_neurons(4, 9, seed=1)[1])
    orbits = initial_neurons(4, 128, group=group, kind="antipodal")
    assert len(group.representatives(orbits[1], orbits[0]).rows) == 2
    for d, m, options in [(4, 15, {"kind": "axes"}), (4, 9, {"kind": "antipodal"}), (4, 65, {"group": group}),
                          (4, 8, {"kind": "grid"}), (3, 64, {"group": group}), (0, 3, {})]:  # fmt: skip
        with pytest.raises(InputError):
            initial_neurons(d, m, **options)
