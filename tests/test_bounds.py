"""Enclosures: sound at exact points, tight where a closed form is known, differences of networks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.bounds import difference_bound, preactivation_bounds, unstable
from fiberscope.certificates.differences import difference
from fiberscope.certificates.enclosures import Snapshot
from fiberscope.certificates.state import affine_layers
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.network import Network


def exact_preactivations(net, x):
    h = [Fraction(v) for v in x]
    out = []
    for layer in net.layers:
        weight = [[Fraction(v) for v in row] for row in layer.weight.tolist()]
        z = [
            sum((w * v for w, v in zip(row, h, strict=True)), Fraction(b))
            for row, b in zip(weight, layer.bias.tolist(), strict=True)
        ]
        out.append(z)
        h = [layer.activation.value(v) for v in z]
    return out


@pytest.mark.parametrize("method", ["interval", "backward"])
@given(
    seed=st.integers(0, 10**6), name=st.sampled_from(["relu", "leaky_relu", "abs", "hard_tanh"]),
    scale=st.sampled_from([1e-30, 1.0, 1e25]),
)  # fmt: skip
@settings(max_examples=30)
def test_enclosures_contain_exact_values(method, seed, name, scale):
    rng = np.random.default_rng(seed)
    net = Network.random((3, 6, 5, 4, 2), activation=name, seed=seed)
    if scale != 1.0:
        net = net.with_theta(np.asarray(net.theta) * scale)
    center = rng.standard_normal(3)
    box = Box(center - rng.random(3) * 0.5, center + rng.random(3) * 0.5)
    bounds = preactivation_bounds(net, box, method=method)
    points = [*box.sample(5, rng), box.lower, box.upper]
    for x in points:
        for values, low, high in zip(exact_preactivations(net, x.tolist()), bounds.lower, bounds.upper, strict=True):
            for v, a, b in zip(values, low.tolist(), high.tolist(), strict=True):
                assert (a == -np.inf or Fraction(a) <= v) and (b == np.inf or v <= Fraction(b))


def assert_encloses(bounds, net, x):
    for values, lower, upper in zip(exact_preactivations(net, x), bounds.lower, bounds.upper, strict=True):
        for v, a, b in zip(values, lower.tolist(), upper.tolist(), strict=True):
            assert a == -np.inf or Fraction(a) <= v
            assert b == np.inf or v <= Fraction(b)


def wild(rng, shape, reach):
    """Numbers of either sign with magnitudes from 10^-reach to 10^reach, some zeros among them."""
    return rng.standard_normal(shape) * 10.0 ** rng.integers(-reach, reach + 1, shape) * (rng.random(shape) < 0.8)


@pytest.mark.parametrize("method", ["interval", "backward"])
@given(
    seed=st.integers(0, 10**6), name=st.sampled_from(["relu", "leaky_relu", "abs"]),
    reach=st.sampled_from([30, 150, 300]), depth=st.integers(2, 7),
)  # fmt: skip
@settings(max_examples=60)
def test_enclosures_hold_where_floats_underflow_and_overflow(method, seed, name, reach, depth):
    rng = np.random.default_rng(seed)
    pairs = [(wild(rng, (2, 2), reach), wild(rng, 2, reach)) for _ in range(depth)]
    net = Network.from_arrays(*pairs, activation=name)
    ends = np.sort(wild(rng, (2, 2), reach), axis=0)
    box = Box(ends[0], ends[1])
    bounds = preactivation_bounds(net, box, method=method)
    for _ in range(4):
        assert_encloses(bounds, net, np.where(rng.random(2) < 0.5, box.lower, box.upper).tolist())


def test_a_product_of_weights_that_underflows_still_counts():
    net = Network.from_arrays(([[1e-200]], [0.0]), ([[1e-200]], [-1e-110]), ([[1.0]], [0.0]), activation="relu")
    bounds = preactivation_bounds(net, Box(np.array([1e299]), np.array([1e300])))
    assert bounds.upper[1][0] >= 9e-101  # the neuron is on, although 1e-200 * 1e-200 is 0 in floats


@pytest.mark.parametrize("method", ["interval", "backward"])
def test_overflow_is_no_statement(method):
    net = Network.from_arrays(([[1e200, -1e200]], [0.0]), ([[1.0]], [0.0]), activation="relu")
    bounds = preactivation_bounds(net, Box(np.full(2, 1e200), np.full(2, 2e200)), method=method)
    assert (bounds.lower[0][0], bounds.upper[0][0]) == (-np.inf, np.inf)
    assert (bounds.lower[1][0], bounds.upper[1][0]) == (0.0, np.inf)


def test_rational_weights_keep_sign_arguments_and_the_smallest_numbers():
    net = Network.from_arrays(([[1.0]], [0]), ([[Fraction(-1, 3)]], [0]), ([[1.0]], [0]), activation="relu")
    bounds = preactivation_bounds(net, Box.everywhere(1))
    assert bounds.upper[1][0] == 0 and bounds.upper[2][0] == bounds.lower[2][0] == 0
    tiny = Network.from_arrays(([[Fraction(3, 2 * 10**324)]], [0]), ([[1.0]], [0]), activation="relu")
    for method in ("interval", "backward"):
        bounds = preactivation_bounds(tiny, Box(np.array([1e300]), np.array([1e300])), method=method)
        assert_encloses(bounds, tiny, [1e300])


def planted(seed):
    """Networks with ties (quarters, no biases), with rational weights, and without either."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(["relu", "leaky_relu", "abs", "hard_tanh", "tanh"]))
    net = Network.random([int(n) for n in rng.integers(1, 9, int(rng.integers(3, 6)))], activation=name, seed=seed)
    if seed % 3 == 0:
        return Network.from_arrays(*[(np.round(row.weight * 4) / 4, None) for row in net.layers], activation=name)
    if seed % 7 == 1:
        third = np.vectorize(lambda v: Fraction(v) / 3, otypes=[object])
        return Network.from_arrays(*[(third(row.weight), third(row.bias)) for row in net.layers], activation=name)
    return net


@pytest.mark.parametrize("seed", [*range(32), 57, 340, 569, 584])
def test_the_checker_confirms_every_claim(seed):
    net, rng = planted(seed), np.random.default_rng(seed)
    n = net.widths[0]
    box = [Box.parse("[-1,1]", n), Box.parse("[0,2]", n), Box.nonnegative(n), Box.everywhere(n)][seed % 4]
    theta = np.asarray(net.theta, dtype=np.float64)
    other = net.with_theta(theta * (1 + 1e-3 * rng.standard_normal(theta.size) * (rng.random(theta.size) < 0.5)))
    for method in ("interval", "backward"):
        claimed = preactivation_bounds(net, box, method=method)
        checker = Snapshot(affine_layers(net), box.lower, box.upper, method)
        for k in range(net.depth):
            lower, upper = checker.layer(k)
            assert (lower >= claimed.lower[k]).all() and (upper <= claimed.upper[k]).all()
    constant, slope = difference(affine_layers(net), affine_layers(other), box.lower, box.upper, "interval")
    claim = difference_bound(net, other, box)
    assert constant <= claim[0] and slope <= claim[1]


@pytest.mark.parametrize(
    ("slopes", "message"),
    [
        ({9: {}}, "layer 9"), ({1: {7: {}}}, "neuron 7"), ({1: {0: {"lower": [0.5]}}}, "3 numbers"),
        ({1: {0: {"lower": [0.5, 2, 0]}}}, "3 numbers"), ({1: {0: {"lower": [0.5, np.nan, 0]}}}, "3 numbers"),
        ({1: {0: {"side": [0.5, 0, 0]}}}, "'side'"),
    ],
)  # fmt: skip
def test_slopes_that_do_not_fit(slopes, message):
    with pytest.raises(InputError, match=message):
        preactivation_bounds(Network.random((2, 3, 2), seed=0), Box.parse("[-1,1]", 2), slopes=slopes)


def test_one_layer_bounds_are_the_optimum():
    net = Network.random((4, 5), seed=0)
    box = Box(np.array([-1.0, 0, 2, -3]), np.array([1.0, 0, 5, -2]))
    bounds = preactivation_bounds(net, box)
    weight, bias = net.layers[0].weight, net.layers[0].bias
    low = np.maximum(weight, 0) @ box.lower + np.minimum(weight, 0) @ box.upper + bias
    np.testing.assert_allclose(bounds.lower[0], low, rtol=1e-12)


def test_backward_sees_that_equal_streams_cancel_and_intervals_do_not():
    net = Network.from_arrays(([[1.0], [1.0]], [2.0, 2.0]), ([[1.0, -1.0]], [0.0]), activation="relu")
    box = Box.parse("[-1,1]", 1)
    assert preactivation_bounds(net, box, method="interval").upper[1][0] >= 2
    assert abs(preactivation_bounds(net, box).upper[1][0]) < 1e-12


def test_backward_is_never_looser_than_intervals():
    net = Network.random((3, 20, 20, 20, 1), seed=4)
    box = Box.parse("[-1,1]", 3)
    plain, tight = (preactivation_bounds(net, box, method=m) for m in ("interval", "backward"))
    for k in range(net.depth):
        assert (tight.lower[k] >= plain.lower[k]).all() and (tight.upper[k] <= plain.upper[k]).all()
    assert (tight.upper[3] - tight.lower[3])[0] < 0.5 * (plain.upper[3] - plain.lower[3])[0]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_any_slopes_are_sound(seed):
    rng = np.random.default_rng(seed)
    net = Network.random((2, 4, 4, 2), seed=seed)
    box = Box.parse("[-1,1]", 2)
    slopes = {2: {i: {"lower": rng.random(8), "upper": rng.random(8)} for i in range(2)}}
    bounds = preactivation_bounds(net, box, slopes=slopes)
    values = net.preactivations(box.sample(200, rng))[2]
    assert (values >= bounds.lower[2] - 1e-9).all() and (values <= bounds.upper[2] + 1e-9).all()


def test_unbounded_boxes_keep_sign_arguments():
    net = Network.from_arrays(
        ([[1.0, 0], [0, -1.0]], [0, 0]), ([[1.0, 2.0], [-1.0, -1.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="relu"
    )
    bounds = preactivation_bounds(net, Box.everywhere(2))
    assert bounds.lower[1].tolist() == [0.0, -np.inf] and bounds.upper[1].tolist() == [np.inf, 0.0]
    assert [u.tolist() for u in unstable(bounds, net)] == [[0, 1], []]


def test_wrong_box():
    with pytest.raises(InputError, match="3 inputs"):
        preactivation_bounds(Network.random((2, 2), seed=0), Box.everywhere(3))


@pytest.mark.parametrize("box", ["[-1,1]", "everywhere", "nonnegative"])
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["relu", "leaky_relu", "abs"]))
@settings(max_examples=15)
def test_difference_bound_holds_exactly(box, seed, name):
    rng = np.random.default_rng(seed)
    f = Network.random((3, 5, 4, 2), activation=name, seed=seed)
    change = rng.standard_normal(f.parameter_count) * 1e-3 * (rng.random(f.parameter_count) < 0.5)
    g = f.with_theta(np.asarray(f.theta) + change)
    domain = Box.parse(box, 3)
    constant, slope = difference_bound(f, g, domain)
    assert domain.bounded == (slope == 0)
    for x in domain.sample(10, rng, scale=100.0):
        gap = max(abs(a - b) for a, b in zip(f.exact(x.tolist()), g.exact(x.tolist()), strict=True))
        assert gap <= Fraction(constant) + Fraction(slope) * Fraction(float(np.abs(x).max()))


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "softplus", "square"])
def test_difference_bound_of_smooth_networks(name):
    rng = np.random.default_rng(0)
    f = Network.random((3, 6, 2), activation=name, seed=1)
    g = f.with_theta(np.asarray(f.theta) + 1e-4 * rng.standard_normal(f.parameter_count))
    box = Box.parse("[-2,2]", 3)
    constant, _ = difference_bound(f, g, box)
    x = box.sample(5000, rng)
    gap = np.abs(f(x) - g(x)).max()
    assert gap <= constant <= 60 * gap


def test_equal_networks_differ_by_exactly_zero():
    f = Network.random((3, 5, 2), seed=0)
    assert difference_bound(f, f, Box.everywhere(3)) == (0.0, 0.0)
    with pytest.raises(InputError, match="differ in shape"):
        difference_bound(f, Network.random((3, 4, 2), seed=0), Box.everywhere(3))


def test_what_cannot_be_bounded_is_infinite_and_not_zero():
    pairs = [([[1.0], [1.0]], [0.0, 0.0]), ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])]
    f = Network.from_arrays(*pairs, activation="square")
    g = Network.from_arrays(([[1.5], [1.0]], [0.0, 0.0]), pairs[1], activation="square")
    assert difference_bound(f, g, Box.everywhere(1))[1] == np.inf


def test_a_difference_that_underflows_still_counts():
    pairs = [([[1e300]], [0.0]), ([[1e300]], [0.0])]
    f, g = (Network.from_arrays(([[w]], [0.0]), *pairs, activation="relu") for w in (1e-200, 2e-200))
    constant, _ = difference_bound(f, g, Box(np.array([0.0]), np.array([1e-200])))
    assert constant >= 9e199


def test_neurons_dead_in_both_do_not_count():
    one = [[1.0]], [0.0]
    f, g = (Network.from_arrays(one, ([[w]], [0.0]), one, activation="relu") for w in (-1.0, -2.0))
    assert difference_bound(f, g, Box.everywhere(1)) == (0.0, 0.0)


def test_bounded_outputs_are_no_further_apart_than_their_range():
    f, g = (Network.from_arrays(([[w]], [0.0]), ([[2.0]], [0.0]), activation="tanh") for w in (-50.0, 50.0))
    constant, slope = difference_bound(f, g, Box.parse("[-9,9]", 1))
    assert constant == pytest.approx(4.0, rel=1e-6) and slope == 0


@given(
    seed=st.integers(0, 10**6), reach=st.sampled_from([30, 150]), thirds=st.booleans(),
    scale=st.sampled_from([1e-3, 1e200]),
)  # fmt: skip
@settings(max_examples=40)
def test_difference_bound_holds_at_extreme_magnitudes(seed, reach, thirds, scale):
    rng = np.random.default_rng(seed)
    share = Fraction(1, 3) if thirds else Fraction(1)
    pairs = [[wild(rng, (2, 2), reach), wild(rng, 2, reach)] for _ in range(3)]
    exact = np.vectorize(lambda v: Fraction(v) * share, otypes=[object])
    f = Network.from_arrays(*[(exact(w), exact(b)) for w, b in pairs])
    pairs[seed % 3][seed % 2] = pairs[seed % 3][seed % 2] * (1 + rng.standard_normal())
    g = Network.from_arrays(*[(exact(w), exact(b)) for w, b in pairs])
    box = Box(np.array([-scale, 0.0]), np.array([scale, np.inf]))
    constant, slope = difference_bound(f, g, box)
    if np.inf in (constant, slope):
        return
    for x in ([scale, 0.0], [-scale, 1e200], [0.5 * scale, 1e-200], [0.0, 1.0]):
        gap = max(abs(a - b) for a, b in zip(f.exact(x), g.exact(x), strict=True))
        assert gap <= Fraction(constant) + Fraction(slope) * max(abs(Fraction(v)) for v in x)


def test_an_infinite_difference_is_not_zero():
    pairs = lambda w: (([[w]], [0.3]), ([[1.0], [0.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))  # noqa: E731
    f, g = (Network.from_arrays(*pairs(w), activation="square") for w in (1.1, 1.2))
    constant, slope = difference_bound(f, g, Box.everywhere(1))
    assert constant == np.inf or slope == np.inf
    assert np.isfinite(difference_bound(f, g, Box.parse("[-1,1]", 1))).all()
    chain = [([[1e200]], [0.0])] * 3
    f, g = Network.from_arrays(*chain), Network.from_arrays(*chain[:2], ([[1.1e200]], [0.0]))
    assert difference_bound(f, g, Box.parse("[-1,1]", 1))[0] == np.inf


def test_overflow_that_cancels_is_unbounded_and_not_nan():
    net = Network.from_arrays(([[1e308, -1e308]], [0.0]), ([[1e308]], [0.0]))
    for low, high in net.enclose(Box.parse("[-1e10,1e10]", 2)):
        assert not np.isnan(low).any() and not np.isnan(high).any()


def test_steep_leaky_units_at_huge_inputs_keep_their_ends():
    # once NaN here was read as 0 and proved a false constant
    net = Network.from_arrays(
        ([[1e308]], [0.0]), ([[1.0]], [-1.0]), ([[1.0]], [0.0]), activation=[activation("leaky_relu", 4), "relu"]
    )
    bounds = preactivation_bounds(net, Box.parse("[-1,1]", 1))
    assert bounds.upper[1][0] >= 1e308
