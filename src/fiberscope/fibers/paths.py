"""Paths inside a fiber, exact at every rational time: scalings, shifts, the always-active block, dead neurons.

Permutations and flips are discrete. Only second-layer permutations can be undone by a path, through a dead neuron: it
takes over the row of another one while its outgoing weights are 0, then these weights, and the other is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.equations import Parts, System, roles_of, second_layer_row
from fiberscope.fibers.walks import own, rebuilt
from fiberscope.network import Network
from fiberscope.results import Result
from fiberscope.symmetries import neuron_types

ExactArray = npt.NDArray[Any]
Theta = tuple[list[ExactArray], list[ExactArray]]
"""Weights and biases of the layers, over Fractions."""
Move = Callable[[Fraction], Theta]

_DEPTH = 24


@dataclass(frozen=True, eq=False)
class Path(Result):
    """Parameters theta(t), 0 <= t <= 1, of one function, continuous in t and rational at rational t.

    Args:
        names: what happens on each of the equally long pieces.
        start, end: both ends.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"start", "end", "moves"})

    names: tuple[str, ...]
    start: Network
    end: Network
    moves: tuple[Move, ...] = field(repr=False)

    def at(self, t: Fraction | int | float) -> Network:
        """The parameter at time t, exactly in the fiber. O(parameters), a linear solve on the always-active piece.

        Raises:
            InputError: if t is outside [0, 1].
        """
        time = rationals.as_fraction(t)
        if not 0 <= time <= 1:
            raise InputError(f"time {time} on a path; give 0 <= t <= 1")
        if not self.moves or time == 0:
            return self.start
        piece = min(int(time * len(self.moves)), len(self.moves) - 1)
        return rebuilt(self.start, *self.moves[piece](time * len(self.moves) - piece))

    def points(self, count: int) -> tuple[Network, ...]:
        """The parameters at count equally spaced times, both ends included."""
        return tuple(self.at(Fraction(k, max(count - 1, 1))) for k in range(count))

    def __str__(self) -> str:
        """One line."""
        return f"path of {len(self.names)} pieces: {', '.join(self.names) or 'constant'}"


def connect(f: Network, g: Network) -> Path:
    """A path of parameters from f to g on which the function never changes.

    Args:
        f: a three-layer or two-layer ReLU network.
        g: another of the same widths.

    Raises:
        ScopeError: if none is known; the reason says what is discrete or different. (Another function is one reason.)

    >>> f = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> g = Network.from_arrays(([[2.0]], [1.0]), ([[1.0]], [-5.0]), ([[1.0]], [0.0]))
    >>> path = connect(f, g)  # relu(2 relu(x) - 4) = relu(relu(2 x + 1) - 5)
    >>> path.names, path.at(Fraction(1, 2)).exact([7]), path.at(1).same_as(g)
    (('scaling of layer 1', 'hidden shift'), (Fraction(10, 1),), True)
    """
    if f.widths != g.widths or [la.activation for la in f.layers] != [la.activation for la in g.layers]:
        raise ScopeError(f"no path from {f.architecture} to {g.architecture}: other widths or activations")
    if f.same_as(g):
        return Path((), f, g, ())
    system = System(f)
    if system.shape == "point":
        raise ScopeError("no path: the fiber of a two-layer tanh network is discrete where it is irreducible")
    goal = g if system.shape == "two" else _sorted_like(system, g)
    if not system.holds(goal):
        bad = next((c for c in (*system.inequalities, *system.equations) if not _holds(c, goal)), None)
        raise ScopeError(f"no path is known that keeps the roles of neurons: {bad.name if bad else 'roles'} differ")
    walker = _Walker(f)
    _scale_first(walker, system, goal)
    if system.shape == "three":
        _shift(walker, system, goal)
        _scale_second(walker, goal)
        _move_block(walker, goal)
        _move_free(walker, goal)
        _reorder(walker, goal, g)
    return Path(tuple(walker.names), f, g, tuple(walker.moves))


def _holds(condition: Any, goal: Network) -> bool:
    try:
        return bool(condition.holds(goal))
    except ZeroDivisionError:
        return False


class _Walker:
    """The parameter so far, and the pieces that led to it."""

    def __init__(self, net: Network) -> None:
        self.weights = [own(la.weight) for la in net.layers]
        self.biases = [own(la.bias) for la in net.layers]
        self.names: list[str] = []
        self.moves: list[Move] = []

    def copy(self) -> Theta:
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


def _between(a: Any, b: Any, s: Fraction) -> Any:
    return a + (b - a) * s


def _scale_first(walker: _Walker, system: System, goal: Network) -> None:
    factors = system.parts(goal).rho

    def move(theta: Theta, s: Fraction) -> None:
        for i, rho in enumerate(factors):
            e = 1 + (rho - 1) * s
            theta[0][0][i], theta[1][0][i] = theta[0][0][i] * e, theta[1][0][i] * e
            theta[0][1][:, i] = theta[0][1][:, i] / e

    walker.go("scaling of layer 1", move)


def _shift(walker: _Walker, system: System, goal: Network) -> None:
    found = roles_of(system.network).hidden
    wanted = rationals.fractions(goal.layers[0].bias)

    def move(theta: Theta, s: Fraction) -> None:
        for i, readers in found.items():
            by = (wanted[i] - theta[1][0][i]) * s
            theta[1][0][i] = theta[1][0][i] + by
            theta[1][1][readers] = theta[1][1][readers] - theta[0][1][readers, i] * by

    walker.go("hidden shift", move)


def _scale_second(walker: _Walker, goal: Network) -> None:
    upper = rationals.fractions(goal.layers[1].weight)
    split = neuron_types(goal.layers[1].weight, goal.layers[1].bias).split
    factors = {}
    for j in split:
        k = next(k for k, v in enumerate(upper[j]) if v)
        factors[j] = upper[j, k] / walker.weights[1][j, k]

    def move(theta: Theta, s: Fraction) -> None:
        for j, kappa in factors.items():
            e = 1 + (kappa - 1) * s
            theta[0][1][j], theta[1][1][j] = theta[0][1][j] * e, theta[1][1][j] * e
            theta[0][2][:, j] = theta[0][2][:, j] / e

    walker.go("scaling of layer 2", move)


# ---- the always-active block: V U = T, U >= 0


def _move_block(walker: _Walker, goal: Network) -> None:
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
        theta[1][1][block] = _between(theta[1][1][block], biases, s)
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


def _rescale_block(walker: _Walker, block: list[int], scales: list[Fraction]) -> None:
    def move(theta: Theta, s: Fraction) -> None:
        for j, factor in zip(block, scales, strict=True):
            e = 1 + (factor - 1) * s
            theta[0][1][j], theta[1][1][j] = theta[0][1][j] * e, theta[1][1][j] * e
            theta[0][2][:, j] = theta[0][2][:, j] / e

    walker.go("scaling of the always-active block", move)


def _line_of_block(walker: _Walker, block: list[int], upper: ExactArray) -> None:
    """V fixed: {U >= 0 : V U = T} is convex."""

    def move(theta: Theta, s: Fraction) -> None:
        theta[0][1][block] = _between(theta[0][1][block], upper, s)

    walker.go("line in the always-active block", move)


def _solvable(a: ExactArray, b: ExactArray, product: ExactArray) -> bool:
    """Whether `_follow` finds V with V U(s) = T on the whole line U(s) from a to b, continuously in s."""
    n, n1 = a.shape
    if n >= n1:  # columns of U(s) stay independent
        return _never_zero(lambda s: _determinant(_gram(_between(a, b, s))), 2 * n1)
    if rationals.rank(product) < n:
        return False
    change = _left_solution(a, b)  # b = E a, and (1 - s) I + s E must stay regular
    if change is None:
        return False
    identity = np.array([[Fraction(int(i == j)) for j in range(n)] for i in range(n)], dtype=object)
    return _never_zero(lambda s: _determinant(_between(identity, change, s)), n)


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


def _solved_line_of_block(walker: _Walker, block: list[int], upper: ExactArray, last: ExactArray) -> None:
    """U moves on a line, V follows with V U = T; the output bias pays for V c."""

    def move(theta: Theta, s: Fraction) -> None:
        old, c = theta[0][2][:, block], theta[1][1][block]
        product = old @ theta[0][1][block]
        theta[0][1][block] = _between(theta[0][1][block], upper, s)
        found = _follow(theta[0][1][block], product, _between(old, last, s))
        if found is None:
            raise ScopeError("the always-active block is singular on the way")
        theta[0][2][:, block] = found
        theta[1][2] = theta[1][2] + (old - found) @ c

    walker.go("line in the always-active block", move)


def _double_block(walker: _Walker, block: list[int], spare: list[int], last: ExactArray, upper: ExactArray) -> None:
    """Dead neurons carry the new factors while the old ones leave: (1 - s) V U + s V' U' = T, twice."""
    c = walker.biases[1][block].copy()

    def prepare(theta: Theta, s: Fraction) -> None:
        theta[0][2][:, spare] = theta[0][2][:, spare] * (1 - s)

    def place(theta: Theta, s: Fraction) -> None:
        theta[0][1][spare] = _between(theta[0][1][spare], upper, s)
        theta[1][1][spare] = _between(theta[1][1][spare], c, s)

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
        theta[0][1][block] = _between(theta[0][1][block], upper, s)

    def bury(theta: Theta, s: Fraction) -> None:
        theta[0][1][spare] = theta[0][1][spare] * (1 - s)
        theta[1][1][spare] = theta[1][1][spare] * (1 - s)

    for name, move in (
        ("dead neurons are silenced", prepare), ("they take new rows", place),
        ("the block is faded over", fade(block, spare)), ("the old rows follow", follow),
        ("the block is faded back", fade(spare, block)), ("dead neurons rest", bury),
    ):  # fmt: skip
        walker.go(name, move)


# ---- dead neurons, unread ones, and the order of the second layer


def _move_free(walker: _Walker, goal: Network) -> None:
    dead = list(neuron_types(goal.layers[1].weight, goal.layers[1].bias).dead)
    unread = list(roles_of(goal).unread)
    target = [own(la.weight) for la in goal.layers], [own(la.bias) for la in goal.layers]

    def move(theta: Theta, s: Fraction) -> None:
        for part in (0, 1):
            theta[part][1][dead] = _between(theta[part][1][dead], target[part][1][dead], s)
            theta[part][0][unread] = _between(theta[part][0][unread], target[part][0][unread], s)
        theta[0][2][:, dead] = _between(theta[0][2][:, dead], target[0][2][:, dead], s)

    walker.go("dead and unread neurons", move)


def _sorted_like(system: System, g: Network) -> Network:
    """Network g with its second layer in the order of the system's network, where it can be matched."""
    f = system.network
    parts = system.parts(g)
    mine, theirs = roles_of(f), neuron_types(g.layers[1].weight, g.layers[1].bias)
    if any(len(getattr(mine.types, name)) != len(getattr(theirs, name)) for name in ("split", "active", "dead")):
        raise ScopeError(f"no path is known between {mine.types} and {theirs} in the second layer")
    for i, rho in enumerate(parts.rho):
        if system.leads[i] >= 0 and rho <= 0:
            raise ScopeError(_first_reason(i))
    for condition in system.equations:
        if condition.name.endswith("of layer 1") and not condition.holds(g):
            raise ScopeError(_first_reason(int(condition.name.split()[1]) - 1))
    order = list(range(f.widths[2]))
    left = _row_keys(f, system.parts(f), mine.types.split)
    places = {key: j for j, key in _row_keys(f, parts, theirs.split).items()}
    for j, key in left.items():
        if key not in places:
            raise ScopeError(
                f"no path: split neuron {j} has no counterpart of the same orientation (a flip is discrete)"
            )
        order[j] = places[key]
    for name in ("active", "dead"):
        order = _pair(order, getattr(mine.types, name), getattr(theirs, name))
    return _reordered(g, order)


def _first_reason(i: int) -> str:
    return (
        f"no path is known: row {i} of layer 1 is no positive multiple of that in the other network; permutations and "
        "turns of first-layer neurons are discrete"
    )


def _row_keys(f: Network, parts: Parts, members: Sequence[int]) -> dict[int, Any]:
    out = {}
    for j in members:
        row, bias = second_layer_row(f, parts, j)
        table = np.array([[*row, bias]], dtype=object)
        out[j] = tuple(rationals.fractions(rationals.primitive_rows(table)[0])[0])
    return out


def _pair(order: list[int], mine: Sequence[int], theirs: Sequence[int]) -> list[int]:
    """Neurons of one type stay where they are if they can, the others in order."""
    rest = [j for j in theirs if j not in mine]
    for j in mine:
        order[j] = j if j in theirs else rest.pop(0)
    return order


def _reordered(net: Network, order: Sequence[int]) -> Network:
    weights, biases = [own(la.weight) for la in net.layers], [own(la.bias) for la in net.layers]
    index = list(order)
    weights[1], biases[1], weights[2] = weights[1][index], biases[1][index], weights[2][:, index]
    return rebuilt(net, weights, biases)


def _reorder(walker: _Walker, goal: Network, g: Network) -> None:
    """Carry second-layer neurons to their places in g through dead neurons."""
    if goal.same_as(g):
        return
    types = neuron_types(goal.layers[1].weight, goal.layers[1].bias)
    if not types.dead:
        raise ScopeError("no path is known: second-layer neurons are permuted, and no dead one can carry them")
    u, c, v = (rationals.fractions(a) for a in (g.layers[1].weight, g.layers[1].bias, g.layers[2].weight))
    key = {j: (*u[j], c[j], *v[:, j]) for j in range(len(c))}
    wanted = {}  # where each live neuron is to go
    left = [j for j in range(len(c)) if j not in neuron_types(g.layers[1].weight, g.layers[1].bias).dead]
    for j in (*types.split, *types.active):
        same = (*walker.weights[1][j], walker.biases[1][j], *walker.weights[2][:, j])
        wanted[j] = j if j in left and key[j] == same else next(k for k in left if key[k] == same)
        left.remove(wanted[j])
    dead = set(types.dead)
    while any(at != to for at, to in wanted.items()):
        at, to = next(((a, t) for a, t in wanted.items() if t in dead), (-1, -1))
        if at < 0:
            at, to = next(a for a, t in wanted.items() if a != t), min(dead)
        _carry(walker, at, to)
        wanted[to] = wanted.pop(at)
        dead = dead - {to} | {at}
    _move_free(walker, g)


def _carry(walker: _Walker, at: int, to: int) -> None:
    """The live neuron `at` moves to the place of the dead neuron `to`, which becomes free there."""

    def silence(theta: Theta, s: Fraction) -> None:
        theta[0][2][:, to] = theta[0][2][:, to] * (1 - s)

    def copy(theta: Theta, s: Fraction) -> None:
        for part in (0, 1):
            theta[part][1][to] = _between(theta[part][1][to], theta[part][1][at], s)

    def hand_over(theta: Theta, s: Fraction) -> None:
        column = theta[0][2][:, at].copy()
        theta[0][2][:, to], theta[0][2][:, at] = column * s, column * (1 - s)

    def bury(theta: Theta, s: Fraction) -> None:
        theta[0][1][at], theta[1][1][at] = theta[0][1][at] * (1 - s), theta[1][1][at] * (1 - s)

    for name, move in (
        (f"dead neuron {to} is silenced", silence), (f"it becomes a copy of neuron {at}", copy),
        (f"neuron {at} hands over", hand_over), (f"neuron {at} rests", bury),
    ):  # fmt: skip
        walker.go(name, move)
