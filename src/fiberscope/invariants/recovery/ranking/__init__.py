"""Ranks of tangent functions, and what they say about the samples that recovery needs."""
