"""The branches of exact fits of a target by a wider two-layer network."""
