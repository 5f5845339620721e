"""The door for torch: any module, or function of named tensors, as a family of gradient fields through torch.func."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.families import Data
from fiberscope.autodiff.floats import FloatArray, Inputs, in_chunks
from fiberscope.errors import InputError, UnsupportedError, import_optional

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
Functional = Callable[[Mapping[str, Any], Any], Any]

DEEPEST = 5
"""Depth of brackets: each further one nests two more derivatives in torch.func."""
_ROWS = 256


def torch_family(
    model: nn.Module | tuple[Functional, Mapping[str, Any]], inputs: Any, *, dtype: str = "float64", batch: bool = True
) -> TorchFamily:
    """The gradient fields grad_theta <c, f(theta, x)> of a torch module, after arXiv 2510.09564.

    Args:
        model: a module, or (function, parameters) with function(parameters by name, x) -> tensor of any shape. theta is
            the concatenation of the parameters that require gradients, in the order of `named_parameters` (or of the
            mapping), each row by row; `blocks` names them. The module itself is never changed: its parameters and
            buffers are copied, and so is everything it would write into a buffer.
        inputs: examples (N, ...) that x ranges over, the shape of one input without a batch axis as a tuple (then x is
            Gaussian), or a sampler (rng, count) -> array.
        dtype: "float64" or "float32"; parameters, buffers and inputs are converted.
        batch: whether the model expects a batch axis, which x is then given.

    Returns:
        A `FloatFamily`; data are (cotangents (B, outputs), inputs (B, ...)), the outputs flattened row by row.

    Raises:
        MissingDependencyError: without torch.
        InputError: if dropout or batch normalisation is in training mode, or no parameter requires gradients.
        UnsupportedError: if torch.func cannot differentiate the model; the first line of its error is quoted.
    """
    return TorchFamily(model, Inputs.of(inputs), dtype, batch)


class TorchFamily:
    """See `torch_family`."""

    def __init__(self, model: Any, inputs: Inputs, dtype: str, batch: bool) -> None:
        """Copy the parameters and run the model once."""
        self._torch = import_optional("torch", extra="torch", purpose="differentiate torch modules")
        if dtype not in ("float64", "float32"):
            raise InputError(f"dtype {dtype!r}; expected 'float64' or 'float32'")
        self.dtype = dtype
        self.deepest = DEEPEST
        self.inputs = inputs
        self._kind = getattr(self._torch, dtype)
        self._batch = batch
        if isinstance(model, tuple):
            self._function, named = model
            self._fixed: dict[str, Any] = {}
        else:
            _refuse_noise(model, self._torch.nn)
            named = {name: p for name, p in model.named_parameters() if p.requires_grad}
            others = [(n, p) for n, p in model.named_parameters() if not p.requires_grad]
            self._fixed = {name: self._copy(t) for name, t in (*others, *model.named_buffers())}
            self._function = lambda tensors, x: self._torch.func.functional_call(model, tensors, (x,))
        self.blocks, self.start = _flattened(named)
        self.outputs = self._count()

    @property
    def size(self) -> int:
        """Number of parameters M."""
        return self.start.size

    def unravel(self, theta: Any) -> dict[str, Any]:
        """The tensors by name at theta (M,)."""
        out, at = {}, 0
        for name, shape in self.blocks:
            stop = at + int(np.prod(shape))
            out[name] = theta[at:stop].reshape(shape)
            at = stop
        return out

    def draw(self, rng: np.random.Generator, count: int) -> Data:
        """Gaussian cotangents first, then the inputs."""
        return rng.standard_normal((count, self.outputs)), self.inputs.draw(rng, count)

    def fields(self, theta: FloatArray, data: Data) -> FloatArray:
        """X_d(theta), (B, M), for theta (M,) or (B, M)."""
        theta = np.asarray(theta)
        each = theta.ndim == 2 and len(theta) > 1
        point = theta if each or theta.ndim == 1 else theta[0]
        call = self._torch.func.vmap(self._field, in_dims=(0 if each else None, 0, 0))
        return in_chunks(
            lambda s: self._run(call, point[s] if each else point, *(a[s] for a in data)), len(data[0]), _ROWS
        )

    def tangent(self, theta: FloatArray, vectors: FloatArray, data: Data) -> FloatArray:
        """DX_d(theta) v for each row v of `vectors`, (B, M), and one field."""

        def slope(point: Any, v: Any, c: Any, x: Any) -> Any:
            return self._torch.func.jvp(lambda t: self._field(t, c, x), (point,), (v,))[1]

        call = self._torch.func.vmap(slope, in_dims=(None, 0, None, None))
        return in_chunks(lambda s: self._run(call, theta, vectors[s], *(a[0] for a in data)), len(vectors), _ROWS)

    def brackets(self, theta: FloatArray, data: Sequence[Data]) -> list[FloatArray]:
        """B_1, ..., B_depth at theta (M,), each (B, M).

        Raises:
            InputError: for a depth above `DEEPEST`.
        """
        if len(data) > DEEPEST:
            raise InputError(
                f"brackets of depth {len(data)} of a torch model; at most {DEEPEST} are taken: move theta along the "
                "fields first, or use transport"
            )

        def nested(point: Any, *flat: Any) -> Any:
            return self._torch.stack(self._nested(point, list(zip(flat[::2], flat[1::2], strict=True))))

        call = self._torch.func.vmap(nested, in_dims=(None, *(0 for d in data for _ in d)))
        found = in_chunks(lambda s: self._run(call, theta, *(a[s] for d in data for a in d)), len(data[0][0]), _ROWS)
        return list(np.moveaxis(found, 1, 0))

    def _nested(self, point: Any, data: Sequence[tuple[Any, Any]]) -> tuple[Any, ...]:
        if len(data) == 1:
            return (self._field(point, *data[0]),)

        def last(t: Any) -> Any:
            return self._field(t, *data[-1])

        below, moved = self._torch.func.jvp(lambda t: self._nested(t, data[:-1]), (point,), (last(point),))
        turned = self._torch.func.jvp(last, (point,), (below[-1],))[1]
        return (*below, moved[-1] - turned)

    def _field(self, theta: Any, cotangent: Any, x: Any) -> Any:
        return self._torch.func.grad(lambda t: (cotangent * self._values(t, x)).sum())(theta)

    def _values(self, theta: Any, x: Any) -> Any:
        # buffers are cloned inside the transforms, so that a module which writes to one writes to the clone
        tensors = self.unravel(theta) | {name: t.clone() for name, t in self._fixed.items()}
        return self._function(tensors, x[None] if self._batch else x).reshape(-1)

    def _run(self, call: Callable[..., Any], *arguments: Array) -> FloatArray:
        tensors = [self._copy(self._torch.as_tensor(np.ascontiguousarray(a))) for a in arguments]
        try:
            with self._plain_attention():
                return np.asarray(call(*tensors).detach().numpy(), dtype=np.float64)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as exc:
            raise UnsupportedError(f"torch.func cannot differentiate the model: {_line(exc)}") from exc

    def _plain_attention(self) -> Any:
        # the fused attention kernels have no derivative of the second order
        attention = self._torch.nn.attention
        return attention.sdpa_kernel(attention.SDPBackend.MATH)

    def _copy(self, tensor: Any) -> Any:
        plain = tensor.detach().cpu().clone()
        return plain.to(self._kind) if plain.is_floating_point() else plain

    def _count(self) -> int:
        theta = self._copy(self._torch.as_tensor(self.start))
        x = self._copy(self._torch.as_tensor(np.ascontiguousarray(self.inputs.draw(np.random.default_rng(0), 1)[0])))
        try:
            with self._torch.no_grad(), self._plain_attention():
                out = self._values(theta, x)
        except Exception as exc:  # the user's forward runs here and may fail in any way
            raise UnsupportedError(f"the model fails on one input of shape {tuple(x.shape)}: {_line(exc)}") from exc
        if not out.is_floating_point():
            raise InputError(f"the model returns {out.dtype}; expected real floats")
        return int(out.numel())


def _refuse_noise(module: nn.Module, nn_: Any) -> None:
    random = (nn_.modules.dropout._DropoutNd, nn_.RReLU)
    for name, part in module.named_modules():
        label = f"{type(part).__name__}{f' ({name})' if name else ''}"
        if not part.training:
            continue
        if isinstance(part, random) and getattr(part, "p", 1.0) > 0:
            raise InputError(f"{label} is in training mode, so outputs are random; call module.eval() first")
        if isinstance(part, nn_.modules.batchnorm._BatchNorm):
            raise InputError(
                f"{label} is in training mode, so outputs depend on the whole batch; call module.eval() first"
            )


def _flattened(named: Mapping[str, Any]) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], FloatArray]:
    blocks, arrays = [], []
    for name, tensor in named.items():
        if not hasattr(tensor, "detach") or not tensor.is_floating_point():
            raise InputError(f"parameter {name} is no real float tensor")
        blocks.append((str(name), tuple(tensor.shape)))
        # bfloat16 has no counterpart in NumPy
        arrays.append(tensor.detach().cpu().double().numpy().reshape(-1))
    if not sum(a.size for a in arrays):
        raise InputError("no parameter requires gradients; nothing to differentiate by")
    return tuple(blocks), np.concatenate(arrays)


def _line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else repr(exc)
