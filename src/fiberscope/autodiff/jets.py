"""Derivatives of every order of the analytic activations, from the differential equations they satisfy.

Each activation is a polynomial in z and a few base functions whose derivatives are polynomials in them again, such as
tanh' = 1 - tanh^2. Over floats the base functions take their values; modulo a prime they take random ones, one for each
residue z, subject to their laws (odd, even, value at 0): a *formal jet*. Ranks found with formal jets are those of a
generic member of the class, after arXiv 2510.09564; polynomials are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.autodiff.rings import Floats, Residues, Ring
from fiberscope.errors import ScopeError

Array = npt.NDArray[Any]
Monomial = tuple[int, ...]
Poly = dict[Monomial, Fraction]


@dataclass(frozen=True)
class Base:
    """A base function g: its values over floats, and its law modulo a prime.

    Args:
        values: g on float arrays.
        law: "odd", "even", "complement" (g(-z) = 1 - g(z)), "circle" (sin and cos by the half-angle formulas),
            "constant", or None.
        at_zero: g(0), None for any.
        ball: g on one ball (`arb`).
    """

    values: Callable[[Array], Array]
    ball: Callable[[Any], Any]
    law: str | None = None
    at_zero: Fraction | None = None


@dataclass(frozen=True)
class Rule:
    """s as a polynomial in (z, g_1, g_2, ...), and the derivatives of the g_i as such polynomials.

    A polynomial is a dictionary from the exponents of (z, g_1, g_2, ...) to coefficients.
    """

    bases: tuple[Base, ...]
    value: Poly
    slopes: tuple[Poly, ...] = ()
    known: dict[int, Poly] = field(default_factory=dict, compare=False, repr=False)

    def derivative(self, order: int) -> Poly:
        """s^(order) as a polynomial."""
        if order == 0:
            return self.value
        if order not in self.known:
            self.known[order] = _derive(self.derivative(order - 1), self.slopes)
        return self.known[order]


def _derive(poly: Poly, slopes: tuple[Poly, ...]) -> Poly:
    out: dict[Monomial, Fraction] = {}
    one = {(0,) * (len(slopes) + 1): Fraction(1)}
    for monomial, c in poly.items():
        for i, e in enumerate(monomial):
            rest = tuple(v - (j == i) for j, v in enumerate(monomial))
            for step, d in (one if i == 0 else slopes[i - 1]).items() if e else ():
                key = tuple(a + b for a, b in zip(rest, step, strict=True))
                out[key] = out.get(key, Fraction(0)) + c * e * d
    return {k: v for k, v in out.items() if v}


def _p(**terms: int | Fraction) -> Poly:
    """A polynomial from its monomials: `_00=1, _02=-1` is 1 - g^2."""
    return {tuple(int(d) for d in name[1:]): Fraction(c) for name, c in terms.items()}


def rule_of(row: Activation) -> Rule:
    """The rule of an activation.

    Raises:
        ScopeError: if it is not analytic, or has no rule.

    >>> from fiberscope.activations import activation
    >>> {k: int(v) for k, v in rule_of(activation("tanh")).derivative(2).items()}  # -2 t + 2 t^3
    {(0, 1): -2, (0, 3): 2}
    """
    if row.name in ("identity", "square", "polynomial"):
        return Rule((), {(k,): c for k, c in enumerate(_coefficients(row)) if c})
    rules = _rules()
    if row.name not in rules:
        known = ", ".join(sorted([*rules, "identity", "polynomial", "square"]))
        raise ScopeError(f"{row.label} has no derivatives of every order here; known are {known}")
    return rules[row.name]


def _coefficients(row: Activation) -> tuple[Fraction, ...]:
    fixed = {"identity": (0, 1), "square": (0, 0, 1)}
    return tuple(Fraction(c) for c in fixed.get(row.name, row.parameters))


@cache
def _rules() -> dict[str, Rule]:
    from fiberscope.activations import activation

    def s(name: str) -> Callable[[Array], Array]:
        return activation(name)

    def slope(name: str, factor: float = 1.0) -> Callable[[Array], Array]:
        row = activation(name)
        return lambda z: np.asarray(factor * row.derivative(z))

    half, zero, one = Fraction(1, 2), Fraction(0), Fraction(1)
    root = float(np.sqrt(2 / np.pi))
    cube = Fraction(44715, 1000000)

    def twice_root(x: Any) -> Any:
        return 2 * (2 / type(x).pi()).sqrt()

    gate = Base(s("sigmoid"), _ball_gate, "complement", half)
    plus = Base(s("softplus"), lambda x: x + (-x).exp().log1p() if x > 0 else x.exp().log1p())
    normal = Base(
        lambda z: np.asarray(np.exp(-z * z / 2) / np.sqrt(2 * np.pi)),
        lambda x: (-x * x / 2).exp() / (2 * type(x).pi()).sqrt(), "even",
    )  # fmt: skip
    cumulative = Base(
        lambda z: np.asarray(0.5 * (1 + s("erf")(z / np.sqrt(2)))), lambda x: (-x / type(x)(2).sqrt()).erfc() / 2,
        "complement", half,
    )  # fmt: skip
    inner = Base(
        lambda z: s("sigmoid")(2 * root * (z + float(cube) * z**3)),
        lambda x: _ball_gate(twice_root(x) * (x + x**3 * cube.numerator / cube.denominator)), "complement", half,
    )  # fmt: skip
    twice = Base(lambda z: np.full_like(z, 2 * root), twice_root, "constant")
    bell = Base(slope("erf"), lambda x: 2 * (-x * x).exp() / type(x).pi().sqrt(), "even")
    error = Base(s("erf"), lambda x: x.erf(), "odd", zero)
    gauss = Base(s("gaussian"), lambda x: (-x * x).exp(), "even", one)
    wave = (Base(np.sin, lambda x: x.sin(), "circle", zero), Base(np.cos, lambda x: x.cos(), "circle", one))
    turn = (_p(_001=1), _p(_010=-1))
    # exponents of (z, g1, g2): "_012" is g1 g2^2
    return {
        "tanh": Rule((Base(np.tanh, lambda x: x.tanh(), "odd", zero),), _p(_01=1), (_p(_00=1, _02=-1),)),
        "sigmoid": Rule((gate,), _p(_01=1), (_p(_01=1, _02=-1),)),
        "softplus": Rule((plus, gate), _p(_010=1), (_p(_001=1), _p(_001=1, _002=-1))),
        "silu": Rule((gate,), _p(_11=1), (_p(_01=1, _02=-1),)),
        "gelu": Rule((cumulative, normal), _p(_110=1), (_p(_001=1), _p(_101=-1))),
        "gelu_tanh": Rule(
            (inner, twice), _p(_110=1),
            (_p(_011=1, _021=-1) | _p(_211=3 * cube, _221=-3 * cube), {}),
        ),
        "erf": Rule((error, bell), _p(_010=1), (_p(_001=1), _p(_101=-2))),
        "gaussian": Rule((gauss,), _p(_01=1), (_p(_11=-2),)),
        "sin": Rule(wave, _p(_010=1), turn),
        "cos": Rule(wave, _p(_001=1), turn),
    }  # fmt: skip


def evaluate(poly: Poly, symbols: list[Array], ring: Ring) -> Array:
    """A polynomial in the given arrays."""
    total = ring.multiply(symbols[0], ring.constant(0))
    powers: list[list[Array]] = [[symbol] for symbol in symbols]
    for monomial, c in poly.items():
        term: Array | None = None
        for i, e in enumerate(monomial):
            while len(powers[i]) < e:
                powers[i].append(ring.multiply(powers[i][-1], symbols[i]))
            if e:
                term = powers[i][e - 1] if term is None else ring.multiply(term, powers[i][e - 1])
        one = ring.constant(c)
        total = ring.add(total, one if term is None else ring.multiply(term, one))
    return total


class TrueJets:
    """The derivatives themselves, over floats; of piecewise linear activations the slope on the left of a kink."""

    def __call__(self, row: Activation, z: Array, order: int) -> list[Array]:
        """s(z), s'(z), ..., s^(order)(z)."""
        if row.pieces is not None and row.name != "identity":
            return [row(z), row.derivative(z), *(np.zeros_like(z) for _ in range(order - 1))][: order + 1]
        rule = rule_of(row)
        symbols = [z, *(base.values(z) for base in rule.bases)]
        return [evaluate(rule.derivative(j), symbols, Floats()) for j in range(order + 1)]


def _ball_gate(x: Any) -> Any:
    return 1 / (1 + (-x).exp()) if not x < 0 else x.exp() / (1 + x.exp())


class FormalJets:
    """Random derivatives modulo a prime, a function of the residue z, that obey the laws of the class.

    Args:
        ring: residues.
        seed: of the random values.
        law: None for the row's own rule; "generic", "odd", "even" or "null" (s(0) = 0) for a generic analytic function
            of that class, whatever the row is (the identity keeps its own rule).
    """

    def __init__(self, ring: Residues, seed: int, law: str | None = None) -> None:
        """Draw the functions."""
        self.ring = ring
        self.seed = seed
        self.law = law

    def __call__(self, row: Activation, z: Array, order: int) -> list[Array]:
        """s(z), ..., s^(order)(z) as residues."""
        if self.law is not None and row.name != "identity":
            return [self._generic(z, j) for j in range(order + 1)]
        rule = rule_of(row)
        symbols = [z, *(self._base(base, z, i) for i, base in enumerate(rule.bases))]
        return [evaluate(rule.derivative(j), symbols, self.ring) for j in range(order + 1)]

    def _generic(self, z: Array, j: int) -> Array:
        parity = {"odd": 1, "even": 0}.get(self.law or "")
        if parity is not None:
            return self._value(z, 100 + j, "even" if (parity + j) % 2 == 0 else "odd", None)
        return self._value(z, 100 + j, None, Fraction(0) if self.law == "null" and j == 0 else None)

    def _base(self, base: Base, z: Array, tag: int) -> Array:
        p = self.ring.prime
        if base.law == "circle":
            half = self._value(z, 50, "odd", None)
            square = half * half % p
            below = self.ring.inverse((1 + square) % p)
            above = 2 * half % p if base.at_zero == 0 else (1 - square) % p
            return np.asarray(above * below % p)
        if base.law == "complement":
            odd = self._value(z, tag, "odd", None)
            return np.asarray((odd + self.ring.constant(Fraction(1, 2))) % p)
        if base.law == "constant":
            return np.full_like(z, int(self._hash(np.array([0]), 70 + tag)[0]))
        return self._value(z, tag, base.law, base.at_zero)

    def _value(self, z: Array, tag: int, parity: str | None, at_zero: Fraction | None) -> Array:
        p = self.ring.prime
        mirrored = 2 * z > p
        out = self._hash(np.where(mirrored, p - z, z) if parity else z, tag)
        if parity == "odd":
            out = np.where(z == 0, 0, np.where(mirrored, p - out, out))
        if at_zero is not None:
            out = np.where(z == 0, self.ring.constant(at_zero), out)
        return np.asarray(out)

    def _hash(self, z: Array, tag: int) -> Array:
        """Residues in 1, ..., p - 1 by the finaliser of splitmix64."""
        with np.errstate(over="ignore"):
            x = z.astype(np.uint64) + np.uint64(
                ((tag + 1) * 0x9E3779B97F4A7C15 + self.seed * 0xD1B54A32D192ED03) % 2**64
            )
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
        return np.asarray((x % np.uint64(self.ring.prime - 1)).astype(np.int64) + 1)


class Jets(Protocol):
    """Derivatives s^(0), ..., s^(order) at an array of ring elements."""

    def __call__(self, row: Activation, z: Array, order: int) -> list[Array]:
        """The list of order + 1 arrays of the shape of z."""
        ...
