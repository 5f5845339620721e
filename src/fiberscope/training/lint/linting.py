"""`lint_init`: is this initialisation trapped on an invariant manifold, which one, and what frees it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from fiberscope.arguments import as_generator, shown
from fiberscope.errors import InputError, import_optional
from fiberscope.invariants.dynamics.keeping import RULES, Keeps, optimiser_keeps
from fiberscope.invariants.dynamics.updates import Optimiser
from fiberscope.neurons import still_layers
from fiberscope.results import Budget, Result, Rigor
from fiberscope.rowclasses import Classes
from fiberscope.training.architectures.architecture import Architecture
from fiberscope.training.lint import notes
from fiberscope.training.lint.findings import Finding, class_dimension
from fiberscope.training.lint.freeing import Change, Edit, redrawing
from fiberscope.training.lint.starts import (
    Start,
    classes_of,
    frozen_constants,
    read_start,
    silent_neurons,
    without_neurons,
)
from fiberscope.training.lint.traps import Looked, trapped_findings, two_zero_factors, weighted_notes
from fiberscope.training.traces.opening import one_spelling

_ROUNDS = 5
_SHOWN = 12
_SYMMETRIC = {"FS101", "FS102", "FS104", "FS109"}
_EQUITABLE = {"FS103", "FS105", "FS107", "FS108"}
_SILENT = {"FS106", "FS110"}


@dataclass(frozen=True, eq=False)
class StartReport(Result):
    """What a lint of a start found.

    Args:
        model: what was looked at, in a phrase.
        findings: manifolds first, then notes.
        trapped: whether a finding is of a manifold of positive codimension that the optimiser keeps.
        widths: neurons of every population.
        effective_widths: neurons left if each class that is kept counts once and silent neurons not at all: the model
            trains like one of these widths, for every data set and every loss.
        dimension: of the smallest of these manifolds through theta, taken together (frozen entries not counted).
        parameters: number of parameters that are understood.
        optimiser: the rule asked about.
        skipped: (name, reason) of layers that are not understood; nothing is said about them.
        start: the parameters.
        options: what was asked besides.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"start", "options"})

    model: str
    findings: tuple[Finding, ...]
    trapped: bool
    widths: Mapping[str, int]
    effective_widths: Mapping[str, int]
    dimension: int
    parameters: int
    optimiser: str
    skipped: tuple[tuple[str, str], ...]
    start: Start
    options: Mapping[str, Any]
    rigor: Rigor = Rigor.EXACT

    @property
    def theorems(self) -> tuple[str, ...]:
        """What the findings rest on; the classes of coupled neurons are proved for chains only."""
        kept = {f.code for f in self.findings if f.optimiser}
        found = {f.code for f in self.findings}
        keys = ["symmetry-fixed-space"] if found & _SYMMETRIC else []
        keys += ["equitable-sim"] if self.start.network is not None and found & (_SYMMETRIC | _EQUITABLE) else []
        keys += ["silent-neurons"] if kept & _SILENT else []
        return (*keys, *(("optimiser-equivariance",) if kept & (_SYMMETRIC | _EQUITABLE) else ()))

    @property
    def traps(self) -> tuple[Finding, ...]:
        """The findings that are trapped."""
        return tuple(f for f in self.findings if f.trapped)

    def freed(self, parameters: Mapping[str, Any] | None = None, *, scale: float = 0.5, seed: int = 0) -> Any:
        """The parameters off all manifolds found: the change of every trapped finding, then a second look.

        Args:
            parameters: values to change instead of those looked at, under the same names.
            scale: size of the changes relative to the tensors' entries.
            seed: of what is drawn.

        Returns:
            A `Network` if one was given and `parameters` is None, else a mapping of names to arrays.

        Raises:
            InputError: if the model is still trapped after several rounds, or the scale is not positive.
        """
        start = self.start if parameters is None else self.start.with_parameters(parameters)
        report = self if parameters is None else _look(start, self.options)
        for turn in range(_ROUNDS):
            if not report.trapped:
                break
            values: Mapping[str, Any] = start.parameters
            for k, found in enumerate(report.traps):
                change = found.change
                if change is None:
                    continue
                change = change.scattered() if turn >= 2 else change
                values = change.apply(values, scale=scale, seed=seed + 1009 * turn + k)
            start = start.with_parameters(values)
            report = _look(start, self.options)
        if report.trapped:
            raise InputError(f"still trapped after {_ROUNDS} rounds of changes: {report.traps[0]}")
        return start.as_network() if self.start.source is not None and parameters is None else start.parameters

    def apply_(self, module: Any, *, scale: float = 0.5, seed: int = 0) -> None:
        """Write the freed parameters into a torch module, in place.

        Args:
            module: the module that was looked at, or one with the same parameters.
            scale: as in `freed`.
            seed: as in `freed`.

        Raises:
            InputError: if a parameter of the start is missing in the module.
            MissingDependencyError: without torch.
        """
        torch = import_optional("torch", extra="torch", purpose="change a module in place")
        old, new = self.start.parameters, self.freed(dict(self.start.parameters), scale=scale, seed=seed)
        own = dict(module.named_parameters(remove_duplicate=False))
        changed = [name for name in new if new[name] is not old[name]]
        missing = [name for name in changed if name not in own]
        if missing:
            raise InputError(f"the module has no parameter {missing[0]!r}")
        with torch.no_grad():
            for name in changed:
                own[name].copy_(torch.from_numpy(np.ascontiguousarray(new[name])))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        out = super().to_dict()
        out["theorems"] = list(self.theorems)
        out["findings"] = [f.to_dict() for f in self.findings]
        out["skipped"] = [{"name": name, "reason": reason} for name, reason in self.skipped]
        return out

    def to_frame(self) -> dict[str, list[Any]]:
        """Columns of one length, a row for each finding."""
        rows = [f.to_dict() for f in self.findings]
        keys = ("code", "name", "population", "trapped", "dimension", "codimension", "effective_width", "message")
        out: dict[str, list[Any]] = {key: [row[key] for row in rows] for key in keys}
        out["outcome"] = [None if f.optimiser is None else f.optimiser.outcome for f in self.findings]
        out["change_entries"] = [None if f.change is None else f.change.entries for f in self.findings]
        return out

    def __str__(self) -> str:
        """One screen, in the manner of linters."""
        lines = []
        for found in self.findings[:_SHOWN]:
            lines.append(str(found))
            if found.dimension is None:
                continue
            lines.append(
                f"    {found.sim}: dimension {found.dimension:,} of {self.parameters:,}"
                + ("" if found.optimiser is None else f"; {found.optimiser.optimiser}: {found.optimiser.outcome}")
            )
            if found.change is not None and found.trapped:
                kept = "function kept" if found.change.function_kept else "function changed"
                numbers = "1 entry" if found.change.entries == 1 else f"{found.change.entries:,} entries"
                lines.append(f"    frees: {found.change.description} ({numbers}, {kept})")
        if len(self.findings) > _SHOWN:
            lines.append(f"... and {len(self.findings) - _SHOWN} more")
        for name, reason in self.skipped[:4]:
            lines.append(f"{name}: skipped, {reason}")
        if len(self.skipped) > 4:
            lines.append(f"... and {len(self.skipped) - 4} more skipped")
        return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        unknown, known = _unknown(self.start)
        shown = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        rest = f"; nothing can be said of {shown}" if unknown else ""
        if not self.trapped:
            total = sum(math.prod(np.shape(v)) for v in self.start.parameters.values())
            if any(f.change is not None and f.optimiser for f in self.findings if " -- if " in f.message):
                rest = "; what depends on a condition is not counted" + rest
            if unknown:
                text = f"nothing trapped among the {known:,} of {total:,} parameters that are understood"
                return f"{self.model}: {text}, under {self.optimiser}{rest} ({self.rigor.name})"
            return f"{self.model}: not trapped under {self.optimiser}{rest} ({self.rigor.name})"
        wide, small = ("-".join(str(n) for n in w.values()) for w in (self.widths, self.effective_widths))
        if len(self.widths) > 8:
            wide, small = (f"{sum(w.values()):,} neurons" for w in (self.widths, self.effective_widths))
        sizes = {len(m) for f in self.traps for _, classes in f.members for m in classes}
        noise = ["separates equal ones"] * any(n > 1 for n in sizes) + ["wakes no silent one"] * (1 in sizes)
        verb = "width {} trains" if len(self.widths) == 1 else "widths {} train"
        return (
            f"{self.model}: trapped under {self.optimiser}: hidden {verb.format(wide)} like {small}, on a manifold of "
            f"dimension {self.dimension:,} of {self.parameters:,}, whatever the data and the loss ({self.rigor.name})"
            + ("; dropout or noise on single neurons " + " and ".join(noise) if noise else "")
            + rest
        )


def lint_init(
    model: Any,
    *,
    optimiser: Any = None,
    architecture: Architecture | None = None,
    data: Any = None,
    tolerance: float = 0.0,
    seed: int = 0,
    optimizer: Any = None,
    budget: Budget | float | None = 5.0,
) -> StartReport:
    """Whether an initialisation is trapped: on an invariant manifold where neurons coincide or stay silent.

    Trapped means: for every data set, loss and choice of minibatches, in exact arithmetic, the parameters stay in the
    set of a finding of positive codimension, so that the model trains like a narrower one. Proof, by kinds:
    (1) equal neurons (up to sign where s is odd): exchanging them is an isometry that keeps the function, so its fixed
    space is invariant; (2) classes with equal class sums in chains: W_l P_(l-1) = P_l W_l is invariant for the
    projectors P on class vectors, null neurons, whole layers between two zero factors and multiples of ReLU neurons
    among them; (3) ReLU neurons with z <= 0 for every input: h = 0 and s'(z) = 0 (s'(0) = 0 as in PyTorch and JAX), so
    every entry of their gradients has a factor 0; (4) neurons that read nothing at a bias with s'(b) = 0: likewise.
    A set of zero entries is invariant only if each of their gradients keeps a factor 0 on it. A zero layer W_l between
    layers that are not zero is no such set: its gradient delta_l h_(l-1)^T has no such factor, it moves in the first
    step, and the others after it. Where the labels of a module's parameters are guessed by names, or by a shape that
    is not known, findings are conditional and never trapped; `data` puts the guess to the test.

    Args:
        model: a `Network`, a torch module, or a mapping of names to arrays with `architecture`.
        optimiser: a key of `invariants.dynamics.keeping.RULES` such as "sgd", "adam", "gd+decay", or an `Optimiser`, an
            `OptimiserState`, or an optimizer of torch.optim; "sgd" if None.
            Elementwise rules separate ReLU neurons that are multiples, linear ones do not.
        architecture: which axes index which neurons; found for networks and torch modules.
        data: inputs (N, n_0); then neurons that are 0 on all of them are noted.
        tolerance: relative difference up to which neurons are noted as nearly equal; never called trapped.
        seed: of random projections; the answer does not depend on it.
        optimizer: another spelling of `optimiser`.
        budget: seconds for the search of permutations that explain coupled classes, which matters under Adam with
            coupled decay only; classes that are not explained by then count as not kept.

    Returns:
        A `StartReport`; EXACT for plain chains.

    Raises:
        InputError: for a model or an optimiser that cannot be read.
        ScopeError: for a network whose layers were folded.

    Complexity: O(rounds * parameters). Source: arXiv 2510.09564 and the projector theorem of the theory page.

    >>> from fiberscope.network import Network
    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    >>> report = lint_init(net)
    >>> report.trapped, [f.code for f in report.traps], report.dimension, report.traps[0].change.entries
    (True, ['FS104'], 4, 2)
    >>> report.freed().layers[1].weight.tolist()
    [[3.0, 1.0]]
    """
    number = isinstance(tolerance, int | float | np.number | Fraction) and not isinstance(tolerance, bool)
    if not number or not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance {shown(tolerance)}; give a number >= 0")
    as_generator(seed)
    chosen = one_spelling(optimizer, optimiser)
    rule = _rule("sgd" if chosen is None else chosen)
    options = {
        "rule": rule, "data": data, "tolerance": tolerance, "seed": seed, "module": None, "budget": Budget.of(budget),
    }  # fmt: skip
    if hasattr(model, "named_parameters"):
        options["module"] = model
    return _look(read_start(model, architecture, example=data), options)


def _rule(optimiser: Any) -> str | Optimiser:
    if isinstance(optimiser, Optimiser):
        return optimiser
    if isinstance(optimiser, str):
        name = optimiser.strip().lower()
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown optimiser {optimiser!r}; {hint}known: {', '.join(RULES)}")
        return name
    if hasattr(optimiser, "param_groups"):
        from fiberscope.training.adapters.torch_states import optimiser_of_torch

        held = [p for group in optimiser.param_groups for p in group["params"]]
        optimiser = optimiser_of_torch(optimiser, {str(k): p for k, p in enumerate(held)})
    rule = getattr(optimiser, "rule", None)
    if isinstance(optimiser, type) or not callable(rule):
        what = f"the class {optimiser.__name__}" if isinstance(optimiser, type) else f"a {type(optimiser).__name__}"
        raise InputError(f"optimizer is {what}; give the optimizer object itself, or a name: {', '.join(RULES)}")
    found = rule()
    if not isinstance(found, Optimiser):
        raise InputError("the optimiser is not understood; give the name of a rule that it resembles")
    return found


def _look(start: Start, options: Mapping[str, Any]) -> StartReport:
    rule, seed = options["rule"], options["seed"]
    keeps_multiples = optimiser_keeps(rule, "weighted")
    silent = silent_neurons(start)
    guessed = {p.name: p.guessed for p in start.architecture.populations if p.guessed}
    bare = without_neurons(start, {name: mask for name, mask in silent.items() if name not in guessed})
    classes = classes_of(bare, weighted=bool(keeps_multiples), seed=seed)
    constants = {name: some for name, some in frozen_constants(start, silent).items() if some}
    symmetric = _by_symmetry(bare, classes, rule, options["budget"])
    looked = Looked(
        start, bare, classes, silent, rule, symmetric, constants, two_zero_factors(start)
    )  # fmt: skip
    findings = trapped_findings(looked)
    if not keeps_multiples and start.network is not None:
        findings += weighted_notes(looked, classes_of(bare, weighted=True, seed=seed))
    constants = {n: tuple(i for i in some if not _told(findings, n, i)) for n, some in constants.items()}
    findings += [_constant(looked, name, some) for name, some in constants.items() if some]
    findings += notes.all_notes(looked, options["data"], options["tolerance"], options["module"])
    findings = [_conditional(f, guessed) for f in findings if not _untrained(start, f)]
    findings.sort(key=lambda f: not f.trapped)
    widths = {p.name: p.count for p in start.architecture.populations}
    counts = _effective(findings, widths)
    skipped = tuple((s.name, s.reason) for s in start.architecture.skipped)
    return StartReport(
        model=start.label, findings=tuple(findings), trapped=any(f.trapped for f in findings), widths=widths,
        effective_widths=counts, dimension=_dimension(looked, findings, counts),
        parameters=start.architecture.parameter_count,
        optimiser=rule if isinstance(rule, str) else rule.name, skipped=skipped, start=start, options=options,
        rigor=Rigor.EXACT if start.network is not None else Rigor.NUMERICAL,
    )  # fmt: skip


def _conditional(found: Finding, guessed: Mapping[str, str]) -> Finding:
    """A finding on neurons that are guessed holds under a condition, and claims nothing."""
    reasons = list(dict.fromkeys(guessed[name] for name, _ in found.members if name in guessed))
    if not reasons:
        return found
    text = f"{found.message} -- if {' and '.join(reasons)}; pass data= to put it to the test"
    return replace(found, trapped=False, message=text)


def _unknown(start: Start) -> tuple[list[str], int]:
    """Parameters that are trained and of which nothing is known, and the number of entries of those that are known."""
    slots = start.architecture.slots
    labelled = {s.name for s in slots if any(a is not None for a in s.axes)}
    known = labelled if start.architecture.skipped else {s.name for s in slots}
    entries = {name: math.prod(np.shape(value)) for name, value in start.parameters.items()}
    names = [n for n in entries if n not in known and n not in start.frozen and entries[n]]
    return names, sum(count for name, count in entries.items() if name not in names)


def _untrained(start: Start, found: Finding) -> bool:
    """Whether nothing of the neurons is trained, so that no optimiser could separate or wake them."""
    slots, places = start.architecture.slots, start.architecture.places
    names = {slots[s].name for name, _ in found.members for s, _, _ in places[name]}
    return bool(names) and names <= start.frozen


def _told(findings: list[Finding], name: str, i: int) -> bool:
    """Whether a neuron is silent, or null, in a finding already."""
    return any(
        f.code in ("FS103", "FS106", "FS107") and (i,) in dict(f.members).get(name, ()) for f in findings
    )  # fmt: skip


def _by_symmetry(start: Start, classes: Mapping[str, Classes], rule: str | Optimiser, budget: Budget) -> bool:
    """Whether permutations that act on several layers at once explain all classes; asked where the answer matters."""
    if start.network is None or optimiser_keeps(rule, "equitable"):
        return False
    if all(c.trivial for c in classes.values()):
        return False
    from fiberscope.symmetries.automorphisms import neuron_orbits

    found = neuron_orbits(start.network, tuple(classes.values()), budget=budget)
    return all(
        {frozenset(o) for o in orbits if len(o) > 1} == {frozenset(m) for m in c.members if len(m) > 1}
        for orbits, c in zip(found.orbits, classes.values(), strict=True)
    )


def _constant(looked: Looked, name: str, some: tuple[int, ...]) -> Finding:
    population = looked.architecture.named[name]
    index = [p.name for p in looked.architecture.populations].index(name)
    net = looked.start.network
    still = net is not None and not np.asarray(net.hidden[index].bias[list(some)] != 0, dtype=bool).any()
    found = optimiser_keeps(looked.rule, "affine")  # a bias other than 0 is an affine equation
    keeps = Keeps(
        found.optimiser, "constant", "kept" if still or found else "broken",
        "no gradient reaches what it reads" if still or found else "decay moves the bias off the critical point",
    )  # fmt: skip
    label = population.activation.label if population.activation is not None else "its activation"
    number = "1 neuron" if len(some) == 1 else f"{len(some)} neurons"
    message = f"{number} with a constant output: nothing is read, and the slope of {label} is 0 at the bias"
    members = {name: tuple((i,) for i in some)}
    change: Change = redrawing(looked.architecture, [Edit("redraw", name, members[name])], kept=False)
    sim = f"incoming weights of {', '.join(map(str, some[:6]))} = 0, biases constant"
    return looked.finding("FS110", members, message, sim, keeps, change, lost={name: some})


def _effective(findings: list[Finding], widths: Mapping[str, int]) -> dict[str, int]:
    gone: dict[str, set[int]] = {name: set() for name in widths}
    for found in findings:
        if not found.trapped:
            continue
        for name, classes in found.members:
            for members in classes:
                gone[name].update(members[1:] if len(members) > 1 else members)
    return {name: n - len(gone[name]) for name, n in widths.items()}


def _dimension(looked: Looked, findings: list[Finding], counts: Mapping[str, int]) -> int:
    """Free parameters with these class counts; below a layer of a chain that nothing leaves, nothing moves."""
    shared = dict.fromkeys(counts, 0)
    for found in findings:
        for name, classes in found.members if found.trapped else ():
            shared[name] += sum(len(m) > 1 for m in classes)
    architecture = looked.architecture
    total = class_dimension(architecture, counts, shared)
    still = still_layers([counts[p.name] for p in architecture.populations]) if architecture.chain else 0
    if not still:
        return total
    cut = {name for d in architecture.chain[:still] for name in (d.weight, d.bias)}
    rest = replace(architecture, slots=tuple(s for s in architecture.slots if s.name not in cut), laws=(), chain=())
    return class_dimension(rest, counts, shared)
