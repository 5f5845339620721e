"""Targets of finitely many terms with closed forms: a teacher network, a linear function, a constant."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count, as_finite, as_floats, as_number
from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.kernels import arccos_gram, arccos_potential, relu_mean, unit_rows
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.kinks import KinkForm, kink_form

FloatArray = NDArray[np.float64]


def vector(given: ArrayLike, what: str) -> FloatArray:
    """A finite float vector, or an error that names it.

    >>> vector([1, 2], "beta")
    array([1., 2.])
    """
    found = as_finite(given, what)
    if found.ndim != 1 or not found.size:
        raise InputError(f"{what} of shape {found.shape}; give a vector of finite numbers")
    return found.copy()


def rows_of(points: ArrayLike, d: int) -> FloatArray:
    """Points as rows (n, d), or an error.

    >>> rows_of([[1, 2]], 2)
    array([[1., 2.]])
    """
    found: FloatArray = as_floats(points, "points")
    if found.ndim != 2 or found.shape[1] != d:
        raise InputError(f"points of shape {found.shape}; the target takes rows (n, {d})")
    return found


def span(rows: FloatArray, tolerance: float = 1e-13) -> FloatArray:
    """Orthonormal rows of the span; coordinate vectors where the rows use few coordinates.

    Rows count as unit rows; singular values up to `tolerance` of the largest count as 0.

    >>> span(np.array([[0.0, 2.0, 0.0], [0.0, -1.0, 0.0]]))
    array([[0., 1., 0.]])
    """
    d = rows.shape[1]
    units = unit_rows(rows)[0]
    used = np.flatnonzero(np.any(units != 0, axis=0))
    if not len(used):
        return np.zeros((0, d))
    _, values, vectors = np.linalg.svd(units[:, used], full_matrices=False)
    rank = int(np.sum(values > tolerance * values[0]))
    basis = np.zeros((rank, d))
    basis[:, used] = np.eye(len(used)) if rank == len(used) else vectors[:rank]
    return basis


class Teacher(Target):
    """f*(x) = sum_k c_k relu(b_k . x): a finite network of two layers without biases. Exact.

    E[f* relu(b.x)] = sum_k c_k E[relu(b_k.x) relu(b.x)] by the arc-cosine kernel; E[f* x] = sum_k c_k b_k / (2d).
    Canonical form: f*(x) = beta.x + sum_l e_l |v_l.x| with distinct lines v_l and e_l = +-1, beta = sum c_k b_k / 2,
    which decides parity, subspace and symmetry. O(m n d) per potential of m directions. arXiv 2211.08771.

    Args:
        c: (n,) outer weights.
        B: (n, d) rows.

    Raises:
        InputError: for shapes that do not fit, no rows, or entries that are not finite.

    >>> f = Teacher([1.0, 1.0], [[1.0, 0.0], [-1.0, 0.0]])  # |x_1|
    >>> f(np.array([[-0.6, 0.8]])), f.parity, f.second_moment, f.subspace
    (array([0.6]), 1, 0.5, array([[1., 0.]]))
    """

    def __init__(self, c: ArrayLike, B: ArrayLike) -> None:
        self.c = vector(c, "outer weights")
        self.B = as_finite(B, "rows B").copy()
        if self.B.ndim != 2 or len(self.B) != len(self.c):
            raise InputError(f"rows B of shape {self.B.shape} for {len(self.c)} outer weights; give (n, d)")
        self.dimension = _dimension(self.B.shape[1])

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        values: FloatArray = np.maximum(rows_of(points, self.dimension) @ self.B.T, 0.0) @ self.c
        return values

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        return arccos_potential(rows_of(directions, self.dimension), self.B, self.c)

    @property
    def mean(self) -> float:
        """E[f*] = lam_0 sum_k c_k |b_k|."""
        return relu_mean(self.dimension) * float(self.c @ unit_rows(self.B)[1])

    @cached_property
    def second_moment(self) -> float:
        """E[f*^2] = c^T K c."""
        return max(0.0, float(self.c @ arccos_gram(self.B) @ self.c))

    @cached_property
    def linear_part(self) -> FloatArray:
        """E[f* x]."""
        part: FloatArray = self.c @ self.B / (2 * self.dimension)
        return part

    @cached_property
    def form(self) -> KinkForm:
        """The canonical form, and whether it was reached without a decision by rounding (see `kink_form`)."""
        return kink_form(self.c, self.B)

    @property
    def canonical(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Beta (d,), e (l,) of entries +-1 and rows V (l, d) with f*(x) = beta.x + sum_l e_l |v_l.x|, lines distinct.

        Terms are left out where they cancel exactly or within the rounding of their own sum, see `kink_form`.
        """
        return self.form.beta, self.form.signs, self.form.lines

    @property
    def parity(self) -> int | None:
        """+1 if beta = 0, -1 if there is no kink; the zero function counts as even."""
        beta, signs, _ = self.canonical
        if not beta.any():
            return 1
        return None if len(signs) else -1

    @cached_property
    def subspace(self) -> FloatArray:
        """The span of beta and of the lines, the smallest subspace, as kinks and slope are identifiable."""
        beta, _, lines = self.canonical
        if self.dimension == 1 and not beta.any():
            return np.zeros((0, 1))
        return span(np.concatenate([beta[None], lines]))


class Linear(Target):
    """f*(x) = beta . x. Exact: E[f* relu(b.x)] = b.beta / (2d), E[f*^2] = |beta|^2 / d. arXiv 2211.08771, section 3.3.

    >>> f = Linear([3.0, 4.0])
    >>> f.potential(np.array([[1.0, 0.0]])), f.second_moment, f.parity
    ((array([0.75]), array([[0.75, 1.  ]])), 12.5, -1)
    """

    def __init__(self, beta: ArrayLike) -> None:
        self.beta = vector(beta, "beta")
        self.dimension = _dimension(len(self.beta))

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        values: FloatArray = rows_of(points, self.dimension) @ self.beta
        return values

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        rows = rows_of(directions, self.dimension)
        slope = self.beta / (2 * self.dimension)
        gradients = np.where(np.any(rows != 0, axis=1)[:, None], slope, 0.0)
        return rows @ slope, gradients

    @property
    def mean(self) -> float:
        """0."""
        return 0.0

    @property
    def second_moment(self) -> float:
        """E[f*^2]."""
        return float(self.beta @ self.beta) / self.dimension

    @property
    def linear_part(self) -> FloatArray:
        """E[f* x] = beta / d."""
        part: FloatArray = self.beta / self.dimension
        return part

    @property
    def parity(self) -> int:
        """-1 (+1 for beta = 0)."""
        return -1 if self.beta.any() else 1

    @property
    def subspace(self) -> FloatArray:
        """The line of beta."""
        return span(self.beta[None])


class Constant(Target):
    """f*(x) = value, on inputs in R^d. Exact: E[f* relu(b.x)] = value lam_0 |b|.

    >>> Constant(2.0, 3).potential(np.array([[0.0, 0.0, 4.0]]))[0]
    array([2.])
    """

    def __init__(self, value: float, d: int) -> None:
        self.value = as_number(value, "constant")
        self.dimension = _dimension(d)

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        return np.full(len(rows_of(points, self.dimension)), self.value)

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        units, norms = unit_rows(rows_of(directions, self.dimension))
        factor = self.value * relu_mean(self.dimension)
        return factor * norms, factor * units

    @property
    def mean(self) -> float:
        """The value."""
        return self.value

    @property
    def second_moment(self) -> float:
        """E[f*^2]."""
        return self.value**2

    @property
    def linear_part(self) -> FloatArray:
        """0."""
        return np.zeros(self.dimension)

    @property
    def parity(self) -> int:
        """+1."""
        return 1

    @property
    def subspace(self) -> FloatArray:
        """The zero space."""
        return np.zeros((0, self.dimension))


def _dimension(d: int) -> int:
    return as_count(d, "dimension of a target", 1)
