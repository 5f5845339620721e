"""Loggers: TensorBoard event files read back, W&B-style dictionaries, functions."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiberscope.errors import InputError
from fiberscope.training.architectures.chains import chain_architecture
from fiberscope.training.traces.loggers import DictLogger, Logger, TensorBoardLogger, logger_of
from fiberscope.training.traces.watchers import watch


class _Run:
    """Like a run of W&B: log(data, step=...), which refuses steps that go back."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, Any]]] = []

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        assert type(data) is dict and all(type(v) in (float, int) for v in data.values())
        if step is not None and self.rows and self.rows[-1][0] is not None:
            assert step > self.rows[-1][0]
        self.rows.append((step, data))


class _Writer:
    def __init__(self) -> None:
        self.rows: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.rows.append((tag, value, step))


def _watched(*targets: Any) -> None:
    theta = {"1.weight": np.array([[1.0], [2.0], [3.0]]), "2.weight": np.array([[2.0, 2.0, 5.0]])}
    found = chain_architecture((1, 3, 1), activation="relu", biases=False)
    with watch(theta, architecture=found, every=2, loggers=targets, data=np.ones((4, 1))) as watcher:
        for step in range(1, 5):
            watcher.step({k: v * (1 + 0.1 * step) for k, v in theta.items()}, loss=1.0)
        assert not watcher.problems


def _events(folder: Path) -> Any:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_a_wandb_like_run_gets_one_dictionary_for_each_measurement() -> None:
    run = _Run()
    _watched(run)
    assert [step for step, _ in run.rows] == [0, 2, 4]
    assert all(name.startswith("fiberscope/") and name.count("/") == 2 for _, row in run.rows for name in row)
    assert all(0 < len(row) <= 20 for _, row in run.rows)
    first, last = run.rows[0][1], run.rows[-1][1]
    name = "fiberscope/sims/nearest_distance"
    assert last[name] == pytest.approx(1.4 * first[name])


def test_dict_logger_keeps_the_step_inside_if_asked() -> None:
    run = _Run()
    log = DictLogger(run, step_key="fiberscope/step")
    log.log({"a": np.float32(1.5)}, np.int64(7))  # type: ignore[arg-type]
    assert run.rows == [(None, {"a": 1.5, "fiberscope/step": 7})]
    assert isinstance(log, Logger) and isinstance(run, Logger)


def test_what_stands_for_a_logger() -> None:
    assert isinstance(logger_of("runs"), TensorBoardLogger)
    assert isinstance(logger_of(_Writer()), TensorBoardLogger)
    assert isinstance(logger_of(_Run()), DictLogger)
    own = DictLogger(print)
    assert logger_of(own) is own
    for wrong in (7, None, object()):
        with pytest.raises(InputError, match="no logger"):
            logger_of(wrong)
    with pytest.raises(InputError, match="cannot be called"):
        DictLogger(3)
    with pytest.raises(InputError, match="add_scalar"):
        TensorBoardLogger(print)


def test_a_given_writer_is_used_and_left_open() -> None:
    writer = _Writer()
    log = TensorBoardLogger(writer)
    log.log({"x/y": 2, "x/z": 3.5}, 4)
    log.close()
    log.log({"x/y": 1.0}, 5)
    assert writer.rows == [("x/y", 2.0, 4), ("x/z", 3.5, 4), ("x/y", 1.0, 5)]


def test_event_files_are_read_back_by_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    _watched(tmp_path)
    found = _events(tmp_path)
    tags = found.Tags()["scalars"]
    assert 0 < len(tags) <= 20 and all(tag.startswith("fiberscope/") for tag in tags)
    rows = found.Scalars("fiberscope/sims/nearest_distance")
    assert [row.step for row in rows] == [0, 2, 4]
    assert rows[-1].value == pytest.approx(1.4 * rows[0].value, rel=1e-6)
    assert len(list(tmp_path.iterdir())) == 1


def test_scalars_are_on_disk_before_the_file_is_closed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    log = TensorBoardLogger(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing before the first scalar
    log.log({}, 1)
    assert not list(tmp_path.iterdir())
    log.log({"a/b": 0.25}, 3)
    assert [(r.step, r.value) for r in _events(tmp_path).Scalars("a/b")] == [(3, 0.25)]
    for twin in (copy.deepcopy(log), pickle.loads(pickle.dumps(log))):
        assert twin._writer is None and twin._folder == str(tmp_path)
    log.close()
    log.close()


def test_torch_summary_writer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    boards = pytest.importorskip("torch.utils.tensorboard", reason="torch is not installed")
    with boards.SummaryWriter(str(tmp_path)) as writer:
        TensorBoardLogger(writer).log({"a/b": 1.5}, 2)
    assert [(r.step, r.value) for r in _events(tmp_path).Scalars("a/b")] == [(2, 1.5)]
