"""Conservation laws as data: families of conserved functions of theta, with values and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_exact, as_floats
from fiberscope.errors import InputError
from fiberscope.results import Result
from fiberscope.symmetries.lawless import Lawless

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Law(Result):
    """One family of conserved functions of theta under gradient flow (all weights and biases trained, no weight decay).

    Args:
        name: "balance" (one function for each neuron), "block" (one for each pair of neurons) or "constants" (one for
            each parameter listed).
        kind: "global" (at every theta) or "local" (while the neurons keep their activity on the data).
        statement: the claim in words.
        formula: plain text.
        latex: the same in LaTeX.
        layer: hidden layer of the neurons, from 0; for "constants" the affine layer of the parameters.
        neurons: indices in that layer; for "constants" those of its rows that hold a constant.
        holds_on: for which losses and data.
        widths: of the network.
        degree: d, the degree of homogeneity of the activation.
        parameters: flat indices into theta, for "constants".
        radius: theta may move this far before the law can fail: certified, inf for global laws, 0 on a kink.
        theorem: key of the theorem.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"widths"})

    name: str
    kind: str
    statement: str
    formula: str
    latex: str
    layer: int
    neurons: tuple[int, ...]
    holds_on: str
    widths: tuple[int, ...]
    degree: int = 1
    parameters: tuple[int, ...] = ()
    radius: float = math.inf
    theorem: str = "scaling-balance"

    @property
    def size(self) -> int:
        """Number of conserved functions in the family."""
        n = len(self.neurons)
        return {"balance": n, "block": n * (n - 1) // 2, "constants": len(self.parameters)}[self.name]

    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Neurons (j, k) of each function of a "balance" (j = k) or "block" (j < k) family, in the order of `value`."""
        index = np.array(self.neurons, dtype=np.int64)
        if self.name == "balance":
            return index, index
        if self.name == "block":
            first, second = np.triu_indices(len(index), 1)
            return index[first], index[second]
        raise InputError("a constant is one parameter; ask .parameters instead of .pairs()")

    def value(self, theta: npt.ArrayLike) -> ExactArray:
        """The conserved functions at theta, exactly.

        Args:
            theta: (M,), in the order of `Network.theta`.

        Returns:
            (size,) Fractions. O(size * width).

        >>> from fiberscope.network import Network
        >>> from fiberscope.symmetries import laws
        >>> net = Network.from_arrays(([[1.0, 2.0]], [2.0]), ([[2.0]], [7.0]))
        >>> laws(net).entries[0].value(net.theta)[0]  # 1 + 4 + 4 - 4
        Fraction(5, 1)
        """
        vector = self._theta(as_exact(theta, "theta"), 1)
        if self.name == "constants":
            return rationals.fractions(vector[list(self.parameters)])
        incoming, outgoing = self._sides(rationals.fractions(vector))
        first, second = self.pairs()
        total = (incoming[first] * incoming[second]).sum(axis=1)
        return np.asarray(total - self.degree * (outgoing[:, first] * outgoing[:, second]).sum(axis=0), dtype=object)

    def evaluate(self, theta: npt.ArrayLike) -> FloatArray:
        """The conserved functions in float64 along a trajectory, (..., size) for theta of shape (..., M)."""
        vector = self._theta(as_floats(theta, "theta"), None)
        if self.name == "constants":
            return np.asarray(vector[..., list(self.parameters)])
        incoming, outgoing = self._sides(vector)
        index = list(self.neurons)
        rows, columns = incoming[..., index, :], outgoing[..., index]
        if self.name == "balance":
            return np.asarray((rows**2).sum(axis=-1) - self.degree * (columns**2).sum(axis=-2))
        gram = rows @ np.swapaxes(rows, -1, -2) - self.degree * (np.swapaxes(columns, -1, -2) @ columns)
        first, second = np.triu_indices(len(index), 1)
        return np.asarray(gram[..., first, second])

    def gradient(self, theta: npt.ArrayLike) -> ExactArray:
        """Gradients with respect to theta, exactly, (size, M) Fractions. Dense: meant for small networks.

        >>> from fiberscope.network import Network
        >>> from fiberscope.symmetries import laws
        >>> net = Network.from_arrays(([[3.0]], [1.0]), ([[2.0]], [7.0]))
        >>> [int(v) for v in laws(net).entries[0].gradient(net.theta)[0]]
        [6, 2, -4, 0]
        """
        vector = rationals.fractions(self._theta(as_exact(theta, "theta"), 1))
        return self._filled(vector, np.full((self.size, len(vector)), Fraction(0), dtype=object), Fraction(1))

    def residues(self, theta: npt.NDArray[np.int64], prime: int) -> npt.NDArray[np.int64]:
        """Gradients modulo a prime at residues theta, (size, M); their rank is at most that over Q."""
        vector = self._theta(theta, 1)
        out = self._filled(vector, np.zeros((self.size, len(vector)), dtype=np.int64), np.int64(1))
        return np.asarray(out % prime)

    def _filled(self, vector: npt.NDArray[Any], out: npt.NDArray[Any], one: Any) -> npt.NDArray[Any]:
        if self.name == "constants":
            out[np.arange(self.size), list(self.parameters)] = one
            return out
        incoming, outgoing = self._sides(vector)
        inside, outside = self._sides(np.arange(len(vector)))
        for row, j, k in zip(out, *self.pairs(), strict=True):
            for a, b in ((j, k), (k, j)):
                row[inside[a]] += incoming[b]
                row[outside[:, a]] -= self.degree * outgoing[:, b]
        return out

    def _theta(self, vector: npt.NDArray[Any], dimensions: int | None) -> npt.NDArray[Any]:
        count = sum(a * b + b for a, b in zip(self.widths, self.widths[1:], strict=False))
        if vector.shape[-1:] != (count,) or (dimensions is not None and vector.ndim != dimensions):
            raise InputError(f"theta has shape {vector.shape}; the network has {count} parameters")
        return vector

    def _sides(self, vector: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(incoming [W b], (..., n, n_below + 1); outgoing, (..., n_above, n)) of the layer."""
        at = offsets(self.widths)
        low, n, high = self.widths[self.layer : self.layer + 3]
        lead = vector.shape[:-1]
        start, above = at[self.layer], at[self.layer + 1]
        weight = vector[..., start : start + n * low].reshape(*lead, n, low)
        bias = vector[..., start + n * low : above].reshape(*lead, n, 1)
        return np.concatenate([weight, bias], axis=-1), vector[..., above : above + high * n].reshape(*lead, high, n)

    def __str__(self) -> str:
        """One line."""
        reach = "" if self.kind == "global" else f", safe for |theta' - theta| <= {self.radius:.3g}"
        return f"{self.statement} ({self.size} {self.kind} law{'s' * (self.size != 1)}{reach})"


def offsets(widths: tuple[int, ...]) -> list[int]:
    """Where each affine layer starts in theta, and its length at the end.

    >>> offsets((2, 3, 1))
    [0, 9, 13]
    """
    out = [0]
    for low, high in zip(widths, widths[1:], strict=False):
        out.append(out[-1] + low * high + high)
    return out


@dataclass(frozen=True, eq=False)
class Laws(Result):
    """Conservation laws of a network under gradient flow, and the symmetries that give none.

    Args:
        entries: the families of laws; their functions may be dependent, see `independent`.
        lawless: symmetries without a law.
        inputs: number of data points the local laws refer to, None for all inputs in R^n0.
        radius: |theta' - theta| up to which every law here holds (certified; inf if all are global).
        notes: what was not looked for, and why.
        theorems: keys of the theorems.
    """

    entries: tuple[Law, ...]
    lawless: tuple[Lawless, ...]
    inputs: int | None
    radius: float
    notes: tuple[str, ...] = ()
    theorems: tuple[str, ...] = ()

    def independent(self, theta: npt.ArrayLike) -> int:
        """Number of independent laws at theta: the exact rank of all their gradients. Dense, for small networks.

        >>> from fiberscope.network import Network
        >>> from fiberscope.symmetries import laws
        >>> net = Network.random((2, 3, 1), seed=0)
        >>> laws(net).independent(net.theta)
        3
        """
        rows = [law.gradient(theta) for law in self.entries if law.size]
        return rationals.rank(np.concatenate(rows)) if rows else 0

    def __str__(self) -> str:
        """One line for each law and each symmetry without one."""
        where = "all inputs" if self.inputs is None else f"the given {self.inputs} inputs"
        lines = [f"conservation laws under gradient flow on {where}:"]
        lines += [f"  {law}" for law in self.entries] or ["  none known"]
        lines += [f"  no law: {item}" for item in self.lawless if item.present is not False]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])
