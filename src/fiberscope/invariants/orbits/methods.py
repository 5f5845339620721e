"""The ways to the dimension of an orbit: flow then rank, brackets at the point, transport, exact ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.elimination import SMALL, Echelon, rank_of
from fiberscope.autodiff.families import Family
from fiberscope.autodiff.jets import FormalJets, Jets
from fiberscope.autodiff.liebrackets import brackets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Residues
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.orbits.flows import transported_span, wander
from fiberscope.invariants.orbits.outcome import Estimate
from fiberscope.invariants.orbits.spans import DENSE, GrowingSpan, Span, span_of
from fiberscope.invariants.orbits.subjects import Subject
from fiberscope.results import Rigor, Stopwatch

FloatArray = npt.NDArray[np.float64]

_SPARE = 8
"""Rows beyond the dimension sought: what they add must be rounding."""
_CHUNK = 512
"""Rows drawn at a time where ranks are large; a new depth is first tried with a few."""
_DEEPEST = 6
_ROUNDING = 1e-12
"""A bracket of j fields that is this small against the j-th power of their length is rounding of zero."""
_WELL = 1e-6
"""A rank whose smallest singular value is below is looked at one bracket deeper, which conditions it better."""
_STACKED = 400
"""Parameters up to which brackets of every depth are stacked; beyond, random sums of them span the same."""


def _depths(subject: Subject, rank_at: Callable[[int], Span | int], clock: Stopwatch, regular: bool,
            deepest: int = _DEEPEST, goal: int | None = None) -> tuple[list[int], Span | None]:  # fmt: skip
    """Ranks by depth until the rank is stable (at a regular point), meets its goal, or the depth is too large."""
    growth: list[int] = []
    last: Span | None = None
    for depth in range(1, min(deepest, getattr(subject.floats, "deepest", deepest)) + 1):
        span = rank_at(depth)
        rank = span if isinstance(span, int) else span.rank
        if clock.expired and growth and rank == growth[-1]:
            break  # a depth that was cut short adds nothing, and that must not look like a stable rank
        growth.append(rank)
        last = last if isinstance(span, int) else span
        settled = isinstance(span, int) or span.kept >= _WELL or depth > 2
        if growth[-1] >= (subject.top.value if goal is None else goal) and settled or clock.expired:
            break
        if regular and depth > 1 and growth[-1] == growth[-2]:
            break
    return growth, last


def _float_span(subject: Subject, point: FloatArray, rng: np.random.Generator, depth: int,
                space: GrowingSpan | None = None, basis: bool = False,
                clock: Stopwatch | None = None) -> Span:  # fmt: skip
    """Span of brackets up to a depth; large ones add to `space`, which is empty or holds those of the depths below."""
    family, size = subject.floats, subject.floats.size
    count = min(size, subject.top.value) + _SPARE

    def rows(level: int, number: int) -> list[FloatArray]:
        terms = family.brackets(point, [family.draw(rng, number) for _ in range(level)])
        typical = float(np.median(np.linalg.norm(terms[0], axis=1)))
        return [_unit(np.asarray(block), _ROUNDING * typical**j) for j, block in enumerate(terms, start=1)]

    if count <= DENSE:
        scaled = rows(depth, count)
        return span_of(np.concatenate(scaled) if size <= _STACKED else np.sum(scaled, axis=0), basis=basis)
    first = depth if space is not None and space.rank else 1
    space = GrowingSpan(size) if space is None else space
    for level in range(first, depth + 1):
        full, wanted = True, _CHUNK if level == 1 else 2 * _SPARE
        while full and space.rank < count - _SPARE and not (clock is not None and clock.expired):
            number, wanted = min(wanted, count - space.rank), _CHUNK
            full = space.add(rows(level, number)[-1]) == number
    return space.span


def _space(subject: Subject) -> GrowingSpan:
    return GrowingSpan(subject.floats.size)


def _unit(rows: FloatArray, least: float) -> FloatArray:
    """Rows of length 1; those shorter than `least` are zeros."""
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, size, out=np.zeros_like(rows), where=size > max(least, 1e-150)))


def _flow(subject: Subject, at: str, seed: int, rng: np.random.Generator, clock: Stopwatch,
          found: Sequence[Estimate]) -> Any:  # fmt: skip
    best: tuple[list[int], Span] | None = None
    seen: list[int] = []
    start = subject.floats.start
    for attempt in range(3):
        legs, length = 4 + 2 * attempt, 0.5 + attempt / 2
        point = start if at == "generic" else wander(subject.floats, start, rng, legs=legs, length=length)
        growth, span = _depths(
            subject, partial(_float_span, subject, point, rng, space=_space(subject), clock=clock), clock, True, 5
        )
        if span is not None and (best is None or (span.clear, span.rank) > (best[1].clear, best[1].rank)):
            best = growth, span
        if span is not None and span.clear and _ended(subject, growth):
            seen.append(span.rank)
        # a rank that meets the bound is final, a stable one at a random point too; else two points must agree
        if clock.expired or subject.top.value in seen or (seen and (at == "generic" or seen.count(max(seen)) > 1)):
            break
    growth, span = best if best is not None else ([0], Span(0, 0.0, 0.0, None))
    where = "at a random point" if at == "generic" else "at a regular point of the orbit"
    ended = _ended(subject, growth)
    note = f"brackets {where}, deepened until the rank is stable" if ended else f"brackets {where}, not deep enough"
    note += "" if ended or not clock.expired else ": the time was over"
    gap = (span.kept, span.dropped, span.clear and ended)
    return Estimate("flow", span.rank, tuple(growth), *gap, Rigor.NUMERICAL, note), None


def _ended(subject: Subject, growth: Sequence[int]) -> bool:
    """Whether the rank met its bound or the last depth added nothing."""
    return growth[-1] >= subject.top.value or len(growth) > 1 and growth[-1] == growth[-2]


def _brackets(subject: Subject, at: str, seed: int, rng: np.random.Generator, clock: Stopwatch,
              found: Sequence[Estimate]) -> Any:  # fmt: skip
    size = subject.floats.size
    deepest = _DEEPEST if size <= 60 else 4 if size <= 300 else 2 if size <= _STACKED else 1
    goal = max((e.dimension for e in found if e.clear), default=subject.top.value)
    here = subject.floats.start
    goal = min(goal, subject.top.value)
    growth, span = _depths(
        subject,
        partial(_float_span, subject, here, rng, space=_space(subject), basis=True, clock=clock),
        clock,
        False,
        deepest,
        goal,
    )
    span = span or Span(0, 0.0, 0.0, None)
    note = "brackets at the point itself: a lower bound, whatever their depth"
    estimate = Estimate(
        "brackets", span.rank, tuple(growth), span.kept, span.dropped, span.clear, Rigor.NUMERICAL, note
    )
    return estimate, span.basis


def _transport(subject: Subject, at: str, seed: int, rng: np.random.Generator, clock: Stopwatch,
               found: Sequence[Estimate]) -> Any:  # fmt: skip
    span = transported_span(subject.floats, subject.floats.start, rng)
    note = "fields carried along flows that end at the point (Sussmann)"
    return Estimate("transport", span.rank, (), span.kept, span.dropped, span.clear, Rigor.NUMERICAL, note), span.basis


def _exact(subject: Subject, at: str, seed: int, rng: np.random.Generator, clock: Stopwatch,
           found: Sequence[Estimate]) -> Any:  # fmt: skip
    family = subject.family
    if family is None:
        raise ScopeError("the exact method needs a Network or a model of fiberscope.models, not a user function")
    ring = Residues()
    jets: Jets = FormalJets(ring, seed + 1)
    theta = ring.random(rng, (family.size,)) if at == "generic" else ring.array(_point(subject))
    point = Nilpotent(ring, {0: theta[None]})
    size, space = family.size, Echelon(family.size, ring.prime)

    def rank_at(depth: int) -> int:
        return exact_rank(family, point, depth, jets, rng, subject.top.value, space, clock)

    deepest = 7 if size <= 20 else 6 if size <= 60 else 4 if size <= 150 else 3
    growth, _ = _depths(subject, rank_at, clock, at == "generic", deepest)
    if subject.polynomial:
        rigor, note = Rigor.EXACT, f"rank modulo {ring.prime}: a proved lower bound"
    else:
        rigor, note = Rigor.GENERIC, "random derivatives under the activation's laws: a generic one of its class"
    return Estimate("exact", growth[-1], tuple(growth), None, None, True, rigor, note), None


def _point(subject: Subject) -> npt.NDArray[Any]:
    if subject.exact_theta is None:
        raise InputError("the model has no parameters of its own: give theta, or at='generic'")
    return subject.exact_theta


def exact_rank(
    family: Family,
    point: Nilpotent,
    depth: int,
    jets: Jets,
    rng: np.random.Generator,
    most: int,
    space: Echelon | None = None,
    clock: Stopwatch | None = None,
) -> int:
    """Rank modulo a prime of the Lie algebra's members up to a bracket depth, at a point.

    Args:
        family: the fields.
        point: (1, M) residues.
        depth: of the brackets.
        jets: derivatives of activations modulo the prime.
        rng: of the data.
        most: a proved upper bound of the rank; not many more rows are drawn.
        clock: ends a large computation; what was found by then is returned, a lower bound like any rank.
        space: empty, or what calls for the depths below have put in; large ranks add to it. None to begin anew.

    A lower bound of the rank over Q. Small ranks come from random sums of brackets of every depth up to the given one,
    which span what all of them do. Large ones are found depth by depth: rows are drawn until one lies in the span of
    those before it; if the depth has more to give, a random row does so with probability below degree / p. O(rank)
    brackets, and 2 rank^2 M flops.

    >>> from fiberscope.activations import activation
    >>> from fiberscope.autodiff.families import RestrictedFamily
    >>> from fiberscope.models.chains import chain_family
    >>> chain, ring = chain_family((2, 2, 2), [activation("identity")]), Residues()
    >>> family = RestrictedFamily(chain, np.zeros(12), np.array([0, 1, 2, 3, 6, 7, 8, 9]))  # without biases
    >>> point = Nilpotent(ring, {0: np.arange(1, 9)[None] ** 2})
    >>> rng, jets = np.random.default_rng(0), FormalJets(ring, 0)
    >>> [exact_rank(family, point, depth, jets, rng, 8) for depth in (1, 2, 3)]
    [4, 5, 5]
    """
    ring = point.ring
    if not isinstance(ring, Residues):
        raise InputError("an exact rank needs residues")
    if min(family.size, most) <= SMALL:
        count = min(family.size, most) + _SPARE
        terms = brackets(family, point, [family.draw(ring, rng, count) for _ in range(depth)], jets)
        total = np.zeros((count, family.size), dtype=np.int64)
        for term in terms:
            total = ring.add(
                total, ring.multiply(np.broadcast_to(term.real, total.shape), ring.random(rng, (count, 1)))
            )
        return rank_of(total, ring.prime)
    first = depth if space is not None and space.rank else 1
    space = Echelon(family.size, ring.prime) if space is None else space
    for level in range(first, depth + 1):
        full, wanted = True, _CHUNK if level == 1 else 2 * _SPARE
        while full and space.rank < most and not (clock is not None and clock.expired):
            count, wanted = min(wanted, most + _SPARE - space.rank), _CHUNK
            deepest = brackets(family, point, [family.draw(ring, rng, count) for _ in range(level)], jets)[-1].real
            full = space.add(np.broadcast_to(deepest, (count, family.size))) == count
    return space.rank


METHODS: dict[str, Callable[..., tuple[Estimate, FloatArray | None]]] = {
    "flow": _flow, "brackets": _brackets, "transport": _transport, "exact": _exact,
}  # fmt: skip
"""By name: each takes (subject, at, seed, rng, clock, estimates so far), returns an estimate and a basis at theta."""
