"""Training on an invariant manifold: the reduced network, update rules, what optimisers keep, escape by rounding."""
