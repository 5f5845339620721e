import json
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.diagonals.flow import log_inverse
from fiberscope.invariants.recovery.diagonals.growth import growth_times
from fiberscope.invariants.recovery.diagonals.leastnorm import least_norm, standard_minimum
from fiberscope.invariants.recovery.diagonals.nets import diagonal
from fiberscope.results import Budget, Rigor

VECTORS = json.loads((Path(__file__).parent / "data" / "recovery.json").read_text())["ground_truth"]["algorithm1"][
    "exact"
]
F = Fraction
X = [[F(1), F(1, 2), F(7, 10), F(0)], [F(1, 2), F(1), F(1, 10), F(7, 10)]]
Y = [F(1), F(0)]


def texts(values):
    return [str(v) for v in values]


# ---- the exact limit


@pytest.mark.parametrize(
    ("name", "weight"), [("t=1 (as printed)", F(1)), ("t=1/lambda=1/2 (from the definition)", F(1, 2))]
)
def test_trace_is_that_of_the_definitions(name, weight):
    answer = diagonal(X, Y, weights=weight)
    assert len(answer.stages) == len(VECTORS[name]) == 3
    for stage, row in zip(answer.stages, VECTORS[name], strict=True):
        assert texts(stage.pull) == row["u"] and texts(stage.level) == row["s"] and texts(stage.k) == row["k"]
        assert {str(i + 1): str(w) for i, w in enumerate(stage.waits) if str(i + 1) in row["delta"]} == row["delta"]
        assert abs(stage.reached[0]) == row["j"] and not stage.tie and stage.unique and not stage.touching
    # the printed 20 at stage 3 belongs to the growth time 1/2, 40 to 1
    assert answer.stages[2].waits[0] == 40 * weight
    assert answer.rigor is Rigor.EXACT and answer.agrees and answer.comparison.unique


def test_times_of_the_drops_losses_and_zero_coordinates():
    answer = diagonal(X, Y, weights=F(1, 2))
    assert texts(answer.times) == ["1/2", "2", "138/49"]
    assert texts([answer.path.start_loss, *(s.loss for s in answer.stages)]) == ["1/2", "1/10", "1/100", "0"]
    assert [s.zeros for s in answer.stages] == [(1, 2, 3), (0, 1, 3), (0, 1)]
    assert [s.reached for s in answer.stages] == [(1,), (3,), (-4,)]


def test_weights_choose_the_end():
    answer = diagonal(X, Y, weights=[F(1, 2), 1, 1, 1])
    assert [texts(s.k) for s in answer.stages] == VECTORS["weighted t1=1/2"]
    assert answer.norm == F(1, 2) + F(5, 7) == answer.comparison.value


def random_problem(rng):
    n, d = int(rng.integers(1, 5)), int(rng.integers(1, 8))
    draw = np.vectorize(lambda v: F(int(v), 6), otypes=[object])
    x, y = draw(rng.integers(-9, 10, size=(n, d))), draw(rng.integers(-9, 10, size=n))
    if n > 1 and rng.random() < 0.3:
        x[-1] = 2 * x[0]  # dependent rows: y is out of reach as a rule
    if d > 1 and rng.random() < 0.3:
        x[:, -1] = -x[:, 0]  # dependent columns
    weights = np.vectorize(lambda v: F(int(v), 4), otypes=[object])(rng.integers(1, 9, size=(2, d)))
    return x, y, weights


def test_the_end_minimises_the_weighted_norm_on_200_problems():
    rng = np.random.default_rng(5)
    shared = 0
    for _ in range(200):
        x, y, weights = random_problem(rng)
        answer = diagonal(x, y, weights=weights)
        assert answer.agrees and answer.comparison.value == answer.norm
        if answer.comparison.unique:
            assert (answer.comparison.k == answer.k).all()
        shared += answer.comparison.unique
        gram, right = x.T @ x, x.T @ y
        assert (gram @ answer.k == right).all()  # least squares
        level = answer.path.level  # the dual solution: in the row space, within the weights, tight where k is not 0
        assert rationals.rank(np.concatenate([x, level[None]])) == rationals.rank(x)
        assert all(-b <= v <= a for v, a, b in zip(level, *weights, strict=True))
        assert level @ answer.k == answer.norm
        losses = [answer.path.start_loss, *(s.loss for s in answer.stages)]
        assert all(a > b for a, b in zip(losses, losses[1:], strict=False))
    assert 100 < shared < 200  # both kinds occur


def test_linear_program_against_highs():
    from scipy.optimize import linprog

    rng = np.random.default_rng(1)
    for _ in range(40):
        x, y, weights = random_problem(rng)
        found = least_norm(x, y, weights[0], weights[1])
        table = np.concatenate([x.T @ x, -(x.T @ x)], axis=1).astype(float)
        highs = linprog(weights.reshape(-1).astype(float), A_eq=table, b_eq=(x.T @ y).astype(float))
        assert float(found.value) == pytest.approx(highs.fun, abs=1e-8)


def test_whether_a_minimiser_is_the_only_one():
    assert not least_norm(np.array([[1.0, 1.0]]), np.array([1.0]), [F(1)] * 2, [F(1)] * 2).unique
    assert least_norm(np.array([[1.0, 1.0]]), np.array([1.0]), [F(1), F(2)], [F(1)] * 2).unique
    assert least_norm(np.array([[1.0, 1.0]]), np.array([0.0]), [F(1)] * 2, [F(1)] * 2).unique
    # a degenerate vertex: a reduced cost is 0, yet nothing can move
    wide = standard_minimum(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([1.0, 1.0]), np.zeros(2))
    assert wide.unique and texts(wide.point) == ["1", "0"]
    ray = standard_minimum(np.array([[1.0, -1.0]]), np.array([0.0]), np.zeros(2))
    assert not ray.unique
    with pytest.raises(InputError, match="no feasible"):
        standard_minimum(np.array([[1.0, 1.0]]), np.array([-1.0]), np.ones(2))


def test_ties_and_missing_ranks_are_reported():
    twin = diagonal([[1, 1]], [1])
    assert twin.stages[0].reached == (1, 2) and twin.stages[0].tie and not twin.unique
    assert twin.agrees and not twin.comparison.unique
    assert any("tie" in note for note in twin.notes) and any("only X k" in note for note in twin.notes)
    text, data = str(twin), twin.to_dict()  # the flow goes to (1/2, 1/2)
    assert "k1 *" in text and "theta_i = 0 for all others" not in text and "one of several minimisers" in text
    assert "several minimisers" in data["determined"] and "several minimisers" in data["stages"][0]["determined"]
    assert "several minimisers" in twin.to_frame()["determines"][0]
    sure = diagonal([[2, 1]], [2])
    assert sure.to_dict()["determined"] == sure.to_dict()["stages"][0]["determined"] == "k"
    assert "theta_i = 0 for all others" in str(sure) and "*" not in str(sure)
    opposite = diagonal([[1, -1]], [1])
    assert opposite.stages[0].reached == (1, -2)
    nothing = diagonal([[1, 2]], [0])
    assert nothing.stages == () and nothing.norm == 0 and nothing.agrees and nothing.unique


def test_a_direction_without_growth_is_never_taken():
    # a = b: the coordinate stays positive, and with target -1 it stays 0
    answer = diagonal([[1.0]], [-1.0], shape=[[1.0], [1.0]])
    assert answer.growth.minus == (math.inf,) and answer.stages == () and answer.agrees
    mixed = diagonal([[1.0, 2.0]], [-1.0], shape=[[1.0, 1.0], [1.0, 0.0]])
    assert texts(mixed.k) == ["0", "-1/2"] and mixed.agrees


def test_floats_follow_the_exact_path():
    rng = np.random.default_rng(3)
    for _ in range(10):
        x, y = rng.normal(size=(4, 9)), rng.normal(size=4)
        exact, rounded = diagonal(x, y), diagonal(x, y, exact=False)
        assert [s.reached for s in exact.stages] == [s.reached for s in rounded.stages]
        assert np.allclose(rounded.k, rationals.nearest_floats(exact.k), atol=1e-9)
        assert rounded.agrees and rounded.rigor is Rigor.NUMERICAL
    assert 0 < diagonal(X, Y).margin < 0.5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=6, max_size=6), st.lists(st.integers(-4, 4), min_size=2, max_size=2))
def test_signs_and_order_of_features_do_not_matter(entries, targets):
    x, y = np.array(entries, dtype=float).reshape(2, 3), np.array(targets, dtype=float)
    plain = diagonal(x, y)
    turned = diagonal(x[:, ::-1] * np.array([1.0, -1.0, 1.0]), y)
    assert plain.times == turned.times and plain.norm == turned.norm
    assert diagonal(x, -y).times == plain.times  # up and down are alike for the default start
    doubled = diagonal(2 * x, y)
    assert [2 * t for t in doubled.times] == list(plain.times) and 2 * doubled.norm == plain.norm


# ---- growth times


@pytest.mark.parametrize("key", list(VECTORS["growth_L3"]))
def test_growth_times_of_three_layers(key):
    shape = [[float(v)] for v in key.strip("()").split(",")]
    growth = growth_times(shape)
    assert [growth.plus[0], growth.minus[0]] == pytest.approx(VECTORS["growth_L3"][key], rel=1e-13)
    swapped = growth_times([[v] for (v,) in reversed(shape)])
    assert swapped.plus[0] == pytest.approx(growth.plus[0], rel=1e-13)  # the smallest factor is found
    turned = growth_times([[-shape[0][0]], shape[1], shape[2]])
    assert turned.plus[0] == pytest.approx(growth.minus[0], rel=1e-13)  # a sign exchanges up and down


def test_growth_times_of_more_layers():
    four = growth_times([[1.0], [0.9], [0.8], [0.3]])
    assert [four.plus[0], four.minus[0]] == pytest.approx(VECTORS["growth_L4_(1,.9,.8,.3)"], rel=1e-12)
    assert growth_times([[1.0]] * 3 + [[0.0]]).plus[0] == pytest.approx(1.0, rel=1e-13)  # int (1 + x^2)^(-3/2)
    assert growth_times([[1.0]] * 4 + [[0.0]]).minus[0] == pytest.approx(math.pi / 4, rel=1e-13)
    equal = growth_times([[2.0]] * 5)  # int_2^inf x^-4
    assert equal.plus[0] == pytest.approx(1 / 24, rel=1e-13) and equal.minus == (math.inf,)
    dead = growth_times([[0.0], [0.0], [1.0]])
    assert dead.plus == dead.minus == (math.inf,)


def test_growth_times_scale_and_add_up():
    rng = np.random.default_rng(2)
    for depth in (3, 4, 6):
        shape = rng.normal(size=(depth, 5))
        one, three = growth_times(shape), growth_times(3.0 * shape)
        assert np.allclose(np.array(one.plus), np.array(three.plus) * 3.0 ** (depth - 2), rtol=1e-11)
        assert one.error < 1e-12 * max(*one.plus, *one.minus)
    from fiberscope.invariants.recovery.diagonals.growth import _quadrature, corner

    for column in rng.normal(size=(6, 3)):
        closed = growth_times(column[:, None])
        assert _quadrature(corner(column))[:2] == pytest.approx((closed.plus[0], closed.minus[0]), rel=1e-12)


# ---- the flow


def test_drop_times_at_a_thousand_digits():
    answer = diagonal(X, Y, weights=F(1, 2), mode="flow", scales=["1e-1000"])
    first, second, third = answer.flows[0].drops
    assert abs(first - 0.5) < 0.01 and abs(second - 2.0) < 0.01 and abs(third - 138 / 49) < 0.02
    assert max(answer.flows[0].spread) < 0.005
    assert answer.flows[0].final == pytest.approx([0, 0, 10 / 7, -10 / 49], abs=1e-9)
    assert answer.rigor is Rigor.NUMERICAL


@pytest.mark.parametrize(
    ("depth", "scale", "close"),
    [(4, "1e-1000", 1e-5), pytest.param(3, "1e-6", 1e-4, marks=pytest.mark.slow)],
)
def test_deep_flows_tend_to_the_staircase(depth, scale, close):
    flow = diagonal(X, Y, depth=depth, mode="flow", scales=[scale], compare=False).flows[0]
    assert flow.drops == pytest.approx(flow.predicted, rel=close)
    assert flow.final == pytest.approx([0, 0, 10 / 7, -10 / 49], abs=1e-6)


@pytest.mark.slow
def test_small_drops_after_large_ones_are_found_in_time():
    rng = np.random.default_rng(7)
    rng.normal(size=110)
    x, y = rng.normal(size=(5, 10)), rng.normal(size=5)
    flow = diagonal(x, y, depth=3, mode="flow", scales=["1e-40"], exact=False, compare=False).flows[0]
    assert len(flow.drops) >= 5 and flow.drops == pytest.approx(flow.predicted, rel=1e-5)


@pytest.mark.parametrize(
    ("depth", "kind"),
    [(2, "zero"), (2, "random"), (2, "equal"), (3, "zero"), (3, "equal"), (4, "equal")]
    + [pytest.param(d, k, marks=pytest.mark.slow) for d, k in [(3, "random"), (4, "zero"), (4, "random")]],
)
def test_flow_against_raw_parameters_at_a_large_scale(depth, kind):
    from scipy.integrate import solve_ivp

    x, y, s = np.array(X, dtype=float)[:, :3], np.array([1.0, 0.0]), 0.3
    shapes = {
        "zero": np.concatenate([np.ones((depth - 1, 3)), np.zeros((1, 3))]),
        "random": np.random.default_rng(depth).normal(size=(depth, 3)),
        "equal": np.ones((depth, 3)),
    }
    flow = diagonal(x, y, depth=depth, shape=shapes[kind], mode="flow", scales=[s], compare=False).flows[0]
    unit = math.log(1 / s) if depth == 2 else s ** (2 - depth)

    def field(_, flat):
        a = flat.reshape(depth, 3)
        pull = x.T @ (y - x @ a.prod(axis=0))
        return np.array([pull * np.delete(a, j, axis=0).prod(axis=0) for j in range(depth)]).reshape(-1)

    at = flow.times * unit
    kept = np.linspace(0, len(at) - 1, 30).astype(int)
    found = solve_ivp(field, (0, at[-1]), s * shapes[kind].reshape(-1), "DOP853", at[kept], rtol=1e-12, atol=1e-14)
    assert np.abs(found.y.T.reshape(-1, depth, 3).prod(axis=1) - flow.k[kept]).max() < 2e-5


def decimal_flow(x, y, scale, time, steps):
    """k(time) by the classical Runge-Kutta method on raw two-layer parameters with 60 digits; start (1, 0) s."""
    with localcontext() as context:
        context.prec = 60
        n, d = len(x), len(x[0])
        x, y = [[Decimal(str(v)) for v in row] for row in x], [Decimal(str(v)) for v in y]
        state = [Decimal(scale)] * d + [Decimal(0)] * d
        h = Decimal(str(time)) / steps

        def field(s):
            rest = [y[i] - sum(x[i][j] * s[j] * s[d + j] for j in range(d)) for i in range(n)]
            pull = [sum(x[i][j] * rest[i] for i in range(n)) for j in range(d)]
            return [pull[j] * s[d + j] for j in range(d)] + [pull[j] * s[j] for j in range(d)]

        def moved(s, v, c):
            return [a + c * b for a, b in zip(s, v, strict=True)]

        for _ in range(steps):
            k1 = field(state)
            k2 = field(moved(state, k1, h / 2))
            k3 = field(moved(state, k2, h / 2))
            k4 = field(moved(state, k3, h))
            for v, c in ((k1, 6), (k2, 3), (k3, 3), (k4, 6)):
                state = moved(state, v, h / c)
        return [float(state[j] * state[d + j]) for j in range(d)]


def test_flow_keeps_tiny_coordinates_that_raw_floats_lose():
    x, y, scale = [["1", "0.5"], ["0.5", "1"]], ["1", "-0.25"], "1e-15"
    rows = [[float(v) for v in row] for row in x]
    flow = diagonal(rows, [1.0, -0.25], mode="flow", scales=[scale], compare=False, tolerance=1e-10).flows[0]
    for j in (len(flow.times) // 3, len(flow.times) // 2):
        reference = decimal_flow(x, y, scale, flow.times[j] * log_inverse(F(scale)), 1200)
        assert flow.k[j] == pytest.approx(reference, rel=1e-4)


def test_flow_stops_with_the_budget_and_when_cancelled():
    spent = diagonal(X, Y, mode="flow", scales=["1e-30"], budget=Budget(cancelled=lambda: True))
    assert not spent.path.finished and spent.flows == () and "budget" in str(spent)
    seen = []
    diagonal(X, Y, mode="flow", scales=["1e-1"], progress=lambda f, text: seen.append((f, text)))
    assert any(f is not None and "s = 1e-1" in text for f, text in seen)


def test_stages_that_fit_the_rounding_of_floats_are_marked_and_the_flow_ends_before_them():
    x = np.random.default_rng(0).standard_normal((8, 3))
    y = x @ np.array([1.5, 0.0, -0.7])  # off by rounding, so that the exact fit has a third coordinate
    answer = diagonal(x, y, mode="flow", scales=["1e-30"])
    late = [stage for stage in answer.stages if stage.time > 1e6]
    kept = answer.fitted_after
    assert late and kept == len(answer.stages) - len(late) >= 2
    flow = answer.flows[0]
    assert flow.finished and len(flow.predicted) == kept and flow.drops == pytest.approx(flow.predicted, rel=0.02)
    assert flow.final == pytest.approx([1.5, 0.0, -0.7], abs=0.05)
    assert str(answer).count("~") == len(late) + 1 and f"after stage {kept}" in str(answer)
    assert json.loads(answer.to_json())["fitted_after"] == kept
    # single precision rounds more; rationals and small integers not at all, however small what is left
    single = diagonal(x.astype(np.float32), (x @ np.array([1.5, 0.0, -0.7])).astype(np.float32))
    assert single.fitted_after == kept < len(single.stages)
    tiny = diagonal([[F(1), F(0)], [F(0), F(1)]], [F(1), F(1, 10**20)])
    assert len(tiny.stages) == 2 and tiny.fitted_after is None
    assert diagonal(X, Y).fitted_after is None
    # beside large numbers small ones are still precise: here each row is fitted by a coordinate of its own
    assert diagonal(np.diag([1e8, 1.0]), [1e8, 1e-9]).fitted_after is None
    sizes = np.array([1e8, 1e-8, 1, 1, 1, 1, 1, 1])[:, None]  # but rounding is found in badly scaled rows too
    assert diagonal(sizes * x, (sizes * x) @ np.array([1.5, 0.0, -0.7])).fitted_after is not None


def test_a_flow_that_the_budget_cut_says_so():
    ended = iter([False] * 12)
    answer = diagonal(
        [[2.0, 1.0]], [2.0], mode="flow", scales=["1e-30"], compare=False,
        budget=Budget(cancelled=lambda: next(ended, True)),
    )  # fmt: skip
    assert answer.path.finished and not answer.flows[0].finished and 0 < answer.flows[0].steps < 12
    assert "where the budget ended it" in str(answer)
    whole = diagonal([[2.0, 1.0]], [2.0], mode="flow", scales=["1e-3"], budget=1e6)
    assert whole.flows[0].finished and "budget" not in str(whole)
    none = diagonal([[2.0, 1.0]], [2.0], mode="flow", budget=0)
    assert none.flows == () and "before a flow could begin" in str(none)


# ---- the answer as text and data, and refusals


def test_report_and_data():
    answer = diagonal(X, Y, weights=F(1, 2), mode="flow", scales=[0.1])
    assert "138/49" in str(answer) and "theta_i = 0" in str(answer) and len(str(answer).splitlines()) < 25
    data = json.loads(answer.to_json())
    assert data["stages"][2]["waits"][0] == {"exact": "20", "float": 20.0}
    assert data["flows"][0]["drops"][0] > 0 and data["comparison"]["agrees"] is True
    frame = answer.to_frame()
    assert {len(column) for column in frame.values()} == {3} and frame["grown"] == ["+1", "+3", "-4"]
    rng = np.random.default_rng(0)
    wide = diagonal(rng.normal(size=(6, 40)), rng.normal(size=6))
    assert len(wide.to_json()) < 300_000 and wide.agrees


def test_refusals():
    with pytest.raises(ScopeError, match="last digit"):
        diagonal(X, Y, mode="raw")
    with pytest.raises(ScopeError, match="shape"):
        diagonal(X, Y, depth=3, weights=1, mode="flow")
    for options, text in [
        ({"depth": 1}, "two layers"),
        ({"mode": "else"}, "give 'limit'"),
        ({"scales": ["1e-3"]}, "mode 'flow'"),
        ({"weights": -1}, "positive"),
        ({"weights": [1, 2]}, "two rows"),
        ({"shape": [[1.0] * 4]}, r"expected \(2, 4\)"),
        ({"mode": "flow", "scales": [2.0]}, "between 0 and 1"),
        ({"mode": "flow", "scales": ["tiny"]}, "1e-1000"),
    ]:
        with pytest.raises(InputError, match=text):
            diagonal(X, Y, **options)
    with pytest.raises(InputError, match=r"\(n, d\)"):
        diagonal(X, [1.0])
    with pytest.raises(InputError, match="finite"):
        diagonal([[math.nan]], [1.0])


def test_scales_may_be_of_any_number_type():
    wanted = diagonal(np.eye(2), [1.0, 2.0], mode="flow", scales=["1e-3", "1/8"]).flows
    for scale, k in ((np.float32(0.125), 1), (Fraction(1, 8), 1), (np.array([0.125]), 1), ("1e-3", 0)):
        (flow,) = diagonal(np.eye(2), [1.0, 2.0], mode="flow", scales=scale).flows
        np.testing.assert_array_equal(flow.times, wanted[k].times)
