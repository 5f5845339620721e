"""Watching a run: cadence, records, growth exponents, failures that must not end a training, resuming after kill -9."""

from __future__ import annotations

import copy
import gc
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError
from fiberscope.network import Network
from fiberscope.training.architectures.architecture import Architecture, Axis
from fiberscope.training.architectures.chains import architecture_of, chain_architecture
from fiberscope.training.drift.rules import OptimiserState
from fiberscope.training.traces.checkpoints import trace_of_checkpoints
from fiberscope.training.traces.observing import Observer, nonfinite
from fiberscope.training.traces.rates import Rates, Sim, separations, slope
from fiberscope.training.traces.reading import read_trace
from fiberscope.training.traces.records import Record
from fiberscope.training.traces.subjects import ArraySubject, Subject
from fiberscope.training.traces.watchers import SHARE, Watcher, watch

Array = npt.NDArray[Any]
MODEL = chain_architecture((2, 4, 1), activation="relu")
PREFIX = "fiberscope/"


def start(seed: int = 0, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {s.name: s.shape for s in MODEL.slots}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def gradients(p: Mapping[str, Array], x: Array, y: Array) -> dict[str, Array]:
    """Of the mean squared error of a two-layer ReLU network, by hand."""
    z = x @ p["1.weight"].T + p["1.bias"]
    h = np.maximum(z, 0)
    e = 2 * (h @ p["2.weight"].T + p["2.bias"] - y) / len(x)
    d = (e @ p["2.weight"]) * (z > 0)
    return {"1.weight": d.T @ x, "1.bias": d.sum(0), "2.weight": e.T @ h, "2.bias": e.sum(0)}


def train(watcher: Watcher, theta: dict[str, Array], steps: int, *, rate: float = 0.01, decay: float = 0.0) -> None:
    rng = np.random.default_rng(1)
    state = OptimiserState("gd", rate, weight_decay=decay)
    for _ in range(steps):
        x = rng.standard_normal((16, 2))
        g = gradients(theta, x, np.sin(x[:, :1]))
        for name in theta:
            theta[name] = theta[name] - rate * (g[name] + decay * theta[name])
        watcher.step(theta, gradients=g, optimizer=state, loss=0.5)


# ---- cadence and cost


class Counting(ArraySubject):
    """Counts every call of a watcher."""

    def __init__(self, *arguments: Any) -> None:
        self.calls: list[str] = []
        super().__init__(*arguments)

    def update(self, *arguments: Any, **options: Any) -> None:
        self.calls.append("update")
        super().update(*arguments, **options)

    def parameters(self) -> Any:
        self.calls.append("parameters")
        return super().parameters()

    def release(self) -> None:
        self.calls.append("release")
        super().release()


def test_a_step_that_is_not_due_touches_nothing() -> None:
    subject = Counting(start(), MODEL)
    assert isinstance(subject, Subject)
    watcher = watch(subject, every=100)
    subject.calls.clear()

    class Untouchable(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise AssertionError("read")

    for _ in range(64):
        assert watcher.step(start()) is None
    subject.calls.clear()
    for _ in range(65, 100):
        assert watcher.step(Untouchable(), loss=object(), gradients=Untouchable()) is None
    assert subject.calls == []
    assert watcher.step(start()) is not None and "parameters" in subject.calls and subject.calls[-1] == "release"


def test_measured_at_the_start_every_so_often_and_at_the_end() -> None:
    with watch(start(), architecture=MODEL, every=10) as watcher:
        for k in range(1, 35):
            found = watcher.step(start(k))
            assert (found is not None) == (k % 10 == 0)
        watcher.measure_now(start(0))
        watcher.close(start(99))
    assert [r.step for r in watcher.trace().records] == [0, 10, 20, 30, 34]
    module_like = Counting(start(), MODEL)
    module_like.release = lambda: None  # type: ignore[method-assign]  # holds its parameters, as a module does
    with watch(module_like, every=10) as watcher:
        for _ in range(14):
            watcher.step()
    assert [r.step for r in watcher.trace().records] == [0, 10, 14]


def test_steps_given_by_the_loop() -> None:
    with watch(architecture=MODEL, every=10) as watcher:
        for step in (3, 3, 5, 10, 10, 27, 30, 12, 20):  # accumulation repeats steps; a restart goes back
            watcher.step(start(), step=step)
    assert [r.step for r in watcher.trace().records] == [3, 10, 12, 20]


def test_at_most_twenty_scalars_all_of_groups() -> None:
    state = OptimiserState("gd", 0.01)
    watcher = watch(start(), architecture=MODEL, every=1, data=np.ones((5, 2)), orbit_every=1, optimizer=state)
    for _ in range(8):
        found = watcher.step(start(), gradients=start(3))
    assert (
        found is not None and 12 <= len(found) <= 20 and all(k.startswith(PREFIX) and k.count("/") == 2 for k in found)
    )
    assert found[PREFIX + "orbit/dimension"] > 0 and PREFIX + "dead/on_data" in found and watcher.last == found


def test_the_loss_is_kept_beside_the_scalars() -> None:
    watcher = watch(start(), architecture=MODEL, every=1)
    with pytest.raises(InputError, match=r"step\(odd=...\) is a str, 'text'; expected a number"):
        watcher.step(start(), odd="text")
    found = watcher.step(start(), loss=np.float32(0.5), rate=1e-3)
    watcher.step(start(), odd="text")  # later it is no reason to end a training
    assert watcher.trace().records[-1].scalars["odd"] is None
    record = watcher.trace().records[1]
    assert record.scalars["loss"] == 0.5 and record.scalars["rate"] == 1e-3
    assert found is not None and "loss" not in found


def test_orbit_and_drift_cadences() -> None:
    theta = start()
    with watch(theta, architecture=MODEL, every=4, orbit_every=2, drift_every=1) as watcher:
        train(watcher, theta, 12, rate=0.05)
    trace = watcher.trace()
    assert trace.series("orbit/dimension")[0].tolist() == [0, 8]
    # every step was seen, so the prediction is an identity
    assert abs(trace.series("laws/ratio")[1][-1] - 1) < 1e-9 and trace.last("laws/unexplained") < 1e-12


def test_weight_decay_is_explained_by_the_rule() -> None:
    theta = start(2)
    rate, decay = 0.01, 0.2
    with watch(theta, architecture=MODEL, every=25) as watcher:
        train(watcher, theta, 300, rate=rate, decay=decay)
    trace = watcher.trace()
    assert abs(trace.series("laws/ratio")[1][-1] - 1) < 0.1 and trace.warnings == ()
    wrong = start(2)
    with watch(wrong, architecture=MODEL, every=25) as other:
        rng = np.random.default_rng(1)
        for _ in range(300):
            x = rng.standard_normal((16, 2))
            g = gradients(wrong, x, np.sin(x[:, :1]))
            wrong = {k: v - rate * (g[k] + decay * v) for k, v in wrong.items()}
            other.step(wrong, gradients=g, optimizer=OptimiserState("gd", rate))  # decay is not told
    assert any("times what gd explains" in text for text in other.trace().warnings)


# ---- growth


def planted(step: int, rate: float) -> dict[str, Array]:
    """Two neurons of a fixed network apart by 1e-9 e^(rate step)."""
    theta = start(5)
    theta["1.weight"][1] = theta["1.weight"][0] + np.array([1e-9 * math.exp(rate * step), 0.0])
    theta["1.bias"][1], theta["2.weight"][:, 1] = theta["1.bias"][0], theta["2.weight"][:, 0]
    return theta


@pytest.mark.parametrize(("rate", "every"), [(0.036, 10), (0.036, 50), (-0.004, 100)])
def test_growth_exponent_of_a_planted_exponential(rate: float, every: int) -> None:
    with watch(architecture=MODEL, every=every) as watcher:
        for step in range(0, 301 if rate > 0 else 1001, every):
            shift = step if rate > 0 else step - 1800
            watcher.step(planted(shift, rate), step=step)
    assert watcher.last[PREFIX + "sims/growth_exponent"] == pytest.approx(rate, rel=1e-4)
    row = watcher.trace().records[-1].nearest[0]
    assert row["neurons"] == [0, 1] and row["kind"] == "merge" and row["exponent"] == pytest.approx(rate, rel=1e-4)


def test_no_exponent_without_growth_or_outside_the_linear_regime() -> None:
    with watch(architecture=MODEL, every=1) as watcher:
        for step in range(10):
            watcher.step(planted(0, 0.0), step=step)
    assert PREFIX + "sims/growth_exponent" not in watcher.last
    with watch(architecture=MODEL, every=10) as watcher:
        for step in range(0, 700, 10):  # e^(0.036 * 690) * 1e-9 is beyond
            watcher.step(planted(step, 0.036), step=step)
    values = dict(zip(*map(list, watcher.trace().series("sims/growth_exponent")), strict=True))
    assert PREFIX + "sims/growth_exponent" not in watcher.last and max(values) < 500 and values[300] > 0.03


@given(st.floats(0.01, 2.0), st.sampled_from([-1, 1]), st.integers(3, 30), st.integers(1, 1000), st.floats(1e-12, 1e-3))
def test_slopes_of_exact_exponentials(decades: float, sign: int, count: int, gap: int, first: float) -> None:
    steps = [7 + gap * k for k in range(count)]
    rate = sign * decades * math.log(10) / (gap * (count - 1))
    found = slope(steps, [first * math.exp(rate * (t - 7)) for t in steps])
    if decades > 1 + 1e-9:
        assert found is not None and found.exponent == pytest.approx(rate, rel=1e-9) and found.scatter < 1e-9
        assert (found.first, found.last) == (steps[0], steps[-1])
    elif decades < 1 - 1e-9:
        assert found is None


def test_slopes_use_the_last_unbroken_window() -> None:
    distances = [1e-3, 1e-20, 1e-8, 1e-7, 1e-6, 1e-5]
    found = slope(range(6), distances, low=1e-10, high=1e-2)
    assert found is not None and (found.first, found.last) == (2, 5) and found.exponent == pytest.approx(math.log(10))
    assert slope(range(6), distances, low=1e-10, high=1e-5) is None  # the last one is outside
    assert slope(range(6), distances, low=1e-6 - 1e-9, high=1e-2) is None  # two are no slope
    least = np.polyfit(range(4), np.log([1, 9, 120, 900]), 1)[0]
    assert slope(range(4), [1, 9, 120, 900]).exponent == pytest.approx(least, rel=1e-12)


def slices(architecture: Architecture, theta: Mapping[str, Array], name: str, neuron: int) -> Array:
    """All entries of a neuron, by loops."""
    parts = []
    for slot in architecture.slots:
        for axis, label in enumerate(slot.axes):
            if label is not None and label.population == name:
                parts.append(np.asarray(theta[slot.name]).reshape(slot.view).take(neuron, axis).reshape(-1))
    return np.concatenate(parts)


def test_separations_against_loops() -> None:
    model = chain_architecture((3, 5, 4, 2), activation="tanh")
    rng = np.random.default_rng(0)
    theta = {s.name: rng.standard_normal(s.shape) for s in model.slots}
    sims = [Sim("1", "merge", (0, 3)), Sim("2", "flip", (1, 2)), Sim("1", "null", (4,)), Sim("2", "merge", (0, 1))]
    for sim, (distance, size, unit) in zip(sims, separations(model, theta, sims), strict=True):
        u, v = (slices(model, theta, sim.population, k) for k in (sim.neurons[0], sim.neurons[-1]))
        gap = {"merge": (u - v) / math.sqrt(2), "flip": (u + v) / math.sqrt(2), "null": u}[sim.kind]
        assert distance == pytest.approx(float(np.linalg.norm(gap)), rel=1e-12)
        assert size == pytest.approx(math.sqrt((u @ u + v @ v) / 2), rel=1e-12)
        assert unit == pytest.approx(size * 2.0**-52, rel=1e-12, abs=0)


def test_tracks_are_bounded_and_the_lead_changes_by_a_factor_only() -> None:
    model = chain_architecture((1, 6, 1), activation="relu", biases=False)
    found = Rates(limit=4)

    def theta(a: float, b: float) -> dict[str, Array]:
        first = np.array([[1.0], [1.0 + a], [5.0], [5.0 + b], [9.0], [-7.0]])
        return {"1.weight": first, "2.weight": np.ones((1, 6))}

    every = [Sim("1", "merge", (i, j)) for i in range(6) for j in range(i)]
    lengths = {"1": 5.0}
    for step, (a, b, lead) in enumerate([(0.1, 0.2, (1, 0)), (0.1, 0.06, (1, 0)), (0.1, 0.04, (3, 2))]):
        found.observe(step, model, theta(a, b), every, lengths)
        assert found.leading is not None and found.leading.sim.neurons == lead and len(found.tracks) <= 4
    again = Rates.from_state(found.to_state())
    assert again.rows() == found.rows() and again.leading is not None and again.leading.sim.neurons == (3, 2)
    silent = Rates()
    zeros = {"1.weight": np.zeros((6, 1)), "2.weight": np.zeros((1, 6))}
    silent.observe(0, model, zeros, [Sim("1", "null", (0,))], lengths)
    assert silent.leading is None and silent.rows()[0]["distance"] == 0


# ---- what must not end a training


class Failing:
    def log(self, scalars: Mapping[str, float], step: int) -> None:
        raise RuntimeError(f"no connection at {'any' if step else 'first'} step")


def test_failing_loggers_are_told_once_and_training_goes_on(tmp_path: Path) -> None:
    seen: list[int] = []
    loggers = [Failing(), lambda scalars, step: seen.append(step)]
    with watch(start(), tmp_path / "run.jsonl", architecture=MODEL, every=1, loggers=loggers) as watcher:
        for _ in range(5):
            assert watcher.step(start()) is not None
    assert seen == [0, 1, 2, 3, 4, 5]
    assert watcher.problems == (
        "logger DictLogger failed: RuntimeError: no connection at first step",
        "logger DictLogger failed: RuntimeError: no connection at any step",
    )
    assert len([p for p in read_trace(watcher.path).problems if "no connection" in p]) == 2


def test_an_exception_in_the_body_is_named_and_goes_on(tmp_path: Path) -> None:
    subject = Counting(start(), MODEL)
    subject.close = lambda: subject.calls.append("close")  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError), watch(subject, tmp_path / "run.jsonl", every=5) as watcher:
        for k in range(7):
            watcher.step(start())
            1 / (6 - k)
    trace = read_trace(tmp_path / "run.jsonl")
    assert trace.error == "ZeroDivisionError: division by zero" and trace.complete and subject.calls[-1] == "close"
    assert [r.step for r in trace.records] == [0, 5] and "ended by ZeroDivisionError" in str(trace)
    assert watcher.step(start()) is None  # it has ended


def test_parameters_that_are_not_finite_are_named_and_training_goes_on(tmp_path: Path) -> None:
    with watch(start(), tmp_path / "run.jsonl", architecture=MODEL, every=1) as watcher:
        bad = start()
        bad["1.weight"][0] = np.nan
        bad["2.bias"][0] = np.inf
        watcher.step(bad, loss=math.nan)
        assert watcher.step(start()) is not None
    records = read_trace(watcher.path).records
    reason = "1.weight has 2 entries that are not finite; 2.bias has 1 entry that is not finite; loss is not finite"
    assert [r.reason for r in records] == ["", reason, ""] and records[1].scalars == {"loss": None}


def test_sums_that_overflow_are_finite_entries() -> None:
    model = chain_architecture((1, 4, 1), biases=False)
    for dtype, big in ((np.float16, 6e4), (np.float32, 3e38)):
        theta = {"1.weight": np.full((4, 1), big, dtype), "2.weight": np.ones((1, 4), dtype)}
        assert nonfinite(model, theta) == ""
        theta["1.weight"][2] = np.inf
        assert nonfinite(model, theta) == "1.weight has 1 entry that is not finite"


def test_a_measurement_that_fails_later_is_a_problem_and_at_first_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with pytest.raises(InputError, match="shape"):
        watch({**start(), "1.bias": np.ones(7)}, path, architecture=MODEL)
    assert not path.exists()
    with watch(start(), path, architecture=MODEL, every=1) as watcher:
        assert watcher.step({"1.weight": np.ones((4, 2))}) is None
        assert watcher.step(start()) is not None
    assert "measuring failed: InputError: no parameter '1.bias'" in watcher.problems[0]
    with pytest.raises(InputError, match="architecture="):
        watch(start())
    with pytest.raises(InputError, match="hand them over"):
        watch(architecture=MODEL).step()
    with pytest.raises(InputError, match="exists"):
        watch(start(), path, architecture=MODEL)
    for options in ({"every": 0}, {"every": 1.5}, {"drift_every": 0}, {"resume": True, "force": True}):
        with pytest.raises(InputError):
            watch(start(), architecture=MODEL, **options)


def test_a_full_disk_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watch(start(), tmp_path / "run.jsonl", architecture=MODEL, every=1) as watcher:
        monkeypatch.setattr(os, "write", lambda fd, data: 0)
        assert watcher.step(start()) is not None
        monkeypatch.undo()
        watcher.step(start())
    assert "not written" in watcher.problems[0] and [r.step for r in read_trace(watcher.path).records] == [0, 2]


def test_the_end_says_what_a_full_disk_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.jsonl"
    for count, said in ((1, "1 measurement was not written"), (2, "2 measurements were not written")):
        with watch(start(), path, architecture=MODEL, every=1, force=True) as watcher:
            monkeypatch.setattr(os, "write", lambda fd, data: 0)
            for _ in range(count):
                watcher.step(start())
            monkeypatch.undo()
            watcher.step(start())
        end = json.loads(path.read_text().splitlines()[-1])["end"]
        assert end["lost"] == count and "No space" in end["reason"]
        trace = read_trace(path)
        assert any(said in text and "No space" in text for text in trace.problems)
        assert said in str(trace)
    with watch(start(), path, architecture=MODEL, every=1, resume=True) as watcher:
        watcher.step(start())
    assert said in str(read_trace(path))  # of the first part
    with watch(start(), path, architecture=MODEL, every=1, force=True) as watcher:
        watcher.step(start())
    assert "lost" not in path.read_text() and not read_trace(path).problems


def test_measuring_at_once_at_a_given_step() -> None:
    with watch(start(), architecture=MODEL, every=100) as watcher:
        for _ in range(3):
            watcher.step(start())
        watcher.measure_now(start(), step=None)
        assert [r.step for r in watcher.trace().records] == [0, 3]
        watcher.measure_now(start(), step=0)  # the run begins anew
        assert [r.step for r in watcher.trace().records] == [0]


def test_copies_have_ended_and_say_so(tmp_path: Path) -> None:
    with watch(start(), tmp_path / "run.jsonl", architecture=MODEL, every=1) as watcher:
        for other in (copy.deepcopy(watcher), pickle.loads(pickle.dumps(watcher))):
            assert other.step(start()) is None and "copy" in other.problems[-1]
            other.close()
        watcher.step(start())
    assert [r.step for r in read_trace(watcher.path).records] == [0, 1]


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with watch(start(), tmp_path / "run.jsonl", architecture=MODEL, every=1) as watcher:
        assert watcher.step(start()) is None and "not the first" in watcher.problems[0]
    assert not (tmp_path / "run.jsonl").exists()
    assert watch(start(), architecture=MODEL, every=1, rank=0).step(start()) is not None


# ---- what is watched


def test_networks_and_chains_of_names() -> None:
    net = Network.from_arrays(([[1.0, 0.0], [1.0, 0.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="tanh")
    with watch(net, every=1) as watcher:
        watcher.step(net)
    assert watcher.last[PREFIX + "sims/nearest_distance"] == 0 and watcher.architecture == chain_architecture(net)
    named = {"fc1.weight": np.ones((3, 2)), "fc1.bias": np.ones(3), "fc2.weight": np.ones((1, 3))}
    assert list(watch(named, activation="relu").architecture.named) == ["fc1"]  # type: ignore[union-attr]


class Mislabelled(ArraySubject):
    """A model that is no chain: its second half reads the neurons in a fixed order."""

    def evaluate(self, data: Any, parameters: Mapping[str, Any] | None = None) -> Any:
        p = self.parameters() if parameters is None else parameters
        h = np.maximum(np.asarray(data) @ p["1.weight"].T + p["1.bias"], 0)
        return (h * np.arange(1, 5)) @ p["2.weight"].T + p["2.bias"]


def test_populations_that_fail_the_test_are_skipped_and_named(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((40, 2))
    with watch(Mislabelled(start(), MODEL), tmp_path / "run.jsonl", data=x) as watcher:
        pass
    assert [row.name for row in watcher.skipped] == ["1"] and "not understood" in watcher.skipped[0].reason
    trace = read_trace(watcher.path)
    assert trace.skipped == watcher.skipped and trace.populations == () and "skipped 1" in str(trace)
    assert watch(Mislabelled(start(), MODEL), data=x, confirm=False).skipped == ()


def test_tables_and_histograms_on_request(tmp_path: Path) -> None:
    with watch(start(), tmp_path / "run.jsonl", architecture=MODEL, histograms=True, tables=True):
        pass
    record = read_trace(tmp_path / "run.jsonl").records[0]
    assert record.layers["1"]["neurons"] == 4 and "1" in record.histograms
    assert not watch(start(), architecture=MODEL).trace().records[0].histograms


# ---- resuming


def test_a_run_goes_on_in_its_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with watch(start(), path, architecture=MODEL, every=10, resume=True) as watcher:  # nothing to resume yet
        for _ in range(40):
            watcher.step(start())
    with path.open("ab") as stream:
        stream.write(b'{"step": 41, "ti')
    with watch(start(1), path, architecture=MODEL, every=10, resume=True) as again:
        for step in range(26, 51):  # from a checkpoint of step 25
            again.step(start(1), step=step)
    trace = read_trace(path)
    assert [r.step for r in trace.records] == [0, 10, 20, 26, 30, 40, 50] and trace.resumed == (40,)
    times = [r.time for r in trace.records]
    assert times == sorted(times) and trace.complete and not trace.torn
    with pytest.raises(InputError, match=r"'1.weight' has shape \(4, 2\) there and \(5, 2\) here"):
        watch(architecture=chain_architecture((2, 5, 1)), path=path, resume=True).step(
            {k: np.ones((5, 2) if k == "1.weight" else 5 if k == "1.bias" else (1, 5) if k == "2.weight" else 1)
             for k in start()}
        )  # fmt: skip
    assert read_trace(path).records == trace.records or len(read_trace(path).records) == len(trace.records)


def test_the_count_goes_on_without_given_steps(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for _ in range(2):
        with watch(start(), path, architecture=MODEL, every=10, resume=True) as watcher:
            for _ in range(20):
                watcher.step(start())
    assert [r.step for r in read_trace(path).records] == [0, 10, 20, 21, 30, 40]


def test_exponents_go_on_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for begin, end in ((0, 31), (31, 61)):
        with watch(architecture=MODEL, path=path, every=10, resume=True) as watcher:
            for step in range(begin, end):
                watcher.step(planted(step, 0.1), step=step)
    row = read_trace(path).records[-1].nearest[0]
    assert row["since"] == 0 and row["exponent"] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("started", [False, True])
def test_state_for_checkpoints_carries_exponents_and_predictions(started: bool) -> None:
    theta, rest = start(), 150
    with watch(theta, architecture=MODEL, every=10, drift_every=1) as whole:
        train(whole, theta, 2 * rest, rate=0.02)

    def continued(watcher: Watcher, theta: dict[str, Array], skip: int, steps: int) -> None:
        rng = np.random.default_rng(1)
        state = OptimiserState("gd", 0.02)
        for k in range(skip + steps):
            x = rng.standard_normal((16, 2))
            if k >= skip:
                g = gradients(theta, x, np.sin(x[:, :1]))
                for name in theta:
                    theta[name] = theta[name] - 0.02 * g[name]
                watcher.step(theta, gradients=g, optimizer=state)

    theta = start()
    with watch(theta, architecture=MODEL, every=10, drift_every=1) as first:
        continued(first, theta, 0, rest)
    begun = start(7) if started else None
    second = watch(begun, architecture=MODEL, every=10, drift_every=1)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    continued(second, theta, rest, rest)
    for name in ("laws/drift", "laws/predicted_drift", "sims/nearest_distance"):
        assert second.last[PREFIX + name] == pytest.approx(whole.last[PREFIX + name], rel=1e-9)


SCRIPT = """
import sys
import numpy as np
from fiberscope.training.architectures.chains import chain_architecture
from fiberscope.training.drift.rules import OptimiserState
from fiberscope.training.traces.watchers import watch

rng = np.random.default_rng(0)
model = chain_architecture((2, 4, 1), activation="relu", biases=False)
p = {"1.weight": rng.standard_normal((4, 2)), "2.weight": rng.standard_normal((1, 4))}
with watch(p, sys.argv[1], architecture=model, every=3, resume="resume" in sys.argv) as w:
    while True:
        x = rng.standard_normal((16, 2))
        z = x @ p["1.weight"].T
        h = np.maximum(z, 0)
        e = 2 * (h @ p["2.weight"].T - np.sin(x[:, :1])) / 16
        g = {"1.weight": ((e @ p["2.weight"]) * (z > 0)).T @ x, "2.weight": e.T @ h}
        p = {k: v - 0.01 * g[k] for k, v in p.items()}
        w.step(p, gradients=g, optimizer=OptimiserState("gd", 0.01), loss=float((e * e).mean()))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_kill_minus_nine_leaves_a_readable_trace_that_can_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    counts = [0]
    for arguments in ([], ["resume"]):
        lines = path.read_bytes().count(b"\n") if path.exists() else 0
        child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), *arguments])
        try:
            deadline = time.monotonic() + 60
            while (not path.exists() or path.read_bytes().count(b"\n") < lines + 12) and time.monotonic() < deadline:
                assert child.poll() is None
                time.sleep(0.01)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        trace = read_trace(path)
        steps = [r.step for r in trace.records]
        assert steps == sorted(set(steps)) and not trace.complete
        counts.append(len(steps))
        assert "not closed" in str(trace) and trace.series("laws/drift")[1].size >= len(steps) - 1
    assert len(trace.resumed) == 1 and counts[1] >= 9 and counts[2] >= counts[1] + 9


# ---- cost


def test_ten_thousand_steps_without_growth_of_memory(tmp_path: Path) -> None:
    theta = start()
    state = OptimiserState("gd", 0.01)
    with watch(theta, tmp_path / "run.jsonl", architecture=MODEL, every=100) as watcher:

        def run(steps: int) -> int:
            for _ in range(steps):
                watcher.step(theta, gradients=theta, optimizer=state)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        run(4000)  # windows of 32 measurements are full
        tracemalloc.start()
        try:
            first = run(1000)
            last = run(5000)
        finally:
            tracemalloc.stop()
    assert last - first < 20_000 and len(read_trace(watcher.path).records) == 101


def test_a_run_without_a_file_is_thinned() -> None:
    watcher = watch(start(), architecture=MODEL, every=1)
    watcher._recorder.journal._kept = [{"step": k, "time": 0.0, "scalars": {}} for k in range(2000)]
    watcher.measure_now(start(), step=3000)
    steps = [r.step for r in watcher.trace().records]
    assert len(steps) < 1100 and steps[0] == 0 and steps[-1] == 3000


def test_no_old_parameters_are_kept_alive() -> None:
    import weakref

    class Held(dict[str, Any]):
        pass

    watcher = watch(start(), architecture=MODEL, every=1)
    theta = Held(start())
    seen = weakref.ref(theta)
    watcher.step(theta, gradients=theta)
    del theta
    gc.collect()
    assert seen() is None


def test_overhead_is_what_was_spent() -> None:
    watcher = watch(start(), architecture=MODEL, every=1)
    before = watcher.spent
    watcher.step(start())
    assert 0 < before < watcher.spent and 0 < watcher.overhead <= 1


def test_residual_streams_are_followed() -> None:
    """A population with both roles in one tensor: its slices are rows and columns."""
    chain = chain_architecture((2, 3, 1), activation="relu", biases=False)
    square = replace(chain.slots[0], name="mix", shape=(3, 3), view=(3, 3), axes=(Axis("1", "in"), Axis("1", "out")))
    model = Architecture((*chain.slots, square), chain.populations)
    theta = {"1.weight": np.ones((3, 2)), "2.weight": np.ones((1, 3)), "mix": np.arange(9.0).reshape(3, 3)}
    (found,) = separations(model, theta, [Sim("1", "merge", (0, 2))])
    u, v = (slices(model, theta, "1", k) for k in (0, 2))
    assert found[0] == pytest.approx(float(np.linalg.norm(u - v)) / math.sqrt(2), rel=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 60))
def test_every_multiple_is_measured_once(first: int, every: int, count: int) -> None:
    watcher = watch(architecture=MODEL, every=every)
    theta = {name: np.ones(s) for name, s in ((s.name, s.shape) for s in MODEL.slots)}
    due = [s for s in range(first, first + count) if watcher.step(theta, step=s) is not None]
    assert due == [s for s in range(first, first + count) if s == first or s % every == 0]


class Looked(ArraySubject):
    """Counts the steps at which anything is read."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.reads = 0

    def gradients(self) -> Any:
        self.reads += 1
        return super().gradients()


def test_first_steps_are_looked_at_more_often() -> None:
    subject = Looked(start(), MODEL)
    with watch(subject, every=20) as watcher:
        before, seen = subject.reads, []
        for step in range(1, 45):
            watcher.step(start())
            if subject.reads > before:
                seen.append(step)
            before = subject.reads
        assert [r.step for r in watcher.trace().records] == [0, 20, 40]
        assert not watcher.problems
    assert seen == [1, 2, 4, 8, 16, 20, 40]


@pytest.mark.parametrize(("error", "said"), [(0.3, False), (0.01, True), (None, False)])
def test_a_drift_that_coarse_samples_may_explain_is_no_warning(error: float | None, said: bool) -> None:
    laws = ({"name": "a", "predicted": 0.6, "error": error}, {"name": "b", "predicted": 0.8, "error": 0.0})
    numbers = {"laws/drift": 0.6, "laws/predicted_drift": 0.8, "laws/ratio": 0.5}  # 0.5 + 2 * 0.3 / 1 > 0.75
    record = Record(10, 1.0, {PREFIX + name: value for name, value in numbers.items()}, laws=laws)
    with watch(start(), architecture=MODEL) as watcher:
        trace = replace(watcher.trace(), records=(record,))
    assert any("another rule" in text for text in trace.warnings) is said


# ---- wrong arguments, and what is said once


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "adam"}, "optimizer is 'adam'; expected the optimizer itself"),
        ({"optimiser": 3}, "optimizer is 3; expected"),
        ({"architecture": "x"}, "architecture is a str; expected an Architecture"),
        ({"domain": [0, 1]}, "domain is a list; expected a Box"),
        ({"domain": "[0,1"}, "is not a pair"),
        ({"path": 3}, "path is a int; give the file"),
        ({"subject": 3}, "subject 3 is a int; give what is trained"),
        ({"subject": "run.jsonl"}, r"the trace's file comes second: watch\(model, 'run.jsonl'\)"),
        ({"optimizer": OptimiserState("gd", 0.1), "optimiser": OptimiserState("gd", 0.1)}, "two spellings"),
    ],
)
def test_wrong_arguments_are_refused_at_opening(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        watch(**{"subject": start(), "architecture": MODEL, **options})


def test_both_spellings_of_the_optimiser_and_text_for_the_domain() -> None:
    theta = start()
    with watch(theta, architecture=MODEL, every=2, optimiser=OptimiserState("gd", 0.1), domain="[0,1]") as watcher:
        watcher.step(theta, gradients=theta, optimiser=OptimiserState("gd", 0.2))
        assert watcher.trace().optimizer["lr"] == 0.1 and watcher._recorder.journal.header["domain"] == "[0,1]"
        with pytest.raises(InputError, match="two spellings"):
            watcher.step(theta, optimizer=OptimiserState("gd", 0.2), optimiser=OptimiserState("gd", 0.2))


def test_without_an_optimiser_nothing_predicted_is_sent() -> None:
    theta, sent = start(), []
    with watch(theta, architecture=MODEL, every=1, loggers=[lambda scalars, step: sent.append(scalars)]) as watcher:
        watcher.step({name: value * 1.1 for name, value in theta.items()})
    names = {name.removeprefix(PREFIX + "laws/") for row in sent for name in row if "/laws/" in name}
    assert len(sent) == 2 and names == {"count", "drift"}
    assert "predicted" not in str(watcher.trace()).splitlines()[1] and "drift" in str(watcher.trace()).splitlines()[1]


class Troubled(ArraySubject):
    """Has problems from the start, and more later."""

    def gradients(self) -> Any:
        text = f"trouble {len(self._problems) // 2}"
        if text not in self._problems:
            self._problems.append(text)
        return None


@pytest.mark.parametrize("kept", [True, False])
def test_new_problems_of_a_subject_are_written_once(tmp_path: Path, kept: bool) -> None:
    theta = start()
    subject, path = Troubled(theta, MODEL), tmp_path / "run.jsonl" if kept else None
    with watch(subject, path, every=1) as watcher:
        for _ in range(6):
            watcher.step(theta)
    assert watcher.problems == ("trouble 0", "trouble 1") or watcher.problems == ("trouble 0",)
    found = watcher.trace().problems
    assert len(found) == len(watcher.problems) and found[0] == "step 1: trouble 0"
    if path is not None:
        assert path.read_text().count("trouble 0") == 1
        with watch(Troubled(theta, MODEL), path, every=1, resume=True) as again:
            again.step(theta)
        assert read_trace(path).problems[: len(found)] == found


def test_a_watcher_shows_the_first_line_of_its_trace() -> None:
    assert repr(watch()) == "<Watcher of a run: nothing measured yet>"
    with watch(start(), architecture=MODEL) as watcher:
        assert repr(watcher) == f"<Watcher of {str(watcher.trace()).splitlines()[0]}>"


def test_the_table_names_units_that_are_dead_for_every_input() -> None:
    assert "dead always" in str(watch(start(), architecture=MODEL).trace())


class Slow:
    """A clock that the test moves, and a measurement that takes as long as it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        measure = Observer.record

        def record(observer: Observer, *arguments: Any) -> Any:
            self.now += cost
            return measure(observer, *arguments)

        monkeypatch.setattr(Observer, "record", record)


@pytest.mark.parametrize(("every", "share"), [(None, None), (100, 0.01), (None, 0.05)])
def test_measurements_take_their_share_of_the_time_and_no_more(
    monkeypatch: pytest.MonkeyPatch, every: int | None, share: float | None
) -> None:
    cost = 0.05 if share in (None, 0.01) else 0.3
    clock = Slow(monkeypatch, cost=cost)
    theta = {"0.weight": np.eye(3), "1.weight": np.ones((1, 3))}
    kinds = architecture_of(theta, activation="relu")
    watcher = watch(theta, architecture=kinds, every=every, share=share)
    for _ in range(20_000):
        clock.now += 0.01  # a run of 200 seconds
        watcher.step(theta)
    steps = [record.step for record in watcher.trace().records]
    limit = max(0.2, (share or SHARE) * clock.now)
    assert limit - 2 * cost < cost * (len(steps) - 1) <= limit
    assert steps[:2] == [0, 100] and all(step % 100 == 0 for step in steps)
    assert any("put off" in note for note in watcher.notes)


def test_a_cadence_that_is_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Slow(monkeypatch, cost=5.0)
    theta = {"0.weight": np.eye(3), "1.weight": np.ones((1, 3))}
    watcher = watch(theta, architecture=architecture_of(theta, activation="relu"), every=10)
    for _ in range(100):
        clock.now += 0.001
        watcher.step(theta)
    assert [record.step for record in watcher.trace().records] == list(range(0, 101, 10))
    assert not any("put off" in note for note in watcher.notes)


@pytest.mark.parametrize("share", [0, -1, 2, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="share"):
        watch(None, share=share)
    theta = {"0.weight": np.eye(3), "1.weight": np.ones((1, 3))}
    watch(theta, architecture=architecture_of(theta, activation="relu"), share=np.float32(0.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": "often"}, "every, a number of steps: 'often'; give a whole number >= 1"),
        ({"drift_every": 0}, "drift_every, a number of steps: 0"),
        ({"share": "half"}, "share = 'half'"),
        ({"loggers": None}, "loggers is a NoneType; give a list"),
        ({"loggers": "runs"}, "loggers is a str; give a list"),
        ({"seed": "x"}, "seed 'x'"),
        ({"optimizer": []}, "optimizer is a list beside a mapping of arrays; expected an OptimiserState"),
    ],
)
def test_wrong_options_get_one_clear_line(options, words, tmp_path):
    net = Network.from_arrays(([[1.0, 2.0], [1.0, 2.0]], [0, 0]), ([[2.0, 1.0]], [0]), activation="tanh")
    with pytest.raises(InputError, match=words):
        watch(net, tmp_path / "run.jsonl", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [read_trace, trace_of_checkpoints])
def test_what_is_no_path_is_refused(call):
    with pytest.raises(InputError, match="is a int; give the f"):
        call(3)
