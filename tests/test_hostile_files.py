"""Files made to do harm: one clear line, nothing executed, memory and time bounded."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import FormatError, InputError
from fiberscope.io import encode, load
from fiberscope.io.files import zip_bytes
from fiberscope.io.torch_pickle_writer import Writer
from fiberscope.network import Network

NET = Network.random((3, 4, 2), seed=0)
SUFFIXES = (".npz", ".safetensors", ".pt", ".zip", ".nnet")


def valid(suffix: str) -> bytes:
    """A small good file."""
    if suffix != ".zip":
        return encode(NET, "x" + suffix)[0]
    tensors = {}
    for layer, name in zip(NET.layers, ("action_net.0", "action_net.2"), strict=True):
        tensors |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    writer = Writer()
    entries = {"a/data.pkl": writer.dumps(tensors)} | {f"a/data/{k}": b for k, b in enumerate(writer.storages)}
    return zip_bytes({"data": b"{}", "policy.pth": zip_bytes(entries)})


GOOD = {suffix: valid(suffix) for suffix in SUFFIXES}


def outcome(path: Path, data: bytes) -> str:
    """ "read", or the one line of the refusal; anything else fails the test."""
    path.write_bytes(data)
    try:
        load(path, activation="relu")
    except InputError as exc:
        text = str(exc)
        assert "\n" not in text and len(text) < 1500
        assert text.startswith(str(path))
        return text
    return "read"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_good_files_are_good(suffix, tmp_path):
    assert outcome(tmp_path / f"a{suffix}", GOOD[suffix]) == "read"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files_are_refused(suffix, tmp_path):
    data = GOOD[suffix]
    for cut in [*range(min(64, len(data))), *range(64, len(data) - 1, max(1, len(data) // 200))]:
        text = outcome(tmp_path / f"a{suffix}", data[:cut])
        # the last characters of a text may be dispensable, of a binary file never
        assert text != "read" or (suffix == ".nnet" and cut > len(data) - 20), cut


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".h5", ".keras"])
@settings(max_examples=10 if os.name == "posix" else 3)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(suffix, data, tmp_path_factory):
    if suffix in (".h5", ".keras"):
        pytest.importorskip("h5py")
    assert outcome(tmp_path_factory.mktemp("r") / f"a{suffix}", data) != "read"


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=150)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_one_line(suffix, data, tmp_path_factory):
    raw = bytearray(GOOD[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 8, b"9", b"-", b"..", b"\n"]))
        how = data.draw(st.sampled_from(["write", "insert", "cut"]))
        raw[at : at + (0 if how == "insert" else len(piece))] = b"" if how == "cut" else piece
        if not raw:
            break
    outcome(tmp_path_factory.getbasetemp() / f"fuzz{suffix}", bytes(raw))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("other", SUFFIXES)
def test_a_wrong_suffix_is_noticed(suffix, other, tmp_path):
    if suffix != other and {suffix, other} != {".pt", ".zip"}:
        assert outcome(tmp_path / f"a{suffix}", GOOD[other]) != "read"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt", ".zip", ".nnet"])
def test_weights_that_are_not_finite_are_refused(suffix, value, tmp_path):
    number = NET.layers[1].weight[1, 2]
    if suffix == ".nnet":
        data = GOOD[suffix].replace(repr(float(number)).encode(), str(value).encode())
    else:
        plain = GOOD[suffix]
        assert plain.count(struct.pack("<d", number)) == 1
        data = rezipped(plain, struct.pack("<d", number), struct.pack("<d", value))
    assert "weights must be finite" in outcome(tmp_path / f"a{suffix}", data)


def rezipped(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace bytes inside stored entries, keeping checksums right; nested archives too."""
    if data[:2] != b"PK":
        return data.replace(old, new)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zip_bytes({name: rezipped(archive.read(name), old, new) for name in archive.namelist()})


# ---- code


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("call", [os.system, exec, eval, subprocess.Popen, getattr, io.open])
def test_code_is_never_executed(call, protocol, tmp_path):
    proof = tmp_path / "proof"
    code = pickle.dumps({"0.weight": Evil(call, f"touch {proof}")}, protocol=protocol)
    archive = zip_bytes({"a/data.pkl": code, "a/version": b"3"})
    texts = [
        outcome(tmp_path / "a.pt", archive),
        outcome(tmp_path / "b.zip", zip_bytes({"policy.pth": archive, "data": b"{}"})),
        outcome(tmp_path / "c.pt", code),
        outcome(tmp_path / "d.npz", zip_bytes({"W1.npy": npy("|O", (1,), code)})),
    ]
    assert "read" not in texts
    assert not proof.exists()
    assert "nothing was executed" in texts[0] or protocol < 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "b.zip", "c.pt", "d.npz"]


@pytest.mark.parametrize(
    "opcode", [b"i", b"o", b"\x81", b"\x92", b"\x82", b"\x83", b"\x84", b"P", b"\x97", b"\x98", b"2"]
)
def test_opcodes_that_no_state_dict_needs_are_refused(opcode, tmp_path):
    body = {
        b"i": b"iposix\nsystem\n",
        b"P": b"P0\n",
        b"\x82": b"\x82\x01",
        b"\x83": b"\x83\x01\0",
        b"\x84": b"\x84\x01\0\0\0",
    }
    code = b"\x80\x02((K\x01" + body.get(opcode, opcode) + b"."
    text = outcome(tmp_path / "a.pt", zip_bytes({"a/data.pkl": code}))
    assert "nothing was executed" in text or "damaged" in text


# ---- sizes


def npy(kind: str, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def pickled(*opcodes: bytes) -> bytes:
    return zip_bytes({"a/data.pkl": b"\x80\x02" + b"".join(opcodes) + b"."})


def storage(kind: bytes, count: int, shape: bytes, strides: bytes) -> bytes:
    """A pickle {"0.weight": tensor} over one storage "0" of 16 bytes."""
    number = b"\x8a\x08" + count.to_bytes(8, "little")
    token = b"(X\x07\0\0\0storagectorch\n" + kind + b"\nX\x01\0\0\x000X\x03\0\0\0cpu" + number + b"tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + token + b"K\0" + shape + strides + b"\x89NtR"
    code = b"\x80\x02}X\x08\0\0\x000.weight" + call + b"s."
    return zip_bytes({"a/data.pkl": code, "a/data/0": b"\0" * 16})


def deflated(name: str, size: int) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as stream,
    ):
        for _ in range(size >> 20):
            stream.write(b"\0" * (1 << 20))
    return out.getvalue()


BIG = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")

BOMBS = {
    "npz declares 2^60 entries": (".npz", zip_bytes({"W1.npy": npy("<f8", (1 << 30, 1 << 30))})),
    "npz declares a long text": (".npz", zip_bytes({"W1.npy": npy(f"<U{1 << 28}", (1,))})),
    "npz of zeros": (".npz", lambda: deflated("W1.npy", 300 << 20)),
    "pt of zeros": (".pt", lambda: deflated("a/data.pkl", 300 << 20)),
    "sb3 of zeros": (".zip", lambda: deflated("policy.pth", 300 << 20)),
    "pt with a long pickle": (".pt", lambda: deflated("a/data.pkl", 60 << 20)),
    "pickle with a long text": (".pt", pickled(b"X\xff\xff\xff\x7f")),
    "pickle with a longer text": (".pt", pickled(b"\x8d" + (1 << 60).to_bytes(8, "little"))),
    "pickle with a long integer": (".pt", pickled(b"\x8b\xff\xff\xff\x7f")),
    "pickle with a memo far away": (".pt", pickled(b"N", b"r\xff\xff\xff\xff")),
    "pickle with a long frame": (".pt", pickled(b"\x95" + (1 << 60).to_bytes(8, "little"))),
    "storage larger than its entry": (".pt", storage(b"FloatStorage", 1 << 40, BIG + b"\x85", b"K\x01\x85")),
    "tensor larger than its storage": (".pt", storage(b"FloatStorage", 4, b"K\x02" + BIG + b"\x86", b"K\0K\0\x86")),
    "tensor with strides that leave": (".pt", storage(b"FloatStorage", 4, b"K\x02K\x02\x86", BIG + b"K\x01\x86")),
    "unknown storage": (".pt", storage(b"ComplexFloatStorage", 2, b"K\x01K\x01\x86", b"K\x01K\x01\x86")),
    "safetensors with a long header": (".safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
    "safetensors nested deeply": (".safetensors", (200_000).to_bytes(8, "little") + b"[" * 200_000),
    "nnet with many layers": (".nnet", b"1000000000,2,1,3,\n2,3,1,\n"),
    "nnet with wide layers": (".nnet", b"2,2,1,3,\n2,1000000000,1,\n0\n"),
    "nnet with an endless number": (".nnet", b"9" * 100_000 + b",2,1,3,\n"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_declared_sizes_cost_nothing(name, tmp_path):
    suffix, data = BOMBS[name]
    data = data() if callable(data) else data  # long ones are made when they are wanted
    tracemalloc.start()
    start = time.process_time()
    try:
        text = outcome(tmp_path / f"a{suffix}", data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text != "read"
    assert peak < (100 << 20) + 20 * len(data)
    assert time.process_time() - start < 20


def test_the_same_block_of_numbers_is_not_copied_many_times(tmp_path):
    # 3,000 matrices that are all views of one storage of 4 MB would be 12 GB of layers
    numbers = np.zeros((1000, 1000), np.float32)
    writer = Writer()
    code = writer.dumps({f"{k}.weight": numbers for k in range(3)})
    shared = code.replace(b"X\x01\0\0\x001", b"X\x01\0\0\x000").replace(b"X\x01\0\0\x002", b"X\x01\0\0\x000")
    one = shared[4 : shared.index(b"1.weight") - 5]
    body = b"".join(one.replace(b"X\x08\0\0\x000.weight", b"X\x0b\0\0\0%04d.weight" % k) for k in range(3000))
    code = b"\x80\x02}(" + body + b"u."
    data = zip_bytes({"a/data.pkl": code, "a/data/0": writer.storages[0]}, compress=False)
    text = outcome(tmp_path / "a.pt", data)
    assert "overlap so much" in text


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:\\x"])
@pytest.mark.parametrize("suffix", [".npz", ".pt", ".zip"])
def test_entries_that_leave_the_folder_are_refused(name, suffix, tmp_path):
    with zipfile.ZipFile(io.BytesIO(GOOD[suffix])) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    assert "leaves the archive's folder" in outcome(tmp_path / f"a{suffix}", zip_bytes({**entries, name: b"1"}))
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_a_storage_name_with_a_path_reads_no_file(tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    data = storage(b"FloatStorage", 4, b"K\x02K\x02\x86", b"K\x02K\x01\x86").replace(
        b"X\x01\0\0\x000", b"X\x09\0\0\0../secret"
    )
    assert outcome(tmp_path / "a.pt", data) != "read"


def test_special_files_are_refused(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "a.npz")
    for path in (tmp_path / "a.npz", Path("/dev/zero")):
        with pytest.raises(InputError, match="no regular file"):
            load(path)


# ---- HDF5, whose library is C


def hdf5() -> bytes:
    pytest.importorskip("h5py")
    return encode(NET, "x.h5")[0]


def test_hdf5_files_cut_or_damaged_are_refused_even_if_the_library_crashes(tmp_path):
    data = hdf5()
    rng = np.random.default_rng(0)
    assert outcome(tmp_path / "a.h5", data) == "read"
    for cut in (0, 8, 100, len(data) // 2, len(data) - 1):
        assert outcome(tmp_path / "a.h5", data[:cut]) != "read"
    for _ in range(15):
        raw = bytearray(data)
        for at in rng.integers(0, len(raw), 8):
            raw[at] = int(rng.choice([0, 255, 127, 128]))
        outcome(tmp_path / "a.h5", bytes(raw))


def test_a_crash_of_the_hdf5_library_is_one_line(tmp_path, monkeypatch):
    data = hdf5()
    stub = tmp_path / "crash.py"
    stub.write_text("import os\nos.abort()\n")
    from fiberscope.io import keras_hdf5

    monkeypatch.setattr(keras_hdf5, "__file__", str(stub))
    assert "the HDF5 library crashed on it" in outcome(tmp_path / "a.h5", data)


@pytest.mark.parametrize(
    "answer", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x14\0\0\0\0\0\0\0" + b'{"__metadata__": [1]}']
)
def test_the_answer_of_the_child_is_not_trusted(answer, tmp_path, monkeypatch):
    from fiberscope.io import keras_hdf5

    data = hdf5()
    monkeypatch.setattr(keras_hdf5, "ask", lambda *_: answer)
    assert outcome(tmp_path / "a.h5", data) != "read"


def test_reading_imports_no_framework():
    """A .pt file needs no torch; and none is imported even where it is installed."""
    code = (
        "import sys, numpy, pathlib, tempfile\n"
        "from fiberscope.io import load, save\n"
        "from fiberscope.network import Network\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "for s in ('.pt', '.npz', '.safetensors', '.nnet'):\n"
        "    save(Network.random((2, 3, 1), seed=0), folder / f'a{s}')\n"
        "    load(folder / f'a{s}', activation='relu')\n"
        "print(sorted({'torch', 'jax', 'h5py', 'onnx', 'safetensors'} & set(sys.modules)))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"


def test_format_errors_are_input_errors():
    assert issubclass(FormatError, InputError)
