"""Paths inside a fiber, exact at every rational time: scalings, shifts, the always-active block, dead neurons.

Permutations and flips are discrete. Only second-layer permutations can be undone by a path, through a dead neuron: it
takes over the row of another one while its outgoing weights are 0, then these weights, and the other is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_count, as_exact, shown
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.blockpaths import Move, Theta, Walker, between, move_block
from fiberscope.fibers.equations import Parts, System, roles_of, second_layer_row
from fiberscope.fibers.walks import own, rebuilt
from fiberscope.network import Network, require_network
from fiberscope.results import Result
from fiberscope.symmetries import neuron_types

ExactArray = npt.NDArray[Any]


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are found again from both ends."""
        return connect, (self.start, self.end)

    def at(self, t: Fraction | int | float) -> Network:
        """The parameter at time t, exactly in the fiber. O(parameters), a linear solve on the always-active piece.

        Raises:
            InputError: if t is no number in [0, 1].
        """
        given = as_exact(t, "time on a path")
        if given.shape != () or not 0 <= given.item() <= 1:
            raise InputError(f"time {shown(t)} on a path; give 0 <= t <= 1")
        time = rationals.as_fraction(given.item())
        if not self.moves or time == 0:
            return self.start
        piece = min(int(time * len(self.moves)), len(self.moves) - 1)
        return rebuilt(self.start, *self.moves[piece](time * len(self.moves) - piece))

    def points(self, count: int) -> tuple[Network, ...]:
        """The parameters at count equally spaced times, both ends included.

        Raises:
            InputError: if count is no whole number >= 0.
        """
        return tuple(self.at(Fraction(k, max(count - 1, 1))) for k in range(as_count(count, "number of points")))

    def __str__(self) -> str:
        """One line."""
        return f"path of {len(self.names)} pieces: {', '.join(self.names) or 'constant'}"


def connect(f: Network, g: Network) -> Path:
    """A path of parameters from f to g on which the function never changes.

    Args:
        f: a three-layer or two-layer ReLU network.
        g: another of the same widths.

    Raises:
        InputError: if f or g is no `Network`.
        ScopeError: if none is known; the reason says what is discrete or different. (Another function is one reason.)

    >>> f = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> g = Network.from_arrays(([[2.0]], [1.0]), ([[1.0]], [-5.0]), ([[1.0]], [0.0]))
    >>> path = connect(f, g)  # relu(2 relu(x) - 4) = relu(relu(2 x + 1) - 5)
    >>> path.names, path.at(Fraction(1, 2)).exact([7]), path.at(1).same_as(g)
    (('scaling of layer 1', 'hidden shift'), (Fraction(10, 1),), True)
    """
    require_network(f, "f")
    require_network(g, "g")
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
    walker = Walker(f)
    _scale_first(walker, system, goal)
    if system.shape == "three":
        _shift(walker, system, goal)
        _scale_second(walker, goal)
        move_block(walker, goal)
        _move_free(walker, goal)
        _reorder(walker, goal, g)
    return Path(tuple(walker.names), f, g, tuple(walker.moves))


def _holds(condition: Any, goal: Network) -> bool:
    try:
        return bool(condition.holds(goal))
    except ZeroDivisionError:
        return False


def _scale_first(walker: Walker, system: System, goal: Network) -> None:
    factors = system.parts(goal).rho

    def move(theta: Theta, s: Fraction) -> None:
        for i, rho in enumerate(factors):
            e = 1 + (rho - 1) * s
            theta[0][0][i], theta[1][0][i] = theta[0][0][i] * e, theta[1][0][i] * e
            theta[0][1][:, i] = theta[0][1][:, i] / e

    walker.go("scaling of layer 1", move)


def _shift(walker: Walker, system: System, goal: Network) -> None:
    found = roles_of(system.network).hidden
    wanted = rationals.fractions(goal.layers[0].bias)

    def move(theta: Theta, s: Fraction) -> None:
        for i, readers in found.items():
            by = (wanted[i] - theta[1][0][i]) * s
            theta[1][0][i] = theta[1][0][i] + by
            theta[1][1][readers] = theta[1][1][readers] - theta[0][1][readers, i] * by

    walker.go("hidden shift", move)


def _scale_second(walker: Walker, goal: Network) -> None:
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


# ---- dead neurons, unread ones, and the order of the second layer


def _move_free(walker: Walker, goal: Network) -> None:
    dead = list(neuron_types(goal.layers[1].weight, goal.layers[1].bias).dead)
    unread = list(roles_of(goal).unread)
    target = [own(la.weight) for la in goal.layers], [own(la.bias) for la in goal.layers]

    def move(theta: Theta, s: Fraction) -> None:
        for part in (0, 1):
            theta[part][1][dead] = between(theta[part][1][dead], target[part][1][dead], s)
            theta[part][0][unread] = between(theta[part][0][unread], target[part][0][unread], s)
        theta[0][2][:, dead] = between(theta[0][2][:, dead], target[0][2][:, dead], s)

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


def _reorder(walker: Walker, goal: Network, g: Network) -> None:
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


def _carry(walker: Walker, at: int, to: int) -> None:
    """The live neuron `at` moves to the place of the dead neuron `to`, which becomes free there."""

    def silence(theta: Theta, s: Fraction) -> None:
        theta[0][2][:, to] = theta[0][2][:, to] * (1 - s)

    def copy(theta: Theta, s: Fraction) -> None:
        for part in (0, 1):
            theta[part][1][to] = between(theta[part][1][to], theta[part][1][at], s)

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
