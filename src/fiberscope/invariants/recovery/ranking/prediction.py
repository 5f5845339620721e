"""From how many samples on training confined to a structural invariant manifold should recover a target.

On the manifold of r groups of neurons that move together (the others null), a two-layer network trains like one of
width r. It holds the target iff r >= k, k the neurons that the target needs. Its dimension D = r (d + 1 + p) takes the
part of the number of parameters: from n > D samples on, zero training loss on it is a criterion of recovery. It is no
certificate: it is for generic data.

Why, for analytic activations, any depth and any number of outputs: at a theta on it with f_theta != f*, the inputs
where all n residuals vanish are a product of n proper analytic sets, of dimension <= n (d - 1). Over all such theta the
inputs that mislead have dimension <= D + n (d - 1), which is less than n d iff n > D. Activations with kinks have no
such count: a piece that no sample sees moves freely. (arXiv 2309.00508, Proposition 4.1, has r = k under a hypothesis
on Taylor series, which this does not need.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from fiberscope.activations import Activation
from fiberscope.arguments import as_counts, as_switch
from fiberscope.errors import InputError
from fiberscope.invariants.manifolds.rules import class_rules
from fiberscope.invariants.recovery.ranking.optimistic import OptimisticSize, optimistic_sample_size
from fiberscope.invariants.recovery.ranking.results import trained_parts
from fiberscope.invariants.recovery.ranking.tied import TiedNetwork
from fiberscope.network import Network, require_network
from fiberscope.results import Assumption, Budget, Result, Rigor


@dataclass(frozen=True)
class ManifoldRow:
    """The manifolds of one width.

    Args:
        widths: hidden widths of the network that training on them follows; (r,) for two layers.
        dimension: number of parameters that move.
        contains: whether the target lies on such a manifold, as far as is known.
        samples: the smallest n for which zero training loss on it is a criterion of recovery, None if it does not
            hold the target, or if an activation is not analytic.
        status: "theorem"; "unconstrained" (the theorem for all parameters); "no criterion" where an activation is not
            analytic; "no" where the target does not lie on it; "not found" where that is not proved.
        count: labelled manifolds with so many classes (null neurons allowed where s(0) = 0), None for deep networks.
    """

    widths: tuple[int, ...]
    dimension: int
    contains: bool
    samples: int | None
    status: str
    count: int | None = None

    @property
    def groups(self) -> int:
        """Number r of groups of all hidden layers."""
        return sum(self.widths)


@dataclass(frozen=True, eq=False)
class Prediction(Result):
    """Sample counts that recovery on invariant manifolds needs.

    Args:
        widths: hidden widths of the architecture.
        needed: hidden widths that the target needs.
        smallest: dimension of the smallest manifold that holds the target, None if the architecture is too narrow.
        samples: the smallest n for which interpolation on that manifold is a criterion: smallest + 1. None if the
            architecture is too narrow, if an activation is not analytic, or if `smallest` is 0: that manifold is the
            target alone, and interpolation says nothing.
        unconstrained: the smallest n for which interpolation by all parameters is: M + 1; None where samples say
            nothing because an activation is not analytic.
        parameters: M.
        optimistic: the optimistic sample size.
        rows: one for each width r from 1 on; for deep networks the smallest manifold and the whole.
        assumes: the hypotheses, with what was checked.
        rigor: GENERIC: for generic data, on hypotheses that are partly unchecked.
        trained: what is, in words.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"optimistic"})

    widths: tuple[int, ...]
    needed: tuple[int, ...]
    smallest: int | None
    samples: int | None
    unconstrained: int | None
    parameters: int
    optimistic: OptimisticSize
    rows: tuple[ManifoldRow, ...]
    assumes: tuple[Assumption, ...]
    rigor: Rigor = Rigor.GENERIC
    theorems: tuple[str, ...] = ("equitable-sim",)
    trained: str = ""

    def at(self, n: int) -> ManifoldRow | None:
        """The largest manifold on which interpolating n samples is a criterion, None if n is too small for all."""
        found = [row for row in self.rows if row.samples is not None and n >= row.samples]
        return max(found, key=lambda row: row.dimension) if found else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        out = super().to_dict()
        out["optimistic"] = self.optimistic.value
        out["optimistic_kind"] = self.optimistic.kind
        return out

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of the table of manifolds, one row for each width."""
        return {
            "widths": ["-".join(map(str, row.widths)) for row in self.rows],
            "dimension": [row.dimension for row in self.rows],
            "contains": [row.contains for row in self.rows],
            "samples": [row.samples for row in self.rows],
            "status": [row.status for row in self.rows],
            "count": [row.count for row in self.rows],
        }

    def __str__(self) -> str:
        """One screen."""
        need, wide = ("-".join(map(str, w)) for w in (self.needed, self.widths))
        if self.smallest is None:
            form = "needs" if self.optimistic.exact else "was found to need no more than"
            return f"the target {form} hidden widths {need}; no manifold of width {wide} is known to hold it"
        value = self.optimistic.value
        lines = [
            f"recovery of a target of width {need} by width {wide} ({self.parameters:,} parameters), "
            f"{self.rigor.name}: a criterion, no certificate",
            f"  trained: {self.trained}",
            f"  smallest manifold that holds it: dimension {self.smallest:,}; {self._criterion()}",
            f"  all parameters: from {_count(self.unconstrained)}; optimistic sample size {value:,} "
            f"({self.optimistic.kind}, local)",
            "  width  dimension  from n  status",
        ]
        shown = [row for row in self.rows if row.contains]
        for row in shown[:12] + ([shown[-1]] if len(shown) > 12 else []):
            name = "-".join(map(str, row.widths))
            lines.append(f"  {name:>5}  {row.dimension:9,}  {_shown(row.samples):>6}  {row.status}")
        for a in self.assumes:
            seen = "not checked" if not a.checked else "holds" if a.holds else "FAILS"
            lines.append(f"  assumes: {a.statement} ({seen})")
        return "\n".join(lines)

    def _criterion(self) -> str:
        if self.samples is not None:
            return f"zero training loss on it is a criterion from n = {self.samples:,}"
        if self.smallest == 0:
            return "it is the target alone, without hidden neurons: nothing to interpolate, so no criterion"
        return "no criterion: pieces of activations that no sample sees move freely"


def _shown(samples: int | None) -> str:
    return "-" if samples is None else f"{samples:,}"


def _count(samples: int | None) -> str:
    return "no number of samples" if samples is None else f"n = {samples:,}"


def predict_recovery(
    target: Network | TiedNetwork, widths: Sequence[int] | int, *, bias: bool = True, output_bias: bool = False,
    budget: Budget | float | None = None,
) -> Prediction:  # fmt: skip
    """The invariant manifolds that hold a target, and the samples from which interpolation on them is a criterion.

    Two layers, d inputs, p outputs: the manifold of r groups has dimension r (d + p), with hidden biases r (d + p + 1),
    and holds the target iff r >= k; for analytic activations interpolating n > dimension generic samples on it is a
    criterion of recovery, proved in the module's text; for others there is none. Deeper networks: the manifold of the
    reduced target, and all parameters.

    Args:
        target: the network to be recovered; what is redundant in it does not count.
        widths: hidden width m, hidden widths, or all widths (d, ..., p).
        bias: whether hidden biases are trained.
        output_bias: whether output biases are trained; not by default, as in the papers. The network that is trained
            is assumed here; where one is given (`model_rank`, `orbit`, `embed`) its output biases are trained.
        budget: seconds for the reduction of deep targets.

    Raises:
        InputError: if widths do not fit the target.
        ScopeError: for two-layer activations without exact classes.

    Complexity: that of the optimistic sample size, O(m^2) for the numbers of manifolds.
    Source: arXiv 2510.09564 (manifolds), after arXiv 2309.00508 Proposition 4.1 (criterion).

    >>> net = Network.from_arrays(([[1, 2], [2, 1]], [1, 0]), ([[1, 1]], None), activation="tanh")
    >>> found = predict_recovery(net, 5)
    >>> found.smallest, found.samples, found.unconstrained, [row.dimension for row in found.rows]
    (8, 9, 21, [4, 8, 12, 16, 20])
    """
    if not isinstance(target, TiedNetwork):
        require_network(target, "target")
    bias, output_bias = as_switch(bias, "bias"), as_switch(output_bias, "output_bias")
    hidden = _hidden(target, widths)
    size = optimistic_sample_size(target, "fc", widths=hidden, bias=bias, output_bias=output_bias, budget=budget)
    small = size.witness
    if isinstance(small, TiedNetwork):
        needed: tuple[int, ...] = (len(small.rows),)
        d, p, activations = small.inputs, small.outputs, [small.activation]
    elif isinstance(small, Network):
        needed = small.widths[1:-1]
        d, p, activations = small.widths[0], small.widths[-1], [layer.activation for layer in small.hidden]
    else:
        raise InputError("the target has no narrowest form")

    def dimension(inner: Sequence[int]) -> int:
        around = (d, *inner, p)
        return sum(a * b for a, b in zip(around, around[1:], strict=False)) + bias * sum(inner) + p * output_bias

    whole = dimension(hidden)
    if len(hidden) == 1:
        if needed == (0,) and activations[0].value(Fraction(0)) != 0:
            needed = (1,)  # no neuron is silent
        rows = _two_layer_rows(hidden[0], needed[0], dimension, activations[0])
    else:
        rows = _deep_rows(hidden, needed, dimension)
    smallest = dimension(needed) if _fits(needed, hidden) else None
    samples = smallest + 1 if smallest else None  # dimension 0 is the target alone
    analytic = all(row.analytic for row in activations)
    if not analytic:
        samples = None
        rows = tuple(replace(row, samples=None, status="no criterion") if row.contains else row for row in rows)
    if not size.exact:
        rows = tuple(replace(row, status="not found") if row.status == "no" else row for row in rows)
    return Prediction(
        hidden, needed, smallest, samples, whole + 1 if analytic else None, whole, size, rows,
        _hypotheses(activations, size),
        theorems=(*(("sim-recovery",) if samples is not None else ()), *size.theorems, "equitable-sim"),
        trained=trained_parts(bias, output_bias),
    )  # fmt: skip


def _hidden(target: Network | TiedNetwork, widths: Sequence[int] | int) -> tuple[int, ...]:
    hidden = as_counts(widths if isinstance(widths, Sequence | np.ndarray) else (widths,), "widths")
    around = target.widths if isinstance(target, Network) else (target.inputs, len(target.rows), target.outputs)
    depth = len(around) - 2
    if len(hidden) == depth + 2:
        if (hidden[0], hidden[-1]) != (around[0], around[-1]):
            raise InputError(f"widths {hidden}; the target has {around[0]} inputs and {around[-1]} outputs")
        hidden = hidden[1:-1]
    if len(hidden) != depth or min(hidden, default=0) < 1:
        raise InputError(f"hidden widths {hidden} for a target with {depth} hidden layers; give one >= 1 for each")
    return hidden


def _two_layer_rows(width: int, needed: int, dimension: Any, row: Activation) -> tuple[ManifoldRow, ...]:
    counts = _counts(width, row)
    out = []
    for r in range(1, width + 1):
        status = "no" if r < needed else "unconstrained" if r == width > needed else "theorem"
        size = dimension((r,))
        out.append(ManifoldRow((r,), size, r >= needed, size + 1 if r >= needed else None, status, counts[r]))
    return tuple(out)


def _counts(width: int, row: Activation) -> list[int]:
    """Labelled manifolds with r classes: Stirling numbers, with 2^(m - r) signs, and with a null class.

    By the class of the last neuron, N(m, r) = N(m - 1, r - 1) + (signs r + null) N(m - 1, r).
    """
    rules = class_rules(row)
    factor, null = 2 if rules.signs else 1, 1 if rules.null else 0
    table = [1]
    for m in range(1, width + 1):
        table = [(table[r - 1] if r else 0) + ((factor * r + null) * table[r] if r < m else 0) for r in range(m + 1)]
    return table


def _fits(needed: Sequence[int], hidden: Sequence[int]) -> bool:
    return len(needed) == len(hidden) and all(a <= b for a, b in zip(needed, hidden, strict=True))


def _deep_rows(hidden: tuple[int, ...], needed: tuple[int, ...], dimension: Any) -> tuple[ManifoldRow, ...]:
    fits = _fits(needed, hidden)
    whole = dimension(hidden)
    out = []
    if fits and needed != hidden:
        size = dimension(needed)
        out.append(ManifoldRow(needed, size, True, size + 1, "theorem"))
    return (*out, ManifoldRow(hidden, whole, fits, whole + 1 if fits else None, "unconstrained" if fits else "no"))


def _hypotheses(rows: Sequence[Activation], size: OptimisticSize) -> tuple[Assumption, ...]:
    names = ", ".join(dict.fromkeys(row.label for row in rows))
    return (
        Assumption("the target is a network of the activation of the architecture, given exactly", True, True),
        Assumption("no narrower network expresses the target", size.exact, True if size.exact else None),
        Assumption(f"the activation is analytic ({names})", True, all(row.analytic for row in rows)),
        Assumption("the samples are generic and their labels free of noise", False),
        Assumption("training reaches zero loss on the manifold", False),
        Assumption("training is confined to it, by reduced coordinates: rounding leaves it otherwise", False),
    )
