"""Commands about networks of infinite width: fiberscope meanfield angle, odd, linear, lowdim, particles, reduction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fiberscope.cli.files import check_targets
from fiberscope.cli.group import PATH, help_without_command, program
from fiberscope.cli.options import DONE, common_options, resume_option
from fiberscope.cli.output import emit, given
from fiberscope.cli.running import working
from fiberscope.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fiberscope.meanfield.targets import Target
    from fiberscope.results import Result

    FloatArray = NDArray[np.float64]

F = TypeVar("F", bound=Callable[..., Any])

_NODES = 4096  # most starting points of lowdim: their kernel is a full matrix

_TARGET = click.option(
    "--target", required=True, metavar="TARGET",
    help="norm:5, linear:0.6,0.8, abs, l1:2, relu, a JSON document or its file, or a file of a network with one hidden "
         "ReLU layer without biases.",
)  # fmt: skip


@program.group(
    "meanfield",
    short_help="Networks of infinite width: the flows that symmetric targets reduce to.",
    epilog="Example: fiberscope meanfield angle --html angle.html", invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
)  # fmt: skip
@click.pass_context
def flows(context: click.Context) -> int | None:
    """Follow the training of infinitely wide two-layer ReLU networks, without sampling (arXiv 2211.08771).

    Inputs are uniform on the unit sphere of R^d, the loss is squared, and time is that of the Wasserstein gradient
    flow. `reduction` says which flow a target calls for.
    """
    return help_without_command(context)


def timed(until: float, outputs: int, *, explicit: bool = False) -> Callable[[F], F]:
    """The options of every flow: its times, and, unless it is an explicit formula, its tolerance and its file."""
    rows = (
        click.option("--until", type=float, default=until, show_default=True, metavar="T", help="The last time."),
        click.option(
            "--outputs", type=click.IntRange(1, 10000), default=outputs, show_default=True, metavar="N",
            help="Number of output times after 0, closer together early on.",
        ),
        click.option(
            "--times", metavar="T0,T1,...", help="The output times themselves, instead of --until and --outputs."
        ),
        click.option("--rtol", type=float, default=1e-9, show_default=True, help="Relative tolerance of each step."),
        resume_option("Keep finished parts of the run here; the same command goes on where it ended."),
    )  # fmt: skip

    def decorate(function: F) -> F:
        for row in reversed(rows[:3] if explicit else rows):
            function = row(function)
        return function

    return decorate


def _times(options: dict[str, Any]) -> Sequence[float]:
    """Output times: those given, or 0 and times evenly spaced in log(1 + t / T0), T0 = until / 1000."""
    import numpy as np

    if options["times"] is not None:
        try:
            return [float(part) for part in options["times"].split(",")]
        except ValueError:
            raise InputError(f"--times {options['times']}: give numbers, such as 0,10,100") from None
    until = options["until"]
    if not 0 < until < float("inf"):
        raise InputError(f"--until {until:g}: give a time > 0")
    found = np.expm1(np.linspace(0.0, np.log1p(1000.0), options["outputs"] + 1)) * (until / 1000.0)
    found[-1] = until
    return [float(t) for t in found]


def _flow(
    name: str, options: dict[str, Any], call: Callable[..., Result], reads: Sequence[str] = (), *,
    told: str = "", more: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """Run a flow, print it below what was `told`, write its page; `more` joins its data."""
    begin = time.perf_counter()
    resume = options.get("resume")
    check_targets(options, reads=[*reads, *([resume] if resume else [])])
    times = _times(options)
    with working(options) as work, work.progress() as progress:
        result = call(
            times, rtol=options.get("rtol"), path=resume, budget=work.budget, progress=progress,
        )  # fmt: skip
    body = {**(more or {}), **result.to_dict()}
    emit(f"meanfield-{name}", body, f"{told}\n{result}" if told else str(result), [], options, begin)
    return work.code(DONE)


def _target(text: str, dimension: int | None, option: str = "--dimension D") -> tuple[Target, list[str]]:
    """The target of --target and the files it was read from; `option` says the dimension of a short target."""
    from pathlib import Path

    from fiberscope.meanfield.targets.documents import target_of, teacher_of

    path = Path(text)
    if text.lstrip().startswith("{") or not (path.suffix and path.is_file()):
        if path.suffix and "{" not in text and ":" not in text:
            raise InputError(f"{text}: no such file")
        if dimension is None and "{" not in text and (":" in text or text in ("abs", "relu")):
            raise InputError(f"target '{text}' does not say its dimension; give {option}")
        return target_of(text, dimension), []
    if path.suffix == ".json":
        return target_of(path.read_text(encoding="utf-8"), dimension), [text]
    from fiberscope.io import load

    network = load(path)
    try:
        found = teacher_of(network)
    except InputError as exc:
        raise InputError(f"{text}: {exc}") from None
    if dimension is not None and found.dimension != dimension:
        raise InputError(f"{text}: takes {found.dimension} inputs, and {option.split()[0]} is {dimension}")
    return found, [text]


@flows.command(
    short_help="Learning |x_H|: two measures on the angle to H.",
    epilog="Example: fiberscope meanfield angle --dimension 30 --subspace 5 --until 3000 --html angle.html",
)
@click.option("--dimension", type=int, default=30, show_default=True, metavar="D", help="Of the inputs.")
@click.option("--subspace", type=int, default=5, show_default=True, metavar="K", help="Dimension of H, 1 to D - 1.")
@click.option("--nodes", type=int, default=32, show_default=True, metavar="M", help="Particles of each sign.")
@click.option("--modes", type=int, metavar="N", help="Harmonics kept.  [default: what 1e-9 needs]")
@click.option(
    "--init", type=click.Choice(["gauss", "graded", "quantile"]), default="gauss", show_default=True,
    help="Where the particles start; graded is better beyond time 1e5.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["auto", "DOP853", "Radau", "BDF"]), default="auto", show_default=True,
    help="Integrator; Radau and BDF are for long times.",
)  # fmt: skip
@click.option("--refine", is_flag=True, help="Run again with twice the nodes, and say what changed.")
@timed(3000.0, 200)
@common_options(domain=False, networks=False)
def angle(dimension: int, subspace: int, nodes: int, modes: int | None, init: Any, method: Any, refine: bool,
          **options: Any) -> int:  # fmt: skip
    """Train a network of infinite width on f*(x) = |x_H|, H a subspace of dimension K.

    Shows the masses of positive and negative neurons, their distance to where they should end, the risk, and when the
    positive mass first exceeds the mass alpha that represents the target.
    """
    from fiberscope.meanfield import AngleFlow, angle_flow

    def call(times: Sequence[float], *, budget: Any, **rest: Any) -> AngleFlow:
        flow = angle_flow(
            dimension, subspace, times, nodes=nodes, modes=modes, init=init, method=method, budget=budget, **rest
        )
        return flow.refine(budget=budget) if refine and flow.complete else flow

    return _flow("angle", options, call)


@flows.command(
    short_help="Odd targets: the network stays linear; an explicit solution.",
    epilog="Example: fiberscope meanfield odd --dimension 20 --slope-norm 0.15 --until 100",
)
@click.option("--dimension", type=int, default=20, show_default=True, metavar="D", help="Of the inputs.")
@click.option(
    "--slope-norm", type=float, default=0.15, show_default=True, metavar="X", help="|beta|, beta = E[f*(x) x]."
)
@click.option("--variance", type=float, metavar="V", help="Of each input coordinate.  [default: 1/D, the unit sphere]")
@timed(100.0, 100, explicit=True)
@common_options(domain=False, networks=False, search=False)
def odd(dimension: int, slope_norm: float, variance: float | None, **options: Any) -> int:
    """Train a network of infinite width on an odd target: it stays linear, f(x) = w.x, and |w(t)| is explicit."""
    from fiberscope.meanfield import OddFlow, odd_flow

    def call(times: Sequence[float], **_: Any) -> OddFlow:
        return odd_flow(slope_norm, dimension, times, variance=variance)

    return _flow("odd", options, call)


@flows.command(
    short_help="The two-layer linear network of a data set, with its rates.",
    epilog="Example: fiberscope meanfield linear data.csv --until 200 --html linear.html",
)
@click.argument("path", type=PATH)
@click.option("--centre", is_flag=True, help="Subtract the means of inputs and labels first.")
@click.option(
    "--relu", is_flag=True,
    help="Of a ReLU network, which stays linear on data symmetric under (x, y) -> (-x, -y).",
)  # fmt: skip
@click.option("--scale", type=float, metavar="V", help="E[a^2] + E[|b|^2]/d of the first neurons.  [default: 1 + 1/d]")
@timed(100.0, 200)
@common_options(domain=False, networks=False)
def linear(path: str, centre: bool, relu: bool, scale: float | None, **options: Any) -> int:
    """Train a two-layer linear network of infinite width on data: the closed equation for its d weights.

    PATH is a .csv or .txt table, the label in the last column, or an .npz file with X and y. Prints the proved bound on
    the rate of convergence beside the asymptotic and the measured one.
    """
    from fiberscope.cli.files import read_data
    from fiberscope.meanfield import LinearFlow, linear_flow_of

    inputs, labels = read_data(path)

    def call(times: Sequence[float], **rest: Any) -> LinearFlow:
        return linear_flow_of(inputs, labels, scale, times, centre=centre, slope=0.5 if relu else 1.0, **rest)

    count, size = inputs.shape
    told = f"{path}: {count} rows, {size} inputs{', centred' if centre else ''}"
    if relu and not _odd(inputs, labels):
        told += "\nnot symmetric under (x, y) -> (-x, -y): this is the ReLU network on the data with all (-x, -y) added"
    data = {"path": path, "rows": count, "columns": size, "centred": centre, "relu": relu}
    return _flow("linear", options, call, [path], told=told, more={"data": data})


def _odd(inputs: FloatArray, labels: FloatArray) -> bool:
    """Whether the rows (x, y) and (-x, -y) are the same, counted."""
    import numpy as np

    rows = np.column_stack([inputs, labels]) + 0.0
    one, other = (part[np.lexsort(part.T)] for part in (rows, 0.0 - rows))
    return bool(np.array_equal(one, other))


@flows.command(
    short_help="A target on a subspace H: a flow on the sphere of dimension K.",
    epilog="Example: fiberscope meanfield lowdim --target l1:2 --subspace 2 --dimension 10 --html lowdim.html",
)
@_TARGET
@click.option("--subspace", type=int, metavar="K", help="Dimension of H, where the target lives; for short targets.")
@click.option("--dimension", type=int, required=True, metavar="D", help="Of the inputs.")
@click.option("--nodes", metavar="N[,N]", help="Starting points along each axis of the half sphere.")
@click.option("--refine", is_flag=True, help="Run again with more nodes, and say what changed.")
@timed(100.0, 60)
@common_options(domain=False, networks=False)
def lowdim(target: str, subspace: int | None, dimension: int, nodes: str | None, refine: bool, **options: Any) -> int:
    """Train a network of infinite width on f*(x) = f_H(x_H), by its exact reduction to the sphere of dimension K."""
    from fiberscope.meanfield import LowdimFlow, lowdim_flow

    found, reads = _target(target, subspace, "--subspace K")
    counts = _counts(nodes)

    def call(times: Sequence[float], *, budget: Any, **rest: Any) -> LowdimFlow:
        flow = lowdim_flow(found, dimension, times, nodes=counts, seed=options["seed"], budget=budget, **rest)
        return flow.refine(budget=budget) if refine and flow.complete else flow

    return _flow("lowdim", options, call, reads, told=f"target {target}", more={"target": target})


def _counts(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--nodes {text}: give whole numbers, such as 8,6") from None
    if math.prod(found) > _NODES:
        raise InputError(f"--nodes {text}: {math.prod(found)} points; give at most {_NODES} in all")
    return found[0] if len(found) == 1 else found


@flows.command(
    short_help="A finite network on the risk itself, with the target's symmetry kept exactly.",
    epilog="Example: fiberscope meanfield particles --target l1:2 --dimension 3 --width 64 --symmetric",
)
@_TARGET
@click.option("--dimension", type=int, metavar="D", help="Of the inputs; for short targets.")
@click.option("--width", type=int, default=256, show_default=True, metavar="M", help="Number of neurons.")
@click.option(
    "--start", type=click.Choice(["random", "antipodal", "axes"]), default="random", show_default=True,
    help="First neurons: independent, in pairs (a, b), (-a, -b), or all (+-1, +-e_i).",
)  # fmt: skip
@click.option(
    "--symmetric", is_flag=True,
    help="Complete the first neurons to orbits of the target's finite symmetry group, and evolve one of each.",
)  # fmt: skip
@click.option("--device", default="numpy", show_default=True, metavar="NAME", help="numpy, jax, jax:gpu or jax:cpu.")
@timed(100.0, 60)
@common_options(domain=False, networks=False)
def particles(target: str, dimension: int | None, width: int, start: Any, symmetric: bool, device: str,
              **options: Any) -> int:  # fmt: skip
    """Train a network of M neurons by gradient flow on the exact population risk: no samples, no noise.

    Shows the risk, how well the neurons align with the subspace of the target, and how well its symmetry is kept.
    """
    from fiberscope.meanfield import ParticleFlow, initial_neurons, particle_flow

    found, reads = _target(target, dimension)
    group = found.group if not found.group.trivial else None
    heads, rows = initial_neurons(
        found.dimension, width, kind=start, group=group if symmetric else None, seed=options["seed"]
    )

    def call(times: Sequence[float], **rest: Any) -> ParticleFlow:
        return particle_flow(heads, rows, found, times, group=group, fold=symmetric, device=device, **rest)

    return _flow("particles", options, call, reads, told=f"target {target}", more={"target": target})


@flows.command(
    short_help="Which of these flows a target reduces to.",
    epilog="Example: fiberscope meanfield reduction --target norm:5 --dimension 30",
)
@_TARGET
@click.option("--dimension", type=int, metavar="D", help="Of the inputs; for short targets.")
@common_options(domain=False, networks=False, search=False)
def reduction(target: str, dimension: int | None, **options: Any) -> int:
    """Say which statements of the paper apply to a target, on which hypotheses, and which flow to run."""
    from fiberscope.meanfield import reduction_of
    from fiberscope.pages.nextsteps import following

    begin = time.perf_counter()
    found, reads = _target(target, dimension)
    check_targets(options, reads=reads)
    result = reduction_of(found)
    body = {"target": target, **result.to_dict()}
    first = next(iter(following({"schema": "fiberscope/meanfield-reduction/1", "given": given(), **body})))
    text = f"target {target}\n{result}\n  on the command line: {first.line}"
    emit("meanfield-reduction", body, text, [], options, begin)
    return DONE
