"""Training loops of JAX: trees of parameters, gradients and optax states as a watcher sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.errors import InputError, UnsupportedError, import_optional
from fiberscope.io import jax as trees
from fiberscope.io.files import one_line
from fiberscope.training.adapters.jax_optax import optimiser_of_optax
from fiberscope.training.adapters.jax_trees import is_statistic, leaves_of, rebuilt
from fiberscope.training.architectures.architecture import Architecture, Array, Parameters
from fiberscope.training.architectures.chains import architecture_of
from fiberscope.training.drift.rules import OptimiserState
from fiberscope.training.traces.subjects import ArraySubject

if TYPE_CHECKING:
    from fiberscope.training.traces.watchers import Watcher


class PytreeSubject(ArraySubject):
    """A tree of parameters in a loop of JAX, given anew at every step: `watcher.step(params, optimizer=opt_state)`.

    Everything is read on the host, leaf by leaf, outside of compiled code; nothing is kept from one step to the next,
    so trees may be donated to the following step.

    Args:
        params: Flax variables or parameters, `nnx.State` or `nnx.Module`, an Equinox module, or lists and dicts.
        architecture: which axes index which neurons; None to find out.
        activation: of the hidden layers, if names and shapes are to be read as a chain.
        apply: the model as a function (params, x) -> outputs that JAX can trace: then its populations are read off its
            trace (`architecture_of_function`), and dead units are looked at where the model is no chain.
        example: inputs for that trace.
        optimizer: the optax state if it is known already, `nnx.Optimizer`, or an `OptimiserState`.
        rule: what `optimiser_of_optax` must be told, such as {"lr": 0.1, "momentum": 0.9}.

    Example:
        >>> tree = {"Dense_0": {"kernel": np.ones((2, 3))}, "Dense_1": {"kernel": np.ones((3, 1))}}
        >>> subject = PytreeSubject(tree, activation="relu")
        >>> [p.name for p in subject.architecture().populations], list(subject.parameters())
        (['Dense_0'], ['Dense_0/kernel', 'Dense_1/kernel'])
    """

    def __init__(
        self,
        params: Any = None,
        architecture: Architecture | None = None,
        *,
        activation: str | Activation | Sequence[str | Activation] | None = None,
        apply: Callable[[Any, Any], Any] | None = None,
        example: Any = None,
        optimizer: Any = None,
        rule: Mapping[str, Any] | None = None,
    ) -> None:
        self._activation, self._apply, self._example = activation, apply, example
        self._rule = dict(rule or {})
        self._tree: Any = None
        self._raw: Any = None
        self._names: frozenset[str] = frozenset()
        self._looking: Callable[[Any, Any], dict[str, Any]] | None = None
        self._call: Any = None
        super().__init__(params, architecture, optimizer)
        if self._architecture is None and self._parameters is not None:
            self._architecture = self._found()

    def _found(self) -> Architecture:
        if self._apply is not None and self._example is not None:
            from fiberscope.training.adapters.jax_tracing import architecture_of_function

            found = architecture_of_function(self._apply, self._tree, self._example)
            return self._chained(found)
        return architecture_of_tree(self._tree, activation=self._activation)

    def _chained(self, found: Architecture) -> Architecture:
        """The same as a plain chain, if names, the activations found and the outputs near here agree with one."""
        rows = [p.activation for p in found.populations]
        chosen = [row for row in rows if row is not None]
        if found.skipped or not rows or len(chosen) < len(rows):
            return found
        try:
            chain = architecture_of_tree(self._tree, activation=chosen)
            leaves, rng = self._flat(self._tree), np.random.default_rng(0)
            near = {name: _moved(leaves[name], rng) for name in leaves}
            expected = ArraySubject(near, chain).evaluate(self._example)
            output = self.evaluate(self._example, near)
        except InputError:
            return found
        if expected is None or output is None or expected.shape != output.shape or chain.skipped:
            return found
        same = [(p.count, p.activation) for p in chain.populations] == [
            (p.count, p.activation) for p in found.populations
        ]
        close = np.allclose(output, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max(initial=0)))
        return chain if same and close else found

    def architecture(self) -> Architecture:
        """See `Subject`; found when the first parameters come.

        Raises:
            InputError: if it is neither given nor to be found.
        """
        if self._architecture is None and self._parameters is not None:
            self._architecture = self._found()
        return super().architecture()

    def update(
        self, parameters: Any = None, *, gradients: Any = None, optimizer: Any = None, architecture: Any = None
    ) -> None:
        """See `Subject`: trees of one structure, and an optax state."""
        if parameters is not None:
            self._tree = parameters
            self._names = frozenset(leaves_of(parameters))
        super().update(parameters, gradients=gradients, architecture=architecture)
        if optimizer is not None:
            self._raw = optimizer

    def _flat(self, values: Any) -> Parameters:
        leaves = leaves_of(values)
        return _aligned(leaves.without(lambda name: is_statistic(name, self._names)), self._names)

    def optimiser(self) -> OptimiserState | None:
        """See `Subject`; what is hidden in closures of optax is named in `problems`."""
        if self._raw is None or isinstance(self._raw, OptimiserState):
            return self._raw
        try:
            state = optimiser_of_optax(self._raw, **self._rule)
        except InputError as exc:
            self._problem(f"no drift is predicted: {exc}")
            return None
        if state.note and not state.buffers:
            self._problem(f"no drift is predicted: {state.note}")
        object.__setattr__(state, "buffers", {k: _aligned(v, self._names) for k, v in state.buffers.items()})
        return state

    def _problem(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)

    def activations(self, data: Any) -> dict[str, Array] | None:
        """See `Subject`: from the trace of `apply`; None for a chain, which the core runs itself."""
        if self._apply is None or self._tree is None:
            return None
        if self._looking is None:
            from fiberscope.training.adapters.jax_tracing import activations_of_function

            self._looking = activations_of_function(self._apply)
        try:
            found = self._looking(self._tree, data)
        except Exception as exc:  # the user's function runs here and may fail in any way
            self._problem(f"no units were looked at: {type(exc).__name__}: {one_line(exc)[:200]}")
            return {}
        return {name: np.asarray(value) for name, value in found.items() if name in self.architecture().named}

    def evaluate(self, data: Any, parameters: Parameters | None = None) -> Array | None:
        """See `Subject`: `apply` where it was given, else the chain in float64."""
        if self._apply is None:
            return super().evaluate(data, parameters)
        if self._tree is None:
            raise InputError("no parameters to evaluate; hand them over: watcher.step(params)")
        tree = self._tree if parameters is None else rebuilt(self._tree, {**self._levelled(), **parameters})
        out = self._compiled(tree, data)
        return None if isinstance(out, list | tuple | dict) else np.asarray(out)

    def _compiled(self, tree: Any, data: Any) -> Any:
        """The function, compiled once for each shape; what is no array in the tree is a constant."""
        jax = import_optional("jax", extra="jax", purpose="evaluate a function of JAX")
        leaves, structure = jax.tree_util.tree_flatten(tree)
        dynamic = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
        apply = self._apply
        if self._call is None and apply is not None:

            def call(arrays: Any, x: Any) -> Any:
                given = iter(arrays)
                whole = [next(given) if d else leaf for d, leaf in zip(dynamic, kept, strict=True)]
                return apply(jax.tree_util.tree_unflatten(structure, whole), x)

            kept = [None if d else leaf for d, leaf in zip(dynamic, leaves, strict=True)]
            self._call = jax.jit(call)
        arrays = [leaf for d, leaf in zip(dynamic, leaves, strict=True) if d]
        return None if self._call is None else self._call(arrays, data)

    def _levelled(self) -> dict[str, Array]:
        """Running averages that treat all channels alike: at other parameters the old ones mean nothing."""
        leaves = leaves_of(self._tree)
        ends = {"mean": 0.0, "moving_mean": 0.0, "var": 1.0, "moving_variance": 1.0}
        wanted = [n for n in leaves if is_statistic(n, self._names) and n.rpartition("/")[2] in ends]
        return {n: np.full_like(leaves[n], ends[n.rpartition("/")[2]]) for n in wanted}

    def release(self) -> None:
        """See `Subject`; the state of optax is forgotten too, since it may be donated."""
        super().release()
        self._tree = None
        if not isinstance(self._raw, OptimiserState):
            self._raw = None


def architecture_of_tree(
    params: Any, *, activation: str | Activation | Sequence[str | Activation] | None = None
) -> Architecture:
    """The chain that a tree of parameters allows by its names and shapes: a guess, as `architecture_of`.

    Flax kernels are (inputs, outputs), Equinox weights (outputs, inputs) with the activation of the module; pairs
    (W, b) in a list are either, if their shapes say which.

    Args:
        params: the tree.
        activation: of the hidden layers; None if the tree says it, as an `equinox.nn.MLP` does.

    Raises:
        InputError: if the activation is missing.
        UnsupportedError: if names and shapes allow no chain; give `apply` and `example`, or an architecture.

    O(leaves).

    >>> tree = [(np.ones((3, 2)), np.ones(3)), (np.ones((1, 3)), np.ones(1))]
    >>> [(d.weight, d.transposed) for d in architecture_of_tree(tree, activation="tanh").chain]
    [('0/0', False), ('1/0', False)]
    """
    leaves = leaves_of(params)
    given = activation if activation is not None else _own_activation(params)
    shapes = {name: _Shape(leaves.leaf(name)) for name in leaves}
    try:
        pairs = _pairs(shapes)
        if pairs is None:
            return architecture_of(shapes, activation=given)
        renamed = {new: shapes[old] for new, old in pairs.items()}
        found = architecture_of(renamed, activation=given, ordered=True)
    except UnsupportedError as exc:
        raise UnsupportedError(
            f"{exc}; give architecture=, or watch it by jax_watch(params, apply=a function of (params, x), "
            "example=inputs)"
        ) from exc
    return _renamed(found, pairs)


class _Shape:
    """An array of which only shape and dtype are looked at."""

    def __init__(self, leaf: Any) -> None:
        self.shape, self.dtype = tuple(leaf.shape), leaf.dtype


def _own_activation(module: Any) -> list[str] | None:
    """The activations of an equinox.nn.MLP by layer, None if they are not known."""
    layers = getattr(module, "layers", None)
    hidden, final = (trees._named(getattr(module, key, None)) for key in ("activation", "final_activation"))
    if not isinstance(layers, list | tuple) or hidden is None or final is None:
        return None
    return [hidden] * (len(layers) - 1) + [final]


def _pairs(shapes: Mapping[str, _Shape]) -> dict[str, str] | None:
    """For lists of (W,) or (W, b): names that say which is which and how it is stored, to the tree's own names."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        parent, _, leaf = name.rpartition("/")
        if not leaf.isdigit():
            return None
        groups.setdefault(parent, []).append(name)
    ranks = [[len(shapes[n].shape) for n in names] for names in groups.values()]
    if not ranks or any(r not in ([2], [2, 1]) for r in ranks):
        return None
    matrices = [shapes[names[0]].shape for names in groups.values()]
    biases = [shapes[names[1]].shape[0] if len(names) == 2 else None for names in groups.values()]
    ways = []
    for transposed in (False, True):
        ends = [(m[1], m[0])[:: -1 if transposed else 1] for m in matrices]  # (inputs, outputs) of each
        fits = all(b is None or b == out for b, (_, out) in zip(biases, ends, strict=True))
        if fits and all(a[1] == b[0] for a, b in zip(ends, ends[1:], strict=False)):
            ways.append(transposed)
    if len(ways) != 1:
        why = "allow both" if ways else "are no chain in either way"
        raise UnsupportedError(f"pairs (W, b) may be stored as (outputs, inputs) or turned; their shapes {why}")
    kind = "kernel" if ways[0] else "weight"
    out = {}
    for k, names in enumerate(groups.values()):
        out.update(dict(zip((f"{k}/{kind}", f"{k}/bias"), names, strict=False)))
    return out


def _renamed(found: Architecture, names: Mapping[str, str]) -> Architecture:
    """The same under the tree's own names."""
    chain = tuple(
        replace(d, weight=names[d.weight], bias=None if d.bias is None else names[d.bias]) for d in found.chain
    )
    laws = []
    for law in found.laws:
        text = law.name
        for new, old in sorted(names.items(), reverse=True):
            text = text.replace(new, f"({old})")
        laws.append(replace(law, name=text))
    slots = tuple(replace(s, name=names[s.name]) for s in found.slots)
    return Architecture(slots, found.populations, tuple(laws), found.skipped, chain)


def _moved(values: Array, rng: np.random.Generator) -> Array:
    """Values in general position nearby."""
    scale = 0.3 * float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) + 0.1
    return np.asarray(values + scale * rng.standard_normal(values.shape), dtype=values.dtype)


def jax_watch(
    params: Any,
    path: str | Path | None = None,
    *,
    apply: Callable[[Any, Any], Any] | None = None,
    example: Any = None,
    rule: Mapping[str, Any] | None = None,
    activation: str | Activation | Sequence[str | Activation] | None = None,
    architecture: Architecture | None = None,
    **options: Any,
) -> Watcher:
    """Watch a loop of JAX: `watcher.step(params, gradients=grads, optimizer=opt_state, loss=loss)` after every step.

    The watcher works on the host, between compiled steps; it is no part of them.

    Args:
        params: the tree at the start.
        path: of the trace; None keeps it in memory.
        apply: the model as a function (params, x), see `PytreeSubject`.
        example: inputs to trace it with; None takes `data`.
        rule: what optax hides, such as {"lr": 0.1, "momentum": 0.9}; see `optimiser_of_optax`.
        activation: of a chain that is recognised by names and shapes.
        architecture: which axes index which neurons, if neither is to be used.
        options: further arguments of `watch`: every, data, loggers, force, resume, ...

    Raises:
        InputError: as `watch` and `PytreeSubject` do.

    >>> tree = {"Dense_0": {"kernel": np.ones((1, 2))}, "Dense_1": {"kernel": np.ones((2, 1))}}
    >>> with jax_watch(tree, activation="relu", every=1) as watcher:
    ...     watcher.step(tree)["fiberscope/sims/nearest_distance"]
    0.0
    """
    from fiberscope.training.traces.watchers import watch

    subject = PytreeSubject(
        params, architecture, activation=activation, apply=apply,
        example=options.get("data") if example is None else example, rule=rule,
    )  # fmt: skip
    return watch(subject, path, **options)


class _Prefixed(Mapping[str, npt.NDArray[Any]]):
    """Values of a part of the tree under the names of the whole."""

    def __init__(self, values: Parameters, prefix: str) -> None:
        self._values, self._prefix = values, prefix

    def __getitem__(self, name: str) -> Any:
        if not name.startswith(self._prefix):
            raise KeyError(name)
        return self._values[name[len(self._prefix) :]]

    def __iter__(self) -> Iterator[str]:
        return (self._prefix + name for name in self._values)

    def __len__(self) -> int:
        return len(self._values)


def _aligned(values: Parameters, names: frozenset[str]) -> Parameters:
    """Values under the names of the parameters, where they are of a part of that tree, such as its "params"."""
    if not names or not len(values) or all(name in names for name in values):
        return values
    first = next(iter(values))
    ends = [name[: -len(first)] for name in names if name.endswith("/" + first)]
    fitting = [prefix for prefix in ends if all(prefix + name in names for name in values)]
    return _Prefixed(values, fitting[0]) if len(fitting) == 1 else values
