"""Equality of two networks as functions: YES with a certificate, NO with a counterexample, else UNDECIDED.

Methods from cheap to dear (docs/theory/fibers): the same weights; sampled differences; the sound normal form; the full
normal form; a structured search for a witness; reductions by exact bounds, then normal forms again; cells of the joint
activation pattern with exact linear programs, helped by a MILP that proposes witnesses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fiberscope.arguments import as_generator
from fiberscope.certificates import Certificate, check
from fiberscope.domains import Box
from fiberscope.errors import CertificateError, FiberscopeError, InputError
from fiberscope.fibers.documents import heading
from fiberscope.fibers.forms import NormalForm, canonical
from fiberscope.fibers.witnesses import Counterexample, find_witness, replayed
from fiberscope.network import Network, require_network
from fiberscope.results import Answer, Assumption, Budget, Progress, Stopwatch, Verdict

_Step = dict[str, Any]

_BINARIES = 400
"""Hidden neurons up to which a mixed-integer program is tried."""


@dataclass
class _Case:
    """Two networks while methods are tried on them."""

    f: Network
    g: Network
    domain: Box
    clock: Stopwatch
    seed: int
    cells: int | None
    progress: Progress | None
    excluded: list[str] = field(default_factory=list)
    assumes: tuple[Assumption, ...] = ()
    sound: tuple[NormalForm, ...] = ()

    def report(self, share: float, text: str) -> None:
        if self.progress is not None:
            self.progress(share, text)


def equal(
    f: Network, g: Network, domain: Box | str | None = None, *, budget: Budget | float | None = None,
    progress: Progress | None = None, seed: int = 0,
) -> Verdict:  # fmt: skip
    """Decide whether two networks compute the same function.

    f = g means f(x) = g(x) for every x in the domain, over the rationals that the weights are; with a softmax head up
    to a common shift of the logits, with argmax as far as the largest logit goes: NO needs another one, YES one shift
    and one positive factor for all logits; what lies between stays UNDECIDED.

    Args:
        f: a network.
        g: another with as many inputs and outputs, of any widths and depth.
        domain: a box, or text such as "[0,1]" or "file" (the box that f's file stores); default all of R^n.
        budget: seconds, or a `Budget` with seconds and cells; None is no limit, and may take exponential time.
        progress: called with (fraction, text).
        seed: of the points that are tried.

    Returns:
        YES with a `Certificate` that `check` accepted, NO with a `Counterexample` replayed exactly, or UNDECIDED with
        the reason and what was excluded.

    Raises:
        InputError: if f or g is no `Network`, inputs or outputs differ in number, or the domain does not fit.

    Complexity: O(parameters) for permuted and rescaled copies; normal forms add a product and exact folding; the
    complete method is exponential in the number of cells.
    Source: arXiv 2605.18319 for the normal form; docs/theory/fibers.

    >>> f = Network.from_arrays(([[2.0], [-1.0]], [0.0, 1.0]), ([[3.0, 1.0]], [0.0]))
    >>> g = Network.from_arrays(([[-2.0], [1.0]], [2.0, 0.0]), ([[0.5, 6.0]], [0.0]))
    >>> equal(f, g).answer.name
    'YES'
    >>> h = Network.from_arrays(([[-2.0], [1.0]], [2.0, 0.0]), ([[0.5, 7.0]], [0.0]))
    >>> print(equal(f, h))
    NO: f - g = -1 at output 0 for x = [1]
    """
    box = _domain(f, g, domain)
    as_generator(seed)
    if f.head != g.head:
        return Verdict(
            Answer.UNDECIDED, f"f ends in {f.head or 'no head'} and g in {g.head or 'no head'}; equality is decided on "
            "logits under one head", method="heads",
        )  # fmt: skip
    limits = Budget.of(budget)
    case = _Case(f, g, box, limits.start(), seed, limits.cells, progress)
    for k, (name, method) in enumerate(_METHODS.items()):
        if k and case.clock.expired:
            case.excluded.append(f"budget spent before {name}")
            break
        case.report(k / len(_METHODS), name)
        verdict = method(case, name)
        if verdict is not None:
            return verdict
    return Verdict(
        Answer.UNDECIDED, "; ".join(case.excluded) or "no method applies", method="all methods", assumes=case.assumes
    )


def assert_equal(
    f: Network, g: Network, domain: Box | str | None = None, *, budget: Budget | float | None = None, seed: int = 0
) -> None:
    """Raise unless f and g are proved equal: for test suites.

    Args:
        f: a network.
        g: another with as many inputs and outputs.
        domain: where they should be equal, as in `equal`.
        budget: seconds, or a `Budget`; a test should have one.
        seed: of the points that are tried.

    Raises:
        AssertionError: if they differ (the message shows the input, both networks' outputs there, and Python that
            repeats it) or it stays undecided (the message says why).
        InputError: as `equal`.

    >>> f = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [0.0]))
    >>> assert_equal(f, Network.from_arrays(([[2.0]], [0.0]), ([[1.0]], [0.0])))
    >>> assert_equal(f, Network.from_arrays(([[2.0]], [0.0]), ([[3.0]], [0.0])))
    Traceback (most recent call last):
        ...
    AssertionError: networks are not proved equal: NO: f - g = -4 at output 0 for x = [1]
                f  g  f in float64  g in float64
      output 0  2  6  2             6
    import numpy as np
    x = np.array([1.0])
    print(f(x), g(x))
    """
    __tracebackhide__ = True  # pytest then points at the line of the test
    verdict = equal(f, g, domain, budget=budget, seed=seed)
    if verdict.answer is Answer.YES:
        return
    lines = [f"networks are not proved equal: {verdict}"]
    if isinstance(verdict.counterexample, Counterexample):
        lines += [verdict.counterexample.table(), verdict.counterexample.snippet()]
    raise AssertionError("\n".join(lines))


def _domain(f: Network, g: Network, domain: Box | str | None) -> Box:
    require_network(f, "f")
    require_network(g, "g")
    if (f.widths[0], f.widths[-1]) != (g.widths[0], g.widths[-1]):
        raise InputError(
            f"f maps {f.widths[0]} inputs to {f.widths[-1]} outputs, g {g.widths[0]} to {g.widths[-1]}; "
            "expected the same numbers"
        )
    return f.domain(domain)


def certificate(
    f: Network, g: Network, domain: Box, steps: list[_Step] | tuple[_Step, ...], back: list[_Step] | tuple[_Step, ...]
) -> Certificate:
    """The certificate that the moves `steps` on f and `back` on g lead to one network."""
    return Certificate.from_dict({**heading("equality", f, g, domain), "steps": list(steps), "back": list(back)})


def _proved(case: _Case, method: str, proof: Certificate, reason: str) -> Verdict:
    try:
        verdict = check(proof, case.f, case.g)
    except CertificateError as exc:
        raise FiberscopeError(f"the checker cannot replay the certificate of method {method!r}: {exc}") from exc
    if verdict.answer is not Answer.YES:
        raise FiberscopeError(f"the checker refuses the certificate of method {method!r}: {verdict.reason}")
    return Verdict(
        Answer.YES, f"equal on {case.domain}: {reason}", certificate=proof, method=method,
        theorems=verdict.theorems,
    )  # fmt: skip


def _refuted(method: str, found: Counterexample) -> Verdict:
    return Verdict(Answer.NO, str(found), counterexample=found, method=method)


# ---- the methods


def _same_weights(case: _Case, name: str) -> Verdict | None:
    if not case.f.same_as(case.g):
        return None
    return _proved(case, name, certificate(case.f, case.g, case.domain, [], []), "the same weights")


def _sampled(case: _Case, name: str) -> Verdict | None:
    found = find_witness(case.f, case.g, case.domain, case.clock, seed=case.seed, thorough=False)
    return None if found is None else _refuted(name, found)


def _by_forms(
    case: _Case, name: str, forms: tuple[NormalForm, NormalForm], before: tuple[Any, Any] = ((), ())
) -> Verdict | None:
    if not forms[0].same_as(forms[1]):
        return None
    steps, back = ((*first, *form.moves) for first, form in zip(before, forms, strict=True))
    count = len(steps) + len(back)
    return _proved(case, name, certificate(case.f, case.g, case.domain, steps, back), f"{count} moves lead to one form")


def _sound_form(case: _Case, name: str) -> Verdict | None:
    first, second = (canonical(net, case.domain, linear_part=False) for net in (case.f, case.g))
    case.sound = (first, second)
    return _by_forms(case, name, (first, second))


def _normal_form(case: _Case, name: str) -> Verdict | None:
    forms = tuple(canonical(net, case.domain) for net in (case.f, case.g))
    verdict = _by_forms(case, name, (forms[0], forms[1]))
    if verdict is None:
        case.excluded.append("the normal forms differ")
    return verdict


def _witness(case: _Case, name: str) -> Verdict | None:
    found = find_witness(case.f, case.g, case.domain, case.clock, seed=case.seed, targets=_unmatched(case.sound))
    if found is None:
        case.excluded.append("no witness among points at all scales, corners and beside kinks")
    return None if found is None else _refuted(name, found)


def _unmatched(forms: tuple[NormalForm, ...]) -> list[tuple[Network, int, int]]:
    """Neurons of the first layer in which two sound forms differ, as far as only one of them has them."""
    nets = [form.as_network() for form in forms]
    if len(nets) < 2 or any(net is None for net in nets):
        return []
    out = []
    for k in range(min(len(form.biases) for form in forms) - 1):
        keys = [form.keys(k) for form in forms]
        for net, mine, other in zip(nets, keys, (set(keys[1]), set(keys[0])), strict=True):
            out += [(net, k, i) for i, key in enumerate(mine) if key not in other and net is not None]
        if out:
            break
    return out[:: max(1, len(out) // 32)]


def _reduced(case: _Case, name: str) -> Verdict | None:
    from fiberscope.reduction import reduce

    if len(case.f.widths) + len(case.g.widths) <= 6:
        return None
    share = None if math.isinf(case.clock.left) else Budget(case.clock.left / 4)
    try:
        results = [reduce(net, case.domain, exact_only=True, budget=share) for net in (case.f, case.g)]
    except InputError as exc:  # weights that no float dtype holds
        case.excluded.append(f"reductions do not apply: {exc}")
        return None
    if not any(r.saved for r in results):
        return None
    forms = tuple(canonical(r.exact, case.domain) for r in results)
    before = tuple([s for s in r.certificate.steps if s["move"] != "round"] for r in results)
    verdict = _by_forms(case, name, (forms[0], forms[1]), (before[0], before[1]))
    if verdict is None:
        case.excluded.append("the normal forms of the reduced networks differ")
    return verdict


def _cells(case: _Case, name: str) -> Verdict | None:
    from fiberscope.fibers.cells import decide_by_cells

    if not all(layer.activation.pieces for net in (case.f, case.g) for layer in net.layers):
        case.excluded.append("cells need piecewise-linear activations")
        return None
    if case.f.head is not None:
        case.excluded.append("cells compare plain outputs only")
        return None
    clock = case.clock if math.isinf(case.clock.left) else _share(case.clock, 0.75)
    outcome = decide_by_cells(case.f, case.g, case.domain, clock, cells=case.cells, progress=case.progress)
    if outcome.answer is Answer.YES and outcome.certificate is not None:
        proof = Certificate.from_dict(outcome.certificate)
        several = "one cell" if outcome.cells == 1 else f"{outcome.cells} cells"
        return _proved(case, name, proof, f"the same combination on {several}")
    found = None if outcome.witness is None else replayed(case.f, case.g, outcome.witness)
    if found is not None:
        return _refuted(name, found)
    case.excluded.append(outcome.reason)
    return None


def _share(clock: Stopwatch, part: float) -> Stopwatch:
    return Stopwatch(part * clock.left, lambda: clock.expired)


def _program(case: _Case, name: str) -> Verdict | None:
    """Incumbents of a mixed-integer program on the box, or on [-10, 10]^n inside an unbounded domain."""
    from fiberscope.programs import propose_witnesses

    low, high = (np.clip(end, -10.0, 10.0) for end in (case.domain.lower, case.domain.upper))
    if case.f.hidden_count + case.g.hidden_count > _BINARIES or (low >= high).all():
        return None
    for x in propose_witnesses(case.f, case.g, Box(low, high), case.clock):
        found = replayed(case.f, case.g, x.tolist()) if case.domain.contains(x) else None
        if found is not None:
            return _refuted(name, found)
    return None


_METHODS: Mapping[str, Callable[[_Case, str], Verdict | None]] = {
    "same weights": _same_weights,
    "samples": _sampled,
    "sound form": _sound_form,
    "normal form": _normal_form,
    "witness": _witness,
    "reductions": _reduced,
    "cells": _cells,
    "mixed-integer program": _program,
}
"""The methods in the order in which they are tried."""
