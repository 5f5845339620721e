"""Enclosures: sound at exact points, tight where a closed form is known, differences of networks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.bounds import difference_bound, preactivation_bounds, unstable
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
