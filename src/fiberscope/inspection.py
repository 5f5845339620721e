"""Inspection: everything that applies to one network, with how each number was obtained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fiberscope.bounds import preactivation_bounds
from fiberscope.domains import Box
from fiberscope.errors import ScopeError
from fiberscope.invariants import SmallestSIM, smallest_sim
from fiberscope.network import Layer, Network
from fiberscope.reduction import Reduction, reduce
from fiberscope.results import Budget, Progress, Result, Rigor, Stopwatch, jsonable, outward
from fiberscope.symmetries import FiberDimension, fiber_dimension
from fiberscope.theorems import theorem

_LISTED = 64
"""Classes of single neurons are listed only in layers up to this width."""
_PREVIEW = 16
"""Weights are part of the data only if every width is at most this."""

_PHRASES = {
    "dead": "output zero for every input",
    "constant": "constant output",
    "zero_output": "no outgoing weight, or none left once equal neurons are merged",
    "duplicate": "equal to another neuron",
    "sign_duplicate": "equal to another neuron up to sign",
    "proportional": "a multiple of another neuron",
    "linear": "superfluous in a block of always-linear neurons of lower rank",
    "near_duplicate": "nearly a multiple of another neuron",
}


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
        sim: dict[str, Any] = {"refused": self.sim_refused} if self.sim is None else self.sim.summary()
        lattice = sim.pop("lattice", None)
        return {
            "network": _network_dict(self.network),
            "domain": {**self.domain.to_dict(), "text": str(self.domain)},
            "tiles": _tiles(self),
            "scope": [vars(row) for row in self.scope],
            "layers": [
                {**{k: v for k, v in vars(row).items() if k != "removed"}, **_all_kinds(row.removed)}
                for row in self.layers
            ],
            "classes": _classes(self.network, self.reduction),
            "sim": sim,
            "lattice": lattice,
            "fiber": _fiber_dict(self.fiber),
            "balance": [row.to_dict() for row in self.balance],
            "balance_note": self.balance_note,
            "findings": [
                {"text": f.text, "rigor": f.rigor.name, "level": f.level, "layer": f.layer} for f in self.findings
            ],
            "reduction": self.reduction.to_dict(),
            "weights_preview": _preview(self.network),
            "assumes": [vars(h) for h in self.fiber.hypotheses],
            "skipped": list(self.skipped),
            "theorems": list(self.theorems),
            "limits": list(self.limits),
            "wall_s": self.wall_s,
        }  # fmt: skip

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
            lines.append(f"training: not stated; {self.sim_refused}")
        else:
            lines.append(
                f"training: invariant manifold of dimension {self.sim.dimension} of {self.sim.ambient} (EXACT)"
            )
        exact = "" if self.fiber.exact is None else f", exactly {self.fiber.exact} for generic parameters (GENERIC)"
        lines.append(f"fiber: dimension at least {self.fiber.lower_bound} (EXACT){exact}")
        lines.append("findings:")
        lines += [f"  [{f.rigor.name}] {f.text}" for f in self.findings[:10]]
        if len(self.findings) > 10:
            lines.append(f"  and {len(self.findings) - 10} more in --json or --html")
        return "\n".join(lines)


def inspect(
    net: Network,
    domain: Box | str | None = None,
    *,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Tell what is redundant in a network, what its architecture lets training do, and which theorems apply.

    Args:
        net: the network.
        domain: inputs on which the function matters (`Box`, text as in `Box.parse`, "file"); all real ones by default.
        budget: seconds; what was proved by then is returned.
        progress: called with (fraction or None, text).

    Returns:
        An `Inspection`; all counts of removable neurons come from a reduction whose certificate was checked.

    Raises:
        InputError: if the domain does not fit the network.

    Complexity: that of `reduce`, plus one colour refinement. Sources: arXiv 2510.09564, arXiv 2605.18319.

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    >>> inspect(net).redundant
    True
    """
    begin = time.perf_counter()
    clock = Budget.of(budget).start()
    reduction = reduce(net, domain, budget=budget, progress=progress)
    sim, refused = None, ""
    try:
        sim = smallest_sim(net)
    except ScopeError as exc:
        refused = str(exc)
    fiber = fiber_dimension(net)
    balance, note = _balances(net)
    layers = _layer_rows(net, reduction, clock)
    used = [*reduction.theorems, *(sim.theorems if sim else ())]
    used += ["permutation-scaling"] if fiber.lower_bound else []
    used += [fiber.theorem] if fiber.exact is not None else []
    used += ["scaling-balance"] if balance else []
    return Inspection(
        network=net, domain=reduction.domain, reduction=reduction, sim=sim, sim_refused=refused, fiber=fiber,
        scope=_scope(net, sim, fiber, bool(balance)), layers=layers, balance=balance, balance_note=note,
        findings=_findings(net, reduction, sim, refused, fiber, layers), theorems=tuple(dict.fromkeys(used)),
        skipped=_skipped(net), limits=reduction.limits, wall_s=time.perf_counter() - begin,
    )  # fmt: skip


def _layer_rows(net: Network, reduction: Reduction, clock: Stopwatch) -> tuple[LayerRow, ...]:
    rows = []
    box = reduction.domain
    bounds = preactivation_bounds(net, box, method="backward" if box.bounded and not clock.expired else "interval")
    for change, layer, low, high in zip(reduction.layers, net.hidden, bounds.lower, bounds.upper, strict=False):
        active, inactive = _stability(layer, low, high)
        rows.append(LayerRow(
            change.layer, layer.name, layer.activation.label, change.before, change.after, dict(change.removed),
            active, inactive, layer.n_out - active - inactive,
        ))  # fmt: skip
    return tuple(rows)


def _stability(layer: Layer, low: Any, high: Any) -> tuple[int, int]:
    pieces = [layer.activation.piece_on(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    active = sum(p is not None and p.slope != 0 for p in pieces)
    return active, sum(p is not None and p.slope == 0 for p in pieces)


def _balances(net: Network) -> tuple[tuple[Balance, ...], str]:
    if net.folded:
        return (), "balancedness is about the parameters that are trained; this chain was folded from others"
    out, without = [], []
    for k, (layer, above) in enumerate(zip(net.layers, net.layers[1:], strict=False)):
        degree = layer.activation.homogeneity
        if degree is None:
            without.append(layer.activation.label)
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # inf and NaN say that float64 cannot hold the value
            inside = (layer.weight64**2).sum(axis=1) + layer.bias64**2
            values = inside - degree * (above.weight64**2).sum(axis=0)
        out.append(Balance(k, tuple(values.tolist()), degree))
    names = ", ".join(dict.fromkeys(without))
    return tuple(out), f"{names} has no such law: it is not positively homogeneous" if without else ""


def _scope(net: Network, sim: SmallestSIM | None, fiber: FiberDimension, balanced: bool) -> tuple[Applies, ...]:
    rows = [
        ("lossless-moves", True, "every chain of affine maps and elementwise activations"),
        ("equitable-sim", sim is not None, "every chain" if sim else "layers were folded or unrolled"),
        ("two-layer-sims", sim is not None and sim.complete, _two_layer_reason(net)),
        ("scaling-balance", balanced, _balance_reason(net, balanced)),
    ]
    key = fiber.theorem or "relu-fiber-dimension"
    failing = next((h.statement for h in fiber.hypotheses if h.checked and h.holds is False), "")
    rows.append((key, fiber.exact is not None, f"fails: {failing}" if failing else "hypotheses checked"))
    return tuple(Applies(key, theorem(key).name, ok, reason) for key, ok, reason in rows)


def _balance_reason(net: Network, balanced: bool) -> str:
    if balanced:
        return "positively homogeneous activation"
    return "layers were folded or unrolled" if net.folded else "fails: a positively homogeneous activation"


def _two_layer_reason(net: Network) -> str:
    if net.depth != 2:
        return f"fails: two layers (found {net.depth})"
    return f"activation {net.layers[0].activation.label}"


def _skipped(net: Network) -> tuple[dict[str, str], ...]:
    if net.head is None:
        return ()
    return ({"layer": net.head, "reason": "output head: analysed on the logits"},)


def _findings(
    net: Network, reduction: Reduction, sim: SmallestSIM | None, refused: str, fiber: FiberDimension,
    layers: Sequence[LayerRow],
) -> tuple[Finding, ...]:  # fmt: skip
    out: list[Finding] = []
    before, after = net.hidden_count, reduction.network.hidden_count
    rigor = Rigor.EXACT if all(r.rigor == "EXACT" for r in reduction.removed) else Rigor.INTERVAL
    late = any("time" in text for text in reduction.limits)
    if before > after:
        text = f"{before - after} of {before} hidden neurons can be removed without changing the function on "
        text += str(reduction.domain)
        out.append(Finding(text, rigor, "redundant"))
    else:
        text = f"no redundant neuron was found among {before} on {reduction.domain} by the rules tried"
        out.append(Finding(text + (" in the time given" if late else ""), Rigor.NUMERICAL if late else rigor))
    if not np.asarray(reduction.exact.layers[-1].weight != 0, dtype=bool).any():
        text = f"the function is constant on {reduction.domain}; a hidden layer keeps one neuron because files need it"
        out.append(Finding(text, rigor, "redundant"))
    for row in reduction.removed:
        where = "everywhere" if row.scope == "everywhere" else f"on {reduction.domain}"
        out.append(
            Finding(
                f"{row.count} {'neuron' if row.count == 1 else 'neurons'}: {_PHRASES[row.kind]} ({where})",
                Rigor[row.rigor],
                "redundant",
            )
        )
    if reduction.rounding.kind == "rounded":
        out.append(Finding(f"the reduced weights are {reduction.rounding}", Rigor.INTERVAL, "caution"))
    if sim is not None and sim.dimension < sim.ambient:
        out.append(Finding(sim.meaning, Rigor.EXACT, "caution"))
    elif sim is not None:
        out.append(Finding(sim.meaning, Rigor.EXACT))
    else:
        out.append(Finding(f"training statements are refused: {refused}", Rigor.EXACT))
    if fiber.exact is not None:
        out.append(
            Finding(
                f"the parameters of this function form a set of dimension {fiber.exact} near these ({fiber.formula})",
                Rigor.GENERIC,
            )
        )
    stable = sum(r.active + r.inactive for r in layers)
    if stable:
        out.append(
            Finding(
                f"{stable} of {before} hidden neurons stay in one linear piece on {reduction.domain}", Rigor.INTERVAL
            )
        )
    for text in reduction.limits:
        out.append(Finding(text, rigor, "caution"))
    return tuple(out)


# ---- data for JSON and the page


def _all_kinds(removed: dict[str, int]) -> dict[str, int]:
    return {kind: removed.get(kind, 0) for kind in _PHRASES}


def _network_dict(net: Network) -> dict[str, Any]:
    source = net.source
    layers = [
        {"index": k, "name": row.name, "n_in": row.n_in, "n_out": row.n_out, "activation": row.activation.label,
         "weight_name": row.weight_name, "bias_name": row.bias_name, "folded": list(row.folded)}
        for k, row in enumerate(net.layers)
    ]  # fmt: skip
    return {
        "path": source.path if source else "", "format": source.format if source else "memory",
        "sha256": source.sha256 if source else None, "dtype": net.dtype.name, "architecture": net.architecture,
        "widths": list(net.widths), "head": net.head, "part": source.part if source else None,
        "parameters_file": source.parameter_count if source else net.parameter_count,
        "parameters_chain": net.parameter_count, "layers": layers, "notes": list(source.notes) if source else [],
    }  # fmt: skip


def _tiles(found: Inspection) -> list[dict[str, str]]:
    reduction = found.reduction
    hidden = [" + ".join(map(str, w[1:-1])) or "0" for w in (found.network.widths, reduction.network.widths)]
    rigor = "EXACT" if all(r.rigor == "EXACT" for r in reduction.removed) else "INTERVAL"
    tiles = [{
        "title": hidden[0] if hidden[0] == hidden[1] else f"{hidden[0]} → {hidden[1]}",
        "text": "hidden neurons that matter", "rigor": rigor,
    }]  # fmt: skip
    if reduction.rounding.kind == "exact":
        tiles.append(
            {
                "title": "lossless",
                "text": f"the reduced {reduction.rounding.dtype} file keeps every output",
                "rigor": rigor,
            }
        )
    else:
        rounding = reduction.rounding
        constant, slope = (outward(v, up=True, digits=2) for v in (rounding.constant, rounding.slope))
        bound = f"≤ {constant}" + (f" + {slope}·max|x|" if rounding.slope else "")
        tiles.append(
            {"title": bound, "text": f"largest change by rounding to {reduction.rounding.dtype}", "rigor": "INTERVAL"}
        )
    if found.sim is None:
        tiles.append({"title": "—", "text": "training statements do not apply to folded layers", "rigor": "EXACT"})
    else:
        tiles.append(
            {
                "title": f"{found.sim.dimension} of {found.sim.ambient}",
                "text": "dimensions training can move in (smallest known manifold)",
                "rigor": "EXACT",
            }
        )
    if found.fiber.exact is not None:
        tiles.append(
            {
                "title": str(found.fiber.exact),
                "text": "dimension of the fiber: all parameters of this function",
                "rigor": "GENERIC",
            }
        )
    else:
        tiles.append(
            {
                "title": f"≥ {found.fiber.lower_bound}",
                "text": "dimension of the fiber: all parameters of this function",
                "rigor": "EXACT",
            }
        )
    return tiles


def _fiber_dict(fiber: FiberDimension) -> dict[str, Any]:
    text = "positive scalings of homogeneous neurons" if fiber.lower_bound else "no continuous scaling symmetry"
    return {
        "lower_bound": {"value": fiber.lower_bound, "rigor": "EXACT", "text": text},
        "exact": None if fiber.exact is None else {"value": fiber.exact, "rigor": "GENERIC", "text": fiber.formula},
        "hypotheses": [vars(h) for h in fiber.hypotheses], "theorem": fiber.theorem,
    }  # fmt: skip


def _classes(net: Network, reduction: Reduction) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for layer, rows in enumerate(reduction.neuron_map):
        letter = 0
        for row in rows:
            if not row["old"]:
                continue
            if row["how"] == "kept" and net.hidden[layer].n_out > _LISTED:
                continue
            label = "-"
            if row["how"] in ("kept", "merged", "linear"):
                label, letter = _letters(letter), letter + 1
            out.append({
                "layer": layer, "label": label, "kind": {"kept": "single"}.get(row["how"], row["how"]),
                "members": row["old"], "factors": row.get("factors", []), "new": row["new"],
            })  # fmt: skip
    return out


def _letters(k: int) -> str:
    text = ""
    while True:
        text = chr(65 + k % 26) + text
        k = k // 26 - 1
        if k < 0:
            return text


def _preview(net: Network) -> dict[str, Any] | None:
    if max(net.widths) > _PREVIEW:
        return None
    return {"layers": [layer.weight64.tolist() for layer in net.layers]}


def _layer_table(rows: Sequence[LayerRow]) -> list[str]:
    kinds = [kind for kind in _PHRASES if any(kind in row.removed for row in rows)]
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
