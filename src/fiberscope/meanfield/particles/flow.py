"""Gradient flow of a finite net on the risk itself: no samples, and one neuron of each orbit where a group acts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.activations import Activation
from fiberscope.activations import activation as row_of
from fiberscope.errors import InputError, IntegrationError, UnsupportedError
from fiberscope.meanfield.integrators import Trajectory, checked_times, integrate
from fiberscope.meanfield.particles.forces import Forces, Loss, PopulationForces, RuleForces, checked_neurons, forces_of
from fiberscope.meanfield.particles.frames import frames_of
from fiberscope.meanfield.particles.system import Folding, ParticleSystem, heun
from fiberscope.meanfield.symmetry.invariance import alignment
from fiberscope.meanfield.symmetry.measures import sphere_points
from fiberscope.meanfield.tables import time_table
from fiberscope.meanfield.targets.base import Target
from fiberscope.results import Budget, Progress, Result, Rigor

if TYPE_CHECKING:
    from fiberscope.meanfield.symmetry.groups import OrthogonalGroup

FloatArray = NDArray[np.float64]
Kind = Literal["random", "antipodal", "axes"]
_PROBES = 256
"""Points on the sphere at which symmetry is measured."""
_INVARIANT = 1e-9
"""Largest defect of an invariant target, in units of its size."""


@dataclass(frozen=True, eq=False)
class ParticleFlow(Result):
    """Neurons of a finite net along the gradient flow of its risk, in the time of the mean field.

    Args:
        dimension: d.
        width: m.
        times: (T,), those reached.
        a: (T, m).
        B: (T, m, d).
        energy: (T,), the risk F (of the loss; for data the empirical one).
        dissipation: (T,), F' = -(1/m) sum_j (g(b_j)^2 + a_j^2 |grad g(b_j)|^2).
        mass_plus: (T,), (1/m) sum of |a_j| |b_j| over a_j > 0.
        mass_minus: (T,), over a_j < 0.
        invariance_defect: (T,), the largest |f(Tx) - f(x)| over generators T and points on the sphere, in units of
            (1/m) sum |a_j| |b_j|; None without a group.
        alignment: (T,), share of sum |a_j| |b_j| |b_j's direction in H|^2; None without a target or with H all of R^d.
        balance_drift: (T,), largest change of a_j^2 - |b_j|^2 in units of the largest |a_j|^2 + |b_j|^2; conserved
            for 1-homogeneous activations, None for others.
        group_order: order of the group the run was folded by, 1 without.
        rows: neurons that were evolved, m / |G| for free orbits.
        loss: "squared" or "logistic".
        activation: row of the table.
        expectation: how expectations were taken.
        expectation_error: estimate of the largest error of the forces g at the neurons, of the first and the last time:
            from the `error` of a computed target, or the change under another rule; 0 for closed forms and datasets,
            where it is rounding, None where it is not known.
        method: integrator and device.
        steps: accepted steps.
        evaluations: evaluations of the forces.
        rigor: NUMERICAL, or SAMPLED where expectations are sampled.
        complete: whether all times were reached.
        reason: why not.
        theorems: what the run rests on.
    """

    dimension: int
    width: int
    times: FloatArray
    a: FloatArray
    B: FloatArray
    energy: FloatArray
    dissipation: FloatArray
    mass_plus: FloatArray
    mass_minus: FloatArray
    invariance_defect: FloatArray | None
    alignment: FloatArray | None
    balance_drift: FloatArray | None
    group_order: int = 1
    rows: int = 0
    loss: str = "squared"
    activation: Activation = field(default_factory=lambda: row_of("relu"))
    expectation: str = ""
    expectation_error: float | None = None
    method: str = "DOP853"
    steps: int = 0
    evaluations: int = 0
    rigor: Rigor = Rigor.NUMERICAL
    complete: bool = True
    reason: str = ""
    theorems: tuple[str, ...] = ()
    hidden: ClassVar[frozenset[str]] = frozenset({"a", "B", "activation"})

    def predict(self, points: ArrayLike, index: int = -1) -> FloatArray:
        """f(x) = (1/m) sum_j a_j s(b_j.x) at one of the times: points (n, d) -> (n,)."""
        x = np.asarray(points, float)
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise InputError(f"points of shape {x.shape}; give (n, {self.dimension})")
        value: FloatArray = self.activation(x @ self.B[index].T) @ self.a[index] / self.width
        return value

    @property
    def linear_part(self) -> FloatArray:
        """(T, d): w(t) = (1/2m) sum_j a_j b_j, the linear part of a ReLU net (relu(s) = s/2 + |s|/2)."""
        if self.activation.name != "relu":
            raise InputError(f"the linear part of a net with {self.activation} is not a mean of its neurons")
        value: FloatArray = np.einsum("tj,tjk->tk", self.a, self.B) / (2 * self.width)
        return value

    def to_dict(self) -> dict[str, Any]:
        """The data with the heaviest neurons at some of the times in few coordinates, the activation by its label."""
        drawn = frames_of(self.times, self.a, self.B) or {"signs": [], "frames": None}
        return super().to_dict() | {"activation": self.activation.label} | drawn

    def to_frame(self) -> dict[str, FloatArray]:
        """Columns of one length, a row per time."""
        columns = {"time": self.times}
        for name in _COLUMNS:
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name)
        return columns

    @property
    def _standing(self) -> str:
        """How far the numbers can be relied on."""
        if self.expectation_error is None:
            return f"{self.rigor.name}: no estimate of the error of the expectation"
        if self.expectation_error == 0.0:
            return f"{self.rigor.name}: expectations to rounding, steps to their tolerance"
        return f"{self.rigor.name}: forces off by about {self.expectation_error:.1e}"

    def __str__(self) -> str:
        """One screen."""
        folded = f", {self.rows} evolved under a group of order {self.group_order}" if self.rows < self.width else ""
        lines = [
            f"{self.width} {self.activation} neurons{folded}, d = {self.dimension}: {self.loss} loss, "
            f"{self.expectation}",
            *time_table({_COLUMNS.get(name, "t"): column for name, column in self.to_frame().items()}),
            f"  {self.method}, {self.steps} steps; {self._standing}",
        ]
        if not self.complete:
            lines.append(f"  stopped at t = {self.times[-1]:g}: {self.reason}" if len(self.times) else self.reason)
        return "\n".join(lines)


_BEYOND = "beyond the range of floats; rescale the neurons and the target"
_COLUMNS = {
    "energy": "risk", "dissipation": "risk'", "mass_plus": "mass+", "mass_minus": "mass-",
    "invariance_defect": "defect", "alignment": "alignment", "balance_drift": "balance",
}  # fmt: skip


def particle_flow(
    a: ArrayLike,
    B: ArrayLike,
    target: Target | None,
    times: ArrayLike,
    *,
    group: OrthogonalGroup | None = None,
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
        group: a finite orthogonal group.
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
    dimension = target.dimension if target is not None else None
    heads, rows = checked_neurons(a, B, dimension)
    moments = checked_times(times)
    if not 0 < rtol < 1 or method not in ("auto", "DOP853", "Heun"):
        raise InputError(f"rtol {rtol:g}, method {method!r}; give 0 < rtol < 1 and 'auto', 'DOP853' or 'Heun'")
    if step is not None and not 0 < step < np.inf:
        raise InputError(f"step {step:g}; give a positive number")
    folded = group if fold else None
    forces = forces_of(target, data=data, loss=loss, activation=activation, group=folded, samples=samples, seed=seed)
    if forces.dimension != rows.shape[1]:
        raise InputError(f"neurons of dimension {rows.shape[1]} for a problem of dimension {forces.dimension}")
    if group is not None and group.dimension != forces.dimension:
        raise InputError(f"a group in dimension {group.dimension} for a problem of dimension {forces.dimension}")
    folding = Folding(None, len(heads), 1)
    if folded is not None:
        _check_problem(folded, target, forces, data is not None)
        folding = Folding.of(heads, rows, folded)
    run = ParticleSystem(_on_device(forces, device), folding, folding.pack(heads, rows))
    with np.errstate(over="ignore", invalid="ignore"):
        first = run.risk_and_dissipation(run.start)
    if not np.isfinite(first).all():
        raise IntegrationError(f"the integration failed at time 0: the risk or its rate is {_BEYOND}", 0.0, run.start)
    row = row_of(activation)
    name = method if method != "auto" else "DOP853" if forces.smooth else "Heun"
    task = None
    if path is not None:
        told = {"loss": loss, "activation": row.spec, "device": device, "method": name, "step": step, "rtol": rtol}
        generators = folded.generators if folded is not None else ()
        with np.errstate(over="ignore", invalid="ignore"):
            task = run.task(generators, **told, samples=samples, seed=seed)
    track = integrate(
        run.rate, run.start, moments, rtol=rtol, method="DOP853" if name == "DOP853" else heun(run, step), path=path,
        task=task, budget=budget, progress=progress, text=lambda t, y: f"risk {run.latest:.4g}",
    )  # fmt: skip
    where = "" if device == "numpy" else f" on {device}"
    with np.errstate(over="ignore", invalid="ignore"):
        flow = _result(run, track, target, group, row, loss=loss, method=name + where)
    _check_finite(flow, track)
    return flow


def initial_neurons(
    d: int, m: int, *, kind: Kind = "random", group: OrthogonalGroup | None = None, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Neurons (a, B) that stand for mu_0 = U{-1, 1} x U(S^{d-1}), with |a| = |b| = 1 (arXiv 2211.08771).

    Args:
        d: dimension.
        m: number of neurons.
        kind: "random", independent draws; "antipodal", pairs (a, b), (-a, -b), the finite form of odd symmetry; "axes",
            all (+-1, +-e_i), whose moments are those of mu_0 (m = 4 d).
        group: draws are completed to full orbits; m is then a multiple of its order.
        seed: of the draws.

    Returns:
        a (m,), B (m, d).

    Raises:
        InputError: for an m that the kind or the group cannot fill.

    >>> a, B = initial_neurons(2, 8, kind="axes")
    >>> a.tolist(), (B.T @ B).tolist()
    ([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0], [[4.0, 0.0], [0.0, 4.0]])
    """
    if d < 1 or m < 1:
        raise InputError(f"{m} neurons in dimension {d}; give at least one of each")
    if kind == "axes":
        if m != 4 * d:
            raise InputError(f"m = {m} for the neurons (+-1, +-e_i) in dimension {d}; give m = {4 * d}")
        axes = np.concatenate([np.eye(d), -np.eye(d)])
        # 0.0 - 0.0 is 0.0: no negative zeros
        heads, rows = np.repeat([1.0, -1.0], 2 * d), np.concatenate([axes, axes]) + 0.0
        return heads, rows
    if kind not in ("random", "antipodal"):
        raise InputError(f"kind {kind!r}; give 'random', 'antipodal' or 'axes'")
    if kind == "antipodal" and m % 2:
        raise InputError(f"m = {m} for pairs (a, b), (-a, -b); give an even number")
    if group is not None:
        return _orbit_neurons(d, m, kind, group, seed)
    heads, rows = _draws(d, m if kind == "random" else m // 2, seed)
    return _paired(heads, rows) if kind == "antipodal" else (heads, rows)


def _draws(d: int, m: int, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((m, d))
    return rng.choice([-1.0, 1.0], m), rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _paired(heads: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.concatenate([heads, -heads]), np.concatenate([rows, -rows])


def _orbit_neurons(d: int, m: int, kind: Kind, group: OrthogonalGroup, seed: int) -> tuple[FloatArray, FloatArray]:
    order = group.order()
    unit = (order or 0) * (2 if kind == "antipodal" else 1)
    if not order or m % unit:
        raise InputError(f"m = {m} neurons in orbits of {unit or 'too many'}; give a multiple")
    if group.dimension != d:
        raise InputError(f"a group in dimension {group.dimension} for neurons of dimension {d}")
    heads, rows = _draws(d, m // unit, seed)
    rows = np.einsum("gij,rj->rgi", group.elements(), rows).reshape(-1, d)
    heads = np.repeat(heads, order)
    return _paired(heads, rows) if kind == "antipodal" else (heads, rows)


def _check_problem(group: OrthogonalGroup, target: Target | None, forces: Forces, data: bool) -> None:
    """The target or the dataset must be invariant; the rules over the sphere are made so."""
    if data and isinstance(forces, RuleForces):
        try:
            size = float(np.abs(forces.labels).max())
            group.representatives(forces.points, forces.labels, label_tolerance=_INVARIANT * size)
        except InputError as exc:
            raise InputError(f"the dataset is not invariant under the group: {exc}") from None
    elif target is not None:
        points = sphere_points(_PROBES, forces.dimension, 0)
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
    kind, _, platform = device.partition(":")
    if kind != "jax":
        raise InputError(f"device {device!r}; give 'numpy', 'jax', 'jax:cpu' or 'jax:gpu'")
    if not isinstance(forces, PopulationForces):
        raise UnsupportedError(f"device {device!r} for a {forces.label}; JAX is used for closed forms only")
    from fiberscope.meanfield.particles.jax import JaxForces

    return JaxForces.of(forces, platform or None)


def _defects(a: FloatArray, B: FloatArray, group: OrthogonalGroup, row: Activation) -> FloatArray:
    points = sphere_points(_PROBES, B.shape[2], 0)
    images = [points, *(group.apply(k, points) for k in range(len(group.generators)))]
    found = np.zeros(len(a))
    for k in range(len(a)):
        size = float(np.abs(a[k]) @ np.linalg.norm(B[k], axis=1))
        values = [row(x @ B[k].T) @ a[k] for x in images]
        worst = max((float(np.abs(v - values[0]).max()) for v in values[1:]), default=0.0)
        found[k] = worst / size if size else 0.0
    return found


def _check_finite(flow: ParticleFlow, track: Trajectory) -> None:
    """Nothing that is not finite leaves."""
    for name, column in flow.to_frame().items():
        if not np.isfinite(column).all():
            at = int(np.argmax(~np.isfinite(column)))
            raise IntegrationError(
                f"the {_COLUMNS.get(name, name)} at time {flow.times[at]:g} is {_BEYOND}",
                float(flow.times[at]),
                track.states[at],
            )
    if flow.expectation_error is not None and not np.isfinite(flow.expectation_error):
        raise IntegrationError("the error of the expectation is not finite", float(flow.times[-1]), track.states[-1])


def _drifts(a: FloatArray, B: FloatArray) -> FloatArray:
    if not len(a):
        return np.zeros(0)
    squares = np.einsum("tjk,tjk->tj", B, B)
    change = np.abs((a**2 - squares) - (a[0] ** 2 - squares[0])).max(axis=1)
    size = (a**2 + squares).max(axis=1)
    drift: FloatArray = change / np.where(size > 0, size, 1.0)
    return drift


def _result(
    run: ParticleSystem,
    track: Trajectory,
    target: Target | None,
    group: OrthogonalGroup | None,
    row: Activation,
    **told: Any,
) -> ParticleFlow:
    forces, folding = run.forces, run.folding
    T, d = len(track.times), forces.dimension
    a, B, measured = np.empty((T, folding.width)), np.empty((T, folding.width, d)), np.empty((T, 2))
    for k, state in enumerate(track.states):
        a[k], B[k] = folding.unfold(*folding.split(state))
        measured[k] = run.risk_and_dissipation(state)
    errors = [run.expectation_error(state) for state in ([run.start, track.states[-1]] if T else [run.start])]
    loads = np.abs(a) * np.linalg.norm(B, axis=2) / folding.width
    flow = ParticleFlow(
        dimension=forces.dimension,
        width=folding.width,
        times=track.times,
        a=a,
        B=B,
        energy=measured[:, 0],
        dissipation=measured[:, 1],
        mass_plus=(loads * (a > 0)).sum(axis=1),
        mass_minus=(loads * (a < 0)).sum(axis=1),
        invariance_defect=None if group is None else _defects(a, B, group, row),
        alignment=None,
        balance_drift=_drifts(a, B) if forces.homogeneous else None,
        group_order=folding.order,
        rows=len(folding.counts),
        activation=row,
        expectation=forces.label,
        expectation_error=None if None in errors else max(e for e in errors if e is not None),
        steps=track.steps,
        evaluations=track.evaluations,
        rigor=forces.rigor,
        complete=track.complete,
        reason=track.reason,
        theorems=("meanfield-symmetry",) if folding.folds else (),
        **told,
    )
    if target is None or not 0 < len(target.subspace) < forces.dimension:
        return flow
    if not T:
        return replace(flow, alignment=np.zeros(0))
    return replace(flow, alignment=alignment(flow, target.subspace).share)
