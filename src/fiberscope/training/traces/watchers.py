"""Watching a run from inside a training loop: `watch` opens a watcher, `Watcher.step` measures now and then."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fiberscope._version import __version__
from fiberscope.errors import InputError
from fiberscope.io.files import one_line
from fiberscope.training.architectures.architecture import Architecture, Skipped
from fiberscope.training.traces.loggers import Logger, logger_of
from fiberscope.training.traces.observing import Observer, Wanted
from fiberscope.training.traces.opening import (
    agreeing,
    has_parameters,
    now,
    number_of,
    one_spelling,
    put_to_the_test,
    rank_here,
    refuse_arguments,
    refuse_scalars,
    shape_of,
    subject_of,
)
from fiberscope.training.traces.rates import Rates
from fiberscope.training.traces.reading import Gathered, read_trace
from fiberscope.training.traces.records import SCHEMA, TraceWriter, encoded
from fiberscope.training.traces.runs import PREFIX, Trace
from fiberscope.training.traces.subjects import Subject

_KEPT = 2000
EVERY = 100
"""Steps between measurements where nothing else is asked for."""
SHARE = 0.008
"""The part of the time that measurements may then take: with opening and closing, watching stays below 1%."""
FREE = 0.2
"""Seconds of measuring that are free: short runs are looked at in full."""
_PROBLEMS = 100


def watch(
    subject: Any = None,
    path: str | Path | None = None,
    *,
    architecture: Architecture | None = None,
    optimizer: Any = None,
    every: int | None = None,
    data: Any = None,
    domain: Any = None,
    loggers: Sequence[Any] = (),
    resume: bool = False,
    force: bool = False,
    orbit_every: int | None = None,
    drift_every: int | None = None,
    tables: bool = False,
    histograms: bool = False,
    confirm: bool = True,
    activation: Any = None,
    tolerances: Any = None,
    rank: int | None = None,
    seed: int = 0,
    optimiser: Any = None,
    share: float | None = None,
) -> Watcher:
    """Open a watcher of a training run: a context manager whose `step` is called after every optimiser step.

    Measured at the start, every `every` steps, and at the end: distance to the nearest symmetric manifolds (neurons
    equal, opposite or zero) and the exponent at which it grows, classes of neurons, condensation, dead units, and the
    drift of conserved quantities beside what the optimiser explains. A call in between costs about a microsecond.

    Args:
        subject: a torch module, a Network, a mapping of names to arrays (with `architecture` or `activation`), a
            pytree of JAX arrays, a `Subject`; None if the parameters come with `step`.
        path: of the trace, one JSON line for each measurement; None keeps it in memory.
        architecture: which axes of which parameters index which neurons; None to find out.
        optimizer: a torch optimizer, or an `OptimiserState`; without it no drift is predicted.
        every: steps between measurements. None: 100, and a measurement is put off while watching would take more than
            0.8% of the time (0.2 s are free), so that it stays below 1% in all; the machine decides how often that is.
        share: the part of the time that may go into measurements, where `every` is given too; None for no limit.
        data: inputs on which units are looked at, and on which the populations found are put to the test.
        domain: a Box, for units dead on all of it; None for all inputs.
        loggers: TensorBoard writers or folders, W&B-style runs, functions of (scalars, step).
        resume: go on with the trace at `path`, if there is one.
        force: replace the trace at `path`.
        orbit_every: measure the orbit's dimension at every so many measurements.
        drift_every: show the conserved quantities every so many steps; 1 for all, which makes their prediction exact
            and costs a pass over the parameters in every step. None for the steps that are measured. Steps 1, 2, 4, 8,
            ... before the first measurement are shown anyway: most of the drift happens there.
        tables: write a table of all populations also where there are many.
        histograms: write histograms of the neurons.
        confirm: test on `data` that permuting the neurons of each population keeps the function; populations that
            fail are named as skipped.
        activation: of a mapping's hidden layers, if their names and shapes are to be read as a chain.
        tolerances: for numbers of classes.
        rank: of this process; all but 0 stay silent. None reads it from torch.distributed or the environment.
        seed: of what is random in the measurements.
        optimiser: another spelling of `optimizer`.

    Raises:
        InputError: for an argument of a type that has no meaning here, if `path` exists and is neither resumed nor
            forced, the trace to resume is of another architecture, or the subject is nothing that can be watched.

    Complexity: O(parameters) for a measurement, and no copy of them.

    >>> import numpy as np
    >>> theta = {"1.weight": np.array([[1.0], [1.0], [3.0]]), "2.weight": np.array([[2.0, 2.0, 5.0]])}
    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> with watch(theta, architecture=chain_architecture((1, 3, 1), activation="tanh", biases=False), every=2) as w:
    ...     for _ in range(4):
    ...         _ = w.step(theta)
    >>> w.last["fiberscope/sims/nearest_distance"], [r.step for r in w.trace().records]
    (0.0, [0, 2, 4])
    """
    if share is not None and not 0 < share <= 1:
        raise InputError(f"share = {share!r}; give a part of the time, such as 0.01, or None for no limit")
    if every is None:
        every, share = EVERY, SHARE if share is None else share
    for name, number in (("every", every), ("orbit_every", orbit_every), ("drift_every", drift_every)):
        if number is not None and (isinstance(number, bool) or int(number) != number or number < 1):
            raise InputError(f"{name} = {number!r}; give a number of steps >= 1")
    if resume and force:
        raise InputError("resume and force exclude each other: go on with the trace, or replace it")
    optimizer = one_spelling(optimizer, optimiser)
    refuse_arguments(subject, path, architecture, optimizer, domain)
    wanted = Wanted(data, domain, tolerances, tables, histograms, orbit_every, drift_every == 1, seed)
    return Watcher(
        subject, path, wanted=wanted, architecture=architecture, optimizer=optimizer, every=int(every),
        drift_every=drift_every, loggers=loggers, resume=resume, force=force, confirm=confirm, activation=activation,
        rank=rank, share=share,
    )  # fmt: skip


class Watcher:
    """Measures a run now and then; made by `watch`, and a context manager.

    Failures of loggers, of the disk, or of a measurement after the first never end the training: they are kept in
    `problems` and written to the trace. A copy (deepcopy, pickle) is a watcher that has ended.

    Args:
        subject: see `watch`.
        path: see `watch`.
        wanted: what a measurement holds.
        architecture: see `watch`.
        optimizer: see `watch`.
        every: see `watch`.
        drift_every: see `watch`.
        loggers: see `watch`.
        resume: see `watch`.
        force: see `watch`.
        confirm: see `watch`.
        activation: see `watch`.
        rank: see `watch`.
        share: see `watch`.
    """

    def __init__(
        self,
        subject: Any,
        path: str | Path | None,
        *,
        wanted: Wanted,
        architecture: Architecture | None = None,
        optimizer: Any = None,
        every: int = 100,
        drift_every: int | None = None,
        loggers: Sequence[Any] = (),
        resume: bool = False,
        force: bool = False,
        confirm: bool = True,
        activation: Any = None,
        rank: int | None = None,
        share: float | None = None,
    ) -> None:
        """Measure at once if there is something to measure yet."""
        self._opened = time.perf_counter()
        self.path = None if path is None else Path(path)
        self.every = every
        self.active = (rank_here() if rank is None else rank) == 0
        self.last: dict[str, float] = {}
        self.spent = 0.0
        self.notes: tuple[str, ...] = ()
        self._wanted, self._drift_every = wanted, drift_every
        self._share, self._measuring, self._cost, self._put_off = share, 0.0, 0.0, False
        self._resume, self._force, self._confirm = resume, force, confirm
        self._problems: list[str] = []
        self._told: set[str] = set()  # problems of the subject that are in the trace
        self._step, self._due, self._measured, self._offset = 0, 0, -1, 0.0
        self._counted = False
        self._status = "not asked for"
        self._lost, self._why_lost = 0, ""
        self._observer: Observer | None = None
        self._writer: TraceWriter | None = None
        self._header: dict[str, Any] = {}
        self._kept: list[dict[str, Any]] = []
        self._restored: Mapping[str, Any] | None = None
        self._old: Trace | None = None
        self._subject: Subject | None = None
        self._subject_of: Callable[[Any], Subject] = lambda found: subject_of(
            found, architecture=architecture, optimizer=optimizer, activation=activation, data=wanted.data
        )
        self._loggers: list[Logger] = [logger_of(target) for target in loggers] if self.active else []
        self._own = [log for log, target in zip(self._loggers, loggers, strict=False) if log is not target]
        if not self.active:
            self._due = sys.maxsize
            self._note("this process is not the first of the run; only that one measures")
            return
        if self.path is not None and self.path.exists() and not (resume or force):
            raise InputError(
                f"{self.path}: exists; resume=True goes on with it, force=True replaces it, or give another path"
            )
        if resume and self.path is not None and self.path.exists() and self.path.stat().st_size:
            self._old = read_trace(self.path)
            self._step = max((r.step for r in self._old.records[-1:]), default=0)
        if subject is not None:
            self._subject = self._subject_of(subject)
            if self._old is None and has_parameters(self._subject):
                self._timed(lambda: self._measure(0, {}))

    # ---- the loop's side

    def step(
        self,
        params: Any = None,
        *,
        step: int | None = None,
        gradients: Any = None,
        optimizer: Any = None,
        loss: Any = None,
        optimiser: Any = None,
        **scalars: Any,
    ) -> dict[str, float] | None:
        """One optimiser step was taken; measure if it is time.

        Args:
            params: the parameters now, where they are not those of a module; read only if it is time.
            step: number of steps taken; counted from 1 if None. A smaller one than before goes back.
            gradients: of this step, with the names of the parameters; None where the subject has them.
            optimizer: the optimiser's state now; None where the subject has it.
            loss: of this step, kept in the trace.
            optimiser: another spelling of `optimizer`.
            scalars: more numbers to keep in the trace.

        Returns:
            The scalars measured, None if it was not time.

        Raises:
            InputError: if the first measurement finds nothing that can be measured, or a scalar of the first steps is
                no number.

        About 0.3 microseconds if it is not time.
        """
        if step is None:
            step = self._step + 1
        if self._step <= step < self._due:
            self._step = step
            return None
        if not self.active:
            return None
        given = {**scalars} if loss is None else {"loss": loss, **scalars}
        if optimiser is not None:
            optimizer = one_spelling(optimizer, optimiser)
        if not self._counted:
            refuse_scalars(given)
            self._counted = True
        return self._timed(lambda: self._arrived(int(step), params, gradients, optimizer, given))

    def measure_now(self, params: Any = None, **options: Any) -> dict[str, float] | None:
        """Measure whether it is time or not; arguments as in `step`, but no step is counted."""
        if not self.active:
            return None
        given = {k: v for k, v in options.items() if k not in ("step", "gradients", "optimizer") and v is not None}
        step = self._step if options.get("step") is None else int(options["step"])
        return self._timed(
            lambda: self._arrived(step, params, options.get("gradients"), options.get("optimizer"), given, now=True)
        )

    def close(self, params: Any = None, *, error: str | None = None) -> None:
        """Measure the last step if that was not done, write the last line, remove every hook; may be called twice.

        Args:
            params: the parameters now, where the subject does not have them.
            error: what ended the run.
        """
        if not self.active:
            return
        self.active, self._due = False, sys.maxsize
        try:
            self._timed(lambda: self._finish(params, error))
        finally:
            if self._writer is not None:
                self._writer.close()
            if self._subject is not None:
                self._subject.close()
            for log in self._own:
                self._safely("closing a logger", getattr(log, "close", lambda: None))

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; an exception is named in the trace and goes on."""
        self.close(error=None if kind is None else f"{kind.__name__}: {one_line(value or kind.__name__)}")

    # ---- what is known

    @property
    def overhead(self) -> float:
        """Part of the wall time since it was opened that was spent in it, without calls that measured nothing."""
        return self.spent / max(time.perf_counter() - self._opened, 1e-9)

    @property
    def architecture(self) -> Architecture | None:
        """What is measured; None before the first measurement."""
        return None if self._observer is None else self._observer.architecture

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Layers that are not understood, and why."""
        return () if self._observer is None else self._observer.architecture.skipped

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong without ending the training."""
        own = () if self._subject is None else self._subject.problems()
        return tuple(dict.fromkeys((*own, *self._problems)))

    def trace(self) -> Trace:
        """What was measured so far; read from the file if there is one.

        Raises:
            InputError: if nothing was measured yet.
        """
        if self.path is not None and self._header:
            return read_trace(self.path)
        if not self._header:
            raise InputError("nothing was measured yet")
        gathered = Gathered("")
        for entry in ({"schema": SCHEMA, **self._header}, *self._kept):
            gathered.add(entry)
        return gathered.result()

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready: what a resumed run needs to go on with exponents and predictions, for its checkpoint."""
        state = None if self._observer is None else self._observer.to_state()
        return {"step": self._step, "observer": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: its step, and exponents and predictions from there."""
        self._step, self._due = int(state["step"]), 0 if self.active else sys.maxsize
        self._restored = state["observer"]
        if self._observer is not None and self._restored is not None:
            self._observer.restore(self._restored)

    def __repr__(self) -> str:
        """The first line of its trace."""
        if self._header:
            try:
                return f"<Watcher of {str(self.trace()).splitlines()[0]}>"
            except (InputError, OSError) as exc:
                return f"<Watcher of {self.path}: {one_line(exc)}>"
        return f"<Watcher of {self.path or 'a run'}: nothing measured yet>"

    def __getstate__(self) -> dict[str, Any]:
        """A copy holds no model, file or hook, and has ended."""
        kept = {k: v for k, v in self.__dict__.items() if k not in _LEFT_OUT}
        said = "this is a copy of a watcher; only the original measures"
        return {
            **kept, **_LEFT_OUT, "active": False, "_due": sys.maxsize, "_loggers": [], "_own": [],
            "_problems": [*self._problems, said],
        }  # fmt: skip

    # ---- measuring

    def _timed(self, work: Callable[[], dict[str, float] | None]) -> dict[str, float] | None:
        begin = time.perf_counter()
        try:
            return work()
        finally:
            if self._subject is not None:
                self._subject.release()
            self.spent += time.perf_counter() - begin

    def _arrived(
        self, step: int, params: Any, gradients: Any, optimizer: Any, given: Mapping[str, Any], now: bool = False
    ) -> dict[str, float] | None:
        if self._subject is None:
            self._subject = self._subject_of(params)
        self._step = step
        first = self._observer is None
        asked = now or first or step < self._measured
        due = asked or step >= self._next(self._measured, self.every)
        if due and not asked and not self._affordable(step):
            due = False
            if self._drift_every is None or step % self._drift_every:
                self._schedule()
                return None
        try:
            self._subject.update(params, gradients=gradients, optimizer=optimizer)
            if due:
                return self._measured_now(step, given)
            if self._observer is not None and has_parameters(self._subject):  # a loop may hand them over only when due
                begin = time.perf_counter()
                self._observer.look(self._subject, step)
                self._measuring += time.perf_counter() - begin if self._drift_every is None else 0.0
        except Exception as exc:
            if first:
                raise
            self._failed(f"measuring failed: {type(exc).__name__}: {one_line(exc)}")
        self._schedule()
        return None

    def _measured_now(self, step: int, given: Mapping[str, Any]) -> dict[str, float] | None:
        """Measure, and keep account of what it took; the first one, which finds the architecture, is not counted."""
        begin, first = time.perf_counter(), self._observer is None
        try:
            return self._measure(step, given)
        finally:
            if not first:
                self._cost = time.perf_counter() - begin
                self._measuring += self._cost

    def _affordable(self, step: int) -> bool:
        """Whether one more measurement stays within the share of the time."""
        if self._share is None:
            return True
        allowed = max(FREE, self._share * (time.perf_counter() - self._opened))
        if self._measuring + self._cost <= allowed:
            return True
        if not self._put_off:
            self._put_off = True
            said = f"measurements are put off so that they take {100 * self._share:g}% of the time"
            self._noted(f"{said}; give every={self.every} to have them all", step)
        return False

    def _next(self, step: int, every: int) -> int:
        return (step // every + 1) * every if step >= 0 else 0

    def _schedule(self) -> None:
        due = self._next(self._step, self.every)
        early = 1 << self._step.bit_length()  # most of the drift happens at once: steps 1, 2, 4, 8, ... are looked at
        if self._step >= 0 and early < self.every:
            due = min(due, early)
        if self._drift_every is not None:
            due = min(due, self._next(self._step, self._drift_every))
        self._due = due if self.active else sys.maxsize

    def _measure(self, step: int, given: Mapping[str, Any]) -> dict[str, float] | None:
        subject = self._subject
        if subject is None:
            return None
        observer = self._observer if self._observer is not None else self._prepared(subject)
        self._measured = step
        self._schedule()
        numbers = {name: number_of(value) for name, value in given.items()}
        elapsed = self._offset + time.perf_counter() - self._opened
        record = observer.record(subject, step, elapsed, numbers)
        if self._observer is None:
            self._open(subject, observer)  # only now, so that what cannot be measured leaves no file
            guessed = any("read by their names" in s.reason for s in observer.architecture.skipped)
            if self._wanted.data is None and guessed:
                self._noted("give data= (a batch of inputs): more layers can be read then", step)
        elif self._header["optimizer"] is None and (optimiser := subject.optimiser()) is not None:
            self._header["optimizer"] = optimiser.to_dict()
            self._write({"optimizer": self._header["optimizer"], "step": step})
        self._write(record.to_dict())
        scalars = {k: v for k, v in record.scalars.items() if v is not None and math.isfinite(v)}
        self.last = scalars
        own = {k: v for k, v in scalars.items() if k.startswith(PREFIX)}
        for log in self._loggers:
            self._safely(f"logger {type(log).__name__}", log.log, own, step)
        for note in observer.notes():
            self._noted(note, step)
        for text in subject.problems():
            if text not in self._told and len(self._told) < _PROBLEMS:
                self._told.add(text)
                self._write({"problem": text, "step": step})
        return own

    def _noted(self, note: str, step: int) -> None:
        self.notes = (*self.notes, note)
        self._write({"note": note, "step": step})

    def _prepared(self, subject: Subject) -> Observer:
        """Find or read the architecture, and test it."""
        old, architecture = self._old, subject.architecture()
        if old is not None and old.architecture is not None:
            architecture, self._status = agreeing(old.architecture, architecture, self.path), "as before"
        elif self._confirm:
            try:
                architecture, self._status = put_to_the_test(subject, architecture, self._wanted.data)
            except Exception as exc:
                self._note(f"the populations could not be put to the test: {type(exc).__name__}: {one_line(exc)}")
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

    def _open(self, subject: Subject, observer: Observer) -> None:
        """Write the first line, or the line that says that the run goes on."""
        optimiser = subject.optimiser()
        header = {
            "version": __version__, "created": now(), "every": self.every,
            "optimizer": None if optimiser is None else optimiser.to_dict(),
            "domain": None if self._wanted.domain is None else str(self._wanted.domain),
            "data": shape_of(self._wanted.data), "confirmed": self._status, "problems": list(self.problems),
            "architecture": observer.architecture.to_dict(),
        }  # fmt: skip
        if self.path is not None:
            self._writer = TraceWriter(self.path, header, resume=self._resume, force=self._force)
        self._header, self._observer = header, observer
        self._told = set(self.problems if self._old is None else self._old.problems)
        old, self._old = self._old, None
        if old is not None and old.records:
            self._write({"resume": {"step": old.records[-1].step, "version": __version__, "created": now()}})

    def _finish(self, params: Any, error: str | None) -> dict[str, float] | None:
        subject = self._subject
        if params is not None and subject is None:
            self._subject = subject = self._subject_of(params)
        if subject is not None and self._measured < self._step and (params is not None or has_parameters(subject)):
            self._safely("the last measurement", self._last, subject, params)
        if self._header:
            said = {"step": self._step, "time": self._offset + time.perf_counter() - self._opened, "error": error}
            if self._lost:
                said |= {"lost": self._lost, "reason": self._why_lost}
            self._write({"end": {**said, "overhead": self.overhead}})
        return None

    def _last(self, subject: Subject, params: Any) -> None:
        subject.update(params)
        self._measure(self._step, {})

    # ---- what must not end a training

    def _write(self, entry: dict[str, Any]) -> None:
        if self.path is None:
            self._kept.append(json.loads(encoded(entry)))
            if len(self._kept) > _KEPT:
                self._kept = [kept for k, kept in enumerate(self._kept) if k % 2 == 0 or "scalars" not in kept]
        elif self._writer is not None:
            try:
                self._writer.write(entry)
            except (OSError, InputError) as exc:
                self._note(f"{self.path}: not written: {one_line(exc)}")
                if "scalars" in entry:
                    self._lost, self._why_lost = self._lost + 1, self._why_lost or one_line(exc)

    def _safely(self, what: str, work: Callable[..., Any], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as exc:
            self._failed(f"{what} failed: {type(exc).__name__}: {one_line(exc)}")

    def _failed(self, text: str) -> None:
        if self._note(text):
            self._write({"problem": text, "step": self._step})

    def _note(self, text: str) -> bool:
        new = text not in self._problems and len(self._problems) < _PROBLEMS
        if new:
            self._problems.append(text)
        return new


_LEFT_OUT: dict[str, Any] = {"_subject": None, "_writer": None, "_subject_of": None, "_wanted": Wanted()}
"""What a copy of a watcher does not get, with what it gets instead."""
