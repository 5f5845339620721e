"""Derivatives in theta: gradients and brackets over floats, residues and balls; doors for JAX and torch."""
