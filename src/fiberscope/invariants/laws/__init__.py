"""Conservation laws: how many, which, and which of them a network has at its own parameters."""
