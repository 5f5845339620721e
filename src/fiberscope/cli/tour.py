"""The guided tour: run the commands of every chapter on bundled networks and write one page about what they found."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiberscope.cli.chapters import DIGITS, TWOS, Plan, Step, plans
from fiberscope.cli.group import program
from fiberscope.cli.options import INTERRUPTED
from fiberscope.errors import InputError
from fiberscope.io import load
from fiberscope.io.files import atomic_write
from fiberscope.network import Network
from fiberscope.pages.page import document
from fiberscope.pages.tour import Chapter
from fiberscope.results import Budget, Progress, Result, Stopwatch

Data = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Told:
    """A chapter that was run: the question, what was found, the commands with their data and exit codes."""

    plan: Plan
    found: tuple[str, ...]
    steps: tuple[Step, ...]
    data: tuple[Data, ...]
    codes: tuple[int, ...]
    seed: int

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands as one types them in the folder of the tour."""
        seed = ("--seed", str(self.seed)) if self.seed else ()
        return tuple(
            shlex.join(["fiberscope", *(w.name if isinstance(w, Path) else w for w in step.words), *seed])
            for step in self.steps
        )


@dataclass(frozen=True, eq=False)
class Tour(Result):
    """What the demo did and where it wrote.

    Args:
        networks: the bundled networks that were looked at.
        chapters: those that were run.
        left_out: titles of those for which there was no time.
        files: what was written, the page first.
        interrupted: whether Ctrl-C ended it.
    """

    networks: tuple[Network, ...]
    chapters: tuple[Told, ...]
    left_out: tuple[str, ...]
    files: tuple[str, ...]
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """The numbers of the tour; the page and the commands have everything."""
        wide, _, reduced, checked = self.chapters[0].data
        return {
            "network": wide["network"]["architecture"],
            "hidden_before": reduced["hidden_before"],
            "hidden_everywhere": wide["reduction"]["hidden_after"],
            "hidden_on_pixels": reduced["hidden_after"],
            "widths_before": reduced["widths_before"],
            "widths_after": reduced["widths_after"],
            "rounding": reduced["rounding"],
            "answer": checked["answer"],
            "reason": checked["reason"],
            "chapters": [
                {
                    "key": row.plan.key, "title": row.plan.title, "asked": row.plan.asked, "found": list(row.found),
                    "commands": [
                        {"command": command, "exit_code": code, "wall_s": data["wall_s"]}
                        for command, code, data in zip(row.commands, row.codes, row.data, strict=True)
                    ],
                }
                for row in self.chapters
            ],
            "left_out": list(self.left_out),
            "files": list(self.files),
            "theorems": list(dict.fromkeys(k for row in self.chapters for data in row.data for k in data["theorems"])),
        }  # fmt: skip

    def __str__(self) -> str:
        """The tour on one screen."""
        lines = []
        for number, row in enumerate(self.chapters, 1):
            lines += [f"{number}. {row.plan.title}", *(f"   {text}" for text in row.found), f"   $ {row.plan.hint}", ""]
        if self.left_out:
            lines += [f"left out: {' '.join(self.left_out)}", ""]
        page, folder = self.files[0], str(Path(self.files[-1]).parent)
        lines += [f"wrote {page} (open it in a browser) and {len(self.files) - 1} files in {folder}"]
        return "\n".join(lines)


def guided_tour(
    folder: str | Path,
    *,
    page: str | Path | None = None,
    force: bool = False,
    budget: Budget | float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tour:
    """Run the tour in a folder, which is made if it is missing.

    Args:
        folder: where the networks, certificates and tables of the tour go.
        page: where the page goes; "report.html" in the folder by default.
        force: overwrite files of an earlier tour.
        budget: seconds for all of it; chapters that it leaves no time for are left out, but never the first one.
        seed: of everything random.
        progress: called with (fraction or None, text).

    Raises:
        InputError: if a file of the tour exists already and `force` is not given.
    """
    place, all_plans = Path(folder), plans()
    html = Path(page) if page is not None else place / "report.html"
    for path in (html, *(place / name for plan in all_plans for name in plan.files)):
        if path.exists() and not force:
            raise InputError(f"{path}: exists; use --force to overwrite it, or --out for another folder")
    place.mkdir(parents=True, exist_ok=True)
    watch, done, interrupted = Budget.of(budget).start(), list[Told](), False
    for number, plan in enumerate(all_plans):
        if done and (watch.expired or interrupted):
            break
        if progress is not None:
            progress(number / len(all_plans), f"{number + 1} of {len(all_plans)}: {plan.title}")
        told = _run(plan, place, watch, seed)
        interrupted = told is None or INTERRUPTED in told.codes
        if told is not None:
            done.append(told)
    if not done:
        raise KeyboardInterrupt
    left = tuple(plan.title for plan in all_plans[len(done) :])
    atomic_write(html, _page(done, place).encode("utf-8"), force)
    names = [name for row in done for name in row.plan.files]
    files = tuple(str(path) for path in (html, *(place / name for name in names)) if path.exists())
    nets = tuple(load(place / name) for name in (DIGITS, TWOS) if name in names)
    return Tour(nets, tuple(done), left, files, interrupted)


def _run(plan: Plan, place: Path, watch: Stopwatch, seed: int) -> Told | None:
    """Run the commands of a chapter in this process; None if it was interrupted before the last one."""
    plan.prepare(place, seed)
    wanted, steps, data, codes = plan.steps(place), list[Step](), list[Data](), list[int]()
    for step in wanted:
        if step.needs is not None and not step.needs.exists():
            continue
        code, found = _called([*map(str, step.words), "--json", "--quiet", "--force", *_spent(watch, seed)])
        if code == INTERRUPTED and step is not wanted[-1]:
            return None
        steps.append(step)
        data.append(found)
        codes.append(code)
    return Told(plan, tuple(plan.told(data)), tuple(steps), tuple(data), tuple(codes), seed)


def _spent(watch: Stopwatch, seed: int) -> Sequence[str]:
    """Options for the time that is left, and the seed."""
    seconds = watch.left
    budget = () if seconds == float("inf") else ("--budget", repr(max(seconds, 0.0)))
    return (*budget, "--seed", str(seed))


def _called(words: Sequence[str]) -> tuple[int, Data]:
    """Exit code and data of a command, which prints into a string."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = program.main(args=list(words), prog_name="fiberscope", standalone_mode=False)
    return int(code or 0), json.loads(out.getvalue())


def _page(done: Sequence[Told], place: Path) -> str:
    """The page: every chapter with those of its results that are shown, as the commands give them in that folder."""
    chapters, found = [], list[Data]()
    for row in done:
        lines, shown = row.commands, [step.shown for step in row.steps]
        chapters.append(
            Chapter(
                row.plan.key,
                row.plan.title,
                row.plan.asked,
                row.found,
                tuple(line for line, here in zip(lines, shown, strict=True) if here),
                tuple(line for line, here in zip(lines, shown, strict=True) if not here),
            )  # fmt: skip
        )
        found += [_inside(data, place) for data, here in zip(row.data, shown, strict=True) if here]
    return document(found, "fiberscope demo", chapters=chapters)


def _inside(value: Any, place: Path) -> Any:
    """The data with the names of files as they are in a folder."""
    if isinstance(value, dict):
        return {key: _inside(item, place) for key, item in value.items()}
    if isinstance(value, list):
        return [_inside(item, place) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(rf"(?<![\w./\\]){re.escape(str(place))}[/\\]", "", value)
