"""Pre-activations as integer combinations of inputs and atoms: two networks evaluated symbolically on one cell.

Each pre-activation is a combination of the inputs and of *atoms* relu(p), p again such a combination up to a positive
factor; equal atoms of f and g are one atom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from fiberscope import rationals
from fiberscope.certificates.cases import exact_intervals
from fiberscope.domains import Box
from fiberscope.fibers.chain import with_bias
from fiberscope.network import Network

Form = dict[int, int]
"""Integer coefficients by column: inputs 0 .. n - 1, the constant n, then atoms. No zeros."""
Key = tuple[tuple[int, int], ...]
_Interval = tuple[Fraction | None, Fraction | None]
Ends = dict[Key, _Interval]
"""For a direction, a primitive integer vector, the interval that its product with the inputs lies in."""


@dataclass(frozen=True)
class Knot:
    """z - t = size * p for one knot t of a neuron, p primitive; `atom` is relu of p or of -p (`turned`).

    `side` is its sign where z is constant, or signs of what the neuron takes or its enclosure show it, else 0.
    """

    at: Fraction
    jump: Fraction
    form: Form
    size: Fraction
    atom: int
    turned: bool
    side: int


Place = tuple[str, int, int, Knot]
"""Network, layer, neuron and knot."""


@dataclass(eq=False)
class SignedLayer:
    """The pre-activations of one layer for the signs that the layers below have, and what follows for its signs."""

    forms: list[tuple[Form, Fraction]]
    knots: list[list[Knot]]
    values: list[dict[tuple[int, ...], tuple[Form, Fraction]]]
    above: dict[tuple[tuple[int, ...], ...], SignedLayer | Outputs] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of a network as forms over one unit."""

    forms: list[Form]
    unit: int


class Atoms:
    """All atoms met so far: their forms, and for those affine in the inputs where they are positive.

    An atom is oriented as it was met first: only its negative, met later, is turned.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.names: dict[Key, int] = {}
        self.forms: dict[int, Form] = {}
        self.lines: dict[int, tuple[Key, Fraction, int]] = {}
        """(direction, end, way): the argument of relu is >= 0 where way * (direction . x - end) >= 0."""

    def find(self, form: Form) -> tuple[int, bool]:
        """(atom, turned) of a primitive form."""
        key = tuple(sorted(form.items()))
        atom = self.names.get(key)
        if atom is not None:
            return atom, False
        atom = self.names.get(tuple((c, -v) for c, v in key))
        if atom is not None:
            return atom, True
        atom = self.names[key] = self.n + 1 + len(self.names)
        self.forms[atom] = form
        if key[-1][0] <= self.n:
            normal = [(c, v) for c, v in key if c < self.n]
            size = math.gcd(*(v for _, v in normal)) * (1 if normal[0][1] > 0 else -1)
            line = tuple((c, v // size) for c, v in normal)
            self.lines[atom] = line, Fraction(-form.get(self.n, 0), size), 1 if size > 0 else -1
        return atom, False

    def affine(self, atom: int) -> bool:
        """Whether its argument is affine in the inputs."""
        return atom in self.lines


class SymbolicNet:
    """One network with integer weights, evaluated on forms; results are shared by all cells of the same signs."""

    def __init__(self, net: Network, atoms: Atoms, inputs: list[tuple[Form, Fraction]], box: Box) -> None:
        self.atoms, self.net = atoms, net
        taken, self.ends = exact_intervals(net, box)
        self.signs = [[_sign(*pair) for pair in row] for row in taken]
        self.tables = []
        for layer in net.layers:
            ints, unit = rationals.integers(with_bias(layer.weight, layer.bias))
            rows = [([(j, int(v)) for j, v in enumerate(row[:-1]) if v], int(row[-1])) for row in ints]
            self.tables.append((rows, unit))
        self.bottom = self._layer(0, inputs)

    def forget(self) -> None:
        """Drop the layers prepared for signs met so far."""
        if isinstance(self.bottom, SignedLayer):
            self.bottom.above.clear()

    def _layer(self, k: int, inputs: list[tuple[Form, Fraction]]) -> SignedLayer | Outputs:
        """Pre-activations of layer k (or the outputs) from the forms below."""
        unit = math.lcm(1, *(size.denominator for _, size in inputs))
        below = list(_over(inputs, unit))
        if k == len(self.tables):
            return Outputs([{c: v * factor for c, v in form.items()} for form, factor in below], unit)
        rows, scale = self.tables[k]
        forms, knots = [], []
        pieces = self.net.layers[k].activation.pieces or ()
        known = [form.keys() <= {self.atoms.n} for form, _ in below]
        for (weights, bias), (low, high) in zip(rows, self.ends[k], strict=True):
            form, fixed = {self.atoms.n: bias * unit}, bias * unit
            rises = falls = True  # whether all terms but the constant are >= 0, or <= 0
            for j, w in weights:
                part, factor = below[j]
                factor *= w
                for c, v in part.items():
                    form[c] = form.get(c, 0) + factor * v
                if known[j]:
                    fixed += factor * part.get(self.atoms.n, 0)
                else:
                    up, down = self.signs[k][j] if w > 0 else self.signs[k][j][::-1]
                    rises, falls = rises and up, falls and down
            value = fixed * scale / unit
            if rises:
                low = value if low is None else max(low, value)
            if falls:
                high = value if high is None else min(high, value)
            p, size = _primitive(form, scale / unit)
            forms.append((p, size))
            knots.append(
                [
                    self._knot(p, size, left.hi or Fraction(0), right.slope - left.slope, (low, high))
                    for left, right in zip(pieces, pieces[1:], strict=False)
                ]
            )
        return SignedLayer(forms, knots, [{} for _ in forms])

    def _knot(self, form: Form, size: Fraction, at: Fraction, jump: Fraction, ends: _Interval) -> Knot:
        n = self.atoms.n
        if at:
            shifted = {c: v * size.numerator * at.denominator for c, v in form.items()}
            shifted[n] = shifted.get(n, 0) - at.numerator * size.denominator
            form, size = _primitive(shifted, Fraction(1, size.denominator * at.denominator))
        constant = form.keys() <= {n}
        if (ends[0] is not None and ends[0] >= at) or (constant and form.get(n, 0) >= 0):
            return Knot(at, jump, form, size, -1, False, 1)
        if (ends[1] is not None and ends[1] <= at) or constant:
            return Knot(at, jump, form, size, -1, False, -1)
        atom, turned = self.atoms.find(form)
        return Knot(at, jump, form, size, atom, turned, 0)

    def outputs(self, signs: Signs, where: dict[int, Place], name: str) -> Outputs:
        """The outputs on a cell; `where` gets the first neuron of each atom whose sign is open."""
        node: SignedLayer | Outputs = self.bottom
        k = 0
        while isinstance(node, SignedLayer):
            sides = []
            for i, knots in enumerate(node.knots):
                own = []
                for knot in knots:
                    side = knot.side or signs.side(knot)
                    own.append(side)
                    if not side and knot.atom not in where:
                        where[knot.atom] = name, k, i, knot
                sides.append(tuple(own))
            key = tuple(sides)
            above = node.above.get(key)
            if above is None:
                above = node.above[key] = self._layer(k + 1, self._activated(node, k, key))
                signs.prepared += 1
            node, k = above, k + 1
        return node

    def _activated(self, node: SignedLayer, k: int, sides: Sequence[tuple[int, ...]]) -> list[tuple[Form, Fraction]]:
        """s(z) = first piece + sum of jump * relu(z - t), as forms."""
        first = (self.net.layers[k].activation.pieces or ())[0]
        out = []
        for (form, size), knots, known, own in zip(node.forms, node.knots, node.values, sides, strict=True):
            if own not in known:
                terms = [(form, size * first.slope), ({self.atoms.n: 1}, first.intercept)]
                for knot, side in zip(knots, own, strict=True):
                    if not side:
                        terms.append(({knot.atom: 1}, knot.size * knot.jump))
                    if side > 0 or (not side and knot.turned):  # relu(p) = relu(-p) + p
                        terms.append((knot.form, knot.size * knot.jump))
                known[own] = _summed([(f, q) for f, q in terms if q and f])
            out.append(known[own])
        return out


def _sign(low: Fraction | None, high: Fraction | None) -> tuple[bool, bool]:
    """Whether all of an interval is >= 0, and whether all of it is <= 0."""
    return low is not None and low >= 0, high is not None and high <= 0


def _over(terms: list[tuple[Form, Fraction]], unit: int) -> Iterator[tuple[Form, int]]:
    return ((form, size.numerator * (unit // size.denominator)) for form, size in terms)


def _primitive(form: Form, size: Fraction) -> tuple[Form, Fraction]:
    """The same form as a positive factor times coprime integers."""
    form = {c: v for c, v in form.items() if v}
    common = math.gcd(*form.values())
    if common <= 1:
        return form, size
    return {c: v // common for c, v in form.items()}, size * common


def _summed(terms: list[tuple[Form, Fraction]]) -> tuple[Form, Fraction]:
    if len(terms) <= 1:
        return terms[0] if terms else ({}, Fraction(1))
    unit = math.lcm(*(size.denominator for _, size in terms))
    out: Form = {}
    for form, factor in _over(terms, unit):
        for c, v in form.items():
            out[c] = out.get(c, 0) + v * factor
    return _primitive(out, Fraction(1, unit))


class Signs:
    """For every direction the interval that its linear form is known to lie in on the present cell."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.ends: Ends = {}
        self.prepared = 0

    def side(self, knot: Knot) -> int:
        """1 or -1 where the knot's form has one sign on the cell, else 0."""
        found = self.atoms.lines.get(knot.atom)
        if found is None:
            return 0
        line, end, way = found
        low, high = self.ends.get(line, (None, None))
        if low is not None and low >= end:
            return -way if knot.turned else way
        if high is not None and high <= end:
            return way if knot.turned else -way
        return 0

    def with_side(self, knot: Knot, side: int) -> Ends:
        """The intervals once the knot's form has a sign."""
        line, end, way = self.atoms.lines[knot.atom]
        low, high = self.ends.get(line, (None, None))
        return {**self.ends, line: (end, high) if side * (-way if knot.turned else way) > 0 else (low, end)}
