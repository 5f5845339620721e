"""The commands that compare networks, as a newcomer or a CI job meets them: exit codes, files, hostile input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fiberscope as fs
from fiberscope.cli import run

Call = Callable[..., tuple[int, str, str]]
SOURCE = Path(fs.__file__).parent.parent


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process: exit code, stdout, stderr."""

    def inner(*argv: str | Path) -> tuple[int, str, str]:
        code = run([str(word) for word in argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return inner


def network(c: tuple[float, float] = (-4, -6), b: float = 0, **more: Any) -> fs.Network:
    """relu(2 relu(x + b) - relu(y) + c0) + relu(relu(x + b) - 3 relu(y) + c1)."""
    return fs.Network.from_arrays(
        ([[1, 0], [0, 1]], [b, 0]), ([[2, -1], [1, -3]], list(c)), ([[1, 1]], [0]), activation="relu", **more
    )


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Three networks: "shifted" equals "before" by a move that no single layer has, "after" differs by 1/4."""
    nets = {"before": network(), "shifted": network((-2, -5), -1), "after": network((-2, -4.75), -1)}
    for name, net in nets.items():
        fs.save(net, tmp_path / f"{name}.npz")
    return {name: tmp_path / f"{name}.npz" for name in nets}


def one_line(code: int, out: str, err: str, *words: str) -> None:
    """An error as users should see it."""
    assert code == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and err.startswith("error: "), err
    assert "Traceback" not in err and "bug" not in err
    for word in words:
        assert word in err, err


# ---- equal


def test_equal_functions_exit_0_and_the_certificate_checks(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    code, out, err = call("equal", files["before"], files["shifted"], "--certificate", proof)
    assert (code, err) == (0, "") and out.startswith("YES: equal on all real inputs")
    assert f"fiberscope check {proof}" in out
    code, out, _ = call("check", proof, files["before"], files["shifted"])
    assert code == 0 and out.startswith("accepted")
    code, out, _ = call("check", proof, files["before"], files["after"])
    assert code == 1 and out.startswith("rejected")
    assert call("check", proof, files["shifted"], files["before"])[0] == 1


def test_a_changed_certificate_is_rejected(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    call("equal", files["before"], files["shifted"], "--certificate", proof)
    data = json.loads(proof.read_text())
    (k,) = [k for k, step in enumerate(data["steps"]) if step["move"] == "shift"]
    data["steps"][k]["by"] = "7/3"
    proof.write_text(json.dumps(data))
    code, out, _ = call("check", proof, files["before"], files["shifted"])
    assert code == 1 and out.startswith("rejected")


def test_different_functions_exit_1_with_a_snippet_that_shows_it(call: Call, files: dict[str, Path]) -> None:
    code, out, _ = call("equal", files["before"], files["after"])
    assert code == 1 and out.startswith("NO: f - g = ") and "f in float64" in out
    code, out, _ = call("equal", files["before"], files["after"], "--json")
    data = json.loads(out)
    assert code == 1 and data["verdict"] == data["answer"] == "NO" and data["certificate"] is None
    found = data["counterexample"]
    x = [float(v["float"]) for v in found["x"]]
    values = [fs.load(files[name])(np.array(x)) for name in ("before", "after")]
    assert values[0] - values[1] == found["difference"]["float"]
    done = subprocess.run(
        [sys.executable, "-c", found["snippet"]], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert done.stdout.split() == [str(v) for v in values]


def test_a_snippet_shows_what_rounding_hides(call: Call, tmp_path: Path) -> None:
    tiny = 2.0**-60
    for name, bias in (("f", 0.0), ("g", tiny)):
        net = fs.Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [1.0]), ([[1.0]], [-1.0]), activation="relu")
        other = fs.Network.from_arrays(([[1.0]], [bias]), ([[1.0]], [1.0]), ([[1.0]], [-1.0]), activation="relu")
        fs.save(other if bias else net, tmp_path / f"{name}.npz")
    code, out, _ = call("equal", tmp_path / "f.npz", tmp_path / "g.npz", "--json")
    found = json.loads(out)["counterexample"]
    assert code == 1 and found["replay_f"] == found["replay_g"]
    done = subprocess.run(
        [sys.executable, "-c", found["snippet"]], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    first, second = done.stdout.replace(") (", ")|(").split("|")
    assert first != second


def test_the_domain_decides(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    """All three are 0 on [-1, 1]^2."""
    before, after = files["before"], files["after"]
    box = tmp_path / "box.json"
    box.write_text(json.dumps({"lower": [-1, -1], "upper": [1, 1]}))
    for domain in (box, "[-1,1]"):
        code, out, err = call(
            "equal", before, after, "--domain", domain, "--certificate", tmp_path / "p.json", "--force"
        )
        assert code == 0 and "[-1, 1]^2" in out, err
        assert call("check", tmp_path / "p.json", before, after)[0] == 0
    assert call("equal", before, files["shifted"], "--domain", "[0,9]")[0] == 0
    assert call("equal", before, after, "--domain", "[0,9]")[0] == 1
    one_line(*call("equal", before, after, "--domain", "file"), "box")
    one_line(*call("equal", before, after, "--domain", tmp_path / "none.json"), "none.json", "no such file")
    box.write_text(json.dumps({"lower": [-1], "upper": [1]}))
    one_line(*call("equal", before, after, "--domain", box), "1 inputs", "2")


def test_nothing_existing_is_overwritten(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    before, shifted = files["before"], files["shifted"]
    kept = tmp_path / "kept"
    two, one = ("equal", before, shifted), ("canonical", before)
    name = ("fingerprint", before)
    for argv in ((*two, "--certificate"), (*two, "--html"), (*one, "-o"), (*one, "--html"), (*name, "--html")):
        kept.write_text("mine")
        one_line(*call(*argv, kept), "kept", "exists", "--force")
        assert kept.read_text() == "mine"
        assert call(*argv, kept, "--force")[0] == 0
        assert kept.read_text() != "mine"
        one_line(*call(*argv, tmp_path / "nowhere" / "x"), "nowhere")
    content = before.read_bytes()
    for argv in (("equal", before, shifted, "--certificate"), ("canonical", before, "-o")):
        one_line(*call(*argv, before, "--force"), "before.npz")
    assert before.read_bytes() == content
    one_line(*call("equal", before, shifted, "--certificate", kept, "--html", kept, "--force"), "kept")


def test_networks_that_cannot_be_compared_are_refused(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    wide = tmp_path / "wide.npz"
    fs.save(fs.Network.random((3, 4, 1), activation="relu", seed=0), wide)
    one_line(*call("equal", files["before"], wide), "2 inputs", "3")
    fs.save(fs.Network.random((2, 4, 2), activation="relu", seed=0), wide, force=True)
    one_line(*call("equal", files["before"], wide), "1 outputs", "2")
    for bad, words in ((b"", "bad.npz"), (files["after"].read_bytes()[:200], "bad.npz"), (b"hello", "bad.npz")):
        (tmp_path / "bad.npz").write_bytes(bad)
        one_line(*call("equal", files["before"], tmp_path / "bad.npz"), words)
        one_line(*call("equal", tmp_path / "bad.npz", files["before"]), words)
    one_line(*call("equal", files["before"], tmp_path / "none.npz"), "none.npz")
    one_line(*call("equal", files["before"], tmp_path), str(tmp_path))
    assert call("equal", files["before"])[0] == 2


def test_other_heads_are_undecided(call: Call, tmp_path: Path) -> None:
    fs.save(network(), tmp_path / "plain.safetensors")
    fs.save(network(head="softmax"), tmp_path / "soft.safetensors")
    if fs.load(tmp_path / "soft.safetensors").head != "softmax":
        pytest.skip("the format keeps no head")
    code, out, _ = call("equal", tmp_path / "plain.safetensors", tmp_path / "soft.safetensors")
    assert code == 3 and out.startswith("UNDECIDED") and "softmax" in out


def test_a_spent_budget_leaves_undecided(call: Call, tmp_path: Path) -> None:
    """The fan identity: no move of the normal form leads from one to the other, and there is no time for cells."""
    vectors = json.loads((Path(__file__).parent / "data" / "fibers.json").read_text())
    fan = next(case for case in vectors if case["name"].startswith("11"))
    for name in "AB":
        layers = [[np.array(fan[name][f"{part}{k}"], dtype=float) for part in "Wb"] for k in (1, 2, 3)]
        fs.save(fs.Network.from_arrays(*layers, activation="relu"), tmp_path / f"{name}.npz")
    code, out, _ = call("equal", tmp_path / "A.npz", tmp_path / "B.npz", "--budget", "0", "--json")
    data = json.loads(out)
    assert (code, data["answer"], data["certificate"], data["counterexample"]) == (3, "UNDECIDED", None, None)
    assert data["reason"]


# ---- several parts


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """One file of two networks, the second with a bad weight where asked."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "policy.pt"
    state = {}
    for part, seed in (("actor", 0), ("critic", 1)):
        rng = np.random.default_rng(seed)
        for k, (n, m) in enumerate(((3, 2), (1, 3))):
            state[f"{part}.{2 * k}.weight"] = torch.tensor(rng.standard_normal((n, m)))
            state[f"{part}.{2 * k}.bias"] = torch.tensor(rng.standard_normal(n))
    torch.save(state, path)
    return path


def test_a_part_is_named(call: Call, several: Path) -> None:
    one_line(*call("equal", several, several, "--activation", "relu"), "--part", "actor", "critic")
    assert call("equal", several, several, "--activation", "relu", "--part", "actor")[0] == 0
    one_line(*call("equal", several, several, "--activation", "relu", "--part", "nobody"), "nobody", "actor")
    code, out, _ = call("fingerprint", several, "--activation", "relu", "--json")
    rows = json.loads(out)["results"]
    assert code == 0 and [row["part"] for row in rows] == ["actor", "critic"]
    assert rows[0]["fingerprint"] != rows[1]["fingerprint"]
    code, out, _ = call("fingerprint", several, "--activation", "relu", "--part", "nobody")
    assert code == 2 and "refused" in out and "nobody" in out


# ---- canonical


def test_canonical_writes_the_same_form_for_equal_networks(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    forms = []
    for name in files:
        goal = tmp_path / f"{name}.json"
        code, out, _ = call("canonical", files[name], "-o", goal)
        assert code == 0 and "unique" in out and "fs1:" in out
        forms.append(json.loads(goal.read_text()))
    weights = [[form[key] for key in ("layers", "skip", "fingerprint")] for form in forms]
    assert weights[0] == weights[1] != weights[2]
    code, out, _ = call("canonical", files["before"], "--json")
    data = json.loads(out)
    assert code == 0 and data["unique"] and data["fingerprint"] == forms[0]["fingerprint"]
    assert sum(data["move_counts"].values()) == len(forms[0]["moves"]) and "layers" not in data


def test_a_form_that_is_only_sound_names_what_is_missing(call: Call, tmp_path: Path) -> None:
    fs.save(fs.Network.random((2, 3, 3, 3, 1), activation="relu", seed=0), tmp_path / "deep.npz")
    code, out, _ = call("canonical", tmp_path / "deep.npz")
    assert code == 0 and "fs1s:" in out and "not met" in out


# ---- fingerprint


def test_equal_networks_are_grouped(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    code, out, err = call("fingerprint", tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    names = {line.split("  ")[1]: line.split("  ")[0] for line in lines[:3]}
    assert names[str(files["before"])] == names[str(files["shifted"])] != names[str(files["after"])]
    assert lines[3:6] == ["the same function:", f"  {files['before']}", f"  {files['shifted']}"]
    assert "3 networks" in lines[-1] and "0 refused" in lines[-1]


def test_formats_and_dtypes_do_not_matter(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    fs.save(network(), tmp_path / "copy.safetensors")
    code, out, _ = call("fingerprint", files["before"], tmp_path / "copy.safetensors", "--activation", "relu", "--json")
    first, second = json.loads(out)["results"]
    assert code == 0 and first["fingerprint"] == second["fingerprint"] and first["sha256"] != second["sha256"]


def test_a_bad_file_among_good_ones_is_listed(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    code, out, err = call("fingerprint", tmp_path, "--json")
    data = json.loads(out)
    assert code == 2 and err == ""
    assert data["counts"] == {"files": 4, "networks": 3, "refused": 1, "groups": 1, "unfinished": 0}
    (bad,) = [row for row in data["results"] if "error" in row]
    assert bad["path"].endswith("broken.npz") and "\n" not in bad["error"]
    code, out, _ = call("fingerprint", tmp_path)
    assert code == 2 and "refused: " in out and "1 refused" in out
    code, out, _ = call("fingerprint", tmp_path / "with two  spaces.npz")
    assert code == 2 and "with two  spaces.npz" in out
    (tmp_path / "empty").mkdir()
    one_line(*call("fingerprint", tmp_path / "empty"), "no network file")


def test_a_second_run_computes_nothing(
    call: Call, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fiberscope.fibers

    journal = tmp_path / "runs" / "zoo.jsonl"
    journal.parent.mkdir()
    first = call("fingerprint", *files.values(), "--resume", journal)
    content = journal.read_bytes()
    seen = []
    monkeypatch.setattr(fiberscope.fibers, "canonical", lambda *_: seen.append(1))
    assert call("fingerprint", *files.values(), "--resume", journal) == first and first[0] == 0
    assert seen == [] and journal.read_bytes() == content
    monkeypatch.undo()
    fs.save(network((-4, -7)), files["after"], force=True)
    os.utime(files["after"], ns=(1, 1))
    code, out, _ = call("fingerprint", *files.values(), "--resume", journal)
    assert code == 0 and out != first[1] and journal.read_bytes().startswith(content)
    one_line(*call("fingerprint", *files.values(), "--resume", journal, "--activation", "relu"), "zoo.jsonl")
    one_line(*call("fingerprint", *files.values(), "--resume", files["before"]), "before.npz", "not the file of a run")
    one_line(*call("fingerprint", *files.values(), "--resume", journal, "--html", journal, "--force"), "zoo.jsonl")


def test_a_run_that_was_cut_off_goes_on(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    journal = tmp_path / "zoo.jsonl"
    code, whole, _ = call("fingerprint", *files.values(), "--resume", journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    for cut in (b"".join(lines[:2]), b"".join(lines[:2]) + lines[2][:40], lines[0][:10], b""):
        journal.write_bytes(cut)
        assert call("fingerprint", *files.values(), "--resume", journal) == (code, whole, "")


def test_workers_give_the_same(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"")
    alone, many = (json.loads(call("fingerprint", tmp_path, "--json", *more)[1]) for more in ((), ("--workers", "2")))
    assert alone["results"] == many["results"] and alone["groups"] == many["groups"]
    one_line(*call("fingerprint", tmp_path, "--workers", "2", "--cluster", "tcp://127.0.0.1:1"), "workers")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_run_keeps_what_it_finished(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    for seed in range(30):
        fs.save(fs.Network.random((8, 8, 8, 1), activation="relu", seed=seed), folder / f"{seed:02}.npz")
    journal = tmp_path / "zoo.jsonl"
    words = [sys.executable, "-m", "fiberscope", "fingerprint", str(folder), "--resume", str(journal), "--json"]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    running = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while time.monotonic() < until and running.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    kept = journal.read_bytes().splitlines(keepends=True)
    assert len(kept) > 3
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["networks"] == 30
    after = journal.read_bytes().splitlines(keepends=True)
    assert after[: len(kept) - 1] == kept[:-1]
    keys = [json.loads(line).get("key") for line in after[1:] if line.strip().endswith(b"}")]
    assert len(keys) <= 31 and len(set(keys)) == 30


# ---- hostile input

_STEPS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=6)
    | st.sampled_from(["permute", "scale", "flip", "1/0", "9" * 5000, "layer", "move", "inf"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """Two networks that differ, and a certificate that only claims that they do not."""
    folder = tmp_path_factory.mktemp("pair")
    f, g = network(), network((-2, -4.75), -1)
    fs.save(f, folder / "f.npz")
    fs.save(g, folder / "g.npz")
    party = [{"digest": net.digest, "sha256": None} for net in (f, g)]
    ends = {"lower": ["-inf"] * 2, "upper": ["inf"] * 2}
    claim = {"schema": "fiberscope/certificate/1", "kind": "equality", "version": "1", "source": party[0],
             "target": party[1], "domain": ends, "steps": [], "back": []}  # fmt: skip
    return folder / "f.npz", folder / "g.npz", claim


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """Exit code of a command that must not crash: 1 or 2, one line of reason."""
    code = run(argv)
    out, err = capsys.readouterr()
    assert code in (1, 2), (code, out, err)
    assert "Traceback" not in out + err and "bug" not in err
    assert len((out if code == 1 else err).strip().splitlines()) == 1
    return code


FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FUZZ
@given(st.binary(max_size=300))
def test_bytes_are_no_certificate(
    pair: tuple[Path, Path, dict[str, Any]], capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = pair[0].parent / "proof.json"
    path.write_bytes(content)
    assert said(["check", str(path), str(pair[0]), str(pair[1])], capsys) == 2


@FUZZ
@given(st.sampled_from(["steps", "back", "kind", "domain", "source", "schema", "bound", "nodes"]), _STEPS)
def test_json_that_claims_anything_is_never_accepted(
    pair: tuple[Path, Path, dict[str, Any]], capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    path = pair[0].parent / "proof.json"
    path.write_text(json.dumps({**pair[2], key: value}))
    said(["check", str(path), str(pair[0]), str(pair[1])], capsys)


@FUZZ
@given(st.lists(st.sampled_from([
    {"move": "permute", "layer": 0, "order": [1, 0]}, {"move": "permute", "layer": 5, "order": [0]},
    {"move": "scale", "layer": 1, "factors": ["2", "1/3"]}, {"move": "scale", "layer": 0, "factors": ["0", "1"]},
    {"move": "shift", "neuron": 0, "by": "1"}, {"move": "shift", "neuron": 0, "by": "-1"}, {"move": "resolve"},
    {"move": "flip", "layer": 1, "neurons": [0]}, {"move": "absorb", "neurons": [0, 1]}, {"move": "unroll"},
    {"move": "turn", "neuron": 1, "onto": 0, "ratio": "-1/2"}, {"move": "drop", "layer": 1, "neurons": [0]},
    {"move": "clear", "layer": 0, "neurons": [0, 1]}, {"move": "merge", "layer": 0, "pairs": [[0, 1, "1"]]},
    {"move": "flatten"}, {"move": "centre"}, {"move": "stretch", "factor": "2"}, {"move": "round", "dtype": "float16"},
    {"move": "constant", "layer": 1, "neurons": [0], "values": ["0"]},
]), max_size=5), st.booleans())  # fmt: skip
def test_no_chain_of_moves_proves_a_falsehood(
    pair: tuple[Path, Path, dict[str, Any]], capsys: pytest.CaptureFixture[str], moves: list[Any], back: bool
) -> None:
    path = pair[0].parent / "proof.json"
    path.write_text(json.dumps({**pair[2], "back" if back else "steps": moves}))
    said(["check", str(path), str(pair[0]), str(pair[1])], capsys)


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"a":' * 50_000, '{"schema": NaN}', '{"kind": "equality", "kind": "cases"}', "null", "[]", '""',
    "9" * 5000, "\ufeff{}",
])  # fmt: skip
def test_adversarial_json_is_refused(
    pair: tuple[Path, Path, dict[str, Any]], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = pair[0].parent / "proof.json"
    path.write_text(text)
    assert said(["check", str(path), str(pair[0]), str(pair[1])], capsys) == 2


@FUZZ
@given(st.data())
def test_damaged_networks_never_compare_equal(
    pair: tuple[Path, Path, dict[str, Any]], capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    whole = pair[0].read_bytes()
    suffix = data.draw(st.sampled_from([".npz", ".onnx", ".nnet", ".pt", ".safetensors", ".h5"]))
    bad = pair[0].parent / f"bad{suffix}"
    bad.write_bytes(data.draw(st.binary(max_size=120) | st.integers(0, len(whole) - 1).map(lambda n: whole[:n])))
    said(["equal", str(bad), str(pair[1])], capsys)
    code = run(["fingerprint", str(bad)])
    out, err = capsys.readouterr()
    assert code == 2 and "refused: " in out and len(out.strip().splitlines()) == 1 and "fs1" not in out, (out, err)


# ---- alignment


def test_align_writes_the_same_function(call: Call, tmp_path: Path) -> None:
    f = fs.Network.random((3, 5, 4, 2), activation="relu", seed=0)
    (w1, b1), (w2, b2), (w3, b3) = ((la.weight64, la.bias64) for la in f.layers)
    order = [4, 2, 0, 1, 3]
    g = fs.Network.from_arrays((4 * w1[order], 4 * b1[order]), (w2[:, order] / 4, b2), (w3, b3), activation="relu")
    for name, net in (("f", f), ("g", g)):
        fs.save(net, tmp_path / f"{name}.npz")
    code, out, _ = call("align", tmp_path / "f.npz", tmp_path / "g.npz", "-o", tmp_path / "aligned.npz")
    assert code == 0 and "aligned" in out
    assert call("equal", tmp_path / "g.npz", tmp_path / "aligned.npz")[0] == 0
    assert fs.load(tmp_path / "aligned.npz").same_as(f)
    one_line(*call("align", tmp_path / "f.npz", tmp_path / "g.npz", "-o", tmp_path / "aligned.npz"), "exists")
    fs.save(fs.Network.random((3, 6, 4, 2), activation="relu", seed=0), tmp_path / "wide.npz")
    one_line(*call("align", tmp_path / "f.npz", tmp_path / "wide.npz"), "5", "6")


# ---- distance and fiber


def test_distance_answers_with_its_exit_code(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    pair = (files["before"], files["after"], "--budget", "5")
    code, out, _ = call("distance", *pair, "--domain", "[0,9]", "--below", "0.5", "--html", tmp_path / "page.html")
    assert code == 0 and out.startswith("YES") and "asked: 0.5" in (tmp_path / "page.html").read_text(encoding="utf-8")
    code, out, _ = call("distance", *pair, "--domain", "[0,9]", "--below", "0.1")
    assert code == 1 and out.startswith("NO")
    assert call("distance", *pair, "--below", "0.5")[0] == 3
    code, out, _ = call("distance", *pair, "--domain", "[0,9]", "--json")
    data = json.loads(out)
    assert code == 0 and data["answer"] is None and data["lower"] <= 0.25 <= data["upper"]
    x = np.array(data["witness"])
    gap = float(abs(fs.load(files["before"])(x) - fs.load(files["after"])(x)).max())
    assert gap == pytest.approx(data["lower"], abs=1e-12) and 0 <= x.min() <= x.max() <= 9
    for below in ("0", "-1", "nan", "x"):
        one_line(*call("distance", *pair, "--below", below))
    fs.save(fs.Network.random((3, 4, 1), activation="relu", seed=0), tmp_path / "wide.npz")
    one_line(*call("distance", files["before"], tmp_path / "wide.npz", "--domain", "[0,1]"), "2", "3")


def test_a_fiber_is_described(call: Call, files: dict[str, Path], tmp_path: Path) -> None:
    code, out, _ = call("fiber", files["before"], "--html", tmp_path / "page.html")
    assert code == 0 and "dimension: 5" in out and "hidden: neuron 0" in out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Kinks in a slice of input space" in page and "A sampled walk" in page
    code, out, _ = call("fiber", files["before"], "--json")
    data = json.loads(out)
    assert (code, data["dimension"], data["slice"], [h["neuron"] for h in data["hidden_neurons"]]) == (0, 5, None, [0])
    fs.save(fs.Network.random((2, 3, 1), activation="tanh", seed=0), tmp_path / "smooth.npz")
    code, out, _ = call("fiber", tmp_path / "smooth.npz", "--html", tmp_path / "page.html", "--force")
    assert code == 0 and "dimension: 0" in out
