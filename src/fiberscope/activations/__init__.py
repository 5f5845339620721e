"""Activations as one table: formula, derivative, symmetries, exact values, linear pieces and certified enclosures.

To add one, add a row to `table._ROWS`; tests check every row's claims against its function.
"""

from fiberscope.activations.rows import Activation as Activation
from fiberscope.activations.rows import Piece as Piece
from fiberscope.activations.table import Given as Given
from fiberscope.activations.table import activation as activation
from fiberscope.activations.table import layer_activations as layer_activations
from fiberscope.activations.table import names as names
