"""The data flow of a torch module, traced by torch.fx: which axis of every activation indexes which channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import UnsupportedError, import_optional
from fiberscope.io import torch as torch_io
from fiberscope.neurons import multiples
from fiberscope.training.adapters import torch_composites as composites
from fiberscope.training.adapters import torch_shapes as shapes
from fiberscope.training.adapters.torch_blocks import Attention, Names, attention_of, inputs_of, projection, stage_of
from fiberscope.training.adapters.torch_labels import Flow, Key, Labels, Stage
from fiberscope.training.adapters.torch_shapes import Pair, Weight
from fiberscope.training.architectures.architecture import Dense

Value = Flow | Weight | Pair | None
"""What is known of a node: a flow of channels, a parameter, several values, or nothing."""


def trace(module: Any, leaves: set[str]) -> Any:
    """The graph module of a module, attention layers and all of torch.nn kept whole.

    Raises:
        Exception: whatever the user's forward raises under tracing.
    """
    fx = import_optional("torch.fx", extra="torch", purpose="follow the data flow of torch modules")

    class Tracer(fx.Tracer):  # type: ignore[name-defined, misc]
        def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
            kind = type(m)
            known = kind.__name__ == "Conv1D" or kind.__module__ == "transformers.activations"
            return known or module_qualified_name in leaves or super().is_leaf_module(m, module_qualified_name)

    return fx.GraphModule(module, Tracer().trace(module))


class Walk:
    """One pass through a graph in the order of the data flow.

    Args:
        labels: where channels and slots are collected.
        module: the module that was traced; submodules are looked up in it.
        names: names of its parameters.
        prefix: path of the module in the whole model.
        sizes: shapes of the nodes' values, where known.
    """

    def __init__(
        self, labels: Labels, module: Any, names: Names, prefix: str = "", sizes: Mapping[Any, Any] | None = None
    ) -> None:
        self.labels = labels
        self.module = module
        self.names = names
        self.prefix = prefix
        self.sizes = sizes or {}
        self.values: dict[Any, Value] = {}
        self.line: list[tuple[Flow | None, int, Dense]] = []
        self.plain = True
        self.masked = False
        self.matrices: set[Any] = set()

    def run(self, graph: Any) -> None:
        """Follow every node of the graph."""
        for node in graph.nodes:
            if node.op == "output":
                self.values[node] = None
                self._output(node.args[0])
            elif node.op == "get_attr":
                self.values[node] = self._parameter(str(node.target))
            elif node.op == "call_module":
                self.values[node] = self._module(node)
            elif node.op in ("call_function", "call_method"):
                self.values[node] = self._function(node)
            else:
                self.values[node] = None

    # bookkeeping

    def value(self, item: Any) -> Value:
        """What is known of an argument."""
        return self.values.get(item) if hasattr(item, "op") else None

    def path(self, target: str) -> str:
        """The name of a submodule in the whole model."""
        return f"{self.prefix}.{target}" if self.prefix and target else self.prefix or target

    def shape(self, node: Any) -> tuple[int, ...] | None:
        """Shape of a node's value, None if not known."""
        found = self.sizes.get(node)
        return found if isinstance(found, tuple) else None

    def forget(self, node: Any, reason: str) -> None:
        """Pin every flow that a node reads: nothing is known of what it makes of them."""
        self.plain = False
        for item in node.all_input_nodes:
            self.drop(self.values.get(item), reason)

    def drop(self, value: Value, reason: str) -> None:
        """Pin the flows of a value."""
        if isinstance(value, Flow):
            self.labels.touch(value)
            self.labels.pin(value.group, reason)
        elif isinstance(value, Weight):
            if value.name not in {s.name for s in self.labels.skipped}:
                self.labels.skip(value.name, reason)
        elif isinstance(value, Pair):
            for item in value.items:
                self.drop(item, reason)

    def _output(self, item: Any) -> None:
        if isinstance(item, tuple | list):
            self.plain = False
            for part in item:
                self._output(part)
        elif isinstance(item, dict):
            self._output(list(item.values()))
        else:
            self.drop(self.value(item), "output")
            self.final = self.value(item)

    def _parameter(self, target: str) -> Value:
        owner: Any = self.module
        for part in target.split("."):
            owner = getattr(owner, part, None)
        name = self.names.get(id(owner))
        return None if name is None else Weight(name, tuple(int(n) for n in owner.shape))

    # modules

    def _module(self, node: Any) -> Value:
        module = self.module.get_submodule(str(node.target))
        kind, path = type(module).__name__, self.path(str(node.target))
        x = self.value(node.args[0]) if node.args else self.value(next(iter(node.kwargs.values()), None))
        if isinstance(x, Pair):
            x = x.items[0] if x.items else None
        self.masked = self._has_mask(node, kind)
        row = _MODULES.get(kind)
        if row is None:
            block = attention_of(module, path, self.names)
            if node.kwargs.get("average_attn_weights") is False:
                block = f"{path} hands out the weights of each head"
            if isinstance(block, Attention):
                names = [n for n in ("query", "key", "value") if n in node.kwargs]
                rest = [v for k, v in node.kwargs.items() if k not in names]
                inputs = [self.value(a) for a in (*node.args, *(node.kwargs[n] for n in names), *rest)]
                attended: Value = composites.attention(self, block, module, inputs)
                return attended
            stage = stage_of(module)
            if not any(True for _ in module.parameters()) and (stage != "pointwise" or kind in _POINTWISE):
                return self.point(x, stage, path)
            reason = block or f"{kind} {path} is not understood"
            self.forget(node, reason)
            for name in {self.names[id(p)] for p in module.parameters() if id(p) in self.names}:
                self.drop(Weight(name, ()), reason)
            return None
        if isinstance(x, Weight):
            self.drop(x, f"read by {kind} {path}")
            x = None
        if self.shape(node.args[0] if node.args else None) is not None:
            x = shapes.ranked(x, self.shape(node.args[0]))
        found: Value = row(self, x, module, path)
        if found is None and kind == "Flatten" and (module.start_dim, module.end_dim) == (1, -1):
            self.matrices.add(node)
        if isinstance(found, Flow) and found.rank is None and node.args and node.args[0] in self.matrices:
            found = shapes.ranked(found, (0, 0))  # a dense layer behind a flattened input makes a matrix
        return found

    def _has_mask(self, node: Any, kind: str) -> bool:
        """Whether attention is given a mask that may differ between its heads."""
        place = {"MultiheadAttention": 5, "TransformerEncoderLayer": 1, "TransformerEncoder": 1}.get(kind)
        if place is None:
            return False
        given = [node.kwargs.get(name) for name in ("attn_mask", "src_mask", "mask")] + list(node.args[place:][:1])
        return any(m is not None and (self.shape(m) is None or len(self.shape(m) or ()) > 2) for m in given)

    def linear(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """A dense layer: along the last axis."""
        row = projection(module, self.names)
        if row is None:
            self.drop(x, f"the weight of {path} is computed, not a parameter")
            return None
        if x is not None and not shapes.is_last(x):
            self.drop(x, f"{path} acts along another axis than its channels")
            x = None
        ins = inputs_of(self.labels, x, row.n_in, path)
        out = self.labels.fresh(path, row.n_out)
        keys = row.slots(self.labels, ((row.n_out, (out, "in")),), ins)
        writer = self.labels.write(out, keys)
        if x is not None:
            self.labels.read(x, keys[0])
        if not row.transposed:
            self.line.append((x, out, Dense(row.weight, row.bias, find_activation("identity"))))
        else:
            self.plain = False
        return Flow(out, -1, None if x is None else x.rank, writer=writer)

    def conv(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """A convolution; depthwise ones tie their inputs to their outputs."""
        self.plain = False
        weight, bias, groups = module.weight, module.bias, int(module.groups)
        if id(weight) not in self.names or (bias is not None and id(bias) not in self.names):
            self.drop(x, f"the weight of {path} is computed, not a parameter")
            return None
        shape = tuple(int(n) for n in weight.shape)
        rank = len(shape)
        if x is not None and (x.packed or not shapes.same_axis(x, 1, rank)):
            self.drop(x, f"{path} convolves over the axis of its channels")
            x = None
        rest = [None] * (rank - 2)
        depthwise = groups > 1 and groups == shape[0] == module.in_channels
        out = x.group if depthwise and x is not None else self.labels.fresh(path, shape[0], "channels")
        if groups > 1 and not depthwise:
            self.drop(x, f"{path} reads its channels in {groups} groups")
            self.labels.pin(out, f"{path} makes its channels in {groups} groups")
        if depthwise and x is None:
            self.labels.pin(out, f"{path} ties its channels to values that cannot be exchanged, such as inputs")
        name = self.names[id(weight)]
        if groups == 1 and x is not None:
            key = self.labels.slot(name, shape, [(out, "in"), (x.group, "out"), *rest])
            self.labels.read(x, key)
        else:
            key = self.labels.slot(name, shape, [(out, "in"), None, *rest])
        keys = [key]
        if bias is not None:
            keys.append(self.labels.slot(self.names[id(bias)], (shape[0],), [(out, "in")]))
        if depthwise and x is not None:
            self.labels.touch(x)
            self.labels.of(out).mixed = True
            self.labels.writers.append(type(self.labels.writers[0])(out, tuple(keys)))
            return Flow(out, 1, rank, stages=(), writer=len(self.labels.writers) - 1)
        return Flow(out, 1, rank, writer=self.labels.write(out, keys))

    def norm(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """A normalisation with gains and shifts for the channels of one axis."""
        self.plain = False
        kind = type(module).__name__
        batch = kind.startswith(("BatchNorm", "InstanceNorm", "SyncBatchNorm"))
        # BatchNorm1d takes (samples, channels) and (samples, channels, places), the others one kind of tensors
        rank = None if kind == "BatchNorm1d" or kind[-1] != "d" else 2 + int(kind[-2])
        tensors = [t for t in (getattr(module, "weight", None), getattr(module, "bias", None)) if t is not None]
        reason = ""
        if kind == "GroupNorm" and module.num_groups not in (1, module.num_channels):
            reason = f"{path} normalises its channels in {module.num_groups} groups"
        elif kind in ("LayerNorm", "RMSNorm") and len(module.normalized_shape) > 1:
            reason = f"{path} normalises over several axes at once"
        elif any(id(t) not in self.names for t in tensors):
            reason = f"the gain of {path} is computed, not a parameter"
        elif x is not None and kind in ("LayerNorm", "RMSNorm") and (not shapes.is_last(x) or x.packed):
            reason = f"{path} normalises over another axis than its channels"
        elif x is not None and kind not in ("LayerNorm", "RMSNorm") and (x.packed or not shapes.same_axis(x, 1, rank)):
            reason = f"{path} normalises over another axis than its channels"
        count = tensors[0].shape[0] if tensors and tensors[0].dim() == 1 else None
        if not reason and x is not None and count not in (None, self.labels.of(x.group).count):
            reason = f"{path} has {count} gains for {self.labels.of(x.group).count} channels"
        if reason:
            self.drop(x, reason)
            x = None
        keys: list[Key] = []
        for t in tensors:
            if id(t) in self.names:
                side = [None] * t.dim() if x is None else [(x.group, "in")]
                keys.append(self.labels.slot(self.names[id(t)], tuple(int(n) for n in t.shape), side))  # type: ignore[arg-type]
        if x is None:
            return None
        alone = batch or (kind == "GroupNorm" and module.num_groups == module.num_channels)
        if x.rank is None and rank is None and x.axis == -1 and kind not in ("LayerNorm", "RMSNorm"):
            self.labels.guess(x.group, f"{path} is given a matrix (samples, channels)")
        if batch and module.__dict__.get("fixed_statistics"):
            return self._fixed(x, module, path, keys)
        self.labels.touch(x, normalised=alone)
        group = self.labels.of(x.group)
        group.gains += keys
        group.null = group.null and alone
        return self.staged(x, "batch" if alone else "layer")

    def _fixed(self, x: Flow, module: Any, path: str, keys: list[Key]) -> Flow:
        """A normalisation with fixed statistics: an affine map, the same for all channels only if they are."""
        self.labels.touch(x)
        group = self.labels.of(x.group)
        group.gains += keys
        group.null = False
        if any(bool((t != t[0]).any()) for t in (module.running_mean, module.running_var)):
            self.labels.pin(x.group, f"{path} has fixed statistics of its own for every channel (evaluation mode)")
        return self.staged(x, "pointwise")

    def staged(self, x: Flow, stage: Stage) -> Flow:
        """The flow behind one more stage."""
        return Flow(x.group, x.axis, x.rank, x.packed, (*x.stages, stage), x.writer)

    def point(self, x: Value, stage: Stage, path: str = "") -> Flow | None:
        """A function that acts on every entry by itself."""
        if not isinstance(x, Flow):
            self.drop(x, "a function of it is used")
            self.plain = self.plain and stage == "drop"
            return None
        if stage != "drop":
            self.labels.touch(x)
        if stage == "pointwise" or (isinstance(stage, Activation) and not multiples(stage).null):
            self.labels.of(x.group).null = False
        return self.staged(x, stage)

    def activation(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """An activation module of torch.nn."""
        try:
            return self.point(x, torch_io._row_of(module, np.float32), path)
        except UnsupportedError:
            return self.point(x, "pointwise", path)

    def slope(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """nn.PReLU: one slope for all channels, or one for each along axis 1."""
        self.plain = False
        name, count = self.names.get(id(module.weight)), int(module.weight.shape[0])
        reason = "its slope is computed, not a parameter" if name is None else ""
        if x is not None and count > 1:
            if x.packed or not shapes.same_axis(x, 1, None) or count != self.labels.of(x.group).count:
                reason = reason or f"{path} has its slopes along another axis than its channels"
            elif x.rank is None and x.axis == -1:
                self.labels.guess(x.group, f"{path} is given a matrix (samples, channels)")
        if reason:
            self.drop(x, reason)
            x = None
        if name is not None:
            self.labels.slot(name, (count,), [(x.group, "in") if x is not None and count > 1 else None])
        if x is None:
            return None
        self.labels.touch(x)
        return self.staged(x, "slope")

    def softmax(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """Softmax treats all channels alike; as a head it ends a chain."""
        if x is not None:
            self.labels.touch(x)
            self.labels.of(x.group).null = False
        return None if x is None else self.staged(x, "layer")

    def pool(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """Pooling over the axes behind the channels."""
        self.plain = False
        if x is None:
            return None
        rank = 2 + int(type(module).__name__[-2])
        if x.packed or not shapes.same_axis(x, 1, rank):
            self.drop(x, f"{path} pools over the axis of its channels")
            return None
        self.labels.touch(x)
        largest = "Max" in type(module).__name__
        return self.staged(x, "max" if largest else "drop")

    def flatten(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """nn.Flatten."""
        return self._flat(x, int(module.start_dim), int(module.end_dim), path)

    def _flat(self, x: Flow | None, start: int, end: int, who: str) -> Flow | None:
        if x is None:
            self.plain = self.plain and start == 1 and end == -1
            return None
        found = shapes.flattened(x, start, end)
        if found is None:
            self.drop(x, f"{who} mixes its channels with other axes")
        return found

    def same(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """Nothing happens at inference."""
        return x if x is None else self.staged(x, "drop")

    def embedding(self, x: Flow | None, module: Any, path: str) -> Flow | None:
        """A table whose columns are channels."""
        self.plain = False
        self.drop(x, f"read as indices by {path}")
        name = self.names.get(id(module.weight))
        if name is None:
            return None
        rows, count = (int(n) for n in module.weight.shape)
        group = self.labels.fresh(path, count)
        key = self.labels.slot(name, (rows, count), [None, (group, "in")])
        return Flow(group, -1, None, writer=self.labels.write(group, [key]))

    # functions

    def _function(self, node: Any) -> Value:
        from fiberscope.training.adapters import torch_functions

        found: Value = torch_functions.call(self, node)
        return found

    def add(self, a: Value, b: Value) -> Flow | None:
        """A sum ties channel to channel."""
        self.plain = False
        return self.tie(a, b, "a sum")

    def tie(self, a: Value, b: Value, how: str) -> Flow | None:
        """Two values met entry by entry: tied channels, or pinned if one side's entries stand for themselves."""
        self.plain = False
        for x, y in ((a, b), (b, a)):
            if isinstance(x, Flow) and isinstance(y, Weight):
                return self._with_parameter(x, y, how)
        if isinstance(a, Flow) and isinstance(b, Flow):
            if a.packed != b.packed or not shapes.same_place(a, b):
                for x in (a, b):
                    self.drop(x, f"{how} meets it along another axis")
                return None
            self.labels.touch(a)
            self.labels.touch(b)
            gate = self._gate(a, b) if how == "a product" else ()
            group = self.labels.join(a.group, b.group, how)
            stages: tuple[Stage, ...] = ("gated",) if gate else (*a.stages, *b.stages, "tied")
            if gate:
                self.labels.of(group).gate = gate
            return Flow(group, a.axis, a.rank if a.rank is not None else b.rank, a.packed, stages)
        for x in (a, b):
            self.drop(x, f"it meets values in {how} that cannot be exchanged, such as inputs or constants")
        return None

    def _gate(self, a: Flow, b: Flow) -> tuple[int, ...]:
        """Writers whose output enters a product as it is, if nothing else reads either factor."""
        plain = [self.labels.of(x.group) for x in (a, b)]
        single = all(not g.mixed and len(g.writers) == 1 and not g.reads for g in plain)
        if not single or plain[0] is plain[1]:
            return ()
        return tuple(x.writer for x in (a, b) if x.writer >= 0 and not any(s != "drop" for s in x.stages))

    def _with_parameter(self, x: Flow, weight: Weight, how: str) -> Flow | None:
        """A gain or shift that is a parameter of the module itself, broadcast against the flow."""
        self.labels.touch(x)
        count = self.labels.of(x.group).count
        axis = shapes.axis_from_end(x)
        place = None if axis is None else len(weight.shape) + axis
        if x.packed or place is None:
            self.drop(x, f"{how} with {weight.name} along an axis that is not known")
            self.drop(weight, f"{how} along an axis that is not known")
            return None
        axes: list[Any] = [None] * len(weight.shape)
        if place >= 0 and weight.shape[place] == count:
            axes[place] = (x.group, "in")
        elif place >= 0 and weight.shape[place] != 1:
            self.drop(x, f"{how} with {weight.name} of shape {weight.shape}")
        self.labels.slot(weight.name, weight.shape, axes)
        group = self.labels.of(x.group)
        group.mixed = True
        group.null = group.null and any(a is not None for a in axes)
        return self.staged(x, "tied")

    # the whole

    def chain(self) -> list[Dense]:
        """The layers, if the walk met nothing but dense layers one behind the other, else nothing."""
        if not self.plain or not self.line or len({d.weight for _, _, d in self.line}) != len(self.line):
            return []
        out: list[Dense] = []
        for k, (x, _, dense) in enumerate(self.line):
            after = self.line[k + 1][0] if k + 1 < len(self.line) else getattr(self, "final", None)
            if (k == 0) != (x is None) or not isinstance(after, Flow) or after.group != self.line[k][1] or after.packed:
                return []
            last = k + 1 == len(self.line)
            rows = [s for s in after.stages if s != "drop" and not (last and s == "layer")]
            if len(rows) > 1 or any(isinstance(s, str) for s in rows):
                return []
            row = rows[0] if rows else find_activation("identity")
            out.append(Dense(dense.weight, dense.bias, row))  # type: ignore[arg-type]
        return out


_MODULES: dict[str, Callable[[Walk, Flow | None, Any, str], Any]] = {
    **dict.fromkeys(("Linear", "NonDynamicallyQuantizableLinear", "Conv1D"), Walk.linear),
    **{f"Conv{k}d": Walk.conv for k in (1, 2, 3)},
    **{f"{kind}{k}d": Walk.norm for k in (1, 2, 3) for kind in ("BatchNorm", "InstanceNorm")},
    **dict.fromkeys(("SyncBatchNorm", "LayerNorm", "GroupNorm", "RMSNorm"), Walk.norm),
    **{f"{kind}Pool{k}d": Walk.pool for k in (1, 2, 3) for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax")},
    **dict.fromkeys(("Softmax", "LogSoftmax", "Softmax2d"), Walk.softmax),
    **dict.fromkeys(torch_io._ACTIVATION_MODULES, Walk.activation),
    **dict.fromkeys(("Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"), Walk.same),
    "Flatten": Walk.flatten,
    "PReLU": Walk.slope,
    "Embedding": Walk.embedding,
    "TransformerEncoderLayer": composites.encoder_layer,
    "TransformerEncoder": composites.encoder,
}
_POINTWISE = frozenset({
    "Hardswish", "Hardsigmoid", "Mish", "SELU", "CELU", "LogSigmoid", "Softsign", "Tanhshrink", "Softshrink",
    "Hardshrink", "Threshold", "QuickGELUActivation", "FastGELUActivation", "ClippedGELUActivation",
    "ReLUSquaredActivation", "Softplus", "LaplaceActivation", "MishActivation",
})  # fmt: skip
"""Modules that act entry by entry but have no row of their own."""
