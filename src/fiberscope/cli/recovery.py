"""Commands about finding a target: ranks and sample counts, recovery, embeddings, strata, phase diagrams."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fiberscope.cli.files import check_format, check_targets, in_floats, load_network, network_files, read_data
from fiberscope.cli.group import FILE, PATH, program
from fiberscope.cli.options import DONE, common_options, output_option, sweep_options
from fiberscope.cli.output import emit
from fiberscope.cli.running import working
from fiberscope.errors import InputError

if TYPE_CHECKING:
    from fiberscope.network import Network

F = TypeVar("F", bound=Callable[..., Any])

_NO_BIAS = click.option("--no-bias", is_flag=True, help="Hidden biases are not trained.")
_OUTPUT_BIAS = click.option("--output-bias", is_flag=True, help="Train output biases too.")
_LIKE_TARGET = click.option(
    "--output-bias", is_flag=True, help="Train output biases too; so it is where the target has some."
)


def _listed(name: str, metavar: str, text: str, default: str | None = None) -> Callable[[F], F]:
    """An option that takes several numbers with commas between them; needed unless it has a default."""
    if default is None:
        return click.option(name, required=True, metavar=metavar, help=text)
    return click.option(name, default=default, show_default=True, metavar=metavar, help=text)


def _with_output_bias(net: Network, wanted: bool) -> bool:
    """Whether output biases are trained: where it is asked for, or the target has some."""
    return wanted or bool((net.layers[-1].bias != 0).any())


def _numbers(name: str, text: str) -> list[int]:
    """Whole numbers from "1,2,5" or "1-4"."""
    try:
        if "-" in text and "," not in text:
            first, last = text.split("-")
            found = list(range(int(first), int(last) + 1))
        else:
            found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found:
        raise InputError(f"{name} {text}: give whole numbers, such as 1,2,4 or 1-4")
    return found


def _floats(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{name} {text}: give numbers, such as 1e-10,1e-2,1") from None


def _network(path: str, options: dict[str, Any]) -> Network:
    check_targets(options, reads=[path])
    return load_network(path, options)


@program.command(
    short_help="The dimension of the span of all parameter derivatives.",
    epilog="Example: fiberscope rank model.safetensors",
)
@click.argument("path", type=PATH)
@click.option(
    "--method", type=click.Choice(["auto", "exact", "svd"]), default="auto", show_default=True,
    help="Insist on rational arithmetic, or on singular values.",
)  # fmt: skip
@_NO_BIAS
@click.option("--no-output-bias", is_flag=True, help="Output biases are not trained.")
@common_options(domain=False, search=False)
def rank(path: str, method: Any, no_bias: bool, no_output_bias: bool, **options: Any) -> int:
    """Find the rank of the tangent functions of a network: how many parameters its function can feel.

    Exact for two-layer networks with common activations; by singular values, with their gap, for others.
    """
    from fiberscope.invariants.recovery import model_rank as run

    begin = time.perf_counter()
    net = _network(path, options)
    result = run(net, method=method, bias=not no_bias, output_bias=not no_output_bias, seed=options["seed"])
    emit("rank", result.to_dict(), f"{path}\n{result}", [net], options, begin)
    return DONE


@program.command(
    "predict-recovery",
    short_help="How many samples until interpolation means recovery, on each invariant manifold.",
    epilog="Example: fiberscope predict-recovery target.safetensors --widths 9",
)
@click.argument("path", type=PATH)
@_listed("--widths", "M[,M...]", "Hidden widths of the network to be trained.")
@_NO_BIAS
@_LIKE_TARGET
@common_options(domain=False, search=False)
def predict_recovery(path: str, widths: str, no_bias: bool, output_bias: bool, **options: Any) -> int:
    """List the invariant manifolds of a wider network that hold a target network, and their sample counts."""
    from fiberscope.invariants.recovery import predict_recovery as run

    begin = time.perf_counter()
    net = _network(path, options)
    counts = _numbers("--widths", widths)
    result = run(
        net, counts[0] if len(counts) == 1 else counts, bias=not no_bias,
        output_bias=_with_output_bias(net, output_bias),
    )  # fmt: skip
    emit("predict-recovery", result.to_dict(), f"{path}\n{result}", [net], options, begin)
    return DONE


@program.command(
    short_help="The narrowest network that explains data exactly, or that none tried does.",
    epilog="Example: fiberscope recover data.csv --widths 1-4 -o found.safetensors",
)
@click.argument("path", type=PATH)
@_listed("--widths", "R[,R...]", "Numbers of classes of neurons to try, or FIRST-LAST.")
@click.option("--wide", type=click.IntRange(min=1), metavar="M", help="Width of the network whose manifolds they are.")
@click.option(
    "--noise", type=click.Choice(["held-out", "bic"]),
    help="Where nothing is recovered, choose a width by this.",
)  # fmt: skip
@click.option("--starts", type=click.IntRange(min=0), default=512, show_default=True, help="Of the search on a rung.")
@_NO_BIAS
@_OUTPUT_BIAS
@output_option("Where the recovered network goes.")
@common_options(domain=False, networks=False)
@click.option("--activation", default="tanh", show_default=True, metavar="NAME", help="Hidden activation.")
def recover(path: str, widths: str, wide: int | None, noise: Any, starts: int, no_bias: bool, output_bias: bool,
            output: str | None, activation: str, **options: Any) -> int:  # fmt: skip
    """Climb the ladder of invariant manifolds until one interpolates the data.

    PATH is a .csv or .txt table, the label in the last column, or an .npz file with X and y. With more samples than
    dimensions of the manifold, interpolation is the criterion of recovery (generic, in floating point; no proof).
    """
    from fiberscope.invariants.recovery import recover as run
    from fiberscope.io import save

    begin = time.perf_counter()
    check_targets(options, output, reads=[path])
    if output:
        check_format(output)
    data = read_data(path)
    with working(options) as work, work.progress() as progress:
        result = run(
            data, _numbers("--widths", widths), activation=activation, wide=wide, bias=not no_bias,
            output_bias=output_bias, starts=starts, seed=options["seed"], noise=noise, budget=work.budget,
            progress=progress,
        )  # fmt: skip
    text = f"{path}\n{result}"
    if output and result.network is not None:
        save(result.network, output, force=options["force"])
        text += f"\nwrote {output}: {result.network.architecture}"
    emit("recover", result.to_dict(), text, [], options, begin)
    return work.code(DONE)


@program.command(
    short_help="Grow a network without changing its function or its critical points.",
    epilog="Example: fiberscope embed model.safetensors --widths 20,20 -o wider.safetensors",
)
@click.argument("path", type=PATH)
@_listed("--widths", "M1[,M2...]", "Hidden widths, none smaller than before.")
@click.option(
    "--how", type=click.Choice(["split", "null", "mixed", "compatible"]), default="split", show_default=True,
    help="Copies, neurons that read and send nothing, both, or a random compatible embedding.",
)  # fmt: skip
@output_option("Where the wider network goes.")
@common_options(domain=False, search=False)
def embed(path: str, widths: str, how: str, output: str | None, **options: Any) -> int:
    """Embed a network into a wider one with exactly the same function.

    Copies never separate by themselves: they lie on an invariant manifold, whose dimension is shown.
    """
    from fiberscope.invariants.recovery import embed as run
    from fiberscope.io import save

    begin = time.perf_counter()
    check_targets(options, output, reads=[path])
    if output:
        check_format(output)
    net = load_network(path, options)
    result = run(net, _numbers("--widths", widths), how=how, seed=options["seed"])
    text = f"{path}\n{result}"
    if output:
        wide, how = in_floats(result.network, net.dtype)
        save(wide, output, force=options["force"])
        text += f"\nwrote {output}: {wide.architecture}{how}"
    emit("embed", result.to_dict(), text, [net], options, begin)
    return DONE


@program.command(
    short_help="All exact fits of a target by a wider two-layer network: branches, dimensions, thresholds.",
    epilog="Example: fiberscope strata --width 9 --target-width 3 --inputs 5 --activation softplus",
)
@click.option("--width", type=click.IntRange(min=1), required=True, metavar="M", help="Hidden neurons.")
@click.option(
    "--target-width", type=click.IntRange(min=1), required=True, metavar="M0", help="Hidden neurons of the target."
)
@click.option("--inputs", type=click.IntRange(min=1), required=True, metavar="D", help="Number of inputs.")
@click.option("--bias", is_flag=True, help="Hidden neurons have biases.")
@click.option("--activation", metavar="NAME", help="Check its hypotheses, and use its parity.")
@common_options(domain=False, networks=False, search=False)
def strata(width: int, target_width: int, inputs: int, bias: bool, activation: str | None, **options: Any) -> int:
    """Count the branches of the set of exact fits, with the samples from which each is separated."""
    from fiberscope.invariants.recovery import strata as run

    begin = time.perf_counter()
    check_targets(options)
    if width < target_width:
        raise InputError(f"--width {width} is below --target-width {target_width}; give at least as many neurons")
    result = run(width, target_width, inputs, bias=bias, activation=activation)
    emit("strata", result.to_dict(), str(result), [], options, begin)
    return DONE


@program.command(
    short_help="Diagonal linear networks from infinitesimal initialisation: the stages, exactly.",
    epilog="Example: fiberscope diagonal data.csv --depth 2 --flow --scales 1e-1000",
)
@click.argument("path", type=PATH)
@click.option(
    "--depth", type=click.IntRange(min=2), default=2, show_default=True, metavar="L", help="Number of factors."
)
@click.option("--flow", is_flag=True, help="Also integrate the flow at the scales.")
@click.option("--scales", metavar="S[,S...]", help="Scales of initialisation, such as 1e-30,1e-1000.")
@click.option("--floats", is_flag=True, help="Stages in float64, for hundreds of features.")
@common_options(domain=False, networks=False)
def diagonal(path: str, depth: int, flow: bool, scales: str | None, floats: bool, **options: Any) -> int:
    """Find the sequence of saddles that gradient flow visits and where it ends: a weighted l1 minimiser.

    PATH is a .csv or .txt table, the label in the last column, or an .npz file with X and y.
    """
    from fiberscope.invariants.recovery import diagonal as run

    begin = time.perf_counter()
    if scales and not flow:
        raise InputError("--scales is about the flow; add --flow")
    check_targets(options, reads=[path])
    features, labels = read_data(path)
    with working(options) as work, work.progress() as progress:
        result = run(
            features, labels, depth=depth, mode="flow" if flow else "limit", exact=not floats,
            scales=[part.strip() for part in scales.split(",")] if scales else (), budget=work.budget,
            progress=progress,
        )  # fmt: skip
    emit("diagonal", result.to_dict(), f"{path}\n{result}", [], options, begin)
    return work.code(DONE)


@program.command(
    "phase-diagram",
    short_help="How often training finds a target, over samples, widths and scales of initialisation.",
    epilog="Example: fiberscope phase-diagram target.safetensors --samples 20-60 --widths 9 --resume runs.jsonl",
)
@click.argument("path", type=PATH)
@_listed("--samples", "N[,N...]", "Numbers of training points, or FIRST-LAST.")
@_listed("--widths", "M[,M...]", "Numbers of hidden neurons, or FIRST-LAST.")
@_listed("--scales", "S[,S...]", "Scales of the first weights.", "1e-10")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=8, show_default=True, metavar="K",
    help="Starts from which each cell is trained: --seed and the K - 1 numbers after it.",
)  # fmt: skip
@_NO_BIAS
@_LIKE_TARGET
@click.option("--csv", type=FILE, metavar="FILE", help="Where a table with one row for each run goes.")
@sweep_options("Keep finished cells here; the same command goes on where it ended.", "all cores")
@common_options(domain=False)
def phase_diagram(path: str, samples: str, widths: str, scales: str, seeds: int, no_bias: bool, output_bias: bool,
                  csv: str | None, resume: str | None, workers: int | None, cluster: str | None,
                  **options: Any) -> int:  # fmt: skip
    """Train networks from many starts on samples of a target network, and count how often they find it.

    They have the activation of the target.
    """
    import os

    from fiberscope.invariants.recovery import phase_diagram as run

    begin = time.perf_counter()
    check_targets(options, csv, reads=[path, *([resume] if resume else [])])
    net = load_network(path, options)
    if workers is not None and cluster:
        raise InputError("both --workers and --cluster; give one of them")
    local = None if cluster else workers or os.cpu_count() or 1
    with working(options) as work, work.progress() as progress:
        result = run(
            net, activation=net.activation or "tanh", samples=_numbers("--samples", samples),
            widths=_numbers("--widths", widths),
            scales=_floats("--scales", scales), seeds=range(options["seed"], options["seed"] + seeds), bias=not no_bias,
            output_bias=_with_output_bias(net, output_bias), path=resume, workers=None if local == 1 else local,
            client=cluster, budget=work.budget, progress=progress,
        )  # fmt: skip
    text = f"{path}\n{result}"
    if csv:
        result.to_csv(csv)
        text += f"\nwrote {csv}"
    emit("phase-diagram", result.to_dict(), text, [net], options, begin)
    return work.code(DONE)


@program.command(
    short_help="How far the neurons of a network, or of a folder of checkpoints, have condensed onto few directions.",
    epilog="Example: fiberscope condensation checkpoints/ --html condensation.html",
)
@click.argument("paths", nargs=-1, required=True, type=PATH)
@_listed("--tolerances", "T[,T...]", "Unit vectors nearer than this count as one direction.", "1e-6,1e-3,1e-2,0.1")
@common_options(domain=False)
def condensation(paths: Sequence[str], tolerances: str, **options: Any) -> int:
    """Show orientations, amplitudes, the effective number of directions, classes, model rank and orbit dimension."""
    from fiberscope.invariants.recovery import condensation as run

    begin = time.perf_counter()
    check_targets(options, reads=paths)
    files = network_files(paths)
    nets = [load_network(file, options, several=len(files) > 1) for file in files]
    with working(options) as work, work.progress() as progress:
        result = run(
            nets, labels=[file.name for file in files], tolerances=_floats("--tolerances", tolerances),
            seed=options["seed"], budget=work.budget, progress=progress,
        )  # fmt: skip
    emit("condensation", result.to_dict(), str(result), nets, options, begin)
    return work.code(DONE)
