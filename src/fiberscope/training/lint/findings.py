"""What can be wrong with a start, code by code, in data and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fiberscope.invariants.dynamics.keeping import Keeps
from fiberscope.results import jsonable
from fiberscope.training.architectures.architecture import Architecture
from fiberscope.training.lint.freeing import Change

Members = tuple[tuple[int, ...], ...]

CODES = {
    "FS101": "duplicate neurons",
    "FS102": "neurons equal up to sign",
    "FS103": "null neurons",
    "FS104": "one neuron repeated over a whole layer",
    "FS105": "classes coupled over layers",
    "FS106": "dead for every input",
    "FS107": "a product of two zero factors",
    "FS108": "neurons that are multiples",
    "FS109": "duplicate normalised channels",
    "FS110": "neurons with a constant output",
    "FS201": "zero outgoing weights",
    "FS202": "one zero factor",
    "FS203": "zero residual branch",
    "FS204": "zero incoming weights",
    "FS205": "zero biases",
    "FS206": "equal incoming weights, other outgoing ones",
    "FS207": "nearly equal neurons",
    "FS208": "dead on the data",
}
"""FS1xx: a structural invariant manifold, trapped if the optimiser keeps it. FS2xx: notes, never trapped."""

_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that a start has.

    Args:
        code: a key of `CODES`.
        name: its meaning.
        population: whose neurons; the first one if `members` has several.
        members: the classes of neurons, for each population concerned; single neurons are classes of one.
        trapped: whether theta lies on a manifold of positive codimension that the optimiser keeps.
        message: what it means, in one sentence.
        sim: the equations of the manifold.
        dimension: of the manifold, None for notes.
        codimension: number of equations.
        effective_width: neurons left in `population` if every class counts once and silent neurons not at all.
        optimiser: whether the optimiser keeps the manifold, and why.
        change: the smallest change that frees, None for notes.
    """

    code: str
    name: str
    population: str
    members: tuple[tuple[str, Members], ...]
    trapped: bool
    message: str
    sim: str = ""
    dimension: int | None = None
    codimension: int = 0
    effective_width: int = 0
    optimiser: Keeps | None = None
    change: Change | None = None

    @property
    def neurons(self) -> Members:
        """The classes in `population`."""
        return dict(self.members).get(self.population, ())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        keeps = self.optimiser
        return {
            "code": self.code, "name": self.name, "population": self.population,
            "members": {name: jsonable(classes) for name, classes in self.members}, "trapped": self.trapped,
            "message": self.message, "sim": self.sim, "dimension": self.dimension, "codimension": self.codimension,
            "effective_width": self.effective_width,
            "optimiser": None if keeps is None else
            {"optimiser": keeps.optimiser, "manifold": keeps.manifold, "outcome": keeps.outcome,
             "reason": keeps.reason},
            "change": None if self.change is None else self.change.to_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        """One line, as linters print it."""
        where = self.population + (f"[{listed(self.neurons)}]" if self.neurons else "")
        return f"{where}: {self.code} {self.message}" if where else f"{self.code} {self.message}"


def class_dimension(
    architecture: Architecture, counts: Mapping[str, int], shared: Mapping[str, int], *, frozen: bool = False
) -> int:
    """Free parameters of the tensors that are constant on classes: the product, over axes, of the number of classes.

    With one class vector of k_p classes (null neurons not counted) on every axis of population p, W = E R E'^T has as
    many free entries as R. Where one tensor has two axes of the same population, W_ii and W_ij differ inside a class:
    k^2 + (number of classes with several members).

    Args:
        architecture: of the model.
        counts: k_p for each population.
        shared: number of classes with several members, for each population.
        frozen: whether blocks may deviate from constants (equitable partitions): (n_a - k_a)(n_b - k_b) entries more
            for every two axes, the dimension of {W P = P W}.

    O(slots).

    >>> from fiberscope.training.architectures.chains import chain_architecture
    >>> class_dimension(chain_architecture((1, 3, 3, 1)), {"1": 1, "2": 1}, {"1": 1, "2": 1})
    6
    >>> class_dimension(chain_architecture((1, 3, 3, 1)), {"1": 1, "2": 1}, {"1": 1, "2": 1}, frozen=True)
    10
    """
    best: dict[tuple[str, tuple[int, int, int] | None], int] = {}
    for slot in architecture.slots:
        names: list[str] = []
        plain = 1
        for k, axis in enumerate(slot.axes):
            size = slot.view[k] if slot.take is None or slot.take[0] != k else slot.take[2] - slot.take[1]
            if axis is None:
                plain *= size
            else:
                names.append(axis.population)
        free = math.prod(counts[n] for n in names)
        if len(names) == 2 and names[0] == names[1]:
            free += shared[names[0]]
        elif frozen and len(names) == 2:
            free += math.prod(architecture.named[n].count - counts[n] for n in names)
        key = (slot.name, slot.take)
        best[key] = min(best.get(key, plain * free), plain * free)
    return sum(best.values())


def slices_text(architecture: Architecture, name: str, role: str | None = None) -> str:
    """The parameters of neuron i: "(fc1.weight[i], fc1.bias[i], fc2.weight[:, i])"."""
    parts = []
    for s, axis, found in architecture.places[name]:
        if role in (None, found):
            slot = architecture.slots[s]
            at = ":, " * axis + "i"
            parts.append(f"{slot.name}[{at}]")
    shown = parts[:_SHOWN] + (["..."] if len(parts) > _SHOWN else [])
    return f"({', '.join(shown)})" if len(parts) > 1 else "".join(shown)


def listed(classes: Sequence[Sequence[int]]) -> str:
    """Classes of neurons, short: "0,3; 5"."""
    if all(len(m) == 1 for m in classes):
        return few_of([m[0] for m in classes])
    shown = "; ".join(few_of(m) for m in classes[:3])
    return shown + (f"; {len(classes) - 3} more" if len(classes) > 3 else "")


def few_of(numbers: Sequence[int]) -> str:
    """Numbers, short: "0-7" or "1,5,9,..."."""
    if len(numbers) > 3 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers[:_SHOWN])) + (",..." if len(numbers) > _SHOWN else "")


def count_of(n: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 neuron, 2 neurons."""
    return f"{n} {one if n == 1 else many or one + 's'}"
