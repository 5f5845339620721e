"""Keras files through h5py, without Keras: .h5 (whole models) and .keras archives of dense chains.

Only hard links inside the file are followed, and no layer's code is looked at: unknown layers are refused by name.
Files are opened in a process of their own, see `fiberscope.io.keras_hdf5`.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import FormatError, InputError, UnsupportedError, import_optional
from fiberscope.io import keras_hdf5, safetensors
from fiberscope.io.chains import Builder
from fiberscope.io.files import (
    FREE_EXPANSION,
    MAX_EXPANSION,
    Archive,
    Options,
    arrays,
    one_line,
    read_bytes,
    read_json,
    replacements,
    source,
)
from fiberscope.io.keras_layers import Parameters, apply, config_of, ordered_layers, title_of
from fiberscope.io.state_dicts import dtype_of
from fiberscope.network import Network

Tensor = npt.NDArray[Any]

_NAMES = {
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "softplus": "softplus", "gelu": "gelu", "silu": "swish",
    "identity": "linear",
}  # fmt: skip


def _h5py() -> Any:
    return import_optional("h5py", extra="keras", purpose="read or write Keras files")


def _ask(
    task: str, data: bytes, texts: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What the child process answers: tensors and texts."""
    if importlib.util.find_spec("h5py") is None:
        _h5py()
    header, start = safetensors.header_of(answer := keras_hdf5.ask(task, data, texts, tensors))
    said = header.pop("__metadata__", {})
    if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
        raise FormatError("damaged HDF5 file (the HDF5 library gave no answer)")
    if "error" in said:
        raise FormatError(said["error"])
    if "damaged" in said:
        raise FormatError(f"damaged HDF5 file ({one_line(said['damaged'])})")
    return safetensors.tensors_of(header, memoryview(answer)[start:]), said


def _contents(data: bytes) -> tuple[dict[str, Tensor], str | None]:
    """Datasets by path, and the model configuration."""
    limit = max(FREE_EXPANSION, MAX_EXPANSION * len(data))
    tensors, said = _ask("read", data, {"limit": str(limit)}, {})
    return tensors, said.get("model_config")


class _Legacy(Parameters):
    """Weights of an .h5 file: groups named like the layers, datasets named by role."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def of(self, layer: Mapping[str, Any], name: str, roles: tuple[str, ...]) -> dict[str, tuple[str, Tensor]]:
        folder = f"model_weights/{name}/"
        found = {path: value for path, value in self._tensors.items() if path.startswith(folder)}
        if not found:
            raise FormatError(f"has no /{folder.rstrip('/')}")
        out: dict[str, tuple[str, Tensor]] = {}
        for path, value in found.items():
            role = path.rpartition("/")[2].partition(":")[0]
            if role not in roles or role in out:
                raise FormatError(f"{title_of(layer)} has the dataset {path}; expected one each of {', '.join(roles)}")
            out[role] = (path, value)
        return _complete(out, roles, layer)


class _Archived(Parameters):
    """Weights of a .keras archive: numbered variables in groups named by class or by layer."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._seen: dict[str, int] = {}

    def of(self, layer: Mapping[str, Any], name: str, roles: tuple[str, ...]) -> dict[str, tuple[str, Tensor]]:
        kind = _snake(str(layer["class_name"]))
        count = self._seen.get(kind, 0)
        self._seen[kind] = count + 1
        numbered = kind if count == 0 else f"{kind}_{count}"
        out = {}
        for k, role in enumerate(roles):
            paths = [
                path for path in (f"layers/{numbered}/vars/{k}", f"layers/{name}/vars/{k}") if path in self._tensors
            ]
            if paths:
                out[role] = (paths[0], self._tensors[paths[0]])
        return _complete(out, roles, layer)

    def skip(self, layer: Mapping[str, Any]) -> None:
        kind = _snake(str(layer["class_name"]))
        self._seen[kind] = self._seen.get(kind, 0) + 1


def _snake(name: str) -> str:
    out = "".join(
        f"_{c.lower()}" if c.isupper() and k and not name[k - 1].isupper() else c.lower() for k, c in enumerate(name)
    )
    return out


def _complete(out: dict[str, Any], roles: tuple[str, ...], layer: Mapping[str, Any]) -> dict[str, Any]:
    missing = [role for role in roles if role not in out]
    if missing:
        raise FormatError(f"{title_of(layer)} has no {missing[0]} in the file")
    return out


def read(path: Path, options: Options) -> Network:
    """Read a Sequential or linear functional model of dense layers.

    Raises:
        FormatError: if the file is damaged, or holds weights without a model.
        UnsupportedError: if a layer has no meaning here; it is named.
    """
    data = read_bytes(path)
    if options.part is not None:
        raise InputError(f"holds one model; leave out --part {options.part}")
    text: str | bytes | None
    if data[:2] == b"PK":
        archive = Archive(data)
        text, kind = archive.read("config.json"), "keras3"
        weights: Parameters = _Archived(_contents(archive.read("model.weights.h5"))[0])
    else:
        found, text = _contents(data)
        weights, kind = _Legacy(found), "keras"
    if text is None:
        raise FormatError("holds weights without a model; save the whole model with model.save(path)")
    config = config_of(read_json(text, "its model configuration"))
    builder, tensors = Builder(), dict[str, Tensor]()
    for layer in ordered_layers(config):
        tensors.update(apply(builder, layer, weights))
    layers = builder.finish()
    place = source(path, data, kind, tensors, dtype_of(tensors), approximations=tuple(builder.approximations))
    return Network(layers, builder.head, place)


def write(net: Network, dtype: npt.DTypeLike | None = None) -> bytes:
    """A new .h5 file: a Sequential of Dense layers.

    Raises:
        UnsupportedError: if Keras has no activation of the name.
        InputError: if a number is no value of the dtype.
    """
    target = np.dtype(dtype or net.dtype)
    inputs = {"name": "input_1", "dtype": target.name, "sparse": False, "batch_input_shape": [None, net.widths[0]]}
    rows: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": inputs}]
    for k, layer in enumerate(net.layers):
        last = k == net.depth - 1
        name = _NAMES.get(layer.activation.name)
        if name is None or (last and net.head not in (None, "softmax")) or (last and net.head and name != "linear"):
            what = layer.activation.label if name is None else net.head
            raise UnsupportedError(f"Keras files have no {what}; save in another format")
        settings = {"name": f"dense_{k + 1}", "trainable": True, "dtype": target.name, "units": layer.n_out}
        settings |= {"activation": "softmax" if last and net.head else name, "use_bias": True}
        rows.append({"class_name": "Dense", "config": settings})
    config = {"class_name": "Sequential", "config": {"name": "sequential", "layers": rows}}
    out = io.BytesIO()
    with _h5py().File(out, "w") as file:
        file.attrs.update({"model_config": json.dumps(config), "backend": "tensorflow", "keras_version": "2.13.1"})
        group = file.create_group("model_weights")
        names = [f"dense_{k + 1}" for k in range(net.depth)]
        group.attrs.update({"layer_names": np.array(names, "S"), "backend": "tensorflow", "keras_version": "2.13.1"})
        for name, layer in zip(names, net.layers, strict=True):
            part = group.create_group(name)
            part.attrs["weight_names"] = np.array([f"{name}/kernel:0", f"{name}/bias:0"], "S")
            weight, bias = arrays(layer, target)
            part.create_dataset(f"{name}/kernel:0", data=np.ascontiguousarray(weight.T))
            part.create_dataset(f"{name}/bias:0", data=bias)
    return out.getvalue()


def rewrite(original: bytes, before: Network, after: Network, dtype: npt.DTypeLike) -> bytes:
    """The original .h5 file with other kernels and units; the optimiser's state, of the old shapes, is dropped.

    Raises:
        UnsupportedError: if a layer was folded, or a bias is needed that the file does not have.
    """
    used = [name for layer in before.layers for name in (layer.weight_name, layer.bias_name) if name]
    fresh = replacements(before, after, {name: dtype for name in used})
    config = read_json(_contents(original)[1] or "", "its model configuration")
    units = {layer.name: layer.n_out for layer in after.layers}
    for layer in config_of(config).layers:
        if layer["class_name"] == "Dense":
            layer["config"]["units"] = units[layer["config"]["name"]]
        layer.pop("build_config", None)
    kernels = {name: np.ascontiguousarray(value.T) for name, value in fresh.items()}
    answer, _ = _ask("rewrite", original, {"model_config": json.dumps(config)}, kernels)
    return answer["file"].tobytes()
