"""A question that was put to the program, read back from its result, and commands that take it up."""

from __future__ import annotations

import math
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fiberscope.pages.data import Data, base_name, listing, mapping, whole

_WRITTEN = (".onnx", ".safetensors", ".pt", ".pth", ".ckpt", ".npz", ".nnet", ".h5", ".hdf5")
"""Endings of files into which a network can be put; the others become ONNX."""
_ON_DOMAIN = frozenset({"inspect", "reduce", "equal", "distance", "canonical", "orbit", "conserved"})
_INTERVAL = re.compile(r"\[[^\]]*\]")

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A command that follows.

    Args:
        words: of the command, after `fiberscope`.
        why: what it does about the result, in a few words.
    """

    words: tuple[str, ...]
    why: str

    @property
    def line(self) -> str:
        """The command as it is typed.

        >>> Step(("inspect", "my net.onnx"), "").line
        "fiberscope inspect 'my net.onnx'"
        """
        return shlex.join(["fiberscope", *self.words])


@dataclass(frozen=True)
class Asked:
    """What a result was asked for with: its command, files and options.

    Args:
        command: its words, as in "meanfield angle".
        files: the arguments.
        options: by their long names; a flag is True.
        data: of the result.
    """

    command: str
    files: tuple[str, ...]
    options: Options
    data: Data

    @property
    def file(self) -> str:
        """The first argument, or nothing."""
        return self.files[0] if self.files else ""

    def on(self, command: str, *words: str, why: str) -> Step:
        """A command about the same networks on the same domain."""
        shared = ["--part", "--activation", "--allow-opaque", *(["--domain"] if command in _ON_DOMAIN else [])]
        kept = {key: self.options[key] for key in shared if key in self.options and key not in words}
        return Step((command, *words, *spelled(kept)), why)

    def about(self, command: str, *words: str, why: str) -> Step:
        """A command about a file that was written, which holds one network and may not say its activation."""
        return self.without("--part", "--allow-opaque").on(command, *words, why=why)

    def again(self, *words: str, why: str) -> Step:
        """The same command with other or further options."""
        kept = {key: value for key, value in self.options.items() if key not in words}
        return Step((*self.command.split(), *self.files, *spelled(kept), *words), why)

    def without(self, *names: str) -> Asked:
        """The same, less some options."""
        kept = {key: value for key, value in self.options.items() if key not in names}
        return Asked(self.command, self.files, kept, self.data)

    def beside(self, word: str, ending: str | None = None) -> str:
        """A name in the working folder after the first file: "net-small.onnx"."""
        stem, own = posixpath.splitext(base_name(self.file))
        name = f"{stem}-{word}{ending or (own if own.lower() in _WRITTEN else '.onnx')}"
        return f"./{name}" if name.startswith("-") else name


def spelled(options: Options) -> Iterator[str]:
    """Options as words.

    >>> list(spelled({"--no-bias": True, "--widths": "2,3", "--frozen": ["b1", "b2"]}))
    ['--no-bias', '--widths', '2,3', '--frozen', 'b1', '--frozen', 'b2']
    """
    for name, value in options.items():
        if value is True:
            yield name
        else:
            for item in value if isinstance(value, list | tuple) else [value]:
                yield from (name, f"{item:.0f}" if isinstance(item, float) and item.is_integer() else str(item))


_SCHEMA = re.compile(r"fiberscope/([a-z-]+)/\d+")


def asked_of(data: Data) -> Asked | None:
    """The question, from what the command recorded, else from the network the result names."""
    found, given = _SCHEMA.fullmatch(str(data.get("schema") or "")), mapping(data.get("given"))
    reduced = "widths_before" in data
    command = found[1] if found else "reduce" if reduced else "inspect" if mapping(data.get("network")) else ""
    command = re.sub("^meanfield-", "meanfield ", command)
    if given:
        files = tuple(path_word(name) for name in listing(given.get("arguments")))
        return Asked(command, files, mapping(given.get("options")), data)
    network = mapping(data.get("network")) or mapping(data.get("source"))
    options = _recorded(data, network)
    if not network.get("path") or options is None:
        return None
    return Asked(command, (path_word(network["path"]),), options, data)


def path_word(name: object) -> str:
    """The argument; one that would read as an option is named from its folder."""
    return f"./{name}" if str(name).startswith("-") else str(name)


def _recorded(data: Data, network: Data) -> Options | None:
    """Part and domain of a result of Python as options; None where the domain cannot be written in a word."""
    options = {"--part": str(network["part"])} if network.get("part") else {}
    box = mapping(data.get("domain")) or mapping(mapping(data.get("reduction")).get("domain"))
    origin = str(box.get("origin") or "")
    ends = [*listing(box.get("lower")), *listing(box.get("upper"))]
    if not box or origin == "everywhere" or (ends and all(str(end).endswith("inf") for end in ends)):
        return options
    return {**options, "--domain": origin} if origin in ("file", "nonnegative") or _INTERVAL.fullmatch(origin) else None


def number_of(value: Any) -> float:
    """A number of the data, exact ones as floats; nan for all else."""
    number = value.get("float") if isinstance(value, Mapping) else value
    return float(number) if isinstance(number, int | float) else math.nan


def size_of(widths: list[Any]) -> int:
    """Parameters of a chain of these widths.

    >>> size_of([2, 3, 1])
    13
    """
    return sum((whole(a) + 1) * whole(b) for a, b in zip(widths, widths[1:], strict=False))
