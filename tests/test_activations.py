"""Every row of the activation table: its claims against its own function."""

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import balls
from fiberscope.activations import Activation, activation, layer_activations, names
from fiberscope.errors import InputError, UnsupportedError

F = Fraction
ROWS = [activation(name) for name in names() if name != "polynomial"] + [
    activation("leaky_relu", 0.2), activation("leaky_relu", F(1, 3)), activation("clip", -2, 0.5),
    activation("clip", F(-1, 3), F(2, 7)), activation("elu", 0.5), activation("polynomial", F(1, 3)),
    activation("polynomial", 1, -2, 0, 3), activation("polynomial", 0, 0, 0, 1), activation("polynomial", 2, 0, -1),
]  # fmt: skip
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
reals = st.floats(-30, 30)


def test_the_table_has_all_rows():
    assert set(names()) == {
        "abs", "clip", "cos", "elu", "erf", "gaussian", "gelu", "gelu_tanh", "hard_tanh", "identity", "leaky_relu",
        "polynomial", "relu", "sigmoid", "silu", "sin", "softplus", "square", "tanh",
    }  # fmt: skip


CLOSED = {
    "relu": lambda z: max(0, z), "tanh": math.tanh, "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "softplus": lambda z: math.log1p(math.exp(z)), "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "gelu_tanh": lambda z: z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    "silu": lambda z: z / (1 + math.exp(-z)), "erf": math.erf, "sin": math.sin, "cos": math.cos, "abs": abs,
    "gaussian": lambda z: math.exp(-z * z), "square": lambda z: z * z, "identity": lambda z: z,
    "elu": lambda z: z if z > 0 else math.exp(z) - 1, "hard_tanh": lambda z: min(max(z, -1), 1),
    "clip": lambda z: min(max(z, 0), 6), "leaky_relu": lambda z: z if z > 0 else z / 100,
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED)
def test_values_against_the_textbook(name):
    z = np.linspace(-9, 9, 61)
    np.testing.assert_allclose(activation(name)(z), [CLOSED[name](v) for v in z.tolist()], rtol=1e-12, atol=1e-14)


@each
def test_dtype_is_kept(row):
    for dtype in (np.float32, np.float64):
        z = np.array([-2.0, 0.0, 0.5], dtype)
        assert row(z).dtype == dtype and row.derivative(z).dtype == dtype


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs_give_no_nan_and_no_warning(row, dtype):
    if row.name in ("square", "polynomial"):
        return
    z = np.array([-1e30, -700, -60, 60, 700, 1e30], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(row(z)).all() and np.isfinite(row.derivative(z)).all()


def test_tails_keep_their_relative_accuracy():
    for name in ("gelu", "gelu_tanh", "silu", "softplus", "sigmoid"):
        row, z = activation(name), np.array([-9.0, -5.0, -2.0])
        with flint.ctx.workprec(200):
            expected = [float(exact_ball(row, v)) for v in z.tolist()]
        np.testing.assert_allclose(row(z), expected, rtol=1e-12)


def test_integers_and_plain_numbers_are_accepted():
    assert activation("relu")(1.5) == 1.5 and activation("elu")([1, 0]).tolist() == [1.0, 0.0]
    assert activation("tanh")(np.array([0, 1])).dtype == np.float64


def test_kinks_take_the_left_slope():
    zero = np.zeros(1)
    assert activation("relu").derivative(zero)[0] == 0 and activation("abs").derivative(zero)[0] == -1
    assert activation("leaky_relu", 0.25).derivative(zero)[0] == 0.25


@each
@given(z=st.floats(-8, 8))
@settings(max_examples=40)
def test_derivative_is_the_difference_quotient(row, z):
    if row.pieces is not None and any(p.hi is not None and abs(z - float(p.hi)) < 1e-3 for p in row.pieces):
        return
    if row.name == "elu" and abs(z) < 1e-3:
        return
    h = 1e-5
    quotient = (row(np.array([z + h])) - row(np.array([z - h])))[0] / (2 * h)
    assert row.derivative(np.array([z]))[0] == pytest.approx(quotient, rel=1e-6, abs=1e-6)


@each
@given(z=reals)
@settings(max_examples=40)
def test_parity(row, z):
    plus, minus = row(np.array([z]))[0], row(np.array([-z]))[0]
    if row.parity == "odd":
        assert minus == pytest.approx(-plus, rel=1e-12, abs=1e-300)
    if row.parity == "even":
        assert minus == pytest.approx(plus, rel=1e-12, abs=1e-300)


def test_parity_is_claimed_where_it_holds():
    z = np.linspace(0.1, 7, 40)
    for row in ROWS:
        odd = np.allclose(row(-z), -row(z), atol=1e-12)
        even = np.allclose(row(-z), row(z), atol=1e-12)
        assert row.parity == ("odd" if odd else "even" if even else None), row.label


def test_homogeneity_is_claimed_where_it_holds():
    z = np.array([-3.0, -1.0, -0.1, 0.2, 1.5, 4.0])
    for row in ROWS:
        found = [k for k in (1, 2, 3) if all(np.allclose(row(t * z), t**k * row(z), atol=1e-12) for t in (0.5, 3.0))]
        assert row.homogeneity == (found[0] if found else None), row.label


@each
@given(q=st.fractions(-5, 5, max_denominator=64))
@settings(max_examples=40)
def test_exact_values(row, q):
    value = row.value(q)
    if row.exact_over_q:
        assert isinstance(value, Fraction)
    if value is not None:
        assert float(value) == pytest.approx(row(np.array([float(q)]))[0], rel=1e-9, abs=1e-9)


def test_rational_values_at_zero():
    assert activation("sigmoid").value(F(0)) == F(1, 2) and activation("cos").value(F(0)) == 1
    assert activation("tanh").value(F(1)) is None and activation("softplus").value(F(0)) is None
    assert activation("elu").value(F(3, 2)) == F(3, 2) and activation("elu").value(F(-1)) is None


@each
def test_pieces_cover_the_line_and_agree(row):
    if row.pieces is None:
        return
    assert row.pieces[0].lo is None and row.pieces[-1].hi is None
    for left, right in zip(row.pieces, row.pieces[1:], strict=False):
        assert left.hi == right.lo
        assert left.slope * left.hi + left.intercept == right.slope * left.hi + right.intercept
    for z in np.linspace(-9, 9, 37).tolist():
        piece = row.piece_on(z, z)
        assert float(piece.slope * F(z) + piece.intercept) == pytest.approx(row(np.array([z]))[0], abs=1e-12)


def exact_ball(row, z):
    """A tight ball around s(z) for checking, from the closed forms in ball arithmetic."""
    x = flint.arb(z)
    table = {
        "tanh": lambda: x.tanh(), "erf": lambda: x.erf(), "sin": lambda: x.sin(), "cos": lambda: x.cos(),
        "sigmoid": lambda: 1 / (1 + (-x).exp()), "softplus": lambda: x.exp().log1p(),
        "silu": lambda: x / (1 + (-x).exp()),
        "gelu": lambda: x * (1 + (x / flint.arb(2).sqrt()).erf()) / 2, "gaussian": lambda: (-x * x).exp(),
        "gelu_tanh": lambda: x * (1 + ((2 / flint.arb.pi()).sqrt() * (x + x**3 * 44715 / 1000000)).tanh()) / 2,
        "elu": lambda: x if z >= 0 else x.expm1() * row.parameters[0].numerator / row.parameters[0].denominator,
    }  # fmt: skip
    if row.name in table:
        return table[row.name]()
    value = row.value(F(z))
    return flint.arb(value.numerator) / value.denominator


@each
@given(a=reals, b=reals, t=st.floats(0, 1))
@settings(max_examples=60)
def test_enclosures_are_sound_and_tight(row, a, b, t):
    lo, hi = min(a, b), max(a, b)
    low, high = (v[0] for v in row.enclose(np.array([lo]), np.array([hi])))
    with flint.ctx.workprec(200):
        for z in (lo, hi, min(max(lo + t * (hi - lo), lo), hi)):
            value = exact_ball(row, z)
            assert not value < flint.arb(low) and not value > flint.arb(high)
    grid = row(np.linspace(lo, hi, 400))
    scale = 1e-9 + 1e-9 * np.abs(grid).max()
    slack = scale + 2e-2 * (grid.max() - grid.min()) + (hi - lo) ** 2 * 0.02 * (row.name in ("sin", "cos"))
    assert low >= grid.min() - slack and high <= grid.max() + slack


@each
def test_infinite_ends(row):
    low, high = (v[0] for v in row.enclose(np.array([-np.inf]), np.array([np.inf])))
    grid = row(np.linspace(-40, 40, 4001))
    assert low <= grid.min() + 1e-12 and high >= grid.max() - 1e-12
    assert row.range_[0] <= low + 1e-2 and row.range_[1] >= high - 1e-2


@pytest.mark.parametrize("name", ["relu", "abs", "identity", "hard_tanh"])
def test_dyadic_pieces_enclose_exactly(name):
    low, high = activation(name).enclose(np.array([-0.75]), np.array([0.5]))
    expected = {"relu": (0, 0.5), "abs": (0, 0.75), "identity": (-0.75, 0.5), "hard_tanh": (-0.75, 0.5)}[name]
    if name == "hard_tanh":
        assert low[0] == expected[0] and high[0] == expected[1]
    assert (low[0], high[0]) == expected


@each
@given(a=st.floats(-50, 50), b=st.floats(-50, 50))
@settings(max_examples=60)
def test_lipschitz_constants_bound_slopes(row, a, b):
    if a == b or not math.isfinite(row.lipschitz):
        return
    gap = abs(float(row(np.array([a]))[0]) - float(row(np.array([b]))[0]))
    assert gap <= row.lipschitz * abs(a - b) * (1 + 1e-9) + 1e-12


@each
def test_lipschitz_monotone_range_zeros_and_critical_points(row):
    z = np.linspace(-12, 12, 24001)
    values, slopes = row(z), row.derivative(z)
    if math.isfinite(row.lipschitz):
        assert row.lipschitz >= np.abs(slopes).max() - 1e-9
        assert row.lipschitz <= np.abs(slopes).max() * 1.01 + 1e-9
    assert row.monotone == bool((np.diff(values) >= -1e-15).all())
    assert values.min() >= row.range_[0] - 1e-12 and values.max() <= row.range_[1] + 1e-12
    for point in row.zeros or ():
        assert abs(row(np.array([point]))[0]) < 1e-12
    for point in row.critical_points or ():
        assert abs(row.derivative(np.array([point]))[0]) < 1e-8
    if row.analytic and row.critical_points is not None and row.name not in ("gaussian", "sigmoid", "softplus"):
        inner = np.abs(z) < 3
        changes = int((np.diff(np.sign(slopes[inner])) != 0).sum())
        assert (changes > 0) == bool(row.critical_points) or row.homogeneity == 3


@pytest.mark.parametrize(("name", "guess"), [("gelu", -0.75179), ("silu", -1.27846), ("gelu_tanh", -0.75246)])
def test_critical_points_are_bracketed(name, guess):
    row = activation(name)
    point = row.critical_points[0]
    assert point == pytest.approx(guess, abs=1e-5)
    low, high = row.enclose(np.array([-20.0]), np.array([0.0]))
    assert low[0] <= row(np.array([point]))[0] <= low[0] + 1e-14
    for side in (point - 1e-6, point + 1e-6):
        assert row(np.array([side]))[0] > low[0]


def test_analytic_flags():
    kinked = {"relu", "leaky_relu", "hard_tanh", "clip", "abs", "elu"}
    for row in ROWS:
        assert row.analytic == (row.name not in kinked)


any_float = st.floats(allow_nan=False, allow_infinity=False)


@given(
    slope=st.fractions(-3, 3) | st.floats(-3, 3).map(F) | st.just(F(10**200, 3)),
    ends=st.tuples(any_float, any_float).map(sorted),
    t=st.floats(0, 1),
)
@settings(max_examples=300)
def test_piecewise_enclosures_hold_over_q_for_all_floats(slope, ends, t):
    between = min(max(ends[0] * (1 - t) + ends[1] * t, ends[0]), ends[1])
    for row in (activation("leaky_relu", slope), activation("clip", min(slope, F(1, 3)), F(1, 3))):
        low, high = (v[0] for v in row.enclose([ends[0]], [ends[1]]))
        for z in (*ends, between):
            value = row.value(F(z))
            assert low == -math.inf or (low < math.inf and F(low.item()) <= value)
            assert high == math.inf or (high > -math.inf and F(high.item()) >= value)


@given(x=st.floats(-4, 4, width=16), slope=st.floats(-4, 4, width=16))
@settings(max_examples=100)
def test_short_dyadic_products_are_not_widened(x, slope):
    low, high = (v[0] for v in activation("leaky_relu", slope).enclose([x], [x]))
    assert low == high == activation("leaky_relu", slope).value(F(x))


def test_products_that_round_or_underflow_are_widened():
    for slope, x in ((0.1, -0.1), (0.75, -5e-324), (F(1, 3), -1.0)):
        row = activation("leaky_relu", slope)
        low, high = (v[0] for v in row.enclose([x], [x]))
        assert F(low.item()) < row.value(F(x)) < F(high.item()) and high - low <= 1e-15


def test_enclosures_stay_sound_on_overflow():
    low, high = activation("leaky_relu", 10**10).enclose([-1e305], [1.0])
    assert (low[0], high[0]) == (-math.inf, 1.0)
    low, high = activation("square").enclose([1e200], [1e201])
    assert math.isfinite(low[0]) and high[0] == math.inf


@each
def test_unknown_ends_are_infinite_and_reversed_ones_refused(row):
    nan = np.array([math.nan])
    everything = row.enclose(np.array([-math.inf]), np.array([math.inf]))
    assert [v[0] for v in row.enclose(nan, nan)] == [v[0] for v in everything]
    assert row.enclose(nan, np.zeros(1))[0][0] == row.enclose(np.array([-math.inf]), np.zeros(1))[0][0]
    with pytest.raises(InputError, match="lower end above"):
        row.enclose([1.0], [0.0])
    if row.pieces is not None:
        assert row.piece_on(math.nan, math.nan) is None


def test_a_constant_polynomial_encloses_a_value_that_is_no_float():
    row = activation("polynomial", F(1, 3))
    for ends in ((0.0, 1.0), (-math.inf, math.inf)):
        low, high = (v[0].item() for v in row.enclose([ends[0]], [ends[1]]))
        assert F(low) < F(1, 3) < F(high) and row.range_ == (low, high)


@pytest.mark.parametrize("name", ["sin", "cos"])
@given(a=st.floats(-1e6, 1e6), width=st.floats(0, 7))
@settings(max_examples=60)
def test_waves_reach_one_exactly_where_a_turning_point_lies(name, a, width):
    low, high = (v[0] for v in activation(name).enclose([a], [a + width]))
    shift = 0.5 if name == "sin" else 0.0
    for end, offset in ((high == 1.0, shift), (low == -1.0, shift + 1)):
        first, last = ((x / math.pi - offset) / 2 for x in (a, a + width))
        if min(abs(v - round(v)) for v in (first, last)) > 1e-3:
            assert end == (math.ceil(first) <= math.floor(last))


# ---- constants, proved in ball arithmetic


def slopes_and_curvature(name):
    """Closed forms of s' and s'' as functions of balls."""
    root_2pi = (2 * flint.arb.pi()).sqrt()
    density = lambda x: (-x * x / 2).exp() / root_2pi  # noqa: E731
    gate = lambda x: 1 / (1 + (-x).exp())  # noqa: E731
    if name == "gelu":
        return (
            lambda x: (-x / flint.arb(2).sqrt()).erfc() / 2 + x * density(x),
            lambda x: (2 - x * x) * density(x),
        )
    if name == "silu":
        return (
            lambda x: gate(x) + x * gate(x) * gate(-x),
            lambda x: gate(x) * gate(-x) * (2 + x * (1 - 2 * gate(x))),
        )
    c, k = 2 * (2 / flint.arb.pi()).sqrt(), flint.arb(44715) / 1000000
    u, du = lambda x: c * (x + k * x**3), lambda x: c * (1 + 3 * k * x * x)
    slope = lambda x: gate(u(x)) + x * gate(u(x)) * gate(-u(x)) * du(x)  # noqa: E731

    def curvature(x):
        g, d = gate(u(x)), du(x)
        return g * gate(-u(x)) * (2 * d + x * (1 - 2 * g) * d * d + x * c * 6 * k * x)

    return slope, curvature


def proved(holds: Callable, slope: Callable, curvature: Callable, a: float, b: float) -> bool:
    """Whether holds(s') on all of [a, b]: mean-value form on cells, bisected until it is seen."""
    todo = [(a, b)]
    for _ in range(20000):
        if not todo:
            return True
        a, b = todo.pop()
        cell, middle = flint.arb(a).union(flint.arb(b)), (a + b) / 2
        if holds(slope(flint.arb(middle)) + curvature(cell) * (cell - middle)):
            continue
        if not a < middle < b:
            return holds(slope(flint.arb(a))) and holds(slope(flint.arb(b)))
        todo += [(a, middle), (middle, b)]
    return False


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_turning_points_and_lipschitz_constants_are_proved(name):
    row = activation(name)
    point = row.critical_points[0]
    after = math.nextafter(point, 0)
    with flint.ctx.workprec(120):
        slope, curvature = slopes_and_curvature(name)
        # s' changes sign inside the bracket and nowhere else; beyond +-12 it is within 1e-4 of 0 or 1, of one sign
        assert slope(flint.arb(point)) < 0 < slope(flint.arb(after))
        assert proved(lambda d: d < 0, slope, curvature, -12.0, point)
        assert proved(lambda d: d > 0, slope, curvature, after, 12.0)
        assert proved(lambda d: abs(d) < row.lipschitz, slope, curvature, -12.0, 12.0)
        assert not proved(lambda d: abs(d) < row.lipschitz - 5e-5, slope, curvature, -12.0, 12.0)


def test_lipschitz_constants_in_closed_form():
    with flint.ctx.workprec(120):
        assert 2 / flint.arb.pi().sqrt() < activation("erf").lipschitz
        assert (2 / flint.arb(1).exp()).sqrt() < activation("gaussian").lipschitz
    assert activation("gelu").lipschitz == pytest.approx(1.1289, abs=2e-5)
    assert activation("silu").lipschitz == pytest.approx(1.0998, abs=6e-5)


# ---- lookup


def test_lookup_and_specs():
    assert activation("ReLU") is not None and activation("LeakyReLU", 0.1).parameters == (F(0.1),)
    assert activation("swish").name == "silu" and activation("tansig").name == "tanh"
    for row in ROWS:
        back = Activation.from_spec(row.spec)
        assert back == row and hash(back) == hash(row)
    assert activation("leaky_relu", 0.1) != activation("leaky_relu", 0.2)
    with pytest.raises(UnsupportedError, match="did you mean 'relu'"):
        activation("rleu")
    with pytest.raises(UnsupportedError, match="does not take 2"):
        activation("tanh", 1, 2)
    with pytest.raises(UnsupportedError, match="low <= high"):
        activation("clip", 2, 1)
    with pytest.raises(UnsupportedError, match="alpha > 0"):
        activation("elu", -1)


def test_ball_evaluation_is_one_unit_wide():
    low, high = balls.evaluate(lambda x: x.exp(), 1.0)
    assert low < high and low <= math.e <= high and high - low <= 4 * np.spacing(math.e)
    assert balls.evaluate(lambda x: x.tanh(), 0.0) == (0.0, 0.0)


def test_real_roots_of_multiple_and_irrational_roots():
    (a, b), (c, d) = balls.real_roots([F(-2), F(0), F(1)])
    assert a < -math.sqrt(2) < b and c < math.sqrt(2) < d and d - c < 1e-14
    assert balls.real_roots([F(1), F(2), F(1)]) == ((-1.0, -1.0),)
    assert balls.real_roots([F(1), F(0), F(1)]) == () and balls.real_roots([F(0)]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, "x", "1/0", "1e99999", None, 1j, F(10) ** 400])
def test_parameters_that_are_no_finite_number_are_refused(bad):
    with pytest.raises(UnsupportedError, match="leaky_relu"):
        activation("leaky_relu", bad)


@pytest.mark.parametrize(
    "spec", [{}, {"name": 3}, {"name": "relu", "parameters": 3}, {"name": "leaky_relu", "parameters": "12"}]
)
def test_malformed_specs_are_refused(spec):
    with pytest.raises(UnsupportedError, match="expected one like"):
        Activation.from_spec(spec)


def test_parameters_are_exact():
    assert activation("leaky_relu", np.float32(0.01)).parameters == (F(float(np.float32(0.01))),)
    assert activation("leaky_relu", "1/3").parameters == (F(1, 3),)
    assert activation("polynomial", 1, 2, 0, 0).parameters == (1, 2)


def test_other_refusals():
    with pytest.raises(UnsupportedError, match="give a name"):
        activation(3)
    with pytest.raises(UnsupportedError, match="without coefficients"):
        activation("polynomial")
    with pytest.raises(UnsupportedError, match="the limit is 100"):
        activation("polynomial", *range(1, 103))


def test_rows_survive_pickling_and_copying():
    for row in ROWS:
        for back in (pickle.loads(pickle.dumps(row)), copy.deepcopy(row)):
            assert back == row and back(np.array([0.3]))[0] == row(np.array([0.3]))[0]


def test_monotone_polynomials():
    assert activation("polynomial", 0, 0, 0, 1).monotone and activation("polynomial", 0, 1, 0, 1).monotone
    assert not activation("polynomial", 0, -1, 0, 1).monotone and not activation("polynomial", 0, 0, 0, -1).monotone
    # s' has two roots 2e-25 apart, closer than floats near 1: nothing is claimed
    e = F(1, 10**50)
    assert not activation("polynomial", 0, 1 - e, -1, F(1, 3)).monotone


def test_labels_are_names():
    for text in ("leaky_relu(1/10)", " Leaky-ReLU ( 0.1 ) "):
        assert activation(text) == activation("leaky_relu", "1/10")
    assert activation("clip(0,1)").label == "clip(0, 1)" and activation("relu()") == activation("relu")
    for text in ("leaky_relu(a)", "leaky_relu(1,2)", "leaky(", "relu(1)"):
        with pytest.raises(UnsupportedError):
            activation(text)


def test_exact_values_of_what_is_no_fraction():
    assert activation("square").value(0.1) == Fraction(0.1) ** 2  # the rational that the float is, not a rounding
    assert type(activation("relu").value(2)) is Fraction
    for wrong in (math.nan, math.inf, None, "1/3", [1]):
        with pytest.raises(InputError, match=r"relu\.value of .*give a finite number"):
            activation("relu").value(wrong)


@pytest.mark.parametrize("name", names())
def test_no_warning_leaks_and_what_is_no_number_is_refused(name):
    row = activation(name, *((1, 2) if name == "polynomial" else ()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row([-np.inf, -1e300, 0, 1e300, np.inf, np.nan])
    for wrong in ("a", None, [1j], [[1], [1, 2]]):
        with pytest.raises(InputError, match=f"argument of {name}"):
            row(wrong)
    with pytest.raises(InputError, match="enclose"):
        row.enclose([1, 2], [1, 2, 3])
    assert row(np.float32(0.5)).dtype == np.float32 and row([np.float16(0.5)]).dtype == np.float16


def test_one_activation_for_each_layer():
    relu, tanh, plain = (activation(name) for name in ("relu", "tanh", "identity"))
    assert layer_activations(3, "relu") == [relu, relu, plain] == layer_activations(3, ["relu"])
    assert layer_activations(3, "relu,tanh") == [relu, tanh, plain] == layer_activations(3, (relu, tanh))
    assert layer_activations(2, "relu,tanh") == [relu, tanh]
    assert layer_activations(1, "relu") == [plain] and layer_activations(1, ["relu"]) == [relu]
    assert layer_activations(2, "clip(0,1)") == [activation("clip", 0, 1), plain]
    with pytest.raises(InputError, match="4 activations for 2 layers; give one, or one for each layer"):
        layer_activations(2, "relu,relu,relu,relu")


def test_polynomials_at_infinity():
    assert activation("square")([np.inf, -np.inf]).tolist() == [np.inf, np.inf]
    assert activation("polynomial", 0, 1)([-np.inf]).tolist() == [-np.inf]


@pytest.mark.parametrize("name", names())
def test_float16_stays_float16(name):
    row = activation(name, *((1, 2) if name == "polynomial" else ()))
    z = np.float16([-0.5, 0.25])
    assert row(z).dtype == row.derivative(z).dtype == np.float16
