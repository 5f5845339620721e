"""Traces on disk: what a crash leaves, what is refused, resuming, following, and checkpoints read afterwards."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import FormatError, InputError
from fiberscope.network import Network
from fiberscope.training.architectures.chains import chain_architecture
from fiberscope.training.traces.checkpoints import found_checkpoints, step_of, trace_of_checkpoints
from fiberscope.training.traces.reading import Gathered, follow, read_trace
from fiberscope.training.traces.records import MAX_LINE, SCHEMA, Record, TraceWriter, encoded
from fiberscope.training.traces.runs import Trace

HEADER: dict[str, Any] = {"every": 10, "architecture": chain_architecture((2, 3, 1)).to_dict()}


def line(step: int, **scalars: float) -> dict[str, Any]:
    return {"step": step, "time": step / 100, "scalars": scalars}


def written(path: Path, *entries: dict[str, Any], close: bool = True) -> Path:
    writer = TraceWriter(path, HEADER)
    for entry in entries:
        writer.write(entry)
    if close:
        writer.write({"end": {"step": 0, "error": None, "overhead": 0.004}})
    writer.close()
    return path


def trace_with(*entries: dict[str, Any]) -> Trace:
    gathered = Gathered("")
    for entry in ({"schema": SCHEMA, **HEADER}, *entries):
        gathered.add(json.loads(encoded(entry)))
    return gathered.result()


# ---- writing and reading


def test_what_is_written_is_read(tmp_path: Path) -> None:
    near = {"population": "1", "kind": "merge", "neurons": [0, 2], "distance": 0.1, "relative": 0.05, "apart": 0.06}
    full = {
        **line(10, loss=0.5), "layers": {"1": {"neurons": 3}}, "nearest": [near], "laws": [{"name": "q", "drift": 0.1}],
        "histograms": {"1": {"counts": [1, 2]}}, "reason": "none",
    }  # fmt: skip
    found = read_trace(written(tmp_path / "run.jsonl", line(0, loss=1 / 3), full))
    assert found.records[0].scalars == {"loss": 1 / 3} and found.records[1].to_dict() == full
    assert found.complete and not found.torn and found.every == 10 and found.overhead == 0.004
    assert found.populations == (("1", 3, "neurons"),) and found.architecture == chain_architecture((2, 3, 1))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_as_they_were(value: float) -> None:
    again = Record.from_dict(json.loads(encoded(line(1, x=value)))).scalars["x"]
    assert again == value and math.copysign(1.0, again) == math.copysign(1.0, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_becomes_null_with_a_reason(value: float) -> None:
    data = json.loads(encoded({**line(1, loss=value, ok=1.0), "reason": "before"}))
    assert data["scalars"] == {"loss": None, "ok": 1.0} and data["reason"] == "before; loss is not finite"


def test_a_long_record_drops_its_tables_and_says_so(tmp_path: Path) -> None:
    long = {f"layer {k}": {"value": 1 / (k + 1)} for k in range(3000)}
    row = {"population": "1", "kind": "merge", "neurons": [0, 1], "distance": 1.0, "relative": 1.0}
    path = written(tmp_path / "run.jsonl", {**line(1, loss=0.5), "layers": long, "histograms": long, "nearest": [row]})
    assert max(map(len, path.read_bytes().splitlines()[1:])) < MAX_LINE
    record = read_trace(path).records[0]
    assert record.dropped == ("histograms", "layers") and record.nearest == (row,) and not record.layers
    with pytest.raises(InputError, match="fewer scalars"):
        encoded(line(1, **{f"number {k}": 0.0 for k in range(5000)}))


def test_every_cut_of_the_file_is_readable_once_the_header_is_complete(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", *(line(k, loss=k / 7) for k in range(4)))
    data = path.read_bytes()
    ends = [k + 1 for k, c in enumerate(data) if c == 10]
    cut = tmp_path / "cut.jsonl"
    for size in range(ends[0] - 5, len(data) - 1):
        cut.write_bytes(data[:size])
        if size < ends[0] - 1:
            with pytest.raises(FormatError, match="no complete first line"):
                read_trace(cut)
            continue
        found = read_trace(cut)
        whole = sum(1 for end in ends[1:5] if size >= end - 1)  # a line without its newline is whole too
        assert [r.step for r in found.records] == list(range(whole))
        assert found.torn == (size not in ends and size + 1 not in ends) and not found.complete


def test_a_malformed_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", line(0), line(1), line(2))
    lines = path.read_text().splitlines()
    for bad, said in (
        ('{"step": 1, "sca', "line 3 is no JSON"), ("[1]", "line 3 is no JSON object"),
        ('{"step": -1, "scalars": {}}', "line 3 is no measurement"), ('{"step": 1, "scalars": {"a": ""}}', "line 3 h"),
        ('{"step": 1, "scalars": {"a": NaN}}', "line 3 has"), ('{"step": 1, "scalars": {"a": 1e999}}', "line 3 has a"),
        ('{"step": 1, "scalars": {}, "nearest": [3]}', "line 3 is a malformed"), (lines[0], "line 3 begins a second"),
        ('{"step": 1, "scalars": {}, "scalars": {}}', "line 3"),
    ):  # fmt: skip
        path.write_text("\n".join([*lines[:2], bad, *lines[3:]]) + "\n")
        with pytest.raises(FormatError, match=said):
            read_trace(path)


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for text, said in (
        ("", "is empty"), ('{"schema": "fiberscope/trace/2"}\n', "schema 'fiberscope/trace/2'"), ("hello\n", "line 1"),
        ('{"schema": "fiberscope/trace/1", "architecture": {"slots": 3}}\n', "no architecture"),
        ('{"schema": "fiberscope/trace/1"}\n' + "x" * (1 << 20) + "\n{}\n", "longer than"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(FormatError, match=said):
            read_trace(path)
    for place, said in ((tmp_path / "none", "no such file"), (tmp_path, "folder")):
        with pytest.raises(InputError, match=said):
            read_trace(place)


def test_unknown_lines_are_told_not_refused(tmp_path: Path) -> None:
    found = read_trace(
        written(tmp_path / "run.jsonl", line(0), {"later": 1}, {"problem": "a logger failed", "step": 3})
    )
    assert found.problems == ("a line of unknown kind was left out: later", "step 3: a logger failed")


def test_an_existing_file_is_refused_and_force_replaces_it(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", line(0))
    os.chmod(path, 0o640)
    before = path.read_bytes()
    with pytest.raises(InputError, match="resume=True"):
        TraceWriter(path, HEADER)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="a line of"):  # what cannot be begun leaves the old file
        TraceWriter(path, {"x": "y" * (17 << 20)}, force=True)
    assert path.read_bytes() == before
    TraceWriter(path, HEADER, force=True).close()
    assert read_trace(path).records == () and os.listdir(tmp_path) == ["run.jsonl"]
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(InputError, match="cannot be written"):
        TraceWriter(tmp_path / "none" / "run.jsonl", HEADER)


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no advisory locks")
    first = TraceWriter(tmp_path / "run.jsonl", HEADER)
    for how in ({"resume": True}, {"force": True}, {}):
        with pytest.raises(InputError, match="another watcher|exists"):
            TraceWriter(tmp_path / "run.jsonl", HEADER, **how)
    first.write(line(0))
    first.close()
    TraceWriter(tmp_path / "run.jsonl", HEADER, resume=True).close()
    assert len(read_trace(tmp_path / "run.jsonl").records) == 1


@pytest.mark.parametrize("tail", [b"", b'{"step":9,"ti', b'{"step":9,"time":0.1,"scalars":{}}', b"\x00" * 40])
def test_resuming_mends_the_last_line(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path / "run.jsonl", line(0), line(5), close=False)
    with path.open("ab") as stream:
        stream.write(tail)
    writer = TraceWriter(path, HEADER, resume=True)
    writer.write({"resume": {"step": 5}})
    writer.write(line(10))
    writer.close()
    found = read_trace(path)
    assert [r.step for r in found.records] == [0, 5] + ([9] if tail.endswith(b"}") else []) + [10]
    assert not found.torn and found.resumed == (5,)


def test_steps_taken_again_replace_the_earlier_ones() -> None:
    found = trace_with(
        line(0, a=0),
        line(10, a=1),
        line(20, a=2),
        line(30, a=3),
        {"resume": {"step": 30}},
        line(15, a=4),
        line(25, a=5),
    )
    steps, values = found.series("a")
    assert steps.tolist() == [0, 10, 15, 25] and values.tolist() == [0, 1, 4, 5] and found.resumed == (30,)


def test_a_run_that_goes_on_is_not_closed() -> None:
    end = {"end": {"step": 10, "error": "ValueError: x"}}
    assert trace_with(line(10), end).complete and trace_with(line(10), end).error == "ValueError: x"
    for more in (line(20), {"resume": {"step": 10}}):
        assert not trace_with(line(10), end, more).complete and trace_with(line(10), end, more).error is None


@given(st.lists(st.integers(0, 12), max_size=12))
@settings(max_examples=60)
def test_steps_strictly_increase_and_the_last_one_of_each_wins(steps: list[int]) -> None:
    found = trace_with(*(line(step, at=k) for k, step in enumerate(steps)))
    got = [r.step for r in found.records]
    assert all(a < b for a, b in zip(got, got[1:], strict=False))
    # a record survives iff no later one has a step as small
    kept = [(s, k) for k, s in enumerate(steps) if all(later > s for later in steps[k + 1 :])]
    assert [(r.step, r.scalars["at"]) for r in found.records] == kept


def test_copies_of_a_writer_never_write(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run.jsonl", HEADER)
    for other in (copy.deepcopy(writer), pickle.loads(pickle.dumps(writer))):
        with pytest.raises(InputError, match="copy"):
            other.write(line(1))
    writer.write(line(1))
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            os._exit(0 if not writer.is_open else 1)
        assert os.waitpid(child, 0)[1] == 0
    writer.close()
    writer.close()
    assert [r.step for r in read_trace(writer.path).records] == [1]


def test_no_file_is_left_open(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files cannot be listed here")
    before = len(os.listdir("/proc/self/fd"))
    for k in range(5):
        TraceWriter(tmp_path / f"{k}.jsonl", HEADER)  # forgotten, not closed
        with pytest.raises(InputError):
            TraceWriter(tmp_path / f"{k}.jsonl", HEADER)
        TraceWriter(tmp_path / f"{k}.jsonl", HEADER, force=True).close()
        read_trace(tmp_path / f"{k}.jsonl")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TraceWriter(tmp_path / "run.jsonl", HEADER)
    writer.write(line(0))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space"):
        writer.write(line(1))
    monkeypatch.undo()
    writer.write(line(2))
    writer.close()
    found = read_trace(writer.path)
    assert [r.step for r in found.records] == [0, 2] and not found.torn


def test_follow_yields_lines_as_they_come(tmp_path: Path) -> None:
    path, seen, done = tmp_path / "run.jsonl", [], threading.Event()

    def reader() -> None:
        seen.extend(e for e in follow(path, poll=0.005, stop=done.is_set) if e is not None)

    thread = threading.Thread(target=reader)
    thread.start()
    writer = TraceWriter(path, HEADER)
    for k in range(30):
        writer.write(line(k))
    with path.open("ab") as stream:
        stream.write(b'{"step": 30, "sca')  # not yet a line
    writer.close()
    done.set()
    thread.join(10)
    assert [e.get("step", "header") for e in seen] == ["header", *range(30)]


def test_follow_sees_a_replaced_file_and_idles(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", line(0), line(1))
    lines = follow(path, poll=0.001, idle=True)
    assert ["schema" in e for e in (next(lines) for _ in range(4)) if e] == [True, False, False, False]
    assert next(lines) is None
    other = TraceWriter(path, HEADER, force=True)
    for k in range(5):  # no shorter than the old one
        other.write(line(10 + k))
    other.close()
    assert "schema" in (next(e for e in lines if e is not None))
    assert [next(e for e in lines if e is not None)["step"] for _ in range(5)] == [10, 11, 12, 13, 14]
    with path.open("ab") as stream:
        stream.write(b"no json\n")
    with pytest.raises(FormatError, match="line 7"):
        next(e for e in lines if e is not None)


# ---- the result


def test_series_frame_and_thinning() -> None:
    found = trace_with(*(line(k, **({"fiberscope/dead/on_data": k} if k % 2 else {"loss": 1.0})) for k in range(9)))
    steps, values = found.series("dead/on_data")
    assert steps.tolist() == values.tolist() == [1, 3, 5, 7]
    frame = found.to_frame()
    assert {len(column) for column in frame.values()} == {9} and math.isnan(frame["loss"][1])
    assert [r.step for r in found.thinned(3).records] == [0, 4, 8]
    with pytest.raises(InputError, match="no scalar 'none'"):
        found.series("none")
    with pytest.raises(InputError):
        found.thinned(1)


def test_documents_stay_small_and_hold_no_nan() -> None:
    tables = {f"layer{k}": {"dead/on_data": 0.1 * k} for k in range(40)}
    found = trace_with(*({**line(k, loss=1 / (k + 1)), "layers": tables} for k in range(600)))
    text = json.dumps(found.to_dict(), allow_nan=False)
    data = json.loads(text)
    assert len(text) < 300_000 and data["measurements"] == 600 and len(data["records"]) > 50
    assert data["records"][0]["step"] == 0 and data["records"][-1]["step"] == 599


def test_the_report_says_what_was_seen() -> None:
    near = {"population": "fc1", "kind": "merge", "neurons": [3, 7], "distance": 1e-7, "relative": 1e-7, "apart": 2e-7}
    moving = {**near, "neurons": [1, 2], "apart": 5e-3, "exponent": 0.036, "since": 200, "kind": "flip"}
    far = {**near, "neurons": [5, 6], "apart": 0.5}
    scalars = {"laws/drift": 0.42, "laws/predicted_drift": 0.1, "laws/ratio": 4.2, "sims/nearest_distance": 1e-7}
    found = trace_with(
        {"step": 0, "time": 0.0, "scalars": {"loss": 0.5}, "reason": "fc1.weight has 3 entries that are not finite"},
        {
            **line(100, loss=0.25, **{f"fiberscope/{k}": v for k, v in scalars.items()}),
            "nearest": [near, moving, far],
            "layers": {"fc1": {"dead/on_data": 12, "dead/every_input": 3, "dead/units": 512}},
        },
    )  # fmt: skip
    text = str(found)
    assert "neurons 3 and 7 of fc1 move together (2e-07 of their size apart)" in text
    assert "neurons 1 and 2 of fc1 moved together and separate with opposite signs" in text
    assert "exp(0.036 step) since step 200" in text and "5 and 6" not in text
    assert "12 of 512 units of fc1 dead on the data, 3 for every input" in text
    assert "4.2 times what the optimiser explains (0.1)" in text
    assert "from step 0: fc1.weight has 3 entries that are not finite" in text
    assert "0.25" in text and "not closed" in text and len(text.splitlines()) < 25
    calm = trace_with(line(0, **{"fiberscope/laws/drift": 0.1, "fiberscope/laws/predicted_drift": 0.1,
                                 "fiberscope/laws/ratio": 1.02}))  # fmt: skip
    assert calm.warnings == ()
    assert "nothing was measured" in str(trace_with())


# ---- checkpoints

ARCHITECTURE = chain_architecture((2, 3, 1), names=["fc1", "fc2"], activation="relu")


def weights(k: int) -> dict[str, Any]:
    rng = np.random.default_rng(k)
    first = rng.standard_normal((3, 2)).astype(np.float32)
    first[1] = first[0] + np.float32(0.5**k)
    second = rng.standard_normal((1, 3)).astype(np.float32)
    second[:, 1] = second[:, 0]
    bias = np.zeros(3, np.float32)
    return {"fc1.weight": first, "fc1.bias": bias, "fc2.weight": second, "fc2.bias": np.zeros(1, np.float32)}


def distances(trace: Trace) -> list[float]:
    return trace.series("sims/nearest_distance")[1].tolist()


EXPECTED = [math.sqrt(2) * 0.5**k / math.sqrt(2) for k in range(6, 11)]  # two entries differ by 0.5^k


def test_safetensors_checkpoints_in_the_order_of_steps(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    for k in range(6, 11):
        (tmp_path / f"checkpoint-{k * 100}").mkdir()
        save_file(weights(k), tmp_path / f"checkpoint-{k * 100}" / "model.safetensors")
        (tmp_path / f"checkpoint-{k * 100}" / "optimizer.pt").write_bytes(b"not read")
    (tmp_path / "checkpoint-1100").mkdir()
    (tmp_path / "checkpoint-1100" / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    (tmp_path / "checkpoint-900" / "model-00001-of-00002.safetensors").write_bytes(b"part")
    seen: list[float | None] = []
    found = trace_of_checkpoints(tmp_path, activation="relu", progress=lambda part, text: seen.append(part))
    assert [r.step for r in found.records] == [600, 700, 800, 900, 1000] and found.every == 100
    np.testing.assert_allclose(distances(found), EXPECTED, rtol=1e-3)
    assert found.architecture == ARCHITECTURE and found.complete and seen == sorted(seen) and len(seen) == 6
    reasons = {row.name: row.reason for row in found.skipped}
    assert "declares a header" in reasons["checkpoint-1100/model.safetensors"]
    assert "several parts" in reasons["checkpoint-900/model-00001-of-00002.safetensors"]
    assert "optimizer.pt and 4 more" in " ".join(reasons) and "skipped checkpoint-1100/model" in str(found)


def test_torch_checkpoints_with_prefixes_and_a_corrupt_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for k in range(6, 11):
        state = {f"model.{name}": torch.from_numpy(value.copy()) for name, value in weights(k).items()}
        torch.save({"state_dict": state, "epoch": k, "optimizer_states": [{"lr": 0.1}]}, tmp_path / f"epoch={k}.ckpt")
    whole = (tmp_path / "epoch=8.ckpt").read_bytes()
    (tmp_path / "epoch=8.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "last.ckpt").write_bytes(whole)
    found = trace_of_checkpoints(tmp_path, architecture=ARCHITECTURE)
    assert [r.step for r in found.records] == [6, 7, 9, 10]
    np.testing.assert_allclose(distances(found), [EXPECTED[k] for k in (0, 1, 3, 4)], rtol=1e-3)
    reasons = {row.name: row.reason for row in found.skipped}
    assert set(reasons) == {"epoch=8.ckpt", "last.ckpt"} and "no number" in reasons["last.ckpt"]


class Evil:
    """Would leave a file if its pickle were executed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_no_pickle_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "step1.pt").write_bytes(pickle.dumps(Evil(mark), protocol=2))
    np.savez(tmp_path / "step2.npz", **{"fc1.weight": np.array([Evil(mark)], dtype=object)})
    np.savez(tmp_path / "step3.npz", **weights(3))
    found = trace_of_checkpoints(tmp_path, activation="relu")
    assert [r.step for r in found.records] == [3] and not mark.exists()
    assert {row.name for row in found.skipped} == {"step1.pt", "step2.npz"}


def test_checkpoints_of_another_shape_are_named(tmp_path: Path) -> None:
    for k in range(3):
        np.savez(tmp_path / f"step{k}.npz", **weights(k))
    np.savez(tmp_path / "step7.npz", **{**weights(7), "fc1.weight": np.ones((4, 2))})
    np.savez(tmp_path / "step8.npz", other=np.ones(3))
    bad = weights(9)
    bad["fc1.weight"] = np.full((3, 2), np.nan, np.float32)
    np.savez(tmp_path / "step9.npz", **bad)
    found = trace_of_checkpoints(tmp_path, architecture=ARCHITECTURE)
    assert [r.step for r in found.records] == [0, 1, 2, 9]
    assert "shape (4, 2)" in next(row.reason for row in found.skipped if row.name == "step7.npz")
    assert found.records[-1].reason == "fc1.weight has 6 entries that are not finite"


def test_networks_saved_by_us_need_no_activation(tmp_path: Path) -> None:
    from fiberscope.io import save

    for k in range(3):
        pairs = [(weights(k)[f"fc{j}.weight"], weights(k)[f"fc{j}.bias"]) for j in (1, 2)]
        save(Network.from_arrays(*pairs, activation="tanh"), tmp_path / f"net_{k}.safetensors")
    found = trace_of_checkpoints(tmp_path)
    assert [r.step for r in found.records] == [0, 1, 2]
    assert found.architecture is not None and found.architecture.populations[0].signs


def test_the_order_without_numbers_is_that_of_writing(tmp_path: Path) -> None:
    for k, name in enumerate(["b", "c", "a"]):
        np.savez(tmp_path / f"{name}.npz", **weights(k))
        os.utime(tmp_path / f"{name}.npz", (1000 + k, 1000 + k))
    files, _ = found_checkpoints(tmp_path)
    assert [(f.name, f.step) for f in files] == [("b.npz", 0), ("c.npz", 1), ("a.npz", 2)]


def test_one_step_twice_prefers_safetensors(tmp_path: Path) -> None:
    for name in ("step10.pt", "step10.safetensors", "step9.pt"):
        (tmp_path / name).write_bytes(b"")
    files, skipped = found_checkpoints(tmp_path)
    assert [f.name for f in files] == ["step9.pt", "step10.safetensors"] and skipped[0].name == "step10.pt"


@pytest.mark.parametrize(
    ("name", "step"),
    [("a/epoch=3-step=300.ckpt", 300), ("checkpoint-500/model.safetensors", 500), ("model_12.pt", 12),
     ("run2/best.pt", 2), ("final.pt", None), ("global_step1500/x.pt", 1500), ("v2/ckpt_7_of_9.npz", 7)],
)  # fmt: skip
def test_steps_in_names(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_folders_without_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        trace_of_checkpoints(tmp_path / "none")
    with pytest.raises(InputError, match="no checkpoints"):
        trace_of_checkpoints(tmp_path)
    np.savez(tmp_path / "step1.npz", **weights(1))
    with pytest.raises(InputError, match="activation"):
        trace_of_checkpoints(tmp_path)


def test_a_budget_ends_the_reading(tmp_path: Path) -> None:
    for k in range(4):
        np.savez(tmp_path / f"step{k}.npz", **weights(k))
    found = trace_of_checkpoints(tmp_path, activation="relu", budget=0)
    assert len(found.records) == 1 and found.problems == ("the budget ended after 1 of 4 checkpoints",)
