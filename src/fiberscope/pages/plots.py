"""Charts over any quantity as inline SVG: curves with points or steps over widths, tolerances, checkpoints or times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from fiberscope.pages.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Curve,
    Level,
    Number,
    axis_of,
    labels,
    legend,
    thinned,
)
from fiberscope.pages.markup import Child, Markup, el, real
from fiberscope.pages.parts import named, table

_POINTS = 40  # more places than that are a curve without points
_TICKED = 9  # up to so many places, each has a tick of its own
_ROWS = 64


def plot(
    title: str, places: Sequence[Number], curves: Sequence[Curve], *, across: str, name: str = "",
    levels: Sequence[Level] = (), log: bool = False, log_across: bool = False, steps: Sequence[str] = (),
    floor: float | None = None, texts: Sequence[str] = (), ends: bool = True, note: Child = None,
) -> Markup | None:  # fmt: skip
    """Curves over a quantity as a figure: heading, legend, drawing, table; None where nothing can be drawn.

    Args:
        title: heading; with the ends of the curves it is also the description for screen readers.
        places: growing places on the horizontal axis.
        curves: as many values each.
        across: name of the horizontal axis, and of the first column of the table.
        name: of the vertical axis.
        levels: lines to compare with; both axes include them.
        log: whether the vertical axis is logarithmic.
        log_across: the same for the horizontal one.
        steps: looks of curves that keep a value until the next place, the last one to the end of the axis.
        floor: values below it, zero among them, are drawn at it.
        texts: names of the places for the table, their numbers without them.
        ends: whether the axis keeps room at both ends.
        note: small print under the heading.
    """
    drawn = [c for c in curves if len(c.values) == len(places) and any(v is not None for v in c.values)]
    known = [p for p in places if p is not None and (p > 0 or not log_across)]
    side = _side([*known, *(level.at for level in levels if level.across)], log_across, ends) if known else None
    shown = [Curve(c.name, [_held(v, floor) for v in c.values], c.look) for c in drawn]
    flat = [level.at for level in levels if not level.across]
    up = axis_of([*(v for c in shown for v in c.values), *flat], log=log, decades=40)
    if not drawn or side is None or up is None:
        return None
    xs = [None if (s := side.share(p)) is None else LEFT + s * (WIDTH - LEFT - RIGHT) for p in places]
    dotted = len(known) <= _POINTS
    held = any(v is not None and floor is not None and v <= floor for c in drawn for v in c.values)
    whole = all(v is None or v.is_integer() for c in drawn for v in c.values) and not log
    taken = [(x, y) for c in shown for x, v in zip(xs, c.values, strict=True) if (y := _height(up, v)) and x]
    shapes: list[Markup] = [*_frame(side, up, known, across, name, floor if held else None, whole)]
    shapes += _lines(levels, side, up, taken)
    for curve in shown:  # dashes over the solid first one, so that equal curves are both seen
        points = [(x, _height(up, v)) for x, v in zip(xs, curve.values, strict=True)]
        path = _stairs(points) if curve.look in steps else _path(points)
        shapes.append(el("path", el("title", curve.name), class_=f"line {curve.look}", d=path) if path else Markup(""))
        spots = [(x, y) for x, y in points if x is not None and y is not None] if dotted else []
        shapes += [el("circle", class_=f"spot {curve.look}", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3) for x, y in spots]
    shapes.append(el("line", class_="cursor", x1=LEFT, x2=LEFT, y1=TOP, y2=HEIGHT - BOTTOM, hidden=True))
    drawing = el(
        "svg", shapes, class_="plot", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
        data_scale=f"{'log' if side.log else 'linear'} {side.low!r} {side.high!r} {LEFT} {WIDTH - RIGHT}",
        aria_label=_description(title, across, known, drawn, levels),
    )  # fmt: skip
    heading = named(title, note)
    told = list(texts) if len(texts) == len(places) else [real(p, 6) for p in places]
    last = " · ".join([f"{across} = {told[-1]}", *(f"{c.name}: {real(c.values[-1], 6)}" for c in drawn)])
    body = _values(title, across, told, drawn, xs)
    return el("figure", heading, legend(drawn), drawing, el("p", last, class_="readout"), body, class_="charted")


def _held(value: Number, floor: float | None) -> Number:
    return value if value is None or floor is None else max(value, floor)


def _side(places: Sequence[float], log: bool, ends: bool) -> Axis | None:
    """The horizontal axis, with a little room at both ends so that points are not cut."""
    low, high = min(places), max(places)
    if log:
        room = (high / low) ** 0.04 if high > low else 3.0
        return Axis(low / room, high * room, True) if ends else Axis(low, high * room, True)
    room = 0.05 * (high - low) or 0.5
    return Axis(low - room if ends else low, high + room)


def _height(axis: Axis, value: Number) -> Number:
    share = axis.share(value)
    return None if share is None else HEIGHT - BOTTOM - min(1.0, max(0.0, share)) * (HEIGHT - BOTTOM - TOP)


def _frame(
    side: Axis, up: Axis, places: Sequence[float], across: str, name: str, floor: float | None, whole: bool
) -> Iterator[Markup]:
    """Lines and texts of both axes; with `whole` at whole numbers only."""
    ground, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    found = [t for t in up.ticks() if not whole or float(t).is_integer()]
    if floor is not None:  # its tick says that what lies there is no larger
        low = up.share(floor) or 0.0
        found = [floor, *(t for t in found if (up.share(t) or 0.0) > low + 0.07)]
    texts, power = labels(up, found)
    for tick, text in zip(found, texts, strict=True):
        y = round(_height(up, tick) or 0.0, 1)
        yield el("line", class_="grid", x1=LEFT, x2=end, y1=y, y2=y)
        yield el("text", f"≤{text}" if tick == floor else text, x=LEFT - 6, y=round(y + 3.5, 1), text_anchor="end")
    yield el("line", class_="axis", x1=LEFT, x2=end, y1=ground, y2=ground)
    own = sorted(set(places))
    found = own if len(own) <= _TICKED and _apart(side, own) else side.ticks()
    if all(float(p).is_integer() for p in places):
        found = [t for t in found if float(t).is_integer()] or own[:1]
    texts, shared = labels(side, found)
    for tick, text in zip(found, texts, strict=True):
        x = round(LEFT + (side.share(tick) or 0.0) * (end - LEFT), 1)
        yield el("line", class_="axis", x1=x, x2=x, y1=ground, y2=ground + 4)
        yield el("text", text, x=x, y=ground + 16, text_anchor="middle")
    words = across + (f" (×{shared})" if shared else "") + (", log scale" if side.log else "")
    yield el("text", words, class_="name", x=(LEFT + end) / 2, y=HEIGHT - 8, text_anchor="middle")
    words = ", ".join([*[name] * bool(name), *["log scale"] * up.log]) + (f" (×{power})" if power else "")
    if words:
        yield el("text", words, class_="name", x=4, y=12)


def _apart(side: Axis, places: Sequence[float]) -> bool:
    """Whether texts under these places would not touch."""
    shares = [side.share(p) or 0.0 for p in places]
    return all(b - a > 0.09 for a, b in zip(shares, shares[1:], strict=False))


def _lines(levels: Sequence[Level], side: Axis, up: Axis, taken: Sequence[tuple[float, float]]) -> Iterator[Markup]:
    """Levels with their names, at the end where no point is in the way."""
    ground, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    for level in levels:
        if level.across:
            share = side.share(level.at)
            if share is None:
                continue
            x = round(LEFT + share * (end - LEFT), 1)
            yield el("line", el("title", level.name), class_="level", x1=x, x2=x, y1=TOP, y2=ground)
            start = share < 0.6
            yield el("text", level.name, class_="told", x=x + (4 if start else -4), y=ground - 6,
                     text_anchor="start" if start else "end")  # fmt: skip
        elif (y := _height(up, level.at)) is not None:
            yield el("line", el("title", level.name), class_="level", x1=LEFT, x2=end, y1=f"{y:.1f}", y2=f"{y:.1f}")
            at = y - 4 if y > TOP + 12 else y + 12
            left = not any(x < (LEFT + end) / 2 and abs(at - 4 - v) < 11 for x, v in taken)
            yield el("text", level.name, class_="told", x=LEFT + 5 if left else end - 5, y=f"{at:.1f}",
                     text_anchor="start" if left else "end")  # fmt: skip


def _path(points: Sequence[tuple[Number, Number]]) -> str:
    out, pen = [], False
    for x, y in points:
        if x is None or y is None:
            pen = False
            continue
        out.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}")
        pen = True
    return "".join(out) if len(out) > 1 else ""


def _stairs(points: Sequence[tuple[Number, Number]]) -> str:
    """Each value holds until the next place, the last one to the end of the axis."""
    out = ""
    for x, y in points:
        if x is not None and y is not None:
            out += f"H{x:.1f}V{y:.1f}" if out else f"M{x:.1f} {y:.1f}"
    return f"{out}H{WIDTH - RIGHT}" if out else ""


def _description(
    title: str, across: str, places: Sequence[float], curves: Sequence[Curve], levels: Sequence[Level]
) -> str:
    parts = [f"{title}: chart over {across} from {real(min(places))} to {real(max(places))}"]
    for curve in curves:
        ends = [v for v in curve.values if v is not None]
        parts.append(f"{curve.name} goes from {real(ends[0])} to {real(ends[-1])}")
    return "; ".join([*parts, *(f"line at {level.name}" for level in levels)]) + "."


def _values(title: str, across: str, told: Sequence[str], curves: Sequence[Curve], xs: Sequence[Number]) -> Markup:
    """The numbers of the chart; the script of the page reads the cursor's values off this table."""
    kept = thinned(xs, _ROWS)
    head = [across, *(c.name for c in curves)]
    body = [[told[k], *(real(c.values[k], 6) for c in curves)] for k in kept]
    made = table(f"Values: {title}", head, body, numeric=range(1, len(head)))
    spots = " ".join("-" if (x := xs[k]) is None or not math.isfinite(x) else f"{x:.1f}" for k in kept)
    cut = f" ({len(kept)} of {len(told)})" if len(kept) < len(told) else ""
    return el("details", el("summary", f"Values{cut}"), made, class_="values", data_spots=spots)


def side_by_side(*figures: Markup | None) -> Markup | None:
    """Figures next to each other where there is room."""
    found = [f for f in figures if f]
    return el("div", found, class_="plots") if found else None
