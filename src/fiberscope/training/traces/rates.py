"""How fast a run leaves (or nears) the manifolds it came close to: slopes of log(distance), kept up as it goes on."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.invariants.dynamics.instability import FLOOR, LINEAR
from fiberscope.training.architectures.architecture import Architecture, Parameters
from fiberscope.training.traces.records import Record

Kind = Literal["merge", "flip", "null"]

POINTS = 3
"""Fewest measurements of a slope; the scatter about it is told."""
WINDOW = 32
"""Most measurements of a slope: the last ones."""
FACTOR = 2.0
"""Another manifold takes the lead once it is this many times nearer, so that near ties do not alternate."""


@dataclass(frozen=True)
class Sim:
    """A manifold of a population: two neurons equal, opposite, or one with only zeros.

    Args:
        population: its name.
        kind: "merge" {u_i = u_j}, "flip" {u_i = -u_j}, "null" {u_i = 0}, u_i all entries of neuron i.
        neurons: (i, j), or (i,).
    """

    population: str
    kind: Kind
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class Slope:
    """Least squares of log(distance) = exponent * step + c.

    Args:
        exponent: per step.
        first: first step of the fit.
        last: last step of the fit.
        scatter: root mean square of the residuals.
    """

    exponent: float
    first: int
    last: int
    scatter: float


def slope(
    steps: Sequence[int] | npt.NDArray[Any],
    distances: Sequence[float] | npt.NDArray[Any],
    *,
    low: float = 0.0,
    high: float = math.inf,
    points: int = POINTS,
    window: int = WINDOW,
) -> Slope | None:
    """The exponent with which a distance grows or shrinks now: the last measurements with low < distance < high.

    Least squares of log(distance) over the unbroken run of such measurements at the end, at most `window` of them.
    None if the last measurement is not among them, there are fewer than `points`, or less than a decade lies between
    their ends on the fitted line: then growth is not told from noise.

    Args:
        steps: increasing step numbers.
        distances: at those steps.
        low: floor of rounding.
        high: end of the linear regime.
        points: fewest measurements.
        window: most measurements.

    O(window).

    >>> round(slope([0, 10, 20, 30], [1.0, math.e, math.e**2, math.e**3]).exponent, 12)
    0.1
    >>> slope([0, 10, 20], [1.0, 1.1, 1.0]) is None
    True
    """
    t, d = np.asarray(steps[-window:], dtype=float), np.asarray(distances[-window:], dtype=float)
    inside = (low < d) & (d < high)
    count = int(np.argmin(inside[::-1])) if not inside.all() else inside.size
    if count < max(2, points):
        return None
    t, y = t[-count:], np.log(d[-count:])
    away = t - t.mean()
    rate = float(away @ y / (away @ away))
    if abs(rate) * (t[-1] - t[0]) < math.log(10.0):
        return None
    scatter = float(np.sqrt(np.mean((y - y.mean() - rate * away) ** 2)))
    return Slope(rate, int(t[0]), int(t[-1]), scatter)


def separations(
    architecture: Architecture, parameters: Parameters, sims: Sequence[Sim]
) -> list[tuple[float, float, float]]:
    """(distance to the manifold, size of its neurons, rounding unit of the size) for every manifold, in float64.

    merge |u_i - u_j| / sqrt(2), flip |u_i + u_j| / sqrt(2), null |u_i|; size = sqrt((|u_i|^2 + |u_j|^2) / 2); the unit
    is the largest machine epsilon of the dtypes that hold the neurons, times the size.

    Reads every parameter once and copies the wanted neurons only: O(parameters of a population / its count) each.

    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> found = chain_architecture((1, 2, 1), activation="tanh")
    >>> theta = {"1.weight": [[1.0], [4.0]], "1.bias": [0.0, 0.0], "2.weight": [[3.0, 7.0]], "2.bias": [0.0]}
    >>> theta = {k: np.array(v) for k, v in theta.items()}
    >>> round(separations(found, theta, [Sim("1", "merge", (0, 1))])[0][0] ** 2, 9)  # (3^2 + 4^2) / 2
    12.5
    """
    gaps, sizes, units = np.zeros(len(sims)), np.zeros(len(sims)), np.zeros(len(sims))
    signs, counts = np.array([_SIGN[sim.kind] for sim in sims]), np.array([len(sim.neurons) for sim in sims])
    wanted: dict[str, list[int]] = {}
    for k, sim in enumerate(sims):
        wanted.setdefault(sim.population, []).append(k)
    for slot in architecture.slots:
        axes = [(k, a.population) for k, a in enumerate(slot.axes) if a is not None and a.population in wanted]
        if not axes:
            continue
        values = slot.read(parameters)
        unit = float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else float(np.finfo(float).eps)
        for axis, population in axes:
            here = wanted[population]
            rows = _neurons(values, axis, [sims[k].neurons[side] for side in (0, -1) for k in here])
            sizes[here] += _squares(rows).reshape(2, -1).mean(axis=0)
            u, v = rows[: len(here)], rows[len(here) :]
            v *= signs[here, None]
            u -= v
            gaps[here] += _squares(u) / counts[here]
            units[here] = np.maximum(units[here], unit)
    gaps, sizes = np.sqrt(gaps), np.sqrt(sizes)
    return list(zip(gaps.tolist(), sizes.tolist(), (units * sizes).tolist(), strict=True))


_SIGN = {"merge": 1.0, "flip": -1.0, "null": 0.0}


def _neurons(values: npt.NDArray[Any], axis: int, chosen: list[int]) -> npt.NDArray[Any]:
    """Entries of chosen neurons, (neurons, entries), float64."""
    if axis:
        values = np.moveaxis(values, axis, 0)
    return np.asarray(values[chosen].reshape(len(chosen), -1), dtype=np.float64)


def _squares(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.vecdot(rows, rows))


@dataclass
class Track:
    """Distances to one manifold since it was first among the nearest.

    Args:
        sim: the manifold.
        steps: of the last measurements.
        distances: at those steps.
        length: typical length of the population's neurons now, which distances are compared with.
        size: of its own neurons now; of {u = 0}, the typical length.
        unit: rounding unit of its neurons now.
    """

    sim: Sim
    steps: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    distances: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    length: float = 0.0
    size: float = 0.0
    unit: float = 0.0

    @property
    def relative(self) -> float:
        """Distance over typical length now; infinite before the first measurement."""
        if not self.distances:
            return math.inf
        return self.distances[-1] / self.length if self.length > 0 else (0.0 if self.distances[-1] == 0 else math.inf)

    @property
    def stuck(self) -> bool:
        """Whether this is a neuron of zeros, which stays one: there is nothing to watch."""
        return self.sim.kind == "null" and bool(self.distances) and self.distances[-1] == 0.0

    def add(self, step: int, distance: float, length: float, size: float, unit: float) -> None:
        """One more measurement; one at an earlier step replaces those behind it."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.distances.pop()
        self.steps.append(step)
        self.distances.append(distance)
        self.length, self.size, self.unit = length, size, unit

    def slope(self) -> Slope | None:
        """The exponent now, None if growth is not told from noise."""
        return slope(list(self.steps), list(self.distances), low=FLOOR * self.unit, high=LINEAR * self.size)

    def row(self) -> dict[str, Any]:
        """JSON-ready: population, kind, neurons, distance, relative; exponent, since and scatter if it grows.

        `apart` is the distance over the size of the neurons themselves.
        """
        out: dict[str, Any] = {
            "population": self.sim.population, "kind": self.sim.kind, "neurons": list(self.sim.neurons),
            "distance": self.distances[-1], "relative": self.relative if math.isfinite(self.relative) else None,
            "apart": self.distances[-1] / self.size if self.size > 0 else None,
        }  # fmt: skip
        found = self.slope()
        if found is not None:
            out |= {"exponent": found.exponent, "since": found.first, "scatter": found.scatter}
        return out


class Rates:
    """Follows the nearest manifolds of a run, at most `limit` of them, and how fast the nearest one is left.

    The first nearest manifold leads; another takes the lead when it is `FACTOR` times nearer, relative to the typical
    length of the neurons. Neurons of zeros stay so and never lead. Where the limit is reached, the farthest is
    forgotten.

    Args:
        limit: most manifolds followed.

    >>> rates = Rates()
    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> found, sim = chain_architecture((1, 2, 1), activation="tanh", biases=False), Sim("1", "merge", (0, 1))
    >>> for t in range(0, 100, 10):
    ...     theta = {"1.weight": np.array([[1.0], [1.0 + 1e-9 * math.exp(0.1 * t)]]), "2.weight": np.ones((1, 2))}
    ...     rates.observe(t, found, theta, [sim], {"1": 1.4})
    >>> round(rates.leading.slope().exponent, 6)
    0.1
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self.tracks: dict[Sim, Track] = {}
        self._leader: Sim | None = None

    @property
    def leading(self) -> Track | None:
        """The manifold whose exponent is told, None before the first measurement."""
        return None if self._leader is None else self.tracks[self._leader]

    @property
    def exponent(self) -> float | None:
        """Of the leading manifold, per step."""
        found = None if self.leading is None else self.leading.slope()
        return None if found is None else found.exponent

    def observe(
        self,
        step: int,
        architecture: Architecture,
        parameters: Parameters,
        nearest: Iterable[Sim],
        lengths: Mapping[str, float],
    ) -> None:
        """Measure what is followed, and follow what is near now.

        Args:
            step: number of steps taken.
            architecture: of the model.
            parameters: now.
            nearest: the nearest manifolds.
            lengths: typical length of the neurons of each population.
        """  # fmt: skip
        for sim in nearest:
            self.tracks.setdefault(sim, Track(sim))
        sims = list(self.tracks)
        for sim, (distance, size, unit) in zip(sims, separations(architecture, parameters, sims), strict=True):
            length = lengths.get(sim.population, size)
            if math.isfinite(distance) and math.isfinite(size):
                self.tracks[sim].add(step, distance, length, length if sim.kind == "null" else size, unit)
        order = sorted(self.tracks.values(), key=lambda track: track.relative)
        leader = self.leading
        best = next((track for track in order if not track.stuck), None)
        if best is None:
            self._leader = None
        elif leader is None or leader.stuck or FACTOR * best.relative < leader.relative:
            self._leader = best.sim
        for track in [t for t in reversed(order) if t.sim != self._leader][: max(0, len(order) - self.limit)]:
            del self.tracks[track.sim]

    def rows(self) -> list[dict[str, Any]]:
        """What is followed, nearest first, as `Track.row`."""
        out = []
        for track in sorted(self.tracks.values(), key=lambda track: track.relative):
            if track.distances:
                out.append(track.row())
        return out

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> Rates:
        """What the last measurements of a trace say; rounding units follow with the next measurement."""
        out = cls()
        for record in records[-WINDOW:]:
            for row in record.nearest:
                try:
                    sim = Sim(str(row["population"]), row["kind"], tuple(int(k) for k in row["neurons"]))
                    distance = float(row["distance"])
                    length, size = (distance / float(row[key]) if row[key] else 0.0 for key in ("relative", "apart"))
                except (KeyError, TypeError, ValueError):
                    continue
                out.tracks.setdefault(sim, Track(sim)).add(record.step, distance, length, size, 0.0)
        nearest = records[-1].nearest[:1] if records else ()
        out._leader = next(
            (
                s
                for s in out.tracks
                for row in nearest
                if s.neurons == tuple(row["neurons"]) and (s.population, s.kind) == (row["population"], row["kind"])
            ),
            None,
        )
        return out

    def to_state(self) -> dict[str, Any]:
        """JSON-ready, for checkpoints."""
        rows = [
            [
                t.sim.population,
                t.sim.kind,
                list(t.sim.neurons),
                list(t.steps),
                list(t.distances),
                [t.length, t.size, t.unit],
            ]
            for t in self.tracks.values()
        ]
        return {"tracks": rows, "leader": None if self._leader is None else list(self.tracks).index(self._leader)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], limit: int = 16) -> Rates:
        """Inverse of `to_state`."""
        out = cls(limit)
        for population, kind, neurons, steps, distances, sizes in state["tracks"]:
            sim = Sim(population, kind, tuple(neurons))
            out.tracks[sim] = Track(sim, deque(steps, WINDOW), deque(distances, WINDOW), *sizes)
        leader = state["leader"]
        out._leader = None if leader is None else list(out.tracks)[leader]
        return out
