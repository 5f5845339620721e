"""Equality decided cell by cell: a tree of splits by signs of pre-activations, complete for piecewise-linear nets.

Each pre-activation is a combination of the inputs and of *atoms* relu(p), p again such a combination up to a positive
factor; equal atoms of f and g are one atom. As soon as the outputs of f and g are the same combination, the networks
are equal on the cell, whatever the signs of the atoms that are left. Otherwise the cell is split where an atom that the
difference rests on changes its sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from fiberscope import rationals
from fiberscope.certificates.cases import exact_intervals
from fiberscope.domains import Box
from fiberscope.errors import FiberscopeError, InputError, UnsupportedError
from fiberscope.fibers.chain import with_bias
from fiberscope.fibers.documents import heading
from fiberscope.fibers.witnesses import find_witness
from fiberscope.network import Network
from fiberscope.programs import Cut, Polyhedron, inner_point, strict_solution
from fiberscope.results import Answer, Progress, Stopwatch

Form = dict[int, int]
"""Integer coefficients by column: inputs 0 .. n - 1, the constant n, then atoms. No zeros."""
Key = tuple[tuple[int, int], ...]
_Interval = tuple[Fraction | None, Fraction | None]
Ends = dict[Key, _Interval]
"""For a direction, a primitive integer vector, the interval that its product with the inputs lies in."""

_NODES = 50_000
"""Prepared layers kept before the memory is emptied."""
_LOOK = 4
"""Places tried at a node for one that does not split it."""
_RANKED = 128
"""Most inputs for which the rank of the first layers is asked."""


@dataclass(frozen=True)
class Outcome:
    """What the cells showed.

    Args:
        answer: YES with a certificate, NO with a witness, or UNDECIDED.
        certificate: the document of kind "cases".
        witness: an input of the domain at which the exact outputs differ.
        cells: leaves of the tree on which equality was shown.
        reason: one sentence.
        nodes: nodes of the tree.
    """

    answer: Answer
    certificate: dict[str, Any] | None
    witness: tuple[Fraction, ...] | None
    cells: int
    reason: str
    nodes: int = 0


# ---- forms and atoms


@dataclass(frozen=True)
class _Knot:
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


_Place = tuple[str, int, int, _Knot]
"""Network, layer, neuron and knot."""


@dataclass(eq=False)
class _Layer:
    """The pre-activations of one layer for the signs that the layers below have, and what follows for its signs."""

    forms: list[tuple[Form, Fraction]]
    knots: list[list[_Knot]]
    values: list[dict[tuple[int, ...], tuple[Form, Fraction]]]
    above: dict[tuple[tuple[int, ...], ...], _Layer | _Outputs] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Outputs:
    forms: list[Form]
    unit: int


class _Atoms:
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
        return atom in self.lines


class _Net:
    """One network with integer weights, evaluated on forms; results are shared by all cells of the same signs."""

    def __init__(self, net: Network, atoms: _Atoms, inputs: list[tuple[Form, Fraction]], box: Box) -> None:
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
        if isinstance(self.bottom, _Layer):
            self.bottom.above.clear()

    def _layer(self, k: int, inputs: list[tuple[Form, Fraction]]) -> _Layer | _Outputs:
        """Pre-activations of layer k (or the outputs) from the forms below."""
        unit = math.lcm(1, *(size.denominator for _, size in inputs))
        below = list(_over(inputs, unit))
        if k == len(self.tables):
            return _Outputs([{c: v * factor for c, v in form.items()} for form, factor in below], unit)
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
        return _Layer(forms, knots, [{} for _ in forms])

    def _knot(self, form: Form, size: Fraction, at: Fraction, jump: Fraction, ends: _Interval) -> _Knot:
        n = self.atoms.n
        if at:
            shifted = {c: v * size.numerator * at.denominator for c, v in form.items()}
            shifted[n] = shifted.get(n, 0) - at.numerator * size.denominator
            form, size = _primitive(shifted, Fraction(1, size.denominator * at.denominator))
        constant = form.keys() <= {n}
        if (ends[0] is not None and ends[0] >= at) or (constant and form.get(n, 0) >= 0):
            return _Knot(at, jump, form, size, -1, False, 1)
        if (ends[1] is not None and ends[1] <= at) or constant:
            return _Knot(at, jump, form, size, -1, False, -1)
        atom, turned = self.atoms.find(form)
        return _Knot(at, jump, form, size, atom, turned, 0)

    def outputs(self, signs: _Signs, where: dict[int, _Place], name: str) -> _Outputs:
        """The outputs on a cell; `where` gets the first neuron of each atom whose sign is open."""
        node: _Layer | _Outputs = self.bottom
        k = 0
        while isinstance(node, _Layer):
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

    def _activated(self, node: _Layer, k: int, sides: Sequence[tuple[int, ...]]) -> list[tuple[Form, Fraction]]:
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


# ---- cells


class _Signs:
    """For every direction the interval that its linear form is known to lie in on the present cell."""

    def __init__(self, atoms: _Atoms) -> None:
        self.atoms = atoms
        self.ends: Ends = {}
        self.prepared = 0

    def side(self, knot: _Knot) -> int:
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

    def with_side(self, knot: _Knot, side: int) -> Ends:
        """The intervals once the knot's form has a sign."""
        line, end, way = self.atoms.lines[knot.atom]
        low, high = self.ends.get(line, (None, None))
        return {**self.ends, line: (end, high) if side * (-way if knot.turned else way) > 0 else (low, end)}


Path = dict[int, tuple[Form, Fraction]]
"""By number of the inequality: form >= 0 with coprime integers, and the factor to the inequality as it is named."""


@dataclass(eq=False)
class _Cell:
    """An open node of the tree; `share` is its part of the work, `shape` None where floats gave up."""

    index: int
    depth: int
    share: float
    shape: Polyhedron | None
    ends: Ends
    path: Path


def decide_by_cells(
    f: Network, g: Network, domain: Box, clock: Stopwatch, *, cells: int | None = None,
    progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """Decide whether f(x) = g(x) for all x of the domain, by a tree of sign splits; complete without a limit.

    Leaves: on a cell where the signs of some pre-activations are known, both networks are the same combination of
    inputs and atoms; or the cell has no interior, by nonnegative multipliers over Q (Motzkin). Floats only propose.

    Args:
        f: a network with piecewise-linear activations.
        g: another with as many inputs and outputs, of any widths and depth. Logits are compared.
        domain: a box, possibly unbounded.
        clock: stops between nodes.
        cells: stops after so many cells proved equal.
        progress: called with (fraction, text).

    Returns:
        The outcome; UNDECIDED only where the clock or `cells` ended the search.

    Raises:
        InputError: if inputs or outputs differ in number, or the domain does not fit.
        UnsupportedError: if an activation is not piecewise linear.

    Complexity: cells of the arrangement of all hidden layers but the last (often fewer), one small linear program each.
    Source: cells of joint activation patterns; Motzkin's transposition theorem.

    >>> f = Network.from_arrays(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, -1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.0]], [0.0]), activation=["identity"])
    >>> decide_by_cells(f, g, Box.everywhere(1), Stopwatch(None)).answer.name
    'YES'
    """
    if (f.widths[0], f.widths[-1]) != (g.widths[0], g.widths[-1]) or domain.dimension != f.widths[0]:
        raise InputError(
            f"f maps {f.widths[0]} inputs to {f.widths[-1]} outputs, g {g.widths[0]} to {g.widths[-1]}, the domain has "
            f"{domain.dimension}; expected the same numbers"
        )
    for net in (f, g):
        for layer in net.layers:
            if not layer.activation.pieces:
                raise UnsupportedError(f"{layer.activation.label} is not piecewise linear; cells cannot decide it")
    found = find_witness(f, g, domain, clock, thorough=False)
    if found is not None and found.exact and f.exact(found.x) != g.exact(found.x):
        return Outcome(Answer.NO, None, found.x, 0, "the networks differ at a sampled point")
    return _Search(f, g, domain, clock).run(cells, progress)


class _Limit(Exception):
    """A limit was met within a node; the text names it."""


class _Search:
    """The tree while it grows."""

    def __init__(self, f: Network, g: Network, box: Box, clock: Stopwatch) -> None:
        self.f, self.g, self.box, self.clock = f, g, box, clock
        self.live = _live_inputs(f, g, box)
        n = len(self.live)
        self.rest = [_rest(low, high) for low, high in zip(box.lower.tolist(), box.upper.tolist(), strict=True)]
        places = {i: k for k, i in enumerate(self.live)}
        inputs: list[tuple[Form, Fraction]] = [
            ({places[i]: 1}, Fraction(1)) if i in places else (({n: 1}, v) if v else ({}, Fraction(1)))
            for i, v in enumerate(self.rest)
        ]
        self.atoms = _Atoms(n)
        self.signs = _Signs(self.atoms)
        self.nets = {"f": _Net(f, self.atoms, inputs, box), "g": _Net(g, self.atoms, inputs, box)}
        self.nodes: list[dict[str, Any]] = [{}]
        self.equal = 0

    def root(self) -> _Cell:
        n, path, ends = len(self.live), Path(), Ends()
        for k, i in enumerate(self.live):
            low, high = float(self.box.lower[i]), float(self.box.upper[i])
            for number, way, end in ((2 * i, 1, low), (2 * i + 1, -1, high)):
                if math.isfinite(end):
                    q = Fraction(end)
                    form = {k: way * q.denominator, n: -way * q.numerator}
                    path[number] = ({c: v for c, v in form.items() if v}, Fraction(1, q.denominator))
            ends[((k, 1),)] = (
                Fraction(low) if math.isfinite(low) else None, Fraction(high) if math.isfinite(high) else None
            )  # fmt: skip
        labels = [2 * i + side for i in self.live for side in (0, 1)]
        shape = Polyhedron.from_ends(self.box.lower[self.live], self.box.upper[self.live], labels) if n else None
        return _Cell(0, 0, 1.0, shape, ends, path)

    def run(self, cells: int | None, progress: Progress | None) -> Outcome:
        """Depth first, until all leaves are closed, a witness is found or a limit is met."""
        stack, done = [self.root()], 0.0
        while stack:
            if self.clock.expired or (cells is not None and self.equal >= cells):
                return self.undecided("the time" if self.clock.expired else "the number of cells", len(stack))
            if progress is not None and len(self.nodes) % 64 < 2:
                progress(done, f"{self.equal} cells proved equal, {len(stack)} open")
            cell = stack.pop()
            try:
                step = self.visit(cell)
            except _Limit as limit:
                return self.undecided(str(limit), len(stack) + 1)
            if isinstance(step, tuple):
                text = f"the networks differ on a cell, after {self.equal} cells proved equal"
                return Outcome(Answer.NO, None, step, self.equal, text, len(self.nodes))
            stack += step
            done += cell.share - sum(child.share for child in step)
            if self.signs.prepared > _NODES:
                self.signs.prepared = 0
                for net in self.nets.values():
                    net.forget()
        text = f"{self.equal} cells, the same function on each"
        return Outcome(Answer.YES, self.document(), None, self.equal, text, len(self.nodes))

    def undecided(self, limit: str, left: int) -> Outcome:
        text = f"{self.equal} cells proved equal, {left} open when {limit} ran out"
        return Outcome(Answer.UNDECIDED, None, None, self.equal, text, len(self.nodes))

    def document(self) -> dict[str, Any]:
        return {**heading("cases", self.f, self.g, self.box), "nodes": self.nodes}

    def visit(self, cell: _Cell) -> list[_Cell] | tuple[Fraction, ...]:
        """Close the node or split it; the open children, or a witness."""
        self.signs.ends = cell.ends
        where: dict[int, _Place] = {}
        first, second = (net.outputs(self.signs, where, name) for name, net in self.nets.items())
        rest = _differences(first, second)
        if not rest:
            self.nodes[cell.index] = {"leaf": "equal"}
            self.equal += 1
            return []
        wanted = self.wanted(rest, where)
        if wanted:
            return self.split(cell, *self.first_cut(cell, [where[a] for a in wanted]), rest)
        point, proof = self.solve(cell.path)
        if point is None:
            self.nodes[cell.index] = _empty(cell.path, proof)
            return []
        return self.witness(self.off_zero(cell.path, rest[0], point))

    def wanted(self, rest: list[Form], where: dict[int, _Place]) -> list[int]:
        """Affine atoms below what the difference rests on; lowest layer first, then those that most others rest on."""
        atoms = {c for form in rest for c in form if c > self.atoms.n}
        deep = {a for a in atoms if not self.atoms.affine(a)}
        count: dict[int, int] = {}
        todo = list(deep)
        while todo:
            for c in self.atoms.forms[todo.pop()]:
                if c <= self.atoms.n:
                    continue
                if self.atoms.affine(c):
                    count[c] = count.get(c, 0) + 1
                elif c not in deep:
                    deep.add(c)
                    todo.append(c)
        count = count or dict.fromkeys(atoms, 1)
        return sorted(count, key=lambda a: (where[a][1], -count[a], a))

    def first_cut(self, cell: _Cell, places: list[_Place]) -> tuple[_Place, Cut | None]:
        """The first of a few places that does not split the cell, so that all cells below share its proof."""
        number, first = 2 * self.box.dimension + cell.depth, None
        if cell.shape is None:
            return places[0], None
        for place in places[:_LOOK]:
            cut = cell.shape.cut(self.floats(place[3].form), number)
            if cut is not None and (cut.below is None or cut.above is None):
                return place, cut
            first = first or (place, cut)
        return first or (places[0], None)

    def split(
        self, cell: _Cell, place: _Place, cut: Cut | None, rest: list[Form]
    ) -> list[_Cell] | tuple[Fraction, ...]:
        """Split a node at a knot; a side without interior is closed at once."""
        name, layer, neuron, knot = place
        number = 2 * self.box.dimension + cell.depth
        form = knot.form
        minus = {c: -v for c, v in form.items()}
        paths = {side: {**cell.path, number: (row, knot.size)} for side, row in ((-1, minus), (1, form))}
        proofs = self.closed(cut, paths, number)
        node = self.nodes[cell.index]
        node["split"] = {"net": name, "layer": layer, "neuron": neuron, "at": rationals.text(knot.at)}
        children: list[_Cell] = []
        for side, word in ((-1, "below"), (1, "above")):
            node[word] = len(self.nodes)
            self.nodes.append({})
            if proofs.get(side) is not None:
                self.nodes[-1] = _empty(paths[side], proofs[side])
                continue
            ends = self.signs.with_side(knot, side)
            shape = None if cut is None else (cut.below if side < 0 else cut.above)
            share = cell.share / (2 - len(proofs))
            children.append(_Cell(len(self.nodes) - 1, cell.depth + 1, share, shape, ends, paths[side]))
        if len(children) == 2 and all(c <= self.atoms.n or self.atoms.affine(c) for row in rest for c in row):
            found = self.kink(paths)
            if found is not None:
                return found
        return children

    def closed(self, cut: Cut | None, paths: dict[int, Path], number: int) -> dict[int, dict[int, Fraction]]:
        """Proofs that a side has no interior: the multipliers of the primitive forms, by side."""
        if cut is not None and cut.below is not None and cut.above is not None:
            return {}
        sides: tuple[int, ...] = (-1, 1)
        if cut is not None:
            side = -1 if cut.below is None else 1
            proof = self.combination(paths[-side], number, cut.support)
            if proof is not None:
                return {side: proof}
            sides = (side,)
        proofs = {side: self.solve(paths[side]) for side in sides}
        return {side: proof for side, (point, proof) in proofs.items() if point is None}

    def combination(self, path: Path, number: int, support: tuple[int, ...]) -> dict[int, Fraction] | None:
        """Multipliers >= 0 that make the last inequality's form from those of the support, plus a constant >= 0."""
        target = path[number][0]
        solution = _solve([self.row(path[k][0]) for k in support], self.row(target))
        if solution is None or any(v < 0 for v in solution[0]) or solution[1] < 0:
            return None
        return {number: Fraction(1), **{k: v for k, v in zip(support, solution[0], strict=True) if v}}

    def row(self, form: Form) -> list[int]:
        return [form.get(c, 0) for c in range(self.atoms.n + 1)]

    def floats(self, form: Form) -> Any:
        """The form with largest linear coefficient 1."""
        row = self.row(form)
        size = max(abs(v) for v in row[:-1])
        return np.array([v / size if abs(v) < size << 900 else math.copysign(1e270, v) for v in row])

    def solve(self, path: Path) -> tuple[list[Fraction] | None, dict[int, Fraction]]:
        """An exact point in the interior, or multipliers by number that leave none."""
        numbers = list(path)
        rows = [self.row(path[k][0]) for k in numbers]
        if not numbers:
            return [Fraction(0)] * len(self.live), {}
        near = inner_point(np.array([self.floats(path[k][0]) for k in numbers]))
        if near is not None:
            exact = [Fraction(v) for v in near.tolist()]
            if all(_value(row, exact) > 0 for row in rows):
                return exact, {}
        point, proof = strict_solution(rows, self.clock)
        if point is None and not proof:
            raise _Limit("the time")
        return point, {numbers[i]: v for i, v in proof.items()}

    # ---- witnesses

    def off_zero(self, path: Path, form: Form, point: list[Fraction]) -> list[Fraction]:
        """A point of the cell where an affine form that is not 0 has a value other than 0."""
        row = self.row(form)
        step = Fraction(1, max(map(abs, row)))
        if _value(row, point):
            return point
        while True:
            moved = [x + step * v for x, v in zip(point, row, strict=False)]
            if all(_value(self.row(other), moved) > 0 for other, _ in path.values()):
                return moved
            step /= 4

    def kink(self, paths: dict[int, Path]) -> tuple[Fraction, ...] | None:
        """A witness near where a segment crosses a kink that only the difference has, if exact values show it."""
        low, high = (self.solve(path)[0] for path in paths.values())
        if low is None or high is None:
            return None
        row = self.row(next(reversed(paths[1].values()))[0])
        middle = _value(row, low) / (_value(row, low) - _value(row, high))
        near = (middle + sign * Fraction(1, 4**k) for k in range(1, 12) for sign in (1, -1))
        for share in (Fraction(0), Fraction(1), middle, *near):
            if 0 <= share <= 1:
                found = self.shown([x + share * (y - x) for x, y in zip(low, high, strict=True)])
                if found is not None:
                    return found
        return None

    def shown(self, point: Sequence[Fraction]) -> tuple[Fraction, ...] | None:
        """The whole input, with few digits if that suffices, if the exact outputs differ there."""
        whole = list(self.rest)
        for i, x in zip(self.live, point, strict=True):
            whole[i] = x
        for digits in (4, 10, 20, 40):
            short = [Fraction(round(x * 2**digits), 2**digits) for x in whole]
            if self.inside(short) and self.f.exact(short) != self.g.exact(short):
                return tuple(short)
        return tuple(whole) if self.inside(whole) and self.f.exact(whole) != self.g.exact(whole) else None

    def inside(self, x: Sequence[Fraction]) -> bool:
        ends = zip(self.box.lower.tolist(), x, self.box.upper.tolist(), strict=True)
        return all(low <= v <= high for low, v, high in ends)

    def witness(self, point: list[Fraction]) -> tuple[Fraction, ...]:
        found = self.shown(point)
        if found is None:
            raise FiberscopeError("internal: the affine parts of a cell differ, but the networks do not at its point")
        return found


def _rest(low: float, high: float) -> Fraction:
    """The value of an input that need not vary."""
    return Fraction(low) if math.isfinite(low) else (Fraction(high) if math.isfinite(high) else Fraction(0))


def _live_inputs(f: Network, g: Network, box: Box) -> list[int]:
    """Inputs that vary and that a network reads; on all of R^n only as many as the first layers have rank.

    With all of R^n every row is a combination of its entries in the pivot columns, so identities between forms that
    hold in these columns hold in all.
    """
    joint = np.concatenate([rationals.fractions(net.layers[0].weight) for net in (f, g)])
    if box.is_everything and box.dimension <= _RANKED:
        return list(rationals.row_reduce(joint)[0])
    read = (joint != 0).any(axis=0)
    return [i for i in range(box.dimension) if read[i] and box.lower[i] < box.upper[i]]


def _differences(first: _Outputs, second: _Outputs) -> list[Form]:
    """Outputs of f minus those of g where they are not the same forms."""
    out = []
    for a, b in zip(first.forms, second.forms, strict=True):
        form = {c: v * second.unit for c, v in a.items()}
        for c, v in b.items():
            form[c] = form.get(c, 0) - v * first.unit
        form = {c: v for c, v in form.items() if v}
        if form:
            out.append(form)
    return out


def _empty(path: Path, proof: dict[int, Fraction]) -> dict[str, Any]:
    """The leaf with multipliers of the inequalities as they are named, the last one's being 1."""
    scaled = {k: v / path[k][1] for k, v in proof.items() if v}
    last = scaled[max(scaled)]
    try:
        texts = {str(k): rationals.text(v / last) for k, v in sorted(scaled.items())}
    except ValueError as exc:  # Python writes no longer integers
        raise _Limit("the number of digits a certificate may have") from exc
    return {"leaf": "empty", "multipliers": texts}


def _value(row: Sequence[int], point: Sequence[Fraction]) -> Fraction:
    return sum((v * x for v, x in zip(row, point, strict=False) if v), Fraction(row[-1]))


def _solve(rows: list[list[int]], target: list[int]) -> tuple[list[Fraction], Fraction] | None:
    """(multipliers, rest) with target = sum of multipliers * rows + (0, ..., 0, rest); None if there are none.

    The linear parts of the rows should be independent. Rows with one linear entry, such as the ends of a box, take
    what the others leave in their columns; these are found by elimination without fractions.
    """
    n = len(target) - 1
    single: dict[int, int] = {}
    for k, row in enumerate(rows):
        live = [c for c in range(n) if row[c]]
        if len(live) == 1 and live[0] not in single:
            single[live[0]] = k
    lone = set(single.values())
    rest = [k for k in range(len(rows)) if k not in lone]
    solved = _eliminated([[rows[k][c] for k in rest] + [target[c]] for c in range(n) if c not in single], len(rest))
    if solved is None:
        return None
    factors = [Fraction(0)] * len(rows)
    for k, v in zip(rest, solved, strict=True):
        factors[k] = v
    for c, k in single.items():
        factors[k] = (target[c] - sum((factors[j] * rows[j][c] for j in rest if rows[j][c]), Fraction(0))) / rows[k][c]
    return factors, target[n] - sum((v * row[n] for v, row in zip(factors, rows, strict=True) if row[n]), Fraction(0))


def _eliminated(table: list[list[int]], count: int) -> list[Fraction] | None:
    """The solution of `count` unknowns from rows (coefficients, right-hand side), if there is exactly one."""
    unit = 1
    for k in range(count):
        pivot = next((r for r in range(k, len(table)) if table[r][k]), None)
        if pivot is None:
            return None
        table[k], table[pivot] = table[pivot], table[k]
        head = table[k]
        for r, row in enumerate(table):
            if r != k:
                table[r] = [(head[k] * v - row[k] * h) // unit for v, h in zip(row, head, strict=True)]
        unit = head[k]
    if any(row[count] for row in table[count:]):
        return None
    return [Fraction(table[k][count], unit) for k in range(count)]
