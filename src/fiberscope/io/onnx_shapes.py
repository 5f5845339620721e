"""ONNX operators that only rearrange, on the trunk and on constants, and the few others constants pass through."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io.folding import MAX_ENTRIES
from fiberscope.io.onnx_graph import FLOATS, Constant, Graph, shown, title
from fiberscope.io.onnx_ops import Call, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

Array = npt.NDArray[Any]
Integers = Callable[[int, str], list[int] | None]


def _axis(axis: int, rank: int, name: str) -> int:
    if not -rank <= axis < max(rank, 1):
        raise FormatError(f"{name}: axis {axis} of {rank} axes")
    return axis % max(rank, 1)


def _flatten(array: Array, read: dict[str, Any], integers: Integers, name: str) -> Array:
    axis = read.get("axis", 1)
    if not -array.ndim <= axis <= array.ndim:
        raise FormatError(f"{name}: axis {axis} of {array.ndim} axes")
    axis += array.ndim if axis < 0 else 0
    return array.reshape(math.prod(array.shape[:axis]), math.prod(array.shape[axis:]))


def _reshape(array: Array, read: dict[str, Any], integers: Integers, name: str) -> Array:
    target = integers(1, "shape")
    if target is None:
        raise FormatError(f"{name} has no target shape")
    try:
        keep = not read.get("allowzero", 0)
        sizes = [array.shape[k] if n == 0 and keep else n for k, n in enumerate(target)]
        if min(sizes, default=0) < -1:
            raise ValueError
        return array.reshape(sizes)
    except (ValueError, IndexError) as exc:
        raise FormatError(f"{name}: {array.shape} cannot become {target}") from exc


def _transpose(array: Array, read: dict[str, Any], integers: Integers, name: str) -> Array:
    order = read.get("perm") or list(range(array.ndim))[::-1]
    if sorted(order) != list(range(array.ndim)):
        raise FormatError(f"{name}: perm {order} for {array.ndim} axes")
    return array.transpose(order)


def _squeeze(array: Array, read: dict[str, Any], integers: Integers, name: str) -> Array:
    axes = integers(1, "axes")
    if axes is None:
        axes = [k for k, n in enumerate(array.shape) if n == 1]
    places = {_axis(a, array.ndim, name) for a in axes}
    if any(array.shape[a] != 1 for a in places):
        raise FormatError(f"{name}: axes {axes} of {array.shape} are not of size 1")
    return array.reshape([n for k, n in enumerate(array.shape) if k not in places])


def _unsqueeze(array: Array, read: dict[str, Any], integers: Integers, name: str) -> Array:
    axes = integers(1, "axes") or []
    rank = array.ndim + len(axes)
    places = {_axis(a, rank, name) for a in axes}
    if len(places) != len(axes) or rank > 32:
        raise FormatError(f"{name}: axes {axes}; expected different axes")
    return np.expand_dims(array, tuple(sorted(places)))


def _slice(array: Array, read: dict[str, Any], integers: Integers, name: str) -> Array:
    starts, ends = integers(1, "starts"), integers(2, "ends")
    if starts is None or ends is None or len(starts) != len(ends):
        raise FormatError(f"{name}: starts and ends do not fit")
    axes = integers(3, "axes") or list(range(len(starts)))
    steps = integers(4, "steps") or [1] * len(starts)
    if len(axes) != len(starts) or len(steps) != len(starts) or 0 in steps:
        raise FormatError(f"{name}: axes and steps do not fit")
    cut = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = _axis(axis, array.ndim, name)
        stop = None if step < 0 and end < -array.shape[at] else end
        cut[at] = slice(start, stop, step)
    return array[tuple(cut)]


def _gather(array: Array, read: dict[str, Any], integers: Integers, name: str, picks: Array | None = None) -> Array:
    axis = _axis(int(read.get("axis", 0)), array.ndim, name)
    index = np.asarray(integers(1, "indices")) if picks is None else picks
    if index.dtype.kind not in "iu" or array.size * max(1, index.size) > MAX_ENTRIES:
        raise UnsupportedError(f"{name}: indices are not a few integers")
    if index.size and (int(index.min()) < -array.shape[axis] or int(index.max()) >= array.shape[axis]):
        raise FormatError(f"{name}: an index is outside of 0..{array.shape[axis] - 1}")
    return np.take(array, index, axis=axis)


Rearrangement = Callable[[Array, dict[str, Any], Integers, str], Array]

SHAPES: dict[str, Rearrangement] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Gather": _gather,
}
"""Rearrangements of an array."""


def rearrange(call: Call) -> None:
    """Apply a rearrangement to the trunk, by applying it to the entries' numbers."""
    walk = call.walk
    if call.place != 0:
        raise UnsupportedError(f"{call.title}: the network's value is used as a shape or index")
    numbers = np.arange(walk.size).reshape(walk.shape)
    read = call.attributes
    if call.node.op_type == "Gather":
        moved = _gather(numbers, read, call.integers, call.title, call.operand(1).array)
    else:
        moved = SHAPES[call.node.op_type](numbers, read, call.integers, call.title)
    if not moved.size:
        raise FormatError(f"{call.title}: nothing is left of the input {walk.shape}")
    walk.take(moved.reshape(-1), moved.shape, f"{call.title} reorders its input")
    if call.node.op_type == "Reshape":
        walk.site.reshapes.append(call.at)


def pad(call: Call) -> None:
    """Zeros around the trunk."""
    walk = call.walk
    flat = call.integers(1, "pads")
    value = call.optional(2)
    if call.attributes.get("mode", "constant") != "constant" or call.optional(3) is not None:
        raise UnsupportedError(f"{call.title}: only constant padding of all axes is read")
    if call.attributes.get("value", 0.0) != 0.0 or (value is not None and value.array.any()):
        raise UnsupportedError(f"{call.title} pads with a number other than 0")
    if flat is None or len(flat) != 2 * len(walk.shape):
        raise FormatError(f"{call.title}: pads {flat} for {len(walk.shape)} axes")
    if min(flat) < 0 or math.prod(n + a + b for n, a, b in _pairs(walk.shape, flat)) > MAX_ENTRIES:
        raise UnsupportedError(f"{call.title}: pads {flat}")
    numbers = np.arange(walk.size).reshape(walk.shape)
    moved = np.pad(numbers, [(a, b) for _, a, b in _pairs(walk.shape, flat)], constant_values=-1)
    walk.take(moved.reshape(-1), moved.shape, f"{call.title} is folded")


def _pairs(shape: Sequence[int], flat: Sequence[int]) -> list[tuple[int, int, int]]:
    return [(n, flat[k], flat[k + len(shape)]) for k, n in enumerate(shape)]


def evaluate(node: NodeProto, graph: Graph) -> Constant | None:
    """The output of a node whose operands are all constant; None for operators that are not evaluated."""
    read, op = attributes(node, graph), node.op_type
    inputs = [graph.constants[name] for name in node.input if name]
    if op == "Constant":
        return _constant(node, read)
    if not inputs or node.domain not in ("", "ai.onnx"):
        return None
    first = inputs[0]
    if op in ("Identity", "Dropout"):
        return first
    if op == "Cast":
        return _cast(first, int(read.get("to", 0)), node)
    if op == "Concat":
        if sum(c.array.size for c in inputs) > MAX_ENTRIES:
            raise UnsupportedError(f"{title(node)}: constants of more than {MAX_ENTRIES:,} entries")
        try:
            return Constant(np.concatenate([c.array for c in inputs], axis=int(read.get("axis", 0))))
        except ValueError as exc:
            raise FormatError(f"{title(node)}: constants do not fit together") from exc
    if op in SHAPES:
        return _rearranged(node, read, inputs)
    if (
        op in ("Add", "Sub", "Mul")
        and all(c.array.dtype.kind in "iu" and c.array.size <= 64 for c in inputs)
        and len(inputs) == 2
    ):
        function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[op]
        try:
            with np.errstate(all="ignore"):
                return Constant(np.asarray(function(first.array, inputs[1].array)))
        except ValueError as exc:
            raise FormatError(f"{title(node)}: constants do not fit together") from exc
    return None


def _constant(node: NodeProto, read: dict[str, Any]) -> Constant | None:
    if "value" in read:
        return Constant(read["value"], node.output[0])
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, name + "s"):
            if key in read:
                return Constant(np.asarray(read[key], dtype=dtype), "" if dtype is np.int64 else node.output[0])
    raise UnsupportedError(f"{title(node)} holds no dense tensor")


def _cast(value: Constant, kind: int, node: NodeProto) -> Constant:
    integers: dict[int, np.dtype[Any]] = {6: np.dtype(np.int32), 7: np.dtype(np.int64)}
    dtype = FLOATS.get(kind) or integers.get(kind)
    if dtype is None or kind == 16:
        raise UnsupportedError(f"{title(node)} casts a constant to ONNX element type {kind}")
    if value.array.dtype == dtype:
        return value
    with np.errstate(all="ignore"):
        return Constant(value.array.astype(dtype))


def _rearranged(node: NodeProto, read: dict[str, Any], inputs: list[Constant]) -> Constant:
    def integers(k: int, name: str) -> list[int] | None:
        if k < len(inputs):
            array = inputs[k].array
            if array.dtype.kind not in "iu" or array.size > 64:
                raise UnsupportedError(f"{title(node)}: operand {k} is not a few integers")
            return [int(v) for v in array.reshape(-1)]
        value = read.get(name)
        return value if value is None or isinstance(value, list) else [int(value)]

    first = inputs[0]
    if node.op_type == "Gather" and len(inputs) > 1:
        return Constant(_gather(first.array, read, integers, title(node), inputs[1].array))
    array = SHAPES[node.op_type](first.array, read, integers, title(node))
    flipped = node.op_type == "Transpose" and first.array.ndim == 2 and array.shape == first.array.shape[::-1]
    if flipped and (read.get("perm") or [1, 0]) == [1, 0]:
        return Constant(array, first.name, not first.transposed)
    return Constant(
        array, first.name if array.shape == first.array.shape and node.op_type == "Reshape" else "", first.transposed
    )


def cast_note(call: Call) -> str | None:
    """What a cast on the trunk means for exactness; None if it widens.

    Raises:
        UnsupportedError: if it casts to something that is no float.
    """
    kind = int(call.attributes.get("to", 0))
    if kind not in FLOATS:
        raise UnsupportedError(f"{call.title} casts the network's value to ONNX element type {kind}")
    return None if kind == 11 else f"{call.title}: casts are read as exact"


def shape_value(shape: Sequence[int], read: dict[str, Any]) -> Constant:
    """The output of a Shape node."""
    start, end = int(read.get("start", 0)), read.get("end")
    return Constant(np.asarray(list(shape)[start : None if end is None else int(end)], dtype=np.int64))


def unknown(node: NodeProto, what: str) -> UnsupportedError:
    """The refusal of an operator, by name."""
    domain = f" of {shown(node.domain)}" if node.domain not in ("", "ai.onnx") else ""
    return UnsupportedError(f"operator {title(node)}{domain} {what}")
