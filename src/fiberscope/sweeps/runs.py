"""One call of `sweep`: it starts cells, keeps what comes back, and knows when to stop."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from fiberscope.arguments import shown
from fiberscope.errors import InputError
from fiberscope.results import Progress, Stopwatch
from fiberscope.sweeps.journal import Journal, canonical
from fiberscope.sweeps.workers import Pool, failure, work

_REPORT_SECONDS = 0.1
_TICK = 0.5
"""How long to wait for a worker before looking at the clock and at Ctrl-C again."""


class Cell(NamedTuple):
    """One piece of work: `key` names it for ever (say path and sha256), `payload` is what the function is given."""

    key: str
    payload: Any


def _cell(cell: str | Mapping[str, Any] | Cell) -> Cell:
    if isinstance(cell, str):
        return Cell(cell, cell)
    if isinstance(cell, Mapping):
        try:
            return Cell(canonical(cell), cell)
        except (TypeError, ValueError) as exc:
            raise InputError(f"a cell is not JSON data ({exc}); give Cell(key, payload)") from exc
    if isinstance(cell, Cell) and isinstance(cell.key, str):
        return cell
    raise InputError(
        f"a cell is {shown(cell)}, of type {type(cell).__name__}; give a string, a mapping or Cell(key, payload)"
    )


class Run:
    """One call of `sweep`: which cells were seen, started and finished."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        journal: Journal,
        clock: Stopwatch,
        most: int | None,
        report: Callable[[int, bool], None],
    ) -> None:
        self._function, self._journal, self._clock, self._most, self._report = function, journal, clock, most, report
        self._keys: list[str] = []
        self._flying: dict[str, tuple[Cell, Any]] = {}
        self._landed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._suspects: list[Cell] = []
        self._started = self._computed = self._done = 0
        self._reason = ""
        self._seen_all = False

    def go(self, cells: Iterable[str | Mapping[str, Any] | Cell], pool: Pool) -> None:
        """Compute what is missing, until done, stopped or interrupted."""
        try:
            for cell in map(_cell, cells):
                self._keys.append(cell.key)
                if not self._journal.todo(cell.key) or cell.key in self._flying:
                    self._advance()
                    continue
                if self._stopped():
                    if isinstance(cells, Sequence):
                        continue  # the rest may be finished already
                    break
                self._start(cell, pool)
                self._wait(pool, pool.window - 1)
            else:
                self._seen_all = True
            self._wait(pool, 0)
        except KeyboardInterrupt:
            self._reason = "interrupted"
        self._drain(pool)
        self._report(self._done, True)

    def _stopped(self) -> bool:
        """Whether no further cell may be started."""
        enough = self._most is not None and self._started >= self._most
        return self._late("the budget is spent" if enough else "")

    def _late(self, reason: str = "") -> bool:
        self._reason = self._reason or reason or ("the budget is spent" if self._clock.expired else "")
        return bool(self._reason)

    def _start(self, cell: Cell, pool: Pool) -> None:
        self._started += 1
        try:
            future = pool.submit(work, self._function, cell.key, cell.payload)
        except BrokenExecutor:
            self._suspects.append(cell)
            return
        self._flying[cell.key] = (cell, future)
        future.add_done_callback(lambda _: self._landed.put(cell.key))

    def _wait(self, pool: Pool, most: int) -> None:
        """Collect until at most so many cells are under way, or time is up."""
        while len(self._flying) > (0 if self._suspects else most):
            if self._clock.expired and self._late():
                return
            with suppress(queue.Empty):
                self._collect(self._landed.get(timeout=min(_TICK, self._clock.left)), pool)
        while self._suspects and not self._late():
            self._settle(self._suspects.pop(), pool)

    def _collect(self, key: str, pool: Pool) -> None:
        if key not in self._flying:
            return
        cell, future = self._flying.pop(key)
        if future.cancelled():
            self._reason = "cells were cancelled from outside"
            return
        try:
            line, failed = future.result()
        except BrokenExecutor:
            self._suspects.append(cell)
            return
        except Exception as exc:  # of the workers, not of the function
            pool.check(self._function)
            line, failed = failure(key, exc), True
        self._keep(key, line, failed)

    def _settle(self, cell: Cell, pool: Pool) -> None:
        """Compute alone a cell that was under way when a worker died: it may be the one that did it."""
        pool.restart()
        pool.check(self._function)
        try:
            line, failed = pool.submit(work, self._function, cell.key, cell.payload).result()
        except BrokenExecutor as exc:
            pool.restart()
            line, failed = failure(cell.key, exc), True
        self._keep(cell.key, line, failed)

    def _keep(self, key: str, line: str, failed: bool) -> None:
        self._journal.add(key, line, failed)
        self._computed += 1
        self._advance()

    def _advance(self) -> None:
        self._done += 1
        self._report(self._done, False)

    def _drain(self, pool: Pool) -> None:
        """Give up what has not begun and wait for what has: its work is done anyway."""
        for key, (_, future) in list(self._flying.items()):
            if pool.abandon(future):
                del self._flying[key]
        while self._flying:
            self._collect(self._landed.get(), pool)

    def outcome(self) -> dict[str, Any]:
        """What is known now, as the fields of a `Sweep`."""
        cells, finished, failed = self._journal.finished(self._keys)
        complete = self._seen_all and finished == cells
        return {
            "complete": complete,
            "reason": "" if complete else self._reason or "cells were left out",
            "cells": cells,
            "finished": finished,
            "computed": self._computed,
            "failed": failed,
            "keys": tuple(self._keys),
            "journal": self._journal,
        }


def reporter(progress: Progress | None, cells: Iterable[Any]) -> Callable[[int, bool], None]:
    """A progress callback that is called a few times a second, not for every cell."""
    total = len(cells) if isinstance(cells, Sized) else None
    last = -math.inf

    def report(done: int, at_once: bool) -> None:
        nonlocal last
        now = time.monotonic()
        if progress is not None and (at_once or now - last > _REPORT_SECONDS):
            last = now
            progress(done / total if total else None, f"{done} of {total} cells" if total else f"{done} cells")

    return report
