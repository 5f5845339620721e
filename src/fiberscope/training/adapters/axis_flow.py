"""Which axes of a model's tensors may be permuted together: every axis carries labels, every operation joins some.

Starting from labels of their own, the axes of parameters flow through the operations of a forward pass. An operation
that treats indices alike joins the labels it matches; whatever tells indices apart pins them. Labels that are left
unpinned are populations: permuting them commutes with every operation that was met, so it keeps the function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fiberscope.activations import Activation
from fiberscope.training.architectures.architecture import Kind, Role

Tag = tuple[str, int]
Stage = Literal["fixed", "linear", "pointwise", "other"]

INPUT, OUTPUT, POSITION = "input of the model", "output of the model", "position of a kernel"
BENIGN = {INPUT, OUTPUT, POSITION}


class Label:
    """A class of indices; joined ones share a root, split ones a tuple of parts (outermost first)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.parent: Label | None = None
        self.parts: tuple[Label, ...] = ()
        self.pinned: str | None = None

    def root(self) -> Label:
        """The label that stands for all it was joined with."""
        at = self
        while at.parent is not None:
            at = at.parent
        if self is not at:
            self.parent = at
        return at


@dataclass(frozen=True)
class Piece:
    """A factor of an axis: its label, and the axes of parameters it is."""

    label: Label
    tags: frozenset[Tag] = frozenset()

    def atoms(self) -> list[Piece]:
        """The pieces it was split into."""
        root = self.label.root()
        return [atom for part in root.parts for atom in Piece(part, self.tags).atoms()] or [Piece(root, self.tags)]


Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class Value:
    """An array of the forward pass.

    Args:
        shape: of it.
        axes: pieces of each axis, outermost first; none where the size is 1.
        pure: parameters it is made of, if it depends on nothing else.
        made: parameters that scale it: linearly for stage "linear", before the function for "pointwise".
        stage: what was done since the last contraction with a parameter.
        function: that was applied, for stage "pointwise"; None if it is not known.
        half: the parameters of a linear factor, where the last operation was a product (gated units).
        flags: "gain" (products of parameters), "pool" (maxima over positions), "mixed" (anything else not linear).
    """

    shape: tuple[int, ...]
    axes: tuple[Pieces, ...]
    pure: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()
    stage: Stage = "fixed"
    function: Activation | None = None
    flags: frozenset[str] = frozenset()
    half: frozenset[str] | None = None

    @property
    def number(self) -> bool:
        """Whether it is one number, maybe repeated."""
        return self.stage == "fixed" and not self.pure and all(p.label.pinned is None for p in self.pieces())

    def pieces(self, axes: Iterable[int] | None = None) -> list[Piece]:
        """All atoms, of some axes."""
        chosen = range(len(self.axes)) if axes is None else axes
        return [atom for k in chosen for piece in self.axes[k] for atom in piece.atoms()]


@dataclass(frozen=True)
class _Read:
    value: Value | None
    other: Value | None = None
    readers: frozenset[str] = frozenset()


@dataclass
class Flow:
    """A forward pass under construction.

    Args:
        shapes: of the parameters seen so far, by name.
        statistics: names of those that are running averages.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    statistics: set[str] = field(default_factory=set)
    _leaves: dict[str, tuple[Pieces, ...]] = field(default_factory=dict)
    _roles: dict[tuple[Tag, Label], set[Role]] = field(default_factory=dict)
    _reads: list[tuple[Label, _Read]] = field(default_factory=list)
    _kinds: list[tuple[Label, Kind]] = field(default_factory=list)
    _normal: list[tuple[Label, frozenset[str]]] = field(default_factory=list)
    _order: list[Piece] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)

    def parameter(self, name: str, shape: Sequence[int], *, statistic: bool = False) -> Value:
        """A parameter: every axis of it has a label of its own, the same at every call.

        Args:
            name: of it.
            shape: of it.
            statistic: whether it is a running average, which no optimiser moves: it makes no neuron.
        """
        shape = tuple(shape)
        if statistic:
            self.statistics.add(name)
        if name not in self._leaves:
            self.shapes[name] = shape
            self._leaves[name] = tuple(
                (Piece(Label(n), frozenset({(name, k)})),) if n != 1 else () for k, n in enumerate(shape)
            )
        return Value(shape, self._leaves[name], pure=frozenset({name}))

    def fixed(self, shape: Sequence[int], why: str | None) -> Value:
        """Data or a constant: pinned for the reason given; None for one number repeated."""
        axes = tuple((Piece(Label(n)),) if n != 1 else () for n in shape)
        value = Value(tuple(shape), axes)
        if why is not None:
            self.pin([value], why)
        return value

    def pin(self, values: Iterable[Value], why: str, axes: Iterable[int] | None = None) -> None:
        """Say that indices are told apart; the first reason stays."""
        chosen = None if axes is None else list(axes)
        for value in values:
            self._used |= value.pure
            for atom in value.pieces(chosen):
                pin_label(atom.label, why)

    def opaque(self, values: Sequence[Value], shapes: Sequence[Sequence[int]], why: str) -> list[Value]:
        """An operation that is not understood: everything it touches is pinned."""
        self.pin(values, why)
        return [self.fixed(shape, why) for shape in shapes]

    # Operations

    def add(self, a: Value, b: Value, shape: Sequence[int]) -> Value:
        """Sum or difference, broadcast over leading axes or axes of size 1."""
        axes = self._matched(a, b, shape)
        for value, other in ((a, b), (b, a)):
            if value.pure and other.number:
                return replace(value, shape=tuple(shape), axes=axes, flags=frozenset({"gain"}))
        if a.pure and b.pure:
            return self._joined(a, b, axes, shape)
        if a.pure or b.pure:
            data, own = (b, a) if a.pure else (a, b)
            self._mark(own, "in")
            for name in own.pure:
                if re.split(r"[./]", name)[-1] in ("mean", "moving_mean", "running_mean") and data.stage == "linear":
                    self._normal += [(piece.label, data.made) for piece in own.pieces()]
            return self._with_own(data, own, axes, shape, flags=own.flags)
        if a.stage == "linear" == b.stage:
            shared = {p.label.root() for p in a.pieces()} & {p.label.root() for p in b.pieces()}
            self._kinds += [(label, "stream") for label in shared if a.made != b.made]
            return Value(tuple(shape), axes, made=a.made | b.made, stage="linear", flags=a.flags | b.flags)
        if a.stage == b.stage == "fixed":
            return Value(tuple(shape), axes)
        known = a.stage in ("linear", "fixed") and b.stage in ("linear", "fixed")
        self._kinds += [(p.label, "stream") for p in a.pieces() if not known and a.made != b.made and a.made and b.made]
        return Value(
            tuple(shape), axes, made=a.made | b.made, stage="linear" if known else "other", flags=frozenset({"mixed"})
        )

    def multiply(self, a: Value, b: Value, shape: Sequence[int]) -> Value:
        """Product or quotient, entry by entry."""
        axes = self._matched(a, b, shape)
        for value, other in ((a, b), (b, a)):
            if other.number:
                return replace(value, shape=tuple(shape), axes=axes)
        if a.pure and b.pure:
            return replace(self._joined(a, b, axes, shape), flags=frozenset({"gain"}))
        if a.pure or b.pure:
            data, own = (b, a) if a.pure else (a, b)
            self._mark(own, "in")
            return self._with_own(data, own, axes, shape, flags=frozenset({"gain"}))
        if a.stage == b.stage == "fixed":
            return Value(tuple(shape), axes)
        half = next((v for v, w in ((a, b), (b, a)) if v.stage == "linear" and not v.flags and v.made != w.made), None)
        known = {a.stage, b.stage} <= {"linear", "other"} and any(
            v.stage == "linear" and v.made <= w.made for v, w in ((a, b), (b, a))
        )  # a preactivation times something made of it: normalised
        return Value(
            tuple(shape),
            axes,
            made=a.made | b.made,
            stage="linear" if known else "other",
            flags=frozenset({"mixed"}),
            half=None if half is None or half.made & (b if half is a else a).made else half.made,
        )

    def pointwise(self, value: Value, function: Activation | None) -> Value:
        """A function of every entry; None if it is not one of the table."""
        if value.pure:
            return replace(value, flags=frozenset({"gain"}))
        if function is not None and function.name == "identity":
            return value
        if value.stage == "linear" and function is not None:
            return replace(value, stage="pointwise", function=function)
        return value if value.stage == "fixed" else replace(value, stage="other", function=None)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The same entries in C order under another shape."""
        todo = [piece for pieces in value.axes for piece in pieces]
        axes: list[Pieces] = []
        for n in shape:
            taken: list[Piece] = []
            left = n
            while left > 1:
                piece = todo.pop(0)
                atoms = piece.atoms()
                if len(atoms) > 1:
                    todo[:0] = atoms
                    continue
                size = atoms[0].label.size
                if left % size == 0:
                    taken.append(atoms[0])
                    left //= size
                elif size % left == 0:
                    _split(atoms[0].label, left)
                    todo.insert(0, atoms[0])
                else:
                    self.pin([value], "reshaped across its indices")
                    self._used |= value.pure
                    return self.fixed(shape, "reshaped across its indices")
            axes.append(tuple(taken))
        return replace(value, shape=tuple(shape), axes=tuple(axes))

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Axes in another order."""
        return replace(value, shape=tuple(value.shape[k] for k in order), axes=tuple(value.axes[k] for k in order))

    def broadcast(self, value: Value, shape: Sequence[int], places: Sequence[int]) -> Value:
        """Axis k becomes axis places[k] of the shape; the others repeat."""
        axes: list[Pieces] = [(Piece(Label(n)),) if n != 1 else () for n in shape]
        for k, place in enumerate(places):
            if value.shape[k] != 1:
                axes[place] = value.axes[k]
        return replace(value, shape=tuple(shape), axes=tuple(axes))

    def reduce(self, value: Value, over: Iterable[int], *, linear: bool) -> Value:
        """A sum (`linear`) or another symmetric function over axes, which are left out."""
        axes = {k % len(value.shape) for k in over}
        keep = [k for k in range(len(value.shape)) if k not in axes]
        out = replace(value, shape=tuple(value.shape[k] for k in keep), axes=tuple(value.axes[k] for k in keep))
        free = [piece.label for piece in value.pieces(axes) if piece.label.root().pinned is None]
        if free:
            self._reads += [(label, _Read(None)) for label in free]
        if value.pure:
            return replace(out, flags=out.flags if linear else frozenset({"gain"}))
        if free and value.stage != "fixed":
            return replace(out, stage="other", function=None)
        return out if linear else replace(out, flags=out.flags | {"pool"})

    def pool(self, value: Value, shape: Sequence[int], over: Iterable[int], *, linear: bool) -> Value:
        """Windows over positions: their axes change size, the others stay."""
        axes = list(over)
        self.pin([value], POSITION, axes)
        fresh = self.fixed(shape, POSITION)
        kept = tuple(fresh.axes[k] if k in axes else value.axes[k] for k in range(len(shape)))
        out = replace(value, shape=tuple(shape), axes=kept)
        return out if linear or value.pure else replace(out, flags=out.flags | {"pool"})

    def contract(
        self,
        a: Value,
        b: Value,
        over: tuple[Sequence[int], Sequence[int]],
        batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
    ) -> Value:
        """Sum of products over matched axes; result: batch axes, free axes of a, free axes of b."""
        for x, y in zip([*over[0], *batch[0]], [*over[1], *batch[1]], strict=True):
            _unify(a.axes[x], b.axes[y])
        free_a = [k for k in range(len(a.shape)) if k not in over[0] and k not in batch[0]]
        free_b = [k for k in range(len(b.shape)) if k not in over[1] and k not in batch[1]]
        axes = tuple(a.axes[k] for k in (*batch[0], *free_a)) + tuple(b.axes[k] for k in free_b)
        shape = tuple(a.shape[k] for k in (*batch[0], *free_a)) + tuple(b.shape[k] for k in free_b)
        summed = a.pieces(over[0])
        if a.pure and b.pure:
            self._mark(a, "in", over[0])
            self._mark(b, "out", over[1])
            return Value(shape, axes, pure=a.pure | b.pure, flags=frozenset({"gain"}))
        if a.pure or b.pure:
            own, data, at = (a, b, 0) if a.pure else (b, a, 1)
            self._mark(own, "out", over[at])
            self._mark(own, "in", [*(free_a if a.pure else free_b), *batch[at]])
            self._reads += [(piece.label, _Read(data, readers=own.pure)) for piece in summed]
            self._other(data.pieces(free_b if a.pure else free_a), data)
            self._other(data.pieces(batch[1 - at]), data)
            return Value(shape, axes, made=own.pure, stage="linear", flags=own.flags)
        self._reads += [(piece.label, _Read(a, b)) for piece in summed]
        self._other(a.pieces(batch[0]), a)
        self._kinds += [(piece.label, "heads") for piece in a.pieces(batch[0])]
        sides = [
            v for v, free in ((a, free_a), (b, free_b)) if any(p.label.root().pinned is None for p in v.pieces(free))
        ]
        if len(sides) == 1 and not any(p.label.root().pinned is None for p in summed):
            return replace(sides[0], shape=shape, axes=axes)
        if a.stage == b.stage == "fixed":
            return Value(shape, axes)
        return Value(shape, axes, made=a.made | b.made, stage="other")

    def convolve(self, data: Value, kernel: Value, channel: int, inner: int, outer: int, shape: Sequence[int]) -> Value:
        """A convolution without groups: data's channels meet the kernel's `inner` axis; `shape` has them in place.

        Args:
            data: (samples, positions, channels) in any order.
            kernel: made of parameters; its other axes are positions.
            channel: axis of the channels in data and in the result.
            inner: axis of the kernel that is summed over.
            outer: axis of the kernel that makes the new channels.
            shape: of the result.
        """
        spots = [k for k in range(len(kernel.shape)) if k not in (inner, outer)]
        self.pin([kernel], POSITION, spots)
        self.pin([data], POSITION, [k for k in range(len(data.shape)) if k != channel])
        _unify(data.axes[channel], kernel.axes[inner])
        self._mark(kernel, "out", [inner])
        self._mark(kernel, "in", [outer])
        self._reads += [(piece.label, _Read(data, readers=kernel.pure)) for piece in data.pieces([channel])]
        fresh = self.fixed(shape, POSITION)
        axes = tuple(kernel.axes[outer] if k == channel else pieces for k, pieces in enumerate(fresh.axes))
        self._kinds += [(piece.label, "channels") for piece in kernel.pieces([outer])]
        return Value(tuple(shape), axes, made=kernel.pure, stage="linear", flags=kernel.flags)

    def depthwise(self, data: Value, kernel: Value, channel: int, outer: int, shape: Sequence[int]) -> Value:
        """A convolution of every channel by itself: a gain that spreads over positions."""
        self.pin([kernel], POSITION, [k for k in range(len(kernel.shape)) if k != outer])
        self.pin([data], POSITION, [k for k in range(len(data.shape)) if k != channel])
        _unify(data.axes[channel], kernel.axes[outer])
        self._mark(kernel, "in", [outer])
        fresh = self.fixed(shape, POSITION)
        axes = tuple(kernel.axes[outer] if k == channel else pieces for k, pieces in enumerate(fresh.axes))
        return self._with_own(data, kernel, axes, shape, flags=frozenset({"gain"}))

    def looked_up(self, table: Value, kept: Sequence[int], places: Sequence[int], shape: Sequence[int]) -> Value:
        """Rows of a table chosen by data: its axis kept[k] becomes axis places[k] of the shape."""
        self._mark(table, "in", kept)
        fresh = self.fixed(shape, INPUT)
        where = dict(zip(places, kept, strict=True))
        axes = tuple(table.axes[where[k]] if k in where else pieces for k, pieces in enumerate(fresh.axes))
        return Value(tuple(shape), axes, made=table.pure, stage="linear", flags=table.flags)

    # Inner workings of the operations

    def _matched(self, a: Value, b: Value, shape: Sequence[int]) -> tuple[Pieces, ...]:
        axes: list[Pieces] = []
        for k in range(1, len(shape) + 1):
            found = [v.axes[-k] for v in (a, b) if len(v.axes) >= k and v.shape[-k] != 1]
            if len(found) == 2:
                _unify(*found)
            axes.append(_tagged(found) if found else ())
        return tuple(reversed(axes))

    def _joined(self, a: Value, b: Value, axes: tuple[Pieces, ...], shape: Sequence[int]) -> Value:
        return Value(tuple(shape), axes, pure=a.pure | b.pure, flags=a.flags | b.flags)

    def _with_own(
        self, data: Value, own: Value, axes: tuple[Pieces, ...], shape: Sequence[int], *, flags: frozenset[str]
    ) -> Value:
        """Data that parameters were added to or multiplied with: their axes make neurons, running averages do not."""
        stage: Stage = "linear" if data.stage == "linear" else "other"
        return Value(
            tuple(shape), axes, made=data.made | (own.pure - self.statistics), stage=stage, flags=data.flags | flags
        )

    def _mark(self, value: Value, role: Role, axes: Iterable[int] | None = None) -> None:
        self._used |= value.pure
        for piece in value.pieces(axes):
            self._order += [piece] if role == "in" else []
            for tag in piece.tags:
                self._roles.setdefault((tag, piece.label), set()).add(role)

    def _other(self, pieces: Iterable[Piece], value: Value) -> None:
        if value.stage != "fixed":
            self._reads += [(piece.label, _Read(None)) for piece in pieces]


def _tagged(found: list[Pieces]) -> Pieces:
    """The pieces of matched axes, with the tags of both."""
    if len(found) == 1:
        return found[0]
    first, second = ([atom for piece in pieces for atom in piece.atoms()] for pieces in found)
    if len(first) != len(second):  # they could not be matched, and are pinned
        return found[0]
    return tuple(Piece(a.label, a.tags | b.tags) for a, b in zip(first, second, strict=True))


def pin_label(label: Label, why: str) -> None:
    """Say that the indices of a label are told apart; the first reason stays."""
    root = label.root()
    if root.pinned is None:
        root.pinned = why
    for part in root.parts:
        pin_label(part, why)


def _split(label: Label, outer: int) -> None:
    """Two parts for one label: the outer of the size given, the inner of the rest."""
    root = label.root()
    root.parts = (Label(outer), Label(root.size // outer))
    if root.pinned is not None:
        for part in root.parts:
            part.pinned = root.pinned


def _join(a: Label, b: Label) -> None:
    a, b = a.root(), b.root()
    if a is b:
        return
    if a.pinned is None and b.pinned is not None:
        a.pinned = b.pinned
    elif a.pinned in BENIGN and b.pinned is not None and b.pinned not in BENIGN:
        a.pinned = b.pinned
    b.parent = a


def _unify(a: Pieces, b: Pieces) -> None:
    """Say that two axes have the same indices; labels are split where the other side has parts."""
    left, right = list(a), list(b)
    while left and right:
        one, two = left[0].atoms(), right[0].atoms()
        if len(one) > 1 or len(two) > 1:
            left[:1], right[:1] = one, two
            continue
        x, y = one[0].label, two[0].label
        if x.size == y.size:
            _join(x, y)
            left.pop(0)
            right.pop(0)
        elif x.size % y.size == 0:
            _split(x, y.size)
        elif y.size % x.size == 0:
            _split(y, x.size)
        else:
            for piece in (*left, *right):
                pin_label(piece.label, "split into parts of different sizes")
            return
