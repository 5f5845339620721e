"""What `diagonal` answers: the staircase of the limit, its norm, and flows at finite scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.invariants.recovery.diagonals.flow import DiagonalFlow
from fiberscope.invariants.recovery.diagonals.growth import Growth, Weight
from fiberscope.invariants.recovery.diagonals.leastnorm import LeastNorm
from fiberscope.invariants.recovery.diagonals.limit import LimitPath, Stage
from fiberscope.results import Result, Rigor, jsonable

_LISTED = 400
"""Entries of a vector over all stages up to which `to_dict` writes vectors out."""
_DIGITS = 240
"""Characters up to which a rational is written exactly."""
_SAMPLES = 200
"""Samples of a flow that `to_dict` keeps."""
ONE_OF_SEVERAL = "only X k and the loss are determined: k, its support and its zeros are of one of several minimisers"
"""What k is where a stage does not determine it; the flow may end at another."""
ROUNDING = "only rounding of the data is left after stage {}: these stages fit it, and flows end before them"
"""What stages are whose residual floats as data explain."""


@dataclass(frozen=True, eq=False)
class Diagonal(Result):
    """What gradient flow of a diagonal network does from an infinitesimal start, and from finite ones.

    Args:
        samples, features, depth: n, d and L.
        growth: the growth times t+ and t-; math.inf where a coordinate never grows that way.
        path: the stages of the limit.
        norm: sum t+ k+ + t- k- of the last k.
        comparison: the weighted l1 linear program, solved apart from the path; None if it was not asked for or the
            budget ended it.
        flows: one for each finite scale.
        notes: ties, degenerate stages and rounded growth times, in words.
        fitted_after: number of stages after which floats as data are fitted as closely as they are rounded. The stages
            after it are true of the rationals that these floats are, and say nothing of what they stand for; flows end
            before them. None if no stage is of that kind.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"path", "flows", "growth", "comparison"})

    samples: int
    features: int
    depth: int
    growth: Growth
    path: LimitPath
    norm: Weight
    comparison: LeastNorm | None
    flows: tuple[DiagonalFlow, ...]
    notes: tuple[str, ...]
    rigor: Rigor
    theorems: tuple[str, ...] = ()
    fitted_after: int | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the limit, in order."""
        return self.path.stages

    @property
    def k(self) -> npt.NDArray[Any]:
        """(d,) coordinates at the end of the limit; one of several minimisers where the last stage is not `unique`."""
        return self.path.k

    @property
    def times(self) -> tuple[Weight, ...]:
        """When the loss drops, in units of `unit`."""
        return tuple(stage.time for stage in self.stages)

    @property
    def unit(self) -> str:
        """The unit of time of the limit."""
        return "log(1/s)" if self.depth == 2 else ("1/s" if self.depth == 3 else f"s^-{self.depth - 2}")

    @property
    def unique(self) -> bool:
        """Whether every stage determines k, not only X k."""
        return all(stage.unique for stage in self.stages)

    @property
    def agrees(self) -> bool | None:
        """Whether the linear program has the same value, and the same minimiser if it has only one; None without it."""
        other = self.comparison
        if other is None:
            return None
        if not self.path.exact:
            return bool(abs(float(other.value) - float(self.norm)) <= 1e-7 * (1.0 + abs(float(self.norm))))
        return other.value == self.norm and (not other.unique or bool((other.k == self.k).all()))

    @property
    def margin(self) -> float:
        """The least gap between the first coordinates to grow and the next, relative to the time of the wait.

        Growth times with errors well below it give the same stages. Infinite where nothing else would ever grow.
        """
        out = math.inf
        for stage in self.stages:
            meets = {abs(i) - 1 for i in stage.reached}
            rest = [w for i, w in enumerate(stage.waits) if i not in meets and w != math.inf]
            if rest:
                out = min(out, float((min(rest) - stage.duration) / stage.duration))
        return out

    def to_frame(self) -> dict[str, list[Any]]:
        """The staircase as columns of equal length, one row for each stage.

        >>> from fiberscope.invariants.recovery.diagonals.nets import diagonal
        >>> diagonal([[2.0, 1.0]], [2.0]).to_frame()["time"]
        [0.25]
        """
        return {
            "stage": list(range(1, len(self.stages) + 1)),
            "time": [float(s.time) for s in self.stages],
            "duration": [float(s.duration) for s in self.stages],
            "grown": [" ".join(f"{v:+d}" for v in s.reached) for s in self.stages],
            "support": [len(s.support) for s in self.stages],
            "loss": [float(s.loss) for s in self.stages],
            "unique": [s.unique for s in self.stages],
            "determines": [
                "k" if s.unique else "X k only: support is of one of several minimisers" for s in self.stages
            ],
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; vectors and long rationals are left out where they would fill the page."""
        out = super().to_dict()
        small = self.features * max(1, len(self.stages)) <= _LISTED
        other = self.comparison
        return out | {
            "norm": _number(self.norm),
            "unit": self.unit,
            "finished": self.path.finished,
            "exact": self.path.exact,
            "start_loss": _number(self.path.start_loss),
            "growth": {
                "plus": [_number(v) for v in self.growth.plus[:_LISTED]],
                "minus": [_number(v) for v in self.growth.minus[:_LISTED]],
                "error": self.growth.error,
                "method": self.growth.method,
            },
            "k": [_number(v) for v in self.k[:_LISTED]],
            "unique": self.unique,
            "fitted_after": self.fitted_after,
            "determined": "k" if not self.stages or self.stages[-1].unique else ONE_OF_SEVERAL,
            "margin": jsonable(self.margin),
            "stages": [_stage_dict(s, small) for s in self.stages[:_LISTED]],
            "comparison": None if other is None else {
                "value": _number(other.value),
                "unique": other.unique,
                "agrees": self.agrees,
                "k": [_number(v) for v in other.k[:_LISTED]],
            },
            "flows": [_flow_dict(f, self.features) for f in self.flows],
        }  # fmt: skip

    def __str__(self) -> str:
        """The staircase on one screen."""
        zeros = "theta_i = 0 for all others" if self.unique else "all others 0 unless marked *"
        lines = [
            f"Diagonal network: depth {self.depth}, {self.features} features, {self.samples} samples; start s -> 0",
            f"  stage  time/{self.unit:<9} grows        loss after     not 0 ({zeros})",
            f"  {0:>5}  {0:<14} {'':<12} {float(self.path.start_loss):<14.6g} none",
        ]
        for number, stage in enumerate(self.stages[:20], start=1):
            grows = " ".join(f"k{abs(v)}{'>' if v > 0 else '<'}0" for v in stage.reached[:3])
            time, loss, star = _short(stage.time), float(stage.loss), "" if stage.unique else " *"
            star += " ~" if self.fitted_after is not None and number > self.fitted_after else ""
            lines.append(f"  {number:>5}  {time:<14} {grows:<12} {loss:<14.6g} {names(stage.support)}{star}")
        if len(self.stages) > 20:
            lines.append(f"  ... {len(self.stages) - 20} more stages")
        if not self.unique:
            lines.append(f"  * {ONE_OF_SEVERAL}")
        if self.fitted_after is not None:
            lines.append(f"  ~ {ROUNDING.format(self.fitted_after)}")
        lines.append(f"  weighted l1 norm {_short(self.norm)}" + self._compared())
        if not self.path.finished:
            lines.append("  the budget ended before the last stage")
        for flow in self.flows:
            drops = ", ".join("-" if t is None else f"{t:.4f}" for t in flow.drops[:6])
            lines.append(
                f"  flow at s = {flow.scale}: loss drops at {drops} {self.unit}; ends with {flow.final_loss:.3g}"
                + ("" if flow.finished else f" at time {flow.times[-1]:.4g}, where the budget ended it")
            )
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  {self.rigor.value}")
        return "\n".join(lines)

    def _compared(self) -> str:
        other = self.comparison
        if other is None:
            return ""
        only = {True: "; the only minimiser", False: "; not the only minimiser", None: ""}[other.unique]
        return f"; linear program {_short(other.value)} ({'agrees' if self.agrees else 'DISAGREES'}{only})"


def names(indices: Sequence[int]) -> str:
    """Coordinates by their names, from k1 on.

    >>> names([0, 2])
    'k1, k3'
    """
    shown = ", ".join(f"k{i + 1}" for i in indices[:8])
    return (shown + f" and {len(indices) - 8} more") if len(indices) > 8 else (shown or "none")


def _short(value: Weight) -> str:
    if isinstance(value, Fraction) and len(str(value)) <= 14:
        return str(value)
    return f"{float(value):.6g}"


def _number(value: Any) -> Any:
    """As `jsonable`, but long rationals as their floats only."""
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > 3 * _DIGITS:
        return {"exact": None, "float": float(value)}
    return jsonable(value)


def _stage_dict(stage: Stage, full: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "time": _number(stage.time),
        "duration": _number(stage.duration),
        "reached": list(stage.reached),
        "support": list(stage.support),
        "loss": _number(stage.loss),
        "unique": stage.unique,
        "determined": "k" if stage.unique else ONE_OF_SEVERAL,
        "touching": list(stage.touching),
    }
    if full:
        vectors = {"pull": stage.pull, "waits": stage.waits, "level": stage.level, "k": stage.k}
        out |= {name: [_number(v) for v in vector] for name, vector in vectors.items()}
    return out


def _flow_dict(flow: DiagonalFlow, features: int) -> dict[str, Any]:
    kept = np.unique(np.linspace(0, flow.steps, min(_SAMPLES, flow.steps + 1)).astype(int))
    out: dict[str, Any] = {
        "scale": flow.scale,
        "log_scale": flow.log_scale,
        "drops": list(flow.drops),
        "predicted": list(flow.predicted),
        "spread": list(flow.spread),
        "tolerance": flow.tolerance,
        "finished": flow.finished,
        "steps": flow.steps,
        "final": jsonable(flow.final + 0.0),
        "final_loss": flow.final_loss,
        "times": jsonable(flow.times[kept]),
        "losses": jsonable(flow.losses[kept]),
    }
    if features <= 16:
        out["k"] = jsonable(flow.k[kept] + 0.0)
    return out
