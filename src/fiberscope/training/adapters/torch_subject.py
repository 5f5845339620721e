"""A torch module as a watcher sees it: parameters in place, gradients, optimizer, runs on a copy of its structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io.files import one_line
from fiberscope.training.adapters.torch_evaluation import Evaluation, activations_of
from fiberscope.training.adapters.torch_modules import ModuleParameters, architecture_of_module, shadow, unwrapped
from fiberscope.training.adapters.torch_states import StepConstants, bare, gradients_of, optimiser_of_torch
from fiberscope.training.architectures.architecture import Architecture, Parameters
from fiberscope.training.drift.rules import UNKNOWN, OptimiserState

Array = npt.NDArray[Any]
_OPTIMIZERS = 8
"""Optimizers of one run whose steps are remembered."""
_NOT_RUN = "cannot be run on the data:"
LARGEST = 100_000_000
"""Models with more parameters are not put to the test: that takes copies of them."""


class ModuleSubject:
    """Implements `traces.subjects.Subject` for torch modules.

    The module itself is never called, hooked or switched to another mode: evaluation and activations run on a copy of
    its structure that shares the parameters' memory (`shadow`). The optimizer has a hook until `close` that remembers
    the learning rates of its last step (`StepConstants`), so that its scheduler may step before or after the watcher.

    Args:
        module: any torch module, also inside DataParallel, DistributedDataParallel or torch.compile.
        optimizer: from torch.optim, maybe wrapped; or an `OptimiserState`.
        example: inputs that show the shapes on the way; residual streams that only sizes suggest are tested on them.

    Raises:
        UnsupportedError: for sharded modules.
    """

    def __init__(self, module: Any, optimizer: Any = None, *, example: Any = None) -> None:
        self.module = unwrapped(module)
        self._steps: dict[int, StepConstants] = {}
        self._optimizer: Any = None
        self._follow(optimizer)
        self._example = example
        self._architecture: Architecture | None = None
        self._given: Mapping[str, Any] | None = None
        self._now: dict[str, Any] | None = None
        self._shadow: Any = None
        self._addresses: dict[str, tuple[int, Any, Any]] = {}
        self._problems: list[str] = []
        self.rates: Sequence[float] | None = None
        """Learning rates that the last step used, where a framework tells them and the optimizer takes no hook."""

    def _tensors(self) -> dict[str, Any]:
        """The parameters at this moment of the run."""
        if self._now is None:
            self._now = dict(self.module.named_parameters())
        return self._now

    def architecture(self) -> Architecture:
        """See `Subject`; found once."""
        if self._architecture is None:
            example = few(self._example)
            large = sum(p.numel() for p in self.module.parameters()) > LARGEST
            self._architecture = architecture_of_module(self.module, None if large else example, confirm=False)
        return self._architecture

    def update(
        self, parameters: Any = None, *, gradients: Any = None, optimizer: Any = None, architecture: Any = None
    ) -> None:
        """See `Subject`; parameters are those of the module, a module given instead replaces it."""
        if parameters is not None and callable(getattr(parameters, "named_parameters", None)):
            self.module = unwrapped(parameters)
        self._now = None
        if gradients is not None:
            self._given = gradients
        self._follow(optimizer)
        if architecture is not None:
            self._architecture = architecture

    def _follow(self, optimizer: Any) -> None:
        """Remember the constants of an optimizer's steps from now on."""
        if optimizer is None:
            return
        self._optimizer = optimizer
        if isinstance(optimizer, OptimiserState) or not hasattr(inner := bare(optimizer), "param_groups"):
            return
        if id(inner) not in self._steps:
            if len(self._steps) >= _OPTIMIZERS:
                self._steps.pop(next(iter(self._steps))).remove()
            self._steps[id(inner)] = StepConstants(inner)

    def parameters(self) -> Parameters:
        """See `Subject`; views of the memory that is trained."""
        return ModuleParameters(self._tensors(), moment=True)

    def gradients(self) -> Parameters | None:
        """See `Subject`: what `.grad` holds now, or was given."""
        if self._given is not None:
            return (
                ModuleParameters(self._given)
                if all(hasattr(g, "detach") for g in self._given.values())
                else self._given
            )
        optimizer = None if isinstance(self._optimizer, OptimiserState) else self._optimizer
        return gradients_of(self._tensors(), optimizer)

    def optimiser(self) -> OptimiserState | None:
        """See `Subject`."""
        if self._optimizer is None or isinstance(self._optimizer, OptimiserState):
            return self._optimizer
        if not hasattr(bare(self._optimizer), "param_groups"):
            self._note(f"a {type(self._optimizer).__name__} is no torch optimizer: no drift is predicted")
            return None
        seen = self._steps.get(id(bare(self._optimizer)))
        used: Sequence[Any] | None = self.rates if seen is None or seen.last is None else seen.last
        found = optimiser_of_torch(self._optimizer, self._tensors(), rates=used)
        if found.name == UNKNOWN:
            self._note(found.note)
        return found

    def _copy(self) -> Any:
        """The structural copy, made anew if the parameters have moved; buffers as they are now."""
        here = {name: (p.data_ptr(), p.dtype, p.device) for name, p in self.module.named_parameters()}
        if self._shadow is None or here != self._addresses:
            self._shadow, self._addresses = shadow(self.module), here
        else:
            own = dict(self._shadow.named_buffers())
            for name, value in self.module.named_buffers():
                if name in own and own[name].shape == value.shape:
                    own[name].copy_(value)
        return self._shadow

    def activations(self, data: Any) -> dict[str, Array] | None:
        """See `Subject`: one forward pass of the copy, in evaluation mode; empty if it cannot be run."""
        try:
            return activations_of(self._copy(), self.architecture(), data)
        except UnsupportedError as exc:
            self._note(f"no units were looked at: {exc}")
        except Exception as exc:  # the user's forward runs here and may fail in any way
            self._note(f"{type(self.module).__name__} {_NOT_RUN} {one_line(exc)}")
        return {}

    def evaluate(self, data: Any, parameters: Parameters | None = None) -> Array | None:
        """See `Subject`: in float64, BatchNorm with the data's statistics; None for very large or uncopied modules."""
        if sum(p.numel() for p in self.module.parameters()) > LARGEST:
            self._note(f"with more than {LARGEST} parameters the populations are not put to the test")
            return None
        try:
            return Evaluation(self._copy())(data, parameters)
        except InputError as exc:
            self._note(str(exc))
        return None

    def problems(self) -> tuple[str, ...]:
        """See `Subject`."""
        return tuple(self._problems)

    def _note(self, text: str) -> None:
        # the test of populations says so too
        said = _NOT_RUN in text and any(_NOT_RUN in old for old in self._problems)
        if text and text not in self._problems and not said:
            self._problems.append(text)

    def release(self) -> None:
        """See `Subject`."""
        self._given = self._now = None

    def close(self) -> None:
        """See `Subject`: forget the copy, take the hook off the optimizer; the module was never hooked."""
        self._shadow = None
        for seen in self._steps.values():
            seen.remove()
        self._given = self._now = None


def few(data: Any, count: int = 32) -> Any:
    """The first samples of inputs: of a tensor or array, or of all with the same number of samples in a dict or tuple.

    >>> import numpy as np
    >>> few({"x": np.ones((3, 2))}, 1)["x"].shape
    (1, 2)
    """
    if isinstance(data, Mapping):
        return {key: few(value, count) for key, value in data.items()}
    if isinstance(data, tuple | list):
        return type(data)(few(value, count) for value in data) if type(data) in (tuple, list) else data
    return data[:count] if hasattr(data, "shape") and len(data.shape) > 1 else data
