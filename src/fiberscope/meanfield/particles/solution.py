"""What a finite net does over time: its neurons, its risk, and what is measured along the way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.activations import Activation
from fiberscope.activations import activation as row_of
from fiberscope.arguments import as_floats
from fiberscope.errors import InputError, IntegrationError
from fiberscope.meanfield.integrators import Trajectory
from fiberscope.meanfield.particles.frames import frames_of
from fiberscope.meanfield.particles.system import ParticleSystem
from fiberscope.meanfield.symmetry.groups import OrthogonalGroup
from fiberscope.meanfield.symmetry.measures import sphere_points
from fiberscope.meanfield.symmetry.subspaces import alignment
from fiberscope.meanfield.tables import time_table
from fiberscope.meanfield.targets.base import Target
from fiberscope.results import Result, Rigor

FloatArray = NDArray[np.float64]
PROBES = 256
"""Points on the sphere at which symmetry is measured."""
BEYOND = "beyond the range of floats; rescale the neurons and the target"
_COLUMNS = {
    "energy": "risk", "dissipation": "risk'", "mass_plus": "mass+", "mass_minus": "mass-",
    "invariance_defect": "defect", "alignment": "alignment", "balance_drift": "balance",
}  # fmt: skip
_WORDS = {
    "energy": "risk: of the loss", "dissipation": "risk': how fast it changes",
    "mass_plus": "mass+, mass-: of the neurons with a > 0 and with a < 0",
    "invariance_defect": "defect: how far the network is from the target's symmetry",
    "alignment": "alignment: share of the mass in H, the space the target depends on",
    "balance_drift": "balance: drift of a^2 - |b|^2, which the flow conserves",
}  # fmt: skip
"""What the columns are, for the text."""


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
        x = as_floats(points, "points")
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
            "  " + "; ".join(words for name, words in _WORDS.items() if name in self.to_frame()),
            f"  {self.method}, {self.steps} steps; {self._standing}",
        ]
        if not self.complete:
            lines.append(f"  stopped at t = {self.times[-1]:g}: {self.reason}" if len(self.times) else self.reason)
        return "\n".join(lines)


def solution_of(
    run: ParticleSystem,
    track: Trajectory,
    target: Target | None,
    group: OrthogonalGroup | None,
    row: Activation,
    **told: Any,
) -> ParticleFlow:
    """What a run reached, with everything that is measured along it; `told` are further fields.

    Complexity: the forces once for each time, and O(T m d) for each generator of a watched group.
    """
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


def check_finite(flow: ParticleFlow, track: Trajectory) -> None:
    """Nothing that is not finite leaves.

    Raises:
        IntegrationError: names the column and the time.
    """
    for name, column in flow.to_frame().items():
        if not np.isfinite(column).all():
            at = int(np.argmax(~np.isfinite(column)))
            raise IntegrationError(
                f"the {_COLUMNS.get(name, name)} at time {flow.times[at]:g} is {BEYOND}",
                float(flow.times[at]),
                track.states[at],
            )
    if flow.expectation_error is not None and not np.isfinite(flow.expectation_error):
        raise IntegrationError("the error of the expectation is not finite", float(flow.times[-1]), track.states[-1])


def _defects(a: FloatArray, B: FloatArray, group: OrthogonalGroup, row: Activation) -> FloatArray:
    points = sphere_points(PROBES, B.shape[2], 0)
    images = [points, *(group.apply(k, points) for k in range(len(group.generators)))]
    found = np.zeros(len(a))
    for k in range(len(a)):
        size = float(np.abs(a[k]) @ np.linalg.norm(B[k], axis=1))
        values = [row(x @ B[k].T) @ a[k] for x in images]
        worst = max((float(np.abs(v - values[0]).max()) for v in values[1:]), default=0.0)
        found[k] = worst / size if size else 0.0
    return found


def _drifts(a: FloatArray, B: FloatArray) -> FloatArray:
    if not len(a):
        return np.zeros(0)
    squares = np.einsum("tjk,tjk->tj", B, B)
    change = np.abs((a**2 - squares) - (a[0] ** 2 - squares[0])).max(axis=1)
    size = (a**2 + squares).max(axis=1)
    drift: FloatArray = change / np.where(size > 0, size, 1.0)
    return drift
