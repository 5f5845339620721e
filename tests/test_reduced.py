"""Reduced networks: exact quotients and lifts, gradients, training beside the wide network, what optimisers keep."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.dynamics.averages import Averages
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.dynamics.instability import growth, side_by_side
from fiberscope.invariants.dynamics.keeping import MANIFOLDS, RULES, optimiser_keeps, optimiser_table
from fiberscope.invariants.dynamics.reduced import reduced_network
from fiberscope.invariants.dynamics.updates import State, optimiser
from fiberscope.network import Layer, Network
from fiberscope.neurons import Classes
from oracles import gradient as slow_gradient

ONE = Fraction(1)


def classes(labels, factors=None):
    values = [ONE] * len(labels) if factors is None else [Fraction(f) for f in factors]
    out = np.empty(len(labels), dtype=object)
    out[:] = values
    return Classes(np.array(labels, dtype=np.int64), out)


def vectors(partition):
    """The matrix E of one layer, Fractions (n, k)."""
    e = np.full((partition.labels.size, partition.count), Fraction(0), dtype=object)
    for i, (a, f) in enumerate(zip(partition.labels, partition.factors, strict=True)):
        if a >= 0:
            e[i, a] = f
    return e


def projector(e):
    return (e / (e * e).sum(axis=0)) @ e.T


def planted(rng, name, partition, n_in=2, n_out=2, *, frozen=True):
    """A random network on the manifold of the partition, rational: W = P W P + Q W Q and b = P b."""
    even = activation(name).parity == "even"
    ends = [classes(range(n_in)), *partition, classes(range(n_out))]
    pairs = []
    for k, (below, above) in enumerate(zip(ends, ends[1:], strict=False)):
        left, right = vectors(above), vectors(below)
        p, q = projector(left), projector(abs(right) if even and k else right)

        def draw(*shape):
            return np.vectorize(Fraction, otypes=[object])(rng.integers(-20, 21, shape)) / 16

        core = draw(left.shape[0], right.shape[0])
        eye = [np.array([[Fraction(int(i == j)) for j in range(len(m))] for i in range(len(m))]) for m in (p, q)]
        weight = p @ core @ q
        if frozen:
            weight = weight + (eye[0] - p) @ core @ (eye[1] - q) / 2
        pairs.append((weight, p @ draw(left.shape[0]) / 4))
    return Network.from_arrays(*pairs, activation=name)


PARTITIONS = {
    "softplus": (classes([0, 0, 1, 0]), classes([0, 1, 1])),
    "tanh": (classes([0, 0, 1, 0], [1, -1, 1, 1]), classes([0, 1, 1], [1, 1, -1])),
    "gelu": (classes([0, 0, -1, 1]), classes([0, 0, 1, -1])),
    "erf": (classes([0, 0, -1, 1], [1, -1, 0, 1]), classes([0, -1, 0, -1], [1, 0, -1, 0])),
    "relu": (classes([0, 0, 1, 1], [1, 2, 1, "3/4"]), classes([0, 0, 1], [1, "1/2", 1])),
    "leaky_relu": (classes([0, 0, -1], [1, "3/2", 0]), classes([0, 1, 0], [1, 1, 3])),
    "gaussian": (classes([0, 0, 1, 0], [1, -1, 1, 1]), classes([0, 1, 1], [1, 1, -1])),
    "abs": (classes([0, 0, 1, 0], [1, -2, 1, 1]), classes([0, 1, 1], [1, 1, "-1/2"])),
    "identity": (classes([0, 0, 1], [1, "-4/3", 1]), classes([0, 1, 0], [1, 1, 2])),
}


def batch(rng, net, loss="mse", n=12):
    x = rng.standard_normal((n, net.widths[0]))
    if loss == "mse":
        return Batch(x, rng.standard_normal((n, net.widths[-1])))
    return Batch(x, rng.integers(0, net.widths[-1], n), "cross_entropy")


def floats(net):
    return np.asarray(net.theta, dtype=float)


# ---- losses and gradients


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
def test_gradients_agree_with_the_slow_version_and_with_differences(name):
    rng = np.random.default_rng(1)
    net = Network.random((3, 4, 3, 2), activation=name, seed=2)
    chain, theta = Chain(net), floats(net)
    data = batch(rng, net)
    value, g = chain.gradient(theta, data)
    f = net(data.x)
    assert value == pytest.approx(((f - data.y) ** 2).mean(), rel=1e-14)
    total = np.zeros(theta.size)
    for point, r in zip(data.x, (f - data.y) * 2 / f.size, strict=True):
        parts = slow_gradient(net, point, r, lambda row, z: row.derivative(z))
        total += np.concatenate([np.concatenate([w.reshape(-1), v]) for w, v in parts])
    np.testing.assert_allclose(g, total, atol=1e-14)
    entropy = batch(rng, net, "cross_entropy")
    value, g = chain.gradient(theta, entropy)
    logits = net(entropy.x)
    logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert value == pytest.approx(-logits[np.arange(12), entropy.y].mean(), rel=1e-14)
    for k in (0, 5, theta.size - 1):
        shift = np.zeros(theta.size)
        shift[k] = 1e-6
        up, down = (chain.gradient(theta + s, entropy)[0] for s in (shift, -shift))
        assert g[k] == pytest.approx((up - down) / 2e-6, abs=1e-8)
    soft = Batch(entropy.x, np.eye(2)[entropy.y], "cross_entropy")
    np.testing.assert_allclose(chain.gradient(theta, soft)[1], g, atol=1e-16)


def test_bad_data_are_refused():
    x = np.zeros((2, 1))
    chain = Chain(Network.random((1, 2), seed=0))
    theta = np.zeros(4)
    with pytest.raises(InputError, match="loss: 'hinge'"):
        Batch(x, x, "hinge")
    with pytest.raises(InputError, match="N targets"):
        Batch(x, np.zeros((3, 1)))
    with pytest.raises(InputError, match="outputs"):
        chain.gradient(theta, Batch(x, np.zeros((2, 1))))
    with pytest.raises(InputError, match="from 0 to 1"):
        chain.gradient(theta, Batch(x, np.array([0, 2]), "cross_entropy"))


TWINS = Network.from_arrays(
    ([[1.0, 0.5], [1.0, 0.5], [2.0, -1.0]], [0, 0, 1]), ([[2.0, 2.0, 1.0]], [0]), activation="tanh"
)
X, Y = [[0.5, 1.0], [1.0, -1.0]], [[0.1], [1.5]]


def test_a_pair_is_data_too():
    batch = Batch(np.array(X), np.array(Y))
    assert growth(TWINS, (X, Y), steps=5).distances == growth(TWINS, batch, steps=np.int64(5)).distances
    rule = optimiser("gd", 0.1)
    assert side_by_side(TWINS, (X, Y), rule, steps=5).loss == side_by_side(TWINS, batch, rule, steps=5).loss


@pytest.mark.parametrize(
    ("data", "options", "found"),
    [
        (None, {}, "give a pair"), (X, {}, "targets"), ((X, Y[:1]), {}, "N targets"),
        ((X, [["a"], ["b"]]), {}, "targets"),
        (([[0.5, np.nan]], [[1.0]]), {}, "inputs: NaN"), (([[1.0]], [[1.0]]), {}, "the network takes 2"),
        ((X, Y), {"steps": 0}, "steps: 0"), ((X, Y), {"steps": 2.5}, "steps: 2.5"), ((X, Y), {"every": 0}, "every: 0"),
        ((X, Y), {"rule": "adam"}, "rule: 'adam'"),
        ((X, Y), {"partition": [[0, 0, 1]]}, "give one `Classes`"), ((X, Y), {"reproject": "no"}, "reproject: 'no'"),
    ],
)  # fmt: skip
def test_training_on_a_manifold_refuses_what_does_not_fit(data, options, found):
    runs = [growth, lambda net, data, **o: side_by_side(net, data, **{"rule": optimiser("gd", 0.1), **o})]
    for run in runs:
        with pytest.raises(InputError, match=found) as caught:
            run(TWINS, data, **{"steps": 3, **options})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "found"),
    [({"dtype": "int"}, "dtype: 'int'"), ({"dtype": "foo"}, "dtype: 'foo'"), ({"perturbation": -1}, "perturbation: -1"),
     ({"perturbation": "x"}, "perturbation"), ({"seed": -1}, "seed -1"), ({"budget": "x"}, "budget")],
)  # fmt: skip
def test_growth_refuses_what_does_not_fit(options, found):
    with pytest.raises(InputError, match=found):
        growth(TWINS, (X, Y), steps=3, **options)


def test_what_is_no_network_is_refused():
    for call in (lambda: growth(3, (X, Y)), lambda: reduced_network("net.onnx", ())):
        with pytest.raises(InputError, match="no Network"):
            call()
    with pytest.raises(InputError, match="partition: None is of type NoneType"):
        reduced_network(TWINS, None)


# ---- the exact quotient


@pytest.mark.parametrize("name", PARTITIONS)
@settings(max_examples=5)
@given(seed=st.integers(0, 10**6), frozen=st.booleans())
def test_quotient_and_lift_are_exact_inverses(name, seed, frozen):
    net = planted(np.random.default_rng(seed), name, PARTITIONS[name], frozen=frozen)
    small = reduced_network(net, PARTITIONS[name])
    assert small.network.widths == (2, *(c.count for c in PARTITIONS[name]), 2)
    assert (small.lift().theta == net.theta).all()
    for k, c in enumerate(PARTITIONS[name]):  # weights and biases by the formula R = (E^T E)^-1 E^T W E
        e = vectors(c)
        n = (e * e).sum(axis=0)
        assert list(n) == list(small.sizes[k])
        bias = (e.T @ net.layers[k].bias) / n
        assert (bias == small.network.layers[k].bias).all()
        below = vectors(PARTITIONS[name][k - 1]) if k else vectors(classes([0, 1]))
        below = abs(below) if k and activation(name).parity == "even" else below
        assert ((e / n).T @ net.layers[k].weight @ below == small.network.layers[k].weight).all()
    if small.deviation:
        bare = small.lift(deviation=0)
        assert not reduced_network(bare, PARTITIONS[name]).deviation
        half = small.lift(deviation=Fraction(1, 2))
        assert (half.theta * 2 == bare.theta + net.theta).all()
    else:
        assert not frozen or (small.lift(deviation=7).theta == net.theta).all()
    x = np.random.default_rng(seed).standard_normal((4, 2))
    np.testing.assert_allclose(small.network(x), net(x), atol=1e-11)


def test_deviation_is_found_where_it_is():
    rng = np.random.default_rng(0)
    for name, partition in PARTITIONS.items():
        assert not reduced_network(planted(rng, name, partition, frozen=False), partition).deviation
        assert reduced_network(planted(rng, name, partition), partition).deviation


def test_multipliers_by_hand():
    # classes {0,1,2} with factors 1, 2, -1/2 (n = 21/4) and {3} below; {0,1} above (n = 2)
    partition = (classes([0, 0, 0, 1], [1, 2, "-1/2", 1]), classes([0, 0]))
    net = planted(np.random.default_rng(3), "identity", partition, 1, 1, frozen=False)
    small = reduced_network(net, partition)
    assert small.sizes == ((Fraction(21, 4), ONE), (Fraction(2),))
    np.testing.assert_allclose(small.weight_multipliers[0], [[4 / 21], [1]])
    np.testing.assert_allclose(small.weight_multipliers[1], [[21 / 8, 1 / 2]])
    np.testing.assert_allclose(small.weight_multipliers[2], [[2]])
    assert [m.tolist() for m in small.bias_multipliers] == [[4 / 21, 1], [0.5], [1]]
    same = small.multipliers("sgd")
    assert all((a == b).all() for (a, _), b in zip(same.gradient, small.weight_multipliers, strict=True))
    assert all((r == 1).all() for pair in same.rate for r in pair)
    pairs = (classes([0, 0, 1]), classes([0, 0, 0]))
    adam = reduced_network(planted(np.random.default_rng(3), "softplus", pairs, frozen=False), pairs).multipliers(
        "adam"
    )
    np.testing.assert_allclose(adam.gradient[1][0], [[1 / 3, 1 / 3]])
    np.testing.assert_allclose(adam.rate[1][0], [[2, 1]])
    np.testing.assert_allclose(adam.gradient[1][1], [1 / 3])
    np.testing.assert_allclose(adam.rate[1][1], [1])


def test_report_and_data():
    net = planted(np.random.default_rng(0), "gelu", PARTITIONS["gelu"])
    small = reduced_network(net, PARTITIONS["gelu"])
    data = json.loads(small.to_json())
    assert data["widths"] == [2, 2, 2, 2] and data["original_widths"] == [2, 4, 4, 2]
    assert data["weight_multipliers"][1] == [[1.0, 0.5], [2.0, 1.0]]
    assert data["sizes"][0][0] == {"exact": "2", "float": 2.0} and data["deviation"]
    assert "decoupled decay only" in str(small) and "null neurons" in str(small)
    assert small.network.parameter_count == data["parameters"] == 18


@pytest.mark.parametrize(
    ("weight", "out", "bias", "found"),
    [
        ([[1.0, 2], [2, 2]], [[1.0, 1.0]], [0, 0], "incoming"),
        ([[1.0, 2], [2, 1]], [[1.0, 2.0]], [0, 0], "outgoing"),
        ([[1.0, 2], [2, 1]], [[1.0, 1.0]], [0, 1.0], "biases"),
    ],
)
def test_partitions_that_are_not_equitable_are_refused(weight, out, bias, found):
    ones = ([[1.0], [1.0]], [0.0, 0.0])
    net = Network.from_arrays(ones, (weight, bias), (out, [0.0]), activation="softplus")
    with pytest.raises(InputError, match=f"not equitable.*{found}"):
        reduced_network(net, (classes([0, 0]), classes([0, 0])))


@pytest.mark.parametrize(
    ("name", "partition", "found"),
    [
        ("softplus", [0, 0, 0], "2 partitions|partition is of"),
        ("softplus", classes([0, 0], [1, -1]), "negative"),
        ("softplus", classes([0, -1], [1, 0]), "null neurons need"),
        ("tanh", classes([0, 0], [1, 2]), "not homogeneous"),
        ("tanh", classes([0, 0], [-1, 1]), "first member"),
        ("tanh", classes([0, 0, 0]), "of 3 neurons"),
        ("tanh", classes([-1, -1], [0, 0]), "only null neurons"),
    ],
)
def test_partitions_that_do_not_fit_are_refused(name, partition, found):
    net = Network.from_arrays(([[0.0], [0.0]], [0.0, 0.0]), ([[0.0, 0.0]], [0.0]), activation=name)
    given = (partition,) if isinstance(partition, Classes) else (classes([0, 0]), classes([0, 0]))
    with pytest.raises(InputError, match=found):
        reduced_network(net, given)


def test_folded_layers_are_refused():
    net = Network.random((2, 3, 1), seed=0)
    first = Layer(net.layers[0].weight, net.layers[0].bias, net.layers[0].activation, name="conv", folded=("unrolled",))
    with pytest.raises(ScopeError, match="conv: unrolled"):
        reduced_network(Network((first, net.layers[1])), (classes([0, 1, 2]),))


# ---- gradients of wide and reduced networks


@pytest.mark.parametrize("name", PARTITIONS)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_wide_gradients_are_spread_reduced_ones(name, loss):
    rng = np.random.default_rng(5)
    net = planted(rng, name, PARTITIONS[name])
    small = reduced_network(net, PARTITIONS[name])
    data = batch(rng, net, loss)
    wide = Chain(net).gradient(floats(net), data)[1]
    narrow = Chain(small.network).gradient(floats(small.network), data)[1]
    # the gradient in R is n_A times the class's entry: spreading G / n_A as if it were weights times n_B
    scaled = narrow * np.concatenate(
        [
            np.concatenate([w.reshape(-1), b])
            for w, b in zip(small.weight_multipliers, small.bias_multipliers, strict=True)
        ]
    )
    spread = floats(small.lift(small.network.with_theta(scaled), deviation=0))
    np.testing.assert_allclose(wide, spread, atol=1e-13)
    assert small.gradient_norm(narrow) == pytest.approx(np.linalg.norm(wide), rel=1e-12)
    assert Averages(net, PARTITIONS[name]).distance(wide) < 1e-13


@pytest.mark.parametrize("name", PARTITIONS)
def test_nearest_point_is_the_dense_projection(name):
    rng = np.random.default_rng(6)
    net = Network.random((2, *(c.labels.size for c in PARTITIONS[name]), 2), activation=name, seed=rng)
    theta = floats(net)
    spans = [np.eye(2), *(vectors(c).astype(float) for c in PARTITIONS[name]), np.eye(2)]
    even = activation(name).parity == "even"
    wanted, mean = [], []
    for k, layer in enumerate(net.layers):
        p, q = projector(spans[k + 1]), projector(abs(spans[k]) if even else spans[k])
        w, b = layer.weight64, layer.bias64
        rest = (np.eye(len(p)) - p) @ w @ (np.eye(len(q)) - q)
        wanted += [(p @ w @ q + rest).reshape(-1), p @ b]
        mean += [(p @ w @ q).reshape(-1), p @ b]
    both = Averages(net, PARTITIONS[name])
    np.testing.assert_allclose(both.nearest(theta), np.concatenate(wanted), atol=1e-14)
    np.testing.assert_allclose(both.average(theta), np.concatenate(mean), atol=1e-14)
    assert both.distance(theta) == pytest.approx(np.linalg.norm(theta - np.concatenate(wanted)), rel=1e-12)


# ---- update rules


def test_update_rules_by_hand():
    g1, g2, theta = np.array([2.0, -1.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0])

    def two(name, rate=0.5, **options):
        rule = optimiser(name, rate, **options)
        moved, state = rule.step(theta, g1, State())
        return rule.step(moved, g2, state)[0].tolist()

    assert two("gd") == [-0.5, 1.5]
    assert two("momentum", momentum=0.5) == [1 - 0.5 * (2 + 2), 1 + 0.5 * (1 + 0.5)]
    assert two("nesterov", momentum=0.5) == [1 - 0.5 * (3 + 2), 1 + 0.5 * (1.5 + 0.25)]
    assert two("gd", decay=0.5) == [(1 * 0.75 - 1) * 0.75 - 0.5, (0.75 + 0.5) * 0.75]
    assert two("gd", decay=0.5, coupled=False) == two("gd", decay=0.5)
    assert two("sign") == [0.0, 1.5]
    assert two("gd", clip=10.0) == two("gd")
    assert two("gd", clip=1.0) == pytest.approx([1 - 1 / math.sqrt(5) - 0.5, 1 + 0.5 / math.sqrt(5)])
    root = math.sqrt(0.5 * 2 + 0.5)  # second moments 2, then 1.5
    assert two("rmsprop", second=0.5, eps=0.0)[0] == pytest.approx(1 - 0.5 * (2 / math.sqrt(2) + 1 / root))
    assert two("adagrad", eps=0.0)[0] == pytest.approx(1 - 0.5 * (1 + 1 / math.sqrt(5)))
    m, v = 0.5 * 1 + 0.5 * 1, 0.75 * 1 + 0.25 * 1  # Adam with beta 1/2, 3/4 after gradients 2, 1
    step = (m / 0.75) / math.sqrt(v / (1 - 0.75**2))
    assert two("adam", momentum=0.5, second=0.75, eps=0.0)[0] == pytest.approx(1 - 0.5 * (1 + step))
    late = two("adamw", momentum=0.5, second=0.75, eps=0.0, decay=0.5)[0]
    assert late == pytest.approx((0.75 - 0.5) * 0.75 - 0.5 * step)


def test_polar_step_is_orthogonal_and_ignores_rounding():
    rule = optimiser("muon", 1.0, momentum=0.0)
    g = np.outer([1.0, 2.0, 2.0], [3.0, 4.0]).reshape(-1)
    moved, _ = rule.step(np.zeros(8), np.concatenate([g, [5.0, 6.0]]), State(), blocks=[(slice(0, 6), (3, 2))])
    np.testing.assert_allclose(moved[:6].reshape(3, 2), -np.outer([1, 2, 2], [3, 4]) / 15, atol=1e-15)
    assert moved[6:].tolist() == [-5.0, -6.0]


def test_unknown_rules_are_refused():
    with pytest.raises(InputError, match="unknown optimiser 'adm'"):
        optimiser("adm", 0.1)
    with pytest.raises(InputError, match="unknown option 'beta'"):
        optimiser("adam", 0.1, beta=0.9)


def test_rules_that_leave_the_manifold_are_refused():
    rng = np.random.default_rng(0)
    weighted = reduced_network(planted(rng, "relu", PARTITIONS["relu"]), PARTITIONS["relu"])
    with pytest.raises(ScopeError, match="other than 1 and -1"):
        weighted.multipliers("adam")
    weighted.multipliers("momentum", weight_decay=True)
    uneven = reduced_network(planted(rng, "tanh", PARTITIONS["tanh"]), PARTITIONS["tanh"])
    with pytest.raises(ScopeError, match="blocks"):
        uneven.multipliers("adam", weight_decay=True)
    uneven.multipliers("adamw", weight_decay=True)
    level = reduced_network(planted(rng, "tanh", PARTITIONS["tanh"], frozen=False), PARTITIONS["tanh"])
    level.multipliers("adam", weight_decay=True)
    with pytest.raises(ScopeError, match="whole matrices"):
        level.multipliers("muon")


ALL_RULES = {
    "gd": optimiser("gd", 0.05),
    "momentum": optimiser("momentum", 0.01),
    "nesterov": optimiser("nesterov", 0.01),
    "clip": optimiser("momentum", 0.05, clip=0.1),
    "gd+decay": optimiser("gd", 0.05, decay=0.02),
    "momentum+decay": optimiser("momentum", 0.01, decay=0.02),
    "decoupled": optimiser("momentum", 0.01, decay=0.02, coupled=False),
    "adam": optimiser("adam", 0.003),
    "adamw": optimiser("adamw", 0.003, decay=0.05),
    "adam+clip": optimiser("adam", 0.003, clip=0.05),
    "rmsprop": optimiser("rmsprop", 0.001),
    "adagrad": optimiser("adagrad", 0.01),
    "sign": optimiser("sign", 0.001, floor=1e-6),
    "muon": optimiser("muon", 0.002),
}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (name, rule)
        for name in ("tanh", "gaussian", "relu")
        for rule in ALL_RULES
        if name != "relu" or ALL_RULES[rule].family != "elementwise"  # those are refused, see above
    ],
)
def test_every_rule_is_reproduced_step_by_step(name, rule):
    """30 steps of the wide network, never put back, against the multipliers."""
    rng = np.random.default_rng(7)
    net = planted(rng, name, PARTITIONS[name])
    found = side_by_side(net, batch(rng, net), ALL_RULES[rule], steps=30, reproject=False, every=1)
    assert found.gap < 1e-11
    assert abs(found.loss[1] - found.loss[0]) > 1e-3  # it moved


@pytest.mark.parametrize("name", ["tanh", "erf", "gaussian"])
def test_coupled_decay_in_adam_where_blocks_are_constant(name):
    rng = np.random.default_rng(8)
    net = planted(rng, name, PARTITIONS[name], frozen=False)
    rule = optimiser("adam", 0.003, decay=0.1)
    # null neurons of a planted network without deviation have zero weights: Adam leaves them alone
    assert side_by_side(net, batch(rng, net), rule, steps=50, reproject=False, every=1).gap < 1e-11
    # the recipe of `multipliers`: gradient * G + decay * parameter * R into the rule, update times rate
    small = reduced_network(net, PARTITIONS[name])
    m = small.multipliers(rule)
    flat = [
        np.concatenate([np.concatenate([w.reshape(-1), b]) for w, b in v])
        for v in (m.gradient, m.rate, m.coupled_decay)
    ]
    theta, g = floats(small.network), rng.standard_normal(small.network.parameter_count)
    plain = replace(rule, decay=0.0)
    fed = flat[0] * g + 0.1 * flat[2] * theta
    direct = theta + flat[1] * (plain.step(theta, fed, State())[0] - theta)
    np.testing.assert_allclose(small.step(rule, theta, g, State())[0], direct, atol=1e-14)


def test_wrong_multipliers_are_noticed():
    """The plain rule on the reduced network is another training run."""
    rng = np.random.default_rng(9)
    net = planted(rng, "tanh", PARTITIONS["tanh"])
    small, data = reduced_network(net, PARTITIONS["tanh"]), batch(rng, net)
    for rule in (optimiser("gd", 0.05), optimiser("adam", 0.01)):
        theta, own, state, mine = floats(net), floats(small.network), State(), State()
        for _ in range(50):
            theta, state = rule.step(theta, Chain(net).gradient(theta, data)[1], state)
            own, mine = rule.step(own, Chain(small.network).gradient(own, data)[1], mine)
        assert np.abs(Chain(net).outputs(theta, data.x) - Chain(small.network).outputs(own, data.x)).max() > 1e-2


def test_frozen_part_follows_decay():
    rng = np.random.default_rng(10)
    net = planted(rng, "softplus", PARTITIONS["softplus"])
    small = reduced_network(net, PARTITIONS["softplus"])
    assert small.deviation
    rule = optimiser("gd", 0.05, decay=0.1)
    found = side_by_side(net, batch(rng, net), rule, steps=40, reproject=False)
    lifted = small.lift(found.small, deviation=Fraction(0.995) ** 40)
    np.testing.assert_allclose(floats(lifted), floats(found.wide), atol=1e-12)
    assert np.abs(floats(small.lift(found.small)) - floats(found.wide)).max() > 1e-2


# ---- 2,000 steps

KINDS = {
    "tanh": "tanh",
    "softplus": "softplus",
    "gelu": "gelu",
    "relu": "relu",
    "signed+null": "erf",
    "even": "gaussian",
}
LONG_RULES = {
    "gd": optimiser("gd", 0.05),
    "momentum": optimiser("momentum", 0.005),
    "adam": optimiser("adam", 0.0005),
    "decay": optimiser("gd", 0.05, decay=0.002),
    "adamw": optimiser("adamw", 0.0005, decay=0.01),
}
SOME = {
     ("softplus", "cross_entropy", "momentum"), ("gelu", "mse", "adam"),
    ("relu", "cross_entropy", "decay"), ("signed+null", "mse", "adamw"),
}  # fmt: skip
MORE = {
    ("tanh", "mse", "decay"), ("tanh", "cross_entropy", "adam"), ("softplus", "mse", "adamw"),
    ("gelu", "cross_entropy", "gd"), ("relu", "mse", "momentum"), ("signed+null", "cross_entropy", "momentum"),
    ("even", "mse", "gd"), ("even", "cross_entropy", "adamw"),
}  # fmt: skip
ALL = [
    (k, v, r)
    for k in KINDS
    for v in ("mse", "cross_entropy")
    for r in LONG_RULES
    if not (k == "relu" and r.startswith("adam"))
]


def assert_beside(kind, loss, rule, steps):
    rng = np.random.default_rng(12)
    name = KINDS[kind]
    net = planted(rng, name, PARTITIONS[name])
    found = side_by_side(net, batch(rng, net, loss), LONG_RULES[rule], steps=steps)
    assert found.gap < 1e-10, str(found)
    assert found.distance < 1e-13 and found.loss[1] < found.loss[0]


@pytest.mark.parametrize(
    ("kind", "loss", "rule"), [*sorted(SOME), *(pytest.param(*c, marks=pytest.mark.slow) for c in sorted(MORE))]
)
def test_two_thousand_steps_beside_the_reduced_network(kind, loss, rule):
    """Every kind with either loss, and every rule, at least twice."""
    assert_beside(kind, loss, rule, 2000)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "loss", "rule"), [case for case in ALL if case not in SOME | MORE])
def test_every_rule_beside_the_reduced_network(kind, loss, rule):
    assert_beside(kind, loss, rule, 200)


@pytest.mark.parametrize("frozen", [True, False])
def test_adam_drives_null_neurons_off_unless_their_weights_are_zero(frozen):
    """Rounding of gradients that cancel is divided by their own size; zeros stay zeros."""
    rng = np.random.default_rng(13)
    net = planted(rng, "gelu", PARTITIONS["gelu"], frozen=frozen)
    data, rule = batch(rng, net), optimiser("adam", 0.003)
    free = side_by_side(net, data, rule, steps=400, reproject=False)
    held = side_by_side(net, data, rule, steps=400)
    assert held.gap < 1e-10 and held.distance < 1e-14
    assert (free.distance > 1e-2 and free.gap > 1e-2) if frozen else (free.distance < 1e-12 and free.gap < 1e-10)


# ---- which optimiser keeps what, measured


def two_layer(rng, name, m=4, n_out=1):
    """Arrays (W, b, A, c) of a random two-layer network, entries k / 16."""
    shapes = ((m, 2), (m,), (n_out, m), (n_out,))
    return [rng.integers(-16, 17, shape) / 16 for shape in shapes]


def tied(name, factor, shift=0.0):
    """Neuron 1 is `factor` times neuron 0, its bias moved by `shift`."""

    def make(rng):
        w, b, a, c = two_layer(rng, name)
        w[1], b[1], a[:, 1] = factor * w[0], factor * b[0] + shift, factor * a[:, 0]
        net = Network.from_arrays((w, b), (a, c), activation=name)

        def residual(theta):
            (v, d), (u, _) = Chain(net).split(theta)
            parts = v[1] - factor * v[0], [d[1] - factor * d[0] - shift], u[:, 1] - factor * u[:, 0]
            return max(np.abs(p).max() for p in parts)

        return net, residual

    return make


def null(rng):
    w, b, a, c = two_layer(rng, "gelu")
    w[1], b[1], a[:, 1] = 0, 0, 0
    net = Network.from_arrays((w, b), (a, c), activation="gelu")

    def residual(theta):
        (v, d), (u, _) = Chain(net).split(theta)
        return max(np.abs(v[1]).max(), abs(d[1]), np.abs(u[:, 1]).max())

    return net, residual


def equitable(leaf):
    def make(rng):
        pair = (classes([0, 0, 0, 1]), classes([0, 0, 0, 1]))
        net = planted(rng, "softplus", pair)
        both = Averages(net, pair)
        start = floats(net) - both.average(floats(net))
        assert np.abs(start).max() > 0.1

        def residual(theta):
            gone = theta - both.average(theta) - start if leaf else 0.0
            return both.distance(theta) + float(np.abs(gone).max())

        return net, residual

    return make


def projected(v):
    """A linear network whose hidden layer lives on the line of v."""

    def make(rng):
        v_, w, a = np.array(v), rng.integers(-16, 17, (1, 2)) / 16, rng.integers(4, 17, (2, 1)) / 16
        p = np.outer(v_, v_) / (v_ @ v_)
        zero = np.zeros(2)
        net = Network.from_arrays((v_[:, None] * w, zero), (a * v_[None, :], zero), activation="identity")

        def residual(theta):
            (x, d), (u, _) = Chain(net).split(theta)
            return max(np.abs(x - p @ x).max(), np.abs(d - p @ d).max(), np.abs(u - u @ p).max())

        return net, residual

    return make


def level_set(rng):
    w, b, a, c = two_layer(rng, "identity", 3, 2)
    net = Network.from_arrays((w, b), (a, c), activation="identity")

    def law(theta):
        (v, d), (u, _) = Chain(net).split(theta)
        return v @ v.T + np.outer(d, d) - u.T @ u

    start = law(floats(net))
    return net, lambda theta: float(np.abs(law(theta) - start).max())


CASES = {
    "permutation": tied("softplus", 1.0),
    "sign": tied("tanh", -1.0),
    "null": null,
    "affine": tied("cos", 1.0, 2 * np.pi),
    "equitable": equitable(False),
    "equitable-leaf": equitable(True),
    "oblique": projected([0.75, 1.25]),
    "axis": projected([1.0, 0.0]),
    "weighted": tied("relu", 2.0),
    "level-set": level_set,
}
MEASURED = {
    "gd": optimiser("gd", 0.05),
    "sgd": optimiser("sgd", 0.05),
    "momentum": optimiser("momentum", 0.01),
    "nesterov": optimiser("nesterov", 0.01),
    "clip": optimiser("gd", 0.05, clip=0.5),
    "gd+decay": optimiser("gd", 0.05, decay=0.1),
    "adam": optimiser("adam", 0.02),
    "rmsprop": optimiser("rmsprop", 0.02),
    "adagrad": optimiser("adagrad", 0.02),
    "adamw": optimiser("adamw", 0.02, decay=0.1),
    "adam+decay": optimiser("adam", 0.02, decay=0.1),
    "sign": optimiser("sign", 0.01, floor=1e-9),
    "muon": optimiser("muon", 0.01),
}


def sixty_steps(manifold, name):
    """The largest residual of the manifold's equations over 60 steps from a random point of it."""
    rng = np.random.default_rng(21)
    net, residual = CASES[manifold](rng)
    x, y = rng.standard_normal((16, net.widths[0])), rng.standard_normal((16, net.widths[-1]))
    run, rule = Chain(net), MEASURED[name]
    blocks = [(w, shape) for w, _, shape in run.places]
    theta, state, worst = floats(net), State(), residual(floats(net))
    assert worst < 1e-14
    for _ in range(60):
        some = rng.choice(16, 6, replace=False) if name == "sgd" else np.arange(16)
        theta, state = rule.step(theta, run.gradient(theta, Batch(x[some], y[some]))[1], state, blocks=blocks)
        worst = max(worst, residual(theta))
    assert np.abs(theta - floats(net)).max() > 0.02
    return worst


@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_table_of_optimisers_is_what_sixty_steps_show(manifold):
    for name in RULES:
        cell, worst = optimiser_keeps(name, manifold), sixty_steps(manifold, name)
        if cell:
            assert worst < 1e-11, (name, worst)
        else:
            assert worst > 1e-3, (name, worst)


def test_leaving_the_leaf_keeps_the_linear_manifold():
    for name in RULES:
        if optimiser_keeps(name, "equitable-leaf").outcome == "leaves":
            assert optimiser_keeps(name, "equitable")
    assert {c.outcome for c in optimiser_table()} == {"kept", "broken", "leaves", "drifts"}
    assert all(c.reason for c in optimiser_table())
    assert optimiser_keeps(optimiser("adamw", 0.1), "affine").outcome == "broken"
    assert optimiser_keeps(optimiser("adam", 0.1, decay=0.1), "equitable").outcome == "broken"
    with pytest.raises(InputError, match="unknown kind"):
        optimiser_keeps("adam", "curvy")
    with pytest.raises(InputError, match="unknown optimiser"):
        optimiser_keeps("adm", "sign")


def test_blocks_of_two_by_two_are_a_symmetry_and_stay_equitable():
    """Swapping two neurons in both layers fixes [[p, q], [q, p]]: even Adam with coupled decay keeps that, not D."""
    rng = np.random.default_rng(4)
    pair = (classes([0, 0, 1]), classes([0, 0, 1]))
    net = planted(rng, "softplus", pair)
    both, run, data = Averages(net, pair), Chain(net), batch(rng, net)
    theta, state, rule = floats(net), State(), optimiser("adam", 0.02, decay=0.1)
    frozen = theta - both.average(theta)
    for _ in range(60):
        theta, state = rule.step(theta, run.gradient(theta, data)[1], state)
    assert both.distance(theta) < 1e-12
    assert np.abs(theta - both.average(theta) - frozen).max() > 1e-2


def test_level_sets_drift_with_the_rate():
    """At a fixed time the drift of a law is proportional to the rate."""
    rng = np.random.default_rng(3)
    net, drift = level_set(rng)
    data, ends = Batch(rng.standard_normal((16, 2)), rng.standard_normal((16, 2))), []
    for rate, steps in ((0.02, 50), (0.01, 100), (0.005, 200)):
        theta = floats(net)
        for _ in range(steps):
            theta = theta - rate * Chain(net).gradient(theta, data)[1]
        ends.append(drift(theta))
    assert ends[0] / ends[1] == pytest.approx(2, rel=0.1) and ends[1] / ends[2] == pytest.approx(2, rel=0.05)


# ---- transversal growth


def test_growth_at_a_critical_point_is_the_curvature():
    """Two equal neurons trained to rest as one: off the manifold, distances grow by 1 - rate * (smallest curvature)."""
    x = np.linspace(-2, 2, 20)[:, None]
    data = Batch(x, 3 * (np.tanh(2 * x + 1) - np.tanh(x - 1.5)))
    pair = (classes([0, 0]),)
    net = Network.from_arrays(([[1.0], [1.0]], [0.25, 0.25]), ([[0.5, 0.5]], [0.0]), activation="tanh")
    small = reduced_network(net, pair)
    chain, theta, state, rule = Chain(small.network), floats(small.network), State(), optimiser("momentum", 0.1)
    for _ in range(2500):
        theta, state = small.step(rule, theta, chain.gradient(theta, data)[1], state)
    assert np.abs(chain.gradient(theta, data)[1]).max() < 1e-8
    rest = small.lift(small.network.with_theta(theta))
    wide, around, rate = Chain(rest), floats(rest), 0.1
    off = np.array([[1, -1, 0, 0, 0, 0, 0], [0, 0, 1, -1, 0, 0, 0], [0, 0, 0, 0, 1, -1, 0]]) / np.sqrt(2)
    h = 1e-5

    def bend(v):
        return off @ (wide.gradient(around + h * v, data)[1] - wide.gradient(around - h * v, data)[1]) / (2 * h)

    lowest = np.linalg.eigvalsh(np.array([bend(v) for v in off])).min()
    assert lowest < -1e-2  # the manifold repels here
    exponent = math.log(1 - rate * lowest)
    steps = int(10 / exponent)
    found = growth(rest, data, steps=steps, rule=optimiser("gd", rate), partition=pair, perturbation=1e-9)
    late = -len(found.steps) // 4
    rate_at_last = math.log(found.distances[-1] / found.distances[late]) / (found.steps[-1] - found.steps[late])
    assert rate_at_last == pytest.approx(exponent, rel=0.01)
    assert found.exponent == pytest.approx(exponent, rel=0.2) and not found.escaped
    assert found.codimension == 3 and found.rigor.name == "NUMERICAL"


def unstable():
    """A deep network with a frozen part whose manifold repels, and data."""
    pair = (classes([0, 0, 1, 1]), classes([0, 0, 0, 1]), classes([0, 0, 1, 1]))
    rng = np.random.default_rng(6)
    net = planted(rng, "tanh", pair, 2, 1)
    x = rng.standard_normal((20, 2))
    return net.with_theta(net.theta / 2), pair, Batch(x, np.sign(x[:, :1] * x[:, 1:]))


def test_rounding_leaves_the_manifold_in_single_precision_and_not_when_put_back():
    net, pair, data = unstable()
    options = {"steps": 1000, "rule": optimiser("gd", 0.1), "partition": pair}
    single = growth(net, data, dtype=np.float32, **options)
    assert single.escaped and single.distances[-1] > 0.1 and single.distances[0] < 1e-6
    assert 0.002 < single.exponent < 0.05 and "the run left the manifold" in str(single)
    clear = single.distances[single.steps.index(single.window[0])]
    assert clear > 20 * np.finfo(np.float32).eps * np.linalg.norm(floats(net))
    assert json.loads(single.to_json())["dtype"] == "float32"
    held = growth(net, data, dtype=np.float32, reproject=True, **options)
    assert not held.escaped and max(held.distances) < 1e-5 and held.exponent is None
    double = growth(net, data, **options)
    assert max(double.distances) < 1e-6 and not double.escaped


@pytest.mark.slow
def test_rounding_leaves_the_manifold_in_double_precision():
    net, pair, data = unstable()
    rule = optimiser("gd", 0.1)
    free = side_by_side(net, data, rule, steps=4000, partition=pair, reproject=False)
    assert free.distance > 0.1 and free.gap > 0.1
    held = growth(net, data, rule=rule, steps=4000, partition=pair, reproject=True)
    assert held.steps[-1] == 4000 and max(held.distances) < 1e-13


def test_noise_that_adds_up_is_no_growth():
    """Distances of a few rounding units, a decade more than at the start, are not read as an exponent."""
    square = np.array([[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]) / 16
    net = Network.from_arrays(
        (np.tile([[0.5, -0.25]], (3, 1)), [0.5] * 3), (square, [0.25] * 3), ([[0.75] * 3], [0.0]), activation="softplus"
    )
    rng = np.random.default_rng(0)
    data = Batch(rng.standard_normal((20, 2)), rng.standard_normal((20, 1)))
    found = growth(net, data, steps=600, partition=[classes([0, 0, 0])] * 2)
    assert found.distances[-1] > 10 * found.distances[1] > 0
    assert found.exponent is None and "no growth clear of rounding" in str(found)


def test_growth_refuses_the_whole_space_and_stops_in_time():
    net = Network.random((1, 2, 1), activation="tanh", seed=0)
    data = Batch(np.ones((1, 1)), np.ones((1, 1)))
    with pytest.raises(InputError, match="no two neurons"):
        growth(net, data)
    net, pair, data = unstable()
    seen = []
    found = growth(net, data, steps=10**6, partition=pair, every=5, budget=0.0, progress=lambda f, t: seen.append(t))
    assert found.steps[-1] == 5 and seen == [f"step 5: distance {found.distances[-1]:.2g}"]
