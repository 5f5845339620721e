"""Slow, obviously right versions of what the certificate checker computes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from fiberscope.domains import Box
from fiberscope.network import Network

End = Fraction | float
"""A rational, or an infinity."""


def _product(w: Fraction, end: End) -> End:
    if w == 0:
        return Fraction(0)
    return w * end if isinstance(end, Fraction) else math.copysign(math.inf, end * w)


def _sum(terms: list[End]) -> End:
    infinite = [t for t in terms if not isinstance(t, Fraction)]
    return infinite[0] if infinite else sum(terms, Fraction(0))


def _exact(end: float) -> End:
    return Fraction(end) if math.isfinite(end) else end


def relu_enclosure(net: Network, box: Box) -> list[list[tuple[End, End]]]:
    """Interval enclosures of the pre-activations of a ReLU network, exactly, one neuron at a time."""
    inputs = [(_exact(a), _exact(b)) for a, b in zip(box.lower.tolist(), box.upper.tolist(), strict=True)]
    out = []
    for layer in net.layers:
        ends: list[tuple[End, End]] = []
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
            weights = [Fraction(w) for w in row]
            low = [_product(w, a if w > 0 else b) for w, (a, b) in zip(weights, inputs, strict=True)]
            high = [_product(w, b if w > 0 else a) for w, (a, b) in zip(weights, inputs, strict=True)]
            ends.append((_sum([*low, Fraction(bias)]), _sum([*high, Fraction(bias)])))
        out.append(ends)
        inputs = [(max(a, Fraction(0)), max(b, Fraction(0))) for a, b in ends]
    return out


def exact_preactivations(net: Network, x: list[Fraction]) -> list[list[Fraction]]:
    """Pre-activations of all layers at a rational point."""
    out: list[list[Fraction]] = []
    h = x
    for layer in net.layers:
        z = [
            sum((Fraction(w) * v for w, v in zip(row, h, strict=True)), Fraction(b))
            for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        out.append(z)
        values = [layer.activation.value(q) for q in z]
        if any(v is None for v in values):
            raise ValueError(f"{layer.activation.label} is not rational there")
        h = [v for v in values if v is not None]
    return out


def exact_outputs(net: Network, x: list[Fraction]) -> list[Fraction]:
    """Logits at a rational point."""
    last = net.layers[-1].activation
    return [last.value(q) or Fraction(0) for q in exact_preactivations(net, x)[-1]]


def rational_points(box: Box, count: int, seed: int) -> Iterator[list[Fraction]]:
    """Corners (where finite) and random rational points of a box; unbounded sides reach about 100."""
    rng = np.random.default_rng(seed)
    top = np.where(np.isfinite(box.upper), box.upper, 0)
    low = np.where(np.isfinite(box.lower), box.lower, np.minimum(top, 0) - 100)
    high = np.where(np.isfinite(box.upper), box.upper, np.maximum(low, 0) + 100)
    for k in range(count):
        share = rng.integers(0, 2, box.dimension) if k % 2 else rng.random(box.dimension)
        yield [
            Fraction(a) + (Fraction(b) - Fraction(a)) * Fraction(float(t))
            for a, b, t in zip(low.tolist(), high.tolist(), share.tolist(), strict=True)
        ]


def holds(data: dict[str, Any], f: Network, g: Network, count: int = 40) -> bool:
    """Whether a certificate's statement survives at many points: exact values, or tanh in floats with a tolerance."""
    claim = json.dumps([data["domain"], data["bound"]])
    key = (f.digest, g.digest, claim)
    if key not in _SEEN:
        _SEEN[key] = _holds(data, f, g, count)
    return _SEEN[key]


_SEEN: dict[tuple[str, str, str], bool] = {}


def _holds(data: dict[str, Any], f: Network, g: Network, count: int) -> bool:
    box = Box.from_dict(data["domain"])
    bound = data["bound"] or {"constant": 0, "slope": 0}
    rational = all(layer.activation.value(Fraction(1, 3)) is not None for layer in f.layers)
    for x in rational_points(box, count, seed=7):
        allowed = Fraction(bound["constant"]) + Fraction(bound["slope"]) * max(map(abs, x))
        if rational:
            a, b = (exact_outputs(net, x) for net in (f, g))
            gap = max(abs(p - q) for p, q in zip(a, b, strict=True))
        else:
            point = np.array([float(v) for v in x])
            gap = Fraction(float(np.abs(f(point) - g(point)).max())) - Fraction(1, 10**9)
        if gap > allowed:
            return False
    return True
