"""The drawing of a network: neurons in the colours of their classes, wide layers as bands, weights as lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fiberscope.pages.data import Group, View
from fiberscope.pages.markup import Markup, count, el

COLOURS = 8
"""Colours for shared classes; letters tell apart what repeats a colour."""

_LISTED = 64  # wider layers are bands
_END = 16  # inputs and outputs beyond this are bands
_TALL = 16  # neurons in one column of a block
_PITCH, _RADIUS = 29, 11
_BAND = 46
_TOP = 16
_WIDE = 680  # wider drawings want the full width of the page


@dataclass(frozen=True)
class _Column:
    """Where one layer stands: `spots` are the centres of its neurons; without spots it is a band."""

    layer: int  # -1 for the inputs, then hidden layers, then the outputs
    size: int
    x: float
    half: float
    top: float
    bottom: float
    spots: tuple[tuple[float, float], ...]


def network_drawing(view: View) -> Markup:
    """The network as one SVG with its own description."""
    columns, width, height = _columns(view.widths)
    body: list[Markup] = []
    for k, (a, b) in enumerate(zip(columns, columns[1:], strict=False)):
        if view.weights and a.spots and b.spots:
            body += _edges(view.weights[k], a, b)
        else:
            body.append(_ribbon(a, b))
    for column in columns:
        groups = [g for g in view.groups if g.layer == column.layer]
        body += _neurons(column, groups) if column.spots else _band(column, groups)
        body.append(_caption(column, height, len(columns) - 2, groups))
    look = "net wide" if width > _WIDE else "net mid" if len(columns) > 4 else "net"
    return el(
        "svg", body, class_=look, width=round(width), height=round(height + 44),
        viewBox=f"0 0 {width:.0f} {height + 44:.0f}", role="img", aria_label=_description(view),
    )  # fmt: skip


def wants_width(view: View) -> bool:
    """Whether the drawing is too wide for half of the page."""
    return _columns(view.widths)[1] > _WIDE


def _description(view: View) -> str:
    texts = [f"Network with layers of {', '.join(map(count, view.widths))} neurons."]
    for layer in range(len(view.widths) - 2):
        groups = [g for g in view.groups if g.layer == layer]
        shared = sum(1 for g in groups if g.colour is not None)
        silent = sum(len(g.members) for g in groups if g.silent)
        texts.append(f"Hidden layer {layer + 1}: {shared} shared classes, {silent} neurons without effect.")
    return " ".join(texts)


# ---- places


def _columns(widths: Sequence[int]) -> tuple[list[_Column], float, float]:
    last = len(widths) - 1
    blocks = [n <= (_END if k in (0, last) else _LISTED) for k, n in enumerate(widths)]
    tallest = max([_down(n) for n, block in zip(widths, blocks, strict=True) if block] or [1])
    height = max(tallest * _PITCH, 190 if all(blocks) else 320) + 2 * _TOP
    halves = [
        (math.ceil(n / _TALL) * _PITCH / 2 if block else _BAND / 2) for n, block in zip(widths, blocks, strict=True)
    ]
    gap = max(44.0, min(170.0, (560 - 2 * sum(halves)) / max(1, last)))
    largest = max(widths)
    columns, x = [], 26.0
    for k, (n, block, half) in enumerate(zip(widths, blocks, halves, strict=True)):
        x += half
        share = 1.0 if block else 0.6 + 0.4 * math.sqrt(n / largest)
        tall = (height - 2 * _TOP) * share
        top = (height - tall) / 2
        spots = tuple(_spots(n, x, height)) if block else ()
        columns.append(_Column(k - 1, n, x, half, top, top + tall, spots))
        x += half + gap
    return columns, x - gap + 26.0, height


def _down(n: int) -> int:
    """Rows of a block of n neurons."""
    return math.ceil(n / math.ceil(n / _TALL))


def _spots(n: int, x: float, height: float) -> Iterator[tuple[float, float]]:
    """Centres of n neurons, column by column from the top, the block centred on (x, height / 2)."""
    across, down = math.ceil(n / _TALL), _down(n)
    pitch = min(54.0, max(_PITCH, (height - 2 * _TOP) / max(down, 5))) if across == 1 else _PITCH
    for i in range(n):
        j, k = divmod(i, down)
        here = min(down, n - j * down)
        yield x + (j - (across - 1) / 2) * _PITCH, height / 2 + (k - (here - 1) / 2) * pitch


# ---- what is drawn


def _ribbon(a: _Column, b: _Column) -> Markup:
    """A faint band between two layers, so that the eye follows the data."""
    (al, ah), (bl, bh) = _extent(a), _extent(b)
    x0, x1 = a.x + a.half, b.x - b.half
    middle = (x0 + x1) / 2
    shape = f"M{x0:.0f} {al:.0f}C{middle:.0f} {al:.0f} {middle:.0f} {bl:.0f} {x1:.0f} {bl:.0f}"
    back = f"V{bh:.0f}C{middle:.0f} {bh:.0f} {middle:.0f} {ah:.0f} {x0:.0f} {ah:.0f}Z"
    return el("path", class_="ribbon", d=shape + back)


def _extent(column: _Column) -> tuple[float, float]:
    if not column.spots:
        return column.top, column.bottom
    ys = [y for _, y in column.spots]
    return min(ys) - _RADIUS, max(ys) + _RADIUS


def _edges(matrix: Sequence[Sequence[float]], a: _Column, b: _Column) -> Iterator[Markup]:
    """Lines in four widths by |w| relative to the layer's largest, coloured by sign; one path for each look."""
    found = [(w, i, j) for i, row in enumerate(matrix) for j, w in enumerate(row) if isinstance(w, int | float) and w]
    largest = max((abs(w) for w, _, _ in found), default=0.0)
    looks: dict[str, list[str]] = {}
    for w, i, j in found:
        (x0, y0), (x1, y1) = a.spots[j], b.spots[i]
        middle = (x0 + x1) / 2
        look = f"{'plus' if w > 0 else 'minus'} w{min(3, int(4 * abs(w) / largest))}"
        looks.setdefault(look, []).append(
            f"M{x0:.0f} {y0:.0f}C{middle:.0f} {y0:.0f} {middle:.0f} {y1:.0f} {x1:.0f} {y1:.0f}"
        )
    for look in sorted(looks, key=lambda key: key[-1]):
        yield el("path", class_=f"edge {look}", d="".join(looks[look]))


def _neurons(column: _Column, groups: Sequence[Group]) -> Iterator[Markup]:
    of = {i: g for g in groups for i in g.members}
    outer = column.layer < 0 or not groups
    for i, (x, y) in enumerate(column.spots):
        group = of.get(i)
        circle = el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=_RADIUS)
        if group is None:
            yield el("g", circle, class_="node end" if outer else "node")
            continue
        small = " small" if len(group.label) > 1 else ""
        letter = (
            el("text", group.label, class_=f"letter{small}", x=f"{x:.1f}", y=f"{y + 4.2:.1f}") if group.label else None
        )
        if group.colour is None and not group.silent:
            yield el("g", circle, letter, class_="node alone")
            continue
        title = el("title", f"neuron {i}: {group.label + ', ' if group.label else ''}{group.words}")
        yield el("g", title, circle, letter, class_=f"node {look_of(group)}", data_class=key_of(group))


def _band(column: _Column, groups: Sequence[Group]) -> Iterator[Markup]:
    """A wide layer as proportions: shared classes (largest first), neurons on their own, those without effect."""
    shared = sorted((g for g in groups if g.colour is not None), key=lambda g: -len(g.members))
    silent = sum(len(g.members) for g in groups if g.silent)
    parts: list[tuple[str, str, int, str | None]] = []
    scale = (column.bottom - column.top) / column.size
    big = [g for g in shared if len(g.members) * scale >= 15][:6]
    for g in big:
        parts.append((look_of(g), g.label, len(g.members), key_of(g)))
    rest = sum(len(g.members) for g in shared) - sum(n for _, _, n, _ in parts)
    if rest:
        parts.append(("shared", f"{len(shared) - len(big):,}×", rest, None))
    alone = column.size - sum(n for _, _, n, _ in parts) - silent
    parts += [("", count(alone), alone, None)] if alone > 0 else []
    parts += [("silent", count(silent), silent, None)] if silent else []
    y = column.top
    for look, label, size, key in parts:
        tall = size * scale
        letter = el("text", label, class_="letter band", x=f"{column.x:.1f}", y=f"{y + tall / 2 + 4:.1f}")
        words = {"shared": "in smaller shared classes", "": "on their own", "silent": "without effect"}
        title = el("title", f"{count(size)} neurons " + words.get(look, f"in class {label}"))
        box = el("rect", x=f"{column.x - column.half:.1f}", y=f"{y:.1f}", width=_BAND, height=f"{max(tall, 1):.1f}")
        outer = " end" if column.layer < 0 or not groups else ""
        yield el("g", title, box, letter if tall >= 15 else None, class_=f"node {look}{outer}".strip(), data_class=key)
        y += tall


def look_of(group: Group) -> str:
    """Style of a group: a colour, plain, or silent."""
    if group.silent:
        return "silent"
    return "alone" if group.colour is None else f"c{group.colour % COLOURS}"


def key_of(group: Group) -> str:
    """What marks the same class in the drawing and in the table."""
    return f"{group.layer}.{group.label or group.kind}"


def _caption(column: _Column, height: float, hidden: int, groups: Sequence[Group]) -> Markup:
    name = "input" if column.layer < 0 else "output" if column.layer == hidden else f"hidden {column.layer + 1}"
    short = name.replace("hidden ", "h") if hidden > 6 else name
    return el(
        "g", el("text", short, class_="caption", x=f"{column.x:.1f}", y=f"{height + 16:.0f}"),
        el("text", count(column.size), class_="caption strong", x=f"{column.x:.1f}", y=f"{height + 34:.0f}"),
    )  # fmt: skip


def legend(view: View) -> Markup:
    """What colours and lines mean, only for what is drawn."""
    items = []
    if any(g.colour is not None for g in view.groups):
        items.append(("c0", "A", "one colour and letter: one class"))
    if any(g.colour is None and not g.silent for g in view.groups):
        items.append(("alone", "", "on its own"))
    if any(g.silent for g in view.groups):
        items.append(("silent", "", "no effect on the output"))
    marks = [
        el("li", el("span", letter, class_=f"dot {look}", aria_hidden="true"), text) for look, letter, text in items
    ]
    if view.weights:
        marks.append(el("li", el("span", class_="stroke plus", aria_hidden="true"), "weight > 0"))
        marks.append(
            el("li", el("span", class_="stroke minus", aria_hidden="true"), "weight < 0; width: size in its layer")
        )
    return el("ul", marks, class_="key") if marks else Markup("")
