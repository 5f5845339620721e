"""safetensors files: a JSON header with names, dtypes, shapes and offsets, then the numbers.

Our own files keep the architecture in the header's metadata under "fiberscope", and rational weights, which no tensor
holds, beside their float64 roundings as texts "p/q".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.io import state_dicts
from fiberscope.io.files import Options, arrays, native, read_bytes, read_json, replacements, source
from fiberscope.io.torch_files import row_of
from fiberscope.network import HEADS, Layer, Network

Tensor = npt.NDArray[Any]

MAX_HEADER = 100 << 20
"""Largest header, as in the format's own definition."""

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16"}
_OWN = "fiberscope"


def read(path: Path, options: Options) -> Network:
    """Read a safetensors file; the activation is needed unless the header has it.

    Raises:
        FormatError: if the header is malformed or points outside the file.
    """
    data = read_bytes(path)
    header, start = header_of(data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError("its metadata are no texts")
    tensors = tensors_of(header, memoryview(data)[start:])
    narrow = any(entry["dtype"] == "BF16" for entry in header.values())
    notes = ("Its bfloat16 weights are read as the same numbers in float32.",) if narrow else ()
    if _OWN in metadata and options.activation is None:
        return _own(path, data, tensors, metadata[_OWN], notes, options)
    return state_dicts.file_network(path, data, "safetensors", tensors, options, ordered=False, notes=notes)


def header_of(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header of a file, and where the data begin."""
    if len(data) < 8:
        raise FormatError(f"has {len(data)} bytes; a safetensors file has at least 8")
    size = int.from_bytes(data[:8], "little")
    if size > min(MAX_HEADER, len(data) - 8):
        raise FormatError(
            f"declares a header of {size:,} bytes in a file of {len(data):,}; truncated, or no safetensors file"
        )
    header = read_json(data[8 : 8 + size], "the safetensors header")
    if not isinstance(header, dict):
        raise FormatError("its header is no JSON object")
    return header, 8 + size


def tensors_of(header: Mapping[str, Any], block: memoryview) -> dict[str, Tensor]:
    """The tensors a header describes, which must fill the data without overlap or gap."""
    spans, out = [], {}
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry)
        size = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if end - begin != size or end > len(block):
            raise FormatError(
                f"tensor {name} of shape {list(shape)[:8]} {dtype} needs {size:,} bytes but has offsets "
                f"[{begin}, {end}] in {len(block):,} bytes of data"
            )
        spans.append((begin, end, name))
        values = np.frombuffer(block[begin:end], _DTYPES[dtype]).reshape(shape)
        out[name] = (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else native(values)
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise FormatError(f"tensor {name} begins at byte {begin}; expected {at}, without overlap or gap")
        at = end
    if at != len(block):
        raise FormatError(f"holds {len(block):,} bytes of data; its tensors take {at:,}")
    return out


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, begin, end)
        good = len(shape) <= 16 and all(type(v) is int and 0 <= v < 1 << 48 for v in numbers) and begin <= end
    except (TypeError, KeyError, ValueError):
        good, dtype, shape, begin, end = False, "", (), 0, 0
    if not good:
        raise FormatError(
            f"the header's entry for tensor {name} is malformed; expected dtype, shape >= 0, data_offsets"
        )
    if dtype not in _DTYPES:
        raise UnsupportedError(f"tensor {name} has dtype {str(dtype)[:20]}; known are {', '.join(_DTYPES)}")
    return dtype, shape, begin, end


def _own(
    path: Path, data: bytes, tensors: Mapping[str, Tensor], text: str, notes: tuple[str, ...], options: Options
) -> Network:
    """A network from a file with our header."""
    info = read_json(text, "the fiberscope header")
    if options.part is not None:
        raise InputError(f"holds one network; leave out --part {options.part}")
    if not isinstance(info, dict) or info.get("version") != 1 or not isinstance(info.get("layers"), list):
        raise FormatError("its fiberscope header is malformed or of a later version")
    head = info.get("head")
    if head is not None and head not in HEADS:
        raise FormatError(f"its fiberscope header has the unknown output head {str(head)[:40]!r}")
    layers = [_own_layer(k, row, tensors) for k, row in enumerate(info["layers"], 1)]
    used = [name for layer in layers for name in (layer.weight_name, layer.bias_name) if name]
    own = {name: tensors[name] for name in used}
    return Network(tuple(layers), head, source(path, data, "safetensors", own, state_dicts.dtype_of(own), notes=notes))


def _own_layer(k: int, row: Any, tensors: Mapping[str, Tensor]) -> Layer:
    if not isinstance(row, dict):
        raise FormatError(f"layer {k} of its fiberscope header is malformed")
    names = (row.get("weight"), row.get("bias"))
    found: list[Tensor] = []
    for role, name in zip(("weight", "bias"), names, strict=True):
        if role == "bias" and name is None:
            found.append(np.zeros(found[0].shape[0], np.float64 if found[0].dtype == object else found[0].dtype))
            continue
        if not isinstance(name, str) or name not in tensors:
            raise FormatError(
                f"layer {k} of its fiberscope header names the {role} {str(name)[:60]!r}, which is not in the file"
            )
        value = tensors[name]
        if value.dtype.kind != "f" or value.ndim != (2 if role == "weight" else 1):
            raise FormatError(f"tensor {name} is {value.dtype} of shape {value.shape}; expected a float {role}")
        exact = row.get(f"exact_{role}")
        found.append(value if exact is None else _exact(name, value, exact))
    title = row.get("name")
    return Layer(
        found[0],
        found[1],
        row_of(row.get("activation")),
        title if isinstance(title, str) else f"layer {k}",
        names[0] or "",
        names[1] or "",
    )


def _exact(name: str, value: Tensor, texts: Any) -> npt.NDArray[Any]:
    """Rational entries from texts, which must round to the tensor that is stored beside them."""
    try:
        if not isinstance(texts, list) or any(
            not isinstance(t, str) or len(t) > 100_000 or "e" in t.lower() for t in texts
        ):
            raise ValueError("no texts")
        array = rationals.from_texts(texts, value.shape)
        agree = rationals.equal(rationals.rounded(array, value.dtype), value)
    except (ValueError, ZeroDivisionError, OverflowError) as exc:
        raise FormatError(
            f"the exact entries of tensor {name} are malformed; expected {value.size} texts 'p/q'"
        ) from exc
    if not agree:
        raise FormatError(f"the exact entries of tensor {name} do not round to the floats stored beside them")
    return array


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file, names in order, numbers aligned to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    blocks, at = [], 0
    # wide dtypes first keeps every tensor aligned
    for name in sorted(tensors, key=lambda n: (-tensors[n].dtype.itemsize, n)):
        value = np.ascontiguousarray(tensors[name])
        code = next(code for code, kind in _DTYPES.items() if kind[1:] == value.dtype.str[1:])
        block = value.astype(_DTYPES[code], copy=False).tobytes()
        header[name] = {"dtype": code, "shape": list(tensors[name].shape), "data_offsets": [at, at + len(block)]}
        blocks.append(block)
        at += len(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(blocks)


def write(net: Network, dtype: npt.DTypeLike | None = None) -> bytes:
    """A new file with the architecture in its header; without a dtype, rational weights are kept exactly.

    Raises:
        InputError: if a dtype is given and a number is none of its values.
    """
    tensors: dict[str, Tensor] = {}
    rows = []
    for (weight_name, bias_name), layer in zip(_tensor_names(net), net.layers, strict=True):
        row: dict[str, Any] = {
            "name": layer.name,
            "activation": layer.activation.spec,
            "weight": weight_name,
            "bias": bias_name,
        }
        if dtype is None and layer.rational:
            for role, name, array in (("weight", weight_name, layer.weight), ("bias", bias_name, layer.bias)):
                tensors[name] = _rounded(array, layer.name)
                if rationals.is_rational(array):
                    row[f"exact_{role}"] = _texts(array, layer.name)
        elif dtype is None:
            tensors[weight_name], tensors[bias_name] = layer.weight, layer.bias
        else:
            tensors[weight_name], tensors[bias_name] = arrays(layer, dtype)
        rows.append(row)
    return encode(tensors, {"format": "pt", _OWN: json.dumps({"version": 1, "head": net.head, "layers": rows})})


def _texts(array: npt.NDArray[Any], name: str) -> list[str]:
    try:
        return [rationals.text(q) for q in array.reshape(-1)]
    except ValueError as exc:  # Python's limit on the digits of one integer
        raise InputError(
            f"{name}: a rational weight has too many digits to be written as text; reduce to a float dtype"
        ) from exc


def _rounded(array: npt.NDArray[Any], name: str) -> Tensor:
    if not rationals.is_rational(array):
        return array
    try:
        return np.asarray(rationals.rounded(array, np.float64))
    except OverflowError as exc:
        raise InputError(f"{name}: a weight exceeds the largest float64") from exc


def _tensor_names(net: Network) -> list[tuple[str, str]]:
    """The file's names where all layers have their own, else "layers.0.weight"."""
    own = [name for layer in net.layers for name in (layer.weight_name, layer.bias_name)]
    if all(own) and len(set(own)) == len(own) and "__metadata__" not in own:
        return [(layer.weight_name, layer.bias_name) for layer in net.layers]
    return [(f"layers.{k}.weight", f"layers.{k}.bias") for k in range(net.depth)]


def rewrite(original: bytes, before: Network, after: Network, dtype: npt.DTypeLike) -> bytes:
    """The original file with other tensors; names, other tensors and metadata stay.

    bfloat16 tensors of the network become float32.

    Raises:
        UnsupportedError: if a bias is needed that the file does not have.
    """
    header, start = header_of(original)
    metadata = dict(header.pop("__metadata__", {}))
    used = {name for layer in before.layers for name in (layer.weight_name, layer.bias_name) if name}
    kept = [name for name, entry in header.items() if entry["dtype"] == "BF16" and name not in used]
    if kept:
        raise UnsupportedError(f"tensor {kept[0]} is bfloat16 and would have to be widened")
    if _OWN in metadata:
        if any(layer.rational for layer in before.layers):
            raise UnsupportedError("the file holds rational weights")
        rows = read_json(metadata[_OWN], "the fiberscope header")
        for row, layer in zip(rows["layers"], after.layers, strict=True):
            row["activation"] = layer.activation.spec
        metadata[_OWN] = json.dumps(rows)
    tensors = tensors_of(header, memoryview(original)[start:])
    for name, value in replacements(before, after, {name: dtype for name in used}).items():
        tensors[name] = value.T if name.rpartition(".")[2].rpartition("/")[2].startswith("kernel") else value
    return encode(tensors, metadata)
