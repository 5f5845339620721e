"""Modules of torch that hold a data flow of their own: attention and transformer encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiberscope.training.adapters import torch_shapes as shapes
from fiberscope.training.adapters.torch_blocks import Attention, attention_of, stage_of
from fiberscope.training.adapters.torch_labels import Flow
from fiberscope.training.adapters.torch_shapes import Pair

if TYPE_CHECKING:
    from fiberscope.training.adapters.torch_graphs import Walk


def attention(walk: Walk, block: Attention, module: Any, inputs: Sequence[Any]) -> Any:
    """An attention layer: self-attention if it is given one value."""
    walk.plain = False
    flows = [x for x in inputs if isinstance(x, Flow)]
    several = type(module).__name__ == "MultiheadAttention"
    three = list(inputs[:3]) if several else [*inputs[:1]] * 3
    read: list[Flow | None] = []
    for x in [*three, *([None] * 3)][:3]:
        ok = isinstance(x, Flow) and shapes.is_last(x) and not x.packed
        if isinstance(x, Flow) and not ok:
            walk.drop(x, f"{block.path} reads along another axis than its channels")
        read.append(x if isinstance(x, Flow) and ok else None)
    for x in flows:
        if not any(x is r for r in read):
            walk.drop(x, f"read by {block.path} in a way that is not understood")
    if walk.masked and not block.guessed:
        block = replace(block, guessed=f"the mask given to {block.path} is the same for all its heads")
    out = walk.labels.fresh(block.path, block.out.n_out)
    writer = len(walk.labels.writers)
    block.label(walk.labels, (read[0], read[1], read[2]), out)
    flow = Flow(out, -1, None if read[0] is None else read[0].rank, writer=writer)
    return Pair((flow, None)) if several else flow


def encoder_layer(walk: Walk, x: Flow | None, module: Any, path: str) -> Flow | None:
    """nn.TransformerEncoderLayer."""
    block = attention_of(module.self_attn, f"{path}.self_attn", walk.names)

    def attend(y: Flow | None) -> Flow | None:
        if not isinstance(block, Attention):
            walk.labels.skip(f"{path}.self_attn", str(block))
            walk.drop(y, str(block))
            return None
        found = attention(walk, block, module.self_attn, [y, y, y])
        return found.items[0] if isinstance(found, Pair) else None

    def feed(y: Flow | None) -> Flow | None:
        inner = walk.linear(y, module.linear1, f"{path}.linear1")
        inner = walk.point(inner, stage_of(module.activation))
        return walk.linear(inner, module.linear2, f"{path}.linear2")

    for step, norm, title in ((attend, module.norm1, "norm1"), (feed, module.norm2, "norm2")):
        if module.norm_first:
            x = walk.add(x, step(walk.norm(x, norm, f"{path}.{title}")))
        else:
            x = walk.norm(walk.add(x, step(x)), norm, f"{path}.{title}")
    return x


def encoder(walk: Walk, x: Flow | None, module: Any, path: str) -> Flow | None:
    """nn.TransformerEncoder."""
    for k, layer in enumerate(module.layers):
        x = encoder_layer(walk, x, layer, f"{path}.layers.{k}")
    return x if module.norm is None else walk.norm(x, module.norm, f"{path}.norm")
