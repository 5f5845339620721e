"""Random points of parameter space at which symmetries are tried, with what counts as rounding there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.io.state_dicts import as_array
from fiberscope.training.architectures.architecture import Parameters

Array = npt.NDArray[Any]
Evaluate = Callable[[Mapping[str, Any]], Any]
"""The model's outputs on fixed inputs, from its parameters."""

_FLOOR = 1e-5
"""Relative changes below this are rounding; wrong labels change random models by more than 1e-3."""
_STRENGTHS = (0.5, 0.5, 0.1)


@dataclass(frozen=True, eq=False)
class Probe:
    """A random point with the outputs there, their size, and what is rounding relative to it."""

    point: dict[str, Any]
    evaluate: Evaluate
    output: Array
    size: float
    threshold: float

    def change(self, parameters: Mapping[str, Any], threshold: float = 0.0) -> float:
        """Relative change of the outputs, 0 if it may be rounding."""
        other = outputs(self.evaluate, parameters)
        if other.shape != self.output.shape or not np.isfinite(other).all():
            return float("inf")
        change = float(np.abs(other - self.output).max()) / self.size
        return change if change > max(self.threshold, threshold) else 0.0


def outputs(evaluate: Evaluate, parameters: Mapping[str, Any]) -> Array:
    """The outputs in float64, from an array or tensor of any framework."""
    return np.asarray(as_array(evaluate(parameters), "the output"), dtype=np.float64)


def probes_near(parameters: Parameters, evaluate: Evaluate, rng: np.random.Generator) -> list[Probe]:
    """Up to two random points near the parameters at which the outputs are finite and not all 0.

    Args:
        parameters: where to start from; floats are moved, the rest stays.
        evaluate: outputs from parameters.
        rng: source of the points.

    Two or more evaluations a point, two copies of the parameters for each.

    >>> import numpy as np
    >>> found = probes_near({"w": np.ones(2)}, lambda p: p["w"] * 3.0, np.random.default_rng(0))
    >>> len(found), found[0].change(found[0].point) == 0.0
    (2, True)
    """
    out = []
    for strength in _STRENGTHS:
        point, eps = _random_point(parameters, rng, strength)
        result = as_array(evaluate(point), "the output")
        eps = max(eps, _eps(result))
        values = result.astype(np.float64)
        size = float(np.abs(values).max(initial=0.0))
        if not np.isfinite(size) or size == 0.0:
            continue
        near = {k: v * (1 + eps * rng.choice([-1.0, 1.0], v.shape)).astype(v.dtype) if _floats(v) else v
                for k, v in point.items()}  # fmt: skip
        noise = float(np.abs(outputs(evaluate, near) - values).max()) / size
        out.append(Probe(point, evaluate, values, size, max(_FLOOR, 100 * eps, 30 * noise)))
        if len(out) == 2:
            break
    return out


def _random_point(parameters: Parameters, rng: np.random.Generator, strength: float) -> tuple[dict[str, Any], float]:
    """Parameters in general position, and the unit of their rounding; what is nowhere negative stays so (variances)."""
    point, eps = {}, 0.0
    for name in parameters:
        value = parameters[name]
        array = as_array(value, name)
        if array.dtype == object:
            array = np.asarray(rationals.rounded(array, np.float64))
        if not _floats(array) or not array.size:
            point[name] = value
            continue
        eps = max(eps, _eps(array))
        wide = array.astype(np.float64)
        scale = float(np.sqrt(np.mean(wide**2)))
        if wide.min() >= 0 and scale > 0:
            new = wide * rng.uniform(1 - strength, 1 + strength, wide.shape) + rng.uniform(
                0, strength * scale, wide.shape
            )
        else:
            scale = strength * (scale or 1 / np.sqrt(max(4, wide.size // wide.shape[0] if wide.ndim else 1)))
            new = wide + scale * rng.standard_normal(wide.shape)
        point[name] = np.asarray(new).astype(array.dtype)
    return point, eps


def _floats(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _eps(array: Array) -> float:
    return float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0
