"""Condensation: directions of neurons, classes at tolerances, ranks and dimensions beside them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError
from fiberscope.invariants.recovery.condensing.condensed import condensation
from fiberscope.invariants.recovery.condensing.directions import exp_entropy, layer_directions
from fiberscope.network import Network

FloatArray = npt.NDArray[np.float64]
W3 = np.array([[0.6, 0.8, 1, 0, 0], [0, 0.6, 0.8, 1, 0], [0, 0, 0.6, 0.8, 1]])
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
SIGNS = np.array([1.0, -1, 1, 1, 1, -1, -1, 1, 1])


def two_layers(w: Any, a: Any, b: Any = None, activation: str = "tanh") -> Network:
    return Network.from_arrays(
        (np.asarray(w, float), b), (np.atleast_2d(np.asarray(a, float)), None), activation=activation
    )


def planted(rng: np.random.Generator, k: int, n: int, d: int, noise: float, folded: bool) -> tuple[Network, FloatArray]:
    """A network with k well separated directions in d + 1 dimensions; every direction is taken."""
    while True:
        base = rng.standard_normal((k, d + 1))
        base /= np.linalg.norm(base, axis=1, keepdims=True)
        cosines = base @ base.T * (1 - np.eye(k))
        if (np.abs(cosines) if folded else cosines).max() < 0.9:
            break
    labels = rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, n - k)]))
    lengths = rng.uniform(0.5, 2.0, n) * (rng.choice([-1.0, 1.0], n) if folded else 1.0)
    rows = (base[labels] + noise * rng.uniform(-1, 1, (n, d + 1)) / (d + 1)) * lengths[:, None]
    return two_layers(rows[:, :-1], rng.uniform(0.5, 2, n), rows[:, -1], "tanh" if folded else "sigmoid"), labels


def same_partition(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


def test_entropy() -> None:
    assert exp_entropy([2.0] * 7) == pytest.approx(7)
    assert exp_entropy([1.0, 3.0]) == pytest.approx(4 / 3**0.75)
    assert exp_entropy([]) == 0.0


@given(st.floats(0.01, math.pi / 2), st.floats(0.05, 0.95))
def test_two_directions_have_the_closed_form(angle: float, p: float) -> None:
    """The eigenvalues of p u u^T + q v v^T are (1 +- sqrt(1 - 4 p q sin^2)) / 2."""
    net = two_layers([[3.0, 0.0], [np.cos(angle), np.sin(angle)]], [p / 3, 1 - p])
    found = layer_directions(net, 0)
    root = math.sqrt(1 - 4 * p * (1 - p) * math.sin(angle) ** 2)
    expected = [(1 + root) / 2, (1 - root) / 2]
    np.testing.assert_allclose(found.spectrum[:2], expected, atol=1e-12)
    assert found.effective == pytest.approx(exp_entropy(expected), rel=1e-9)


def test_orthogonal_directions() -> None:
    net = two_layers(np.eye(4)[[0, 0, 1, 2, 3]] * 2.0, [1, 1, 2, 2, 0])
    found = layer_directions(net, 0)
    assert found.amplitudes.tolist() == [2, 2, 4, 4, 0]
    assert found.effective == pytest.approx(3) and found.counts[0] == 4 and found.silent == 1
    assert found.effective_counts[0] == pytest.approx(3) and found.holding(0.99)[0] == 3
    assert found.holding(0.5)[0] == 2 and found.holding(0.3)[0] == 1


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 30), st.integers(3, 6), st.booleans())
def test_planted_directions_are_found(seed: int, k: int, more: int, d: int, folded: bool) -> None:
    rng = np.random.default_rng(seed)
    noise = 10.0 ** rng.uniform(-9, -3)
    net, labels = planted(rng, k, k + more, d, noise, folded)
    found = layer_directions(net, 0, (2.5 * noise, 0.05), seed=seed)
    assert found.counts == (k, k)
    assert same_partition(found.labels[0], labels)
    assert found.labels[0].tolist() == found.labels[1].tolist()
    ordered = labels[found.order]
    assert sum(ordered[1:] != ordered[:-1]) == k - 1  # classes are side by side
    mass = np.array([found.amplitudes[labels == c].sum() for c in range(k)])
    assert found.effective_counts[0] == pytest.approx(exp_entropy(mass))
    assert sorted(found.masses[0], reverse=True) == found.masses[0].tolist()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["tanh", "relu", "sigmoid", "cos"]))
def test_the_order_of_neurons_and_scales_do_not_matter(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    w, b, a = rng.standard_normal((12, 3)), rng.standard_normal(12), rng.standard_normal((2, 12))
    w[4:8] = w[:4] + 0.02 * rng.standard_normal((4, 3))
    base = layer_directions(two_layers(w, a, b, activation), 0, (1e-3, 0.1, 0.3))
    p, c = rng.permutation(12), rng.uniform(0.1, 10, 12)
    mixed = layer_directions(two_layers(w[p], a[:, p], b[p], activation), 0, (1e-3, 0.1, 0.3))
    scaled = layer_directions(two_layers(w * 1e-9, 1e5 * a, b * 1e-9, activation), 0, (1e-3, 0.1, 0.3))
    rescaled = layer_directions(two_layers(w * c[:, None], a / c, b * c, activation), 0, (1e-3, 0.1, 0.3))
    for other in (mixed, scaled, rescaled):
        assert other.counts == base.counts and other.effective == pytest.approx(base.effective)
        assert other.effective_counts == pytest.approx(base.effective_counts)
    np.testing.assert_allclose(mixed.amplitudes, base.amplitudes[p])
    np.testing.assert_allclose(rescaled.amplitudes, base.amplitudes)
    assert same_partition(mixed.labels[1], base.labels[1][p])
    assert mixed.neurons == base.neurons == scaled.neurons


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["tanh", "relu"]))
def test_classes_are_nested_and_within_reach(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    net = two_layers(rng.standard_normal((20, 2)), rng.standard_normal(20), rng.standard_normal(20), activation)
    found = layer_directions(net, 0, (0.05, 0.2, 0.6))
    assert list(found.counts) == sorted(found.counts, reverse=True)
    for labels in (found.labels, found.twins):
        for fine, coarse in zip(labels, labels[1:], strict=False):
            live = coarse >= 0
            assert len(set(zip(fine[live].tolist(), coarse[live].tolist(), strict=True))) == len(
                set(fine[live].tolist())
            )
    u = found.orientations
    for c in range(found.counts[0]):
        inside = u[found.labels[0] == c]
        chords = np.sqrt(np.maximum(2 - 2 * np.abs(inside @ inside.T if found.folded else inside @ inside.T), 0))
        assert chords.max() <= 2 * 0.05 + 1e-9


def test_signs_are_one_direction_only_where_the_activation_has_a_parity() -> None:
    w, a = [[1.0, 2.0], [-2.0, -4.0], [3.0, 6.0]], [1.0, 1, 1]
    for activation, count in [("tanh", 1), ("cos", 1), ("relu", 2), ("sigmoid", 2)]:
        found = layer_directions(two_layers(w, a, activation=activation), 0)
        assert found.counts == (count,) * 4, activation
    turned = layer_directions(two_layers(w, a), 0).orientations
    np.testing.assert_allclose(turned, np.tile([1 / 5**0.5, 2 / 5**0.5, 0.0], (3, 1)))
    back = layer_directions(two_layers(-np.array(w), a), 0).orientations
    np.testing.assert_allclose(back, turned)
    straight = layer_directions(two_layers(w, a, activation="relu"), 0).orientations
    np.testing.assert_allclose(straight[1], [-1 / 5**0.5, -2 / 5**0.5, 0.0])


def test_means_of_a_level_take_signs() -> None:
    """Two opposite neurons are one direction, and its mean is near the third, not near 0."""
    angles = np.array([0.0, 1e-8, 0.04])
    w = np.column_stack([np.cos(angles), np.sin(angles)]) * np.array([[1.0], [-1.0], [1.0]])
    found = layer_directions(two_layers(w, np.ones(3)), 0, (1e-6, 0.1))
    assert found.counts == (2, 1) == found.neurons
    np.testing.assert_allclose(found.masses[0], [2 / 3, 1 / 3])


def test_cosines_in_order() -> None:
    rng = np.random.default_rng(4)
    w = np.eye(3)[[0, 1, 2, 0, 1, 2, 0]] * np.array([1, 2, -1, 3, 1, 1, -2.0])[:, None]
    neurons, cosines = layer_directions(two_layers(w, np.ones(7)), 0).cosines()
    which = np.array([0, 1, 2, 0, 1, 2, 0])[neurons]
    np.testing.assert_allclose(cosines, which[:, None] == which[None])
    assert sum(which[1:] != which[:-1]) == 2
    wide = layer_directions(two_layers(rng.standard_normal((400, 6)), np.ones(400)), 0)
    neurons, cosines = wide.cosines(50)
    assert neurons.size == 50 == len(set(neurons.tolist()))
    u = wide.orientations[neurons]
    np.testing.assert_allclose(cosines, np.abs(u @ u.T))


@pytest.mark.parametrize("n", [60, 900])
def test_neighbours_are_alike_in_narrow_and_wide_layers(n: int) -> None:
    rng = np.random.default_rng(n)
    net, labels = planted(rng, 4, n, 5, 1e-3, True)
    order = layer_directions(net, 0).order
    assert sorted(order.tolist()) == list(range(n))
    ordered = labels[order]
    assert sum(ordered[1:] != ordered[:-1]) == 3


def test_pairs_are_neighbours_where_no_leaf_order_is_made() -> None:
    rng = np.random.default_rng(2)
    place = rng.permutation(np.repeat(np.arange(350), 2))
    found = layer_directions(two_layers(rng.standard_normal((350, 6))[place], rng.uniform(1, 2, 700)), 0, (1e-9, 1e-8))
    assert found.counts == (350, 350)
    ordered = place[found.order].reshape(-1, 2)
    assert (ordered[:, 0] == ordered[:, 1]).all()


def test_neurons_near_zero_are_none_where_the_activation_vanishes_at_zero() -> None:
    w = [[1.0, 0.0], [0.0, 1.0], [1e-8, 1e-8], [0.0, 0.0]]
    assert layer_directions(two_layers(w, np.ones(4)), 0).neurons[0] == 2
    assert layer_directions(two_layers(w, np.ones(4), activation="sigmoid"), 0).neurons[0] == 3
    assert layer_directions(two_layers(w, np.ones(4), activation="relu"), 0).neurons[0] == 3  # directions count


def test_silent_neurons_and_tiny_weights() -> None:
    w = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    found = layer_directions(two_layers(w, [1.0, 5.0, 0.0]), 0)
    assert found.silent == 2 and found.labels[0].tolist() == [0, -1, 1] and found.order[-1] == 1
    assert found.effective == pytest.approx(1)
    tiny = layer_directions(two_layers(w * 1e-180, [1.0, 5.0, 0.0]), 0)
    assert tiny.labels.tolist() == found.labels.tolist() and tiny.effective == pytest.approx(1)
    none = condensation(two_layers(np.zeros((3, 2)), np.zeros(3)))
    assert none.last.layers[0].effective == 0 and none.last.levels[0].directions == (0,)
    assert none.last.orbit == 1 == none.last.rank  # the output bias alone
    json.dumps(none.to_dict(), allow_nan=False)


def test_one_direction_one_function_and_one_motion_are_three_things() -> None:
    a = np.array([0.3, 1.1, -0.4, 0.9, -1.2, 0.5, 0.7, 0.2, -0.6])
    rows = W3[LABELS] * SIGNS[:, None]
    lengths = np.array([1, 1.5, 2, 2, 1, 1.2, 0.7, 0.6, 3])
    cases = {
        "directions": (two_layers(rows * lengths[:, None], a * SIGNS), (3, 9, 63, 9, 63)),
        "functions": (two_layers(rows, a * SIGNS), (3, 3, 21, 9, 63)),
        "together": (two_layers(rows, SIGNS), (3, 3, 21, 3, 21)),
    }
    for name, (net, expected) in cases.items():
        found = condensation(net, frozen=["b2"], orbits=True)
        level = found.last.levels[0]
        numbers = (level.directions[0], level.neurons[0], level.rank, level.classes[0], level.dimension)
        assert numbers == expected, name
        assert found.last.rank == expected[2], name
        assert found.last.orbit == expected[4], name
        assert found.parameters == 63 and level.distance == 0.0


def test_noise_below_the_tolerance_is_seen_through() -> None:
    rng = np.random.default_rng(1)
    rows = W3[LABELS] * SIGNS[:, None] + 1e-5 * rng.standard_normal((9, 5))
    net = two_layers(rows, SIGNS + 1e-5 * rng.standard_normal(9))
    found = condensation(net, frozen=["b2"], orbits=False)
    first, second, *_ = found.last.levels
    assert (first.neurons[0], first.rank, first.classes[0], first.dimension) == (9, 63, 9, 63)
    assert (second.neurons[0], second.rank, second.classes[0], second.dimension) == (3, 21, 3, 21)
    assert 1e-6 < second.distance < 1e-4 and found.last.rank == 63 and found.last.orbit is None
    text = str(found)
    assert "model rank 63" in text and "at most 63" in text


def test_relu_neurons_of_one_direction_are_one_function() -> None:
    lengths = np.array([1, 2, 3, 0.5, 1, 1, 1.5, 2.5, 0.3])
    net = two_layers(W3[LABELS] * lengths[:, None], np.arange(1.0, 10.0), activation="relu")
    found = condensation(net, frozen=["b2"], orbits=False)
    assert found.last.levels[0].neurons == (3,) and found.last.levels[0].rank == 18
    assert found.last.rank > 18  # their floats are not exactly proportional


def test_deep_networks_layer_by_layer() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((2, 3)), rng.standard_normal((3, 2))
    one, two = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 0, 1, 2])
    net = Network.from_arrays(
        (first[one], None), (second[two][:, one], None), (np.ones((1, 3))[:, two], None), activation="tanh"
    )
    found = condensation(net)
    assert [x.counts[0] for x in found.last.layers] == [2, 3]
    assert found.last.levels[0].classes == (2, 3) and found.last.levels[0].dimension == 2 * 4 + 3 * 3 + 4
    frame = found.to_frame()
    assert frame["layer"] == [1, 1, 1, 1, 2, 2, 2, 2] and frame["classes"][0] == 2 and frame["classes"][-1] == 3


def test_a_series_of_checkpoints() -> None:
    rng = np.random.default_rng(0)
    w, target = rng.standard_normal((9, 5)), W3[LABELS]
    nets = [two_layers((1 - t) * w + t * target, np.ones(9)) for t in np.linspace(0, 1, 5)]
    seen: list[str] = []
    found = condensation(nets, labels=[0, 1, 2, 3, "end"], progress=lambda _, text: seen.append(text))
    assert found.complete and len(seen) == 5 and "end" in seen[-1]
    assert [s.levels[0].directions[0] for s in found.snapshots] == [9, 9, 9, 9, 3]
    assert [s.orbit for s in found.snapshots] == [None] * 5 and found.snapshots[-1].orbit_upper == 22
    frame = found.to_frame()
    assert len(set(map(len, frame.values()))) == 1 and len(frame["layer"]) == 20
    assert "over 5 checkpoints" in str(found)
    assert [entry["label"] for entry in found.to_dict()["snapshots"]] == [0, 1, 2, 3, "end"]
    short = condensation(nets, budget=0)
    assert not short.complete and len(short.snapshots) == 1 and "1 of 5" in str(short)


def test_data_stay_small() -> None:
    nets = [Network.random((5, 9, 1), activation="tanh", seed=k) for k in range(130)]
    many = condensation(nets, ranks=False)
    data = many.to_dict()
    assert len(data["snapshots"]) == 100 and data["checkpoints"] == 130 and data["snapshots"][-1]["index"] == 129
    wide = condensation(Network.random((30, 1500, 1), activation="tanh", seed=0))
    assert wide.last.rank is None and wide.last.orbit is None
    drawing = wide.to_dict()["snapshots"][0]["drawings"][0]
    assert len(drawing["neurons"]) == 96 and len(drawing["cosines"]) == 96
    for found in (many, wide):
        assert len(found.to_json()) < 300_000


def test_refusals() -> None:
    net = two_layers(np.eye(2), [1.0, 1.0])
    affine = Network.from_arrays(([[1.0]], [0.0]))
    for bad, words in [((), "needs a network"), (affine, "no hidden layer"), ([net, affine], "architectures")]:
        with pytest.raises(InputError, match=words):
            condensation(bad)  # type: ignore[arg-type]
    for options, words in [
        ({"labels": [1, 2]}, "2 labels for 1"),
        ({"share": 0.0}, "share"),
        ({"tolerances": (0.1, 0.01)}, "growing"),
        ({"tolerances": (0.0, 0.01)}, "growing"),
        ({"tolerances": ()}, "growing"),
        ({"frozen": ["b3"]}, "there is no 'b3'"),
    ]:
        with pytest.raises(InputError, match=words):
            condensation(net, **options)
    with pytest.raises(InputError, match="hidden layer 1"):
        layer_directions(net, 1)


def test_checkpoints_may_come_one_by_one() -> None:
    series = [Network.random((2, 3, 1), activation="tanh", seed=seed) for seed in (0, 1)]
    one_by_one: Any = (net for net in series)
    assert [shot.network for shot in condensation(one_by_one, ranks=False).snapshots] == series
    for wrong in ("net.onnx", 3, {"W": 1}):
        with pytest.raises(InputError, match="networks is "):
            condensation(wrong)  # type: ignore[arg-type]
