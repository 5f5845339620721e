"""The manifolds that a start lies on, found in the classes of its neurons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fiberscope.invariants.dynamics.keeping import RULES, Keeps, optimiser_keeps
from fiberscope.invariants.dynamics.updates import Optimiser
from fiberscope.neurons import multiples
from fiberscope.rowclasses import Classes
from fiberscope.training.architectures.architecture import Architecture, Population
from fiberscope.training.lint.findings import CODES, Finding, Members, class_dimension, count_of, few_of, slices_text
from fiberscope.training.lint.freeing import Change, Edit, redrawing, splitting
from fiberscope.training.lint.starts import Start, identical, is_gain, zero_rows

Mask = npt.NDArray[np.bool_]

_SHOWN = 6


@dataclass(eq=False)
class Sorted:
    """The neurons of one population by what holds of them.

    Args:
        equal: classes equal in every entry.
        signed: the same up to sign, with the factors of what they send.
        multiple: classes with other factors.
        coupled: classes that only the class sums show.
        null: neurons without any weight.
        hidden_null: null neurons with nonzero weights.
    """

    equal: list[tuple[int, ...]] = field(default_factory=list)
    signed: list[tuple[tuple[int, ...], tuple[Fraction, ...]]] = field(default_factory=list)
    multiple: list[tuple[tuple[int, ...], tuple[Fraction, ...]]] = field(default_factory=list)
    coupled: list[tuple[tuple[int, ...], tuple[Fraction, ...]]] = field(default_factory=list)
    null: list[int] = field(default_factory=list)
    hidden_null: list[int] = field(default_factory=list)


def sorted_neurons(start: Start, classes: Mapping[str, Classes], silent: Mapping[str, Mask]) -> dict[str, Sorted]:
    """Sort the classes of every population by what their members have in common; silent neurons are left out.

    Args:
        start: with the silent neurons' entries set to 0, as `classes` was found.
        classes: the coarsest partition.
        silent: masks.

    O(parameters of the neurons that are in classes).
    """
    out = {}
    for population in start.architecture.populations:
        found, kinds = classes[population.name], Sorted()
        out[population.name] = kinds
        if found.trivial:
            continue
        even = is_even(population)
        for members in found.members:
            if len(members) < 2:
                continue
            factors = tuple(Fraction(found.factors[i]) / Fraction(found.factors[members[0]]) for i in members)
            sent = tuple(abs(e) for e in factors) if even else factors
            if any(abs(e) != 1 for e in factors):
                kinds.multiple.append((members, sent))
            elif not identical(start, population.name, members, factors, even=even):
                kinds.coupled.append((members, sent))
            elif all(e == 1 for e in factors):
                kinds.equal.append(members)
            else:
                kinds.signed.append((members, sent))
        null = [i for i in found.null if not silent[population.name][i]]
        if null:
            empty = zero_rows(start.rows(population.name), population.count)
            kinds.null = [i for i in null if empty[i]]
            kinds.hidden_null = [i for i in null if not empty[i]]
    return out


@dataclass(frozen=True, eq=False)
class Looked:
    """What the findings of one start are made from.

    Args:
        start: as given.
        bare: without the entries of silent neurons.
        classes: of `bare`, as the optimiser keeps them.
        silent: masks of silent neurons.
        rule: the optimiser.
        symmetric: whether coupled classes come from permutations that act on several layers at once.
        constants: neurons with a constant output that no gradient moves.
        products: neurons with two zero factors, see `two_zero_factors`.
    """

    start: Start
    bare: Start
    classes: Mapping[str, Classes]
    silent: Mapping[str, Mask]
    rule: str | Optimiser
    symmetric: bool = False
    constants: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    products: Mapping[str, Mask] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        """Of the start."""
        return self.start.architecture

    def finding(
        self, code: str, members: Mapping[str, Members], message: str, sim: str, keeps: Keeps, change: Change | None,
        *, lost: Mapping[str, Iterable[int]] | None = None,
    ) -> Finding:  # fmt: skip
        """A finding of a manifold: classes of `members`, and neurons that are `lost` altogether."""
        left = {name: tuple(some) for name, some in (lost or {}).items()}
        counts, shared = {}, {}
        for p in self.architecture.populations:
            big = [m for m in members.get(p.name, ()) if len(m) > 1] if p.name not in left else []
            counts[p.name] = p.count - sum(len(m) - 1 for m in big) - len(left.get(p.name, ()))
            shared[p.name] = len(big)
        dimension = class_dimension(self.architecture, counts, shared)
        first = next(iter(members))
        return Finding(
            code, CODES[code], first, tuple(members.items()), keeps.outcome in ("kept", "leaves"), message, sim,
            dimension, self.architecture.parameter_count - dimension, counts[first], keeps, change,
        )  # fmt: skip


def is_even(population: Population) -> bool:
    """Whether the activation forgets the sign of what it reads."""
    return population.activation is not None and population.activation.parity == "even"


def trapped_findings(looked: Looked) -> list[Finding]:
    """All findings about manifolds, population by population, then those that couple several."""
    kinds = sorted_neurons(looked.bare, looked.classes, looked.silent)
    out: list[Finding] = []
    for population in looked.architecture.populations:
        out += _silent(looked, population)
        out += _plain(looked, population, kinds[population.name])
        out += _product(looked, population, kinds[population.name])
    out += _null(looked, kinds)
    coupled = {n: k for n, k in kinds.items() if k.coupled or (k.hidden_null and not _all_null(looked, n))}
    for group in _touching(looked.architecture, coupled):
        out.append(_coupled(looked, {name: kinds[name] for name in group}))
    return out


def _silent(looked: Looked, population: Population) -> list[Finding]:
    found = np.flatnonzero(looked.silent[population.name])
    if not found.size:
        return []
    gone = tuple(int(i) for i in found)
    start = looked.start
    empty = bool(zero_rows(start.rows(population.name, "in"), population.count)[found].all())
    edit = Edit("redraw", population.name, tuple((i,) for i in gone))
    kept = bool(zero_rows(start.rows(population.name, "out"), population.count)[found].all())
    single = [
        (is_gain(start.architecture.slots[s].name) and population.normalised, m[found, 0])
        for s, m in start.architecture.rows(start.parameters, population.name, "in")
        if m.shape[1] == 1
    ]
    shifts = sum(int(((m < 0) | ((m == 0) & gain)).sum()) for gain, m in single)
    whole = len(gone) == population.count
    blocked = "; nothing below it learns either" if whole and start.network is not None else ""
    label = population.activation.label if population.activation is not None else "its activation"
    message = (
        f"{count_of(len(gone), _noun(population))} dead for every input: z <= 0 always, where {label} and its "
        f"slope are 0, so no weight of {'it' if len(gone) == 1 else 'them'} ever gets a gradient{blocked}"
    )
    inner = slices_text(looked.architecture, population.name, "in")
    equations = "0" if empty else "constant and <= 0 where live inputs are read"
    sim = f"{inner} = {equations}, outgoing weights constant, for i in {_braced(gone)}"
    return [
        looked.finding(
            "FS106", {population.name: tuple((i,) for i in gone)}, message, sim, _dead_keeps(looked.rule, empty),
            redrawing(looked.architecture, [edit], kept=kept, shifts=shifts), lost={population.name: gone},
        )
    ]  # fmt: skip


def _noun(population: Population) -> str:
    return {"stream": "coordinate"}.get(population.kind, population.kind.rstrip("s"))


def _dead_keeps(rule: str | Optimiser, empty: bool) -> Keeps:
    """What an optimiser does to weights without gradients: only decay moves them, and it must not overshoot 0.

    Decoupled decay multiplies them by 1 - rate * decay >= 0. Decay inside gradient descent with momentum m gives
    w_t = c_1 x^t + c_2 y^t with real x > y > 0 and c_2 <= 0 if rate * decay <= (1 - sqrt(m))^2, so w_t keeps its sign;
    Nesterov's rule too. Inside an elementwise or an orthogonal rule decay takes steps of full size.
    """
    name, family = optimiser_keeps(rule, "null").optimiser, "linear"
    passes, reason = False, "no gradient reaches it"
    if isinstance(rule, Optimiser) and rule.decay:
        family = rule.family if rule.coupled else "linear"
        passes = family != "linear" or _overshoots(rule.rate, rule.decay, rule.momentum if rule.coupled else 0.0)
        reason = "decay shrinks its weights and keeps their signs"
    elif isinstance(rule, str) and RULES[rule].decay != "none":
        passes = RULES[rule].decay == "coupled" and RULES[rule].family != "linear"
        reason = "decay shrinks its weights and keeps their signs"
    if passes and not empty:
        return Keeps(name, "silent", "broken", "decay inside the rule takes steps that can pass 0 and wake it")
    return Keeps(name, "silent", "kept", reason)


def _overshoots(rate: float, decay: float, momentum: float) -> bool:
    """Whether rate * decay > (1 - sqrt(m))^2, decided without rounding: 1 + m - rate * decay < 2 sqrt(m)."""
    if not math.isfinite(rate) or not math.isfinite(decay):
        return True
    r, d, m = (Fraction(float(number)) for number in (rate, decay, momentum))
    room = 1 + m - r * d
    return room < 0 or room**2 < 4 * m


def _plain(looked: Looked, population: Population, kinds: Sorted) -> list[Finding]:
    """Duplicates, twins up to sign, and multiples of one population."""
    name, out = population.name, []
    live = population.count - int(looked.silent[name].sum())
    if kinds.equal:
        whole = len(kinds.equal) == 1 and len(kinds.equal[0]) == live and live > 1
        code = "FS109" if population.normalised else "FS104" if whole else "FS101"
        parts = [((m, (Fraction(1),) * len(m))) for m in kinds.equal]
        noun = _noun(population)
        number = sum(len(m) for m in kinds.equal)
        message = (
            f"all {number} {noun}s are equal: the layer stays one {noun} wide" if whole else
            f"{number} {noun}s in {count_of(len(kinds.equal), 'class', 'classes')} are equal in all weights: equal "
            f"gradients keep them equal, and they count {_times(len(kinds.equal))}"
        )  # fmt: skip
        out.append(_class_finding(looked, code, name, parts, message, "permutation"))
    if kinds.signed:
        message = (
            f"{sum(len(m) for m, _ in kinds.signed)} neurons in {count_of(len(kinds.signed), 'class', 'classes')} are "
            f"equal up to sign, which {population.activation.label if population.activation else 'the product'} "
            f"forgives: they stay so"
        )
        out.append(_class_finding(looked, "FS102", name, kinds.signed, message, "sign"))
    if kinds.multiple:
        message = (
            f"{sum(len(m) for m, _ in kinds.multiple)} neurons in {count_of(len(kinds.multiple), 'class', 'classes')} "
            f"are positive multiples of one, incoming and outgoing weights by the same factors"
        )
        out.append(_class_finding(looked, "FS108", name, kinds.multiple, message, "weighted"))
    return out


def _class_finding(
    looked: Looked, code: str, name: str, parts: Sequence[tuple[tuple[int, ...], tuple[Fraction, ...]]], message: str,
    kind: str,
) -> Finding:  # fmt: skip
    members = tuple(m for m, _ in parts)
    keeps = optimiser_keeps(looked.rule, kind)
    if not keeps:
        message += f"; {keeps.optimiser} separates them"
    relation = {"permutation": "equal", "sign": "equal up to sign"}.get(kind, "proportional with fixed factors")
    sim = (
        f"{slices_text(looked.architecture, name)}: {relation} inside {', '.join(_braced(m) for m in members[:_SHOWN])}"
    )
    return looked.finding(code, {name: members}, message, sim, keeps, _separating(looked, name, parts))


def _separating(
    looked: Looked, name: str, parts: Sequence[tuple[tuple[int, ...], tuple[Fraction, ...]]]
) -> Change:  # fmt: skip
    """Split what the classes send; where s is homogeneous and they read nothing, split ones would be multiples."""
    population = looked.architecture.named[name]
    row = population.activation
    scales = multiples(row, training=True).scale if row is not None else population.signs and population.null
    empty = zero_rows(looked.bare.rows(name, "in"), population.count)
    idle = [m for m, _ in parts if scales and empty[m[0]]]
    rest = [(m, f) for m, f in parts if m not in idle]
    edits = [Edit("split", name, tuple(m for m, _ in rest), tuple(f for _, f in rest))] if rest else []
    if not idle:
        return splitting(looked.architecture, edits, "class")
    edits.append(Edit("redraw", name, tuple(m[1:] for m in idle)))
    return splitting(looked.architecture, edits, "class") if rest else redrawing(looked.architecture, edits, kept=False)


def weighted_notes(looked: Looked, wider: Mapping[str, Classes]) -> list[Finding]:
    """Classes of multiples that rules linear in the gradient would keep and this one does not."""
    kinds = sorted_neurons(looked.bare, wider, looked.silent)
    out: list[Finding] = []
    for population in looked.architecture.populations:
        only = Sorted(multiple=kinds[population.name].multiple)
        out += _plain(looked, population, only)
    return out


def _all_null(looked: Looked, name: str) -> bool:
    """Whether a population has nothing but null neurons, none of them dead; outside chains all weights must be 0."""
    found = looked.classes[name]
    if found.count or not found.labels.size or looked.silent[name].any():
        return False
    return looked.start.network is not None or bool(zero_rows(looked.start.rows(name), found.labels.size).all())


def _null(looked: Looked, kinds: Mapping[str, Sorted]) -> list[Finding]:
    """Null neurons in layers with others, and whole layers between two zero factors."""
    out = []
    architecture = looked.architecture
    whole = [n for n in kinds if _all_null(looked, n)]
    for group in _touching(architecture, whole):
        members = {n: tuple((i,) for i in range(architecture.named[n].count)) for n in group}
        inner = {n: zero_rows(looked.bare.rows(n, "in"), architecture.named[n].count) for n in group}
        edits = [
            Edit("redraw", n, tuple((int(i),) for i in np.flatnonzero(inner[n]))) for n in group if inner[n].any()
        ]  # fmt: skip
        last = zero_rows(looked.bare.rows(group[-1], "out"), architecture.named[group[-1]].count)
        layers = " and ".join(group[:3]) + (" ..." if len(group) > 3 else "")
        message = (
            f"{layers}: the weights into and out of {'these layers' if len(group) > 1 else 'the layer'} are two zero "
            "factors of one product: the gradient of each has the other as a factor, so neither moves"
        )
        sim = "; ".join(
            f"{slices_text(architecture, n)} = 0" if kinds[n].null else f"{n} receives and sends 0" for n in group
        )
        out.append(
            looked.finding(
                "FS107", members, message, sim, optimiser_keeps(looked.rule, "null"),
                redrawing(architecture, edits or [Edit("redraw", group[0], members[group[0]])], kept=bool(last.all())),
                lost={n: range(architecture.named[n].count) for n in group},
            )
        )  # fmt: skip
    for name, found in kinds.items():
        if found.null and name not in whole:
            some = tuple((i,) for i in found.null)
            message = (
                f"{count_of(len(some), 'neuron')} with all weights 0, incoming and outgoing: no gradient reaches "
                f"{'it' if len(some) == 1 else 'them'}"
            )
            sim = f"{slices_text(architecture, name)} = 0 for i in {_braced(found.null)}"
            out.append(
                looked.finding(
                    "FS103", {name: some}, message, sim, optimiser_keeps(looked.rule, "null"),
                    redrawing(architecture, [Edit("redraw", name, some)], kept=True), lost={name: found.null},
                )
            )  # fmt: skip
    return out


def two_zero_factors(start: Start) -> dict[str, Mask]:
    """Neurons of products with two zero factors, among them what they send: every gradient keeps one of the two.

    d (s(a x) (b x)) has the factors d, b and, where s(0) = 0, a.

    O(parameters of such neurons).
    """
    out = {}
    for p in start.architecture.populations:
        if p.factors:
            values = dict(start.architecture.rows(start.parameters, p.name, "in"))
            zero = [zero_rows([values[s] for s in places], p.count) for places in p.factors if places]
            sent = start.rows(p.name, "out")
            zero += [zero_rows(sent, p.count)] if sent else []
            out[p.name] = np.sum(zero, axis=0) >= 2
    return out


def _product(looked: Looked, population: Population, kinds: Sorted) -> list[Finding]:
    name, start = population.name, looked.start
    mask = looked.products.get(name, np.zeros(population.count, dtype=bool)) & ~looked.silent[name]
    mask[kinds.null] = False
    if not mask.any():
        return []
    gone = tuple(int(i) for i in np.flatnonzero(mask))
    sent = zero_rows(start.rows(name, "out"), population.count)[mask]
    message = (
        f"{count_of(len(gone), _noun(population))} with two zero factors in one product: the gradient of each has the "
        "other as a factor, so neither moves, and nothing of "
        f"{'it' if len(gone) == 1 else 'them'} reaches the output or a gradient"
    )
    sim = f"two of the factors of {slices_text(looked.architecture, name)} = 0 for i in {_braced(gone)}"
    some = tuple((i,) for i in gone)
    change = redrawing(looked.architecture, [Edit("redraw", name, some)], kept=bool(sent.all()))
    code = "FS107" if len(gone) == population.count else "FS103"
    keeps = optimiser_keeps(looked.rule, "null")
    return [looked.finding(code, {name: some}, message, sim, keeps, change, lost={name: gone})]


def _coupled(looked: Looked, group: Mapping[str, Sorted]) -> Finding:
    members: dict[str, Members] = {}
    edits = []
    for name, kinds in group.items():
        members[name] = tuple(m for m, _ in kinds.coupled) + tuple((i,) for i in kinds.hidden_null)
        if kinds.coupled:
            edits.append(Edit("split", name, tuple(m for m, _ in kinds.coupled), tuple(f for _, f in kinds.coupled)))
        if kinds.hidden_null:
            # at an output of 0 with slope 0 no outgoing weight wakes a neuron
            edits.append(Edit("nudge", name, tuple((i,) for i in kinds.hidden_null)))
    names = " and ".join(members)
    keeps = optimiser_keeps(looked.rule, "permutation" if looked.symmetric else "equitable")
    layers = f"the classes of {names} hold each other" if len(members) > 1 else f"classes in {names}"
    message = (
        f"{layers}: no two neurons are equal, but the weights between classes have equal row sums and equal column "
        "sums, so the neurons of a class compute the same function and keep doing so"
    )
    if not keeps:
        message += f"; {keeps.optimiser} separates them"
    sim = "W P = P W between the layers, biases in the range of P; P averages over " + "; ".join(
        f"{name}: {', '.join(_braced(m) for m in classes[:_SHOWN])}" for name, classes in members.items()
    )
    change = splitting(looked.architecture, edits, "class")
    proved = looked.start.network is not None
    if not proved:
        message += " (proved for plain chains; a conjecture for this architecture, so not counted as trapped)"
    counts = {n: c.count for n, c in looked.classes.items()}
    shared = {n: sum(len(m) > 1 for m in c.members) for n, c in looked.classes.items()}
    dimension = class_dimension(looked.architecture, counts, shared, frozen=True)
    first = next(iter(members))
    return Finding(
        "FS105", CODES["FS105"], first, tuple(members.items()), proved and keeps.outcome in ("kept", "leaves"), message,
        sim, dimension, looked.architecture.parameter_count - dimension, counts[first], keeps, change,
    )  # fmt: skip


def _touching(architecture: Architecture, names: Iterable[str]) -> list[tuple[str, ...]]:
    """Populations in groups that share tensors, directly or by others of the list, in the order of the data flow."""
    order = [p.name for p in architecture.populations if p.name in set(names)]
    group = {n: n for n in order}
    for slot in architecture.slots:
        here = [a.population for a in slot.axes if a is not None and a.population in group]
        for a, b in zip(here, here[1:], strict=False):
            old, new = group[b], group[a]
            group = {n: new if g == old else g for n, g in group.items()}
    return [tuple(n for n in order if group[n] == g) for g in dict.fromkeys(group[n] for n in order)]


def _braced(numbers: Sequence[int]) -> str:
    return "{" + few_of(numbers) + "}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"as {n}"
