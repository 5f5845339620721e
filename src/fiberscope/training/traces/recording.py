"""From a subject to the trace: the architecture is found and tested, measured, written and handed to the loggers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fiberscope._version import __version__
from fiberscope.io.files import one_line
from fiberscope.training.traces.cadences import Cadence
from fiberscope.training.traces.journals import Journal
from fiberscope.training.traces.loggers import Logger, logger_of
from fiberscope.training.traces.observing import Observer, Wanted
from fiberscope.training.traces.opening import agreeing, now, number_of, put_to_the_test, shape_of
from fiberscope.training.traces.rates import Rates
from fiberscope.training.traces.runs import PREFIX
from fiberscope.training.traces.subjects import Subject


class Recorder:
    """Takes one measurement after the other; a copy has no loggers, file or data.

    Args:
        journal: where records go.
        cadence: whose clock dates them.
        wanted: what a measurement holds.
        loggers: see `watch`.
        confirm: see `watch`.
    """

    def __init__(
        self, journal: Journal, cadence: Cadence, wanted: Wanted, *, loggers: Sequence[Any] = (), confirm: bool = True
    ) -> None:
        """Nothing is measured yet, and there is no observer."""
        self.journal = journal
        self.observer: Observer | None = None
        self.last: dict[str, float] = {}
        self.notes: tuple[str, ...] = ()
        self._cadence, self._wanted, self._confirm = cadence, wanted, confirm
        self._status = "not asked for"
        self._offset = 0.0
        self._restored: Mapping[str, Any] | None = None
        self._loggers: list[Logger] = [logger_of(target) for target in loggers]
        self._own = [log for log, target in zip(self._loggers, loggers, strict=True) if log is not target]

    def problems(self, subject: Subject | None) -> tuple[str, ...]:
        """What went wrong so far, the subject's first."""
        own = () if subject is None else subject.problems()
        return tuple(dict.fromkeys((*own, *self.journal.problems)))

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from an observer's state, now or when there is an observer."""
        self._restored = state
        if self.observer is not None and state is not None:
            self.observer.restore(state)

    def prepared(self, subject: Subject) -> Observer:
        """The observer; the first time, the architecture is found or read, and tested.

        Raises:
            InputError: if there is none, or the trace to go on with is of another one.
        """
        if self.observer is not None:
            return self.observer
        old, architecture = self.journal.old, subject.architecture()
        if old is not None and old.architecture is not None:
            architecture, self._status = agreeing(old.architecture, architecture, self.journal.path), "as before"
        elif self._confirm:
            try:
                architecture, self._status = put_to_the_test(subject, architecture, self._wanted.data)
            except Exception as exc:
                said = f"the populations could not be put to the test: {type(exc).__name__}: {one_line(exc)}"
                self.journal.note(said)
                self._status = "failed"
        subject.update(architecture=architecture)
        observer = Observer(architecture, self._wanted)
        if self._restored is not None:
            observer.restore(self._restored)
        elif old is not None:
            observer.rates = Rates.from_records(old.records)
        if old is not None and old.records:
            self._offset = old.records[-1].time
        return observer

    def record(self, observer: Observer, subject: Subject, step: int, given: Mapping[str, Any]) -> dict[str, float]:
        """Measure, write and log.

        Args:
            observer: as `prepared`.
            subject: between its `update` and `release`.
            step: number of steps taken.
            given: the user's own scalars, such as the loss.

        Returns:
            The scalars measured, without those given.

        Raises:
            InputError: if the parameters do not fit the architecture, or the trace cannot be opened.
        """
        numbers = {name: number_of(value) for name, value in given.items()}
        record = observer.record(subject, step, self._offset + self._cadence.elapsed, numbers)
        journal = self.journal
        if self.observer is None:
            self._begin(subject, observer)  # only now, so that what cannot be measured leaves no file
            guessed = any("read by their names" in s.reason for s in observer.architecture.skipped)
            if self._wanted.data is None and guessed:
                self.note("give data= (a batch of inputs): more layers can be read then", step)
        elif journal.header["optimizer"] is None and (optimiser := subject.optimiser()) is not None:
            journal.header["optimizer"] = optimiser.to_dict()
            journal.write({"optimizer": journal.header["optimizer"], "step": step})
        journal.write(record.to_dict())
        self.last = {k: v for k, v in record.scalars.items() if v is not None and math.isfinite(v)}
        own = {k: v for k, v in self.last.items() if k.startswith(PREFIX)}
        for log in self._loggers:
            journal.attempt(f"logger {type(log).__name__}", step, log.log, own, step)
        for note in observer.notes():
            self.note(note, step)
        journal.tell(subject.problems(), step)
        return own

    def _begin(self, subject: Subject, observer: Observer) -> None:
        optimiser = subject.optimiser()
        self.journal.begin({
            "version": __version__, "created": now(), "every": self._cadence.every,
            "optimizer": None if optimiser is None else optimiser.to_dict(),
            "domain": None if self._wanted.domain is None else str(self._wanted.domain),
            "data": shape_of(self._wanted.data), "confirmed": self._status, "problems": list(self.problems(subject)),
            "architecture": observer.architecture.to_dict(),
        })  # fmt: skip
        self.observer = observer

    def note(self, text: str, step: int) -> None:
        """Keep what a reader of the trace should know, and write it down."""
        self.notes = (*self.notes, text)
        self.journal.write({"note": text, "step": step})

    def end(self, step: int, error: str | None, overhead: float) -> None:
        """Write the last line, if there is a first one."""
        if not self.journal.header:
            return
        said = {"step": step, "time": self._offset + self._cadence.elapsed, "error": error}
        if self.journal.lost:
            said |= {"lost": self.journal.lost, "reason": self.journal.why_lost}
        self.journal.write({"end": {**said, "overhead": overhead}})

    def close(self, step: int) -> None:
        """Close the loggers that were made here."""
        for log in self._own:
            self.journal.attempt("closing a logger", step, getattr(log, "close", lambda: None))

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets."""
        left_out = {"journal": copy.copy(self.journal), "_wanted": Wanted(), "_loggers": [], "_own": []}
        return {**self.__dict__, **left_out}
