"""What goes to stdout: text, coloured and wrapped only for a terminal, or one JSON document."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from fiberscope._version import __version__
from fiberscope.cli.files import write_page

if TYPE_CHECKING:
    from fiberscope.network import Network

_COLOURS = {
    "EXACT": "green", "INTERVAL": "green", "GENERIC": "cyan", "NUMERICAL": "yellow", "SAMPLED": "yellow",
    "accepted": "green", "rejected": "red", "refused": "red",
}  # fmt: skip
_WIDEST = 100  # sentences are not set wider, however wide the terminal
_WORDS = re.compile(r"\b(" + "|".join(_COLOURS) + r")\b")


def say(text: str) -> None:
    """Print to stdout; a reader that has gone away is no error, so that the exit code stays the answer."""
    try:
        click.echo(_dressed(text) if sys.stdout.isatty() else text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dressed(text: str) -> str:
    """Long sentences wrapped, words of rigor and verdict coloured unless NO_COLOR is set."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    lines = [piece for line in text.split("\n") for piece in _wrapped(line, width)]
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return "\n".join(lines)
    return _WORDS.sub(lambda found: click.style(found[0], fg=_COLOURS[found[0]]), "\n".join(lines))


def _wrapped(line: str, width: int) -> list[str]:
    body = line.lstrip()
    if len(line) <= width or "  " in body:  # rows of a table stay whole
        return [line]
    indent = " " * (len(line) - len(body))
    return textwrap.wrap(
        body, max(width, 40), initial_indent=indent, subsequent_indent=indent + "    ", break_on_hyphens=False
    )


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
    say(json.dumps(data, allow_nan=False) if options["as_json"] else text)
    write_page(options, [data])


def document(command: str, body: Mapping[str, Any], nets: Sequence[Network], seed: int, begin: float) -> str:
    """The JSON document of a command, as text."""
    return json.dumps(described(command, body, nets, seed, begin), allow_nan=False)


def described(
    command: str, body: Mapping[str, Any], nets: Sequence[Network], seed: int, begin: float
) -> dict[str, Any]:
    """The data of a command: what was read and by whom, then the fields of the result."""
    from fiberscope.results import jsonable

    inputs = [
        {"path": s.path, "sha256": s.sha256, "dtype": s.dtype, "layers": list(net.widths)}
        for net in nets if (s := net.source) is not None
    ]  # fmt: skip
    head = {"schema": f"fiberscope/{command}/1", "version": __version__, "inputs": inputs, "seed": seed}
    rest = {key: value for key, value in body.items() if key not in head}
    data: dict[str, Any] = jsonable({**head, **rest, "wall_s": time.perf_counter() - begin})
    return data
