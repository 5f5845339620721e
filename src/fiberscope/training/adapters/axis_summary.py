"""The populations, slots and laws of a finished axis flow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.training.adapters.axis_flow import BENIGN, OUTPUT, Flow, Label, Piece, Tag, Value, pin_label
from fiberscope.training.architectures.architecture import (
    Architecture,
    Axis,
    Kind,
    Law,
    Population,
    Role,
    Skipped,
    Slot,
)
from fiberscope.training.architectures.chains import balance_text, neurons_of

_LEAF = re.compile(r"[./][^./]*$")


class Summary:
    """Reads the populations off a finished flow.

    Args:
        flow: of the whole forward pass.
        outputs: of the model; they are told apart.
    """

    def __init__(self, flow: Flow, outputs: Iterable[Value]) -> None:
        flow.pin(outputs, OUTPUT)
        self.flow = flow
        self.atoms = {
            name: [[atom for piece in pieces for atom in piece.atoms()] for pieces in axes]
            for name, axes in flow._leaves.items()
            if name not in flow.statistics
        }
        self.roles: dict[tuple[Tag, Label], set[Role]] = {}
        for (tag, label), roles in flow._roles.items():
            for atom in Piece(label).atoms():
                self.roles.setdefault((tag, atom.label), set()).update(roles)
        self.reads = self._by_root(flow._reads)
        self.kinds = self._by_root(flow._kinds)
        self.normal = self._by_root(flow._normal)
        self.names = self._named()
        self.second = {label: pair[1].made for label in self.names if (pair := self._pair(label)) is not None}

    def _by_root(self, pairs: Iterable[tuple[Label, Any]]) -> dict[Label, list[Any]]:
        out: dict[Label, list[Any]] = {}
        for label, item in pairs:
            for atom in Piece(label).atoms():
                out.setdefault(atom.label, []).append(item)
        return out

    def visible(self) -> list[tuple[str, Label, Value]]:
        """(name, label, value) of the populations behind a known activation."""
        return [(n, label, self.reads[label][0].value) for label, n in self.names.items() if self._function(label)]

    def _role(self, tag: Tag, label: Label) -> Role:
        found = self.roles.get((tag, label), set())
        return "out" if found == {"out"} else "in"

    def _named(self) -> dict[Label, str]:
        """Names of the populations, from the first parameter that makes each, in the order of the flow."""
        twice: set[Label] = set()
        for name, axes in self.atoms.items():
            seen = set()
            for k, pieces in enumerate(axes):
                for piece in pieces:
                    role = self._role((name, k), piece.label)
                    twice |= {piece.label} if (piece.label, role) in seen else set()
                    seen.add((piece.label, role))
        for label in twice:
            pin_label(label, "the same neurons index two axes of one parameter")
        stems: dict[Label, str] = {}
        for piece in self.flow._order:
            own = [name for name, _ in sorted(piece.tags) if name not in self.flow.statistics]
            for atom in piece.atoms():
                if atom.label.pinned is None and own:
                    stems.setdefault(atom.label, _LEAF.sub("", own[0]))
        counts: dict[str, int] = {}
        out: dict[Label, str] = {}
        for label, stem in stems.items():
            short = _LEAF.sub("", stem) if "heads" in self.kinds.get(label, []) else stem
            counts[short] = counts.get(short, 0) + 1
            out[label] = short if counts[short] == 1 else f"{short}[{counts[short]}]"
        return out

    def architecture(self) -> Architecture:
        """Slots, populations and laws; everything that is not understood is named as skipped."""
        slots: list[Slot] = []
        place: dict[str, int] = {}
        skipped: list[Skipped] = []
        reasons: dict[str, str] = {}
        for name, axes in self.atoms.items():
            labelled = any(piece.label in self.names for pieces in axes for piece in pieces)
            bad = [p.label.pinned for pieces in axes for p in pieces if p.label.pinned not in (None, *BENIGN)]
            if bad:
                reasons.setdefault(_LEAF.sub("", name), str(bad[0]))
            if name not in self.flow._used or (bad and not labelled):
                skipped.append(Skipped(name, str(bad[0]) if bad else "the function does not use it"))
                continue
            place[name] = len(slots)
            slots.append(self._slot(name, axes))
        gone = {s.name for s in skipped}
        partly = [Skipped(stem, why) for stem, why in reasons.items() if not any(n.startswith(stem) for n in gone)]
        found = {label: self._population(label) for label in self.names}
        laws = [law for label in self.names for law in self._laws(label, place)]
        return Architecture(tuple(slots), tuple(found.values()), tuple(laws), (*skipped, *partly))

    def _slot(self, name: str, axes: list[list[Piece]]) -> Slot:
        view: list[int] = []
        labels: list[Axis | None] = []
        for k, pieces in enumerate(axes):
            known = [p for p in pieces if p.label in self.names]
            if not known:  # one axis, as stored
                view.append(self.flow.shapes[name][k])
                labels.append(None)
                continue
            for piece in pieces:
                view.append(piece.label.size)
                role = "out" if name in self.second.get(piece.label, ()) else self._role((name, k), piece.label)
                labels.append(Axis(self.names[piece.label], role) if piece in known else None)
        return Slot(name, self.flow.shapes[name], tuple(view), tuple(labels))

    def _makers(self, label: Label) -> tuple[frozenset[str], frozenset[str], bool]:
        """(parameters that make it, parameters that read it, whether some do both)."""
        into: set[str] = set()
        out: set[str] = set()
        both = False
        for name, axes in self.atoms.items():
            for k, pieces in enumerate(axes):
                if any(p.label is label for p in pieces):
                    found = self.roles.get(((name, k), label), set())
                    (out if found == {"out"} else into).add(name)
                    both |= len(found) == 2
        return frozenset(into), frozenset(out), both or bool(into & out)

    def _plain(self, label: Label) -> Value | None:
        """What is read of a population, if all that makes it is read in one form only."""
        into, out, both = self._makers(label)
        reads = self.reads.get(label, [])
        if not reads or both or any(r.value is None or r.other is not None for r in reads):
            return None
        first = reads[0].value
        same = all(
            (r.value.made, r.value.stage, r.value.function, r.value.flags)
            == (first.made, first.stage, first.function, first.flags)
            for r in reads
        )
        readers = frozenset().union(*(r.readers for r in reads))
        good = same and first.made == into and readers == out and first.stage in ("linear", "pointwise")
        return first if good else None

    def _function(self, label: Label) -> Activation | None:
        """The function that all readers see, whatever came before it."""
        reads = self.reads.get(label, [])
        if not reads or any(r.value is None or r.other is not None or r.value.stage != "pointwise" for r in reads):
            return None
        first: Activation | None = reads[0].value.function
        return first if all(r.value.function == first for r in reads) else None

    def _pair(self, label: Label) -> tuple[Value, Value] | None:
        """The two linear sides of a product summed over a population, such as queries and keys."""
        into, out, both = self._makers(label)
        reads = self.reads.get(label, [])
        if len(reads) != 1 or reads[0].other is None or both or out:
            return None
        a, b = reads[0].value, reads[0].other
        linear = all(v.stage == "linear" and not v.flags for v in (a, b))
        return (a, b) if linear and not a.made & b.made and a.made | b.made == into else None

    def _gated(self, label: Label) -> frozenset[str] | None:
        """The parameters of the linear factor of a gated unit, if products with it are all that is read."""
        into, out, both = self._makers(label)
        reads = self.reads.get(label, [])
        if not reads or both or any(r.value is None or r.other is not None for r in reads):
            return None
        halves = {r.value.half for r in reads if r.value.made == into}
        readers = frozenset().union(*(r.readers for r in reads))
        good = len(halves) == 1 and readers == out and all(r.value.made == into for r in reads)
        found: frozenset[str] | None = next(iter(halves)) if good else None
        return found

    def _population(self, label: Label) -> Population:
        name, value = self.names[label], self._plain(label)
        normalised = label in self.normal
        kinds = self.kinds.get(label, [])
        kind: Kind = next((k for k in ("heads", "stream", "channels") if k in kinds), "neurons")
        if self._pair(label) is not None:
            return Population(name, label.size, "factors", signs=True, null=True)
        if value is None or "mixed" in value.flags:
            return Population(name, label.size, kind, self._function(label), normalised=normalised)
        row = value.function if value.stage == "pointwise" and value.function else find_activation("identity")
        base = neurons_of(name, label.size, row)
        if kind == "neurons" and value.stage == "linear" and self._head(label) is not None:
            kind = "factors"
        return replace(base, kind=kind, signs=base.signs and not value.flags & {"gain", "pool"}, normalised=normalised)

    def _head(self, label: Label) -> Label | None:
        """The heads that index, with a population, every parameter of it."""
        into, out, _ = self._makers(label)
        common: set[Label] | None = None
        for name in into | out:
            here = {p.label for pieces in self.atoms[name] for p in pieces if "heads" in self.kinds.get(p.label, [])}
            common = here if common is None else common & here
        known = [h for h in common or () if h in self.names and h is not label]
        return known[0] if len(known) == 1 else None

    def _laws(self, label: Label, place: dict[str, int]) -> list[Law]:
        """What gradient flow keeps, as far as the form of the layers shows it."""
        name, value, pair = self.names[label], self._plain(label), self._pair(label)
        head = self._head(label)
        per = None if head is None else self.names[head]
        out: list[Law] = []

        def ordered(names: Iterable[str]) -> list[str]:
            return sorted(names, key=lambda n: (-len(self.flow.shapes[n]), place[n]))

        into, reading, _ = self._makers(label)
        if pair is not None:
            out.append(_matrix(name, ordered(pair[0].made), ordered(pair[1].made), place, per))
        elif value is not None and not value.flags and value.stage == "linear":
            out.append(_matrix(name, ordered(into), ordered(reading), place, per))
        elif value is not None and value.stage == "pointwise" and value.flags <= {"pool"}:  # maxima scale with c > 0
            row = value.function
            if row is not None and row.homogeneity is not None and row.homogeneity >= 1:
                plus, minus, degree = ordered(into), ordered(reading), row.homogeneity
                out.append(_law(balance_text(plus, minus, degree), "balance", name, plus, minus, place, float(degree)))
        elif (gate := self._gated(label)) is not None:
            plus, minus = ordered(gate), ordered(reading)
            out.append(_law(balance_text(plus, minus), "balance", name, plus, minus, place, 1.0))
        normal = self.normal.get(label, [])
        if normal and all(made == normal[0] for made in normal):
            kernels = ordered(n for n in normal[0] if len(self.flow.shapes[n]) > 1)
            out.append(_law(balance_text(kernels, []), "scale", name, kernels, [], place, 1.0))
        return out


def _law(
    text: str, kind: Literal["balance", "scale"], name: str, plus: list[str], minus: list[str], place: dict[str, int],
    degree: float,
) -> Law:  # fmt: skip
    return Law(text, kind, name, tuple(place[n] for n in plus), tuple(place[n] for n in minus), None, degree)


def _matrix(name: str, plus: list[str], minus: list[str], place: dict[str, int], per: str | None) -> Law:
    text = " + ".join(f"({n})({n})^T" for n in plus) + "".join(f" - ({n})({n})^T" for n in minus)
    return Law(text, "matrix", name, tuple(place[n] for n in plus), tuple(place[n] for n in minus), per)
