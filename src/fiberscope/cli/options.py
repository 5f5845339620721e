"""The options that every command has, and the exit codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DONE, NO, BAD_INPUT, UNDECIDED, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130
_WORST_FIRST = (BAD_INPUT, UNDECIDED, NO, DONE)


EXIT_OF = {"YES": DONE, "NO": NO, "UNDECIDED": UNDECIDED}
"""Exit code of a verdict's answer."""


def worst(codes: list[int]) -> int:
    """The exit code of a batch: 2 before 3 before 1 before 0.

    >>> worst([0, 1, 3, 0])
    3
    """
    return next(code for code in _WORST_FIRST if code in codes)


class Number(click.FloatRange):
    """A number in a range; nan is none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a usage error."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a valid number.", param, ctx)
        return found


class Shared(click.Option):
    """An option of many commands, shown below a heading of its own."""

    heading = "Common options"


class OfNetworks(Shared):
    """An option of every command that reads networks."""

    heading = "Networks"


def output_option(text: str) -> Callable[[F], F]:
    """The option -o FILE, with its help."""
    return click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help=text)


def resume_option(text: str) -> Callable[[F], F]:
    """The option --resume FILE of runs that can be cut off, with its help."""
    return click.option("--resume", type=click.Path(dir_okay=False), metavar="FILE", help=text)


def sweep_options(kept: str, workers: str) -> Callable[[F], F]:
    """The options of a sweep: --resume, whose help is `kept`, --workers, whose default is told, and --cluster."""
    rows = (
        resume_option(kept),
        click.option(
            "--workers", type=click.IntRange(min=1), metavar="N", help=f"Worker processes.  [default: {workers}]"
        ),
        click.option("--cluster", metavar="ADDRESS", help="Dask scheduler to compute on, instead of workers."),
    )

    def decorate(function: F) -> F:
        for row in reversed(rows):
            function = row(function)
        return function

    return decorate


_RESULT = (
    click.option("--json", "as_json", is_flag=True, cls=Shared, help="Print one JSON document instead of text."),
    click.option(
        "--html", type=click.Path(dir_okay=False), cls=Shared, metavar="FILE", help="Write a self-contained page."
    ),
)

_BUDGET = click.option(
    "--budget", type=Number(min=0), default=60, show_default=True, cls=Shared, metavar="SECONDS",
    help="Time for each network or run; what is known by then is reported.",
)  # fmt: skip

_SHORT = click.option(
    "--budget", type=Number(min=0), default=60, cls=Shared, metavar="SECONDS",
    help="Of no effect here, where nothing is searched.",
)  # fmt: skip

_SEED = click.option(
    "--seed", type=click.IntRange(min=0), cls=Shared, default=0, show_default=True, metavar="N",
    help="Seed of everything random.",
)  # fmt: skip

_NETWORKS = (
    click.option("--part", cls=OfNetworks, metavar="NAME", help="Which network of a file that holds several."),
    click.option(
        "--activation", cls=OfNetworks, metavar="NAME", help="Hidden activation of files that do not say theirs."
    ),
    click.option("--allow-opaque", is_flag=True, cls=OfNetworks, help="Step over ONNX nodes without a meaning here."),
)

_MANNERS = (
    click.option("--quiet", is_flag=True, cls=Shared, help="Nothing on stderr but errors."),
    click.option("--force", is_flag=True, cls=Shared, help="Overwrite existing files."),
    click.option(
        "--traceback", is_flag=True, cls=Shared, expose_value=False,
        help="Show where an internal error happened (also FIBERSCOPE_TRACEBACK=1).",
    ),
)  # fmt: skip

_DOMAIN = click.option(
    "--domain", cls=OfNetworks, metavar="DOMAIN",
    help="Where the function matters: file | everywhere | nonnegative | '[lo,hi]' | FILE.json. "
         "All real inputs by default.",
)  # fmt: skip


def common_options(*, domain: bool = True, networks: bool = True, search: bool = True) -> Callable[[F], F]:
    """The options of every command.

    Args:
        domain: whether it is about a function.
        networks: whether it reads networks.
        search: whether the budget ends it.
    """

    def decorate(function: F) -> F:
        common = (*_RESULT, _BUDGET if search else _SHORT, _SEED)
        rows = (*((_DOMAIN,) if domain else ()), *(_NETWORKS if networks else ()), *common, *_MANNERS)
        for row in reversed(rows):
            function = row(function)
        return function

    return decorate
