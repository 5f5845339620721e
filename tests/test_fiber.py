"""Fibers: dimensions against Jacobian ranks, generators, equations, samples, paths, roles and vectors."""

import copy
import itertools
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.equations import System
from fiberscope.fibers.generators import continuous_symmetries, spanning_set
from fiberscope.fibers.jacobians import coefficient_rows, kernel_dimension, patterns
from fiberscope.fibers.members import fiber
from fiberscope.fibers.relatives import near_miss, typed_network
from fiberscope.fibers.roles import count_roles, payable
from fiberscope.fibers.walks import random_walk
from fiberscope.network import Network
from fiberscope.results import Answer, Rigor
from fiberscope.symmetries import neuron_types

ARCHITECTURES = [
    ((2, 2, 3, 1), ("SSS", "SSA", "SAA", "SSD", "AAD"), None),
    ((3, 3, 4, 2), ("SSSS", "SSAD", "SAAS", "SADD"), None),
    ((4, 2, 5, 3), ("SSSSS", "SASAD", "AAASS"), None),
    ((5, 4, 6, 1), ("SSSSSS", "SSSSAA", "SSSADD"), None),
    ((6, 1, 4, 2), ("SASD", "SSSS", "AAAS"), None),
    ((3, 2, 4, 3), ("AADS", "AAAA", "SSSA"), None),
    ((4, 4, 3, 2), ("SSS", "SAD"), None),
    ((2, 2, 6, 1), ("SSSSSS", "SSSSAD"), None),
    ((3, 3, 2, 1), ("SD", "SS"), 0),
    ((3, 3, 4, 2), ("SSSD", "SSSS", "SDDD"), 1),
    ((4, 2, 3, 1), ("SSS", "SSD"), 1),
    ((2, 2, 3, 2), ("DDD",), None),
]
SHAPES = [(w, t, h) for w, types, h in ARCHITECTURES for t in types]


def points(rng, net, count):
    return [[Fraction(int(v), 8) for v in rng.integers(-200, 201, net.widths[0])] for _ in range(count)]


def assert_same(f, g, rng, count=6):
    for x in points(rng, f, count):
        assert f.exact(x) == g.exact(x)


# ---- dimension


def disagreements(per_shape, start=0):
    """(networks compared, those where M - rank is not the dimension from signs)."""
    out, count = [], 0
    for number, (widths, types, hidden) in enumerate(SHAPES):
        for seed in range(start, start + per_shape):
            net = typed_network(widths, types, hidden=hidden, seed=1000 * number + seed)
            expected = fiber(net).dimension
            if expected is None:  # two hyperplanes coincide by chance: no theorem
                continue
            count += 1
            found = kernel_dimension(net, seed, expected=expected)
            if not found.agrees:
                out.append((widths, types, hidden, seed, found))
    return count, out


def test_dimension_is_m_minus_rank():
    count, wrong = disagreements(1)
    assert wrong == [] and count > 0.9 * len(SHAPES)


@pytest.mark.slow
def test_dimension_is_m_minus_rank_on_many_networks():
    """At least 500 networks over twelve architectures."""
    count, wrong = disagreements(18, start=1)
    assert count >= 500 and wrong == []


@pytest.mark.parametrize("number", range(0, len(SHAPES), 6))
def test_generators_span_the_kernel_over_q(number):
    """EXACT from both sides: rank of the generators <= dimension <= M - rank of the derivative."""
    widths, types, hidden = SHAPES[number]
    net = typed_network(widths, types, hidden=hidden, seed=7)
    upper = kernel_dimension(net, 0, exact=True)
    assert upper.rigor is Rigor.EXACT
    assert rationals.rank(spanning_set(net)) == fiber(net).dimension == upper.dimension


@pytest.mark.parametrize("shape", SHAPES[::3])
def test_generators_are_in_the_kernel_exactly(shape):
    widths, types, hidden = shape
    net = typed_network(widths, types, hidden=hidden, seed=3)
    rng = np.random.default_rng(0)
    rows = np.vstack([coefficient_rows(net, p, exact=True) for p in patterns(net, rng, 12)])
    for symmetry in continuous_symmetries(net):
        for n in range(symmetry.size):
            moved = rationals.fractions(rationals.matmul(rows, symmetry.generator(n)))
            assert not any(moved), symmetry
    with pytest.raises(InputError, match="generator 99"):
        next(continuous_symmetries(net)).generator(99)


def test_tangent_basis():
    net = typed_network((3, 3, 4, 2), "SSAD", seed=5)
    found = fiber(net)
    basis = found.tangent()
    assert basis.shape == (net.parameter_count, found.dimension)
    assert np.allclose(basis.T @ basis, np.eye(found.dimension), atol=1e-12)
    rows = np.vstack([coefficient_rows(net, p) for p in patterns(net, np.random.default_rng(0), 60)])
    assert np.abs(rows @ basis).max() < 1e-12 * np.abs(rows).max()


def test_coefficient_rows_are_derivatives():
    """Against exact difference quotients: coefficients are polynomials of degree one in each parameter."""
    net = typed_network((2, 2, 3, 2), "SAS", seed=1)
    pattern = next(iter(patterns(net, np.random.default_rng(0), 1)))

    def pieces(theta):
        table = np.array([[Fraction(int(i == j)) for j in range(3)] for i in range(3)], dtype=object)
        for k, layer in enumerate(net.with_theta(theta).layers):
            joined = np.column_stack([rationals.fractions(layer.weight), rationals.fractions(layer.bias)])
            table = joined @ table
            if k < 2:
                table = np.vstack([table * pattern[k][:, None], [Fraction(0), Fraction(0), Fraction(1)]])
        return table.reshape(-1)

    theta = rationals.fractions(net.theta)
    rows = coefficient_rows(net, pattern, exact=True)
    for p in range(len(theta)):
        moved = theta.copy()
        moved[p] += 1
        assert (pieces(moved) - pieces(theta) == rows[:, p]).all()


def test_sampled_patterns_occur():
    """Each pattern has a point in x where a network of independent rows takes it."""
    net = typed_network((3, 3, 3, 1), "SSS", hidden=0, seed=2)
    found = list(patterns(net, np.random.default_rng(1), 40))
    assert len(found) == len({tuple(map(bytes, p)) for p in found})
    assert any(first[0] and not second.any() for first, second in found)  # inside the slab of the hidden neuron
    wide = typed_network((3, 3, 4, 1), "SSSA", seed=2)
    wide = Network.from_arrays((wide.layers[0].weight[:, :2], wide.layers[0].bias),
                               *((la.weight, la.bias) for la in wide.layers[1:]))  # fmt: skip
    seen = set()
    x = np.random.default_rng(0).standard_normal((200_000, 2)) * 4.0 ** np.random.default_rng(1).uniform(
        -2, 4, (200_000, 1)
    )
    first, second, _ = wide.preactivations(x)
    for a, b in zip(first > 0, second > 0, strict=True):
        seen.add((a.tobytes(), b.tobytes()))
    mine = {(a.tobytes(), b.tobytes()) for a, b in patterns(wide, np.random.default_rng(2), 100)}
    assert len(mine & seen) >= 0.8 * len(mine) > 5


def test_dimensions_of_two_layers():
    """Two layers: one scaling for each neuron, proved; tanh: nothing moves."""
    for seed in range(3):
        net = Network.random((2, 4, 2), seed=seed)
        found = fiber(net)
        assert (found.dimension, found.rigor) == (4, Rigor.EXACT)
        assert found.check_dimension(seed).agrees
        assert found.check_dimension(seed, exact=True).dimension == 4
        tanh = fiber(Network.random((2, 3, 1), activation="tanh", seed=seed))
        assert tanh.dimension == 0 and tanh.check_dimension(seed).agrees
    twins = fiber(Network.from_arrays(([[1.0], [-2.0]], [1.0, -2.0]), ([[1.0, 1.0]], [0.0])))
    assert twins.dimension is None and "no two hidden neurons lie on one hyperplane" in str(twins)
    unread = fiber(Network.from_arrays(([[1.0], [-2.0]], [1.0, 2.5]), ([[1.0, 0.0]], [0.0])))
    assert unread.dimension is None


def test_other_chains_get_a_lower_bound():
    net = Network.random((2, 4, 3, 3, 1), seed=0)
    found = fiber(net)
    assert found.dimension is None and found.lower_bound == 10 and found.rigor is None
    assert found.check_dimension().dimension >= 10
    assert found.equations == () and found.inequalities == ()
    with pytest.raises(ScopeError, match="no equations"):
        found.latex()
    with pytest.raises(ScopeError, match="derivatives are built"):
        fiber(Network.random((2, 3, 1), activation="gelu", seed=0)).check_dimension()
    with pytest.raises(InputError, match="3,000|at most 3000"):
        fiber(Network.random((60, 50, 1), seed=0)).check_dimension()
    wide = fiber(typed_network((3, 3, 2, 1), "SA", seed=0).with_layers(Network.random((2, 3, 2, 1), seed=0).layers))
    assert wide.visible is None and "no bottleneck" in str(wide)


# ---- description


def test_vectors(shared):
    """Dimensions where the hypotheses hold; hidden neurons as stated."""
    cases = json.loads((shared / "vectors" / "fibers.json").read_text())
    compared = 0
    for case in cases:
        for side in "AB":
            data, info = case[side], case[f"info_{side}"]
            pairs = [(data[f"W{k}"], data[f"b{k}"]) for k in (1, 2, 3)]
            net = Network.from_arrays(*(([[Fraction(v) for v in row] for row in w], [Fraction(v) for v in b])
                                        for w, b in pairs))  # fmt: skip
            found = fiber(net)
            letters = "".join(
                "D" if j in found.types.dead else "A" if j in found.types.active else "S" for j in range(net.widths[2])
            )
            assert letters == info["types"], case["name"]
            assert [h.neuron for h in found.hidden_neurons] == info["hidden_generalised"], case["name"]
            if found.dimension is not None:
                compared += 1
                assert found.dimension == info["generic_fiber_dim_formula"], case["name"]
    assert compared >= 10


def test_hidden_neuron_and_visible_ones():
    """M5 of the theory: f = relu(2 y1 - y2 - 4) + relu(y1 - 3 y2 - 6): tau = min(4 / 2, 6 / 1)."""
    net = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[2, -1], [1, -3]], [-4, -6]), ([[1, 1]], [0]))
    found = fiber(net)
    assert found.dimension == 5 and found.visible == (False, True)
    (hidden,) = found.hidden_neurons
    assert (hidden.neuron, hidden.readers, hidden.slab) == (0, (0, 1), 2)
    assert [s.name for s in found.symmetries if s.kind == "discrete"] == ["permutation", "permutation"]
    assert [s.conserves for s in found.symmetries if s.name == "shift"] == ["none"]


def test_reports():
    net = typed_network((3, 3, 4, 2), "SSSD", hidden=1, seed=0)
    found = fiber(net)
    text = str(found)
    assert "dimension: 13 (3 + 3 scalings + 6 of dead neurons + 1 shift of a hidden kink)" in text
    assert "2 of 3 hyperplanes show" in text and "hidden: neuron 1" in text
    assert max(map(len, text.splitlines())) < 200 and len(text.splitlines()) < 24
    data = json.loads(found.to_json())
    assert data["dimension"] == 13 and data["rigor"] == "GENERIC"
    assert data["symmetry_counts"] == {"scaling": 6, "free": 6, "shift": 1, "permutation": 2}
    assert len(data["equations"]) == len(found.equations) and data["equations"][0]["text"]
    assert data["components"]["labelings"] == 6 * 24
    large = fiber(Network.random((80, 70, 60, 2), seed=0, dtype=np.float32))
    assert large.to_dict()["equations"] is None and large.dimension == 130


# ---- equations


@given(number=st.integers(0, len(SHAPES) - 1), seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_members_that_keep_roles_satisfy_the_equations(number, seed):
    widths, types, hidden = SHAPES[number]
    net = typed_network(widths, types, hidden=hidden, seed=seed)
    system = System(net)
    assert system.holds(net)
    keep = ["scale", "shift", "renew", "rebias", "exchange"]
    other, _ = random_walk(net, 8, seed, moves=keep)
    if neuron_types(other.layers[1].weight, other.layers[1].bias) == fiber(net).types:  # a block's row may become 0
        assert all(c.holds(other) for c in (*system.equations, *system.inequalities))
    for kind in ("ulp", "sign", "bias"):
        missed, _ = near_miss(other, kind, seed)
        if system.holds(missed):  # a change of a dead neuron, or one that the block forgives
            assert_same(net, missed, np.random.default_rng(seed))
    swapped, moves = random_walk(net, 1, seed, moves=["permute"])
    if moves and not swapped.same_as(net) and system.holds(swapped):
        assert_same(net, swapped, np.random.default_rng(seed))


@pytest.mark.parametrize("number", range(2, len(SHAPES), 9))
def test_equations_cut_out_the_right_dimension(number):
    """M - rank of the equations' derivative is the dimension of the fiber."""
    sympy = pytest.importorskip("sympy")
    widths, types, hidden = SHAPES[number]
    net = typed_network(widths, types, hidden=hidden, seed=11)
    found = fiber(net)
    data = found.sympy()
    symbols = list(data["symbols"].values())
    assert len(symbols) == net.parameter_count
    assert len(data["equations"]) == sum(c.count for c in found.equations)
    assert len(data["inequalities"]) == sum(c.count for c in found.inequalities)
    values = dict(zip(symbols, (sympy.Rational(v.numerator, v.denominator)
                                for v in rationals.fractions(net.theta)), strict=True))  # fmt: skip
    rows = []
    for equation in data["equations"]:
        assert equation.lhs.subs(values) == 0
        row = [Fraction(0)] * len(symbols)
        for symbol in equation.lhs.free_symbols:
            q = equation.lhs.diff(symbol).subs(values)
            row[symbols.index(symbol)] = Fraction(int(q.p), int(q.q))
        rows.append(row)
    assert net.parameter_count - rationals.rank(np.array(rows, dtype=object)) == found.dimension


def test_equations_of_two_layers():
    net = Network.from_arrays(([[1, 2], [0, -1]], [1, 0]), ([[3, 4]], [5]))
    found = fiber(net)
    other = Network.from_arrays(([[2, 4], [0, -3]], [2, 0]), ([[Fraction(3, 2), Fraction(4, 3)]], [5]))
    system = System(net)
    assert system.holds(other)
    assert not system.holds(Network.from_arrays(([[2, 4], [0, 3]], [2, 0]), ([[Fraction(3, 2), Fraction(4, 3)]], [5])))
    assert sum(c.count for c in found.equations) == 2 * 2 + 2 + 1
    assert found.latex().startswith("\\begin{aligned}") and "\\rho_{1} &> 0" in found.latex()
    point = fiber(Network.random((2, 3, 1), activation="tanh", seed=0))
    assert [c.count for c in point.equations] == [13] and point.equations[0].holds(point.network)
    with pytest.raises(InputError, match="theta has shape"):
        system.holds([1, 2])
    assert not system.holds(np.zeros(net.parameter_count))


def test_unread_neurons_are_free_but_stay_unread():
    """A first-layer neuron that only a dead neuron reads may be anything, as long as no live one reads it."""
    net = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[-2, 0], [-1, -1]], [4, -1]), ([[1, 1]], [0]))
    system = System(net)
    free = Network.from_arrays(([[1, 0], [7, -3]], [0, 5]), ([[-2, 0], [-1, -1]], [4, -1]), ([[1, 1]], [0]))
    assert system.holds(free)
    zero = Network.from_arrays(([[1, 0], [0, 0]], [0, 5]), ([[-2, 1], [-1, -1]], [4, -1]), ([[1, 1]], [0]))
    assert not system.holds(zero) and zero.exact([0, 0]) != net.exact([0, 0])


# ---- members


def test_samples_are_members():
    rng = np.random.default_rng(0)
    net = typed_network((3, 3, 4, 2), "SSAD", seed=4)
    found = fiber(net)
    members = found.sample(4, seed=3)
    assert len({m.network.digest for m in members}) == 4 and all(m.exact and m.moves for m in members)
    for member in members:
        assert_same(net, member.network, rng)
        verdict = found.contains(member.network, budget=20)
        assert verdict.answer is Answer.YES
    assert [m.network.digest for m in found.sample(4, seed=3)] == [m.network.digest for m in members]
    layers = [(la.weight, la.bias) for la in net.layers]
    layers[-1] = (layers[-1][0], layers[-1][1] + 2.0**-30)
    assert found.contains(Network.from_arrays(*layers), budget=20).answer is Answer.NO


def test_rounded_samples_deviate_by_less_than_certified():
    rng = np.random.default_rng(1)
    net = typed_network((3, 3, 4, 2), "SSAS", seed=4)
    found = fiber(net)
    seen = 0
    for domain in ("[-3,3]", None):
        for member in found.sample(3, seed=5, dtype=np.float32, domain=domain):
            assert {la.weight.dtype.name for la in member.network.layers} == {"float32"}
            for _ in range(10):
                x = [Fraction(float(v)) for v in rng.uniform(-3, 3, 3)]
                gap = max(abs(a - b) for a, b in zip(net.exact(x), member.network.exact(x), strict=True))
                seen += gap > 0
                assert gap <= member.constant + member.slope * max(map(abs, x))
    assert seen


# ---- paths


def check_path(path, net, rng, times=9):
    for k in range(times + 1):
        at = path.at(Fraction(k, times))
        assert at.widths == net.widths
        assert_same(net, at, rng, 3)


@pytest.mark.parametrize(
    ("widths", "types", "hidden"),
    [
        ((2, 2, 3, 1), "SSS", None), ((3, 3, 4, 2), "SSAD", None), ((3, 3, 4, 2), "SSSD", 1),
        ((2, 2, 4, 1), "AAAS", None), ((3, 3, 5, 3), "AADDS", None), ((3, 3, 4, 3), "AASS", None),
        ((2, 2, 3, 2), "DDD", None), ((4, 3, 4, 1), "AADD", None),
    ],
)  # fmt: skip
def test_paths_between_members_of_equal_roles(widths, types, hidden):
    rng = np.random.default_rng(0)
    for seed in range(3):
        net = typed_network(widths, types, hidden=hidden, seed=seed)
        other, _ = random_walk(net, 8, seed, moves=["scale", "shift", "renew", "rebias", "exchange"])
        path = fiber(net).path(other)
        assert path.at(0).same_as(net) and path.at(1).same_as(other)
        check_path(path, net, rng)


def test_paths_are_continuous():
    """Steps shrink in proportion to the time step, also across the pieces."""
    net = typed_network((2, 2, 4, 1), "AAAS", seed=1)
    other, _ = random_walk(net, 8, 1, moves=["scale", "exchange", "rebias"])
    path = fiber(net).path(other)
    largest = []
    for count in (400, 800):
        thetas = [rationals.rounded(p.theta, np.float64) for p in path.points(count + 1)]
        largest.append(max(np.abs(b - a).max() for a, b in itertools.pairwise(thetas)))
    assert largest[1] < 0.6 * largest[0]


def test_second_layer_permutations_go_through_a_dead_neuron():
    rng = np.random.default_rng(0)
    net = typed_network((3, 3, 5, 2), "SSSAD", seed=0)
    order = [2, 0, 1, 4, 3]
    other = Network.from_arrays(
        (net.layers[0].weight, net.layers[0].bias),
        (net.layers[1].weight[order], net.layers[1].bias[order]),
        (net.layers[2].weight[:, order], net.layers[2].bias),
    )
    path = fiber(net).path(other)
    assert path.at(1).same_as(other) and any("hands over" in name for name in path.names)
    check_path(path, net, rng, 40)
    alive = typed_network((3, 3, 3, 2), "SSS", seed=0)
    swapped = Network.from_arrays(
        (alive.layers[0].weight, alive.layers[0].bias),
        (alive.layers[1].weight[[1, 0, 2]], alive.layers[1].bias[[1, 0, 2]]),
        (alive.layers[2].weight[:, [1, 0, 2]], alive.layers[2].bias),
    )
    with pytest.raises(ScopeError, match="no dead one can carry"):
        fiber(alive).path(swapped)


def test_discrete_moves_have_no_path():
    net = typed_network((3, 3, 4, 2), "SSAA", seed=2)
    flipped = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[-1, 1], [4, 1]], [1, 1]), ([[1, 1]], [-1]))
    plain = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[1, -1], [3, 2]], [-1, 1]), ([[1, 1]], [0]))
    assert_same(plain, flipped, np.random.default_rng(0))
    with pytest.raises(ScopeError, match="a flip is discrete"):
        fiber(plain).path(flipped)
    order = [1, 0, 2]
    turned = Network.from_arrays(
        (net.layers[0].weight[order], net.layers[0].bias[order]),
        (net.layers[1].weight[:, order], net.layers[1].bias),
        (net.layers[2].weight, net.layers[2].bias),
    )
    with pytest.raises(ScopeError, match="row 0 of layer 1"):
        fiber(net).path(turned)
    other, _ = near_miss(net, "bias", 0)
    with pytest.raises(ScopeError, match="no path"):
        fiber(net).path(other)
    with pytest.raises(ScopeError, match="other widths"):
        fiber(net).path(plain)
    same = fiber(net).path(net)
    assert same.names == () and same.at(0.5) is net
    with pytest.raises(InputError, match="0 <= t <= 1"):
        same.at(2)
    tanh = Network.random((2, 3, 1), activation="tanh", seed=0)
    with pytest.raises(ScopeError, match="discrete"):
        fiber(tanh).path(random_walk(tanh, 3, 0)[0])


def test_a_swap_of_two_always_active_neurons_with_two_outputs_has_no_line():
    """V U = T of rank 2: V = T U^-1 is forced, and det U changes sign: there is no path without a dead neuron."""
    net = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[1, 2], [3, 1]], [1, 1]), ([[1, 0], [0, 1]], [0, 0]))
    swapped = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[3, 1], [1, 2]], [1, 1]), ([[0, 1], [1, 0]], [0, 0]))
    with pytest.raises(ScopeError, match="always-active block"):
        fiber(net).path(swapped)


# ---- roles


def brute_force_orientations(net):
    """n3 = 1, one always-active neuron: L_F must be all >= 0 or all <= 0, tried for every set F."""
    found = fiber(net)
    (active,) = found.types.active
    u, v = rationals.fractions(net.layers[1].weight), rationals.fractions(net.layers[2].weight)[0]
    count = 0
    for flags in itertools.product((0, 1), repeat=len(found.types.split)):
        row = v[active] * u[active]
        for flag, j in zip(flags, found.types.split, strict=True):
            row = row + flag * v[j] * u[j]
        count += bool((row >= 0).all() or (row <= 0).all())
    return count


def test_orientations_against_brute_force():
    for seed in range(12):
        net = typed_network((2, 2, 4, 1), "SSAS", seed=seed)
        roles = count_roles(net)
        assert roles.orientations == brute_force_orientations(net) and roles.certain
        assert roles.count == 2 * 24 * roles.orientations


def test_flips_of_walks_are_counted():
    """Whatever orientation a walk reaches is one of those counted."""
    for seed in range(10):
        net = typed_network((3, 2, 5, 2), "SSSAA", seed=seed)
        signs = set()
        for walk in range(6):
            other, _ = random_walk(net, 10, walk, moves=["flip", "exchange"])
            u = rationals.fractions(other.layers[1].weight)
            signs.add(tuple(bool(u[j, 0] > 0) for j in range(3)))
        assert len(signs) <= count_roles(net).orientations


def test_payable():
    cone = np.array([[1, 1, 1], [0, 1, -1]])  # columns in a half-plane: two generators suffice
    assert payable(cone, 2) == (True, True) and payable(cone, 1)[0] is False
    round_ = np.array([[1, -1, 0], [0, 0, 1]])  # contains a line
    assert payable(round_, 2)[0] is False and payable(round_, 3) == (True, True)
    assert payable(np.zeros((2, 2)), 1) == (True, True)


def test_turns_are_counted():
    net = typed_network((3, 3, 2, 1), "SD", hidden=0, seed=0)
    roles = count_roles(net)
    assert roles.turns == 2 and roles.joined
    assert roles.count == 6 * 2 * 4
    assert count_roles(Network.random((30, 20, 20, 1), seed=0)).labelings is None


# ---- as objects, and what they cannot be asked


def hidden_kink():
    """A network and another of its fiber: relu(2 relu(x) - 4) = relu(relu(2 x + 1) - 5)."""
    one = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    return one, Network.from_arrays(([[2.0]], [1.0]), ([[1.0]], [-5.0]), ([[1.0]], [0.0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_fibers_and_paths_can_be_copied_after_they_were_used(copied):
    net, other = hidden_kink()
    found = fiber(net)
    text, _ = str(found), found.latex()
    again = copied(found)
    assert str(again) == text and again.latex() == found.latex()
    path = found.path(other)
    half = copied(path).at(Fraction(1, 2))
    assert half.same_as(path.at(Fraction(1, 2))) and not half.same_as(net)


@pytest.mark.parametrize("options", [
    {"n": -1}, {"n": 1.5}, {"n": True}, {"n": None}, {"steps": -1}, {"steps": "many"}, {"seed": -1}, {"seed": "one"},
    {"dtype": "int8"}, {"dtype": "float8"}, {"dtype": 3}, {"domain": "somewhere"},
])  # fmt: skip
def test_samples_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError, match={"n": "number of members"}.get(*options, next(iter(options)))):
        fiber(hidden_kink()[0]).sample(**options)


def test_members_say_how_they_were_reached_and_what_rounding_did():
    net = typed_network((3, 2, 4, 1), "SADS", seed=0)
    exact, *_ = fiber(net).sample(seed=1)
    assert str(exact).endswith("exactly the same function") and f"{exact.moves[0]['move']} " in str(exact)
    rounded = next(m for s in range(20) for m in fiber(net).sample(seed=s, dtype="float16", domain="[-1,1]")
                   if not m.exact)  # fmt: skip
    said = float(str(rounded).split("at most ")[1].split(" +")[0])
    assert rounded.constant <= said <= 1.2 * rounded.constant


def test_times_outside_a_path_are_refused():
    net, other = hidden_kink()
    path = fiber(net).path(other)
    for wrong in (2, -1, "half", None, [0.5], np.nan, np.inf):
        with pytest.raises(InputError, match="time on a path|on a path; give"):
            path.at(wrong)
    with pytest.raises(InputError, match="number of points"):
        path.points(2.5)
    assert path.at(np.float32(0.5)).same_as(path.at(Fraction(1, 2)))


def test_what_is_no_network_has_no_fiber():
    with pytest.raises(InputError, match="fs.load"):
        fiber("net.onnx")
    with pytest.raises(InputError, match="^g is"):
        fiber(hidden_kink()[0]).contains(None)


def test_ranks_over_q_of_a_smooth_network_are_refused_for_what_they_are():
    with pytest.raises(ScopeError, match="ranks over Q need ReLU networks; found 2-3-1 tanh"):
        fiber(Network.random((2, 3, 1), activation="tanh", seed=0)).check_dimension(exact=True)
