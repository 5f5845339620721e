"""The door to foreign formats: `load` reads a file or an object of a framework, `save` writes a file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy.typing as npt

from fiberscope.activations import Given
from fiberscope.arguments import as_count, as_float_dtype, kind_of, shown
from fiberscope.errors import InputError, PartError, UnsupportedError
from fiberscope.io.files import Options, atomic_write, read_bytes, sha256
from fiberscope.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

__all__ = ["FORMATS", "Format", "Options", "encode", "format_of", "load", "save", "to_onnx", "to_torch"]


@dataclass(frozen=True)
class Format:
    """One row of the table of formats.

    Args:
        name: how `Source.format` calls it.
        module: the module of `fiberscope.io` with its `read`, `write`, `rewrite`.
        suffixes: file name endings.
        title: what a user calls it.
        writable: whether networks can be saved in it.
        drop_in: whether a network read from such a file can be put back into a copy of it.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    title: str
    writable: bool = True
    drop_in: bool = True


FORMATS: tuple[Format, ...] = (
    Format("onnx", "onnx", (".onnx",), "ONNX"),
    Format("safetensors", "safetensors", (".safetensors",), "safetensors"),
    Format("torch", "torch_files", (".pt", ".pth", ".ckpt"), "torch state dict"),
    Format("sb3", "sb3", (".zip",), "Stable-Baselines3 model", writable=False, drop_in=False),
    Format("npz", "numpy", (".npz",), "NumPy archive"),
    Format("nnet", "nnet", (".nnet",), "NNet text"),
    Format("keras", "keras", (".h5", ".hdf5"), "Keras HDF5"),
    Format("keras3", "keras", (".keras",), "Keras 3", writable=False, drop_in=False),
)
"""What can be read, one row per format."""


class Door(Protocol):
    """What a format's module offers."""

    def read(self, path: Path, options: Options) -> Network:
        """Read a file."""

    def write(self, net: Network, dtype: npt.DTypeLike | None) -> bytes:
        """A new file's bytes."""

    def rewrite(self, original: bytes, before: Network, after: Network, dtype: npt.DTypeLike) -> bytes:
        """The bytes of `original` with the parameters of `before` replaced by those of `after`."""


def _door(row: Format) -> Door:
    return cast(Door, importlib.import_module(f"fiberscope.io.{row.module}"))


def _listing(*, writable: bool = False) -> str:
    return ", ".join(suffix for row in FORMATS if row.writable or not writable for suffix in row.suffixes)


def _by_suffix(path: Path) -> Format | None:
    return next((row for row in FORMATS if path.suffix.lower() in row.suffixes), None)


def format_of(path: Path | str) -> Format:
    """The format of an existing file: by its suffix, else by its first bytes.

    Raises:
        InputError: if neither is known.
    """
    place = Path(path)
    row = _by_suffix(place)
    if row is not None:
        return row
    name = _by_magic(place)
    if name is None:
        raise InputError(f"{place}: unknown format {place.suffix or '(no suffix)'}; known are {_listing()}")
    return next(row for row in FORMATS if row.name == name)


def _by_magic(path: Path) -> str | None:
    start = _head(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if start.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "torch"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 27:
        return "safetensors"
    return "nnet" if start.startswith(b"// ") else None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(16)
    except (OSError, ValueError):
        read_bytes(path)  # says what is wrong in one line
        raise


def _zip_kind(path: Path) -> str | None:
    from fiberscope.io.files import Archive

    names = set(Archive(read_bytes(path)).entries)
    if "policy.pth" in names:
        return "sb3"
    if "config.json" in names and "model.weights.h5" in names:
        return "keras3"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    return "npz" if any(name.endswith(".npy") for name in names) else None


def load(
    source: Any,
    *,
    part: str | None = None,
    activation: Given | Sequence[Given] | None = None,
    allow_opaque: bool = False,
    input_shape: Sequence[int] | int | None = None,
) -> Network:
    """Read a network from a file or from an object of a framework.

    No code of a file is executed, and memory is bounded by a multiple of its size.

    Args:
        source: a path; or a torch module, a state dict (mapping of names to arrays), an ONNX ModelProto, a JAX pytree
            (Flax parameters, Equinox MLP); a `Network` is returned as it is.
        part: which network, where there are several.
        activation: the hidden activation, where the source has none ("relu", or one per layer "relu,tanh"); not
            looked at where the source says its own.
        allow_opaque: read past ONNX nodes without a meaning here, which are then listed as skipped.
        input_shape: shape of one input without the batch axis, where a torch module needs it.

    Returns:
        The network; `source` of it says where it came from.

    Raises:
        InputError: in one line, what is wrong with the file and what to do; a `PartError` if it holds several networks
            and `part` names none, a `FormatError` if it is damaged, an `UnsupportedError` for a layer without a
            meaning here.

    O(size of the file).

    >>> load({"0.weight": [[1, 2], [3, 4], [5, 6]], "2.weight": [[1, 1, 1]]}, activation="relu").widths
    (2, 3, 1)
    """
    options = Options(part, activation, allow_opaque, _shape(input_shape))
    if isinstance(source, Network):
        return source
    if isinstance(source, str | os.PathLike):
        if source == "":
            raise InputError("the path is empty; give that of a file")
        return _load_file(Path(source), options)
    return _load_object(source, options)


def _shape(given: Sequence[int] | int | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    axes = given if isinstance(given, list | tuple) else (given,)
    return tuple(as_count(n, "input_shape", 1) for n in axes)


def _load_file(path: Path, options: Options) -> Network:
    if not path.is_file():
        read_bytes(path)  # says what is wrong in one line
    try:
        net = _door(format_of(path)).read(path, options)
    except InputError as exc:
        raise _about(str(path), exc) from exc
    if net.source is None:
        return net
    return replace(net, source=replace(net.source, extra={**net.source.extra, "options": options}))


def _about(what: str, error: InputError) -> InputError:
    """The same error on one line that begins with what it is about."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    text = text if text.startswith(what) else f"{what}: {text}"
    return PartError(text, error.parts) if isinstance(error, PartError) else type(error)(text)


def _load_object(obj: Any, options: Options) -> Network:
    try:
        net = _read_object(obj, options)
    except InputError as exc:
        raise _about("state dict" if isinstance(obj, Mapping) else type(obj).__qualname__, exc) from exc
    if net is None:
        raise InputError(
            f"cannot read a network from an object of type {kind_of(obj)}; give a path, a torch module, a state dict, "
            "an ONNX model, Flax parameters or an Equinox MLP; for arrays use Network.from_arrays((W1, b1), (W2, b2))"
        )
    return net


def _read_object(obj: Any, options: Options) -> Network | None:
    torch, jax_like = sys.modules.get("torch"), sys.modules.get("equinox")
    if torch is not None and isinstance(obj, torch.nn.Module):
        from fiberscope.io import torch as torch_door

        return torch_door.from_module(obj, options)
    if type(obj).__name__ == "ModelProto" and hasattr(obj, "SerializeToString"):
        from fiberscope.io import onnx as onnx_door

        return onnx_door.from_model(obj, options)
    if jax_like is not None and isinstance(obj, jax_like.Module):
        from fiberscope.io import jax as jax_door

        return jax_door.from_equinox(obj, options)
    if isinstance(obj, Mapping):
        from fiberscope.io import jax as jax_door
        from fiberscope.io.state_dicts import from_mapping

        return jax_door.from_flax(obj, options) if jax_door.is_nested(obj) else from_mapping(obj, options)
    return None


def save(
    obj: Any,
    path: str | Path,
    *,
    force: bool = False,
    dtype: npt.DTypeLike | None = None,
    drop_in: bool | None = None,
) -> Path:
    """Write a network to a file; the suffix decides the format. Nothing is rounded, and nothing half-written.

    A network that was read from a file of the same format, and still has as many layers, is put back into a copy of
    that file: names, orientation and metadata stay.

    Args:
        obj: a network, or whatever `load` takes.
        path: where to.
        force: overwrite an existing file.
        dtype: float dtype of the written weights; None for the network's own.
        drop_in: True to insist on a copy of the original file, False for a new file; None for a copy where possible.

    Returns:
        The path of the file. (`encode` tells whether it is a copy of the original.)

    Raises:
        InputError: if the file exists, a weight does not fit the dtype, or the format cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(save(Network.random((2, 3, 1), seed=0), f"{folder}/net.npz"))
    Network(2-3-1 relu, 13 parameters)
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path {shown(path)} is none; the order is save(network, path)")
    target = Path(path)
    if (target.exists() or target.is_symlink()) and not force:
        raise InputError(f"{target}: exists; use --force (force=True) to overwrite it")
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}")
    data, _ = encode(load(obj), target, dtype=dtype, drop_in=drop_in)
    atomic_write(target, data, force)
    return target


def encode(
    net: Network, path: str | Path, *, dtype: npt.DTypeLike | None = None, drop_in: bool | None = None
) -> tuple[bytes, bool]:
    """The bytes that `save` would write to `path`, and whether they are a copy of the original file.

    Raises:
        InputError: as for `save`.

    >>> encode(Network.random((2, 3, 1), seed=0), "net.npz")[1]
    False
    """
    row = _by_suffix(Path(path))
    if row is None:
        suffix = Path(path).suffix or "no suffix"
        raise InputError(f"{path}: cannot write {suffix}; known are {_listing(writable=True)}")
    if not row.writable:
        raise InputError(f"{path}: {row.title} files are read, not written; known are {_listing(writable=True)}")
    reason = "drop_in=False" if drop_in is False else _no_original(net, row)
    if reason is None:
        try:
            return _rewritten(net, row, dtype), True
        except UnsupportedError as exc:
            reason = str(exc)
    if drop_in:
        raise UnsupportedError(f"{path}: cannot be a copy of the original file: {reason}")
    return _door(row).write(net, None if dtype is None else as_float_dtype(dtype)), False


def _no_original(net: Network, row: Format) -> str | None:
    """Why the network's own file cannot be rewritten, or None if it can."""
    place = net.source
    if place is None or place.sha256 is None or place.format != row.name or not row.drop_in:
        return f"the network was not read from a file of this kind ({row.title})"
    original = Path(place.path)
    try:
        unchanged = sha256(read_bytes(original)) == place.sha256
    except InputError as exc:
        return str(exc)
    return None if unchanged else f"{original} has changed since it was read"


def _rewritten(net: Network, row: Format, dtype: npt.DTypeLike | None) -> bytes:
    place = net.source
    if place is None:
        raise UnsupportedError("the network has no file")
    options = place.extra.get("options", Options(part=place.part))
    before = _load_file(Path(place.path), replace(options, part=place.part or options.part))
    if before.depth != net.depth or before.widths[0] != net.widths[0] or before.widths[-1] != net.widths[-1]:
        raise UnsupportedError(f"the file holds a {before.architecture} network, not {net.architecture}")
    if before.head != net.head or [a.activation for a in before.layers] != [b.activation for b in net.layers]:
        raise UnsupportedError("the file's activations or output head are others")
    return _door(row).rewrite(
        read_bytes(Path(place.path)), before, net, as_float_dtype(before.dtype if dtype is None else dtype)
    )


def to_torch(obj: Any) -> nn.Sequential:
    """A network as a `torch.nn.Sequential` of Linear layers and activations, in the network's own dtype.

    Args:
        obj: a network, or whatever `load` takes.

    Raises:
        InputError: if a weight does not fit the network's dtype.
        UnsupportedError: if torch has no module for an activation or the output head.
        MissingDependencyError: if torch is not installed.

    O(parameters). `load` is its inverse.
    """
    from fiberscope.io import torch as door

    return door.to_module(load(obj))


def to_onnx(obj: Any) -> ModelProto:
    """A network as an ONNX ModelProto, a chain of Gemm nodes and activations, in the network's own dtype.

    Args:
        obj: a network, or whatever `load` takes.

    Raises:
        InputError: if a weight does not fit the network's dtype.
        MissingDependencyError: if onnx is not installed.

    O(parameters). `load` is its inverse.
    """
    from fiberscope.io import onnx as door

    return door.to_onnx(load(obj))
