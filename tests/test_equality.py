"""Equality of networks: no wrong verdict, certificates that check, counterexamples that replay."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.certificates import check
from fiberscope.domains import Box
from fiberscope.errors import InputError, UndecidedError
from fiberscope.fibers.alignment import align
from fiberscope.fibers.distances import distance
from fiberscope.fibers.equality import assert_equal, equal
from fiberscope.fibers.paths import connect
from fiberscope.fibers.witnesses import replayed
from fiberscope.network import Network
from fiberscope.results import Answer, Budget
from oracles_fibers import (
    ARCHITECTURES,
    KINDS,
    MODES,
    NARROW,
    Net3,
    holders,
    near_miss,
    net3,
    same_values,
    scrambled,
    value,
    vector_network,
    vectors,
)

build = Network.from_arrays
GENERIC = ("generic", "hidden", "active", "dead")


def yes(f, g, domain=None, **options):
    verdict = equal(f, g, domain, **options)
    assert verdict.answer is Answer.YES, str(verdict)
    assert check(verdict.certificate, f, g).answer is Answer.YES
    return verdict


def no(f, g, domain=None, **options):
    verdict = equal(f, g, domain, **options)
    assert verdict.answer is Answer.NO, str(verdict)
    found, box = verdict.counterexample, f.domain(domain)
    assert f.exact(found.x) == found.f
    assert g.exact(found.x) == found.g
    assert found.f[found.output] - found.g[found.output] == found.difference or f.head
    assert found.difference != 0
    assert all(lo <= v <= hi for lo, v, hi in zip(box.lower, found.x, box.upper, strict=True))
    return verdict


# ---- closed forms


@pytest.mark.parametrize(("name", "case"), vectors(), ids=[name for name, _ in vectors()])
def test_verdicts_of_the_vectors(name, case):
    f, g = (vector_network(case[k]) for k in "AB")
    if name.startswith("11"):
        pytest.importorskip("fiberscope.fibers.cells")
    yes(f, g) if case["verdict"] in ("EQUAL", "UNDECIDED") else no(f, g)


def test_identities_of_each_activation():
    x = ([[1.0], [-1.0]], [0.0, 0.0])
    identity = build(([[1.0]], [0.0]))
    yes(build(x, ([[1.0, -1.0]], [0.0])), identity)
    leaky = build(x, ([[1.0, -1.0]], [0.0]), activation="leaky_relu")  # slope 1/100 rounded: (1 + a) x
    slope = leaky.layers[0].activation.value(Fraction(-1))
    yes(leaky, build((np.array([[1 - slope]], dtype=object), [0])))
    no(leaky, identity)
    yes(build(x, ([[1.0, 1.0]], [0.0])), build(([[1.0]], [0.0]), ([[1.0]], [0.0]), activation="abs"))
    tent = build(([[1.0], [1.0]], [1.0, -1.0]), ([[1.0, -1.0]], [-1.0]))  # relu(x+1) - relu(x-1) - 1
    yes(tent, build(([[1.0]], [0.0]), ([[1.0]], [0.0]), activation="hard_tanh"))
    yes(build(([[1.0]], [0.0]), ([[1.0]], [0.0]), activation="hard_tanh"),
        build(([[-1.0]], [0.0]), ([[-1.0]], [0.0]), activation="hard_tanh"))  # fmt: skip
    no(tent, build(([[1.0]], [0.0]), ([[1.0]], [2**-30]), activation="hard_tanh"))
    yes(build(([[1.0]], [0.5]), ([[2.0]], [1.0]), activation="tanh"),
        build(([[-1.0]], [-0.5]), ([[-2.0]], [1.0]), activation="tanh"))  # fmt: skip
    yes(build(([[1.0]], [0.5]), ([[2.0]], [1.0]), activation="sigmoid"),
        build(([[-1.0]], [-0.5]), ([[-2.0]], [3.0]), activation="sigmoid"))  # fmt: skip


def test_different_widths_and_depths():
    base = build(([[1.0, 2.0]], [1.0]), ([[3.0]], [0.0]))
    wide = build(([[2.0, 4.0], [1.0, 1.0], [1.0, 2.0]], [2.0, 5.0, 1.0]), ([[1.0, 0.0, 1.0]], [0.0]))
    deep = build(([[1.0, 2.0]], [1.0]), ([[1.0]], [0.0]), ([[3.0]], [0.0]), ([[1.0], [0.0]][:1], [0.0]))
    yes(base, wide)
    yes(wide, deep)
    no(base, build(([[1.0, 2.0]], [1.0]), ([[1.0]], [-0.5]), ([[3.0]], [0.0])))


def test_equal_on_a_box_only():
    f = build(([[1.0, 1.0], [1.0, -1.0]], [0.0, 3.0]), ([[1.0, 1.0]], [0.0]))
    g = build(([[1.0, 1.0]], [0.0]), ([[1.0]], [0.0]))
    h = build(([[1.0, 1.0], [0.0, 0.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    box = Box([-1, -1], [1, 1])
    affine = build(([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]], [0.0, 5.0, 5.0]), ([[1.0, 0.5, 0.5]], [-5.0]))
    yes(g, affine, box)
    no(g, affine)
    yes(g, h)
    no(f, g, box)
    yes(build(([[1.0]], [0.0]), ([[1.0]], [0.0])), build(([[1.0]], [0.0])), "nonnegative")
    no(build(([[1.0]], [0.0]), ([[1.0]], [0.0])), build(([[1.0]], [0.0])))
    touching = build(([[1.0, 1.0]], [-2.0]), ([[1.0]], [0.0]))
    yes(touching, build(([[0.0, 0.0]], [0.0])), box)
    no(touching, build(([[0.0, 0.0]], [0.0])), Box([-1, -1], [1, 1.0625]))


def test_heads():
    w, b = [[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]], np.array([1.0, 2.0, 3.0])
    lifted = (np.array(w) + np.array([[5.0, 7.0]]), b - 2)
    for head in ("softmax", "log_softmax"):
        yes(build((w, b), head=head), build(lifted, head=head))
        no(build((w, b), head=head), build((w, b + np.array([0, 0, 1e-9])), head=head))
    yes(build((w, b), head="argmax"), build(lifted, head="argmax"))
    no(build((w, b), head="argmax"), build((w, b * [1, 1, 2]), head="argmax"))
    tripled = (3 * np.array(lifted[0]), 3 * lifted[1])
    yes(build((w, b), head="argmax"), build(tripled, head="argmax"))
    no(build((w, b), head="softmax"), build(tripled, head="softmax"))
    no(build((w, b), head="argmax"), build((-np.array(w), -b), head="argmax"))
    no(build((w, b)), build(lifted))
    mixed = equal(build((w, b), head="softmax"), build((w, b)))
    assert mixed.answer is Answer.UNDECIDED
    assert "head" in mixed.reason


def test_tanh_pairs_differ_by_disjoint_enclosures():
    f = build(([[1.0, 2.0]], [0.5]), ([[2.0]], [1.0]), activation="tanh")
    g = build(([[1.0, 2.0]], [0.5]), ([[2.0]], [1.0 + 1e-6]), activation="tanh")
    verdict = equal(f, g)
    assert verdict.answer is Answer.NO
    found = verdict.counterexample
    assert not found.exact
    (low_f, high_f), (low_g, high_g) = found.f[found.output], found.g[found.output]
    assert high_f < low_g or high_g < low_f
    assert found.difference < 0
    tight = equal(f, build(([[1.0, 2.0]], [0.5]), ([[2.0]], [np.nextafter(1.0, 2)]), activation="tanh"), budget=2)
    assert tight.answer is not Answer.YES


# ---- counterexamples


def test_counterexamples_are_short():
    rng = np.random.default_rng(0)
    f = Network.random((30, 20, 10, 1), seed=1)
    parts = [(layer.weight.copy(), layer.bias.copy()) for layer in f.layers]
    parts[2][1][0] += 0.5
    assert set(no(f, build(*parts)).counterexample.x) == {0}
    parts[2][1][0] -= 0.5
    parts[0][0][3, 7] += 1.0
    found = no(f, build(*parts)).counterexample
    assert sum(v != 0 for v in found.x) <= 2
    assert all(Fraction(v).limit_denominator(1000) == v for v in found.x)
    assert f"f - g = {float(found.difference):.6g}" in str(found)
    assert "import numpy" in found.snippet()
    assert replayed(f, f, rng.normal(size=30).tolist()) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_ulp_is_a_difference(dtype):
    rng = np.random.default_rng(4)
    w, b = rng.normal(size=(8, 5)).astype(dtype), rng.normal(size=8).astype(dtype)
    v, d = rng.normal(size=(1, 8)).astype(dtype), np.zeros(1, dtype)
    f = build((w, b), (v, d))
    for i, part in enumerate((w, b, v)):
        moved = [w.copy(), b.copy(), v.copy()]
        place = np.unravel_index(3, part.shape)
        moved[i][place] = np.nextafter(part[place], dtype(9))
        found = no(f, build((moved[0], moved[1]), (moved[2], d))).counterexample
        assert abs(found.difference) < 1e-3
    assert not found.shows_in_dtype or dtype is np.float32 or found.replay_f != found.replay_g


def test_a_difference_far_away_or_in_a_thin_strip():
    f = build(([[1.0]], [0.0]), ([[1.0]], [0.0]))
    far = build(([[1.0], [1.0]], [0.0, -(2.0**30)]), ([[1.0, 1.0]], [0.0]))
    assert equal(f, far, budget=20).answer is not Answer.YES
    strip = build(([[1.0], [1.0], [1.0], [1.0]], [0.0, -0.7, -0.7 - 2**-20, -0.7 - 2**-19]), ([[1.0, 1, -2, 1]], [0.0]))
    assert equal(f, strip, budget=20).answer is not Answer.YES


# ---- verdicts as objects


def test_verdicts_as_conditions_and_assert_equal():
    f, g = Network.random((2, 3, 1), seed=0), Network.random((2, 3, 1), seed=1)
    assert not equal(f, g)
    assert equal(f, f)
    with pytest.raises(UndecidedError):
        bool(equal(f, build(([[1.0, 0.0]], [0.0]), head="softmax")))
    assert_equal(f, f)
    with pytest.raises(AssertionError, match="not proved equal: NO") as caught:
        assert_equal(f, g, seed=1)
    # the message shows both outputs, and ends in Python that shows them again
    found = equal(f, g, seed=1).counterexample
    assert found.table() in str(caught.value) and str(caught.value).endswith(found.snippet())
    with pytest.raises(AssertionError, match="not proved equal: UNDECIDED"):
        assert_equal(f, g, budget=0)
    with pytest.raises(InputError, match="f maps 2 inputs to 1 outputs, g 3 to 1"):
        equal(f, Network.random((3, 3, 1), seed=0))
    with pytest.raises(InputError):
        equal(f, g, Box([0], [1]))


def test_budgets_end_in_undecided():
    rng = np.random.default_rng(8)
    net = net3(rng, (4, 2, 5, 3))
    f, g = net.network(), scrambled(net, rng)[0].network()
    spent = equal(f, g, budget=0)
    assert spent.answer in (Answer.UNDECIDED, Answer.YES)
    if spent.answer is Answer.UNDECIDED:
        assert "budget" in spent.reason
    stopped = equal(f, g, budget=Budget(cancelled=lambda: True))
    assert stopped.answer is Answer.UNDECIDED
    assert stopped.reason
    yes(f, f, budget=0)
    heard = []
    yes(f, g, progress=lambda share, text: heard.append((share, text)))
    assert heard
    assert all(0 <= share <= 1 and text for share, text in heard)


# ---- families


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.sampled_from(MODES), st.sampled_from(ARCHITECTURES[:4]))
def test_equality_is_symmetric_and_transitive(seed, mode, widths):
    rng = np.random.default_rng(seed)
    net = net3(rng, widths, mode, size=4)
    f, g, h = (part.network() for part in (net, scrambled(net, rng, 4)[0], scrambled(net, rng, 4)[0]))
    yes(f, g)
    yes(g, f)
    yes(g, h)
    other = net.copy()
    other.b3[0] += Fraction(1, 3)
    no(h, other.network())
    no(other.network(), g)


def volume(pairs, misses, seed):
    """Decide scrambled pairs and near misses; counts by kind and verdict, after checking each verdict by an oracle."""
    counts: Counter[str] = Counter()
    shapes = ARCHITECTURES + NARROW
    for k in range(pairs):
        rng = np.random.default_rng([seed, k])
        mode, widths = MODES[k % len(MODES)], shapes[k // len(MODES) % len(shapes)]
        net = net3(rng, widths, mode)
        moved, names = scrambled(net, rng)
        f, g = net.network(), moved.network()
        verdict = equal(f, g, budget=20)
        counts[f"pair {verdict.answer.name}"] += 1
        if widths in NARROW and verdict.answer is Answer.UNDECIDED:
            continue
        assert verdict.answer is Answer.YES, (mode, widths, names, str(verdict))
        assert check(verdict.certificate, f, g).answer is Answer.YES
    for k in range(misses):
        rng = np.random.default_rng([seed + 1, k])
        mode, widths = MODES[k % len(MODES)], shapes[k // len(MODES) % len(shapes)]
        kind, dtype = KINDS[k % 3], (np.float32, np.float64)[k // 3 % 2]
        base = net3(rng, widths, mode).network()
        plain, moved = holders(base, rng, dtype)
        f, g = build(*plain), build(*near_miss(moved, rng, kind))
        verdict = equal(f, g, budget=20)
        counts[f"miss {verdict.answer.name}"] += 1
        if verdict.answer is Answer.NO:
            x = verdict.counterexample.x
            assert value(f, x) != value(g, x)
        elif verdict.answer is Answer.YES:
            assert same_values(f, g, rng, 12), (mode, widths, kind)
            assert check(verdict.certificate, f, g).answer is Answer.YES
        else:
            counts[f"undecided {mode} {widths} {kind}"] += 1
            assert mode not in GENERIC or widths in NARROW, (mode, widths, kind, str(verdict))
    return counts


def test_scrambled_pairs_and_near_misses():
    counts = volume(36, 72, 10)
    assert counts["pair YES"] >= 34
    assert counts["miss NO"] > 50


@pytest.mark.slow
def test_many_scrambled_pairs_and_near_misses():
    counts = volume(125, 250, 20)  # benchmarks/bench_equal.py --scrambled makes thousands
    assert counts["pair YES"] > 122
    assert counts["miss NO"] > 175


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_small_integer_networks_against_exact_values(seed):
    """Coincidences are common here: whatever is answered, exact values must agree with it."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.integers(-1, 2, shape)  # noqa: E731
    nets = [Net3(draw(2, 2), draw(2), draw(2, 2), draw(2), draw(1, 2), [0]).network() for _ in range(2)]
    verdict = equal(*nets, budget=10)
    grid = [(Fraction(i, 4), Fraction(j, 4)) for i in range(-14, 15, 2) for j in range(-14, 15, 2)]
    agree = all(value(nets[0], x) == value(nets[1], x) for x in grid)
    assert verdict.answer is not Answer.YES or agree
    assert verdict.answer is not Answer.NO or value(nets[0], verdict.counterexample.x) != value(
        nets[1], verdict.counterexample.x
    )


@pytest.mark.parametrize("wrong", [None, "net.onnx", Path("net.onnx"), 3, [([[1.0]], [0.0])], np.eye(2)])
@pytest.mark.parametrize("function", [equal, assert_equal, distance, align, connect])
def test_what_is_no_network_is_refused_by_name(function, wrong):
    net = Network.random((2, 3, 1), seed=0)
    for pair, name in (((wrong, net), "f"), ((net, wrong), "g")):
        with pytest.raises(InputError, match=f"^{name} is .*fs.load") as caught:
            function(*pair)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 1.5, "one"])
@pytest.mark.parametrize("function", [equal, assert_equal, distance])
def test_what_is_no_seed_is_refused(function, seed):
    net = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError, match="seed"):
        function(net, net, seed=seed)
