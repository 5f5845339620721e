"""Resumable runs: no cell is lost, none is computed twice, whatever ends a run."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiberscope.errors import InputError, MissingDependencyError
from fiberscope.results import Budget
from fiberscope.sweeps import SCHEMA, Cell, Record, Sweep, sweep

KEYS = ["a", "bb", "ccc", "dddd"]


def size(text: str) -> int:
    return len(text)


def power(payload: dict[str, int], exponent: int = 2) -> int:
    return payload["x"] ** exponent


def fragile(payload: int) -> float:
    return 1 / payload


def deadly(payload: int) -> int:
    if payload == 3:
        os._exit(1)
    return payload


class Counted:
    """Remembers what it was called with; stops the run after some calls."""

    def __init__(self, stop: int | None = None) -> None:
        self.calls: list[Any] = []
        self.stop = stop

    def __call__(self, payload: Any) -> Any:
        if self.stop is not None and len(self.calls) >= self.stop:
            raise KeyboardInterrupt
        self.calls.append(payload)
        return {"size": len(str(payload))}


def values(run: Sweep) -> list[Any]:
    return [record.value for record in run]


def test_records_have_the_order_of_the_cells_and_survive_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    run = sweep(size, KEYS, path=path)
    assert list(run) == [Record(key, len(key)) for key in KEYS]
    assert (run.complete, run.cells, run.finished, run.computed, run.failed) == (True, 4, 4, 4, 0)
    header, *lines = path.read_text().splitlines()
    assert json.loads(header)["schema"] == SCHEMA
    assert json.loads(header)["task"] == {"function": f"{__name__}:size", "arguments": [], "keywords": {}}
    assert [json.loads(line) for line in lines] == [{"key": key, "value": len(key)} for key in KEYS]
    again = sweep(size, reversed(KEYS), path=path)
    assert list(again) == [Record(key, len(key)) for key in reversed(KEYS)] and again.computed == 0


def test_kinds_of_cells() -> None:
    assert values(sweep(power, [{"x": 3}, {"x": 2}])) == [9, 4]
    assert values(sweep(fragile, [Cell("half", 2)])) == [0.5]
    assert [record.key for record in sweep(str, [{"b": 1, "a": None}])] == ['{"a":null,"b":1}']
    assert values(sweep(size, (key for key in KEYS))) == [1, 2, 3, 4]
    assert values(sweep(lambda x: Fraction(1, 3), ["x"])) == [{"exact": "1/3", "float": 1 / 3}]


def test_values_are_the_same_in_memory_and_in_a_file(tmp_path: Path) -> None:
    def odd(payload: str) -> Any:
        return (1, 2.5, float("inf"), {3: payload}, None)

    cells = ["plain", "snow ☃", 'quote" back\\slash \n', "lone \udcff surrogate"]
    memory = list(sweep(odd, cells))
    assert memory == list(sweep(odd, cells, path=tmp_path / "run", task="odd"))
    assert memory[1] == Record(cells[1], [1, 2.5, "inf", {"3": cells[1]}, None])


def test_a_key_twice_is_computed_once() -> None:
    counted = Counted()
    run = sweep(counted, ["a", "b", "a"])
    assert counted.calls == ["a", "b"]
    assert [record.key for record in run] == ["a", "b", "a"] and (run.cells, run.complete) == (2, True)


def test_a_crash_at_any_byte_costs_only_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "run"
    sweep(Counted(), KEYS, path=path, task=1)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        # a record that lacks only its newline is whole
        finished = sum(end - 1 <= cut for end in ends[1:])
        counted = Counted()
        run = sweep(counted, KEYS, path=path, task=1)
        assert counted.calls == KEYS[finished:], cut
        assert values(run) == [{"size": len(key)} for key in KEYS] and run.complete
        counted = Counted()
        assert values(sweep(counted, KEYS, path=path, task=1)) == values(run) and not counted.calls


@given(noise=st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=12)), max_size=3))
def test_noise_between_lines_is_no_record(tmp_path_factory: pytest.TempPathFactory, noise: list[Any]) -> None:
    path = tmp_path_factory.mktemp("noise") / "run"
    sweep(size, KEYS, path=path)
    lines = path.read_bytes().splitlines(keepends=True)
    for place, data in noise:
        lines.insert(1 + place, data.replace(b"\n", b"") + b"\n")
    path.write_bytes(b"".join(lines))
    run = sweep(size, KEYS, path=path)
    assert values(run) == [1, 2, 3, 4] and run.computed == 0


def test_lines_that_only_look_like_records(tmp_path: Path) -> None:
    path = tmp_path / "run"
    sweep(size, KEYS[:1], path=path)
    with path.open("ab") as file:
        for fake in ({"key": "bb"}, {"key": 7, "value": 1}, {"key": "bb", "value": 1, "error": ""}, ["bb"]):
            file.write(json.dumps(fake).encode() + b"\n")
        file.write(b"[" * 100_000 + b"\n")
    run = sweep(size, KEYS, path=path)
    assert values(run) == [1, 2, 3, 4] and run.computed == 3


def test_another_task_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    cubes = sweep(functools.partial(power, exponent=3), [{"x": 2}], path=path)
    before = path.read_bytes()
    assert values(cubes) == [8]
    for function, task in ((power, None), (size, None), (power, {"version": 2})):
        with pytest.raises(InputError, match="another task.*exponent.*give another path"):
            sweep(function, [{"x": 2}], path=path, task=task)
    assert path.read_bytes() == before
    assert sweep(functools.partial(power, exponent=3), [{"x": 2}], path=path).computed == 0


@pytest.mark.parametrize(
    "content", [b"x", b"{}\n", b"[]\n", b"key,value\n1,2\n", b'{"schema": "other/1"}\n', b"\x00" * 99]
)
def test_a_foreign_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not the file of a run"):
        sweep(size, KEYS, path=path)
    assert path.read_bytes() == content


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        sweep(size, KEYS, path=tmp_path / "missing" / "run")
    with pytest.raises(InputError, match="give task="):
        sweep(lambda x: x, KEYS, path=tmp_path / "run")
    with pytest.raises(InputError, match="give task="):
        sweep(functools.partial(power, exponent=Fraction(2)), KEYS, path=tmp_path / "run")
    with pytest.raises(InputError, match="workers .*: 0"):
        sweep(size, KEYS, workers=0)
    with pytest.raises(InputError, match="both"):
        sweep(size, KEYS, workers=1, client=object())
    for cells in ("abc", {"x": 1}):
        with pytest.raises(InputError, match="give a list"):
            sweep(size, cells)
    for cell in (3, ("key", 1), Cell(3, 4), {"x": Fraction(1)}):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="a cell is"):
            sweep(size, [cell])  # type: ignore[list-item]


def test_errors_are_recorded_and_do_not_stop_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "run"
    cells = [Cell(str(x), x) for x in (2, 0, 4)]
    run = sweep(fragile, cells, path=path)
    assert values(run) == [0.5, None, 0.25] and run.complete and run.failed == 1
    assert [record.error for record in run] == [None, "ZeroDivisionError: division by zero", None]
    assert sweep(fragile, cells, path=path).computed == 0
    cells[1] = Cell("0", 8)
    retried = sweep(fragile, [*cells, cells[1]], path=path, retry=True)
    assert values(retried) == [0.5, 0.125, 0.25, 0.125]
    assert (retried.computed, retried.failed) == (1, 0)
    assert sweep(fragile, cells, path=path).failed == 0


def test_a_value_that_is_no_data_and_an_exit_are_errors() -> None:
    def leave(payload: str) -> Any:
        if payload == "exit":
            sys.exit(4)
        return 10**5000

    first, second = sweep(leave, ["exit", "huge"])
    assert first.error == "SystemExit: 4" and (second.error or "").startswith("ValueError: Exceeds the limit")


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = sweep(Counted(stop=2), KEYS, path=path, task="t")
    assert (run.complete, run.reason, run.finished) == (False, "interrupted", 2)
    assert values(run) == [{"size": 1}, {"size": 2}]
    assert "2 of 3 cells finished" in str(run) and "interrupted" in str(run)
    counted = Counted()
    assert sweep(counted, KEYS, path=path, task="t").complete and counted.calls == KEYS[2:]


def test_a_spent_budget_keeps_what_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "run"
    none = sweep(size, KEYS, path=path, budget=0)
    assert (none.complete, none.finished, none.reason) == (False, 0, "the budget is spent")
    assert not sweep(size, [KEYS[3]], path=path).failed
    part = sweep(size, KEYS, path=path, budget=Budget(cells=2))
    assert not part.complete and values(part) == [1, 2, 4] and part.computed == 2
    rest = sweep(size, iter(KEYS), path=path, budget=Budget(cells=1))
    assert rest.complete and rest.reason == "" and values(rest) == [1, 2, 3, 4]
    assert sweep(size, KEYS, path=path, budget=0).complete


def test_a_generator_is_not_consumed_past_the_end_of_the_budget() -> None:
    taken: list[int] = []

    def cells() -> Any:
        for x in range(100):
            taken.append(x)
            yield Cell(str(x), x)

    run = sweep(str, cells(), budget=Budget(cells=5))
    assert len(taken) == 6 and run.finished == 5 and not run.complete


def test_an_interrupt_between_cells_is_not_the_end() -> None:
    def cells() -> Any:
        yield "a"
        raise KeyboardInterrupt

    run = sweep(size, cells())
    assert (run.complete, run.finished, run.reason) == (False, 1, "interrupted")


def test_progress_ends_at_one() -> None:
    seen: list[tuple[float | None, str]] = []
    sweep(size, KEYS, progress=lambda fraction, text: seen.append((fraction, text)))
    assert seen[-1] == (1.0, "4 of 4 cells") and seen[0][0] == 0.25
    sweep(size, iter(KEYS), progress=lambda fraction, text: seen.append((fraction, text)))
    assert seen[-1] == (None, "4 cells")


def test_two_runs_on_one_file_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "run"

    def nested(_: str) -> int:
        return sweep(size, KEYS, path=path, task="t").finished

    (record,) = sweep(nested, ["x"], path=path, task="t")
    assert record.error is not None and "another run is writing" in record.error
    assert sweep(size, KEYS, path=path, task="t").complete


def test_a_file_changed_after_the_run_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = sweep(size, list("abc"), path=path)
    header, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + b"".join(reversed(lines)))
    with pytest.raises(InputError, match="was changed"):
        list(run)


def test_worker_processes_agree_with_this_process_and_outlive_a_death(tmp_path: Path) -> None:
    cells = [Cell(str(x), x) for x in range(12)]
    run = sweep(deadly, cells, path=tmp_path / "run", workers=2)
    assert run.complete and run.failed == 1
    assert values(run) == [x if x != 3 else None for x in range(12)]
    assert "BrokenProcessPool" in (list(run)[3].error or "")
    rest = [cell for cell in cells if cell.payload != 3]
    assert list(sweep(deadly, rest)) == [record for record in run if record.error is None]


def test_workers_refuse_what_does_not_arrive() -> None:
    with pytest.raises(InputError, match="top level of a module"):
        sweep(lambda x: x, KEYS, workers=1)


def test_payloads_that_do_not_arrive_are_errors() -> None:
    cells = [Cell("lock", threading.Lock()), Cell("one", 1), Cell("one", 1)]
    run = sweep(str, cells, workers=1)
    first, second, third = run
    assert run.computed == 2 and second == third
    assert "cannot pickle" in (first.error or "") and second.value == "1"


def waiting(folder: str) -> int:
    """The first cell interrupts the main process."""
    if folder.endswith("first"):
        os.kill(multiprocessing.parent_process().pid, signal.SIGINT)  # type: ignore[union-attr]
    return 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_with_worker_processes(tmp_path: Path) -> None:
    cells = ["first", *(f"cell {i}" for i in range(500))]
    run = sweep(waiting, cells, path=tmp_path / "run", workers=1)
    assert not run.complete and run.reason == "interrupted" and run.finished < 501
    rest = sweep(size, cells, path=tmp_path / "run", task=run_task(tmp_path / "run"))
    assert rest.complete and rest.computed == 501 - run.finished


def run_task(path: Path) -> Any:
    return json.loads(path.read_bytes().splitlines()[0])["task"]


def test_a_killed_process_leaves_a_file_to_resume(tmp_path: Path) -> None:
    path = tmp_path / "run"
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom fiberscope.sweeps import sweep\n"
        "def f(x):\n    if x == 'c': os._exit(9)\n    return x\n"
        "sweep(f, ['a', 'b', 'c', 'd'], path=sys.argv[1], task='t')\n"
    )
    source = str(Path(__file__).parent.parent / "src")
    done = subprocess.run([sys.executable, str(script), str(path)], env={**os.environ, "PYTHONPATH": source})
    assert done.returncode == 9
    counted = Counted()
    assert sweep(counted, list("abcd"), path=path, task="t").complete and counted.calls == ["c", "d"]


def test_an_address_needs_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"fiberscope\[cluster\]"):
        sweep(size, KEYS, client="tcp://127.0.0.1:1")


def test_a_dask_cluster_agrees_with_this_process(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    cells = [Cell(str(x), x) for x in range(60)]
    quiet = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**quiet) as cluster, distributed.Client(cluster) as client:
        run = sweep(fragile, cells, path=tmp_path / "run", client=client)
        assert list(run) == list(sweep(fragile, cells)) and run.failed == 1 and run.complete
        by_address = sweep(lambda x: x, KEYS, client=cluster.scheduler_address)
        assert values(by_address) == KEYS
        part = sweep(fragile, cells, client=client, budget=Budget(cells=7))
        assert not part.complete and part.finished == 7
        with pytest.raises(InputError, match="cannot run"):
            sweep(Unloadable(), KEYS, client=client)


class Unloadable:
    def __call__(self, payload: Any) -> Any:
        return payload

    def __reduce__(self) -> Any:
        return (fragile, (0,))


@pytest.mark.parametrize("options", [
    {"function": None}, {"function": "size"}, {"cells": None}, {"cells": 3}, {"workers": 1.5}, {"workers": "2"},
    {"workers": True}, {"workers": 0}, {"path": 3}, {"path": True}, {"client": 3}, {"budget": -1},
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused_before_anything_runs(options: dict[str, Any]) -> None:
    ran: list[str] = []
    arguments: dict[str, Any] = {"function": ran.append, "cells": ["a"], "task": "none", **options}
    with pytest.raises(InputError, match=next(iter(options))):
        sweep(arguments.pop("function"), arguments.pop("cells"), **arguments)
    assert not ran
