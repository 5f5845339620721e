"""The kernel of the derivative of theta -> f, with a probe in every kind of region: a check of fiber dimensions.

Where the activity pattern is fixed, a ReLU network is affine in x, and the derivatives of its n_out (n_0 + 1)
coefficients hold all that points of the region can say. The fiber near theta lies in the kernel of all of them, so each
rank that is found bounds its dimension from above: dim <= M - rank. Source: arXiv 2605.18319.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_generator
from fiberscope.errors import InputError, ScopeError
from fiberscope.network import Network
from fiberscope.results import Result, Rigor

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Pattern = tuple[BoolArray, ...]

_EPS = float(np.finfo(np.float64).eps)
_LARGEST = 3000
_GAP = 1e-9


@dataclass(frozen=True)
class DimensionCheck(Result):
    """M - rank of the derivative of theta -> f over sampled regions: an upper bound of the fiber's dimension at theta.

    Args:
        dimension: M - rank.
        rank: of all sampled rows.
        parameters: M.
        regions: activity patterns (for smooth activations: points) that were used.
        kept: smallest singular value counted, relative to the largest; None for an exact rank.
        dropped: largest one not counted, relative to the largest; 0 if there is none, None for an exact rank.
        expected: dimension from the theorem, None without one.
        rigor: NUMERICAL, or EXACT for a rank over Q (then `dimension` is proved to be an upper bound).
    """

    dimension: int
    rank: int
    parameters: int
    regions: int
    kept: float | None
    dropped: float | None
    expected: int | None
    rigor: Rigor

    @property
    def agrees(self) -> bool | None:
        """Whether it meets the dimension from signs; None without one."""
        return None if self.expected is None else self.dimension == self.expected

    def __str__(self) -> str:
        """One line."""
        gap = f"; singular values {self.kept:.1e} | {self.dropped:.1e}" if self.kept is not None else " over Q"
        seen = f" (from signs: {self.expected})" if self.expected is not None else ""
        return f"M - rank = {self.parameters} - {self.rank} = {self.dimension}{seen}, {self.regions} regions{gap}"


def kernel_dimension(
    net: Network, seed: int | np.random.Generator | None = 0, *, expected: int | None = None, exact: bool = False,
    regions: int | None = None,
) -> DimensionCheck:  # fmt: skip
    """M - rank of the derivatives of all affine coefficients of f over sampled activity patterns.

    Args:
        net: a ReLU network of any depth, or one with tanh or sigmoid throughout.
        seed: of the probes.
        expected: dimension from a theorem, to compare with.
        exact: rank over Q instead of singular values (slower; ReLU only).
        regions: most patterns used; default grows with the width.

    Raises:
        ScopeError: for other activations.
        InputError: if there are more than 3,000 parameters.

    O(regions n_out n_0 M^2). Source: arXiv 2605.18319.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> kernel_dimension(net).dimension  # two scalings and the shift of a hidden kink
    3
    """
    size = net.parameter_count
    if size > _LARGEST:
        raise InputError(f"{size} parameters; the derivative is only built for at most {_LARGEST}")
    names = {layer.activation.name for layer in net.hidden} | {net.layers[-1].activation.name}
    rng = as_generator(seed)
    blocks: Iterator[npt.NDArray[Any]]
    if names <= {"relu", "identity"}:
        limit = regions or 60 + 40 * net.hidden_count
        found = list(patterns(net, rng, limit))
        blocks = (coefficient_rows(net, pattern, exact=exact) for pattern in found)
    elif names <= {"tanh", "sigmoid", "identity"} and not exact:
        found = [()] * (regions or 2 * size + 20)
        points = rng.standard_normal((len(found), net.widths[0])) * 2.0 ** rng.uniform(-1, 2, (len(found), 1))
        blocks = (point_rows(net, x) for x in points)
    else:
        needed = "ranks over Q need ReLU" if exact else "derivatives are built for ReLU, tanh and sigmoid"
        raise ScopeError(f"{needed} networks; found {net.architecture}")
    if exact:
        rank, kept, dropped = rationals.rank(_compressed(list(blocks), rng)), None, None
    else:
        rank, kept, dropped = _numerical_rank(net, blocks)
    rigor = Rigor.EXACT if exact else Rigor.NUMERICAL
    return DimensionCheck(size - rank, rank, size, len(found), kept, dropped, expected, rigor)


def _numerical_rank(net: Network, blocks: Iterator[FloatArray]) -> tuple[int, float, float]:
    """Rank by the widest gap below 1e-6 of the largest singular value, columns scaled to the size of theta."""
    scales = _column_scales(net)
    size = len(scales)
    held = np.zeros((0, size))
    waiting: list[FloatArray] = []
    for block in blocks:
        rows = block * scales
        norms = np.linalg.norm(rows, axis=1)
        waiting.append(rows[norms > 0] / norms[norms > 0, None])
        if sum(map(len, waiting)) > 2 * size:
            held = np.asarray(np.linalg.qr(np.vstack([held, *waiting]), mode="r"))
            waiting = []
    values = np.linalg.svd(np.vstack([held, *waiting]), compute_uv=False)
    values = values[values > 0]
    if not values.size:
        return 0, 1.0, 0.0
    relative = values / values[0]
    rank = int((relative > _GAP).sum())
    if rank < len(relative):  # a gap that lies elsewhere is found where the drop is steepest
        tail = np.append(np.maximum(relative, 1e-18), 1e-18)
        drops = tail[:-1] / tail[1:]
        low = int((relative > 1e-5).sum())
        high = max(low, int((relative > 1e-13).sum()))
        rank = max(range(low, high + 1), key=lambda k: drops[k - 1] if k else 0.0)
    return rank, float(relative[rank - 1]), float(relative[rank]) if rank < len(relative) else 0.0


def _column_scales(net: Network) -> FloatArray:
    """Sizes of the parameters, so that neurons of any scaling count alike; a kernel's dimension does not change."""
    parts = []
    for layer in net.layers:
        rows = np.column_stack([layer.weight64, layer.bias64])
        usual = np.sqrt((rows**2).mean(axis=1, keepdims=True)) if rows.size else np.ones((len(rows), 1))
        usual = np.where(usual > 0, usual, 1.0)
        size = np.abs(rows) + 0.3 * usual
        parts += [size[:, :-1].reshape(-1), size[:, -1]]
    return np.concatenate(parts)


def _compressed(blocks: list[ExactArray], rng: np.random.Generator) -> ExactArray:
    """M + 8 random combinations of the rows: nearly surely of the same rank, never of a larger one."""
    rows = rationals.fractions(np.vstack([rationals.fractions(b) for b in blocks]))
    rows = rows[np.asarray(rows != 0, dtype=bool).any(axis=1)]
    count = rows.shape[1] + 8
    if len(rows) <= count:
        return rationals.simplified(rows)
    return rationals.matmul(rng.integers(-1000, 1001, (count, len(rows))).astype(np.float64), rows)


def coefficient_rows(net: Network, pattern: Pattern, *, exact: bool = False) -> npt.NDArray[Any]:
    """Derivatives of the affine coefficients (A, c) of f on one activity pattern, (n_out (n_0 + 1), M).

    Row k (n_0 + 1) + q belongs to output k and coefficient q, the constant last.

    >>> net = Network.from_arrays(([[2.0]], [1.0]), ([[3.0]], [0.0]))  # f = 6 x + 3
    >>> coefficient_rows(net, (np.array([True]),)).tolist()
    [[3.0, 0.0, 2.0, 0.0], [0.0, 3.0, 1.0, 1.0]]
    """
    n0 = net.widths[0]
    weights = [rationals.fractions(la.weight) if exact else la.weight64 for la in net.layers]
    biases = [rationals.fractions(la.bias) if exact else la.bias64 for la in net.layers]
    one = np.eye(n0 + 1, dtype=object if exact else np.float64)
    below, lower = one, []
    for k, active in enumerate((*pattern, None)):
        lower.append(below)
        table = np.column_stack([weights[k], biases[k]]) @ below
        if active is not None:
            below = np.vstack([table * active[:, None], one[-1]])
    upper = np.eye(net.widths[-1], dtype=one.dtype)
    parts: list[npt.NDArray[Any]] = []
    for k in range(net.depth - 1, -1, -1):
        # f_k(x) contains upper[k, a] (W[a, :], b[a]) lower(x)
        block = upper[:, None, :, None] * lower[k].T[None, :, None, :]
        block = block.reshape(len(upper) * (n0 + 1), len(biases[k]), -1)
        parts += [block[:, :, -1], block[:, :, :-1].reshape(len(block), -1)]
        if k:
            upper = (upper @ weights[k]) * pattern[k - 1]
    return np.concatenate(parts[::-1], axis=1)


def point_rows(net: Network, x: FloatArray) -> FloatArray:
    """Derivative of theta -> f(x) at one point, (n_out, M), for tanh and sigmoid networks."""
    values, slopes = [np.asarray(x, dtype=np.float64)], []
    for layer, z in zip(net.layers, net.preactivations(x[None, :]), strict=True):
        h = np.asarray(layer.activation(z[0]), dtype=np.float64)
        values.append(h)
        name = layer.activation.name
        slopes.append(1 - h**2 if name == "tanh" else h * (1 - h) if name == "sigmoid" else np.ones_like(h))
    upper = np.diag(slopes[-1])
    parts: list[FloatArray] = []
    for k in range(net.depth - 1, -1, -1):
        parts += [upper, (upper[:, :, None] * values[k]).reshape(len(upper), -1)]
        if k:
            upper = (upper @ net.layers[k].weight64) * slopes[k - 1]
    return np.concatenate(parts[::-1], axis=1)


# ---- activity patterns


def patterns(net: Network, rng: np.random.Generator, limit: int) -> Iterator[Pattern]:
    """Distinct activity patterns of a ReLU network that surely occur on open sets, at most `limit` of them.

    For three layers with independent first-layer rows z is drawn instead of x: signs at random, sizes at the scale of
    the second layer, half of the points on either side of a second-layer hyperplane. Otherwise x is drawn at several
    scales and beside kinks. Signs within rounding errors of 0 are left out.
    """
    n0, n1 = net.widths[0], net.widths[1] if net.depth > 1 else 0
    through = net.depth == 3 and n1 <= n0 and rationals.rank(net.layers[0].weight) == n1
    seen: set[bytes] = set()
    quiet = 0
    while len(seen) < limit and quiet < 12:
        before = len(seen)
        for pattern in _from_orthant(net, rng) if through else _from_inputs(net, rng):
            key = b"".join(m.tobytes() for m in pattern)
            if key not in seen and len(seen) < limit:
                seen.add(key)
                yield pattern
        quiet = quiet + 1 if len(seen) == before else 0


def _from_orthant(net: Network, rng: np.random.Generator, count: int = 64) -> Iterator[Pattern]:
    upper, bias = net.layers[1].weight64, net.layers[1].bias64
    n1, n2 = upper.shape[1], len(bias)
    typical = np.abs(bias) / np.maximum(np.abs(upper).mean(axis=1), 1e-300)
    typical = np.where((typical > 0) & np.isfinite(typical), typical, 1.0)
    on = rng.random((count, n1)) < rng.choice([0.2, 0.5, 0.8, 1.0], (count, 1))
    size = rng.choice(typical, (count, 1)) * 4.0 ** rng.uniform(-3, 4, (count, 1))
    y = on * size * np.exp(rng.standard_normal((count, n1)) * rng.choice([0.3, 1.5], (count, 1)))
    half = y[::2]  # of these the entries that push one hyperplane are rescaled, to land just beside it
    j = rng.integers(n2, size=len(half))
    a = upper[j] * half
    up, down = np.maximum(a, 0.0).sum(axis=1), np.minimum(a, 0.0).sum(axis=1)
    grow = up + down + bias[j] < 0
    part, rest = np.where(grow, up, down), np.where(grow, down, up) + bias[j]
    factor = np.divide(-rest, part, out=np.zeros_like(part), where=part != 0)
    beside = factor * (1 + rng.choice([-1, 1], len(half)) * 2.0 ** rng.uniform(-12, -1, len(half)))
    pushing = np.where(grow[:, None], a > 0, a < 0) & (factor > 0)[:, None]
    half *= np.where(pushing, beside[:, None], 1.0)
    z = y @ upper.T + bias
    error = 4 * _EPS * (n1 + 4) * (y @ np.abs(upper).T + np.abs(bias)) + 1e-290
    first, second = y > 0, z > 0
    for t in np.flatnonzero((np.abs(z) > error).all(axis=1)).tolist():
        yield first[t], second[t]


def _from_inputs(net: Network, rng: np.random.Generator, count: int = 64) -> Iterator[Pattern]:
    x = rng.standard_normal((count, net.widths[0])) * 4.0 ** rng.uniform(-2, 4, (count, 1))
    pre = net.preactivations(x)
    for t in range(0, count, 2):  # step onto a random kink along a random direction, and just beyond
        k = int(rng.integers(net.depth - 1)) if net.depth > 1 else 0
        direction = rng.standard_normal(net.widths[0])
        ahead = net.preactivations((x[t] + 1e-3 * direction)[None, :])[k][0]
        i = int(rng.integers(len(ahead)))
        slope = (ahead[i] - pre[k][t, i]) / 1e-3
        if slope:
            x[t] -= pre[k][t, i] / slope * direction * (1 + rng.choice([-1, 1]) * 2.0 ** rng.uniform(-12, -1))
    masks, sure = [], np.ones(count, dtype=bool)
    size = np.abs(x)
    h = x
    for layer in net.hidden:
        weight, bias = layer.weight64, layer.bias64
        z = h @ weight.T + bias
        size = size @ np.abs(weight).T + np.abs(bias)  # carries the errors of all layers below
        sure &= (np.abs(z) > 64 * _EPS * (layer.n_in + 4) * net.depth * size + 1e-290).all(axis=1)
        masks.append(z > 0)
        h = np.maximum(z, 0)
    for t in np.flatnonzero(sure).tolist():
        yield tuple(m[t] for m in masks)
