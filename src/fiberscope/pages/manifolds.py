"""The drawing of a lattice of invariant manifolds by type: boxes in rows of equal dimension, lines for containment."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fiberscope.pages.data import Data, listing, rows, whole
from fiberscope.pages.drawing import COLOURS
from fiberscope.pages.markup import Markup, count, el

_DOT, _ROW = 11, 4  # pitch of the dots; dots side by side
_LABEL = 62  # room for "dim 16"


@dataclass(frozen=True)
class Kind:
    """One type: class sizes, null neurons, dimension, how many manifolds there are."""

    index: int
    name: str
    sizes: tuple[int, ...]
    null: int
    dimension: int
    count: int
    here: bool

    @property
    def dots(self) -> int:
        """Neurons of the layer."""
        return sum(self.sizes) + self.null


def kinds_of(lattice: Data) -> list[Kind]:
    """The types of a lattice, read from `sizes` and `null` or from the name."""
    out = []
    for row in rows(lattice.get("types")):
        name = str(row.get("layer_type") or "")
        parts = re.match(r"^([\d+ ]*?)(?:\s*null\s+(\d+))?$", name)
        sizes = listing(row.get("sizes"))
        if not sizes and parts and parts[1].strip():
            sizes = [int(n) for n in re.findall(r"\d+", parts[1]) if int(n)]
        null = row.get("null") if row.get("null") is not None else int(parts[2] or 0) if parts else 0
        out.append(Kind(
            whole(row.get("id")), name, tuple(whole(s) for s in sizes), whole(null), whole(row.get("dimension")),
            whole(row.get("count"), 1), row.get("here") is True,
        ))  # fmt: skip
    width = max((k.dots for k in out), default=0)
    return [replace(k, null=width) if not k.dots else k for k in out]


def edges_of(lattice: Data, kinds: Sequence[Kind]) -> list[tuple[int, int]]:
    """Pairs (larger, smaller) of neighbouring types."""
    known = {k.index: k.dimension for k in kinds}
    pairs = [tuple(pair) for pair in listing(lattice.get("edges")) if len(listing(pair)) == 2]
    return [(a, b) if known[a] >= known[b] else (b, a) for a, b in pairs if a in known and b in known]


def reachable(start: int, edges: Sequence[tuple[int, int]]) -> set[int]:
    """Everything below `start`, itself excluded.

    >>> sorted(reachable(0, [(0, 1), (1, 2), (3, 2)]))
    [1, 2]
    """
    below = defaultdict(list)
    for a, b in edges:
        below[a].append(b)
    seen: set[int] = set()
    stack = [start]
    while stack:
        for b in below[stack.pop()]:
            if b not in seen:
                seen.add(b)
                stack.append(b)
    return seen


def details(kind: Kind, edges: Sequence[tuple[int, int]], ambient: int) -> str:
    """One paragraph about a type."""
    below, above = reachable(kind.index, edges), reachable(kind.index, [(b, a) for a, b in edges])
    together = [str(s) for s in kind.sizes if s > 1]
    moving = []
    if len(together) == 1:
        moving.append(f"{together[0]} neurons move as one")
    elif together:
        moving.append(f"groups of {', '.join(together[:-1])} and {together[-1]} neurons each move as one")
    if kind.null:
        moving.append(f"{_plural(kind.null, 'neuron')} of output zero")
    behaves = (
        f"behaves like width {len(kind.sizes)}" if kind.dots != len(kind.sizes) else "no two neurons move together"
    )
    start = "This network. " if kind.here else ""
    of = f" of {count(ambient)}" if ambient else ""
    return (
        f"{start}Dimension {count(kind.dimension)}{of}: {'; '.join([*moving, behaves])}. "
        f"{_plural(kind.count, 'such manifold')} in parameter space; "
        f"contained in {_plural(len(above), 'larger kind')}, contains {_plural(len(below), 'smaller kind')}."
    )


def _plural(n: int, noun: str) -> str:
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def lattice_drawing(lattice: Data, ambient: int) -> Markup:
    """The lattice as an SVG whose boxes can be chosen, with a line of details below."""
    kinds = kinds_of(lattice)
    if not kinds:
        return Markup("")
    edges = edges_of(lattice, kinds)
    levels = _levels(kinds, edges)
    wide = max(min(max(k.dots for k in kinds), _ROW) * _DOT + 20, 58)
    tall = -(-max(k.dots for k in kinds) // _ROW) * _DOT + 30
    width = max(_LABEL + max(len(level) for level in levels) * (wide + 16) + 8, 420)
    step = tall + 40
    places = {
        kind.index: (_LABEL + (width - _LABEL) * (c + 0.5) / len(level), r * step + 4)
        for r, level in enumerate(levels)
        for c, kind in enumerate(level)
    }
    here = next((k for k in kinds if k.here), None)
    below = reachable(here.index, edges) | {here.index} if here else set()
    above = reachable(here.index, [(b, a) for a, b in edges]) | {here.index} if here else set()
    lines = [_line(places[a], places[b], tall, (a, b), {a, b} <= below or {a, b} <= above) for a, b in edges]
    names = [
        el("text", f"dim {level[0].dimension}", class_="caption left", x=0, y=f"{r * step + tall / 2 + 8:.0f}")
        for r, level in enumerate(levels)
    ]
    boxes = [
        _box(kind, places[kind.index], wide, tall, details(kind, edges, ambient)) for level in levels for kind in level
    ]
    height = len(levels) * step - 40 + 10
    drawing = el(
        "svg", lines, names, boxes, class_="lattice wide" if width > 620 else "lattice", role="group",
        width=round(width), height=height, viewBox=f"0 0 {width:.0f} {height}",
        aria_label=f"Lattice of {len(kinds)} kinds of invariant manifolds, largest dimension on top",
    )  # fmt: skip
    chosen = details(here, edges, ambient) if here else "Choose a box to see what it contains."
    return el("div", el("div", drawing, class_="scroll", tabindex=0, role="region", aria_label="Lattice, scrollable"),
              el("p", chosen, class_="details", aria_live="polite"), class_="lattice-box")  # fmt: skip


def _levels(kinds: Sequence[Kind], edges: Sequence[tuple[int, int]]) -> list[list[Kind]]:
    """Rows of equal dimension, each ordered by the mean place of its neighbours above, then below, to cross less."""
    by_dimension: dict[int, list[Kind]] = defaultdict(list)
    for kind in kinds:
        by_dimension[kind.dimension].append(kind)
    levels = [by_dimension[d] for d in sorted(by_dimension, reverse=True)]
    near: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        near[a].append(b)
        near[b].append(a)
    for sweep in range(6):
        place = {k.index: (c + 0.5) / len(level) for level in levels for c, k in enumerate(level)}
        for level in levels if sweep % 2 == 0 else reversed(levels):
            level.sort(key=lambda k: (sum(place[i] for i in near[k.index]) / max(1, len(near[k.index])), k.null))
            place.update({k.index: (c + 0.5) / len(level) for c, k in enumerate(level)})
    return levels


def _line(a: tuple[float, float], b: tuple[float, float], tall: float, pair: tuple[int, int], reached: bool) -> Markup:
    (x0, y0), (x1, y1) = (a[0], a[1] + tall), b
    return el(
        "path", class_="link on" if reached else "link", data_a=pair[0], data_b=pair[1],
        d=f"M{x0:.0f} {y0:.0f}L{x1:.0f} {y1:.0f}",
    )  # fmt: skip


def _box(kind: Kind, place: tuple[float, float], wide: float, tall: float, text: str) -> Markup:
    x, y = place
    looks = [f"c{c % COLOURS}" for c, size in enumerate(kind.sizes) for _ in range(size)] + ["null"] * kind.null
    dots = []
    for i, look in enumerate(looks):
        row, column = divmod(i, _ROW)
        across = min(_ROW, len(looks) - row * _ROW)
        cx, cy = x + (column - (across - 1) / 2) * _DOT, y + 12 + row * _DOT
        dots.append(el("circle", class_=f"mark {look}", cx=f"{cx:.1f}", cy=f"{cy:.1f}", r=4))
    frame = el("rect", x=f"{x - wide / 2:.1f}", y=f"{y:.1f}", width=f"{wide:.0f}", height=tall, rx=8)
    number = el("text", f"×{count(kind.count)}", class_="caption", x=f"{x:.1f}", y=f"{y + tall - 8:.1f}")
    return el(
        "g", frame, dots, number, class_="kind here chosen" if kind.here else "kind", data_id=kind.index,
        data_details=text, aria_label=f"{kind.name}: {text}", role="img",
    )  # fmt: skip
