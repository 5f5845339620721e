"""Flax parameters and Equinox MLPs."""

from __future__ import annotations

import numpy as np
import pytest

from fiberscope.errors import InputError
from fiberscope.io import load

RNG = np.random.default_rng(0)


def flax_tree(*widths):
    pairs = zip(widths, widths[1:], strict=False)
    return {
        f"Dense_{k}": {"kernel": RNG.standard_normal((a, b)).astype("f4"), "bias": RNG.standard_normal(b).astype("f4")}
        for k, (a, b) in enumerate(pairs)
    }


def test_flax_parameters_are_a_chain_by_number():
    tree = flax_tree(*[3] * 13)
    shuffled = {"params": dict(sorted(tree.items()))}  # Dense_10 before Dense_2
    net = load(shuffled, activation="tanh")
    for k, layer in enumerate(net.layers):
        assert np.array_equal(layer.weight, tree[f"Dense_{k}"]["kernel"].T)
        assert layer.weight_name == f"Dense_{k}/kernel"
    assert net.source.format == "flax" and net.dtype == np.float32
    with pytest.raises(InputError, match="--activation NAME"):
        load(shuffled)


def test_nested_modules_are_parts():
    tree = {"params": {"actor": flax_tree(3, 4, 2), "critic": flax_tree(3, 5, 1)}}
    with pytest.raises(InputError, match="holds 2 networks: actor, critic"):
        load(tree, activation="relu")
    assert load(tree, part="critic", activation="relu").widths == (3, 5, 1)


def test_trees_that_are_no_network():
    deep = {"kernel": np.ones((1, 1))}
    for _ in range(30):
        deep = {"m": deep}
    for tree, words in (
        ({"params": {"Conv_0": {"kernel": np.ones((3, 3, 1, 8))}}}, "convolution"),
        ({"params": {"a": {"b": np.ones(3)}}}, r"saw a/b \(3,\)"),
        (
            {"params": {"BatchNorm_0": {"scale": np.ones(3)}, "Dense_0": {"kernel": np.ones((3, 3))}}},
            "normalisation layer",
        ),
        (deep, "nested too deeply"),
    ):
        with pytest.raises(InputError, match=words):
            load(tree, activation="relu")


def test_flax_agrees_with_flax():
    nn = pytest.importorskip("flax.linen")
    jax = pytest.importorskip("jax")

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.tanh(nn.Dense(5)(x))
            return nn.Dense(2)(x)

    x = RNG.standard_normal((4, 3)).astype("f4")
    model = Model()
    params = model.init(jax.random.PRNGKey(0), x)
    np.testing.assert_allclose(load(params, activation="tanh")(x), model.apply(params, x), atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "softplus", "silu"])
def test_equinox_mlps_say_their_activation(name):
    eqx = pytest.importorskip("equinox")
    jax = pytest.importorskip("jax")
    function = jax.numpy.tanh if name == "tanh" else getattr(jax.nn, name)
    mlp = eqx.nn.MLP(3, 2, 5, 2, activation=function, key=jax.random.PRNGKey(0))
    net = load(mlp)
    assert net.architecture == f"3-5-5-2 {name}"
    x = RNG.standard_normal((4, 3)).astype("f4")
    np.testing.assert_allclose(net(x), jax.vmap(mlp)(x), atol=1e-5)
    assert net.source.parameter_count == net.parameter_count


def test_an_unknown_function_of_equinox_must_be_given():
    eqx = pytest.importorskip("equinox")
    jax = pytest.importorskip("jax")
    mlp = eqx.nn.MLP(3, 2, 5, 1, activation=lambda z: z * z, key=jax.random.PRNGKey(0))
    with pytest.raises(InputError, match="--activation NAME"):
        load(mlp)
    assert load(mlp, activation="square").activation.name == "square"
    with pytest.raises(InputError, match="no `layers` of linear maps"):
        load(eqx.nn.LayerNorm(3))


def test_equinox_without_bias():
    eqx = pytest.importorskip("equinox")
    jax = pytest.importorskip("jax")
    net = load(eqx.nn.MLP(3, 2, 5, 1, use_bias=False, use_final_bias=False, key=jax.random.PRNGKey(0)))
    assert net.layers[0].bias_name == "" and not net.layers[0].bias.any()
    assert net.source.parameter_count == 25
