"""What Keras layers mean: one row per class, from a model's JSON configuration to steps of a chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io.chains import Builder, Matrix, clip_row, exact_parameter, scaled_by

Tensor = npt.NDArray[Any]
Row = Mapping[str, Any]

_MAX_ENTRIES = 1 << 40

_SAME_NAME = ("relu", "tanh", "sigmoid", "softplus", "gelu", "silu", "elu", "hard_tanh")
_ALIASES = {"linear": "identity", "swish": "silu"}


class Parameters:
    """Where a layer's tensors are found."""

    def of(self, layer: Row, name: str, roles: tuple[str, ...]) -> dict[str, tuple[str, Tensor]]:
        """(path, array) for each role, such as "kernel"."""
        raise FormatError(f"{title_of(layer)} has no tensors here")

    def skip(self, layer: Row) -> None:
        """Count a layer without tensors, where files number them."""


@dataclass(frozen=True)
class Model:
    """A model's layers as configured, and whether they are joined by `inbound_nodes`."""

    layers: list[dict[str, Any]]
    functional: bool


def title_of(layer: Row) -> str:
    """Class and name of a layer, for messages."""
    config = layer.get("config")
    name = config.get("name", "") if isinstance(config, dict) else ""
    return f"{str(layer.get('class_name'))[:60]} {str(name)[:60]!r}"


def config_of(data: Any) -> Model:
    """The layers of a model configuration, checked for shape only.

    Raises:
        UnsupportedError: if the model is neither Sequential nor functional.
    """
    if not isinstance(data, dict) or not isinstance(data.get("class_name"), str):
        raise FormatError("its model configuration is malformed")
    kind, config = data["class_name"], data.get("config")
    if kind not in ("Sequential", "Model", "Functional"):
        raise UnsupportedError(f"is a {kind[:60]!r} model; Sequential and functional chains are known")
    layers = config.get("layers") if isinstance(config, dict) else config
    if not isinstance(layers, list):
        raise FormatError("its model configuration has no list of layers")
    for layer in layers:
        if (
            not isinstance(layer, dict)
            or not isinstance(layer.get("config"), dict)
            or not isinstance(layer.get("class_name"), str)
        ):
            raise FormatError("its model configuration has a malformed layer")
        if not isinstance(layer["config"].setdefault("name", layer.get("name", "")), str):
            raise FormatError("its model configuration has a layer without a name")
    return Model(layers, kind != "Sequential")


def ordered_layers(model: Model) -> list[dict[str, Any]]:
    """The layers in the order they are applied.

    Raises:
        UnsupportedError: if they branch or merge; the layer is named.
    """
    if not model.functional:
        return model.layers
    before = {}
    by_name = {}
    for layer in model.layers:
        name = layer["config"]["name"]
        if name in by_name:
            raise FormatError(f"two layers are called {name!r}")
        by_name[name] = layer
        before[name] = _inbound(layer)
    starts = [name for name, sources in before.items() if not sources]
    if len(starts) != 1:
        raise UnsupportedError(f"has {len(starts)} inputs; chains with one are known")
    after: dict[str, str] = {}
    for name, sources in before.items():
        for source in sources:
            if len(sources) > 1 or source in after:
                raise UnsupportedError(f"branches or merges at {title_of(by_name[name])}; chains are known")
            after[source] = name
    out = [starts[0]]
    while out[-1] in after and len(out) <= len(by_name):
        out.append(after[out[-1]])
    if len(out) != len(by_name) or not set(out) == set(by_name):
        raise FormatError("its layers are not connected")
    return [by_name[name] for name in out]


def _inbound(layer: Row) -> list[str]:
    """Names of the layers it reads."""
    nodes = layer.get("inbound_nodes", [])
    if not isinstance(nodes, list) or len(nodes) > 1:
        raise UnsupportedError(f"{title_of(layer)} is used more than once; chains are known")
    found: list[str] = []
    _histories(nodes, found, 0)
    return found


def _histories(value: Any, found: list[str], depth: int) -> None:
    if depth > 12:
        raise FormatError("its model configuration is nested too deeply")
    if isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history and isinstance(history[0], str):
            found.append(history[0])
            return
        for item in value.values():
            _histories(item, found, depth + 1)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            found.append(value[0])
            return
        for item in value:
            _histories(item, found, depth + 1)


def apply(builder: Builder, layer: dict[str, Any], weights: Parameters) -> dict[str, Tensor]:
    """Add one layer to the chain; returns the tensors it has in the file, by path.

    Raises:
        UnsupportedError: if its class has no meaning here.
    """
    kind, config = layer["class_name"], layer["config"]
    if builder.shape is None:
        _start(builder, config)
    step = _STEPS.get(kind)
    if step is None:
        known = ", ".join(sorted(_STEPS))
        raise UnsupportedError(f"layer {title_of(layer)} is not supported; known are {known}")
    return step(builder, layer, weights) or {}


def _start(builder: Builder, config: Row) -> None:
    shape = config.get("batch_shape", config.get("batch_input_shape"))
    if shape is None:
        return
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], list):
        shape = shape[0]
    rest = shape[1:] if isinstance(shape, list) else None
    if not rest or not all(type(n) is int and n >= 1 for n in rest):
        raise UnsupportedError(f"has inputs of shape {str(shape)[:60]}; expected positive sizes after the batch")
    if np.prod([float(n) for n in rest]) > _MAX_ENTRIES:
        raise FormatError(f"declares inputs of shape {str(shape)[:60]}")
    builder.shape = tuple(rest)


def _dense(builder: Builder, layer: Row, weights: Parameters) -> dict[str, Tensor]:
    config = layer["config"]
    name = config["name"]
    roles = ("kernel", "bias") if config.get("use_bias", True) else ("kernel",)
    found = weights.of(layer, name, roles)
    (path, kernel), (bias_path, bias) = found["kernel"], found.get("bias", ("", None))
    if (
        kernel.ndim != 2
        or kernel.shape[1] != config.get("units")
        or (bias is not None and bias.shape != kernel.shape[1:])
    ):
        shapes = f"kernel {kernel.shape}" + ("" if bias is None else f", bias {bias.shape}")
        raise FormatError(f"{title_of(layer)} has {str(config.get('units'))[:20]} units but {shapes}")
    builder.matrix(Matrix(kernel.T, bias, name, path, bias_path))
    _activate(builder, config.get("activation"), layer, kernel.dtype)
    return {path: kernel} if bias is None else {path: kernel, bias_path: bias}


def _activate(builder: Builder, name: Any, layer: Row, dtype: npt.DTypeLike) -> None:
    title = title_of(layer)
    if isinstance(name, dict):  # Keras 3 writes objects for activations with settings
        inner = name.get("config")
        name = inner if isinstance(inner, str) else name.get("class_name")
    if name is None:
        name = "linear"
    if name in ("softmax", "log_softmax"):
        builder.set_head(name, title)
    elif name == "relu6":
        builder.activation(clip_row(Fraction(0), Fraction(6)), title)
    elif name == "leaky_relu":
        builder.activation(find_activation("leaky_relu", exact_parameter(0.2, dtype, "slope")), title)
    elif isinstance(name, str) and (name in _SAME_NAME or name in _ALIASES):
        builder.activation(find_activation(_ALIASES.get(name, name)), title)
    else:
        known = ", ".join((*_SAME_NAME, *_ALIASES, "relu6", "leaky_relu", "softmax"))
        raise UnsupportedError(f"{title} has the activation {str(name)[:60]!r}; known are {known}")


def _dtype(layer: Row) -> np.dtype[Any]:
    kind = layer["config"].get("dtype")
    return np.dtype(kind if kind in ("float16", "float32", "float64") else "float32")


def _activation_layer(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    _activate(builder, layer["config"].get("activation"), layer, _dtype(layer))


def _relu(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    config = layer["config"]
    high, slope = config.get("max_value"), config.get("negative_slope", 0.0)
    if config.get("threshold", 0.0) not in (0, 0.0, None) or (high is not None and slope not in (0, 0.0, None)):
        raise UnsupportedError(
            f"{title_of(layer)} has a threshold or a bounded leaky form; plain, leaky and bounded are known"
        )
    row = find_activation("relu")
    if high is not None:
        row = clip_row(Fraction(0), exact_parameter(high, _dtype(layer), "max_value"))
    elif slope:
        row = _leaky(slope, layer)
    builder.activation(row, title_of(layer))


def _leaky(slope: Any, layer: Row) -> Activation:
    return find_activation("leaky_relu", exact_parameter(slope, _dtype(layer), f"{title_of(layer)} slope"))


def _leaky_layer(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    config = layer["config"]
    slope = config.get("negative_slope", config.get("alpha", 0.3))
    if isinstance(slope, dict):  # Keras 2 wraps numbers
        slope = slope.get("value")
    builder.activation(_leaky(slope, layer), title_of(layer))


def _elu(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    alpha = exact_parameter(layer["config"].get("alpha", 1.0), _dtype(layer), f"{title_of(layer)} alpha")
    builder.activation(find_activation("elu", alpha), title_of(layer))


def _softmax(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    builder.set_head("softmax", title_of(layer))


def _nothing(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)


def _flatten(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    if layer["config"].get("data_format") == "channels_first":
        raise UnsupportedError(f"{title_of(layer)} moves channels; channels_last is known")
    if builder.shape is not None:
        builder.shape = (int(np.prod(builder.shape)),)


def _reshape(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    shape = layer["config"].get("target_shape")
    good = isinstance(shape, list) and all(type(n) is int and n >= 1 for n in shape)
    if not good or builder.size is None or int(np.prod(shape)) != builder.size:
        raise UnsupportedError(
            f"{title_of(layer)} has target shape {str(shape)[:60]} for an input of shape {builder.shape}"
        )
    builder.shape = tuple(shape)


def _rescaling(builder: Builder, layer: Row, weights: Parameters) -> None:
    weights.skip(layer)
    config, title = layer["config"], title_of(layer)
    if builder.size is None:
        raise UnsupportedError(f"{title} has an input of unknown size")
    factor = exact_parameter(config.get("scale"), _dtype(layer), f"{title} scale")
    shift = exact_parameter(config.get("offset", 0.0), _dtype(layer), f"{title} offset")
    builder.affine(scaled_by(builder.size, factor, shift), f"{title} folded", builder.shape)


def _batch_normalisation(builder: Builder, layer: Row, weights: Parameters) -> dict[str, Tensor]:
    config, title = layer["config"], title_of(layer)
    present = {"gamma": config.get("scale", True), "beta": config.get("center", True)}
    roles = tuple(role for role, there in present.items() if there) + ("moving_mean", "moving_variance")
    found = weights.of(layer, config["name"], roles)
    mean, variance = found["moving_mean"][1], found["moving_variance"][1]
    gamma = found["gamma"][1] if "gamma" in found else np.ones(mean.shape, mean.dtype)
    beta = found["beta"][1] if "beta" in found else np.zeros(mean.shape, mean.dtype)
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if type(axis) is not int or axis == 0:
        raise UnsupportedError(f"{title} has axis {str(axis)[:20]}; one axis after the batch is known")
    epsilon = exact_parameter(config.get("epsilon", 1e-3), _dtype(layer), f"{title} epsilon")
    builder.normalise(gamma, beta, mean, variance, epsilon, title, axis - 1 if axis > 0 else axis)
    return dict(found.values())


_STEPS: dict[str, Callable[[Builder, Row, Parameters], dict[str, Tensor] | None]] = {
    "InputLayer": _nothing,
    "Dense": _dense,
    "Activation": _activation_layer,
    "ReLU": _relu,
    "LeakyReLU": _leaky_layer,
    "ELU": _elu,
    "Softmax": _softmax,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Rescaling": _rescaling,
    "BatchNormalization": _batch_normalisation,
    **{
        kind: _nothing
        for kind in ("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization")
    },
}
