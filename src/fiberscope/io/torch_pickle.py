"""The pickles of torch files, read by a machine that knows tensors and plain containers and nothing else.

A pickle is a program. Here each opcode is looked up in a table of those that build dicts, lists, tuples, numbers and
texts; names of functions are compared with the few that torch uses for tensors and are never imported or called.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.errors import FormatError

STORAGES: dict[str, tuple[str, int]] = {
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}
"""torch's storage classes: dtype and bytes per item."""

MAX_RANK = 16
_REFUSED = "nothing was executed; save with torch.save(model.state_dict(), path)"


@dataclass(eq=False)
class Storage:
    """A block of numbers that tensors are views of; `fill` gives it its bytes.

    Args:
        kind: name of torch's storage class.
        key: its name in the file.
        count: number of items it declares.
    """

    kind: str
    key: str
    count: int
    values: npt.NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Bytes it declares."""
        return self.count * STORAGES[self.kind][1]

    def fill(self, data: bytes | memoryview, big_endian: bool = False) -> None:
        """Take the bytes; bfloat16 is widened to float32, exactly.

        Raises:
            FormatError: if there are more or fewer than declared.
        """
        if len(data) != self.size:
            raise FormatError(f"storage {self.key!r} declares {self.count:,} items but holds {len(data):,} bytes")
        name = STORAGES[self.kind][0]
        order: Literal["<", ">"] = ">" if big_endian else "<"
        if name == "bfloat16":
            self.values = (np.frombuffer(data, f"{order}u2").astype(np.uint32) << 16).view(np.float32)
        else:
            dtype = np.dtype(name).newbyteorder(order)
            self.values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A strided view of a storage, checked to lie inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Name of torch's dtype."""
        return STORAGES[self.storage.kind][0]

    @property
    def count(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    def array(self) -> npt.NDArray[Any]:
        """The entries as a read-only view.

        Raises:
            FormatError: if the file has no data for the storage.
        """
        values = self.storage.values
        if values is None:
            raise FormatError(f"the file has no data for storage {self.storage.key!r}")
        steps = tuple(s * values.itemsize for s in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False)


@dataclass(frozen=True)
class _Name:
    """A global the pickle names; kept as text."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Mark:
    """The position a MARK opcode remembers."""


def loads(data: bytes, start: int = 0) -> tuple[Any, list[Storage], int]:
    """Read one pickle.

    Args:
        data: bytes of a file.
        start: where the pickle begins.

    Returns:
        (value, storages, end): dicts, lists, tuples, numbers and texts with `Tensor` leaves; the storages they refer
        to, still empty; and the position after the pickle.

    Raises:
        FormatError: if it is malformed, or asks for anything but tensors and containers; the global is named.

    >>> import pickle
    >>> loads(pickle.dumps({"a": [1, 2.5, None]}))[0]
    {'a': [1, 2.5, None]}
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
        value = machine.result()
    except FormatError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError, UnicodeError) as exc:
        raise FormatError("the pickle is damaged or truncated") from exc
    return value, list(machine.storages.values()), stream.tell()


class _Machine:
    """The pickle machine: a stack, a memo, and a table of harmless opcodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self._constants = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
        self._makers: dict[str, Callable[[], Any]] = {
            "EMPTY_DICT": dict,
            "EMPTY_LIST": list,
            "EMPTY_TUPLE": tuple,
            "MARK": _Mark,
        }

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise FormatError("the pickle is damaged or truncated")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in self._constants:
            self.stack.append(self._constants[name])
        elif name in self._makers:
            self.stack.append(self._makers[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("PROTO", "FRAME", "STOP"):
            pass
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self._name(module, attribute)
        elif name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
            self._name(str(module), str(attribute))
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        else:
            raise FormatError(f"the pickle uses {name}, which no state dict needs; {_REFUSED}")

    def _name(self, module: str, attribute: str) -> None:
        name = _Name(module, attribute)
        if str(name) not in _CALLS and not (module == "torch" and attribute in STORAGES):
            raise FormatError(f"the pickle asks for {name}; {_REFUSED}")
        self.stack.append(name)

    def marked(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count or any(isinstance(v, _Mark) for v in items):
            raise IndexError("too few items")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("no list")
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple) or str(function) not in _CALLS:
            raise TypeError("no call")
        self.stack.append(_CALLS[str(function)](*arguments))

    def build(self) -> None:
        """Keep the `_metadata` that torch puts on state dicts; drop any other state."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, OrderedDict):
            raise FormatError(f"the pickle sets the state of a {type(target).__name__}; {_REFUSED}")
        if isinstance(state, dict) and isinstance(state.get("_metadata"), dict):
            target._metadata = state["_metadata"]  # type: ignore[attr-defined]

    def persistent(self) -> None:
        token = self.stack.pop()
        if not isinstance(token, tuple) or len(token) not in (5, 6) or token[0] != "storage":
            raise FormatError("the pickle refers to something that is no tensor storage")
        kind, key, count = token[1], token[2], token[4]
        if len(token) == 6 and token[5] is not None:
            raise FormatError("the file uses storage views of an early torch; load and save it again")
        if not isinstance(kind, _Name) or kind.name not in STORAGES or not isinstance(key, str) or not _is_count(count):
            raise FormatError("the pickle has a malformed storage")
        known = self.storages.setdefault(key, Storage(kind.name, key, count))
        if (known.kind, known.count) != (kind.name, count):
            raise FormatError(f"storage {key!r} is declared twice, differently")
        self.stack.append(known)

    def put_list(self) -> None:
        self.stack.append(self.marked())

    def put_tuple(self) -> None:
        self.stack.append(tuple(self.marked()))

    def put_dict(self) -> None:
        items = self.marked()
        self.stack.append({})
        self.update(items)

    def append(self) -> None:
        self.extend([self.stack.pop()])

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])


_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)

_ACTIONS: dict[str, Callable[[_Machine], Any]] = {
    "LIST": _Machine.put_list,
    "TUPLE": _Machine.put_tuple,
    "DICT": _Machine.put_dict,
    "TUPLE1": lambda m: m.tuple_of(1),
    "TUPLE2": lambda m: m.tuple_of(2),
    "TUPLE3": lambda m: m.tuple_of(3),
    "APPEND": _Machine.append,
    "APPENDS": lambda m: m.extend(m.marked()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda m: m.update(m.marked()),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "POP": lambda m: m.stack.pop(),
}


def _key(key: Hashable) -> Hashable:
    # tuples as keys could be nested so that hashing them never ends
    if not isinstance(key, str | int | float | None):
        raise FormatError(f"the pickle has a dict key of type {type(key).__name__}; expected texts or numbers")
    return key


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise FormatError("the pickle has a malformed tensor")
    if not all(_is_count(v) for v in (offset, *size, *stride)) or len(size) != len(stride) or len(size) > MAX_RANK:
        raise FormatError("a tensor has sizes, strides or an offset that are no numbers >= 0")
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else 0
    if last >= max(storage.count, 1) or count > storage.count:
        raise FormatError(
            f"a tensor of shape {size}, strides {stride}, offset {offset} reaches outside its storage of "
            f"{storage.count:,} items"
        )
    return Tensor(storage, min(offset, storage.count), size, stride)


def _ordered(*pairs: Any) -> OrderedDict[Any, Any]:
    out: OrderedDict[Any, Any] = OrderedDict()
    for pair in pairs[0] if pairs else ():
        key, value = pair
        out[_key(key)] = value
    return out


def _parameter(data: Any, *_rest: Any) -> Any:
    if not isinstance(data, Tensor):
        raise FormatError("the pickle has a malformed parameter")
    return data


def _size(*values: Any) -> tuple[Any, ...]:
    return tuple(values[0]) if values and isinstance(values[0], tuple | list) else ()


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
}
