"""The optimistic sample size: the smallest model rank among all parameters that express a target.

O_f(f*) = min rank_f(theta) over {theta: f_theta = f*}. From so many generic data on, an analytic model has a parameter
near which linear regression finds the target (arXiv 2307.08921, 2406.18035). It is no statement about training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_choice, as_count, as_counts, as_exact, as_switch
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.ranking.tangents import Shape, neuron_groups, shape_of, tangent_rank
from fiberscope.invariants.recovery.ranking.tied import TiedNetwork
from fiberscope.network import Network
from fiberscope.results import Assumption, Budget, Result, Rigor

ExactArray = npt.NDArray[Any]

ARCHITECTURES = ("fc", "cnn", "cnn-unshared", "factorisation", "diagonal", "deep-linear")

MEANING = (
    "local: with so many generic data some parameter that expresses the target is found by linear regression near "
    "it; training from elsewhere usually needs more"
)


@dataclass(frozen=True, eq=False)
class OptimisticSize(Result):
    """The optimistic sample size of a target in an architecture.

    Args:
        value: the number, None if the architecture cannot express the target.
        exact: whether it is the minimum, else an upper bound of it.
        architecture: "fc", "cnn", ...
        formula: how it comes about.
        neurons: hidden neurons (or channels) of the narrowest form that was found; rank or sparsity for matrices and
            vectors.
        thresholds: sample counts side by side: `optimistic`, and `parameters` (M) where the width is given.
        assumes: the hypotheses.
        witness: a network, without what is redundant, at which the rank is attained; None for products.
        rigor: EXACT (the rank over Q, and that it is the minimum where `exact`).
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"witness"})

    value: int | None
    exact: bool
    architecture: str
    formula: str
    neurons: int | None
    thresholds: dict[str, int] = field(default_factory=dict)
    assumes: tuple[Assumption, ...] = ()
    witness: TiedNetwork | Network | None = None
    meaning: str = MEANING
    rigor: Rigor = Rigor.EXACT
    theorems: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Exact, or an upper bound."""
        return "exact" if self.exact else "upper bound"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**super().to_dict(), "kind": self.kind}

    def __str__(self) -> str:
        """One screen."""
        if self.value is None:
            return f"no optimistic sample size ({self.architecture}): {self.formula}"
        lines = [f"optimistic sample size {self.value:,} ({self.kind}, {self.architecture})", f"  {self.formula}"]
        if "parameters" in self.thresholds:
            lines.append(f"  parameters of the architecture: {self.thresholds['parameters']:,}")
        lines.append(f"  {self.meaning}")
        for a in self.assumes:
            seen = "not checked" if not a.checked else "holds" if a.holds else "FAILS"
            lines.append(f"  assumes: {a.statement} ({seen})")
        return "\n".join(lines)


def optimistic_sample_size(
    target: Network | TiedNetwork | npt.ArrayLike, architecture: str | None = None, *,
    widths: Sequence[int] | int | None = None, bias: bool = True, output_bias: bool = False, depth: int = 2,
    budget: Budget | float | None = None,
) -> OptimisticSize:  # fmt: skip
    """The smallest rank of the tangent functions among all parameters that express the target.

    O_f(f*) = min {rank_f(theta): f_theta = f*}. Two-layer networks with k classes of neurons, d inputs and p outputs:
    k (p + d), with hidden biases k (p + d + 1); a shared convolution with full kernels: p windows + kernel size for
    each channel, without sharing p + kernel size for each class of windows; a p x q matrix of rank r: (p + q) r - r^2;
    a k-sparse vector: k. Ranks are those of the exact numbers: give decimals as `Fraction`.

    Args:
        target: a (narrow) network; a `TiedNetwork.convolution` for "cnn" and "cnn-unshared"; a matrix for
            "factorisation" and "deep-linear"; a vector for "diagonal".
        architecture: None for "fc", "factorisation" or "diagonal", as the target is.
        widths: of the architecture, to see that it is wide enough and to count its parameters: hidden neurons,
            (d, m, p), channels, inner dimensions.
        bias: whether hidden biases are trained.
        output_bias: whether output biases are trained; not by default, as in the papers.
        depth: number of factors of "diagonal".
        budget: seconds for the reduction of deep targets; less of it gives a larger upper bound.

    Returns:
        Exact where the minimum is proved, otherwise an upper bound: the rank at the narrowest form found, for deep
        networks the number of parameters of the reduced network.

    Raises:
        InputError: if target and architecture do not fit.
        ScopeError: for two-layer activations without an exact rank.

    Complexity: that of the exact rank. Source: arXiv 2307.08921, 2406.18035; minimality by the uniqueness of
    tau-parts (`tangents`).

    >>> optimistic_sample_size([[1, 2], [2, 4]]).value
    3
    >>> net = Network.from_arrays(([[1, 2], [1, 2]], [1, 1]), ([[1, 1]], None), activation="tanh")
    >>> optimistic_sample_size(net).value, optimistic_sample_size(net).exact
    (4, True)
    """
    kind = _kind_of(target) if architecture is None else as_choice(architecture, "architecture", ARCHITECTURES)
    bias, output_bias, depth = as_switch(bias, "bias"), as_switch(output_bias, "output_bias"), as_count(depth, "depth")
    listed = widths if isinstance(widths, Sequence | np.ndarray) else (widths,)
    wide = None if widths is None else as_counts(listed, "widths")
    if isinstance(target, Network | TiedNetwork):
        if kind in ("factorisation", "diagonal", "deep-linear"):
            raise InputError(f"architecture {kind!r} expresses matrices and vectors; give an array as the target")
        if isinstance(target, Network) and target.depth != 2:
            if kind != "fc":
                raise InputError(f"{target.architecture}; convolutions are TiedNetworks of two layers")
            return _deep(target, wide, bias, output_bias, budget)
        return _two_layers(target, kind, wide, bias, output_bias)
    if kind in ("fc", "cnn", "cnn-unshared"):
        raise InputError(f"architecture {kind!r} expresses networks; give a Network or a TiedNetwork as the target")
    array = as_exact(target, "target")
    if array.ndim != (1 if kind == "diagonal" else 2):
        raise InputError(
            f"target of shape {array.shape} for {kind!r}; expected a {'vector' if kind == 'diagonal' else 'matrix'}"
        )
    if kind == "diagonal":
        return _sparse(array, depth)
    return _low_rank(array, kind, wide)


def _kind_of(target: Any) -> str:
    if isinstance(target, Network | TiedNetwork):
        return "fc"
    return "diagonal" if np.ndim(target) == 1 else "factorisation"


# ---- matrices and vectors


def _generic_data(analytic: bool) -> tuple[Assumption, ...]:
    return (
        Assumption("f is analytic in its parameters and inputs", True, analytic),
        Assumption("the data are generic and noise-free", False),
    )


def _sparse(target: ExactArray, depth: int) -> OptimisticSize:
    if depth < 2:
        raise InputError(f"depth {depth}; a product needs at least 2 factors")
    k = int((target != 0).sum())
    return OptimisticSize(
        k, True, "diagonal", f"entries that are not 0: {k} of {target.size}, for every depth >= 2", k,
        {"optimistic": k, "parameters": depth * target.size}, _generic_data(True), theorems=("optimistic-size",),
    )  # fmt: skip


def _low_rank(target: ExactArray, kind: str, widths: tuple[int, ...] | None) -> OptimisticSize:
    p, q = target.shape
    r = rationals.rank(target)
    inner = widths
    if widths is not None and kind == "deep-linear" and len(widths) > 2 and (widths[0], widths[-1]) == (q, p):
        inner = widths[1:-1]
    if inner is not None and min(inner) < r:
        return OptimisticSize(
            None, True, kind, f"the target has rank {r}, more than the inner dimension {min(inner)}", r
        )
    value = (p + q) * r - r * r
    thresholds = {"optimistic": value}
    if inner is not None:
        around = (q, *inner, p)
        thresholds["parameters"] = sum(a * b for a, b in zip(around, around[1:], strict=False))
    text = f"({p} + {q}) r - r^2 with the rank r = {r}"
    return OptimisticSize(value, True, kind, text, r, thresholds, _generic_data(True), theorems=("optimistic-size",))


# ---- two layers


def _two_layers(
    target: Network | TiedNetwork, kind: str, widths: tuple[int, ...] | None, bias: bool, output_bias: bool
) -> OptimisticSize:
    if isinstance(target, Network):
        if kind != "fc":
            raise InputError(f"for {kind!r} give the target as a TiedNetwork.convolution, which knows its windows")
        net = TiedNetwork.of(target, output_bias=output_bias)
        require_output_bias(target, output_bias)
    else:
        net = replace(target, output_bias=output_bias)
    shape = shape_of(net.activation)
    if shape is None:
        raise ScopeError(f"no exact rank is known for {net.activation.label}")
    if kind == "fc":
        full = _connected(net, bias, output_bias)
        small, lower = merged(full), None
        formula, count = _class_formula(small, shape)
    elif kind == "cnn-unshared":
        small, lower = merged(net.unshared()), None
        formula, count = _class_formula(small, shape)
    else:
        small, lower, count = _merged_channels(net, shape)
        windows = len(small.rows) // max(1, count)
        size = small.tied // max(1, count)
        formula = f"{count} kernels: {windows} windows each ({small.outputs} outputs) + {size} tied weights"
    least = _lower_bound(small, shape) if lower is None else lower
    value = tangent_rank(small)
    if not len(small.rows) and net.activation.value(Fraction(0)) != 0:  # s(0) != 0: silent neurons still put out s(b)
        value = least = net.outputs
    needed = widths[-2] if widths is not None and len(widths) > 1 else widths[0] if widths else None
    exact = value == least
    if kind != "cnn-unshared" and needed is not None and needed < count:
        units = "channels" if kind == "cnn" else "neurons"
        text = f"the narrowest form found has {count} {units}, the architecture only {needed}"
        return OptimisticSize(None, exact, kind, text, count, witness=small, theorems=("model-rank",))
    thresholds = {"optimistic": value}
    if needed is not None:
        thresholds["parameters"] = _parameters(net, kind, needed, bias, output_bias)
    analytic = net.activation.analytic
    return OptimisticSize(
        value, exact, kind, f"{formula} = {value}", count, thresholds, _generic_data(analytic), small,
        theorems=("model-rank", *(("optimistic-size",) if analytic else ())),
    )  # fmt: skip


def require_output_bias(net: Network, output_bias: bool) -> None:
    """Refuse a target whose last bias the architecture does not have.

    Raises:
        InputError: if there is one and `output_bias` is False.
    """
    if not output_bias and (net.layers[-1].bias != 0).any():
        raise InputError("the target has an output bias, the architecture has none; pass output_bias=True")


def _connected(net: TiedNetwork, bias: bool, output_bias: bool) -> TiedNetwork:
    shift = net.rows[:, -1]
    if not bias and (shift != 0).any():
        raise InputError("the target has hidden biases, the architecture has none; pass bias=True")
    return TiedNetwork.dense(
        net.rows[:, :-1], shift if bias else None, net.outer, net.activation, output_bias=output_bias
    )


def merged(net: TiedNetwork) -> TiedNetwork:
    """The same function with one neuron for each class, or one for each sign where a sign leaves a remainder.

    Neurons whose outgoing weights cancel are dropped, and so are neurons without inputs where output biases can do
    what they do. Untied networks only: each neuron must have parameters of its own.

    Args:
        net: fully connected, or `unshared`.

    >>> net = TiedNetwork.dense([[1, 2], [-1, -2], [3, 3]], None, [1, 2, 0])
    >>> merged(net).rows.tolist(), merged(net).outer.tolist()
    ([[1.0, 2.0, 0.0]], [[-1.0]])
    """
    shape = shape_of(net.activation)
    if shape is None:
        raise ScopeError(f"classes of {net.activation.label} neurons are not known")
    groups = neuron_groups(net)
    outer = rationals.fractions(net.outer)
    total: dict[tuple[int, int], ExactArray] = {}
    first: dict[tuple[int, int], tuple[int, Fraction]] = {}
    for place, n in enumerate(groups.live):
        e, c = groups.classes.factors[place], int(groups.classes.labels[place])
        sign = 1 if shape.pure or e > 0 else -1
        head, own = first.setdefault((c, sign), (n, e))
        factor = e / own
        if shape.kind == "even":
            factor = Fraction(1)
        elif shape.kind == "kink":
            factor = abs(factor)
        total[c, sign] = total.get((c, sign), Fraction(0)) + factor * outer[:, n]
    kept = [(first[key][0], column) for key, column in total.items() if column.any()]
    if not net.output_bias:
        same: dict[Fraction, tuple[int, ExactArray]] = {}
        for n in groups.quiet:
            b = rationals.as_fraction(net.rows[n, -1])
            before = same.get(b)
            same[b] = (n, outer[:, n]) if before is None else (before[0], before[1] + outer[:, n])
        silent = net.activation.value(Fraction(0)) == 0
        kept += [(n, a) for b, (n, a) in same.items() if a.any() and not (silent and b == 0)]
    kept.sort(key=lambda pair: pair[0])
    columns = np.array([a for _, a in kept], dtype=object).T.reshape(net.outputs, len(kept))
    return net.keep([n for n, _ in kept], rationals.simplified(columns))


def _class_formula(net: TiedNetwork, shape: Shape) -> tuple[str, int]:
    count, p = len(net.rows), net.outputs
    inner = net.per_neuron
    text = f"{count} neurons: {p} outgoing + {inner} incoming weights each"
    if shape.kind == "kink":
        text += " - 1 scaling"
    if net.output_bias:
        text += f", {p} output biases"
    return text, count


def _lower_bound(net: TiedNetwork, shape: Shape) -> int:
    """Every parameter that expresses the target holds each of its classes: their tau-parts are unique."""
    groups = neuron_groups(net)
    scaling = 1 if shape.kind == "kink" else 0
    total = net.outputs if net.output_bias else 0
    outer = rationals.fractions(net.outer)
    for block, places in zip(groups.members, groups.classes.members, strict=True):
        whole = np.full(net.outputs, Fraction(0), dtype=object)
        for n, place in zip(block, places, strict=True):
            e = groups.classes.factors[place]
            whole = whole + outer[:, n] * (e if shape.kind == "odd" else 1 if shape.kind == "even" else abs(e))
        if whole.any():
            total += net.outputs + int((net.index[block[0]] >= 0).sum()) - scaling
    return total


def _merged_channels(net: TiedNetwork, shape: Shape) -> tuple[TiedNetwork, int, int]:
    """One channel for each kernel up to what the activation forgives, a lower bound of the rank, and the count."""
    if net.kernels is None:
        raise InputError("a target for 'cnn' is a TiedNetwork.convolution with shared kernels")
    channels, windows = len(net.kernels), len(net.rows) // max(1, len(net.kernels))
    outer = rationals.fractions(net.outer).reshape(net.outputs, channels, windows)
    firsts = net.rows[::windows]
    flat = TiedNetwork.dense(firsts[:, :-1], firsts[:, -1], np.ones(channels), net.activation)
    groups = neuron_groups(flat)
    total: dict[tuple[int, int], ExactArray] = {}
    head: dict[tuple[int, int], tuple[int, Fraction]] = {}
    by_class: dict[int, set[int]] = defaultdict(set)
    for place, c in enumerate(groups.live):
        e, label = groups.classes.factors[place], int(groups.classes.labels[place])
        sign = 1 if shape.pure or e > 0 else -1
        _, own = head.setdefault((label, sign), (c, e))
        factor = {"odd": e / own, "even": Fraction(1), "kink": abs(e / own)}[shape.kind]
        total[label, sign] = total.get((label, sign), Fraction(0)) + factor * outer[:, c]
    kept = []
    for key, a in total.items():
        if a.any():
            kept.append((head[key][0], a))
            by_class[key[0]].add(key[1])
    kept += [(c, outer[:, c]) for c in groups.quiet if outer[:, c].any()]
    kept.sort(key=lambda pair: pair[0])
    neurons = [c * windows + w for c, _ in kept for w in range(windows)]
    columns = np.array([a for _, a in kept], dtype=object).reshape(len(kept), net.outputs, windows)
    small = net.keep(neurons, rationals.simplified(columns.transpose(1, 0, 2).reshape(net.outputs, -1)))
    full = all(_full(net.kernels[c]) for c, _ in kept) and all(len(signs) == 1 for signs in by_class.values())
    scaling = 1 if shape.kind == "kink" else 0
    size = small.tied // max(1, len(kept))
    lower = len(kept) * (net.outputs * windows + size - scaling) + (net.outputs if net.output_bias else 0)
    return small, lower if full else -1, len(kept)


def _full(kernel: ExactArray) -> bool:
    """Whether no shift of the window holds the kernel's support: all outer faces have an entry that is not 0."""
    there = kernel != 0
    return all(there.take(i, axis=axis).any() for axis in range(kernel.ndim) for i in (0, -1))


def _parameters(net: TiedNetwork, kind: str, width: int, bias: bool, output_bias: bool) -> int:
    p = net.outputs
    if kind == "fc":
        return width * (net.inputs + bias + p) + p * output_bias
    channels = max(1, len(net.kernels) if net.kernels is not None else 1)
    windows = len(net.rows) // channels
    reads = net.per_neuron
    per_channel = windows * (reads + p) if kind == "cnn-unshared" else reads + windows * p
    return width * per_channel + p * net.output_bias


# ---- deep networks


def _deep(
    net: Network, widths: tuple[int, ...] | None, bias: bool, output_bias: bool, budget: Budget | float | None
) -> OptimisticSize:
    """M of the narrowest net found by lossless reduction: null embeddings do not add to the rank."""
    from fiberscope.reduction import reduce

    require_output_bias(net, output_bias)
    small = reduce(net, budget=budget).exact
    if not bias and any((layer.bias != 0).any() for layer in small.hidden):
        raise InputError("the target has hidden biases, the architecture has none; pass bias=True")
    around = small.widths
    if widths is not None:
        inner = widths[1:-1] if len(widths) == len(net.widths) else widths
        if len(inner) < small.depth - 1 or any(a < b for a, b in zip(inner, around[1:-1], strict=False)):
            text = f"the reduced target {small.architecture} does not fit hidden widths {inner}"
            return OptimisticSize(None, False, "fc", text, small.hidden_count, witness=small)
        if len(inner) != small.depth - 1:
            raise InputError(f"{len(inner)} hidden widths for a target that reduces to {small.depth - 1} hidden layers")
    value = _weights(around) + bias * sum(around[1:-1]) + output_bias * around[-1]
    thresholds = {"optimistic": value}
    if widths is not None:
        full = (around[0], *inner, around[-1])
        thresholds["parameters"] = _weights(full) + bias * sum(full[1:-1]) + output_bias * full[-1]
    analytic = all(layer.activation.analytic for layer in net.layers)
    text = f"parameters of the reduced network {small.architecture}: {value}"
    theorems = ("lossless-moves", *(("optimistic-size",) if analytic else ()))
    return OptimisticSize(
        value, False, "fc", text, small.hidden_count, thresholds, _generic_data(analytic), small, theorems=theorems
    )


def _weights(widths: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(widths, widths[1:], strict=False))
