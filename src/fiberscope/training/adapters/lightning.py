"""`LightningWatch`: a Lightning callback that watches a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiberscope.errors import InputError, MissingDependencyError, import_optional
from fiberscope.training.adapters.callbacks import Hooks, callback_class

if TYPE_CHECKING:
    LightningWatch: Any

__all__ = ["LightningWatch"]
_LOADED = ("lightning.pytorch", "pytorch_lightning")


class _Hooks(Hooks):
    """Watch a Lightning run: `Trainer(callbacks=[LightningWatch("run.jsonl")])`.

    Steps are optimiser steps (`trainer.global_step`), not batches; only the process of rank 0 measures. Gradients are
    read after the batch, as they were clipped and used, and learning rates before the schedulers move them. State is
    kept in Lightning's checkpoints under `state_key`, one for each path.

    Args:
        path: of the trace; None keeps it in memory.
        every: optimiser steps between measurements; None as in `watch`.
        data: inputs of the watched module, on which units are looked at and populations put to the test.
        log: hand scalars to the trainer's loggers; True demands that there is one, None uses those that there are.
        part: name of the submodule to watch, such as "net"; None for the whole LightningModule.
        options: further arguments of `watch`: architecture, domain, loggers, force, resume, tables, ...

    Raises:
        MisconfigurationException: in `setup`, if log=True and the trainer has no logger.
        InputError: if there is no such part, or the trace exists and is neither resumed nor forced.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        every: int | None = None,
        data: Any = None,
        log: bool | None = None,
        part: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, every, data, **options)
        self.part = part
        self.demanded = log  # not "log": Lightning sets that attribute of every callback
        self._state: Mapping[str, Any] | None = None
        self._rates: list[float] | None = None
        self._loggers: Sequence[Any] = ()
        self._step = -1

    @property
    def state_key(self) -> str:
        """One for each path."""
        return f"LightningWatch{{'path': {str(self.path)!r}}}"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse log=True without a logger."""
        if stage == "fit" and self.demanded and not trainer.loggers:
            name = _framework()
            errors = import_optional(f"{name}.utilities.exceptions", extra="lightning", purpose="watch Lightning runs")
            raise errors.MisconfigurationException("LightningWatch(log=True) needs a logger; this Trainer has none")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the watcher and measure the start."""
        from fiberscope.training.adapters.torch_subject import ModuleSubject

        self._loggers = () if self.demanded is False else tuple(trainer.loggers)
        self._optimisers = list(trainer.optimizers)
        # with several optimizers (GANs) global_step counts all their steps, and no single rule predicts the drift
        optimizer = self._optimisers[0] if len(self._optimisers) == 1 else None
        rank = int(trainer.global_rank)
        subject = ModuleSubject(self._module(pl_module), optimizer, example=self.data) if rank == 0 else None
        loggers = [*self.options.get("loggers", ()), *([self._send] if self._loggers else [])]
        watcher = self._open(subject, {**self.options, "loggers": loggers}, resumed=self._state is not None, rank=rank)
        if self._state is not None:
            watcher.load_state_dict(self._state)
            self._state = None
        self._subject = subject
        self._step = int(trainer.global_step)
        self._stepped = 0

    def _module(self, pl_module: Any) -> Any:
        if self.part is None:
            return pl_module
        try:
            return pl_module.get_submodule(self.part)
        except AttributeError as exc:
            names = ", ".join(name for name, _ in pl_module.named_children())
            raise InputError(f"{type(pl_module).__name__} has no submodule {self.part!r}; it has {names}") from exc

    def _send(self, scalars: Mapping[str, float], step: int) -> None:
        for logger in self._loggers:
            logger.log_metrics(dict(scalars), step=self._stepped)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any, *args: Any) -> None:
        """Note the learning rates that the step uses; schedulers change them before the batch ends."""
        if self.watcher is not None and self.watcher.active and len(self._optimisers) == 1:
            self._rates = [group["lr"] for group in optimizer.param_groups]

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Count the optimiser step, if this batch ended with one."""
        step = int(trainer.global_step)
        if self.watcher is None or step == self._step:
            return
        self._step = step
        if self._subject is not None:
            self._subject.rates = self._rates
        loop = getattr(trainer.fit_loop, "epoch_loop", None)
        self._stepped = int(getattr(loop, "_batches_that_stepped", step))
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:  # Lightning hands it over divided by the number of batches that are accumulated
            loss = loss * int(getattr(trainer, "accumulate_grad_batches", 1))
        self.watcher.step(step=step, loss=loss)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure the end and close the trace."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the trace with the reason."""
        self._close(f"{type(exception).__name__}: {exception}")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the trainer."""
        if stage == "fit":
            self._close()
            self._loggers, self._optimisers, self._subject = (), [], None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with; JSON-ready."""
        return {} if self.watcher is None else dict(self.watcher.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep it for the start of the training."""
        self._state = dict(state_dict) or None

    def __getstate__(self) -> dict[str, Any]:
        """A copy, as Lightning makes them, is not attached to any trainer."""
        left_out: dict[str, Any] = {"_loggers": (), "_optimisers": [], "_subject": None, "watcher": None}
        return {**self.__dict__, **left_out}

    _optimisers: Sequence[Any] = ()
    _subject: Any = None
    _stepped = 0


def _framework() -> str:
    """The package that is in use, `lightning.pytorch` or the older `pytorch_lightning`."""
    for name in _LOADED:
        if name in sys.modules:
            return name
    try:
        import_optional("lightning.pytorch", extra="lightning", purpose="watch Lightning runs")
    except MissingDependencyError as exc:
        try:
            import_optional("pytorch_lightning", extra="lightning", purpose="watch Lightning runs")
        except MissingDependencyError:
            raise exc from None
        return "pytorch_lightning"
    return "lightning.pytorch"


def __getattr__(name: str) -> Any:
    """The callback class, made when it is first asked for: its base needs Lightning."""
    if name != "LightningWatch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = import_optional(_framework(), extra="lightning", purpose="watch Lightning runs").Callback
    made = globals()[name] = callback_class(name, __name__, _Hooks, base)
    return made
