"""What the second layer shows of the first, against sampled one-sided derivatives and exhaustive cells."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.domains import Box
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.exchanges import hidden_neurons
from fiberscope.fibers.forms import canonical
from fiberscope.fibers.kinks import OrthantForm
from fiberscope.fibers.relatives import typed_network
from fiberscope.network import Network


def form_of(alpha, beta, jumps, linear=None):
    jumps = np.atleast_2d(np.array(jumps, dtype=float))
    alpha = np.array(alpha, dtype=float).reshape(jumps.shape[1], -1)
    linear = np.zeros((len(jumps), alpha.shape[1])) if linear is None else np.array(linear, dtype=float)
    return OrthantForm(np.zeros(len(jumps)), linear, jumps, alpha, np.array(beta, dtype=float))


def small_forms():
    """Canonical forms with small integers, so that traces coincide and jumps cancel often."""

    def build(values):
        n1, rows, seed = values
        rng = np.random.default_rng(seed)
        upper = rng.integers(-1, 2, (rows, n1)), rng.integers(-1, 2, rows)
        net = Network.from_arrays((np.eye(n1), np.zeros(n1)), upper, (rng.integers(-1, 2, (1, rows)), [0.0]))
        return OrthantForm.of(net)

    return st.tuples(st.integers(2, 3), st.integers(1, 5), st.integers(0, 10**6)).map(build)


def face_points(form, i, rng, count):
    """Random rational points of the open face; ratios with a large prime keep them off small-integer traces."""
    for _ in range(count):
        y = [Fraction(int(v), 100_003) for v in rng.integers(1, 10**6, form.width)]
        if rng.random() < 0.5:
            y = [v * Fraction(int(rng.integers(1, 50)), 7) ** int(rng.integers(-2, 3)) for v in y]
        y[i] = Fraction(0)
        yield y


def derivative(form, i, y):
    """(g(y + e) - g(y)) / e for e so small that no hyperplane is in between, from values of g only."""
    e = Fraction(1, 10**40)
    step = [v + e * (k == i) for k, v in enumerate(y)]
    return tuple((a - b) / e for a, b in zip(form.exact(step), form.exact(y), strict=True))


@given(form=small_forms(), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_jumps_are_one_sided_derivatives(form, seed):
    rng = np.random.default_rng(seed)
    for i in range(form.width):
        for y in face_points(form, i, rng, 3):
            assert form.jump(i, y) == derivative(form, i, y)
        y = [Fraction(k != i) for k in range(form.width)]  # often on a trace
        assert form.jump(i, y) == derivative(form, i, y)


@given(form=small_forms(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_visible_exactly_where_some_face_point_shows_a_jump(form, seed):
    rng = np.random.default_rng(seed)
    for i, seen in enumerate(form.visible()):
        sampled = any(any(derivative(form, i, y)) for y in face_points(form, i, rng, 40))
        assert seen >= sampled
        y = form.visible_point(i)
        assert (y is not None) == seen
        if seen:
            assert y[i] == 0 and all(v > 0 for k, v in enumerate(y) if k != i)
            assert all(rationals.fractions(form.alpha) @ np.array(y) + rationals.fractions(form.beta))
            assert any(derivative(form, i, y))


def test_invisible_by_cancelling_traces():
    """Two hyperplanes with one trace on y_0 = 0, whose jumps there cancel: invisible, although neither is hidden."""
    form = form_of([[1, 1, -1], [2, 1, -1]], [1, 1], [2, -1])
    assert form.visible().tolist() == [False, True, True]
    assert form.visible_point(0) is None and form.bent_point(0) is None
    assert form.hidden() == ()
    assert form.slab(0) == 0  # the two diverge off the face: invisible but rigid
    opposite = form_of([[-1, 1, -1], [1, -1, 1]], [1, -1], [2, -2], [[2, 0, 0]])
    assert opposite.visible().tolist() == [False, True, True]


def test_a_step_visible_only_beyond_a_far_trace():
    """D_0 = 0 except where y_1 > 2^40: random points miss it, points beside the trace do not."""
    form = form_of([[1, 1]], [-(2.0**40)], [3])
    y = form.visible_point(0)
    assert y[1] > 2**40 and form.jump(0, y) == (3,)
    crowded = form_of([[1, 2**0, 0], [0, 0, 1], [0, 1, -1]], [-(2.0**60), -1, 0], [3, 1, 1])
    assert crowded.visible_point(0)[1] > 2**60


@pytest.mark.parametrize(
    ("alpha", "beta", "jumps", "linear", "slabs", "hidden"),
    [
        ([[2, -1]], [-3], [5], None, [Fraction(3, 2), 0], (0,)),
        ([[2, -1], [1, -3]], [-4, -6], [1, 1], None, [2, 0], (0,)),
        ([[1, -1]], [0], [1], None, [0, 0], (0,)),
        ([[2, 1]], [-3], [5], None, [0, 0], ()),
        ([[1, -1]], [-1], [1], [[1, 0]], [0, 0], ()),
        ([[-1, 1]], [1], [1], [[1, 0]], [1, 0], (0,)),  # turned round: relu(1 - y0 + y1) + y0
        ([[0, 1]], [-1], [1], None, [None, 1], (1,)),  # y0 is irrelevant
        ([[1, 0], [1, 0]], [-1, -2], [1, 1], None, [1, None], (0,)),
    ],
)
def test_slabs_and_hidden_neurons(alpha, beta, jumps, linear, slabs, hidden):
    form = form_of(alpha, beta, jumps, linear)
    assert [form.slab(i) for i in range(2)] == slabs
    assert form.hidden() == hidden


@given(form=small_forms(), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_slabs_against_values_of_g(form, seed):
    """g is constant in y_i below tau_i, and not just above it."""
    rng = np.random.default_rng(seed)
    for i in range(form.width):
        tau = form.slab(i)
        top = Fraction(10**3) if tau is None else tau
        for y in face_points(form, i, rng, 3):
            for share in (Fraction(1, 2), Fraction(1)):
                raised = [v + share * top * (k == i) for k, v in enumerate(y)]
                assert form.exact(raised) == form.exact(y)
        if tau is None:
            continue
        # just above tau some point differs: next to traces, which in the plane cross y_i = tau at 0, 1 or 2 here
        if form.width == 2:
            above = tau + Fraction(1, 100)
            choices = [Fraction(v, 200) for v in (1, 100, 199, 201, 300, 399, 401, 10**4)]
            pairs = [([v, above], [v, tau]) if i else ([above, v], [tau, v]) for v in choices]
            assert any(form.exact(y) != form.exact(low) for y, low in pairs)


@given(form=small_forms())
@settings(max_examples=40, deadline=None)
def test_hidden_as_the_normal_form_finds_them(form):
    n1 = form.width
    upper = Network.from_arrays(
        (np.vstack([form.alpha, np.eye(n1), np.eye(n1)]), np.concatenate([form.beta, np.zeros(n1), np.zeros(n1)])),
        (np.column_stack([form.jumps, form.linear, np.zeros_like(form.linear)]), form.constant),
    )
    again = OrthantForm.of(Network.from_arrays((np.eye(n1), np.zeros(n1)), *((x.weight, x.bias) for x in upper.layers)))
    chain = canonical(upper, Box.nonnegative(n1)).chain
    if len(chain.weights) == 2:
        from dataclasses import replace

        eye = replace(upper.layers[0], weight=np.eye(n1), bias=np.zeros(n1))
        whole = Network((eye, *upper.layers))
        stacked = canonical(whole, linear_part=False).chain
        stacked.weights = [np.eye(n1), *chain.weights]
        stacked.biases = [np.zeros(n1), *chain.biases]
        stacked.activations = [eye.activation, *chain.activations]
        stacked.skip = chain.skip
        assert list(again.hidden()) == hidden_neurons(stacked)
    assert again.hidden() == form.hidden()


@given(form=small_forms(), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_bent_points_are_on_one_trace_with_jumps_on_both_sides(form, seed):
    for i in range(form.width):
        y = form.bent_point(i)
        if y is None:
            continue
        assert y[i] == 0 and all(v > 0 for k, v in enumerate(y) if k != i)
        values = rationals.fractions(form.alpha) @ np.array(y) + rationals.fractions(form.beta)
        (h,) = np.flatnonzero(values == 0)
        assert form.alpha[h, i] != 0
        k = next(k for k in range(form.width) if k != i and form.alpha[h, k] != 0)
        for side in (1, -1):
            moved = list(y)
            moved[k] += side * Fraction(1, 10**30)
            assert any(derivative(form, i, moved))


def test_bent_points_exist_for_ordinary_networks():
    form = OrthantForm.of(Network.random((6, 5, 8, 2), seed=0))
    assert all(form.bent_point(i) is not None for i in range(5))
    one_sided = form_of([[1, 1]], [-1], [1])  # D_0 is 0 on one side of the only trace
    assert one_sided.bent_point(0) is None and one_sided.visible_point(0) is not None


def test_points_depend_on_the_form_only():
    net = typed_network((4, 4, 6, 2), "SSSAAD", seed=3)
    first, second = OrthantForm.of(net), OrthantForm.of(net)
    assert [first.visible_point(i) for i in range(4)] == [second.visible_point(i) for i in range(4)]
    assert [first.bent_point(i) for i in range(4)] == [second.bent_point(i) for i in range(4)]


def test_exact_where_floats_cannot_tell():
    """1e300 against 1e-300, and a jump that is 2^-200 of its terms."""
    huge = form_of([[1e300, -1e300], [1e-300, -2e-300]], [1e-300, 1e300], [1e-300, 1e300])
    assert huge.visible().tolist() == [True, True]
    y = huge.visible_point(0)
    assert any(derivative(huge, 0, y)) and huge.jump(0, y) == derivative(huge, 0, y)
    tiny = Fraction(1, 2**200)
    alpha = np.array([[Fraction(1), Fraction(1), Fraction(-1)], [Fraction(1), Fraction(2), Fraction(-1)]], dtype=object)
    jumps = np.array([[Fraction(1), -1 + tiny]], dtype=object)
    zero = np.array([Fraction(0)], dtype=object)
    form = OrthantForm(zero, np.array([[Fraction(0)] * 3], dtype=object), jumps, alpha,
                       np.array([Fraction(1), Fraction(1)], dtype=object))  # fmt: skip
    y = [Fraction(0), Fraction(10), Fraction(1)]
    assert form.jump(0, y) == (tiny,)
    assert form.bent_point(0) is not None


def test_signs_where_float_sums_have_the_wrong_one():
    """Decimal fractions in float64: alpha y + beta is off by an ulp of the terms, its sign often wrong."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        alpha, y = rng.integers(1, 100, 30) / 10, rng.integers(1, 100, 30) / 10
        total = float(np.dot(alpha, y))
        beta = -total + float(rng.choice([-1, 1]) * np.spacing(total))
        exact = sum(Fraction(a) * Fraction(b) for a, b in zip(alpha, y, strict=True)) + Fraction(beta)
        form = form_of([[-1, *alpha]], [beta], [-1])  # D_0 = 1 where the sum is positive
        assert form.jump(0, [0, *y]) == (1 if exact > 0 else 0,)
        wrong += (np.dot(alpha, y) + beta) * float(exact) < 0
    assert wrong > 20


def test_equal_traces_modulo_the_prime_are_told_apart():
    """Entries that vanish modulo 2^61 - 1 must not make two different traces one."""
    p = 2**61 - 1
    rows = [[1, p, -1], [1, p, -2]]
    alpha = np.array([[Fraction(v) for v in row] for row in rows], dtype=object)
    zero, ones = np.array([Fraction(0)] * 2, dtype=object), np.array([[Fraction(1), Fraction(-1)]], dtype=object)
    form = OrthantForm(zero[:1], np.array([[Fraction(0)] * 3], dtype=object), ones, alpha, zero)
    assert form.visible()[0]
    assert any(form.jump(0, form.visible_point(0)))


def test_forms_of_networks():
    """2 relu(y0 - y1 - 1) + 3 y0 + 1, its always-active neuron folded, the dead one gone."""
    net = Network.from_arrays((np.eye(2), [0.0, 0.0]), ([[1, -1], [3, 0], [-1, -1]], [-1, 1, -1]), ([[2, 1, 9]], [0.0]))
    form = OrthantForm.of(net)
    assert form.exact([4, 1]) == net.exact([4, 1]) == (17,)
    assert (form.linear.tolist(), form.jumps.tolist(), form.constant.tolist()) == ([[3, 0]], [[2]], [1])
    assert form.readers(0) == (0,)
    plain = OrthantForm.of(Network.from_arrays((np.eye(1), [0.0]), ([[1.0]], [1.0]), ([[2.0]], [0.0])))
    assert plain.alpha.shape == (0, 1) and plain.visible().tolist() == [True] and plain.slab(0) == 0
    assert plain.visible_point(0) == (0,) and plain.hidden() == ()
    flat = OrthantForm.of(Network.from_arrays((np.eye(1), [0.0]), ([[-1.0]], [-1.0]), ([[2.0]], [0.0])))
    assert flat.visible().tolist() == [False] and flat.slab(0) is None and flat.visible_point(0) is None


def test_refusals():
    with pytest.raises(ScopeError, match="three affine layers"):
        OrthantForm.of(Network.random((2, 3, 1), seed=0))
    form = form_of([[1, -1]], [-1], [1])
    for bad in ([1, 1], [0, -1], [0]):
        with pytest.raises(InputError, match="not on the face"):
            form.jump(0, bad)
    with pytest.raises(InputError, match="do not fit"):
        OrthantForm(np.zeros(1), np.zeros((1, 2)), np.zeros((1, 1)), np.zeros((1, 3)), np.zeros(1))
