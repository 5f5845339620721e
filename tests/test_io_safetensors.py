"""safetensors: our own files keep everything, others need names that show the chain."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.io import load, save
from fiberscope.network import Network


def packed(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@given(st.lists(st.fractions(), min_size=6, max_size=6))
def test_rational_networks_are_kept_exactly(tmp_path_factory, numbers):
    w = np.array(numbers[:4], dtype=object).reshape(2, 2)
    net = Network.from_arrays(
        (w, numbers[4:]), ([[Fraction(1, 3), 0.5]], [0.0]), activation=activation("elu", 0.3), head="argmax"
    )
    path = tmp_path_factory.mktemp("q") / "a.safetensors"
    save(net, path)
    again = load(path)
    assert again.same_as(net)
    assert again.digest == net.digest


def test_architecture_names_and_dtypes_are_kept(tmp_path):
    net = Network.random((2, 3, 1), activation="tanh", seed=0, dtype=np.float32)
    save(net, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    assert again.same_as(net) and again.layers[0].weight.dtype == np.float32
    assert again.layers[0].weight_name == "layers.0.weight"
    assert again.dtype == np.float32


def test_the_reference_package_reads_ours(tmp_path):
    official = pytest.importorskip("safetensors.numpy")
    net = Network.random((2, 3, 1), seed=0)
    save(net, tmp_path / "a.safetensors")
    tensors = official.load_file(tmp_path / "a.safetensors")
    assert tensors["layers.1.weight"].tolist() == net.layers[1].weight.tolist()


def test_ours_reads_the_reference_package(tmp_path):
    official = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    weights = {f"net.{2 * k}.weight": rng.standard_normal((3, 3)).astype("f4") for k in range(12)}  # "net.10" < "net.2"
    official.save_file(weights, tmp_path / "a.safetensors")
    net = load(tmp_path / "a.safetensors", activation="relu")
    for k, layer in enumerate(net.layers):
        assert layer.weight.tolist() == weights[f"net.{2 * k}.weight"].tolist()


def test_bfloat16_is_widened_exactly(tmp_path):
    numbers = np.array([[1.0, -2.5], [3.0, 0.15625]], "f4")
    bits = (numbers.view("u4") >> 16).astype("<u2").tobytes()
    entry = {"w.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    (tmp_path / "a.safetensors").write_bytes(packed(entry, bits))
    net = load(tmp_path / "a.safetensors")
    assert net.layers[0].weight.tolist() == numbers.tolist()
    assert "bfloat16" in net.source.notes[0]
    assert save(net, tmp_path / "b.safetensors", drop_in=True).is_file()
    assert load(tmp_path / "b.safetensors").same_as(net)


def test_an_open_order_is_refused(tmp_path):
    official = pytest.importorskip("safetensors.numpy")
    square = {name: np.eye(2, dtype="f4") for name in ("down.weight", "up.weight")}
    official.save_file(square, tmp_path / "a.safetensors")
    with pytest.raises(UnsupportedError, match="keeps no order"):
        load(tmp_path / "a.safetensors", activation="relu")
    one_way = {"output.weight": np.ones((1, 3), "f4"), "hidden.weight": np.ones((3, 2), "f4")}
    official.save_file(one_way, tmp_path / "b.safetensors")
    assert load(tmp_path / "b.safetensors", activation="relu").widths == (2, 3, 1)


GOOD = {"w.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has 0 bytes"),
        (b"\xff" * 8, "declares a header of"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "declares a header of"),
        (packed(b"{nonsense"), "no valid JSON"),
        (packed([1]), "no JSON object"),
        (packed({"w": 3}), "malformed"),
        (packed({"w": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 4]}}, b"\0" * 4), "malformed"),
        (packed({"w": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4), "malformed"),
        (packed({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, b"\0" * 4), "needs"),
        (packed({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8), "begins at byte 4"),
        (packed({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4), "has offsets"),
        (packed({**GOOD, "v": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4), "overlap"),
        (packed(GOOD, b"\0" * 8), "its tensors take 4"),
        (packed({"w": {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]}}, b"\0"), "dtype F8"),
        (packed({**GOOD, "__metadata__": [1]}, b"\0" * 4), "no texts"),
        (packed({"w.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}, b"\0\0\xc0\x7f"), "is nan"),
    ],
)
def test_malformed_files_are_refused(tmp_path, data, words):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=words):
        load(tmp_path / "a.safetensors")


def own(**changes):
    row = {"activation": {"name": "relu", "parameters": []}, "weight": "w.weight", "bias": None} | changes
    return {**GOOD, "__metadata__": {"fiberscope": json.dumps({"version": 1, "head": None, "layers": [row]})}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": "nowhere"}, "not in the file"),
        ({"activation": "sqrt"}, "unknown activation"),
        ({"activation": {"name": "elu", "parameters": ["1/0"]}}, "parameters"),
        ({"exact_weight": ["1/3"]}, "do not round to"),
        ({"exact_weight": ["1/0"]}, "malformed"),
        ({"exact_weight": ["1e999999999"]}, "malformed"),
        ({"exact_weight": ["1", "2"]}, "malformed"),
        ({"exact_weight": 3}, "malformed"),
    ],
)
def test_our_header_is_not_trusted_either(tmp_path, changes, words):
    (tmp_path / "a.safetensors").write_bytes(packed(own(**changes), b"\0" * 4))
    with pytest.raises(InputError, match=words):
        load(tmp_path / "a.safetensors")


def test_a_copy_keeps_other_tensors_and_metadata(tmp_path):
    entry = {**GOOD, "other": {"dtype": "I64", "shape": [1], "data_offsets": [4, 12]}, "__metadata__": {"format": "pt"}}
    (tmp_path / "a.safetensors").write_bytes(packed(entry, b"\0\0\x80\x3f" + (7).to_bytes(8, "little")))
    net = load(tmp_path / "a.safetensors")
    assert save(net, tmp_path / "b.safetensors", drop_in=True).is_file()
    data = (tmp_path / "b.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}
    begin, end = header["other"]["data_offsets"]
    assert int.from_bytes(data[-12:][begin:end], "little") == 7


def test_error_is_a_format_error_for_truncation(tmp_path):
    save(Network.random((2, 3, 1), seed=0), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    for cut in range(0, len(data), 37):
        (tmp_path / "b.safetensors").write_bytes(data[:cut])
        with pytest.raises(FormatError):
            load(tmp_path / "b.safetensors")
