"""The smallest known invariant manifold that contains a network, and what it means for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from fiberscope.activations import Activation
from fiberscope.arguments import as_number
from fiberscope.errors import InputError
from fiberscope.invariants.classes.critical import frozen_neurons, leaf_without_constants
from fiberscope.invariants.classes.merging import MergeTree, leaf_dimension, merge_tree
from fiberscope.invariants.classes.nearby import near_classes, rounding_tolerances
from fiberscope.invariants.classes.projections import BlockDistance, Distance, nearest_on_manifold, partition_distance
from fiberscope.invariants.manifolds.lattice import Lattice, two_layer_lattice
from fiberscope.invariants.manifolds.rules import PROVED
from fiberscope.network import Network, require_network
from fiberscope.neurons import Classes, colour_classes, multiples, still_layers
from fiberscope.results import Budget, Result, Rigor

if TYPE_CHECKING:
    from fiberscope.invariants.dynamics.reduced import ReducedNetwork
    from fiberscope.symmetries.automorphisms import NeuronOrbits

_LATTICE_WIDTH = 8
LEVELS = ("exact", "numerical", "approximate")


@dataclass(frozen=True, eq=False)
class Level(Result):
    """The classes found at one tolerance, and how far theta is from their manifold.

    Args:
        name: exact, numerical or approximate.
        tolerance: relative differences that count as equal, one for each hidden layer; 0 for exact.
        reduced_widths: widths of the network with one neuron for each class.
        dimension: of a leaf: parameters of that network that move.
        linear_dimension: of the linear manifold V_P = {W_l P_(l-1) = P_l W_l}.
        distance: of theta from V_P, |theta - nearest point|.
        relative: the same over |theta|.
        condensed: distance from the nearest leaf on which nothing is frozen, {W = P W P}.
        blocks: the parts of the distance by layer: rows, columns, bias; and what is frozen.
        same_as: an earlier level with the same classes, None otherwise.
        rigor: EXACT for classes over Q, whose distance is 0; else NUMERICAL.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"partition"})

    name: str
    tolerance: tuple[float, ...]
    reduced_widths: tuple[int, ...]
    dimension: int
    linear_dimension: int
    distance: float
    relative: float
    condensed: float
    blocks: tuple[BlockDistance, ...]
    same_as: str | None
    partition: tuple[Classes, ...]
    rigor: Rigor

    @property
    def classes(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """The classes of every hidden layer, as lists of neurons."""
        return tuple(c.members for c in self.partition)

    @property
    def null(self) -> tuple[tuple[int, ...], ...]:
        """The null neurons of every hidden layer."""
        return tuple(c.null for c in self.partition)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; classes are written only where they differ from an earlier level."""
        out = super().to_dict()
        new = self.same_as is None
        out["classes"] = [[list(m) for m in layer] for layer in self.classes] if new else None
        out["null"] = [list(layer) for layer in self.null] if new else None
        return out

    def __str__(self) -> str:
        """One line."""
        return f"neurons equal {self._title}: {self._facts}"

    @property
    def _title(self) -> str:
        if self.name == "exact":
            return "exactly"
        rounding = " (rounding)" if self.name == "numerical" else ""
        return f"within {max(self.tolerance, default=0.0):.2g}{rounding}"

    @property
    def _facts(self) -> str:
        widths = "-".join(map(str, self.reduced_widths))
        near = "0" if self.rigor is Rigor.EXACT else f"{self.distance:.3g} ({self.relative:.2g} of |theta|)"
        return f"trains like {widths}, dimension {self.dimension:,}, at distance {near}"


@dataclass(frozen=True, eq=False)
class SmallestSIM(Result):
    """The smallest manifold of the projector family that contains theta and that gradient flow never leaves.

    Args:
        dimension: of the leaf through theta: parameters of the reduced network that move; not constants, and nothing
            below a null layer. EXACT.
        ambient: number of parameters M.
        linear_dimension: of the linear manifold {W_l P_{l-1} = P_l W_l} that the leaf lies in.
        reduced_widths: widths of the network that training behaves like.
        classes: the classes of every hidden layer, as lists of neurons.
        null: the null neurons of every hidden layer.
        frozen: the neurons of every hidden layer that read nothing and sit at a critical point of the activation: they
            never move, and their outgoing weights move with the bias above.
        kind: generic, odd, even or homogeneous: what relates the members of a class.
        complete: whether the classification of two-layer networks says that no smaller one exists.
        meaning: what it says about training.
        network: theta.
        tolerance: of the approximate level, None without one.
        lattice: all types of a narrow two-layer network, with this one marked by `here`.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"partition", "lattice", "network"})

    dimension: int
    ambient: int
    linear_dimension: int
    reduced_widths: tuple[int, ...]
    classes: tuple[tuple[tuple[int, ...], ...], ...]
    null: tuple[tuple[int, ...], ...]
    frozen: tuple[tuple[int, ...], ...]
    kind: str
    complete: bool
    meaning: str
    partition: tuple[Classes, ...]
    network: Network
    tolerance: float | None = None
    lattice: Lattice | None = None
    here: int | None = None
    rigor: Rigor = Rigor.EXACT
    theorems: tuple[str, ...] = ("equitable-sim", "reduced-network")

    @property
    def codimension(self) -> int:
        """Ambient - dimension."""
        return self.ambient - self.dimension

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Exact classes, classes up to rounding in the network's dtype, and up to `tolerance` if one was given.

        Every level is coarser than the one before. See `nearby.near_classes` for what a tolerance allows.
        """
        zero = (0.0,) * len(self.partition)
        found = [self._level("exact", zero, self.partition, None)]
        steps: list[tuple[str, tuple[float, ...]]] = [("numerical", rounding_tolerances(self.network))]
        if self.tolerance is not None:
            steps.append(("approximate", (float(self.tolerance),) * len(self.partition)))
        for name, slack in steps:
            below = found[-1]
            partition = near_classes(self.network, below.partition, slack)
            same = all(a.count == b.count and a.null == b.null for a, b in zip(partition, below.partition, strict=True))
            found.append(self._level(name, slack, below.partition if same else partition, below if same else None))
        return tuple(found)

    def _level(self, name: str, slack: tuple[float, ...], partition: tuple[Classes, ...], same: Level | None) -> Level:
        net, rigor = self.network, Rigor.NUMERICAL
        if same is not None:
            distance = Distance(same.distance, same.relative, same.condensed, same.blocks)
            rigor = same.rigor
        else:
            distance = partition_distance(net, partition)
        if name == "exact":
            blocks = tuple(BlockDistance(b.layer, 0.0, 0.0, 0.0, b.frozen) for b in distance.blocks)
            condensed = sum(b.frozen**2 for b in blocks) ** 0.5
            distance, rigor = Distance(0.0, 0.0, condensed, blocks), Rigor.EXACT
        widths = [c.count for c in partition]
        dimension = self.dimension if rigor is Rigor.EXACT else leaf_dimension(net, widths)
        return Level(
            name, slack, (net.widths[0], *widths, net.widths[-1]), dimension, manifold_dimension(net, widths),
            distance.absolute, distance.relative, distance.condensed, distance.blocks,
            None if same is None else same.same_as or same.name, partition, rigor,
        )  # fmt: skip

    @cached_property
    def merge_tree(self) -> MergeTree:
        """The nested hierarchy above the numerical level, and the number of classes that stands out."""
        below = self.levels[1]
        return merge_tree(self.network, below.partition, start=below.distance)

    def at(self, level: str | int = "exact") -> tuple[Classes, ...]:
        """The partition of a level: its name, or a number of classes of the merge tree.

        Raises:
            InputError: if there is no such level.
        """
        if isinstance(level, int):
            return self.merge_tree.partition(level)
        if level == "exact":
            return self.partition
        found = [here.partition for here in self.levels if here.name == level]
        if not found:
            hint = "; pass a tolerance to smallest_sim" if level == "approximate" else ""
            raise InputError(f"no level {level!r}; there are {', '.join(here.name for here in self.levels)}{hint}")
        return found[0]

    def project(
        self, net: Network | None = None, *, level: str | int = "exact", condensed: bool = False,
        exact: bool | None = None,
    ) -> Network:  # fmt: skip
        """The nearest network on the manifold of a level: W -> P W P + Q W Q, b -> P b, or W -> P W P if `condensed`.

        Args:
            net: a network of the same widths, for example after some training; the one asked about without it.
            level: "exact", "numerical", "approximate", or a number of classes of the merge tree.
            condensed: also drop what training on the manifold leaves alone.
            exact: over Q, or rounded in the network's dtype; see `projections.nearest_on_manifold`.

        Raises:
            InputError: if there is no such level, or the widths differ.
        """
        return nearest_on_manifold(net or self.network, self.at(level), condensed=condensed, exact=exact)

    def reduced(self, level: str | int = "exact") -> ReducedNetwork:
        """The network with one neuron for each class and the learning-rate multipliers that train it like this one.

        Args:
            level: as in `project`; other levels than "exact" reduce the nearest network on their manifold.

        Raises:
            InputError: if there is no such level, or all neurons of a hidden layer are null.
        """
        from fiberscope.invariants.dynamics.reduced import reduced_network

        net = self.network if level == "exact" else self.project(level=level)
        return reduced_network(net, self.at(level))

    def automorphisms(self, budget: Budget | float | None = 10.0) -> NeuronOrbits:
        """Orbits of the (signed) permutations of hidden neurons that keep theta: finer than the classes.

        Args:
            budget: seconds the search may take; what is found by then is a lower bound of the group.
        """
        from fiberscope.symmetries.automorphisms import neuron_orbits

        return neuron_orbits(self.network, self.partition, budget=budget)

    def summary(self) -> dict[str, Any]:
        """JSON-ready data of the exact level alone, the lattice included."""
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
        for key in ("frozen", "tolerance"):
            out.pop(key)
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: the exact level, the levels with their distances, and the merge tree.

        `negative` lists the neurons that are minus the first member of their class.
        """
        out = self.summary()
        out["frozen"] = [list(layer) for layer in self.frozen]
        out["negative"] = [[int(i) for i in (c.vector < 0).nonzero()[0]] for c in self.partition]
        out["tolerance"] = self.tolerance
        out["levels"] = [level.to_dict() for level in self.levels]
        out["merge_tree"] = self.merge_tree.to_dict()
        return out

    def __str__(self) -> str:
        """One screen."""
        lines = [
            f"smallest known invariant manifold: dimension {self.dimension} of {self.ambient} ({self.rigor.name})",
            f"  {self.meaning}",
            "  widths of the network it trains like: " + "-".join(map(str, self.reduced_widths)),
        ]
        for k, (classes, null) in enumerate(zip(self.classes, self.null, strict=True)):
            shared = [c for c in classes if len(c) > 1]
            if not (shared or null or self.frozen[k]):
                continue
            shown = ", ".join("{" + _listed(c, ",") + "}" for c in shared[:6])
            more = f" and {len(shared) - 6:,} more" if len(shared) > 6 else ""
            silent = f"; null: {_listed(null)}" if null else ""
            still = f"; frozen constants: {_listed(self.frozen[k])}" if self.frozen[k] else ""
            together = f"move together {shown}{more}" if shared else "no two move together"
            lines.append(f"  hidden layer {k + 1}: {together}{silent}{still}")
        if self.partition:
            lines += [f"  {text}" for text in _level_lines(self.levels)]
            lines += [f"  {line}" for line in str(self.merge_tree).splitlines()]
        if not self.complete:
            lines.append(
                f"  smaller ones are not excluded here (the classification is for two layers and {', '.join(PROVED)}); "
                "conservation laws may confine training further"
            )
        return "\n".join(lines)


def _level_lines(levels: Sequence[Level]) -> list[str]:
    """One line for each different partition, naming all levels that find it."""
    out = []
    for level in levels:
        if level.same_as is None:
            others = [other._title for other in levels if other.same_as == level.name]
            out.append(f"neurons equal {', or '.join([level._title, *others])}: {level._facts}")
    return out


def _listed(neurons: Sequence[int], comma: str = ", ", limit: int = 8) -> str:
    return comma.join(map(str, neurons[:limit])) + (f"{comma}..." if len(neurons) > limit else "")


def manifold_dimension(net: Network, widths: Sequence[int]) -> int:
    """Dimension of V_P with k_l classes in layer l: sum_l k_l k_(l-1) + (n_l - k_l)(n_(l-1) - k_(l-1)) + k_l.

    Args:
        net: the network.
        widths: number of classes, null neurons not counted, of each hidden layer.

    >>> manifold_dimension(Network.random((1, 3, 3, 1), seed=0), [1, 1])
    10
    """
    counts = (net.widths[0], *widths, net.widths[-1])
    left = [n - k for n, k in zip(net.widths, counts, strict=True)]
    return sum(sum(a * b for a, b in zip(some, some[1:], strict=False)) for some in (counts, left)) + sum(counts[1:])


def smallest_sim(net: Network, tolerance: float | None = None) -> SmallestSIM:
    """The smallest known structural invariant manifold that contains the network's parameters.

    It is the leaf {W = P W P + fixed} of the coarsest (signed, weighted) equitable partition: neurons of a class keep
    computing multiples of one function under gradient flow, whatever the data and the loss, and training follows the
    reduced network with one neuron per class. Dimension sum_l k_l k_{l-1} + sum_l k_l with k_l classes in layer l; if a
    hidden layer is null, the sums begin above it, because no gradient passes it: all below stands still.

    Neurons that read nothing and sit at a critical point s'(b) = 0 are smaller still: delta = s'(b) (W^T delta) = 0, so
    (w, b) never moves, the output s(b) is constant, and the outgoing weights get s(b) times the velocity of the bias
    above. They are constants that only shift that bias, and the leaf is that of the network without them: dimension
    D K + (outputs) with K classes of the others in a two-layer network with D parameters per neuron.

    Args:
        net: a chain whose layers are the parameters that are trained.
        tolerance: relative difference of neurons that count as one class at the approximate level; None: no such level.

    Returns:
        The exact answer; its `levels` (exact, numerical, approximate, with distances) and `merge_tree` are computed
        when they are asked for.

    Raises:
        ScopeError: if a layer was folded or unrolled from something else.
        InputError: if the tolerance is not a number >= 0.

    Complexity: O(rounds * parameters). Source: arXiv 2510.09564 (orbits), and the projector theorem of the theory page.

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    >>> sim = smallest_sim(net)
    >>> sim.dimension, sim.ambient, sim.reduced_widths
    (4, 7, (1, 1, 1))
    """
    require_network(net)
    net.require_own_parameters("a structural invariant manifold")
    tolerance = None if tolerance is None else as_number(tolerance, "tolerance", least=0)
    partition = colour_classes(net)
    widths = [c.count for c in partition]
    counts = (net.widths[0], *widths, net.widths[-1])
    leaf = leaf_without_constants(net)
    dimension = min(leaf_dimension(net, widths), net.parameter_count if leaf is None else leaf)
    rules = [multiples(layer.activation, training=True) for layer in net.hidden]
    kind = _kind([layer.activation for layer in net.hidden])
    complete = net.depth == 2 and [layer.activation.name for layer in net.layers] in [[n, "identity"] for n in PROVED]
    lattice, here = _lattice(net, partition)
    # past a kink the flow of the fields is not that of the theorem; the classes are invariant all the same
    orbits = ("orbit-invariance",) if all(layer.activation.analytic for layer in net.layers) else ()
    return SmallestSIM(
        dimension=dimension, ambient=net.parameter_count, linear_dimension=manifold_dimension(net, widths),
        reduced_widths=counts, classes=tuple(c.members for c in partition),
        null=tuple(c.null if r.null else () for c, r in zip(partition, rules, strict=True)),
        frozen=frozen_neurons(net) if leaf is not None else ((),) * len(partition),
        kind=kind, complete=complete, meaning=_meaning(net, counts, dimension), partition=partition,
        network=net, tolerance=tolerance, lattice=lattice, here=here,
        theorems=(*orbits, "equitable-sim", "reduced-network", *(("two-layer-sims",) if complete else ())),
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
        if net.depth == 1:
            return "there is no hidden neuron: no equitable partition confines gradient flow to fewer dimensions"
        return "no two neurons move together: no equitable partition confines gradient flow to fewer dimensions"
    small, wide = ("-".join(map(str, w)) for w in (counts, net.widths))
    if still := still_layers(counts[1:-1]):
        return (
            f"hidden layer {still} sends 0 and passes no gradient back: up to it nothing ever moves, whatever the data "
            f"and loss, and what is above trains like a network without inputs, of widths {small.split('-0-')[-1]}"
        )
    if counts == net.widths:
        return (
            "no two neurons move together, but constants that never move confine gradient flow to fewer dimensions, "
            "whatever the data and loss"
        )
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
