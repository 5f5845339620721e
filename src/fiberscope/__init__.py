"""fiberscope: which networks are the same, what an architecture lets training do, what is redundant in a network.

Public names are imported when first used, so that `import fiberscope` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiberscope._version import __version__ as __version__
from fiberscope.facades import facade as _facade

if TYPE_CHECKING:
    from fiberscope import meanfield as meanfield
    from fiberscope import training as training
    from fiberscope.activations import Activation as Activation
    from fiberscope.activations import activation as activation
    from fiberscope.certificates import Certificate as Certificate
    from fiberscope.certificates import check as check
    from fiberscope.domains import Box as Box
    from fiberscope.fibers import Alignment as Alignment
    from fiberscope.fibers import Bound as Bound
    from fiberscope.fibers import Counterexample as Counterexample
    from fiberscope.fibers import Fiber as Fiber
    from fiberscope.fibers import NormalForm as NormalForm
    from fiberscope.fibers import align as align
    from fiberscope.fibers import assert_equal as assert_equal
    from fiberscope.fibers import canonical as canonical
    from fiberscope.fibers import distance as distance
    from fiberscope.fibers import equal as equal
    from fiberscope.fibers import fiber as fiber
    from fiberscope.fibers import fingerprint as fingerprint
    from fiberscope.inspection import Inspection as Inspection
    from fiberscope.inspection import inspect as inspect
    from fiberscope.invariants import Conserved as Conserved
    from fiberscope.invariants import Orbit as Orbit
    from fiberscope.invariants import Sims as Sims
    from fiberscope.invariants import SmallestSIM as SmallestSIM
    from fiberscope.invariants import conserved as conserved
    from fiberscope.invariants import is_invariant as is_invariant
    from fiberscope.invariants import orbit as orbit
    from fiberscope.invariants import sims as sims
    from fiberscope.invariants import smallest_sim as smallest_sim
    from fiberscope.invariants.recovery import Condensation as Condensation
    from fiberscope.invariants.recovery import Diagonal as Diagonal
    from fiberscope.invariants.recovery import Embedding as Embedding
    from fiberscope.invariants.recovery import ModelRank as ModelRank
    from fiberscope.invariants.recovery import PhaseDiagram as PhaseDiagram
    from fiberscope.invariants.recovery import Prediction as Prediction
    from fiberscope.invariants.recovery import Recovery as Recovery
    from fiberscope.invariants.recovery import Strata as Strata
    from fiberscope.invariants.recovery import condensation as condensation
    from fiberscope.invariants.recovery import diagonal as diagonal
    from fiberscope.invariants.recovery import embed as embed
    from fiberscope.invariants.recovery import model_rank as model_rank
    from fiberscope.invariants.recovery import phase_diagram as phase_diagram
    from fiberscope.invariants.recovery import predict_recovery as predict_recovery
    from fiberscope.invariants.recovery import recover as recover
    from fiberscope.invariants.recovery import strata as strata
    from fiberscope.io import load as load
    from fiberscope.io import save as save
    from fiberscope.io import to_onnx as to_onnx
    from fiberscope.io import to_torch as to_torch
    from fiberscope.network import Layer as Layer
    from fiberscope.network import Network as Network
    from fiberscope.pages import report as report
    from fiberscope.reduction import Reduction as Reduction
    from fiberscope.reduction import reduce as reduce
    from fiberscope.results import Answer as Answer
    from fiberscope.results import Budget as Budget
    from fiberscope.results import Result as Result
    from fiberscope.results import Rigor as Rigor
    from fiberscope.results import Verdict as Verdict
    from fiberscope.theorems import cite as cite
    from fiberscope.training import lint_init as lint_init
    from fiberscope.training import measure as measure
    from fiberscope.training import watch as watch

_HOMES = {
    "activations": ("Activation", "activation"),
    "certificates": ("Certificate", "check"),
    "domains": ("Box",),
    "fibers": (
        "Alignment",
        "Bound",
        "Counterexample",
        "Fiber",
        "NormalForm",
        "align",
        "assert_equal",
        "canonical",
        "distance",
        "equal",
        "fiber",
        "fingerprint",
    ),  # fmt: skip
    "inspection": ("Inspection", "inspect"),
    "invariants": (
        "Conserved",
        "Orbit",
        "Sims",
        "SmallestSIM",
        "conserved",
        "is_invariant",
        "orbit",
        "sims",
        "smallest_sim",
    ),  # fmt: skip
    "invariants.recovery": (
        "Condensation",
        "Diagonal",
        "Embedding",
        "ModelRank",
        "PhaseDiagram",
        "Prediction",
        "Recovery",
        "Strata",
        "condensation",
        "diagonal",
        "embed",
        "model_rank",
        "phase_diagram",
        "predict_recovery",
        "recover",
        "strata",
    ),  # fmt: skip
    "io": ("load", "save", "to_onnx", "to_torch"),
    "network": ("Layer", "Network"),
    "reduction": ("Reduction", "reduce"),
    "pages": ("report",),
    "results": ("Answer", "Budget", "Result", "Rigor", "Verdict"),
    "theorems": ("cite",),
    "training": ("lint_init", "measure", "watch"),
}

__all__, __getattr__, __dir__ = _facade(globals(), _HOMES, ("meanfield", "training"))
__all__ = sorted([*__all__, "__version__"])
