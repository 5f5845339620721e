"""Replays a tree of cases: on every leaf two piecewise-linear networks are one function, or the cell has no interior.

A split takes a pre-activation z that is affine in the inputs on its cell and sends z <= t below, z >= t above. The
complement of finitely many hyperplanes is dense in the domain, so cells without interior may be left out: both networks
are continuous. Pre-activations are combinations of the inputs, 1 and atoms relu(p), with p such a combination with
coprime integers; where -p is met later, relu(-p) = relu(p) - p. Networks with the same combination at their outputs are
the same function whatever the signs of the atoms. A pre-activation has one sign against a knot if it is constant on
the cell, if exact interval arithmetic on the domain shows it, if all terms w h of it that are not constant on the cell
have one sign by that arithmetic and so has the rest, or if an end of the domain or a split of the same normal does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from fiberscope import rationals
from fiberscope.activations import Piece
from fiberscope.certificates.format import rational
from fiberscope.domains import Box
from fiberscope.errors import CertificateError
from fiberscope.network import Network

Row = dict[int, int]
"""Coefficients by column: inputs 0 .. n - 1, the constant n, then atoms; zeros are left out."""
Key = tuple[tuple[int, int], ...]
Ends = dict[Key, tuple[Fraction | None, Fraction | None]]
"""For a direction, an integer vector, the interval that its product with x lies in."""
Interval = tuple[Fraction | None, Fraction | None]
Line = tuple[Key, Fraction, int]
"""(direction, end, way): an affine row is >= 0 where way * (direction . x - end) >= 0."""

_KEPT = 20_000
"""Rows of layers that are remembered."""


@dataclass(frozen=True, eq=False)
class _Knot:
    """z_i - t = size p with coprime integers p: its sign where it is plain, else the atom, or the line if affine."""

    p: Row
    size: Fraction
    sign: int
    atom: int
    turned: bool
    line: Line | None


@dataclass(eq=False)
class Rows:
    """Forms rows[i] / unit, and their knots if an activation follows."""

    rows: list[Row]
    unit: int
    knots: list[list[_Knot]] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """A node that is still to be replayed: the inequalities on its path and what they say about directions."""

    node: int
    path: tuple[tuple[Row, int], ...]
    ends: Ends


def replay_cases(data: Mapping[str, Any], f: Network, g: Network, box: Box) -> tuple[int, str] | None:
    """Why a certificate of kind "cases" does not prove f = g on the box: (node, reason), or None if it does.

    Args:
        data: a document that the format accepts.
        f: the source.
        g: the target, with as many inputs and outputs.
        box: the domain.

    Raises:
        CertificateError: if the nodes are no tree, or name a layer, neuron or inequality that does not exist.

    Complexity: O(nodes * parameters * inputs) integer operations; equal signs share their forms.
    """
    for name, net in (("source", f), ("target", g)):
        if not all(layer.activation.pieces for layer in net.layers):
            return 0, f"an activation of the {name} is not piecewise linear"
    nodes = data["nodes"]
    _tree(nodes)
    replay = _Replay(f, g, box)
    todo = [_Place(0, (), replay.domain_ends())]
    while todo:
        place = todo.pop()
        node = nodes[place.node]
        if "split" in node:
            step = replay.split(node, place)
            if isinstance(step, str):
                return place.node, step
            todo += step
        else:
            reason = replay.unequal(place) if node["leaf"] == "equal" else replay.not_empty(node, place)
            if reason is not None:
                return place.node, reason
    return None


def _tree(nodes: list[dict[str, Any]]) -> None:
    """Refuse nodes that are not one tree with root 0 and children after their parents."""
    seen = {0}
    for k, node in enumerate(nodes):
        for side in ("below", "above") if "split" in node else ():
            child = node[side]
            if not k < child < len(nodes):
                raise CertificateError(f"node {k}: {side} is {child}; expected a later node")
            if child in seen:
                raise CertificateError(f"node {k}: {side} is {child}, which another node has as its child")
            seen.add(child)
    if len(seen) != len(nodes):
        raise CertificateError(f"{len(nodes) - len(seen)} nodes have no parent")


@dataclass
class _Side:
    """One network: rows of pre-activations for the signs below them."""

    net: Network
    taken: list[list[Interval]]
    """What each layer takes on the domain, by exact interval arithmetic."""
    intervals: list[list[Interval]]
    """Likewise its pre-activations."""
    first: Rows = field(default_factory=lambda: Rows([], 1))
    known: dict[tuple[int, ...], Rows] = field(default_factory=dict)
    size: int = 0


class _Replay:
    def __init__(self, f: Network, g: Network, box: Box) -> None:
        self.box, self.n = box, box.dimension
        self.atoms: dict[Key, int] = {}
        ends = list(zip(box.lower.tolist(), box.upper.tolist(), strict=True))
        self.fixed = [low == high for low, high in ends]
        unit = math.lcm(1, *(Fraction(low).denominator for low, high in ends if low == high))
        rows: list[Row] = []
        for i, (low, _) in enumerate(ends):
            row = {self.n: int(Fraction(low) * unit)} if self.fixed[i] else {i: unit}
            rows.append({c: v for c, v in row.items() if v})
        self.nets = {}
        for name, net in (("f", f), ("g", g)):
            self.nets[name] = side = _Side(net, *exact_intervals(net, box))
            side.first = self._affine(side, 0, Rows(rows, unit))

    def domain_ends(self) -> Ends:
        """What the domain says about each input."""
        ends = {}
        for i, (low, high) in enumerate(zip(self.box.lower.tolist(), self.box.upper.tolist(), strict=True)):
            ends[((i, 1),)] = tuple(Fraction(v) if math.isfinite(v) else None for v in (low, high))
        return ends  # type: ignore[return-value]

    # ---- nodes

    def split(self, node: Mapping[str, Any], place: _Place) -> list[_Place] | str:
        """The two children, or why the split is none."""
        cut = node["split"]
        side = self.nets[cut["net"]]
        k, i = cut["layer"], cut["neuron"]
        if k >= side.net.depth or i >= side.net.layers[k].n_out:
            raise CertificateError(f"node {place.node}: {cut['net']} has no neuron {i} in a layer {k}")
        forms = self.preactivation(side, k, place.ends)
        knot = rational(cut["at"])
        form = {c: v * knot.denominator for c, v in forms.rows[i].items()}
        form[self.n] = form.get(self.n, 0) - knot.numerator * forms.unit
        unit = forms.unit * knot.denominator
        if any(c > self.n for c, v in form.items()):
            return f"neuron {i} of layer {k} of {cut['net']} is not affine on the cell"
        if all(c == self.n for c in form):
            return f"neuron {i} of layer {k} of {cut['net']} is constant on the cell"
        minus = {c: -v for c, v in form.items()}
        line, end, way = _line(form, self.n)
        low, high = place.ends.get(line, (None, None))
        above = {**place.ends, line: (_most(low, end), high) if way > 0 else (low, _least(high, end))}
        below = {**place.ends, line: (low, _least(high, end)) if way > 0 else (_most(low, end), high)}
        return [
            _Place(node["above"], (*place.path, (form, unit)), above),
            _Place(node["below"], (*place.path, (minus, unit)), below),
        ]

    def unequal(self, place: _Place) -> str | None:
        """Why the outputs are not the same combination, if they are not."""
        first, second = (self.preactivation(side, side.net.depth, place.ends) for side in self.nets.values())
        for k, (a, b) in enumerate(zip(first.rows, second.rows, strict=True)):
            if {c: v * second.unit for c, v in a.items()} != {c: v * first.unit for c, v in b.items()}:
                return f"output {k} is not the same function of the inputs on this cell"
        return None

    def not_empty(self, node: Mapping[str, Any], place: _Place) -> str | None:
        """Why the multipliers do not leave the cell without interior, if they do not."""
        total: dict[int, Fraction] = {}
        for name, text in node["multipliers"].items():
            factor = rational(text)
            if factor <= 0:
                return f"the multiplier of inequality {name} is not positive"
            row, unit = self._inequality(int(name), place)
            for c, v in row.items():
                total[c] = total.get(c, Fraction(0)) + factor * v / unit
        if not node["multipliers"]:
            return "there are no multipliers"
        if any(v for c, v in total.items() if c != self.n):
            return "the multiplied inequalities do not add up to a constant"
        if total.get(self.n, 0) > 0:
            return "the multiplied inequalities add up to a positive constant"
        return None

    def _inequality(self, number: int, place: _Place) -> tuple[Row, int]:
        """Inequality row / unit >= 0: 2 i and 2 i + 1 are the ends of input i, then come the splits from the root."""
        if number >= 2 * self.n:
            if number - 2 * self.n >= len(place.path):
                raise CertificateError(f"node {place.node}: there is no inequality {number} on its path")
            return place.path[number - 2 * self.n]
        i, upper = divmod(number, 2)
        end = float((self.box.upper if upper else self.box.lower)[i])
        if not math.isfinite(end) or self.fixed[i]:
            raise CertificateError(f"node {place.node}: inequality {number} is an end that input {i} does not have")
        q, way = Fraction(end), -1 if upper else 1
        return {i: way * q.denominator, self.n: -way * q.numerator}, q.denominator

    # ---- forms

    def preactivation(self, side: _Side, layer: int, ends: Ends) -> Rows:
        """Pre-activations of a layer on a cell, or the outputs for layer = depth."""
        forms, signs = side.first, tuple[int, ...]()
        for k in range(layer):
            found = [_sign(knot, ends) for knots in forms.knots for knot in knots]
            signs = (*signs, 2, *found)
            above = side.known.get(signs)
            if above is None:
                values = self._activated(side.net, k, forms, found)
                above = values if k + 1 == side.net.depth else self._affine(side, k + 1, values)
                if side.size > _KEPT:
                    side.known.clear()
                    side.size = 0
                side.known[signs] = above
                side.size += len(above.rows)
            forms = above
        return forms

    def _affine(self, side: _Side, k: int, below: Rows) -> Rows:
        """Pre-activations W h + b for forms h, with the knots of the activation."""
        layer, n = side.net.layers[k], self.n
        weight, weight_unit = rationals.integers(layer.weight)
        bias, bias_unit = rationals.integers(layer.bias)
        unit = math.lcm(weight_unit.denominator * below.unit, bias_unit.denominator)
        times, plus = int(weight_unit * unit / below.unit), int(bias_unit * unit)
        rows, intervals = [], []
        for i, (weights, b) in enumerate(zip(weight.tolist(), bias.tolist(), strict=True)):
            row, fixed, rises, falls = {n: plus * b}, plus * b, True, True
            for w, form, (low, high) in zip(weights, below.rows, side.taken[k], strict=True):
                if not w:
                    continue
                for c, v in form.items():
                    row[c] = row.get(c, 0) + times * w * v
                if all(c == n for c in form):
                    fixed += times * w * form.get(n, 0)
                else:
                    positive, negative = low is not None and low >= 0, high is not None and high <= 0
                    rises = rises and (positive if w > 0 else negative)
                    falls = falls and (negative if w > 0 else positive)
            rows.append({c: v for c, v in row.items() if v})
            low, high = side.intervals[k][i]
            rest = Fraction(fixed, unit)
            intervals.append((_most(low, rest) if rises else low, _least(high, rest) if falls else high))
        common = math.gcd(unit, *(v for row in rows for v in row.values()))
        unit, rows = unit // common, [{c: v // common for c, v in row.items()} for row in rows]
        ends = [piece.hi or Fraction(0) for piece in (layer.activation.pieces or ())[:-1]]
        knots = [[self._knot(row, unit, end, pair) for end in ends] for row, pair in zip(rows, intervals, strict=True)]
        return Rows(rows, unit, knots)

    def _knot(self, form: Row, unit: int, end: Fraction, interval: Interval) -> _Knot:
        """The form z - t for one neuron and one knot t."""
        row = {c: v * end.denominator for c, v in form.items()}
        row[self.n] = row.get(self.n, 0) - end.numerator * unit
        row = {c: v for c, v in row.items() if v}
        common = math.gcd(*row.values()) or 1
        p, size = {c: v // common for c, v in row.items()}, Fraction(common, unit * end.denominator)
        low, high = interval
        if all(c == self.n and v > 0 for c, v in p.items()) or (low is not None and low >= end):
            return _Knot(p, size, 1, -1, False, None)
        if all(c == self.n and v < 0 for c, v in p.items()) or (high is not None and high <= end):
            return _Knot(p, size, -1, -1, False, None)
        key, minus = tuple(sorted(p.items())), tuple(sorted((c, -v) for c, v in p.items()))
        turned = minus in self.atoms
        if turned:
            key = minus
        atom = self.atoms.setdefault(key, self.n + 1 + len(self.atoms))
        return _Knot(p, size, 0, atom, turned, None if any(c > self.n for c in p) else _line(p, self.n))

    def _activated(self, net: Network, k: int, forms: Rows, signs: list[int]) -> Rows:
        """s(z) = s_0 z + c_0 + sum over knots t of (jump of the slope at t) relu(z - t)."""
        pieces = net.layers[k].activation.pieces or ()
        left, sums = iter(signs), []
        for row, knots in zip(forms.rows, forms.knots, strict=True):
            terms = [(Fraction(pieces[0].slope, forms.unit), row), (pieces[0].intercept, {self.n: 1})]
            for knot, before, after in zip(knots, pieces, pieces[1:], strict=False):
                factor, sign = (after.slope - before.slope) * knot.size, next(left)
                if not sign:
                    terms.append((factor, {knot.atom: 1}))
                if sign > 0 or (not sign and knot.turned):
                    terms.append((factor, knot.p))
            sums.append([(factor, part) for factor, part in terms if factor])
        unit = math.lcm(1, *(factor.denominator for terms in sums for factor, _ in terms))
        rows = []
        for terms in sums:
            total: Row = {}
            for factor, part in terms:
                times = factor.numerator * (unit // factor.denominator)
                for c, v in part.items():
                    total[c] = total.get(c, 0) + times * v
            rows.append({c: v for c, v in total.items() if v})
        return Rows(rows, unit)


def exact_intervals(net: Network, box: Box) -> tuple[list[list[Interval]], list[list[Interval]]]:
    """What each layer takes and its pre-activations on a box, by interval arithmetic over Q; None is an infinite end.

    Complexity: O(parameters) integer operations.

    >>> net = Network.from_arrays(([[1.0]], [0.5]), ([[2.0]], [0.0]))
    >>> exact_intervals(net, Box.everywhere(1))[0][1]
    [(Fraction(0, 1), None)]
    """
    below: list[Interval] = [
        (Fraction(low) if math.isfinite(low) else None, Fraction(high) if math.isfinite(high) else None)
        for low, high in zip(box.lower.tolist(), box.upper.tolist(), strict=True)
    ]
    taken, out = [], []
    for layer in net.layers:
        taken.append(below)
        weight, weight_unit = rationals.integers(layer.weight)
        bias = rationals.fractions(layer.bias).tolist()
        unit = math.lcm(1, *(q.denominator for pair in below for q in pair if q is not None))
        ends = [tuple(None if q is None else int(q * unit) for q in pair) for pair in below]
        here: list[Interval] = []
        for weights, b in zip(weight.tolist(), bias, strict=True):
            sums: list[Fraction | None] = []
            for side in (0, 1):
                terms = [(w, ends[j][side if w > 0 else 1 - side]) for j, w in enumerate(weights) if w]
                known = [w * v for w, v in terms if v is not None]
                sums.append(b + weight_unit * sum(known) / unit if len(known) == len(terms) else None)
            here.append((sums[0], sums[1]))
        out.append(here)
        below = [_image(layer.activation.pieces or (), pair) for pair in here]
    return taken, out


def _image(pieces: Sequence[Piece], interval: Interval) -> Interval:
    """The interval of values of a continuous piecewise-linear function on an interval."""
    low, high = interval
    values: list[Fraction] = []
    down = up = False  # whether the values have no lower or upper end
    for piece in pieces:
        first = piece.lo if low is None else (low if piece.lo is None else max(low, piece.lo))
        last = piece.hi if high is None else (high if piece.hi is None else min(high, piece.hi))
        if first is not None and last is not None and first > last:
            continue
        values += [piece.slope * z + piece.intercept for z in (first, last) if z is not None]
        down |= (first is None and piece.slope > 0) or (last is None and piece.slope < 0)
        up |= (first is None and piece.slope < 0) or (last is None and piece.slope > 0)
    return (None if down else min(values)), (None if up else max(values))


def _line(row: Row, n: int) -> Line:
    """The line of an affine row that is not constant."""
    linear = sorted((c, v) for c, v in row.items() if c < n)
    way = 1 if linear[0][1] > 0 else -1
    size = way * math.gcd(*(v for _, v in linear))
    return tuple((c, v // size) for c, v in linear), Fraction(-row.get(n, 0), size), way


def _sign(knot: _Knot, ends: Ends) -> int:
    """1 or -1 if z - t has one sign on the cell, else 0."""
    if knot.line is None:
        return knot.sign
    line, end, way = knot.line
    low, high = ends.get(line, (None, None))
    if low is not None and low >= end:
        return way
    return -way if high is not None and high <= end else 0


def _most(a: Fraction | None, b: Fraction) -> Fraction:
    return b if a is None else max(a, b)


def _least(a: Fraction | None, b: Fraction) -> Fraction:
    return b if a is None else min(a, b)
