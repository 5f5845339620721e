"""What an activation lets neurons have in common on an invariant manifold, and what no list contains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fiberscope.activations import Activation
from fiberscope.invariants.manifolds.counts import ClassRules
from fiberscope.neurons import multiples

PROVED = ("softplus", "sigmoid", "tanh", "erf")
"""Rows whose two-layer list is proved to be complete, see the theorem "two-layer-sims"."""

_PERIODIC = ("sin", "cos")


@dataclass(frozen=True)
class Family:
    """Invariant sets beyond the list: infinitely many, or at a special bias.

    Args:
        name: "critical class", "shifts", ...
        equations: what holds on them, i and j any neurons of one hidden layer.
        meaning: why they are invariant, and what is left to move.
        points: the special biases as floats, nearest to the true ones; empty if there are none or infinitely many.
    """

    name: str
    equations: tuple[str, ...]
    meaning: str
    points: tuple[float, ...] = ()


def class_rules(row: Activation) -> ClassRules:
    """What the neurons of a layer with this activation may have in common, from the row's own properties.

    Odd: equal up to sign, and null. Even: equal up to the sign of incoming weights, and quiet (w = b = 0, where
    s' = 0). s(0) = 0 otherwise: equal, and null. All others: equal. Each is a case of the projector theorem.

    Complexity: O(1).

    >>> from fiberscope.activations import activation
    >>> class_rules(activation("gelu"))
    ClassRules(signs=False, even=False, null=True, quiet=False, constant=False)
    """
    rule = multiples(row, training=True)
    # an even function with a kink at 0 has no s'(0) = 0 there, so its quiet neurons would move
    quiet = rule.even and float(row.derivative(np.zeros(1))[0]) == 0.0
    return ClassRules(
        signs=rule.sign, even=rule.even, null=rule.null and not quiet, quiet=quiet, constant=quiet and not rule.null
    )


def kind_of(row: Activation) -> str:
    """The class of an activation in one word: affine, homogeneous, odd, even, vanishing (s(0) = 0) or generic.

    >>> from fiberscope.activations import activation
    >>> [kind_of(activation(name)) for name in ("tanh", "gelu", "relu", "softplus")]
    ['odd', 'vanishing', 'homogeneous', 'generic']
    """
    if _is_affine(row):
        return "affine"
    rule = multiples(row, training=True)
    return "homogeneous" if rule.scale else row.parity or ("vanishing" if rule.null else "generic")


def beyond(row: Activation, *, bias: bool, output_bias: bool) -> tuple[Family, ...]:
    """The invariant sets of two-layer networks that a list of coincidences does not contain.

    Args:
        row: the hidden activation.
        bias: whether the hidden layer has biases.
        output_bias: whether the last layer has biases.

    Returns:
        What is known of them; empty only where the list may be complete. O(zeros and critical points of s).

    >>> from fiberscope.activations import activation
    >>> [f.name for f in beyond(activation("gelu"), bias=True, output_bias=True)]
    ['critical class']
    """
    if _is_affine(row):
        return (_affine_family(),)
    out = _degenerate(row, bias) + _leaves(row, output_bias) + _scalings(row, bias)
    if row.name in _PERIODIC and bias:
        out += _shifts(row)
    if row.pieces is not None and row.critical_points is None:
        out += (
            Family(
                "inactive neurons",
                ("s'(w_i.x + b_i) = 0 for every x in the data",),
                "neurons that run in a flat piece of s on all data have no gradient: depends on the data, so it is no "
                "manifold of the architecture, but training stays there",
            ),
        )
    return out


def statement_of(row: Activation, depth: int, families: tuple[Family, ...]) -> tuple[bool, str]:
    """Whether the list of an architecture is complete, and a sentence that says what is known.

    Args:
        row: the hidden activation.
        depth: number of affine layers.
        families: what `beyond` returned.

    >>> from fiberscope.activations import activation
    >>> statement_of(activation("tanh"), 2, ())[0], statement_of(activation("tanh"), 3, ())[0]
    (True, False)
    """
    if depth == 1:
        return False, (
            "a single affine layer: its fields do not depend on theta, so the invariant manifolds are translates of "
            "subspaces; with inputs that span, all of parameter space is the only one"
        )
    if depth > 2:
        return False, (
            "not complete: in deep networks equitable partitions with unequal blocks are invariant although no "
            "symmetry induces them, groups that act on several layers at once have fixed spaces of their own, and "
            "whether anything else exists is not known"
        )
    if row.name in PROVED:
        return True, (
            "complete, proved for all widths: all parameters with the same classes lie in one orbit, so every "
            "invariant manifold is a union of the listed ones' strata"
        )
    if not row.analytic:
        return False, "not complete: the theory of orbits asks for an analytic activation" + _named(families)
    if families:
        return False, "not complete: more invariant sets exist" + _named(families)
    return False, "no others are known, but completeness was not checked for this activation"


def _named(families: tuple[Family, ...]) -> str:
    return "; beyond the list: " + ", ".join(dict.fromkeys(f.name for f in families)) if families else ""


def _is_affine(row: Activation) -> bool:
    """An analytic function with rational values at rationals and a bounded slope is a polynomial of degree <= 1."""
    return row.analytic and row.exact_over_q and math.isfinite(row.lipschitz)


def _affine_family() -> Family:
    return Family(
        "linear model",
        ("W P = P W for any orthogonal projectors P of the hidden layer",),
        "every orthogonal change of the hidden basis is a symmetry, and the balance matrix between consecutive layers "
        "is conserved: the invariant sets form a continuum",
    )


def _degenerate(row: Activation, bias: bool) -> tuple[Family, ...]:
    """Neurons whose field vanishes or does not depend on the input: s' or s is zero at a constant pre-activation."""
    if row.pieces is not None:
        return ()
    rules, out = class_rules(row), []
    for name, points, equation, meaning in (
        ("critical class", row.critical_points, "w_i = 0, b_i = b* with s'(b*) = 0",
         "incoming weights stand still; the outgoing ones of all neurons of the class move by one common vector, "
         "s(b*) times that of the output bias, so that their differences are constant"),
        ("zero class", row.zeros, "w_i = 0, b_i = b* with s(b*) = 0, outgoing weights 0",
         "the neuron stands still"),
    ):  # fmt: skip
        if points is None:
            if bias:
                out.append(Family(name, (equation,), f"{meaning}; infinitely many b*"))
            continue
        listed = rules.quiet if name == "critical class" else rules.null or rules.quiet
        kept = tuple(p for p in points if (p == 0 and not listed) or (p != 0 and bias))
        if kept:
            out.append(Family(name, (equation,), meaning, kept))
    return tuple(out)


def _leaves(row: Activation, output_bias: bool) -> tuple[Family, ...]:
    rules = class_rules(row)
    if not rules.quiet:
        return ()
    if not rules.constant:
        return (
            Family(
                "leaves of quiet neurons",
                ("w_i = b_i = 0, outgoing weights a_i = constant",),
                "s(0) = s'(0) = 0: quiet neurons do not move at all, so every choice of their outgoing weights is "
                "invariant",
            ),
        )
    equations = ["w_i = b_i = 0, a_i - a_j = constant"]
    equations += ["a_i - s(0) c = constant, c the output bias"] if output_bias else []
    return (
        Family(
            "leaves of quiet neurons",
            tuple(equations),
            "the outgoing weights of all quiet neurons move by one common vector: their differences are constants, and "
            "every choice of them is invariant",
        ),
    )


def _scalings(row: Activation, bias: bool) -> tuple[Family, ...]:
    degree = row.homogeneity
    if degree is None:
        return ()
    length = "|w_i|^2 + b_i^2" if bias else "|w_i|^2"
    law = Family(
        "level sets of balancedness",
        (f"{length} - {'' if degree == 1 else f'{degree} '}|a_i|^2 = constant",),
        "a law of gradient flow: every level set is invariant, a continuum of curved manifolds",
    )
    if degree != 1:
        return (law,)
    return (
        Family(
            "weighted classes",
            ("(a_i, w_i, b_i) = e_ij (a_j, w_j, b_j) with any ratio e_ij > 0",),
            "positive homogeneity: each class of the list comes in a continuum, one free ratio for each neuron but the "
            "first; the list has the members with all ratios 1",
        ),
        law,
    )


def _shifts(row: Activation) -> tuple[Family, ...]:
    half = "a_j = -a_i, w_j = w_i, b_j = b_i + pi (2k + 1)"
    return (
        Family(
            "shifts",
            ("a_j = a_i, w_j = w_i, b_j = b_i + 2 pi k", half),
            f"{row.label} repeats: shifts by the period are isometries without a fixed point, so that each integer k "
            "gives an affine manifold; weight decay breaks them",
        ),
    )
