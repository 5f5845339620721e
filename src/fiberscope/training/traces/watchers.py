"""Watching a run from inside a training loop: `watch` opens a watcher, `Watcher.step` measures now and then."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fiberscope.arguments import as_count, as_generator
from fiberscope.errors import InputError
from fiberscope.io.files import one_line
from fiberscope.training.architectures.architecture import Architecture, Skipped
from fiberscope.training.traces.cadences import EVERY, SHARE, Cadence
from fiberscope.training.traces.journals import Journal
from fiberscope.training.traces.observing import Wanted
from fiberscope.training.traces.opening import (
    has_parameters,
    one_spelling,
    rank_here,
    refuse_arguments,
    refuse_scalars,
    subject_of,
)
from fiberscope.training.traces.recording import Recorder
from fiberscope.training.traces.runs import Trace
from fiberscope.training.traces.subjects import Subject


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
    if share is not None and (
        isinstance(share, bool) or not isinstance(share, int | float | np.floating) or not 0 < share <= 1
    ):
        raise InputError(f"share = {share!r}; give a part of the time, such as 0.01, or None for no limit")
    if every is None:
        every, share = EVERY, SHARE if share is None else share
    for name, number in (("every", every), ("orbit_every", orbit_every), ("drift_every", drift_every)):
        if number is not None:
            as_count(number, f"{name}, a number of steps", 1)
    if resume and force:
        raise InputError("resume and force exclude each other: go on with the trace, or replace it")
    optimizer = one_spelling(optimizer, optimiser)
    refuse_arguments(path, architecture, optimizer, domain)
    if isinstance(loggers, str) or not isinstance(loggers, Sequence):
        raise InputError(f"loggers is a {type(loggers).__name__}; give a list, such as [writer] or ['runs/folder']")
    as_generator(seed)
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
        self._cadence = Cadence(every, drift_every, share)
        self.path = None if path is None else Path(path)
        self.active = (rank_here() if rank is None else rank) == 0
        self.spent = 0.0
        self._step, self._due = 0, 0
        self._put_off = self._counted = False
        self._subject: Subject | None = None
        self._subject_of: Callable[[Any], Subject] = lambda found: subject_of(
            found, architecture=architecture, optimizer=optimizer, activation=activation, data=wanted.data
        )
        if not self.active:
            self._recorder = Recorder(Journal(None), self._cadence, wanted)
            self._recorder.journal.note("this process is not the first of the run; only that one measures")
            self._due = sys.maxsize
            return
        journal = Journal(self.path, resume=resume, force=force)
        self._recorder = Recorder(journal, self._cadence, wanted, loggers=loggers, confirm=confirm)
        if journal.old is not None:
            self._step = max((r.step for r in journal.old.records[-1:]), default=0)
        if subject is not None:
            self._subject = self._subject_of(subject)
            if journal.old is None and has_parameters(self._subject):
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
            lambda: self._arrived(step, params, options.get("gradients"), options.get("optimizer"), given, asked=True)
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
            self._recorder.journal.close()
            if self._subject is not None:
                self._subject.close()
            self._recorder.close(self._step)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; an exception is named in the trace and goes on."""
        self.close(error=None if kind is None else f"{kind.__name__}: {one_line(value or kind.__name__)}")

    # ---- what is known

    @property
    def every(self) -> int:
        """Steps between measurements."""
        return self._cadence.every

    @property
    def last(self) -> dict[str, float]:
        """Scalars of the last measurement."""
        return self._recorder.last

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out of measurements and predictions, and why."""
        return self._recorder.notes

    @property
    def overhead(self) -> float:
        """Part of the wall time since it was opened that was spent in it, without calls that measured nothing."""
        return self.spent / max(self._cadence.elapsed, 1e-9)

    @property
    def architecture(self) -> Architecture | None:
        """What is measured; None before the first measurement."""
        return None if self._recorder.observer is None else self._recorder.observer.architecture

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Layers that are not understood, and why."""
        return () if self.architecture is None else self.architecture.skipped

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong without ending the training."""
        return self._recorder.problems(self._subject)

    def trace(self) -> Trace:
        """What was measured so far; read from the file if there is one.

        Raises:
            InputError: if nothing was measured yet.
        """
        return self._recorder.journal.trace()

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready: what a resumed run needs to go on with exponents and predictions, for its checkpoint."""
        observer = self._recorder.observer
        return {"step": self._step, "observer": None if observer is None else observer.to_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: its step, and exponents and predictions from there."""
        self._step, self._due = int(state["step"]), 0 if self.active else sys.maxsize
        self._recorder.restore(state["observer"])

    def __repr__(self) -> str:
        """The first line of its trace."""
        if self._recorder.journal.header:
            try:
                return f"<Watcher of {str(self.trace()).splitlines()[0]}>"
            except (InputError, OSError) as exc:
                return f"<Watcher of {self.path}: {one_line(exc)}>"
        return f"<Watcher of {self.path or 'a run'}: nothing measured yet>"

    def __getstate__(self) -> dict[str, Any]:
        """A copy holds no model, file or hook, and has ended."""
        recorder = copy.copy(self._recorder)
        recorder.journal.problems.append("this is a copy of a watcher; only the original measures")
        left_out = {"_subject": None, "_subject_of": None, "_recorder": recorder, "active": False, "_due": sys.maxsize}
        return {**self.__dict__, **left_out}

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
        self, step: int, params: Any, gradients: Any, optimizer: Any, given: Mapping[str, Any], asked: bool = False
    ) -> dict[str, float] | None:
        if self._subject is None:
            self._subject = self._subject_of(params)
        self._step = step
        cadence, observer = self._cadence, self._recorder.observer
        asked = asked or observer is None or step < cadence.measured
        due = asked or cadence.measures(step)
        if due and not asked and not self._affordable(step):
            due = False
            if not cadence.looks_at(step):
                self._schedule()
                return None
        try:
            self._subject.update(params, gradients=gradients, optimizer=optimizer)
            if due and observer is None:  # it finds the architecture, which no share is meant for
                return self._measure(step, given)
            if due:
                with cadence.measuring():
                    return self._measure(step, given)
            if observer is not None and has_parameters(self._subject):  # a loop may hand them over only when due
                with cadence.looking():
                    observer.look(self._subject, step)
        except Exception as exc:
            if observer is None:
                raise
            self._recorder.journal.failed(f"measuring failed: {type(exc).__name__}: {one_line(exc)}", step)
        self._schedule()
        return None

    def _affordable(self, step: int) -> bool:
        """Whether one more measurement stays within the share of the time; the first that does not is noted."""
        cadence = self._cadence
        if cadence.share is None or cadence.affords():
            return True
        if not self._put_off:
            self._put_off = True
            said = f"measurements are put off so that they take {100 * cadence.share:g}% of the time"
            self._recorder.note(f"{said}; give every={cadence.every} to have them all", step)
        return False

    def _schedule(self) -> None:
        self._due = self._cadence.due(self._step) if self.active else sys.maxsize

    def _measure(self, step: int, given: Mapping[str, Any]) -> dict[str, float] | None:
        subject = self._subject
        if subject is None:
            return None
        observer = self._recorder.prepared(subject)
        self._cadence.measured = step
        self._schedule()
        return self._recorder.record(observer, subject, step, given)

    def _finish(self, params: Any, error: str | None) -> dict[str, float] | None:
        subject, recorder = self._subject, self._recorder
        if params is not None and subject is None:
            self._subject = subject = self._subject_of(params)
        behind = self._cadence.measured < self._step
        if subject is not None and behind and (params is not None or has_parameters(subject)):
            recorder.journal.attempt("the last measurement", self._step, self._measured_last, subject, params)
        recorder.end(self._step, error, self.overhead)
        return None

    def _measured_last(self, subject: Subject, params: Any) -> None:
        subject.update(params)
        self._measure(self._step, {})
