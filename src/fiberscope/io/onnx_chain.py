"""An ONNX graph as a chain of layers: walk its trunk from the input to the output."""

from __future__ import annotations

import math

from fiberscope.activations import activation
from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io.onnx_activations import ACTIVATIONS, refuse, region
from fiberscope.io.onnx_graph import Graph, shown, title
from fiberscope.io.onnx_ops import AFFINE, Call, attributes
from fiberscope.io.onnx_shapes import SHAPES, cast_note, evaluate, pad, rearrange, shape_value, unknown
from fiberscope.io.onnx_sites import Site, Walk

HEADS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "ArgMax": "argmax"}
"""Operators that are output heads."""

_PASSING = ("Identity", "Dropout")


def start(graph: Graph) -> Walk:
    """A walk at the graph's input, with the constants of the whole graph evaluated."""
    for node in graph.nodes:
        if all(name in graph.constants for name in node.input if name):
            value = evaluate(node, graph)
            if value is not None:
                graph.constants[node.output[0]] = value
    walk = Walk(graph, graph.input.name, graph.shape, Site.start(graph.input.name, graph.shape))
    if len(graph.shape) > 1 and graph.shape[0] > 1:
        walk.notes.append(f"the input has the fixed shape {graph.shape}; all its entries are features of one sample")
    return walk


def follow(graph: Graph) -> Walk:
    """Walk the whole graph.

    Returns:
        The finished walk; what trails the last layer (shape operations, a head) is its open site.

    Raises:
        UnsupportedError: at the first operator or branch that is no chain, by name.
        FormatError: where shapes do not fit.
    """
    walk = start(graph)
    for k in range(len(graph.nodes)):
        step(walk, k)
    finish(walk)
    walk.frames()
    return walk


def finish(walk: Walk) -> None:
    """Close the last layer.

    Raises:
        FormatError: if the trunk did not end at the graph's output.
    """
    if walk.current != walk.graph.output:
        raise FormatError(f"output {shown(walk.graph.output)} is not where the chain ends, {shown(walk.current)}")
    if walk.head is None and (not walk.idle or not walk.layers):
        walk.close(activation("identity"), [], walk.current)


def step(walk: Walk, k: int) -> None:
    """Process node k of the graph, in order.

    Raises:
        UnsupportedError: if it is no part of a chain.
        FormatError: where shapes do not fit.
    """
    graph, node = walk.graph, walk.graph.nodes[k]
    if k in walk.taken or node.output[0] in graph.constants:
        return
    live = [name for name in node.input if name and name not in graph.constants]
    if not live:
        value = evaluate(node, graph)
        if value is None:
            raise unknown(node, "has only constant operands and is not evaluated")
        graph.constants[node.output[0]] = value
    elif node.op_type == "Shape" and live[0] in {walk.current, *walk.shapes}:
        shape = walk.shape if live[0] == walk.current else walk.shapes[live[0]]
        graph.constants[node.output[0]] = shape_value(shape, attributes(node, graph))
    else:
        _trunk(walk, k, live)


def _trunk(walk: Walk, k: int, live: list[str]) -> None:
    """A node that reads something that depends on the input: it must be the trunk."""
    graph, node = walk.graph, walk.graph.nodes[k]
    if set(live) != {walk.current}:
        stray = next(name for name in live if name != walk.current)
        raise UnsupportedError(f"{title(node)} reads tensor {shown(stray)} beside the chain: branches are not chains")
    if graph.output == walk.current:
        raise UnsupportedError(f"output {shown(walk.current)} is also read by {title(node)}: branches are not chains")
    call = Call(walk, node, graph.position[k], attributes(node, graph))
    if len(graph.consumers[walk.current]) > 1 or len(live) > 1:
        _branch(call)
    else:
        _advance(call)


def _branch(call: Call) -> None:
    """Several nodes read the trunk: an activation written out, or a refusal."""
    walk, graph = call.walk, call.walk.graph
    row, taken, result = region(call)
    if walk.head is not None:
        raise _after_head(call)
    walk.taken.update(taken)
    walk.close(row, [graph.position[n] for n in taken], result)


def _advance(call: Call) -> None:
    """One node on the trunk."""
    walk, node, op = call.walk, call.node, call.node.op_type
    if node.domain not in ("", "ai.onnx"):
        raise refuse(call)
    if op in ACTIVATIONS and not (op in ("Max", "Min") and len(node.input) == 1):
        if walk.head is not None:
            raise _after_head(call)
        walk.close(ACTIVATIONS[op](call), [call.at], node.output[0])
        return
    if op in HEADS:
        _head(call)
    elif op == "Cast":
        note = cast_note(call)
        if note is not None and note not in walk.notes:
            walk.notes.append(note)
    elif op in SHAPES:
        rearrange(call)
    elif op == "Pad":
        pad(call)
    elif op in AFFINE:
        if walk.head is not None:
            raise _after_head(call)
        AFFINE[op](call)
    elif op not in _PASSING and not (op in ("Max", "Min", "Sum", "Mean") and len(node.input) == 1):
        raise refuse(call)
    if any(name and walk.graph.consumers.get(name) for name in node.output[1:]):
        raise UnsupportedError(f"{call.title} has several outputs that are read")
    walk.site.nodes.append(call.at)
    walk.move(node.output[0])


def _after_head(call: Call) -> UnsupportedError:
    return UnsupportedError(f"{call.title} comes after the output head {call.walk.head}; a head must be last")


def _head(call: Call) -> None:
    """A Softmax, LogSoftmax or ArgMax over all features."""
    walk, op = call.walk, call.node.op_type
    if walk.head is not None:
        raise _after_head(call)
    old = op != "ArgMax" and walk.graph.opset < 13
    axis = int(call.attributes.get("axis", 1 if old else 0 if op == "ArgMax" else -1))
    rank = len(walk.shape)
    if not -rank <= axis < rank:
        raise FormatError(f"{call.title}: axis {axis} of {rank} axes")
    axis %= rank
    seen = math.prod(walk.shape[axis:]) if old else walk.shape[axis]
    if seen != walk.size:
        raise UnsupportedError(f"{call.title} acts on axis {axis} of {walk.shape}; a head takes all features")
    if not walk.idle or not walk.layers:
        walk.close(activation("identity"), [], walk.current)
    if op == "ArgMax":
        keep = bool(call.attributes.get("keepdims", 1))
        walk.shape = tuple(n if k != axis else 1 for k, n in enumerate(walk.shape) if k != axis or keep)
    walk.head = HEADS[op]
