"""How many invariant manifolds of coincidences one hidden layer has, exactly and without listing them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from fiberscope.errors import InputError


@dataclass(frozen=True)
class ClassRules:
    """What the neurons of a layer may have in common on an invariant manifold.

    Args:
        signs: neurons of a class may be each other's negatives.
        even: such a sign acts on incoming weights and bias only (even activations), else on outgoing weights too.
        null: a class of neurons whose weights and biases are all zero exists (s(0) = 0).
        quiet: classes with zero incoming weights and bias and a common outgoing vector exist (even, s'(0) = 0).
        constant: quiet neurons put out s(0) != 0, so that they act like a bias of the next layer.
    """

    signs: bool = False
    even: bool = False
    null: bool = False
    quiet: bool = False
    constant: bool = False

    @property
    def rates(self) -> tuple[int, ...]:
        """Exponents r of X' = sum_r exp(r x) X for the generating function X(x) = sum_m count(m) x^m / m!."""
        return (2 if self.signs else 1,) + (0,) * self.null + (1,) * self.quiet


def manifold_count(width: int, rules: ClassRules) -> int:
    """The number of ways in which `width` neurons fall into classes, null and quiet neurons: labelled manifolds.

    The class of the last neuron gives X' = sum_r exp(r x) X with r = 1 for a class (2 with signs), 0 for the null class
    and 1 for a quiet class: Bell numbers; with signs and null class the Dowling numbers of Z_2; with a null class alone
    Bell(m + 1). Evaluated by triangles like Bell's, U(n, k) = U(n, k - 1) + r U(n - 1, k - 1).

    Args:
        width: number of neurons m.
        rules: what they may have in common.

    Raises:
        InputError: if width < 0.

    Complexity: O(m^2) additions of integers. Source: arXiv 2510.09564 for the manifolds; Dowling, J. Comb. Theory B 14.

    >>> [manifold_count(m, ClassRules()) for m in range(6)]
    [1, 1, 2, 5, 15, 52]
    >>> [manifold_count(m, ClassRules(signs=True, null=True)) for m in range(5)]
    [1, 2, 6, 24, 116]
    """
    _require(width)
    total = 1
    rows = [[1] for _ in rules.rates]
    for _ in range(width):
        total = sum(row[-1] for row in rows)
        # exp(0) X is X itself, so its row needs no triangle
        rows = [
            list(accumulate((rate * v for v in row), initial=total)) if rate else [total]
            for rate, row in zip(rules.rates, rows, strict=True)
        ]
    return total


def type_count(width: int, rules: ClassRules) -> int:
    """The number of types, manifolds up to relabelling neurons and changing their signs: profiles of class sizes.

    Partitions p(m); sum_(j <= m) p(j) with a null class; sum_j p(j) p(m - j) with quiet classes.

    Raises:
        InputError: if width < 0.

    Complexity: O(m^2) additions.

    >>> [type_count(m, ClassRules(null=True)) for m in range(1, 6)]
    [2, 4, 7, 12, 19]
    """
    _require(width)
    ways = _partition_numbers(width)
    out = list(ways)
    if rules.quiet:
        out = [sum(a * b for a, b in zip(out[: n + 1], ways[n::-1], strict=True)) for n in range(width + 1)]
    return sum(out) if rules.null else out[width]


def level_counts(width: int, rules: ClassRules) -> dict[tuple[int, int], int]:
    """Labelled manifolds by (classes K, quiet classes J): the numbers that sum to `manifold_count`.

    W(m; K, J) = W(m-1; K-1, J) + W(m-1; K, J-1) + (r K + J + [null]) W(m-1; K, J), r = 2 with signs: a new neuron
    opens a class, opens a quiet class, or joins one. Stirling numbers for generic activations.

    Raises:
        InputError: if width < 0.

    Complexity: O(m^2) products of integers, O(m^3) with quiet classes.

    >>> level_counts(3, ClassRules())
    {(1, 0): 1, (2, 0): 3, (3, 0): 1}
    """
    _require(width)
    rate = 2 if rules.signs else 1
    now = {(0, 0): 1}
    for _ in range(width):
        new: dict[tuple[int, int], int] = {}
        for (k, j), ways in now.items():
            join = rate * k + j + rules.null
            if join:
                new[k, j] = new.get((k, j), 0) + join * ways
            new[k + 1, j] = new.get((k + 1, j), 0) + ways
            if rules.quiet:
                new[k, j + 1] = new.get((k, j + 1), 0) + ways
        now = new
    return dict(sorted(now.items()))


def level_types(width: int, rules: ClassRules) -> dict[tuple[int, int], int]:
    """Types by (classes K, quiet classes J): the numbers that sum to `type_count`.

    Products p(i, K) p(j, J) of numbers of partitions into so many parts, i + j = m, or i + j <= m with a null class.

    Raises:
        InputError: if width < 0.

    Complexity: O(m^2), O(m^4) with quiet classes.

    >>> level_types(4, ClassRules())
    {(1, 0): 1, (2, 0): 2, (3, 0): 1, (4, 0): 1}
    """
    _require(width)
    parts = _partitions_by_parts(width)
    out: dict[tuple[int, int], int] = {}
    for live in range(width + 1):
        rest = width - live
        quiet_sizes = range(rest + 1) if rules.null and rules.quiet else (rest,) if rules.quiet else (0,)
        if not (rules.null or rules.quiet) and rest:
            continue
        for size in quiet_sizes:
            for k, a in enumerate(parts[live]):
                for j, b in enumerate(parts[size]):
                    if a and b:
                        out[k, j] = out.get((k, j), 0) + a * b
    return dict(sorted(out.items()))


def _require(width: int) -> None:
    if width < 0:
        raise InputError(f"width {width}; give a number of neurons >= 0")


def _partition_numbers(most: int) -> list[int]:
    ways = [1] + [0] * most
    for part in range(1, most + 1):
        for n in range(part, most + 1):
            ways[n] += ways[n - part]
    return ways


def _partitions_by_parts(most: int) -> list[list[int]]:
    """Entry [n][k]: partitions of n into k parts; p(n, k) = p(n - 1, k - 1) + p(n - k, k)."""
    out = [[1]]
    for n in range(1, most + 1):
        row = [0] * (n + 1)
        for k in range(1, n + 1):
            row[k] = out[n - 1][k - 1] + (out[n - k][k] if k <= n - k else 0)
        out.append(row)
    return out
