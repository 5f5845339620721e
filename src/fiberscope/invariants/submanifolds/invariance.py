"""Whether a set of parameters is a structural invariant manifold: proofs, counterexamples, and what stays open.

A closed set is invariant under gradient flow, whatever the loss and the data, if and only if every field
grad_theta <c, F(theta)(x)> is tangent to it at all of its points (arXiv 2510.09564; Nagumo). YES is proved by classes
of neurons or by an identity between polynomials, NO by one field at one point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.arguments import as_count
from fiberscope.autodiff.families import Data, Family
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.objects import Objects, SymbolicJets
from fiberscope.autodiff.symbols import Counter, Poly
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.arguments import as_rationals
from fiberscope.invariants.submanifolds.confinement import confining_classes
from fiberscope.invariants.submanifolds.equations import from_equations
from fiberscope.invariants.submanifolds.escapes import SUSPECT, Search, Subject, refutation, subject_of
from fiberscope.invariants.submanifolds.sets import LevelSet, LinearSet, Parametrised, Submanifold, null_basis
from fiberscope.results import Answer, Assumption, Budget, Stopwatch, Verdict

ExactArray = npt.NDArray[Any]

POINTS = 32
"""Points of the set at which fields are tried."""
_FIELDS = 4
_PATHS = 100_000
"""Paths through a chain above which no identity is expanded."""
_LARGEST_MINOR = 4
_DRAWS = 16


def is_invariant(
    submanifold: Submanifold | str | Sequence[str] | npt.ArrayLike,
    model: Any,
    *,
    theta: npt.ArrayLike | None = None,
    frozen: Sequence[int | str] | str = (),
    seed: int = 0,
    budget: Budget | float | None = None,
) -> Verdict:
    """Whether gradient flow never leaves a set, for every loss and every data.

    Args:
        submanifold: a `LinearSet`, `LevelSet` or `Parametrised`; a matrix A for {A theta = 0}; or equations in the
            names of the parameters, "W1[0] = W1[1]; b1[0] = b1[1]; W2[:,0] = W2[:,1]" (indices start at 0).
        model: a `Network` (its architecture: theta is that of `Network.theta`), a pair (widths, activation), a family
            or a model of `fiberscope.models`, or a family of `jax_family` or `torch_family`.
        theta: a point of the set where fields are tried first, (M,).
        frozen: indices of parameters that are not trained, or names of blocks of them, such as "b2".
        seed: of the points and fields tried.
        budget: seconds after which no further argument is begun.

    Returns:
        YES with a certificate: {"kind": "confinement", ...} names classes of neurons and is verified by
        `check_invariance`; {"kind": "identity", ...} says that the normal parts of all fields expand to the zero
        polynomial, for every activation of the laws of the class. NO with theta, data and the rate at which the field
        leaves, exact or enclosed by ball arithmetic; for JAX and torch functions in float64, replayed with two step
        sizes. UNDECIDED with what was tried.

    Raises:
        InputError: if sizes do not fit, theta is off the set, or an equation cannot be read.
        ScopeError: if the network's layers are not the parameters that are trained.
        UnsupportedError: if the network ends in an activation.

    Complexity: `POINTS` fields, then rational linear algebra O(M^2 d) in the dimension d of the set, or an expansion
    whose terms number at most the paths through the network. Source: arXiv 2510.09564.

    >>> is_invariant("W1[0] = W1[1]; b1[0] = b1[1]; W2[:,0] = W2[:,1]", ((2, 2, 1), "tanh")).answer.name
    'YES'
    >>> is_invariant("W1[0] = W1[1]; b1[0] = b1[1]", ((2, 2, 1), "tanh")).answer.name  # the outgoing weights differ
    'NO'
    """
    seed = as_count(seed, "seed")
    clock = Budget.of(budget).start()
    subject = subject_of(model, frozen)
    target = _target(submanifold, subject)
    if target.size != subject.size:
        raise InputError(f"the set lives in {target.size} parameters; the model has {subject.size}")
    simple = target if isinstance(target, LinearSet) else target.linear()
    start = None if theta is None else rationals.fractions(as_rationals(theta, "theta"))
    if start is not None and not isinstance(target, Parametrised) and not target.contains(start):
        raise InputError("theta is not on the set")
    search = Search(subject, seed)
    if simple is not None:
        return _linear(simple, subject, search, start, clock)
    if isinstance(target, LevelSet):
        return _level(target, subject, search, start, clock)
    return _image(target, subject, search, clock)  # type: ignore[arg-type]


def _target(given: Any, subject: Subject) -> Submanifold:
    if isinstance(given, LinearSet | LevelSet | Parametrised):
        return given
    if isinstance(given, str) or (isinstance(given, list | tuple) and given and isinstance(given[0], str)):
        return from_equations(given, subject.blocks)
    return LinearSet(given)


# ---- linear sets


def _equation_texts(equations: ExactArray, offset: ExactArray, names: Sequence[str]) -> list[str]:
    """Equations such as W1[0,0] - W1[1,0] = 0; coefficients of 1 are not written."""
    out = []
    for row, right in zip(equations, offset, strict=True):
        terms = []
        for k in np.flatnonzero(row != 0)[:6]:
            c = row[k]
            sign = "-" if c < 0 else "+"
            terms.append(f"{sign} {names[k]}" if abs(c) == 1 else f"{sign} {abs(c)} * {names[k]}")
        more = " + ..." if np.count_nonzero(row != 0) > 6 else ""
        out.append(" ".join(terms).removeprefix("+ ") + more + f" = {right}")
    return out


def _linear(target: LinearSet, subject: Subject, search: Search, start: ExactArray | None, clock: Stopwatch) -> Verdict:
    texts = _equation_texts(target.equations, target.offset, subject.names())
    for k in range(POINTS):
        theta = start if start is not None and k == 0 else target.draw(search.rng)
        suspect = search.try_at(theta, target.equations, texts, _FIELDS)
        found = None if suspect is None else refutation(suspect, subject)
        if found is not None:
            return found
        if clock.expired:
            break
    if subject.widths is not None and not clock.expired:
        certificate = confining_classes(target, subject.widths, subject.rows, subject.frozen, 0)
        if certificate is not None:
            return Verdict(
                Answer.YES, _spoken(certificate), certificate=certificate, method="classes of neurons, verified over Q",
                theorems=("tangent-fields", "equitable-sim"), assumes=_assumed(subject),
            )  # fmt: skip

    def rest(fields: Sequence[Poly]) -> bool:
        return any(
            sum((fields[int(k)] * row[k] for k in np.flatnonzero(row != 0)), Poly({})) for row in target.equations
        )

    failure = "the time was up"
    if not clock.expired:
        failure = _identity(target.polys(), target.dimension, subject, rest)
    if not failure:
        return _proved("the normal part of every field expands to 0 on the set", subject)
    return _open(search, failure)


def _spoken(certificate: Any) -> str:
    together = null = 0
    for c in certificate["classes"]:
        labels = [v for v in c["labels"] if v >= 0]
        together += sum(labels.count(v) > 1 for v in labels)
        null += len(c["labels"]) - len(labels)
    constant = len(certificate["constants"])
    parts = [f"{together} neurons move in classes of equals"] if together else []
    parts += [f"{_many(null, 'null neuron')} without effect"] if null else []
    parts += [f"{_many(constant, 'neuron')} of constant value"] if constant and not null else []
    return ": ".join(
        ["the fields are confined to it", ", ".join(parts)] if parts else ["the fields are confined to it"]
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


# ---- identities


def _identity(theta: Sequence[Poly], used: int, subject: Subject, rest: Callable[[Sequence[Poly]], bool]) -> str:
    """Why there is no proof; empty if `rest` says of the fields at theta, expanded in symbols, that nothing is left."""
    family = subject.family
    if family is None:
        return "the function is known by its floats only"
    if subject.widths is not None and prod(subject.widths) > _PATHS:
        return f"the fields have too many terms to expand ({prod(subject.widths)} paths)"
    fresh = Counter(used)
    ring = Objects(Poly.of(1), fresh)
    point = np.empty((1, subject.size), dtype=object)
    point[0] = list(theta)
    try:
        data = family.draw(ring, np.random.default_rng(0), 1)
        if not _free(family, data, used):
            return "the data are drawn from samples, so no identity holds for all of them"
        fields = family.fields(Nilpotent(ring, {0: point}), data, SymbolicJets(fresh)).real[0]
        left = rest([Poly.of(v) * int(k) for v, k in zip(fields, subject.mask, strict=True)])
    except (ScopeError, TypeError, AttributeError, ValueError) as exc:
        return f"the fields are no polynomials in symbols ({exc})"
    return "the expansion of the fields does not vanish by the laws known of the activation" if left else ""


def _free(family: Family, data: Data, used: int) -> bool:
    """Whether the data are symbols and constants that every draw repeats, rather than samples."""
    for seed in range(1, 1 + _DRAWS):
        ring = Objects(Poly.of(1), Counter(used))
        again = family.draw(ring, np.random.default_rng(seed), 1)
        if any((a != b).any() for a, b in zip(data, again, strict=True)):
            return False
    return True


def _proved(reason: str, subject: Subject) -> Verdict:
    laws = [f"{row.name}: {_laws(row)}" for row in dict.fromkeys(subject.rows)]
    return Verdict(
        Answer.YES, reason,
        certificate={"kind": "identity", "laws": laws, "parameters": subject.size, "frozen": list(subject.frozen)},
        method="expansion of the fields in symbols over Q", theorems=("tangent-fields",), assumes=_assumed(subject),
    )  # fmt: skip


def _assumed(subject: Subject) -> tuple[Assumption, ...]:
    kinks = [row.label for row in dict.fromkeys(subject.rows) if not row.analytic]
    trained = Assumption("all parameters but the frozen ones are trained as they are", False)
    if not kinks:
        return (trained,)
    return trained, Assumption(f"the flow passes the kinks of {', '.join(kinks)} with one fixed choice of s'", False)


def _laws(row: Activation) -> str:
    if row.name in ("identity", "square", "polynomial"):
        return "its formula"
    if row.pieces is not None and row.homogeneity == 1:
        return "s(t z) = t s(z) for t > 0" + (", even" if row.parity == "even" else "")
    zero = ", s(0) = 0" if row.value(Fraction(0)) == 0 else ""
    return (row.parity or "none") + zero


def _open(search: Search, failure: str) -> Verdict:
    seen = f"no field leaves it at the {search.points} points tried (largest normal share {search.largest:.1e})"
    if search.largest > SUSPECT:
        seen = f"some field seems to leave it (normal share {search.largest:.1e}), which no enclosure proves"
    return Verdict(Answer.UNDECIDED, f"{seen}; {failure}", method="fields at random points of the set")


# ---- level sets and images


def _level(target: LevelSet, subject: Subject, search: Search, start: ExactArray | None, clock: Stopwatch) -> Verdict:
    gradients = target.gradients()
    texts = [f"{g.text(subject.names())} = 0" for g in target.polynomials]
    for k in range(POINTS):
        theta = start if start is not None and k == 0 else target.draw(search.rng, 2)
        loose = None if theta is not None else target.bracket(search.rng, 2)
        if loose is not None:
            theta = loose[0]
        if theta is not None:
            normals = _evaluated(gradients, theta)
            suspect = search.try_at(theta, normals, texts, _FIELDS)
            if suspect is not None and loose is not None:
                suspect = replace(suspect, loose=(loose[1], loose[2], gradients[0]))
            found = None if suspect is None else refutation(suspect, subject)
            if found is not None:
                return found
        if clock.expired:
            break
    conserved = False

    def rest(fields: Sequence[Poly]) -> bool:
        nonlocal conserved
        rates = [sum((d * x for d, x in zip(row, fields, strict=True) if d), Poly({})) for row in gradients]
        conserved = not any(rates)
        return any(rate.remainder(target.polynomials) for rate in rates)

    failure = "the time was up"
    if not clock.expired:
        failure = _identity([Poly.symbol(k) for k in range(subject.size)], subject.size, subject, rest)
    if not failure:
        why = "each polynomial is conserved" if conserved else "each rate of change is a combination of the polynomials"
        return _proved(f"{why}: an identity in theta, x and c", subject)
    if not search.points:
        failure = "no rational point of the set was found, give one as theta; " + failure
    return _open(search, failure)


def _evaluated(gradients: Sequence[Sequence[Poly]], theta: ExactArray) -> ExactArray:
    out = np.empty((len(gradients), len(theta)), dtype=object)
    for k, row in enumerate(gradients):
        for j, d in enumerate(row):
            out[k, j] = Fraction(d.at(lambda i: theta[i]))
    return out


def _image(target: Parametrised, subject: Subject, search: Search, clock: Stopwatch) -> Verdict:
    minor: tuple[int, ...] = ()
    for _ in range(POINTS):
        eighths = search.rng.integers(1, 17, target.dimension) * search.rng.choice([-1, 1], target.dimension)
        at = [Fraction(int(k), 8) for k in eighths]
        slopes = target.jacobian(at)
        pivots, _ = rationals.row_reduce(slopes.T)
        if len(pivots) < target.dimension:
            continue  # no immersion here
        minor = pivots
        normals = null_basis(slopes.T).T
        suspect = search.try_at(target.at(at), normals, ["a normal of the image"] * len(normals), _FIELDS)
        found = None if suspect is None else refutation(suspect, subject)
        if found is not None:
            return found
        if clock.expired:
            break
    if not minor:
        raise InputError(
            "the parametrisation is an immersion at none of the points tried; its image has fewer dimensions"
        )
    r = target.dimension
    if r > _LARGEST_MINOR or clock.expired:
        return _open(search, f"images of more than {_LARGEST_MINOR} coordinates are not proved invariant")
    jacobian = [[p.derivative(k) for k in range(r)] for p in target.entries]

    def rest(fields: Sequence[Poly]) -> bool:
        # X = Dphi v with v from the rows of the minor by Cramer's rule
        square = [jacobian[i] for i in minor]
        values = [fields[i] for i in minor]
        whole = _determinant(square)
        steps = [
            _determinant([[*row[:k], v, *row[k + 1 :]] for row, v in zip(square, values, strict=True)])
            for k in range(r)
        ]
        return any(
            whole * x != sum((d * v for d, v in zip(row, steps, strict=True)), Poly({}))
            for row, x in zip(jacobian, fields, strict=True)
        )

    failure = _identity(target.entries, r, subject, rest)
    if failure:
        return _open(search, failure)
    verdict = _proved("every field is a combination of the derivatives of the parametrisation", subject)
    local = Assumption("points where the parametrisation is no immersion are not part of the statement", False)
    return Verdict(
        verdict.answer, verdict.reason, certificate=verdict.certificate, method=verdict.method,
        theorems=verdict.theorems, assumes=(*verdict.assumes, local),
    )  # fmt: skip


def _determinant(rows: Sequence[Sequence[Poly]]) -> Poly:
    n = len(rows)
    total = Poly({})
    for order in permutations(range(n)):
        swaps = sum(order[i] > order[j] for i in range(n) for j in range(i + 1, n))
        term = Poly.of(-1 if swaps % 2 else 1)
        for i, j in enumerate(order):
            term = term * rows[i][j]
        total = total + term
    return total
