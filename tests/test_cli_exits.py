"""Exit codes of every command: done or yes, no, undecided, bad input; and what they all refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fiberscope as fs
from fiberscope.cli import program, run
from fiberscope.cli.group import QUESTIONS, leaves
from fiberscope.cli.running import in_options

ANGLE = "--dimension 3 --subspace 1 --until 1 --outputs 1 --nodes 4"
TABLE = {
    "inspect": {0: "twin.npz", 1: "twin.npz --fail-on redundant", 2: "gone.npz"},
    "reduce": {0: "twin.npz", 2: "torn.onnx"},
    "check": {0: "proof.json twin.npz swapped.npz", 1: "proof.json twin.npz other.npz",
              2: "twin.npz twin.npz twin.npz"},
    "equal": {0: "twin.npz swapped.npz", 1: "twin.npz other.npz", 2: "twin.npz tanh.npz --domain [1,0]",
              3: "bent.npz straight.npz --budget 0"},
    "distance": {0: "twin.npz other.npz --domain [0,1] --below 100",
                 1: "twin.npz other.npz --domain [0,1] --below 1e-6",
                 2: "twin.npz other.npz --below nan",
                 3: "bent.npz straight.npz --below 1e-10 --budget 0 --domain [-1,1]"},
    "align": {0: "twin.npz swapped.npz", 2: "twin.npz tanh.npz"},
    "canonical": {0: "twin.npz", 2: "words.txt"},
    "fingerprint": {0: "twin.npz other.npz", 2: "twin.npz torn.onnx"},
    "fiber": {0: "twin.npz", 2: "gone.npz"},
    "sims": {0: "--widths 2,2,1 --activation tanh", 2: "--widths 2,2,1"},
    "smallest-sim": {0: "twin.npz", 2: "twin.npz --level nonsense"},
    "orbit": {0: "tanh.npz", 2: "--widths 3 --activation tanh"},
    "conserved": {0: "twin.npz", 2: "twin.npz --dynamics nonsense"},
    "condensation": {0: "tanh.npz", 2: "tanh.npz --tolerances x"},
    "lint-init": {0: "twin.npz", 1: "stuck.npz --fail-on trapped", 2: "gone.npz"},
    "watch": {0: "runs --print --activation relu", 2: "gone.jsonl"},
    "rank": {0: "tanh.npz", 2: "torn.onnx"},
    "predict-recovery": {0: "tanh.npz --widths 4", 2: "tanh.npz --widths x"},
    "recover": {0: "data.csv --widths 1 --budget 0", 2: "data.csv"},
    "embed": {0: "tanh.npz --widths 4", 2: "tanh.npz --widths 1"},
    "strata": {0: "--width 3 --target-width 2 --inputs 2", 2: "--width 2 --target-width 3 --inputs 2"},
    "diagonal": {0: "data.csv", 2: "words.txt"},
    "phase-diagram": {0: "tanh.npz --samples 3 --widths 2 --budget 0 --workers 1",
                      2: "tanh.npz --samples 3 --widths 2 --workers 1 --cluster nowhere"},
    "meanfield angle": {0: ANGLE, 2: "--dimension 3 --subspace 3"},
    "meanfield odd": {0: "", 2: "--until nan"},
    "meanfield linear": {0: "data.csv --outputs 1", 2: "gone.csv"},
    "meanfield lowdim": {0: "--target abs --subspace 1 --dimension 3 --outputs 1 --budget 0", 2: "--target abs"},
    "meanfield particles": {0: "--target abs --dimension 2 --width 4 --outputs 1 --budget 0", 2: "--target nonsense"},
    "meanfield reduction": {0: "--target norm:2 --dimension 4", 2: "--target norm:2"},
    "demo": {2: "--out words.txt"},
    "cite": {0: "equitable-sim", 2: "nonsense"},
}  # fmt: skip
ROWS = [(name, code, words.split()) for name, codes in TABLE.items() for code, words in codes.items()]
DONE = [(name, words) for name, code, words in ROWS if code == 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, a proof, tables and files that are none of them."""
    place = tmp_path_factory.mktemp("exits")
    rows, bias, head = [[1.0, 2.0], [1.0, 2.0], [-1.0, 0.5]], [0.5, 0.5, 0.25], [[1.0, 2.0, 3.0]]
    made = {
        "twin": fs.Network.from_arrays((rows, bias), (head, [0.0]), activation="relu"),
        "swapped": fs.Network.from_arrays((rows[::-1], bias[::-1]), ([head[0][::-1]], [0.0]), activation="relu"),
        "other": fs.Network.from_arrays((rows, bias), (head, [0.5]), activation="relu"),
        "stuck": fs.Network.from_arrays((rows, bias), ([[1.0, 1.0, 3.0]], [0.0]), activation="relu"),
        "tanh": fs.Network.from_arrays(([[0.5], [1.5]], [0.25, 1.0]), ([[1.0, 0.5]], [0.0]), activation="tanh"),
    }
    # the third layers differ by so little that only a search can tell
    rng = np.random.default_rng(0)
    deep = [(rng.integers(-3, 4, (5, 5)) / 2.0, rng.integers(-2, 3, 5) / 2.0) for _ in range(3)]
    made["bent"] = fs.Network.from_arrays(*deep, ([[1.0] * 5], [0.0]), activation="relu")
    shifted = [deep[0], deep[1], (deep[2][0] + 2.0**-40, deep[2][1])]
    made["straight"] = fs.Network.from_arrays(*shifted, ([[1.0] * 5], [0.0]), activation="relu")
    (place / "runs").mkdir()
    for name, net in made.items():
        fs.save(net, place / f"{name}.npz")
    for step in (1, 2):
        fs.save(made["twin"], place / "runs" / f"step{step}.npz")
    proof = fs.equal(fs.load(place / "twin.npz"), fs.load(place / "swapped.npz")).certificate
    proof.write(place / "proof.json", force=False)
    (place / "torn.onnx").write_bytes(b"\x08\x07\x12")
    (place / "words.txt").write_text("no network, no numbers\n")
    (place / "data.csv").write_text("a,b,y\n1,2,3\n0,1,-1\n2,0.5,1\n-1,1,0\n")
    return place


def test_every_command_has_a_row_and_a_question() -> None:
    assert set(TABLE) == set(leaves())
    assert sorted(name for names in QUESTIONS.values() for name in names) == sorted(program.commands)


@pytest.mark.parametrize(("name", "code", "words"), ROWS, ids=lambda value: str(value).replace(" ", "-"))
def test_exit_codes(
    name: str, code: int, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run([*name.split(), *words, "--json", "--quiet"]) == code
    said = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    if said.out:
        assert json.loads(said.out)["schema"] == f"fiberscope/{name.replace(' ', '-')}/1" and said.err == ""
    else:
        assert code == 2 and said.err.startswith("error: ") and said.err.count("\n") == 1 and "bug" not in said.err


@pytest.mark.parametrize(("name", "words"), [*DONE, ("demo", [])], ids=lambda value: str(value))
def test_a_page_that_exists_is_kept_and_bad_values_are_refused(
    name: str, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(folder)
    for more, expected in (
        (["--html", "words.txt"], "words.txt: exists; use --force"), (["--html", "no/page.html"], "there is no folder"),
        (["--budget", "nan"], "not a valid number"), (["--seed", "-1"], "--seed"), (["--nonsense"], "--nonsense"),
    ):  # fmt: skip
        assert run([*name.split(), *words, *more]) == 2, more
        said = capsys.readouterr()
        assert said.out == "" and expected in said.err and said.err.count("\n") == 1
    assert (folder / "words.txt").read_text() == "no network, no numbers\n"


def test_names_nearly_right_get_a_suggestion(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    for words, meant in (
        (["inspekt", "twin.npz"], "'inspect'"), (["meanfield", "angel"], "'angle'"),
        (["inspect", "twin.npz", "--bugdet", "5"], "'--budget'"),
        (["inspect", "twin.npz", "--activation", "tanhh"], "'tanh'"),
    ):  # fmt: skip
        assert run(words) == 2
        assert f"id you mean {meant}" in (err := capsys.readouterr().err) or f"one of: {meant}" in err


def test_messages_speak_of_options() -> None:
    assert in_options("a: give it with --activation NAME (activation=...): relu, tanh") == (
        "a: give it with --activation NAME: relu, tanh"
    )
    assert in_options("no bias; pass output_bias=True") == "no bias; add --output-bias"
    assert in_options("phi(x) = (x = 1) and (2 = y)") == "phi(x) = (x = 1) and (2 = y)"
