"""Sums of products over some axes of large arrays: float32 products are not converted one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_LETTERS = "abcdefghijklm"
_SMALL = 4096
"""Arrays with fewer entries are summed in float64 at once."""
_RUN = 512
"""Neighbouring products that are added up in float32."""
_ROWS = 32
"""The same, one below the other."""
_TINY, _HUGE = 1e-25, 1e30


def sums(x: Array, y: Array, kept: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Sums of x y over all axes but the kept ones, which come first, in float64.

    float32 arrays whose kept axes are the first or the last ones are added up in float32 over runs of at most 512
    products (BLAS, which adds many partial sums side by side; 32 one by one), and the runs in float64: the error is
    about one unit of rounding of the sum of |x y|, which is what rounding of the entries themselves does. All else is
    summed in float64, and so are float32 arrays whose products would leave the range of float32.

    Args:
        x: of any shape.
        y: of the same shape.
        kept: axes.

    O(size), without a copy of the arrays.

    >>> sums(np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones((2, 2)), (1,))
    array([4., 6.])
    """
    count = len(kept)
    if x.ndim == count == 1:
        return np.multiply(x, y, dtype=np.float64)
    if x.dtype == y.dtype == np.float32 and x.size > _SMALL and x.flags.c_contiguous and y.flags.c_contiguous:
        shape = [x.shape[k] for k in kept]
        n = math.prod(shape)
        out = None
        if kept == tuple(range(count)):
            out = _along(x.reshape(n, -1), y.reshape(n, -1))
        elif kept == tuple(range(x.ndim - count, x.ndim)):
            out = _down(x.reshape(-1, n), y.reshape(-1, n))
        if out is not None and n and _TINY < max(float(out.max()), -float(out.min())) < _HUGE:
            return out.reshape(shape)
    letters = _LETTERS[: x.ndim]
    to = "".join(letters[k] for k in kept)
    return np.asarray(np.einsum(f"{letters},{letters}->{to}", x, y, dtype=np.float64))


def _along(x: Array, y: Array) -> npt.NDArray[np.float64]:
    """Sums of every row."""
    n, width = x.shape
    out = np.zeros(n)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, width, _RUN):
            out += np.vecdot(x[:, at : at + _RUN], y[:, at : at + _RUN])
    return out


def _down(x: Array, y: Array) -> npt.NDArray[np.float64]:
    """Sums of every column."""
    out = np.zeros(x.shape[1])
    for at in range(0, len(x), _ROWS):
        out += np.einsum("ij,ij->j", x[at : at + _ROWS], y[at : at + _ROWS])
    return out
