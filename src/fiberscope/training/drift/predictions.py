"""How far conserved quantities have drifted in a run, and how far its optimiser should have moved them.

What is predicted from what, by the rule:

* gd, sgd, momentum, nesterov with the same constants for all parameters of a law: from sizes of gradients (or of the
  velocity) alone, through the law (`recursions`). The prediction fails where the law does not hold.
* all others (Adam, RMSprop, Adagrad, sign, any rule whose updates are given, constants that differ inside a law):
  there is no conservation, even for small steps; what each step adds, -2 lr <theta, u> + lr^2 Q(u), is read off the
  step. The prediction fails where the rule is not the one that was named.

Observed at every step both are identities; else their terms are sampled and interpolated linearly between samples.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_count
from fiberscope.errors import InputError
from fiberscope.training.architectures.architecture import (
    Architecture,
    Law,
    Parameters,
    checked_architecture,
    checked_parameters,
)
from fiberscope.training.drift.lawvalues import Forms, is_large, law_names, law_theorems
from fiberscope.training.drift.recursions import Constants, propagate
from fiberscope.training.drift.reports import Basis, DriftReport, law_drift, pooled
from fiberscope.training.drift.rules import UNKNOWN, OptimiserState
from fiberscope.training.drift.samples import Sample, sampled

Array = npt.NDArray[np.float64]

_SCHEMA = "fiberscope/drift/1"
_BY_LAW = ("gd", "momentum", "nesterov")
_ARRAYS = ("start", "size", "now", "state", "variance", "forcing")


@dataclass
class _Track:
    """What is kept of one law: `state` is the prediction (P, A), with A = <theta, v> where there is a velocity."""

    start: Array
    size: Array
    now: Array
    state: Array
    variance: Array
    forcing: Array | None = None
    kind: str = "none"
    basis: Basis = "none"
    row: tuple[float, float, float, float] | None = None
    moving: bool = False
    missed: bool = False
    blind: int = 0
    """Steps behind that were predicted from one sample; how much they differ shows at the next one."""

    def move(self, seen: Sample, steps: int) -> bool:
        """Carry the prediction to the sample; returns whether all its terms are known."""
        self.now = seen.value
        if seen.kind == "none":
            self.missed = True
            return False
        if seen.kind != self.kind:
            self.forcing = None  # of another rule
        known = seen.forcing is not None or self.forcing is not None
        last = self._terms(seen)
        first = last if self.forcing is None else self.forcing
        before = seen.numbers if self.row is None else Constants(*self.row)
        span = (before, seen.numbers, steps)
        kind = "step" if seen.kind == "mixed" else seen.kind
        width = 2 if kind in ("momentum", "nesterov") else 1
        start = self.state[:width]
        self.state[:width] = propagate(kind, seen.coupled, span, start, first, last, fresh=not self.moving)
        if steps > 1:
            zero, gap = np.zeros_like(start), last - first
            one = zero.copy()
            one[0] = 1.0
            noise = propagate(kind, seen.coupled, span, zero, gap, gap)[0]
            kept = propagate(kind, seen.coupled, span, one, 0 * gap, 0 * gap)[0]
            self.variance = kept**2 * self.variance + noise**2 / 2
        if self.forcing is not None and self.blind:  # what lay behind may have differed as much as what followed
            gap = last - first
            early = propagate(kind, seen.coupled, (before, seen.numbers, self.blind), np.zeros_like(start), gap, gap)
            self.variance, self.blind = self.variance + early[0] ** 2, 0
        elif self.forcing is None and known and steps > 1:
            self.blind = steps
        if known:
            self.basis = "law" if kind in _BY_LAW else "rule"
        elif self.basis == "none" and seen.numbers.decay:
            self.basis = "decay"
        self.forcing = last if known else None
        self.kind, self.row, self.moving = seen.kind, seen.numbers.row, self.moving or width == 2
        known |= seen.numbers.lr == 0
        self.missed |= not known
        return known

    def _terms(self, seen: Sample) -> Array:
        if seen.forcing is not None:
            return seen.forcing
        if self.forcing is not None:
            return self.forcing
        return np.zeros((2 if seen.kind == "nesterov" else 1, *self.start.shape))


class Drift:
    """Follows the laws of an architecture through a run.

    Args:
        architecture: gives the laws; matrices with many entries are followed on their diagonals.
        parameters: where the run starts, or is now.
        step: the number of that moment.
        optimiser: its constants before the first step; needed if the run has momentum already.
        exact: whether every step will be observed; then a missing one is an error.

    Raises:
        InputError: if parameters do not fit the architecture.

    Memory: about 8 numbers for each law's entry. Sources: arXiv 2012.04728, 1806.00900.

    >>> from fiberscope.training.architectures.architecture import Axis, Population, Slot
    >>> slots = (Slot("w", (1,), (1,), (Axis("h", "in"),)), Slot("a", (1,), (1,), (Axis("h", "out"),)))
    >>> model = Architecture(slots, (Population("h", 1),), (Law("w^2 - a^2", "balance", "h", (0,), (1,)),))
    >>> drift = Drift(model, {"w": np.array([2.0]), "a": np.array([1.0])})
    >>> gradient = {"w": np.array([1.0]), "a": np.array([2.0])}  # of the loss a w; w = 1.9, a = 0.8 after a step
    >>> drift.observe(1, {"w": np.array([1.9]), "a": np.array([0.8])}, gradient, OptimiserState("gd", 0.1))
    >>> round(drift.report().ratio, 9)  # 3.61 - 0.64 = 4 - 1 + 0.01 (1 - 4)
    1.0
    """

    def __init__(
        self,
        architecture: Architecture,
        parameters: Parameters,
        *,
        step: int = 0,
        optimiser: OptimiserState | None = None,
        exact: bool = False,
    ) -> None:
        """Read the laws at the start."""
        self._lay_out(checked_architecture(architecture), exact)
        checked_parameters(parameters)
        if optimiser is not None and not isinstance(optimiser, OptimiserState):
            raise InputError(f"optimiser is a {type(optimiser).__name__}; give an OptimiserState, or None")
        self.first = self.step = as_count(step, "step")
        sizes = Forms(architecture, signed=False, diagonals=True).squares(parameters)
        self._eps = max((_eps(parameters[name]) for name in self._forms.terms), default=0.0)
        self._tracks = []
        looks = sampled(self._forms, parameters, None, optimiser, crossed=True)
        for size, seen in zip(sizes, looks, strict=True):
            q, zero = seen.value, np.zeros_like(seen.value)
            track = _Track(q, size, q, np.stack([q, zero if seen.cross is None else seen.cross]), zero)
            track.moving = seen.cross is not None
            if seen.kind != "none":
                track.row = seen.numbers.row
            self._tracks.append(track)

    def _lay_out(self, architecture: Architecture, exact: bool) -> None:
        self.architecture, self.exact = architecture, exact
        self._forms = Forms(architecture, diagonals=True)
        self._names = law_names(architecture)
        self._notes: dict[str, None] = {}
        for law, name in zip(architecture.laws, self._names, strict=True):
            if is_large(architecture, law):
                self._notes[f"{name}: a large matrix, followed on its diagonal"] = None

    def observe(
        self,
        step: int,
        parameters: Parameters,
        gradients: Parameters | None = None,
        optimiser: OptimiserState | None = None,
    ) -> None:
        """Look at the moment after a step.

        Args:
            step: its number.
            parameters: after it.
            gradients: of the step that led here, as the optimiser got them; names may be missing.
            optimiser: its constants in that step, and what it remembers after it.

        Without gradients (or buffers, for momentum and Adam) at most decay is predicted, and the report says so.
        O(parameters), no copy of them; rules other than gd, sgd and momentum need one array of each in turn.

        Raises:
            InputError: if the step lies before the last one or, with `exact`, does not follow it.
        """
        steps = int(step) - self.step
        if steps < 0 or (self.exact and steps > 1):
            expected = "a later step" if steps < 0 else f"step {self.step + 1}: exact=True needs every step"
            raise InputError(f"observed step {step} after step {self.step}; expected {expected}")
        if steps == 0:
            return
        if optimiser is not None and optimiser.note and optimiser.name != UNKNOWN and self._tracks:
            self._notes[optimiser.note] = None
        for track, seen in zip(self._tracks, sampled(self._forms, parameters, gradients, optimiser), strict=True):
            if not track.move(seen, steps):
                self._notes[_why(optimiser, gradients)] = None
        self.step = int(step)

    def report(self) -> DriftReport:
        """Drift and prediction since the start.

        O(entries of the laws).
        """
        steps = self.step - self.first
        floor = self._eps * (steps + 1) ** 0.5
        rows, parts = [], []
        for law, name, track in zip(self.architecture.laws, self._names, self._tracks, strict=True):
            variance = np.full_like(track.variance, np.nan) if track.blind else track.variance
            arrays = (track.start, track.size, track.now, track.state[0], variance)
            whole = law.kind == "matrix" and not is_large(self.architecture, law)
            count = self._count(law, track.start)
            row, part = law_drift(name, count, arrays, whole=whole, floor=floor, basis=track.basis)
            if track.missed and track.basis == "none":
                row = replace(row, predicted=None, unexplained=None)
            rows.append(row)
            parts.append(part)
        ratio, spread = pooled(parts, floor)
        predicted = [row.predicted for row in rows if row.predicted is not None]
        unexplained = [row.unexplained for row in rows if row.unexplained is not None]
        nothing = None if rows else 0.0
        return DriftReport(
            step=self.step,
            steps=steps,
            count=sum(row.count for row in rows),
            drift=max((row.drift for row in rows), default=0.0),
            predicted=max(predicted, default=nothing),
            unexplained=max(unexplained, default=nothing),
            ratio=ratio,
            ratio_error=spread,
            floor=floor,
            exact=self.exact,
            laws=tuple(rows),
            notes=tuple(self._notes),
            theorems=(*law_theorems(self.architecture), *(("balance-steps",) if predicted else ())),
        )

    def _count(self, law: Law, values: Array) -> int:
        """Independent numbers: n (n + 1) / 2 of a symmetric matrix of n rows."""
        if law.kind != "matrix" or is_large(self.architecture, law):
            return int(values.size)
        side = int(values.shape[-1])
        return int(values.size) // side * (side + 1) // 2

    def to_state(self) -> dict[str, Any]:
        """All that is needed to go on later, JSON-ready and exact to the bit.

        Arrays are base64 of little-endian float64.
        """
        tracks = [
            {
                **{name: _packed(getattr(track, name)) for name in _ARRAYS},
                "kind": track.kind,
                "basis": track.basis,
                "row": track.row,
                "moving": track.moving,
                "blind": track.blind,
                "missed": track.missed,
            }
            for track in self._tracks
        ]
        return {
            "schema": _SCHEMA,
            "laws": list(self._names),
            "exact": self.exact,
            "first": self.first,
            "step": self.step,
            "eps": self._eps,
            "notes": list(self._notes),
            "tracks": tracks,
        }

    @classmethod
    def from_state(cls, architecture: Architecture, state: Mapping[str, Any]) -> Drift:
        """Inverse of `to_state`.

        Raises:
            InputError: if the document is malformed or of other laws.
        """
        if state.get("schema") != _SCHEMA:
            raise InputError(f"schema {state.get('schema')!r}; expected {_SCHEMA!r}")
        self = cls.__new__(cls)
        self._lay_out(architecture, bool(state.get("exact")))
        if list(state.get("laws", ())) != list(self._names):
            raise InputError("the state is of other laws; start anew, or give the architecture it was made with")
        try:
            self.first, self.step, self._eps = int(state["first"]), int(state["step"]), float(state["eps"])
            self._notes.update(dict.fromkeys(state["notes"]))
            self._tracks = [_unpacked_track(row) for row in state["tracks"]]
        except (KeyError, TypeError, ValueError) as exc:
            raise InputError(f"not the state of a drift: {exc}") from exc
        return self


def _why(optimiser: OptimiserState | None, gradients: Parameters | None) -> str:
    if optimiser is None:
        return "in some steps no optimiser was given, or it does not show its numbers: nothing is predicted for them"
    decays = bool(optimiser.weight_decay) or any(row.get("weight_decay") for row in optimiser.groups.values())
    rest = "only decay" if decays and (optimiser.linear or not optimiser.coupled) else "nothing"
    if optimiser.name == UNKNOWN:
        return optimiser.note or f"the optimiser is not understood: {rest} is predicted"
    by_entry = optimiser.name in ("rmsprop", "adagrad", "sign") or optimiser.lookahead
    if by_entry and decays and optimiser.coupled and gradients is not None:
        what = "nadam" if optimiser.lookahead else optimiser.name
        return f"{what} with decay added to the gradients: its state does not tell its steps, which are not predicted"
    if optimiser.name in ("momentum", "adam", "adamw") and not optimiser.lookahead:
        return f"the state of {optimiser.name} is not known for all parameters: {rest} is predicted for some laws"
    missing = "no gradients were given" if gradients is None else "gradients or states of some parameters are missing"
    return f"{missing}: {rest} is predicted for some laws"


def _eps(value: Any) -> float:
    kind = np.asarray(value).dtype
    return float(np.finfo(kind).eps) if kind.kind == "f" else 2.0**-7 if kind.itemsize == 2 else 2.0**-52


def _packed(values: Array | None) -> dict[str, Any] | None:
    if values is None:
        return None
    data = base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode("ascii")
    return {"shape": list(values.shape), "data": data}


def _unpacked(row: Mapping[str, Any] | None) -> Array | None:
    if row is None:
        return None
    return np.frombuffer(base64.b64decode(row["data"]), dtype="<f8").astype(np.float64).reshape(row["shape"])


def _unpacked_track(row: Mapping[str, Any]) -> _Track:
    arrays: dict[str, Any] = {name: _unpacked(row[name]) for name in _ARRAYS}
    numbers = None if row["row"] is None else tuple(float(x) for x in row["row"])
    flags = {
        "moving": bool(row["moving"]), "missed": bool(row.get("missed")), "blind": int(row.get("blind", 0))
    }  # fmt: skip
    return _Track(**arrays, kind=row["kind"], basis=row["basis"], row=numbers, **flags)  # type: ignore[arg-type]
