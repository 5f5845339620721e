"""Bytes in and out: size caps, hashes, zip archives that are not trusted, and atomic writing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Given
from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.network import Layer, Network, Source

MAX_FILE = 4 << 30
"""Largest file read, in bytes."""

MAX_EXPANSION = 100
"""An archive may expand to this many times its own size, or to `FREE_EXPANSION` bytes if that is more."""

FREE_EXPANSION = 64 << 20


@dataclass(frozen=True)
class Options:
    """How to read a file that does not say everything itself.

    Args:
        part: which network of a file that holds several.
        activation: the hidden activation where the file has none: one for all, or one for each layer; text may
            list them with commas ("relu,relu,tanh").
        allow_opaque: whether nodes without a meaning here may be skipped (ONNX only).
        input_shape: shape of one input, where layers such as convolutions need it and the source has none.
    """

    part: str | None = None
    activation: Given | Sequence[Given] | None = None
    allow_opaque: bool = False
    input_shape: tuple[int, ...] | None = None


def read_bytes(path: Path, limit: int = MAX_FILE) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        InputError: if there is no such file, it is a folder or device, too large, or cannot be read.
    """
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise InputError(f"{path}: this is a folder; give one file")
        if not stat.S_ISREG(info.st_mode):
            raise InputError(f"{path}: this is no regular file")
        if info.st_size > limit:
            raise InputError(f"{path}: {info.st_size:,} bytes; at most {limit:,} are read")
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise InputError(f"{path}: no such file") from exc
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise exc if isinstance(exc, InputError) else InputError(f"{path}: cannot be read: {reason}") from exc


def sha256(data: bytes) -> str:
    """Hash of a file's bytes, in hexadecimal.

    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def atomic_write(path: Path, data: bytes, force: bool = False) -> None:
    """Write a whole file or nothing: a temporary file in the same folder, then a rename.

    Raises:
        InputError: if the file exists and `force` is false, or the folder cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; give a file name")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp")
    except (OSError, ValueError) as exc:
        raise InputError(f"{path}: cannot be written: {getattr(exc, 'strerror', None) or exc}") from exc
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, _mode_of(path))
        if force:
            os.replace(name, path)
        else:
            _move_new(name, path)
    except OSError as exc:
        raise InputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        if os.path.exists(name):
            os.unlink(name)


def _mode_of(path: Path) -> int:
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _move_new(name: str, path: Path) -> None:
    """Give a finished file its name unless the name is taken; a hard link does both in one step where it exists."""
    taken = InputError(f"{path}: exists; use --force (force=True) to overwrite it")
    if path.exists() or path.is_symlink():
        raise taken
    try:
        os.link(name, path)
    except FileExistsError as exc:
        raise taken from exc
    except OSError:
        os.replace(name, path)


class Archive:
    """A zip archive in memory whose entries are read within caps; nothing is ever unpacked to disk.

    Args:
        data: the bytes of the archive.

    Raises:
        FormatError: if it is no zip archive, names leave the folder or repeat, entries are encrypted or compressed
            in an unusual way, or their declared sizes are beyond `MAX_EXPANSION`.
    """

    def __init__(self, data: bytes) -> None:
        with zip_errors():
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            files = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        self.entries = {info.filename: info for info in files}
        if min((info.header_offset for info in files), default=0) != 0:
            # zipfile would read the end of a truncated archive of archives as the inner one
            raise FormatError("damaged zip archive (it does not begin with its first entry)")
        if len(self.entries) != len(files):
            raise FormatError("the archive holds two entries of the same name")
        for name, info in self.entries.items():
            self._check(name, info)
        total = sum(info.file_size for info in self.entries.values())
        limit = max(FREE_EXPANSION, MAX_EXPANSION * len(data))
        if total > limit:
            raise FormatError(
                f"{len(data):,} bytes of archive declare {total:,} bytes of content; at most {limit:,} are read"
            )

    @staticmethod
    def _check(name: str, info: zipfile.ZipInfo) -> None:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0] or "\x00" in name:
            raise FormatError(f"entry {name!r} leaves the archive's folder")
        if info.flag_bits & 1:
            raise FormatError(f"entry {name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(
                f"entry {name!r} has compression method {info.compress_type}; expected stored or deflated"
            )

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def read(self, name: str) -> bytes:
        """The content of one entry; never more than it declares.

        Raises:
            FormatError: if there is none, or it is damaged.
        """
        if name not in self.entries:
            raise FormatError(f"the archive has no entry {name!r}")
        info = self.entries[name]
        with zip_errors(), self._zip.open(info) as stream:
            out = stream.read(info.file_size + 1)
        if len(out) != info.file_size:
            raise FormatError(f"entry {name!r} holds {len(out)} bytes but declares {info.file_size}")
        return out


@contextmanager
def zip_errors() -> Iterator[None]:
    """Turn what zipfile raises for damaged archives into `FormatError`."""
    try:
        yield
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        IndexError,
        OverflowError,
    ) as exc:
        raise FormatError(f"damaged zip archive ({one_line(exc)})") from exc


def zip_bytes(entries: Mapping[str, bytes], compress: bool = False) -> bytes:
    """A zip archive with fixed time stamps, so that the same content gives the same bytes."""
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return out.getvalue()


def one_line(error: BaseException | str) -> str:
    """The message of a foreign error as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def read_json(text: str | bytes, what: str) -> Any:
    """JSON of a file that is not trusted; repeated keys are refused.

    Raises:
        FormatError: if it is malformed.

    >>> read_json('{"a": 1}', "header")
    {'a': 1}
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise FormatError(f"{what} is no valid JSON ({one_line(exc)})") from exc


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} appears twice")
    return out


def source(
    path: Path, data: bytes, kind: str, tensors: Mapping[str, npt.NDArray[Any]], dtype: npt.DTypeLike, **rest: Any
) -> Source:
    """The provenance of a network whose own parameters are `tensors`."""
    return Source(
        path=str(path),
        format=kind,
        sha256=sha256(data),
        dtype=np.dtype(dtype).name,
        parameter_count=sum(int(a.size) for a in tensors.values()),
        tensors=tuple((name, tuple(a.shape)) for name, a in tensors.items()),
        **rest,
    )


def native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers in the machine's byte order, in an array of its own."""
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def shapes(tensors: Mapping[str, Any], limit: int = 6) -> str:
    """Names and shapes in words, shortened: "a (2, 3), b (2,) and 4 more"."""
    shown = [f"{name} {tuple(getattr(value, 'shape', ()))}" for name, value in list(tensors.items())[:limit]]
    more = len(tensors) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def arrays(layer: Layer, dtype: npt.DTypeLike, *, own: bool = False) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A layer's weight and bias in a float dtype, exactly.

    Args:
        layer: the layer.
        dtype: target dtype.
        own: take the file's own parameters, without what its frame folded in.

    Raises:
        InputError: if a number is no value of the dtype; nothing is ever rounded here.
    """
    target = np.dtype(dtype)
    out = []
    for name, array in zip(("weight", "bias"), layer.own if own else (layer.weight, layer.bias), strict=True):
        fits = rationals.representable(array, target)
        if not fits.all():
            where = tuple(int(i) for i in np.argwhere(~fits)[0])
            raise InputError(
                f"{layer.name}: {name}{list(where)} = {_short(array[where])} is no {target.name}; reduce "
                "to that dtype, choose a wider one (--dtype float64), or save as .safetensors, which holds rationals"
            )
        # exact by the check above, so casting rounds nothing
        out.append(np.asarray(rationals.rounded(array, target)))
    return out[0], out[1]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"about {float(value)!r}"


def replacements(before: Network, after: Network, dtypes: Mapping[str, npt.DTypeLike]) -> dict[str, npt.NDArray[Any]]:
    """New values for the named tensors of a file, by tensor name, (n_out, n_in) for weights.

    Args:
        before: the network as read from the file.
        after: the network to be written; as many layers.
        dtypes: dtype of each tensor to be written.

    Raises:
        UnsupportedError: if the file has no tensor for a bias that is not zero, or a tensor serves several layers.
        InputError: if a number does not fit its dtype.
    """
    out: dict[str, npt.NDArray[Any]] = {}
    for old, new in zip(before.layers, after.layers, strict=True):
        if not old.weight_name or old.folded:
            raise UnsupportedError(f"{old.name} is not stored as it is in the file; save in a format of your choice")
        if not old.bias_name and new.bias.any():
            raise UnsupportedError(f"{old.name} has no bias in the file but needs one now; save under another format")
        named = (old.weight_name, old.bias_name)
        for name, place in zip(named, (0, 1), strict=True):
            if not name:
                continue
            if name in out:
                raise UnsupportedError(f"tensor {name} serves several layers of the file")
            out[name] = arrays(new, dtypes[name], own=True)[place]
    return out
