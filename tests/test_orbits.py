"""Orbit dimensions: vectors, closed forms of every stratum, special points, and methods that check each other."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fiberscope.activations import activation
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Residues
from fiberscope.errors import InputError, ScopeError, UnsupportedError
from fiberscope.invariants.orbits import orbit
from fiberscope.invariants.orbits.certified import proves_rank
from fiberscope.invariants.orbits.flows import transported_span, wander
from fiberscope.invariants.orbits.methods import exact_rank
from fiberscope.invariants.orbits.spans import span_of
from fiberscope.models.chains import chain_family
from fiberscope.network import Network
from fiberscope.results import Budget, Rigor

MAGIC = [1, 1, 1, 0.5, 0.5, 0.5, 0.125, 0.625, 1.125, 0.75, 0.875, 0.25, 1, 0.375, 0.5, 0.25, 0.25, 0.25, 1, 1, 1]

# name, activation, widths, theta without the output bias, orbit dimension, exact ranks by bracket depth at theta
POINTS: list[tuple[str, str, tuple[int, ...], list[float], int, tuple[int, ...]]] = [
    ("distinct", "softplus", (2, 3, 1), [0.5, -1, 1, 0.375, -0.75, 0.125, 0.25, -0.625, 0.5, 0.75, -0.5, 0.25], 12,
     (12,)),
    ("all equal", "softplus", (2, 3, 1), [0.5, -1, 0.5, -1, 0.5, -1, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75], 4, (4, 4, 4)),
    ("opposite", "tanh", (2, 3, 1), [0.5, -1, -0.5, 1, 1, 0.375, 0.25, -0.25, -0.625, 0.75, -0.75, -0.5], 8, (8, 8, 8)),
    ("all zero", "tanh", (2, 3, 1), [0.0] * 12, 0, (0, 0, 0)),
    ("same w, b", "tanh", (2, 2, 1), [0.5, -1, 0.5, -1, 0.25, 0.25, 0.75, -0.5], 8, (4, 7, 8)),
    ("w = b = 0", "tanh", (1, 2, 1), [0, 0, 0, 0, 0.75, -0.5], 6, (2, 2, 4, 5, 5, 6)),
    ("even pair", "gaussian", (2, 2, 1), [0.5, -1, -0.5, 1, 0.25, -0.25, 0.75, 0.75], 4, (4, 4, 4)),
    ("even leaf", "gaussian", (2, 2, 1), [0, 0, 0, 0, 0, 0, 0.75, 0.25], 1, (1, 1, 1)),
    ("magic square", "softplus", (1, 3, 3, 1), MAGIC, 5, (5, 5)),
    ("signed", "tanh", (1, 2, 2, 1), [1, -1, 0.5, -0.5, 0.375, -0.625, 0.625, -0.375, 0.25, 0.25, 0.5, 0.5], 5, (5, 5)),
]  # fmt: skip


def network(name: str, widths: tuple[int, ...], theta: list[float]) -> tuple[Network, str]:
    """The network with output bias 0, and the name of that block."""
    net = Network.random(widths, activation=name, seed=0).with_theta([*theta, *[0.0] * widths[-1]])
    return net, f"b{len(widths) - 1}"


@pytest.mark.parametrize("case", POINTS, ids=lambda c: c[0])
def test_vectors_by_every_method(case: Any) -> None:
    _, name, widths, theta, dimension, growth = case
    net, last = network(name, widths, theta)
    found = orbit(net, frozen=[last], method="all")
    assert found.dimension == dimension
    assert {e.method: e.dimension for e in found.estimates} == dict.fromkeys(
        ("flow", "brackets", "transport", "exact"), dimension
    )
    assert not found.is_lower_bound
    exact = next(e for e in found.estimates if e.method == "exact")
    assert exact.growth == growth[: len(exact.growth)] or exact.growth[: len(growth)] == growth
    if found.tangent is not None:
        assert found.tangent.shape == (len(theta), dimension)
        assert np.allclose(found.tangent.T @ found.tangent, np.eye(dimension))


def test_growth_stalls_before_it_is_complete() -> None:
    # rank 2, 2: a rule that stops when the rank is stable would report dimension 2
    net, last = network("tanh", (1, 2, 1), [0, 0, 0, 0, 0.75, -0.5])
    found = orbit(net, frozen=[last])
    assert found.growth == (2, 2, 4, 5, 5, 6)
    assert (found.order, found.dimension, found.certified, found.rigor) == (6, 6, True, Rigor.INTERVAL)


def _strata(m: int, kind: str) -> Any:
    """All class structures of m neurons as (label, sign) per neuron; label -1 is the zero class."""
    labels = [-1, *range(m)] if kind != "generic" else list(range(m))
    seen = set()
    for assigned in itertools.product(labels, repeat=m):
        order: dict[int, int] = {}
        canonical = tuple(-1 if a < 0 else order.setdefault(a, len(order)) for a in assigned)
        signs: Any = itertools.product((1, -1), repeat=m) if kind == "odd" else [(1,) * m]
        for sign in signs:
            first: dict[int, int] = {}
            key = tuple((a, 1 if a < 0 else s * first.setdefault(a, s)) for a, s in zip(canonical, sign, strict=True))
            if key not in seen:
                seen.add(key)
                yield key


@pytest.mark.parametrize("kind", ["generic", "odd", "null"])
@pytest.mark.parametrize("d", [1, 2])
def test_every_stratum_of_two_layer_networks(kind: str, d: int) -> None:
    # dimension D K + 1 of the classification, at random rational points of every stratum, with output bias
    ring, rng = Residues(), np.random.default_rng(7)
    jets = FormalJets(ring, 3, {"generic": "generic", "odd": "odd", "null": "null"}[kind])
    for m in (1, 2, 3):
        family = chain_family((d, m, 1), [activation("tanh")])
        for stratum in _strata(m, kind):
            base = ring.random(rng, (m, d + 2))
            rows = np.stack([base[a] * s % ring.prime if a >= 0 else np.zeros(d + 2, np.int64) for a, s in stratum])
            theta = np.concatenate([rows[:, :d].reshape(-1), rows[:, d], rows[:, d + 1], ring.random(rng, (1,))])
            classes = len({a for a, _ in stratum if a >= 0})
            point = Nilpotent(ring, {0: theta[None]})
            ranks = [exact_rank(family, point, depth, jets, rng, family.size) for depth in (1, 2)]
            assert ranks[-1] == (d + 2) * classes + 1, stratum


@pytest.mark.parametrize(
    ("widths", "growth"),
    [((1, 2, 1), (3, 3, 3, 4)), ((2, 2, 1), (5, 5, 5, 6)), ((2, 2, 2), (6, 7, 7, 8)), ((3, 2, 2), (8, 9, 9, 10))],
)
def test_a_zero_row_with_outgoing_weight_is_no_manifold(widths: tuple[int, int, int], growth: tuple[int, ...]) -> None:
    # F = sum u_i tanh(w_i x), w_0 = 0, u_0 != 0: the ranks stall, yet the orbit is everything
    n, m, o = widths
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 9, (m, n)) / 4.0
    weight[0] = 0.0
    net = Network.from_arrays((weight, np.zeros(m)), (rng.integers(1, 9, (o, m)) / 4.0, np.zeros(o)), activation="tanh")
    found = orbit(net, frozen=["b1", "b2"], method="all")
    assert found.dimension == found.ambient == n * m + m * o
    assert next(e for e in found.estimates if e.method == "exact").growth == growth


@pytest.mark.parametrize(
    ("change", "dimension"),
    [
        ("merge", 15), ("flip", 15), ("null", 15), ("two pairs", 10), ("all equal", 5),
        ("same rows", 20), ("double", 20), ("no output", 20), ("no input", 20),
    ],
)  # fmt: skip
def test_expected_dimensions_of_special_points(change: str, dimension: int) -> None:
    rng = np.random.default_rng(1)
    w, u = rng.integers(-8, 9, (4, 3)) / 4.0 + 0.125, rng.integers(-8, 9, (2, 4)) / 4.0 + 0.125
    if change in ("merge", "same rows", "double", "two pairs", "all equal"):
        w[1] = w[0]
    if change in ("merge", "two pairs", "all equal"):
        u[:, 1] = u[:, 0]
    if change == "double":
        u[:, 1] = 2 * u[:, 0]
    if change == "flip":
        w[1], u[:, 1] = -w[0], -u[:, 0]
    if change == "null":
        w[0], u[:, 0] = 0, 0
    if change in ("two pairs", "all equal"):
        w[3], u[:, 3] = w[2], u[:, 2]
    if change == "all equal":
        w[2:], u[:, 2:] = w[0], u[:, :1]
    if change == "no output":
        u[:, 0] = 0
    if change == "no input":
        w[0] = 0
    net = Network.from_arrays((w, np.zeros(4)), (u, np.zeros(2)), activation="tanh")
    found = orbit(net, frozen=["b1", "b2"])
    assert (found.dimension, found.certified) == (dimension, True)


@pytest.mark.parametrize(
    ("n", "m", "r", "rank", "dimension"), [(1, 1, 1, 1, 1), (2, 2, 2, 2, 5), (3, 2, 3, 3, 9), (2, 2, 5, 4, 6)]
)
def test_two_layer_linear(n: int, m: int, r: int, rank: int, dimension: int) -> None:
    # so(n, m) acts on [U; V] of rank rho: N rho - rho (rho + 1) / 2 with N = n + m
    assert dimension == (n + m) * rank - rank * (rank + 1) // 2
    net = Network.random((n, r, m), activation="identity", seed=3, bias=False)
    for at in ("theta", "generic"):
        found = orbit(net, at=at, frozen=["b1", "b2"])  # type: ignore[arg-type]
        assert (found.dimension, found.rigor) == (dimension, Rigor.EXACT)


def test_rank_deficient_linear_point() -> None:
    # [U; V] of rank 1 among (2, 2, 3): N rho - rho (rho + 1) / 2 = 3
    left, right = np.outer([1.0, 2.0, -1.0], [1.0, 3.0]), np.outer([2.0, 1.0], [1.0, 2.0, -1.0])
    net = Network.from_arrays((left, np.zeros(3)), (right, np.zeros(2)), activation="identity")
    found = orbit(net, frozen=["b1", "b2"])
    assert found.dimension == 3
    assert found.upper >= 3


@pytest.mark.parametrize("widths", [(2, 3, 1), (3, 2, 4, 2), (2, 2, 2, 2, 1)])
def test_relu_architectures_have_one_law_per_hidden_neuron(widths: tuple[int, ...]) -> None:
    found = orbit(Network.random(widths, activation="relu", seed=0), at="generic")
    assert (found.codimension, found.rigor) == (sum(widths[1:-1]), Rigor.EXACT)


@pytest.mark.parametrize("name", ["square", "abs"])
def test_even_twins_and_their_balances(name: str) -> None:
    # two classes of 4 parameters, the output bias, minus two balances: of the twins' two laws one is left
    rows = [[1.0, 2.0], [-1.0, -2.0], [3.0, -1.0]]
    net = Network.from_arrays((rows, [0.5, -0.5, 1.0]), ([[1.0, 1.0, 2.0]], [0.0]), activation=name)
    found = orbit(net)
    assert (found.dimension, found.upper, found.rigor) == (7, 7, Rigor.EXACT)


def test_relu_copies_move_together_and_laws_hold_inside_the_leaf() -> None:
    rows, outs = [[1.0, 2.0], [2.0, 4.0], [3.0, -1.0]], [[1.0, 2.0, 2.0]]
    net = Network.from_arrays((rows, [0.5, 1.0, 1.0]), (outs, [0.0]))
    found = orbit(net)
    # neuron 1 is twice neuron 0: two classes of 4 parameters, the output bias, minus two balances
    assert (found.dimension, found.upper, found.rigor) == (7, 7, Rigor.EXACT)
    assert "inside that leaf" in found.upper_reason


def test_patterns_that_a_search_may_have_missed_leave_a_lower_bound() -> None:
    # 9 inputs are too many for enumeration; the last neuron is dead on the box, but that is not proved by the search
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 9))
    net = Network.from_arrays((weight, [0.1, 0.2, -60.0]), (rng.standard_normal((1, 3)), [0.0]))
    found = orbit(net, domain="[-1,1]")
    assert (found.dimension, found.is_lower_bound, found.certified, found.rigor) == (21, True, False, Rigor.SAMPLED)
    assert found.upper == 31  # 34 parameters, three balances; the dead neuron holds its 11 and leaves two
    # on all inputs the neuron is seen, and the bound for every pattern is met
    whole = orbit(net)
    assert (whole.dimension, whole.certified, whole.rigor) == (31, True, Rigor.EXACT)


def test_regions_away_from_the_origin_and_inputs_that_are_zero_at_a_vertex() -> None:
    # gradients (a x, a, w x + b, 1) of an always active neuron: one law, and the weight of x moves
    always = orbit(Network.from_arrays(([[1.0]], [5.0]), ([[3.0]], [0.0])), domain="[-1,1]")
    assert (always.dimension, always.rigor) == (3, Rigor.EXACT)
    through = orbit(Network.from_arrays(([[1.0, 1.0]], [0.0]), ([[3.0]], [0.5])))
    assert (through.dimension, through.rigor) == (4, Rigor.EXACT)


def test_kinks_that_coincide_leave_a_lower_bound() -> None:
    # w2 = 2 w1, b2 = 2 b1, other outgoing weights: the kinks part at once, and then 7 - 2 dimensions are reached
    net = Network.from_arrays(([[1.0], [2.0]], [0.5, 1.0]), ([[3.0, 1.0]], [0.0]))
    found = orbit(net)
    assert (found.dimension, found.upper, found.certified, found.rigor) == (4, 5, False, Rigor.SAMPLED)
    # in one class they stay together
    twin = orbit(Network.from_arrays(([[1.0], [2.0]], [0.5, 1.0]), ([[3.0, 6.0]], [0.0])))
    assert (twin.dimension, twin.certified, twin.rigor) == (3, True, Rigor.EXACT)
    # so does a kink at the end of the domain
    edge = orbit(Network.from_arrays(([[1.0], [2.0]], [0.0, 0.5]), ([[3.0, 1.0]], [0.0])), domain="[0,1]")
    assert edge.rigor is Rigor.SAMPLED


def test_activations_after_the_last_layer() -> None:
    # F = z^2 with z = 0 for all x: every gradient is 2 z grad z = 0
    net = Network.from_arrays(([[0.5]], [0.0]), ([[0.0]], [0.0]), activation=["tanh", "square"])
    assert orbit(net).dimension == 0
    moving = Network.from_arrays(([[0.5]], [0.25]), ([[1.0]], [0.5]), activation=["tanh", "sigmoid"])
    assert (orbit(moving).dimension, orbit(moving).certified) == (4, True)
    bent = Network.from_arrays(([[0.5]], [0.0]), ([[-1.0]], [-5.0]), activation=["tanh", "relu"])
    with pytest.raises(UnsupportedError, match="activation relu after the last layer"):
        orbit(bent)


def test_orbits_of_users_own_families_and_points() -> None:
    family = chain_family((2, 3, 1), [activation("tanh")])
    theta = np.random.default_rng(0).standard_normal(13)
    assert orbit(family, theta).dimension == 13
    assert orbit(family, at="generic").dimension == 13
    theta[2:4], theta[7], theta[10] = theta[:2], theta[6], theta[9]
    merged = orbit(family, theta)  # nothing is known about a family but its fields
    assert (merged.dimension, merged.upper, merged.certified, merged.is_lower_bound) == (9, 13, False, False)
    assert merged.rigor is Rigor.NUMERICAL and merged.gap is not None and merged.gap[1] < 1e-12
    with pytest.raises(InputError, match="give theta, or at='generic'"):
        orbit(family)


def test_the_dimension_is_the_same_along_the_orbit() -> None:
    net, last = network("tanh", (2, 3, 1), POINTS[2][3])
    family = chain_family((2, 3, 1), [activation("tanh")])
    from fiberscope.autodiff.families import RestrictedFamily
    from fiberscope.autodiff.floats import NumpyFamily

    free = np.arange(12)
    theta = np.asarray(net.theta, dtype=float)
    floats = NumpyFamily(RestrictedFamily(family, theta, free), theta[:12])
    point = wander(floats, floats.start, np.random.default_rng(0), legs=4, length=0.5)
    assert np.linalg.norm(point - floats.start) > 0.05
    # it stays on the manifold u2 = -u1 to rounding
    assert np.abs(point[:2] + point[2:4]).max() < 1e-12 and abs(point[6] + point[7]) < 1e-12
    assert transported_span(floats, point, np.random.default_rng(1)).rank == 8
    assert orbit(net.with_theta([*point, 0.0]), frozen=[last]).upper in (8, 12)  # rounding may separate the pair


def test_ball_arithmetic_proves_only_what_is_true() -> None:
    rng = np.random.default_rng(0)
    family = chain_family((2, 2, 1), [activation("tanh")])
    theta = np.array([0.5, -1, 0.5, -1, 0.25, 0.25, 0.75, -0.5, 0.0])
    assert [proves_rank(family, theta, r, 1, rng) for r in (4, 5, 6)] == [True, True, False]
    assert [proves_rank(family, theta, r, 3, rng) for r in (8, 9)] == [True, True]
    merged = np.array([0.5, -1, 0.5, -1, 0.25, 0.25, 0.75, 0.75, 0.0])
    assert [proves_rank(family, merged, r, 2, rng) for r in (5, 6)] == [True, False]


def test_ranks_say_when_the_gap_is_not_clear() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    smooth = span_of(rng.standard_normal((40, 12)) * 10.0 ** -np.arange(12) @ basis, tolerance=1e-6)
    assert not smooth.clear
    cut = span_of(rng.standard_normal((40, 12)) * np.where(np.arange(12) < 5, 1.0, 1e-14) @ basis)
    assert cut.clear and cut.rank == 5 and cut.kept > 1e-2 and 0 < cut.dropped < 1e-12
    zero = span_of(np.zeros((3, 4)))
    assert (zero.rank, zero.kept, zero.dropped) == (0, 0.0, 0.0)


def test_bad_input_is_named() -> None:
    net = Network.random((2, 3, 1), activation="tanh", seed=0)
    with pytest.raises(InputError, match="there is no 'c2'; there are W1, b1, W2, b2"):
        orbit(net, frozen=["c2"])
    with pytest.raises(InputError, match="at: 'here'"):
        orbit(net, at="here")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="method: 'fast'"):
        orbit(net, method="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model of type int"):
        orbit(3)
    with pytest.raises(ScopeError, match="derivatives of every order"):
        orbit(Network.random((2, 3, 1), activation="elu", seed=0))


def test_report_and_data() -> None:
    net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    found = orbit(net)
    text = str(found)
    assert "dimension 4 of 7 (INTERVAL)" in text and "certified" in text
    data = found.to_dict()
    assert data["codimension"] == 3 and "tangent" not in data
    assert found.theorems[0] == "orbit-invariance"
    assert isinstance(found.to_json(), str)


def test_exact_weights_are_read_as_the_rationals_they_are() -> None:
    # one third is no float: the pair is equal over Q, and stays a pair
    third = Fraction(1, 3)
    net = Network.from_arrays(([[third], [third]], [third, third]), ([[third, third]], [0]), activation="square")
    assert orbit(net).dimension < 7


def test_float32_weights_are_proved_too() -> None:
    net = Network.random((2, 3, 1), activation="tanh", seed=0, dtype=np.float32)
    assert orbit(net).rigor is Rigor.INTERVAL


@pytest.mark.parametrize("method", ["exact", "flow"])
def test_a_depth_cut_short_is_no_stable_rank(method: str) -> None:
    # a linear network needs depth 2; these are large enough to be interrupted inside a depth
    net = Network.random((40, 18, 40) if method == "flow" else (16, 16, 16), activation="identity", seed=0)
    top = orbit(net, at="generic", method=method).dimension
    for checks in range(1, 12):
        left = iter([False] * checks)
        found = orbit(net, at="generic", method=method, budget=Budget(cancelled=lambda left=left: next(left, True)))
        assert found.dimension == top or found.is_lower_bound


def test_a_search_that_ran_out_of_time_says_so() -> None:
    net = Network.random((3, 3, 3), activation="identity", seed=0)  # needs brackets of depth 2
    found = orbit(net, method="flow", budget=0)
    assert found.is_lower_bound and not found.certified and "the time was over" in str(found)
    assert "dimension >= " in str(found)


def test_an_exact_search_that_ran_out_of_time_says_so() -> None:
    net = Network.random((3, 3, 3), activation="identity", seed=0)
    found = orbit(net, method="exact", budget=0)
    assert found.is_lower_bound and found.notes[0].startswith("the time was over")
    assert f"exact: >= {found.estimates[0].dimension}" in str(found)


def test_a_network_without_an_input_off_all_kinks_is_refused_in_words():
    zero = Network.from_arrays(([[0.0]], [0.0]), ([[0.0]], [0.0]), ([[1.0]], [0.0]), activation="relu")
    with pytest.raises(ScopeError, match="no input that lies inside the region"):
        orbit(zero, budget=0)
