"""Kinks in a slice: closed forms, an oracle that looks for bends along random lines, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import Network
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.slices import Segment, Slice, kinks_in_slice

PLANE = ([0, 0], [1, 0], [0, 1])


def pieces(found: Slice, layer: int, neuron: int) -> list[tuple[tuple[float, float], tuple[float, float], bool]]:
    return [(s.start, s.end, s.shows) for s in found.segments if (s.layer, s.neuron) == (layer, neuron)]


def test_a_hidden_kink_is_drawn_but_does_not_show() -> None:
    """relu(2 relu(x) - relu(y) - 4): x = 0 is hidden, y = 0 shows for x > 2, the neuron bends on y = 2x - 4."""
    net = Network.from_arrays(([[1, 0], [0, 1]], [0, 0]), ([[2, -1]], [-4]), ([[1]], [0]), activation="relu")
    found = kinks_in_slice(net, *PLANE, 4.0)
    assert pieces(found, 0, 0) == [((0.0, -4.0), (0.0, 4.0), False)]
    assert pieces(found, 0, 1) == [((-4.0, 0.0), (2.0, 0.0), False), ((2.0, 0.0), (4.0, 0.0), True)]
    assert sorted(pieces(found, 1, 0)) == [((2.0, -4.0), (2.0, 0.0), True), ((2.0, 0.0), (4.0, 4.0), True)]
    assert found.shown == {(0, 1), (1, 0)} and found.complete and found.layers == 3
    assert str(found) == "3 neurons bend in this slice, 2 of them bend the outputs"


def test_every_breakpoint_of_an_activation_is_a_line() -> None:
    net = Network.from_arrays(([[1, 1]], [0]), ([[3]], [0]), activation="hard_tanh")
    found = kinks_in_slice(net, *PLANE, 2.0)
    assert [(s.start, s.end) for s in found.segments] == [((-2.0, 1.0), (1.0, -2.0)), ((-1.0, 2.0), (2.0, -1.0))]
    flat = kinks_in_slice(net, [0.25, 0.25], [1, 1], [1, -1], 2.0)
    assert sorted(s.start[0] for s in flat.segments) == [-0.75, 0.25]


def test_cancelling_neurons_do_not_show() -> None:
    net = Network.from_arrays(([[1, 0], [-1, 0]], [0, 0]), ([[1, -1]], [0]), activation="relu")
    assert [s.shows for s in kinks_in_slice(net, *PLANE, 1.0).segments] == [False, False]  # relu(x) - relu(-x) = x


def test_one_input_gives_upright_lines() -> None:
    net = Network.from_arrays(([[1.0], [2.0]], [0, -1]), ([[1, 1]], [0]), activation="relu")
    found = kinks_in_slice(net)
    assert all(s.start[0] == pytest.approx(s.end[0], abs=1e-12) for s in found.segments) and len(found.segments) == 2
    assert found.v == (0.0,)


def bends(net: Network, found: Slice, seed: int) -> None:
    """Along random lines of the slice f is affine between the lines drawn, and bends on those that show."""
    rng = np.random.default_rng(seed)
    frame = np.array([found.u, found.v])
    ends = np.array([[s.start, s.end] for s in found.segments]).reshape(-1, 2, 2)
    for _ in range(20):
        p, q = found.radius * rng.uniform(-1, 1, (2, 2))
        hits = []
        for k, (a, b) in enumerate(ends):
            try:
                x, y = np.linalg.solve(np.column_stack([q - p, a - b]), a - p)
            except np.linalg.LinAlgError:
                continue
            if 0 < x < 1 and 0 <= y <= 1:
                hits.append((x, k))
        hits.sort()
        stops = [0.0, *(x for x, _ in hits), 1.0]

        def slopes(low: float, high: float, p: np.ndarray = p, q: np.ndarray = q) -> np.ndarray:
            x = np.array([low + (high - low) * w for w in (0.2, 0.5, 0.8)])
            values = net(np.array(found.origin) + (p + x[:, None] * (q - p)) @ frame)
            return np.diff(values, axis=0) / np.diff(x)[:, None]

        inner = []
        for low, high in zip(stops, stops[1:], strict=False):
            if high - low < 1e-5:
                inner.append(None)
                continue
            first, second = slopes(low, high)
            size = 1 + np.abs(first)
            assert (np.abs(first - second) < 1e-6 * size / (high - low)).all()
            inner.append(first)
        for (_, k), before, after in zip(hits, inner, inner[1:], strict=False):
            if before is not None and after is not None:
                jump = np.abs(before - after).max()
                scale = 1 + np.abs(before).max()
                assert (jump > 1e-8 * scale) if found.segments[k].shows else (jump < 1e-5 * scale), (k, jump)


@settings(max_examples=12)
@given(st.sampled_from([(2, 4, 3, 1), (3, 3, 5, 2), (5, 4, 4, 3, 1), (4, 6, 2), (2, 3, 3, 3, 1)]),
       st.sampled_from(["relu", "leaky_relu", "abs", "hard_tanh"]), st.integers(0, 10**6))  # fmt: skip
def test_between_the_lines_the_function_is_affine(widths: tuple[int, ...], name: str, seed: int) -> None:
    net = Network.random(widths, activation=name, seed=seed)
    found = kinks_in_slice(net, seed=seed)
    assert found.complete and found.segments
    bends(net, found, seed)


def test_pieces_lie_in_the_window_and_on_their_line() -> None:
    net = Network.random((3, 4, 5, 2), activation="relu", seed=3)
    found = kinks_in_slice(net)
    frame = np.array([found.u, found.v])
    assert np.allclose(frame @ frame.T, np.eye(2))
    for s in found.segments:
        ends = np.array([s.start, s.end])
        assert (np.abs(ends) <= found.radius * (1 + 1e-12)).all() and np.hypot(*(ends[1] - ends[0])) > 0
        z = net.preactivations(np.array(found.origin) + ends @ frame)[s.layer][:, s.neuron]
        assert (np.abs(z) < 1e-9 * (1 + found.radius)).all()


def test_the_pieces_of_one_line_do_not_overlap() -> None:
    net = Network.random((2, 6, 6, 1), activation="relu", seed=1)
    found = kinks_in_slice(net, *PLANE, 5.0)
    for neuron in range(6):
        parts = sorted((s.start, s.end) for s in found.segments if (s.layer, s.neuron) == (0, neuron))
        for (_, end), (start, _) in zip(parts, parts[1:], strict=False):
            assert np.allclose(end, start)


def test_too_many_regions_leave_later_layers_out() -> None:
    net = Network.random((2, 12, 12, 1), activation="relu", seed=0)
    whole, part = (kinks_in_slice(net, *PLANE, 3.0, cells=n) for n in (4000, 5))
    assert whole.complete and not part.complete and part.layers == 1
    assert {s.layer for s in part.segments} == {0} and {s.layer for s in whole.segments} == {0, 1}


def test_it_is_data() -> None:
    net = Network.random((2, 3, 1), activation="relu", seed=0)
    data = kinks_in_slice(net).to_dict()
    assert Segment(**{k: tuple(v) if isinstance(v, list) else v for k, v in data["segments"][0].items()}).layer == 0
    assert data == kinks_in_slice(net).to_dict()


def test_what_has_no_lines_is_refused() -> None:
    with pytest.raises(ScopeError, match=r"layer 1 has tanh; .*piecewise-linear"):
        kinks_in_slice(Network.random((2, 3, 1), activation="tanh", seed=0))
    net = Network.random((2, 3, 1), activation="relu", seed=0)
    for given_ in (([0, 0],), ([0, 0], [1, 0], [0, 1]), ([0], [1, 0], [0, 1], 1.0), ([0, 0], [1, 0], [0, np.nan], 1.0),
                   (*PLANE, 0.0), (*PLANE, np.inf)):  # fmt: skip
        with pytest.raises(InputError, match="slice"):
            kinks_in_slice(net, *given_)
    dull = Network.from_arrays(([[0.0, 0.0]], [1.0]), ([[1.0]], [0.0]), activation="relu")
    assert kinks_in_slice(dull).segments == ()
