"""Edits of an ONNX model in place: tensors replaced, nodes replaced, leftovers pruned, the float dtype changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io.onnx_graph import FLOATS, decode, onnx_module, shown
from fiberscope.io.onnx_write import element_type, exactly

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

ExactArray = npt.NDArray[Any]


class Editor:
    """A model under edit.

    Args:
        model: changed in place.
        dtype: float dtype of everything that is written.
        folder: where external data may lie.
    """

    def __init__(self, model: ModelProto, dtype: npt.DTypeLike, folder: Path | None) -> None:
        self.onnx = onnx_module()
        self.model, self.graph, self.folder = model, model.graph, folder
        self.dtype, self.kind = np.dtype(dtype), element_type(dtype)
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.nodes: dict[int, list[NodeProto]] = {k: [node] for k, node in enumerate(self.graph.node)}
        self.names = {name for node in self.graph.node for name in (*node.input, *node.output, node.name)}
        self.names |= {value.name for value in (*self.graph.input, *self.graph.output)}
        self.names |= {tensor.name for tensor in self.graph.initializer}
        self.used_before = self._reachable()

    def fresh(self, name: str) -> str:
        """A name the model does not have, `name` if possible."""
        out, k = name, 1
        while out in self.names or not out:
            k += 1
            out = f"{name}_{k}"
        self.names.add(out)
        return out

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
        """A new node, not placed yet."""
        make: Any = self.onnx.helper.make_node
        made: NodeProto = make(op, list(inputs), [output], name=self.fresh(f"{output}_{op}"), **attributes)
        return made

    def tensor(self, name: str, array: ExactArray, what: str) -> str:
        """Add an initialiser in the dtype of the model (integers as they are)."""
        fitting = array if array.dtype.kind == "i" else exactly(array, self.dtype, what)
        made = self.onnx.numpy_helper.from_array(np.array(fitting, order="C"), self.fresh(name))
        self.graph.initializer.append(made)
        if self.model.ir_version < 4:  # then initialisers must be inputs too
            value = self.onnx.helper.make_tensor_value_info(made.name, made.data_type, list(fitting.shape))
            self.graph.input.append(value)
        return str(made.name)

    def stored(self, name: str) -> TensorProto | None:
        """The initialiser or Constant node's tensor of a name."""
        for tensor in self.graph.initializer:
            if tensor.name == name:
                return tensor
        for node in self.graph.node:
            if node.op_type == "Constant" and name in node.output:
                return next((a.t for a in node.attribute if a.name == "value"), None)
        return None

    def put(self, name: str, array: ExactArray, what: str) -> None:
        """Replace a tensor of the file.

        Raises:
            InputError: if a number is no value of the dtype.
            UnsupportedError: if the tensor is not stored as a tensor.
        """
        target = self.stored(name)
        if target is None:
            raise UnsupportedError(f"tensor {shown(name)} is not stored as a tensor that can be replaced")
        fitting = array if array.dtype.kind == "i" else exactly(array, self.dtype, what)
        kept = target.name
        target.CopyFrom(self.onnx.numpy_helper.from_array(np.array(fitting, order="C"), kept))
        for value in self.graph.input:  # old models list their initialisers as inputs too
            if value.name == name:
                made = self.onnx.helper.make_tensor_value_info(name, target.data_type, list(array.shape))
                value.type.CopyFrom(made.type)

    def finish(self) -> bytes:
        """The edited model: nodes in place, what nobody reads any more removed, one float dtype."""
        order = [node for k in sorted(self.nodes) for node in self.nodes[k]]
        del self.graph.node[:]
        self.graph.node.extend(order)
        self._prune()
        self._convert()
        del self.graph.value_info[:]
        return bytes(self.model.SerializeToString(deterministic=True))

    def _reachable(self) -> set[str]:
        """Tensors the outputs depend on."""
        makers = {name: node for node in self.graph.node for name in node.output if name}
        seen: set[str] = set()
        stack = [value.name for value in self.graph.output]
        while stack:
            name = stack.pop()
            if name and name not in seen:
                seen.add(name)
                if name in makers:
                    stack.extend(makers[name].input)
        return seen

    def _prune(self) -> None:
        """Remove what was used before the edits and is not now."""
        lost = self.used_before - self._reachable()
        dead = [k for k, n in enumerate(self.graph.node) if n.output and all(o in lost or not o for o in n.output)]
        for k in reversed(dead):
            del self.graph.node[k]
        for container in (self.graph.initializer, self.graph.input):
            items = list(container)
            for k in range(len(items) - 1, -1, -1):
                if items[k].name in lost:
                    del container[k]
        known = {v.name for v in (*self.graph.input, *self.graph.initializer)} | {""}
        for node in self.graph.node:
            if any(name not in known for name in node.input):
                raise UnsupportedError(f"{shown(node.name or node.op_type)} still needs what was replaced")
            known.update(node.output)

    def _convert(self) -> None:
        """Bring all float tensors to the dtype; inputs and outputs keep theirs behind Cast nodes."""
        used = self._reachable()
        tensors = [t for t in self.graph.initializer if t.name in used]
        tensors += [a.t for n in self.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
        outer = [v for v in (*self.graph.input, *self.graph.output) if self._kind(v) in FLOATS]
        stored = {t.name for t in self.graph.initializer}
        for tensor in tensors:
            external = tensor.data_location == 1
            if (tensor.data_type in FLOATS and tensor.data_type != self.kind) or external:
                array, kept = decode(tensor, self.folder), tensor.name
                fitting = exactly(array, self.dtype, f"tensor {shown(kept)}") if array.dtype.kind == "f" else array
                tensor.CopyFrom(self.onnx.numpy_helper.from_array(np.array(fitting, order="C"), kept))
        for value in outer:
            if value.name in stored:
                value.type.tensor_type.elem_type = self.kind
        self._cast([v for v in outer if v.name not in stored and self._kind(v) != self.kind])

    @staticmethod
    def _kind(value: Any) -> int:
        return int(value.type.tensor_type.elem_type)

    def _cast(self, ends: Sequence[Any]) -> None:
        """Cast at inputs and outputs of another dtype, and let inner casts go to the new one."""
        if not ends:
            return
        for node in self.graph.node:
            if node.op_type == "Cast":
                for a in node.attribute:
                    if a.name == "to" and a.i in FLOATS:
                        a.i = self.kind
        outputs = {v.name for v in self.graph.output}
        for value in ends:
            inner = self.fresh(f"{value.name}_{self.dtype.name}")
            for node in self.graph.node:
                names = node.output if value.name in outputs else node.input
                for k, name in enumerate(names):
                    if name == value.name:
                        names[k] = inner
            nodes = list(self.graph.node)
            if value.name in outputs:
                nodes.append(self.node("Cast", [inner], value.name, to=self._kind(value)))
            else:
                nodes.insert(0, self.node("Cast", [value.name], inner, to=self.kind))
            del self.graph.node[:]
            self.graph.node.extend(nodes)


def fits(array: ExactArray, dtype: npt.DTypeLike) -> bool:
    """Whether every entry is a value of the dtype."""
    try:
        exactly(array, dtype, "")
    except InputError:
        return False
    return True
