"""ONNX operators and small subgraphs that are activations.

A subgraph of elementwise nodes with one input x and one output is read as an expression sum c_ij x^i a^j with rational
c_ij, where a = g(p(x)) for one function g and one polynomial p; it is then compared with the known formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from fiberscope.activations import Activation, activation
from fiberscope.errors import UnsupportedError
from fiberscope.io.onnx_graph import shown
from fiberscope.io.onnx_ops import Call
from fiberscope.io.onnx_shapes import unknown

if TYPE_CHECKING:
    from onnx import NodeProto

_PLAIN = {
    "Relu": "relu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Erf": "erf",
    "Sin": "sin",
    "Cos": "cos",
    "Abs": "abs",
}


def _plain(call: Call) -> Activation:
    return activation(_PLAIN[call.node.op_type])


def _number(call: Call, value: Any, what: str) -> Fraction:
    number = float(value)
    if not math.isfinite(number):
        raise UnsupportedError(f"{call.title}: {what} is {number}")
    return Fraction(number)


def _attribute(call: Call, name: str, default: float) -> Fraction:
    return _number(call, call.attributes.get(name, float(np.float32(default))), name)


def _uniform(call: Call, k: int) -> Fraction | None:
    """Operand k if it is absent (None) or one number."""
    found = call.optional(k)
    if found is None or not found.array.size:
        return None
    values = np.unique(found.array)
    if values.size != 1 or values.dtype.kind not in "fiu":
        raise UnsupportedError(f"{call.title}: operand {k} differs from neuron to neuron")
    return Fraction(float(values[0])) if math.isfinite(values[0]) else None


def _leaky(call: Call) -> Activation:
    return activation("leaky_relu", _attribute(call, "alpha", 0.01))


def _prelu(call: Call) -> Activation:
    slope = _uniform(call, 1) if call.place == 0 else None
    if slope is None:
        raise UnsupportedError(f"{call.title} has no finite slope")
    call.walk.uses(call.operand(1))
    return activation("relu") if slope == 0 else activation("leaky_relu", slope)


def _between(call: Call, low: Fraction | None, high: Fraction | None) -> Activation:
    largest = Fraction(float(np.finfo(np.float32).max))  # exporters write it for "no bound"
    low = None if low is not None and low <= -largest else low
    high = None if high is not None and high >= largest else high
    if low is None and high is None:
        return activation("identity")
    if low == 0 and high is None:
        return activation("relu")
    if low == -1 and high == 1:
        return activation("hard_tanh")
    if low is None or high is None or low >= high:
        raise UnsupportedError(f"{call.title}: bounds {low} and {high}; both or [0, inf) are read")
    return activation("clip", low, high)


def _clip(call: Call) -> Activation:
    if call.walk.graph.opset < 11:
        bounds = [call.attributes.get(name) for name in ("min", "max")]
        low, high = (None if b is None or not math.isfinite(b) else Fraction(b) for b in bounds)
    else:
        low, high = _uniform(call, 1), _uniform(call, 2)
    return _between(call, low, high)


def _extremum(call: Call) -> Activation:
    """max(x, c) or min(x, c)."""
    if len(call.node.input) != 2:
        raise UnsupportedError(f"{call.title} has {len(call.node.input)} operands; two are read")
    bound = _uniform(call, 1 - call.place)
    return _between(call, bound, None) if call.node.op_type == "Max" else _between(call, None, bound)


def _elu(call: Call) -> Activation:
    return activation("elu", _attribute(call, "alpha", 1.0))


def _celu(call: Call) -> Activation:
    if _attribute(call, "alpha", 1.0) != 1:
        raise UnsupportedError(f"{call.title} has alpha other than 1")
    return activation("elu", Fraction(1))


def _hard_sigmoid(call: Call) -> Activation:
    slope, shift = _attribute(call, "alpha", 0.2), _attribute(call, "beta", 0.5)
    size, note = call.walk.size, f"the slope of {call.title} is folded"
    call.walk.scale(np.full(size, float(slope)), note)
    call.walk.shift(np.full(size, float(shift)), note)
    return activation("clip", Fraction(0), Fraction(1))


def _gelu(call: Call) -> Activation:
    return activation("gelu_tanh" if call.attributes.get("approximate", "none") == "tanh" else "gelu")


def _swish(call: Call) -> Activation:
    if call.attributes.get("alpha", 1.0) != 1.0:
        raise UnsupportedError(f"{call.title} has alpha other than 1")
    return activation("silu")


def _power(call: Call) -> Activation:
    exponent = _uniform(call, 1) if call.place == 0 else None
    if exponent is None or exponent.denominator != 1 or not 1 <= exponent <= 64:
        raise UnsupportedError(f"{call.title}: exponent {exponent}; integers from 1 to 64 are read")
    return _monomial(int(exponent))


def _monomial(k: int) -> Activation:
    if k <= 2:
        return activation("identity" if k == 1 else "square")
    return activation("polynomial", *([Fraction(0)] * k), Fraction(1))


ACTIVATIONS: dict[str, Callable[[Call], Activation]] = {
    **{op: _plain for op in _PLAIN},
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Clip": _clip,
    "Max": _extremum,
    "Min": _extremum,
    "Elu": _elu,
    "Celu": _celu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Swish": _swish,
    "Pow": _power,
}
"""Operators that are activations."""

Polynomial = dict[tuple[int, int], Fraction]
"""Coefficients of x^i a^j by (i, j)."""

_MAX_DEGREE = 64
_MAX_NODES = 64
_FUNCTIONS = {"Sigmoid", "Erf", "Tanh", "Exp", "Softplus"}


@dataclass
class _Expression:
    """Expressions over one input, and the function a = g(p(x)) in them."""

    function: str = ""
    inner: Polynomial | None = None

    def node(self, op: str, values: list[Polynomial]) -> Polynomial | None:
        """The expression of a node from those of its operands; None if it is not of this form."""
        if op in ("Add", "Sub") and len(values) == 2:
            return _plus(values[0], values[1] if op == "Add" else _negated(values[1]))
        if op == "Neg":
            return _negated(values[0])
        if op == "Mul" and len(values) == 2:
            return _times(*values)
        if op in ("Div", "Pow") and len(values) == 2 and set(values[1]) == {(0, 0)}:
            number = values[1][0, 0]
            if op == "Div":
                return _times(values[0], _constant(1 / number))
            return _raised(values[0], number)
        if op == "Identity":
            return values[0]
        if op in _FUNCTIONS and all(j == 0 for _, j in values[0]):
            if self.function and (self.function, self.inner) != (op, values[0]):
                return None
            self.function, self.inner = op, values[0]
            return {(0, 1): Fraction(1)}
        return None


def _constant(q: Fraction) -> Polynomial:
    return {(0, 0): q} if q else {}


def _negated(a: Polynomial) -> Polynomial:
    return {key: -q for key, q in a.items()}


def _plus(a: Polynomial, b: Polynomial) -> Polynomial:
    total = {key: a.get(key, Fraction(0)) + b.get(key, Fraction(0)) for key in a.keys() | b.keys()}
    return {key: q for key, q in total.items() if q}


def _times(a: Polynomial, b: Polynomial) -> Polynomial | None:
    out: Polynomial = {}
    for (i, j), p in a.items():
        for (k, m), q in b.items():
            if i + k > _MAX_DEGREE or j + m > 1:
                return None
            out[i + k, j + m] = out.get((i + k, j + m), Fraction(0)) + p * q
    return {key: q for key, q in out.items() if q}


def _raised(a: Polynomial, exponent: Fraction) -> Polynomial | None:
    if exponent.denominator != 1 or not 1 <= exponent <= _MAX_DEGREE:
        return None
    out: Polynomial | None = a
    for _ in range(int(exponent) - 1):
        out = None if out is None else _times(out, a)
    return out


def region(call: Call) -> tuple[Activation, list[int], str]:
    """Read the elementwise nodes between the trunk and where they meet again as one activation.

    Of several tensors where they meet, the first that gives a known formula with a function counts, else the last that
    gives a polynomial.

    Returns:
        (activation, positions of the nodes in `graph.nodes`, the tensor where they meet).

    Raises:
        UnsupportedError: if they do not meet, or their formula is not in the table.
    """
    walk, graph = call.walk, call.walk.graph
    values: dict[str, Polynomial] = {walk.current: {(1, 0): Fraction(1)}}
    waiting = {walk.current: set(graph.consumers[walk.current])}
    readers = len(waiting[walk.current])
    expression, taken = _Expression(), list[int]()
    best: tuple[Activation, list[int], str] | None = None
    begin = min(waiting[walk.current])
    for k in range(begin, min(len(graph.nodes), begin + 4 * _MAX_NODES)):
        node = graph.nodes[k]
        if node.op_type == "Shape" or not any(name in values for name in node.input):
            continue
        value = _value(call, node, expression, values) if len(taken) < _MAX_NODES else None
        if not value:
            break
        taken.append(k)
        result = node.output[0]
        values[result] = value
        waiting[result] = set(graph.consumers.get(result, ()))
        for name in node.input:
            waiting.get(name, set()).discard(k)
        if any(left for name, left in waiting.items() if name != result):
            continue
        row = _recognised(call, expression, value)
        if row is not None:
            best = row, list(taken), result
        if (row is not None and expression.function) or result == graph.output:
            break
    if best is None:
        name = shown(walk.current)
        raise UnsupportedError(f"tensor {name} feeds {readers} nodes, {call.title} among them: branches are not chains")
    return best


def _value(call: Call, node: NodeProto, expression: _Expression, values: dict[str, Polynomial]) -> Polynomial | None:
    """The expression of a node; None if it has none."""
    operands = [values.get(name) or _scalar(call, name) for name in node.input]
    known = [v for v in operands if v is not None]
    if len(known) < len(operands) or len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
        return None
    return expression.node(node.op_type, known)


def _scalar(call: Call, name: str) -> Polynomial | None:
    found = call.walk.graph.constant(name)
    if found is None or found.array.size != 1 or found.array.dtype.kind not in "fiu":
        return None
    number = found.array.reshape(-1)[0]
    # zero is kept as a term so that "no value" and "0" differ
    return {(0, 0): Fraction(float(number))} if math.isfinite(number) and number != 0 else None


def _recognised(call: Call, expression: _Expression, value: Polynomial) -> Activation | None:
    """The activation of a formula, None if it is not known."""
    one, half, x = Fraction(1), Fraction(1, 2), {(1, 0): Fraction(1)}
    inner = expression.inner or {}
    if not any(j for _, j in value):
        degree = max(i for i, _ in value)
        if value == {(degree, 0): one}:
            return _monomial(degree)
        return activation("polynomial", *(value.get((i, 0), Fraction(0)) for i in range(degree + 1)))
    if expression.function == "Sigmoid" and inner == x and value == {(1, 1): one}:
        return activation("silu")
    if expression.function == "Exp" and inner == {(2, 0): -one} and value == {(0, 1): one}:
        return activation("gaussian")
    gate = {(1, 0): half, (1, 1): half}
    if expression.function == "Erf" and value == gate and _near(inner, {(1, 0): math.sqrt(0.5)}):
        return _rounded(call, "gelu", "sqrt(2)")
    root = math.sqrt(2 / math.pi)
    if expression.function == "Tanh" and value == gate and _near(inner, {(1, 0): root, (3, 0): 0.044715 * root}):
        return _rounded(call, "gelu_tanh", "sqrt(2/pi) and 0.044715")
    return None


def _near(found: Polynomial, expected: dict[tuple[int, int], float]) -> bool:
    """Whether coefficients agree to the rounding of a few float16 or better operations."""
    return found.keys() == expected.keys() and all(abs(float(found[k]) / v - 1) < 1e-3 for k, v in expected.items())


def _rounded(call: Call, name: str, numbers: str) -> Activation:
    text = f"{name} is written out in the file with rounded numbers {numbers} and is read as the exact formula"
    if text not in call.walk.approximations:
        call.walk.approximations.append(text)
    return activation(name)


def refuse(call: Call) -> UnsupportedError:
    """The refusal of an operator that is neither affine nor an activation."""
    known = "is not supported; a chain of affine maps and elementwise activations is read"
    return unknown(call.node, known)
