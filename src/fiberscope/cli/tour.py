"""The guided tour: inspect and reduce a bundled network, check the result, write a page. Every number is computed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

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
        everywhere: inspection for all real inputs.
        on_pixels: inspection for pixel values in [0, 1].
        verdict: of the checker on the written file.
        files: what was written, the page first.
    """

    everywhere: Inspection
    on_pixels: Inspection
    verdict: Verdict
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The numbers of the tour; the page and `inspect --json` have everything."""
        reduction = self.on_pixels.reduction
        return {
            "network": self.everywhere.network.architecture,
            "hidden_before": self.everywhere.network.hidden_count,
            "hidden_everywhere": self.everywhere.reduction.network.hidden_count,
            "hidden_on_pixels": reduction.network.hidden_count,
            "widths_before": list(reduction.original.widths),
            "widths_after": list(reduction.network.widths),
            "rounding": reduction.rounding.to_dict(),
            "answer": self.verdict.answer.name,
            "reason": self.verdict.reason,
            "files": list(self.files),
            "theorems": list(dict.fromkeys((*self.on_pixels.theorems, *self.verdict.theorems))),
        }

    def __str__(self) -> str:
        """The tour in a few lines."""
        wide, narrow = self.everywhere, self.on_pixels
        original, small = narrow.network, narrow.reduction.network
        before, everywhere, after = (net.hidden_count for net in (original, wide.reduction.network, small))
        kinds = ", ".join(f"{row.count} {row.kind.replace('_', ' ')}" for row in narrow.reduction.removed)
        sim = wide.sim
        training = "" if sim is None else f"  training  {sim.meaning} (dimension {sim.dimension} of {sim.ambient})\n"
        return (
            f"{_NAME}: {original.architecture}, a digit classifier trained with L1 shrinkage\n"
            f"  inspect   {everywhere} of {before} hidden neurons are enough for all inputs, "
            f"{after} for pixels in {_DOMAIN}\n"
            f"  why       {kinds}\n"
            f"{training}"
            f"  reduce    {'-'.join(map(str, original.widths))} -> {'-'.join(map(str, small.widths))}, "
            f"{narrow.reduction.rounding}\n"
            f"  check     {self.verdict.answer.name}: {self.verdict.reason}\n"
            f"wrote {', '.join(self.files)}\n"
            f"next: open {self.files[0]} in a browser, or run: fiberscope inspect YOUR_MODEL.onnx --html report.html"
        )


def guided_tour(
    folder: str | Path,
    *,
    page: str | Path | None = None,
    force: bool = False,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Tour:
    """Run the tour in a folder, which is made if it is missing.

    Args:
        folder: where the network, the smaller one and its certificate go.
        page: where the page goes; "report.html" in the folder by default.
        force: overwrite files of an earlier tour.
        budget: seconds for each analysis.
        progress: called with (fraction or None, text).

    Raises:
        InputError: if a file of the tour exists already and `force` is not given.
    """
    place = Path(folder)
    html = Path(page) if page is not None else place / "report.html"
    original, small = place / _NAME, place / f"small-{_NAME}"
    proof = place / f"small-{_NAME}.certificate.json"
    for path in (html, original, small, proof):
        if path.exists() and not force:
            raise InputError(f"{path}: exists; use --force to overwrite it, or --out for another folder")
    place.mkdir(parents=True, exist_ok=True)
    atomic_write(original, (resources.files("fiberscope") / "data" / _NAME).read_bytes(), force)
    net = load(original)
    wide = inspect(net, budget=budget, progress=progress)
    narrow = inspect(net, _DOMAIN, budget=budget, progress=progress)
    certificate, _ = save_reduction(narrow.reduction, small, force=force, certificate=proof)
    verdict = check(certificate, load(original), load(small))
    atomic_write(html, report(narrow, title="fiberscope demo").encode("utf-8"), force)
    return Tour(wide, narrow, verdict, tuple(str(path) for path in (html, small, proof)))
