"""Analytic models: forward maps against plain numpy, gradients against differences, symmetries, laws along flows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.autodiff.jets import FormalJets, TrueJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import PRIME, Floats, Residues
from fiberscope.autodiff.tape import Tape
from fiberscope.errors import InputError
from fiberscope.models import (
    AffineFields,
    attention,
    chain,
    convex_network,
    convolution,
    deep_linear,
    exponential_network,
    flow,
    glu,
    matrix_factorisation,
    mixture,
    normalised,
    polynomial_field,
    product,
    residual,
    swiglu,
)
from fiberscope.models.affine import paired
from fiberscope.models.formulas import exponential, inverse_root, shares
from fiberscope.models.model import offsets_of
from fiberscope.models.networks import Patterns, piecewise_family, sides

FLOATS = Floats()
MODELS = {
    "linear chain": lambda: chain((2, 3, 2), "identity"),
    "relu chain": lambda: chain((2, 3, 3, 1)),
    "clip chain": lambda: chain((2, 3, 1), "clip"),
    "square chain": lambda: chain((2, 3, 1), "square"),
    "mixed chain": lambda: chain((2, 3, 2, 1), ["relu", "tanh"]),
    "factorisation": lambda: matrix_factorisation(2, 3, 2),
    "convex": lambda: convex_network(2, 3, 2),
    "product": lambda: product(4),
    "exponential": lambda: exponential_network(2, 3, 2),
    "glu": lambda: glu(2, 3, 2),
    "reglu": lambda: glu(2, 3, 2, "relu"),
    "swiglu": lambda: swiglu(2, 3, 2),
    "quadratic glu": lambda: glu(2, 3, 2, "square"),
    "softmax experts": lambda: mixture(2, 3, 2),
    "sigmoid experts": lambda: mixture(2, 3, 2, gate="sigmoid"),
    "attention": lambda: attention(2, 2, 3, heads=2, outputs=1),
    "rotary": lambda: attention(2, 4, 2, rotary=True),
    "convolution": lambda: convolution(2, 3, 2, kernel=2, length=4),
    "linear convolution": lambda: convolution(2, 3, 2, kernel=2, length=4, linear=True),
    "residual": lambda: residual(2, 3, blocks=2),
    "normalised": lambda: normalised(2, 3, 2),
}


def at(theta):
    return Nilpotent(FLOATS, {0: np.atleast_2d(theta)})


def fields(family, theta, data):
    found = family.fields(at(theta), data, TrueJets()).real
    return np.broadcast_to(found, (max(len(found), len(data[0])), family.size))


def outputs(model, theta, *data):
    return model.family.values(at(theta), tuple(d[None] for d in data), TrueJets()).real[0]


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_outputs(name):
    model, rng = MODELS[name](), np.random.default_rng(1)
    theta = model.theta(FLOATS, rng)
    data = model.family.draw(FLOATS, rng, 3)

    def energy(t):
        values = model.family.values(at(t), data[1:], TrueJets()).real
        return (np.broadcast_to(values, data[0].shape) * data[0]).sum(axis=(1, 2))

    h = 1e-5
    numeric = np.stack([(energy(theta + h * e) - energy(theta - h * e)) / (2 * h) for e in np.eye(model.size)], axis=1)
    np.testing.assert_allclose(fields(model.family, theta, data), numeric, atol=1e-6 * (1 + np.abs(numeric).max()))


@pytest.mark.parametrize("name", MODELS)
def test_symmetries_are_orthogonal_to_every_gradient(name):
    model, rng = MODELS[name](), np.random.default_rng(2)
    theta = model.theta(FLOATS, rng)
    moves = fields(model.family, theta, model.family.draw(FLOATS, rng, 6))
    for symmetry in model.symmetries:
        rows = symmetry.fields.at(FLOATS, theta)
        assert symmetry.fields.count == len(rows) > 0
        assert np.abs(rows).max(axis=1).min() > 0
        np.testing.assert_allclose(rows @ moves.T, 0, atol=1e-9 * np.abs(rows).max() * np.abs(moves).max())


def test_forward_maps_are_the_textbook_ones():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2))

    model = swiglu(2, 3, 2)
    theta = rng.standard_normal(model.size)
    w1, v, w2 = (theta[i] for i in offsets_of(model.blocks).values())
    z = x @ w1.T
    np.testing.assert_allclose(outputs(model, theta, x), (z / (1 + np.exp(-z)) * (x @ v.T)) @ w2.T)

    for gate in ("softmax", "sigmoid"):
        model = mixture(2, 3, 2, gate=gate)
        theta = rng.standard_normal(model.size)
        u, e = (theta[i] for i in offsets_of(model.blocks).values())
        g = np.exp(x @ u.T) if gate == "softmax" else 1 / (1 + np.exp(-x @ u.T))
        expected = np.einsum("k,kod,d->o", (g / g.sum())[0], e.reshape(3, 2, 2), x[0])
        np.testing.assert_allclose(outputs(model, theta, x)[0], expected)

    model = exponential_network(2, 3)
    theta = rng.standard_normal(model.size)
    w, b, a = (theta[i] for i in offsets_of(model.blocks).values())
    np.testing.assert_allclose(outputs(model, theta, x), np.exp(x @ w.T + b) @ a.T)

    model = normalised(2, 3, 2)
    theta = rng.standard_normal(model.size)
    w, u = (theta[i] for i in offsets_of(model.blocks).values())
    scaled = w / np.linalg.norm(w, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs(model, theta, x), np.tanh(x @ scaled.T) @ u.T)


@pytest.mark.parametrize("rotary", [False, True])
def test_attention_is_softmax_attention(rotary):
    rng = np.random.default_rng(3)
    model = attention(3, 4, 2, rotary=rotary)
    theta, x = rng.standard_normal(model.size), rng.standard_normal((3, 3))
    q, k, v, o = (theta[i] for i in offsets_of(model.blocks).values())
    query, key = x @ q.T, x @ k.T
    if rotary:
        for rows in (query, key):
            for t in range(3):
                for j in range(2):
                    a = 2 * np.arctan(1 / (j + 2)) * t
                    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
                    rows[t, 2 * j : 2 * j + 2] = turn @ rows[t, 2 * j : 2 * j + 2]
    weights = np.exp(query @ key.T)
    expected = weights / weights.sum(axis=1, keepdims=True) @ x @ v.T @ o.T
    np.testing.assert_allclose(outputs(model, theta, x), expected)


def test_convolution_is_convolution():
    rng = np.random.default_rng(4)
    model = convolution(2, 3, 2, kernel=2, length=5, linear=True)
    theta, x = rng.standard_normal(model.size), rng.standard_normal((2, 5))
    c1, c2 = (theta[i] for i in offsets_of(model.blocks).values())
    c1, c2 = c1.reshape(3, 2, 2), c2.reshape(2, 3, 2)

    def conv(kernels, signal):
        return np.array([sum(np.correlate(s, k, "valid") for s, k in zip(signal, row, strict=True)) for row in kernels])

    np.testing.assert_allclose(outputs(model, theta, x.reshape(-1)), conv(c2, conv(c1, x)).T)


def test_exp_softmax_and_inverse_roots_over_floats_and_residues():
    z = np.array([[[-3.0, 0.0, 2.5]]])
    tape = Tape(FLOATS, TrueJets())
    e = exponential(tape.constant(z))
    np.testing.assert_allclose(e.value.real, np.exp(z))
    np.testing.assert_allclose(shares(e).value.real, np.exp(z) / np.exp(z).sum())

    ring = Residues()
    tape = Tape(ring, FormalJets(ring, 5))
    z = np.array([[3, PRIME - 3, 0]])
    value = exponential(tape.variable(Nilpotent(ring, {0: z, 1: np.ones_like(z)}))).value
    assert value.parts[0][0, 0] * value.parts[0][0, 1] % PRIME == 1  # e^z e^(-z) = 1
    assert value.parts[0][0, 2] == 1
    assert (value.parts[1] == value.parts[0]).all()  # exp' = exp

    r = np.array([[9, 25]])
    value = inverse_root(tape.variable(Nilpotent(ring, {0: r, 1: np.ones_like(r), 2: np.ones_like(r)}))).value
    h = value.parts[0]
    assert (h * h % PRIME * r % PRIME == 1).all()
    half = pow(2, -1, PRIME)
    assert ((value.parts[1] + half * (h * h % PRIME * h % PRIME)) % PRIME == 0).all()  # h' = - h^3 / 2
    with pytest.raises(InputError):
        inverse_root(tape.constant(np.array([[PRIME - 1]])))  # -1 is no square modulo 2^31 - 1


def test_inverse_root_has_the_right_derivatives_to_third_order():
    # d/dr r^(-1/2) at 1: -1/2, 3/4, -15/8
    parts = {0: np.array([[1.0]]), 1: np.array([[1.0]]), 2: np.array([[1.0]]), 4: np.array([[1.0]])}
    value = inverse_root(Tape(FLOATS, TrueJets()).variable(Nilpotent(FLOATS, parts))).value
    assert [float(value.parts[m][0, 0]) for m in (1, 3, 7)] == pytest.approx([-0.5, 0.75, -1.875])


FLOWS = [
    (lambda: deep_linear((2, 3, 2)), "gradient"),
    (lambda: exponential_network(2, 2), "gradient"),
    (lambda: attention(2, 2, 2), "gradient"),
    (lambda: attention(2, 2, 2, rotary=True), "gradient"),
    (lambda: chain((2, 3, 1), "square"), "gradient"),
    (lambda: normalised(2, 3, 1), "gradient"),
    (lambda: deep_linear((2, 3, 2)), "heavy_ball"),
    (lambda: deep_linear((2, 3, 2)), "heavy_ball:0.7"),
    (lambda: attention(2, 2, 2), "heavy_ball:0.5"),
    (lambda: matrix_factorisation(2, 3, 2), "mirror"),
    (lambda: convex_network(2, 3, 2), "mirror:U"),
]


@pytest.mark.parametrize(("build", "dynamics"), FLOWS)
def test_laws_stay_constant_along_integrated_flows(build, dynamics):
    """RK4 along a sum of fields: the drift of the laws falls with the fourth power of the step."""
    moved = flow(build(), dynamics)
    rng = np.random.default_rng(6)
    state = 0.5 * moved.state(FLOATS, rng)
    data = moved.family.draw(FLOATS, rng, 4)
    if dynamics.startswith("heavy"):
        state[0] = 0.0
        data = (np.full_like(data[0], 0.25), *data[1:])  # a sum of four fields has drift 1

    pace = 1.0 if dynamics.startswith("heavy") else 1 / np.linalg.norm(fields(moved.family, state, data).sum(axis=0))

    def speed(s):
        return pace * fields(moved.family, s, data).sum(axis=0)

    def drift(steps):
        s, h = state.copy(), 0.2 / steps
        for _ in range(steps):
            a = speed(s)
            b = speed(s + h / 2 * a)
            c = speed(s + h / 2 * b)
            s = s + h / 6 * (a + 2 * b + 2 * c + speed(s + h * c))
        changes = [np.abs(law.values(s) - law.values(state)).max() for law in moved.laws]
        return max(changes), np.abs(s - state).max()

    (coarse, moved_by), (fine, _) = drift(10), drift(40)
    assert moved.laws
    assert moved_by > 0.02
    assert fine < 1e-7
    assert fine < coarse / 50 or coarse < 1e-11


@pytest.mark.parametrize(("build", "dynamics"), FLOWS)
def test_rows_are_the_gradients_of_the_values(build, dynamics):
    moved = flow(build(), dynamics)
    rng = np.random.default_rng(8)
    state = moved.state(FLOATS, rng)
    if dynamics.startswith("heavy"):
        state[0] = 0.0  # rows leave out the factor e^(tau t)
    for law in moved.laws:
        h = 1e-6
        numeric = np.stack(
            [(law.values(state + h * e) - law.values(state - h * e)) / (2 * h) for e in np.eye(len(state))]
        )
        np.testing.assert_allclose(law.rows(FLOATS, state), numeric.T, atol=1e-6)


def test_heavy_ball_keeps_no_balance_and_gradient_flow_no_angular_momentum():
    model = deep_linear((2, 2, 2))
    assert [law.name for law in flow(model).laws] == ["matrix"]
    assert [law.name for law in flow(model, "heavy_ball").laws] == ["rotation"]
    # the mirror flow keeps what diagonal symmetries give: 2 of the 3 entries of the matrix
    assert sum(law.size for law in flow(matrix_factorisation(2, 2, 2), "mirror").laws) == 2


def test_patterns_take_turns_and_keep_fixed_inputs():
    widths, rows = (2, 3, 1), [activation("relu")]
    rng = np.random.default_rng(0)
    slopes = rng.integers(0, 2, (200, 3)).astype(float)
    fixed = np.stack([np.full(200, np.nan), np.arange(200.0)], axis=1)
    patterns = Patterns((slopes,), (np.zeros((200, 3)),), fixed)
    family = piecewise_family(widths, rows, patterns)
    _, x, gates, shifts = family.draw(Residues(), rng, 25)
    assert x.shape == (25, 64, 2)
    assert gates.shape == shifts.shape == (25, 64, 3)
    index = x[:, :, 1].astype(int)
    assert (slopes[index] == gates).all()
    counts = np.bincount(index.reshape(-1), minlength=200)
    assert counts.min() == counts.max() == 25 * 64 // 200


entries = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-3, 3)), max_size=8)


@settings(max_examples=60)
@given(entries, st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3)), max_size=3))
def test_affine_fields_are_their_matrices(linear, constant):
    fields_ = AffineFields.of(4, 1, [(0, *e) for e in linear], [(0, *c) for c in constant])
    a, c = np.zeros((4, 4)), np.zeros(4)
    for i, j, v in linear:
        a[i, j] += v
    for i, v in constant:
        c[i] += v
    theta = np.array([1.0, -2.0, 3.0, 5.0])
    assert (fields_.at(FLOATS, theta) == a @ theta + c).all()
    assert (fields_.transposed().at(FLOATS, theta) == a.T @ theta).all()
    ring = Residues()
    assert (fields_.at(ring, ring.array(theta)) == ring.array(a @ theta + c)).all()
    symmetric, skew = (a == a.T).all(), (a == -a.T).all() and not constant
    assert fields_.parity == (1 if symmetric else -1 if skew else 0)
    kept = np.array([0, 2])
    part = fields_.restricted(kept)
    expected = a[np.ix_(kept, kept)] @ theta[kept] + c[kept]
    if part.count:
        assert (part.at(FLOATS, theta[kept]) == expected).all()
    else:
        assert (expected == 0).all()


def test_paired_fields_are_the_action_of_matrices():
    rng = np.random.default_rng(9)
    incoming, outgoing = sides((2, 3, 2), 0)
    theta = rng.standard_normal(3 * 3 + 2 * 4)
    for sign in (1, -1):
        s = np.zeros((3, 3))
        s[0, 2], s[2, 0] = 1, sign
        expected = np.zeros_like(theta)
        expected[incoming] = s @ theta[incoming]
        expected[outgoing] = -s.T @ theta[outgoing]
        found = paired(17, incoming, outgoing, [(0, 2)], sign=sign).at(FLOATS, theta)[0]
        np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: chain((3,)),
        lambda: chain((2, 3, 1), ["relu", "relu"]),
        lambda: attention(2, 3, 2, rotary=True),
        lambda: convolution(1, 1, 1, kernel=4, length=5),
        lambda: flow(product(3), "adam"),
        lambda: flow(product(3), "heavy_ball:fast"),
        lambda: flow(product(3), "mirror:W1"),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(InputError):
        call()


SIZES = {
    convolution: ("inputs", "channels", "outputs", "kernel", "length"),
    glu: ("inputs", "hidden", "outputs"),
    swiglu: ("inputs", "hidden", "outputs"),
    mixture: ("inputs", "experts", "outputs"),
    convex_network: ("inputs", "hidden", "outputs"),
    matrix_factorisation: ("rows", "rank", "columns"),
    normalised: ("inputs", "hidden", "outputs"),
    exponential_network: ("inputs", "hidden", "outputs"),
    residual: ("inputs", "hidden", "blocks"),
    attention: ("inputs", "keys", "values", "heads", "outputs", "tokens"),
    polynomial_field: ("size",),
    product: ("size",),
}
USUAL = {"kernel": 2, "length": 5}


@pytest.mark.parametrize(("model", "name"), [(model, name) for model, names in SIZES.items() for name in names])
def test_a_size_is_a_whole_number_of_at_least_one(model, name):
    sizes = {n: USUAL.get(n, 2) for n in SIZES[model]}
    grown = model(**{**sizes, name: np.int64(sizes[name])})
    assert grown.size == model(**sizes).size
    for bad in (2.0, 0, -1, "2", True, [2], np.nan):
        with pytest.raises(InputError, match=rf"^{name}: .*; give a whole number >= 1$"):
            model(**{**sizes, name: bad})


@pytest.mark.parametrize("widths", [[2], [2, 0], [2, 2.5], "23", 3, [], [2, True]])
def test_widths_are_two_whole_numbers_or_more(widths):
    for model in (chain, deep_linear):
        with pytest.raises(InputError, match="widths"):
            model(widths)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mixture(2, 2, gate="hard"),
        lambda: mixture(2, 2, claim="yes"),
        lambda: attention(2, 2, 2, rotary=1),
        lambda: convolution(2, 2, 2, linear="no"),
        lambda: chain((2, 3, 1), bias=None),
        lambda: flow(3),
    ],
)
def test_other_options_are_refused_in_one_line(call):
    with pytest.raises(InputError, match=r"^\w+: .*; .*give .*$"):
        call()


def test_a_polynomial_field_is_the_same_whatever_the_ring():
    model = polynomial_field(3, degree=2, seed=4)
    ring = Residues()
    point = np.array([[2.0, -1.0, 3.0]])
    values = model.family.fields(at(point), (np.ones((1, 1)),), TrueJets()).real
    residues = model.family.fields(
        Nilpotent(ring, {0: ring.array(point)}), (np.ones((1, 1), np.int64),), FormalJets(ring, 0)
    )
    assert (residues.real == ring.array(values)).all()
