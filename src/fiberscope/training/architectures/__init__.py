"""What a monitor must know of a model: which axes of which parameters index its neurons, and what is conserved."""
