"""Which statements of the paper apply to a target, what its dynamics reduce to, and which flow to call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fiberscope.meanfield.symmetry.groups import OrthogonalGroup
from fiberscope.meanfield.targets import (
    Constant,
    Linear,
    NormH,
    Polynomial,
    Projected,
    Sampled,
    Scaled,
    SingleIndex,
    Sum,
    Teacher,
)
from fiberscope.meanfield.targets.base import Target, checked_target
from fiberscope.meanfield.targets.detection import complement
from fiberscope.results import Assumption, Result, Rigor

FloatArray = NDArray[np.float64]
_FORMED = (Teacher, Linear, Constant, Polynomial, NormH)


@dataclass(frozen=True, eq=False)
class Reduced(Result):
    """What the infinite-width dynamics of a target reduce to; start mu_0 = U{-1,1} x U(S^{d-1}), |a| = |b|.

    Args:
        kind: "linear", "angle", "lowdim" or "none".
        dimension: d.
        reduced_dimension: variables of the reduced dynamics: d for linear (an ODE in R^d), 1 for the angle, dH for a
            law on S^{dH}, d - 1 where nothing reduces them (a law on S^{d-1}).
        subspace_dimension: dH, the dimension of the subspace that f* depends on.
        flow: name of the function of `fiberscope.meanfield` to call.
        arguments: its arguments by name, beside the times (for linear targets: those of `odd_flow`).
        parity: +1, -1 or None.
        group: the symmetries that the measure keeps for all times.
        theorems: keys of the statements that apply.
        assumes: their hypotheses.
        statements: what follows, in words.
        rigor: how the hypotheses on f* are known.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"group", "arguments"})

    kind: str
    dimension: int
    reduced_dimension: int
    subspace_dimension: int
    flow: str
    arguments: dict[str, Any]
    parity: int | None
    group: OrthogonalGroup
    theorems: tuple[str, ...]
    assumes: tuple[Assumption, ...]
    statements: tuple[str, ...]
    rigor: Rigor = field(default=Rigor.NUMERICAL)

    def to_dict(self) -> dict[str, Any]:
        """The data; arguments that are objects are named by their class, the group by its generators."""
        data = super().to_dict()
        data["arguments"] = {k: _plain(v) for k, v in self.arguments.items()}
        data["group"] = {
            "generators": len(self.group.generators),
            "continuous": [len(block) for block in self.group.continuous],
            "rigor": self.group.rigor.name,
        }
        return data

    def __str__(self) -> str:
        """One screen."""
        given = ", ".join(f"{k}={_short(v)}" for k, v in self.arguments.items())
        lines = [f"reduction: {self.kind} (d = {self.dimension}, dH = {self.subspace_dimension})"]
        lines += [f"  {text}" for text in self.statements]
        lines.append(f"  call: fs.meanfield.{self.flow}({given}, times=[...])")
        lines += [f"  {_mark(a)} {a.statement}" for a in self.assumes]
        lines.append(f"  theorems: {', '.join(self.theorems) or 'none'}; {self.rigor.value}")
        return "\n".join(lines)


def reduction_of(target: Target) -> Reduced:
    """Which theorem of arXiv 2211.08771 applies to a target, and what the mean-field dynamics reduce to.

    In this order: f* odd -> f(mu_t) stays linear and follows a closed ODE in R^d (Theorem 3.3.1); f* = c |x_H|, c > 0
    -> a law on the angle to H (section 3.4); f* a function of x_H with dH < d -> a law on S^{dH} (Lemma 3.4.2). "none"
    if no statement lowers the dimension; the invariance under the group of f* (Propositions 3.2.1, 3.2.2) holds in any
    case. O(1) beside the detection of subspace and group.

    Args:
        target: any `Target`.

    Returns:
        a `Reduced`; its hypotheses on f* are checked by the form of the target; what was seen on samples only is marked
        as not checked.

    Raises:
        InputError: for anything that is no `Target`.

    >>> from fiberscope.meanfield.targets import NormH
    >>> found = reduction_of(NormH((30, 5)))
    >>> found.kind, found.flow, found.arguments, found.reduced_dimension
    ('angle', 'angle_flow', {'d': 30, 'dH': 5}, 1)
    """
    d, basis, parity = checked_target(target).dimension, target.subspace, target.parity
    group = target.group
    common = _symmetry(target, group)
    form = _form_rigor(target)
    if parity == -1:
        return _linear(target, common, form)
    factor = norm_factor(target)
    if factor is not None and abs(factor - 1.0) <= 1e-14:
        return _angle(target, common)
    if 0 < len(basis) < d:
        return _lowdim(target, common, form, factor)
    # the sphere of R^1 is two points, on which an even function is constant
    if len(basis) == 0 or d == 1 and parity == 1:
        return _constant(target, common, form)
    statement = "no statement lowers the dimension: f* is neither odd nor a function of x_H with dH < d"
    return Reduced(
        "none", d, d - 1, len(basis), "particle_flow", {"target": target}, parity, group,
        common.theorems, (*common.assumes, Assumption("f* depends on x_H only, dH < d", True, False)),
        (statement, *common.statements), form,
    )  # fmt: skip


def norm_factor(target: Target) -> float | None:
    """The c with f*(x) = c |x_H| for the subspace H of the target, or None, as far as the form of f* tells.

    A kink of one direction, c |v.x|, is the case dH = 1. None for d = 1, where |x| = 1.

    >>> norm_factor(Teacher([1.0, 1.0], [[0.0, 2.0], [0.0, -2.0]]))
    2.0
    """
    if target.dimension == 1:
        return None
    if isinstance(target, Projected) and target.lift is not target:
        return norm_factor(target.lift)
    if isinstance(target, Scaled):
        inner = norm_factor(target.part)
        return None if inner is None else target.factor * inner
    if isinstance(target, Sum) and len(target.parts) == 1:
        return norm_factor(target.parts[0])
    if isinstance(target, NormH):
        return 1.0 if len(target.H) < target.dimension else None
    if isinstance(target, Teacher):
        beta, signs, lines = target.canonical
        if not beta.any() and len(lines) == 1:
            return float(signs[0] * np.linalg.norm(lines[0]))
    return None


@dataclass(frozen=True, eq=False)
class _Common:
    theorems: tuple[str, ...]
    assumes: tuple[Assumption, ...]
    statements: tuple[str, ...]
    group: OrthogonalGroup


def _symmetry(target: Target, group: OrthogonalGroup) -> _Common:
    theorems: list[str] = []
    assumes = [Assumption("mu_0 = U{-1,1} x U(S^{d-1}), |a| = |b|: invariant under every orthogonal map", False)]
    statements: list[str] = []
    if not group.trivial:
        theorems.append("meanfield-symmetry")
        parts = [f"{len(group.generators)} signed permutations"] if group.generators else []
        parts += [f"O({len(block)})" for block in group.continuous]
        assumes.append(_seen("f*(Tx) = f*(x) for every T of the group", group.rigor is not Rigor.SAMPLED))
        statements.append(f"mu_t and f(mu_t) keep the symmetries of f*: the group generated by {' and '.join(parts)}")
    if target.parity == -1:
        theorems.append("meanfield-antisymmetry")
    return _Common(tuple(theorems), tuple(assumes), tuple(statements), group)


def _form_rigor(target: Target) -> Rigor:
    """How parity and subspace are known: by the form of the target, or from values."""
    if target.rigor is Rigor.SAMPLED:
        return Rigor.SAMPLED
    if isinstance(target, Projected) and target.lift is not target:
        return _form_rigor(target.lift)
    if isinstance(target, Scaled):
        return _form_rigor(target.part)
    if isinstance(target, Sum):
        return Rigor.SAMPLED if any(_form_rigor(p) is Rigor.SAMPLED for p in target.parts) else Rigor.NUMERICAL
    # a callable: its parity was seen on points, also where it was given
    return Rigor.NUMERICAL if isinstance(target, _FORMED) else Rigor.SAMPLED


def _lives_on(target: Target) -> bool:
    """Whether the form of a target proves that it depends on its subspace only."""
    if isinstance(target, Projected) and target.lift is not target:
        return _lives_on(target.lift)
    if isinstance(target, Scaled):
        return _lives_on(target.part)
    if isinstance(target, Sum):
        return all(_lives_on(part) for part in target.parts)
    return isinstance(target, (*_FORMED, SingleIndex, Projected))


def _seen(statement: str, checked: bool) -> Assumption:
    """A hypothesis on f* that holds by its form, or as far as samples tell."""
    return Assumption(statement, True, True) if checked else Assumption(f"{statement}, as seen on samples", False, True)


def _linear(target: Target, common: _Common, form: Rigor) -> Reduced:
    d, beta = target.dimension, target.linear_part
    size = float(np.linalg.norm(beta))
    statements = (
        f"f* is odd: f(mu_t)(x) = w(t).x for all t, and w(t) follows a closed ODE in R^{d}; f(mu_t) tends to the best",
        f"linear function d E[f* x].x of norm {d * size:.6g}, at a rate of at least (d+1)/(2 d^2)",
        *common.statements,
    )
    assumes = (*common.assumes, _seen("f*(-x) = -f*(x)", form is not Rigor.SAMPLED))
    return Reduced(
        "linear", d, d, len(target.subspace), "odd_flow", {"beta_norm": size, "d": d}, -1, common.group,
        (*common.theorems, "odd-linear", "linear-rate"), assumes, statements, form,
    )  # fmt: skip


def _angle(target: Target, common: _Common) -> Reduced:
    d, k = target.dimension, len(target.subspace)
    statements = (
        f"f* = |x_H| with dH = {k}: mu_t is a pair of laws on the angle to H in [0, pi/2]",
        *common.statements,
    )
    assumes = (*common.assumes, Assumption("f*(x) = |x_H|, 1 <= dH < d", True, True))
    return Reduced(
        "angle", d, 1, k, "angle_flow", {"d": d, "dH": k}, 1, common.group,
        (*common.theorems, "angle-reduction", "mass-identity"), assumes, statements, Rigor.NUMERICAL,
    )  # fmt: skip


def _lowdim(target: Target, common: _Common, form: Rigor, factor: float | None) -> Reduced:
    d, basis = target.dimension, target.subspace
    k = len(basis)
    statements = [f"f* depends on x_H only, dH = {k}: mu_t is a pair of laws on S^{k} of (y, |u_perp|), y = u_H"]
    if factor is not None:
        statements.append(f"f* = {factor:.6g} |x_H|: its laws depend on the angle to H alone")
    assumes = (*common.assumes, _seen("f*(x) = f*(x_H), dH < d", _lives_on(target)))
    arguments = {"target_on_H": restricted(target, basis), "d": d}
    return Reduced(
        "lowdim", d, k, k, "lowdim_flow", arguments, target.parity, common.group,
        (*common.theorems, "lowdim-reduction"), assumes, (*statements, *common.statements), form,
    )  # fmt: skip


def _constant(target: Target, common: _Common, form: Rigor) -> Reduced:
    d = target.dimension
    known = _lives_on(target) if d > 1 else form is not Rigor.SAMPLED
    statements = (
        "f* is constant on the sphere: mu_t stays uniform in b, and its two masses follow a scalar ODE",
        *common.statements,
    )
    return Reduced(
        "none", d, 0, 0, "particle_flow", {"target": target}, 1, common.group, common.theorems,
        (*common.assumes, _seen("f* is constant on the sphere", known)), statements, form,
    )  # fmt: skip


def restricted(target: Target, basis: FloatArray) -> Target:
    """The function z -> f*(sum_i z_i h_i) on R^dH as a target, where the class of f* allows it; else a `Projected`.

    Args:
        target: a function of x_H.
        basis: orthonormal rows h_i (dH, d).

    >>> restricted(Teacher([1.0], [[0.0, 2.0]]), np.array([[0.0, 1.0]])).B
    array([[2.]])
    """
    if isinstance(target, Projected):
        inside = target.lift
        if inside is not target:
            return restricted(inside, basis)
    if isinstance(target, Scaled):
        return Scaled(target.factor, restricted(target.part, basis))
    if isinstance(target, Sum):
        return Sum([restricted(part, basis) for part in target.parts])
    if isinstance(target, Teacher):
        return Teacher(target.c, target.B @ basis.T)
    if isinstance(target, Linear):
        return Linear(target.beta @ basis.T)
    if isinstance(target, Constant):
        return Constant(target.value, len(basis))
    if isinstance(target, Polynomial):
        return target.restricted(basis)
    if isinstance(target, NormH) and len(target.H) <= len(basis):
        return NormH(_orthonormal(target.H @ basis.T))
    if isinstance(target, SingleIndex):
        return SingleIndex(target.v @ basis.T, target.h, kinks=target.kinks, parity=target.given_parity)
    rest = complement(basis)

    def on_subspace(z: FloatArray) -> FloatArray:
        # the value belongs to points of the sphere: the part in H-perp is put back, and does not matter
        height = np.sqrt(np.maximum(0.0, 1.0 - np.einsum("nk,nk->n", z, z)))
        return target(z @ basis + height[:, None] * rest[0])

    k = len(basis)
    # only its values are used by flows that lift it; the samples of a high-dimensional one are kept few
    return Projected(on_subspace, np.eye(k)) if k <= 4 else Sampled(on_subspace, k, count=1024)


def _orthonormal(rows: FloatArray) -> FloatArray:
    # the product of two orthonormal frames is one but for rounding
    u, _, v = np.linalg.svd(rows, full_matrices=False)
    return rows if np.max(np.abs(rows @ rows.T - np.eye(len(rows)))) <= 1e-15 else u @ v


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else type(value).__name__


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(_plain(value))


def _mark(assumption: Assumption) -> str:
    if not assumption.checked:
        return "assumed:"
    return "checked:" if assumption.holds else "fails:"
