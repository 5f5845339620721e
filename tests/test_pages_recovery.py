"""The pages of recovery: heat maps, matrices, ladders and staircases draw the numbers and say them."""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fiberscope as fs
from fiberscope.invariants.recovery import (
    condensation,
    diagonal,
    embed,
    model_rank,
    phase_diagram,
    predict_recovery,
    recover,
    select_width,
    strata,
)
from fiberscope.pages import (
    charts,
    condensing,
    data,
    heatmaps,
    markup,
    page,
    plots,
    report,
    staircases,
)
from pagetools import CONTRAST, HOSTILE, Page, paths, shape, sound

CSS = (Path(charts.__file__).parent / "assets" / "charts.css").read_text(encoding="utf-8")
RNG = np.random.default_rng(0)
ONE = fs.Network.from_arrays(([[1.0]], [0.5]), ([[1.0]], [0.0]), activation="tanh")
TWO = fs.Network.from_arrays(([[1.0, 2.0], [2.0, -1.0]], [0.0, 0.0]), ([[1.0, 2.0]], [0.0]), activation="tanh")
X, Y = [[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1, 0]


def checkpoints() -> list[fs.Network]:
    start, end = RNG.standard_normal((9, 3)), RNG.standard_normal((3, 3))[np.arange(9) % 3]
    parts = [(1 - t) * start + t * end for t in (0.0, 0.5, 1.0)]
    return [fs.Network.from_arrays((w, np.zeros(9)), (np.ones((1, 9)), [0.0]), activation="tanh") for w in parts]


def points(n: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, 2))


MAKE: dict[str, tuple[str, Callable[[], Any]]] = {
    "rank": ("rank", lambda: model_rank(fs.Network.random((2, 5, 3, 1), activation="tanh", seed=0))),
    "predict": ("predict-recovery", lambda: predict_recovery(TWO, 5)),
    "recover": ("recover", lambda: recover((points(14), TWO(points(14))), (1, 2), starts=32, flows=2, wide=4)),
    "noisy": ("recover", lambda: recover((points(14), RNG.standard_normal(14)), (1,), starts=4, flows=0,
                                         noise="held-out")),
    "select": ("select-width", lambda: select_width(points(14), RNG.standard_normal(14), (0, 1), starts=4, folds=3,
                                                   steps=20)),
    "embed": ("embed", lambda: embed(TWO, [5], how="mixed")),
    "strata": ("strata", lambda: strata(4, 2, 2, activation="tanh")),
    "diagonal": ("diagonal", lambda: diagonal(X, Y, mode="flow", scales=["1e-8"])),
    "phase": ("phase-diagram", lambda: phase_diagram(ONE, samples=[2, 4, 8], widths=[1, 2], scales=[0.01, 0.5],
                                                     seeds=1, tests=50)),
    "condensation": ("condensation", lambda: condensation(checkpoints(), labels=["a", "b", "c"])),
    "relu": ("condensation", lambda: condensation(fs.Network.random((3, 70, 4, 1), activation="relu", seed=1))),
}  # fmt: skip

HEADINGS = {
    "rank": {"Model rank"},
    "predict": {"Samples by manifold"},
    "recover": {"The ladder", "Assumed"},
    "noisy": {"The ladder", "Assumed", "Widths for noisy data"},
    "select": {"Widths for noisy data", "Assumed"},
    "embed": {"The embedding"},
    "strata": {"Branches", "Assumed"},
    "diagonal": {"The staircase", "The flow against the limit", "Where it ends"},
    "phase": {"Recovery by samples and width", "Median test error", "What was trained"},
    "condensation": {"Directions of neurons", "Over the checkpoints", "Classes by tolerance"},
    "relu": {"Directions of neurons", "Classes by tolerance"},
}


@cache
def found(name: str) -> Any:
    return MAKE[name][1]()


@cache
def _text(name: str) -> str:
    return json.dumps(found(name).to_dict(), allow_nan=False)


def document(name: str, **changes: Any) -> dict[str, Any]:
    return {"schema": f"fiberscope/{MAKE[name][0]}/1", "wall_s": 0.5, **json.loads(_text(name)), **changes}


def titles(text: str) -> dict[str, str]:
    """The tiles: what each says, by its words."""
    pairs = re.findall(r'<li><strong class="big([^"]*)">([^<]*)</strong><span>([^<]*)', text)
    return {
        html.unescape(words.strip()): html.unescape(title) + look.replace(" long", "") for look, title, words in pairs
    }


# ---- the pages


@pytest.mark.parametrize("name", MAKE)
def test_each_result_has_its_own_parts(name: str) -> None:
    for given_ in (document(name), found(name)):
        text = report(given_)
        seen = set(re.findall(r"<h3[^>]*>([^<]*)</h3>", text)) - {"Skipped, assumed, not said", "Notes"}
        assert seen == HEADINGS[name] and titles(text)
        looks = {a["class"] for t, a in sound(text).elements if t == "figure"}
        assert looks <= {"charted", "heat", "heat drawn"}
        figures = re.findall(r'<figure class="(?:charted|heat)[^"]*">.*?</figure>', text, re.DOTALL)
        assert all("<table" in figure for figure in figures)  # the numbers of every drawing
    assert data.view_of(json.loads(_text(name)), 1).kind == MAKE[name][0]


def test_names_of_results_without_files() -> None:
    assert "<bdi>Recovery: n = 14</bdi>" in report(document("recover", inputs=[]))
    assert "<bdi>Diagonal network: n = 2, d = 4</bdi>" in report(document("diagonal"))
    assert "<bdi>Branches of exact fits: m = 4, m₀ = 2</bdi>" in report(document("strata"))
    assert "<bdi>a.npz</bdi>" in report(document("phase", inputs=[{"path": "/x/a.npz"}]))
    many = document("condensation", inputs=[{"path": f"{k}.npz"} for k in range(9)])
    assert "<bdi>Condensation: 9 networks</bdi>" in report(many)


# ---- heat maps


@given(st.floats(-5, 5), st.floats(0.01, 5), st.lists(st.floats(-20, 20), min_size=2), st.booleans())
def test_colours_grow_with_values(low: float, span: float, values: list[float], log: bool) -> None:
    ends = (10.0**low, 10.0 ** (low + span)) if log else (low, low + span)
    up, down = heatmaps.Range(*ends, log), heatmaps.Range(*ends[::-1], log)
    placed = sorted(10.0**v if log else v for v in values)
    levels = [up.level(v) or 0 for v in placed]
    assert levels == sorted(levels) and all(0 <= v <= heatmaps.LEVELS for v in levels)
    assert all(abs((down.level(v) or 0) - (10 - n)) <= 1 for v, n in zip(placed, levels, strict=True))
    assert [up.level(up.at(k)) for k in range(11)] == list(range(11))
    assert up.level(None) is None and up.at(0) == pytest.approx(ends[0]) and up.at(10) == pytest.approx(ends[1])


CELL = re.compile(r'<td class="cell (q\d+|none)([^"]*)">([^<]*)</td>')


def test_cells_are_the_grid_and_lines_stand_where_samples_reach_them() -> None:
    out = document("phase")
    text = report(out)
    assert out["optimistic"] == 3 and out["parameters"] == {"1": 3, "2": 6}
    tables = re.findall(r'<figure class="heat">.*?</figure>', text, re.DOTALL)
    assert len(tables) == 4
    for table, grid in zip(tables[:2], out["grids"], strict=True):
        assert f"recover the target, scale {markup.real(grid['scale'])}" in table
        lines = [CELL.findall(line) for line in table.split("<tr>")[2:]]
        assert [[float(value) for _, _, value in line] for line in lines] == [
            [float(f"{v:.2g}") for v in row] for row in grid["fraction"]
        ]
        assert [[look for look, _, _ in line] for line in lines] == [
            [f"q{round(10 * v)}" for v in row] for row in grid["fraction"]
        ]
        # samples 2, 4, 8: from 4 on there are at least O_f = M = 3, from 8 on at least M = 6
        assert [[sides.strip() for _, sides, _ in line] for line in lines] == [
            ["", "size full", ""],
            ["", "size", "full"],
        ]
        assert re.findall(r'<th scope="row">m = (\d+)<span class="small"> M = (\d+)', table) == [("1", "3"), ("2", "6")]
        assert re.findall(r'<th scope="col" class="num">(\d+)', table) == ["2", "4", "8"]
        row = next(t for t in out["thresholds"] if t["scale"] == grid["scale"] and t["width"] == 1)
        assert re.findall(r'<td class="num apart">([^<]*)', table)[:2] == [str(row["half"]), str(row["all"])]
    errors = CELL.findall(tables[2])
    strong = [int(look[1:]) for look, _, _ in errors]
    flat = [v for row in out["grids"][0]["median_error"] for v in row]
    assert [k for k, _ in sorted(enumerate(flat), key=lambda p: p[1])][0] == strong.index(max(strong))
    assert [value for _, _, value in errors] == [markup.real(v, 1) for v in flat]


@pytest.mark.parametrize(
    ("start", "place"), [(0.5, 0), (2.0, 0), (2.1, 1), (4.0, 1), (8.0, 2), (8.5, None), (None, None)]
)
def test_a_line_is_left_of_the_first_column_that_reaches_it(start: float | None, place: int | None) -> None:
    edge = heatmaps.Edge("e", "size", [start])
    made = heatmaps.heat_table("t", ["r"], [2.0, 4.0, 8.0], [[0.0, 0.5, 1.0]], heatmaps.Range(0, 1), corner="c",
                               edges=[edge])  # fmt: skip
    sides = [side.strip() for _, side, _ in CELL.findall(made)]
    assert sides == ["size" if k == place else "" for k in range(3)]


def test_thresholds_are_those_of_their_scale() -> None:
    out = document("phase")
    for k, row in enumerate(out["thresholds"]):
        row.update(half=100 + k, all=200 + k if k else None)
    tables = re.findall(r'<figure class="heat">.*?</figure>', report(out), re.DOTALL)
    ends = [re.findall(r'<td class="num apart">([^<]*)', table) for table in tables[:2]]
    assert ends == [["100", "–", "101", "201"], ["102", "202", "103", "203"]]


def test_unfinished_cells_and_lines_beyond_the_samples_are_told() -> None:
    out = document("phase", complete=False, reason="seconds", parameters={"1": 9, "2": 60})
    out["grids"][0]["fraction"][0][1] = None
    text = report(out)
    assert '<td class="cell none size">–</td>' in text and "not finished" in text
    assert "M is beyond all samples for m = 1, m = 2." in text and " full" not in "".join(CELL.findall(text)[0])
    assert titles(text)["seconds"] == "not complete open"
    inexact = report(document("phase", optimistic_exact=False))
    assert titles(inexact)["optimistic sample size of the target"] == "≤ 3" and "from here n ≥ 3 ≥ " in inexact


def ramp(theme: int) -> dict[str, tuple[str, str]]:
    """Class of a colour -> (background, text)."""
    rule = r"\.([qn]\d+) \{ --q: light-dark\((#\w+), (#\w+)\); --on-q: light-dark\((#\w+), (#\w+)\); \}"
    return {m[1]: (m[1 + theme], m[3 + theme]) for m in re.finditer(rule, CSS)}


def linear(colour: str) -> np.ndarray:
    full = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = np.array([int(full[k : k + 2], 16) / 255 for k in (0, 2, 4)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def light(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


BLIND = {  # Machado, Oliveira and Fernandes 2009, full severity, on linear RGB
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("theme", [1, 2])
def test_colours_are_told_apart_by_everybody_and_texts_on_them_are_read(theme: int) -> None:
    found_ = ramp(theme)
    assert sorted(found_) == sorted([f"q{k}" for k in range(11)] + [f"n{k}" for k in range(1, 11)])
    for back, front in found_.values():
        a, b = sorted((light(back), light(front)))
        assert (b + 0.05) / (a + 0.05) >= 4.5
    for sign in "qn":  # growing lightness needs no sense of colour
        steps = [light(found_[f"{sign}{k}"][0]) for k in range(1, 11)]
        steps = [light(found_["q0"][0]), *steps]
        ratios = [(max(a, b) + 0.05) / (min(a, b) + 0.05) for a, b in zip(steps, steps[1:], strict=False)]
        assert steps in (sorted(steps), sorted(steps)[::-1]) and min(ratios) > 1.1
    for matrix in BLIND.values():
        for k in range(4, 11):
            seen = [np.clip(np.array(matrix) @ linear(found_[f"{sign}{k}"][0]), 0, 1) ** (1 / 2.4) for sign in "qn"]
            assert np.abs(seen[0] - seen[1]).max() > 0.18


# ---- matrices


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(0, 10**6))
def test_a_matrix_is_drawn_cell_by_cell(n: int, seed: int) -> None:
    u = np.random.default_rng(seed).standard_normal((n, 2))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    values = np.clip(u @ u.T, -1, 1)
    drawn = np.full((n, n), np.nan)
    for look, runs in heatmaps._runs(values.tolist()).items():
        for run in runs:
            x, y, length = map(float, re.fullmatch(r"M(\d+) (\d+\.5)h(\d+)", run).groups())  # type: ignore[union-attr]
            assert np.isnan(drawn[int(y), int(x) : int(x + length)]).all()
            drawn[int(y), int(x) : int(x + length)] = int(look[1:]) * (-1 if look[0] == "n" else 1)
    assert (np.abs(drawn / 10 - values) <= 0.05 + 1e-9).all()


def test_the_matrix_of_a_layer_with_its_amplitudes_and_classes() -> None:
    out = document("condensation")
    drawing = out["snapshots"][-1]["drawings"][0]
    cosines = condensing._cosines(out["snapshots"][-1], 0)
    assert cosines is not None and cosines.folded and cosines.amplitudes == drawing["amplitudes"]
    text = str(heatmaps.matrix_map("m", cosines, within="within 0.1"))
    assert 'aria-label="m: cosines between 9 neurons, 3 classes within 0.1 of 3, 3, 3 neurons"' in text
    assert re.search(r'class="cuts" d="([^"]*)"', text)[1] == "M3 0v9M0 3h9M6 0v9M0 6h9"  # type: ignore[index]
    bars = [float(h) for h in re.findall(r"v-([\d.]+)h", re.search(r'class="amplitudes" d="([^"]*)"', text)[1])]  # type: ignore[index]
    top = max(drawing["amplitudes"])
    assert bars == pytest.approx([56 * a / top for a in drawing["amplitudes"]], abs=0.06)
    cells = Page(text).inside("td")
    assert cells[::4] == [str(k) for k in drawing["neurons"]] and cells[3] == "–"
    assert cells[7::4] == [markup.real(drawing["cosines"][k][k - 1], 3) for k in range(1, 9)]


def test_classes_are_those_of_the_last_tolerance() -> None:
    snapshot = document("condensation")["snapshots"][-1]
    snapshot["drawings"][0]["labels"] = [list(range(9)), [0] * 4 + [1] * 5]
    cosines = condensing._cosines(snapshot, 0)
    assert cosines is not None and cosines.classes == [0] * 4 + [1] * 5
    assert re.search(r'class="cuts" d="([^"]*)"', heatmaps.matrix_map("m", cosines, within=""))[1] == "M4 0v9M0 4h9"  # type: ignore[index]


def test_a_large_matrix_is_thinned_and_says_so() -> None:
    out = document("relu")
    assert len(out["snapshots"][0]["drawings"][0]["neurons"]) == 70
    text = report(out)
    assert "· 64 of 70 neurons drawn" in text and ">−1<" in text.replace("</span>−1<", ">−1<")
    whole = condensing._cosines(out["snapshots"][0], 0)
    assert whole is not None and not whole.folded
    thin = whole.thinned(5)
    at = [whole.neurons.index(k) for k in thin.neurons]
    assert at == [0, 17, 34, 52, 69] and thin.values == [[whole.values[i][j] for j in at] for i in at]


def test_checkpoints_are_drawn_at_their_times_or_by_number() -> None:
    named = document("condensation")
    assert "checkpoint = c · within" in report(named)
    timed = document("condensation")
    for snapshot, label in zip(timed["snapshots"], (0, 10, 50), strict=True):
        snapshot["label"] = label
    text = report(timed)
    assert "checkpoint = 50 · within" in text
    spots = re.search(r'data-spots="([^"]*)"', text)
    assert spots is not None
    a, b, c = map(float, spots[1].split())
    assert (c - b) / (b - a) == pytest.approx(4, rel=0.01)
    counts = [s["layers"][0]["counts"] for s in named["snapshots"]]
    assert counts[-1] == [3, 3, 3, 3] and "within 1×10⁻⁶ goes from 9 to 3" in text


# ---- charts


def line(chart: str, look: str = "l0") -> str:
    match = re.search(rf'<path class="line {look}" d="([^"]*)"', chart)
    return match[1] if match else ""


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_goes_through_its_points(log: bool) -> None:
    places, values = [1.0, 2.0, 4.0, 8.0], [1.0, 100.0, 10.0, 1000.0]
    chart = str(plots.plot("c", places, [charts.Curve("y", values)], across="n", log=log, log_across=log))
    corners = [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", line(chart))]
    spots = [(float(x), float(y)) for x, y in re.findall(r'class="spot l0" cx="([\d.]+)" cy="([\d.]+)"', chart)]
    assert corners == spots and len(corners) == 4
    xs, ys = np.array(corners).T
    to = np.log if log else np.asarray
    for drawn, given_, sign in ((xs, places, 1), (ys, values, -1)):
        wanted = to(np.array(given_))
        slopes = np.diff(drawn) / np.diff(wanted)
        assert slopes == pytest.approx(np.full(3, slopes[0]), rel=0.02) and slopes[0] * sign > 0


def test_steps_hold_until_the_next_place() -> None:
    chart = str(plots.plot("c", [0.0, 1.0, 3.0], [charts.Curve("y", [5.0, 2.0, 0.0])], across="t", steps=("l0",),
                           ends=False))  # fmt: skip
    moves = re.findall(r"([MHV])([\d.]+)(?: ([\d.]+))?", line(chart))
    assert [m[0] for m in moves] == ["M", "H", "V", "H", "V", "H"] and float(moves[0][1]) == charts.LEFT
    first, second, end = (float(moves[k][1]) for k in (1, 3, 5))
    assert (
        second - charts.LEFT == pytest.approx(3 * (first - charts.LEFT), abs=0.2) and end == charts.WIDTH - charts.RIGHT
    )
    heights = [float(moves[0][2]), float(moves[2][1]), float(moves[4][1])]
    assert (heights[1] - heights[0]) / (heights[2] - heights[1]) == pytest.approx(3 / 2, rel=0.02)


def test_zero_on_a_logarithmic_axis_lies_at_a_tick_that_says_so() -> None:
    chart = str(plots.plot("c", [1.0, 2.0], [charts.Curve("y", [1e-3, 0.0])], across="n", log=True, floor=1e-12))
    low = re.search(r'y="([\d.]+)" text-anchor="end">≤10⁻¹²<', chart)
    spots = re.findall(r'cy="([\d.]+)"', chart)
    assert low is not None and float(low[1]) - 3.5 == pytest.approx(float(spots[-1]), abs=0.1)
    assert Page(chart).inside("td") == ["1", "0.001", "2", "0"]
    curve = charts.Curve("y", [1e-3, 1e-4])
    assert "≤" not in str(plots.plot("c", [1.0, 2.0], [curve], across="n", log=True, floor=1e-12))


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert plots.plot("c", [], [], across="n") is None
    assert plots.plot("c", [1.0], [charts.Curve("y", [None])], across="n") is None
    assert plots.plot("c", [1.0, 2.0], [charts.Curve("y", [1.0])], across="n") is None
    assert plots.plot("c", [0.0], [charts.Curve("y", [1.0])], across="n", log_across=True) is None
    one = str(plots.plot("c", [3.0], [charts.Curve("y", [7.0])], across="n"))
    assert 'class="spot l0"' in one and "n = 3 · y: 7" in one
    assert plots.side_by_side(None, None) is None


@pytest.mark.parametrize("values", [[12.0, 12.0], [0.0, 1.0], [3.0, 4.0], [0.0, 2000.0]])
def test_whole_numbers_have_whole_ticks(values: list[float]) -> None:
    chart = str(plots.plot("c", [1.0, 2.0], [charts.Curve("y", values)], across="n"))
    texts = re.findall(r'text-anchor="(?:end|middle)">([\d.,]+)<', chart)
    assert len(texts) > 2 and all("." not in t for t in texts)


# ---- what is said


def test_the_verdict_of_the_ladder() -> None:
    out = document("recover")
    text = report(out)
    assert out["width"] == 2 and out["criterion"] and titles(text)["points against dimensions"] == "14 > 8"
    assert "line at 14 points" in text and ">criterion met<" in text and ">does not fit<" in text
    words = "zero loss, and more points than dimensions: recovery, if what is assumed holds"
    assert titles(text)[words] == "criterion met yes"
    few = document("recover", criterion=False, points=8)
    few["rungs"][-1]["exceeds"] = False
    text = report(few)
    assert "criterion not met open" in titles(text).values() and ">fits anything<" in text
    assert titles(text)["points against dimensions"] == "8 ≤ 8"
    none = titles(report(document("noisy")))
    assert none["of the widths tried explains the data exactly"] == "none open"
    assert none["preferred by held-out error; a preference, not an explanation"].startswith("width ")
    rungs = found("recover").to_frame()
    assert [markup.real(v, 3) in text for v in rungs["best"]] == [True, True]


def test_the_stages_of_a_diagonal_network() -> None:
    out = document("diagonal")
    text = report(out)
    stages = found("diagonal").stages
    table = re.search(r"<caption[^>]*>Stages</caption>.*?</table>", text, re.DOTALL)
    assert table is not None
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in table[0].split("<tr>")[2:]]
    assert [r[0] for r in rows] == [str(k) for k in range(len(stages) + 1)]
    for row, stage, raw in zip(rows[1:], stages, out["stages"], strict=True):
        assert row[1] == markup.real(raw["time"]) and row[5] == markup.real(raw["loss"])
        (v,) = stage.reached
        assert row[3] == f"k{chr(0x2080 + abs(v))}\u00a0{'&gt;' if v > 0 else '&lt;'}\u00a00"
        assert row[4] == ", ".join(f"k{chr(0x2081 + i)}" for i in stage.support)
    assert titles(text)["weighted l1 norm of the limit"] == markup.real(out["norm"])
    assert titles(text)["the linear program for the least weighted l1 norm"] == "agrees yes"
    flow = out["flows"][0]
    worst = max(abs(a - b) / b for a, b in zip(flow["drops"], flow["predicted"], strict=True))
    assert titles(text)["largest relative error of a predicted time, start 1e-8"] == markup.real(worst, 2)
    disagree = document("diagonal")
    disagree["comparison"]["agrees"] = False
    assert "disagrees no" in titles(report(disagree)).values()


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=5, unique=True), st.floats(0, 10))
def test_the_limit_at_a_time_is_the_last_stage_before(times: list[float], at: float) -> None:
    steps = [(t, float(k)) for k, t in enumerate(sorted(times))]
    wanted = sum(t <= at for t, _ in steps) - 1 if at >= min(times) else 99.0
    assert staircases._stair(steps, 99.0, at) == wanted
    assert staircases._stair(steps, 99.0, None) is None


def test_the_other_tiles_are_the_numbers_of_the_results() -> None:
    told = {name: titles(report(found(name))) for name in ("rank", "predict", "embed", "strata", "condensation")}
    rank, predicted, branches = found("rank"), found("predict"), found("strata")
    words = "model rank: directions of parameters that change the function"
    assert told["rank"][words] == f"{rank.rank} of {rank.parameters}"
    assert (
        told["predict"]["zero loss on the smallest manifold is a criterion of recovery"] == f"n ≥ {predicted.samples}"
    )
    assert told["predict"]["the same criterion with all parameters"] == f"n ≥ {predicted.unconstrained}"
    assert told["embed"]["mixed embedding with the same function"] == "2–2–1 → 2–5–1"
    assert told["embed"]["dimensions of the manifold that training stays on"] == str(found("embed").sim.dimension)
    assert told["strata"]["affine branches of exact fits"] == str(branches.count)
    assert told["strata"]["the hypothesis on the activation fails for tanh"] == "not proved here no"
    last = found("condensation").last
    assert told["condensation"]["effective directions of 9 neurons, layer 1"] == f"{last.layers[0].effective:.3g}"
    text = report(found("embed"))
    (layer,) = found("embed").map
    assert text.count(">silent<") == len(layer.null) > 0
    assert all(f">{share}<" in text for share in layer.shares.tolist())
    assert "too narrow open" in titles(report(predict_recovery(TWO, 1))).values()
    assert "doubtful open" in titles(report(document("rank", clear=False))).values()


# ---- hostile and missing


OWN = ("recovery", "phases", "condensing", "staircases")
SAID = ("reason", "method", "formula", "note", "activation", "target", "statement", "optimistic_kind", "kind", "unit",
        "criterion", "rigor")  # fmt: skip


def renamed(name: str, text: str) -> dict[str, Any]:
    out = document(name, complete=False, notes=[text], failed=[text], inputs=[{"path": f"a/{text[-9:]}"}])
    out.update({key: text for key in SAID if isinstance(out.get(key), str)})
    for row in [*out.get("snapshots", []), *out.get("assumptions", []), *out.get("flows", []), *out.get("rungs", [])]:
        row.update({key: text for key in ("label", "statement", "scale", "found_by") if key in row})
        for layer in row.get("layers", []):
            layer["name"] = text
    return out


@pytest.mark.parametrize("name", MAKE)
def test_hostile_words_change_no_element(name: str) -> None:
    text = report(renamed(name, HOSTILE))
    assert shape(text) == shape(report(renamed(name, "x" * len(HOSTILE))))
    assert "\u202e" not in text and "\x00" not in text


@pytest.mark.parametrize("name", [n for n in MAKE if n != "relu"])
def test_any_missing_or_foreign_value_is_a_missing_part(name: str) -> None:
    base = document(name)
    parts = [part for band in page._LAYOUT for part in band if part.__module__.rpartition(".")[2] in OWN]
    assert len(parts) == 17
    for flow in base.get("flows", []):  # every list is damaged at its first entry only
        flow.update({key: flow[key][:6] for key in ("times", "losses", "k")})
    for snapshot in base.get("snapshots", []):
        for row in snapshot.get("drawings", []):
            row.update({key: row[key][:2] for key in ("neurons", "amplitudes")}, cosines=[[1.0, 0.5], [0.5, 1.0]])
            row["labels"] = [found_[:2] for found_ in row["labels"]]
    for path in [p for p in paths(base) if p[0] not in ("schema", "wall_s")]:
        for put in (None, "nan", [-1]) if len(path) > 1 else (None, "nan", True, -1, [None], [[1.0]], {}, "drop"):
            damaged: Any = {**base, path[0]: copy.deepcopy(base[path[0]])}
            place = damaged
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = put
            if put == "drop" and isinstance(place, dict):
                del place[path[-1]]
            seen = page._view(damaged, 1)
            for part in parts:
                part(seen)
    Page(report({"schema": base["schema"]}))


# ---- in a browser


ALL = [name for name in MAKE if name != "select"]


@pytest.mark.browser
def test_no_sideways_scrolling(opened: Any) -> None:
    shown = opened(*(document(name) for name in ALL))
    cut = """() => Array.from(document.querySelectorAll("figure.charted > svg text")).filter((t) => {
      const [a, b] = [t.getBoundingClientRect(), t.ownerSVGElement.getBoundingClientRect()];
      return a.left < b.left - 6 || a.right > b.right + 6; }).map((t) => t.textContent)"""
    for width in (320, 420, 768, 1240, 1920):
        shown.set_viewport_size({"width": width, "height": 900})
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate(cut) == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened: Any, scheme: str) -> None:
    assert opened(*(document(name) for name in ALL), scheme=scheme).evaluate(CONTRAST) == []


@pytest.mark.browser
def test_a_wide_heat_map_scrolls_in_its_box_and_keeps_its_headings(opened: Any) -> None:
    out = document("phase")
    samples = list(range(2, 32))
    out.update(samples=samples, grids=[{"scale": 1.0, "fraction": [[1.0] * 30, [0.25] * 30]}], scales=[1.0])
    shown = opened(out, width=420)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 420
    box, head = shown.locator(".heat .scroll"), shown.get_by_role("rowheader", name="m = 2")
    before = head.bounding_box()["x"]
    box.evaluate("(e) => { e.scrollLeft = 400; }")
    assert box.evaluate("(e) => e.scrollLeft") > 300 and abs(head.bounding_box()["x"] - before) < 12
    assert shown.get_by_role("region", name="Share of seeds that recover the target").count() == 1


@pytest.mark.browser
def test_the_cursor_reads_the_table(opened: Any) -> None:
    shown = opened(document("recover"))
    figure = shown.locator("figure.charted").first
    drawing, readout = figure.locator("> svg"), figure.locator(".readout")
    assert readout.inner_text().startswith("width = 2 · best: ")
    drawing.focus()
    shown.keyboard.press("Home")
    figure.locator("summary").click()
    cells = figure.locator("tbody tr").first.locator("td").all_inner_texts()
    drawing.focus()
    assert readout.inner_text().startswith(f"width = {cells[0]} · best: {cells[1]} · gradient flow: {cells[2]}")
    assert drawing.get_attribute("role") == "slider"


@pytest.mark.browser
def test_the_page_is_complete_without_its_script(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(document("phase"), document("condensation")), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(path.as_uri())
    assert shown.locator("td.cell:visible").count() == 24 and shown.locator("svg.matrix:visible").count() == 2
    shown.locator("figure.drawn summary").first.click()
    assert shown.locator("figure.drawn table").first.is_visible()
    context.close()


def test_stages_that_fit_rounding_are_marked_and_not_drawn():
    import random

    draw = random.Random(1).gauss
    inputs = np.array([[round(draw(0, 1), 4) for _ in range(4)] for _ in range(6)])
    found = fs.diagonal(inputs, np.round(2 * inputs[:, 0] - 0.7 * inputs[:, 2], 6))
    assert found.fitted_after == 2
    data = found.to_dict()
    text = report(data)
    assert "After stage 2 only rounding" in text and "more fit rounding" in text and "None" not in text
    assert "\u00d710\u00b9\u2075)" not in text and "\u00d710\u00b9\u2076)" not in text  # units of the axis of time
    data["fitted_after"] = None
    assert "\u00d710\u00b9" in report(data) and "After stage 2 only" not in report(data)
