"""The parts of the page about one fiber: neurons by type, hidden kinks, a slice with all kinks, equations, a walk."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fiberscope.pages.data import Data, View, listing, mapping, rows, spans, whole
from fiberscope.pages.drawing import COLOURS
from fiberscope.pages.figures import ticks
from fiberscope.pages.markup import Child, Markup, count, el, pretty, real
from fiberscope.pages.parts import Card, bullets, card, chip, figure, mark, pairs, table

_SIZE, _EDGE = 460, 30
_TYPES = {
    "split": "bends where its hyperplane meets the orthant",
    "active": "always active: linear",
    "dead": "dead: zero everywhere",
}
_LISTED = 200


def fiber_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    exact, low = data.get("dimension"), data.get("lower_bound")
    if isinstance(exact, int):
        yield {"title": count(exact), "text": "dimensions of equal parameters near these", "rigor": data.get("rigor")}
    elif isinstance(low, int):
        yield {"title": f"≥ {count(low)}", "text": "dimensions of equal parameters near these", "rigor": "EXACT"}
    if isinstance(data.get("parameters"), int):
        yield {"title": count(data["parameters"]), "text": "parameters"}
    types = Counter(_types(data).values())
    if types:
        words = ", ".join(f"{types[kind]} {kind}" for kind in _TYPES if types[kind])
        yield {"title": words, "text": "second-layer neurons by type", "rigor": "EXACT"}
    hidden = _hidden(data)
    if data.get("visible") is not None:
        names = f"neuron{'s' * (len(hidden) > 1)} {', '.join(map(str, hidden))}" if hidden else "none"
        yield {"title": names, "text": "of the first layer can move unseen", "rigor": "EXACT"}


def _types(data: Data) -> dict[int, str]:
    """Type by second-layer neuron."""
    lists = mapping(data.get("types"))
    return {j: str(kind) for kind, members in lists.items() for j in listing(members) if isinstance(j, int)}


def _hidden(data: Data) -> dict[int, Data]:
    """Hidden first-layer neurons, each with what is known of it."""
    return {row["neuron"]: row for row in rows(data.get("hidden_neurons")) if isinstance(row.get("neuron"), int)}


# ---- what the fiber is


def dimension(view: View) -> Card | None:
    """The dimension with its hypotheses, and the parts of the fiber, counted."""
    data = view.data
    if view.kind != "fiber":
        return None
    facts: list[tuple[str, Child]] = []
    formula, low = str(data.get("formula") or ""), data.get("lower_bound")
    if isinstance(data.get("dimension"), int):
        facts.append(("dimension", [real(data["dimension"]), " ", chip(data.get("rigor"))]))
    facts += [("it is", pretty(formula))] if formula else []
    facts += [("scalings alone", [real(low), " ", chip("EXACT")])] if isinstance(low, int) else []
    facts += _parts(mapping(data.get("components")))
    checks = [el("li", mark(r.get("holds")), " ", pretty(r.get("statement", ""))) for r in rows(data.get("hypotheses"))]
    listed = [el("h4", "Hypotheses of the dimension"), el("ul", checks, class_="checks")] if checks else []
    notes = [str(t) for t in listing(data.get("notes"))]
    said = [el("h4", "Notes"), bullets(notes)] if notes else []
    return card("All parameters of this function", pairs(facts), listed, said,
                lead="Near these parameters, those with the same function form a set of this dimension.",
                anchor=view.anchor("dimension"))  # fmt: skip


def _parts(roles: Data) -> list[tuple[str, Child]]:
    """Labelings, orientations and turns."""
    if not roles:
        return []
    labels, power = roles.get("labelings"), roles.get("labelings_log10")
    about = (
        f"about {10 ** (power % 1):.1f}e{math.floor(power)}"
        if isinstance(power, int | float) and math.isfinite(power)
        else None
    )
    flips = roles.get("orientations")
    return [
        ("labelings of neurons", real(labels) if labels is not None else pretty(about or "–")),
        ("orientations of split neurons", "not counted" if flips is None else real(flips)),
        ("turns onto a hidden neuron", real(2 ** whole(roles.get("turns")))),
    ]


def neurons(view: View) -> Card | None:
    """First-layer neurons, visible or hidden and by what; second-layer neurons by type."""
    data = view.data
    types, hidden = _types(data), _hidden(data)
    visible = {i: v is True for i, v in enumerate(listing(data.get("visible")))}
    if view.kind != "fiber" or not (types or hidden or visible):
        return None
    body: list[Sequence[Child]] = []
    for i in sorted({*visible, *hidden}):
        if i in hidden:
            body.append(["first", str(i), "hidden", _because(hidden[i])])
        elif visible[i]:
            body.append(["first", str(i), "visible", "its hyperplane bends f"])
        else:
            body.append(["first", str(i), "invisible", "its hyperplane bends f nowhere, but cannot move by itself"])
    body += [["second", str(j), kind, _TYPES.get(kind, "")] for j, kind in sorted(types.items())]
    left = len(body) - _LISTED
    made = table("Neurons of the fiber", ["layer", "neuron", "kind", "meaning"], body[:_LISTED], numeric=(1,),
                 tools=len(body) > 8)  # fmt: skip
    note = el("p", f"{count(left)} more are in the raw data.", class_="small") if left > 0 else None
    lead = "A hidden neuron's kink lies where no second-layer neuron is active: it may move without changing f."
    return card("Neurons", made, note, lead=lead if hidden else None, anchor=view.anchor("neurons"))


def _because(row: Data) -> str:
    readers = [j for j in listing(row.get("readers")) if isinstance(j, int)]
    room = row.get("slab")
    text = (
        f"second-layer neurons {', '.join(spans(readers))} read it and are all inactive at its kink" if readers else ""
    )
    far = f"its bias may fall by {real(room)} or rise" if room is not None else ""
    return "; ".join(t for t in (text, far) if t) or "its kink may move"


# ---- the slice


def slice_drawing(view: View) -> Card | None:
    """The kinks in a plane of input space: drawn through where the function bends, dashed where it does not."""
    data = mapping(view.data.get("slice"))
    pieces = rows(data.get("segments"))
    radius = data.get("radius")
    if view.kind != "fiber" or not pieces or not isinstance(radius, int | float) or not 0 < radius < math.inf:
        return None
    others = [list(_pieces(rows(mapping(step.get("slice")).get("segments")))) for step in rows(view.data.get("walk"))]
    mine = list(_pieces(pieces))
    drawn = _drawing(mine, [o for o in others if o], float(radius))
    layers = sorted({piece[0] for piece in mine})
    key = [el("li", el("span", class_=f"stroke c{k % COLOURS}", aria_hidden="true"), f"layer {k + 1}") for k in layers]
    if any(not piece[4] for piece in mine):
        key.append(el("li", el("span", class_="stroke dashed", aria_hidden="true"), "the neuron bends, f does not"))
    if any(not piece[4] for member in others for piece in member):
        key.append(el("li", el("span", class_="stroke faint", aria_hidden="true"), "such kinks of the sampled members"))
    notes = [] if data.get("complete", True) else ["Later layers have too many pieces and are left out."]
    plane = "x = origin + s u + t v; the vectors are in the raw data." if len(listing(data.get("origin"))) > 2 else ""
    return card("Kinks in a slice of input space", figure(drawn, "Slice, scrollable"), el("ul", key, class_="key"),
                el("p", " ".join([*notes, plane]).strip(), class_="small") if notes or plane else None,
                lead="On these lines a neuron bends; between them f is affine. All members of the fiber have the same "
                "solid lines.", anchor=view.anchor("slice"))  # fmt: skip


_Piece = tuple[int, int, tuple[float, float], tuple[float, float], bool]


def _pieces(found: Iterable[Data]) -> Iterator[_Piece]:
    for row in found:
        ends = [listing(row.get(key)) for key in ("start", "end")]
        numbers = [v for end in ends for v in end if isinstance(v, int | float) and math.isfinite(v)]
        if len(numbers) == 4:
            p, q = (numbers[0], numbers[1]), (numbers[2], numbers[3])
            yield whole(row.get("layer")), whole(row.get("neuron")), p, q, row.get("shows") is True


def _drawing(mine: Sequence[_Piece], others: Sequence[Sequence[_Piece]], radius: float) -> Markup:
    scale = (_SIZE - 2 * _EDGE) / (2 * radius)

    def place(p: tuple[float, float]) -> str:
        return f"{_EDGE + (p[0] + radius) * scale:.1f} {_EDGE + (radius - p[1]) * scale:.1f}"

    def path(pieces: Iterable[_Piece]) -> str:
        return "".join(f"M{place(p)}L{place(q)}" for _, _, p, q, _ in pieces)

    shapes = [el("rect", class_="window", x=_EDGE, y=_EDGE, width=_SIZE - 2 * _EDGE, height=_SIZE - 2 * _EDGE)]
    for member in others:
        shapes.append(el("path", class_="kink faint", d=path(p for p in member if not p[4])))
    neurons = sorted({(k, i) for k, i, _, _, _ in mine}, reverse=True)
    for k, i in neurons:
        here = [p for p in mine if p[:2] == (k, i)]
        title = f"layer {k + 1}, neuron {i}"
        for shows in (False, True):
            part = [p for p in here if p[4] is shows]
            if part:
                words = "" if shows else ": f does not bend here"
                look = f"kink c{k % COLOURS}" + ("" if shows else " dashed")
                shapes.append(el("path", el("title", title + words), class_=look, d=path(part)))
    shapes += _axes(radius, scale)
    bending = len({p[:2] for p in mine if p[4]})
    label = f"Slice of input space with the kinks of {len(neurons)} neurons; {bending} of them bend the function here"
    return el("svg", shapes, class_="slice", viewBox=f"0 0 {_SIZE} {_SIZE}", role="img", aria_label=label)


def _axes(radius: float, scale: float) -> Iterator[Markup]:
    low = _SIZE - _EDGE
    for tick in ticks(-radius, radius, 4):
        x = round(_EDGE + (tick + radius) * scale, 1)
        yield el("text", real(tick, 3), x=x, y=low + 18, text_anchor="middle")
        if tick > -radius:
            yield el("text", real(tick, 3), x=_EDGE - 5, y=round(_SIZE - x + 4, 1), text_anchor="end")
    yield el("text", "s", class_="mark", x=low + 4, y=low + 4)
    yield el("text", "t", class_="mark", x=_EDGE - 4, y=_EDGE - 6)


# ---- equations, symmetries, walk


def equations(view: View) -> Card | None:
    """Equations and inequalities that cut the fiber out, as text."""
    if view.kind != "fiber":
        return None
    body: list[Child] = []
    for name in ("equations", "inequalities"):
        found = [_text(row) for row in listing(view.data.get(name))]
        shown = [el("li", el("span", pretty(text), class_="formula")) for text in found if text][:_LISTED]
        if shown:
            left = len(found) - len(shown)
            body += [el("h4", f"{name.capitalize()} ({count(len(found))})"), el("ul", shown, class_="formulas")]
            body += [el("p", f"{count(left)} more are in the raw data.", class_="small")] if left > 0 else []
    return card("Equations of the fiber", body, anchor=view.anchor("equations")) if body else None


def _text(row: Any) -> str:
    data = mapping(row)
    name, text = str(data.get("name") or ""), str(data.get("text") or "")
    return str(row) if not data else f"{name}: {text}" if name and text else text or name


def symmetries(view: View) -> Card | None:
    """The generators of the fiber, and what each conserves."""
    found = rows(view.data.get("symmetries"))
    if view.kind != "fiber" or not found:
        return None
    several: dict[tuple[str, str, str], list[Data]] = {}
    for row in found:
        several.setdefault(
            (str(row.get("name")), str(row.get("kind")), str(row.get("conserves") or "none")), []
        ).append(row)
    body: list[Sequence[Child]] = []
    for (name, kind, law), group in several.items():
        about = el("span", pretty(_said(group)), class_="why")
        body.append([[name, about], kind, count(sum(whole(r.get("size")) or 1 for r in group)), pretty(law)])
    heads = ["symmetry", "kind", "how many", "conserves"]
    return card("Symmetries", table("Symmetries", heads, body, numeric=(2,)), anchor=view.anchor("symmetries"))


def _said(group: Sequence[Data]) -> str:
    first = str(group[0].get("statement") or "")
    return first if len(group) == 1 or not first else f"{first}; and others like it"


def walk(view: View) -> Card | None:
    """Sampled members of the fiber: the moves that lead to each, and that the function is the same."""
    found = rows(view.data.get("walk"))
    if view.kind != "fiber" or not found:
        return None
    body = []
    for k, step in enumerate(found):
        kinds = Counter(str(mapping(m).get("move") or m) for m in listing(step.get("moves")))
        words = ", ".join(f"{name} {n}" if n > 1 else name for name, n in kinds.items()) or "–"
        body.append([str(k + 1), words, real(step.get("moved"))])
    lead = ["Random moves inside the fiber; as rationals every member computes the same function. ", chip("EXACT")]
    heads = ["member", "moves", "largest change of a parameter"]
    made = table("Members of the fiber", heads, body, numeric=(0, 2))
    return card("A sampled walk", made, lead=lead, anchor=view.anchor("walk"))
