"""Chains of affine maps as models: linear, piecewise linear (path lifting), monomial and smooth activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_sizes, as_switch
from fiberscope.autodiff.families import Data, Family, GradientFamily, RestrictedFamily
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable
from fiberscope.errors import InputError
from fiberscope.models.affine import paired
from fiberscope.models.chains import blocks_of, chain_family
from fiberscope.models.model import Model, Symmetry, balances, offsets_of
from fiberscope.network import whole_widths

Array = npt.NDArray[Any]
Gates = Callable[[Ring, np.random.Generator, int], Data]

_SAMPLES = 64
"""Patterns summed in one field."""

PATHS = "path lifting: the count is that of generic weights, where every activation pattern occurs"


def chain(
    widths: Sequence[int], activation: str | Activation | Sequence[str | Activation] = "relu", *, bias: bool = True
) -> Model:
    """W_L s(... s(W_1 x + b_1) ...) + b_L with its balance laws.

    Homogeneous s of degree d: |w_i|^2 + b_i^2 - d |v_i|^2 for each neuron; the identity: the whole matrices
    W_l W_l^T + b_l b_l^T - W_(l+1)^T W_(l+1). Piecewise linear activations run by path lifting.

    Args:
        widths: (n_0, ..., n_L).
        activation: one for all hidden layers, or one for each.
        bias: whether there are biases.

    Raises:
        InputError: if widths and activations do not fit.

    Source: arXiv 2307.00144.

    >>> sum(s.fields.count for s in chain((2, 3, 1)).symmetries)
    3
    """
    widths, bias = whole_widths(widths), as_switch(bias, "bias")
    rows = _rows(widths, activation)
    linear = all(row.name == "identity" for row in rows)
    piecewise = any(row.pieces is not None and row.name != "identity" for row in rows)
    family: Family = piecewise_family(widths, rows) if piecewise else chain_family(widths, rows)
    symmetries = chain_symmetries(widths, rows)
    shapes = None if bias else tuple((name, shape) for name, shape in blocks_of(widths) if name.startswith("W"))
    if not bias:
        kept = weight_places(widths)
        family = RestrictedFamily(family, np.zeros(family.size), kept)
        symmetries = tuple(
            Symmetry(s.name, s.formula.replace(" + b^2", "").replace(" + b b^T", ""),
                     s.latex.replace(" + b^2", "").replace(" + b b^\\top", ""), s.fields.restricted(kept))
            for s in symmetries
        )  # fmt: skip
    one_field = linear and not bias and widths[0] == widths[-1] == 1
    labels = "/".join(dict.fromkeys(r.label for r in rows) or ("affine",))
    name = "-".join(map(str, widths)) + f" {labels}" + ("" if bias else " without biases")
    polynomial = all(row.pieces is not None or row.name in ("square", "polynomial") for row in rows)
    bound = (1, "all fields are multiples of one") if one_field else None
    note = PATHS if piecewise else ""
    return Model(name, family, symmetries, "arXiv 2307.00144", polynomial, bound, note=note, shapes=shapes)


def _rows(widths: Sequence[int], activation: Any) -> list[Activation]:
    hidden = len(widths) - 2
    if not isinstance(activation, list | tuple):
        return [find_activation(activation)] * hidden
    if len(activation) != hidden:
        raise InputError(f"{len(activation)} activations for {hidden} hidden layers; give one, or one for each")
    return [find_activation(row) for row in activation]


def weight_places(widths: Sequence[int]) -> npt.NDArray[np.int64]:
    """Indices in theta of all weights that are no biases.

    >>> weight_places((1, 2, 1)).tolist()
    [0, 1, 4, 5]
    """
    places = offsets_of(blocks_of(widths))
    return np.concatenate([index.reshape(-1) for name, index in places.items() if name.startswith("W")])


def sides(widths: Sequence[int], layer: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices in theta of the incoming (w_i, b_i), (n, n_below + 1), and outgoing weights, (n, n_above).

    >>> sides((1, 2, 1), 0)[0].tolist(), sides((1, 2, 1), 0)[1].tolist()
    ([[0, 2], [1, 3]], [[4], [5]])
    """
    places = offsets_of(blocks_of(widths))
    incoming = np.concatenate([places[f"W{layer + 1}"], places[f"b{layer + 1}"][:, None]], axis=1)
    return incoming, places[f"W{layer + 2}"].T


def chain_symmetries(widths: Sequence[int], rows: Sequence[Activation]) -> tuple[Symmetry, ...]:
    """The scalings of homogeneous neurons; all of gl(n) for layers without activation."""
    size = sum(high * (low + 1) for low, high in zip(widths, widths[1:], strict=False))
    out: list[Symmetry] = []
    for k, row in enumerate(rows):
        incoming, outgoing = sides(widths, k)
        n, low, high = len(incoming), f"W{k + 1}", f"W{k + 2}"
        if row.name == "identity":
            first, second = np.triu_indices(n)
            pairs = list(zip(first.tolist(), second.tolist(), strict=True))
            formula = f"{low} {low}^T + b b^T - {high}^T {high}"
            latex = rf"W_{{{k + 1}}} W_{{{k + 1}}}^\top + b b^\top - W_{{{k + 2}}}^\top W_{{{k + 2}}}"
            out.append(Symmetry("matrix", formula, latex, paired(size, incoming, outgoing, pairs)))
            skew = [(i, j) for i, j in pairs if i != j]
            if skew:
                fields = paired(size, incoming, outgoing, skew, sign=-1)
                text, tex = f"neurons of layer {k + 1} rotated", rf"W_{{{k + 1}}} \mapsto R W_{{{k + 1}}}"
                out.append(Symmetry("rotation", text, tex, fields))
        elif row.homogeneity is not None and row.homogeneity >= 1:
            d = row.homogeneity
            fields = paired(size, incoming, outgoing, [(i, i) for i in range(n)], degree=d)
            factor = "" if d == 1 else f"{d} "
            formula = f"|w_i|^2 + b^2 - {factor}|v_i|^2, w_i in {low}, v_i in {high}"
            latex = rf"\lVert w_i \rVert^2 + b^2 - {factor}\lVert v_i \rVert^2"
            out.append(Symmetry("balance", formula, latex, fields))
    return tuple(out)


@dataclass(frozen=True, eq=False)
class Patterns:
    """Affine pieces h = slope z + intercept of every hidden neuron, for several activation patterns.

    Args:
        slopes: for each hidden layer (P, n_l), exact rationals or floats.
        intercepts: the same.
        points: the inputs that stay fixed, (P, n_0) with NaN for free coordinates; None: all free.
    """

    slopes: tuple[Array, ...]
    intercepts: tuple[Array, ...]
    points: Array | None = None

    @property
    def count(self) -> int:
        """Number P of patterns."""
        return len(self.slopes[0])

    @property
    def samples(self) -> int:
        """Patterns in each field."""
        return min(self.count, _SAMPLES)

    def data(self, ring: Ring, rng: np.random.Generator, count: int, widths: Sequence[int]) -> Data:
        """Random inputs, free of the regions that they came from, for `samples` patterns; all of them take turns."""
        turns = -(-count * self.samples // self.count)
        order = np.concatenate([rng.permutation(self.count) for _ in range(turns)])
        chosen = order[: count * self.samples].reshape(count, self.samples)
        x = ring.random(rng, (count, self.samples, widths[0]))
        if self.points is not None:
            free = np.isnan(self.points)[chosen]
            x = np.where(free, x, ring.array(np.where(np.isnan(self.points), 0.0, self.points))[chosen])
        pairs = [ring.array(a)[chosen] for pair in zip(self.slopes, self.intercepts, strict=True) for a in pair]
        return (x, *pairs)


def piecewise_family(
    widths: Sequence[int], rows: Sequence[Activation], patterns: Patterns | None = None
) -> GradientFamily:
    """Gradients of piecewise linear chains with the linear pieces as data; smooth rows act on their pre-activation.

    The fields are affine in the piece (slope, intercept) of each neuron, so those of random affine combinations of
    its pieces span those of all patterns (the path lifting of arXiv 2307.00144); with `patterns`, each field is a sum
    over some of exactly these patterns with random inputs and cotangents, which suffices as fields of a fixed pattern
    are polynomials in x, whatever open set x runs through.

    Args:
        widths: (n_0, ..., n_L).
        rows: the L - 1 hidden activations.
        patterns: the patterns that occur; None for all.
    """
    depth = len(widths) - 1

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        h = tape.constant(data[0])
        for k in range(depth - 1):
            z = h @ blocks[2 * k].T + blocks[2 * k + 1]
            if rows[k].pieces is None:
                h = z.apply(rows[k])
                continue
            h = z * tape.constant(data[1 + 2 * k])
            if data[2 + 2 * k].any():
                h = h + tape.constant(data[2 + 2 * k])
        return h @ blocks[-2].T + blocks[-1]

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        if patterns is not None:
            return patterns.data(ring, rng, count, widths)
        pieces = [a for n, row in zip(widths[1:], rows, strict=False) for a in _mixed(row, ring, rng, (count, 1, n))]
        return (ring.random(rng, (count, 1, widths[0])), *pieces)

    name = "-".join(map(str, widths)) + " " + "/".join(dict.fromkeys(r.label for r in rows))
    return GradientFamily(name, blocks_of(widths), forward, draw, (patterns.samples if patterns else 1, widths[-1]))


def _mixed(row: Activation, ring: Ring, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A random affine combination of the pieces for each neuron."""
    pieces = row.pieces or ()
    if len(pieces) < 2:
        zero = np.zeros(shape, dtype=ring.random(rng, (1,)).dtype)
        one = pieces[0] if pieces else None
        return zero + ring.constant(one.slope if one else 1), zero + ring.constant(one.intercept if one else 0)
    weights = [ring.random(rng, shape) for _ in pieces[1:]]
    out = []
    for first, *rest in ([p.slope for p in pieces], [p.intercept for p in pieces]):
        total = np.full(shape, ring.constant(first))
        for weight, value in zip(weights, rest, strict=True):
            total = ring.add(total, ring.multiply(weight, ring.constant(value - first)))
        out.append(total)
    return out[0], out[1]


def deep_linear(widths: Sequence[int]) -> Model:
    """W_L ... W_1 x without biases. Source: arXiv 2307.00144.

    Raises:
        InputError: for a size that is no whole number >= 1; two or more are wanted.

    >>> deep_linear((2, 2, 2)).size
    8
    """
    return chain(widths, "identity", bias=False)


def matrix_factorisation(rows: int, rank: int, columns: int) -> Model:
    """U V^T entry by entry, U (rows, rank) and V (columns, rank): laws U^T U - V^T V.

    The fields are those of the linear network V -> U; source: arXiv 2307.00144.

    Raises:
        InputError: for a size that is no whole number >= 1.

    >>> matrix_factorisation(2, 3, 2).size
    12
    """
    rows, rank, columns = as_sizes(rows=rows, rank=rank, columns=columns)
    shapes = (("U", (rows, rank)), ("V", (columns, rank)))
    places = offsets_of(shapes)
    u, v = places["U"].T, places["V"].T
    size = (rows + columns) * rank
    first, second = np.triu_indices(rank)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    symmetries = [Symmetry("matrix", "U^T U - V^T V", r"U^\top U - V^\top V", paired(size, u, v, pairs))]
    skew = [(i, j) for i, j in pairs if i != j]
    if skew:
        rotation = paired(size, u, v, skew, sign=-1)
        symmetries.append(Symmetry("rotation", "U, V rotated together", r"U \mapsto U R", rotation))
    family = GradientFamily(
        f"U V^T of rank {rank}", shapes, lambda tape, blocks, data: blocks[0] @ blocks[1].T,
        lambda ring, rng, count: (), (rows, columns),
    )  # fmt: skip
    bound = (1, "all fields are multiples of one") if rows == columns == 1 else None
    return Model(family.name, family, tuple(symmetries), "arXiv 2307.00144", bound=bound)


def convex_network(inputs: int, hidden: int, outputs: int) -> Model:
    """U relu(V x) with U >= 0, an input-convex network without biases; mirror U: "mirror:U".

    Raises:
        InputError: for a size that is no whole number >= 1.

    Source: arXiv 2405.12888.

    >>> convex_network(2, 3, 2).size
    12
    """
    inputs, hidden, outputs = as_sizes(inputs=inputs, hidden=hidden, outputs=outputs)
    shapes = (("U", (outputs, hidden)), ("V", (hidden, inputs)))
    places = offsets_of(shapes)
    size = hidden * (inputs + outputs)
    fields = paired(size, places["V"], places["U"].T, [(i, i) for i in range(hidden)])

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        return (tape.constant(data[0]) @ blocks[1].T * tape.constant(data[1])) @ blocks[0].T

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        return ring.random(rng, (count, 1, inputs)), ring.random(rng, (count, 1, hidden))

    family = GradientFamily(f"U relu(V x), {hidden} neurons", shapes, forward, draw, (1, outputs))
    return Model(family.name, family, (balances(fields, "V_i", "U_i"),), "arXiv 2405.12888", note=PATHS)
