"""The lines of a trace while a run is watched: in a file or in memory, and what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fiberscope._version import __version__
from fiberscope.errors import InputError
from fiberscope.io.files import one_line
from fiberscope.training.traces.opening import now
from fiberscope.training.traces.reading import Gathered, read_trace
from fiberscope.training.traces.records import SCHEMA, TraceWriter, encoded
from fiberscope.training.traces.runs import Trace

_KEPT = 2000
_PROBLEMS = 100


class Journal:
    """Takes down entries; a disk that fails ends nothing, it is one of the `problems`. A copy writes no file.

    Args:
        path: of the trace; None keeps it in memory, thinned where it grows long.
        resume: go on with the trace at the path, if there is one.
        force: replace it.

    Raises:
        InputError: if the path exists and is neither resumed nor forced, or holds no trace to go on with.

    >>> journal = Journal(None)
    >>> journal.attempt("a logger", 3, lambda: 1 / 0)
    >>> journal.problems
    ['a logger failed: ZeroDivisionError: division by zero']
    """

    def __init__(self, path: Path | None, *, resume: bool = False, force: bool = False) -> None:
        """Read what is there; nothing is written before `begin`."""
        self.path = path
        self.header: dict[str, Any] = {}
        self.problems: list[str] = []
        self.lost, self.why_lost = 0, ""
        self.old: Trace | None = None  # what is gone on with
        self._resume, self._force = resume, force
        self._told: set[str] = set()  # problems of the subject that are in the trace
        self._writer: TraceWriter | None = None
        self._kept: list[dict[str, Any]] = []
        if path is not None and path.exists() and not (resume or force):
            raise InputError(
                f"{path}: exists; resume=True goes on with it, force=True replaces it, or give another path"
            )
        if resume and path is not None and path.exists() and path.stat().st_size:
            self.old = read_trace(path)

    def begin(self, header: dict[str, Any]) -> None:
        """Write the first line, or the line that says that the run goes on.

        Args:
            header: what the first line says, with the "problems" met so far.

        Raises:
            InputError: if the file cannot be opened.
        """
        if self.path is not None:
            self._writer = TraceWriter(self.path, header, resume=self._resume, force=self._force)
        self.header = header
        old, self.old = self.old, None
        self._told = set(header["problems"] if old is None else old.problems)
        if old is not None and old.records:
            self.write({"resume": {"step": old.records[-1].step, "version": __version__, "created": now()}})

    def write(self, entry: dict[str, Any]) -> None:
        """Take down one entry."""
        if self.path is None:
            self._kept.append(json.loads(encoded(entry)))
            if len(self._kept) > _KEPT:
                self._kept = [kept for k, kept in enumerate(self._kept) if k % 2 == 0 or "scalars" not in kept]
        elif self._writer is not None:
            try:
                self._writer.write(entry)
            except (OSError, InputError) as exc:
                self.note(f"{self.path}: not written: {one_line(exc)}")
                if "scalars" in entry:
                    self.lost, self.why_lost = self.lost + 1, self.why_lost or one_line(exc)

    def note(self, text: str) -> bool:
        """Keep a problem; whether it is new."""
        new = text not in self.problems and len(self.problems) < _PROBLEMS
        if new:
            self.problems.append(text)
        return new

    def failed(self, text: str, step: int) -> None:
        """Keep a problem, and write it down if it is new."""
        if self.note(text):
            self.write({"problem": text, "step": step})

    def attempt(self, what: str, step: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Do what must not end a training: an exception becomes a problem."""
        try:
            work(*arguments)
        except Exception as exc:
            self.failed(f"{what} failed: {type(exc).__name__}: {one_line(exc)}", step)

    def tell(self, problems: Iterable[str], step: int) -> None:
        """Write down those of the subject's problems that the trace does not hold yet."""
        for text in problems:
            if text not in self._told and len(self._told) < _PROBLEMS:
                self._told.add(text)
                self.write({"problem": text, "step": step})

    def trace(self) -> Trace:
        """What was taken down so far; read from the file if there is one.

        Raises:
            InputError: if nothing was measured yet.
        """
        if not self.header:
            raise InputError("nothing was measured yet")
        if self.path is not None:
            return read_trace(self.path)
        gathered = Gathered("")
        for entry in ({"schema": SCHEMA, **self.header}, *self._kept):
            gathered.add(entry)
        return gathered.result()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file; problems of a copy are its own."""
        return {**self.__dict__, "_writer": None, "problems": list(self.problems)}
