"""`fiberscope watch` and `fiberscope lint-init` as they are run."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import fiberscope as fs
from fiberscope.cli import program
from fiberscope.cli.training import OPTIMISERS
from fiberscope.invariants.dynamics.keeping import RULES

jsonschema = pytest.importorskip("jsonschema")
SCHEMAS = Path(fs.__file__).parent / "schemas"


def called(*argv: Any) -> tuple[int, str]:
    done = CliRunner().invoke(program, [str(word) for word in argv], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.stdout


def checked(command: str, text: str) -> dict[str, Any]:
    data = json.loads(text)
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{command}.json").read_text())).validate(data)
    return data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A trace of five steps, two equal neurons in it."""
    rng = np.random.default_rng(0)
    theta = {"0.weight": rng.normal(size=(4, 3)), "0.bias": np.zeros(4), "1.weight": rng.normal(size=(2, 4))}
    theta["0.weight"][1], theta["1.weight"][:, 1] = theta["0.weight"][0], theta["1.weight"][:, 0]
    kinds = fs.training.architecture_of(theta, activation="relu")
    path = tmp_path / "run.jsonl"
    with fs.watch(theta, path, architecture=kinds, every=1) as watcher:
        for step in range(5):
            theta = {name: 0.99 * value for name, value in theta.items()}
            watcher.step(theta, loss=1.0 / (step + 1))
        watcher.close(theta)
    return path


def test_watch_prints_one_screen(run: Path) -> None:
    code, text = called("watch", run, "--print")
    assert code == 0 and "steps 0 to 5; 4 neurons in 1 population" in text
    assert "neurons 0 and 1 of layer '0' move together" in text


def test_watch_json_holds_every_measurement_and_fits_its_schema(run: Path) -> None:
    data = checked("watch", called("watch", run, "--json")[1])
    assert [row["step"] for row in data["records"]] == [0, 1, 2, 3, 4, 5] and data["complete"]
    assert data["records"][3]["scalars"]["fiberscope/sims/classes_exact"] == 3
    assert data["records"][3]["scalars"]["loss"] == pytest.approx(1 / 3)


def test_watch_reads_a_folder_of_checkpoints(tmp_path: Path) -> None:
    for step in (20, 100, 3):
        net = fs.Network.random((3, 4, 2), activation="tanh", seed=step)
        fs.save(net, tmp_path / f"step-{step}.safetensors")
    (tmp_path / "step-200.safetensors").write_bytes(b"no such thing")
    data = checked("watch", called("watch", tmp_path, "--json", "--activation", "tanh")[1])
    assert [row["step"] for row in data["records"]] == [3, 20, 100]
    assert [row["name"] for row in data["skipped"]] == ["step-200.safetensors"]


def test_watch_of_a_folder_of_traces_names_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(fs.errors.InputError, match=re.escape(f"give its file, such as {run}")):
        called("watch", tmp_path, "--print")
    (tmp_path / "empty").mkdir()
    with pytest.raises(fs.errors.InputError, match="no checkpoints; looked for"):
        called("watch", tmp_path / "empty", "--print")


def test_watch_writes_a_page_of_the_run(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    code, text = called("watch", run, "--html", page)
    assert code == 0 and "steps 0 to 5" in text and "Nearest manifolds now" in page.read_text(encoding="utf-8")


def test_watch_says_which_port_is_taken(run: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(fs.errors.InputError, match=f"port {held.getsockname()[1]} of 127.0.0.1 cannot be used"):
            called("watch", run, "--port", held.getsockname()[1])


@pytest.mark.parametrize("text", ["", "{}\n", "not json\n", '{"schema": "fiberscope/trace/9"}\n'])
def test_watch_refuses_what_is_no_trace(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(fs.errors.InputError, match="run.jsonl"):
        called("watch", path, "--print")


def test_watch_serves_until_interrupted(run: Path) -> None:
    command = [sys.executable, "-u", "-m", "fiberscope", "watch", str(run)]
    source = str(Path(fs.__file__).parent.parent)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
    )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=20) as answer:
            assert "Invariant manifolds" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A start with two equal neurons."""
    w, v = np.array([[1.0, 2.0], [1.0, 2.0], [0.5, -1.0]]), np.array([[1.0, 1.0, 3.0]])
    path = tmp_path / "start.safetensors"
    fs.save(fs.Network.from_arrays((w, [0.1, 0.1, 0.2]), (v, [0.0]), activation="tanh"), path)
    return path


def test_lint_init_says_where_and_frees(start: Path, tmp_path: Path) -> None:
    free = tmp_path / "free.safetensors"
    code, text = called("lint-init", start, "--fail-on", "trapped", "-o", free)
    assert code == 1 and "FS101" in text and f"wrote {free}" in text
    before, after = fs.load(start), fs.load(free)
    x = np.random.default_rng(0).normal(size=(9, 2))
    assert np.allclose(before(x), after(x), atol=1e-12)
    assert called("lint-init", free, "--fail-on", "trapped")[0] == 0
    with pytest.raises(fs.errors.InputError, match="not trapped"):
        called("lint-init", free, "-o", tmp_path / "more.safetensors")


@pytest.mark.parametrize("rule", OPTIMISERS)
def test_lint_init_json_fits_its_schema_for_every_rule(start: Path, rule: str) -> None:
    data = checked("lint-init", called("lint-init", start, "--json", "--optimiser", rule)[1])
    assert data["trapped"] and data["effective_widths"] == {name: 2 for name in data["widths"]}
    assert data["dimension"] == 9 and data["parameters"] == 13


def test_optimisers_offered_are_those_that_are_known() -> None:
    assert set(OPTIMISERS) == set(RULES)
