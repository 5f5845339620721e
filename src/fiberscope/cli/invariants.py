"""Commands about what training can do: orbit, sims, smallest-sim, conserved."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fiberscope.cli.files import check_format, check_targets, in_floats, load_network
from fiberscope.cli.group import FILE, PATH, program
from fiberscope.cli.options import DONE, Number, common_options
from fiberscope.cli.output import emit
from fiberscope.cli.running import working
from fiberscope.errors import InputError

if TYPE_CHECKING:
    from fiberscope.network import Network

_LEVELS = ("exact", "numerical", "approximate")
_WIDTHS = click.option("--widths", metavar="N0,N1,...", help="Widths of an architecture, instead of a file.")


def _widths(text: str) -> tuple[int, ...]:
    """Widths from "3,8,1" or "3-8-1"."""
    try:
        found = tuple(int(part) for part in text.replace("-", ",").split(","))
    except ValueError:
        found = ()
    if len(found) < 2 or min(found) < 1:
        raise InputError(f"--widths {text}: give at least two whole numbers >= 1, such as 3,8,1")
    return found


def _one_source(path: str | None, widths: str | None) -> None:
    if (path is None) == (widths is None):
        seen = "both a file and --widths" if path else "neither a file nor --widths"
        raise InputError(f"{seen}; give one of them")
    if path is not None and re.fullmatch(r"\d+([,-]\d+)+", path) and not Path(path).exists():
        raise InputError(f"{path}: no such file; widths of an architecture are --widths {path}")


def _architecture(widths: str, options: dict[str, Any], *, bias: bool = True) -> Network:
    """A network of this architecture at random parameters."""
    from fiberscope.network import Network

    return Network.random(_widths(widths), activation=_named(options), seed=options["seed"], bias=bias)


def _named(options: dict[str, Any]) -> str:
    """The activation, which an architecture does not say by itself."""
    if not options["activation"]:
        raise InputError("--widths says no activation; add --activation NAME, such as tanh or relu")
    return str(options["activation"])


@program.command(
    short_help="Where training can go from these parameters: the dimension of their orbit.",
    epilog="Examples: fiberscope orbit model.onnx, or: fiberscope orbit --widths 2,5,1 --activation tanh",
)
@click.argument("path", type=PATH, required=False)
@_WIDTHS
@click.option(
    "--at", type=click.Choice(["theta", "generic"]),
    help="The file's own parameters, or generic ones (the default with --widths).",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["auto", "flow", "transport", "exact", "all"]), default="auto", show_default=True,
    help="Which way to compute it; all: every one, to check each other.",
)  # fmt: skip
@click.option(
    "--frozen", multiple=True, metavar="BLOCK", help="Blocks that are not trained, b1,b2 for instance; also repeated."
)
@common_options()
def orbit(path: str | None, widths: str | None, at: str | None, method: str, frozen: tuple[str, ...],
          **options: Any) -> int:  # fmt: skip
    """Find the dimension of the orbit of a network under all gradient fields, for any loss and any data.

    The orbit is what gradient flow can reach from these parameters. A dimension below the number of parameters means
    that training is confined: the upper bound names why.
    """
    from fiberscope.invariants import orbit as run

    begin = time.perf_counter()
    _one_source(path, widths)
    check_targets(options, reads=[path] if path else [])
    if widths is not None and options["domain"]:
        raise InputError("--domain is about a file's own weights; an architecture has none")
    net = _architecture(widths, options) if widths is not None else load_network(str(path), options)
    where = at or ("generic" if widths else "theta")
    if widths and where == "theta":
        raise InputError("--at theta needs a file; an architecture has only generic parameters")
    with working(options) as work, work.progress() as progress:
        blocks = [name for text in frozen for name in text.split(",")]
        result = run(
            net, at=where, method=method, frozen=blocks, domain=options["domain"], seed=options["seed"],
            budget=work.budget, progress=progress,
        )  # fmt: skip
    text = f"{path}\n{result}" if path else str(result)
    emit("orbit", result.to_dict(), text, [net], options, begin)
    return work.code(DONE)


@program.command(
    short_help="All known invariant manifolds of an architecture, with their lattice.",
    epilog="Example: fiberscope sims --widths 3,8,1 --activation tanh --html lattice.html",
)
@click.argument("path", type=PATH, required=False)
@_WIDTHS
@click.option("--no-bias", is_flag=True, help="Hidden layers without biases.")
@click.option("--no-output-bias", is_flag=True, help="The last layer without biases.")
@click.option("--count", "only_count", is_flag=True, help="Numbers only, not the list of types.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=3000, show_default=True, metavar="N",
    help="List the types only if there are at most this many.",
)  # fmt: skip
@common_options(domain=False, search=False)
def sims(path: str | None, widths: str | None, no_bias: bool, no_output_bias: bool, only_count: bool, limit: int,
         **options: Any) -> int:  # fmt: skip
    """List the structural invariant manifolds of an architecture: what gradient flow never leaves.

    Types are up to relabelling neurons (and changing signs); counts are exact. What the list leaves out, and for which
    activations it is complete, is said.
    """
    from fiberscope.invariants import sims as run
    from fiberscope.results import counted

    begin = time.perf_counter()
    _one_source(path, widths)
    check_targets(options, reads=[path] if path else [])
    net = load_network(str(path), options) if path else None
    if net is not None and net.hidden and net.activation is None:
        raise InputError(f"{path}: its hidden layers have different activations; sims needs one")
    shape = net.widths if net is not None else _widths(str(widths))
    row = net.activation if net is not None else None
    name = row if row is not None else "identity" if net is not None and not net.hidden else _named(options)
    result = run(shape, name, bias=not no_bias, output_bias=not no_output_bias, limit=limit)
    body = result.to_dict()
    if only_count:
        for key in ("types", "edges", "lattice"):
            body.pop(key, None)
        many = f"{counted(result.count, 'manifold')} of {counted(result.count_types, 'type')}"
        text = f"{many} ({result.activation}, {result.kind})"
    else:
        text = str(result)
    emit("sims", body, text, [net] if net is not None else [], options, begin)
    return DONE


@program.command(
    "smallest-sim",
    short_help="The smallest known manifold that training cannot leave.",
    epilog="Example: fiberscope smallest-sim model.safetensors --tolerance 1e-3 --html classes.html",
)
@click.argument("path", type=PATH)
@click.option(
    "--tolerance", type=Number(min=0), metavar="EPS",
    help="Also look for neurons that agree up to this relative difference.",
)  # fmt: skip
@click.option(
    "--level", default="exact", show_default=True, metavar="LEVEL",
    help="For --project and --reduced: exact, numerical, approximate, or a number of classes.",
)  # fmt: skip
@click.option("--project", "projected", type=FILE, metavar="FILE", help="Write the nearest network on the manifold.")
@click.option(
    "--reduced", type=FILE, metavar="FILE",
    help="Write the reduced network; its learning-rate multipliers go to FILE.multipliers.json.",
)  # fmt: skip
@common_options(domain=False, search=False)
def smallest_sim(path: str, tolerance: float | None, level: str, projected: str | None, reduced: str | None,
                 **options: Any) -> int:  # fmt: skip
    """Find the smallest known invariant manifold of training that contains a network, and those that are near.

    Neurons of a class move together under gradient flow, whatever the data and the loss. Three levels: exact, up to
    rounding of the file's dtype, and up to --tolerance; the merge tree shows all coarser ones with their distances.
    """
    from fiberscope.invariants import smallest_sim as run
    from fiberscope.io import save

    begin = time.perf_counter()
    table = f"{reduced}.multipliers.json" if reduced else None
    check_targets(options, projected, reduced, table, reads=[path])
    for target in (projected, reduced):
        if target:
            check_format(target)
    if not level.isdecimal() and level not in _LEVELS:
        raise InputError(f"--level {level}: give {', '.join(_LEVELS)}, or a number of classes")
    if level != "exact" and not (projected or reduced):
        raise InputError("--level says what --project and --reduced write; add one of them, or leave it out")
    net = load_network(path, options)
    result = run(net, tolerance)
    chosen: str | int = int(level) if level.isdecimal() else level
    body, text = result.to_dict(), f"{path}\n{result}"
    if projected:
        written, how = in_floats(result.project(level=chosen))
        save(written, projected, force=options["force"])
        text += f"\nwrote {projected}: the nearest network on the manifold ({level}){how}"
    if reduced and table:
        from fiberscope.io.files import atomic_write

        small = result.reduced(chosen)
        written, how = in_floats(small.network)
        save(written, reduced, force=options["force"])
        atomic_write(Path(table), json.dumps(small.to_dict(), allow_nan=False).encode(), options["force"])
        text += f"\nwrote {reduced}: {small.network.architecture}{how}\nwrote {table}: its learning-rate multipliers"
    emit("smallest-sim", body, text, [net], options, begin)
    return DONE


@program.command(
    short_help="Conservation laws of training: how many, which, and why.",
    epilog="Examples: fiberscope conserved model.onnx, or: fiberscope conserved --widths 2,3,1 --activation relu",
)
@click.argument("path", type=PATH, required=False)
@_WIDTHS
@click.option(
    "--dynamics", default="gradient", show_default=True, metavar="NAME",
    help="gradient, heavy_ball[:friction], mirror[:block,block] or mirror_momentum[:block,block].",
)  # fmt: skip
@click.option("--no-bias", is_flag=True, help="Without biases.")
@click.option(
    "--degree", type=click.IntRange(min=0), default=2, show_default=True, metavar="D",
    help="Of the polynomial laws that are searched where the known ones leave some unexplained; 0: none.",
)  # fmt: skip
@common_options()
def conserved(path: str | None, widths: str | None, dynamics: str, no_bias: bool, degree: int, **options: Any) -> int:
    """Count the independent conservation laws of training, for any loss and data, and list the known ones.

    For a ReLU network also those at its own parameters on the domain, each extra one explained: dead units, neurons
    that are never active together, blocks that are always active.
    """
    from fiberscope.invariants import conserved as run

    begin = time.perf_counter()
    _one_source(path, widths)
    if widths and options["domain"]:
        raise InputError("--domain says where a file's own weights are counted; an architecture has none")
    check_targets(options, reads=[path] if path else [])
    net = load_network(str(path), options) if path else None
    here = dynamics == "gradient" or options["domain"] is not None  # only of gradient flow are they counted on a domain
    with working(options) as work:
        if net is not None:
            result = run(
                net, dynamics, bias=not no_bias, domain=net.domain(options["domain"]) if here else None, degree=degree,
                seed=options["seed"], budget=work.budget,
            )  # fmt: skip
        else:
            result = run(
                _widths(str(widths)), dynamics, activation=_named(options), bias=not no_bias,
                degree=degree, seed=options["seed"], budget=work.budget,
            )  # fmt: skip
    text = f"{path}\n{result}" if path else str(result)
    emit("conserved", result.to_dict(), text, [net] if net is not None else [], options, begin)
    return work.code(DONE)
