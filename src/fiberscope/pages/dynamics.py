"""The parts of the page about training and about the parameters of one function."""

from __future__ import annotations

import math

from fiberscope.pages.data import Data, View, listing, mapping, rows, whole
from fiberscope.pages.figures import histogram, share_bar
from fiberscope.pages.manifolds import lattice_drawing
from fiberscope.pages.markup import Child, count, el, pretty, real
from fiberscope.pages.parts import Card, card, chip, mark, named, pairs, table, widths_text

_ABOUT_LATTICE = (
    "All kinds of manifolds of this architecture, up to relabelling neurons; dashed dots: output zero. "
    "Lines: contained in. Choose a box for details."
)


def training(view: View) -> Card | None:
    """The smallest invariant manifold, with the lattice of all kinds where there is one."""
    sim = mapping(view.data.get("sim"))
    if not sim:
        return None
    title = "Training: the smallest invariant manifold"
    if "refused" in sim:
        return card(
            title,
            el("p", "Not stated for this network: ", str(sim["refused"]), ".", class_="refused"),
            anchor=view.anchor("training"),
        )
    dimension, ambient = whole(sim.get("dimension")), whole(sim.get("ambient"))
    words = f"{count(dimension)} of {count(ambient)}"
    head = el(
        "p",
        el("strong", words, class_="big"),
        el("span", "dimensions that training can move in ", chip(sim.get("rigor"))),
        class_="stat",
    )
    bar = share_bar(dimension, ambient, f"dimension {words}")
    facts: list[tuple[str, Child]] = []
    if sim.get("codimension") is not None:
        facts.append(("codimension", real(sim["codimension"])))
    if listing(sim.get("reduced_widths")):
        facts.append(("trains like", el("span", widths_text(listing(sim["reduced_widths"])), class_="mono")))
    if sim.get("activation_class") or sim.get("kind"):
        facts.append(("activation", str(sim.get("activation_class") or sim.get("kind"))))
    if isinstance(sim.get("complete"), bool):
        facts.append(("smaller ones", "none, by the classification" if sim["complete"] else "not excluded"))
    drawn = lattice_drawing(mapping(view.data.get("lattice")), ambient)
    about = el("p", _ABOUT_LATTICE, class_="small") if drawn else None
    meaning = str(sim.get("meaning") or "")
    many = len(rows(mapping(view.data.get("lattice")).get("types"))) > 24
    sentence = f"{meaning[:1].upper()}{meaning[1:]}." if meaning else None
    return card(title, head, bar, pairs(facts), about, drawn, lead=sentence, wide=many, anchor=view.anchor("training"))


def fiber(view: View) -> Card | None:
    """The dimension of the set of parameters with the same function."""
    data = mapping(view.data.get("fiber"))
    low, exact = mapping(data.get("lower_bound")), mapping(data.get("exact"))
    if not low and not exact:
        return None
    shown = exact if exact.get("value") is not None else low
    title = real(shown.get("value")) if shown is exact else f"≥ {real(low.get('value'))}"
    rigor = shown.get("rigor") or ("GENERIC" if shown is exact else None)
    head = el("p", el("strong", title, class_="big"), el("span", "dimensions ", chip(rigor)), class_="stat")
    facts: list[tuple[str, Child]] = [
        (
            name,
            [
                f"{real(part.get('value'))} ",
                chip(part.get("rigor")),
                el("span", pretty(part.get("text") or ""), class_="why"),
            ],
        )
        for name, part in (("proved lower bound", low), ("value for generic parameters", exact))
        if part
    ]
    checks = [
        el("li", mark(row.get("holds")), " ", pretty(row.get("statement", ""))) for row in rows(data.get("hypotheses"))
    ]
    listed = [el("h4", "Hypotheses of the exact value"), el("ul", checks, class_="checks")] if checks else []
    return card("Fiber: all parameters of this function", head, pairs(facts), listed,
                lead="Near these parameters, the networks that compute the same function form a set of this dimension.",
                anchor=view.anchor("fiber"))  # fmt: skip


def balance(view: View, drawn: int = 6) -> Card | None:
    """Histograms of the quantities that gradient flow conserves, or why there are none."""
    found, note = rows(view.data.get("balance")), str(view.data.get("balance_note") or "")
    if not found and not note:
        return None
    body: list[Child] = []
    plots = [row for row in found if _numbers(row)][:drawn]
    for row in plots:
        name, values = view.layer_name(whole(row.get("layer"))), _numbers(row)
        median = row.get("median")
        label = f"Histogram of {len(values)} values in {name}, from {real(row.get('min'))} to {real(row.get('max'))}"
        total = whole(row.get("count"), len(values))
        part = (
            f"{count(len(values))} of {count(total)} neurons, evenly by rank"
            if total > len(values)
            else f"{count(total)} neurons"
        )
        plot = histogram(values, float(median) if isinstance(median, int | float) else None, label)
        body.append(el("figure", named(name, f"· {part}"), plot))
    plots_box = el("div", body, class_="plots") if body else None
    cells = [
        [view.layer_name(whole(r.get("layer"))), real(r.get("min")), real(r.get("median")), real(r.get("max"))]
        for r in found
    ]
    listed = (
        table("Balancedness per layer", ["layer", "smallest", "median", "largest"], cells, numeric=(1, 2, 3))
        if cells
        else None
    )
    law = next((pretty(r["law"]) for r in found if r.get("law")), "")
    rigor = next((r["rigor"] for r in found if r.get("rigor")), None)
    lead: Child = (
        [el("span", law, class_="formula"), " is constant under gradient flow, neuron by neuron. ", chip(rigor)]
        if law
        else None
    )
    said = el("p", note[:1].upper(), note[1:], ".", class_="refused") if note else None
    return card(
        "Balancedness: what gradient flow conserves",
        plots_box,
        listed,
        said,
        lead=lead,
        anchor=view.anchor("balance"),
        wide=len(plots) > 1,
    )


def _numbers(row: Data) -> list[float]:
    return [float(v) for v in listing(row.get("values")) if isinstance(v, int | float) and math.isfinite(v)]
