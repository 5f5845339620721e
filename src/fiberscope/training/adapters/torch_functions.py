"""What functions and methods of torch do to the channels of their arguments, for the data flow of a traced module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiberscope.activations import activation as find_activation
from fiberscope.io.chains import clip_row, exact_parameter
from fiberscope.training.adapters import torch_shapes as shapes
from fiberscope.training.adapters.torch_labels import Flow
from fiberscope.training.adapters.torch_shapes import Pair, Weight

if TYPE_CHECKING:
    from fiberscope.training.adapters.torch_graphs import Walk

_PLAIN = frozenset({"relu", "tanh", "sigmoid", "silu", "sin", "cos", "erf", "abs", "square"})
_OTHER = frozenset({
    "softplus", "mish", "hardswish", "hardsigmoid", "selu", "celu", "elu", "logsigmoid", "softsign", "exp", "log",
    "sqrt", "rsqrt", "clamp", "clip", "sign", "pow", "neg", "log1p", "expm1", "atan", "sinh", "cosh", "hardtanh",
})  # fmt: skip
_SAME = frozenset({
    "contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type", "cuda", "cpu", "type_as",
    "alias", "identity", "requires_grad_",
})  # fmt: skip
_SIZES = frozenset({"size", "dim", "numel", "ndimension", "__len__", "is_floating_point"})


def name_of(node: Any) -> str:
    """Name of the function or method of a node, without the trailing underscore of in-place ones."""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    name = name if name.startswith("__") else name.rstrip("_")
    return {"iadd": "add", "imul": "mul", "__add__": "add", "__mul__": "mul", "truediv": "div"}.get(name, name)


def call(walk: Walk, node: Any) -> Any:
    """What is known of the value of a node that calls a function."""
    name = name_of(node)
    args = [walk.value(a) for a in node.args]
    x = args[0] if args else walk.value(node.kwargs.get("input"))
    if node.args and isinstance(x, Flow):
        x = shapes.ranked(x, walk.shape(node.args[0]))
    if name in _SIZES or (name == "getattr" and node.args[1] in ("shape", "ndim", "device", "dtype", "is_cuda")):
        return None
    if name == "getitem" and isinstance(x, Pair) and isinstance(node.args[1], int):
        return x.items[node.args[1]]
    if name in ("getattr", "t", "transpose", "permute", "movedim", "swapaxes") and isinstance(x, Weight):
        return _flipped(walk, node, name, x)
    rule = _RULES.get(name)
    if rule is not None:
        return rule(walk, node, x, args)
    if not any(isinstance(walk.values.get(n), Flow | Weight | Pair) for n in node.all_input_nodes):
        walk.plain = False
        return None
    walk.forget(node, f"read by the function {name}, which is not understood")
    return None


def argument(node: Any, position: int, name: str, default: Any = None) -> Any:
    """An argument by place or name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _flipped(walk: Walk, node: Any, name: str, x: Weight) -> Any:
    turned = name == "t" or (name == "getattr" and node.args[1] in ("T", "mT")) or name in ("transpose", "permute")
    if turned and len(x.shape) == 2:
        return replace(x, flipped=not x.flipped)
    walk.drop(x, f"its {name} is used")
    return None


def _point(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    name = name_of(node)
    extra = [v for k, v in node.kwargs.items() if k not in ("inplace", "input")] + list(node.args[1:])
    if name in _PLAIN and not extra:
        return walk.point(x, find_activation(name))
    if name == "gelu":
        kind = argument(node, 1, "approximate", "none")
        return walk.point(x, find_activation("gelu" if kind == "none" else "gelu_tanh"))
    if name == "leaky_relu":
        slope = argument(node, 1, "negative_slope", 0.01)
        return walk.point(x, find_activation("leaky_relu", exact_parameter(slope, "float32", name)))
    if name == "relu6":
        return walk.point(x, clip_row(*(exact_parameter(v, "float32", name) for v in (0.0, 6.0))))
    if name in ("clamp_min",) and list(extra) == [0]:
        return walk.point(x, find_activation("relu"))
    return walk.point(x, "pointwise")


def _add(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    other = argument(node, 1, "other")
    if isinstance(other, int | float) or isinstance(node.args[0], int | float):
        walk.plain = False
        return walk.point(x if x is not None else walk.value(other), "pointwise")
    wide = _broadcast(walk, node, x)
    if wide is not None:
        walk.labels.of(wide.group).mixed = True
        return walk.point(wide, "pointwise")
    return walk.add(x, _second(walk, node))


def _second(walk: Walk, node: Any) -> Any:
    item = argument(node, 1, "other")
    return shapes.ranked(walk.value(item), walk.shape(item))


def _broadcast(walk: Walk, node: Any, x: Any) -> Flow | None:
    """The flow of two operands whose other one has the same entry for every channel, None if there is none."""
    pair = [node.args[0] if node.args else None, argument(node, 1, "other")]
    values = [x, _second(walk, node)]
    for k in (0, 1):
        flow, other, shape = values[k], values[1 - k], walk.shape(pair[1 - k])
        if isinstance(flow, Flow) and other is None and shape is not None and not flow.packed:
            end = shapes.axis_from_end(flow)
            if end is not None and (len(shape) + end < 0 or shape[end] == 1) and walk.labels.of(flow.group).count > 1:
                walk.plain = False
                return flow
    return None


def _product(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    other = argument(node, 1, "other")
    number = next((v for v in (other, node.args[0]) if isinstance(v, int | float)), None)
    if number is not None:
        walk.plain = False
        return _scaled(walk, x if x is not None else walk.value(other), number > 0)
    wide = _broadcast(walk, node, x)
    return walk.tie(x, _second(walk, node), "a product") if wide is None else _scaled(walk, wide, False)


def _scaled(walk: Walk, x: Any, positive: bool) -> Any:
    """A factor; in front of an activation its sign matters, behind all of them it does not."""
    before = isinstance(x, Flow) and all(isinstance(s, str) and s not in ("gated", "slope", "tied") for s in x.stages)
    return walk.point(x, "turned" if before and not positive else "drop")


def _quotient(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    number = argument(node, 1, "other")
    if isinstance(number, int | float):
        walk.plain = False
        return _scaled(walk, x, number > 0)
    walk.forget(node, "divided by, or divides, other values")
    return None


def _view(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    raw = node.args[1:] if len(node.args) > 1 else (node.kwargs.get("shape", node.kwargs.get("size", ())),)
    sizes = list(raw[0]) if len(raw) == 1 and isinstance(raw[0], tuple | list) else list(raw)
    if not isinstance(x, Flow):
        flat = len(sizes) == 2 and sizes[1] == -1
        walk.plain = walk.plain and flat
        walk.drop(x, "it is reshaped")
        return None
    before, after = walk.shape(node.args[0]), walk.shape(node)
    if before is not None and after is not None:
        found = shapes.reshaped(x, walk.labels.of(x.group).count, before, after)
    elif len(sizes) == 2 and sizes[1] == -1:
        found = shapes.flattened(x, 1, -1)
    elif len(sizes) == 2 and sizes[0] == -1 and x.axis == -1 and not isinstance(sizes[1], int):
        found = replace(x, rank=2)  # x.view(-1, x.size(-1))
    else:
        found = None
    if found is None:
        walk.drop(x, f"reshaped to {', '.join(str(s) for s in sizes)}, which does not keep its channels together")
    return found


def _flatten(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    start, end = argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1)
    if isinstance(x, Weight):
        walk.drop(x, "it is reshaped")
        return None
    return walk._flat(x, int(start), int(end), "flatten")


def _permute(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    walk.plain = False
    if not isinstance(x, Flow):
        return None
    raw = node.args[1:]
    order = list(raw[0]) if len(raw) == 1 and isinstance(raw[0], tuple | list) else list(raw)
    found = None
    if x.rank is not None and all(isinstance(a, int) for a in order):
        if name_of(node) in ("transpose", "swapaxes"):
            a, b = (i % x.rank for i in order[:2])
            order = list(range(x.rank))
            order[a], order[b] = order[b], order[a]
        found = shapes.permuted(x, order, x.rank) if len(order) == x.rank else None
    elif name_of(node) in ("transpose", "swapaxes") and all(isinstance(a, int) for a in order):
        if sorted(order) in ([-2, -1], [1, 2]) and x.axis == -1 and -1 in order:
            found = replace(x, axis=-2)
    if found is None:
        walk.drop(x, "its axes are put in another order, which is not understood")
    return found


def _reduce(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    walk.plain = False
    if not isinstance(x, Flow):
        walk.drop(x, f"its {name_of(node)} is used")
        return None
    axes = argument(node, 1, "dim")
    dims = [axes] if isinstance(axes, int) else list(axes) if isinstance(axes, tuple | list) else None
    keep = bool(argument(node, 2, "keepdim", False))
    found = None if dims is None else shapes.reduced(x, dims, keep)
    walk.labels.touch(x)
    if found is None:
        walk.drop(x, f"its {name_of(node)} over axes {axes} is used")
        return None
    return walk.staged(found, "drop" if name_of(node) in ("mean", "sum") else "max")


def _item(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    walk.plain = False
    if not isinstance(x, Flow):
        walk.drop(x, "entries of it are used")
        return None
    found = shapes.indexed(x, node.args[1])
    if found is None:
        walk.drop(x, "entries of it are used")
        return None
    walk.labels.touch(x)
    return walk.staged(found, "drop")


def _cat(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    """Joined behind each other along another axis, channels are tied; along their own they stand for themselves."""
    walk.plain = False
    items = node.args[0] if node.args else node.kwargs.get("tensors", ())
    axis = argument(node, 1, "dim", 0)
    values = [shapes.ranked(walk.value(i), walk.shape(i)) for i in items]
    flows = [v for v in values if isinstance(v, Flow)]
    fits = bool(flows) and isinstance(axis, int) and not any(f.packed for f in flows)
    fits = fits and all(shapes.same_place(flows[0], f) for f in flows)
    if fits:
        front, end = shapes.axis_from_front(flows[0]), shapes.axis_from_end(flows[0])
        own = axis == (front if axis >= 0 else end)
        fits = not own and (front if axis >= 0 else end) is not None
    if not fits or any(v is None for v in values):
        walk.forget(node, f"concatenated along axis {axis}")
        return None
    out = flows[0]
    for value in values:
        if value is not out:
            tied = walk.tie(out, value, "a concatenation")
            if tied is None:
                return None
            out = tied
    return out


def _expand(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    if isinstance(x, Weight):
        return x  # broadcast along axes of length 1: aligned from the end like any parameter
    walk.forget(node, "expanded")
    return None


def _linear(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    """F.linear(x, w, b), x @ w and x @ w.T with a parameter of the module itself."""
    walk.plain = False
    weight = walk.value(argument(node, 1, "weight", node.kwargs.get("other")))
    bias = walk.value(argument(node, 2, "bias")) if name_of(node) == "linear" else None
    if not isinstance(weight, Weight) or len(weight.shape) != 2 or isinstance(x, Weight | Pair):
        walk.forget(node, "multiplied by other values")
        return None
    by_rows = (name_of(node) == "linear") != weight.flipped
    n_out, n_in = weight.shape if by_rows else weight.shape[::-1]
    if isinstance(x, Flow) and (not shapes.is_last(x) or walk.labels.of(x.group).count != n_in or x.packed):
        walk.drop(x, f"{weight.name} acts along another axis than its channels")
        x = None
    path = weight.name
    group = walk.labels.fresh(path, n_out)
    axes: list[Any] = [(group, "in"), None if x is None else (x.group, "out")]
    key = walk.labels.slot(weight.name, weight.shape, axes if by_rows else axes[::-1])
    keys = [key]
    if isinstance(bias, Weight):
        keys.append(walk.labels.slot(bias.name, bias.shape, [(group, "in")]))
    if x is not None:
        walk.labels.read(x, key)
    return Flow(group, -1, None if x is None else x.rank, writer=walk.labels.write(group, keys))


def _embedding(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    walk.plain = False
    table = walk.value(argument(node, 1, "weight"))
    walk.drop(x, "read as indices")
    if not isinstance(table, Weight) or len(table.shape) != 2:
        return None
    group = walk.labels.fresh(table.name, table.shape[1])
    key = walk.labels.slot(table.name, table.shape, [None, (group, "in")])
    return Flow(group, -1, None, writer=walk.labels.write(group, [key]))


def _pool(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    walk.plain = False
    name = name_of(node)
    if not isinstance(x, Flow):
        return None
    rank = 2 + int(name[-2]) if name[-2:] in ("1d", "2d", "3d") else 4
    if x.packed or not shapes.same_axis(x, 1, rank):
        walk.drop(x, f"{name} pools over the axis of its channels")
        return None
    walk.labels.touch(x)
    return walk.staged(x, "max" if "max" in name else "drop")


def _softmax(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    return walk.softmax(x if isinstance(x, Flow) else None, None, "")


def _keep(walk: Walk, node: Any, x: Any, args: Sequence[Any]) -> Any:
    return walk.staged(x, "drop") if isinstance(x, Flow) else x


_RULES: dict[str, Callable[[Any, Any, Any, Sequence[Any]], Any]] = {
    **dict.fromkeys((*_PLAIN, *_OTHER, "gelu", "leaky_relu", "relu6", "clamp_min"), _point),
    **dict.fromkeys((*_SAME, "dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout"), _keep),
    **dict.fromkeys(("add", "sub", "subtract", "rsub"), _add),
    **dict.fromkeys(("mul", "multiply"), _product),
    **dict.fromkeys(("div", "divide"), _quotient),
    **dict.fromkeys(("view", "reshape"), _view),
    **dict.fromkeys(("permute", "transpose", "swapaxes"), _permute),
    **dict.fromkeys(("mean", "sum", "amax"), _reduce),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(("linear", "matmul"), _linear),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    "expand": _expand,
    **dict.fromkeys(
        tuple(f"{kind}_pool{k}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for k in (1, 2, 3)), _pool
    ),
    "flatten": _flatten,
    "getitem": _item,
    "embedding": _embedding,
}
