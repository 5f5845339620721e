"""Lie brackets of a family of vector fields at a point, exactly over residues or to rounding over floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from fiberscope.autodiff.families import Data, Family
from fiberscope.autodiff.jets import Jets
from fiberscope.autodiff.nilpotent import Nilpotent

Array = npt.NDArray[Any]


def brackets(family: Family, theta: Nilpotent, data: Sequence[Data], jets: Jets) -> list[Nilpotent]:
    """B_1 = X_1 and B_j = [X_j, B_(j-1)] = DB_(j-1) X_j - DX_j B_(j-1) for j = 2, ..., depth, at theta.

    Right-nested brackets of members of a family span its Lie algebra.

    Args:
        family: the vector fields.
        theta: the point, (1, M) or (batch, M).
        data: for each depth the data of the fields X_j, one field for each batch member.
        jets: derivatives of activations.

    Returns:
        [B_1, ..., B_depth], each (batch, M).

    Complexity: 2 depth - 1 evaluations of the fields, the one under j eps costing 3^j times as much.
    """
    return _nested(family, theta, data, jets, 0)


def _nested(family: Family, theta: Nilpotent, data: Sequence[Data], jets: Jets, bit: int) -> list[Nilpotent]:
    last = family.fields(theta, data[-1], jets)
    if len(data) == 1:
        return [last]
    inner = _nested(family, theta.along(last, bit), data[:-1], jets, bit + 1)
    below = [b.without(bit) for b in inner]
    first = inner[-1].part(bit)
    second = family.fields(theta.along(below[-1], bit), data[-1], jets).part(bit)
    zero = last.scaled(last.ring.constant(0))
    return [*below, (first or zero) - (second or zero)]
