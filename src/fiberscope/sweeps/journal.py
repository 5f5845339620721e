"""The file of a run: a header that names the task, then one JSON line for each finished cell."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from fiberscope.errors import InputError

SCHEMA = "fiberscope/sweep/1"
_SYNC_SECONDS = 1.0
"""A loss of power may cost what was finished since the last fsync; a crash of the process costs nothing."""
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class Record:
    """What became of a cell: its `value` as JSON data, or the `error` that the function raised."""

    key: str
    value: Any = None
    error: str | None = None


class Journal:
    """Records by key: lines of a file, found again by their position, or lines in memory."""

    def __init__(self, path: Path | None, file: BinaryIO | None) -> None:
        self._path = path
        self._file = file
        self._lines: dict[str, int | bytes] = {}
        self._failed: set[str] = set()
        self._retry: set[str] = set()
        self._torn = False
        self._synced = time.monotonic()

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None, task: str, retry: bool) -> Self:
        """Open or create the file of a task and index what is finished."""
        if path is None:
            return cls(None, None)
        place = Path(path)
        try:
            file = open(place, "a+b", buffering=0)
        except OSError as exc:
            raise InputError(f"{place}: cannot be opened for a run: {exc.strerror or exc}") from exc
        try:
            _lock(file, place)
            journal = cls(place, file)
            _check_header(file, place, task)
            journal._index(file, retry)
        except BaseException:
            file.close()
            raise
        return journal

    def _index(self, file: BinaryIO, retry: bool) -> None:
        """Note where each record starts; the last line of a key counts, lines that are no records do not."""
        file.seek(0)
        with open(file.fileno(), "rb", closefd=False) as lines:
            start = len(lines.readline())
            for line in lines:
                found = _parsed(line)
                if found is not None:
                    key = found["key"]
                    self._lines[key] = start
                    (self._failed.add if "error" in found else self._failed.discard)(key)
                start += len(line)
                self._torn = not line.endswith(b"\n")
        if retry:
            self._retry = set(self._failed)

    def todo(self, key: str) -> bool:
        """Whether the cell has to be computed."""
        return key not in self._lines or key in self._retry

    def finished(self, keys: Iterable[str]) -> tuple[int, int, int]:
        """How many different keys there are, how many have a record, and how many of these are errors."""
        different = set(keys)
        known = different & self._lines.keys()
        return len(different), len(known), len(known & self._failed)

    def add(self, key: str, line: str, failed: bool) -> None:
        """Keep a record; it is with the operating system when this returns."""
        data = line.encode() + b"\n"
        self._lines[key] = data if self._file is None else self._append(self._file, data)
        (self._failed.add if failed else self._failed.discard)(key)
        self._retry.discard(key)

    def _append(self, file: BinaryIO, data: bytes) -> int:
        """One write for one line; returns where the line starts."""
        whole = b"\n" + data if self._torn else data  # the run before may have been cut off inside a line
        if file.write(whole) != len(whole):
            raise OSError(f"{self._path}: a record could not be written whole; the disk may be full")
        self._torn = False
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(file.fileno())
            self._synced = time.monotonic()
        return file.tell() - len(data)

    def records(self, keys: Iterable[str]) -> Iterator[Record]:
        """The records of these keys, in this order; keys without one are left out."""
        if self._path is None:
            for key in keys:
                line = self._lines.get(key)
                if isinstance(line, bytes):
                    yield Record(**json.loads(line))
            return
        with open(self._path, "rb") as file:
            for key in keys:
                start = self._lines.get(key)
                if isinstance(start, int):
                    file.seek(start)
                    found = _parsed(file.readline())
                    if found is None or found["key"] != key:
                        raise InputError(f"{self._path}: was changed since the run; run it again")
                    yield Record(key, found.get("value"), found.get("error"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # not every file system knows fsync
                os.fsync(self._file.fileno())
            self._file.close()


def _lock(file: BinaryIO, place: Path) -> None:
    """Refuse a second run on one file; the lock ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise InputError(f"{place}: another run is writing to it; wait for it or give another path") from exc
    except OSError:  # a file system without locks
        return


def _check_header(file: BinaryIO, place: Path, task: str) -> None:
    """Write the header of a new file, compare that of an old one."""
    digest = hashlib.sha256(task.encode()).hexdigest()
    header = json.dumps({"schema": SCHEMA, "fingerprint": digest, "task": json.loads(task)}).encode() + b"\n"
    file.seek(0)
    first = file.readline(_LONGEST_HEADER)
    if not first.endswith(b"\n") and header.startswith(first):  # new, or cut off inside the header
        file.truncate(0)
        file.write(header)
        return
    try:
        found = json.loads(first)
        schema, was = found["schema"], found["fingerprint"]
    except (ValueError, TypeError, KeyError, RecursionError):
        schema = was = None
    if schema != SCHEMA:
        raise InputError(f"{place}: is not the file of a run ({SCHEMA}); give another path")
    if was != digest:
        told = "; ".join(_differences(found.get("task"), json.loads(task))) or "another form of the task"
        raise InputError(f"{place}: belongs to another task ({told}); give another path")


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two tasks, by the names of the entries; at most three, shortly."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = [row for key in sorted({*old, *new}) for row in _differences(old.get(key), new.get(key), key)]
        return found[:3]
    if old == new:
        return []
    texts = [json.dumps(value) for value in (old, new)]
    if max(map(len, texts)) > 60:
        return [f"{name} differ" if name else "they differ"]
    return [f"{name} {texts[0]} there, {texts[1]} here".lstrip()]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The record on a line, or None: no proper beginning of a JSON object is one."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("key"), str):
        return None
    return found if found.keys() in ({"key", "value"}, {"key", "error"}) else None


def canonical(value: Any) -> str:
    """One string for one JSON value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def task_of(function: Callable[[Any], Any], task: Any) -> str:
    """What the values of a run depend on, as canonical JSON."""
    try:
        if task is not None:
            return canonical(task)
        inner, arguments, keywords = function, [], {}
        if isinstance(function, functools.partial):
            inner, arguments, keywords = function.func, list(function.args), function.keywords
        name = getattr(inner, "__qualname__", "<")
        if "<" in name:
            raise TypeError("it has no name")
        module = getattr(inner, "__module__", None) or ""
        return canonical({"function": f"{module}:{name}", "arguments": arguments, "keywords": keywords})
    except (TypeError, ValueError) as exc:
        raise InputError(f"the task of this run cannot be written down ({exc}); give task= as JSON data") from exc
