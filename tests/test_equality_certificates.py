"""Certificates of equality: every move keeps the function or is refused; no mutation proves what is false."""

from __future__ import annotations

import copy
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.certificates import check
from fiberscope.certificates.format import Certificate
from fiberscope.certificates.moves import Refusal
from fiberscope.certificates.rearrangements import rearrange, unlike
from fiberscope.certificates.state import State
from fiberscope.domains import Box
from fiberscope.errors import CertificateError
from fiberscope.fibers.equality import certificate, equal
from fiberscope.network import Network
from fiberscope.results import Answer
from oracles_fibers import ARCHITECTURES, KINDS, MODES, Net3, holders, ladder, near_miss, net3, same_values, scrambled

build = Network.from_arrays


def document(f, g, steps=(), back=(), domain=None):
    box = f.domain(domain)
    return {
        "schema": "fiberscope/certificate/1", "kind": "equality", "version": "1",
        "source": {"digest": f.digest, "sha256": None}, "target": {"digest": g.digest, "sha256": None},
        "domain": box.to_dict(), "steps": list(steps), "back": list(back),
    }  # fmt: skip


def state_of(net, domain=None):
    state = State.of(net, net.domain(domain), rearranging=True)
    state.hollow = True
    return state


def moved(net, *steps, domain=None):
    """The state after the moves, each checked in form first."""
    Certificate.from_dict(document(net, net, steps, domain=domain))
    state = state_of(net, domain)
    for step in steps:
        rearrange(state, step)
    return state


def output(state, x):
    """Exact (or, behind tanh-like activations, float) output of a replayed network; loops only."""
    below = y = list(x)
    for k, layer in enumerate(state.layers):
        z = []
        for row, bias in zip(layer.weight.exact().tolist(), layer.bias.exact()[:, 0].tolist(), strict=True):
            z.append(sum((as_number(w) * v for w, v in zip(row, y, strict=True)), as_number(bias)))
        if k == len(state.layers) - 1 and state.skip is not None:
            skip = state.skip.exact().tolist()
            z = [
                v + sum(as_number(w) * q for w, q in zip(row, below, strict=True))
                for v, row in zip(z, skip, strict=True)
            ]
        below, y = y, [apply(layer.activation, v) for v in z]
    return y


def as_number(v):
    return Fraction(v)


def apply(row, v):
    q = row.value(v) if isinstance(v, Fraction) else None
    return float(row(np.array([float(v)]))[0]) if q is None else q


def same(a, b, head=None):
    if head:
        a, b = [v - a[0] for v in a], [v - b[0] for v in b]
    if head == "argmax":  # forgets a positive factor
        a, b = ([v / (max(map(abs, y)) or 1) for v in y] for y in (a, b))
    return all(abs(float(p - q)) < 1e-9 if isinstance(p - q, float) else p == q for p, q in zip(a, b, strict=True))


# ---- one network, one move, the condition that fails

RELU2 = build(([[1, 2], [3, -1]], [1, 2]), ([[5, 7]], [1]))
DEEP = Net3([[1, 0], [0, 1]], [1, 0], [[2, -1], [1, -3]], [-4, -6], [[1, 1]], [0]).network()
"""First-layer neuron 0 is hidden; it may be shifted by up to 4/2 below."""
TANH = build(([[1, 2], [3, -1]], [1, 2]), ([[5, 7]], [1]), activation="tanh")
LINES = Net3([[1, 0], [0, 1]], [1, 0], [[2, 0], [0, 1]], [-4, -6], [[1, 1]], [0]).network()


def refused(net, *steps, domain=None):
    with pytest.raises((Refusal, CertificateError)) as caught:
        moved(net, *steps, domain=domain)
    assert "\n" not in str(caught.value)
    verdict = None
    try:
        verdict = check(document(net, net, steps, steps, domain), net, net)
    except CertificateError:
        return
    assert verdict.answer is Answer.NO


def accepted(net, *steps, domain=None, head=None):
    state = moved(net, *steps, domain=domain)
    box = net.domain(domain)
    rng = np.random.default_rng(0)
    low, high = np.maximum(box.lower, -9), np.minimum(box.upper, 9)
    points = [
        [Fraction(v) for v in x] for x in (low + (high - low) * rng.integers(0, 33, (30, len(low))) / 32).tolist()
    ]
    points += ladder(net, rng, 30) if box.is_everything else []
    before = state_of(net, domain)
    for x in points:
        assert same(output(before, x), output(state, x), head)
    return state


def test_scale():
    accepted(RELU2, {"move": "scale", "layer": 0, "factors": ["2/3", "5"]})
    for factors in (["-1", "1"], ["0", "1"], ["1"], ["1", "1", "1"]):
        refused(RELU2, {"move": "scale", "layer": 0, "factors": factors})
    refused(RELU2, {"move": "scale", "layer": 1, "factors": ["1"]})
    accepted(TANH, {"move": "scale", "layer": 0, "factors": ["-1", "1"]})
    refused(TANH, {"move": "scale", "layer": 0, "factors": ["2", "1"]})
    even = build(([[1, 2], [3, -1]], [1, 2]), ([[5, 7]], [1]), activation="abs")
    accepted(even, {"move": "scale", "layer": 0, "factors": ["-2", "1/2"]})


def test_permute():
    accepted(RELU2, {"move": "permute", "layer": 0, "order": [1, 0]})
    for order in ([0], [0, 0], [1, 2], [0, 1, 2], []):
        refused(RELU2, {"move": "permute", "layer": 0, "order": order})
    refused(RELU2, {"move": "permute", "layer": 1, "order": [0]})


def test_flip():
    state = accepted(RELU2, {"move": "flip", "layer": 0, "neurons": [1]})
    assert state.skip is not None
    accepted(DEEP, {"move": "flip", "layer": 1, "neurons": [0, 1]})
    refused(DEEP, {"move": "flip", "layer": 0, "neurons": [0]})
    refused(RELU2, {"move": "flip", "layer": 0, "neurons": [2]})
    accepted(TANH, {"move": "flip", "layer": 0, "neurons": [0]})
    refused(build(([[1, 2]], [1]), ([[5]], [1]), activation="elu"), {"move": "flip", "layer": 0, "neurons": [0]})
    for name in ("sigmoid", "softplus", "silu", "gelu"):
        accepted(build(([[1, 2]], [1]), ([[5]], [1]), activation=name), {"move": "flip", "layer": 0, "neurons": [0]})


def test_flip_below_a_linear_part_moves_the_last_bias_too():
    f = build(([[1.0]], [0.0]), ([[1.0], [-1.0]], [1.0, 0.5]), ([[1.0, 1.0]], [0.0]), activation=["sigmoid", "relu"])
    steps = [{"move": "absorb", "neurons": [0]}, {"move": "flip", "layer": 0, "neurons": [0]}]
    accepted(f, *steps)
    g = build(([[-1.0]], [0.0]), ([[1.0], [-1.0]], [-0.5, 1.0]), ([[1.0, 1.0]], [0.0]), activation=["sigmoid", "relu"])
    assert check(document(f, g, steps, [{"move": "absorb", "neurons": [1]}]), f, g).answer is Answer.NO  # f - g = 1


def test_absorb():
    net = Net3([[1, 0], [0, 1]], [0, 0], [[1, 2], [-1, -1], [1, -1]], [0, 0, 1], [[1, 2, 3]], [0]).network()
    accepted(net, {"move": "absorb", "neurons": [0, 1]})
    refused(net, {"move": "absorb", "neurons": [2]})
    refused(net, {"move": "absorb", "neurons": [3]})
    refused(RELU2, {"move": "absorb", "neurons": [0]})
    accepted(RELU2, {"move": "absorb", "neurons": [0]}, domain="nonnegative")
    accepted(RELU2, {"move": "absorb", "neurons": [1]}, domain=Box([-0.25, -1], [1, 1.25]))
    refused(RELU2, {"move": "absorb", "neurons": [1]}, domain=Box([-0.25, -1], [1, 1.375]))
    refused(build(([[1, 2]], [1])), {"move": "absorb", "neurons": [0]})
    nearly = build(([[1, 2]], [-(2.0**-1074)]), ([[5]], [1]))
    refused(nearly, {"move": "absorb", "neurons": [0]}, domain="nonnegative")


def test_resolve():
    for name in ("hard_tanh", "abs", "leaky_relu"):
        accepted(build(([[1, 2], [3, -1]], [1, 2]), ([[5, 7]], [1]), activation=name), {"move": "resolve"})
    accepted(RELU2, {"move": "resolve"})
    refused(TANH, {"move": "resolve"})
    refused(build(([[1, 2]], [1])), {"move": "resolve"})


def test_shift():
    for by in ("-2", "-1/3", "0", "5"):
        accepted(DEEP, {"move": "shift", "neuron": 0, "by": by})
    refused(DEEP, {"move": "shift", "neuron": 0, "by": "-2000001/1000000"})
    refused(DEEP, {"move": "shift", "neuron": 1, "by": "1"})
    refused(DEEP, {"move": "shift", "neuron": 2, "by": "1"})
    refused(RELU2, {"move": "shift", "neuron": 0, "by": "1"})
    refused(DEEP, {"move": "flip", "layer": 1, "neurons": [0]}, {"move": "shift", "neuron": 0, "by": "1"})
    for upper, bias in (([[2, 1]], [-4]), ([[2, -1]], [1]), ([[-2, -1]], [-4])):
        refused(
            Net3([[1, 0], [0, 1]], [1, 0], upper, bias, [[1]], [0]).network(), {"move": "shift", "neuron": 0, "by": "1"}
        )
    read = Net3([[1, 0], [0, 1]], [1, 0], [[2, -1], [1, 0]], [-4, 0], [[1, 1]], [0]).network()
    refused(read, {"move": "absorb", "neurons": [1]}, {"move": "shift", "neuron": 0, "by": "1"})
    other = build(([[1, 0], [0, 1]], [1, 0]), ([[2, -1]], [-4]), ([[1]], [0]), activation=["tanh", "relu"])
    refused(other, {"move": "shift", "neuron": 0, "by": "1"})


def test_turn():
    one = Net3([[1, 0], [0, 1]], [1, 0], [[2, -1], [4, -2]], [-4, -6], [[1, 1]], [0]).network()
    accepted(one, {"move": "turn", "neuron": 1, "onto": 0, "ratio": "-1/2"})
    refused(one, {"move": "turn", "neuron": 1, "onto": 0, "ratio": "1/2"})
    refused(one, {"move": "turn", "neuron": 1, "onto": 0, "ratio": "-1/3"})
    refused(one, {"move": "turn", "neuron": 0, "onto": 1, "ratio": "-2"})
    refused(one, {"move": "turn", "neuron": 0, "onto": 0, "ratio": "1"})
    refused(one, {"move": "turn", "neuron": 2, "onto": 0, "ratio": "1"})
    refused(DEEP, {"move": "turn", "neuron": 1, "onto": 0, "ratio": "-1/2"})
    elsewhere = Net3([[1, 0], [0, 1]], [1, 0], [[2, -1], [0, 1]], [-4, -6], [[1, 1]], [0]).network()
    refused(elsewhere, {"move": "turn", "neuron": 1, "onto": 0, "ratio": "-1/2"})
    linear = Net3([[1, 0], [0, 1]], [1, 0], [[2, -1], [0, 1]], [-4, 6], [[1, 1]], [0]).network()
    refused(linear, {"move": "absorb", "neurons": [1]}, {"move": "turn", "neuron": 1, "onto": 0, "ratio": "-1/2"})


def test_unroll_and_flatten():
    accepted(LINES, {"move": "unroll"})
    refused(DEEP, {"move": "unroll"})
    for upper, bias in (([[2, 0], [0, -1]], [-4, 6]), ([[2, 0], [0, 1]], [-4, 6]), ([[2, 0], [0, 0]], [-4, -6])):
        refused(Net3([[1, 0], [0, 1]], [1, 0], upper, bias, [[1, 1]], [0]).network(), {"move": "unroll"})
    refused(RELU2, {"move": "unroll"})
    refused(RELU2, {"move": "flatten"})
    both = build(([[1, 2], [-1, -2]], [1, -1]), ([[5, -5]], [1]))
    steps = (
        {"move": "flip", "layer": 0, "neurons": [1]}, {"move": "merge", "layer": 0, "pairs": [[1, 0, "1"]]},
        {"move": "drop", "layer": 0, "neurons": [0]},
    )  # fmt: skip
    state = accepted(both, *steps, {"move": "flatten"})
    assert len(state.layers) == 1
    refused(both, *steps[:2], {"move": "flatten"})
    refused(LINES, {"move": "flatten"})


def test_centre():
    plain = build(([[1, 2], [3, -1]], [1, 2]))
    refused(plain, {"move": "centre"})
    for head in ("softmax", "log_softmax", "argmax"):
        net = build(([[1, 2], [3, -1]], [1, 2]), head=head)
        accepted(net, {"move": "centre"}, head=head)
        refused(build(([[1, 2], [3, -1]], [1, 2]), activation=["relu"], head=head), {"move": "centre"})
    late = build(([[1, 2], [3, -1]], [1, 2]), ([[5, 7], [1, 1]], [1, 2]), head="softmax")
    refused(late, {"move": "flip", "layer": 0, "neurons": [0]}, {"move": "centre"})


def test_stretch():
    layers = ([[1, 2], [3, -1]], [1, 2]), ([[5, 7], [1, 1]], [1, 2])
    net = build(*layers, head="argmax")
    state = accepted(net, {"move": "stretch", "factor": "3/2"}, head="argmax")
    np.testing.assert_array_equal(state.layers[-1].weight.near, [[7.5, 10.5], [1.5, 1.5]])
    np.testing.assert_array_equal(state.layers[-1].bias.near.reshape(-1), [1.5, 3.0])
    turned = accepted(
        net, {"move": "flip", "layer": 0, "neurons": [0]}, {"move": "stretch", "factor": "2"}, head="argmax"
    )
    assert turned.skip is not None
    np.testing.assert_array_equal(turned.skip.near, [[10, 20], [2, 4]])
    for factor in ("0", "-1"):
        refused(net, {"move": "stretch", "factor": factor})
    for head in ("softmax", "log_softmax", None):
        refused(build(*layers, head=head), {"move": "stretch", "factor": "2"})
    refused(build(*layers, activation=["relu", "relu"], head="argmax"), {"move": "stretch", "factor": "2"})


def test_reductions_know_the_linear_part():
    net = Net3(
        [[1, 0], [2, 0], [0, 0]], [1, 2, 3], [[1, 1, 1], [1, -1, -1], [-2, 1, 0]], [0, 1, 0], [[1, 2, 3]], [0]
    ).network()
    first = {"move": "absorb", "neurons": [0]}
    refused(net, first, {"move": "drop", "layer": 0, "neurons": [0]})
    accepted(net, first, {"move": "merge", "layer": 0, "pairs": [[1, 0, "2"]]})
    accepted(net, first, {"move": "constant", "layer": 0, "neurons": [2], "values": ["3"]})
    for step in (
        {"move": "bound", "method": "interval"},
        {"move": "clear", "layer": 0, "neurons": [0]},
        {"move": "round", "dtype": "float32"},
    ):
        refused(net, first, step)
    only = Net3([[1, 0], [0, 1]], [0, 0], [[1, 0], [0, 1]], [0, -1], [[1, 1]], [0]).network()
    refused(only, first, {"move": "drop", "layer": 0, "neurons": [0]})


def test_a_reduction_may_not_use_the_moves_of_equality():
    data = {**document(RELU2, RELU2), "kind": "reduction", "bound": None}
    del data["back"]
    assert check(data, RELU2, RELU2).answer is Answer.YES
    data["steps"] = [{"move": "flip", "layer": 0, "neurons": [0]}, {"move": "flip", "layer": 0, "neurons": [0]}]
    with pytest.raises(CertificateError, match="unknown move"):
        check(data, RELU2, RELU2)


def test_an_equality_may_not_approximate():
    rough = build(([[1 / 3, 2]], [1]), ([[5]], [1]))
    single = build(([[np.float64(np.float32(1 / 3)), 2]], [1]), ([[5]], [1]))
    verdict = check(document(rough, single, [{"move": "round", "dtype": "float32"}]), rough, single)
    assert verdict.answer is Answer.NO
    assert "approximate" in verdict.reason


def test_states_that_differ_in_one_place_are_unlike():
    base = Net3([[1, 2], [3, -1]], [1, 2], [[1, 2], [3, -4]], [5, 6], [[7, 8]], [9])
    assert unlike(state_of(base.network()), state_of(base.network())) is None
    for name in ("W1", "b1", "W2", "b2", "W3", "b3"):
        other = base.copy()
        getattr(other, name).reshape(-1)[-1] += Fraction(1, 10**30)
        assert unlike(state_of(base.network()), state_of(other.network())) is not None
    flipped = [moved(base.network(), {"move": "flip", "layer": 1, "neurons": [k]}) for k in (0, 1)]
    assert unlike(*flipped) is not None
    changed = flipped[0]
    other = moved(base.network(), {"move": "flip", "layer": 1, "neurons": [0]})
    other.skip = None
    assert unlike(changed, other) == "the linear parts differ"
    assert "layers on one side" in unlike(state_of(RELU2), state_of(base.network()))
    relu, leaky = (build(([[1.0]], [0]), ([[1.0]], [0]), activation=name) for name in ("relu", "leaky_relu"))
    assert "relu" in unlike(state_of(relu), state_of(leaky))
    assert check(document(relu, leaky), relu, leaky).answer is Answer.NO


# ---- random moves: accepted means the same function

ROWS = {"relu": None, "sigmoid": None, "abs": None, "hard_tanh": None, "leaky_relu": activation("leaky_relu", 0.5)}

NAMES = st.sampled_from(sorted(ROWS))


def random_step(rng, state):
    """A well-formed move with plausible arguments."""
    last = max(len(state.layers) - 2, 0)
    layer = int(rng.integers(0, last + 1))
    width = max(state.layers[layer].weight.shape[0], 1)
    top = max(state.layers[last].weight.shape[0], 1)
    below = max(state.layers[max(last - 1, 0)].weight.shape[0], 1)
    some = lambda n: [int(v) for v in rng.permutation(n)[: rng.integers(1, min(n, 2) + 1)]]  # noqa: E731
    number = lambda: str(Fraction(int(rng.integers(-4, 5)), int(rng.integers(1, 3))))  # noqa: E731
    i, j = (int(v) for v in rng.integers(0, width, 2))
    choices = [
        {"move": "scale", "layer": layer, "factors": [str(rng.choice(["1", "2", "1/2", "-1"])) for _ in range(width)]},
        {"move": "permute", "layer": layer, "order": [int(v) for v in rng.permutation(width)]},
        {"move": "flip", "layer": layer, "neurons": some(width)},
        {"move": "absorb", "neurons": some(top)},
        {"move": "shift", "neuron": int(rng.integers(below)), "by": number()},
        {"move": "turn", "neuron": int(rng.integers(below)), "onto": int(rng.integers(below)), "ratio": number()},
        {"move": "resolve"}, {"move": "unroll"}, {"move": "flatten"}, {"move": "centre"},
        {"move": "stretch", "factor": number()},
        {"move": "drop", "layer": layer, "neurons": some(width)},
        {"move": "constant", "layer": layer, "neurons": [i], "values": [number()]},
        {"move": "merge", "layer": layer, "pairs": [[i, j, str(rng.choice(["1", "2", "-1", "1/2"]))]]},
    ]  # fmt: skip
    return choices[int(rng.integers(len(choices)))]


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from(sorted(ROWS)),
    st.sampled_from(sorted(ROWS)),
    st.sampled_from(["all", "+", "box"]),
)
def test_accepted_moves_keep_the_function(seed, first, second, kind):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.integers(-2, 3, shape) * (rng.random(shape) < 0.7)  # noqa: E731
    upper, b2 = draw(3, 2), draw(3)
    if rng.random() < 0.5:
        upper[:, 0], upper[:, 1], b2 = abs(upper[:, 0]), -abs(upper[:, 1]), -abs(b2)
        upper[0], b2[0] = abs(upper[0]), abs(b2[0])
    head = [None, "softmax", "argmax"][rng.choice(3, p=[0.7, 0.15, 0.15])]
    rows = [ROWS[first] or first, ROWS[second] or second]
    net = build((draw(2, 2), draw(2)), (upper, b2), (draw(2, 3), draw(2)), activation=rows, head=head)
    box = {"all": Box.everywhere(2), "+": Box.nonnegative(2), "box": Box([-1, -1], [1, 2])}[kind]
    low, high = np.maximum(box.lower, -9), np.minimum(box.upper, 9)
    points = [[Fraction(v) for v in x] for x in (low + (high - low) * rng.integers(0, 33, (14, 2)) / 32).tolist()]
    state = state_of(net, box)
    expected = [output(state, x) for x in points]
    done = 0
    for _ in range(40):
        step = random_step(rng, state)
        trial = copy.deepcopy(state)
        try:
            rearrange(trial, step)
        except (Refusal, CertificateError):
            continue
        state, done = trial, done + 1
        for x, before in zip(points, expected, strict=True):
            assert same(before, output(state, x), head), step
        if done > 6:
            break


# ---- mutated certificates


def leaves(value, path=()):
    """Paths of everything inside steps and back."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, (*path, name))
    elif isinstance(value, list):
        for k, part in enumerate(value):
            yield from leaves(part, (*path, k))
    yield path


def mutated(data, rng):
    """The document with one random change: a number, an index, a step deleted, doubled, exchanged, moved across."""
    out = copy.deepcopy(data)
    side = out[str(rng.choice(["steps", "back"]))]
    kind = int(rng.integers(6))
    if kind == 0 or not side:
        places = [p for name in ("steps", "back") for p in leaves(out[name], (name,)) if len(p) > 2]
        if not places:
            return out
        path = places[int(rng.integers(len(places)))]
        parent = out
        for key in path[:-1]:
            parent = parent[key]
        old = parent[path[-1]]
        if isinstance(old, int):
            parent[path[-1]] = max(0, old + int(rng.choice([-1, 1, 2])))
        elif isinstance(old, str) and path[-1] != "move":
            parent[path[-1]] = str(
                Fraction(old) * Fraction(int(rng.choice([-1, 2, 0, 3]))) + int(rng.choice([0, 0, 1]))
            )
        elif isinstance(old, str):
            parent[path[-1]] = str(rng.choice(["flip", "drop", "absorb", "scale", "unroll", "resolve", "permute"]))
        elif isinstance(old, list) and old:
            old.pop(int(rng.integers(len(old))))
    elif kind == 1:
        side.pop(int(rng.integers(len(side))))
    elif kind == 2:
        k = int(rng.integers(len(side)))
        side.insert(k, copy.deepcopy(side[k]))
    elif kind == 3:
        i, j = rng.integers(0, len(side), 2)
        side[i], side[j] = side[j], side[i]
    elif kind == 4:
        k = int(rng.integers(len(side)))
        out["back" if side is out["steps"] else "steps"].insert(0, side.pop(k))
    else:
        out["steps"], out["back"] = out["back"], out["steps"]
    return out


def answer(data, f, g):
    """The checker's answer; malformed documents raise one line."""
    try:
        return check(data, f, g).answer
    except CertificateError as exc:
        assert "\n" not in str(exc)
        assert len(str(exc)) < 400
        return None


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from(MODES), st.sampled_from(ARCHITECTURES[:3]))
def test_mutated_certificates_prove_nothing_false(seed, mode, widths):
    rng = np.random.default_rng(seed)
    plain, copy_ = holders(net3(rng, widths, mode, size=4).network(), rng, np.float64)
    f, g = build(*plain), build(*copy_)
    data = equal(f, g).certificate.to_dict()
    assert answer(data, f, g) is Answer.YES
    wrong = build(*near_miss(copy_, rng, KINDS[seed % 3]))
    unequal = not same_values(f, wrong, rng, 30)
    if unequal:
        assert answer(data, f, wrong) is Answer.NO  # another digest
    for _ in range(8):
        changed = mutated(data, rng)
        answer(changed, f, g)  # no other exception; f = g is true in any case
        if unequal:
            for target in (data, changed):
                lie = {**target, "target": {"digest": wrong.digest, "sha256": None}}
                assert answer(lie, f, wrong) is not Answer.YES
                back = {
                    **lie,
                    "back": target["steps"],
                    "steps": target["back"],
                    "source": lie["target"],
                    "target": data["source"],
                }
                assert answer(back, wrong, f) is not Answer.YES


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.sampled_from(MODES))
def test_certificates_of_scrambled_pairs_survive_json_and_no_mutation_proves_a_lie(seed, mode):
    rng = np.random.default_rng(seed)
    net = net3(rng, (3, 2, 3, 1), mode, size=4)
    other = scrambled(net, rng, 4)[0]
    f, g = net.network(), other.network()
    proof = equal(f, g).certificate
    again = Certificate.from_json(proof.to_json())
    assert check(again, f, g).answer is Answer.YES
    assert check(document(f, g), f, g).answer is not Answer.YES or f.same_as(g)
    other.b3[0] += 1
    lie = other.network()
    for _ in range(6):
        data = {**mutated(proof.to_dict(), rng), "target": {"digest": lie.digest, "sha256": None}}
        assert answer(data, f, lie) is not Answer.YES


def test_every_leaf_of_one_certificate_counts():
    """Deleting any single move, or doubling any number, of a certificate without idle moves is refused."""
    net = Net3([[2, 0], [0, 3]], [1, 0], [[-4, 2], [1, -3]], [4, -6], [[1, 1]], [2])
    moved_net, _ = scrambled(net, np.random.default_rng(3), 5)
    f, g = net.network(), moved_net.network()
    data = equal(f, g).certificate.to_dict()
    survivors = []
    for name in ("steps", "back"):
        for k, step in enumerate(data[name]):
            changed = copy.deepcopy(data)
            changed[name].pop(k)
            if answer(changed, f, g) is Answer.YES:
                survivors.append(step["move"])
    assert set(survivors) <= {"permute"}  # the order of neurons that go later is idle
    assert len(survivors) < 3


@pytest.mark.parametrize(
    "change",
    [
        {"steps": None}, {"back": {}}, {"steps": [{}]}, {"steps": [{"move": "fly"}]}, {"steps": [[]]},
        {"steps": [{"move": "scale", "layer": 0}]}, {"steps": [{"move": "scale", "layer": 0, "factors": [1]}]},
        {"steps": [{"move": "scale", "layer": 0, "factors": ["1/0"]}]},
        {"steps": [{"move": "scale", "layer": -1, "factors": ["1", "1"]}]},
        {"steps": [{"move": "scale", "layer": True, "factors": ["1", "1"]}]},
        {"steps": [{"move": "permute", "layer": 0, "order": [1.0, 0]}]},
        {"steps": [{"move": "flip", "layer": 0, "neurons": []}]},
        {"steps": [{"move": "shift", "neuron": 0, "by": "inf"}]},
        {"steps": [{"move": "resolve", "extra": 1}]}, {"steps": [{"move": "unroll", "layer": 0}]},
        {"steps": [{"move": "merge", "layer": 0, "pairs": [[0, 1, "0"]]}]},
        {"bound": None}, {"schema": "fiberscope/certificate/2"}, {"kind": "identity"}, {"source": {}},
        {"domain": {"lower": [0], "upper": [1]}}, {"domain": {"lower": [1, 1], "upper": [0, 0]}},
    ],
)  # fmt: skip
def test_malformed_equalities_raise_one_line(change):
    data = {**document(RELU2, RELU2), **change}
    with pytest.raises(CertificateError) as caught:
        check(data, RELU2, RELU2)
    assert "\n" not in str(caught.value)
    for key in ("steps", "back", "domain", "source", "version"):
        short = document(RELU2, RELU2)
        del short[key]
        with pytest.raises(CertificateError):
            check(short, RELU2, RELU2)


def test_heads_inputs_and_digests_must_agree():
    w = ([[1, 2], [3, -1]], [1, 2])
    plain, soft = build(w), build(w, head="softmax")
    assert check(document(plain, soft), plain, soft).answer is Answer.NO
    wide = build(([[1, 2, 0], [3, -1, 0]], [1, 2]))
    assert answer(document(plain, wide), plain, wide) is Answer.NO
    assert check(document(plain, plain), plain, RELU2).answer is Answer.NO
    proof = certificate(RELU2, RELU2, Box.everywhere(2), [], [])
    assert check(proof, RELU2, RELU2).answer is Answer.YES


def test_an_equality_is_called_so():
    f = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [0.0]))
    g = Network.from_arrays(([[2.0]], [0.0]), ([[1.0]], [0.0]))
    assert str(equal(f, g).certificate).startswith("certificate of an equality: equal, ")
