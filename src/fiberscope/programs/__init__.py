"""Linear and mixed-integer programs that propose what exact arithmetic then proves: a solver's word is only a hint."""

from fiberscope.programs.exact import combination, strict_solution
from fiberscope.programs.polyhedra import Cut, Polyhedron, inner_point
from fiberscope.programs.proposals import propose_witnesses
from fiberscope.programs.stability import tighten_unstable

__all__ = [
    "Cut", "Polyhedron", "combination", "inner_point", "propose_witnesses", "strict_solution", "tighten_unstable",
]  # fmt: skip
