"""Running a module at other parameters, and reading what its neurons do on data, without touching it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError, import_optional
from fiberscope.io.files import one_line
from fiberscope.training.architectures.architecture import Architecture, Parameters

Array = npt.NDArray[Any]
_TINY = 1e-30
"""Instead of a BatchNorm's eps, which torch wants positive."""
_BATCH = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")


def _torch() -> Any:
    return import_optional("torch", extra="torch", purpose="run torch modules")


@contextmanager
def quiet(module: Any) -> Iterator[None]:
    """No gradients, and torch's random states as they were afterwards."""
    torch = _torch()
    device = next((p.device for p in module.parameters()), None)
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        yield


def arguments(data: Any, like: Any = None, *, double: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a forward pass: a tensor or array, a tuple or list of them, or a dict.

    Args:
        data: what the user gave.
        like: a parameter whose device the tensors go to.
        double: whether floating inputs become float64; else arrays take the parameter's dtype.
    """
    torch = _torch()

    def tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = torch.as_tensor(value)
            if value.dtype.is_floating_point and like is not None:
                value = value.to(like.dtype)
        if isinstance(value, torch.Tensor):
            if double and value.dtype.is_floating_point:
                value = value.double()
            return value if like is None else value.to(like.device)
        return value

    if isinstance(data, Mapping):
        return (), {str(k): tensor(v) for k, v in data.items()}
    if isinstance(data, tuple | list):
        return tuple(tensor(v) for v in data), {}
    return (tensor(data),), {}


def output_array(output: Any) -> Array:
    """All floating numbers of an output as one float64 matrix (samples, numbers); the logits of transformers' outputs.

    Raises:
        InputError: if there are none.
    """
    found = _tensors(output)
    if not found:
        raise InputError(f"the model returns a {type(output).__name__} without floating numbers")
    rows = [t.detach().double().cpu().numpy() for t in found]
    samples = rows[0].shape[0] if rows[0].ndim else 1
    flat = [r.reshape(samples, -1) if r.ndim and r.shape[0] == samples else r.reshape(1, -1) for r in rows]
    same = [r for r in flat if r.shape[0] == flat[0].shape[0]]
    return np.concatenate(same, axis=1)


def _tensors(output: Any) -> list[Any]:
    torch = _torch()
    if isinstance(output, torch.Tensor):
        return [output] if output.dtype.is_floating_point else []
    if hasattr(output, "to_tuple"):  # of transformers: caches and hidden states besides what the model computes
        for name in ("logits", "last_hidden_state"):
            if getattr(output, name, None) is not None:
                return [getattr(output, name)]
        return _tensors(output.to_tuple()[:1])
    if isinstance(output, Mapping):
        output = list(output.values())
    return [t for part in output for t in _tensors(part)] if isinstance(output, tuple | list) else []


class Evaluation:
    """The function of a module at parameters of one's choice, in float64.

    Dropout is off. BatchNorm uses the batch's own statistics with next to no eps: its symmetries are those of training;
    where the batch does not allow that, it is left out of the normalisation (mean 0, variance 1).

    Args:
        module: a copy that may be changed (`shadow`), not the user's own.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._double = True

    def __call__(self, data: Any, parameters: Parameters | None = None) -> Array:
        """Output on data, (samples, numbers), float64.

        Raises:
            InputError: if the module cannot be run on the data.
        """
        try:
            if self._double:
                try:
                    return self._run(data, parameters, double=True)
                except (RuntimeError, TypeError):
                    self._double = False
            return self._run(data, parameters, double=False)
        except InputError:
            raise
        except Exception as exc:  # the user's forward runs here and may fail in any way
            raise InputError(f"{type(self.module).__name__} cannot be run on the data: {one_line(exc)}") from exc

    def _run(self, data: Any, parameters: Parameters | None, *, double: bool) -> Array:
        torch = _torch()
        like = next(self.module.parameters(), None)
        args, kwargs = arguments(data, like, double=double)
        own = dict(self.module.named_parameters())

        def cast(tensor: Any) -> Any:
            return tensor.double() if double and tensor.dtype.is_floating_point else tensor

        values = {}
        for name, tensor in own.items():
            if parameters is not None and name in parameters:
                value = torch.tensor(np.array(parameters[name])).to(tensor.device)
                values[name] = cast(value) if double else value.to(tensor.dtype)
            else:
                values[name] = cast(tensor)
        buffers = {name: cast(tensor).clone() for name, tensor in self.module.named_buffers()}
        with quiet(self.module), self._batch_statistics() as batch:
            try:
                out = torch.func.functional_call(self.module, {**values, **buffers}, args, kwargs)
            except ValueError:
                if not batch:
                    raise
                self._neutral(batch, buffers)
                out = torch.func.functional_call(self.module, {**values, **buffers}, args, kwargs)
        return output_array(out)

    @contextmanager
    def _batch_statistics(self) -> Iterator[list[tuple[str, Any]]]:
        rows = [(path, part) for path, part in self.module.named_modules() if type(part).__name__ in _BATCH]
        kept = [part.eps for _, part in rows]
        for _, part in rows:
            part.train()
            part.eps = _TINY
        try:
            yield rows
        finally:
            for (_, part), eps in zip(rows, kept, strict=True):
                part.eval()
                part.eps = eps

    @staticmethod
    def _neutral(rows: list[tuple[str, Any]], buffers: dict[str, Any]) -> None:
        """BatchNorm without its normalisation: mean 0 and variance 1 for every channel."""
        for path, part in rows:
            part.eval()
            for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
                key = f"{path}.{name}" if path else name
                if key in buffers:
                    buffers[key] = buffers[key].new_full(buffers[key].shape, value)


def activations_of(module: Any, architecture: Architecture, data: Any) -> dict[str, Array]:
    """What the readers of each population are given on data: outputs behind its activation, (samples, neurons, ...).

    Read at the inputs of the layers that have the population's "out" axis, so pooling between is included; populations
    without an activation, or read by no single layer of known kind, are left out.

    Args:
        module: a copy in evaluation mode that may be given hooks (`shadow`).
        architecture: of the module.
        data: inputs as in `arguments`.

    One forward pass.
    """
    parts = dict(module.named_modules())
    wanted: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
    for population in architecture.populations:
        if population.activation is None:
            continue
        for s, axis, role in architecture.places[population.name]:
            slot = architecture.slots[s]
            path = slot.name.rpartition(".")[0]
            kind = type(parts.get(path)).__name__
            if role == "out" and kind in ("Linear", "Conv1d", "Conv2d", "Conv3d", "Conv1D"):
                wanted.setdefault(path, []).append((population.name, axis, slot.view if kind == "Linear" else ()))
                break
    out: dict[str, Array] = {}
    handles = []
    for path, rows in wanted.items():
        handles.append(parts[path].register_forward_pre_hook(_keep(out, rows, architecture)))
    try:
        with quiet(module):
            args, kwargs = arguments(data, next(module.parameters(), None))
            module(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return out


def _keep(out: dict[str, Array], rows: list[tuple[str, int, tuple[int, ...]]], architecture: Architecture) -> Any:
    def hook(module: Any, args: tuple[Any, ...]) -> None:
        value = args[0].detach()
        array = (value.float() if value.element_size() < 4 else value).cpu().numpy()
        convolution = type(module).__name__.endswith("d")
        for name, axis, view in rows:
            count = architecture.named[name].count
            if convolution:
                found = array
            else:
                found = array.reshape(-1, array.shape[-1])
                if len(view) > 2:
                    found = np.moveaxis(found.reshape(-1, *view[1:]), axis, 1)
            if found.shape[1] == count:
                # a layer that runs several times: its samples are joined
                out[name] = np.concatenate([out[name], found]) if name in out else found.copy()

    return hook
