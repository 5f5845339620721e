"""Drawings as inline SVG: bars of a reduction, a part of a whole, a histogram."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fiberscope.pages.data import KINDS
from fiberscope.pages.markup import Markup, count, el, outward, real

_TINY, _HUGE = 1e-290, 1e290


def percent(part: float, whole: float) -> str:
    """A length as a share of the drawing.

    >>> percent(1, 3)
    '33.33%'
    """
    return f"{100 * part / whole:.2f}".rstrip("0").rstrip(".") + "%" if whole else "0%"


def removal_bar(before: int, after: int, removed: Mapping[str, int], scale: int, label: str) -> Markup:
    """One horizontal bar: what stays, then what goes by reason; full length is `scale` neurons."""
    parts = [("kept", after), *((kind, removed.get(kind, 0)) for kind in KINDS)]
    other = before - sum(n for _, n in parts)
    parts += [("other", other)] if other > 0 else []
    shapes, start = [], 0
    for kind, size in parts:
        if size > 0:
            words = "kept" if kind == "kept" else KINDS.get(kind, "other reasons")
            shapes.append(
                el("rect", el("title", f"{count(size)} {words}"), class_=f"k-{kind}", x=percent(start, scale), y=0,
                   width=percent(size, scale), height=16)
            )  # fmt: skip
            start += size
    return el("svg", shapes, class_="bar", width="100%", height=16, role="img", aria_label=label)


def share_bar(part: float, whole: float, label: str) -> Markup:
    """A part of a whole as one bar."""
    return el(
        "svg", el("rect", class_="k-rest", width="100%", height=10, rx=5),
        el("rect", class_="k-kept", width=percent(min(part, whole), whole), height=10, rx=5),
        class_="bar", width="100%", height=10, role="img", aria_label=label,
    )  # fmt: skip


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover an interval.

    >>> ticks(0.0, 2.0)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    raw = span / wanted
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(m * base for m in (1.0, 2.0, 5.0, 10.0) if m * base >= raw * (1 - 1e-9))
    first, digits = math.ceil(low / step - 1e-9), 3 - math.floor(math.log10(step))
    return [round(k * step, digits) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)] or [low]


def bins(values: Sequence[float], low: float, high: float, number: int) -> list[int]:
    """How many values fall into each of `number` equal parts of [low, high].

    >>> bins([0.0, 0.1, 1.0], 0.0, 1.0, 2)
    [2, 1]
    """
    out = [0] * number
    for value in values:
        place = (value - low) / (high - low) if high > low else 0.5
        out[min(number - 1, max(0, int(place * number)))] += 1
    return out


def histogram(values: Sequence[float], median: float | None, label: str) -> Markup:
    """Counts of values over an axis with round ticks, zero and the median marked."""
    width, height, left, right, top, bottom = 440, 150, 12, 12, 22, 26
    low, high = min(values), max(values)
    if not high > low:
        low, high = low - abs(low) / 2 - 0.5, high + abs(high) / 2 + 0.5
    heights = bins(values, low, high, 36)
    tallest, floor = max(heights), height - bottom

    def across(value: float) -> float:
        return round(left + (value - low) / (high - low) * (width - left - right), 2)

    step = (width - left - right) / len(heights)
    bars = [
        el("rect", el("title", f"{n} of {len(values)}"), class_="k-kept", x=round(left + k * step + 0.75, 2),
           y=round(floor - n / tallest * (floor - top), 2), width=round(step - 1.5, 2),
           height=round(n / tallest * (floor - top), 2), rx=1)
        for k, n in enumerate(heights)
        if n
    ]  # fmt: skip
    axis = [el("line", class_="axis", x1=left, x2=width - right, y1=floor, y2=floor)]
    for tick in ticks(low, high):
        axis.append(el("line", class_="axis", x1=across(tick), x2=across(tick), y1=floor, y2=floor + 4))
        axis.append(el("text", real(tick), x=across(tick), y=floor + 18, text_anchor=_anchor(across(tick), width)))
    if low < 0 < high:
        axis.append(el("line", class_="zero", x1=across(0), x2=across(0), y1=top, y2=floor))
    if median is not None and low <= median <= high:
        x = across(median)
        axis.append(el("line", class_="median", x1=x, x2=x, y1=top - 4, y2=floor))
        axis.append(
            el("text", f"median {real(median)}", class_="mark", x=x, y=top - 9, text_anchor=_anchor(x, width, 60))
        )
    return el("svg", bars, axis, class_="plot", viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def enclosure_line(lower: float, upper: float | None, limit: float | None) -> Markup:
    """An interval on a number line, beside a limit; logarithmic where the numbers differ much.

    Args:
        lower: its lower end, at least 0.
        upper: its upper end, None where nothing is known.
        limit: what it is compared with, or None.
    """
    width, height, left, right, y = 440, 96, 26, 26, 52
    known = [min(v, _HUGE) for v in (lower, upper, limit) if v is not None and v > _TINY]
    wide = bool(known) and max(known) > 30 * min(known)
    low = 10.0 ** math.floor(math.log10(min(known)) - (0.0 if lower > _TINY else 1.0)) if wide else 0.0
    high = 10.0 ** math.ceil(math.log10(max(known)) + 0.01) if wide else 1.15 * max(known, default=1.0)

    def across(value: float) -> float:
        if wide:
            share = (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            share = value / high
        share = min(share, 1.0)
        return round(left + share * (width - left - right), 2)

    start, stop = across(lower), width - 6 if upper is None else across(upper)
    shapes = [
        el("line", class_="axis", x1=left - 10, x2=width - 6, y1=y, y2=y),
        el("rect", class_="k-kept", x=start, y=y - 8, width=round(max(stop - start, 3), 2), height=16, rx=3),
        el("circle", class_="k-end", cx=start, cy=y, r=5),
    ]
    for tick in _powers(low, high) if wide else ticks(0.0, high):
        x = across(tick)
        shapes.append(el("line", class_="axis", x1=x, x2=x, y1=y + 10, y2=y + 15))
        shapes.append(el("text", real(tick), x=x, y=y + 30, text_anchor="middle"))
    if limit is not None:
        x = across(limit)
        shapes.append(el("line", class_="median", x1=x, x2=x, y1=y - 22, y2=y + 10))
        shapes.append(
            el("text", f"asked: {real(limit)}", class_="mark", x=x, y=y - 28, text_anchor=_anchor(x, width, 60))
        )
    top = "unknown" if upper is None else outward(upper, up=True)
    words = f"The largest difference lies between {outward(lower, up=False)} and {top}"
    words += f"; asked was {real(limit)}" if limit is not None else ""
    return el("svg", shapes, class_="plot", viewBox=f"0 0 {width} {height}", role="img", aria_label=words)


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten from low to high, at most seven."""
    first, last = round(math.log10(low)), round(math.log10(high))
    return [10.0**k for k in range(first, last + 1, max(1, -(-(last - first) // 6)))]


def _anchor(x: float, width: float, margin: float = 24) -> str:
    return "start" if x < margin else "end" if x > width - margin else "middle"
