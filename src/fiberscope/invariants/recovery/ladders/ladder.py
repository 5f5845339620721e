"""The ladder of invariant manifolds: the narrowest class structure on which the data can be interpolated.

On the manifold where the hidden neurons of a wide two-layer network form r classes of equal neurons, training is that
of a network of width r in the metric of its class sizes (`reduced_network`). Rungs r are climbed until one
interpolates. With more targets than its dimension, that is the criterion of recovery: GENERIC, float, no certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.arguments import as_choice, as_count, as_counts, as_floats, as_number, as_switch
from fiberscope.errors import InputError
from fiberscope.invariants.arguments import as_pair
from fiberscope.invariants.dynamics.backprop import Batch
from fiberscope.invariants.dynamics.reduced import ReducedNetwork
from fiberscope.invariants.recovery.ladders.climbing import Climb, Rung
from fiberscope.invariants.recovery.ladders.noisy import CRITERIA, Criterion, Selection, select_width
from fiberscope.invariants.recovery.ranking.results import trained_parts
from fiberscope.network import Network
from fiberscope.results import Assumption, Budget, Progress, Result, Rigor

FloatArray = npt.NDArray[np.float64]
Data = Batch | tuple[npt.ArrayLike, npt.ArrayLike]

_AGREE = 1e-6
"""Largest mean squared difference of runs that are one function, over mean y^2."""


@dataclass(frozen=True, eq=False)
class Recovery(Result):
    """The narrowest class structure that interpolates, if one does, and whether that means recovery.

    Args:
        width: r of the smallest interpolating rung, or None.
        criterion: whether it interpolates and n n_L exceeds its dimension, so that what was found is the target if the
            assumptions hold.
        rungs: everything tried, by width.
        points: n.
        targets: n n_L.
        floor: loss below which a run interpolates.
        activation: of the hidden layer.
        seed: of all random numbers.
        complete: whether the ladder ended by itself and not by the budget.
        network: the network of width r (the best one of the last rung when none interpolates).
        reduced: the same as the quotient of the wide network, with the multipliers of training on the manifold.
        selection: the choice of a width for noisy data, where it was asked for and nothing was recovered.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "reduced"})

    width: int | None
    criterion: bool
    rungs: tuple[Rung, ...]
    points: int
    targets: int
    floor: float
    activation: str
    seed: int
    complete: bool
    network: Network
    reduced: ReducedNetwork
    selection: Selection | None
    assumptions: tuple[Assumption, ...]
    rigor: Rigor = Rigor.GENERIC
    theorems: tuple[str, ...] = ("equitable-sim", "reduced-network")
    trained: str = ""

    @property
    def embedded(self) -> Network:
        """The wide network on the manifold, which computes exactly what `network` computes."""
        return self.reduced.original

    @property
    def interpolates(self) -> bool:
        """Whether some width explains the data exactly, up to the floor."""
        return self.width is not None

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of equal length, one row for each rung."""
        names = (
            "width", "dimension", "exceeds", "flows", "flow_interpolating", "flow_best", "starts",
            "search_interpolating", "search_best", "best", "found_by", "rank", "agreement", "complete",
        )  # fmt: skip
        return {name: [getattr(rung, name) for rung in self.rungs] for name in names}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data with the parameters of the narrow network."""
        out = super().to_dict()
        out["parameters"] = [float(v) for v in self.network.theta]
        out["widths"] = list(self.network.widths)
        out["embedded_widths"] = list(self.embedded.widths)
        return out

    def __str__(self) -> str:
        """One screen."""
        tried = ", ".join(str(rung.width) for rung in self.rungs)
        if self.width is None:
            head = f"no width explains the {self.points} points exactly: of {tried} none reaches {self.floor:.3g}"
        else:
            rung = self.rungs[-1]
            word = "exceed" if rung.exceeds else "do not exceed"
            head = (
                f"width {self.width} is the narrowest tried that explains the {self.points} points exactly; "
                f"the different ones {word} its dimension {rung.dimension}"
            )
        lines = [head, f"  trained: {self.trained}"] if self.trained else [head]
        lines += ["  r   dim  flows (interpolating)  starts (interpolating)  best loss  rank  agreement"]
        for r in self.rungs:
            same = "-" if r.agreement is None else f"{r.agreement:.1e}"
            lines.append(
                f"  {r.width:<3} {r.dimension:<4} {f'{r.flows} ({r.flow_interpolating})':<22} "
                f"{f'{r.starts} ({r.search_interpolating})':<23} {r.best:<10.3g} {r.rank:<5} {same}"
                + ("" if r.complete else "  (budget spent)")
            )
        if self.criterion:
            lines.append(f"  criterion of recovery met ({self.rigor.name}, floating point; not a certificate), if:")
            lines += [f"    - {a.statement}" for a in self.assumptions if not a.checked]
        elif self.width is not None:
            lines.append("  criterion of recovery not met, so this explains nothing:")
            lines += [f"    - FAILS: {a.statement}" for a in self.assumptions if a.checked and not a.holds]
        if self.selection is not None:
            lines += ["noisy data:", *("  " + line for line in str(self.selection).splitlines())]
        return "\n".join(lines)


def recover(
    data: Data,
    widths: Sequence[int],
    *,
    activation: str | Activation = "tanh",
    wide: int | None = None,
    bias: bool = True,
    output_bias: bool = False,
    starts: int = 512,
    flows: int = 8,
    scale: float = 1e-2,
    floor: float = 1e-18,
    seed: int = 0,
    noise: Criterion | None = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Recovery:
    """Climb the widths until one interpolates the data; with n > dimension that is the criterion of recovery.

    A rung r is the manifold of a wide network with r classes of equal neurons, of dimension r (n_0 + n_L + 1) with
    hidden biases. First the gradient flow on it is followed from small random points (`flow`, in the metric of the
    class sizes, at the coarse tolerance 1e-3); where none interpolates, least squares are solved from many starts (half
    drawn at the scale of the data, half the best fits of the rung below with one neuron split in two; poor ones given
    up early). The point found is polished by least squares. What the search finds exists; that training finds it is not
    claimed.

    Args:
        data: (x, y), x (n, n_0), y (n,) or (n, n_L), or a `Batch`.
        widths: numbers r of classes, tried in ascending order.
        activation: hidden activation.
        wide: hidden neurons of the wide network; the largest of the widths if None.
        bias: whether hidden biases are trained.
        output_bias: whether output biases are; not by default, as in the papers (see `predict_recovery`).
        starts: of the search on a rung.
        flows: gradient-flow runs on a rung; 0 for none. Gradients only beyond 250 parameters.
        scale: standard deviation of their starts.
        floor: a run interpolates when its mean squared error is at most this part of the variance of every output;
            at most 1e-12.
        seed: of all random numbers.
        noise: "held-out" or "bic": choose a width by that where nothing is recovered.
        budget: seconds; the rungs tried by then are reported.
        progress: called with (fraction, text).

    Raises:
        InputError: if data or widths do not fit.

    Complexity: starts of O(n n_L M^2) a step on each rung. Source: the manifolds are those of arXiv 2510.09564; that
    interpolation with n > dimension recovers is proved on the theory page, for analytic activations and targets.

    >>> x = np.linspace(-2, 2, 12)[:, None]
    >>> found = recover((x, 3 * np.tanh(x[:, 0] - 0.5)), (1, 2), flows=2, starts=8)
    >>> found.width, found.criterion, bool(abs(abs(found.network.layers[0].weight[0, 0]) - 1) < 1e-9)
    (1, True, True)
    """
    x, y = _arrays(data)
    rungs = sorted(set(as_counts(widths, "widths")))
    neurons = rungs[-1] if wide is None else as_count(wide, "wide", rungs[-1])
    starts, flows, seed = as_count(starts, "starts", 1), as_count(flows, "flows"), as_count(seed, "seed")
    scale, floor = as_number(scale, "scale", above=0), as_number(floor, "floor", above=0, most=1e-12)
    bias, output_bias = as_switch(bias, "bias"), as_switch(output_bias, "output_bias")
    if noise is not None:
        as_choice(noise, "noise", CRITERIA)
    clock = Budget.of(budget).start()
    goal = floor * _spread(y)
    climb = Climb(x, y, activation, neurons, bias, output_bias, starts, flows, scale, goal, seed)
    found: list[Rung] = []
    for k, r in enumerate(rungs):
        if progress is not None:
            progress(k / len(rungs), f"{r} classes" + (f", best loss so far {found[-1].best:.3g}" if found else ""))
        found.append(climb.rung(r, clock))
        if found[-1].interpolates or clock.expired:
            break
    last = found[-1]
    width = last.width if last.interpolates else None
    assumptions = _assumptions(climb.row, last, x)
    criterion = last.interpolates and all(a.holds for a in assumptions if a.checked)
    selection = None
    if noise is not None and not criterion:
        selection = select_width(
            x, y, [0, *rungs], activation=activation, criterion=noise, bias=bias, output_bias=output_bias, seed=seed,
            starts=min(starts, 96),
            budget=Budget(None if np.isinf(clock.left) else clock.left, cancelled=lambda: clock.expired),
            progress=progress,
        )  # fmt: skip
    reduced = climb.reduced()
    return Recovery(
        width, criterion, tuple(found), len(x), y.size, goal, climb.row.label, seed,
        last.interpolates or (last.complete and len(found) == len(rungs)), _floats(reduced.network), reduced, selection,
        assumptions,
        theorems=(*(("sim-recovery",) if criterion else ()), "equitable-sim", "reduced-network"),
        trained=trained_parts(bias, output_bias),
    )  # fmt: skip


def _arrays(data: Data) -> tuple[FloatArray, FloatArray]:
    x, y = (data.x, data.y) if isinstance(data, Batch) else as_pair(data)
    inputs, targets = as_floats(x, "inputs"), as_floats(y, "targets")
    if inputs.ndim != 2 or targets.ndim not in (1, 2) or len(inputs) != len(targets) or not len(inputs):
        raise InputError(f"inputs {inputs.shape} and targets {targets.shape}; give (n, n_0) and (n,) or (n, n_L)")
    for name, values in (("inputs", inputs), ("targets", targets)):
        size = float(np.abs(values).max())
        if not np.isfinite(size) or (size and not 1e-100 < size < 1e100):
            raise InputError(f"{name} of size {size:.1g}; give finite numbers that are not near the ends of the floats")
    return inputs, targets if targets.ndim == 2 else targets[:, None]


def _spread(y: FloatArray) -> float:
    """What zero is measured against: the least variance of an output, as the loss is the mean over all outputs."""
    variances = ((y - y.mean(axis=0)) ** 2).mean(axis=0)
    constant = (y == y[:1]).all(axis=0)
    scales = np.where(constant, np.maximum((y**2).mean(axis=0), 1e-200), variances)
    return float(scales.min() / y.shape[1])


def _assumptions(row: Activation, rung: Rung, x: FloatArray) -> tuple[Assumption, ...]:
    centred = x - x.mean(axis=0)
    spans = int(np.linalg.matrix_rank(centred)) == min(len(x) - 1, x.shape[1])
    agree = rung.agreement is None or rung.agreement <= _AGREE
    return (
        Assumption("the targets are values of an analytic function, without noise", False),
        Assumption("the inputs are generic: the criterion fails on a set of measure zero", False),
        Assumption("the loss is zero, of which floating point sees the leading digits", False),
        Assumption(f"the activation is analytic ({row.label})", True, row.analytic),
        Assumption("different input points outnumber the dimension of the manifold", True, rung.exceeds),
        Assumption("the inputs do not lie in an affine subspace", True, spans),
        Assumption("all runs that interpolate are the same function", True, agree),
    )  # fmt: skip


def _floats(net: Network) -> Network:
    """The same network over float64 (its weights are floats already, held as rationals)."""
    return Network.from_arrays(
        *((layer.weight64, np.asarray(layer.bias, np.float64)) for layer in net.layers),
        activation=[layer.activation for layer in net.layers],
    )
