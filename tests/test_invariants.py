"""Smallest invariant manifolds: dimensions from the theory, training that stays on them, lattices counted by hand."""

import numpy as np
import pytest

from fiberscope.errors import ScopeError
from fiberscope.invariants import smallest_sim
from fiberscope.invariants.manifolds.lattice import two_layer_lattice
from fiberscope.network import Layer, Network
from fiberscope.symmetries import quotient
from oracles import gradient, set_partitions, signed_partitions


def train(net, steps, rate, rng):
    """Gradient descent on a fixed random regression task."""
    x, y = rng.standard_normal((8, net.widths[0])), rng.standard_normal((8, net.widths[-1]))
    losses = []
    for _ in range(steps):
        total = [(np.zeros(layer.weight.shape), np.zeros(layer.bias.shape)) for layer in net.layers]
        residual = net(x) - y
        losses.append(float((residual**2).sum()))
        for point, r in zip(x, residual, strict=True):
            for (a, b), (w, v) in zip(
                total, gradient(net, point, 2 * r, lambda row, z: row.derivative(z)), strict=True
            ):
                a += w
                b += v
        theta = np.concatenate([np.concatenate([a.reshape(-1), b]) for a, b in total])
        net = net.with_theta(np.asarray(net.theta, float) - rate * theta)
    return net, losses


def test_all_equal_deep_network_from_the_theory_note():
    # one class per layer, 1-3-3-1: dimension 5 of 21 (generic activation)
    square = [[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]
    net = Network.from_arrays(
        ([[1.0]] * 3, [0.5] * 3), (square, [0.25] * 3), ([[2.0] * 3], [0.0]), activation="softplus"
    )
    sim = smallest_sim(net)
    # the note counts the output bias out: 5 = 1 + 1 + 1 + 2 biases; here it is a parameter too
    assert (sim.dimension, sim.ambient) == (6, 22)
    assert sim.linear_dimension == 6 + 4
    assert sim.reduced_widths == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("weight", "out", "dimension"),
    [
        ([[1.0, 2.0], [3.0, 1.0], [0.5, 0.5], [1.0, -1.0]], [[1.0, 2, 3, 4]], 17),
        ([[1.0, 2.0], [1.0, 2.0], [0.5, 0.5], [1.0, -1.0]], [[2.0, 2, 3, 4]], 13),
        ([[1.0, 2.0], [-1.0, -2.0], [0.5, 0.5], [1.0, -1.0]], [[2.0, -2, 3, 4]], 13),
        ([[0.0, 0.0], [1.0, 2.0], [0.5, 0.5], [1.0, -1.0]], [[0.0, 2, 3, 4]], 13),
        ([[1.0, 2.0], [1.0, 2.0], [0.5, 0.5], [0.5, 0.5]], [[2.0, 2, 3, 3]], 9),
        ([[1.0, 2.0]] * 4, [[2.0] * 4], 5),
        ([[1.0, 2.0], [1.0, 2.0], [0.5, 0.5], [1.0, -1.0]], [[2.0, 4, 3, 4]], 17),
        ([[0.0, 0.0], [1.0, 2.0], [0.5, 0.5], [1.0, -1.0]], [[1.0, 2, 3, 4]], 17),
    ],
)
def test_two_layer_tanh_dimensions(weight, out, dimension):
    """D K + 1 with D = 4 parameters per neuron: null, equal, equal up to sign, and look-alikes that are none."""
    bias = np.zeros(4)
    sim = smallest_sim(Network.from_arrays((weight, bias), (out, [0.0]), activation="tanh"))
    assert sim.dimension == dimension and sim.complete


@pytest.mark.parametrize("name", ["tanh", "softplus", "gelu"])
def test_training_never_leaves_and_follows_the_reduced_network(name):
    rng = np.random.default_rng(4)
    e = np.array([1.0, -1.0, 1.0]) if name == "tanh" else np.ones(3)
    net = Network.from_arrays(
        (np.outer(e, [0.5, -0.25]), 0.25 * e),
        (np.outer(e, e) * 0.25, 0.125 * e),
        (0.5 * e[None, :], [0.0]),
        activation=name,
    )
    sim = smallest_sim(net)
    assert sim.reduced_widths == (2, 1, 1, 1)
    moved, _ = train(net, 20, 0.02, rng)
    assert np.abs(np.asarray(moved.theta, float) - np.asarray(net.theta, float)).max() > 1e-2
    for layer in moved.layers[:2]:
        assert np.abs(layer.weight64 - np.outer(e, e @ layer.weight64) / 3).max() < 1e-12
    small = quotient(moved, sim.partition)
    x = rng.standard_normal((5, 2))
    np.testing.assert_allclose(small(x), moved(x), atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_lattice_counts_by_enumeration(m):
    plain = two_layer_lattice(m, 3, 1, signs=False, null=False)
    assert sum(t.count for t in plain.types) == sum(1 for _ in set_partitions(list(range(m))))
    signed = two_layer_lattice(m, 3, 1, signs=True, null=True)
    listed = list(signed_partitions(m))
    assert sum(t.count for t in signed.types) == len(listed) == [2, 6, 24, 116][m - 1]
    for t in signed.types:
        same = [1 for zero, blocks, _ in listed if len(zero) == t.null and sorted(map(len, blocks)) == sorted(t.sizes)]
        assert len(same) == t.count
    null = two_layer_lattice(m, 3, 1, signs=False, null=True)
    assert sum(t.count for t in null.types) == [2, 5, 15, 52][m - 1]


def test_lattice_edges_lower_the_dimension_by_one_class():
    lattice = two_layer_lattice(4, 5, 2, signs=True, null=True)
    assert lattice.types[0].sizes == (1, 1, 1, 1) and lattice.types[-1].null == 4
    for a, b in lattice.edges:
        assert lattice.types[a].dimension - lattice.types[b].dimension == 5
    reached = {b for _, b in lattice.edges}
    assert reached == set(range(1, len(lattice.types)))


def test_lattice_marks_the_network():
    net = Network.from_arrays(([[1.0], [-1.0], [0.0]], [0, 0, 0]), ([[1.0, -1.0, 0.0]], [0]), activation="tanh")
    sim = smallest_sim(net)
    here = sim.lattice.types[sim.here]
    assert (here.sizes, here.null, here.dimension) == ((2,), 1, sim.dimension)


def test_folded_layers_are_refused():
    net = Network.random((2, 3, 1), seed=0)
    first = net.layers[0]
    folded = Network(
        (Layer(first.weight, first.bias, first.activation, name="conv", folded=("Conv unrolled",)), net.layers[1])
    )
    with pytest.raises(ScopeError, match="conv: Conv unrolled"):
        smallest_sim(folded)


def test_incomplete_lists_say_so():
    for name in ("relu", "gelu", "gaussian"):
        sim = smallest_sim(Network.random((2, 3, 1), activation=name, seed=0))
        assert not sim.complete and "not excluded" in str(sim)
    assert not smallest_sim(Network.random((2, 3, 3, 1), activation="tanh", seed=0)).complete
