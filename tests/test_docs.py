"""The README and the docs say what is true: code runs, commands exist, links lead somewhere, tables are complete."""

from __future__ import annotations

import ast
import contextlib
import doctest
import functools
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import click
import numpy as np
import pytest

import fiberscope
from fiberscope.cli import program, run
from fiberscope.cli.group import leaves
from fiberscope.theorems import REFERENCES, THEOREMS
from fiberscope.training import read_trace
from test_layout import DOORS, ORDER

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in p.parts),
]
IDS = [p.relative_to(ROOT).as_posix() for p in PAGES]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEADS = ("| line, from the top |", "| package | door |")
LENIENT = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
OPTIONS = {o for c in leaves().values() for p in c.params for o in (*p.opts, *p.secondary_opts)} | {
    "--help",
    "--version",
}
CLAIMS = tomllib.loads((ROOT / "docs" / "theory" / "claims.toml").read_text(encoding="utf-8"))


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for lang, text in FENCE.findall(page.read_text(encoding="utf-8")) if lang in languages]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ```python blocks of a page run in order, in one namespace, in an empty folder.

    On the pages of the tutorial the ```console blocks that show output run between them and have to print it; a command
    may end in a comment "# exit code N". The networks that `fiberscope demo` leaves in its folder are there.
    """
    languages = ("python", "console") if page.parent.name == "tutorial" else ("python",)
    found = [(lang, text) for lang, text in FENCE.findall(page.read_text(encoding="utf-8")) if lang in languages]
    if not found:
        return
    for framework in re.findall(r"^(?:>>> )?(?:import|from) (jax|torch)\b", "\n".join(text for _, text in found), re.M):
        pytest.importorskip(framework, reason="the page needs a framework that is not installed")
    monkeypatch.chdir(tmp_path)
    for path in (ROOT / "src" / "fiberscope" / "data").glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=LENIENT)
    said: list[str] = []
    for i, (language, source) in enumerate(found):
        if language == "console":
            said += [text for command, shown in sessions(source) for text in unlike(command, shown)]
        elif ">>>" in source:
            test = parser.get_doctest(source, names, f"{page.name}[{i}]", str(page), 0)
            runner.run(test, out=said.append, clear_globs=False)
            names.update(test.globs)
        else:
            names["print"] = functools.partial(untrue, source.splitlines(), said)
            exec(compile(source, f"{page.name}[{i}]", "exec"), names)
    assert runner.failures == 0 and not said, "\n".join(said)


def untrue(lines: list[str], said: list[str], *values: object) -> None:
    """Take the place of `print`: a comment "# 9 of 13: ..." or "# YES, ..." beside it says what is printed."""
    line, shown = lines[sys._getframe(1).f_lineno - 1], " ".join(map(str, values))
    claimed = re.match(r"[(\[]?-?[\d.]+(?:(?:, | of )[\d.]+)*|YES|NO|UNDECIDED|True|False", line.partition("  # ")[2])
    words = re.findall(r"[\d.]+|[A-Za-z]{3,}|NO", claimed[0]) if claimed else []
    if not set(words) <= set(re.findall(r"[\w.]+", shown)):
        said.append(f"{line.strip()}\nprinted {shown}")


def sessions(block: str) -> list[tuple[str, str]]:
    """Commands of a console block with the output below them; none if it shows no output at all."""
    block = block.replace("\\\n", " ")
    found = re.findall(r"^\$ ([^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", block, re.MULTILINE)
    return found if any(shown.strip() for _, shown in found) else []


def unlike(command: str, shown: str) -> list[str]:
    """Run a fiberscope command of a page: what it printed or returned, if that is not what the page says."""
    words = shlex.split(command, comments=True)
    assert words[0] == "fiberscope", f"{command}: only fiberscope commands may show output here"
    code = re.search(r"# exit code (\d+)$", command)
    wanted = int(code[1]) if code else 0
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        got = run(words[1:])
    alike = doctest.OutputChecker().check_output(shown, out.getvalue(), LENIENT)
    if got == wanted and alike:
        return []
    return [f"$ {command}\nexit code {got}, shown {wanted}\n{out.getvalue()}{err.getvalue()}\nshown:\n{shown}"]


def commands(page: Path) -> list[str]:
    found = []
    for block in blocks(page, "console", "sh", "bash"):
        joined = block.replace("\\\n", " ")
        found += [m.group(1) for m in re.finditer(r"^(?:\$ )?(fiberscope [^\n]*)$", joined, re.MULTILINE)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_shown_exist_with_their_options(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        words = words[: next((i for i, w in enumerate(words) if w in ("|", ">", "&&", "||", ";")), len(words))]
        named = [w for w in words if not w.startswith("-")]
        command: click.Command | None = program
        while named and isinstance(command, click.Group):
            command = command.commands.get(named.pop(0))
        assert command is not None, f"{line}: no such command"
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "--version"}
        used = {w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)}
        assert used <= known, f"{line}: unknown {sorted(used - known)}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_names_in_the_text_exist(page: Path) -> None:
    """`fiberscope equal F G --domain BOX`, `fs.fiber(net)`: commands have their options, names lead somewhere."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        words = code.split()
        if words[0] == "fiberscope" and len(words) > 1:
            for word in [w for w in words if re.match(r"--[a-z]", w)]:
                assert word in OPTIONS, f"{code}: no command has {word}"
            named = next((name for name in (" ".join(words[1:3]), words[1]) if name in leaves()), words[1])
            assert words[1].startswith("-") or named in leaves() or named in program.commands, code
        elif words[0].startswith("--"):
            assert words[0].partition("=")[0] in OPTIONS, f"{code}: no command has it"
        elif words[0] == "python" and words[1].endswith(".py"):
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            assert [w for w in words[2:] if w.startswith("--") and f'"{w}"' not in script] == [], code
        elif re.match(r"(fs|fiberscope)\.\w", code):
            owner, _, name = re.split(r"[^\w.]", code)[0].rstrip(".").rpartition(".")
            assert name in dir(found(owner)) or found(f"{owner}.{name}") is not None, code


def found(dotted: str) -> object:
    """What a dotted name of the package stands for."""
    first, *parts = dotted.rstrip(".").split(".")
    thing: Any = fiberscope
    assert first in ("fs", "fiberscope"), dotted
    for part in parts:
        try:
            thing = getattr(thing, part)
        except AttributeError:
            try:
                thing = importlib.import_module(f"{thing.__name__}.{part}")
            except ModuleNotFoundError:
                raise AssertionError(f"{dotted} does not exist") from None
    return thing


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_code_hides_from_the_tests(page: Path) -> None:
    """Python stands in blocks that run: ```python, or ```py where the reader's own names are needed."""
    for text in blocks(page, "text", "pycon", "ipython"):
        assert not re.search(r"^\s*(import |from \w+ import|>>> |(\w+ = )?fs\.\w+\()", text, re.M), (
            f"{page.name}: {text[:60]}"
        )
    if page.name not in ("README.md", "invariant.md", "watch.md", "training.md"):
        assert not blocks(page, "py")


def dense(torch: Any) -> dict[str, Any]:
    """What a reader has who trains a torch module."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    x, y = torch.randn(32, 3), torch.randn(32, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = [(x, y)] * 20
    return {"model": model, "x": x, "y": y, "batches": batches, "optimizer": optimizer, "loss_of": torch.nn.MSELoss()}


def flax(jax: Any) -> dict[str, Any]:
    """What a reader has who trains in JAX."""

    class model:
        @staticmethod
        def apply(params: Any, x: Any) -> Any:
            return jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"]) @ params["b"]["kernel"]

    def update(params: Any, state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: (model.apply(p, batch) ** 2).mean())(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), state, grads, loss

    rng = np.random.default_rng(0)
    kernels = {"a": {"kernel": rng.normal(size=(3, 4)), "bias": np.zeros(4)}, "b": {"kernel": rng.normal(size=(4, 2))}}
    params = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype="float32"), kernels)
    x = jax.numpy.asarray(rng.normal(size=(32, 3)), dtype="float32")
    return {"model": model, "params": params, "opt_state": (), "update": update, "x": x, "batches": [x] * 5}


def trainers(torch: Any) -> dict[str, Any]:
    """Trainers that take callbacks and train nothing."""

    class Model:
        def fit(self, *args: object, callbacks: list[object]) -> None:
            assert len(callbacks) == 1

    def trainer(*args: object, callbacks: list[object], **more: object) -> None:
        assert len(callbacks) == 1

    return {**dense(torch), "model": Model(), "Trainer": trainer, "arguments": 0, "data": 0, "batch_of_inputs": {}}


def doors(jax: Any) -> dict[str, Any]:
    return {"jax": jax, "W": np.ones((2, 2)), "v": np.ones(2)}


def module(torch: Any) -> dict[str, Any]:
    return {"module": dense(torch)["model"], "examples": np.ones((4, 3))}


FRAGMENTS = [  # page, number of the block, what it needs, the reader's names made from the first of that
    ("README.md", 0, ("torch",), dense),
    ("docs/howto/watch.md", 0, ("torch",), dense),
    ("docs/howto/watch.md", 1, ("torch", "lightning", "transformers", "keras"), trainers),
    ("docs/howto/watch.md", 2, ("jax",), flax),
    ("docs/howto/invariant.md", 0, ("jax",), doors),
    ("docs/howto/invariant.md", 1, ("torch",), module),
]


@pytest.mark.parametrize(("page", "number", "needs", "reader"), FRAGMENTS)
def test_fragments_run_with_the_names_of_a_reader(
    page: str,
    number: int,
    needs: tuple[str, ...],
    reader: Callable[[Any], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    frameworks = [pytest.importorskip(name, reason=f"{name} is not installed") for name in needs]
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", "fs": fiberscope, **reader(frameworks[0])}
    exec(compile(blocks(ROOT / page, "py")[number], f"{page}[{number}]", "exec"), names)
    if "watcher" in names:
        assert read_trace("run.jsonl").records[-1].step > 0  # the end was measured


def test_every_fragment_is_run() -> None:
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        if page.name != "training.md":  # tests/test_tutorial_training.py
            assert [row[1] for row in FRAGMENTS if row[0] == name] == list(range(len(blocks(page, "py")))), name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_every_page_is_in_a_toctree() -> None:
    docs = ROOT / "docs"
    listed = set()
    for page in PAGES:
        for toc in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            entries = [line.strip() for line in toc.splitlines() if line.strip() and not line.startswith(":")]
            listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    pages = {p.resolve() for p in docs.rglob("*.md") if "_build" not in p.parts} - {(docs / "index.md").resolve()}
    assert pages == listed


def test_readme_is_short_and_in_order() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = ["# fiberscope", "```console\n$ fiberscope", "![", "## Install", "## In Python", "## What is proved"]
    places = [text.index(part) for part in [*parts, "## Limits", "## Citation"]]
    assert places == sorted(places) and len(re.findall(r"\S+", text[: places[1]])) < 40
    (example,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in example.splitlines() if line.strip()]) == 8


def test_readme_shows_exactly_two_run_commands() -> None:
    shown = re.findall(r"^\$? ?(\./run \S+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == ["./run demo", "./run test"]


def test_pages_name_no_private_place() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|tmp|root|home)/", page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("script", ["make_cli_reference.py", "refresh_readme.py"])
def test_generated_text_is_fresh(script: str) -> None:
    clean = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, ROOT / "scripts" / script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help_and_an_example() -> None:
    for name, command in leaves().items():
        text = command.get_help(click.Context(command, info_name=name))
        assert command.help, name
        assert f"fiberscope {name}" in text, f"{name} --help shows no example"


def test_every_public_name_is_in_the_api_page() -> None:
    api = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    missing = [name for name in fiberscope.__all__ if not name.startswith("_") and not re.search(rf"\b{name}\b", api)]
    assert missing == []


def documented() -> Iterator[object]:
    """The objects that the pages of the reference describe from their docstrings."""
    for page in ("api.md", "parts.md"):
        text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
        for dotted, options in re.findall(r"^\.\. auto(?:function|class):: (\S+)\n((?:   :.*\n)*)", text, re.M):
            thing = found(dotted)
            yield thing
            members = re.search(r":members: *(\S.*)", options)
            yield from (found(f"{dotted}.{name.strip()}") for name in (members[1].split(",") if members else []))


INTERNAL = {"AngleRun", "Batch", "Flow", "Frame", "Kind", "Optimiser", "Parameters", "Path", "Profile", "Ring", "Start"}
INTERNAL |= {
    "State",
    "Tensor",
    "Theta",
    "Weight",
    "AffineFields",
    "ClassRules",
    "FixedSpaces",
    "Journal",
    "Nilpotent",
    "Outcome",
}
"""Classes that share their names with types of Python or of a framework, or are of no use to a reader."""


def test_every_class_that_a_documented_name_gives_is_documented() -> None:
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "src" / "fiberscope").rglob("*.py")]
    classes = {name for text in sources for name in re.findall(r"^class ([A-Z]\w*)", text, re.M)}
    things = list(documented())
    named = {thing.__name__ for thing in things if isinstance(thing, type)}
    missing = {}
    for thing in things:
        function = thing.fget if isinstance(thing, property) else thing
        for where, kind in getattr(function, "__annotations__", {}).items():
            if where == "return" or not isinstance(function, FunctionType):
                for name in set(re.findall(r"\b[A-Z]\w+", str(kind))) & classes - named - set(INTERNAL):
                    missing[name] = f"{getattr(function, '__qualname__', function)}: {where}"
    assert missing == {}


def test_example_of_a_certificate_is_one() -> None:
    """The JSON document at the end of the page on certificates is what `reduce` writes for its two networks."""
    (text,) = blocks(ROOT / "docs" / "reference" / "certificates.md", "json")
    shown = json.loads(text)
    f = fiberscope.Network.from_arrays(([[1.0], [2.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    g = fiberscope.Network.from_arrays(([[1.0]], [0.0]), ([[3.0]], [0.0]))
    shown["source"]["digest"], shown["target"]["digest"] = f.digest, g.digest
    assert fiberscope.check(fiberscope.Certificate.from_dict(shown), f, g).answer is fiberscope.Answer.YES
    written = fiberscope.reduce(f).certificate.to_dict()
    assert shown["steps"][0] in written["steps"] and set(written) == set(shown)


def test_example_of_a_json_document_has_the_keys_of_one(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "reference" / "results.md", "json")
    shown = json.loads(text)
    net = fiberscope.Network.from_arrays(([[1.0]], [0.0]), ([[3.0]], [0.0]))
    fiberscope.save(net, tmp_path / "net.npz")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run(["inspect", str(tmp_path / "net.npz"), "--json"]) == 0
    document = json.loads(out.getvalue())
    assert [key for key in document if key in shown] == list(shown)
    assert set(shown["inputs"][0]) <= set(document["inputs"][0])
    assert (document["schema"], document["version"]) == (shown["schema"], shown["version"])


def test_formats_page_lists_every_ending_and_operation() -> None:
    from fiberscope.io import FORMATS, onnx_activations, onnx_ops, onnx_shapes

    text = (ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    assert [s for row in FORMATS for s in row.suffixes if f"`{s}`" not in text] == []
    operations = [*onnx_ops.AFFINE, *onnx_activations.ACTIVATIONS, *onnx_shapes.SHAPES]
    assert [op for op in operations if not re.search(rf"\b{op}\b", text)] == []


def test_every_theorem_has_a_claim_and_a_reference() -> None:
    assert set(CLAIMS) == set(THEOREMS)
    for theorem in THEOREMS.values():
        assert set(theorem.references) <= set(REFERENCES)


@pytest.mark.parametrize("key", sorted(CLAIMS))
def test_claims_name_functions_and_tests_that_exist(key: str) -> None:
    claim = CLAIMS[key]
    assert claim["functions"] and claim["tests"]
    for dotted in claim["functions"]:
        obj: object = fiberscope
        for part in dotted.split(".")[1:]:
            try:
                obj = getattr(obj, part)
            except AttributeError:
                obj = importlib.import_module(f"{obj.__name__}.{part}")  # type: ignore[attr-defined]
        assert callable(obj), dotted
    for node in claim["tests"]:
        file, _, name = node.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        assert name in functions, node


def test_every_theorem_is_shown_on_a_theory_page() -> None:
    shown = [re.findall(r"^```\{claims\} (.*)$", p.read_text(encoding="utf-8"), re.M) for p in PAGES]
    named = {key for lines in shown for line in lines for key in line.split()}
    assert named == set(THEOREMS)


def test_choose_page_names_every_command() -> None:
    text = (ROOT / "docs" / "howto" / "choose.md").read_text(encoding="utf-8")
    assert [name for name in leaves() if not re.search(rf"`{name}[` ]", text)] == []


def test_design_page_shows_the_layers_and_doors_that_are_enforced() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = {head: re.findall(r"^\| (.*?) \|.*$", text.partition(head)[2].partition("\n\n")[0], re.M) for head in HEADS}
    lines = [tuple(re.findall(r"`(\w+)`", row)) for row in rows[HEADS[0]] if "`" in row]
    assert lines == [line for line in ORDER if not line[0].startswith("_")]
    assert {name for row in rows[HEADS[1]] for name in re.findall(r"`(\w+)`", row)} == set(DOORS)


def test_tutorials_say_what_they_teach_and_what_is_proved() -> None:
    for page in sorted((ROOT / "docs" / "tutorial").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if page.name == "quickstart.md":
            continue
        assert "**You will learn**" in text and "**Next:**" in text, page.name
        assert "## What is proved, and what is not" in text, page.name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built strictly."""
    pytest.importorskip("sphinx", reason="the documentation needs Sphinx")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.rglob("*.html"))) > 30
    return folder


@pytest.mark.slow
def test_built_pages_name_nothing_to_load_from_outside(site: Path) -> None:
    loads = re.compile(r"""<(?:script|img|iframe|source|video|object|embed)\b[^>]*?(?:src|data)=["'](?:https?:)?//""")
    styles = re.compile(
        r"""<link\b(?=[^>]*rel=["'](?:stylesheet|preload|preconnect|icon))[^>]*href=["'](?:https?:)?//"""
    )
    fetches = re.compile(r"""(?:url\(|@import\s*)["']?(?:https?:)?//""")
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not loads.search(text) and not styles.search(text), page.name
    for sheet in site.rglob("*.css"):
        assert not fetches.search(sheet.read_text(encoding="utf-8")), sheet.name


@pytest.mark.slow
def test_docstrings_are_no_accidental_markup(site: Path) -> None:
    for name in ("api", "parts"):
        text = (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
        article = text[text.index("<article") : text.index("</article>")]
        for mark in ("<ol", "<blockquote", "problematic", "system-message"):
            assert mark not in article, f"{name}: {re.sub('<[^>]+>', '', article.partition(mark)[0])[-80:]}"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_built_pages_fit_and_ask_nothing_from_outside(site: Path, browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for built in sorted(site.rglob("*.html")):
        page.goto(built.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, built.name
    page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
