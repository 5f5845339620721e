"""Targets from words and from JSON: what the command line and saved experiments give."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiberscope.errors import InputError
from fiberscope.meanfield.targets.base import Target
from fiberscope.meanfield.targets.finite import Constant, Linear, Teacher
from fiberscope.meanfield.targets.polynomial import Polynomial
from fiberscope.meanfield.targets.sums import Scaled, Sum
from fiberscope.meanfield.targets.zonal import NormH, SingleIndex

if TYPE_CHECKING:
    from fiberscope.network import Network

FloatArray = NDArray[np.float64]


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
        InputError: for words or fields that are not known, numbers that do not fit.

    >>> target_of("linear:0.6,0.8", 3).linear_part.round(3).tolist()
    [0.2, 0.267, 0.0]
    >>> target_of('{"kind": "teacher", "weights": [1, 1], "directions": [[1, 0], [-1, 0]]}').parity
    1
    """
    if isinstance(given, str) and not given.lstrip().startswith("{"):
        if dimension is None:
            raise InputError(f"target {given!r} does not say its dimension; give it, or a JSON document")
        return _worded(given.strip(), int(dimension))
    document = _parsed(given) if isinstance(given, str) else given
    found = _documented(document)
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
    if len(net.layers) != 2 or net.layers[0].activation.name != "relu":
        raise InputError(f"a target is a network with one hidden ReLU layer, and this is {net.architecture}")
    first, last = net.layers
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
        axes = np.eye(d)[: _count(text, rest, d)]
        return Teacher(np.ones(2 * len(axes)), np.concatenate([axes, -axes]))
    if kind == "linear":
        return Linear(_padded(text, rest, d))
    if kind == "index" and rest == "relu":
        return Teacher([1.0], np.eye(d)[:1])
    if kind == "index":
        return SingleIndex(np.eye(d)[0], _function(rest))
    raise InputError(
        f"target {text!r}; give norm:K, l1:K, abs, relu, linear:B1,B2,..., index:ACTIVATION, a JSON document, or a file"
    )


def _count(text: str, rest: str, d: int) -> int:
    found = int(rest) if rest.isdigit() else 0
    if not 1 <= found <= d:
        raise InputError(f"target {text!r}: give a number of coordinates between 1 and {d} after the colon")
    return found


def _padded(text: str, rest: str, d: int) -> FloatArray:
    try:
        found = [float(part) for part in rest.split(",")]
    except ValueError:
        raise InputError(f"target {text!r}: give numbers after the colon, such as linear:0.6,0.8") from None
    if len(found) > d:
        raise InputError(f"target {text!r} has {len(found)} coordinates in dimension {d}")
    return np.array(found + [0.0] * (d - len(found)))


def _function(name: str) -> Callable[[FloatArray], FloatArray]:
    """An activation as a function of one variable."""
    from fiberscope.activations import activation

    row = activation(name)
    return lambda t: np.asarray(row(np.asarray(t, float)), float)


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise InputError(f"the target is no JSON document: {exc}") from None
    if not isinstance(found, dict):
        raise InputError("the target is no JSON object; give one with a kind")
    return found


def _documented(document: Mapping[str, Any]) -> Target:
    fields = dict(document)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"a target of kind {kind!r}; known: {', '.join(_KINDS)}")
    make, needed = _KINDS[kind]
    missing, unknown = sorted(set(needed) - set(fields)), sorted(set(fields) - set(needed) - {"factors"})
    if missing or unknown:
        words = [f"{', '.join(missing)} missing"] if missing else []
        words += [f"{', '.join(unknown)} unknown"] if unknown else []
        raise InputError(f"a target of kind {kind} has the fields {', '.join(needed)}: {'; '.join(words)}")
    try:
        return make(fields)
    except (TypeError, KeyError) as exc:
        raise InputError(f"a target of kind {kind} that cannot be read: {exc}") from exc


def _sum(fields: Mapping[str, Any]) -> Target:
    parts = [_documented(part) for part in fields["parts"]]
    factors = fields.get("factors", [1.0] * len(parts))
    if len(factors) != len(parts):
        raise InputError(f"{len(factors)} factors for {len(parts)} parts of a sum")
    return Sum([part if f == 1 else Scaled(float(f), part) for f, part in zip(factors, parts, strict=True)])


def _polynomial(fields: Mapping[str, Any]) -> Target:
    return Polynomial({tuple(int(k) for k in t["exponents"]): float(t["coefficient"]) for t in fields["terms"]})


_KINDS: dict[str, tuple[Callable[[Mapping[str, Any]], Target], tuple[str, ...]]] = {
    "linear": (lambda f: Linear(f["beta"]), ("beta",)),
    "constant": (lambda f: Constant(f["value"], int(f["dimension"])), ("value", "dimension")),
    "teacher": (lambda f: Teacher(f["weights"], f["directions"]), ("weights", "directions")),
    "norm": (lambda f: NormH((int(f["dimension"]), int(f["subspace"]))), ("dimension", "subspace")),
    "polynomial": (_polynomial, ("terms",)),
    "single-index": (lambda f: SingleIndex(f["direction"], _function(f["function"])), ("direction", "function")),
    "sum": (_sum, ("parts",)),
}
