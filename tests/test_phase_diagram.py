"""Phase diagrams: known outcomes, cells that stand for themselves, resuming, and workers that die."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiberscope.errors import InputError
from fiberscope.invariants.recovery.ladders.stiffflow import flow
from fiberscope.invariants.recovery.phases import diagrams as phasediagrams
from fiberscope.invariants.recovery.phases.diagrams import Plan, phase_diagram, run_cell
from fiberscope.invariants.recovery.phases.tables import PhaseCell, PhaseDiagram
from fiberscope.network import Network
from fiberscope.results import Budget

ONE = Network.from_arrays(([[1.0]], [0.5]), ([[1.0]], [0.0]), activation="tanh")
W3 = [[0.6, 0.8, 1, 0, 0], [0, 0.6, 0.8, 1, 0], [0, 0, 0.6, 0.8, 1]]
THREE = Network.from_arrays((W3, None), ([[1.0, 1, 1]], None), activation="tanh")
SMALL: dict[str, Any] = {"samples": [2, 4, 8], "widths": [1, 2], "scales": [1e-6, 0.5], "seeds": 2}


@pytest.fixture(scope="module")
def undisturbed() -> PhaseDiagram:
    return phase_diagram(ONE, **SMALL)


def test_one_neuron_is_found_from_enough_samples_only(undisturbed: PhaseDiagram) -> None:
    """M = 3 > 2 samples: the data are interpolated, the target is not found; 8 samples determine it."""
    assert undisturbed.complete and undisturbed.optimistic == 3 and undisturbed.optimistic_exact
    row = undisturbed.grid(1e-6)[0]
    assert row[0] == 0.0 and row[2] == 1.0
    assert undisturbed.grid(1e-6, "interpolating")[0].tolist() == [1.0, 1.0, 1.0]
    assert undisturbed.grid(1e-6, "median_error")[0, 0] > 1e-6 > 1e-12 > undisturbed.grid(1e-6, "median_error")[0, 2]
    assert undisturbed.threshold(1, 1e-6, 1.0) in (4, 8)
    assert undisturbed.parameters == {1: 3, 2: 6} and undisturbed.scales == (1e-6, 0.5)
    text = str(undisturbed)
    assert "O_f 3" in text and "m = 2, M = 6" in text and "1.00" in text


def test_a_cell_is_the_flow_of_each_seed_alone() -> None:
    plan = Plan(THREE, tests=50)
    cell = {"samples": 12, "width": 3, "scale": 0.3, "seeds": [4, 7]}
    both = run_cell(cell, plan)
    for k, seed in enumerate(cell["seeds"]):  # type: ignore[arg-type]
        rng = np.random.default_rng([1, seed])
        x = rng.standard_normal((12, 5))
        own = plan.landscape(3, 12, [seed])
        np.testing.assert_array_equal(own.x[0], x)
        np.testing.assert_allclose(own.y[0, :, 0], np.tanh(x @ np.array(W3).T).sum(axis=1))
        end = flow(own, 0.3 * np.random.default_rng(seed).standard_normal((1, 21)), rtol=plan.rtol)
        test_x, _ = plan.test_set()
        error = np.mean((end.network(0)(test_x)[:, 0] - np.tanh(test_x @ np.array(W3).T).sum(axis=1)) ** 2)
        assert both["test"][k] == pytest.approx(error, rel=1e-3)
        assert both["steps"][k] == pytest.approx(end.steps[0], abs=2) and both["reasons"][k] == end.reasons[0]


def test_seeds_fix_data_and_starts() -> None:
    plan = Plan(THREE, inputs="uniform")
    few, many = plan.landscape(3, 6, [1, 2]), plan.landscape(9, 10, [2, 1])
    np.testing.assert_array_equal(few.x, many.x[::-1, :6])
    assert abs(many.x).max() <= 1 and few.size == plan.parameters(3) == 21 and many.size == 63
    x, y = plan.test_set()
    assert x.shape == (1000, 5) and not np.isin(x, plan.landscape(3, 6, range(5)).x).any()
    np.testing.assert_allclose(y[:, 0], np.tanh(x @ np.array(W3).T).sum(axis=1))
    assert Plan(ONE, output_bias=True, bias=False).parameters(4) == 9


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, undisturbed: PhaseDiagram) -> None:
    path = tmp_path / "run.jsonl"
    first = phase_diagram(ONE, **SMALL, path=path, budget=Budget(cells=5))
    assert not first.complete and len(first.cells) == 5 and "budget" in first.reason and "5 of 12" in str(first)
    assert np.isnan(first.grid(0.5)).all() and not np.isnan(first.grid(1e-6)).all()
    assert first.to_dict()["grids"][1]["fraction"] == [[None] * 3] * 2
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])  # killed while it wrote
    done = phase_diagram(ONE, **SMALL, path=path)
    assert done.complete and done.to_frame(runs=True) == undisturbed.to_frame(runs=True)
    lines = path.read_bytes().count(b"\n")
    again = phase_diagram(ONE, **SMALL, path=path, budget=0)
    assert again.complete and again.to_dict() == undisturbed.to_dict() and path.read_bytes().count(b"\n") == lines
    with pytest.raises(InputError, match="another task"):
        phase_diagram(ONE, **SMALL, path=path, inputs="uniform")
    with pytest.raises(InputError, match="another task"):
        phase_diagram(THREE, **SMALL, path=path)


def test_failed_cells_are_named_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(landscape: Any, start: Any, **options: Any) -> Any:
        if landscape.points == 4:
            raise MemoryError("full")
        return flow(landscape, start, **options)

    path, options = tmp_path / "run", {"samples": [3, 4], "widths": [1], "seeds": 1, "path": tmp_path / "run"}
    monkeypatch.setattr(phasediagrams, "flow", fragile)
    bad = phase_diagram(ONE, **options)
    assert not bad.complete and len(bad.cells) == 1 and "MemoryError: full" in bad.failed[0] and "failed" in str(bad)
    monkeypatch.undo()
    good = phase_diagram(ONE, **options)
    assert good.complete and not good.failed and len(good.cells) == 2 and path.exists()


def test_frames_and_files(tmp_path: Path, undisturbed: PhaseDiagram) -> None:
    cells, runs = undisturbed.to_frame(), undisturbed.to_frame(runs=True)
    assert {len(column) for column in cells.values()} == {12} and {len(column) for column in runs.values()} == {24}
    assert runs["seed"] == [0, 1] * 12 and cells["seeds"] == [2] * 12
    for k in range(12):
        found = runs["test_error"][2 * k : 2 * k + 2]
        assert cells["fraction"][k] == np.mean(np.array(found) < 1e-6)
        assert cells["median_error"][k] == pytest.approx(np.median(found))
    undisturbed.to_csv(tmp_path / "runs.csv", runs=True)
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test_error"]) for row in rows] == runs["test_error"] and rows[0].keys() == runs.keys()
    with pytest.raises(InputError, match="cannot be written"):
        undisturbed.to_csv(tmp_path / "missing" / "runs.csv")
    json.dumps(undisturbed.to_dict(), allow_nan=False)


def made(values: dict[int, float | None]) -> PhaseDiagram:
    """A diagram of one width whose cells have given shares of recovered runs, of four; None: not finished."""
    cells = []
    for n, share in values.items():
        if share is not None:
            good = round(4 * share)
            test = (1e-9,) * good + (1.0,) * (4 - good)
            cells.append(PhaseCell(n, 1, 0.1, (0.0,) * 4, test, (5,) * 4, (0,) * 4, None, ("floor",) * 4, 1e-6, 1e-18))
    return PhaseDiagram(
        target="t", digest="", activation="tanh", samples=tuple(values), widths=(1,), scales=(0.1,), seeds=(0, 1, 2, 3),
        recovered=1e-6, cells=tuple(cells), complete=False, reason="", failed=(), optimistic=None,
        optimistic_exact=False, parameters={1: 3},
    )  # fmt: skip


def test_thresholds() -> None:
    assert made({1: 0.0, 2: 0.5, 3: 0.25, 4: 0.75, 5: 1.0}).threshold(1) == 4
    assert made({1: 0.0, 2: 0.5, 3: None, 4: 0.75}).threshold(1) == 2
    assert made({1: 1.0, 2: 0.0}).threshold(1) is None and made({1: None}).threshold(1) is None
    assert made({1: 0.5, 2: 1.0}).threshold(1, share=1.0) == 2
    with pytest.raises(InputError, match="width 2"):
        made({1: 0.5}).threshold(2)
    with pytest.raises(InputError, match="scale 3"):
        made({1: 0.5}).grid(3.0)
    with pytest.raises(InputError, match="median_loss"):
        made({1: 0.5}).grid(0.1, "loss")


def test_what_is_said_of_the_target() -> None:
    options: dict[str, Any] = {"samples": [2], "seeds": 1, "steps": 1}
    three = phase_diagram(THREE, widths=[2, 40], **options)
    assert three.optimistic == 21 and "optimistic-size" in three.theorems
    assert three.notes[0].startswith("widths 2 cannot express the target, which needs 3")
    assert three.notes[1].startswith("explicit flow for M > 250: widths 40")
    other = phase_diagram(THREE, widths=[2], activation="sigmoid", **options)
    assert other.optimistic is None and "two-layer sigmoid targets only" in other.notes[0]
    shifted = Network.from_arrays(([[1.0]], [0.5]), ([[1.0]], [1.0]), activation="tanh")
    assert "output bias" in phase_diagram(shifted, widths=[2], **options).notes[0]
    assert phase_diagram(shifted, widths=[2], output_bias=True, **options).optimistic == 4
    several = Network.random((2, 3, 3, 2), activation="relu", seed=0)
    assert phase_diagram(several, widths=[2], **options).complete


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": []}, "samples"),
        ({"samples": [0]}, "samples"),
        ({"widths": [0]}, "widths"),
        ({"scales": []}, "scales"),
        ({"scales": [0.0]}, "scales"),
        ({"seeds": []}, "seed"),
        ({"seeds": 0}, "seed"),
        ({"seeds": [-1]}, "seed"),
        ({"seeds": [1, 1]}, "twice"),
        ({"recovered": 0.0}, "test error"),
        ({"inputs": "cauchy"}, "cauchy"),
        ({"tests": 0}, "test point"),
        ({"floor": 0.0}, "floor"),
        ({"rtol": -1.0}, "rtol"),
        ({"rtol": 0}, "rtol"),
        ({"rtol": float("nan")}, "rtol"),
        ({"cap": -1.0}, "cap"),
        ({"cap": 0}, "cap"),
        ({"steps": -3}, "steps"),
        ({"steps": 0}, "steps"),
        ({"samples": [2.7]}, "samples"),
        ({"samples": [float("inf")]}, "samples"),
        ({"widths": (1.9,)}, "widths"),
        ({"seeds": [1.5]}, "seeds"),
        ({"activation": "nope"}, "nope"),
    ],
)
def test_refusals(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        phase_diagram(ONE, **{**SMALL, **options})


@pytest.mark.slow
def test_worker_processes_give_the_same_table(tmp_path: Path, undisturbed: PhaseDiagram) -> None:
    found = phase_diagram(ONE, **SMALL, workers=2, path=tmp_path / "run")
    assert found.complete and found.to_frame(runs=True) == undisturbed.to_frame(runs=True)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    options: dict[str, Any] = {"samples": [8, 12, 16, 24, 32], "widths": [3, 6], "scales": [1e-6], "seeds": 3}
    path, killed = tmp_path / "run.jsonl", threading.Event()
    quiet = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**quiet) as cluster, distributed.Client(cluster) as client:
        calm = phase_diagram(THREE, **options, client=client)
        victim = client.run(os.getpid)

        def kill() -> None:  # once some cells are finished and others are under way
            while not path.exists() or path.read_bytes().count(b"\n") < 3:
                time.sleep(0.01)
            os.kill(sorted(victim.values())[0], signal.SIGKILL)
            killed.set()

        thread = threading.Thread(target=kill)
        thread.start()
        found = phase_diagram(THREE, **options, client=cluster.scheduler_address, path=path)
        thread.join()
        alive = set(client.run(os.getpid).values())
    assert killed.is_set() and not set(victim.values()) <= alive
    assert found.complete and not found.failed
    assert found.to_frame(runs=True) == calm.to_frame(runs=True)
    assert phase_diagram(THREE, **options, path=path, budget=0).to_dict() == found.to_dict()


@pytest.mark.slow
def test_the_diagram_of_the_theory_page() -> None:
    """m = 9, M = 63, O_f = 21: from tiny weights recovery begins well below M, from unit weights later."""
    found = phase_diagram(THREE, samples=[24, 40, 63], widths=[9], scales=[1e-10, 1.0], seeds=8)
    tiny, unit = found.grid(1e-10)[0], found.grid(1.0)[0]
    assert tiny[0] == 0.0 and 0.35 <= tiny[1] <= 0.9 and tiny[2] >= 0.85
    assert unit[:2].max() <= 0.25 and unit[2] < tiny[2]
