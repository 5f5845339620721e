"""Invariants of training: structural invariant manifolds (arXiv 2510.09564)."""

from fiberscope.invariants.smallest import SmallestSIM, smallest_sim

__all__ = ["SmallestSIM", "smallest_sim"]
