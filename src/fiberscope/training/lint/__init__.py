"""Lint of a start: is this initialisation trapped on an invariant manifold, and what frees it."""
