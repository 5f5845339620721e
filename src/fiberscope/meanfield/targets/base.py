"""What every target is: a function on the sphere that knows its expectations, parity, symmetry and subspace."""

from __future__ import annotations

import abc
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiberscope.arguments import shown
from fiberscope.errors import InputError
from fiberscope.results import Rigor

if TYPE_CHECKING:
    from fiberscope.meanfield.symmetry.groups import OrthogonalGroup

FloatArray = NDArray[np.float64]


class Target(abc.ABC):
    """A target f* on R^d, with inputs x ~ U(S^{d-1}) (arXiv 2211.08771).

    Attributes:
        dimension: d.
        exact: whether `potential` is a closed form (rounding apart); if not, `rigor` says how it is obtained.
        rigor: NUMERICAL for closed forms and deterministic quadrature, SAMPLED for sampled expectations.
    """

    dimension: int
    exact: bool = True
    rigor: Rigor = Rigor.NUMERICAL

    @abc.abstractmethod
    def __call__(self, points: FloatArray) -> FloatArray:
        """Values f*(x): points (n, d) -> (n,)."""

    @abc.abstractmethod
    def potential(self, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E[f*(x) relu(b.x)] and its gradient in b: directions (m, d) -> (m,), (m, d).

        1-homogeneous in b, so gradient . b = value; b = 0 gives the value 0 and the gradient 0.
        """

    @property
    @abc.abstractmethod
    def second_moment(self) -> float:
        """E[f*(x)^2]."""

    @property
    @abc.abstractmethod
    def linear_part(self) -> FloatArray:
        """Beta = E[f*(x) x], (d,)."""

    @property
    @abc.abstractmethod
    def parity(self) -> int | None:
        """+1 for an even function, -1 for an odd one, None for neither (or not known)."""

    @property
    @abc.abstractmethod
    def subspace(self) -> FloatArray:
        """Orthonormal rows (dH, d) of a subspace H with f*(x) = f*(x_H), the smallest one that is known."""

    @cached_property
    def group(self) -> OrthogonalGroup:
        """Orthogonal maps T with f*(Tx) = f*(x): signed permutations and O(H-perp), see `detect_group`."""
        from fiberscope.meanfield.targets.detection import detect_group

        return detect_group(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension})"

    def __add__(self, other: Target) -> Target:
        """The sum of two targets of one dimension."""
        from fiberscope.meanfield.targets.sums import Sum

        return Sum((self, other)) if isinstance(other, Target) else NotImplemented

    def __rmul__(self, factor: float) -> Target:
        """The target times a number."""
        from fiberscope.meanfield.targets.sums import Scaled

        return Scaled(factor, self)


def checked_target(given: object) -> Target:
    """A target, or an error that says how to make one.

    Raises:
        InputError: for anything else.

    >>> checked_target("norm:2")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    InputError: 'norm:2' is no target; ...
    """
    if isinstance(given, Target):
        return given
    how = "Sampled(f, d) makes one of a function" if callable(given) else "target_of(text, d) makes one of a text"
    raise InputError(f"{shown(given)} is no target; give one of fs.meanfield, such as Linear(beta); {how}")
