"""Targets of a low-dimensional part of the input: the mean-field dynamics on the sphere S^{dH} of (u_H, |u_perp|)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count, as_number
from fiberscope.errors import InputError
from fiberscope.meanfield.arguments import check_run
from fiberscope.meanfield.harmonics.kernels import relu_slab
from fiberscope.meanfield.integrators import Trajectory, checked_times, integrate
from fiberscope.meanfield.lowdim.kernel import side_rule
from fiberscope.meanfield.lowdim.system import (
    LowdimSystem,
    checked_start,
    initial_measure,
    normals,
    seen_target,
)
from fiberscope.meanfield.tables import time_table
from fiberscope.meanfield.targets.base import Target, checked_target
from fiberscope.results import Budget, Progress, Result, Rigor, jsonable

FloatArray = NDArray[np.float64]
Init = tuple[ArrayLike, ArrayLike, ArrayLike]
_FRAME_VALUES = 16_000
"""Numbers of the particle frames in the JSON document, at most."""


@dataclass(frozen=True, eq=False)
class LowdimFlow(Result):
    """The measure of the neurons over time, as weighted points (y, rho) = (u_H, |u_perp|) of S^{dH}.

    Args:
        dimension: d.
        subspace_dimension: dH.
        times: (T,), those reached.
        signs: (m,), +1 or -1; they never change.
        masses: (T, m), a_j |b_j| summed over the neurons that a particle stands for.
        points: (T, m, dH+1), unit rows with last entry >= 0.
        mass_plus: (T,), mass of the particles of sign +1.
        mass_minus: (T,), of sign -1.
        energy: (T,), F = 1/2 E (f* - f)^2.
        dissipation: (T,), -F' = sum_j c_j (2 G^2 + |grad G|^2).
        dissipation_defect: (T,), F(0) - F(t) minus the integral of the dissipation: 0 but for errors of the run.
        nodes: of the initial measure; empty where it was given.
        initial: "gauss", "sobol" or "given".
        form: how the potential of the target was found.
        potential_error: estimate of the largest error of that potential, 0 for closed forms.
        side_points: points of the average over H-perp.
        steps: accepted steps.
        evaluations: evaluations of the right-hand side.
        error: None, or from `refine`: largest change of mass_plus, mass_minus and energy over the times; for Sobol
            points against another scramble.
        basis: (dH, d), orthonormal rows of H.
        rigor: NUMERICAL; SAMPLED where the initial measure or the target is.
        complete: whether all times were reached.
        reason: why not.
        theorems: what the reduction rests on.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"masses", "points", "signs", "basis", "settings"})

    dimension: int
    subspace_dimension: int
    times: FloatArray
    signs: FloatArray
    masses: FloatArray
    points: FloatArray
    mass_plus: FloatArray
    mass_minus: FloatArray
    energy: FloatArray
    dissipation: FloatArray
    dissipation_defect: FloatArray
    nodes: tuple[int, ...]
    initial: str
    form: str
    potential_error: float
    side_points: int
    steps: int
    evaluations: int
    basis: FloatArray
    settings: dict[str, Any] = field(repr=False)
    error: dict[str, float] | None = None
    rigor: Rigor = Rigor.NUMERICAL
    complete: bool = True
    reason: str = ""
    theorems: tuple[str, ...] = ("lowdim-reduction",)

    def predict(self, points_on_H: ArrayLike, *, at: int = -1, perp: ArrayLike | None = None) -> FloatArray:
        """f(mu_t; x) for inputs with these parts x_H: sum_j eps_j c_j E_s relu(y_j.x_H + rho_j |x_perp| s), exactly.

        Args:
            points_on_H: (n, dH), in the coordinates of `basis`.
            at: index of the time.
            perp: (n,) or a number, |x_perp|; by default sqrt(1 - |x_H|^2), inputs on the sphere.

        Returns:
            (n,).

        Raises:
            InputError: for other shapes, a negative |x_perp|, or |x_H| > 1 without one.

        Complexity: O(n m dp).
        """
        rows = np.asarray(points_on_H, float)
        if rows.ndim != 2 or rows.shape[1] != self.subspace_dimension:
            raise InputError(f"points of shape {rows.shape}; give rows (n, {self.subspace_dimension})")
        rest = 1.0 - np.einsum("ij,ij->i", rows, rows)
        if perp is None and (rest < -1e-12).any():
            raise InputError("a point beyond the unit ball of H; give perp, the length of x_perp")
        across = np.sqrt(np.maximum(rest, 0.0)) if perp is None else np.broadcast_to(np.asarray(perp, float), len(rows))
        if not (across >= 0).all():
            raise InputError("perp must not be negative: it is the length of x_perp")
        q = self.points[at]
        dp = self.dimension - self.subspace_dimension
        means, _, _ = relu_slab(rows @ q[:, :-1].T, np.outer(across, q[:, -1]), dp)
        values: FloatArray = means @ (self.signs * self.masses[at])
        return values

    def unfold(self, count: int, *, at: int = -1, seed: int = 0) -> tuple[FloatArray, FloatArray]:
        """A finite network near the measure: each particle becomes `count` neurons (y, rho v_k), v_k in S^{dp-1}.

        v_k is +-1 for dp = 1, a regular polygon for dp = 2, +- the axes of random frames beyond. |a_j| = |b_j|, and
        the network is f(x) = (1/M) sum_j a_j relu(b_j.x) with M = m count, as `particle_flow` takes it.

        Args:
            count: neurons a particle; 2 for dp = 1, at least 3 for dp = 2, even beyond.
            at: index of the time.
            seed: of the frames.

        Returns:
            a (M,) and B (M, d).

        Raises:
            InputError: for a count without such directions.
        """
        dp = self.dimension - self.subspace_dimension
        sides = _directions(dp, count, seed) @ normals(self.basis)
        q, masses = self.points[at], self.masses[at]
        rows = (q[:, None, :-1] @ self.basis) + q[:, None, -1:] * sides
        total = len(q) * len(sides)
        sizes = np.sqrt(np.repeat(masses, len(sides)) * (total / len(sides)))
        return np.repeat(self.signs, len(sides)) * sizes, rows.reshape(total, -1) * sizes[:, None]

    def refine(self, *, budget: Budget | float | None = None, progress: Progress | None = None) -> LowdimFlow:
        """The same flow with `error` filled in: the change under finer nodes (x 1.5), steps and kernel.

        Sobol points are drawn twice as many and with another scramble (the next seed): more points of one sequence
        would hold the first ones, and the change would be less than the error. It is one draw of that error, not a
        bound. Given particles stay what they are; then the error is that of the integration and of the kernel only.
        Where the target is not in closed form, `potential_error` comes on top.

        Args:
            budget: seconds for the second run; times not reached are not compared.
            progress: of that run.
        """
        options = dict(self.settings)
        if options["init"] is None:
            grown = tuple(2 * n if self.initial == "sobol" else -(-3 * n // 2) for n in self.nodes)
            options["nodes"] = grown
            if self.initial == "sobol":
                options["seed"] = int(options["seed"]) + 1
        options["rtol"] = max(options["rtol"] / 10, 3e-14)
        finer = lowdim_flow(**options, times=self.times, budget=budget, progress=progress)
        reached = len(finer.times)
        error = {
            name: float(np.max(np.abs(getattr(finer, name) - getattr(self, name)[:reached]), initial=0.0))
            for name in ("mass_plus", "mass_minus", "energy")
        }
        return dataclasses.replace(self, error={**error, "times": float(reached)})

    def to_frame(self) -> dict[str, FloatArray]:
        """Columns of equal length, one row a time."""
        return {
            "time": self.times,
            "mass_plus": self.mass_plus,
            "mass_minus": self.mass_minus,
            "energy": self.energy,
            "dissipation": self.dissipation,
            "dissipation_defect": self.dissipation_defect,
        }

    def to_dict(self) -> dict[str, Any]:
        """The result as data; the particles at some of the times (`frames`), to six digits."""
        found = super().to_dict()
        size = max(1, self.masses.shape[1] * (self.subspace_dimension + 2))
        count = min(len(self.times), max(2, _FRAME_VALUES // size))
        kept = np.unique(np.linspace(0, max(len(self.times) - 1, 0), count).round().astype(int))
        found["signs"] = [int(s) for s in self.signs]
        found["frames"] = {
            "times": jsonable(self.times[kept]),
            "masses": [[float(f"{c:.6g}") for c in row] for row in self.masses[kept]],
            "points": [[[round(x, 6) for x in q] for q in frame] for frame in self.points[kept].tolist()],
        }
        return found

    def __str__(self) -> str:
        """One screen."""
        d, size = self.dimension, self.subspace_dimension
        particles = f"{len(self.signs)} particles" + (f", nodes {'x'.join(map(str, self.nodes))}" if self.nodes else "")
        columns = {
            "t": self.times,
            "m+": self.mass_plus,
            "m-": self.mass_minus,
            "F": self.energy,
            "-F'": self.dissipation,
        }
        lines = [
            f"mean-field dynamics of a target on H, dH = {size}, d = {d}: a measure on S^{size} ({particles})",
            f"  target by {self.form}" + (f", error about {self.potential_error:.1e}" if self.potential_error else ""),
            *time_table(columns),
            "  m+, m-: mass of the neurons with a > 0, a < 0; F: half the mean squared error; -F': how fast it falls",
        ]
        if len(self.times):
            lines.append(f"  energy balance holds to {np.max(np.abs(self.dissipation_defect)):.1e}")
        if self.error is not None:
            shown = ", ".join(f"{name} {value:.1e}" for name, value in self.error.items() if name != "times")
            how = " and another scramble" if self.initial == "sobol" else ""
            lines.append(f"  change under refinement{how}: {shown}")
        if not self.complete:
            lines.append(f"  not complete: {self.reason}")
        return "\n".join([*lines, f"  {self.rigor.value}"])


def lowdim_flow(
    target_on_H: Target,
    d: int,
    times: ArrayLike,
    *,
    nodes: int | tuple[int, ...] | None = None,
    init: Init | None = None,
    rtol: float = 1e-9,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> LowdimFlow:
    """The mean-field dynamics for f*(x) = f_H(x_H), x ~ U(S^{d-1}), reduced to S^{dH} (arXiv 2211.08771, Lemma 3.4.2).

    By symmetry the measure of the neurons is known from its law of q = (u_H, |u_perp|); with masses c_j, signs eps_j,
    G(q) = E[f* relu(u.x)] - sum_k eps_k c_k K(q, q_k), K the ReLU kernel averaged over the rotations of H-perp,

        c_j' = 2 eps_j G(q_j) c_j,    q_j' = eps_j grad G(q_j).

    It starts at mu_0 = U{-1, 1} x U(S^{d-1}): each sign has mass 1/2, put on the nodes of a Gauss rule (Sobol points
    for dH > 3), so that for smooth potentials masses and energy converge fast in the nodes. The chart is regular
    everywhere, in particular at u orthogonal to H, which particles may cross. For dH = 1 two particles of the line may
    run through each other; there K is only twice differentiable if dp = 1, and the steps become short for a while.

    Args:
        target_on_H: f_H, a `Target` on R^{dH} with dH < d; or f* itself on R^d, whose `subspace` is H, such as
            `Projected(f_H, (d, dH))` for any callable f_H. Exact targets stay exact; others are expanded in spherical
            harmonics.
        d: dimension of the inputs.
        times: (T,) increasing, from 0 on.
        nodes: radii and directions along each axis, (n,) for dH = 1, (n, k) for dH = 2 and 3; for dH > 3 particles
            of each sign, a power of two. By default (24,), (6, 10), (4, 5), 256: masses to
            about 1e-6, 1e-5, 1e-4, and 1e-2 (see `refine`).
        init: instead of mu_0: points (m, dH+1), unit rows (u_H, |u_perp|), masses (m,) or one, signs (m,) or one.
        rtol: relative tolerance of the steps; the average over H-perp is good to a tenth of it.
        seed: of the Sobol points.
        path: file of the run, to take it up again.
        budget: seconds; a spent budget returns the times reached.
        progress: called with the fraction of the time span done.

    Raises:
        InputError: for dimensions, times, nodes or particles that do not fit, or a target that needs more than x_H.
        IntegrationError: if the integration fails; it has the time reached.

    Complexity: each right-hand side O(m^2 n / 2) for n side points (26 for dp = 2, 8 for dp = 10).

    >>> from fiberscope.meanfield.targets import Teacher
    >>> flow = lowdim_flow(Teacher([1.0], [[1.0, 0.0]]), 2, [0.0, 5.0], nodes=4)  # relu(x_1) on the circle
    >>> float(flow.mass_plus[0]), round(float(flow.energy[0]), 12), bool(flow.energy[1] < 0.1)
    (0.5, 0.125, True)
    """
    moments = checked_times(times)
    if not as_number(rtol, "rtol", above=0) < 0.1:
        raise InputError(f"rtol {rtol:g}; give a number between 0 and 0.1")
    check_run(path, budget, progress)
    seed = as_count(seed, "seed")
    seen = seen_target(checked_target(target_on_H), as_count(d, "dimension d", 1), 0.1 * rtol)
    dH = len(seen.basis)
    if init is None:
        start, shares, counts, how = initial_measure(dH, seen.dimension, nodes, seed)
        start, masses = np.concatenate([start, start]), np.concatenate([shares, shares]) / 2
        signs = np.repeat([1.0, -1.0], len(shares))
    else:
        if nodes is not None:
            raise InputError("nodes and init; give one of them")
        start, masses, signs = checked_start(init, dH)
        counts, how = (), "given"
    rule = side_rule(seen.dimension - dH, 0.1 * rtol)
    system = LowdimSystem(seen, signs, rule)
    state = system.pack(masses, start)
    path_of = integrate(
        system.rate, state, moments, rtol=rtol, atol=1e-2 * rtol, path=path, task=_task(system, state, rtol),
        budget=budget, progress=progress, text=lambda t, y: _masses_of(system, y),
    )  # fmt: skip
    settings = {"target_on_H": target_on_H, "d": int(d), "init": init, "rtol": rtol, "seed": seed}
    return _flow(system, path_of, system.observe(masses, start)[0], counts, how, settings)


def _flow(
    system: LowdimSystem,
    run: Trajectory,
    first_energy: float,
    nodes: tuple[int, ...],
    how: str,
    settings: dict[str, Any],
) -> LowdimFlow:
    """What is measured at the times reached."""
    seen, m = system.seen, len(system.signs)
    dH = len(seen.basis)
    count = len(run.times)
    masses, points = np.empty((count, m)), np.empty((count, m, dH + 1))
    energy, loss = np.empty(count), np.empty(count)
    for k, state in enumerate(run.states):
        masses[k], points[k] = system.unpack(state)
        energy[k], loss[k] = system.observe(masses[k], points[k])
    return LowdimFlow(
        dimension=seen.dimension,
        subspace_dimension=dH,
        times=run.times,
        signs=system.signs,
        masses=masses,
        points=points,
        mass_plus=masses @ (system.signs > 0),
        mass_minus=masses @ (system.signs < 0),
        energy=energy,
        dissipation=loss,
        dissipation_defect=first_energy - energy - run.states[:, -1],
        nodes=nodes,
        initial=how,
        form=seen.form,
        potential_error=seen.error,
        side_points=len(system.rule[0]),
        steps=run.steps,
        evaluations=run.evaluations,
        basis=seen.basis,
        settings=settings,
        rigor=Rigor.SAMPLED if how == "sobol" else seen.rigor,
        complete=run.complete,
        reason=run.reason,
    )


def _task(system: LowdimSystem, state: FloatArray, rtol: float) -> dict[str, Any]:
    """What tells one run from another in its file: the start and the field there."""
    whole = np.concatenate([state, system.rate(0.0, state), [system.seen.second_moment]])
    digest = hashlib.sha256(np.ascontiguousarray(whole, "<f8").tobytes()).hexdigest()
    return {"flow": "lowdim", "dimension": system.seen.dimension, "rtol": rtol, "start": digest}


def _masses_of(system: LowdimSystem, state: FloatArray) -> str:
    masses = np.exp(state[: len(system.signs)])
    return f"m+ = {masses @ (system.signs > 0):.5g} m- = {masses @ (system.signs < 0):.5g}"


def _directions(dp: int, count: int, seed: int) -> FloatArray:
    """Unit vectors of R^{dp} of mean zero."""
    if dp == 1 and count == 2:
        return np.array([[1.0], [-1.0]])
    if dp == 2 and count >= 3:
        angles = 2 * np.pi * np.arange(count) / count
        return np.column_stack([np.cos(angles), np.sin(angles)])
    if dp < 3 or count < 2 or count % 2:
        need = "2" if dp == 1 else "at least 3" if dp == 2 else "an even number"
        raise InputError(f"{count} neurons for each particle with dp = {dp}; give {need}")
    random = np.random.default_rng(seed)
    frames = [np.linalg.qr(random.normal(size=(dp, dp)))[0] for _ in range(-(-count // (2 * dp)))]
    half = np.concatenate(frames)[: count // 2]
    return np.concatenate([half, -half])
