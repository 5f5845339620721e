"""What orbits need of any model over floats: gradient fields, their derivatives along vectors, and brackets.

Three doors have this interface: our own kernel (`NumpyFamily`), JAX functions and torch modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_count, plain
from fiberscope.autodiff.families import Data, Family
from fiberscope.autodiff.jets import Jets, TrueJets
from fiberscope.autodiff.liebrackets import brackets as nested_brackets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Floats
from fiberscope.errors import InputError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

ROWS = 1024
"""Fields evaluated at a time, so that memory does not grow with the number of fields."""


@runtime_checkable
class FloatFamily(Protocol):
    """Vector fields X_d on R^size over floats; d is a tuple of arrays whose first axis is the batch."""

    @property
    def size(self) -> int:
        """Number of coordinates M."""
        ...

    @property
    def start(self) -> FloatArray:
        """The point the model came with, (M,)."""
        ...

    def draw(self, rng: np.random.Generator, count: int) -> Data:
        """Random data of `count` fields."""
        ...

    def fields(self, theta: FloatArray, data: Data) -> FloatArray:
        """X_d(theta), (B, M), for theta (M,) or (B, M) and the data of B fields."""
        ...

    def tangent(self, theta: FloatArray, vectors: FloatArray, data: Data) -> FloatArray:
        """DX_d(theta) v for each row v of `vectors` (B, M), one point theta (M,) and the data of one field."""
        ...

    def brackets(self, theta: FloatArray, data: Sequence[Data]) -> list[FloatArray]:
        """B_1 = X_1 and B_j = [X_j, B_(j-1)], each (B, M), at theta (M,), from the data of B fields for each depth."""
        ...


class NumpyFamily:
    """A family of our own kernel over float64.

    Args:
        family: the vector fields.
        start: the point, (M,).
        jets: derivatives of activations; None for the true ones.

    Raises:
        InputError: if the point has another size.

    >>> from fiberscope.activations import activation
    >>> from fiberscope.models.chains import chain_family
    >>> family = NumpyFamily(chain_family((1, 1, 1), [activation("tanh")]), np.zeros(4))
    >>> ones = np.ones((1, 1, 1))
    >>> family.fields(np.array([0.0, 0.0, 2.0, 0.0]), (ones, ones)).tolist()  # W1, b1, W2, b2 at x = 1, c = 1
    [[2.0, 2.0, 0.0, 1.0]]
    """

    def __init__(self, family: Family, start: npt.ArrayLike, jets: Jets | None = None) -> None:
        """Wrap a family."""
        self.family = family
        self.start: FloatArray = np.array(start, dtype=np.float64)
        self.jets = TrueJets() if jets is None else jets
        if self.start.shape != (family.size,):
            raise InputError(f"theta has shape {self.start.shape}; the model has {family.size} parameters")

    @property
    def size(self) -> int:
        """Number of coordinates M."""
        return self.family.size

    def draw(self, rng: np.random.Generator, count: int) -> Data:
        """Random data of `count` fields."""
        return self.family.draw(Floats(), rng, count)

    def fields(self, theta: FloatArray, data: Data) -> FloatArray:
        """X_d(theta), (B, M), for theta (M,) or (B, M)."""
        points = np.atleast_2d(np.asarray(theta, dtype=np.float64))
        shared = len(points) == 1

        def run(part: slice) -> FloatArray:
            at = Nilpotent(Floats(), {0: points if shared else points[part]})
            return np.asarray(self.family.fields(at, tuple(a[part] for a in data), self.jets).real)

        return in_chunks(run, len(data[0]))

    def tangent(self, theta: FloatArray, vectors: FloatArray, data: Data) -> FloatArray:
        """DX_d(theta) v for each row v of `vectors`, (B, M), and one field."""

        def run(part: slice) -> FloatArray:
            rows = np.asarray(vectors[part], dtype=np.float64)
            at = Nilpotent(Floats(), {0: np.asarray(theta, dtype=np.float64)[None], 1: rows})
            same = tuple(np.broadcast_to(a, (len(rows), *a.shape[1:])) for a in data)
            slope = self.family.fields(at, same, self.jets).part(0)
            return np.zeros_like(rows) if slope is None else np.asarray(slope.real)

        return in_chunks(run, len(vectors))

    def brackets(self, theta: FloatArray, data: Sequence[Data]) -> list[FloatArray]:
        """B_1, ..., B_depth at theta (M,), each (B, M)."""
        at = Nilpotent(Floats(), {0: np.asarray(theta, dtype=np.float64)[None]})

        def run(part: slice) -> FloatArray:
            parts = [tuple(a[part] for a in d) for d in data]
            found = nested_brackets(self.family, at, parts, self.jets)
            return np.stack([np.broadcast_to(b.real, (len(parts[0][0]), self.size)) for b in found], axis=1)

        return list(np.moveaxis(in_chunks(run, len(data[0][0])), 1, 0))


@dataclass(frozen=True)
class Inputs:
    """The inputs x that fields are taken at.

    Args:
        shape: of one input.
        rows: the examples (N, *shape) that x ranges over, or None.
        sampler: draws (count, *shape), or None for Gaussian inputs.
    """

    shape: tuple[int, ...]
    rows: Array | None = None
    sampler: Callable[[np.random.Generator, int], Array] | None = None

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """Inputs from an array of examples, a shape (a tuple of integers), or a sampler (rng, count) -> array.

        Raises:
            InputError: if it is none of these, or holds no example.

        >>> Inputs.of((3, 2)).shape, Inputs.of(np.zeros((7, 2))).shape
        ((3, 2), (2,))
        """
        if isinstance(inputs, tuple) and all(isinstance(n, int | np.integer) for n in inputs):
            return cls(tuple(as_count(n, "size of an input", 1) for n in inputs))
        if callable(inputs):
            first = np.asarray(inputs(np.random.default_rng(0), 1))
            if first.ndim < 1 or len(first) != 1:
                raise InputError(f"the sampler of one input gave shape {first.shape}; expected (1, ...)")
            return cls(first.shape[1:], sampler=inputs)
        rows = np.asarray(plain(inputs))
        if rows.dtype.kind not in "fiub" or rows.ndim < 1 or not len(rows):
            raise InputError(
                f"inputs of dtype {rows.dtype} and shape {rows.shape}; give an array of examples (N, ...), "
                "the shape of one input as a tuple, or a sampler (rng, count) -> array"
            )
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise InputError("the inputs hold NaN or infinite numbers")
        return cls(rows.shape[1:], rows=rows)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """`count` inputs, (count, *shape)."""
        if self.rows is not None:
            return np.asarray(self.rows[rng.integers(0, len(self.rows), count)])
        if self.sampler is not None:
            return np.asarray(self.sampler(rng, count))
        return rng.standard_normal((count, *self.shape))


def in_chunks(run: Callable[[slice], FloatArray], count: int, rows: int = ROWS) -> FloatArray:
    """The concatenation of run(slice) over slices of at most `rows` of `count` rows."""
    found = [run(slice(a, min(a + rows, count))) for a in range(0, count, rows)]
    return found[0] if len(found) == 1 else np.concatenate(found)
