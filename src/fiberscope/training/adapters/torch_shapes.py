"""Where the axis of channels goes when a tensor is flattened, reshaped, transposed or indexed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fiberscope.training.adapters.torch_labels import Flow


@dataclass(frozen=True)
class Weight:
    """A parameter used by a function: its name and shape, transposed if `flipped`."""

    name: str
    shape: tuple[int, ...]
    flipped: bool = False


@dataclass(frozen=True)
class Pair:
    """Several values that a module returns together."""

    items: tuple[Any, ...]


def ranked(x: Any, shape: tuple[int, ...] | None) -> Any:
    """The same flow, knowing how many axes its tensor has."""
    return replace(x, rank=len(shape)) if isinstance(x, Flow) and shape is not None else x


def axis_from_end(x: Flow) -> int | None:
    """The axis of the channels counted from the end (-1 is the last), None if not known.

    >>> axis_from_end(Flow(0, 1, 4)), axis_from_end(Flow(0, -1)), axis_from_end(Flow(0, 1))
    (-3, -1, None)
    """
    if x.axis < 0:
        return x.axis
    return None if x.rank is None else x.axis - x.rank


def axis_from_front(x: Flow) -> int | None:
    """The axis of the channels counted from the front, None if not known."""
    if x.axis >= 0:
        return x.axis
    return None if x.rank is None else x.axis + x.rank


def is_last(x: Flow) -> bool:
    """Whether the channels lie along the last axis."""
    return axis_from_end(x) == -1


def same_axis(x: Flow, axis: int, rank: int | None) -> bool:
    """Whether the channels lie along an axis counted from the front; the last axis counts if the rank is not known.

    A layer's output of unknown rank is taken for a matrix of (samples, channels), where both are the same.
    """
    found = axis_from_front(replace(x, rank=x.rank if x.rank is not None else rank))
    return x.axis == -1 if found is None else found == axis


def same_place(a: Flow, b: Flow) -> bool:
    """Whether two flows have their channels along the same axis when they meet."""
    if a.axis == b.axis and (a.rank == b.rank or a.axis < 0 or None in (a.rank, b.rank)):
        return True
    first, second = axis_from_end(a), axis_from_end(b)
    return first is not None and first == second


def flattened(x: Flow, start: int, end: int) -> Flow | None:
    """The flow after flattening the axes from start to end, None if the channels are then lost.

    >>> flattened(Flow(0, 1, 4), 1, -1)
    Flow(group=0, axis=-1, rank=2, packed='major', stages=(), writer=-1)
    >>> flattened(Flow(0, 1, 4), 2, -1).rank
    3
    """
    axis, rank = axis_from_front(x), x.rank
    if rank is None or axis is None:
        if x.axis == -1 and end == -1 and start == 1:
            return replace(x, packed=x.packed or "minor")  # of a matrix this is the identity
        return replace(x, axis=-1, packed="major", rank=2) if (x.axis, start, end) == (1, 1, -1) else None
    first, last = start % rank, end % rank
    after = rank - (last - first)
    if axis > last:
        return replace(x, axis=axis - rank, rank=after)
    if axis < first:
        return replace(x, axis=axis, rank=after)
    if first == last:
        return x
    if x.packed or axis not in (first, last):
        return None
    place = first - after if last == rank - 1 else first
    return replace(x, axis=place, rank=after, packed="major" if axis == first else "minor")


def reshaped(x: Flow, count: int, before: Sequence[int], after: Sequence[int]) -> Flow | None:
    """The flow after a reshape between known shapes, None if the channels are then lost.

    >>> reshaped(Flow(0, 1, 4), 8, (2, 8, 3, 3), (2, 72)).packed
    'major'
    >>> reshaped(Flow(0, -1, 2), 8, (2, 8), (2, 8, 1, 1)).axis
    1
    >>> reshaped(Flow(0, -1, 3), 8, (2, 5, 8), (2, 5, 2, 4)) is None
    True
    """
    axis = axis_from_front(replace(x, rank=len(before)))
    if axis is None:
        return None
    lead, width = math.prod(before[:axis]), before[axis]
    done = 1
    for k, n in enumerate(after):
        if done == lead and n == width and (n != 1 or count == 1):
            return replace(x, axis=k, rank=len(after))
        if done == lead and not x.packed and n > width and n == width * math.prod(before[axis + 1 :]):
            return replace(x, axis=k, rank=len(after), packed="major")
        if not x.packed and done * n == lead * width and n > width and n % width == 0:
            return replace(x, axis=k, rank=len(after), packed="minor")
        done *= n
    return None


def permuted(x: Flow, order: Sequence[int], rank: int) -> Flow | None:
    """The flow after its axes were put in another order."""
    axis = axis_from_front(replace(x, rank=rank))
    places = [k for k, a in enumerate(order) if a % rank == axis]
    return replace(x, axis=places[0], rank=rank) if places else None


def reduced(x: Flow, axes: Sequence[int], keep: bool) -> Flow | None:
    """The flow after a mean or sum over axes; None if the channels are among them or the axes are not known."""
    if x.rank is None:
        from_end = axis_from_end(x)
        if from_end is not None and all(a < 0 and a > -100 for a in axes) and from_end not in axes and from_end == -1:
            return None if not keep and any(a > from_end for a in axes) else replace(x)
        return None
    axis = axis_from_front(x)
    gone = {a % x.rank for a in axes}
    if axis is None or axis in gone:
        return None
    if keep:
        return replace(x, axis=axis)
    return replace(x, axis=axis - sum(a < axis for a in gone), rank=x.rank - len(gone))


def indexed(x: Flow, index: Any) -> Flow | None:
    """The flow after x[index]; None if the channels are indexed, or it is not known."""
    if x.rank is None or x.packed:
        return None
    items = list(index) if isinstance(index, tuple) else [index]
    if any(i is None or not isinstance(i, int | slice | type(Ellipsis)) for i in items):
        return None
    if Ellipsis in items:
        k = items.index(Ellipsis)
        items[k : k + 1] = [slice(None)] * (x.rank - len(items) + 1)
    items += [slice(None)] * (x.rank - len(items))
    axis = axis_from_front(x)
    if axis is None or axis >= len(items) or items[axis] != slice(None):
        return None
    gone = sum(isinstance(i, int) for i in items)
    return replace(x, axis=axis - sum(isinstance(i, int) for i in items[:axis]), rank=x.rank - gone)
