"""NumPy archives."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from fiberscope.activations import activation
from fiberscope.errors import FormatError, InputError
from fiberscope.io import load, save
from fiberscope.io.files import zip_bytes
from fiberscope.network import Network


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_matrices_biases_and_activations(tmp_path):
    w1, w2 = np.arange(6.0).reshape(3, 2), np.ones((1, 3))
    path = saved(tmp_path / "a.npz", W1=w1, b1=[1.0, 2.0, 3.0], W2=w2, activation="tanh")
    net = load(path)
    assert net.architecture == "2-3-1 tanh"
    assert net.layers[0].weight.tolist() == w1.tolist()
    assert net.layers[1].bias.tolist() == [0.0]
    assert net.source.parameter_count == 12
    assert load(path, activation="relu").architecture == "2-3-1 relu"  # the user's word counts more


def test_activations_with_parameters_and_heads_round_trip(tmp_path):
    rows = [activation("leaky_relu", 0.1), activation("clip", -2, 3), "identity"]
    net = Network.random((2, 3, 3, 2), seed=0)
    net = Network.from_arrays(*((r.weight, r.bias) for r in net.layers), activation=rows, head="softmax")
    save(net, tmp_path / "a.npz")
    assert load(tmp_path / "a.npz").same_as(net)


def test_fortran_order_and_big_endian_are_read(tmp_path):
    weight = np.arange(6, dtype=">f4").reshape(3, 2, order="F")
    net = load(saved(tmp_path / "a.npz", W1=np.asfortranarray(weight), activation="identity"))
    assert net.layers[0].weight.tolist() == weight.tolist()
    assert net.layers[0].weight.dtype == np.dtype("float32")


def test_other_names_are_read_like_a_state_dict(tmp_path):
    names = {"fc1.weight": np.ones((3, 2)), "fc1.bias": np.zeros(3), "fc2.weight": np.ones((1, 3))}
    path = saved(tmp_path / "a.npz", **names)
    with pytest.raises(InputError, match="--activation NAME"):
        load(path)
    assert load(path, activation="relu").widths == (2, 3, 1)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"W1": np.ones((2, 3)), "b1": np.ones(3)}, r"W1 \(2, 3\) and b1 \(3,\) do not fit; expected \(n_out, n_in\)"),
        ({"W1": np.ones((2, 3)), "W3": np.ones((2, 2))}, "W1, W3; expected numbers without gaps"),
        ({"W1": np.ones(3)}, "do not fit"),
        ({"W1": np.array([["a"]])}, "expected floats"),
        ({"W1": np.ones((2, 3)), "W2": np.ones((1, 5))}, "has 2 outputs but .* takes 5"),
        ({"W1": np.array([[np.inf]])}, r"W?eight\[0, 0\] is inf"),
        ({"W1": np.ones((1, 1), complex)}, "holds complex128"),
        ({"W1": np.ones((0, 1))}, "every width must be >= 1"),
        ({"x": np.ones(3)}, r"holds no network: .* saw x \(3,\)"),
        ({"W1": np.ones((1, 1)), "W2": np.ones((1, 1)), "activation": np.array(["rulu"])}, "did you mean 'relu'"),
        ({"W1": np.ones((1, 1)), "activation": np.array(['{"name": 3}'])}, "expected a name with parameters"),
        ({"W1": np.ones((1, 1)), "head": np.array("argmux")}, "unknown output head 'argmux'"),
    ],
)
def test_archives_that_are_no_network(tmp_path, arrays, words):
    arrays.setdefault("activation", np.array("relu"))
    with pytest.raises(InputError, match=words):
        load(saved(tmp_path / "a.npz", **arrays))


def test_pickled_objects_are_never_read(tmp_path):
    path = saved(tmp_path / "a.npz", W1=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FormatError, match="never unpickled"):
        load(path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 5), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 5), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'shape': (1,), }",
        "__import__('os').system('true')",
        "(" * 2000,
    ],
)
def test_headers_that_lie_are_refused(tmp_path, header):
    path = tmp_path / "a.npz"
    path.write_bytes(zip_bytes({"W1.npy": npy(header, b"\0" * 8)}))
    with pytest.raises(FormatError):
        load(path)


def test_entries_that_are_no_arrays_are_refused(tmp_path):
    for name, data in (("W1.npy", pickle.dumps(1)), ("W1.txt", b"1"), ("W1.npy", b"")):
        (tmp_path / "a.npz").write_bytes(zip_bytes({name: data}))
        with pytest.raises(FormatError):
            load(tmp_path / "a.npz")


def test_a_copy_keeps_other_entries(tmp_path):
    path = saved(tmp_path / "a.npz", W1=np.ones((1, 2)), b1=np.ones(1), activation="identity", scaler=np.arange(3))
    assert save(load(path), tmp_path / "b.npz", drop_in=True).is_file()
    with np.load(io.BytesIO((tmp_path / "b.npz").read_bytes())) as again:
        assert again["scaler"].tolist() == [0, 1, 2]
