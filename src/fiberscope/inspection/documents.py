"""The data of an inspection, ready for JSON; the page is made of this alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiberscope.network import Network
from fiberscope.reduction import Reduction
from fiberscope.results import outward
from fiberscope.symmetries import FiberDimension

if TYPE_CHECKING:
    from fiberscope.inspection.results import Inspection

_LISTED = 64
"""Classes of single neurons are listed only in layers up to this width."""
_PREVIEW = 16
"""Weights are part of the data only if every width is at most this."""
PHRASES = {
    "dead": "output zero for every input",
    "constant": "constant output",
    "zero_output": "no outgoing weight, or none left once equal neurons are merged",
    "duplicate": "equal to another neuron",
    "sign_duplicate": "equal to another neuron up to sign",
    "proportional": "a multiple of another neuron",
    "linear": "superfluous in a block of always-linear neurons of lower rank",
    "near_duplicate": "nearly a multiple of another neuron",
}
"""What each kind of redundant neuron is called."""


def document(found: Inspection) -> dict[str, Any]:
    """JSON-ready data; the page of `report` uses only this."""
    sim: dict[str, Any] = {"refused": found.sim_refused} if found.sim is None else found.sim.summary()
    lattice = sim.pop("lattice", None)
    return {
        "network": _network_dict(found.network),
        "domain": {**found.domain.to_dict(), "text": str(found.domain)},
        "tiles": _tiles(found),
        "scope": [vars(row) for row in found.scope],
        "layers": [
            {**{k: v for k, v in vars(row).items() if k != "removed"}, **_all_kinds(row.removed)}
            for row in found.layers
        ],
        "classes": _classes(found.network, found.reduction),
        "sim": sim,
        "lattice": lattice,
        "fiber": _fiber_dict(found.fiber),
        "balance": [row.to_dict() for row in found.balance],
        "balance_note": found.balance_note,
        "findings": [
            {"text": f.text, "rigor": f.rigor.name, "level": f.level, "layer": f.layer} for f in found.findings
        ],
        "reduction": found.reduction.to_dict(),
        "weights_preview": _preview(found.network),
        "assumes": [vars(h) for h in found.fiber.hypotheses],
        "skipped": list(found.skipped),
        "theorems": list(found.theorems),
        "limits": list(found.limits),
        "wall_s": found.wall_s,
    }  # fmt: skip


def _all_kinds(removed: dict[str, int]) -> dict[str, int]:
    return {kind: removed.get(kind, 0) for kind in PHRASES}


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
                "title": f"{found.sim.dimension:,} of {found.sim.ambient:,}",
                "text": "dimensions training can move in (smallest known manifold)",
                "rigor": "EXACT",
            }
        )
    if found.fiber.exact is not None:
        tiles.append(
            {
                "title": str(found.fiber.exact),
                "text": "dimension of the fiber: all parameters of this function",
                "rigor": found.fiber.rigor.name,
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
    value = None if fiber.exact is None else {"value": fiber.exact, "rigor": fiber.rigor.name, "text": fiber.formula}
    return {
        "lower_bound": {"value": fiber.lower_bound, "rigor": "EXACT", "text": text},
        "exact": value,
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
