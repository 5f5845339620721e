"""Heat maps: a grid of cells as a table with coloured cells, and a symmetric matrix of cosines as a drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fiberscope.pages.charts import Number
from fiberscope.pages.markup import Child, Markup, count, el, real
from fiberscope.pages.parts import named, table

LEVELS = 10
"""Colours beyond the one of zero, per sign: dark on light pages and light on dark ones."""

Grid: TypeAlias = Sequence[Sequence[Number]]

_SIZE = 320  # of the drawing of a matrix
_BARS = 56  # height of the amplitudes under it
_SHOWN = 64  # rows of a drawn matrix


@dataclass(frozen=True)
class Range:
    """What the colours of a grid mean: values from `low` (pale) to `high` (strong); `low` may be the larger one."""

    low: float
    high: float
    log: bool = False

    def level(self, value: Number) -> int | None:
        """The colour of a value, 0 to 10; None for what is not there.

        >>> Range(0.0, 1.0).level(0.5), Range(1.0, 1e-10, log=True).level(1e-3)
        (5, 3)
        """
        if value is None:
            return None
        low, high, v = self.low, self.high, value
        if self.log:
            low, high, v = math.log10(low), math.log10(high), math.log10(max(v, 1e-300))
        share = (v - low) / (high - low) if high != low else 1.0
        return round(LEVELS * min(1.0, max(0.0, share)))

    def at(self, level: int) -> float:
        """The value in the middle of a colour."""
        t = level / LEVELS
        if self.log:
            return float(10.0 ** (math.log10(self.low) * (1 - t) + math.log10(self.high) * t))
        return self.low + (self.high - self.low) * t


@dataclass(frozen=True)
class Edge:
    """A line of a grid: for each row, from which value of the columns on (None: no line in the row)."""

    name: Child
    look: str
    from_: Sequence[Number]


def heat_table(
    title: str, rows: Sequence[Child], columns: Sequence[float], grid: Grid, colours: Range, *, corner: Child,
    digits: int = 2, edges: Sequence[Edge] = (), more: Sequence[tuple[str, Sequence[Child]]] = (),
) -> Markup:  # fmt: skip
    """A grid as a table: every cell shows its value on its colour, and has a row and a column heading.

    Args:
        title: what the cells are; heading and name of the table.
        rows: headings of the rows.
        columns: the growing numbers at the top.
        grid: (rows, columns); None where a cell is not known.
        colours: of the values.
        corner: words in the corner: what rows and columns are.
        digits: of the shown values.
        edges: lines between columns.
        more: headings and cells of columns without colour at the end.
    """
    marks = [[_first(columns, e.from_[r]) for r in range(len(rows))] for e in edges]
    head = [el("th", corner, scope="col", class_="corner")]
    head += [el("th", real(c), scope="col", class_="num") for c in columns]
    head += [el("th", text, scope="col", class_="num apart") for text, _ in more]
    lines = []
    for r, (name, values) in enumerate(zip(rows, grid, strict=True)):
        cells = []
        for c, value in enumerate(values):
            level = colours.level(value)
            look = "none" if level is None else f"q{level}"
            sides = "".join(f" {e.look}" for e, found in zip(edges, marks, strict=True) if found[r] == c)
            cells.append(el("td", real(value, digits), class_=f"cell {look}{sides}"))
        extra = [el("td", column[r], class_="num apart") for _, column in more]
        lines.append(el("tr", el("th", name, scope="row"), cells, extra))
    inner = el("table", el("caption", title, class_="hidden"), el("thead", el("tr", head)), el("tbody", lines))
    box = el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=title)
    return el("figure", named(title), box, class_="heat")


def _first(columns: Sequence[float], value: Number) -> int | None:
    return None if value is None else next((k for k, c in enumerate(columns) if c >= value), None)


def heat_key(colours: Range, name: str, edges: Sequence[Edge] = (), *, unknown: bool = False) -> Markup:
    """What the colours and lines mean."""
    items = []
    for level in (0, 2, 4, 6, 8, 10):
        text = real(colours.at(level), 1 if colours.log else 2)
        items.append(el("li", el("span", class_=f"swatch q{level}", aria_hidden="true"), text))
    items += [el("li", el("span", class_="swatch none", aria_hidden="true"), "not finished")] if unknown else []
    items += [el("li", el("span", class_=f"swatch {e.look}", aria_hidden="true"), e.name) for e in edges]
    return el("ul", el("li", f"{name}:"), items, class_="key heat-key")


# ---- matrices


@dataclass(frozen=True)
class Cosines:
    """Cosines between neurons in the order of their classes.

    Args:
        neurons: their numbers.
        values: (n, n) between -1 and 1.
        amplitudes: one each, None without.
        classes: the class of each neuron at one tolerance.
        folded: whether values are absolute ones.
    """

    neurons: Sequence[int]
    values: Sequence[Sequence[float]]
    amplitudes: Sequence[float] | None
    classes: Sequence[int]
    folded: bool

    def thinned(self, limit: int = _SHOWN) -> Cosines:
        """At most so many neurons, spread evenly."""
        n = len(self.neurons)
        if n <= limit:
            return self
        kept = [round(k * (n - 1) / (limit - 1)) for k in range(limit)]
        bars = None if self.amplitudes is None else [self.amplitudes[k] for k in kept]
        square = [[self.values[i][j] for j in kept] for i in kept]
        names = [self.neurons[k] for k in kept]
        return Cosines(names, square, bars, [self.classes[k] for k in kept], self.folded)


def matrix_map(title: str, found: Cosines, *, within: str, note: str = "") -> Markup:
    """The matrix with lines between classes, the amplitudes under it, and a table of the neurons."""
    shown = found.thinned()
    n = len(shown.neurons)
    square = [el("path", class_=look, d="".join(runs)) for look, runs in _runs(shown.values).items()]
    cuts = [k for k in range(1, n) if shown.classes[k] != shown.classes[k - 1]]
    marks = [f"M{k} 0v{n}M0 {k}h{n}" for k in cuts] if len(cuts) < n / 2 else []
    lines = el("path", class_="cuts", d="".join(marks)) if marks else None
    scale = f"scale({_SIZE / n:.6g})"
    shapes: list[Child] = [el("g", square, class_="cells", transform=scale), el("g", lines, transform=scale)]
    height = _SIZE
    if shown.amplitudes is not None and max(shown.amplitudes) > 0:
        shapes.append(_bars(shown.amplitudes))
        height += _BARS + 4
    sizes = _sizes(shown.classes)
    listed = ", ".join(map(str, sizes[:8])) + (", …" if len(sizes) > 8 else "")
    words = f"{title}: cosines between {n} neurons, {len(sizes)} classes {within} of {listed} neurons"
    drawing = el("svg", shapes, class_="matrix", viewBox=f"0 0 {_SIZE} {height}", role="img", aria_label=words)
    less = f"· {n} of {count(len(found.neurons))} neurons drawn" if n < len(found.neurons) else ""
    heading = named(title, " ".join(filter(None, [note, less])))
    return el("figure", heading, drawing, _members(title, shown, within), class_="heat drawn")


def _runs(values: Sequence[Sequence[float]]) -> dict[str, list[str]]:
    """Cells of one colour as lines of width one: a run of equal cells is one line."""
    out: dict[str, list[str]] = {}
    for i, row in enumerate(values):
        start, looks = 0, [_look(v) for v in row]
        for j in range(1, len(row) + 1):
            if j == len(row) or looks[j] != looks[start]:
                out.setdefault(looks[start], []).append(f"M{start} {i}.5h{j - start}")
                start = j
    return out


def _look(value: float) -> str:
    level = round(LEVELS * min(1.0, abs(value)))
    return f"n{level}" if value < 0 and level else f"q{level}"


def _bars(amplitudes: Sequence[float]) -> Markup:
    step, top = _SIZE / len(amplitudes), max(amplitudes)
    path = "".join(
        f"M{(k + 0.08) * step:.1f} {_SIZE + 4 + _BARS}v-{a / top * _BARS:.1f}h{0.84 * step:.1f}V{_SIZE + 4 + _BARS}z"
        for k, a in enumerate(amplitudes) if a > 0
    )  # fmt: skip
    return el("path", el("title", "amplitudes"), class_="amplitudes", d=path)


def _sizes(classes: Sequence[int]) -> list[int]:
    found = dict[int, int]()
    for c in classes:
        found[c] = found.get(c, 0) + 1
    return sorted(found.values(), reverse=True)


def _members(title: str, shown: Cosines, within: str) -> Markup:
    bars = shown.amplitudes
    head = ["neuron", f"class {within}", *["amplitude"] * (bars is not None), "cosine with the neuron above"]
    body = []
    for k, neuron in enumerate(shown.neurons):
        size = [] if bars is None else [real(bars[k])]
        body.append([count(neuron), count(shown.classes[k]), *size, real(shown.values[k][k - 1], 3) if k else "–"])
    made = table(f"Neurons: {title}", head, body, numeric=range(len(head)))
    return el("details", el("summary", "Values"), made, class_="values")


def matrix_key(*, folded: bool, bars: bool) -> Markup:
    """What the colours of a matrix mean."""
    looks = [("q0", "0"), ("q3", "0.3"), ("q5", "0.5"), ("q8", "0.8"), ("q10", "1")]
    looks = looks if folded else [("n10", "−1"), ("n5", "−0.5"), *looks]
    items = [el("li", el("span", class_=f"swatch {look}", aria_hidden="true"), text) for look, text in looks]
    if bars:
        items.append(el("li", el("span", class_="swatch bars", aria_hidden="true"), "amplitude of each neuron"))
    return el("ul", el("li", "|cosine|:" if folded else "cosine:"), items, class_="key heat-key")
