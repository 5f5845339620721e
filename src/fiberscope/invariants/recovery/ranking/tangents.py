"""The exact dimension of the span of all parameter derivatives of a two-layer network with tied weights.

Write s(z) = alpha + beta z + tau(z) with tau odd or even. Neurons with rows (w, b), w not 0, that agree up to sign are
one class c. The functions tau(u_c), tau'(u_c) (x, 1)_i, over all classes and i, and the polynomials 1, x_i are linearly
independent, so every derivative is a vector of rationals in this basis, and the dimension is a rank over Q.

Why they are independent: restrict a relation to a generic complex line, z_c = m_c t + n_c, m_c > 0, with (m_c, n_c) all
different, and look at the coefficients A_c of tau and (p_c + q_c t) of tau'.

* tanh, sigmoid: among the classes with one -n/m, that with the largest m has the lowest pole, a pole of no other. Its
  double part p + q t0 vanishes at a t0 that is not real, so p = q = 0; then its simple part gives A = 0.
* softplus: its derivative is sigmoid. silu: with tau' = s + z s' the double part is (p + q t0) z0, then A z0 is left.
* erf (differentiated once), gelu (three times): every term is a polynomial times exp(-z_c^2 / const), and the exponents
  differ, so each polynomial is 0, and its top degrees give q, p and A. gaussian: likewise without differentiating.
* relu, leaky_relu, abs: tau is a multiple of |z|, a class is a line of rows, tau'(u_c) (B.(x, 1)) jumps across its own
  hyperplane only, unless B is a multiple of u_c; that is |u_c|, which has a kink there. tau(u_c) is among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.errors import ScopeError
from fiberscope.invariants.recovery.ranking.tied import TiedNetwork
from fiberscope.rowclasses import Classes, Multiples, Part, partition

ExactArray = npt.NDArray[Any]
Column = tuple[Any, ...]
Row = dict[Column, Fraction]

_ZERO, _ONE, _HALF = Fraction(0), Fraction(1), Fraction(1, 2)
_NEAR = 1e-9
"""Biases this close to a zero of s or s' that is not known exactly are not decided."""


@dataclass(frozen=True)
class Shape:
    """S = alpha + beta z + tau: what a sign does to tau; "kink": tau is a multiple of |z|."""

    alpha: Fraction
    beta: Fraction
    kind: Literal["odd", "even", "kink"]

    @property
    def pure(self) -> bool:
        """Whether s is tau itself."""
        return not self.alpha and not self.beta


_SHAPES = {
    "tanh": Shape(_ZERO, _ZERO, "odd"), "erf": Shape(_ZERO, _ZERO, "odd"), "sigmoid": Shape(_HALF, _ZERO, "odd"),
    "gaussian": Shape(_ZERO, _ZERO, "even"), "softplus": Shape(_ZERO, _HALF, "even"),
    "silu": Shape(_ZERO, _HALF, "even"), "gelu": Shape(_ZERO, _HALF, "even"), "abs": Shape(_ZERO, _ZERO, "kink"),
    "relu": Shape(_ZERO, _HALF, "kink"),
}  # fmt: skip

EXACT_ROWS = (*_SHAPES, "leaky_relu")
"""Activations whose functions are proved to be independent."""


def shape_of(row: Activation) -> Shape | None:
    """How an activation splits, or None if independence is not proved for it.

    >>> from fiberscope.activations import activation
    >>> shape_of(activation("sigmoid")).alpha, shape_of(activation("sin")) is None
    (Fraction(1, 2), True)
    """
    if row.name == "leaky_relu":
        slope = row.parameters[0]
        return None if slope == 1 else Shape(_ZERO, (1 + slope) / 2, "kink")
    return _SHAPES.get(row.name)


@dataclass(frozen=True, eq=False)
class NeuronGroups:
    """The classes of live neurons (w not 0) up to sign, or up to multiples for kinks, and the quiet ones.

    Args:
        live: neurons with w not 0.
        quiet: neurons with w = 0.
        classes: of the live ones, by place in `live`.
    """

    live: tuple[int, ...]
    quiet: tuple[int, ...]
    classes: Classes

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """Neurons of each class."""
        return tuple(tuple(self.live[i] for i in block) for block in self.classes.members)


def neuron_groups(net: TiedNetwork, *, seed: int = 0) -> NeuronGroups:
    """Neurons grouped by (w, b) up to what tau forgives, exactly. O(N d) for generic weights.

    Raises:
        ScopeError: if the activation is not in `EXACT_ROWS`.

    >>> net = TiedNetwork.dense([[1, 2], [-1, -2], [0, 0]], None, [1, 1, 1])
    >>> neuron_groups(net).members, neuron_groups(net).quiet
    (((0, 1),), (2,))
    """
    shape = _require_shape(net.activation)
    weight = net.rows[:, :-1]
    there = (weight != 0).any(axis=1) if weight.size else np.zeros(len(weight), dtype=bool)
    live = np.flatnonzero(there)
    ones = np.full(net.inputs + 1, _ONE, dtype=object)
    rule = Multiples(sign=True, scale=shape.kind == "kink")
    part = Part(net.rows[live], np.arange(net.inputs + 1), ones)
    old = np.full(live.size, -1, dtype=np.int64)
    classes = partition([part], rule, old, np.random.default_rng(seed))
    return NeuronGroups(tuple(live.tolist()), tuple(np.flatnonzero(~there).tolist()), classes)


def _require_shape(row: Activation) -> Shape:
    shape = shape_of(row)
    if shape is None:
        raise ScopeError(
            f"an exact rank is proved for {', '.join(EXACT_ROWS)}, not for {row.label}; use singular values"
        )
    return shape


def tangent_rank(net: TiedNetwork, groups: NeuronGroups | None = None) -> int:
    """The dimension of span {d f / d theta_i}, exactly over Q.

    For tied odd networks it is #classes + rank of the derivatives by tied weights in the basis tau'(u_c) x_i; untied
    with p outputs p C + D sum_c rank A_c with A_c the outgoing weights of class c.

    Args:
        net: the network.
        groups: its groups, if they are known.

    Raises:
        ScopeError: for other activations, at a kink, or at a bias that is not known to be a zero of s or s'.

    Complexity: O(N d) and a rank of what no single column decides. Source: the claims of arXiv 2307.08921 and
    2406.18035 on ranks, proved here.

    >>> tangent_rank(TiedNetwork.dense([[1, 0, 0], [1, 0, 0], [0, 1, 0]], None, [1, 2, 0]))  # m_w + m_a d = 2 + 3
    5
    """
    groups = neuron_groups(net) if groups is None else groups
    shape = _require_shape(net.activation)
    if net.untied:
        return _untied_rank(net, groups, shape)
    return sparse_rank(tangent_rows(net, groups))


def _untied_rank(net: TiedNetwork, groups: NeuronGroups, shape: Shape) -> int:
    """The tau-parts of all classes, p + D rank A_c each, and the polynomials that combinations leave.

    In a class with both signs the two halves span graphs {(t, +-beta t)} over tau-parts t, so what they share is left
    as a polynomial: R^p (x) u_c and (im A+ meet im A-) (x) x_i. All together are R^p (x) Q + W (x) span(x_i).
    """
    outer, p, inner, d = net.outer, net.outputs, net.per_neuron, net.inputs
    bias_trained = inner > d
    total, kept = 0, np.zeros((0, d + 1))
    free: list[ExactArray] = [kept]  # Q, rows of d + 1 coefficients
    moving: list[ExactArray] = []  # W, columns of p
    signs = np.array([1 if e > 0 else -1 for e in groups.classes.factors])
    one = np.eye(d + 1)[d:]
    for block, places in zip(groups.members, groups.classes.members, strict=True):
        a = outer[:, list(block)]
        head = net.rows[block[0]]
        per = inner - 1 if shape.kind == "kink" and (bias_trained or not head[-1]) else inner
        total += p + per * _rank_of(a)
        turn = signs[list(places)]
        if shape.pure or abs(turn.sum()) == turn.size:
            continue
        if shape.alpha:
            free.append(one)
        if shape.beta:
            free.append(head[None])
            moving.append(_intersection(a[:, turn > 0], a[:, turn < 0]))
    for n in groups.quiet:
        bias = rationals.as_fraction(net.rows[n, -1])
        if _nonzero(net.activation, bias, 0):
            free.append(one)
        if (outer[:, n] != 0).any() and _nonzero(net.activation, bias, 1):
            moving.append(outer[:, n : n + 1])
    if net.output_bias:
        free.append(one)
    table = _stacked(free, axis=0)
    still = rationals.rank(table)
    both = d + (1 if bias_trained or (table[:, -1] != 0).any() else 0)
    through = _rank_of(_stacked(moving, axis=1)) if moving else 0
    return total + p * still + through * (both - still)


def _stacked(arrays: list[ExactArray], axis: int) -> ExactArray:
    wide = any(rationals.is_rational(a) for a in arrays)
    return np.concatenate([rationals.fractions(a) if wide else a for a in arrays], axis=axis)


def _intersection(a: ExactArray, b: ExactArray) -> ExactArray:
    """Columns that span what the images of a and b have in common."""
    left, right = rationals.fractions(a), rationals.fractions(b)
    pivots, form = rationals.row_reduce(np.concatenate([left, right], axis=1))
    count, form = a.shape[1], rationals.fractions(form)
    columns = []
    for j in range(count + b.shape[1]):
        if j in pivots:
            continue
        combination = np.full(count, _ZERO, dtype=object)  # a kernel vector of [a, b], its part in a
        for k, at in enumerate(pivots):
            if at < count:
                combination[at] = -form[k, j]
        if j < count:
            combination[j] = _ONE
        columns.append(left @ combination)
    out = np.array(columns, dtype=object).T
    return out if columns else np.zeros((len(a), 0))


def _rank_of(outer: ExactArray) -> int:
    live = outer[:, (outer != 0).any(axis=0)] if outer.size else outer
    return min(live.shape) if min(live.shape) <= 1 else rationals.rank(live)


def _nonzero(row: Activation, bias: Fraction, order: int) -> bool:
    """Whether s(b) (order 0) or s'(b) (order 1) is not 0.

    Raises:
        ScopeError: where that is not known.
    """
    if row.homogeneity == 1:
        if bias == 0:
            if order:
                raise ScopeError(f"{row.label} has no derivative at 0, where a neuron of the network sits")
            return False
        piece = next(q for q in row.pieces or () if (q.hi is None) == (bias > 0))
        return piece.slope != 0
    zeros = row.zeros if order == 0 else row.critical_points
    if zeros is None:
        raise ScopeError(f"zeros of {row.label} are not known")
    if bias == 0 and 0.0 in zeros:
        return False
    if any(abs(float(bias) - z) < _NEAR for z in zeros):
        raise ScopeError(f"a neuron without inputs has the bias {float(bias)!r}, too close to a zero to decide")
    return True


def tangent_rows(net: TiedNetwork, groups: NeuronGroups) -> Iterator[Row]:
    """The derivatives by every parameter: ("v", o, c) is tau(u_c), ("s", o, c, i) tau'(u_c) x_i, ("p", o, i) is x_i.

    Values s(b), s'(b) at neurons without inputs stand as 1 where they are not 0: each is a factor of a whole row.
    """
    shape = _require_shape(net.activation)
    d, p = net.inputs, net.outputs
    outer, rows = rationals.fractions(net.outer), _sparse_rows(net.rows)
    tied: list[Row] = [defaultdict(Fraction) for _ in range(net.tied)]
    heads = [block[0] for block in groups.members]
    for place, n in enumerate(groups.live):
        c, e = int(groups.classes.labels[place]), groups.classes.factors[place]
        sign = 1 if e > 0 else -1
        for o in range(p):
            yield _value_row(o, c, e, rows[n], rows[heads[c]], shape, d)
        turn = 1 if shape.kind == "odd" else sign
        for i in np.flatnonzero(net.index[n] >= 0).tolist():
            row = tied[net.index[n, i]]
            for o in range(p):
                if outer[o, n]:
                    row["s", o, c, i] += outer[o, n] * turn
                    if shape.beta:
                        row["p", o, i] += outer[o, n] * shape.beta
    yield from _quiet_rows(net, groups, outer, rows, tied)
    yield from ({k: v for k, v in row.items() if v} for row in tied)
    if net.output_bias:
        yield from ({("p", o, d): _ONE} for o in range(p))


def _sparse_rows(rows: ExactArray) -> list[dict[int, Fraction]]:
    """The entries that are not 0."""
    return [
        {i: v if isinstance(v, Fraction) else Fraction(float(v)) for i, v in enumerate(row) if v}
        for row in (rows.astype(np.float64) if rows.dtype != object else rows).tolist()
    ]


def _value_row(
    o: int, c: int, e: Fraction, own: dict[int, Fraction], head: dict[int, Fraction], shape: Shape, last: int
) -> Row:
    """s(u_n) in output o: the derivative by an outgoing weight."""
    out: Row = {}
    if shape.kind == "kink":
        out.update({("s", o, c, i): abs(e) * v for i, v in head.items()})
    else:
        out["v", o, c] = e if shape.kind == "odd" else _ONE
    if shape.pure:
        return out
    poly = {i: shape.beta * v for i, v in own.items()} if shape.beta else {}
    poly[last] = poly.get(last, _ZERO) + shape.alpha
    out.update({("p", o, i): v for i, v in poly.items() if v})
    return out


def _quiet_rows(
    net: TiedNetwork, groups: NeuronGroups, outer: ExactArray, rows: list[dict[int, Fraction]], tied: list[Row]
) -> Iterator[Row]:
    """Neurons without inputs put out constants s(b); their incoming weights move polynomials, by s'(b)."""
    row, p = net.activation, net.outputs
    biases: dict[int, Fraction] = {}
    for n in groups.quiet:
        bias = rows[n].get(net.inputs, _ZERO)
        if _nonzero(row, bias, 0):  # one number times a basis vector: its size does not matter
            yield from ({("p", o, net.inputs): _ONE} for o in range(p))
        if not outer[:, n].any() or not _nonzero(row, bias, 1):
            continue
        for i in np.flatnonzero(net.index[n] >= 0).tolist():
            t = int(net.index[n, i])
            if biases.setdefault(t, bias) != bias or any(k[0] == "s" for k in tied[t]):
                raise ScopeError("a weight is shared by a neuron without inputs and one unlike it; use singular values")
            for o in range(p):
                if outer[o, n]:
                    tied[t]["p", o, i] += outer[o, n]


# ---- ranks of sparse rows


def sparse_rank(rows: Iterable[Row]) -> int:
    """Exact rank of sparse rows: columns that one row only has are pivots, the rest falls into connected parts.

    >>> sparse_rank([{("x",): Fraction(1), ("y",): Fraction(2)}, {("y",): Fraction(1)}, {("x",): Fraction(5)}])
    2
    """
    seen: set[frozenset[tuple[Column, Fraction]]] = set()
    table: list[Row] = []
    for row in rows:
        if not row:
            continue
        lead = row[min(row)]  # multiples of one row count once
        key = frozenset((k, v / lead) for k, v in row.items())
        if key not in seen:
            seen.add(key)
            table.append(row)
    users: dict[Column, set[int]] = defaultdict(set)
    for r, row in enumerate(table):
        for column in row:
            users[column].add(r)
    rank, waiting = 0, [c for c, used in users.items() if len(used) == 1]
    gone: set[int] = set()
    while waiting:
        column = waiting.pop()
        if len(users[column]) != 1:
            continue
        r = users[column].pop()
        gone.add(r)
        rank += 1
        for other in table[r]:
            users[other].discard(r)
            if len(users[other]) == 1:
                waiting.append(other)
    left = [row for r, row in enumerate(table) if r not in gone]
    return rank + sum(_dense_rank(part) for part in _parts(left))


def _parts(rows: list[Row]) -> list[list[Row]]:
    """Rows that share columns, directly or not."""
    parent = list(range(len(rows)))

    def root(r: int) -> int:
        while parent[r] != r:
            parent[r] = parent[parent[r]]
            r = parent[r]
        return r

    owner: dict[Column, int] = {}
    for r, row in enumerate(rows):
        for column in row:
            parent[root(r)] = root(owner.setdefault(column, r))
    out: dict[int, list[Row]] = defaultdict(list)
    for r, row in enumerate(rows):
        out[root(r)].append(row)
    return list(out.values())


def _dense_rank(rows: list[Row]) -> int:
    if len(rows) == 1:
        return 1
    columns = {c: k for k, c in enumerate(dict.fromkeys(c for row in rows for c in row))}
    if len(columns) == 1:
        return 1
    dense = np.full((len(rows), len(columns)), _ZERO, dtype=object)
    for r, row in enumerate(rows):
        for column, value in row.items():
            dense[r, columns[column]] = value
    return rationals.rank(dense)
