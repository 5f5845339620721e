"""The deep-orbit statement: orbits as large as the smallest reduced network, except where a whole layer is null."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.autodiff.families import RestrictedFamily
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.rings import PRIME
from fiberscope.models.chains import chain_family
from fiberscope.network import Network
from fiberscope.neurons import colour_classes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import deep_orbits_study as study


def test_all_partitions_of_a_layer_are_tried() -> None:
    """Bell numbers; with null neurons Bell(n + 1); with signs the Dowling numbers of Z_2."""
    assert [len(study.partitions(n, "generic")) for n in (1, 2, 3, 4)] == [1, 2, 5, 15]
    assert [len(study.partitions(n, "null")) for n in (1, 2, 3, 4)] == [2, 5, 15, 52]
    assert [len(study.partitions(n, "odd")) for n in (1, 2, 3, 4)] == [2, 6, 24, 116]
    assert [len(study.shapes(n, "odd")) for n in (1, 2, 3, 4)] == [2, 4, 7, 12]
    assert [len(study.shapes(n, "generic")) for n in (1, 2, 3, 4)] == [1, 2, 3, 5]


@pytest.mark.parametrize("law", list(study.ACTIVATIONS))
@pytest.mark.parametrize("widths", [(1, 2, 2, 1), (1, 3, 2, 2), (2, 2, 2, 2, 1)])
def test_trying_all_partitions_agrees_with_colour_refinement(widths: tuple[int, ...], law: str) -> None:
    rng = np.random.default_rng(sum(widths))
    tiny = rng.integers(-1, 2, (40, study.family_of(widths, True).size))
    points = np.concatenate([tiny, study.pattern_points(widths, law, True, 1, rng)[:100]])
    slow = study.coarsest(points, widths, law, True)
    for p, point in enumerate(points):
        layers = [(w[0].astype(float), b[0].astype(float)) for w, b in study.split(point[None], widths)]
        classes = colour_classes(Network.from_arrays(*layers, activation=study.ACTIVATIONS[law]))
        assert [c.count for c in classes] == slow.counts[p, 1:-1].tolist(), point.tolist()


EXCEPTIONS = [
    # widths, biases, theta, parameters of the reduced network, dimension
    ((1, 1, 1, 1), False, [0, 0, 0, 0, 1, 0], 1, 0),
    ((1, 1, 2, 1), False, [0, 0, 1, 2, 0, 0, 2, -1, 0], 5, 0),  # w = 0 and W3 W2 = 0, though all classes are single
    ((1, 1, 1, 1), True, [0, 0, 0, 2, 3, 0], 3, 1),
    ((1, 1, 1, 2), True, [0, 0, 0, 2, 3, 1, 0, 0], 5, 4),
    ((1, 1, 1, 1), True, [2, 3, 0, 0, 0, 0], 3, 1),
    ((1, 1, 1, 2), True, [2, 3, 0, 0, 0, 0, 0, 0], 4, 2),
    ((1, 1, 1, 1, 1), True, [0, 0, 0, 2, 3, 2, 1, 0], 5, 1),
    ((1, 2, 1, 1, 1), True, [0, 0, 0, 0, 0, 0, 2, 3, 2, 1, 0], 5, 1),
]


@pytest.mark.parametrize("law", ["odd", "null"])
@pytest.mark.parametrize(("widths", "biases", "theta", "reduced", "dimension"), EXCEPTIONS)
def test_null_layers_are_exceptions(
    law: str, widths: tuple[int, ...], biases: bool, theta: list[int], reduced: int, dimension: int
) -> None:
    points, rng = np.array([theta]), np.random.default_rng(0)
    found = study.coarsest(points, widths, law, biases)
    assert found.dimension[0] == reduced
    assert study.expected(found, points, widths, law, biases)[0] == dimension
    at = study.trained(widths, biases)
    family = study.family_of(widths, biases)
    rank, _ = study.ranks(family, points[:, at], np.array([reduced]), law, 4, rng)
    assert rank[0] == dimension
    # the true tanh or GELU in floats: a point of the orbit, then brackets
    chain = chain_family(widths, [activation(study.ACTIVATIONS[law])] * (len(widths) - 2))
    held = RestrictedFamily(chain, np.zeros(chain.size), at)
    floats = NumpyFamily(held, np.array(theta, dtype=float)[at])
    end = study.wander(floats, floats.start, rng, legs=4, length=1.0)
    assert study.numerical_rank(floats, end, rng) == dimension


def test_a_network_without_input_has_a_law_for_each_first_neuron() -> None:
    """|a|^2 / 2 - int s / s' db stands still: its derivative along both fields of W tanh(b) + c is zero."""
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((2, 3)), rng.standard_normal(3)
    s, slope = np.tanh(b), 1 - np.tanh(b) ** 2
    for output in range(2):
        db, dw = w[output] * slope, np.zeros((2, 3))
        dw[output] = s
        assert np.abs((w * dw).sum(axis=0) - s / slope * db).max() < 1e-14


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_ranks_over_power_series(rows: int, columns: int, rank: int, seed: int) -> None:
    """A product of series matrices of inner size r times powers of t has rank min(r, ...), at the right order."""
    rng = np.random.default_rng(seed)
    n, rank = 16, min(rank, rows, columns)

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = np.zeros((a.shape[0], b.shape[1], n), dtype=np.int64)
        for i, j, k in itertools.product(range(a.shape[0]), range(b.shape[1]), range(a.shape[1])):
            for p, q in itertools.product(range(n), range(n)):
                if p + q < n:
                    out[i, j, p + q] = (out[i, j, p + q] + int(a[i, k, p]) * int(b[k, j, q])) % PRIME
        return out

    left, right = rng.integers(0, PRIME, (rows, rank, n)), rng.integers(0, PRIME, (rank, columns, n))
    shift = np.zeros((rank, rank, n), dtype=np.int64)
    for k in range(rank):
        shift[k, k, k] = 1  # diag(1, t, t^2, ...): at t = 0 the rank is one
    table = times(times(left, shift), right)
    assert study.series_rank(table) == rank
    assert study.series_rank(table[:, :, :1]) == min(rank, 1)


def test_the_exact_flow_replaces_deep_brackets() -> None:
    """v = a = 0: brackets of depth 4 see five of six dimensions, the fields along a power series all of them."""
    widths, point = (1, 1, 1, 1), np.array([[1, 1, 0, 1, 0, 0]])
    rng = np.random.default_rng(0)
    rank, _ = study.ranks(study.family_of(widths, True), point, np.array([6]), "generic", 4, rng)
    assert rank[0] == 5
    assert study.flow_ranks(widths, True, point, "generic", 6, rng)[0] == 5
    assert study.flow_ranks(widths, True, point, "generic", 10, rng)[0] == 6
    # along the flow from an equal pair of neurons nothing is gained: 2-2-1 with u_1 = u_2 has a leaf of dimension 5
    pair = np.array([[1, 2, 1, 2, 3, 3, 1, 1, 5]])
    assert study.flow_ranks((2, 2, 1), True, pair, "generic", 12, rng)[0] == 5


SLICE = [((1, 2, 2, 1), True), ((2, 2, 1, 2), False), ((1, 1, 1, 2), True), ((1, 1, 2, 1, 1), False)]


@pytest.mark.parametrize(("widths", "biases"), SLICE)
def test_a_slice_of_the_search(widths: tuple[int, ...], biases: bool) -> None:
    rng, tally = np.random.default_rng(len(widths)), study.Tally()
    for law in study.ACTIVATIONS:
        study.examine(widths, law, biases, study.pattern_points(widths, law, biases, 1, rng), rng, tally)
    assert (tally.open, tally.wrong) == ([], [])
    assert tally.points == tally.agree + tally.null_layers >= 9
    assert tally.null_layers > 0


@pytest.mark.slow
@pytest.mark.parametrize(("widths", "step"), [((1, 1, 1, 1), 1), ((1, 1, 1, 2), 1), ((1, 2, 1, 1), 5)])
def test_parameters_with_entries_minus_one_zero_one(widths: tuple[int, ...], step: int) -> None:
    rng, tally = np.random.default_rng(0), study.Tally()
    for law, biases in itertools.product(study.ACTIVATIONS, (False, True)):
        for points in study.sign_points(widths, law, biases):
            study.examine(widths, law, biases, points[::step], rng, tally)  # all of them; one in five of the many
    assert (tally.open, tally.wrong) == ([], [])


@pytest.mark.slow
def test_wider_and_deeper_networks() -> None:
    rng, tally = np.random.default_rng(1), study.Tally()
    for widths, law in itertools.product([(1, 3, 3, 1), (2, 3, 2, 2), (1, 2, 2, 2, 1)], study.ACTIVATIONS):
        points = study.pattern_points(widths, law, True, 1, rng)
        study.examine(widths, law, True, points, rng, tally)
    assert (tally.open, tally.wrong) == ([], [])
