"""Linear programs: their slopes reach the program's optimum in the rigorous bound, and nothing rests on the solver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fiberscope.bounds import preactivation_bounds, unstable
from fiberscope.domains import Box
from fiberscope.network import Network
from fiberscope.programs import combination
from fiberscope.programs.stability import _Relaxation, tighten_unstable
from fiberscope.results import Budget

BOX = Box.parse("[-1,1]", 2)


def triangle_optimum(net, bounds, box, k, cost):
    """The same relaxation written down again for scipy, with explicit pre-activations."""
    widths = list(net.widths[: k + 1])
    hs = np.concatenate([[0], np.cumsum(widths)])
    zs = hs[-1] + np.concatenate([[0], np.cumsum(widths[1:])])
    total = int(zs[-1])
    a_ub, b_ub, a_eq, b_eq = [], [], [], []
    ends = [(a, b) for a, b in zip(box.lower, box.upper, strict=True)] + [(0, None)] * (total - widths[0])
    for j in range(k):
        for i in range(widths[j + 1]):
            h, z = hs[j + 1] + i, zs[j] + i
            row = np.zeros(total)
            row[hs[j] : hs[j + 1]], row[z] = net.layers[j].weight64[i], -1
            a_eq.append(row)
            b_eq.append(-net.layers[j].bias64[i])
            low, high = bounds.lower[j][i], bounds.upper[j][i]
            ends[z] = (low, high)
            if high <= 0:
                ends[h] = (0, 0)
                continue
            row = np.zeros(total)
            row[z], row[h] = 1, -1
            a_ub.append(row)
            b_ub.append(0.0)
            slope = high / (high - low) if low < 0 else 1.0
            row = np.zeros(total)
            row[h], row[z] = 1, -slope
            a_ub.append(row)
            b_ub.append(-slope * low if low < 0 else 0.0)
    costs = np.zeros(total)
    costs[hs[k] : hs[k + 1]] = cost
    return linprog(costs, A_ub=a_ub, b_ub=b_ub, A_eq=a_eq, b_eq=b_eq, bounds=ends).fun


@pytest.mark.parametrize("seed", range(6))
def test_dual_slopes_reach_the_optimum(seed):
    net = Network.random((2, 6, 5, 4, 1), seed=seed)
    bounds = preactivation_bounds(net, BOX)
    program = _Relaxation(net, bounds, BOX, 3)
    clock = Budget.of(None).start()
    for sign, side in ((1.0, "lower"), (-1.0, "upper")):
        cost = sign * net.layers[3].weight64[0]
        value, alphas = program.minimise(cost, clock)
        assert value == pytest.approx(triangle_optimum(net, bounds, BOX, 3, cost), abs=1e-4)
        tight = preactivation_bounds(net, BOX, slopes={3: {0: {side: alphas}}})
        reached = tight.lower[3][0] if side == "lower" else -tight.upper[3][0]
        assert reached <= triangle_optimum(net, bounds, BOX, 3, cost) + sign * net.layers[3].bias64[0] + 1e-9
        assert reached >= triangle_optimum(net, bounds, BOX, 3, cost) + sign * net.layers[3].bias64[0] - 1e-6


def centred(seed, half):
    net, rng = Network.random((2, 6, 5, 4, 1), seed=seed), np.random.default_rng(seed)
    middle = rng.standard_normal(2)
    return net, Box(middle - half * rng.random(2), middle + half * rng.random(2))


@pytest.mark.parametrize(("seed", "half"), [(105, 1.0), (35, 4.0), (4, 0.1), (31, 0.1)])
def test_dual_slopes_reach_the_optimum_where_it_is_at_an_end_of_a_chord(seed, half):
    net, box = centred(seed, half)
    bounds = preactivation_bounds(net, box)
    program = _Relaxation(net, bounds, box, 3)
    for sign, side in ((1.0, "lower"), (-1.0, "upper")):
        cost = sign * net.layers[3].weight64[0]
        answer = program.minimise(cost, Budget.of(None).start())
        assert answer is not None
        tight = preactivation_bounds(net, box, slopes={3: {0: {side: answer[1]}}})
        reached = tight.lower[3][0] if side == "lower" else -tight.upper[3][0]
        assert reached >= triangle_optimum(net, bounds, box, 3, cost) + sign * net.layers[3].bias64[0] - 1e-6


def test_tightening_proves_more_neurons_stable_and_never_a_wrong_one():
    proved = 0
    for seed in range(12):
        net = Network.random((2, 8, 8, 8, 1), seed=seed)
        plain = preactivation_bounds(net, BOX)
        tight = tighten_unstable(net, BOX, Budget.of(20).start())
        if tight is None:
            continue
        before = sum(len(u) for u in unstable(plain, net))
        after = sum(len(u) for u in unstable(tight, net))
        assert after < before
        proved += before - after
        values = net.preactivations(BOX.sample(4000, np.random.default_rng(seed)))
        for z, low, high in zip(values, tight.lower, tight.upper, strict=True):
            assert (z >= low - 1e-9).all() and (z <= high + 1e-9).all()
    assert proved >= 1


def test_no_time_means_no_programs():
    net = Network.random((2, 8, 8, 8, 1), seed=0)
    assert tighten_unstable(net, BOX, Budget.of(0).start()) is None


@settings(max_examples=30)
@given(st.integers(1, 4), st.data())
def test_combinations_are_found_exactly(n, data):
    """target = sum of q_k row_k + (0, ..., 0, rest), and the multipliers of independent rows are the only ones."""
    numbers = st.integers(-5, 5)
    rows = data.draw(st.lists(st.lists(numbers, min_size=n + 1, max_size=n + 1), min_size=1, max_size=n))
    factors = data.draw(st.lists(numbers, min_size=len(rows), max_size=len(rows)))
    rest = data.draw(numbers)
    if np.linalg.matrix_rank(np.array(rows)[:, :n]) < len(rows):
        return
    target = [sum(q * row[c] for q, row in zip(factors, rows, strict=True)) + rest * (c == n) for c in range(n + 1)]
    assert combination(rows, target) == (factors, rest)
    if len(rows) < n:
        outside = np.linalg.svd(np.array(rows, float)[:, :n])[2][-1]
        c = int(np.argmax(np.abs(outside)))
        assert combination(rows, [v + (k == c) for k, v in enumerate(target)]) is None
