"""Planted defects and healthy starts: which are trapped, on what, and whether the changes free them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants import orbit, smallest_sim
from fiberscope.invariants.classes.projections import partition_distance
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.dynamics.updates import State, optimiser
from fiberscope.network import Network
from fiberscope.neurons import colour_classes
from fiberscope.results import Rigor
from fiberscope.training.architectures.architecture import Architecture, Axis, Population, Skipped, Slot
from fiberscope.training.architectures.chains import chain_architecture
from fiberscope.training.drift.rules import OptimiserState
from fiberscope.training.lint.findings import CODES, class_dimension
from fiberscope.training.lint.freeing import offsets
from fiberscope.training.lint.linting import StartReport, lint_init
from fiberscope.training.lint.starts import read_start, silent_neurons

net = Network.from_arrays


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape) / np.sqrt(shape[-1])


def train(start: Network, rule: str, *, rate: float = 0.02, steps: int = 200, seed: int = 1) -> Network:
    """Full-batch training on random data with plain NumPy."""
    rng = np.random.default_rng(seed)
    chain, update, state = Chain(start), optimiser(rule, rate), State()
    theta = np.array(start.theta, dtype=np.float64)
    data = Batch(rng.standard_normal((20, start.widths[0])), rng.standard_normal((20, start.widths[-1])))
    for _ in range(steps):
        _, gradient = chain.gradient(theta, data)
        theta, state = update.step(theta, gradient, state)
    return start.with_theta(theta)


def flat(size: int, low: int, value: float) -> tuple[np.ndarray, np.ndarray]:
    return np.full((size, low), value), np.zeros(size)


# ---- planted defects: every builder, the codes of its traps, the widths it trains like, and the dimension


def net2net() -> Network:
    """Neurons 0 and 1 copied, their outgoing weights halved: the same function, wider."""
    w, b, v = draw(4, 3), draw(4), draw(2, 4, seed=1)
    wide = np.concatenate([v, v[:, :2]], axis=1)
    wide[:, [0, 1, 4, 5]] /= 2
    return net((np.concatenate([w, w[:2]]), np.concatenate([b, b[:2]])), (wide, draw(2)), activation="relu")


def tied_rows() -> Network:
    w, v = draw(5, 2), draw(1, 5)
    w[3], v[:, 3] = w[1], v[:, 1]
    return net((w, np.zeros(5)), (v, [0.3]), activation="softplus")


def circulant() -> Network:
    """Tied across two layers: a cyclic group acts on both at once, and no two neurons are equal."""
    square = np.array([[1.0, 5, 2], [2, 1, 5], [5, 2, 1]]) / 8
    return net((np.ones((3, 1)), np.ones(3)), (square, np.zeros(3)), (np.ones((1, 3)), [0.0]), activation="softplus")


def magic() -> Network:
    """Equal row sums and column sums, and no symmetry at all."""
    square = np.array([[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]) / 16
    return net((np.ones((3, 1)), np.ones(3)), (square, np.zeros(3)), (np.ones((1, 3)), [0.0]), activation="tanh")


def twins() -> Network:
    return net(([[1.0, 2], [-1, -2], [3, 1]], [0.5, -0.5, 0]), ([[1.0, -1, 0.3]], [0]), activation="tanh")


def even_twins() -> Network:
    return net(([[1.0, 2], [-1, -2], [3, 1]], [0.5, -0.5, 0]), ([[1.0, 1, 0.3]], [0]), activation="gaussian")


def null_neuron() -> Network:
    return net(([[1.0, 2], [0, 0], [3, 1]], [0.5, 0, 0]), ([[1.0, 0, 0.3]], [0]), activation="gelu")


def dead_relu() -> Network:
    """Neuron 1 of the second layer has no positive weight and no positive bias."""
    second = np.array([[1.0, 2, -3], [-1, -2, -3]]) / 4
    return net((draw(3, 2), draw(3)), (second, [0.0, -0.5]), (draw(2, 2), [0.1, 0.2]))


def hidden_duplicates() -> Network:
    """Neurons 0 and 1 of the first layer differ only in what they send to a dead neuron."""
    first = np.array([[1.0, 2], [1, 2], [0.5, -1]])
    second = np.array([[-1.0, -2, -3], [1, 1, 0.5], [-0.5, -0.5, 1]])
    return net((first, [0.1, 0.1, 0.2]), (second, [-1.0, 0, 0.3]), (draw(1, 3), [0.0]))


def zero_between() -> Network:
    """W_1 = W_3 = 0 with zero biases: W_2 is not 0 and cannot move either."""
    return net(flat(4, 3, 0.0), (draw(4, 4), np.zeros(4)), flat(2, 4, 0.0), activation="tanh")


def weighted() -> Network:
    return net(([[1.0, 2], [2, 4], [3, 1]], [0.5, 1, 0]), ([[1.0, 2, 0.3]], [0]), activation="relu")


def constants() -> Network:
    return net((np.zeros((3, 2)), np.zeros(3)), (draw(2, 3), draw(2)), activation="gaussian")


@dataclass(frozen=True)
class Planted:
    """A defect with what must be said of it."""

    build: Callable[[], Network]
    codes: tuple[str, ...]
    widths: tuple[int, ...]
    dimension: int
    analytic: bool = True
    kept: bool = True  # whether the change keeps the function


PLANTED = {
    "Net2Net widening": Planted(net2net, ("FS101",), (4,), 26, analytic=False),
    "tied rows": Planted(tied_rows, ("FS101",), (4,), 17),
    "constant": Planted(
        lambda: net(flat(4, 3, 0.1), flat(5, 4, 0.1), flat(2, 5, 0.1), activation="tanh"), ("FS104",) * 2, (1, 1), 10
    ),
    "all zero, sigmoid": Planted(
        lambda: net(flat(3, 2, 0), flat(2, 3, 0), flat(1, 2, 0), activation="sigmoid"), ("FS104", "FS104"), (1, 1), 7
    ),
    "all zero, tanh": Planted(
        lambda: net(flat(4, 3, 0), flat(5, 4, 0), flat(2, 5, 0), activation="tanh"), ("FS107",), (0, 0), 2
    ),
    "all zero, relu": Planted(
        lambda: net(flat(4, 3, 0), flat(5, 4, 0), flat(2, 5, 0)), ("FS106", "FS106"), (0, 0), 2, analytic=False
    ),
    "two zero layers": Planted(
        lambda: net((draw(4, 3), draw(4)), flat(5, 4, 0), flat(2, 5, 0), activation="tanh"), ("FS107",), (4, 0), 2
    ),
    "zero, generic, zero": Planted(zero_between, ("FS107",), (0, 0), 2),
    "both factors zero": Planted(
        lambda: net((np.zeros((2, 5)), None), (np.zeros((4, 2)), None), activation="identity"), ("FS107",), (0,), 4,
        analytic=False,
    ),
    "circulant, two layers": Planted(circulant, ("FS105",), (1, 1), 6),
    "magic square": Planted(magic, ("FS105",), (1, 1), 6),
    "signed twins": Planted(twins, ("FS102",), (2,), 9),
    "signed twins, even": Planted(even_twins, ("FS102",), (2,), 9),
    "null neuron": Planted(null_neuron, ("FS103",), (2,), 9),
    "dead neuron": Planted(dead_relu, ("FS106",), (3, 1), 17, analytic=False, kept=False),
    "duplicates behind a dead one": Planted(
        hidden_duplicates, ("FS101", "FS106"), (2, 2), 15, analytic=False, kept=False
    ),
    "multiples": Planted(weighted, ("FS108",), (2,), 9, analytic=False),
    "constants": Planted(constants, ("FS110",), (0,), 2, kept=False),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_defects_are_named(name: str) -> None:
    case = PLANTED[name]
    report = lint_init(case.build())
    assert report.trapped
    assert tuple(sorted(f.code for f in report.traps)) == case.codes
    assert tuple(report.effective_widths.values()) == case.widths
    assert report.dimension == case.dimension
    assert report.rigor is Rigor.EXACT
    assert all(f.dimension is not None and 0 < f.codimension == report.parameters - f.dimension for f in report.traps)
    assert all(f.optimiser is not None and f.optimiser.outcome == "kept" for f in report.traps)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("null neuron", "zero, generic, zero", "constants") else pytest.mark.slow)
        for n, case in PLANTED.items()
        if case.analytic
    ],
)
def test_the_dimension_is_that_of_the_orbit(name: str) -> None:
    start = PLANTED[name].build()
    # shapes are small, so Lie brackets modulo a prime are an independent count
    assert orbit(start, seed=0).dimension == lint_init(start).dimension


def gap(report: StartReport, now: Network) -> float:
    """How far parameters are from the equations of all trapped findings, computed from the equations anew."""
    before, after = (read_start(n) for n in (report.start.as_network(), now))
    worst = 0.0
    for found in report.traps:
        for name, classes in found.members:
            old, new = (
                np.concatenate([np.asarray(m, float) for m in s.rows(name)], axis=1) for s in (before, after)
            )  # fmt: skip
            inner = sum(m.shape[1] for m in before.rows(name, "in"))
            for members in classes:
                rows, first = list(members), members[0]
                if found.code == "FS105":
                    continue
                if found.code in ("FS103", "FS107"):
                    change = np.where(old[rows] == 0, new[rows], 0.0)
                elif found.code in ("FS106", "FS110"):
                    change = (new - old)[rows][:, :inner]
                else:
                    ratio = [next((a / b for a, b in zip(old[i], old[first], strict=True) if b), 1.0) for i in rows]
                    turn = np.array(ratio)[:, None] * np.ones(old.shape[1])
                    if before.architecture.named[name].activation == activation("gaussian"):
                        turn[:, inner:] = np.abs(turn[:, inner:])
                    hidden = np.array([[old[i, k] != turn[j, k] * old[first, k] for k in range(old.shape[1])]
                                       for j, i in enumerate(rows)])  # fmt: skip
                    change = np.where(hidden, 0.0, new[rows] - turn * new[first])
                worst = max(worst, float(np.abs(change).max()))
    if any(f.code == "FS105" for f in report.traps):
        worst = max(worst, partition_distance(now, colour_classes(report.start.as_network())).absolute)
    return worst


@pytest.mark.parametrize("rule", ["gd", "adam"])
@pytest.mark.parametrize("name", PLANTED)
def test_training_stays_and_the_change_frees(name: str, rule: str) -> None:
    case = PLANTED[name]
    start = case.build()
    report = lint_init(start, optimiser=rule)
    if (name, rule) == ("multiples", "adam"):
        assert not report.trapped
        assert gap(lint_init(start), train(start, rule)) > 1e-3  # the elementwise rule leaves what the linear one keeps
        return
    assert gap(report, train(start, rule)) < (1e-6 if rule == "adam" else 1e-9)  # rounding grows where they repel
    free = report.freed()
    assert not lint_init(free, optimiser=rule).trapped
    assert gap(report, free) > 1e-3
    points = np.random.default_rng(5).standard_normal((30, start.widths[0]))
    difference = float(np.abs(free(points) - start(points)).max())
    assert all(f.change is not None and f.change.function_kept for f in report.traps) is case.kept
    assert (difference < 1e-12) is case.kept
    later = train(free, rule)
    assert not lint_init(later, optimiser=rule).trapped
    assert gap(report, later) > 1e-2


# ---- healthy starts


def orthogonal(n: int, m: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(draw(max(n, m), min(n, m)))[0].T if n < m else np.linalg.qr(draw(n, m))[0])


def healthy(kind: str) -> Network:
    w1, w2, w3, zero = draw(6, 3), draw(6, 6), draw(2, 6), np.zeros
    if kind == "kaiming":
        return net((w1 * 2**0.5, zero(6)), (w2 * 2**0.5, zero(6)), (w3, zero(2)))
    if kind == "xavier tanh":
        return net((w1, zero(6)), (w2, zero(6)), (w3, zero(2)), activation="tanh")
    if kind == "glorot sigmoid":
        return net((w1, zero(6)), (w2, zero(6)), (w3, zero(2)), activation="sigmoid")
    if kind == "uniform":
        rng = np.random.default_rng(3)
        return net((rng.uniform(-1, 1, (6, 3)), rng.uniform(-1, 1, 6)), (w3, zero(2)), activation="gelu")
    if kind == "orthogonal":
        return net((orthogonal(6, 3), zero(6)), (orthogonal(6, 6), zero(6)), (orthogonal(2, 6), zero(2)))
    if kind == "zero last layer":
        return net((w1, draw(6)), (w2, draw(6)), (zero((2, 6)), zero(2)))
    if kind == "zero middle layer":
        return net((w1, draw(6)), (zero((6, 6)), zero(6)), (w3, zero(2)), activation="tanh")
    if kind == "zero first layer":
        return net((zero((6, 3)), zero(6)), (w3, zero(2)), activation="tanh")
    if kind == "lora":
        return net((draw(2, 5), None), (zero((4, 2)), None), activation="identity")
    if kind == "sparse":
        mask = np.random.default_rng(0).random((6, 6)) < 0.3
        return net((w1, zero(6)), (w2 * mask, zero(6)), (w3, zero(2)), activation="gelu")
    if kind == "identity layer":
        return net((w1, zero(6)), (np.eye(6), zero(6)), (w3, zero(2)))
    if kind == "antisymmetric":
        doubled = np.repeat(w3, 2, axis=1) * ([1, -1] * 6)
        return net((np.repeat(w1, 2, axis=0), np.repeat(draw(6), 2)), (doubled, zero(2)), activation="tanh")
    if kind == "equal incoming":
        return net((np.repeat(w1[:3], 2, axis=0), zero(6)), (w3, zero(2)), activation="tanh")
    if kind == "equal outgoing":
        return net((w1, zero(6)), (np.ones((2, 6)), zero(2)), activation="softplus")
    if kind == "nearly equal":
        w1[1], w3[:, 1] = w1[0] + 1e-15, w3[:, 0]
        return net((w1, zero(6)), (w3, zero(2)), activation="tanh")
    if kind == "negative biases":
        return net((w1, zero(6) - 0.01), (w2, zero(6) - 0.01), (w3, zero(2)))
    raise AssertionError(kind)


HEALTHY = {
    "kaiming": "FS205", "xavier tanh": "FS205", "glorot sigmoid": "FS205", "uniform": "", "orthogonal": "FS205",
    "zero last layer": "FS201", "zero middle layer": "FS201", "zero first layer": "FS204", "lora": "FS202",
    "sparse": "FS205", "identity layer": "FS205", "antisymmetric": "FS206", "equal incoming": "FS206",
    "equal outgoing": "FS205", "nearly equal": "FS207", "negative biases": "",
}  # fmt: skip


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_starts_are_not_trapped(kind: str) -> None:
    start = healthy(kind)
    for rule in ("sgd", "adam"):
        report = lint_init(start, optimiser=rule)
        assert not report.trapped
        assert all(f.code.startswith("FS2") for f in report.findings)
        assert HEALTHY[kind] in [f.code for f in report.findings] + [""]
        assert dict(report.effective_widths) == dict(report.widths)
        assert report.dimension == report.parameters
        assert report.freed() is report.start or np.array_equal(report.freed().theta, start.theta)
    later = train(start, "gd", rate=0.05)
    for old, new in zip(start.layers, later.layers, strict=True):
        still = ~(np.asarray(old.weight != new.weight).any(axis=1) | (old.bias != new.bias))
        assert not still.any()  # every neuron learns
    assert not lint_init(later).trapped


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["xavier tanh", "zero last layer", "equal incoming", "antisymmetric", "zero middle layer"]
)
def test_healthy_small_networks_fill_their_orbit(kind: str) -> None:
    small = {
        "xavier tanh": net((draw(2, 2), np.zeros(2)), (draw(1, 2), [0.0]), activation="tanh"),
        "zero last layer": net((draw(2, 2), draw(2)), (np.zeros((1, 2)), [0.0]), activation="tanh"),
        "equal incoming": net(([[1.0], [1.0]], [0.2, 0.2]), ([[1.0, 2.0]], [0.0]), activation="tanh"),
        "antisymmetric": net(([[1.0], [1.0]], [0.2, 0.2]), ([[1.0, -1.0]], [0.0]), activation="softplus"),
        "zero middle layer": net(
            ([[1.0], [2.0]], [0.2, 0.1]), flat(2, 2, 0.0), ([[1.0, 2.0]], [0.0]), activation="tanh"
        ),
    }[kind]
    report = lint_init(small)
    assert not report.trapped
    assert orbit(small, seed=0).dimension == report.dimension == small.parameter_count


# ---- optimisers


def test_decay_inside_adam_breaks_what_no_symmetry_explains() -> None:
    kept, broken = lint_init(circulant(), optimiser="adam+decay"), lint_init(magic(), optimiser="adam+decay")
    assert kept.trapped
    assert not broken.trapped
    assert [f.code for f in broken.findings][0] == "FS105"
    assert broken.findings[0].optimiser is not None
    assert broken.findings[0].optimiser.outcome == "broken"
    assert broken.dimension == broken.parameters
    # the same with a rule that has numbers; decoupled decay keeps both
    assert not lint_init(magic(), optimiser=optimiser("adam", 1e-3, decay=0.1)).trapped
    assert lint_init(magic(), optimiser=optimiser("adamw", 1e-3)).trapped


def test_a_spent_budget_claims_no_symmetry() -> None:
    assert lint_init(circulant(), optimiser="adam+decay").trapped
    assert not lint_init(circulant(), optimiser="adam+decay", budget=0.0).trapped
    assert lint_init(circulant(), optimiser="sgd", budget=0.0).trapped  # needs no symmetry


def test_decay_inside_adam_may_wake_a_dead_neuron_but_no_empty_one() -> None:
    asleep = lint_init(dead_relu(), optimiser="adam+decay")
    assert [f.code for f in asleep.findings if not f.trapped][0] == "FS106"
    assert not asleep.trapped
    empty = net((draw(3, 2), draw(3)), (np.array([[1.0, 2, 3], [0, 0, 0]]), np.zeros(2)), (draw(2, 2), draw(2)))
    for rule in ("adam+decay", "adamw", "sgd", "muon", "sign"):
        assert [f.code for f in lint_init(empty, optimiser=rule).traps] == ["FS106"]


def test_decay_moves_a_constant_off_its_critical_point() -> None:
    still = net(([[0.0], [1.0]], [3.0, 0.0]), ([[1.0, 2.0]], [0.0]), activation="hard_tanh")
    assert [f.code for f in lint_init(still).traps] == ["FS110"]
    assert not lint_init(still, optimiser="gd+decay").trapped
    assert lint_init(constants(), optimiser="gd+decay").trapped  # at the bias 0 decay does nothing


def test_elementwise_rules_keep_the_members_with_one_factor() -> None:
    rows, ends = [[1.0, 2], [2, 4], [2, 4], [3, 1]], [[1.0, 2, 2, 0.3]]
    start = net((rows, [0.5, 1, 1, 0]), (ends, [0]))
    linear, elementwise = lint_init(start, optimiser="momentum"), lint_init(start, optimiser="rmsprop")
    assert [(f.code, f.neurons) for f in linear.traps] == [("FS108", ((0, 1, 2),))]
    assert [(f.code, f.neurons) for f in elementwise.traps] == [("FS101", ((1, 2),))]
    assert [(f.code, f.trapped) for f in elementwise.findings][1] == ("FS108", False)
    assert elementwise.effective_widths == {"1": 3}


def test_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(InputError, match="known: gd, sgd"):
        lint_init(twins(), optimiser="adamax")
    for wrong, what in ((3, "a int"), (OptimiserState, "the class OptimiserState"), (object(), "a object")):
        with pytest.raises(InputError, match=f"optimizer is {what}; give the optimizer object itself, or a name: gd"):
            lint_init(twins(), optimiser=wrong)


# ---- changes


@given(st.integers(2, 300))
def test_offsets_are_few_distinct_and_cancel(k: int) -> None:
    found = offsets(k)
    assert len(found) == len(set(found)) == k
    assert sum(found) == 0
    assert sum(o != 0 for o in found) == max(2, k - 1)  # one neuron may stay as it is, unless the other one would move
    assert max(map(abs, found)) <= k // 2 + 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, object])
def test_splitting_keeps_sums_exactly(dtype: Any) -> None:
    third = Fraction(1, 3) if dtype is object else 1 / 3
    w = np.array([[third, 2], [third, 2], [third, 2], [5, 1]], dtype=dtype)
    v = np.array([[0.75, 0.75, 0.75, 3], [third, third, third, 1]], dtype=dtype)
    b, c = (np.array([0] * n, dtype=dtype) for n in (4, 2))
    if dtype is object:
        w, v, b, c = ([[Fraction(x) for x in row] for row in np.atleast_2d(a)] for a in (w, v, b, c))
        b, c = b[0], c[0]
    start = net((w, b), (v, c), activation="softplus")
    report = lint_init(start)
    change = report.traps[0].change
    assert change is not None
    free = report.freed()
    assert free.dtype == start.dtype
    old, new = (np.array(n.layers[1].weight, dtype=object) for n in (start, free))
    assert int((old != new).sum()) == change.entries == 2
    exact = [[sum((Fraction(x) for x in row[:3]), Fraction(0)) for row in m.tolist()] for m in (old, new)]
    assert exact[0] == exact[1]
    assert not lint_init(free).trapped


def test_changes_apply_to_other_parameters_and_scale() -> None:
    report = lint_init(twins())
    change = report.traps[0].change
    assert change is not None
    values = report.start.parameters
    small, large = (change.apply(values, scale=s)["2.weight"] for s in (0.01, 1.0))
    assert 0 < np.abs(small - values["2.weight"]).max() < np.abs(large - values["2.weight"]).max()
    assert change.apply(values)["1.weight"] is values["1.weight"]
    other = {**values, "2.bias": np.array([7.0])}
    assert report.freed(other)["2.bias"].tolist() == [7.0]
    with pytest.raises(InputError, match="scale"):
        change.apply(values, scale=0.0)
    with pytest.raises(InputError, match="no parameter"):
        change.apply({})
    assert change.to_dict() == {"description": change.description, "entries": 2, "function_kept": True}


def test_equal_neurons_that_read_nothing_are_no_multiples_afterwards() -> None:
    """Splitting a = (1, 1) into (1.5, 0.5) over w = 0 would give a weighted class of leaky ReLU, which SGD keeps."""
    start = net((np.ones((1, 2)), [0.5]), (np.zeros((3, 1)), np.zeros(3)), ([[1.0, 1.0, -1.0]], [0.0]),
                activation="leaky_relu")  # fmt: skip
    report = lint_init(start)
    assert [(f.code, f.neurons) for f in report.traps] == [("FS101", ((0, 1),))]
    change = report.traps[0].change
    assert change is not None
    assert (change.entries, change.function_kept) == (1, False)
    once = report.start.with_parameters(change.apply(report.start.parameters)).as_network()
    assert not lint_init(once).trapped
    split = start.with_theta([*start.theta[:-4], 1.5, 0.5, -1.0, 0.0])
    assert [f.code for f in lint_init(split).traps] == ["FS108"]
    assert not lint_init(split, optimiser="adam").trapped


@settings(max_examples=25)
@given(st.integers(0, 100_000), st.sampled_from(("tanh", "sigmoid", "gelu", "gaussian", "relu", "leaky_relu", "abs")))
def test_small_whole_numbers_are_always_freed(seed: int, name: str) -> None:
    """Networks of entries -1, 0, 1 have every defect at once; the dimension is that of the smallest manifold."""
    rng = np.random.default_rng(seed)
    widths = (2, *rng.integers(1, 5, 2).tolist(), 1)
    start = net(
        *((rng.integers(-1, 2, (b, a)), rng.integers(-1, 2, b) * rng.integers(0, 2)) for a, b in pairwise(widths)),
        activation=name,
    )  # fmt: skip
    for rule in ("sgd", "adam"):
        report = lint_init(start, optimiser=rule)
        if rule == "sgd" and name != "relu":
            assert report.dimension == smallest_sim(start).dimension
        free = report.freed()
        assert not lint_init(free, optimiser=rule).trapped
        if all(f.change is not None and f.change.function_kept for f in report.traps):
            points = rng.standard_normal((20, 2))
            assert np.allclose(free(points), start(points), rtol=0, atol=1e-12)


def test_redrawn_neurons_differ_by_seed_only() -> None:
    report = lint_init(null_neuron())
    same = [report.freed(seed=3).theta.tolist() for _ in range(2)]
    assert same[0] == same[1] != report.freed(seed=4).theta.tolist()


# ---- silence, by brute force


@given(st.integers(0, 10_000))
def test_silent_neurons_have_no_gradient_and_no_output(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-2, 2, shape).astype(float) for shape in ((3, 2), (3, 3), (3, 3), (1, 3))]
    biases = [rng.integers(-1, 2, n).astype(float) for n in (3, 3, 3, 1)]
    start = net(*zip(weights, biases, strict=True))
    masks = list(silent_neurons(read_start(start)).values())
    points = rng.standard_normal((400, 2)) * rng.choice([0.1, 1, 100], (400, 1))
    chain = Chain(start)
    _, gradient = chain.gradient(start.theta, Batch(points, rng.standard_normal((400, 1))))
    parts = chain.split(gradient)
    for k, (mask, z) in enumerate(zip(masks, start.preactivations(points), strict=False)):
        assert (z[:, mask] <= 0).all()
        assert not parts[k][0][mask].any() and not parts[k][1][mask].any() and not parts[k + 1][0][:, mask].any()
        if k:  # sums of outputs >= 0: no sign, then some weight decides
            loud = ~mask & (biases[k] > 0) & (weights[k] >= 0).all(axis=1)
            assert (z[:, loud] > 0).all()


def test_silence_is_handed_on() -> None:
    """Neuron 0 of the second layer is dead; neuron 0 of the third reads nothing else with a positive weight."""
    start = net(
        (draw(2, 2), draw(2)), ([[-1.0, -2], [1, 2]], [-1.0, 0]), ([[5.0, -1], [-5, 1]], [0.0, 0]), (draw(1, 2), [0.0])
    )
    masks = silent_neurons(read_start(start))
    assert [m.tolist() for m in masks.values()] == [[False, False], [True, False], [True, False]]


# ---- notes


def test_dead_on_the_data_is_told_from_dead() -> None:
    start = net(([[1.0, 0], [-1.0, 0], [0, 1]], [0.0, 0, 0]), ([[1.0, 2, 3]], [0.5]))
    data = np.abs(np.random.default_rng(0).standard_normal((50, 2)))
    report = lint_init(start, data=data)
    assert not report.trapped
    found = [f for f in report.findings if f.code == "FS208"]
    assert [f.neurons for f in found] == [((1,),)]
    assert not [f for f in lint_init(start).findings if f.code == "FS208"]


def test_near_duplicates_up_to_a_tolerance_are_notes() -> None:
    start = net(([[1.0, 2], [1.001, 2], [3, 1]], [0.5, 0.5, 0]), ([[1.0, 1, 0.3]], [0]), activation="tanh")
    assert not lint_init(start).findings
    report = lint_init(start, tolerance=0.01)
    assert [(f.code, f.neurons, f.trapped) for f in report.findings] == [("FS207", ((0, 1),), False)]
    with pytest.raises(InputError, match="tolerance"):
        lint_init(start, tolerance=-1.0)


def test_notes_do_not_speak_of_what_is_trapped() -> None:
    assert [f.code for f in lint_init(constants()).findings] == ["FS110"]
    assert "FS206" not in [f.code for f in lint_init(net2net()).findings]


# ---- architectures that are no chains


def axes(*names: str | None) -> tuple[Axis | None, ...]:
    return tuple(None if n is None else Axis(n[1:], "in" if n[0] == "+" else "out") for n in names)


def slot(name: str, shape: tuple[int, ...], *names: str | None) -> Slot:
    return Slot(name, shape, shape, axes(*names))


def convolutional(normalised: bool) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Conv(2, 4, 3x3), optionally BatchNorm, ReLU, Conv(4, 3, 3x3), with channels 1 and 3 duplicated."""
    relu = activation("relu")
    slots = [slot("a.weight", (4, 2, 3, 3), "+a", None, None, None), slot("a.bias", (4,), "+a")]
    if normalised:
        slots += [slot("n.weight", (4,), "+a"), slot("n.bias", (4,), "+a")]
    slots += [slot("b.weight", (3, 4, 3, 3), None, "-a", None, None)]
    model = Architecture(tuple(slots), (Population("a", 4, "channels", relu, null=True, normalised=normalised),))
    values = {s.name: draw(*s.shape, seed=k) for k, s in enumerate(slots)}
    for s in slots:
        rows = np.moveaxis(values[s.name], 1 if s.name == "b.weight" else 0, 0)
        rows[3] = rows[1]
    return model, values


@pytest.mark.parametrize("normalised", [False, True])
def test_duplicated_channels(normalised: bool) -> None:
    model, values = convolutional(normalised)
    report = lint_init(values, architecture=model)
    assert [(f.code, f.neurons) for f in report.traps] == [("FS109" if normalised else "FS101", ((1, 3),))]
    assert report.traps[0].codimension == 2 * 9 + 1 + 2 * normalised + 3 * 9
    assert report.rigor is Rigor.NUMERICAL
    free = report.freed()
    assert isinstance(free, dict)
    assert not lint_init(free, architecture=model).trapped
    assert np.allclose(free["b.weight"].sum(axis=1), values["b.weight"].sum(axis=1), rtol=0, atol=1e-15)
    assert int((free["b.weight"] != values["b.weight"]).sum()) == 2
    values["b.weight"][0, 3, 0, 0] += 1e-9
    assert not lint_init(values, architecture=model).trapped


def test_dead_channels_without_weights() -> None:
    model, values = convolutional(False)
    values["a.weight"][2], values["a.bias"][2] = 0, 0
    report = lint_init(values, architecture=model)
    assert [(f.code, f.neurons) for f in report.traps] == [("FS106", ((2,),)), ("FS101", ((1, 3),))]
    assert report.effective_widths == {"a": 2}
    assert not lint_init(report.freed(), architecture=model).trapped


def adapter() -> Architecture:
    """LoRA: y = (W + B A) x with W frozen."""
    slots = (slot("A", (2, 6), "+rank", None), slot("B", (5, 2), None, "-rank"))
    return Architecture(slots, (Population("rank", 2, "factors", activation("identity"), signs=True, null=True),))


def test_adapters_need_one_factor_only() -> None:
    model = adapter()
    a, b = draw(2, 6), np.zeros((5, 2))
    usual = lint_init({"A": a, "B": b}, architecture=model)
    assert not usual.trapped
    assert [f.code for f in usual.findings] == ["FS202"]
    assert [f.code for f in lint_init({"A": 0 * a, "B": draw(5, 2)}, architecture=model).findings] == ["FS202"]
    dead = lint_init({"A": 0 * a, "B": b}, architecture=model)
    assert [(f.code, f.population) for f in dead.traps] == [("FS107", "rank")]
    assert dead.dimension == 0
    free = dead.freed()
    assert np.array_equal(free["B"], b)
    assert np.abs(free["A"]).min() > 0
    equal = lint_init({"A": np.repeat(a[:1], 2, axis=0), "B": b}, architecture=model)
    assert [f.code for f in equal.traps] == ["FS104"]  # rank 2 that trains like rank 1
    assert np.array_equal((equal.freed()["B"] @ equal.freed()["A"]), np.zeros((5, 6)))


def attention(heads: int = 3) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Heads of width 2 on a stream of width 4: Q, K, V as (heads, 2, 4), O as (4, heads, 2)."""
    slots = []
    for letter in "QKV":
        inner = "qk" if letter in "QK" else "vo"
        sign = "-" if letter == "K" else "+"
        for h in range(heads):
            slots.append(
                Slot(letter, (heads * 2, 4), (heads, 2, 4), axes(None, f"{sign}{inner}{h}", "-s"), (0, h, h + 1))
            )
    for h in range(heads):
        slots.append(Slot("O", (4, heads * 2), (4, heads, 2), axes("+s", None, f"-vo{h}"), (1, h, h + 1)))
    whole = [Slot(n, (heads * 2, 4), (heads, 2, 4), axes("+heads", None, "-s")) for n in "QKV"]
    whole.append(Slot("O", (4, heads * 2), (4, heads, 2), axes("+s", "-heads", None)))
    embedding = slot("E", (7, 4), None, "+s")
    model = Architecture(
        (*whole, embedding), (Population("s", 4, "stream"), Population("heads", heads, "heads", null=True))
    )  # fmt: skip
    values = {"Q": draw(6, 4), "K": draw(6, 4, seed=1), "V": draw(6, 4, seed=2), "O": draw(4, 6), "E": draw(7, 4)}
    return model, values


def test_duplicated_heads_and_an_empty_one() -> None:
    model, values = attention()
    assert not lint_init(values, architecture=model).trapped
    for name in "QKV":
        values[name][2:4] = values[name][0:2]
    assert not lint_init(values, architecture=model).trapped
    values["O"][:, 2:4] = values["O"][:, 0:2]
    report = lint_init(values, architecture=model)
    assert [(f.code, f.population, f.neurons) for f in report.traps] == [("FS101", "heads", ((0, 1),))]
    assert report.traps[0].codimension == 4 * 2 * 4
    x = draw(5, 4, seed=9)

    def output(p: dict[str, np.ndarray]) -> np.ndarray:
        total = np.zeros((5, 4))
        for h in range(3):
            q, k, v = (x @ p[n][2 * h : 2 * h + 2].T for n in "QKV")
            scores = np.exp(q @ k.T)
            total += scores / scores.sum(axis=1, keepdims=True) @ v @ p["O"][:, 2 * h : 2 * h + 2].T
        return total

    free = report.freed()
    assert np.abs(output(free) - output(values)).max() < 1e-14
    assert np.abs(free["O"] - values["O"]).max() > 0.1
    for name in "QKV":
        values[name][4:6] = 0
    values["O"][:, 4:6] = 0
    codes = [(f.code, f.neurons) for f in lint_init(values, architecture=model).traps]
    assert codes == [("FS101", ((0, 1),)), ("FS103", ((2,),))]


def test_residual_branches_may_start_at_zero() -> None:
    """x + B s(A x) on a stream: B = 0 is harmless, A = B = 0 is not."""
    model = Architecture(
        (slot("A", (5, 4), "+mid", "-s"), slot("B", (4, 5), "+s", "-mid"), slot("E", (3, 4), None, "+s"),
         slot("U", (2, 4), None, "-s")),
        (Population("s", 4, "stream"), Population("mid", 5, "neurons", activation("gelu"), null=True)),
    )  # fmt: skip
    values = {"A": draw(5, 4), "B": np.zeros((4, 5)), "E": draw(3, 4), "U": draw(2, 4)}
    healthy_start = lint_init(values, architecture=model)
    assert [f.code for f in healthy_start.findings] == ["FS203"]
    stuck = lint_init({**values, "A": np.zeros((5, 4))}, architecture=model)
    assert [f.code for f in stuck.traps] == ["FS107"]
    assert stuck.dimension == 3 * 4 + 2 * 4
    assert not lint_init(stuck.freed(), architecture=model).trapped


def test_recurrent_weights_are_exchanged_on_both_sides() -> None:
    """h' = s(W h + U x): neurons 0 and 1 are equal if swapping them on both axes of W changes nothing."""
    model = Architecture(
        (slot("W", (3, 3), "+h", "-h"), slot("U", (3, 2), "+h", None), slot("V", (1, 3), None, "-h")),
        (Population("h", 3, "neurons", activation("softplus")),),
    )
    w = np.array([[1.0, 2, 3], [2, 1, 3], [4, 4, 5]])
    values = {"W": w, "U": np.array([[1.0, 2], [1, 2], [3, 1]]), "V": np.array([[6.0, 6, 7]])}
    report = lint_init(values, architecture=model)
    assert [(f.code, f.neurons) for f in report.traps] == [("FS101", ((0, 1),))]
    assert report.dimension == 5 + 2 * 2 + 2
    assert not lint_init(report.freed(), architecture=model).trapped


# ---- dimensions, by averaging


@given(st.integers(0, 10_000))
def test_dimensions_are_ranks_of_averages(seed: int) -> None:
    """The dimension of tensors constant on classes is the trace of the average over the permutations of the classes."""
    rng = np.random.default_rng(seed)
    widths = (2, *rng.integers(1, 5, 2).tolist(), 2)
    model = chain_architecture(widths)
    labels = [np.arange(2), *(rng.integers(0, 3, n) for n in widths[1:3]), np.arange(2)]
    averages = []
    for label in labels:
        same = label[:, None] == label[None, :]
        averages.append(same / same.sum(axis=1, keepdims=True))
    tight = sum(np.trace(a) * np.trace(b) + np.trace(b) for a, b in zip(averages, averages[1:], strict=False))
    loose = tight + sum(
        (len(a) - np.trace(a)) * (len(b) - np.trace(b)) for a, b in zip(averages, averages[1:], strict=False)
    )
    counts = {str(k): len(set(labels[k].tolist())) for k in (1, 2)}
    shared = {str(k): sum(n > 1 for n in np.bincount(labels[k])) for k in (1, 2)}
    assert class_dimension(model, counts, shared) == round(float(tight))
    assert class_dimension(model, counts, shared, frozen=True) == round(float(loose))


# ---- reports and refusals


def test_the_report_is_a_screen_and_json() -> None:
    report = lint_init(magic())
    text = str(report)
    assert "FS105" in text and "frees:" in text and "not trapped" not in text
    assert "hidden widths 3-3 train like 1-1" in text
    assert len(text.splitlines()) < 24
    data = json.loads(report.to_json())
    assert data["findings"][0]["members"] == {"1": [[0, 1, 2]], "2": [[0, 1, 2]]}
    assert data["findings"][0]["optimiser"]["outcome"] == "kept"
    assert data["trapped"] is True
    assert "start" not in data
    frame = report.to_frame()
    assert len({len(column) for column in frame.values()}) == 1
    assert frame["code"] == ["FS105"]
    assert all(code in CODES for code in frame["code"])
    assert "not trapped under sgd (EXACT)" in str(lint_init(healthy("uniform")))
    assert text.endswith("; dropout or noise on single neurons separates equal ones")
    alone = str(lint_init(null_neuron()))
    assert "hidden width 3 trains like 2" in alone and alone.endswith("single neurons wakes no silent one")


def test_skipped_layers_are_named() -> None:
    model, values = convolutional(False)
    model = Architecture(model.slots, model.populations, skipped=(Skipped("pool", "not understood"),))
    report = lint_init(values, architecture=model)
    assert "pool: skipped, not understood" in str(report)
    assert json.loads(report.to_json())["skipped"] == [{"name": "pool", "reason": "not understood"}]


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InputError, match="architecture="):
        lint_init({"w": np.ones((2, 2))})
    with pytest.raises(InputError, match="give a Network"):
        lint_init(3)
    with pytest.raises(InputError, match="no parameter"):
        lint_init({"A": np.ones((2, 6))}, architecture=adapter())
    folded = twins()
    layers = [type(layer)(**{**layer.__dict__, "folded": ("batch norm",)}) for layer in folded.layers]
    with pytest.raises(ScopeError, match="give the file as it was before its export, or the torch module"):
        lint_init(folded.with_layers(layers))


def test_gain_and_shift_of_zero_before_a_relu_are_dead() -> None:
    """BatchNorm with gain 0 and shift 0 sends 0 into ReLU, whose slope there is 0, whatever the convolution."""
    model, values = convolutional(True)
    values["n.weight"][0], values["n.bias"][0] = 0, 0
    values["a.bias"][0] = 3.0  # in front of the normalisation
    values["n.weight"][2] = 0
    report = lint_init(values, architecture=model)
    assert [(f.code, f.neurons) for f in report.traps] == [("FS106", ((0,),)), ("FS109", ((1, 3),))]
    assert report.traps[0].change is not None
    assert report.traps[0].change.entries == 18 + 1
    free = report.freed()
    assert free["n.weight"][0] == 1
    assert not lint_init(free, architecture=model).trapped


@settings(max_examples=25)
@example(2.0**-149, 1 - 1e-9, False)
@given(st.floats(0.0, 0.99), st.floats(0.01, 1 - 1e-9), st.booleans())
def test_decay_that_is_small_for_its_momentum_never_passes_zero(momentum: float, part: float, nesterov: bool) -> None:
    """Dead neurons stay dead under coupled decay with rate * decay <= (1 - sqrt(momentum))^2."""
    limit = (1 - momentum**0.5) ** 2
    name = "nesterov" if nesterov else "momentum"
    rule = optimiser(name, 0.5, momentum=momentum, decay=2 * part * limit)
    found = lint_init(dead_relu(), optimiser=rule).findings[0]
    assert found.code == "FS106"
    assert found.trapped
    theta, state = np.array([-1.0]), State()
    for _ in range(200):
        theta, state = rule.step(theta, np.zeros(1), state)
        assert theta[0] <= 1e-300
    over = optimiser(name, 0.5, momentum=2.0**-149, decay=2.0)  # 1 > (1 - sqrt(m))^2, though not in floats
    assert not lint_init(dead_relu(), optimiser=over).findings[0].trapped
    wild = optimiser(name, 0.5, momentum=max(momentum, 0.5), decay=1.9)
    assert not lint_init(dead_relu(), optimiser=wild).findings[0].trapped


# ---- torch modules


def planted_in(module: Any, kind: str) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    with torch.no_grad():
        if kind == "duplicates":
            module[0].weight[3], module[0].bias[3] = module[0].weight[1], module[0].bias[1]
            module[2].weight[:, 3] = module[2].weight[:, 1]
        elif kind == "constant":
            for p in module.parameters():
                torch.nn.init.constant_(p, 0.05)
        elif kind == "dead":
            module[2].weight[0], module[2].bias[0] = -module[2].weight[0].abs(), 0.0
        else:
            for p in module[2].parameters():
                torch.nn.init.zeros_(p)


def mlp() -> Any:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def train_module(module: Any, *inputs: int, name: str = "Adam", steps: int = 60) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    generator = torch.Generator().manual_seed(1)
    dtype = next(module.parameters()).dtype
    x = torch.randn(32, *inputs, generator=generator, dtype=dtype)
    rule = getattr(torch.optim, name)(module.parameters(), lr=0.02)
    for _ in range(steps):
        rule.zero_grad()
        out = module(x)
        ((out - torch.sin(x.reshape(32, -1)[:, : out.shape[-1]])) ** 2).mean().backward()
        rule.step()


@pytest.mark.parametrize(("kind", "code"), [("duplicates", "FS101"), ("constant", "FS104"), ("dead", "FS106"),
                                            ("zero layer", "FS106")])  # fmt: skip
def test_modules_with_planted_defects(kind: str, code: str) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    module = mlp()
    assert not lint_init(module, optimiser="adam").trapped
    planted_in(module, kind)
    report = lint_init(module, optimiser="adam")
    assert {f.code for f in report.traps} == {code}
    assert report.rigor is Rigor.EXACT
    stuck, free = mlp(), mlp()
    for other in (stuck, free):
        other.load_state_dict(module.state_dict())
    report.apply_(free)
    train_module(stuck, 6)
    train_module(free, 6)
    first = report.traps[0]
    layer = 0 if first.population == "0" else 2
    i, j = (first.neurons[0][0], first.neurons[0][-1])
    if code == "FS106":
        assert torch.equal(stuck[layer].weight[i], module[layer].weight[i])
        assert not torch.equal(free[layer].weight[i], module[layer].weight[i])
    else:
        assert torch.allclose(stuck[layer].weight[i], stuck[layer].weight[j], rtol=0, atol=1e-9)
        assert (free[layer].weight[i] - free[layer].weight[j]).abs().max() > 1e-3
    assert {f.code for f in lint_init(stuck, optimiser="adam").findings} & {code, "FS207"}
    assert not lint_init(free, optimiser="adam").trapped


def test_module_with_duplicated_channels_behind_batch_norm() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    nn = torch.nn
    torch.manual_seed(0)

    def build() -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(3 * 2 * 2, 2),
        ).double()  # fmt: skip

    module, stuck, free = build(), build(), build()
    data = torch.randn(9, 1, 6, 6, dtype=torch.float64)
    assert not lint_init(module, data=data).trapped
    with torch.no_grad():
        module[0].weight[3] = module[0].weight[1]
        module[3].weight[:, 3] = module[3].weight[:, 1]
    for other in (stuck, free):
        other.load_state_dict(module.state_dict())
    report = lint_init(module, optimiser="adam")
    assert [(f.code, f.neurons) for f in report.traps] == [("FS109", ((1, 3),))]
    report.apply_(free)
    assert (free(data) - module(data)).abs().max() < 1e-12
    train_module(stuck, 1, 6, 6)
    train_module(free, 1, 6, 6)
    assert (stuck[0].weight[3] - stuck[0].weight[1]).abs().max() < 1e-9
    assert (free[0].weight[3] - free[0].weight[1]).abs().max() > 1e-3


def test_residual_blocks_adapters_and_heads_of_modules() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    nn = torch.nn
    torch.manual_seed(0)

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.e, self.a, self.b, self.u = nn.Linear(3, 6), nn.Linear(6, 9), nn.Linear(9, 6), nn.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            h = self.e(x)
            return self.u(h + self.b(torch.nn.functional.gelu(self.a(h))))

    class Adapter(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w, self.A, self.B = nn.Linear(6, 5), nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)
            self.w.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            return self.w(x) + self.B(self.A(x))

    block = Block()
    nn.init.zeros_(block.b.weight)
    nn.init.zeros_(block.b.bias)
    assert "FS203" in [f.code for f in lint_init(block).findings]
    assert not lint_init(block).trapped
    nn.init.zeros_(block.a.weight)
    nn.init.zeros_(block.a.bias)
    report = lint_init(block)
    assert [(f.code, f.population) for f in report.traps] == [("FS107", "a")]
    report.apply_(block)
    assert not lint_init(block).trapped
    assert block.a.weight.abs().min() > 0
    assert not block.b.weight.any()

    adapter_module = Adapter()
    nn.init.zeros_(adapter_module.B.weight)
    assert [f.code for f in lint_init(adapter_module).findings] == ["FS202"]
    nn.init.zeros_(adapter_module.A.weight)
    assert [f.code for f in lint_init(adapter_module).traps] == ["FS107"]
    adapter_module.requires_grad_(False)  # nothing is trained, so nothing is said
    assert not lint_init(adapter_module).findings

    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0, activation="gelu")
    assert not lint_init(layer).trapped
    with torch.no_grad():
        for start in (0, 8, 16):
            layer.self_attn.in_proj_weight[start + 4 : start + 8] = layer.self_attn.in_proj_weight[start : start + 4]
            layer.self_attn.in_proj_bias[start + 4 : start + 8] = layer.self_attn.in_proj_bias[start : start + 4]
        layer.self_attn.out_proj.weight[:, 4:] = layer.self_attn.out_proj.weight[:, :4]
    x = torch.randn(3, 5, 8)
    before = layer(x)
    report = lint_init(layer)
    assert [f.code for f in report.traps] == ["FS104"]
    report.apply_(layer)
    assert (layer(x) - before).abs().max() < 1e-5
    assert not lint_init(layer).trapped


def test_optimisers_in_either_spelling_as_torch_objects_and_states() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    assert lint_init(net).optimiser == lint_init(net, optimizer="sgd").optimiser == "sgd"
    state = OptimiserState("adamw", 1e-3, weight_decay=0.01)
    assert lint_init(net, optimizer=state).optimiser == "adamw"
    rule = torch.optim.AdamW(net.parameters(), lr=1e-3)
    assert lint_init(net, optimiser=rule).optimiser == lint_init(net, optimizer=rule).optimiser == "adamw"
    assert lint_init(net, optimiser=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)).optimiser == "momentum"
    with pytest.raises(InputError, match="two spellings"):
        lint_init(net, optimiser="sgd", optimizer="sgd")
    with pytest.raises(InputError, match="not understood"):
        lint_init(net, optimiser=torch.optim.Rprop(net.parameters()))


def test_silence_is_not_handed_on_through_signs() -> None:
    """tanh sends negative values, so negative weights behind it close no ReLU."""
    start = net(
        (draw(4, 3), draw(4)), (-np.abs(draw(5, 4)), -0.01 * np.ones(5)), (draw(2, 5), np.zeros(2)),
        activation=["tanh", "relu"],
    )  # fmt: skip
    assert not any(mask.any() for mask in silent_neurons(read_start(start)).values())
    assert start.preactivations(np.random.default_rng(0).standard_normal((200, 3)) * 3)[1].max() > 0
    assert not lint_init(start).trapped


# ---- modules: what is guessed, products, fixed statistics, frozen rows, parts that are not understood


def written(forward: Callable[[Any, Any], Any], **parts: Any) -> Any:
    """A torch module in double precision with these parts."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")

    class Written(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Any) -> Any:
            return forward(self, x)

    return Written().double()


def steps_of(module: Any, x: Any, n: int = 20) -> dict[str, Any]:
    """Parameters after some steps of SGD on random targets."""
    import torch

    target = torch.randn(module(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    rule = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for _ in range(n):
        rule.zero_grad()
        ((module(x) - target) ** 2).mean().backward()
        rule.step()
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def attending(tilt: float) -> Any:
    """A block that cannot be traced, its two heads equal; a tilt tells them apart, as ALiBi does."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    linear = torch.nn.Linear

    def attend(self: Any, x: Any) -> Any:
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, 2, 3).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        far = (torch.arange(t)[:, None] - torch.arange(t)).abs() * torch.tensor([tilt, 0.0])[:, None, None]
        scores = (q @ k.transpose(-1, -2) - far).softmax(-1)
        return self.o_proj((scores @ v).transpose(1, 2).reshape(n, t, 6))

    def forward(self: Any, x: Any) -> Any:
        return self.h(x + self.attn(x)) if x.shape[0] > 0 else x

    attn = written(attend, q_proj=linear(6, 6), k_proj=linear(6, 6), v_proj=linear(6, 6), o_proj=linear(6, 6))
    attn.num_heads = 2
    with torch.no_grad():
        for layer in (attn.q_proj, attn.k_proj, attn.v_proj):
            layer.weight[3:], layer.bias[3:] = layer.weight[:3], layer.bias[:3]
        attn.o_proj.weight[:, 3:] = attn.o_proj.weight[:, :3]
    return written(forward, attn=attn, h=linear(6, 2))


def test_heads_known_by_names_only_are_conditional() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    torch.manual_seed(0)
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    tilted, plain = attending(0.5), attending(0.0)
    for module in (tilted, plain):
        report = lint_init(module)
        assert not report.trapped
        assert [(f.code, f.population) for f in report.findings if f.change] == [("FS104", "attn.heads")]
        assert "as the names of its parts suggest; pass data=" in str(report)
        assert "what depends on a condition is not counted" in str(report)
    assert not lint_init(tilted, data=x).trapped
    assert [f.code for f in lint_init(plain, data=x).traps] == ["FS104"]
    after = steps_of(tilted, x)
    assert (after["attn.v_proj.weight"][3:] - after["attn.v_proj.weight"][:3]).abs().max() > 1e-3


def test_the_axis_of_a_normalisation_of_unknown_rank_is_conditional() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    nn = torch.nn
    torch.manual_seed(0)

    def build(*front: Any) -> Any:
        module = nn.Sequential(*front, nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 2)).double()
        with torch.no_grad():
            module[-3].weight[1] = 0
            module[-3].bias[1] = 0
        return module

    tokens, matrix = (torch.randn(4, *shape, dtype=torch.float64) for shape in ((7, 8), (8,)))
    module = build()
    report = lint_init(module)
    assert not report.trapped
    assert "if 1 is given a matrix (samples, channels)" in str(report)
    assert [f.code for f in lint_init(module, data=matrix).traps] == ["FS106"]
    assert not lint_init(module, data=tokens).trapped
    assert [f.code for f in lint_init(build(nn.Flatten())).traps] == ["FS106"]  # the rank is known
    before = module[0].weight.detach().clone()
    assert (steps_of(module, tokens)["0.weight"][1] - before[1]).abs().max() > 1e-3


@pytest.mark.parametrize("pair", ["up down", "gate down", "gate up"])
@pytest.mark.parametrize("whole", [False, True])
def test_two_zero_factors_of_a_product_stay(pair: str, whole: bool) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    torch.manual_seed(0)
    linear, silu = torch.nn.Linear, torch.nn.functional.silu

    def build() -> Any:
        return written(
            lambda s, x: s.down(silu(s.gate(x)) * s.up(x)), gate=linear(6, 5), up=linear(6, 5), down=linear(5, 2)
        )

    def empty(module: Any, name: str, rows: Any) -> None:
        with torch.no_grad():
            if name == "down":
                module.down.weight[:, rows] = 0
            else:
                getattr(module, name).weight[rows] = 0
                getattr(module, name).bias[rows] = 0

    rows: Any = slice(None) if whole else [1]
    module, once, x = build(), build(), torch.randn(9, 6, dtype=torch.float64)
    names = pair.split()
    for name in names:
        empty(module, name, rows)
    empty(once, names[0], rows)
    assert not lint_init(once).trapped  # one zero factor moves
    report = lint_init(module)
    assert [f.code for f in report.traps] == ["FS107" if whole else "FS103"]
    assert not any(f.code in ("FS201", "FS204") for f in report.findings)
    assert report.effective_widths["gate"] == (0 if whole else 4)
    free = build()
    free.load_state_dict(module.state_dict())
    report.apply_(free)
    assert not lint_init(free).trapped
    after = steps_of(module, x)
    for name in names:
        values = after[f"{name}.weight"]
        assert not (values[:, rows] if name == "down" else values[rows]).any()


def test_a_closed_gate_that_sends_something_moves() -> None:
    """sigmoid(0) = 1/2, so a gate of 0 is no zero factor."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    linear = torch.nn.Linear
    module = written(
        lambda s, x: s.down(torch.sigmoid(s.gate(x)) * s.up(x)), gate=linear(6, 5), up=linear(6, 5), down=linear(5, 2)
    )
    with torch.no_grad():
        for p in (module.gate.weight, module.gate.bias, module.down.weight):
            p.zero_()
    assert not any(f.code in ("FS103", "FS107") for f in lint_init(module).findings)
    assert steps_of(module, torch.randn(9, 6, dtype=torch.float64), 2)["down.weight"].any()


def test_biases_below_zero_close_a_relu_that_reads_nothing() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    torch.manual_seed(0)
    nn, relu = torch.nn, torch.relu
    x = torch.randn(9, 6, dtype=torch.float64)

    def build(factor: float = 1.0) -> Any:
        parts = {"a": nn.Linear(6, 5), "h": nn.Linear(5, 2), "c": nn.Linear(6, 2)}
        module = written(lambda s, x: s.c(x) + s.h(relu(factor * s.a(x))), **parts)
        with torch.no_grad():
            module.a.weight[1] = 0
            module.a.bias.fill_(0.5)
            module.a.bias[1] = -1.0
        return module

    module = build()
    report = lint_init(module)
    assert [(f.code, f.neurons) for f in report.traps] == [("FS106", ((1,),))]
    free = build()
    report.apply_(free)
    assert not lint_init(free).trapped
    after = steps_of(module, x)
    assert not after["a.weight"][1].any()
    assert after["a.bias"][1] == -1.0
    assert not lint_init(build(-1.0)).trapped  # the factor turns the sign
    assert steps_of(build(-1.0), x)["a.weight"][1].any()
    positive = build()
    with torch.no_grad():
        positive.a.bias[1] = 1.0
    assert not lint_init(positive).trapped

    norm = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).double()
    with torch.no_grad():
        norm[1].weight[2], norm[1].bias[2], norm[1].bias[3] = 0.0, -1.0, -1.0
    assert [(f.code, f.neurons) for f in lint_init(norm).traps] == [("FS106", ((2,),))]
    one = nn.Sequential(nn.Flatten(), nn.Linear(1, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        one[1].weight[1], one[1].bias[1], one[2].bias[1] = 0.0, 0.0, 1.0  # normalised to its shift, which is open
    assert not lint_init(one).trapped


def test_frozen_rows_are_equal_for_ever() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    nn = torch.nn
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = module[0].weight[0], module[0].bias[0]
    assert "separate at once" in str(lint_init(module))
    module[0].requires_grad_(False)
    assert "not trained, so they compute the same for ever" in str(lint_init(module))
    module[0].requires_grad_(True)
    nn.init.zeros_(module[2].weight)
    assert "FS201" in [f.code for f in lint_init(module).findings]
    module[2].weight.requires_grad_(False)
    assert "FS201" not in [f.code for f in lint_init(module).findings]


def test_the_summary_says_what_was_not_looked_at() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    text = str(lint_init(torch.nn.LSTM(6, 4)))
    assert "nothing trapped among the 0 of 192 parameters that are understood" in text
    assert "nothing can be said of weight_ih_l0" in text
    assert "not trapped" not in text
    assert "nothing can be said" not in str(lint_init(torch.nn.Linear(3, 2)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimiser": "adamm"}, "did you mean 'adam'"),
        ({"architecture": True}, "architecture is a bool; expected an Architecture"),
        ({"tolerance": None}, "tolerance None; give a number >= 0"),
        ({"data": 3.0}, r"data has shape \(\); expected \(samples, 2\)"),
        ({"data": [[1.0, 2.0, 3.0]]}, r"data has shape \(1, 3\)"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_wrong_arguments_get_one_clear_line(options, words):
    net = Network.from_arrays(([[1.0, 2.0], [1.0, 2.0]], [0, 0]), ([[2.0, 1.0]], [0]), activation="relu")
    with pytest.raises(InputError, match=words):
        lint_init(net, **options)


@pytest.mark.parametrize("tolerance", [Fraction(1, 10), np.float32(0.1), np.int64(0)])
def test_tolerances_may_be_of_any_number_type(tolerance: Any) -> None:
    net = Network.random((2, 3, 1), activation="tanh", seed=0)
    assert lint_init(net, tolerance=tolerance).findings == lint_init(net, tolerance=float(tolerance)).findings
    with pytest.raises(InputError, match="^tolerance True"):
        lint_init(net, tolerance=True)
