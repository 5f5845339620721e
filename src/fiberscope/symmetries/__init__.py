"""Parameter symmetries of chains as data: scalings, types of neurons, fiber dimension, quotients, conservation laws."""

from __future__ import annotations

from fiberscope.symmetries.conservation import laws as laws
from fiberscope.symmetries.dimensions import FiberDimension as FiberDimension
from fiberscope.symmetries.dimensions import NeuronTypes as NeuronTypes
from fiberscope.symmetries.dimensions import fiber_dimension as fiber_dimension
from fiberscope.symmetries.dimensions import hidden_neurons as hidden_neurons
from fiberscope.symmetries.dimensions import neuron_types as neuron_types
from fiberscope.symmetries.lawcounts import LawCount as LawCount
from fiberscope.symmetries.lawcounts import block_law_count as block_law_count
from fiberscope.symmetries.lawcounts import law_count as law_count
from fiberscope.symmetries.lawdata import Law as Law
from fiberscope.symmetries.lawdata import Laws as Laws
from fiberscope.symmetries.lawless import Lawless as Lawless
from fiberscope.symmetries.lawless import shift_generator as shift_generator
from fiberscope.symmetries.lawless import symmetries_without_law as symmetries_without_law
from fiberscope.symmetries.patterns import Activity as Activity
from fiberscope.symmetries.patterns import Radius as Radius
from fiberscope.symmetries.patterns import activity as activity
from fiberscope.symmetries.patterns import safe_radius as safe_radius
from fiberscope.symmetries.quotients import quotient as quotient
from fiberscope.symmetries.scalings import scaling_rank as scaling_rank
