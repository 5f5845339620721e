"""Odd targets and linear networks: closed equations in d numbers."""
