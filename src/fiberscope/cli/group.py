"""The program: the group that all commands belong to."""

from __future__ import annotations

import click

from fiberscope._version import __version__
from fiberscope.cli.options import BAD_INPUT, Shared

_EPILOG = """
Start with: fiberscope demo, or: fiberscope inspect FILE. Each command has its own --help.

Exit codes: 0 done or yes; 1 no, or redundant with --fail-on; 2 unusable input or options; 3 undecided; 70 a bug;
130 interrupted, after printing what was proved so far.
"""

PATH = click.Path()
FILE = click.Path(dir_okay=False)

QUESTIONS = {
    "What is redundant": ("inspect", "reduce", "check"),
    "Which networks are the same": ("equal", "distance", "align", "canonical", "fingerprint", "fiber"),
    "Where training can go": ("sims", "smallest-sim", "orbit", "conserved", "condensation", "lint-init", "watch"),
    "When a target is recovered": (
        "rank", "predict-recovery", "recover", "embed", "strata", "diagonal", "phase-diagram",
    ),
    "Infinite width": ("meanfield",),
    "A tour, and whom to cite": ("demo", "cite"),
}  # fmt: skip
"""The commands by the question that they answer."""


class Command(click.Command):
    """A command whose help shows its own options before those that all commands share."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of one kind below one heading."""
        kinds: dict[str, list[tuple[str, str]]] = {"Options": [], "Networks": [], "Common options": []}
        for row in self.get_params(ctx):
            told = row.get_help_record(ctx) if isinstance(row, click.Option) else None
            if told is not None:
                own = "Common options" if "--help" in row.opts else "Options"
                kinds[row.heading if isinstance(row, Shared) else own].append(told)
        for heading, rows in kinds.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class Group(click.Group):
    """A group whose help lists its commands by question."""

    command_class = Command
    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list for each question; commands of none come last."""
        rest = {name: self.commands[name].get_short_help_str() for name in self.list_commands(ctx)}
        width = max(map(len, rest))
        kinds = {question: [(n, rest.pop(n)) for n in names if n in rest] for question, names in QUESTIONS.items()}
        kinds["Commands"] = list(rest.items())
        for heading, rows in kinds.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl([(name.ljust(width), told) for name, told in rows])


@click.group(
    cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG, invoke_without_command=True,
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
