"""Mean-field dynamics of wide two-layer networks (arXiv 2211.08771): what symmetric targets let training do.

Public names are imported when first used. `reduction_of` says which flow a target calls for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiberscope.facades import facade as _facade

if TYPE_CHECKING:
    from fiberscope.meanfield.angles.flow import AngleFlow as AngleFlow
    from fiberscope.meanfield.angles.flow import angle_flow as angle_flow
    from fiberscope.meanfield.integrators import log_times as log_times
    from fiberscope.meanfield.linear.flow import linear_flow as linear_flow
    from fiberscope.meanfield.linear.flow import linear_flow_of as linear_flow_of
    from fiberscope.meanfield.linear.flow import moments_of as moments_of
    from fiberscope.meanfield.linear.odd import OddFlow as OddFlow
    from fiberscope.meanfield.linear.odd import odd_flow as odd_flow
    from fiberscope.meanfield.linear.solution import LinearFlow as LinearFlow
    from fiberscope.meanfield.lowdim.flow import LowdimFlow as LowdimFlow
    from fiberscope.meanfield.lowdim.flow import lowdim_flow as lowdim_flow
    from fiberscope.meanfield.particles.flow import initial_neurons as initial_neurons
    from fiberscope.meanfield.particles.flow import particle_flow as particle_flow
    from fiberscope.meanfield.particles.solution import ParticleFlow as ParticleFlow
    from fiberscope.meanfield.reductions import Reduced as Reduced
    from fiberscope.meanfield.reductions import reduction_of as reduction_of
    from fiberscope.meanfield.symmetry.groups import OrthogonalGroup as OrthogonalGroup
    from fiberscope.meanfield.symmetry.groups import antipodal as antipodal
    from fiberscope.meanfield.symmetry.groups import cyclic as cyclic
    from fiberscope.meanfield.symmetry.groups import permutations as permutations
    from fiberscope.meanfield.symmetry.groups import reflections as reflections
    from fiberscope.meanfield.symmetry.groups import signed_permutations as signed_permutations
    from fiberscope.meanfield.symmetry.invariance import AntisymmetryCheck as AntisymmetryCheck
    from fiberscope.meanfield.symmetry.invariance import InvarianceCheck as InvarianceCheck
    from fiberscope.meanfield.symmetry.invariance import check_antisymmetry as check_antisymmetry
    from fiberscope.meanfield.symmetry.invariance import check_invariance as check_invariance
    from fiberscope.meanfield.symmetry.invariance import invariance_defect as invariance_defect
    from fiberscope.meanfield.symmetry.subspaces import Alignment as Alignment
    from fiberscope.meanfield.symmetry.subspaces import alignment as alignment
    from fiberscope.meanfield.targets import Constant as Constant
    from fiberscope.meanfield.targets import Linear as Linear
    from fiberscope.meanfield.targets import NormH as NormH
    from fiberscope.meanfield.targets import Polynomial as Polynomial
    from fiberscope.meanfield.targets import Projected as Projected
    from fiberscope.meanfield.targets import Sampled as Sampled
    from fiberscope.meanfield.targets import SingleIndex as SingleIndex
    from fiberscope.meanfield.targets import Target as Target
    from fiberscope.meanfield.targets import Teacher as Teacher
    from fiberscope.meanfield.targets.documents import target_of as target_of
    from fiberscope.meanfield.targets.documents import teacher_of as teacher_of

_HOMES = {
    "angles.flow": (
        "AngleFlow",
        "angle_flow",
    ),
    "integrators": ("log_times",),
    "linear.flow": (
        "linear_flow",
        "linear_flow_of",
        "moments_of",
    ),
    "linear.odd": (
        "OddFlow",
        "odd_flow",
    ),
    "linear.solution": ("LinearFlow",),
    "lowdim.flow": (
        "LowdimFlow",
        "lowdim_flow",
    ),
    "particles.flow": (
        "initial_neurons",
        "particle_flow",
    ),
    "particles.solution": ("ParticleFlow",),
    "reductions": (
        "Reduced",
        "reduction_of",
    ),
    "symmetry.groups": (
        "OrthogonalGroup",
        "antipodal",
        "cyclic",
        "permutations",
        "reflections",
        "signed_permutations",
    ),
    "symmetry.invariance": (
        "AntisymmetryCheck",
        "InvarianceCheck",
        "check_antisymmetry",
        "check_invariance",
        "invariance_defect",
    ),
    "symmetry.subspaces": (
        "Alignment",
        "alignment",
    ),
    "targets": (
        "Constant",
        "Linear",
        "NormH",
        "Polynomial",
        "Projected",
        "Sampled",
        "SingleIndex",
        "Target",
        "Teacher",
    ),
    "targets.documents": (
        "target_of",
        "teacher_of",
    ),
}

__all__, __getattr__, __dir__ = _facade(globals(), _HOMES)
