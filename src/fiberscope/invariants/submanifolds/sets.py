"""Sets of parameters: linear ones, level sets of polynomials, and images of polynomial maps, all over Q."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.autodiff.symbols import Poly
from fiberscope.errors import InputError
from fiberscope.invariants.arguments import as_rationals

ExactArray = npt.NDArray[Any]


class LinearSet:
    """{theta : A theta = b}, with exact A (k, M) and b (k,).

    Args:
        equations: A, an exact array.
        offset: b, zero if None.

    Raises:
        InputError: if shapes do not fit or the set is empty.

    >>> pair = LinearSet([[1, -1, 0]])  # theta_0 = theta_1
    >>> pair.dimension, pair.contains([2, 2, 5]), pair.contains([1, 2, 5])
    (2, True, False)
    """

    def __init__(self, equations: npt.ArrayLike, offset: npt.ArrayLike | None = None) -> None:
        """Reduce the equations; redundant ones disappear."""
        matrix = _exact(equations)
        if matrix.ndim != 2:
            raise InputError(f"equations of shape {matrix.shape}; expected a matrix (k, M)")
        k = len(matrix)
        self.size: int = matrix.shape[1]
        right = np.zeros(k) if offset is None else _exact(offset)
        if right.shape != (k,):
            raise InputError(f"{k} equations with right-hand sides of shape {right.shape}; expected ({k},)")
        both = np.concatenate([rationals.fractions(matrix), rationals.fractions(right)[:, None]], axis=1)
        self._pivots, form = rationals.row_reduce(both)
        if self.size in self._pivots:
            raise InputError("the equations contradict each other: the set is empty")
        self._form = rationals.fractions(form)

    @classmethod
    def fixed_by(cls, projector: npt.ArrayLike) -> LinearSet:
        """The range of a projector P, {theta : P theta = theta}.

        Raises:
            InputError: if P^2 is not P.

        >>> half = Fraction(1, 2)
        >>> LinearSet.fixed_by([[half, half], [half, half]]).dimension
        1
        """
        matrix = _exact(projector)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"projector of shape {matrix.shape}; expected a square matrix")
        if not rationals.equal(rationals.matmul(matrix, matrix), matrix):
            raise InputError("the matrix is no projector: its square differs from it")
        return cls(rationals.fractions(matrix) - rationals.fractions(np.eye(len(matrix))))

    @property
    def equations(self) -> ExactArray:
        """A in reduced row echelon form, (codimension, M), Fractions."""
        return self._form[:, : self.size]

    @property
    def offset(self) -> ExactArray:
        """The right-hand sides of these, (codimension,)."""
        return self._form[:, self.size]

    @property
    def codimension(self) -> int:
        """Number of independent equations."""
        return len(self._pivots)

    @property
    def dimension(self) -> int:
        """M - codimension."""
        return self.size - self.codimension

    @cached_property
    def directions(self) -> ExactArray:
        """A basis of {v : A v = 0}, (M, dimension), Fractions."""
        return null_basis(self.equations)

    @cached_property
    def free(self) -> npt.NDArray[np.int64]:
        """The coordinates that the others are functions of, (dimension,)."""
        return np.setdiff1d(np.arange(self.size), np.array(self._pivots, dtype=np.int64))

    @cached_property
    def _solved(self) -> dict[int, tuple[dict[int, Fraction], Fraction]]:
        """Each other coordinate as coefficients of free ones and a constant."""
        out = {}
        for pivot, row, right in zip(self._pivots, self.equations, self.offset, strict=True):
            out[pivot] = ({int(j): -row[j] for j in np.flatnonzero(row != 0) if j != pivot}, right)
        return out

    @property
    def point(self) -> ExactArray:
        """One point of the set, (M,), Fractions: the free coordinates are 0."""
        return self._at([Fraction(0)] * self.dimension)

    def _at(self, values: Sequence[Fraction]) -> ExactArray:
        out = np.full(self.size, Fraction(0), dtype=object)
        out[self.free] = values
        for pivot, (terms, constant) in self._solved.items():
            out[pivot] = sum((c * out[j] for j, c in terms.items()), constant)
        return out

    def restricted(self, terms: Mapping[int, Fraction]) -> tuple[dict[int, Fraction], Fraction]:
        """The linear function sum_k terms[k] theta_k on the set: coefficients of free coordinates, and a constant.

        It vanishes on the set exactly if both are zero.

        >>> LinearSet([[1, -1, 0]], [5]).restricted({0: Fraction(1), 1: Fraction(-1)})
        ({}, Fraction(5, 1))
        """
        out: dict[int, Fraction] = {}
        total = Fraction(0)
        for k, c in terms.items():
            parts, constant = self._solved.get(k, ({k: Fraction(1)}, Fraction(0)))
            total += c * constant
            for j, d in parts.items():
                out[j] = out.get(j, Fraction(0)) + c * d
        return {j: c for j, c in out.items() if c}, total

    def constant(self, terms: Mapping[int, Fraction]) -> Fraction | None:
        """The value of sum_k terms[k] theta_k if it is the same everywhere on the set, else None."""
        moving, value = self.restricted(terms)
        return None if moving else value

    def contains(self, theta: npt.ArrayLike) -> bool:
        """Whether A theta = b, exactly."""
        vector = _exact(theta)
        if vector.shape != (self.size,):
            raise InputError(f"theta has shape {vector.shape}; the set lives in {self.size} parameters")
        return not self.codimension or rationals.equal(rationals.matmul(self.equations, vector), self.offset)

    def draw(self, rng: np.random.Generator) -> ExactArray:
        """A random point of the set, (M,): the free coordinates are nonzero eighths between -2 and 2."""
        eighths = rng.integers(1, 17, self.dimension) * rng.choice([-1, 1], self.dimension)
        return self._at([Fraction(int(k), 8) for k in eighths])

    def intersection(self, other: LinearSet) -> LinearSet:
        """The common points of two linear sets.

        Raises:
            InputError: if there are none.
        """
        rows = np.concatenate([self.equations, other.equations])
        return LinearSet(rows, np.concatenate([self.offset, other.offset]))

    def polys(self) -> list[Poly]:
        """The parameters as polynomials of degree at most 1 in the free coordinates, which are symbols 0, 1, ..."""
        place = {int(k): j for j, k in enumerate(self.free)}
        out = []
        for k in range(self.size):
            terms, constant = self.restricted({k: Fraction(1)})
            out.append(Poly({((place[j], 1),): c for j, c in terms.items()}) + constant)
        return out

    def __str__(self) -> str:
        """Its dimension."""
        return f"a linear set of dimension {self.dimension} in {self.size} parameters"


@dataclass(frozen=True)
class LevelSet:
    """{theta : g_1(theta) = ... = g_k(theta) = 0} for polynomials g in the parameters 0, ..., size - 1.

    >>> circle = LevelSet.of(lambda t: t[0] ** 2 + t[1] ** 2 - 1, 2)
    >>> circle.contains([Fraction(3, 5), Fraction(4, 5)])
    True
    """

    polynomials: tuple[Poly, ...]
    size: int

    @classmethod
    def of(cls, function: Callable[[list[Any]], Any], size: int) -> LevelSet:
        """From a function of the list of parameters that uses + - * and powers only; it may return several values.

        Raises:
            InputError: if it returns anything but polynomials.
        """
        found = function([Poly.symbol(k) for k in range(size)])
        rows = list(found) if isinstance(found, list | tuple) else [found]
        if not rows or not all(isinstance(g, Poly | int | Fraction) for g in rows):
            raise InputError("the function of a level set must return polynomials in the parameters")
        return cls(tuple(Poly.of(g) for g in rows), size)

    def contains(self, theta: npt.ArrayLike) -> bool:
        """Whether every polynomial vanishes, exactly."""
        point = rationals.fractions(_exact(theta))
        return not any(g.at(lambda k: point[k]) for g in self.polynomials)

    def gradients(self) -> list[list[Poly]]:
        """Partial derivatives of each polynomial."""
        return [[g.derivative(k) for k in range(self.size)] for g in self.polynomials]

    def linear(self) -> LinearSet | None:
        """The same set by linear equations, if all polynomials have degree at most 1."""
        if any(g.degree > 1 for g in self.polynomials):
            return None
        matrix = np.full((len(self.polynomials), self.size), Fraction(0), dtype=object)
        right = np.full(len(self.polynomials), Fraction(0), dtype=object)
        for k, g in enumerate(self.polynomials):
            for m, c in g.terms.items():
                if m:
                    matrix[k, m[0][0]] = Fraction(c)
                else:
                    right[k] = -Fraction(c)
        return LinearSet(matrix, right)

    def draw(self, rng: np.random.Generator, tries: int = 20) -> ExactArray | None:
        """A random rational point, or None: each polynomial is solved for a parameter that occurs in it linearly."""
        for _ in range(tries):
            eighths = rng.integers(1, 17, self.size) * rng.choice([-1, 1], self.size)
            point = np.array([Fraction(int(k), 8) for k in eighths], dtype=object)
            used: set[int] = set()
            for g in self.polynomials:
                k = _solved_for(g, used, rng)
                if k is None:
                    break
                slope = g.derivative(k).at(point.__getitem__)
                if not slope:
                    break
                point[k] -= g.at(point.__getitem__) / slope
                used |= {k}
            if self.contains(point):
                return point
        return None

    def bracket(self, rng: np.random.Generator, tries: int = 20) -> tuple[ExactArray, int, Fraction] | None:
        """A real point of the set of one polynomial: (theta, k, high) says theta_k <= k-th coordinate <= high.

        The other coordinates are theta's; the polynomial changes sign between the ends, which are 2^-70 apart. None if
        no sign change was met, or there are several polynomials.
        """
        if len(self.polynomials) != 1 or not self.polynomials[0].symbols:
            return None
        g = self.polynomials[0]
        for _ in range(tries):
            eighths = rng.integers(1, 17, self.size) * rng.choice([-1, 1], self.size)
            point = np.array([Fraction(int(v), 8) for v in eighths], dtype=object)
            k = int(rng.choice(sorted(g.symbols)))

            def value(v: Fraction, point: ExactArray = point, k: int = k) -> Fraction:
                return Fraction(g.at(lambda i: v if i == k else point[i]))

            grid = [Fraction(n, 2) for n in range(-16, 17)]
            signs = [value(v) for v in grid]
            for low, high, a, b in zip(grid, grid[1:], signs, signs[1:], strict=False):
                if a * b >= 0:
                    continue
                for _ in range(70):
                    middle = (low + high) / 2
                    low, high = (middle, high) if value(middle) * a > 0 else (low, middle)
                point[k] = low
                return point, k, high
        return None

    def __str__(self) -> str:
        """Its number of equations."""
        return f"a level set of {len(self.polynomials)} polynomials in {self.size} parameters"


@dataclass(frozen=True)
class Parametrised:
    """{phi(s) : s in Q^dimension} near the points where phi is an immersion; phi is polynomial.

    Args:
        entries: the M parameters as polynomials in the symbols 0, ..., dimension - 1.
        dimension: number of coordinates s.

    >>> line = Parametrised.of(lambda s: [s[0], 2 * s[0] + 1], 1)
    >>> line.linear().contains([3, 7])
    True
    """

    entries: tuple[Poly, ...]
    dimension: int

    @classmethod
    def of(cls, function: Callable[[list[Any]], Sequence[Any]], dimension: int) -> Parametrised:
        """From a function of the list of coordinates that returns the list of parameters, by + - * and powers."""
        found = list(function([Poly.symbol(k) for k in range(dimension)]))
        if not all(isinstance(v, Poly | int | Fraction | float) for v in found):
            raise InputError("a parametrisation must return polynomials in its coordinates")
        return cls(tuple(Poly.of(v) for v in found), dimension)

    @property
    def size(self) -> int:
        """Number of parameters M."""
        return len(self.entries)

    def at(self, coordinates: Sequence[Fraction]) -> ExactArray:
        """phi(s), (M,)."""
        return np.array([p.at(lambda k: coordinates[k]) for p in self.entries], dtype=object)

    def jacobian(self, coordinates: Sequence[Fraction]) -> ExactArray:
        """Dphi(s), (M, dimension)."""
        rows = [[p.derivative(k).at(lambda i: coordinates[i]) for k in range(self.dimension)] for p in self.entries]
        return np.array(rows, dtype=object).reshape(self.size, self.dimension)

    def linear(self) -> LinearSet | None:
        """The image by equations, if phi is affine."""
        if any(p.degree > 1 for p in self.entries):
            return None
        zero = [Fraction(0)] * self.dimension
        rows = null_basis(self.jacobian(zero).T).T
        return LinearSet(rows, _apply(rows, self.at(zero)))

    def __str__(self) -> str:
        """Its dimension."""
        return f"the image of a polynomial map from {self.dimension} to {self.size} parameters"


Submanifold = LinearSet | LevelSet | Parametrised


def null_basis(matrix: ExactArray) -> ExactArray:
    """A basis of {v : matrix v = 0} as columns, (n, n - rank), Fractions.

    >>> null_basis(np.array([[1.0, 1.0]])).tolist()
    [[Fraction(-1, 1)], [Fraction(1, 1)]]
    """
    n = matrix.shape[1]
    pivots, form = rationals.row_reduce(matrix) if matrix.size else ((), np.zeros((0, n)))
    free = np.setdiff1d(np.arange(n), np.array(pivots, dtype=np.int64))
    out = np.full((n, free.size), Fraction(0), dtype=object)
    out[free, np.arange(free.size)] = Fraction(1)
    if pivots and free.size:
        out[list(pivots)] = -rationals.fractions(form)[:, free]
    return out


def _solved_for(g: Poly, used: set[int], rng: np.random.Generator) -> int | None:
    """A parameter that occurs in g with degree 1 and in no equation before."""
    good = [k for k in sorted(g.symbols - used) if k not in g.derivative(k).symbols]
    return int(rng.choice(good)) if good else None


def _apply(matrix: ExactArray, vector: ExactArray) -> ExactArray:
    if not vector.size:
        return np.full(len(matrix), Fraction(0), dtype=object)
    return rationals.matmul(matrix, vector)


def _exact(values: npt.ArrayLike) -> ExactArray:
    return as_rationals(values, "equations over the rationals were expected")
