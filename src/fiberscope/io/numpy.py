"""NumPy archives (.npz): W1, b1, W2, b2, ... with W of shape (n_out, n_in), and `activation`. No pickles are read."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.errors import FormatError, InputError
from fiberscope.io import state_dicts
from fiberscope.io.files import (
    Archive,
    Options,
    arrays,
    native,
    one_line,
    read_bytes,
    read_json,
    replacements,
    source,
    zip_bytes,
)
from fiberscope.io.torch_files import row_of
from fiberscope.network import Network

Tensor = npt.NDArray[Any]

_WEIGHT = re.compile(r"^W(\d+)$")


def read(path: Path, options: Options) -> Network:
    """Read an archive of arrays.

    Without W1, W2, ... the names are read like those of a state dict ("fc1.weight", "dense/kernel").

    Raises:
        FormatError: if an entry is damaged, holds objects, or declares another size than it has.
    """
    data = read_bytes(path)
    archive = Archive(data)
    tensors = {name.removesuffix(".npy"): _array(archive, name) for name in archive.entries}
    texts = {name: value for name, value in tensors.items() if value.dtype.kind == "U"}
    weights = sorted(int(m.group(1)) for m in map(_WEIGHT.match, tensors) if m)
    activation = _activations(texts.get("activation"), options)
    chosen = Options(options.part, activation, options.allow_opaque, options.input_shape)
    if not weights:
        return state_dicts.file_network(path, data, "npz", tensors, chosen)
    if options.part is not None:
        raise InputError(f"holds one network; leave out --part {options.part}")
    if weights != list(range(weights[0], weights[0] + len(weights))):
        raise FormatError(f"holds matrices {', '.join(f'W{k}' for k in weights)}; expected numbers without gaps")
    layers = [_layer(k, tensors) for k in weights]
    own = {name: value for layer in layers for name, value in layer.tensors.items()}
    head = str(texts["head"].reshape(-1)[0]) if "head" in texts and texts["head"].size else None
    rows = state_dicts.activations_for(len(layers), activation)
    return state_dicts.chain(layers, rows, source(path, data, "npz", own, state_dicts.dtype_of(own)), head)


def _layer(k: int, tensors: dict[str, Tensor]) -> state_dicts.Dense:
    weight, bias = tensors[f"W{k}"], tensors.get(f"b{k}")
    for name, value in ((f"W{k}", weight), (f"b{k}", bias)):
        if value is not None and value.dtype.kind not in "fiu":
            raise FormatError(f"{name} holds {value.dtype}; expected floats")
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        found = f"W{k} {weight.shape}" + ("" if bias is None else f" and b{k} {bias.shape}")
        raise FormatError(f"{found} do not fit; expected (n_out, n_in) and (n_out,)")
    return state_dicts.Dense(f"layer {k}", weight, bias, f"W{k}", "" if bias is None else f"b{k}")


def _activations(stored: Tensor | None, options: Options) -> Any:
    if options.activation is not None or stored is None:
        return options.activation
    rows: list[Activation] = []
    for text in stored.reshape(-1).tolist():
        rows.append(row_of(read_json(text, "an activation") if text.startswith("{") else text))
    return rows


def _array(archive: Archive, name: str) -> Tensor:
    """One .npy entry, its declared size checked against its bytes before anything is allocated."""
    if not name.endswith(".npy"):
        raise FormatError(f"entry {name!r} is no .npy array")
    stream = io.BytesIO(archive.read(name))
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if reader is None:
            raise FormatError(f"entry {name!r} has .npy version {version}; expected 1.0 or 2.0")
        shape, fortran, dtype = reader(stream)
    except FormatError:
        raise
    except Exception as exc:  # the header is a Python literal, and parsing a hostile one fails in many ways
        raise FormatError(f"entry {name!r} has a damaged header ({one_line(exc)})") from exc
    if dtype.hasobject or dtype.kind not in "fiubU":
        raise FormatError(f"entry {name!r} holds {dtype}; expected floats (objects are never unpickled)")
    rest = stream.read()
    if any(n < 0 for n in shape) or len(shape) > 16 or dtype.itemsize == 0:
        raise FormatError(f"entry {name!r} has shape {shape} of {dtype}")
    count = 1
    for n in shape:
        count *= n
    if count * dtype.itemsize != len(rest):
        raise FormatError(f"entry {name!r} declares shape {shape} of {dtype} but holds {len(rest):,} bytes")
    flat = np.frombuffer(rest, dtype=dtype)
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return native(array) if dtype.kind != "U" else np.array(array)


def _npy(array: Tensor) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def write(net: Network, dtype: npt.DTypeLike | None = None) -> bytes:
    """A new archive W1, b1, ..., activation, head.

    Raises:
        InputError: if a number is no value of the dtype.
    """
    entries: dict[str, Tensor] = {}
    for k, layer in enumerate(net.layers, 1):
        entries[f"W{k}"], entries[f"b{k}"] = arrays(layer, dtype or net.dtype)
    entries["activation"] = np.array([_text(layer.activation) for layer in net.layers])
    if net.head is not None:
        entries["head"] = np.array(net.head)
    return zip_bytes({f"{name}.npy": _npy(value) for name, value in entries.items()})


def _text(row: Activation) -> str:
    return json.dumps(row.spec) if row.parameters else row.name


def rewrite(original: bytes, before: Network, after: Network, dtype: npt.DTypeLike) -> bytes:
    """The original archive with other matrices; all other entries stay.

    Raises:
        UnsupportedError: if a bias is needed that the file does not have.
    """
    archive = Archive(original)
    used = [name for layer in before.layers for name in (layer.weight_name, layer.bias_name) if name]
    fresh = replacements(before, after, {name: dtype for name in used})
    entries = {name: archive.read(name) for name in archive.entries}
    for name, value in fresh.items():
        kernel = re.search(r"kernel(:0)?$", name) is not None
        entries[f"{name}.npy"] = _npy(np.ascontiguousarray(value.T if kernel else value))
    compressed = any(info.compress_type for info in archive.entries.values())
    return zip_bytes(entries, compress=compressed)
