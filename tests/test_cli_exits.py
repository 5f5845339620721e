"""Exit codes of every command: done or yes, no, undecided, bad input; and what they all refuse."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import fiberscope as fs
from fiberscope.cli import program, run
from fiberscope.cli.group import QUESTIONS, leaves
from fiberscope.cli.running import in_options
from fiberscope.pages import report
from fiberscope.pages.nextsteps import following
from pagetools import sound

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
    made["my_net"] = made["tanh"]
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


MORE = [
    ("inspect", "twin.npz swapped.npz"), ("inspect", "tanh.npz"),
    ("equal", "twin.npz swapped.npz --certificate equal.json"),
    ("reduce", "twin.npz -o small.npz"), ("align", "twin.npz swapped.npz -o aligned.npz"),
    ("embed", "tanh.npz --widths 4 -o wide.npz"), ("fingerprint", "twin.npz swapped.npz other.npz"),
    ("predict-recovery", "other.npz --widths 4"), ("fingerprint", "twin.npz"),
    ("sims", "tanh.npz --count"), ("smallest-sim", "stuck.npz"), ("conserved", "--widths 2,2,1 --activation relu"),
    ("orbit", "--widths 2,2,1 --activation tanh"),
    ("strata", "--width 3 --target-width 2 --inputs 2 --activation tanh"),
    ("lint-init", "stuck.npz"), ("lint-init", "stuck.npz -o free.npz"), ("rank", "my_net.npz"),
    ("meanfield reduction", "--target l1:2 --dimension 5"),
    ("meanfield reduction", "--target linear:0.6 --dimension 3"),
]  # fmt: skip
ASKED = [(name, words) for name, code, words in ROWS if code != 2] + [(name, words.split()) for name, words in MORE]


@pytest.mark.parametrize(("name", "words"), ASKED, ids=lambda value: str(value))
def test_what_to_run_next_would_run(
    name: str, words: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "my_net.npz").rename(tmp_path / "it's a net.npz")
    monkeypatch.chdir(tmp_path)
    words = [word.replace("my_net", "it's a net") for word in words]
    run([*name.split(), *words, "--json"])
    said = capsys.readouterr()
    assert "next: " not in said.err  # that is for people at a terminal
    steps = following(json.loads(said.out))
    assert steps or name == "cite"
    assert len({step.words for step in steps}) == len(steps) <= 3
    for step in steps:
        assert step.why and shlex.split(step.line) == ["fiberscope", *step.words]
        command, left = _parsed(list(step.words))
        assert left == [], step.line
        if command not in ("phase-diagram", "meanfield particles", "meanfield angle", "meanfield lowdim", "diagonal"):
            extra = [] if "--budget" in step.words else ["--budget", "1"]
            assert run([*step.words, *extra, "--json", "--quiet"]) in (0, 1, 3), (step.line, capsys.readouterr().err)
    capsys.readouterr()


def test_checked_certificates_and_theorems_have_pages_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for words, code, seen in (
        ("check proof.json twin.npz swapped.npz", 0, ["accepted", "The certificate", "What to run next"]),
        ("check proof.json twin.npz other.npz", 1, ["rejected", "fiberscope equal twin.npz other.npz"]),
        ("cite equitable-sim", 0, ["BibTeX", "@article{zhao2025sims", "Equitable partitions are invariant manifolds"]),
    ):
        assert run([*words.split(), "--json"]) == code
        page = report(json.loads(capsys.readouterr().out))
        sound(page)
        assert all(word in page for word in seen) and "<h3>Values" not in page


def _parsed(words: list[str]) -> tuple[str, list[str]]:
    """The command, read by the program's own parser, and what of the words it leaves over."""
    command: Any = program
    named = []
    while isinstance(command, click.Group):
        named.append(words.pop(0))
        command = command.commands[named[-1]]
    return " ".join(named), command.make_context(" ".join(named), words, resilient_parsing=False).args


def test_what_to_run_next_is_told_at_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run(["canonical", "twin.npz"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("next: fiberscope canonical twin.npz -o twin-form.json  # ") and len(lines) == 2
    for words in (["--quiet"], ["--json"]):
        assert run(["canonical", "twin.npz", *words]) == 0
        assert "next:" not in capsys.readouterr().err


def test_what_to_run_next_carries_part_activation_and_domain_but_not_to_written_files() -> None:
    given = {
        "arguments": ["-a b.onnx"],
        "options": {"--part": "p", "--activation": "relu", "--domain": "d.json", "-o": "x.npz"}
    }  # fmt: skip
    data = {
        "schema": "fiberscope/reduce/1", "given": given, "widths_before": [1, 2, 1],
        "output": {"path": "x.npz", "certificate": "x.json"}, "rounding": {"kind": "exact"},
    }  # fmt: skip
    assert [step.words for step in following(data)] == [
        ("inspect", "x.npz", "--activation", "relu", "--domain", "d.json")
    ]
    data = {"schema": "fiberscope/fiber/1", "given": given, "inputs": [{"layers": [1, 2, 1], "trained": False}]}
    shared = ("--part", "p", "--activation", "relu")
    assert [step.words for step in following(data)] == [
        ("canonical", "./-a b.onnx", *shared, "--domain", "d.json"),
        ("reduce", "./-a b.onnx", *shared, "--domain", "d.json"),
    ]  # fmt: skip
    assert following({"schema": "fiberscope/fiber/1"}) == [] == following({})


@pytest.mark.parametrize("command", ["inspect", "canonical", "fingerprint", "rank", "smallest-sim"])
def test_an_activation_that_the_file_contradicts_is_refused(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code = run([command, "tanh.npz", "--activation", "relu"])
    said = capsys.readouterr()
    assert code == 2 and "says its activation is tanh, not relu" in said.out + said.err
    assert run([command, "tanh.npz", "--activation", "tanh", "--quiet"]) == 0
    capsys.readouterr()
    if command in ("inspect", "fingerprint"):  # of several files it is for those that do not say theirs
        assert run([command, "tanh.npz", "twin.npz", "--activation", "relu", "--quiet"]) == 0
        assert "refused" not in capsys.readouterr().out.partition("2 files")[0]


def test_text_is_wrapped_but_no_name_of_a_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / ("a name with spaces " * 8 + "net.npz")
    shutil.copy(folder / "stuck.npz", place)
    assert run(["lint-init", str(place)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(place) and max(map(len, lines[1:])) <= 120 and len(lines) > 3
    assert run(["lint-init", str(place), "--json"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


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


def test_a_width_too_small_for_the_target_proposes_no_embedding():
    from fiberscope.pages.nextsteps import following

    data = {"schema": "fiberscope/predict-recovery/1", "inputs": [{"layers": [3, 5, 1], "trained": True}]}
    for width, proposed in (("2", False), ("9", True)):
        given = {"arguments": ["t.onnx"], "options": {"--widths": width}}
        assert any(step.words[0] == "embed" for step in following({**data, "given": given})) is proposed
