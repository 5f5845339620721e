"""How named tensors become chains: patterns of names, order, parts."""

from __future__ import annotations

import numpy as np
import pytest

from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io import load
from fiberscope.io.state_dicts import activations_for, inventory, parts


def tensors(*rows, bias=True):
    """Weights (n_out, n_in) from (stem, n_in, n_out)."""
    out, rng = {}, np.random.default_rng(0)
    for stem, n_in, n_out in rows:
        out[f"{stem}.weight"] = rng.standard_normal((n_out, n_in))
        if bias:
            out[f"{stem}.bias"] = rng.standard_normal(n_out)
    return out


@pytest.mark.parametrize(
    "stems",
    [
        ("0", "2", "4"),
        ("fc1", "fc2", "fc3"),
        ("layers.0", "layers.1", "layers.2"),
        ("net.0", "net.3", "net.12"),
        ("module.0", "module.2", "module.4"),
        ("blocks.0.linear", "blocks.1.linear", "blocks.2.linear"),
        ("input", "hidden", "output"),
        ("body.0", "body.2", "head"),
    ],
)
def test_usual_names_are_read_in_order(stems):
    given = tensors((stems[0], 3, 5), (stems[1], 5, 5), (stems[2], 5, 2))
    net = load(given, activation="relu")
    assert net.widths == (3, 5, 5, 2)
    for stem, layer in zip(stems, net.layers, strict=True):
        assert np.array_equal(layer.weight, given[f"{stem}.weight"])
        assert np.array_equal(layer.bias, given[f"{stem}.bias"])


def test_numbered_names_are_sorted_by_number():
    rows = tensors(*((f"fc{k}", 4, 4) for k in (10, 2, 1)))
    assert [layer.name for layer in load(rows, activation="relu").layers] == ["fc1", "fc2", "fc10"]


def test_kernels_are_transposed():
    kernel = np.arange(6.0).reshape(2, 3)
    net = load({"dense/kernel": kernel, "dense/bias": np.ones(3)})
    assert net.widths == (2, 3)
    assert np.array_equal(net.layers[0].weight, kernel.T)
    assert net.layers[0].activation.name == "identity"


def test_several_networks_are_parts():
    both = tensors(("actor.0", 4, 8), ("actor.2", 8, 4), ("critic.0", 4, 8), ("critic.2", 8, 1)) | {
        "log_std": np.zeros(4)
    }
    # actor's 4 outputs would fit into the critic; that must not make them one chain silently
    with pytest.raises(InputError, match=r"holds 3 networks: actor, critic, all; choose one with --part NAME"):
        load(both, activation="relu")
    net = load(both, activation="relu", part="critic")
    assert net.widths == (4, 8, 1)
    assert net.source.part == "critic"
    assert any("log_std (4,)" in note for note in net.source.notes)
    with pytest.raises(InputError, match="no part 'cirtic'; its networks are actor, critic, all"):
        load(both, activation="relu", part="cirtic")
    assert load(both, activation="relu", part="all").depth == 4


def test_a_body_with_two_heads_is_no_single_chain():
    rows = tensors(("body.0", 3, 8), ("body.2", 8, 8), ("mu", 8, 2), ("sigma", 8, 2))
    with pytest.raises(InputError, match="holds 3 networks: body, mu, sigma;"):
        load(rows, activation="relu")


def test_what_forms_no_chain_is_listed():
    with pytest.raises(UnsupportedError, match=r"no chain: fc1 3->5, fc2 4->2"):
        load(tensors(("fc1", 3, 5), ("fc2", 4, 2)), activation="relu")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "saw no tensors"),
        ({"a": np.ones((2, 2))}, r"saw a \(2, 2\)"),
        ({"a.weight": np.ones((2, 2)), "a.bias": np.ones(3)}, r"a.weight \(2, 2\) and a.bias \(3,\) do not fit"),
        ({"a.weight": np.ones((2, 2, 3, 3))}, "convolution"),
        ({"a.weight": np.ones((2, 2)), "bn.running_mean": np.ones(2)}, "normalisation layer"),
        ({"a.weight": "text"}, "not a tensor"),
    ],
)
def test_what_is_no_network_is_said(given, words):
    with pytest.raises(InputError, match=words):
        load(given, activation="relu")


def test_unordered_files_need_one_order():
    free = tensors(("a", 2, 2), ("b", 2, 2), bias=False)
    assert list(parts(inventory(free))) == ["all"]
    with pytest.raises(UnsupportedError, match="keeps no order"):
        parts(inventory(free, ordered=False))
    forced = tensors(("z", 2, 3), ("a", 3, 1), bias=False)
    (chain,) = parts(inventory(forced, ordered=False)).values()
    assert [layer.stem for layer in chain] == ["z", "a"]


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ("tanh", ["tanh", "tanh", "identity"]),
        ("relu,tanh", ["relu", "tanh", "identity"]),
        ("relu, tanh ,sigmoid", ["relu", "tanh", "sigmoid"]),
        ("leaky_relu(1/4), clip(-1,2)", ["leaky_relu(0.25)", "clip(-1,2)", "identity"]),
        (["relu", "tanh"], ["relu", "tanh", "identity"]),
    ],
)
def test_activations_from_words(given, labels):
    assert [row.label.replace(" ", "") for row in activations_for(3, given)] == labels


@pytest.mark.parametrize(
    "given", ["a,b,c", "relu,relu,relu,relu", "leaky_relu(x)", "leaky_relu(1e999999)", "leaky_relu(1/0)", ""]
)
def test_activations_that_do_not_fit_are_refused(given):
    with pytest.raises(InputError):
        activations_for(3, given)


def test_weights_in_integers_and_lists_are_read():
    net = load({"0.weight": [[1, 2], [3, 4]], "0.bias": [0, 1], "2.weight": [[1, 1]]}, activation="relu")
    assert net.widths == (2, 2, 1) and net([1.0, 1.0]).tolist() == [11.0]
    assert load({"0.weight": np.ones((1, 2)), "steps": np.array(7)}).widths == (2, 1)  # a counter is no weight


def test_errors_begin_with_what_they_are_about():
    with pytest.raises(InputError, match="^state dict: holds tensors only and does not say the activation"):
        load({"0.weight": np.ones((2, 2)), "2.weight": np.ones((1, 2))})
    with pytest.raises(InputError, match=r"^state dict: 0.weight is of dtype complex128, not a tensor"):
        load({"0.weight": np.ones((2, 2)) * 1j})
    with pytest.raises(InputError, match="^state dict: 0.weight is .*no rectangular array"):
        load({"0.weight": [[1, 2], [3]]})


@pytest.mark.parametrize("given", [None, 3, [(np.ones((1, 1)), None)], b"abc", print])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(InputError, match=r"cannot read a network from an object of type \w+; .*from_arrays"):
        load(given)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_quantised_weights_are_no_weights(dtype):
    """Short integers have a scale elsewhere: as they are, they would be another network."""
    weights = {"0.weight": np.ones((3, 2), dtype), "2.weight": np.ones((1, 3), dtype)}
    with pytest.raises(UnsupportedError, match="expected weight matrices"):
        load(weights, activation="relu")
    assert load({k: v.astype(np.int64) for k, v in weights.items()}, activation="relu").widths == (2, 3, 1)
