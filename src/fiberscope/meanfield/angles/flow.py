"""Learning ||x_H||: the dynamics of infinitely many neurons as particles on one angle, without sampling."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_choice, as_count, as_finite, as_number
from fiberscope.errors import InputError
from fiberscope.meanfield.angles.kernel import angles_of, checked_angles, network_values
from fiberscope.meanfield.angles.labels import Labels, carried
from fiberscope.meanfield.angles.runs import AngleRun, Method, critical_time, fine_times, turning_points
from fiberscope.meanfield.angles.system import AngleSystem, check_dimensions, fastest_rate, modes_for
from fiberscope.meanfield.arguments import check_run
from fiberscope.meanfield.integrators import Trajectory, checked_times, integrate
from fiberscope.results import Budget, Progress, Result, Rigor

FloatArray = NDArray[np.float64]
Start = Literal["gauss", "graded", "quantile"] | tuple[ArrayLike, ArrayLike, ArrayLike]
_OBSERVED = (
    "mass_plus", "mass_minus", "w2_plus", "w2_minus", "mean_plus", "mean_minus", "energy", "dissipation",
    "residual_mean", "identity_defect",
)  # fmt: skip
_STARTS = ("gauss", "graded", "quantile")
_EXPLICIT = 300.0
"""Time spans up to so many fastest relaxation times are cheaper with explicit steps."""
_STEP = 2.0
"""Longest explicit step in that unit: stability allows 5, but the output between two such steps is poor."""
_SHOWN = 100
"""Most times whose histograms go into the data of a result."""


@dataclass(frozen=True, eq=False)
class AngleFlow(Result):
    """The measures tau+ and tau- of neurons of sign +1 and -1 on the angle to H, at T times.

    Args:
        dimension: d.
        subspace_dimension: dH.
        alpha: the mass for which alpha delta_0 represents ||x_H||.
        times: (T,), those reached.
        mass_plus: (T,), the mass of tau+.
        mass_minus: (T,), the mass of tau-.
        w2_plus: (T,), the W2 distance of the normalised tau+ to the point mass at 0.
        w2_minus: (T,), the W2 distance of the normalised tau- to the point mass at pi/2.
        mean_plus: (T,), the mean angle of tau+.
        mean_minus: (T,), the mean angle of tau-.
        energy: (T,), 1/2 E(f* - f)^2 in the harmonics kept.
        dissipation: (T,), its time derivative, -int (2 G^2 + G'^2) d(tau+ + tau-).
        residual_mean: (T,), E[f* - f].
        identity_defect: (T,), m+ - alpha - m- + E[f* - f]/lam_0, zero but for rounding.
        critical_time: the first time at which the mass of tau+ reaches alpha; None if it does not.
        error: estimated errors by name, from `refine`; None before.
        nodes: particles of each sign (of the larger one, if they differ).
        modes: harmonics kept.
        initial: "gauss", "graded", "quantile" or "given".
        method: the method that integrated.
        complete: whether all times asked for were reached.
        reason: why not.
        angles_plus: (T, m), the particles of sign +1; angles_minus those of sign -1.
        weights_plus: (T, m), their masses; weights_minus likewise.
    """

    hidden: ClassVar[frozenset[str]] = frozenset(
        {"angles_plus", "angles_minus", "weights_plus", "weights_minus", "run"}
    )

    dimension: int
    subspace_dimension: int
    alpha: float
    times: FloatArray
    mass_plus: FloatArray
    mass_minus: FloatArray
    w2_plus: FloatArray
    w2_minus: FloatArray
    mean_plus: FloatArray
    mean_minus: FloatArray
    energy: FloatArray
    dissipation: FloatArray
    residual_mean: FloatArray
    identity_defect: FloatArray
    critical_time: float | None
    nodes: int
    modes: int
    initial: str
    method: str
    complete: bool
    reason: str
    angles_plus: FloatArray
    angles_minus: FloatArray
    weights_plus: FloatArray
    weights_minus: FloatArray
    run: AngleRun = field(repr=False)
    error: dict[str, float] | None = None
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ("angle-reduction", "mass-identity")

    def predict(self, angles: ArrayLike) -> FloatArray:
        """f(mu_t; x) on unit inputs x at these angles to H: (k,) in [0, pi/2] -> (T, k).

        By the kernel itself, not its series; O(T k m) integrals.
        """
        places = np.concatenate([self.angles_plus, self.angles_minus], axis=1)
        loads = np.concatenate([self.weights_plus, -self.weights_minus], axis=1)
        return network_values(self.dimension, self.subspace_dimension, places, loads, angles)

    def predict_points(self, points: ArrayLike, basis: ArrayLike | None = None) -> FloatArray:
        """f(mu_t; x) on inputs (n, d) -> (T, n); H is spanned by the first dH axes or by orthonormal rows (dH, d)."""
        norms, angles = angles_of(points, self.dimension, self.subspace_dimension, basis)
        return self.predict(angles) * norms

    def density(self, theta: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The densities of tau+ and tau- in the angle, each (k,) in (0, pi/2) -> (T, k).

        By change of variables from the starting law, whose labels are carried along once for all times.

        Raises:
            InputError: for a run that did not start from the law itself, and outside (0, pi/2).
        """
        grid = np.atleast_1d(checked_angles(theta))
        if (grid <= 0).any() or (grid >= math.pi / 2).any():
            raise InputError("the density is asked for at 0 or pi/2; give angles strictly between")
        plus, minus = self._labels
        return plus.density(grid), minus.density(grid)

    def histogram(self, bins: int = 45) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Edges (bins + 1,) and the mean densities of tau+ and of tau- in the bins, each (T, bins).

        For a run that started from the law these are the masses that the flow carries into the bins; else the
        particles are counted.
        """
        bins = as_count(bins, "bins", 1)
        edges = np.linspace(0.0, math.pi / 2, bins + 1)
        width = edges[1]
        if self.initial in _STARTS[:2]:
            plus, minus = (np.maximum(np.diff(part.cumulative(edges), axis=1), 0.0) / width for part in self._labels)
            return edges, plus, minus
        both = []
        for angles, weights in ((self.angles_plus, self.weights_plus), (self.angles_minus, self.weights_minus)):
            rows = [np.histogram(a, edges, weights=w)[0] for a, w in zip(angles, weights, strict=True)]
            both.append(np.stack(rows) / width)
        return edges, both[0], both[1]

    @functools.cached_property
    def _labels(self) -> tuple[Labels, Labels]:
        if self.initial not in _STARTS[:2]:
            raise InputError(f"a run from {self.initial} particles has no density; use init='gauss' or the histogram")
        return carried(self.run.system, self.run.times, self.run.states, self.times)

    def overshoot(self) -> dict[str, Any]:
        """How the mass of tau+ passes alpha and what becomes of tau-, over the whole run (not the outputs only).

        Returns:
            critical_time; final, m+ - alpha at the last time; first_peak, the first local maximum of m+ - alpha after
            the critical time, and largest, its largest value, both as {"time", "excess"} (None if there is none);
            lowest, the least mass of tau- as {"time", "mass_minus"}.
        """
        seen = self.run.observed
        times = self.run.times
        excess = seen["mass_plus"] - self.alpha
        peaks = [p for p in turning_points(times, excess, seen["mass_plus_rate"], +1) if p[1] > 0]
        valleys = turning_points(times, seen["mass_minus"], seen["mass_minus_rate"], -1)
        ends = [(float(times[k]), float(seen["mass_minus"][k])) for k in (0, -1)]
        tops = [*peaks, (float(times[-1]), float(excess[-1]))]
        largest, lowest = max(tops, key=lambda p: p[1]), min([*valleys, *ends], key=lambda p: p[1])
        return {
            "critical_time": self.critical_time,
            "final": float(excess[-1]),
            "first_peak": {"time": peaks[0][0], "excess": peaks[0][1]} if peaks else None,
            "largest": {"time": largest[0], "excess": largest[1]} if largest[1] > 0 else None,
            "lowest": {"time": lowest[0], "mass_minus": lowest[1]},
        }

    def refine(self, *, budget: Budget | float | None = None, progress: Progress | None = None) -> AngleFlow:
        """The same numbers with `error`: how far each is from a run with twice the nodes and half as many modes more.

        The finer run has a tenth of the tolerance. Particles that were given stay as they are. The differences are
        the largest over the times that both runs reached.
        """
        run = self.run
        init = run.init
        if not len(self.times):
            raise InputError("none of the times was reached; there is nothing to compare")
        nodes = self.nodes if isinstance(init, tuple) else 2 * self.nodes
        finer = angle_flow(
            self.dimension, self.subspace_dimension, self.times, nodes=nodes, modes=math.ceil(1.5 * self.modes),
            init=init, method=cast(Any, self.method), rtol=max(run.rtol / 10, 1e-13), budget=budget, progress=progress,
        )  # fmt: skip
        reached = len(finer.times)
        error = {
            name: float(np.abs(getattr(self, name)[:reached] - getattr(finer, name)).max())
            for name in _OBSERVED
            if name != "identity_defect"
        }
        if self.critical_time is not None and finer.critical_time is not None:
            error["critical_time"] = abs(self.critical_time - finer.critical_time)
        return dataclasses.replace(self, error=error)

    def to_frame(self) -> dict[str, FloatArray]:
        """Columns of one length: times and everything measured."""
        return {"time": self.times} | {name: getattr(self, name) for name in _OBSERVED}

    def to_dict(self) -> dict[str, Any]:
        """The data with histograms at no more than a hundred of the times, to six digits."""
        found = super().to_dict()
        edges, plus, minus = self.histogram()
        some = np.unique(np.linspace(0, len(self.times) - 1, min(len(self.times), _SHOWN)).round().astype(int))
        found["histogram"] = {
            "times": self.times[some].tolist(),
            "edges": edges.tolist(),
            "plus": [[float(f"{x:.6g}") for x in row] for row in plus[some].tolist()],
            "minus": [[float(f"{x:.6g}") for x in row] for row in minus[some].tolist()],
        }
        found["overshoot"] = self.overshoot()
        return found

    def __str__(self) -> str:
        """One screen: the run, its masses, distances and energy at up to eight times, the overshoot, the errors."""
        rows = np.unique(np.linspace(0, len(self.times) - 1, min(len(self.times), 8)).round().astype(int))
        names = ("mass_plus", "mass_minus", "w2_plus", "w2_minus", "energy", "residual_mean")
        lines = [
            f"angles of neurons to H, target ||x_H||: d = {self.dimension}, dH = {self.subspace_dimension}, "
            f"alpha = {self.alpha:.6g}",
            f"{self.nodes} {self.initial} particles of each sign, {self.modes} modes, {self.method}",
            " ".join(f"{h:>13}" for h in ("time", "m+", "m-", "W2(tau+, 0)", "W2(tau-, pi/2)", "energy", "E[f*-f]")),
        ]
        lines += [f"{self.times[k]:13.6g} " + " ".join(f"{getattr(self, n)[k]:13.6g}" for n in names) for k in rows]
        lines += [
            "m+, m-: mass of the neurons with a > 0 (tau+) and with a < 0 (tau-); energy: half the mean squared error",
            "W2(tau+, 0), W2(tau-, pi/2): how far they are from H and from its complement; E[f*-f]: the mean residual",
        ]
        if self.critical_time is None:
            by = "" if self.complete else f" by time {self.times[-1]:.6g}" if len(self.times) else " yet"
            lines.append(f"m+ {'does' if self.complete else 'did'} not reach alpha{by}")
        else:
            end = f"; m+ - alpha at the end {self.mass_plus[-1] - self.alpha:.6g}" if len(self.times) else ""
            lines.append(f"m+ reaches alpha at time {self.critical_time:.7g}{end}")
        lines.append(
            f"mass identity m+ - alpha = m- - E[f*-f]/lam_0: defect {np.abs(self.identity_defect).max(initial=0.0):.1e}"
        )
        if self.error is None:
            lines.append("errors not estimated; refine() does, on the command line --refine")
        else:
            lines.append("error estimates: " + ", ".join(f"{name} {value:.1e}" for name, value in self.error.items()))
        if not self.complete:
            lines.append(f"not complete: {self.reason}")
        return "\n".join(lines)


def angle_flow(
    d: int,
    dH: int,
    times: ArrayLike,
    *,
    nodes: int = 32,
    modes: int | None = None,
    init: Start = "gauss",
    method: Literal["auto", "DOP853", "Radau", "BDF"] = "auto",
    rtol: float = 1e-9,
    path: str | os.PathLike[str] | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> AngleFlow:
    """Train on f*(x) = ||x_H||, x ~ U(S^{d-1}), in the mean-field limit: the Wasserstein gradient flow, reduced.

    f = int a relu(b.x) dmu, mu_0 = U{-1, 1} x U(S^{d-1}), risk 1/2 E(f* - f)^2; t is the time of that flow. The
    measures tau+ and tau- on the angle theta in [0, pi/2] between a neuron and H satisfy

        d/dt tau+- = -+ div(G' tau+-) +- 2 G tau+-,   G(theta) = E[(f* - f)(x) relu(b.x)].

    Solved by particles that start at quadrature nodes of the exact starting law, coupled through the exact kernel in
    harmonics (`AngleSystem`): the error falls fast in `nodes` and `modes` (see `AngleFlow.refine`).

    Args:
        d: dimension of the inputs.
        dH: dimension of H, 1 <= dH < d.
        times: increasing output times >= 0.
        nodes: particles of each sign.
        modes: harmonics kept; None for `modes_for`, which makes what is left out of the rates smaller than 1e-9
            where 256 harmonics can.
        init: "gauss" (Gauss nodes of the law), "graded" (even in log tan theta: with 48 nodes or more better for W2
            and for long times), "quantile" (equal masses, error 1/nodes) or (angles, masses, signs), each (m,).
        method: "DOP853", or "Radau" and "BDF" with the analytic Jacobian. "auto" takes DOP853 for time spans up to
            300 d alpha/(2 dH), the fastest relaxation time, beyond that Radau, and BDF above 100 nodes.
        rtol: relative tolerance of a step.
        path: file of the run, taken up again if it exists.
        budget: seconds or `Budget`; when spent, the times reached are returned.
        progress: called with the fraction of the time span done.

    Raises:
        InputError: for dimensions, times, particles or options out of range.
        IntegrationError: if the integration fails; it has the time reached.

    Complexity: O(nodes modes + modes^2) for each evaluation of the right-hand side, about 1000 of them to t = 3000
        in d = 30. arXiv 2211.08771, section 4.

    >>> flow = angle_flow(30, 5, [0, 75])
    >>> f"{flow.mass_plus[1]:.6f} {flow.mass_minus[1]:.6f}"
    '4.893913 0.053441'
    """
    check_dimensions(d, dH)
    wanted = checked_times(times)
    if not as_number(rtol, "rtol", above=0) < 1:
        raise InputError(f"rtol {rtol:g}; give a number between 0 and 1")
    check_run(path, budget, progress)
    system, start, initial = _start(int(d), int(dH), nodes, modes, init)
    counts = system.split(len(start))
    nodes = max(counts)
    whole = float(np.exp(start[: sum(counts)]).sum())
    rate = fastest_rate(d, dH) * max(1.0, whole / system.alpha)
    chosen = _method(method, float(wanted[-1]) * rate, nodes)
    fine = fine_times(wanted, rate)
    task = {
        "kind": "angles", "d": int(d), "dH": int(dH), "modes": system.modes, "method": chosen, "rtol": rtol,
        "start": start.tolist(),
    }  # fmt: skip

    def note(t: float, y: FloatArray) -> str:
        return f"m+ = {np.exp(y[: counts[0]]).sum():.4g}"

    found = integrate(
        system.rate, start, fine, rtol=rtol, atol=1e-3 * rtol, method=chosen, jacobian=system.jacobian,
        max_step=_STEP / rate if chosen == "DOP853" else math.inf, path=path, task=task, budget=budget,
        progress=progress, text=note,
    )  # fmt: skip
    return _flow(found, wanted, AngleRun(system, found.times, found.states, init, rtol, chosen), initial)


def _flow(found: Trajectory, wanted: FloatArray, run: AngleRun, initial: str) -> AngleFlow:
    system = run.system
    rows = np.flatnonzero(np.isin(found.times, wanted))
    seen: dict[str, Any] = {name: run.observed[name][rows] for name in _OBSERVED}
    size = found.states.shape[1] // 2
    plus, minus = system.split(2 * size)
    masses, angles = np.exp(found.states[rows, :size]), found.states[rows, size:]
    return AngleFlow(
        dimension=system.dimension, subspace_dimension=system.subspace_dimension, alpha=system.alpha,
        times=found.times[rows], critical_time=critical_time(run), nodes=max(plus, minus),
        modes=system.modes, initial=initial, method=run.method, complete=found.complete, reason=found.reason,
        angles_plus=angles[:, :plus], angles_minus=angles[:, plus:], weights_plus=masses[:, :plus],
        weights_minus=masses[:, plus:], run=run, **seen,
    )  # fmt: skip


def _start(d: int, dH: int, nodes: int, modes: int | None, init: Start) -> tuple[AngleSystem, FloatArray, str]:
    """The system, the starting state, and the name of the start."""
    counts: tuple[int, int] | None = None
    if isinstance(init, str):
        as_choice(init, "init", _STARTS)
        nodes = as_count(nodes, "nodes, particles of each sign", 1)
    else:
        angles, masses, signs = _given(init)
        counts = int((signs > 0).sum()), int((signs < 0).sum())
        nodes = max(counts)
    system = AngleSystem(d, dH, modes_for(d, dH, nodes) if modes is None else modes, counts)
    if counts is None:
        starts = {"gauss": system.gauss_start, "graded": system.graded_start, "quantile": system.quantile_start}
        name = cast(str, init)
        return system, starts[name](nodes), name
    order = np.argsort(-signs, kind="stable")
    return system, system.pack(masses[order], angles[order]), "given"


def _given(init: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    try:
        angles, masses, signs = (as_finite(part, "init") for part in init)
    except (TypeError, ValueError):
        raise InputError("init is neither a name nor three lists of finite numbers (angles, masses, signs)") from None
    if angles.ndim != 1 or not angles.shape == masses.shape == signs.shape:
        shapes = f"{angles.shape}, {masses.shape}, {signs.shape}"
        raise InputError(f"angles, masses and signs of shapes {shapes}; give one of each for every particle")
    checked_angles(angles)
    if not (masses > 0).all():
        raise InputError("masses of particles must be positive")
    if not (np.isin(signs, (-1.0, 1.0)).all() and (signs > 0).any() and (signs < 0).any()):
        raise InputError("signs of particles are +1 or -1, with at least one of each")
    return angles, masses, signs


def _method(asked: str, span: float, nodes: int) -> Method:
    """`span` is the time span in units of the fastest relaxation time."""
    if as_choice(asked, "method", ("auto", "DOP853", "Radau", "BDF")) != "auto":
        return cast(Method, asked)
    if span <= _EXPLICIT:
        return "DOP853"
    return "Radau" if nodes <= 100 else "BDF"
