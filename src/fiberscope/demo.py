"""The guided tour: inspect and reduce a bundled network, check the result, write a page. Every number is computed."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fiberscope.certificates import check
from fiberscope.errors import InputError
from fiberscope.inspection import Inspection, inspect
from fiberscope.io import load
from fiberscope.io.files import atomic_write
from fiberscope.io.reduced import save_reduction
from fiberscope.pages import report
from fiberscope.results import Budget, Progress, Result, Verdict

_NAME = "digits-mlp.safetensors"
_DOMAIN = "[0,1]"


@dataclass(frozen=True, eq=False)
class Tour(Result):
    """What the demo did and where it wrote.

    Args:
        folder: the folder with everything.
        everywhere: inspection for all real inputs.
        on_pixels: inspection for pixel values in [0, 1].
        verdict: of the checker on the written file.
        files: what was written.
        wall_s: seconds.
    """

    folder: str
    everywhere: Inspection
    on_pixels: Inspection
    verdict: Verdict
    files: tuple[str, ...]
    wall_s: float

    def __str__(self) -> str:
        """The tour in a few lines."""
        wide, narrow = self.everywhere, self.on_pixels
        original, small = narrow.network, narrow.reduction.network
        kinds = ", ".join(f"{row.count} {row.kind.replace('_', ' ')}" for row in narrow.reduction.removed)
        sim = wide.sim
        training = "" if sim is None else f"  training  {sim.meaning} (dimension {sim.dimension} of {sim.ambient})\n"
        return (
            f"{_NAME}: {original.architecture}, a digit classifier trained with L1 shrinkage\n"
            f"  inspect   for all inputs {original.hidden_count} -> {wide.reduction.network.hidden_count} hidden neurons "
            f"matter; for pixels in {_DOMAIN} {small.hidden_count}\n"
            f"  why       {kinds}\n"
            f"{training}"
            f"  reduce    {'-'.join(map(str, original.widths))} -> {'-'.join(map(str, small.widths))}, "
            f"{narrow.reduction.rounding}\n"
            f"  check     {self.verdict.answer.name}: {self.verdict.reason}\n"
            f"wrote {', '.join(self.files)}\n"
            f"next: open {self.files[0]} in a browser, or run: fiberscope inspect YOUR_MODEL.onnx --html report.html"
        )


def guided_tour(
    folder: str | Path, *, force: bool = False, budget: Budget | float | None = None, progress: Progress | None = None
) -> Tour:
    """Run the tour in a folder, which is made if it is missing.

    Args:
        folder: where the page, the network, the smaller one and the certificate go.
        force: overwrite files of an earlier tour.
        budget: seconds for each analysis.
        progress: called with (fraction or None, text).

    Raises:
        InputError: if a file of the tour exists already and `force` is not given.
    """
    begin, place = time.perf_counter(), Path(folder)
    page, original, small = place / "report.html", place / _NAME, place / f"small-{_NAME}"
    for path in (page, original, small):
        if path.exists() and not force:
            raise InputError(f"{path}: exists; use --force to overwrite it, or --out for another folder")
    place.mkdir(parents=True, exist_ok=True)
    with resources.as_file(resources.files("fiberscope") / "data" / _NAME) as bundled:
        shutil.copyfile(bundled, original)
    net = load(original)
    wide = inspect(net, budget=budget, progress=progress)
    narrow = inspect(net, _DOMAIN, budget=budget, progress=progress)
    certificate, _ = save_reduction(narrow.reduction, small, force=force)
    verdict = check(certificate, load(original), load(small))
    atomic_write(page, report(narrow, narrow.reduction, title="fiberscope demo").encode("utf-8"), force)
    files = tuple(str(path) for path in (page, small, f"{small}.certificate.json"))
    return Tour(str(place), wide, narrow, verdict, files, time.perf_counter() - begin)
