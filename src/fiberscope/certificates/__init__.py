"""Certificates: what a reduction claims, move by move, and the independent checker that replays it over Q.

The checker shares no code with the search: exact matrices, enclosures, relaxations and difference bounds are its own.
"""

from fiberscope.certificates.checker import check
from fiberscope.certificates.format import Certificate

__all__ = ["Certificate", "check"]
