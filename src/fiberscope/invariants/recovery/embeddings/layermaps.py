"""How wide hidden layers stand for narrow ones: indicators, shares, and the conditions of a compatible embedding.

Every hidden layer has a signed indicator E (wide, narrow) that says which narrow neuron a wide one computes, z' = E z,
and shares B with the same support and E^T B = 1, by which errors are handed back, delta' = B delta. Null neurons have
zero rows in both. The wide weights are the solutions of W' E = E W and B^T W' = W B^T, which are
W' = E W B^T + (1 - E B^T) R (1 - E B^T) with any R: an affine space of dimension (added above) * (added below).
After the compatible embeddings of arXiv 2111.15527, definition 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.errors import InputError
from fiberscope.network import Layer, Network

ExactArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

_ZERO, _ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True, eq=False)
class LayerMap:
    """How the neurons of one wide hidden layer stand for those of the narrow one.

    Args:
        labels: (wide,) the narrow neuron that each computes, -1 for null neurons.
        factors: (wide,) e_i with z'_i = e_i z: 1, or what the activation forgives (-1 for odd, e > 0 for ReLU-like).
        shares: (wide,) beta_i, adding up to 1 over the copies of a neuron: delta'_i = beta_i / e_i delta; 0 if null.
        offsets: (wide,) the pre-activation b* of the null neurons, a constant; 0 for the others.
    """

    labels: IntArray
    factors: ExactArray
    shares: ExactArray
    offsets: ExactArray

    @property
    def null(self) -> IntArray:
        """The null neurons."""
        return np.flatnonzero(self.labels < 0)

    @property
    def live(self) -> IntArray:
        """The others."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def back(self) -> ExactArray:
        """(wide,) the entries beta_i / e_i of B."""
        return np.array([b / e if b else _ZERO for b, e in zip(self.shares, self.factors, strict=True)], dtype=object)

    def copies(self, narrow: int) -> list[IntArray]:
        """For each narrow neuron, the wide ones that compute it."""
        return [np.flatnonzero(self.labels == t) for t in range(narrow)]

    def matrices(self, narrow: int) -> tuple[ExactArray, ExactArray]:
        """E and B, each (wide, narrow) of Fractions."""
        e, b = (np.full((len(self.labels), narrow), _ZERO, dtype=object) for _ in range(2))
        e[self.live, self.labels[self.live]] = self.factors[self.live]
        b[self.live, self.labels[self.live]] = self.back[self.live]
        return e, b

    @classmethod
    def identity(cls, width: int) -> LayerMap:
        """Inputs and outputs."""
        return cls(np.arange(width), *(np.full(width, q, dtype=object) for q in (_ONE, _ONE, _ZERO)))


# ---- conditions


def null_constants(net: Network, maps: Sequence[LayerMap]) -> list[list[Fraction | None]]:
    """For each hidden layer, the outputs s(b*) of its null neurons; None where they are no known rationals."""
    return [
        [layer.activation.value(rationals.as_fraction(b)) for b in own.offsets[own.null]]
        for layer, own in zip(net.hidden, maps, strict=True)
    ]


def require_compatible(
    small: Network, wide: Network, maps: Sequence[LayerMap], trained: tuple[bool, bool]
) -> None:  # fmt: skip
    """Refuse what is no compatible embedding."""
    _require_shapes(small, wide, maps)
    around = [LayerMap.identity(small.widths[0]), *maps, LayerMap.identity(small.widths[-1])]
    constants = [[], *null_constants(small, maps), []]
    for k, (old, new) in enumerate(zip(small.layers, wide.layers, strict=True)):
        below, above = around[k], around[k + 1]
        inputs, outputs = LayerMap.identity(old.n_in), LayerMap.identity(old.n_out)
        if not rationals.equal(
            _class_sums(new.weight, below, below.factors, old.n_in), _spread(old.weight, inputs, above)
        ):
            raise InputError(f"no embedding: layer {k + 1} breaks W' E = E W, so its pre-activations differ")
        if not rationals.equal(
            _class_sums(new.weight.T, above, above.back, old.n_out).T, _spread(old.weight, below, outputs)
        ):
            raise InputError(f"no embedding: layer {k + 1} breaks B^T W' = W B^T, so errors are not handed back")
        _require_biases(k, old, new, below, above, constants[k])
        heard = trained[1] if k == small.depth - 1 else trained[0]
        if not heard and any(c != 0 for c in constants[k]):
            raise InputError(f"no embedding: null neurons of layer {k} send constants and no bias above is trained")


def _require_biases(
    k: int, old: Layer, new: Layer, below: LayerMap, above: LayerMap, sent: Sequence[Fraction | None]
) -> None:
    """The effective biases: b' + W' c = E b + b*, with c what the null neurons below send."""
    columns = rationals.fractions(new.weight[:, below.null])
    total = rationals.fractions(new.bias).copy()
    for j, c in enumerate(sent):
        if c is None:
            if (columns[:, j] != 0).any():
                raise InputError(f"no embedding: a null neuron under layer {k + 1} sends an unknown constant")
        elif c:
            total = total + columns[:, j] * c
    wanted = np.array(rationals.fractions(rationals.exact_array(above.offsets)))
    live = above.live
    wanted[live] = rationals.fractions(old.bias)[above.labels[live]] * above.factors[live]
    if not (total == wanted).all():
        raise InputError(f"no embedding: layer {k + 1} has other effective biases than the narrow network")


def _require_shapes(small: Network, wide: Network, maps: Sequence[LayerMap]) -> None:
    """Widths, activations, and E^T B = 1 with factors that the activations forgive."""
    if [a.activation for a in small.layers] != [a.activation for a in wide.layers] or small.head != wide.head:
        raise InputError("no embedding: depth, activations or heads differ")
    if (small.widths[0], small.widths[-1]) != (wide.widths[0], wide.widths[-1]):
        raise InputError("no embedding: inputs or outputs differ")
    if [len(m.labels) for m in maps] != list(wide.widths[1:-1]):
        raise InputError("no embedding: the map has other widths than the network")
    for k, (own, layer) in enumerate(zip(maps, small.hidden, strict=True)):
        if any(m.max(initial=-1) >= layer.n_out or m.min(initial=0) < -1 for m in (own.labels,)):
            raise InputError(f"no embedding: hidden layer {k + 1} names neurons that the narrow network has not")
        for t, copies in enumerate(own.copies(layer.n_out)):
            if sum(own.shares[copies], _ZERO) != 1:
                raise InputError(f"no embedding: the shares of neuron {t} of hidden layer {k + 1} do not add up to 1")
        if not all(_forgiven(layer.activation, e) for e in own.factors[own.live]):
            raise InputError(f"no embedding: {layer.activation.label} does not forgive the factors of layer {k + 1}")
        if any(b != 0 for b in own.shares[own.null]):
            raise InputError(f"no embedding: null neurons of hidden layer {k + 1} have shares")


def _forgiven(row: Activation, e: Fraction) -> bool:
    """Whether s(e z) = e s(z), with which s'(e z) = s'(z)."""
    return e == 1 or (e == -1 and row.parity == "odd") or (e > 0 and row.homogeneity == 1)


def assemble(net: Network, maps: Sequence[LayerMap], free: Sequence[ExactArray | None]) -> Network:
    """W' = E W B^T + (1 - E B^T) R (1 - E B^T), and the biases that keep the effective ones."""
    around = [LayerMap.identity(net.widths[0]), *maps, LayerMap.identity(net.widths[-1])]
    constants = [[], *null_constants(net, maps), []]
    layers = []
    for k, layer in enumerate(net.layers):
        below, above = around[k], around[k + 1]
        weight = _spread(layer.weight, below, above)
        part = free[k]
        if part is not None:
            weight = rationals.add(weight, _complement(part, below, above, layer))
        live = above.live
        bias = rationals.fractions(rationals.exact_array(above.offsets)).copy()
        bias[live] = rationals.fractions(layer.bias)[above.labels[live]] * above.factors[live]
        for j, c in zip(below.null, constants[k], strict=True):
            if c:
                bias = bias - rationals.fractions(weight[:, j]) * c
        layers.append(Layer(weight, rationals.simplified(bias), layer.activation, name=layer.name))
    return Network(tuple(layers), net.head)


def _spread(weight: ExactArray, below: LayerMap, above: LayerMap) -> ExactArray:
    """E W B^T without the matrices."""
    rows, columns = above.live, below.live
    part = weight[above.labels[rows]][:, below.labels[columns]]
    part = rationals.scale_rows(part, list(above.factors[rows]))
    part = rationals.scale_columns(part, list(below.back[columns]))
    return _placed(part, (len(above.labels), len(below.labels)), rows, columns)


def _placed(part: ExactArray, shape: tuple[int, int], rows: IntArray, columns: IntArray) -> ExactArray:
    """A matrix with the given entries in some rows and columns, 0 elsewhere."""
    out = np.full(shape, _ZERO, dtype=object) if rationals.is_rational(part) else np.zeros(shape)
    out[np.ix_(rows, columns)] = part
    return out


def _class_sums(matrix: ExactArray, own: LayerMap, coefficients: ExactArray, narrow: int) -> ExactArray:
    """Sums of the columns of (n, wide) over the copies of each narrow neuron, times coefficients: (n, narrow)."""
    copies = own.copies(narrow)
    shape, total = (len(matrix), narrow), np.zeros((len(matrix), narrow))
    for rank in range(max((len(c) for c in copies), default=0)):
        where = np.array([t for t, c in enumerate(copies) if len(c) > rank])
        at = np.array([c[rank] for c in copies if len(c) > rank])
        part = rationals.scale_columns(matrix[:, at], list(coefficients[at]))
        total = rationals.add(total, _placed(part, shape, np.arange(len(matrix)), where))
    return total


def _complement(part: ExactArray, below: LayerMap, above: LayerMap, layer: Layer) -> ExactArray:
    """(1 - E B^T) R (1 - E B^T)."""
    inputs, outputs = LayerMap.identity(len(below.labels)), LayerMap.identity(len(above.labels))
    handed = _spread(_class_sums(part.T, above, above.back, layer.n_out).T, inputs, above)
    rest = rationals.add(part, rationals.scale(handed, -_ONE))
    handed = _spread(_class_sums(rest, below, below.factors, layer.n_in), below, outputs)
    return rationals.add(rest, rationals.scale(handed, -_ONE))
