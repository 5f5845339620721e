"""Fibers: which parameters compute the same function, and whether two networks do (after arXiv 2605.18319)."""

from fiberscope.fibers.alignment import Alignment, align
from fiberscope.fibers.distances import Bound, distance
from fiberscope.fibers.equality import assert_equal, equal
from fiberscope.fibers.forms import NormalForm, canonical, fingerprint
from fiberscope.fibers.members import Fiber, fiber
from fiberscope.fibers.witnesses import Counterexample
from fiberscope.symmetries.automorphisms import Automorphisms

__all__ = [
    "Alignment", "Automorphisms", "Bound", "Counterexample", "Fiber", "NormalForm", "align", "assert_equal",
    "canonical", "distance", "equal", "fiber", "fingerprint",
]  # fmt: skip
