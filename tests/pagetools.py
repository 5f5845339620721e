"""What the tests of pages share: a parser, what every page must be, and a browser that is offline."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

HOSTILE = (
    "</script></pre></title><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"'&\u202e\ud800\x00"
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


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


def shape(text: str) -> Counter[str]:
    return Counter(tag for tag, _ in Page(text).elements)


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*here, key)
            yield from paths(item, (*here, key))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*here, 0))


# ---- what every page is


def sound(text: str) -> Page:
    """The page, once it is shown to be well-formed, named, in order, offline and small."""
    page = Page(text)
    _named(page)
    _ordered(page, text)
    _offline(page, text)
    assert len(text.encode()) < 200_000
    return page


def _named(page: Page) -> None:
    """Every identity is one, every reference leads somewhere, every drawing and control has a name."""
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for key in ("aria-labelledby", "data-from"):
            assert attributes.get(key) is None or attributes[key] in ids
        href = attributes.get("href")
        assert (
            href is None or (href.startswith("#") and href[1:] in ids) or (tag == "a" and href.startswith("https://"))
        )
        if tag == "svg":
            named = attributes.get("role") in ("img", "group") and attributes.get("aria-label")
            assert named or attributes.get("aria-hidden") == "true"
        if tag == "button":
            assert attributes.get("type") == "button"
        if tag == "input":
            assert attributes.get("aria-label") or attributes.get("class") in ("turn", "tilt")  # these have a label
        if attributes.get("role") == "region" or tag == "nav":
            assert attributes.get("aria-label")


def _ordered(page: Page, text: str) -> None:
    """A language, a title, one main part, headings without a jump, a caption for each table, headings for columns."""
    assert next(a for t, a in page.elements if t == "html").get("lang") == "en"
    assert page.inside("title") and sum(t == "main" for t, _ in page.elements) == 1
    levels = [int(t[1]) for t, _ in page.elements if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), levels
    for table in re.findall(r"<table\b[^>]*>.*?</table>", text, re.DOTALL):
        assert re.match(r"<table[^>]*><caption\b", table)
        assert all("scope=" in head for head in re.findall(r"<th\b[^>]*>", table))


def _offline(page: Page, text: str) -> None:
    """The policy forbids all that is not named by its hash, and nothing in the page would ask for more."""
    policy = next(a["content"] or "" for t, a in page.elements if t == "meta" and "http-equiv" in a)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    hashes = {}
    for tag in ("script", "style"):
        (inner,) = page.inside(tag)
        hashes[f"{tag}-src"] = f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"
        assert not re.search(r"url\(|@import|\bimport\(|https?://(?!www\.w3\.org/2000/svg)", inner)
    assert rules == {**hashes, **dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")}
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "object", "embed", "link", "base", "form", "image", "use", "audio", "video")
        assert not any(key.startswith("on") or key in ("style", "src", "srcset", "action") for key in attributes)
        assert not any("url(" in (value or "") for value in attributes.values())


def light(colour: str) -> float:
    """Relative luminance of a colour of six hexadecimal digits."""
    parts = [int(colour.strip("#")[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG: 4.5 for texts, 3 for large texts and drawings."""
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


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
    from fiberscope.pages import report  # not for every test that is run: the fixtures are known to all

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
