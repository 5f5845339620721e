"""Fans and corners: three kinks that meet, and the moves that give them their roles back."""

import copy
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fiberscope as fs
from fiberscope.fibers.equality import certificate
from fiberscope.results import Answer

INTEGERS = st.integers(-4, 4).map(float)
POSITIVE = st.integers(1, 4).map(float)


def rows(count: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.lists(INTEGERS, min_size=4, max_size=4), min_size=count, max_size=count).map(np.array)


def independent(table: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(table[:, :-1]) == len(table))


def fans(g: np.ndarray, h: np.ndarray, s: float, t: float) -> list[fs.Network]:
    """max(0, min(s g, t h)) for affine g, h: either may be subtracted from, or be hidden."""
    pair = np.array([g, h])
    swapped = np.array([s * g, s * g - t * h])
    return [
        fs.Network.from_arrays((pair[:, :-1], pair[:, -1]), ([[s, 0], [s, -t]], [0, 0]), ([[1, -1]], [0])),
        fs.Network.from_arrays((pair[:, :-1], pair[:, -1]), ([[0, t], [-s, t]], [0, 0]), ([[1, -1]], [0])),
        fs.Network.from_arrays((swapped[:, :-1], swapped[:, -1]), ([[1, -1]], [0]), ([[1]], [0])),
    ]


def corners(w: np.ndarray, u: float, v: float, c: float) -> list[fs.Network]:
    """relu(min(c, z) + v relu(w_2)) with z = c - u w_1: one neuron that bends twice, or three."""
    z, both = -u * w[0], -u * w[0] + v * w[1]
    z[-1] += c
    both[-1] += c
    table = np.array([z, both])
    return [
        fs.Network.from_arrays((w[:, :-1], w[:, -1]), ([[-u, v]], [c]), ([[1]], [0])),
        fs.Network.from_arrays(
            (table[:, :-1], table[:, -1]), ([[1, 0], [1, 0], [-1, 1]], [0, -c, 0]), ([[1, -1, 1]], [0])
        ),
    ]


def proved(f: fs.Network, g: fs.Network) -> dict:
    a, b = fs.canonical(f), fs.canonical(g)
    assert a.same_as(b)
    proof = certificate(f, g, a.domain, a.moves, b.moves)
    assert fs.check(proof, f, g).answer is Answer.YES
    return proof.to_dict()


@settings(max_examples=25, deadline=None)
@given(rows(2), POSITIVE, POSITIVE, st.lists(INTEGERS, min_size=3, max_size=3))
def test_fans_have_one_form(table, s, t, x):
    assume(independent(table))
    nets = fans(table[0], table[1], s, t)
    g, h = (float(row[:-1] @ np.array(x) + row[-1]) for row in table)
    assert all(net.exact(x) == (Fraction(max(0.0, min(s * g, t * h))),) for net in nets)
    for net in nets[1:]:
        proof = proved(nets[0], net)
        assert any(step["move"] == "fan" for step in proof["steps"])


@settings(max_examples=25, deadline=None)
@given(rows(2), POSITIVE, POSITIVE, POSITIVE)
def test_corners_have_one_form(table, u, v, c):
    assume(independent(table))
    f, g = corners(table, u, v, c)
    proof = proved(f, g)
    assert [step["move"] for step in proof["back"]].count("corner") == 1


FIRST = np.array([[1.0, 2.0, 0.0, 1.0], [0.0, 1.0, -1.0, 2.0]])


@pytest.mark.parametrize("move", ["fan", "corner"])
def test_the_checker_wants_the_exact_shape(move):
    f, g = fans(*FIRST, 2.0, 3.0)[:2] if move == "fan" else corners(FIRST, 2.0, 3.0, 1.0)
    a, b = fs.canonical(f), fs.canonical(g)
    proof = certificate(f, g, a.domain, a.moves, b.moves).to_dict()
    side = "back"
    place = next(k for k, step in enumerate(proof[side]) if step["move"] == move)
    roles = [name for name in proof[side][place] if name != "move"]
    for name in roles:
        for value in range(3):
            if value == proof[side][place][name]:
                continue
            wrong = copy.deepcopy(proof)
            wrong[side][place][name] = value
            try:
                assert fs.check(wrong, f, g).answer is Answer.NO
            except fs.errors.CertificateError:
                pass


@pytest.mark.parametrize("kind", ["fan", "corner"])
def test_no_exchange_when_a_weight_is_off(kind):
    pair = fans(*FIRST, 2.0, 3.0)[:2] if kind == "fan" else corners(FIRST, 2.0, 3.0, 1.0)
    g = pair[1]
    for layer in (1, 2):
        for place in np.ndindex(*g.layers[layer].weight.shape):
            weights = [(row.weight.copy(), row.bias.copy()) for row in g.layers]
            weights[layer][0][place] += 0.5
            other = fs.Network.from_arrays(*weights)
            form = fs.canonical(other)
            points = np.random.default_rng(0).integers(-9, 10, (40, 3)).tolist()
            assert all(form.exact(x) == other.exact(x) for x in points)
            if any(other.exact(x) != g.exact(x) for x in points):
                assert not form.same_as(fs.canonical(pair[0]))


def test_a_neuron_that_others_read_is_left_alone():
    f, g = fans(*FIRST, 2.0, 3.0)[:2]
    nets = []
    for net in (f, g):
        (w1, b1), (w2, b2), (w3, b3) = ((row.weight, row.bias) for row in net.layers)
        extra = np.array([[1.0, 1.0]])
        nets.append(fs.Network.from_arrays((w1, b1), (np.concatenate([w2, extra]), [*b2, -1.0]), ([[*w3[0], 5.0]], b3)))
    forms = [fs.canonical(net) for net in nets]
    assert all("fan" not in {step["move"] for step in form.moves} for form in forms)
    assert all(not form.unique for form in forms)
