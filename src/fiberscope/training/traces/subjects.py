"""What a watcher needs of the thing it watches, and the plainest such thing: a mapping of arrays or a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from fiberscope.errors import InputError
from fiberscope.network import Network
from fiberscope.training.architectures.architecture import Architecture, Array, Parameters

if TYPE_CHECKING:
    from fiberscope.training.drift.rules import OptimiserState


@runtime_checkable
class Subject(Protocol):
    """A model in training as a watcher sees it; frameworks differ only behind this.

    Between `update` and `release` the other methods describe one moment of the run. Nothing of the run may be changed:
    no parameter, mode, buffer, hook or random state differs after a call from what it was before.
    """

    def architecture(self) -> Architecture:
        """Populations of the model; asked once, before anything is measured."""
        ...

    def update(
        self, parameters: Any = None, *, gradients: Any = None, optimizer: Any = None, architecture: Any = None
    ) -> None:
        """What the loop hands over at this step, in the framework's own types; None = unchanged or read elsewhere.

        A `architecture` given replaces the subject's own (populations that failed a test are taken out of it).
        """
        ...

    def parameters(self) -> Parameters:
        """Values by name, converted one at a time when read; views where the framework allows."""
        ...

    def gradients(self) -> Parameters | None:
        """Gradients by the names of the parameters, None if they are not to be had; names may be missing."""
        ...

    def optimiser(self) -> OptimiserState | None:
        """The optimiser now, None if there is none or it is not understood (`problems` then says why)."""
        ...

    def activations(self, data: Any) -> dict[str, Array] | None:
        """Outputs on data behind the activation of a population, (samples, neurons, ...), by population.

        None if the core should compute them itself from the chain.
        """
        ...

    def evaluate(self, data: Any, parameters: Parameters | None = None) -> Array | None:
        """The model's output on data, at other parameters of the same names and shapes if given; None if unknown."""
        ...

    def problems(self) -> tuple[str, ...]:
        """Sentences about what is not understood besides `architecture().skipped`; may grow."""
        ...

    def release(self) -> None:
        """Forget the values handed to `update`, so that no old copy of the parameters stays alive."""
        ...

    def close(self) -> None:
        """Remove every hook; may be called twice."""
        ...


class ArraySubject:
    """A mapping of arrays (or a Network) given anew at every step; the plainest subject, and the base of adapters.

    Args:
        parameters: names and arrays, or a Network; None if they come with the first step.
        architecture: which axes index which neurons; None for a Network, or if they come with the first step.
        optimizer: an OptimiserState, or None.

    Example:
        >>> net = Network.from_arrays(([[1.0], [2.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="relu")
        >>> subject = ArraySubject(net)
        >>> [p.count for p in subject.architecture().populations]
        [2]
    """

    def __init__(self, parameters: Any = None, architecture: Architecture | None = None, optimizer: Any = None) -> None:
        self._architecture = architecture
        self._parameters: Parameters | None = None
        self._gradients: Parameters | None = None
        self._optimizer: Any = None
        self._problems: list[str] = []
        self.update(parameters, optimizer=optimizer)

    def architecture(self) -> Architecture:
        """See `Subject`.

        Raises:
            InputError: if none was given and the parameters are no network.
        """
        if self._architecture is None:
            raise InputError(
                "a mapping of arrays does not say which axes index neurons; give architecture=, "
                "for instance chain_architecture([784, 512, 10], activation=...) or architecture_of(params, ...)"
            )
        return self._architecture

    def update(
        self, parameters: Any = None, *, gradients: Any = None, optimizer: Any = None, architecture: Any = None
    ) -> None:
        """See `Subject`.

        Raises:
            InputError: for parameters that are neither a mapping nor a network.
        """
        if architecture is not None:
            self._architecture = architecture
        if parameters is not None:
            self._parameters = self._read(parameters)
        if gradients is not None:
            self._gradients = self._flat(gradients)
        if optimizer is not None:
            self._optimizer = optimizer

    def _read(self, parameters: Any) -> Parameters:
        if isinstance(parameters, Network):
            from fiberscope.training.architectures.chains import chain_architecture, parameters_of

            if self._architecture is None:
                self._architecture = chain_architecture(parameters)
            return parameters_of(parameters)
        return self._flat(parameters)

    def _flat(self, values: Any) -> Parameters:
        """Overridden by adapters that flatten trees."""
        if not isinstance(values, Mapping):
            raise InputError(f"expected a mapping of names to arrays or a Network, got {type(values).__name__}")
        return values

    def parameters(self) -> Parameters:
        """See `Subject`.

        Raises:
            InputError: if none were given.
        """
        if self._parameters is None:
            raise InputError("no parameters to measure; hand them over: watcher.step(params)")
        return self._parameters

    def gradients(self) -> Parameters | None:
        """See `Subject`."""
        return self._gradients

    def optimiser(self) -> OptimiserState | None:
        """See `Subject`."""
        return self._optimizer  # type: ignore[no-any-return]

    def activations(self, data: Any) -> dict[str, Array] | None:
        """None: the core runs a chain itself."""
        return None

    def evaluate(self, data: Any, parameters: Parameters | None = None) -> Array | None:
        """Output of the plain chain in float64, (samples, outputs); None if the model is no chain."""
        architecture = self.architecture()
        if not architecture.chain:
            return None
        net = architecture.network(self.parameters() if parameters is None else parameters)
        return net(np.asarray(data, dtype=np.float64))

    def problems(self) -> tuple[str, ...]:
        """See `Subject`."""
        return tuple(self._problems)

    def release(self) -> None:
        """See `Subject`; the optimiser's description stays."""
        self._parameters = self._gradients = None

    def close(self) -> None:
        """Nothing to remove."""
