"""The report page: what it draws is the data, nothing in it runs, and it works in a browser."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError
from fiberscope.pages import data, drawing, figures, manifolds, markup, report
from fiberscope.results import Answer, Verdict

EXAMPLE = json.loads((Path(__file__).parent / "data" / "inspection_example.json").read_text(encoding="utf-8"))
HOSTILE = (
    "</script></pre></title><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"'&\u202e\ud800\x00"
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


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


class Page(HTMLParser):
    """The elements of a document; fails where tags do not nest."""

    void = {"br", "hr", "input", "link", "meta"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.void:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", text))

    def inside(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    def having(self, tag: str, look: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and look in (a.get("class") or "").split()]


ALL = {"tanh": [example()], "relu": [relu_example()], "reduction": [EXAMPLE["reduction"]],
       "several": [example(), relu_example(), EXAMPLE["reduction"]]}  # fmt: skip


# ---- the document


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_well_formed_and_named(name: str) -> None:
    page = Page(report(*ALL[name]))
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for key in ("aria-labelledby", "data-from"):
            assert attributes.get(key) is None or attributes[key] in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids
        if tag == "svg":
            assert attributes.get("role") in ("img", "group") and attributes.get("aria-label")
        if tag == "button":
            assert attributes.get("type") == "button"


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_self_contained_and_its_policy_fits(name: str) -> None:
    text = report(*ALL[name])
    page = Page(text)
    policy = next(a["content"] or "" for t, a in page.elements if t == "meta" and "http-equiv" in a)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        found = page.inside(tag)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "object", "embed", "link", "base", "form")
        assert not any(key.startswith("on") or key in ("style", "src", "action") for key in attributes)
        assert attributes.get("href") is None or (attributes["href"] or "").startswith("#")
    assert "url(" not in text and "@import" not in text


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


def shape(text: str) -> Counter[str]:
    return Counter(tag for tag, _ in Page(text).elements)


def test_hostile_names_change_no_element() -> None:
    text = report(renamed(HOSTILE), title=HOSTILE)
    assert shape(text) == shape(report(renamed("x" * len(HOSTILE)), title="x"))
    text.encode("utf-8")
    assert "\u202e" not in text and "\x00" not in text


@settings(max_examples=25)
@given(st.text(min_size=1).filter(lambda t: t.strip("/\\")))
def test_any_name_is_only_text(name: str) -> None:
    assert shape(report(renamed(name))) == shape(report(renamed("x")))


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*here, key)
            yield from paths(item, (*here, key))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*here, 0))


@pytest.mark.parametrize("base", [EXAMPLE, relu_example()], ids=["tanh", "relu"])
def test_any_missing_key_is_a_missing_part(base: dict[str, Any]) -> None:
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
    assert "linear block" in text and "0\u20132" in text and "[\u22121, 1]\u00b2" in text
    assert [g.colour for g in data.view_of(blocked, 1).groups] == [0, None]


def test_legend_names_only_what_is_used() -> None:
    chips = [a["class"] for t, a in Page(report(EXAMPLE)).elements if t == "span" and "chip" in (a.get("class") or "")]
    assert set(chips) == {"chip exact"}
    assert "certified enclosure" in report(relu_example())


def test_a_theme_needs_no_script() -> None:
    (style,) = Page(report(EXAMPLE)).inside("style")
    assert "color-scheme: light dark" in style and "@media print" in style


# ---- in a browser


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as player:
        running = player.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page; afterwards no request left the file and the console is empty."""
    contexts, faults, requests = [], [], []

    def show(*results: Any, width: int = 1240, scheme: str = "light", **options: Any) -> Any:
        path = tmp_path / "report.html"
        path.write_text(report(*results, **options), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert faults == []
    assert all(url.endswith("/report.html") for url in requests)


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


CONTRAST = """() => {
  const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((x) => { x /= 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const under = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/^rgba.*, 0\\)$/.test(c)) return c; } return getComputedStyle(document.body).backgroundColor; };
  const worst = [];
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg") || !Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const a = light(getComputedStyle(e).color), b = light(under(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) worst.push([e.className, ratio]);
  }
  return worst;
}"""


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
