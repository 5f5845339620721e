"""Every planted pair of the benchmarks is what its kind claims, shown without the code that decides equality."""

from __future__ import annotations

import importlib
import sys
from fractions import Fraction

import numpy as np
import pytest

from fiberscope.network import Network
from fiberscope.results import Answer

SMALL = ("5-5-5-1", "10-8-16-3", "5-50x6-5")
KINDS = ("eq_dead", "eq_perm", "eq_pow2", "eq_wide", "gen", "neq_bias", "neq_corner", "neq_out")


@pytest.fixture(scope="module")
def pairs(root):
    return benchmark(root, "pairs")


@pytest.fixture(scope="module")
def baselines(root):
    return benchmark(root, "baselines")


def benchmark(root, name):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def points(n: int, count: int, seed: int = 0) -> list[list[float]]:
    """Short dyadic points of the box [-1, 1]^n and beyond."""
    drawn = np.random.default_rng(seed).integers(-16, 17, (count, n)) / 8
    return drawn.tolist()


def exact_rows(layer) -> list[tuple[Fraction, ...]]:
    rows = np.column_stack([layer.weight, layer.bias])
    return [tuple(map(Fraction, row)) for row in rows.tolist()]


def directions(layer) -> list[tuple[Fraction, ...]]:
    """Rows scaled so that the first nonzero entry is 1 or -1."""
    out = []
    for row in exact_rows(layer):
        lead = next((abs(v) for v in row if v), Fraction(1))
        out.append(tuple(v / lead for v in row))
    return sorted(out)


def test_the_table_of_kinds_is_complete(pairs):
    assert sorted(pairs.KINDS) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_pairs_agree_exactly_and_others_do_not(pairs, kind, size, seed):
    made = pairs.pair(kind, pairs.SIZES[size], seed)
    assert made.expected is (Answer.YES if kind.startswith("eq_") else Answer.NO)
    agree_or_differ(made, kind, seed)


def agree_or_differ(made, kind, seed=0):
    """Exact values are equal at a few points for YES, and differ at the most promising one for NO."""
    trials = points(made.f.widths[0], 256, seed)
    if made.expected is Answer.YES:
        assert all(made.f.exact(x) == made.g.exact(x) for x in trials[:3])
        return
    if kind == "neq_corner":
        trials = [corner_of(made.f).tolist()]
    best = int(np.argmax(np.abs(made.f(np.array(trials)) - made.g(np.array(trials))).max(axis=1)))
    assert made.f.exact(trials[best]) != made.g.exact(trials[best])


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_the_larger_sizes_agree_or_differ_exactly(pairs, kind):
    agree_or_differ(pairs.pair(kind, pairs.SIZES["784-64-64-10"]), kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_the_largest_size_agree_or_differ_exactly(pairs, kind):
    agree_or_differ(pairs.pair(kind, pairs.SIZES["784-512-256-10"]), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_all_arrays_are_float32_and_seeded(pairs, kind):
    first, again, other = (pairs.pair(kind, (10, 8, 16, 3), seed) for seed in (3, 3, 4))
    for a, b, c in zip(first[:2], again[:2], other[:2], strict=True):
        assert a.dtype == np.float32
        assert a.digest == b.digest != c.digest


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_network_is_not_the_first_one(pairs, kind):
    made = pairs.pair(kind, (10, 8, 16, 3))
    assert not made.f.same_as(made.g)
    assert exact_rows(made.f.layers[0]) != exact_rows(made.g.layers[0])


def test_permuted_pairs_have_the_same_rows_and_rescaled_ones_the_same_directions(pairs):
    made = pairs.pair("eq_perm", (10, 8, 16, 3))
    assert sorted(exact_rows(made.f.layers[0])) == sorted(exact_rows(made.g.layers[0]))
    made = pairs.pair("eq_pow2", (10, 8, 16, 3))
    assert sorted(exact_rows(made.f.layers[0])) != sorted(exact_rows(made.g.layers[0]))
    assert directions(made.f.layers[0]) == directions(made.g.layers[0])


def test_generic_rescaling_rounds(pairs):
    made = pairs.pair("gen", (10, 8, 16, 3))
    assert directions(made.f.layers[0]) != directions(made.g.layers[0])
    x = np.array(points(10, 50))
    assert 0 < np.abs(made.f(x) - made.g(x)).max() < 1e-4


def test_wide_pairs_are_wider_by_two_in_each_hidden_layer(pairs):
    made = pairs.pair("eq_wide", (5, 4, 6, 7, 2))
    assert made.g.widths == (5, 6, 8, 9, 2)
    for below, layer, above in zip((None, *made.g.hidden), made.g.hidden, made.g.layers[1:], strict=False):
        found = directions(layer)
        assert len(found) == len(set(found)) + 1
        never = [
            i
            for i, row in enumerate(np.column_stack([layer.weight, layer.bias]))
            if (row <= 0).all() and (below is not None or not row[:-1].any())
        ]
        assert len(never) == 1 and above.weight[:, never].any()


def test_dead_pairs_differ_in_a_neuron_that_nothing_reads(pairs):
    made = pairs.pair("eq_dead", (5, 4, 6, 2))
    assert made.f.widths == made.g.widths
    for k in (0, 1):
        for net in (made.f, made.g):
            assert sum(not column.any() for column in net.layers[k + 1].weight.T) == 1
    assert directions(made.f.layers[0]) != directions(made.g.layers[0])
    assert len(set(directions(made.f.layers[0])) & set(directions(made.g.layers[0]))) == 3


@pytest.mark.parametrize(("kind", "layer", "size"), [("neq_out", 2, 0.01), ("neq_bias", 0, 1e-4)])
def test_small_changes_have_the_size_they_claim(pairs, kind, layer, size):
    rng = np.random.default_rng(5)
    f, g, *_ = planted(pairs, kind, pairs.he((6, 5, 4, 2), rng), rng)
    gaps = [np.abs(a.astype(float) - b) for k in range(3) for a, b in zip(f[k], g[k], strict=True)]
    changed = [k for k, gap in enumerate(gaps) if gap.any()]
    assert changed == [2 * layer + (kind == "neq_bias")]
    assert np.count_nonzero(gaps[changed[0]]) == 1
    assert np.isclose(gaps[changed[0]].max(), size, rtol=1e-3)


def planted(pairs, kind, chain, rng):
    """The pair before the disguise."""
    before = pairs.disguised
    pairs.disguised = lambda chain, rng: chain
    try:
        return pairs.KINDS[kind](chain, rng)
    finally:
        pairs.disguised = before


def corner_of(f: Network) -> np.ndarray:
    """The corner at which the neuron with zero outgoing weights is largest."""
    silent = next(i for i, column in enumerate(f.layers[1].weight.T) if not column.any())
    return np.sign(f.layers[0].weight64[silent])


@pytest.mark.parametrize("size", [*SMALL, "784-64-64-10"])
def test_corner_pairs_differ_near_one_corner_only(pairs, size):
    made = pairs.pair("neq_corner", pairs.SIZES[size])
    corner, n = corner_of(made.f), made.f.widths[0]
    assert made.f.exact(corner.tolist()) != made.g.exact(corner.tolist())
    for i in range(min(n, 3)):
        other = corner.copy()
        other[i] = -other[i]
        at_edge = corner * (1 - Fraction(1, 16))
        for x in (other.tolist(), at_edge.tolist()) if n < 32 else (at_edge.tolist(),):
            assert made.f.exact(x) == made.g.exact(x)
    x = np.random.default_rng(0).uniform(-1, 1, (2000, n))
    assert np.abs(made.f(x) - made.g(x)).max() < 1e-9


def test_an_unknown_kind_is_refused(pairs):
    with pytest.raises(KeyError):
        pairs.pair("eq_other", (2, 2, 1))


@pytest.mark.parametrize(
    ("kind", "sampled", "matched"),
    [
        ("eq_pow2", "equal", "equal"),
        ("gen", "equal", "equal"),  # wrong, as is the next
        ("eq_dead", "equal", "different"),
        ("eq_wide", "equal", "cannot"),
        ("neq_out", "different", "different"),
        ("neq_corner", "equal", "different"),  # wrong
    ],
)
def test_what_baselines_say(pairs, baselines, kind, sampled, matched):
    made = pairs.pair(kind, (10, 8, 16, 3))
    assert baselines.random_inputs(made.f, made.g, 2000).word == sampled
    assert baselines.weight_matching(made.f, made.g).word == matched


@pytest.mark.parametrize("seed", range(3))
def test_the_mixed_integer_program_is_right_on_small_pairs(pairs, baselines, seed):
    same, other = (pairs.pair(kind, (2, 3, 3, 1), seed) for kind in ("eq_pow2", "neq_corner"))
    assert baselines.mixed_integer(same.f, same.g, 20).word == "equal"
    assert baselines.mixed_integer(other.f, other.g, 20).word == "different"


def test_the_bound_of_the_mixed_integer_program_is_the_largest_difference(baselines):
    f = Network.from_arrays(([[1.0, 1.0], [1.0, -1.0]], [0.5, -1.0]), ([[1.0, -2.0]], [0.0]))
    g = Network.from_arrays(([[1.0, 1.0], [1.0, -1.0]], [0.5, -1.0]), ([[1.0, -2.0]], [1e-7]))
    found = baselines.mixed_integer(f, g, 20)
    assert (found.word, found.detail) == ("equal", "bound 1.0e-07")
