"""Lossless reduction: planted redundancy, closed forms, fixpoints, and functions that must not change."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.certificates import check
from fiberscope.domains import Box
from fiberscope.errors import InputError, ScopeError
from fiberscope.network import Frame, Layer, Network
from fiberscope.reduction import reduce
from fiberscope.results import Answer


def same_function(f, g, points):
    for x in points:
        assert f.exact(x) == g.exact(x)


def dyadic_points(rng, count, n, spread=4):
    return [[Fraction(int(v), 8) for v in rng.integers(-8 * spread, 8 * spread + 1, n)] for _ in range(count)]


def planted(rng, widths, name, copies):
    """A dyadic random network with copied neurons in each hidden layer (scaled by 2 for ReLU, flipped for tanh)."""
    pairs = []
    previous = None
    for k, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
        weight = rng.integers(-16, 17, (n_out, n_in)) / 8.0
        bias = rng.integers(-16, 17, n_out) / 8.0
        if previous is not None:
            source, factor = previous
            # a copied neuron below is read with arbitrary weights
            weight = np.hstack([weight, rng.integers(-8, 9, (n_out, len(source))) / 8.0])
        if k < len(widths) - 2 and copies:
            source = rng.integers(0, n_out, copies)
            factor = {"relu": 2.0, "tanh": -1.0}.get(name, 1.0) ** rng.integers(0, 2, copies)
            weight = np.vstack([weight, factor[:, None] * weight[source]])
            bias = np.concatenate([bias, factor * bias[source]])
            previous = (source, factor)
        else:
            previous = None
        pairs.append((weight, bias))
    return Network.from_arrays(*pairs, activation=name)


@given(seed=st.integers(0, 10**6), copies=st.integers(0, 4))
@settings(max_examples=25)
def test_relu_reduction_keeps_the_function_exactly_and_finds_the_copies(seed, copies):
    rng = np.random.default_rng(seed)
    net = planted(rng, (3, 5, 4, 2), "relu", copies)
    small = reduce(net)
    assert small.rounding.kind in ("exact", "rounded")
    assert small.network.hidden_count <= 9
    same_function(net, small.exact, dyadic_points(rng, 12, 3))
    again = reduce(small.exact)
    assert again.saved == 0
    assert check(small.certificate, net, small.network).answer is Answer.YES


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_smooth_reduction_keeps_the_function(name, seed):
    rng = np.random.default_rng(seed)
    net = planted(rng, (3, 5, 4, 2), name, 3)
    small = reduce(net, dtype=np.float64)
    assert small.network.widths[1:3] <= (5, 4)
    x = rng.standard_normal((50, 3))
    np.testing.assert_allclose(net(x), small.network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [10, 300, 4096])
def test_everything_planted_is_found_at_any_width(width):
    rng = np.random.default_rng(width)
    weight = rng.standard_normal((width, 8)).astype(np.float32)
    bias = rng.standard_normal(width).astype(np.float32)
    out = rng.standard_normal((3, width)).astype(np.float32)
    parts = np.array_split(rng.permutation(width), 10)
    weight[parts[0]] = 0
    bias[parts[0]] = -1  # dead
    weight[parts[1]] = 0
    bias[parts[1]] = 0.5  # constant
    out[:, parts[2]] = 0  # read by nobody
    n = len(parts[4])
    weight[parts[3][:n]], bias[parts[3][:n]] = weight[parts[4]][: len(parts[3])], bias[parts[4]][: len(parts[3])]
    n = min(len(parts[5]), len(parts[6]))
    weight[parts[5][:n]], bias[parts[5][:n]] = 0.5 * weight[parts[6][:n]], 0.5 * bias[parts[6][:n]]
    net = Network.from_arrays((weight, bias), (out, np.zeros(3, np.float32)), activation="relu")
    small = reduce(net)
    found = {row.kind: row.count for row in small.removed}
    assert found["dead"] == len(parts[0]) and found["constant"] == len(parts[1])
    assert found["zero_output"] == len(parts[2])
    assert found["duplicate"] == min(len(parts[3]), len(parts[4])) and found["proportional"] == n
    assert small.network.widths[1] == width - sum(found.values())
    assert all(row.scope == "everywhere" and row.rigor == "EXACT" for row in small.removed)


def test_generic_networks_lose_nothing():
    for name in ("relu", "tanh", "gelu"):
        small = reduce(Network.random((4, 30, 20, 2), activation=name, seed=5, dtype=np.float32))
        assert small.saved == 0 and small.rounding.kind == "exact" and not small.removed


def test_equal_streams_cancel_behind_merged_neurons():
    # second-layer rows differ until the copies below are merged; then the two streams cancel in the output
    one = np.array([[1.0, 2.0], [1.0, 2.0]])
    net = Network.from_arrays(
        (one, [0.5, 0.5]), ([[1.0, 2.0], [2.0, 1.0]], [0.25, 0.25]), ([[1.0, -1.0]], [3.0]), activation="relu"
    )
    small = reduce(net)
    assert small.network.widths == (2, 1, 1, 1)
    assert small.network.exact([7, -2]) == (3,)
    assert not small.network.layers[0].weight.any()


def test_magic_square_collapses_to_one_neuron_per_layer():
    square = [[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]
    net = Network.from_arrays(
        ([[1.0]] * 3, [0.5] * 3), (square, [0.25] * 3), ([[1.0, 2.0, 3.0]], [0.0]), activation="softplus"
    )
    small = reduce(net)
    assert small.network.widths == (1, 1, 1, 1)
    assert small.network.layers[1].weight.tolist() == [[15.0]]


def test_dead_by_signs_alone_everywhere():
    # the second layer sees outputs >= 0: a row <= 0 with bias <= 0 is dead on all of R^n
    net = Network.from_arrays(
        ([[1.0], [-1.0]], [0, 0]), ([[-1.0, -2.0], [1.0, -1.0]], [0.0, 0.5]), ([[1.0, 1.0]], [0.0]), activation="relu"
    )
    small = reduce(net)
    assert small.neuron_map[1][-1] == {"old": [0], "new": [], "how": "dead"}
    assert small.removed[0].scope == "everywhere"


def test_domain_makes_neurons_linear_and_folds_them_to_their_rank():
    rng = np.random.default_rng(2)
    weight = rng.integers(-8, 9, (7, 2)) / 8.0
    net = Network.from_arrays(
        (weight, np.full(7, 4.0)), (rng.integers(-8, 9, (3, 7)) / 8.0, np.zeros(3)), activation="relu"
    )
    assert reduce(net).saved == 0
    box = Box.parse("[-1,1]", 2)
    small = reduce(net, box)
    assert small.network.widths == (2, 2, 3)
    rows = [row for row in small.removed if row.kind == "linear"]
    assert rows[0].count == 5 and rows[0].scope == "domain" and rows[0].rigor == "INTERVAL"
    same_function(net, small.exact, [[Fraction(a, 4), Fraction(b, 4)] for a in range(-4, 5) for b in range(-4, 5)])
    outside = [Fraction(-100), Fraction(0)]
    assert net.exact(outside) != small.exact.exact(outside)


@given(seed=st.integers(0, 10**5))
@settings(max_examples=15)
def test_domain_reduction_keeps_the_function_on_the_domain(seed):
    rng = np.random.default_rng(seed)
    net = Network.from_arrays(
        (rng.integers(-8, 9, (6, 2)) / 8.0, rng.integers(-8, 17, 6) / 8.0),
        (rng.integers(-8, 9, (5, 6)) / 8.0, rng.integers(-16, 17, 5) / 4.0),
        (rng.integers(-8, 9, (1, 5)) / 8.0, np.zeros(1)), activation="leaky_relu" if seed % 2 else "relu",
    )  # fmt: skip
    small = reduce(net, "[0,1]")
    same_function(net, small.exact, [[Fraction(a, 6), Fraction(b, 6)] for a in range(7) for b in range(7)])
    assert reduce(small.exact, "[0,1]").saved == 0


def test_rounding_is_certified_and_bounds_the_change():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3)).astype(np.float32)
    weight[3] = 3 * weight[0].astype(np.float64)
    weight[3] = np.float32(3) * np.round(weight[0] * 64) / 64
    weight[0] = np.round(weight[0] * 64) / 64
    out = rng.standard_normal((2, 4)).astype(np.float32)
    net = Network.from_arrays((weight, np.zeros(4, np.float32)), (out, np.zeros(2, np.float32)), activation="relu")
    small = reduce(net, "[-1,1]")
    assert small.saved == 1 and small.rounding.kind == "rounded"
    worst = max(
        abs(a - b)
        for x in dyadic_points(rng, 40, 3, spread=1)
        for a, b in zip(net.exact(x), small.network.exact(x), strict=True)
    )
    assert 0 < worst <= small.rounding.constant < 1e-5
    wide = reduce(net, "[-1,1]", dtype=np.float64)
    assert wide.rounding.kind == "exact"
    kept = reduce(net, "[-1,1]", exact_only=True)
    assert kept.saved == 0 and kept.rounding.kind == "exact"


def test_rounding_everywhere_is_bounded_by_a_multiple_of_the_input():
    net = Network.from_arrays(
        ([[1.0], [2.0]], [0.0, 0.0]), (np.array([[0.1, 0.1]], np.float32), [0.0]), activation="relu"
    )
    small = reduce(net, dtype=np.float32)
    assert small.rounding.kind == "rounded"
    for x in (1.0, 1e3, 1e6):
        change = abs(net.exact([x])[0] - small.network.exact([x])[0])
        assert change <= small.rounding.constant + small.rounding.slope * x


def test_tolerance_merges_near_copies_within_its_bound():
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((6, 4))
    weight[5] = weight[1] + 1e-7
    net = Network.from_arrays((weight, np.zeros(6)), (rng.standard_normal((2, 6)), np.zeros(2)), activation="tanh")
    box = Box.parse("[-1,1]", 4)
    assert reduce(net, box).saved == 0
    small = reduce(net, box, tolerance=1e-4)
    assert small.saved == 1 and {row.kind for row in small.removed} == {"near_duplicate"}
    assert small.rounding.constant <= 1.01e-4
    x = box.sample(500, rng)
    assert np.abs(net(x) - small.network(x)).max() <= small.rounding.constant
    assert check(small.certificate, net, small.network).answer is Answer.YES


def test_tolerance_needs_a_bounded_domain():
    net = Network.random((2, 3, 1), seed=0)
    with pytest.raises(ScopeError, match="bounded domain"):
        reduce(net, tolerance=0.1)
    with pytest.raises(InputError, match="no number >= 0"):
        reduce(net, "[0,1]", tolerance=-1)


def test_irrational_constants_stay():
    net = Network.from_arrays(([[0.0], [1.0]], [0.5, 0.0]), ([[1.0, 1.0]], [0.0]), activation="tanh")
    assert reduce(net).saved == 0
    net = Network.from_arrays(([[0.0], [1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]), activation="sigmoid")
    small = reduce(net)
    assert small.saved == 1 and small.network.layers[1].bias.tolist() == [0.5]


def test_map_accounts_for_every_old_neuron():
    rng = np.random.default_rng(8)
    net = planted(rng, (3, 5, 4, 2), "relu", 3)
    small = reduce(net, "[-1,1]")
    for layer, rows in zip(net.hidden, small.neuron_map, strict=True):
        assert sorted(i for row in rows for i in row["old"]) == list(range(layer.n_out))
    new = [sorted(k for row in rows for k in row["new"]) for rows in small.neuron_map]
    assert new == [list(range(n)) for n in small.network.widths[1:-1]]


def test_zero_budget_still_returns_a_proved_result():
    rng = np.random.default_rng(8)
    small = reduce(planted(rng, (3, 5, 4, 2), "relu", 3), "[-1,1]", budget=0)
    assert check(small.certificate, small.original, small.network).answer is Answer.YES
    assert any("time" in text for text in small.limits)


def test_folded_normalisation_is_rounded_in_the_files_own_numbers():
    frames = Frame.of(3, 2, before=([Fraction(1, 3), Fraction(1, 7)], [0, 1])), Frame.of(2, 3, after=([3, 7], [1, 0]))
    own = (
        (np.array([[1, 2], [3, 6], [1, -1]], np.float32), np.array([1, 3, 0], np.float32)),
        (np.array([[0.1, 0.7, 1], [0.3, 0.1, 2]], np.float32), np.zeros(2, np.float32)),
    )
    relu, identity = activation("relu"), activation("identity")
    net = Network((
        Layer(*frames[0].folded(*own[0]), relu, "in", folded=("normalisation",), frame=frames[0]),
        Layer(*frames[1].folded(*own[1]), identity, "out", folded=("normalisation",), frame=frames[1]),
    ))  # fmt: skip
    small = reduce(net, "[-1,1]", dtype=np.float32)
    assert small.saved == 2 and small.rounding.kind == "rounded"
    for layer in small.network.layers:
        for array in layer.own:
            assert rationals.representable(array, np.float32).all()
    worst = max(
        abs(a - b)
        for x in dyadic_points(np.random.default_rng(0), 40, 2, spread=1)
        for a, b in zip(net.exact(x), small.network.exact(x), strict=True)
    )
    assert 0 < worst <= small.rounding.constant < 1e-4


def test_always_negative_leaky_neurons_are_linear_too():
    net = Network.from_arrays(
        (np.array([[1.0], [2.0], [-1.0], [0.5]]), np.full(4, -8.0)),
        (np.array([[1.0, -1, 2, 3], [0, 1, 1, 4]]), np.zeros(2)),
        activation=activation("leaky_relu", Fraction(1, 4)),
    )  # fmt: skip
    small = reduce(net, "[-1,1]", dtype=np.float64)
    assert small.exact.widths == (1, 1, 2)
    same_function(net, small.exact, [[Fraction(k, 7)] for k in range(-7, 8)])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_map_factors_give_the_old_outputs(seed):
    rng = np.random.default_rng(seed)
    net = planted(rng, (3, 5, 4, 2), "relu" if seed % 2 else "tanh", 3)
    small = reduce(net, dtype=np.float64)
    x = rng.standard_normal((20, 3))
    old, new = net.preactivations(x), small.network.preactivations(x)
    for layer, rows in enumerate(small.neuron_map):
        act = net.layers[layer].activation
        for row in rows:
            for i, factor in zip(row["old"], row.get("factors", ()), strict=False):
                expected = float(Fraction(factor)) * act(new[layer][:, row["new"][0]])
                np.testing.assert_allclose(act(old[layer][:, i]), expected, rtol=1e-9, atol=1e-9)


# ---- cases that once went wrong


def test_a_block_that_contributes_nothing_goes():
    net = Network.from_arrays(([[1.0, 0], [0, 1.0], [1, 1], [1, -1]], [5.0, 5, 5, 0]), ([[1.0, 1, -1, 1]], [0.0]))
    small = reduce(net, "[-1,1]")
    assert small.exact.widths == (2, 1, 1)
    same_function(net, small.exact, dyadic_points(np.random.default_rng(0), 10, 2, spread=1))


def test_tiny_products_are_not_lost():
    net = Network.from_arrays(([[1.0], [2.0**-450]], [1.0, 2.0**-450]), ([[1.0, 1e-200], [1.0, 1e200]], [0.0, 0]))
    small = reduce(net)
    assert net.exact([1]) == small.exact.exact([1])


def test_a_point_domain_at_a_kink():
    net = Network.from_arrays(
        ([[1.0, 2], [3, 4], [5, 7]], [0.0, 0, 0]), ([[1.0, 1, 2]], [0.0]), activation="leaky_relu"
    )
    small = reduce(net, "[0,0]")
    assert small.exact.exact([0, 0]) == net.exact([0, 0])


@pytest.mark.parametrize("depth", [1, 2])
def test_unbounded_changes_are_not_rounded(depth):
    middle = [([[1.0, 0.5], [0.25, 1.0]], [0.0, 0.0])] * (depth - 1)
    net = Network.from_arrays(([[1.1], [1.1]], [0.3, 0.3]), *middle, ([[1 / 3, 0.1]], [0.0]), activation="square")
    small = reduce(net)
    assert small.rounding.kind == "exact"
    assert any("no finite bound" in text for text in small.limits)
    assert reduce(net, "[-1,1]").saved == depth


def test_sums_beyond_the_dtype_are_left_out():
    big = np.array([[65504, 65504]], np.float16)
    net = Network.from_arrays((np.ones((2, 1), np.float16), np.zeros(2, np.float16)), (big, np.zeros(1, np.float16)))
    small = reduce(net)
    assert small.saved == 0 and any("left out" in text for text in small.limits)
    assert reduce(net, dtype=np.float32).saved == 1


def test_rigor_is_exact_only_by_signs():
    signs = Network.from_arrays(([[1.0]], [0]), ([[-1.0], [1.0]], [0.0, 1.0]), ([[1.0, 1.0]], [0.0]), activation="relu")
    assert [row.rigor for row in reduce(signs).removed] == ["EXACT"]
    rounded = Network.from_arrays(
        ([[1.0], [2.0]], [0.1, 0.3]), ([[0.5, 0.25], [1, 1]], [-1.0, 0.1]), ([[1.0, 1.0]], [0.0]),
        activation=["tanh", "relu"],
    )  # fmt: skip
    assert [(row.kind, row.scope, row.rigor) for row in reduce(rounded).removed] == [("dead", "everywhere", "INTERVAL")]


def test_everything_after_a_near_merge_is_an_enclosure():
    net = Network.from_arrays(
        ([[1.0], [1 + 2.0**-40]], [0.5, 0.5]), ([[1.0, 0.0], [0.0, 1.0]], [0.1, 0.1]), ([[1.0, 1.0], [1, 2]], [0.0, 0]),
        activation="softplus",
    )  # fmt: skip
    small = reduce(net, "[-1,1]", tolerance=1e-6)
    assert small.saved == 2 and {row.rigor for row in small.removed} == {"INTERVAL"}
    assert small.rounding.kind == "merged" and 0 < small.rounding.constant <= 1e-6
    assert small.to_dict()["rounding"]["bound"]["constant"] == small.rounding.constant


def test_linear_activations_fold_everywhere():
    assert reduce(Network.random((2, 6, 1), activation="identity", seed=0)).network.widths == (2, 1, 1)


@pytest.mark.parametrize("options", [{"dtype": int}, {"dtype": "float99"}, {"tolerance": float("nan")}])
def test_wrong_options_are_refused_before_any_work(options):
    with pytest.raises(InputError):
        reduce(Network.random((2, 3, 1), seed=0), "[0,1]", **options)


def test_exact_only_refuses_weights_that_do_not_fit_as_they_are():
    with pytest.raises(InputError, match="layer 1 has weights that are no float32"):
        reduce(Network.random((2, 3, 1), seed=0), dtype="float32", exact_only=True)
    with pytest.raises(InputError, match="contradict"):
        reduce(Network.random((2, 3, 1), seed=0), "[0,1]", tolerance=0.1, exact_only=True)


def test_no_time_is_said_everywhere():
    rng = np.random.default_rng(13)
    shapes = ((1, 3), (3, 3), (3, 3), (3, 1))
    net = Network.from_arrays(
        *[(rng.integers(-1, 2, (a, b)).astype(float), rng.integers(-1, 2, a).astype(float)) for b, a in shapes]
    )
    small = reduce(net, budget=0)
    assert any("time" in text for text in small.limits)


@pytest.mark.parametrize("tolerance", ["0.1", None, True, [0.1], -1, np.inf])
def test_tolerances_that_are_no_numbers_are_refused(tolerance):
    with pytest.raises(InputError, match="tolerance .* is no number >= 0"):
        reduce(Network.random((2, 3, 1), seed=0), "[0,1]", tolerance=tolerance)


def test_tolerances_may_be_rationals():
    small = reduce(Network.random((2, 3, 1), seed=0), "[0,1]", tolerance=Fraction(1, 1024))
    assert small.tolerance == 2**-10 and "no near copies within the tolerance 0.0009765" in str(small)


@pytest.mark.parametrize("wrong", [None, "net.onnx", 3, [([[1.0]], [0.0])]])
def test_only_networks_are_reduced(wrong):
    with pytest.raises(InputError, match="no Network; .*fs.load"):
        reduce(wrong)


@pytest.mark.parametrize("tolerance", [10**400, float("inf"), -1, True, "0.1", None])
def test_tolerances_that_are_none_are_refused_in_one_line(tolerance):
    net = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError, match="^tolerance .* is no number >= 0"):
        reduce(net, "[0,1]", tolerance=tolerance)
