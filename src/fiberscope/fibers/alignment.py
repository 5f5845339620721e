"""Alignment: permute and rescale the hidden neurons of g so that its weights come close to those of f."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.arguments import as_count
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.network import Network, require_network
from fiberscope.results import Result, Rigor

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_NEAR_POWER = 1e-9
"""Factors as near as this to a power of two are that power: rounding of a norm is no reason to round weights."""


@dataclass(frozen=True)
class Move:
    """What is done to one hidden layer of g: new neuron i is old neuron permutation[i], its row times factors[i].

    The columns that read it are divided by the factor. Factors are positive where the activation is positively
    homogeneous, 1 or -1 where it is odd, and 1 for all others.
    """

    layer: int
    permutation: tuple[int, ...]
    factors: tuple[Fraction, ...]

    @property
    def trivial(self) -> bool:
        """Whether it changes nothing."""
        return self.permutation == tuple(range(len(self.permutation))) and all(q == 1 for q in self.factors)


@dataclass(frozen=True, eq=False)
class Alignment(Result):
    """How g was brought close to f. The rewriting of g is exact; how close it comes is measured in floats.

    Args:
        source: g as it was given.
        moves: one for each hidden layer.
        before: |W_g - W_f| / |W_f| for each layer, Frobenius norms of (W, b), as given.
        after: the same after the moves.
        rounds: sweeps over the layers that were made.
        rigor: EXACT for the rewriting.
        theorems: what the rewriting rests on.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"source"})

    source: Network = field(repr=False)
    moves: tuple[Move, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    rounds: int
    rigor: Rigor = Rigor.EXACT
    theorems: tuple[str, ...] = ("permutation-scaling",)

    @property
    def residual(self) -> tuple[tuple[float, float], ...]:
        """(before, after) for each layer."""
        return tuple(zip(self.before, self.after, strict=True))

    @cached_property
    def network(self) -> Network:
        """The same function as g on all of R^n, as rationals; weights that are no floats are `Fraction`."""
        return moved(self.source, self.moves)

    def __str__(self) -> str:
        """One screen: what moved, and how far apart the layers were and are."""
        lines = [f"aligned {self.source.architecture} in {self.rounds} rounds; the function is the same as before"]
        for k, (old, new) in enumerate(self.residual):
            text = f"  layer {k + 1}: relative distance {old:.3g} -> {new:.3g}"
            if k < len(self.moves):
                move = self.moves[k]
                away = sum(i != j for i, j in enumerate(move.permutation))
                text += f"; {away} of {len(move.permutation)} neurons permuted, "
                text += f"{sum(q != 1 for q in move.factors)} rescaled"
            lines.append(text)
        return "\n".join(lines[:20] + ([f"  ... {len(lines) - 20} more layers"] if len(lines) > 20 else []))


def align(f: Network, g: Network, *, rounds: int = 4, domain: Box | str | None = None) -> Alignment:
    """Permutations and positive scalings (signs where odd) of g's hidden neurons that bring its weights near f's.

    Neurons are matched by the cosines of their incoming rows (w_i, b_i), already aligned below, plus those of their
    outgoing columns, aligned above; each layer is one linear assignment, and the layers are swept until nothing
    changes. The scale of a matched neuron is <row_f, row_g> / |row_g|^2, a power of two where that is within 1e-9. All
    of this is floating point, but the result is an exact rewriting of g: a bad match costs nearness, never the
    function.

    Args:
        f: the network to come close to.
        g: the network to rewrite, of the same widths and activations.
        rounds: sweeps over the layers, at least 1; later ones also look at outgoing weights.
        domain: a box, or text such as "[0,1]" or "file", that says how inputs are scaled and centred when rows of the
            first layer are compared.

    Returns:
        The alignment. O(rounds (parameters * width + width^3)).

    Raises:
        InputError: if f or g is no `Network`, shapes or activations differ (it says where), or `rounds` or `domain` do
            not fit.

    Source: weight matching as in Git Re-Basin (Ainsworth et al., arXiv 2209.04836), with scalings.

    >>> f = Network.from_arrays(([[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0]), ([[1.0, 3.0]], [0.0]))
    >>> g = Network.from_arrays(([[0.0, 2.0], [4.0, 0.0]], [2.0, 0.0]), ([[1.5, 0.25]], [0.0]))
    >>> done = align(f, g)
    >>> done.moves[0].permutation, [str(q) for q in done.moves[0].factors], done.network.same_as(f)
    ((1, 0), ['1/4', '1/2'], True)
    """
    require_one_shape(f, g)
    match = _Match(f, g, None if domain is None else f.domain(domain))
    done = match.run(as_count(rounds, "rounds", 1))
    moves = match.moves()
    before = _residuals(match.first, match.second)
    # a sign is no scaling: (w, b) -> -(w, b) with s odd is a move of normal forms
    signs = any(q < 0 for move in moves for q in move.factors)
    theorems = ("permutation-scaling", *(("canonical-form",) if signs else ()))
    return Alignment(g, moves, before, _residuals(match.first, match.current()), done, theorems=theorems)


def require_one_shape(f: Network, g: Network) -> None:
    """Refuse networks of different widths or activations.

    Raises:
        InputError: saying what differs.
    """
    require_network(f, "f")
    require_network(g, "g")
    if f.widths != g.widths:
        raise InputError(f"networks have widths {f.widths} and {g.widths}; alignment needs the same ones")
    for k, (a, b) in enumerate(zip(f.layers, g.layers, strict=True)):
        if a.activation != b.activation:
            raise InputError(
                f"layer {k + 1} has activation {a.activation.label} in one network and {b.activation.label} in the "
                "other; alignment needs the same ones"
            )


def moved(net: Network, moves: Sequence[Move]) -> Network:
    """Apply moves to the hidden layers of a network, exactly.

    Args:
        net: the network.
        moves: at most one for each hidden layer.

    Raises:
        InputError: if a move is no permutation of its layer, or a factor is not allowed for its activation.

    >>> net = Network.from_arrays(([[1.0]], [0.5]), ([[3.0]], [0.0]))
    >>> moved(net, [Move(0, (0,), (Fraction(3),))]).layers[0].weight.tolist()
    [[3.0]]
    """
    layers = list(net.layers)
    for move in moves:
        if not 0 <= move.layer < len(layers) - 1:
            raise InputError(f"move of layer {move.layer}; the network has hidden layers 0 to {len(layers) - 2}")
        layer, above = layers[move.layer], layers[move.layer + 1]
        if sorted(move.permutation) != list(range(layer.n_out)) or len(move.factors) != layer.n_out:
            raise InputError(f"move of layer {move.layer} is no permutation of its {layer.n_out} neurons with factors")
        wrong = [q for q in move.factors if not _allowed(layer.activation, q)]
        if wrong:
            raise InputError(f"factor {wrong[0]} on layer {move.layer}: {layer.activation.label} does not forgive it")
        if move.trivial:
            continue
        order = list(move.permutation)
        weight = rationals.scale_rows(layer.weight[order], move.factors)
        bias = rationals.scale_rows(layer.bias[order], move.factors)
        outgoing = rationals.scale_columns(above.weight[:, order], [1 / q for q in move.factors])
        note = ("neurons permuted and rescaled",)
        layers[move.layer] = replace(layer, weight=weight, bias=bias, frame=None, folded=layer.folded + note)
        layers[move.layer + 1] = replace(above, weight=outgoing, frame=None, folded=above.folded + note)
    return net.with_layers(layers)


def _allowed(row: Activation, factor: Fraction) -> bool:
    if factor == 1 or (factor > 0 and row.homogeneity == 1):
        return True
    if row.parity != "odd" or not factor:
        return False
    return factor == -1 or row.homogeneity == 1


class _Match:
    """The search: float copies of the weights, and for each hidden layer an order and factors."""

    def __init__(self, f: Network, g: Network, domain: Box | None) -> None:
        self.rows = [layer.activation for layer in f.hidden]
        self.first = [(a.weight64, a.bias64) for a in f.layers]
        self.second = [(b.weight64, b.bias64) for b in g.layers]
        self.order: list[IntArray] = [np.arange(layer.n_out) for layer in f.hidden]
        self.factor: list[FloatArray] = [np.ones(layer.n_out) for layer in f.hidden]
        self.center, self.radius = np.zeros(f.widths[0]), np.ones(f.widths[0])
        if domain is not None:
            self.center = np.clip(0.0, domain.lower, domain.upper)
            spread = domain.upper - domain.lower
            if domain.bounded and (spread > 0).any():
                self.center, self.radius = 0.5 * domain.lower + 0.5 * domain.upper, 0.5 * spread

    def run(self, rounds: int) -> int:
        """Sweep until nothing changes; the number of sweeps."""
        with np.errstate(all="ignore"):
            for count in range(1, rounds + 1):
                old = [order.copy() for order in self.order]
                for k in range(len(self.rows)):
                    self._layer(k, outgoing=count > 1)
                if count > 1 and all((a == b).all() for a, b in zip(old, self.order, strict=True)):
                    return count
        return rounds

    def moves(self) -> tuple[Move, ...]:
        """The moves found, with factors that are the floats' rationals."""
        return tuple(
            Move(k, tuple(order.tolist()), tuple(Fraction(v) for v in factor.tolist()))
            for k, (order, factor) in enumerate(zip(self.order, self.factor, strict=True))
        )

    def current(self) -> list[tuple[FloatArray, FloatArray]]:
        """The weights of g after the moves, in floats."""
        with np.errstate(all="ignore"):
            return [self._moved(k) for k in range(len(self.second))]

    def _moved(self, k: int, *, own: bool = True) -> tuple[FloatArray, FloatArray]:
        weight, bias = self.second[k]
        if k:
            weight = weight[:, self.order[k - 1]] / self.factor[k - 1]
        if own and k < len(self.order):
            scale = self.factor[k]
            weight, bias = weight[self.order[k]] * scale[:, None], bias[self.order[k]] * scale
        return weight, bias

    def _incoming(self, k: int, weight: FloatArray, bias: FloatArray) -> FloatArray:
        """Rows to compare: for the first layer in centred and scaled inputs, else in units of f's neurons."""
        if k == 0:
            return np.column_stack([weight * self.radius, weight @ self.center + bias])
        return np.column_stack([weight * self._units(k - 1), bias])

    def _units(self, k: int) -> FloatArray:
        size = np.linalg.norm(np.column_stack(self.first[k]), axis=1)
        if k == 0:
            size = np.linalg.norm(self._incoming(0, *self.first[0]), axis=1)
        good = np.isfinite(size) & (size > 0)
        return np.where(good, size, 1.0)

    def _layer(self, k: int, *, outgoing: bool) -> None:
        from scipy.optimize import linear_sum_assignment

        mine = self._incoming(k, *self.first[k])
        theirs = self._incoming(k, *self._moved(k, own=False))
        near = _cosines(mine, theirs)
        signs = self.rows[k].parity == "odd"
        score = np.abs(near) if signs else near
        columns, others = self.first[k + 1][0], self._outgoing(k)
        if outgoing:
            reading = _cosines(columns.T, others.T)
            score = score + (reading * np.where(near < 0, -1.0, 1.0) if signs else reading)
        order = np.asarray(linear_sum_assignment(-np.nan_to_num(score))[1], dtype=np.intp)
        self.order[k] = order
        silent = ~theirs[order].any(axis=1) & (self.rows[k].homogeneity == 1)
        self.factor[k] = self._factors(k, mine, theirs[order])
        if outgoing and silent.any():  # rows of zeros: only what reads them has a scale
            sizes = (np.linalg.norm(v, axis=0) for v in (others[:, order], columns))
            ratio = np.divide(*sizes)
            self.factor[k] = np.where(silent, _rounded(ratio), self.factor[k])

    def _outgoing(self, k: int) -> FloatArray:
        """Columns of g that read layer k, in its own order, rows aligned to f."""
        weight = self.second[k + 1][0]
        if k + 1 < len(self.order):
            weight = weight[self.order[k + 1]] * self.factor[k + 1][:, None]
        return weight

    def _factors(self, k: int, mine: FloatArray, theirs: FloatArray) -> FloatArray:
        row = self.rows[k]
        product = (mine * theirs).sum(axis=1)
        ratio = product / (theirs * theirs).sum(axis=1)
        if row.homogeneity != 1:
            return np.where(ratio < 0, -1.0, 1.0) if row.parity == "odd" else np.ones(len(mine))
        norms = np.linalg.norm(mine, axis=1) / np.linalg.norm(theirs, axis=1)
        # neurons that do not match keep their size
        ratio = np.where(np.abs(ratio) > 0.5 * norms, ratio, np.copysign(norms, ratio))
        if row.parity != "odd":
            ratio = np.where(ratio > 0, ratio, norms)
        return _rounded(ratio)


def _rounded(ratio: FloatArray) -> FloatArray:
    """Usable factors: 1 for what is none, a power of two for what is near one."""
    usable = np.isfinite(ratio) & (np.abs(ratio) > 1e-100) & (np.abs(ratio) < 1e100)
    ratio = np.where(usable, ratio, 1.0)
    power = np.copysign(np.exp2(np.rint(np.log2(np.abs(ratio)))), ratio)
    return np.where(np.abs(ratio - power) <= _NEAR_POWER * np.abs(power), power, ratio)


def _cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cosines between the rows of a and b, (m, n) each; 1 for two zero rows."""
    left, right = (_unit(v) for v in (a, b))
    empty = [np.asarray(~v.any(axis=1)) for v in (left, right)]
    both = empty[0][:, None] & empty[1][None, :]
    return np.where(both, 1.0, left @ right.T)


def _unit(rows: FloatArray) -> FloatArray:
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    size = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(np.nan_to_num(scaled / np.where(size > 0, size, 1.0)))


def _residuals(
    first: Sequence[tuple[FloatArray, FloatArray]], second: Sequence[tuple[FloatArray, FloatArray]]
) -> tuple[float, ...]:
    out = []
    for mine, theirs in zip(first, second, strict=True):
        a, b = np.column_stack(mine), np.column_stack(theirs)
        unit = float(np.abs(a).max(initial=0.0)) or 1.0
        size, gap = float(np.linalg.norm(a / unit)), float(np.linalg.norm((b - a) / unit))
        out.append(gap / size if size else (np.inf if gap else 0.0))
    return tuple(out)
