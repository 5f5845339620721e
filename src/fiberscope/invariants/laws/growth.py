"""The rank of a Lie algebra of fields at a generic point, modulo a prime, against a proved upper bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.elimination import Echelon
from fiberscope.autodiff.families import Family
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Residues
from fiberscope.invariants.orbits.methods import exact_rank
from fiberscope.results import Stopwatch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RankGrowth:
    """Ranks of the span of brackets of at most 1, 2, ... fields at one point.

    Args:
        ranks: by depth.
        stable: whether the last depth added nothing, which at a generic point ends the growth for good: a span over
            the rational functions that brackets with the family keep is the whole Lie algebra.
        stopped: why no further depth was tried, "" where the growth ended.
    """

    ranks: tuple[int, ...]
    stable: bool
    stopped: str = ""

    @property
    def rank(self) -> int:
        """The last rank."""
        return self.ranks[-1]


def lie_growth(
    family: Family,
    point: Array,
    ring: Residues,
    rng: np.random.Generator,
    *,
    ceiling: int,
    clock: Stopwatch,
    deepest: int = 8,
    seed: int = 0,
) -> RankGrowth:
    """Ranks at a generic point by bracket depth, until a depth adds nothing or the ceiling is met.

    Args:
        family: the fields.
        point: (N,) random residues.
        ring: residues modulo a prime.
        rng: draws the data.
        ceiling: proved upper bound of the rank.
        clock: ends the search before the next depth.
        deepest: largest depth.
        seed: of the formal jets.

    Complexity: (ceiling + 8) evaluations of the fields at 3^depth times their cost, and a rank modulo p, per depth.
    """
    jets = FormalJets(ring, seed)
    theta = Nilpotent(ring, {0: point[None, :]})
    ranks: list[int] = []
    space = Echelon(family.size, ring.prime)
    for depth in range(1, deepest + 1):
        if ranks and clock.expired:
            return RankGrowth(tuple(ranks), False, "the time was over")
        ranks.append(exact_rank(family, theta, depth, jets, rng, ceiling, space, clock))
        if clock.expired and ranks[-1] < ceiling:
            return RankGrowth(tuple(ranks), False, "the time was over")
        if ranks[-1] >= ceiling or ranks[-1] in ranks[:-1]:
            return RankGrowth(tuple(ranks), True)
    return RankGrowth(tuple(ranks), False, f"depth {deepest} was reached")
