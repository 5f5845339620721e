"""Reading a trace: all of it, whatever a crash left of it, or line by line while the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fiberscope.errors import FormatError, InputError
from fiberscope.io.files import read_json
from fiberscope.training.architectures.architecture import Architecture
from fiberscope.training.traces.records import MAX_HEADER, SCHEMA, Record, whole
from fiberscope.training.traces.runs import Trace

MAX_READ = 1 << 20
"""Longest line read after the first, in bytes; longer ones are refused."""
MAX_TRACE = 2 << 30
"""Largest trace read, in bytes."""


def read_trace(path: str | Path) -> Trace:
    """Everything a trace holds; of a run that was killed, everything up to its last complete line.

    A last line that is torn is left out and reported in `Trace.torn`. After a resume, later measurements replace
    earlier ones from their step on, so that steps strictly increase.

    Args:
        path: of a trace written by `watch`.

    Raises:
        InputError: if there is no such file.
        FormatError: if it is no trace, of another version, or a line before the last is malformed, which is named.

    O(size of the file).

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "run.jsonl"
    >>> lines = ['{"schema": "fiberscope/trace/1", "every": 10}', '{"step": 10, "scalars": {"loss": 0.5}}', '{"st']
    >>> _ = path.write_text(chr(10).join(lines))
    >>> trace = read_trace(path)
    >>> [r.step for r in trace.records], trace.torn, trace.complete
    ([10], True, False)
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path is a {type(path).__name__}; give the file of a trace, such as 'run.jsonl'")
    place = Path(path)
    try:
        if place.is_dir():
            raise InputError(f"{place}: this is a folder; give a trace, or use trace_of_checkpoints")
        if place.stat().st_size > MAX_TRACE:
            raise InputError(f"{place}: {place.stat().st_size:,} bytes; at most {MAX_TRACE:,} are read")
        with place.open("rb") as stream:
            return _read(place, stream)
    except FileNotFoundError as exc:
        raise InputError(f"{place}: no such file") from exc
    except OSError as exc:
        raise InputError(f"{place}: cannot be read: {exc.strerror or exc}") from exc


def _read(path: Path, stream: BinaryIO) -> Trace:
    gathered = Gathered(str(path))
    number = 0
    while line := stream.readline(MAX_READ if number else MAX_HEADER + 1):
        number += 1
        if not line.endswith(b"\n") and not whole(line):
            if stream.read(1):
                raise FormatError(f"{path}: line {number} is longer than {len(line) - 1:,} bytes; this is no trace")
            if number == 1:
                raise FormatError(f"{path}: has no complete first line; the run was killed as it began, or is no trace")
            gathered.torn = True
            break
        try:
            gathered.add(_entry(line))
        except FormatError as exc:
            raise FormatError(f"{path}: line {number} {exc}") from exc
    if number == 0:
        raise FormatError(f"{path}: is empty; expected a trace, whose first line says {SCHEMA}")
    return gathered.result()


def _entry(line: bytes) -> dict[str, Any]:
    try:
        data = read_json(line, "the line")
    except FormatError as exc:
        raise FormatError("is no JSON object; only the last line of a trace may be torn") from exc
    if not isinstance(data, dict):
        raise FormatError("is no JSON object; expected one for each measurement")
    return data


@dataclass
class Gathered:
    """What the lines read so far say; `result` makes a result of it.

    Args:
        path: where they come from, for messages.
        torn: whether the last line was cut off.
    """

    path: str
    torn: bool = False
    header: dict[str, Any] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    end: dict[str, Any] | None = None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take in one line.

        Raises:
            FormatError: if it has no meaning here.
        """
        if not self.header:
            self._begin(entry)
        elif "schema" in entry:
            raise FormatError("begins a second trace; keep one run in one file")
        elif "scalars" in entry:
            record = Record.from_dict(entry)
            while self.records and self.records[-1].step >= record.step:
                self.records.pop()  # steps taken again after a crash
            self.records.append(record)
            self.end = None
        elif "end" in entry:
            self.end = dict(entry["end"]) if isinstance(entry["end"], Mapping) else {}
            lost = self.end.get("lost")
            if type(lost) is int and lost > 0:
                what = "1 measurement was" if lost == 1 else f"{lost} measurements were"
                _once(self.problems, f"{what} not written: {self.end.get('reason', 'no reason is given')}")
        elif "resume" in entry:
            self.end = None
            told = entry["resume"].get("step") if isinstance(entry["resume"], Mapping) else None
            self.resumed.append(told if type(told) is int else max((r.step for r in self.records[-1:]), default=0))
        elif "optimizer" in entry:
            self.header["optimizer"] = entry["optimizer"]
        elif "problem" in entry:
            _once(self.problems, f"step {entry.get('step', '?')}: {entry['problem']}")
        elif "note" in entry:
            _once(self.notes, str(entry["note"]))
        else:
            _once(self.problems, f"a line of unknown kind was left out: {', '.join(map(str, list(entry)[:4]))}")

    def _begin(self, entry: Mapping[str, Any]) -> None:
        schema = entry.get("schema")
        if schema != SCHEMA:
            raise FormatError(f"says schema {str(schema)[:60]!r}; expected {SCHEMA!r}")
        self.header = dict(entry)

    def result(self) -> Trace:
        """The result.

        Raises:
            FormatError: if the header describes no architecture.
        """
        head = self.header
        try:
            found = head.get("architecture")
            architecture = None if found is None else Architecture.from_dict(found)
        except (InputError, KeyError, TypeError, AttributeError, ValueError) as exc:
            raise FormatError(f"{self.path}: line 1 describes no architecture: {exc}") from exc
        every = head.get("every")
        end = self.end
        return Trace(
            self.path, str(head.get("version", "")), str(head.get("created", "")),
            head.get("optimizer") if isinstance(head.get("optimizer"), dict) else None,
            every if type(every) is int else 0, tuple(self.records),
            () if architecture is None else tuple((p.name, p.count, p.kind) for p in architecture.populations),
            () if architecture is None else tuple(dict.fromkeys(architecture.skipped)), self.torn, end is not None,
            None if end is None or end.get("error") is None else str(end["error"]),
            None if end is None or not isinstance(end.get("overhead"), float) else end["overhead"],
            tuple(self.resumed), (*_texts(head.get("problems")), *self.problems), tuple(self.notes), architecture,
        )  # fmt: skip


def _once(texts: list[str], text: str) -> None:
    if text not in texts and len(texts) < 100:
        texts.append(text)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def follow(
    path: str | Path,
    *,
    poll: float = 0.5,
    stop: Callable[[], bool] | None = None,
    idle: bool = False,
) -> Iterator[dict[str, Any] | None]:
    """The lines of a trace as they are written, from the first on: header, measurements, problems, end, resume.

    Waits for a file that does not exist yet. If the file is replaced, the new one's header comes next.

    Args:
        path: of the trace.
        poll: seconds between looks.
        stop: asked at every look; the generator ends once it returns True, after what is there now.
        idle: yield None at a look that finds nothing new, so that a server can see whether anyone still listens.

    Yields:
        One dict for each complete line.

    Raises:
        FormatError: if the file is no trace, or a complete line is malformed.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path is a {type(path).__name__}; give the file of a trace, such as 'run.jsonl'")
    place = Path(path)
    lines = _Lines(place)
    while True:
        last = stop is not None and stop()
        found = False
        for entry in lines.fresh():
            found = True
            yield entry
        if last:
            return
        if idle and not found:
            yield None
        if not found:
            time.sleep(poll)


class _Lines:
    """Complete lines behind a position in a file that grows; nothing stays open between looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._restart(None)

    def _restart(self, inode: tuple[int, int] | None) -> None:
        self._inode, self._at, self._number = inode, 0, 0

    def fresh(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open("rb") as stream:
                info = os.fstat(stream.fileno())
                if (info.st_dev, info.st_ino) != self._inode or info.st_size < self._at:
                    self._restart((info.st_dev, info.st_ino))
                stream.seek(self._at)
                yield from self._complete(stream)
        except FileNotFoundError:
            return

    def _complete(self, stream: BinaryIO) -> Iterator[dict[str, Any]]:
        while True:
            limit = MAX_READ if self._number else MAX_HEADER + 1
            line = stream.readline(limit)
            if not line.endswith(b"\n"):
                if len(line) >= limit:
                    raise FormatError(f"{self.path}: line {self._number + 1} is longer than {limit - 1:,} bytes")
                return
            try:
                entry = _entry(line)
                if self._number == 0 and entry.get("schema") != SCHEMA:
                    raise FormatError(f"says schema {str(entry.get('schema'))[:60]!r}; expected {SCHEMA!r}")
            except FormatError as exc:
                raise FormatError(f"{self.path}: line {self._number + 1} {exc}") from exc
            self._at, self._number = self._at + len(line), self._number + 1
            yield entry
