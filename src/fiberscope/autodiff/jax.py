"""The door for JAX: any function of a pytree of parameters and one input as a family of gradient fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.families import Data
from fiberscope.autodiff.floats import FloatArray, Inputs, in_chunks
from fiberscope.errors import InputError, UnsupportedError, import_optional

Array = npt.NDArray[Any]

DEEPEST = 4
"""Depth of brackets: each further one doubles the time XLA compiles."""


def jax_family(
    function: Callable[[Any, Any], Any], parameters: Any, inputs: Any, *, dtype: str = "float64"
) -> JaxFamily:
    """The gradient fields grad_theta <c, f(theta, x)> of a JAX function, after arXiv 2510.09564.

    Args:
        function: (parameters, x) -> outputs of any shape, for one input x without a batch axis; it must be pure.
        parameters: a pytree of float arrays. theta is their concatenation in the order of `jax.tree.leaves` (keys of
            dictionaries sorted, lists in order), each row by row; `blocks` names them.
        inputs: examples (N, ...) that x ranges over, the shape of one input as a tuple (then x is Gaussian), or a
            sampler (rng, count) -> array.
        dtype: "float64" or "float32"; double precision is switched on inside each call only, never for the process.

    Returns:
        A `FloatFamily`; data are (cotangents (B, outputs), inputs (B, ...)), the outputs flattened row by row.

    Raises:
        MissingDependencyError: without JAX.
        InputError: if a leaf is no float array, or nothing is left to differentiate.
        UnsupportedError: if JAX cannot trace the function; its first line of error is quoted.
    """
    return JaxFamily(function, parameters, Inputs.of(inputs), dtype)


class JaxFamily:
    """See `jax_family`; fields are compiled once for each number of rows, brackets once for each depth."""

    def __init__(self, function: Callable[[Any, Any], Any], parameters: Any, inputs: Inputs, dtype: str) -> None:
        """Flatten the parameters and trace the function once."""
        self._jax = import_optional("jax", extra="jax", purpose="differentiate JAX functions")
        if dtype not in ("float64", "float32"):
            raise InputError(f"dtype {dtype!r}; expected 'float64' or 'float32'")
        self.dtype = dtype
        self.deepest = DEEPEST
        self.inputs = inputs
        leaves, self._tree = self._jax.tree_util.tree_flatten_with_path(parameters)
        self.blocks, arrays = _blocks(leaves, self._jax.tree_util.keystr)
        self.start: FloatArray = np.concatenate([a.astype(np.float64).reshape(-1) for a in arrays])
        self._function = function
        self._compiled: dict[Any, Any] = {}
        self.outputs = self._count()

    @property
    def size(self) -> int:
        """Number of parameters M."""
        return self.start.size

    def unravel(self, theta: Any) -> Any:
        """The pytree of parameters at theta (M,)."""
        out, at = [], 0
        for _, shape in self.blocks:
            stop = at + int(np.prod(shape))
            out.append(theta[at:stop].reshape(shape))
            at = stop
        return self._jax.tree_util.tree_unflatten(self._tree, out)

    def draw(self, rng: np.random.Generator, count: int) -> Data:
        """Gaussian cotangents first, then the inputs."""
        return rng.standard_normal((count, self.outputs)), self.inputs.draw(rng, count)

    def fields(self, theta: FloatArray, data: Data) -> FloatArray:
        """X_d(theta), (B, M), for theta (M,) or (B, M)."""
        theta = np.asarray(theta)
        each = theta.ndim == 2 and len(theta) > 1
        point = theta if each or theta.ndim == 1 else theta[0]
        axes = (0 if each else None, 0, 0)
        call = self._call(("fields", each), lambda: self._jax.vmap(self._field, in_axes=axes))
        return in_chunks(lambda s: self._run(call, point[s] if each else point, *(a[s] for a in data)), len(data[0]))

    def tangent(self, theta: FloatArray, vectors: FloatArray, data: Data) -> FloatArray:
        """DX_d(theta) v for each row v of `vectors`, (B, M), and one field."""

        def slope(point: Any, v: Any, c: Any, x: Any) -> Any:
            return self._jax.jvp(lambda t: self._field(t, c, x), (point,), (v,))[1]

        call = self._call("tangent", lambda: self._jax.vmap(slope, in_axes=(None, 0, None, None)))
        return in_chunks(lambda s: self._run(call, theta, vectors[s], *(a[0] for a in data)), len(vectors))

    def brackets(self, theta: FloatArray, data: Sequence[Data]) -> list[FloatArray]:
        """B_1, ..., B_depth at theta (M,), each (B, M).

        Raises:
            InputError: for a depth above `DEEPEST`.
        """
        depth = len(data)
        if depth > DEEPEST:
            raise InputError(
                f"brackets of depth {depth} of a JAX function; compiling doubles with each, so at most {DEEPEST} are "
                "taken: move theta along the fields first, or use transport"
            )

        def nested(point: Any, rows: Any) -> Any:
            return self._jax.numpy.stack(self._nested(point, rows))

        call = self._call(("brackets", depth), lambda: self._jax.vmap(nested, in_axes=(None, 0)))
        found = in_chunks(
            lambda s: self._run(call, theta, tuple(tuple(a[s] for a in d) for d in data)), len(data[0][0])
        )
        return list(np.moveaxis(found, 1, 0))

    def _nested(self, point: Any, data: Any) -> tuple[Any, ...]:
        if len(data) == 1:
            return (self._field(point, *data[0]),)

        def last(t: Any) -> Any:
            return self._field(t, *data[-1])

        below, moved = self._jax.jvp(lambda t: self._nested(t, data[:-1]), (point,), (last(point),))
        turned = self._jax.jvp(last, (point,), (below[-1],))[1]
        return (*below, moved[-1] - turned)

    def _field(self, theta: Any, cotangent: Any, x: Any) -> Any:
        np_ = self._jax.numpy
        return self._jax.grad(lambda t: np_.vdot(cotangent, np_.ravel(self._function(self.unravel(t), x))))(theta)

    def _call(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._compiled:
            self._compiled[key] = self._jax.jit(make())
        return self._compiled[key]

    def _run(self, call: Any, *arguments: Any) -> FloatArray:
        kind = np.dtype(self.dtype)
        cast = self._jax.tree_util.tree_map(lambda a: _as(a, kind), arguments)
        with self._precision():
            return np.asarray(call(*cast), dtype=np.float64)

    def _precision(self) -> Any:
        # double precision for this block alone: the process keeps its setting
        switch = getattr(self._jax, "enable_x64", None)
        if switch is None:
            switch = import_optional("jax.experimental", extra="jax", purpose="differentiate JAX functions").enable_x64
        return switch(self.dtype == "float64")

    def _count(self) -> int:
        kind = np.dtype(self.dtype)
        example = _as(self.inputs.draw(np.random.default_rng(0), 1)[0], kind)
        try:
            with self._precision():
                shape = self._jax.eval_shape(
                    lambda t, x: self._jax.numpy.ravel(self._function(self.unravel(t), x)),
                    self.start.astype(kind),
                    example,
                )
        except Exception as exc:  # the user's function runs here and may fail in any way
            first = str(exc).strip().splitlines()
            raise UnsupportedError(
                f"JAX cannot trace the function on one input of shape {example.shape}: {first[0] if first else exc!r}"
            ) from exc
        if not np.issubdtype(shape.dtype, np.floating):
            raise InputError(f"the function returns {shape.dtype}; expected real floats")
        return int(shape.shape[0])


def _blocks(leaves: Sequence[Any], name: Any) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], list[Array]]:
    blocks, arrays = [], []
    for path, leaf in leaves:
        array = np.asarray(leaf) if hasattr(leaf, "dtype") or isinstance(leaf, float) else None
        if array is None or not (array.dtype.kind == "f" or array.dtype.name == "bfloat16"):
            raise InputError(
                f"leaf {name(path)} of the parameters is {type(leaf).__name__}"
                f"{'' if array is None else ' of dtype ' + str(array.dtype)}; expected real float arrays only"
            )
        blocks.append((name(path), tuple(array.shape)))
        arrays.append(array)
    if not sum(a.size for a in arrays):
        raise InputError("the parameters hold no number; nothing to differentiate by")
    return tuple(blocks), arrays


def _as(value: Any, kind: np.dtype[Any]) -> Array:
    array = np.asarray(value)
    return array.astype(kind) if array.dtype.kind == "f" else array
