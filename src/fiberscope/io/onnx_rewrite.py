"""Write a changed network into the model it came from: a drop-in with the same interface.

Each layer is written in the least invasive way that is exact: left alone if it did not change; by replacing the file's
tensors, behind its own normalisation if there is one; or by one MatMul and Add in place of its affine nodes. The
result is read again and compared with the network before it is returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io.folding import Affine
from fiberscope.io.onnx_chain import follow
from fiberscope.io.onnx_edit import Editor, fits
from fiberscope.io.onnx_graph import graph_of, parse, shown
from fiberscope.io.onnx_sites import Site, Slot, Walk
from fiberscope.network import Frame, Layer, Network

if TYPE_CHECKING:
    from onnx import ModelProto

ExactArray = npt.NDArray[Any]

_SHAPELESS = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Cast"}
"""Operators that do not depend on the width (Reshape is adapted)."""


def rewrite_chain(
    original: bytes, before: Network, after: Network, dtype: npt.DTypeLike, folder: Path | None = None
) -> bytes:
    """The original model with the weights of another network of the same depth.

    Args:
        original: bytes of the ONNX file.
        before: the network read from it.
        after: the network to write; inputs, outputs, depth, activations and head as before, hidden widths free.
        dtype: float dtype of the written tensors; if it is not the file's, inputs and outputs keep theirs behind
            Cast nodes.
        folder: where external data may lie; the folder of `before.source.path` by default.

    Returns:
        Bytes of a model that reads back as exactly `after`.

    Raises:
        InputError: if the networks do not fit, or a number is no value of `dtype`.
        UnsupportedError: if the graph cannot hold the network.
    """
    if folder is None and before.source is not None and before.source.path:
        folder = Path(before.source.path).parent
    model = parse(original)
    walk = follow(graph_of(model, folder))
    if not Network(tuple(walk.layers), walk.head).same_as(before):
        raise InputError("the file is not the one the network was read from")
    _require_fit(before, after)
    out = edited(model, [walk], [after.layers], dtype, folder)
    again = follow(graph_of(parse(out), None))
    if not Network(tuple(again.layers), again.head).same_as(after):
        raise UnsupportedError("the graph cannot hold the network exactly; save it as a new file instead")
    return out


def _require_fit(before: Network, after: Network) -> None:
    if after.depth != before.depth or [x.activation for x in after.layers] != [x.activation for x in before.layers]:
        raise UnsupportedError(
            f"the file holds {before.architecture} but the network is {after.architecture}; "
            "save it as a new file instead"
        )
    if (after.widths[0], after.widths[-1], after.head) != (before.widths[0], before.widths[-1], before.head):
        raise InputError("inputs, outputs and head of a drop-in are those of the file")


def edited(
    model: ModelProto,
    walks: Sequence[Walk],
    layers: Sequence[Sequence[Layer]],
    dtype: npt.DTypeLike,
    folder: Path | None,
) -> bytes:
    """Write new layers into the sites of some walks over a model."""
    editor = Editor(model, dtype, folder)
    for walk, chain in zip(walks, layers, strict=True):
        flat = [False, *(_flattened(s, new) for s, new in zip(walk.sites, chain, strict=True))]
        for k, new in enumerate(chain):
            _Rewriter(editor, walk, k, new, flat[k], flat[k + 1]).write()
    return editor.finish()


def _flattened(site: Site, new: Layer) -> bool:
    """Whether a new width does not fit the tensor's shape, so that it becomes (batch, width)."""
    return new.n_out != math.prod(site.shape_out) and sum(n > 1 for n in site.shape_out) != 1


@dataclass(frozen=True)
class _Core:
    """(W, b) to store, and whether a normalisation around them stays."""

    weight: ExactArray
    bias: ExactArray
    framed: bool

    def fits(self, dtype: npt.DTypeLike) -> bool:
        return fits(self.weight, dtype) and fits(self.bias, dtype)


@dataclass
class _Rewriter:
    """One layer to be written at its site; `flat_in` and `flat_out` say which ends became (batch, width)."""

    editor: Editor
    walk: Walk
    k: int
    new: Layer
    flat_in: bool
    flat_out: bool

    def write(self) -> None:
        """Choose the least invasive way."""
        old, site = self.walk.layers[self.k], self.walk.sites[self.k]
        self.site, self.old = site, old
        if self.new.n_out != old.n_out:
            self._scalars()
        same = rationals.equal(old.weight, self.new.weight) and rationals.equal(old.bias, self.new.bias)
        if not (self.flat_in or self.flat_out or self._widened_conv()) and (same or self._in_place()):
            return
        self._replace()

    def _widened_conv(self) -> bool:
        """Whether this is a convolution that would become float64, which common runtimes do not have."""
        at = self.site.linear
        kind = self.walk.graph.input.type.tensor_type.elem_type
        return at is not None and self.editor.kind == 11 != kind and self.editor.graph.node[at].op_type == "Conv"

    def _scalars(self) -> None:
        """Activation parameters stored once per neuron, all equal, become one number."""
        for at in self.site.closing:
            node = self.editor.graph.node[at]
            for j, name in enumerate(node.input):
                found = self.walk.graph.constant(name)
                if found is not None and found.array.size > 1:
                    node.input[j] = self.editor.tensor(f"{name}_1", found.array.reshape(-1)[:1], shown(name))

    # ---- in place

    def _in_place(self) -> bool:
        """Replace the file's own tensors; False if they cannot hold the layer."""
        site, slot = self.site, self.site.weight_slot
        if site.weight is None or slot is None or not self._nodes_fit():
            return False
        own = self._own(site.before, site.after)
        if own is None or (own.framed and not own.fits(self.editor.dtype)):
            return False  # the layer itself may fit without the normalisation
        weight, bias = own.weight, own.bias
        shaped = self._shaped(slot, weight)
        targets = self._reshape_targets()
        if shaped is None or targets is None:
            return False
        if not self._put_bias(bias):
            return False
        self._put(slot, shaped, f"{self.new.name}: weight")
        for at, target in targets:
            node = self.editor.graph.node[at]
            node.input[1] = self.editor.tensor(f"{node.input[1]}_new", np.array(target, dtype=np.int64), "shape")
        return True

    def _own(self, before: Affine, after: Affine) -> _Core | None:
        """(W, b) between diagonal maps that stay; None if they cannot be undone."""
        if before.is_identity and after.is_identity:
            return _Core(self.new.weight, self.new.bias, False)
        if before.inverted() is None or after.inverted() is None:
            return None
        sides: list[Any] = [None, None]
        for j, (side, n) in enumerate(((before, self.new.n_in), (after, self.new.n_out))):
            if not side.is_identity:
                if side.n_out != n:
                    return None
                sides[j] = (side.diagonal, side.offset)
        frame = Frame.of(self.new.n_out, self.new.n_in, before=sides[0], after=sides[1])
        return _Core(*frame.own(self.new.weight, self.new.bias), True)

    def _nodes_fit(self) -> bool:
        """Whether the site's other nodes do not mind the new widths."""
        site = self.site
        split = site.nodes.index(site.linear) if site.linear in site.nodes else -1
        bias = site.bias_slot.node if site.bias_slot is not None else None
        for position, at in enumerate(site.nodes):
            if at in (site.linear, bias):
                continue
            changed = self.new.n_in != self.old.n_in if position < split else self.new.n_out != self.old.n_out
            if changed and self.editor.graph.node[at].op_type not in _SHAPELESS:
                return False
        return True

    def _shaped(self, slot: Slot, weight: ExactArray) -> ExactArray | None:
        """A weight (n_out, n_in) in the layout of its tensor."""
        dims = slot.constant.array.shape
        if slot.layout == "rows":
            return weight
        if slot.layout == "columns":
            out = weight.T
            return (
                out[:, 0] if len(dims) == 1 and out.shape[1] == 1 else out.reshape((1,) * (len(dims) - 2) + out.shape)
            )
        window = math.prod(dims[2:])
        if weight.shape[1] % window or (window > 1 and weight.shape[1] != self.old.n_in):
            return None
        return weight.reshape(weight.shape[0], -1, *dims[2:])

    def _put(self, slot: Slot, array: ExactArray, what: str) -> None:
        """Store a tensor under its old name, or under a new one if others read the old."""
        constant = slot.constant
        alone = len(self.walk.graph.consumers.get(constant.name, ())) == 1
        if alone and self.editor.stored(constant.name) is not None:
            self.editor.put(constant.name, array.T if constant.transposed else array, what)
        else:
            node = self.editor.graph.node[slot.node]
            node.input[slot.operand] = self.editor.tensor(f"{constant.name}_{self.k + 1}", array, what)

    def _put_bias(self, bias: ExactArray) -> bool:
        """Store the bias; a bias that the file lacks is added if it is not zero."""
        slot, what = self.site.bias_slot, f"{self.new.name}: bias"
        if slot is not None:
            dims = slot.constant.array.shape
            if slot.constant.array.size != self.old.n_out or slot.constant.transposed:
                return False
            shape = tuple(self.new.n_out if a == slot.axis else n for a, n in enumerate(dims))
            if math.prod(shape) != self.new.n_out:
                return False
            self._put(slot, bias.reshape(shape), what)
            return True
        if not bias.any():
            return True
        at = self.site.linear
        if at is None:
            return False
        node = self.editor.graph.node[at]
        shape = self.walk.shapes.get(node.output[0], self.site.shape_out)
        column = node.op_type != "Conv" and len(shape) > 1 and list(node.input).index(self._trunk_of(node)) == 1
        name = self.editor.tensor(
            f"{self.old.weight_name or node.output[0]}_bias", bias[:, None] if column else bias, what
        )
        if node.op_type in ("Gemm", "Conv"):
            del node.input[2:]
            node.input.append(name)
            for a in node.attribute:
                if a.name == "beta":
                    a.f = 1.0
        else:
            result = node.output[0]
            node.output[0] = self.editor.fresh(f"{result}_product")
            options = {"broadcast": 1} if self.editor.opset < 7 else {}
            self.editor.nodes[at].append(self.editor.node("Add", [node.output[0], name], result, **options))
        return True

    def _trunk_of(self, node: Any) -> str:
        return str(next(name for name in node.input if name and name not in self.walk.graph.constants))

    def _reshape_targets(self) -> list[tuple[int, list[int]]] | None:
        """New targets of the site's Reshape nodes where they hold a width; None if one cannot be adapted."""
        out = []
        for at in self.site.reshapes:
            node = self.editor.graph.node[at]
            before = self.site.nodes.index(at) < self.site.nodes.index(self.site.linear or 0)
            old, new = (self.old.n_in, self.new.n_in) if before else (self.old.n_out, self.new.n_out)
            if old == new:
                continue
            found = self.walk.graph.constant(node.input[1]) if len(node.input) > 1 else None
            if found is None:
                return None
            target = [int(v) for v in found.array.reshape(-1)]
            if old > 1 and target.count(old) == 1 and all(v in (old, -1, 0, 1) for v in target):
                if not found.name:
                    return None
                out.append((at, [new if v == old else v for v in target]))
            elif -1 not in target or any(v not in (-1, 0, 1) for v in target):
                return None
        return out

    # ---- replaced

    def _replace(self) -> None:
        """Put [Flatten] MatMul [Add] [Reshape] in place of the site's affine nodes.

        If the whole map does not fit the dtype, a normalisation before the matrix is left standing.
        """
        site, editor = self.site, self.editor
        core, current, shape, nodes = (
            _Core(self.new.weight, self.new.bias, False),
            site.entering,
            site.shape_in,
            site.nodes,
        )
        if not core.fits(editor.dtype) and site.linear in site.nodes and not self.flat_in:
            inner = self._own(site.before, Affine.identity(self.new.n_out))
            if inner is not None and inner.fits(editor.dtype):
                core, nodes = inner, site.nodes[site.nodes.index(site.linear) :]
                current = self._trunk_of(editor.graph.node[site.linear])
                shape = self.walk.shapes[current]
        made: list[Any] = []
        if self.flat_in:
            shape = (1, self.new.n_in)
        elif math.prod(shape[:-1]) != 1:
            current = self._append(made, "Flatten", [current], axis=1 if shape[0] == 1 else 0)
            shape = (1, self.new.n_in)
        weight = self._stored(site.weight_slot, "weight", core.weight.T)
        current = self._append(made, "MatMul", [current, weight])
        shape = (*shape[:-1], self.new.n_out)
        if core.bias.any():
            bias = self._stored(site.bias_slot, "bias", core.bias)
            options = {"broadcast": 1} if editor.opset < 7 else {}
            current = self._append(made, "Add", [current, bias], **options)
        target = self._target(shape)
        if target is not None:
            if editor.opset < 5:
                raise UnsupportedError("operator sets before 5 cannot be rewritten here; save as a new file instead")
            sizes = editor.tensor(f"{site.leaving}_shape", np.array(target, dtype=np.int64), "shape")
            current = self._append(made, "Reshape", [current, sizes])
        self._place(made, current, nodes)

    def _append(self, made: list[Any], op: str, inputs: list[str], **attributes: Any) -> str:
        output = self.editor.fresh(f"{self.site.leaving}_{op.lower()}")
        made.append(self.editor.node(op, inputs, output, **attributes))
        return output

    def _stored(self, slot: Slot | None, kind: str, array: ExactArray) -> str:
        """Store a tensor, under its old name if nothing else reads that."""
        what = f"{self.new.name}: {kind}"
        if slot is None:
            return self.editor.tensor(f"{self.old.name}_{kind}", array, what)
        name = slot.constant.name
        if len(self.walk.graph.consumers.get(name, ())) == 1 and self.editor.stored(name) is not None:
            self.editor.put(name, array, what)
            return name
        return self.editor.tensor(f"{name}_{self.k + 1}", array, what)

    def _target(self, shape: tuple[int, ...]) -> list[int] | None:
        """The shape to bring the new value to, None if it has it already."""
        wanted = self.site.shape_out
        if self.flat_out:
            wanted = (1, self.new.n_out)
        elif self.new.n_out != self.old.n_out:
            wanted = tuple(self.new.n_out if n > 1 else n for n in wanted)
        if wanted == shape:
            return None
        free = bool(self.walk.graph.free) and len(wanted) > 1 and wanted[0] == 1
        return [-1, *wanted[1:]] if free else list(wanted)

    def _place(self, made: list[Any], current: str, nodes: list[int]) -> None:
        """Insert the new nodes where the old ones were."""
        site, editor = self.site, self.editor
        for at in nodes:
            editor.nodes[at] = []
        if site.leaving != site.entering:
            made[-1].output[0] = site.leaving
        else:
            for at in site.closing:
                for j, name in enumerate(editor.graph.node[at].input):
                    if name == site.leaving:
                        editor.graph.node[at].input[j] = current
        if nodes:
            editor.nodes[nodes[-1]] = made
        else:
            where = min(site.closing)
            editor.nodes[where] = [*made, *editor.nodes[where]]
