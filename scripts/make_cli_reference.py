"""Write docs/reference/cli.md from the help texts of the commands: python scripts/make_cli_reference.py [--check]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "cli.md"
INTRO = """# Command line

<!-- Written by scripts/make_cli_reference.py; do not edit. -->

Each command is one public function of the library. stdout carries the result, stderr progress and messages;
the [exit codes](results.md#exit-codes) are the same for all commands. `python -m fiberscope` is the same program.
"""


def command_group() -> click.Group:
    """The root of the command tree, wherever the module `fiberscope.cli` keeps it."""
    from fiberscope import cli

    groups = [value for value in vars(cli).values() if isinstance(value, click.Group)]
    return max(groups, key=lambda group: len(group.commands))


def page() -> str:
    """The whole page."""
    root = command_group()
    parts = [INTRO, block("fiberscope", root, None)]
    context = click.Context(root, info_name="fiberscope")
    parts += sections(root, context)
    return "\n".join(parts)


def sections(group: click.Group, context: click.Context, words: tuple[str, ...] = ("fiberscope",)) -> list[str]:
    """One section for each command, and for those of a group below it."""
    parts = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            parts += [f"{'#' * (len(words) + 1)} {' '.join((*words, name))}\n", block(name, command, context)]
            if isinstance(command, click.Group):
                inner = click.Context(command, parent=context, info_name=name)
                parts += sections(command, inner, (*words, name))
    return parts


def block(name: str, command: click.Command, parent: click.Context | None) -> str:
    """One help text, set 100 columns wide whatever the terminal."""
    context = command.context_class(
        command,
        parent=parent,
        info_name=name,
        terminal_width=100,
        max_content_width=100,
        color=False,
        **command.context_settings,
    )
    text = "\n".join(line.rstrip() for line in click.unstyle(command.get_help(context)).splitlines())
    return f"```text\n{text}\n```\n"


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is stale; write nothing")
    check = parser.parse_args().check
    text = page()
    if check:
        stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text
        if stale:
            sys.stderr.write("docs/reference/cli.md is stale: run python scripts/make_cli_reference.py\n")
        return int(stale)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
