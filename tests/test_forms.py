"""Normal forms: same function, constant on fibers, idempotent, and unique where they say so."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.fibers.exchanges import hidden_neurons
from fiberscope.fibers.forms import canonical, fingerprint
from fiberscope.fibers.uniqueness import common_traces
from fiberscope.network import Network
from oracles_fibers import ARCHITECTURES, MODES, NARROW, Net3, ladder, net3, scrambled, vector_network, vectors

build = Network.from_arrays
ACTIVATIONS = ("relu", "leaky_relu", "hard_tanh", "clip", "abs")


def row(name):
    """The activation, with parameters where it needs some."""
    return {"leaky_relu": activation("leaky_relu", 0.25), "clip": activation("clip", -1, 2)}.get(name) or activation(
        name
    )


def failing(net):
    """Statements of the hypotheses that a network fails."""
    form = canonical(net)
    assert not form.unique
    return [h.statement for h in form.hypotheses if not (h.checked and h.holds)]


# ---- vectors


@pytest.mark.parametrize(("name", "case"), vectors(), ids=[name for name, _ in vectors()])
def test_forms_of_the_vectors(name, case):
    a, b = (canonical(vector_network(case[k])) for k in "AB")
    if name.startswith("11"):  # equal by the fan identity, which a form may or may not absorb
        assert a.same_as(b) or not (a.unique and b.unique)
    else:
        assert a.same_as(b) == (case["verdict"] == "EQUAL")


# ---- the form is the function


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(ACTIVATIONS), st.integers(1, 4), st.sampled_from(["any", "small"]))
def test_a_form_has_the_values_of_its_network(seed, name, depth, kind):
    rng = np.random.default_rng(seed)
    widths = [int(v) for v in rng.integers(1, 4, depth + 1)] + [int(rng.integers(1, 3))]
    size = 1 if kind == "small" else 6
    pairs = [
        (rng.integers(-size, size + 1, (m, n)) / 2.0, rng.integers(-size, size + 1, m) / 2.0)
        for n, m in zip(widths, widths[1:], strict=False)
    ]
    net = build(*pairs, activation=row(name))
    form = canonical(net)
    for x in ladder(net, rng, 8):
        assert form.exact(x) == net.exact(x)


@pytest.mark.parametrize("head", ["softmax", "log_softmax", "argmax"])
def test_a_form_with_a_head_has_the_relative_logits(head):
    rng = np.random.default_rng(5)
    net = build(
        (rng.integers(-3, 4, (3, 2)), rng.integers(-3, 4, 3)), (rng.integers(-3, 4, (3, 3)), rng.integers(-3, 4, 3)),
        head=head,
    )  # fmt: skip
    lifted = build(
        (net.layers[0].weight, net.layers[0].bias), (net.layers[1].weight, net.layers[1].bias + 7), head=head
    )
    form = canonical(net)
    assert form.same_as(canonical(lifted))
    assert form.unique == (head != "argmax")
    factor = next((Fraction(s["factor"]) for s in form.moves if s["move"] == "stretch"), Fraction(1))
    assert factor > 0
    for x in ladder(net, rng, 8):
        values = net.exact(x)
        relative = tuple(v - values[0] for v in values)
        if head == "argmax":
            assert form.exact(x) == tuple(factor * v for v in relative)
        else:
            assert form.exact(x) == relative


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "hard_tanh"])
def test_argmax_forgets_a_positive_factor_and_no_other(name):
    rng = np.random.default_rng(6)
    hidden = (rng.integers(-3, 4, (4, 3)) / 2.0, rng.integers(-3, 4, 4) / 4.0)
    v, d = rng.integers(-9, 10, (3, 4)), rng.integers(-9, 10, 3)
    forms = {
        factor: canonical(build(hidden, (factor * v / 4, factor * d / 4), activation=name, head="argmax"))
        for factor in (1, 3, 0.625, -1)
    }
    assert forms[1].same_as(forms[3])
    assert forms[1].same_as(forms[0.625])
    assert not forms[1].same_as(forms[-1])


def test_the_domain_of_a_form_is_where_it_has_the_values():
    rng = np.random.default_rng(3)
    net = build((rng.integers(-3, 4, (6, 2)), rng.integers(-3, 4, 6)), (rng.integers(-3, 4, (2, 6)), [0, 1]))
    for box in (Box.nonnegative(2), Box([-1, 0], [1, 2]), Box([0, -np.inf], [0.5, 3])):
        form = canonical(net, box)
        low, high = np.maximum(box.lower, -50), np.minimum(box.upper, 50)
        for x in (low + (high - low) * rng.integers(0, 65, (40, 2)) / 64).tolist():
            assert form.exact(x) == net.exact(x)


# ---- idempotent, constant on fibers


def realised(form):
    """A network with the values of a two- or three-layer ReLU form: the linear part in always-active neurons."""
    w, b = [np.array(v, dtype=object) for v in form.weights], [np.array(v, dtype=object) for v in form.biases]
    if form.skip is not None:
        n, inputs = len(b[-2]), form.skip.shape[1]
        w[-2], b[-2] = np.concatenate([w[-2], np.eye(inputs)]), np.concatenate([b[-2], np.zeros(inputs)])
        w[-1] = np.concatenate([w[-1].reshape(-1, n), form.skip], axis=1)
    as_fractions = np.vectorize(Fraction, otypes=[object])
    return build(*((as_fractions(p), as_fractions(q)) for p, q in zip(w, b, strict=True)), activation="relu")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("widths", [(2, 2, 3, 1), (3, 3, 4, 2), (4, 2, 5, 3)])
def test_a_form_is_its_own_form(widths, mode):
    rng = np.random.default_rng(len(mode) + sum(widths))
    done = 0
    for _ in range(6):
        form = canonical(net3(rng, widths, mode).network())
        if len(form.weights) != 3 or 0 in form.widths:
            continue
        done += 1
        assert canonical(realised(form)).same_as(form)
    assert done


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("widths", ARCHITECTURES[:5] + NARROW)
def test_moves_inside_a_fiber_keep_the_form(widths, mode):
    rng = np.random.default_rng([*widths, MODES.index(mode)])
    for _ in range(3):
        net = net3(rng, widths, mode)
        moved, names = scrambled(net, rng)
        f, g = net.network(), moved.network()
        first, second = canonical(f), canonical(g)
        assert first.same_as(second), names
        assert first.fingerprint == second.fingerprint
        assert all(second.exact(x) == f.exact(x) for x in ladder(f, rng, 4))


@pytest.mark.parametrize("name", [*ACTIVATIONS, "tanh", "sigmoid", "silu", "elu"])
def test_permutations_and_free_rescalings_of_deep_networks_keep_the_form(name):
    rng = np.random.default_rng(len(name))
    pairs = [(rng.integers(-4, 5, s) / 2.0, rng.integers(-4, 5, s[0]) / 2.0) for s in ((4, 3), (5, 4), (3, 5), (2, 3))]
    moved = [(w.copy(), b.copy()) for w, b in pairs]
    chosen = row(name)
    for k in range(3):
        order = rng.permutation(len(moved[k][1]))
        e = 2.0 ** rng.integers(-3, 4, len(order)) if chosen.homogeneity == 1 else np.ones(len(order))
        s = rng.choice([-1.0, 1.0], len(order)) if chosen.parity else np.ones(len(order))
        phi = e * (s if chosen.parity == "odd" else 1)
        w, b = moved[k]
        moved[k] = ((w * (e * s)[:, None])[order], (b * e * s)[order])
        moved[k + 1] = ((moved[k + 1][0] / phi)[:, order], moved[k + 1][1])
    f, g = build(*pairs, activation=chosen), build(*moved, activation=chosen)
    assert canonical(f).same_as(canonical(g))
    x = rng.normal(size=(20, 3))
    np.testing.assert_allclose(f(x), g(x), atol=1e-9)


def test_a_head_behind_an_output_activation_is_not_centred():
    # relu of logits (-1, 1) and (0, 2) differ by 1 and by 2
    f, g = (build((np.zeros((2, 1)), b), activation=["relu"], head="softmax") for b in ([-1.0, 1.0], [0.0, 2.0]))
    assert not canonical(f).same_as(canonical(g))
    assert canonical(f).exact([0]) == f.exact([0])
    assert not canonical(build((np.eye(2), [0, 1]), activation=["tanh"], head="softmax")).unique


def test_kink_transfer_comes_back():
    # f = relu(z0) + relu(relu(z0) - relu(z1) - 1); relu(z0) = relu(relu(z0 + 2) - 2)
    f = Net3([[1, 0], [0, 1]], [0, 0], [[1, 0], [1, -1]], [0, -1], [[1, 1]], [0])
    g = Net3([[1, 0], [0, 1]], [2, 0], [[1, 0], [1, -1]], [-2, -3], [[1, 1]], [0])
    assert canonical(f.network()).same_as(canonical(g.network()))


def test_a_hidden_kink_goes_to_the_boundary():
    form = canonical(Net3([[1, 0], [0, 1]], [5, 0], [[2, -1], [1, -3]], [-4, -6], [[1, 1]], [0]).network())
    i = hidden_neurons(form.chain)[0]
    ratios = [b / u for b, u in zip(form.biases[1], form.weights[1][:, i], strict=True)]
    assert max(ratios) == 0
    assert form.biases[0][i] == 3  # z >= 2 was the first to show: 5 - 2


def test_turning_needs_one_ratio():
    one = Net3([[1, 0], [0, -1]], [0, 0], [[1, -2]], [-1], [[1]], [0])
    two = Net3([[1, 0], [0, -1]], [0, 0], [[1, -2], [1, -3]], [-1, -1], [[1, 1]], [0])
    assert "turn" in {m["move"] for m in canonical(one.network()).moves}
    assert "turn" not in {m["move"] for m in canonical(two.network()).moves}


def test_affine_and_constant_functions_agree_over_depths_and_activations():
    eye = np.eye(2)
    nets = [
        build(([[2.0, -1.0]], [3.0])),
        build(([[1.0, 0], [-1, 0], [0, 1], [0, -1]], None), ([[2.0, -2, -1, 1]], [3.0])),
        build((np.concatenate([eye, -eye]), None), (np.eye(4), None), ([[2.0, -1, -2, 1]], [3.0])),
        build((eye, [0, 0]), ([[4.0, -2.0]], [3.0]), activation=activation("leaky_relu", 1)),
    ]
    nets[3] = build(
        (np.concatenate([eye, -eye]), None), ([[1.6, -0.8, -1.6, 0.8]], [3.0]), activation=row("leaky_relu")
    )
    forms = [canonical(net) for net in nets[:3]]
    assert len({f.digest for f in forms}) == 1
    assert all(f.unique for f in forms)
    third = Fraction(4, 5)
    slope = np.array([[2 * third, -third, -2 * third, third]], dtype=object)
    leaky = build((np.concatenate([eye, -eye]), None), (slope, [3]), activation=row("leaky_relu"))
    assert canonical(leaky).same_as(forms[0])
    constants = [
        build((np.zeros((1, 2)), [7.0])),
        build((-eye, None), (-eye, [0, -1]), ([[1.0, 1.0]], [7.0])),
        build((np.zeros((1, 2)), [0.0]), ([[5.0]], [7.0]), activation="tanh"),
        build((np.zeros((1, 2)), [9.0]), ([[3.0]], [4.0]), activation="hard_tanh"),
    ]
    assert {canonical(net).digest for net in constants} == {canonical(constants[0]).digest}


# ---- two layers on domains


def test_hyperplanes_that_touch_the_domain_at_a_face_only_are_linear_there():
    f = build(([[1.0, 1.0]], [0.0]), ([[2.0]], [0.0]))
    g = build(([[2.0, 2.0]], [0.0]))
    assert not canonical(f).same_as(canonical(g))
    assert canonical(f, Box.nonnegative(2)).same_as(canonical(g, Box.nonnegative(2)))
    assert not canonical(f, Box([-0.5, 0], [1, 1])).same_as(canonical(g, Box([-0.5, 0], [1, 1])))
    box = Box([0, -1], [1, 1])
    touching = build(([[1.0, 1.0]], [-2.0]), ([[1.0]], [0.0]))
    assert canonical(touching, box).widths == (2, 1)
    inside = build(([[1.0, 1.0]], [-1.9375]), ([[1.0]], [0.0]))
    assert canonical(inside, box).widths == (2, 1, 1)


def test_a_box_changes_the_name_of_a_form_but_minus_zero_does_not():
    net = build(([[1.0]], [0.0]))
    assert not canonical(net).same_as(canonical(net, Box([0.0], [1.0])))
    assert canonical(net, Box([-0.0], [1.0])).same_as(canonical(net, Box([0.0], [1.0])))


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_two_layers_of_tanh_or_sigmoid_up_to_order_and_sign(name):
    rng = np.random.default_rng(2)
    w, b, v, d = rng.normal(size=(4, 3)), rng.normal(size=4), rng.integers(-4, 5, (2, 4)) / 4, np.array([1.0, 0.5])
    s, order = np.array([1, -1, -1, 1.0]), np.array([2, 0, 3, 1])
    moved = d if name == "tanh" else d + v @ (s < 0)
    f = build((w, b), (v, d), activation=name)
    g = build(((w * s[:, None])[order], (b * s)[order]), ((v * s)[:, order], moved), activation=name)
    first, second = canonical(f), canonical(g)
    assert first.same_as(second)
    assert first.unique
    assert first.theorem == "tanh-identifiability"
    doubled = build((2 * w, 2 * b), (v / 2, d), activation=name)
    assert not canonical(doubled).same_as(first)


def test_a_sigmoid_is_a_tanh():
    f = build(([[1.0, -3.0]], [0.5]), ([[4.0]], [1.0]), activation="sigmoid")
    g = build(([[0.5, -1.5]], [0.25]), ([[2.0]], [3.0]), activation="tanh")
    assert np.allclose(f(np.ones((1, 2))), g(np.ones((1, 2))))
    assert canonical(f).unique
    assert fingerprint(f) == fingerprint(g)
    assert fingerprint(build(([[0.5, -1.5]], [0.25]), ([[2.0]], [2.0]), activation="tanh")) != fingerprint(f)


# ---- fingerprints


def test_the_fingerprint_does_not_depend_on_the_holder():
    w, b = np.array([[0.5, -0.25], [1.5, 3.0]]), np.array([0.0, -1.0])
    v, d = np.array([[1.0, -2.0]]), np.array([0.0])
    prints = {fingerprint(build((w.astype(t), b.astype(t)), (v.astype(t), d.astype(t)))) for t in "efd"}
    prints.add(fingerprint(build((w, np.array([-0.0, -1.0])), (v, -d))))
    prints.add(fingerprint(build((np.vectorize(Fraction)(w), b), (v, d))))
    assert len(prints) == 1
    assert prints.pop().startswith("fs1:")


def test_the_fingerprint_says_whether_the_form_is_unique():
    wide = net3(np.random.default_rng(0), (2, 4, 3, 1)).network()
    assert fingerprint(wide).startswith("fs1s:")
    cheap = canonical(build(([[1.0]], [1.0]), ([[1.0]], [0.0])), linear_part=False)
    assert cheap.fingerprint.startswith("fs1s:")
    assert cheap.fingerprint != canonical(cheap.network).fingerprint


SMALL = {
    "518c40d9f46cc22f235fdae80e181dd1e50e2ee15f3b2d71603b67d01725debf": build(
        ([[2.0, 1.0], [-1.0, 3.0]], [0.5, -1.0]), ([[1.0, -2.0]], [0.25])
    ),
    "e76216c6eefad4f76cbbe02c52c84fb1a4816772587bb0e70a84c532d915a0b5": build(
        ([[1.0, 2.0], [-1.0, 1.0]], [1.0, -1.0]),
        ([[1.0, -2.0], [-1.0, 1.0], [2.0, 1.0]], [1.0, 1.0, -3.0]),
        ([[1.0, 2.0, -1.0]], [0.0]),
    ),
}


@pytest.mark.parametrize(("expected", "net"), SMALL.items(), ids=["two layers", "three layers"])
def test_fingerprints_never_change(expected, net):
    assert fingerprint(net) == f"fs1:{expected}"


def test_very_large_and_very_small_weights_stay_exact():
    big = ([[1e300, 1e-300], [1e-300, 1e300]], [0.0, 1.0])
    net = build(big, ([[1e-300, -1e300], [1e300, -1e-300]], [1e-300, 1e300]), ([[1.0, 2.0]], [0.0]))
    form = canonical(net)
    assert form.fingerprint.startswith("fs1")
    assert all(form.exact(x) == net.exact(x) for x in ((1, 2), (-1, Fraction(1, 3)), (0, 0)))


# ---- uniqueness

UNIQUE = Net3([[1, 0], [0, 1]], [0, 0], [[1, -2], [-1, 3], [1, 1]], [1, 1, -2], [[1, 2, 3]], [0])
"""Meets every hypothesis; the tests below break one at a time."""


def with_tail(row, bias):
    """Three inputs; the second and third neuron meet every hypothesis without this row."""
    upper = [row, [0, 1, -2], [0, -1, 3], [0, 1, 1]]
    return Net3(np.eye(3), [0, 0, 0], upper, [bias, 1, 1, -2], [[1, 1, 2, 3]], [0]).network()


def changed(**parts):
    out = UNIQUE.copy()
    return Net3(*(parts.get(k, getattr(out, k)) for k in ("W1", "b1", "W2", "b2", "W3", "b3"))).network()


def test_a_generic_network_is_unique():
    form = canonical(UNIQUE.network())
    assert form.unique
    assert form.theorem == "three-layer-form"
    rng = np.random.default_rng(1)
    assert sum(canonical(net3(rng, (3, 3, 6, 1)).network()).unique for _ in range(10)) >= 7


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (changed(W1=[[1, 0], [2, 0]], b1=[0, 1]), "rows are linearly independent"),
        (changed(b2=[0, 1, -2]), "passes through y = 0"),
        (changed(W2=[[1, -2], [2, -4], [1, 1]], b2=[1, 3, -2]), "share a trace"),
        (with_tail([1, 0, 0], 0), "carries a bend"),
        (with_tail([1, -1, -5], -1), "read by two"),
    ],
    ids=["rank", "origin", "traces", "bend", "lonely"],
)  # fmt: skip
def test_the_failing_hypothesis_is_named(net, words):
    statements = failing(net)
    assert any(words in s for s in statements), statements
    assert all(words in s or s.startswith("no two second-layer") for s in statements)


def test_other_scopes_are_named():
    base = ([[1.0, 2.0], [3.0, 1.0]], [1.0, -1.0])
    assert "domain is all" in " ".join(
        h.statement for h in canonical(UNIQUE.network(), Box([-1, -1], [1, 1])).hypotheses if not h.holds
    )
    assert "interior" in " ".join(
        h.statement
        for h in canonical(build(base, ([[1.0, 1.0]], [0.0])), Box([0, 0], [0, 1])).hypotheses
        if not h.holds
    )
    assert "found 3 hidden layers" in failing(build(base, base, base, ([[1.0, 1.0]], [0.0])))[0]
    assert "argmax" in " ".join(failing(build(base, head="argmax")))
    assert "no activation" in failing(build(base, activation=["relu"]))[0]
    assert failing(build(base, ([[1.0, 1.0]], [0.0]), activation="softplus"))
    constant = build(([[0.0, 0.0], [1.0, 0.0]], [1.0, 0.0]), ([[1.0, 1.0]], [0.0]), activation="tanh")
    assert "constant" in failing(constant)[0]


def test_two_hidden_kinks_that_share_readers_make_no_unique_form():
    # max(0, min(2 z1 - z0, z1)) is symmetric in its two linear functions: two forms of one function
    f = Net3([[1, 0], [0, 1]], [0, 0], [[-1, 2], [-1, 1]], [0, 0], [[1, -1]], [0]).network()
    g = Net3([[-2, 3], [-1, 2]], [0, 0], [[-1, 2], [-1, 1]], [0, 0], [[1, -1]], [0]).network()
    rng = np.random.default_rng(0)
    assert all(f.exact(x) == g.exact(x) for x in (*ladder(f, rng), *ladder(g, rng)))
    first, second = canonical(f), canonical(g)
    assert not first.same_as(second)
    assert not first.unique
    assert not second.unique


def test_unique_forms_of_equal_functions_are_equal_on_small_integers():
    """Small integers make coincidences common: group networks by their values, then compare the forms of a group."""
    rng = np.random.default_rng(7)
    grid = np.array([(i, j) for i in range(-16, 17) for j in range(-16, 17)]) / 4
    groups: dict[bytes, list[Network]] = {}
    count = 3000
    first, b1 = rng.integers(-1, 2, (count, 2, 2)), rng.integers(-1, 2, (count, 2))
    upper, b2 = rng.integers(-2, 3, (count, 2, 2)), rng.integers(-1, 2, (count, 2))
    out = rng.choice([-1, 1], (count, 1, 2))
    for k in range(count):
        if np.linalg.matrix_rank(first[k]) < 2:
            continue
        y = np.maximum(np.maximum(grid @ first[k].T + b1[k], 0) @ upper[k].T + b2[k], 0) @ out[k].T
        groups.setdefault((y + 0.0).tobytes(), []).append(build((first[k], b1[k]), (upper[k], b2[k]), (out[k], [0])))
    several = [nets for nets in groups.values() if 1 < len(nets) < 9][:30]
    seen = 0
    for nets in several:
        forms = {f.digest: f for f in map(canonical, nets)}
        unique = [f for f in forms.values() if f.unique]
        seen += len(unique)
        assert len(unique) <= 1, [f.network.layers for f in unique]
    assert seen > 5


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_common_traces_against_all_faces(seed):
    rng = np.random.default_rng(seed)
    alpha, beta = rng.integers(-2, 3, (3, 3)).astype(float), rng.choice([-2.0, -1, 1, 2], 3)
    expected = []
    for h in range(3):
        for g in range(h + 1, 3):
            a, b = (np.append(alpha[k], beta[k]) for k in (h, g))
            live = [(p, q) for p, q in zip(a, b, strict=True) if p and q]
            if any(p * s == q * r for k, (p, q) in enumerate(live) for r, s in live[:k]):
                expected.append((h, g))
    assert common_traces(alpha, beta) == expected


def test_common_traces_sees_one_ulp():
    third = np.array([[1.0, 3.0], [1.0 / 3.0, 1.0]])
    assert common_traces(third, np.array([1.0, 5.0])) == []
    exact = np.array([[Fraction(1), Fraction(3)], [Fraction(1, 3), Fraction(1)]], dtype=object)
    assert common_traces(exact, np.array([1.0, 5.0])) == [(0, 1)]


def test_automorphisms_and_the_printed_page():
    net = build(([[1.0], [1.0], [2.0]], [0, 0, 1]), ([[5.0, 5.0, 1.0]], [0]))
    form = canonical(net)
    assert form.automorphisms.order == 2
    text = str(form)
    assert "1-3-1 -> 1-2-1" in text
    assert form.fingerprint in text
    data = form.to_dict()
    assert data["unique"] is True
    assert data["move_counts"]["merge"] == 1
    assert len(data["layers"]) == 2


def test_common_traces_of_rationals_that_floats_round():
    base = [Fraction(1, 3), Fraction(10**20 + 39, 11)]
    for k in range(1, 80):
        rows = np.array([base, [v * Fraction(k, 49) for v in base]], dtype=object)
        assert common_traces(rows, np.array([Fraction(1), Fraction(5)], dtype=object)) == [(0, 1)]


def test_what_a_form_cannot_be_asked_is_refused():
    form = canonical(Network.random((2, 3, 1), seed=0))
    for wrong in ([1], [[1, 2]], [1, np.nan], [1, Fraction(1, 3), 2], "ab", [np.inf, 0]):
        with pytest.raises(InputError, match="input"):
            form.exact(wrong)
    for wrong in (None, form.network, form.digest):
        with pytest.raises(InputError, match=r"give canonical\(net\)"):
            form.same_as(wrong)
    for function in (canonical, fingerprint):
        with pytest.raises(InputError, match="fs.load"):
            function("net.onnx")


def test_fingerprints_on_a_domain_see_that_domain_only():
    f = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    line = Network.from_arrays(([[1.0]], [5.0]), ([[1.0]], [-5.0]))
    assert fingerprint(f, "[0,1]") == fingerprint(line, "[0,1]") == canonical(f, "[0,1]").fingerprint
    assert fingerprint(f) != fingerprint(line)
