"""Fibers: which parameters compute the same function, and whether two networks do (after arXiv 2605.18319)."""

from fiberscope.fibers.equality import assert_equal, equal
from fiberscope.fibers.forms import Automorphisms, NormalForm, canonical, fingerprint
from fiberscope.fibers.witnesses import Counterexample

__all__ = ["Automorphisms", "Counterexample", "NormalForm", "assert_equal", "canonical", "equal", "fingerprint"]
