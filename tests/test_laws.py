"""Conservation laws: exactly orthogonal to every gradient over Q, constant along RK4 flows, local as far as claimed."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.activations import activation as find
from fiberscope.errors import InputError, ScopeError
from fiberscope.network import Network
from fiberscope.symmetries import (
    activity,
    block_law_count,
    hidden_neurons,
    law_count,
    laws,
    safe_radius,
    shift_generator,
    symmetries_without_law,
)
from fiberscope.symmetries.patterns import neuron_radii

Q = Fraction


def fractions_of(array):
    return rationals.fractions(rationals.exact_array(array))


def slope(row, z):
    """s'(z) over Q, the value on the left at a kink."""
    if row.pieces is not None:
        return next(p.slope for p in row.pieces if p.hi is None or z <= p.hi)
    return {"square": 2 * z}[row.name]


def exact_gradient(net, x, c):
    """d <c, f(x)> / d theta by backpropagation in Fractions."""
    h, zs, hs = fractions_of(x), [], [fractions_of(x)]
    for layer in net.layers:
        z = fractions_of(layer.weight) @ h + fractions_of(layer.bias)
        h = np.array([layer.activation.value(q) for q in z], dtype=object)
        zs.append(z)
        hs.append(h)
    delta, parts = fractions_of(c), []
    for k in reversed(range(net.depth)):
        parts.append(np.concatenate([np.outer(delta, hs[k]).reshape(-1), delta]))
        if k:
            row = net.layers[k - 1].activation
            local = np.array([slope(row, z) for z in zs[k - 1]], dtype=object)
            delta = (fractions_of(net.layers[k].weight).T @ delta) * local
    return np.concatenate(parts[::-1])


def rational_net(rng, widths, activation="relu", lift=0.0):
    """Rational weights with denominators up to 9, no zeros; `lift` pushes second and later rows to be positive."""

    def draw(*shape):
        top = rng.integers(1, 20, shape) * rng.choice([-1, 1], shape)
        return np.array(
            [Q(int(t), int(d)) for t, d in zip(top.reshape(-1), rng.integers(1, 10, top.size), strict=True)]
        ).reshape(shape)

    pairs = []
    for k, (low, high) in enumerate(zip(widths, widths[1:], strict=False)):
        weight, bias = draw(high, low), draw(high)
        up, down = rng.random(high) < lift, rng.random(high) < lift / 2
        if 0 < k < len(widths) - 2:
            weight = np.where(up[:, None], abs(weight), np.where(down[:, None], -abs(weight), weight))
            bias = np.where(up, abs(bias), np.where(down, -abs(bias), bias))
        pairs.append((weight, bias))
    return Network.from_arrays(*pairs, activation=activation)


def rational_points(rng, count, dimension):
    return np.array(
        [[Q(int(a), int(b)) for a, b in zip(*rng.integers([[-30], [1]], [[31], [9]], (2, dimension)), strict=True)]
         for _ in range(count)]
    )  # fmt: skip


def assert_conserved(net, found, points, rng, kinds=("global", "local")):
    checked = 0
    gradients = [exact_gradient(net, x, rational_points(rng, 1, net.widths[-1])[0]) for x in points]
    for law in found.entries:
        if law.kind in kinds:
            product = law.gradient(net.theta) @ np.stack(gradients, axis=1)
            assert not (product != 0).any(), f"{law}"
            checked += law.size
    return checked


ARCHITECTURES = [(2, 3, 1), (2, 2, 4, 2), (3, 2, 5, 1), (2, 3, 3, 3, 2), (1, 4, 4, 1)]


@given(seed=st.integers(0, 10**6), widths=st.sampled_from(ARCHITECTURES), lift=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=50)
def test_laws_are_orthogonal_to_every_gradient_exactly(seed, widths, lift):
    rng = np.random.default_rng(seed)
    net = rational_net(rng, widths, lift=lift)
    points = rational_points(rng, 4, widths[0])
    found = laws(net, points)
    assert assert_conserved(net, found, points, rng) >= sum(widths[1:-1])
    others = rational_points(rng, 4, widths[0])
    assert_conserved(net, laws(net), others, rng)  # by signs: on every input
    balance = [law for law in found.entries if law.name == "balance"]
    assert assert_conserved(net, found, others, rng, ("global",)) >= sum(law.size for law in balance)


@pytest.mark.parametrize("activation", [("leaky_relu", Q(1, 4)), ("abs",), ("hard_tanh",), ("identity",), ("square",)])
def test_other_activations(activation):
    rng = np.random.default_rng(len(activation[0]))
    sizes = []
    for widths in (2, 3, 2), (2, 3, 3, 1):
        for _ in range(6):
            net = rational_net(rng, widths, find(*activation))
            small = [rationals.scale(a, Q(1, 4)) for layer in net.layers for a in (layer.weight, layer.bias)]
            net = Network.from_arrays(*zip(small[::2], small[1::2], strict=True), activation=find(*activation))
            points = rational_points(rng, 3, 2) / 20
            found = laws(net, points)
            assert_conserved(net, found, points, rng)
            assert_conserved(net, laws(net), rational_points(rng, 3, 2), rng)
            sizes.append({(law.name, law.kind) for law in found.entries})
    seen = set().union(*sizes)
    expected = {
        "leaky_relu": {("balance", "global"), ("block", "local")},
        "abs": {("balance", "global"), ("block", "local")},
        "hard_tanh": {("balance", "local"), ("block", "local")},
        "identity": {("balance", "global"), ("block", "global")},
        "square": {("balance", "global")},
    }[activation[0]]
    assert expected <= seen
    if activation[0] == "hard_tanh":
        assert ("balance", "global") not in seen
    if activation[0] == "square":
        assert seen == expected


def test_tanh_has_no_law_but_idle_inputs():
    net = Network.random((3, 4, 1), activation="tanh", seed=0)
    assert laws(net).entries == ()
    found = laws(net, [[1.0, 0.0, 2.0], [3.0, 0.0, 1.0]])
    assert [(law.name, law.size, law.kind) for law in found.entries] == [("constants", 4, "global")]
    assert found.entries[0].parameters == (1, 4, 7, 10) and "not every hidden" in found.notes[0]


@given(seed=st.integers(0, 10**6))
@example(seed=3079)  # the whole second layer is dead at some points: only the others count
@settings(max_examples=25)
def test_nothing_else_of_these_kinds_is_conserved(seed):
    # generic weights: every pair and every parameter that is not listed does move at some data point
    rng = np.random.default_rng(seed)
    net = rational_net(rng, (2, 3, 4, 2), lift=0.6)
    points = rational_points(rng, 5, 2)
    found = laws(net, points)
    gradients = [exact_gradient(net, x, c) for x in points for c in np.array([[Q(3), Q(7, 5)], [Q(-2), Q(11, 3)]])]
    matrix = np.stack(gradients)
    moves = (matrix != 0).any(axis=0)
    constants = {p for law in found.entries if law.name == "constants" for p in law.parameters}
    assert constants == set(np.flatnonzero(~moves).tolist())
    listed = sum(law.size for law in found.entries if law.name == "constants")
    assert listed == len(constants)  # no parameter twice
    balance = [law for law in found.entries if law.name == "balance"]
    for law in balance:
        listed_pairs = {
            tuple(sorted(pair))
            for other in found.entries
            if other.name == "block" and other.layer == law.layer
            for pair in zip(*(v.tolist() for v in other.pairs()), strict=True)
        }
        everything = replace(law, name="block")
        still = ~((everything.gradient(net.theta) @ matrix.T) != 0).any(axis=1)
        gradients = everything.gradient(net.theta)
        for j, k, row, constant in zip(*everything.pairs(), gradients, still, strict=True):
            if constant != ((j, k) in listed_pairs):
                assert constant and constants.issuperset(np.flatnonzero(row != 0).tolist())  # nothing in it moves


def test_values_by_hand():
    net = Network.from_arrays(
        ([[1.0, 0.0], [2.0, 1.0]], [1.0, 0.5]), ([[3.0, -1.0], [0.0, 2.0]], [0.0, 0.0]), activation="relu"
    )
    balance, block = laws(net, [[1.0, 1.0]]).entries
    assert balance.value(net.theta).tolist() == [Q(2) - 9, Q(21, 4) - 5]
    assert block.value(net.theta).tolist() == [Q(5, 2) + 3]
    many = np.stack([net.theta, 2 * net.theta])
    np.testing.assert_array_equal(balance.evaluate(many), [[-7.0, 0.25], [-28.0, 1.0]])
    np.testing.assert_array_equal(block.evaluate(many), [[5.5], [22.0]])
    assert "always active" in block.statement and block.radius > 0
    assert block.to_dict()["formula"].startswith("w_j.w_k")
    with pytest.raises(InputError, match="12 parameters"):
        balance.value([1.0])
    with pytest.raises(InputError, match="parameters"):
        laws(Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0])), [[0.0]]).entries[-1].pairs()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("activation", ["relu", "square"])
def test_gradients_and_floats_agree_with_values(seed, activation):
    rng = np.random.default_rng(seed)
    net = Network.random((2, 3, 3, 2), activation=activation, seed=seed)
    step = rng.integers(-3, 4, net.parameter_count) / 8
    for law in laws(net, rng.standard_normal((2, 2))).entries:
        value = law.value(net.theta)
        np.testing.assert_allclose(law.evaluate(net.theta), value.astype(float), rtol=1e-12, atol=1e-12)
        # quadratic: the central difference is the derivative exactly
        up, down = (law.value(rationals.add(net.theta, s * step)) for s in (1, -1))
        assert ((up - down) / 2 == law.gradient(net.theta) @ fractions_of(step)).all()


def test_laws_need_the_trained_parameters_and_fitting_data():
    net = Network.random((2, 3, 1), seed=0)
    folded = net.with_layers([replace(net.layers[0], folded=("BatchNorm",)), net.layers[1]])
    with pytest.raises(ScopeError, match="trained"):
        laws(folded)
    for bad in (np.zeros((2, 3)), np.zeros((0, 2)), [[np.nan, 1.0]], [["a", "b"]]):
        with pytest.raises(InputError):
            laws(net, bad)
    with pytest.raises(ScopeError, match="piecewise"):
        activity(Network.random((2, 3, 1), activation="tanh", seed=0), np.zeros((1, 2)))


# ---- how many


def typed_net(rng, widths, types, hidden=False):
    """A generic bottleneck network whose second-layer neurons have the given types (A, D, S)."""
    n0, n1, n2, n3 = widths
    first = rng.integers(-9, 10, (n1, n0)) + 20 * np.eye(n1, n0, dtype=int)
    second, bias = rng.integers(1, 30, (n2, n1)), rng.integers(1, 30, n2)
    for j, kind in enumerate(types):
        sign = {"A": 1, "D": -1, "S": -1}[kind]
        second[j], bias[j] = sign * second[j], sign * bias[j]
        if kind == "S":
            second[j, 0] *= -1
            if not hidden and n1 > 1:
                second[j, 1] *= -1 if j % 2 else 1
                bias[j] *= -1 if j % 2 == 0 else 1
            if not hidden and n1 == 1:
                second[j, 0] *= -1
                bias[j] *= -1
    last = rng.integers(1, 30, (n3, n2)) * rng.choice([-1, 1], (n3, n2))
    pairs = (first, rng.integers(-9, 10, n1)), (second, bias), (last, rng.integers(-9, 10, n3))
    return Network.from_arrays(*((w.astype(float), b.astype(float)) for w, b in pairs))


@pytest.mark.parametrize(
    ("widths", "types"),
    [
        ((2, 2, 2, 1), "SS"), ((2, 2, 3, 1), "SAA"), ((2, 2, 3, 2), "ADS"), ((3, 2, 4, 1), "AAAD"),
        ((1, 1, 4, 1), "AAAA"), ((1, 1, 5, 1), "AAAAA"), ((2, 2, 5, 1), "AAAAA"), ((2, 2, 3, 1), "DDS"),
        ((2, 2, 2, 1), "DD"), ((1, 1, 4, 2), "SADA"),
    ],
)  # fmt: skip
def test_law_count_is_the_rank_of_the_gradients(widths, types):
    rng = np.random.default_rng(sum(map(ord, types)))
    net = typed_net(rng, widths, types)
    count = law_count(net)
    assert count.value is not None, [h.statement for h in count.hypotheses if h.holds is False]
    assert laws(net).independent(net.theta) == count.value
    data = rational_points(rng, 40, widths[0]) * 10
    assert laws(net, data).independent(net.theta) >= count.value


def test_published_counts_and_a_hidden_neuron_adds_none():
    # (1,1,4,1), (1,1,5,1), (2,2,5,1) with all neurons always active: measured by Lie brackets
    rng = np.random.default_rng(0)
    nets = [typed_net(rng, w, "A" * w[2]) for w in ((1, 1, 4, 1), (1, 1, 5, 1), (2, 2, 5, 1))]
    assert [law_count(net).value for net in nets] == [10, 13, 16]
    net = typed_net(rng, (2, 2, 2, 1), "SS", hidden=True)
    assert hidden_neurons(net) == (0,) and law_count(net).value == 4
    assert block_law_count(3, 3) == 6 and block_law_count(4, 3) == 9
    assert law_count(Network.random((2, 3, 1), seed=0)).value is None
    assert any("rank" in h.statement or "n1 <= n0" in h.statement
               for h in law_count(Network.random((1, 2, 3, 1), seed=0)).hypotheses if h.holds is False)  # fmt: skip


# ---- symmetries without a law


def test_the_hidden_shift_keeps_the_function_but_is_no_gradient_field():
    rng = np.random.default_rng(3)
    net = typed_net(rng, (2, 2, 3, 1), "SSD", hidden=True)
    shift = next(s for s in symmetries_without_law(net) if s.name == "hidden-shift")
    assert shift.present and shift.neurons == (0,)
    generator = shift_generator(net, 0)
    moved = net.with_theta(fractions_of(net.theta) + Q(1, 3) * generator)
    for x in rational_points(rng, 30, 2):
        assert moved.exact(x) == net.exact(x)
        assert exact_gradient(net, x, [1]) @ generator == 0
    # its Jacobian over theta is not symmetric: X is affine in theta, so differences are exact
    size = net.parameter_count
    jacobian = np.empty((size, size), dtype=object)
    for p in range(size):
        unit = np.full(size, Q(0))
        unit[p] = Q(1, 64)
        jacobian[:, p] = (shift_generator(net.with_theta(fractions_of(net.theta) + unit), 0) - generator) * 64
    curl = jacobian - jacobian.T
    assert set(curl[curl != 0].tolist()) == {Q(1), Q(-1)} and (curl != 0).sum() == 4  # two live readers
    # X ^ dX != 0 on (b_i, c_j, u_ji): no multiple of X is a gradient either
    first = net.layers[0].weight.size
    start = first + 2 + 6
    i, c, u = first, start, first + 2
    assert generator[i] * curl[c, u] + generator[c] * curl[u, i] + generator[u] * curl[i, c] != 0
    with pytest.raises(InputError, match="not hidden"):
        shift_generator(net, 1)


def test_symmetries_without_a_law_are_named():
    present = {s.name: s.present for s in symmetries_without_law(Network.random((2, 3, 1), activation="tanh", seed=0))}
    assert present == {"permutation": True, "sign": True}
    net = typed_net(np.random.default_rng(0), (2, 2, 2, 1), "SA")
    present = {s.name: s.present for s in symmetries_without_law(net)}
    assert present == {"hidden-shift": False, "flip": None, "permutation": True}
    assert "no law" in str(laws(net))


# ---- flows


def field(net, data, target):
    """theta -> -grad of the mean squared error, in float64, ReLU chains."""
    shapes = [(layer.weight.shape, layer.bias.shape[0]) for layer in net.layers]

    def minus_gradient(theta):
        at, pairs = 0, []
        for (n, m), _ in shapes:
            pairs.append((theta[at : at + n * m].reshape(n, m), theta[at + n * m : at + n * m + n]))
            at += n * m + n
        hs, zs = [data], []
        for k, (weight, bias) in enumerate(pairs):
            zs.append(hs[-1] @ weight.T + bias)
            hs.append(np.maximum(zs[-1], 0) if k < len(pairs) - 1 else zs[-1])
        delta, parts = (hs[-1] - target) / len(data), []
        for k in reversed(range(len(pairs))):
            parts.append(np.concatenate([(delta.T @ hs[k]).reshape(-1), delta.sum(axis=0)]))
            if k:
                delta = (delta @ pairs[k][0]) * (zs[k - 1] > 0)
        return -np.concatenate(parts[::-1])

    return minus_gradient


def flow(net, data, target, step, count):
    """Classical Runge-Kutta with a fixed step (adaptive ones stall at kinks), (count + 1, M)."""
    f, theta = field(net, data, target), np.asarray(net.theta, float)
    path = [theta]
    for _ in range(count):
        a = f(theta)
        b = f(theta + step / 2 * a)
        c = f(theta + step / 2 * b)
        d = f(theta + step * c)
        theta = theta + step / 6 * (a + 2 * b + 2 * c + d)
        path.append(theta)
    return np.array(path)


def drift(law, path):
    values = law.evaluate(path)
    return float(abs(values - values[0]).max())


def block_case(seed):
    """(3, 3, 5, 2) with three always-active, one dead and one mixed second-layer neuron on nine inputs."""
    rng = np.random.default_rng(seed)
    first = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    second, bias = rng.uniform(-1, 1, (5, 3)), rng.uniform(-0.3, 0.3, 5)
    second[:3], bias[:3] = rng.uniform(0.2, 0.8, (3, 3)), rng.uniform(0.4, 0.9, 3)
    second[3], bias[3] = -abs(second[3]), -0.5
    net = Network.from_arrays((first, 0.3 * rng.standard_normal(3)), (second, bias),
                              (0.5 * rng.standard_normal((2, 5)), np.zeros(2)))  # fmt: skip
    return net, rng.standard_normal((9, 3)), rng.standard_normal((9, 2))


def calm_runs():
    """Runs on which no pattern changes, and their laws."""
    out = []
    for seed in range(60):
        net, data, target = block_case(seed)
        path = flow(net, data, target, 0.02, 20)
        start = activity(net, data)
        same = all(activity(net.with_theta(theta), data).same_as(start) for theta in path[::2])
        if same and float(min(m.min() for m in start.margins)) > 0.01:
            out.append((net, data, target))
        if len(out) == 4:
            break
    return out


def test_drift_vanishes_with_order_four_while_the_pattern_stands():
    runs = calm_runs()
    assert len(runs) == 4
    names = set()
    for net, data, target in runs:
        coarse, fine = flow(net, data, target, 0.04, 10), flow(net, data, target, 0.01, 40)
        for law in laws(net, data).entries:
            big, small = drift(law, coarse), drift(law, fine)
            names.add(law.name)
            if law.name == "constants":
                assert big == small == 0.0
                continue
            assert small < 1e-6 and 150 < big / small < 450, f"{law}: {big} {small}"
    assert names == {"balance", "block", "constants"}


def test_block_law_breaks_when_the_pattern_does():
    broken = 0
    for seed in range(12):
        net, data, target = block_case(seed)
        data = data * 2
        block = max((w for w in laws(net, data).entries if w.name == "block" and w.layer == 1), key=lambda w: w.size)
        path = flow(net, data, 3 * target, 2e-3, 500)
        values = block.evaluate(path)
        members = list(block.neurons)
        start = activity(net, data).pieces[1][:, members]
        kept = [np.array_equal(activity(net.with_theta(t), data).pieces[1][:, members], start) for t in path[::5]]
        first = kept.index(False) * 5 if False in kept else None
        before = abs(values[: first - 5 if first else None] - values[0]).max()
        assert before < 1e-4  # first order in h at the kinks of other neurons
        if first is not None and first > 10:
            after = abs(values[first:] - values[0]).max()
            balance = next(w for w in laws(net, data).entries if w.name == "balance" and w.layer == 1)
            assert drift(balance, path) < 1e-3
            broken += after > 20 * max(before, 1e-5)
    assert broken >= 2


def test_candidates_for_the_hidden_shift_drift():
    rng = np.random.default_rng(5)
    first = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    net = Network.from_arrays((first, [0.4, 0.2]), ([[1.0, -0.4], [0.7, -0.8]], [-0.3, -0.5]), ([[1.0, -0.8]], [0.1]))
    assert hidden_neurons(net) == (0,)
    data, target = 2 * rng.standard_normal((12, 2)), rng.standard_normal((12, 1))
    path = flow(net, data, target, 1e-3, 500)
    b, u, c = path[:, 4], path[:, [6, 8]], path[:, 10:12]
    candidates = {
        "b_i": b,
        "sum c_j u_ji": (c * u).sum(axis=1),
        "b_i^2 - |c|^2": b**2 - (c**2).sum(axis=1),
        "b_i - sum c_j / u_ji": b - (c / u).sum(axis=1),
        "b_i + sum c_j": b + c.sum(axis=1),
    }
    worst = max(drift(law, path) for law in laws(net, data).entries)
    for name, values in candidates.items():
        assert abs(values - values[0]).max() > 100 * worst, name
    assert worst < 1e-4


# ---- patterns and how far they reach


@given(seed=st.integers(0, 10**6), widths=st.sampled_from(ARCHITECTURES), rational=st.booleans())
@settings(max_examples=40)
def test_activity_is_exact(seed, widths, rational):
    rng = np.random.default_rng(seed)
    if rational:
        net, points = rational_net(rng, widths), rational_points(rng, 3, widths[0])
    else:
        # small integers: many exact ties
        pairs = [
            (rng.integers(-2, 3, (b, a)).astype(float), rng.integers(-2, 3, b).astype(float))
            for a, b in zip(widths, widths[1:], strict=False)
        ]
        net, points = Network.from_arrays(*pairs), rng.integers(-2, 3, (3, widths[0])).astype(float)
    found = activity(net, points)
    for n, x in enumerate(points):
        h = fractions_of(x)
        for k, layer in enumerate(net.hidden):
            norm = sum(q * q for q in h)
            assert Q(float(found.reaches[k][n])) ** 2 >= norm
            z = fractions_of(layer.weight) @ h + fractions_of(layer.bias)
            assert found.pieces[k][n].tolist() == [int(q > 0) for q in z]
            for gap, q in zip(found.margins[k][n].tolist(), z, strict=True):
                assert Q(gap) <= abs(q) and (gap > 0.999 * abs(q) or abs(q) < 1e-9)
            h = np.array([max(q, Q(0)) for q in z], dtype=object)


def test_activity_near_a_kink_in_floats():
    # 0.1 + 0.2 - 0.3 is 5.5e-17 over Q although float arithmetic may say otherwise
    net = Network.from_arrays(([[1.0, 1.0], [-1.0, -1.0]], [-0.3, 0.3]), ([[1.0, 1.0]], [0.0]))
    found = activity(net, [[0.1, 0.2]])
    assert found.pieces[0].tolist() == [[1, 0]] and 0 < found.margins[0][0, 0] < 1e-16
    assert safe_radius(net, [[0.1, 0.2]]).value > 0
    assert safe_radius(net, [[0.25, 0.0], [0.5, 0.25]]).value > 0
    tie = Network.from_arrays(([[1.0, -1.0]], [0.0]), ([[1.0]], [0.0]))
    radius = safe_radius(tie, [[1.0, 2.0], [0.5, 0.5]])
    assert (radius.value, radius.layer, radius.neuron, radius.point) == (0.0, 0, 0, 1)


def preactivation_gradient(net, x, layer, neuron):
    """d z / d theta of one hidden neuron at one input, over all parameters (those above are 0)."""
    below = Network(net.layers[: layer + 1])
    part = exact_gradient(below.with_layers(below.layers), x, np.eye(net.widths[layer + 1])[neuron])
    return np.concatenate([part, np.zeros(net.parameter_count - len(part))]).astype(float)


def linear_end(net, layer):
    return net.with_layers([*net.layers[:layer], replace(net.layers[layer], activation=find("identity"))])


@pytest.mark.parametrize("widths", [(2, 3, 1), (2, 3, 3, 1), (3, 4, 3, 3, 2)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_no_pattern_changes_within_the_radius(widths, activation):
    rng = np.random.default_rng(sum(widths))
    for seed in range(4):
        net = Network.random(widths, activation=activation, seed=seed)
        data = rng.standard_normal((4, widths[0]))
        radius, start = safe_radius(net, data), activity(net, data)
        assert radius.value > 0
        theta = np.asarray(net.theta, float)
        for k in range(len(net.hidden)):
            for i in range(widths[k + 1]):
                for x, piece in zip(data, start.pieces[k][:, i], strict=True):
                    # the direction that changes this sign fastest
                    g = preactivation_gradient(linear_end(net, k), x, k, i)
                    direction = np.concatenate([g, np.zeros(len(theta) - len(g))])
                    direction *= (-1 if piece else 1) * radius.value / np.linalg.norm(direction) * (1 - 1e-9)
                    assert activity(net.with_theta(theta + direction), data).same_as(start)
        for _ in range(20):
            direction = rng.standard_normal(len(theta))
            moved = theta + direction * radius.value / np.linalg.norm(direction) * (1 - 1e-9)
            assert activity(net.with_theta(moved), data).same_as(start)


@pytest.mark.parametrize("seed", range(10))
def test_radius_is_the_distance_for_one_hidden_layer(seed):
    net = Network.random((3, 5, 2), seed=seed)
    data = np.random.default_rng(seed).standard_normal((6, 3))
    radius = safe_radius(net, data)
    z = net.preactivations(data)[0]
    distance = abs(z) / np.sqrt((data**2).sum(axis=1) + 1)[:, None]
    assert distance.min() * (1 - 1e-9) < radius.value < distance.min() * (1 + 1e-15)
    assert (radius.point, radius.neuron) == tuple(np.unravel_index(distance.argmin(), distance.shape))
    for law in laws(net, data).entries:
        if law.name == "balance":
            assert law.radius == np.inf
        elif law.name == "block":
            own = distance[:, list(law.neurons)].min()
            assert own * (1 - 1e-9) < law.radius < own * (1 + 1e-15)


@pytest.mark.parametrize("slope", [Q(0), Q(1, 2), Q(3)])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_radius_is_tight_to_first_order_in_chains_of_width_one(depth, slope):
    # one neuron per layer: |dz| <= r |grad z| with equality for the worst direction as r -> 0
    rng = np.random.default_rng(depth)
    row = find("leaky_relu", slope) if slope else find("relu")
    sign = -1.0 if slope else 1.0
    weights = [[[sign * 2.0]]] + [[[float(w)]] for w in rng.uniform(0.5, 2.0, depth - 1)]
    x, h, biases = 1.5, 1.5, []
    for k, weight in enumerate(weights):
        z = weight[0][0] * h + 0.5
        biases.append([0.5])
        if k == depth - 1:
            biases[-1] = [0.5 - z + 1e-5]  # the last hidden neuron is 1e-5 above its kink
            break
        h = float(row(np.array([z]))[0])
    net = Network.from_arrays(*zip(weights, biases, strict=True), ([[1.0]], [0.0]), activation=row)
    radius = safe_radius(net, [[x]])
    gradient = preactivation_gradient(linear_end(net, depth - 1), [x], depth - 1, 0)
    margin = net.preactivations([[x]])[depth - 1][0, 0]
    assert radius.layer == depth - 1
    assert 0.9999 < radius.value * np.linalg.norm(gradient) / margin < 1.00001
    own = neuron_radii(net, activity(net, [[x]]), depth - 1)[0]
    if slope == Q(1, 2):
        assert own < 0.99 * radius.value  # the first neuron, on its slope 1/2, may come to have slope 1
    else:
        assert own == pytest.approx(radius.value, rel=1e-9)


def test_a_laws_radius_is_at_least_that_of_the_whole_pattern():
    for seed in range(6):
        net, data, _ = block_case(seed)
        whole = safe_radius(net, data).value
        found = laws(net, data)
        assert found.radius >= whole * (1 - 1e-12)
        assert any(law.kind == "local" and law.radius > whole for law in found.entries)
        for law in found.entries:
            if law.name == "block" and np.isfinite(law.radius):
                worst_block(net, data, law)


def test_points_where_nothing_is_read_do_not_count():
    net = Network.from_arrays(([[1.0], [-1.0], [2.0]], [0.0, 5.0, 1.0]), ([[1.0, 1.0, 1.0]], [-4.0]), ([[1.0]], [0.0]))
    data = [[4.0], [-0.5]]  # read at both: 13 + 1 - 4 > 0 and 5.5 - 4 > 0
    assert [law.neurons for law in laws(net, data).entries if law.name == "block"] == [(0, 2)]
    quiet = Network.from_arrays(([[1.0], [-1.0]], [0.0, 5.0]), ([[2.0, 1.0]], [-7.0]), ([[1.0]], [0.0]))
    block = next(law for law in laws(quiet, [[4.0], [-0.5]]).entries if law.name == "block")
    assert block.neurons == (0, 1) and block.radius == safe_radius(quiet, [[4.0], [-0.5]]).value


def worst_block(net, data, law):
    """Pushing any member towards its kink by the law's own radius leaves the block's pattern as it is."""
    start = activity(net, data).pieces[law.layer][:, list(law.neurons)]
    theta = np.asarray(net.theta, float)
    for i in law.neurons:
        for n, x in enumerate(data):
            g = preactivation_gradient(linear_end(net, law.layer), x, law.layer, i)
            g = np.concatenate([g, np.zeros(len(theta) - len(g))])
            g *= (1 if activity(net, data).pieces[law.layer][n, i] == 0 else -1) / np.linalg.norm(g)
            moved = activity(net.with_theta(theta + law.radius * (1 - 1e-9) * g), data)
            assert np.array_equal(moved.pieces[law.layer][:, list(law.neurons)], start)


def test_signs_decide_only_behind_nonnegative_outputs():
    up = ([[1.0, 2.0], [3.0, 1.0]], [1.0, 1.0])
    last = ([[1.0, 1.0]], [0.0])
    assert [law.layer for law in laws(Network.from_arrays(up, up, last)).entries if law.name == "block"] == [1]
    assert [law.name for law in laws(Network.from_arrays(up, last)).entries] == ["balance"]  # x may be negative
    ended = Network.from_arrays(up, last, activation=["relu", "relu"])
    assert [law.name for law in laws(ended).entries] == ["balance"]
    for below, blocks in (("identity", [0]), (find("leaky_relu", Q(1, 4)), [])):
        net = Network.from_arrays(up, up, last, activation=[below, "relu"])
        assert [law.layer for law in laws(net).entries if law.name == "block"] == blocks


def test_errors_of_lower_layers_count():
    # 0.1 + 0.2 - 0.3 is 2.8e-17 over Q and 5.6e-17 in floats; the second layer asks whether it exceeds 4e-17
    pairs = ([[1.0, 1.0, -1.0]], [0.0]), ([[1.0]], [-4e-17]), ([[1.0]], [0.0])
    net = Network.from_arrays(*pairs, activation=["identity", "relu"])
    x = [[0.1, 0.2, 0.3]]
    assert net.preactivations(x)[1][0, 0] > 0
    assert activity(net, x).pieces[1].tolist() == [[0]]


def test_radius_by_signs_is_the_smallest_entry():
    net = Network.from_arrays(
        (np.eye(2), [0.0, 0.0]), ([[1.0, 2.0], [0.5, 3.0], [-1.0, -0.25]], [4.0, 5.0, -2.0]), ([[1.0, 1.0, 1.0]], [0.0])
    )
    found = {(law.name, law.layer): law for law in laws(net).entries}
    assert found["block", 1].neurons == (0, 1) and 0.4999 < found["block", 1].radius < 0.5
    assert 0.2499 < found["constants", 1].radius < 0.25 and found["constants", 1].size == 3
    assert found["constants", 2].parameters == (17,)
    zero_bias = Network.from_arrays(
        (np.eye(2), [0.0, 0.0]), ([[1.0, 2.0], [1.0, 1.0]], [0.0, 5.0]), ([[1.0, 1.0]], [0])
    )
    # relu(u y) with c = 0 has no slope where y = 0: no matrix law on all inputs
    assert [law.name for law in laws(zero_bias).entries] == ["balance", "balance"]


def test_identity_layers_have_global_block_laws_and_no_radius():
    net = Network.random((2, 3, 3, 1), activation="identity", seed=0)
    assert safe_radius(net, [[1.0, 2.0]]).value == np.inf and "inf" in str(safe_radius(net, [[1.0, 2.0]]))
    assert all(law.kind == "global" and law.radius == np.inf for law in laws(net).entries)
    assert [law.size for law in laws(net, [[1.0, 2.0]]).entries if law.name == "block"] == [3, 3]


@pytest.mark.parametrize(("bias", "found"), [(-1.0, (0,)), (1.0, ()), (0.0, ())])
def test_hidden_needs_negative_biases(bias, found):
    net = Network.from_arrays((np.eye(2), [0.0, 0.0]), ([[2.0, -1.0]], [bias]), ([[1.0]], [0.0]))
    assert hidden_neurons(net) == found
    assert hidden_neurons(Network.random((2, 3, 1), seed=0)) is None
