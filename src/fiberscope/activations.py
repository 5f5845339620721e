"""Activations as one table: formula, derivative, symmetries, exact values, linear pieces and certified enclosures.

To add one, add a row to `_ROWS`; tests check every row's claims against its function.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import balls
from fiberscope.errors import UnsupportedError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Parity = Literal["odd", "even"] | None
Exact = Callable[[Fraction], Fraction | None]
Enclosure = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]

_ZERO, _ONE = Fraction(0), Fraction(1)
_INF = math.inf


@dataclass(frozen=True)
class Piece:
    """s(z) = slope z + intercept for lo <= z <= hi; None is an infinite end."""

    lo: Fraction | None
    hi: Fraction | None
    slope: Fraction
    intercept: Fraction


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise activation s and what is proved about it.

    Args:
        name: name of the row.
        parameters: its parameters, as the rationals that floats are.
        formula: s(z) in plain text.
        function: s on float arrays of any dtype (kept).
        derivative: s' on float arrays; at a kink the value on the left.
        parity: "odd", "even" or None.
        homogeneity: k with s(t z) = t^k s(z) for all t > 0, or None.
        analytic: whether s is real analytic on R.
        monotone: whether s is non-decreasing.
        lipschitz: a proved upper bound of |s'|, inf if there is none.
        range_: a proved enclosure of all values.
        zeros: all real zeros, or None if there are infinitely many.
        critical_points: all real zeros of s', or None if there are infinitely many.
        pieces: the linear pieces in ascending order, or None if s is not piecewise linear.
        exact_over_q: whether s maps every rational to a rational.
    """

    name: str
    parameters: tuple[Fraction, ...]
    formula: str
    function: Callable[[Array], Array] = field(repr=False)
    derivative: Callable[[Array], Array] = field(repr=False)
    exact: Exact = field(repr=False)
    enclosure: Enclosure = field(repr=False)
    parity: Parity = None
    homogeneity: int | None = None
    analytic: bool = True
    monotone: bool = False
    lipschitz: float = _INF
    range_: tuple[float, float] = (-_INF, _INF)
    zeros: tuple[float, ...] | None = ()
    critical_points: tuple[float, ...] | None = ()
    pieces: tuple[Piece, ...] | None = None
    exact_over_q: bool = False

    def __call__(self, z: Array) -> Array:
        """s(z) elementwise, in the dtype of z."""
        return self.function(z)

    def value(self, q: Fraction) -> Fraction | None:
        """The exact value at a rational, or None where it is not known to be rational.

        >>> activation("relu").value(Fraction(-1, 3)), activation("sigmoid").value(Fraction(0))
        (Fraction(0, 1), Fraction(1, 2))
        """
        return self.exact(q)

    def enclose(self, lo: npt.ArrayLike, hi: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Certified enclosure of s on [lo, hi], elementwise; infinite ends allowed, ends rounded outward.

        Args:
            lo, hi: float64 arrays of one shape, lo <= hi.

        Returns:
            (lower, upper) float64 of that shape. Exact for ReLU, identity and absolute value.

        >>> low, high = activation("relu").enclose(np.array([-1.0]), np.array([2.0]))
        >>> low.tolist(), high.tolist()
        ([0.0], [2.0])
        """
        return self.enclosure(np.asarray(lo, np.float64), np.asarray(hi, np.float64))

    def piece_on(self, lo: float, hi: float) -> Piece | None:
        """The linear piece that contains the whole interval, or None.

        >>> activation("relu").piece_on(0.0, math.inf).slope
        Fraction(1, 1)
        """
        for piece in self.pieces or ():
            above = piece.lo is None or lo >= piece.lo
            if above and (piece.hi is None or hi <= piece.hi):
                return piece
        return None

    @property
    def spec(self) -> dict[str, Any]:
        """Name and parameters, JSON-ready."""
        return {"name": self.name, "parameters": [str(p) for p in self.parameters]}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Activation:
        """Inverse of `spec`."""
        return activation(str(spec["name"]), *(Fraction(str(p)) for p in spec.get("parameters", ())))

    @property
    def label(self) -> str:
        """Name with parameters, "leaky_relu(0.01)"."""
        if not self.parameters:
            return self.name
        return f"{self.name}({', '.join(f'{float(p):g}' for p in self.parameters)})"

    def __eq__(self, other: object) -> bool:
        """Equal name and parameters."""
        return isinstance(other, Activation) and (self.name, self.parameters) == (other.name, other.parameters)

    def __hash__(self) -> int:
        """Of name and parameters."""
        return hash((self.name, self.parameters))

    def __str__(self) -> str:
        """The label."""
        return self.label


# ---- piecewise linear rows


def _linear_pieces(knots: Sequence[Fraction], slopes: Sequence[Fraction], value: Fraction) -> tuple[Piece, ...]:
    """Pieces of the continuous function with these knots and slopes and this value at the first knot."""
    ends: list[Fraction | None] = [None, *knots, None]
    out, intercept = [], value - slopes[0] * knots[0]
    for k, slope in enumerate(slopes):
        if k:
            intercept += (slopes[k - 1] - slope) * knots[k - 1]
        out.append(Piece(ends[k], ends[k + 1], slope, intercept))
    return tuple(out)


def _piecewise(pieces: tuple[Piece, ...]) -> tuple[Exact, Enclosure]:
    knots = [p.hi for p in pieces[:-1] if p.hi is not None]

    def exact(q: Fraction) -> Fraction:
        piece = next(p for p in pieces if p.hi is None or q <= p.hi)
        return piece.slope * q + piece.intercept

    def at(x: FloatArray, up: bool) -> FloatArray:
        """s(x) rounded up or down, exact where floats are."""
        out = np.empty_like(x)
        for k, piece in enumerate(pieces):
            inside = np.ones(x.shape, bool) if k == 0 else x >= float(knots[k - 1])
            out[inside] = _affine(piece, x[inside], up)
        return out

    def enclosure(lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        lower = np.minimum(at(lo, False), at(hi, False))
        upper = np.maximum(at(lo, True), at(hi, True))
        for knot in knots:
            meets, value = (lo <= float(knot)) & (float(knot) <= hi), exact(knot)
            lower = np.where(meets, np.minimum(lower, _down(value)), lower)
            upper = np.where(meets, np.maximum(upper, -_down(-value)), upper)
        return lower, upper

    return exact, enclosure


def _affine(piece: Piece, x: FloatArray, up: bool) -> FloatArray:
    if piece.slope == 0:
        value = -_down(-piece.intercept) if up else _down(piece.intercept)
        return np.full_like(x, value)
    out = float(piece.slope) * x + float(piece.intercept)
    if abs(piece.slope) == 1 and piece.intercept == 0:
        return np.asarray(out)
    size = np.abs(float(piece.slope) * x) + abs(float(piece.intercept))
    error = np.where(np.isfinite(x), 4 * np.finfo(np.float64).eps * size + 1e-300, 0.0)
    return np.asarray(np.where(x == 0, out, out + error if up else out - error)) if piece.intercept == 0 else (
        out + error if up else out - error
    )


def _down(q: Fraction) -> float:
    value = float(q)
    return value if Fraction(value) <= q else math.nextafter(value, -_INF)


def _plain(pieces: tuple[Piece, ...], function: Callable[[Array], Array], name: str, **claims: Any) -> Activation:
    exact, enclosure = _piecewise(pieces)
    slopes = [float(p.slope) for p in pieces]

    def derivative(z: Array) -> Array:
        out = np.full(np.shape(z), slopes[0], dtype=np.asarray(z).dtype)
        for left, slope in zip(pieces, slopes[1:], strict=False):
            if left.hi is not None:
                out = np.where(z > float(left.hi), np.asarray(slope, out.dtype), out)
        return out

    return Activation(
        name, claims.pop("parameters", ()), claims.pop("formula"), function, derivative, exact, enclosure,
        analytic=len(pieces) == 1, lipschitz=-_down(-max(abs(p.slope) for p in pieces)), pieces=pieces,
        exact_over_q=True, **claims,
    )  # fmt: skip


def _relu() -> Activation:
    return _plain(
        _linear_pieces([_ZERO], [_ZERO, _ONE], _ZERO), lambda z: np.maximum(z, z.dtype.type(0)), "relu", formula="max(0, z)",
        homogeneity=1, monotone=True, range_=(0.0, _INF), zeros=None, critical_points=None,
    )  # fmt: skip


def _leaky(slope: Fraction = Fraction(1, 100)) -> Activation:
    pieces = _linear_pieces([_ZERO], [slope, _ONE], _ZERO)
    return _plain(
        pieces, lambda z: np.where(z > 0, z, z * z.dtype.type(float(slope))), "leaky_relu", parameters=(slope,),
        formula="z if z > 0 else slope z", homogeneity=1, monotone=slope >= 0,
        range_=(0.0 if slope <= 0 else -_INF, _INF), zeros=(0.0,) if slope else None,
        critical_points=() if slope else None,
    )  # fmt: skip


def _clip(low: Fraction = _ZERO, high: Fraction = Fraction(6), name: str = "clip") -> Activation:
    if low > high:
        raise UnsupportedError(f"clip with lower end {float(low):g} above upper end {float(high):g}; give low <= high")
    pieces = _linear_pieces([low, high], [_ZERO, _ONE, _ZERO], low)
    a, b = float(low), float(high)
    zeros = None if low == 0 or high == 0 else ((0.0,) if low < 0 < high else ())
    return _plain(
        pieces, lambda z: np.clip(z, z.dtype.type(a), z.dtype.type(b)), name,
        parameters=() if name == "hard_tanh" else (low, high), formula=f"min(max(z, {a:g}), {b:g})",
        parity="odd" if low == -high else None, monotone=True, range_=(_down(low), -_down(-high)), zeros=zeros,
        critical_points=None,
    )  # fmt: skip


def _abs() -> Activation:
    return _plain(
        _linear_pieces([_ZERO], [-_ONE, _ONE], _ZERO), np.abs, "abs", formula="|z|", parity="even", homogeneity=1,
        range_=(0.0, _INF), zeros=(0.0,),
    )  # fmt: skip


def _identity() -> Activation:
    return _plain(
        (Piece(None, None, _ONE, _ZERO),), lambda z: z, "identity", formula="z", parity="odd", homogeneity=1, monotone=True,
        zeros=(0.0,),
    )  # fmt: skip


# ---- smooth rows


def _at_zero(value: Fraction) -> Exact:
    return lambda q: value if q == 0 else None


def _smooth(name: str, formula: str, function: Any, derivative: Any, ball: balls.BallFunction, **claims: Any) -> Activation:
    limits, extrema = claims.pop("limits"), claims.pop("extrema", ())
    image = claims.get("range_", (-_INF, _INF))

    def enclosure(lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        return balls.enclose(ball, lo, hi, limits=limits, extrema=extrema, image=image)

    exact = claims.pop("exact", lambda q: None)
    return Activation(
        name, claims.pop("parameters", ()), formula, function, derivative, exact,
        claims.pop("enclosure", enclosure), **claims,
    )  # fmt: skip


def _np_sigmoid(z: Array) -> Array:
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1 / (1 + small), small / (1 + small)), dtype=np.asarray(z).dtype)


def _ball_sigmoid(x: Any) -> Any:
    return 1 / (1 + (-x).exp()) if not x < 0 else x.exp() / (1 + x.exp())


def _ball_softplus(x: Any) -> Any:
    return x + ((-x).exp()).log1p() if x > 0 else x.exp().log1p()


def _np_erf(z: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(z))


def _ball_erf(x: Any) -> Any:
    return x.erf()


_ROOT_2PI = math.sqrt(2 * math.pi)
_GELU_C = math.sqrt(2 / math.pi)


def _np_gelu(z: Array) -> Array:
    kind = np.asarray(z).dtype.type
    return np.asarray(z * kind(0.5) * (1 + _np_erf(z / kind(math.sqrt(2)))))


def _gelu_slope(z: Array) -> Array:
    kind = np.asarray(z).dtype.type
    return np.asarray(kind(0.5) * (1 + _np_erf(z / kind(math.sqrt(2)))) + z * np.exp(-z * z / 2) / kind(_ROOT_2PI))


def _ball_gelu(x: Any) -> Any:
    return x * _complement(x) / 2


def _complement(x: Any) -> Any:
    """1 + erf(x / sqrt 2) without cancellation."""
    root = type(x)(2).sqrt()
    return (-x / root).erfc()


def _np_gelu_tanh(z: Array) -> Array:
    kind = np.asarray(z).dtype.type
    return np.asarray(kind(0.5) * z * (1 + np.tanh(kind(_GELU_C) * (z + kind(0.044715) * z * z * z))))


def _gelu_tanh_slope(z: Array) -> Array:
    kind = np.asarray(z).dtype.type
    t = np.tanh(kind(_GELU_C) * (z + kind(0.044715) * z * z * z))
    inner = kind(_GELU_C) * (1 + kind(3 * 0.044715) * z * z)
    return np.asarray(kind(0.5) * (1 + t) + kind(0.5) * z * (1 - t * t) * inner)


def _ball_gelu_tanh(x: Any) -> Any:
    c = (2 / type(x).pi()).sqrt()
    inner = 2 * c * (x + x**3 * type(x)(44715) / 1000000)
    return x * _ball_sigmoid(inner)  # (1 + tanh u) / 2 = sigmoid(2 u)


def _silu_slope(z: Array) -> Array:
    s = _np_sigmoid(z)
    return np.asarray(s * (1 + z * (1 - s)))


_SMOOTH: dict[str, Callable[[], Activation]] = {
    "tanh": lambda: _smooth(
        "tanh", "tanh(z)", np.tanh, lambda z: 1 - np.tanh(z) ** 2, lambda x: x.tanh(), parity="odd", monotone=True,
        lipschitz=1.0, range_=(-1.0, 1.0), zeros=(0.0,), limits=(-1.0, 1.0), exact=_at_zero(_ZERO),
    ),
    "sigmoid": lambda: _smooth(
        "sigmoid", "1 / (1 + exp(-z))", _np_sigmoid, lambda z: _np_sigmoid(z) * _np_sigmoid(-z), _ball_sigmoid,
        monotone=True, lipschitz=0.25, range_=(0.0, 1.0), limits=(0.0, 1.0), exact=_at_zero(Fraction(1, 2)),
    ),
    "softplus": lambda: _smooth(
        "softplus", "log(1 + exp(z))", lambda z: np.logaddexp(z, z.dtype.type(0)), _np_sigmoid, _ball_softplus,
        monotone=True, lipschitz=1.0, range_=(0.0, _INF), limits=(0.0, _INF),
    ),
    "gelu": lambda: _smooth(
        "gelu", "z (1 + erf(z / sqrt 2)) / 2", _np_gelu, _gelu_slope, _ball_gelu, lipschitz=1.13,
        range_=(-0.17, _INF), zeros=(0.0,), critical_points=(-0.7517915246935645,), limits=(0.0, _INF),
        extrema=((-0.7517915246935645, -0.7517915246935644),), exact=_at_zero(_ZERO),
    ),
    "gelu_tanh": lambda: _smooth(
        "gelu_tanh", "z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2", _np_gelu_tanh, _gelu_tanh_slope,
        _ball_gelu_tanh, lipschitz=1.13, range_=(-0.171, _INF), zeros=(0.0,), critical_points=(-0.7524614220710163,),
        limits=(0.0, _INF), extrema=((-0.7524614220710163, -0.7524614220710162),), exact=_at_zero(_ZERO),
    ),
    "silu": lambda: _smooth(
        "silu", "z / (1 + exp(-z))", lambda z: z * _np_sigmoid(z), _silu_slope, lambda x: x * _ball_sigmoid(x),
        lipschitz=1.1, range_=(-0.279, _INF), zeros=(0.0,), critical_points=(-1.278464542761074,), limits=(0.0, _INF),
        extrema=((-1.278464542761074, -1.2784645427610737),), exact=_at_zero(_ZERO),
    ),
    "erf": lambda: _smooth(
        "erf", "erf(z)", _np_erf, lambda z: np.exp(-z * z) * z.dtype.type(2 / math.sqrt(math.pi)), _ball_erf,
        parity="odd", monotone=True, lipschitz=1.1284, range_=(-1.0, 1.0), zeros=(0.0,), limits=(-1.0, 1.0),
        exact=_at_zero(_ZERO),
    ),
    "sin": lambda: _smooth(
        "sin", "sin(z)", np.sin, np.cos, lambda x: x.sin(), parity="odd", lipschitz=1.0, range_=(-1.0, 1.0), zeros=None,
        critical_points=None, limits=(0.0, 0.0), exact=_at_zero(_ZERO),
        enclosure=lambda lo, hi: balls.enclose_wave(lambda x: x.sin(), lo, hi, 0.5),
    ),
    "cos": lambda: _smooth(
        "cos", "cos(z)", np.cos, lambda z: -np.sin(z), lambda x: x.cos(), parity="even", lipschitz=1.0,
        range_=(-1.0, 1.0), zeros=None, critical_points=None, limits=(0.0, 0.0), exact=_at_zero(_ONE),
        enclosure=lambda lo, hi: balls.enclose_wave(lambda x: x.cos(), lo, hi, 0.0),
    ),
    "gaussian": lambda: _smooth(
        "gaussian", "exp(-z^2)", lambda z: np.exp(-z * z), lambda z: -2 * z * np.exp(-z * z), lambda x: (-x * x).exp(),
        parity="even", lipschitz=0.858, range_=(0.0, 1.0), critical_points=(0.0,), limits=(0.0, 0.0),
        extrema=((0.0, 0.0),), exact=_at_zero(_ONE),
    ),
}  # fmt: skip


def _elu(alpha: Fraction = _ONE) -> Activation:
    a = float(alpha)

    def ball(x: Any) -> Any:
        return x if x >= 0 else x.expm1() * alpha.numerator / alpha.denominator

    def function(z: Array) -> Array:
        return np.where(z > 0, z, z.dtype.type(a) * np.expm1(np.minimum(z, z.dtype.type(0))))

    def derivative(z: Array) -> Array:
        return np.where(z > 0, z.dtype.type(1), z.dtype.type(a) * np.exp(np.minimum(z, z.dtype.type(0))))

    if alpha <= 0:
        raise UnsupportedError(f"elu with alpha {a:g}; expected alpha > 0")
    return _smooth(
        "elu", "z if z > 0 else alpha (exp(z) - 1)", function, derivative, ball, parameters=(alpha,), analytic=False,
        monotone=True, lipschitz=max(1.0, -_down(-alpha)), range_=(_down(-alpha), _INF), zeros=(0.0,),
        limits=(_down(-alpha), _INF), exact=lambda q: q if q >= 0 else None,
    )  # fmt: skip


# ---- polynomials


def _polynomial(*coefficients: Fraction, name: str = "polynomial") -> Activation:
    """c_0 + c_1 z + ... with exact rational coefficients."""
    terms = list(coefficients)
    while len(terms) > 1 and terms[-1] == 0:
        terms.pop()
    if not terms:
        raise UnsupportedError("polynomial without coefficients; give c_0, c_1, ...")
    slope = [k * c for k, c in enumerate(terms)][1:] or [_ZERO]
    odd, even = not any(terms[0::2]), not any(terms[1::2])
    live = [k for k, c in enumerate(terms) if c]
    critical, zeros = balls.real_roots(slope), balls.real_roots(terms)
    values, slopes = [float(c) for c in terms], [float(c) for c in slope]
    degree = len(terms) - 1

    def exact(q: Fraction) -> Fraction:
        total = _ZERO
        for c in reversed(terms):
            total = total * q + c
        return total

    def ball(x: Any) -> Any:
        total = type(x)(0)
        for c in reversed(terms):
            total = total * x + type(x)(c.numerator) / c.denominator
        return total

    lead = float(terms[-1])
    ends = (lead if degree == 0 else math.copysign(_INF, lead * (-1) ** degree), lead if degree == 0 else math.copysign(_INF, lead))
    function, derivative = (_horner(v) for v in (values, slopes))
    low, high = _polynomial_range(ball, critical, ends)
    return _smooth(
        name, " + ".join(f"{c} z^{k}" for k, c in enumerate(terms) if c) or "0", function, derivative, ball,
        parameters=() if name == "square" else tuple(terms), exact=exact, exact_over_q=True,
        parity="odd" if odd and any(terms) else "even" if even else None,
        homogeneity=live[0] if len(live) == 1 and live[0] else None, monotone=_never_negative(slope, critical),
        lipschitz=abs(lead) * (1 + 1e-15) if degree == 1 else 0.0 if degree == 0 else _INF, range_=(low, high),
        zeros=None if zeros is None else tuple((a + b) / 2 for a, b in zeros), limits=ends,
        critical_points=None if critical is None else tuple((a + b) / 2 for a, b in critical), extrema=critical or (),
    )  # fmt: skip


def _never_negative(terms: Sequence[Fraction], roots: Sequence[tuple[float, float]] | None) -> bool:
    """Whether a polynomial is >= 0 everywhere: its sign between roots, at rational points."""
    ends = [Fraction(v) for bracket in roots or ((0.0, 0.0),) for v in bracket]
    points = [ends[0] - 1, *((a + b) / 2 for a, b in zip(ends[1::2], ends[2::2], strict=False)), ends[-1] + 1]
    return all(sum(c * x**k for k, c in enumerate(terms)) >= 0 for x in points)


def _horner(coefficients: Sequence[float]) -> Callable[[Array], Array]:
    def evaluate(z: Array) -> Array:
        kind = np.asarray(z).dtype.type
        total = np.zeros_like(z)
        for c in reversed(coefficients):
            total = total * z + kind(c)
        return total

    return evaluate


def _polynomial_range(
    ball: balls.BallFunction, critical: Sequence[tuple[float, float]] | None, ends: tuple[float, float]
) -> tuple[float, float]:
    values = [(e, e) for e in ends] + [balls.over(ball, a, b) for a, b in critical or ()]
    return min(v[0] for v in values), max(v[1] for v in values)


# ---- the table

_ROWS: dict[str, Callable[..., Activation]] = {
    "relu": _relu,
    "leaky_relu": _leaky,
    "hard_tanh": lambda: _clip(-_ONE, _ONE, "hard_tanh"),
    "clip": _clip,
    "elu": _elu,
    "identity": _identity,
    "abs": _abs,
    "square": lambda: _polynomial(_ZERO, _ZERO, _ONE, name="square"),
    "polynomial": _polynomial,
    **_SMOOTH,
}

_ALIASES = {
    "leakyrelu": "leaky_relu", "hardtanh": "hard_tanh", "htanh": "hard_tanh", "logistic": "sigmoid", "logsig": "sigmoid",
    "tansig": "tanh", "swish": "silu", "linear": "identity", "none": "identity", "sine": "sin", "cosine": "cos",
    "poly": "polynomial", "purelin": "identity", "gelutanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gauss": "gaussian",
    "absolute": "abs",
}  # fmt: skip


def names() -> tuple[str, ...]:
    """The names of all activations."""
    return tuple(sorted(_ROWS))


def activation(row: str | Activation | Mapping[str, Any], *parameters: Fraction | float | int) -> Activation:
    """Look up an activation by name, alias, or {"name": ..., "parameters": [...]}.

    Args:
        row: an `Activation` (returned as it is), a name, or a spec.
        parameters: slope, ends, alpha or coefficients; floats are read as the rationals they are.

    Raises:
        UnsupportedError: for an unknown name or a wrong number of parameters.

    >>> activation("LeakyReLU", 0.5).label
    'leaky_relu(0.5)'
    """
    if isinstance(row, Activation):
        return row
    if isinstance(row, Mapping):
        return Activation.from_spec(row)
    key = row.strip().lower().replace("-", "_")
    key = _ALIASES.get(key, key) if key not in _ROWS else key
    if key not in _ROWS:
        near = difflib.get_close_matches(key, [*_ROWS, *_ALIASES], n=1)
        hint = f"did you mean {_ALIASES.get(near[0], near[0])!r}? " if near else ""
        raise UnsupportedError(f"unknown activation {row!r}; {hint}known: {', '.join(names())}")
    try:
        return _ROWS[key](*(Fraction(p) for p in parameters))
    except TypeError as exc:
        raise UnsupportedError(f"activation {key!r} does not take {len(parameters)} parameters") from exc
