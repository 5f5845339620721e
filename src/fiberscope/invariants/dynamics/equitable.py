"""Class vectors of a partition over Q: is it equitable, are blocks constant, and weights spread over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import kind_of, shown
from fiberscope.errors import InputError
from fiberscope.network import Layer, Network
from fiberscope.neurons import multiples
from fiberscope.rowclasses import Classes, Part, discrete

ExactArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Side:
    """The class vectors of one layer: e as a target of weights, f as a source (|e| after an even activation)."""

    labels: IntArray
    e: ExactArray
    f: ExactArray
    first: IntArray
    members: tuple[tuple[int, ...], ...]

    def groups(self, a: int) -> list[Fraction]:
        """The factors of one class."""
        return [Fraction(self.e[i]) for i in self.members[a]]

    @cached_property
    def shared(self) -> IntArray:
        """Neurons that are not alone in their class."""
        alone = np.zeros(self.labels.size, dtype=bool)
        alone[[m[0] for m in self.members if len(m) == 1]] = True
        return np.flatnonzero(~alone)

    @cached_property
    def sizes(self) -> list[Fraction]:
        """n_A of each class."""
        return [sum((e * e for e in self.groups(a)), Fraction(0)) for a in range(len(self.members))]


def class_sides(net: Network, partition: Sequence[Classes]) -> list[Side]:
    """The class vectors of every layer of neurons, inputs and outputs included, each of them alone."""
    out = []
    evens = [False, *(layer.activation.parity == "even" for layer in net.hidden), False]
    ends = [discrete(net.widths[0]), *partition, discrete(net.widths[-1])]
    for classes, even in zip(ends, evens, strict=True):
        e = np.array([Fraction(v) for v in classes.factors], dtype=object)
        e[classes.labels < 0] = Fraction(0)
        members = classes.members
        first = np.array([m[0] for m in members], dtype=np.int64)
        out.append(Side(classes.labels, e, np.abs(e) if even else e, first, members))
    return out


def require_fit(net: Network, partition: tuple[Classes, ...]) -> None:
    """Refuse what is no partition, or has other sizes or factors than the layers and their activations allow."""
    for strange in (c for c in partition if not isinstance(c, Classes)):
        raise InputError(
            f"partition: {shown(strange)} is of type {kind_of(strange)}; give one `Classes` for each hidden layer, "
            "as smallest_sim(net).partition or neurons.colour_classes(net)"
        )
    if len(partition) != len(net.hidden):
        raise InputError(f"{len(partition)} partitions for {len(net.hidden)} hidden layers; give one for each")
    for k, (classes, layer) in enumerate(zip(partition, net.hidden, strict=True)):
        rule = multiples(layer.activation, training=True)
        where = f"hidden layer {k + 1} ({layer.activation.label})"
        if classes.labels.shape != (layer.n_out,) or classes.factors.shape != (layer.n_out,):
            raise InputError(f"{where}: the partition is of {classes.labels.size} neurons; expected {layer.n_out}")
        if classes.null and not rule.null:
            raise InputError(f"{where}: null neurons need an activation with s(0) = 0")
        factors = {Fraction(e) for e, a in zip(classes.factors, classes.labels, strict=True) if a >= 0}
        if 0 in factors or any(Fraction(classes.factors[m[0]]) != 1 for m in classes.members):
            raise InputError(f"{where}: factors are multiples of the class's first member, which has 1")
        if any(e < 0 for e in factors) and not rule.sign:
            raise InputError(f"{where}: a factor is negative, and the activation is neither odd nor even")
        if any(abs(e) != 1 for e in factors) and not rule.scale:
            raise InputError(f"{where}: a factor is not 1 or -1, and the activation is not homogeneous of degree 1")


def require_equitable(k: int, layer: Layer, below: Side, above: Side) -> None:
    """Refuse weights with W E not in range E, W^T E not in range E or b not in range E, over Q, naming a neuron."""
    one = np.array([Fraction(1)], dtype=object)
    for matrix, source, weights, target, factors, what in (
        (layer.weight, below.labels, below.f, above, above.e, "incoming weights"),
        (layer.weight.T, above.labels, above.e, below, below.f, "outgoing weights"),
        (layer.bias.reshape(-1, 1), np.zeros(1, np.int64), one, above, above.e, "biases"),
    ):  # fmt: skip
        rows = target.shared
        if not rows.size:
            continue  # neurons that are alone fulfil it
        # rows are compared with the first of their class, which is in the table because the class has several members
        table, _ = Part(matrix, source, weights).exact(rows)
        table = table.astype(object)
        place = {int(i): at for at, i in enumerate(rows)}
        for at, i in enumerate(rows):
            label = int(target.labels[i])
            e = Fraction(factors[i])
            wanted = 0 if label < 0 else table[place[int(target.first[label])]] * e.numerator
            if (table[at] * e.denominator != wanted).any():
                kind = "null" if label < 0 else f"in the class of neuron {int(target.first[label])}"
                raise InputError(
                    f"the partition is not equitable: neuron {int(i)}, {kind}, differs in the class sums of its "
                    f"{what} (weights of layer {k + 1})"
                )


def blocks_constant(weight: ExactArray, below: Side, above: Side) -> bool:
    """Whether W_ij = e_i f_j W_(first of A)(first of B), and 0 where a neuron is null: no part is frozen."""
    if not above.shared.size and not below.shared.size:
        return True
    rows, columns = above.first[above.labels], below.first[below.labels]  # label -1 takes the last; its factor is 0
    blocks = weight[rows][:, columns]
    if rationals.is_rational(weight) or any(abs(v) not in (0, 1) for v in (*above.e, *below.f)):
        blocks = rationals.fractions(blocks) * above.e[:, None] * below.f[None, :]
        return bool((blocks == rationals.fractions(weight)).all())
    signs = above.e.astype(np.float64)[:, None] * below.f.astype(np.float64)[None, :]
    return bool((blocks * signs == weight).all())


def spread(reduced: ExactArray, below: Side, above: Side) -> ExactArray:
    """E R (E^T E)^(-1) E^T, entry by entry: e_i f_j R_AB / n_B."""
    rows, columns = np.flatnonzero(above.labels >= 0), np.flatnonzero(below.labels >= 0)
    live = reduced[above.labels[rows]][:, below.labels[columns]]
    sizes = below.sizes
    live = rationals.scale_columns(live, [Fraction(below.f[j]) / sizes[below.labels[j]] for j in columns])
    live = rationals.scale_rows(live, [Fraction(above.e[i]) for i in rows])
    shape = above.labels.size, below.labels.size
    if rows.size == shape[0] and columns.size == shape[1]:
        return live
    out = np.zeros(shape, dtype=live.dtype)
    if rationals.is_rational(live):
        out[...] = Fraction(0)
    out[np.ix_(rows, columns)] = live
    return out


def spread_bias(reduced: ExactArray, above: Side) -> ExactArray:
    """E r."""
    one = Side(np.zeros(1, np.int64), np.array([Fraction(1)]), np.array([Fraction(1)]), np.zeros(1, np.int64), ((0,),))
    return spread(reduced.reshape(-1, 1), one, above)[:, 0]
