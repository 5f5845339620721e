"""The certificate's JSON: reading with bounds, strict structure, writing."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from fiberscope.errors import CertificateError
from fiberscope.results import Result, outward

SCHEMA = "fiberscope/certificate/1"
SIZE_CAP = 512 * 2**20
"""Largest certificate that is read, in bytes."""
DIGIT_CAP = 4300
"""Most decimal digits of a numerator or denominator."""
DEPTH_CAP = 16
DTYPES = ("float16", "float32", "float64")
METHODS = ("interval", "backward")
_TITLES = {"reduction": "a reduction", "equality": "an equality", "cases": "an equality by cases"}

_HASH = re.compile(r"[0-9a-f]{64}")
_RATIONAL = re.compile(r"(-?[0-9]+)(?:/([0-9]+))?")

Rule = Callable[[Any, str], None]


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Result):
    """The claim that two networks are equal on a domain, or differ by at most a bound, as a list of moves.

    Args:
        data: the JSON document; it is checked and copied.

    Raises:
        CertificateError: if a key is missing or unknown, or a value has the wrong type.

    >>> Certificate.from_json("{}")
    Traceback (most recent call last):
        ...
    fiberscope.errors.CertificateError: certificate: key "schema" is missing
    """

    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the structure and keep a copy."""
        plain = _plain(self.data, 0)
        _document(plain)
        object.__setattr__(self, "data", plain)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same document."""
        return self.data == other.data if isinstance(other, Certificate) else NotImplemented

    def __hash__(self) -> int:
        """Of what it is about."""
        return hash((self.data["kind"], self.data["source"]["digest"], self.data["target"]["digest"]))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Check the structure and keep a copy.

        Raises:
            CertificateError: if a key is missing or unknown, or a value has the wrong type.
        """
        return cls(data)

    @classmethod
    def from_json(cls, text: str | bytes) -> Certificate:
        """Parse a JSON document.

        Raises:
            CertificateError: if it is no JSON, has duplicate keys, or is no certificate.
        """
        if not isinstance(text, str | bytes):
            raise CertificateError(f"certificate is of type {type(text).__name__}; expected JSON text")
        if len(text) > SIZE_CAP:
            raise CertificateError(f"certificate has {len(text)} bytes; at most {SIZE_CAP} are read")
        try:
            data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except CertificateError:
            raise
        except (ValueError, RecursionError) as exc:
            reason = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
            raise CertificateError(f"certificate is not JSON: {reason}") from exc
        if not isinstance(data, dict):
            raise CertificateError(f"certificate is a JSON {_kind(data)}; expected an object")
        return cls.from_dict(data)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Certificate:
        """Read a file of at most 512 MB.

        Raises:
            CertificateError: if it cannot be read or is no certificate; the file is named.
        """
        _require_path(path)
        try:
            with open(path, "rb") as file:
                content = file.read(SIZE_CAP + 1)
        except OSError as exc:
            raise CertificateError(f"{os.fspath(path)}: cannot be read ({exc.strerror or exc})") from exc
        try:
            return cls.from_json(content)
        except CertificateError as exc:
            raise CertificateError(f"{os.fspath(path)}: {exc}") from exc

    def write(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write atomically.

        Args:
            path: the new file.
            force: whether an existing file may be replaced.

        Raises:
            CertificateError: if the file exists and `force` is not given, or cannot be written.
        """
        _require_path(path)
        goal = Path(os.fsdecode(path))
        if goal.exists() and not force:
            raise CertificateError(f"{goal}: exists already; choose another name or --force")
        try:
            descriptor, draft = tempfile.mkstemp(dir=goal.parent, prefix=f".{goal.name}.")
        except OSError as exc:
            raise CertificateError(f"{goal}: cannot be written ({exc.strerror or exc})") from exc
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self.to_json())
            os.chmod(draft, 0o644)
            os.replace(draft, goal)
        except OSError as exc:
            Path(draft).unlink(missing_ok=True)
            raise CertificateError(f"{goal}: cannot be written ({exc.strerror or exc})") from exc

    def to_dict(self) -> dict[str, Any]:
        """A copy of the document."""
        copy: dict[str, Any] = _plain(self.data, 0)
        return copy

    def to_json(self, *, indent: int | None = None) -> str:
        """The document as JSON; exact numbers are strings, so nothing is lost."""
        return json.dumps(self.data, indent=indent, allow_nan=False)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The moves in order, of an equality those made on the source; empty for other kinds."""
        steps: list[dict[str, Any]] = self.data.get("steps", [])
        return steps

    @property
    def back(self) -> list[dict[str, Any]]:
        """The moves made on the target of an equality, which lead to the same network as `steps`."""
        back: list[dict[str, Any]] = self.data.get("back", [])
        return back

    def __str__(self) -> str:
        """One line: what is claimed, and in how many moves or cases."""
        title = f"certificate of {_TITLES[self.data['kind']]}"
        if "nodes" in self.data:
            count = len(self.data["nodes"])
            return f"{title}: equal, {count} node{'s' * (count != 1)}"
        bound, count = self.data.get("bound"), len(self.steps) + len(self.back)
        claim = "equal"
        if bound is not None:
            constant, slope = (outward(bound[name], up=True, digits=3) for name in ("constant", "slope"))
            claim = f"|f - g| <= {constant} + {slope} |x|"
        return f"{title}: {claim}, {count} move{'s' * (count != 1)}"

    __repr__ = __str__


def _require_path(path: object) -> None:
    if isinstance(path, bool) or not isinstance(path, str | bytes | os.PathLike):
        raise CertificateError(f"path {path!r} is of type {type(path).__name__}; give the name of a file")


def rational(text: str) -> Fraction:
    """Read "p/q" or "p"; anything else was refused by `Certificate.from_dict`.

    >>> rational("-3/4")
    Fraction(-3, 4)
    """
    numerator, _, denominator = text.partition("/")
    return Fraction(int(numerator), int(denominator or 1))


# ---- JSON


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CertificateError(f"certificate is not JSON: key {_shown(twice)} appears twice in one object")
    return out


def _no_constant(name: str) -> Any:
    raise CertificateError(f"certificate is not JSON: {name} is not a number")


def _plain(value: Any, depth: int) -> Any:
    """A deep copy out of JSON types only."""
    if depth > DEPTH_CAP:
        raise CertificateError("certificate is nested too deeply")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Fraction):
        return float(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise CertificateError(f"certificate: key {_shown(name)} is no string")
        return {name: _plain(entry, depth + 1) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, depth + 1) for entry in value]
    raise CertificateError(f"certificate: a value of type {type(value).__name__}; expected JSON")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, str | int | float | None) else _kind(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


# ---- structure


def _fail(where: str, value: Any, expected: str) -> CertificateError:
    return CertificateError(f"{where} is {_shown(value)}; expected {expected}")


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise _fail(where, value, "a string")


def _optional_text(value: Any, where: str) -> None:
    if value is not None and not isinstance(value, str):
        raise _fail(where, value, "a string or null")


def _hash(value: Any, where: str) -> None:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise _fail(where, value, "64 hexadecimal digits")


def _optional_hash(value: Any, where: str) -> None:
    if value is not None:
        _hash(value, where)


def _index(value: Any, where: str) -> None:
    if type(value) is not int or value < 0:
        raise _fail(where, value, "an index >= 0")


def _rational(value: Any, where: str) -> None:
    match = _RATIONAL.fullmatch(value) if isinstance(value, str) and len(value) <= 2 * DIGIT_CAP + 2 else None
    if match is None or max(map(len, match.groups(""))) > DIGIT_CAP:
        raise _fail(where, value, f'a rational "p/q" of at most {DIGIT_CAP} digits')
    if match[2] is not None and not match[2].strip("0"):
        raise _fail(where, value, "a denominator other than 0")


def _number(value: Any, where: str) -> None:
    if type(value) not in (int, float) or not _finite(value) or value < 0:
        raise _fail(where, value, "a finite number >= 0")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _end(value: Any, where: str) -> None:
    if value not in ("inf", "-inf") and (type(value) not in (int, float) or not _finite(value)):
        raise _fail(where, value, 'a finite number, "inf" or "-inf"')
    if type(value) is int and int(float(value)) != value:
        raise _fail(where, value, "a number that is a float64")


def _share(value: Any, where: str) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _fail(where, value, "a slope in [0, 1]")


def _choice(*names: str) -> Rule:
    def rule(value: Any, where: str) -> None:
        if value not in names or not isinstance(value, str):
            raise _fail(where, value, " or ".join(f'"{name}"' for name in names))

    return rule


def _many(entry: Rule, *, some: bool = False) -> Rule:
    """An array of entries; `some`: not empty."""

    def rule(value: Any, where: str) -> None:
        if not isinstance(value, list) or (some and not value):
            raise _fail(where, value if value != [] else "", "a nonempty array" if some else "an array")
        for k, item in enumerate(value):
            entry(item, f"{where}[{k}]")

    return rule


def _indices(value: Any, where: str) -> None:
    _many(_index, some=True)(value, where)
    _distinct(value, where)


def _distinct(value: Any, where: str) -> None:
    _many(_index)(value, where)
    if len(set(value)) != len(value):
        seen: set[int] = set()
        twice = next(i for i in value if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise CertificateError(f"{where} names {twice} twice")


def _pair(value: Any, where: str) -> None:
    if not isinstance(value, list) or len(value) != 3:
        raise _fail(where, value, 'an array [i, j, "e"]')
    _index(value[0], f"{where}[0]")
    _index(value[1], f"{where}[1]")
    _rational(value[2], f"{where}[2]")
    if not value[2].partition("/")[0].strip("-0"):
        raise _fail(f"{where}[2]", value[2], "a factor other than 0")


def _object(value: Any, where: str, required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> None:
    if not isinstance(value, dict):
        raise _fail(where, value, "an object")
    for name in required:
        if name not in value:
            raise CertificateError(f"{where}: key {_shown(name)} is missing")
    rules = {**required, **(optional or {})}
    for name, entry in value.items():
        if name not in rules:
            raise CertificateError(f"{where}: unknown key {_shown(name)}; expected {', '.join(rules)}")
        rules[name](entry, f"{where}: {name}")


def _keyed(entry: Rule) -> Rule:
    """An object whose keys are indices written in decimal."""

    def rule(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _fail(where, value, "an object")
        for name, item in value.items():
            if not re.fullmatch(r"0|[1-9][0-9]{0,8}", name):
                raise CertificateError(f"{where}: key {_shown(name)} is no index")
            entry(item, f"{where}[{name}]")

    return rule


def _slopes(value: Any, where: str) -> None:
    _object(value, where, {}, {"lower": _many(_share), "upper": _many(_share)})


_MATRIX = _many(_many(_rational))
_MOVES: dict[str, tuple[dict[str, Rule], dict[str, Rule]]] = {
    "bound": ({"method": _choice(*METHODS)}, {"slopes": _keyed(_keyed(_slopes))}),
    "drop": ({"layer": _index, "neurons": _indices}, {}),
    "constant": ({"layer": _index, "neurons": _indices, "values": _many(_rational)}, {}),
    "merge": ({"layer": _index, "pairs": _many(_pair, some=True)}, {}),
    "clear": ({"layer": _index, "neurons": _indices}, {}),
    "fold": (
        {"layer": _index, "neurons": _indices, "rows": _MATRIX, "biases": _many(_rational), "columns": _MATRIX},
        {},
    ),
    "replace": ({"layer": _index, "neurons": _indices, "rows": _MATRIX, "biases": _many(_rational)}, {}),
    "round": ({"dtype": _choice(*DTYPES)}, {}),
    "scale": ({"layer": _index, "factors": _many(_rational)}, {}),
    "permute": ({"layer": _index, "order": _distinct}, {}),
    "flip": ({"layer": _index, "neurons": _indices}, {}),
    "absorb": ({"neurons": _indices}, {}),
    "resolve": ({}, {}),
    "shift": ({"neuron": _index, "by": _rational}, {}),
    "turn": ({"neuron": _index, "onto": _index, "ratio": _rational}, {}),
    "fan": ({"neuron": _index, "other": _index, "reader": _index}, {}),
    "corner": ({"neuron": _index, "other": _index, "reader": _index, "cut": _index}, {}),
    "unroll": ({}, {}),
    "flatten": ({}, {}),
    "hollow": ({}, {}),
    "centre": ({}, {}),
    "stretch": ({"factor": _rational}, {}),
}
REDUCING = ("bound", "drop", "constant", "merge", "clear", "fold", "replace", "round")
"""The moves a reduction may make; an equality may make all."""


def _step(value: Any, where: str, known: Sequence[str]) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("move"), str):
        raise _fail(where, value, 'an object with a "move"')
    if value["move"] not in known:
        raise CertificateError(f"{where}: unknown move {_shown(value['move'])}; known are {', '.join(known)}")
    required, optional = _MOVES[value["move"]]
    _object(value, f"{where} ({value['move']})", {"move": _text, **required}, optional)


def _party(value: Any, where: str) -> None:
    _object(value, where, {"digest": _hash, "sha256": _optional_hash}, {"path": _optional_text})


def _domain(value: Any, where: str) -> None:
    ends = _many(_end, some=True)
    _object(value, where, {"lower": ends, "upper": ends}, {"origin": _text})
    if value.get("origin") == "everywhere" and set(value["lower"]) | set(value["upper"]) != {"inf", "-inf"}:
        raise CertificateError(f'{where}: origin is "everywhere" but an end is finite')


def _moves(name: str, known: Sequence[str]) -> Rule:
    def rule(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise _fail(where, value, "an array")
        for k, step in enumerate(value):
            _step(step, f"{name} {k}", known)

    return rule


def _bound(value: Any, where: str) -> None:
    if value is not None:
        _object(value, where, {"constant": _number, "slope": _number})


def _node(value: Any, where: str) -> None:
    if isinstance(value, dict) and "split" in value:
        _object(value, where, {"split": _cut, "below": _index, "above": _index})
    elif isinstance(value, dict) and value.get("leaf") == "empty":
        _object(value, where, {"leaf": _text, "multipliers": _keyed(_rational)})
    else:
        _object(value, where, {"leaf": _choice("equal", "empty")})


def _cut(value: Any, where: str) -> None:
    _object(value, where, {"net": _choice("f", "g"), "layer": _index, "neuron": _index, "at": _rational})


_DOCUMENTS: dict[str, dict[str, Rule]] = {
    "reduction": {"steps": _moves("step", REDUCING), "bound": _bound},
    "equality": {"steps": _moves("step", tuple(_MOVES)), "back": _moves("back", tuple(_MOVES))},
    "cases": {"nodes": _many(_node, some=True)},
}
KINDS = tuple(_DOCUMENTS)


def _document(data: Any) -> None:
    kind = data.get("kind") if isinstance(data, dict) else None
    rules: dict[str, Rule] = {
        "schema": _choice(SCHEMA), "kind": _choice(*KINDS), "version": _text, "source": _party, "target": _party,
        "domain": _domain, **_DOCUMENTS.get(kind if isinstance(kind, str) else "", _DOCUMENTS["reduction"]),
    }  # fmt: skip
    _object(data, "certificate", rules)
