"""Keras 3: populations by layer, optimisers by their variables, and `model.fit` watched."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiberscope.errors import InputError, MissingDependencyError, UnsupportedError

if "KERAS_BACKEND" not in os.environ:
    pytest.importorskip("jax", reason="jax, the backend for these tests, is not installed")
    os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras", reason="keras is not installed", exc_type=ImportError)

from fiberscope.training.adapters import keras as adapter  # noqa: E402
from fiberscope.training.adapters.keras_layers import architecture_of_keras  # noqa: E402
from fiberscope.training.architectures.exchange import confirmed, defects  # noqa: E402
from fiberscope.training.traces.reading import read_trace  # noqa: E402

L = keras.layers
if os.environ["KERAS_BACKEND"] == "jax":
    pytestmark = pytest.mark.usefixtures("quick_jax")


def _data(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _array(variable: Any) -> Any:
    return keras.ops.convert_to_numpy(variable)


def _rows(found: Any) -> dict[str, tuple[int, str, str | None]]:
    return {p.name: (p.count, p.kind, None if p.activation is None else p.activation.name) for p in found.populations}


def _checked(model: Any, x: Any) -> Any:
    """The architecture; its claims are put to the test at random parameters, and all hold."""
    subject = adapter.KerasSubject(model)
    found = architecture_of_keras(model)

    def evaluate(values: Any) -> Any:
        return subject.evaluate(x, values)

    assert set(defects(found, subject.parameters(), evaluate).values()) <= {0.0}
    tested = confirmed(found, subject.parameters(), evaluate)
    assert tested.skipped == found.skipped and tested.laws == found.laws and tested.populations == found.populations
    assert {s.name for s in found.slots} | {s.name for s in found.skipped} >= set(subject.parameters())
    return found


def _cnn() -> Any:
    return keras.Sequential(
        [
            L.Input((8, 8, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D(),
            L.Conv2D(5, 2, activation="relu"), L.Flatten(), L.Dense(6, activation="tanh"), L.Dropout(0.1),
            L.Dense(3, activation="softmax"),
        ],
        name="cnn",
    )  # fmt: skip


def test_convolutions_batch_norm_and_flattened_channels() -> None:
    model, x = _cnn(), _data(4, 8, 8, 3)
    before = [_array(v) for v in model.weights]
    found = _checked(model, x)
    names = list(_rows(found))
    assert [r[0] for r in _rows(found).values()] == [4, 5, 6]
    assert [r[1:] for r in _rows(found).values()] == [("channels", "relu"), ("channels", "relu"), ("neurons", "tanh")]
    first, second, third = found.populations
    assert first.normalised and not second.normalised and third.signs and not second.signs
    assert [(law.kind, law.population) for law in found.laws] == [("scale", names[0]), ("balance", names[1])]
    kernel = found.slots[[s.name for s in found.slots].index(f"{names[2]}/kernel")]
    assert kernel.view == (2, 2, 5, 6) and not any("moving" in s.name for s in found.slots)
    got = adapter.KerasSubject(model).activations(x)
    assert got is not None and [got[n].shape for n in names] == [(4, 4, 6, 6), (4, 5, 2, 2), (4, 6)]
    hidden = keras.Model(model.inputs, [model.layers[2].output, model.layers[6].output])(x)
    assert np.allclose(got[names[0]], np.moveaxis(np.asarray(hidden[0]), -1, 1), atol=1e-6)
    assert np.allclose(got[names[2]], hidden[1], atol=1e-6)
    assert all(np.array_equal(a, _array(b)) for a, b in zip(before, model.weights, strict=True))


def test_functional_models_branches_streams_and_unknown_layers() -> None:
    inputs = keras.Input((4,))
    h = L.Dense(6, name="a")(inputs)
    inner = L.Dense(9, name="b", activation="gelu")(L.LayerNormalization(name="norm")(h))
    out = L.Dense(2, name="d")(L.Add()([h, L.Dense(6, name="c")(inner)]))
    found = _checked(keras.Model(inputs, out), _data(5, 4))
    assert _rows(found) == {"a": (6, "stream", None), "b": (9, "neurons", "gelu")}
    assert len(found.places["a"]) == 2 + 2 + 1 + 2 + 1

    class Ramp(L.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any) -> Any:
            return x * keras.ops.arange(x.shape[-1], dtype=x.dtype)

    model = keras.Sequential(
        [L.Input((4,)), L.Dense(5, activation="tanh"), Ramp(name="ramp"), L.Dense(6, activation="relu"), L.Dense(2)]
    )
    odd = architecture_of_keras(model)
    assert [p.count for p in odd.populations] == [6]
    assert {s.reason for s in odd.skipped} == {"the layer ramp (Ramp) is not understood"}
    assert any("dense" in s.name for s in odd.skipped)


@pytest.mark.slow
def test_nested_and_gated_models() -> None:
    block = keras.Sequential([L.Input((6,)), L.Dense(5, activation="relu", name="inner"), L.Dense(7, name="outer")])
    inputs = keras.Input((3,))
    h = block(L.Dense(6, activation="tanh", name="before")(inputs))
    gated = L.Multiply()([L.Dense(4, activation="silu", name="gate")(h), L.Dense(4, name="up")(h)])
    found = _checked(keras.Model(inputs, L.Dense(2, name="down")(gated)), _data(5, 3))
    assert sorted(p.count for p in found.populations) == [4, 5, 6, 7]
    assert any(law.name.startswith("|up/kernel|^2 + up/bias^2 - |down/kernel|^2") for law in found.laws)


def test_models_without_a_graph_are_refused() -> None:
    class Own(keras.Model):  # type: ignore[misc,name-defined]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(UnsupportedError, match="no graph of layers"):
        architecture_of_keras(Own())


def _small(width: int = 6) -> Any:
    return keras.Sequential([L.Input((4,)), L.Dense(width, activation="relu"), L.Dense(2)])


_RULES = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.8, weight_decay=0.1),
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5), weight_decay=0.1
    ),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.05, momentum=0.7),
}


@pytest.mark.parametrize("name", list(_RULES))
def test_the_state_says_the_step_that_keras_takes(name: str) -> None:
    model = keras.Sequential([L.Input((4,)), L.Dense(3)])
    optimizer = _RULES[name]()
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    variables = {v.path: v for v in model.trainable_variables}
    for _ in range(3):
        old = {n: _array(v) for n, v in variables.items()}
        grads = [keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in variables.values()]
        optimizer.apply(grads, list(variables.values()))
        state = adapter.optimiser_of_keras(optimizer, variables)
        assert state.name == name
        for n, variable in variables.items():
            u = state.direction(n, _array(variable), None)
            assert u is not None
            expected = state.shrink(n) * old[n] - state.number(n, "lr") * u
            assert np.allclose(expected, _array(variable), rtol=1e-4, atol=1e-6)
    assert state.count(n) == 3


def test_rules_that_are_not_understood_are_named() -> None:
    model = _small()
    variables = {v.path: v for v in model.trainable_variables}
    for optimizer, word in (
        (keras.optimizers.Lion(0.1), "Lion"),
        (keras.optimizers.SGD(0.1), "shows no gradients"),
        (keras.optimizers.Adam(0.1, gradient_accumulation_steps=4), "added up"),
    ):
        optimizer.build(model.trainable_variables)
        assert word in adapter.optimiser_of_keras(optimizer, variables).note


def test_fit_is_watched(tmp_path: Path) -> None:
    model, x = _small(8), _data(32, 4)
    kernel, bias = (_array(v).copy() for v in model.layers[0].weights)
    out = _array(model.layers[1].kernel).copy()
    kernel[:, 1], out[1] = kernel[:, 0], out[0]  # planted: neurons 0 and 1 are equal
    kernel[:, 2], bias[2] = -np.abs(kernel[:, 2]), -100.0  # planted: neuron 2 is dead on the data
    model.layers[0].set_weights([kernel, bias])
    model.layers[1].kernel.assign(out)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    seen: list[tuple[int, int]] = []
    watch = adapter.KerasWatch(
        tmp_path / "run.jsonl", every=3, data=x, loggers=[lambda row, step: seen.append((step, len(row)))],
        drift_every=1,
    )  # fmt: skip
    model.fit(x, np.stack([x[:, 0], x[:, 1] ** 2], 1), batch_size=8, epochs=2, callbacks=[watch], verbose=0)
    trace = read_trace(tmp_path / "run.jsonl")
    assert trace.complete and [r.step for r in trace.records] == [0, 3, 6, 8]
    assert [step for step, _ in seen] == [0, 3, 6, 8] and max(count for _, count in seen) <= 20
    last = trace.records[-1].scalars
    assert last["fiberscope/sims/nearest_distance"] < 1e-6 and last["fiberscope/dead/on_data"] == 1
    assert abs((last["fiberscope/laws/ratio"] or 0) - 1) < 0.1
    assert all((r.scalars["loss"] or 0) > 0 for r in trace.records[1:-1])
    assert np.isfinite(model.evaluate(x, np.zeros((32, 2)), verbose=0))
    with pytest.raises(InputError, match="exists"):
        model.fit(x, _data(32, 2), callbacks=[adapter.KerasWatch(tmp_path / "run.jsonl")], verbose=0)
    model.fit(x, _data(32, 2), batch_size=16, callbacks=[watch], verbose=0)  # the same callback goes on
    assert [r.step for r in read_trace(tmp_path / "run.jsonl").records][-1] == 10


def test_the_callback_is_one_of_keras_and_pickles() -> None:
    watch = adapter.KerasWatch(every=7)
    assert isinstance(watch, keras.callbacks.Callback) and adapter.KerasWatch is type(watch)
    assert pickle.loads(pickle.dumps(watch)).every == 7
    with pytest.raises(InputError, match="has not started"):
        watch.trace()
    model = keras.Sequential([L.Dense(3)])
    watch.set_model(model)
    with pytest.raises(InputError, match="not built"):
        watch.on_train_begin()


_OTHER = """
import json, sys
import numpy as np, keras
from fiberscope.training.adapters.keras import KerasWatch
L = keras.layers
model = keras.Sequential([L.Input((8, 8, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(),
                          L.Dense(6, activation="tanh"), L.Dense(2)])
model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
watch = KerasWatch(sys.argv[1], every=2, data=x[:4])
model.fit(x, x[:, 0, 0, :2], batch_size=4, epochs=1, callbacks=[watch], verbose=0)
rows = [r.step for r in watch.trace().records]
found = watch.watcher.architecture
print(json.dumps([keras.backend.backend(), rows, [p.count for p in found.populations], len(found.skipped),
                  list(watch.watcher.problems)]))
"""


@pytest.mark.slow
def test_the_torch_backend(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    run = subprocess.run(
        [sys.executable, "-c", _OTHER, str(tmp_path / "run.jsonl")],
        env={**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout.splitlines()[-1]) == ["torch", [0, 2, 4], [4, 6], 0, []]


def test_the_module_loads_without_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    spec = importlib.util.find_spec(adapter.__name__)
    assert spec is not None and spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    with pytest.raises(MissingDependencyError, match="keras is needed to watch Keras models"):
        fresh.KerasWatch  # noqa: B018
