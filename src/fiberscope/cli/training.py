"""Commands about training: a page of a watched run, and a linter of starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fiberscope.cli.files import check_format, check_targets, load_network
from fiberscope.cli.group import FILE, PATH, program
from fiberscope.cli.options import DONE, NO, common_options
from fiberscope.cli.output import described, emit, given, put, say
from fiberscope.cli.running import Work, working
from fiberscope.errors import InputError

if TYPE_CHECKING:
    from fiberscope.pages.serving import State
    from fiberscope.training.traces.runs import Trace

OPTIMISERS = (
    "gd", "sgd", "momentum", "nesterov", "clip", "gd+decay", "adam", "adamw", "adam+decay", "rmsprop", "adagrad",
    "sign", "muon",
)  # fmt: skip
"""The rules of `invariants.dynamics.keeping`, named here so that --help need not import them."""


@program.command(
    short_help="A live page of a training run, from its trace or its checkpoints.",
    epilog="Example: fiberscope watch run.jsonl",
)
@click.argument("path", type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 picks a free one.")
@click.option("--open", "browser", is_flag=True, help="Open the page in a browser.")
@click.option("--print", "printed", is_flag=True, help="Print the run and end, without a page.")
@click.option("--activation", metavar="NAME", help="Hidden activation of checkpoints that do not say it.")
@common_options(domain=False, networks=False)
def watch(path: str, port: int, browser: bool, printed: bool, **options: Any) -> int:
    """Show a training run: how near it is to invariant manifolds, dead neurons, drift against the optimiser.

    PATH is a trace that fs.watch(...) writes, or a folder of checkpoints (safetensors, pt, npz). A page on this machine
    follows the run until Ctrl-C; with --json, --html or --print the run so far is written out instead.
    """
    begin = time.perf_counter()
    check_targets(options, reads=[path])
    with working(options) as work, work.progress() as progress:
        found = _run(path, work, options, progress)
    if printed or options["as_json"] or options["html"]:
        emit("watch", found.to_dict(), str(found), [], options, begin)
        return work.code(DONE)
    if work.interrupted:
        say(str(found))
        return work.code(DONE)
    return _served(path, found, port, browser, options, begin)


def _run(path: str, work: Work, options: dict[str, Any], progress: Any) -> Trace:
    if not Path(path).is_dir():
        from fiberscope.io import FORMATS
        from fiberscope.training.traces.reading import read_trace

        if Path(path).is_file() and any(Path(path).suffix.lower() in row.suffixes for row in FORMATS):
            raise InputError(
                f"{path}: is one network; give a trace or a folder of checkpoints, or fiberscope inspect it"
            )
        return read_trace(path)
    from fiberscope.training.traces.checkpoints import trace_of_checkpoints

    try:
        return trace_of_checkpoints(
            path, activation=options["activation"], seed=options["seed"], budget=work.budget, progress=progress
        )
    except InputError as exc:
        traces = sorted(Path(path).glob("*.jsonl"))
        if not traces:
            raise
        raise InputError(f"{exc}; for the trace of a run in it give its file, such as {traces[0]}") from None


def _served(path: str, found: Trace, port: int, browser: bool, options: dict[str, Any], begin: float) -> int:
    """Serve the page until Ctrl-C."""
    from fiberscope.pages.serving import HOST, live_page

    read, look = _source(path, found, options, begin)
    with live_page(read, look, title="fiberscope watch", port=port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        put(f"{str(found).splitlines()[0]}\nlive page: {address} (Ctrl-C ends it)")
        if browser:
            click.launch(address)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            pass  # the way to end it
    return DONE


def _source(
    path: str, first: Trace, options: dict[str, Any], begin: float
) -> tuple[Callable[[], State], Callable[[], Any]]:
    """The newest state of the run, and a cheap look at whether it has changed."""
    from fiberscope.pages.serving import State

    place, ready, asked = Path(path), [first], given()

    def read() -> State:
        begun = begin if ready else time.perf_counter()
        trace = ready.pop() if ready else _run(path, Work({**options, "quiet": True}), options, None)
        steps = [record.step for record in trace.records]
        many = "1 measurement" if len(steps) == 1 else f"{len(steps):,} measurements"
        said = f"step {steps[-1]}, {many}" if steps else "nothing measured yet"
        ended = trace.complete and not place.is_dir()
        return State(described("watch", trace.to_dict(), [], options["seed"], begun, asked), said, ended)

    def look() -> Any:
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        try:
            return [(str(p), s.st_size, s.st_mtime_ns) for p in files for s in [p.stat()]]
        except OSError as exc:  # replaced or removed just now
            return str(exc)

    return read, look


@program.command(
    "lint-init",
    short_help="Is this initialisation trapped on an invariant manifold?",
    epilog="Example: fiberscope lint-init start.safetensors --activation tanh --optimiser adam",
)
@click.argument("path", type=PATH)
@click.option(
    "--optimiser", type=click.Choice(OPTIMISERS), default="sgd", show_default=True,
    help="Which rule will train it: some manifolds are kept by some rules only.",
)  # fmt: skip
@click.option(
    "--tolerance", type=click.FloatRange(min=0), default=0.0, show_default=True,
    help="Also note neurons that differ by less than this part of their size.",
)  # fmt: skip
@click.option(
    "-o", "--output", "out", type=FILE, metavar="FILE", help="Write a start with the smallest change that frees it."
)
@click.option("--fail-on", type=click.Choice(["trapped"]), help="Exit with 1 if the start is trapped (for CI).")
@common_options(domain=False)
def lint_init(path: str, optimiser: str, tolerance: float, out: str | None, fail_on: str | None, **options: Any) -> int:
    """Tell whether a network, as it stands before training, is trapped: it would train like a narrower one.

    Every finding names the invariant manifold, whether the optimiser keeps it, and the smallest change that leaves it.
    """
    from fiberscope.training.lint.linting import lint_init as run

    begin = time.perf_counter()
    check_targets(options, out, reads=[path])
    if out is not None:
        check_format(out)
    net = load_network(path, options)
    with working(options) as work:
        report = run(net, optimiser=optimiser, tolerance=tolerance, seed=options["seed"], budget=work.budget)
    text = f"{path}\n{report}"
    if out is not None:
        text += f"\n{_freed(report, out, options)}"
    emit("lint-init", report.to_dict(), text, [net], options, begin)
    return work.code(NO if fail_on and report.trapped else DONE)


def _freed(report: Any, out: str, options: dict[str, Any]) -> str:
    from fiberscope.io import save

    if not report.trapped:
        raise InputError("the start is not trapped, so there is nothing to free; leave out --output")
    save(report.freed(seed=options["seed"]), out, force=options["force"])
    return f"wrote {out}: the start with these changes, looked at again: not trapped under {report.optimiser}"
