"""The parts of the page about normal forms and fingerprints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fiberscope.pages.data import Data, View, base_name, listing, mapping, rows, whole
from fiberscope.pages.drawing import COLOURS
from fiberscope.pages.markup import Child, count, el, pretty, real
from fiberscope.pages.moves import moves_table
from fiberscope.pages.parts import Card, card, change, copied, mark, pairs, table, widths_text


def canonical_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    unique = data.get("unique") is True
    text = "equal functions have equal forms" if unique else "equal forms prove equal functions, others nothing"
    yield {"title": "unique" if unique else "sound", "text": text, "look": "yes" if unique else "open"}
    before, after = _before(data), listing(data.get("widths"))
    if after:
        hidden = [sum(map(whole, widths[1:-1])) for widths in (before, after)]
        yield {"title": change(*hidden) if before else count(hidden[1]), "text": "hidden neurons", "rigor": "EXACT"}
    moves = mapping(data.get("move_counts"))
    yield {"title": count(sum(whole(n) for n in moves.values())), "text": "moves to the form", "rigor": "EXACT"}
    order = mapping(data.get("automorphisms")).get("order")
    if order is not None:
        yield {"title": real(order), "text": "relabelings keep the parameters"}


def fingerprint_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    counts, groups = mapping(data.get("counts")), rows(data.get("groups"))
    yield {"title": count(whole(counts.get("networks"))), "text": "networks named"}
    copies = sum(len(listing(g.get("networks"))) - 1 for g in groups)
    compute = "computes" if copies == 1 else "compute"
    yield {"title": count(copies), "text": f"{compute} what another one does", "rigor": "EXACT"}
    functions = "function" if len(groups) == 1 else "functions"
    yield {"title": count(len(groups)), "text": f"{functions} with several networks"}
    for name, words in (("refused", "files refused"), ("unfinished", "files not done")):
        if whole(counts.get(name)):
            yield {"title": count(whole(counts[name])), "text": words, "look": "no"}


def _before(data: Data) -> list[Any]:
    return listing(next(iter(rows(data.get("inputs"))), {}).get("layers"))


def form(view: View) -> Card | None:
    """The normal form: widths before and after, its name, what was moved."""
    data = view.data
    if view.kind != "canonical":
        return None
    before, after = _before(data), listing(data.get("widths"))
    facts: list[tuple[str, Child]] = []
    if before and after:
        same = before == after
        facts.append(("widths", widths_text(after) if same else f"{widths_text(before)} → {widths_text(after)}"))
    facts.append(("linear part", "yes" if data.get("linear_part") else "none"))
    facts.append(("activations", ", ".join(dict.fromkeys(map(str, listing(data.get("activations")))))))
    facts += [("head", str(data["head"]))] if data.get("head") else []
    name = str(data.get("fingerprint") or "")
    about = (
        "Two names that begin with fs1: are equal exactly if the functions are; of fs1s: names only equality proves."
    )
    body: list[Child] = [
        pairs(facts), el("h4", "Fingerprint"), el("p", copied(name, 80, "Copy the fingerprint")),
        el("p", about, class_="small"), el("h4", "Moves"),
        moves_table(mapping(data.get("move_counts"))) or el("p", "none", class_="small"),
    ]  # fmt: skip
    return card("Normal form", body, anchor=view.anchor("form"))


def uniqueness(view: View) -> Card | None:
    """The hypotheses under which the form is unique, each with what was found."""
    found = rows(view.data.get("hypotheses"))
    if view.kind != "canonical" or not found:
        return None
    body = [
        [mark(row.get("holds") if row.get("checked", True) else None), pretty(row.get("statement", ""))]
        for row in found
    ]
    known = (
        "Each was checked on this network." if view.data.get("unique") is True else "The form is unique if all hold."
    )
    theorem = str(view.data.get("theorem") or "")
    lead = f"{known} Theorem: {theorem}." if theorem else "No theorem of uniqueness is known for networks of this kind."
    return card("Is the form unique?", table("Hypotheses", ["holds", "hypothesis"], body), lead=lead,
                anchor=view.anchor("uniqueness"))  # fmt: skip


def names(view: View, limit: int = 1000) -> Card | None:
    """All networks with their fingerprints; those with one function share a letter and a colour."""
    found = rows(view.data.get("results"))
    if view.kind != "fingerprint" or not found:
        return None
    groups = {str(g.get("fingerprint")): k for k, g in enumerate(rows(view.data.get("groups")))}
    order = sorted(found, key=lambda row: groups.get(str(row.get("fingerprint")), len(groups)))
    body, keys = [], []
    for row in order[:limit]:
        name = str(row.get("fingerprint") or "")
        k = groups.get(name, -1)
        body.append([_letter(k), _file(row), str(row.get("architecture") or "–"), _meaning(row)])
        keys.append(f"g.{k}" if k >= 0 else None)
    left = len(found) - limit
    note = el("p", f"{count(left)} more are in the raw data or in --json.", class_="small") if left > 0 else None
    lead = "Networks with one number compute the same function." if groups else "No two compute provably the same."
    made = table("Networks and their fingerprints", ["function", "file", "architecture", "fingerprint"], body,
                 tools=True, keys=keys)  # fmt: skip
    return card("Fingerprints", made, note, lead=lead, wide=True, anchor=view.anchor("names"))


def _letter(k: int) -> Child:
    if k < 0:
        return el("span", "on its own", class_="small")
    text = str(k + 1)
    dot = el("span", text if len(text) < 3 else "", class_=f"dot c{k % COLOURS}", aria_hidden="true")
    return [dot, el("span", text, class_="hidden")]


def _file(row: Data) -> Child:
    part = [" ", el("span", "part ", el("bdi", str(row["part"])), class_="where")] if row.get("part") else None
    return [el("bdi", base_name(row.get("path")), title=str(row.get("path") or "")), part]


def _meaning(row: Data) -> Child:
    if row.get("error") is not None:
        return [el("span", "refused: ", class_="sign no"), str(row["error"])]
    name = str(row.get("fingerprint") or "")
    missing = [el("span", "not met: ", "; ".join(map(str, listing(row.get("not_met"))))[:300], class_="why")]
    return [copied(name, 18, "Copy the fingerprint"), missing if listing(row.get("not_met")) else None]
