"""The particles of a finite net as a system of ordinary differential equations, folded by a group, and Heun's steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError
from fiberscope.meanfield.particles.forces import Forces

if TYPE_CHECKING:
    from fiberscope.meanfield.symmetry.groups import Orbits, OrthogonalGroup

FloatArray = NDArray[np.float64]


class Folding:
    """Which neurons are evolved, how many each stands for, and how the others follow.

    A neuron on a mirror of the group is kept there (`restricted`): off it, its images would be no orbit of the size
    counted, and what rounding puts there can grow exponentially.
    """

    def __init__(self, orbits: Orbits | None, width: int, order: int) -> None:
        self._orbits = orbits
        self.width = width
        self.order = order
        self.counts = np.ones(width) if orbits is None else orbits.counts.astype(float)
        self.folds = orbits is not None

    @classmethod
    def of(cls, heads: FloatArray, rows: FloatArray, group: OrthogonalGroup) -> Folding:
        """By the orbits of a group; `InputError` if the neurons are no union of orbits."""
        try:
            return cls(group.representatives(rows, heads), len(heads), group.order() or 0)
        except InputError as exc:
            raise InputError(f"the neurons are not invariant under the group: {exc}") from None

    def pack(self, heads: FloatArray, rows: FloatArray) -> FloatArray:
        """The state of all neurons (m,), (m, d): those evolved, (r + r d,)."""
        if self._orbits is not None:
            heads, rows = heads[self._orbits.rows], self.restricted(rows[self._orbits.rows])
        return np.concatenate([heads, rows.ravel()])

    def split(self, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The neurons evolved, (r,), (r, d)."""
        r = len(self.counts)
        return state[:r], self.restricted(state[r:].reshape(r, -1))

    def restricted(self, rows: FloatArray) -> FloatArray:
        """Rows (r, d) of the neurons evolved, or their velocities, on what the stabiliser of each fixes."""
        return rows if self._orbits is None else self._orbits.fixed.project(rows)

    def unfold(self, heads: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """All neurons from those evolved, (m,), (m, d)."""
        if self._orbits is None:
            return heads, rows
        return heads[self._orbits.label], self._orbits.unfold(rows)


class ParticleSystem:
    """The right-hand side, and what the outputs are computed from."""

    def __init__(self, forces: Forces, folding: Folding, start: FloatArray) -> None:
        self.forces, self.folding, self.start = forces, folding, start
        self.latest = float("nan")

    def _evaluate(self, state: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        heads, rows = self.folding.split(state)
        a, B = self.folding.unfold(heads, rows)
        few = (rows, heads * self.folding.counts) if self.folding.folds else (None, None)
        values, gradients, risk = self.forces.evaluate(a, B, *few)
        return heads, values, self.folding.restricted(gradients), risk

    def fastest(self, state: FloatArray) -> float:
        """The size of the curvature of m F at the state: L^2 mean(a^2 + |b|^2) + L sqrt(2 F), L = `slope`.

        For the squared loss and |s(z)| <= Lip(s) |z| this is a bound, by Cauchy-Schwarz.
        """
        heads, rows = self.folding.split(state)
        sizes = heads**2 + np.einsum("ij,ij->i", rows, rows)
        slope = self.forces.slope
        size = float(self.folding.counts @ sizes) / self.folding.width
        return slope**2 * size + slope * float(np.sqrt(2.0 * max(self.latest, 0.0)))

    def rate(self, t: float, state: FloatArray) -> FloatArray:
        """The velocity of the state."""
        heads, values, gradients, self.latest = self._evaluate(state)
        return np.concatenate([values, (heads[:, None] * gradients).ravel()])

    def risk_and_dissipation(self, state: FloatArray) -> tuple[float, float]:
        """F and F' = -(1/m) sum_j (g(b_j)^2 + a_j^2 |grad g(b_j)|^2)."""
        heads, values, gradients, risk = self._evaluate(state)
        speed = values**2 + heads**2 * np.einsum("ij,ij->i", gradients, gradients)
        return risk, -float(self.folding.counts @ speed) / self.folding.width

    def expectation_error(self, state: FloatArray) -> float | None:
        """See `Forces.error_at`, for all neurons of a state."""
        return self.forces.error_at(*self.folding.unfold(*self.folding.split(state)))

    def task(self, generators: Sequence[FloatArray] = (), **settings: Any) -> dict[str, Any]:
        """What names a run: its settings, and to the bit its start, the forces there and what they are made of.

        Args:
            generators: of the group the run is folded by.
            settings: JSON-ready.
        """
        _, values, gradients, risk = self._evaluate(self.start)
        parts = {
            "start": [self.start, self.folding.counts],
            "forces": [values, gradients, np.array([risk])],
            "problem": self.forces.identity(),
            "group": list(generators),
        }
        digests = {name: _digest(arrays) for name, arrays in parts.items()}
        return {"flow": "particles", "order": self.folding.order, **digests, **settings}


def _digest(arrays: Sequence[FloatArray]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr(array.shape).encode() + np.ascontiguousarray(array, "<f8").tobytes())
    return found.hexdigest()


class _Heun:
    """Explicit trapezoidal steps, with the interface of the solvers of `scipy.integrate`."""

    def __init__(self, run: ParticleSystem, step: float | None, t: float, state: FloatArray, end: float) -> None:
        self.t, self.y, self.t_old = t, state, t
        self.nfev, self.status = 0, "running"
        self._run, self._step, self._end = run, step, end

    def step(self) -> None:
        first = self._run.rate(self.t, self.y)
        length = self._step if self._step is not None else 0.25 / max(self._run.fastest(self.y), 1e-300)
        ends = self.t + length >= self._end
        length = self._end - self.t if ends else length
        second = self._run.rate(self.t + length, self.y + length * first)
        self.t_old, self._from, self._slopes = self.t, self.y, (first, second)
        self.y = self.y + 0.5 * length * (first + second)
        self.t = self._end if ends else self.t + length
        self.nfev += 2

    def dense_output(self) -> Callable[[FloatArray], FloatArray]:
        """The parabola of the step."""
        (first, second), length = self._slopes, self.t - self.t_old

        def between(times: FloatArray) -> FloatArray:
            s = (times - self.t_old) / length
            value: FloatArray = self._from[:, None] + length * (
                np.outer(first, s) + np.outer(second - first, 0.5 * s * s)
            )
            return value

        return between


def heun(run: ParticleSystem, step: float | None) -> Callable[..., _Heun]:
    """What `integrate` takes as a method: explicit trapezoidal steps of this length, by default 1 / (4 curvature)."""
    if step is None and not np.isfinite(run.forces.slope):
        raise InputError("an activation of unbounded slope; give the step of 'Heun'")
    return lambda rate, t, state, end, **_: _Heun(run, step, t, state, end)
