"""The parts of the page about the smallest invariant manifold: the network with its classes, levels, merge tree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fiberscope.pages import drawing, dynamics
from fiberscope.pages.data import Data, Group, View, letters, listing, mapping, rows, spans, whole
from fiberscope.pages.markup import Child, Markup, count, el, real
from fiberscope.pages.parts import Card, card, chip, figure, table, widths_text

_LISTED = 64
"""Wider layers are listed by the sizes of their classes."""
_LARGEST = 12
_MEMBERS, _FEW = 24, 8
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class _Still(Group):
    """Neurons that never move: null ones, or frozen constants."""

    @property
    def silent(self) -> bool:
        return True

    @property
    def words(self) -> str:
        return "null: output 0" if self.kind == "null" else "constant, never moves"


def sim_tiles(data: Data) -> list[Data]:
    """The outcome in three numbers."""
    rigor = data.get("rigor")
    dimension, ambient = whole(data.get("dimension")), whole(data.get("ambient"))
    tiles: list[Data] = [
        {"title": f"{dimension:,} of {ambient:,}", "text": "dimensions that training can move in", "rigor": rigor},
        {"title": widths_text(listing(data.get("reduced_widths"))), "text": "widths it trains like", "rigor": rigor},
    ]
    tree = mapping(data.get("merge_tree"))
    if tree:
        found = tree.get("suggested")
        tiles.append({
            "title": f"{found:,} classes" if isinstance(found, int) else "no number of classes",
            "text": "stand out when neurons are merged by distance", "rigor": tree.get("rigor"),
        })  # fmt: skip
    return tiles


def sim_summary(view: View) -> Card | None:
    """Dimension and meaning, with the lattice of all kinds where there is one."""
    if view.kind != "smallest-sim":  # an inspection has the card too
        return None
    return dynamics.training(replace(view, data={"sim": view.data, "lattice": view.data.get("lattice")}))


def sim_network(view: View) -> Card | None:
    """The network drawn with its classes, and which neuron is in which class."""
    if view.kind != "smallest-sim":
        return None
    shown = _with_groups(view)
    if shown is None:
        return None
    lead = "Neurons of one colour and letter move together under gradient flow, whatever the data and the loss. "
    if any(g.silent for g in shown.groups):
        lead += "Grey: neurons that never move. "
    if max(shown.widths) > _LISTED:
        lead += "Wide layers are drawn as bands, in proportion. "
    drawn = figure(drawing.network_drawing(shown), "Network drawing, scrollable")
    return card(
        "Network and its classes", drawn, _legend(shown), _table(shown), _sizes(shown), lead=lead.strip(),
        wide=drawing.wants_width(shown), anchor=view.anchor("classes"),
    )  # fmt: skip


def sim_levels(view: View) -> Card | None:
    """Exact, numerical and approximate classes side by side."""
    if view.kind != "smallest-sim":
        return None
    found = rows(view.data.get("levels"))
    if not found:
        return None
    body = []
    for row in found:
        widths = listing(row.get("reduced_widths"))
        slack = max((float(t) for t in listing(row.get("tolerance")) if isinstance(t, int | float)), default=0.0)
        same = row.get("same_as")
        name: Child = [str(row.get("name")), el("span", f"as {same}", class_="why") if same else None]
        body.append([
            name, "–" if not slack else real(slack, 2), widths_text(widths), count(whole(row.get("dimension"))),
            real(row.get("distance"), 3), real(row.get("relative"), 2), chip(row.get("rigor")),
        ])  # fmt: skip
    heads = ["level", "tolerance", "widths", "dimension", "distance", "of |θ|", "known"]
    lead = "Classes over the rationals, up to rounding in the network's dtype, and up to a tolerance if one was given."
    note = el("p", "Distance: from θ to the nearest parameters whose neurons fall into these classes exactly.",
              class_="small")  # fmt: skip
    made = table("Levels", heads, body, numeric=(1, 3, 4, 5), mono=(2,))
    return card("Levels: how nearly equal neurons are", made, note, lead=lead, anchor=view.anchor("levels"))


def sim_tree(view: View) -> Card | None:
    """Distance from the manifold against the number of classes."""
    if view.kind != "smallest-sim":
        return None
    tree = mapping(view.data.get("merge_tree"))
    steps = [s for s in rows(tree.get("steps")) if whole(s.get("classes")) > 0]
    if not steps:
        return None
    found = tree.get("suggested")
    if isinstance(found, int):
        jump = f"{real(tree.get('ratio'), 3)} times" if isinstance(tree.get("ratio"), int | float) else "far"
        head = el("p", el("strong", f"{count(found)} classes", class_="big"),
                  el("span", f"stand out: the next merge joins neurons {jump} further apart ", chip(tree.get("rigor"))),
                  class_="stat")  # fmt: skip
    else:
        head = el("p", "No number of classes stands out: no merge is ten times wider than all before it. ",
                  chip(tree.get("rigor")), class_="refused")  # fmt: skip
    at = next((k for k, s in enumerate(steps) if s.get("classes") == found), 0)
    few = len(steps) <= 12
    near = {0, *range(max(0, at - 1), min(at + 2, len(steps))), *range(max(0, len(steps) - 5), len(steps))}
    chosen = list(range(len(steps))) if few else sorted(near)
    body = [
        [count(whole(steps[k]["classes"])), real(steps[k].get("distance"), 3), count(whole(steps[k].get("dimension")))]
        for k in chosen
    ]
    keys = ["chosen" if steps[k].get("classes") == found else None for k in chosen]
    made = table("Merge tree", ["classes", "distance", "dimension"], body, numeric=(0, 1, 2), keys=keys)
    capped = str(tree.get("capped") or "")
    note = el("p", capped[:1].upper(), capped[1:], ".", class_="small") if capped else None
    lead = "Neurons are merged two by two, nearest first; each level lies at this distance from exact classes."
    return card("Merge tree", head, _plot(steps, found), made, note, lead=lead, anchor=view.anchor("tree"))


# ---- groups


def _with_groups(view: View) -> View | None:
    """The view with widths and groups of the exact level."""
    data = view.data
    ends, layers, null = listing(data.get("reduced_widths")), listing(data.get("classes")), listing(data.get("null"))
    if len(ends) < 2 or len(layers) != len(ends) - 2:
        return None
    groups: list[Group] = []
    widths = [whole(ends[0])]
    for k, classes in enumerate(layers):
        still = {whole(i) for i in _at(data.get("frozen"), k)}
        minus = {whole(i) for i in _at(data.get("negative"), k)}
        silent = tuple(whole(i) for i in listing(null[k])) if k < len(null) else ()
        widths.append(sum(len(listing(c)) for c in classes) + len(silent))
        colour = 0
        for n, members in enumerate(tuple(whole(i) for i in listing(c)) for c in classes):
            if len(members) == 1 and members[0] in still:
                groups.append(_Still(k, "", "constant", members))
                continue
            shared = len(members) > 1
            factors = tuple("-1" if i in minus else "1" for i in members)
            groups.append(Group(k, letters(n), "merged" if shared else "single", members, factors,
                                colour=colour if shared else None))  # fmt: skip
            colour += shared
        if silent:
            groups.append(_Still(k, "", "null", silent))
    widths.append(whole(ends[-1]))
    if min(widths) < 1:
        return None
    return replace(view, widths=tuple(widths), groups=tuple(groups), weights=())


def _at(value: object, k: int) -> list[object]:
    found = listing(value)
    return listing(found[k]) if k < len(found) else []


def _legend(view: View) -> Markup:
    items = []
    if any(g.colour is not None for g in view.groups):
        items.append(("c0", "A", "one colour and letter: one class"))
    if any(g.colour is None and not g.silent for g in view.groups):
        items.append(("alone", "", "on its own"))
    items += [("silent", "", words) for words in dict.fromkeys(g.words for g in view.groups if g.silent)]
    marks = [
        el("li", el("span", letter, class_=f"dot {look}", aria_hidden="true"), text) for look, letter, text in items
    ]
    return el("ul", marks, class_="key") if marks else Markup("")


def _table(view: View) -> Markup | None:
    """Which neurons are in which class; of wide layers only the largest shared classes."""
    kept: list[Group] = []
    for layer in range(len(view.widths) - 2):
        here = [g for g in view.groups if g.layer == layer]
        if view.widths[layer + 1] > _LISTED:
            shared = sorted((g for g in here if g.colour is not None), key=lambda g: -len(g.members))[:_LARGEST]
            here = [g for g in here if any(g is s for s in shared) or g.silent]
        kept += here
    if not kept:
        return None
    body, keys = [], []
    for g in _together(kept):
        long = len(g.label) > 2
        dot = el("span", "" if long else g.label, class_=f"dot {drawing.look_of(g)}", aria_hidden="true")
        name = el("span", "never moves" if g.silent else g.label, class_=None if long else "hidden")
        words = g.words if g.silent or g.colour is None else _relation(g)
        body.append([view.layer_name(g.layer), [dot, name], words, count(len(g.members)),
                     _members(g, _FEW if view.widths[g.layer + 1] > _LISTED else _MEMBERS)])  # fmt: skip
        keys.append(drawing.key_of(g))
    heads = ["layer", "class", "what", "neurons", "old neurons"]
    return table("Neurons by class", heads, body, numeric=(3,), mono=(4,), tools=len(body) > 8, keys=keys)


def _relation(group: Group) -> str:
    return "move together, up to sign" if "-1" in group.factors else "move together"


def _together(groups: Sequence[Group]) -> list[Group]:
    """Neurons on their own in one row for each layer where there are many."""
    out: list[Group] = []
    for layer in sorted({g.layer for g in groups}):
        here = [g for g in groups if g.layer == layer]
        single = [g for g in here if g.colour is None and not g.silent]
        if len(single) > 6:
            here = [g for g in here if g.colour is not None or g.silent]
            here.append(Group(layer, "", "alone", tuple(m for g in single for m in g.members)))
        out += here
    return out


def _members(group: Group, limit: int) -> str:
    minus = {m for m, f in zip(group.members, group.factors, strict=False) if f == "-1"}
    if minus:
        texts = [f"−{m}" if m in minus else str(m) for m in group.members]
    else:
        texts = spans(group.members)
    return ", ".join(texts[:limit]) + (f", … {count(len(texts) - limit)} more" if len(texts) > limit else "")


def _sizes(view: View) -> Markup | None:
    """For wide layers, how many classes there are of each size."""
    body = []
    for layer, width in enumerate(view.widths[1:-1]):
        if width <= _LISTED:
            continue
        here = [g for g in view.groups if g.layer == layer]
        sizes = Counter(len(g.members) for g in here if not g.silent)
        still = sum(len(g.members) for g in here if g.silent)
        for low, high in _bins(sizes):
            number = sum(n for size, n in sizes.items() if low <= size <= high)
            neurons = sum(size * n for size, n in sizes.items() if low <= size <= high)
            span = str(low) if low == high else f"{low:,}–{high:,}"
            body.append([view.layer_name(layer), span, count(number), count(neurons)])
        if still:
            body.append([view.layer_name(layer), "never move", "–", count(still)])
    if not body:
        return None
    made = table("Classes by size", ["layer", "neurons in a class", "classes", "neurons"], body, numeric=(1, 2, 3))
    many = any(
        sum(1 for g in view.groups if g.layer == layer and g.colour is not None) > _LARGEST
        for layer, width in enumerate(view.widths[1:-1])
        if width > _LISTED
    )
    more = f"The table above lists the {_LARGEST} largest classes of a wide layer; all are in the JSON."
    note = el("p", more, class_="small") if many else Markup("")
    return Markup(el("h4", "Wide layers: classes by size") + made + note)


def _bins(sizes: Counter[int], limit: int = 12) -> list[tuple[int, int]]:
    """Every size on its own where there are few, else powers of two."""
    if len(sizes) <= limit:
        return [(s, s) for s in sorted(sizes)]
    powers = sorted({max(0, s.bit_length() - 1) for s in sizes})
    return [(2**p, 2 ** (p + 1) - 1) for p in powers]


# ---- the plot


def _plot(steps: Sequence[Data], suggested: object) -> Markup:
    """Distance (logarithmic) over the number of classes (logarithmic, fewest on the right)."""
    width, height, left, right, top, bottom = 440, 210, 44, 14, 24, 40
    points = [(whole(s["classes"]), _float(s.get("distance"))) for s in steps]
    positive = [d for _, d in points if d > 0]
    if not positive or len(points) < 2:
        return Markup("")
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 1e-9)
    low = max(min(low, high - 1), high - 18)
    most, least = math.log(max(n for n, _ in points)), math.log(min(n for n, _ in points))

    def across(n: int) -> float:
        share = (most - math.log(n)) / (most - least) if most > least else 0.5
        return round(left + share * (width - left - right), 2)

    def down(d: float) -> float:
        share = (math.log10(d) - low) / (high - low) if d > 0 else 0.0
        return round(height - bottom - min(1.0, max(0.0, share)) * (height - top - bottom), 2)

    axis = [el("line", class_="axis", x1=left, x2=width - right, y1=height - bottom, y2=height - bottom)]
    for power in range(low, high + 1, max(1, -(-(high - low) // 5))):
        y = down(10.0**power)
        axis.append(el("line", class_="axis", x1=left - 4, x2=left, y1=y, y2=y))
        axis.append(el("text", _power(power), x=left - 8, y=y + 4, text_anchor="end"))
    for n in _marks(max(n for n, _ in points), min(n for n, _ in points)):
        x = across(n)
        axis.append(el("line", class_="axis", x1=x, x2=x, y1=height - bottom, y2=height - bottom + 4))
        axis.append(el("text", count(n), x=x, y=height - bottom + 18, text_anchor="middle"))
    caption = "distance from exact classes, by their number"
    axis.append(el("text", caption, x=(left + width - right) / 2, y=height - 6, text_anchor="middle"))
    path = "M" + "L".join(f"{across(n)} {down(d)}" for n, d in _thinned(points))
    shapes = [el("path", class_="kink c0", d=path)]
    if len(points) <= 40:
        shapes += [
            el("circle", el("title", f"{count(n)} classes: distance {real(d, 3)}"), class_="k-end", cx=across(n),
               cy=down(d), r=3)
            for n, d in points
        ]  # fmt: skip
    chosen = next(((n, d) for n, d in reversed(points) if n == suggested), None)
    if chosen is not None:
        x = across(chosen[0])
        side = "end" if x > width - 90 else "start" if x < left + 60 else "middle"
        shapes.append(el("line", class_="median", x1=x, x2=x, y1=top, y2=height - bottom))
        shapes.append(el("text", f"{count(chosen[0])} classes", class_="mark", x=x, y=top - 6, text_anchor=side))
    words = f"Distance from the manifold for {count(points[0][0])} down to {count(points[-1][0])} classes"
    words += f"; {count(chosen[0])} stand out" if chosen is not None else ""
    return el("svg", axis, shapes, class_="plot slice", viewBox=f"0 0 {width} {height}", role="img", aria_label=words)


def _power(exponent: int) -> str:
    return {0: "1", 1: "10"}.get(exponent, "10" + str(exponent).translate(_RAISED))


def _thinned(points: Sequence[tuple[int, float]], limit: int = 400) -> list[tuple[int, float]]:
    """At most so many points, dense where there are few classes."""
    if len(points) <= limit:
        return list(points)
    most = math.log(len(points))
    kept = {len(points) - round(math.exp(most * k / limit)) for k in range(limit + 1)} | {0, len(points) - 1}
    return [points[k] for k in sorted(k for k in kept if 0 <= k < len(points))]


def _marks(most: int, least: int) -> list[int]:
    """Numbers of classes to write below the axis: the ends and powers of ten well between."""
    powers = [10**p for p in range(7) if least * 3 <= 10**p <= most / 3]
    return sorted({most, least, *powers})


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
