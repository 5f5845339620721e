"""Write a chain as an ONNX model of Gemm nodes and activations."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io.onnx_graph import onnx_module
from fiberscope.network import Layer, Network

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

ExactArray = npt.NDArray[Any]

OPSET = 17
GELU_OPSET = 20
"""The operator set that has Gelu; used only for networks that need it."""

IR_VERSION = 8
_KINDS = {"float32": 1, "float16": 10, "float64": 11}
_DIRECT = {
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "abs": "Abs",
}
_HEADS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "argmax": "ArgMax"}


def element_type(dtype: npt.DTypeLike) -> int:
    """ONNX's number for a float dtype.

    Raises:
        InputError: for other dtypes.
    """
    name = np.dtype(dtype).name
    if name not in _KINDS:
        raise InputError(f"dtype {name}; ONNX files are written in {', '.join(_KINDS)}")
    return _KINDS[name]


def exactly(array: ExactArray, dtype: npt.DTypeLike, what: str) -> ExactArray:
    """The same numbers in a float dtype.

    Raises:
        InputError: if a number is no value of that dtype.
    """
    target = np.dtype(dtype)
    if array.dtype == target:
        return array
    fits = rationals.representable(array, target)
    if not fits.all():
        where = tuple(int(i) for i in np.argwhere(~fits)[0])
        raise InputError(
            f"{what}{list(where)} is no {target.name}; round the network to it first, "
            "or choose a wider dtype (--dtype float64)"
        )
    return np.asarray(rationals.rounded(array, target))


class _Builder:
    """Nodes and initialisers under construction, with names that do not clash."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.onnx = onnx_module()
        self.dtype = np.dtype(dtype)
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.taken = {"input", "output"}

    def fresh(self, name: str) -> str:
        """A name that was not used, `name` if possible."""
        out, k = name, 1
        while out in self.taken:
            k += 1
            out = f"{name}_{k}"
        self.taken.add(out)
        return out

    def tensor(self, name: str, array: ExactArray, what: str) -> str:
        """Add an initialiser in the dtype of the model."""
        fitting = np.array(exactly(array, self.dtype, what), order="C")
        self.tensors.append(self.onnx.numpy_helper.from_array(fitting, self.fresh(name)))
        return str(self.tensors[-1].name)

    def number(self, name: str, value: Fraction, what: str) -> str:
        """Add a scalar initialiser."""
        exact = np.array([value], dtype=object)
        if not rationals.representable(exact, self.dtype).all():
            raise UnsupportedError(f"{what} {value} is no {self.dtype.name}, and ONNX stores only floats")
        return self.tensor(name, rationals.rounded(exact, self.dtype).reshape(()), what)

    def node(self, op: str, inputs: list[str], label: str, **attributes: Any) -> str:
        """Add a node; returns its output."""
        output = self.fresh(label)
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output


def write(net: Network, dtype: npt.DTypeLike | None = None) -> bytes:
    """A network as the bytes of an ONNX model, input (batch, n_0), output (batch, n_L).

    Args:
        net: the network; every weight must be a value of `dtype`.
        dtype: float16, float32 or float64; the network's own by default.

    Raises:
        InputError: if a weight does not fit the dtype.
        UnsupportedError: if an activation's parameters cannot be stored.
    """
    return bytes(to_onnx(net, dtype).SerializeToString(deterministic=True))


def to_onnx(net: Network, dtype: npt.DTypeLike | None = None) -> ModelProto:
    """A network as a ModelProto of Gemm nodes, operator set 17 (20 if it uses GELU).

    Args:
        net: the network; every weight must be a value of `dtype`.
        dtype: float16, float32 or float64; the network's own by default.

    Raises:
        InputError: if a weight does not fit the dtype.
        UnsupportedError: if an activation's parameters cannot be stored.
    """
    target = np.dtype(net.dtype if dtype is None else dtype)
    kind, build = element_type(target), _Builder(target)
    helper = build.onnx.helper
    current = "input"
    for k, layer in enumerate(net.layers):
        current = _layer(build, layer, k, current)
    if net.head is not None:
        options: dict[str, Any] = {"keepdims": 0} if net.head == "argmax" else {}
        current = build.node(_HEADS[net.head], [current], net.head, axis=1, **options)
    build.nodes[-1].output[0] = "output"
    result = (
        helper.make_tensor_value_info("output", 7, ["batch"])
        if net.head == "argmax"
        else helper.make_tensor_value_info("output", kind, ["batch", net.widths[-1]])
    )
    graph = helper.make_graph(
        build.nodes,
        "fiberscope",
        [helper.make_tensor_value_info("input", kind, ["batch", net.widths[0]])],
        [result],
        build.tensors,
    )
    gelu = any(layer.activation.name in ("gelu", "gelu_tanh") for layer in net.layers)
    model: ModelProto = helper.make_model(
        graph,
        producer_name="fiberscope",
        opset_imports=[helper.make_opsetid("", GELU_OPSET if gelu else OPSET)],
        ir_version=IR_VERSION if not gelu else 9,
    )
    return model


def _layer(build: _Builder, layer: Layer, k: int, current: str) -> str:
    what = layer.name or f"layer {k + 1}"
    weight = build.tensor(layer.weight_name or f"layer{k + 1}.weight", layer.weight, f"{what}: weight")
    bias = build.tensor(layer.bias_name or f"layer{k + 1}.bias", layer.bias, f"{what}: bias")
    name = "".join(c if c.isalnum() or c in "_./" else "_" for c in what)
    z = build.node("Gemm", [current, weight, bias], name, transB=1)
    return _activate(build, layer.activation, z, f"{name}_{layer.activation.name}")


def _activate(build: _Builder, row: Activation, z: str, label: str) -> str:
    name, values = row.name, row.parameters
    if name == "identity":
        return z
    if name in _DIRECT:
        return build.node(_DIRECT[name], [z], label)
    if name in ("gelu", "gelu_tanh"):
        return build.node("Gelu", [z], label, approximate="none" if name == "gelu" else "tanh")
    if name in ("clip", "hard_tanh"):
        low, high = values if name == "clip" else (Fraction(-1), Fraction(1))
        ends = [build.number(f"{label}_{end}", v, f"{row.label}: {end}") for end, v in (("min", low), ("max", high))]
        return build.node("Clip", [z, *ends], label)
    if name == "leaky_relu":
        return _leaky(build, values[0], z, label)
    if name == "elu":
        alpha = values[0] if values else Fraction(1)
        if not rationals.representable(np.array([alpha], dtype=object), np.float32).all():
            raise UnsupportedError(f"{row.label}: ONNX stores alpha as float32, which {alpha} is not")
        return build.node("Elu", [z], label, alpha=float(alpha))
    if name == "silu":
        return build.node("Mul", [z, build.node("Sigmoid", [z], f"{label}_gate")], label)
    if name == "square":
        return build.node("Mul", [z, z], label)
    if name == "gaussian":
        square = build.node("Mul", [z, z], f"{label}_square")
        return build.node("Exp", [build.node("Neg", [square], f"{label}_negative")], label)
    if name == "polynomial":
        return _horner(build, values, z, label)
    raise UnsupportedError(f"activation {row.label} has no ONNX operator")


def _leaky(build: _Builder, slope: Fraction, z: str, label: str) -> str:
    """LeakyRelu stores its slope as float32; a wider slope needs PRelu, whose slope is a tensor."""
    if rationals.representable(np.array([slope], dtype=object), np.float32).all():
        return build.node("LeakyRelu", [z], label, alpha=float(slope))
    return build.node("PRelu", [z, build.number(f"{label}_slope", slope, "leaky_relu: slope")], label)


def _horner(build: _Builder, coefficients: tuple[Fraction, ...], z: str, label: str) -> str:
    """c_0 + z (c_1 + z (...)); a constant polynomial keeps its input by a factor 0."""
    *low, top = coefficients if len(coefficients) > 1 else (*coefficients, Fraction(0))
    value = build.node("Mul", [z, build.number(f"{label}_c{len(low)}", top, f"{label}: coefficient")], f"{label}_top")
    for k in range(len(low) - 1, -1, -1):
        if low[k]:
            value = build.node(
                "Add", [value, build.number(f"{label}_c{k}", low[k], f"{label}: coefficient")], f"{label}_add{k}"
            )
        if k:
            value = build.node("Mul", [value, z], f"{label}_mul{k}")
    return value
