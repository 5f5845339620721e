"""Small building blocks of the page: chips, cards, tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fiberscope.pages.markup import Child, Markup, count, el
from fiberscope.results import Rigor


def chip(rigor: object) -> Markup | None:
    """The word for how a number was obtained, with the sentence as its tooltip."""
    name = str(rigor or "").upper()
    if not name:
        return None
    known = Rigor.__members__.get(name)
    return el(
        "span", name.lower(), class_=f"chip {name.lower() if known else 'other'}", title=known.value if known else None
    )


@dataclass(frozen=True)
class Card:
    """A titled box of the page, and whether it wants the full width."""

    markup: Markup
    wide: bool = False

    @property
    def height(self) -> float:
        """A guess in lines of text, to balance columns."""
        drawings = sum(int(h) for h in re.findall(r'<svg class="(?:net|lattice)[^>]* height="(\d+)"', self.markup)) / 20
        plots = 9 * self.markup.count('class="plot"') + 26 * self.markup.count('class="slice"')
        plots += 10 * self.markup.count('class="charted"') + 13 * self.markup.count('class="film"')
        plots += 14 * self.markup.count('class="sphere')
        drawn = r'<figure class="charted">.*?</figure>|<g class="frame".*?</g>|<svg class="small-still".*?</svg>'
        seen = re.sub(drawn, "", self.markup, flags=re.DOTALL)
        words = len(re.sub(r"<table.*?</table>|<[^>]*>", "", seen, flags=re.DOTALL)) / 48
        listed = 0.6 * len(re.findall(r"<li\b", seen)) + 0.5 * seen.count("<dt")
        return 4 + 1.8 * min(seen.count("<tr"), 14) + drawings + plots + words + listed


def card(title: str, *body: Child, lead: Child = None, wide: bool = False, anchor: str | None = None) -> Card:
    """A titled box; the heading names it for screen readers."""
    head = el("h3", title, id=anchor)
    look = "card wide" if wide else "card"
    line = el("p", lead, class_="lead") if lead else None
    return Card(el("section", head, line, *body, class_=look, aria_labelledby=anchor), wide)


def table(
    caption: str, head: Sequence[str], body: Iterable[Sequence[Child]], *, numeric: Sequence[int] = (),
    tools: bool = False, keys: Sequence[str | None] = (), mono: Sequence[int] = (),
) -> Markup:  # fmt: skip
    """A table that scrolls inside its box; with `tools` the page script adds sorting and a filter."""

    def look(column: int) -> str | None:
        return "num" if column in numeric else "mono" if column in mono else None

    lines = []
    for n, row in enumerate(body):
        cells = [el("td", cell, class_=look(c)) for c, cell in enumerate(row)]
        lines.append(el("tr", cells, data_class=keys[n] if n < len(keys) else None))
    heads = [el("th", text, scope="col", class_=look(c) if c in numeric else None) for c, text in enumerate(head)]
    inner = el(
        "table", el("caption", caption, class_="hidden"), el("thead", el("tr", heads)), el("tbody", lines),
        class_="tools" if tools else None,
    )  # fmt: skip
    return el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def figure(drawing: Markup, label: str) -> Markup:
    """A drawing that scrolls sideways where the screen is too narrow for it."""
    return el("div", drawing, class_="scroll drawing", tabindex=0, role="region", aria_label=label)


def named(title: Child, note: Child = None) -> Markup:
    """The caption of a drawing or a grid: its name, and a remark beside it.

    >>> named("Energy", "log scale")
    '<figcaption><strong>Energy</strong> <span>log scale</span></figcaption>'
    """
    return el("figcaption", el("strong", title), [" ", el("span", note)] if note else None)


def change(before: int, after: int) -> str:
    """A number before and after: 14 → 8, or 14 where nothing changed."""
    return count(before) if before == after else f"{count(before)} → {count(after)}"


def widths_text(widths: Sequence[object]) -> str:
    """Widths as 3–6–2."""
    return "–".join(map(str, widths))


def bullets(texts: Iterable[Child], look: str | None = None) -> Markup:
    """A plain list."""
    return el("ul", [el("li", text) for text in texts], class_=look)


def pairs(items: Iterable[tuple[str, Child]]) -> Markup:
    """Terms and values in one block."""
    return el("dl", [el("div", el("dt", term), el("dd", value)) for term, value in items], class_="pairs")


def mark(holds: object) -> Markup:
    """A sign and a word for yes, no and not checked."""
    known = {True: ("✓", "yes", "yes"), False: ("✗", "no", "no")}
    sign, word, look = known[holds] if isinstance(holds, bool) else ("?", "not checked", "open")
    return el("span", sign, el("span", word, class_="hidden"), class_=f"sign {look}")


def copied(text: str, length: int, label: str = "Copy the full sha256") -> Child:
    """The beginning of a long name, with a button that copies all of it."""
    if not text:
        return "–"
    button = el("button", "copy", type="button", class_="copy", data_copy=text, aria_label=label, hidden=True)
    return [el("code", text[:length] + ("…" if len(text) > length else ""), title=text), button]


def code(text: str, anchor: str) -> Markup:
    """A block of code with a button that copies it."""
    button = el("button", "Copy", type="button", class_="copy", data_from=anchor, hidden=True)
    return Markup(el("pre", text, id=anchor, tabindex=0, class_="snippet") + el("p", button, class_="buttons"))


def command_line(*words: str) -> Markup:
    """A command of this package as it is typed, with a button that copies it.

    >>> command_line("inspect", "net.onnx")[:71]
    '<p class="typed"><code>fiberscope <span>inspect</span> <span>net.onnx</'
    """
    line = shlex.join(["fiberscope", *words])
    typed = [[" ", el("span", shlex.quote(word))] for word in words]  # a word stays on one line where there is room
    button = el(
        "button", "copy", type="button", class_="copy", data_copy=line, aria_label="Copy the command", hidden=True
    )
    return el("p", el("code", "fiberscope", typed), button, class_="typed")
