"""An analytic model: its family of gradient fields with the affine symmetries that keep all its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.families import Family
from fiberscope.autodiff.rings import Ring
from fiberscope.models.affine import AffineFields

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Affine fields xi with grad F . xi = 0 for every output and input: infinitesimal symmetries of a model.

    Args:
        name: "balance", "matrix", "rotation", ...
        formula: of the conserved functions under gradient flow (symmetric ones), or of the fields.
        latex: the same in LaTeX.
        fields: the symmetries; all symmetric or all skew where they give laws.
    """

    name: str
    formula: str
    latex: str
    fields: AffineFields


@dataclass(frozen=True, eq=False)
class Model:
    """A model F(theta)(x) with what is known about its conservation laws.

    Args:
        name: of the model.
        family: the fields grad_theta <c, F(theta)(x)>.
        symmetries: affine infinitesimal symmetries of all outputs, each symmetric or skew.
        source: where the laws are from.
        polynomial: whether the fields are polynomials in theta and data, so that residues are exact; otherwise formal
            jets stand for the activation.
        bound: proved upper bound of the orbit dimension beyond what the symmetries say, None for none, and why.
        point: random theta over a ring where not every theta will do.
        note: what the count refers to.
        shapes: names and shapes of the parameter blocks, None for those of the family.
    """

    name: str
    family: Family
    symmetries: tuple[Symmetry, ...] = ()
    source: str = ""
    polynomial: bool = True
    bound: tuple[int, str] | None = None
    point: Callable[[Ring, np.random.Generator], Array] | None = None
    note: str = ""
    shapes: tuple[tuple[str, tuple[int, ...]], ...] | None = None

    @property
    def size(self) -> int:
        """Number of parameters M."""
        return self.family.size

    @property
    def blocks(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of the parameter blocks; one vector if the family names none."""
        if self.shapes is not None:
            return self.shapes
        found: tuple[tuple[str, tuple[int, ...]], ...] = getattr(self.family, "shapes", (("theta", (self.size,)),))
        return found

    def theta(self, ring: Ring, rng: np.random.Generator) -> Array:
        """A random theta, (M,)."""
        return ring.random(rng, (self.size,)) if self.point is None else self.point(ring, rng)


def offsets_of(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, npt.NDArray[np.int64]]:
    """The indices of each block in theta, in the shape of the block.

    >>> offsets_of((("W", (2, 2)), ("b", (2,))))["b"].tolist()
    [4, 5]
    """
    out, at = {}, 0
    for name, shape in shapes:
        count = int(np.prod(shape))
        out[name] = np.arange(at, at + count).reshape(shape)
        at += count
    return out


def balances(fields: AffineFields, incoming: str, outgoing: str, degree: int = 1) -> Symmetry:
    """The symmetry behind |incoming|^2 - degree |outgoing|^2 of each neuron; text names the two sides."""
    factor = "" if degree == 1 else f"{degree} "
    formula = f"|{incoming}|^2 - {factor}|{outgoing}|^2"
    latex = rf"\lVert {incoming} \rVert^2 - {factor}\lVert {outgoing} \rVert^2"
    return Symmetry("balance", formula, latex, fields)
