"""The card of an architecture: its invariant manifolds by number, as a lattice or by dimension, and kind by kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fiberscope.pages.data import Data, View, listing, mapping, rows, whole
from fiberscope.pages.figures import share_bar
from fiberscope.pages.manifolds import Kind, compact, equations_text, kinds_of, lattice_drawing, plural, readable, times
from fiberscope.pages.markup import Child, Markup, count, el, pretty, real
from fiberscope.pages.parts import Card, bullets, card, chip, pairs, table, widths_text

_LISTED, _BARS = 300, 40


def manifolds_card(view: View) -> Card | None:
    """All manifolds of an architecture: numbers, what is complete, the lattice by kind or by dimension, every kind."""
    data = view.data
    if "count_types" not in data or "families" not in data:
        return None
    lattice, ambient = mapping(data.get("lattice")), whole(data.get("parameters"))
    kinds = kinds_of(lattice)
    total, number = compact(whole(data.get("count"))), compact(whole(data.get("count_types")))
    head = el(
        "p", el("strong", total, class_="big"),
        el("span", f"invariant manifolds of {number} kinds ", chip(data.get("rigor"))), class_="stat",
    )  # fmt: skip
    facts: list[tuple[str, Child]] = [
        ("widths", el("span", widths_text(listing(data.get("widths"))), class_="mono")),
        ("activation", f"{data.get('activation')} ({data.get('kind')})"),
        ("parameters", count(ambient)),
        ("biases", _bias_words(data)),
        ("list complete", "yes, proved" if data.get("complete") is True else "no, or not known"),
    ]
    statement = str(data.get("statement") or "")
    said = el("p", f"{statement[:1].upper()}{statement[1:]}.", class_="small") if statement else None
    drawn = _drawn(lattice, kinds, rows(data.get("levels")), ambient)
    return card(
        "Invariant manifolds of the architecture", head, pairs(facts), said, drawn, _kinds_table(kinds), _beyond(data),
        lead="Sets of parameters that no gradient flow leaves, whatever the loss and the data.", wide=True,
        anchor=view.anchor("manifolds"),
    )  # fmt: skip


def _bias_words(data: Data) -> str:
    hidden, output = data.get("bias") is True, data.get("output_bias") is True
    return "in all layers" if hidden and output else "hidden layers" if hidden else "last layer" if output else "none"


def _drawn(lattice: Data, kinds: Sequence[Kind], levels: Sequence[Data], ambient: int) -> list[Child]:
    """The lattice where it can be read, else the numbers by dimension."""
    if readable(kinds):
        about = (
            "All kinds up to relabelling neurons and their signs; neurons of one colour move together, dashed ones "
            "have no weights, pale ones no incoming weights. Lines: contained in. Choose a box for its equations."
        )
        return [el("p", about, class_="small"), lattice_drawing(lattice, ambient)]
    return [levels_drawing(levels)] if levels else []


def levels_drawing(levels: Sequence[Data]) -> Markup:
    """The numbers of manifolds by dimension as bars on a logarithmic scale, largest dimension on top."""
    found = [(whole(r.get("dimension")), whole(r.get("types")), whole(r.get("count"), 1)) for r in levels]
    step = -(-len(found) // _BARS)
    kept = found[::step] + ([found[-1]] if (len(found) - 1) % step else [])
    most = max(_log(n) for _, _, n in found)
    lines = []
    for dimension, types, number in kept:
        bar = share_bar(1 + _log(number), 1 + most, f"dimension {dimension}: {compact(number)} manifolds")
        cells = [el("td", el("div", bar, class_="thin")), el("td", times(number), class_="num")]
        cells.append(el("td", plural(types, "kind") if types < 10**7 else f"{compact(types)} kinds", class_="num"))
        lines.append(el("tr", el("th", f"dim {count(dimension)}", scope="row"), cells))
    skipped = f", one dimension in {step}" if step > 1 else ""
    caption = f"Manifolds by dimension on a logarithmic scale{skipped}"
    inner = el("table", el("caption", caption, class_="hidden"), el("tbody", lines), class_="bars")
    box = el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return Markup(el("p", f"{caption}.", class_="small") + box)


def _log(number: int) -> float:
    """The logarithm to base 10 of an integer of any length."""
    return math.log10(number) if number > 0 else 0.0


def _kinds_table(kinds: Sequence[Kind]) -> list[Child]:
    """Every kind as a row; with the equations of one of its manifolds where no lattice shows them."""
    if not kinds:
        return []
    leaf = any(k.leaf not in (None, k.dimension) for k in kinds)
    wide = any(k.equitable not in (None, k.dimension) for k in kinds)
    heads = ["kind", "trains like", "dimension", *["training"] * leaf, *["equitable"] * wide, "number"]
    told = readable(kinds)
    body = []
    for k in kinds[:_LISTED]:
        extra = [real(k.leaf)] * leaf + [real(k.equitable)] * wide
        rest = [] if told else [equations_text(k.equations, 6) or "none"]
        body.append([k.name, widths_text(k.reduced), count(k.dimension), *extra, compact(k.count), *rest])
    heads += [] if told else ["equations of one"]
    columns = range(2, 4 + leaf + wide)
    more = len(kinds) - len(body)
    note = el("p", f"{count(more)} more kinds; --json has all of them.", class_="small") if more > 0 else None
    return [el("h4", "Every kind"), table("Kinds of manifolds", heads, body, numeric=tuple(columns), tools=True), note]


def _beyond(data: Data) -> list[Child]:
    found = rows(data.get("families"))
    if not found:
        return []
    items = []
    for row in found:
        name = str(row.get("name") or "")
        points = [real(p, 6) for p in listing(row.get("points"))]
        at = f" (b* = {', '.join(points)})" if points else ""
        lines = "; ".join(pretty(e) for e in listing(row.get("equations")))
        why = el("span", f"{str(row.get('meaning') or '')}", class_="why")
        items.append([el("strong", f"{name[:1].upper()}{name[1:]}"), f": {lines}{at}", why])
    return [el("h4", "Beyond the list"), bullets(items)]
