"""torch modules in training: their architecture, their parameters, and what a watcher needs of them."""

from fiberscope.training.adapters.torch_modules import architecture_of_module, parameters_of_module
from fiberscope.training.adapters.torch_states import optimiser_of_torch
from fiberscope.training.adapters.torch_subject import ModuleSubject

__all__ = ["ModuleSubject", "architecture_of_module", "optimiser_of_torch", "parameters_of_module"]
