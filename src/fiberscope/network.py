"""Networks: immutable chains of affine maps and elementwise activations, exact in every weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation, Given, layer_activations
from fiberscope.arguments import (
    as_count,
    as_exact,
    as_float_dtype,
    as_floats,
    as_generator,
    kind_of,
    require_finite,
    shown,
)
from fiberscope.errors import FormatError, InputError, ScopeError
from fiberscope.layers import Frame as Frame
from fiberscope.layers import Layer as Layer
from fiberscope.layers import affine_enclosure as affine_enclosure

if TYPE_CHECKING:
    from fiberscope.domains import Box

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

HEADS = ("softmax", "log_softmax", "argmax")
"""Output heads: functions after the last affine layer that keep the order of the logits."""


@dataclass(frozen=True)
class Source:
    """Where a network was read from.

    Args:
        path: file name as given by the user ("" for objects in memory).
        format: "onnx", "nnet", "torch", ...
        sha256: hash of the file's bytes (None for objects in memory).
        dtype: float dtype of the file's weights.
        parameter_count: number of the file's own parameters (of the selected part).
        tensors: (name, shape) of those parameters.
        part: which of several networks in one file.
        box: an input box stored in the file, offered as `--domain file`.
        notes: what a reader should know, each one sentence.
        approximations: folds that had to round, so that statements hold for the chain and not for the file.
        extra: what the format needs to write a drop-in.
    """

    path: str = ""
    format: str = ""
    sha256: str | None = None
    dtype: str = "float64"
    parameter_count: int = 0
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = ()
    part: str | None = None
    box: Box | None = None
    notes: tuple[str, ...] = ()
    approximations: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Network:
    """f(x) = W_L s(... s(W_1 x + b_1) ...) + b_L, followed by an optional output head.

    Args:
        layers: the affine maps with their activations; the last one usually has the identity.
        head: None or one of `HEADS`; evaluation returns the logits, `head` is only recorded.
        source: where it was read from.

    Raises:
        FormatError: if consecutive layers do not fit.

    >>> net = Network.from_arrays(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]), activation="relu")
    >>> net.widths
    (1, 2, 1)
    >>> net(np.array([[-3.0], [2.0]])).tolist()
    [[3.0], [2.0]]
    """

    layers: tuple[Layer, ...]
    head: str | None = None
    source: Source | None = None

    def __post_init__(self) -> None:
        """Check that layers fit together."""
        layers = self.layers
        if not isinstance(layers, Sequence) or not all(isinstance(layer, Layer) for layer in layers):
            raise InputError(
                f"layers {shown(layers)}; give a sequence of Layer, or use Network.from_arrays((W1, b1), (W2, b2), ...)"
            )
        object.__setattr__(self, "layers", tuple(layers))
        if not self.layers:
            raise FormatError("network has no layers; expected at least one affine map")
        for k, (below, above) in enumerate(zip(self.layers, self.layers[1:], strict=False), start=1):
            if below.n_out != above.n_in:
                first, second = (layer.name or f"layer {i}" for i, layer in ((k, below), (k + 1, above)))
                raise FormatError(f"{first} has {below.n_out} outputs but {second} takes {above.n_in}")
        if self.head is not None and self.head not in HEADS:
            raise FormatError(f"unknown output head {self.head!r}; expected one of {', '.join(HEADS)}")

    @classmethod
    def from_arrays(
        cls,
        *pairs: tuple[npt.ArrayLike, npt.ArrayLike | None],
        activation: Given | Sequence[Given] = "relu",
        head: str | None = None,
        source: Source | None = None,
    ) -> Network:
        """Build a chain from (W, b) pairs; b may be None for zero.

        Args:
            pairs: weights (n_out, n_in) and biases (n_out,), floats of any dtype, integers or Fractions.
            activation: one hidden activation for all, or one for each hidden layer (and the last one); text may list
                them with commas.
            head: output head.
            source: provenance.

        Raises:
            InputError: if there are no pairs, the number of activations is wrong, or arrays do not fit; the message
                names the array.

        >>> Network.from_arrays(([[1, 2], [3, 4], [5, 6]], [0, 0, 1]), ([[1, 1, 1]], None), activation="tanh")
        Network(2-3-1 tanh, 13 parameters)
        """
        if not pairs:
            raise InputError("no layers; give one pair (W, b) for each, for instance from_arrays((W1, b1), (W2, b2))")
        rows = layer_activations(len(pairs), activation)
        layers = []
        for k, (pair, row) in enumerate(zip(pairs, rows, strict=True), start=1):
            weight, bias = _weight_and_bias(pair, k)
            matrix = as_exact(weight, f"W{k}")
            vector = np.zeros(matrix.shape[:1], _float_dtype(matrix)) if bias is None else as_exact(bias, f"b{k}")
            layers.append(Layer(matrix, vector, row, name=f"layer {k}"))
        return cls(tuple(layers), head, source)

    @classmethod
    def random(
        cls,
        widths: Sequence[int],
        *,
        activation: Given | Sequence[Given] = "relu",
        seed: int | np.random.Generator | None = None,
        dtype: npt.DTypeLike = np.float64,
        bias: bool = True,
    ) -> Network:
        """Gaussian weights of variance 1/n_in (2/n_in after ReLU-like layers), small Gaussian biases.

        Args:
            widths: (n_0, ..., n_L).
            activation: as in `from_arrays`.
            seed: seed or generator; None for another network every time.
            dtype: float dtype of the weights, float16, float32 or float64.
            bias: whether biases are drawn (else they are 0).

        Raises:
            InputError: for fewer than two widths, one that is no whole number >= 1, or another dtype or seed.
            UnsupportedError: for an unknown activation.

        >>> Network.random((2, 3, 1), activation="tanh", seed=0).widths
        (2, 3, 1)
        """
        sizes, dtype, rng = whole_widths(widths), as_float_dtype(dtype), as_generator(seed)
        rows = layer_activations(len(sizes) - 1, activation)
        drawn_for = [*rows[:-1], rows[-2]] if len(rows) > 1 else layer_activations(2, activation)[:1]
        pairs = []
        for row, n_in, n_out in zip(drawn_for, sizes, sizes[1:], strict=False):
            gain = 2.0 if row.homogeneity == 1 and row.name != "identity" else 1.0
            weight = rng.standard_normal((n_out, n_in)) * np.sqrt(gain / n_in)
            shift = 0.1 * rng.standard_normal(n_out) if bias else np.zeros(n_out)
            pairs.append((weight.astype(dtype), shift.astype(dtype)))
        return cls.from_arrays(*pairs, activation=rows)

    # ---- shape and parameters

    @property
    def depth(self) -> int:
        """Number of affine layers."""
        return len(self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """(n_0, n_1, ..., n_L)."""
        return (self.layers[0].n_in, *(layer.n_out for layer in self.layers))

    @property
    def hidden(self) -> tuple[Layer, ...]:
        """All layers but the last."""
        return self.layers[:-1]

    @property
    def hidden_count(self) -> int:
        """Total number of hidden neurons."""
        return sum(layer.n_out for layer in self.hidden)

    @property
    def parameter_count(self) -> int:
        """Number of entries of `theta`."""
        return sum(layer.weight.size + layer.bias.size for layer in self.layers)

    @property
    def activation(self) -> Activation | None:
        """The hidden activation if all hidden layers share one, else None."""
        rows = {layer.activation for layer in self.hidden}
        return rows.pop() if len(rows) == 1 else None

    @property
    def architecture(self) -> str:
        """Widths and activations in one phrase, "3-8-6-2 tanh"."""
        names = list(dict.fromkeys(layer.activation.label for layer in self.hidden)) or ["affine"]
        return "-".join(str(n) for n in self.widths) + " " + "/".join(names)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The file's float dtype if it has one, else the widest of the arrays (float64 for rationals)."""
        if self.source is not None and self.source.sha256 is not None:
            return np.dtype(self.source.dtype)
        return np.result_type(*(_float_dtype(a) for layer in self.layers for a in (layer.weight, layer.bias)))

    @property
    def theta(self) -> ExactArray:
        """All parameters, (M,): for each layer W row by row, then b."""
        parts = [a.reshape(-1) for layer in self.layers for a in (layer.weight, layer.bias)]
        if any(rationals.is_rational(p) for p in parts):
            parts = [rationals.fractions(p) for p in parts]
        return np.concatenate(parts)

    def with_theta(self, theta: npt.ArrayLike) -> Network:
        """The same architecture at other parameters, shape (M,).

        Raises:
            InputError: if the number of parameters differs, or one is no finite number.

        >>> net = Network.random((1, 1), seed=0).with_theta([2, 1])
        >>> net([3.0]).tolist()
        [7.0]
        """
        vector = as_exact(theta, "theta")
        if vector.shape != (self.parameter_count,):
            raise InputError(f"theta has shape {vector.shape}; the network has {self.parameter_count} parameters")
        layers, at = [], 0
        for layer in self.layers:
            weight = vector[at : at + layer.weight.size].reshape(layer.weight.shape)
            at += layer.weight.size
            bias = vector[at : at + layer.bias.size]
            at += layer.bias.size
            layers.append(replace(layer, weight=weight, bias=bias))
        return replace(self, layers=tuple(layers))

    def with_layers(self, layers: Sequence[Layer]) -> Network:
        """The same head and source over other layers.

        Raises:
            InputError: if the layers are none, or do not fit together.
        """
        return replace(self, layers=tuple(layers))

    @property
    def folded(self) -> tuple[str, ...]:
        """What was folded or unrolled to make this chain; empty when theta is the file's own parameters."""
        return tuple(f"{layer.name}: {text}" for layer in self.layers for text in layer.folded)

    def require_own_parameters(self, statement: str) -> None:
        """Refuse a statement about training when theta is not what a user trains.

        Raises:
            ScopeError: if any layer was folded or unrolled; the statement and the layer are named.
        """
        if self.folded:
            raise ScopeError(
                f"{statement} is about the parameters that are trained, but {self.folded[0]}; "
                "statements about the function still hold"
            )

    # ---- evaluation

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        """Logits in float64, (n_L,) for x of shape (n_0,), or (B, n_L) for (B, n_0); NaN and infinities pass through.

        Raises:
            InputError: if x has another shape, or an entry that is no number.
        """
        return self._forward(x, np.dtype(np.float64))

    def replay(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """Logits computed in the file's own dtype (`dtype`), as its runtime would.

        Raises:
            InputError: as for a call.

        >>> Network.random((2, 3, 1), dtype="float16", seed=0).replay([0.5, 1]).dtype
        dtype('float16')
        """
        return self._forward(x, self.dtype)

    def preactivations(self, x: npt.ArrayLike) -> list[FloatArray]:
        """Pre-activations z_1, ..., z_L in float64, each (B, n_l), for x of shape (B, n_0) or (n_0,), B = 1.

        Raises:
            InputError: as for a call.

        >>> net = Network.from_arrays(([[1.0], [-1.0]], [0.0, 0.5]), ([[1.0, 1.0]], [0.0]))
        >>> [z.tolist() for z in net.preactivations([2.0])]
        [[[2.0, -1.5]], [[2.0]]]
        """
        h = self._points(x, np.dtype(np.float64))[0]
        out = []
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # inf and NaN say it themselves
            for layer in self.layers:
                z = h @ layer.weight64.T + layer.bias64
                out.append(z)
                h = layer.activation.function(z)
        return out

    def _points(self, x: npt.ArrayLike, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], bool]:
        points = as_floats(x, "input", dtype)
        single = points.ndim == 1
        if points.shape[-1:] != (self.widths[0],) or points.ndim > 2:
            raise InputError(
                f"input has shape {points.shape}; expected ({self.widths[0]},) or (batch, {self.widths[0]})"
            )
        return np.atleast_2d(points), single

    def _forward(self, x: npt.ArrayLike, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        h, single = self._points(x, dtype)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # inf and NaN say it themselves
            for layer in self.layers:
                z = h @ layer.weight64.astype(dtype, copy=False).T + layer.bias64.astype(dtype, copy=False)
                h = layer.activation.function(z)
        return h[0] if single else h

    def exact(self, x: npt.ArrayLike | Sequence[Fraction | int | float]) -> tuple[Fraction, ...]:
        """Logits at a rational point by rational arithmetic. O(parameters) rational operations.

        Raises:
            ScopeError: if an activation has no rational value there (tanh of anything but 0).
            InputError: if x is no point of n_0 finite numbers; floats are the rationals that they are.

        >>> net = Network.from_arrays(([[1.0]], [0.5]), ([[2.0]], [0.0]))
        >>> net.exact([Fraction(1, 3)])
        (Fraction(5, 3),)
        """
        h = as_exact(x, "input")
        if h.shape != (self.widths[0],):
            raise InputError(f"input has shape {h.shape}; expected ({self.widths[0]},)")
        require_finite(h, "input")
        for layer in self.layers:
            live = np.flatnonzero(h != 0)  # a sparse point costs little
            z = rationals.fractions(rationals.add(rationals.matmul(layer.weight[:, live], h[live]), layer.bias))
            values = [layer.activation.value(q) for q in z]
            if any(v is None for v in values):
                raise ScopeError(
                    f"{layer.activation.label} has no known rational value at a pre-activation of {layer.name}"
                )
            h = np.array(values, dtype=object)
        return tuple(h)

    def enclose(self, box: Box | str | None) -> list[tuple[FloatArray, FloatArray]]:
        """Certified enclosures of the pre-activations z_1, ..., z_L over a box, by outward-rounded intervals.

        Args:
            box: as in `domain`.

        Returns:
            For each layer (lower, upper), each (n_l,). The last pair encloses the logits when the last activation is
            the identity. O(parameters).

        Raises:
            InputError: as for `domain`.

        >>> low, high = Network.from_arrays(([[1.0, -1.0]], [0.0])).enclose("[0,1]")[0]
        >>> bool(low[0] <= -1 and high[0] >= 1)
        True
        """
        box = self.domain(box)
        low, high = box.lower, box.upper
        out = []
        for layer in self.layers:
            lower, upper = affine_enclosure(layer, low, high)
            out.append((lower, upper))
            low, high = layer.activation.enclose(lower, upper)
        return out

    def domain(self, domain: Box | str | Path | None) -> Box:
        """The box that a user names: a `Box`, text for `Box.parse`, "file" for the one stored in the file.

        Args:
            domain: None is all of R^n; a path is that of a JSON file.

        Raises:
            InputError: if the file stores none, the text is no domain, or the number of inputs differs.

        >>> print(Network.from_arrays(([[1.0]], [0.0])).domain("[0,1]"))
        [0, 1]^1
        """
        from fiberscope.domains import Box

        if isinstance(domain, Box):
            box = domain
        elif domain is None:
            box = Box.everywhere(self.widths[0])
        elif domain == "file":
            if self.source is None or self.source.box is None:
                what = "the file stores no input box" if self.source and self.source.path else "there is no file"
                raise InputError(f"--domain file: {what}; give '[lo,hi]' or a JSON file")
            box = self.source.box
        else:
            box = Box.parse(domain, self.widths[0])
        if box.dimension != self.widths[0]:
            raise InputError(f"domain has {box.dimension} inputs; the network takes {self.widths[0]}")
        return box

    # ---- identity

    @cached_property
    def digest(self) -> str:
        """sha256 of what the chain is: activations, shapes, exact weights and head, whatever dtype holds them."""
        state = hashlib.sha256(b"fiberscope network 1\n")
        state.update((self.head or "").encode())
        for layer in self.layers:
            state.update(json.dumps([layer.activation.spec, layer.weight.shape], sort_keys=True).encode())
            for array in (layer.weight, layer.bias):
                state.update(rationals.canonical_bytes(array))
        return state.hexdigest()

    def same_as(self, other: Network) -> bool:
        """Whether two chains have the same widths, activations, head and exact weights; `==` asks the same.

        Whether they compute the same function is asked by `fiberscope.equal`.

        Raises:
            InputError: if the other is no network.

        >>> net = Network.random((2, 3, 1), seed=0)
        >>> net.same_as(net.with_theta(net.theta))
        True
        """
        require_network(other, "the other network")
        return (
            self.widths == other.widths
            and self.head == other.head
            and all(
                a.activation == b.activation and rationals.equal(a.weight, b.weight) and rationals.equal(a.bias, b.bias)
                for a, b in zip(self.layers, other.layers, strict=True)
            )
        )

    def __eq__(self, other: object) -> bool:
        """See `same_as`; where the networks were read from does not count."""
        return self.same_as(other) if isinstance(other, Network) else NotImplemented

    def __hash__(self) -> int:
        """Of the digest, O(parameters) once."""
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made by the constructor and without what was computed meanwhile."""
        return Network, (self.layers, self.head, self.source)

    def __str__(self) -> str:
        """Architecture and number of parameters in one line."""
        return f"Network({self.architecture}, {self.parameter_count} parameters)"

    __repr__ = __str__


def require_network(net: object, name: str = "net") -> None:
    """Refuse whatever is no network, and say how to make one of it.

    Args:
        net: what was given.
        name: what it was given for, in words that begin the message.

    Raises:
        InputError: if it is no `Network`.

    >>> require_network(Network.random((1, 1), seed=0))
    """
    if isinstance(net, Network):
        return
    if isinstance(net, str | Path):
        raise InputError(f"{name} is {shown(net)}, no Network; read it first: fs.load({shown(str(net))})")
    raise InputError(
        f"{name} is of type {kind_of(net)}, no Network; make one with fs.load(...) or fs.Network.from_arrays(...)"
    )


def whole_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Widths (n_0, ..., n_L) of a chain.

    Raises:
        InputError: for fewer than two, or one that is no whole number >= 1.

    >>> whole_widths([2, 3, 1])
    (2, 3, 1)
    """
    listed = isinstance(widths, list | tuple | range | np.ndarray)
    given = tuple(widths) if listed and getattr(widths, "ndim", 1) == 1 else ()
    try:
        sizes = tuple(as_count(n, "width", 1) for n in given)
    except InputError:
        sizes = ()
    if len(sizes) < 2:
        raise InputError(f"widths {shown(widths)}; give at least two whole numbers >= 1, inputs first")
    return sizes


def _weight_and_bias(pair: Any, k: int) -> tuple[Any, Any]:
    """The two arrays of one layer as a user gave them."""
    wanted = f"layer {k}: expected a pair (W{k}, b{k}) of a matrix (n_out, n_in) and a vector (n_out,) or None, got "
    if isinstance(pair, np.ndarray) and pair.dtype != object:
        raise InputError(f"{wanted}one array of shape {pair.shape}")
    if not isinstance(pair, Sequence | np.ndarray) or isinstance(pair, str):
        raise InputError(wanted + shown(pair))
    if len(pair) != 2:
        raise InputError(f"{wanted}{len(pair)} of them")
    if all(isinstance(item, list | tuple) and len(item) == 2 and _is_matrix(item[0]) for item in pair):
        raise InputError(f"{wanted}a list of pairs; give each as an argument of its own: from_arrays(*pairs)")
    return pair[0], pair[1]


def _is_matrix(value: Any) -> bool:
    try:
        return np.ndim(value) == 2
    except ValueError:
        return False


def _float_dtype(array: ExactArray) -> np.dtype[Any]:
    return np.dtype(np.float64) if rationals.is_rational(array) else array.dtype
