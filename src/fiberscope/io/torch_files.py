"""torch state dict files (.pt, .pth, .ckpt), without torch: zip archives, and the older format of pickles in a row."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io import state_dicts
from fiberscope.io.files import Archive, Options, arrays, read_bytes, read_json, replacements, shapes, zip_bytes
from fiberscope.io.torch_pickle import Storage, Tensor, loads
from fiberscope.io.torch_pickle_writer import Writer
from fiberscope.network import Network

MAX_PICKLE = 8 << 20
"""Largest pickle read, in bytes; the tensors' numbers lie outside it."""

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_DEPTH = 20
_OWN_KEY = "fiberscope"


def read(path: Path, options: Options) -> Network:
    """Read a state dict; nothing in it is executed.

    Raises:
        FormatError: if it is damaged, or its pickle asks for anything but tensors.
        UnsupportedError: if its tensors form no network.
    """
    return from_tree(path, read_bytes(path), options)


def from_tree(path: Path, data: bytes, options: Options) -> Network:
    """The network in the bytes of a state dict file."""
    tree = parse(data)
    tensors = flatten(tree)
    names = {".".join(key): value for key, value in named(tensors).items()}
    if not any(value.count and value.dtype.startswith(("f", "bf")) for value in names.values()):
        raise UnsupportedError(f"holds no network: expected a state dict of float tensors, saw {_seen(tree, names)}")
    found = {name: value.array() for name, value in names.items()}
    narrow = [name for name, value in names.items() if value.dtype == "bfloat16"]
    notes = ["Its bfloat16 weights are read as the same numbers in float32."] if narrow else []
    if not any(re.search(r"(weight|kernel)$", name) for name in names):
        raise UnsupportedError(
            f"holds no network: expected weight matrices named like 'fc1.weight', saw {_seen(tree, names)}"
        )
    own = _architecture(tree, options)
    net = state_dicts.file_network(path, data, "torch", found, own[0], notes=notes)
    return net if own[1] is None else Network(net.layers, own[1], net.source)


def _seen(tree: Any, names: Mapping[str, Tensor]) -> str:
    if isinstance(tree, Tensor):
        return f"one tensor {tree.shape}"
    if names:
        return shapes(names)
    kind = type(tree).__name__
    return "None, so nothing was saved in it" if tree is None else f"{_article(kind)} {kind} without tensors"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _architecture(tree: Any, options: Options) -> tuple[Options, str | None]:
    """Activations and head, from the options or from the note that `write` leaves in the metadata."""
    text = getattr(tree, "_metadata", {}).get(_OWN_KEY)
    if options.activation is not None or not isinstance(text, str):
        return options, None
    head, rows = read_spec(text)
    return Options(options.part, rows, options.allow_opaque, options.input_shape), head


def spec(net: Network) -> str:
    """Activations and head as JSON, for formats that keep tensors only."""
    import json

    return json.dumps({"version": 1, "head": net.head, "activations": [layer.activation.spec for layer in net.layers]})


def read_spec(text: str | bytes) -> tuple[str | None, list[Activation]]:
    """Inverse of `spec`: (head, activations).

    Raises:
        FormatError: if it is malformed or of a later version.
    """
    data = read_json(text, "the fiberscope header")
    if not isinstance(data, dict) or data.get("version") != 1 or not isinstance(data.get("activations"), list):
        raise FormatError("the fiberscope header is malformed or of a later version")
    head = data.get("head")
    if head is not None and not isinstance(head, str):
        raise FormatError("the fiberscope header names no valid output head")
    return head, [row_of(row) for row in data["activations"]]


def row_of(row: Any) -> Activation:
    """An activation from its JSON."""
    if isinstance(row, str):
        return find_activation(row)
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise FormatError(f"an activation is given as {str(row)[:60]!r}; expected a name with parameters")
    try:
        return find_activation(row)
    except (KeyError, TypeError, ZeroDivisionError, AttributeError) as exc:
        raise FormatError(f"an activation is given as {str(row)[:60]!r}; expected a name with parameters") from exc


def parse(data: bytes) -> Any:
    """The contents of a torch file: dicts, lists, numbers, texts and `Tensor` leaves with data.

    Raises:
        FormatError: if it is damaged or not a torch file.
    """
    if data[:4] == b"PK\x03\x04":
        return _parse_zip(Archive(data))
    return _parse_legacy(data)


def _pickle_entry(archive: Archive) -> str:
    found = [name for name in archive.entries if name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1]
    if len(found) != 1:
        raise FormatError("is a zip archive without one data.pkl; expected a file of torch.save")
    return found[0]


def _parse_zip(archive: Archive) -> Any:
    entry = _pickle_entry(archive)
    folder = entry[: -len("data.pkl")]
    if archive.entries[entry].file_size > MAX_PICKLE:
        raise FormatError(f"its pickle has {archive.entries[entry].file_size:,} bytes; at most {MAX_PICKLE:,} are read")
    tree, storages, _ = loads(archive.read(entry))
    order = archive.read(folder + "byteorder") if folder + "byteorder" in archive else b"little"
    for storage in storages:
        name = f"{folder}data/{storage.key}"
        if name not in archive:
            raise FormatError(f"has no entry {name!r} for a tensor")
        if archive.entries[name].file_size != storage.size:
            raise FormatError(
                f"entry {name!r} holds {archive.entries[name].file_size:,} bytes; its tensor declares {storage.size:,}"
            )
        storage.fill(archive.read(name), order.strip() == b"big")
    return tree


def _parse_legacy(data: bytes) -> Any:
    """magic, protocol, system, object, storage keys; then the storages, each with its number of items."""
    if not data.startswith(b"\x80"):
        raise FormatError("is no torch file: neither a zip archive nor a pickle")
    at, head = 0, []
    small = data[:1024]
    for _ in range(3):
        value, _, at = loads(small, at)
        head.append(value)
        if head[0] != _MAGIC:
            raise FormatError("is a pickle but no torch file; save with torch.save(model.state_dict(), path)")
    if head[1] != _PROTOCOL or not isinstance(head[2], dict) or head[2].get("little_endian") is not True:
        raise FormatError("is a torch file of an unknown protocol or byte order")
    window = data[: at + MAX_PICKLE]
    tree, storages, at = loads(window, at)
    keys, _, at = loads(data[: at + MAX_PICKLE], at)
    known = {storage.key: storage for storage in storages}
    if (
        not isinstance(keys, list)
        or not all(isinstance(k, str) for k in keys)
        or set(keys) != set(known)
        or len(keys) != len(known)
    ):
        raise FormatError("its list of storages does not agree with its tensors")
    view = memoryview(data)
    for key in keys:
        storage = known[key]
        if at + 8 > len(data) or int.from_bytes(data[at : at + 8], "little", signed=True) != storage.count:
            raise FormatError(f"storage {key!r} is truncated or of another size than declared")
        storage.fill(view[at + 8 : at + 8 + storage.size])
        at += 8 + storage.size
    if at != len(data):
        raise FormatError(f"has {len(data) - at:,} bytes after its tensors")
    return tree


def flatten(tree: Any) -> dict[tuple[str, ...], Tensor]:
    """All tensors by their path of keys.

    Raises:
        FormatError: if containers are nested too deeply, or the tensors together are far larger than the file's data.
    """
    out: dict[tuple[str, ...], Tensor] = {}
    budget = [1_000_000]
    for key, value in _walk(tree, (), budget):
        if key in out:
            raise FormatError(f"two tensors have the name {'.'.join(key)}")
        out[key] = value
    blocks: dict[int, Storage] = {id(t.storage): t.storage for t in out.values()}
    if sum(t.count for t in out.values()) > 4 * sum(s.count for s in blocks.values()) + 1_000_000:
        raise FormatError("its tensors overlap so much that together they are far larger than the file")
    return out


def _walk(value: Any, path: tuple[str, ...], budget: list[int]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    budget[0] -= 1
    if budget[0] < 0 or len(path) > _MAX_DEPTH:
        raise FormatError("its containers are nested too deeply")
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, (*path, str(key)), budget)
    elif isinstance(value, list | tuple):
        for key, item in enumerate(value):
            if isinstance(item, dict | list | tuple | Tensor):
                yield from _walk(item, (*path, str(key)), budget)


def named(tensors: Mapping[tuple[str, ...], Tensor]) -> dict[tuple[str, ...], Tensor]:
    """The same without the wrapper ("state_dict") that holds every weight of a checkpoint."""
    holders = {path[:-1] for path in tensors if path and re.search(r"(weight|kernel)$", path[-1])}
    if len(holders) != 1:
        return dict(tensors)
    (holder,) = holders
    return {path[len(holder) :] if path[: len(holder)] == holder else path: value for path, value in tensors.items()}


def state_dict(net: Network, dtype: npt.DTypeLike) -> OrderedDict[str, npt.NDArray[Any]]:
    """Tensors of a network, named as in a `torch.nn.Sequential`, or as its file named them.

    Raises:
        InputError: if a number is no value of the dtype.
    """
    out: OrderedDict[str, npt.NDArray[Any]] = OrderedDict()
    for (weight_name, bias_name), layer in zip(tensor_names(net), net.layers, strict=True):
        out[weight_name], out[bias_name] = arrays(layer, dtype)
    return out


def tensor_names(net: Network) -> list[tuple[str, str]]:
    """(weight, bias) names of each layer: "0.weight", "0.bias", "2.weight", ... with a place for each activation."""
    out, at = [], 0
    for layer in net.layers:
        out.append((f"{at}.weight", f"{at}.bias"))
        at += 1 if layer.activation.name == "identity" else 2
    return out


def write(net: Network, dtype: npt.DTypeLike | None = None) -> bytes:
    """A new zip file that `torch.load(path, weights_only=True)` reads: the state dict of a Sequential.

    Activations are kept in the state dict's metadata, which torch ignores.

    Raises:
        InputError: if a number is no value of the dtype.
    """
    tree = state_dict(net, dtype or net.dtype)
    metadata: OrderedDict[str, Any] = OrderedDict({"": {"version": 1}})
    metadata[_OWN_KEY] = spec(net)
    tree._metadata = metadata  # type: ignore[attr-defined]
    return _pack(tree, "archive/", {})


def _pack(tree: Any, folder: str, others: Mapping[str, bytes]) -> bytes:
    writer = Writer()
    entries = {f"{folder}data.pkl": writer.dumps(tree), f"{folder}byteorder": b"little"}
    entries.update({f"{folder}data/{k}": block for k, block in enumerate(writer.storages)})
    return zip_bytes({**entries, **{k: v for k, v in others.items() if k not in entries}, f"{folder}version": b"3\n"})


def rewrite(original: bytes, before: Network, after: Network, dtype: npt.DTypeLike) -> bytes:
    """The original file with other tensors in the selected network: all names and other values stay.

    Raises:
        UnsupportedError: if a bias is needed that the file does not have.
        InputError: if a number does not fit the dtype.
    """
    tree = parse(original)
    paths = {".".join(name): path for name, path in zip(named(flatten(tree)), flatten(tree), strict=True)}
    used = [name for layer in before.layers for name in (layer.weight_name, layer.bias_name) if name]
    fresh = replacements(before, after, {name: dtype for name in used})
    transposed = {name: value.T if name.endswith("kernel") else value for name, value in fresh.items()}
    tree = _replaced(tree, {paths[name]: value for name, value in transposed.items()}, ())
    own = getattr(tree, "_metadata", {})
    if isinstance(own.get(_OWN_KEY), str):
        own[_OWN_KEY] = spec(after)
    if original[:4] != b"PK\x03\x04":
        return _pack(tree, "archive/", {})
    archive = Archive(original)
    entry = _pickle_entry(archive)
    folder = entry[: -len("data.pkl")]
    kept = [n for n in archive.entries if not n.startswith((f"{folder}data/", f"{folder}.data/")) and n != entry]
    return _pack(tree, folder, {name: archive.read(name) for name in kept})


def _replaced(value: Any, fresh: Mapping[tuple[str, ...], npt.NDArray[Any]], path: tuple[str, ...]) -> Any:
    if path in fresh:
        return fresh[path]
    if isinstance(value, dict):
        out: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
        for key, item in value.items():
            out[key] = _replaced(item, fresh, (*path, str(key)))
        if isinstance(value, OrderedDict) and hasattr(value, "_metadata"):
            out._metadata = value._metadata  # type: ignore[attr-defined]
        return out
    if isinstance(value, list | tuple):
        items = [_replaced(item, fresh, (*path, str(key))) for key, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return value
