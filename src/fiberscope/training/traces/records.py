"""Lines of a trace on disk: what a measurement is, and a writer that appends whole lines and nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fiberscope.errors import FormatError, InputError
from fiberscope.io.files import read_json

SCHEMA = "fiberscope/trace/1"
"""Name and version of the format; the first line of a trace says it."""
MAX_LINE = 64_000
"""Longest line of a measurement, in bytes: one write of it is never seen half done by a reader, only by a crash."""
MAX_HEADER = 16 << 20
"""Longest first line, which describes the architecture."""
DROPPED_FIRST = ("histograms", "layers", "laws", "nearest")
"""Parts of a measurement in the order in which they are left out of a line that would be too long."""


@dataclass(frozen=True)
class Record:
    """One measurement.

    Args:
        step: number of optimiser steps taken.
        time: seconds since the watcher started.
        scalars: numbers by name; None for one that was not finite, which `reason` then explains.
        layers: a table, one row of numbers for each population.
        nearest: nearest manifolds: population, kind, neurons, distance, relative.
        laws: drift of conserved quantities: name, drift, predicted, ratio.
        histograms: edges and counts, if asked for.
        reason: why something is missing.
        dropped: parts that were left out because the line would have been too long.

    >>> Record.from_dict({"step": 3, "time": 0.5, "scalars": {"loss": 1}}).scalars["loss"]
    1.0
    """

    step: int
    time: float
    scalars: Mapping[str, float | None]
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nearest: tuple[Mapping[str, Any], ...] = ()
    laws: tuple[Mapping[str, Any], ...] = ()
    histograms: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    dropped: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; empty parts are left out."""
        out: dict[str, Any] = {"step": self.step, "time": self.time, "scalars": dict(self.scalars)}
        for name in ("layers", "nearest", "laws", "histograms", "reason", "dropped"):
            value = getattr(self, name)
            if value:
                out[name] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Inverse of `to_dict`.

        Raises:
            FormatError: if it is no measurement.
        """
        step, scalars = data.get("step"), data.get("scalars")
        if type(step) is not int or step < 0 or not isinstance(scalars, dict):
            raise FormatError("is no measurement; expected a step >= 0 and scalars")
        parts = [data.get(name, []) for name in ("nearest", "laws")]
        tables = [data.get(name, {}) for name in ("layers", "histograms")]
        rows = [v for part in parts for v in (part if isinstance(part, list) else [None])] + tables
        rows += list(tables[0].values()) if isinstance(tables[0], dict) else []
        if not all(isinstance(row, dict) for row in rows):
            raise FormatError("is a malformed measurement; expected lists and tables of named numbers")
        return cls(
            step, _number(data.get("time", 0.0)) or 0.0,
            {str(name): _number(value) for name, value in scalars.items()},
            tables[0], tuple(parts[0]), tuple(parts[1]), tables[1],
            str(data.get("reason", "")), tuple(str(name) for name in data.get("dropped", ())),
        )  # fmt: skip


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"has {str(value)[:40]!r} where a number should be")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FormatError("has a number that is not finite")
    return number


_PLAIN = frozenset((str, int, bool, type(None)))


def clean(value: Any, name: str = "", bad: list[str] | None = None) -> Any:
    """A JSON-ready copy in which numbers that are not finite are None; their names are added to `bad`.

    >>> bad = []
    >>> clean({"a": np.float32(0.5), "b": [1, float("nan")]}, bad=bad), bad
    ({'a': 0.5, 'b': [1, None]}, ['b'])
    """
    kind = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):  # most of what there is
        return value
    if isinstance(value, Mapping):
        return {str(k): clean(v, f"{name}.{k}" if name else str(k), bad) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):  # a tuple: faster than a union
        return [clean(v, name, bad) for v in value]
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, np.ndarray):
        return clean(value.tolist(), name, bad)
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if math.isfinite(number):
        return number
    if bad is not None and name not in bad:
        bad.append(name)
    return None


def encoded(entry: Mapping[str, Any], limit: int = MAX_LINE) -> bytes:
    r"""One line: no NaN, newline at the end, the parts of `DROPPED_FIRST` left out and named until it fits.

    Raises:
        InputError: if it does not fit even so.

    >>> encoded({"step": 1, "time": 0.0, "scalars": {"loss": float("inf")}})
    b'{"step":1,"time":0.0,"scalars":{"loss":null},"reason":"loss is not finite"}\n'
    """
    bad: list[str] = []
    data = clean(entry, bad=bad)
    if bad:
        said = ", ".join(name.removeprefix("scalars.") for name in bad[:4]) + (", ..." if len(bad) > 4 else "")
        said += " is not finite" if len(bad) == 1 else " are not finite"
        data["reason"] = f"{data['reason']}; {said}" if data.get("reason") else said
    line = _text(data)
    for part in DROPPED_FIRST:
        if len(line) <= limit:
            return line
        if data.pop(part, None) is not None:
            data["dropped"] = [*data.get("dropped", []), part]
            line = _text(data)
    if len(line) > limit:
        raise InputError(f"a line of {len(line):,} bytes; at most {limit:,} are written, so log fewer scalars")
    return line


def _text(data: Any) -> bytes:
    return json.dumps(data, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class TraceWriter:
    """Appends whole lines to a file, each by one write; what a crash leaves is a readable trace with a torn last line.

    The file is locked where the system can: a second writer is refused. A copy (deepcopy, pickle, another process
    after a fork) never writes.

    Args:
        path: of the trace.
        header: its first line.
        resume: go on with an existing trace; its torn last line, which is no measurement, is cut off.
        force: replace an existing file; the old one stays until the new header is on disk.

    Raises:
        InputError: if the file exists and neither is asked for, another writer has it, or it cannot be written.
    """

    def __init__(
        self, path: str | Path, header: Mapping[str, Any], *, resume: bool = False, force: bool = False
    ) -> None:
        self.path = Path(path)
        self._fd: int | None = None
        self._pid = os.getpid()
        line = encoded({"schema": SCHEMA, **header}, MAX_HEADER)
        try:
            if resume and self.path.exists():
                self._reopen(line)
            elif force and self.path.exists():
                self._replace(line)
            else:
                self._fd = os.open(self.path, _FLAGS | os.O_EXCL | os.O_CREAT, 0o666)
                self._lock()
                self._append(line)
        except FileExistsError as exc:
            raise InputError(
                f"{self.path}: exists; resume=True goes on with it, force=True replaces it, or give another path"
            ) from exc
        except OSError as exc:
            self.close()
            raise InputError(f"{self.path}: cannot be written: {exc.strerror or exc}") from exc
        except InputError:
            self.close()
            raise

    def _reopen(self, header: bytes) -> None:
        self._fd = os.open(self.path, (_FLAGS & ~os.O_WRONLY) | os.O_RDWR)
        self._lock()
        size = os.fstat(self._fd).st_size
        with os.fdopen(os.dup(self._fd), "rb") as stream:
            stream.seek(max(0, size - MAX_HEADER))
            tail = stream.read().rpartition(b"\n")[2]
        if tail and whole(tail):
            self._append(b"\n")  # complete but for its end
        elif tail:
            os.ftruncate(self._fd, size - len(tail))
        if os.fstat(self._fd).st_size == 0:
            self._append(header)

    def _replace(self, header: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            held = os.open(self.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
            try:
                _lock_file(held, self.path)  # nobody writes to what is about to be replaced
            finally:
                os.close(held)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name[:100]}.", suffix=".tmp")
        os.close(handle)
        try:
            self._fd = os.open(name, _FLAGS)
            self._lock()
            self._append(header)
            os.fsync(self._fd)
            os.chmod(name, self.path.stat().st_mode & 0o777)
            os.replace(name, self.path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise

    def _lock(self) -> None:
        if self._fd is not None:
            _lock_file(self._fd, self.path)

    @property
    def is_open(self) -> bool:
        """Whether this object, in this process, may write."""
        return self._fd is not None and self._pid == os.getpid()

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line.

        Raises:
            InputError: if this is a copy or closed, or the line is too long.
            OSError: if the disk refuses; the file then ends where it ended before.
        """
        if not self.is_open:
            raise InputError(f"{self.path}: this writer is closed or a copy of the one that writes")
        self._append(encoded(entry))

    def _append(self, line: bytes) -> None:
        if self._fd is None:
            raise InputError(f"{self.path}: closed")
        written = os.write(self._fd, line)
        if written != len(line):  # a full disk takes a part
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file; may be called twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        """No open file outlives the writer."""
        if getattr(self, "_fd", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: a copy never writes."""
        return {"path": self.path, "_fd": None, "_pid": self._pid}


_FLAGS = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)


def whole(line: bytes) -> bool:
    """Whether a line without its newline is a complete JSON object.

    >>> whole(b'{"step": 1}'), whole(b'{"step": 1')
    (True, False)
    """
    try:
        return isinstance(read_json(line, "the line"), dict)
    except FormatError:
        return False


def _lock_file(fd: int, path: Path) -> None:
    """An advisory lock that ends with the process; nothing where the system has none (Windows, some network disks)."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InputError(f"{path}: another watcher writes to it; give another path") from exc
