"""Branches of exact fits: tables of the note, brute-force counts, tangent dimensions, and where networks lie."""

import json
import math
from collections import Counter
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.embeddings.embedding import embed
from fiberscope.invariants.recovery.nearminima.branches import locate
from fiberscope.invariants.recovery.nearminima.partitions import Cloud, best_partitions
from fiberscope.invariants.recovery.nearminima.table import associated_stirling, stirling, strata
from fiberscope.network import Network
from fiberscope.results import Rigor

VECTORS = json.loads((Path(__file__).parent / "data" / "recovery.json").read_text())["ground_truth"]["branches"]
TABLES = {"two_neuron_d2": (2, 1, 2), "three_neuron_d1": (3, 1, 1), "m9_m03_d6": (9, 3, 6)}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_the_note(name):
    table = strata(*TABLES[name])
    found = [
        {"r": r.r, "count": r.count, "dim": r.dimension, "n_stable": r.threshold, "min_deficiency": r.least_deficiency}
        for r in table.rows
    ]
    assert found == VECTORS[name]
    m, _, d = TABLES[name]
    assert table.full_threshold == (d + 1) * m and all(row.null == 0 for row in table.rows)


def every_branch(m, m0, signs=False, silent=False):
    """Every branch as (classes with signs, their targets, null neurons), from all ways to label neurons."""
    seen = set()
    labels = [("t", t) for t in range(m0)] + [("f", k) for k in range(m - m0)]
    if silent:
        labels.append(("z", 0))
    options = [(label, s) for label in labels for s in ((1, -1) if signs and label[0] != "z" else (1,))]
    for choice in product(options, repeat=m):
        blocks = {}
        for i, (label, s) in enumerate(choice):
            blocks.setdefault(label, []).append((i, s))
        if any(("t", t) not in blocks for t in range(m0)):
            continue
        named = tuple(tuple(blocks[("t", t)]) for t in range(m0))
        unnamed = []
        for label, members in blocks.items():
            if label[0] == "f":
                unnamed.append(tuple((i, s * members[0][1]) for i, s in members))
        seen.add((named, tuple(sorted(unnamed)), tuple(i for i, _ in blocks.get(("z", 0), ()))))
    return seen


@pytest.mark.parametrize(("m", "m0"), [(m, m0) for m in range(1, 6) for m0 in range(1, m + 1)])
def test_counts_by_brute_force(m, m0):
    check_counts(m, m0, None, 3)


@pytest.mark.parametrize("row", ["tanh", "gaussian", "gelu"])
@pytest.mark.parametrize(("m", "m0"), [(m, m0) for m in range(1, 5) for m0 in range(1, m + 1)])
def test_counts_with_signs_and_null_neurons_by_brute_force(m, m0, row):
    check_counts(m, m0, row, 2)


def check_counts(m, m0, row, d):
    branches = every_branch(m, m0, signs=row in ("tanh", "gaussian"), silent=row in ("tanh", "gelu"))
    counts, alone, smooth = Counter(), Counter(), Counter()
    for named, unnamed, null in branches:
        key = len(named) + len(unnamed), len(null)
        ell = sum(len(b) == 1 for b in unnamed)
        counts[key] += 1
        alone[key, ell] += 1
        # nondegenerate: the kernel of the model's differential is as large as the branch (sizes decide, see below)
        smooth[key] += all(len(b) == 1 for b in named) and all(len(b) <= 2 for b in unnamed) and len(null) <= 1
    table = strata(m, m0, d, activation=row)
    assert table.count == len(branches)
    assert {(r.r, r.null): r.count for r in table.rows if r.count} == counts
    assert {((r.r, r.null), k): c for r in table.rows for k, c in r.deficiencies.items()} == alone
    assert {(r.r, r.null): r.morse_bott for r in table.rows if r.morse_bott} == {k: c for k, c in smooth.items() if c}
    assert all(min(r.deficiencies) == r.least_deficiency for r in table.rows if r.count)


def shifted(z):
    """Softplus(z) + sin(1.3 z + 0.4): s(0) != 0, all Taylor terms."""
    return np.logaddexp(z, 0) + np.sin(1.3 * z + 0.4)


def shifted_slope(z):
    return 1 / (1 + np.exp(-z)) + 1.3 * np.cos(1.3 * z + 0.4)


@pytest.mark.parametrize("case", range(12))
def test_dimension_and_nondegeneracy_against_the_differential(case):
    """At a random point of a branch, its dimension against its equations and the kernel of the model's differential."""
    rng = np.random.default_rng(case)
    m, m0, d = [(3, 1, 2), (4, 2, 2), (5, 2, 3), (4, 1, 3)][case % 4]
    branches = sorted(every_branch(m, m0))
    smooth = [b for b in branches if all(len(c) == 1 for c in b[0]) and all(len(c) <= 2 for c in b[1])]
    named, unnamed, _ = (smooth if case % 2 else branches)[rng.integers(len(smooth if case % 2 else branches))]
    goals, wanted = rng.standard_normal((m0, d)), rng.standard_normal(m0)
    w, a = np.zeros((m, d)), np.zeros(m)
    for t, block in enumerate(named):
        at = [i for i, _ in block]
        w[at] = goals[t]
        a[at] = rng.standard_normal(len(at))
        a[at] += (wanted[t] - a[at].sum()) / len(at)
    for block in unnamed:
        at = [i for i, _ in block]
        w[at] = rng.standard_normal(d)
        a[at] = rng.standard_normal(len(at))
        a[at] -= a[at].mean()
    x = rng.standard_normal((400, d))
    assert shifted(x @ w.T) @ a == pytest.approx(shifted(x @ goals.T) @ wanted)
    z = x @ w.T
    slopes = (shifted_slope(z) * a)[:, :, None] * x[:, None]
    jac = np.concatenate([shifted(z), slopes.reshape(400, -1)], axis=1)
    values = np.linalg.svd(jac, compute_uv=False)
    kernel = m * (d + 1) - int((values > 1e-8 * values[0]).sum())
    row = next(s for s in strata(m, m0, d).rows if s.r == len(named) + len(unnamed))
    free = sum(len(b) - 1 for b in named) + sum(len(b) - 1 + d for b in unnamed)
    assert row.dimension == free <= kernel and row.codimension == m * (d + 1) - free
    nondegenerate = all(len(c) == 1 for c in named) and all(len(c) <= 2 for c in unnamed)
    assert (kernel == free) == nondegenerate


def test_stirling_numbers():
    assert [stirling(5, k) for k in range(7)] == [0, 1, 15, 25, 10, 1, 0] and stirling(0, 0) == 1
    assert [associated_stirling(6, k) for k in range(5)] == [0, 1, 25, 15, 0]


def test_hypotheses_name_what_fails():
    for row in ("tanh", "sigmoid", "softplus", "gaussian", "gelu"):
        table = strata(4, 2, 3, activation=row)
        assert table.applies is False and f"{row}:" in table.assumptions[0].statement and "FAILS" in str(table)
    free = strata(4, 2, 3)
    assert free.applies is None and not free.signs and free.rigor is Rigor.GENERIC
    assert strata(4, 2, 3, bias=True).rows == strata(4, 2, 4).rows
    assert len(strata(4, 2, 3, bias=True).assumptions) == len(free.assumptions) + 1
    for row in ("relu", "square", "identity", "hard_tanh"):
        with pytest.raises(ScopeError):
            strata(4, 2, 3, activation=row)
    for sizes in ((1, 2, 3), (2, 0, 3), (2, 1, 0)):
        with pytest.raises(InputError):
            strata(*sizes)


def test_the_parity_claims_of_the_table():
    """Why the Taylor series has finitely many terms of one parity."""
    from fiberscope.activations import activation
    from fiberscope.invariants.recovery.nearminima.table import _TAYLOR

    z = np.linspace(-3, 3, 13)
    for name, why in _TAYLOR.items():
        s = activation(name)(z)
        part = s - 0.5 if "1/2" in why else s - z / 2 if "z/2" in why else s
        sign = 1 if why.endswith("even") else -1
        assert part[::-1] == pytest.approx(sign * part, abs=1e-12), name


def test_strata_report():
    table = strata(9, 3, 5, bias=True)
    assert table.count == 1048830 and table.least_threshold == 27
    frame = table.to_frame()
    assert {len(v) for v in frame.values()} == {7} and frame["threshold"][-1] == 27
    data = json.loads(table.to_json())
    assert data["rows"][0]["count"] == 18150 and data["branches"] == 1048830 and len(str(table).splitlines()) < 40


# ---- where networks lie


def teacher(rng, m0, d, q=1, row="tanh", bias=True):
    w = np.array([[Fraction(int(v), 4) for v in r] for r in rng.choice(np.arange(1, 40), (m0, d))], dtype=object)
    w *= rng.choice([-1, 1], (m0, d))
    b = np.array([Fraction(int(v), 3) for v in rng.integers(-5, 6, m0)], dtype=object) if bias else None
    a = np.array([[Fraction(int(v), 5) for v in r] for r in rng.integers(1, 12, (q, m0))], dtype=object)
    return Network.from_arrays((w, b), (a, [Fraction(1, 3)] * q), activation=row)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["tanh", "sigmoid", "gaussian", "softplus"]), st.booleans())
def test_points_of_a_branch_are_found_exactly(seed, row, wide):
    """A random branch, a random point on it: found exactly, with its classes, targets and null neurons."""
    rng = np.random.default_rng(seed)
    m0, d, q = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
    try:
        target = teacher(rng, m0, d, q, row)
        locate(target, target)
    except InputError:
        return
    m = m0 + int(rng.integers(0, 4)) + (12 if wide else 0)
    odd, even = row == "tanh", row == "gaussian"
    labels = [*range(m0), *(int(v) for v in rng.integers(-1 if odd else 0, m0 + 2, m - m0))]
    rng.shuffle(labels)
    w = np.full((m, d + 1), Fraction(0), dtype=object)
    a = np.full((m, q), Fraction(0), dtype=object)
    signs = rng.choice([-1, 1], m) if odd or even else np.ones(m, dtype=int)
    goals = np.concatenate(
        [target.layers[0].weight.astype(object), target.layers[0].bias[:, None].astype(object)], axis=1
    )
    goals = np.vectorize(Fraction, otypes=[object])(goals)
    for k in sorted(set(labels)):
        at = [i for i, v in enumerate(labels) if v == k]
        a[at] = [[Fraction(int(v), 7) for v in r] for r in rng.integers(-9, 10, (len(at), q))]
        if k < 0:
            continue
        centre = goals[k] if k < m0 else np.array([Fraction(int(v) + 100 * k, 11) for v in rng.integers(1, 50, d + 1)])
        turn = np.array([Fraction(int(s)) for s in signs[at]], dtype=object)[:, None]
        w[at] = turn * centre
        goal = (
            np.vectorize(Fraction, otypes=[object])(target.layers[1].weight[:, k])
            if k < m0
            else np.full(q, Fraction(0))
        )
        total = ((1 if even else turn) * a[at]).sum(axis=0)
        a[at[0]] += (1 if even else int(signs[at[0]])) * (goal - total)
    net = Network.from_arrays((w[:, :d], w[:, d]), (a.T, target.layers[1].bias), activation=row)
    found = locate(net, target)
    assert found.level == "exact" and found.same_function and found.rigor is Rigor.EXACT
    fit = found.fit
    blocks = {k: tuple(i for i, v in enumerate(labels) if v == k) for k in set(labels)}
    assert dict(zip(fit.targets, fit.classes, strict=True)).keys() >= set(range(m0))
    assert {t: c for t, c in zip(fit.targets, fit.classes, strict=True) if t is not None} == {
        k: blocks[k] for k in range(m0)
    }
    assert {c for t, c in zip(fit.targets, fit.classes, strict=True) if t is None} == {
        b for k, b in blocks.items() if k >= m0
    }
    assert fit.null == blocks.get(-1, ())
    assert set(fit.deficient) == {b[0] for k, b in blocks.items() if k >= m0 and len(b) == 1}
    assert fit.dimension == q * (m - fit.r) + (fit.r - m0) * (d + 1)
    x = rng.standard_normal((20, d))
    assert net(x) == pytest.approx(target(x))
    moved = net.with_theta(np.asarray(net.theta, dtype=object) + Fraction(1, 10**30))
    near = locate(moved, target)
    assert near.level == "numerical" and not near.same_function and near.rigor is Rigor.NUMERICAL


def slow_distance(net, target, branch, odd, even):
    """The least-squares distance from a branch by its equations, A theta = c."""
    named, unnamed, null = branch
    m, d, q = net.widths[1], net.widths[0] + 1, net.widths[2]
    rows, rhs = [], []

    def equation(entries, value):
        row = np.zeros(m * (d + q))
        for i, c in entries:
            row[i] += c
        rows.append(row)
        rhs.append(value)

    goals = np.concatenate([target.layers[0].weight64, target.layers[0].bias64[:, None]], axis=1)
    for t, block in enumerate(named):
        for i, s in block:
            for c in range(d):
                equation([(i * d + c, s)], goals[t, c])
        for o in range(q):
            equation([(m * d + i * q + o, 1 if even else s) for i, s in block], target.layers[1].weight64[o, t])
    for block in unnamed:
        for i, s in block[1:]:
            for c in range(d):
                equation([(i * d + c, s), (block[0][0] * d + c, -block[0][1])], 0.0)
        for o in range(q):
            equation([(m * d + i * q + o, 1 if even else s) for i, s in block], 0.0)
    for i in null:
        for c in range(d):
            equation([(i * d + c, 1.0)], 0.0)
    theta = np.concatenate([
        np.concatenate([net.layers[0].weight64, net.layers[0].bias64[:, None]], axis=1).ravel(),
        net.layers[1].weight64.T.ravel(),
    ])  # fmt: skip
    a, c = np.array(rows), np.array(rhs)
    gap = net.layers[1].bias64 - target.layers[1].bias64
    return math.sqrt(((np.linalg.lstsq(a, a @ theta - c, rcond=None)[0]) ** 2).sum() + (gap**2).sum())


@pytest.mark.parametrize(
    ("row", "m", "m0", "q"),
    [
        ("tanh", 3, 1, 1),
        ("tanh", 4, 2, 2),
        ("gaussian", 3, 2, 1),
        ("sigmoid", 4, 1, 1),
        ("softplus", 5, 2, 1),
        ("gelu", 4, 2, 1),
    ],
)
def test_distances_against_every_branch(row, m, m0, q):
    rng = np.random.default_rng(m + m0)
    target = Network.random((2, m0, q), activation=row, seed=1)
    for spread in (1.0, 0.2):
        net = Network.random((2, m, q), activation=row, seed=int(rng.integers(99)))
        net = net.with_theta(spread * np.asarray(net.theta))
        odd, even = row == "tanh", row == "gaussian"
        least = {}
        for branch in every_branch(m, m0, signs=odd or even, silent=row in ("tanh", "gelu")):
            r = len(branch[0]) + len(branch[1])
            least[r] = min(least.get(r, np.inf), slow_distance(net, target, branch, odd, even))
        found = locate(net, target)
        assert {f.r: f.distance for f in found.fits} == pytest.approx(least, abs=1e-12)
        assert found.optimal and found.level == "off"
        assert found.fit.distance == pytest.approx(min(least.values()))


def test_greedy_merging_is_an_upper_bound_and_finds_planted_classes():
    rng = np.random.default_rng(0)
    for seed in range(12):
        target = Network.random((3, 2, 1), activation="tanh", seed=seed)
        wide = embed(target, [7], how="mixed", alpha="random", factors=True, seed=seed).floats()
        theta = np.asarray(wide.theta) + 1e-5 * rng.standard_normal(wide.parameter_count)
        layer = wide.with_theta(theta).layers
        goal = target.layers
        cloud = Cloud(
            np.concatenate([layer[0].weight64, layer[0].bias64[:, None]], axis=1), layer[1].weight64.T,
            np.concatenate([goal[0].weight64, goal[0].bias64[:, None]], axis=1), goal[1].weight64.T,
            signs=True, silent=True,
        )  # fmt: skip
        cost = {}
        for every in (True, False):
            for blocks, null in best_partitions(cloud, every):
                total = (
                    sum(cloud.cost(b.members, b.signs, b.target) for b in blocks) + (cloud.rows[list(null)] ** 2).sum()
                )
                cost.setdefault(len(blocks), []).append(total)
                assert sorted([i for b in blocks for i in b.members] + list(null)) == list(range(7))
        assert all(len(v) < 2 or v[0] <= v[1] + 1e-15 for v in cost.values())
        assert min(v[-1] for v in cost.values()) < 1e-8


def test_levels_and_options():
    target = Network.random((2, 2, 1), activation="tanh", seed=0)
    net = embed(target, [4]).floats()
    assert locate(net, target).level in ("exact", "numerical")
    theta = np.asarray(net.theta) + 1e-4
    moved = net.with_theta(theta)
    assert locate(moved, target).level == "off"
    found = locate(moved, target, tolerance=1e-2)
    assert found.level == "approximate" and found.fit.r == 2 and 0 < found.fit.distance < 1e-3
    assert found.output_gap == pytest.approx(1e-4)
    off = Network.random((2, 4, 1), activation="tanh", seed=9)
    assert "lies on no branch" in str(locate(off, target))
    data = json.loads(found.to_json())
    assert data["level"] == "approximate" and data["fits"][0]["r"] == 2 and data["same_function"] is False
    frame = found.to_frame()
    assert len({len(v) for v in frame.values()}) == 1
    wide = locate(embed(target, [20], how="mixed").network, target)
    assert wide.level == "exact" and not wide.optimal and "upper bounds" in str(wide)


def test_rounding_is_judged_entry_by_entry():
    """Large weights elsewhere do not excuse a difference: here the functions are 1e3 apart."""
    target = Network.from_arrays(([[1.0, 2.0]], [0.5]), ([[3.0]], None), activation="tanh")

    def net(gap, outer, extra=0.0):
        rows = [[1.0, 2.0], [1.0, 2.0 + gap]]
        return Network.from_arrays((rows, [0.5, 0.5]), ([outer], [extra]), activation="tanh")

    large = [1e12 + 3, -1e12]
    assert abs(net(1e-9, large)([[0.0, 0.1]]) - target([[0.0, 0.1]])).item() > 1
    assert locate(net(1e-9, large), target).level == "off"
    assert locate(net(1e-9, large), target, tolerance=1e-9).level == "approximate"
    assert locate(net(1e-15, large), target).level == "numerical"
    assert locate(net(0.0, [1e12 + 3.0001, -1e12]), target).level == "numerical"  # what 1e12 has for its last digits
    assert locate(net(0.0, [3.0001, 0.0]), target).level == "off"
    assert locate(net(0.0, large, 1e-6), target).level == "off" and locate(net(0.0, large), target).level == "exact"
    null = Network.from_arrays(([[1.0, 2.0], [1e-10, 0.0]], [0.5, 0.0]), ([[3.0, 1e12]], None), activation="tanh")
    assert locate(null, target).level == "off"


def test_locate_refuses_what_does_not_fit():
    target = Network.random((2, 2, 1), activation="tanh", seed=0)
    for net, text in (
        (Network.random((2, 1, 1), activation="tanh", seed=0), "at least as many"),
        (Network.random((3, 2, 1), activation="tanh", seed=0), "inputs or outputs"),
        (Network.random((2, 300, 1), activation="tanh", seed=0), "reduce the network first"),
        (Network.random((2, 2, 1), activation="sigmoid", seed=0), "different activations"),
        (Network.random((2, 2, 2, 1), activation="tanh", seed=0), "two affine layers"),
    ):
        with pytest.raises(InputError, match=text):
            locate(net, target)
    for weight, out in (
        ([[1.0], [-1.0]], [[1.0, 1.0]]),
        ([[1.0], [2.0]], [[1.0, 0.0]]),
        ([[1.0], [0.0]], [[1.0, 1.0]]),
    ):
        bad = Network.from_arrays((weight, None), (out, None), activation="tanh")
        with pytest.raises(InputError, match="reduce the target"):
            locate(bad, bad)
    with pytest.raises(InputError, match="tolerance"):
        locate(target, target, tolerance=-1.0)
    relu = Network.random((2, 2, 1), seed=0)
    with pytest.raises(ScopeError):
        locate(relu, relu)
