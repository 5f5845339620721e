"""The parts of the page about where training can go: orbits and conservation laws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fiberscope.pages.data import Data, View, listing, mapping, rows, whole
from fiberscope.pages.figures import share_bar
from fiberscope.pages.markup import Child, count, el, pretty, real
from fiberscope.pages.parts import Card, bullets, card, chip, mark, pairs, table


def orbit_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    sign = "≥ " if data.get("is_lower_bound") else ""
    dimension, ambient = whole(data.get("dimension")), whole(data.get("ambient"))
    yield {
        "title": f"{sign}{count(dimension)}", "text": "dimensions that training can move in",
        "rigor": data.get("rigor"),
    }  # fmt: skip
    yield {"title": count(ambient), "text": "parameters that are trained"}
    if not data.get("is_lower_bound"):
        free = dimension == ambient
        text = "nothing confines training here" if free else "dimensions that no loss and no data can reach"
        yield {"title": count(ambient - dimension), "text": text, "look": "yes" if free else "open"}


def orbit(view: View) -> Card | None:
    """The dimension, why it is what it is, and what each method found."""
    if view.kind != "orbit":
        return None
    data = view.data
    dimension, ambient = whole(data.get("dimension")), whole(data.get("ambient"))
    sign = "≥ " if data.get("is_lower_bound") else ""
    words = f"{sign}{count(dimension)} of {count(ambient)}"
    head = el("p", el("strong", words, class_="big"), el("span", "dimensions ", chip(data.get("rigor"))), class_="stat")
    bar = share_bar(dimension, ambient, f"dimension {words}")
    facts: list[tuple[str, Child]] = [
        ("proved upper bound", count(whole(data.get("upper")))),
        ("lower bound meets it", mark(data.get("certified"))),
        ("at", "a generic point" if data.get("at") == "generic" else "the file's own parameters"),
    ]
    if isinstance(data.get("order"), int):
        facts.append(("bracket depth needed", str(data["order"])))
    gap = listing(data.get("gap"))
    if len(gap) == 2:
        facts.append(("smallest singular value kept", real(gap[0])))
        facts.append(("largest dropped", real(gap[1])))
    notes = [pretty(note) for note in listing(data.get("notes"))]
    said = el("p", "At most ", pretty(_why(data)), ".")
    return card(
        "The orbit of these parameters", head, bar, said, pairs(facts), bullets(notes, "small") if notes else None,
        lead="Gradient flow of any loss on any data stays in the orbit; moving it elsewhere needs another optimiser, "
             "noise, or a change of the start.",
        anchor=view.anchor("orbit"),
    )  # fmt: skip


def _why(data: Data) -> str:
    return f"{count(whole(data.get('upper')))}, because of: {data.get('upper_reason') or ''}"


def methods(view: View) -> Card | None:
    """What each method found, and how sure it is."""
    found = rows(view.data.get("estimates")) if view.kind == "orbit" else []
    if not found:
        return None
    body: list[list[Child]] = []
    for row in found:
        growth = ", ".join(str(r) for r in listing(row.get("growth"))) or "–"
        kept, dropped = row.get("kept"), row.get("dropped")
        gap = f"{real(kept)} / {real(dropped)}" if isinstance(kept, int | float) else "–"
        body.append([str(row.get("method")), count(whole(row.get("dimension"))), growth, gap, chip(row.get("rigor"))])
    inner = table(
        "Methods", ["method", "dimension", "rank by bracket depth", "kept / dropped", "how"], body, numeric=(1,)
    )
    said = bullets([f"{row.get('method')}: {row.get('note')}" for row in found], "small")
    return card("Methods that check each other", inner, said, wide=True, anchor=view.anchor("methods"))


def conserved_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    yield {
        "title": count(whole(data.get("count"))), "text": f"independent laws under {data.get('dynamics')}",
        "rigor": data.get("rigor"),
    }  # fmt: skip
    yield {"title": count(whole(data.get("independent"))), "text": "of them from known symmetries", "rigor": "EXACT"}
    yield {"title": count(whole(data.get("orbit_dimension"))), "text": f"of {count(whole(data.get('dimension')))} "
           "dimensions reached from a generic point"}  # fmt: skip
    here = mapping(data.get("here"))
    if here:
        sign = "≤ " if here.get("rigor") == "SAMPLED" else ""
        yield {
            "title": f"{sign}{count(whole(here.get('count')))}", "text": f"at these parameters on {here.get('domain')}",
            "rigor": here.get("rigor"),
        }  # fmt: skip


def laws(view: View) -> Card | None:
    """The known laws with what was checked of each."""
    if view.kind != "conserved":
        return None
    found = rows(view.data.get("known"))
    if not found:
        zero = whole(view.data.get("count")) == 0
        said = "No function of the parameters is conserved for every loss and all data." if zero else "None is known."
        return card("Known conservation laws", el("p", said), anchor=view.anchor("laws"))
    body: list[list[Child]] = [
        [el("span", pretty(row.get("formula") or ""), class_="formula"), count(whole(row.get("size"))),
         mark(row.get("holds")), real(row.get("residual"))]
        for row in found
    ]  # fmt: skip
    inner = table("Known laws", ["conserved", "functions", "holds", "derivative along fields"], body, numeric=(1, 3))
    lead = "Their derivative along every field vanishes: modulo a prime at a random point, and in floats to rounding."
    extra = _searches(view.data)
    return card("Known conservation laws", inner, extra, lead=lead, anchor=view.anchor("laws"))


def _searches(data: Data) -> Child:
    said: list[Child] = [str(data["open"])] if data.get("open") else []
    said += [pretty(row.get("formula") or "") for row in rows(data.get("refuted"))]
    said += [str(note) for note in listing(data.get("notes"))]
    return bullets(said, "small") if said else None


def local_laws(view: View) -> Card | None:
    """The laws at the network's own parameters, each extra one explained."""
    here = mapping(view.data.get("here")) if view.kind == "conserved" else {}
    if not here:
        return None
    explained = [row for row in rows(here.get("explained")) if whole(row.get("extra"))]
    body: list[list[Child]] = [
        [count(whole(row.get("extra"))), pretty(row.get("text") or ""), _formula(row)] for row in explained
    ]
    if whole(here.get("unexplained")):
        body.append([count(whole(here.get("unexplained"))), "unexplained", ""])
    inner = table("Laws at these parameters", ["laws", "why", "conserved"], body, numeric=(0,))
    notes = [str(note) for note in listing(here.get("notes"))]
    which = "all patterns that occur" if here.get("complete") else "patterns found by search: there may be more"
    facts: list[tuple[str, Child]] = [
        ("laws", [count(whole(here.get("count"))), " ", chip(here.get("rigor"))]),
        ("activation patterns", f"{count(whole(here.get('patterns')))} ({which})"),
    ]
    return card(
        "At these parameters", pairs(facts), inner, bullets(notes, "small") if notes else None,
        lead=f"On {here.get('domain')} some neurons may be dead or never active together; each leaves more laws.",
        anchor=view.anchor("here"),
    )  # fmt: skip


def _formula(row: Data) -> Any:
    return el("span", pretty(row.get("formula") or ""), class_="formula")
