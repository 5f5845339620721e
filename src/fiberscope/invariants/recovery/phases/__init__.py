"""How often training finds a target, over samples, widths and scales."""
