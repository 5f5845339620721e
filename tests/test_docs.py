"""The README and the docs say what is true: code runs, commands exist, links lead somewhere, tables are complete."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

import fiberscope
from fiberscope.cli import program, run
from fiberscope.cli.group import leaves
from fiberscope.theorems import REFERENCES, THEOREMS
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
CLAIMS = tomllib.loads((ROOT / "docs" / "theory" / "claims.toml").read_text(encoding="utf-8"))


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for lang, text in FENCE.findall(page.read_text(encoding="utf-8")) if lang in languages]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ```python blocks of a page run in order, in one namespace, in an empty folder.

    On the pages of the tutorial the ```console blocks that show output run between them and have to print it; a command
    may end in a comment "# exit code N".
    """
    languages = ("python", "console") if page.parent.name == "tutorial" else ("python",)
    found = [(lang, text) for lang, text in FENCE.findall(page.read_text(encoding="utf-8")) if lang in languages]
    if not found:
        return
    for framework in re.findall(r"^(?:>>> )?(?:import|from) (jax|torch)\b", "\n".join(text for _, text in found), re.M):
        pytest.importorskip(framework, reason="the page needs a framework that is not installed")
    monkeypatch.chdir(tmp_path)
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
            exec(compile(source, f"{page.name}[{i}]", "exec"), names)
    assert runner.failures == 0 and not said, "\n".join(said)


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
        if page.name in ("quickstart.md", "training.md"):
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
