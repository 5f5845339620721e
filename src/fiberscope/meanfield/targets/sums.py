"""Sums and multiples of targets, and E[f g] of two of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_number
from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.jacobi import sphere_rule
from fiberscope.meanfield.harmonics.kernels import relu_mean
from fiberscope.meanfield.symmetry.groups import OrthogonalGroup
from fiberscope.meanfield.targets.base import Target, checked_target
from fiberscope.meanfield.targets.finite import Constant, Linear, Teacher, rows_of, span
from fiberscope.meanfield.targets.moments import norm_moment
from fiberscope.meanfield.targets.polynomial import Polynomial
from fiberscope.meanfield.targets.projected import Projected, ball_rule
from fiberscope.meanfield.targets.sampled import Sampled, sphere_points
from fiberscope.meanfield.targets.zonal import NormH, SingleIndex
from fiberscope.results import Rigor

FloatArray = NDArray[np.float64]
_COUNTS = {1: (128, 1), 2: (96, 64), 3: (48, 24), 4: (24, 12)}
_SAMPLES = 1 << 15


class Scaled(Target):
    """f*(x) = factor * part(x).

    >>> (2.0 * Linear([1.0, 0.0])).second_moment
    2.0
    """

    def __init__(self, factor: float, part: Target) -> None:
        self.factor, self.part = as_number(factor, "factor of a target"), checked_target(part)
        self.dimension, self.exact = part.dimension, part.exact

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        return self.factor * self.part(np.asarray(points, float))

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        values, gradients = self.part.potential(np.asarray(directions, float))
        return self.factor * values, self.factor * gradients

    @property
    def rigor(self) -> Rigor:  # type: ignore[override]
        """That of the part."""
        return self.part.rigor

    @property
    def error(self) -> float:
        """The error of the part, scaled."""
        return abs(self.factor) * float(getattr(self.part, "error", 0.0))

    @property
    def second_moment(self) -> float:
        """E[f*^2]."""
        return self.factor**2 * self.part.second_moment

    @property
    def mean(self) -> float:
        """E[f*]."""
        return self.factor * mean_of(self.part)

    @property
    def linear_part(self) -> FloatArray:
        """E[f* x]."""
        return self.factor * self.part.linear_part

    @property
    def parity(self) -> int | None:
        """That of the part."""
        return self.part.parity if self.factor else 1

    @property
    def subspace(self) -> FloatArray:
        """That of the part."""
        return self.part.subspace if self.factor else np.zeros((0, self.dimension))

    @cached_property
    def group(self) -> OrthogonalGroup:
        """That of the part."""
        return self.part.group


class Sum(Target):
    """f*(x) = sum of parts. Potentials add; E[f*^2] needs the products of all pairs (`cross_moment`).

    Args:
        parts: at least one target, all of one dimension. Sums among them are opened; teachers, linear functions,
            constants and polynomials are each put together.

    Raises:
        InputError: for no parts, or parts of different dimensions.

    >>> f = Linear([1.0, 0.0]) + Constant(3.0, 2)
    >>> f.second_moment, f.parity
    (9.5, None)
    """

    def __init__(self, parts: Iterable[Target]) -> None:
        flat = [term for part in parts for term in _opened(checked_target(part), 1.0)]
        if not flat:
            raise InputError("a sum of no targets; give at least one")
        dimensions = {part.dimension for part in flat}
        if len(dimensions) > 1:
            raise InputError(f"a sum of targets of dimensions {sorted(dimensions)}; they must agree")
        self.parts = tuple(_merged(flat))
        self.dimension = flat[0].dimension
        self.exact = all(part.exact for part in self.parts)

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Values at points (n, d)."""
        rows = rows_of(points, self.dimension)
        values: FloatArray = np.sum([part(rows) for part in self.parts], axis=0)
        return values

    def potential(self, directions: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """E[f* relu(b.x)] and its gradient (see `Target`)."""
        rows = rows_of(directions, self.dimension)
        values, gradients = np.zeros(len(rows)), np.zeros_like(rows)
        for part in self.parts:
            value, gradient = part.potential(rows)
            values += value
            gradients += gradient
        return values, gradients

    @property
    def rigor(self) -> Rigor:  # type: ignore[override]
        """SAMPLED where a part is, or E[f*^2] (and so every energy) needs a product of two parts that is."""
        return self._moments[1]

    @property
    def error(self) -> float:
        """Sum of the errors of the parts."""
        return math.fsum(float(getattr(part, "error", 0.0)) for part in self.parts)

    @cached_property
    def _moments(self) -> tuple[float, Rigor]:
        total: list[float] = []
        sampled = any(part.rigor is Rigor.SAMPLED for part in self.parts)
        for i, left in enumerate(self.parts):
            total.append(left.second_moment)
            for right in self.parts[:i]:
                value, how = cross_moment(left, right)
                total.append(2 * value)
                sampled = sampled or how is Rigor.SAMPLED
        return max(0.0, math.fsum(total)), Rigor.SAMPLED if sampled else Rigor.NUMERICAL

    @property
    def second_moment(self) -> float:
        """E[f*^2]; `second_moment_rigor` says how it was obtained."""
        return self._moments[0]

    @property
    def second_moment_rigor(self) -> Rigor:
        """SAMPLED where a product of two parts had to be sampled."""
        return self._moments[1]

    @cached_property
    def mean(self) -> float:
        """E[f*]."""
        return math.fsum(mean_of(part) for part in self.parts)

    @cached_property
    def linear_part(self) -> FloatArray:
        """E[f* x]."""
        part: FloatArray = np.sum([part.linear_part for part in self.parts], axis=0)
        return part

    @cached_property
    def parity(self) -> int | None:
        """The common parity of the parts (the zero function has both)."""
        found = {part.parity for part in self.parts if part.second_moment > 0}
        return found.pop() if len(found) == 1 else (None if found else 1)

    @cached_property
    def subspace(self) -> FloatArray:
        """The span of the subspaces of the parts."""
        return span(np.concatenate([part.subspace for part in self.parts]), 1e-10)


def mean_of(target: Target) -> float:
    """E[f*] of any target: its own formula, or from the potential, as E_b[potential(b)] = lam_0 E[f*] over the sphere.

    >>> mean_of(Teacher([4.0], [[0.0, 0.0, 1.0]]))
    1.0
    """
    own = getattr(target, "mean", None)
    if own is not None:
        return float(own)
    points, weights = _sphere(target.dimension)
    return float(weights @ target.potential(points)[0]) / relu_mean(target.dimension)


def _mean_known(target: Target) -> bool:
    """Whether `mean_of` needs no samples of the sphere."""
    if isinstance(target, Scaled):
        return _mean_known(target.part)
    if isinstance(target, Sum):
        return all(_mean_known(part) for part in target.parts)
    return target.dimension in _COUNTS or hasattr(target, "mean")


def cross_moment(left: Target, right: Target) -> tuple[float, Rigor]:
    """E[f g] of two targets, and how it was obtained.

    A teacher f gives sum_k c_k (potential of g at b_k), a linear one beta . E[g x], |x_H| gives alpha times the mean of
    the potential of g over the sphere of H; a polynomial with another, with |x_H| and with h(v.x) is a closed form.
    Else a product rule in the span of both subspaces (to dimension 4), and samples beyond.

    >>> cross_moment(Teacher([1.0], [[1.0, 0.0]]), Linear([2.0, 0.0]))
    (0.5, <Rigor.NUMERICAL: 'floating point, with the gap or error estimate shown'>)
    """
    if left.dimension != right.dimension:
        raise InputError(f"targets of dimensions {left.dimension} and {right.dimension}")
    for rule in (_of_wrapped, _of_finite, _of_polynomial, _of_norm, _of_lines):
        for f, g in ((left, right), (right, left)):
            found = rule(f, g)
            if found is not None:
                sampled = Rigor.SAMPLED in (f.rigor, g.rigor)
                return found[0], Rigor.SAMPLED if sampled else found[1]
    return _by_rule(left, right)


def _of_wrapped(f: Target, g: Target) -> tuple[float, Rigor] | None:
    if isinstance(f, Scaled):
        value, how = cross_moment(f.part, g)
        return f.factor * value, how
    if isinstance(f, Sum):
        found = [cross_moment(part, g) for part in f.parts]
        worst = Rigor.SAMPLED if any(how is Rigor.SAMPLED for _, how in found) else Rigor.NUMERICAL
        return math.fsum(value for value, _ in found), worst
    if isinstance(f, Projected) and f.lift is not f:
        return cross_moment(f.lift, g)
    return None


def _of_finite(f: Target, g: Target) -> tuple[float, Rigor] | None:
    if isinstance(f, Constant):
        return f.value * mean_of(g), Rigor.NUMERICAL if _mean_known(g) else Rigor.SAMPLED
    if isinstance(f, Linear):
        return float(f.beta @ g.linear_part), Rigor.NUMERICAL
    if isinstance(f, Teacher):
        return float(f.c @ g.potential(f.B)[0]), Rigor.NUMERICAL
    return None


def _of_polynomial(f: Target, g: Target) -> tuple[float, Rigor] | None:
    if not isinstance(f, Polynomial):
        return None
    if isinstance(g, SingleIndex):
        # E[h(v.x) Y_n] = E[h(|v| s) P_n(s)] Y_n(v/|v|), P_n the zonal polynomial with P_n(1) = 1
        degree = max((sum(e) for e in f.terms), default=0)
        parts = [g.zonal_coefficient(n) * float(f.harmonic(n)(g.subspace)[0]) for n in range(degree + 1)]
        return math.fsum(parts), Rigor.NUMERICAL
    if isinstance(g, Polynomial):
        return f.inner(g), Rigor.NUMERICAL
    if isinstance(g, NormH):
        across = g.H if f.frame is None else g.H @ f.frame.T
        found = norm_moment(f.terms, across.T @ across, len(g.H), f.dimension)
        return None if found is None else (found, Rigor.NUMERICAL)
    return None


def _of_norm(f: Target, g: Target) -> tuple[float, Rigor] | None:
    if not isinstance(f, NormH):
        return None
    # the norm is a teacher with a continuum of neurons on the sphere of H
    if isinstance(g, SingleIndex) or isinstance(g, NormH) and len(g.H) == 1:
        return _norm_with_line(f, g), Rigor.NUMERICAL
    if isinstance(g, NormH) and len(g.H) < len(f.H):
        return None  # the other way round the sphere is smaller
    points, weights = _sphere(len(f.H))
    how = Rigor.NUMERICAL if len(f.H) <= 4 else Rigor.SAMPLED
    return f.alpha * float(weights @ g.potential(points @ f.H)[0]), how


def _of_lines(f: Target, g: Target) -> tuple[float, Rigor] | None:
    if isinstance(f, SingleIndex) and isinstance(g, SingleIndex):
        return f.moment_with(g), Rigor.NUMERICAL
    return None


def _norm_with_line(f: NormH, g: Target) -> float:
    from fiberscope.meanfield.harmonics.jacobi import first_coordinate_rule

    # the potential of g depends on the angle to one line v only: the first coordinate along v_H is all that is averaged
    line = g.subspace[0]
    inside = f.H @ line
    reach = float(np.linalg.norm(inside))
    axis = inside / reach if reach > 0 else np.eye(len(f.H))[0]
    s, weights = first_coordinate_rule(len(f.H), 128)
    if len(f.H) == 1:
        return f.alpha * float(weights @ g.potential(s[:, None] * (axis @ f.H))[0])
    other = np.linalg.svd(axis[None])[2][1]
    points = s[:, None] * axis + np.sqrt((1 - s) * (1 + s))[:, None] * other
    return f.alpha * float(weights @ g.potential(points @ f.H)[0])


def _by_rule(left: Target, right: Target) -> tuple[float, Rigor]:
    for f, g in ((left, right), (right, left)):
        if isinstance(f, Sampled):
            return f.mean_with(g), Rigor.SAMPLED
    d = left.dimension
    joint = span(np.concatenate([left.subspace, right.subspace]), 1e-10)
    k = len(joint)
    if k == 0:
        known = _mean_known(left) and _mean_known(right)
        return mean_of(left) * mean_of(right), Rigor.NUMERICAL if known else Rigor.SAMPLED
    if k in _COUNTS and k < d:
        inner, weights = ball_rule(d, k, *_COUNTS[k])
        # a fixed unit vector of the complement completes the point to the sphere
        rest = np.linalg.svd(joint)[2][k]
        height = np.sqrt(np.maximum(0.0, 1 - np.einsum("nk,nk->n", inner, inner)))
        points = inner @ joint + height[:, None] * rest
        return float(weights @ (left(points) * right(points))), Rigor.NUMERICAL
    if d in _COUNTS:
        points, weights = sphere_rule(d, _COUNTS[d][0])
        return float(weights @ (left(points) * right(points))), Rigor.NUMERICAL
    points = sphere_points(d, _SAMPLES, 0)
    return float(np.mean(left(points) * right(points))), Rigor.SAMPLED


def _sphere(n: int) -> tuple[FloatArray, FloatArray]:
    if n in _COUNTS:
        return sphere_rule(n, _COUNTS[n][0])
    return sphere_points(n, _SAMPLES >> 2, 0), np.full(_SAMPLES >> 2, 4.0 / _SAMPLES)


def _opened(part: Target, factor: float) -> list[Target]:
    if isinstance(part, Sum):
        return [term for inner in part.parts for term in _opened(inner, factor)]
    if isinstance(part, Scaled):
        return _opened(part.part, factor * part.factor)
    if isinstance(part, Projected) and part.lift is not part:
        return _opened(part.lift, factor)
    if factor == 1.0:
        return [part]
    if isinstance(part, Teacher):
        return [Teacher(factor * part.c, part.B)]
    if isinstance(part, Linear):
        return [Linear(factor * part.beta)]
    if isinstance(part, Constant):
        return [Constant(factor * part.value, part.dimension)]
    if isinstance(part, Polynomial):
        return [part.times(factor)]
    return [Scaled(factor, part)]


def _merged(parts: list[Target]) -> list[Target]:
    teachers = [p for p in parts if isinstance(p, Teacher)]
    lines = [p for p in parts if isinstance(p, Linear)]
    constants = [p for p in parts if isinstance(p, Constant)]
    polynomials = [p for p in parts if isinstance(p, Polynomial)]
    kept = [p for p in parts if not isinstance(p, Teacher | Linear | Constant | Polynomial)]
    if teachers:
        rows = np.concatenate([t.B for t in teachers])
        kept.append(teachers[0] if len(teachers) == 1 else Teacher(np.concatenate([t.c for t in teachers]), rows))
    if lines:
        kept.append(lines[0] if len(lines) == 1 else Linear(np.sum([p.beta for p in lines], axis=0)))
    if constants:
        kept.append(
            constants[0] if len(constants) == 1 else Constant(sum(p.value for p in constants), parts[0].dimension)
        )
    for polynomial in polynomials:
        same = next((k for k, p in enumerate(kept) if isinstance(p, Polynomial) and p.framed_like(polynomial)), None)
        if same is None:
            kept.append(polynomial)
        else:
            first = kept[same]
            kept[same] = first.plus(polynomial) if isinstance(first, Polynomial) else first
    return kept
