"""Relations between neurons, against brute force over Q, planted structure and the double cover."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.network import Layer, Network
from fiberscope.neurons import colour_classes, multiples, output_factor, proportional_rows
from oracles import coarsest_equitable, equal_rows_oracle, gradient, rational_rows

RULES = {
    "softplus": (False, False),
    "tanh": (True, False),
    "relu": (False, True),
    "abs": (True, True),
    "gaussian": (True, False),
}
MAGIC = [[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]


def layer(weight, bias, name="relu"):
    return Layer(np.asarray(weight), np.asarray(bias), activation(name))


def as_sets(classes):
    return {frozenset(m) for m in classes.members}


@pytest.mark.parametrize("name", RULES)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=25)
def test_proportional_rows_match_pairwise_comparison(name, seed, dtype):
    rng = np.random.default_rng(seed)
    sign, scale = RULES[name]
    base = rng.standard_normal((4, 3)).astype(np.float32)
    factors = np.array([1, -1, 2, -2, 3, 0.5, -1.5, 1])[rng.integers(0, 8, 12)]
    rows = (base[rng.integers(0, 4, 12)] * factors[:, None]).astype(dtype)
    rows[rng.integers(0, 12)] = 0
    here = layer(rows[:, :2], rows[:, 2], name)
    found = proportional_rows(here)
    expected = equal_rows_oracle(rational_rows(rows), sign=sign, scale=scale)
    null = set(found.null)
    assert null == ({i for i in range(12) if not rows[i].any()} if multiples(here.activation).null else set())
    assert as_sets(found) == {frozenset(c) - null for c in expected if frozenset(c) - null}
    exact = rational_rows(rows)
    for members in found.members:
        for i in members:
            e = Fraction(found.factors[i])
            assert exact[i] == [e * v for v in exact[members[0]]]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30)
def test_one_unit_in_the_last_place_separates(seed):
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(5).astype(np.float32)
    other = row.copy()
    k = rng.integers(0, 5)
    other[k] = np.nextafter(other[k], np.float32(np.inf))
    found = proportional_rows(layer(np.stack([row, other, row]), np.zeros(3, np.float32), "tanh"))
    assert as_sets(found) == {frozenset({0, 2}), frozenset({1})}


def test_tiny_and_huge_rows_are_compared_exactly():
    rows = np.array([[1e-300, 2e-300], [1e300, 2e300], [1e-300, 2.0000001e-300]])
    found = proportional_rows(layer(rows, np.zeros(3), "relu"))
    expected = equal_rows_oracle(rational_rows(rows), sign=False, scale=True)
    assert as_sets(found) == {frozenset(c) for c in expected}


def test_rational_rows():
    third = Fraction(1, 3)
    weight = np.array([[third, 1], [2 * third, 2], [third, 2]], dtype=object)
    found = proportional_rows(layer(weight, np.array([0, 0, 0]), "relu"))
    assert as_sets(found) == {frozenset({0, 1}), frozenset({2})}
    assert found.factors[1] == 2


@pytest.mark.parametrize("width", [10, 257, 4096])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_planted_duplicates_are_found_and_nothing_is_invented(width, dtype):
    rng = np.random.default_rng(width)
    weight = rng.standard_normal((width, 64)).astype(dtype)
    bias = rng.standard_normal(width).astype(dtype)
    copies = rng.permutation(width)[: 2 * (width // 5)].reshape(2, -1)
    weight[copies[0]], bias[copies[0]] = 4 * weight[copies[1]], 4 * bias[copies[1]]
    found = proportional_rows(layer(weight, bias, "relu"))
    planted = {frozenset(map(int, pair)) for pair in copies.T}
    assert {m for m in as_sets(found) if len(m) > 1} == planted


@pytest.mark.parametrize(
    ("name", "e", "phi"),
    [("relu", 3, 3), ("relu", -1, None), ("tanh", -1, -1), ("tanh", 2, None), ("abs", -2, 2), ("square", -3, 9),
     ("gaussian", -1, 1), ("softplus", -1, None), ("softplus", 1, 1)],
)  # fmt: skip
def test_output_factor(name, e, phi):
    row = activation(name)
    found = output_factor(row, Fraction(e))
    assert found == phi
    if phi is not None:
        z = np.linspace(-2, 2, 9)
        np.testing.assert_allclose(row(e * z), float(phi) * row(z), rtol=1e-12, atol=1e-12)


def test_magic_square_is_equitable_though_it_has_no_automorphism():
    net = Network.from_arrays(([[1.0]] * 3, [0.0] * 3), (MAGIC, [0.5] * 3), ([[1.0] * 3], [0.0]), activation="tanh")
    assert [c.members for c in colour_classes(net)] == [((0, 1, 2),), ((0, 1, 2),)]
    broken = np.array(MAGIC)
    broken[0, 0] += 2.0**-40
    net = Network.from_arrays(([[1.0]] * 3, [0.0] * 3), (broken, [0.5] * 3), ([[1.0] * 3], [0.0]), activation="tanh")
    assert all(c.count > 1 for c in colour_classes(net))


def test_row_sums_alone_are_not_enough():
    net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[1.0, 2.0]], [0]), activation="softplus")
    assert colour_classes(net)[0].count == 2


def planted_equitable(rng, sizes, depth, name):
    """A network with planted equitable classes of the given sizes in every hidden layer, in dyadic numbers."""
    signed = activation(name).parity == "odd"
    m = sum(sizes)
    label = np.repeat(np.arange(len(sizes)), sizes)
    sign = rng.choice([-1.0, 1.0], m) if signed else np.ones(m)

    def block(rows, columns):
        out = np.zeros((len(rows), len(columns)))
        for a in set(rows):
            for b in set(columns):
                i, j = np.flatnonzero(rows == a), np.flatnonzero(columns == b)
                noise = rng.integers(-8, 9, (len(i), len(j))).astype(float)
                noise = noise * (len(i) * len(j))
                noise -= noise.mean(axis=0, keepdims=True)
                noise -= noise.mean(axis=1, keepdims=True)
                out[np.ix_(i, j)] = np.round(noise * 0) + (noise if np.all(noise == np.round(noise)) else 0)
                out[np.ix_(i, j)] += rng.integers(-9, 10)
        return out

    sides = [np.arange(2)] + [label] * depth + [np.arange(2)]
    signs = [np.ones(2)] + [sign] * depth + [np.ones(2)]
    pairs = []
    for rows, columns, s, t in zip(sides[1:], sides, signs[1:], signs, strict=False):
        bias = rng.integers(-5, 6, rows.max() + 1).astype(float)[rows] if rows is label else np.zeros(len(rows))
        pairs.append((s[:, None] * block(rows, columns) * t[None, :], s * bias))
    return Network.from_arrays(*pairs, activation=name), label


@pytest.mark.parametrize("name", ["softplus", "tanh"])
@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), depth=st.integers(1, 3))
@settings(max_examples=20)
def test_colour_classes_match_the_double_cover(name, seed, sizes, depth):
    net, _ = planted_equitable(np.random.default_rng(seed), sizes, depth, name)
    expected = coarsest_equitable(net, signed=name == "tanh")
    for found, (groups, null) in zip(colour_classes(net), expected, strict=True):
        assert as_sets(found) == groups
        assert set(found.null) == null


@pytest.mark.parametrize("name", ["softplus", "tanh", "relu", "gaussian"])
def test_gradients_stay_in_the_class_space(name):
    """The projector theorem, seen: dW = P dW P and db in range P for the classes found, for any input and cotangent."""
    rng = np.random.default_rng(3)
    e = {"softplus": [1, 1, 1], "tanh": [1, -1, 1], "relu": [1, 2, 0.5], "gaussian": [1, -1, 1]}[name]
    e = np.array(e, float)
    out = np.abs(e) if name == "gaussian" else e
    base = rng.integers(-4, 5, (1, 2)) / 4.0
    first = e[:, None] * base
    size = (e**2).sum()
    second = np.outer(e, out) * 0.75
    last = rng.integers(1, 4, (2, 1)).astype(float) * out[None, :]
    net = Network.from_arrays((first, 0.5 * e), (second, 0.25 * e), (last, [0.0, 1.0]), activation=name)
    classes = colour_classes(net)
    assert [c.count for c in classes] == [1, 1]
    for c in classes:
        np.testing.assert_allclose(np.array([float(f) for f in c.factors]), e / e[0])
    inner, outer = np.outer(e, e) / size, np.outer(out, out) / size
    rows = gradient(net, rng.standard_normal(2), rng.standard_normal(2), lambda row, z: row.derivative(z))
    (w1, b1), (w2, b2), _ = rows
    assert np.abs(w1).max() > 1e-6
    np.testing.assert_allclose(inner @ w1, w1, atol=1e-12)
    np.testing.assert_allclose(inner @ b1, b1, atol=1e-12)
    np.testing.assert_allclose(inner @ w2 @ outer, w2, atol=1e-12)


def test_null_neurons_need_both_sides():
    # neuron 2 has zero row and zero column: null; neuron 1 has a zero row only: it will start to move
    net = Network.from_arrays(([[1.0], [0.0], [0.0]], [1.0, 0.0, 0.0]), ([[1.0, 1.0, 0.0]], [0.0]), activation="tanh")
    found = colour_classes(net)[0]
    assert found.null == (2,) and found.count == 2
    assert colour_classes(Network.from_arrays(([[0.0]], [0.0]), ([[0.0]], [0.0]), activation="sigmoid"))[0].null == ()


def test_null_neurons_coupled_through_zero_sum_blocks():
    # invariants.md: signed row sums into every class vanish, weights among null neurons are arbitrary
    first = [[1.0], [1.0], [0.0]]
    second = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [3.0, -3.0, 7.0]]
    net = Network.from_arrays(
        (first, [0.5, 0.5, 0]), (second, [0.1, 0.1, 0]), ([[1.0, 1.0, 0.0]], [0]), activation="tanh"
    )
    classes = colour_classes(net)
    expected = coarsest_equitable(net, signed=True)
    for found, (groups, null) in zip(classes, expected, strict=True):
        assert as_sets(found) == groups and set(found.null) == null


def test_generic_wide_network_is_discrete():
    net = Network.random((300, 500, 400, 10), activation="relu", seed=1, dtype=np.float32)
    assert all(c.trivial for c in colour_classes(net))


def test_a_single_silent_neuron_is_null():
    net = Network.from_arrays(([[0.0]], [0.0]), ([[0.0]], [1.0]), activation="tanh")
    assert colour_classes(net)[0].null == (0,)
    assert proportional_rows(net.layers[0]).null == (0,)


def test_splitting_a_layer_splits_the_one_above_again():
    # equal row sums hide the second layer until the first one is split by its unequal columns
    net = Network.from_arrays(
        ([[1.0], [1.0]], [0, 0]), ([[1.0, 2.0], [0.0, 3.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="softplus"
    )
    assert [c.count for c in colour_classes(net)] == [2, 2]


def test_scaled_neurons_of_degree_two_do_not_move_together():
    net = Network.from_arrays(([[1.0], [2.0]], [0, 0]), ([[1.0, 2.0]], [0]), activation="square")
    assert colour_classes(net)[0].count == 2
    assert proportional_rows(net.layers[0]).count == 1  # as functions they are multiples


def test_bits_lost_to_underflow_do_not_merge_rows():
    rows = np.array([[1e300, 5e-324], [1e300, 1e-323], [2e300, 1e-323]])
    found = proportional_rows(layer(rows, np.zeros(3), "relu"))
    assert as_sets(found) == {frozenset({0, 2}), frozenset({1})}


@pytest.mark.parametrize("width", [10, 300, 2048])
def test_planted_equitable_classes_without_equal_neurons(width):
    """Blocks are sums of random permutation matrices: constant row and column sums, hardly any automorphism."""
    rng = np.random.default_rng(width)
    half = width // 2

    def block():
        out = np.zeros((half, half), np.float32)
        for weight in rng.permutation([1, 2, 5]):
            out[np.arange(half), rng.permutation(half)] += weight
        return out * rng.choice([0.25, -0.5, 1.0])

    first = np.repeat(np.array([[1.0, 2.0], [-1.0, 0.5]], np.float32), half, axis=0)
    middle = np.block([[block(), block()], [block(), block()]])
    last = np.repeat(np.array([[1.0, -3.0]], np.float32), half, axis=1)
    bias = np.repeat(np.array([0.5, -0.25], np.float32), half)
    net = Network.from_arrays((first, bias), (middle, 2 * bias), (last, np.zeros(1, np.float32)), activation="softplus")
    halves = {frozenset(range(half)), frozenset(range(half, width))}
    assert [as_sets(c) for c in colour_classes(net)] == [halves, halves]
    assert all(len(set(map(bytes, middle[rows]))) > 1 for rows in (slice(0, half), slice(half, width)))
    broken = middle.copy()
    broken[0, 0] += 2.0**-20
    net = Network.from_arrays((first, bias), (broken, 2 * bias), (last, np.zeros(1, np.float32)), activation="softplus")
    assert all(c.count > 2 for c in colour_classes(net))
