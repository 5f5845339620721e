"""The search for a normal form: passes over the layers until nothing changes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.domains import Box
from fiberscope.fibers.chain import Chain, reflection, with_bias
from fiberscope.fibers.exchanges import exchange, leading_sign, move_hidden, nonzero, unroll
from fiberscope.network import HEADS, Network

ExactArray = npt.NDArray[Any]

_SETTLED = ("scale", "permute", "flip")
"""Moves after which a pass from below to above need not be repeated: they touch the rows and the columns above only."""


def normalised(net: Network, domain: Box | str | None = None, *, linear_part: bool = True) -> Chain:
    """The chain of a network after all moves; without `linear_part` only those that need no skip."""
    chain = Chain.of(net, net.domain(domain))
    if chain.head in HEADS and chain.activations[-1].name == "identity":
        chain.centre()
    seen = -1
    while seen < 0 or any(step["move"] not in _SETTLED for step in chain.steps[seen:]):
        seen = len(chain.steps)
        _drop_unread(chain)
        for layer in range(len(chain.weights) - 1):
            _tidy(chain, layer)
        if linear_part and len(chain.weights) > 1:
            _linear_part(chain)
            _drop_unread(chain)
            if not unroll(chain) and not exchange(chain):
                move_hidden(chain)
    if chain.head == "argmax" and chain.activations[-1].name == "identity":
        chain.stretch()
    return chain


def _drop_unread(chain: Chain) -> None:
    for layer in range(chain.last, -1, -1):
        chain.drop(layer, np.flatnonzero(~chain.read(layer)).tolist())


def _tidy(chain: Chain, layer: int) -> None:
    """Constants out, rows scaled and pointed, proportional ones merged, the rest sorted."""
    _fold_constants(chain, layer)
    _point(chain, layer)
    _merge_equal(chain, layer)
    chain.permute(layer, _order(chain.weights[layer], chain.biases[layer]))


def _fold_constants(chain: Chain, layer: int) -> None:
    row, bias = chain.activations[layer], chain.biases[layer]
    flat = ~nonzero(chain.weights[layer]).any(axis=1)
    found = [(i, row.value(rationals.as_fraction(bias[i]))) for i in np.flatnonzero(flat).tolist()]
    pairs = [(i, value) for i, value in found if value is not None]
    first = (row.pieces or (None,))[0]
    if first is not None and first.slope == 0 and first.hi is not None and chain.nonnegative_inputs(layer):
        low = ~np.asarray(chain.weights[layer] > 0, dtype=bool).any(axis=1) & ~flat
        low &= np.asarray(bias <= first.hi, dtype=bool)
        pairs += [(i, first.intercept) for i in np.flatnonzero(low).tolist()]
    chain.constant(layer, [i for i, _ in pairs], [value for _, value in pairs])


def _point(chain: Chain, layer: int) -> None:
    """Primitive rows where s is positively homogeneous; first nonzero entry positive where turning round is free."""
    row = chain.activations[layer]
    table = with_bias(chain.weights[layer], chain.biases[layer])
    turned = leading_sign(table) < 0 if row.parity is not None else np.zeros(len(table), dtype=bool)
    if row.homogeneity is not None and row.homogeneity >= 1:
        _, units = rationals.primitive_rows(table)
    else:
        units = np.full(len(table), Fraction(1), dtype=object)
    chain.scale(layer, [-1 / u if t else 1 / u for u, t in zip(units, turned, strict=True)])
    rule = reflection(row)
    if row.parity is None and rule is not None and rule[1] == 0:
        chain.flip(layer, np.flatnonzero(leading_sign(chain.weights[layer]) < 0).tolist())


def _merge_equal(chain: Chain, layer: int) -> None:
    first: dict[tuple[Any, ...], int] = {}
    pairs = []
    for i, key in enumerate(keys_of(chain.weights[layer], chain.biases[layer])):
        j = first.setdefault(key, i)
        if j != i:
            pairs.append((i, j, Fraction(1)))
    chain.merge(layer, pairs)


def keys_of(weight: ExactArray, bias: ExactArray) -> list[Any]:
    """Hashable (w, b) of every neuron, equal exactly when the rationals are; -0.0 counts as 0.0."""
    if rationals.is_rational(weight) or rationals.is_rational(bias):
        return [(*row, b) for row, b in zip(rationals.fractions(weight), rationals.fractions(bias), strict=True)]
    table = with_bias(weight, bias) + 0.0
    return [row.tobytes() for row in table]


def _order(weight: ExactArray, bias: ExactArray) -> list[int]:
    """Lexicographic order of (w, b)."""
    rows = [tuple(row) for row in with_bias(weight, bias).tolist()]
    return sorted(range(len(rows)), key=rows.__getitem__)


def _linear_part(chain: Chain) -> None:
    """Last hidden layer: kinks written as ReLUs, linear neurons absorbed, the others turned to one side, merged."""
    layer = chain.last
    row = chain.activations[layer]
    if row.pieces and len(row.pieces) == 1:
        piece, size = row.pieces[0], chain.width(layer)
        chain.absorb(list(range(size)), [piece.slope] * size, [piece.intercept] * size)
    elif row.name == "sigmoid" or (row.pieces and row.name != "relu"):
        chain.resolve()
        _tidy(chain, layer)
    if chain.activations[layer].name == "relu":
        _absorb(chain)
    rule = reflection(chain.activations[layer])
    if rule is not None and rule[1]:
        chain.flip(layer, np.flatnonzero(leading_sign(chain.weights[layer]) < 0).tolist())
        _tidy(chain, layer)


def _absorb(chain: Chain) -> None:
    low, high = _ends(chain)
    active = np.array([v is not None and v >= 0 for v in low], dtype=bool)
    dead = np.array([v is not None and v <= 0 for v in high], dtype=bool)
    gone = np.flatnonzero(active | dead).tolist()
    slopes = [Fraction(0 if dead[i] else 1) for i in gone]
    chain.absorb(gone, slopes, [Fraction(0)] * len(gone))


def _ends(chain: Chain) -> tuple[list[Fraction | None], list[Fraction | None]]:
    """Exact range of every pre-activation of the last hidden layer over all that it may take; None for infinite."""
    layer = chain.last
    weight, bias = chain.weights[layer], chain.biases[layer]
    if layer == 0:
        lower, upper = chain.domain.lower, chain.domain.upper
    else:
        ends = chain.activations[layer - 1].range_
        lower, upper = (np.full(weight.shape[1], float(v)) for v in ends)
    out = []
    for least, most in ((lower, upper), (upper, lower)):
        plus, minus = np.asarray(weight > 0, dtype=bool), np.asarray(weight < 0, dtype=bool)
        infinite = (plus & ~np.isfinite(least)).any(axis=1) | (minus & ~np.isfinite(most)).any(axis=1)
        values: list[Fraction | None] = [None] * len(bias)
        for i in np.flatnonzero(~infinite).tolist():
            total = rationals.as_fraction(bias[i])
            for j in np.flatnonzero(plus[i] | minus[i]).tolist():
                end = float(least[j] if plus[i, j] else most[j])
                total += rationals.as_fraction(weight[i, j]) * Fraction(end) if end else 0
            values[i] = total
        out.append(values)
    return out[0], out[1]
