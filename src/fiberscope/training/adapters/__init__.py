"""How models of other frameworks become populations of neurons, and how their training loops are watched."""
