"""Keras files through h5py, without Keras: .h5 (whole models) and .keras archives of dense chains.

Only hard links inside the file are followed, and no layer's code is looked at: unknown layers are refused by name.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import FormatError, InputError, UnsupportedError, import_optional
from fiberscope.io.chains import Builder
from fiberscope.io.files import (
    FREE_EXPANSION,
    MAX_EXPANSION,
    Archive,
    Options,
    arrays,
    native,
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
_MAX_DATASETS = 10_000


def _h5py() -> Any:
    return import_optional("h5py", extra="keras", purpose="read or write Keras files")


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what h5py raises for damaged files into `FormatError`."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as exc:
        raise FormatError(f"damaged HDF5 file ({one_line(exc)})") from exc


class _Store:
    """Datasets of an HDF5 file, read within caps."""

    def __init__(self, data: bytes) -> None:
        self._h5 = _h5py()
        self._limit = max(FREE_EXPANSION, MAX_EXPANSION * len(data))
        with _errors():
            self.file = self._h5.File(io.BytesIO(data), "r")

    def child(self, group: Any, name: str) -> Any:
        """A member of a group, refusing links that lead elsewhere."""
        with _errors():
            link = group.get(name, getlink=True)
            if link is None:
                raise FormatError(f"has no {group.name.rstrip('/')}/{name}")
            if not isinstance(link, self._h5.HardLink):
                raise FormatError(f"{group.name.rstrip('/')}/{name} is a link that leaves the file's own tree")
            return group[name]

    def datasets(self, group: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
        """All datasets below a group: (path, dataset)."""
        if depth > 8:
            raise FormatError("its groups are nested too deeply")
        with _errors():
            names = list(group)
        for name in names:
            item = self.child(group, name)
            if isinstance(item, self._h5.Dataset):
                yield item.name.lstrip("/"), item
            elif isinstance(item, self._h5.Group):
                yield from self.datasets(item, depth + 1)

    def array(self, path: str, item: Any) -> Tensor:
        """The numbers of a dataset."""
        with _errors():
            if item.is_virtual or item.external:
                raise FormatError(f"dataset {path} keeps its numbers in another file")
            if item.dtype.kind not in "fiu" or len(item.shape) > 8:
                raise FormatError(f"dataset {path} holds {item.dtype} of shape {item.shape}; expected floats")
            self._limit -= int(item.size) * item.dtype.itemsize
            if self._limit < 0:
                raise FormatError(f"dataset {path} declares {item.size:,} entries, far more than the file can hold")
            return native(np.asarray(item[()]))


class _Legacy(Parameters):
    """Weights of an .h5 file: groups named like the layers, datasets named by role."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        with _errors():
            self._root = store.child(store.file, "model_weights") if "model_weights" in store.file else store.file

    def of(self, layer: Mapping[str, Any], name: str, roles: tuple[str, ...]) -> dict[str, tuple[str, Tensor]]:
        group = self._store.child(self._root, name)
        out: dict[str, tuple[str, Tensor]] = {}
        for count, (path, item) in enumerate(self._store.datasets(group)):
            role = path.rpartition("/")[2].partition(":")[0]
            if role not in roles or role in out or count > _MAX_DATASETS:
                raise FormatError(f"{title_of(layer)} has the dataset {path}; expected one each of {', '.join(roles)}")
            out[role] = (path, self._store.array(path, item))
        return _complete(out, roles, layer)


class _Archived(Parameters):
    """Weights of a .keras archive: numbered variables in groups named by class or by layer."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._seen: dict[str, int] = {}

    def of(self, layer: Mapping[str, Any], name: str, roles: tuple[str, ...]) -> dict[str, tuple[str, Tensor]]:
        folder = self._store.child(self._store.file, "layers")
        with _errors():
            members = set(folder)
        kind = _snake(str(layer["class_name"]))
        count = self._seen.get(kind, 0)
        self._seen[kind] = count + 1
        numbered = kind if count == 0 else f"{kind}_{count}"
        group = self._store.child(self._store.child(folder, numbered if numbered in members else name), "vars")
        out = {}
        for k, role in enumerate(roles):
            item = self._store.child(group, str(k))
            if not isinstance(item, _h5py().Dataset):
                raise FormatError(f"{title_of(layer)}: variable {k} is no dataset")
            out[role] = (item.name.lstrip("/"), self._store.array(item.name, item))
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
    if data[:2] == b"PK":
        archive = Archive(data)
        text: str | bytes = archive.read("config.json")
        weights: Parameters = _Archived(_Store(archive.read("model.weights.h5")))
        kind = "keras3"
    else:
        store = _Store(data)
        text, weights, kind = _model_config(store), _Legacy(store), "keras"
    config = config_of(read_json(text, "its model configuration"))
    builder, tensors = Builder(), dict[str, Tensor]()
    for layer in ordered_layers(config):
        tensors.update(apply(builder, layer, weights))
    layers = builder.finish()
    place = source(path, data, kind, tensors, dtype_of(tensors), approximations=tuple(builder.approximations))
    return Network(layers, builder.head, place)


def _model_config(store: _Store) -> str | bytes:
    with _errors():
        value = store.file.attrs.get("model_config")
    if value is None:
        raise FormatError("holds weights without a model; save the whole model with model.save(path)")
    if not isinstance(value, str | bytes):
        raise FormatError("its model_config is no text")
    return value


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
    stream = io.BytesIO(original)
    with _errors(), _h5py().File(stream, "r+") as file:
        value = file.attrs["model_config"]
        config = read_json(value, "its model configuration")
        units = {layer.name: layer.n_out for layer in after.layers}
        for layer in config_of(config).layers:
            if layer["class_name"] == "Dense":
                layer["config"]["units"] = units[layer["config"]["name"]]
            layer.pop("build_config", None)
        text = json.dumps(config)
        file.attrs["model_config"] = text.encode() if isinstance(value, bytes) else text
        for name, array in fresh.items():
            del file[name]
            file.create_dataset(name, data=np.ascontiguousarray(array.T))
        if "optimizer_weights" in file:
            del file["optimizer_weights"]
    return stream.getvalue()
