"""Where scalars go besides the trace: TensorBoard event files, W&B-style dictionaries, plain functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fiberscope.errors import InputError, import_optional


@runtime_checkable
class Logger(Protocol):
    """Takes the scalars of one measurement; a `wandb` run is one as it stands."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Record scalars such as {"fiberscope/dead/on_data": 3.0} at a step of the training."""


def logger_of(target: Any) -> Logger:
    """The logger that a target stands for.

    Args:
        target: a `Logger` or anything with `log(scalars, step)`; a writer with `add_scalar`; a directory for event
            files; or a function of (scalars, step=...).

    Raises:
        InputError: if it is none of these.

    >>> seen = []
    >>> logger_of(lambda scalars, step: seen.append((step, scalars))).log({"fiberscope/dead/on_data": 3.0}, 100)
    >>> seen
    [(100, {'fiberscope/dead/on_data': 3.0})]
    """
    if isinstance(target, str | Path) or callable(getattr(target, "add_scalar", None)):
        return TensorBoardLogger(target)
    if isinstance(target, TensorBoardLogger | DictLogger):
        return target
    if callable(target) or callable(getattr(target, "log", None)):
        return DictLogger(target)
    raise InputError(
        f"a {type(target).__name__} is no logger; give a directory, a writer with add_scalar, an object with "
        "log(scalars, step), or a function of (scalars, step)"
    )


class DictLogger:
    """Hands every measurement to a function as one dictionary, the way W&B takes them: `log(scalars, step=step)`.

    W&B drops what comes with a smaller step than it has seen; where the run counts steps of its own, give `step_key`:
    then the step is an entry of the dictionary, for `run.define_metric("fiberscope/*", step_metric=step_key)`.

    Args:
        log: a function of (dict, step=...), or an object with such a method `log`, such as `wandb` or one of its runs.
        step_key: name under which the step is logged; None hands it over as `step=`.

    >>> seen = []
    >>> DictLogger(seen.append, step_key="fiberscope/step").log({"fiberscope/sims/neurons": 8.0}, 200)
    >>> seen
    [{'fiberscope/sims/neurons': 8.0, 'fiberscope/step': 200}]
    """

    def __init__(self, log: Any, *, step_key: str | None = None) -> None:
        method = getattr(log, "log", None)
        self._log: Callable[..., Any] = method if callable(method) else log
        if not callable(self._log):
            raise InputError(f"a {type(log).__name__} cannot be called and has no method log(scalars, step)")
        self._step_key = step_key

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """One call of the function; the dictionary is a fresh one, of plain floats."""
        values = {name: float(value) for name, value in scalars.items()}
        if self._step_key is None:
            self._log(values, step=int(step))
        else:
            self._log({**values, self._step_key: int(step)})


class TensorBoardLogger:
    """Writes every scalar as a TensorBoard tag of its own name.

    Args:
        target: a writer with `add_scalar(tag, value, step)`, which stays its owner's to close (`SummaryWriter` of torch
            or tensorboardX); or a directory, where one event file is begun at the first scalar (needs `tensorboard`,
            neither torch nor TensorFlow).

    Raises:
        InputError: for anything else.
        MissingDependencyError: when the first scalar comes, if `tensorboard` is not installed.
    """

    def __init__(self, target: Any) -> None:
        self._writer: Any = None
        self._folder: str | None = None
        if isinstance(target, str | Path):
            self._folder = str(target)
        elif callable(getattr(target, "add_scalar", None)):
            self._writer = target
        else:
            raise InputError(f"a {type(target).__name__} is no directory and has no add_scalar(tag, value, step)")

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """One scalar of each name at this step; flushed, so that a killed run keeps them."""
        if self._folder is None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, float(value), int(step))
            return
        if not scalars:
            return
        purpose = "write TensorBoard event files"
        event = import_optional("tensorboard.compat.proto.event_pb2", extra="tensorboard", purpose=purpose)
        summary = import_optional("tensorboard.compat.proto.summary_pb2", extra="tensorboard", purpose=purpose)
        if self._writer is None:
            files = import_optional(
                "tensorboard.summary.writer.event_file_writer", extra="tensorboard", purpose=purpose
            )
            self._writer = files.EventFileWriter(self._folder)
        values = [summary.Summary.Value(tag=name, simple_value=float(value)) for name, value in scalars.items()]
        self._writer.add_event(
            event.Event(wall_time=time.time(), step=int(step), summary=summary.Summary(value=values))
        )
        self._writer.flush()

    def close(self) -> None:
        """End the event file; a later scalar begins another. A writer that was given is left open."""
        if self._folder is not None and self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: a copy, such as Lightning makes of callbacks, begins a file of its own."""
        return {"_folder": self._folder, "_writer": None if self._folder is not None else self._writer}
