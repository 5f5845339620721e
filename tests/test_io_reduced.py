"""Reduced files: every writable format keeps the function and is checked after being read back."""

import json

import numpy as np
import pytest

import fiberscope as fs
from fiberscope.certificates import Certificate, check
from fiberscope.errors import CertificateError, InputError
from fiberscope.io import reduced
from fiberscope.io.reduced import save_chain_reductions, save_reduction
from fiberscope.results import Answer


def twin(dtype=np.float32):
    return fs.Network.from_arrays(
        (np.array([[1, 2], [1, 2], [-1, 1]], dtype), np.array([0.5, 0.5, 0], dtype)),
        (np.array([[1, 2, 3]], dtype), np.zeros(1, dtype)), activation="relu",
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".npz", ".nnet", ".pt", ".h5"])
def test_every_format_is_a_checked_drop_in(tmp_path, suffix):
    path, small = tmp_path / f"net{suffix}", tmp_path / f"small{suffix}"
    fs.save(twin(np.float64 if suffix == ".nnet" else np.float32), path)
    options = {"activation": "relu"} if suffix == ".pt" else {}
    net = fs.load(path, **options)
    document, copied = save_reduction(fs.reduce(net), small)
    assert copied
    found = fs.load(small, **options)
    assert found.widths == (2, 2, 1)
    assert [t[0] for t in found.source.tensors] == [t[0] for t in net.source.tensors]
    stored = Certificate.read(f"{small}.certificate.json")
    assert stored.to_dict()["target"]["sha256"] == found.source.sha256 == document.to_dict()["target"]["sha256"]
    assert check(stored, net, found).answer is Answer.YES
    x = np.random.default_rng(0).standard_normal((9, 2))
    np.testing.assert_allclose(found(x), net(x), rtol=1e-12)


def test_another_format_is_a_new_file(tmp_path):
    fs.save(twin(), tmp_path / "net.onnx")
    _, copied = save_reduction(fs.reduce(fs.load(tmp_path / "net.onnx")), tmp_path / "small.npz")
    assert not copied and fs.load(tmp_path / "small.npz").widths == (2, 2, 1)


def test_a_refused_file_leaves_nothing_behind(tmp_path, monkeypatch):
    result = fs.reduce(twin())
    monkeypatch.setattr(reduced, "load", lambda *a, **k: twin())
    with pytest.raises(CertificateError, match="nothing was written"):
        save_reduction(result, tmp_path / "small.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pooled(tmp_path):
    """Two chains with a max pooling between them."""
    onnx = pytest.importorskip("onnx")
    h, t = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(0)
    first = rng.standard_normal((4, 6)).astype(np.float32)
    first[:, 5] = first[:, 0]
    second = rng.standard_normal((6, 4)).astype(np.float32)
    third = rng.standard_normal((4, 5)).astype(np.float32)
    third[:, 2] = 0
    last = rng.standard_normal((5, 2)).astype(np.float32)
    nodes = [
        h.make_node("MatMul", ["x", "A"], ["a"]), h.make_node("Relu", ["a"], ["b"]),
        h.make_node("MatMul", ["b", "B"], ["c"]), h.make_node("Unsqueeze", ["c", "one"], ["d"]),
        h.make_node("MaxPool", ["d"], ["e"], kernel_shape=[1], strides=[1]),
        h.make_node("Squeeze", ["e", "one"], ["f"]), h.make_node("MatMul", ["f", "C"], ["g"]),
        h.make_node("Relu", ["g"], ["i"]), h.make_node("MatMul", ["i", "D"], ["y"]),
    ]  # fmt: skip
    tensors = [t.from_array(v, n) for n, v in (("A", first), ("B", second), ("C", third), ("D", last))]
    tensors.append(t.from_array(np.array([1], np.int64), "one"))
    value = lambda name, n: h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", n])  # noqa: E731
    graph = h.make_graph(nodes, "pooled", [value("x", 4)], [value("y", 2)], tensors)
    path = tmp_path / "pooled.onnx"
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_only_the_chains_between_opaque_nodes_are_rewritten(pooled, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    from fiberscope.io.onnx import read_parts

    with pytest.raises(InputError, match="MaxPool"):
        fs.load(pooled)
    model = read_parts(pooled)
    small = tmp_path / "small.onnx"
    proofs = save_chain_reductions(model, [fs.reduce(net, dtype=np.float32) for net in model.chains], small)
    parts = [fs.load(small, allow_opaque=True, part=f"chain{k}") for k in (1, 2)]
    assert [net.widths for net in parts] == [(4, 5, 4), (4, 4, 2)]
    for proof, before, after in zip(proofs, model.chains, parts, strict=True):
        assert check(json.loads(proof.read_text()), before, after).answer is Answer.YES
    x = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    outputs = [ort.InferenceSession(str(p)).run(None, {"x": x})[0] for p in (pooled, small)]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
