"""The smallest known invariant manifold that contains a network, and what it means for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fiberscope.activations import Activation
from fiberscope.invariants.lattice import Lattice, two_layer_lattice
from fiberscope.network import Network
from fiberscope.neurons import Classes, colour_classes, multiples
from fiberscope.results import Result, Rigor

_COMPLETE = ("softplus", "sigmoid", "tanh")
_LATTICE_WIDTH = 8


@dataclass(frozen=True, eq=False)
class SmallestSIM(Result):
    """The smallest manifold of the projector family that contains theta and that gradient flow never leaves.

    Args:
        dimension: of the leaf through theta: parameters of the reduced network. EXACT.
        ambient: number of parameters M.
        linear_dimension: of the linear manifold {W_l P_{l-1} = P_l W_l} that the leaf lies in.
        reduced_widths: widths of the network that training behaves like.
        classes: the classes of every hidden layer, as lists of neurons.
        null: the null neurons of every hidden layer.
        kind: generic, odd, even or homogeneous: what relates the members of a class.
        complete: whether the classification of two-layer networks says that no smaller one exists.
        meaning: what it says about training.
        lattice: all types of a narrow two-layer network, with this one marked by `here`.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"partition", "lattice"})

    dimension: int
    ambient: int
    linear_dimension: int
    reduced_widths: tuple[int, ...]
    classes: tuple[tuple[tuple[int, ...], ...], ...]
    null: tuple[tuple[int, ...], ...]
    kind: str
    complete: bool
    meaning: str
    partition: tuple[Classes, ...]
    lattice: Lattice | None = None
    here: int | None = None
    rigor: Rigor = Rigor.EXACT
    theorems: tuple[str, ...] = ("orbit-invariance", "equitable-sim", "reduced-network")

    @property
    def codimension(self) -> int:
        """Ambient - dimension."""
        return self.ambient - self.dimension

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, the lattice included."""
        out = super().to_dict()
        out["codimension"] = self.codimension
        out["activation_class"] = self.kind
        out["lattice"] = None
        if self.lattice is not None:
            types = [
                {"id": k, "layer_type": t.name, "dimension": t.dimension, "count": t.count, "null": t.null,
                 "sizes": list(t.sizes), "here": k == self.here}
                for k, t in enumerate(self.lattice.types)
            ]  # fmt: skip
            out["lattice"] = {"types": types, "edges": [list(e) for e in self.lattice.edges]}
        return out

    def __str__(self) -> str:
        """One screen."""
        lines = [
            f"smallest invariant manifold: dimension {self.dimension} of {self.ambient} ({self.rigor.name})",
            f"  {self.meaning}",
            "  widths of the network it trains like: " + "-".join(map(str, self.reduced_widths)),
        ]
        for k, (classes, null) in enumerate(zip(self.classes, self.null, strict=True)):
            shared = [c for c in classes if len(c) > 1]
            shown = ", ".join(
                "{" + ",".join(map(str, c[:8])) + (",..." if len(c) > 8 else "") + "}" for c in shared[:6]
            )
            more = f" and {len(shared) - 6} more" if len(shared) > 6 else ""
            silent = f"; null: {', '.join(map(str, null[:8]))}" + ("..." if len(null) > 8 else "") if null else ""
            lines.append(
                f"  hidden layer {k + 1}: "
                + (f"move together {shown}{more}" if shared else "no two move together")
                + silent
            )
        if not self.complete:
            lines.append("  smaller ones are not excluded here (the classification is for two layers and")
            lines.append(f"  {', '.join(_COMPLETE)}); conservation laws may confine training further")
        return "\n".join(lines)


def smallest_sim(net: Network) -> SmallestSIM:
    """The smallest known structural invariant manifold that contains the network's parameters.

    It is the leaf {W = P W P + fixed} of the coarsest (signed, weighted) equitable partition: neurons of a class keep
    computing multiples of one function under gradient flow, whatever the data and the loss, and training follows the
    reduced network with one neuron per class. Dimension sum_l k_l k_{l-1} + sum_l k_l with k_l classes in layer l.

    Args:
        net: a chain whose layers are the parameters that are trained.

    Raises:
        ScopeError: if a layer was folded or unrolled from something else.

    Complexity: O(rounds * parameters). Source: arXiv 2510.09564 (orbits), and the projector theorem of the theory page.

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    >>> sim = smallest_sim(net)
    >>> sim.dimension, sim.ambient, sim.reduced_widths
    (4, 7, (1, 1, 1))
    """
    net.require_own_parameters("a structural invariant manifold")
    partition = colour_classes(net)
    counts = (net.widths[0], *(c.count for c in partition), net.widths[-1])
    dimension = sum(a * b for a, b in zip(counts, counts[1:], strict=False)) + sum(counts[1:])
    free = sum((n - k) * (m - j) for n, k, m, j in zip(net.widths[1:], counts[1:], net.widths, counts, strict=False))
    rules = [multiples(layer.activation, training=True) for layer in net.hidden]
    kind = _kind([layer.activation for layer in net.hidden])
    complete = net.depth == 2 and net.layers[0].activation.name in _COMPLETE
    lattice, here = _lattice(net, partition)
    return SmallestSIM(
        dimension=dimension, ambient=net.parameter_count, linear_dimension=dimension + free, reduced_widths=counts,
        classes=tuple(c.members for c in partition),
        null=tuple(c.null if r.null else () for c, r in zip(partition, rules, strict=True)),
        kind=kind, complete=complete, meaning=_meaning(net, counts, dimension), partition=partition,
        lattice=lattice, here=here,
        theorems=("orbit-invariance", "equitable-sim", "reduced-network") + (("two-layer-sims",) if complete else ()),
    )  # fmt: skip


def _kind(rows: list[Activation]) -> str:
    kinds = []
    for row in rows:
        if row.homogeneity == 1:
            kinds.append("homogeneous")
        else:
            kinds.append(row.parity or "generic")
    return "/".join(dict.fromkeys(kinds)) or "affine"


def _meaning(net: Network, counts: tuple[int, ...], dimension: int) -> str:
    if dimension == net.parameter_count:
        return "no two neurons move together: no equitable partition confines gradient flow to fewer dimensions"
    small, wide = ("-".join(map(str, w)) for w in (counts, net.widths))
    return (
        f"under gradient flow on any data and loss this {wide} network trains exactly like a {small} one "
        "(with its own learning-rate multipliers) and never leaves"
    )


def _lattice(net: Network, partition: tuple[Classes, ...]) -> tuple[Lattice | None, int | None]:
    row = net.layers[0].activation
    finite = row.parity != "even" and row.homogeneity is None
    if net.depth != 2 or net.widths[1] > _LATTICE_WIDTH or not finite:
        return None, None
    rule = multiples(row, training=True)
    n0, m, n2 = net.widths
    lattice = two_layer_lattice(m, n0 + 1 + n2, n2, signs=rule.sign, null=rule.null)
    classes = partition[0]
    return lattice, lattice.index(tuple(len(c) for c in classes.members), len(classes.null))
