"""Walks in a fiber: every move keeps the function exactly; relatives too; near misses change one number."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.relatives import (
    add_constant,
    add_dead,
    add_unread,
    near_miss,
    split_neuron,
    transfer_kink,
    typed_network,
)
from fiberscope.fibers.walks import MOVES, random_walk
from fiberscope.network import Network
from fiberscope.symmetries import neuron_types

CASES = {
    "generic": ((2, 2, 3, 1), "SSS", None),
    "wide input": ((4, 3, 4, 2), "SSSS", None),
    "hidden": ((3, 3, 4, 2), "SSSD", 1),
    "hidden alone": ((3, 3, 2, 1), "SD", 0),
    "block": ((3, 2, 4, 1), "SAAS", None),
    "big block": ((2, 2, 5, 2), "AAASD", None),
    "dead": ((2, 2, 3, 2), "DDD", None),
    "narrow": ((5, 1, 4, 2), "SASD", None),
}


def points(net, rng, count):
    """Rational points at several scales, some of them on and right beside first-layer kinks of the network."""
    n0 = net.widths[0]
    out = []
    for k in range(count):
        x = [Fraction(int(v), 8) * 4 ** (k % 4 - 1) for v in rng.integers(-64, 65, n0)]
        if k % 2:
            layer = net.layers[0]
            i = int(rng.integers(layer.n_out))
            w, b = rationals.fractions(layer.weight[i]), rationals.as_fraction(layer.bias[i])
            at = next((m for m, v in enumerate(w) if v), None)
            if at is not None:
                x[at] -= (sum(a * v for a, v in zip(w, x, strict=True)) + b) / w[at]  # now on the kink
                x[at] += (k % 3 - 1) * Fraction(1, 2**30)
        out.append(x)
    return out


def assert_same(f, g, rng, count=24):
    for x in points(f, rng, count // 2) + points(g, rng, count // 2):
        assert f.exact(x) == g.exact(x), (f.layers, g.layers, x)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dyadic", [False, True])
def test_walks_keep_the_function(case, dyadic):
    widths, types, hidden = CASES[case]
    rng = np.random.default_rng(len(case))
    used = set()
    for seed in range(6):
        net = typed_network(widths, types, hidden=hidden, seed=seed)
        other, moves = random_walk(net, 15, seed, dyadic=dyadic)
        used |= {move["move"] for move in moves}
        assert other.widths == net.widths
        assert len(moves) == 15 and not other.same_as(net)
        assert_same(net, other, rng, 16)
        if dyadic:
            assert all(q.denominator & (q.denominator - 1) == 0 for q in rationals.fractions(other.theta))
    expected = {"permute", "scale"} if widths[1] > 1 else {"scale"}
    expected |= {"shift"} if hidden is not None else set()
    expected |= {"turn"} if case == "hidden alone" and not dyadic else set()
    expected |= {"rebias"} if "A" in types else set()
    expected |= {"exchange"} if types.count("A") > 1 else set()
    expected |= {"renew"} if "D" in types else set()
    assert expected <= used


@pytest.mark.parametrize("move", list(MOVES))
def test_each_move_alone(move):
    """Each move, alone, on a network that allows it, keeps the function and changes the parameter."""
    widths, types, hidden = {
        "shift": CASES["hidden"], "turn": CASES["hidden alone"], "renew": CASES["hidden"], "revive": CASES["hidden"],
    }.get(move, CASES["block"])  # fmt: skip
    rng = np.random.default_rng(0)
    made = 0
    for seed in range(12):
        net = typed_network(widths, types, hidden=hidden, seed=seed)
        other, moves = random_walk(net, 3, seed, moves=[move])
        made += len(moves)
        assert {m["move"] for m in moves} <= {move}
        assert_same(net, other, rng, 12)
        if moves and move != "permute" and len(moves) % 2:
            assert not other.same_as(net)
    assert made >= 5


def test_flips_are_paid_by_several_neurons_of_the_block():
    """With two outputs one always-active neuron cannot pay alone: v is a combination of two columns."""
    net = Network.from_arrays(
        ([[1, 0], [0, 1]], [0, 0]),
        ([[1, -1], [8, 8], [8, 8]], [-1, 1, 1]),
        ([[1, 1, 0], [2, 0, 1]], [0, 0]),
    )
    other, moves = random_walk(net, 1, 0, moves=["flip"])
    assert moves[0]["shares"] == {"1": "1", "2": "2"}
    assert other.layers[1].weight.tolist() == [[-1, 1], [9, 7], [10, 6]]
    assert_same(net, other, np.random.default_rng(0))


@given(seed=st.integers(0, 10**6), types=st.lists(st.sampled_from("SAD"), min_size=1, max_size=4).map("".join))
@settings(max_examples=25, deadline=None)
def test_walks_of_random_types(seed, types):
    net = typed_network((3, 2, len(types), 2), types, seed=seed)
    other, _ = random_walk(net, 8, seed)
    assert_same(net, other, np.random.default_rng(seed), 8)
    again, _ = random_walk(net, 8, seed)
    assert again.same_as(other)
    later, _ = random_walk(other, 8, seed + 1, moves=list(MOVES))
    assert_same(net, later, np.random.default_rng(seed), 8)


def test_other_chains_are_permuted_scaled_and_signed():
    rng = np.random.default_rng(0)
    for activation, widths in (("relu", (2, 4, 3, 3, 2)), ("relu", (2, 4, 3, 1)), ("leaky_relu", (3, 3, 1)),
                               ("abs", (2, 3, 2))):  # fmt: skip
        net = Network.random(widths, activation=activation, seed=1)
        other, moves = random_walk(net, 6, 0)
        assert {m["move"] for m in moves} == {"permute", "scale"} and not other.same_as(net)
        assert_same(net, other, rng, 8)
    tanh = Network.random((2, 4, 1), activation="tanh", seed=1)
    other, moves = random_walk(tanh, 6, 0)
    assert len(moves) == 6 and not other.same_as(tanh)
    x = rng.standard_normal((50, 2))
    assert np.allclose(tanh(x), other(x), rtol=1e-13, atol=1e-13)
    sigmoid, moves = random_walk(Network.random((2, 4, 1), activation="sigmoid", seed=1), 6, 0)
    assert {m["move"] for m in moves} == {"permute"}
    assert not random_walk(Network.from_arrays(([[1.0]], [0.0])), 5, 0)[1]  # no hidden layer: nothing moves


def test_large_networks_stay_in_floats():
    net = Network.random((200, 150, 100, 10), seed=0, dtype=np.float32)
    other, _ = random_walk(net, 4, 0, dyadic=True)
    assert not any(rationals.is_rational(layer.weight) for layer in other.layers)
    x = np.random.default_rng(0).integers(-3, 4, 200)
    assert net.exact(x) == other.exact(x)


def test_all_moves_at_any_widths():
    """The moves above the first layer are identities on y >= 0, so they hold without a bottleneck too."""
    rng = np.random.default_rng(3)
    for seed in range(10):
        top = typed_network((3, 3, 4, 2), "SAAD", seed=seed)
        wide = Network.from_arrays(
            (rng.integers(-3, 4, (3, 2)), rng.integers(-3, 4, 3)),
            *((layer.weight, layer.bias) for layer in top.layers),
        )
        other, _ = random_walk(wide, 10, seed, moves=list(MOVES))
        assert_same(wide, other, rng, 12)


def test_wider_relatives_keep_the_function():
    rng = np.random.default_rng(5)
    for seed in range(8):
        net = typed_network((3, 2, 3, 2), "SAD", seed=seed)
        for layer in (0, 1):
            assert_same(net, split_neuron(net, layer, 1, share=Fraction(1, 3)), rng, 8)
            assert_same(net, add_unread(net, layer, seed), rng, 8)
            assert_same(net, add_constant(net, layer, seed), rng, 8)
        dead = add_dead(net, 1, seed)
        assert neuron_types(dead.layers[1].weight, dead.layers[1].bias).dead == (2, 3)
        assert_same(net, dead, rng, 8)
        plain = typed_network((3, 2, 3, 2), "AAD", seed=seed)
        moved = transfer_kink(plain, seed % 2, Fraction(3, 2))
        assert moved.widths == (3, 2, 4, 2) and moved.layers[0].bias[seed % 2] == plain.layers[0].bias[seed % 2] + 1.5
        assert_same(plain, moved, rng, 16)


def test_near_misses_change_one_number():
    net = typed_network((3, 2, 3, 2), "SAD", seed=0)
    exact = Network.from_arrays(*((rationals.fractions(la.weight) / 3, la.bias) for la in net.layers))
    single = Network.random((3, 4, 2), seed=0, dtype=np.float32)
    for seed in range(20):
        for source in (net, exact, single):
            for kind in ("ulp", "sign", "bias"):
                other, change = near_miss(source, kind, seed)
                before, after = rationals.fractions(source.theta), rationals.fractions(other.theta)
                (place,) = np.flatnonzero(before != after)
                assert (before[place], after[place]) == (change["before"], change["after"])
                if kind == "sign":
                    assert after[place] == -before[place]
                else:
                    assert 0 < abs(after[place] - before[place]) <= abs(before[place]) / 2**9
    other, change = near_miss(single, "ulp", 3)
    assert {layer.weight.dtype.name for layer in other.layers} == {"float32"}
    assert abs(np.float32(change["after"]) - np.float32(change["before"])) <= np.spacing(
        np.abs(np.float32(change["before"]))
    )


def test_requests_without_meaning_are_refused():
    net = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError, match="unknown move 'jump'"):
        random_walk(net, 1, moves=["jump"])
    with pytest.raises(ScopeError, match="two hidden ReLU layers"):
        random_walk(net, 1, moves=["shift"])
    with pytest.raises(ScopeError, match="two ReLU layers"):
        add_dead(net, 0)
    with pytest.raises(ScopeError, match="needs a ReLU layer"):
        add_constant(Network.random((2, 3, 1), activation="tanh", seed=0), 0)
    with pytest.raises(ScopeError, match="read by a split"):
        transfer_kink(typed_network((2, 2, 2, 1), "SA", seed=0), 0)
    with pytest.raises(InputError, match="> 0"):
        transfer_kink(typed_network((2, 2, 2, 1), "AA", seed=0), 0, Fraction(-1))
    with pytest.raises(InputError, match="kind 'big'"):
        near_miss(net, "big")
    with pytest.raises(InputError, match="no such parameter"):
        near_miss(Network.from_arrays(([[0.0]], [0.0])), "sign")
    for bad in (((2, 3, 1, 1), "S", None), ((2, 2, 2, 1), "S", None), ((2, 2, 1, 1), "A", 0)):
        with pytest.raises(InputError, match="n1 <= n0"):
            typed_network(bad[0], bad[1], hidden=bad[2])
