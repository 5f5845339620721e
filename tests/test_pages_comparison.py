"""The page about comparisons: verdicts, counterexamples, distances, normal forms, fingerprints, fibers."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fiberscope as fs
from fiberscope.certificates import format as certificates
from fiberscope.cli import run
from fiberscope.fibers import canonical, equal
from fiberscope.fibers.members import fiber
from fiberscope.fibers.slices import kinks_in_slice, sampled_walk
from fiberscope.pages import fiberparts, figures, markup, moves, report
from fiberscope.results import Answer, Verdict, jsonable
from pagetools import CONTRAST, HOSTILE, Page, paths, shape, sound


def net(c: float = -6.0, b: float = 0.0) -> fs.Network:
    """The first kink is hidden, so that b moves it with c following; another c is another function."""
    first, second = ([[1.0, 0.0], [0.0, 1.0]], [b, 0.0]), ([[2.0, -1.0], [1.0, -3.0]], [-4.0 - 2 * b, c - b])
    return fs.Network.from_arrays(first, second, ([[1.0, 1.0]], [0.0]), activation="relu")


def head(command: str, *names: str) -> dict[str, Any]:
    inputs = [
        {"path": n, "sha256": 64 * "ab"[k], "dtype": "float32", "layers": [2, 2, 2, 1]} for k, n in enumerate(names)
    ]
    return {"schema": f"fiberscope/{command}/1", "version": "0", "inputs": inputs, "seed": 0, "wall_s": 0.5}


def fibre() -> dict[str, Any]:
    found = fiber(net())
    cut = kinks_in_slice(net(), [2, 3], [1, 0], [0, 1], 8.0)
    return {**head("fiber", "a.npz"), **found.to_dict(), "slice": cut.to_dict(), "walk": sampled_walk(found, cut, 3)}


def compared(g: fs.Network, domain: str | None = None) -> dict[str, Any]:
    verdict = equal(net(), g, domain)
    body = {**head("equal", "before.onnx", "my dir/it's after.onnx"), **verdict.to_dict()}
    if verdict.answer is Answer.YES:
        steps = [*verdict.certificate.steps, *verdict.certificate.back]
        counts = {name: sum(s["move"] == name for s in steps) for name in {s["move"] for s in steps}}
        body["certificate"] = {
            "kind": "equality",
            "moves": len(steps),
            "move_counts": counts,
            "cases": None,
            "path": "p.json",
        }
    elif verdict.answer is Answer.NO:
        body["counterexample"]["snippet"] = verdict.counterexample.snippet()
    return body


DISTANCE = {
    **head("distance", "f.onnx", "g.onnx"), "lower": 0.0123, "upper": 0.049, "below": 0.05, "answer": "YES",
    "boxes": 12034, "method": "difference zonotopes", "rigor": "INTERVAL", "witness": [0.61, 0.2, -0.3],
    "reason": "below on every leaf",
    "theorems": ["lipschitz-difference"], "domain": {"lower": [-1.0] * 3, "upper": [1.0] * 3, "origin": "[-1,1]"},
}  # fmt: skip
ALIGN = {
    **head("align", "f.onnx", "g.onnx"), "before": [1.2, 0.9], "after": [1e-7, 2e-8], "rounds": 2, "rigor": "EXACT",
    "moves": [{"layer": 0, "permutation": [1, 0, 2], "factors": [{"exact": "1/2", "float": 0.5}] * 3}],
    "theorems": ["permutation-scaling"],
}  # fmt: skip
NAMES = {
    **head("fingerprint"), "theorems": ["canonical-form"],
    "results": [
        {"path": f"zoo/{k}.onnx", "fingerprint": f"fs1:{64 * str(k % 4)}", "unique": True, "architecture": "2-2-1 relu",
         "sha256": 64 * "c", "not_met": []} for k in range(8)
    ] + [{"path": "zoo/deep.onnx", "part": "actor", "fingerprint": f"fs1s:{64 * 'd'}", "unique": False, "sha256": None,
          "architecture": "2-2-2-2-1 relu", "not_met": ["three-layer ReLU"]},
         {"path": "zoo/bad.onnx", "error": "truncated"}],
    "groups": [
        {"fingerprint": f"fs1:{64 * str(k)}", "networks": [f"zoo/{k}.onnx", f"zoo/{k + 4}.onnx"]} for k in range(4)
    ],
    "counts": {"files": 10, "networks": 9, "refused": 1, "groups": 4, "unfinished": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def pages() -> dict[str, dict[str, Any]]:
    """Data of every kind of page, most of it computed."""
    undecided = Verdict(Answer.UNDECIDED, "the normal forms differ; no witness", method="all methods").to_dict()
    return {
        "yes": compared(net(b=-1.0)), "no": compared(net(c=-5.75)),
        "undecided": {**head("equal", "f", "g"), **undecided},
        "distance": DISTANCE, "align": ALIGN, "canonical": {**head("canonical", "a.npz"), **canonical(net()).summary()},
        "fingerprint": NAMES, "fiber": jsonable(fibre()),
    }  # fmt: skip


KINDS = ("yes", "no", "undecided", "distance", "align", "canonical", "fingerprint", "fiber")


def text_of(page: Page) -> str:
    return " ".join(" ".join(text for where, text in page.texts if where not in ("script", "style")).split())


def titles(page: Page) -> list[str]:
    return page.inside("h3")


# ---- every kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_sound(pages: dict[str, Any], kind: str) -> None:
    page = sound(report(pages[kind]))
    assert "Values" not in titles(page)
    assert json.loads(page.inside("pre")[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_any_missing_or_odd_value_is_a_missing_part(
    pages: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fiberscope.pages.page._dump", lambda _: "")  # the raw data have no parts, and are long
    base = pages[kind]
    for path in list(paths(base)):
        for value in (None, "drop", "x", [], {"a": [1]}, 1e400) if len(path) < 3 else (None, "x"):
            damaged = copy.deepcopy(base)
            place = damaged
            for key in path[:-1]:
                place = place[key]
            if value == "drop":
                del place[path[-1]]
            else:
                place[path[-1]] = value
            if "theorems" not in path[:1]:
                report(damaged)


def hostile(value: Any, text: str, keys: tuple[str, ...]) -> Any:
    """The data with every text replaced that comes from a file or a user."""
    if isinstance(value, dict):
        return {k: text if k in keys and isinstance(v, str) else hostile(v, text, keys) for k, v in value.items()}
    return [hostile(v, text, keys) for v in value] if isinstance(value, list) else value


FROM_OUTSIDE = ("path", "sha256", "dtype", "reason", "method", "statement", "error", "part", "architecture", "snippet",
                "name", "text", "formula", "layer_name", "exact")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_change_no_element(pages: dict[str, Any], kind: str) -> None:
    evil, tame = (hostile(pages[kind], word, FROM_OUTSIDE) for word in (HOSTILE, "x" * len(HOSTILE)))
    text = report(evil, title=HOSTILE)
    assert shape(text) == shape(report(tame, title="x"))
    text.encode("utf-8")
    assert "\u202e" not in text and "\x00" not in text


# ---- equal


def test_a_yes_shows_its_certificate_and_how_to_check_it(pages: dict[str, Any]) -> None:
    page = Page(report(pages["yes"]))
    text = text_of(page)
    assert page.inside("strong")[:1] == ["YES"] and "the same function" in text
    assert page.having("strong", "yes") and not page.having("strong", "no")
    assert titles(page)[0] == "Certificate" and "Counterexample" not in titles(page)
    for name, n in pages["yes"]["certificate"]["move_counts"].items():
        assert f"{name} {n} {moves.MOVES[name]}" in text
    command = """fiberscope check p.json before.onnx 'my dir/it'"'"'s after.onnx'"""
    assert command in page.inside("pre")
    assert "--certificate FILE" in text_of(
        Page(report({**pages["yes"], "certificate": {"kind": "equality", "moves": 1}}))
    )


def test_every_move_of_certificates_has_words() -> None:
    assert set(moves.MOVES) == set(certificates._MOVES)


def test_a_no_shows_both_outputs_and_python(pages: dict[str, Any]) -> None:
    data = pages["no"]
    page = Page(report(data))
    assert page.inside("strong")[:1] == ["NO"] and page.having("strong", "no")
    found = data["counterexample"]
    assert found["snippet"] in page.inside("pre") and "Certificate" not in titles(page)
    cells = page.inside("td")
    row = cells.index(found["f"][0]["exact"])
    assert cells[row : row + 2] == [found["f"][0]["exact"], found["g"][0]["exact"]]
    assert Fraction(found["f"][0]["exact"]) - Fraction(found["g"][0]["exact"]) == Fraction(found["difference"]["exact"])
    assert len(page.having("button", "copy")) == 2 + 1 + 1  # two hashes, the snippet, the raw data


def test_differences_that_floats_do_not_show(pages: dict[str, Any]) -> None:
    data = copy.deepcopy(pages["no"])
    tiny = Fraction(1, 2**80)
    data["counterexample"].update(
        f=[{"exact": str(1 + tiny), "float": 1.0}], g=[{"exact": "1", "float": 1.0}], replay_f=[1.0], replay_g=[1.0]
    )
    text = text_of(Page(report(data)))
    assert "8.27181×10⁻²⁵" in text and "hides the difference" in text


def test_enclosures_and_sparse_inputs(pages: dict[str, Any]) -> None:
    data = copy.deepcopy(pages["no"])
    ends = [[{"exact": "1/3", "float": 0.3333}, {"exact": "1/2", "float": 0.5}]]
    x = [{"exact": "0", "float": 0.0}] * 783 + [{"exact": "7/2", "float": 3.5}]
    data["counterexample"].update(exact=False, f=ends, g=[[{"exact": "1", "float": 1.0}] * 2], x=x)
    text = text_of(Page(report(data)))
    assert "[0.3333, 0.5]" in text and "f enclosed" in text and "disjoint" in text
    assert "x[783] 7/2 3.5" in text and "All other entries of the 784 are 0." in text
    data["counterexample"]["x"] = x[:-1]
    assert "All entries of the 783 are 0." in text_of(Page(report(data)))


def test_undecided_lists_what_was_excluded(pages: dict[str, Any]) -> None:
    page = Page(report(pages["undecided"]))
    assert page.inside("strong")[:1] == ["UNDECIDED"] and page.having("strong", "open")
    assert {"the normal forms differ", "no witness"} <= set(page.inside("li"))


def test_verdicts_of_the_library_and_of_check_have_pages_too() -> None:
    verdict = equal(net(), net(b=-1.0))
    assert "moves lead to one form" in text_of(Page(report(verdict)))
    refused = fs.check(verdict.certificate, net(), net(c=0.0))
    assert "digest" in text_of(Page(report(refused)))
    assert "Counterexample" not in titles(Page(report(refused)))


# ---- distance, alignment


def test_the_enclosure_is_drawn_beside_the_limit(pages: dict[str, Any]) -> None:
    page = Page(report(pages["distance"]))
    (plot,) = page.having("svg", "plot")
    assert plot["aria-label"] == "The largest difference lies between 0.0123 and 0.049; asked was 0.05"
    text = text_of(page)
    assert "every output differs by less than 0.05, proved" in text and "x[0]" in text


@given(st.floats(0, 1e6), st.floats(0, 1e6) | st.none(), st.floats(1e-9, 1e6) | st.none())
def test_the_number_line_keeps_the_order(lower: float, width: float | None, limit: float | None) -> None:
    upper = None if width is None else lower + width
    text = str(figures.enclosure_line(lower, upper, limit))
    Page(text)
    ((start, size),) = [
        (float(x), float(w)) for x, w in re.findall(r'class="k-kept" x="([\d.]+)"[^>]* width="([\d.]+)"', text)
    ]
    assert 0 <= start <= 440 and 0 < size and start + size <= 440.5
    if limit is not None:
        (place,) = [float(x) for x in re.findall(r'class="median" x1="([\d.]+)"', text)]
        assert 0 <= place <= 440
        if limit > lower:
            assert place >= start - 0.01
        elif limit < lower:
            assert place <= start + 0.01
        if upper is not None and limit > upper:
            assert place >= start + size - 3.01


@given(st.floats(0, 1e300, allow_subnormal=False), st.integers(1, 8))
def test_bounds_are_rounded_away_from_what_they_enclose(value: float, digits: int) -> None:
    def read(text: str) -> Fraction:
        raised = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
        mantissa, _, power = text.partition("×10")
        return Fraction(mantissa) * Fraction(10) ** int(power.translate(raised) or 0)

    low, high = (read(markup.outward(value, up=up, digits=digits)) for up in (False, True))
    exact = Fraction(repr(value))  # what JSON prints
    assert low <= exact <= high <= low + exact * Fraction(11, 10) * Fraction(10) ** (1 - digits)


def test_an_unknown_upper_end_says_so(pages: dict[str, Any]) -> None:
    for upper in (None, "inf"):
        page = Page(report({**DISTANCE, "upper": upper, "answer": None, "below": None}))
        assert "and unknown" in (page.having("svg", "plot")[0]["aria-label"] or "")
        assert "YES" not in page.inside("strong")


def test_an_alignment_shows_what_moved(pages: dict[str, Any]) -> None:
    text = text_of(Page(report(pages["align"])))
    assert "layer 1 1.2 1×10⁻⁷ 2 of 3 3" in text and "layer 2 0.9 2×10⁻⁸ – –" in text


# ---- forms and names


def test_a_normal_form_shows_its_hypotheses_and_name(pages: dict[str, Any]) -> None:
    data = pages["canonical"]
    page = Page(report(data))
    text = text_of(page)
    assert data["fingerprint"] in page.inside("code") and "unique" in page.inside("strong")
    for row in data["hypotheses"]:
        assert row["statement"] in text
    sound = {**data, "unique": False, "hypotheses": [{"statement": "ReLU", "checked": True, "holds": False}]}
    other = Page(report(sound))
    assert "sound" in other.inside("strong") and other.having("span", "no")


def test_names_are_grouped_and_refusals_listed(pages: dict[str, Any]) -> None:
    page = Page(report(pages["fingerprint"]))
    text = text_of(page)
    looks = [a["data-class"] for t, a in page.elements if t == "tr" and a.get("data-class")]
    assert looks == [f"g.{k}" for k in range(4) for _ in range(2)]
    assert "refused: truncated" in text and "part actor" in text and "not met: three-layer ReLU" in text
    for words in ("9 networks named", "4 compute what another one does", "1 files refused"):
        assert words in text
    copied = [a["data-copy"] for a in page.having("button", "copy") if a.get("data-copy")]
    assert len([c for c in copied if c and c.startswith("fs1")]) == 9


# ---- fiber


def test_a_fiber_page_tells_what_hides_what(pages: dict[str, Any]) -> None:
    page = Page(report(pages["fiber"]))
    text = text_of(page)
    assert page.inside("strong")[0] == "5" and "neuron 0" in page.inside("strong")
    assert (
        "first 0 hidden second-layer neurons 0, 1 read it and are all inactive at its kink; its bias may fall by 2"
        in text
    )
    assert "first 1 visible" in text and "second 1 split" in text
    for row in [*pages["fiber"]["equations"], *pages["fiber"]["inequalities"]]:
        assert row["name"] in text
    assert "A sampled walk" in titles(page) and "Symmetries" in titles(page)


def test_the_slice_has_every_piece_and_dashes_what_does_not_show(pages: dict[str, Any]) -> None:
    data = pages["fiber"]
    text = report({**data, "walk": []})
    drawing = text[text.index('class="slice"') :]
    drawing = drawing[: drawing.index("</svg>")]
    for look, shows in (("kink c0", True), ("kink c1", True), ("kink c0 dashed", False)):
        drawn = sum(d.count("M") for d in re.findall(rf'class="{look}" d="([^"]*)"', drawing))
        layer = int(look[6])
        assert drawn == sum(s["layer"] == layer and s["shows"] is shows for s in data["slice"]["segments"]) > 0
    (label,) = re.findall(r'aria-label="(Slice of input space[^"]*)"', text)
    assert "kinks of 4 neurons; 3 of them bend" in label
    assert "sampled members" not in text and "sampled members" in report(data)


def test_places_in_the_slice_are_true() -> None:
    """The point (s, t) of a window of radius r is drawn at 30 + 400 (s + r) / 2r from the left, t upwards."""
    piece = (0, 0, (-1.0, 1.0), (1.0, 0.0), True)
    assert 'd="M30.0 30.0L430.0 230.0"' in fiberparts._drawing([piece], [], 1.0)


def test_a_wide_or_smooth_network_has_a_page_without_a_slice() -> None:
    smooth = fs.Network.random((2, 3, 1), activation="tanh", seed=0)
    page = Page(report({**head("fiber", "t.npz"), **fiber(smooth).to_dict()}))
    assert page.inside("strong")[0] == "0" and "Kinks in a slice of input space" not in titles(page)
    deep = fs.Network.random((2, 3, 3, 3, 1), activation="relu", seed=0)
    assert "≥ 9" in Page(report({**head("fiber", "t.npz"), **fiber(deep).to_dict()})).inside("strong")


# ---- from the command line


def test_the_commands_write_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, one in (("a", net()), ("b", net(b=-1.0)), ("c", net(c=-5.75))):
        fs.save(one, tmp_path / f"{name}.npz")
    a, b, c, page = (str(tmp_path / n) for n in ("a.npz", "b.npz", "c.npz", "page.html"))
    for argv, code, words in (
        (["equal", a, b], 0, "a.npz and b.npz"), (["equal", a, c], 1, "fs.load("), (["canonical", a], 0, "Normal form"),
        (["fingerprint", a, b, c], 0, "3 networks"),
    ):  # fmt: skip
        assert run([*argv, "--html", page, "--force"]) == code
        assert words in text_of(Page(Path(page).read_text(encoding="utf-8")))
    assert "Traceback" not in capsys.readouterr().err


# ---- in a browser


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 420, 768, 1240, 1920])
def test_no_sideways_scrolling(opened: Callable[..., Any], pages: dict[str, Any], width: int) -> None:
    page = opened(*pages.values(), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    long = [hostile(value, "x" * 300, FROM_OUTSIDE) for value in pages.values()]
    assert opened(*long, width=width).evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened: Callable[..., Any], pages: dict[str, Any], scheme: str) -> None:
    assert opened(*pages.values(), scheme=scheme).evaluate(CONTRAST) == []


@pytest.mark.browser
def test_the_snippet_is_copied(opened: Callable[..., Any], pages: dict[str, Any]) -> None:
    page = opened(pages["no"])
    page.evaluate("navigator.clipboard && (navigator.clipboard.writeText = (t) => { window.taken = t; })")
    button = page.locator("pre.snippet + .buttons button")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("window.taken")
    assert page.evaluate("window.taken") == pages["no"]["counterexample"]["snippet"]


@pytest.mark.browser
def test_names_filter(opened: Callable[..., Any], pages: dict[str, Any]) -> None:
    page = opened(pages["fingerprint"])
    rows = page.locator("table.tools tbody tr:not(.filtered)")
    assert rows.count() == 10
    page.get_by_label("Filter").fill("refused")
    assert rows.count() == 1
