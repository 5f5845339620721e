"""The residual stream of transformers that cannot be traced: guessed from sizes, kept if the test agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fiberscope.training.architectures.architecture import Architecture, Axis, Parameters, Population, Role, Slot

NAME = "stream"


def with_stream(
    architecture: Architecture, module: Any, parameters: Parameters, evaluate: Callable[[Parameters], Any]
) -> Architecture:
    """The architecture with the residual stream as a population, if one labelling of the axes of its size is right.

    Tried are all axes that have the model's width, then the same without the outputs of square layers outside of the
    repeated blocks (poolers). A labelling is kept if permuting it leaves the function as it is at random parameters.

    Args:
        architecture: what is known.
        module: with a `config` that says the width.
        parameters: of the module.
        evaluate: outputs from parameters.

    A few evaluations.
    """
    from fiberscope.training.architectures.exchange import defects

    config = getattr(module, "config", None)
    found = (getattr(config, name, None) for name in ("hidden_size", "n_embd", "d_model", "dim"))
    width = next((n for n in found if isinstance(n, int) and n > 1), None)
    if width is None or NAME in architecture.named:
        return architecture
    for whole in (True, False):
        slots, new = _labelled(architecture, module, parameters, width, whole)
        if sum(a is not None and a.population == NAME for s in slots for a in s.axes) < 3:
            return architecture
        alone = tuple(replace(s, axes=tuple(a if a and a.population == NAME else None for a in s.axes)) for s in slots)
        stream = Population(NAME, width, "stream")
        if defects(Architecture(alone, (stream,)), parameters, evaluate)[NAME] == 0.0:
            left = tuple(s for s in architecture.skipped if not {s.name, f"{s.name}.weight"} & new)
            return replace(architecture, slots=slots, populations=(stream, *architecture.populations), skipped=left)
    return architecture


def _labelled(
    architecture: Architecture, module: Any, parameters: Parameters, width: int, whole: bool
) -> tuple[tuple[Slot, ...], set[str]]:
    """Slots with every axis of that length labelled, and the names of those that are new."""
    slots = [_more(slot, width) for slot in architecture.slots]
    known = {slot.name for slot in slots}
    new: set[str] = set()
    for path, part in module.named_modules():
        kind = type(part).__name__
        outside = not whole and not any(piece.isdigit() for piece in path.split("."))
        for name, value in part.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            shape = tuple(int(n) for n in value.shape)
            if full in known or full not in parameters:
                continue
            square = kind in ("Linear", "Conv1D") and tuple(part.weight.shape) == (width, width)
            axes = list(_axes(kind, shape, width, pooling=outside and square))
            if any(axes):
                slots.append(Slot(full, shape, shape, tuple(axes)))
                new.add(full)
    return tuple(slots), new


def _axes(kind: str, shape: tuple[int, ...], width: int, *, pooling: bool) -> Iterator[Axis | None]:
    reads = {"Linear": 1, "Conv1D": 0}.get(kind) if len(shape) == 2 else None
    for k, n in enumerate(shape):
        role: Role = "out" if k == reads else "in"
        yield Axis(NAME, role) if n == width and not (pooling and role == "in") else None


def _more(slot: Slot, width: int) -> Slot:
    """The slot with its free axis of that length labelled; of a block's matrix that is the side of the stream."""
    known = {a.role for a in slot.axes if a is not None}
    role: Role = "out" if "in" in known else "in"
    free = [k for k, (n, a) in enumerate(zip(slot.view, slot.axes, strict=True)) if n == width and a is None]
    taken = -1 if slot.take is None else slot.take[0]
    axes = [Axis(NAME, role) if k in free and k != taken else a for k, a in enumerate(slot.axes)]
    return replace(slot, axes=tuple(axes))
