"""Populations while a data flow is followed: channels that meet are joined, those that stand for themselves pinned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from fiberscope.activations import Activation
from fiberscope.training.architectures.architecture import (
    Architecture,
    Axis,
    Dense,
    Kind,
    Law,
    LawKind,
    Population,
    Role,
    Skipped,
    Slot,
)
from fiberscope.training.architectures.chains import balance_text, neurons_of

Stage = Activation | str
"""What lies between a layer and its reader: an activation, or "batch", "layer" (normalised over the data, over the
channels), "drop", "max", "gated" (a product of two layers), "slope" (a leaky ReLU with a trained slope), "turned" (a
factor of unknown or negative sign in front of any activation), "pointwise" (any function without a row here)."""
Key = tuple[str, tuple[int, int, int] | None]
"""A slot: the parameter's name and the part of it that is meant."""
ENDS = ("input", "output")
"""Reasons for pins that need no words: inputs and outputs of a model are no neurons."""


@dataclass(frozen=True)
class Flow:
    """An activation tensor one of whose axes indexes channels.

    Args:
        group: of channels, an index into `Labels`.
        axis: which axis, from the front if >= 0, else from the end.
        rank: number of axes, None if not known.
        packed: "" if the axis has one entry for each channel; "major" or "minor" if channels were flattened together
            with other axes behind or before them.
        stages: what lies between the layers that write the group and this place.
        writer: index of the only layer that wrote it, -1 for none or several.
    """

    group: int
    axis: int
    rank: int | None = None
    packed: str = ""
    stages: tuple[Stage, ...] = ()
    writer: int = -1


@dataclass
class _Group:
    name: str
    count: int
    kind: Kind
    writers: list[int] = field(default_factory=list)
    joined: int = 0
    mixed: bool = False
    pinned: str = ""
    null: bool = True
    reads: list[tuple[tuple[Stage, ...], Key]] = field(default_factory=list)
    gains: list[Key] = field(default_factory=list)
    gate: tuple[int, ...] = ()
    flags: Population | None = None
    guessed: str = ""


@dataclass
class _Writer:
    group: int
    keys: tuple[Key, ...]
    normalised: int = 0
    otherwise: int = 0


@dataclass
class _Place:
    shape: tuple[int, ...]
    view: tuple[int, ...]
    axes: list[tuple[int, Role] | None]


class Labels:
    """Groups of channels, joined as the data flow demands, and the slots of parameters that they index."""

    def __init__(self) -> None:
        self._up: list[int] = []
        self._groups: list[_Group] = []
        self.writers: list[_Writer] = []
        self._places: dict[Key, _Place] = {}
        self._shared: set[Key] = set()
        self._own_laws: list[tuple[str, LawKind, int, tuple[Key, ...], tuple[Key, ...], int | None]] = []
        self.skipped: list[Skipped] = []
        self.chain: list[Dense] | None = []

    # groups

    def fresh(self, name: str, count: int, kind: Kind = "neurons", flags: Population | None = None) -> int:
        """A new group of channels; `flags` fixes what its population says."""
        self._up.append(len(self._up))
        self._groups.append(_Group(name, count, kind, flags=flags))
        return len(self._up) - 1

    def root(self, group: int) -> int:
        """The representative of a group."""
        while self._up[group] != group:
            self._up[group] = self._up[self._up[group]]
            group = self._up[group]
        return group

    def of(self, group: int) -> _Group:
        """What is known of a group."""
        return self._groups[self.root(group)]

    def pin(self, group: int, reason: str) -> None:
        """Say that every index of the group stands for itself; a reason in words stays."""
        found = self.of(group)
        if not found.pinned or (found.pinned in ENDS and reason not in ENDS):
            found.pinned = reason

    def guess(self, group: int, condition: str) -> None:
        """Say under which condition the labels of a group are right, where the data flow does not show it."""
        found = self.of(group)
        found.guessed = found.guessed or condition

    def guess_all(self, condition: str) -> None:
        """The same for every group."""
        for group in range(len(self._up)):
            self.guess(group, condition)

    def join(self, a: int, b: int, how: str) -> int:
        """Tie two groups channel by channel; the population is then mixed, without activation or signs."""
        first, second = sorted((self.root(a), self.root(b)))
        one, two = self._groups[first], self._groups[second]
        if first == second:
            one.mixed = True
            return first
        if one.count != two.count:
            self.pin(first, f"{how} ties {one.count} channels of {one.name} to {two.count} of {two.name}")
            self.pin(second, self.of(first).pinned)
            return first
        self._up[second] = first
        one.writers += two.writers
        one.joined += two.joined + 1
        one.mixed, one.null = True, one.null and two.null
        one.reads += two.reads
        one.gains += two.gains
        one.gate = one.gate or two.gate
        one.guessed = one.guessed or two.guessed
        if one.flags is not None or two.flags is not None:
            one.pinned = one.pinned or f"{how} ties {one.name} to {two.name}"
        if two.pinned:
            self.pin(first, two.pinned if two.pinned not in ENDS else f"{how} ties it to the model's {two.pinned}")
        elif one.pinned in ENDS:
            one.pinned = f"{how} ties it to the model's {one.pinned}"
        if "stream" in (one.kind, two.kind) or how == "a sum":
            one.kind = "stream"
        return first

    # slots

    def slot(
        self,
        name: str,
        shape: Sequence[int],
        axes: Sequence[tuple[int, Role] | None],
        *,
        view: Sequence[int] | None = None,
        take: tuple[int, int, int] | None = None,
    ) -> Key:
        """Name what the axes of a parameter index; a second use of the same parameter joins or pins its groups."""
        key: Key = (name, take)
        new = _Place(tuple(shape), tuple(view if view is not None else shape), list(axes))
        old = self._places.get(key)
        if old is None:
            self._places[key] = new
            return key
        self._shared.add(key)
        if old.view != new.view:
            for axis in (*old.axes, *new.axes):
                if axis is not None:
                    self.pin(axis[0], f"{name} is used in two ways")
            return key
        for k, (a, b) in enumerate(zip(old.axes, new.axes, strict=True)):
            if a is not None and b is not None:
                joined = self.join(a[0], b[0], f"shared weight {name}")
                self.of(joined).mixed = True
            elif a is not None or b is not None:
                self.pin((a or b)[0], f"{name} is also used where every index stands for itself")  # type: ignore[index]
                old.axes[k] = a or b
        return key

    def free(self, names: Iterable[str]) -> bool:
        """Whether none of the parameters has a slot yet."""
        known = {name for name, _ in self._places}
        return not any(name in known for name in names)

    def write(self, group: int, keys: Iterable[Key]) -> int:
        """A layer that makes the channels of a group; its index."""
        self.writers.append(_Writer(group, tuple(keys)))
        self.of(group).writers.append(len(self.writers) - 1)
        return len(self.writers) - 1

    def read(self, flow: Flow, key: Key) -> None:
        """Weights that read a flow linearly."""
        self.touch(flow)
        self.of(flow.group).reads.append((flow.stages, key))

    def touch(self, flow: Flow, *, normalised: bool = False) -> None:
        """Note that something other than (or just) a normalisation reads what a layer wrote."""
        if flow.writer >= 0 and not any(s != "drop" for s in flow.stages):
            row = self.writers[flow.writer]
            row.normalised += normalised
            row.otherwise += not normalised

    def law(
        self,
        text: str,
        kind: LawKind,
        group: int,
        plus: tuple[Key, ...],
        minus: tuple[Key, ...],
        per: int | None,
    ) -> None:
        """A law that the layer's own form implies."""
        self._own_laws.append((text, kind, group, plus, minus, per))

    def skip(self, name: str, reason: str) -> None:
        """Name a layer or parameter that is not understood."""
        self.skipped.append(Skipped(name, reason))

    # the result

    def finish(self, parameters: Iterable[tuple[str, tuple[int, ...]]], *, partial: bool = False) -> Architecture:
        """The architecture; parameters in no slot are named as skipped.

        Args:
            parameters: names and shapes of all parameters.
            partial: whether only parts of the model were followed: what has no labelled axis then is skipped.
        """
        groups = [g for g in range(len(self._up)) if self.root(g) == g]
        names = _unique([self._groups[g] for g in groups])
        named = {g: names[k] for k, g in enumerate(groups) if not self._groups[g].pinned}
        for k, g in enumerate(groups):
            if self._groups[g].pinned and self._groups[g].pinned not in ENDS:
                self.skip(names[k], self._groups[g].pinned)
        if partial:
            bare = [key for key, place in self._places.items() if not self._labelled(place, named)]
            kept = {key[0] for key in self._places if key not in bare}
            self._places = {key: place for key, place in self._places.items() if key not in bare}
            for name in dict.fromkeys(key[0] for key in bare if key[0] not in kept):
                self.skip(name, "its channels are read or written where the data flow cannot be followed")
        slots = [self._slot(key, place, named) for key, place in self._places.items()]
        index = {key: k for k, key in enumerate(self._places)}
        found = [
            replace(self._population(g, name), guessed=self._groups[g].guessed, factors=self._factors(g, index))
            for g, name in named.items()
        ]
        laws = [law for g, name in named.items() for law in self._laws(g, name, index)]
        laws += self._scales(named, index)
        for text, kind, group, plus, minus, per in self._own_laws:
            root, heads = self.root(group), None if per is None else self.root(per)
            there = not self._shared & {*plus, *minus} and all(k in index for k in (*plus, *minus))
            if there and root in named and (heads is None or heads in named):
                places = (tuple(index[k] for k in plus), tuple(index[k] for k in minus))
                laws.append(Law(text, kind, named[root], *places, None if heads is None else named[heads]))
        known = {name for name, _ in self._places} | {s.name for s in self.skipped}
        rest = [Skipped(n, "no layer that is understood uses it") for n, _ in parameters if n not in known]
        chain = tuple(self.chain or ())
        return Architecture(tuple(slots), tuple(found), tuple(laws), (*self.skipped, *rest), chain)

    def _labelled(self, place: _Place, named: dict[int, str]) -> bool:
        return any(a is not None and self.root(a[0]) in named for a in place.axes)

    def _slot(self, key: Key, place: _Place, named: dict[int, str]) -> Slot:
        axes: list[Axis | None] = []
        for axis in place.axes:
            label = None if axis is None else named.get(self.root(axis[0]))
            axes.append(None if axis is None or label is None else Axis(label, axis[1]))
        return Slot(key[0], place.shape, place.view, tuple(axes), key[1])

    def _plain(self, group: _Group) -> tuple[Stage, ...] | None:
        """What lies between the only writer of a group and all its readers; None if they differ or are not known."""
        stages = {s for s, _ in group.reads}
        simple = not group.mixed and len(group.writers) == 1 and len(stages) == 1
        return stages.pop() if simple else None

    def _population(self, g: int, name: str) -> Population:
        group = self._groups[g]
        if group.flags is not None:
            return replace(group.flags, name=name)
        stages = self._plain(group)
        if stages is None:
            normalised = bool(group.reads) and all("batch" in s or "layer" in s for s, _ in group.reads)
            return Population(name, group.count, group.kind, null=group.null, normalised=normalised)
        rows = [s for s in stages if isinstance(s, Activation)]
        form = [s if isinstance(s, str) else "act" for s in stages if s not in ("drop", "max")]
        norm = bool(form) and form[0] in ("batch", "layer")
        if form[norm:] not in (["act"], []):
            return Population(name, group.count, group.kind, normalised=norm)
        if not rows:
            return Population(name, group.count, group.kind, None, not norm and "max" not in stages, group.null, norm)
        flags = neurons_of(name, group.count, rows[0])
        signs = flags.signs and not norm and "max" not in stages
        return replace(flags, kind=group.kind, signs=signs, null=flags.null and group.null, normalised=norm)

    def _factors(self, g: int, index: dict[Key, int]) -> tuple[tuple[int, ...], ...]:
        """Slots of each factor of a product of two layers, or of what stands before an activation with a slope."""
        group = self._groups[g]
        if self._gated(group):
            rows = [self.writers[w].keys for w in group.gate]
            other = [self.writers[w].keys for w in group.writers if w not in group.gate]
            if group.null and len(other) == 1:  # s(0) = 0
                rows.append((*other[0], *group.gains))
        elif self._plain(group) is not None and group.null and _bare(self._plain(group) or ()) == ["slope"]:
            rows = [self.writers[group.writers[0]].keys]
        else:
            return ()
        if any(key in self._shared or key not in index for keys in rows for key in keys):
            return ()
        return tuple(tuple(index[key] for key in keys) for keys in rows)

    def _gated(self, group: _Group) -> bool:
        """Whether the neurons are products of two layers and nothing reads but the product."""
        alone = len(group.writers) == 2 and group.joined == 1 and bool(group.reads)
        return bool(group.gate) and alone and all(_bare(s) == ["gated"] for s, _ in group.reads)

    def _laws(self, g: int, name: str, index: dict[Key, int]) -> list[Law]:
        """Balances and matrix laws of a simple or gated group."""
        group = self._groups[g]
        outs = list(dict.fromkeys(key for _, key in group.reads))
        stages = self._plain(group)
        if self._gated(group):
            return [law for w in group.gate for law in self._law(name, self.writers[w].keys, outs, 1, index)]
        if stages is None or not outs:
            return []
        form, degree = _bare(stages), 1
        rows = [s for s in stages if isinstance(s, Activation)]
        if len(rows) == 1 and rows[0].homogeneity is not None and rows[0].homogeneity >= 1:
            degree = rows[0].homogeneity
        elif rows:
            return []
        near = form in ([], ["act"], ["slope"])
        sources = self.writers[group.writers[0]].keys if near else tuple(group.gains)
        if form == ["act", "batch"]:
            degree = 1
        elif form not in ([], ["act"], ["slope"], ["batch"], ["layer"], ["batch", "act"], ["layer", "act"]):
            return []
        return self._law(name, sources, outs, degree, index, matrix=stages == ())

    def _law(
        self,
        name: str,
        plus: Sequence[Key],
        minus: Sequence[Key],
        degree: int,
        index: dict[Key, int],
        *,
        matrix: bool = False,
    ) -> list[Law]:
        if not plus or not minus or self._shared & {*plus, *minus} or not all(k in index for k in (*plus, *minus)):
            return []
        names = [key[0] for key in plus], [key[0] for key in minus]
        places = tuple(index[k] for k in plus), tuple(index[k] for k in minus)
        if matrix:
            text = " + ".join(f"{n} {n}^T" for n in names[0]) + "".join(f" - {n}^T {n}" for n in names[1])
            return [Law(text, "matrix", name, *places)]
        return [Law(balance_text(*names, degree), "balance", name, *places, degree=float(degree))]

    def _scales(self, named: dict[int, str], index: dict[Key, int]) -> list[Law]:
        """|w_i|^2 of layers that nothing reads but a normalisation over the data."""
        out = []
        for row in self.writers:
            root = self.root(row.group)
            there = root in named and not self._shared & set(row.keys) and all(k in index for k in row.keys)
            if row.normalised and not row.otherwise and there:
                text = balance_text([key[0] for key in row.keys], [])
                out.append(Law(text, "scale", named[root], tuple(index[k] for k in row.keys)))
        return out


def _bare(stages: Iterable[Stage]) -> list[str]:
    """Names of the stages that no balance law passes unnoticed."""
    return [s if isinstance(s, str) else "act" for s in stages if s not in ("drop", "max")]


def _unique(groups: Sequence[_Group]) -> list[str]:
    """Names of populations, numbered where one layer makes several."""
    out: list[str] = []
    for group in groups:
        name, k = group.name, 2
        while name in out:
            name, k = f"{group.name}#{k}", k + 1
        out.append(name)
    return out
