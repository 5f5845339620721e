"""The report page: what it draws is the data, nothing in it runs, and it works in a browser."""

from __future__ import annotations

import copy
import html
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fiberscope as fs
from fiberscope.cli import run
from fiberscope.errors import InputError
from fiberscope.pages import data, drawing, figures, manifolds, markup, report
from fiberscope.results import Answer, Verdict
from pagetools import CONTRAST, HOSTILE, Page, contrast, paths, shape, sound

EXAMPLE = json.loads((Path(__file__).parent / "data" / "inspection_example.json").read_text(encoding="utf-8"))


def example(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(EXAMPLE), **changes}


def relu_example() -> dict[str, Any]:
    """A wide ReLU network with bands, balancedness, rounding and statements on a domain."""
    out = example(weights_preview=None, lattice=None, sim={"refused": "layer 1 was folded"}, balance_note="")
    widths, after = [784, 512, 256, 48, 10], [784, 430, 250, 45, 10]
    out["network"].update(path="zoo/wide.onnx", widths=widths, architecture="784-512-256-48-10 relu")
    groups = {0: [50, 20, 3, 3, 3, 2], 1: [7], 2: [2]}
    out["classes"] = []
    for layer, sizes in groups.items():
        start = 0
        for k, size in enumerate(sizes):
            members = list(range(start, start + size))
            out["classes"].append({"layer": layer, "label": data.letters(k), "kind": "merged", "members": members,
                                   "factors": ["1/2"] * size, "new": [k]})  # fmt: skip
            start += size
        out["classes"].append({"layer": layer, "label": "-", "kind": "dead", "members": [start, start + 1], "new": []})
    out["reduction"].update(
        widths_before=widths, widths_after=after, hidden_before=816, hidden_after=725, scope="on the domain",
        rounding={"kind": "rounded", "dtype": "float32", "bound": {"constant": 1.5e-6, "slope": 0.0}},
        per_layer=[{"layer": k, "before": b, "after": a, "removed": {"duplicate": b - a - 2, "dead": 2}}
                   for k, (b, a) in enumerate(zip(widths[1:-1], after[1:-1], strict=True))],
    )  # fmt: skip
    values = [k / 64 - 1 for k in range(128)]
    out["balance"] = [{"layer": 0, "law": "|w_i|^2 + b_i^2 - |v_i|^2", "min": -1.0, "median": 0.0, "max": 127 / 64 - 1,
                       "count": 512, "values": values, "rigor": "NUMERICAL"}]  # fmt: skip
    out["domain"] = {"text": "[0, 1]^784 (file)", "lower": [0.0] * 784, "upper": [1.0] * 784}
    return out


ALL = {"tanh": [example()], "relu": [relu_example()], "reduction": [EXAMPLE["reduction"]],
       "several": [example(), relu_example(), EXAMPLE["reduction"]]}  # fmt: skip


# ---- the document


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_sound(name: str) -> None:
    sound(report(*ALL[name]))


def test_usual_pages_are_small() -> None:
    for results in ALL.values():
        assert len(report(*results).encode()) < 200_000


def test_a_huge_network_is_shortened_and_says_so() -> None:
    wide = relu_example()
    members = [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(2000)]
    wide["network"]["widths"] = [5, 6000, 5]
    row = {"layer": 0, "kind": "merged", "factors": ["1"] * 3}
    wide["classes"] = [{**row, "label": data.letters(k), "members": m, "new": [k]} for k, m in enumerate(members)]
    text = report(wide)
    assert len(text.encode()) < 200_000
    assert "1,760 more classes" in text and "--json prints all of it" in text


def test_raw_data_is_the_data() -> None:
    (raw,) = Page(report(EXAMPLE)).inside("pre")
    assert json.loads(raw) == EXAMPLE


def test_nothing_to_report_is_refused() -> None:
    with pytest.raises(InputError, match="no result"):
        report()
    with pytest.raises(InputError, match="str"):
        report("model.onnx")  # type: ignore[arg-type]


def test_the_public_name_is_callable_however_the_package_was_imported() -> None:
    code = (
        "import fiberscope.pages, fiberscope; assert fiberscope.report({'reason': 'x'}).startswith('<!doctype html>')"
    )
    source = Path(markup.__file__).parent.parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=source)


def test_other_results_show_their_values() -> None:
    text = report(Verdict(Answer.UNDECIDED, reason="the budget of 3 s is spent"), title="A <title>")
    assert "the budget of 3 s is spent" in text and "A &lt;title&gt;" in text


# ---- hostile input


def renamed(text: str) -> dict[str, Any]:
    out = relu_example()
    out["network"].update(path=text, architecture=text, part=text, format=text, sha256=text, notes=[text], dtype=text)
    out["layers"][0].update(name=text, activation=text)
    out["findings"][0].update(text=text)
    out["scope"][0].update(name=text, reason=text)
    out["fiber"]["hypotheses"][0]["statement"] = out["fiber"]["lower_bound"]["text"] = text
    out["tiles"][0].update(title=text, text=text)
    out["skipped"] = [{"layer": text, "reason": text}]
    out["limits"], out["theorems"], out["balance_note"] = [text], [text], text
    out["reduction"]["rounding"]["dtype"] = text
    out["domain"]["text"] = text
    out["classes"][0]["label"] = out["classes"][0]["kind"] = text
    out["balance"][0]["law"] = text
    return out


def test_hostile_names_change_no_element() -> None:
    text = report(renamed(HOSTILE), title=HOSTILE)
    assert shape(text) == shape(report(renamed("x" * len(HOSTILE)), title="x"))
    text.encode("utf-8")
    assert "\u202e" not in text and "\x00" not in text


@settings(max_examples=25)
@given(st.text(min_size=1).filter(lambda t: t.strip("/\\")))
def test_any_name_is_only_text(name: str) -> None:
    assert shape(report(renamed(name))) == shape(report(renamed("x")))


@pytest.mark.parametrize("base", [EXAMPLE, relu_example()], ids=["tanh", "relu"])
def test_any_missing_key_is_a_missing_part(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fiberscope.pages.page._dump", lambda _: "")  # the raw data have no parts, and are long
    for path in list(paths(base)):
        for drop in (True, False):
            damaged = copy.deepcopy(base)
            place = damaged
            for key in path[:-1]:
                place = place[key]
            if drop:
                del place[path[-1]]
            else:
                place[path[-1]] = None
            Page(report(damaged))


# ---- what is drawn


def test_every_neuron_and_weight_is_drawn() -> None:
    text = str(drawing.network_drawing(data.view_of(EXAMPLE, 1)))
    assert text.count("<circle") == 3 + 6 + 2
    weights = [w for layer in EXAMPLE["weights_preview"]["layers"] for row in layer for w in row]
    for sign, wanted in (("plus", sum(w > 0 for w in weights)), ("minus", sum(w < 0 for w in weights))):
        drawn = re.findall(rf'class="edge {sign} w\d" d="([^"]*)"', text)
        assert sum(d.count("M") for d in drawn) == wanted


def test_weights_that_do_not_fit_are_not_drawn() -> None:
    assert "edge" not in drawing.network_drawing(data.view_of(example(weights_preview={"layers": [[[1.0]]]}), 1))


def test_a_class_has_one_look_everywhere() -> None:
    page = Page(report(EXAMPLE))
    looks = {a["data-class"]: a["class"] for t, a in page.elements if t == "g" and a.get("data-class")}
    assert looks == {"0.A": "node c0", "0.B": "node c1", "0.dead": "node silent"}
    rows = [a["data-class"] for t, a in page.elements if t == "tr" and a.get("data-class")]
    assert rows == ["0.A", "0.B", "0.dead"]
    assert [a["class"] for a in page.having("span", "dot") if a.get("aria-hidden")][-3:] == [
        "dot c0",
        "dot c1",
        "dot silent",
    ]


def test_bands_are_in_proportion() -> None:
    text = str(drawing.network_drawing(data.view_of(relu_example(), 1)))
    groups = re.findall(r'<title>([\d,]+) neurons ([^<]*)</title><rect x="([\d.]+)"[^>]*height="([\d.]+)"', text)
    first = [(int(n.replace(",", "")), words, float(h)) for n, words, x, h in groups if x == groups[1][2]]
    assert sum(n for n, _, _ in first) == 512
    assert [n for n, words, _ in first if words == "without effect"] == [2]
    assert [n for n, words, _ in first if words == "on their own"] == [512 - 81 - 2]
    n, _, tall = max(first)
    assert all(abs(h / k - tall / n) < 0.05 * tall / n for k, _, h in first if h > 5)


def test_old_neurons_lead_to_new_ones() -> None:
    bare = example()
    for row in bare["classes"]:
        del row["new"]
    for found in (data.view_of(EXAMPLE, 1), data.view_of(bare, 1), data.view_of(EXAMPLE["reduction"], 1)):
        assert [(g.members, g.new) for g in found.groups] == [((0, 1, 2), (0,)), ((3, 4), (1,)), ((5,), ())]
    assert "0, 1, 2 (×\u22121)" in report(EXAMPLE)


@given(st.integers(0, 50), st.dictionaries(st.sampled_from(sorted(data.KINDS)), st.integers(0, 30)), st.integers(0, 9))
def test_bars_fill_what_was_there_before(after: int, removed: dict[str, int], extra: int) -> None:
    before = after + sum(removed.values())
    bar = str(figures.removal_bar(before, after, removed, before + extra or 1, "x"))
    widths = [float(w) for w in re.findall(r' width="([\d.]+)%" height="16">', bar)]
    assert abs(sum(widths) - 100 * before / (before + extra or 1)) < 0.06
    kept = re.findall(r'class="k-kept" x="0%" y="0" width="([\d.]+)%"', bar)
    assert len(kept) == (after > 0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 40))
def test_a_histogram_loses_no_value(values: list[float], number: int) -> None:
    counts = figures.bins(values, min(values), max(values), number)
    assert len(counts) == number and sum(counts) == len(values)
    Page(str(figures.histogram(values, values[0], "x")))


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_lie_inside_and_are_even(low: float, span: float) -> None:
    found = figures.ticks(low, low + span)
    slack = 1e-9 * (abs(low) + span) + 1e-9
    assert 1 <= len(found) <= 6 and all(low - slack <= t <= low + span + slack for t in found)


# ---- the lattice


def test_the_lattice_has_every_manifold() -> None:
    kinds = manifolds.kinds_of(EXAMPLE["lattice"])
    assert sum(k.count for k in kinds) == 4088  # Dowling number of signed partitions of 6
    assert {k.dots for k in kinds} == {6}


def test_types_are_read_from_their_names_too() -> None:
    lattice = copy.deepcopy(EXAMPLE["lattice"])
    for row in lattice["types"]:
        del row["sizes"], row["null"]
    assert manifolds.kinds_of(lattice) == manifolds.kinds_of(EXAMPLE["lattice"])


def test_containment_is_counted_through_all_levels() -> None:
    lattice = EXAMPLE["lattice"]
    kinds = manifolds.kinds_of(lattice)
    edges = manifolds.edges_of(lattice, kinds)
    here = next(k for k in kinds if k.here)

    def coarser(a: manifolds.Kind, b: manifolds.Kind) -> bool:
        """Whether b arises from a by putting classes together or to the null ones: a direct search over all ways."""
        seen, todo = set(), [(tuple(sorted(a.sizes)), a.null)]
        while todo:
            sizes, null = todo.pop()
            if (sizes, null) in seen:
                continue
            seen.add((sizes, null))
            for i, s in enumerate(sizes):
                rest = sizes[:i] + sizes[i + 1 :]
                todo.append((rest, null + s))
                todo += [(tuple(sorted((*rest[:j], rest[j] + s, *rest[j + 1 :]))), null) for j in range(len(rest))]
        return a != b and (tuple(sorted(b.sizes)), b.null) in seen

    below = {k.index for k in kinds if coarser(here, k)}
    above = sum(coarser(k, here) for k in kinds)
    assert manifolds.reachable(here.index, edges) == below
    text = manifolds.details(here, edges, 38)
    assert f"contained in {above} larger kinds, contains {len(below)} smaller kinds" in text
    assert text.startswith(
        "This network. Dimension 14 of 38: groups of 3 and 2 neurons each move as one; 1 neuron of output zero"
    )


def test_boxes_lie_in_rows_of_their_dimension() -> None:
    text = str(manifolds.lattice_drawing(EXAMPLE["lattice"], 38))
    boxes = re.findall(r'<g class="kind[^"]*" data-id="(\d+)".*?>', text)
    tops = re.findall(r'<g class="kind.*?<rect x="([\d.]+)" y="([\d.]+)"', text) or []
    if not tops:
        tops = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="\d+" height="\d+" rx="8"/>', text)
    dimension = {k["id"]: k["dimension"] for k in EXAMPLE["lattice"]["types"]}
    order = sorted((float(y), -dimension[int(i)]) for i, (_, y) in zip(boxes, tops, strict=True))
    assert [d for _, d in order] == sorted(d for _, d in order)
    assert len({(x, y) for x, y in tops}) == len(dimension)


# ---- words and numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (None, "\u2013"), (-2.5, "\u22122.5"), (1.5e-7, "1.5\u00d710\u207b\u2077"),
     ("-inf", "\u2212\u221e"),
     ({"exact": "-1/3", "float": -0.3333}, "\u22121/3"), ({"exact": "1" * 40, "float": 0.5}, "0.5")],
)  # fmt: skip
def test_numbers_read_well(value: Any, text: str) -> None:
    assert markup.real(value) == text


@given(st.sets(st.integers(0, 60)))
def test_spans_say_the_same_numbers(numbers: set[int]) -> None:
    back: set[int] = set()
    for part in data.spans(numbers):
        low, _, high = part.partition("\u2013")
        back |= set(range(int(low), int(high or low) + 1))
    assert back == numbers


def test_a_linear_block_and_a_domain_read_well() -> None:
    blocked = copy.deepcopy(EXAMPLE["reduction"])
    blocked["neuron_map"][0]["map"] = [
        {"old": [0, 1, 2], "new": [0, 1], "how": "linear"},
        {"old": [3], "new": [2], "how": "kept"},
    ]
    blocked["domain"] = {"lower": [-1.0, -1.0], "upper": [1.0, 1.0]}
    blocked["scope"] = "on the domain"
    text = report(blocked)
    assert "linear block" in text and "0\u20132" in text and "[\u22121,\u00a01]\u00b2" in text
    assert [g.colour for g in data.view_of(blocked, 1).groups] == [0, None]


def test_legend_names_only_what_is_used() -> None:
    chips = [a["class"] for t, a in Page(report(EXAMPLE)).elements if t == "span" and "chip" in (a.get("class") or "")]
    assert set(chips) == {"chip exact"}
    assert "certified enclosure" in report(relu_example())


def test_a_theme_needs_no_script() -> None:
    (style,) = Page(report(EXAMPLE)).inside("style")
    assert "color-scheme: light dark" in style and "@media print" in style


# ---- the answer and the next command


def commands(text: str) -> list[list[str]]:
    """The words of the commands that the page offers to copy."""
    buttons = Page(text).having("button", "copy")
    return [shlex.split(a["data-copy"] or "") for a in buttons if a.get("aria-label") == "Copy the command"]


def in_short(text: str) -> str:
    """The words of the panel above the tiles."""
    panel = re.search(r'<section class="answer".*?</section>', text, re.DOTALL)
    return html.unescape(re.sub("<[^>]*>", "", panel[0])) if panel else ""


def test_the_answer_comes_first_and_is_not_said_twice() -> None:
    text = report(EXAMPLE)
    assert in_short(text).startswith("2 of 6 hidden neurons suffice")
    assert "Removing the other 4 keeps the function on all real inputs: proved in rational" in in_short(text)
    assert "hidden neurons that matter" not in text.split("<article")[1].split("<details")[0]
    assert text.index('class="answer"') < text.index('class="tiles"') < text.index("Findings")


def test_the_answer_says_how_it_is_known() -> None:
    found = relu_example()
    found["reduction"]["removed"] = [{"kind": "dead", "count": 91, "scope": "on the domain", "rigor": "INTERVAL"}]
    text = in_short(report(found))
    assert (
        text.startswith("725 of 816") and "on [0,\u00a01]⁷⁸⁴ (file): proved by a certified enclosure interval." in text
    )
    found["reduction"]["tolerance"] = 0.25
    assert "changes no output by more than 0.25 on [0,\u00a01]" in in_short(report(found))
    found["reduction"].update(hidden_after=816)
    assert in_short(report(found)).startswith("816 hidden neurons: none was found to be superfluous")
    found["reduction"]["hidden_after"] = None
    assert in_short(report(found)) == ""  # not known is not none
    found["reduction"].update(hidden_before=0, hidden_after=0)
    assert in_short(report(found)) == "" and "hidden neurons that matter" in report(found)


@pytest.mark.parametrize(
    ("path", "origin", "expected"),
    [("a b/it's.onnx", "everywhere", ["reduce", "a b/it's.onnx", "-o", "it's-small.onnx"]),
     ("x.zip", "file", ["reduce", "x.zip", "-o", "x-small.onnx", "--domain", "file"]),
     ("v1.2/net", "[-1,1]", ["reduce", "v1.2/net", "-o", "net-small.onnx", "--domain", "[-1,1]"]),
     ("x.npz", "given", None), ("", "everywhere", None)],
)  # fmt: skip
def test_the_next_command_names_file_and_domain(path: str, origin: str, expected: list[str] | None) -> None:
    found = relu_example()
    found["network"]["path"], found["domain"]["origin"] = path, origin
    assert commands(report(found))[:1] == ([["fiberscope", *expected]] if expected else [])


def test_the_next_commands_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "my twins.npz"
    twins = fs.Network.from_arrays(([[1.0, 2.0], [1.0, 2.0]], [0.5, 0.5]), ([[1.0, 1.0]], [0.0]), activation="relu")
    fs.save(twins, place)

    def page_of(*words: str) -> str:
        assert run([*words, "--json", "--quiet"]) == 0
        return report(json.loads(capsys.readouterr().out))

    reduce, *steps = commands(page_of("inspect", str(place)))  # once in short, once with what else there is
    assert steps == [reduce, ["fiberscope", "smallest-sim", str(place)], ["fiberscope", "fiber", str(place)]]
    assert reduce[1:3] == ["reduce", str(place)]
    reduce[reduce.index("-o") + 1] = str(tmp_path / "small.npz")
    check, *_ = commands(page_of(*reduce[1:]))
    assert check[1] == "check" and run([*check[1:], "--quiet"]) == 0
    capsys.readouterr()
    domain, *_ = commands(page_of("inspect", str(tmp_path / "small.npz")))
    assert domain[-2:] == ["--domain", "[0,1]"] and run([*domain[1:], "--quiet"]) == 0


# ---- colours


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_drawings_have_contrast(theme: str) -> None:
    css = (Path(markup.__file__).parent / "assets" / "page.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)
    colour = {name: both[theme == "dark"] for name, *both in pairs}
    for under in ("paper", "card", "sunk", "tint"):
        for name in ("ink", "soft", "accent", "good", "bad", "warn", "c3", "c4"):  # texts and chips
            assert contrast(colour[name], colour[under]) >= 4.5, (name, under)
    for under in ("ribbon", "silent"):
        assert contrast(colour["ink"], colour[under]) >= 4.5
    for k in range(8):  # letters on classes, and classes on cards
        assert contrast(colour["on"], colour[f"c{k}"]) >= 4.5
        assert contrast(colour[f"c{k}"], colour["card"]) >= 3
    for name in ("plus", "minus", "accent"):
        assert contrast(colour[name], colour["card"]) >= 3


# ---- in a browser


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 420, 768, 1240, 1920])
def test_no_sideways_scrolling(opened: Any, width: int) -> None:
    page = opened(*ALL["several"], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    long = renamed("x" * 400)
    assert opened(long, width=width, title="y" * 300).evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_hostile_names_run_nothing(opened: Any) -> None:
    page = opened(renamed(HOSTILE), title=HOSTILE)
    page.wait_for_timeout(100)
    assert page.evaluate("window.pwned") is None


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_button(opened: Any, scheme: str) -> None:
    page = opened(EXAMPLE, scheme=scheme)
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(16, 19, 26)'"
    assert page.evaluate(dark) is (scheme == "dark")
    page.keyboard.press("Tab")  # the skip link
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate(dark) is (scheme == "light")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened: Any, scheme: str) -> None:
    assert opened(*ALL["several"], scheme=scheme).evaluate(CONTRAST) == []


@pytest.mark.browser
def test_lattice_by_mouse_and_keyboard(opened: Any) -> None:
    page = opened(EXAMPLE)
    details = page.locator(".details")
    assert details.inner_text().startswith("This network. Dimension 14 of 38")
    page.locator(".kind").first.click()
    assert details.inner_text().startswith("Dimension 38 of 38: no two neurons move together")
    assert page.locator(".link.on").count() == len(EXAMPLE["lattice"]["edges"])
    page.keyboard.press("ArrowDown")
    assert details.inner_text().startswith("Dimension 32 of 38")
    page.keyboard.press("ArrowUp")
    assert page.locator(".kind[aria-pressed=true]").count() == 1
    assert details.inner_text().startswith("Dimension 38 of 38")


@pytest.mark.browser
def test_tables_filter_and_sort(opened: Any) -> None:
    page = opened(relu_example())
    table = page.locator("table.tools").first
    rows = table.locator("tbody tr")
    total = rows.count()
    page.get_by_label("Filter").first.fill("hidden 1 dead")
    assert table.locator("tbody tr:not(.filtered)").count() == 1
    page.get_by_label("Filter").first.fill("")
    assert table.locator("tbody tr:not(.filtered)").count() == total
    head = table.locator("th button", has_text="neurons").first
    head.click()
    head.click()
    numbers = [int(t.replace(",", "")) for t in table.locator("tbody td:nth-child(4)").all_inner_texts()]
    assert numbers == sorted(numbers, reverse=True) and max(numbers) == 50
    assert table.locator("th[aria-sort=descending]").count() == 1


@pytest.mark.browser
def test_raw_data_can_be_downloaded(opened: Any, tmp_path: Path) -> None:
    page = opened(EXAMPLE)
    page.get_by_text("Raw data (JSON)").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    waiting.value.save_as(tmp_path / "data.json")
    assert json.loads((tmp_path / "data.json").read_text(encoding="utf-8")) == EXAMPLE
    assert waiting.value.suggested_filename == "condensed-3-6-2.safetensors.json"


@pytest.mark.browser
def test_the_page_is_complete_without_its_script(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(EXAMPLE), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("button:visible").count() == 0
    assert page.locator(".details").inner_text().startswith("This network.")
    assert page.locator(".kind.chosen").count() == 1
    context.close()


OUTLINED = """() => { const e = document.activeElement, s = getComputedStyle(e), r = e.querySelector("rect");
  return (s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2) ||
    (e.matches(".kind") && parseFloat(getComputedStyle(r).strokeWidth) >= 2.4); }"""
NAMED = """() => { const e = document.activeElement;
  return [e.tagName, e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.[0]?.textContent.trim()]; }"""


@pytest.mark.browser
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(opened: Any) -> None:
    page = opened(EXAMPLE)
    stops: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        tag, name = page.evaluate(NAMED)
        if tag == "BODY":
            break
        assert name and page.evaluate(OUTLINED), (tag, name)
        stops.append(name)
    assert stops[:4] == ["Skip to the results", "Use dark colours", "Copy the full sha256", "Copy the command"]
    assert stops[-1] == "Raw data (JSON)"
    assert sum(name.startswith("3+2 null 1: This network.") for name in stops) == 1  # arrows move in the lattice
    assert "Hidden layers" not in stops  # a table that fits is no stop
    narrow = opened(EXAMPLE, width=420)
    assert narrow.locator(".scroll[aria-label='Hidden layers'][tabindex='0']").count() == 1


@pytest.mark.browser
def test_the_skip_link_skips_and_the_theme_stays(opened: Any) -> None:
    page = opened(EXAMPLE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    page.locator("#theme").click()
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 26)"
    assert page.locator("#theme").inner_text() == "Light"


@pytest.mark.browser
def test_paper_shows_all_and_has_no_controls(opened: Any) -> None:
    page = opened(EXAMPLE, relu_example(), scheme="dark", width=760)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("button:not(th button):visible").count() == 0 and page.locator(".raw:visible").count() == 0
    assert page.locator("input:visible").count() == 0
    cut = """() => Array.from(document.querySelectorAll(".scroll, .tall"), (e) => [e.scrollWidth - e.clientWidth,
      e.scrollHeight - e.clientHeight, getComputedStyle(e).overflowX])"""
    assert all(style == "visible" for _, _, style in page.evaluate(cut))
    assert page.locator(".hero:visible").count() == 2


def test_numbers_in_the_middle_of_a_name_are_no_powers_and_long_rationals_are_floats():
    from fiberscope.pages.markup import pretty, real

    assert pretty("fs1s:35e65736 and 1e-06") == "fs1s:35e65736 and 1\u00d710\u207b\u2076"
    assert pretty("10^95.1") == "10^95.1" and pretty("R^2.") == "R\u00b2."
    assert real({"exact": None, "float": 2.7}) == "2.7"
