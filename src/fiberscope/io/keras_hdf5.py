"""HDF5 files in a process of their own: the library is C and crashes on some damaged files, ours must not.

This file is also a program and then imports nothing of fiberscope: it takes a message on stdin and gives one on
stdout. A message is a safetensors file; `__metadata__` holds texts, tensors hold datasets by path. The answer of the
child is not trusted and parsed by `fiberscope.io.safetensors`.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[Any]

MAX_DATASETS = 10_000
_MAX_DEPTH = 8
_TIMEOUT = 300.0
_CODES = {"f2": "F16", "f4": "F32", "f8": "F64", "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "i1": "I8",
          "i2": "I16", "i4": "I32", "i8": "I64"}  # fmt: skip
_DTYPES = {code: kind for kind, code in _CODES.items()}


def message(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """Tensors and texts as bytes."""
    header: dict[str, Any] = {"__metadata__": dict(texts)}
    blocks, at = [], 0
    for name, value in tensors.items():
        block = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()
        shape = [int(n) for n in value.shape]
        header[name] = {"dtype": _CODES[value.dtype.str[1:]], "shape": shape, "data_offsets": [at, at + len(block)]}
        blocks.append(block)
        at += len(block)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(blocks)


def _parsed(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Inverse of `message`, for what the parent process says."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    texts = header.pop("__metadata__")
    out = {}
    for name, row in header.items():
        begin, end = row["data_offsets"]
        out[name] = np.frombuffer(data[start + begin : start + end], "<" + _DTYPES[row["dtype"]]).reshape(row["shape"])
    return out, texts


def _datasets(group: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All datasets below a group; links that lead out of its tree are an error."""
    import h5py

    if depth > _MAX_DEPTH:
        raise ValueError("its groups are nested too deeply")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{group.name.rstrip('/')}/{name} is a link that leaves the file's own tree")
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield item.name.lstrip("/"), item
        elif isinstance(item, h5py.Group):
            yield from _datasets(item, depth + 1)


def _numbers(path: str, item: Any, left: int) -> Tensor:
    if item.is_virtual or item.external:
        raise ValueError(f"dataset {path} keeps its numbers in another file")
    if item.dtype.str[1:] not in _CODES or len(item.shape) > 8:
        raise ValueError(f"dataset {path} holds {item.dtype} of shape {item.shape}; expected floats")
    if int(item.size) * item.dtype.itemsize > left:
        raise ValueError(f"dataset {path} declares {item.size:,} entries, far more than the file can hold")
    return np.asarray(item[()])


def _read(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    """All weights of a file, and its model configuration."""
    import h5py

    left, out, answer = int(texts["limit"]), {}, {}
    with h5py.File(io.BytesIO(tensors["file"].tobytes()), "r") as file:
        config = file.attrs.get("model_config")
        if isinstance(config, bytes):
            config = config.decode("utf-8")
        if config is not None and not isinstance(config, str):
            raise ValueError("its model_config is no text")
        if config is not None:
            answer["model_config"] = config
        for top in ("model_weights", "layers"):
            if top not in file:
                continue
            if not isinstance(file.get(top, getlink=True), h5py.HardLink):
                raise ValueError(f"/{top} is a link that leaves the file's own tree")
            for path, item in _datasets(file[top]):
                out[path] = _numbers(path, item, left)
                left -= out[path].nbytes
                if len(out) > MAX_DATASETS:
                    raise ValueError(f"has more than {MAX_DATASETS:,} datasets")
    return message(out, answer)


def _rewrite(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    """The file with other datasets and another model configuration, without the optimiser's state."""
    import h5py

    stream = io.BytesIO(tensors["file"].tobytes())
    with h5py.File(stream, "r+") as file:
        as_bytes = isinstance(file.attrs["model_config"], bytes)
        file.attrs["model_config"] = texts["model_config"].encode() if as_bytes else texts["model_config"]
        for name, value in tensors.items():
            if name != "file":
                del file[name]
                file.create_dataset(name, data=value)
        if "optimizer_weights" in file:
            del file["optimizer_weights"]
    return message({"file": np.frombuffer(stream.getvalue(), np.uint8)}, {})


def _limit_memory(size: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return  # Windows, or a machine with limits of its own


def _answer(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    """What the child says to a message."""
    try:
        return (_rewrite if texts["task"] == "rewrite" else _read)(texts, tensors)
    except MemoryError:
        return message({}, {"error": "needs more memory than a file of its size should"})
    except Exception as exc:  # whatever the library makes of a damaged file is an answer
        return message({}, {"error" if type(exc) is ValueError else "damaged": " ".join(str(exc).split())[:300]})


def _main() -> None:
    """Answer one message."""
    data = sys.stdin.buffer.read()
    tensors, texts = _parsed(data)
    _limit_memory((4 << 30) + 8 * (len(data) + int(texts.get("limit", "0"))))
    sys.stdout.buffer.write(_answer(texts, tensors))


def ask(task: str, data: bytes, texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    """Run a task on the bytes of a file in a child process; returns its answer.

    Raises:
        FormatError: if the child crashes, that is, the HDF5 library does.
        InputError: if no child can be started.
    """
    import os
    import subprocess

    from fiberscope.errors import FormatError, InputError

    paths = os.pathsep.join(p for p in sys.path if p)
    env = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "HDF5_USE_FILE_LOCKING": "FALSE"}
    question = message({"file": np.frombuffer(data, np.uint8), **tensors}, {"task": task, **texts})
    # -P: without it this folder, which has a numpy.py, would come first on the path
    command = [sys.executable, "-P", os.path.abspath(__file__)]
    try:
        done = subprocess.run(command, input=question, capture_output=True, env=env, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as exc:
        raise FormatError("damaged HDF5 file (the library did not come to an end)") from exc
    except OSError as exc:
        raise InputError(f"cannot start Python to read the HDF5 file: {exc.strerror or exc}") from exc
    if done.returncode != 0:
        raise FormatError("damaged HDF5 file (the HDF5 library crashed on it)")
    return done.stdout


if __name__ == "__main__":
    _main()
