"""A training read after the fact: a folder of checkpoints, one measurement each, in the order of their steps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fiberscope._version import __version__
from fiberscope.activations import Activation
from fiberscope.errors import FormatError, InputError
from fiberscope.io import load, safetensors, torch_files
from fiberscope.io.files import one_line, read_bytes
from fiberscope.results import Budget, Progress
from fiberscope.training.architectures.architecture import Architecture, Skipped
from fiberscope.training.architectures.chains import architecture_of, chain_architecture, parameters_of
from fiberscope.training.traces.observing import Observer, Wanted
from fiberscope.training.traces.records import Record
from fiberscope.training.traces.runs import Trace
from fiberscope.training.traces.subjects import ArraySubject

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npz")
"""Files that may be checkpoints, in order of preference."""
_DEPTH = 3
_OTHERS = re.compile(r"^(optimizer|optim|scheduler|rng_state.*|scaler|trainer_state|training_args)$")
_SHARD = re.compile(r"\d+-of-\d+$")
_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter|iteration|update)s?[-_=. ]?(\d+)", re.IGNORECASE)
_EPOCH = re.compile(r"(?:epoch|ep)s?[-_=. ]?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Checkpoint:
    """A file and the step it is of.

    Args:
        path: of the file.
        name: relative to the folder.
        step: read from the name, or its place in the order of writing.
    """

    path: Path
    name: str
    step: int


def found_checkpoints(folder: str | Path) -> tuple[list[Checkpoint], list[Skipped]]:
    """Checkpoints below a folder in the order of their steps, and files that were left out, with the reason.

    The step is the number behind "step", "checkpoint" or "iter" in the name (of the file, or of the folder it is in),
    else behind "epoch", else the last number. Without any number, the files are in the order of their writing. States
    of optimisers and the like are told by their names, and listed together.

    Raises:
        InputError: if there is no such folder.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"folder is a {type(folder).__name__}; give the folder that holds checkpoints")
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one that holds checkpoints")
    files: list[tuple[Path, str]] = []
    skipped: list[Skipped] = []
    others: list[str] = []
    for path in sorted(_files(root, _DEPTH)):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            skipped.append(Skipped(name, "is a link"))
        elif _OTHERS.match(path.stem):
            others.append(name)
        elif _SHARD.search(path.stem):
            skipped.append(Skipped(name, "is one of several parts; join them into one file"))
        else:
            files.append((path, name))
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        skipped.append(Skipped(others[0] + more, "by its name, the state of something else than a model"))
    numbered = [(step, path, name) for path, name in files if (step := step_of(name)) is not None]
    if not numbered:
        files.sort(key=lambda pair: (pair[0].stat().st_mtime_ns, pair[1]))
        return [Checkpoint(path, name, k) for k, (path, name) in enumerate(files)], skipped
    seen = {path for _, path, _ in numbered}
    skipped += [Skipped(name, "no number in its name says its step") for path, name in files if path not in seen]
    numbered.sort(key=lambda row: (row[0], SUFFIXES.index(row[1].suffix.lower()), row[2]))
    out: list[Checkpoint] = []
    for step, path, name in numbered:
        if out and out[-1].step == step:
            skipped.append(Skipped(name, f"is of the same step {step} as {out[-1].name}"))
        else:
            out.append(Checkpoint(path, name, step))
    return out, skipped


def step_of(name: str) -> int | None:
    """The step that the name of a checkpoint says, None if it has no number.

    >>> step_of("epoch=3-step=300.ckpt"), step_of("checkpoint-500/model.safetensors"), step_of("ep7/net2.pt")
    (300, 500, 7)
    >>> step_of("best.pt") is None
    True
    """
    parts = name.rpartition(".")[0].split("/")
    for pattern in (_STEP, _EPOCH):
        for part in reversed(parts):
            hits = pattern.findall(part)
            if hits:
                return int(hits[-1])
    for part in reversed(parts):
        hits = _NUMBER.findall(part)
        if hits:
            return int(hits[-1])
    return None


def _files(folder: Path, depth: int) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if depth > 1 and not path.is_symlink():
                yield from _files(path, depth - 1)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def read_tensors(path: Path) -> Mapping[str, Any]:
    """The tensors of a checkpoint by name; those of a torch file are converted when they are read. No code is run.

    Raises:
        InputError: if it cannot be read.
        FormatError: if it is damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except Exception as exc:  # zip, zlib, header and size errors of many kinds
            raise FormatError(f"is no readable NumPy archive: {one_line(exc)}") from exc
    data = read_bytes(path)
    if suffix == ".safetensors":
        header, start = safetensors.header_of(data)
        header.pop("__metadata__", None)
        return safetensors.tensors_of(header, memoryview(data)[start:])
    tensors = torch_files.named(torch_files.flatten(torch_files.parse(data)))
    return _Lazy({".".join(key): value for key, value in tensors.items()})


class _Lazy(Mapping[str, Any]):
    """Tensors of a torch file, each made an array when it is asked for."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Any:
        return self._tensors[name].array()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class _Renamed(Mapping[str, Any]):
    """A mapping whose names lack a prefix that all of its own names of interest have."""

    def __init__(self, tensors: Mapping[str, Any], prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix

    def __getitem__(self, name: str) -> Any:
        return self._tensors[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (n.removeprefix(self._prefix) for n in self._tensors if n.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass
class _Reader:
    """Reads parameters the way the first file that could be read was read."""

    architecture: Architecture | None
    activation: str | Activation | Sequence[str | Activation] | None
    how: Literal["tensors", "networks"] = "tensors"

    def parameters(self, path: Path) -> Mapping[str, Any]:
        if self.architecture is None:
            self._look(path)
        if self.how == "networks":
            net = load(path, activation=self.activation)
            if chain_architecture(net) != self.architecture:
                raise InputError("is a network of another architecture than the first one")
            return parameters_of(net)
        tensors = read_tensors(path)
        return tensors if self.architecture is None else _fitting(self.architecture, tensors)

    def _look(self, path: Path) -> None:
        """Take the architecture of this file for that of all."""
        if self.activation is not None:
            tensors = read_tensors(path)
            try:
                self.architecture = architecture_of(tensors, activation=self.activation)
                return
            except InputError:
                pass  # such as "W1", "b1" of our own archives
        self.architecture, self.how = chain_architecture(load(path, activation=self.activation)), "networks"


def _fitting(architecture: Architecture, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors under the architecture's names, which may lack a prefix such as "model." or "_orig_mod."."""
    wanted = [slot.name for slot in architecture.slots]
    if not wanted or wanted[0] in tensors:
        return tensors
    prefixes = [name.removesuffix(wanted[0]) for name in tensors if name.endswith("." + wanted[0])]
    good = [prefix for prefix in prefixes if all(prefix + name in tensors for name in wanted)]
    return _Renamed(tensors, good[0]) if len(good) == 1 else tensors


def trace_of_checkpoints(
    folder: str | Path,
    *,
    architecture: Architecture | None = None,
    activation: str | Activation | Sequence[str | Activation] | None = None,
    optimizer: Any = None,
    data: Any = None,
    domain: Any = None,
    tolerances: Any = None,
    tables: bool = False,
    orbit: bool = False,
    seed: int = 0,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Measure every checkpoint of a folder, as `watch` would have done in the run.

    Reads safetensors, torch files (nothing pickled is executed) and NumPy archives, one at a time. Files that cannot
    be read or are of another model are named in `Trace.skipped`.

    Args:
        folder: that holds the checkpoints, or folders such as "checkpoint-500" that hold one each.
        architecture: of the model; names in the files may have a prefix before its names.
        activation: hidden activation, if names and shapes are to be read as a chain of dense layers.
        optimizer: an `OptimiserState`; only its decay can be predicted, since no gradients are stored.
        data: inputs on which units are looked at; chains only.
        domain: a Box, for units dead on all of it.
        tolerances: for numbers of classes.
        tables: a table of all populations also where there are many.
        orbit: measure the orbit's dimension at each.
        seed: of what is random in the measurements.
        budget: seconds; later checkpoints are left out, and the trace says so.
        progress: called with (fraction, text).

    Raises:
        InputError: if there is no such folder, or no checkpoint in it can be read.

    Complexity: O(parameters) for a checkpoint. Memory: one checkpoint.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> for k in (0, 5):
    ...     np.savez(Path(folder.name) / f"step{k}.npz", W1=[[1.0], [1.0]], b1=[k, 0.0], W2=[[1.0, 1.0]], b2=[0.0])
    >>> trace = trace_of_checkpoints(folder.name, activation="tanh")
    >>> [(r.step, r.scalars["fiberscope/sims/nearest_distance"] == 0) for r in trace.records]
    [(0, True), (5, False)]
    """
    files, skipped = found_checkpoints(folder)
    if not files:
        raise InputError(f"{folder}: no checkpoints; looked for {', '.join(SUFFIXES)} up to {_DEPTH} folders deep")
    clock = Budget.of(budget).start()
    reader = _Reader(architecture, activation)
    wanted = Wanted(data, domain, tolerances, tables, orbit_every=1 if orbit else None, seed=seed)
    records: list[Record] = []
    problems: list[str] = []
    notes: list[str] = []
    observer: Observer | None = None
    begin = files[0].path.stat().st_mtime
    for k, file in enumerate(files):
        if clock.expired and records:
            problems.append(f"the budget ended after {k} of {len(files)} checkpoints")
            break
        if progress is not None:
            progress(k / len(files), file.name)
        try:
            parameters = reader.parameters(file.path)
            if observer is None and reader.architecture is not None:
                observer = Observer(reader.architecture, wanted)
            if observer is not None:
                subject = ArraySubject(parameters, observer.architecture, optimizer)
                age = max(0.0, file.path.stat().st_mtime - begin)
                records.append(observer.record(subject, file.step, age, {}))
                notes += observer.notes()
        except (InputError, OSError) as exc:
            skipped.append(Skipped(file.name, one_line(exc).removeprefix(f"{file.path}: ")))
            if not records:
                observer = None
                reader = _Reader(architecture, activation)
    if not records or observer is None:
        said = "; ".join(f"{row.name}: {row.reason}" for row in skipped[:3])
        raise InputError(f"{folder}: no checkpoint can be read as a model; give activation= or architecture=. {said}")
    found = observer.architecture
    created = datetime.fromtimestamp(begin, UTC).isoformat(timespec="seconds")
    return Trace(
        str(folder), __version__, created, None if optimizer is None else optimizer.to_dict(), _every(records),
        tuple(records), tuple((p.name, p.count, p.kind) for p in found.populations),
        (*reversed(skipped), *dict.fromkeys(found.skipped)), False, True, problems=tuple(problems), notes=tuple(notes),
        architecture=found,
    )  # fmt: skip


def _every(records: Sequence[Record]) -> int:
    gaps = {b.step - a.step for a, b in zip(records, records[1:], strict=False)}
    return gaps.pop() if len(gaps) == 1 else 0
