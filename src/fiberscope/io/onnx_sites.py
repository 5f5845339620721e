"""Where a layer sits in an ONNX graph: the affine nodes before an activation, and which tensors are its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io.folding import Affine
from fiberscope.io.onnx_graph import Constant, Graph, shown, title
from fiberscope.network import Frame, Layer

ExactArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Slot:
    """A tensor of the file that is a layer's weight or bias.

    Args:
        node: position in `model.graph.node` of the node that reads it.
        operand: which input of that node it is.
        constant: the tensor.
        layout: "rows" (n_out, n_in), "columns" (n_in, n_out), "kernel" (n_out, channels, ...) or "bias".
        axis: for a bias, the axis along the neurons.
    """

    node: int
    operand: int
    constant: Constant
    layout: Literal["rows", "columns", "kernel", "bias"]
    axis: int = 0


@dataclass
class Site:
    """The affine map between two activations, as it is written in the graph.

    full map = after . (weight y + bias) . before, where only `weight` and `bias` are read from slots.

    Args:
        entering: tensor it starts from, of shape `shape_in` (one sample).
        before: normalisations before the last matrix, or everything before it when there are several.
        after: what follows the last matrix and its bias.
        nodes: positions in `model.graph.node` of its nodes.
        reshapes: those of them that are Reshape nodes.
        leaving: tensor that enters the activation, of shape `shape_out`.
        closing: nodes of the activation.
        result: the activation's output.
        mixed: whether more than diagonal maps was folded in.
    """

    entering: str
    shape_in: tuple[int, ...]
    before: Affine
    after: Affine
    weight: ExactArray | None = None
    bias: ExactArray | None = None
    weight_slot: Slot | None = None
    bias_slot: Slot | None = None
    linear: int | None = None
    nodes: list[int] = field(default_factory=list)
    reshapes: list[int] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    name: str = ""
    leaving: str = ""
    shape_out: tuple[int, ...] = ()
    closing: list[int] = field(default_factory=list)
    result: str = ""
    mixed: bool = False

    @classmethod
    def start(cls, tensor: str, shape: tuple[int, ...]) -> Site:
        """An empty site at a tensor."""
        n = math.prod(shape)
        return cls(tensor, shape, Affine.identity(n), Affine.identity(n))

    def note(self, text: str, *, diagonal: bool = False) -> None:
        """Record what was folded."""
        self.folded.append(text)
        self.mixed = self.mixed or not diagonal

    @property
    def full(self) -> Affine:
        """The whole affine map."""
        if self.weight is None:
            return self.before
        core = self.before.linear(self.weight)
        return (core if self.bias is None else core.shifted(self.bias)).then(self.after)

    @property
    def plain(self) -> bool:
        """Whether weight and bias are the whole map."""
        return self.weight is not None and self.before.is_identity and self.after.is_identity


@dataclass
class Walk:
    """A position on the trunk of a graph, and the layers found so far.

    Args:
        graph: the graph.
        current: the trunk's tensor here, of shape `shape` (one sample).
        site: the affine map since the last activation.
        sites: the finished ones, one for each of `layers`.
        parameters: the file's own parameters met so far, name to shape.
        shapes: shape of every trunk tensor passed.
        head: output head, once met.
        notes: what a reader should know.
        approximations: folds that had to round.
        taken: numbers of nodes read as parts of an activation.
    """

    graph: Graph
    current: str
    shape: tuple[int, ...]
    site: Site
    sites: list[Site] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    head: str | None = None
    notes: list[str] = field(default_factory=list)
    approximations: list[str] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Number of features here."""
        return math.prod(self.shape)

    def uses(self, constant: Constant) -> ExactArray:
        """Count a constant among the parameters and return it, checked to be finite."""
        array = constant.array
        if array.dtype.kind != "f":
            raise UnsupportedError(f"tensor {shown(constant.name)} has dtype {array.dtype}; float weights are read")
        if not np.isfinite(array).all():
            where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise FormatError(
                f"tensor {shown(constant.name)} is {array[tuple(where)]} at {where}; weights must be finite"
            )
        if constant.name:
            self.parameters[constant.name] = array.shape[::-1] if constant.transposed else array.shape
        return array

    def take(self, index: npt.NDArray[np.int64], shape: Sequence[int], note: str) -> None:
        """Rearrange: entry k of the new tensor is entry index[k] of the old one, -1 for zero."""
        stage = self.site.before if self.site.weight is None else self.site.after
        moved = stage.take(index)
        if moved is not stage:
            self.site.note(note)
        self._stage(moved)
        self.shape = tuple(int(n) for n in shape)

    def scale(self, factors: ExactArray, note: str) -> None:
        """Multiply entry by entry, (size,)."""
        stage = self.site.before if self.site.weight is None else self.site.after
        out = stage.scaled(factors)
        if out is not stage:
            self.site.note(note, diagonal=True)
        self._stage(out)

    def shift(self, constant: ExactArray, note: str, slot: Slot | None = None) -> None:
        """Add entry by entry, (size,); the first addition after a matrix is the layer's bias."""
        site = self.site
        if site.weight is not None and site.bias is None and site.after.is_identity and slot is not None:
            site.bias, site.bias_slot = constant, slot
            if slot.constant.array.size < constant.size:
                site.note(f"bias {shown(slot.constant.name)} is one number for {constant.size} neurons")
            return
        stage = site.before if site.weight is None else site.after
        out = stage.shifted(constant)
        if out is not stage:
            site.note(note, diagonal=True)
        self._stage(out)

    def _stage(self, stage: Affine) -> None:
        if self.site.weight is None:
            self.site.before = stage
        else:
            self.site.after = stage

    def multiply(self, weight: ExactArray, shape: Sequence[int], at: int, slot: Slot | None, note: str = "") -> None:
        """Apply a matrix (new size, size)."""
        site, node = self.site, self.graph.model.graph.node[at]
        if site.weight is not None:
            site.before = site.full
            site.note(f"{site.name or 'an affine map'} and {title(node)} are composed")
        if slot is None:
            site.note(note or f"the matrix of {title(node)} is no tensor of the file")
        site.weight, site.weight_slot, site.bias, site.bias_slot = weight, slot, None, None
        site.linear, site.after = at, Affine.identity(weight.shape[0])
        site.name = node.name or node.output[0]
        self.shape = tuple(int(n) for n in shape)

    def close(self, activation: Activation, nodes: Sequence[int], result: str) -> None:
        """End the layer with an activation whose output is the tensor `result`."""
        site = self.site
        site.leaving, site.shape_out = self.current, self.shape
        site.closing, site.result = list(nodes), result
        if site.weight is None and not self.site.folded:
            site.note(f"there is no matrix before {activation.label}; the identity was put in")
        self.layers.append(self._layer(site, activation))
        self.sites.append(site)
        self.move(result)
        self.site = Site.start(result, self.shape)

    def move(self, tensor: str) -> None:
        """Go to the next tensor of the trunk."""
        self.shapes[self.current] = self.shape
        self.current = tensor

    def _layer(self, site: Site, activation: Activation) -> Layer:
        for slot in (site.weight_slot, site.bias_slot):
            if slot is not None and len(self.graph.consumers.get(slot.constant.name, ())) > 1:
                site.note(f"tensor {shown(slot.constant.name)} is used more than once")
        if site.plain and site.weight is not None:
            weight = site.weight
            zero = np.zeros(weight.shape[0], np.float64 if rationals.is_rational(weight) else weight.dtype)
            bias = zero if site.bias is None else site.bias
        else:
            full = site.full
            weight, bias = full.weight, full.offset
        names = [slot.constant.name if slot is not None else "" for slot in (site.weight_slot, site.bias_slot)]
        return Layer(
            weight,
            bias,
            activation,
            name=site.name or f"layer {len(self.layers) + 1}",
            weight_name=names[0],
            bias_name=names[1],
            folded=tuple(site.folded),
        )

    def frames(self) -> None:
        """Give the first and last layer their frame, where only an input or output normalisation was folded."""
        for k, (site, layer) in enumerate(zip(self.sites, self.layers, strict=True)):
            free = site.before.is_identity or k == 0, site.after.is_identity or k == len(self.sites) - 1
            if not layer.folded or site.mixed or site.weight is None or not all(free):
                continue
            if site.before.inverted() is None or site.after.inverted() is None:
                continue
            sides = [(side.diagonal, side.offset) for side in (site.before, site.after)]
            frame = Frame.of(layer.n_out, layer.n_in, before=sides[0], after=sides[1])
            self.layers[k] = replace(layer, frame=frame)

    @property
    def idle(self) -> bool:
        """Whether nothing but trivial shape operations happened since the last activation."""
        return self.site.weight is None and self.site.before.is_identity
