"""The conservation laws of a piecewise linear network at its own weights and on its own domain.

Near theta the gradient fields are polynomials in theta and x, one for each activation pattern that occurs; patterns
that never occur leave more laws than generic weights have, and each such law is explained or reported as unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.autodiff.families import Family, RestrictedFamily
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Residues
from fiberscope.domains import Box
from fiberscope.invariants.laws.growth import lie_growth
from fiberscope.invariants.regions import nearby, realised_regions
from fiberscope.models.affine import AffineFields, paired
from fiberscope.models.networks import Patterns, piecewise_family, sides, weight_places
from fiberscope.network import Network
from fiberscope.results import Result, Rigor, Stopwatch
from fiberscope.symmetries.conservation import laws
from fiberscope.symmetries.lawdata import Law
from fiberscope.symmetries.patterns import activity, as_points

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Explanation:
    """What a family of laws, with the key of its theorem, adds to those listed before it: `extra` independent ones."""

    text: str
    formula: str
    extra: int
    theorem: str


@dataclass(frozen=True, eq=False)
class LocalCount(Result):
    """The number of laws near theta while the same activation patterns occur on the domain.

    Args:
        count: M - rank of the Lie algebra of the patterns' fields; an upper bound if patterns may be missing.
        explained: families of laws and what each adds.
        unexplained: laws that none of them accounts for.
        dimension: M.
        growth: ranks of brackets by depth.
        patterns: number of activation patterns used, each at an exact input inside its region.
        complete: whether it is proved that no others have an open region.
        domain: where the inputs are.
        rigor: EXACT if the count is proved, else GENERIC (ranks that ended) or SAMPLED (patterns found by search).
        notes: what to know.
        theorems: keys.
    """

    count: int
    explained: tuple[Explanation, ...]
    unexplained: int
    dimension: int
    growth: tuple[int, ...]
    patterns: int
    complete: bool
    domain: str
    rigor: Rigor
    notes: tuple[str, ...] = ()
    theorems: tuple[str, ...] = ("law-count", "bracket-rank")

    def __str__(self) -> str:
        """A few lines."""
        all_ = "all" if self.complete else "found"
        most = "at most " if self.rigor is Rigor.SAMPLED else ""
        lines = [
            f"  here, on {self.domain}: {most}{self.count} laws ({self.patterns} activation patterns, {all_}; "
            f"{self.rigor.value})"
        ]
        lines += [f"    {e.extra}: {e.text}" for e in self.explained if e.extra]
        if self.unexplained:
            lines.append(f"    {self.unexplained}: unexplained")
        return "\n".join([*lines, *(f"    {note}" for note in self.notes)])


def local_count(
    net: Network,
    *,
    domain: Box | str | None = None,
    data: npt.ArrayLike | None = None,
    bias: bool = True,
    seed: int = 0,
    clock: Stopwatch,
) -> LocalCount | None:
    """Count the laws at the network's own weights on a domain or on data.

    Args:
        net: hidden activations all piecewise linear, or any analytic ones with data.
        domain: of the inputs; None for all of R^n.
        data: inputs (N, n_0) instead.
        bias: whether biases are trained; if not they must be zero.
        seed: of the random residues.
        clock: ends the search for patterns and for deeper brackets.

    Returns:
        None where nothing is local: analytic activations without data, or mixed ones.

    Complexity: enumeration of regions, then about M gradients over up to 64 patterns each.

    >>> from fiberscope.results import Budget
    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.0, 1.0]), ([[1.0, -1.0]], [0.0]))
    >>> local_count(net, domain="[2,3]", clock=Budget().start()).count  # both always active: a linear network
    3
    """
    rows = [layer.activation for layer in net.hidden]
    piecewise = all(row.pieces is not None for row in rows)
    if not rows or (not piecewise and (data is None or any(row.pieces is not None for row in rows))):
        return None
    if piecewise and data is None and all(row.name == "identity" for row in rows):
        return None
    notes: tuple[str, ...] = ()
    complete = stays = True
    if data is not None:
        points = as_points(net, data)
        patterns = _on_data(net, points, piecewise)
        where = f"the given {len(points)} inputs"
    else:
        box = net.domain(domain)
        found = realised_regions(net, box, bias=bias, seed=seed, clock=clock, beside=nearby(net, bias=bias, seed=seed))
        if not found.count:  # no input inside the region of a pattern
            return None
        complete, stays, points = found.complete, found.open, found.points
        notes = (found.note,) if found.note else ()
        held = np.where(found.free, np.nan, box.lower)
        fixed = None if found.free.all() else np.broadcast_to(held, (found.count, net.widths[0]))
        patterns = Patterns(found.slopes, found.intercepts, fixed)
        where = str(box)
    family: Family = piecewise_family(net.widths, rows, patterns)
    kept = np.arange(family.size) if bias else weight_places(net.widths)
    if not bias:
        family = RestrictedFamily(family, np.zeros(family.size), kept)
    ring, rng = Residues(), np.random.default_rng((seed, 7))
    theta = ring.random(rng, (family.size,))
    explained = _explained(net, family, kept, points, theta, rng, seed)
    ceiling = family.size - sum(e.extra for e in explained)
    growth = lie_growth(family, theta, ring, rng, ceiling=ceiling, clock=clock, seed=seed)
    if not growth.stable:
        notes = (*notes, f"an upper bound: {growth.stopped}")
    rigor = Rigor.GENERIC
    if not complete or not stays:
        rigor = Rigor.SAMPLED
    elif growth.rank == ceiling and piecewise:
        rigor = Rigor.EXACT
    count, missing = family.size - growth.rank, ceiling - growth.rank
    named = dict.fromkeys(e.theorem for e in explained if e.extra)
    return LocalCount(
        count, explained, missing, family.size, growth.ranks, patterns.count, complete, where, rigor, notes,
        ("law-count", "bracket-rank", *named),
    )  # fmt: skip


def _on_data(net: Network, points: Array, piecewise: bool) -> Patterns:
    inputs = np.asarray(points.astype(np.float64)) if rationals.is_rational(points) else points
    if not piecewise:
        empty = tuple(np.zeros((len(points), n)) for n in net.widths[1:-1])
        return Patterns(empty, empty, inputs)
    seen = activity(net, points)
    return Patterns(seen.slopes, seen.intercepts, inputs)


def _explained(
    net: Network, family: Family, kept: Array, points: Array, theta: Array, rng: np.random.Generator, seed: int
) -> tuple[Explanation, ...]:
    """Known laws, those of every theta first, with the rank each adds; only ones whose derivative vanishes."""
    ring = Residues()
    entries = sorted(laws(net, points).entries, key=lambda law: law.kind != "global")
    moves = family.fields(Nilpotent(ring, {0: theta[None]}), family.draw(ring, rng, 8), FormalJets(ring, seed)).real
    table = np.zeros((0, family.size), dtype=np.int64)
    out, rank = [], 0
    for law in entries:
        rows = law_fields(law).restricted(kept).at(ring, theta)
        holds = ~ring.matmul(rows[None], moves.T[None])[0].any(axis=1)
        table = np.concatenate([table, rows[holds]])
        new = rationals.rank_mod(table, ring.prime)
        out.append(Explanation(law.statement, law.formula, new - rank, law.theorem))
        rank = new
    return tuple(out)


def law_fields(law: Law) -> AffineFields:
    """The gradients of a law's functions as affine fields.

    >>> from fiberscope.symmetries import laws
    >>> net = Network.from_arrays(([[3.0]], [1.0]), ([[2.0]], [7.0]))
    >>> from fiberscope.autodiff.rings import Floats
    >>> law_fields(laws(net).entries[0]).at(Floats(), net.theta).tolist()
    [[6.0, 2.0, -4.0, 0.0]]
    """
    size = sum(a * b + b for a, b in zip(law.widths, law.widths[1:], strict=False))
    if law.name == "constants":
        return AffineFields.of(size, law.size, [], [(i, p, 1) for i, p in enumerate(law.parameters)])
    incoming, outgoing = sides(law.widths, law.layer)
    first, second = law.pairs()
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    return paired(size, incoming, outgoing, pairs, degree=law.degree)
