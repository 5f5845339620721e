"""Which optimiser keeps which kind of invariant manifold, as data with reasons.

A rule theta -> theta + u(history of gradients, theta) keeps the fixed space of a linear isometry of the model when u
commutes with it: rules linear in the gradient always do, elementwise odd ones only with signed permutations. Decay
keeps linear subspaces, no others. After arXiv 2510.09564, where gradient flow is treated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fiberscope.errors import InputError
from fiberscope.invariants.dynamics.updates import Family, Optimiser

Outcome = Literal["kept", "broken", "leaves", "drifts"]
"""kept in every step; broken; the linear manifold is kept and the leaf left; kept only as the rate goes to 0."""


@dataclass(frozen=True)
class ManifoldKind:
    """What an optimiser must respect to keep a kind of manifold.

    Args:
        name: one word.
        meaning: the equations.
        signed: whether signed permutations (or classes with factors 0, 1, -1) define it, so that elementwise rules
            respect it.
        shape: "linear", "affine" or "curved".
        constant: whether equal parameters are all there is; if not, entries may differ inside a class (the part D).
        leaf: whether D is fixed too.
    """

    name: str
    meaning: str
    signed: bool
    shape: Literal["linear", "affine", "curved"] = "linear"
    constant: bool = True
    leaf: bool = False


@dataclass(frozen=True)
class RuleKind:
    """An optimiser as the table sees it: its family and how it decays."""

    name: str
    family: Family
    decay: Literal["none", "coupled", "decoupled"] = "none"


@dataclass(frozen=True)
class Keeps:
    """Whether an optimiser keeps a kind of manifold, in exact arithmetic; `bool()` is True for "kept" only."""

    optimiser: str
    manifold: str
    outcome: Outcome
    reason: str

    def __bool__(self) -> bool:
        """True if theta never leaves."""
        return self.outcome == "kept"


MANIFOLDS: dict[str, ManifoldKind] = {
    kind.name: kind
    for kind in (
        ManifoldKind("permutation", "neurons with equal parameters", True),
        ManifoldKind("sign", "neurons equal up to sign, odd activation", True),
        ManifoldKind("null", "a neuron with all weights 0, s(0) = 0", True),
        ManifoldKind("affine", "cos: equal weights, biases that differ by 2 pi", True, "affine"),
        ManifoldKind(
            "equitable", "blocks with constant row and column sums that no symmetry explains", True, constant=False
        ),
        ManifoldKind(
            "equitable-leaf", "the same with the deviation from constant blocks fixed", True, constant=False, leaf=True
        ),
        ManifoldKind("oblique", "weights in the range of a projector that mixes coordinates, linear network", False),
        ManifoldKind("axis", "the same with a projector on coordinates", True),
        ManifoldKind("weighted", "ReLU neurons that are positive multiples, factors other than 1", False),
        ManifoldKind("level-set", "a value of a conservation law, such as U^T U - V^T V", False, "curved"),
    )
}
"""The kinds of manifolds of the table."""

RULES: dict[str, RuleKind] = {
    rule.name: rule
    for rule in (
        RuleKind("gd", "linear"),
        RuleKind("sgd", "linear"),
        RuleKind("momentum", "linear"),
        RuleKind("nesterov", "linear"),
        RuleKind("clip", "linear"),
        RuleKind("gd+decay", "linear", "coupled"),
        RuleKind("adam", "elementwise"),
        RuleKind("rmsprop", "elementwise"),
        RuleKind("adagrad", "elementwise"),
        RuleKind("adamw", "elementwise", "decoupled"),
        RuleKind("adam+decay", "elementwise", "coupled"),
        RuleKind("sign", "elementwise"),
        RuleKind("muon", "orthogonal"),
    )
}
"""The optimisers of the table; "clip" bounds the global norm, "+decay" adds decay * theta to the gradient."""


def optimiser_keeps(rule: str | Optimiser, manifold: str) -> Keeps:
    """Whether an optimiser keeps a kind of invariant manifold, and why.

    Args:
        rule: a key of `RULES`, or a rule.
        manifold: a key of `MANIFOLDS`.

    Returns:
        The answer for exact arithmetic, for every loss, data set and choice of minibatches. Rounding leaves manifolds
        that repel (`growth`), and `sign` turns rounding noise around 0 into steps of full size.

    Raises:
        InputError: for an unknown name.

    >>> bool(optimiser_keeps("adam", "permutation")), optimiser_keeps("adam", "weighted").outcome
    (True, 'broken')
    """
    row = _row(rule)
    kind = MANIFOLDS.get(manifold)
    if kind is None:
        raise InputError(f"unknown kind of manifold {manifold!r}; known: {', '.join(MANIFOLDS)}")
    outcome, reason = _outcome(row, kind)
    return Keeps(row.name, kind.name, outcome, reason)


def _row(rule: str | Optimiser) -> RuleKind:
    if isinstance(rule, Optimiser):
        decay: Literal["none", "coupled", "decoupled"] = "none"
        if rule.decay:
            decay = "coupled" if rule.coupled else "decoupled"
        return RuleKind(rule.name, rule.family, decay)
    if rule not in RULES:
        raise InputError(f"unknown optimiser {rule!r}; known: {', '.join(RULES)}")
    return RULES[rule]


def _outcome(rule: RuleKind, kind: ManifoldKind) -> tuple[Outcome, str]:
    if kind.shape == "curved":
        return "drifts", "the law is conserved by gradient flow; steps of finite size move it"
    if rule.family == "elementwise" and not kind.signed:
        return "broken", "an elementwise rule commutes with signed permutations only, not with this projector"
    if rule.decay != "none" and kind.shape == "affine":
        return "broken", "decay shrinks theta towards 0, which the affine set does not contain"
    if rule.decay == "coupled" and rule.family == "elementwise" and not kind.constant:
        return (
            "broken",
            "decay enters the elementwise rule, and entries of a block differ (2 by 2 blocks excepted)",
        )
    if rule.decay != "none" and kind.leaf:
        return "leaves", "decay keeps the linear manifold and shrinks the part that the leaf fixes"
    if rule.family == "linear":
        return "kept", "the update is linear in gradients that are tangent" + _shrinks(rule)
    if rule.family == "orthogonal":
        return "kept", "the update commutes with orthogonal maps of rows and columns" + _shrinks(rule)
    return "kept", "equal gradients up to sign give equal updates up to sign" + _shrinks(rule)


def _shrinks(rule: RuleKind) -> str:
    return "" if rule.decay == "none" else ", and decay keeps linear subspaces"


def optimiser_table() -> tuple[Keeps, ...]:
    """All cells of the table, manifold by manifold.

    >>> len(optimiser_table()) == len(RULES) * len(MANIFOLDS)
    True
    """
    return tuple(optimiser_keeps(rule, kind) for kind in MANIFOLDS for rule in RULES)
