"""Why a linear set of parameters of a chain is invariant: classes of neurons, and neurons that compute constants.

On {W_l P+_(l-1) = P_l W_l, b_l in range P_l} every gradient field lies in {W_l = P_l W_l P+_(l-1), b_l = P_l b_l},
with P and P+ the projectors of an equitable partition on the incoming and the outgoing side of the activations (they
differ in signs for even ones). So a set S inside the first whose directions contain the second is invariant. A neuron
of a row 0 and bias beta computes s(beta): it does not move if s'(beta) = 0, and its outgoing weights move as s(beta)
times the biases. A certificate names the classes and such neurons; `check_invariance` verifies both inclusions over Q.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import CertificateError
from fiberscope.invariants.submanifolds.sets import LinearSet
from fiberscope.network import Network
from fiberscope.neurons import colour_classes

ExactArray = npt.NDArray[Any]
Certificate = Mapping[str, Any]
Terms = dict[int, Fraction]
"""A linear function of theta: index -> coefficient."""
Key = tuple[int, int, int]
"""A coordinate of the leaf: (layer, class above, class below), -1 below for biases."""
_ZERO = Fraction(0)


def confining_classes(
    submanifold: LinearSet, widths: Sequence[int], rows: Sequence[Activation], frozen: Sequence[int], seed: int
) -> dict[str, Any] | None:
    """A certificate that a linear set of a chain is invariant, or None if no partition shows it.

    The classes are those of a random point of the set; neurons with zero rows are tried as constants too.
    """
    rng = np.random.default_rng(seed)
    net = _network(widths, rows, submanifold.draw(rng))
    other = _network(widths, rows, submanifold.draw(rng))
    classes = [
        {"labels": c.labels.tolist(), "factors": [str(f) for f in c.factors]} for c in colour_classes(net, seed=seed)
    ]
    alone = [{"labels": list(range(n)), "factors": ["1"] * n} for n in widths[1:-1]]
    constants = _constants(net, other)
    for partition in [classes, alone] if constants else [classes]:
        certificate = {
            "kind": "confinement", "widths": list(widths), "activations": [_spell(r) for r in rows],
            "classes": partition, "constants": constants, "frozen": sorted(int(k) for k in frozen),
        }  # fmt: skip
        if not refusal(certificate, submanifold, widths, rows, frozen):
            return certificate
    return None


def check_invariance(
    certificate: Certificate,
    submanifold: LinearSet,
    widths: Sequence[int],
    activation: str | Activation | Sequence[str | Activation],
    frozen: Sequence[int] = (),
) -> None:
    """Verify over Q that a certificate of `confining_classes` proves a linear set of a chain invariant.

    Args:
        certificate: {"kind": "confinement", "classes": [{"labels", "factors"} for each hidden layer], "constants":
            [[layer, neuron, bias], ...], "widths", "activations", "frozen"}.
        submanifold: the set.
        widths: (n_0, ..., n_L).
        activation: one for all hidden layers, or one for each.
        frozen: indices of parameters that are not trained.

    Raises:
        CertificateError: if it is malformed, belongs to another architecture, or a step does not follow.

    Complexity: one rational operation for each entry of the equations of the set and of the classes.

    >>> pair = LinearSet([[1, -1, 0, 0, 0, 0, 0], [0, 0, 1, -1, 0, 0, 0], [0, 0, 0, 0, 1, -1, 0]])
    >>> good = {"kind": "confinement", "widths": [1, 2, 1], "activations": ["softplus"], "frozen": [],
    ...         "classes": [{"labels": [0, 0], "factors": ["1", "1"]}], "constants": []}
    >>> check_invariance(good, pair, (1, 2, 1), "softplus")
    >>> check_invariance(good | {"classes": [{"labels": [0, 1], "factors": ["1", "1"]}]}, pair, (1, 2, 1), "softplus")
    Traceback (most recent call last):
        ...
    fiberscope.errors.CertificateError: the fields are not confined to the directions of the set
    """
    names = [activation] * (len(widths) - 2) if isinstance(activation, str | Activation) else list(activation)
    found = refusal(certificate, submanifold, widths, [find_activation(name) for name in names], frozen)
    if found:
        raise CertificateError(found)


def refusal(
    certificate: Certificate,
    submanifold: LinearSet,
    widths: Sequence[int],
    rows: Sequence[Activation],
    frozen: Sequence[int],
) -> str:
    """Why a certificate does not prove the set invariant, "" if it does."""
    size = sum(n * (m + 1) for m, n in zip(widths, widths[1:], strict=False))
    try:
        if certificate["kind"] != "confinement" or list(certificate["widths"]) != list(widths):
            return "the certificate is for another kind or architecture"
        if list(certificate["activations"]) != [_spell(r) for r in rows] or len(rows) != len(widths) - 2:
            return "the certificate is for other activations"
        if sorted(certificate["frozen"]) != sorted(int(k) for k in frozen) or submanifold.size != size:
            return "the certificate is for other parameters"
        sides = [_sides(c, n, row) for c, n, row in zip(certificate["classes"], widths[1:-1], rows, strict=True)]
        constants = [(int(k), int(i), Fraction(b)) for k, i, b in certificate["constants"]]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as exc:
        return f"the certificate is malformed: {exc}"
    chain = [_trivial(widths[0])]
    for side in (*sides, _trivial(widths[-1])):
        if isinstance(side, str):
            return side
        chain.append(side)
    for terms in _space(widths, chain):
        if submanifold.constant(terms) != 0:
            return "the set does not lie in the invariant space of the classes"
    laws = _constant_laws(constants, widths, rows, submanifold)
    if isinstance(laws, str):
        return laws
    skipped = set(frozen)
    left = [
        _on_leaf({int(k): row[k] for k in np.flatnonzero(row != 0) if int(k) not in skipped}, widths, chain)
        for row in submanifold.equations
    ]
    left = [row for row in left if row]
    if left and not _spanned(left, [_on_leaf(terms, widths, chain) for terms in laws]):
        return "the fields are not confined to the directions of the set"
    return ""


@dataclass(frozen=True)
class _Side:
    """Classes of a layer: label (-1: null), factor of the pre-activation and of the output of each neuron."""

    labels: list[int]
    into: list[Fraction]
    out: list[Fraction]

    def first(self) -> dict[int, int]:
        """The first member of each class."""
        found: dict[int, int] = {}
        for i, v in enumerate(self.labels):
            found.setdefault(v, i)
        return found


def _trivial(n: int) -> _Side:
    return _Side(list(range(n)), [Fraction(1)] * n, [Fraction(1)] * n)


def _space(widths: Sequence[int], chain: Sequence[_Side]) -> Iterator[Terms]:
    """Equations of {W_l P+_(l-1) = P_l W_l, b_l = P_l b_l} as {index in theta: coefficient}.

    Weighted sums over the classes below are multiples within each class above, and the other way round.
    """
    at = 0
    for (low, high), below, above in zip(pairwise(widths), chain, chain[1:], strict=False):
        rows, columns = above.first(), below.first()
        members: dict[int, list[int]] = {}
        for j, v in enumerate(below.labels):
            members.setdefault(v, []).append(j)
        groups: dict[int, list[int]] = {}
        for i, v in enumerate(above.labels):
            groups.setdefault(v, []).append(i)
        for i, v in enumerate(above.labels):
            lead = rows[v]
            if v >= 0 and lead == i:
                continue
            pair = {i: Fraction(1)} if v < 0 else {i: above.into[lead], lead: -above.into[i]}
            yield {at + high * low + k: c for k, c in pair.items()}
            for w, js in members.items():
                if w >= 0:
                    yield {at + k * low + j: c * below.out[j] for k, c in pair.items() for j in js}
        for j, w in enumerate(below.labels):
            lead = columns[w]
            if w >= 0 and lead == j:
                continue
            pair = {j: Fraction(1)} if w < 0 else {j: below.out[lead], lead: -below.out[j]}
            for v, rows_of in groups.items():
                if v >= 0:
                    yield {at + i * low + k: c * above.into[i] for k, c in pair.items() for i in rows_of}
        at += high * (low + 1)


def _on_leaf(terms: Terms, widths: Sequence[int], chain: Sequence[_Side]) -> dict[Key, Fraction]:
    """A linear function on {W_l = P_l W_l P+_(l-1), b_l = P_l b_l}, in one coordinate for each pair of classes."""
    starts = np.cumsum([0, *(n * (m + 1) for m, n in pairwise(widths))])
    out: dict[Key, Fraction] = {}
    for k, c in terms.items():
        layer = int(np.searchsorted(starts, k, side="right")) - 1
        low, high, inner = widths[layer], widths[layer + 1], k - int(starts[layer])
        above, below = chain[layer + 1], chain[layer]
        if inner < high * low:
            i, j = divmod(inner, low)
            if above.labels[i] < 0 or below.labels[j] < 0:
                continue
            key, factor = (layer, above.labels[i], below.labels[j]), above.into[i] * below.out[j]
        else:
            i = inner - high * low
            if above.labels[i] < 0:
                continue
            key, factor = (layer, above.labels[i], -1), above.into[i]
        out[key] = out.get(key, Fraction(0)) + c * factor
    return {key: c for key, c in out.items() if c}


def _spanned(rows: Sequence[Mapping[Key, Fraction]], by: Sequence[Mapping[Key, Fraction]]) -> bool:
    """Whether linear functions are combinations of others, over Q."""
    keys = sorted({key for row in (*rows, *by) for key in row})
    place = {key: k for k, key in enumerate(keys)}

    def rank(some: Sequence[Mapping[Key, Fraction]]) -> int:
        table = np.full((len(some), len(keys)), _ZERO, dtype=object)
        for i, row in enumerate(some):
            for key, c in row.items():
                table[i, place[key]] = c
        return rationals.rank(table)

    return bool(by) and rank(by) == rank([*by, *rows])


def _sides(entry: Mapping[str, Any], n: int, row: Activation) -> _Side | str:
    """The classes of a layer, or why the activation forbids them."""
    labels, factors = [int(v) for v in entry["labels"]], [Fraction(v) for v in entry["factors"]]
    if len(labels) != n or len(factors) != n:
        return "a layer has another number of neurons than its labels"
    count = max(labels, default=-1) + 1
    if {v for v in labels if v >= 0} != set(range(count)) or any(
        (v < 0) != (f == 0) for v, f in zip(labels, factors, strict=True)
    ):
        return "the labels of a layer are not 0, 1, ... with -1 for null neurons of factor 0"
    if 0 in factors and row.value(_ZERO) != 0:
        return f"{row.label} has no null neurons: s(0) is not 0"
    sign = row.parity is not None
    scale = row.homogeneity == 1
    for f in factors:
        if f and ((f < 0 and not sign) or (abs(f) != 1 and not scale)):
            return f"{row.label} does not allow the factor {f}"
    return _Side(labels, factors, [abs(f) for f in factors] if row.parity == "even" else factors)


def _constants(net: Network, other: Network) -> list[list[Any]]:
    """Neurons with a zero row and one bias at two random points of the set."""
    out = []
    for k, (a, b) in enumerate(zip(net.hidden, other.hidden, strict=True)):
        reads = (a.weight != 0).any(axis=1) | (b.weight != 0).any(axis=1)
        one, two = rationals.fractions(a.bias), rationals.fractions(b.bias)
        out += [[k, int(i), str(one[i])] for i in np.flatnonzero(~reads & (one == two))]
    return out


def _constant_laws(
    constants: Sequence[tuple[int, int, Fraction]],
    widths: Sequence[int],
    rows: Sequence[Activation],
    submanifold: LinearSet,
) -> list[Terms] | str:
    """Linear functions that vanish on all fields because of neurons of constant value, or why they do not."""
    one = Fraction(1)
    found: list[Terms] = []
    for k, i, beta in constants:
        if not (0 <= k < len(rows) and 0 <= i < widths[k + 1]):
            return f"there is no neuron {i} in hidden layer {k}"
        weight, bias, outgoing, above = _places(widths, k, i)
        if any(submanifold.constant({j: one}) != 0 for j in weight) or submanifold.constant({bias: one}) != beta:
            return f"neuron {i} of hidden layer {k} is not constant on the set"
        height = rows[k].value(beta)
        silent = all(submanifold.constant({j: one}) == 0 for j in outgoing)
        if _is_critical(rows[k], beta) or (silent and height == 0):
            # delta_i = s'(beta) g_i is 0, so neither its row nor its bias moves
            found += [{j: one} for j in (*weight, bias)]
        if height is not None:
            found += [{j: one, b: -height} for j, b in zip(outgoing, above, strict=True)]
    return found


def _is_critical(row: Activation, beta: Fraction) -> bool:
    """Whether s'(beta) = 0 is proved: an even analytic activation at 0, a polynomial, or a flat piece."""
    if row.parity == "even" and row.analytic and beta == 0:
        return True
    if row.name in ("square", "polynomial"):
        coefficients = (_ZERO, _ZERO, Fraction(1)) if row.name == "square" else row.parameters
        return sum((j * c * beta ** (j - 1) for j, c in enumerate(coefficients) if j), _ZERO) == 0
    return any(
        p.slope == 0 and (p.lo is None or p.lo < beta) and (p.hi is None or beta < p.hi) for p in row.pieces or ()
    )


def _places(widths: Sequence[int], k: int, i: int) -> tuple[list[int], int, list[int], list[int]]:
    """Indices in theta: the row, the bias and the outgoing weights of a neuron, the biases of the next layer."""
    start = sum(n * (m + 1) for m, n in zip(widths[:k], widths[1 : k + 1], strict=False))
    low, n, high = widths[k], widths[k + 1], widths[k + 2]
    after = start + n * (low + 1)
    row = [start + i * low + j for j in range(low)]
    outgoing = [after + j * n + i for j in range(high)]
    return row, start + n * low + i, outgoing, [after + high * n + j for j in range(high)]


def _network(widths: Sequence[int], rows: Sequence[Activation], theta: ExactArray) -> Network:
    pairs = [(np.zeros((n, m)), np.zeros(n)) for m, n in zip(widths, widths[1:], strict=False)]
    return Network.from_arrays(*pairs, activation=[*rows, "identity"]).with_theta(rationals.simplified(theta))


def _spell(row: Activation) -> str:
    return row.name + (f"({', '.join(str(p) for p in row.parameters)})" if row.parameters else "")
