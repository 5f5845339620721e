"""Training with what is known about a network: optimisers of reduced networks for torch and optax."""

from fiberscope.training.optax_transforms import clip_by_wide_norm, scale_reduced
from fiberscope.training.torch_optimisers import reduced_optimiser

__all__ = ["clip_by_wide_norm", "reduced_optimiser", "scale_reduced"]
