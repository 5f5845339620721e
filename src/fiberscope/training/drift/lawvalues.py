"""Values of the conserved quantities of an architecture: one pass over the parameters, sums in float64, no copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError
from fiberscope.training.architectures.architecture import Architecture, Law, LawKind, Parameters, Slot
from fiberscope.training.drift.productsums import sums

Array = npt.NDArray[np.float64]
Pair = tuple[str, str]
Source = Callable[[str, Mapping[str, "Array | None"]], object]
"""Gives what stands for a parameter, None if it is not known, from its name and what earlier sources gave."""

_ROOM = 48
"""A matrix of n > `_SMALL` entries is watched whole if its parameters have `_ROOM` n: what is kept is then little."""
_SMALL = 4096


def quantities(architecture: Architecture, parameters: Parameters) -> dict[str, Array]:
    """The values of all laws at a point.

    Q_i = sum over plus of |T_i|^2 - degree * sum over minus of |T_i|^2 for "balance" and "scale", the sums over all
    entries that belong to neuron i; T T^T instead of |T_i|^2 for "matrix"; neurons i and i + n/2 together for "rotary".

    Gradient flow conserves them (for "scale" behind BatchNorm up to its eps: <w_i, g_i> = eps / (var_i + eps) *
    gain_i * its gradient). O(parameters), matrices O(parameters * n); arXiv 1806.00900, 2012.04728, 2307.00144.

    Args:
        architecture: says which tensors belong to which law.
        parameters: arrays by name.

    Returns:
        By law: (n,) for balance and scale, (n/2,) for rotary, (n, n) for matrix; with a leading axis of heads for laws
        that every head has by itself. float64; entries of float32 parameters, rounded once, carry relative errors of
        6e-8 of `magnitudes`, never less.

    Raises:
        InputError: if parameters do not fit the architecture.

    >>> from fiberscope.training.architectures.architecture import Axis, Population, Slot
    >>> h = [Axis("h", "in"), Axis("h", "out")]
    >>> slots = (Slot("w", (2, 1), (2, 1), (h[0], None)), Slot("a", (1, 2), (1, 2), (None, h[1])))
    >>> model = Architecture(slots, (Population("h", 2),), (Law("|w|^2 - a^2", "balance", "h", (0,), (1,)),))
    >>> quantities(model, {"w": np.array([[3.0], [1.0]]), "a": np.array([[2.0, 1.0]])})
    {'|w|^2 - a^2': array([5., 0.])}
    """
    return dict(zip(law_names(architecture), Forms(architecture).squares(parameters), strict=True))


def magnitudes(architecture: Architecture, parameters: Parameters) -> dict[str, Array]:
    """The same sums with all signs +: what drifts are measured against.

    Args:
        architecture: says which tensors belong to which law.
        parameters: arrays by name.

    Raises:
        InputError: if parameters do not fit the architecture.
    """
    return dict(zip(law_names(architecture), Forms(architecture, signed=False).squares(parameters), strict=True))


def law_names(architecture: Architecture) -> tuple[str, ...]:
    """The names of all laws; a repeated one gets " (2)" and so on."""
    seen: dict[str, int] = {}
    out = []
    for law in architecture.laws:
        seen[law.name] = seen.get(law.name, 0) + 1
        out.append(law.name if seen[law.name] == 1 else f"{law.name} ({seen[law.name]})")
    return tuple(out)


def law_theorems(architecture: Architecture) -> tuple[str, ...]:
    """Keys of the theorems behind the laws: balances of homogeneous neurons, and those of other symmetries."""
    kinds = {law.kind for law in architecture.laws}
    balance = ("scaling-balance",) if "balance" in kinds else ()
    return balance + (("symmetry-laws",) if kinds - {"balance"} else ())


@dataclass(frozen=True)
class Term:
    """What one slot adds to one law.

    Args:
        law: position of the law.
        slot: where the entries are.
        weight: its factor, 1 or -degree.
        axis: of the view that indexes the neurons.
        per: of the view that indexes the heads; None for one law in all.
        kind: "matrix" for products of all pairs of neurons.
    """

    law: int
    slot: Slot
    weight: float
    axis: int
    per: int | None
    kind: LawKind

    def read(self, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The part of a parameter-shaped array that is meant."""
        return self.slot.cut(value.reshape(self.slot.view))

    def form(self, x: Array, y: Array) -> Array:
        """Sums of x y over all that belongs to a neuron; symmetric in x and y."""
        x, y = self.read(x), self.read(y)
        if self.kind == "matrix":
            x, y = self._unfolded(x), self._unfolded(y)
            out = np.matmul(x, y.swapaxes(-1, -2))
            return np.asarray(self.weight / 2 * (out + out.swapaxes(-1, -2)))
        out = self.weight * sums(x, y, tuple(k for k in (self.per, self.axis) if k is not None))
        if self.kind == "rotary":
            half = out.shape[-1] // 2
            out = out[..., :half] + out[..., half:]
        return np.asarray(out)

    def _unfolded(self, x: Array) -> Array:
        first = [k for k in (self.per, self.axis) if k is not None]
        moved = np.moveaxis(x, first, range(len(first)))
        return moved.reshape(*moved.shape[: len(first)], -1).astype(np.float64, copy=False)


class Forms:
    """The bilinear forms of all laws, laid out by parameter so that every parameter is converted once.

    Args:
        architecture: says which tensors belong to which law.
        signed: False for all signs +.
        diagonals: whether large matrices are reduced to their diagonals.

    Raises:
        InputError: if a law names a population that a slot of it does not have.
    """

    def __init__(self, architecture: Architecture, *, signed: bool = True, diagonals: bool = False) -> None:
        """Lay out the terms."""
        self.laws = architecture.laws
        self.terms: dict[str, list[Term]] = {}
        self.names: list[tuple[str, ...]] = []
        for k, law in enumerate(self.laws):
            kind = "balance" if diagonals and is_large(architecture, law) else law.kind
            sides = [(s, 1.0, "in") for s in law.plus]
            sides += [(s, -law.degree if signed else law.degree, "out") for s in law.minus]
            for s, weight, role in sides:
                slot = architecture.slots[s]
                axis = slot.where(law.population, "in" if role == "in" else "out")
                axis = slot.where(law.population) if axis is None else axis
                per = None if law.per is None else slot.where(law.per)
                if axis is None or (law.per is not None and per is None):
                    raise InputError(
                        f"law {law.name!r}: {slot.name!r} has no axis of {law.population!r} or {law.per!r}"
                    )
                self.terms.setdefault(slot.name, []).append(Term(k, slot, weight, axis, per, kind))
            self.names.append(tuple(dict.fromkeys(architecture.slots[s].name for s, _, _ in sides)))

    def squares(self, parameters: Parameters) -> list[Array]:
        """The form of a point with itself, for every law.

        Raises:
            InputError: if parameters do not fit the architecture.
        """
        found = self.values({"t": reader(parameters)}, [("t", "t")])
        return [np.asarray(rows["t", "t"]) for rows in found]

    def values(
        self, sources: Mapping[str, Source], pairs: Sequence[Pair], laws: Iterable[int] | None = None
    ) -> list[dict[Pair, Array | None]]:
        """The forms of pairs of parameter-shaped things, such as <theta, g> for ("theta", "g"), for every law.

        Args:
            sources: under a letter each, functions of a parameter's name and what the sources before it gave for it.
            pairs: which products, by letters.
            laws: positions of the laws that are wanted; all if None.

        Returns:
            For every law a dictionary by pair, None where a source gave None; empty for laws that are not wanted.

        Raises:
            InputError: if an array has another shape than the architecture says.
        """
        wanted = set(range(len(self.laws)) if laws is None else laws)
        out: list[dict[Pair, Array | None]] = [{} for _ in self.laws]
        for name, terms in self.terms.items():
            if not any(t.law in wanted for t in terms):
                continue
            held: dict[str, Array | None] = {}
            for letter, source in sources.items():
                held[letter] = checked(source(name, held), name, terms[0].slot)
            for term in terms:
                if term.law in wanted:
                    _add(out[term.law], term, held, pairs)
        return out


def _add(rows: dict[Pair, Array | None], term: Term, held: Mapping[str, Array | None], pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        x, y = held[pair[0]], held[pair[1]]
        if x is None or y is None or (pair in rows and rows[pair] is None):
            rows[pair] = None
            continue
        value, before = term.form(x, y), rows.get(pair)
        rows[pair] = value if before is None else before + value


def is_large(architecture: Architecture, law: Law) -> bool:
    """Whether a matrix law has too many entries to be watched whole beside its parameters."""
    if law.kind != "matrix":
        return False
    count = architecture.named[law.population].count
    heads = 1 if law.per is None else architecture.named[law.per].count
    size = sum(int(np.prod(architecture.slots[s].view)) for s in (*law.plus, *law.minus))
    return heads * count * count > _SMALL and _ROOM * heads * count * count > size


def checked(value: object, name: str, slot: Slot) -> Array | None:
    """A parameter-shaped thing as an array that sums in float64 can read; None stays None.

    Raises:
        InputError: if it is of another shape.
    """
    if value is None:
        return None
    found = np.asarray(value)
    if found.shape != slot.shape:
        raise InputError(f"parameter {name!r} has shape {found.shape}; the architecture says {slot.shape}")
    if found.dtype in (np.float16, np.float32, np.float64):
        return found
    return found.astype(np.float32 if found.dtype.itemsize <= 2 else np.float64)  # bfloat16 fits exactly


def reader(parameters: Parameters) -> Source:
    """The values of a mapping as a source; every parameter of a law must be there.

    Raises:
        InputError: when called for a parameter that is missing.
    """

    def read(name: str, held: Mapping[str, Array | None]) -> object:
        if name not in parameters:
            known = ", ".join(list(parameters)[:4])
            raise InputError(f"no parameter {name!r} among {known}, ...; the architecture is of another model")
        return parameters[name]

    return read
