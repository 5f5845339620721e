"""Neurons that move together: exact, near and merged classes of a network, and the nearest networks that have them."""
