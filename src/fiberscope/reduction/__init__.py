"""Lossless reduction: the same function with fewer neurons, proved step by step."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import programs, rationals
from fiberscope._version import __version__
from fiberscope.arguments import as_float_dtype, shown
from fiberscope.certificates import Certificate, check
from fiberscope.domains import Box
from fiberscope.errors import FiberscopeError, InputError, ScopeError
from fiberscope.network import Layer, Network, require_network
from fiberscope.reduction.approximate import merge_near, round_weights
from fiberscope.reduction.search import Fits, anything, reduce_to_fixpoint, sweep
from fiberscope.reduction.state import State
from fiberscope.results import Answer, Budget, Progress, Result, Stopwatch, outward

__all__ = ["LayerChange", "Reduction", "Rounding", "reduce"]

_KINDS = ("dead", "constant", "zero_output", "duplicate", "sign_duplicate", "proportional", "linear", "near_duplicate")


@dataclass(frozen=True)
class LayerChange:
    """What was removed from one hidden layer: neurons before and after, counts by kind."""

    layer: int
    name: str
    before: int
    after: int
    removed: Mapping[str, int]


@dataclass(frozen=True)
class Removed:
    """How many neurons were removed for one reason, where the reason holds, and how that is known."""

    kind: str
    count: int
    scope: str
    rigor: str


@dataclass(frozen=True)
class Rounding:
    """Whether the weights fit the dtype: `exact`, or `rounded` with |change| <= constant + slope |x|_inf.

    `merged`: the weights fit, but near copies were merged within a tolerance; the bound counts those too.
    """

    kind: str
    dtype: str
    constant: float = 0.0
    slope: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; an exact rounding has no bound."""
        bound = None if self.kind == "exact" else {"constant": self.constant, "slope": self.slope}
        return {"kind": self.kind, "dtype": self.dtype, "bound": bound}

    def __str__(self) -> str:
        """One phrase."""
        if self.kind == "exact":
            return f"exact: nothing had to be rounded to {self.dtype}"
        if self.kind == "merged":
            return f"merged near copies: every output changes by at most {outward(self.constant, up=True, digits=2)}"
        slope = f" + {outward(self.slope, up=True, digits=2)} * max|x|" if self.slope else ""
        constant = outward(self.constant, up=True, digits=2)
        return f"rounded to {self.dtype}: every output changes by at most {constant}{slope}"


@dataclass(frozen=True, eq=False)
class Reduction(Result):
    """A smaller network with the same function, and the certificate that says why.

    Args:
        original: the network given.
        exact: the reduced network over the rationals, equal to the original on the domain (or within the tolerance).
        network: the same with its weights in the target dtype: what is written.
        domain: the box on which the statement holds.
        removed: counts by reason and scope.
        layers: counts layer by layer.
        neuron_map: for each hidden layer, what became of each old neuron.
        rounding: of the written weights.
        tolerance: the certified change allowed by near merges (0 for lossless).
        certificate: replayed by `check` before this object is returned.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"original", "exact", "network", "certificate", "layers"})

    original: Network
    exact: Network
    network: Network
    domain: Box
    removed: tuple[Removed, ...]
    layers: tuple[LayerChange, ...]
    neuron_map: tuple[tuple[dict[str, Any], ...], ...]
    rounding: Rounding
    certificate: Certificate
    tolerance: float = 0.0
    theorems: tuple[str, ...] = ("lossless-moves",)
    limits: tuple[str, ...] = ()
    wall_s: float = 0.0

    @property
    def saved(self) -> int:
        """Hidden neurons removed."""
        return self.original.hidden_count - self.network.hidden_count

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; the certificate is a document of its own."""
        out = super().to_dict()
        old, new = self.original, self.network
        source = old.source
        head = {
            "network": {
                "path": source.path if source else "", "format": source.format if source else "memory",
                "sha256": source.sha256 if source else None, "architecture": old.architecture, "dtype": old.dtype.name,
            },
            "widths_before": list(old.widths), "widths_after": list(new.widths),
            "hidden_before": old.hidden_count, "hidden_after": new.hidden_count,
            "parameters_before": old.parameter_count, "parameters_after": new.parameter_count,
            "domain": self.domain.to_dict(), "rounding": self.rounding.to_dict(),
            "scope": "everywhere" if self.domain.is_everything else "on the domain",
            "per_layer": [
                {"layer": c.layer, "name": c.name, "before": c.before, "after": c.after, "removed": dict(c.removed)}
                for c in self.layers
            ],
            "neuron_map": [{"layer": k, "map": list(rows)} for k, rows in enumerate(self.neuron_map)],
        }  # fmt: skip
        return {**out, **head}

    def __str__(self) -> str:
        """One screen: widths before and after, a line per reason, the rounding."""
        old, new = self.original, self.network
        lines = [
            f"{old.architecture}",
            f"  hidden neurons {old.hidden_count} -> {new.hidden_count}, "
            f"parameters {old.parameter_count} -> {new.parameter_count}",
            f"  widths {'-'.join(map(str, old.widths))} -> {'-'.join(map(str, new.widths))}",
        ]
        for row in self.removed:
            where = "everywhere" if row.scope == "everywhere" else f"on {self.domain}"
            lines.append(f"  {row.count:>6} {row.kind.replace('_', ' ')} ({where}, {row.rigor})")
        if not self.removed:
            late = any("time" in text for text in self.limits)
            lines.append("  nothing removed" + ("" if late else ": no neuron is redundant by any rule tried"))
        merged = any(row.kind == "near_duplicate" for row in self.removed)
        near = "near merges included, tolerance" if merged else "no near copies within the tolerance"
        merges = f" ({near} {self.tolerance:g})" if self.tolerance else ""
        lines.append(f"  weights {self.rounding}{merges}")
        lines.extend(f"  note: {text}" for text in self.limits)
        return "\n".join(lines)


def reduce(
    net: Network,
    domain: Box | str | None = None,
    *,
    tolerance: float = 0.0,
    dtype: npt.DTypeLike | None = None,
    exact_only: bool = False,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Reduction:
    """Remove neurons without changing the function: f(x) = g(x) for all x in the domain, exactly.

    Steps, to a fixpoint: neurons of constant output are folded into the next bias; neurons whose rows are multiples
    that the activation forgives are merged (duplicates; opposite signs for odd and even ones; positive multiples for
    homogeneous ones), layer by layer so that equal neurons become visible behind equal ones; neurons nobody reads are
    dropped; blocks of always-linear neurons are rewritten with as many neurons as their linear map has rank.

    Args:
        net: the network; its weights are read as the rationals that the floats are.
        domain: a `Box`, text as in `Box.parse`, or None for all real inputs. On a domain more neurons are stable.
        tolerance: largest certified change of any output on the (bounded) domain that near merges may cause;
            0 is lossless.
        dtype: float dtype of the written weights (default: the file's own).
        exact_only: take only steps whose weights are values of the dtype, so that nothing is rounded.
        budget: seconds; when they are over, what was proved so far is returned.
        progress: called with (fraction or None, text).

    Returns:
        A `Reduction`, whose certificate has been accepted by the independent checker.

    Raises:
        InputError: if net is no `Network`, an argument is out of range, or a new weight exceeds the dtype.
        ScopeError: if a tolerance is given without a bounded domain.

    Complexity: O(rounds * parameters) for generic weights and an enclosure of the network per round.
    Source: rules after arXiv 2605.18319 (section on dead, split and always-active neurons) and folklore.

    >>> net = Network.from_arrays(([[1.0], [2.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]), activation="relu")
    >>> small = reduce(net)
    >>> small.network.widths, small.network.layers[1].weight.tolist()
    ((1, 1, 1), [[3.0]])
    """
    begin = time.perf_counter()
    require_network(net)
    box = net.domain(domain)
    clock = Budget.of(budget).start()
    target = _target(net, dtype, exact_only)
    tolerance = _tolerance(tolerance, box, exact_only)
    state, limits = _searched(net, box, clock, _fitting(target) if exact_only else anything, progress)
    if tolerance:
        limits += merge_near(state, box, tolerance, clock, progress)
    try:
        written, bound = round_weights(state, box, target)
    except OverflowError as exc:  # a weight beyond the dtype, or no finite bound on what rounding changes
        if exact_only:
            raise InputError(str(exc)) from exc
        state, limits = _searched(net, box, clock, _fitting(target), progress)
        limits.append(f"steps whose weights would be rounded were left out: {exc}")
        written, bound = _rounded_or_refused(state, box, target)
    exact = state.net
    certificate = _certificate(net, written, state, box, bound)
    verdict = check(certificate, net, written)
    if verdict.answer is not Answer.YES:
        raise FiberscopeError(f"the checker refused the reduction ({verdict.reason}); this is a bug, please report it")
    kind = "rounded" if not written.same_as(exact) else "exact" if bound is None else "merged"
    return Reduction(
        original=net, exact=exact, network=written, domain=box, removed=_removed(state), layers=_layers(net, state),
        neuron_map=_neuron_map(state), certificate=certificate, tolerance=tolerance,
        rounding=Rounding(kind, target.name, *(bound or (0.0, 0.0))),
        theorems=verdict.theorems,
        limits=tuple(limits) + _source_limits(net), wall_s=time.perf_counter() - begin,
    )  # fmt: skip


def _target(net: Network, dtype: npt.DTypeLike | None, exact_only: bool) -> np.dtype[Any]:
    target = as_float_dtype(net.dtype if dtype is None else dtype)
    misfit = next((row.name for row in net.layers if not row.folded and not _fitting(target)(row)), None)
    if exact_only and misfit is not None:
        raise InputError(f"{misfit} has weights that are no {target.name} as they are; choose a wider --dtype")
    return target


def _rounded_or_refused(state: State, box: Box, target: np.dtype[Any]) -> tuple[Network, tuple[float, float] | None]:
    try:
        return round_weights(state, box, target)
    except OverflowError as exc:
        raise InputError(f"the weights as they are cannot be written: {exc}") from exc


def _tolerance(given: object, box: Box, exact_only: bool) -> float:
    try:
        tolerance = math.nan if isinstance(given, bool) or not isinstance(given, Real) else float(given)
    except OverflowError:
        tolerance = math.inf
    if not 0 <= tolerance < math.inf:
        raise InputError(
            f"tolerance {shown(given)} is no number >= 0; give the largest allowed change of an output, 0 for none"
        )
    if tolerance and not box.bounded:
        raise ScopeError("a tolerance needs a bounded domain; add --domain '[lo,hi]' or a box file")
    if tolerance and exact_only:
        raise InputError("--exact and --tolerance contradict each other; give one of them")
    return tolerance


def _searched(
    net: Network, box: Box, clock: Stopwatch, fits: Fits, progress: Progress | None
) -> tuple[State, list[str]]:
    state = State(net, net)
    _search(state, box, clock, fits, progress)
    return state, ["the time was over before all rules were tried"] if clock.expired else []


def _search(state: State, box: Box, clock: Stopwatch, fits: Fits, progress: Progress | None) -> None:
    reduce_to_fixpoint(state, Box.everywhere(box.dimension), clock, fits=fits, progress=progress)
    if box.is_everything:
        return
    state.scope = "domain"
    reduce_to_fixpoint(state, box, clock, fits=fits, progress=progress)
    if not box.bounded or clock.expired:
        return
    tightened = programs.tighten_unstable(state.net, box, clock, progress=progress)
    if tightened is not None:
        state.enclose(tightened, tightened.certificate_slopes())
        if sweep(state, box, clock, fits):
            reduce_to_fixpoint(state, box, clock, fits=fits, progress=progress)


def _fitting(dtype: np.dtype[Any]) -> Fits:
    def fits(layer: Layer) -> bool:
        return all(bool(rationals.representable(a, dtype).all()) for a in layer.own)

    return fits


def _certificate(
    net: Network, written: Network, state: State, box: Box, bound: tuple[float, float] | None
) -> Certificate:
    source = net.source
    return Certificate.from_dict({
        "schema": "fiberscope/certificate/1", "kind": "reduction", "version": __version__,
        "source": {
            "digest": net.digest, "sha256": None if source is None else source.sha256,
            "path": "" if source is None else source.path,
        },
        "target": {"digest": written.digest, "sha256": None, "path": ""},
        "domain": box.to_dict(), "steps": state.steps,
        "bound": None if bound is None else {"constant": bound[0], "slope": bound[1]},
    })  # fmt: skip


def _removed(state: State) -> tuple[Removed, ...]:
    totals: Counter[tuple[str, str, str]] = Counter()
    for (_, kind, scope, rigor), count in state.counts.items():
        totals[kind, scope, rigor] += count
    order = sorted(totals, key=lambda k: (k[1] != "everywhere", _KINDS.index(k[0]), k[2]))
    return tuple(Removed(kind, totals[kind, scope, rigor], scope, rigor) for kind, scope, rigor in order)


def _layers(net: Network, state: State) -> tuple[LayerChange, ...]:
    out = []
    for k, (old, new) in enumerate(zip(net.hidden, state.net.hidden, strict=True)):
        counts: Counter[str] = Counter()
        for (layer, kind, _, _), count in state.counts.items():
            if layer == k:
                counts[kind] += count
        out.append(
            LayerChange(k, old.name, old.n_out, new.n_out, {kind: counts[kind] for kind in _KINDS if counts[kind]})
        )
    return tuple(out)


def _neuron_map(state: State) -> tuple[tuple[dict[str, Any], ...], ...]:
    out = []
    for layer, neurons in enumerate(state.neurons):
        rows: list[dict[str, Any]] = []
        block = [k for k, neuron in enumerate(neurons) if neuron.block]
        folded = sorted(old for old, how in state.gone[layer].items() if how == "linear")
        for k, neuron in enumerate(neurons):
            if neuron.sources:
                old, factors = zip(*sorted(neuron.sources), strict=True)
                how = "kept" if len(old) == 1 else "merged"
                rows.append({"old": list(old), "new": [k], "how": how, "factors": [_text(f) for f in factors]})
        if folded or block:
            rows.append({"old": folded, "new": block, "how": "linear"})
        for how in _KINDS:
            removed = sorted(old for old, why in state.gone[layer].items() if why == how)
            if removed and how != "linear":
                rows.append({"old": removed, "new": [], "how": how})
        out.append(tuple(rows))
    return tuple(out)


def _text(q: Fraction) -> str:
    return str(q) if q.denominator < 10**6 else f"{float(q):.17g}"


def _source_limits(net: Network) -> tuple[str, ...]:
    if net.source is None or not net.source.approximations:
        return ()
    return tuple(f"the chain is not exactly the file: {text}" for text in net.source.approximations)


def with_file_hash(certificate: Certificate, sha256: str, path: str) -> Certificate:
    """The certificate with the hash of the written file."""
    data = certificate.to_dict()
    return Certificate.from_dict({**data, "target": {**data["target"], "sha256": sha256, "path": path}})
