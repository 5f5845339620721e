"""Fingerprints of many files: one resumable sweep, equal functions grouped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fiberscope._version import __version__
from fiberscope.errors import InputError, PartError
from fiberscope.sweeps import Cell, Sweep, sweep

_OPTIONS = ("part", "activation", "allow_opaque")


def fingerprint_file(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fingerprint of each network of one file, or the reason why there is none; runs in workers."""
    path, options = cell["path"], {**cell["options"], "several": cell["several"]}
    try:
        return [_row(path, options["part"], options)]
    except PartError as exc:
        if options["part"] is None and exc.parts:
            return [_row_or_reason(path, name, options) for name in exc.parts]
        return [{"path": path, "error": str(exc).removeprefix(f"{path}: ")}]
    except (InputError, OSError) as exc:
        return [{"path": path, "error": str(exc).removeprefix(f"{path}: ")}]


def _row_or_reason(path: str, part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _row(path, part, options)
    except (InputError, OSError) as exc:
        return {"path": path, "part": part, "error": str(exc).removeprefix(f"{path}: ")}


def _row(path: str, part: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    from fiberscope.cli.files import load_network
    from fiberscope.fibers import canonical

    form = canonical(load_network(path, {**options, "part": part}, several=options["several"]))
    return {
        "path": path, **({} if part is None else {"part": part}), "fingerprint": form.fingerprint,
        "unique": form.unique, "architecture": form.network.architecture,
        "sha256": None if form.network.source is None else form.network.source.sha256,
        "not_met": [h.statement for h in form.hypotheses if h.checked and not h.holds],
        "theorems": list(form.theorems),
    }  # fmt: skip


def fingerprint_files(
    files: Sequence[Path], options: Mapping[str, Any], *, path: str | None, workers: int | None, cluster: str | None,
    budget: Any, progress: Any,
) -> Sweep:  # fmt: skip
    """Fingerprint every file; a file is known by its path, size and time of change."""
    chosen = {name: options[name] for name in _OPTIONS}
    several = len(files) > 1
    cells = [Cell(_key(file), {"path": str(file), "options": chosen, "several": several}) for file in files]
    return sweep(
        fingerprint_file, cells, path=path, task={"fingerprint": __version__, **chosen}, workers=workers,
        client=cluster, budget=budget, progress=progress,
    )  # fmt: skip


def _key(file: Path) -> str:
    try:
        state = os.stat(file)
    except OSError:
        return f"{file} 0 missing"
    return f"{file} {state.st_size} {state.st_mtime_ns}"


def rows_of(run: Sweep) -> list[dict[str, Any]]:
    """One row for each network, in the order of the files."""
    rows: list[dict[str, Any]] = []
    for record in run:
        rows += [{"path": record.key.rsplit(" ", 2)[0], "error": record.error}] if record.error else record.value
    return rows


def groups_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Networks with one fingerprint, where there are several."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if "error" not in row:
            found.setdefault(row["fingerprint"], []).append(name_of(row))
    return [{"fingerprint": key, "networks": names} for key, names in found.items() if len(names) > 1]


def name_of(row: Mapping[str, Any]) -> str:
    """The path, with the part where there is one."""
    return f"{row['path']} {row['part']}" if row.get("part") else str(row["path"])
