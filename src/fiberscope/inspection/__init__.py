"""Inspection: everything that applies to one network, with how each number was obtained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fiberscope.bounds import preactivation_bounds
from fiberscope.domains import Box
from fiberscope.errors import ScopeError
from fiberscope.inspection.documents import PHRASES
from fiberscope.inspection.results import Applies as Applies
from fiberscope.inspection.results import Balance as Balance
from fiberscope.inspection.results import Finding as Finding
from fiberscope.inspection.results import Inspection as Inspection
from fiberscope.inspection.results import LayerRow as LayerRow
from fiberscope.invariants import SmallestSIM, smallest_sim
from fiberscope.network import Layer, Network, require_network
from fiberscope.reduction import Reduction, reduce
from fiberscope.results import Budget, Progress, Rigor, Stopwatch
from fiberscope.symmetries import FiberDimension, fiber_dimension
from fiberscope.theorems import theorem


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
        InputError: for what is no network, or a domain that does not fit it.

    Complexity: that of `reduce`, plus one colour refinement. Sources: arXiv 2510.09564, arXiv 2605.18319.

    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    >>> inspect(net).redundant
    True
    """
    require_network(net)
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
    used += [*fiber.theorems, *(("interval-enclosure",) if net.hidden else ())]
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
    if fiber.theorem or fiber.exact is None:  # one affine layer needs no theorem
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
        if not before:
            text = "there is no hidden neuron, so none is redundant"
        out.append(Finding(text + (" in the time given" if late else ""), Rigor.NUMERICAL if late else rigor))
    if not np.asarray(reduction.exact.layers[-1].weight != 0, dtype=bool).any():
        text = f"the function is constant on {reduction.domain}"
        text += "; a hidden layer keeps one neuron because files need it" if before else ""
        out.append(Finding(text, rigor, "redundant"))
    for row in reduction.removed:
        where = "everywhere" if row.scope == "everywhere" else f"on {reduction.domain}"
        out.append(
            Finding(
                f"{row.count} {'neuron' if row.count == 1 else 'neurons'}: {PHRASES[row.kind]} ({where})",
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
                fiber.rigor,
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
