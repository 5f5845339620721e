"""One measurement of a subject: what is near, dead, condensed and conserved, put together as a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fiberscope.training.architectures.architecture import Architecture, Parameters
from fiberscope.training.drift.predictions import Drift
from fiberscope.training.drift.reports import DriftReport
from fiberscope.training.traces.rates import Rates, Sim
from fiberscope.training.traces.records import Record
from fiberscope.training.traces.runs import PREFIX
from fiberscope.training.traces.subjects import Subject

FEW = 16
"""Architectures with at most so many populations have their tables in the trace without being asked."""
_NEAREST = 8
_LAWS = 64


@dataclass(frozen=True)
class Wanted:
    """What a measurement should hold.

    Args:
        data: inputs on which units are looked at, in the subject's own types; None for none.
        domain: where "dead for every input" is meant; None for all inputs.
        tolerances: of the numbers of classes; None for the usual ones.
        tables: a row for each population.
        histograms: histograms of the neurons.
        orbit_every: measure the orbit's dimension in every so many measurements; None for never.
        exact: every step will be shown to the conserved quantities.
        seed: of what is random in a measurement.
    """

    data: Any = None
    domain: Any = None
    tolerances: Any = None
    tables: bool = False
    histograms: bool = False
    orbit_every: int | None = None
    exact: bool = False
    seed: int = 0


class Observer:
    """Makes records of a run, one after the other; remembers distances and conserved quantities between them.

    Args:
        architecture: of the model.
        wanted: what to measure.

    Errors of the parts are not caught here: a missing parameter is an InputError.
    """

    def __init__(self, architecture: Architecture, wanted: Wanted) -> None:
        self.architecture = architecture
        self.wanted = wanted
        self.rates = Rates()
        self.drift: Drift | None = None
        self.count = 0
        self._state: Mapping[str, Any] | None = None
        self._memory: dict[str, Any] = {}
        self._notes: set[str] = set()
        self._late: tuple[str, ...] = ()
        self._report: DriftReport | None = None

    def record(self, subject: Subject, step: int, time: float, given: Mapping[str, Any]) -> Record:
        """Measure now.

        Args:
            subject: between its `update` and `release`.
            step: number of steps taken.
            time: seconds since the start.
            given: the user's own scalars, such as the loss.
        """
        parameters = subject.parameters()
        bad = nonfinite(self.architecture, parameters)
        if bad:
            return Record(step, time, dict(given), reason=bad)
        from fiberscope.training.measures.measurements import measured

        wanted = self.wanted
        found = None if wanted.data is None else subject.activations(wanted.data)
        orbit = wanted.orbit_every is not None and self.count % wanted.orbit_every == 0
        self.count += 1
        m = measured(
            parameters, self.architecture, data=wanted.data if found is None else None, activations=found,
            domain=wanted.domain, tolerances=wanted.tolerances, histograms=wanted.histograms,
            orbit=orbit, seed=wanted.seed, memory=self._memory,
        )  # fmt: skip
        self._late = m.notes
        lengths = {name: float(row["typical_length"]) for name, row in m.layers.items() if "typical_length" in row}
        near = [Sim(n.population, n.kind, n.neurons) for n in m.nearest]
        self.rates.observe(step, self.architecture, parameters, near, lengths)
        rates = {} if self.rates.exponent is None else {PREFIX + "sims/growth_exponent": self.rates.exponent}
        self.look(subject, step, parameters)
        report = None if self.drift is None or not self.architecture.laws else self.drift.report()
        self._report = report
        laws = {} if report is None else report.scalars()
        if report is not None and not report.steps and subject.optimiser() is None:
            laws = {k: v for k, v in laws.items() if k.rpartition("/")[2] not in ("predicted_drift", "unexplained")}
        scalars = {**given, **m.scalars, **rates, **laws}
        show = wanted.tables or len(self.architecture.populations) <= FEW
        return Record(
            step, time, scalars, m.layers if show else {}, tuple(self.rates.rows()[:_NEAREST]),
            () if report is None else tuple(report.rows()[:_LAWS]), m.histograms if wanted.histograms else {},
        )  # fmt: skip

    def look(self, subject: Subject, step: int, parameters: Parameters | None = None) -> None:
        """Show this step to the conserved quantities; the first time, it is where they start."""
        parameters = subject.parameters() if parameters is None else parameters
        optimiser = subject.optimiser()
        if self.drift is not None and step < self.drift.step:
            self.drift = None  # the run went back, so the prediction starts anew
        if self.drift is None and self._state is not None:
            self.drift = Drift.from_state(self.architecture, self._state)
            self._state = None
        if self.drift is None:
            self.drift = Drift(self.architecture, parameters, step=step, optimiser=optimiser, exact=self.wanted.exact)
        else:
            self.drift.observe(step, parameters, subject.gradients(), optimiser)

    def notes(self) -> tuple[str, ...]:
        """What is left out of measurements and predictions, and why; each once."""
        both = (*self._late, *(() if self._report is None else self._report.notes))
        found = tuple(dict.fromkeys(note for note in both if note not in self._notes))
        self._notes.update(found)
        return found

    def to_state(self) -> dict[str, Any]:
        """JSON-ready, for checkpoints."""
        return {
            "rates": self.rates.to_state(),
            "drift": None if self.drift is None else self.drift.to_state(),
            "count": self.count,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `to_state`."""
        self.rates, self.count = Rates.from_state(state["rates"]), int(state["count"])
        self.drift, self._state = None, state["drift"]


def nonfinite(architecture: Architecture, parameters: Parameters) -> str:
    """Which parameters have entries that are not finite, in words; empty if none has.

    O(parameters), one pass; a second one only over a parameter whose sum of squares is not finite.

    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> found = chain_architecture((1, 2, 1), biases=False)
    >>> nonfinite(found, {"1.weight": np.array([[1.0], [np.nan]]), "2.weight": np.ones((1, 2))})
    '1.weight has 1 entry that is not finite'
    """
    out = []
    for name in dict.fromkeys(slot.name for slot in architecture.slots):
        if name not in parameters:
            continue  # whoever reads it says so
        value = np.asarray(parameters[name])
        if value.dtype.kind != "f":
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            flat = value.reshape(-1) if value.flags.c_contiguous else value.T.reshape(-1)
            total = flat.sum(dtype=np.float32) if value.dtype.itemsize < 4 else flat @ flat
        if np.isfinite(total):
            continue
        count = int(value.size - np.isfinite(value).sum())  # squares may also overflow
        if count:
            out.append(f"{name} has {count} {'entry that is' if count == 1 else 'entries that are'} not finite")
    return "; ".join(out[:4]) + (f"; and {len(out) - 4} more" if len(out) > 4 else "")
