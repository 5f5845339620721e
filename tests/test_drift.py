"""Drift of conserved quantities against its prediction: identities, limits, closed forms and wrong optimisers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiberscope import Network
from fiberscope.errors import InputError
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.dynamics.keeping import optimiser_keeps
from fiberscope.invariants.dynamics.updates import State, optimiser
from fiberscope.training.architectures.architecture import Architecture, Axis, Law, Population, Slot
from fiberscope.training.architectures.chains import chain_architecture
from fiberscope.training.drift.lawvalues import law_names, magnitudes, quantities
from fiberscope.training.drift.predictions import Drift
from fiberscope.training.drift.productsums import sums
from fiberscope.training.drift.recursions import Constants, advance, pieces, propagate
from fiberscope.training.drift.reports import law_drift, scales
from fiberscope.training.drift.rules import OptimiserState

Params = dict[str, Any]
TOL = 1e-10


def start(widths: tuple[int, ...], seed: int, scale: float = 1.0) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    sizes = zip(widths, widths[1:], strict=False)
    return [(rng.normal(size=(b, a)) * scale / math.sqrt(a), rng.normal(size=b) * 0.1) for a, b in sizes]


class Run:
    """Training with the reference rules of `updates`, handing out what a watcher would see after every step."""

    def __init__(
        self,
        rule: Any,
        *,
        widths: tuple[int, ...] = (3, 6, 5, 2),
        activation: str = "relu",
        seed: int = 0,
        batch: int = 8,
        rate: Callable[[int], float] | None = None,
        scale: float = 1.0,
        loss: str = "mse",
    ) -> None:
        net = Network.from_arrays(*start(widths, seed, scale), activation=activation)
        self.architecture = chain_architecture(widths, activation=activation)
        self.chain, self.theta, self.rule, self.loss = Chain(net), np.asarray(net.theta, dtype=float), rule, loss
        self.rng, self.batch, self.rate = np.random.default_rng(seed + 1), batch, rate
        self.x = self.rng.normal(size=(64, widths[0]))
        self.y = self.rng.normal(size=(64, widths[-1])) if loss == "mse" else self.rng.integers(0, widths[-1], 64)

    def named(self, theta: Any) -> Params:
        out = {}
        for k, (weight, bias) in enumerate(self.chain.split(theta), 1):
            out |= {f"{k}.weight": weight, f"{k}.bias": bias}
        return out

    def steps(self, count: int) -> Iterator[tuple[int, Params, Params, OptimiserState]]:
        state = State()
        for t in range(1, count + 1):
            rule = self.rule if self.rate is None else replace(self.rule, rate=self.rate(t))
            take = self.rng.choice(64, self.batch, replace=False) if self.batch < 64 else np.arange(64)
            _, g = self.chain.gradient(self.theta, Batch(self.x[take], self.y[take], self.loss))
            self.theta, state = rule.step(self.theta, g, state)
            yield t, self.named(self.theta), self.named(g), self.told(rule, state)

    def told(self, rule: Any, state: State) -> OptimiserState:
        buffers = {}
        if state.first is not None:
            buffers["first" if rule.name.startswith("adam") else "momentum"] = self.named(state.first)
        if state.second is not None:
            buffers["second"] = self.named(state.second)
        return OptimiserState(
            rule.name, rule.rate, momentum=rule.momentum, beta1=rule.momentum, beta2=rule.second, eps=rule.eps,
            weight_decay=rule.decay, coupled=rule.coupled, clip=rule.clip, buffers=buffers, steps=state.steps,
        )  # fmt: skip

    def drift(
        self, count: int, every: int = 1, change: Callable[[OptimiserState], OptimiserState] | None = None
    ) -> Drift:
        out = Drift(self.architecture, self.named(self.theta), exact=every == 1)
        for t, theta, g, told in self.steps(count):
            if t % every == 0:
                out.observe(t, theta, g, told if change is None else change(told))
        return out


LINEAR_RULES = {
    "gd": optimiser("gd", 0.02),
    "gd, coupled decay": optimiser("gd", 0.02, decay=0.03),
    "sgd, decoupled decay": optimiser("sgd", 0.02, decay=0.03, coupled=False),
    "momentum": optimiser("momentum", 0.004),
    "momentum, coupled decay": optimiser("momentum", 0.004, decay=0.03),
    "momentum, decoupled decay": optimiser("momentum", 0.004, decay=0.03, coupled=False),
    "nesterov": optimiser("nesterov", 0.004),
    "nesterov, coupled decay": optimiser("nesterov", 0.004, decay=0.03),
    "nesterov, decoupled decay": optimiser("nesterov", 0.004, decay=0.03, coupled=False),
    "clipped": optimiser("momentum", 0.004, clip=0.5, decay=0.01),
    "gd, clipped": optimiser("gd", 0.02, clip=0.5),
    "nesterov, clipped": optimiser("nesterov", 0.004, clip=0.5),
}
OTHER_RULES = {
    "adam": optimiser("adam", 0.003),
    "adam, coupled decay": optimiser("adam", 0.003, decay=0.03),
    "adamw": optimiser("adamw", 0.003, decay=0.1),
    "rmsprop": optimiser("rmsprop", 0.003),
    "rmsprop, decoupled decay": optimiser("rmsprop", 0.003, decay=0.03, coupled=False),
    "adagrad": optimiser("adagrad", 0.01),
    "sign": optimiser("sign", 0.001, clip=1.0),
}


def warmup(t: int) -> float:
    return 0.004 * min(1.0, t / 50) * (1 + math.cos(t / 200)) / 2


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear"])
@pytest.mark.parametrize("name", LINEAR_RULES)
def test_linear_rules_move_laws_by_sizes_of_gradients_alone(name: str, activation: str) -> None:
    run = Run(LINEAR_RULES[name], activation=activation, rate=warmup if name == "clipped" else None)
    found = run.drift(100).report()
    assert found.drift > 1e-4
    assert found.unexplained < TOL * found.drift
    assert abs(found.ratio - 1) < TOL
    assert {row.basis for row in found.laws} == {"law"}


@pytest.mark.parametrize("name", OTHER_RULES)
def test_other_rules_move_laws_by_what_their_state_says(name: str) -> None:
    found = Run(OTHER_RULES[name]).drift(100).report()
    assert found.drift > 1e-3
    assert found.unexplained < 1e-8 * found.drift  # theta before the step is put together again from u
    assert {row.basis for row in found.laws} == {"rule"}


@pytest.mark.parametrize("name", ["momentum, coupled decay", "gd, coupled decay", "nesterov, coupled decay"])
def test_five_hundred_random_minibatches_with_a_schedule(name: str) -> None:
    run = Run(LINEAR_RULES[name], rate=warmup, batch=4, loss="cross_entropy")
    assert run.drift(500).report().unexplained < TOL


def test_balance_is_conserved_by_gradients_and_not_with_tanh() -> None:
    for activation, holds in (("relu", True), ("leaky_relu", True), ("tanh", False), ("gelu", False)):
        run = Run(optimiser("gd", 0.02), activation=activation)
        run.architecture = chain_architecture((3, 6, 5, 2), activation="relu")  # claims the law whatever is run
        found = run.drift(200).report()
        assert (abs(found.ratio - 1) < TOL) is holds
        if not holds:
            assert found.unexplained > 0.1 * found.drift
    assert not chain_architecture((3, 6, 5, 2), activation="tanh").laws


def test_square_activation_balances_with_its_degree() -> None:
    run = Run(optimiser("gd", 0.002), widths=(3, 5, 2), activation="square")
    assert run.architecture.laws[0].degree == 2
    found = run.drift(100).report()
    assert found.drift > 1e-5
    assert found.unexplained < TOL * found.drift
    plain = replace(run.architecture, laws=tuple(replace(law, degree=1.0) for law in run.architecture.laws))
    wrong = Run(optimiser("gd", 0.002), widths=(3, 5, 2), activation="square")
    wrong.architecture = plain
    assert wrong.drift(100).report().unexplained > 0.3 * wrong.drift(100).report().drift


def test_drift_of_gradient_descent_is_of_first_order_in_the_rate() -> None:
    drifts = [
        Run(optimiser("gd", rate), widths=(8, 32, 1), batch=64).drift(round(1 / rate)).report().drift for rate in RATES
    ]
    ratios = [a / b for a, b in zip(drifts, drifts[1:], strict=False)]
    assert all(1.9 < ratio < 2.15 for ratio in ratios)
    decayed = [
        Run(optimiser("gd", rate, decay=0.05), widths=(8, 32, 1), batch=64).drift(round(1 / rate)).report().drift
        for rate in RATES
    ]
    assert decayed[-1] > 0.8 * decayed[0]  # decay does not vanish with the rate


RATES = (0.02, 0.01, 0.005)


@given(
    rate=st.floats(1e-4, 0.1),
    decay=st.floats(0, 0.5),
    momentum=st.floats(0, 0.95),
    dampening=st.floats(0, 0.9),
    nesterov=st.booleans(),
    coupled=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_sgd_as_torch_writes_it(
    rate: float, decay: float, momentum: float, dampening: float, nesterov: bool, coupled: bool, seed: int
) -> None:
    """The loss (a w - 1)^2 with torch's formulas, dampening and its undampened first step included."""
    rng = np.random.default_rng(seed)
    w, a, v = rng.normal(size=3), rng.normal(size=3), None
    model = single(3)
    name = ("nesterov" if nesterov else "momentum") if momentum else "sgd"
    drift = Drift(model, {"w": w, "a": a}, exact=True)
    for t in range(1, 13):
        g = 2 * (w @ a - rng.normal()) * np.concatenate([a, w])
        theta = np.concatenate([w, a])
        h = g + decay * theta if coupled else g
        if not coupled:
            theta = theta * (1 - rate * decay)
        if momentum:
            v = h if v is None else momentum * v + (1 - dampening) * h
            h = h + momentum * v if nesterov else v
        theta = theta - rate * h
        w, a = theta[:3], theta[3:]
        if not np.all(np.abs(theta) < 1e3):
            return
        buffers = {} if v is None else {"momentum": {"w": v[:3], "a": v[3:]}}
        told = OptimiserState(
            name, rate, momentum=momentum, dampening=dampening, weight_decay=decay, coupled=coupled, buffers=buffers
        )
        drift.observe(t, {"w": w, "a": a}, {"w": g[:3], "a": g[3:]}, told)
    assert drift.report().unexplained < 1e-8 * (1 + drift.report().drift)


def single(count: int) -> Architecture:
    """Products w_i a_i: a neuron of one weight in and one out."""
    slots = (Slot("w", (count,), (count,), (Axis("h", "in"),)), Slot("a", (count,), (count,), (Axis("h", "out"),)))
    return Architecture(slots, (Population("h", count),), (Law("w^2 - a^2", "balance", "h", (0,), (1,)),))


@pytest.mark.parametrize("rule", ["gd", "momentum", "nesterov"])
@pytest.mark.parametrize("coupled", [True, False])
def test_pure_decay_is_the_closed_form(rule: str, coupled: bool) -> None:
    """Without gradients Q is c^(2 t) Q_0 for gd, and exp(-2 decay t lr) for all rules in the limit."""
    rate, decay, count = 1e-3, 0.05, 2000
    effective = rate / (1 - 0.9) if rule != "gd" and coupled else rate
    w, a, v = np.array([2.0]), np.array([1.0]), np.zeros(2)
    drift = Drift(single(1), {"w": w, "a": a})
    zeros = {"w": 0 * w, "a": 0 * a}
    theta = np.array([2.0, 1.0])
    for t in range(1, count + 1):
        h = decay * theta if coupled else 0 * theta
        if not coupled:
            theta = theta * (1 - rate * decay)
        v = 0.9 * v + h
        theta = theta - rate * {"gd": h, "momentum": v, "nesterov": h + 0.9 * v}[rule]
        if t in (700, 1400, 2000):
            told = OptimiserState(
                rule, rate, momentum=0.9 if rule != "gd" else 0.0, weight_decay=decay, coupled=coupled,
                buffers={} if rule == "gd" else {"momentum": {"w": v[:1], "a": v[1:]}},
            )  # fmt: skip
            drift.observe(t, {"w": theta[:1], "a": theta[1:]}, zeros, told)
    found = drift.report()
    assert abs(found.ratio - 1) < 1e-3
    left = 1 - found.drift * 5 / 3  # |theta_0|^2 = 5, Q_0 = 3
    assert left == pytest.approx(math.exp(-2 * decay * effective * count), rel=0.02)
    if rule == "gd":
        assert left == pytest.approx((1 - rate * decay) ** (2 * count), rel=1e-9)


@pytest.mark.parametrize("name", ["gd", "gd, coupled decay", "momentum", "nesterov, coupled decay", "adam", "adamw"])
def test_samples_predict_within_a_tenth(name: str) -> None:
    rule = (LINEAR_RULES | OTHER_RULES)[name]
    run = Run(replace(rule, rate=rule.rate / 4), widths=(8, 16, 2), batch=32, seed=3)
    found = run.drift(1000, every=10).report()
    assert abs(found.ratio - 1) < 0.1
    assert 0 < found.ratio_error < 0.2
    assert found.drift > 100 * found.floor


def test_error_of_samples_shrinks_with_their_number_and_bounds_what_is_unexplained() -> None:
    errors = []
    for every in (100, 40, 10):
        found = Run(optimiser("momentum", 0.002), widths=(8, 16, 2), batch=16, seed=5).drift(1200, every).report()
        errors.append(found.laws[0].error)
        assert found.unexplained < 4 * errors[-1]
    assert errors[0] > 2 * errors[-1] > 0
    assert Run(optimiser("momentum", 0.002)).drift(50, 1).report().laws[0].error == 0


def test_a_wrong_optimiser_leaves_much_unexplained() -> None:
    def plain(told: OptimiserState) -> OptimiserState:
        return replace(told, name="gd", momentum=0.0, buffers={})

    def undecayed(told: OptimiserState) -> OptimiserState:
        return replace(told, weight_decay=0.0)

    def faster(told: OptimiserState) -> OptimiserState:
        return replace(told, lr=2 * told.lr)

    cases = [
        ("momentum", plain),
        ("gd, coupled decay", undecayed),
        ("gd", faster),
        ("adam", plain),
        ("adamw", undecayed),
    ]
    for name, change in cases:
        run = Run((LINEAR_RULES | OTHER_RULES)[name], seed=2)
        found = run.drift(150, change=change).report()
        assert abs(found.ratio - 1) > 0.3 or name == "adamw", name
        assert found.unexplained > 0.3 * found.drift, name


def test_constants_that_differ_inside_a_law_and_frozen_parameters() -> None:
    """Biases without decay and a frozen layer: theta is stepped by hand, every step observed."""
    run = Run(optimiser("gd", 0.02), widths=(3, 5, 4, 2))
    for coupled in (True, False):
        theta = run.named(run.theta.copy())
        drift = Drift(run.architecture, theta, exact=True)
        groups = {f"{k}.bias": {"weight_decay": 0.0, "lr": 0.05} for k in (1, 2, 3)}
        told = OptimiserState(
            "sgd", 0.02, weight_decay=0.2, coupled=coupled, groups=groups, frozen=frozenset(["2.weight"])
        )
        assert told.number("2.weight", "lr") == 0
        for t in range(1, 100):
            vector = np.concatenate([theta[f"{k}.{what}"].ravel() for k in (1, 2, 3) for what in ("weight", "bias")])
            _, g = run.chain.gradient(vector, Batch(run.x, run.y))
            slopes, new = run.named(g), {}
            for name, value in theta.items():
                lr, decay = told.number(name, "lr"), told.number(name, "weight_decay")
                new[name] = value - lr * slopes[name] - lr * decay * value
            theta = new
            drift.observe(t, theta, slopes, told)
        found = drift.report()
        assert found.drift > 1e-2
        assert found.unexplained < 1e-9
        assert {row.basis for row in found.laws} == {"rule"}


def test_rates_that_differ_inside_a_law_in_closed_form() -> None:
    model, theta = single(1), {"w": np.array([2.0]), "a": np.array([1.0])}
    state = OptimiserState("gd", 0.1, groups={"a": {"lr": 0.2}})
    drift = Drift(model, theta)
    drift.observe(1, {"w": np.array([1.5]), "a": np.array([0.6])}, {"w": np.array([5.0]), "a": np.array([2.0])}, state)
    # Q = w^2 - a^2 went from 3 to 2.25 - 0.36, a change of -1.11 where w^2 + a^2 was 5
    assert drift.report().predicted == pytest.approx(1.11 / 5)
    assert drift.report().unexplained == pytest.approx(0.0, abs=1e-12)


def test_missing_gradients_leave_decay_and_are_said() -> None:
    run = Run(optimiser("gd", 1e-4, decay=1.0), batch=64)
    drift = Drift(run.architecture, run.named(run.theta))
    for t, theta, _, told in run.steps(1000):
        if t % 100 == 0:
            drift.observe(t, theta, None, told)
    found = drift.report()
    assert "no gradients were given" in found.notes[0]
    assert {row.basis for row in found.laws} == {"decay"}
    assert found.ratio == pytest.approx(1, abs=0.05)
    none = Drift(run.architecture, run.named(run.theta))
    none.observe(1, run.named(run.theta * 1.1))
    found = none.report()
    assert found.ratio is None and found.ratio_error is None
    assert found.drift > 0.01 and found.predicted is None and found.unexplained is None
    assert {name.rpartition("/")[2] for name in found.scalars()} == {"count", "drift"}
    assert "nothing predicted" in str(found) and "no optimiser" in str(found) and "not predicted" in str(found)


def test_adam_without_its_state_predicts_nothing() -> None:
    model, theta = single(1), {"w": np.array([2.0]), "a": np.array([1.0])}
    for coupled, basis in ((True, "none"), (False, "decay")):
        drift = Drift(model, theta)
        drift.observe(10, theta, None, OptimiserState("adam", 0.1, weight_decay=0.1, coupled=coupled))
        assert drift.report().laws[0].basis == basis
        assert drift.report().predicted == (None if coupled else pytest.approx(0.6 * (1 - 0.99**20)))
        assert "state of adam" in drift.report().notes[0]


@pytest.mark.parametrize("name", ["rmsprop", "adagrad"])
def test_rules_whose_steps_their_state_does_not_tell_are_not_predicted(name: str) -> None:
    model, theta = single(1), {"w": np.array([2.0]), "a": np.array([1.0])}
    state = OptimiserState(name, 0.1, weight_decay=0.1, buffers={"second": {"w": np.ones(1), "a": np.ones(1)}}, steps=1)
    drift = Drift(model, theta)
    moved, gradients = {"w": np.array([1.5]), "a": np.array([1.0])}, {"w": np.ones(1), "a": np.zeros(1)}
    drift.observe(1, moved, gradients, state)
    found = drift.report()
    assert (found.predicted, found.unexplained, found.ratio) == (None, None, None)
    assert found.drift > 0.1 and found.laws[0].predicted is None and found.rows()[0]["predicted"] is None
    said = "with decay added to the gradients: its state does not tell its steps, which are not predicted"
    assert found.notes == (f"{name} {said}",)
    again = Drift.from_state(model, json.loads(json.dumps(drift.to_state())))
    assert again.report().predicted is None
    drift.observe(2, moved, None, replace(state, weight_decay=0.0))
    assert drift.report().notes[1] == "no gradients were given: nothing is predicted for some laws"
    start = Drift(model, theta, optimiser=state)
    assert start.report().predicted == 0.0  # nothing was missed yet
    frozen = replace(state, frozen=frozenset(("w", "a")))
    start.observe(1, theta, None, frozen)
    assert start.report().predicted == 0.0 and not start.report().notes


def test_samples_of_another_rule_are_not_used() -> None:
    model, theta = single(1), {"w": np.array([2.0]), "a": np.array([1.0])}
    drift = Drift(model, theta)
    drift.observe(1, theta, {"w": np.array([30.0]), "a": np.array([0.0])}, OptimiserState("gd", 0.1))
    assert drift.report().predicted == pytest.approx(9 / 5)
    zeros = {"w": np.zeros(1), "a": np.zeros(1)}
    drift.observe(11, theta, None, OptimiserState("unknown", 0.1, buffers={"update": zeros}))
    assert drift.report().predicted == pytest.approx(9 / 5)


def test_updates_themselves_serve_any_rule() -> None:
    run = Run(optimiser("sign", 0.001))
    drift = Drift(run.architecture, run.named(run.theta), exact=True)
    before = run.theta.copy()
    for t, theta, _, _ in run.steps(50):
        told = OptimiserState("unknown", 0.001, buffers={"update": run.named((before - run.theta) / 0.001)})
        drift.observe(t, theta, None, told)
        before = run.theta.copy()
    assert drift.report().unexplained < 1e-9


def test_state_goes_through_json_to_the_bit() -> None:
    whole, first = (Run(optimiser("nesterov", 0.004, decay=0.01), seed=7) for _ in range(2))
    expected = whole.drift(90, every=30).report()
    drift = Drift(first.architecture, first.named(first.theta))
    for t, theta, g, told in first.steps(90):
        if t % 30 == 0:
            drift.observe(t, theta, g, told)
            drift = Drift.from_state(first.architecture, json.loads(json.dumps(drift.to_state(), allow_nan=False)))
    assert drift.report().to_json() == expected.to_json()
    other = chain_architecture((3, 6, 2), activation="relu")
    with pytest.raises(InputError, match="other laws"):
        Drift.from_state(other, drift.to_state())
    with pytest.raises(InputError, match="schema"):
        Drift.from_state(other, {})
    broken = drift.to_state()
    del broken["tracks"][0]["start"]
    with pytest.raises(InputError, match="not the state"):
        Drift.from_state(first.architecture, broken)


def test_a_run_with_momentum_is_taken_up_in_the_middle() -> None:
    run = Run(optimiser("momentum", 0.004, decay=0.02))
    drift = None
    for t, theta, g, told in run.steps(120):
        if t == 40:
            drift = Drift(run.architecture, theta, step=40, optimiser=told, exact=True)
            blind = Drift(run.architecture, theta, step=40, exact=True)
        elif drift is not None:
            drift.observe(t, theta, g, told)
            blind.observe(t, theta, g, told)
    assert drift is not None
    assert drift.report().steps == 80
    assert drift.report().unexplained < TOL
    assert blind.report().unexplained > 1e-4


def test_observations_in_the_wrong_order_are_refused() -> None:
    run = Run(optimiser("gd", 0.01))
    drift = Drift(run.architecture, run.named(run.theta), step=3, exact=True)
    with pytest.raises(InputError, match="step 2 after step 3"):
        drift.observe(2, run.named(run.theta))
    with pytest.raises(InputError, match="every step"):
        drift.observe(5, run.named(run.theta))
    drift.observe(3, run.named(run.theta))
    assert drift.report().steps == 0 and drift.report().drift == 0


def heads() -> tuple[Architecture, Params]:
    """Two heads of queries and keys with biases on queries, values fused behind, and a normalised row."""
    heads_, qk, width = 2, 2, 40
    h, f = Axis("heads", "in"), Axis("qk", "in")
    slots = (
        Slot("q", (4, width), (heads_, qk, width), (h, f, None)),
        Slot("qb", (4,), (heads_, qk), (h, f)),
        Slot("kv", (width, 6), (width, 6), (None, Axis("all", "out")), None),
        Slot("n", (4, 3), (4, 3), (Axis("rows", "in"), None)),
        Slot("k", (5, 4, width), (5, heads_, qk, width), (None, h, Axis("qk", "out"), None), (0, 1, 4)),
    )
    populations = (Population("heads", 2), Population("qk", 2, "factors"), Population("all", 6), Population("rows", 4))
    laws = (
        Law("qk", "matrix", "qk", (0, 1), (4,), per="heads"),
        Law("rotary", "rotary", "qk", (0,), (4,), per="heads"),
        Law("scale", "scale", "rows", (3,)),
        Law("scale", "scale", "rows", (3,)),
    )
    rng = np.random.default_rng(0)
    shapes = {slot.name: slot.shape for slot in slots}
    return Architecture(slots, populations, laws), {name: rng.normal(size=shape) for name, shape in shapes.items()}


def test_matrices_heads_rotary_and_fused_parameters() -> None:
    model, p = heads()
    found = quantities(model, p)
    assert list(found) == ["qk", "rotary", "scale", "scale (2)"] == list(law_names(model))
    q, k = p["q"].reshape(2, 2, 40), p["k"].reshape(5, 2, 2, 40)[1:4]
    for head in range(2):
        b = p["qb"].reshape(2, 2)[head]
        expected = q[head] @ q[head].T + np.outer(b, b) - sum(k[t, head] @ k[t, head].T for t in range(3))
        assert np.allclose(found["qk"][head], expected, atol=1e-12)
        assert found["rotary"][head] == pytest.approx(np.sum(q[head] ** 2) - np.sum(k[:, head] ** 2))
    assert np.allclose(found["scale"], np.sum(p["n"] ** 2, axis=1))
    sizes = magnitudes(model, p)
    assert np.all(sizes["rotary"] > np.abs(found["rotary"]))
    halves = {name: value.astype(np.float32) for name, value in p.items()}
    for name, value in quantities(model, halves).items():
        assert np.all(np.abs(value - found[name]) < 1e-7 * np.max(sizes[name]))


def test_matrix_law_of_a_product_is_kept_whole_and_predicted() -> None:
    """Loss |K^T Q - target|^2 by head: Q Q^T - K K^T of every head, off the diagonal too."""
    rng = np.random.default_rng(1)
    h, f = Axis("heads", "in"), Axis("qk", "in")
    slots = (
        Slot("q", (2, 2, 70), (2, 2, 70), (h, f, None)),
        Slot("k", (2, 2, 70), (2, 2, 70), (h, Axis("qk", "out"), None)),
    )
    pops = (Population("heads", 2), Population("qk", 2, "factors"))
    model = Architecture(slots, pops, (Law("qk", "matrix", "qk", (0,), (1,), per="heads"),))
    q, k = rng.normal(size=(2, 2, 2, 70)) * 0.3
    v = np.zeros((2, 2, 2, 70))
    drift = Drift(model, {"q": q, "k": k}, exact=True)
    for t in range(1, 60):
        target = rng.normal(size=(2, 70, 70))
        e = np.einsum("hia,hib->hab", q, k) - target
        g = np.stack([np.einsum("hab,hib->hia", e, k), np.einsum("hab,hia->hib", e, q)]) + 0.1 * np.stack([q, k])
        v = 0.9 * v + g
        q, k = q - 1e-3 * v[0], k - 1e-3 * v[1]
        told = OptimiserState(
            "momentum", 1e-3, momentum=0.9, weight_decay=0.1, buffers={"momentum": {"q": v[0], "k": v[1]}}
        )
        drift.observe(t, {"q": q, "k": k}, None, told)
    found = drift.report()
    assert found.count == 6 and not found.notes
    assert found.drift > 1e-2
    assert found.unexplained < TOL
    big = Architecture(slots[:1], pops, (Law("q", "matrix", "qk", (0,), ()),))
    assert Drift(big, {"q": q}).report().count == 3
    wide = Population("heads", 1), Population("qk", 65, "factors")
    flat = Slot("q", (1, 65, 50), (1, 65, 50), (h, f, None))
    values = {"q": rng.normal(size=(1, 65, 50))}
    small = Drift(Architecture((flat,), wide, (Law("q", "matrix", "qk", (0,), (), per="heads"),)), values).report()
    assert small.count == 65 and "diagonal" in small.notes[0]


def test_scale_law_behind_batch_normalisation_up_to_its_eps() -> None:
    """<w_i, g_i> = eps / (var_i + eps) gain_i g_gain_i, and 0 for eps = 0: |w|^2 grows by lr^2 |g|^2."""
    rng = np.random.default_rng(4)
    x, w, gain = rng.normal(size=(50, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    target = rng.normal(size=(50, 3))

    def slopes(w: Any, gain: Any, eps: float) -> tuple[Any, Any, Any]:
        z = x @ w.T
        mean, var = z.mean(0), z.var(0)
        root = np.sqrt(var + eps)
        n = (z - mean) / root
        d = 2 * (n * gain - target) / target.size
        dn = d * gain
        dz = (dn - dn.mean(0) - n * (dn * n).mean(0)) / root
        return dz.T @ x, (d * n).sum(0), var

    for eps in (0.0, 0.1):
        gw, ggain, var = slopes(w, gain, eps)
        assert np.allclose((w * gw).sum(1), eps / (var + eps) * gain * ggain, atol=1e-15)
    row = Slot("w", (3, 4), (3, 4), (Axis("c", "in"), None))
    model = Architecture((row,), (Population("c", 3, normalised=True),), (Law("|w|^2", "scale", "c", (0,)),))
    for eps, bound in ((0.0, 1e-12), (1e-5, 1e-4)):
        now, drift = w, Drift(model, {"w": w}, exact=True)
        for t in range(1, 100):
            g = slopes(now, gain, eps)[0]
            now = now - 0.3 * g
            drift.observe(t, {"w": now}, {"w": g}, OptimiserState("sgd", 0.3))
        assert drift.report().unexplained < bound
        assert drift.report().drift > 1e-3


@given(
    st.integers(1, 40), st.integers(0, 10**6), st.sampled_from(["gd", "momentum", "nesterov", "step"]), st.booleans()
)
def test_many_steps_at_once_are_the_recursion_step_by_step(steps: int, seed: int, kind: str, coupled: bool) -> None:
    rng = np.random.default_rng(seed)
    numbers = Constants(*rng.uniform(0, 0.5, size=4))
    width, rows = (2 if kind in ("momentum", "nesterov") else 1), (2 if kind == "nesterov" else 1)
    z, first, last = rng.normal(size=(width, 3)), rng.normal(size=(rows, 3)), rng.normal(size=(rows, 3))
    found = propagate(kind, coupled, (numbers, numbers, steps), z, first, last, fresh=False)
    lr, decay, momentum, dampening = numbers.row
    c, w = (1.0, decay) if coupled else (1 - lr * decay, 0.0)
    for j in range(1, steps + 1):
        f = first + (last - first) * j / steps
        if kind == "gd":
            z = (1 - lr * w) ** 2 * c**2 * z + lr**2 * f
        elif kind == "step":
            z = c**2 * z + f
        else:
            b = momentum * c * z[1] + (1 - dampening) * w * z[0]
            if kind == "momentum":
                z = np.stack([c**2 * z[0] - 2 * lr * b + lr**2 * f[0], b - lr * f[0]])
            else:
                z = np.stack([c**2 * z[0] - 2 * lr * (w * z[0] + momentum * b) + lr**2 * f[0], b - lr * f[1]])
    assert np.allclose(found, z, rtol=1e-8, atol=1e-8)


def test_changing_constants_are_interpolated_in_order() -> None:
    parts = list(pieces(Constants(0.0), Constants(1.0), 10, fresh=False))
    assert [low for low, *_ in parts] == sorted(low for low, *_ in parts)
    assert parts[0][0] == 0 and parts[-1][1] == 10
    assert sum((high - low) * numbers.lr for low, high, numbers in parts) == pytest.approx(5.5)
    assert list(pieces(Constants(0.3), Constants(1.0), 1)) == [(0, 1, Constants(1.0))]
    line = propagate(
        "step", True, (Constants(0.0), Constants(1.0), 30), np.zeros((1, 1)), np.array([[1.0]]), np.array([[4.0]])
    )
    assert line[0, 0] == pytest.approx(sum(1 + j / 10 for j in range(1, 31)))
    fresh = list(pieces(Constants(1.0, 0, 0, 0.5), Constants(1.0, 0, 0, 0.5), 4, fresh=True))
    assert [numbers.dampening for *_, numbers in fresh] == [0.0, 0.5]
    one = np.eye(1)
    assert advance(one, one, np.zeros((1, 1)), np.zeros((1, 1)), np.array([[10.0]]), 10)[0, 0] == pytest.approx(55)


def test_neither_a_huge_neuron_nor_tiny_ones_drown_the_others() -> None:
    size, start = np.array([1e4, 1.0, 1.0, 1e-9]), np.zeros(4)
    row, (along, square, spread) = law_drift(
        "q", 4, (start, size, 0.1 * size, 0.2 * size, size**2), whole=False, floor=0.0, basis="law"
    )
    relative = size / np.maximum(size, (1e4 + 2 + 1e-9) / 4)
    assert row.drift == pytest.approx(0.1 * math.sqrt(np.mean(relative**2)))
    assert (row.largest, row.ratio) == (pytest.approx(0.1), pytest.approx(0.5))
    assert (along, square, spread) == tuple(pytest.approx(k * np.mean(relative**2)) for k in (0.02, 0.04, 1))
    assert scales(np.zeros(2), False)[0].max() < 1e-200
    matrix, rows = scales(np.array([[4.0, 7.0], [7.0, 4.0]]), True)
    assert rows == 2 and np.array_equal(matrix, np.full((2, 2), 4.0))


def test_rules_by_the_names_people_use() -> None:
    assert OptimiserState.from_name("SGD", 0.1).name == "sgd"
    assert OptimiserState.from_name("SGD", 0.1, momentum=0.9, nesterov=True).name == "nesterov"
    adam = OptimiserState.from_name("AdamW", 0.1, betas=(0.8, 0.9))
    assert (adam.beta1, adam.beta2, adam.weight_decay, adam.coupled) == (0.8, 0.9, 0.01, False)
    assert adam.family == "elementwise" and not adam.linear
    assert optimiser_keeps(adam.rule(), "permutation").outcome == "kept"
    assert adam.rule() == optimiser("adamw", 0.1, momentum=0.8, second=0.9)
    lion = OptimiserState.from_name("Lion", 0.1)
    assert lion.name == "unknown" and lion.family is None
    with pytest.raises(InputError, match="Lion"):
        lion.rule()
    for bad in ({"name": "lion"}, {"buffers": {"m": {}}}, {"groups": {"w": {"rate": 1.0}}}):
        with pytest.raises(InputError, match="unknown"):
            OptimiserState(**({"name": "gd", "lr": 0.1} | bad))
    with pytest.raises(InputError, match="unknown option"):
        OptimiserState.from_name("sgd", 0.1, gamma=1)
    assert json.loads(json.dumps(adam.to_dict()))["beta1"] == 0.8


def test_centred_rmsprop_with_momentum_and_amsgrad_directions() -> None:
    rng = np.random.default_rng(0)
    m, s, top = rng.normal(size=4) * 0.1, rng.uniform(1, 2, size=4), rng.uniform(2, 3, size=4)
    g, zero = rng.normal(size=4), np.zeros(4)
    rms = OptimiserState(
        "rmsprop", 0.1, eps=0.1, eps_root=0.2, centred=True, buffers={"second": {"w": s}, "first": {"w": m}}
    )
    assert np.allclose(rms.direction("w", zero, g), g / (np.sqrt(s - m * m + 0.2) + 0.1))
    heavy = replace(rms, momentum=0.9, buffers={**rms.buffers, "momentum": {"w": top}})
    assert np.array_equal(heavy.direction("w", zero, g), top)
    adam = OptimiserState(
        "adam", 0.1, eps=0.1, steps={"w": 3}, buffers={"first": {"w": m}, "second": {"w": s}, "maximum": {"w": top}}
    )
    expected = m / (1 - 0.9**3) / (np.sqrt(top / (1 - 0.999**3)) + 0.1)
    assert np.allclose(adam.direction("w", zero, None), expected)
    assert adam.direction("b", zero, g) is None
    still = OptimiserState("adam", 0.1, eps=0.0, steps=1, buffers={"first": {"w": zero}, "second": {"w": zero}})
    assert np.array_equal(still.direction("w", zero, None), zero)


def test_parameters_that_do_not_fit_are_refused() -> None:
    model = single(2)
    with pytest.raises(InputError, match="no parameter 'a'"):
        quantities(model, {"w": np.ones(2)})
    with pytest.raises(InputError, match="shape"):
        quantities(model, {"w": np.ones(2), "a": np.ones(3)})
    with pytest.raises(InputError, match="no axis of 'x'"):
        quantities(replace(model, laws=(Law("x", "balance", "x", (0,)),)), {"w": np.ones(2), "a": np.ones(2)})
    assert quantities(replace(model, laws=()), {}) == {}
    assert Drift(replace(model, laws=()), {}).report().ratio is None


@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 1), (1, 2), (2, 0)])
@pytest.mark.parametrize("size", [1.0, 1e-22, 1e25])
def test_sums_of_float32_products_are_those_of_float64(kept: tuple[int, ...], size: float) -> None:
    rng = np.random.default_rng(3)
    x = (size * rng.standard_normal((40, 9, 61))).astype(np.float32)
    y = (size * rng.standard_normal((40, 9, 61))).astype(np.float32)
    rest = tuple(k for k in range(3) if k not in kept)
    products = np.transpose(x.astype(float) * y, (*kept, *rest))
    true = products.reshape(*products.shape[: len(kept)], -1)
    for a, b in ((x, y), (np.asfortranarray(x), y), (x.astype(float), y.astype(float))):
        error = np.abs(sums(a, b, kept) - true.sum(axis=-1))
        assert (error <= 4e-7 * np.abs(true).sum(axis=-1)).all()


def test_the_direction_of_adam_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.standard_normal((300, 250)), rng.standard_normal((300, 250)) ** 2
    second[0, 0] = first[0, 0] = 0.0
    for eps, root in ((1e-3, 0.0), (1e-3, 1e-2), (0.0, 0.0)):
        held = {"first": {"w": first}, "second": {"w": second}}
        state = OptimiserState("adam", 0.1, eps=eps, eps_root=root, buffers=held, steps=3)
        bottom = np.sqrt(second / (1 - 0.999**3) + root) + eps
        true = np.divide(first / (1 - 0.9**3), bottom, out=np.zeros_like(first), where=bottom > 0)
        np.testing.assert_allclose(state.direction("w", first, None), true, rtol=1e-12)


def test_the_error_of_one_sample_in_a_long_interval_is_not_known_until_the_next() -> None:
    model, theta = single(1), {"w": np.array([2.0]), "a": np.array([1.0])}
    state, gradients = OptimiserState("gd", 0.01), [{"w": np.array([g]), "a": np.array([0.0])} for g in (1.0, 2.0)]
    drift = Drift(model, theta)
    drift.observe(100, theta, gradients[0], state)
    found = drift.report()
    assert found.ratio is not None and found.ratio_error is None and found.laws[0].error is None
    assert found.rows()[0]["error"] is None and "+-" not in str(found)
    again = Drift.from_state(model, json.loads(json.dumps(drift.to_state())))
    for one in (drift, again):
        one.observe(101, theta, gradients[1], state)
        # each of 100 steps may have moved w^2 by 0.01^2 (4 - 1) more or less; relative to w^2 + a^2 = 5
        assert one.report().laws[0].error == pytest.approx(100 * 1e-4 * 3 / 5)
    one_by_one = Drift(model, theta)
    one_by_one.observe(1, theta, gradients[0], state)
    assert one_by_one.report().laws[0].error == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: OptimiserState(["adam"], 0.1), "unknown optimiser"),
        (lambda: OptimiserState("adam", "fast"), "lr of adam: 'fast'; give a number"),
        (lambda: OptimiserState("adam", 0.1, groups=None), "groups of adam: None"),
        (lambda: OptimiserState("adam", 0.1, groups={"w": 1.0}), "give numbers by name for each parameter"),
        (lambda: OptimiserState("adam", 0.1, buffers=[]), "buffers of adam"),
        (lambda: Drift("chain", {}), "architecture is a str"),
    ],
)
def test_wrong_arguments_get_one_clear_line(call, words):
    with pytest.raises(InputError, match=words):
        call()
