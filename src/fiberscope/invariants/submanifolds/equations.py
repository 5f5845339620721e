"""Equations between parameters as text: "W1[0] = -W1[1]; b1 = 0" becomes a linear set, a product a level set."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.autodiff.symbols import Poly
from fiberscope.errors import InputError
from fiberscope.invariants.submanifolds.sets import LevelSet, LinearSet

ExactArray = npt.NDArray[Any]
Blocks = Sequence[tuple[str, tuple[int, ...]]]


def from_equations(text: str | Sequence[str], blocks: Blocks) -> LinearSet | LevelSet:
    """The set given by equations in the names of the parameters, such as "W1[0] = W1[1]" or "b1[0]^2 = 2 W2[0,0]".

    Args:
        text: equations "left = right", one string each or separated by ";". Names are those of the blocks, indices
            start at 0, rows and slices are equated entry by entry; + - * ^ and `sum(...)` may be used.
        blocks: names and shapes of the parameters in the order of theta.

    Returns:
        A linear set if all equations are linear, else a level set.

    Raises:
        InputError: if an equation cannot be read; the piece is quoted.

    >>> shapes = (("W1", (2, 1)), ("b1", (2,)))
    >>> from_equations("W1[0] = -W1[1]; b1 = 0", shapes).dimension
    1
    """
    names, at = {}, 0
    for name, shape in blocks:
        entries = np.array([Poly.symbol(at + k) for k in range(prod(shape))], dtype=object)
        names[name] = entries.reshape(shape)
        at += prod(shape)
    lines = text.split(";") if isinstance(text, str) else [part for line in text for part in line.split(";")]
    found: list[Poly] = []
    for line in filter(None, (part.strip() for part in lines)):
        sides = line.replace("==", "=").split("=")
        if len(sides) != 2:
            raise InputError(f"equation {line!r}; expected left = right")
        left, right = (_value(side, names) for side in sides)
        try:
            difference = np.asarray(left - right, dtype=object)
        except ValueError as exc:
            raise InputError(f"equation {line!r}: the sides have shapes that do not fit") from exc
        found += [Poly.of(g) for g in difference.reshape(-1)]
    if not found:
        raise InputError("no equation was given")
    level = LevelSet(tuple(found), at)
    return level.linear() or level


def _value(text: str, names: Mapping[str, ExactArray]) -> Any:
    try:
        return _walk(ast.parse(text.strip().replace("^", "**"), mode="eval").body, names, text.strip())
    except (SyntaxError, IndexError, TypeError, ValueError) as exc:
        raise InputError(f"cannot read {text.strip()!r}: {exc}") from exc


def _walk(node: ast.expr, names: Mapping[str, ExactArray], text: str) -> Any:
    match node:
        case ast.Constant(value=int() | float()):
            # the decimal number as it is written
            return Fraction(ast.get_source_segment(text.replace("^", "**"), node) or str(node.value))
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Name(id=name):
            raise InputError(f"unknown parameter {name!r} in {text!r}; known are {', '.join(names)}")
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_walk(inner, names, text)
        case ast.Subscript(value=inner, slice=index):
            return _walk(inner, names, text)[_index(index)]
        case ast.Call(func=ast.Name(id="sum"), args=[inner]):
            return np.asarray(_walk(inner, names, text), dtype=object).sum()
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)):
            return _walk(left, names, text) ** power
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _walk(left, names, text), _walk(right, names, text)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.MatMult():
                    return a @ b
                case ast.Div() if isinstance(b, Fraction):
                    return a * (1 / b)
    raise InputError(f"cannot read {text!r}: numbers, names of parameters, + - * ^ @, indices and sum() are known")


def _index(node: ast.expr) -> Any:
    match node:
        case ast.Tuple(elts=parts):
            return tuple(_index(part) for part in parts)
        case ast.Slice(lower=low, upper=high, step=None):
            return slice(None if low is None else _index(low), None if high is None else _index(high))
    return ast.literal_eval(node)
