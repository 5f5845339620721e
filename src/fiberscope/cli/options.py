"""The options that every command has, and the exit codes."""

from __future__ import annotations

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


_COMMON = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text."),
    click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write a self-contained page."),
    click.option(
        "--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS",
        help="Time for each network or run; what is known by then is reported.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of everything random."),
)  # fmt: skip

_NETWORKS = (
    click.option("--part", metavar="NAME", help="Which network of a file that holds several."),
    click.option("--activation", metavar="NAME", help="Hidden activation of files that do not say it."),
    click.option("--allow-opaque", is_flag=True, help="Step over ONNX nodes without a meaning here."),
)

_MANNERS = (
    click.option("--quiet", is_flag=True, help="Nothing on stderr but errors."),
    click.option("--force", is_flag=True, help="Overwrite existing files."),
    click.option(
        "--traceback", is_flag=True, expose_value=False,
        help="Show where an internal error happened (also FIBERSCOPE_TRACEBACK=1).",
    ),
)  # fmt: skip

_DOMAIN = click.option(
    "--domain", metavar="DOMAIN",
    help="Where the function matters: file | everywhere | nonnegative | '[lo,hi]' | FILE.json. "
         "All real inputs by default.",
)  # fmt: skip


def common_options(*, domain: bool = True, networks: bool = True) -> Callable[[F], F]:
    """The options of every command; `domain` for those about a function, `networks` for those that read one."""

    def decorate(function: F) -> F:
        rows = (*((_DOMAIN,) if domain else ()), *_COMMON, *(_NETWORKS if networks else ()), *_MANNERS)
        for row in reversed(rows):
            function = row(function)
        return function

    return decorate
