"""What the search for an orbit returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.results import Result, Rigor

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What one method found.

    Args:
        method: "flow", "transport", "exact" or "brackets" (at theta itself).
        dimension: rank found.
        growth: ranks by bracket depth 1, 2, ...
        kept: smallest singular value kept, relative to the largest; None for exact ranks.
        dropped: largest one dropped.
        clear: whether the gap leaves no doubt (exact ranks: always).
        rigor: EXACT for a rank modulo a prime of the model's own fields, GENERIC for formal jets, else NUMERICAL.
        note: what the number means.
    """

    method: str
    dimension: int
    growth: tuple[int, ...]
    kept: float | None
    dropped: float | None
    clear: bool
    rigor: Rigor
    note: str


@dataclass(frozen=True, eq=False)
class Orbit(Result):
    """The orbit of theta under all gradient fields grad_theta <c, F(theta)(x)>: what gradient flow can reach.

    Args:
        dimension: of the orbit; of a generic point for at="generic".
        ambient: number M of trained parameters.
        rigor: EXACT where a rank modulo a prime meets a proved upper bound, INTERVAL where a rank certified in ball
            arithmetic does, GENERIC where random derivatives stand for those of the activation, else NUMERICAL.
        is_lower_bound: no gap, or methods that disagree: the dimension is at least this.
        upper: the least proved upper bound, and `upper_reason` why it holds.
        certified: whether the lower bound meets the proved upper bound.
        order: bracket depth at which the brackets at theta itself span the tangent space, None if they did not.
        growth: ranks by depth at theta itself.
        gap: (smallest singular value kept, largest dropped), relative; None for exact ranks.
        estimates: what each method found.
        tangent: orthonormal basis of the tangent space at theta, (M, dimension), None where it was not computed.
        at: "theta" or "generic".
        notes: what a reader should know.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"tangent"})

    model: str
    dimension: int
    ambient: int
    rigor: Rigor
    is_lower_bound: bool
    upper: int
    upper_reason: str
    certified: bool
    order: int | None
    growth: tuple[int, ...]
    gap: tuple[float, float] | None
    estimates: tuple[Estimate, ...]
    at: str
    notes: tuple[str, ...] = ()
    theorems: tuple[str, ...] = ()
    tangent: FloatArray | None = field(default=None, repr=False)

    @property
    def codimension(self) -> int:
        """M - dimension. Not a number of conservation laws: those need the dimension nearby (`conserved`)."""
        return self.ambient - self.dimension

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**super().to_dict(), "codimension": self.codimension}

    def __str__(self) -> str:
        """One screen."""
        sign = ">= " if self.is_lower_bound else ""
        where = "a generic point" if self.at == "generic" else "this point"
        lines = [
            f"orbit of {self.model} at {where}: dimension {sign}{self.dimension} of {self.ambient} ({self.rigor.name})"
        ]
        if self.certified:
            lines.append(f"  certified: the lower bound meets the upper bound {self.upper} ({self.upper_reason})")
        else:
            lines.append(f"  proved upper bound: {self.upper} ({self.upper_reason})")
        for e in self.estimates:
            gap = (
                ""
                if e.kept is None
                else f", singular values kept >= {e.kept:.1e}, "
                + (f"dropped <= {e.dropped:.1e}" if e.dropped else "none dropped")
            )
            depth = f", ranks by bracket depth {', '.join(map(str, e.growth))}" if e.growth else ""
            lines.append(f"  {e.method}: {sign}{e.dimension}{depth}{gap}{'' if e.clear else '; ' + e.note}")
        if self.order is not None and self.at == "theta":
            lines.append(f"  brackets of depth {self.order} at the point itself span the tangent space")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])
