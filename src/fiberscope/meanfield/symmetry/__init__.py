"""Orthogonal groups, orbits of neurons, and how well a network keeps a symmetry."""
