"""What an inspection found: frozen data, the one-screen report, and the data for JSON and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fiberscope.domains import Box
from fiberscope.inspection.documents import PHRASES, document
from fiberscope.invariants import SmallestSIM
from fiberscope.network import Network
from fiberscope.reduction import Reduction
from fiberscope.results import Result, Rigor, jsonable
from fiberscope.symmetries import FiberDimension


@dataclass(frozen=True)
class Finding:
    """One plain sentence with its rigor; `level` is redundant, caution or note."""

    text: str
    rigor: Rigor
    level: str = "note"
    layer: int | None = None


@dataclass(frozen=True)
class Applies:
    """Whether a theorem applies to this network, and which hypothesis fails if not."""

    theorem: str
    name: str
    applies: bool
    reason: str


@dataclass(frozen=True)
class LayerRow:
    """One hidden layer: widths, what was removed from it and how its neurons behave on the domain."""

    layer: int
    name: str
    activation: str
    width: int
    effective: int
    removed: dict[str, int]
    active: int
    inactive: int
    unstable: int


@dataclass(frozen=True, eq=False)
class Balance:
    """Values of |w_i|^2 + b_i^2 - d |v_i|^2, constant under gradient flow, d the degree of the activation."""

    layer: int
    values: tuple[float, ...]
    degree: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data with at most 512 values, evenly chosen by rank."""
        ordered = np.sort(np.array(self.values))
        shown = ordered[np.linspace(0, ordered.size - 1, min(512, ordered.size)).astype(int)]
        middle = float(np.median(ordered))
        factor = "" if self.degree == 1 else f"{self.degree} "
        data = {
            "layer": self.layer, "law": f"|w_i|^2 + b_i^2 - {factor}|v_i|^2", "min": ordered[0], "median": middle,
            "max": ordered[-1], "count": int(ordered.size), "values": shown, "rigor": "NUMERICAL",
        }  # fmt: skip
        return {key: jsonable(value) for key, value in data.items()}


@dataclass(frozen=True, eq=False)
class Inspection(Result):
    """What `inspect` found; `str()` fits one screen, `to_dict()` has everything.

    Args:
        network: the network.
        domain: where statements about the function hold.
        reduction: the lossless reduction behind the counts.
        sim: the smallest known invariant manifold, or None with `sim_refused`.
        sim_refused: why training statements do not apply.
        fiber: dimension of the set of parameters of this function.
        scope: which theorems apply, and which hypothesis fails.
        layers: one row per hidden layer.
        balance: values of the balancedness laws, per layer, where the activation has them.
        balance_note: why there are none.
        findings: plain sentences, most useful first.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "reduction", "sim", "layers"})

    network: Network
    domain: Box
    reduction: Reduction
    sim: SmallestSIM | None
    sim_refused: str
    fiber: FiberDimension
    scope: tuple[Applies, ...]
    layers: tuple[LayerRow, ...]
    balance: tuple[Balance, ...]
    balance_note: str
    findings: tuple[Finding, ...]
    skipped: tuple[dict[str, str], ...] = ()
    theorems: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    wall_s: float = 0.0

    @property
    def redundant(self) -> bool:
        """Whether any hidden neuron can be removed without changing the function on the domain."""
        return self.reduction.saved > 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; the page of `report` uses only this."""
        return document(self)

    def __str__(self) -> str:
        """One screen: header, a table of layers, manifold, fiber, findings."""
        net = self.network
        own = net.source.parameter_count if net.source is not None else net.parameter_count
        count = f"{net.parameter_count} parameters"
        if own != net.parameter_count:
            count = f"{own} parameters in the file and {net.parameter_count} in the chain"
        lines = [f"{net.architecture}, {count}, on {self.domain}"]
        lines += _layer_table(self.layers)
        if self.sim is None:
            lines.append("training: not stated, for a reason that is among the findings")
        else:
            small, all_of = self.sim.dimension, self.sim.ambient
            confined = f"confined to an invariant manifold of dimension {small} of {all_of} (EXACT)"
            free = f"no known manifold confines it ({small} of {all_of} dimensions, EXACT)"
            lines.append(f"training: {confined if small < all_of else free}")
        lines.append(f"fiber, all parameters with this function: {_dimension(self.fiber)}")
        lines.append("findings:")
        lines += [f"  [{f.rigor.name}] {f.text}" for f in self.findings[:10]]
        if len(self.findings) > 10:
            lines.append(f"  and {len(self.findings) - 10} more in --json or --html")
        return "\n".join(lines)


def _dimension(fiber: FiberDimension) -> str:
    """The bound and, where a theorem gives it, the value."""
    if fiber.exact is None:
        return f"dimension at least {fiber.lower_bound} (EXACT)"
    if fiber.rigor is Rigor.EXACT:
        return f"dimension {fiber.exact} (EXACT)"
    return f"dimension at least {fiber.lower_bound} (EXACT), exactly {fiber.exact} for generic parameters (GENERIC)"


def _layer_table(rows: Sequence[LayerRow]) -> list[str]:
    if not rows:
        return ["  no hidden layer: one affine map"]
    kinds = [kind for kind in PHRASES if any(kind in row.removed for row in rows)]
    head = ["layer", "activation", "width", "effective", *(k.replace("_", " ") for k in kinds), "active", "inactive"]
    table = [head]
    for row in rows[:16]:
        cells = [str(row.removed.get(k, 0)) for k in kinds]
        table.append(
            [
                row.name[:24],
                row.activation,
                str(row.width),
                str(row.effective),
                *cells,
                str(row.active),
                str(row.inactive),
            ]
        )
    sizes = [max(len(line[c]) for line in table) for c in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(n) if c < 2 else cell.rjust(n) for c, (cell, n) in enumerate(zip(line, sizes, strict=True))
        )
        for line in table
    ]
    if len(rows) > 16:
        lines.append(f"  and {len(rows) - 16} more layers")
    return ["  " + line for line in lines]
