"""Alignment: recovers planted permutations, scalings and signs; every rewriting is the same function exactly."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.fibers.alignment import Move, align, moved
from fiberscope.network import Network


def scrambled(net, seed, *, powers=True, signs=False):
    """The same function with neurons permuted and rescaled (or with flipped signs); also the permutations used."""
    rng = np.random.default_rng(seed)
    moves = []
    for k, layer in enumerate(net.hidden):
        order = rng.permutation(layer.n_out)
        if signs:
            factors = [Fraction(int(v)) for v in rng.choice([-1, 1], layer.n_out)]
        elif powers:
            factors = [Fraction(2) ** int(v) for v in rng.integers(-3, 4, layer.n_out)]
        else:
            factors = [Fraction(int(v), 7) for v in rng.integers(1, 30, layer.n_out)]
        moves.append(Move(k, tuple(order.tolist()), tuple(factors)))
    return moved(net, moves), moves


@pytest.mark.parametrize("widths", [(3, 8, 2), (5, 20, 20, 20, 3), (30, 40, 25, 10), (2, 1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_powers_of_two_come_back_to_the_same_weights(widths, seed):
    net = Network.random(widths, seed=seed)
    other, planted = scrambled(net, seed)
    done = align(net, other)
    assert done.network.same_as(net)
    assert max(done.after) == 0 and (max(done.before) > 0 or other.same_as(net))
    for move, back in zip(planted, done.moves, strict=True):  # each undoes the other
        assert [move.permutation[i] for i in back.permutation] == list(range(len(move.permutation)))
        assert all(move.factors[i] * q == 1 for i, q in zip(back.permutation, back.factors, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_signs_of_odd_activations_come_back(seed):
    net = Network.random((4, 12, 9, 2), activation="tanh", seed=seed)
    other, _ = scrambled(net, seed, signs=True)
    done = align(net, other)
    assert done.network.same_as(net)
    assert {q for move in done.moves for q in move.factors} == {Fraction(1), Fraction(-1)}


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs", "tanh", "sigmoid", "hard_tanh", "square"])
@given(seed=st.integers(0, 10**6), near=st.booleans())
@settings(max_examples=10)
def test_every_rewriting_is_exactly_the_same_function(activation, seed, near):
    rng = np.random.default_rng(seed)
    widths = (2, *(int(v) for v in rng.integers(1, 5, int(rng.integers(1, 4)))), 2)
    f = Network.random(widths, activation=activation, seed=seed)
    g = Network.random(widths, activation=activation, seed=seed + 1)
    if near:
        g = f.with_theta(np.asarray(f.theta) * (1 + 0.01 * rng.standard_normal(f.parameter_count)))
    done = align(f, g)
    assert done.network.widths == g.widths
    if activation in ("tanh", "sigmoid"):
        for layer, row in zip(done.network.layers, g.layers, strict=True):  # no scaling: entries only move
            assert sorted(np.abs(layer.weight).ravel().tolist()) == sorted(np.abs(row.weight).ravel().tolist())
        return
    for x in rng.standard_normal((3, 2)).tolist():
        assert done.network.exact(x) == g.exact(x)


@pytest.mark.parametrize("noise", [1e-8, 1e-3, 3e-2])
def test_noise_and_generic_factors_are_matched_and_shrink_the_distance(noise):
    rng = np.random.default_rng(5)
    f = Network.random((5, 50, 50, 50, 5), seed=3)
    near = f.with_theta(np.asarray(f.theta) * (1 + noise * rng.standard_normal(f.parameter_count)))
    g, planted = scrambled(near, 4, powers=False)
    done = align(f, g)
    for move, back in zip(planted, done.moves, strict=True):
        assert [move.permutation[i] for i in back.permutation] == list(range(50))
    assert max(done.after) < 3 * noise + 1e-12 < min(done.before)
    assert done.rounds <= 3


def test_outgoing_weights_tell_equal_rows_apart():
    f = Network.from_arrays(([[1.0], [1.0], [-1.0]], None), ([[1.0, 5.0, 2.0], [2.0, -1.0, 0.0]], None))
    g = Network.from_arrays(([[1.0], [-1.0], [1.0]], None), ([[5.0, 2.0, 1.0], [-1.0, 0.0, 2.0]], None))
    assert align(f, g).network.same_as(f)


def test_rows_are_compared_in_units_of_the_domain():
    # in raw units the first input drowns the second one
    f = Network.from_arrays(([[1e-3, 1.0], [1e-3, -1.0]], None), ([[1.0, 2.0]], None))
    box = Box(np.array([0.0, -1e-6]), np.array([1e3, 1e-6]))
    order = moved(f, [Move(0, (1, 0), (Fraction(1), Fraction(1)))])
    assert align(f, order, domain=box, rounds=1).network.same_as(f)


def test_dead_and_zero_neurons_do_not_disturb():
    weight, bias = np.array([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]), np.array([0.5, 0.0, 3.0])
    f = Network.from_arrays((weight, bias), ([[1.0, 7.0, 2.0]], [0.0]))
    g, _ = scrambled(f, 0)
    assert align(f, g).network.same_as(f)


def test_what_does_not_fit_is_refused():
    f = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError, match=r"\(2, 4, 1\)"):
        align(f, Network.random((2, 4, 1), seed=0))
    with pytest.raises(InputError, match=r"layer 1 has activation relu in one network and tanh"):
        align(f, Network.random((2, 3, 1), activation="tanh", seed=0))
    with pytest.raises(InputError, match="rounds: 0"):
        align(f, f, rounds=0)
    with pytest.raises(InputError, match="3 inputs"):
        align(f, f, domain=Box.everywhere(3))


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (Move(1, (0,), (Fraction(1),)), "hidden layers 0 to 0"),
        (Move(0, (0, 0, 1), (Fraction(1),) * 3), "no permutation"),
        (Move(0, (0, 1, 2), (Fraction(1),) * 2), "no permutation"),
        (Move(0, (0, 1, 2), (Fraction(1), Fraction(-1), Fraction(1))), "factor -1"),
        (Move(0, (0, 1, 2), (Fraction(1), Fraction(0), Fraction(1))), "factor 0"),
    ],
)
def test_moves_that_change_the_function_are_refused(move, message):
    with pytest.raises(InputError, match=message):
        moved(Network.random((2, 3, 1), seed=0), [move])


@pytest.mark.parametrize(
    ("name", "factor"), [("tanh", Fraction(2)), ("sigmoid", Fraction(-1)), ("square", Fraction(2))]
)
def test_each_activation_forgives_its_own_factors_only(name, factor):
    net = Network.random((1, 1, 1), activation=name, seed=0)
    with pytest.raises(InputError, match="forgive"):
        moved(net, [Move(0, (0,), (factor,))])


def test_the_report_is_short_and_the_data_complete():
    f = Network.random((3, *[4] * 30, 2), seed=0)
    g, _ = scrambled(f, 1)
    done = align(f, g)
    assert len(str(done).splitlines()) <= 25
    data = done.to_dict()
    assert len(data["moves"]) == 30 and data["rigor"] == "EXACT"
    assert data["moves"][0]["permutation"] == list(done.moves[0].permutation)


def test_heads_and_layer_names_stay():
    f = Network.random((3, 4, 2), seed=0)
    g = replace(scrambled(f, 1)[0], head="softmax")
    out = align(f, g).network
    assert out.head == "softmax" and [a.name for a in out.layers] == ["layer 1", "layer 2"]


def test_domains_may_be_text_and_rounds_are_whole_numbers():
    f, g = Network.random((2, 4, 1), seed=0), Network.random((2, 4, 1), seed=1)
    box = Box.parse("[0,2]", 2)
    assert align(f, g, domain="[0,2]").moves == align(f, g, domain=box).moves
    for wrong in (0, -1, 1.5, "2", True, None):
        with pytest.raises(InputError, match="rounds"):
            align(f, g, rounds=wrong)
    with pytest.raises(InputError, match="domain"):
        align(f, g, domain="somewhere")
