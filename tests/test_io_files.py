"""Reading and writing bytes, the table of formats, and what `load` and `save` promise for all of them."""

from __future__ import annotations

import io
import os
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.io import FORMATS, encode, format_of, load, save
from fiberscope.io.files import Archive, atomic_write, read_bytes, read_json, replacements, zip_bytes
from fiberscope.network import Network
from oracles import hdf5_answer

SUFFIXES = (".npz", ".safetensors", ".pt", ".pth", ".nnet", ".h5")


def test_atomic_write_refuses_to_overwrite_and_leaves_no_trace(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write(path, b"one")
    with pytest.raises(InputError, match="exists; use --force"):
        atomic_write(path, b"two")
    assert path.read_bytes() == b"one"
    atomic_write(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(InputError, match="No space left"):
        atomic_write(path, b"new", force=True)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_link_is_not_followed_unless_forced(tmp_path):
    target = tmp_path / "precious"
    target.write_bytes(b"keep")
    (tmp_path / "link.bin").symlink_to(target)
    with pytest.raises(InputError, match="exists"):
        atomic_write(tmp_path / "link.bin", b"x")
    assert target.read_bytes() == b"keep"


def test_read_bytes_says_what_is_wrong_in_one_line(tmp_path):
    for path, words in ((tmp_path / "none", "no such file"), (tmp_path, "folder")):
        with pytest.raises(InputError, match=words) as caught:
            read_bytes(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(InputError, match="5 bytes; at most 4"):
        read_bytes(tmp_path / "big", limit=4)


def test_archives_refuse_paths_that_leave_the_folder():
    for name in ("../x", "a/../../x", "/etc/passwd", "C:/x", "..\\x"):
        with pytest.raises(FormatError, match="leaves the archive's folder"):
            Archive(zip_bytes({name: b"1"}))


def test_archives_refuse_bombs_before_reading_them():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * (80 << 20))
    with pytest.raises(FormatError, match="declare 83,886,080 bytes"):
        Archive(out.getvalue())


def test_archives_refuse_a_size_that_is_a_lie():
    data = bytearray(zip_bytes({"a": b"x" * 100}, compress=True))
    at = data.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    data[at : at + 4] = (50).to_bytes(4, "little")
    with pytest.raises(FormatError):
        Archive(bytes(data)).read("a")


def test_zip_bytes_are_reproducible():
    assert zip_bytes({"a": b"1"}) == zip_bytes({"a": b"1"})


@pytest.mark.parametrize("text", ["{", '{"a":1,"a":2}', "[" * 100_000, b"\xff\xfe\x00"])
def test_json_that_is_damaged_or_ambiguous_is_refused(text):
    with pytest.raises(FormatError, match="no valid JSON"):
        read_json(text, "header")


def test_formats_are_found_by_suffix_and_by_magic(tmp_path):
    net = Network.random((2, 3, 1), seed=0)
    for suffix, name in ((".pt", "torch"), (".npz", "npz"), (".safetensors", "safetensors"), (".nnet", "nnet")):
        data, _ = encode(net, "x" + suffix)
        path = tmp_path / f"weights_{name}"
        path.write_bytes(data)
        assert format_of(path).name == name
        assert load(path, activation="relu").same_as(net)
    assert format_of("a.ONNX").name == "onnx"
    (tmp_path / "what").write_bytes(b"hello world, I am no network")
    with pytest.raises(InputError, match=r"unknown format \(no suffix\); known are .*\.onnx.*\.keras"):
        load(tmp_path / "what")


def test_the_table_of_formats_has_no_suffix_twice():
    suffixes = [s for row in FORMATS for s in row.suffixes]
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize("suffix", [".zip", ".keras", ".txt", ""])
def test_formats_that_cannot_be_written_are_named(tmp_path, suffix):
    with pytest.raises(InputError, match=r"\.onnx"):
        save(Network.random((2, 3, 1), seed=0), tmp_path / f"a{suffix}")
    assert os.listdir(tmp_path) == []


def test_save_refuses_missing_folders_and_existing_files(tmp_path):
    net = Network.random((2, 3, 1), seed=0)
    with pytest.raises(InputError, match="no folder"):
        save(net, tmp_path / "no" / "a.npz")
    save(net, tmp_path / "a.npz")
    with pytest.raises(InputError, match="--force"):
        save(net, tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trips_are_exact_bit_for_bit(suffix, tmp_path_factory, monkeypatch):
    if suffix == ".h5":
        pytest.importorskip("h5py")
        from fiberscope.io import keras_hdf5

        monkeypatch.setattr(keras_hdf5, "ask", hdf5_answer)
    round_trip(suffix, tmp_path_factory)


@settings(max_examples=25)
@given(data=st.data())
def round_trip(suffix, tmp_path_factory, data):
    wide = suffix == ".nnet" or data.draw(st.booleans())
    widths = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    dtype = np.float64 if wide else np.float32
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=64 if wide else 32)
    pairs = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        flat = data.draw(st.lists(numbers, min_size=n_out * (n_in + 1), max_size=n_out * (n_in + 1)))
        values = np.array(flat, dtype=dtype)
        pairs.append((values[: n_out * n_in].reshape(n_out, n_in), values[n_out * n_in :]))
    net = Network.from_arrays(*pairs, activation="relu")
    path = tmp_path_factory.mktemp("round") / f"net{suffix}"
    save(net, path)
    again = load(path, activation="relu")
    assert again.same_as(net)
    for a, b in zip(net.layers, again.layers, strict=True):
        assert a.weight.astype(dtype).tobytes() == b.weight.tobytes() or suffix == ".nnet"
        assert np.array_equal(np.signbit(a.weight), np.signbit(b.weight))  # -0.0 too
    assert again.source.parameter_count == net.parameter_count == sum(int(np.prod(s)) for _, s in again.source.tensors)
    # a copy of the file, put back unchanged, is the same network again
    copy = path.with_name(f"copy{suffix}")
    assert save(again, copy, drop_in=True).is_file()
    assert load(copy, activation="relu").same_as(net)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_smaller_layers_go_into_a_copy_of_the_file(suffix, tmp_path):
    pytest.importorskip("h5py") if suffix == ".h5" else None
    net = Network.random((3, 5, 4, 2), seed=1)
    save(net, tmp_path / f"a{suffix}")
    read = load(tmp_path / f"a{suffix}", activation="relu")
    smaller = shrunk(read)
    save(smaller, tmp_path / f"b{suffix}", drop_in=True)
    again = load(tmp_path / f"b{suffix}", activation="relu")
    assert again.widths == (3, 4, 4, 2)
    assert again.same_as(smaller)
    assert [n for n, _ in again.source.tensors] == [n for n, _ in read.source.tensors]


def shrunk(net):
    """The network without the last neuron of its first layer."""
    from dataclasses import replace

    first, second, *rest = net.layers
    return net.with_layers(
        [
            replace(first, weight=first.weight[:-1], bias=first.bias[:-1]),
            replace(second, weight=second.weight[:, :-1]),
            *rest,
        ]
    )


def test_a_changed_original_is_not_copied(tmp_path):
    save(Network.random((2, 3, 1), seed=0), tmp_path / "a.npz")
    read = load(tmp_path / "a.npz")
    save(Network.random((2, 3, 1), seed=1), tmp_path / "a.npz", force=True)
    assert encode(read, tmp_path / "b.npz")[1] is False
    assert save(read, tmp_path / "b.npz") == tmp_path / "b.npz"
    with pytest.raises(UnsupportedError, match="has changed since it was read"):
        save(read, tmp_path / "c.npz", drop_in=True)


def test_nothing_is_rounded_on_the_way(tmp_path):
    third = Network.from_arrays(([[Fraction(1, 3)]], [0]), ([[1]], [0]), activation="relu")
    for suffix in (".npz", ".pt", ".nnet"):
        with pytest.raises(InputError, match=r"layer 1: weight\[0, 0\] = 1/3 is no float64; .*\.safetensors"):
            save(third, tmp_path / f"a{suffix}")
    wide = Network.from_arrays(([[0.1]], [0.0]), activation="relu")
    with pytest.raises(InputError, match="is no float32"):
        save(wide, tmp_path / "a.npz", dtype="float32")
    for dtype in ("int32", "nonsense"):
        with pytest.raises(InputError, match="float16, float32 or float64"):
            save(wide, tmp_path / "a.npz", dtype=dtype)
    assert os.listdir(tmp_path) == []


def test_a_bias_that_the_file_does_not_have_is_not_put_into_a_copy(tmp_path):
    data = {"W1": np.ones((2, 2)), "W2": np.ones((1, 2)), "b2": np.zeros(1), "activation": np.array("relu")}
    np.savez(tmp_path / "a.npz", **data)
    net = load(tmp_path / "a.npz")
    from dataclasses import replace

    moved = net.with_layers([replace(net.layers[0], bias=np.array([1.0, 0.0])), net.layers[1]])
    with pytest.raises(UnsupportedError, match="layer 1 has no bias in the file"):
        replacements(net, moved, {"W1": "f8", "W2": "f8", "b2": "f8"})
    assert encode(moved, tmp_path / "b.npz")[1] is False
    assert save(moved, tmp_path / "b.npz") == tmp_path / "b.npz"
    assert load(tmp_path / "b.npz").same_as(moved)


def test_load_refuses_what_is_no_network():
    for value in (3, [1, 2], None, object()):
        with pytest.raises(InputError, match="cannot read a network from a"):
            load(value)


def test_errors_are_one_line_even_if_names_are_not(tmp_path):
    np.savez(tmp_path / "a.npz", **{"evil\nname.weight": np.ones((2, 2, 2))})
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_save_returns_the_path(tmp_path):
    net = Network.random((2, 3, 1), seed=0)
    assert load(save(net, str(tmp_path / "a.npz"))) == net
    for path in (None, 3, net):
        with pytest.raises(InputError, match=r"the order is save\(network, path\)"):
            save(net, path)
    with pytest.raises(InputError, match="the path is empty"):
        load("")


def test_paths_may_be_of_any_kind(tmp_path):
    class Place(os.PathLike):
        def __fspath__(self):
            return str(tmp_path / "net.npz")

    net = Network.random((2, 3, 1), seed=0)
    assert save(net, Place()) == tmp_path / "net.npz" and load(Place()) == net
    for wrong in (b"net.npz", 3, None):
        with pytest.raises(InputError, match="the order is save"):
            save(net, wrong)
