"""Targets as objects that say what is exact: value, potential, moments, parity, symmetry and subspace."""

from __future__ import annotations

from fiberscope.meanfield.targets.base import Target as Target
from fiberscope.meanfield.targets.finite import Constant as Constant
from fiberscope.meanfield.targets.finite import Linear as Linear
from fiberscope.meanfield.targets.finite import Teacher as Teacher
from fiberscope.meanfield.targets.polynomial import Polynomial as Polynomial
from fiberscope.meanfield.targets.projected import Projected as Projected
from fiberscope.meanfield.targets.projected import lifted as lifted
from fiberscope.meanfield.targets.sampled import Sampled as Sampled
from fiberscope.meanfield.targets.sums import Scaled as Scaled
from fiberscope.meanfield.targets.sums import Sum as Sum
from fiberscope.meanfield.targets.sums import cross_moment as cross_moment
from fiberscope.meanfield.targets.zonal import NormH as NormH
from fiberscope.meanfield.targets.zonal import SingleIndex as SingleIndex
