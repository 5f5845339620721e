"""How aligned the neurons of a two-layer network are with a subspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fiberscope.activations import Activation
from fiberscope.arguments import as_count, as_finite
from fiberscope.errors import InputError
from fiberscope.meanfield.symmetry.measures import neurons_of
from fiberscope.meanfield.tables import time_table
from fiberscope.results import Result, Rigor

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Alignment(Result):
    """Which share of a network's neurons points into a subspace H.

    Args:
        dimension: d.
        subspace_dimension: dH.
        times: (T,); (0,) for a network that is no flow.
        share: (T,) sum |a_j||b_j| cos^2 theta_j / sum |a_j||b_j|, theta_j the angle of b_j and H.
        share_plus: (T,) the same over neurons with a_j > 0 (0 where there are none).
        share_minus: (T,) over a_j < 0.
        mean_angle: (T,) mass-weighted mean of theta_j.
        uniform_share: dH / d, that of uniform directions.
        angles: (T, m) theta_j in [0, pi/2].
        masses: (T, m) |a_j||b_j|.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"angles", "masses"})

    dimension: int
    subspace_dimension: int
    times: FloatArray
    share: FloatArray
    share_plus: FloatArray
    share_minus: FloatArray
    mean_angle: FloatArray
    uniform_share: float
    angles: FloatArray
    masses: FloatArray
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ()

    def to_frame(self) -> dict[str, FloatArray]:
        """Columns of equal length."""
        return {
            "time": self.times, "share": self.share, "share_plus": self.share_plus,
            "share_minus": self.share_minus, "mean_angle": self.mean_angle,
        }  # fmt: skip

    def __str__(self) -> str:
        """One screen."""
        head = (
            f"neurons in R^{self.dimension} against H of dimension {self.subspace_dimension}: share of mass in H "
            f"(uniform directions: {self.uniform_share:.4g})"
        )
        table = {"t": self.times, "share": self.share, "of a > 0": self.share_plus, "of a < 0": self.share_minus}
        return "\n".join([head, *time_table({**table, "mean angle": self.mean_angle})])


def alignment(net: Any, H: Any, *, activation: str | Activation = "relu") -> Alignment:
    """How the mass |a_j||b_j| of the neurons lies to a subspace H, for a network or along a flow.

    Args:
        net: a `Network` with one hidden layer, arrays (a, B), or a flow; biases are left out.
        H: rows (dH, d) that span H, its dimension (the first coordinates), or a target with a `subspace`.
        activation: for arrays and flows.

    Raises:
        InputError: for a subspace of another dimension, or of dimension 0 or more than d.

    Complexity: O(T m d dH).

    >>> found = alignment(([1.0, -1.0], [[2.0, 0.0], [1.0, 1.0]]), 1)
    >>> found.angles[0].round(6).tolist(), found.share_plus.tolist()
    ([0.0, 0.785398], [1.0])
    """
    flow = getattr(getattr(net, "B", None), "ndim", 0) == 3
    moments = np.asarray(net.times, float) if flow else np.zeros(1)
    nets = [neurons_of(net, activation=activation, at=k) for k in range(len(moments))]
    d = nets[0].dimension
    basis = _subspace(H, d)
    angles, masses, plus, minus = [], [], [], []
    for one in nets:
        a, b, _, _ = one.floats()
        inside = b @ basis.T
        angles.append(np.arctan2(np.linalg.norm(b - inside @ basis, axis=1), np.linalg.norm(inside, axis=1)))
        masses.append(one.masses())
        plus.append(np.all(a > 0, axis=1))
        minus.append(np.all(a < 0, axis=1))
    theta, mass = np.array(angles), np.array(masses)
    square = np.cos(theta) ** 2
    return Alignment(
        dimension=d, subspace_dimension=len(basis), times=moments, share=_mean(square, mass),
        share_plus=_mean(square, mass * np.array(plus)), share_minus=_mean(square, mass * np.array(minus)),
        mean_angle=_mean(theta, mass), uniform_share=len(basis) / d, angles=theta, masses=mass,
    )  # fmt: skip


def _mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    total = weights.sum(axis=1)
    found: FloatArray = np.sum(values * weights, axis=1) / np.where(total > 0, total, 1.0)
    return found


def _subspace(H: Any, d: int) -> FloatArray:
    H = getattr(H, "subspace", H)
    if np.ndim(H) == 0:
        size = as_count(H, "H by its dimension", 1)
        if size > d:
            raise InputError(f"H of dimension {size}; give 1 <= dH <= {d}")
        return np.eye(d)[:size]
    found = as_finite(H, "H")
    if found.ndim != 2 or found.shape[1] != d:
        raise InputError(f"H of shape {found.shape}; give rows (dH, {d}) that span it, or its dimension")
    _, values, basis = np.linalg.svd(found, full_matrices=False)
    basis = basis[values > 1e-12 * values.max(initial=0.0)]
    if not len(basis):
        raise InputError(f"H of dimension 0; give 1 <= dH <= {d}")
    spanned: FloatArray = basis
    return spanned
