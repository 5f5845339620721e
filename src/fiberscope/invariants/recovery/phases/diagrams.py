"""Phase diagrams of recovery: how often training finds its target, by samples, width and initial scale."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope._version import __version__
from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_choice, as_count, as_counts, as_number, as_switch, shown
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.invariants.recovery.ladders.stiffflow import STIFF_LIMIT, flow
from fiberscope.invariants.recovery.phases.tables import PhaseCell, PhaseDiagram
from fiberscope.invariants.recovery.ranking.optimistic import OptimisticSize, optimistic_sample_size
from fiberscope.invariants.recovery.ranking.results import trained_parts
from fiberscope.network import Network, require_network
from fiberscope.results import Budget, Progress
from fiberscope.sweeps import sweep

FloatArray = npt.NDArray[np.float64]

INPUTS = ("normal", "uniform")
"""Distributions of the inputs: standard normal, or uniform in [-1, 1]."""
_TEST_STREAM, _DATA_STREAM = 2, 1
_STIFF_STEPS, _EXPLICIT_STEPS = 3000, 100_000


@dataclass(frozen=True)
class Plan:
    """What all cells of a diagram share.

    Args:
        target: the function to be found.
        activation: of the trained networks.
        bias: whether their hidden biases are trained; else they are 0.
        output_bias: the same for the output bias.
        inputs: one of `INPUTS`.
        tests: number of test points.
        floor: training loss at which a run is done.
        rtol: tolerance of the flow.
        cap: of the flow, see `stiffflow.flow`.
        steps: limit of the flow's steps; None: 3000, or 100 000 where it is explicit.
    """

    target: Network
    activation: str | Activation = "tanh"
    bias: bool = True
    output_bias: bool = False
    inputs: str = "normal"
    tests: int = 1000
    floor: float = 1e-18
    rtol: float = 1e-4
    cap: float | None = 0.5
    steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no cell could use."""
        require_network(self.target, "target")
        for name in ("bias", "output_bias"):
            as_switch(getattr(self, name), name)
        as_choice(self.inputs, "inputs", INPUTS)
        as_count(self.tests, "tests (number of test points)", 1)
        for name in ("floor", "rtol", "cap"):
            if name != "cap" or self.cap is not None:
                as_number(getattr(self, name), name, above=0)
        if self.steps is not None:
            as_count(self.steps, "steps", 1)
        find_activation(self.activation)

    @property
    def task(self) -> dict[str, Any]:
        """JSON data that the values of the cells depend on."""
        shared = {name: getattr(self, name) for name in Plan.__dataclass_fields__ if name != "target"}
        shared["activation"] = find_activation(self.activation).spec
        return {"phase diagram": __version__, "target": self.target.digest, **shared}

    def landscape(self, width: int, samples: int, seeds: Sequence[int]) -> Landscape:
        """Mean squared errors of two-layer networks, the data of each seed in one row.

        The data of a seed do not depend on the width, and more samples have the fewer ones at their beginning.
        """
        x = np.stack([self._points(np.random.default_rng([_DATA_STREAM, seed]), samples) for seed in seeds])
        d, q = self.target.widths[0], self.target.widths[-1]
        y = self.target(x.reshape(-1, d)).reshape(len(seeds), samples, q)
        return Landscape((d, width, q), self.activation, x, y, bias=self.bias, output_bias=self.output_bias)

    def test_set(self) -> tuple[FloatArray, FloatArray]:
        """Inputs (tests, n_0) and values of the target there."""
        x = self._points(np.random.default_rng([_TEST_STREAM]), self.tests)
        return x, np.asarray(self.target(x))

    def _points(self, rng: np.random.Generator, count: int) -> FloatArray:
        shape = (count, self.target.widths[0])
        return rng.standard_normal(shape) if self.inputs == "normal" else rng.uniform(-1.0, 1.0, shape)

    def parameters(self, width: int) -> int:
        """Number M of trained parameters of a width.

        >>> Plan(Network.random((5, 3, 1), activation="tanh", seed=0)).parameters(9)
        63
        """
        d, q = self.target.widths[0], self.target.widths[-1]
        return width * (d + q + self.bias) + q * self.output_bias


def run_cell(cell: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """One cell: all its seeds in one batched gradient flow; what `sweep` keeps of it.

    Args:
        cell: "samples", "width", "scale" and "seeds".
        plan: what all cells share.

    Returns:
        Lists with one entry for each seed: train, test, steps, rejected, binding, sharpest, reasons.
    """
    landscape = plan.landscape(cell["width"], cell["samples"], cell["seeds"])
    steps = plan.steps or (_STIFF_STEPS if landscape.size <= STIFF_LIMIT else _EXPLICIT_STEPS)
    start = landscape.normal(cell["seeds"], cell["scale"])
    end = flow(landscape, start, rtol=plan.rtol, cap=plan.cap, floor=plan.floor, steps=steps)
    test = end.errors(*plan.test_set())
    return {
        "train": end.losses.tolist(), "test": test.tolist(), "steps": end.steps.tolist(),
        "rejected": end.rejected.tolist(), "binding": end.binding.tolist(),
        "sharpest": None if end.sharpest is None else end.sharpest.tolist(), "reasons": list(end.reasons),
    }  # fmt: skip


def phase_diagram(
    target: Network,
    *,
    samples: Sequence[int],
    widths: Sequence[int],
    scales: Sequence[float] = (1e-10,),
    seeds: int | Sequence[int] = 8,
    activation: str | Activation = "tanh",
    bias: bool = True,
    output_bias: bool = False,
    inputs: str = "normal",
    tests: int = 1000,
    recovered: float = 1e-6,
    floor: float = 1e-18,
    rtol: float = 1e-4,
    cap: float | None = 0.5,
    steps: int | None = None,
    path: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    client: Any = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> PhaseDiagram:
    """Train two-layer networks on samples of a target and count how often they find it.

    A cell is (samples, width, scale); its seeds run in one batched gradient flow of the mean squared error, from
    Gaussian parameters of that standard deviation to training loss `floor`, a minimum, or the limit of steps. A seed
    fixes the training points (the first n of one stream, the same for all widths and scales) and the direction of the
    start (the same for all scales and n).

    Args:
        target: the function, a network of any depth.
        samples: numbers n of training points.
        widths: numbers of hidden neurons.
        scales: standard deviations of the initial parameters.
        seeds: how many, or which ones.
        activation: of the trained networks.
        bias: whether hidden biases are trained; else they are 0.
        output_bias: the same for the output bias; not by default, as in the papers (see `predict_recovery`).
        inputs: "normal" or "uniform".
        tests: number of test points, the same for all runs.
        recovered: test error below which the target counts as recovered.
        floor: training loss at which a run is done.
        rtol: tolerance of a step; 1e-6 changes test errors by about 1%, by 10% where runs are most sensitive.
        cap: bound of h |lambda_min| of the flow; None: no bound.
        steps: limit of steps of a run; None: 3000, or 100 000 where the flow is explicit.
        path: file that finished cells are kept in; a run that was interrupted goes on where it stopped.
        workers: number of worker processes; None: this process.
        client: a `distributed.Client`, or the address of a Dask scheduler, instead of workers.
        budget: seconds, or `Budget`; cells not begun by then are left for the next call.
        progress: called with (fraction of cells, text).

    Raises:
        InputError: if a list is empty or has numbers that are out of range; and as `sweep` for its file and workers.

    Complexity: a cell costs what its flow does, O(seeds (n M^2 + M^3)) a step up to 250 parameters M.
    Source: after Zhang et al., optimistic estimate, figure 4; the measured table is on the theory page.

    >>> target = Network.from_arrays(([[1.0]], [0.5]), ([[1.0]], [0.0]), activation="tanh")
    >>> found = phase_diagram(target, samples=[6], widths=[1], seeds=2)  # n = 6 > M = 3
    >>> found.grid().tolist(), found.parameters
    ([[1.0]], {1: 3})
    """
    plan = Plan(target, activation, bias, output_bias, inputs, tests, floor, rtol, cap, steps)
    counts, sizes = (tuple(sorted(set(as_counts(v, n)))) for v, n in ((samples, "samples"), (widths, "widths")))
    spread, runs = _scales(scales), _seeds(seeds)
    recovered = as_number(recovered, "recovered (a test error)", above=0)
    _check_run(path, workers)
    order = list(product(spread, sizes, counts))
    if workers is not None or client is not None:  # long cells first, so that no worker is left alone at the end
        order.sort(key=lambda c: (-c[1], -c[2], c[0]))
    cells = [{"samples": n, "width": m, "scale": s, "seeds": list(runs)} for s, m, n in order]
    done = sweep(
        partial(run_cell, plan=plan), cells, path=path, task=plan.task, workers=workers, client=client, budget=budget,
        retry=True, progress=progress,
    )  # fmt: skip
    found = [_cell(json.loads(r.key), r.value, recovered, floor) for r in done if r.error is None]
    failed = tuple(f"{r.key}: {r.error}" for r in done if r.error is not None)
    known = _optimistic(target, plan)
    size = None if isinstance(known, str) else known
    return PhaseDiagram(
        target=target.architecture, digest=target.digest, activation=find_activation(activation).label, samples=counts,
        widths=sizes, scales=spread, seeds=runs, recovered=recovered,
        cells=tuple(sorted(found, key=lambda c: (c.scale, c.width, c.samples))),
        complete=done.complete and not failed, reason=done.reason, failed=failed,
        optimistic=None if size is None else size.value, optimistic_exact=size is not None and size.exact,
        parameters={m: plan.parameters(m) for m in sizes}, notes=_notes(known, sizes, plan),
        theorems=() if size is None else size.theorems, trained=trained_parts(bias, output_bias),
    )  # fmt: skip


def _scales(scales: Any) -> tuple[float, ...]:
    given = list(scales) if isinstance(scales, Iterable) and not isinstance(scales, str) else []
    if not given:
        raise InputError(f"scales={shown(scales)}; give a list of standard deviations > 0")
    return tuple(sorted({as_number(s, "an entry of scales", above=0) for s in given}))


def _seeds(seeds: Any) -> tuple[int, ...]:
    if not isinstance(seeds, Iterable):
        return tuple(range(as_count(seeds, "seeds", 1)))
    runs = as_counts(seeds, "seeds", 0)
    if len(set(runs)) < len(runs):
        raise InputError(f"a seed occurs twice in {runs}")
    return runs


def _check_run(path: Any, workers: Any) -> None:
    if path is not None and not isinstance(path, str | os.PathLike):
        raise InputError(f"path={shown(path)}; give the path of a file, or None")
    if workers is not None:
        as_count(workers, "workers", 1)


def _cell(cell: Mapping[str, Any], value: Mapping[str, Any], recovered: float, floor: float) -> PhaseCell:
    def floats(name: str) -> tuple[float, ...]:
        return tuple(math.inf if v is None else float(v) for v in value[name])  # what overflowed was written as null

    return PhaseCell(
        samples=cell["samples"], width=cell["width"], scale=cell["scale"], train=floats("train"), test=floats("test"),
        steps=tuple(value["steps"]), binding=tuple(value["binding"]),
        sharpest=None if value["sharpest"] is None else floats("sharpest"), reasons=tuple(value["reasons"]),
        recovered=recovered, floor=floor,
    )  # fmt: skip


def _optimistic(target: Network, plan: Plan) -> OptimisticSize | str:
    """O_f of the target in two-layer networks of the plan's kind, or why it is not known."""
    row = find_activation(plan.activation)
    if target.depth != 2 or target.layers[0].activation != row or target.layers[1].activation.name != "identity":
        return f"O_f is known for two-layer {row.label} targets only"
    try:
        if not plan.output_bias and target.layers[1].bias.any():
            return "O_f is not known: the target has an output bias, which these networks do not train (output_bias)"
        return optimistic_sample_size(target, bias=plan.bias, output_bias=plan.output_bias)
    except (InputError, ScopeError) as exc:
        return f"O_f is not known: {exc}"


def _notes(known: OptimisticSize | str, sizes: Sequence[int], plan: Plan) -> tuple[str, ...]:
    out = [known] if isinstance(known, str) else []
    if not isinstance(known, str) and known.exact and known.neurons is not None:
        narrow = [m for m in sizes if m < known.neurons]
        if narrow:
            out.append(f"widths {', '.join(map(str, narrow))} cannot express the target, which needs {known.neurons}")
    explicit = [m for m in sizes if plan.parameters(m) > STIFF_LIMIT]
    if explicit:
        out.append(f"explicit flow for M > {STIFF_LIMIT}: widths {', '.join(map(str, explicit))}")
    return tuple(out)
