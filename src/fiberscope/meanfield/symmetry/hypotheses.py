"""The hypotheses of Propositions 3.2.1 and 3.2.2 of arXiv 2211.08771: what of them was measured, and what follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiberscope.arguments import as_floats
from fiberscope.errors import InputError
from fiberscope.meanfield.arguments import checked_function
from fiberscope.results import Assumption, Rigor

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Hypotheses:
    """Defects of the start and of the target, and how much of one still counts as invariant.

    Args:
        start: defect of the neurons at the start of training, None if not given.
        target: defect of the target, None if not given.
        tolerance: what counts as invariant.

    >>> Hypotheses(0.5, None, 1e-6).conclusion(False)
    'not invariant within 1e-06; neither is the start, so nothing was promised'
    """

    start: float | None
    target: float | None
    tolerance: float

    @property
    def broken(self) -> tuple[str, ...]:
        """What of the start and the target was checked and is not invariant."""
        seen = (("the start", self.start), ("the target", self.target))
        return tuple(name for name, defect in seen if self._holds(defect) is False)

    def cited(self, *keys: str) -> tuple[str, ...]:
        """These theorems, or none where a hypothesis is broken."""
        return () if self.broken else keys

    def assumptions(self, phrase: str, sign: int) -> tuple[Assumption, ...]:
        """The hypotheses for f* as `phrase` says and for (a, b) -> (sign a, T b)."""
        start = "the neurons at the start are invariant"
        held = [
            Assumption(f"{phrase} (on samples)", self.target is not None, self._holds(self.target)),
            Assumption(start, self.start is not None, self._holds(self.start)),
            Assumption("the input law is invariant under T, as U(S^{d-1}) is", False),
            Assumption("trained by the gradient flow of the population risk", False),
        ]
        if sign < 0:
            held.append(Assumption("the loss is the same for (-f, -f*) as for (f, f*), as the squared loss is", False))
        return tuple(held)

    def conclusion(self, invariant: bool) -> str:
        """What follows for a network that is or is not invariant."""
        within, broken = f"invariant within {self.tolerance:g}", self.broken
        if invariant and broken:
            return f"{within}, though {' and '.join(broken)} is not: training is no reason for it"
        if invariant:
            return f"{within}, as training from an invariant start keeps it"
        if broken:
            return f"not {within}; neither is {' nor '.join(broken)}, so nothing was promised"
        if self.start is None or self.target is None:
            return f"not {within}; the start or the target was not checked"
        return f"not {within} though start and target are: sampling, step size or rounding broke it"

    def _holds(self, defect: float | None) -> bool | None:
        return None if defect is None else defect <= self.tolerance


def target_defect(target: Any, maps: list[FloatArray], sign: int, points: FloatArray) -> float | None:
    """Largest |f*(T x) - sign f*(x)| over points and maps T, relative to the root mean square of f*; None without f*.

    Raises:
        InputError: for what is no function of points (n, d) with one number a row.

    >>> round(target_defect(lambda x: x[:, 0], [-np.eye(2)], 1, np.eye(2)) ** 2, 12)  # odd, not even
    8.0
    """
    if target is None:
        return None
    function = checked_function(target, "target")

    def valued(rows: FloatArray) -> FloatArray:
        found: FloatArray = as_floats(function(rows), "values of the target")
        if found.shape != (len(rows),):
            raise InputError(f"the target maps points {rows.shape} to {found.shape}; it must give one number a row")
        return found

    values = valued(points)
    size = float(np.sqrt(np.mean(values**2)))
    worst = max((float(np.abs(valued(points @ t.T) - sign * values).max()) for t in maps), default=0.0)
    return worst / size if size else worst


def screen(head: str, measured: Iterable[str], held: Iterable[Assumption], conclusion: str, rigor: Rigor) -> str:
    """The report of a check: what was checked, what was measured, hypotheses, conclusion, rigor.

    >>> print(screen("head", ["defect 0"], [Assumption("f* is odd", False)], "odd", Rigor.NUMERICAL))
    head
      defect 0
      hypothesis: f* is odd: not checked
      odd
      floating point, with the gap or error estimate shown
    """
    words = {True: "holds", False: "FAILS", None: "not checked"}
    stated = (f"hypothesis: {a.statement}: {words[a.holds]}" for a in held)
    return "\n  ".join([head, *measured, *stated, conclusion, rigor.value])
