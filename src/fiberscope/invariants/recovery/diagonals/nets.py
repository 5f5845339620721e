"""Diagonal linear networks from small starts: the limit's exact staircase, its l1 norm, and the flow at finite scales.

f(x) = sum_i k_i x_i with k_i a product of L factors; gradient flow of |X k - y|^2 / 2 from s * shape. As s -> 0 it
jumps from saddle to saddle, each on the invariant manifold where some theta_i are 0, and ends at the least squares
solution of least weighted l1 norm sum t+ k+ + t- k-, with t+- the growth times of the coordinates.
After arXiv 2607.12332.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_choice, as_count, as_exact, as_number, as_switch, plain
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.diagonals.flow import DiagonalFlow, Flow, log_inverse, run_flow
from fiberscope.invariants.recovery.diagonals.growth import Growth, Weight, corner, growth_times
from fiberscope.invariants.recovery.diagonals.leastnorm import least_norm
from fiberscope.invariants.recovery.diagonals.limit import LimitPath, Stage, limit_path
from fiberscope.invariants.recovery.diagonals.orbits import Orbits, ProductOrbits, QuadraticOrbits
from fiberscope.invariants.recovery.diagonals.results import Diagonal, names
from fiberscope.results import Budget, Progress, Rigor, Stopwatch

_SCALES = ("1e-30", "1e-1000")
_RAW = (
    "raw parameters are not integrated: what decides when a coordinate may change its sign is a difference such as "
    "a - b, which falls below the last digit of a, so that solvers agree on a wrong end; mode 'flow' integrates the "
    "same flow on its curves, where nothing is lost"
)


def diagonal(
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    depth: int = 2,
    shape: npt.ArrayLike | None = None,
    weights: Any = None,
    scales: Sequence[str | float | Fraction] = (),
    mode: str = "limit",
    exact: bool = True,
    compare: bool = True,
    tolerance: float = 1e-8,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Diagonal:
    """Stages, end and flow of a diagonal linear network under infinitesimal initialisation.

    k_i = a_1i ... a_Li starts at s^L times the product of column i of `shape`; loss |X k - y|^2 / 2, gradient flow. For
    two layers `weights` = (t+, t-) generalise the product a b to k_i = (p^2 / t+ - q^2 / t-) / 2, whose Hessian has the
    eigenvalues 1 / t+ and -1 / t-, with p = (a + b) / sqrt 2 and q = (a - b) / sqrt 2 at the start.

    Args:
        X: (n, d) features; floats count as the rationals they are.
        y: (n,) targets.
        depth: L >= 2.
        shape: (L, d) start up to scale; by default all factors 1 but the last, which is 0.
        weights: growth times instead of those of the shape: one number, (d,), or (2, d) for t+ and t-.
        scales: s in (0, 1) of the flows, numbers or texts such as "1e-1000".
        mode: "limit", or "flow" to integrate at every scale too (1e-30 and 1e-1000 if none is given).
        exact: rational arithmetic in the limit; else float64, for hundreds of features.
        compare: solve the weighted l1 linear program as well.
        tolerance: of sigma in each step of the flow.
        budget: seconds for everything.
        progress: called with (fraction or None, text).

    Returns:
        A `Diagonal`.

    Raises:
        InputError: for shapes, weights or scales that do not fit.
        ScopeError: for mode "raw", and flows from weights alone with three or more layers.

    Complexity: usually about d stages of O(d^3) rational operations; flows O(d^3) for each of some 3,000 implicit
    Euler steps. Source: arXiv 2607.12332, Algorithm 1.

    >>> answer = diagonal([[2, 1]], [2])
    >>> [str(v) for v in answer.k], str(answer.norm), answer.agrees
    (['1', '0'], '1', True)
    """
    features, targets = _data(X, y)
    n, d = features.shape
    if as_count(depth, "depth") < 2:
        raise InputError(f"depth {depth}; a diagonal network has at least two layers")
    if mode == "raw":
        raise ScopeError(_RAW)
    as_choice(mode, "mode", ("limit", "flow"))
    exact, compare = as_switch(exact, "exact"), as_switch(compare, "compare")
    tolerance = as_number(tolerance, "tolerance", above=0)
    scales = (scales,) if isinstance(scales, str | Real) else tuple(scales)
    if scales and mode == "limit":
        raise InputError("scales belong to mode 'flow'; the limit has none")
    factors = _shape(shape, depth, d)
    growth = growth_times(factors)
    if weights is not None:
        if mode == "flow" and depth > 2:
            raise ScopeError(f"a flow of {depth} layers starts along a shape, which growth times alone do not tell")
        growth = _given(weights, d, growth if depth == 2 else None)
    parsed = [_scale(s) for s in (scales or _SCALES)] if mode == "flow" else []
    clock = Budget.of(budget).start()
    path = limit_path(features, targets, growth.plus, growth.minus, exact=exact, clock=clock, progress=progress)
    norm = _norm(path, growth)
    fitted_after = _fitted_after(path, features, targets, _unit(X, y))
    comparison = None
    if compare and path.finished:
        fitted = rationals.matmul(features, rationals.exact_array(path.k)) if _one_sided(growth) else targets
        comparison = least_norm(features, fitted, growth.plus, growth.minus, clock, exact=exact)
    flows = []
    for text, log_scale in parsed if path.finished else []:
        orbits = _orbits(factors, growth if weights is not None else None, log_scale)
        flow = Flow(orbits, rationals.nearest_floats(features), rationals.nearest_floats(targets), tolerance)
        flows.append(_run(flow, text, log_scale, path, fitted_after, clock, progress))
    rigor = Rigor.EXACT if exact and growth.exact and not flows else Rigor.NUMERICAL
    theorems = () if any(stage.tie for stage in path.stages) else ("diagonal-limit",)
    notes = _notes(path, growth)
    if parsed and not path.finished:
        notes = (*notes, "the budget ended before a flow could begin")
    return Diagonal(n, d, depth, growth, path, norm, comparison, tuple(flows), notes, rigor, theorems, fitted_after)


# ---- input


def _data(X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[rationals.ExactArray, rationals.ExactArray]:
    features, targets = as_exact(X, "X"), as_exact(y, "y")
    if features.ndim != 2 or not features.size or targets.shape != features.shape[:1]:
        raise InputError(f"X of shape {features.shape} and y of shape {targets.shape}; expected (n, d) and (n,)")
    for array in (features, targets):
        if not rationals.is_rational(array) and not np.isfinite(array).all():
            raise InputError("X and y must be finite")
    return features, targets


def _unit(X: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Largest relative rounding of an entry; 0 for integers and rationals, which are what they are."""
    kinds = [np.asarray(plain(values)).dtype for values in (X, y)]
    return max(float(np.finfo(kind).eps) / 2 if kind.kind == "f" else 0.0 for kind in kinds)


def _shape(shape: npt.ArrayLike | None, depth: int, d: int) -> rationals.ExactArray:
    if shape is None:
        return np.concatenate([np.ones((depth - 1, d)), np.zeros((1, d))])
    factors = as_exact(shape, "shape")
    if factors.shape != (depth, d):
        raise InputError(f"shape of shape {factors.shape}; expected ({depth}, {d}), the factors of every coordinate")
    return factors


def _given(weights: Any, d: int, shape: Growth | None) -> Growth:
    """Growth times as the caller gave them; where the start has no part that grows, they are infinite."""
    try:
        table = np.broadcast_to(np.asarray(weights, dtype=object), (2, d))
        rows = [[math.inf if v == math.inf else rationals.as_fraction(v) for v in row] for row in table]
    except (TypeError, ValueError, OverflowError) as exc:
        raise InputError(f"weights must be one number, {d} numbers or two rows of {d}") from exc
    if not all(v > 0 for row in rows for v in row):
        raise InputError("weights are growth times and must be positive")
    if shape is not None:
        never = (shape.plus, shape.minus)
        rows = [
            [s if s == math.inf else v for v, s in zip(*pair, strict=True)] for pair in zip(rows, never, strict=True)
        ]
    return Growth(tuple(rows[0]), tuple(rows[1]), 0.0, "given")


def _scale(value: str | float | Fraction) -> tuple[str, float]:
    try:
        scale = Fraction(value) if isinstance(value, str) else rationals.as_fraction(value)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as exc:
        raise InputError(f"initialisation scale {value!r}; expected a number such as 1e-3 or '1e-1000'") from exc
    return str(value), log_inverse(scale)


def _one_sided(growth: Growth) -> bool:
    return any(v == math.inf for v in (*growth.plus, *growth.minus))


# ---- parts of the answer


def _fitted_after(
    path: LimitPath, features: rationals.ExactArray, targets: rationals.ExactArray, unit: float
) -> int | None:
    """After how many stages the residual is no more than the rounding of X, y and of a product X k; None: never.

    A sum of d products in floats is off by at most about d u |X| |k|, and the nearest fit to it is no further away.
    Rows of small numbers are rounded less than those of large ones, so each row is measured by its own size too.
    """
    size = np.abs(rationals.nearest_floats(features)), np.abs(rationals.nearest_floats(targets))
    for number, stage in enumerate(path.stages[:-1], start=1):
        terms = size[0] @ np.abs(np.asarray(stage.k, dtype=np.float64)) + size[1]
        grain = (len(stage.k) + 2) * unit
        if math.sqrt(2.0 * float(stage.loss)) <= grain * float(np.linalg.norm(terms)):
            if _misfit(stage, features, targets, terms) <= grain * math.sqrt(len(terms)):
                return number
    return None


def _misfit(
    stage: Stage, features: rationals.ExactArray, targets: rationals.ExactArray, terms: npt.NDArray[np.float64]
) -> float:
    """Norm of (y - X k) / terms for the k of the stage's support that makes it smallest."""
    fitted = rationals.matmul(features, rationals.exact_array(stage.k))
    rest = rationals.nearest_floats(rationals.add(targets, rationals.scale(fitted, Fraction(-1))))
    seen = terms > 0
    rows = rationals.nearest_floats(features)[seen][:, list(stage.support)] / terms[seen, None]
    wanted = rest[seen] / terms[seen]
    better = np.linalg.lstsq(rows, wanted)[0]
    return float(np.linalg.norm(wanted - rows @ better))


def _norm(path: LimitPath, growth: Growth) -> Weight:
    total: Any = Fraction(0) if path.exact else 0.0
    for v, up, down in zip(path.k, growth.plus, growth.minus, strict=True):
        if v != 0:
            weight = up if v > 0 else down
            total += abs(v) * (Fraction(weight) if path.exact else float(weight))
    return Fraction(total) if path.exact else float(total)


def _orbits(factors: rationals.ExactArray, given: Growth | None, log_scale: float) -> Orbits:
    if len(factors) > 2:
        return ProductOrbits([corner(column) for column in rationals.fractions(factors).T], log_scale)
    a, b = rationals.fractions(factors)
    start = np.array([[float(v) for v in a + b], [float(v) for v in a - b]]) / math.sqrt(2.0)
    times = np.ones((2, len(a)))
    if given is not None:
        # an infinite weight of a part that does not start is no curvature
        times = np.array([[float(v) for v in given.plus], [float(v) for v in given.minus]])
        times = np.where((start == 0.0) & np.isinf(times), 1.0, times)
    return QuadraticOrbits(start, times, log_scale)


def _run(
    flow: Flow, text: str, log_scale: float, path: LimitPath, last: int | None, clock: Stopwatch,
    progress: Progress | None,
) -> DiagonalFlow:  # fmt: skip
    """The flow through the stages that are not rounding, whose times lie 1e15 and more beyond the others."""
    stages = path.stages[:last]
    return run_flow(
        flow,
        scale=text,
        log_scale=log_scale,
        plateaus=[float(path.start_loss), *(float(s.loss) for s in stages)],
        predicted=[float(s.time) for s in stages],
        clock=clock,
        progress=progress,
    )


def _notes(path: LimitPath, growth: Growth) -> tuple[str, ...]:
    out = []
    for number, stage in enumerate(path.stages, start=1):
        if stage.tie:
            out.append(f"stage {number}: {names([abs(v) - 1 for v in stage.reached])} grow at the same time (a tie)")
        if not stage.unique:
            out.append(f"stage {number}: only X k is determined, k and its support are of one of several minimisers")
        if stage.touching:
            out.append(f"stage {number}: {names(stage.touching)} may grow and feel no pull (degenerate)")
    if not growth.exact:
        out.append(
            f"growth times are rounded (error about {growth.error:.1e}); the stages are exact for the rounded ones"
        )
    return tuple(out[:12])
