"""What goes to stdout: text with its sentences wrapped, coloured only for a terminal, or one JSON document."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fiberscope._version import __version__
from fiberscope.cli.files import write_page
from fiberscope.cli.running import in_commands

if TYPE_CHECKING:
    from fiberscope.network import Network

_COLOURS = {
    "EXACT": "green", "INTERVAL": "green", "GENERIC": "cyan", "NUMERICAL": "yellow", "SAMPLED": "yellow",
    "accepted": "green", "rejected": "red", "refused": "red",
}  # fmt: skip
_WIDEST = 100  # sentences are not set wider, however wide the terminal
_PIPED = 120  # where no terminal says how wide it is
_WORDS = re.compile(r"\b(" + "|".join(_COLOURS) + r")\b")
_INTERVAL = re.compile(r"\[[^\s\[\]]{1,24}, [^\s\[\]]{1,24}\]")  # stays on one line
_SHOWN = 2
"""Commands that are proposed below a result."""

_MANNERS = frozenset({"as_json", "html", "quiet", "force"})
"""Options that change nothing in a result."""


def say(text: str) -> None:
    """Print text for people to stdout, in words of the command line, its sentences wrapped."""
    put(_dressed(in_commands(text)))


def put(text: str) -> None:
    """Print to stdout as it is; a reader that has gone away is no error, so that the exit code stays the answer."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dressed(text: str) -> str:
    """Long sentences wrapped, for a terminal words of rigor and verdict coloured unless NO_COLOR is set."""
    terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size().columns, _WIDEST) if terminal else _PIPED
    arguments, spaced = _typed()  # names of files stay on one line, to be copied
    for name in spaced:
        text = text.replace(name, name.replace(" ", "\0"))
    text = _INTERVAL.sub(lambda found: found[0].replace(" ", "\0"), text)
    whole = ("wrote ", *(name.replace(" ", "\0") for name in arguments))
    lines = [piece for line in text.split("\n") for piece in _wrapped(line, width, whole)]
    text = "\n".join(lines).replace("\0", " ")
    if not terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return _WORDS.sub(lambda found: click.style(found[0], fg=_COLOURS[found[0]]), text)


def _typed() -> tuple[list[str], list[str]]:
    """The arguments, and all that was typed with spaces in it, the longest first."""
    context = click.get_current_context(silent=True)
    if context is None:
        return [], []
    rows = [(row, context.params.get(str(row.name))) for row in context.command.params]
    items = [(row, item) for row, value in rows for item in (value if isinstance(value, tuple) else [value])]
    texts = [(isinstance(row, click.Argument), item) for row, item in items if isinstance(item, str) and item]
    arguments = [item for is_argument, item in texts if is_argument]
    return arguments, sorted((item for _, item in texts if " " in item), key=len, reverse=True)


def _wrapped(line: str, width: int, whole: tuple[str, ...]) -> list[str]:
    """The line in pieces; rows of tables and lines that begin with the name of a file stay as they are."""
    body = line.lstrip()
    if len(line) <= width or "  " in body or body.startswith(whole):
        return [line]
    indent = " " * (len(line) - len(body))
    return textwrap.wrap(
        body, max(width, 40), initial_indent=indent, subsequent_indent=indent + "    ", break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def emit(
    command: str, body: Mapping[str, Any], text: str, nets: Sequence[Network], options: Mapping[str, Any], begin: float
) -> None:
    """Print one result, as JSON if asked for, then write its page if asked for.

    Args:
        command: name of the command.
        body: data of the result.
        text: the same for people.
        nets: networks read.
        options: of the command.
        begin: `time.perf_counter()` at its start.
    """
    data = described(command, body, nets, options["seed"], begin)
    if options["as_json"]:
        put(json.dumps(data, allow_nan=False))
    else:
        say(text)
    write_page(options, [data])
    propose(data, options)


def propose(data: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Name on stderr the commands that follow from a result, where a person reads it."""
    if options["as_json"] or options["quiet"] or not (sys.stdout.isatty() and sys.stderr.isatty()):
        return
    from fiberscope.pages.nextsteps import following

    with suppress(BrokenPipeError):
        for step in following(data)[:_SHOWN]:
            click.echo(f"next: {step.line}  # {step.why}", err=True)


def described(
    command: str, body: Mapping[str, Any], nets: Sequence[Network], seed: int, begin: float,
    asked: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The data of a command: what was read and by whom, what was asked, then the fields of the result.

    Args:
        command: name of the command.
        body: data of the result.
        nets: networks read.
        seed: of everything random.
        begin: `time.perf_counter()` at its start.
        asked: what `given` returned, where this thread does not run the command.
    """
    from fiberscope.results import jsonable

    inputs = [
        {"path": s.path, "sha256": s.sha256, "dtype": s.dtype, "layers": list(net.widths), "trained": not net.folded}
        for net in nets if (s := net.source) is not None
    ]  # fmt: skip
    head = {
        "schema": f"fiberscope/{command}/1", "version": __version__, "given": given() if asked is None else asked,
        "inputs": inputs, "seed": seed,
    }  # fmt: skip
    rest = {key: value for key, value in body.items() if key not in head}
    data: dict[str, Any] = jsonable({**head, **rest, "wall_s": time.perf_counter() - begin})
    return data


def given() -> dict[str, Any]:
    """The arguments and options that were typed, by their long names, less defaults and what changes no result."""
    context = click.get_current_context(silent=True)
    if context is None:
        return {}
    typed = {
        row: list(value) if isinstance(value, tuple) else value
        for row in context.command.params
        if (value := context.params.get(str(row.name))) is not None and row.name not in _MANNERS
        and context.get_parameter_source(str(row.name)) is ParameterSource.COMMANDLINE and value != row.default
    }  # fmt: skip
    arguments = [value for row, value in typed.items() if isinstance(row, click.Argument)]
    return {
        "arguments": [name for value in arguments for name in (value if isinstance(value, list) else [value])],
        "options": {row.opts[-1]: value for row, value in typed.items() if isinstance(row, click.Option)},
    }
