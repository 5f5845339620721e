"""Markup that escapes everything it is not told to trust: names in a file are hostile input."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import TypeAlias

from fiberscope import results

Child: TypeAlias = "str | int | None | Iterable[Child]"
"""What an element may contain: text (escaped), markup (kept), nothing, or any nesting of these."""

_VOID = frozenset({"br", "hr", "input", "link", "meta"})
_SHAPES = frozenset({"circle", "line", "path", "rect"})
# Control characters, lone surrogates (undecodable file names) and bidirectional overrides, which can disguise a name.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def plain(text: object) -> str:
    r"""The text with unprintable and direction-changing characters replaced by U+FFFD.

    >>> plain("a\x00b") == "a\ufffdb"
    True
    """
    return _UNSAFE.sub("\ufffd", str(text))


def escaped(child: Child) -> Markup:
    """Markup of a child, with all text in it escaped.

    >>> escaped(["<b>", Markup("<i></i>"), None, 3])
    '&lt;b&gt;<i></i>3'
    """
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return Markup(html.escape(plain(child), quote=False))
    return Markup("".join(escaped(c) for c in child))


def el(tag: str, *children: Child, **attributes: object) -> Markup:
    """One element. `class_` gives class, `data_x` gives data-x; None and False attributes are left out.

    >>> el("p", "a < b", class_="note", hidden=True, title=None)
    '<p class="note" hidden>a &lt; b</p>'
    """
    parts = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        parts.append(name if value is True else f'{name}="{html.escape(plain(value), quote=True)}"')
    head = " ".join(parts)
    if tag in _VOID:
        return Markup(f"<{head}>")
    inner = escaped(children)
    if tag in _SHAPES and not inner:
        return Markup(f"<{head}/>")
    return Markup(f"<{head}>{inner}</{tag}>")


def count(value: object) -> str:
    """A whole number with thousands separated; other things as `real`.

    >>> count(5760)
    '5,760'
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace("-", "\u2212")
    return real(value)


def real(value: object, digits: int = 4) -> str:
    """A number to so many significant digits, with a true minus sign; the words of the data for all else.

    >>> real(-0.000123456)
    '\u22120.0001235'
    >>> real({"exact": "1/3", "float": 0.3333})
    '1/3'
    """
    if value is None:
        return "\u2013"
    if isinstance(value, dict) and "exact" in value:
        exact = value["exact"]  # None where it is too long to be listed
        if isinstance(exact, str) and len(exact) <= 12:
            return exact.replace("-", "\u2212")
        return real(value.get("float"), digits)
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    if isinstance(value, float):
        return pretty(f"{value:.{digits}g}".replace("-", "\u2212"))
    return {"inf": "\u221e", "-inf": "\u2212\u221e"}.get(str(value), str(value))


def outward(value: object, *, up: bool, digits: int = 4) -> str:
    """A bound to so many significant digits, rounded away from what it encloses, so that what is shown is proved too.

    >>> outward(0.29861, up=True), outward(0.29869, up=False)
    ('0.2987', '0.2986')
    """
    number = value.get("float") if isinstance(value, dict) else value
    if not isinstance(number, float) or not math.isfinite(number):
        return real(value, digits)
    return pretty(results.outward(number, up=up, digits=digits).replace("-", "\u2212"))


_RAISED = str.maketrans("0123456789-\u2212", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207b")

_POWER = re.compile(r"(?<![\w.:])(\d+\.?\d*)e([-\u2212+]?)0*(\d{1,4})\b")  # not in the middle of a hash
_INTERVAL = re.compile(r"\[([^\s\[\]]{1,24}), ([^\s\[\]]{1,24})\]")  # stays on one line


def pretty(text: object) -> str:
    """Formulas of plain text as they are written: powers of ten, exponents, the index i, <= and minus.

    >>> pretty("1.2e-06 <= b_i^2 - x")
    '1.2\u00d710\u207b\u2076 \u2264 b\u1d62\u00b2 \u2212 x'
    >>> pretty("fs1s:35e65736")
    'fs1s:35e65736'
    """
    out = _POWER.sub(lambda m: f"{m[1]}\u00d710" + (m[2].strip("+") + m[3]).translate(_RAISED), str(text))
    out = re.sub(r"(?<=\b[a-z])_i(?=\b|_)", "\u1d62", out)
    out = re.sub(r"(?<=[\[(,\s])-(?=\d|inf)", "\u2212", out)
    out = re.sub(r"(?<=[\w\])|])\^(\d+)(?!\.?\d)", lambda m: m[1].translate(_RAISED), out)
    out = _INTERVAL.sub("[\\1,\u00a0\\2]", out)
    return out.replace("<=", "\u2264").replace(">=", "\u2265").replace(" - ", " \u2212 ")
