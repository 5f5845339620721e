"""JAX: trees by path, populations read off a trace, optax states, and loops of Flax, nnx and Equinox watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fiberscope.errors import InputError, UnsupportedError

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
linen = pytest.importorskip("flax.linen", reason="flax is not installed")
nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")

from fiberscope.training.adapters.jax import PytreeSubject, architecture_of_tree, jax_watch  # noqa: E402
from fiberscope.training.adapters.jax_optax import optimiser_of_optax  # noqa: E402
from fiberscope.training.adapters.jax_tracing import activations_of_function, architecture_of_function  # noqa: E402
from fiberscope.training.adapters.jax_trees import leaves_of, paths_of, rebuilt  # noqa: E402
from fiberscope.training.architectures.exchange import confirmed, defects  # noqa: E402
from fiberscope.training.traces.watchers import watch  # noqa: E402

jnp = jax.numpy
pytestmark = pytest.mark.usefixtures("quick_jax")


def _normal(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype=jnp.float32)


_STARTED: dict[Any, Any] = {}


def _init(model: Any, x: Any) -> Any:
    """Variables of a module, drawn with NumPy: nothing is compiled."""
    rng = np.random.default_rng(0)

    def drawn(path: Any, leaf: Any) -> Any:
        kind = path[-1].key
        if kind in ("scale", "var", "bias", "mean"):
            return jnp.asarray(np.full(leaf.shape, float(kind in ("scale", "var")), np.float32))
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), jnp.float32)

    return jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(model().init, jax.random.key(0), x))


def _equinox(a: int, b: int, width: int, depth: int, activation: Any = jax.nn.tanh) -> Any:
    """A multilayer perceptron, kept."""
    sizes = (a, b, width, depth)
    if sizes not in _STARTED:
        made = eqx.filter_jit(lambda key: eqx.nn.MLP(*sizes, activation=activation, key=key))
        _STARTED[sizes] = made(jax.random.key(0))
    return _STARTED[sizes]


def _linear() -> Any:
    if nnx not in _STARTED:
        _STARTED[nnx] = nnx.jit(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)))()
    return _STARTED[nnx]


def _flax_mlp(width: int = 6) -> Any:
    return linen.Sequential([linen.Dense(width), linen.relu, linen.Dense(width), linen.relu, linen.Dense(2)])


# ---- trees


def test_names_of_leaves_are_paths_in_every_library() -> None:
    x = jnp.ones((1, 3))
    names = list(leaves_of(_init(_flax_mlp, x)))
    assert names[0].startswith("params/") and "params/layers_0/kernel" in names
    module = _equinox(3, 2, 4, 1)
    assert list(leaves_of(module)) == ["layers/0/weight", "layers/0/bias", "layers/1/weight", "layers/1/bias"]
    layer = _linear()
    assert set(leaves_of(layer)) == set(leaves_of(nnx.state(layer))) == {"kernel", "bias"}
    tree = {"a": [jnp.ones(2), {"b": jnp.ones(3, jnp.bfloat16)}], "n": 3, "k": jax.random.key(0), "i": jnp.arange(3)}
    found = leaves_of(tree)
    assert list(found) == ["a/0", "a/1/b"] and found["a/1/b"].dtype == np.float32
    assert [n for n in paths_of(tree) if n in found] == list(found)


def test_rebuilt_replaces_what_is_named() -> None:
    for tree in (
        {"a": (jnp.ones(2), [jnp.zeros(3)]), "n": None},
        _equinox(3, 2, 4, 1),
        nnx.state(_linear()),
    ):
        new = {name: np.full_like(value, 7.0) for name, value in leaves_of(tree).items()}
        got = leaves_of(rebuilt(tree, new))
        assert list(got) == list(new) and all((got[n] == 7.0).all() for n in new)
        assert not any((v == 7.0).all() for v in leaves_of(tree).values())


def test_values_are_views_and_donated_trees_are_named() -> None:
    tree = {"w": jnp.arange(6.0).reshape(2, 3)}
    value = leaves_of(tree)["w"]
    assert not value.flags.owndata and not value.flags.writeable
    tree["w"].delete()
    with pytest.raises(InputError, match="w was deleted: its tree was donated"):
        leaves_of(tree)["w"]


# ---- chains by name


def test_flax_chain_is_read_as_a_network() -> None:
    model, x = _flax_mlp(), _normal(5, 3)
    params = _init(_flax_mlp, x)
    found = architecture_of_tree(params, activation="relu")
    assert [(p.name, p.count) for p in found.populations] == [("params/layers_0", 6), ("params/layers_2", 6)]
    net = found.network(leaves_of(params))
    assert np.allclose(net(np.asarray(x, np.float64)), model.apply(params, x), atol=1e-6)


def test_equinox_says_its_activation() -> None:
    module = _equinox(3, 2, 4, 1)
    found = architecture_of_tree(module)
    assert all(p.signs and p.activation is not None and p.activation.name == "tanh" for p in found.populations)
    x = _normal(5, 3)
    net = found.network(leaves_of(module))
    assert np.allclose(net(np.asarray(x, np.float64)), jax.jit(jax.vmap(module.__call__))(x), atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_pairs_are_read_either_way_and_squares_are_refused(turned: bool) -> None:
    weights = [_normal(4, 3), _normal(4, 4), _normal(2, 4)]
    tree = [(w.T if turned else w, jnp.ones(w.shape[0])) for w in weights]
    found = architecture_of_tree(tree, activation="tanh")
    assert [d.transposed for d in found.chain] == [turned] * 3
    x = np.random.default_rng(0).normal(size=(5, 3))
    h = x
    for k, w in enumerate(weights):
        h = h @ np.asarray(w, np.float64).T + 1
        h = np.tanh(h) if k < 2 else h
    assert np.allclose(found.network(leaves_of(tree))(x), h)
    assert all("weight" not in law.name for law in found.laws)
    with pytest.raises(UnsupportedError, match="allow both.*apply="):
        architecture_of_tree([(_normal(3, 3), jnp.ones(3))] * 2, activation="tanh")


# ---- populations from a trace


class _Cnn(linen.Module):  # type: ignore[misc,name-defined]
    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(linen.Conv(4, (3, 3))(x)))
        x = linen.max_pool(x, (2, 2), (2, 2))
        x = linen.avg_pool(linen.relu(linen.Conv(6, (3, 3))(x)), (2, 2), (2, 2))
        x = linen.tanh(linen.Dense(5)(x.reshape((x.shape[0], -1))))
        return linen.Dense(3)(x)


class _Residual(linen.Module):  # type: ignore[misc,name-defined]
    @linen.compact
    def __call__(self, x: Any) -> Any:
        h = linen.Dense(8)(x)
        for _ in range(2):
            inner = linen.gelu(linen.Dense(16)(linen.LayerNorm()(h)))
            h = h + linen.Dense(8)(inner)
        return linen.Dense(3)(h)


class _Attention(linen.Module):  # type: ignore[misc,name-defined]
    @linen.compact
    def __call__(self, x: Any) -> Any:
        h = linen.Embed(11, 8)(x)
        h = h + linen.MultiHeadDotProductAttention(num_heads=3, qkv_features=12)(h, h)
        gate, up = linen.Dense(7, use_bias=False, name="gate")(h), linen.Dense(7, use_bias=False, name="up")(h)
        h = h + linen.Dense(8, use_bias=False)(linen.silu(gate) * up)
        return linen.Dense(3)(h.mean(axis=1))


def _rows(found: Any) -> dict[str, tuple[int, str, str | None]]:
    return {p.name: (p.count, p.kind, None if p.activation is None else p.activation.name) for p in found.populations}


def _checked(apply: Callable[[Any, Any], Any], tree: Any, x: Any) -> Any:
    """The architecture; its claims are put to the test at random parameters, and all hold."""
    subject = PytreeSubject(tree, apply=apply, example=x)
    found = architecture_of_function(apply, tree, x)

    def evaluate(values: Any) -> Any:
        return subject.evaluate(x, values)

    assert set(defects(found, subject.parameters(), evaluate).values()) == {0.0}
    tested = confirmed(found, subject.parameters(), evaluate)
    assert tested.skipped == found.skipped and tested.laws == found.laws and tested.populations == found.populations
    used = {s.name for s in found.slots} | {s.name for s in found.skipped}
    assert used == set(subject.parameters())  # nothing is left out silently
    return found


def test_convolutions_and_batch_norm_from_the_trace() -> None:
    x = _normal(2, 8, 8, 3)
    tree = _init(_Cnn, x)
    found = _checked(lambda p, x: _Cnn().apply(p, x), tree, x)
    assert _rows(found) == {
        "params/Conv_0": (4, "channels", "relu"),
        "params/Conv_1": (6, "channels", "relu"),
        "params/Dense_0": (5, "neurons", "tanh"),
    }
    first, second, third = found.populations
    assert first.normalised and first.null and not second.normalised and third.signs and not first.signs
    names = {law.kind: (law.population, law.name) for law in found.laws}
    assert names == {
        "scale": ("params/Conv_0", "|params/Conv_0/kernel|^2"),
        "balance": (
            "params/Conv_1",
            "|params/Conv_1/kernel|^2 + params/Conv_1/bias^2 - |params/Dense_0/kernel|^2",
        ),
    }
    dense = next(s for s in found.slots if s.name == "params/Dense_0/kernel")
    assert dense.view == (2, 2, 6, 5) and not any("batch_stats" in s.name for s in found.slots)


@pytest.mark.slow
def test_training_mode_shows_the_same_populations_without_running_averages() -> None:
    x = _normal(2, 8, 8, 3)
    tree = _init(_Cnn, x)

    def apply(params: Any, x: Any) -> Any:
        return _Cnn().apply({**tree, "params": params}, x, train=True, mutable=["batch_stats"])[0]

    found = _checked(apply, tree["params"], x)
    assert _rows(found) == {
        "Conv_0": (4, "channels", "relu"), "Conv_1": (6, "channels", "relu"), "Dense_0": (5, "neurons", "tanh")
    }  # fmt: skip


def test_running_averages_hidden_in_the_function_pin_their_channels() -> None:
    x = _normal(2, 8, 8, 3)
    tree = _init(_Cnn, x)
    stats = {"BatchNorm_0": {"mean": jnp.arange(4.0), "var": jnp.arange(1.0, 5.0)}}
    found = architecture_of_function(
        lambda p, x: _Cnn().apply({"params": p, "batch_stats": stats}, x), tree["params"], x
    )
    assert list(_rows(found)) == ["Conv_1", "Dense_0"]
    reason = next(s.reason for s in found.skipped if s.name.startswith("Conv_0"))
    assert "constant of shape (4,)" in reason


def test_residual_streams_are_one_population() -> None:
    x = _normal(4, 5)
    found = _checked(lambda p, x: _Residual().apply(p, x), _init(_Residual, x), x)
    assert _rows(found) == {
        "params/Dense_0": (8, "stream", None),
        "params/Dense_1": (16, "neurons", "gelu_tanh"),
        "params/Dense_3": (16, "neurons", "gelu_tanh"),
    }
    assert len(found.places["params/Dense_0"]) == 2 + 2 * 5 + 1 and not found.laws


@pytest.mark.slow
def test_attention_heads_factors_embeddings_and_gates() -> None:
    x = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 5)))
    found = _checked(lambda p, x: _Attention().apply(p, x), _init(_Attention, x), x)
    top = "params/MultiHeadDotProductAttention_0"
    assert _rows(found) == {
        "params/Embed_0": (8, "stream", None),
        top: (3, "heads", None),
        f"{top}/query": (4, "factors", None),
        f"{top}/value": (4, "factors", "identity"),
        "params/gate": (7, "neurons", None),
    }
    laws = {law.population: law for law in found.laws}
    assert laws[f"{top}/query"].per == laws[f"{top}/value"].per == top
    assert laws[f"{top}/query"].kind == "matrix" and len(laws[f"{top}/query"].minus) == 2
    assert laws["params/gate"].name == "|params/up/kernel|^2 - |params/Dense_0/kernel|^2"


def test_operations_that_tell_neurons_apart_are_named() -> None:
    tree = {"a": _normal(5, 6), "b": _normal(6, 6), "c": _normal(6, 2)}

    def numbered(p: Any, x: Any) -> Any:
        h = jnp.tanh(x @ p["a"]) * jnp.arange(6.0)
        return jnp.tanh(h @ p["b"]) @ p["c"]

    found = architecture_of_function(numbered, tree, _normal(4, 5))
    assert [(p.name, p.count) for p in found.populations] == [("b", 6)]
    assert "iota" in found.skipped[0].reason

    def tied(p: Any, x: Any) -> Any:  # both axes of b are one residual stream: still a symmetry
        h = x @ p["a"]
        return (h + jnp.tanh(h @ p["b"])) @ p["c"]

    assert [p.name for p in _checked(tied, tree, _normal(4, 5)).populations] == ["a"]

    def square(p: Any, x: Any) -> Any:  # b's two axes are told apart by a transposition
        return jnp.tanh(x @ p["a"] @ (p["b"] + p["b"].T)) @ p["c"]

    assert [s.reason for s in architecture_of_function(square, tree, _normal(4, 5)).skipped]
    with pytest.raises(InputError, match="cannot be traced: TypeError"):
        architecture_of_function(lambda p, x: x @ p["a"].T, tree, _normal(4, 5))


def test_parameters_that_are_not_used_are_named() -> None:
    tree = {"a": _normal(5, 6), "c": _normal(6, 2), "spare": _normal(3, 3)}
    found = _checked(lambda p, x: jnp.tanh(x @ p["a"]) @ p["c"], tree, _normal(4, 5))
    assert [(s.name, s.reason) for s in found.skipped] == [("spare", "the function does not use it")]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (jax.nn.relu, "relu"), (lambda z: jnp.maximum(0.0, z), "relu"), (jax.nn.leaky_relu, "leaky_relu(0.01)"),
        (lambda z: jax.nn.leaky_relu(z, 0.25), "leaky_relu(0.25)"), (jax.nn.gelu, "gelu_tanh"),
        (lambda z: jax.nn.gelu(z, approximate=False), "gelu"), (jax.nn.silu, "silu"),
        (lambda z: z / (1 + jnp.exp(-z)), "silu"), (jax.nn.elu, "elu(1)"), (jax.nn.softplus, "softplus"),
        (jnp.tanh, "tanh"), (jax.nn.sigmoid, "sigmoid"), (jax.nn.relu6, "clip(0,6)"), (jax.nn.hard_tanh, "hard_tanh"),
        (jnp.square, "square"), (jnp.abs, "abs"), (lambda z: 2.0 * jnp.tanh(z), None), (jnp.log1p, None),
        (lambda z: jax.nn.relu(z) ** 2, None), (lambda z: jax.nn.softmax(z), None), (lambda z: z, "identity"),
    ],
)  # fmt: skip
def test_activations_are_recognised_by_their_values(function: Any, name: str | None) -> None:
    tree = {"a": _normal(5, 6), "b": _normal(6), "c": _normal(6, 2)}
    found = architecture_of_function(lambda p, x: function(x @ p["a"] + p["b"]) @ p["c"], tree, _normal(4, 5))
    (row,) = found.populations
    label = None if row.activation is None else row.activation.label.replace(" ", "")
    assert label == name
    assert bool(found.laws) == (name in ("relu", "identity", "abs", "square") or str(name).startswith("leaky"))


def test_values_behind_the_activations() -> None:
    x = _normal(3, 8, 8, 3)
    tree = _init(_Cnn, x)
    got = activations_of_function(lambda p, x: _Cnn().apply(p, x))(tree, x)
    p = tree["params"]
    h = jax.lax.conv_general_dilated(
        x, p["Conv_0"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = linen.max_pool(jax.nn.relu(h / np.sqrt(1 + 1e-5)), (2, 2), (2, 2))
    assert np.allclose(got["params/Conv_0"], h.reshape(3, 16, 4).swapaxes(1, 2), atol=1e-5)
    assert {k: v.shape for k, v in got.items()} == {
        "params/Conv_0": (3, 4, 16), "params/Conv_1": (3, 6, 4), "params/Dense_0": (3, 5, 1)
    }  # fmt: skip


# ---- optax

_TREE = {"w": np.linspace(-1, 1, 6).reshape(2, 3), "b": np.array([0.5, -0.25, 2.0])}
_SCHEDULE = optax.linear_schedule(0.1, 0.02, 6)
_CASES: list[tuple[str, Any, dict[str, Any], str]] = [
    ("sgd", optax.sgd(0.1), {"lr": 0.1}, "sgd"),
    ("schedule", optax.sgd(_SCHEDULE), {"lr": _SCHEDULE}, "sgd"),
    ("momentum", optax.sgd(0.1, momentum=0.8), {"lr": 0.1, "momentum": 0.8}, "momentum"),
    ("nesterov", optax.sgd(0.1, 0.8, nesterov=True), {"lr": 0.1, "momentum": 0.8, "nesterov": True}, "nesterov"),
    ("adam", optax.adam(0.1), {"lr": 0.1}, "adam"),
    ("adam_betas", optax.adam(0.1, 0.5, 0.7, 1e-3), {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3}, "adam"),
    ("nadam", optax.nadam(0.1, 0.7), {"lr": 0.1, "betas": (0.7, 0.999), "rule": "nadam"}, "adam"),
    ("nadam_flag", optax.nadam(0.1), {"lr": 0.1, "nesterov": True}, "adam"),
    ("nadamw", optax.nadamw(0.1, weight_decay=0.3), {"lr": 0.1, "weight_decay": 0.3, "rule": "nadamw"}, "adamw"),
    (
        "nadam_clip", optax.chain(optax.clip_by_global_norm(0.5), optax.nadam(0.1)),
        {"lr": 0.1, "clip": 0.5, "nesterov": True}, "adam",
    ),
    ("adamw", optax.adamw(_SCHEDULE, weight_decay=0.3), {"lr": _SCHEDULE, "weight_decay": 0.3}, "adam"),
    ("rmsprop", optax.rmsprop(0.1), {"lr": 0.1}, "rmsprop"),
    ("adagrad", optax.adagrad(0.1), {"lr": 0.1}, "adagrad"),
    ("inject", optax.inject_hyperparams(optax.adamw)(learning_rate=_SCHEDULE, weight_decay=0.2), {}, "adam"),
    ("inject_sgd", optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.7), {}, "momentum"),
    ("clip", optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)), {"lr": 0.1, "clip": 0.5}, "sgd"),
    (
        "decay", optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1, momentum=0.5)),
        {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2}, "momentum",
    ),
    ("lion", optax.lion(0.1), {"updates": True}, "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("transformation", "options", "name"), [c[1:] for c in _CASES], ids=[c[0] for c in _CASES])
def test_the_state_says_the_step_that_optax_takes(transformation: Any, options: dict[str, Any], name: str) -> None:
    """theta' = c theta - lr u, with u from the state, for each rule: against what optax really does."""
    params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), _TREE)
    state = transformation.init(params)
    rng = np.random.default_rng(1)
    for _ in range(3):
        grads = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape), jnp.float32), params)
        updates, state = transformation.update(grads, state, params)
        before, params = params, optax.apply_updates(params, updates)
        found = optimiser_of_optax(state, **({"updates": updates} if "updates" in options else options))
        assert found.name == name
        scale = found.clipping(leaves_of(grads))
        for key, old in before.items():
            u = found.direction(key, np.asarray(params[key]), np.asarray(grads[key]), scale=scale)
            assert u is not None
            expected = found.shrink(key) * np.asarray(old) - found.number(key, "lr") * u
            assert np.allclose(expected, params[key], rtol=2e-5, atol=2e-6)


def test_hidden_numbers_are_asked_for_by_name() -> None:
    params = {"w": jnp.ones(2)}

    def refused(transformation: Any, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            optimiser_of_optax(transformation.init(params), **options)
        return str(caught.value)

    assert "give lr for this adam" in refused(optax.adam(0.1))
    assert "give lr, momentum for this momentum" in refused(optax.sgd(0.1, momentum=0.9))
    assert "give weight_decay (or clip" in refused(optax.adamw(0.1), lr=0.1)
    assert "inject_hyperparams" in refused(optax.sgd(0.1))
    assert "rule='adam' does not fit" in refused(optax.sgd(0.1), lr=0.1, rule="adam")
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    assert "weight_decay (or clip" in refused(clipped, lr=0.1)


def test_what_the_state_of_adam_leaves_open_is_said_or_refused() -> None:
    params = {"w": jnp.ones(2)}
    state = optax.nadam(0.1).init(params)
    assert "Adam is assumed" in optimiser_of_optax(state, lr=0.1).note
    assert not optimiser_of_optax(state, lr=0.1).lookahead
    for options in ({"rule": "adam"}, {"rule": "nadam"}, {"nesterov": True}):
        found = optimiser_of_optax(state, lr=0.1, **options)
        assert not found.note and found.lookahead == ("rule" not in options or options["rule"] == "nadam")
    assert not optimiser_of_optax(optax.sgd(0.1).init(params), lr=0.1).note
    with pytest.raises(InputError, match="nesterov=True does not fit"):
        optimiser_of_optax(optax.rmsprop(0.1).init(params), lr=0.1, nesterov=True)
    with pytest.raises(InputError, match="rule='nadam' does not fit"):
        optimiser_of_optax(optax.sgd(0.1).init(params), lr=0.1, rule="nadam")
    coupled = optimiser_of_optax(state, lr=0.1, rule="nadam", weight_decay=0.1, coupled=True)
    assert coupled.direction("w", np.ones(2), np.ones(2)) is None


def test_an_assumed_rule_is_a_note_of_the_watched_run() -> None:
    tree = {"Dense_0": {"kernel": _normal(2, 3)}, "Dense_1": {"kernel": _normal(3, 1)}}
    transformation = optax.adam(0.1)
    for rule, said in (({"lr": 0.1}, True), ({"lr": 0.1, "rule": "adam"}, False)):
        with jax_watch(tree, activation="relu", every=1, rule=rule) as watcher:
            _, state = transformation.update(tree, transformation.init(tree), tree)
            watcher.step(tree, optimizer=state)
        assert any("Adam is assumed" in text for text in watcher.notes) == said
        assert watcher.trace().optimizer["lr"] == 0.1
        assert "adam of rate 0.1" in str(watcher.trace())


def test_transformations_without_a_meaning_are_named() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    labels = {"w": "x", "b": "y"}
    for transformation, word in (
        (optax.lion(0.1), "ScaleByLionState"),
        (optax.MultiSteps(optax.adam(0.1), 4), "several steps"),
        (optax.multi_transform({"x": optax.sgd(0.1), "y": optax.adam(0.1)}, labels), "each group"),
        (optax.masked(optax.sgd(0.1, momentum=0.5), {"w": True, "b": False}), "masked"),
        (optax.rmsprop(0.1, momentum=0.9), "scaled by RMSprop"),
    ):
        found = optimiser_of_optax(transformation.init(params), lr=0.1)
        assert found.name == "unknown" and word in found.note


# ---- loops


def _digits() -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(64, 5)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(np.stack([np.sin(x[:, 0] + x[:, 1]), x[:, 2] * x[:, 3]], 1))


def _planted(params: Any) -> Any:
    """Neurons 0 and 1 of the first layer are equal; no gradient separates them."""
    a, b = params["params"]["layers_0"], params["params"]["layers_2"]
    first, second = np.array(a["kernel"]), np.array(b["kernel"])
    first[:, 1], second[1] = first[:, 0], second[0]
    a["kernel"], b["kernel"] = jnp.asarray(first), jnp.asarray(second)
    return params


def test_flax_loop_with_donated_buffers() -> None:
    model = _flax_mlp()
    x, y = _digits()
    params = _planted(_init(_flax_mlp, x))
    tx = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.02, momentum=0.9))
    hidden = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.05}
    state = tx.init(params)

    def train(params: Any, state: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((model.apply(p, x) - y) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss, grads

    step = jax.jit(train, donate_argnums=(0, 1))
    with jax_watch(params, apply=model.apply, data=x[:16], rule=hidden, every=5, drift_every=1) as watcher:
        for k in range(1, 31):
            params, state, loss, grads = step(params, state)
            last = watcher.step(params, step=k, gradients=grads, optimizer=state, loss=loss) or {}
    assert watcher.architecture is not None and watcher.architecture.chain  # also found to be a plain chain
    assert last["fiberscope/sims/nearest_distance"] < 1e-6
    assert last["fiberscope/sims/classes_exact"] == 11
    assert abs(last["fiberscope/laws/ratio"] - 1) < 0.1
    assert [r.step for r in watcher.trace().records] == list(range(0, 31, 5)) and not watcher.problems


def test_nnx_and_equinox_loops() -> None:
    x, y = _digits()

    class Net(nnx.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.first, self.second = nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.second(nnx.relu(self.first(x)))

    model = nnx.jit(Net)()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def train(model: Any, optimizer: Any) -> Any:
        grads = nnx.grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return grads

    start = nnx.state(model, nnx.Param)
    with jax_watch(start, activation="relu", rule={"lr": 1e-2}, every=2, drift_every=1) as watcher:
        for _ in range(6):
            grads = train(model, optimizer)
            last = watcher.step(nnx.state(model, nnx.Param), gradients=grads, optimizer=optimizer)
    assert last is not None and abs(last["fiberscope/laws/ratio"] - 1) < 0.1 and not watcher.problems

    module = _equinox(5, 2, 6, 1, jax.nn.relu)
    tx = optax.sgd(0.05)
    state = tx.init(eqx.filter(module, eqx.is_array))

    @eqx.filter_jit
    def step(module: Any, state: Any) -> Any:
        grads = eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(x) - y) ** 2))(module)
        updates, state = tx.update(grads, state)
        return eqx.apply_updates(module, updates), state, grads

    with jax_watch(module, rule={"lr": 0.05}, every=2, data=np.asarray(x), drift_every=1) as watcher:
        for _ in range(6):
            module, state, grads = step(module, state)
            last = watcher.step(module, gradients=grads, optimizer=state)
    assert last is not None and abs(last["fiberscope/laws/ratio"] - 1) < 0.05
    assert last["fiberscope/dead/units"] == 6 and not watcher.problems


def test_a_state_that_hides_numbers_leaves_the_prediction_out_and_says_so() -> None:
    tree = {"Dense_0": {"kernel": _normal(2, 3)}, "Dense_1": {"kernel": _normal(3, 1)}}
    state = optax.adam(0.1).init(tree)
    with jax_watch(tree, activation="relu", every=1) as watcher:
        found = watcher.step(tree, optimizer=state)
    assert found is not None and "fiberscope/laws/ratio" not in found
    assert any("give lr for this adam" in text for text in watcher.problems)


def test_nothing_of_a_step_is_kept() -> None:
    subject = PytreeSubject({"Dense_0": {"kernel": _normal(2, 3)}, "Dense_1": {"kernel": _normal(3, 1)}},
                            activation="relu", rule={"lr": 0.1})  # fmt: skip
    subject.update({"Dense_0": {"kernel": _normal(2, 3)}, "Dense_1": {"kernel": _normal(3, 1)}}, optimizer=())
    assert subject.optimiser() is not None
    subject.release()
    assert subject.optimiser() is None
    with pytest.raises(InputError, match="hand them over"):
        subject.parameters()
    with pytest.raises(UnsupportedError, match="apply="):
        PytreeSubject({"x": _normal(2, 2, 2), "kernel": _normal(3, 3, 2, 2)}, activation="relu")


def test_problems_of_the_optimiser_reach_the_trace(tmp_path: Any) -> None:
    tree = {"Dense_0": {"kernel": _normal(2, 3)}, "Dense_1": {"kernel": _normal(3, 1)}}
    state = optax.adam(0.1).init(tree)
    with jax_watch(tree, tmp_path / "run.jsonl", activation="relu", every=1) as watcher:
        for _ in range(3):
            watcher.step(tree, optimizer=state)
    assert (tmp_path / "run.jsonl").read_text().count("give lr for this adam") == 1
    assert any("give lr for this adam" in text for text in watcher.trace().problems)


def test_modules_with_functions_in_their_tree_are_watched_on_data() -> None:
    module, x = _equinox(5, 2, 6, 1, jax.nn.relu), np.ones((4, 5), dtype=np.float32)

    def apply(model: Any, inputs: Any) -> Any:
        return jax.vmap(model)(inputs)

    with jax_watch(module, apply=apply, data=x, every=1) as watcher:
        watcher.step(module)
    assert watcher.last["fiberscope/dead/units"] == 6 and "fiberscope/dead/on_data" in watcher.last
    assert not watcher.problems
    with jax_watch(module, apply=apply, data=x[:, :3], example=x, every=1) as watcher:  # of another width
        watcher.step(module)
    assert "fiberscope/sims/neurons" in watcher.last and "fiberscope/dead/on_data" not in watcher.last
    assert any("no units were looked at" in text for text in watcher.trace().problems)


def test_trees_without_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="a list without arrays of floats; give what is trained"):
        watch([1, 2])
    with pytest.raises(UnsupportedError, match=r"jax_watch\(params, apply="):
        watch({"a": jnp.ones((3, 3))})


def test_a_momentum_whose_rule_is_assumed_is_said_with_the_prediction():
    optax = pytest.importorskip("optax")
    params = {"w": np.ones((2, 2))}
    for nesterov in (False, True):
        state = optax.sgd(0.1, momentum=0.9, nesterov=nesterov).init(params)
        silent = optimiser_of_optax(state, lr=0.1, momentum=0.9, nesterov=nesterov)
        assert silent.note == "" and silent.name == ("nesterov" if nesterov else "momentum")
        assert optimiser_of_optax(state, lr=0.1, momentum=0.9, rule=silent.name).note == ""
        for rule in (None, "sgd"):
            guessed = optimiser_of_optax(state, lr=0.1, momentum=0.9, rule=rule)
            assert guessed.name == "momentum" and "plain momentum is assumed" in guessed.note


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": "fast"}, "lr = 'fast'; give a number"),
        ({"lr": 0.1, "rule": 3}, "rule is a int; give a name"),
        ({"lr": 0.1, "momentum": [[1.0], [1.0, 2.0]]}, "momentum = "),
        ({"lr": 0.1, "betas": 0.9}, r"betas = 0.9; give the pair"),
    ],
)
def test_wrong_numbers_of_optax_get_one_clear_line(options, words):
    with pytest.raises(InputError, match=words):
        optimiser_of_optax((), **options)
