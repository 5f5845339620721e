"""Exact arithmetic over Q on arrays: floats are dyadic rationals, everything else is a `Fraction`.

An *exact array* is a NumPy array that is either of a float dtype (each entry is the rational that the float is)
or of object dtype holding `fractions.Fraction`. Functions here take and return exact arrays; they stay in floats as
long as no rounding happens, which is checked, and fall back to rationals otherwise. python-flint is used only here
and in `balls`.
"""

from __future__ import annotations

from fiberscope.rationals.arrays import ExactArray as ExactArray
from fiberscope.rationals.arrays import FloatArray as FloatArray
from fiberscope.rationals.arrays import as_fraction as as_fraction
from fiberscope.rationals.arrays import canonical_bytes as canonical_bytes
from fiberscope.rationals.arrays import equal as equal
from fiberscope.rationals.arrays import exact_array as exact_array
from fiberscope.rationals.arrays import fractions as fractions
from fiberscope.rationals.arrays import from_texts as from_texts
from fiberscope.rationals.arrays import is_rational as is_rational
from fiberscope.rationals.arrays import mapped as mapped
from fiberscope.rationals.arrays import nearest_floats as nearest_floats
from fiberscope.rationals.arrays import representable as representable
from fiberscope.rationals.arrays import rounded as rounded
from fiberscope.rationals.arrays import simplified as simplified
from fiberscope.rationals.arrays import text as text
from fiberscope.rationals.arrays import texts as texts
from fiberscope.rationals.matrices import from_residue as from_residue
from fiberscope.rationals.matrices import matmul as matmul
from fiberscope.rationals.matrices import nullspace_mod as nullspace_mod
from fiberscope.rationals.matrices import rank as rank
from fiberscope.rationals.matrices import rank_mod as rank_mod
from fiberscope.rationals.matrices import row_reduce as row_reduce
from fiberscope.rationals.sums import add as add
from fiberscope.rationals.sums import dyadic as dyadic
from fiberscope.rationals.sums import integers as integers
from fiberscope.rationals.sums import primitive_rows as primitive_rows
from fiberscope.rationals.sums import scale as scale
from fiberscope.rationals.sums import scale_columns as scale_columns
from fiberscope.rationals.sums import scale_rows as scale_rows
from fiberscope.rationals.sums import total as total
