"""What ranks of parameter derivatives say: at a parameter, at data, and whether the two agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fiberscope.invariants.orbits.spans import GAP
from fiberscope.results import Result, Rigor


def trained_parts(bias: bool, output_bias: bool) -> str:
    """What is trained, in words.

    >>> trained_parts(True, False), trained_parts(False, False)
    ('weights and hidden biases, no output biases', 'weights, no biases')
    """
    if bias and output_bias:
        return "weights, hidden biases and output biases"
    if not bias and not output_bias:
        return "weights, no biases"
    kept, left = ("hidden", "output") if bias else ("output", "hidden")
    return f"weights and {kept} biases, no {left} biases"


@dataclass(frozen=True, eq=False)
class ModelRank(Result):
    """The model rank at one parameter.

    Args:
        rank: dim span {d f / d theta_i}.
        parameters: M, the trained ones.
        method: "classes", "formula", "lattice", "residues" or "svd".
        rigor: EXACT; GENERIC for residues at random data (a proved lower bound that holds with probability almost 1);
            NUMERICAL for singular values.
        gap: (kept, dropped), the smallest singular value kept and the largest dropped, relative; None for exact ranks.
        classes: of live hidden neurons (equal up to what the activation forgives), None where there are none.
        quiet: hidden neurons without inputs.
        formula: how the rank comes about.
        note: what the number does not say.
        lower: whether it is only a lower bound, as singular values are where inputs may miss regions.
        trained: what counts as a parameter of a `Network`, in words; "" for models that have nothing to choose.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"classes"})

    rank: int
    parameters: int
    method: str
    rigor: Rigor
    gap: tuple[float, float] | None = None
    classes: tuple[tuple[int, ...], ...] | None = None
    quiet: tuple[int, ...] = ()
    formula: str = ""
    note: str = ""
    lower: bool = False
    theorems: tuple[str, ...] = ()
    trained: str = ""

    @property
    def clear(self) -> bool:
        """Whether the rank leaves no doubt: exact, or a gap of at least 1e3 and no lower bound only."""
        return not self.lower and self._gapped

    @property
    def _gapped(self) -> bool:
        return self.gap is None or self.rank == 0 or self.gap[0] >= GAP * self.gap[1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: the number of classes and their largest sizes."""
        out = super().to_dict()
        sizes = None if self.classes is None else sorted(map(len, self.classes), reverse=True)
        out["class_count"] = None if sizes is None else len(sizes)
        out["class_sizes"] = None if sizes is None else sizes[:1000]
        out["clear"] = self.clear
        return out

    def __str__(self) -> str:
        """One screen."""
        least = "at least " if self.lower else ""
        lines = [
            f"model rank {least}{self.rank:,} of {self.parameters:,} parameters ({self.rigor.name}, {self.method})"
        ]
        if self.trained:
            lines.append(f"  trained: {self.trained}")
        if self.formula:
            lines.append(f"  {self.formula}")
        if self.gap is not None:
            doubt = "" if self._gapped else "; no clear gap, so the rank is doubtful"
            lines.append(f"  singular values {self.gap[0]:.1e} | {self.gap[1]:.1e}{doubt}")
        if self.note:
            lines.append(f"  {self.note}")
        lines.append("  a local count: so many generic data determine the linearised problem at this parameter")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class EmpiricalRank(Result):
    """Rank of the derivatives at given inputs.

    Args:
        rank: of the derivatives at the data, at most min(rows, M).
        rows: numbers observed: samples times outputs.
        parameters: M.
        rigor: EXACT or NUMERICAL.
        gap: as in `ModelRank`.
    """

    rank: int
    rows: int
    parameters: int
    rigor: Rigor
    gap: tuple[float, float] | None = None
    theorems: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        gap = "" if self.gap is None else f"; singular values {self.gap[0]:.1e} | {self.gap[1]:.1e}"
        return f"rank {self.rank} at {self.rows} data, {self.parameters} parameters ({self.rigor.name}){gap}"


@dataclass(frozen=True, eq=False)
class LocalRecovery(Result):
    """Whether data determine the linearised problem at a parameter: rank at the data = model rank.

    Args:
        recoverable: whether the two ranks agree.
        empirical: the rank at the data.
        model: the model rank.
        rigor: the weaker of the two.
    """

    recoverable: bool
    empirical: EmpiricalRank
    model: ModelRank
    rigor: Rigor
    theorems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether it is recoverable."""
        return self.recoverable

    def __str__(self) -> str:
        """One line."""
        word = "recoverable" if self.recoverable else "not recoverable"
        least = "at least " if self.model.lower else ""
        return (
            f"{word} to first order: rank {self.empirical.rank} at {self.empirical.rows} data, model rank "
            f"{least}{self.model.rank} ({self.rigor.name}); local, and no statement about training"
        )
