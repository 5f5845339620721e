"""The parts of the page about one result, each from its data alone; a part without data is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fiberscope.pages import drawing
from fiberscope.pages.data import KINDS, Data, Group, View, listing, mapping, rows, spans, whole
from fiberscope.pages.figures import removal_bar
from fiberscope.pages.markup import Child, Markup, count, el, outward, pretty, real
from fiberscope.pages.parts import Card, bullets, card, change, chip, figure, mark, pairs, table, widths_text
from fiberscope.theorems import THEOREMS

_LEVELS = {"redundant": ("−", "removable"), "caution": ("!", "caution"), "note": ("·", "note")}
_SHOWN = 32  # members written out per row


def tiles(shown: Sequence[Data]) -> Markup | None:
    """The outcome in a few numbers."""
    found = []
    for tile in shown:
        title = pretty(tile.get("title", ""))
        size = "" if len(title) <= 15 else " long" if len(title) <= 30 else " longer"
        size += f" {tile['look']}" if tile.get("look") in ("yes", "no", "open") else ""
        found.append(
            el(
                "li",
                el("strong", title, class_=f"big{size}"),
                el("span", str(tile.get("text") or ""), " ", chip(tile.get("rigor"))),
            )
        )
    return el("ul", found, class_="tiles") if found else None


def findings(view: View) -> Card | None:
    """Plain sentences in the order of the data, each with its rigor."""
    found = rows(view.data.get("findings"))
    if not found or view.kind == "lint-init":
        return None
    items = []
    for row in found:
        level = str(row.get("level") or "note")
        sign, word = _LEVELS.get(level, _LEVELS["note"])
        look = level if level in _LEVELS else "note"
        symbol = el("span", sign, el("span", f"{word}: ", class_="hidden"), class_=f"level {look}", title=word)
        layer = row.get("layer")
        where = el("span", view.layer_name(layer), class_="where") if isinstance(layer, int) else None
        text = pretty(row.get("text", ""))
        items.append(el("li", symbol, el("span", text[:1].upper() + text[1:], " ", where, chip(row.get("rigor")))))
    return card("Findings", el("ol", items, class_="findings"), anchor=view.anchor("findings"))


# ---- network


def network(view: View) -> Card | None:
    """The drawing and the table of classes."""
    if len(view.widths) < 2 or min(view.widths) < 1:
        return None
    shared = any(g.colour is not None for g in view.groups)
    lead = "Neurons of one colour and letter carry the same function up to a factor. " if shared else ""
    if any(g.kind == "linear" for g in view.groups):
        lead += "A linear block is replaced as a whole. "
    if any(g.silent for g in view.groups):
        lead += "Grey: no effect on the output. "
    if max(view.widths) > 64:
        lead += "Wide layers are drawn as bands, in proportion. "
    drawn = figure(drawing.network_drawing(view), "Network drawing, scrollable")
    wide = drawing.wants_width(view)
    title = "Network and its classes" if view.groups else "Network"
    return card(
        title,
        drawn,
        drawing.legend(view),
        classes(view),
        lead=lead.strip() or None,
        wide=wide,
        anchor=view.anchor("network"),
    )


def classes(view: View, limit: int = 240) -> Markup | None:
    """The table of classes: members, and the neurons of the reduced network that carry them."""
    if not view.groups:
        return None
    groups = _together(view.groups)
    shown = sorted(groups, key=lambda g: (g.kind == "alone", -len(g.members)))[:limit]
    kept = {id(g) for g in shown}
    body, keys = [], []
    for g in (g for g in groups if id(g) in kept):
        dot = el("span", g.label if len(g.label) < 3 else "", class_=f"dot {drawing.look_of(g)}", aria_hidden="true")
        name = el("span", "no effect" if g.silent else g.label, class_="hidden")
        new = Markup("–") if g.new is None else ", ".join(spans(g.new)) or "gone"
        body.append([view.layer_name(g.layer), [dot, name], g.words, count(len(g.members)), _members(g), new])
        keys.append(drawing.key_of(g))
    left = len(groups) - len(shown)
    notes = [f"{count(left)} more classes are in the raw data."] if left else []
    listed = Counter(g.layer for g in view.groups for _ in g.members)
    if any(n > listed[k] for k, n in enumerate(view.widths[1:-1])):
        notes.append("Neurons on their own are not listed in wide layers.")
    made = table("Classes of neurons, old to new", ["layer", "class", "what", "neurons", "old neurons", "new"], body,
                 numeric=(3,), mono=(4, 5), tools=True, keys=keys)  # fmt: skip
    return Markup(made + el("p", " ".join(notes), class_="small")) if notes else made


def _together(groups: Sequence[Group], limit: int = 12) -> list[Group]:
    """The groups, with the neurons on their own of each layer in one row where there are many."""
    single = [g for g in groups if g.colour is None and not g.silent]
    if len(single) <= limit:
        return list(groups)
    out = [g for g in groups if g.colour is not None or g.silent]
    for layer in sorted({g.layer for g in single}):
        here = [g for g in single if g.layer == layer]
        new = None if any(g.new is None for g in here) else tuple(n for g in here for n in g.new or ())
        out.append(Group(layer, "", "alone", tuple(m for g in here for m in g.members), (), new))
    return sorted(out, key=lambda g: g.layer)


def _members(group: Group) -> str:
    """Old neurons as spans, with the factor of those that are not plain copies."""
    odd = {m: f for m, f in zip(group.members, group.factors, strict=False) if f != "1"}
    if not odd or group.silent:
        texts = spans(group.members)
    else:
        texts = [f"{m} (×{_factor(odd[m])})" if m in odd else str(m) for m in group.members]
    return ", ".join(texts[:_SHOWN]) + (f", … {count(len(texts) - _SHOWN)} more" if len(texts) > _SHOWN else "")


def _factor(text: str) -> str:
    short = text if len(text) <= 10 else real(_float(text))
    return short.replace("-", "\u2212")


def _float(text: str) -> float | str:
    try:
        top, _, bottom = text.partition("/")
        return float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        return text


# ---- reduction


def reduction(view: View) -> Card | None:
    """Before and after, a bar for each layer, the reasons and what happens to the weights."""
    data = view.reduction
    before, after = listing(data.get("widths_before")), listing(data.get("widths_after"))
    if not before:
        return None
    facts: list[tuple[str, Child]] = [
        ("hidden neurons", change(whole(data.get("hidden_before")), whole(data.get("hidden_after")))),
        ("parameters", change(whole(data.get("parameters_before")), whole(data.get("parameters_after")))),
        ("weights", _rounding(mapping(data.get("rounding")))),
    ]
    if data.get("tolerance"):
        facts.append(("tolerance", real(data["tolerance"])))
    goal = f" → {widths_text(after)}" if before != after else ": nothing to remove"
    scope = str(data.get("scope") or "")
    where = {
        "everywhere": "The same function on all real inputs.",
        "on the domain": f"The same function on {view.domain}.",
    }
    lead = [el("span", widths_text(before), goal, class_="mono"), ". ", where.get(scope, scope)]
    return card(
        "Reduction, before and after",
        pairs(facts),
        _bars(view),
        _reasons(data, view),
        lead=lead,
        anchor=view.anchor("reduction"),
    )


def _rounding(rounding: Data) -> Child:
    kind, dtype = rounding.get("kind"), str(rounding.get("dtype") or "")
    if kind == "exact":
        return [f"exact in {dtype} ", chip("EXACT")]
    if not kind:
        return "–"
    bound = mapping(rounding.get("bound"))
    if not bound:
        return f"rounded to {dtype}"
    slope = f" + {outward(bound['slope'], up=True, digits=2)}·max|x|" if bound.get("slope") else ""
    change_of = f"outputs change by at most {outward(bound.get('constant'), up=True, digits=2)}{slope}"
    return [f"rounded to {dtype} ", chip("INTERVAL"), el("span", change_of, class_="why")]


def _bars(view: View, limit: int = 48) -> Markup | None:
    found = rows(view.reduction.get("per_layer"))
    if not found:
        return None
    scale = max(whole(row.get("before")) for row in found)
    used: dict[str, None] = {}
    lines = []
    for row in found[:limit]:
        before, after = whole(row.get("before")), whole(row.get("after"))
        removed = {str(k): whole(v) for k, v in mapping(row.get("removed")).items() if whole(v)}
        used.update(dict.fromkeys(removed))
        reasons = ", ".join(f"{count(n)} {KINDS.get(k, k)}" for k, n in removed.items()) or "nothing removed"
        name = view.layer_name(whole(row.get("layer")))
        bar = removal_bar(before, after, removed, scale, f"{name}: {change(before, after)} neurons; {reasons}")
        lines.append(
            el(
                "tr",
                el("th", name, scope="row"),
                el("td", bar, class_="fill"),
                el("td", change(before, after), class_="num"),
            )
        )
    more = len(found) - limit
    note = el("p", f"{count(more)} more layers are in the raw data.", class_="small") if more > 0 else None
    words = [("kept", "kept"), *((k, w) for k, w in KINDS.items() if k in used)]
    key = el(
        "ul", [el("li", el("span", class_=f"swatch k-{k}", aria_hidden="true"), w) for k, w in words], class_="key"
    )
    return Markup(
        el("table", el("caption", "Neurons before and after", class_="hidden"), el("tbody", lines), class_="bars")
        + key
        + (note or "")
    )


def _reasons(data: Data, view: View) -> Markup | None:
    found = rows(data.get("removed"))
    if not found:
        return None
    body = []
    for row in found:
        place = "everywhere" if row.get("scope") == "everywhere" else f"on {view.domain or 'the domain'}"
        body.append(
            [
                KINDS.get(str(row.get("kind")), row.get("kind")),
                count(whole(row.get("count"))),
                place,
                chip(row.get("rigor")),
            ]
        )
    return table("Why neurons were removed", ["reason", "neurons", "holds", "how it is known"], body, numeric=(1,))


# ---- tables and small print


def layers(view: View) -> Card | None:
    """One row per hidden layer."""
    if not view.layers:
        return None
    kinds = [k for k in KINDS if any(whole(row.get(k)) for row in view.layers)]
    states = [k for k in ("active", "inactive", "unstable") if any(row.get(k) is not None for row in view.layers)]
    with_activation = any(row.get("activation") for row in view.layers)
    head = ["layer", "name in the file", *(["activation"] if with_activation else []), "width", "effective",
            *(KINDS[k] for k in kinds), *states]  # fmt: skip
    body = []
    for row in view.layers:
        texts = [view.layer_name(whole(row.get("layer"))), str(row.get("name") or "–")]
        texts += [str(row.get("activation") or "–")] if with_activation else []
        body.append([*texts, *(real(row.get(k)) for k in ("width", "effective", *kinds, *states))])
    first = 3 if with_activation else 2
    lead = "Effective: what the reduced network keeps."
    if states:
        where = view.domain or "the domain"
        lead += f" Active and inactive: in one linear piece on {where}; unstable: not shown to be."
    made = table("Hidden layers", head, body, numeric=range(first, len(head)), tools=len(body) > 8, mono=(1,))
    return card("Layer by layer", made, lead=lead, wide=True, anchor=view.anchor("layers"))


def scope(view: View) -> Card | None:
    """Which theorems apply, and which hypothesis fails."""
    found = rows(view.data.get("scope"))
    if not found:
        return None
    body = [
        [[mark(row.get("applies"))], str(row.get("name") or row.get("theorem", "")), pretty(row.get("reason") or "")]
        for row in found
    ]
    return card(
        "Which theorems apply", table("Theorems", ["applies", "theorem", "why"], body), anchor=view.anchor("scope")
    )


def small_print(view: View) -> Card | None:
    """Skipped, assumed, limited: what to read before quoting a number."""
    parts: list[Child] = []
    skipped = [
        f"{row.get('layer') or row.get('name') or ''}: {row.get('reason', '')}"
        for row in rows(view.data.get("skipped"))
    ]
    limits = dict.fromkeys(str(t) for t in [*listing(view.data.get("limits")), *listing(view.reduction.get("limits"))])
    notes = [str(t) for t in listing(view.network.get("notes"))]
    told = listing(mapping(view.data.get("fiber")).get("hypotheses"))  # shown beside the value that rests on them
    assumed = [_assumption(a) for a in listing(view.data.get("assumes")) if a not in told]
    used = dict.fromkeys(
        str(t) for t in [*listing(view.data.get("theorems")), *listing(view.reduction.get("theorems"))]
    )
    theorems = [_theorem(key) for key in used]
    blocks: list[tuple[str, Iterable[Child], str | None]] = [
        ("Skipped", skipped, None), ("Assumed", assumed, "checks"), ("Limits", limits, None),
        ("Notes on the file", notes, None),
    ]  # fmt: skip
    for title, texts, look in blocks:
        made = list(texts)
        if made or (title in ("Skipped", "Limits") and view.kind in ("inspection", "reduction", "other")):
            parts += [el("h4", title), bullets(made, look) if made else el("p", "nothing", class_="small")]
    if theorems:
        parts += [el("h4", "Rests on"), el("ul", theorems, class_="theorems")]
    return card("Skipped, assumed, not said", parts, anchor=view.anchor("limits")) if parts else None


def _assumption(value: object) -> Child:
    row = mapping(value)
    if not row:
        return str(value)
    return [mark(row.get("holds") if row.get("checked", True) else None), " ", pretty(row.get("statement", ""))]


def _theorem(key: str) -> Markup:
    """A theorem by name, opening to its statement; an unknown key as it is."""
    known = THEOREMS.get(key)
    if known is None:
        return el("li", el("code", key))
    needs = el("p", "Needs: ", pretty("; ".join(known.hypotheses)), ".", class_="small") if known.hypotheses else None
    note = el("p", pretty(known.note), class_="small") if known.note else None
    return el("li", el("details", el("summary", known.name), el("p", pretty(known.statement)), needs, note))
