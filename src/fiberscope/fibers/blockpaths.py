"""Pieces of paths in a fiber, and the hardest of them: from one factorisation V U = T, U >= 0, to another.

Three ways: V and V' agree up to positive scalings, then U moves on a line; U moves on a line and V is solved for; or
dead neurons carry the new factors while the old ones fade.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import ScopeError
from fiberscope.fibers.walks import own
from fiberscope.network import Network
from fiberscope.symmetries import neuron_types

ExactArray = npt.NDArray[Any]
Theta = tuple[list[ExactArray], list[ExactArray]]
"""Weights and biases of the layers, over Fractions."""
Move = Callable[[Fraction], Theta]

_DEPTH = 24


class Walker:
    """The parameter so far, and the pieces that led to it."""

    def __init__(self, net: Network) -> None:
        """Start at a network."""
        self.weights = [own(la.weight) for la in net.layers]
        self.biases = [own(la.bias) for la in net.layers]
        self.names: list[str] = []
        self.moves: list[Move] = []

    def copy(self) -> Theta:
        """The present arrays, copied."""
        return [a.copy() for a in self.weights], [a.copy() for a in self.biases]

    def go(self, name: str, move: Callable[[Theta, Fraction], None]) -> None:
        """Append a piece: `move` changes a copy of the present arrays to those at local time s."""
        start = self.copy()

        def run(s: Fraction) -> Theta:
            theta = [a.copy() for a in start[0]], [a.copy() for a in start[1]]
            move(theta, s)
            return theta

        weights, biases = run(Fraction(1))
        pairs = zip((*weights, *biases), (*start[0], *start[1]), strict=True)
        if all(bool((a == b).all()) for a, b in pairs):
            return
        self.weights, self.biases = weights, biases
        self.names.append(name)
        self.moves.append(run)


def between(a: Any, b: Any, s: Fraction) -> Any:
    """The point at time s on the line from a to b."""
    return a + (b - a) * s


def move_block(walker: Walker, goal: Network) -> None:
    """Append the pieces that bring the always-active block to that of the goal.

    Raises:
        ScopeError: if no way is known.
    """
    block = list(neuron_types(goal.layers[1].weight, goal.layers[1].bias).active)
    if not block:
        return
    last, upper = (
        rationals.fractions(goal.layers[2].weight)[:, block],
        rationals.fractions(goal.layers[1].weight)[block],
    )
    dead = list(neuron_types(goal.layers[1].weight, goal.layers[1].bias).dead)
    here = (walker.weights[2][:, block], walker.weights[1][block])
    if not (rationals.equal(here[0], last) and rationals.equal(here[1], upper)):
        scales = _positive_ratios(here[0], last)
        if scales is not None:
            _rescale_block(walker, block, scales)
            _line_of_block(walker, block, upper)
        elif _solvable(here[1], upper, rationals.matmul(*here)):
            _solved_line_of_block(walker, block, upper, last)
        elif len(dead) >= len(block):
            _double_block(walker, block, dead[: len(block)], last, upper)
        else:
            raise ScopeError("no path is known inside the always-active block: its factors cannot be joined by a line")
    biases = rationals.fractions(goal.layers[1].bias)[block]

    def move(theta: Theta, s: Fraction) -> None:
        before = theta[0][2][:, block] @ theta[1][1][block]
        theta[1][1][block] = between(theta[1][1][block], biases, s)
        theta[1][2] = theta[1][2] + before - theta[0][2][:, block] @ theta[1][1][block]

    walker.go("biases of the always-active block", move)


def _positive_ratios(a: ExactArray, b: ExactArray) -> list[Fraction] | None:
    """Positive e_j with b_j = a_j / e_j for each column, or None."""
    out = []
    for x, y in zip(a.T, b.T, strict=True):
        k = next((k for k, v in enumerate(y) if v), None)
        e = x[k] / y[k] if k is not None else Fraction(1)
        if e <= 0 or not bool((x == y * e).all()):
            return None
        out.append(e)
    return out


def _rescale_block(walker: Walker, block: list[int], scales: list[Fraction]) -> None:
    def move(theta: Theta, s: Fraction) -> None:
        for j, factor in zip(block, scales, strict=True):
            e = 1 + (factor - 1) * s
            theta[0][1][j], theta[1][1][j] = theta[0][1][j] * e, theta[1][1][j] * e
            theta[0][2][:, j] = theta[0][2][:, j] / e

    walker.go("scaling of the always-active block", move)


def _line_of_block(walker: Walker, block: list[int], upper: ExactArray) -> None:
    """V fixed: {U >= 0 : V U = T} is convex."""

    def move(theta: Theta, s: Fraction) -> None:
        theta[0][1][block] = between(theta[0][1][block], upper, s)

    walker.go("line in the always-active block", move)


def _solvable(a: ExactArray, b: ExactArray, product: ExactArray) -> bool:
    """Whether `_follow` finds V with V U(s) = T on the whole line U(s) from a to b, continuously in s."""
    n, n1 = a.shape
    if n >= n1:  # columns of U(s) stay independent
        return _never_zero(lambda s: _determinant(_gram(between(a, b, s))), 2 * n1)
    if rationals.rank(product) < n:
        return False
    change = _left_solution(a, b)  # b = E a, and (1 - s) I + s E must stay regular
    if change is None:
        return False
    identity = np.array([[Fraction(int(i == j)) for j in range(n)] for i in range(n)], dtype=object)
    return _never_zero(lambda s: _determinant(between(identity, change, s)), n)


def _gram(u: ExactArray) -> ExactArray:
    return rationals.fractions(rationals.matmul(u.T, u))


def _follow(u: ExactArray, product: ExactArray, guess: ExactArray) -> ExactArray | None:
    """V with V u = product: the only one, or with independent columns of u the one nearest to the guess."""
    n, n1 = u.shape
    if n < n1:
        return _left_solution(u, product)
    rest = product - rationals.fractions(rationals.matmul(guess, u))
    share = _left_solution(_gram(u), rest)
    return None if share is None else guess + rationals.fractions(rationals.matmul(share, u.T))


def _left_solution(a: ExactArray, b: ExactArray) -> ExactArray | None:
    """X with X a = b, or None."""
    n = len(a)
    pivots, form = rationals.row_reduce(np.column_stack([a.T, b.T]))
    if list(pivots) != list(range(n)):
        return None
    return np.asarray(rationals.fractions(form)[:, n:].T)


def _never_zero(p: Callable[[Fraction], Fraction], n: int) -> bool:
    """Whether a polynomial of degree n has no zero in [0, 1]: signs of Bernstein coefficients, halved as needed.

    False also where that stays open.
    """
    nodes = [Fraction(k, n) for k in range(n + 1)]
    values = [p(s) for s in nodes]
    if len({v > 0 for v in values}) > 1 or not all(values):
        return False
    # p(s) = sum_k c_k B_k(s), B_k(s) = binomial(n, k) s^k (1 - s)^(n - k)
    table = np.empty((n + 1, n + 2), dtype=object)
    for row, (s, value) in enumerate(zip(nodes, values, strict=True)):
        choose = Fraction(1)
        for k in range(n + 1):
            table[row, k] = choose * s**k * (1 - s) ** (n - k)
            choose = choose * (n - k) / (k + 1)
        table[row, -1] = value
    _, form = rationals.row_reduce(table)
    waiting = [(list(rationals.fractions(form)[:, -1]), 0)]
    while waiting:
        c, depth = waiting.pop()
        if len({v > 0 for v in c}) == 1 and all(c):
            continue
        if not c[0] or not c[-1] or (c[0] > 0) != (c[-1] > 0) or depth == _DEPTH:
            return False
        left, right = [], []
        while c:
            left.append(c[0])
            right.append(c[-1])
            c = [(p + q) / 2 for p, q in zip(c, c[1:], strict=False)]
        waiting += [(left, depth + 1), (right[::-1], depth + 1)]
    return True


def _determinant(a: ExactArray) -> Fraction:
    table = rationals.fractions(a).copy()
    out = Fraction(1)
    for k in range(len(table)):
        p = next((r for r in range(k, len(table)) if table[r, k]), None)
        if p is None:
            return Fraction(0)
        if p != k:
            table[[k, p]] = table[[p, k]]
            out = -out
        out *= table[k, k]
        for r in range(k + 1, len(table)):
            if table[r, k]:
                table[r] = table[r] - table[k] * (table[r, k] / table[k, k])
    return out


def _solved_line_of_block(walker: Walker, block: list[int], upper: ExactArray, last: ExactArray) -> None:
    """U moves on a line, V follows with V U = T; the output bias pays for V c."""

    def move(theta: Theta, s: Fraction) -> None:
        old, c = theta[0][2][:, block], theta[1][1][block]
        product = old @ theta[0][1][block]
        theta[0][1][block] = between(theta[0][1][block], upper, s)
        found = _follow(theta[0][1][block], product, between(old, last, s))
        if found is None:
            raise ScopeError("the always-active block is singular on the way")
        theta[0][2][:, block] = found
        theta[1][2] = theta[1][2] + (old - found) @ c

    walker.go("line in the always-active block", move)


def _double_block(walker: Walker, block: list[int], spare: list[int], last: ExactArray, upper: ExactArray) -> None:
    """Dead neurons carry the new factors while the old ones leave: (1 - s) V U + s V' U' = T, twice."""
    c = walker.biases[1][block].copy()

    def prepare(theta: Theta, s: Fraction) -> None:
        theta[0][2][:, spare] = theta[0][2][:, spare] * (1 - s)

    def place(theta: Theta, s: Fraction) -> None:
        theta[0][1][spare] = between(theta[0][1][spare], upper, s)
        theta[1][1][spare] = between(theta[1][1][spare], c, s)

    def fade(leaving: list[int], coming: list[int]) -> Callable[[Theta, Fraction], None]:
        def move(theta: Theta, s: Fraction) -> None:
            old = theta[0][2][:, leaving]
            before = old @ theta[1][1][leaving]
            theta[0][2][:, coming] = last * s
            theta[0][2][:, leaving] = old * (1 - s)
            after = theta[0][2][:, leaving] @ theta[1][1][leaving] + theta[0][2][:, coming] @ theta[1][1][coming]
            theta[1][2] = theta[1][2] + before - after

        return move

    def follow(theta: Theta, s: Fraction) -> None:
        theta[0][1][block] = between(theta[0][1][block], upper, s)

    def bury(theta: Theta, s: Fraction) -> None:
        theta[0][1][spare] = theta[0][1][spare] * (1 - s)
        theta[1][1][spare] = theta[1][1][spare] * (1 - s)

    for name, move in (
        ("dead neurons are silenced", prepare), ("they take new rows", place),
        ("the block is faded over", fade(block, spare)), ("the old rows follow", follow),
        ("the block is faded back", fade(spare, block)), ("dead neurons rest", bury),
    ):  # fmt: skip
        walker.go(name, move)
