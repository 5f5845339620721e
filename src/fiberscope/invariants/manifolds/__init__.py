"""All invariant manifolds of an architecture: types, counts, members, lattice."""
