"""Counts of conservation laws: closed forms, published tables, exact ranks, and laws at a network's own weights."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from fiberscope.activations import activation
from fiberscope.autodiff.rings import Residues
from fiberscope.domains import Box
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.laws.counting import conserved
from fiberscope.invariants.laws.growth import lie_growth
from fiberscope.invariants.laws.local import law_fields, local_count
from fiberscope.invariants.laws.polynomials import GramAnsatz, MonomialAnsatz, polynomial_laws
from fiberscope.invariants.orbits import orbit
from fiberscope.invariants.regions import realised_regions
from fiberscope.models import (
    attention,
    chain,
    convex_network,
    convolution,
    deep_linear,
    exponential_network,
    flow,
    glu,
    matrix_factorisation,
    mixture,
    normalised,
    polynomial_field,
    product,
    residual,
    swiglu,
)
from fiberscope.models.dynamics import HeavyBall
from fiberscope.network import Network
from fiberscope.results import Budget, Rigor
from fiberscope.symmetries import block_law_count, laws
from fiberscope.symmetries.patterns import activity

RING = Residues()


def balance_rank(widths, rng):
    """Rank over the reals of the gradients of all W_l W_l^T - W_(l+1)^T W_(l+1), without the code under test."""
    weights = [rng.standard_normal((n, m)) for m, n in itertools.pairwise(widths)]
    rows = []
    for k, (low, high) in enumerate(itertools.pairwise(weights)):
        for i, j in itertools.combinations_with_replacement(range(low.shape[0]), 2):
            grads = [np.zeros_like(w) for w in weights]
            grads[k][i] += low[j]
            grads[k][j] += low[i]
            grads[k + 1][:, i] -= high[:, j]
            grads[k + 1][:, j] -= high[:, i]
            rows.append(np.concatenate([g.reshape(-1) for g in grads]))
    return int(np.linalg.matrix_rank(np.array(rows)))


def test_fifty_linear_architectures():
    rng = np.random.default_rng(0)
    for _ in range(50):
        widths = tuple(int(n) for n in rng.integers(2, 6, rng.integers(3, 6)))
        found = conserved(widths, activation="identity", bias=False)
        assert found.count == balance_rank(widths, rng), widths
        assert found.rigor is Rigor.EXACT


def test_fifty_relu_architectures():
    rng = np.random.default_rng(1)
    for _ in range(50):
        widths = tuple(int(n) for n in rng.integers(2, 10, rng.integers(3, 6)))
        found = conserved(widths, bias=False)
        assert found.count == sum(widths[1:-1]), widths
        assert found.rigor is Rigor.EXACT


@pytest.mark.parametrize("widths", [(2, 2, 2), (2, 3, 2), (3, 2, 4), (2, 5, 2), (1, 4, 2), (8, 8, 8), (1, 2, 1)])
def test_two_layer_linear_formula(widths):
    n, r, m = widths
    k = n + m
    expected = r * (r + 1) // 2 if k >= r else k * r - k * (k - 1) // 2
    assert conserved(widths, activation="identity", bias=False).count == expected


@pytest.mark.parametrize(("n", "layers"), [(2, 2), (2, 3), (3, 3), (2, 4), (4, 3)])
def test_equal_widths(n, layers):
    found = conserved((n,) * (layers + 1), activation="identity", bias=False)
    assert (found.count, found.rigor) == ((layers - 1) * n * (n + 1) // 2, Rigor.EXACT)


@pytest.mark.parametrize(
    ("widths", "count"), [((1, 2, 2, 1), 7), ((1, 3, 3, 1), 14), ((1, 2, 2, 2, 1), 11), ((1, 3, 1), 5), ((1, 4, 1), 7)]
)
def test_scalar_inputs_and_outputs_move_along_one_line(widths, count):
    found = conserved(widths, activation="identity", bias=False)
    assert (found.count, found.growth, found.rigor) == (count, (1,), Rigor.EXACT)
    assert found.independent <= found.at_least == count


@pytest.mark.parametrize("r", [2, 3, 4])
def test_with_biases_there_is_more_than_one_field(r):
    found = conserved((1, r, 1), activation="identity")
    assert (found.count, found.rigor) == (block_law_count(r, 3), Rigor.EXACT)


@pytest.mark.parametrize(
    ("widths", "growth", "count"),
    [((2, 2, 2, 1), (2, 3, 4), 6), ((1, 3, 3, 2), (2, 3, 5, 6), 12), ((1, 4, 3, 2), (2, 3, 5, 6), 16)],
)
def test_deep_linear_networks_need_deep_brackets(widths, growth, count):
    found = conserved(widths, activation="identity", bias=False)
    assert (found.growth, found.count, found.rigor) == (growth, count, Rigor.EXACT)


def test_vectors_of_linear_networks(shared):
    for row in json.loads((shared / "vectors" / "invariants.json").read_text())["linear_laws"]:
        found = conserved((row["n"], row["r"], row["m"]), activation="identity", bias=False)
        assert (found.dimension, found.orbit_dimension, found.count) == (row["M"], row["orbit_dim"], row["laws"])


TABLE = {
    "relu (16, 16, 16)": (lambda: chain((16, 16, 16), bias=False), "gradient", 16, "EXACT"),
    "relu with biases": (lambda: chain((6, 5, 5, 3)), "gradient", 10, "EXACT"),
    "leaky relu": (lambda: chain((3, 4, 2), "leaky_relu"), "gradient", 4, "EXACT"),
    "absolute value": (lambda: chain((3, 4, 2), "abs"), "gradient", 4, "EXACT"),
    "product of 5": (lambda: product(5), "gradient", 4, "EXACT"),
    "polynomial field": (lambda: polynomial_field(5), "gradient", 4, "EXACT"),
    "gelu": (lambda: chain((3, 4, 2), "gelu"), "gradient", 0, "INTERVAL"),
    "silu": (lambda: chain((3, 4, 2), "silu"), "gradient", 0, "INTERVAL"),
    "tanh": (lambda: chain((3, 4, 2), "tanh", bias=False), "gradient", 0, "INTERVAL"),
    "sigmoid": (lambda: chain((3, 4, 2), "sigmoid", bias=False), "gradient", 0, "INTERVAL"),
    "softplus": (lambda: chain((3, 4, 2), "softplus", bias=False), "gradient", 0, "INTERVAL"),
    "square": (lambda: chain((3, 4, 2), "square", bias=False), "gradient", 4, "EXACT"),
    "cube": (lambda: chain((2, 3, 1), activation("polynomial", 0, 0, 0, 1)), "gradient", 3, "EXACT"),
    "swiglu": (lambda: swiglu(3, 4, 2), "gradient", 4, "INTERVAL"),
    "geglu": (lambda: glu(3, 4, 2, "gelu"), "gradient", 4, "INTERVAL"),
    "reglu": (lambda: glu(3, 4, 2, "relu"), "gradient", 8, "EXACT"),
    "bilinear": (lambda: glu(3, 4, 2, "identity"), "gradient", 8, "EXACT"),
    "attention": (lambda: attention(3, 2, 2), "gradient", 6, "INTERVAL"),
    "attention, 2 heads": (lambda: attention(3, 2, 2, heads=2), "gradient", 12, "INTERVAL"),
    "rotary attention": (lambda: attention(3, 4, 2, rotary=True), "gradient", 2 + 3, "INTERVAL"),
    "residual": (lambda: residual(2, 4), "gradient", 4, "EXACT"),
    "residual, 2 blocks": (lambda: residual(2, 4, blocks=2), "gradient", 8, "EXACT"),
    "convolution": (lambda: convolution(1, 3, 2), "gradient", 3, "EXACT"),
    "linear convolution": (lambda: convolution(2, 3, 1, linear=True), "gradient", 6, "EXACT"),
    "normalised rows": (lambda: normalised(3, 4, 2), "gradient", 4, "INTERVAL"),
    "exponential": (lambda: exponential_network(2, 3), "gradient", 3, "INTERVAL"),
    "softmax experts": (lambda: mixture(2, 3), "gradient", 2, "INTERVAL"),
    "nmf": (lambda: matrix_factorisation(2, 2, 2), "mirror", 2, "EXACT"),
    "nmf (3, 2, 4)": (lambda: matrix_factorisation(3, 2, 4), "mirror", 2, "EXACT"),
    "nmf (2, 3, 2)": (lambda: matrix_factorisation(2, 3, 2), "mirror", 3, "EXACT"),
    "icnn": (lambda: convex_network(2, 2, 2), "mirror:U", 2, "EXACT"),
    "icnn (3, 2, 4)": (lambda: convex_network(3, 2, 4), "mirror:U", 2, "EXACT"),
    "icnn (2, 3, 2)": (lambda: convex_network(2, 3, 2), "mirror:U", 3, "EXACT"),
    "momentum": (lambda: deep_linear((2, 2, 2)), "heavy_ball", 1, "EXACT"),
    "momentum with friction": (lambda: deep_linear((2, 2, 2)), "heavy_ball:0.7", 1, "EXACT"),
    "momentum (1, 1, 1)": (lambda: deep_linear((1, 1, 1)), "heavy_ball:0.7", 0, "EXACT"),
    "momentum (2, 1, 2)": (lambda: deep_linear((2, 1, 2)), "heavy_ball", 0, "EXACT"),
    "momentum (1, 2, 1)": (lambda: deep_linear((1, 2, 1)), "heavy_ball:0.7", 2, "GENERIC"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_ground_truth_table(name):
    build, dynamics, count, rigor = TABLE[name]
    found = conserved(build(), dynamics, seed=3)
    assert found.count == count
    assert found.rigor.name == rigor
    assert not found.refuted
    assert all(law.holds and law.residual < 1e-10 for law in found.known)
    if rigor != "GENERIC":
        assert found.at_least == count and not found.open
    json.loads(found.to_json())
    assert str(count) in str(found).splitlines()[0]


@pytest.mark.parametrize(
    ("name", "growth"), [("square", (12, 16)), ("attention", (16, 18)), ("attention, 2 heads", (32, 36))]
)
def test_growth_of_ranks(name, growth):
    build, dynamics, _, _ = TABLE[name]
    assert conserved(build(), dynamics).growth == growth


@pytest.mark.parametrize("widths", [(2, 2, 1), (1, 3, 2), (2, 2, 2)])
def test_momentum_leaves_no_law_of_relu_networks(widths):
    found = conserved(widths, "heavy_ball", bias=False)
    assert (found.count, found.rigor) == (0, Rigor.EXACT)


@pytest.mark.parametrize("dims", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (2, 1, 2)])
def test_momentum_leaves_no_law_of_mirror_flows(dims):
    for model, blocks in ((matrix_factorisation(*dims), ""), (convex_network(*dims), ":U")):
        found = conserved(model, f"mirror_momentum{blocks}")
        assert (found.count, found.rigor) == (0, Rigor.EXACT)


@pytest.mark.parametrize("dims", [(1, 1, 1), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("friction", [0, 1])
def test_a_heavy_ball_with_mirrored_force_keeps_two_laws_for_each_column(dims, friction):
    """u'' + tau u' = -u * grad: p = sum u' - sum v' has p' = -tau p, which gives e^(tau t) p and its integral."""
    ball = HeavyBall(flow(matrix_factorisation(*dims), "mirror").family, friction)
    rng = np.random.default_rng(0)
    point = RING.random(rng, (ball.size,))
    growth = lie_growth(ball, point, RING, rng, ceiling=ball.size, clock=Budget().start())
    assert ball.size - growth.rank == 2 * dims[1]


def test_a_claimed_law_that_does_not_hold_is_refuted():
    found = conserved(mixture(2, 3, gate="sigmoid", claim=True))
    assert (found.count, found.at_least, found.independent, found.rigor) == (0, 0, 0, Rigor.INTERVAL)
    assert [law.size for law in found.refuted] == [2]
    assert found.refuted[0].residual > 1e-3
    assert found.known == ()
    assert "NOT conserved" in str(found)


def test_a_false_bound_is_noticed():
    model = replace(product(3), bound=(0, "nothing moves"))
    found = conserved(model)
    assert found.rigor is Rigor.GENERIC
    assert "nothing moves" in found.open


def test_an_orbit_of_low_dimension_is_no_law():
    """Two equal neurons stay equal, so that their orbit has codimension D; nearby orbits are open all the same."""
    row = [0.5, -1.0]
    net = Network.from_arrays(([row, row], [0.25, 0.25]), ([[0.75, 0.75]], [0.5]), activation="tanh")
    at = orbit(net)
    assert at.ambient - at.dimension == 2 + 1 + 1
    found = conserved(net)
    assert (found.count, found.orbit_dimension, found.rigor) == (0, net.parameter_count, Rigor.INTERVAL)


def test_values_at_theta():
    net = Network.from_arrays(([[1.0, 2.0]], [2.0]), ([[2.0]], [7.0]))
    assert conserved(net).known[0].values == (5.0,)  # 1 + 4 + 4 - 4
    assert conserved(deep_linear((1, 1, 1)), theta=[3.0, 2.0]).known[0].values == (5.0,)
    assert conserved(exponential_network(1, 1), theta=[9.0, 5.0, 2.0]).known[0].values == (3.0,)  # 5 - 4 / 2


def test_growth_that_was_cut_short_gives_a_bound():
    found = conserved((3, 3, 3), activation="identity", bias=False, budget=0)
    assert found.open.startswith("the growth")
    assert found.growth == (9,)
    assert found.at_least == 6 <= found.count == 9
    assert "at most 9" in str(found)


# ---- polynomial laws


@pytest.mark.parametrize(
    ("widths", "count"), [((n, n, n), n * (n + 1) // 2) for n in range(2, 7)] + [((3, 3, 3, 3), 12)]
)
def test_quadratic_laws_of_linear_networks(widths, count):
    model = deep_linear(widths)
    point = model.theta(RING, np.random.default_rng(1))
    none = np.zeros((0, model.size), dtype=np.int64)
    found = polynomial_laws(model.family, GramAnsatz(model.blocks), "", known=none, point=point, ring=RING)
    assert found.dimension == found.independent == found.beyond == count
    assert all(law.verified for law in found.laws)
    # every law is a combination of inner products of rows of W_l and of columns of W_(l+1) with opposite coefficients
    names = {name.split("[")[0] for law in found.laws for name, _ in law.terms}
    assert names == {name for name, _ in model.blocks}
    known = np.concatenate([law.rows(RING, point) for law in flow(model).laws])
    again = polynomial_laws(model.family, GramAnsatz(model.blocks), "", known=known, point=point, ring=RING)
    assert again.beyond == 0


def test_all_quadratic_laws_by_all_monomials():
    model = deep_linear((2, 2, 2))
    point = model.theta(RING, np.random.default_rng(1))
    none = np.zeros((0, model.size), dtype=np.int64)
    names = tuple(f"x{i}" for i in range(8))
    found = polynomial_laws(model.family, MonomialAnsatz(names, 2), "", known=none, point=point, ring=RING)
    assert (found.dimension, found.independent) == (3, 3)
    # of degree 4 the products of the three come as well: 3 + 6, and they are functions of them
    found = polynomial_laws(model.family, MonomialAnsatz(names, 4), "", known=none, point=point, ring=RING)
    assert (found.dimension, found.independent) == (3 + 6, 3)


def test_a_law_that_is_not_listed_is_discovered():
    """s(z) = 1 + z: linear networks in disguise, with linear terms in the laws."""
    found = conserved((2, 2, 2), activation=activation("polynomial", 1, 1))
    assert found.known == ()
    assert found.count == 3
    assert [laws.beyond for laws in found.discovered][-1] == 3
    assert "checked at random points" in found.open


def test_a_generic_polynomial_field_has_no_polynomial_laws():
    found = conserved(polynomial_field(5, degree=2), degree=4)
    assert found.count == 4
    assert found.discovered[-1].ansatz == "all polynomials of degree 4"
    assert found.discovered[-1].dimension == 0


def test_one_law_of_one_field():
    """x' = x, y' = -2 y has x^2 y, of degree 3; no polynomial of degree 2."""
    from fiberscope.autodiff.nilpotent import Nilpotent

    class Saddle:
        size = 2

        def draw(self, ring, rng, count):
            return (ring.random(rng, (count, 1)),)

        def fields(self, theta, data, jets):
            rates = theta.ring.array(np.array([[1, -2]]))
            return theta * Nilpotent(theta.ring, {0: theta.ring.multiply(data[0], rates)})

    point = np.array([3, 5])
    none = np.zeros((0, 2), dtype=np.int64)
    for degree, dimension in ((2, 0), (3, 1)):
        found = polynomial_laws(Saddle(), MonomialAnsatz(("x", "y"), degree), "", known=none, point=point, ring=RING)
        assert found.dimension == dimension
    assert str(found.laws[0]) == "x x y"


@pytest.mark.parametrize(("r", "count"), [(2, 2), (3, 6)])
def test_rotations_of_momentum_are_found(r, count):
    found = conserved((1, r, 1), "heavy_ball:0.7", activation="identity", bias=False)
    assert found.count == count == r * (r - 1)
    assert found.independent == count // 2
    assert found.discovered[0].beyond == count // 2


# ---- at the network's own weights


def accounting(net, box):
    """hidden - dead + the parameters of dead neurons + pairs that are never active together, from exact activity."""
    found = realised_regions(net, box, clock=Budget().start())
    assert found.complete
    first, second = (s != 0 for s in found.slopes)
    dead = ~second.any(axis=0)
    n0, n1, n2, n3 = net.widths
    together = (first[:, :, None] & second[:, None, :]).any(axis=0)
    missing = int((~together[:, ~dead]).sum())
    always = [s.all(axis=0) for s in (first, second)]
    usual = first.any(axis=0).all() and not any(a.sum() > 1 for a in always) and (~dead).any()
    alike = any(len({c.tobytes() for c in s[:, s.any(axis=0)].T}) < s.any(axis=0).sum() for s in (first, second))
    return n1 + n2 - dead.sum() + dead.sum() * (n1 + 1 + n3) + missing, usual and not alike


def test_local_counts_are_explained():
    kinds = set()
    for seed in range(20):
        net = Network.random((2, 3, 4, 2), seed=seed)
        box = Box.everywhere(2)
        here = conserved(net, degree=0).here
        assert here.unexplained == 0
        assert here.rigor is Rigor.EXACT
        expected, usual = accounting(net, box)
        if usual:
            assert here.count == expected, seed
            kinds.add(here.count - 7)
    assert len(kinds) >= 4


def test_counts_of_networks_without_biases():
    """Six networks (3, 4, 4, 2): 8, or 13 with one dead neuron and its six parameters."""
    counts = []
    for seed in range(6):
        found = conserved(Network.random((3, 4, 4, 2), seed=seed, bias=False), bias=False, degree=0)
        assert found.count == 8
        assert found.here.rigor is Rigor.EXACT
        assert found.here.dimension == 12 + 16 + 8
        counts.append(found.here.count)
    assert set(counts) == {8, 13}


def test_zero_biases_that_move_leave_the_count_open():
    found = conserved(Network.random((2, 3, 3, 1), seed=1, bias=False))
    assert found.here.rigor is Rigor.SAMPLED
    assert any("kink fills a region" in note for note in found.here.notes)


def test_always_active_blocks_and_dead_neurons_on_a_box():
    net = Network.from_arrays(
        ([[1.0, 2.0], [2.0, 1.0], [-1.0, -1.0]], [1.0, 0.5, -1.0]), ([[1.0, -1.0, 2.0]], [0.0]), activation="relu"
    )
    found = conserved(net, domain="[0,1]")
    # rows 0 and 1 always active: 3 laws; row 2 dead: its 2 + 1 weights and bias and its outgoing weight
    assert found.count == 3
    assert found.here.count == 3 + 4
    assert found.here.unexplained == 0
    assert sum(e.extra for e in found.here.explained) == 7
    assert found.here.rigor is Rigor.EXACT
    # one input fixed at zero: the weights of the other two rows there are constant too
    fixed = conserved(net, domain=Box(np.array([0.0, 0.0]), np.array([1.0, 0.0])))
    assert fixed.here.unexplained == 0
    assert fixed.here.count == 7 + 2


def test_clipped_networks_count_their_patterns():
    net = Network.from_arrays(([[1.0], [2.0]], [0.0, 1.0]), ([[1.0, -1.0]], [0.0]), activation="hard_tanh")
    assert conserved(net).here.count == 0
    # on [3, 4] both neurons are constant: only the outputs' weights and bias move, along one direction
    found = conserved(net, domain="[3,4]").here
    assert found.count == net.parameter_count - 1
    assert found.count - found.unexplained == 4
    assert found.rigor is Rigor.GENERIC


def test_laws_on_data():
    net = Network.random((3, 4, 1), activation="tanh", seed=0)
    # one point, one output: one field, M - 1 laws; enough points: as on all inputs
    point = conserved(net, data=[[1.0, -2.0, 0.5]], degree=0).here
    assert (point.count, point.patterns) == (net.parameter_count - 1, 1)
    many = np.random.default_rng(0).standard_normal((30, 3))
    assert conserved(net, data=many, degree=0).here.count == 0
    relu = Network.random((3, 4, 2), seed=0)
    here = conserved(relu, data=many, degree=0).here
    assert here.unexplained == 0 and here.count == 4


@pytest.mark.parametrize("widths", [(2, 4, 1), (2, 3, 3, 1), (3, 3, 2, 1), (1, 4, 3, 1)])
@pytest.mark.parametrize("row", ["relu", "leaky_relu", "hard_tanh"])
def test_regions_are_complete(widths, row):
    net = Network.random(widths, activation=row, seed=sum(widths))
    box = Box.parse("[-2,3]", widths[0])
    found = realised_regions(net, box, clock=Budget().start())
    assert found.complete
    seen = activity(net, found.points)
    assert all(np.array_equal(a, b) for a, b in zip(seen.slopes, found.slopes, strict=True))
    assert min(m.min() for m in seen.margins) > 0
    table = {row.tobytes() for row in np.concatenate(seen.pieces, axis=1)}
    assert len(table) == found.count
    sampled = activity(net, box.sample(20000, np.random.default_rng(0)))
    assert {row.tobytes() for row in np.concatenate(sampled.pieces, axis=1)} <= table


def test_lines_in_general_position_cut_the_plane():
    for n in (1, 3, 6):
        net = Network.random((2, n, 1), seed=n)
        found = realised_regions(net, Box.everywhere(2), clock=Budget().start())
        assert found.count == 1 + n + n * (n - 1) // 2


def test_search_where_enumeration_gives_up():
    net = Network.random((10, 5, 4, 1), seed=2)
    found = conserved(net, degree=0).here
    assert not found.complete
    assert found.rigor is Rigor.SAMPLED
    assert found.count >= 9
    small = Network.random((2, 6, 6, 1), seed=2)
    whole = realised_regions(small, Box.everywhere(2), clock=Budget().start())
    part = realised_regions(small, Box.everywhere(2), clock=Budget().start(), most=3)
    assert whole.complete and not part.complete
    rows = [{r.tobytes() for r in np.concatenate(f.slopes, axis=1)} for f in (part, whole)]
    assert rows[0] <= rows[1]
    assert len(rows[0]) > 0.7 * len(rows[1])


def test_law_fields_are_the_exact_gradients():
    net = Network.random((2, 3, 3, 1), seed=5)
    theta = np.arange(1.0, net.parameter_count + 1)
    points = np.random.default_rng(0).standard_normal((5, 2))
    entries = [law for law in laws(net, points).entries if law.size]
    assert {law.name for law in entries} >= {"balance"}
    for law in entries:
        expected = RING.array(law.gradient(theta))
        assert (law_fields(law).at(RING, RING.array(theta)) == expected).all()


# ---- what is refused


def test_what_does_not_fit_is_refused():
    net = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError):
        conserved((2, 3, 1), domain="[0,1]")
    with pytest.raises(InputError):
        conserved(net, "heavy_ball", domain="[0,1]")
    with pytest.raises(InputError):
        conserved(net, domain="[0,1]", data=[[0.0, 0.0]])
    with pytest.raises(InputError):
        conserved(net, bias=False)
    with pytest.raises(InputError):
        conserved(net, theta=[1.0])
    with pytest.raises(ScopeError):
        conserved((2, 3, 1), activation="elu")


def test_nothing_is_local_for_analytic_networks():
    assert local_count(Network.random((2, 3, 1), activation="tanh", seed=0), clock=Budget().start()) is None


def test_user_functions_are_counted_in_floating_point() -> None:
    jnp = pytest.importorskip("jax.numpy")
    start = {"u": np.ones((3, 2)), "v": np.ones((2, 2))}
    found = conserved(lambda p, x: p["u"] @ (p["v"] @ x), theta=start, inputs=(2,))
    assert (found.count, found.at_least, found.rigor) == (3, 0, Rigor.NUMERICAL)  # u^T u - v v^T
    assert "no symmetry of a user function is known" in found.open
    free = conserved(lambda p, x: p["u"] @ jnp.tanh(p["v"] @ x), theta=start, inputs=(2,))
    assert (free.count, free.open) == (0, "")
    with pytest.raises(InputError, match="only gradient flow"):
        conserved(lambda p, x: x, "heavy_ball", theta=start, inputs=(2,))
