"""Targets from words and from JSON: what the command line and saved experiments give."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiberscope.arguments import as_number
from fiberscope.errors import InputError
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import Constant, Linear, Teacher
from fiberscope.meanfield.targets.polynomial import Polynomial
from fiberscope.meanfield.targets.sums import Scaled, Sum
from fiberscope.meanfield.targets.zonal import NormH, SingleIndex
from fiberscope.network import Network

FloatArray = NDArray[np.float64]
_ENTRIES = 1 << 26
_NESTED = 100


def target_of(given: str | Mapping[str, Any], dimension: int | None = None) -> Target:
    """A target from a short text or a JSON document.

    Texts: "norm:K" |x_H| for the first K coordinates, "l1:K" |x_1| + ... + |x_K|, "abs" |x_1|, "relu" relu(x_1),
    "linear:0.6,0.8" 0.6 x_1 + 0.8 x_2, "index:tanh" s(x_1) for an activation s; or a JSON document as text. Documents
    have a "kind": linear {beta}, constant {value, dimension}, teacher {weights, directions}, norm {dimension,
    subspace}, polynomial {terms: [{coefficient, exponents}]}, single-index {direction, function},
    sum {parts, factors}.

    Args:
        given: the text, or the document.
        dimension: d; needed by texts, checked against documents.

    Raises:
        InputError: for words or fields that are not known or missing, entries that are no finite numbers (of the right
            count), dimensions too large for memory.

    >>> target_of("linear:0.6,0.8", 3).linear_part.round(3).tolist()
    [0.2, 0.267, 0.0]
    >>> target_of('{"kind": "teacher", "weights": [1, 1], "directions": [[1, 0], [-1, 0]]}').parity
    1
    """
    if dimension is not None:
        dimension = whole(dimension, "the dimension", 1)
    if isinstance(given, str) and not given.lstrip().startswith("{"):
        if dimension is None:
            raise InputError(f"target {given!r} does not say its dimension; give it, or a JSON document")
        return _worded(given.strip(), dimension)
    found = _documented(_parsed(given) if isinstance(given, str) else given)
    if dimension is not None and found.dimension != dimension:
        raise InputError(f"the target has dimension {found.dimension}, and {dimension} was asked for; give one of them")
    return found


def teacher_of(net: Network) -> Teacher:
    """A two-layer ReLU network without biases as a target.

    Raises:
        InputError: for other networks; what is in the way is named.

    >>> from fiberscope.network import Network
    >>> layers = ([[1.0, 0.0], [-1.0, 0.0]], None), ([[1.0, 1.0]], None)
    >>> teacher_of(Network.from_arrays(*layers, activation="relu")).parity
    1
    """
    if not isinstance(net, Network):
        raise InputError(f"{type(net).__name__} is no network; give one of fs.load or fs.Network.from_arrays")
    if len(net.layers) != 2 or net.layers[0].activation.name != "relu":
        raise InputError(f"a target is a network with one hidden ReLU layer, and this is {net.architecture}")
    first, last = net.layers
    after = net.head if last.activation.name == "identity" else last.activation.name
    if after is not None:
        raise InputError(f"a target has a linear output, and the outputs of this network go through {after}")
    if len(last.weight) != 1:
        raise InputError(f"a target has one output, and this network has {len(last.weight)}")
    if np.any(first.bias64) or np.any(last.bias64):
        raise InputError(
            "the network has biases, and targets here are functions without; append a constant input coordinate instead"
        )
    return Teacher(last.weight64[0], first.weight64)


def _worded(text: str, d: int) -> Target:
    kind, _, rest = text.partition(":")
    if kind in ("abs", "relu") and not rest:
        kind, rest = ("l1", "1") if kind == "abs" else ("index", "relu")
    if kind == "norm":
        return NormH((d, _count(text, rest, d)))
    if kind == "l1":
        axes = np.eye(_count(text, rest, d), d)
        return Teacher(np.ones(2 * len(axes)), np.concatenate([axes, -axes]))
    if kind == "linear":
        return Linear(_padded(text, rest, d))
    if kind == "index":
        axis = np.eye(1, sized(d, 1))
        return Teacher([1.0], axis) if rest == "relu" else SingleIndex(axis[0], _function(rest))
    words = "norm:K, l1:K, abs, relu, linear:B1,B2,..., index:ACTIVATION, a JSON document, or a file"
    raise InputError(f"target {reprlib.repr(text)}; give {words}")


def _count(text: str, rest: str, d: int) -> int:
    # isdigit alone takes superscripts, and int refuses thousands of digits
    found = int(rest) if rest.isascii() and rest.isdigit() and len(rest) < 20 else 0
    if not 1 <= found <= d:
        raise InputError(f"target {reprlib.repr(text)}: give a number of coordinates between 1 and {d} after the colon")
    sized(d, found)
    return found


def _padded(text: str, rest: str, d: int) -> FloatArray:
    try:
        found = [float(part) for part in rest.split(",")]
    except ValueError:
        raise InputError(f"target {reprlib.repr(text)}: give numbers after the colon, such as linear:0.6,0.8") from None
    if len(found) > d:
        raise InputError(f"target {reprlib.repr(text)} has {len(found)} coordinates in dimension {d}")
    if not np.isfinite(found).all():
        raise InputError(f"target {reprlib.repr(text)}: give finite numbers")
    return np.array(found + [0.0] * (sized(d, 1) - len(found)))


def _function(name: object) -> Callable[[FloatArray], FloatArray]:
    """An activation as a function of one variable."""
    from fiberscope.activations import activation

    if not isinstance(name, str):
        raise InputError(f"function: {reprlib.repr(name)}; give the name of an activation")
    row = activation(name)
    return lambda t: np.asarray(row(np.asarray(t, float)), float)


def _parsed(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except ValueError as exc:
        raise InputError(f"the target is no JSON document: {exc}") from None
    except RecursionError:
        raise InputError("the target is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a field that is given twice is refused, where the last one would win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise InputError(f"the target has the field {next(n for n in names if names.count(n) > 1)!r} twice")
    return found


def _documented(document: object, depth: int = 0) -> Target:
    if not isinstance(document, Mapping):
        raise InputError(f"a target that is {reprlib.repr(document)}; give an object with a kind")
    if depth > _NESTED:
        raise InputError("the target is nested too deeply")
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"a target of kind {kind!r}; known: {', '.join(_KINDS)}")
    if kind == "sum":
        return _sum(document, depth)
    make, needed = _KINDS[kind]
    return make(_fields(document, f"a target of kind {kind}", ("kind", *needed)))


def _fields(given: object, what: str, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """A mapping of just these fields, or an error that names the others."""
    if not isinstance(given, Mapping):
        raise InputError(f"{what} that is {reprlib.repr(given)}; give an object with {', '.join(needed)}")
    missing = [name for name in needed if name not in given]
    unknown = sorted(str(name) for name in given if name not in (*needed, *optional))
    if missing or unknown:
        words = [f"{', '.join(missing)} missing"] if missing else []
        words += [f"{', '.join(unknown)} unknown"] if unknown else []
        shown = ", ".join(name for name in (*needed, *optional) if name != "kind")
        raise InputError(f"{what} has the fields {shown}: {'; '.join(words)}")
    return given


def whole(given: object, what: str, least: int = 0) -> int:
    """A whole number of at least `least`, or an error that names it.

    >>> whole(3, "the dimension", 1)
    3
    """
    found = as_number(given, what)
    if found != int(found) or found < least:
        raise InputError(f"{what}: {reprlib.repr(given)}; give a whole number of at least {least}")
    return int(found)


def sized(d: int, rows: int) -> int:
    """The dimension d, unless so many rows of it would not fit into memory.

    >>> sized(3, 2)
    3
    """
    if d * rows > _ENTRIES:
        raise InputError(
            f"{rows} rows in dimension {d}; a target may hold {_ENTRIES} numbers: give a smaller dimension"
        )
    return d


def _list(given: object, what: str) -> list[Any]:
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, list | tuple) or not given:
        raise InputError(f"{what}: {reprlib.repr(given)}; give a list that is not empty")
    return list(given)


def _numbers(given: object, what: str) -> FloatArray:
    return np.array([as_number(v, f"{what}, entry {k + 1}") for k, v in enumerate(_list(given, what))])


def _matrix(given: object, what: str) -> FloatArray:
    rows = [_numbers(row, f"{what}, row {k + 1}") for k, row in enumerate(_list(given, what))]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise InputError(f"{what}: rows of lengths {', '.join(map(str, lengths))}; all must have one length d")
    return np.array(rows)


def _constant(fields: Mapping[str, Any]) -> Target:
    return Constant(as_number(fields["value"], "value"), sized(whole(fields["dimension"], "dimension", 1), 1))


def _norm(fields: Mapping[str, Any]) -> Target:
    d, k = (whole(fields[name], name, 1) for name in ("dimension", "subspace"))
    if k > d:
        raise InputError(f"a subspace of dimension {k} of R^{d}; give 1 <= dH <= d")
    return NormH((sized(d, k), k))


def _sum(document: Mapping[str, Any], depth: int) -> Target:
    fields = _fields(document, "a target of kind sum", ("kind", "parts"), ("factors",))
    parts = [_documented(part, depth + 1) for part in _list(fields["parts"], "parts")]
    factors = _numbers(fields["factors"], "factors") if "factors" in fields else np.ones(len(parts))
    if len(factors) != len(parts):
        raise InputError(f"{len(factors)} factors for {len(parts)} parts of a sum")
    return Sum([part if f == 1 else Scaled(float(f), part) for f, part in zip(factors, parts, strict=True)])


def _polynomial(fields: Mapping[str, Any]) -> Target:
    # a monomial that is named twice counts twice
    found: dict[tuple[int, ...], list[float]] = {}
    for k, given in enumerate(_list(fields["terms"], "terms")):
        what = f"term {k + 1}"
        term = _fields(given, what, ("coefficient", "exponents"))
        powers = tuple(whole(e, f"{what}, exponents") for e in _list(term["exponents"], f"{what}, exponents"))
        found.setdefault(powers, []).append(as_number(term["coefficient"], f"{what}, coefficient"))
    return Polynomial({powers: math.fsum(values) for powers, values in found.items()})


_KINDS: dict[str, tuple[Callable[[Mapping[str, Any]], Target], tuple[str, ...]]] = {
    "linear": (lambda f: Linear(_numbers(f["beta"], "beta")), ("beta",)),
    "constant": (_constant, ("value", "dimension")),
    "teacher": (
        lambda f: Teacher(_numbers(f["weights"], "weights"), _matrix(f["directions"], "directions")),
        ("weights", "directions"),
    ),
    "norm": (_norm, ("dimension", "subspace")),
    "polynomial": (_polynomial, ("terms",)),
    "single-index": (
        lambda f: SingleIndex(_numbers(f["direction"], "direction"), _function(f["function"])),
        ("direction", "function"),
    ),
    "sum": (lambda f: _sum(f, 0), ("parts", "factors")),
}
