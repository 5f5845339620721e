"""Orbits: what gradient flow can reach from a point, for any loss and any data (arXiv 2510.09564)."""

from fiberscope.invariants.orbits.outcome import Estimate, Orbit
from fiberscope.invariants.orbits.search import orbit

__all__ = ["Estimate", "Orbit", "orbit"]
