"""Polynomials on the sphere: harmonic parts by Laplacians, potentials by Funk and Hecke. Exact.

On |x| = 1 a homogeneous p of degree k is a sum of harmonic polynomials h_{k-2i}, i = 0, ..., k/2. As
Lap(|x|^{2i} h_n) = 2i (2i + 2n + d - 2) |x|^{2i-2} h_n, the restrictions of Lap^l p to the sphere are a triangular
system in the h's, so each h_n is a combination of the Lap^l p there, and so is sum_n lam_n h_n.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count, as_finite, as_number, shown
from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.kernels import relu_eigenvalue, unit_rows
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import rows_of, span
from fiberscope.meanfield.targets.moments import Terms, by_degree, inner_product, vanishes

FloatArray = NDArray[np.float64]
_DEGREE = 40
_ENTRIES = 1 << 22


class Polynomial(Target):
    """f*(x) = sum over terms of coefficient * x^exponents, for x on the sphere. Exact.

    E[f* relu(b.x)] = |b| sum_n lam_n h_n(b/|b|), h_n the harmonic part of degree n (arXiv 2211.08771; Funk-Hecke).
    O(terms x degree) for each direction.

    Args:
        terms: {exponents: coefficient}, all exponents of one length d.
        frame: orthonormal rows H (k, d): the polynomial, of k variables, is then a function of H x.

    Raises:
        InputError: for no terms, exponents that do not fit, degree above 40, coefficients that are not finite.

    >>> f = Polynomial({(2, 0, 0): 1.0})  # x_1^2
    >>> f.potential(np.array([[1.0, 0.0, 0.0]]))[0], round(f.second_moment, 12), f.parity
    (array([0.125]), 0.2, 1)
    """

    def __init__(self, terms: Mapping[tuple[int, ...], float], *, frame: ArrayLike | None = None) -> None:
        self.terms = _checked(terms)
        self._variables = len(next(iter(self.terms))) if self.terms else _variables(terms)
        self.frame = None if frame is None else as_finite(frame, "frame").copy()
        if self.frame is not None and (
            self.frame.ndim != 2
            or len(self.frame) != self._variables
            or np.max(np.abs(self.frame @ self.frame.T - np.eye(self._variables))) > 1e-12
        ):
            raise InputError(f"a frame of shape {self.frame.shape}; give {self._variables} orthonormal rows")
        self.dimension = self._variables if self.frame is None else self.frame.shape[1]
        if self.dimension < 1:
            raise InputError("a polynomial in no variables; give exponents of length d >= 1")

    @classmethod
    def quadratic(cls, Q: ArrayLike, beta: ArrayLike | None = None, constant: float = 0.0) -> Polynomial:
        """x^T Q x + beta.x + constant; Q (d, d) is made symmetric.

        >>> Polynomial.quadratic([[1.0, 0.0], [0.0, -1.0]])(np.array([[0.6, 0.8]])).round(12)
        array([-0.28])
        """
        matrix = as_finite(Q, "Q")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"a quadratic form of shape {matrix.shape}; give a square matrix")
        d = len(matrix)
        slope = np.zeros(d) if beta is None else as_finite(beta, "beta")
        if slope.shape != (d,):
            raise InputError(f"beta of shape {slope.shape} for a quadratic form in {d} variables")
        terms: Terms = defaultdict(float)
        terms[(0,) * d] = as_number(constant, "constant")
        for i in range(d):
            terms[_power(d, i)] = float(slope[i])
            for j in range(d):
                if matrix[i, j]:
                    terms[_power(d, i, j)] += float(matrix[i, j])
        return cls(terms)

    def _inner(self, points: FloatArray) -> FloatArray:
        return points if self.frame is None else points @ self.frame.T

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d), on the sphere or off it."""
        return _Evaluator(self.terms, self._variables).values(self._inner(rows_of(points, self.dimension)))

    @cached_property
    def _weighted(self) -> _Evaluator:
        """A polynomial that equals sum_n lam_n h_n on the sphere."""
        return _Evaluator(self._harmonic_sum(lambda n: relu_eigenvalue(self.dimension, n)), self._variables)

    def _harmonic_sum(self, factor: object) -> Terms:
        total: Terms = defaultdict(float)
        for k, part in by_degree(self.terms).items():
            weights = harmonic_weights(self.dimension, k)
            powers = [part]
            for _ in range(k // 2):
                powers.append(laplacian(powers[-1]))
            scales = [factor(k - 2 * i) for i in range(k // 2 + 1)]  # type: ignore[operator]
            for step, terms in enumerate(powers):
                share = math.fsum(scales[i] * float(weights[i][step]) for i in range(len(powers)))
                for exponents, value in terms.items():
                    total[exponents] += share * value
        return {e: c for e, c in total.items() if c}

    def harmonic(self, n: int) -> Polynomial:
        """A polynomial that equals the harmonic part of degree n on the sphere.

        >>> Polynomial({(2, 0, 0): 3.0}).harmonic(0)(np.eye(3)[:1])
        array([1.])
        """
        found = self._harmonic_sum(lambda m: float(m == n))
        return Polynomial(found or _zero(self._variables), frame=self.frame)

    def times(self, factor: float) -> Polynomial:
        """The polynomial times a number."""
        return Polynomial({e: factor * c for e, c in self.terms.items()} or _zero(self._variables), frame=self.frame)

    def framed_like(self, other: Polynomial) -> bool:
        """Whether both are polynomials in the same variables."""
        if self.frame is None or other.frame is None:
            return self.frame is other.frame and self.dimension == other.dimension
        return self.frame.shape == other.frame.shape and bool(np.all(self.frame == other.frame))

    def plus(self, other: Polynomial) -> Polynomial:
        """The sum of two polynomials in the same variables."""
        terms: Terms = defaultdict(float, self.terms)
        for exponents, value in other.terms.items():
            terms[exponents] += value
        return Polynomial(terms or _zero(self._variables), frame=self.frame)

    def inner(self, other: Polynomial) -> float:
        """E[f g] for two polynomials."""
        if self.framed_like(other):
            return inner_product(self.terms, other.terms, self.dimension)
        return inner_product(self.unframed().terms, other.unframed().terms, self.dimension)

    def unframed(self) -> Polynomial:
        """The same function with its terms in all d coordinates, multiplied out."""
        if self.frame is None:
            return self
        return Polynomial(_substituted(self.terms, self.frame) or _zero(self.dimension))

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        rows = rows_of(directions, self.dimension)
        units, norms = unit_rows(rows)
        values, inner = self._weighted.both(self._inner(units))
        ambient = inner if self.frame is None else inner @ self.frame
        radial = np.einsum("md,md->m", ambient, units)
        gradients = ambient + (values - radial)[:, None] * units
        gradients[norms == 0] = 0.0
        return norms * values, gradients

    @cached_property
    def second_moment(self) -> float:
        """E[f*^2], from the moments of monomials on the sphere."""
        return max(0.0, inner_product(self.terms, self.terms, self.dimension))

    @cached_property
    def mean(self) -> float:
        """E[f*]."""
        return inner_product(self.terms, {(0,) * self._variables: 1.0}, self.dimension)

    @cached_property
    def linear_part(self) -> FloatArray:
        """E[f* x]."""
        k = self._variables
        found = np.array([inner_product(self.terms, {_power(k, i): 1.0}, self.dimension) for i in range(k)])
        return found if self.frame is None else found @ self.frame

    @cached_property
    def parity(self) -> int | None:
        """From the degrees of its terms, however small; odd or even terms that cancel on the sphere are recognised."""
        odd = {e: c for e, c in self.terms.items() if sum(e) % 2}
        even = {e: c for e, c in self.terms.items() if not sum(e) % 2}
        full = self._variables == self.dimension
        if not odd or full and vanishes(odd):
            return 1
        return -1 if not even or full and vanishes(even) else None

    @cached_property
    def _smallest(self) -> tuple[FloatArray, Terms]:
        """Terms that equal it on the sphere and depend on the smallest subspace known, and that subspace."""
        best = (_gradient_span(self.terms, self._variables), self.terms)
        if self.frame is None and max((sum(e) for e in self.terms), default=0) == 2:
            terms = self._shifted()
            found = _gradient_span(terms, self._variables)
            best = min([best, (found, terms)], key=lambda pair: len(pair[0]))
        return best

    @property
    def subspace(self) -> FloatArray:
        """The span of its gradients; for degree 2 less the multiple of |x|^2 - 1 that makes it smallest."""
        basis = self._smallest[0]
        return basis.copy() if self.frame is None else basis @ self.frame

    def restricted(self, basis: ArrayLike) -> Polynomial:
        """The polynomial z -> f*(sum_i z_i h_i) for the rows h_i (k, d) of its subspace, or of a larger one.

        >>> Polynomial({(2, 0, 0): 1.0, (0, 2, 0): 1.0}).restricted([[0.0, 0.0, 1.0]]).terms  # 1 - x_3^2
        {(2,): -1.0, (0,): 1.0}
        """
        rows = np.asarray(basis, float)
        lines = rows.T if self.frame is None else self.frame @ rows.T
        return Polynomial(_substituted(self._smallest[1], lines) or _zero(len(rows)))

    def _shifted(self) -> Terms:
        k = self._variables
        matrix = np.zeros((k, k))
        for exponents, value in self.terms.items():
            if sum(exponents) == 2:
                i, j = [i for i, e in enumerate(exponents) for _ in range(e)]
                matrix[i, j] += value / 2
                matrix[j, i] += value / 2
        spectrum = np.linalg.eigvalsh(matrix)
        gaps = np.abs(spectrum[:, None] - spectrum[None]) <= 1e-12 * np.max(np.abs(spectrum))
        shift = float(spectrum[int(np.argmax(gaps.sum(axis=1)))])
        # the diagonal entry itself where it is that eigenvalue, so that terms cancel exactly
        diagonal = np.diag(matrix)
        near = np.abs(diagonal - shift) <= 1e-12 * np.max(np.abs(spectrum))
        shift = float(diagonal[near][0]) if near.any() else shift
        terms: Terms = defaultdict(float, self.terms)
        for i in range(k):
            terms[_power(k, i, i)] -= shift
        # |x|^2 = 1: what was taken off comes back as a constant
        terms[(0,) * k] += shift
        slack = 1e-14 * max(abs(c) for c in terms.values())
        return {e: c for e, c in terms.items() if abs(c) > slack}


def laplacian(terms: Mapping[tuple[int, ...], float]) -> Terms:
    """The Laplacian of a polynomial given by its terms.

    >>> laplacian({(2, 1): 1.0, (0, 3): 1.0})
    {(0, 1): 8.0}
    """
    total: Terms = defaultdict(float)
    for exponents, value in terms.items():
        for i, e in enumerate(exponents):
            if e > 1:
                total[(*exponents[:i], e - 2, *exponents[i + 1 :])] += e * (e - 1) * value
    return dict(total)


def harmonic_weights(d: int, k: int) -> list[list[Fraction]]:
    """M with h_{k-2i} = sum_l M[i][l] Lap^l p on the sphere, for p homogeneous of degree k in d variables.

    >>> harmonic_weights(3, 2)[1]  # the mean of x^T Q x is tr(Q)/3, and Lap gives 2 tr(Q)
    [Fraction(0, 1), Fraction(1, 6)]
    """
    size = k // 2 + 1

    def factor(i: int, level: int) -> Fraction:
        value = Fraction(1)
        for r in range(level):
            value *= 2 * (i - r) * (2 * (i - r) + 2 * (k - 2 * i) + d - 2)
        return value

    # Lap^l p = sum_{i >= l} factor(i, l) h_{k-2i}: solved from the last one up
    rows: list[list[Fraction]] = [[Fraction(0)] * size for _ in range(size)]
    for level in range(size - 1, -1, -1):
        row = [Fraction(int(column == level)) for column in range(size)]
        for i in range(level + 1, size):
            scale = factor(i, level)
            row = [x - scale * y for x, y in zip(row, rows[i], strict=True)]
        rows[level] = [x / factor(level, level) for x in row]
    return rows


class _Evaluator:
    """Values and gradients of a polynomial: each term a product of `degree` columns, padded with ones."""

    def __init__(self, terms: Mapping[tuple[int, ...], float], variables: int) -> None:
        self._variables = variables
        degree = max((sum(e) for e in terms), default=0)
        slots = [[i for i, e in enumerate(exponents) for _ in range(e)] for exponents in terms]
        self._slots = np.array([s + [variables] * (degree - len(s)) for s in slots], dtype=np.int64)
        self._slots = self._slots.reshape(len(slots), degree)
        self._values = np.array(list(terms.values()), float)
        self._chunk = max(1, _ENTRIES // max(1, self._slots.size + len(slots)))

    def _factors(self, points: FloatArray) -> FloatArray:
        padded = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        return padded[:, self._slots]

    def values(self, points: FloatArray) -> FloatArray:
        """(n, k) -> (n,)."""
        parts = [
            np.prod(self._factors(points[i : i + self._chunk]), axis=2) @ self._values
            for i in range(0, len(points), self._chunk)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def both(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, k)."""
        values, gradients = np.zeros(len(points)), np.zeros((len(points), self._variables + 1))
        degree = self._slots.shape[1]
        hot = [np.eye(self._variables + 1)[self._slots[:, s]] * self._values[:, None] for s in range(degree)]
        for begin in range(0, len(points), self._chunk):
            rows = slice(begin, begin + self._chunk)
            factors = self._factors(points[rows])
            before = [np.ones(factors.shape[:2])]
            for s in range(degree):
                before.append(before[-1] * factors[:, :, s])
            values[rows] = before[-1] @ self._values
            after = np.ones(factors.shape[:2])
            for s in range(degree - 1, -1, -1):
                gradients[rows] += (before[s] * after) @ hot[s]
                after = after * factors[:, :, s]
        return values, gradients[:, : self._variables]


def _power(d: int, *axes: int) -> tuple[int, ...]:
    exponents = [0] * d
    for axis in axes:
        exponents[axis] += 1
    return tuple(exponents)


def _variables(terms: Mapping[tuple[int, ...], float]) -> int:
    return len(next(iter(terms)))


def _zero(d: int) -> Terms:
    return {(0,) * d: 0.0}


def _substituted(terms: Terms, lines: FloatArray) -> Terms:
    """The polynomial with x_i replaced by the linear function of the row lines[i], multiplied out."""
    total: Terms = defaultdict(float)
    for exponents, value in terms.items():
        product: Terms = {(0,) * lines.shape[1]: value}
        for i, e in enumerate(exponents):
            for _ in range(e):
                product = _by_line(product, lines[i])
        for key, part in product.items():
            total[key] += part
    return dict(total)


def _by_line(terms: Terms, line: FloatArray) -> Terms:
    total: Terms = defaultdict(float)
    for exponents, value in terms.items():
        for i in np.flatnonzero(line).tolist():
            total[(*exponents[:i], exponents[i] + 1, *exponents[i + 1 :])] += value * float(line[i])
    return total


def _checked(terms: Mapping[tuple[int, ...], float]) -> Terms:
    if not isinstance(terms, Mapping) or not terms or not all(isinstance(e, tuple) for e in terms):
        raise InputError(
            f"terms {shown(terms)}; give a polynomial as {{exponents: coefficient}}, such as {{(2, 0): 1.0}}"
        )
    lengths = {len(e) for e in terms}
    if len(lengths) != 1:
        raise InputError(f"exponents of lengths {sorted(lengths)}; all must have one length d")
    found: Terms = {}
    for exponents, value in terms.items():
        for e in exponents:
            as_count(e, f"exponents {shown(exponents)}")
        if sum(exponents) > _DEGREE:
            raise InputError(f"a term of degree {sum(exponents)}; degrees up to {_DEGREE} are supported")
        if size := as_number(value, f"coefficient of {exponents}"):
            found[tuple(int(e) for e in exponents)] = size
    return found


def _gradient_span(terms: Mapping[tuple[int, ...], float], variables: int) -> FloatArray:
    """Orthonormal rows of the smallest subspace the polynomial depends on, as a function on the whole space."""
    columns: dict[tuple[int, ...], FloatArray] = {}
    for exponents, value in terms.items():
        for i, e in enumerate(exponents):
            if e:
                lower = (*exponents[:i], e - 1, *exponents[i + 1 :])
                columns.setdefault(lower, np.zeros(variables))[i] += e * value
    # scaled by the size of the term, so that a tiny one counts as well
    return span(np.array(list(columns.values())).reshape(-1, variables))
