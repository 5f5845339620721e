"""ONNX models that are chains except for some opaque nodes: the chains between those, read and rewritten."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fiberscope.activations import activation
from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.io.onnx_chain import finish, start, step
from fiberscope.io.onnx_graph import FLOATS, Graph, graph_of, onnx_module, parse, title
from fiberscope.io.onnx_rewrite import edited
from fiberscope.io.onnx_sites import Site, Walk
from fiberscope.io.onnx_write import element_type
from fiberscope.network import Network, Source

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


@dataclass(frozen=True)
class OpaqueModel:
    """A model read as chains between opaque nodes.

    Args:
        chains: the maximal chains, in order.
        opaque: (node name, operator) of every node outside them.
        signature: hash of the opaque nodes, their constants and how they are connected; equal for models that agree
            outside of the chains.
        source: where it was read from.
        data: the file's bytes.
    """

    chains: tuple[Network, ...]
    opaque: tuple[tuple[str, str], ...]
    signature: str
    source: Source
    data: bytes = field(repr=False, default=b"")

    def rewrite(self, chains: Sequence[Network], dtype: npt.DTypeLike | None = None) -> bytes:
        """The model with other chains in place, everything opaque untouched.

        Args:
            chains: one network for each of `self.chains`, with the same inputs, outputs, depth and activations.
            dtype: float dtype of the file, the only one possible beside opaque nodes.

        Raises:
            InputError: if chains do not fit, or a number is no value of the dtype.
            UnsupportedError: if the graph cannot hold them exactly, or another dtype is asked for.
        """
        target = np.dtype(self.source.dtype if dtype is None else dtype)
        if target != np.dtype(self.source.dtype):
            raise UnsupportedError(f"opaque nodes keep the file's dtype {self.source.dtype}; {target} was asked for")
        if len(chains) != len(self.chains):
            raise InputError(f"{len(chains)} chains given; the model has {len(self.chains)}")
        for old, new in zip(self.chains, chains, strict=True):
            same = [layer.activation for layer in old.layers] == [layer.activation for layer in new.layers]
            if not same or (old.widths[0], old.widths[-1]) != (new.widths[0], new.widths[-1]):
                raise InputError(f"chain {new.architecture} does not fit in place of {old.architecture}")
        folder = Path(self.source.path).parent if self.source.path else None
        model, walks, _ = _read(self.data, folder)
        _require_kind(model, target)
        out = edited(model, walks, [net.layers for net in chains], target, folder)
        again = parts_of(out).chains
        if len(again) != len(chains) or not all(a.same_as(b) for a, b in zip(again, chains, strict=True)):
            raise UnsupportedError("the graph cannot hold the chains exactly")
        return out


def parts_of(data: bytes, path: Path | None = None) -> OpaqueModel:
    """Read the bytes of a model as chains between opaque nodes.

    Raises:
        FormatError: if the model is damaged.
        UnsupportedError: if no chain is left.
    """
    _, walks, opaque = _read(data, None if path is None else path.parent)
    if not walks:
        names = ", ".join(title(node) for _, node in opaque[:3])
        raise UnsupportedError(f"no chain is left between the opaque nodes {names}")
    path_text = "" if path is None else str(path)
    nodes = tuple((node.name or node.output[0], node.op_type) for _, node in opaque)
    chains = tuple(Network(tuple(w.layers), w.head, source_of([w], path_text, data)) for w in walks)
    signature = _signature(walks[0].graph, [k for k, _ in opaque])
    return OpaqueModel(chains, nodes, signature, source_of(walks, path_text, data), data)


def source_of(walks: Sequence[Walk], path: str, data: bytes | None) -> Source:
    """What is known of the file behind finished walks over one graph."""
    graph = walks[0].graph
    tensors = {name: shape for walk in walks for name, shape in walk.parameters.items()}
    kinds = [graph.constants[name].array.dtype for name in tensors if name in graph.constants]
    kind: npt.DTypeLike = FLOATS[graph.input.type.tensor_type.elem_type]
    return Source(
        path=path,
        format="onnx",
        sha256=None if data is None else hashlib.sha256(data).hexdigest(),
        dtype=np.dtype(np.result_type(*kinds) if kinds else kind).name,
        parameter_count=sum(math.prod(shape) for shape in tensors.values()),
        tensors=tuple(tensors.items()),
        notes=tuple(dict.fromkeys(note for walk in walks for note in walk.notes)),
        approximations=tuple(dict.fromkeys(text for walk in walks for text in walk.approximations)),
        extra={"input": graph.input.name, "output": graph.output, "opset": graph.opset},
    )


def _read(data: bytes, folder: Path | None) -> tuple[ModelProto, list[Walk], list[tuple[int, NodeProto]]]:
    """Walks over the maximal chains, and the nodes outside of them."""
    model = parse(data)
    graph = graph_of(model, folder)
    shapes = _shapes(model, graph)
    walk: Walk | None = start(graph)
    walks: list[Walk] = []
    opaque: list[tuple[int, NodeProto]] = []
    for nodes, entering, leaving in _hops(graph):
        if walk is None and entering in shapes:
            walk = Walk(graph, entering, shapes[entering], Site.start(entering, shapes[entering]))
        saved = _copied(walk)
        try:
            if walk is None:
                raise UnsupportedError("no shape")
            for k in nodes:
                step(walk, k)
            if walk.current != leaving:
                raise UnsupportedError("no chain")
        except (UnsupportedError, FormatError):
            _keep(saved, walks)
            opaque.extend((k, graph.nodes[k]) for k in nodes if graph.nodes[k].output[0] not in graph.constants)
            walk = None
    if walk is not None:
        _keep(walk, walks, last=True)
    return model, walks, opaque


def _copied(walk: Walk | None) -> Walk | None:
    """A walk to come back to if the next nodes are opaque."""
    if walk is None:
        return None
    site = replace(
        walk.site, nodes=list(walk.site.nodes), reshapes=list(walk.site.reshapes), folded=list(walk.site.folded)
    )
    fresh = copy.copy(walk)
    fresh.site, fresh.taken = site, set(walk.taken)
    for name in ("sites", "layers", "notes", "approximations"):
        setattr(fresh, name, list(getattr(walk, name)))
    fresh.parameters, fresh.shapes = dict(walk.parameters), dict(walk.shapes)
    return fresh


def _keep(walk: Walk | None, walks: list[Walk], *, last: bool = False) -> None:
    """End a chain before an opaque node, and keep it if it has a matrix."""
    if walk is None:
        return
    try:
        if last:
            finish(walk)
        elif walk.head is None and walk.site.weight is not None:
            walk.close(activation("identity"), [], walk.current)
    except UnsupportedError:  # too large to unroll: the layers before it are still a chain
        pass
    walk.frames()
    if any(site.weight is not None for site in walk.sites):
        walks.append(walk)


def _hops(graph: Graph) -> list[tuple[list[int], str, str]]:
    """Nodes between consecutive tensors through which everything passes: (nodes, first tensor, last tensor)."""
    waiting = {graph.input.name: set(graph.readers[graph.input.name])}
    hops: list[tuple[list[int], str, str]] = []
    nodes: list[int] = []
    entering = graph.input.name
    for k, node in enumerate(graph.nodes):
        nodes.append(k)
        if all(name in graph.constants or not name for name in node.input):
            continue
        for name in node.input:
            if name in waiting:
                waiting[name].discard(k)
        for name in node.output:
            if name and (graph.readers.get(name) or name == graph.output):
                waiting[name] = set(graph.readers.get(name, ()))
        waiting = {name: left for name, left in waiting.items() if left or name == graph.output}
        if len(waiting) == 1:
            leaving = next(iter(waiting))
            hops.append((nodes, entering, leaving))
            nodes, entering = [], leaving
    return hops


def _shapes(model: ModelProto, graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of one sample at the tensors where ONNX's shape inference knows them; a free first axis is 1."""
    try:
        known = onnx_module().shape_inference.infer_shapes(model).graph.value_info
    except Exception:  # inference is a help only, and a foreign library may raise anything
        known = model.graph.value_info
    out: dict[str, tuple[int, ...]] = {}
    for value in known:
        kind = value.type.tensor_type
        sizes = [int(d.dim_value) if d.HasField("dim_value") else 0 for d in kind.shape.dim]
        if kind.elem_type in FLOATS and sizes and all(n > 0 for n in sizes[1:]) and len(sizes) <= 8:
            out[value.name] = (sizes[0] or 1, *sizes[1:]) if sizes[0] >= 0 else ()
    return {name: shape for name, shape in out.items() if shape and int(np.prod(shape, dtype=object)) <= 10_000_000}


def _require_kind(model: ModelProto, dtype: npt.DTypeLike) -> None:
    kinds = {t.data_type for t in model.graph.initializer if t.data_type in FLOATS}
    if kinds - {element_type(dtype)}:
        raise UnsupportedError("the model mixes float dtypes beside opaque nodes; it is not rewritten")


def _signature(graph: Graph, opaque: Sequence[int]) -> str:
    """Hash of the opaque nodes with tensors numbered in order of appearance."""
    numbers: dict[str, int] = {}
    state = hashlib.sha256(b"fiberscope opaque 1\n")
    for k in opaque:
        node = graph.nodes[k]
        state.update(f"{node.domain}|{node.op_type}|".encode())
        for a in sorted(node.attribute, key=lambda a: a.name):
            state.update(a.SerializeToString(deterministic=True))
        for name in (*node.input, "", *node.output):
            found = graph.constant(name)
            if found is not None:
                state.update(str((found.array.dtype, found.array.shape)).encode() + found.array.tobytes())
            else:
                state.update(f"t{numbers.setdefault(name, len(numbers))},".encode())
    return state.hexdigest()
