"""`TransformersWatch`: a callback of the Hugging Face Trainer that watches a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiberscope.errors import InputError, import_optional
from fiberscope.training.adapters.callbacks import Hooks, callback_class

if TYPE_CHECKING:
    TransformersWatch: Any

__all__ = ["TransformersWatch"]
STATE_FILE = "fiberscope_watch.json"


class _Hooks(Hooks):
    """Watch a run of the Hugging Face Trainer: `Trainer(..., callbacks=[TransformersWatch("run.jsonl")])`.

    Measured right after the optimizer's step, when gradients (clipped as they were used) and learning rates are still
    those of the step. Nothing of the trainer is changed; callbacks cannot log through it, so scalars go to the trace
    and to `loggers`. Only the world's process zero measures. With every checkpoint of the trainer a small file
    `fiberscope_watch.json` is written, from which a resumed run goes on.

    Args:
        path: of the trace; None keeps it in memory.
        every: optimizer steps between measurements; None as in `watch`.
        data: inputs of the model, a dict such as {"input_ids": ...}, on which units are looked at and populations put
            to the test.
        options: further arguments of `watch`: architecture, loggers, force, resume, tables, ...

    Raises:
        InputError: when training begins, if the trace exists and is neither resumed nor forced.
    """

    _last = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the watcher and measure the start."""
        from fiberscope.training.adapters.torch_subject import ModuleSubject

        model, optimizer = kwargs.get("model"), kwargs.get("optimizer")
        if model is None:
            raise InputError("the trainer hands no model to its callbacks; use watch(model) in a loop of your own")
        rank = 0 if state.is_world_process_zero else 1
        subject = ModuleSubject(model, optimizer, example=self.data) if rank == 0 else None
        watcher = self._open(subject, self.options, resumed=state.global_step > 0, rank=rank)
        saved = self._saved(args, state.global_step)
        if state.global_step > 0 and saved is not None and saved.exists():
            watcher.load_state_dict(json.loads(saved.read_text(encoding="utf-8")))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer has stepped; the trainer counts the step a little later."""
        self._step(state, int(state.global_step) + 1, kwargs.get("optimizer"))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """For trainers without `on_optimizer_step`: the same, though the gradients are gone."""
        if self.watcher is not None and self._last < int(state.global_step):
            self._step(state, int(state.global_step), kwargs.get("optimizer"))

    def _step(self, state: Any, step: int, optimizer: Any) -> None:
        if self.watcher is None:
            return
        self._last = step
        # the loss is not handed to callbacks; the newest one logged is the mean over the steps since the one before
        loss = next((row["loss"] for row in reversed(state.log_history) if "loss" in row), None)
        self.watcher.step(step=step, optimizer=optimizer, loss=loss)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what a resumed run goes on with beside the checkpoint."""
        path = self._saved(args, state.global_step)
        if self.watcher is not None and self.watcher.active and path is not None and path.parent.is_dir():
            path.write_text(json.dumps(self.watcher.state_dict()), encoding="utf-8")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the end and close the trace."""
        self._close()

    @staticmethod
    def _saved(args: Any, step: int) -> Path | None:
        folder = getattr(args, "output_dir", None)
        return None if folder is None else Path(folder) / f"checkpoint-{step}" / STATE_FILE

    def __getstate__(self) -> Mapping[str, Any]:
        """A copy is not attached to any run."""
        return {**self.__dict__, "watcher": None}


def __getattr__(name: str) -> Any:
    """The callback class, made when it is first asked for: its base needs transformers."""
    if name != "TransformersWatch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = import_optional("transformers", extra="transformers", purpose="watch runs of its Trainer").TrainerCallback
    made = globals()[name] = callback_class(name, __name__, _Hooks, base)
    return made
