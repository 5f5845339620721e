"""The guided tour: its numbers against the library, its commands against the command line, its page in a browser."""

from __future__ import annotations

import html
import json
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fiberscope as fs
from fiberscope.cli import run, tour
from fiberscope.cli.chapters import _bound, plans
from fiberscope.cli.tour import Tour, guided_tour
from fiberscope.training.traces.reading import read_trace

DATA = Path(fs.__file__).parent / "data"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "tour"


@pytest.fixture(scope="module")
def done(place: Path) -> Tour:
    return guided_tour(place)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr."""

    def inner(*argv: str | Path) -> tuple[int, str, str]:
        code = run([str(word) for word in argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return inner


def told(done: Tour, key: str) -> tuple[str, ...]:
    return next(row.found for row in done.chapters if row.plan.key == key)


# ---- what is bundled


def test_bundled_networks_are_small_and_those_of_the_script(root: Path) -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 100_000
    datasets = pytest.importorskip("sklearn.datasets")
    script = runpy.run_path(str(root / "scripts" / "train_demo_network.py"))
    x, y = datasets.load_digits(return_X_y=True)
    inputs, labels = script["bands"](x), np.where(y == 2, 1.0, -1.0)[:, None]
    trained, net = script["train_twos"](inputs, labels), fs.load(DATA / "twos-tanh.safetensors")
    for (weight, bias), layer in zip(trained, net.layers, strict=True):
        assert np.allclose(weight, layer.weight64, atol=1e-6) and np.allclose(
            bias, np.asarray(layer.bias, float), atol=1e-6
        )
    assert ((net(inputs) > 0) == (labels > 0)).mean() > 0.95


# ---- chapters against the library


def test_redundant_neurons_by_the_definition(done: Tour, place: Path) -> None:
    """Neurons without inputs or readers, counted from the weights; and the smaller network on random pictures."""
    net, small = fs.load(place / "digits-mlp.safetensors"), fs.load(place / "small-digits-mlp.safetensors")
    assert net.digest == fs.load(DATA / "digits-mlp.safetensors").digest
    data = done.to_dict()
    removable = sum(
        int(((layer.weight64 == 0).all(axis=1) | (above.weight64 == 0).all(axis=0)).sum())
        for layer, above in zip(net.layers, net.layers[1:], strict=False)
    )
    assert 0 < removable <= data["hidden_before"] - data["hidden_everywhere"]
    assert data["hidden_everywhere"] == fs.reduce(net).network.hidden_count
    assert data["hidden_on_pixels"] == small.hidden_count == sum(small.widths[1:-1])
    assert (data["widths_before"], data["widths_after"]) == (list(net.widths), list(small.widths))
    assert f"{'-'.join(map(str, net.widths))} -> {'-'.join(map(str, small.widths))}" in told(done, "redundant")[1]
    x = np.random.default_rng(1).random((500, 64))
    assert np.abs(net(x) - small(x)).max() <= data["rounding"]["bound"]["constant"] + 1e-12
    assert data["answer"] == "YES" and "YES" in told(done, "redundant")[2]


def test_copies_are_what_they_are_called(done: Tour, place: Path) -> None:
    net, half = fs.load(place / "digits-mlp.safetensors"), fs.load(place / "half-digits-mlp.safetensors")
    (exported,) = place.glob("exported-*")
    copy, x = fs.load(exported), np.random.default_rng(2).random((200, 64))
    assert np.allclose(net(x), copy(x), rtol=0, atol=1e-12)
    assert not np.array_equal(net.layers[0].weight64, copy.layers[0].weight64)
    assert np.array_equal(half.layers[0].weight64, net.layers[0].weight64.astype(np.float16).astype(float))
    same, other, names, far = told(done, "same")
    assert "YES" in same and "NO" in other
    assert names.count(fs.fingerprint(net)[:13]) == 2 and fs.fingerprint(half)[:13] in names
    data = next(row.data[3] for row in done.chapters if row.plan.key == "same")
    lower, upper = (data[key]["float"] if isinstance(data[key], dict) else data[key] for key in ("lower", "upper"))
    assert np.abs(net(x) - half(x)).max() <= upper and 0 < lower <= upper
    assert f"by {_bound(lower, up=False)} at" in far and f"than {_bound(upper, up=True)} at" in far


def test_training_is_what_the_library_says(done: Tour, place: Path) -> None:
    net = fs.load(place / "twos-tanh.safetensors")
    w, v = net.layers[0].weight64, net.layers[1].weight64
    assert np.array_equal(w[0], w[3]) and v[0, 0] == v[0, 3] and not w[4].any() and v[0, 4] == 0
    trapped, reached, number, laws = told(done, "training")
    # a merged pair (3 inputs, bias, output) and a neuron without weights take five dimensions each
    assert "dimension 16 of 26" in trapped and fs.smallest_sim(net).dimension == 26 - 2 * 5
    assert "16: proved" in reached
    sims = fs.sims((3, 5, 1), activation="tanh")
    assert f"{sims.count} such manifolds, of {sims.count_types} kinds" in number
    assert "8 x |w_i|^2" in laws


def test_infinite_width_against_the_library(done: Tour) -> None:
    data = next(row.data[0] for row in done.chapters if row.plan.key == "width")
    flow = fs.meanfield.angle_flow(30, 5, [0.0, 100.0, 110.0, 1000.0])
    assert flow.mass_plus[1] < flow.alpha < flow.mass_plus[2] and 100 < data["critical_time"] < 110
    assert data["mass_plus"][-1] == pytest.approx(flow.mass_plus[-1], rel=1e-6)
    assert f"{flow.energy[-1]:.2g}" in told(done, "width")[1]


def test_the_recovered_network_is_the_target(done: Tour, place: Path) -> None:
    net, found = fs.load(place / "twos-tanh.safetensors"), fs.load(place / "found.safetensors")
    table = np.loadtxt(place / "samples.csv", delimiter=",", skiprows=1)
    assert np.array_equal(net(table[:, :3])[:, 0], table[:, 3]) and len(table) == 24
    x = np.random.default_rng(3).uniform(-2, 2, (500, 3))
    assert np.abs(net(x) - found(x)).max() < 1e-12 and found.widths == (3, 3, 1)
    counts, fitted, proved = told(done, "recovery")
    # 3 neurons of 3 + 1 + 1 numbers and an output bias; 5 neurons: 26; one point more than dimensions
    assert "from 17 points on" in counts and counts.endswith("from 27.")
    assert "width 3" in fitted and "proved" in proved


def test_the_watched_run(done: Tour, place: Path) -> None:
    records = read_trace(place / "run.jsonl").records
    near, drift = told(done, "run")
    scalars = [row.scalars for row in records]
    for end in (0, -1):
        assert f"{scalars[end]['fiberscope/sims/nearest_distance']:.2g}" in near
    # neurons 0 and 1 are apart by 1e-6 in three weights: the manifold is sqrt(3) / sqrt(2) of that away
    assert scalars[0]["fiberscope/sims/nearest_distance"] == pytest.approx(1e-6 * 1.5**0.5, rel=1e-6)
    assert scalars[-1]["loss"] < 0.2 * scalars[1]["loss"]
    assert scalars[-1]["fiberscope/laws/ratio"] == pytest.approx(1.0, abs=1e-6) and "1.000 times" in drift


def test_gradients_of_the_watched_run() -> None:
    from fiberscope.cli.chapters import _loss, _start

    rng = np.random.default_rng(4)
    theta, x, y = _start(rng), rng.normal(size=(9, 3)), rng.normal(size=(9, 1))
    _, gradients = _loss(theta, x, y)
    for name, value in theta.items():
        for index in np.ndindex(value.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = value.copy()
                moved[index] += step
                ends.append(_loss({**theta, name: moved}, x, y)[0])
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradients[name][index], abs=1e-7)


# ---- commands


def test_the_commands_shown_print_what_was_told(
    done: Tour, place: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed in the folder of the tour, each gives the same data and exit code."""
    monkeypatch.chdir(place)
    volatile = {"wall_s", "inputs", "path", "version"}
    for row in done.chapters:
        for line, code, data in zip(row.commands, row.codes, row.data, strict=True):
            words = shlex.split(line)[1:]
            if words[0] in ("orbit", "recover", "inspect"):  # slow, or tested above
                continue
            again, out, _ = call(*words, "--json", "--force", "--quiet")
            assert again == code, line
            fresh = json.loads(out)
            same = {key for key in data if key not in volatile and "jtour" not in json.dumps(data[key])}
            for key in same:
                old, new = (json.dumps(value[key]).replace(f"{place}/", "") for value in (data, fresh))
                assert old == new, (line, key)


def test_the_tour_reads_in_a_minute(done: Tour) -> None:
    text = str(done)
    assert len(text.split()) < 500 and text.isascii()
    assert [line for line in text.splitlines() if line[:1].isdigit()] == [
        f"{k}. {plan.title}" for k, plan in enumerate(plans(), 1)
    ]
    assert done.left_out == () and not done.interrupted


def test_hints_name_real_commands(call: Any) -> None:
    for plan in plans():
        words = plan.hint.split()
        group = 2 if words[1] == "meanfield" else 1
        assert call(*words[1 : 1 + group], "--help")[0] == 0
        assert all(word in call(*words[1 : 1 + group], "--help")[1] for word in words if word.startswith("-"))


def test_files_are_those_named(done: Tour, place: Path) -> None:
    assert sorted(map(str, place.iterdir())) == sorted(done.files)
    assert {name for plan in plans() for name in plan.files} == {Path(name).name for name in done.files[1:]}
    assert Path(done.files[0]).name == "report.html"


def test_without_time_the_first_chapter_is_told(call: Any, tmp_path: Path) -> None:
    folder = tmp_path / "tour"
    code, out, err = call("demo", "--out", folder, "--budget", "0")
    assert (code, err) == (0, "") and "1. What is redundant?" in out and "2. " not in out and "left out:" in out
    names = {"report.html", "digits-mlp.safetensors", "small-digits-mlp.safetensors",
             "small-digits-mlp.safetensors.certificate.json"}  # fmt: skip
    assert {path.name for path in folder.iterdir()} == names
    code, _, err = call("demo", "--out", folder, "--budget", "0")
    assert code == 2 and "report.html: exists; use --force" in err
    page = tmp_path / "page.html"
    code, out, _ = call("demo", "--out", folder, "--budget", "0", "--force", "--html", page, "--json")
    data = json.loads(out)
    assert code == 0 and page.is_file() and data["files"][0] == str(page) and len(data["left_out"]) == len(plans()) - 1
    small = folder / "small-digits-mlp.safetensors"
    assert call("check", f"{small}.certificate.json", folder / "digits-mlp.safetensors", small)[0] == 0


def test_interrupted_in_a_chapter_the_ones_before_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called, real = [], tour._called

    def once(words: Any) -> Any:
        called.append(words[0])
        code, data = real(words)
        return (130 if words[0] == "equal" else code), data

    monkeypatch.setattr(tour, "_called", once)
    found = guided_tour(tmp_path / "tour")
    assert found.interrupted and [row.plan.key for row in found.chapters] == ["redundant"]
    assert len(found.left_out) == len(plans()) - 1 and called[-1] == "equal"
    assert (tmp_path / "tour" / "report.html").is_file()


@pytest.mark.parametrize(
    ("value", "down", "up"), [(0.12345, 0.123, 0.124), (0.1, 0.1, 0.1), (1.0001e-8, 1e-8, 1.01e-8)]
)
def test_bounds_are_rounded_outward(value: float, down: float, up: float) -> None:
    assert float(_bound(value, up=False)) == pytest.approx(down, rel=1e-12)
    assert float(_bound({"exact": "?", "float": value}, up=True)) == pytest.approx(up, rel=1e-12)


# ---- the page


def test_the_page_holds_every_chapter(done: Tour) -> None:
    text = Path(done.files[0]).read_text(encoding="utf-8")
    assert len(text.encode()) < 430_000  # about 400 kB, with room for words
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    for number, row in enumerate(done.chapters, 1):
        assert f"{number}. {row.plan.title}</h2>" in text and text.count(f'id="chapter-{row.plan.key}"') == 1
        assert text.count(f'href="#chapter-{row.plan.key}"') == 1
    shown = sum(step.shown for row in done.chapters for step in row.steps)
    assert text.count("<article") == text.count('class="ran"') == shown
    commands = [html.escape(line) for row in done.chapters for line in row.commands]
    assert all(f'data-copy="{line}"' in text for line in commands) and len(set(commands)) == len(commands)


@pytest.fixture
def opened(browser: Any, done: Tour) -> Iterator[Any]:
    """Opens the page offline; afterwards it has asked for nothing else and the console is empty."""
    contexts, faults, requests = [], [], []

    def show(width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(Path(done.files[0]).as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert faults == []
    assert {url.partition("#")[0] for url in requests} == {Path(done.files[0]).as_uri()}


@pytest.mark.browser
def test_a_manifold_can_be_chosen_a_table_filtered_a_film_moved(opened: Any) -> None:
    page = opened()
    sims = page.locator("article", has=page.get_by_role("heading", name="Invariant manifolds of the architecture"))
    first = sims.locator(".kind").first
    first.click()
    assert first.get_attribute("aria-pressed") == "true"
    assert "Dimension 26 of 26" in sims.locator(".details").inner_text()
    sims.locator(".kind").last.click()
    assert "Dimension 1 of 26" in sims.locator(".details").inner_text()

    article = page.locator("article").first
    article.get_by_label("Filter").first.fill("dead")
    rows = article.locator("table.tools").first.locator("tbody tr")
    left = [text for text in rows.locator("visible=true").all_inner_texts()]
    assert 0 < len(left) < rows.count() and all("dead" in text for text in left)

    film = page.locator(".film").first
    slider = film.locator("input[type=range]")
    seen = film.inner_text()
    slider.focus()
    page.keyboard.press("End")
    assert film.inner_text() != seen and "At time 1" in film.inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light_narrow_and_wide(opened: Any, scheme: str) -> None:
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(16, 19, 26)'"
    page = opened(1280, scheme)
    for width in (320, 420, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(dark) is (scheme == "dark")


@pytest.mark.browser
def test_chapters_are_reached_and_printed(opened: Any) -> None:
    page = opened(420)
    page.get_by_role("link", name="What happens at infinite width?").click()
    top = page.locator("#chapter-width").bounding_box
    for _ in range(100):  # it scrolls smoothly
        if abs(top()["y"]) < 200:
            break
        page.wait_for_timeout(50)
    assert abs(top()["y"]) < 200
    page.emulate_media(media="print")
    assert page.pdf().startswith(b"%PDF") and page.locator(".typed button").first.is_hidden()
