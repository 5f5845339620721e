"""Wider networks with the same function, critical points and inertia."""
