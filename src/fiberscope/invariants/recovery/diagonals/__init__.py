"""Diagonal linear networks from infinitesimal starts."""
