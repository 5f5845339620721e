"""Resumable runs: one function over many cells, one JSON line for each finished cell.

The file of a run starts with a header that names the task; after it lines are only ever added, each in one write. So a
crash costs the cells that were running and nothing else: a torn line is not a record, and its cell is computed again.
Cells are computed in this process, in worker processes, or on a Dask cluster (extra `cluster`), with a bounded number
of them under way; memory holds one key and one file position for each cell, not its result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fiberscope.arguments import as_count, shown
from fiberscope.errors import InputError
from fiberscope.results import Budget, Progress, Result
from fiberscope.sweeps.journal import SCHEMA, Journal, Record, task_of
from fiberscope.sweeps.runs import Cell, Run, reporter
from fiberscope.sweeps.workers import pool_of

__all__ = ["SCHEMA", "Cell", "Record", "Sweep", "sweep"]


@dataclass(frozen=True, eq=False)
class Sweep(Result):
    """What is known after a run; iterating gives the `Record` of every finished cell, in the order of the cells.

    Args:
        complete: whether every cell has a record.
        reason: why not: "interrupted", "the budget is spent", or what the cluster did.
        cells: number of different cells seen.
        finished: number of different cells that have a record.
        computed: how many of them this run computed; the others were in the file.
        failed: number of finished cells whose record is an error.
        path: the file, or None.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"keys", "journal"})

    complete: bool
    reason: str
    cells: int
    finished: int
    computed: int
    failed: int
    path: str | None
    keys: Sequence[str] = field(repr=False)
    journal: Journal = field(repr=False)

    def __iter__(self) -> Iterator[Record]:
        """The records, read again from the file: a sweep may be longer than memory."""
        return self.journal.records(self.keys)

    def __str__(self) -> str:
        """One line."""
        text = f"{self.finished} of {self.cells} cells finished, {self.computed} in this run, {self.failed} failed"
        return text if self.complete else f"{text}; stopped: {self.reason}"


def sweep(
    function: Callable[[Any], Any],
    cells: Iterable[str | Mapping[str, Any] | Cell],
    *,
    path: str | os.PathLike[str] | None = None,
    task: Any = None,
    workers: int | None = None,
    client: Any = None,
    budget: Budget | float | None = None,
    retry: bool = False,
    progress: Progress | None = None,
) -> Sweep:
    """Apply a function to every cell once, whatever happens between the first call and the last.

    record(cell) = function(payload) as JSON data, or the error it raised; finished cells of `path` are not computed
    again. The order of the records is the order of the cells, however they are computed. An interrupt (Ctrl-C) or a
    spent budget ends the run: cells that run in worker processes are waited for, the rest is left to the next run.

    Args:
        function: called with one payload; defined at the top level of a module if workers are used. Its value must be
            something `results.jsonable` knows.
        cells: strings (key and payload in one), JSON-ready mappings (the key is their canonical JSON) or `Cell`; a
            generator is consumed as the run goes on. A key that comes again is computed once.
        path: file of the run, made if missing; without it the records are kept in memory.
        task: JSON-ready data on which the values depend besides the cell (version, options); a file of another task
            is refused. By default the name of the function, with the arguments of a `functools.partial`.
        workers: number of worker processes (spawned: a script needs `if __name__ == "__main__":`).
        client: a `distributed.Client`, or the address of a Dask scheduler, instead of workers.
        budget: seconds, or `Budget`; its `cells` limits how many cells this call computes.
        retry: compute cells again whose record is an error.
        progress: called with the fraction done (None for a generator) and a count.

    Raises:
        InputError: for a file of another task, one in use by another run, or one that cannot be written; cells
            without a usable key; a function that cannot be called, or that workers cannot import; workers together
            with client.
        MissingDependencyError: if client is an address and distributed is not installed.

    Complexity: O(1) for each cell beyond the function; reading a file back is linear in its size.

    >>> run = sweep(len, ["a", "abc"])
    >>> [record.value for record in run], run.complete
    ([1, 3], True)
    """
    limit = Budget.of(budget)
    clock = limit.start()
    if workers is not None and client is not None:
        raise InputError("both workers and a client were given; give one of them")
    if not callable(function):
        raise InputError(f"function {shown(function)} cannot be called; give a function of one payload")
    if workers is not None:
        workers = as_count(workers, "workers (None computes in this process)", 1)
    if isinstance(cells, str | Mapping) or not isinstance(cells, Iterable):
        raise InputError(f"the cells are one {type(cells).__name__}; give a list of cells")
    if path is not None and not isinstance(path, str | os.PathLike):
        raise InputError(f"path {shown(path)} is no name of a file; give a str or pathlib.Path, or None")
    name = "" if path is None else task_of(function, task)
    with Journal.open(path, name, retry) as journal:
        run = Run(function, journal, clock, limit.cells, reporter(progress, cells))
        with pool_of(workers, client) as pool:
            run.go(cells, pool)
        return Sweep(path=None if path is None else os.fspath(path), **run.outcome())
