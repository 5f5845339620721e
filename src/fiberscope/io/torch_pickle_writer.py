"""Pickles of torch files, written without torch: plain containers with NumPy arrays as leaves."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import FormatError
from fiberscope.io.torch_pickle import STORAGES, Tensor

_MAX_DEPTH = 100


class Writer:
    """The inverse of `loads`: a value to a pickle, and the bytes of its storages in `storages`.

    >>> from fiberscope.io.torch_pickle import loads
    >>> writer = Writer()
    >>> loads(writer.dumps({"a": 1, "b": (2.5, None)}))[0]
    {'a': 1, 'b': (2.5, None)}
    """

    _KINDS = {name: kind for kind, (name, _) in STORAGES.items()}

    def __init__(self) -> None:
        self.storages: list[bytes] = []

    def dumps(self, value: Any) -> bytes:
        """A pickle of protocol 2.

        Raises:
            FormatError: if a value is no container, number, text, array or `Tensor`.
        """
        return b"\x80\x02" + b"".join(self._encode(value, 0)) + b"."

    def _encode(self, value: Any, depth: int) -> list[bytes]:
        if depth > _MAX_DEPTH:
            raise FormatError("the file's containers are nested too deeply")
        if value is None or isinstance(value, bool):
            return [{None: b"N", True: b"\x88", False: b"\x89"}[value]]
        if isinstance(value, int):
            return [_integer(value)]
        if isinstance(value, float):
            return [b"G", np.array(value, ">f8").tobytes()]
        if isinstance(value, str):
            return [_text(value)]
        if isinstance(value, bytes):
            raise FormatError("the file holds raw bytes beside its tensors")
        if isinstance(value, Tensor | np.ndarray):
            return self._tensor(value, depth)
        if isinstance(value, dict):
            return self._mapping(value, depth)
        if isinstance(value, list):
            return [b"](", *(b for v in value for b in self._encode(v, depth + 1)), b"e"]
        if isinstance(value, tuple):
            return [b"(", *(b for v in value for b in self._encode(v, depth + 1)), b"t"]
        raise FormatError(f"cannot write a {type(value).__name__}")

    def _mapping(self, value: dict[Any, Any], depth: int) -> list[bytes]:
        ordered = isinstance(value, OrderedDict)
        out = [b"ccollections\nOrderedDict\n)R(" if ordered else b"}("]
        for key, item in value.items():
            out += [*self._encode(key, depth + 1), *self._encode(item, depth + 1)]
        out.append(b"u")
        metadata = getattr(value, "_metadata", None)
        if ordered and metadata is not None:
            out += [*self._encode({"_metadata": metadata}, depth + 1), b"b"]
        return out

    def _tensor(self, value: Tensor | npt.NDArray[Any], depth: int) -> list[bytes]:
        narrow = isinstance(value, Tensor) and value.dtype == "bfloat16"
        array = np.ascontiguousarray(value.array() if isinstance(value, Tensor) else value)
        name = value.dtype if isinstance(value, Tensor) else array.dtype.name
        data = (array.view(np.uint32) >> 16).astype("<u2") if narrow else array.astype(array.dtype.newbyteorder("<"))
        self.storages.append(data.tobytes())
        strides = [1] * array.ndim
        for axis in range(array.ndim - 2, -1, -1):
            strides[axis] = strides[axis + 1] * array.shape[axis + 1]
        shape = tuple(int(n) for n in (value.shape if isinstance(value, Tensor) else array.shape))
        parts = [
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            f"ctorch\n{self._KINDS[name]}\n".encode(),
            _text(str(len(self.storages) - 1)),
            _text("cpu"),
            _integer(array.size),
            b"tQ",
            _integer(0),
            *self._encode(shape, depth + 1),
            *self._encode(tuple(strides), depth + 1),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
        return parts


def _integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    size = value.bit_length() // 8 + 1
    if size > 255:
        raise FormatError("the file holds an integer of more than 255 bytes")
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data
