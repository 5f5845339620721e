"""Analytic models as families of gradient fields, with their symmetries, and what moves their parameters."""

from __future__ import annotations

from fiberscope.models.affine import AffineFields as AffineFields
from fiberscope.models.convolutions import convolution as convolution
from fiberscope.models.dynamics import Flow as Flow
from fiberscope.models.dynamics import LawFamily as LawFamily
from fiberscope.models.dynamics import flow as flow
from fiberscope.models.gates import glu as glu
from fiberscope.models.gates import mixture as mixture
from fiberscope.models.gates import swiglu as swiglu
from fiberscope.models.model import Model as Model
from fiberscope.models.model import Symmetry as Symmetry
from fiberscope.models.networks import chain as chain
from fiberscope.models.networks import convex_network as convex_network
from fiberscope.models.networks import deep_linear as deep_linear
from fiberscope.models.networks import matrix_factorisation as matrix_factorisation
from fiberscope.models.normalisation import normalised as normalised
from fiberscope.models.products import exponential_network as exponential_network
from fiberscope.models.products import polynomial_field as polynomial_field
from fiberscope.models.products import product as product
from fiberscope.models.residuals import residual as residual
from fiberscope.models.transformers import attention as attention
