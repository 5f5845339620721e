"""Smooth rows (and ELU): stable formulas, ball formulas, and the constants proved about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from fiberscope import balls
from fiberscope.activations.rows import INF, Activation, Array, Exact, FloatArray, above, below
from fiberscope.errors import UnsupportedError

_ZERO, _ONE = Fraction(0), Fraction(1)
_ROOT_2PI = math.sqrt(2 * math.pi)
_GELU_C = math.sqrt(2 / math.pi)
_FLAT = 120
"""exp(-z^2 / 2) and tanh' are below every float dtype's smallest number beyond this |z|."""


def smooth_row(
    name: str, formula: str, function: Any, derivative: Any, ball: balls.BallFunction, **claims: Any
) -> Activation:
    """A row enclosed by balls: `limits` at both infinities and `extrema`, brackets of all turning points."""
    limits, extrema = claims.pop("limits"), claims.pop("extrema", ())
    image = claims.get("range_", (-INF, INF))

    def enclosure(lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        return balls.enclose(ball, lo, hi, limits=limits, extrema=extrema, image=image)

    exact = claims.pop("exact", lambda q: None)
    return Activation(
        name, claims.pop("parameters", ()), formula, function, derivative, exact,
        claims.pop("enclosure", enclosure), **claims,
    )  # fmt: skip


def _at_zero(value: Fraction) -> Exact:
    return lambda q: value if q == 0 else None


def _near(z: Array) -> Array:
    """The argument cut to where its square does not overflow; what is computed from it is flat beyond."""
    kind = z.dtype.type
    return np.clip(z, kind(-_FLAT), kind(_FLAT))


def _sigmoid(z: Array) -> Array:
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1 / (1 + small), small / (1 + small)), dtype=np.asarray(z).dtype)


def _ball_sigmoid(x: Any) -> Any:
    return 1 / (1 + (-x).exp()) if not x < 0 else x.exp() / (1 + x.exp())


def _ball_softplus(x: Any) -> Any:
    return x + ((-x).exp()).log1p() if x > 0 else x.exp().log1p()


def _tanh_slope(z: Array) -> Array:
    cut = _near(z)
    return np.asarray(4 * _sigmoid(2 * cut) * _sigmoid(-2 * cut))


def _erf(z: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(z), dtype=z.dtype)


def _gauss(z: Array) -> Array:
    cut = _near(z)
    return np.asarray(np.exp(-cut * cut))


def _normal_cdf(z: Array) -> Array:
    """(1 + erf(z / sqrt 2)) / 2 without cancellation."""
    from scipy.special import erfc

    kind = z.dtype.type
    return np.asarray(kind(0.5) * erfc(-z / kind(math.sqrt(2))), dtype=z.dtype)


def _gelu_slope(z: Array) -> Array:
    cut = _near(z)
    return np.asarray(_normal_cdf(z) + cut * np.exp(-cut * cut / 2) / z.dtype.type(_ROOT_2PI))


def _ball_gelu(x: Any) -> Any:
    return x * (-x / type(x)(2).sqrt()).erfc() / 2


def _gelu_tanh_gate(z: Array) -> Array:
    """(1 + tanh u) / 2 = sigmoid(2 u) for u = sqrt(2/pi) (z + 0.044715 z^3)."""
    kind, cut = z.dtype.type, _near(z)
    return _sigmoid(kind(2 * _GELU_C) * (cut + kind(0.044715) * cut * cut * cut))


def _gelu_tanh_slope(z: Array) -> Array:
    kind, cut, gate = z.dtype.type, _near(z), _gelu_tanh_gate(z)
    inner = kind(2 * _GELU_C) * (1 + kind(3 * 0.044715) * cut * cut)
    return np.asarray(gate + cut * gate * (1 - gate) * inner)


def _ball_gelu_tanh(x: Any) -> Any:
    c = (2 / type(x).pi()).sqrt()
    return x * _ball_sigmoid(2 * c * (x + x**3 * type(x)(44715) / 1000000))


def _silu_slope(z: Array) -> Array:
    s = _sigmoid(z)
    return np.asarray(s * (1 + z * (1 - s)))


# Turning points are brackets of neighbouring floats; that s' changes sign there and nowhere else, and that s' is
# bounded by the Lipschitz constants, is proved in ball arithmetic by tests/test_activations.py.
SMOOTH: dict[str, Callable[[], Activation]] = {
    "tanh": lambda: smooth_row(
        "tanh", "tanh(z)", np.tanh, _tanh_slope, lambda x: x.tanh(), parity="odd", monotone=True,
        lipschitz=1.0, range_=(-1.0, 1.0), zeros=(0.0,), limits=(-1.0, 1.0), exact=_at_zero(_ZERO),
    ),
    "sigmoid": lambda: smooth_row(
        "sigmoid", "1 / (1 + exp(-z))", _sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), _ball_sigmoid,
        monotone=True, lipschitz=0.25, range_=(0.0, 1.0), limits=(0.0, 1.0), exact=_at_zero(Fraction(1, 2)),
    ),
    "softplus": lambda: smooth_row(
        "softplus", "log(1 + exp(z))", lambda z: np.logaddexp(z, z.dtype.type(0)), _sigmoid, _ball_softplus,
        monotone=True, lipschitz=1.0, range_=(0.0, INF), limits=(0.0, INF),
    ),
    "gelu": lambda: smooth_row(
        "gelu", "z (1 + erf(z / sqrt 2)) / 2", lambda z: z * _normal_cdf(z), _gelu_slope, _ball_gelu,
        lipschitz=1.12891, range_=(-0.17, INF), zeros=(0.0,), critical_points=(-0.7517915246935645,),
        limits=(0.0, INF), extrema=((-0.7517915246935645, -0.7517915246935644),), exact=_at_zero(_ZERO),
    ),
    "gelu_tanh": lambda: smooth_row(
        "gelu_tanh", "z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2", lambda z: z * _gelu_tanh_gate(z),
        _gelu_tanh_slope, _ball_gelu_tanh, lipschitz=1.129, range_=(-0.171, INF), zeros=(0.0,),
        critical_points=(-0.7524614220710163,), limits=(0.0, INF),
        extrema=((-0.7524614220710163, -0.7524614220710162),), exact=_at_zero(_ZERO),
    ),
    "silu": lambda: smooth_row(
        "silu", "z / (1 + exp(-z))", lambda z: z * _sigmoid(z), _silu_slope, lambda x: x * _ball_sigmoid(x),
        lipschitz=1.09985, range_=(-0.279, INF), zeros=(0.0,), critical_points=(-1.278464542761074,),
        limits=(0.0, INF), extrema=((-1.278464542761074, -1.2784645427610737),), exact=_at_zero(_ZERO),
    ),
    "erf": lambda: smooth_row(
        "erf", "erf(z)", _erf, lambda z: _gauss(z) * z.dtype.type(2 / math.sqrt(math.pi)), lambda x: x.erf(),
        parity="odd", monotone=True, lipschitz=1.12838, range_=(-1.0, 1.0), zeros=(0.0,), limits=(-1.0, 1.0),
        exact=_at_zero(_ZERO),
    ),
    "sin": lambda: smooth_row(
        "sin", "sin(z)", np.sin, np.cos, lambda x: x.sin(), parity="odd", lipschitz=1.0, range_=(-1.0, 1.0),
        zeros=None, critical_points=None, limits=(0.0, 0.0), exact=_at_zero(_ZERO),
        enclosure=lambda lo, hi: balls.enclose_wave(lambda x: x.sin(), lo, hi, 0.5),
    ),
    "cos": lambda: smooth_row(
        "cos", "cos(z)", np.cos, lambda z: -np.sin(z), lambda x: x.cos(), parity="even", lipschitz=1.0,
        range_=(-1.0, 1.0), zeros=None, critical_points=None, limits=(0.0, 0.0), exact=_at_zero(_ONE),
        enclosure=lambda lo, hi: balls.enclose_wave(lambda x: x.cos(), lo, hi, 0.0),
    ),
    "gaussian": lambda: smooth_row(
        "gaussian", "exp(-z^2)", _gauss, lambda z: -2 * _near(z) * _gauss(z), lambda x: (-x * x).exp(),
        parity="even", lipschitz=0.85777, range_=(0.0, 1.0), critical_points=(0.0,), limits=(0.0, 0.0),
        extrema=((0.0, 0.0),), exact=_at_zero(_ONE),
    ),
}  # fmt: skip


def elu(alpha: Fraction = _ONE) -> Activation:
    """The identity for z > 0, alpha (exp(z) - 1) below."""
    a = float(alpha)

    def ball(x: Any) -> Any:
        return x if x >= 0 else x.expm1() * alpha.numerator / alpha.denominator

    def function(z: Array) -> Array:
        return np.where(z > 0, z, z.dtype.type(a) * np.expm1(np.minimum(z, z.dtype.type(0))))

    def derivative(z: Array) -> Array:
        return np.asarray(np.where(z > 0, z.dtype.type(1), z.dtype.type(a) * np.exp(np.minimum(z, z.dtype.type(0)))))

    if alpha <= 0:
        raise UnsupportedError(f"elu with alpha {a:g}; expected alpha > 0")
    return smooth_row(
        "elu", "z if z > 0 else alpha (exp(z) - 1)", function, derivative, ball, parameters=(alpha,), analytic=False,
        monotone=True, lipschitz=max(1.0, above(alpha)), range_=(below(-alpha), INF), zeros=(0.0,),
        limits=(below(-alpha), INF), exact=lambda q: q if q >= 0 else None,
    )  # fmt: skip
