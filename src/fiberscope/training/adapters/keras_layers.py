"""Populations of a Keras model, layer by layer through its graph; one rule for each class of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import UnsupportedError
from fiberscope.training.adapters.axis_flow import INPUT, Flow, Value
from fiberscope.training.adapters.axis_summary import Summary
from fiberscope.training.architectures.architecture import Architecture

_SAMPLES = 2
_ROWS = {
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "softplus": "softplus", "silu": "silu", "swish": "silu",
    "elu": "elu", "linear": "identity", "hard_tanh": "hard_tanh",
}  # fmt: skip
_QUIET = {
    "InputLayer", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Identity",
}  # fmt: skip


def architecture_of_keras(model: Any) -> Architecture:
    """Populations of a Sequential or functional Keras 3 model, of any backend.

    Known are Dense, Conv1D to Conv3D, DepthwiseConv2D, Embedding, BatchNormalization, LayerNormalization, activations,
    pooling, Flatten, Reshape, Permute, dropout, and sums, differences and products of branches; models may be nested.
    Any other layer pins the channels that meet it, and is named as skipped.

    Args:
        model: a built model.

    Raises:
        UnsupportedError: for a subclassed model, whose graph is not known, or one that was not built.

    O(layers). Names of parameters are their `path`, such as "sequential/dense/kernel".
    """
    walk = _Walk(Flow())
    inputs = [walk.flow.fixed(_shape(t.shape), INPUT) for t in _graph(model).inputs]
    outputs = walk.model(model, inputs)
    known = set(walk.flow.shapes)
    for variable in model.trainable_variables:
        if variable.path not in known:
            walk.flow.parameter(variable.path, variable.shape)
    return Summary(walk.flow, outputs).architecture()


def _graph(model: Any) -> Any:
    graph = getattr(model, "_functional", None) or model
    if not hasattr(graph, "_nodes") or not getattr(graph, "outputs", None):
        raise UnsupportedError(
            f"a {type(model).__name__} has no graph of layers that could be followed; Sequential and functional models "
            "that are built are known; give architecture="
        )
    return graph


def _shape(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(_SAMPLES if n is None else int(n) for n in shape)


class _Walk:
    """Follows the layers of a model."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def model(self, model: Any, inputs: Sequence[Value]) -> list[Value]:
        """Values of the outputs of a model."""
        graph = _graph(model)
        env = {id(t): value for t, value in zip(graph.inputs, inputs, strict=True)}
        for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
            for node in nodes:
                if not node.is_input and all(id(t) in env for t in node.input_tensors):
                    values = [env[id(t)] for t in node.input_tensors]
                    shapes = [_shape(t.shape) for t in node.output_tensors]
                    found = self.layer(node.operation, values, shapes)
                    env.update({id(t): value for t, value in zip(node.output_tensors, found, strict=True)})
        return [env[id(t)] for t in graph.outputs]

    def layer(self, layer: Any, values: list[Value], shapes: list[tuple[int, ...]]) -> list[Value]:
        """Values behind one layer."""
        kind = type(layer).__name__
        if hasattr(layer, "_nodes_by_depth") or getattr(layer, "_functional", None) is not None:
            return self.model(layer, values)
        rule = _RULES.get(kind)
        if kind in _QUIET:
            return values
        found = rule(self, layer, values, shapes[0]) if rule is not None and len(shapes) == 1 else None
        if found is not None:
            return [found]
        return self.opaque(layer, values, shapes)

    def opaque(self, layer: Any, values: list[Value], shapes: list[tuple[int, ...]]) -> list[Value]:
        """A layer without a rule: its parameters and all that it touches are told apart."""
        why = f"the layer {layer.name} ({type(layer).__name__}) is not understood"
        own = [self.parameter(v) for v in getattr(layer, "variables", [])]
        return self.flow.opaque([*values, *own], shapes, why)

    def parameter(self, variable: Any) -> Value:
        """The value of a variable."""
        return self.flow.parameter(variable.path, tuple(variable.shape), statistic=not variable.trainable
                                   and variable.name.startswith("moving_"))  # fmt: skip

    def biased(self, layer: Any, value: Value, channel: int) -> Value:
        """With the layer's bias along an axis, and its activation."""
        bias = getattr(layer, "bias", None)
        if bias is not None:
            value = self.flow.add(value, self.along(bias, value, channel), value.shape)
        return self.activated(value, getattr(layer, "activation", None))

    def along(self, variable: Any, value: Value, channel: int) -> Value:
        """A vector along one axis of a value."""
        own = self.parameter(variable)
        if own.shape != (value.shape[channel],):
            return self.flow.fixed(value.shape, f"{variable.path} has shape {own.shape}")
        return self.flow.broadcast(own, value.shape, [channel % len(value.shape)])

    def activated(self, value: Value, function: Any) -> Value:
        """Behind an activation, a function of `keras.activations`."""
        if function is None:
            return value
        if getattr(function, "__name__", "") in ("softmax", "log_softmax"):
            return _softmax(self, None, [value], value.shape)
        return self.flow.pointwise(value, _row(function))


def _row(function: Any) -> Activation | None:
    """The row of one of Keras's own activations."""
    name, module = getattr(function, "__name__", ""), str(getattr(function, "__module__", ""))
    if not module.startswith("keras."):
        return None
    if name == "leaky_relu":
        return find_activation("leaky_relu", 0.2)
    if name == "gelu":
        return find_activation("gelu")
    if name == "relu6":
        return find_activation("clip")
    return find_activation(_ROWS[name]) if name in _ROWS else None


def _dense(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return None
    (x,) = values
    out = walk.flow.contract(x, walk.parameter(layer.kernel), ([len(x.shape) - 1], [0]))
    return walk.biased(layer, out, -1)


def _channel(layer: Any, value: Value) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else len(value.shape) - 1


def _convolution(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    (x,) = values
    if getattr(layer, "groups", 1) != 1 or getattr(layer, "lora_enabled", False):
        return None
    channel, kernel = _channel(layer, x), walk.parameter(layer.kernel)
    out = walk.flow.convolve(x, kernel, channel, len(kernel.shape) - 2, len(kernel.shape) - 1, shape)
    return walk.biased(layer, out, channel)


def _depthwise(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    (x,) = values
    kernel, channel = walk.parameter(layer.kernel), _channel(layer, x)
    if kernel.shape[-1] != 1:
        return None
    out = walk.flow.depthwise(x, kernel, channel, len(kernel.shape) - 2, shape)
    return walk.biased(layer, out, channel)


def _embedding(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    if layer.mask_zero:
        return None
    table = walk.parameter(layer.embeddings)
    walk.flow.pin([table], INPUT, [0])
    return walk.flow.looked_up(table, [1], [len(shape) - 1], shape)


def _batch_norm(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    (x,) = values
    axis = layer.axis % len(shape)
    flow = walk.flow
    out = flow.add(x, walk.along(layer.moving_mean, x, axis), shape)
    out = flow.multiply(out, flow.pointwise(walk.along(layer.moving_variance, x, axis), None), shape)
    if layer.gamma is not None:
        out = flow.multiply(out, walk.along(layer.gamma, x, axis), shape)
    return out if layer.beta is None else flow.add(out, walk.along(layer.beta, x, axis), shape)


def _layer_norm(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    (x,) = values
    axes = [a % len(shape) for a in (layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis])]
    if len(axes) != 1:
        return None
    flow = walk.flow
    mean = flow.reduce(x, axes, linear=True)
    out = flow.add(x, flow.broadcast(mean, shape, [k for k in range(len(shape)) if k not in axes]), shape)
    for name, combine in (("gamma", flow.multiply), ("beta", flow.add)):
        variable = getattr(layer, name, None)
        if variable is not None:
            out = combine(out, walk.along(variable, x, axes[0]), shape)
    return out


def _activation(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    return walk.activated(values[0], layer.activation)


def _relu(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    high, slope = getattr(layer, "max_value", None), float(getattr(layer, "negative_slope", 0.0) or 0.0)
    row: Activation | None = find_activation("relu")
    if getattr(layer, "threshold", 0.0) or (high is not None and slope):
        row = None
    elif high is not None:
        row = find_activation("clip", 0, float(high))
    elif slope:
        row = find_activation("leaky_relu", slope)
    return walk.flow.pointwise(values[0], row)


def _elu(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    return walk.flow.pointwise(values[0], find_activation("elu", float(layer.alpha)))


def _softmax(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value:
    axis = getattr(layer, "axis", -1)
    total = walk.flow.reduce(values[0], [axis], linear=False)
    places = [k for k in range(len(shape)) if k != axis % len(shape)]
    return walk.flow.multiply(walk.flow.pointwise(values[0], None), walk.flow.broadcast(total, shape, places), shape)


def _flatten(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    (x,) = values
    if layer.data_format == "channels_first" and len(x.shape) > 2:
        x = walk.flow.transpose(x, [0, *range(2, len(x.shape)), 1])
    return walk.flow.reshape(x, shape)


def _reshape(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    return walk.flow.reshape(values[0], shape)


def _permute(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    return walk.flow.transpose(values[0], [0, *layer.dims])


def _pooling(linear: bool) -> Callable[[_Walk, Any, list[Value], tuple[int, ...]], Value | None]:
    def rule(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
        (x,) = values
        over = [k for k in range(1, len(x.shape)) if k != _channel(layer, x)]
        if type(layer).__name__.startswith("Global"):
            out = walk.flow.reduce(x, over, linear=linear)
            return walk.flow.reshape(out, shape)
        return walk.flow.pool(x, shape, over, linear=linear)

    return rule


def _padding(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    (x,) = values
    return walk.flow.pool(x, shape, [k for k in range(1, len(shape)) if k != _channel(layer, x)], linear=True)


def _merge(walk: _Walk, layer: Any, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    out = values[0]
    for value in values[1:]:
        if len(value.shape) != len(shape):
            return None
        product = type(layer).__name__ == "Multiply"
        out = walk.flow.multiply(out, value, shape) if product else walk.flow.add(out, value, shape)
    return out


_RULES: dict[str, Callable[[_Walk, Any, list[Value], tuple[int, ...]], Value | None]] = {
    "Dense": _dense,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "Embedding": _embedding,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _relu,
    "ELU": _elu,
    "Softmax": _softmax,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    **{f"MaxPooling{n}D": _pooling(False) for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": _pooling(False) for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": _pooling(True) for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": _pooling(True) for n in (1, 2, 3)},
    **{f"ZeroPadding{n}D": _padding for n in (1, 2, 3)},
    **{f"UpSampling{n}D": _padding for n in (1, 2, 3)},
    "Add": _merge,
    "Subtract": _merge,
    "Multiply": _merge,
    "Average": _merge,
}
