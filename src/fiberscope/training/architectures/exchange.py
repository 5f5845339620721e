"""Symmetries put to the test: neurons permuted, flipped and rescaled, and whether the function notices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_generator
from fiberscope.errors import InputError
from fiberscope.io.state_dicts import as_array
from fiberscope.training.architectures.architecture import (
    Architecture,
    Law,
    Parameters,
    Skipped,
    checked_architecture,
    checked_parameters,
)
from fiberscope.training.architectures.probes import Evaluate, Probe, outputs, probes_near

Array = npt.NDArray[Any]
_SCALE_FLOOR = 1e-2
"""Relative changes that "scale" laws forgive: the eps of a normalisation breaks them a little."""


def exchanged(
    architecture: Architecture,
    parameters: Parameters,
    population: str,
    permutation: npt.ArrayLike,
    signs: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """The parameters with the neurons of a population permuted: slice i becomes signs_i * slice permutation_i.

    The same permutation acts on all axes of the population, so the function stays the same where they are labelled
    rightly, and distances between parameters too.

    Args:
        architecture: of the model.
        parameters: its parameters, not changed.
        population: whose neurons.
        permutation: (count,) of 0, ..., count - 1.
        signs: (count,) of 1 and -1, for populations with `signs`.

    Returns:
        All parameters; those that the population does not index are the given objects.

    Raises:
        InputError: if this is no permutation, or the population has no signs to change.

    O(entries of the population's tensors).

    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> model = chain_architecture((1, 2, 1), biases=False)
    >>> new = exchanged(model, {"1.weight": np.array([[1.0], [2.0]]), "2.weight": np.array([[3.0, 4.0]])}, "1", [1, 0])
    >>> new["1.weight"].tolist(), new["2.weight"].tolist()
    ([[2.0], [1.0]], [[4.0, 3.0]])
    """
    if population not in architecture.named:
        raise InputError(f"no population {population!r}; there are {', '.join(architecture.named)}")
    row = architecture.named[population]
    index = np.asarray(permutation, dtype=np.int64)
    if index.shape != (row.count,) or not np.array_equal(np.sort(index), np.arange(row.count)):
        raise InputError(f"not a permutation of the {row.count} neurons of {population!r}")
    factors = None if signs is None else np.asarray(signs)
    if factors is not None:
        if not row.signs:
            raise InputError(f"neurons of {population!r} cannot change sign: their activation is not odd")
        if factors.shape != (row.count,) or not (np.abs(factors) == 1).all():
            raise InputError(f"signs must be {row.count} numbers 1 or -1")

    def moved(values: Array, axis: int) -> Array:
        out = np.take(values, index, axis=axis)
        return out if factors is None else _times(out, axis, factors)

    changes: dict[int, list[_Change]] = {}
    for s, axis in _spots(architecture, population):
        changes.setdefault(s, []).append((axis, moved))
    return _changed(architecture, parameters, changes)


def defects(
    architecture: Architecture, parameters: Parameters, evaluate: Evaluate, *, seed: int = 0
) -> dict[str, float]:
    """How much a random permutation (with sign changes where claimed) of each population changes the function.

    max |f(permuted) - f| / max |f|, the worst of some random points near the given parameters: not at them, so that
    equal or dead neurons hide nothing. NaN if that cannot be seen: tearing the labels apart (permuting one of the
    tensors alone) changes nothing either, or the outputs are not finite. Populations that are not exchangeable are left
    out; one neuron is always 0.

    Args:
        architecture: what is claimed.
        parameters: where to start from.
        evaluate: outputs from parameters, on fixed inputs, the same for the same parameters.
        seed: of the random points and permutations.

    A few evaluations per population; up to two copies of the parameters.

    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> model, x = chain_architecture((2, 3, 1)), np.array([[1.0, 2.0], [-1.0, 0.5]])
    >>> start = {"1.weight": np.ones((3, 2)), "1.bias": np.ones(3), "2.weight": np.ones((1, 3)), "2.bias": np.ones(1)}
    >>> def f(p): return np.maximum(x @ p["1.weight"].T + p["1.bias"], 0) @ p["2.weight"].T + p["2.bias"]
    >>> defects(model, start, f)["1"] < 1e-12
    True
    """
    rng = as_generator(seed)
    probes = probes_near(parameters, evaluate, rng)
    return {
        p.name: _defect(architecture, probes, p.name, rng, signs=p.signs)
        for p in architecture.populations
        if p.exchangeable
    }


def confirmed(
    architecture: Architecture,
    parameters: Parameters,
    evaluate: Evaluate,
    *,
    training: Evaluate | None = None,
    seed: int = 0,
) -> Architecture:
    """The architecture without what the function contradicts; everything taken out is named as skipped, with a reason.

    Tested at random parameters: permutations of each population; sign changes; for `null`, that a neuron is silent
    if its incoming or its outgoing slices are 0; and the scalings (rotations, for "matrix" any invertible maps) that
    each law comes from. A test of numbers, no proof: it finds wrong labels, and says nothing of other symmetries.

    Args:
        architecture: what is claimed.
        parameters: where to start from.
        evaluate: outputs from parameters on fixed inputs, in evaluation mode.
        training: the same with the statistics of the batch, for "scale" laws, which fixed statistics break; without
            it those laws of normalised populations are kept untested.
        seed: of the random points.

    About one evaluation per population and two per law, if all is right.

    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> model, x = chain_architecture((1, 2, 1), biases=False), np.array([[1.0], [-1.0]])
    >>> start = {"1.weight": np.ones((2, 1)), "2.weight": np.ones((1, 2))}
    >>> def f(p): return (x @ p["1.weight"].T + [0, 1]) @ p["2.weight"].T
    >>> confirmed(model, start, f).skipped[0].name
    '1'
    """
    rng = as_generator(seed)
    checked_architecture(architecture)
    if not callable(evaluate):
        raise InputError(f"evaluate is a {type(evaluate).__name__}; give a function from parameters to outputs")
    if training is not None and not callable(training):
        raise InputError(f"training is a {type(training).__name__}; give a function of parameters, or None")
    probes = probes_near(checked_parameters(parameters), evaluate, rng)
    out = architecture
    if not probes:
        reason = "outputs at random parameters are not finite: nothing could be confirmed"
        for name in architecture.named:
            out = out.without(name, reason)
        return out
    suspects = _suspects(architecture, probes, [p.name for p in architecture.populations if p.exchangeable], rng)
    for p in architecture.populations:
        if not p.exchangeable or (p.count == 1 and not p.signs):
            continue
        worst = _defect(architecture, probes, p.name, rng, signs=p.signs) if p.name in suspects else 0.0
        if worst > 0 and p.signs and _defect(architecture, probes, p.name, rng, signs=False) == 0:
            out = _corrected(out, p.name, f"changing signs changes the output by {worst:.2g}: not used", signs=False)
            worst = 0.0
        if worst > 0:
            out = out.without(p.name, f"permuting its neurons changes the output by {worst:.2g}: not understood")
        elif np.isnan(worst) or not _seen(architecture, probes, p.name, rng):
            out = out.without(p.name, "the output does not depend on it at random parameters: could not be confirmed")
    for p in out.populations:
        if p.null and (change := _loudness(out, probes, p.name, rng)) > 0:
            text = f"a neuron whose weights are 0 on one side still changes the output by {change:.2g}: not silent"
            out = _corrected(out, p.name, text, null=False)
    out = replace(out, populations=tuple(replace(p, guessed="") for p in out.populations))
    return _lawful(out, probes, probes_near(parameters, training, rng) if training is not None else None, rng)


def _times(values: Array, axis: int, factors: Array) -> Array:
    shape = [1] * values.ndim
    shape[axis] = -1
    return np.asarray(values * factors.astype(values.dtype).reshape(shape))


def _spots(architecture: Architecture, population: str) -> list[tuple[int, int]]:
    return [(s, axis) for s, axis, _ in architecture.places[population]]


_Change = tuple[int, Callable[[Array, int], Array]]


def _changed(
    architecture: Architecture, parameters: Parameters, changes: Mapping[int, Sequence[_Change]]
) -> dict[str, Any]:
    """All parameters, slots changed along axes one after the other; a parameter with several slots is copied once."""
    out = {name: parameters[name] for name in parameters}
    copies: dict[str, Array] = {}
    for s, steps in changes.items():
        slot = architecture.slots[s]
        if slot.name not in copies:
            array = as_array(parameters[slot.name], slot.name) if slot.name in parameters else None
            slot.read({} if array is None else {slot.name: array})  # raises if it is missing or of another shape
            copies[slot.name] = np.array(array, order="C")
        part = slot.cut(copies[slot.name].reshape(slot.view))
        for axis, step in steps:
            part[...] = step(part, axis)
    return {**out, **copies}


def _randomly(
    architecture: Architecture, point: Parameters, names: Sequence[str], rng: np.random.Generator, *, signs: bool
) -> dict[str, Any]:
    """The point with some populations permuted at random, and neurons flipped where signs are claimed."""
    new = dict(point)
    for name in names:
        row = architecture.named[name]
        flips = rng.choice([-1.0, 1.0], row.count) if signs and row.signs else None
        new = exchanged(architecture, new, name, _shuffle(row.count, rng), flips)
    return new


def _taken(order: npt.NDArray[np.int64], values: Array, axis: int) -> Array:
    return np.take(values, order, axis=axis)


def _rescattered(rng: np.random.Generator, values: Array, _: int) -> Array:
    return np.asarray(values * rng.uniform(0.5, 1.5, values.shape).astype(values.dtype))


def _shuffle(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A permutation that is not the identity, if there is one."""
    while True:
        order = rng.permutation(count)
        if count == 1 or (order != np.arange(count)).any():
            return np.asarray(order, dtype=np.int64)


def _suspects(
    architecture: Architecture, probes: Sequence[Probe], names: Sequence[str], rng: np.random.Generator
) -> set[str]:
    """Populations that fail, by halves: permutations that keep the function do so together."""
    if not names:
        return set()
    good = all(p.change(_randomly(architecture, p.point, names, rng, signs=True)) == 0 for p in probes)
    if good:
        return set()
    if len(names) == 1:
        return set(names)
    half = len(names) // 2
    return _suspects(architecture, probes, names[:half], rng) | _suspects(architecture, probes, names[half:], rng)


def _defect(
    architecture: Architecture, probes: Sequence[Probe], name: str, rng: np.random.Generator, *, signs: bool
) -> float:
    """Worst relative change over the probes, 0 below rounding; NaN where nothing could be seen."""
    row = architecture.named[name]
    if row.count == 1 and not (signs and row.signs):
        return 0.0
    worst = max((p.change(_randomly(architecture, p.point, [name], rng, signs=signs)) for p in probes), default=np.nan)
    return float(worst) if worst > 0 or (probes and _seen(architecture, probes, name, rng)) else float("nan")


def _seen(architecture: Architecture, probes: Sequence[Probe], name: str, rng: np.random.Generator) -> bool:
    """Whether the function notices when the axes of the population are torn apart: one permuted, the others not.

    One axis at a time: a function that notices none of them notices no other way of tearing either, and two neurons
    have no two permutations to tell apart. An only axis cannot be torn; there its entries must matter.
    """
    count, spots = architecture.named[name].count, _spots(architecture, name)
    if count == 1:
        return True
    for s, axis in spots:
        for probe in probes:
            step = partial(_taken, _shuffle(count, rng)) if len(spots) > 1 else partial(_rescattered, rng)
            new = _changed(architecture, probe.point, {s: [(axis, step)]})
            if probe.change(new, 10 * probe.threshold) > 0:
                return True
    return False


def _loudness(architecture: Architecture, probes: Sequence[Probe], name: str, rng: np.random.Generator) -> float:
    """How much a neuron changes the output when its incoming slices are 0, or its outgoing ones are; 0 if silent."""
    count, worst = architecture.named[name].count, 0.0
    for probe in probes:
        keep = np.ones(count)
        keep[int(rng.integers(count))] = 0.0
        off = [_zeroed(architecture, probe.point, name, role, keep) for role in ("in", "out")]
        both = _zeroed(architecture, off[0], name, "out", keep)
        base = replace(probe, output=outputs(probe.evaluate, both))
        worst = max(worst, *(base.change(p) for p in off))
    return worst


def _zeroed(architecture: Architecture, point: Parameters, name: str, role: str, keep: Array) -> dict[str, Any]:
    spots = [(s, axis) for s, axis, found in architecture.places[name] if found == role]
    new = dict(point)
    for s, axis in spots:
        new = _changed(architecture, new, {s: [(axis, lambda v, k: _times(v, k, keep))]})
    return new


def _corrected(architecture: Architecture, name: str, reason: str, **flags: bool) -> Architecture:
    changed: dict[str, Any] = dict(flags)
    populations = tuple(replace(p, **changed) if p.name == name else p for p in architecture.populations)
    skipped = (*architecture.skipped, Skipped(name, reason))
    return replace(architecture, populations=populations, skipped=skipped, chain=())


def _lawful(
    architecture: Architecture, probes: Sequence[Probe], batch: Sequence[Probe] | None, rng: np.random.Generator
) -> Architecture:
    """Without the laws whose symmetry the function does not have."""
    kept, skipped = [], list(architecture.skipped)
    for law in architecture.laws:
        used = probes
        if law.kind == "scale":
            if batch is None and architecture.named[law.population].normalised:
                kept.append(law)
                continue
            used = batch if batch is not None else probes
        floor = _SCALE_FLOOR if law.kind == "scale" else 0.0
        try:
            worst = max((p.change(_rescaled(architecture, p.point, law, rng), floor) for p in used), default=np.inf)
        except InputError as exc:
            skipped.append(Skipped(law.name, str(exc)))
            continue
        if worst == 0:
            kept.append(law)
        else:
            skipped.append(Skipped(law.name, f"its symmetry changes the output by {worst:.2g}: not conserved"))
    chain = architecture.chain if len(kept) == len(architecture.laws) else ()  # its activations cannot be right
    return replace(architecture, laws=tuple(kept), skipped=tuple(skipped), chain=chain)


def _rescaled(architecture: Architecture, point: Parameters, law: Law, rng: np.random.Generator) -> dict[str, Any]:
    """The point moved along the symmetry that a law comes from.

    With maps A_i of the plus side, its generator moves the minus side by the inverse transpose, and by -degree times
    as much for a homogeneous activation: then Q is its moment map.
    """
    count = architecture.named[law.population].count
    lead = () if law.per is None else (architecture.named[law.per].count,)
    if law.kind == "matrix":
        left, right = (np.linalg.qr(rng.standard_normal((*lead, count, count)))[0] for _ in range(2))
        forth = left * rng.uniform(0.7, 1.4, (*lead, 1, count)) @ right
        back = np.linalg.inv(np.swapaxes(forth, -1, -2))
    else:
        forth = rng.uniform(0.5, 2.0, (*lead, count))
        if law.kind == "rotary":
            forth[..., count // 2 :] = forth[..., : count // 2]
        back = forth**-law.degree
    new: dict[str, Any] = dict(point)
    for slots, maps in ((law.plus, forth), (law.minus, back)):
        for s in slots:
            new = _mapped(architecture, new, law, s, maps)
    return new


def _mapped(architecture: Architecture, point: Parameters, law: Law, s: int, maps: Array) -> dict[str, Any]:
    """One slot with numbers (or matrices) acting on its neurons, each head's own where the law has heads."""
    slot = architecture.slots[s]
    axis, head = slot.where(law.population), None if law.per is None else slot.where(law.per)
    if axis is None or (law.per is not None and head is None):
        raise InputError(f"parameter {slot.name!r} has no axis of {law.population!r}, or of its heads")

    def acted(values: Array, _: int) -> Array:
        order = (axis,) if head is None else (head, axis)
        front = np.moveaxis(values, order, range(len(order))).astype(np.float64)
        flat = front.reshape(*front.shape[: len(order)], -1)
        flat = maps @ flat if law.kind == "matrix" else maps[..., None] * flat
        return np.asarray(np.moveaxis(flat.reshape(front.shape), range(len(order)), order))

    return _changed(architecture, point, {s: [(axis, acted)]})
