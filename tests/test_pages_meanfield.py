"""The pages of mean-field flows: charts draw the numbers, films move, everything is there without a script."""

from __future__ import annotations

import copy
import json
import math
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fiberscope as fs
from fiberscope.meanfield import (
    angle_flow,
    initial_neurons,
    linear_flow,
    log_times,
    lowdim_flow,
    odd_flow,
    particle_flow,
    reduction_of,
)
from fiberscope.meanfield.particles.frames import frames_of
from fiberscope.meanfield.targets import Linear, NormH, Teacher
from fiberscope.pages import charts, data, films, markup, meanfield, meanfieldparts, page, report
from pagetools import CONTRAST, HOSTILE, Page, contrast, paths, shape, sound

NETWORK = fs.Network.from_arrays(([[1.0, 2.0]], [0.5]), ([[1.0]], [0.0]), activation="tanh")
CSS = (Path(charts.__file__).parent / "assets" / "charts.css").read_text(encoding="utf-8")


def teacher(dimension: int) -> Teacher:
    return Teacher([1.0, 0.5], np.eye(2, dimension) if dimension > 1 else [[1.0], [-1.0]])


FLOWS: dict[str, Callable[[], Any]] = {
    "angle": lambda: angle_flow(10, 2, log_times(0.5, 400, 8), nodes=12).refine(),
    "odd": lambda: odd_flow(0.3, 20, np.linspace(0, 60, 40)),
    "linear": lambda: linear_flow(np.diag([1.0, 0.5, 0.25]), [1.0, -1.0, 0.5], 1.5, np.linspace(0, 40, 30)),
    "lowdim-1": lambda: lowdim_flow(teacher(1), 5, log_times(1, 30, 8)),
    "lowdim-2": lambda: lowdim_flow(teacher(2), 5, log_times(1, 30, 8), nodes=(3, 6)),
    "lowdim-3": lambda: lowdim_flow(teacher(3), 5, log_times(1, 30, 8), nodes=(2, 4)),
    "particles": lambda: particle_flow(*initial_neurons(4, 24, seed=1), teacher(4), log_times(1, 30, 8)),
}


@cache
def flow(name: str) -> Any:
    return FLOWS[name]()


@cache
def _text(name: str) -> str:
    return json.dumps(page.data_of(flow(name)), allow_nan=False)


def document(name: str) -> dict[str, Any]:
    kind = "particles" if name == "particles" else name.split("-")[0]
    return {"schema": f"fiberscope/meanfield-{kind}/1", "wall_s": 0.5, **json.loads(_text(name))}


HEADINGS = {
    "angle": {"Densities of τ₊ and τ₋ over time", "Masses against α", "Distances to the limits", "Energy",
              "The mass identity", "How it was computed"},
    "odd": {"The linear map", "Convergence", "How it was computed"},
    "linear": {"The linear map", "Convergence", "Invariants", "How it was computed"},
    "lowdim-2": {"Neurons over time", "Masses", "Energy", "Energy balance", "How it was computed"},
    "particles": {"Neurons over time", "Masses", "Energy", "Symmetry", "How it was computed"},
}  # fmt: skip


# ---- axes


@given(st.lists(st.floats(1e-200, 1e200), min_size=1, max_size=8), st.booleans())
def test_an_axis_shows_its_values(values: list[float], log: bool) -> None:
    axis = charts.axis_of(values, log=log)
    assert axis is not None
    low = max(min(values), max(values) / 1e18) if log else min(values)
    for value in values:
        if value >= low:
            assert -1e-9 <= (axis.share(value) or 0.0) <= 1 + 1e-9
    found = axis.ticks()
    texts, _ = charts.labels(axis, found)
    assert 1 <= len(found) <= 9 and len(set(texts)) == len(texts) and all(len(t) <= 9 for t in texts)
    if len(found) > 1:
        assert all(-1e-6 <= (axis.share(t) or 0.0) <= 1 + 1e-6 for t in found)


def test_texts_of_ticks() -> None:
    assert charts.labels(charts.Axis(5.3, 5.3002), [5.3, 5.3001, 5.3002])[0] == ["5.3", "5.3001", "5.3002"]
    assert charts.labels(charts.Axis(0, 3e7), [0.0, 1e7, 3e7]) == (["0", "1", "3"], "10⁷")
    decades = charts.Axis(0.01, 10, True)
    assert charts.labels(decades, decades.ticks())[0] == ["0.01", "0.1", "1", "10"]


@pytest.mark.parametrize(
    ("times", "log"),
    [([0, 1, 2, 3, 4, 5, 6], False), (log_times(0.1, 1000, 20), True), (np.linspace(0, 100, 200).tolist(), False),
     ([0.0, 1.0, 100.0], False)],
)  # fmt: skip
def test_time_is_logarithmic_where_times_are(times: list[float], log: bool) -> None:
    axis = charts.time_axis([float(t) for t in times])
    assert axis is not None and axis.log is log and axis.high == times[-1]
    assert axis.low == (min(t for t in times if t > 0) if log else times[0])


def test_numbers_that_are_none_are_left_out() -> None:
    assert charts.numbers([1, None, "inf", "nan", True, 2.5]) == [1.0, None, None, None, None, 2.5]
    assert charts.axis_of([None, 0.0, -1.0], log=True) is None
    assert charts.time_axis([0.0, 0.0]) is None
    assert charts.line_chart("x", [0.0, 1.0], [charts.Curve("y", [None, None])]) is None
    assert charts.line_chart("x", [0.0, 1.0], [charts.Curve("y", [1.0])]) is None


# ---- lines


def vertices(chart: str, look: str = "l0") -> list[list[tuple[float, float]]]:
    """The corners of a curve as it is drawn, one list for each piece."""
    found = re.search(rf'<path class="line {look}" d="([^"]*)"', chart)
    if found is None:
        return []
    pieces = re.findall(r"M([^M]*)", found[1])
    return [[(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", piece)] for piece in pieces]


def back(axis: charts.Axis, share: float) -> float:
    return 10 ** (math.log10(axis.low) + share * math.log10(axis.high / axis.low)) if axis.log else (
        axis.low + share * (axis.high - axis.low)
    )  # fmt: skip


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_goes_through_its_points(log: bool) -> None:
    times = [float(t) for t in range(1, 9)]
    values: list[float | None] = [0.5, 2.0, 1.0, 8.0, None, 3.0, 40.0, 1.0]
    chart = str(charts.line_chart("c", times, [charts.Curve("y", values)], log=log))
    axis = charts.axis_of(values, log=log)
    assert axis is not None
    pieces = vertices(chart)
    assert [len(p) for p in pieces] == [4, 3]
    wide, tall = charts.WIDTH - charts.LEFT - charts.RIGHT, charts.HEIGHT - charts.TOP - charts.BOTTOM
    known = [(t, v) for t, v in zip(times, values, strict=True) if v is not None]
    for (x, y), (t, v) in zip([p for piece in pieces for p in piece], known, strict=True):
        assert (x - charts.LEFT) / wide == pytest.approx((t - 1) / 7, abs=2e-4)
        drawn = back(axis, (charts.HEIGHT - charts.BOTTOM - y) / tall)
        assert drawn == pytest.approx(v, rel=0.05 if log else 0.01, abs=0.02)


@settings(max_examples=60)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=40))
def test_a_curve_is_cut_where_it_leaves_the_window(values: list[float]) -> None:
    times = [float(k) for k in range(len(values))]
    window = charts.Axis(-1.0, 1.0)
    chart = str(charts.line_chart("c", times, [charts.Curve("y", values)], axis=window))
    wide, tall = charts.WIDTH - charts.LEFT - charts.RIGHT, charts.HEIGHT - charts.TOP - charts.BOTTOM
    drawn = [p for piece in vertices(chart) for p in piece]
    for x, y in drawn:
        at, value = (x - charts.LEFT) / wide * (len(values) - 1), (charts.HEIGHT - charts.BOTTOM - y) / tall * 2 - 1
        assert -1.001 <= value <= 1.001
        step = 3 * len(values) / wide * 0.5 * 6 + 0.02  # rounding to a tenth along a steep line
        assert abs(value - np.interp(at, times, values)) <= step
    inside = [v for v in values if abs(v) < 0.99]
    assert bool(drawn) or not inside


def test_points_too_near_are_one() -> None:
    times = np.linspace(0, 100, 5001).tolist()
    chart = str(charts.line_chart("c", times, [charts.Curve("y", np.sin(times).tolist())]))
    (piece,) = vertices(chart)
    assert 100 < len(piece) < 4000 and len(chart) < 80_000
    assert max(y for _, y in piece) - min(y for _, y in piece) > 0.85 * (charts.HEIGHT - charts.TOP - charts.BOTTOM)


def test_zeros_are_drawn_at_the_floor_and_their_table_says_zero() -> None:
    chart = str(meanfield.rounding_chart("d", [1.0, 2.0, 3.0], [charts.Curve("d", [0.0, 1e-15, 1e-13])]))
    (piece,) = vertices(chart)
    heights = [y for _, y in piece]
    axis = charts.axis_of([1e-17, 1e-12], log=True, decades=30)
    assert axis is not None
    floor = charts.HEIGHT - charts.BOTTOM - (axis.share(1e-17) or 0) * (charts.HEIGHT - charts.TOP - charts.BOTTOM)
    assert heights[0] == pytest.approx(floor, abs=0.06) and heights == sorted(heights, reverse=True)
    assert '<td class="num">0</td>' in chart and "≤10⁻¹⁷" in chart and "machine precision" in chart


def test_a_chart_tells_its_numbers_in_a_table_and_in_words() -> None:
    times = log_times(1, 1000, 200)
    chart = str(charts.line_chart("Masses", times, [charts.Curve("a", [t + 0.25 for t in times], "plus")], log=True))
    document_ = Page(chart)
    cells = document_.inside("td")
    assert cells[:2] == ["0", "0.25"] and cells[-2:] == ["1,000", "1,000.25"] or cells[-2:] == ["1000", "1000.25"]
    (svg,) = [a for t, a in document_.elements if t == "svg" and a.get("data-scale")]
    assert svg["role"] == "img" and (svg["aria-label"] or "").startswith("Masses: line chart over time from 0 to 1000")
    (details,) = [a for t, a in document_.elements if t == "details"]
    spots = (details["data-spots"] or "").split()
    assert len(spots) == len(cells) // 2 <= 64 and spots[0] == "-" and float(spots[-1]) == charts.WIDTH - charts.RIGHT
    assert f"Values ({len(spots)} of 201 times)" in chart


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=60), st.integers(3, 20))
def test_thinning_keeps_the_ends(places: list[float | None], wanted: int) -> None:
    found = charts.thinned(sorted(places, key=lambda p: (p is not None, p or 0.0)), wanted)
    known = [p for p in places if p is not None]
    assert found == sorted(set(found)) and 1 <= len(found) <= wanted
    if len(known) > 1 and len(places) > wanted:
        assert found[-1] == len(places) - 1 and (found[0] == 0)


def test_curves_can_be_told_apart_without_colour() -> None:
    """No two looks that share a chart have the same dashes."""
    looks = {m[1]: m[2] for m in re.finditer(r"\.line\.(\w+) \{([^}]*)\}", CSS)}
    dashes = {k: (m[1] if (m := re.search(r"stroke-dasharray: ([^;]*)", body)) else "") for k, body in looks.items()}
    for group in (("l0", "l1", "l2", "l3", "l4", "l5"), ("plus", "minus", "l3"), ("l0", "bound", "slope")):
        assert len({dashes[k] for k in group}) == len(group)


@pytest.mark.parametrize(("theme", "card"), [(1, "ffffff"), (2, "181c25")])
def test_lines_stand_out_in_both_themes(theme: int, card: str) -> None:
    css = (Path(charts.__file__).parent / "assets" / "page.css").read_text(encoding="utf-8")
    for name in ("c0", "c1", "c2", "c3", "c4", "c5", "plus", "minus", "good", "warn", "soft", "ink"):
        found = re.search(rf"--{name}: light-dark\(#(\w+), #(\w+)\)", css)
        assert found is not None
        assert contrast(found[theme], card) > 3


# ---- films


def test_wings_have_the_heights_of_the_densities() -> None:
    edges = np.linspace(0, math.pi / 2, 5).tolist()
    found = films.Densities([0.0, 1.0], edges, [[1.0, 10.0, 0.0, 0.1]] * 2, [[0.01, 1e-9, 2.0, 100.0]] * 2, ["a", "b"])
    text = str(films.density_film(found))
    middle = (films._TOP + films._HEIGHT - films._BOTTOM) / 2
    for sign, look, row in ((1, "plus", found.plus[0]), (-1, "minus", found.minus[0])):
        path = re.search(rf'class="wing {look}" d="([^"]*)"', text)
        assert path is not None
        x, y, heights = films._across(0.0), middle, {}
        for kind, value in re.findall(r"([HV])([\d.]+)", path[1]):
            if kind == "H":
                heights[round(x, 1)] = (float(value), y)
                x = float(value)
            else:
                y = float(value)
        for k, value in enumerate(row):
            centre = films._across((edges[k] + edges[k + 1]) / 2)
            y = next(y for left, (right, y) in heights.items() if left <= centre <= right)
            share = sign * (middle - y) / (middle - films._TOP)
            assert share == pytest.approx(max(0.0, (math.log10(value or 1e-300) + 3) / 5), abs=2e-3)


def test_one_frame_is_seen_at_first() -> None:
    text = str(films.density_film(found)) if (found := meanfield._densities(document("angle"))) else ""
    frames = re.findall(r'<g class="frame"( hidden)?>', text)
    assert frames == ["", *[" hidden"] * (len(frames) - 1)] and len(frames) == 9
    assert text.count('class="small-still"') == films.STILLS
    box = next(a for t, a in Page(text).elements if t == "div" and a.get("class") == "film")
    assert len(json.loads(box["data-times"] or "")) == len(json.loads(box["data-words"] or "")) == 9


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(-180, 180), st.floats(-90, 90))
def test_turning_keeps_lengths_and_nothing_turned_is_the_view_from_the_front(
    point: list[float], turn: float, tilt: float
) -> None:
    assert math.hypot(*films.turned(point, turn, tilt)) == pytest.approx(math.hypot(*point), abs=1e-12)
    x, y, z = point
    assert films.turned(point, 0, 0) == pytest.approx((x, z, -y))
    assert films.turned(point, 0, 90) == pytest.approx((x, y, z))  # from above


def test_areas_are_masses() -> None:
    assert films._radius(1.0, 1.0) == 2 * films._radius(0.25, 1.0)
    assert films._radius(0.0, 1.0) > 0 and films._radius(0.0, 0.0) > 0


@given(st.integers(1, 400), st.integers(2, 70))
def test_frames_are_spread_evenly(total: int, wanted: int) -> None:
    found = films.evenly(total, wanted)
    assert found[0] == 0 and found[-1] == total - 1 and len(found) == min(total, wanted)
    assert len(found) < 3 or max(np.diff(found)) - min(np.diff(found)) <= 1


def test_neurons_are_seen_along_the_directions_of_most_mass() -> None:
    a = np.array([[1.0, -1.0, 2.0], [1.0, -1.0, 5.0]])
    rows = np.zeros((2, 3, 6))
    rows[:, 0, 4], rows[:, 1, 2], rows[:, 2, 0] = 3.0, -2.0, 5.0
    found = frames_of(np.array([0.0, 1.0]), a, rows)
    assert found is not None and found["signs"] == [1, -1, 1]
    frames = found["frames"]
    assert frames["masses"][1] == pytest.approx([1.0, 2 / 3, 25 / 3], rel=1e-3)
    assert np.abs(frames["points"][1]).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert frames_of(np.zeros(0), a[:0], rows[:0]) is None


def test_only_the_heaviest_of_many_neurons_are_drawn() -> None:
    out = document("lowdim-2")
    frames = out["frames"]
    copies = 5
    frames["masses"] = [[m * (1 + k) for k in range(copies) for m in row] for row in frames["masses"]]
    frames["points"] = [row * copies for row in frames["points"]]
    out["signs"] = out["signs"] * copies
    text = report(out)
    total = len(out["signs"])
    assert total > films.NEURONS and f"The {films.NEURONS} heaviest of {total} neurons are drawn." in text
    (svg,) = [a for t, a in Page(text).elements if t == "svg" and a.get("data-frames")]
    assert all(len(f.split()) == films.NEURONS for f in (svg["data-frames"] or "").split(";"))


# ---- the pages


def headings(text: str) -> set[str]:
    return set(re.findall(r"<h3[^>]*>([^<]*)</h3>", text))


@pytest.mark.parametrize("name", FLOWS)
def test_each_flow_has_its_own_parts(name: str) -> None:
    small_print = {"Skipped, assumed, not said"} if flow(name).theorems else set()
    expected = HEADINGS[name if name in HEADINGS else "lowdim-2"] | small_print
    for found in (document(name), flow(name)):
        text = report(found)
        assert headings(text) == expected
        sound(text)
    assert data.view_of(json.loads(_text(name)), 1).kind == document(name)["schema"].split("/")[1]


def test_other_pages_do_not_carry_the_script_of_charts() -> None:
    assert "svg.sphere" not in report(fs.orbit(NETWORK)) and "svg.sphere" in report(document("odd"))


def test_tiles_and_words_are_the_numbers_of_the_flow() -> None:
    found = flow("angle")
    text = report(found)
    top = found.overshoot()["largest"]
    assert f"t* = {found.critical_time:.7g}" in text
    assert f"+{top['excess']:.4g}" in text and f"at t = {top['time']:.4g}" in text
    masses = f"positive neurons have mass {found.mass_plus[0]:.4g} and negative ones {found.mass_minus[0]:.4g}"
    assert f"At time 0, {masses}." in text
    worst = max((v, k) for k, v in found.error.items() if "time" not in k)
    tiles = list(meanfield.angle_tiles(found.to_dict()))
    assert tiles[-1]["text"] == f"largest estimated error, of {worst[1].replace('_', ' ')}"
    assert "Angle dynamics: d = 10, dim H = 2" in text


def test_without_an_overshoot_in_the_data_the_output_times_tell() -> None:
    found = {"alpha": 2.0, "times": [0.0, 1.0, 2.0], "mass_plus": [0.5, 2.5, 2.25]}
    assert meanfield.overshoot(found) == (0.5, 1.0)
    tiles = list(meanfield.angle_tiles({**found, "mass_plus": [0.5, 0.7, 0.9], "complete": False, "reason": "budget"}))
    assert [t["title"] for t in tiles] == ["2", "not reached", "t = 2"]
    assert tiles[-1]["text"] == "reached; budget" and tiles[-1]["look"] == "open"


def test_the_third_curve_of_the_excess_is_the_mean_residual() -> None:
    """The identity, read off the drawing's table: E[R]/lam_0 from the masses is that of the flow."""
    found = flow("angle")
    text = str(meanfield._excess(document("angle"), charts.numbers(found.times.tolist())))
    cells = Page(text).inside("td")
    drawn = [float(c.replace("\u2212", "-").replace(",", "")) for c in cells[3::4] if "×" not in c]
    from fiberscope.meanfield.harmonics.kernels import relu_eigenvalues

    wanted = found.residual_mean / relu_eigenvalues(10, 1)[0]
    assert drawn[0] == pytest.approx(wanted[0], rel=1e-5) and drawn[-1] == pytest.approx(wanted[-1], rel=1e-3)


def test_the_bound_and_the_slope_are_those_of_the_flow() -> None:
    found = flow("odd")
    rate = found.rate
    slope = meanfieldparts._slope(found.times.tolist(), found.gap.tolist(), rate)[0].values
    assert slope[-1] == pytest.approx(found.gap[-1]) or found.gap[-1] < 1e-14 * found.gap.max()
    ratios = [math.log(a / b) for a, b in zip(slope, slope[1:], strict=False) if a and b]
    assert ratios == pytest.approx([rate * (found.times[1] - found.times[0])] * len(ratios))
    out = document("odd")
    drawn = vertices(str(meanfieldparts.gap(page._view(out, 1)).markup), "bound")[0]  # type: ignore[union-attr]
    given_ = {**out, "bound": found.bound_curve.tolist()}
    assert drawn == vertices(str(meanfieldparts.gap(page._view(given_, 1)).markup), "bound")[0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "case", "call"),
    [(NormH((30, 5)), "one angle", "angle_flow(d=30, dH=5, times=...)"), (teacher(4), "a small sphere", "lowdim_flow("),
     (Linear([1.0, 2.0, 0.0]), "linear", "odd_flow(")],
)  # fmt: skip
def test_the_reduction_of_a_target_is_told(target: Any, case: str, call: str) -> None:
    found = reduction_of(target)
    for text in (report(found), report({"schema": "fiberscope/meanfield-reduction/1", **found.to_dict()})):
        assert f">{case}<" in text and call in text and "What the target reduces to" in text
        assert all(markup.pretty(line).replace("<", "&lt;").replace(">", "&gt;") in text for line in found.statements)
        assert f">{found.reduced_dimension}<" in text and f"the inputs have {found.dimension}" in text


SAID = ("initial", "method", "activation", "loss", "expectation", "form", "reason", "rigor")


def renamed(name: str, text: str) -> dict[str, Any]:
    out = document(name)
    out.update({key: text for key in SAID if key in out}, complete=False, reason=text)
    if "frames" in out:
        out["frames"]["axes"] = [text] * len(out["frames"]["points"][0][0])
    return out


@pytest.mark.parametrize("name", ["angle", "linear", "lowdim-2", "particles"])
def test_hostile_words_change_no_element(name: str) -> None:
    text = report(renamed(name, HOSTILE))
    assert shape(text) == shape(report(renamed(name, "x" * len(HOSTILE))))
    assert "\u202e" not in text and "\x00" not in text


@pytest.mark.parametrize("name", ["angle", "linear", "lowdim-2", "particles"])
def test_any_missing_or_foreign_value_is_a_missing_part(name: str) -> None:
    base = document(name)
    for path in [p for p in paths(base) if p[0] not in ("schema", "wall_s")]:
        for put in (None,) if len(path) > 1 else ("nan", [None], [[1.0]], "drop"):
            damaged: Any = {**base, path[0]: copy.deepcopy(base[path[0]])}
            place = damaged
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = put
            if put == "drop" and isinstance(place, dict):
                del place[path[-1]]
            seen = page._view(damaged, 1)
            for part in (part for band in page._LAYOUT for part in band):
                part(seen)
    Page(report({"schema": base["schema"]}))


# ---- in a browser


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 420, 768, 1240, 1920])
def test_no_sideways_scrolling(opened: Any, width: int) -> None:
    shown = opened(*(document(name) for name in ("angle", "linear", "lowdim-2", "lowdim-1", "particles")), width=width)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    cut = """() => Array.from(document.querySelectorAll("figure.charted > svg text")).filter((t) => {
      const [a, b] = [t.getBoundingClientRect(), t.ownerSVGElement.getBoundingClientRect()];
      return a.left < b.left - 6 || a.right > b.right + 6; }).map((t) => t.textContent)"""
    assert shown.evaluate(cut) == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened: Any, scheme: str) -> None:
    assert opened(document("angle"), document("lowdim-2"), document("linear"), scheme=scheme).evaluate(CONTRAST) == []


@pytest.mark.browser
def test_the_slider_moves_the_frame_and_the_line_in_the_charts(opened: Any) -> None:
    shown = opened(document("angle"))
    slider = shown.get_by_label("Time: densities")
    frames = shown.locator(".film g.frame")
    assert slider.is_visible() and shown.locator(".stills").first.is_hidden()
    assert [k for k in range(frames.count()) if frames.nth(k).get_attribute("hidden") is None] == [0]
    assert shown.locator("line.now:visible").count() == 0
    slider.focus()
    for _ in range(3):
        shown.keyboard.press("ArrowRight")
    assert [k for k in range(frames.count()) if frames.nth(k).get_attribute("hidden") is None] == [3]
    at = document("angle")["histogram"]["times"][3]
    said = shown.locator(".moment").inner_text()
    assert said.startswith(f"At time {at:.4g}, positive neurons have mass")
    assert slider.get_attribute("aria-valuetext") == said
    low, high = (document("angle")["times"][k] for k in (1, -1))
    x = charts.LEFT + math.log(at / low) / math.log(high / low) * (charts.WIDTH - charts.LEFT - charts.RIGHT)
    lines = shown.locator("figure.charted line.now")
    assert lines.count() == shown.locator("figure.charted").count() >= 6
    assert all(float(lines.nth(k).get_attribute("x1")) == pytest.approx(x, abs=0.06) for k in range(lines.count()))
    shown.keyboard.press("Home")
    assert "At time 0," in shown.locator(".moment").inner_text()


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait; the content policy of the page keeps Playwright from doing it there."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.browser
def test_play_and_pause(opened: Any) -> None:
    shown = opened(document("angle"))
    slider, button = shown.get_by_label("Time: densities"), shown.get_by_role("button", name="Play")
    assert slider.input_value() == "0"  # nothing moves by itself
    button.click()
    until(lambda: int(slider.input_value()) > 1)
    pause = shown.get_by_role("button", name="Pause")
    pause.click()
    stopped = slider.input_value()
    shown.wait_for_timeout(400)
    assert slider.input_value() == stopped and shown.locator("button.play").inner_text() == "Play"
    slider.focus()
    shown.keyboard.press("End")
    shown.locator("button.play").press("Enter")  # from the beginning again
    assert int(slider.input_value()) < 5
    until(lambda: shown.locator("button.play").inner_text() == "Play")
    assert slider.input_value() == slider.get_attribute("max")


@pytest.mark.browser
def test_less_motion_is_respected(opened: Any) -> None:
    shown = opened(document("angle"))
    shown.emulate_media(reduced_motion="reduce")
    shown.locator("button.play").click()
    shown.wait_for_timeout(600)  # by now three frames have passed otherwise
    assert shown.get_by_label("Time: densities").input_value() == "0"


@pytest.mark.browser
def test_the_cursor_reads_the_table(opened: Any) -> None:
    shown = opened(document("angle"))
    figure = shown.locator("figure.charted", has=shown.locator("figcaption strong", has_text=re.compile("^Masses$")))
    drawing, readout = figure.locator("> svg"), figure.locator(".readout")
    last = readout.inner_text()
    assert last.startswith("t = 400 · τ₊: ")
    figure.locator("summary").click()
    rows = figure.locator("tbody tr")
    drawing.focus()
    shown.keyboard.press("Home")
    shown.keyboard.press("ArrowRight")
    cells = rows.nth(2).locator("td").all_inner_texts()  # the first row, time 0, is not on a logarithmic axis
    assert readout.inner_text() == f"t = {cells[0]} · τ₊: {cells[1]} · τ₋: {cells[2]}"
    assert drawing.get_attribute("role") == "slider" and drawing.get_attribute("aria-valuetext") == readout.inner_text()
    shown.keyboard.press("Tab")
    assert readout.inner_text() == last
    box = drawing.bounding_box()
    shown.mouse.move(box["x"] + box["width"] * charts.LEFT / charts.WIDTH, box["y"] + box["height"] / 2)
    assert readout.inner_text().startswith(f"t = {rows.nth(1).locator('td').first.inner_text()} ·")
    shown.mouse.move(2, 2)
    assert readout.inner_text() == last


NEURONS = "svg.sphere circle.neuron"
CENTRES = "(all) => all.map((c) => [Number(c.getAttribute('cx')), Number(c.getAttribute('cy'))])"


@pytest.mark.browser
def test_neurons_turn_and_stand_where_they_are(opened: Any) -> None:
    shown = opened(document("lowdim-2"))
    out = document("lowdim-2")["frames"]

    def spots() -> list[tuple[float, float]]:
        return sorted((x, y) for x, y in shown.locator(NEURONS).evaluate_all(CENTRES))

    def placed(frame: int, turn: float, tilt: float) -> list[tuple[float, float]]:
        turned = [films.turned(np.round(p, 3), turn, tilt) for p in out["points"][frame]]
        return sorted((160 + 128 * right, 160 - 128 * up) for right, up, _ in turned)

    def agree(frame: int, turn: float, tilt: float) -> None:
        found, wanted = np.array(spots()), np.array(placed(frame, turn, tilt))
        gaps = np.abs(found[:, None] - wanted[None]).max(axis=2)
        assert len(found) == len(wanted) and gaps.min(axis=0).max() < 0.1 and gaps.min(axis=1).max() < 0.1

    agree(0, 30, 20)
    shown.locator("input.turn").focus()
    shown.keyboard.press("ArrowRight")
    agree(0, 32, 20)
    shown.locator("input.time").focus()
    shown.keyboard.press("End")
    agree(len(out["times"]) - 1, 32, 20)
    box = shown.locator("svg.sphere").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x + 50, y + 30)
    shown.mouse.up()
    agree(len(out["times"]) - 1, 2, 38)
    minus = shown.locator("svg.sphere circle.minus").count()
    assert minus == sum(s < 0 for s in document("lowdim-2")["signs"]) > 0


@pytest.mark.browser
def test_a_half_circle_is_drawn_for_one_dimension(opened: Any) -> None:
    shown = opened(document("lowdim-1"), width=420)
    heights = [y for _, y in shown.locator(NEURONS).evaluate_all(CENTRES)]
    assert heights and max(heights) <= 160.1 and shown.locator("input.turn").count() == 0


@pytest.mark.browser
def test_the_page_is_complete_without_its_script(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(document("angle"), document("lowdim-2")), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(path.as_uri())
    assert shown.locator("button:visible").count() == shown.locator("input:visible").count() == 0
    assert shown.locator(".stills svg:visible").count() == 12
    assert "t = 400" in shown.locator(".stills figcaption").nth(5).inner_text()
    shown.locator("figure.charted summary").first.click()
    assert shown.locator("figure.charted table").first.is_visible()
    assert shown.locator(".readout").first.inner_text().startswith("t = 400")
    context.close()


@pytest.mark.browser
def test_prints_stills_and_no_controls(opened: Any) -> None:
    shown = opened(document("angle"))
    shown.emulate_media(media="print")
    assert shown.locator(".stage:visible").count() == 0 and shown.locator(".stills svg:visible").count() == 6
