"""Wider networks with the same function: null, splitting and compatible embeddings, exact over Q.

After arXiv 2111.15527 (Embedding Principle: a hierarchical structure of loss landscape); `layermaps` has the algebra.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.arguments import as_choice, as_count, as_counts, as_switch, shown
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.embeddings.layermaps import (
    LayerMap,
    assemble,
    null_constants,
    require_compatible,
)
from fiberscope.network import Network, require_network
from fiberscope.results import Answer, Budget, Result, Rigor, Verdict

if TYPE_CHECKING:
    from fiberscope.invariants.classes.smallest import SmallestSIM

ExactArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Kind = Literal["null", "split", "mixed", "compatible"]
KINDS = ("null", "split", "mixed", "compatible")

_ZERO, _ONE = Fraction(0), Fraction(1)
_LONG_EXPONENT = re.compile(r"[eE][+-]?\d{4}")
_GRAIN = 16
"""Random shares, biases and free parts are multiples of 1/16: short numbers stay exact in floats more often."""


@dataclass(frozen=True, eq=False)
class Embedding(Result):
    """A wide network that computes the function of a narrow one, exactly, and hands its gradient back.

    Args:
        original: the narrow network.
        network: the wide one, over Q.
        kind: "null", "split", "mixed" or "compatible".
        map: one `LayerMap` for each hidden layer.
        free: R of every affine layer, None where it is 0.
        trained: whether hidden biases, and whether output biases are trained.
        degrees_of_freedom: dimension, at least, of the set of such embeddings through this one; it is the number
            unless a copied neuron has no outgoing weight.

    Raises:
        InputError: if the wide network is no compatible embedding of the narrow one; the first condition that fails
            is named. Checked over Q.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"original", "network", "map", "free"})

    original: Network
    network: Network
    kind: str
    map: tuple[LayerMap, ...]
    free: tuple[ExactArray | None, ...]
    trained: tuple[bool, bool]
    degrees_of_freedom: int
    rigor: Rigor = Rigor.EXACT
    theorems: tuple[str, ...] = ("embedding-principle",)

    def __post_init__(self) -> None:
        """Check the algebraic conditions over Q."""
        require_compatible(self.original, self.network, self.map, self.trained)

    # ---- numbers

    @property
    def added(self) -> tuple[int, ...]:
        """Neurons added to each hidden layer."""
        pairs = zip(self.network.widths[1:-1], self.original.widths[1:-1], strict=True)
        return tuple(m - k for m, k in pairs)

    @cached_property
    def sim(self) -> SmallestSIM:
        """The smallest known invariant manifold that contains the wide network."""
        from fiberscope.invariants.classes.smallest import smallest_sim

        return smallest_sim(self.network)

    @property
    def together(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each hidden layer, copies, or null neurons, in one class of `sim`: they never separate by themselves."""
        out = []
        for own, classes in zip(self.map, self.sim.partition, strict=True):
            pairs: dict[tuple[int, int], list[int]] = {}
            for i, pair in enumerate(zip(own.labels.tolist(), classes.labels.tolist(), strict=True)):
                pairs.setdefault(pair, []).append(i)
            out.append(tuple(tuple(g) for pair, g in sorted(pairs.items()) if len(g) > 1 and pair != (-1, -1)))
        return tuple(out)

    @property
    def apart(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each hidden layer, the copies of one neuron that no class holds together."""
        return tuple(
            tuple(tuple(c.tolist()) for c in own.copies(narrow) if len(np.unique(classes.labels[c])) > 1)
            for own, classes, narrow in zip(self.map, self.sim.partition, self.original.widths[1:-1], strict=True)
        )

    # ---- what it does to networks

    def apply(self, net: Network) -> Network:
        """The same embedding of another network of the narrow widths: an affine map of its parameters.

        Raises:
            InputError: if the widths differ.
        """
        if net.widths != self.original.widths:
            raise InputError(f"a network of widths {net.widths}; the embedding takes {self.original.widths}")
        return assemble(net, self.map, self.free)

    def floats(self, dtype: npt.DTypeLike = np.float64) -> Network:
        """The wide network rounded to a float dtype.

        Raises:
            InputError: if a weight exceeds the dtype.
        """
        try:
            layers = [
                replace(a, weight=rationals.rounded(a.weight, dtype), bias=rationals.rounded(a.bias, dtype))
                for a in self.network.layers
            ]
        except OverflowError as exc:
            raise InputError(str(exc)) from exc
        return self.network.with_layers(layers)

    def certify(self, budget: Budget | float | None = 30.0) -> Verdict:
        """Reduce the wide network back: YES with a certificate of moves if that gives the narrow one, bit for bit.

        Args:
            budget: seconds.

        Returns:
            YES with the certificate, or UNDECIDED where the narrow network is itself reducible, or a constant of a null
            neuron is no known rational. The algebraic conditions were checked over Q in any case.
        """
        from fiberscope.reduction import reduce

        found = reduce(self.network, budget=budget)
        if found.network.same_as(self.original) and found.rounding.kind == "exact":
            return Verdict(
                Answer.YES, "the wide network reduces to the narrow one", certificate=found.certificate,
                method="lossless moves", theorems=("lossless-moves",),
            )  # fmt: skip
        small = "-".join(map(str, found.network.widths))
        reason = f"reducing the wide network gives widths {small} and not the narrow network as it is"
        return Verdict(Answer.UNDECIDED, reason, method="lossless moves")

    # ---- reports

    @property
    def statement(self) -> str:
        """What is proved, in sentences."""
        return " ".join(self._sentences())

    def _sentences(self) -> list[str]:
        hidden, output = self.trained
        biases = {(True, True): "all biases", (True, False): "hidden biases only", (False, True): "output biases only"}
        out = [
            "The function is the same, exactly.",
            f"A critical point of any loss stays one ({biases.get((hidden, output), 'no biases')} trained), and the "
            "Hessian loses no positive, zero or negative direction.",
            f"Such embeddings form a set of dimension at least {self.degrees_of_freedom} here; where one is critical, "
            "all are.",
        ]
        together, apart = (sum(len(g) for g in groups) for groups in (self.together, self.apart))
        silent = sum(len(n) for n in self.sim.null)
        if together or silent:
            who = [f"{together} group{'s' * (together != 1)} of equal neurons"] * bool(together)
            who += [f"{silent} silent neuron{'s' * (silent != 1)}"] * bool(silent)
            out.append(
                f"{' and '.join(who)} lie on an invariant manifold of dimension {self.sim.dimension} of "
                f"{self.network.parameter_count}: gradient flow on any data and loss never separates or wakes them; "
                "see break_symmetry."
            )
        if apart:
            out.append(
                f"{apart} neuron{'s have' if apart != 1 else ' has'} copies of unequal shares: their velocities differ "
                "in the ratio of the shares, so they separate unless the gradient vanishes, as it does at a critical "
                "point."
            )
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; shares as "p/q"."""
        out = super().to_dict()
        out["widths"], out["original_widths"] = list(self.network.widths), list(self.original.widths)
        out["parameters"], out["original_parameters"] = self.network.parameter_count, self.original.parameter_count
        out["activation"] = "/".join(dict.fromkeys(a.activation.label for a in self.network.hidden))
        out["added"] = list(self.added)
        out["layers"] = [
            {"labels": m.labels.tolist(), "factors": rationals.texts(m.factors), "shares": rationals.texts(m.shares)}
            for m in self.map
        ]
        out["sim_dimension"] = self.sim.dimension
        out["together"] = [[list(g) for g in layer] for layer in self.together]
        out["apart"] = [[list(g) for g in layer] for layer in self.apart]
        out["statement"] = self.statement
        return out

    def __str__(self) -> str:
        """One screen."""
        old, new = self.original, self.network
        lines = [
            f"{self.kind} embedding of {old.architecture} into {'-'.join(map(str, new.widths))} ({self.rigor.name})",
            f"  parameters {old.parameter_count} -> {new.parameter_count}, neurons added {sum(self.added)}",
        ]
        for k, (layer, narrow) in enumerate(zip(self.map, old.widths[1:-1], strict=True), start=1):
            copied = [c for c in layer.copies(narrow) if len(c) > 1]
            shown = ", ".join("{" + ",".join(map(str, c.tolist()[:8])) + "}" for c in copied[:6])
            more = f" and {len(copied) - 6} more" if len(copied) > 6 else ""
            null = f"{len(layer.null)} null" if len(layer.null) else ""
            parts = [p for p in (f"copies {shown}{more}" if copied else "", null) if p]
            lines.append(f"  hidden layer {k}: {'; '.join(parts) or 'as it was'}")
        return "\n".join([*lines, *(f"  {text}" for text in self._sentences())])


def embed(
    net: Network,
    widths: Sequence[int],
    *,
    how: Kind | str = "split",
    seed: int = 0,
    alpha: str | Fraction | float | None = None,
    labels: Sequence[Sequence[int]] | None = None,
    factors: bool = False,
    bias: bool = True,
    output_bias: bool = True,
) -> Embedding:
    """Embed a network into a wider one with the same function that keeps critical points: exactly, over Q.

    "split" adds copies, "null" adds neurons that read nothing and send nothing, "mixed" adds both, and "compatible"
    adds both with random shares and a random point of the affine space of solutions (see the module). Added neurons
    come last in their layer.

    Args:
        net: any chain; its layers are the parameters that are trained.
        widths: of the hidden layers, or (n_0, ..., n_L); none smaller than before.
        how: "split", "null", "mixed" or "compatible".
        seed: of everything random: which neurons are copied, shares, factors, the free part.
        alpha: of split: the share of every added copy (the first keeps the rest), None for equal shares, which put the
            copies on an invariant manifold, or "random"; of null: the pre-activation b* of null neurons, None for one
            where they send 0 if there is any, or "random". "mixed" takes None and "random".
        labels: for each hidden layer the narrow neuron that each wide one computes, -1 for null, instead of `how`'s.
        factors: multiply added copies by random factors that the activation forgives (-1 for odd ones, e > 0 for
            ReLU-like ones).
        bias: whether hidden biases are trained.
        output_bias: whether the output biases are trained: yes by default, as everywhere a network is given.

    Raises:
        InputError: if widths shrink, or options do not fit.
        ScopeError: if layers were folded, or null neurons send a constant that no trained bias hears.

    Complexity: O(parameters of the wide network) rational operations, in floats where weights and shares are short
    (1, 2 or 4 copies of a neuron).
    Source: arXiv 2111.15527 (Embedding Principle), definitions 4.3, 4.4 and 5.2.

    >>> net = Network.from_arrays(([[1.0], [2.0]], [0.0, 0.5]), ([[3.0, 4.0]], [0.0]), activation="tanh")
    >>> wide = embed(net, [3], labels=[[0, 1, 1]])
    >>> wide.network.layers[1].weight.tolist(), wide.degrees_of_freedom, wide.sim.dimension
    ([[3.0, 2.0, 2.0]], 1, 7)
    """
    require_network(net)
    net.require_own_parameters("an embedding that keeps critical points")
    as_choice(how, "how", KINDS)
    bias, output_bias = as_switch(bias, "bias"), as_switch(output_bias, "output_bias")
    factors, seed = as_switch(factors, "factors"), as_count(seed, "seed")
    hidden, rng = _hidden_widths(net, widths), np.random.default_rng(seed)
    names = _labels(net, hidden, how, rng) if labels is None else _given_labels(net, hidden, labels)
    random_shares = how == "compatible" or alpha == "random"
    number = _number(alpha)
    if number is not None and how not in ("split", "null"):
        raise InputError(f"alpha {alpha} with how {how!r}; a number goes with 'split' or 'null'")
    maps = []
    for k, own in enumerate(names):
        row = net.layers[k].activation
        shares = _shares(own, net.widths[k + 1], None if how == "null" else number, random_shares, rng)
        e = _factors(own, row, rng) if factors else np.full(len(own), _ONE, dtype=object)
        heard = bias and (output_bias if k == net.depth - 2 else bias)
        offsets = np.full(len(own), _ZERO, dtype=object)
        for i in np.flatnonzero(own < 0):
            point = number if how == "null" else None
            if alpha == "random" and heard and bias:
                point = Fraction(int(rng.integers(1, 2 * _GRAIN)) * int(rng.choice([-1, 1])), _GRAIN)
            offsets[i] = _null_offset(row, point, heard, bias)
        maps.append(LayerMap(own, e, shares, offsets))
    free = _free(net, maps, rng) if how == "compatible" else (None,) * net.depth
    wide = assemble(net, maps, free)
    dof = _degrees(net, maps, bias, output_bias)
    return Embedding(net, wide, how, tuple(maps), tuple(free), (bias, output_bias), dof)


def _number(alpha: str | Fraction | float | None) -> Fraction | None:
    """The share or pre-activation as it is given; None where there is none, or a random one."""
    if alpha is None or alpha == "random":
        return None
    try:
        if isinstance(alpha, str) and _LONG_EXPONENT.search(alpha):  # "1e9999999" has ten million digits
            raise ValueError("beyond all floats")
        return Fraction(alpha) if isinstance(alpha, str) else rationals.as_fraction(alpha)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as exc:
        raise InputError(f"alpha {shown(alpha)}; give a finite number, 'random' or None") from exc


def _hidden_widths(net: Network, widths: Sequence[int]) -> tuple[int, ...]:
    if not net.hidden:
        raise InputError("the network has no hidden layer; there is nothing to widen")
    given = as_counts(widths, "widths")
    if len(given) == net.depth + 1 and (given[0], given[-1]) == (net.widths[0], net.widths[-1]):
        given = given[1:-1]
    old = net.widths[1:-1]
    if len(given) != len(old) or any(m < k for m, k in zip(given, old, strict=False)):
        words, least = (", ".join(map(str, w)) for w in (given, old))
        raise InputError(f"widths {words}; give one for each hidden layer, at least {least}")
    return given


def _labels(net: Network, hidden: Sequence[int], how: str, rng: np.random.Generator) -> list[IntArray]:
    out = []
    for m, k in zip(hidden, net.widths[1:-1], strict=True):
        rounds = -(-(m - k) // k)  # every neuron gets its n-th copy before any gets one more
        added = np.concatenate([np.zeros(0, dtype=np.int64), *(rng.permutation(k) for _ in range(rounds))])[: m - k]
        if how == "null":
            added[:] = -1
        elif how != "split":
            added[1::2] = -1
        out.append(np.concatenate([np.arange(k), added]).astype(np.int64))
    return out


def _given_labels(net: Network, hidden: Sequence[int], labels: Sequence[Sequence[int]]) -> list[IntArray]:
    try:
        out = [np.array([operator.index(v) for v in own], dtype=np.int64) for own in labels]
    except TypeError as exc:
        raise InputError(f"labels {shown(labels)}; give a list of whole numbers for each hidden layer") from exc
    if [len(own) for own in out] != list(hidden):
        raise InputError(f"labels of {[len(own) for own in out]} neurons for hidden widths {tuple(hidden)}")
    for k, (own, narrow) in enumerate(zip(out, net.widths[1:-1], strict=True)):
        if own.min() < -1 or own.max() >= narrow or len(np.unique(own[own >= 0])) != narrow:
            raise InputError(f"labels of hidden layer {k + 1}: name each of 0..{narrow - 1} once or more, -1 for null")
    return out


def _shares(
    labels: IntArray, narrow: int, number: Fraction | None, random: bool, rng: np.random.Generator
) -> ExactArray:
    out = np.full(len(labels), _ZERO, dtype=object)
    for t in range(narrow):
        copies = np.flatnonzero(labels == t)
        count = len(copies)
        if random:
            drawn = rng.integers(1, _GRAIN, count - 1) * rng.choice([-1, 1, 1], count - 1)
            out[copies[1:]] = [Fraction(int(v), _GRAIN) for v in drawn]
        elif number is not None:
            out[copies[1:]] = number
        else:
            out[copies[1:]] = Fraction(1, count)
        out[copies[0]] = 1 - sum(out[copies[1:]], _ZERO)
    return out


def _factors(labels: IntArray, row: Activation, rng: np.random.Generator) -> ExactArray:
    """1 for the first copy of each neuron; random ones that the activation forgives for the others."""
    out = np.full(len(labels), _ONE, dtype=object)
    seen: set[int] = set()
    for i, t in enumerate(labels.tolist()):
        if t in seen:
            if row.parity == "odd":
                out[i] = Fraction(int(rng.choice([-1, 1])))
            elif row.homogeneity == 1:
                out[i] = Fraction(2) ** int(rng.integers(-1, 3))
        if t >= 0:
            seen.add(t)
    return out


def _null_offset(row: Activation, point: Fraction | None, heard: bool, bias: bool) -> Fraction:
    """Where null neurons sit: away from kinks if possible, and where they send 0 if no trained bias hears them."""
    kinks = {p.lo for p in row.pieces or ()} - {None} if row.name != "identity" else set()
    if point is None:
        candidates = [q for q in (_ZERO, -_ONE, _ONE) if bias or q == 0]
        smooth = [q for q in candidates if q not in kinks]
        quiet = [q for q in [*smooth, *candidates] if row.value(q) == 0]
        point = quiet[0] if quiet and (quiet[0] in smooth or not heard) else (smooth or candidates)[0]
    if point and not bias:
        raise ScopeError("null neurons away from 0 need hidden biases, which are not trained here")
    if not heard and row.value(point) != 0:
        raise ScopeError(
            f"null neurons of {row.label} send a constant that no trained bias hears, so they would not stay critical; "
            "use how='split', or train the biases"
        )
    return point


def _free(net: Network, maps: Sequence[LayerMap], rng: np.random.Generator) -> tuple[ExactArray | None, ...]:
    """A random R for every affine layer between hidden ones; null neurons that send unknown constants stay silent."""
    out: list[ExactArray | None] = [None]
    for below, above, sent in zip(maps, maps[1:], null_constants(net, maps), strict=False):
        part = rng.integers(-_GRAIN, _GRAIN + 1, (len(above.labels), len(below.labels))) / _GRAIN
        unknown = below.null[np.array([c is None for c in sent], dtype=bool)]
        part[:, unknown] = 0.0
        out.append(part)
    return (*out, None)


def _degrees(net: Network, maps: Sequence[LayerMap], bias: bool, output_bias: bool) -> int:
    """Shares and null biases that may move, and the affine spaces of the weights between hidden layers."""
    total, before = 0, 0
    for k, own in enumerate(maps):
        above = net.layers[k + 1].weight
        read = [bool((above[:, t] != 0).any()) for t in range(net.widths[k + 1])]
        total += sum(len(c) - 1 for c, heard in zip(own.copies(net.widths[k + 1]), read, strict=True) if heard)
        if bias and (output_bias if k == net.depth - 2 else bias):
            total += len(own.null)
        extra = len(own.labels) - net.widths[k + 1]
        total += extra * before
        before = extra
    return total
