"""Which width to take when no width explains the data exactly: held-out error with its standard error, or BIC.

Nothing here is about recovery: the answer is a preference among widths, not a statement that one of them is true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.arguments import as_choice, as_count, as_counts, as_finite, as_switch
from fiberscope.errors import InputError
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.invariants.recovery.ladders.leastsquares import Fits, mixed, survivors
from fiberscope.network import Network
from fiberscope.results import Assumption, Budget, Progress, Result, Rigor, Stopwatch

FloatArray = npt.NDArray[np.float64]
Criterion = Literal["held-out", "bic"]
CRITERIA = ("held-out", "bic")


@dataclass(frozen=True)
class WidthScore:
    """One width.

    Args:
        width: hidden neurons r (0: a constant, the mean of the targets).
        dimension: trained parameters.
        train: mean squared error of the best fit to all data.
        bic: N log(train) + dimension log(N), N = n n_L; None unless dimension < N and train > 0.
        held_out: mean over the folds of the mean squared error on the fold, fitted without it.
        standard_error: of that mean over the folds.
    """

    width: int
    dimension: int
    train: float
    bic: float | None
    held_out: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class Selection(Result):
    """The width that a named criterion prefers, and the scores of all.

    Args:
        criterion: "held-out" (the smallest width within one standard error of the least held-out error) or "bic".
        width: the choice.
        least: the width of least held-out error or least BIC.
        scores: one for each width.
        folds: of the cross-validation.
        points: n.
        network: the best fit of the chosen width to all data.
        complete: whether the budget sufficed for every width.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network"})

    criterion: str
    width: int
    least: int
    scores: tuple[WidthScore, ...]
    folds: int
    points: int
    network: Network
    complete: bool
    assumptions: tuple[Assumption, ...]
    rigor: Rigor = Rigor.SAMPLED
    theorems: tuple[str, ...] = ()

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of equal length, one row for each width."""
        names = ("width", "dimension", "train", "bic", "held_out", "standard_error")
        return {name: [getattr(score, name) for score in self.scores] for name in names}

    def __str__(self) -> str:
        """One screen."""
        what = (
            "smallest width within one standard error of the least held-out error"
            if self.criterion == "held-out"
            else "least BIC"
        )
        lines = [
            f"width {self.width} by {self.criterion}: {what} ({self.points} points, {self.folds} folds; a preference, "
            "not an explanation)",
            "  width  parameters  train MSE   held-out MSE           BIC",
        ]
        for s in self.scores:
            mark = "*" if s.width == self.width else " "
            bic = "-" if s.bic is None else f"{s.bic:.1f}"
            lines.append(
                f" {mark}{s.width:>5}  {s.dimension:>10}  {s.train:<10.4g}  {s.held_out:.4g} +- "
                f"{s.standard_error:<10.2g}  {bic}"
            )
        if not self.complete:
            lines.append("  the budget was spent before every width was tried")
        return "\n".join(lines)


def select_width(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    widths: Sequence[int],
    *,
    activation: str | Activation = "tanh",
    criterion: Criterion = "held-out",
    bias: bool = True,
    output_bias: bool = True,
    folds: int = 5,
    starts: int = 96,
    steps: int = 200,
    seed: int = 0,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Fit every width by least squares from many starts and choose one by held-out error or BIC.

    Held-out error: K-fold cross-validation; the start is chosen by training error alone, so no held-out point is used
    twice. Its standard error is that of the K fold means; the choice is the smallest width within one standard error
    of the least. BIC = N log(MSE) + dimension log(N).

    Args:
        x: inputs (n, n_0).
        y: targets (n,) or (n, n_L).
        widths: numbers of hidden neurons; 0 is the constant and a useful yardstick.
        activation: hidden activation.
        criterion: "held-out" or "bic".
        bias: hidden biases.
        output_bias: bias of the output: yes by default, for with it width 0 is the constant.
        folds: K.
        starts: of each fit.
        steps: of each start that survives.
        seed: of folds and starts.
        budget: seconds; the widths scored by then are compared.
        progress: called with (fraction, text).

    Raises:
        InputError: if the data do not fit, or there are fewer points than folds.

    Complexity: (K + 1) fits for each width, each O(starts n M^2). Source: Schwarz 1978 (BIC).

    >>> x, noise = np.linspace(-1, 1, 40)[:, None], 0.05 * np.random.default_rng(2).standard_normal(40)
    >>> select_width(x, np.tanh(3 * x[:, 0]) + noise, (0, 1, 2), starts=8).width
    1
    """
    as_choice(criterion, "criterion", CRITERIA)
    bias, output_bias, seed = as_switch(bias, "bias"), as_switch(output_bias, "output_bias"), as_count(seed, "seed")
    folds, starts, steps = as_count(folds, "folds", 2), as_count(starts, "starts", 1), as_count(steps, "steps", 1)
    inputs, targets = as_finite(x, "x"), as_finite(y, "y")
    targets = targets[:, None] if targets.ndim == 1 else targets
    tried = sorted(set(as_counts(widths, "widths", 0)))
    if not 2 <= folds <= len(inputs):
        raise InputError(f"{folds} folds for {len(inputs)} points; give 2 <= folds <= points")
    clock = Budget.of(budget).start()
    places = np.array_split(np.random.default_rng([seed, 0]).permutation(len(inputs)), folds)
    model = _Model(activation, bias, output_bias, starts, steps, seed)
    scores: list[WidthScore] = []
    chains: list[tuple[Fits, Landscape]] | None = None
    nets: dict[int, Network] = {}
    for k, r in enumerate(tried):
        if progress is not None:
            progress(k / len(tried), f"width {r} of {tried[-1]}")
        if clock.expired and scores:
            break
        if r == 0:
            score, net = _constant(inputs, targets, places)
        else:
            score, net, chains = model.score(r, inputs, targets, places, chains, clock)
        if clock.expired and scores:
            break
        scores.append(score)
        nets[r] = net
    chosen, least = _choice(scores, criterion)
    return Selection(
        criterion, chosen, least, tuple(scores), folds, len(inputs), nets[chosen], len(scores) == len(tried),
        _assumptions(criterion),
    )  # fmt: skip


def _choice(scores: Sequence[WidthScore], criterion: str) -> tuple[int, int]:
    if criterion == "bic":
        able = [s for s in scores if s.bic is not None]
        if not able:
            raise InputError("no width has fewer parameters than there are targets, so BIC compares none")
        least = min(able, key=lambda s: s.bic if s.bic is not None else math.inf)
        return least.width, least.width
    best = min(scores, key=lambda s: s.held_out)
    within = [s for s in scores if s.held_out <= best.held_out + best.standard_error]
    return min(s.width for s in within), best.width


def _assumptions(criterion: str) -> tuple[Assumption, ...]:
    common = (Assumption("points are independent draws from one law", False),)
    fits = Assumption("the best of the starts is the least-squares fit", False)
    if criterion == "held-out":
        return (*common, fits)
    return (
        *common, fits, Assumption("errors are Gaussian of one variance", False),
        Assumption("the model is regular at the fit (no two neurons alike); else BIC is a heuristic", False),
    )  # fmt: skip


def _constant(x: FloatArray, y: FloatArray, places: Sequence[npt.NDArray[np.int64]]) -> tuple[WidthScore, Network]:
    errors = []
    for fold in places:
        rest = np.setdiff1d(np.arange(len(x)), fold)
        errors.append(float(((y[fold] - y[rest].mean(axis=0)) ** 2).mean()))
    net = Network.from_arrays((np.zeros((y.shape[1], x.shape[1])), y.mean(axis=0)))
    return _scored(0, y.shape[1], float(((y - y.mean(axis=0)) ** 2).mean()), errors, y.size), net


def _scored(width: int, dimension: int, train: float, errors: Sequence[float], count: int) -> WidthScore:
    bic = count * math.log(train) + dimension * math.log(count) if train > 0 and dimension < count else None
    spread = float(np.std(errors, ddof=1)) / math.sqrt(len(errors))
    return WidthScore(width, dimension, train, bic, float(np.mean(errors)), spread)


@dataclass(frozen=True)
class _Model:
    activation: str | Activation
    bias: bool
    output_bias: bool
    starts: int
    steps: int
    seed: int

    def landscape(self, r: int, x: FloatArray, y: FloatArray) -> Landscape:
        return Landscape(
            (x.shape[1], r, y.shape[1]), self.activation, x, y, bias=self.bias, output_bias=self.output_bias
        )

    def score(
        self,
        r: int,
        x: FloatArray,
        y: FloatArray,
        places: Sequence[npt.NDArray[np.int64]],
        chains: list[tuple[Fits, Landscape]] | None,
        clock: Stopwatch,
    ) -> tuple[WidthScore, Network, list[tuple[Fits, Landscape]]]:
        """Fit all data first and then without each fold; fits of the last width give starts for the next."""
        rest = [np.setdiff1d(np.arange(len(x)), fold) for fold in places]
        new, errors = [], []
        for k, points in enumerate([np.arange(len(x)), *rest]):
            here = self.landscape(r, x[points], y[points])
            rng = np.random.default_rng([self.seed, 1, r, k])
            old = chains[k] if chains is not None and chains[k][1].widths[1] == r - 1 else None
            start = mixed(here, self.starts, rng, *((old[1], old[0].theta[:8]) if old else ()))
            fits = survivors(here, start, steps=self.steps, clock=clock)
            new.append((fits, here))
            if k:
                fold = places[k - 1]
                errors.append(float(((here.outputs(fits.theta[:1], x[fold])[0] - y[fold]) ** 2).mean()))
        fits, whole = new[0]
        score = _scored(r, whole.size, float(fits.losses[0]), errors, y.size)
        return score, whole.network(fits.theta[0]), new
