"""The chapters of a page that tells a story: what is asked, what was found, and which command gave each result."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from fiberscope.pages.markup import Markup, el, pretty
from fiberscope.pages.parts import bullets, command_line


@dataclass(frozen=True)
class Chapter:
    """A heading with its texts, above some of the page's results.

    Args:
        key: a word, for links.
        title: the question in short.
        asked: what is looked at, in a sentence or two.
        found: the answers.
        commands: as they are typed, which gave the results that are shown, one for each.
        before: commands whose results are not shown by themselves.
    """

    key: str
    title: str
    asked: str
    found: tuple[str, ...]
    commands: tuple[str, ...]
    before: tuple[str, ...] = ()


def contents(chapters: Sequence[Chapter]) -> Markup:
    """The list of chapters, each with the first thing that was found."""
    listed = [
        el("li", el("a", chapter.title, href=f"#{_anchor(chapter)}"), el("span", _arrows(chapter.found[0])))
        for chapter in chapters
    ]
    where = el("p", "The commands are those that one types in the folder of the demo.", class_="small")
    return el("nav", el("h2", "Contents"), el("ol", listed), where, class_="card contents", aria_label="Chapters")


def told(chapters: Sequence[Chapter], results: Sequence[Markup]) -> list[Markup]:
    """The chapters in order, with their results below them."""
    waiting = iter(results)
    return [
        el(
            "section", el("h2", f"{number}. {chapter.title}", id=_anchor(chapter), class_="asked"),
            el("p", pretty(chapter.asked), class_="lead"), bullets(map(_arrows, chapter.found), "found"),
            [_command(line) for line in chapter.before],
            [el("div", _command(line), next(waiting), class_="ran") for line in chapter.commands],
            class_="chapter", aria_labelledby=_anchor(chapter),
        )  # fmt: skip
        for number, chapter in enumerate(chapters, 1)
    ]  # fmt: skip


def _arrows(text: str) -> str:
    return pretty(text.replace(" -> ", " \u2192 "))


def _anchor(chapter: Chapter) -> str:
    return f"chapter-{chapter.key}"


def _command(line: str) -> Markup:
    return command_line(*shlex.split(line)[1:])
