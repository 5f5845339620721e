"""Sphinx configuration: MyST pages, docstrings as they are, and the theorem table of the package."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

from fiberscope import activations, theorems  # noqa: E402
from fiberscope._version import __version__  # noqa: E402

project = "fiberscope"
author = "The fiberscope authors"
copyright = "The fiberscope authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
default_role = "literal"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"fiberscope {version}"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def escape(text: str) -> str:
    """Docstrings are plain text with `code`: keep |x|, a * b and b_ from being read as markup."""
    pieces = re.split(r"(`+[^`]*`+)", text)
    for i in range(0, len(pieces), 2):
        piece = re.sub(r"([|*])", r"\\\1", pieces[i])
        pieces[i] = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", piece)
    return "".join(pieces)


def plain_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape everything but doctests, bullets and formulas: indented paragraphs of the text, which become literal."""
    out: list[str] = []
    in_doctest = in_formula = False
    for i, line in enumerate(lines):
        in_doctest = line.lstrip().startswith(">>>") or (in_doctest and bool(line.strip()))
        indented = line.startswith("    ")
        if indented and i > 1 and not lines[i - 1] and not in_formula and not in_doctest:
            before = next((text for text in reversed(lines[:i]) if text), "")
            if not before.startswith(" ") and not before.startswith("* "):
                in_formula = True
                out += ["::", ""]
        in_formula = in_formula and (indented or not line)
        if in_doctest or in_formula:
            out.append(line)
        else:
            mark = "* " if line.lstrip().startswith("* ") else ""
            indent = line[: len(line) - len(line.lstrip())] + mark if mark else ""
            text = escape(line[len(indent) :])
            # "parameters: M." is no list whose only item has the number M
            out.append(indent + re.sub(r"^(\s*(?:[\w*, ]+: )?)([A-Za-z]\.(?:\s|$))", r"\1\\\2", text))
    lines[:] = out


def code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def read_claims() -> dict[str, dict[str, list[str]]]:
    """What uses and what tests each theorem."""
    return tomllib.loads((HERE / "theory" / "claims.toml").read_text(encoding="utf-8"))


def claim_table(keys: Sequence[str]) -> list[str]:
    """Claim, hypotheses, functions and tests of some theorems."""
    claims = read_claims()
    out = ["| claim | if | function | test |", "|---|---|---|---|"]
    for key in keys:
        theorem, claim = theorems.THEOREMS[key], claims[key]
        tests = "; ".join(test.rpartition("::test_")[2].replace("_", " ") for test in claim["tests"])
        functions = ", ".join(f"`{name.rpartition('.')[2]}`" for name in claim["functions"])
        hypotheses = "; ".join(theorem.hypotheses).replace("|", "\\|")
        out.append(f"| [{theorem.name}](#theorem-{key}) | {hypotheses} | {functions} | {tests} |")
    return out


def theorem_index() -> list[str]:
    """One row for each theorem: what it says, its key, what uses it."""
    claims = read_claims()
    out = ["| claim | key | function |", "|---|---|---|"]
    for key, theorem in theorems.THEOREMS.items():
        functions = code([name.rpartition(".")[2] for name in claims[key]["functions"]])
        out.append(f"| [{theorem.name}](#theorem-{key}) | `{key}` | {functions} |")
    return out


def theorem_page() -> list[str]:
    """Every theorem as Markdown: statement, hypotheses, what uses it, what tests it, references."""
    claims = read_claims()
    out: list[str] = []
    for key, theorem in theorems.THEOREMS.items():
        claim = claims[key]
        out += [f"(theorem-{key})=", f"## {theorem.name}", "", theorem.statement, ""]
        if theorem.hypotheses:
            out += ["Hypotheses:", "", *(f"* {text}" for text in theorem.hypotheses), ""]
        if theorem.note:
            out += [theorem.note, ""]
        out += [f"* Key: `{key}`", f"* Used by: {code(claim['functions'])}", f"* Tested by: {code(claim['tests'])}", ""]
        if theorem.references:
            out += [
                "References: " + ", ".join(f"[{r}](#ref-{r.lower()})" for r in theorem.references) + ".",
                "",
            ]
    out += ["## References", ""]
    for key, entry in theorems.REFERENCES.items():
        out += [
            f"(ref-{key.lower()})=",
            f"**{key}**",
            "",
            "```bibtex",
            *entry.strip().splitlines(),
            "```",
            "",
        ]
    return out


EXAMPLES = {"polynomial": (1, -3, 0, 1)}  # rows whose parameters have no default


def activation_page() -> list[str]:
    """One row for each activation."""
    out = ["| name | s(z) | symmetry | homogeneous | analytic | keeps rationals |", "|---|---|---|---|---|---|"]
    for name in activations.names():
        row = activations.activation(name, *EXAMPLES.get(name, ()))
        degree = "" if row.homogeneity is None else f"degree {row.homogeneity}"
        marks = ["yes" if flag else "" for flag in (row.analytic, row.exact_over_q)]
        formula = row.formula.replace("|", "\\|")
        out.append(f"| `{row.label}` | `{formula}` | {row.parity or ''} | {degree} | {marks[0]} | {marks[1]} |")
    return out


class Activations(SphinxDirective):
    """`{activations}`: the table of `fiberscope.activations`."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(activations.__file__)
        return self.parse_text_to_nodes("\n".join(activation_page()))


class Claims(SphinxDirective):
    """`{claims} key key ...`: claim, hypotheses, functions and tests of these statements."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(HERE / "theory" / "claims.toml"))
        self.env.note_dependency(theorems.__file__)
        return self.parse_text_to_nodes("\n".join(claim_table(self.arguments[0].split())))


class TheoremIndex(SphinxDirective):
    """`{theorem-index}`: a table of all of them."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(HERE / "theory" / "claims.toml"))
        self.env.note_dependency(theorems.__file__)
        return self.parse_text_to_nodes("\n".join(theorem_index()))


class Theorems(SphinxDirective):
    """`{theorems}`: the table `fiberscope.theorems.THEOREMS`, so that the page cannot drift from the code."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(HERE / "theory" / "claims.toml"))
        self.env.note_dependency(theorems.__file__)
        return self.parse_text_to_nodes("\n".join(theorem_page()), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("theorems", Theorems)
    app.add_directive("theorem-index", TheoremIndex)
    app.add_directive("claims", Claims)
    app.add_directive("activations", Activations)
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)
    return {"parallel_read_safe": True}
