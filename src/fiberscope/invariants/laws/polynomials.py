"""Polynomial conservation laws found by linear algebra: all h of an ansatz with grad h . X = 0 for every field X.

The condition is linear in the coefficients of h: rows at random points and data modulo a prime, their kernel, and the
rational numbers behind its residues, checked modulo a second prime at new points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from math import comb
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.autodiff.families import Family
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Residues, Ring
from fiberscope.results import Result

Array = npt.NDArray[Any]

SECOND_PRIME = 2**31 - 19
"""The prime before 2^31 - 1."""
UNKNOWNS = 700
"""Largest number of coefficients of an ansatz."""


Draw = Callable[[Ring, np.random.Generator], Array]
Lift = Callable[[Residues, Array, Array], Array]


class Ansatz(Protocol):
    """Functions m_1, ..., m_n of the state, of whose combinations laws are sought."""

    @property
    def names(self) -> tuple[str, ...]:
        """The functions as text."""
        ...

    def slopes(self, ring: Residues, states: Array, directions: Array) -> Array:
        """The derivatives of each m_j at B states (B, N) along B directions (B, N), (B, n)."""
        ...


@dataclass(frozen=True, eq=False)
class GramAnsatz:
    """The entries of W W^T and W^T W of every parameter block, each pair once.

    Args:
        blocks: names and shapes; vectors count as one column.
    """

    blocks: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """<row i, row j> and <column i, column j>."""
        out: list[str] = []
        for name, m, n in self._matrices():
            out += [f"{name}[{i}].{name}[{j}]" for i, j in zip(*np.triu_indices(m), strict=True)]
            out += [f"{name}[:, {i}].{name}[:, {j}]" for i, j in self._columns(n)]
        return tuple(out)

    @property
    def count(self) -> int:
        """Number of functions."""
        return sum(m * (m + 1) // 2 + n * (n + 1) // 2 - 1 for _, m, n in self._matrices())

    def _matrices(self) -> list[tuple[str, int, int]]:
        return [(name, shape[0], shape[1] if len(shape) > 1 else 1) for name, shape in self.blocks]

    def _columns(self, n: int) -> list[tuple[int, int]]:
        """Pairs of columns without (0, 0): the traces of both matrices are equal."""
        return [(i, j) for i in range(n) for j in range(i, n)][1:]

    def slopes(self, ring: Residues, states: Array, directions: Array) -> Array:
        """d<u, v> = <du, v> + <u, dv>."""
        out, at = [], 0
        for _, m, n in self._matrices():
            w, d = (a[:, at : at + m * n].reshape(-1, m, n) for a in (states, directions))
            at += m * n
            first, second = np.triu_indices(m)
            rows = ring.matmul(w, np.swapaxes(d, 1, 2))
            out.append(ring.add(rows[:, first, second], rows[:, second, first]))
            pairs = np.array(self._columns(n), dtype=np.int64).reshape(-1, 2)
            columns = ring.matmul(np.swapaxes(w, 1, 2), d)
            out.append(ring.add(columns[:, pairs[:, 0], pairs[:, 1]], columns[:, pairs[:, 1], pairs[:, 0]]))
        return np.concatenate(out, axis=1)


@dataclass(frozen=True, eq=False)
class MonomialAnsatz:
    """All monomials of degree 1, ..., degree in the coordinates of the state.

    Args:
        coordinates: their names.
        degree: the largest.
    """

    coordinates: tuple[str, ...]
    degree: int

    @property
    def exponents(self) -> list[tuple[int, ...]]:
        """The variables of each monomial, in order."""
        n = len(self.coordinates)
        return [m for d in range(1, self.degree + 1) for m in combinations_with_replacement(range(n), d)]

    @property
    def names(self) -> tuple[str, ...]:
        """Products of coordinates."""
        return tuple(" ".join(self.coordinates[i] for i in m) for m in self.exponents)

    def slopes(self, ring: Residues, states: Array, directions: Array) -> Array:
        """The product rule, from the values and slopes of lower monomials."""
        values: dict[tuple[int, ...], tuple[Array, Array]] = {
            (): (np.ones(len(states), dtype=np.int64), np.zeros(len(states), dtype=np.int64))
        }
        out = []
        for m in self.exponents:
            value, slope = values[m[:-1]]
            x, d = states[:, m[-1]], directions[:, m[-1]]
            pair = ring.multiply(value, x), ring.add(ring.multiply(slope, x), ring.multiply(value, d))
            values[m] = pair
            out.append(pair[1])
        return np.stack(out, axis=1)


@dataclass(frozen=True, eq=False)
class SkewAnsatz:
    """All rotations theta -> A theta of the parameters, A skew: e^(tau t) theta'.A theta is a law of the heavy ball.

    Args:
        size: M.
        friction: tau.
    """

    size: int
    friction: Fraction

    @property
    def names(self) -> tuple[str, ...]:
        """The planes (i, j), i < j."""
        return tuple(f"(v{i} th{j} - v{j} th{i})" for i, j in zip(*np.triu_indices(self.size, 1), strict=True))

    def slopes(self, ring: Residues, states: Array, directions: Array) -> Array:
        """X_i theta_j - X_j theta_i."""
        i, j = np.triu_indices(self.size, 1)
        first = ring.multiply(directions[:, i], states[:, j])
        return ring.add(first, ring.negative(ring.multiply(directions[:, j], states[:, i])))

    def lift(self, ring: Residues, kernel: Array, state: Array) -> Array:
        """Gradients of the laws by (t, theta, v), up to the factor e^(tau t)."""
        m = self.size
        theta, speed = state[1 : m + 1], state[m + 1 :]
        i, j = np.triu_indices(m, 1)
        a = np.zeros((len(kernel), m, m), dtype=np.int64)
        a[:, i, j], a[:, j, i] = kernel, ring.negative(kernel)
        turned = ring.matmul(a, theta[None, :, None])[:, :, 0]
        by_theta = ring.negative(ring.matmul(a, speed[None, :, None])[:, :, 0])
        spin = ring.sum(ring.multiply(turned, speed[None, :]), -1)
        return np.concatenate([ring.multiply(spin, ring.constant(self.friction)), by_theta, turned], axis=1)


@dataclass(frozen=True, eq=False)
class PolynomialLaw(Result):
    """A conserved polynomial of the state.

    Args:
        formula: plain text.
        terms: name and coefficient of each function it combines.
        verified: whether its derivative along all fields is zero at new random points modulo two primes.
    """

    formula: str
    terms: tuple[tuple[str, Fraction], ...]
    verified: bool

    def __str__(self) -> str:
        """The formula."""
        return self.formula


@dataclass(frozen=True, eq=False)
class PolynomialLaws(Result):
    """All laws in the span of an ansatz.

    Args:
        ansatz: what was searched.
        dimension: of the space of laws found, constants apart.
        independent: rank of their gradients at a random point.
        beyond: by how much they add to the rank of the known laws' gradients.
        laws: a basis with rational coefficients, where these could be read off; at most 64 are written out.
        unknowns: number of coefficients.
    """

    ansatz: str
    dimension: int
    independent: int
    beyond: int
    laws: tuple[PolynomialLaw, ...]
    unknowns: int

    def __str__(self) -> str:
        """One line and the first formulas."""
        head = f"{self.ansatz}: a space of {self.dimension} laws, {self.independent} independent"
        new = f", {self.beyond} beyond the known ones" if self.beyond else ""
        return "\n".join([head + new, *(f"  {law}" for law in self.laws[:6] if self.beyond)])


def polynomial_laws(
    family: Family,
    ansatz: Ansatz,
    text: str,
    *,
    known: Array,
    point: Array,
    ring: Residues,
    seed: int = 0,
    draw: Draw | None = None,
    lift: Lift | None = None,
) -> PolynomialLaws:
    """The laws of a family among the combinations of an ansatz.

    Args:
        family: the fields on the state.
        ansatz: functions of the state.
        text: its description.
        known: gradients of known laws at the point, (k, N) residues.
        point: (N,) random residues.
        ring: residues modulo 2^31 - 1.
        seed: of points and data.
        draw: a random state over a ring, None for uniform ones.
        lift: gradients on another state space of the laws with the given coefficients, None for the ansatz's own.

    Complexity: one field for each unknown, and a kernel modulo the prime of (unknowns)^3 operations.
    """
    count = len(ansatz.names)
    rows = _conditions(family, ansatz, count + 8, ring, np.random.default_rng((seed, 1)), draw)
    kernel = rationals.nullspace_mod(rows, ring.prime)
    gradients = lift(ring, kernel, point) if lift is not None else _gradients(ansatz, kernel, point, ring)
    own = rationals.rank_mod(gradients, ring.prime)
    before = rationals.rank_mod(known, ring.prime)
    together = rationals.rank_mod(np.concatenate([known, gradients]), ring.prime)
    tables = [_rational(row, ring.prime) for row in kernel[:64]]
    verified = _verify(family, ansatz, [t for t in tables if t is not None], seed, draw)
    laws = []
    for table in tables:
        if table is not None:
            terms = tuple((name, q) for name, q in zip(ansatz.names, table, strict=True) if q)
            laws.append(PolynomialLaw(_written(terms), terms, verified))
    return PolynomialLaws(text, len(kernel), own, together - before, tuple(laws), count)


def law_ansatz(
    blocks: tuple[tuple[str, tuple[int, ...]], ...], size: int, degree: int, *, gradient: bool
) -> list[tuple[Ansatz, str]]:
    """What is worth a try: Gram entries of the blocks, then all monomials, each with at most 700 unknowns."""
    out: list[tuple[Ansatz, str]] = []
    if degree < 1:
        return out
    gram = GramAnsatz(blocks)
    if degree >= 2 and gradient and gram.count <= UNKNOWNS:
        out.append((gram, "inner products of rows and of columns of each block"))
    while degree > 1 and comb(size + degree, degree) - 1 > UNKNOWNS:
        degree -= 1
    if size <= UNKNOWNS and (degree > 1 or not gradient):
        names = [f"{name}[{', '.join(map(str, i))}]" for name, shape in blocks for i in np.ndindex(shape)]
        if len(names) != size:  # time, positions and velocities
            names = ["t", *names, *(f"{name}'" for name in names)]
        out.append((MonomialAnsatz(tuple(names), degree), f"all polynomials of degree {degree}"))
    return out


def _conditions(
    family: Family, ansatz: Ansatz, count: int, ring: Residues, rng: np.random.Generator, draw: Draw | None
) -> Array:
    if draw is None:
        states = ring.random(rng, (count, family.size))
    else:
        states = np.stack([draw(ring, rng) for _ in range(count)])
    jets = FormalJets(ring, int(rng.integers(1 << 30)))
    fields = family.fields(Nilpotent(ring, {0: states}), family.draw(ring, rng, count), jets).real
    return ansatz.slopes(ring, states, np.broadcast_to(fields, states.shape))


def _gradients(ansatz: Ansatz, kernel: Array, point: Array, ring: Residues) -> Array:
    n = len(point)
    slopes = ansatz.slopes(ring, np.broadcast_to(point, (n, n)), np.eye(n, dtype=np.int64))
    if not len(kernel):
        return np.zeros((0, n), dtype=np.int64)
    return np.asarray(ring.matmul(kernel[None], slopes.T[None].astype(np.int64))[0])


def _rational(row: Array, prime: int) -> list[Fraction] | None:
    out = [rationals.from_residue(int(v), prime) for v in row]
    return None if any(v is None for v in out) else [v for v in out if v is not None]


def _verify(family: Family, ansatz: Ansatz, tables: Sequence[list[Fraction]], seed: int, draw: Draw | None) -> bool:
    if not tables:
        return False
    for prime in (2**31 - 1, SECOND_PRIME):
        ring = Residues(prime)
        if draw is not None and prime != 2**31 - 1:
            continue  # special points are drawn for the first prime
        rows = _conditions(family, ansatz, 16, ring, np.random.default_rng((seed, 2)), draw)
        table = np.array([[ring.constant(q) for q in t] for t in tables], dtype=np.int64)
        if ring.matmul(rows[None], table.T[None]).any():
            return False
    return True


def _written(terms: Sequence[tuple[str, Fraction]]) -> str:
    out = ""
    for name, q in terms[:12]:
        size = "" if abs(q) == 1 else f"{abs(q)} "
        out += f"{' - ' if q < 0 else ' + ' if out else ''}{size}{name}"
    return out + (f" + ... ({len(terms)} terms)" if len(terms) > 12 else "")
