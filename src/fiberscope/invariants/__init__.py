"""Invariants of training: orbits, invariant manifolds and conservation laws (arXiv 2510.09564, 2307.00144)."""

from fiberscope.invariants.classes.smallest import SmallestSIM, smallest_sim
from fiberscope.invariants.dynamics.reduced import ReducedNetwork, reduced_network
from fiberscope.invariants.laws.counting import Conserved, conserved
from fiberscope.invariants.manifolds.architectures import Sims, sims
from fiberscope.invariants.orbits import Orbit, orbit
from fiberscope.invariants.submanifolds.invariance import is_invariant

__all__ = [
    "Conserved",
    "Orbit",
    "ReducedNetwork",
    "Sims",
    "SmallestSIM",
    "conserved",
    "is_invariant",
    "orbit",
    "reduced_network",
    "sims",
    "smallest_sim",
]
