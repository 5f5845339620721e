"""The canonical form of a sum of ReLUs: a linear function and one kink |v.x| a line, cancellations decided exactly.

relu(z) = (z + |z|)/2, so sum_k c_k relu(b_k.x) = beta.x + sum over lines of load |u.x|. Products of floats are split
into two floats without error (Dekker) and added by `math.fsum`, so that a sum is 0 exactly where the terms cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.kernels import unit_rows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_ALIKE = 1e-12
_EPS = float(np.finfo(float).eps)
_LEAST = 1e-250
_SPLIT = 134217729.0  # 2^27 + 1


@dataclass(frozen=True, eq=False)
class KinkForm:
    """f(x) = beta.x + sum_l signs_l |lines_l.x|.

    Args:
        beta: (d,).
        signs: (l,) of entries +-1.
        lines: (l, d), no two of one line: rows times the sizes of their loads.
        rows: (l, d) directions, rows that were given times powers of two.
        loads: (l,) with f(x) = beta.x + sum_l loads_l |rows_l.x|.
        exact: whether beta, rows and loads are this function exactly: nothing rounded, no line merged or term left out
            by a tolerance.
    """

    beta: FloatArray
    signs: FloatArray
    lines: FloatArray
    rows: FloatArray
    loads: FloatArray
    exact: bool


def kink_form(c: FloatArray, B: FloatArray) -> KinkForm:
    """The canonical form of sum_k c_k relu(b_k.x).

    Rows that are proportional as rationals are one line, whose terms are added without error. Rows of one direction
    to 1e-12 are one line too where that changes their sum by no more than 1e-12 of itself, or by no more than rounding
    of the rows does; sums within 4 units of rounding of their own terms are left out. O(n d) for each line.

    Args:
        c: (n,).
        B: (n, d).

    >>> form = kink_form(np.array([1e13, -1e13, 1, 1]), np.array([[1.0, 0], [1, 0], [0, 1], [0, -1]]))
    >>> form.beta.tolist(), form.signs.tolist(), form.lines.tolist(), form.exact
    ([0.0, 0.0], [1.0], [[0.0, 1.0]], True)
    """
    d = B.shape[1]
    scale, c, B, exact = _scaled(c, B)
    loads, tilts, rows, straight = [], [], [], np.zeros(len(c), dtype=bool)
    for members in _clusters(unit_rows(B)[0]):
        for group, alike in _lines(c, B, members):
            load, tilt, sharp = _summed(c[group], B[group])
            pivot = float(np.max(np.abs(B[group[0]])))
            noise = 4 * _EPS * float(np.sum(np.abs(c[group]) * np.max(np.abs(B[group]), axis=1))) / pivot
            exact = exact and alike and sharp and all(v == 0 or abs(v) > noise for v in (load, tilt))
            straight[group] = abs(tilt) > noise
            loads.append(load if abs(load) > noise else 0.0)
            tilts.append(tilt if abs(tilt) > noise else 0.0)
            rows.append(B[group[0]])
    directions, kinks = np.array(rows).reshape(-1, d), np.array(loads)
    parts = np.concatenate(_products(c[straight, None], B[straight]))
    beta = np.array([math.fsum(column) for column in parts.T])
    exact = exact and all(math.fsum([*column, -total]) == 0 for column, total in zip(parts.T, beta, strict=True))
    # lines that stay may cancel as well: within rounding nothing is left of a coordinate
    noise_of = 4 * _EPS * (np.abs(np.array(tilts)) @ np.abs(directions))
    lost = (beta != 0) & (np.abs(beta) <= noise_of)
    beta[lost] = 0.0
    keep = kinks != 0
    with np.errstate(over="ignore"):
        beta, loads_kept = np.ldexp(beta, scale - 1), np.ldexp(kinks[keep], scale - 1)
        lines = directions[keep] * np.abs(loads_kept)[:, None]
    if not (np.isfinite(beta).all() and np.isfinite(lines).all()):
        raise InputError("a sum of ReLUs beyond the range of floats; scale its weights down")
    return KinkForm(beta, np.sign(loads_kept), lines, directions[keep], loads_kept, exact and not lost.any())


def _scaled(c: FloatArray, B: FloatArray) -> tuple[int, FloatArray, FloatArray, bool]:
    """The terms times 2^-scale, rows and weights below 1 in size by powers of two; False if digits were lost."""
    live = (c != 0) & np.any(B != 0, axis=1)
    c, B = c[live], B[live]
    if not len(c):
        return 0, c, B, True
    heights = np.frexp(np.max(np.abs(B), axis=1))[1]
    sizes, exponents = np.frexp(c)
    scale = int(np.max(exponents + heights))
    c, B = np.ldexp(sizes, exponents + heights - scale), np.ldexp(B, -heights[:, None])
    seen = c != 0
    least = float(np.min(np.abs(c[seen]))) * float(np.min(np.abs(B[B != 0])))
    return scale, c[seen], B[seen], bool(seen.all()) and least > _LEAST


def _clusters(units: FloatArray) -> list[IntArray]:
    """Rows whose directions up to sign agree to 1e-12 with that of the first of them."""
    first = np.argmax(np.abs(units) > 1e-9, axis=1)
    lines = units * np.sign(units[np.arange(len(units)), first])[:, None]
    rest = np.arange(len(lines))
    found = []
    while len(rest):
        near = np.max(np.abs(lines[rest] - lines[rest[0]]), axis=1) <= _ALIKE
        found.append(rest[near])
        rest = rest[~near]
    return found


def _lines(c: FloatArray, B: FloatArray, members: IntArray) -> list[tuple[IntArray, bool]]:
    """The members in classes of rational multiples (True), or all of them as one line (False) where rounding allows."""
    rest = members
    classes = []
    while len(rest):
        same = _proportional(B[rest], B[rest[0]])
        classes.append(rest[same])
        rest = rest[~same]
    if len(classes) == 1:
        return [(classes[0], True)]
    sums = [_summed(c[group], B[group])[0] * float(np.max(np.abs(B[group[0]]))) for group in classes]
    units = unit_rows(B[[group[0] for group in classes]])[0]
    signs = np.where(units @ units[0] > 0, 1.0, -1.0)
    gap = float(np.max(np.abs(units * signs[:, None] - units[0])))
    gross, net = sum(abs(v) for v in sums), abs(sum(sums))
    if gap * gross <= max(_ALIKE * net, 16 * _EPS * gross):
        return [(members, False)]
    return [(group, True) for group in classes]


def _proportional(rows: FloatArray, row: FloatArray) -> NDArray[np.bool_]:
    """Which rows are rational multiples of a row: b_i r_p = b_p r_i for its largest entry r_p, without rounding."""
    pivot = int(np.argmax(np.abs(row)))
    left, right = _products(rows, row[pivot]), _products(rows[:, pivot : pivot + 1], row)
    same: NDArray[np.bool_] = np.all((left[0] == right[0]) & (left[1] == right[1]), axis=1)
    return same


def _summed(c: FloatArray, B: FloatArray) -> tuple[float, float, bool]:
    """For rows b_k = t_k b_0 of one line: sum c_k |t_k|, sum c_k t_k, and whether the first is not rounded."""
    pivot = int(np.argmax(np.abs(B[0])))
    steps, unit = B[:, pivot], B[0, pivot]
    kinks, tilts = np.concatenate(_products(c, np.abs(steps))), np.concatenate(_products(c, steps))
    load = math.fsum(kinks) / abs(unit)
    back = np.ravel(_products(np.array([load]), np.abs(B[:1, pivot])))
    return load, math.fsum(tilts) / unit, math.fsum([*kinks, *(-back)]) == 0


def _products(left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rounded products and what rounding took off: their sum is the product, exactly (Dekker)."""
    product = left * right
    (a, b), (x, y) = _halves(left), _halves(right)
    error = b * y - (((product - a * x) - b * x) - a * y)
    return product, error


def _halves(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    big = _SPLIT * values
    high = big - (big - values)
    return high, values - high
