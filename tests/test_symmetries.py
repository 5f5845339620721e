"""Scaling rank, fiber dimension and quotients, against Jacobian ranks over Q and closed forms."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.network import Network
from fiberscope.neurons import colour_classes
from fiberscope.symmetries import (
    block_law_count,
    fiber_dimension,
    law_count,
    laws,
    neuron_types,
    quotient,
    scaling_rank,
    symmetries_without_law,
)
from oracles import gradient


def generators(net):
    """The scaling generators of all homogeneous neurons as rows of a matrix over theta."""
    rows = []
    for k, layer in enumerate(net.hidden):
        for i in range(layer.n_out):
            parts = []
            for at, other in enumerate(net.layers):
                weight, bias = np.zeros(other.weight.shape), np.zeros(other.bias.shape)
                if at == k:
                    weight[i], bias[i] = other.weight[i], other.bias[i]
                if at == k + 1:
                    weight[:, i] = -np.asarray(other.weight[:, i], float)
                parts += [weight.reshape(-1), bias]
            rows.append(np.concatenate(parts))
    return rationals.exact_array(np.array(rows))


@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.2, 0.4, 1.0]))
@settings(max_examples=60)
def test_scaling_rank_is_the_rank_of_the_generators(seed, density):
    rng = np.random.default_rng(seed)
    pairs = []
    for n_in, n_out in ((2, 3), (3, 3), (3, 1)):
        weight = rng.integers(1, 5, (n_out, n_in)) * (rng.random((n_out, n_in)) < density)
        pairs.append(
            (weight.astype(float), (rng.integers(1, 3, n_out) * (rng.random(n_out) < density / 2)).astype(float))
        )
    net = Network.from_arrays(*pairs, activation="relu")
    assert scaling_rank(net) == rationals.rank(generators(net))


def test_scaling_rank_of_a_floating_component():
    # a hidden-hidden weight with nothing else: one generator for two neurons
    net = Network.from_arrays(([[0.0]], [0.0]), ([[1.0]], [0.0]), ([[0.0]], [0.0]), activation="relu")
    assert scaling_rank(net) == 1
    assert scaling_rank(Network.random((2, 5, 5, 1), activation="tanh", seed=0)) == 0


def jacobian_nullity(net, rng, count):
    """M - rank of d f / d theta over many inputs: floats, with the gap checked."""
    rows = []
    for scale in (0.3, 1.0, 4.0, 20.0):
        for x in scale * rng.standard_normal((count, net.widths[0])):
            for c in np.eye(net.widths[-1]):
                parts = gradient(net, x, c, lambda row, z: row.derivative(z))
                row = np.concatenate([v.reshape(-1) for part in parts for v in part])
                rows.append(row / max(np.linalg.norm(row), 1e-12))
    values = np.linalg.svd(np.array(rows), compute_uv=False)
    rank = int((values > 1e-9 * values[0]).sum())
    assert rank == len(values) or values[rank] < 1e-3 * values[rank - 1]
    return net.parameter_count - rank


@pytest.mark.parametrize("regime", ["generic", "active", "dead", "hidden"])
@pytest.mark.parametrize("widths", [(2, 2, 3, 1), (3, 2, 4, 2), (3, 3, 3, 1)])
def test_fiber_dimension_is_the_nullity_of_the_jacobian(regime, widths):
    rng = np.random.default_rng(sum(widths) + len(regime))
    first = np.linalg.qr(rng.standard_normal((widths[0], widths[0])))[0][: widths[1]]
    second = rng.uniform(0.3, 1.0, (widths[2], widths[1])) * rng.choice([-1, 1], (widths[2], widths[1]))
    bias = rng.uniform(0.2, 0.6, widths[2]) * rng.choice([-1, 1], widths[2])
    second[0, 0], second[0, 1] = 0.7, -0.6
    if regime == "active":
        second[1:], bias[1:] = np.abs(second[1:]), np.abs(bias[1:])
    if regime == "dead":
        second[1], bias[1] = -np.abs(second[1]), -abs(bias[1])
    if regime == "hidden":
        second, bias = -np.abs(second), -np.abs(bias)
        second[:, 0] = np.abs(second[:, 0])
    net = Network.from_arrays(
        (first, 0.3 * rng.standard_normal(widths[1])), (second, bias),
        (rng.uniform(0.4, 1.0, (widths[3], widths[2])), np.zeros(widths[3])), activation="relu",
    )  # fmt: skip
    found = fiber_dimension(net)
    assert found.exact is not None and all(h.holds for h in found.hypotheses if h.checked)
    assert found.exact == jacobian_nullity(net, rng, 800)
    assert found.lower_bound <= found.exact


def test_fiber_dimension_names_the_failing_hypothesis():
    found = fiber_dimension(Network.random((2, 4, 3, 1), activation="relu", seed=0))
    assert found.exact is None
    assert any("n1 <= n0 (found 4 and 2)" in h.statement and h.holds is False for h in found.hypotheses)
    net = Network.random((3, 2, 3, 1), activation="relu", seed=0)
    weight = np.array(net.layers[1].weight)
    weight[1] = -2 * weight[0]
    bias = np.array(net.layers[1].bias)
    bias[1] = -2 * bias[0]
    twin = Network.from_arrays(
        (net.layers[0].weight, net.layers[0].bias), (weight, bias), (net.layers[2].weight, [0.0])
    )
    assert any("one hyperplane" in h.statement and h.holds is False for h in fiber_dimension(twin).hypotheses)


def test_tanh_fiber_is_discrete_only_when_irreducible():
    assert fiber_dimension(Network.random((2, 3, 1), activation="tanh", seed=0)).exact == 0
    net = Network.from_arrays(([[1.0], [-1.0]], [0.5, -0.5]), ([[1.0, 1.0]], [0]), activation="tanh")
    found = fiber_dimension(net)
    assert found.exact is None and found.hypotheses[0].holds is False


def test_neuron_types_on_the_boundary():
    types = neuron_types(np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 1.0, 0.0, -1.0]))
    assert types.dead == (0,) and types.active == (1, 2) and types.split == (3,)


@pytest.mark.parametrize("name", ["softplus", "tanh", "relu", "gaussian"])
def test_quotient_computes_the_same_function(name):
    rng = np.random.default_rng(0)
    e = {"softplus": [1, 1, 1, 1], "tanh": [1, -1, 1, -1], "relu": [1, 2, 0.5, 4], "gaussian": [1, -1, 1, -1]}[name]
    e = np.array(e, float)
    out = np.abs(e) if name == "gaussian" else e
    net = Network.from_arrays(
        (np.outer(e, [1.0, -2.0]), 0.5 * e),
        (np.outer(e, out) / 4, 0.25 * e),
        (out[None, :] * 0.5, [1.0]),
        activation=name,
    )
    small = quotient(net, colour_classes(net))
    assert small.widths == (2, 1, 1, 1)
    x = rng.standard_normal((20, 2))
    np.testing.assert_allclose(small(x), net(x), rtol=1e-12, atol=1e-12)


def test_quotient_refuses_a_wrong_number_of_partitions():
    with pytest.raises(InputError, match="0 partitions for 1"):
        quotient(Network.random((2, 3, 1), seed=0), [])


def test_rational_quotient_is_exact():
    net = Network.from_arrays(([[1], [1]], [0, 0]), ([[Fraction(1, 3), Fraction(1, 3)]], [0]), activation="softplus")
    assert quotient(net, colour_classes(net)).layers[1].weight[0, 0] == Fraction(2, 3)


def test_last_activation_is_a_hypothesis():
    net = Network.from_arrays(([[1.0], [2.0]], [0.1, 0.2]), ([[1.0, 1.0]], [-5.0]), activation=["tanh", "relu"])
    found = fiber_dimension(net)
    assert found.exact is None and any(
        "no activation (found relu)" in h.statement and not h.holds for h in found.hypotheses
    )


def test_degree_two_scalings_count():
    assert scaling_rank(Network.random((2, 3, 1), activation="square", seed=0)) == 3


def test_partitions_that_do_not_fit_are_refused():
    net = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError, match="layer 1 has 3 neurons; its partition has 4 labels"):
        quotient(net, colour_classes(Network.random((2, 4, 1), seed=0)))
    for wrong in (None, [[0, 0, 0]]):
        with pytest.raises(InputError, match="no sequence of Classes"):
            quotient(net, wrong)


@pytest.mark.parametrize("ask", [fiber_dimension, law_count, laws, symmetries_without_law, colour_classes])
def test_what_is_no_network_is_refused(ask):
    with pytest.raises(InputError, match="no Network"):
        ask("a.onnx")


def test_dimension_and_count_are_results():
    tanh, relu = Network.random((2, 3, 1), activation="tanh", seed=0), Network.random((2, 3, 1), seed=0)
    assert str(fiber_dimension(tanh)).endswith("exactly 0 (EXACT): 0: permutations and signs only")
    affine = fiber_dimension(Network.random((3, 2), seed=0))
    assert (affine.lower_bound, affine.exact, affine.rigor.name, affine.theorems) == (0, 0, "EXACT", ())
    bent = Network.from_arrays(([[1.0]], [-9.0]), activation=["relu"])
    assert fiber_dimension(bent).exact is None  # the function is 0 on much of the line
    assert "at least 3 (EXACT); no theorem gives the value, fails: three affine layers" in str(fiber_dimension(relu))
    assert json.loads(fiber_dimension(tanh).to_json())["exact"] == 0
    assert "is not known; fails: three affine layers with ReLU" in str(law_count(relu))
    rows = ([[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0]), ([[1.0, 2.0], [3.0, -1.0]], [1.0, 1.0]), ([[1.0, 1.0]], [0.0])
    assert str(law_count(Network.from_arrays(*rows))).startswith("4 independent conservation laws")
    with pytest.raises(InputError, match="active: -1"):
        block_law_count(-1, 2)
