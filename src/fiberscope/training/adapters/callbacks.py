"""What the callbacks of Keras, Lightning and transformers share: arguments, trace, and a class made when needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiberscope.errors import InputError

if TYPE_CHECKING:
    from fiberscope.training.traces.runs import Trace
    from fiberscope.training.traces.watchers import Watcher


class Hooks:
    """Holds a watcher from the start of a training to its end.

    Args:
        path: of the trace; None keeps it in memory.
        every: steps between measurements; None as in `watch`.
        data: inputs on which units are looked at and populations put to the test.
        options: further arguments of `watch`.
    """

    def __init__(
        self, path: str | Path | None = None, every: int | None = None, data: Any = None, **options: Any
    ) -> None:
        """Nothing is opened before the training begins."""
        super().__init__()
        self.path = None if path is None else Path(path)
        self.every, self.data, self.options = every, data, options
        self.watcher: Watcher | None = None
        self._began = False

    def _open(self, subject: Any, options: Mapping[str, Any], *, resumed: bool = False, **more: Any) -> Watcher:
        """Open the watcher and measure the start; a second training of one callback goes on with the trace.

        Args:
            subject: None on processes that do not measure.
            options: those of the callback, as they are meant here.
            resumed: whether the framework goes on with an earlier run.
            more: arguments of `watch` that are none of the options.
        """
        from fiberscope.training.traces.watchers import watch

        if not options.get("force") or self._began:
            goes_on = bool(options.get("resume") or self._began or resumed)
            options = {**options, "force": False, "resume": goes_on}
        self.watcher = watch(subject, self.path, every=self.every, data=self.data, **options, **more)
        self._began = True
        return self.watcher

    def _close(self, error: str | None = None) -> None:
        """Measure the end and close the trace."""
        if self.watcher is not None:
            self.watcher.close(error=error)

    def trace(self) -> Trace:
        """What was measured so far.

        Raises:
            InputError: before the training has started.
        """
        if self.watcher is None:
            raise InputError("the training has not started: there is no trace yet")
        return self.watcher.trace()


def callback_class(name: str, module: str, hooks: type, base: Any) -> Any:
    """A class of hooks that is also a callback of the framework; its module keeps it, so that instances pickle.

    Args:
        name: of the class.
        module: where it is found.
        hooks: what it does.
        base: the framework's class.
    """
    return type(name, (hooks, base), {"__module__": module, "__qualname__": name, "__doc__": hooks.__doc__})
