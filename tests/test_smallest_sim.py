"""Levels, merge trees, projections, constants and automorphisms of the smallest invariant manifold."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.errors import InputError
from fiberscope.invariants import orbit, smallest_sim
from fiberscope.invariants.classes.critical import frozen_neurons
from fiberscope.invariants.classes.groups import close_groups
from fiberscope.invariants.classes.merging import merge_tree
from fiberscope.invariants.classes.nearby import near_classes, rounding_tolerances
from fiberscope.invariants.classes.projections import nearest_on_manifold, partition_distance, projectors
from fiberscope.invariants.orbits.ceilings import ceiling
from fiberscope.network import Network
from fiberscope.neurons import colour_classes
from fiberscope.rowclasses import in_order
from fiberscope.symmetries.automorphisms import neuron_orbits
from oracles import gradient

MAGIC = [[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]


def classes_of(labels, factors=None):
    """Classes from plain lists; -1 is null."""
    factors = [1] * len(labels) if factors is None else factors
    return in_order(np.array(labels), np.array([Fraction(f) for f in factors], dtype=object))


def three_layers(matrix, name="softplus", bias=0.5):
    n, m = np.shape(matrix)
    return Network.from_arrays(
        (np.ones((m, 1)), np.full(m, bias)), (matrix, np.full(n, bias)), (np.ones((1, n)), [0.0]), activation=name
    )


def planted(m, count, name, noise, *, seed=0, n_in=3, n_out=1, null=False):
    """A two-layer network whose neurons are noisy copies, up to what the activation forgives, of a few."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(count), rng.integers(0, count, m - count)])
    centres = rng.standard_normal((count, n_in + 1 + n_out))
    if null:
        centres[0] = 0.0
    u, row = centres[label], activation(name)
    if row.parity is not None:
        sign = rng.choice([-1.0, 1.0], m)[:, None]
        u = sign * u if row.parity == "odd" else np.concatenate([sign * u[:, : n_in + 1], u[:, n_in + 1 :]], axis=1)
    if row.homogeneity == 1:
        u = u * np.exp(0.3 * rng.standard_normal(m))[:, None]
    u = u + noise * rng.standard_normal(u.shape)
    pairs = (u[:, :n_in], u[:, n_in]), (u[:, n_in + 1 :].T, np.zeros(n_out))
    return Network.from_arrays(*pairs, activation=name), label


def dense_projectors(net, partition):
    """P of every layer of neurons as full matrices: those of pre-activations, those of activations."""
    out = [[np.eye(net.widths[0])] * 2]
    for layer, c in zip(net.hidden, partition, strict=True):
        pair = []
        for vector in (c.vector, np.abs(c.vector) if layer.activation.parity == "even" else c.vector):
            e = np.zeros((len(vector), c.count))
            for i, label in enumerate(c.labels):
                if label >= 0:
                    e[i, label] = vector[i]
            pair.append(e @ np.linalg.pinv(e))
        out.append(pair)
    return [*out, [np.eye(net.widths[-1])] * 2]


# ---- distances and projections


def test_distances_of_the_theory_note():
    u = np.array([[1.0, 0.0, 0.5], [1.1, 0.0, 0.5], [-1.0, 0.05, -0.45], [0.02, 0.0, 0.0]])
    for name, partition, known in [
        ("softplus", classes_of([0, 0, 1, 2]), 0.07071067811865482),
        ("tanh", classes_of([0, 0, 0, -1], [1, 1, -1, 0]), 0.10198039027185575),
    ]:
        net = Network.from_arrays((u[:, 1:2], u[:, 2]), (u[:, :1].T, [0.0]), activation=name)
        assert abs(partition_distance(net, (partition,)).absolute - known) < 1e-15


def random_partition(rng, name, n):
    row = activation(name)
    labels = rng.integers(0, max(1, n - 1), n)
    factors = np.ones(n)
    if row.parity is not None:
        factors = rng.choice([-1.0, 1.0], n)
    if row.homogeneity == 1:
        factors = rng.choice([0.5, 1.0, 2.0, 3.0], n)
    if row.value(Fraction(0)) == 0 and rng.random() < 0.4:
        labels[rng.integers(0, n)] = -1
    labels = np.unique(np.where(labels < 0, -1, labels), return_inverse=True)[1] - int((labels < 0).any())
    first = {int(a): factors[np.argmax(labels == a)] for a in labels}
    return classes_of(labels, [f / first[int(a)] if a >= 0 else 0 for f, a in zip(factors, labels, strict=True)])


@pytest.mark.parametrize("name", ["softplus", "tanh", "gaussian", "relu"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_projection_is_the_nearest_point(name, seed):
    rng = np.random.default_rng(seed)
    net = Network.random((2, 4, 3, 2), activation=name, seed=seed)
    partition = tuple(random_partition(rng, name, n) for n in (4, 3))
    spans = dense_projectors(net, partition)
    total, frozen, near = 0.0, 0.0, []
    for layer, (_, below), (here, _) in zip(net.layers, spans, spans[1:], strict=False):
        p, q = below, here
        w, b = layer.weight, layer.bias
        nearest = q @ w @ p + (np.eye(len(q)) - q) @ w @ (np.eye(len(p)) - p)
        near.append((nearest, q @ b))
        total += ((w - nearest) ** 2).sum() + ((b - q @ b) ** 2).sum()
        frozen += (((np.eye(len(q)) - q) @ w @ (np.eye(len(p)) - p)) ** 2).sum()
    found = partition_distance(net, partition)
    assert abs(found.absolute - total**0.5) < 1e-12
    assert abs(found.condensed - (total + frozen) ** 0.5) < 1e-12
    assert abs(found.relative * np.linalg.norm(net.theta) - total**0.5) < 1e-12
    for exact in (True, False):
        onto = nearest_on_manifold(net, partition, exact=exact)
        for layer, (w, b) in zip(onto.layers, near, strict=True):
            np.testing.assert_allclose(layer.weight64, w, atol=1e-13)
            np.testing.assert_allclose(layer.bias64, b, atol=1e-13)
    again = nearest_on_manifold(nearest_on_manifold(net, partition, exact=True), partition, exact=True)
    assert again.same_as(nearest_on_manifold(net, partition, exact=True))
    middle = sum(b.frozen**2 for b in found.blocks)
    assert abs(middle - frozen) < 1e-12


@pytest.mark.parametrize("name", ["softplus", "tanh", "gaussian", "relu"])
def test_an_exact_projection_is_on_the_manifold(name):
    rng = np.random.default_rng(1)
    for seed in range(5):
        net = Network.random((2, 4, 3, 2), activation=name, seed=seed)
        partition = tuple(random_partition(rng, name, n) for n in (4, 3))
        for condensed in (False, True):
            onto = nearest_on_manifold(net, partition, condensed=condensed, exact=True)
            for here, wanted in zip(colour_classes(onto), partition, strict=True):
                kept = {frozenset(m) for m in here.members}
                assert all(any(set(m) <= c for c in kept) for m in wanted.members)
                assert set(wanted.null) <= set(here.null)
            assert partition_distance(onto, partition).absolute < 1e-14
            if condensed:
                assert partition_distance(onto, partition).condensed < 1e-14


def test_rounded_projections_keep_copies_bit_by_bit():
    net, label = planted(40, 4, "tanh", 1e-3)
    single = Network.from_arrays(
        *((layer.weight.astype(np.float32), layer.bias.astype(np.float32)) for layer in net.layers), activation="tanh"
    )
    sim = smallest_sim(single, 0.05)
    onto = sim.project(level="approximate", exact=False)
    assert onto.layers[0].weight.dtype == np.float32
    assert colour_classes(onto)[0].count == 4
    deep = three_layers(np.array(MAGIC) + 1e-4 * np.random.default_rng(0).standard_normal((3, 3)))
    near = smallest_sim(deep, 0.01)
    assert near.levels[2].reduced_widths == (1, 1, 1, 1)
    assert [c.count for c in colour_classes(near.project(level="approximate", condensed=True, exact=False))] == [1, 1]
    assert near.levels[2].condensed > 1 > near.levels[2].distance


def test_a_projection_after_training_uses_the_old_classes():
    rng = np.random.default_rng(0)
    net, _ = planted(6, 2, "softplus", 0.0)
    sim = smallest_sim(net)
    away = net.with_theta(np.asarray(net.theta) + 1e-6 * rng.standard_normal(net.parameter_count))
    assert colour_classes(away)[0].count == 6
    assert colour_classes(sim.project(away))[0].count == 2
    assert sim.project().same_as(net)


def test_projectors_refuse_other_shapes():
    net, _ = planted(6, 2, "softplus", 0.0)
    with pytest.raises(InputError, match="the hidden layers have"):
        projectors(net, (classes_of([0, 0]),))


# ---- levels


@pytest.mark.parametrize("name", ["softplus", "tanh", "gaussian", "relu", "gelu"])
def test_three_levels(name):
    net, label = planted(60, 5, name, 1e-3, null=name in ("tanh", "relu", "gelu"))
    sim = smallest_sim(net, 0.05)
    live = 5 - (name in ("tanh", "relu", "gelu"))
    assert [level.reduced_widths[1] for level in sim.levels] == [60, 60, live]
    exact, numerical, near = sim.levels
    assert (exact.distance, numerical.same_as, near.same_as) == (0.0, "exact", None)
    noise = 1e-3 * np.sqrt((60 - live) * 5)
    assert 0.7 * noise < near.distance < 1.3 * noise
    assert near.dimension == 5 * live + 1
    truth = {frozenset(np.flatnonzero(label == k).tolist()) for k in range(5)}
    assert {frozenset(m) for m in near.classes[0]} | ({frozenset(near.null[0])} - {frozenset()}) == truth
    assert abs(near.distance - partition_distance(net, near.partition).absolute) < 1e-15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["softplus", "tanh"])
def test_rounding_is_a_level_of_its_own(name, dtype):
    net, label = planted(30, 4, name, 0.0, n_in=10)
    rng, eps = np.random.default_rng(0), np.finfo(dtype).eps
    jitter = [
        (
            (layer.weight * (1 + eps * rng.standard_normal(layer.weight.shape))).astype(dtype),
            (layer.bias * (1 + eps * rng.standard_normal(layer.bias.shape))).astype(dtype),
        )
        for layer in net.layers
    ]
    sim = smallest_sim(Network.from_arrays(*jitter, activation=name))
    exact, numerical = sim.levels
    assert exact.reduced_widths[1] > 4 == numerical.reduced_widths[1]
    assert 0 < numerical.relative < 10 * eps and numerical.rigor.name == "NUMERICAL"
    further = [(w + 1e3 * eps * rng.standard_normal(w.shape).astype(dtype), b) for w, b in jitter]
    assert smallest_sim(Network.from_arrays(*further, activation=name)).levels[1].reduced_widths[1] > 4


@given(seed=st.integers(0, 10**6), tolerance=st.sampled_from([1e-3, 0.03, 0.1, 0.5]))
@settings(max_examples=40)
def test_levels_are_nested_and_keep_their_promise(seed, tolerance):
    rng = np.random.default_rng(seed)
    name = ["softplus", "tanh", "gaussian"][seed % 3]
    net, _ = planted(int(rng.integers(2, 25)), 2, name, float(10.0 ** rng.uniform(-4, 0)), seed=seed)
    base = colour_classes(net)
    fine = near_classes(net, base, tolerance / 3)
    coarse = near_classes(net, fine, tolerance)
    for a, b in ((base, fine), (fine, coarse)):
        held = [set(m) for m in b[0].members] + [set(b[0].null)]
        assert all(any(set(m) <= h for h in held) for m in a[0].members)
        for members in a[0].members:  # relative signs survive
            for i in members:
                if b[0].labels[i] >= 0:
                    first = b[0].vector[members[0]] * a[0].vector[i]
                    assert b[0].vector[i] == first
    rows = np.concatenate([net.layers[0].weight, net.layers[0].bias[:, None], net.layers[1].weight.T], axis=1)
    radius = tolerance / 3 * np.median(np.linalg.norm(rows, axis=1))
    signed = np.array([1.0] * 4 + [0.0 if name == "gaussian" else 1.0])
    for members in fine[0].members:
        e = fine[0].vector[list(members)][:, None]
        aligned = np.where(signed > 0, e * rows[list(members)], rows[list(members)])
        assert np.linalg.norm(aligned - aligned.mean(axis=0), axis=1).max() <= radius * (1 + 1e-9)


def test_deep_levels_match_planted_equitable_classes():
    rng = np.random.default_rng(5)
    e = np.array([1.0, -1, 1, 1, -1, 1])
    middle = np.outer(e, e) * 0.25 + 1e-6 * rng.standard_normal((6, 6))
    deviation = rng.standard_normal((6, 6))  # frozen on the manifold: it must not count
    q = np.eye(6) - np.outer(e, e) / 6
    pairs = (np.outer(e, [0.5, -0.25]), 0.25 * e), (middle + q @ deviation @ q, 0.125 * e), (0.5 * e[None], [0.0])
    net = Network.from_arrays(*pairs, activation="tanh")
    sim = smallest_sim(net, 1e-3)
    assert sim.levels[2].reduced_widths == (2, 1, 1, 1)
    assert sim.levels[2].distance < 1e-5 < 1 < sim.levels[2].condensed
    assert [list(c.vector) for c in sim.levels[2].partition] == [list(e), list(e)]
    assert sim.levels[2].blocks[1].frozen > 1
    assert sim.merge_tree.suggested == 2


def test_tolerances_that_are_none_are_refused():
    net, _ = planted(6, 2, "softplus", 0.0)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="tolerance"):
            smallest_sim(net, bad)
    with pytest.raises(InputError, match="pass a tolerance"):
        smallest_sim(net).at("approximate")
    with pytest.raises(InputError, match="no level with 77"):
        smallest_sim(net).at(77)


def test_tight_groups_are_never_cut():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 300, 6000)
    points = rng.standard_normal((300, 8))[label] + 1e-4 * rng.standard_normal((6000, 8))
    found, _ = close_groups(points, 0.05, np.zeros(6000, np.int64), rng=rng)
    assert len(np.unique(found)) == 300 == len({(a, b) for a, b in zip(found.tolist(), label.tolist(), strict=True)})


# ---- merge tree


def test_the_tree_is_ward():
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    net, _ = planted(120, 7, "softplus", 0.2)
    u = np.concatenate([net.layers[0].weight, net.layers[0].bias[:, None], net.layers[1].weight.T], axis=1)
    tree = merge_tree(net, colour_classes(net))
    np.testing.assert_allclose([s.height for s in tree.steps[1:]], hierarchy.ward(u)[:, 2], rtol=1e-10)
    assert [s.classes for s in tree.steps] == list(range(120, 0, -1))


@pytest.mark.parametrize("name", ["softplus", "tanh", "gaussian", "gelu"])
def test_tree_distances_are_distances(name):
    net, _ = planted(40, 4, name, 0.1, null=name in ("tanh", "gelu"))
    tree = merge_tree(net, colour_classes(net))
    for step in tree.steps:
        partition = tree.partition(step.classes)
        assert partition[0].count == step.classes
        assert abs(partition_distance(net, partition).absolute - step.distance) < 1e-9 * (1 + step.distance)
        assert step.dimension == 5 * step.classes + 1
    if name in ("tanh", "gelu"):
        assert any(tree.partition(s.classes)[0].null for s in tree.steps)


def test_weighted_tree_bounds_the_distance():
    net, _ = planted(40, 4, "relu", 0.05)
    tree = merge_tree(net, colour_classes(net))
    for step in tree.steps:
        true = partition_distance(net, tree.partition(step.classes)).absolute
        assert 0.9 * step.distance <= true <= step.distance * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("name", ["softplus", "tanh", "gaussian", "relu", "gelu"])
def test_planted_classes_stand_out(name):
    net, label = planted(50, 5, name, 1e-3)
    tree = smallest_sim(net).merge_tree
    assert tree.suggested == 5 and tree.ratio > 100
    found = tree.partition(5)[0]
    assert {frozenset(m) for m in found.members} == {frozenset(np.flatnonzero(label == k).tolist()) for k in range(5)}
    assert "5 classes stand out" in str(tree)
    plain = smallest_sim(Network.random((3, 50, 1), activation=name, seed=1)).merge_tree
    assert plain.suggested is None and "no number" in str(plain)


def test_more_units_than_the_cap_are_merged_by_tolerance_first():
    net, label = planted(400, 6, "tanh", 1e-3)
    tree = merge_tree(net, colour_classes(net), cap=50)
    assert "tolerance" in {s.by for s in tree.steps} and "ward" in {s.by for s in tree.steps}
    assert tree.suggested == 6 and tree.ratio > 50
    before, step = next((a, b) for a, b in itertools.pairwise(tree.steps) if b.by == "tolerance")
    added = step.distance**2 - before.distance**2
    assert abs(step.height - np.sqrt(2 * added / (before.classes - step.classes))) < 1e-12
    assert tree.partition(6)[0].count == 6
    crowd = merge_tree(
        Network.random((8, 90, 1), activation="softplus", seed=0), (classes_of(list(range(90))),), cap=20
    )
    assert "are left" in crowd.capped and len(crowd.partition(90)) == 1
    copies, _ = planted(90, 30, "softplus", 0.0)
    assert merge_tree(copies, colour_classes(copies), start=0.0, cap=5).suggested == 30


# ---- constants


def span_dimension(net, rng, points=60):
    """Rank of the gradients of all outputs at many inputs: a lower bound of the orbit's dimension."""
    rows = []
    for _ in range(points):
        x = 2 * rng.standard_normal(net.widths[0])
        for c in np.eye(net.widths[-1]):
            parts = gradient(net, x, c, lambda row, z: row.derivative(z))
            rows.append(np.concatenate([np.concatenate([w.reshape(-1), b]) for w, b in parts]))
    values = np.linalg.svd(np.array(rows), compute_uv=False)
    return int((values > 1e-9 * values[0]).sum())


@pytest.mark.parametrize(
    ("name", "b", "a"),
    [("gaussian", 0.0, 1.0), ("cos", 0.0, 0.5), ("square", 0.0, 2.0), ("relu", -1.0, 3.0), ("gaussian", 0.0, 0.0)],
)
@pytest.mark.parametrize("outputs", [1, 2])
def test_constant_neurons_move_along_one_direction(name, b, a, outputs):
    """Two-layer networks with constants: D K + (outputs), as in the table of orbit dimensions."""
    rng = np.random.default_rng(2)
    for constants, others in ((1, 2), (2, 1), (3, 0)):
        weight = np.concatenate([np.zeros((constants, 1)), rng.standard_normal((others, 1))])
        bias = np.concatenate([np.full(constants, b), rng.standard_normal(others)])
        last = rng.standard_normal((outputs, constants + others))
        last[:, :constants] *= a
        net = Network.from_arrays((weight, bias), (last, rng.standard_normal(outputs)), activation=name)
        sim = smallest_sim(net)
        assert sim.frozen == (tuple(range(constants)),)
        assert sim.dimension == (2 + outputs) * others + outputs
        if name not in ("relu", "square"):  # these have conservation laws besides
            assert span_dimension(net, rng) == sim.dimension
        for _ in range(3):  # gradients keep the constants and the differences a_k - s(b) c
            (w, v), (u, c) = gradient(net, rng.standard_normal(1), np.ones(outputs), lambda r, z: r.derivative(z))
            value = float(activation(name)(np.float64(b)))
            assert not w[:constants].any() and not v[:constants].any()
            np.testing.assert_allclose(u[:, :constants], value * c[:, None] * np.ones(constants), atol=1e-15)


def test_constants_in_deep_networks():
    rng = np.random.default_rng(0)
    first = np.array([[0.0], [1.0], [0.5]]), np.array([0.0, 0.25, -0.5])
    second = np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 2.0]]), np.array([-3.0, 0.5])  # neuron 0 reads a constant: 3 - 3 = 0
    net = Network.from_arrays(first, second, (np.ones((1, 2)), [0.0]), activation="gaussian")
    assert frozen_neurons(net) == ((0,), (0,))
    sim = smallest_sim(net)
    assert sim.dimension == (2 + 2) + (2 + 1) + (1 + 1)
    assert span_dimension(net, rng) <= sim.dimension < sim.ambient
    moved = Network.from_arrays(first, (second[0], second[1] + 1), (np.ones((1, 2)), [0.0]), activation="gaussian")
    assert frozen_neurons(moved) == ((0,), ())
    whole = Network.from_arrays(
        ([[1.0]], [0.0]), ([[0.0], [0.0]], [0.0, 0.0]), ([[1.0, 2.0]], [0.5]), activation="gaussian"
    )
    assert smallest_sim(whole).dimension == 1 == span_dimension(whole, rng)


NULL_LAYERS = {  # weights and biases of each layer, the dimension of the leaf, and of the orbit of tanh
    "last hidden layer": ([([[1.0, -3.0]], [0.5]), ([[0.0]], [0.0]), ([[0.0]], [0.5])], 1, 1),
    "two outputs": ([([[1.0]], [2.0]), ([[0.0]], [0.0]), ([[0.0], [0.0]], [0.75, 1.0])], 2, 2),
    "one layer above": ([([[1.0]], [2.0]), ([[0.0]], [0.0]), ([[0.0]], [0.75]), ([[1.5], [2.0]], [0.5, 0.25])], 5, 4),
    "two null layers": (  # the last one counts
        [([[1.0]], [0.0]), ([[0.0]], [0.0]), ([[2.0]], [1.0]), ([[0.0]], [0.0]), ([[0.0]], [1.0])], 1, 1
    ),
    "classes above, sums 0": (
        [([[1.0]], [2.0]), ([[0.0]], [0.0]), ([[1.0], [-1.0]], [0.75, 0.75]), ([[1.5, 1.5]], [0.5])], 3, 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu"])
@pytest.mark.parametrize("case", NULL_LAYERS)
def test_a_null_layer_blocks_everything_below(case, name):
    """W_(l+1)^T delta_(l+1) = 0 at a null layer l: neither it nor anything below ever moves."""
    pairs, dimension, reached = NULL_LAYERS[case]
    net, rng = Network.from_arrays(*pairs, activation=name), np.random.default_rng(0)
    sim = smallest_sim(net)
    assert sim.dimension == dimension and all(level.dimension == dimension for level in sim.levels)
    assert span_dimension(net, rng) <= dimension
    last = max(k for k, null in enumerate(sim.null) if null)
    for _ in range(3):
        parts = gradient(net, rng.standard_normal(net.widths[0]), rng.standard_normal(net.widths[-1]),
                         lambda row, z: row.derivative(z))  # fmt: skip
        assert not any(w.any() or b.any() for w, b in parts[: last + 1])
        assert parts[last + 1][1].any()
    blocks = tuple(f"{kind}{k}" for k in range(1, net.depth + 1) for kind in "Wb")
    bound = ceiling(net, blocks).value
    assert (reached if name == "tanh" else 1) <= bound <= dimension  # no law counts what cannot move
    assert f"hidden layer {last + 1} sends 0" in str(sim)
    if name == "tanh" and net.depth == 3:
        assert orbit(net, budget=5).dimension == reached


def test_a_null_layer_above_constants_blocks_them():
    constant = ([[0.0], [1.0]], [0.0, 0.5])
    net = Network.from_arrays(constant, ([[2.0, 0.0]], [1.0]), ([[0.0]], [0.0]), ([[0.0]], [1.0]), activation="square")
    assert smallest_sim(net).dimension == 1
    net = Network.from_arrays(constant, ([[2.0, 0.0]], [1.0]), ([[0.0]], [0.0]), ([[1.0]], [1.0]), activation="square")
    assert smallest_sim(net).dimension >= span_dimension(net, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "b"), [("tanh", 0.0), ("softplus", -2.0), ("abs", 0.0), ("relu", 1.0), ("gelu", -0.75)]
)
def test_neurons_that_read_nothing_elsewhere_do_move(name, b):
    net = Network.from_arrays(([[0.0], [1.0]], [b, 0.5]), ([[1.0, 2.0]], [0.0]), activation=name)
    assert smallest_sim(net).frozen == ((),)


# ---- automorphisms


def all_relabelings(net):
    """Order and orbits by trying every signed permutation of every hidden layer."""
    signed = [layer.activation.parity for layer in net.hidden]
    choices = [
        [
            (p, s)
            for p in itertools.permutations(range(n))
            for s in itertools.product([1, -1] if sign else [1], repeat=n)
        ]
        for n, sign in zip(net.widths[1:-1], signed, strict=True)
    ]
    order, orbits = 0, [{i: {i} for i in range(n)} for n in net.widths[1:-1]]
    for chosen in itertools.product(*choices):
        below, turn, keeps = np.arange(net.widths[0]), np.ones(net.widths[0]), True
        for k, layer in enumerate(net.layers):
            last = k == net.depth - 1
            p, s = (np.arange(layer.n_out), np.ones(layer.n_out)) if last else map(np.array, chosen[k])
            moved = s[:, None] * layer.weight[p][:, below] * turn
            keeps &= np.array_equal(moved, layer.weight) and np.array_equal(s * layer.bias[p], layer.bias)
            below, turn = p, s if not last and signed[k] == "odd" else np.ones(layer.n_out)
        if keeps:
            order += 1
            for orbit, (p, _) in zip(orbits, chosen, strict=True):
                for i, j in enumerate(p):
                    orbit[i].add(int(j))
    return order, tuple(tuple(sorted({tuple(sorted(v)) for v in orbit.values()})) for orbit in orbits)


@pytest.mark.parametrize("name", ["softplus", "tanh", "gaussian", "relu"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=12)
def test_orbits_by_trying_everything(name, seed):
    rng = np.random.default_rng(seed)
    widths = [(1, 3, 3, 1), (2, 3, 1), (1, 2, 3, 1), (1, 2, 2, 2, 1)][rng.integers(4)]
    values = [[0.0, 1.0, -1.0], [1.0, -1.0], [0.0, 1.0]][rng.integers(3)]
    pairs = [
        (rng.choice(values, (b, a)), rng.choice([0.0, 0.0, 1.0]) * np.ones(b)) for a, b in itertools.pairwise(widths)
    ]
    if rng.random() < 0.7:
        pairs[0], pairs[-1] = (np.ones_like(pairs[0][0]), pairs[0][1]), (np.ones_like(pairs[-1][0]), pairs[-1][1])
    net = Network.from_arrays(*pairs, activation=name)
    found = neuron_orbits(net)
    assert found.exact and (found.order, found.orbits) == all_relabelings(net)


def test_automorphisms_of_the_theory_note():
    magic = smallest_sim(three_layers(MAGIC))
    assert magic.reduced_widths == (1, 1, 1, 1) and magic.automorphisms().order == 1
    circulant = smallest_sim(three_layers([[1.0, 2, 4], [4, 1, 2], [2, 4, 1]]))
    assert circulant.automorphisms().order == 3 and circulant.automorphisms().orbits == (((0, 1, 2),),) * 2
    rings = np.zeros((7, 7))
    for start, n in ((0, 3), (3, 4)):  # a 6-cycle and an 8-cycle, as lower and upper neurons in turn
        for i in range(n):
            rings[start + i, start + i] = rings[start + i, start + (i + 1) % n] = 1.0
    sim = smallest_sim(three_layers(rings))
    assert sim.reduced_widths == (1, 1, 1, 1)
    assert sim.automorphisms().orbits == (((0, 1, 2), (3, 4, 5, 6)),) * 2
    assert sim.automorphisms().order == 6 * 8 and sim.automorphisms().exact


def test_twins_need_no_search():
    net, label = planted(2000, 300, "tanh", 0.0, null=True)
    found = neuron_orbits(net, budget=0.0)
    assert found.exact and len(found.orbits[0]) == 300 and found.generators == 0
    spent = neuron_orbits(three_layers([[1.0, 2, 4], [4, 1, 2], [2, 4, 1]]), budget=0.0)
    assert not spent.exact and "at least" in str(spent)


# ---- the report


def test_the_report_and_its_data():
    import json

    net, _ = planted(40, 4, "tanh", 1e-3, null=True)
    sim = smallest_sim(net, 0.05)
    text = str(sim)
    for words in ("equal exactly, or within ", "equal within 0.05: trains like 3-3-1", "3 classes stand out"):
        assert words in text
    data = json.loads(sim.to_json())
    assert [level["name"] for level in data["levels"]] == ["exact", "numerical", "approximate"]
    assert data["levels"][1]["classes"] is None and data["levels"][2]["same_as"] is None
    assert data["merge_tree"]["suggested"] == 3 and data["merge_tree"]["steps"][0]["classes"] == 40
    assert "levels" not in sim.summary()
    assert len(text.splitlines()) < 24


@pytest.mark.parametrize("m", [10, 700])
def test_the_page_shows_every_class_or_their_sizes(m):
    from fiberscope.pages.classparts import sim_levels, sim_network, sim_tiles, sim_tree
    from fiberscope.pages.data import View

    net, label = planted(m, 4, "tanh", 0.0, null=True)
    data = smallest_sim(net, 0.01).to_dict()
    view = View(1, data, "smallest-sim", "net")
    drawn = sim_network(view).markup
    assert drawn.count('class="dot silent"') >= 1 and "move together" in drawn
    silent = int((label == 0).sum())
    if m == 10:
        assert drawn.count('class="node silent"') == silent and drawn.count("<circle") == 3 + m + 1
    else:
        assert (
            "classes by size" in drawn and drawn.count("<circle") < 10 and 'never move</td><td class="num">–' in drawn
        )
        assert len(drawn) < 20_000
    assert "<path" in sim_tree(view).markup and "approximate" in sim_levels(view).markup
    assert [tile["title"] for tile in sim_tiles(data)][:2] == [f"{data['dimension']} of {data['ambient']:,}", "3–3–1"]
    assert sim_network(View(1, {}, "smallest-sim", "net")) is None is sim_tree(View(1, {}, "smallest-sim", "net"))


def test_rounding_tolerances_grow_with_the_root_of_the_fan():
    small, large = (rounding_tolerances(Network.random((n, 3, 1), seed=0))[0] for n in (2, 398))
    assert abs(large / small - 10) < 1e-9


def test_classes_vector():
    assert classes_of([0, 0, -1, 1], [1, -2, 0, 1]).vector.tolist() == [1.0, -2.0, 0.0, 1.0]
