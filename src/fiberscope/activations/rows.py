"""One row of the table: an activation with everything that is claimed about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_floats, shown
from fiberscope.errors import InputError, UnsupportedError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Parity = Literal["odd", "even"] | None
Exact = Callable[[Fraction], Fraction | None]
Enclosure = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]

INF = math.inf


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
        derivative: s' on float arrays (dtype kept); at a kink the value on the left, so relu'(0) = 0.
        exact: the exact value at a rational, or None; what `value` calls.
        enclosure: what `enclose` calls, on float64 arrays of one shape with lo <= hi.
        parity: "odd", "even" or None.
        homogeneity: k with s(t z) = t^k s(z) for all t > 0, or None.
        analytic: whether s is real analytic on R.
        monotone: whether s is known to be non-decreasing.
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
    lipschitz: float = INF
    range_: tuple[float, float] = (-INF, INF)
    zeros: tuple[float, ...] | None = ()
    critical_points: tuple[float, ...] | None = ()
    pieces: tuple[Piece, ...] | None = None
    exact_over_q: bool = False

    def __call__(self, z: npt.ArrayLike) -> Array:
        """s(z) elementwise, in the dtype of z; integers and plain numbers become float64. NaN and infinities pass.

        Raises:
            InputError: if an entry is no number.
        """
        array = as_floats(z, f"argument of {self.label}", dtype=None)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # inf and NaN say it themselves
            return self.function(array)

    def value(self, q: Fraction | int | float) -> Fraction | None:
        """The exact value at a rational, or None where it is not known to be rational.

        Raises:
            InputError: if q is no finite number; a float is the rational that it is.

        >>> from fiberscope.activations import activation
        >>> activation("relu").value(Fraction(-1, 3)), activation("sigmoid").value(Fraction(0))
        (Fraction(0, 1), Fraction(1, 2))
        """
        if not isinstance(q, Fraction):
            try:
                q = rationals.as_fraction(q)
            except (TypeError, ValueError, OverflowError) as exc:
                raise InputError(f"{self.label}.value of {shown(q)}; give a finite number") from exc
        return self.exact(q)

    def enclose(self, lo: npt.ArrayLike, hi: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Certified enclosure of s on [lo, hi], elementwise; infinite ends allowed, ends rounded outward.

        Args:
            lo: lower ends, float64; a NaN end is read as "unknown", that is -inf.
            hi: upper ends, of a shape that broadcasts with lo; a NaN end is read as inf.

        Returns:
            (lower, upper) float64. Not widened where s is piecewise linear and its values are floats.

        Raises:
            InputError: if a lower end lies above its upper end, or the shapes do not fit.

        >>> from fiberscope.activations import activation
        >>> low, high = activation("relu").enclose(np.array([-1.0]), np.array([2.0]))
        >>> low.tolist(), high.tolist()
        ([0.0], [2.0])
        """
        low, high = (as_floats(end, f"ends of {self.label}.enclose") for end in (lo, hi))
        if low.shape != high.shape:
            try:
                low, high = np.broadcast_arrays(low, high)
            except ValueError as exc:
                raise InputError(f"{self.label}.enclose was given shapes {low.shape} and {high.shape}") from exc
        low, high = np.where(np.isnan(low), -INF, low), np.where(np.isnan(high), INF, high)
        if (low > high).any():
            raise InputError(f"{self.label}.enclose was given a lower end above its upper end; give lo <= hi")
        return self.enclosure(low, high)

    def piece_on(self, lo: float, hi: float) -> Piece | None:
        """The linear piece that contains the whole interval, or None.

        >>> from fiberscope.activations import activation
        >>> activation("relu").piece_on(0.0, math.inf).slope
        Fraction(1, 1)
        """
        for piece in self.pieces or ():
            above = lo >= piece.lo if piece.lo is not None else not math.isnan(lo)
            below = hi <= piece.hi if piece.hi is not None else not math.isnan(hi)
            if above and below:
                return piece
        return None

    @property
    def spec(self) -> dict[str, Any]:
        """Name and parameters, JSON-ready."""
        return {"name": self.name, "parameters": [str(p) for p in self.parameters]}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Activation:
        """Inverse of `spec`.

        Raises:
            UnsupportedError: if the name is unknown, or name or parameters are missing or malformed.
        """
        from fiberscope.activations.table import activation

        name, parameters = spec.get("name"), spec.get("parameters", ())
        if not isinstance(name, str) or not isinstance(parameters, list | tuple):
            wanted = '{"name": "leaky_relu", "parameters": ["1/100"]}'
            raise UnsupportedError(f"activation spec {str(dict(spec))[:80]}; expected one like {wanted}")
        return activation(name, *parameters)

    @property
    def label(self) -> str:
        """Name with parameters, "leaky_relu(0.01)"."""
        if not self.parameters:
            return self.name
        return f"{self.name}({', '.join(f'{float(p):g}' for p in self.parameters)})"

    def __eq__(self, other: object) -> bool:
        """Equal name and parameters."""
        if not isinstance(other, Activation):
            return NotImplemented
        return (self.name, self.parameters) == (other.name, other.parameters)

    def __hash__(self) -> int:
        """Of name and parameters."""
        return hash((self.name, self.parameters))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name and parameters: the row is looked up again."""
        return Activation.from_spec, (self.spec,)

    def __str__(self) -> str:
        """The label."""
        return self.label


def below(q: Fraction) -> float:
    """The largest float <= q, up to one unit in the last place."""
    value = float(q)
    return value if Fraction(value) <= q else math.nextafter(value, -INF)


def above(q: Fraction) -> float:
    """The smallest float >= q, up to one unit in the last place."""
    return -below(-q)
