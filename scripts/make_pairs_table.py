"""Decide equality of published pairs of networks and write docs/pairs.md.

Run: python scripts/make_pairs_table.py MODELS_FOLDER [docs/pairs.md] [--only FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fiberscope as fs
from fiberscope.errors import FiberscopeError, InputError
from fiberscope.network import Network
from fiberscope.results import Answer, Verdict

BUDGET = 60.0
DISTANCE_BUDGET = 3.0
HEAD = """# Published pairs of networks

Every row is computed by `python scripts/make_pairs_table.py MODELS`: files that their authors publish as versions of
one network (mirrored, retrained, pruned, distilled, exported in another format, a target copy), found by their names.
`equal` decides whether both compute the same function for all real inputs, with a budget of {budget:.0f} s. YES has a
certificate, which the checker accepted once more; NO has an input at which the outputs differ, evaluated again in
rational arithmetic. The difference shown is the one at that input. "Distance" is a certified enclosure of the largest
difference of any output on a box, after {distance:.0f} s: the box stored in a file, else [0, 1] per input for 64 or
more inputs and [-1, 1] for fewer. That choice is ours and says nothing about where a network is used.
NNet files carry a normalisation; against an ONNX file the networks inside it are compared, on the normalised box.
One core.

"""


@dataclass(frozen=True)
class Item:
    """One of two networks: a file, which part of it, and whether a normalisation in it is set aside."""

    path: Path
    part: str | None = None
    bare: bool = False

    def __str__(self) -> str:
        """The file's name without its ending, and the part."""
        return self.path.stem + (f" {self.part}" if self.part else "")

    def load(self) -> tuple[Network, fs.Box | None]:
        """The network, and the box of inputs that its file stores."""
        net = fs.load(self.path, part=self.part)
        box = net.source.box if net.source is not None else None
        frame = net.layers[0].frame
        if not self.bare or frame is None:
            return net, box
        if box is not None:
            scale, shift = (np.asarray(v, dtype=float) for v in (frame.in_scale, frame.in_shift))
            box = fs.Box(scale * box.lower + shift, scale * box.upper + shift, "normalised box of the file")
        return Network.from_arrays(*(layer.own for layer in net.layers), activation=net.activation or "relu"), box


@dataclass(frozen=True)
class Row:
    """What was found for one pair."""

    group: str
    names: str
    widths: str
    verdict: Verdict | None
    seconds: float
    proof: str
    distance: str

    @property
    def answer(self) -> str:
        """The verdict's name."""
        return self.verdict.answer.name if self.verdict is not None else "not read"


Pairs = Iterator[tuple[Item, Item]]


def _mirrored(folder: Path) -> Pairs:
    for mirror in sorted(folder.rglob("*-mirror.onnx")):
        yield Item(mirror.with_name(mirror.name.replace("-mirror", ""))), Item(mirror)


def _versions(folder: Path) -> Pairs:
    """All pairs of files that share the name of a data set."""
    for _, group in itertools.groupby(sorted(folder.glob("*.h5")), key=lambda p: p.name.split("_")[0]):
        yield from ((Item(a), Item(b)) for a, b in itertools.combinations(group, 2))


def _twins(folder: Path) -> Pairs:
    """Consecutive files with the same inputs and margin and other numbers of layers or widths."""

    def key(path: Path) -> tuple[str, ...]:
        found = re.search(r"ladder-(\d+)_inp-\d+_layers-\d+_width-(.+)_margin", path.name)
        return found.groups() if found else ()

    files = sorted(folder.rglob("twin_*.nnet"), key=lambda p: (key(p), p.name))
    for _, group in itertools.groupby(files, key=key):
        yield from ((Item(a), Item(b)) for a, b in itertools.pairwise(group))


def _targets(folder: Path) -> Pairs:
    """Networks of Q values and the target copies stored beside them."""
    for path in sorted(folder.glob("dqn/**/*.zip")):
        yield Item(path, "q_net"), Item(path, "q_net_target")


def _exports(folder: Path) -> Pairs:
    """An NNet and an ONNX file of one name."""
    for path in sorted(folder.rglob("*.nnet")):
        if path.with_suffix(".onnx").exists():
            yield Item(path, bare=True), Item(path.with_suffix(".onnx"))
    for path in sorted(folder.rglob("bias_model.onnx")):
        yield Item(path), Item(path.with_name("model.onnx"))


def _across(models: Path) -> Pairs:
    """One network in several collections."""
    for path in sorted(models.glob("acasxu_nnet/nnet/*.nnet")):
        index = "_".join(path.stem.split("_")[2:4])
        exported = models / "acasxu_onnx" / f"ACASXU_experimental_v2a_{index}.onnx"
        cut = models / "nnequiv_pairs" / "benchmarks" / f"{path.stem}-trunc.onnx"
        if exported.exists():
            yield Item(path, bare=True), Item(exported)
        if exported.exists() and cut.exists():
            yield Item(cut), Item(exported)
    for path in sorted(models.glob("nnequivalence_h5/mnist8x8_student_*.h5")):
        yield Item(path), Item(models / "nnequiv_pairs" / "benchmarks" / f"{path.stem}-mirror.onnx")
    for path in sorted(models.glob("nnequiv_pairs/benchmarks/mnist8x8_student_*0.onnx")):
        yield Item(models / "nnequivalence_h5" / "mnist8x8_lin.h5"), Item(path)


GROUPS: dict[str, Callable[[Path], Pairs]] = {
    "nnequiv_pairs": _mirrored,
    "nnequivalence_h5": _versions,
    "marabou_twin": _twins,
    "sb3_zoo": _targets,
    "archcomp2023": _exports,
    "across folders": _across,
}
"""Folder: how its pairs are found from the names of its files."""


def decided(group: str, first: Item, second: Item) -> Row:
    """Load and compare one pair."""
    names = _names(first, second)
    try:
        (f, box), (g, other) = first.load(), second.load()
    except InputError as exc:
        return Row(group, names, "", None, 0.0, str(exc).removeprefix(f"{first.path}: "), "")
    widths = " / ".join(dict.fromkeys("-".join(map(str, net.widths)) for net in (f, g)))
    start = time.perf_counter()
    verdict = fs.equal(f, g, budget=BUDGET)
    seconds = time.perf_counter() - start
    box = box or other or fs.Box.parse("[0,1]" if f.widths[0] >= 64 else "[-1,1]", f.widths[0])
    distance = "" if verdict.answer is Answer.YES else _distance(f, g, box)
    return Row(group, names, widths, verdict, seconds, _proof(verdict, f, g), distance)


def _names(first: Item, second: Item) -> str:
    """Both names, the second without what it shares with the first; endings where the rest is the same."""
    a, b = str(first), str(second)
    if a == b:
        return f"{first.path.name}, …{second.path.suffix}"
    if second.part:
        return f"{a}, …{second.part}"
    shared = len(os.path.commonprefix([a, b]))
    cut = max(b.rfind(mark, 0, shared) for mark in "-_ ") + 1
    return f"{a}, {'…' + b[cut:] if cut > 8 else b}"


def _proof(verdict: Verdict, f: Network, g: Network) -> str:
    """The proof done again, in a few words."""
    if verdict.answer is Answer.UNDECIDED:
        return verdict.reason
    if verdict.answer is Answer.YES:
        if fs.check(verdict.certificate, f, g).answer is not Answer.YES:
            raise SystemExit(f"certificate refused: {f}, {g}")
        return "certificate accepted"
    found = verdict.counterexample
    if found.exact and f.exact(found.x) == g.exact(found.x):
        raise SystemExit(f"no difference at the counterexample: {f}, {g}")
    return f"differ by {abs(float(found.difference)):.1e}" + (
        "" if found.shows_in_dtype else ", hidden by the files' rounding"
    )


def _distance(f: Network, g: Network, box: fs.Box) -> str:
    try:
        bound = fs.distance(f, g, box, budget=DISTANCE_BUDGET)
    except FiberscopeError as exc:
        return f"none: {exc}"
    return f"{float(bound.lower):.1e} to {float(bound.upper):.1e}"


def line(*cells: object) -> str:
    """One row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |\n"


def summary(rows: list[Row]) -> str:
    """Totals by folder."""
    text = line("folder", "pairs", "YES", "NO", "UNDECIDED", "longest, s") + line(*["---"] * 6)
    for group in GROUPS:
        own = [row for row in rows if row.group == group and row.verdict is not None]
        if own:
            counts = [sum(row.answer == name for row in own) for name in ("YES", "NO", "UNDECIDED")]
            text += line(group, len(own), *counts, f"{max(row.seconds for row in own):.1f}")
    return text


def details(rows: list[Row]) -> str:
    """One table for each folder, and what could not be read."""
    text = ""
    for group in GROUPS:
        own = [row for row in rows if row.group == group and row.verdict is not None]
        if own:
            text += f"\n## {group}\n\n" + line("pair", "widths", "verdict", "method", "proof", "distance", "s")
            text += line(*["---"] * 7)
        for row in own:
            method = row.verdict.method if row.verdict is not None else ""
            text += line(row.names, row.widths, row.answer, method, row.proof, row.distance, f"{row.seconds:.1f}")
    unread = [f"* {row.names}: {row.proof}" for row in rows if row.verdict is None]
    return text + ("\nNot read, with the reason given:\n\n" + "\n".join(unread) + "\n" if unread else "")


def main() -> None:
    """Compare every pair, progress to stderr, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with the networks")
    parser.add_argument("target", type=Path, nargs="?", default=Path("docs/pairs.md"))
    parser.add_argument("--only", choices=GROUPS, help="only one folder's pairs")
    options = parser.parse_args()
    rows = []
    for group, find in GROUPS.items():
        if options.only in (None, group):
            for first, second in find(options.models if group == "across folders" else options.models / group):
                row = decided(group, first, second)
                print(f"{row.names}: {row.answer}, {row.seconds:.1f} s, {row.distance}", file=sys.stderr)
                rows.append(row)
    head = HEAD.format(budget=BUDGET, distance=DISTANCE_BUDGET)
    options.target.write_text(head + summary(rows) + details(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
