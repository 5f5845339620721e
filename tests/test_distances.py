"""Distances: sound against exact values everywhere, tight in closed forms, never a wrong answer."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fiberscope
from fiberscope.activations import activation, names
from fiberscope.domains import Box
from fiberscope.errors import InputError, UndecidedError
from fiberscope.fibers.alignment import Move, align, moved
from fiberscope.fibers.ascent import Ascent, exact_gap
from fiberscope.fibers.distances import Bound, _halves, _Pool, distance
from fiberscope.fibers.pairings import paired_layers, value_layer
from fiberscope.fibers.relaxations import secants, strips
from fiberscope.fibers.zonotopes import difference_spans, spans_apart
from fiberscope.network import Network
from fiberscope.results import Answer, Budget, Rigor

EXACT = ["relu", "leaky_relu", "abs", "hard_tanh", "clip", "square"]


def row_of(name):
    return activation(name, "1/2", "-1", "1/3", "1/7") if name == "polynomial" else activation(name)


def wild(rng, shape, reach):
    """Numbers of either sign with magnitudes from 10^-reach to 10^reach, some zeros among them."""
    return rng.standard_normal(shape) * 10.0 ** rng.integers(-reach, reach + 1, shape) * (rng.random(shape) < 0.8)


def noisy(net, noise, rng):
    theta = np.asarray(net.theta, dtype=np.float64)
    return net.with_theta(theta * (1 + noise * rng.standard_normal(theta.size)))


def shuffled(net, rng, *, powers=True):
    moves = []
    for k, layer in enumerate(net.hidden):
        factors = [
            Fraction(2) ** int(v) if powers else Fraction(int(v) + 8, 5) for v in rng.integers(-3, 4, layer.n_out)
        ]
        if layer.activation.homogeneity != 1:
            factors = [Fraction(1)] * layer.n_out
        moves.append(Move(k, tuple(rng.permutation(layer.n_out).tolist()), tuple(factors)))
    return moved(net, moves)


def points(box, rng, count=4):
    corners = np.where(rng.random((count, box.dimension)) < 0.5, box.lower, box.upper)
    return np.concatenate([np.clip(box.sample(count, rng), box.lower, box.upper), corners])


# ---- one activation on an interval


@pytest.mark.parametrize("name", [n for n in names() if n != "identity"])
@given(
    ends=st.tuples(
        st.floats(-30, 30) | st.sampled_from([-1.0, 0.0, 1.0, 6.0, 1e-300]),
        st.floats(0, 40) | st.sampled_from([0.0, 1e-9]),
    ),
    inside=st.lists(st.floats(0, 1), min_size=2, max_size=4),
)
@settings(max_examples=40)
def test_strips_and_secants_hold_on_the_interval(name, ends, inside):
    row = row_of(name)
    low = ends[0]
    high = low + ends[1]
    strip = strips(row, np.array([low]), np.array([high]))
    least, most = secants(row, np.array([low]), np.array([high]))
    assert least[0] <= most[0]
    z = [Fraction(min(max(low + t * (high - low), low), high)) for t in [*inside, 0, 1]]
    z += [p.hi for p in row.pieces or () if p.hi is not None and low <= p.hi <= high]
    values = [enclosed(row, q) for q in z]
    for q, (down, up) in zip(z, values, strict=True):
        if np.isfinite(strip.room[0]):
            line = Fraction(strip.slope[0]) * q + Fraction(strip.shift[0])
            assert down - line <= Fraction(strip.room[0]) and line - up <= Fraction(strip.room[0])
    for (p, (down_p, up_p)), (q, (down_q, up_q)) in itertools.combinations(zip(z, values, strict=True), 2):
        if p != q and np.isfinite(least[0]) and np.isfinite(most[0]):
            (p, down_p, up_p), (q, down_q, up_q) = sorted([(p, down_p, up_p), (q, down_q, up_q)])
            assert up_q - down_p >= Fraction(least[0]) * (q - p)
            assert down_q - up_p <= Fraction(most[0]) * (q - p)


def enclosed(row, q):
    exact = row.value(q)
    if exact is not None:
        return exact, exact
    down, up = row.enclose(np.array([np.nextafter(float(q), -np.inf)]), np.array([np.nextafter(float(q), np.inf)]))
    return Fraction(down[0]), Fraction(up[0])


def test_a_relu_strip_is_the_best_one():
    strip = strips(activation("relu"), np.array([-1.0, -2.0, 1.0]), np.array([3.0, -1.0, 2.0]))
    np.testing.assert_allclose(strip.slope, [0.75, 0, 1])
    np.testing.assert_allclose(strip.room, [0.375, 0, 0])
    np.testing.assert_allclose(strip.shift, [0.375, 0, 0])


def test_slopes_of_smooth_activations_are_sharp():
    low, high = np.array([0.5]), np.array([1.0])
    for name in ("tanh", "sigmoid", "softplus"):
        least, most = secants(activation(name), low, high)
        derivative = activation(name).derivative
        ends = sorted([derivative(low)[0], derivative(high)[0]])
        assert ends[0] - 1e-12 < least[0] <= ends[0] + 1e-15 and ends[1] - 1e-15 <= most[0] < ends[1] + 1e-12


# ---- sweeps over boxes


def assert_covers(found, f, g, low, high, rng, count=2):
    for k in range(len(low)):
        for x in points(Box(low[k], high[k]), rng, count).tolist():
            gaps = [abs(a - b) for a, b in zip(f.exact(x), g.exact(x), strict=True)]
            for spans in found:
                for bound, gap in zip(spans.upper[k].tolist(), gaps, strict=True):
                    assert bound == np.inf or gap <= Fraction(bound)


def some_boxes(rng, n, count, spread):
    center = rng.standard_normal((count, n)) * spread
    radius = np.abs(rng.standard_normal((count, n))) * 10.0 ** rng.integers(-6, 1, (count, 1)) * spread
    return center - radius * (rng.random((count, n)) < 0.9), center + radius


@pytest.mark.parametrize("name", EXACT)
@given(
    seed=st.integers(0, 10**6), noise=st.sampled_from([0.0, 1e-15, 1e-7, 1e-2, 1.0]), keep=st.sampled_from([0, 1, 16])
)
@settings(max_examples=15)
def test_sweeps_enclose_exact_differences(name, seed, noise, keep):
    rng = np.random.default_rng(seed)
    f = Network.random((2, *rng.integers(1, 7, int(rng.integers(1, 4))), 2), activation=name, seed=seed)
    g = shuffled(noisy(f, noise, rng), rng, powers=seed % 2 == 0)
    low, high = some_boxes(rng, 2, 4, 1.0)
    layers = paired_layers(f, align(f, g))
    found = [difference_spans(layers, low, high, keep=keep, linear=linear) for linear in (True, False)]
    first, second = ([value_layer(row) for row in net.layers] for net in (f, g))
    found.append(spans_apart(first, second, low, high, keep=keep))
    assert_covers(found, f, g, low, high, rng)


@given(
    seed=st.integers(0, 10**6),
    reach=st.sampled_from([3, 30, 150, 300]),
    name=st.sampled_from(["relu", "leaky_relu", "abs"]),
)
@settings(max_examples=80)
def test_sweeps_hold_where_floats_underflow_and_overflow(seed, reach, name):
    rng = np.random.default_rng(seed)
    widths = [2, *rng.integers(1, 4, int(rng.integers(1, 5))).tolist(), 1]
    pairs = [(wild(rng, (b, a), reach), wild(rng, b, reach)) for a, b in zip(widths, widths[1:], strict=False)]
    f = Network.from_arrays(*pairs, activation=name)
    g = noisy(f, rng.choice([0.0, 1e-16, 1e-3]), rng)
    ends = np.sort(wild(rng, (2, 3, 2), reach), axis=0)
    layers = paired_layers(f, align(f, g))
    found = [difference_spans(layers, *ends, linear=linear) for linear in (True, False)]
    assert_covers(found, f, g, *ends, rng, 1)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_cancellation_of_large_terms_is_paid_for(seed):
    # the difference is tiny against the values, so rounding decides
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    big = rng.standard_normal((n, 2)) * 1e8
    out = rng.standard_normal((1, n)) * 1e8
    f = Network.from_arrays((np.vstack([big, big]), rng.standard_normal(2 * n)), (np.hstack([out, -out]), [0.0]))
    theta = np.asarray(f.theta, dtype=np.float64)
    up = rng.random(theta.size) < 0.3
    g = f.with_theta(np.where(up, np.nextafter(theta, np.inf), theta))
    low, high = some_boxes(rng, 2, 3, 1.0)
    assert_covers([difference_spans(paired_layers(f, align(f, g)), low, high)], f, g, low, high, rng)
    none = f.with_theta(np.zeros(f.parameter_count))  # the values of f alone
    first, second = ([value_layer(row) for row in net.layers] for net in (f, none))
    assert_covers([spans_apart(first, second, low, high)], f, none, low, high, rng)


@pytest.mark.parametrize("seed", range(20))
def test_rounding_of_the_difference_itself_is_paid_for(seed):
    # biases differ by whole numbers, exactly; the sum of their products cancels far beneath its terms
    rng = np.random.default_rng(seed)
    shift = rng.integers(1, 2**20, 40).astype(float)
    weight = rng.standard_normal(40) * 1e8
    f = Network.from_arrays((np.zeros((40, 1)), np.full(40, 2.0**30)), (weight[None], [0.0]))
    g = Network.from_arrays((np.zeros((40, 1)), 2.0**30 + shift), (weight[None], [-float(weight @ shift)]))
    low, high = np.zeros((1, 1)), np.ones((1, 1))
    assert_covers([difference_spans(paired_layers(f, align(f, f)), low, high)], f, f, low, high, rng)
    moves = align(f, g)
    same = replace(moves, moves=(Move(0, tuple(range(40)), (Fraction(1),) * 40),))
    assert_covers([difference_spans(paired_layers(f, same), low, high)], f, g, low, high, rng)


def test_a_bias_that_is_no_float_differs_from_its_rounding():
    f = Network.from_arrays(([[1.0]], [Fraction(1, 3)]))
    g = Network.from_arrays(([[1.0]], [1 / 3]))
    low, high = np.zeros((1, 1)), np.zeros((1, 1))
    spans = difference_spans(paired_layers(f, align(f, g)), low, high)
    assert_covers([spans], f, g, low, high, np.random.default_rng(0))
    assert spans.upper[0, 0] < 1e-15


def test_a_weight_of_g_that_is_no_float_differs_from_its_rounding():
    f = Network.from_arrays(([[1 / 3]], [0.0]))
    g = Network.from_arrays(([[Fraction(1, 3)]], [0]))
    low, high = np.ones((1, 1)), np.ones((1, 1))
    spans = difference_spans(paired_layers(f, align(f, g)), low, high)
    assert_covers([spans], f, g, low, high, np.random.default_rng(0))
    assert spans.upper[0, 0] < 1e-15


@pytest.mark.parametrize("x", [1e-20, 3e-22, 7e-23])
def test_products_that_underflow_are_paid_for(x):
    # 3e-301 x is subnormal and loses digits, which the next weight makes large again
    pairs = ([[3e-301]], [0.0]), ([[1e300]], [0.0]), ([[1e22]], [0.0])
    f = Network.from_arrays(*pairs, activation="identity")
    none = f.with_theta(np.zeros(f.parameter_count))
    low = high = np.full((1, 1), x)
    first, second = ([value_layer(row) for row in net.layers] for net in (f, none))
    assert_covers([spans_apart(first, second, low, high)], f, none, low, high, np.random.default_rng(0))


def test_an_error_of_f_counts_with_its_sign_in_the_difference():
    # g is off, f = 4 max(0, x) against 3 times nothing: the relaxed f and the gap of the second layer share a symbol
    f = Network.from_arrays(([[1.0]], [0.0]), ([[4.0]], [0.0]))
    g = Network.from_arrays(([[1.0]], [-2.0]), ([[3.0]], [0.0]))
    low, high = np.full((1, 1), -1.0), np.ones((1, 1))
    spans = difference_spans(paired_layers(f, align(f, g)), low, high)
    assert 4 <= spans.upper[0, 0] < 4 + 1e-9


def test_rational_weights_are_enclosed():
    third = Fraction(1, 3)
    f = Network.from_arrays(([[third], [-third]], [third, 0]), ([[third, third]], [0]))
    g = Network.from_arrays(([[third], [-third]], [third, 0]), ([[third, third]], [Fraction(1, 10**25)]))
    box = Box.parse("[-1,1]", 1)
    low, high = box.lower[None], box.upper[None]
    assert_covers(
        [difference_spans(paired_layers(f, align(f, g)), low, high)], f, g, low, high, np.random.default_rng(0)
    )
    found = distance(f, g, box, budget=Budget(cells=1))
    assert found.exact == Fraction(1, 10**25) and 1e-25 <= found.upper < 1e-14


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu", "sin"])
def test_smooth_activations_are_enclosed(name):
    rng = np.random.default_rng(1)
    f = Network.random((2, 5, 4, 2), activation=name, seed=1)
    g = noisy(f, 1e-3, rng)
    low, high = some_boxes(rng, 2, 4, 1.0)
    upper = difference_spans(paired_layers(f, align(f, g)), low, high).upper
    for k in range(4):
        for x in points(Box(low[k], high[k]), rng, 20):
            assert (np.abs(f(x) - g(x)) <= upper[k] + 1e-14).all()
    assert upper.max() < 10  # says something


def test_small_boxes_converge_to_the_difference():
    rng = np.random.default_rng(0)
    f = Network.random((3, 20, 20, 2), seed=0)
    g = noisy(f, 0.05, rng)
    x = rng.standard_normal((20, 3))
    layers = paired_layers(f, align(f, g))
    first, second = ([value_layer(row) for row in net.layers] for net in (f, g))
    for size, room in ((1e-2, 0.5), (1e-6, 1e-4), (0.0, 1e-10)):
        for spans in (
            difference_spans(layers, x - size, x + size), spans_apart(first, second, x - size, x + size)
        ):  # fmt: skip
            assert (spans.upper - np.abs(f(x) - g(x)) < room).all() and (spans.upper >= np.abs(f(x) - g(x))).all()


def test_pairing_beats_two_separate_sweeps_by_far():
    f = Network.random((4, 30, 30, 3), seed=2)
    g = noisy(f, 1e-6, np.random.default_rng(2))
    low, high = np.full((1, 4), -1.0), np.ones((1, 4))
    paired = difference_spans(paired_layers(f, align(f, g)), low, high).upper.max()
    first, second = ([value_layer(row) for row in net.layers] for net in (f, g))
    assert paired < 1e-3 * spans_apart(first, second, low, high).upper.max()


def test_opposite_phases_are_no_worse_than_the_values():
    # f is off and g is on everywhere: the difference is g's own value, up to rounding
    f = Network.from_arrays(([[1.0]], [-2.0]), ([[1.0]], [0.0]))
    g = Network.from_arrays(([[1.0]], [2.0]), ([[1.0]], [0.0]))
    spans = difference_spans(paired_layers(f, align(f, g)), np.array([[-1.0]]), np.array([[1.0]]))
    assert 3 <= spans.upper[0, 0] < 3 + 1e-9


def test_an_input_without_influence_is_never_split():
    f = Network.from_arrays(([[1.0, 0.0], [-2.0, 0.0]], [0.1, 0.0]), ([[1.0, 1.0]], [0.0]))
    g = noisy(f, 0.1, np.random.default_rng(0))
    spans = difference_spans(paired_layers(f, align(f, g)), np.full((1, 2), -1.0), np.ones((1, 2)))
    assert spans.scores[0, 0] > 0 == spans.scores[0, 1]


# ---- bisection


@given(seed=st.integers(0, 10**6), steps=st.integers(1, 40))
@settings(max_examples=40)
def test_halves_cover_exactly(seed, steps):
    rng = np.random.default_rng(seed)
    low = rng.standard_normal(3) * 10.0 ** rng.integers(-300, 300, 3)
    high = np.where(rng.random(3) < 0.3, np.nextafter(low, np.inf), low + np.abs(low) * rng.random(3))
    pool = _Pool(low, high, np.inf)
    for _ in range(steps):
        if not pool.size:
            break
        a, b, known, share = pool.take(int(rng.integers(1, 5)), best=bool(rng.random() < 0.5))
        axis, middle, proper = _halves(a, b, rng.random(a.shape) * (rng.random() < 0.8))
        rows = np.arange(len(axis))
        assert ((middle > a[rows, axis]) & (middle < b[rows, axis]))[proper].all()
        assert not proper[(np.nextafter(a, np.inf) >= b).all(axis=1)].any()
        before = volume(a[proper], b[proper])
        size = pool.size
        pool.split(a[proper], b[proper], known[proper], share[proper], axis[proper], middle[proper])
        assert volume(pool.low[size:], pool.high[size:]) == before  # inside, with one face in common: a partition
        assert (pool.low >= low).all() and (pool.high <= high).all()
        count = int(proper.sum())
        for k, (i, at) in enumerate(zip(axis[proper], middle[proper], strict=True)):
            assert pool.high[size + k, i] == at == pool.low[size + count + k, i]


def volume(low, high):
    sides = (
        [Fraction(b) - Fraction(a) for a, b in zip(x, y, strict=True)]
        for x, y in zip(low.tolist(), high.tolist(), strict=True)
    )
    return sum((s[0] * s[1] * s[2] for s in sides), Fraction(0))


def test_the_pool_hands_out_the_worst_boxes_or_the_newest():
    pool = _Pool(np.zeros(1), np.ones(1), 9.0)
    pool.take(1, best=True)
    for k, upper in enumerate([3.0, 7.0, 5.0]):
        at = np.array([[float(k)]])
        pool.split(at, at + 1, np.array([upper]), np.ones(1), np.array([0]), at[0] + 0.5)
    assert pool.take(2, best=False)[2].tolist() == [5.0, 5.0]
    assert sorted(pool.take(2, best=True)[2].tolist()) == [7.0, 7.0] and pool.largest == 3.0


# ---- answers


def test_closed_forms():
    # |x| against 2 max(x, 0) + max(-x, 0): they differ by max(x, 0)
    f = Network.from_arrays(([[1.0], [-1.0]], None), ([[1.0, 1.0]], None))
    g = Network.from_arrays(([[-1.0], [1.0]], None), ([[1.0, 2.0]], None))
    found = distance(f, g, Box.parse("[-3,2]", 1))
    assert found.exact == 2 and found.lower == 2 <= found.upper < 2 * 1.04 and found.witness.tolist() == [2.0]
    assert found.answer is None and found.rigor is Rigor.INTERVAL
    assert distance(f, g, Box.parse("[-3,-1]", 1)).upper < 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_one_dimensional_distances_against_every_kink(seed):
    rng = np.random.default_rng(seed)
    f = Network.random((1, 6, 5, 2), seed=seed)
    g = shuffled(noisy(f, 0.2, rng), rng)
    found = distance(f, g, Box.parse("[-2,2]", 1), budget=Budget(cells=3000))
    grid = np.linspace(-2, 2, 40001)[:, None]
    truth = np.abs(f(grid) - g(grid)).max()
    assert truth <= found.upper <= truth * 1.05 + 1e-9
    assert found.lower >= 0.98 * truth and found.lower <= float(found.exact)
    assert found.exact == max(
        abs(a - b) for a, b in zip(f.exact(found.witness.tolist()), g.exact(found.witness.tolist()), strict=True)
    )


@given(seed=st.integers(0, 10**6), factor=st.sampled_from([0.5, 0.99, 1.01, 1.5, 4.0]), shape=st.integers(0, 2))
@settings(max_examples=40)
def test_answers_are_never_wrong(seed, factor, shape):
    rng = np.random.default_rng(seed)
    f = Network.random((2, 7, 5, 2), seed=seed)
    g = shuffled(noisy(f, 0.1, rng), rng, powers=False)
    if shape == 1:
        g = Network.random((2, 4, 2), seed=seed + 1)
    if shape == 2:
        g = Network.random((2, 7, 5, 2), activation="abs", seed=seed + 1)
    box = Box(rng.uniform(-1, 0, 2), rng.uniform(0, 1, 2))
    search = Ascent(f, g, box, 1)
    search.search(2000, 32, 30)
    seen = exact_gap(f, g, search.point)
    below = float(seen) * factor
    if below <= 0:
        return
    found = distance(f, g, box, below=below, budget=Budget(cells=600), seed=seed)
    assert found.upper == np.inf or Fraction(found.upper) >= seen
    if found.answer is Answer.YES:
        assert seen < below and Fraction(found.upper) < Fraction(below)
    if found.answer is Answer.NO:
        x = found.witness
        assert box.contains(x)
        gap = max(abs(a - b) for a, b in zip(f.exact(x.tolist()), g.exact(x.tolist()), strict=True))
        assert gap == found.exact >= Fraction(below)
    if factor <= 0.5:
        assert found.answer is Answer.NO
    if factor >= 4.0 and shape == 0:
        assert found.answer is Answer.YES


def test_a_spike_in_a_corner_is_found_or_left_open():
    # f - g = 1000 max(0, x + y - 1.999): 1 at one corner, 0 on almost all of the box
    f = Network.from_arrays(([[1.0, 1.0]], [-1.999]), ([[1000.0]], [0.0]))
    g = Network.from_arrays(([[1.0, 1.0]], [-1.999]), ([[0.0]], [0.0]))
    assert distance(f, g, Box.parse("[0,1]", 2), below=0.5).answer is Answer.NO
    assert distance(f, g, Box.parse("[0,1]", 2), below=1.01).answer is Answer.YES


def test_a_spike_inside_is_found_by_splitting():
    # a tent of height 1 and width 2^-9 around 1/3, in one of two inputs
    scale = 2.0**10
    weight, bias = np.array([[scale, 0.0]] * 3), -scale / 3 + np.array([1.0, 0.0, -1.0])
    f = Network.from_arrays((weight, bias), ([[1.0, -2.0, 1.0]], [0.0]))
    g = Network.from_arrays((weight, bias), ([[0.0, 0.0, 0.0]], [0.0]))
    found = distance(f, g, Box.parse("[0,1]", 2), below=0.9)
    assert found.answer is Answer.NO and abs(found.witness[0] - 1 / 3) < 1e-3


def test_a_threshold_that_is_met_exactly_is_refuted():
    f = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    g = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.5]))
    box = Box.parse("[0,1]", 1)
    assert distance(f, g, box, below=0.5).answer is Answer.NO
    assert distance(f, g, box, below=Fraction(1, 2) + Fraction(1, 10**9)).answer is Answer.YES
    close = distance(f, g, box, below=Fraction(1, 2) + Fraction(1, 10**40), budget=Budget(cells=50))
    assert close.answer is Answer.UNDECIDED and close.lower == 0.5 < close.upper
    point = Box(np.ones(1), np.ones(1))  # that cannot be split
    stuck = distance(f, g, point, below=Fraction(1, 2) + Fraction(1, 10**40))
    assert stuck.answer is Answer.UNDECIDED and stuck.lower == 0.5 < stuck.upper < 0.5 + 1e-9


def test_the_same_function_has_distance_zero_everywhere():
    f = Network.random((3, 8, 8, 2), seed=0)
    for g in (f, shuffled(f, np.random.default_rng(1))):
        found = distance(f, g, below=1e-300)
        assert (found.lower, found.upper, found.answer, found.boxes) == (0.0, 0.0, Answer.YES, 0)
    third = Network.from_arrays(([[Fraction(1, 3)], [1]], [0, Fraction(1, 7)]), ([[Fraction(2, 3), 5]], [0]))
    assert distance(third, shuffled(third, np.random.default_rng(2))).upper == 0


def test_one_changed_bit_is_no_zero():
    f = Network.random((3, 8, 8, 2), seed=0)
    theta = np.asarray(f.theta, dtype=np.float64)
    for k in (0, 30, theta.size - 1):
        changed = theta.copy()
        changed[k] = np.nextafter(changed[k], 9)
        g = shuffled(f.with_theta(changed), np.random.default_rng(k))
        found = distance(f, g, Box.parse("[-1,1]", 3), budget=Budget(cells=2))
        assert 0 < found.upper < 1e-12
    assert distance(f, g).upper == np.inf


def test_generic_rescaling_of_float32_is_certified_near():
    rng = np.random.default_rng(0)
    f = Network.random((20, 30, 20, 4), seed=0, dtype=np.float32)
    pairs = [(row.weight.copy(), row.bias.copy()) for row in f.layers]
    for k in range(2):
        factor = rng.uniform(0.3, 3, len(pairs[k][1])).astype(np.float32)
        pairs[k] = pairs[k][0] * factor[:, None], pairs[k][1] * factor
        pairs[k + 1] = pairs[k + 1][0] / factor, pairs[k + 1][1]
    found = distance(f, Network.from_arrays(*pairs), Box.parse("[0,1]", 20), below=1e-3)
    assert found.answer is Answer.YES and found.boxes <= 2 and 0 < found.lower < found.upper < 1e-4


def test_unbounded_domains():
    f, g = (Network.random((2, 6, 2), seed=s) for s in (0, 1))
    found = distance(f, g)
    assert found.upper == np.inf and found.lower > 10 and "unbounded" in found.reason
    assert distance(f, g, below=1.0).answer is Answer.NO
    smooth = Network.random((2, 6, 2), activation="tanh", seed=0)
    near = noisy(smooth, 1e-3, np.random.default_rng(0))
    found = distance(smooth, near, below=1e3)
    assert found.answer is Answer.YES and 0 < found.lower <= found.upper < 20


def test_smooth_lower_bounds_are_enclosures():
    f = Network.random((2, 5, 2), activation="tanh", seed=0)
    g = noisy(f, 0.1, np.random.default_rng(0))
    found = distance(f, g, Box.parse("[-1,1]", 2), budget=Budget(cells=40))
    gap = np.abs(f(found.witness) - g(found.witness)).max()
    assert gap - 1e-13 < found.lower < gap + 1e-15 and gap < found.upper


def test_fixed_inputs_and_last_activations():
    rng = np.random.default_rng(0)
    f = Network.from_arrays((rng.standard_normal((4, 3)), rng.standard_normal(4)), (rng.standard_normal((2, 4)), None),
                            activation=["relu", "hard_tanh"])  # fmt: skip
    g = noisy(f, 0.3, rng)
    box = Box(np.array([0.5, -1.0, 2.0]), np.array([0.5, 1.0, 2.0]))
    found = distance(f, g, box)
    grid = np.column_stack([np.full(5001, 0.5), np.linspace(-1, 1, 5001), np.full(5001, 2.0)])
    truth = np.abs(f(grid) - g(grid)).max()
    assert truth <= found.upper <= truth * 1.05 and found.witness[0] == 0.5
    point = Box(np.full(3, 0.25), np.full(3, 0.25))
    assert distance(f, g, point).upper - np.abs(f(point.lower) - g(point.lower)).max() < 1e-12


def test_budget_progress_and_repeatability():
    f = Network.random((3, 12, 12, 2), seed=0)
    g = noisy(f, 0.2, np.random.default_rng(0))
    seen = []
    box = Box.parse("[-2,2]", 3)
    below = distance(f, g, box, budget=Budget(cells=1)).lower * 1.02
    runs = [
        distance(f, g, box, below=below, budget=Budget(cells=700), progress=lambda *a: seen.append(a), seed=3)
        for _ in range(2)
    ]
    a, b = ({k: v for k, v in run.to_dict().items() if k != "wall_s"} for run in runs)
    assert a == b and runs[0].boxes <= 700 + 128
    assert seen and all(0 <= fraction <= 1 and "boxes" in text for fraction, text in seen)
    assert distance(f, g, box, below=below, budget=0.0).answer is Answer.UNDECIDED
    stopped = distance(f, g, box, budget=Budget(cancelled=lambda: True))
    assert stopped.lower <= stopped.upper


def test_more_boxes_never_loosen_the_bound():
    f = Network.random((2, 10, 10, 1), seed=4)
    g = noisy(f, 0.1, np.random.default_rng(4))
    uppers = [distance(f, g, Box.parse("[-1,1]", 2), budget=Budget(cells=c)).upper for c in (1, 2, 100, 1000)]
    assert uppers == sorted(uppers, reverse=True) and uppers[-1] < 0.5 * uppers[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g": Network.random((3, 4, 1), seed=0)}, "2 and 3 inputs"),
        ({"g": Network.random((2, 4, 2), seed=0)}, "1 and 2 outputs"),
        ({"domain": Box.everywhere(3)}, "3 inputs"),
        ({"below": 0.0}, "positive"), ({"below": float("nan")}, "positive"), ({"below": float("inf")}, "positive"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, message):
    f = Network.random((2, 4, 1), seed=0)
    arguments = {"g": f, "domain": None, "below": None, **change}
    with pytest.raises(InputError, match=message):
        distance(f, arguments["g"], arguments["domain"], below=arguments["below"])


def test_results_print_and_serialise():
    f, g = Network.random((9, 4, 1), seed=0), Network.random((9, 4, 1), seed=1)
    found = distance(f, g, Box.parse("[0,1]", 9), below=1e-6)
    assert isinstance(found, Bound) and "NO: " in str(found) and "..." in str(found)
    data = found.to_dict()
    assert data["answer"] == "NO" and data["rigor"] == "INTERVAL" and len(data["witness"]) == 9
    assert "upper" in found.to_json()
    heads = Network(f.layers, "softmax")
    assert "heads differ" in distance(f, heads).reason


# ---- real networks


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), [("1_1", 0), ("3_3", 1), ("5_9", 2)])
def test_acas_xu_pairs(shared, name, seed):
    net = fiberscope.load(next((shared / "models").glob(f"acasxu_nnet/nnet/*2a_{name}_*.nnet")))
    f = Network.from_arrays(*(layer.own for layer in net.layers))
    mean, spread = np.array([19791.091, 0, 0, 650, 600]), np.array([60261.0, 6.28318530718, 6.28318530718, 1100, 1200])
    ends = np.array([[1500, -0.06, 0, 1000, 700], [1800, 0.06, 0, 1200, 800]])
    box = Box(*((ends - mean) / spread))
    rng = np.random.default_rng(seed)
    for noise in (1e-3, 1e-2, 5e-2):
        near = noisy(f, noise, rng)
        g = shuffled(near, rng)
        search = Ascent(f, near, box, seed)
        search.search(4000, 64, 30)
        found = distance(f, g, box, below=0.05, budget=60)
        assert found.lower <= found.upper
        assert found.upper >= exact_gap(f, near, search.point)  # exact: a float (or inf) against a rational
        if search.value < 0.035:  # undecided on a slow machine, never refuted
            assert found.answer is not Answer.NO or found.exact >= Fraction(0.05)
        if search.value > 0.06:
            assert found.answer is Answer.NO and found.exact >= Fraction(0.05)


def test_other_widths_are_compared_without_their_duplicates():
    rng = np.random.default_rng(5)
    f = Network.random((3, 6, 5, 2), seed=rng, dtype=np.float32)
    (w1, b1), (w2, b2), (w3, b3) = ((row.weight, row.bias) for row in f.layers)
    wide = Network.from_arrays(
        (np.concatenate([w1, 2 * w1[:1]]), np.append(b1, 2 * b1[0])),
        (np.concatenate([w2 / [[2, 1, 1, 1, 1, 1]], w2[:, :1] / 4], axis=1), b2),
        (w3 + np.float32(1e-5), b3),
    )
    found = distance(f, wide, "[-1,1]", budget=2)
    assert found.lower > 0
    assert found.upper < 1e-3
    assert float(found.exact) <= found.upper


def test_shown_ends_are_rounded_outward():
    f = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    g = Network.from_arrays(([[1.0]], [0.0]), ([[1.0 + 1 / 3]], [0.0]))
    found = distance(f, g, "[0,1]")
    low, high = (float(word) for word in str(found).split("on")[0].split("<= sup |f - g| <="))
    assert low <= found.lower <= found.upper <= high


def test_bounds_as_conditions():
    f, g = (Network.from_arrays(([[1.0]], [0.0]), ([[v]], [0.0])) for v in (1.0, 1.5))
    assert distance(f, g, "[0,1]", below=0.75)
    assert not distance(f, g, "[0,1]", below=0.25)
    with pytest.raises(UndecidedError, match="give below"):
        bool(distance(f, g, "[0,1]"))
    with pytest.raises(UndecidedError, match="compare .answer"):
        bool(distance(f, g, below=1e9, budget=0))


@pytest.mark.parametrize("below", [True, "0.1", [1], -1, 0, float("nan"), float("inf")])
def test_thresholds_that_are_no_positive_numbers_are_refused(below):
    net = Network.random((1, 2, 1), seed=0)
    with pytest.raises(InputError, match="give a positive number"):
        distance(net, net, "[0,1]", below=below)


@pytest.mark.parametrize("below", [1, np.int64(1), np.float32(1), np.float64(1), Fraction(1)])
def test_thresholds_may_be_of_any_number_type(below):
    f, g = (Network.from_arrays(([[1.0]], [0.0]), ([[v]], [0.0])) for v in (1.0, 3.0))
    found = distance(f, g, "[0,1]", below=below)
    assert found.answer is Answer.NO and found.below == 1


def test_what_is_said_of_an_undecided_distance_is_proved():
    """The ends in the sentence are rounded outward, as the bound itself is."""
    seen = 0
    for seed in range(12):
        f, g = (Network.random((3, 8, 1), seed=2 * seed + k) for k in (0, 1))
        found = distance(f, g, "[-1,1]", budget=Budget(cells=1))
        again = distance(f, g, "[-1,1]", below=(found.lower + found.upper) / 2, budget=Budget(cells=1))
        if again.answer is Answer.UNDECIDED:
            low, high = (float(text) for text in again.reason.split("between ")[1].split(" and "))
            assert low <= again.lower <= again.upper <= high
            seen += 1
    assert seen > 6


@pytest.mark.parametrize("head", [None, "softmax", "log_softmax", "argmax"])
def test_logits_are_compared_as_they_are_when_a_copy_is_wider(head):
    """A head forgets a shift of the logits, and argmax a factor; the distance does not."""
    upper, below = np.array([[1.0, 2.0, 3.0], [2.0, 0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    f = Network.from_arrays((below, np.zeros(3)), (upper, [0.0, 1.0]), head=head)
    wide = below[[0, 1, 2, 2]], upper[:, [0, 1, 2, 2]] * [1, 1, 0.5, 0.5]
    for factor, shift in ((1.0, 0.0), (1.0, 5.0), (3.0, 0.0)):
        g = Network.from_arrays(
            (wide[0], np.zeros(4)), (factor * wide[1], factor * np.array([0, 1]) + shift), head=head
        )
        found = distance(f, g, "[0,1]")
        largest = max(abs(f.exact(x)[k] - g.exact(x)[k]) for x in itertools.product((0, 1), repeat=2) for k in (0, 1))
        assert found.lower <= largest <= found.upper <= 1.1 * largest
        assert "canonical-form" in found.theorems and (largest == 0) == ("same function" in found.reason)
