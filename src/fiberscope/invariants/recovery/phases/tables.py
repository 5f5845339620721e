"""Tables of a phase diagram: the runs of its cells, grids for heat maps, columns for data frames."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError
from fiberscope.results import Result, Rigor, jsonable

FloatArray = npt.NDArray[np.float64]

VALUES = ("fraction", "interpolating", "median_error", "median_loss", "median_steps")
"""What `PhaseDiagram.grid` shows."""
_COLUMNS = 12
_FRAMED = 1000
"""Cells up to which `to_dict` has the frame."""


@dataclass(frozen=True)
class PhaseCell:
    """The runs of one cell, one entry for each seed.

    Args:
        samples: number n of training points.
        width: hidden neurons.
        scale: standard deviation of the initial parameters.
        train: training losses at the end.
        test: mean squared errors on the test points.
        steps: accepted steps.
        binding: how many of them the cap on h |lambda_min| decided.
        sharpest: the largest h |lambda_min| of a step, None where the flow was explicit.
        reasons: why the runs ended.
        recovered: test error below which the target counts as recovered.
        floor: training loss at which the data count as interpolated.
    """

    samples: int
    width: int
    scale: float
    train: tuple[float, ...]
    test: tuple[float, ...]
    steps: tuple[int, ...]
    binding: tuple[int, ...]
    sharpest: tuple[float, ...] | None
    reasons: tuple[str, ...]
    recovered: float
    floor: float

    @property
    def fraction(self) -> float:
        """Share of the seeds that recovered the target."""
        return sum(e < self.recovered for e in self.test) / len(self.test)

    @property
    def interpolating(self) -> float:
        """Share of the seeds that interpolate their data."""
        return sum(e <= self.floor for e in self.train) / len(self.train)

    @property
    def median_error(self) -> float:
        """Median test error."""
        return float(np.median(self.test))

    @property
    def median_loss(self) -> float:
        """Median training loss."""
        return float(np.median(self.train))

    @property
    def median_steps(self) -> float:
        """Median number of steps."""
        return float(np.median(self.steps))


@dataclass(frozen=True, eq=False)
class PhaseDiagram(Result):
    """Recovery by samples, width and scale.

    Args:
        target: architecture of the target.
        digest: of the target.
        activation: of the trained networks.
        samples: numbers of training points, growing.
        widths: numbers of hidden neurons, growing.
        scales: standard deviations of initial parameters, growing.
        seeds: of the runs of each cell; a seed fixes the data and the initial direction.
        recovered: test error below which the target counts as recovered.
        cells: those that are finished, by scale, width and samples.
        complete: whether all are.
        reason: why not.
        failed: errors of cells, which the next call computes again.
        optimistic: optimistic sample size O_f of the target in these architectures, None where it is not known.
        optimistic_exact: whether that is exact, not only an upper bound.
        parameters: M for each width.
        notes: what a reader should know.
        trained: what is, in words.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"cells"})

    target: str
    digest: str
    activation: str
    samples: tuple[int, ...]
    widths: tuple[int, ...]
    scales: tuple[float, ...]
    seeds: tuple[int, ...]
    recovered: float
    cells: tuple[PhaseCell, ...]
    complete: bool
    reason: str
    failed: tuple[str, ...]
    optimistic: int | None
    optimistic_exact: bool
    parameters: dict[int, int]
    notes: tuple[str, ...] = ()
    rigor: Rigor = Rigor.SAMPLED
    theorems: tuple[str, ...] = ()
    trained: str = ""

    def grid(self, scale: float | None = None, value: str = "fraction") -> FloatArray:
        """A table (widths, samples) for a heat map; NaN where a cell is not finished.

        Args:
            scale: one of `scales`; the smallest if None.
            value: one of `VALUES`.

        Raises:
            InputError: for another scale or value.
        """
        chosen = self.scales[0] if scale is None else scale
        if chosen not in self.scales or value not in VALUES:
            raise InputError(f"scale {chosen:g}, value {value!r}; there are {self.scales} and {', '.join(VALUES)}")
        out = np.full((len(self.widths), len(self.samples)), np.nan)
        for cell in self.cells:
            if cell.scale == chosen:
                out[self.widths.index(cell.width), self.samples.index(cell.samples)] = getattr(cell, value)
        return out

    def threshold(self, width: int, scale: float | None = None, share: float = 0.5) -> int | None:
        """The least number of samples from which, in all finished cells on, at least this share of seeds recovers."""
        if width not in self.widths:
            raise InputError(f"width {width}; there are {self.widths}")
        row = self.grid(scale)[self.widths.index(width)]
        found: int | None = None
        for n, value in reversed(list(zip(self.samples, row.tolist(), strict=True))):
            if math.isnan(value):
                continue
            if value < share:
                break
            found = n
        return found

    def to_frame(self, *, runs: bool = False) -> dict[str, list[Any]]:
        """Columns of equal length: one row for each cell, or for each run."""
        rows = [row for cell in self.cells for row in (_run_rows(cell, self.seeds) if runs else [_cell_row(cell)])]
        for row in rows:
            row["parameters"] = self.parameters[row["width"]]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def to_csv(self, path: str | os.PathLike[str], *, runs: bool = False) -> None:
        """Write `to_frame` as a CSV file.

        Raises:
            InputError: if the file cannot be written.
        """
        frame = self.to_frame(runs=runs)
        try:
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(frame)
                writer.writerows(zip(*frame.values(), strict=True))
        except OSError as exc:
            raise InputError(f"{os.fspath(path)}: cannot be written: {exc.strerror or exc}") from exc

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: grids for drawings, and the frame by cells up to a thousand of them, to four digits."""
        data = super().to_dict()
        shown = ("fraction", "interpolating", "median_error")
        data["grids"] = [
            {"scale": scale, **{name: _short(self.grid(scale, name).tolist()) for name in shown}}
            for scale in self.scales
        ]
        data["frame"] = _short(self.to_frame()) if len(self.cells) <= _FRAMED else None
        data["thresholds"] = [
            {"scale": s, "width": m, "half": self.threshold(m, s), "all": self.threshold(m, s, 1.0)}
            for s in self.scales
            for m in self.widths
        ]
        return data

    def __str__(self) -> str:
        """One screen: fractions of seeds that recover."""
        known = "" if self.optimistic is None else f", O_f {'' if self.optimistic_exact else '<= '}{self.optimistic}"
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) != 1 else ''} a cell"
        article = "an" if self.target.startswith(("8", "11-", "18-")) else "a"
        lines = [
            f"recovery of {article} {self.target} target by {self.activation} networks, {seeds}{known} "
            f"({self.rigor.name})",
            *([f"  trained: {self.trained}"] if self.trained else []),
            f"  share of seeds with test error below {self.recovered:g}, by samples",
        ]
        pick = np.unique(np.linspace(0, len(self.samples) - 1, min(_COLUMNS, len(self.samples))).astype(int))
        for scale in self.scales[:4]:
            head = "".join(f"{self.samples[i]:>6}" for i in pick)
            lines.append(f"  scale {scale:<8g}     n ={head}   half from")
            for width, row in list(zip(self.widths, self.grid(scale), strict=True))[:10]:
                shown = "".join(f"{'-' if math.isnan(row[i]) else format(row[i], '.2f'):>6}" for i in pick)
                half = self.threshold(width, scale)
                label = f"m = {width}, M = {self.parameters[width]}"
                lines.append(f"  {label:>20}  {shown}   {'-' if half is None else half}")
        if not self.complete:
            total = len(self.samples) * len(self.widths) * len(self.scales)
            lines.append(f"  {len(self.cells)} of {total} cells finished; stopped: {self.reason or 'cells failed'}")
        lines += [f"  failed: {text}" for text in self.failed[:3]]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _short(value: Any) -> Any:
    """JSON-ready, floats to four digits."""
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return jsonable(float(f"{value:.4g}")) if isinstance(value, float) else jsonable(value)


def _cell_row(cell: PhaseCell) -> dict[str, Any]:
    return {
        "samples": cell.samples, "width": cell.width, "scale": cell.scale, "seeds": len(cell.test),
        **{name: getattr(cell, name) for name in VALUES}, "max_loss": max(cell.train), "binding": sum(cell.binding),
        "sharpest": None if cell.sharpest is None else max(cell.sharpest),
    }  # fmt: skip


def _run_rows(cell: PhaseCell, seeds: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"samples": cell.samples, "width": cell.width, "scale": cell.scale, "seed": seed, "train_loss": cell.train[k],
         "test_error": cell.test[k], "recovered": cell.test[k] < cell.recovered, "steps": cell.steps[k],
         "binding": cell.binding[k], "sharpest": None if cell.sharpest is None else cell.sharpest[k],
         "reason": cell.reasons[k]}
        for k, seed in enumerate(seeds)
    ]  # fmt: skip
