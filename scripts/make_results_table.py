"""Reduce every network of a folder and write the table of docs/results.md.

Run: python scripts/make_results_table.py MODELS_FOLDER [docs/results.md]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import fiberscope as fs
from fiberscope.errors import InputError, PartError
from fiberscope.results import Answer

SUFFIXES = {".onnx", ".nnet", ".h5", ".zip"}
BUDGET = 60.0
HEAD = """# What is redundant in real networks

Every row is computed by `python scripts/make_results_table.py MODELS`: all networks of a folder are reduced
without changing their function, first for all real inputs, then on a box (the one stored in the file if there
is one, else [0, 1] per input: a choice of ours, which says nothing about where a network is used).
Every certificate was accepted by the checker. "Rounding" is the certified bound on the change of any output on that
box that comes from writing the new weights in the file's own dtype (the largest, for a folder); 0 means that the
file is exact. Seconds are for both reductions and both checks.
One core, at most {budget:.0f} s per network and domain.

"""
COLUMNS = """
| {first} | {second} | hidden neurons | everywhere | on the box | rounding | seconds |
|---|---|---|---|---|---|---|
"""


@dataclass
class Row:
    """Totals of one group of files."""

    files: int = 0
    before: int = 0
    everywhere: int = 0
    on_box: int = 0
    rounding: float = 0.0
    seconds: float = 0.0


def networks(path: Path) -> list[tuple[str, fs.Network]]:
    """The networks of a file: one, or one for each part."""
    try:
        return [("", fs.load(path))]
    except PartError as exc:
        return [(name, fs.load(path, part=name)) for name in exc.parts if "target" not in name]


def add(total: Row, net: fs.Network) -> Row:
    """Reduce one network twice, add it to its group, and return its own row."""
    box = (
        net.source.box
        if net.source is not None and net.source.box is not None
        else fs.Box.parse("[0,1]", net.widths[0])
    )
    start = time.perf_counter()
    wide, narrow = fs.reduce(net, budget=BUDGET), fs.reduce(net, box, budget=BUDGET)
    for reduction in (wide, narrow):
        if fs.check(reduction.certificate, net, reduction.network).answer is not Answer.YES:
            raise SystemExit(f"certificate refused: {net}")
    own = Row(
        1, net.hidden_count, wide.network.hidden_count, narrow.network.hidden_count, narrow.rounding.constant,
        time.perf_counter() - start,
    )  # fmt: skip
    for name, value in vars(own).items():
        before = getattr(total, name)
        setattr(total, name, max(before, value) if name == "rounding" else before + value)
    return own


def line(first: str, second: object, row: Row) -> str:
    """One row of a table."""
    rounding = f"{row.rounding:.1e}" if row.rounding else "0"
    cells = (first, second, row.before, row.everywhere, row.on_box, rounding, f"{row.seconds:.1f}")
    return "| " + " | ".join(map(str, cells)) + " |\n"


def main(folder: Path, target: Path) -> None:
    """Walk the folder, print progress to stderr, write the page."""
    rows: dict[str, Row] = {}
    files: list[tuple[str, str, Row]] = []
    refused: list[str] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES):
        parts = path.relative_to(folder).parts
        group = (
            parts[0]
            if len(parts) < 3 or parts[0] not in ("vnncomp2022", "archcomp2023", "sb3_zoo")
            else "/".join(parts[:2])
        )
        try:
            for name, net in networks(path):
                print(f"{path.name} {name}", file=sys.stderr)
                own = add(rows.setdefault(group, Row()), net)
                files.append((f"{path.stem} {name}".strip(), "-".join(map(str, net.widths)), own))
        except InputError as exc:
            refused.append(f"* `{path.relative_to(folder)}`: {str(exc).removeprefix(f'{path}: ')}")
    text = HEAD.format(budget=BUDGET) + COLUMNS.format(first="folder", second="networks")
    text += "".join(line(group, row.files, row) for group, row in rows.items())
    text += "\n## File by file\n" + COLUMNS.format(first="file", second="widths")
    text += "".join(line(name, widths, row) for name, widths, row in files)
    if refused:
        text += "\nFiles refused, with the reason given:\n\n" + "\n".join(refused) + "\n"
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs/results.md"))
