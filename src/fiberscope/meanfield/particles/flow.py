"""Gradient flow of a finite net on the risk itself: no samples, and one neuron of each orbit where a group acts."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.activations import Activation
from fiberscope.activations import activation as row_of
from fiberscope.arguments import as_choice, as_count, as_generator, as_number
from fiberscope.errors import InputError, IntegrationError, UnsupportedError
from fiberscope.meanfield.arguments import check_run
from fiberscope.meanfield.integrators import checked_times, integrate
from fiberscope.meanfield.particles.forces import Forces, Loss, PopulationForces, RuleForces, checked_neurons, forces_of
from fiberscope.meanfield.particles.solution import BEYOND, PROBES, ParticleFlow, check_finite, solution_of
from fiberscope.meanfield.particles.system import Folding, ParticleSystem, heun
from fiberscope.meanfield.symmetry.groups import OrthogonalGroup, group_of
from fiberscope.meanfield.symmetry.measures import sphere_points
from fiberscope.meanfield.targets.base import Target, checked_target
from fiberscope.results import Budget, Progress

FloatArray = NDArray[np.float64]
Kind = Literal["random", "antipodal", "axes"]
_INVARIANT = 1e-9
"""Largest defect of an invariant target, in units of its size."""


def particle_flow(
    a: ArrayLike,
    B: ArrayLike,
    target: Target | None,
    times: ArrayLike,
    *,
    group: OrthogonalGroup | ArrayLike | None = None,
    fold: bool = True,
    loss: Loss = "squared",
    activation: str | Activation = "relu",
    data: tuple[ArrayLike, ArrayLike] | None = None,
    samples: int = 4096,
    seed: int = 0,
    device: str = "numpy",
    method: Literal["auto", "DOP853", "Heun"] = "auto",
    step: float | None = None,
    rtol: float = 1e-9,
    path: str | os.PathLike[str] | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> ParticleFlow:
    """Train f(x) = (1/m) sum_j a_j s(b_j.x) by the gradient flow of its risk, without sampling noise.

    a_j' = g(b_j), b_j' = a_j grad g(b_j) with g(b) = E[R(x) s(b.x)] and R = -dl/df at f*(x), f(x): the gradient flow of
    m F, in the time of the mean field. For ReLU, the squared loss and x ~ U(S^{d-1}) the forces are closed forms.
    With a group under which target and neurons are invariant the solution stays so (Proposition 3.2.1, any activation
    and loss); then one neuron of each orbit is evolved and the others are its exact images.

    Args:
        a: (m,).
        B: (m, d).
        target: f*, or None with data (then it gives the subspace of `alignment` only).
        times: (T,), increasing.
        group: a finite orthogonal group, or the matrices (d, d) that generate it.
        fold: evolve one neuron of each orbit. If False, the group is only watched: `invariance_defect` is measured on
            neurons that need not be invariant.
        loss: "squared" or "logistic" (f* is the log-odds of the label +1; for data see `forces_of`).
        activation: any row of the table.
        data: (X, y): the empirical risk of a dataset takes the place of the sphere.
        samples: nodes of the rule where no closed form exists; averaged over the group if it is folded by.
        seed: of these nodes.
        device: "numpy", or "jax", "jax:gpu", "jax:cpu" for closed forms on a device of JAX.
        method: "DOP853", adaptive; "Heun", of second order with the step below, which gets past the jumps of the forces
            that kinks of the activation at finitely many nodes make; "auto" takes Heun where there are such jumps.
        step: of Heun; by default a quarter over the size of the curvature of the risk.
        rtol: relative tolerance for each step of DOP853.
        path: file of the run; a run taken up again gives the same numbers.
        budget: seconds; a spent budget returns what was reached.
        progress: called with the fraction done.

    Raises:
        InputError: for shapes that do not fit, neurons that are no union of orbits, a target or dataset that is not
            invariant (the worst defect is named).
        IntegrationError: if the integration fails, or a risk or mass is beyond the range of floats; it has the time
            reached.

    Complexity: O(r m d) an evaluation for r evolved neurons, 12 evaluations a step. Source: arXiv 2211.08771.

    >>> from fiberscope.meanfield.targets.finite import Linear
    >>> flow = particle_flow([1.0, -1.0], [[1.0, 0.0], [-1.0, 0.0]], Linear([1.0, 0.0]), [0, 400])
    >>> flow.linear_part[-1].round(6).tolist(), round(float(flow.energy[0]), 6)
    ([1.0, 0.0], 0.0625)
    """
    dimension = None if target is None else checked_target(target).dimension
    heads, rows = checked_neurons(a, B, dimension)
    moments = checked_times(times)
    as_choice(method, "method", ("auto", "DOP853", "Heun"))
    if not as_number(rtol, "rtol", above=0) < 1:
        raise InputError(f"rtol {rtol:g}; give a number between 0 and 1")
    step = None if step is None else as_number(step, "step", above=0)
    check_run(path, budget, progress)
    group = None if group is None else group_of(group, rows.shape[1])
    folded = group if fold else None
    forces = forces_of(target, data=data, loss=loss, activation=activation, group=folded, samples=samples, seed=seed)
    run = _system(heads, rows, target, forces, folded, data is not None, device)
    row = row_of(activation)
    name = method if method != "auto" else "DOP853" if forces.smooth else "Heun"
    told = {"loss": loss, "activation": row.spec, "device": device, "method": name, "step": step, "rtol": rtol,
            "samples": samples, "seed": seed}  # fmt: skip
    track = integrate(
        run.rate, run.start, moments, rtol=rtol, method="DOP853" if name == "DOP853" else heun(run, step), path=path,
        task=None if path is None else _task(run, folded, told), budget=budget, progress=progress,
        text=lambda t, y: f"risk {run.latest:.4g}",
    )  # fmt: skip
    where = "" if device == "numpy" else f" on {device}"
    with np.errstate(over="ignore", invalid="ignore"):
        flow = solution_of(run, track, target, group, row, loss=loss, method=name + where)
    check_finite(flow, track)
    return flow


def initial_neurons(
    d: int, m: int, *, kind: Kind = "random", group: OrthogonalGroup | ArrayLike | None = None, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Neurons (a, B) that stand for mu_0 = U{-1, 1} x U(S^{d-1}), with |a| = |b| = 1 (arXiv 2211.08771).

    Args:
        d: dimension.
        m: number of neurons.
        kind: "random", independent draws; "antipodal", pairs (a, b), (-a, -b), the finite form of odd symmetry; "axes",
            all (+-1, +-e_i), whose moments are those of mu_0 (m = 4 d).
        group: as in `particle_flow`; draws are completed to full orbits; m is then a multiple of its order.
        seed: of the draws.

    Returns:
        a (m,), B (m, d).

    Raises:
        InputError: for an m that the kind or the group cannot fill.

    >>> a, B = initial_neurons(2, 8, kind="axes")
    >>> a.tolist(), (B.T @ B).tolist()
    ([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0], [[4.0, 0.0], [0.0, 4.0]])
    """
    d, m = as_count(d, "dimension d", 1), as_count(m, "neurons m", 1)
    if as_choice(kind, "kind", get_args(Kind)) == "axes":
        if m != 4 * d:
            raise InputError(f"m = {m} for the neurons (+-1, +-e_i) in dimension {d}; give m = {4 * d}")
        axes = np.concatenate([np.eye(d), -np.eye(d)])
        # 0.0 - 0.0 is 0.0: no negative zeros
        heads, rows = np.repeat([1.0, -1.0], 2 * d), np.concatenate([axes, axes]) + 0.0
        return heads, rows
    if kind == "antipodal" and m % 2:
        raise InputError(f"m = {m} for pairs (a, b), (-a, -b); give an even number")
    if group is not None:
        return _orbit_neurons(d, m, kind, group_of(group, d), seed)
    heads, rows = _draws(d, m if kind == "random" else m // 2, seed)
    return _paired(heads, rows) if kind == "antipodal" else (heads, rows)


def _draws(d: int, m: int, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = as_generator(seed)
    rows = rng.standard_normal((m, d))
    return rng.choice([-1.0, 1.0], m), rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _paired(heads: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.concatenate([heads, -heads]), np.concatenate([rows, -rows])


def _orbit_neurons(d: int, m: int, kind: Kind, group: OrthogonalGroup, seed: int) -> tuple[FloatArray, FloatArray]:
    order = group.order()
    unit = (order or 0) * (2 if kind == "antipodal" else 1)
    if not order or m % unit:
        raise InputError(f"m = {m} neurons in orbits of {unit or 'too many'}; give a multiple")
    heads, rows = _draws(d, m // unit, seed)
    rows = np.einsum("gij,rj->rgi", group.elements(), rows).reshape(-1, d)
    heads = np.repeat(heads, order)
    return _paired(heads, rows) if kind == "antipodal" else (heads, rows)


def _system(
    heads: FloatArray,
    rows: FloatArray,
    target: Target | None,
    forces: Forces,
    group: OrthogonalGroup | None,
    data: bool,
    device: str,
) -> ParticleSystem:
    """The equation for one neuron of each orbit, or of all neurons, once the problem is known to be sound."""
    if forces.dimension != rows.shape[1]:
        raise InputError(f"neurons of dimension {rows.shape[1]} for a problem of dimension {forces.dimension}")
    folding = Folding(None, len(heads), 1)
    if group is not None:
        _check_problem(group, target, forces, data)
        folding = Folding.of(heads, rows, group)
    run = ParticleSystem(_on_device(forces, device), folding, folding.pack(heads, rows))
    with np.errstate(over="ignore", invalid="ignore"):
        first = run.risk_and_dissipation(run.start)
    if not np.isfinite(first).all():
        raise IntegrationError(f"the integration failed at time 0: the risk or its rate is {BEYOND}", 0.0, run.start)
    return run


def _task(run: ParticleSystem, group: OrthogonalGroup | None, told: dict[str, Any]) -> dict[str, Any]:
    """What a file of the run must agree with."""
    with np.errstate(over="ignore", invalid="ignore"):
        return run.task(() if group is None else group.generators, **told)


def _check_problem(group: OrthogonalGroup, target: Target | None, forces: Forces, data: bool) -> None:
    """The target or the dataset must be invariant; the rules over the sphere are made so."""
    if data and isinstance(forces, RuleForces):
        try:
            size = float(np.abs(forces.labels).max())
            group.representatives(forces.points, forces.labels, label_tolerance=_INVARIANT * size)
        except InputError as exc:
            raise InputError(f"the dataset is not invariant under the group: {exc}") from None
    elif target is not None:
        points = sphere_points(PROBES, forces.dimension, 0)
        size = float(np.abs(target(points)).max(initial=0.0))
        defect = group.defect(target, points)
        if not defect <= _INVARIANT * size:
            raise InputError(
                f"the target is not invariant under the group: |f*(Tx) - f*(x)| reaches {defect:.3g}, "
                f"with values up to {size:.3g}"
            )


def _on_device(forces: Forces, device: str) -> Forces:
    if device == "numpy":
        return forces
    if not isinstance(device, str) or not device.startswith("jax:"):  # JAX knows which platforms there are
        as_choice(device, "device", ("numpy", "jax", "jax:cpu", "jax:gpu"))
    platform = device[4:]
    if not isinstance(forces, PopulationForces):
        raise UnsupportedError(f"device {device!r} for a {forces.label}; JAX is used for closed forms only")
    from fiberscope.meanfield.particles.jax import JaxForces

    return JaxForces.of(forces, platform or None)
