"""Condensation of networks and of checkpoints: directions of neurons, classes, and what dimension they leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_count, as_number, as_switch, shown
from fiberscope.errors import InputError
from fiberscope.invariants.arguments import as_names
from fiberscope.invariants.classes.nearby import near_classes
from fiberscope.invariants.classes.projections import partition_distance
from fiberscope.invariants.orbits import orbit
from fiberscope.invariants.orbits.ceilings import ceiling, trained_dimension
from fiberscope.invariants.recovery.condensing.directions import Directions, layer_directions
from fiberscope.invariants.recovery.ranking.ranks import model_rank
from fiberscope.network import Network, require_network
from fiberscope.neurons import Classes, colour_classes, multiples
from fiberscope.results import Budget, Progress, Result, Rigor, jsonable

_RANKED = 250
"""Parameters up to which model ranks are computed without being asked for."""
_ORBITS = 120
"""The same for orbits, of one network; series and larger networks get the proved upper bound."""
_DRAWN = 20_000
"""Cosines in `to_dict`, all drawn layers together."""
_LISTED = 100
"""Checkpoints, and layers of each, in `to_dict`."""


@dataclass(frozen=True)
class Level:
    """What is found at one tolerance.

    Args:
        tolerance: t.
        directions: classes of directions in each hidden layer.
        holding: the least number of those classes that hold the asked share of the amplitude.
        neurons: different neurons in each hidden layer, those with nearly equal incoming weights counted once.
        rank: model rank once those are made equal, None where it was not computed.
        classes: classes of neurons that nearly move together under gradient flow, all their weights within t.
        dimension: of the invariant manifold of these classes, in the trained parameters.
        distance: of theta from that manifold, over |theta|.
    """

    tolerance: float
    directions: tuple[int, ...]
    holding: tuple[int, ...]
    neurons: tuple[int, ...]
    rank: int | None
    classes: tuple[int, ...]
    dimension: int
    distance: float


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One network of a series.

    Args:
        label: its name or time.
        network: the network.
        layers: directions of each hidden layer.
        levels: by tolerance.
        rank: model rank at theta itself, None where it was not computed.
        orbit: dimension of the orbit of theta, None where it was not computed.
        orbit_upper: proved upper bound of it.
        orbit_reason: why the bound holds.
    """

    label: str | float
    network: Network
    layers: tuple[Directions, ...]
    levels: tuple[Level, ...]
    rank: int | None
    orbit: int | None
    orbit_upper: int
    orbit_reason: str

    def summary(self, *, spectra: bool = True) -> dict[str, Any]:
        """The numbers, JSON-ready, of the first hundred hidden layers."""
        return {
            "label": jsonable(self.label), "rank": self.rank, "orbit": self.orbit, "orbit_upper": self.orbit_upper,
            "orbit_reason": self.orbit_reason, "levels": [jsonable(level) for level in self.levels],
            "layers": [layer.summary(spectrum=spectra) for layer in self.layers[:_LISTED]],
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Condensation(Result):
    """What `condensation` found, network by network.

    Args:
        snapshots: one for each network, in their order.
        tolerances: the distances between unit vectors, and between neurons over the median neuron's length.
        share: of the amplitude that `Level.holding` counts classes for.
        parameters: number of trained parameters M.
        complete: whether all networks were looked at in time.
        notes: what a reader should know.
        rigor: NUMERICAL: classes at a tolerance.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"snapshots"})

    snapshots: tuple[Snapshot, ...]
    tolerances: tuple[float, ...]
    share: float
    parameters: int
    complete: bool
    notes: tuple[str, ...] = ()
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ()

    @property
    def last(self) -> Snapshot:
        """The last network."""
        return self.snapshots[-1]

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of equal length: one row for each network, hidden layer and tolerance."""
        rows = [
            {
                "checkpoint": s.label, "layer": layer.layer, "width": layer.width, "silent": layer.silent,
                "effective": layer.effective, "tolerance": level.tolerance, "directions": level.directions[k],
                "effective_directions": layer.effective_counts[j], "holding": level.holding[k],
                "neurons": level.neurons[k], "rank_nearby": level.rank, "classes": level.classes[k],
                "dimension": level.dimension, "distance": level.distance, "rank": s.rank,
                "orbit": s.orbit, "orbit_upper": s.orbit_upper,
                "parameters": self.parameters,
            }
            for s in self.snapshots
            for k, layer in enumerate(s.layers)
            for j, level in enumerate(s.levels)
        ]  # fmt: skip
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, thinned to what a page can draw: at most 100 checkpoints, cosines of the first and last."""
        count = len(self.snapshots)
        shown = np.unique(np.linspace(0, count - 1, min(count, _LISTED)).astype(int)).tolist()
        limit = max(8, min(96, int((_DRAWN / max(1, 2 * len(self.last.layers))) ** 0.5)))
        data = super().to_dict()
        data["checkpoints"] = count
        data["snapshots"] = [{"index": k, **self.snapshots[k].summary(spectra=k in (0, count - 1))} for k in shown]
        for entry in (data["snapshots"][0], data["snapshots"][-1]):
            layers = self.snapshots[entry["index"]].layers[:_LISTED]
            entry["drawings"] = [layer.drawing(limit) for layer in layers]
        return data

    def __str__(self) -> str:
        """One screen: the last network, and the series before it in short."""
        s = self.last
        lines = [
            f"condensation of {s.network.architecture}, {self.parameters:,} trained parameters ({self.rigor.name})"
        ]
        for layer in s.layers[:8]:
            fold = "u = -u" if layer.folded else "signs count"
            lines.append(
                f"  layer {layer.layer}: {layer.width:,} neurons ({layer.silent:,} silent), {layer.effective:.3g} "
                f"effective directions ({fold}); largest shares {_shares(layer)}"
            )
        titles = (
            "tolerance",
            "directions",
            f"{self.share:.0%} in",
            "neurons",
            "rank",
            "together",
            "dimension",
            "distance",
        )
        lines.append(_row(titles))
        for x in s.levels:
            rank = "-" if x.rank is None else f"{x.rank:,}"
            cells = _joined(x.directions), _joined(x.holding), _joined(x.neurons), rank, _joined(x.classes)
            lines.append(_row((f"{x.tolerance:.1g}", *cells, f"{x.dimension:,}", f"{x.distance:.2g}")))
        at = "" if s.rank is None else f"model rank {s.rank:,}; "
        found = f"dimension {s.orbit:,}" if s.orbit is not None else f"dimension at most {s.orbit_upper:,}"
        lines.append(f"  at theta itself: {at}orbit of {found} ({s.orbit_reason})")
        lines += self._series()
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def _series(self) -> list[str]:
        if len(self.snapshots) < 2:
            return []
        shown = [self.snapshots[i] for i in np.unique(np.linspace(0, len(self.snapshots) - 1, 8).astype(int))]
        lines = [f"  over {len(self.snapshots)} checkpoints: effective directions, and classes at the last tolerance"]
        for s in shown:
            parts = (f"{x.effective:.3g} ({x.counts[-1]})" for x in s.layers[:8])
            label = f"{s.label:.6g}" if isinstance(s.label, float) else str(s.label)
            lines.append(f"    {label:>12}: {', '.join(parts)}")
        return lines


def _row(cells: Sequence[str]) -> str:
    widths = (9, 12, 12, 12, 9, 12, 11, 8)
    return "  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(f"{n:,}" for n in numbers[:4]) + (", ..." if len(numbers) > 4 else "")


def _shares(layer: Directions) -> str:
    masses = layer.masses[-1]
    return ", ".join(f"{m:.2f}" for m in np.sort(masses)[::-1][:4]) or "none"


def condensation(
    networks: Network | Sequence[Network],
    *,
    labels: Sequence[str | float] | None = None,
    tolerances: Sequence[float] = (1e-6, 1e-3, 1e-2, 0.1),
    share: float = 0.99,
    frozen: Sequence[str] = (),
    ranks: bool | None = None,
    orbits: bool | None = None,
    seed: int = 0,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Condensation:
    """How far the neurons of each hidden layer have condensed onto few directions, in one network or over time.

    With unit incoming vectors u_i = (w_i, b_i) / |(w_i, b_i)|, amplitudes A_i = |(w_i, b_i)| |v_i| (v_i the outgoing
    weights) and p = A / sum A, the effective number of directions is exp(-sum_k s_k log s_k) over the eigenvalues s_k
    of sum_i p_i u_i u_i^T. It is 1 for one direction (u and -u are the same in it), and at most the number of incoming
    parameters; the number of classes of directions within a tolerance has no such bound.

    Neurons with one direction may differ in length, and then (unless the activation is positively homogeneous) compute
    different functions: `neurons` counts those, `rank` is the model rank once equal ones are made equal exactly. Even
    neurons of one function need not move together: that takes equal outgoing weights too. `classes` counts what does,
    with the dimension of its invariant manifold and the distance of theta from it. At theta itself the dimension of the
    orbit is at most that of the exact classes.

    Args:
        networks: one, or checkpoints of one architecture in the order of time.
        labels: names or times of the checkpoints; 0, 1, ... if None.
        tolerances: growing numbers above 0, at most 1: distances of unit vectors from the mean of their class, and of
            neurons from the mean of theirs over the length of a median neuron (over their own for ReLU).
        share: of the amplitude, for the least number of classes that hold it.
        frozen: names of blocks that are not trained, such as "b2".
        ranks: whether to compute model ranks; None: up to 250 parameters.
        orbits: whether to compute orbit dimensions, not only their upper bounds; None: for one network up to 120.
        seed: of random projections.
        budget: seconds; checkpoints not begun by then are left out, but never the first.
        progress: called with (fraction, text).

    Raises:
        InputError: if there is no network or no hidden layer, architectures differ, labels do not fit, or tolerances
            or the share are out of range.

    Complexity: for each network O(parameters log n + n D min(n, D)); cosine matrices are made when asked for.
    Source: the effective number is the exponential of the von Neumann entropy; arXiv 2510.09564 for the classes.

    >>> rows = [[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, -1.0]]
    >>> net = Network.from_arrays((rows, None), ([[1.0, 0.5, 1.0, 3.0]], None), activation="tanh")
    >>> found = condensation(net, orbits=False)
    >>> found.last.levels[0].directions, round(found.last.layers[0].effective, 3)  # p = 1/8, 1/8, 3/8, 3/8
    ((2,), 1.755)
    """
    several = isinstance(networks, Iterable) and not isinstance(networks, str | Mapping)
    series: list[Any] = list(networks) if several else [networks]  # type: ignore[arg-type]
    names: list[str | float] = list(range(len(series))) if labels is None else _listed(labels)
    _check(series, names, share)
    limits, share = _tolerances(tolerances), as_number(share, "share", above=0, most=1)
    seed = as_count(seed, "seed")
    clock = Budget.of(budget).start()
    free = _trained(series[0], frozen)
    size = sum(_blocks(series[0])[name] for name in free)
    with_ranks = size <= _RANKED if ranks is None else as_switch(ranks, "ranks")
    with_orbits = (len(series) == 1 and size <= _ORBITS) if orbits is None else as_switch(orbits, "orbits")
    snapshots: list[Snapshot] = []
    for k, (net, name) in enumerate(zip(series, names, strict=True)):
        if snapshots and clock.expired:
            break
        if progress is not None:
            progress(k / len(series), f"checkpoint {name}, {k + 1} of {len(series)}")
        layers = tuple(layer_directions(net, j, limits, seed=seed) for j in range(net.depth - 1))
        exact = colour_classes(net)
        levels = _levels(net, layers, exact, free, share, with_ranks, seed)
        top = ceiling(net, free, partition=exact)
        dimension, reason = top.value if top.value == 0 else None, top.reason
        if with_orbits and not net.folded:
            found = orbit(net, frozen=frozen, seed=seed, budget=clock.left)
            if not found.is_lower_bound:
                dimension, reason = found.dimension, "certified" if found.certified else found.rigor.name
        rank = _rank(net, free) if with_ranks else None
        snapshots.append(Snapshot(name, net, layers, levels, rank, dimension, top.value, reason))
    done = len(snapshots) == len(series)
    notes = [] if done else [f"the budget ended after {len(snapshots)} of {len(series)} networks"]
    if series[0].folded:
        notes.append("layers were folded or unrolled from others: numbers about training are those of the chain")
    keys = _theorems(series[0], with_ranks)
    return Condensation(tuple(snapshots), limits, float(share), size, done, tuple(notes), theorems=keys)


def _theorems(net: Network, with_ranks: bool) -> tuple[str, ...]:
    """What holds of the architecture: nothing about training where layers were folded."""
    if net.folded:
        return ()
    keys = ["equitable-sim"]
    keys += ["orbit-invariance"] if all(layer.activation.analytic for layer in net.layers) else []
    return (*keys, *(model_rank(net).theorems if with_ranks else ()))


def _check(series: Sequence[Network], names: Sequence[Any], share: float) -> None:
    if not series:
        raise InputError("condensation needs a network, or a list of the checkpoints of one")
    for net in series:
        require_network(net, "networks")
    if series[0].depth < 2:
        raise InputError(f"{series[0].architecture} has no hidden layer, so no neurons that could condense")
    kinds = {(net.widths, tuple(layer.activation for layer in net.layers)) for net in series}
    if len(kinds) > 1:
        raise InputError("the checkpoints have different architectures; give those of one training run")
    if len(names) != len(series):
        raise InputError(f"{len(names)} labels for {len(series)} networks")


def _listed(labels: Any) -> list[str | float]:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise InputError(f"labels={shown(labels)}; give a list with one for each network")
    return list(labels)


def _tolerances(given: Any) -> tuple[float, ...]:
    try:
        if not isinstance(given, str) and isinstance(given, Iterable):
            return tuple(as_number(v, "a tolerance", above=0, most=1) for v in given)
    except InputError:
        pass
    raise InputError(f"tolerances={shown(given)}; give a list of growing numbers above 0, at most 1")


def _blocks(net: Network) -> dict[str, int]:
    pairs = enumerate(net.layers, start=1)
    return {name: size for k, a in pairs for name, size in ((f"W{k}", a.weight.size), (f"b{k}", a.bias.size))}


def _trained(net: Network, frozen: Sequence[str]) -> tuple[str, ...]:
    blocks = _blocks(net)
    frozen = as_names(frozen, "frozen blocks", blocks)
    return tuple(name for name in blocks if name not in frozen)


def _levels(
    net: Network, layers: Sequence[Directions], exact: tuple[Classes, ...], free: Sequence[str], share: float,
    ranks: bool, seed: int,
) -> tuple[Level, ...]:  # fmt: skip
    out: list[Level] = []
    partition, distance = exact, 0.0
    seen = tuple(c.count for c in exact)
    for j, tolerance in enumerate(layers[0].tolerances):
        partition = near_classes(net, partition, tolerance, seed=seed)
        widths = tuple(c.count for c in partition)
        if widths != seen:  # nested, so that equal counts are equal classes
            seen, distance = widths, partition_distance(net, partition).relative
        same = out and all(np.array_equal(x.twins[j], x.twins[j - 1]) for x in layers)
        rank = None
        if ranks:
            rank = out[-1].rank if same else _rank(_merged(net, layers, j), free)
        counts, unlike = tuple(x.counts[j] for x in layers), tuple(x.neurons[j] for x in layers)
        held = tuple(x.holding(share)[j] for x in layers)
        dimension = trained_dimension(net, partition, set(free))
        out.append(Level(tolerance, counts, held, unlike, rank, widths, dimension, distance))
    return tuple(out)


def _merged(net: Network, layers: Sequence[Directions], level: int) -> Network:
    """The network with twins made equal, up to the sign or length that the activation forgives."""
    out = list(net.layers)
    for k, found in enumerate(layers):
        labels, layer = found.twins[level], net.layers[k]
        rows = np.column_stack([rationals.nearest_floats(layer.weight), rationals.nearest_floats(layer.bias)])
        scale: npt.NDArray[np.float64] = np.ones(len(rows))
        if multiples(layer.activation).scale:  # powers of two keep multiples exact, and lengths do not change ranks
            lengths = np.linalg.norm(rows, axis=1)
            scale = np.exp2(np.round(np.log2(np.where(lengths > 0, lengths, 1.0))))
        for label in range(-1, found.neurons[level]):
            at = np.flatnonzero(labels == label)
            if label < 0 or not at.size:
                rows[at] = 0.0
            elif at.size > 1:
                leader = rows[at[np.linalg.norm(rows[at], axis=1).argmax()]]
                signs = np.where(rows[at] @ leader < 0, -1.0, 1.0) * scale[at] if found.folded else scale[at]
                mean = (rows[at] / signs[:, None]).mean(axis=0)
                rows[at] = signs[:, None] * mean
        out[k] = replace(layer, weight=rows[:, :-1].copy(), bias=rows[:, -1].copy())
    return net.with_layers(out)


def _rank(net: Network, free: Sequence[str]) -> int | None:
    """Model rank in the trained blocks; None where those are not all weights, and all or no hidden biases."""
    hidden = {f"b{k}" in free for k in range(1, net.depth)}
    if len(hidden) > 1 or not all(f"W{k}" in free for k in range(1, net.depth + 1)) or net.folded:
        return None
    return model_rank(net, bias=hidden.pop(), output_bias=f"b{net.depth}" in free).rank
