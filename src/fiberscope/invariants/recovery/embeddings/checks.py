"""What an embedding keeps, measured: outputs, gradients, Hessians and their inertia, beside the exact conditions.

An embedding is an affine map theta -> T theta + c of parameters with f_(T theta + c) = f_theta, and its gradients are
g' = S g with T^T S = 1. So H = T^T H' T and H' T = S H at every point: the wide Hessian has at least as many positive,
negative and zero eigenvalues (arXiv 2111.15527, theorem 6.2, there at critical points).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_count, as_finite
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.invariants.arguments import as_pair
from fiberscope.invariants.recovery.embeddings.embedding import Embedding
from fiberscope.invariants.recovery.embeddings.layermaps import LayerMap
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.network import Network, require_network
from fiberscope.results import Result, Rigor

FloatArray = npt.NDArray[np.float64]

_OUTPUT, _GRADIENT, _HESSIAN = 1e-12, 1e-10, 1e-9
_CLEAR = 100.0
"""A gap of eigenvalues at least this large counts as one."""


@dataclass(frozen=True, eq=False)
class Inertia(Result):
    """Signs of the eigenvalues of a Hessian in floats.

    Args:
        positive, zero, negative: their numbers.
        threshold: below which an eigenvalue counts as zero.
        gap: the smallest one that counts over the largest one that does not; inf where there is none of either kind.
    """

    positive: int
    zero: int
    negative: int
    threshold: float
    gap: float
    rigor: Rigor = Rigor.NUMERICAL

    @property
    def counts(self) -> tuple[int, int, int]:
        """(positive, zero, negative)."""
        return self.positive, self.zero, self.negative

    @property
    def clear(self) -> bool:
        """Whether the gap is at least 100."""
        return self.gap >= _CLEAR

    @classmethod
    def of(cls, hessian: npt.ArrayLike, tolerance: float) -> Inertia:
        """Inertia of a symmetric matrix (M, M): eigenvalues below tolerance times the largest count as zero. O(M^3).

        >>> Inertia.of([[2.0, 0.0], [0.0, -1.0]], 1e-9).counts
        (1, 0, 1)
        """
        values = np.linalg.eigvalsh(np.asarray(hessian, np.float64))
        size = np.abs(values)
        threshold = tolerance * float(size.max(initial=0.0))
        live = size > threshold
        rest = float(size[~live].max(initial=0.0))
        gap = float(size[live].min()) / rest if live.any() and rest > 0 else math.inf
        positive = int((values[live] > 0).sum())
        return cls(positive, int((~live).sum()), int(live.sum()) - positive, threshold, gap)

    def __str__(self) -> str:
        """One phrase."""
        return f"+{self.positive} 0:{self.zero} -{self.negative} (gap {self.gap:.2g})"


@dataclass(frozen=True, eq=False)
class Verification(Result):
    """An embedding measured on inputs or data. The exact conditions were checked when it was made.

    Args:
        output_change: largest |f'(x) - f(x)| over the inputs, in floats.
        points: number of inputs.
        loss: before and after, None without data.
        gradient_norm: largest entry of the gradient, before and after.
        gradient_error: largest entry of g' - S g.
        hessian_error: largest entry of H' T - S H, over that of S H.
        inertia_before, inertia_after: of the Hessians.
        failures: what does not hold, in words; empty if all does.
        rigor: NUMERICAL: these are float measurements.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"embedding"})

    embedding: Embedding
    output_change: float
    points: int
    loss: tuple[float, float] | None
    gradient_norm: tuple[float, float] | None
    gradient_error: float | None
    hessian_error: float | None
    inertia_before: Inertia | None
    inertia_after: Inertia | None
    failures: tuple[str, ...]
    rigor: Rigor = Rigor.NUMERICAL
    theorems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def gap(self) -> float | None:
        """The smaller gap of the two inertias."""
        if self.inertia_before is None or self.inertia_after is None:
            return None
        return min(self.inertia_before.gap, self.inertia_after.gap)

    @property
    def nondecreasing(self) -> bool | None:
        """Whether none of the three numbers of eigenvalues fell; None without data."""
        if self.inertia_before is None or self.inertia_after is None:
            return None
        pairs = zip(self.inertia_before.counts, self.inertia_after.counts, strict=True)
        return all(a <= b for a, b in pairs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**super().to_dict(), "passed": self.passed, "nondecreasing": self.nondecreasing, "gap": self.gap}

    def __str__(self) -> str:
        """One screen."""
        lines = [f"largest change of an output {self.output_change:.2g} over {self.points} inputs (in floats)"]
        if self.gradient_norm is not None and self.loss is not None:
            a, b = self.gradient_norm
            lines += [
                f"  loss {self.loss[0]:.6g} -> {self.loss[1]:.6g}",
                f"  largest entry of the gradient {a:.2g} -> {b:.2g}, off its prediction by {self.gradient_error:.2g}",
                f"  inertia of the Hessian {self.inertia_before} -> {self.inertia_after}",
                f"  relative error of H' T = S H {self.hessian_error:.2g}",
            ]
        lines += [f"  FAILED: {text}" for text in self.failures] or ["  all that is proved is seen"]
        return "\n".join(lines)


def verify(
    embedding: Embedding,
    data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    *,
    loss: str = "squared",
    network: Network | None = None,
    tolerance: float = 1e-9,
    samples: int = 256,
    seed: int = 0,
) -> Verification:
    """Measure what an embedding keeps: |f' - f|, and with data g' = S g, H' T = S H and the inertia of the Hessians.

    Args:
        embedding: what `embed` gave.
        data: inputs (n, n_0) and targets (n, n_L) or (n,); None: outputs only, on Gaussian inputs.
        loss: "squared", the mean squared error.
        network: another network of the wide widths to be measured in its place, a control.
        tolerance: eigenvalues below this fraction of the largest count as zero; the gap is reported.
        samples: number of Gaussian inputs without data.
        seed: of these.

    Raises:
        InputError: if shapes do not fit.
        UnsupportedError: for another loss, or activations without second derivatives.

    Complexity: O(n M'^2 + M'^3) with data, M' the wide parameters; for depth 3 and more times the widest layer.

    >>> from fiberscope.invariants.recovery.embeddings.embedding import embed
    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [0.0]), activation="tanh")
    >>> found = verify(embed(net, [2]), ([[1.0], [2.0]], [0.5, 1.0]))
    >>> found.passed, found.inertia_before.counts[0] <= found.inertia_after.counts[0]
    (True, True)
    """
    if not isinstance(embedding, Embedding):
        raise InputError(f"embedding of type {type(embedding).__name__}; give what fs.embed returns")
    if network is not None:
        require_network(network, "network")
    samples, seed = as_count(samples, "samples", 1), as_count(seed, "seed")
    if loss != "squared":
        raise UnsupportedError(f"loss {loss!r}; only 'squared' has Hessians here")
    small, wide = embedding.original, network or embedding.network
    if wide.widths != embedding.network.widths:
        raise InputError(f"a network of widths {wide.widths}; expected {embedding.network.widths}")
    if data is None:
        x = np.random.default_rng(seed).standard_normal((samples, small.widths[0]))
    else:
        x, y = (as_finite(values, name) for values, name in zip(as_pair(data), ("inputs", "targets"), strict=True))
        if x.ndim != 2 or x.shape[1] != small.widths[0] or len(y) != len(x):
            raise InputError(f"inputs {x.shape} and targets {y.shape}; expected (n, {small.widths[0]}) and (n, n_L)")
    change, size = float(np.abs(wide(x) - small(x)).max()), float(np.abs(small(x)).max())
    failures = [] if change <= _OUTPUT * max(1.0, size) else [f"an output changes by {change:.2g}"]
    theorems = ("embedding-principle",) if network is None else ()  # it is not about a control
    if data is None:
        return Verification(
            embedding, change, len(x), None, None, None, None, None, None, tuple(failures), theorems=theorems
        )
    if small.layers[-1].activation.name != "identity":
        raise UnsupportedError("derivatives of the loss need an affine last layer")
    bias, output = embedding.trained
    fields = [
        Landscape(
            net.widths, [a.activation for a in net.hidden], x, data[1], bias=bias, output_bias=output
        )
        for net in (small, wide)
    ]  # fmt: skip
    floats = [np.concatenate([np.append(a.weight64, a.bias64) for a in net.layers]) for net in (small, wide)]
    (l0, g0, h0), (l1, g1, h1) = (
        field.curvature(theta[field.kept][None]) for field, theta in zip(fields, floats, strict=True)
    )
    t, s = transfer(embedding)
    t, s = (a[np.ix_(fields[1].kept, fields[0].kept)] for a in (t, s))
    gradient_error = float(np.abs(g1[0] - s @ g0[0]).max())
    curved = s @ h0[0]
    hessian_error = float(np.abs(h1[0] @ t - curved).max()) / max(float(np.abs(curved).max()), 1e-300)
    before, after = Inertia.of(h0[0], tolerance), Inertia.of(h1[0], tolerance)
    norms = float(np.abs(g0).max()), float(np.abs(g1).max())
    if gradient_error > _GRADIENT * max(1.0, norms[1]):
        failures.append(f"the gradient is off its predicted value by {gradient_error:.2g}")
    if hessian_error > _HESSIAN:
        failures.append(f"the Hessian breaks H' T = S H by {hessian_error:.2g} of its size")
    if any(a > b for a, b in zip(before.counts, after.counts, strict=True)):
        failures.append(f"the inertia falls from {before.counts} to {after.counts} (+, 0, -)")
    return Verification(
        embedding, change, len(x), (float(l0[0]), float(l1[0])), norms, gradient_error, hessian_error, before, after,
        tuple(failures), theorems=theorems,
    )  # fmt: skip


def transfer(embedding: Embedding) -> tuple[FloatArray, FloatArray]:
    """T and S, each (M', M) in floats: theta' = T theta + c, and gradients g' = S g of any loss.

    Both are laid out as `Network.theta`, all biases included. T^T S = 1.

    Complexity: O(M' M).

    >>> from fiberscope.invariants.recovery.embeddings.embedding import embed
    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [0.0]), activation="tanh")
    >>> t, s = transfer(embed(net, [2]))
    >>> t[:, 0].tolist(), s[:, 0].tolist()  # both copies read with W1, each gets half of its gradient
    ([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    small, wide = embedding.original, embedding.network
    around = [LayerMap.identity(small.widths[0]), *embedding.map, LayerMap.identity(small.widths[-1])]
    sides = [tuple(a.astype(np.float64) for a in own.matrices(n)) for own, n in zip(around, small.widths, strict=True)]
    t, s = np.zeros((2, wide.parameter_count, small.parameter_count))
    row = column = 0
    for k, layer in enumerate(small.layers):
        (e0, b0), (e1, b1) = sides[k], sides[k + 1]
        height, width = len(e1) * len(e0), layer.weight.size
        t[row : row + height, column : column + width] = np.kron(e1, b0)
        s[row : row + height, column : column + width] = np.kron(b1, e0)
        shift = slice(column + width, column + width + layer.n_out)
        t[row + height : row + height + len(e1), shift] = e1
        s[row + height : row + height + len(e1), shift] = b1
        if k:  # what null neurons send is a constant, so their columns move with the bias
            null = around[k].null
            points = np.array([float(b) for b in around[k].offsets[null]])
            for j, c in zip(null, small.layers[k - 1].activation(points), strict=True):
                s[row + j : row + height : len(e0), shift] = c * b1
        row, column = row + height + len(e1), column + width + layer.n_out
    return t, s
