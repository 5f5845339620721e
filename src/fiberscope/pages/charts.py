"""Line charts as inline SVG: linear and logarithmic axes, levels, a legend, and the numbers as a table beneath.

The drawing is complete without the script of the page; with it, a cursor reads values off by pointer and keyboard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fiberscope.pages.data import listing
from fiberscope.pages.figures import ticks
from fiberscope.pages.markup import Markup, el, pretty, real
from fiberscope.pages.parts import named, table

Number: TypeAlias = float | None
"""A value of a curve; None where there is none."""

WIDTH, HEIGHT = 420, 244
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 24, 42
_ROWS = 64  # rows of the table under a chart
_DECADES = 18  # a logarithmic axis shows no more below its largest value
_NEAR = 1.1  # points closer than this on the drawing are one point
_TINY, _HUGE = 1e-290, 1e290


@dataclass(frozen=True)
class Curve:
    """A named curve: one value for each place on the axis. `look` is its colour and dashes in the style sheet."""

    name: str
    values: Sequence[Number]
    look: str = "l0"


@dataclass(frozen=True)
class Level:
    """A straight line to compare with: a value, or with `across` a place on the horizontal axis.

    With `quiet` its name is only a tooltip.
    """

    name: str
    at: float
    across: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Axis:
    """A range of numbers, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def share(self, value: Number) -> Number:
        """Where a value lies, 0 at `low` and 1 at `high`; None for what the axis cannot show.

        >>> Axis(1.0, 100.0, log=True).share(10.0)
        0.5
        """
        if value is None or (self.log and value <= 0):
            return None
        if self.log:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers on the axis, at most eight.

        >>> Axis(0.02, 300.0, log=True).ticks()
        [0.1, 1.0, 10.0, 100.0]
        """
        if not self.log:
            return ticks(self.low, self.high)
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        if last > first + 1:
            step = max(1, -(-(last - first) // 6))
            return [10.0**k for k in range(first + (-first) % step, last + 1, step)]
        decade = 10.0 ** math.floor(math.log10(self.low))
        steps = [float(f"{m * decade:.3g}") for m in (1, 2, 5, 10, 20, 50, 100, 200, 500)]
        return [s for s in steps if self.low <= s * (1 + 1e-9) and s <= self.high * (1 + 1e-9)] or [self.low]


def numbers(value: object) -> list[Number]:
    """The finite numbers of a list; None for all else in it.

    >>> numbers([1, "inf", True, 0.5])
    [1.0, None, None, 0.5]
    """
    return [_number(v) for v in listing(value)]


def _number(value: object) -> Number:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE
    return float(value) if plain else None  # type: ignore[arg-type]


def axis_of(values: Iterable[Number], *, log: bool = False, decades: int = _DECADES) -> Axis | None:
    """An axis that shows these values with a little room; None where there is nothing to show.

    >>> axis_of([0.03, 30.0], log=True)
    Axis(low=0.02, high=50.0, log=True)
    """
    found = [v for v in values if v is not None and (not log or v > _TINY)]
    if not found:
        return None
    low, high = min(found), max(found)
    if log:
        low = max(low, high / 10.0**decades)
        return Axis(_round(low, up=False), _round(high, up=True), True)
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        room = abs(low) / 10 or 1.0
        return Axis(low - room, high + room)
    room = 0.06 * (high - low)
    return Axis(0.0 if 0 <= low <= room else low - room, 0.0 if -room <= high <= 0 else high + room)


def _round(value: float, *, up: bool) -> float:
    """The next 1, 2 or 5 times a power of ten beyond a value, with a little room."""
    grown = value * 1.02 if up else value / 1.02
    decade = 10.0 ** math.floor(math.log10(grown))
    steps = [m * decade for m in (1.0, 2.0, 5.0, 10.0)]
    return min(s for s in steps if s >= grown) if up else max(s for s in steps if s <= grown)


def time_axis(times: Sequence[Number], log: bool | None = None) -> Axis | None:
    """The horizontal axis for these times: logarithmic where they spread over decades, without room at its ends."""
    known = [t for t in times if t is not None]
    later = sorted(t for t in known if t > 0)
    if log is None:  # evenly spaced times are not for a logarithmic axis
        log = len(later) > 4 and later[-1] > 30 * later[0] and later[len(later) // 2] < 0.2 * later[-1]
    shown = later if log else known
    if not shown or not max(shown) > min(shown):
        return None
    return Axis(min(shown), max(shown), log)


def labels(axis: Axis, found: Sequence[float]) -> tuple[list[str], str]:
    """Texts of ticks, all different and none long, and the power of ten that they leave to the name of the axis.

    >>> labels(Axis(0.0, 4e-5), [0.0, 2e-5, 4e-5])
    (['0', '2', '4'], '10⁻⁵')
    >>> labels(Axis(0.0, 5900.0), [0.0, 2000.0, 4000.0])[0]
    ['0', '2000', '4000']
    >>> labels(Axis(1e-9, 1.0, log=True), [1e-6, 1.0])[0]
    ['10⁻⁶', '1']
    """
    if axis.log and all(abs(math.log10(t) - round(math.log10(t))) < 1e-9 for t in found):
        powers = [round(math.log10(t)) for t in found]
        if min(powers) >= -3 and max(powers) <= 3:
            return [real(10.0**k) for k in powers], ""
        return [_power(k) if k else "1" for k in powers], ""
    size = max(map(abs, found))
    exponent = math.floor(math.log10(size)) if size > _TINY else 0
    least = exponent + 1 if 2 < exponent < 5 else 3  # thousands are written out
    exponent = exponent if not -3 <= exponent < 5 else 0
    scaled = [t / 10.0**exponent for t in found]
    digits = next((d for d in range(least, 9) if len({f"{t:.{d}g}" for t in scaled}) == len(scaled)), 9)
    return [real(t, digits) for t in scaled], _power(exponent) if exponent else ""


def _power(exponent: int) -> str:
    return pretty(f"1e{exponent}").removeprefix("1×")


# ---- the chart


def line_chart(
    title: str, times: Sequence[Number], curves: Sequence[Curve], *, name: str = "", levels: Sequence[Level] = (),
    log: bool = False, log_time: bool | None = None, axis: Axis | None = None, floor: float | None = None,
    note: str = "",
) -> Markup | None:  # fmt: skip
    """Curves over time as a figure: heading, legend, drawing, table; None where nothing can be drawn.

    Args:
        title: heading; with the ends of the curves it is also the description for screen readers.
        times: places on the horizontal axis.
        curves: as many values each.
        name: of the vertical axis, with its unit.
        levels: lines to compare with; the range of the vertical axis includes them.
        log: whether the vertical axis is logarithmic.
        log_time: the same for time; None decides by the times.
        axis: the vertical range; without it, what the values need.
        floor: values below it, zero among them, are drawn at it.
        note: small print under the heading.
    """
    drawn = [c for c in curves if len(c.values) == len(times) and any(v is not None for v in c.values)]
    across = time_axis(times, log_time)
    if not drawn or across is None:
        return None
    if floor is not None:
        lowest = floor
        shown = [Curve(c.name, [None if v is None else max(v, lowest) for v in c.values], c.look) for c in drawn]
    else:
        shown = drawn
    place = [across.share(t) for t in times]
    seen = [v for c in shown for v, p in zip(c.values, place, strict=True) if p is not None]
    flat = [level.at for level in levels if not level.across]
    up = axis or axis_of([*seen, *flat], log=log)
    if up is None:
        return None
    xs = [None if p is None else LEFT + p * (WIDTH - LEFT - RIGHT) for p in place]
    shapes: list[Markup] = [*_grid(across, up, name, floor), *_levels(levels, across, up)]
    for curve in reversed(shown):  # the first curve on top
        points = [(x, _height(up, v)) for x, v in zip(xs, curve.values, strict=True)]
        path = _path(points)
        shapes.append(el("path", el("title", curve.name), class_=f"line {curve.look}", d=path) if path else Markup(""))
    for look, told in (("now", el("title", "time of the slider")), ("cursor", None)):
        shapes.append(el("line", told, class_=look, x1=LEFT, x2=LEFT, y1=TOP, y2=HEIGHT - BOTTOM, hidden=True))
    scale = f"{'log' if across.log else 'linear'} {across.low!r} {across.high!r} {LEFT} {WIDTH - RIGHT}"
    drawing = el(
        "svg", shapes, class_="plot", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", data_scale=scale,
        aria_label=_description(title, times, drawn, levels),
    )  # fmt: skip
    heading = named(title, note)
    readout = el("p", _read(times, drawn), class_="readout")
    return el("figure", heading, legend(drawn), drawing, readout, _values(title, times, drawn, xs), class_="charted")


def legend(curves: Sequence[Curve]) -> Markup:
    """Names of the curves beside a piece of their lines."""
    items = [
        el("li", el("svg", el("line", class_=f"line {c.look}", x1=1, x2=27, y1=5, y2=5), class_="swatch-line",
                    viewBox="0 0 28 10", width=28, height=10, role="img", aria_label="line"), c.name)
        for c in curves
    ]  # fmt: skip
    return el("ul", items, class_="key")


def _height(axis: Axis, value: Number) -> Number:
    share = axis.share(value)
    return None if share is None else HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _grid(across: Axis, up: Axis, name: str, floor: float | None) -> Iterator[Markup]:
    """Lines and texts of both axes."""
    ground, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    found = up.ticks()
    texts, power = labels(up, found)
    for tick, text in zip(found, texts, strict=True):
        y = round(_height(up, tick) or 0.0, 1)
        yield el("line", class_="grid", x1=LEFT, x2=end, y1=y, y2=y)
        lowest = floor is not None and abs(tick - floor) <= 1e-9 * floor
        yield el("text", f"≤{text}" if lowest else text, x=LEFT - 6, y=round(y + 3.5, 1), text_anchor="end")
    yield el("line", class_="axis", x1=LEFT, x2=end, y1=ground, y2=ground)
    found = across.ticks()
    texts, shared = labels(across, found)
    for tick, text in zip(found, texts, strict=True):
        x = round(LEFT + (across.share(tick) or 0.0) * (end - LEFT), 1)
        yield el("line", class_="axis", x1=x, x2=x, y1=ground, y2=ground + 4)
        yield el("text", text, x=x, y=ground + 16, text_anchor="middle")
    time = "time t" + (f" (×{shared})" if shared else "") + (", log scale" if across.log else "")
    yield el("text", time, class_="name", x=(LEFT + end) / 2, y=HEIGHT - 8, text_anchor="middle")
    words = name + (f" (×{power})" if power else "")
    if words or up.log:
        words = f"{words}, log scale" if up.log and words else words or "log scale"
        yield el("text", words, class_="name", x=4, y=12)


def _levels(levels: Sequence[Level], across: Axis, up: Axis) -> Iterator[Markup]:
    ground, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    for level in levels:
        share = (across if level.across else up).share(level.at)
        if share is None or not -1e-9 <= share <= 1 + 1e-9:
            continue
        if level.across:
            x = round(LEFT + share * (end - LEFT), 1)
            yield el("line", el("title", level.name), class_="level", x1=x, x2=x, y1=TOP, y2=ground)
            side = "end" if share > 0.6 else "start"
            yield el("text", level.name, class_="told", x=x + (4 if side == "start" else -4), y=ground - 6,
                     text_anchor=side)  # fmt: skip
        else:
            y = round(ground - share * (ground - TOP), 1)
            yield el("line", el("title", level.name), class_="level", x1=LEFT, x2=end, y1=y, y2=y)
            if not level.quiet:
                yield el("text", level.name, class_="told", x=LEFT + 5, y=y - 4 if y > TOP + 12 else y + 12)


def _path(points: Sequence[tuple[Number, Number]]) -> str:
    """The curve through the points, cut where it leaves the drawing, without points too near to be told apart."""
    top, ground = float(TOP), float(HEIGHT - BOTTOM)
    out: list[str] = []
    pen: tuple[float, float] | None = None  # where the drawn line ends
    last: tuple[float, float] | None = None  # the last point of the curve
    for k, (x, y) in enumerate(points):
        if x is None or y is None:
            last = pen = None
            continue
        if last is None:
            pen = None
        elif abs(x - last[0]) + abs(y - last[1]) < _NEAR and k + 1 < len(points):
            continue
        piece = ((x, y), (x, y)) if last is None else _cut(last, (x, y), top, ground)
        last = (x, y)
        if piece is None or (piece[0] == piece[1] and not top <= y <= ground):
            pen = None
            continue
        start, stop = piece
        if pen is None or pen != start:
            out.append(f"M{start[0]:.1f} {start[1]:.1f}h0")  # a point by itself is a dot
        if stop != start:
            out.append(f"L{stop[0]:.1f} {stop[1]:.1f}")
        pen = stop
    return "".join(out)


def _cut(
    a: tuple[float, float], b: tuple[float, float], top: float, ground: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The part of the line from a to b between two heights."""
    (x0, y0), (x1, y1) = a, b
    if max(y0, y1) < top or min(y0, y1) > ground:
        return None

    def held(y: float) -> tuple[float, float]:
        if top <= y <= ground:
            return (x0, y0) if y == y0 else (x1, y1)
        edge = top if y < top else ground
        return x0 + (x1 - x0) * (edge - y0) / (y1 - y0), edge

    return (a if y0 == y1 else held(y0)), (b if y0 == y1 else held(y1))


def _description(title: str, times: Sequence[Number], curves: Sequence[Curve], levels: Sequence[Level]) -> str:
    known = [t for t in times if t is not None]
    parts = [f"{title}: line chart over time from {real(min(known))} to {real(max(known))}"]
    for curve in curves:
        ends = [v for v in curve.values if v is not None]
        parts.append(f"{curve.name} goes from {real(ends[0])} to {real(ends[-1])}")
    parts += [f"line at {level.name}" for level in levels]
    return "; ".join(parts) + "."


def _read(times: Sequence[Number], curves: Sequence[Curve]) -> str:
    """The last values, as the cursor says them."""
    return " · ".join([f"t = {real(times[-1])}", *(f"{c.name}: {real(c.values[-1], 6)}" for c in curves)])


# ---- the table


def thinned(places: Sequence[Number], wanted: int) -> list[int]:
    """Indices of at most so many places, spread evenly over the drawing; the first and the last are among them.

    >>> thinned([0.0, 0.1, 0.2, 5.0, 9.0, 10.0], 3)
    [0, 3, 5]
    """
    known = [k for k, p in enumerate(places) if p is not None]
    outside = [k for k, p in enumerate(places) if p is None][:1]
    if len(places) <= wanted or len(known) < 2:
        return list(range(len(places)))[:wanted]
    room = wanted - len(outside)
    spots = [places[k] or 0.0 for k in known]
    kept, at = {known[0], known[-1]}, 0
    for n in range(1, room - 1):
        goal = spots[0] + (spots[-1] - spots[0]) * n / (room - 1)
        while at + 1 < len(spots) and abs(spots[at + 1] - goal) <= abs(spots[at] - goal):
            at += 1
        kept.add(known[at])
    return sorted({*outside, *kept})


def _values(title: str, times: Sequence[Number], curves: Sequence[Curve], xs: Sequence[Number]) -> Markup:
    """The numbers of the chart; the script reads the cursor's values off this table."""
    kept = thinned(xs, _ROWS)
    head = ["t", *(c.name for c in curves)]
    body = [[real(times[k]), *(real(c.values[k], 6) for c in curves)] for k in kept]
    made = table(f"Values: {title}", head, body, numeric=range(len(head)))
    spots = " ".join("-" if xs[k] is None else f"{xs[k]:.1f}" for k in kept)
    cut = f" ({len(kept)} of {len(times)} times)" if len(kept) < len(times) else ""
    return el("details", el("summary", f"Values{cut}"), made, class_="values", data_spots=spots)
