"""`KerasWatch`: a callback that watches `model.fit` of Keras 3, with any backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError, import_optional
from fiberscope.io import state_dicts
from fiberscope.training.adapters.callbacks import Hooks, callback_class
from fiberscope.training.adapters.keras_layers import architecture_of_keras
from fiberscope.training.architectures.architecture import Architecture, Array, Parameters
from fiberscope.training.drift.rules import UNKNOWN, OptimiserState
from fiberscope.training.traces.subjects import ArraySubject

if TYPE_CHECKING:
    KerasWatch: Any

__all__ = ["KerasSubject", "KerasWatch", "optimiser_of_keras"]


class _Variables(Mapping[str, npt.NDArray[Any]]):
    """Variables of Keras by name, as NumPy arrays when they are read, times a factor."""

    def __init__(self, variables: Mapping[str, Any], factor: float = 1.0) -> None:
        self._variables, self._factor = dict(variables), factor

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        variable = self._variables[name]
        value = getattr(variable, "value", variable)
        array = state_dicts.as_array(value if hasattr(value, "shape") else variable, name)
        return array if self._factor == 1.0 else array * np.asarray(self._factor, array.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


class KerasSubject(ArraySubject):
    """A Keras model in training as a watcher sees it; gradients are not shown by Keras.

    Args:
        model: a built model.
        architecture: which axes index which neurons; None follows the layers (`architecture_of_keras`).
    """

    def __init__(self, model: Any, architecture: Architecture | None = None) -> None:
        self.model = model
        self._looking: tuple[Any, dict[str, int]] | None = None
        self._calls: dict[int, Any] = {}
        super().__init__(None, architecture)

    def architecture(self) -> Architecture:
        """See `Subject`."""
        if self._architecture is None:
            self._architecture = architecture_of_keras(self.model)
        return self._architecture

    def parameters(self) -> Parameters:
        """See `Subject`: trainable variables by their path."""
        self._sync()
        return _Variables({v.path: v for v in self.model.trainable_variables})

    def _sync(self) -> None:
        """With JAX, Keras holds the state of an epoch outside of the variables."""
        sync = getattr(self.model, "jax_state_sync", None)
        if callable(sync):
            sync()

    def _compiled(self, model: Any) -> Any:
        """The model as a function of its variables and inputs; with JAX compiled as a whole, as `fit` does it."""
        if id(model) not in self._calls:
            call: Any = partial(model.stateless_call, training=False)
            keras = import_optional("keras", extra="keras", purpose="watch Keras models")
            if keras.backend.backend() == "jax" and not getattr(self.model, "run_eagerly", False):
                call = import_optional("jax", extra="jax", purpose="watch Keras models").jit(call)
            self._calls[id(model)] = call
        return self._calls[id(model)]

    def optimiser(self) -> OptimiserState | None:
        """See `Subject`."""
        self._sync()
        found = getattr(self.model, "optimizer", None)
        if found is None:
            return None
        state = optimiser_of_keras(found, {v.path: v for v in self.model.trainable_variables})
        if state.note and state.note not in self._problems:
            self._problems.append(state.note)
        return state

    def activations(self, data: Any) -> dict[str, Array] | None:
        """See `Subject`: outputs behind the populations, from a second model of the same layers."""
        keras = import_optional("keras", extra="keras", purpose="watch Keras models")
        self._sync()
        if self._looking is None:
            wanted = _behind(self.model, self.architecture())
            graph = getattr(self.model, "_functional", None) or self.model
            inner = keras.Model(graph.inputs, {k: tensor for k, (tensor, _) in wanted.items()}) if wanted else None
            self._looking = inner, {k: axis for k, (_, axis) in wanted.items()}
        inner, axes = self._looking
        if inner is None:
            return {}
        values, others = (
            [v.value for v in some] for some in (inner.trainable_variables, inner.non_trainable_variables)
        )
        found = self._compiled(inner)(values, others, keras.ops.convert_to_tensor(data))[0]
        return {k: np.moveaxis(keras.ops.convert_to_numpy(v), axes[k], 1) for k, v in found.items()}

    def evaluate(self, data: Any, parameters: Parameters | None = None) -> Array | None:
        """See `Subject`; at other parameters running averages treat all channels alike. The model stays as it is."""
        self._sync()
        keras = import_optional("keras", extra="keras", purpose="watch Keras models")
        values = []
        for variable in self.model.trainable_variables:
            given = None if parameters is None else parameters.get(variable.path)
            values.append(variable.value if given is None else keras.ops.convert_to_tensor(given, variable.dtype))
        others = []
        for variable in self.model.non_trainable_variables:
            level = {"moving_mean": 0.0, "moving_variance": 1.0}.get(variable.name)
            plain = parameters is None or level is None
            full = None if plain else np.full(variable.shape, level, np.float32)
            others.append(variable.value if full is None else keras.ops.convert_to_tensor(full, variable.dtype))
        out = self._compiled(self.model)(values, others, keras.ops.convert_to_tensor(data))[0]
        return None if isinstance(out, list | tuple | dict) else np.asarray(keras.ops.convert_to_numpy(out))


_ALONE = ("ReLU", "LeakyReLU", "ELU", "Activation")


def _behind(model: Any, architecture: Architecture) -> dict[str, tuple[Any, int]]:
    """(symbolic output, axis of the channels) of the layers that apply the activations of the populations."""
    graph = getattr(model, "_functional", None) or model
    if not hasattr(graph, "_nodes_by_depth"):
        return {}
    owner = {v.path: layer for layer in graph.layers for v in getattr(layer, "variables", [])}
    wanted: dict[str, tuple[Any, int]] = {}
    for p in architecture.populations:
        makers = [architecture.slots[s].name for s, _, role in architecture.places[p.name] if role == "in"]
        kernels = [layer for layer in dict.fromkeys(owner.get(n) for n in makers) if hasattr(layer, "kernel")]
        if p.activation is None or len(kernels) != 1:
            continue
        layer: Any = kernels[0]
        first = getattr(layer, "data_format", None) == "channels_first"
        for _ in range(4):  # the activation may be a layer of its own, behind a normalisation
            own = getattr(getattr(layer, "activation", None), "__name__", "linear")
            if type(layer).__name__ in _ALONE or own != "linear":
                wanted[p.name] = layer.output, 1 if first else len(layer.output.shape) - 1
                break
            after = [n.operation for n in layer._outbound_nodes if n.operation in graph.layers]
            if len(after) != 1:
                break
            layer = after[0]
    return wanted


def optimiser_of_keras(optimizer: Any, variables: Mapping[str, Any]) -> OptimiserState:
    """The optimiser of a Keras model, as it was in the step just taken.

    Keras's velocity is -lr times torch's, its epsilon of Adam is not scaled by the bias correction, and all its decay
    is decoupled; the state says the same in the terms of `OptimiserState`.

    Args:
        optimizer: of `model.compile`, built.
        variables: trainable variables by name, in the order of the model.

    Returns:
        The state; "unknown" with a note for rules without a meaning here, or gradients that are added up.

    O(number of variables); moments are converted when they are read.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    config = optimizer.get_config()
    kind = type(optimizer).__name__
    steps = int(np.asarray(_Variables({"n": optimizer.iterations})["n"]))
    schedule: Any = getattr(optimizer, "_learning_rate", None)
    is_schedule = callable(schedule) and hasattr(schedule, "get_config") and not hasattr(schedule, "path")
    rate = schedule(max(0, steps - 1)) if is_schedule else optimizer.learning_rate
    lr = float(np.asarray(_Variables({"lr": rate})["lr"]))
    decay = float(config.get("weight_decay") or 0.0)
    uses = getattr(optimizer, "_use_weight_decay", lambda variable: True)
    groups = {name: {"weight_decay": 0.0} for name, v in variables.items() if decay and not uses(v)}
    options: dict[str, Any] = {"weight_decay": decay, "coupled": False, "groups": groups, "steps": steps}

    def held(attribute: str, factor: float = 1.0) -> _Variables:
        own = list(getattr(optimizer, attribute, None) or [])
        index = {id(v): k for k, v in enumerate(getattr(optimizer, "_trainable_variables", []))}
        at = {name: index[id(v)] for name, v in variables.items() if id(v) in index}
        return _Variables({name: own[k] for name, k in at.items() if k < len(own)}, factor)

    if config.get("gradient_accumulation_steps"):
        note = "no drift is predicted: gradients of several batches are added up"
        return OptimiserState(UNKNOWN, lr, note=note, **options)
    turned = -1.0 / lr if lr else 0.0
    if kind == "SGD":
        momentum = float(config["momentum"])
        name = "sgd" if not momentum else "nesterov" if config["nesterov"] else "momentum"
        buffers = {"momentum": held("momentums", turned)} if momentum else {}
        if name != "momentum":
            options["note"] = f"no steps of {name} are predicted: Keras shows no gradients to callbacks"
        return OptimiserState(name, lr, momentum=momentum, buffers=buffers, **options)
    if kind in ("Adam", "AdamW"):
        beta1, beta2 = float(config["beta_1"]), float(config["beta_2"])
        eps = float(config["epsilon"]) / max(1.0 - beta2 ** max(1, steps), 1e-300) ** 0.5
        buffers = {"first": held("_momentums"), "second": held("_velocities")}
        if config.get("amsgrad"):
            buffers["maximum"] = held("_velocity_hats")
        return OptimiserState(kind.lower(), lr, beta1=beta1, beta2=beta2, eps=eps, buffers=buffers, **options)
    if kind == "RMSprop" and config["momentum"]:  # its velocity is lr times the step, so it says the step
        buffers = {"momentum": held("_momentums", -turned)}
        return OptimiserState("rmsprop", lr, momentum=float(config["momentum"]), buffers=buffers, **options)
    return OptimiserState(UNKNOWN, lr, note=f"no drift is predicted: the steps of {kind} are not understood", **options)


class _Hooks(Hooks):
    """Watch `model.fit`: `model.fit(x, y, callbacks=[KerasWatch("run.jsonl", data=x[:256])])`.

    Steps are batches (`steps_per_execution` of them at once where that is set). Between measurements a batch costs a
    comparison; with JAX, Keras is asked for its variables only when it is time.

    Args:
        path: of the trace; None keeps it in memory.
        every: steps between measurements; None as in `watch`.
        data: inputs on which units are looked at and populations put to the test.
        options: further arguments of `watch`: architecture, domain, loggers, force, resume, tables, ...

    Raises:
        InputError: when training begins, if the trace exists and is neither resumed nor forced.
        UnsupportedError: then, for a subclassed model without architecture=.
    """

    _steps = _in_epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the watcher and measure the start."""
        model = self.model  # type: ignore[attr-defined]
        if not model.built:
            raise InputError("the model is not built yet; give it an Input, or call it once before fit")
        if not self._began:
            self._steps = int(np.asarray(_Variables({"n": model.optimizer.iterations})["n"]))
        options = dict(self.options)
        self._open(KerasSubject(model, options.pop("architecture", None)), options)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches are counted anew in every epoch."""
        self._in_epoch = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the steps up to this batch."""
        self._steps += batch + 1 - self._in_epoch
        self._in_epoch = batch + 1
        if self.watcher is not None:
            loss = logs.get("loss") if isinstance(logs, Mapping) else None
            self.watcher.step(step=self._steps, loss=loss)

    def on_train_end(self, logs: Any = None) -> None:
        """Measure the end and close the trace."""
        self._close()


def __getattr__(name: str) -> Any:
    """`KerasWatch`, made when Keras is there: a `keras.callbacks.Callback`."""
    if name != "KerasWatch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    keras = import_optional("keras", extra="keras", purpose="watch Keras models")
    made = globals()[name] = callback_class(name, __name__, _Hooks, keras.callbacks.Callback)
    return made
