"""What looks like a trap and is none: zero layers, zero factors, near duplicates, neurons that are dead on the data."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_floats
from fiberscope.errors import InputError
from fiberscope.training.architectures.architecture import Population, Role
from fiberscope.training.lint.findings import CODES, Finding
from fiberscope.training.lint.starts import near_duplicates, zero_rows
from fiberscope.training.lint.traps import Looked

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_MANY = 5_000_000
"""Parameters up to which models that are no chains are searched for neurons equal up to rounding unasked."""


def all_notes(looked: Looked, data: Any, tolerance: float, module: Any) -> list[Finding]:
    """The notes of a start.

    Args:
        looked: with its classes.
        data: inputs, or None.
        tolerance: of near duplicates.
        module: the torch module that the start was read from, or None.

    O(parameters).
    """
    out: list[Finding] = []
    for population in looked.architecture.populations:
        out += _zeros(looked, population, {f.population for f in out if f.code == "FS201"})
        out += _embedded(looked, population)
    out += _zero_biases(looked)
    out += _near(looked, tolerance)
    if data is not None:
        out += _dead_on_data(looked, data, module)
    return out


def _note(code: str, name: str, classes: Iterable[Sequence[int]], message: str) -> Finding:
    members = tuple(tuple(int(i) for i in m) for m in classes)
    return Finding(code, CODES[code], name, ((name, members),) if name else (), False, message)


def _free(looked: Looked, population: Population) -> Mask:
    """Neurons that are neither silent nor null, nor constants that never move."""
    out = ~looked.silent[population.name] & (looked.classes[population.name].labels >= 0)
    out[list(looked.constants.get(population.name, ()))] = False
    products = looked.products.get(population.name)
    return out if products is None else out & ~products


def _trained(looked: Looked, name: str, role: Role) -> bool:
    """Whether a parameter of a population, in a role, is trained."""
    slots = looked.architecture.slots
    here = {slots[s].name for s, _, found in looked.architecture.places[name] if found == role}
    return not here <= looked.start.frozen


def _zeros(looked: Looked, population: Population, told: Set[str]) -> list[Finding]:
    """One zero side of a product: the other side's gradient is 0 in the first step only."""
    name, rows = population.name, looked.start.rows
    if not _free(looked, population).all():
        return []
    sent = [m for m in rows(name, "out") if m.size]
    read = [m for m in rows(name, "in") if m.shape[1] > 1]
    unknown = population.activation is None and not population.null
    if unknown and zero_rows(rows(name), population.count).all():
        return []  # whether s(0) = 0, so that nothing moves, is not known
    if sent and zero_rows(sent, population.count).all() and _trained(looked, name, "out"):
        if _is_factor(population):
            return [_note("FS202", name, (), "the outgoing factor is 0 and the other is not: it moves first, "
                          "the other from the second on (LoRA starts like this)")]  # fmt: skip
        if _into_stream(looked, population):
            return [_note("FS203", name, (), "its residual branch starts at 0: the last weights of the branch move in "
                          "the first step, the others from the second on")]  # fmt: skip
        return [_note("FS201", name, (), "all weights that read this layer are 0: they move in the first step (their "
                      "gradient has the rank of the hidden outputs), what lies below from the second on")]  # fmt: skip
    dark = _trained(looked, name, "in") and not told & _read_by(looked, population)
    if read and zero_rows(read, population.count).all() and dark:
        code = "FS202" if _is_factor(population) else "FS204"
        return [_note(code, name, (), "its incoming weights are 0 and the outgoing ones are not: they move in "
                      "the first step, and neurons with different outgoing weights become different")]  # fmt: skip
    return []


def _is_factor(population: Population) -> bool:
    """Whether nothing stands between what is read and what is sent."""
    row = population.activation
    straight = row.name == "identity" if row is not None else population.signs and population.null
    return population.kind == "factors" or (straight and population.kind == "neurons" and not population.normalised)


def _read_by(looked: Looked, population: Population) -> set[str]:
    """The populations that the neurons read."""
    places = [(s, axis) for s, axis, role in looked.architecture.places[population.name] if role == "in"]
    slots = looked.architecture.slots
    return {a.population for s, axis in places for k, a in enumerate(slots[s].axes) if k != axis and a is not None}


def _into_stream(looked: Looked, population: Population) -> bool:
    """Whether something that the neurons send to is shared with a path around them."""
    named = looked.architecture.named
    for s, axis, role in looked.architecture.places[population.name]:
        others = [a for k, a in enumerate(looked.architecture.slots[s].axes) if k != axis and a is not None]
        if role == "out" and any(a.role == "in" and named[a.population].kind == "stream" for a in others):
            return True
    return False


def _zero_biases(looked: Looked) -> list[Finding]:
    biases = [s for s in looked.architecture.slots if len(s.view) == 1 and re.search(r"(^|[./])bias$", s.name)]
    biases = [s for s in biases if s.name not in looked.start.frozen]
    zero = [s.name for s in biases if not np.asarray(s.read(looked.start.parameters) != 0, dtype=bool).any()]
    if not zero or len(zero) < len(biases):
        return []
    return [_note("FS205", "", (), f"all {len(zero)} biases are 0, as is usual: they move in the first step")]


def _embedded(looked: Looked, population: Population) -> list[Finding]:
    """Neurons with equal incoming and different outgoing weights: no invariant manifold, their gradients differ."""
    matrices = looked.bare.rows(population.name, "in")
    if not matrices or not looked.bare.rows(population.name, "out"):
        return []
    table: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(_free(looked, population) & ~zero_rows(matrices, population.count)):
        table.setdefault(_key(m[i] for m in matrices), []).append(int(i))
    labels = looked.classes[population.name].labels
    groups = [tuple(m) for m in table.values() if len(set(labels[m].tolist())) > 1]
    if not groups:
        return []
    opposite = all(_cancels(looked, population.name, m) for m in groups)
    text = (
        "these neurons read the same and send opposite weights, so that together they send 0 (antisymmetric doubling)"
        if opposite
        else "these neurons read the same and send different weights"
    )
    if not _trained(looked, population.name, "in"):
        text = f"{text}: their incoming weights are not trained, so they compute the same for ever and count once"
        return [_note("FS206", population.name, groups, text)]
    return [_note("FS206", population.name, groups, f"{text}: their gradients differ, and they separate at once")]


def _key(rows: Iterable[Array]) -> bytes:
    """Equal for equal rows, of any kind of numbers; different for all others but for a chance of 2^-128."""
    out = hashlib.blake2b(digest_size=16)
    for row in rows:
        out.update(repr(row.tolist()).encode() if row.dtype == object else (row + row.dtype.type(0)).tobytes())
    return out.digest()


def _cancels(looked: Looked, name: str, members: Sequence[int]) -> bool:
    return all(
        not np.asarray(m[list(members)].sum(axis=0) != 0, dtype=bool).any() for m in looked.bare.rows(name, "out")
    )  # fmt: skip


def _near(looked: Looked, tolerance: float) -> list[Finding]:
    exact = looked.classes
    if looked.start.network is None and not tolerance and looked.architecture.parameter_count > _MANY:
        return []
    near = near_duplicates(looked.bare, exact, tolerance)
    out = []
    for population in looked.architecture.populations:
        known, found = exact[population.name], near[population.name]
        if found.count == known.count and len(found.null) == len(known.null):
            continue
        groups = [m for m in found.members if len(set(known.labels[list(m)].tolist())) > 1]
        groups += [(i,) for i in found.null if known.labels[i] >= 0]
        if groups:
            message = (
                f"equal up to {'rounding' if not tolerance else f'rounding or a relative {tolerance:g}'} and not "
                "exactly: near an invariant manifold, they separate as slowly as it repels"
            )
            out.append(_note("FS207", population.name, groups, message))
    return out


def _dead_on_data(looked: Looked, data: Any, module: Any) -> list[Finding]:
    out = []
    for name, outputs in _outputs(looked, data, module).items():
        if name not in looked.architecture.named:
            continue  # taken out, and named as skipped
        mask = ~np.asarray(outputs != 0).any(axis=tuple(k for k in range(outputs.ndim) if k != 1))
        mask &= _free(looked, looked.architecture.named[name])
        if mask.any():
            some = np.flatnonzero(mask)
            message = (
                f"output 0 on all {len(outputs):,} inputs given (not for every input): no gradient there until what "
                "they read changes"
            )
            out.append(_note("FS208", name, [(int(i),) for i in some], message))
    return out


def _outputs(looked: Looked, data: Any, module: Any) -> Mapping[str, Array]:
    """Outputs (N, neurons, ...) of the populations that can be run."""
    net = looked.start.network
    if net is not None:
        points = as_floats(data, "data")
        if points.ndim < 2 or math.prod(points.shape[1:]) != net.widths[0]:
            raise InputError(f"data has shape {points.shape}; expected (samples, {net.widths[0]})")
        before = net.preactivations(points.reshape(len(points), -1))
        rows = zip(looked.architecture.populations, net.hidden, before, strict=False)
        return {p.name: layer.activation(z) for p, layer, z in rows}
    if module is None:
        return {}
    from fiberscope.training.adapters.torch_subject import ModuleSubject

    subject = ModuleSubject(module, example=data)
    try:
        return subject.activations(data) or {}
    finally:
        subject.close()
