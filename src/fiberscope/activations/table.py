"""The table of activations, and how a name or a spec finds its row."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from fiberscope import rationals
from fiberscope.activations import linear, polynomials, smooth
from fiberscope.activations.rows import Activation
from fiberscope.arguments import shown
from fiberscope.errors import InputError, UnsupportedError

_ROWS: dict[str, Callable[..., Activation]] = {
    "relu": linear.relu,
    "leaky_relu": linear.leaky_relu,
    "hard_tanh": linear.hard_tanh,
    "clip": linear.clip,
    "identity": linear.identity,
    "abs": linear.absolute,
    "elu": smooth.elu,
    "square": polynomials.square,
    "polynomial": polynomials.polynomial,
    **smooth.SMOOTH,
}

_ALIASES = {
    "leakyrelu": "leaky_relu", "hardtanh": "hard_tanh", "htanh": "hard_tanh", "logistic": "sigmoid",
    "logsig": "sigmoid", "tansig": "tanh", "swish": "silu", "linear": "identity", "none": "identity", "sine": "sin",
    "cosine": "cos", "poly": "polynomial", "purelin": "identity", "gelutanh": "gelu_tanh", "gelu_new": "gelu_tanh",
    "gauss": "gaussian", "absolute": "abs",
}  # fmt: skip

_LARGEST = Fraction(sys.float_info.max)
_LONG_EXPONENT = re.compile(r"[eE][+-]?\d{5}")
_LABEL = re.compile(r"\s*([\w-]+)\s*\(([^()]*)\)\s*")

Given = str | Activation | Mapping[str, Any]
"""How one activation may be given: by name or label, as itself, or as its spec."""


def names() -> tuple[str, ...]:
    """The names of all activations.

    >>> "relu" in names()
    True
    """
    return tuple(sorted(_ROWS))


def activation(row: str | Activation | Mapping[str, Any], *parameters: Fraction | float | int | str) -> Activation:
    """Look up an activation by name, alias, label, or {"name": ..., "parameters": [...]}.

    Args:
        row: an `Activation` (returned as it is), a name, a label "leaky_relu(0.1)", or a spec.
        parameters: slope, ends, alpha or coefficients; floats of any width are read as the rationals they are,
            text as "p/q".

    Raises:
        UnsupportedError: for an unknown name, a wrong number of parameters, or one that is no finite number.

    >>> activation("LeakyReLU", 0.5).label
    'leaky_relu(0.5)'
    >>> activation("leaky_relu(0.5)") == activation("leaky_relu", "1/2")
    True
    """
    if isinstance(row, Activation):
        return row
    if isinstance(row, Mapping):
        return Activation.from_spec(row)
    if not isinstance(row, str):
        raise UnsupportedError(f"activation {shown(row)} is none; give a name: {', '.join(names())}")
    labelled = _LABEL.fullmatch(row)
    if labelled is not None and not parameters:
        words = tuple(word.strip() for word in labelled.group(2).split(",") if word.strip())
        return activation(labelled.group(1), *words)
    key = row.strip().lower().replace("-", "_")
    key = _ALIASES.get(key, key) if key not in _ROWS else key
    if key not in _ROWS:
        near = difflib.get_close_matches(key, [*_ROWS, *_ALIASES], n=1)
        hint = f"did you mean {_ALIASES.get(near[0], near[0])!r}? " if near else ""
        raise UnsupportedError(f"unknown activation {row!r}; {hint}known: {', '.join(names())}")
    values = [_parameter(key, p) for p in parameters]
    try:
        inspect.signature(_ROWS[key]).bind(*values)
    except TypeError as exc:
        raise UnsupportedError(f"activation {key!r} does not take {len(parameters)} parameters") from exc
    return _ROWS[key](*values)


def layer_activations(count: int, given: Given | Sequence[Given]) -> list[Activation]:
    """One activation for each of `count` affine layers, from what was given for a network.

    Args:
        count: number of affine layers.
        given: one activation, for all hidden layers; or one for each hidden layer, the last layer's too if it has one.
            Text may list them with commas.

    Raises:
        InputError: if the number does not fit.
        UnsupportedError: for an unknown one.

    >>> [row.name for row in layer_activations(3, "relu")]
    ['relu', 'relu', 'identity']
    >>> [row.name for row in layer_activations(2, ["relu", "tanh"])]
    ['relu', 'tanh']
    """
    if isinstance(given, str):
        words = [word.strip() for word in re.split(r",(?![^(]*\))", given) if word.strip()]
        given = words if len(words) > 1 else given
    if isinstance(given, str | Activation | Mapping) or not isinstance(given, Iterable):
        return [activation(given)] * (count - 1) + [activation("identity")]
    rows = [activation(row) for row in given]
    if len(rows) == 1 and count > 1:
        rows *= count - 1
    if len(rows) == count - 1:
        rows.append(activation("identity"))
    if len(rows) != count:
        raise InputError(f"{len(rows)} activations for {count} layers; give one, or one for each layer")
    return rows


def _parameter(key: str, value: Any) -> Fraction:
    """The exact rational of one parameter, within the range of floats."""
    wanted = "expected finite numbers or 'p/q'"
    try:
        if isinstance(value, str):
            if _LONG_EXPONENT.search(value):  # would be expanded to that many digits
                raise OverflowError("exponent too long")
            exact = Fraction(value)
        else:
            exact = rationals.as_fraction(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as exc:
        raise UnsupportedError(f"activation {key!r} with {str(value)[:40]!r} among its parameters; {wanted}") from exc
    if abs(exact) > _LARGEST:
        raise UnsupportedError(f"activation {key!r} with parameters beyond the largest float; {wanted}")
    return exact
