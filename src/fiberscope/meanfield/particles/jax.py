"""The door for JAX: the sums over pairs of neurons in float64 on a device of JAX, the process's settings untouched."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError, import_optional
from fiberscope.meanfield.harmonics.kernels import unit_rows
from fiberscope.meanfield.particles.forces import PopulationForces
from fiberscope.meanfield.symmetry.groups import OrthogonalGroup
from fiberscope.meanfield.targets.base import Target

FloatArray = NDArray[np.float64]
_PURPOSE = "evolve particles on a device of JAX"
_CHUNK = {"cpu": 1 << 20}
_LARGE = 1 << 24
"""Pairs held at once on other devices (128 MiB a copy)."""


class JaxForces(PopulationForces):
    """`PopulationForces` with the sum over pairs of neurons on a device of JAX; the target's part stays in NumPy.

    Args:
        target: the target.
        group: see `PopulationForces`.
        platform: "cpu", "gpu", ..., or None for the default device of JAX.

    Raises:
        MissingDependencyError: without JAX.
        InputError: if JAX has no such device.
    """

    def __init__(self, target: Target, group: OrthogonalGroup | None = None, platform: str | None = None) -> None:
        """Find the device; compiling happens at the first call."""
        super().__init__(target, group)
        self._jax = import_optional("jax", extra="jax", purpose=_PURPOSE)
        try:
            self.device = self._jax.devices(platform)[0]
        except RuntimeError as exc:
            first = str(exc).strip().splitlines()[0]
            raise InputError(f"JAX has no device {platform!r} here ({first}); give 'jax' or 'jax:cpu'") from None
        self._compiled = self._jax.jit(partial(_pairs, self._jax))
        self._chunk = _CHUNK.get(self.device.platform, _LARGE)

    @classmethod
    def of(cls, forces: PopulationForces, platform: str | None = None) -> JaxForces:
        """The same forces on a device."""
        return cls(forces.target, forces.group, platform)

    def _net(self, at: FloatArray, B: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        units, norms = unit_rows(at)
        others, lengths = unit_rows(B)
        loads = weights * lengths / (2 * np.pi * self.dimension)
        step = min(len(at), max(1, self._chunk // len(B)))
        blocks = -(-len(at) // step)
        padded = np.zeros((blocks * step, self.dimension))
        padded[: len(at)] = units
        with self._double():
            put = self._jax.device_put((padded.reshape(blocks, step, -1), others, loads), self.device)
            values, gradients = (np.asarray(part, np.float64) for part in self._compiled(*put))
        values = values.reshape(-1)[: len(at)]
        gradients = gradients.reshape(-1, self.dimension)[: len(at)].copy()
        gradients[norms == 0] = 0.0
        return values * norms, gradients

    def _double(self) -> Any:
        # double precision for this block alone: the process keeps its setting
        switch = getattr(self._jax, "enable_x64", None)
        if switch is None:
            switch = import_optional("jax.experimental", extra="jax", purpose=_PURPOSE).enable_x64
        return switch(True)


def _pairs(jax: Any, blocks: Any, others: Any, loads: Any) -> tuple[Any, Any]:
    """`kernels.arccos_potential` at unit rows (k, step, d), one block after the other: (k, step), (k, step, d)."""
    np_ = jax.numpy

    def block(units: Any) -> tuple[Any, Any]:
        cosines = np_.clip(units @ others.T, -1.0, 1.0)
        sines = np_.sqrt((1.0 - cosines) * (1.0 + cosines))
        rest = np_.pi - np_.arctan2(sines, cosines)
        gradients = (sines @ loads)[:, None] * units + (rest * loads) @ others
        return (sines + rest * cosines) @ loads, gradients

    found: tuple[Any, Any] = jax.lax.map(block, blocks)
    return found
