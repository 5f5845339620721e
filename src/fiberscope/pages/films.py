"""Drawings that change with time: frames behind a slider and a play button, side by side where no script runs.

A film has a stage, which the script of the page shows and drives, and stills: some of its frames in small.
Densities are drawn here, frame by frame; neurons are drawn by the script from the numbers of the film, so that
they can be turned. Both times the stills show the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fiberscope.pages.charts import Axis, Number, labels
from fiberscope.pages.markup import Child, Markup, el, real

FRAMES = 60
"""Most frames of densities."""
FRAMES_OF_NEURONS = 28
"""Most frames of neurons, which are long lists of numbers."""
NEURONS = 160
"""Most neurons drawn."""
STILLS = 6

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 308, 40, 12, 28, 40
_ROUND = 320  # side of the drawing of neurons
_BALL = 128  # radius of the sphere in it
_DISC = 11.0  # radius of the heaviest neuron


@dataclass(frozen=True)
class Frame:
    """One moment: its time and what to say about it."""

    time: float
    words: str


def evenly(total: int, wanted: int) -> list[int]:
    """Indices from 0 to total - 1, both among them, at most so many.

    >>> evenly(9, 5), evenly(2, 5)
    ([0, 2, 4, 6, 8], [0, 1])
    """
    if total <= wanted:
        return list(range(total))
    return sorted({round(k * (total - 1) / (wanted - 1)) for k in range(wanted)})


def film(label: str, frames: Sequence[Frame], stage: Child, stills: Sequence[Child], *, more: Child = None) -> Markup:
    """A stage with its controls, and the stills for where no script runs.

    Args:
        label: what the slider moves, for screen readers.
        frames: the moments in order; the slider has one place for each.
        stage: drawing with one `g.frame` for each moment, or numbers that the script draws.
        stills: drawings of some moments.
        more: further controls.
    """
    last = len(frames) - 1
    controls = el(
        "div",
        el("button", "Play", type="button", class_="play"),
        el("input", type="range", class_="time", min=0, max=last, value=0, step=1, aria_label=f"Time: {label}"),
        class_="controls",
    )
    said = el("p", frames[0].words, class_="moment", aria_live="off")
    hint = el("p", "The line in the charts is at this time.", class_="small")
    shown = el("div", stage, controls, said, more, hint, class_="stage")
    times, words = (json.dumps(v, ensure_ascii=False) for v in ([f.time for f in frames], [f.words for f in frames]))
    return el("div", shown, el("div", stills, class_="stills"), class_="film", data_times=times, data_words=words)


def still(drawing: Markup, time: float) -> Markup:
    """A frame in small, under its time."""
    return el("figure", el("figcaption", f"t = {real(time)}"), drawing)


# ---- densities on an angle


@dataclass(frozen=True)
class Densities:
    """Two densities on [0, pi/2] over time, as histograms: `plus[k]` and `minus[k]` belong to `times[k]`."""

    times: Sequence[float]
    edges: Sequence[float]
    plus: Sequence[Sequence[Number]]
    minus: Sequence[Sequence[Number]]
    words: Sequence[str]


def density_film(found: Densities) -> Markup:
    """The density of positive neurons upwards, of negative ones downwards, on one logarithmic scale for all times."""
    kept = evenly(len(found.times), FRAMES)
    scale = _density_scale(found)
    backdrop = _butterfly_axes(scale)
    ghost = el("path", class_="ghost", d=_wings(found, 0, scale, 1) + _wings(found, 0, scale, -1))
    frames = [
        el("g", el("path", class_="wing plus", d=_wings(found, k, scale, 1)),
           el("path", class_="wing minus", d=_wings(found, k, scale, -1)), class_="frame", hidden=k != kept[0])
        for k in kept
    ]  # fmt: skip
    about = "Densities of the angle to H over time; positive neurons upwards, negative ones downwards"
    stage = el(
        "svg", backdrop, frames, ghost, class_="plot", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img",
        aria_label=about,
    )  # fmt: skip
    small = [
        still(
            el("svg", el("line", class_="axis", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_middle(), y2=_middle()),
               el("path", class_="wing plus", d=_wings(found, k, scale, 1)),
               el("path", class_="wing minus", d=_wings(found, k, scale, -1)),
               viewBox=f"{_LEFT} {_TOP} {_WIDTH - _LEFT - _RIGHT} {_HEIGHT - _TOP - _BOTTOM}", role="img",
               class_="small-still", aria_label=f"Densities: {found.words[k]}"),
            found.times[k],
        )
        for k in (kept[n] for n in evenly(len(kept), STILLS))
    ]  # fmt: skip
    return film("densities", [Frame(found.times[k], found.words[k]) for k in kept], stage, small)


def _density_scale(found: Densities) -> Axis:
    """Decades that show all frames, at most five below the largest value."""
    values = [v for side in (found.plus, found.minus) for row in side for v in row if v is not None and v > 0]
    high = 10.0 ** math.ceil(math.log10(max(values, default=1.0)))
    return Axis(high / 1e5, high, True)


def _middle() -> float:
    return (_TOP + _HEIGHT - _BOTTOM) / 2


def _across(angle: float) -> float:
    return _LEFT + angle / (math.pi / 2) * (_WIDTH - _LEFT - _RIGHT)


def _wings(found: Densities, k: int, scale: Axis, sign: int) -> str:
    """The outline of one histogram, from the middle line up (sign 1) or down."""
    half, middle = _middle() - _TOP, _middle()
    row = (found.plus if sign > 0 else found.minus)[k]
    out, level = [f"M{_across(found.edges[0]):.1f} {middle:.1f}"], middle
    for edge, value in zip(found.edges, row, strict=False):
        share = min(1.0, max(0.0, scale.share(value) or 0.0))
        y = round(middle - sign * share * half, 1)
        if y != level:
            out.append(f"H{_across(edge):.1f}V{y:.1f}")
            level = y
    return "".join(out) + f"H{_across(found.edges[-1]):.1f}V{middle:.1f}Z"


def _butterfly_axes(scale: Axis) -> list[Markup]:
    half, middle, ground, end = _middle() - _TOP, _middle(), _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    out = []
    found = scale.ticks()
    texts, _ = labels(scale, found)
    for sign in (1, -1):
        for tick, text in zip(found[1:], texts[1:], strict=True):
            y = round(middle - sign * (scale.share(tick) or 0.0) * half, 1)
            out.append(el("line", class_="grid", x1=_LEFT, x2=end, y1=y, y2=y))
            if tick != found[-1] or sign > 0:
                out.append(el("text", text, x=_LEFT - 5, y=y + 3.5, text_anchor="end"))
    out.append(el("text", f"≤{texts[0]}", x=_LEFT - 5, y=middle + 3.5, text_anchor="end"))
    out.append(el("line", class_="axis", x1=_LEFT, x2=end, y1=middle, y2=middle))
    for part, text in enumerate(("0", "π/8", "π/4", "3π/8", "π/2")):
        x = round(_across(part * math.pi / 8), 1)
        out.append(el("line", class_="axis", x1=x, x2=x, y1=ground, y2=ground + 4))
        out.append(el("text", text, x=x, y=ground + 16, text_anchor="end" if part == 4 else "middle"))
    out.append(el("text", "in H", class_="name", x=_LEFT, y=_HEIGHT - 6))
    out.append(el("text", "angle to H", class_="name", x=(_LEFT + end) / 2, y=_HEIGHT - 6, text_anchor="middle"))
    out.append(el("text", "orthogonal to H", class_="name", x=end, y=_HEIGHT - 6, text_anchor="end"))
    out.append(el("text", "τ₊ density, log scale", class_="name", x=4, y=12))
    out.append(el("text", "τ₋ downwards", class_="name", x=end, y=ground - 6, text_anchor="end"))
    return out


# ---- neurons on a sphere


@dataclass(frozen=True)
class Neurons:
    """Neurons over time in two or three coordinates of length at most one.

    Args:
        times: of the frames.
        points: [frame][neuron] -> coordinates.
        masses: [frame][neuron], nonnegative.
        signs: one per neuron, +1 or -1.
        words: what to say about each frame.
        axes: names of the coordinates.
        half: whether the last coordinate is never negative.
        inside: whether points may lie inside the ball (a projection), so that its outline is no sphere.
    """

    times: Sequence[float]
    points: Sequence[Sequence[Sequence[float]]]
    masses: Sequence[Sequence[float]]
    signs: Sequence[int]
    words: Sequence[str]
    axes: Sequence[str]
    half: bool = False
    inside: bool = False


def neuron_film(found: Neurons) -> Markup:
    """Discs for positive neurons, rings for negative ones; their area is the mass. Three coordinates can be turned."""
    kept = evenly(len(found.times), FRAMES_OF_NEURONS)
    solid = len(found.axes) == 3
    turn, tilt = (30, 20) if solid else (0, 0)
    heaviest = max((m for k in kept for m in found.masses[k]), default=0.0)
    radii = [[_radius(m, heaviest) for m in found.masses[k]] for k in kept]
    packed = [
        " ".join(
            ",".join([*(str(round(1000 * c)) for c in point), f"{r:g}"])
            for point, r in zip(found.points[k], row, strict=True)
        )
        for k, row in zip(kept, radii, strict=True)
    ]
    about = "Neurons on the unit sphere over time" if solid else "Neurons on the unit circle over time"
    stage = el(
        "svg", class_=f"sphere{' solid' if solid else ''}", viewBox=_window(found), role="img",
        aria_label=f"{about}; discs are positive, rings negative", data_axes=json.dumps(list(found.axes)),
        data_signs="".join("+" if s > 0 else "-" for s in found.signs), data_frames=";".join(packed),
        data_half=found.half, data_inside=found.inside,
    )  # fmt: skip
    more = _turning(turn, tilt) if solid else None
    small = [
        still(_round_still(found, k, radii[n], (turn, tilt)), found.times[k])
        for n, k in ((n, kept[n]) for n in evenly(len(kept), STILLS))
    ]
    frames = [Frame(found.times[k], found.words[k]) for k in kept]
    return film("neurons", frames, stage, small, more=more)


def _window(found: Neurons) -> str:
    """The view box: the upper half for points of a half circle."""
    return f"0 0 {_ROUND} {_ROUND // 2 + 16 if found.half and len(found.axes) == 2 else _ROUND}"


def _turning(turn: int, tilt: int) -> Markup:
    ranges = [
        el("label", text, el("input", type="range", class_=look, min=low, max=high, value=value, step=2))
        for text, look, low, high, value in (("Turn ", "turn", -180, 180, turn), ("Tilt ", "tilt", -90, 90, tilt))
    ]
    return el("div", ranges, el("span", "or drag the drawing", class_="small"), class_="controls turning")


def _radius(mass: float, heaviest: float) -> float:
    """Area in proportion to mass; the lightest stay visible."""
    return max(1.5, round(2 * _DISC * math.sqrt(max(mass, 0.0) / heaviest)) / 2) if heaviest > 0 else 3.0


def turned(point: Sequence[float], turn: float, tilt: float) -> tuple[float, float, float]:
    """Right, up and towards the eye, after a turn about the last axis and a tilt, in degrees.

    A point of two coordinates lies in the drawing as it is.

    >>> tuple(round(c, 12) for c in turned((1.0, 0.0, 0.0), 90.0, 0.0))
    (0.0, 0.0, 1.0)
    """
    if len(point) < 3:
        x, y = (*point, 0.0)[:2]
        return x, y, 0.0
    (cx, sx), (cy, sy) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (turn, tilt))
    x, y, z = point
    right, deep = cx * x + sx * y, cx * y - sx * x
    return right, cy * z + sy * deep, sy * z - cy * deep


def _round_still(found: Neurons, k: int, radii: Sequence[float], view: tuple[float, float]) -> Markup:
    half = _ROUND / 2
    discs = []
    placed = [(*turned(p, *view), r, s) for p, r, s in zip(found.points[k], radii, found.signs, strict=True)]
    for right, up, near, r, sign in sorted(placed, key=lambda row: row[2]):
        look = f"neuron {'plus' if sign > 0 else 'minus'}{' far' if near < -1e-9 else ''}"
        discs.append(el("circle", class_=look, cx=round(half + _BALL * right), cy=round(half - _BALL * up), r=f"{r:g}"))
    rim = [el("circle", class_="rim", cx=half, cy=half, r=_BALL)]
    if len(found.axes) == 3:
        ring = [turned((math.cos(a), math.sin(a), 0.0), *view) for a in (k * math.pi / 24 for k in range(49))]
        spots = "L".join(f"{half + _BALL * right:.0f} {half - _BALL * up:.0f}" for right, up, _ in ring)
        rim.append(el("path", class_="rim", d=f"M{spots}"))
    return el("svg", rim, discs, class_="small-still", viewBox=_window(found), role="img",
              aria_label=f"Neurons: {found.words[k]}")  # fmt: skip
