"""Recovering a target: ranks, sample counts, the ladder of manifolds, embeddings, near minima, diagonal networks."""

from fiberscope.invariants.recovery.condensing.condensed import Condensation, condensation
from fiberscope.invariants.recovery.diagonals.nets import diagonal
from fiberscope.invariants.recovery.diagonals.results import Diagonal
from fiberscope.invariants.recovery.embeddings.checks import Verification, verify
from fiberscope.invariants.recovery.embeddings.embedding import Embedding, embed
from fiberscope.invariants.recovery.embeddings.separation import Separation, break_symmetry
from fiberscope.invariants.recovery.ladders.ladder import Recovery, recover
from fiberscope.invariants.recovery.ladders.noisy import Selection, select_width
from fiberscope.invariants.recovery.nearminima.branches import Location, locate
from fiberscope.invariants.recovery.nearminima.table import Strata, strata
from fiberscope.invariants.recovery.phases.diagrams import phase_diagram
from fiberscope.invariants.recovery.phases.tables import PhaseDiagram
from fiberscope.invariants.recovery.ranking.optimistic import OptimisticSize, optimistic_sample_size
from fiberscope.invariants.recovery.ranking.prediction import Prediction, predict_recovery
from fiberscope.invariants.recovery.ranking.ranks import empirical_rank, locally_recoverable, model_rank
from fiberscope.invariants.recovery.ranking.results import EmpiricalRank, LocalRecovery, ModelRank
from fiberscope.invariants.recovery.ranking.tied import DiagonalProduct, MatrixProduct, TiedNetwork

__all__ = [
    "Condensation", "Diagonal", "DiagonalProduct", "EmpiricalRank", "Embedding", "LocalRecovery", "Location",
    "MatrixProduct", "ModelRank", "OptimisticSize", "PhaseDiagram", "Prediction", "Recovery", "Selection", "Separation",
    "Strata", "TiedNetwork", "Verification", "break_symmetry", "condensation", "diagonal", "embed", "empirical_rank",
    "locally_recoverable", "locate", "model_rank", "optimistic_sample_size", "phase_diagram", "predict_recovery",
    "recover", "select_width", "strata", "verify",
]  # fmt: skip
