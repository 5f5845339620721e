"""Families of affine vector fields theta -> A theta + c, infinitesimal symmetries behind conservation laws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.rings import Ring

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Entries = tuple[IntArray, IntArray, IntArray, IntArray]


@dataclass(frozen=True, eq=False)
class AffineFields:
    """Vector fields A_i theta + c_i on R^size with integer entries, i = 0, ..., count - 1, as sparse arrays.

    Args:
        size: M.
        count: number of fields.
        linear: (i, row, column, value) of each entry of the A_i.
        constant: (i, row, value) of each entry of the c_i.

    >>> from fiberscope.autodiff.rings import Floats
    >>> stretch = AffineFields.diagonal(3, [[([0, 1], 2), ([2], -2)]])
    >>> stretch.at(Floats(), np.array([1.0, 2.0, 3.0])).tolist()
    [[2.0, 4.0, -6.0]]
    """

    size: int
    count: int
    linear: Entries
    constant: tuple[IntArray, IntArray, IntArray]

    @classmethod
    def of(
        cls, size: int, count: int, linear: Sequence[Sequence[Any]], constant: Sequence[tuple[int, int, int]] = ()
    ) -> AffineFields:
        """From lists of (i, row, column, value) and (i, row, value); items may be arrays, which are broadcast."""
        parts = [np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, np.int64)) for v in entry)) for entry in linear]
        joined = [np.concatenate([p[j].reshape(-1) for p in parts]) if parts else _EMPTY for j in range(4)]
        table = np.array(constant, dtype=np.int64).reshape(-1, 3)
        fixed = (table[:, 0], table[:, 1], table[:, 2])
        return cls(size, count, (joined[0], joined[1], joined[2], joined[3]), fixed)

    @classmethod
    def diagonal(cls, size: int, fields: Iterable[Sequence[tuple[Any, int]]]) -> AffineFields:
        """Fields that multiply coordinates: for each field a list of (indices, factor)."""
        entries = [(i, index, index, factor) for i, field in enumerate(fields) for index, factor in field]
        return cls.of(size, 1 + max((entry[0] for entry in entries), default=-1), entries)

    @property
    def parity(self) -> int:
        """1 if all A_i are symmetric, -1 if all are skew and all c_i zero, 0 otherwise."""
        which, row, column, value = self.linear
        size = self.size
        there = _merged((which * size + row) * size + column, value)
        back = _merged((which * size + column) * size + row, value)
        if there == back:
            return 1
        skew = there == {key: -v for key, v in back.items()} and not len(self.constant[0])
        return -1 if skew else 0

    def at(self, ring: Ring, theta: Array) -> Array:
        """A_i theta + c_i over a ring, (count, M) for theta (M,). Dense."""
        which, row, column, value = self.linear
        out = np.zeros((self.count, self.size), dtype=theta.dtype)
        factors, index = np.unique(value, return_inverse=True)
        table = np.array([ring.constant(int(v)) for v in factors], dtype=theta.dtype)
        # each sum has few terms: residues below 2^31 do not overflow
        if len(value):
            np.add.at(out, (which, row), ring.multiply(theta[column], table[index]))
        which, row, value = self.constant
        if len(value):
            np.add.at(out, (which, row), np.array([ring.constant(int(v)) for v in value], dtype=theta.dtype))
        return np.asarray(ring.multiply(out, ring.constant(1)))

    def transposed(self) -> AffineFields:
        """The fields A_i^T theta."""
        which, row, column, value = self.linear
        return AffineFields(self.size, self.count, (which, column, row, value), _NOTHING)

    def restricted(self, kept: IntArray) -> AffineFields:
        """The fields on the coordinates `kept` where the others are zero and stay so; fields left empty are dropped."""
        place = np.full(self.size, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        which, row, column, value = self.linear
        inside = (place[row] >= 0) & (place[column] >= 0)
        first, where, amount = self.constant
        within = place[where] >= 0
        used, index = np.unique(np.concatenate([which[inside], first[within]]), return_inverse=True)
        cut = int(inside.sum())
        linear = (index[:cut], place[row[inside]], place[column[inside]], value[inside])
        return AffineFields(len(kept), len(used), linear, (index[cut:], place[where[within]], amount[within]))


def paired(
    size: int,
    incoming: IntArray,
    outgoing: IntArray,
    pairs: Sequence[tuple[int, int]],
    *,
    degree: int = 1,
    sign: int = 1,
) -> AffineFields:
    """The action of gl(n) on n neurons that a linear (sign 1, -1) or homogeneous (j = k only) activation allows.

    For each pair (j, k), with t_j, v_j the incoming and outgoing weights: t_j += t_k, t_k += sign t_j,
    v_j -= degree v_k, v_k -= sign degree v_j with sign 1 (the gradient of t_j.t_k - degree v_j.v_k); with sign -1 the
    rotation t_j += t_k, t_k -= t_j, and the same for v.

    Args:
        size: M.
        incoming: (n, a) indices of the t_j in theta.
        outgoing: (n, b) indices of the v_j.
        pairs: (j, k); j = k multiplies t_j by 2 and v_j by -2 degree.
        degree: of homogeneity.
        sign: 1 or -1.

    >>> from fiberscope.autodiff.rings import Floats
    >>> fields = paired(4, np.array([[0], [1]]), np.array([[2], [3]]), [(0, 0), (0, 1)])
    >>> fields.at(Floats(), np.array([1.0, 2.0, 3.0, 4.0])).tolist()
    [[2.0, 0.0, -6.0, 0.0], [2.0, 1.0, -4.0, -3.0]]
    """
    entries: list[Sequence[Any]] = []
    other = -degree if sign == 1 else 1
    for i, (j, k) in enumerate(pairs):
        for side, factor in ((incoming, 1), (outgoing, other)):
            entries += [(i, side[j], side[k], factor), (i, side[k], side[j], sign * factor)]
    return AffineFields.of(size, len(pairs), entries)


_EMPTY = np.zeros(0, dtype=np.int64)
_NOTHING = (_EMPTY, _EMPTY, _EMPTY)


def _merged(keys: IntArray, values: IntArray) -> dict[int, int]:
    out: dict[int, int] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        out[key] = out.get(key, 0) + value
    return {key: value for key, value in out.items() if value}
