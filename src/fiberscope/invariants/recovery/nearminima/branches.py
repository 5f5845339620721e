"""Where a network lies among the branches of exact fits of a target: classes of neurons, and the distance to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_number
from fiberscope.errors import InputError
from fiberscope.invariants.classes.nearby import rounding_tolerances
from fiberscope.invariants.recovery.nearminima.partitions import Block, Cloud, best_partitions, close_partition
from fiberscope.invariants.recovery.nearminima.table import independent, require_strata
from fiberscope.network import Network, require_network
from fiberscope.results import Result, Rigor

ExactArray = npt.NDArray[Any]

_ZERO = Fraction(0)
_WIDEST = 12
"""Widths up to which all branches are compared; beyond, classes are merged greedily."""
_LIMIT = 256
"""Widths up to which that is done."""


@dataclass(frozen=True)
class BranchFit:
    """The branch with r classes nearest to a network, or the nearest that was found.

    Args:
        r: number of classes of neurons that read something.
        classes: their neurons.
        targets: the target neuron that each class is named for, None for the others.
        signs: of the neurons of each class relative to its w (all 1 unless the activation has a parity).
        null: neurons with w = 0.
        dimension: of the branch.
        distance: from it in parameters; 0.0 exactly if it lies on it.
        squared: the exact square of the distance, of the rationals that the weights are.
    """

    r: int
    classes: tuple[tuple[int, ...], ...]
    targets: tuple[int | None, ...]
    signs: tuple[tuple[int, ...], ...]
    null: tuple[int, ...]
    dimension: int
    distance: float
    squared: Fraction

    @property
    def deficient(self) -> tuple[int, ...]:
        """Neurons that are alone in an unnamed class."""
        pairs = zip(self.classes, self.targets, strict=True)
        return tuple(c[0] for c, t in pairs if t is None and len(c) == 1)


@dataclass(frozen=True, eq=False)
class Location(Result):
    """A network among the branches Q^r of exact fits of a target.

    Args:
        fits: the nearest branch for each r for which one exists.
        best: index of the nearest; among branches that are equally near up to `tolerance`, the one with fewest classes.
        level: "exact" if the network lies on it, "numerical" if rounding of its dtype explains how far every entry is
            off by that entry's own size, "approximate" if it is within the tolerance given, "off" otherwise.
        tolerance: the distance that counts as none.
        norm: |theta|, of the weights that branches constrain.
        output_gap: |b - b*| of the output biases, part of every distance.
        optimal: whether all branches were compared, up to rounding in their comparison.
        rigor: EXACT for a network on a branch: it computes the target's function; else NUMERICAL.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "target"})

    network: Network
    target: Network
    fits: tuple[BranchFit, ...]
    best: int
    level: str
    tolerance: float
    norm: float
    output_gap: float
    optimal: bool
    rigor: Rigor
    theorems: tuple[str, ...] = ()

    @property
    def fit(self) -> BranchFit:
        """The nearest branch."""
        return self.fits[self.best]

    @property
    def same_function(self) -> bool:
        """Whether the network lies on a branch, exactly; True proves that it computes the target's function."""
        return self.fit.squared == 0

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of equal length."""
        names = ("r", "dimension", "distance")
        out = {name: [getattr(f, name) for f in self.fits] for name in names}
        out["deficient"] = [len(f.deficient) for f in self.fits]
        out["null"] = [len(f.null) for f in self.fits]
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; exact squares only where they are short, classes of all branches only up to 12 neurons."""
        out = super().to_dict()
        for k, (row, fit) in enumerate(zip(out["fits"], self.fits, strict=True)):
            row["deficient"] = list(fit.deficient)
            row["squared"] = str(fit.squared) if fit.squared.denominator < 10**12 else None
            if not self.optimal and k != self.best:
                row.update(classes=None, targets=None, signs=None, deficient=None)
        out["same_function"] = self.same_function
        return out

    def __str__(self) -> str:
        """One screen."""
        fit = self.fit
        where = {
            "exact": "lies on a branch, so it computes the target's function",
            "numerical": "lies on a branch up to rounding",
            "approximate": "lies on a branch up to the tolerance",
            "off": "lies on no branch",
        }[self.level]
        lines = [
            f"the network {where} ({self.rigor.name})",
            f"  nearest branch: r = {fit.r} classes, dimension {fit.dimension}, distance {fit.distance:.3g} "
            f"({fit.distance / self.norm if self.norm else 0.0:.2g} of |theta|), {len(fit.deficient)} deficient",
        ]
        for block, target in list(zip(fit.classes, fit.targets, strict=True))[:12]:
            name = "unnamed" if target is None else f"target neuron {target}"
            lines.append(f"    {{{','.join(map(str, block))}}}: {name}")
        if fit.null:
            lines.append(f"    null: {', '.join(map(str, fit.null))}")
        lines.append("  distance by r: " + ", ".join(f"{f.r}: {f.distance:.2g}" for f in self.fits[:16]))
        if not self.optimal:
            lines.append(f"  wider than {_WIDEST} neurons: classes were merged greedily, so distances are upper bounds")
        return "\n".join(lines)


def locate(net: Network, target: Network, *, tolerance: float | None = None) -> Location:
    """Find the branch of exact fits of a target that a two-layer network lies on, or is nearest to, for every r.

    The distance from Q_(P, pi) is closed form: named classes give |w - w*|^2 for each neuron and
    |sum a - a*|^2 / size, the others the spread of w and |sum a|^2 / size. Up to 12 neurons all branches are compared,
    wider networks merge classes greedily. Membership is decided over Q.

    Args:
        net: a two-layer network; any number of outputs.
        target: a two-layer network of the same inputs, outputs and activation, no wider, whose neurons differ.
        tolerance: relative to |theta|: how near counts as on; None: only rounding of the network's dtype.

    Raises:
        InputError: if the networks do not fit, or the target has neurons that can be merged or left out.
        ScopeError: for activations that are not analytic, or polynomials.

    Complexity: O(m m0 3^m) up to 12 neurons, O(m^3 d) beyond. Source: arXiv 2309.00508, proposition 3.2.

    >>> target = Network.from_arrays(([[1.0, 2.0]], None), ([[3.0]], None), activation="tanh")
    >>> net = Network.from_arrays(([[1.0, 2.0], [-1.0, -2.0]], None), ([[1.0, -2.0]], None), activation="tanh")
    >>> found = locate(net, target)
    >>> found.level, found.fit.r, found.fit.classes, found.fit.signs
    ('exact', 1, ((0, 1),), ((1, -1),))
    """
    require_network(net)
    require_network(target, "target")
    cloud, exact = _cloud(net, target)
    norm = math.sqrt(float((cloud.rows**2).sum() + (cloud.out**2).sum()))
    grain = rounding_tolerances(net)[0]
    tolerance = None if tolerance is None else as_number(tolerance, "tolerance", least=0)
    share = grain * math.sqrt(len(cloud.rows))
    rounding, wide = share * max(norm, 1e-300), 0.0 if tolerance is None else tolerance * norm
    near = max(rounding, wide)
    radius = max(share * max(float(np.linalg.norm(cloud.rows)), 1e-300), wide)
    optimal = len(cloud.rows) <= _WIDEST
    partitions = {len(blocks): (blocks, null) for blocks, null in best_partitions(cloud, optimal)}
    for member in (close_partition(cloud, 2.0 * radius), _coincidences(cloud, exact)):
        if member is not None:
            old = partitions.get(len(member[0]), member)
            partitions[len(member[0])] = min(old, member, key=lambda p: _squared(exact, cloud, *p))
    fits = tuple(_fit(exact, cloud, *partitions[r]) for r in sorted(partitions))
    on = [k for k, f in enumerate(fits) if f.squared == 0]
    rounded = [k for k, f in enumerate(fits) if f.distance <= rounding and _is_rounding(exact, cloud, f, grain)]
    close = [k for k, f in enumerate(fits) if f.distance <= wide] if wide else []
    if on:
        best, level = on[0], "exact"
    elif rounded or close:
        best = min(rounded + close)
        level = "numerical" if best in rounded else "approximate"
    else:
        best, level = min(range(len(fits)), key=lambda k: (fits[k].distance, fits[k].r)), "off"
    return Location(
        net, target, fits, best, level, near, norm, math.sqrt(float(exact.gap)), optimal,
        Rigor.EXACT if on else Rigor.NUMERICAL,
        ("near-minima",) if independent(target.layers[0].activation, bias=True) else (),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Exact:
    """The same numbers as Fractions."""

    rows: ExactArray
    out: ExactArray
    targets: ExactArray
    wanted: ExactArray
    gap: Fraction
    level: float
    reads: int


def _cloud(net: Network, target: Network) -> tuple[Cloud, _Exact]:
    for name, one in (("network", net), ("target", target)):
        if one.depth != 2 or one.layers[-1].activation.name != "identity":
            raise InputError(f"the {name} is {one.architecture}; branches are those of two affine layers")
    if (net.widths[0], net.widths[-1]) != (target.widths[0], target.widths[-1]):
        raise InputError(f"widths {net.widths} and {target.widths} have other inputs or outputs")
    if net.activation != target.activation:
        raise InputError("the network and its target have different activations")
    row = net.layers[0].activation
    require_strata(row)
    if net.widths[1] < target.widths[1]:
        raise InputError(f"{net.widths[1]} neurons for a target of {target.widths[1]}; give at least as many")
    if net.widths[1] > _LIMIT:
        raise InputError(f"{net.widths[1]} neurons; branches are searched up to {_LIMIT}: reduce the network first")
    rows, targets = (_read(f.layers[0].weight, f.layers[0].bias) for f in (net, target))
    out, wanted = (rationals.fractions(f.layers[1].weight).T for f in (net, target))
    last = rationals.fractions(net.layers[1].bias) - rationals.fractions(target.layers[1].bias)
    level = max(float(abs(q)) for f in (net, target) for q in rationals.fractions(f.layers[1].bias))
    biased = any((f.layers[0].bias != 0).any() for f in (net, target))
    exact = _Exact(rows, out, targets, wanted, sum((q * q for q in last), _ZERO), level, net.widths[0] + biased)
    silent = row.value(_ZERO) == 0
    _require_lean(targets, wanted, row.parity is not None, silent)
    points, sent, goals, wished = (a.astype(np.float64) for a in (rows, out, targets, wanted))
    return Cloud(
        points, sent, goals, wished, signs=row.parity is not None, even=row.parity == "even", silent=silent
    ), exact


def _read(weight: ExactArray, bias: ExactArray) -> ExactArray:
    return np.concatenate([rationals.fractions(weight), rationals.fractions(bias)[:, None]], axis=1)


def _require_lean(targets: ExactArray, wanted: ExactArray, signs: bool, silent: bool) -> None:
    """Refuse targets whose neurons coincide or do nothing."""
    seen: set[tuple[Fraction, ...]] = set()
    for k, (row, out) in enumerate(zip(targets.tolist(), wanted.tolist(), strict=True)):
        key = _turned(row)[0] if signs else tuple(row)
        if key in seen or not any(out) or (silent and not any(row)):
            raise InputError(f"target neuron {k} can be merged or left out; reduce the target first")
        seen.add(key)


def _turned(row: Sequence[Fraction]) -> tuple[tuple[Fraction, ...], int]:
    """A row with its first nonzero entry positive, and the sign that was taken."""
    sign = next((1 if q > 0 else -1 for q in row if q), 1)
    return tuple(sign * q for q in row), sign


def _coincidences(cloud: Cloud, exact: _Exact) -> tuple[tuple[Block, ...], tuple[int, ...]] | None:
    """The coarsest branch that contains the network over Q, or None: neurons with equal w, named by equality."""
    names: dict[tuple[Fraction, ...], tuple[int | None, int]] = {}
    for t, row in enumerate(exact.targets.tolist()):
        key, sign = _turned(row) if cloud.signs else (tuple(row), 1)
        names[key] = t, sign
    groups: dict[tuple[Fraction, ...], list[tuple[int, int]]] = {key: [] for key in names}
    null = []
    for k, row in enumerate(exact.rows.tolist()):
        if cloud.silent and not any(row):
            null.append(k)
            continue
        key, sign = _turned(row) if cloud.signs else (tuple(row), 1)
        groups.setdefault(key, []).append((k, sign))
    blocks = []
    for key, members in groups.items():
        target, turn = names.get(key, (None, members[0][1] if members else 1))
        if not members:
            return None
        blocks.append(Block(tuple(k for k, _ in members), tuple(turn * s for _, s in members), target))
    found = tuple(blocks), tuple(null)
    return found if _squared(exact, cloud, *found) == 0 else None


def _squared(exact: _Exact, cloud: Cloud, blocks: Sequence[Block], null: Sequence[int]) -> Fraction:
    """The exact squared distance from the branch of a partition."""
    total = exact.gap + sum((q * q for q in exact.rows[list(null)].reshape(-1)), _ZERO)
    for block in blocks:
        off, sums = _misses(exact, cloud, block)
        total += sum((q * q for q in off.reshape(-1)), _ZERO) + sum((q * q for q in sums), _ZERO) / len(off)
    return total


def _misses(exact: _Exact, cloud: Cloud, block: Block) -> tuple[ExactArray, ExactArray]:
    """(members, d) what the rows of a class are off, with their signs, and (q,) what its outgoing sums are."""
    members, signs = list(block.members), np.array([Fraction(s) for s in block.signs], dtype=object)
    rows = exact.rows[members] * signs[:, None]
    sums = (exact.out[members] * (1 if cloud.even else signs[:, None])).sum(axis=0)
    if block.target is None:
        return rows - rows.sum(axis=0) / Fraction(len(members)), sums
    return rows - exact.targets[block.target], sums - exact.wanted[block.target]


def _is_rounding(exact: _Exact, cloud: Cloud, fit: BranchFit, grain: float) -> bool:
    """Whether every entry is off by no more than rounding of its own size.

    Zeros count as the least entry of the target. A null neuron must send no more than rounding of what the target does.
    """
    least, small = (float(np.abs(v[v != 0]).min()) if v.any() else 0.0 for v in (cloud.targets, cloud.wanted))
    if math.sqrt(float(exact.gap)) > grain * max(exact.level, small):
        return False
    for block in map(Block, fit.classes, fit.signs, fit.targets):
        off, sums = (np.abs(v.astype(np.float64)) for v in _misses(exact, cloud, block))
        members = list(block.members)
        if (off > grain * np.maximum(np.abs(cloud.rows[members]), least)).any():
            return False
        if (sums > grain * np.maximum(np.abs(cloud.out[members]).sum(axis=0), small)).any():
            return False
    rows, out = (np.linalg.norm(v[list(fit.null)], axis=1) for v in (cloud.rows, cloud.out))
    return bool((rows <= grain * least).all() and (rows * out <= grain * least * small).all())


def _fit(exact: _Exact, cloud: Cloud, blocks: Sequence[Block], null: Sequence[int]) -> BranchFit:
    squared = _squared(exact, cloud, blocks, null)
    order = sorted(blocks, key=lambda b: (b.target is None, b.target or 0, b.members))
    m, r, outputs = len(exact.rows), len(blocks), exact.out.shape[1]
    dimension = outputs * (m - r) + (r - len(exact.targets)) * exact.reads
    return BranchFit(
        r, tuple(b.members for b in order), tuple(b.target for b in order), tuple(b.signs for b in order), tuple(null),
        dimension, math.sqrt(float(squared)), squared,
    )  # fmt: skip
