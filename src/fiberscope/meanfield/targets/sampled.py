"""Any function as a target, by samples: scrambled Sobol points, with the linear part of the function as control."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_choice, as_count, as_floats, as_generator, shown
from fiberscope.errors import InputError
from fiberscope.meanfield.arguments import checked_function, checked_parity
from fiberscope.meanfield.harmonics.kernels import relu_mean, unit_rows
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import rows_of
from fiberscope.meanfield.targets.zonal import basis_of
from fiberscope.results import Rigor

FloatArray = NDArray[np.float64]
Rule = Literal["sobol+cv", "sobol", "mc"]
_ENTRIES = 1 << 21
_SEEN = 1024
_COORDINATES = 21_201


def sphere_points(d: int, count: int, seed: int, *, sobol: bool = True) -> FloatArray:
    """Points of U(S^{d-1}): normalised normal images of scrambled Sobol points, or independent: (count, d).

    >>> bool(abs(np.linalg.norm(sphere_points(3, 8, 0), axis=1) - 1).max() < 1e-15)
    True
    """
    rng = np.random.default_rng(seed)
    if not sobol:
        return unit_rows(rng.standard_normal((count, d)))[0]
    from scipy.special import ndtri
    from scipy.stats import qmc

    cube = qmc.Sobol(d, scramble=True, seed=rng).random_base2(max(0, math.ceil(math.log2(count))))[:count]
    # the half step keeps points off the faces of the cube, where the normal image is infinite
    return unit_rows(ndtri(cube * (1 - 2.0**-31) + 2.0**-32))[0]


class Sampled(Target):
    """f*(x) for any vectorised function, with expectations over samples of the sphere; rigor SAMPLED.

    E[f* relu(b.x)] is the mean over the samples, of f* minus its projection to degree <= 1 for "sobol+cv", whose
    own potential is exact (m0 lam_0 |b| + beta.b/2, beta = E[f* x]). 1-homogeneous with its exact gradient. All samples
    are one scrambled sequence; further scrambles, drawn when asked for, tell the error (`potential_error`).

    Args:
        f: callable, rows (n, d) -> (n,).
        d: dimension.
        rule: "sobol+cv", "sobol" or "mc".
        count: samples, rounded up to a power of two.
        replicates: further scrambles that error estimates use, at least 2.
        seed: fixes the samples.
        subspace: orthonormal rows of H if f is known to depend on x_H only; else looked for in gradients.
        parity: +1 or -1 if known, compared with the samples; else looked for in them.

    Raises:
        InputError: for f that is not vectorised or not finite, a parity it has not, and parameters out of range.

    >>> f = Sampled(lambda x: x[:, 0] + 2.0, 3)
    >>> f.potential(np.array([[3.0, 0.0, 0.0]]))[0].round(6), f.rigor.name
    (array([2.]), 'SAMPLED')
    """

    exact = False
    rigor = Rigor.SAMPLED

    def __init__(
        self,
        f: Callable[[FloatArray], ArrayLike],
        d: int,
        *,
        rule: Rule = "sobol+cv",
        count: int = 16_384,
        replicates: int = 4,
        seed: int = 0,
        subspace: ArrayLike | None = None,
        parity: int | None = None,
    ) -> None:
        as_choice(rule, "rule", get_args(Rule))
        d = as_count(d, "dimension d", 1)
        if d > _COORDINATES:
            raise InputError(f"dimension {d}; samples serve 1 <= d <= {_COORDINATES}")
        count, replicates = as_count(count, "count of samples", 4), as_count(replicates, "replicates", 2)
        as_generator(seed)
        self.function, self.dimension, self.rule = checked_function(f, "f"), d, rule
        parity = checked_parity(parity)
        self._count = 2 ** math.ceil(math.log2(count))
        if isinstance(seed, np.random.Generator | np.random.SeedSequence | np.random.BitGenerator):
            raise InputError(f"seed {shown(seed)}; give a whole number >= 0, so that the target can be made again")
        self._seeds = np.random.SeedSequence(seed).generate_state(1 + replicates).tolist()
        self._points = sphere_points(d, self._count, self._seeds[0], sobol=rule != "mc")
        self._values = self(self._points)
        self._given = parity
        if parity is not None:
            self._compare(parity)
        self._basis = None if subspace is None else basis_of(subspace)
        if self._basis is not None and self._basis.shape[1] != d:
            raise InputError(f"a subspace of R^{self._basis.shape[1]} for a target on R^{d}")
        self.mean = float(self._values.mean())
        self._slope: FloatArray = self._values @ self._points / len(self._points)
        self._rest = self._without_line(self._points, self._values)

    def _compare(self, parity: int) -> None:
        """Refuse a parity that the samples deny."""
        plus, minus = self._values[:_SEEN], self(-self._points[:_SEEN])
        off = np.abs(plus - parity * minus)
        if np.max(off) > 1e-9 * float(np.max(np.abs(plus) + np.abs(minus))):
            at, kind = int(np.argmax(off)), "even" if parity == 1 else "odd"
            raise InputError(f"parity {parity}, but f is not {kind}: {plus[at]:g} and {minus[at]:g} at x and -x")

    def _without_line(self, points: FloatArray, values: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        """Loads of the samples, and level and slope of the potential that is known exactly."""
        if self.rule != "sobol+cv":
            return values / len(points), 0.0, np.zeros(self.dimension)
        mean, slope = float(values.mean()), values @ points / len(points)
        loads = (values - mean - self.dimension * (points @ slope)) / len(points)
        return loads, mean * relu_mean(self.dimension), slope / 2

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        rows = rows_of(points, self.dimension)
        found: FloatArray = as_floats(self.function(rows), "values of f")
        if found.shape != (len(rows),):
            raise InputError(f"f maps points of shape {rows.shape} to {found.shape}; it must give one number a row")
        if not np.isfinite(found).all():
            raise InputError(f"f is not finite at {rows[~np.isfinite(found)][0].tolist()}")
        return found

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`), by the samples. O(m count d)."""
        return _potential(rows_of(directions, self.dimension), self._points, *self._rest)

    @cached_property
    def _others(self) -> list[tuple[FloatArray, tuple[FloatArray, float, FloatArray]]]:
        found = []
        for seed in self._seeds[1:]:
            points = sphere_points(self.dimension, self._count, seed, sobol=self.rule != "mc")
            found.append((points, self._without_line(points, self(points))))
        return found

    def potential_error(self, directions: ArrayLike) -> FloatArray:
        """Standard error of the potential of each direction, from the spread over other scrambles: (m,)."""
        rows = rows_of(directions, self.dimension)
        values = [self.potential(rows)[0]]
        values += [_potential(rows, points, *rest)[0] for points, rest in self._others]
        error: FloatArray = np.std(values, axis=0, ddof=1)
        return error

    @cached_property
    def error(self) -> float:
        """Largest standard error of the potential of 16 unit vectors."""
        tests = unit_rows(np.random.default_rng(1).standard_normal((16, self.dimension)))[0]
        return float(self.potential_error(tests).max())

    def mean_with(self, other: Target) -> float:
        """E[f* g*] over the samples."""
        return float(self._values @ other(self._points)) / len(self._points)

    @cached_property
    def second_moment(self) -> float:
        """E[f*^2] over the samples."""
        return float(np.mean(self._values**2))

    @property
    def linear_part(self) -> FloatArray:
        """E[f* x] over the samples."""
        slope: FloatArray = self._slope.copy()
        return slope

    @cached_property
    def parity(self) -> int | None:
        """As given, or as seen on 1024 samples."""
        if self._given is not None:
            return self._given
        plus, minus = self._values[:_SEEN], self(-self._points[:_SEEN])
        scale = 1e-12 * float(np.max(np.abs(plus)))
        if np.max(np.abs(plus - minus)) <= scale:
            return 1
        return -1 if np.max(np.abs(plus + minus)) <= scale else None

    @cached_property
    def subspace(self) -> FloatArray:
        """As given, or from the gradients (central differences at 256 samples) where turning H-perp changes nothing."""
        from fiberscope.meanfield.targets.detection import detect_subspace

        return detect_subspace(self) if self._basis is None else self._basis.copy()


def _potential(
    rows: FloatArray, points: FloatArray, loads: FloatArray, level: float, slope: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The potential level |b| + slope.b + sum_k loads_k relu(b.x_k) and its gradient."""
    units, norms = unit_rows(rows)
    gradients = np.empty_like(units)
    step = max(1, _ENTRIES // len(points))
    for begin in range(0, len(units), step):
        active = (units[begin : begin + step] @ points.T > 0) * loads
        gradients[begin : begin + step] = active @ points
    gradients += level * units + slope
    values = np.einsum("md,md->m", gradients, units)
    gradients[norms == 0] = 0.0
    return norms * values, gradients
