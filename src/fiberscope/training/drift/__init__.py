"""Conserved quantities of training, and how finite steps, weight decay and momentum move them."""
