"""Single steps of a gradient flow: exponential, linearly implicit, and explicit, for a batch of runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ORDER: dict[str, int] = {"exponential": 4, "rosenbrock": 3, "explicit": 5}
_SERIES = [1.0 / factorial(j + 4) for j in range(17)]


@dataclass(frozen=True, eq=False)
class Local:
    """-grad L in the metric (B, M) and the eigendecomposition of its Hessian, (B, M) and (B, M, M)."""

    force: FloatArray
    values: FloatArray
    vectors: FloatArray | None

    @classmethod
    def empty(cls, runs: int, size: int, *, stiff: bool) -> Local:
        """Room for all runs."""
        return cls(np.zeros((runs, size)), np.zeros((runs, size)), np.zeros((runs, size, size)) if stiff else None)

    def at(self, runs: npt.NDArray[np.int64]) -> Local:
        """Of some runs."""
        return Local(self.force[runs], self.values[runs], None if self.vectors is None else self.vectors[runs])

    def rotated(self, v: FloatArray) -> FloatArray:
        """Coordinates in the eigenbasis."""
        return v if self.vectors is None else np.asarray((self.vectors.swapaxes(1, 2) @ v[..., None])[..., 0])

    def back(self, v: FloatArray) -> FloatArray:
        """Inverse of `rotated`."""
        return v if self.vectors is None else np.asarray((self.vectors @ v[..., None])[..., 0])


Force = Callable[[FloatArray], FloatArray]
Step = Callable[[Force, Local, FloatArray], tuple[FloatArray, FloatArray]]


def phis(z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The entire functions phi_1, phi_3 and phi_4 of exponential integrators, phi_k(z) = sum_j z^j / (j + k)!.

    They obey phi_0 = exp and phi_k = z phi_(k+1) + 1 / k!.

    Args:
        z: any shape.

    Complexity: 17 terms of the series for |z| < 1, the recurrence elsewhere.

    >>> [round(24 * float(v[0])) for v in phis(np.array([0.0]))]
    [24, 4, 1]
    """
    near = np.abs(z) < 1.0
    small, far = np.where(near, z, 0.0), np.where(near, 1.0, z)
    series = np.full_like(z, _SERIES[-1])
    for c in _SERIES[-2::-1]:
        series *= small
        series += c
    third = small * series + 1 / 6
    first = np.expm1(far) / far
    up = ((first - 1.0) / far - 0.5) / far
    return (
        np.where(near, small * (small * third + 0.5) + 1.0, first),
        np.where(near, third, up),
        np.where(near, series, (up - 1 / 6) / far),
    )


def _exponential(force: Force, local: Local, h: FloatArray) -> tuple[FloatArray, FloatArray]:
    """exprb43: exact for linear flows; error estimate from its embedded method of order 3."""
    z = -h * local.values
    f = local.rotated(local.force)
    whole, third, fourth = phis(z)
    half = -np.expm1(0.5 * z) / np.where(z == 0.0, -0.5, local.values)  # h / 2 phi_1(z / 2)
    half = np.where(z == 0.0, 0.5 * h, half)

    def remainder(u: FloatArray) -> FloatArray:
        """The non-linear part of the force at theta + u minus that at theta, in the eigenbasis."""
        return local.rotated(force(local.back(u))) + local.values * u - f

    d2 = remainder(half * f)
    d3 = remainder(h * whole * (f + d2))
    error = h * fourth * (12 * d3 - 48 * d2)
    u = h * (whole * f + third * (16 * d2 - 2 * d3)) + error
    return local.back(u), local.back(error)


def _rosenbrock(force: Force, local: Local, h: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rodas3 with gamma = 1/2, in the eigenbasis where its linear systems are diagonal."""
    f = local.rotated(local.force)
    inverse = 1.0 / (2.0 / h + local.values)
    u1 = inverse * f
    u2 = inverse * (f + 4 / h * u1)
    u3 = inverse * (local.rotated(force(local.back(2 * u1))) + (u1 - u2) / h)
    u4 = inverse * (local.rotated(force(local.back(2 * u1 + u3))) + (u1 - u2 - 8 / 3 * u3) / h)
    return local.back(2 * u1 + u3 + u4), local.back(u4)


_DOPRI = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DOPRI_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def _explicit(force: Force, local: Local, h: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Dormand-Prince 5(4)."""
    stages = [local.force]
    shift = np.zeros_like(local.force)
    for row in _DOPRI:
        shift = h * sum((a * k for a, k in zip(row, stages, strict=True)), start=np.zeros_like(shift))
        stages.append(force(shift))
    error = h * sum((e * k for e, k in zip(_DOPRI_ERROR, stages, strict=True)), start=np.zeros_like(shift))
    return shift, error


STEPS: dict[str, Step] = {"exponential": _exponential, "rosenbrock": _rosenbrock, "explicit": _explicit}
