"""The page of a start that was linted: what it has, on which manifold it lies, what frees it."""

from __future__ import annotations

from collections.abc import Iterable

from fiberscope.pages.data import Data, View, listing, mapping, rows
from fiberscope.pages.markup import Child, count, el, pretty
from fiberscope.pages.parts import Card, card, chip, table

_SHOWN = 200
_OUTCOMES = {"kept": "kept", "broken": "left at once", "leaves": "kept, its leaf left", "drifts": "kept nearly"}


def start_tiles(data: Data) -> Iterable[Data]:
    """Trapped or not, and what that costs."""
    rule = str(data.get("optimiser") or "the optimiser")
    if data.get("trapped"):
        yield {"title": "trapped", "text": f"under {rule}, whatever the data and the loss", "look": "no",
               "rigor": data.get("rigor")}  # fmt: skip
        wide, small = (_widths(data, key) for key in ("widths", "effective_widths"))
        yield {"title": small, "text": f"hidden widths it trains like, instead of {wide}"}
        if isinstance(data.get("dimension"), int) and isinstance(data.get("parameters"), int):
            yield {"title": f"{count(data['dimension'])} of {count(data['parameters'])}",
                   "text": "dimensions that training can use"}  # fmt: skip
    else:
        yield {"title": "not trapped", "text": f"under {rule}", "look": "yes", "rigor": data.get("rigor")}
    notes = sum(not row.get("trapped") for row in rows(data.get("findings")))
    if notes:
        yield {"title": count(notes), "text": "notes that are harmless" if notes > 1 else "note that is harmless"}


def _widths(data: Data, key: str) -> str:
    found = list(mapping(data.get(key)).values())
    if len(found) > 6:
        return f"{count(sum(v for v in found if isinstance(v, int)))} neurons"
    return "–".join(map(str, found))


def findings(view: View) -> Card | None:
    """Every finding with its manifold and the change that frees."""
    if view.kind != "lint-init":
        return None
    body: list[list[Child]] = []
    for row in rows(view.data.get("findings"))[:_SHOWN]:
        keeps, change = mapping(row.get("optimiser")), mapping(row.get("change"))
        held = _OUTCOMES.get(str(keeps.get("outcome")), str(keeps.get("outcome") or "–"))
        place = f"{pretty(row.get('sim') or '')}" if row.get("sim") else ""
        size = f"dimension {count(row['dimension'])}" if isinstance(row.get("dimension"), int) else ""
        freed = f"{change.get('description', '')}" if change and row.get("trapped") else "–"
        why = el("span", str(keeps.get("reason", "")), class_="small")
        code = str(row.get("code", ""))
        body.append([
            el("strong", code) if row.get("trapped") else code, str(row.get("population") or "–"),
            el("span", pretty(row.get("message") or ""), class_="prose"),
            [place, el("br") if place and size else None, size],
            [held, el("br"), why] if keeps else held, pretty(freed),
        ])  # fmt: skip
    if not body:
        return card("Findings", el("p", "None.", class_="small"), anchor=view.anchor("findings"))
    heads = ["code", "layer", "what", "manifold", "this optimiser", "what frees it"]
    lead = "FS1xx lie on invariant manifolds; bold ones are kept by the optimiser. FS2xx are harmless."
    inner = table("Findings", heads, body, tools=len(body) > 5)
    return card("Findings", inner, lead=lead, wide=True, anchor=view.anchor("findings"))


def widths(view: View) -> Card | None:
    """Widths and what is left of them."""
    if view.kind != "lint-init":
        return None
    before, after = mapping(view.data.get("widths")), mapping(view.data.get("effective_widths"))
    body = [[str(name), count(n), count(after.get(name, n))] for name, n in before.items() if isinstance(n, int)]
    if not body:
        return None
    inner = table("Widths", ["layer", "neurons", "it trains like"], body, numeric=(1, 2), tools=len(body) > 5)
    kind = [" ", chip(view.data.get("rigor"))]
    skipped = listing(view.data.get("skipped"))
    lead = "Classes count once, silent neurons not at all." + (" Skipped layers are not in it." if skipped else "")
    return card("Widths", el("p", lead, kind, class_="lead"), inner, anchor=view.anchor("widths"))
