"""Keras files read without Keras."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.io import keras_hdf5, load, save
from fiberscope.io.files import zip_bytes
from fiberscope.network import Network
from oracles import hdf5_answer

h5py = pytest.importorskip("h5py")

RNG = np.random.default_rng(0)
IN_A_CHILD = ("test_real_files", "test_a_copy_changes_units_and_kernels_only", "test_archives_of_keras_3")


@pytest.fixture(autouse=True)
def no_child(request, monkeypatch):
    """Most files here are read in this process: starting another takes longer than everything else."""
    if request.function.__name__ not in IN_A_CHILD:
        monkeypatch.setattr(keras_hdf5, "ask", hdf5_answer)


def dense(name, n_in, n_out, activation="linear", **more):
    config = {"name": name, "units": n_out, "activation": activation, "use_bias": True} | more
    return {"class_name": "Dense", "config": config}, {
        f"{name}/kernel:0": RNG.standard_normal((n_in, n_out)).astype("f4"),
        f"{name}/bias:0": RNG.standard_normal(n_out).astype("f4"),
    }


def layer(kind, **config):
    return {"class_name": kind, "config": {"name": kind.lower()} | config}, {}


def batch_norm(name, n):
    config = {"name": name, "axis": [1], "epsilon": 0.001, "center": True, "scale": False}
    values = {
        "beta": RNG.standard_normal(n),
        "moving_mean": RNG.standard_normal(n),
        "moving_variance": RNG.uniform(1, 2, n),
    }
    return {"class_name": "BatchNormalization", "config": config}, {
        f"{name}/{k}:0": v.astype("f4") for k, v in values.items()
    }


def model(path, *rows, shape=(3,), kind="Sequential", attribute=None):
    """An .h5 file as Keras 2 writes it; returns its tensors."""
    layers = [json.loads(json.dumps(row)) for row, _ in rows]
    if layers:
        layers[0]["config"]["batch_input_shape"] = [None, *shape]
    config = {"class_name": kind, "config": {"name": "m", "layers": layers}}
    tensors = {}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config) if attribute is None else attribute
        group = file.create_group("model_weights")
        for row, values in rows:
            part = group.create_group(row["config"]["name"])
            for name, value in values.items():
                part.create_dataset(name, data=value)
                tensors[f"model_weights/{row['config']['name']}/{name}"] = value
    return tensors


def test_dense_layers_with_their_activations(tmp_path):
    tensors = model(tmp_path / "a.h5", dense("d1", 3, 4, "relu"), layer("Dropout"), dense("d2", 4, 2, "tanh"))
    net = load(tmp_path / "a.h5")
    assert net.architecture == "3-4-2 relu"
    assert net.layers[1].activation.name == "tanh"
    kernel = tensors["model_weights/d1/d1/kernel:0"]
    assert np.array_equal(net.layers[0].weight, kernel.T) and net.layers[0].weight.dtype == np.float32
    assert net.source.parameter_count == sum(v.size for v in tensors.values()) == net.parameter_count
    assert dict(net.source.tensors) == {k: v.shape for k, v in tensors.items()}


def test_batch_normalisation_and_rescaling_are_folded(tmp_path):
    tensors = model(
        tmp_path / "a.h5",
        layer("Rescaling", scale=0.5, offset=-1.0),
        dense("d1", 3, 4),
        batch_norm("bn", 4),
        layer("Activation", activation="swish"),
        dense("d2", 4, 2, "softmax"),
    )
    net = load(tmp_path / "a.h5")
    t = {k.partition("/")[2]: v.astype("f8") for k, v in tensors.items()}
    x = RNG.standard_normal((9, 3))
    z = (0.5 * x - 1) @ t["d1/d1/kernel:0"] + t["d1/d1/bias:0"]
    epsilon = float(np.float32(0.001))
    z = (z - t["bn/bn/moving_mean:0"]) / np.sqrt(t["bn/bn/moving_variance:0"] + epsilon) + t["bn/bn/beta:0"]
    h = z / (1 + np.exp(-z))
    np.testing.assert_allclose(net(x), h @ t["d2/d2/kernel:0"] + t["d2/d2/bias:0"], rtol=1e-9, atol=1e-12)
    assert net.head == "softmax"
    assert len(net.layers[0].folded) == 2 and net.source.approximations
    assert net.source.parameter_count == sum(v.size for v in tensors.values())
    own = net.layers[0].own  # scales are floats, so they can be divided out again exactly
    assert np.array_equal(own[0], tensors["model_weights/d1/d1/kernel:0"].T)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (layer("ReLU"), "relu"),
        (layer("ReLU", max_value=6.0), "clip(0, 6)"),
        (layer("ReLU", negative_slope=0.5), "leaky_relu(0.5)"),
        (layer("LeakyReLU", alpha=0.25), "leaky_relu(0.25)"),
        (layer("LeakyReLU", negative_slope=0.25), "leaky_relu(0.25)"),
        (layer("ELU", alpha=1.0), "elu"),
        (layer("Activation", activation="relu6"), "clip(0, 6)"),
        (layer("Activation", activation={"class_name": "function", "config": "gelu"}), "gelu"),
    ],
)
def test_activation_layers(tmp_path, row, name):
    model(tmp_path / "a.h5", dense("d1", 3, 4), row, dense("d2", 4, 2))
    label = load(tmp_path / "a.h5").layers[0].activation.label
    assert label.replace(",", ", ").replace("  ", " ").removesuffix("(1)") == name


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (layer("Lambda", function=["4wEAAAA=", None, None]), "layer Lambda 'lambda' is not supported"),
        (layer("MaxPooling2D"), "MaxPooling2D"),
        (layer("Activation", activation="selu"), "activation 'selu'"),
        (layer("Activation", activation={"class_name": "Evil"}), "activation 'Evil'"),
        (layer("ReLU", threshold=1.0), "threshold"),
        (layer("Softmax"), "follows softmax"),
        (layer("ReLU", max_value="x"), "expected a number"),
        (layer("LeakyReLU", alpha=10**400), "finite number"),
        (layer("Sequential", layers=[]), "layer Sequential"),
    ],
)
def test_layers_without_a_meaning_are_named(tmp_path, row, words):
    model(tmp_path / "a.h5", dense("d1", 3, 4), row, dense("d2", 4, 2))
    with pytest.raises(InputError, match=words):
        load(tmp_path / "a.h5")


def functional(rows, edges, new=False):
    """A functional model's configuration."""
    layers = []
    for row, _ in rows:
        name = row["config"]["name"]
        before = [a for a, b in edges if b == name]
        if new:
            tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [a, 0, 0]}} for a in before]
            nodes = [{"args": tensors, "kwargs": {}}] if before else []
        else:
            nodes = [[[a, 0, 0, {}] for a in before]] if before else []
        layers.append(row | {"name": name, "inbound_nodes": nodes})
    return json.dumps({"class_name": "Functional", "config": {"name": "m", "layers": layers}})


@pytest.mark.parametrize("new", [False, True])
def test_functional_chains_are_followed_whatever_their_order(tmp_path, new):
    start = layer("InputLayer", batch_shape=[None, 3])
    first, second = dense("d1", 3, 4, "relu"), dense("d2", 4, 2)
    rows = [second, start, first]
    config = functional(rows, [("inputlayer", "d1"), ("d1", "d2")], new)
    model(tmp_path / "a.h5", *rows, attribute=config)
    assert load(tmp_path / "a.h5").widths == (3, 4, 2)


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([("inputlayer", "d1"), ("inputlayer", "d2")], "branches or merges at Dense 'd2'"),
        ([("inputlayer", "d1"), ("inputlayer", "d2"), ("d1", "d2")], "branches or merges"),
        ([("inputlayer", "d1")], "2 inputs"),
        ([("inputlayer", "d1"), ("d2", "d2")], "not connected"),
        ([("d1", "d2"), ("d2", "d1"), ("d1", "inputlayer")], "branches|inputs"),
        ([("nowhere", "d1"), ("d1", "d2")], "not connected"),
    ],
)
def test_graphs_that_are_no_chain_are_refused(tmp_path, edges, words):
    rows = [layer("InputLayer", batch_shape=[None, 3]), dense("d1", 3, 3), dense("d2", 3, 3)]
    model(tmp_path / "a.h5", *rows, attribute=functional(rows, edges))
    with pytest.raises(InputError, match=words):
        load(tmp_path / "a.h5")


def test_archives_of_keras_3(tmp_path):
    first, second = dense("a", 3, 4, "relu"), dense("b", 4, 2)
    config = {"class_name": "Sequential", "config": {"layers": [first[0], layer("Dropout")[0], second[0]]}}
    for names in (("dense", "dense_1"), ("a", "b")):  # by class, or by name in later versions
        out = io.BytesIO()
        with h5py.File(out, "w") as file:
            for name, (_, values) in zip(names, (first, second), strict=True):
                for k, value in enumerate(values.values()):
                    file[f"layers/{name}/vars/{k}"] = value
        data = zip_bytes({"config.json": json.dumps(config).encode(), "model.weights.h5": out.getvalue()})
        (tmp_path / "a.keras").write_bytes(data)
        net = load(tmp_path / "a.keras")
        assert np.array_equal(net.layers[1].weight, second[1]["b/kernel:0"].T)


def test_a_copy_changes_units_and_kernels_only(tmp_path):
    from dataclasses import replace

    model(tmp_path / "a.h5", dense("d1", 3, 4, "relu"), layer("Dropout", rate=0.5), dense("d2", 4, 2, "tanh"))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["keras_version"] = "2.2.4"
        file["optimizer_weights/m"] = np.zeros((3, 4))
    net = load(tmp_path / "a.h5")
    first, second = net.layers
    smaller = net.with_layers(
        [replace(first, weight=first.weight[:3], bias=first.bias[:3]), replace(second, weight=second.weight[:, :3])]
    )
    save(smaller, tmp_path / "b.h5", drop_in=True)
    assert load(tmp_path / "b.h5").same_as(smaller)
    with h5py.File(tmp_path / "b.h5") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        assert [row["config"].get("units") for row in layers] == [3, None, 2]
        assert layers[1]["config"]["rate"] == 0.5
        assert file.attrs["keras_version"] == "2.2.4"
        assert "optimizer_weights" not in file
        assert file["model_weights/d1/d1/kernel:0"].dtype == np.float32


def test_what_keras_has_no_word_for_is_not_written(tmp_path):
    with pytest.raises(UnsupportedError, match="no sin"):
        save(Network.random((2, 3, 1), activation="sin", seed=0), tmp_path / "a.h5")
    with pytest.raises(UnsupportedError, match="no argmax"):
        save(Network(Network.random((2, 3, 2), seed=0).layers, "argmax"), tmp_path / "a.h5")


def test_heads_round_trip(tmp_path):
    net = Network(Network.random((2, 3, 2), activation="gelu", seed=0).layers, "softmax")
    save(net, tmp_path / "a.h5")
    assert load(tmp_path / "a.h5").same_as(net)


# ---- files that are not what they seem


def broken(path, change):
    model(path, dense("d1", 3, 4, "relu"), dense("d2", 4, 2))
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def external_link(file):
    del file["model_weights/d1"]
    file["model_weights/d1"] = h5py.ExternalLink("/etc/other.h5", "/x")


def soft_link(file):
    del file["model_weights/d1/d1/kernel:0"]
    file["model_weights/d1/d1/kernel:0"] = h5py.SoftLink("/model_weights/d2/d2/kernel:0")


def external_storage(file):
    del file["model_weights/d1/d1/kernel:0"]
    file["model_weights/d1/d1"].create_dataset("kernel:0", (3, 4), "f4", external=[("/etc/passwd", 0, 48)])


def huge(file):
    del file["model_weights/d1/d1/kernel:0"]
    file["model_weights/d1/d1"].create_dataset("kernel:0", (1 << 20, 1 << 20), "f4", chunks=(1, 1024))


def not_finite(file):
    file["model_weights/d1/d1/kernel:0"][0, 0] = np.nan


def texts(file):
    del file["model_weights/d1/d1/bias:0"]
    file["model_weights/d1/d1/bias:0"] = "text"


def loop(file):
    file["model_weights/d1/d1/again"] = file["model_weights/d1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (external_link, "link that leaves"),
        (soft_link, "link that leaves"),
        (external_storage, "in another file"),
        (huge, "far more than the file can hold"),
        (not_finite, r"d1: weight\[0, 0\] is nan"),
        (texts, "expected floats"),
        (loop, "nested too deeply|expected one each"),
        (lambda f: f.__delitem__("model_weights/d2"), "has no /model_weights/d2"),
        (lambda f: f.__delitem__("model_weights/d2/d2/bias:0"), "has no bias"),
        (lambda f: f.create_group("model_weights/d2/x").create_dataset("kernel:0", data=[1.0]), "expected one each"),
        (lambda f: f.attrs.__delitem__("model_config"), "weights without a model"),
        (lambda f: f.attrs.__setitem__("model_config", 3), "no text"),
        (lambda f: f.attrs.__setitem__("model_config", "{"), "no valid JSON"),
        (lambda f: f.attrs.__setitem__("model_config", "[]"), "malformed"),
        (lambda f: f.attrs.__setitem__("model_config", '{"class_name": "MyModel"}'), "'MyModel' model"),
        (
            lambda f: f.attrs.__setitem__("model_config", '{"class_name": "Sequential", "config": [3]}'),
            "malformed layer",
        ),
        (
            lambda f: f.attrs.__setitem__("model_config", '{"class_name": "Sequential", "config": []}'),
            "no affine layer",
        ),
    ],
)
def test_files_that_lie_are_refused(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        load(broken(tmp_path / "a.h5", change))


def test_units_must_agree_with_the_kernel(tmp_path):
    row, values = dense("d1", 3, 4)
    row["config"]["units"] = 5
    model(tmp_path / "a.h5", (row, values))
    with pytest.raises(FormatError, match=r"5 units but kernel \(3, 4\)"):
        load(tmp_path / "a.h5")


def test_real_files(shared):
    files = sorted((shared / "models/nnequivalence_h5").glob("*.h5"))
    for path in files:
        net = load(path)
        assert net.source.parameter_count == net.parameter_count
        assert net.folded == ()
        with h5py.File(path) as file:
            sizes = {}
            file["model_weights"].visititems(lambda name, item, out=sizes: out.update({name: getattr(item, "size", 0)}))
        assert net.source.parameter_count == sum(sizes.values())
    assert len(files) >= 12
