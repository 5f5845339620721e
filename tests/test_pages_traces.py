"""Pages of a watched run and of a linted start: their numbers, their names, and a live page in a browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest

import fiberscope as fs
from fiberscope.pages import report, traces
from fiberscope.pages.markup import real
from fiberscope.pages.serving import HOST, State, live_page
from pagetools import CONTRAST, HOSTILE, shape, sound

PARTS = {
    "What it says", "Reported by the loop", "Invariant manifolds", "Condensation", "Dead neurons", "Conservation laws",
    "Layers at the last measurement", "The run", "Skipped, assumed, not said",
}  # fmt: skip


@cache
def _watched() -> str:
    """Six neurons that decay by weight decay alone; two are equal and one is dead for every input."""
    rng = np.random.default_rng(0)
    theta = {"0.weight": rng.normal(size=(6, 3)), "0.bias": np.zeros(6), "1.weight": rng.normal(size=(2, 6))}
    theta["0.weight"][1], theta["1.weight"][:, 1] = theta["0.weight"][0], theta["1.weight"][:, 0]
    theta["0.weight"][2], theta["0.bias"][2] = 0.0, -1.0
    kinds = fs.training.architecture_of(theta, activation="relu")
    rule = fs.training.OptimiserState("sgd", lr=0.1, weight_decay=0.1)
    with fs.watch(theta, architecture=kinds, optimizer=rule, every=1, data=rng.normal(size=(9, 3))) as watcher:
        for step in range(4):
            theta = {name: 0.99 * value for name, value in theta.items()}
            nothing = {name: 0 * value for name, value in theta.items()}
            watcher.step(theta, gradients=nothing, loss=2.0**-step)
    return json.dumps({"schema": "fiberscope/watch/1", **watcher.trace().to_dict()})


@cache
def _linted() -> str:
    weight, out = np.array([[1.0, 2.0], [1.0, 2.0], [0.5, -1.0]]), np.array([[1.0, 1.0, 3.0]])
    net = fs.Network.from_arrays((weight, [0.1, 0.1, 0.2]), (out, [0.0]), activation="tanh")
    return json.dumps({"schema": "fiberscope/lint-init/1", **fs.lint_init(net).to_dict()})


def trace(**changes: Any) -> dict[str, Any]:
    return {**json.loads(_watched()), **changes}


def start(**changes: Any) -> dict[str, Any]:
    return {**json.loads(_linted()), **changes}


def headings(page: str) -> set[str]:
    return set(re.findall(r"<h3[^>]*>([^<]*)</h3>", page))


def figure(page: str, title: str) -> str:
    """The drawing with its table of values whose description begins with the title."""
    (found,) = [text for text in re.findall(r"<figure.*?</figure>", page, re.S) if f">{title}<" in text]
    return found


def rows(page: str, caption: str) -> list[list[str]]:
    (table,) = re.findall(rf"<table[^>]*><caption[^>]*>{caption}</caption>.*?</table>", page, re.S)
    lines = re.findall(r"<tr[^>]*>(<td.*?)</tr>", table, re.S)
    return [[re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line, re.S)] for line in lines]


# ---- a run


def test_a_run_has_all_its_parts_and_a_sound_page() -> None:
    page = report(trace())
    assert headings(page) == PARTS
    sound(page)


def test_numbers_of_a_run_are_on_its_page() -> None:
    data = trace()
    page = report(data)
    last = data["records"][-1]
    assert "5 of 6" in page  # equal neurons count once
    assert "1 dead" in page and "; 1 on the data" in page
    nearest = rows(page, "Nearest manifolds now")
    assert [row[0] for row in nearest] == [row["population"] for row in last["nearest"]]
    assert nearest[0][:4] == ["0", "0, 1", "equal", "0"]
    (law,) = last["laws"]
    ((_, *numbers),) = rows(page, "Laws")
    assert numbers == [real(law[key], 3) for key in ("drift", "predicted", "ratio", "error")]
    losses = figure(page, "loss")
    assert all(f">{real(2.0**-k)}<" in losses for k in range(4))
    assert "<dt>weight decay</dt><dd>0.1</dd>" in page and ">sgd<" in page
    ((name, *cells),) = rows(page, "Layers at the last measurement")
    assert name == "0" and "6" in cells and not any(mark in cell for cell in cells for mark in "[]{}")


def test_every_drawing_says_its_ends_to_screen_readers() -> None:
    page = report(trace())
    names = [a["aria-label"] or "" for a in sound(page).having("svg", "plot")]
    (loss,) = [name for name in names if name.startswith("loss")]
    assert "goes from 1 to 0.125" in loss
    assert len(names) == len(set(names)) >= 5


def test_without_an_optimiser_nothing_is_shown_as_predicted() -> None:
    data = trace(optimizer=None)
    page = report(data)
    assert "No optimiser is known, so nothing is predicted" in page and "predicted for the optimiser" not in page
    ((_, *numbers),) = rows(page, "Laws")
    assert numbers == [real(data["records"][-1]["laws"][0]["drift"], 3)]


def test_problems_notes_and_a_torn_end_are_said() -> None:
    page = report(trace(problems=["logger X failed"], notes=["no gradients were given"], torn=True, complete=False))
    assert "Logger X failed" in page and "No gradients were given" in page and "is torn" in page
    assert "steps so far; not closed" in page
    assert "No warning, no problem, no note." in report(trace(warnings=[], problems=[], notes=[]))


def test_no_dead_neuron_is_drawn_on_an_axis_of_counts() -> None:
    data = trace()
    for record in data["records"]:
        record["scalars"].update({"fiberscope/dead/on_data": 0, "fiberscope/dead/every_input": 0})
    drawn = figure(report(data), "Dead neurons")
    assert "6 looked at" in drawn and "\u2212" not in drawn


@pytest.mark.parametrize("key", json.loads(_watched()))
def test_a_run_without_a_key_is_a_page_without_that_part(key: str) -> None:
    data = trace()
    del data[key]
    sound(report({"schema": "fiberscope/watch/1", **data}))


@pytest.mark.parametrize("key", ["scalars", "layers", "nearest", "laws", "time", "step"])
def test_measurements_without_a_key_lose_that_part_only(key: str) -> None:
    data = trace()
    for record in data["records"]:
        record.pop(key, None)
    page = report(data)
    lost = {"layers": {"Layers at the last measurement"},
            "scalars": {"Reported by the loop", "Condensation", "Dead neurons"}}  # fmt: skip
    assert headings(page).isdisjoint(lost.get(key, set()))
    assert {"What it says", "The run"} <= headings(page)
    sound(page)


def replaced(value: Any, text: str) -> Any:
    """All names of a result, keys of tables among them, replaced by one text and a number."""
    count = iter(range(10_000))

    def told(here: Any, key: str = "") -> Any:
        if isinstance(here, dict):
            tables = {"layers", "widths", "effective_widths"}
            return {f"{text}{next(count)}" if key in tables else k: told(v, k) for k, v in here.items()}
        if isinstance(here, list):
            return [told(v, key) for v in here]
        known = ("schema", "rigor", "kind", "theorems", "created", "version", "code", "outcome")
        return f"{text}{next(count)}" if isinstance(here, str) and key not in known else here

    return told(value)


@pytest.mark.parametrize("made", [trace, start])
def test_hostile_names_change_no_element(made: Callable[[], dict[str, Any]]) -> None:
    data = made()
    if "records" in data:
        for record in data["records"]:
            record["scalars"][HOSTILE] = 1.0
    page = report(replaced(data, HOSTILE))
    plain = json.loads(json.dumps(replaced(made(), "x" * len(HOSTILE))))
    for record in plain.get("records", ()):
        record["scalars"]["y" * 40] = 1.0
    assert shape(page) == shape(report(plain))
    assert "\u202e" not in page and "<img" not in page


# ---- a start


def test_a_trapped_start_says_what_holds_it_and_what_frees() -> None:
    data = start()
    page = report(data)
    sound(page)
    assert {"Findings", "Widths"} <= headings(page)
    assert data["trapped"] and ">trapped<" in page and "9 of 13" in page
    found = rows(page, "Findings")
    assert [row[0] for row in found] == [row["code"] for row in data["findings"]]
    assert found[0][0] == "FS101" and "kept" in found[0][4] and found[0][5] != "\u2013"
    assert rows(page, "Widths") == [[*data["widths"], "3", "2"]]


def test_a_healthy_start_is_said_to_be_free() -> None:
    net = fs.Network.random((2, 3, 1), activation="tanh", seed=0)
    page = report({"schema": "fiberscope/lint-init/1", **fs.lint_init(net).to_dict()})
    assert ">not trapped<" in page and ">trapped<" not in page
    assert rows(page, "Widths")[0][1:] == ["3", "3"]


@pytest.mark.parametrize("key", json.loads(_linted()))
def test_a_start_without_a_key_is_a_page_without_that_part(key: str) -> None:
    data = start()
    del data[key]
    sound(report({"schema": "fiberscope/lint-init/1", **data}))


# ---- in a browser


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280])
def test_nothing_sticks_out_and_all_texts_can_be_read(opened: Any, scheme: str, width: int) -> None:
    for data in (trace(), start()):
        page = opened(data, scheme=scheme, width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []


class Live:
    """A served run of which a test decides how much has happened, in a browser that notes what it asks and says."""

    def __init__(self, browser: Any) -> None:
        self.many, self.ended = 1, False
        self.asked: list[str] = []
        self.faults: list[str] = []
        self._browser = browser

    def read(self) -> State:
        data = trace()
        return State({**data, "records": data["records"][: self.many]}, f"step {self.many - 1}", self.ended)

    def look(self) -> Any:
        return self.many, self.ended

    @contextmanager
    def shown(self) -> Iterator[Any]:
        with live_page(self.read, self.look, title="a run") as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            context = self._browser.new_context(viewport={"width": 1280, "height": 900})
            try:
                page = context.new_page()
                page.on("console", lambda message: self.faults.append(message.text))
                page.on("pageerror", lambda error: self.faults.append(str(error)))
                page.on("request", lambda request: self.asked.append(request.url))
                page.goto(f"http://{HOST}:{server.server_port}/")
                yield page
            finally:
                context.close()
                server.shutdown()
                thread.join()


STEP = "document.querySelector('main strong.big').textContent === '{}'"
SAID = "document.querySelector('#live span').textContent.includes('{}')"


def until(page: Any, what: str) -> None:
    """Wait for it by asking from outside: the page's own policy forbids what `wait_for_function` would do."""
    for _ in range(200):
        if page.evaluate(what):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came: {what}")


@pytest.mark.browser
def test_a_live_page_follows_pauses_and_ends(browser: Any) -> None:
    run = Live(browser)
    with run.shown() as page:
        until(page, SAID.format("live: step 0"))
        run.many = 2
        until(page, STEP.format(1))
        page.get_by_role("button", name="Pause").click()
        run.many = 3
        until(page, SAID.format("live: step 2"))
        page.wait_for_timeout(1200)  # longer than the page waits between looks
        assert page.evaluate(STEP.format(1))
        page.get_by_role("button", name="Resume").click()
        until(page, STEP.format(2))
        run.many, run.ended = 4, True
        until(page, SAID.format("the run has ended: step 3"))
        until(page, STEP.format(3))
    assert run.faults == [] and {url.rpartition("/")[2] for url in run.asked} == {"", "events"}
    assert all(url.startswith(f"http://{HOST}:") for url in run.asked)


@pytest.mark.browser
def test_a_live_page_keeps_what_is_open_and_where_the_keyboard_is(browser: Any) -> None:
    run = Live(browser)
    run.many = 2
    with run.shown() as page:
        until(page, SAID.format("step 1"))
        page.locator("main details > summary").first.focus()
        page.keyboard.press("Enter")
        run.many = 3
        until(page, STEP.format(2))
        assert page.evaluate("Array.from(document.querySelectorAll('main details'), (d) => d.open)").count(True) == 1
        assert page.evaluate("document.querySelector('main details').open")
        assert page.evaluate("document.activeElement === document.querySelector('main details > summary')")
    assert run.faults == []


@pytest.mark.browser
def test_a_live_page_waits_for_a_reader_of_a_chart_and_says_so(browser: Any) -> None:
    run = Live(browser)
    run.many = 2
    with run.shown() as page:
        until(page, SAID.format("step 1"))
        page.locator("svg.plot").first.hover()
        run.many = 3
        until(page, SAID.format("step 2; shown when you are done here"))
        assert page.evaluate(STEP.format(1))
        page.mouse.move(2, 2)
        until(page, STEP.format(2))
        until(page, "!" + SAID.format("done here"))
    assert run.faults == []


def test_the_optimiser_shows_the_constants_of_its_own_rule() -> None:
    momentum = fs.training.OptimiserState("momentum", lr=0.25, momentum=0.875).to_dict()
    shown = dict(traces._constants(momentum))
    assert list(shown) == ["rule", "learning rate", "momentum"] and shown["momentum"] == "0.875"
    adam = fs.training.OptimiserState("adamw", lr=0.25, weight_decay=0.5, coupled=False).to_dict()
    assert {"beta1", "beta2", "eps"} <= dict(traces._constants(adam)).keys()
    assert dict(traces._constants(adam))["the decay"] == "shrinks the weights by itself"


def test_a_run_is_called_by_its_file_and_its_path_is_in_the_details() -> None:
    text = report({**trace(), "schema": "fiberscope/watch/1", "path": "some/folder/run.jsonl"})
    assert re.search(r"<h2[^>]*><bdi>run\.jsonl</bdi>", text) and "some/folder/run.jsonl" in text
