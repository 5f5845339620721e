"""Expectations of polynomials on the sphere, with each other and with |x_H|, and whether one vanishes there."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fiberscope.meanfield.harmonics.kernels import half_gamma_ratio

FloatArray = NDArray[np.float64]
Terms = dict[tuple[int, ...], float]
_DERIVATIVES = 1_000_000


def by_degree(terms: Mapping[tuple[int, ...], float]) -> dict[int, Terms]:
    """The homogeneous parts of a polynomial.

    >>> by_degree({(1, 0): 1.0, (0, 1): 2.0, (0, 0): 3.0})
    {1: {(1, 0): 1.0, (0, 1): 2.0}, 0: {(0, 0): 3.0}}
    """
    parts: dict[int, Terms] = defaultdict(dict)
    for exponents, value in terms.items():
        parts[sum(exponents)][exponents] = value
    return dict(parts)


def inner_product(left: Mapping[tuple[int, ...], float], right: Mapping[tuple[int, ...], float], d: int) -> float:
    """E[p(x) q(x)] for x ~ U(S^{d-1}): pairs of terms whose exponents add up to even numbers.

    E[x^a] = prod_i (a_i - 1)!! / (d (d+2) ... (d + |a| - 2)).

    >>> inner_product({(1, 0): 1.0}, {(1, 0): 1.0}, 2)
    0.5
    """
    classes: dict[tuple[int, ...], tuple[list[tuple[int, ...]], list[float]]] = defaultdict(lambda: ([], []))
    for exponents, value in right.items():
        rows, values = classes[tuple(e % 2 for e in exponents)]
        rows.append(exponents)
        values.append(value)
    arrays = {key: (np.array(rows), np.array(values)) for key, (rows, values) in classes.items()}
    top = max((sum(e) for e in left), default=0) + max((sum(e) for e in right), default=0)
    double = np.ones(top + 2)
    for e in range(2, top + 2, 2):
        double[e] = double[e - 2] * (e - 1)
    falls = np.cumprod([1.0, *(1.0 / (d + 2 * j) for j in range(top // 2 + 1))])
    parts = []
    for exponents, value in left.items():
        key = tuple(e % 2 for e in exponents)
        if key in arrays:
            sums = arrays[key][0] + np.array(exponents)
            moments = np.prod(double[sums], axis=1) * falls[sums.sum(axis=1) // 2]
            parts.append(value * float(moments @ arrays[key][1]))
    return math.fsum(parts)


def vanishes(terms: Mapping[tuple[int, ...], float]) -> bool:
    """Whether a polynomial is 0 on the unit sphere of its variables, by its exact values at rational points of it.

    Terms of one degree cannot cancel there, so mixed degrees only are evaluated: at three points
    (2t, 1 - |t|^2) / (1 + |t|^2) with t of random 31-bit entries, where a nonzero polynomial of degree k is 0 with
    probability at most (2k / 2^31)^3. Coefficients are taken as the rationals they are. O(terms x degree).

    >>> vanishes({(1, 0): 0.1, (3, 0): -0.1, (1, 2): -0.1}), vanishes({(1, 0): 0.1, (3, 0): -0.1})
    (True, False)
    """
    live = {e: Fraction(c) for e, c in terms.items() if c}
    if len({sum(e) for e in live}) < 2:
        return not live
    d = len(next(iter(live)))
    draw = random.Random(d)
    top = max(sum(e) for e in live)
    for _ in range(3):
        t = [draw.getrandbits(31) for _ in range(d - 1)]
        square = sum(v * v for v in t)
        point, scale = [*(2 * v for v in t), 1 - square], 1 + square
        total = Fraction(0)
        for exponents, value in live.items():
            factors = (point[i] ** e for i, e in enumerate(exponents) if e)
            # homogeneous coordinates: all terms over scale^top
            total += value * math.prod(factors, start=scale ** (top - sum(exponents)))
        if total:
            return False
    return True


def norm_moment(terms: Mapping[tuple[int, ...], float], inside: FloatArray, n: int, d: int) -> float | None:
    """E[|x_H| p(F x)] for x ~ U(S^{d-1}), H of dimension n and F of orthonormal rows (k, d); p by its terms.

    With g = |g| x standard normal, E[|g_H| p] is an expectation over g_H-perp, the heat flow exp(Lap_perp / 2), and
    over g_H, whose norm and direction are independent: for p of degree 2m, r_n = E|g_H| and (a)_j rising factorials,
    E = r_n / r_d / (4^m ((d+1)/2)_m) sum_j ((n+1)/2)_j / ((n/2)_j j! (m-j)!) Lap_H^j Lap_perp^{m-j} p.
    Term by term for an H of coordinates; for others by derivatives, whose number is bounded: None beyond.

    Args:
        terms: of p, a polynomial in k variables.
        inside: (k, k), F P F^T for the projector P to H.
        n: dimension of H.
        d: dimension of x.

    >>> found = norm_moment({(2, 0): 1.0}, np.diag([1.0, 0.0]), 1, 2)  # E |x_1|^3 on the circle
    >>> round((found or 0.0) * 3 * math.pi, 12)
    4.0
    """
    even = {e: c for e, c in terms.items() if not sum(e) % 2}
    straight = bool(np.all(inside == np.diag(np.diag(inside))) and np.isin(np.diag(inside), (0.0, 1.0)).all())
    if not straight and sum(math.prod(i + 1 for i in e) * (1 + sum(e) // 2) for e in even) > _DERIVATIVES:
        return None
    parts = []
    for k, part in by_degree(even).items():
        m = k // 2
        factor = half_gamma_ratio(n) / half_gamma_ratio(d)
        factor /= math.prod(4 * ((d + 1) / 2 + i) for i in range(m))
        for j, value in enumerate(_split(part, m, np.diag(inside)) if straight else _derived(part, m, inside)):
            share = math.prod(((n + 1) / 2 + i) / ((n / 2 + i) * (i + 1)) for i in range(j)) / math.factorial(m - j)
            parts.append(factor * share * value)
    return math.fsum(parts)


def _split(terms: Terms, m: int, marks: FloatArray) -> list[float]:
    """Lap_H^j Lap_perp^{m-j} p for j = 0..m, H of the marked coordinates: products of (2a)!/a! times j! (m-j)!."""
    found: list[list[float]] = [[] for _ in range(m + 1)]
    for exponents, value in terms.items():
        if any(e % 2 for e in exponents):
            continue
        j = sum(e for e, mark in zip(exponents, marks, strict=True) if mark) // 2
        count = math.prod(math.factorial(e) // math.factorial(e // 2) for e in exponents if e)
        found[j].append(value * math.factorial(j) * math.factorial(m - j) * count)
    return [math.fsum(part) for part in found]


def _derived(terms: Terms, m: int, inside: FloatArray) -> list[float]:
    """The same for any H: Lap_H and Lap_perp as sums of second derivatives."""
    outside = np.eye(len(inside)) - inside
    found, along = [], terms
    for j in range(m + 1):
        rest = along
        for _ in range(m - j):
            rest = _traced(rest, outside)
        found.append(math.fsum(rest.values()))
        along = _traced(along, inside)
    return found


def _traced(terms: Mapping[tuple[int, ...], float], matrix: FloatArray) -> Terms:
    """Sum over i, j of matrix_ij times the second derivative in x_i and x_j."""
    total: Terms = defaultdict(float)
    for exponents, value in terms.items():
        axes = [i for i, e in enumerate(exponents) if e]
        for i in axes:
            for j in axes:
                count = exponents[i] * (exponents[j] - (i == j))
                if count and matrix[i, j]:
                    lower = list(exponents)
                    lower[i] -= 1
                    lower[j] -= 1
                    total[tuple(lower)] += value * count * float(matrix[i, j])
    return dict(total)
