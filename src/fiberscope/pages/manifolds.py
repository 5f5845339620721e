"""The drawing of a lattice of invariant manifolds by type: boxes in rows of equal dimension, lines for containment."""

from __future__ import annotations

import decimal
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fiberscope.pages.data import Data, listing, rows, whole
from fiberscope.pages.drawing import COLOURS
from fiberscope.pages.markup import Markup, count, el, pretty
from fiberscope.pages.parts import widths_text

_DOT, _ROW = 11, 4  # pitch of the dots; dots side by side
_GAP = 7  # between the layers of a box
_LABEL = 62  # room for "dim 16"
_SIDE = 18  # boxes side by side that can still be read


@dataclass(frozen=True)
class Block:
    """The classes of one hidden layer: sizes, null neurons, sizes of classes without incoming weights."""

    sizes: tuple[int, ...]
    null: int = 0
    quiet: tuple[int, ...] = ()

    @property
    def dots(self) -> int:
        """Neurons of the layer."""
        return sum(self.sizes) + self.null + sum(self.quiet)


@dataclass(frozen=True)
class Kind:
    """One type: the classes of every hidden layer, dimension, how many manifolds there are.

    `leaf` and `equitable` are the dimensions that training moves in and of the equitable manifold around it, None where
    the data does not have them; `equations` are those of one of its manifolds.
    """

    index: int
    name: str
    layers: tuple[Block, ...]
    dimension: int
    count: int
    here: bool
    leaf: int | None = None
    equitable: int | None = None
    reduced: tuple[int, ...] = ()
    equations: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Class sizes of all layers."""
        return tuple(size for block in self.layers for size in block.sizes)

    @property
    def null(self) -> int:
        """Null neurons of all layers."""
        return sum(block.null for block in self.layers)

    @property
    def dots(self) -> int:
        """Neurons of all layers."""
        return sum(block.dots for block in self.layers)


def kinds_of(lattice: Data) -> list[Kind]:
    """The types of a lattice, read from `layers`, from `sizes` and `null`, or from the name."""
    out = []
    for row in rows(lattice.get("types")):
        leaf, equitable = row.get("leaf_dimension"), row.get("linear_dimension")
        out.append(Kind(
            whole(row.get("id")), str(row.get("layer_type") or ""), _blocks(row), whole(row.get("dimension")),
            whole(row.get("count"), 1), row.get("here") is True, None if leaf is None else whole(leaf),
            None if equitable is None else whole(equitable), _numbers(row.get("reduced_widths")),
            tuple(map(str, listing(row.get("equations")))),
        ))  # fmt: skip
    width = max((k.dots for k in out), default=0)
    return [replace(k, layers=(Block((), width),)) if not k.dots else k for k in out]


def _blocks(row: Data) -> tuple[Block, ...]:
    found = rows(row.get("layers"))
    if found:
        return tuple(Block(_numbers(b.get("sizes")), whole(b.get("null")), _numbers(b.get("quiet"))) for b in found)
    parts = re.match(r"^([\d+ ]*?)(?:\s*null\s+(\d+))?$", str(row.get("layer_type") or ""))
    sizes: Sequence[object] = listing(row.get("sizes"))
    if not sizes and parts and parts[1].strip():
        sizes = [int(n) for n in re.findall(r"\d+", parts[1]) if int(n)]
    null = row.get("null") if row.get("null") is not None else int(parts[2] or 0) if parts else 0
    return (Block(_numbers(sizes), whole(null), _numbers(row.get("quiet"))),)


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(whole(v) for v in listing(value))


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


def details(kind: Kind, edges: Sequence[tuple[int, int]], ambient: int, kinds: Sequence[Kind] = ()) -> str:
    """One paragraph about a type; with all `kinds` it names the neighbours in the lattice."""
    below, above = reachable(kind.index, edges), reachable(kind.index, [(b, a) for a, b in edges])
    moving = _moving(kind)
    if kind.reduced and kind.dots != len(kind.sizes):
        behaves = f"trains like {widths_text(kind.reduced)}"
    elif kind.dots != len(kind.sizes):
        behaves = f"behaves like width {len(kind.sizes)}"
    else:
        behaves = "no two neurons move together"
    start = "This network. " if kind.here else ""
    of = f" of {count(ambient)}" if ambient else ""
    text = (
        f"{start}Dimension {count(kind.dimension)}{of}: {'; '.join([*moving, behaves])}. "
        f"{plural(kind.count, 'such manifold')} in parameter space; "
        f"contained in {plural(len(above), 'larger kind')}, contains {plural(len(below), 'smaller kind')}."
    )
    if kind.leaf is not None and kind.leaf != kind.dimension:
        text += f" Training moves in {count(kind.leaf)} dimensions of it: its constants are fixed by the start."
    if kind.equitable is not None and kind.equitable != kind.dimension:
        text += f" It lies in an equitable manifold of dimension {count(kind.equitable)}."
    names = {k.index: k.name for k in kinds}
    for word, near in (
        ("Directly inside", [a for a, b in edges if b == kind.index]),
        ("Directly contains", [b for a, b in edges if a == kind.index]),
    ):
        if near and names:
            more = f" and {len(near) - 6} more" if len(near) > 6 else ""
            text += f" {word}: {', '.join(names[i] for i in near[:6])}{more}."
    if kind.equations:
        text += f" Equations of one: {equations_text(kind.equations)}."
    return text


def equations_text(equations: Sequence[str], most: int = 12) -> str:
    """Equations in one line, at most so many."""
    more = f"; and {len(equations) - most} more" if len(equations) > most else ""
    return pretty("; ".join(equations[:most]) + more).replace("= -", "= \u2212")


def _moving(kind: Kind) -> list[str]:
    together = [str(s) for s in kind.sizes if s > 1]
    out = []
    if len(together) == 1:
        out.append(f"{together[0]} neurons move as one")
    elif together:
        out.append(f"groups of {', '.join(together[:-1])} and {together[-1]} neurons each move as one")
    quiet = sum(size for block in kind.layers for size in block.quiet)
    if quiet:
        out.append(f"{plural(quiet, 'neuron')} without incoming weights")
    if kind.null:
        out.append(f"{plural(kind.null, 'neuron')} of output zero")
    return out


def plural(n: int, noun: str) -> str:
    """A number of things."""
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def lattice_drawing(lattice: Data, ambient: int) -> Markup:
    """The lattice as an SVG whose boxes can be chosen, with a line of details below."""
    kinds = kinds_of(lattice)
    if not kinds:
        return Markup("")
    edges = edges_of(lattice, kinds)
    named = kinds if any(k.equations for k in kinds) else ()
    levels = _levels(kinds, edges)
    row = max(min(max(block.dots for k in kinds for block in k.layers), _ROW) * _DOT + 20, 58)
    wide = max(row, 14 + 7 * max(len(times(k.count)) for k in kinds))
    tall = max(_tall(k) for k in kinds) + 19
    width = max(_LABEL + max(len(level) for level in levels) * (wide + 16) + 8, 420)
    step = tall + 40
    row_of = {kind.index: r for r, level in enumerate(levels) for kind in level}
    skips = any(row_of[b] - row_of[a] > 1 for a, b in edges)
    places = {}
    for r, level in enumerate(levels):
        cell = (width - _LABEL) / len(level)
        # a line that skips a row would run behind the boxes of that row if they stood below each other
        room = min(1.2 * wide, (cell - wide) / 2 - 4) if skips else 0.0
        aside = room * (2 * (0.618 * r % 1) - 1)
        for c, kind in enumerate(level):
            places[kind.index] = (_LABEL + cell * (c + 0.5) + aside, r * step + 4)
    here = next((k for k in kinds if k.here), None)
    below = reachable(here.index, edges) | {here.index} if here else set()
    above = reachable(here.index, [(b, a) for a, b in edges]) | {here.index} if here else set()
    lines = [_line(places[a], places[b], tall, (a, b), {a, b} <= below or {a, b} <= above) for a, b in edges]
    names = [
        el("text", f"dim {level[0].dimension}", class_="caption left", x=0, y=f"{r * step + tall / 2 + 8:.0f}")
        for r, level in enumerate(levels)
    ]
    boxes = [
        _box(kind, places[kind.index], wide, tall, details(kind, edges, ambient, named))
        for level in levels
        for kind in level
    ]
    height = len(levels) * step - 40 + 10
    drawing = el(
        "svg", lines, names, boxes, class_="lattice wide" if width > 620 else "lattice", role="group",
        width=round(width), height=height, viewBox=f"0 0 {width:.0f} {height}",
        aria_label=f"Lattice of {len(kinds)} kinds of invariant manifolds, largest dimension on top",
    )  # fmt: skip
    chosen = details(here, edges, ambient, named) if here else "Choose a box to see what it contains."
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
    dots, top = [], y + 12
    for block in kind.layers:
        classes = (*block.sizes, *block.quiet)
        looks = [f"c{c % COLOURS}" for c, size in enumerate(classes) for _ in range(size)] + ["null"] * block.null
        pale = range(sum(block.sizes), sum(classes))
        for i, look in enumerate(looks):
            row, column = divmod(i, _ROW)
            across = min(_ROW, len(looks) - row * _ROW)
            cx, cy = x + (column - (across - 1) / 2) * _DOT, top + row * _DOT
            dot = el("circle", class_=f"mark {look}", cx=f"{cx:.1f}", cy=f"{cy:.1f}", r=4,
                     fill_opacity=0.35 if i in pale else None)  # fmt: skip
            dots.append(dot)
        top += -(-len(looks) // _ROW) * _DOT + _GAP
    frame = el("rect", x=f"{x - wide / 2:.1f}", y=f"{y:.1f}", width=f"{wide:.0f}", height=tall, rx=8)
    number = el("text", times(kind.count), class_="caption", x=f"{x:.1f}", y=f"{y + tall - 8:.1f}")
    return el(
        "g", frame, dots, number, class_="kind here chosen" if kind.here else "kind", data_id=kind.index,
        data_details=text, aria_label=f"{kind.name}: {text}", role="img",
    )  # fmt: skip


def _tall(kind: Kind) -> int:
    """Height of the dots of a box: layers below each other."""
    return sum(-(-block.dots // _ROW) * _DOT + _GAP for block in kind.layers) - _GAP + 11


def times(number: int) -> str:
    """A number of manifolds: ×116."""
    return f"×{compact(number)}"


def compact(number: int) -> str:
    """A count; from ten million on three digits of it, whatever its length.

    >>> compact(116), compact(1606879040)
    ('116', '1.61\u00d710\u2079')
    """
    return count(number) if abs(number) < 10**7 else pretty(f"{decimal.Decimal(number):.2e}")


def readable(kinds: Sequence[Kind]) -> bool:
    """Whether the lattice of these types can be read as a drawing."""
    rows_of = Counter(kind.dimension for kind in kinds)
    return bool(kinds) and max(rows_of.values()) <= _SIDE and max(kind.dots for kind in kinds) <= 6 * _ROW
