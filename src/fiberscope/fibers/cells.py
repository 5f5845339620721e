"""Equality decided cell by cell: a tree of splits by signs of pre-activations, complete for piecewise-linear nets.

As soon as the outputs of f and g are the same combination of inputs and atoms (see `atoms`), the networks are equal on
the cell, whatever the signs of the atoms that are left. Otherwise the cell is split where an atom that the difference
rests on changes its sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fiberscope import rationals
from fiberscope.domains import Box
from fiberscope.errors import FiberscopeError, InputError, UnsupportedError
from fiberscope.fibers.atoms import Atoms, Ends, Form, Outputs, Place, Signs, SymbolicNet
from fiberscope.fibers.documents import heading
from fiberscope.fibers.witnesses import find_witness
from fiberscope.network import Network
from fiberscope.programs import Cut, Polyhedron, combination, inner_point, strict_solution
from fiberscope.results import Answer, Progress, Stopwatch

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
        self.atoms = Atoms(n)
        self.signs = Signs(self.atoms)
        self.nets = {"f": SymbolicNet(f, self.atoms, inputs, box), "g": SymbolicNet(g, self.atoms, inputs, box)}
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
        where: dict[int, Place] = {}
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

    def wanted(self, rest: list[Form], where: dict[int, Place]) -> list[int]:
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

    def first_cut(self, cell: _Cell, places: list[Place]) -> tuple[Place, Cut | None]:
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

    def split(self, cell: _Cell, place: Place, cut: Cut | None, rest: list[Form]) -> list[_Cell] | tuple[Fraction, ...]:
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
        solution = combination([self.row(path[k][0]) for k in support], self.row(target))
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


def _differences(first: Outputs, second: Outputs) -> list[Form]:
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
