"""The program: the group that all commands belong to."""

from __future__ import annotations

import click

from fiberscope._version import __version__
from fiberscope.cli.options import BAD_INPUT

_EXIT_CODES = """
Exit codes: 0 done or yes; 1 no, or redundant with --fail-on; 2 unusable input or options; 3 undecided; 70 a bug;
130 interrupted, after printing what was proved so far.
"""

PATH = click.Path()
FILE = click.Path(dir_okay=False)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES, invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
)  # fmt: skip
@click.version_option(__version__, message="fiberscope %(version)s")
@click.pass_context
def program(context: click.Context) -> int | None:
    """Which networks are the same, what an architecture lets training do, and what is redundant in a network."""
    return help_without_command(context)


def help_without_command(context: click.Context) -> int | None:
    """The body of a group: without a command its help on stderr, and exit code 2."""
    if context.invoked_subcommand is not None:
        return None
    click.echo(context.get_help(), err=True)
    return BAD_INPUT


def leaves(group: click.Group = program, words: tuple[str, ...] = ()) -> dict[str, click.Command]:
    """Every command that can be run, by its words: those of a group inside the program come as "group name"."""
    found: dict[str, click.Command] = {}
    for name, command in sorted(group.commands.items()):
        path = (*words, name)
        found |= leaves(command, path) if isinstance(command, click.Group) else {" ".join(path): command}
    return found
