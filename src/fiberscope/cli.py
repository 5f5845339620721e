"""The command line: parse, call the function of the same name, print, exit with 0, 1, 2, 3, 70 or 130."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from fiberscope._version import __version__
from fiberscope.errors import FiberscopeError, InputError

if TYPE_CHECKING:
    from fiberscope.inspection import Inspection
    from fiberscope.network import Network
    from fiberscope.results import Budget, Progress

F = TypeVar("F", bound=Callable[..., Any])

DONE, NO, BAD_INPUT, UNDECIDED, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130
_WORST_FIRST = (BAD_INPUT, UNDECIDED, NO, DONE)

_EXIT_CODES = """
Exit codes: 0 done or yes; 1 no, or redundant with --fail-on; 2 unusable input or options; 3 undecided; 70 a bug;
130 interrupted, after printing what was proved so far.
"""

_interrupted = False


# ---- shared options


def common_options(*, domain: bool = True) -> Callable[[F], F]:
    """The options every command has, in one place."""
    rows = [
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text."),
        click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write a self-contained page."),
        click.option("--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS",
                     help="Time for each network; what is proved by then is reported."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of everything random."),
        click.option("--part", metavar="NAME", help="Which network of a file that holds several."),
        click.option("--activation", metavar="NAME", help="Hidden activation of files that do not say it."),
        click.option("--allow-opaque", is_flag=True, help="Step over ONNX nodes without a meaning here."),
        click.option("--quiet", is_flag=True, help="No progress on stderr."),
        click.option("--force", is_flag=True, help="Overwrite existing files."),
    ]  # fmt: skip
    if domain:
        rows.insert(2, click.option(
            "--domain", metavar="DOMAIN",
            help="Where the function matters: file | everywhere | nonnegative | '[lo,hi]' | FILE.json. "
                 "All real inputs by default.",
        ))  # fmt: skip

    def decorate(function: F) -> F:
        for row in reversed(rows):
            function = row(function)
        return function

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.version_option(__version__, message="fiberscope %(version)s")
def commands() -> None:
    """Which networks are the same, what an architecture lets training do, and what is redundant in a network."""


# ---- commands


@commands.command(epilog="Example: fiberscope inspect model.onnx --domain '[0,1]' --html report.html")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--fail-on", type=click.Choice(["redundant"]), help="Exit with 1 if a network is redundant (for CI).")
@common_options()
def inspect(paths: tuple[str, ...], fail_on: str | None, **options: Any) -> int:
    """Tell what is redundant in networks, what training can do, and which theorems apply.

    PATHS are files, or folders that are searched for known formats.
    """
    from fiberscope.pages import report

    _refuse_existing(options, options["html"])
    begin, files = time.perf_counter(), _files(paths)
    single = len(files) == 1 and not any(Path(p).is_dir() for p in paths)
    codes, rows, found = [], [], []
    with _progress(options, len(files)) as progress:
        for path in files:
            try:
                result = _inspect_one(path, options, progress)
            except InputError as exc:
                if single:
                    raise
                codes.append(BAD_INPUT)
                rows.append({"path": str(path), "error": str(exc)})
                _line(options, f"{path}: refused: {_after_path(str(exc), path)}")
                continue
            codes.append(NO if fail_on and result.redundant else DONE)
            found.append(result)
            rows.append({"path": str(path), **result.to_dict()})
            if not single:
                _line(options, _summary(path, result))
    if options["html"] and found:
        _write(options["html"], report(*found), options["force"])
    if options["as_json"]:
        body = found[0].to_dict() if single else {"results": rows}
        _print_json("inspect", body, [r.network for r in found], options, begin)
    elif single:
        click.echo(f"{files[0]}\n{found[0]}")
    else:
        many = sum(r.redundant for r in found)
        refused = len(files) - len(found)
        click.echo(f"{len(files)} files: {many} redundant, {len(found) - many} not, {refused} refused")
    return next(code for code in _WORST_FIRST if code in codes)


@commands.command(epilog="Example: fiberscope reduce model.onnx -o small.onnx")
@click.argument("path", type=click.Path())
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Where the smaller network goes.")
@click.option("--certificate", type=click.Path(dir_okay=False), metavar="FILE",
              help="Where the certificate goes (default: OUTPUT.certificate.json).")
@click.option("--exact", "exact_only", is_flag=True, help="Only steps whose weights fit the dtype: nothing is rounded.")
@click.option("--dtype", type=click.Choice(["float16", "float32", "float64"]), help="Of the written weights.")
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.0, metavar="EPS",
              help="Merge near copies while the certified change of every output stays below EPS on the domain.")
@common_options()
def reduce(path: str, output: str | None, certificate: str | None, exact_only: bool, dtype: str | None,
           tolerance: float, **options: Any) -> int:  # fmt: skip
    """Remove neurons without changing the function, with a certificate.

    The written file keeps names, shapes, dtype and metadata of the original. Without -o nothing but the report is
    written.
    """
    from fiberscope.io.reduced import save_reduction
    from fiberscope.reduction import reduce as run
    from fiberscope.pages import report

    proof = certificate or (f"{output}.certificate.json" if output else None)
    _refuse_existing(options, options["html"], output, proof)
    begin, net = time.perf_counter(), _load(path, options)
    with _progress(options, 1) as progress:
        result = run(
            net, options["domain"], tolerance=tolerance, dtype=dtype, exact_only=exact_only, budget=_budget(options),
            progress=progress,
        )  # fmt: skip
    body, text = result.to_dict(), f"{path}\n{result}"
    if output:
        document, copied = save_reduction(result, output, force=options["force"], certificate=certificate)
        kind = "a drop-in for" if copied else "a new file computing the same as"
        text += f"\nwrote {output}: {kind} {path}\nwrote {proof}: checked against both files"
        body["output"] = {"path": output, "drop_in": copied, "certificate": proof, **document.to_dict()["target"]}
    else:
        text += "\nnothing written; add -o FILE"
    if options["html"]:
        _write(options["html"], report(result), options["force"])
    _emit("reduce", body, text, [net], options, begin)
    return DONE


@commands.command(epilog="Example: fiberscope check small.onnx.certificate.json model.onnx small.onnx")
@click.argument("certificate", type=click.Path())
@click.argument("f", type=click.Path())
@click.argument("g", type=click.Path())
@common_options(domain=False)
def check(certificate: str, f: str, g: str, **options: Any) -> int:
    """Check a certificate between two files; exit 0 if it is accepted and 1 if not.

    The checker shares no code with the search that made the certificate.
    """
    from fiberscope.certificates import Certificate
    from fiberscope.certificates import check as run
    from fiberscope.results import Answer

    begin = time.perf_counter()
    nets = [_load(f, options), _load(g, options)]
    verdict = run(Certificate.read(certificate), *nets)
    word = "accepted" if verdict.answer is Answer.YES else "rejected"
    _emit("check", verdict.to_dict(), f"{word}: {verdict.reason}", nets, options, begin)
    return {Answer.YES: DONE, Answer.NO: NO, Answer.UNDECIDED: UNDECIDED}[verdict.answer]


@commands.command("smallest-sim", epilog="Example: fiberscope smallest-sim model.safetensors")
@click.argument("path", type=click.Path())
@common_options(domain=False)
def smallest_sim(path: str, **options: Any) -> int:
    """Find the smallest known invariant manifold of training that contains a network."""
    from fiberscope.invariants import smallest_sim as run

    begin, net = time.perf_counter(), _load(path, options)
    result = run(net)
    _emit("smallest-sim", result.to_dict(), f"{path}\n{result}", [net], options, begin)
    return DONE


@commands.command(epilog="Example: fiberscope cite equitable-sim, or: fiberscope cite result.json")
@click.argument("what", nargs=-1)
@common_options(domain=False)
def cite(what: tuple[str, ...], **options: Any) -> int:
    """Print BibTeX for theorems, or for those a saved JSON result rests on; without arguments list the theorems."""
    from fiberscope.theorems import THEOREMS
    from fiberscope.theorems import cite as run

    begin = time.perf_counter()
    if not what:
        text = "\n".join(f"{t.key}: {t.name}" for t in THEOREMS.values())
        _emit("cite", {"theorems": list(THEOREMS)}, text, [], options, begin)
        return DONE
    keys = [key for word in what for key in _theorem_keys(word)]
    text = run(*keys)
    _emit("cite", {"theorems": keys, "bibtex": text}, text, [], options, begin)
    return DONE


@commands.command(epilog="Example: fiberscope demo --out fiberscope-demo")
@click.option("--out", type=click.Path(file_okay=False), default="fiberscope-demo", show_default=True, metavar="DIR",
              help="Folder for the page, the smaller network and its certificate.")
@common_options(domain=False)
def demo(out: str, **options: Any) -> int:
    """Inspect and reduce the bundled digits network, check the result, and write a page about it."""
    from fiberscope.demo import guided_tour as run

    begin = time.perf_counter()
    with _progress(options, 1) as progress:
        tour = run(out, force=options["force"], budget=_budget(options), progress=progress)
    _emit("demo", tour.to_dict(), str(tour), [], options, begin)
    return DONE


# ---- running


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the codes of `commands`."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one command and return its exit code; errors are one line on stderr."""
    try:
        with _stop_on_interrupt():
            code = commands.main(args=argv, prog_name="fiberscope", standalone_mode=False)
        return INTERRUPTED if _interrupted else int(code or 0)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as exc:
        click.echo(f"error: {exc.format_message()}", err=True)
        return BAD_INPUT
    except InputError as exc:
        click.echo(f"error: {exc}", err=True)
        return BAD_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except FiberscopeError as exc:
        click.echo(f"error: {exc}", err=True)
        return BUG
    except OSError as exc:
        click.echo(f"error: {exc.filename or ''}: {exc.strerror or exc}", err=True)
        return BAD_INPUT
    except Exception as exc:  # noqa: BLE001  # a bare traceback would exit 1 and read as "no"
        click.echo(f"error: {type(exc).__name__}: {exc}: this is a bug in fiberscope, please report it", err=True)
        click.echo(traceback.format_exc(), err=True)
        return BUG


@contextmanager
def _stop_on_interrupt() -> Iterator[None]:
    """The first Ctrl-C ends the search and lets the result be printed; the second one stops at once."""
    global _interrupted
    _interrupted = False

    def stop(*_: Any) -> None:
        global _interrupted
        if _interrupted:
            raise KeyboardInterrupt
        _interrupted = True

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _budget(options: dict[str, Any]) -> Budget:
    from fiberscope.results import Budget

    return Budget(seconds=options["budget"], cancelled=lambda: _interrupted)


@contextmanager
def _progress(options: dict[str, Any], files: int) -> Iterator[Progress | None]:
    """A progress bar on stderr, if that is a terminal, after one second."""
    if options["quiet"] or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    begin = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("working", total=None)
    shown = False

    def update(fraction: float | None, text: str) -> None:
        nonlocal shown
        if not shown and time.monotonic() - begin > 1:
            bar.start()
            shown = True
        bar.update(task, description=text, total=None if fraction is None else 1.0, completed=fraction or 0.0)

    try:
        yield update
    finally:
        if shown:
            bar.stop()


# ---- input and output


def _load(path: str | Path, options: dict[str, Any]) -> Network:
    from fiberscope.io import load

    return load(path, part=options["part"], activation=options["activation"], allow_opaque=options["allow_opaque"])


def _files(paths: Sequence[str]) -> list[Path]:
    from fiberscope.io import FORMATS

    suffixes = {suffix for row in FORMATS for suffix in row.suffixes}
    out: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            out.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in suffixes)
        if not inside:
            raise InputError(f"{path}: no network file in this folder; known are {', '.join(sorted(suffixes))}")
        out.extend(inside)
    return out


def _inspect_one(path: Path, options: dict[str, Any], progress: Progress | None) -> Inspection:
    from fiberscope.inspection import inspect as run

    return run(_load(path, options), options["domain"], budget=_budget(options), progress=progress)


def _summary(path: Path, result: Inspection) -> str:
    before, after = result.network.hidden_count, result.reduction.network.hidden_count
    verdict = f"{before} -> {after} hidden neurons" if result.redundant else f"{before} hidden neurons, none redundant"
    return f"{path}: {result.network.architecture}: {verdict}"


def _after_path(text: str, path: Path) -> str:
    return text.removeprefix(f"{path}: ")


def _line(options: dict[str, Any], text: str) -> None:
    if not options["as_json"]:
        click.echo(text)


def _theorem_keys(word: str) -> list[str]:
    if not word.endswith(".json"):
        return [word]
    try:
        data = json.loads(Path(word).read_text(encoding="utf-8"))
        keys = data["theorems"]
    except FileNotFoundError as exc:
        raise InputError(f"{word}: no such file") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{word}: expected the output of a fiberscope command with --json ({exc})") from exc
    return [str(key) for key in keys]


def _refuse_existing(options: dict[str, Any], *paths: str | None) -> None:
    for path in paths:
        if path and Path(path).exists() and not options["force"]:
            raise InputError(f"{path}: exists; use --force to overwrite it")
        if path and not Path(path).parent.is_dir():
            raise InputError(f"{path}: there is no folder {Path(path).parent}")


def _write(path: str, text: str, force: bool) -> None:
    from fiberscope.io.files import atomic_write

    atomic_write(Path(path), text.encode("utf-8"), force)


def _emit(
    command: str, body: dict[str, Any], text: str, nets: Sequence[Network], options: dict[str, Any], begin: float
) -> None:
    if options["as_json"]:
        _print_json(command, body, nets, options, begin)
    else:
        click.echo(text)


def _print_json(
    command: str, body: dict[str, Any], nets: Sequence[Network], options: dict[str, Any], begin: float
) -> None:
    inputs = [
        {"path": s.path, "sha256": s.sha256, "dtype": s.dtype, "layers": list(net.widths)}
        for net in nets if (s := net.source) is not None
    ]  # fmt: skip
    head = {"schema": f"fiberscope/{command}/1", "version": __version__, "inputs": inputs, "seed": options["seed"]}
    click.echo(json.dumps({**body, **head, "wall_s": time.perf_counter() - begin}, allow_nan=False))
