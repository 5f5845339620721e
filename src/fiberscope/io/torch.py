"""The door to torch modules: chains that torch.fx can trace become networks, networks become `nn.Sequential`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import InputError, UnsupportedError, import_optional
from fiberscope.io.chains import Builder, Matrix, clip_row, exact_parameter
from fiberscope.io.files import Options, arrays, one_line
from fiberscope.io.folding import Affine, Window, average_pool, convolution
from fiberscope.io.state_dicts import as_array, dtype_of
from fiberscope.network import Layer, Network, Source

if TYPE_CHECKING:
    from torch import fx, nn

Tensor = npt.NDArray[Any]
Step = Callable[[Builder, Any, str], None]


def _torch() -> Any:
    return import_optional("torch", extra="torch", purpose="read or make torch modules")


def from_module(module: nn.Module, options: Options) -> Network:
    """The network of a module at inference (Dropout off, BatchNorm with its running statistics).

    Raises:
        UnsupportedError: if torch.fx cannot trace it, or a step has no meaning here; it is named.
    """
    _torch()
    from torch import fx, nn

    if options.part is not None:
        module = _submodule(module, options.part)
    if (
        type(module).__module__.startswith("torch.nn.modules")
        and not list(module.children())
        and list(module.parameters())
    ):
        module = nn.Sequential(module)  # tracing enters what it is given, and a leaf has no steps of ours inside
    try:
        traced = fx.symbolic_trace(module)
    except Exception as exc:  # the user's forward runs here and may fail in any way
        raise UnsupportedError(f"torch.fx cannot trace {type(module).__name__}: {one_line(exc)}") from exc
    builder = Builder(shape=options.input_shape)
    _walk(traced, builder)
    layers = builder.finish()
    own = {name: as_array(value, name) for name, value in module.named_parameters()}
    notes = () if not module.training else ("Read as at inference; the module is in training mode.",)
    place = Source(
        format="torch module",
        dtype=dtype_of(own).name,
        parameter_count=sum(v.size for v in own.values()),
        tensors=tuple((name, v.shape) for name, v in own.items()),
        part=options.part,
        notes=notes,
        approximations=tuple(builder.approximations),
    )
    return Network(layers, builder.head, place)


def _submodule(module: nn.Module, part: str) -> nn.Module:
    try:
        return module.get_submodule(part)
    except AttributeError as exc:
        names = [name for name, _ in module.named_children()]
        raise InputError(f"{type(module).__name__} has no submodule {part!r}; it has {', '.join(names)}") from exc


def _walk(traced: fx.GraphModule, builder: Builder) -> None:
    """Follow the only path from the input to the output."""
    current: fx.Node | None = None
    for node in traced.graph.nodes:
        if node.op == "output":
            if current is None or node.args != (current,):
                raise UnsupportedError("its output is not the end of one chain")
            return
        if node.op == "get_attr" or _is_size(node):
            continue
        if node.op == "placeholder":
            if current is not None:
                raise UnsupportedError(f"it has several inputs ({node.name} besides {current.name}); one is known")
            current = node
            continue
        users = [user for user in (current.users if current is not None else ()) if not _is_size(user)]
        if current is None or node.args[:1] != (current,) or len(users) > 1:
            raise UnsupportedError(f"it branches or merges at {node.name}; chains are known")
        _step(traced, builder, node)
        current = node


def _is_size(node: fx.Node) -> bool:
    """x.size(0), x.shape[0] and the like, as `view` uses them."""
    if node.op == "call_method":
        return str(node.target) == "size"
    name = getattr(node.target, "__name__", "")
    if node.op != "call_function" or name not in ("getattr", "getitem"):
        return False
    return (name == "getattr" and node.args[1:] == ("shape",)) or (name == "getitem" and _is_size(node.args[0]))


def _step(traced: fx.GraphModule, builder: Builder, node: fx.Node) -> None:
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        kind, title = type(module).__name__, f"{type(module).__name__} {node.target}"
        row = _MODULES.get(kind)
        if row is None or not type(module).__module__.startswith("torch.nn.modules"):
            raise UnsupportedError(f"module {title} is not supported; known are {', '.join(sorted(_MODULES))}")
        row(builder, module, str(node.target) if kind not in _ACTIVATION_MODULES else title)
        return
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    call = _FUNCTIONS.get(name)
    if call is None:
        raise UnsupportedError(f"function {name} is not supported; known are {', '.join(sorted(_FUNCTIONS))}")
    call(builder, node, name)


def _linear(builder: Builder, module: Any, path: str) -> None:
    bias = None if module.bias is None else as_array(module.bias, f"{path}.bias")
    name = f"{path}.bias" if bias is not None else ""
    builder.matrix(Matrix(as_array(module.weight, f"{path}.weight"), bias, path, f"{path}.weight", name))


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),) * axes


def _shape(builder: Builder, path: str, axes: int) -> tuple[int, ...]:
    if builder.shape is None:
        raise UnsupportedError(f"{path} needs the shape of one input; give input_shape=(channels, height, width)")
    if len(builder.shape) != axes + 1:
        raise UnsupportedError(f"{path} takes {axes + 1} axes; its input has shape {builder.shape}")
    return builder.shape


def _conv(builder: Builder, module: Any, path: str) -> None:
    axes = len(module.kernel_size)
    shape = _shape(builder, path, axes)
    if module.padding_mode != "zeros" or isinstance(module.padding, str) and module.padding != "valid":
        raise UnsupportedError(f"{path} pads with {module.padding_mode}, {module.padding}; numbers of zeros are known")
    pads = (0,) * axes if isinstance(module.padding, str) else _each(module.padding, axes)
    window = Window(
        _each(module.kernel_size, axes),
        _each(module.stride, axes),
        tuple((p, p) for p in pads),
        _each(module.dilation, axes),
    )
    matrix, out_shape = convolution(as_array(module.weight, path), shape, window, int(module.groups))
    bias = None if module.bias is None else np.repeat(as_array(module.bias, path), math.prod(out_shape[1:]))
    builder.affine(Affine(math.prod(shape), matrix, bias=bias), f"Conv {path} unrolled", out_shape)


def _average(builder: Builder, module: Any, path: str) -> None:
    axes = int(type(module).__name__[-2])
    shape = _shape(builder, path, axes)
    if module.ceil_mode or getattr(module, "divisor_override", None):
        raise UnsupportedError(f"{path} has ceil_mode or divisor_override, which are not known")
    kernel, pads = _each(module.kernel_size, axes), _each(module.padding, axes)
    window = Window(kernel, _each(module.stride, axes), tuple((p, p) for p in pads), (1,) * axes)
    step, out_shape = average_pool(shape, window, include_pad=bool(module.count_include_pad))
    builder.affine(step, f"AvgPool {path} unrolled", out_shape)


def _adaptive(builder: Builder, module: Any, path: str) -> None:
    axes = int(type(module).__name__[-2])
    shape = _shape(builder, path, axes)
    if set(_each(module.output_size, axes)) != {1}:
        raise UnsupportedError(f"{path} has output size {module.output_size}; 1 is known")
    window = Window(shape[1:], (1,) * axes, ((0, 0),) * axes, (1,) * axes)
    step, out_shape = average_pool(shape, window)
    builder.affine(step, f"AdaptiveAvgPool {path} unrolled", out_shape)


def _batch_norm(builder: Builder, module: Any, path: str) -> None:
    if module.running_mean is None or module.running_var is None:
        raise UnsupportedError(f"{path} keeps no running statistics, so it is no fixed map")
    mean, variance = as_array(module.running_mean, path), as_array(module.running_var, path)
    gamma = np.ones_like(mean) if module.weight is None else as_array(module.weight, path)
    beta = np.zeros_like(mean) if module.bias is None else as_array(module.bias, path)
    epsilon = exact_parameter(float(module.eps), np.float64, f"{path}.eps")
    builder.normalise(gamma, beta, mean, variance, epsilon, f"BatchNorm {path}", 0)


def _flatten(builder: Builder, module: Any, path: str) -> None:
    _flat(builder, int(module.start_dim), int(module.end_dim), path)


def _flat(builder: Builder, start: int, end: int, title: str) -> None:
    if start != 1 or (end != -1 and (builder.shape is None or end != len(builder.shape))):
        raise UnsupportedError(f"{title} flattens axes {start} to {end}; all axes after the batch are known")
    if builder.shape is not None:
        builder.shape = (math.prod(builder.shape),)


def _nothing(builder: Builder, module: Any, path: str) -> None:
    """Dropout and the like at inference."""


def _head(name: str) -> Step:
    def step(builder: Builder, module: Any, path: str) -> None:
        dim = getattr(module, "dim", None)
        if dim not in (1, -1, None):
            raise UnsupportedError(f"{path} runs along axis {dim}; the last axis is known")
        builder.set_head(name, path)

    return step


def _row_of(module: Any, dtype: npt.DTypeLike) -> Activation:
    """The activation of one of torch's modules, with its settings as a runtime of that dtype uses them."""
    kind = type(module).__name__
    number: Callable[[Any], Fraction] = lambda value: exact_parameter(value, dtype, kind)  # noqa: E731
    if kind == "LeakyReLU":
        return find_activation("leaky_relu", number(module.negative_slope))
    if kind == "ELU":
        return find_activation("elu", number(module.alpha))
    if kind == "Hardtanh":
        return clip_row(number(module.min_val), number(module.max_val))
    if kind == "ReLU6":
        return clip_row(Fraction(0), Fraction(6))
    if kind == "GELU":
        return find_activation("gelu" if module.approximate == "none" else "gelu_tanh")
    if kind == "Softplus" and (module.beta != 1 or module.threshold < 20):
        raise UnsupportedError(f"Softplus with beta {module.beta}, threshold {module.threshold}; 1 and 20 are known")
    return find_activation(_PLAIN[kind])


def _activation(builder: Builder, module: Any, title: str) -> None:
    if type(module).__name__ == "Softplus":
        builder.approximations.append(f"{title}: torch returns z itself above its threshold, within 2.1e-9 of softplus")
    builder.activation(_row_of(module, _current_dtype(builder)), title)


def _current_dtype(builder: Builder) -> npt.DTypeLike:
    weight = builder.open_weight
    return np.float32 if weight is None or weight.dtype.kind != "f" else weight.dtype


_PLAIN = {"ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus", "SiLU": "silu"}
_ACTIVATION_MODULES = (*_PLAIN, "LeakyReLU", "ELU", "Hardtanh", "ReLU6", "GELU")

_MODULES: dict[str, Step] = {
    "Linear": _linear,
    **{f"Conv{k}d": _conv for k in (1, 2, 3)},
    **{f"AvgPool{k}d": _average for k in (1, 2)},
    **{f"AdaptiveAvgPool{k}d": _adaptive for k in (1, 2)},
    **{f"BatchNorm{k}d": _batch_norm for k in (1, 2, 3)},
    "Flatten": _flatten,
    **{kind: _nothing for kind in ("Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout")},
    "Softmax": _head("softmax"),
    "LogSoftmax": _head("log_softmax"),
    **{kind: _activation for kind in _ACTIVATION_MODULES},
}


def _call_plain(name: str) -> Callable[[Builder, fx.Node, str], None]:
    def call(builder: Builder, node: fx.Node, title: str) -> None:
        extra = {k: v for k, v in node.kwargs.items() if k != "inplace"}
        if len(node.args) > 1 or extra:
            raise UnsupportedError(f"function {title} has settings; use the module of torch.nn")
        if name == "softplus":
            builder.approximations.append(f"{title}: torch returns z itself above 20, within 2.1e-9 of softplus")
        builder.activation(find_activation(name), title)

    return call


def _call_head(name: str) -> Callable[[Builder, fx.Node, str], None]:
    def call(builder: Builder, node: fx.Node, title: str) -> None:
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        if dim not in (1, -1):
            raise UnsupportedError(f"function {title} runs along axis {dim}; the last axis is known")
        builder.set_head(name, title)

    return call


def _call_flatten(builder: Builder, node: fx.Node, title: str) -> None:
    start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
    end = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)
    _flat(builder, int(str(start)), int(str(end)), title)


def _call_view(builder: Builder, node: fx.Node, title: str) -> None:
    raw = node.args[1:]
    sizes = tuple(raw[0]) if len(raw) == 1 and isinstance(raw[0], tuple | list) else raw
    rest = [v for v in sizes[1:] if isinstance(v, int)]
    if len(rest) != len(sizes) - 1 or not rest or (isinstance(sizes[0], int) and sizes[0] not in (-1, 1)):
        raise UnsupportedError(f"{title} to {sizes}; the batch axis must stay first")
    if rest == [-1]:
        _flat(builder, 1, -1, title)
        return
    if min(rest) < 1 or (builder.size is not None and math.prod(rest) != builder.size):
        raise UnsupportedError(f"{title} to {tuple(rest)} for an input of shape {builder.shape}")
    builder.shape = tuple(rest)


def _call_dropout(builder: Builder, node: fx.Node, title: str) -> None:
    if node.kwargs.get("training", True) is not False:
        raise UnsupportedError(f"function {title} is always on; use nn.Dropout")


_FUNCTIONS: dict[str, Callable[[Builder, Any, str], None]] = {
    **{name: _call_plain(name) for name in ("relu", "tanh", "sigmoid", "silu", "sin", "cos", "erf", "abs", "square")},
    "relu_": _call_plain("relu"),
    "tanh_": _call_plain("tanh"),
    "gelu": _call_plain("gelu"),
    "softplus": _call_plain("softplus"),
    "softmax": _call_head("softmax"),
    "log_softmax": _call_head("log_softmax"),
    "flatten": _call_flatten,
    "view": _call_view,
    "reshape": _call_view,
    "dropout": _call_dropout,
}


def to_module(net: Network) -> nn.Sequential:
    """See `fiberscope.io.to_torch`."""
    torch = _torch()
    steps: list[Any] = []
    for layer in net.layers:
        steps.append(_linear_module(torch, layer, net.dtype))
        if layer.activation.name != "identity":
            steps.append(_activation_module(torch, layer.activation))
    if net.head in ("softmax", "log_softmax"):
        steps.append((torch.nn.Softmax if net.head == "softmax" else torch.nn.LogSoftmax)(dim=-1))
    elif net.head is not None:
        raise UnsupportedError(f"torch has no module for the output head {net.head}")
    return torch.nn.Sequential(*steps)


def _linear_module(torch: Any, layer: Layer, dtype: npt.DTypeLike) -> Any:
    weight, bias = arrays(layer, dtype)
    out = torch.nn.Linear(layer.n_in, layer.n_out, dtype=getattr(torch, np.dtype(dtype).name))
    with torch.no_grad():
        out.weight.copy_(torch.from_numpy(weight.copy()))
        out.bias.copy_(torch.from_numpy(bias.copy()))
    return out


def _activation_module(torch: Any, row: Activation) -> Any:
    nn = torch.nn
    values = [float(p) for p in row.parameters]
    makers: Mapping[str, Callable[[], Any]] = {
        **{name: getattr(nn, kind) for kind, name in _PLAIN.items()},
        "leaky_relu": lambda: nn.LeakyReLU(values[0]),
        "elu": lambda: nn.ELU(*values),
        "hard_tanh": nn.Hardtanh,
        "clip": lambda: nn.Hardtanh(values[0], values[1]),
        "gelu": nn.GELU,
        "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    }
    if row.name in makers:
        return makers[row.name]()
    if row.name not in _ELEMENTWISE:
        raise UnsupportedError(f"torch has no module for {row.label}; known are {', '.join((*makers, *_ELEMENTWISE))}")
    return _elementwise(torch, row.name)


_ELEMENTWISE: dict[str, Callable[[Any, Any], Any]] = {
    "erf": lambda torch, z: torch.erf(z),
    "sin": lambda torch, z: torch.sin(z),
    "cos": lambda torch, z: torch.cos(z),
    "abs": lambda torch, z: torch.abs(z),
    "square": lambda torch, z: torch.square(z),
    "gaussian": lambda torch, z: torch.exp(-torch.square(z)),
}


def _elementwise(torch: Any, name: str) -> Any:
    function = _ELEMENTWISE[name]

    class Elementwise(torch.nn.Module):  # type: ignore[misc]
        def forward(self, z: Any) -> Any:
            return function(torch, z)

        def extra_repr(self) -> str:
            return name

    return Elementwise()
