"""ONNX bytes to a checked graph: one input, one output, nodes in order, tensors decoded within bounds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import FormatError, UnsupportedError, import_optional

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

ExactArray = npt.NDArray[Any]

FLOATS: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    16: np.dtype(np.float32),
}
"""ONNX element types read as floats; bfloat16 (16) is widened to float32, exactly."""

_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}
_BFLOAT16 = 16
_MAX_RANK = 16
_MAX_INPUT = 20_000_000


def onnx_module() -> Any:
    """The onnx package.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    return import_optional("onnx", extra="onnx", purpose="read or write ONNX files")


def shown(name: object) -> str:
    """A name from a file, safe to print in one line."""
    text = repr(str(name))
    return text if len(text) <= 60 else text[:57] + "..'"


def title(node: NodeProto) -> str:
    """A node's operator and name, for messages."""
    name = node.name or (node.output[0] if node.output else "")
    return f"{shown(node.op_type)[1:-1]} {shown(name)}" if name else shown(node.op_type)[1:-1]


def parse(data: bytes) -> ModelProto:
    """Decode a ModelProto; memory is bounded by a multiple of the file's size, nothing is executed.

    Raises:
        FormatError: if the bytes are no ONNX model.
    """
    onnx = onnx_module()
    decode_error = import_optional("google.protobuf.message", extra="onnx", purpose="read ONNX files").DecodeError

    model: ModelProto = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (decode_error, RecursionError, ValueError) as exc:
        raise FormatError("not an ONNX model: the protobuf data is damaged or truncated") from exc
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise FormatError("not an ONNX model: there is no graph in it")
    return model


def decode(tensor: TensorProto, folder: Path | None) -> ExactArray:
    """A TensorProto as an array, after checking that its dims agree with its data.

    Args:
        tensor: an initialiser or attribute.
        folder: where external data may lie; None forbids it.

    Raises:
        FormatError: if dims are negative, sizes disagree, or external data leaves the folder.
        UnsupportedError: if the element type is not read.
    """
    name, dims = shown(tensor.name), tuple(int(d) for d in tensor.dims)
    if any(d < 0 for d in dims):
        raise FormatError(f"tensor {name} has dims {list(dims)}; expected numbers >= 0")
    if len(dims) > _MAX_RANK:
        raise FormatError(f"tensor {name} has {len(dims)} axes; at most {_MAX_RANK} are read")
    if tensor.data_type not in _ITEM_BYTES:
        raise UnsupportedError(f"tensor {name} has ONNX element type {tensor.data_type}; floats and integers are read")
    count = math.prod(dims)
    if tensor.data_location == 1:
        raw: bytes | None = _external(tensor, folder, count * _ITEM_BYTES[tensor.data_type])
    else:
        raw = tensor.raw_data if tensor.HasField("raw_data") else None
    if raw is not None:
        have = len(raw) / _ITEM_BYTES[tensor.data_type]
    else:
        have = len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data")))
    if have != count:
        raise FormatError(f"tensor {name} declares {count} entries {list(dims)} but holds {have:g}")
    return _values(tensor, raw).reshape(dims)


def _values(tensor: TensorProto, raw: bytes | None) -> ExactArray:
    kind = tensor.data_type
    if kind == _BFLOAT16 or (kind == 10 and raw is None):
        if raw is None:
            bits = np.array(tensor.int32_data, dtype=np.int64).astype(np.uint16)
        else:
            bits = np.frombuffer(raw, "<u2")
        return bits.view(np.float16) if kind == 10 else (bits.astype(np.uint32) << 16).view(np.float32)
    dtype = np.dtype(onnx_module().helper.tensor_dtype_to_np_dtype(kind))
    if raw is not None:
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
    return np.array(getattr(tensor, _FIELDS.get(kind, "int32_data")), dtype=np.float64 if kind == 11 else None).astype(
        dtype
    )


def _external(tensor: TensorProto, folder: Path | None, size: int) -> bytes:
    """Bytes of external data, which must lie inside the model's folder."""
    name = shown(tensor.name)
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise UnsupportedError(f"tensor {name} is stored outside the model; load the model from its file")
    try:
        root = folder.resolve()
        path = (root / location).resolve()
        if not location or not path.is_relative_to(root) or not path.is_file():
            raise FormatError(
                f"tensor {name} is stored in {shown(location)}; external data must be a file in the model's folder"
            )
        offset, length = int(entries.get("offset", "0") or 0), int(entries.get("length", "0") or size)
        if offset < 0 or length != size or offset + length > path.stat().st_size:
            raise FormatError(f"tensor {name} needs {size} bytes at {offset} of {shown(location)}, which are not there")
        with path.open("rb") as handle:
            handle.seek(offset)
            raw: bytes = handle.read(size)
    except (OSError, ValueError) as exc:
        if isinstance(exc, FormatError):
            raise
        raise FormatError(f"tensor {name}: external data {shown(location)} cannot be read") from exc
    if len(raw) != size:
        raise FormatError(f"tensor {name} needs {size} bytes of {shown(location)}, which are not there")
    return raw


@dataclass(frozen=True)
class Constant:
    """A value known without running the network.

    Args:
        array: the value.
        name: the initialiser or Constant node it is, "" if it was computed from others.
        transposed: whether `array` is the transposed tensor.
    """

    array: ExactArray
    name: str = ""
    transposed: bool = False


@dataclass
class Graph:
    """The part of a model that its output needs.

    Args:
        model: the decoded model (not copied).
        nodes: needed nodes in topological order.
        position: index of each of them in `model.graph.node`.
        input: the graph input.
        shape: its shape for one sample; unknown sizes are 1.
        free: its axes without a fixed size.
        output: name of the graph output.
        opset: version of the default operator set.
        folder: where external data may lie.
        constants: values known so far.
        consumers: positions in `nodes` that read each tensor's values (Shape nodes do not).
        readers: all positions in `nodes` that name each tensor.
    """

    model: ModelProto
    nodes: list[NodeProto]
    position: list[int]
    input: ValueInfoProto
    shape: tuple[int, ...]
    free: tuple[int, ...]
    output: str
    opset: int
    folder: Path | None
    constants: dict[str, Constant] = field(default_factory=dict)
    consumers: dict[str, list[int]] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=dict)

    def constant(self, name: str) -> Constant | None:
        """The value of a tensor if it is known."""
        return self.constants.get(name)


def graph_of(model: ModelProto, folder: Path | None = None) -> Graph:
    """Check a model's graph and keep what its output needs.

    Raises:
        FormatError: if names clash, tensors are undefined, the graph is cyclic, or the output is disconnected.
        UnsupportedError: if it has several inputs or outputs, functions, or sparse tensors.
    """
    graph = model.graph
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    if graph.sparse_initializer:
        raise UnsupportedError("the graph has sparse initialisers; store them densely")
    if len(graph.output) != 1:
        names = ", ".join(shown(o.name) for o in list(graph.output)[:5])
        raise UnsupportedError(f"the graph has {len(graph.output)} outputs ({names}); a chain has one")
    constants = _initializers(graph, folder)
    producer = _producers(graph, constants)
    order = _needed(graph, producer, constants, graph.output[0].name)
    nodes = [graph.node[k] for k in order]
    used = {name for node in nodes for name in node.input} | {graph.output[0].name}
    inputs = [i for i in graph.input if i.name not in constants and i.name in used]
    if not inputs or not nodes:
        raise FormatError(
            f"output {shown(graph.output[0].name)} does not depend on any input: the graph is disconnected"
        )
    if len(inputs) > 1:
        names = ", ".join(shown(i.name) for i in inputs[:5])
        raise UnsupportedError(f"the graph has {len(inputs)} inputs ({names}); a chain has one")
    shape, free = _input_shape(inputs[0], nodes, constants)
    consumers: dict[str, list[int]] = {}
    readers: dict[str, list[int]] = {}
    for k, node in enumerate(nodes):
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(k)
            if node.op_type != "Shape":
                consumers.setdefault(name, []).append(k)
    return Graph(
        model, nodes, order, inputs[0], shape, free, graph.output[0].name, int(opset), folder,
        {k: v for k, v in constants.items() if k in used}, consumers, readers,
    )  # fmt: skip


def _initializers(graph: GraphProto, folder: Path | None) -> dict[str, Constant]:
    out: dict[str, Constant] = {}
    needed = {name for node in graph.node for name in node.input}
    for tensor in graph.initializer:
        if tensor.name in out:
            raise FormatError(f"two initialisers are called {shown(tensor.name)}")
        if tensor.name in needed or tensor.name == graph.output[0].name:
            out[tensor.name] = Constant(decode(tensor, folder), tensor.name)
    return out


def _producers(graph: GraphProto, constants: Iterable[str]) -> dict[str, int]:
    """Which node makes each tensor."""
    taken = set(constants) | {i.name for i in graph.input}
    producer: dict[str, int] = {}
    for k, node in enumerate(graph.node):
        for name in node.output:
            if not name:
                continue
            if name in producer or name in taken:
                raise FormatError(f"tensor {shown(name)} is defined twice")
            producer[name] = k
    return producer


def _needed(graph: GraphProto, producer: dict[str, int], constants: Iterable[str], output: str) -> list[int]:
    """Nodes that the output needs, in topological order (the file's own order when that is one)."""
    known = {*constants, *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    needed: set[int] = set()
    stack = [output]
    while stack:
        name = stack.pop()
        if name in known or not name:
            continue
        if name not in producer:
            raise FormatError(f"tensor {shown(name)} is used but never defined: the graph is disconnected")
        k = producer[name]
        if k not in needed:
            needed.add(k)
            stack.extend(graph.node[k].input)
    return _sorted(graph, producer, needed)


def _sorted(graph: GraphProto, producer: dict[str, int], needed: set[int]) -> list[int]:
    """Kahn's algorithm, smallest position first, so that a sorted file keeps its order."""
    waits = {k: {producer[name] for name in graph.node[k].input if name in producer} for k in needed}
    readers: dict[int, list[int]] = {}
    for k, sources in waits.items():
        for source in sources:
            readers.setdefault(source, []).append(k)
    ready = [k for k, sources in waits.items() if not sources]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for reader in readers.get(k, ()):
            waits[reader].discard(k)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(needed):
        raise FormatError(f"the graph has a cycle through {title(graph.node[min(needed - set(order))])}")
    return order


def _input_shape(
    value: ValueInfoProto, nodes: list[NodeProto], constants: dict[str, Constant]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(shape for one sample, axes without a fixed size)."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in FLOATS:
        raise UnsupportedError(f"input {shown(value.name)} is no float tensor")
    if not kind.HasField("shape"):
        size = _first_width(nodes, constants)
        if size is None:
            raise UnsupportedError(f"input {shown(value.name)} has no shape")
        return (1, size), (0,)
    dims = [int(d.dim_value) if d.HasField("dim_value") else 0 for d in kind.shape.dim]
    if any(d < 0 for d in dims):
        raise FormatError(f"input {shown(value.name)} has shape {dims}; expected numbers >= 1")
    if len(dims) > _MAX_RANK or math.prod(d or 1 for d in dims) > _MAX_INPUT:
        raise UnsupportedError(
            f"input {shown(value.name)} is too large: {len(dims)} axes, {math.prod(d or 1 for d in dims):.3g} entries"
        )
    free = tuple(k for k, d in enumerate(dims) if d == 0)
    if any(k > 0 for k in free):
        raise UnsupportedError(
            f"input {shown(value.name)}: axis {max(free)} has no fixed size; only the first may be free"
        )
    if free and len(dims) == 1:
        size = _first_width(nodes, constants)
        if size is None:
            raise UnsupportedError(f"input {shown(value.name)} is a vector without a fixed size")
        return (size,), ()
    return tuple(d or 1 for d in dims), free


def _first_width(nodes: list[NodeProto], constants: dict[str, Constant]) -> int | None:
    """Inputs of the first matrix product, for graphs that do not say their input's shape."""
    for node in nodes:
        if node.op_type in ("MatMul", "Gemm") and len(node.input) > 1 and node.input[1] in constants:
            flipped = any(a.name == "transB" and a.i for a in node.attribute)
            array = constants[node.input[1]].array
            return int(array.shape[1 if flipped else 0]) if array.ndim == 2 else None
    return None
