"""Running a command: exit codes for every outcome, Ctrl-C, the progress bar."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fiberscope.cli.options import BAD_INPUT, BUG, DONE, INTERRUPTED
from fiberscope.errors import InputError

if TYPE_CHECKING:
    from fiberscope.results import Budget, Progress


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of `run`."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # names of files and layers may not fit the terminal's encoding
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for programmers; what matters to a result is in it
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are one line on stderr.

    0 done or yes, 1 no, 2 unusable input or options, 3 undecided, 70 a bug, 130 interrupted.
    """
    from fiberscope.cli import program

    try:
        code = program.main(args=list(argv), prog_name="fiberscope", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except (KeyboardInterrupt, click.Abort):
        return _failed("interrupted before there was a result; no file was begun without being finished", INTERRUPTED)
    except click.UsageError as exc:
        return _failed(f"error: {_misuse(exc)}", BAD_INPUT)
    except click.ClickException as exc:
        return _failed(f"error: {exc.format_message()}", BAD_INPUT)
    except InputError as exc:
        return _failed(f"error: {in_options(str(exc))}", BAD_INPUT)
    except OSError as exc:
        name = f"{exc.filename}: " if exc.filename else ""
        return _failed(f"error: {name}{exc.strerror or exc}", BAD_INPUT)
    except MemoryError:
        return _failed("error: not enough memory for this network", BAD_INPUT)
    except SystemExit:  # so click ends when the reader of its help has gone away
        return DONE
    except Exception as exc:  # a bare traceback would exit 1 and read as "no"
        return _bug(exc, argv)


def _misuse(exc: click.UsageError) -> str:
    """What is wrong with the words of a command, and how they go."""
    said, context = exc.format_message().rstrip("."), exc.ctx
    if context is None:
        return said
    command, path = context.command, context.command_path
    if isinstance(exc, click.NoSuchOption) and isinstance(command, click.Group):
        names = ["inspect", *sorted(command.commands)]
        own = next((name for name in names if _takes(command.commands.get(name), exc.option_name)), None)
        if own is not None:
            return f"{exc.option_name} goes after the command, as in: {path} {own} ... {exc.option_name}"
    if said.startswith("Got unexpected extra argument"):
        said += f"; the command is {path} " + " ".join(command.collect_usage_pieces(context))
    return f"{said} (see {path} --help)"


def _takes(command: click.Command | None, option: str) -> bool:
    return command is not None and any(option in row.opts for row in command.params)


_BESIDE = r" \(\w+=[^()\s]*\)"  # an argument beside the option that is named already
_OPTIONS = (
    (r"\bpass output_bias=True", "add --output-bias"),
    (r"\bpass bias=True", "leave out --no-bias"),
    (r"\bbias=False\b", "--no-bias"),
    (r"\bgive sims\(\.\.\., limit=\.\.\.\)", "give --limit N"),
    (r"\brefine\(\) does, on the command line --refine\b", "--refine does"),
    (r"\brefine\(\)", "--refine"),
    (r"\bmethod='(\w+)'", r"--method \1"),
    (
        "the known ones of a network of any size are those of fiberscope.symmetries.laws",
        "fiberscope inspect shows the known ones of a network of any size",
    ),
    (r"\bsee break_symmetry\b", "fiberscope lint-init FILE -o FREED frees them"),
    (r"\(smallest_sim bounds", "(fiberscope smallest-sim bounds"),
    (r"(statements about the function still hold)$", r"\1; give the file as it was before its export"),
)


def in_options(text: str) -> str:
    """A message of the library, which names arguments of functions, in words of the command line.

    >>> in_options("m.npz: exists; use --force (force=True) to overwrite it")
    'm.npz: exists; use --force to overwrite it'
    """
    return in_commands(re.sub(_BESIDE, "", text))


def in_commands(text: str) -> str:
    """The text of a result, whose advice names arguments and functions, in words of the command line.

    >>> in_commands("no bias; pass output_bias=True")
    'no bias; add --output-bias'
    """
    for pattern, words in _OPTIONS:
        text = re.sub(pattern, words, text)
    return text


def _failed(text: str, code: int) -> int:
    click.echo(" ".join(text.split()), err=True)
    return code


def _bug(exc: Exception, argv: Sequence[str]) -> int:
    wanted = "--traceback" in argv or bool(os.environ.get("FIBERSCOPE_TRACEBACK"))
    hint = "" if wanted else " (--traceback shows where)"
    said = f"{type(exc).__name__}: {exc}".removesuffix(": ")
    if wanted:
        click.echo("".join(traceback.format_exception(exc)), err=True)
    return _failed(f"error: {said}: this is a bug in fiberscope, please report it{hint}", BUG)


class Work:
    """One command's search: its budget, its progress bar, and whether Ctrl-C ended it.

    Args:
        options: of the command.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.interrupted = False
        self._seconds = options["budget"]
        self._quiet = options["quiet"]

    def stop(self, *_: Any) -> None:
        """The first Ctrl-C ends the search and lets the result be printed; the second one stops at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        os.write(2, b"stopping: what is known so far follows; Ctrl-C again stops at once\n")

    @property
    def budget(self) -> Budget:
        """Seconds for one network, none once interrupted."""
        from fiberscope.results import Budget

        return Budget(seconds=self._seconds, cancelled=lambda: self.interrupted)

    def code(self, code: int) -> int:
        """The exit code: `code` unless interrupted."""
        return INTERRUPTED if self.interrupted else code

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """A progress bar on stderr, if that is a terminal, from the second second on."""
        if self._quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        # rich would send stdout to stderr while the bar is shown
        bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        task, begin, shown = bar.add_task("working", total=None), time.monotonic(), False

        def update(fraction: float | None, text: str) -> None:
            nonlocal shown
            bar.update(task, description=text, total=None if fraction is None else 1.0, completed=fraction or 0.0)
            if not shown and time.monotonic() - begin > 1:
                bar.start()
                shown = True

        try:
            yield update
        finally:
            bar.stop()


@contextmanager
def working(options: Mapping[str, Any]) -> Iterator[Work]:
    """Let Ctrl-C end the search inside instead of the program."""
    work = Work(options)
    try:
        before = signal.signal(signal.SIGINT, work.stop)
    except ValueError:  # not in the main thread, which alone gets signals
        yield work
        return
    try:
        yield work
    finally:
        signal.signal(signal.SIGINT, before)
