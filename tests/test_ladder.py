"""The ladder of manifolds: planted targets are found and recognised, noise is not; model selection."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError
from fiberscope.invariants.dynamics.backprop import Batch
from fiberscope.invariants.recovery.ladders import climbing, leastsquares
from fiberscope.invariants.recovery.ladders.ladder import Recovery, recover
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.invariants.recovery.ladders.leastsquares import levenberg, survivors
from fiberscope.invariants.recovery.ladders.noisy import WidthScore, _choice, select_width
from fiberscope.network import Network
from fiberscope.neurons import colour_classes

Array = npt.NDArray[Any]

PAPER = Network.from_arrays(
    ([[0.6, 0.8, 1, 0, 0], [0, 0.6, 0.8, 1, 0], [0, 0, 0.6, 0.8, 1]], np.zeros(3)), ([[1.0, 1, 1]], [0.0]),
    activation="tanh",
)  # fmt: skip


def planted(k: int, d: int, q: int, activation: str, seed: int) -> Network:
    rng = np.random.default_rng(seed)
    outer = rng.choice([-1, 1], (q, k)) * rng.uniform(0.5, 1.5, (q, k))
    return Network.from_arrays(
        (1.3 * rng.standard_normal((k, d)), 0.3 * rng.standard_normal(k)), (outer, np.zeros(q)), activation=activation
    )


def drawn(n: int, d: int, seed: int) -> Array:
    return np.random.default_rng(1000 + seed).standard_normal((n, d))


def test_error(net: Network, target: Network) -> float:
    x = np.random.default_rng(9).standard_normal((1000, target.widths[0]))
    return float(((net(x) - target(x)) ** 2).mean())


test_error.__test__ = False  # type: ignore[attr-defined]


# ---- least squares


def test_one_linear_layer_is_solved_like_lstsq() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=9)
    field = Landscape((3, 1), (), x, y)
    fits = levenberg(field, rng.normal(size=(4, 3)))
    assert np.allclose(fits.theta, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-9)


def test_every_run_ends_at_a_critical_point_or_lower() -> None:
    x = drawn(20, 2, 0)
    field = Landscape((2, 3, 1), "tanh", x, np.sin(2 * x[:, 0]))
    start = leastsquares.drawn(field, 10, np.random.default_rng(0))
    fits = levenberg(field, start, steps=400)
    assert (np.diff(fits.losses) >= 0).all() and fits.losses.max() <= field.loss(start).max()
    assert np.allclose(field.loss(fits.theta), fits.losses, rtol=1e-12)
    first, last = (np.abs(field.slopes(theta)[1]).max() for theta in (start, fits.theta))
    assert last < 1e-2 * first


def test_successive_halving_keeps_the_best() -> None:
    x = drawn(20, 2, 1)
    field = Landscape((2, 2, 1), "tanh", x, planted(2, 2, 1, "tanh", 1)(x))
    start = leastsquares.drawn(field, 40, np.random.default_rng(1))
    few, all_ = survivors(field, start, keep=5, floor=1e-24), levenberg(field, start, floor=1e-24)
    assert few.losses[0] <= 1e-24 and all_.losses[0] <= 1e-24
    assert len(few.losses) < 20 and few.steps < all_.steps


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 2), st.booleans(), st.integers(0, 5))
@settings(max_examples=20)
def test_parameters_are_taken_apart_and_assembled(d: int, r: int, q: int, bias: bool, seed: int) -> None:
    field = Landscape((d, r, q), "tanh", np.ones((2, d)), np.ones((2, q)), bias=bias)
    theta = field.normal([seed], 1.0)
    assert np.array_equal(leastsquares.assembled(field, *leastsquares.taken_apart(field, theta)), theta)


def test_a_split_neuron_starts_at_the_parent_when_it_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(12, 3, 2)
    y = planted(2, 3, 1, "tanh", 2)(x)
    small, large = Landscape((3, 2, 1), "tanh", x, y), Landscape((3, 3, 1), "tanh", x, y)
    parent = levenberg(small, leastsquares.drawn(small, 8, np.random.default_rng(0))).theta[:1]

    class Still:
        def integers(self, *args: Any) -> Array:
            return np.zeros(args[-1], np.int64)

        def standard_normal(self, shape: Any) -> Array:
            return np.zeros(shape)

    monkeypatch.setattr(leastsquares, "_RIDGE", 1e-12)
    child = leastsquares.split(large, small, parent, 2, Still())  # type: ignore[arg-type]
    assert np.allclose(large.outputs(child), small.outputs(parent), atol=1e-6)
    moved = leastsquares.split(large, small, parent, 2, np.random.default_rng(0))
    (w, b, _), (new_w, new_b, _) = leastsquares.taken_apart(small, parent), leastsquares.taken_apart(large, moved)
    for old, new in ((w[0], new_w), (b[0], new_b)):  # the two halves lie around the parent, the others stay
        ends = [((n[j] + n[2]) / 2, n[1 - j], j) for n in new for j in (0, 1) if np.allclose((n[j] + n[2]) / 2, old[j])]
        assert len(ends) == 2 and all(np.allclose(rest, old[1 - j]) for _, rest, j in ends)
    assert np.abs(large.outputs(moved) - small.outputs(parent)).max() > 1e-3


# ---- the ladder


@pytest.fixture(scope="module")
def paper() -> Recovery:
    x = drawn(30, 5, 0)
    return recover((x, PAPER(x)), (1, 2, 3, 4), wide=9, starts=128)


def test_the_paper_target_is_recovered_on_its_smallest_manifold(paper: Recovery) -> None:
    assert paper.width == 3 and paper.criterion and paper.complete and paper.interpolates
    assert [rung.dimension for rung in paper.rungs] == [7, 14, 21] and paper.targets == 30
    assert [rung.interpolates for rung in paper.rungs] == [False, False, True]
    assert paper.rungs[2].rank == 21 and paper.rungs[2].best <= paper.floor
    assert test_error(paper.network, PAPER) < 1e-20
    flat = np.sort(np.abs(np.asarray(paper.network.layers[0].weight, float)).round(8), axis=None)
    assert flat.tolist() == sorted([0.6, 0.8, 1, 0, 0] * 3)


def test_embedded_and_reduced_networks_compute_the_same_exactly(paper: Recovery) -> None:
    assert paper.embedded.widths == (5, 9, 1) and paper.network.widths == (5, 3, 1)
    assert all(
        (a.weight == b.weight).all() for a, b in zip(paper.network.layers, paper.reduced.network.layers, strict=True)
    )
    assert colour_classes(paper.embedded)[0].count == 3
    assert paper.reduced.weight_multipliers[0].tolist() == [[1 / 3] * 5] * 3
    x = drawn(5, 5, 7)
    assert np.allclose(paper.embedded(x), paper.network(x), atol=1e-13)
    thirds = recover((x, x[:, 0]), (2,), wide=7, starts=2, flows=0)  # classes of 4 and 3
    small, wide = thirds.reduced.network.layers[1], thirds.embedded.layers[1]
    assert (np.asarray(wide.weight, float)[0, :4] * 4 == float(small.weight[0, 0])).all()
    assert (np.asarray(wide.weight, float)[0, 4:] * 3 == float(small.weight[0, 1])).all()


def test_the_report_is_short_and_names_the_hypotheses(paper: Recovery) -> None:
    text = str(paper)
    assert "width 3" in text and "GENERIC" in text and "inputs are generic" in text and len(text.splitlines()) < 25
    data = json.loads(paper.to_json())
    assert data["width"] == 3 and len(data["parameters"]) == 22 and data["rigor"] == "GENERIC"
    frame = paper.to_frame()
    assert {len(column) for column in frame.values()} == {3} and frame["found_by"][:2] == [None, None]


def test_the_same_seed_gives_the_same_answer(paper: Recovery) -> None:
    x = drawn(30, 5, 0)
    again = recover(Batch(x, PAPER(x)), [4, 3, 2, 1], wide=9, starts=128)
    assert again.to_json() == paper.to_json()


@pytest.mark.parametrize(("k", "d", "q", "activation", "n"), [(2, 3, 1, "softplus", 16), (2, 3, 2, "tanh", 16)])
def test_other_targets_are_recovered_too(k: int, d: int, q: int, activation: str, n: int) -> None:
    target = planted(k, d, q, activation, 3)
    x = drawn(n, d, 3)
    found = recover((x, target(x)), (1, 2, 3), activation=activation, starts=128, flows=2)
    assert found.width == k and found.criterion and test_error(found.network, target) < 1e-16
    assert found.rungs[-1].dimension == k * (d + q + 1)
    assert all(a.holds for a in found.assumptions if a.checked)


def test_when_no_width_explains_the_data_it_says_so() -> None:
    x = drawn(30, 5, 0)
    found = recover((x, PAPER(x)), (1, 2), starts=32, flows=2)
    assert found.width is None and not found.criterion and found.complete
    assert found.rungs[-1].best > 1e-3 and "no width explains the 30 points exactly" in str(found)
    assert found.rungs[0].agreement is None and found.network.widths == (5, 2, 1)


def test_interpolation_with_as_many_parameters_as_points_is_no_criterion() -> None:
    x, rng = drawn(8, 3, 4), np.random.default_rng(4)
    found = recover((x, rng.standard_normal(8)), (1, 2, 3), starts=128, flows=2)
    assert found.width is not None and found.rungs[-1].dimension >= 8 and not found.criterion
    assert "this explains nothing" in str(found)
    for n, exceeds in ((10, False), (11, True)):  # r = 2, d = 3: dimension 10
        x = drawn(n, 3, 4)
        assert recover((x, x[:, 0]), (2,), starts=1, flows=0).rungs[0].exceeds is exceeds


def test_more_classes_than_neurons_needed_interpolate_with_a_rank_defect() -> None:
    target = planted(1, 2, 1, "tanh", 5)
    x = drawn(20, 2, 5)
    found = recover((x, target(x)), (2,), starts=64, flows=0)
    assert found.criterion and found.rungs[0].rank < found.rungs[0].dimension == 8
    assert test_error(found.network, target) < 1e-6


def test_the_budget_ends_the_ladder_and_is_told() -> None:
    x = drawn(30, 5, 0)
    found = recover((x, PAPER(x)), (1, 2, 3), budget=0.0)
    assert not found.complete and len(found.rungs) == 1 and not found.rungs[0].complete and found.width is None


def test_starts_are_split_from_the_rung_below_if_it_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int | None]] = []

    def spy(field: Landscape, count: int, rng: np.random.Generator, small: Landscape | None, parents: Any) -> Array:
        seen.append((field.widths[1], None if small is None else small.widths[1]))
        return leastsquares.mixed(field, count, rng, small, parents)

    monkeypatch.setattr(climbing, "mixed", spy)
    x = drawn(20, 2, 0)
    recover((x, x[:, 0] ** 2), (1, 2, 4), starts=4, flows=0)
    assert seen == [(1, None), (2, 1), (4, None)]


def test_progress_is_reported() -> None:
    seen: list[tuple[float | None, str]] = []
    x = drawn(10, 2, 0)
    recover((x, x[:, 0] ** 2), (1, 2), starts=4, flows=0, progress=lambda f, text: seen.append((f, text)))
    assert [f for f, _ in seen] == [0.0, 0.5] and "best loss" in seen[1][1]


def test_bad_input_is_refused() -> None:
    x, y = np.ones((4, 2)), np.ones(4)
    for options in ({"wide": 1}, {"starts": 0}, {"floor": 0.0}, {"scale": 0.0}, {"flows": -1}):
        with pytest.raises(InputError):
            recover((x, y), (2,), **options)  # type: ignore[arg-type]
    for widths, data in (((), (x, y)), ((0,), (x, y)), ((1,), (x, y[:2])), ((1,), (x * np.nan, y))):
        with pytest.raises(InputError):
            recover(data, widths)


# ---- what must not pass for recovery


def refused(found: Recovery, words: str) -> bool:
    return found.width is not None and not found.criterion and words in str(found)


def test_outputs_do_not_count_as_samples() -> None:
    rng = np.random.default_rng(0)
    w, a, x = rng.normal(size=6), rng.normal(size=20), rng.normal(size=(3, 6))
    found = recover((x, np.tanh(x @ w + 0.3)[:, None] * a), (1,), flows=0, starts=24)
    assert refused(found, "outnumber the dimension")


def test_repeated_and_collinear_inputs_are_seen() -> None:
    rng = np.random.default_rng(0)
    target = planted(3, 3, 1, "tanh", 1)
    x = np.tile(rng.normal(size=(3, 3)), (10, 1))
    assert refused(recover((x, target(x)), (1,), flows=0, starts=24), "outnumber the dimension")
    line = rng.normal(size=(30, 1)) * np.array([[1.0, 2.0, -1.0]])
    found = recover((line, np.tanh(line[:, 0])), (1,), flows=0, starts=24)
    assert refused(found, "affine subspace")


def test_no_criterion_for_kinks_that_no_sample_sees() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = np.maximum(x @ [1, 2, -1] + 0.3, 0) + 3 * np.maximum(x[:, 0] - 4, 0)
    assert refused(recover((x, y), (2,), activation="relu", flows=0, starts=48), "activation is analytic")


@pytest.mark.parametrize("offset", [1e6, 1.7e9])
def test_noise_on_a_large_offset_is_not_explained(offset: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), offset + 0.5 * rng.normal(size=40)
    assert not recover((x, y), (1,), output_bias=True, flows=0, starts=8).criterion


def test_every_output_has_to_be_explained() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = np.column_stack([1e9 * np.tanh(x @ [1.0, 2.0]), np.tanh(2 * x[:, 0])])
    assert recover((x, y), (1,), flows=0, starts=16).width is None


def test_numbers_at_the_ends_of_the_floats_and_loose_floors_are_refused() -> None:
    x = np.random.default_rng(0).normal(size=(10, 2))
    for data in ((x, x[:, 0] * 1e200), (x, x[:, 0] * 1e-170), (x * 1e200, x[:, 0])):
        with pytest.raises(InputError, match="ends of the floats"):
            recover(data, (1,))
    with pytest.raises(InputError, match="floor"):
        recover((x, x[:, 0]), (1,), floor=2.0)


# ---- noise


def noisy(seed: int, n: int = 80) -> tuple[Array, Array]:
    x = drawn(n, 2, seed)
    clean = 2 * np.tanh(2 * x[:, 0] - x[:, 1]) - np.tanh(x[:, 0] + 2 * x[:, 1])
    return x, clean + 0.1 * np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize("criterion", ["held-out", "bic"])
def test_a_width_is_chosen_for_noisy_data(criterion: Any) -> None:
    x, y = noisy(6)
    found = recover((x, y), (1, 2, 3), starts=48, flows=0, noise=criterion)
    assert found.width is None and not found.criterion and found.selection is not None
    assert found.selection.width == 2 and found.selection.criterion == criterion
    text = str(found)
    assert "no width explains the 80 points exactly" in text and "a preference, not an explanation" in text


def test_scores_are_what_they_are_called() -> None:
    x, y = noisy(7, 40)
    chosen = select_width(x, y, (0, 1), starts=16, folds=4, seed=2)
    constant = chosen.scores[0]
    assert constant.dimension == 1 and constant.train == pytest.approx(y.var())
    places = np.array_split(np.random.default_rng([2, 0]).permutation(40), 4)
    errors = [((y[f] - np.delete(y, f).mean()) ** 2).mean() for f in places]
    assert constant.held_out == pytest.approx(np.mean(errors))
    assert constant.standard_error == pytest.approx(np.std(errors, ddof=1) / 2)
    assert constant.bic == pytest.approx(40 * np.log(y.var()) + np.log(40))
    best = chosen.scores[1]
    assert best.dimension == 5 and best.train == pytest.approx(((chosen.network(x)[:, 0] - y) ** 2).mean())
    assert best.train < 0.5 * constant.train and {len(c) for c in chosen.to_frame().values()} == {2}


def test_the_choice_is_the_smallest_within_one_standard_error() -> None:
    table = [(1, 9.0, -1.0, 3.0, 0.1), (2, 5.0, -7.0, 1.4, 0.1), (3, 4.0, -3.0, 1.0, 0.5), (4, 3.0, None, 2.0, 0.1)]
    scores = [WidthScore(r, 4 * r, train, bic, miss, error) for r, train, bic, miss, error in table]
    assert _choice(scores, "held-out") == (2, 3) and _choice(scores, "bic") == (2, 2)


def test_pure_noise_prefers_the_constant() -> None:
    x, rng = drawn(60, 3, 8), np.random.default_rng(8)
    assert select_width(x, rng.standard_normal(60), (0, 1, 2), starts=16).width == 0


def test_selection_refuses_what_makes_no_sense() -> None:
    x, y = noisy(6, 10)
    for options in ({"criterion": "aic"}, {"folds": 1}, {"folds": 11}):
        with pytest.raises(InputError):
            select_width(x, y, (1,), **options)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        select_width(x, y, (5,), criterion="bic", starts=2)
    with pytest.raises(InputError):
        select_width(x, y, ())


@pytest.mark.slow
def test_twenty_planted_targets_are_recovered_and_every_criterion_is_right() -> None:
    hits = []
    for seed in range(20):
        n = (22, 24, 27, 30)[seed % 4]
        target = PAPER if seed < 12 else planted(3, 5, 1, "tanh", seed)
        x = drawn(n, 5, seed)
        found = recover((x, target(x)), (2, 3), wide=9, seed=seed, flows=0, starts=384)
        hit = test_error(found.network, target) < 1e-6
        hits.append(hit)
        assert hit or not found.criterion
    assert sum(hits) >= 19
