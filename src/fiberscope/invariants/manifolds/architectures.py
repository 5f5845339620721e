"""All known structural invariant manifolds of an architecture: types, numbers, members, and what is missing."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_count, as_switch
from fiberscope.errors import InputError
from fiberscope.invariants.manifolds.counts import ClassRules, manifold_count, type_count
from fiberscope.invariants.manifolds.lattice import Lattice, Profile, SimType
from fiberscope.invariants.manifolds.members import LayerClasses, Manifold, covered_layers, layer_members
from fiberscope.invariants.manifolds.rules import Family, beyond, class_rules, kind_of, statement_of
from fiberscope.invariants.manifolds.subgroups import FixedSpace, fixed_spaces
from fiberscope.invariants.manifolds.typelists import (
    Level,
    ManifoldType,
    is_direct,
    list_levels,
    list_types,
    one_name,
    total_number,
)
from fiberscope.network import whole_widths
from fiberscope.results import Assumption, Result, Rigor

_MOST = 1500
"""Hidden neurons whose counts take a second or two and have fewer digits than Python prints."""
_THEOREMS = ("symmetry-fixed-space", "equitable-sim", "reduced-network")
_SHOWN = 8


@dataclass(frozen=True)
class LabelledLattice:
    """All labelled manifolds; (a, b) in `edges` when nodes[b] lies in nodes[a] with none of the list between."""

    nodes: tuple[Manifold, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Sims(Result):
    """The known structural invariant manifolds of an architecture.

    Args:
        widths: (n_0, ..., n_L).
        activation: of the hidden layers.
        kind: its class: generic, odd, even, vanishing (s(0) = 0), homogeneous or affine.
        bias: whether hidden layers have biases.
        output_bias: whether the last layer has biases.
        parameters: number of parameters M of the architecture.
        count: number of labelled manifolds of coincidences, exactly.
        count_types: number of types, up to relabelling neurons and changing signs.
        types: the types in order of falling dimension; empty if there are more than `limit`.
        edges: (a, b) when manifolds of type b lie directly in manifolds of type a.
        levels: numbers by dimension; empty where they would take long.
        families: invariant sets beyond the list: infinitely many, or at special biases.
        complete: whether the list is complete as far as it was checked.
        statement: what is complete and what is not.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"row", "limit", "types", "edges"})

    widths: tuple[int, ...]
    activation: str
    kind: str
    bias: bool
    output_bias: bool
    parameters: int
    count: int
    count_types: int
    types: tuple[ManifoldType, ...]
    edges: tuple[tuple[int, int], ...]
    levels: tuple[Level, ...]
    families: tuple[Family, ...]
    complete: bool
    statement: str
    row: Activation
    limit: int
    assumes: tuple[Assumption, ...] = ()
    rigor: Rigor = Rigor.EXACT
    theorems: tuple[str, ...] = _THEOREMS

    @property
    def rules(self) -> ClassRules:
        """What the activation lets neurons have in common."""
        return class_rules(self.row)

    @property
    def lattice(self) -> Lattice | None:
        """The lattice of the types of a two-layer network; None for other depths and where types are not listed."""
        if len(self.widths) != 3 or not self.types:
            return None
        types = [SimType(p.sizes, p.null, t.dimension, t.count, p.quiet) for t in self.types for p in t.layers]
        return Lattice(tuple(types), self.edges)

    def members(self) -> Iterator[Manifold]:
        """All labelled manifolds.

        Raises:
            InputError: if there are more than `limit`; the number is told.
        """
        self._require_few("labelled manifolds", self.count)
        choices = [list(layer_members(n, self.rules)) for n in self.widths[1:-1]]
        return (self._manifold(layers) for layers in itertools.product(*choices) if one_name(layers) == layers)

    def manifold(self, *layers: LayerClasses | Profile) -> Manifold:
        """One manifold, from the classes of each hidden layer, or from profiles (neurons taken in order).

        Raises:
            InputError: if the classes are not a partition of the layer, or not allowed for the activation.

        >>> print(sims((1, 2, 1), "tanh").manifold(Profile((2,))))
        invariant manifold 2: dimension 4 of 7
          W1[0] = W1[1]
          b1[0] = b1[1]
          W2[:,0] = W2[:,1]
        """
        made = [LayerClasses.standard(c) if isinstance(c, Profile) else c for c in layers]
        if len(made) != len(self.widths) - 2:
            raise InputError(f"{len(made)} layers of classes; the architecture has {len(self.widths) - 2} hidden ones")
        for n, layer in zip(self.widths[1:-1], made, strict=True):
            self._require_fits(n, layer)
        return self._manifold(tuple(made))

    def hasse(self) -> LabelledLattice:
        """The lattice of all labelled manifolds, ordered by inclusion.

        Raises:
            InputError: if there are more than `limit`; the number is told.

        >>> len(sims((1, 3, 1), "softplus").hasse().edges)
        6
        """
        nodes = tuple(self.members())
        place = {m.layers: k for k, m in enumerate(nodes)}
        edges = {
            (k, place[one_name((*m.layers[:at], below, *m.layers[at + 1 :]))])
            for k, m in enumerate(nodes)
            for at, layer in enumerate(m.layers)
            for below in covered_layers(layer, self.rules)
            if is_direct(m.layers, at, below)
        }
        return LabelledLattice(nodes, tuple(sorted(edges)))

    def symmetric(self, limit: int = 3000) -> tuple[FixedSpace, ...]:
        """The fixed spaces of all groups of neuron symmetries, those that act on several layers at once included.

        Raises:
            InputError: if the group or the number of spaces is larger than `limit`; the number is told.

        >>> [v.dimension for v in sims((1, 2, 2, 1), "softplus", output_bias=False).symmetric() if not v.condensed]
        [6]
        """
        return fixed_spaces(self.widths, self.row, bias=self.bias, output_bias=self.output_bias, limit=limit)

    def _manifold(self, layers: tuple[LayerClasses, ...]) -> Manifold:
        return Manifold(self.widths, layers, self.rules, bias=self.bias, output_bias=self.output_bias)

    def _require_few(self, what: str, number: int) -> None:
        if number > self.limit:
            raise InputError(f"{_short(number)} {what}; the limit is {self.limit:,}, give sims(..., limit=...)")

    def _require_fits(self, n: int, layer: LayerClasses) -> None:
        rules = self.rules
        seen = sorted([i for block in (*layer.classes, *layer.quiet) for i in block] + list(layer.null))
        if seen != list(range(n)) or len(layer.signs) != n or not all((*layer.classes, *layer.quiet, (0,))):
            raise InputError(f"the classes are no partition of {n} neurons: {layer.profile.name}")
        if not set(layer.signs) <= ({1, -1} if rules.signs else {1}):
            raise InputError(f"signs {layer.signs}; neurons with {self.activation} have no relative signs")
        if any(layer.signs[c[0]] != 1 or c != tuple(sorted(c)) for c in layer.classes):
            raise InputError("list the neurons of a class in order and give the first one the sign 1")
        for part, allowed, word in ((layer.null, rules.null, "null"), (layer.quiet, rules.quiet, "quiet")):
            if part and not allowed:
                raise InputError(f"{word} neurons are not invariant with {self.activation}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, types and lattice included; counts are integers of any length."""
        out = super().to_dict()
        out["depth"] = len(self.widths) - 1
        out["listed"] = bool(self.types)
        out["lattice"] = None
        if self.types:
            out["lattice"] = {
                "types": [self._type_data(k, t) for k, t in enumerate(self.types)],
                "edges": [list(edge) for edge in self.edges],
            }
        return out

    def _type_data(self, k: int, found: ManifoldType) -> dict[str, Any]:
        layers = [{"sizes": list(p.sizes), "null": p.null, "quiet": list(p.quiet)} for p in found.layers]
        sizes = [size for p in found.layers for size in p.sizes]
        quiet = [size for p in found.layers for size in p.quiet]
        return {
            "id": k, "layer_type": found.name, "dimension": found.dimension, "leaf_dimension": found.leaf_dimension,
            "linear_dimension": found.linear_dimension, "count": found.count,
            "reduced_widths": list(found.reduced_widths), "sizes": sizes, "quiet": quiet,
            "null": sum(p.null for p in found.layers), "layers": layers,
            "equations": list(self.manifold(*found.layers).equations()), "here": False,
        }  # fmt: skip

    def __str__(self) -> str:
        """One screen."""
        name = "-".join(map(str, self.widths))
        lines = [
            f"invariant manifolds of {name} {self.activation} ({self.kind}; {self._bias_words()}; "
            f"{self.parameters:,} parameters)",
            f"  {_short(self.count)} manifold{'s' * (self.count != 1)} of "
            f"{_short(self.count_types)} type{'s' * (self.count_types != 1)} ({self.rigor.name})",
        ]
        if self.types:
            lines.append(f"  {'dimension':>9}  {'number':>12}  trains like  classes")
            shown = self.types if len(self.types) <= 2 * _SHOWN else self.types[:_SHOWN]
            lines += [self._type_line(t) for t in shown]
            if len(shown) < len(self.types):
                lines.append(f"  ... {len(self.types) - 2 * _SHOWN + 1} more types")
                lines += [self._type_line(t) for t in self.types[1 - _SHOWN :]]
        else:
            lines.append(f"  too many types to list (limit {self.limit:,})")
        lines.append(f"  {self.statement}")
        for family in self.families:
            at = ", ".join(f"{p:.6g}" for p in family.points[:_SHOWN])
            lines.append(
                f"  beyond the list, {family.name}: {'; '.join(family.equations)}" + (f" (b* = {at})" * bool(at))
            )
        return "\n".join(lines)

    def _type_line(self, found: ManifoldType) -> str:
        widths = "-".join(map(str, found.reduced_widths))
        wide = "" if found.linear_dimension == found.dimension else f" (equitable: {found.linear_dimension})"
        return f"  {found.dimension:>9}  {_short(found.count):>12}  {widths:<11}  {found.name}{wide}"

    def _bias_words(self) -> str:
        if self.bias == self.output_bias or len(self.widths) == 2:
            return "with biases" if self.output_bias else "without biases"
        return "hidden biases only" if self.bias else "output biases only"


def sims(
    widths: Sequence[int], activation: str | Activation = "tanh", *, bias: bool = True, output_bias: bool = True,
    limit: int = 3000,
) -> Sims:  # fmt: skip
    """The structural invariant manifolds of an architecture: the sets no gradient flow leaves, whatever loss and data.

    Listed are the linear manifolds of coincidences: neurons of a class are equal (up to sign where the activation is
    odd or even), null neurons have no weights (s(0) = 0), quiet ones no incoming weights (even activations). A type
    with K classes in a two-layer network has dimension D K + (output biases), D the parameters of a neuron. In deep
    networks the classes of the hidden layers are independent; the leaf of the reduced network is counted, with the
    larger equitable manifold {W_l P_(l-1) = P_l W_l} beside it. What lies beyond the list is in `families`, and what is
    known about completeness in `statement`.

    Args:
        widths: (n_0, ..., n_L).
        activation: of all hidden layers.
        bias: whether hidden layers have biases.
        output_bias: whether the last layer has biases; by default it does, like the layers of every `Network`.
        limit: how many types, and how many labelled manifolds, are listed at most.

    Returns:
        A `Sims`; its numbers are exact also where the types are too many to be listed.

    Raises:
        InputError: for widths that are no architecture, or more than 1,500 hidden neurons.
        UnsupportedError: for an unknown activation.

    Complexity: O(n_l^2) additions of long integers, and O(types * classes^2) for the lattice where it is listed.
    Source: arXiv 2510.09564; counting as for the intersection lattices of types A and B.

    >>> found = sims((2, 3, 1), "tanh")
    >>> found.count, found.count_types, [t.dimension for t in found.types]
    (24, 7, [13, 9, 9, 5, 5, 5, 1])
    >>> sims((2, 100, 1), "softplus").count % 1000
    751
    """
    shape = whole_widths(widths)
    bias, output_bias = as_switch(bias, "bias"), as_switch(output_bias, "output_bias")
    limit = as_count(limit, "limit")
    if sum(shape[1:-1]) > _MOST:
        raise InputError(
            f"{sum(shape[1:-1]):,} hidden neurons in all layers together; counts are made for up to {_MOST:,}"
        )
    row = find_activation(activation)
    rules = class_rules(row)
    depth = len(shape) - 1
    count, kinds = (total_number(shape[1:-1], rules, number) for number in (manifold_count, type_count))
    plain = Manifold(
        shape, tuple(LayerClasses.discrete(n) for n in shape[1:-1]), rules, bias=bias, output_bias=output_bias
    )
    types, edges = list_types(plain) if kinds <= limit else ((), ())
    families = _families(row, depth, bias, output_bias)
    complete, statement = statement_of(row, depth, families)
    if depth > 2 and not bias and (rules.null or rules.signs):
        statement += "; next to a layer of null neurons without biases several class patterns are one set: counted are "
        statement += "patterns"
    return Sims(
        widths=shape, activation=row.label, kind=kind_of(row), bias=bias, output_bias=output_bias,
        parameters=plain.ambient, count=count, count_types=kinds, types=types, edges=edges,
        levels=list_levels(plain, types), families=families, complete=complete, statement=statement,
        row=row, limit=limit,
        assumes=(Assumption("the listed weights are the parameters that are trained, each on its own", False),),
        theorems=(*(("orbit-invariance",) if row.analytic else ()), *_THEOREMS)
        + (("two-layer-sims",) if complete else ()),
    )  # fmt: skip


def _families(row: Activation, depth: int, bias: bool, output_bias: bool) -> tuple[Family, ...]:
    if depth == 1:
        return ()
    single = beyond(row, bias=bias, output_bias=output_bias)
    if depth == 2:
        return single
    return (
        Family(
            "equitable manifolds",
            ("W_l P_(l-1) = P_l W_l, b_l in range P_l",),
            "around every manifold of the list that has classes in neighbouring layers: blocks of W_l with equal row "
            "sums and equal column sums; the part (1 - P_l) W_l (1 - P_(l-1)) is constant, whatever its value, also "
            "where no symmetry induces it",
        ),
        Family(
            "groups on several layers",
            ("W_l g_(l-1) = g_l W_l, g_l b_l = b_l",),
            "fixed spaces of groups that permute the neurons of several layers at once, inside the equitable manifold "
            "of their orbits; `symmetric` lists them for small networks",
        ),
        *single,
    )


def _short(number: int) -> str:
    """A whole number, long ones to four digits."""
    return f"{number:,}" if number < 10**15 else f"{decimal.Decimal(number):.3e}"
