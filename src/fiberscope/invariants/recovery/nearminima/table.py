"""The set of exact fits of a wide two-layer network to a narrow target: its branches, their numbers and dimensions.

For f = sum_k a_k s(w_k . x) with m neurons and a target with m0, the parameters with f = f* are a union of affine
branches Q^r_(P, pi): P splits the m neurons into r classes of equal w, pi names one class for each target neuron. In a
named class w is the target's and the a add up to the target's; in the others w is free and the a add up to 0. Source:
arXiv 2309.00508 (Structure and Gradient Dynamics Near Global Minima of Two-layer Neural Networks). The number of
branches, and the branches of odd and even activations, are counted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_count, as_switch
from fiberscope.errors import InputError, ScopeError
from fiberscope.results import Assumption, Result, Rigor

_TAYLOR = {
    "tanh": "it is odd",
    "erf": "it is odd",
    "sin": "it is odd",
    "sigmoid": "s(z) - 1/2 is odd",
    "softplus": "s(z) - z/2 is even",
    "gelu": "s(z) - z/2 is even",
    "gelu_tanh": "s(z) - z/2 is even",
    "silu": "s(z) - z/2 is even",
    "gaussian": "it is even",
    "cos": "it is even",
}
"""Why the Taylor series at 0 has finitely many terms of one parity."""

_WIDEST = 200
"""Neurons up to which the table, of long integers, takes seconds."""


@dataclass(frozen=True)
class Stratum:
    """All branches with r classes and z null neurons.

    Args:
        r: number of classes of neurons that read something.
        null: z, neurons with w = 0 where s(0) = 0; their a is free.
        count: number of branches.
        dimension, codimension: of each of them.
        threshold: samples from which almost all data sets separate them from other exact fits of the data: the
            codimension.
        least_deficiency: least number of neurons that are alone in an unnamed class, so that a = 0.
        deficiencies: number of branches for each such number.
        morse_bott: number of branches along which the loss is nondegenerate for enough samples.
    """

    r: int
    null: int
    count: int
    dimension: int
    codimension: int
    threshold: int
    least_deficiency: int
    deficiencies: Mapping[int, int]
    morse_bott: int


@dataclass(frozen=True, eq=False)
class Strata(Result):
    """The branches of exact fits, by their number of classes.

    Args:
        width, target_width: m and m0.
        input_dimension: d, the numbers that a neuron reads, the bias included.
        rows: one for each r, and each number of null neurons where there are any.
        full_threshold: samples beyond which all branches together are recovery-stable, n > (d + 1) m.
        activation: its label, "" for any that satisfies the hypotheses.
        signs: whether w and -w count as equal.
        assumptions: the hypotheses; `holds` False where the activation violates one.
        rigor: GENERIC: counts and dimensions are exact, the thresholds hold for almost all data.
    """

    width: int
    target_width: int
    input_dimension: int
    rows: tuple[Stratum, ...]
    full_threshold: int
    activation: str
    signs: bool
    assumptions: tuple[Assumption, ...]
    rigor: Rigor = Rigor.GENERIC
    theorems: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of all branches."""
        return sum(row.count for row in self.rows)

    @property
    def least_threshold(self) -> int:
        """Samples from which the most stable branches are stable."""
        return min(row.threshold for row in self.rows)

    @property
    def applies(self) -> bool | None:
        """Whether the hypotheses on the activation hold; None if none was named."""
        return self.assumptions[0].holds

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of equal length."""
        names = ("r", "null", "count", "dimension", "codimension", "threshold", "least_deficiency", "morse_bott")
        return {name: [getattr(row, name) for row in self.rows] for name in names}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        out = super().to_dict()
        out["branches"], out["least_threshold"], out["applies"] = self.count, self.least_threshold, self.applies
        return out

    def __str__(self) -> str:
        """One screen."""
        lines = [
            f"exact fits of {self.target_width} target neurons by {self.width}, each reading {self.input_dimension}: "
            f"{self.count:,} affine branches ({self.rigor.name})",
            "    r  null     branches   dim  codim  samples  alone  Morse-Bott",
        ]
        shown = self.rows if len(self.rows) <= 24 else self.rows[:24]
        for row in shown:
            lines.append(
                f"  {row.r:>3}  {row.null:>4}  {row.count:>11,}  {row.dimension:>4}  {row.codimension:>5}  "
                f"{row.threshold:>7}  {row.least_deficiency:>5}  {row.morse_bott:>10,}"
            )
        if len(self.rows) > len(shown):
            lines.append(f"  and {len(self.rows) - len(shown)} more rows")
        lines.append("  samples: from so many on, almost all data separate the branch from other exact fits (local)")
        lines.append(f"  all branches are stable for n > {self.full_threshold}")
        lines += [f"  {_word(a)}: {a.statement}" for a in self.assumptions]
        return "\n".join(lines)


def _word(a: Assumption) -> str:
    return "assumed" if not a.checked else "holds" if a.holds else "FAILS"


def strata(
    width: int,
    target_width: int,
    input_dimension: int,
    *,
    bias: bool = False,
    activation: str | Activation | None = None,
) -> Strata:
    """The branches of {theta: f_theta = f*} for f = sum of m neurons a s(w . x) with one output: a table over r.

    r = m0, ..., m classes: S(m, r) r! / (r - m0)! branches of dimension (m - r) + (r - m0) d and codimension
    r + (m + m0 - r) d, which is also the number of samples from which a branch is separated. With s odd or even, w and
    -w count as equal and every neuron but one in each unnamed class has a sign; with s(0) = 0, neurons with w = 0 have
    a free a: choose them first.

    Args:
        width: m.
        target_width: m0, from 1 to m.
        input_dimension: number of inputs.
        bias: whether hidden neurons have biases, one more number that they read.
        activation: None for any that satisfies the hypotheses; else they are checked, and its parity is used.

    Raises:
        InputError: for widths that do not fit, or a width above 200.
        ScopeError: for activations that are not analytic, or polynomials: their exact fits are other sets.

    Complexity: O(m^3) integer operations. Source: arXiv 2309.00508, proposition 3.2, lemma 4.2, theorem 5.4; at
    n = codimension that theorem contradicts itself, and measurements find the branch stable.

    >>> table = strata(3, 1, 1)
    >>> [(row.r, row.count, row.dimension, row.threshold) for row in table.rows]
    [(1, 1, 2, 4), (2, 6, 2, 4), (3, 3, 2, 4)]
    """
    m, m0 = as_count(width, "width", 1), as_count(target_width, "target_width", 1)
    d = as_count(input_dimension, "input_dimension", 1) + as_switch(bias, "bias")
    if m0 > m:
        raise InputError(f"{m} neurons for {m0} target neurons; give at least as many neurons as the target has")
    if m > _WIDEST:
        raise InputError(f"width {m}; the table has a row of long integers for each r, so it is made up to {_WIDEST}")
    row = None if activation is None else find_activation(activation)
    if row is not None:
        require_strata(row)
    signs = row is not None and row.parity is not None
    silent = row is not None and row.value(Fraction(0)) == 0
    rows = tuple(
        _stratum(m, m0, d, r, z, signs) for r in range(m0, m + 1) for z in range(m - r + 1 if silent else 1)
    )  # fmt: skip
    label = "" if row is None else row.label
    theorems = ("near-minima",) if row is None or independent(row, bias=bool(bias)) else ()
    return Strata(m, m0, d, rows, (d + 1) * m, label, signs, _assumptions(row, bias), theorems=theorems)


def independent(row: Activation, *, bias: bool) -> bool:
    """Whether neurons of different weights (up to sign for odd and even s) are known to be independent functions.

    No for s(z) - s(-z) = z and s(z) + s(-z) = 1, where four neurons satisfy a relation, and for sines with biases,
    where three shifts of one wave do.

    >>> from fiberscope.activations import activation
    >>> independent(activation("tanh"), bias=True), independent(activation("softplus"), bias=True)
    (True, False)
    """
    return row.parity is not None and not (bias and row.name in ("sin", "cos"))


def require_strata(row: Activation) -> None:
    """Refuse activations whose exact fits are no unions of such affine branches.

    Raises:
        ScopeError: for polynomials and what is not analytic.
    """
    if not row.analytic or row.name in ("identity", "square", "polynomial"):
        raise ScopeError(
            f"{row.label} neurons satisfy linear relations beyond equal weights, so the exact fits are other sets; "
            "strata need an analytic activation that is no polynomial"
        )


def _assumptions(row: Activation | None, bias: bool) -> tuple[Assumption, ...]:
    text = "s is analytic with s(0) != 0 and infinitely many odd and even Taylor terms at 0"
    why = None if row is None else _TAYLOR.get(row.name)
    if row is None or why is None:
        first = Assumption(text, False)
    else:
        zero = " and s(0) = 0" if row.value(Fraction(0)) == 0 else ""
        first = Assumption(f"{text}; {row.label}: {why}{zero}", True, False)
    out = [
        first,
        Assumption("the target's neurons differ (up to sign where s has a parity) and none can be left out", False),
        Assumption("samples are generic, and thresholds are local: they say nothing about where training ends", False),
    ]
    if bias:
        out.append(
            Assumption("neurons that read no input, constants, are not counted: they give further exact fits", False)
        )
    return tuple(out)


def _stratum(m: int, m0: int, d: int, r: int, z: int, signs: bool) -> Stratum:
    live = m - z
    turns = math.comb(m, z) * (2 ** (live - (r - m0)) if signs else 1)
    alone = {}
    for ell in range(r - m0 + 1):
        found = turns * _alone_branches(live, m0, r, ell)
        if found:
            alone[ell] = found
    least = max(0, 2 * r - live - m0)
    codimension = r + (m + m0 - r) * d
    nondegenerate = 2 * r >= live + m0 and z <= 1
    return Stratum(
        r, z, turns * stirling(live, r) * (math.factorial(r) // math.factorial(r - m0)),
        (m - r) + (r - m0) * d, codimension, codimension, least, alone,
        alone.get(2 * r - live - m0, 0) if nondegenerate else 0,
    )  # fmt: skip


def _alone_branches(m: int, m0: int, r: int, ell: int) -> int:
    """Branches of which exactly ell unnamed classes have one member."""
    return math.comb(m, ell) * _crowded(m - ell, m0, r - m0 - ell)


@cache
def _crowded(n: int, m0: int, unnamed: int) -> int:
    """Ways to put n neurons into m0 named classes and so many unnamed ones of at least two members."""
    return sum(
        math.comb(n, named) * math.factorial(m0) * stirling(named, m0) * associated_stirling(n - named, unnamed)
        for named in range(m0, n + 1)
    )


@cache
def stirling(n: int, k: int) -> int:
    """Partitions of n things into k classes.

    >>> stirling(4, 2)
    7
    """
    if n == k:
        return 1
    if k <= 0 or k > n:
        return 0
    return k * stirling(n - 1, k) + stirling(n - 1, k - 1)


@cache
def associated_stirling(n: int, k: int) -> int:
    """Partitions of n things into k classes of at least two.

    >>> associated_stirling(4, 2)
    3
    """
    if n == k == 0:
        return 1
    if k <= 0 or n < 2 * k:
        return 0
    return k * associated_stirling(n - 1, k) + (n - 1) * associated_stirling(n - 2, k - 1)
