"""The command line: exit codes, what goes to stdout and stderr, files that are written and those that are kept."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import fiberscope as fs
import fiberscope.cli.output
import fiberscope.inspection
from fiberscope.cli import program, run
from fiberscope.cli.group import leaves
from fiberscope.cli.options import worst
from fiberscope.results import Budget, Verdict
from fiberscope.theorems import THEOREMS

SOURCE = Path(fs.__file__).parent.parent
BUNDLED = SOURCE / "fiberscope" / "data" / "digits-mlp.safetensors"
COMMANDS = sorted(leaves())
FLOWS = {name for name in COMMANDS if name.startswith("meanfield")}
NO_NETWORKS = {*FLOWS, "recover", "strata", "diagonal", "watch", "cite", "demo"}  # they read none


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """A 2-3-1 ReLU network whose neurons 0 and 1 are equal."""
    rows = ([[1.0, 2.0], [1.0, 2.0], [-1.0, 0.5]], [0.5, 0.5, 0.25])
    fs.save(fs.Network.from_arrays(rows, ([[1.0, 2.0, 3.0]], [0.0]), activation="relu"), tmp_path / "twin.npz")
    return tmp_path / "twin.npz"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A 2-2-1 ReLU network without redundancy."""
    rows = ([[1.0, 2.0], [-1.0, 0.5]], [0.5, 0.25])
    fs.save(fs.Network.from_arrays(rows, ([[1.0, 3.0]], [0.0]), activation="relu"), tmp_path / "plain.npz")
    return tmp_path / "plain.npz"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr."""

    def inner(*argv: str | Path) -> tuple[int, str, str]:
        code = run([str(word) for word in argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return inner


def spawn(*argv: str | Path, code: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, after `code`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FIBERSCOPE", "NO_COLOR"))}
    script = f"{code}\nfrom fiberscope.cli import main\nmain()"
    start = ["-c", script] if code else ["-m", "fiberscope"]
    env = {**clean, "PYTHONPATH": str(SOURCE), **more.pop("env", {})}
    words = [sys.executable, *start, *map(str, argv)]
    return subprocess.run(words, **{"capture_output": True, "text": True, "env": env, "check": False, **more})


# ---- help


def test_help_version_and_no_command() -> None:
    assert spawn("--version").stdout == f"fiberscope {fs.__version__}\n"
    helped = spawn("--help")
    assert helped.returncode == 0 and not helped.stderr
    bare = spawn()
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", helped.stdout)
    assert all(name in helped.stdout for name in program.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_same_options_and_an_example_that_parses(name: str) -> None:
    text = CliRunner().invoke(program, [*name.split(), "--help"], terminal_width=200).stdout
    shared = set("--json --html --budget --seed --quiet --force --traceback --help".split())
    networks = set("--part --activation --allow-opaque".split()) if name not in NO_NETWORKS else set()
    assert shared | networks <= set(re.findall(r"--[a-z-]+", text))
    assert ("--domain" in text) == (
        name in ("inspect", "reduce", "equal", "distance", "canonical", "orbit", "conserved")
    )
    examples = re.findall(r"fiberscope ([a-z][^\n,]*)", text[text.index("Example") :])
    assert examples
    for example in examples:
        words = [word.strip("'") for word in example.split()]
        count = 2 if words[0] == "meanfield" else 1
        command = leaves()[" ".join(words[:count])]
        assert command.make_context(words[count - 1], words[count:], resilient_parsing=False).params


def test_commands_are_public_functions_of_the_same_name() -> None:
    public = {name.replace("-", "_") for name in program.commands} - {"demo", "meanfield", "rank"} | {"model_rank"}
    assert public <= set(fs.__all__)
    assert all(callable(getattr(fs, name)) for name in public)
    flows = {name.split()[1] for name in FLOWS} - {"reduction"}
    names = {"particle_flow" if flow == "particles" else f"{flow}_flow" for flow in flows}
    assert flows and names <= set(fs.meanfield.__all__)


def test_help_costs_no_numpy() -> None:
    code = "import atexit, sys\natexit.register(lambda: print(sorted({m.partition('.')[0] for m in sys.modules})))"
    for argv in (["--help"], ["inspect", "--help"]):
        loaded = set(re.findall(r"'(\w+)'", spawn(*argv, code=code).stdout.splitlines()[-1]))
        assert "click" in loaded
        assert loaded.isdisjoint({"numpy", "scipy", "flint", "highspy", "rich", "onnx", "torch", "jax"})


def test_public_names_are_lazy_and_complete() -> None:
    code = (
        "import fiberscope, sys\nfound = {m for m in sys.modules if 'fiberscope.' in m}\n"
        "assert found <= {'fiberscope._version', 'fiberscope.facades'}, found\n"
        "assert set(fiberscope.__all__) <= set(dir(fiberscope))\n[getattr(fiberscope, n) for n in fiberscope.__all__]"
    )
    assert spawn("--version", code=code).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        fs.nonsense  # noqa: B018


# ---- inspect


def test_inspect_prints_one_screen(call: Any, twin: Path) -> None:
    code, out, err = call("inspect", twin)
    assert (code, err) == (0, "")
    assert out.startswith(f"{twin}\n2-3-1 relu")
    assert "1 of 3 hidden neurons can be removed" in out
    assert len(out.splitlines()) <= 40 and "\x1b" not in out


def test_fail_on_redundant(call: Any, twin: Path, plain: Path) -> None:
    assert call("inspect", twin, "--fail-on", "redundant")[0] == 1
    assert call("inspect", plain, "--fail-on", "redundant")[0] == 0
    assert call("inspect", twin, plain, "--fail-on", "redundant")[0] == 1


def test_a_batch_lists_every_file_once_in_a_fixed_order(call: Any, tmp_path: Path, twin: Path, plain: Path) -> None:
    (tmp_path / "deep").mkdir()
    broken = tmp_path / "deep" / "broken.ONNX"
    broken.write_bytes(b"\x00\x01")
    (tmp_path / "notes.txt").write_text("no network")
    code, out, _ = call("inspect", tmp_path, twin, "--fail-on", "redundant")
    assert code == 2
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(broken), str(plain), str(twin), "3 files"]
    assert lines[0].startswith(f"{broken}: refused: ") and lines[0].count(str(broken)) == 1
    assert lines[1].endswith("2-2-1 relu: 2 hidden neurons, none redundant")
    assert lines[2].endswith("2-3-1 relu: 3 -> 2 hidden neurons")
    assert lines[3] == "3 files: 1 redundant, 1 not, 1 refused"


def test_the_worst_code_of_a_batch() -> None:
    assert [worst(codes) for codes in ([0], [0, 1], [1, 3, 0], [3, 2, 1])] == [0, 1, 3, 2]


def test_a_folder_without_networks_is_refused(call: Any, tmp_path: Path) -> None:
    code, out, err = call("inspect", tmp_path)
    assert (code, out) == (2, "")
    assert "no network file in this folder" in err


def test_domain_changes_the_answer(call: Any, tmp_path: Path) -> None:
    rows = ([[1.0], [-1.0]], [0.0, -5.0])  # the second neuron never fires for x >= 0
    fs.save(fs.Network.from_arrays(rows, ([[1.0, 1.0]], [0.0]), activation="relu"), tmp_path / "half.npz")
    (tmp_path / "box.json").write_text(json.dumps({"lower": [0], "upper": [9]}))
    for domain, redundant in (("everywhere", 0), ("nonnegative", 1), ("[0,9]", 1), (tmp_path / "box.json", 1)):
        assert call("inspect", tmp_path / "half.npz", "--domain", domain, "--fail-on", "redundant")[0] == redundant
    code, _, err = call("inspect", tmp_path / "half.npz", "--domain", "file")
    assert code == 2 and "stores no input box" in err


# ---- reduce and check


def test_reduce_writes_what_check_accepts(call: Any, tmp_path: Path, twin: Path) -> None:
    small = tmp_path / "small.npz"
    code, out, err = call("reduce", twin, "-o", small)
    assert (code, err) == (0, "")
    assert "hidden neurons 3 -> 2" in out and f"wrote {small}: a drop-in for {twin}" in out
    before, after = fs.load(twin), fs.load(small)
    assert after.widths == (2, 2, 1)
    x = np.random.default_rng(0).standard_normal((50, 2))
    np.testing.assert_allclose(before(x), after(x), rtol=1e-12)
    proof = Path(f"{small}.certificate.json")
    code, out, _ = call("check", proof, twin, small)
    assert code == 0 and out.startswith("accepted: equal on all real inputs")
    code, out, _ = call("check", proof, small, twin)
    assert code == 1 and out.startswith("rejected: ")
    data = json.loads(proof.read_text())
    merge = next(step for step in data["steps"] if step["move"] == "merge")
    merge["pairs"][0][2] = "2"
    proof.write_text(json.dumps(data))
    code, out, _ = call("check", proof, twin, small)
    assert code == 1 and "merge" in out
    proof.write_text("{}")
    code, out, err = call("check", proof, twin, small)
    assert (code, out) == (2, "") and err.startswith(f"error: {proof}: ")


def test_reduce_without_output_writes_nothing(call: Any, tmp_path: Path, twin: Path) -> None:
    before = sorted(tmp_path.iterdir())
    code, out, _ = call("reduce", twin)
    assert code == 0 and out.rstrip().endswith("nothing written; add -o FILE")
    assert sorted(tmp_path.iterdir()) == before


def test_reduce_writes_nothing_that_the_checker_refuses(
    call: Any, tmp_path: Path, twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiberscope.io import reduced

    monkeypatch.setattr(reduced, "check", lambda *_: Verdict(fs.Answer.NO, "made up"))
    before = sorted(tmp_path.iterdir())
    code, out, err = call("reduce", twin, "-o", tmp_path / "small.npz")
    assert (code, out) == (2, "") and "made up" in err and "nothing was written" in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["reduce", "twin.npz", "-o", "old.npz"], "old.npz: exists"),
        (["reduce", "twin.npz", "-o", "new.npz", "--certificate", "old.npz"], "old.npz: exists"),
        (["reduce", "twin.npz", "-o", "new.npz", "--html", "old.npz"], "old.npz: exists"),
        (["reduce", "twin.npz", "-o", "twin.npz", "--force"], "twin.npz: is read"),
        (["reduce", "twin.npz", "-o", "new.npz", "--certificate", "./new.npz"], "new.npz: is read or written"),
        (["reduce", "twin.npz", "-o", "gone/new.npz"], "no folder gone"),
        (["reduce", "twin.npz", "-o", "new.txt"], "new.txt: cannot write .txt"),
        (["reduce", "twin.npz", "--certificate", "new.json"], "add -o"),
        (["inspect", "twin.npz", "--html", "old.npz"], "old.npz: exists"),
        (["inspect", "twin.npz", "--html", "twin.npz", "--force"], "twin.npz: is read"),
        (["smallest-sim", "twin.npz", "--html", "old.npz"], "old.npz: exists"),
        (["check", "c.json", "twin.npz", "twin.npz", "--html", "old.npz"], "old.npz: exists"),
        (["cite", "lossless-moves", "--html", "old.npz"], "old.npz: exists"),
        (["demo", "--html", "old.npz"], "old.npz: exists"),
    ],
)
def test_files_are_never_lost_and_refused_before_the_work(
    argv: list[str], reason: str, call: Any, tmp_path: Path, twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the work began")

    monkeypatch.chdir(tmp_path)
    for home in ("fiberscope.inspection.reduce", "fiberscope.reduction.reduce", "fiberscope.invariants.smallest_sim"):
        monkeypatch.setattr(home, never)
    (tmp_path / "old.npz").write_bytes(b"precious")
    content = twin.read_bytes()
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert reason in err and err.startswith("error: ") and err.count("\n") == 1
    assert (tmp_path / "old.npz").read_bytes() == b"precious" and twin.read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.npz", "twin.npz"]


def test_force_overwrites(call: Any, tmp_path: Path, twin: Path) -> None:
    for name in ("small.npz", "small.npz.certificate.json", "page.html"):
        (tmp_path / name).write_text("old")
    code, _, err = call("reduce", twin, "-o", tmp_path / "small.npz", "--html", tmp_path / "page.html", "--force")
    assert code == 0 and err == f"wrote {tmp_path / 'page.html'}\n"
    assert fs.load(tmp_path / "small.npz").widths == (2, 2, 1)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


# ---- the other commands


def test_smallest_sim(call: Any, twin: Path) -> None:
    # widths 2-3-1: with two equal neurons the outgoing weights 1 and 2 differ, so nothing moves together
    data = json.loads(call("smallest-sim", twin, "--json")[1])
    assert (data["dimension"], data["ambient"]) == (13, 13)


def test_cite_keys_and_saved_results(call: Any, tmp_path: Path, twin: Path, plain: Path) -> None:
    code, out, _ = call("cite", "scaling-balance", "scaling-balance")
    assert code == 0 and out.count("@inproceedings{marcotte2023abide") == 1
    (tmp_path / "one.json").write_text(call("inspect", twin, "--json")[1])
    (tmp_path / "many.json").write_text(call("inspect", twin, plain, tmp_path / "none.npz", "--json")[1])
    keys = json.loads((tmp_path / "one.json").read_text())["theorems"]
    assert call("cite", tmp_path / "one.json")[1] == call("cite", *keys)[1] != ""
    cited = json.loads(call("cite", tmp_path / "many.json", "--json")[1])["theorems"]
    assert set(cited) >= set(keys) and len(cited) == len(set(cited))
    assert [line.partition(":")[0] for line in call("cite")[1].splitlines()] == list(THEOREMS)
    for text in ("[1]", "{}", '{"theorems": [1]}', "nonsense", '{"results": 3}', "[" * 10**5):
        (tmp_path / "bad.json").write_text(text)
        code, out, err = call("cite", tmp_path / "bad.json")
        assert (code, out) == (2, "") and "with --json" in err


# ---- errors and interruptions


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["inspect"],
        ["inspect", "--nonsense"],
        ["inspect", "gone.npz"],
        ["inspect", "."],
        ["inspect", "x.npz", "--fail-on", "anything"],
        ["inspect", "x.npz", "--budget", "-1"],
        ["reduce", "x.npz", "--tolerance", "nan-ish"],
        ["check", "a.json"],
        ["check", "gone.json", "x.npz", "x.npz"],
        ["cite", "nonsense"],
        ["smallest-sim", "gone.npz"],
        ["demo", "--out", "x.npz"],
    ],
)
def test_bad_input_is_one_line_and_2(
    argv: list[str], call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").write_bytes(b"nothing")
    if argv == ["inspect", "."]:
        (tmp_path / "x.npz").rename(tmp_path / "x.txt")
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("wanted", ["", "option", "environment"])
def test_a_bug_is_70_and_asks_for_a_report(wanted: str, call: Any, twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("lost in the fiber")

    monkeypatch.setattr(fiberscope.inspection, "reduce", broken)
    monkeypatch.delenv("FIBERSCOPE_TRACEBACK", raising=False)
    if wanted == "environment":
        monkeypatch.setenv("FIBERSCOPE_TRACEBACK", "1")
    code, out, err = call("inspect", twin, *(["--traceback"] if wanted == "option" else []))
    assert (code, out) == (70, "")
    assert "ZeroDivisionError: lost in the fiber: this is a bug in fiberscope, please report it" in err
    assert ("Traceback" in err) == bool(wanted) == (err.count("\n") > 1)


@pytest.mark.parametrize(
    ("error", "expected"), [(MemoryError(), 2), (KeyboardInterrupt(), 130), (OSError(28, "full"), 2)]
)
def test_other_outcomes(
    error: BaseException, expected: int, call: Any, twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(fiberscope.inspection, "reduce", broken)
    code, out, err = call("inspect", twin)
    assert (code, out) == (expected, "") and err.strip().count("\n") == 0 and "bug" not in err


def interrupting(times: int) -> Callable[..., Any]:
    """`reduce`, during which Ctrl-C is pressed."""
    from fiberscope.reduction import reduce

    def inner(net: fs.Network, domain: Any, *, budget: Any, progress: Any) -> Any:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        assert Budget.of(budget).start().expired
        return reduce(net, domain, budget=budget, progress=progress)

    return inner


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to oneself")
def test_ctrl_c_prints_what_is_proved(call: Any, twin: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(fiberscope.inspection, "reduce", interrupting(1))
    code, out, _ = call("inspect", twin)
    assert code == 130 and out.startswith(f"{twin}\n2-3-1 relu")
    code, out, _ = call("inspect", twin, plain, "--json")
    assert code == 130
    rows = json.loads(out)["results"]
    assert "error" not in rows[0] and rows[1] == {"path": str(plain), "error": "not read: interrupted"}
    monkeypatch.setattr(fiberscope.inspection, "reduce", interrupting(2))
    code, out, err = call("inspect", twin)
    assert (code, out) == (130, "") and err.endswith("begun without being finished\n")
    assert signal.getsignal(signal.SIGINT) is handler


# ---- stdout and stderr


def test_json_is_alone_on_stdout(twin: Path, tmp_path: Path) -> None:
    done = spawn("inspect", twin, tmp_path / "gone.npz", "--json", "--html", tmp_path / "page.html")
    assert done.returncode == 2
    data = json.loads(done.stdout)
    assert [set(row) & {"error"} for row in data["results"]] == [set(), {"error"}]
    assert done.stderr == f"wrote {tmp_path / 'page.html'}\n"
    assert data["inputs"][0]["path"] == str(twin) and data["seed"] == 0 and data["wall_s"] > 0
    assert spawn("inspect", twin, "--json", "--html", tmp_path / "quiet.html", "--quiet").stderr == ""


def test_a_reader_that_goes_away_does_not_change_the_answer(twin: Path) -> None:
    for argv, code in ((["inspect", twin, twin.parent, "--fail-on", "redundant"], 1), (["--help"], 0), (["cite"], 0)):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as gone:
            done = spawn(*argv, capture_output=False, stdout=gone, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (code, "")


def test_names_that_the_terminal_cannot_show(twin: Path, tmp_path: Path) -> None:
    odd = tmp_path / "größe→.npz"
    odd.write_bytes(twin.read_bytes())
    done = spawn("inspect", odd, env={"PYTHONIOENCODING": "latin-1"}, encoding="latin-1")
    assert done.returncode == 0 and r"größe\u2192.npz" in done.stdout


SLOW = """
import types
import fiberscope.cli.running
import fiberscope.inspection as home
real, now = home.reduce, [0.0]
fiberscope.cli.running.time = types.SimpleNamespace(monotonic=lambda: now[0])
def slow(*args, progress, **more):
    for seconds, text in (0.9, "first [0,1]"), (0.2, "found 7 [0,1]"):
        now[0] += seconds
        if progress:
            progress(0.5, text)
    return real(*args, progress=progress, **more)
home.reduce = slow
"""


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
@pytest.mark.parametrize("manner", ["late", "fast", "quiet"])
def test_the_bar_is_on_a_terminals_stderr_after_a_second(manner: str, twin: Path, plain: Path) -> None:
    import pty

    primary, secondary = pty.openpty()
    try:
        more = ["--quiet"] if manner == "quiet" else []
        code = SLOW.replace("0.9", "0.7") if manner == "fast" else SLOW
        done = spawn("inspect", twin, plain, *more, code=code, capture_output=False, stdout=subprocess.PIPE,
                     stderr=secondary, env={"TERM": "xterm", "COLUMNS": "100"})  # fmt: skip
        os.write(secondary, b"END")
        seen = b""
        while not seen.endswith(b"END"):
            seen += os.read(primary, 65536)
    finally:
        os.close(primary)
        os.close(secondary)
    assert done.returncode == 0
    names = [line.partition(": ")[0] for line in done.stdout.splitlines()]
    assert names == [str(twin), str(plain), "2 files"] and "\x1b" not in done.stdout
    assert (b"found 7 [0,1]" in seen) == (manner == "late")
    assert b"first" not in seen


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_only_on_a_terminal_and_sentences_wrapped(
    no_color: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    text = "  [EXACT] " + "word " * 30 + "end [0, 1]\n  table  of  columns" + " x" * 60
    fiberscope.cli.output.say(text)
    piped = capsys.readouterr().out
    assert "\x1b" not in piped and piped.split() == text.split() and piped.splitlines()[-1] == text.splitlines()[-1]
    assert [len(line) for line in piped.splitlines()[:-1]] == [119, 56]
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    seen: list[str] = []
    monkeypatch.setattr(click, "echo", seen.append)
    fiberscope.cli.output.say(text)
    (shown,) = seen
    assert (click.style("EXACT", fg="green") in shown) == (not no_color)
    lines = click.unstyle(shown).splitlines()
    assert max(len(line) for line in lines[:-1]) <= 80 and lines[-1] == text.splitlines()[-1]
    assert " ".join(click.unstyle(shown).split()) == " ".join(text.split())


# ---- several networks in one file


@pytest.fixture
def two_parts(tmp_path: Path) -> Path:
    """A state dict with an actor and a critic."""
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}
    tensors = {
        f"{name}.{key}": rng.standard_normal(shape) for name in ("actor", "critic") for key, shape in shapes.items()
    }
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({k: v.astype(np.float32) for k, v in tensors.items()}, tmp_path / "parts.safetensors")
    return tmp_path / "parts.safetensors"


def test_one_file_with_several_networks_lists_them_and_a_folder_inspects_each(
    two_parts: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = call("inspect", two_parts, "--activation", "relu")
    assert code == 2 and "actor, critic" in err and "--part" in err
    code, out, _ = call("inspect", two_parts, "--activation", "relu", "--part", "critic")
    assert code == 0 and "3-4-2 relu" in out
    code, out, _ = call("inspect", two_parts.parent, "--activation", "relu")
    assert code == 0 and f"{two_parts} actor: 3-4-2" in out and f"{two_parts} critic: 3-4-2" in out
    assert "1 file, 2 networks: 0 redundant, 2 not, 0 refused" in out


@pytest.fixture
def opaque(tmp_path: Path) -> Path:
    """Two ReLU chains with an operator between them that has no meaning here; the second has an unread neuron."""
    onnx = pytest.importorskip("onnx")
    h, rng = onnx.helper, np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in
               {"A": (3, 4), "B": (4, 3), "C": (3, 4), "D": (4, 2)}.items()}  # fmt: skip
    tensors["D"][1] = 0
    steps = [("MatMul", "x A", "a"), ("Relu", "a", "b"), ("MatMul", "b B", "c"), ("Round", "c", "d"),
             ("MatMul", "d C", "e"), ("Relu", "e", "f"), ("MatMul", "f D", "y")]  # fmt: skip
    ends = [[h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", n])] for name, n in (("x", 3), ("y", 2))]
    graph = h.make_graph(
        [h.make_node(op, names.split(), [out]) for op, names, out in steps], "g", *ends,
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), tmp_path / "opaque.onnx")
    return tmp_path / "opaque.onnx"


def test_chains_between_opaque_nodes(opaque: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = call("inspect", opaque)
    assert code == 2 and "Round" in err
    code, out, _ = call("inspect", opaque, "--allow-opaque")
    assert code == 0 and "chain1: 3-4-3 relu" in out and "chain2: 3-4-2 relu: 4 -> 3 hidden neurons" in out
    small = tmp_path / "small.onnx"
    code, out, _ = call("reduce", opaque, "--allow-opaque", "-o", small)
    assert code == 0 and "Round; nothing is said about the whole model" in out
    proof = f"{small}.chain2.certificate.json"
    code, out, _ = call("check", proof, opaque, small, "--allow-opaque", "--part", "chain2")
    assert code == 0 and out.startswith("accepted")
    assert call("check", proof, opaque, small, "--allow-opaque", "--part", "chain1")[0] == 1
    code, _, err = call("reduce", opaque, "--allow-opaque", "--domain", "[0,1]")
    assert code == 2 and "--part" in err
    code, out, _ = call("reduce", opaque, "--allow-opaque", "--json")
    assert json.loads(out)["skipped"] == [{"layer": "Round", "reason": "opaque operator Round"}] or "Round" in out
