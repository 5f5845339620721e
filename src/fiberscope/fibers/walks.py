"""Random walks in a fiber: exact moves that keep the function of a ReLU network.

f(x) = W3 relu(W2 y + b2) + b3, y = relu(W1 x + b1): neuron j of the second layer is (u_j, c_j, v_j). Every move is an
identity on y >= 0, so the new parameter computes the same rationals everywhere. Source: arXiv 2605.18319.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_count, as_generator
from fiberscope.errors import InputError, ScopeError
from fiberscope.network import Network, require_network

ExactArray = npt.NDArray[Any]
Move = dict[str, Any]

ZERO, ONE = Fraction(0), Fraction(1)
_FACTORS = tuple(Fraction(*q) for q in ((1, 3), (1, 2), (2, 3), (1, 1), (3, 2), (2, 1), (3, 1)))
_DYADIC = tuple(Fraction(2) ** k for k in range(-3, 4))
_SMALL = 40_000
"""Parameters up to which all moves are tried; beyond, permutations and scalings, which stay vectorised."""


@dataclass
class State:
    """A parameter on its walk; `factors` are the scalings so far, kept within small numbers."""

    net: Network
    weights: list[ExactArray]
    biases: list[ExactArray]
    rng: np.random.Generator
    dyadic: bool
    factors: dict[tuple[int, int], Fraction] = field(default_factory=dict)

    @classmethod
    def of(cls, net: Network, rng: np.random.Generator, dyadic: bool, small: bool) -> State:
        """The start of a walk; over Fractions if `small`, else floats stay floats."""
        convert: Callable[[ExactArray], ExactArray] = own if small else np.array
        weights, biases = ([convert(getattr(la, name)) for la in net.layers] for name in ("weight", "bias"))
        return cls(net, weights, biases, rng, dyadic)

    @property
    def top(self) -> int:
        """Index of the last hidden layer."""
        return len(self.weights) - 2

    def network(self) -> Network:
        """The network at this parameter, with float weights where they are floats."""
        return rebuilt(self.net, self.weights, self.biases)

    def pick(self, items: Sequence[Any]) -> Any:
        """One of the items at random, None out of nothing."""
        return items[int(self.rng.integers(len(items)))] if len(items) else None

    def short(self, q: Fraction) -> bool:
        """Whether a number may be used: any without `dyadic`, else a dyadic one."""
        return not self.dyadic or q.denominator & (q.denominator - 1) == 0

    def dead(self) -> list[int]:
        """Neurons of the last hidden layer that are zero whatever nonnegative numbers they read."""
        return [j for j in range(len(self.biases[self.top])) if self._one_signed(j, -1)]

    def active(self) -> list[int]:
        """Those that never become negative."""
        gone = set(self.dead())
        return [j for j in range(len(self.biases[self.top])) if self._one_signed(j, 1) and j not in gone]

    def split(self) -> list[int]:
        """The others."""
        gone = {*self.dead(), *self.active()}
        return [j for j in range(len(self.biases[self.top])) if j not in gone]

    def _one_signed(self, j: int, sign: int) -> bool:
        return bool((self.weights[self.top][j] * sign >= 0).all() and self.biases[self.top][j] * sign >= 0)


def random_walk(
    net: Network, steps: int = 12, seed: int | np.random.Generator | None = 0, *, dyadic: bool = False,
    moves: Sequence[str] | None = None,
) -> tuple[Network, list[Move]]:  # fmt: skip
    """A random member of the fiber: another parameter of the same widths that computes the same function exactly.

    Args:
        net: a chain. All moves are used on three-layer ReLU networks with n1 <= n0 and up to 40,000 parameters;
            permutations, scalings and signs on all others, unless `moves` says otherwise.
        steps: number of moves made.
        seed: seed or generator.
        dyadic: only factors and shifts that are powers of two or short dyadic numbers, so that floats stay floats.
        moves: names out of `MOVES`; "shift" to "revive" need two hidden ReLU layers on top (sound at any widths).

    Returns:
        (network, moves): each move with its name and numbers; fewer than `steps` where too few apply.

    Raises:
        InputError: if net is no `Network`, a move is unknown, or `steps` or `seed` is no whole number >= 0.
        ScopeError: if a move has no meaning for the network's activations.

    O(parameters) for each move. Source: arXiv 2605.18319.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> other, moves = random_walk(net, 6, seed=1)
    >>> other.exact([3]), other.same_as(net)
    ((Fraction(2, 1),), False)
    """
    require_network(net)
    steps = as_count(steps, "steps")
    names = tuple(MOVES) if moves is None else tuple(moves)
    unknown = [name for name in names if name not in MOVES]
    if unknown:
        raise InputError(f"unknown move {unknown[0]!r}; known: {', '.join(MOVES)}")
    stacked = net.depth >= 3 and all(layer.activation.name == "relu" for layer in net.hidden[-2:])
    small = net.parameter_count <= _SMALL
    if moves is not None and not stacked and set(names) & _TOP:
        raise ScopeError(f"move {min(set(names) & _TOP)!r} needs two hidden ReLU layers; found {net.architecture}")
    if moves is None and not (stacked and net.depth == 3 and net.widths[1] <= net.widths[0] and small):
        names = tuple(name for name in names if name not in _TOP)
    elif moves is None:
        names = tuple(name for name in names if name != "revive")
    state = State.of(net, as_generator(seed), dyadic, small or bool(set(names) & _TOP))
    done: list[Move] = []
    for _ in range(12 * steps):
        if len(done) == steps:
            break
        move = MOVES[state.pick(names)](state)
        if move is not None:
            done.append(move)
    return state.network(), done


# ---- moves at any depth


def _permute(state: State) -> Move | None:
    layer = int(state.rng.integers(len(state.weights) - 1)) if len(state.weights) > 1 else -1
    if layer < 0 or len(state.biases[layer]) < 2:
        return None
    order = state.rng.permutation(len(state.biases[layer]))
    state.weights[layer], state.biases[layer] = state.weights[layer][order], state.biases[layer][order]
    state.weights[layer + 1] = state.weights[layer + 1][:, order]
    at = {(layer, int(j)): k for k, j in enumerate(order)}
    state.factors = {(la, at.get((la, j), j)): q for (la, j), q in state.factors.items()}
    return {"move": "permute", "layer": layer, "order": order.tolist()}


def _scale(state: State) -> Move | None:
    """Rows times e, columns divided by e^d, d the degree of homogeneity; -1 where the activation has a parity."""
    layer = int(state.rng.integers(len(state.weights) - 1)) if len(state.weights) > 1 else -1
    if layer < 0 or not len(state.biases[layer]):
        return None
    row = state.net.layers[layer].activation
    degree = row.homogeneity
    n = len(state.biases[layer])
    if degree is None and row.parity is None:
        return None
    chosen = np.flatnonzero(state.rng.random(n) < 0.7) if n > 2 else np.arange(n)
    rows, columns = [ONE] * n, [ONE] * n
    for i in chosen.tolist():
        if degree is not None and degree >= 1:
            wanted = state.pick(_DYADIC if state.dyadic else _FACTORS)
            factor = wanted / state.factors.get((layer, i), ONE)
            state.factors[layer, i] = wanted
            rows[i], columns[i] = factor, 1 / factor**degree
        if row.parity is not None and state.rng.random() < 0.5:
            rows[i] = -rows[i]
            columns[i] = -columns[i] if row.parity == "odd" else columns[i]
    if all(q == 1 for q in rows):
        return None
    state.weights[layer] = _times(state.weights[layer], rows)
    state.biases[layer] = _times(state.biases[layer], rows)
    state.weights[layer + 1] = _times(state.weights[layer + 1].T, columns).T
    return {"move": "scale", "layer": layer, "factors": [str(q) for q in rows]}


# ---- moves of the last two hidden ReLU layers


def hidden_of(upper: ExactArray, bias: ExactArray, dead: Sequence[int]) -> dict[int, list[int]]:
    """{i: its readers} of neurons that a layer hides: readers j have u_ji > 0, c_j <= 0 and u_jk <= 0 for other k."""
    live = np.ones(len(bias), dtype=bool)
    live[list(dead)] = False
    plus, minus = np.asarray(upper > 0, dtype=bool), np.asarray(upper < 0, dtype=bool)
    quiet = plus & ((plus.sum(axis=1) == 1) & np.asarray(bias <= 0, dtype=bool))[:, None]
    out = {}
    for i in range(upper.shape[1]):
        readers = np.flatnonzero((plus | minus)[:, i] & live)
        if readers.size and quiet[readers, i].all():
            out[i] = readers.tolist()
    return out


def _shift(state: State) -> Move | None:
    """b_i += t, c_j -= u_ji t for the readers of a hidden i."""
    upper, bias = state.weights[state.top], state.biases[state.top]
    found = hidden_of(upper, bias, state.dead())
    i = state.pick(list(found))
    if i is None:
        return None
    room = min(-bias[j] / upper[j, i] for j in found[i])
    by = _short_number(state, room)
    if by is None:
        return None
    state.biases[state.top - 1][i] += by
    for j in found[i]:
        bias[j] -= upper[j, i] * by
    return {"move": "shift", "neuron": i, "by": str(by)}


def _short_number(state: State, room: Fraction) -> Fraction | None:
    """A short dyadic number above -room, not 0; sometimes -room itself."""
    if room > 0 and state.rng.random() < 0.2 and state.short(room):
        return -room
    unit = Fraction(2) ** (int(np.floor(np.log2(float(room)))) - 2 if room > 0 else -2)
    by = unit * int(state.rng.integers(-4, 9))
    return by if by and by >= -room else None


def _turn(state: State) -> Move | None:
    """z_i += rho z_k, z_k -> -z_k for a hidden i, rho = u_jk / u_ji common to its readers, the only readers of k."""
    upper, bias = state.weights[state.top], state.biases[state.top]
    dead = state.dead()
    options = []
    for i, readers in hidden_of(upper, bias, dead).items():
        others = [j for j in range(len(bias)) if j not in dead and j not in readers]
        for k in range(upper.shape[1]):
            ratios = {upper[j, k] / upper[j, i] for j in readers}
            if k != i and len(ratios) == 1 and not any(upper[j, k] for j in others):
                options.append((i, k, ratios.pop()))
    options = [o for o in options if o[2] and state.short(o[2])]
    if not options:
        return None
    i, k, ratio = state.pick(options)
    for table in (state.weights[state.top - 1], state.biases[state.top - 1]):
        table[i] = table[i] + ratio * table[k]
        table[k] = -table[k]
    return {"move": "turn", "neuron": k, "onto": i, "ratio": str(ratio)}


def _renew(state: State) -> Move | None:
    """A dead neuron becomes any other dead one."""
    j = state.pick(state.dead())
    if j is None:
        return None
    n1, n3 = state.weights[state.top].shape[1], len(state.biases[-1])
    state.weights[state.top][j] = entries(state.rng, n1, -1)
    state.biases[state.top][j] = entries(state.rng, 1, -1)[0]
    state.weights[-1][:, j] = entries(state.rng, n3, 0)
    return {"move": "renew", "neuron": j}


def _rebias(state: State) -> Move | None:
    """An always-active c_j grows or shrinks within c_j >= 0; the output bias pays."""
    j = state.pick(state.active())
    if j is None:
        return None
    by = _short_number(state, state.biases[state.top][j])
    if by is None or not (state.weights[state.top][j] != 0).any() and state.biases[state.top][j] + by == 0:
        return None
    state.biases[state.top][j] += by
    state.biases[-1] = state.biases[-1] - state.weights[-1][:, j] * by
    return {"move": "rebias", "neuron": j, "by": str(by)}


def _exchange(state: State) -> Move | None:
    """Always-active j, k: u_j -= t u_k, v_k += t v_j, with u_j >= 0 kept: the same product; the output bias pays."""
    pair = state.active()
    if len(pair) < 2:
        return None
    j, k = (pair[p] for p in state.rng.permutation(len(pair))[:2])
    u = state.weights[state.top]
    limits = [a / b for a, b in zip(u[j], u[k], strict=True) if b]
    most = min(limits, default=ONE)
    if state.rng.random() < 0.5 and most > 0:
        t = Fraction(2) ** (int(np.floor(np.log2(float(most)))) - int(state.rng.integers(0, 3)))
        t = most if most < t or (state.rng.random() < 0.1 and state.short(most)) else t
    else:
        t = -Fraction(int(state.rng.integers(1, 4)), 2)
    if not state.short(t):
        return None
    u[j] = u[j] - t * u[k]
    state.weights[-1][:, k] = state.weights[-1][:, k] + t * state.weights[-1][:, j]
    state.biases[-1] = state.biases[-1] - t * state.weights[-1][:, j] * state.biases[state.top][k]
    return {"move": "exchange", "neurons": [j, k], "by": str(t)}


def _flip(state: State) -> Move | None:
    """relu(t) = relu(-t) + t for a split neuron; the always-active block and the output bias take the linear part."""
    split, block = state.split(), state.active()
    if not split or not block:
        return None
    j = state.pick(split)
    u, c, v = state.weights[state.top][j], state.biases[state.top][j], state.weights[-1][:, j]
    shares = _shares(state.weights[-1][:, block], v)
    if shares is None or not all(state.short(q) for q in shares):
        return None
    rows = [state.weights[state.top][k] + q * u for k, q in zip(block, shares, strict=True)]
    if any((row < 0).any() for row in rows):
        return None
    for k, row in zip(block, rows, strict=True):
        state.weights[state.top][k] = row
    state.biases[-1] = state.biases[-1] + v * c
    state.weights[state.top][j], state.biases[state.top][j] = -u, -c
    return {"move": "flip", "neuron": j, "shares": {str(k): str(q) for k, q in zip(block, shares, strict=True)}}


def _shares(columns: ExactArray, v: ExactArray) -> list[Fraction] | None:
    """Coefficients mu with columns @ mu = v, or None."""
    a = columns.shape[1]
    if len(v) == 1:
        k = next((k for k in range(a) if columns[0, k]), None)
        return None if k is None else [v[0] / columns[0, k] if m == k else ZERO for m in range(a)]
    pivots, form = rationals.row_reduce(np.column_stack([columns, v]))
    if a in pivots:
        return None
    out = [ZERO] * a
    for row, p in zip(rationals.fractions(form), pivots, strict=True):
        out[p] = row[-1]
    return out


def _revive(state: State) -> Move | None:
    """A dead neuron becomes a positive multiple of a live one and takes a share of its output (not generic)."""
    j, live = state.pick(state.dead()), [*state.active(), *state.split()]
    k = state.pick(live)
    if j is None or k is None:
        return None
    e, share = state.pick(_DYADIC if state.dyadic else _FACTORS), Fraction(int(state.rng.integers(1, 4)), 4)
    state.weights[state.top][j] = state.weights[state.top][k] * e
    state.biases[state.top][j] = state.biases[state.top][k] * e
    v = state.weights[-1][:, k].copy()
    state.weights[-1][:, j], state.weights[-1][:, k] = v * (share / e), v * (1 - share)
    return {"move": "revive", "neuron": j, "like": k, "factor": str(e), "share": str(share)}


MOVES: dict[str, Callable[[State], Move | None]] = {
    "permute": _permute,
    "scale": _scale,
    "shift": _shift,
    "turn": _turn,
    "renew": _renew,
    "rebias": _rebias,
    "exchange": _exchange,
    "flip": _flip,
    "revive": _revive,
}
"""Name -> move; it changes the state and says what it did, or returns None where it does not apply."""

_TOP = set(MOVES) - {"permute", "scale"}


# ---- arrays


def entries(rng: np.random.Generator, count: int, sign: int) -> ExactArray:
    """Random k / 8, 1 <= |k| <= 63, of one sign or of both (0)."""
    sizes = rng.integers(1, 64, count)
    signs = np.full(count, sign) if sign else rng.choice((-1, 1), count)
    out = np.empty(count, dtype=object)
    out[:] = [Fraction(int(s) * int(k), 8) for s, k in zip(signs, sizes, strict=True)]
    return out


def zeros(count: int) -> ExactArray:
    """Zeros, (count,)."""
    return np.full(count, ZERO, dtype=object)


def own(array: ExactArray) -> ExactArray:
    """A copy over Fractions."""
    return np.array(rationals.fractions(array))


def _times(array: ExactArray, factors: Sequence[Fraction]) -> ExactArray:
    """Rows, or entries of a vector, times factors; rationals stay rationals."""
    if rationals.is_rational(array):
        column = np.array(factors, dtype=object)
        return np.asarray(array * (column[:, None] if array.ndim == 2 else column))
    return rationals.scale_rows(array, factors)


def rebuilt(net: Network, weights: Sequence[ExactArray], biases: Sequence[ExactArray]) -> Network:
    """The network with other weights; float64 where that is exact."""
    pairs = [(rationals.simplified(w), rationals.simplified(b)) for w, b in zip(weights, biases, strict=True)]
    return Network.from_arrays(*pairs, activation=[layer.activation for layer in net.layers], head=net.head)
