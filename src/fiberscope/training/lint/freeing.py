"""The smallest changes that take parameters off an invariant manifold, and how they are applied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError
from fiberscope.training.architectures.architecture import Architecture, Parameters, Role, Slot
from fiberscope.training.lint.starts import is_gain

Array = npt.NDArray[Any]
EditKind = Literal["split", "nudge", "redraw", "scatter"]


@dataclass(frozen=True)
class Edit:
    """What is changed in one population.

    Args:
        kind: "split" moves one outgoing entry inside each class, the sum of what the class sends unchanged; "nudge"
            moves one outgoing entry of each neuron; "redraw" draws the incoming weights anew; "scatter" adds noise to
            everything.
        population: whose neurons.
        classes: the neurons, class by class.
        factors: how much of the class's common output each of them sends, aligned with `classes`.
    """

    kind: EditKind
    population: str
    classes: tuple[tuple[int, ...], ...]
    factors: tuple[tuple[Fraction, ...], ...] = ()

    @property
    def neurons(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(i for members in self.classes for i in members)


@dataclass(frozen=True, eq=False)
class Change:
    """A change of a few parameters that frees what a finding found.

    Args:
        description: what it does, in words.
        entries: how many parameters it changes.
        function_kept: whether the model computes the same function afterwards, up to the rounding of those entries.
        edits: the same as data.
        architecture: where the neurons' parameters are.
    """

    description: str
    entries: int
    function_kept: bool
    edits: tuple[Edit, ...]
    architecture: Architecture

    def apply(self, parameters: Parameters, *, scale: float = 0.5, seed: int = 0) -> dict[str, Any]:
        """The parameters after the change: a new mapping; tensors that do not change are the given ones.

        Args:
            parameters: names and arrays, of the model that was looked at or of another with the same shapes.
            scale: size of the change, relative to the entries of the tensor (or to 1 / sqrt(fan-in) where they are 0).
            seed: of what is drawn.

        Raises:
            InputError: if a parameter is missing or of another shape, or the scale is not positive.

        O(size of the tensors that change).
        """
        if not 0 < scale < math.inf:
            raise InputError(f"scale {scale}; give a number > 0")
        out = dict(parameters.items())
        rng = np.random.default_rng(seed)
        for edit in self.edits:
            _EDITS[edit.kind](self.architecture, out, edit, scale, rng)
        return out

    def scattered(self) -> Change:
        """The larger change for where this one does not do: noise on every parameter of the same neurons."""
        edits = tuple(
            Edit("scatter", name, (tuple(sorted({i for e in self.edits if e.population == name for i in e.neurons})),))
            for name in dict.fromkeys(e.population for e in self.edits)
        )
        count = sum(_entries(self.architecture, e.population) * len(e.neurons) for e in edits)
        return Change("noise on all weights of these neurons", count, False, edits, self.architecture)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the architecture."""
        return {"description": self.description, "entries": self.entries, "function_kept": self.function_kept}


def offsets(k: int) -> list[int]:
    """Distinct whole numbers with sum 0, as few of them nonzero as possible: how k equal neurons share an entry.

    Neurons that are left alone stay equal, so k - 1 entries must change; two numbers of sum 0 are both nonzero.

    Args:
        k: >= 2.

    >>> offsets(2), offsets(3), offsets(4)
    ([1, -1], [0, 1, -1], [0, 1, 2, -3])
    """
    if k == 2:
        return [1, -1]
    out = [0] if k % 2 else [0, 1, 2, -3]
    step = 1 if k % 2 else 4
    while len(out) < k:
        out += [step, -step]
        step += 1
    return out


def splitting(architecture: Architecture, parts: Sequence[Edit], what: str) -> Change:
    """The change that splits classes: one outgoing entry in each, k - 1 of k neurons (both for k = 2).

    The neurons of a class send f_i h with one common h, so sum_i f_i d_i = 0 keeps the function, and different d_i make
    different neurons: their gradients differ from then on.
    """
    count = sum(sum(o != 0 for o in offsets(len(m))) for e in parts if e.kind == "split" for m in e.classes)
    count += sum(len(e.neurons) for e in parts if e.kind == "nudge")
    drawn = [e for e in parts if e.kind == "redraw"]
    count += sum(_entries(architecture, e.population, "in", weights=True) * len(e.neurons) for e in drawn)
    kept = not drawn and all(_outlet(architecture, e.population)[1] for e in parts)
    text = f"move one outgoing weight of all but one neuron of each {what}, the sum over the class unchanged"
    text += "; draw incoming weights at random where there are none" if drawn else ""
    return Change(text, count, kept, tuple(parts), architecture)


def redrawing(architecture: Architecture, parts: Sequence[Edit], *, kept: bool, shifts: int = 0) -> Change:
    """The change that draws the incoming weights of silent neurons anew (one nonzero entry each would do).

    `shifts` biases and gains that would keep them silent change with them: negative biases to 0, zero gains to 1.
    """
    count = shifts + sum(_entries(architecture, e.population, "in", weights=True) * len(e.neurons) for e in parts)
    ends = "their outgoing weights stay 0" if kept else "what they send changes the function"
    text = f"draw the incoming weights at random; {ends}"
    return Change(text, count, kept, tuple(parts), architecture)


def _entries(architecture: Architecture, name: str, role: Role | None = None, *, weights: bool = False) -> int:
    """Parameters of one neuron, in a role."""
    total = 0
    for s, axis, found in architecture.places[name]:
        shape = _cut_shape(architecture.slots[s])
        if role in (None, found) and not (weights and len(shape) == 1):
            total += math.prod(shape) // shape[axis]
    return total


def _cut_shape(slot: Slot) -> tuple[int, ...]:
    shape = list(slot.view)
    if slot.take is not None:
        shape[slot.take[0]] = slot.take[2] - slot.take[1]
    return tuple(shape)


def _outlet(architecture: Architecture, name: str) -> tuple[tuple[int, int] | None, bool]:
    """The (slot, axis) where outgoing entries are moved, and whether moving them with sum 0 keeps the function."""
    places = architecture.places[name]
    for s, axis, role in places:
        alone = sum(a is not None and a.population == name for a in architecture.slots[s].axes) == 1
        tied = any(r == "in" and architecture.slots[t].name == architecture.slots[s].name for t, _, r in places)
        if role == "out" and alone and not tied:
            return (s, axis), True
    for wanted in ("in", "out"):
        for s, axis, role in places:
            if role == wanted:
                return (s, axis), False
    return None, False


def _writable(slot: Slot, out: dict[str, Any]) -> Array:
    """A view, in the shape of the slot, into a fresh copy of the parameter that takes the old one's place."""
    slot.read(out)
    fresh = np.array(np.asarray(out[slot.name]), order="C")
    out[slot.name] = fresh
    return slot.cut(fresh.reshape(slot.view))


def _rows_of(slot: Slot, axis: int, out: dict[str, Any]) -> Array:
    """(count, ...) view with the neurons first."""
    return np.moveaxis(_writable(slot, out), axis, 0)


def _unit(values: Array, scale: float, spread: int) -> Fraction:
    """A power of two near scale * (typical entry) / spread, so that adding multiples of it rounds little."""
    floats = np.asarray(rationals.rounded(values, np.float64) if rationals.is_rational(values) else values, np.float64)
    size = float(np.sqrt(np.mean(floats**2))) if floats.size else 0.0
    if not size > 0 or not math.isfinite(size):
        size = 1.0 / math.sqrt(max(1, floats.shape[0]))
    return Fraction(2) ** math.floor(math.log2(scale * size / spread))


def _column(rows: Array, members: Sequence[int]) -> tuple[int, ...]:
    """Where the class sends most: the index of that entry."""
    first = rows[members[0]]
    flat = first.reshape(-1)
    sizes = np.array([abs(float(v)) for v in flat]) if flat.dtype == object else np.abs(flat)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(sizes)), first.shape)) if first.shape else ()


def _add(rows: Array, at: tuple[int, ...], amount: Fraction) -> None:
    old = rows[at]
    rows[at] = old + amount if rows.dtype == object else float(old) + float(amount)


def _split(
    architecture: Architecture, out: dict[str, Any], edit: Edit, scale: float, _rng: np.random.Generator
) -> None:
    place, _ = _outlet(architecture, edit.population)
    if place is None:
        raise InputError(f"no parameter of {edit.population!r} can be split")
    rows = _rows_of(architecture.slots[place[0]], place[1], out)
    for members, factors in zip(edit.classes, edit.factors, strict=True):
        steps = offsets(len(members))
        unit, column = _unit(rows, scale, max(map(abs, steps))), _column(rows, members)
        for i, factor, step in zip(members, factors, steps, strict=True):
            if step:
                _add(rows, (i, *column), unit * step / factor)


def _nudge(architecture: Architecture, out: dict[str, Any], edit: Edit, scale: float, rng: np.random.Generator) -> None:
    place, _ = _outlet(architecture, edit.population)
    if place is None:
        raise InputError(f"no parameter of {edit.population!r} can be moved")
    rows = _rows_of(architecture.slots[place[0]], place[1], out)
    unit = _unit(rows, scale, 1)
    for i in edit.neurons:
        _add(rows, (i, *_column(rows, (i,))), unit * Fraction(rng.uniform(0.5, 1.0)))


def _redraw(
    architecture: Architecture, out: dict[str, Any], edit: Edit, scale: float, rng: np.random.Generator
) -> None:
    row = architecture.named[edit.population].activation
    gain = math.sqrt(2.0) if row is not None and row.pieces is not None and len(row.pieces) > 1 else 1.0
    pick = list(edit.neurons)
    for s, axis, role in architecture.places[edit.population]:
        if role != "in":
            continue
        rows = _rows_of(architecture.slots[s], axis, out)
        if rows.ndim == 1:
            gain_here = architecture.named[edit.population].normalised and is_gain(architecture.slots[s].name)
            for i in pick:
                if rows[i] < 0 or (gain_here and rows[i] == 0):
                    rows[i] = Fraction(int(gain_here)) if rows.dtype == object else int(gain_here)
            continue
        fan_in = math.prod(rows.shape[1:])
        # scale 0.5 gives the usual spread
        drawn = rng.standard_normal((len(pick), *rows.shape[1:])) * (2.0 * scale * gain / math.sqrt(fan_in))
        _put(rows, pick, drawn)


def _scatter(
    architecture: Architecture, out: dict[str, Any], edit: Edit, scale: float, rng: np.random.Generator
) -> None:
    pick = list(edit.neurons)
    for s, axis, _ in architecture.places[edit.population]:
        rows = _rows_of(architecture.slots[s], axis, out)
        noise = rng.standard_normal((len(pick), *rows.shape[1:])) * float(_unit(rows, scale, 1))
        _put(rows, pick, noise, add=True)


def _put(rows: Array, pick: list[int], values: npt.NDArray[np.float64], *, add: bool = False) -> None:
    if rows.dtype == object:
        exact = rationals.fractions(values)
        rows[pick] = rows[pick] + exact if add else exact
    else:
        rows[pick] = (rows[pick] + values if add else values).astype(rows.dtype)


_EDITS: Mapping[EditKind, Any] = {"split": _split, "nudge": _nudge, "redraw": _redraw, "scatter": _scatter}
