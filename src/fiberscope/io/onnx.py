"""ONNX: read a model that is a chain, write a chain, and rewrite a model with other weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt

from fiberscope.errors import InputError, PartError, UnsupportedError
from fiberscope.io.files import Options, read_bytes
from fiberscope.io.onnx_chain import follow
from fiberscope.io.onnx_graph import graph_of, parse
from fiberscope.io.onnx_opaque import OpaqueModel, parts_of, source_of
from fiberscope.io.onnx_rewrite import rewrite_chain
from fiberscope.io.onnx_write import to_onnx, write
from fiberscope.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OpaqueModel", "from_model", "read", "read_parts", "rewrite", "to_onnx", "write"]


def read(path: Path, options: Options) -> Network:
    """Read an ONNX file as a chain.

    Args:
        path: the file; external data is read only from its folder.
        options: with `allow_opaque`, a graph that is no chain gives the chain between opaque nodes that `part` names
            ("chain1", ...); otherwise `part` is refused. `activation` is not needed and only noted.

    Raises:
        FormatError: if the file is damaged or inconsistent.
        UnsupportedError: if the graph is no chain of affine maps and activations; the operator is named.
    """
    if options.part is not None and not options.allow_opaque:
        raise InputError(f"{path}: an ONNX file holds one network; leave --part away")
    data = read_bytes(path)
    try:
        return _noted(_read(parse(data), data, path, options), options)
    except PartError as exc:
        raise PartError(f"{path}: {exc}", exc.parts) from exc
    except InputError as exc:
        raise type(exc)(f"{path}: {exc}") from exc


def _read(model: ModelProto, data: bytes, path: Path, options: Options) -> Network:
    try:
        net = _network(model, path=str(path), folder=path.parent, data=data)
    except UnsupportedError:
        if not options.allow_opaque:
            raise
        return _part(parts_of(data, path), options.part)
    if options.part not in (None, "chain1"):
        raise InputError(f"the graph is one chain; there is no part {options.part!r}")
    return net


def _part(model: OpaqueModel, part: str | None) -> Network:
    """The chain of a name, or the only one."""
    names = [f"chain{k + 1}" for k in range(len(model.chains))]
    if part is None and len(names) > 1:
        listed = ", ".join(f"{name} ({net.architecture})" for name, net in zip(names, model.chains, strict=True))
        text = f"the graph holds several chains between opaque nodes; choose one with --part: {listed}"
        raise PartError(text, tuple(names))
    if (part or names[0]) not in names:
        raise InputError(f"there is no part {part!r}; the graph has {', '.join(names)}")
    k = names.index(part or names[0])
    kinds = ", ".join(dict.fromkeys(op for _, op in model.opaque))
    note = f"{names[k]} of a graph with the opaque nodes {kinds}; nothing is said about the whole model"
    source = model.chains[k].source or model.source
    return replace(model.chains[k], source=replace(source, part=names[k], notes=(*source.notes, note)))


def _noted(net: Network, options: Options) -> Network:
    if options.activation is None or net.source is None:
        return net
    notes = (*net.source.notes, "the file names its own activations; --activation is ignored")
    return replace(net, source=replace(net.source, notes=notes))


def from_model(model: ModelProto, options: Options | None = None) -> Network:
    """Read a ModelProto in memory as a chain; external data is refused.

    Raises:
        FormatError: if it is inconsistent.
        UnsupportedError: if the graph is no chain; the operator is named.
    """
    chosen = Options() if options is None else options
    if chosen.part is not None:
        raise InputError("an ONNX model holds one network; leave part away")
    return _noted(_network(model, path="", folder=None, data=None), chosen)


def rewrite(original: bytes, before: Network, after: Network, dtype: npt.DTypeLike) -> bytes:
    """The original model with the weights of another network of the same depth: a drop-in.

    Args:
        original: bytes of the ONNX file.
        before: the network (or the part) read from it.
        after: the network to write; inputs, outputs, depth, activations and head as before, hidden widths free.
        dtype: float dtype of the written tensors; if it is not the file's, graph inputs and outputs keep theirs behind
            Cast nodes.

    Returns:
        Bytes of a model that was read again and is exactly `after`.

    Raises:
        InputError: if the networks do not fit, or a number is no value of `dtype`.
        UnsupportedError: if the graph cannot hold the network.
    """
    source = before.source
    if source is None or source.part is None:
        return rewrite_chain(original, before, after, dtype)
    model = parts_of(original, Path(source.path) if source.path else None)
    chains = [after if f"chain{k + 1}" == source.part else net for k, net in enumerate(model.chains)]
    return model.rewrite(chains, dtype)


def _network(model: ModelProto, *, path: str, folder: Path | None, data: bytes | None) -> Network:
    walk = follow(graph_of(model, folder))
    return Network(tuple(walk.layers), walk.head, source_of([walk], path, data))


def read_parts(path: Path) -> OpaqueModel:
    """Read an ONNX file whose graph is a chain except for some opaque nodes (`--allow-opaque`).

    Raises:
        FormatError: if the file is damaged or inconsistent.
        UnsupportedError: if no chain is left between the opaque nodes.
    """
    data = read_bytes(path)
    try:
        return parts_of(data, path=path)
    except InputError as exc:
        raise type(exc)(f"{path}: {exc}") from exc
