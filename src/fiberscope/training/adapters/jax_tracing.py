"""Populations of a function of JAX, read off its jaxpr: any library that ends in one is understood alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.activations import names as activation_names
from fiberscope.errors import InputError, import_optional
from fiberscope.training.adapters.axis_flow import INPUT, POSITION, Flow, Stage, Value
from fiberscope.training.adapters.axis_summary import Summary
from fiberscope.training.adapters.jax_trees import is_statistic, leaves_of, paths_of
from fiberscope.training.architectures.architecture import Architecture

_ENTRYWISE = {
    "exp", "exp2", "log", "log1p", "expm1", "sqrt", "rsqrt", "cbrt", "sin", "cos", "tan", "sinh", "cosh", "asinh",
    "acosh", "atanh", "asin", "acos", "atan", "erf", "erfc", "erf_inv", "lgamma", "digamma", "sign", "floor", "ceil",
    "round", "is_finite", "not", "integer_pow", "pow", "atan2", "max", "min", "rem", "nextafter", "eq", "ne", "lt",
    "le", "gt", "ge", "and", "or", "xor", "select_n", "clamp", "tanh", "logistic", "abs", "square", "real", "imag",
}  # fmt: skip
_ARITHMETIC = {"add", "sub", "mul", "div", "neg"}
_SAME = {"convert_element_type", "copy", "stop_gradient", "reduce_precision", "optimization_barrier", "copy_p"}
_CALLS = {
    "pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat": "jaxpr",
    "checkpoint": "jaxpr", "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr", "custom_lin": "jaxpr",
}  # fmt: skip
_GRID = np.array([-7.5, -3.25, -2, -1.5, -1, -0.75, -0.25, -1 / 64, 0, 1 / 64, 0.375, 0.8125, 1, 1.75, 2.5, 4, 9])
_MINUS_ONE = 4


@dataclass(frozen=True, eq=False)
class _Curve:
    """Values on the grid of a function of entries, of a linear preactivation (or of nothing: one number)."""

    base: Value | None
    values: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of a variable."""

    value: Value
    curve: _Curve | None = None
    actual: Any = None

    @property
    def array(self) -> bool:
        """Whether it is more than one number repeated."""
        return bool(self.value.pieces() or self.value.stage != "fixed" or self.value.pure)


def architecture_of_function(apply: Callable[[Any, Any], Any], params: Any, example: Any) -> Architecture:
    """Populations of the function apply(params, x), from its trace: no layer is recognised by its name.

    Every axis of every parameter starts as a population of its own; operations join or pin them (`axis_flow`), so what
    is left commutes with all permutations by construction: dense units, channels, heads and their inner dimensions,
    the stream of residual networks. Activations are recognised by their values on a grid, laws by what lies between.

    Args:
        apply: a function that JAX can trace, such as `lambda p, x: model.apply(p, x)`; not run.
        params: the tree of parameters. Running averages of BatchNorm belong to it as well (the whole tree of
            variables; they make no neuron), or else the trace must be of training mode: constants hidden in the
            function pin what they meet.
        example: inputs as the function takes them, arrays or a tree of arrays; only shapes are used. Two different
            sizes of axes that are no neurons, such as samples and positions, do no harm if equal.

    Raises:
        InputError: if the function cannot be traced with these arguments.
        MissingDependencyError: without JAX.

    O(number of operations); nothing is computed.
    """
    return _traced(apply, params, example)[0].architecture()


def activations_of_function(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], dict[str, Any]]:
    """A compiled function of (params, x) that gives what is read of every population with a known activation.

    Args:
        apply: as for `architecture_of_function`.

    Returns:
        A function whose values are {population: (samples, neurons, ...)}; samples are the first axis of x. It is
        compiled anew when another shape of x comes.

    Raises:
        InputError: as there, when the function is called.
    """
    jax = import_optional("jax", extra="jax", purpose="trace a function")
    compiled: dict[Any, Any] = {}

    def look(tree: Any, x: Any) -> dict[str, Any]:
        leaves, structure = jax.tree_util.tree_flatten(tree)
        flags = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
        if compiled.get("of") != (structure, flags):
            kept = [None if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]  # functions and the like

            def call(arrays: Any, inputs: Any) -> dict[str, Any]:
                given = iter(arrays)
                whole = [next(given) if flag else leaf for leaf, flag in zip(kept, flags, strict=True)]
                return _traced(apply, jax.tree_util.tree_unflatten(structure, whole), inputs, live=True)[1]

            compiled.update(of=(structure, flags), call=jax.jit(call))
        out: dict[str, Any] = compiled["call"]([leaf for leaf, flag in zip(leaves, flags, strict=True) if flag], x)
        return out

    return look


def _traced(
    apply: Callable[[Any, Any], Any], params: Any, example: Any, *, live: bool = False
) -> tuple[Summary, dict[str, Any]]:
    """What was found, and (live) the values read of each population."""
    jax = import_optional("jax", extra="jax", purpose="trace a function")
    named = set(leaves_of(params))
    leaves, structure = jax.tree_util.tree_flatten(params)
    paths = paths_of(params)
    flags = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]

    def flat(values: Sequence[Any], x: Any) -> Any:
        given = iter(values)
        whole = [next(given) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]
        return apply(jax.tree_util.tree_unflatten(structure, whole), x)

    traced = [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]
    try:
        closed = jax.make_jaxpr(flat)(traced, example)
    except Exception as exc:  # whatever the user's function raises
        text = str(exc).strip().split("\n")[0][:200]
        raise InputError(f"apply(params, example) cannot be traced: {type(exc).__name__}: {text}") from exc
    flow = Flow()
    inputs = [
        flow.parameter(path, leaf.shape, statistic=is_statistic(path, named))
        if path in named
        else flow.fixed(leaf.shape, "it meets integers or random keys")
        for path, leaf, flag in zip(paths, leaves, flags, strict=True)
        if flag
    ]
    data = [flow.fixed(v.aval.shape, INPUT) for v in closed.jaxpr.invars[len(inputs) :]]
    actual = [*traced, *jax.tree_util.tree_leaves(example)] if live else [None] * (len(inputs) + len(data))
    start = [_Known(value, None, array) for value, array in zip((*inputs, *data), actual, strict=True)]
    walk = _Walk(flow, jax, live=live)
    outputs = walk.run(closed.jaxpr, closed.consts, start)
    summary = Summary(flow, [known.value for known in outputs])
    return summary, walk.seen(summary) if live else {}


class _Walk:
    """Follows a jaxpr equation by equation; live, it computes what it follows."""

    def __init__(self, flow: Flow, jax: Any, *, live: bool) -> None:
        self.flow, self.jax, self.live = flow, jax, live
        self._actual: dict[int, tuple[Value, Any]] = {}

    def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[_Known]) -> list[_Known]:
        """What is known of the outputs of a jaxpr."""
        env: dict[Any, _Known] = {}

        def read(var: Any) -> _Known:
            return self._constant(var.val) if hasattr(var, "val") else env[var]

        env.update(zip(jaxpr.constvars, map(self._constant, consts), strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            known = [read(v) for v in eqn.invars]
            name = eqn.primitive.name
            if name in _CALLS:
                inner = eqn.params[_CALLS[name]]
                body, held = (inner.jaxpr, inner.consts) if hasattr(inner, "jaxpr") else (inner, ())
                found = self.run(body, held, known)
            else:
                found = self._equation(eqn, known)
                found = self._computed(eqn, known, found) if self.live else found
            env.update(zip(eqn.outvars, found, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _computed(self, eqn: Any, known: list[_Known], found: list[_Known]) -> list[_Known]:
        out = eqn.primitive.bind(*(k.actual for k in known), **eqn.params)
        out = out if eqn.primitive.multiple_results else [out]
        done = [replace(k, actual=array) for k, array in zip(found, out, strict=True)]
        self._actual.update({id(k.value): (k.value, k.actual) for k in done})
        return done

    def seen(self, summary: Summary) -> dict[str, Any]:
        """The values read of the populations whose activation is known, neurons along axis 1."""
        out: dict[str, Any] = {}
        for name, label, value in summary.visible():
            if id(value) not in self._actual:
                continue
            pieces = value.pieces()
            where = [k for k, piece in enumerate(pieces) if piece.label is label]
            array = self._actual[id(value)][1].reshape([piece.label.size for piece in pieces])
            if len(where) == 1 and pieces:
                moved = self.jax.numpy.moveaxis(array, where[0], 0)
                flat = moved.reshape(moved.shape[0], value.shape[0], -1) if moved.size else moved[:, None]
                out[name] = self.jax.numpy.moveaxis(flat, 0, 1)
        return out

    def _constant(self, value: Any) -> _Known:
        """One number repeated tells no indices apart; other constants do."""
        shape = np.shape(value)
        try:
            array = np.asarray(value)
            same = array.size > 0 and bool((array == array.flat[0]).all())
        except (TypeError, ValueError):
            same = False
        if same:
            return _Known(self.flow.fixed(shape, None), _Curve(None, np.full(_GRID.shape, array.flat[0])), value)
        why = f"it meets a constant of shape {shape} that is not among the parameters (pass the tree it is in)"
        return _Known(self.flow.fixed(shape, why if shape else None), None, value)

    def _equation(self, eqn: Any, known: list[_Known]) -> list[_Known]:
        name, values = eqn.primitive.name, [k.value for k in known]
        shapes = [v.aval.shape for v in eqn.outvars]
        if name == "split":
            axis = eqn.params["axis"]
            return [_Known(self.flow.pool(values[0], shape, [axis], linear=True)) for shape in shapes]
        found = self._one(name, eqn.params, values, shapes[0]) if len(shapes) == 1 else None
        if found is None:
            opaque = self.flow.opaque(values, shapes, f"the operation {name} is not understood")
            return [_Known(value) for value in opaque]
        if name in _ENTRYWISE or name in _ARITHMETIC or name in _SAME:
            return [self._composed(eqn, known, found)]
        if name == "broadcast_in_dim" and known[0].curve is not None and known[0].curve.base is None:
            return [_Known(found, known[0].curve)]
        return [_Known(found)]

    def _composed(self, eqn: Any, known: list[_Known], found: Value) -> _Known:
        """A function of entries applied to what is a function of the same preactivation, recognised by its values."""
        arrays = [k for k in known if k.array]
        straight = [k for k in arrays if k.value.stage == "linear"]
        linear = found.stage == "linear" and "mixed" not in found.flags
        for trial in (True, False):  # first the last linear value as preactivation, then an earlier one
            if trial and (linear or not straight or len(arrays) != 1):
                continue
            curves = [self._curve(k, fresh=trial) for k in known]
            bases = {id(c.base): c.base for c in curves if c is not None and c.base is not None}
            if any(c is None for c in curves) or len(bases) > 1:
                continue
            values = self._evaluated(eqn, [c.values for c in curves if c is not None])
            if values is None:
                continue
            base = next(iter(bases.values()), None)
            curve = _Curve(base, values)
            if base is None or linear:
                return _Known(found, curve)
            row = _row(values)
            if row is not None or not trial:
                stage: Stage = "other" if row is None else "pointwise"
                return _Known(replace(base, shape=found.shape, axes=found.axes, stage=stage, function=row), curve)
        return _Known(found)

    @staticmethod
    def _curve(known: _Known, *, fresh: bool) -> _Curve | None:
        if known.curve is not None and not (fresh and known.array):
            return known.curve
        if known.value.stage != "linear":
            return None
        curve = known.curve
        scaled = curve is not None and not (curve.base is known.value and np.array_equal(curve.values, _GRID))
        return _Curve(replace(known.value) if scaled else known.value, _GRID)

    def _evaluated(self, eqn: Any, curves: list[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
        """The operation on the grid, in the precision of the trace."""
        try:
            with self.jax.ensure_compile_time_eval():
                given = [self.jax.numpy.asarray(c, dtype=v.aval.dtype) for c, v in zip(curves, eqn.invars, strict=True)]
                out = eqn.primitive.bind(*given, **eqn.params)
            return np.asarray(out)
        except (TypeError, ValueError):
            return None

    def _one(self, name: str, params: dict[str, Any], values: list[Value], shape: Any) -> Value | None:
        flow, first = self.flow, values[0] if values else None
        if first is None:
            return flow.fixed(shape, f"it meets what {name} makes")
        if name in ("add", "sub", "add_any"):
            return flow.add(first, values[1], shape)
        if name in ("mul", "div"):
            if name == "div" and (values[1].stage != "fixed" or values[1].pure):
                values[1] = flow.pointwise(values[1], None)
            return flow.multiply(first, values[1], shape)
        if name == "neg" or name in _SAME:
            return first
        if name in _ENTRYWISE:
            return self._entrywise(values, shape)
        if name == "dot_general":
            over, batch = params["dimension_numbers"]
            return flow.contract(first, values[1], over, batch)
        if name == "conv_general_dilated":
            return self._convolution(params, values, shape)
        if name in ("reshape", "squeeze", "expand_dims"):
            return flow.reshape(first, shape) if params.get("dimensions") is None or name != "reshape" else None
        if name == "transpose":
            return flow.transpose(first, params["permutation"])
        if name == "broadcast_in_dim":
            return flow.broadcast(first, shape, params["broadcast_dimensions"])
        if name == "gather":
            return self._lookup(params, values, shape)
        if name.startswith("reduce_window") and "window_dimensions" in params:
            over = [k for k, size in enumerate(params["window_dimensions"]) if size != 1 or first.shape[k] != shape[k]]
            return flow.pool(first, shape, over, linear=name == "reduce_window_sum")
        if name.startswith("reduce_") and "axes" in params:
            return flow.reduce(first, params["axes"], linear=name == "reduce_sum")
        if name in ("argmax", "argmin"):
            return flow.pointwise(flow.reduce(first, params["axes"], linear=False), None)
        if name in ("slice", "pad", "rev", "concatenate", "cumsum", "cumprod", "cummax", "cumlogsumexp"):
            return self._along(name, params, values, shape)
        return None

    def _lookup(self, params: dict[str, Any], values: list[Value], shape: Any) -> Value | None:
        """Rows of a table of parameters, as an embedding takes them."""
        numbers, (table, index) = params["dimension_numbers"], values
        if getattr(numbers, "operand_batching_dims", ()) or not table.pure or index.pure:
            return None
        whole = [k for k, n in enumerate(params["slice_sizes"]) if k not in numbers.collapsed_slice_dims]
        cut = [k for k, n in enumerate(params["slice_sizes"]) if n != table.shape[k]]
        if set(cut) & set(whole):
            return None
        self.flow.pin([table], POSITION, cut)
        self.flow.pin([index], INPUT)
        return self.flow.looked_up(table, whole, numbers.offset_dims, shape)

    def _convolution(self, params: dict[str, Any], values: list[Value], shape: Any) -> Value | None:
        """Data with a kernel of parameters, without groups or with one group for each channel."""
        data, kernel = values
        lhs, rhs, out = params["dimension_numbers"]
        groups = params["feature_group_count"]
        if not kernel.pure or data.pure or params["batch_group_count"] != 1 or lhs[1] != out[1]:
            return None
        if groups == 1:
            return self.flow.convolve(data, kernel, lhs[1], rhs[1], rhs[0], shape)
        if groups == data.shape[lhs[1]] == kernel.shape[rhs[0]]:
            return self.flow.depthwise(data, kernel, lhs[1], rhs[0], shape)
        return None

    def _along(self, name: str, params: dict[str, Any], values: list[Value], shape: Any) -> Value | None:
        """Operations that tell indices apart along some axes only."""
        flow, first = self.flow, values[0]
        if name == "slice" or name == "pad":
            if name == "pad":
                over = [k for k, row in enumerate(params["padding_config"]) if tuple(row) != (0, 0, 0)]
            else:
                over = [k for k, n in enumerate(shape) if n != first.shape[k]]
        elif name == "rev":
            over = list(params["dimensions"])
        else:
            over = [int(params.get("axis", params.get("dimension", 0)))]
        for value in values:
            if len(value.shape) == len(shape):
                flow.pin([value], f"{name} tells its indices apart", over)
        if name == "concatenate":
            out = values[0]
            for value in values[1:]:
                pieces = [k for k in range(len(shape)) if k not in over]
                left, right = (self._without(v, over) for v in (out, value))
                joined = flow.add(left, right, [shape[k] for k in pieces])
                out = Value(tuple(shape), self._with(joined, over, shape), made=joined.made, stage=joined.stage,
                            pure=joined.pure, flags=joined.flags)  # fmt: skip
            return out
        return flow.pool(first, shape, over, linear=True) if over else first

    @staticmethod
    def _without(value: Value, over: Sequence[int]) -> Value:
        keep = [k for k in range(len(value.shape)) if k not in over]
        return Value(tuple(value.shape[k] for k in keep), tuple(value.axes[k] for k in keep), value.pure, value.made,
                     value.stage, value.function, value.flags)  # fmt: skip

    def _with(self, value: Value, over: Sequence[int], shape: Sequence[int]) -> Any:
        fresh = self.flow.fixed(shape, "concatenated")
        rest = iter(value.axes)
        return tuple(fresh.axes[k] if k in over else next(rest) for k in range(len(shape)))

    def _entrywise(self, values: list[Value], shape: Any) -> Value:
        """Functions of entries: of one array, or of several of one shape."""
        flow = self.flow
        arrays = [v for v in values if v.pieces() or v.stage != "fixed" or v.pure]
        out = flow.fixed(shape, None) if not arrays else flow.pointwise(arrays[0], None)
        for value in arrays[1:]:
            out = flow.pointwise(flow.add(out, value, shape), None)
        return out


def _row(values: npt.NDArray[Any]) -> Activation | None:
    """The activation of the table with these values on the grid, up to rounding in float32."""
    found = values.astype(np.float64)
    slope = float(np.float32(-found[_MINUS_ONE]))
    rows = [find_activation(name) for name in activation_names() if name not in ("polynomial", "clip", "identity")]
    rows += [find_activation("leaky_relu", slope)] if np.isfinite(slope) and 0 < abs(slope) < 1 else []
    rows += [find_activation("clip")]
    for row in rows:
        if np.allclose(found, row(_GRID), rtol=2e-5, atol=2e-6):
            return row
    return None
