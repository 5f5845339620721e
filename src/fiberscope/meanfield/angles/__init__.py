"""Learning the norm of a projection: two measures on the angle to a subspace."""
