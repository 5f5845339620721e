"""Climbing the invariant manifolds until one interpolates, by flow and by least squares."""
