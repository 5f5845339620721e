"""Normal forms: one parameter for every function where that is proved, one for each sound class elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.domains import Box
from fiberscope.fibers.chain import Chain, reflection, with_bias
from fiberscope.network import Network
from fiberscope.results import Assumption, Result, jsonable

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_SHIFTABLE = ("softmax", "log_softmax", "argmax")
_SETTLED = ("scale", "permute", "flip")
"""Moves after which a pass from below to above need not be repeated: they touch the rows and the columns above only."""


@dataclass(frozen=True, eq=False)
class NormalForm(Result):
    """V s(U y + c) + skip y + d over normalised layers: equal for equal functions where `unique` says so.

    Rows are primitive integer vectors (scaled by positive numbers where the activation allows), neurons are in
    lexicographic order of (w, b), no two are proportional, none is unread; neurons of the last hidden layer that are
    linear on the domain sit in `skip` and `d`, and the others point so that their first nonzero weight is positive.

    Args:
        network: the network given.
        weights, biases: exact arrays of every affine layer; a layer may be empty.
        activations: one for each affine layer.
        skip: (n_out, n) linear part past the last hidden layer, None for zero.
        head: output head; with one, the logits are those relative to the first.
        domain: where the function is kept.
        moves: how the network becomes this form, as in a certificate.
        full: whether all moves were tried (else never unique).
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "weights", "biases", "activations", "skip", "moves"})

    network: Network
    weights: tuple[ExactArray, ...]
    biases: tuple[ExactArray, ...]
    activations: tuple[Activation, ...]
    skip: ExactArray | None
    head: str | None
    domain: Box
    moves: tuple[dict[str, Any], ...] = field(repr=False)
    full: bool = True

    @cached_property
    def _uniqueness(self) -> tuple[str, tuple[Assumption, ...]]:
        from fiberscope.fibers.uniqueness import hypotheses_of

        return hypotheses_of(self.chain)

    @property
    def theorem(self) -> str:
        """Key of the theorem that could make the form unique, "" if none applies."""
        return self._uniqueness[0]

    @property
    def hypotheses(self) -> tuple[Assumption, ...]:
        """The theorem's hypotheses, each with what code found; computed on first use."""
        return self._uniqueness[1]

    @property
    def unique(self) -> bool:
        """Whether it is proved that equal functions have equal forms (among networks that meet the hypotheses)."""
        return self.full and bool(self.theorem) and all(h.holds for h in self.hypotheses)

    @property
    def chain(self) -> Chain:
        """The form as a chain that may be moved further."""
        return Chain(list(self.weights), list(self.biases), list(self.activations), self.domain, self.head, self.skip)

    @property
    def widths(self) -> tuple[int, ...]:
        """(n_0, ..., n_L) of the form."""
        return (self.weights[0].shape[1], *(len(b) for b in self.biases))

    @property
    def theorems(self) -> tuple[str, ...]:
        """What it rests on."""
        return ("permutation-scaling", "canonical-form", *((self.theorem,) if self.theorem else ()))

    @cached_property
    def digest(self) -> str:
        """sha256 of the form: exact weights, activations of non-empty layers, head."""
        state = hashlib.sha256(b"fiberscope normal form 1\n")
        state.update(json.dumps(self.head).encode())
        for weight, bias, row in zip(self.weights, self.biases, self.activations, strict=True):
            spec = row.spec if len(bias) else None
            state.update(json.dumps([spec, weight.shape], sort_keys=True).encode())
            state.update(rationals.canonical_bytes(weight) + rationals.canonical_bytes(bias))
        if self.skip is not None:
            state.update(b"skip" + rationals.canonical_bytes(self.skip))
        if not self.domain.is_everything:
            state.update(json.dumps([(self.domain.lower + 0.0).tolist(), (self.domain.upper + 0.0).tolist()]).encode())
        return state.hexdigest()

    @property
    def fingerprint(self) -> str:
        """`fs1:<sha256>` where the form is proved unique, `fs1s:<sha256>` where it is only sound."""
        return f"{'fs1' if self.unique else 'fs1s'}:{self.digest}"

    def as_network(self) -> Network | None:
        """The form as a chain, None if it has a linear part or an empty layer."""
        if self.skip is not None or min(self.widths) == 0:
            return None
        return Network.from_arrays(
            *zip(self.weights, self.biases, strict=True), activation=self.activations, head=self.head
        )

    def keys(self, layer: int) -> list[Any]:
        """Hashable (w, b) of every neuron of a layer, equal exactly when the rationals are."""
        return _keys(self.weights[layer], self.biases[layer])

    def same_as(self, other: NormalForm) -> bool:
        """Whether two forms are equal, weight by weight."""
        return self.digest == other.digest

    def exact(self, x: Sequence[Fraction | int | float]) -> tuple[Fraction, ...]:
        """Value at a rational point; of a form with a head, logits relative to the first."""
        below = y = np.array([rationals.as_fraction(v) for v in x], dtype=object)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = rationals.fractions(weight) @ y + rationals.fractions(bias) if len(y) else rationals.fractions(bias)
            if k == len(self.weights) - 1 and self.skip is not None:
                z = z + rationals.fractions(self.skip) @ below
            below, y = y, np.array([self.activations[k].value(q) for q in z], dtype=object)
        return tuple(y)

    @property
    def automorphisms(self) -> Automorphisms:
        """The relabelings of hidden neurons that keep the given parameter (not the form: there it is alone)."""
        return automorphisms(self.network)

    def summary(self) -> dict[str, Any]:
        """JSON-ready data without the weights and moves."""
        out = super().to_dict()
        del out["full"]
        out["unique"], out["theorem"] = self.unique, self.theorem
        out["hypotheses"] = jsonable(self.hypotheses)
        out["fingerprint"] = self.fingerprint
        out["widths"] = list(self.widths)
        out["activations"] = [row.label for row in self.activations]
        counts: dict[str, int] = {}
        for step in self.moves:
            counts[step["move"]] = counts.get(step["move"], 0) + 1
        out["move_counts"] = counts
        out["linear_part"] = self.skip is not None
        out["automorphisms"] = jsonable(self.automorphisms)
        out["theorems"] = list(self.theorems)
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; weights as "p/q" strings."""
        out = self.summary()
        out["layers"] = [
            {"weight": rationals.texts(w), "bias": rationals.texts(b)}
            for w, b in zip(self.weights, self.biases, strict=True)
        ]
        out["skip"] = None if self.skip is None else rationals.texts(self.skip)
        out["moves"] = list(self.moves)
        return out

    def __str__(self) -> str:
        """One screen: what the form is, what was done, whether it is unique."""
        before, after = ("-".join(map(str, w)) for w in (self.network.widths, self.widths))
        lines = [f"normal form of {self.network.architecture}: {before} -> {after}" + (
            "" if self.skip is None else " with a linear part")]  # fmt: skip
        counts: dict[str, int] = {}
        for step in self.moves:
            counts[step["move"]] = counts.get(step["move"], 0) + len(step.get("neurons", step.get("pairs", [0])))
        lines.append("moves: " + (", ".join(f"{name} {n}" for name, n in counts.items()) or "none"))
        if self.unique:
            lines.append("unique: equal functions have equal forms (theorem " + self.theorem + ")")
        else:
            failing = [h.statement for h in self.hypotheses if h.checked and not h.holds]
            lines.append("sound: equal forms prove equal functions; different forms prove nothing")
            lines += [f"  not met: {text}" for text in failing]
        lines.append(f"fingerprint: {self.fingerprint}")
        return "\n".join(lines)


def canonical(net: Network, domain: Box | str | None = None, *, linear_part: bool = True) -> NormalForm:
    """The exact normal form of a network, with the moves that lead to it.

    Dead, constant, unread and proportional neurons go; rows are scaled to primitive integers; in the last hidden layer
    always-linear neurons become a linear part and the others are turned to one side; a first-layer kink that the
    second layer hides is shifted to the boundary; second-layer neurons that read one neuron only are unrolled; neurons
    are sorted. Equal forms prove equal functions. The converse is a theorem for two-layer piecewise-linear networks on
    any box with interior, for two-layer tanh and sigmoid networks, and for bottleneck three-layer ReLU networks in
    general position (hypotheses checked one by one).

    Args:
        net: any chain.
        domain: inputs on which functions are compared; default all of R^n.
        linear_part: False leaves out the moves that need a linear part: a cheaper form, sound but never unique.

    Raises:
        InputError: if the domain has another number of inputs.

    Complexity: O(parameters) operations, vectorised in floats as long as every number is a float64, plus one exact
    product for the linear part and the rank of W_1 modulo a prime.
    Source: arXiv 2605.18319, sections on canonical forms; docs/theory/fibers.

    >>> f = Network.from_arrays(([[2.0], [-1.0]], [0.0, 1.0]), ([[3.0, 1.0]], [0.0]))
    >>> g = Network.from_arrays(([[1.0], [1.0]], [-1.0, 0.0]), ([[1.0, 6.0]], [0.0]))
    >>> h = Network.from_arrays(([[1.0], [-1.0]], [-1.0, 0.0]), ([[1.0, 6.0]], [0.0]))
    >>> canonical(f).same_as(canonical(g)), canonical(g).same_as(canonical(h))
    (False, False)
    >>> print(canonical(Network.from_arrays(([[1.0], [-1.0]], [0, 0]), ([[1.0, -1.0]], [0]))).widths)
    (1, 1)
    """
    return _form(net, normalised(net, domain, linear_part=linear_part), linear_part)


def _form(net: Network, chain: Chain, full: bool) -> NormalForm:
    return NormalForm(
        net, tuple(chain.weights), tuple(chain.biases), tuple(chain.activations), chain.skip, chain.head,
        chain.domain, tuple(chain.steps), full,
    )  # fmt: skip


def fingerprint(net: Network) -> str:
    """A name for the function: `fs1:<sha256>` of the unique normal form, or `fs1s:<sha256>` of a sound one.

    Two `fs1:` strings are equal exactly if the functions are. Two equal `fs1s:` strings prove equality too, but
    different ones prove nothing. Stable across machines, file formats and float dtypes (a float32 is the rational
    that it is). O(parameters).

    >>> f = Network.from_arrays(([[2.0], [-1.0]], [0.0, 1.0]), ([[3.0, 1.0]], [0.0]))
    >>> g = Network.from_arrays(([[-2.0], [1.0]], [2.0, 0.0]), ([[0.5, 6.0]], [0.0]))
    >>> fingerprint(f) == fingerprint(g), fingerprint(f)[:4]
    (True, 'fs1:')
    """
    return canonical(net).fingerprint


# ---- the search


def normalised(net: Network, domain: Box | str | None = None, *, linear_part: bool = True) -> Chain:
    """The chain of a network after all moves; without `linear_part` only those that need no skip."""
    chain = Chain.of(net, net.domain(domain))
    if chain.head in _SHIFTABLE and chain.activations[-1].name == "identity":
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
            if not _unroll(chain) and not _exchange(chain):
                _move_hidden(chain)
    return chain


def _drop_unread(chain: Chain) -> None:
    for layer in range(chain.last, -1, -1):
        chain.drop(layer, np.flatnonzero(~chain.read(layer)).tolist())


def _nonzero(array: ExactArray) -> npt.NDArray[np.bool_]:
    return np.asarray(array != 0, dtype=bool)


def _tidy(chain: Chain, layer: int) -> None:
    """Constants out, rows scaled and pointed, proportional ones merged, the rest sorted."""
    _fold_constants(chain, layer)
    _point(chain, layer)
    _merge_equal(chain, layer)
    chain.permute(layer, _order(chain.weights[layer], chain.biases[layer]))


def _fold_constants(chain: Chain, layer: int) -> None:
    row, bias = chain.activations[layer], chain.biases[layer]
    flat = ~_nonzero(chain.weights[layer]).any(axis=1)
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
    turned = _leading_sign(table) < 0 if row.parity is not None else np.zeros(len(table), dtype=bool)
    if row.homogeneity is not None and row.homogeneity >= 1:
        _, units = rationals.primitive_rows(table)
    else:
        units = np.full(len(table), Fraction(1), dtype=object)
    chain.scale(layer, [-1 / u if t else 1 / u for u, t in zip(units, turned, strict=True)])
    rule = reflection(row)
    if row.parity is None and rule is not None and rule[1] == 0:
        chain.flip(layer, np.flatnonzero(_leading_sign(chain.weights[layer]) < 0).tolist())


def _leading_sign(table: ExactArray) -> npt.NDArray[np.int64]:
    """Sign of the first nonzero entry of each row, 0 for zero rows."""
    live = _nonzero(table)
    if not table.shape[1]:
        return np.zeros(len(table), dtype=np.int64)
    first = live.argmax(axis=1)
    lead = table[np.arange(len(table)), first]
    return np.asarray(np.where(lead > 0, 1, np.where(lead < 0, -1, 0)), dtype=np.int64)


def _merge_equal(chain: Chain, layer: int) -> None:
    first: dict[tuple[Any, ...], int] = {}
    pairs = []
    for i, key in enumerate(_keys(chain.weights[layer], chain.biases[layer])):
        j = first.setdefault(key, i)
        if j != i:
            pairs.append((i, j, Fraction(1)))
    chain.merge(layer, pairs)


def _keys(weight: ExactArray, bias: ExactArray) -> list[Any]:
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
        chain.flip(layer, np.flatnonzero(_leading_sign(chain.weights[layer]) < 0).tolist())
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


def _unroll(chain: Chain) -> bool:
    """One layer of the last two when no last-layer neuron mixes those below; also when nothing is left above."""
    if len(chain.weights) == 2 and not chain.width(0):
        chain.flatten()
        return True
    if len(chain.weights) < 3:
        return False
    empty = not chain.width(chain.last) and chain.skip is None
    if not empty and (not _relu_pair(chain) or (_nonzero(chain.weights[chain.last]).sum(axis=1) != 1).any()):
        return False
    chain.unroll()
    return True


def _move_hidden(chain: Chain) -> None:
    """Shift every hidden first-layer kink to the boundary; turn round what then may be turned."""
    if len(chain.weights) < 3 or not chain.width(chain.last) or not _relu_pair(chain):
        return
    for i in hidden_neurons(chain):
        upper, bias = chain.weights[chain.last], chain.biases[chain.last]
        readers = np.flatnonzero(_nonzero(upper[:, i])).tolist()
        by = max(rationals.as_fraction(bias[j]) / rationals.as_fraction(upper[j, i]) for j in readers)
        turns = _turns(chain, i, readers)
        if by or turns:
            chain.flip(chain.last, [j for j in readers if upper[j, i] < 0])
            if by:
                chain.shift(i, by)
            for k, ratio in turns:
                chain.turn(k, i, ratio)
            return  # the order and the orientations change: start again


def _exchange(chain: Chain) -> bool:
    """Undo one fan or corner, in which a neuron of one layer plays the part of one of the other."""
    if len(chain.weights) < 3 or not _relu_pair(chain) or chain.skip is None:
        return False
    upper, bias = chain.weights[chain.last], chain.biases[chain.last]
    seen, plus = _nonzero(upper), np.asarray(upper > 0, dtype=bool)
    readers = seen.sum(axis=0)
    for h in np.flatnonzero((seen.sum(axis=1) == 2) & (plus.sum(axis=1) == 1) & ~_nonzero(bias)).tolist():
        first, second = int(np.flatnonzero(plus[h])[0]), int(np.flatnonzero(seen[h] & ~plus[h])[0])
        jump = rationals.fractions(chain.weights[-1][:, h])
        u, v = (abs(rationals.as_fraction(upper[h, i])) for i in (first, second))
        paid = rationals.fractions(chain.skip[:, [first, second]])
        if readers[first] == readers[second] == 1 and (paid[:, 0] == -u * jump).all() and not paid[:, 1].any():
            chain.fan(first, second, h)
            return True
        for neuron, other in ((second, first), (first, second)):
            cut = _cut(chain, h, neuron, other, readers, jump)
            if cut is not None:
                chain.corner(neuron, other, h, cut)
                return True
    return False


def _cut(chain: Chain, h: int, neuron: int, other: int, readers: Any, jump: ExactArray) -> int | None:
    """The neuron relu(t y_p - b) that completes a corner with reader h, if there is one."""
    upper, bias = chain.weights[chain.last], chain.biases[chain.last]
    if readers[other] != 1 or readers[neuron] != 2:
        return None
    cut = next(int(j) for j in np.flatnonzero(_nonzero(upper[:, neuron])) if j != h)
    if _nonzero(upper[cut]).sum() != 1 or upper[cut, neuron] < 0 or bias[cut] >= 0:
        return None
    s, t = (abs(rationals.as_fraction(upper[h, i])) for i in (neuron, other))
    drop = rationals.fractions(chain.weights[-1][:, cut]) * rationals.as_fraction(upper[cut, neuron])
    paid = rationals.fractions(chain.skip[:, [neuron, other]]) if chain.skip is not None else None
    if paid is None or (drop != -s * jump).any():
        return None
    # the reader may be turned either way: J relu(P - Q) + J Q = J relu(Q - P) + J P
    turned = upper[h, neuron] > 0
    wanted = (0 * jump, t * jump) if turned else (s * jump, 0 * jump)
    return cut if all((paid[:, k] == wanted[k]).all() for k in (0, 1)) else None


def _relu_pair(chain: Chain) -> bool:
    return all(chain.activations[k].name == "relu" for k in (chain.last, chain.last - 1))


def hidden_neurons(chain: Chain) -> list[int]:
    """Neurons below the last hidden layer whose kink no last-layer neuron shows, whatever its position.

    Once every reader j is turned so that u_ji > 0: nothing linear reads i, c_j <= 0 and u_jk <= 0 for all other k.
    """
    upper, bias = chain.weights[chain.last], chain.biases[chain.last]
    plus, minus = np.asarray(upper > 0, dtype=bool), np.asarray(upper < 0, dtype=bool)
    below, above = np.asarray(bias <= 0, dtype=bool), np.asarray(bias >= 0, dtype=bool)
    quiet = (plus & ((plus.sum(axis=1) == 1) & below)[:, None]) | (minus & ((minus.sum(axis=1) == 1) & above)[:, None])
    candidates = np.flatnonzero(((plus | minus) <= quiet).all(axis=0) & (plus | minus).any(axis=0)).tolist()
    return [i for i in candidates if not _linear_column(chain, i, minus[:, i])]


def _linear_column(chain: Chain, neuron: int, turned: npt.NDArray[np.bool_]) -> bool:
    """Whether the linear part reads a neuron once these last-layer neurons are turned round."""
    index = np.flatnonzero(turned)
    paid = rationals.matmul(chain.weights[-1][:, index], chain.weights[chain.last][index, neuron])
    if chain.skip is not None:
        paid = rationals.add(paid, chain.skip[:, neuron])
    return bool((paid != 0).any())


def _turns(chain: Chain, hidden: int, readers: list[int]) -> list[tuple[int, Fraction]]:
    """(k, ratio) of neurons that may be turned onto a hidden one, and whose first nonzero weight is negative."""
    upper = rationals.fractions(chain.weights[chain.last])
    below = chain.weights[chain.last - 1]
    sign = _leading_sign(below)
    seen = _nonzero(upper)
    turned = np.zeros(len(upper), dtype=bool)
    turned[[j for j in readers if upper[j, hidden] < 0]] = True
    outside = np.ones(len(upper), dtype=bool)
    outside[readers] = False
    out = []
    for k in np.flatnonzero(sign < 0).tolist():
        if k == hidden or seen[outside, k].any() or not seen[readers, k].all():
            continue
        ratios = {upper[j, k] / upper[j, hidden] for j in readers}
        if len(ratios) == 1 and not _linear_column(chain, k, turned):
            out.append((k, ratios.pop()))
    return out


# ---- automorphisms


@dataclass(frozen=True)
class Automorphisms(Result):
    """Relabelings of hidden neurons, with scalings, that keep the parameter.

    Args:
        order: number of them that were found.
        swaps: (layer, neurons) of each class of interchangeable neurons: twins with proportional in- and outputs.
        exact: whether there are no others (else `order` divides the full number).
    """

    order: int
    swaps: tuple[tuple[int, tuple[int, ...]], ...]
    exact: bool


def automorphisms(net: Network) -> Automorphisms:
    """The group of relabelings of hidden neurons (with scalings) that keep theta, as far as twins generate it.

    Every such relabeling keeps the coarsest equitable partition, so where its classes are classes of twins the group is
    the product of their symmetric groups (EXACT); otherwise that product is a subgroup. O(parameters).

    >>> net = Network.from_arrays(([[1.0], [1.0], [2.0]], [0, 0, 1]), ([[5.0, 5.0, 1.0]], [0]))
    >>> automorphisms(net).order
    2
    """
    from math import factorial

    from fiberscope.neurons import colour_classes, proportional_rows

    order, swaps, exact = 1, [], True
    for k, coarse in enumerate(colour_classes(net)):
        alike = proportional_rows(net.layers[k])
        columns = rationals.fractions(net.layers[k + 1].weight)
        for members in coarse.members:
            groups: dict[Any, list[int]] = {}
            for i in members:
                label = int(alike.labels[i])
                unit = Fraction(alike.factors[i]) if label >= 0 else Fraction(1)
                groups.setdefault((label, tuple(columns[:, i] * abs(unit))), []).append(i)
            exact &= len(groups) == 1
            for twins in groups.values():
                if len(twins) > 1:
                    order *= factorial(len(twins))
                    swaps.append((k, tuple(twins)))
        exact &= len(coarse.null) <= 1
    return Automorphisms(order, tuple(swaps), exact)
