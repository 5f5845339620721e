"""Defects of trained networks against symmetries: orbits, random neurons, exact tests, oddness, alignment."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError
from fiberscope.meanfield.symmetry.groups import OrthogonalGroup, antipodal, cyclic, permutations, signed_permutations
from fiberscope.meanfield.symmetry.invariance import check_antisymmetry, check_invariance, invariance_defect
from fiberscope.meanfield.symmetry.measures import neurons_of, sphere_points
from fiberscope.meanfield.symmetry.subspaces import alignment
from fiberscope.network import Network

SWAP = [[0.0, 1.0], [1.0, 0.0]]


def orbit_net(group, d, orbits, seed):
    """Neurons that are whole orbits, shuffled, with heads constant on each."""
    rng = np.random.default_rng(seed)
    pieces = [group.orbit_of(rng.standard_normal((1, d))) for _ in range(orbits)]
    B = np.concatenate(pieces)
    a = np.concatenate([np.full(len(p), rng.standard_normal()) for p in pieces])
    order = rng.permutation(len(B))
    return a[order], B[order]


def matched_oracle(rows, moved):
    """W2 by trying all matchings."""
    best = min(
        sum(float(np.sum((rows[p] - moved[i]) ** 2)) for i, p in enumerate(order))
        for order in itertools.permutations(range(len(rows)))
    )
    return math.sqrt(best / float(np.sum(rows**2)))


@pytest.mark.parametrize("make", [permutations, signed_permutations, antipodal])
@pytest.mark.parametrize("kind", ["measure", "function"])
def test_orbits_are_invariant(make, kind):
    group = make(3)
    net = orbit_net(group, 3, 2, 0)
    assert invariance_defect(net, group, kind=kind) <= (0.0 if kind == "measure" else 1e-14)
    check = check_invariance(net, group)
    assert check.exact and check.exact_rays and check.invariant and check.function_invariant
    assert check.rigor.name == "EXACT" and check.order == group.order()


def test_rotations_are_measured_and_not_called_exact():
    group = cyclic(5, (0, 2), 3)
    a, B = orbit_net(group, 3, 3, 1)
    check = check_invariance((a, B), group)
    assert check.exact is None and check.rigor.name != "EXACT"
    assert check.invariant and 0 < check.measure_defects[0] < 1e-14
    quarter = check_invariance(orbit_net(cyclic(4, (0, 2), 3), 3, 2, 1), cyclic(4, (0, 2), 3))
    assert quarter.exact


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("kind", ["measure", "function"])
def test_a_moved_neuron_is_seen(activation, kind):
    group = permutations(3)
    a, B = orbit_net(group, 3, 4, 2)
    moved = B.copy()
    moved[5] += [1e-3, 0, 0]
    small = invariance_defect((a, moved), group, kind=kind, activation=activation)
    moved[5] += [9e-3, 0, 0]
    large = invariance_defect((a, moved), group, kind=kind, activation=activation)
    assert 1e-6 < small < 1e-2
    assert large / small == pytest.approx(10, rel=0.05)
    check = check_invariance((a, moved), group, activation=activation)
    assert check.exact is False and not check.invariant


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 5), seed=st.integers(0, 10**6), sign=st.sampled_from([1, -1]), relu=st.booleans())
def test_the_distance_is_the_best_matching(m, seed, sign, relu):
    rng = np.random.default_rng(seed)
    a, B = rng.standard_normal(m), rng.standard_normal((m, 2))
    rows = np.column_stack([a, B])
    if relu:
        size = np.sqrt(np.abs(a) * np.linalg.norm(B, axis=1))
        rows = np.column_stack([size * np.sign(a), size[:, None] * B / np.linalg.norm(B, axis=1)[:, None]])
    moved = np.column_stack([sign * rows[:, 0], rows[:, 2], rows[:, 1]])
    found = invariance_defect((a, B), SWAP, sign=sign, activation="relu" if relu else "tanh")
    assert found == pytest.approx(matched_oracle(rows, moved), rel=1e-9, abs=1e-12)


def test_scaling_a_relu_neuron_changes_nothing():
    a, B = orbit_net(permutations(3), 3, 2, 3)
    factors = np.random.default_rng(0).uniform(0.1, 10, len(a))
    scaled = (a / factors, B * factors[:, None])
    assert invariance_defect(scaled, permutations(3)) < 1e-15
    assert invariance_defect(scaled, permutations(3), activation="tanh") > 0.1
    powers = 2.0 ** np.random.default_rng(0).integers(-3, 4, len(a))
    check = check_invariance((a / powers, B * powers[:, None]), permutations(3))
    assert check.exact is False and check.exact_rays and "every ray" in str(check)


def test_splitting_a_neuron_keeps_the_rays():
    a, B = np.array([0.5, 0.5, 1.0]), np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0]])
    check = check_invariance((a, B), SWAP)
    assert check.exact is False and check.exact_rays is True
    assert check.function_invariant and not check.invariant
    broken = check_invariance((a + [0, 2**-50, 0], B), SWAP)
    assert broken.exact_rays is False


def test_random_neurons_lose_the_symmetry_like_one_over_root_m():
    group = permutations(4)
    widths, defects = [25, 100, 400], []
    for m in widths:
        runs = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            B = sphere_points(m, 4, seed)
            # the mean of f is of order one, its asymmetry is noise
            runs.append(invariance_defect((1 + 0.1 * rng.standard_normal(m), B), group, kind="function"))
        defects.append(np.sqrt(np.mean(np.square(runs))))
    order = np.polyfit(np.log(widths), np.log(defects), 1)[0]
    assert order == pytest.approx(-0.5, abs=0.12)


def test_function_defects_by_kernel_and_by_samples_agree():
    rng = np.random.default_rng(5)
    a, B = rng.standard_normal(20), rng.standard_normal((20, 3))
    exact = invariance_defect((a, B), antipodal(3), kind="function")
    points = sphere_points(200_000, 3, 1)
    values = np.maximum(points @ B.T, 0) @ a - np.maximum(-points @ B.T, 0) @ a
    slow = math.sqrt(np.mean(values**2) / np.mean((np.maximum(points @ B.T, 0) @ a) ** 2))
    assert exact == pytest.approx(slow, rel=0.01)
    # a leaky unit of slope 0 is the ReLU, and goes by samples
    sampled = invariance_defect((a, B), antipodal(3), kind="function", activation="leaky_relu(0)", samples=50_000)
    assert sampled == pytest.approx(exact, rel=0.03)


def test_tiny_function_defects_are_not_lost_to_cancellation():
    a, B = orbit_net(permutations(3), 3, 2, 7)
    moved = B.copy()
    moved[0] += [1e-11, 0, 0]
    assert 1e-15 < invariance_defect((a, moved), permutations(3), kind="function") < 1e-10


def test_antisymmetry_under_a_map():
    a, B = np.array([1.0, -1.0, 3.0, -3.0]), np.array([[2.0, 1.0], [1.0, 2.0], [0.5, -1.0], [-1.0, 0.5]])
    assert invariance_defect((a, B), SWAP, sign=-1) == 0.0
    assert invariance_defect((a, B), SWAP) > 0.5
    check = check_invariance((a, B), SWAP, sign=-1, target=lambda x: x[:, 0] - x[:, 1], start=(a, B))
    assert check.exact and check.target_defect < 1e-12 and check.theorems == ("meanfield-antisymmetry",)
    assert [h.holds for h in check.assumptions[:2]] == [True, True]
    points = sphere_points(5, 2, 0)
    value = neurons_of((a, B)).values
    np.testing.assert_allclose(value(points[:, ::-1]), -value(points), atol=1e-14)


def test_continuous_parts_are_tested_too():
    group = OrthogonalGroup([], 3, continuous=np.eye(3)[1:])
    along = ([1.0, -2.0], [[1.0, 0, 0], [-3.0, 0, 0]])
    assert invariance_defect(along, group) == 0.0
    assert invariance_defect(([1.0], [[1.0, 0.5, 0]]), group) > 0.1
    assert check_invariance(along, group).exact is None


def test_hypotheses_are_named():
    group = permutations(2)
    good = orbit_net(group, 2, 2, 9)
    bad = (good[0], good[1] + [[0.3, 0.0]])
    even = check_invariance(good, group, target=lambda x: x[:, 0] + x[:, 1], start=good)
    assert all(h.holds for h in even.assumptions[:2]) and not any(h.checked for h in even.assumptions[2:])
    wrong = check_invariance(bad, group, target=lambda x: x[:, 0], start=bad)
    assert wrong.target_defect > 1 and wrong.start_defect > 0.01
    assert "neither is the start nor the target" in wrong.conclusion
    assert "not checked" in check_invariance(bad, group).conclusion
    lost = check_invariance(bad, group, target=lambda x: x[:, 0] + x[:, 1], start=good)
    assert "rounding broke it" in lost.conclusion
    for result in (even, wrong, lost):
        json.loads(result.to_json())
        assert "hypothesis" in str(result) and len(str(result).splitlines()) < 14


# ---- networks


def test_rational_networks_are_tested_exactly():
    third = Fraction(1, 3)
    W = [[third, 1], [1, third], [-2, 5]]
    net = Network.from_arrays((W, [1, 1, 0]), ([[third, third, 0]], [2]))
    check = check_invariance(net, permutations(2))
    assert check.exact is False and check.exact_rays is True and check.function_invariant
    swapped = Network.from_arrays((W[:2], [1, 1]), ([[third, third]], [2]))
    assert check_invariance(swapped, permutations(2)).exact
    near = Network.from_arrays((W[:2], [1, 1]), ([[third, third + Fraction(1, 10**30)]], [2]))
    found = check_invariance(near, permutations(2))
    assert found.invariant and found.exact is False and found.exact_rays is False


def test_biases_are_fixed_by_the_maps():
    rows = [[2.0, 1.0], [1.0, 2.0]]
    even = Network.from_arrays((rows, [0.5, 0.5]), ([[1.0, 1.0]], [0.0]), activation="tanh")
    odd = Network.from_arrays((rows, [0.5, -0.5]), ([[1.0, 1.0]], [0.0]), activation="tanh")
    assert check_invariance(even, SWAP).exact and invariance_defect(odd, SWAP) > 0.1
    assert invariance_defect(odd, SWAP, kind="function") > 0.1
    constant = Network.from_arrays((np.eye(2), [0, 0]), ([[1.0, -1.0]], [0.25]))
    assert check_invariance(constant, SWAP, sign=-1).exact is False
    assert invariance_defect(constant, SWAP, sign=-1) == pytest.approx(0.5 / math.sqrt(4 + 0.0625))


def test_several_outputs():
    a = np.array([[1.0, 2.0], [1.0, 2.0]])
    B = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert check_invariance((a, B), SWAP).exact
    assert invariance_defect((a * [[1], [2]], B), SWAP) > 0.1


def test_other_arrays_and_flows():
    a, B = orbit_net(permutations(2), 2, 2, 11)

    class Tensor:
        dtype = "torch.float64"

        def __init__(self, values):
            self._values = values

        def detach(self):
            return self

        cpu = detach

        def numpy(self):
            return self._values

    assert invariance_defect((Tensor(a), Tensor(B)), permutations(2)) == 0.0
    broken = B + [[0.2, 0.0]]
    flow = SimpleNamespace(times=np.array([0.0, 1.0]), a=np.stack([a, a]), B=np.stack([B, broken]), activation="relu")
    assert invariance_defect(flow, permutations(2), at=0) == 0.0
    # the function of a flow is a mean over its neurons
    np.testing.assert_allclose(check_antisymmetry(flow, at=0).linear_part, [0.5 * a @ B / len(a)], atol=1e-14)
    assert invariance_defect(flow, permutations(2)) == invariance_defect((a, broken), permutations(2)) > 0


# ---- oddness


def test_an_antisymmetric_relu_network_is_linear():
    rng = np.random.default_rng(13)
    a, B = rng.standard_normal(6), rng.standard_normal((6, 3))
    check = check_antisymmetry((np.concatenate([a, -a]), np.concatenate([B, -B])), target=lambda x: x[:, 0] ** 3)
    assert check.exact and check.odd and check.linear and check.linear_promised
    assert check.oddness_defect < 1e-14 and check.target_defect < 1e-12
    points = rng.standard_normal((5, 3))
    values = neurons_of((np.concatenate([a, -a]), np.concatenate([B, -B]))).values(points)
    np.testing.assert_allclose(values, points @ check.linear_part.T, atol=1e-13)


def test_an_odd_tanh_network_is_not_linear():
    a, B = np.array([1.0, -1.0]), np.array([[2.0, 1.0], [-2.0, -1.0]])
    check = check_antisymmetry((a, B), activation="tanh")
    assert check.exact and check.odd and not check.linear and not check.linear_promised
    assert 0.01 < check.linearity_defect < 0.5
    # a single tanh neuron is odd as a function, not as a measure
    single = check_antisymmetry((a[:1], B[:1]), activation="tanh")
    assert single.odd and not single.antisymmetric and single.exact is False


@pytest.mark.parametrize("activation", ["relu", "leaky_relu(1/4)"])
def test_even_parts_are_measured(activation):
    rng = np.random.default_rng(17)
    a, B = rng.standard_normal(8), rng.standard_normal((8, 3))
    check = check_antisymmetry((a, B), activation=activation, samples=50_000)
    points = sphere_points(200_000, 3, 5)
    values = neurons_of((a, B), activation=activation).values(points)
    fit = np.linalg.lstsq(points, values, rcond=None)[0]
    np.testing.assert_allclose(check.linear_part, fit.T, atol=0.03)
    defect = np.linalg.norm(values - points @ check.linear_part.T) / np.linalg.norm(values)
    assert check.linearity_defect == pytest.approx(defect, rel=0.02)
    assert check.oddness_defect == check.linearity_defect
    assert check.exact is False and not check.odd
    json.loads(check.to_json())
    assert "even part" in str(check)


def test_a_bias_takes_the_promise_away():
    net = Network.from_arrays(([[1.0], [-1.0]], [0.5, 0.5]), ([[1.0, -1.0]], [0.0]))
    check = check_antisymmetry(net)
    assert not check.linear_promised and check.odd
    # on the sphere {-1, 1} every odd function is linear
    assert check.linearity_defect < 1e-12


# ---- alignment


def test_alignment_of_uniform_and_of_aligned_neurons():
    rng = np.random.default_rng(19)
    B = rng.standard_normal((4000, 6))
    found = alignment((np.ones(4000), B / np.linalg.norm(B, axis=1, keepdims=True)), 2)
    assert found.share[0] == pytest.approx(2 / 6, abs=0.02) == pytest.approx(found.uniform_share, abs=0.02)
    H = np.array([[1.0, 1, 0], [1.0, 1, 1]])
    inside = alignment(([2.0, -1.0], [[1.0, 1, 5], [3.0, -3, 0]]), H)
    assert inside.subspace_dimension == 2
    np.testing.assert_allclose(inside.angles, [[0, math.pi / 2]], atol=1e-7)
    heavy = 2 * math.sqrt(27)
    assert inside.share[0] == pytest.approx(heavy / (heavy + math.sqrt(18)))
    assert inside.share_plus[0] == pytest.approx(1) and inside.share_minus[0] == pytest.approx(0)


def test_alignment_along_a_flow():
    B = np.array([[[1.0, 1.0]], [[1.0, 0.0]]])
    flow = SimpleNamespace(times=np.array([0.0, 4.0]), a=np.ones((2, 1)), B=B)
    found = alignment(flow, SimpleNamespace(subspace=np.array([[1.0, 0.0]])))
    np.testing.assert_allclose(found.share, [0.5, 1.0])
    np.testing.assert_allclose(found.mean_angle, [math.pi / 4, 0.0])
    assert found.to_frame()["time"].tolist() == [0.0, 4.0]
    json.loads(found.to_json())
    assert "share" in str(found)


# ---- refusals


@pytest.mark.parametrize(
    "call",
    [
        lambda: invariance_defect(([1.0], [[1.0, 0.0]]), [[1.0, 0.1], [0.0, 1.0]]),
        lambda: invariance_defect(([1.0], [[1.0, 0.0]]), permutations(3)),
        lambda: invariance_defect(([1.0, 2.0], [[1.0, 0.0]]), SWAP),
        lambda: invariance_defect(([math.nan], [[1.0, 0.0]]), SWAP),
        lambda: invariance_defect((["x"], [[1.0, 0.0]]), SWAP),
        lambda: invariance_defect("net", SWAP),
        lambda: invariance_defect(([1.0], [[1.0, 0.0]]), SWAP, sign=0),
        lambda: invariance_defect(([1.0], [[1.0, 0.0]]), SWAP, kind="other"),
        lambda: invariance_defect(Network.random((2, 3, 3, 1)), SWAP),
        lambda: alignment(([1.0], [[1.0, 0.0]]), 0),
        lambda: alignment(([1.0], [[1.0, 0.0]]), 3),
        lambda: alignment(([1.0], [[1.0, 0.0]]), np.ones((1, 3))),
        lambda: alignment(([1.0], [[1.0, 0.0]]), np.zeros((1, 2))),
    ],
)
def test_refusals(call):
    with pytest.raises(InputError):
        call()


def test_too_many_neurons_for_a_matching():
    B = np.zeros((3001, 2))
    B[:, 0] = 1.0
    with pytest.raises(InputError, match="function"):
        invariance_defect((np.ones(3001), B), SWAP)


def test_the_zero_network_is_invariant():
    assert invariance_defect(([0.0], [[0.0, 0.0]]), SWAP) == 0.0
    assert invariance_defect(([0.0], [[1.0, 0.0]]), SWAP, kind="function") == 0.0
    # 0 by cancellation is 0 too
    a, B = np.array([0.1, 0.2, -0.3]), np.tile([[0.3, 0.7]], (3, 1))
    for activation in ("relu", "tanh"):
        assert invariance_defect((a, B), SWAP, kind="function", activation=activation) == 0.0


def test_a_function_that_nearly_cancels_is_measured_on_points():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(40, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    b = np.concatenate([u, u + 1e-5 * rng.normal(size=(40, 3))])
    mirror = np.array([-1.0, 1.0, 1.0])
    a, B = np.tile(np.repeat([1.0, -1.0], 40), 2), np.concatenate([b, b * mirror])
    found = check_invariance((a, B), OrthogonalGroup([np.diag(mirror)], 3))
    assert found.exact and max(found.function_defects) < 1e-9


def test_an_invariant_network_does_not_thank_a_start_that_was_not():
    a, B = np.ones(2), np.array([[1.0, 0.5], [-1.0, 0.5]])
    flip = OrthogonalGroup([np.diag([-1.0, 1.0])], 2)
    moved = check_invariance((a, B), flip, start=(a, B + [[0.3, 0.0], [0.0, 0.0]]))
    assert moved.invariant and "training is no reason" in str(moved)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: invariance_defect(net, "swap"), "group: 'swap' is no number"),
        (lambda net: invariance_defect(net, [1.0, 2.0]), "group of shape"),
        (lambda net: invariance_defect(net, np.eye(2), kind="functions"), "did you mean 'function'"),
        (lambda net: invariance_defect(net, np.eye(2), sign="plus"), "sign 'plus'; give 1 or -1"),
        (lambda net: invariance_defect(net, np.eye(2), kind="function", samples=0.5), "samples: 0.5"),
        (lambda net: invariance_defect(net, np.eye(2), kind="function", seed="s"), "seed 's'"),
        (lambda net: check_invariance(net, np.eye(2), tolerance=None), "tolerance: None"),
        (lambda net: check_antisymmetry(net, target="norm"), "target 'norm'; give a function"),
        (lambda net: check_antisymmetry(net, target=lambda x: x), "one number a row"),
        (lambda net: alignment(net, 0.5), "H by its dimension: 0.5"),
        (lambda net: alignment(net, "plane"), "H by its dimension: 'plane'"),
        (lambda net: alignment(net, 3), "H of dimension 3; give 1 <= dH <= 2"),
    ],
)
def test_wrong_arguments_get_one_clear_line(call, words):
    with pytest.raises(InputError, match=words):
        call(([1.0, -1.0], [[1.0, 0.0], [0.0, 1.0]]))


def test_a_time_that_a_flow_does_not_have_is_refused():
    net = SimpleNamespace(times=np.arange(2.0), a=np.ones((2, 1)), B=np.ones((2, 1, 2)), activation="relu")
    for at in (2, -3, 0.5, "last"):
        with pytest.raises(InputError, match="the flow has 2 times"):
            invariance_defect(net, np.eye(2), at=at)
