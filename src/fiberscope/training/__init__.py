"""Training with what is known about a network: watch a run, lint its start, train a reduced network like the wide one.

Public names are imported when first used; frameworks only where they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiberscope.facades import facade as _facade

if TYPE_CHECKING:
    from fiberscope.training.adapters.jax import PytreeSubject as PytreeSubject
    from fiberscope.training.adapters.jax import jax_watch as jax_watch
    from fiberscope.training.adapters.jax_optax import optimiser_of_optax as optimiser_of_optax
    from fiberscope.training.adapters.keras import KerasWatch as KerasWatch
    from fiberscope.training.adapters.lightning import LightningWatch as LightningWatch
    from fiberscope.training.adapters.torch import architecture_of_module as architecture_of_module
    from fiberscope.training.adapters.torch import parameters_of_module as parameters_of_module
    from fiberscope.training.adapters.transformers import TransformersWatch as TransformersWatch
    from fiberscope.training.architectures.architecture import Architecture as Architecture
    from fiberscope.training.architectures.architecture import Axis as Axis
    from fiberscope.training.architectures.architecture import Dense as Dense
    from fiberscope.training.architectures.architecture import Law as Law
    from fiberscope.training.architectures.architecture import Population as Population
    from fiberscope.training.architectures.architecture import Skipped as Skipped
    from fiberscope.training.architectures.architecture import Slot as Slot
    from fiberscope.training.architectures.chains import architecture_of as architecture_of
    from fiberscope.training.architectures.chains import chain_architecture as chain_architecture
    from fiberscope.training.architectures.chains import parameters_of as parameters_of
    from fiberscope.training.architectures.exchange import confirmed as confirmed
    from fiberscope.training.architectures.refinement import refine as refine
    from fiberscope.training.drift.predictions import Drift as Drift
    from fiberscope.training.drift.rules import OptimiserState as OptimiserState
    from fiberscope.training.lint.findings import Finding as Finding
    from fiberscope.training.lint.linting import StartReport as StartReport
    from fiberscope.training.lint.linting import lint_init as lint_init
    from fiberscope.training.measures.measurements import Measurement as Measurement
    from fiberscope.training.measures.measurements import measure as measure
    from fiberscope.training.measures.measurements import measured as measured
    from fiberscope.training.optax_transforms import clip_by_wide_norm as clip_by_wide_norm
    from fiberscope.training.optax_transforms import scale_reduced as scale_reduced
    from fiberscope.training.torch_optimisers import reduced_optimiser as reduced_optimiser
    from fiberscope.training.traces.checkpoints import trace_of_checkpoints as trace_of_checkpoints
    from fiberscope.training.traces.loggers import DictLogger as DictLogger
    from fiberscope.training.traces.loggers import TensorBoardLogger as TensorBoardLogger
    from fiberscope.training.traces.reading import read_trace as read_trace
    from fiberscope.training.traces.runs import Trace as Trace
    from fiberscope.training.traces.watchers import Watcher as Watcher
    from fiberscope.training.traces.watchers import watch as watch

_HOMES = {
    "adapters.jax": ("PytreeSubject", "jax_watch"),
    "adapters.jax_optax": ("optimiser_of_optax",),
    "adapters.torch": ("architecture_of_module", "parameters_of_module"),
    "architectures.architecture": ("Architecture", "Axis", "Dense", "Law", "Population", "Skipped", "Slot"),
    "architectures.chains": ("architecture_of", "chain_architecture", "parameters_of"),
    "architectures.exchange": ("confirmed",),
    "architectures.refinement": ("refine",),
    "drift.predictions": ("Drift",),
    "drift.rules": ("OptimiserState",),
    "lint.findings": ("Finding",),
    "lint.linting": ("StartReport", "lint_init"),
    "measures.measurements": ("Measurement", "measure", "measured"),
    "optax_transforms": ("clip_by_wide_norm", "scale_reduced"),
    "torch_optimisers": ("reduced_optimiser",),
    "traces.checkpoints": ("trace_of_checkpoints",),
    "traces.loggers": ("DictLogger", "TensorBoardLogger"),
    "traces.reading": ("read_trace",),
    "traces.runs": ("Trace",),
    "traces.watchers": ("Watcher", "watch"),
}
_FRAMED = {
    "adapters.keras": ("KerasWatch",),
    "adapters.lightning": ("LightningWatch",),
    "adapters.transformers": ("TransformersWatch",),
}

__all__, __getattr__, __dir__ = _facade(globals(), _HOMES, framed=_FRAMED)
