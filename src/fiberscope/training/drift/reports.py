"""What is reported of the drift of conserved quantities: one row for each law, and one number of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.results import Result, Rigor, jsonable

Array = npt.NDArray[np.float64]
Basis = Literal["law", "rule", "decay", "none"]

_TINY = 1e-300


@dataclass(frozen=True)
class LawDrift:
    """One law of a run. Sizes are root mean squares over its neurons, each relative to its own scale, see `scales`.

    Args:
        name: of the law.
        count: independent numbers it stands for.
        drift: |Q - Q_0|.
        predicted: |P - Q_0|, P the prediction; None if there is none, as without an optimiser.
        unexplained: |Q - P|, None without a prediction.
        ratio: <Q - Q_0, P - Q_0> / |P - Q_0|^2, 1 if the prediction is right; None if it is below rounding.
        error: standard error of the prediction from sampling; 0 if every step was seen, None if it cannot be estimated
            yet: one sample for several steps says nothing of how much they differ.
        largest: largest drift of one neuron, or one entry of a matrix, relative to its own scale.
        basis: what the prediction rests on: the law, the step of the rule, decay alone, or nothing.
    """

    name: str
    count: int
    drift: float
    predicted: float | None
    unexplained: float | None
    ratio: float | None
    error: float | None
    largest: float
    basis: Basis


@dataclass(frozen=True, eq=False)
class DriftReport(Result):
    """Drift of all laws: the largest of each size over the laws, and one ratio for all.

    Args:
        step: of the last observation.
        steps: since the first.
        count: independent numbers watched.
        drift: largest `LawDrift.drift`.
        predicted: largest `LawDrift.predicted`, None if no law has a prediction.
        unexplained: largest `LawDrift.unexplained`, likewise.
        ratio: sum over laws of <drift, prediction> / sum of |prediction|^2, every law with the same weight.
        ratio_error: its standard error from sampling, None without a ratio or while it cannot be estimated.
        floor: what rounding of the parameters alone may do, eps * sqrt(steps + 1).
        exact: whether every step was observed.
        laws: one row for each law.
        notes: what is left out of the prediction, and why.

    "Relative" drifts are over the laws' scales at the start, see `scales`: |u|^2 + |v|^2 for |u|^2 - |v|^2.
    """

    step: int
    steps: int
    count: int
    drift: float
    predicted: float | None
    unexplained: float | None
    ratio: float | None
    ratio_error: float | None
    floor: float
    exact: bool
    laws: tuple[LawDrift, ...]
    notes: tuple[str, ...] = ()
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ()

    def scalars(self) -> dict[str, float]:
        """What loggers show, `fiberscope/laws/...`; prediction and ratio only where there are any."""
        found = {
            "count": float(self.count),
            "drift": self.drift,
            "predicted_drift": self.predicted,
            "unexplained": self.unexplained,
            "ratio": self.ratio,
        }
        return {f"fiberscope/laws/{name}": value for name, value in found.items() if value is not None}

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-ready row for each law."""
        keys = ("name", "drift", "predicted", "unexplained", "ratio", "error", "largest", "basis")
        return [{key: jsonable(getattr(law, key)) for key in keys} for law in self.laws]

    def __str__(self) -> str:
        """One screen."""
        ratio = "below rounding" if self.ratio is None else f"{self.ratio:.3f}"
        spread = f" +- {self.ratio_error:.3f}" if self.ratio_error else ""
        said = f"{self.count} conserved quantities over {self.steps} steps: drift {self.drift:.2e}, "
        if self.predicted is None or self.unexplained is None:
            said += "nothing predicted"
        else:
            said += f"predicted {self.predicted:.2e}, unexplained {self.unexplained:.2e}, "
            said += f"drift / prediction {ratio}{spread}"
        lines = [said]
        for law in self.laws[:12]:
            part = "-" if law.ratio is None else f"{law.ratio:.3f}"
            if law.predicted is None:
                lines.append(f"  {law.name}: drift {law.drift:.2e}, not predicted")
                continue
            lines.append(f"  {law.name}: drift {law.drift:.2e}, predicted {law.predicted:.2e} ({law.basis}), {part}")
        if len(self.laws) > 12:
            lines.append(f"  and {len(self.laws) - 12} more")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def law_drift(
    name: str,
    count: int,
    arrays: tuple[Array, Array, Array, Array, Array],
    *,
    whole: bool,
    floor: float,
    basis: Basis,
) -> tuple[LawDrift, tuple[float, float, float]]:
    """The row of a law, and its part of the pooled ratio: <drift, prediction>, |prediction|^2, variance.

    Args:
        name: of the law.
        count: independent numbers it stands for.
        arrays: Q_0, magnitudes at the start, Q, P and the variance of P, all of one shape.
        whole: whether they are symmetric matrices.
        floor: drifts below are rounding.
        basis: what the prediction rests on.
    """
    start, size, now, predicted, variance = arrays
    scale, rows = scales(size, whole)
    moved, shift = (now - start) / scale, (predicted - start) / scale
    along, square = float(np.sum(moved * shift)) / rows, float(np.sum(shift * shift)) / rows
    spread = float(np.sum(variance / scale**2)) / rows
    row = LawDrift(
        name=name,
        count=count,
        drift=float(np.sum(moved * moved) / rows) ** 0.5,
        predicted=square**0.5,
        unexplained=float(np.sum((moved - shift) ** 2) / rows) ** 0.5,
        ratio=along / square if square**0.5 > floor else None,
        error=spread**0.5 if np.isfinite(spread) else None,
        largest=float(np.max(np.abs(moved), initial=0.0)),
        basis=basis,
    )
    return row, (along, square, spread)


def scales(size: Array, whole: bool) -> tuple[Array, int]:
    """What the drift of every entry is relative to, and the number of neurons.

    For a neuron its magnitude at the start, or the mean of its law where that is larger: neither one huge neuron nor
    many tiny ones drown the others. For an entry of a matrix the root of the product of its two neurons' scales.

    Args:
        size: magnitudes at the start, of the law's shape.
        whole: whether they are matrices.

    >>> scales(np.array([1.0, 5.0]), False)
    (array([3., 5.]), 2)
    """
    own = np.diagonal(size, axis1=-2, axis2=-1) if whole else size
    own = np.maximum(np.maximum(own, np.mean(own)) if own.size else own, _TINY)
    return (np.sqrt(own[..., :, None] * own[..., None, :]) if whole else own), max(own.size, 1)


def pooled(parts: Sequence[tuple[float, float, float]], floor: float) -> tuple[float | None, float | None]:
    """The ratio of all laws and its standard error; None if the prediction is below rounding.

    >>> pooled([(2.0, 1.0, 0.0), (1.0, 2.0, 0.0)], 1e-7)
    (1.0, 0.0)
    """
    along, square, spread = (sum(column) for column in zip(*parts, strict=True)) if parts else (0.0, 0.0, 0.0)
    if not square**0.5 > floor:
        return None, None
    return along / square, (spread / square) ** 0.5 if np.isfinite(spread) else None
