"""Targets on a subspace: a flow on a small sphere."""
