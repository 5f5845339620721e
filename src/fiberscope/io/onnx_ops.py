"""ONNX operators that are affine on one sample: products, normalisations, convolutions, averages, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io import folding
from fiberscope.io.folding import Window
from fiberscope.io.onnx_graph import Constant, Graph, decode, shown, title
from fiberscope.io.onnx_sites import Slot, Walk

if TYPE_CHECKING:
    from onnx import NodeProto

ExactArray = npt.NDArray[Any]


_TYPES = {
    1: ("alpha", "beta", "epsilon", "gamma", "lambd", "max", "min", "momentum", "value_float"),
    2: (
        "allowzero",
        "ceil_mode",
        "count_include_pad",
        "end",
        "group",
        "keepdims",
        "noop_with_empty_axes",
        "spatial",
        "start",
    )
    + ("to", "training_mode", "transA", "transB", "value_int", "select_last_index"),
    3: ("approximate", "auto_pad", "mode"),
    6: ("value_floats",),
    7: ("dilations", "kernel_shape", "pads", "perm", "shape", "starts", "strides", "value_ints"),
}
_EXPECTED = {name: kind for kind, names in _TYPES.items() for name in names}


def attributes(node: NodeProto, graph: Graph) -> dict[str, Any]:
    """A node's attributes as Python values; tensors are decoded, subgraphs are left out.

    Raises:
        FormatError: if an attribute has another type than its operator gives it.
    """
    out: dict[str, Any] = {}
    for a in node.attribute:
        if _EXPECTED.get(a.name, a.type) != a.type or (a.name == "axis" and a.type != 2):
            raise FormatError(f"{title(node)}: attribute {shown(a.name)} has the wrong type")
        if a.type == 1:
            out[a.name] = a.f
        elif a.type == 2:
            out[a.name] = a.i
        elif a.type == 3:
            out[a.name] = a.s.decode("utf-8", "replace")
        elif a.type == 4:
            out[a.name] = decode(a.t, graph.folder)
        elif a.type == 6:
            out[a.name] = list(a.floats)
        elif a.type == 7:
            out[a.name] = list(a.ints)
    return out


@dataclass
class Call:
    """A node on the trunk: its attributes and operands."""

    walk: Walk
    node: NodeProto
    at: int
    attributes: dict[str, Any]

    @property
    def place(self) -> int:
        """Which input the trunk is."""
        return list(self.node.input).index(self.walk.current)

    @property
    def title(self) -> str:
        """Operator and name."""
        return title(self.node)

    def optional(self, k: int) -> Constant | None:
        """Operand k, None if it is absent."""
        name = self.node.input[k] if k < len(self.node.input) else ""
        if not name:
            return None
        found = self.walk.graph.constant(name)
        if found is None:
            raise UnsupportedError(f"{self.title}: operand {shown(name)} is not constant")
        return found

    def operand(self, k: int) -> Constant:
        """Operand k, which must be there."""
        found = self.optional(k)
        if found is None:
            raise FormatError(f"{self.title}: operand {k} is missing")
        return found

    def parameter(self, k: int) -> ExactArray:
        """Operand k, counted as a parameter."""
        return self.walk.uses(self.operand(k))

    def integers(self, k: int, name: str, default: list[int] | None = None) -> list[int] | None:
        """Integers given as operand k or, in older operator sets, as an attribute."""
        found = self.optional(k)
        if found is None:
            value = self.attributes.get(name, default)
            return value if value is None or isinstance(value, list) else [int(value)]
        if found.array.dtype.kind not in "iu" or found.array.size > 64:
            raise UnsupportedError(f"{self.title}: operand {k} has dtype {found.array.dtype}; expected a few integers")
        return [int(v) for v in found.array.reshape(-1)]

    def slot(self, k: int, layout: Any, axis: int = 0) -> Slot | None:
        """Where operand k is stored, if it is a tensor of the file."""
        constant = self.operand(k)
        return Slot(self.at, k, constant, layout, axis) if constant.name else None


def right_product(call: Call, k: int, flipped: bool) -> None:
    """The product x B, or x B^T, along the last axis of x."""
    walk, array = call.walk, call.parameter(k)
    extra = (1,) * max(0, array.ndim - 2 - max(0, len(walk.shape) - 2))
    drop = array.ndim == 1
    matrix = array[:, None] if drop else array.reshape(array.shape[-2:]) if math.prod(array.shape[:-2]) == 1 else None
    if matrix is None:
        raise UnsupportedError(f"{call.title}: a stack of {array.shape} matrices")
    weight = matrix if flipped else matrix.T
    if not walk.shape or walk.shape[-1] != weight.shape[1]:
        raise FormatError(f"{call.title}: input {walk.shape} does not fit the matrix {array.shape}")
    lead = walk.shape[:-1]
    shape = extra + lead + (() if drop else (weight.shape[0],))
    if math.prod(lead) == 1:
        walk.multiply(weight, shape, call.at, call.slot(k, "rows" if flipped else "columns"))
    else:
        block = folding.positions(weight, math.prod(lead))
        walk.multiply(block, shape, call.at, None, f"{call.title} is unrolled over {math.prod(lead)} positions")


def left_product(call: Call, k: int, flipped: bool) -> None:
    """A x, or A^T x, along the last axis but one of x (the only one of a vector)."""
    walk, array = call.walk, call.parameter(k)
    if array.ndim != 2:
        raise UnsupportedError(f"{call.title}: the left matrix has shape {array.shape}; expected two axes")
    weight = array.T if flipped else array
    vector = len(walk.shape) == 1
    shape = (*walk.shape, 1) if vector else walk.shape
    if len(shape) < 2 or shape[-2] != weight.shape[1]:
        raise FormatError(f"{call.title}: input {walk.shape} does not fit the matrix {array.shape}")
    out = (*shape[:-2], weight.shape[0], *(() if vector else shape[-1:]))
    count, columns = math.prod(shape[:-2]), shape[-1]
    if count == columns == 1:
        walk.multiply(weight, out, call.at, call.slot(k, "columns" if flipped else "rows"))
        return
    folding.require_size(weight.shape[0] * columns * count, weight.shape[1] * columns * count)
    block = folding.positions(np.kron(weight, np.eye(columns, dtype=weight.dtype)), count)
    walk.multiply(block, out, call.at, None, f"{call.title} is unrolled over {count * columns} positions")


def gemm(call: Call) -> None:
    """Gemm: alpha A' B' + beta C."""
    walk, place = call.walk, call.place
    if place == 2:
        raise UnsupportedError(f"{call.title}: the network's value is added to a constant product; expected x B")
    if len(walk.shape) != 2:
        if walk.graph.opset >= 7 or math.prod(walk.shape[:-1]) != 1:
            raise FormatError(f"{call.title}: input has shape {walk.shape}; Gemm takes two axes")
        walk.shape = (1, walk.size)
        note = "early Gemm nodes with more than two axes are read as acting on the flat input; new runtimes refuse them"
        walk.notes.extend([note] if note not in walk.notes else [])
    trans = [bool(call.attributes.get(name, 0)) for name in ("transA", "transB")]
    if trans[place]:
        index = np.arange(walk.size).reshape(walk.shape).T
        walk.take(index.reshape(-1), index.shape, f"{call.title} reorders its input")
    (right_product if place == 0 else left_product)(call, 1 - place, trans[1 - place])
    alpha, beta = (call.attributes.get(name, 1.0) for name in ("alpha", "beta"))
    if alpha != 1.0:
        walk.scale(np.full(walk.size, _finite(alpha, call)), f"{call.title} has alpha {alpha:g}")
    if call.optional(2) is not None and beta != 0.0:
        _add(call, 2, Fraction(_finite(beta, call)))


def _finite(value: float, call: Call) -> float:
    if not math.isfinite(value):
        raise FormatError(f"{call.title}: attribute {value} must be finite")
    return float(value)


def matmul(call: Call) -> None:
    """MatMul: x W or W x."""
    if call.place == 0:
        right_product(call, 1, False)
    else:
        left_product(call, 0, False)


def _broadcast(call: Call, k: int) -> tuple[ExactArray, int]:
    """Operand k spread over the trunk's entries, which are spread too, and its axis along the neurons."""
    walk, array = call.walk, call.parameter(k)
    if walk.graph.opset < 7 and "axis" in call.attributes:
        room = len(walk.shape) - int(call.attributes["axis"]) % max(1, len(walk.shape)) - array.ndim
        array = array.reshape(array.shape + (1,) * max(0, room))
    try:
        shape = np.broadcast_shapes(walk.shape, array.shape)
    except ValueError as exc:
        raise FormatError(f"{call.title}: shapes {walk.shape} and {array.shape} do not fit") from exc
    folding.require_size(1, math.prod(shape))
    if shape != walk.shape:
        index = np.broadcast_to(np.arange(walk.size).reshape(walk.shape), shape)
        walk.take(index.reshape(-1), shape, f"{call.title} repeats its input")
    axes = [a for a, n in enumerate(array.shape) if n > 1]
    return np.broadcast_to(array, shape).reshape(-1), axes[0] if axes else max(0, array.ndim - 1)


def _add(call: Call, k: int, factor: Fraction = Fraction(1)) -> None:
    values, axis = _broadcast(call, k)
    slot = call.slot(k, "bias", axis) if factor == 1 else None
    if slot is not None and slot.constant.array.size not in (1, values.size):
        slot = None
    if factor != 1:
        values = folding.product(values, np.array([factor], dtype=object))
    call.walk.shift(values, f"{call.title} is folded", slot)


def add(call: Call) -> None:
    """Add: x + c."""
    _add(call, 1 - call.place)


def subtract(call: Call) -> None:
    """Sub: x - c or c - x."""
    place = call.place
    values, _ = _broadcast(call, 1 - place)
    note = f"{call.title} is folded"
    if place == 0:
        call.walk.shift(folding.negated(values), note)
    else:
        call.walk.scale(-np.ones(values.size, values.dtype), note)
        call.walk.shift(values, note)


def multiply(call: Call) -> None:
    """Mul: x c."""
    values, _ = _broadcast(call, 1 - call.place)
    call.walk.scale(values, f"{call.title} is folded")


def divide(call: Call) -> None:
    """Div: x / c."""
    if call.place != 0:
        raise UnsupportedError(f"{call.title} divides by the network's value")
    constant = call.parameter(1)
    if not constant.all():
        raise FormatError(f"{call.title} divides by zero")
    values, _ = _broadcast(call, 1)
    if (values == 1).all():
        return
    distinct, back = np.unique(values, return_inverse=True)
    call.walk.scale(folding.reciprocal(distinct)[back.reshape(-1)], f"{call.title} is folded")


def negate(call: Call) -> None:
    """-x."""
    call.walk.scale(-np.ones(call.walk.size, np.float32), f"{call.title} is folded")


def _image(call: Call) -> tuple[int, ...]:
    """(channels, *space) of a single sample."""
    shape = call.walk.shape
    if len(shape) < 3 or shape[0] != 1:
        raise UnsupportedError(f"{call.title}: input has shape {shape}; expected (1, channels, ...)")
    return shape[1:]


def _window(call: Call, kernel: tuple[int, ...], space: tuple[int, ...]) -> Window:
    axes, read = len(kernel), call.attributes
    strides = tuple(read.get("strides") or [1] * axes)
    dilations = tuple(read.get("dilations") or [1] * axes)
    flat = list(read.get("pads") or [0] * (2 * axes))
    mode = read.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-n // max(1, s)) - 1) * s + d * (k - 1) + 1 - n)
            for n, k, s, d in zip(space, kernel, strides, dilations, strict=False)
        ]
        half = [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total]
        flat = half + [t - h for t, h in zip(total, half, strict=True)]
    elif mode == "VALID":
        flat = [0] * (2 * axes)
    if len(flat) != 2 * axes:
        raise FormatError(f"{call.title}: {len(flat)} pads for {axes} axes")
    return Window(kernel, strides, tuple(zip(flat[:axes], flat[axes:], strict=True)), dilations)


def conv(call: Call) -> None:
    """A convolution; a kernel that covers its whole input is a matrix."""
    walk, weight, shape = call.walk, call.parameter(1), _image(call)
    if weight.ndim != len(shape) + 1:
        raise FormatError(f"{call.title}: kernel {weight.shape} does not fit an input {walk.shape}")
    window = _window(call, weight.shape[2:], shape[1:])
    groups = int(call.attributes.get("group", 1))
    if groups == 1 and window.covers(shape[1:]) and weight.shape[1] == shape[0]:
        matrix, out = weight.reshape(weight.shape[0], -1), (weight.shape[0], *(1 for _ in shape[1:]))
        walk.multiply(matrix, (1, *out), call.at, call.slot(1, "kernel"))
    else:
        matrix, out = folding.convolution(weight, shape, window, groups)
        walk.multiply(matrix, (1, *out), call.at, None, f"{call.title} is unrolled")
    if call.optional(2) is not None:
        bias = call.parameter(2)
        if bias.shape != out[:1]:
            raise FormatError(f"{call.title}: bias {bias.shape} for {out[0]} channels")
        places = math.prod(out[1:])
        slot = call.slot(2, "bias") if places == 1 else None
        walk.shift(np.repeat(bias, places), f"{call.title} is unrolled", slot)


def batch_normalization(call: Call) -> None:
    """BatchNormalization: (x - mean) / sqrt(variance + epsilon) gamma + beta, channel by channel."""
    walk, read = call.walk, call.attributes
    if read.get("training_mode", 0) or read.get("spatial", 1) != 1:
        raise UnsupportedError(f"{call.title}: only inference with one statistic per channel is read")
    if len(walk.shape) < 2 or walk.shape[0] != 1:
        raise UnsupportedError(f"{call.title}: input has shape {walk.shape}; expected (1, channels, ...)")
    gamma, beta, mean, variance = (call.parameter(k) for k in (1, 2, 3, 4))
    if {a.shape for a in (gamma, beta, mean, variance)} != {(walk.shape[1],)}:
        raise FormatError(f"{call.title}: statistics {gamma.shape} for {walk.shape[1]} channels")
    epsilon = Fraction(_finite(read.get("epsilon", float(np.float32(1e-5))), call))
    scale, shift, exact = folding.normalisation(gamma, beta, mean, variance, epsilon)
    if not exact:
        walk.approximations.append(
            f"{call.title}: 1/sqrt(variance + epsilon) is irrational and was rounded to the nearest float64"
        )
    channel = np.repeat(np.arange(walk.shape[1]), math.prod(walk.shape[2:]))
    walk.scale(scale[channel], f"{call.title} is folded")
    walk.shift(shift[channel], f"{call.title} is folded")


def average_pool(call: Call) -> None:
    """Means over windows."""
    if call.attributes.get("ceil_mode", 0):
        raise UnsupportedError(f"{call.title} has ceil_mode; only floor is read")
    kernel = call.attributes.get("kernel_shape")
    if not kernel:
        raise FormatError(f"{call.title} has no kernel_shape")
    window = _window(call, tuple(kernel), _image(call)[1:])
    padded = bool(call.attributes.get("count_include_pad", 0))
    pooled, shape = folding.average_pool(_image(call), window, include_pad=padded)
    call.walk.multiply(pooled.weight, (1, *shape), call.at, None, f"{call.title} is unrolled")


def global_average_pool(call: Call) -> None:
    """Means over all places."""
    rank = len(_image(call)) + 1
    _reduce(call, set(range(2, rank)), keep=True, mean=True)


def reduce(call: Call) -> None:
    """Sum or mean over axes."""
    rank = len(call.walk.shape)
    axes = call.integers(1, "axes")
    if not axes:
        axes = [] if call.attributes.get("noop_with_empty_axes", 0) else list(range(rank))
    if any(not -rank <= a < rank for a in axes):
        raise FormatError(f"{call.title}: axes {axes} of an input {call.walk.shape}")
    keep = bool(call.attributes.get("keepdims", 1))
    _reduce(call, {a % rank for a in axes}, keep=keep, mean=call.node.op_type == "ReduceMean")


def _reduce(call: Call, gone: set[int], *, keep: bool, mean: bool) -> None:
    walk = call.walk
    kept = [1 if a in gone else n for a, n in enumerate(walk.shape)]
    target = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), walk.shape).reshape(-1)
    count = walk.size // math.prod(kept)
    shape = kept if keep else [n for a, n in enumerate(walk.shape) if a not in gone]
    if count == 1:
        walk.shape = tuple(shape)
        return
    folding.require_size(math.prod(kept), walk.size)
    matrix = np.zeros((math.prod(kept), walk.size), np.float32)
    matrix[target, np.arange(walk.size)] = 1.0
    walk.multiply(matrix, shape, call.at, None, f"{call.title} is unrolled")
    if mean:
        walk.scale(folding.reciprocal(np.full(walk.size, float(count))), f"{call.title} is unrolled")


Operator = Callable[[Call], None]

AFFINE: dict[str, Operator] = {
    "Gemm": gemm,
    "MatMul": matmul,
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Neg": negate,
    "Conv": conv,
    "BatchNormalization": batch_normalization,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce,
    "ReduceSum": reduce,
}
"""Operators that do arithmetic."""
