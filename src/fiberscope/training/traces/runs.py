"""A watched run as a result: its measurements, a screen of them, and what they say in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError
from fiberscope.results import Result, Rigor, jsonable
from fiberscope.training.architectures.architecture import Architecture, Skipped
from fiberscope.training.drift.lawvalues import law_theorems
from fiberscope.training.drift.rules import UNKNOWN
from fiberscope.training.traces.records import Record, encoded

PREFIX = "fiberscope/"
TOGETHER = 1e-4
"""Neurons nearer than this part of their size are said to move together."""
TRUSTED = (0.75, 4 / 3)
"""Between these ratios of measured to predicted drift nothing is said."""
_SURE = 2.0
"""Standard errors of the prediction by which a ratio must be outside."""
_ROWS = 8
_LIMIT = 280_000
_COLUMNS = (
    ("sims/nearest_distance", "nearest", "{:.2e}"), ("sims/growth_exponent", "growth", "{:+.3g}"),
    ("sims/classes_numerical", "classes", "{:.0f}"), ("condensation/directions", "directions", "{:.0f}"),
    ("dead/on_data", "dead", "{:.0f}"), ("dead/every_input", "dead always", "{:.0f}"),
    ("laws/drift", "drift", "{:.2e}"), ("laws/predicted_drift", "predicted", "{:.2e}"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trace(Result):
    """A run as it was watched.

    Args:
        path: where it was read from; empty for a run watched without a file.
        version: of the library that wrote it.
        created: date and time of its first line.
        optimizer: the rule and its constants when they were first seen, None if never.
        every: steps between measurements; 0 if they were not regular.
        records: measurements, steps strictly increasing.
        populations: (name, number of neurons, kind).
        skipped: layers that are not understood, and why.
        torn: whether the last line was cut off, as by a crash.
        complete: whether the run was closed.
        error: what ended it, if it was an exception.
        overhead: part of the wall time spent on watching, None if the run was not closed.
        resumed: steps after which it was resumed.
        problems: what went wrong without ending the run, such as a logger that failed.
        notes: what was left out of measurements and predictions, and why.
        architecture: of the model.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"architecture"})

    path: str
    version: str
    created: str
    optimizer: Mapping[str, Any] | None
    every: int
    records: tuple[Record, ...]
    populations: tuple[tuple[str, int, str], ...]
    skipped: tuple[Skipped, ...]
    torn: bool
    complete: bool
    error: str | None = None
    overhead: float | None = None
    resumed: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    architecture: Architecture | None = None
    rigor: Rigor = Rigor.NUMERICAL

    @property
    def theorems(self) -> tuple[str, ...]:
        """What the measurements rest on: manifolds where there are any, laws where the model has any."""
        names = {name.removeprefix(PREFIX) for name in self.names}
        keys = ["symmetry-fixed-space"] if any(name.startswith("sims/") for name in names) else []
        if self.architecture is None or not self.architecture.laws or "laws/drift" not in names:
            return tuple(keys)
        keys += law_theorems(self.architecture)
        return (*keys, *(("balance-steps",) if "laws/predicted_drift" in names else ()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all scalars, in the order in which they first occur."""
        return tuple(dict.fromkeys(name for record in self.records for name in record.scalars))

    def series(self, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(steps, values) of a scalar, where it was finite; "fiberscope/" may be left out. Steps strictly increase.

        Raises:
            InputError: if no measurement has it.
        """
        key = name if name in self.names else PREFIX + name
        if key not in self.names:
            raise InputError(f"no scalar {name!r} in this trace; it has {', '.join(self.names) or 'none'}")
        found = [(r.step, v) for r in self.records if (v := r.scalars.get(key)) is not None]
        return np.array([s for s, _ in found], dtype=np.int64), np.array([v for _, v in found], dtype=np.float64)

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of equal length, for `pandas.DataFrame`: step, time and every scalar, NaN where there is none."""
        out: dict[str, list[Any]] = {"step": [r.step for r in self.records], "time": [r.time for r in self.records]}
        for name in self.names:
            values = [r.scalars.get(name) for r in self.records]
            out[name] = [math.nan if v is None else v for v in values]
        return out

    def last(self, name: str) -> float | None:
        """The newest finite value of a scalar, None without one; "fiberscope/" may be left out."""
        for record in reversed(self.records):
            for key in (name, PREFIX + name):
                if (value := record.scalars.get(key)) is not None:
                    return value
        return None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the last measurements say, in words."""
        return tuple([*_nonfinite(self), *_together(self), *_dead(self), *_drifting(self)])

    def thinned(self, count: int) -> Trace:
        """The same with at most `count` measurements, the first and the last among them.

        Raises:
            InputError: if count is less than 2.
        """
        if count < 2:
            raise InputError(f"{count} measurements; keep at least 2")
        if len(self.records) <= count:
            return self
        kept = np.unique(np.linspace(0, len(self.records) - 1, count).round().astype(int))
        return replace(self, records=tuple(self.records[k] for k in kept))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, less than 300 kB: fewer measurements of long runs, "measurements" says of how many."""
        sample = max((len(encoded(self.records[k].to_dict())) for k in (0, -1)), default=1) if self.records else 1
        count = max(2, min(len(self.records), 2 * _LIMIT // sample))
        while True:
            out = self._document(count)
            if count <= 2 or len(json.dumps(out, allow_nan=False)) < _LIMIT:
                return out
            count //= 2

    def _document(self, count: int) -> dict[str, Any]:
        few = self.thinned(count)
        out = {**Result.to_dict(replace(few, records=())), "measurements": len(self.records)}
        out["theorems"] = list(self.theorems)
        out["records"] = [jsonable(replace(r, histograms={}).to_dict()) for r in few.records]
        for name in ("populations", "skipped", "problems"):
            out[name] = out[name][:500]
        out["warnings"] = list(self.warnings)
        return out

    def __str__(self) -> str:
        """One screen."""
        lines = [self._title()]
        if self.optimizer:
            lines.append(f"  {_rule_text(self.optimizer)}")
        lines += _table(self)
        warnings = self.warnings
        lines += [f"  ! {text}" for text in warnings[:8]]
        if len(warnings) > 8:
            lines.append(f"  ! and {len(warnings) - 8} more warnings")
        for text in self.problems[:4]:
            lines.append(f"  problem: {text}")
        lines += [f"  note: {text}" for text in self.notes[:4]]
        for row in self.skipped[:6]:
            lines.append(f"  skipped {row.name}: {row.reason}")
        if len(self.skipped) > 6:
            lines.append(f"  and {len(self.skipped) - 6} more skipped")
        return "\n".join(lines)

    def _title(self) -> str:
        neurons = sum(count for _, count, _ in self.populations)
        said = f"{self.path or 'a run'}: {_number(len(self.records), 'measurement')}"
        if self.records:
            said += f", steps {self.records[0].step} to {self.records[-1].step}"
        said += f"; {_number(neurons, 'neuron')} in {_number(len(self.populations), 'population')}"
        if self.error is not None:
            said += f"; ended by {self.error}"
        elif not self.complete:
            said += "; not closed, so it still runs or was killed"
        if self.torn:
            said += " (its last line is torn)"
        if self.overhead is not None:
            said += f"; watching took {100 * self.overhead:.{0 if self.overhead >= 0.1 else 1}f}% of the time"
        return said


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _rule_text(optimizer: Mapping[str, Any]) -> str:
    text = str(optimizer.get("name", "unknown optimiser"))
    if optimizer.get("note") and text == UNKNOWN:
        return f"{text}: {optimizer['note']}"
    rate, decay = optimizer.get("lr"), optimizer.get("weight_decay")
    text += f" of rate {rate:g}" if isinstance(rate, int | float) else ""
    return text + (f", weight decay {decay:g}" if isinstance(decay, int | float) and decay else "")


def _table(trace: Trace) -> list[str]:
    if not trace.records:
        return ["  nothing was measured"]
    loss = next((name for name in trace.names if "loss" in name and not name.startswith(PREFIX)), None)
    columns = [(loss, loss.rpartition("/")[2], "{:.4g}")] if loss else []
    columns += [(PREFIX + name, title, form) for name, title, form in _COLUMNS if PREFIX + name in trace.names]
    widths = [max(10, len(title) + 1) for _, title, _ in columns]
    lines = ["  " + f"{'step':>9}" + "".join(f"{c[1]:>{w}}" for c, w in zip(columns, widths, strict=True))]
    for record in trace.thinned(_ROWS).records:
        row = f"  {record.step:>9}"
        for (name, _, form), width in zip(columns, widths, strict=True):
            value = record.scalars.get(name)
            row += f"{'-' if value is None else form.format(value):>{width}}"
        lines.append(row)
    return lines


def _nonfinite(trace: Trace) -> list[str]:
    bad = [r for r in trace.records if "finite" in r.reason]
    return [f"from step {bad[0].step}: {bad[0].reason}"] if bad else []


def _together(trace: Trace) -> list[str]:
    """Neurons at a manifold, and whether they leave it."""
    out = []
    for row in trace.records[-1].nearest[:3] if trace.records else ():
        relative, neurons, rate = row.get("apart"), row.get("neurons"), row.get("exponent")
        if not isinstance(relative, float | int) or not isinstance(neurons, list | tuple) or not neurons:
            continue
        grows = isinstance(rate, float) and rate > 0
        if relative > TOGETHER and not grows:
            continue
        name = str(row.get("population", "?"))
        where = f"layer {name!r}" if name.isdecimal() else name  # a number alone reads as one
        if row.get("kind") == "null":
            said = f"neuron {neurons[0]} of {where} has only zeros, up to {relative:.1g} of the others' size"
        else:
            sign = " with opposite signs" if row.get("kind") == "flip" else ""
            verb = "move together" if relative <= TOGETHER else "moved together and separate"
            said = f"neurons {neurons[0]} and {neurons[-1]} of {where} {verb}{sign}"
            said += f" ({relative:.1g} of their size apart)"
        if grows:
            said += f", the distance grows like exp({rate:.3g} step) since step {row.get('since', '?')}"
        out.append(said)
    return out


def _dead(trace: Trace) -> list[str]:
    """Dead units, by population where the last measurement has a table."""
    table = next((r.layers for r in reversed(trace.records) if r.layers), {})
    keys = ("dead/on_data", "dead/every_input", "dead/units")
    rows = [(name, *(row.get(key) for key in keys)) for name, row in table.items()]
    out = []
    for name, on_data, always, count in rows:
        if on_data or always:
            out.append(_dead_text(on_data, always, f" of {name}", count))
    if not out and (trace.last("dead/on_data") or trace.last("dead/every_input")):
        out.append(_dead_text(trace.last("dead/on_data"), trace.last("dead/every_input"), "", trace.last("dead/units")))
    return out


def _dead_text(on_data: Any, always: Any, where: str, count: Any) -> str:
    of = f" of {count:.0f}" if isinstance(count, int | float) else ""
    if on_data is None:
        return f"{always:.0f}{of} units{where} dead for every input"
    return f"{on_data:.0f}{of} units{where} dead on the data" + (f", {always:.0f} for every input" if always else "")


def _ratio_error(trace: Trace) -> float:
    """Standard error of the last ratio of drift and prediction, from the laws' rows; infinite if it is not known.

    0 if the rows do not say.
    """
    rows = next((r.laws for r in reversed(trace.records) if r.laws), ())
    numbers = [(row.get("error"), row.get("predicted")) for row in rows]
    if any(e is None and isinstance(p, int | float) and p for e, p in numbers):
        return math.inf  # one sample in a long interval: nothing is known of what lies between
    known = [(e, p) for e, p in numbers if isinstance(e, int | float) and isinstance(p, int | float)]
    return math.hypot(*(e for e, _ in known)) / max(math.hypot(*(p for _, p in known)), 1e-300) if known else 0.0


def _drifting(trace: Trace) -> list[str]:
    drift, predicted = trace.last("laws/drift"), trace.last("laws/predicted_drift")
    ratio = trace.last("laws/ratio")
    if ratio is None or drift is None or predicted is None:
        return []
    doubt = _SURE * _ratio_error(trace)
    if ratio + doubt >= TRUSTED[0] and ratio - doubt <= TRUSTED[1]:
        return []
    name = str((trace.optimizer or {}).get("name", "the optimiser"))
    return [
        f"conserved quantities drifted by {drift:.2g}, {ratio:.3g} times what {name} explains ({predicted:.2g}): "
        "the steps between measurements differ much (drift_every=1 looks at all), another rule is at work, the loss is "
        "no function of the output alone, or a layer is mislabelled"
    ]
