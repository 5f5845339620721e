"""Condensation of a layer: directions of the incoming weights, how many count, and the stable rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fiberscope.training.architectures.architecture import Array
from fiberscope.training.measures.pairs import LOWER, FloatArray, Forest, IntArray, Neurons, gram_blocks

COSINE = 0.99
"""Incoming weights with a larger cosine point in one direction."""
FAINT = 1e-2
"""Neurons with an amplitude below this part of the largest are not counted as a direction."""
_STORED = 256
"""Up to so many neurons the Gram matrix of the incoming entries is kept for its norm."""
_DENSE = 64
"""Up to this smaller side spectral norms are computed by a full decomposition."""
_STEPS, _WARM_STEPS = 8, 2
"""Steps towards the largest singular value from a random vector, and from what an earlier measurement has found."""
_RANDOM = 0.1
"""Length of the random part of such a start."""
_SAMPLED = 32
"""Rows of the Gram matrix of the directions that are looked at in wide layers."""


@dataclass(frozen=True)
class Condensation:
    """Condensation of one layer.

    Args:
        directions: classes of directions among the neurons with amplitude above 1e-2 of the largest: connected
            components of cosines above 0.99, of their absolute values where a neuron may change sign.
        effective_directions: participation ratio (tr G)^2 / tr G^2 of G = sum_i p_i w_i w_i^T, w_i unit incoming
            weights, p_i = A_i / sum A the shares of the amplitudes; between 1 and min(n, D). It is never above
            `Directions.effective`, the exponential of the entropy of the same spectrum. None without any amplitude.
        stable_rank: |W|_F^2 / |W|_2^2 of the incoming weights with biases. None for W = 0.
        exact: whether `effective_directions` is no estimate from 32 rows of the Gram matrix.
    """

    directions: int
    effective_directions: float | None
    stable_rank: float | None
    exact: bool = True


class DirectionSearch:
    """Finds directions and the participation ratio in blocks of the Gram matrix of the incoming entries.

    Args:
        neurons: of the population.
        source: the same, or contracted, whose products arrive.
    """

    def __init__(self, neurons: Neurons, source: Neurons) -> None:
        lengths = np.sqrt(neurons.incoming_squares)
        outer = np.sqrt(np.maximum(neurons.squares - neurons.incoming_squares, 0.0))
        if neurons.incoming == len(neurons.parts):  # nothing reads them as far as is known
            outer = np.ones(len(lengths))
        amplitudes = lengths * outer
        top = float(amplitudes.max(initial=0.0))
        self.neurons = neurons
        self.exact = source is neurons
        self.counted = (amplitudes > FAINT * top) & (lengths > 0)
        dtype = np.result_type(*(part.dtype for part in neurons.parts))
        self._inverse = np.divide(1.0, lengths, out=np.zeros(len(lengths)), where=lengths > 0).astype(dtype)
        self._shares = amplitudes / top / max(float((amplitudes / top).sum()), 1e-300) if top > 0 else amplitudes * 0
        self._total = 0.0
        self._forest = Forest(neurons.count, signed=neurons.population.signs)
        # for unit w: |P w_i|^2 + |P w_j|^2 - 2 P w_i . P w_j = |P(w_i - w_j)|^2 <= |w_i - w_j|^2 = 2 - 2 cos
        self._sides = (source.incoming_squares * self._inverse.astype(np.float64) ** 2).astype(dtype)
        self._reach = 2.0 - 2.0 * COSINE + (0.0 if self.exact else neurons.slack)
        self._work = np.empty(0, dtype)
        self._gram = (
            np.empty((neurons.count, neurons.count), dtype) if self.exact and neurons.count <= _STORED else None
        )

    def block(self, at: int, products: Array) -> None:
        """Products of the incoming entries of neurons at, at+1, ... with all from `at` on; not kept."""
        if self._work.size < products.size:
            self._work = np.empty(products.size, products.dtype)
        cosines = self._work[: products.size].reshape(products.shape)
        rows = slice(at, at + len(products))
        if self._gram is not None:
            self._gram[rows, at:] = products
            self._gram[at:, rows] = products.T
        np.multiply(products, self._inverse[None, at:], out=cosines)
        self._find(at, cosines)
        if self.exact:
            cosines *= cosines
            height = len(products)
            shares = (self._shares[rows] * self._inverse[rows].astype(np.float64) ** 2).astype(cosines.dtype)
            weighted = shares @ cosines
            self._total += float(weighted[:height] @ self._shares[rows])
            self._total += 2.0 * float(weighted[height:] @ self._shares[at + height :])

    def _find(self, at: int, scaled: Array) -> None:
        """Join directions; `scaled` times the inverse lengths of its rows are cosines."""
        height = len(scaled)
        inverse = self._inverse[at : at + height]
        if not self.exact:
            self._find_candidates(at, scaled, inverse)
            return
        signed = self.neurons.population.signs
        diagonal = np.einsum("ii->i", scaled[:, :height])  # a view
        own = diagonal.copy()
        diagonal[:] = 0.0  # below it pairs come twice, which changes no maximum
        top = float((scaled.max(axis=1, initial=0.0) * inverse).max())
        if signed:
            top = max(top, -float((scaled.min(axis=1, initial=0.0) * inverse).min()))
        diagonal[:] = own
        if top > COSINE:
            cosines = scaled * inverse[:, None]
            near = (np.abs(cosines) if signed else cosines) > COSINE
            near[:, :height] &= ~LOWER[:height, :height]
            i, j = np.nonzero(near)
            self._join(at, i, j, cosines)

    def _find_candidates(self, at: int, scaled: Array, inverse: Array) -> None:
        """Join what contracted directions do not show to be apart; overwrites `scaled`."""
        height = len(scaled)
        if self.neurons.population.signs:
            np.abs(scaled, out=scaled)
        scaled *= -2.0 * inverse[:, None]
        scaled += self._sides[None, at:]
        np.fill_diagonal(scaled, np.inf)  # below the diagonal pairs come twice, which changes no component
        room = self._reach - self._sides[at : at + height]
        rows = np.flatnonzero(scaled.min(axis=1) <= room)
        i, j = np.nonzero(scaled[rows] <= room[rows, None])
        self._join(at, rows[i], j, None)

    def _join(self, at: int, i: IntArray, j: IntArray, cosines: Array | None) -> None:
        live = self.counted[at + i] & self.counted[at + j]
        i, j = i[live], j[live]
        signs = None if cosines is None or not self._forest.signed else np.where(cosines[i, j] < 0, -1.0, 1.0)
        self._forest.join(at + i, at + j, signs)

    def result(self, rng: np.random.Generator, start: Array | None = None) -> tuple[Condensation, Array | None]:
        """What was found, once all blocks have been seen, and the singular vector of the largest singular value.

        Args:
            rng: generator.
            start: that vector in an earlier measurement, where the search for it begins.
        """
        neurons, forest = self.neurons, self._forest
        if not self.exact:
            forest = _confirmed(neurons, forest)
        parts, total = neurons.parts[: neurons.incoming], self._total
        if not self.exact and self._shares.any():
            total = _sampled_square(parts, self._inverse.astype(np.float64), self._shares, rng)
        effective = 1.0 / total if total > 0 else None
        squares = float(neurons.incoming_squares.sum())
        if self._gram is not None and squares > 0:
            top, vector = _gram_norm(self._gram, rng, start)
        else:
            top, vector = _square_norm(parts, rng, start) if squares > 0 else (0.0, None)
        rank = squares / top if top > 0 else None
        return Condensation(forest.count(self.counted), effective, rank, self.exact), vector


def _confirmed(neurons: Neurons, candidates: Forest) -> Forest:
    """Cosines themselves inside the groups that contracted weights allow."""
    forest = Forest(neurons.count, signed=candidates.signed)
    for members in (np.unique(group) for group, _ in candidates.groups()):
        parts = tuple(part[members] for part in neurons.parts[: neurons.incoming])
        lengths = np.sqrt(neurons.incoming_squares[members])
        few = Neurons(neurons.population, parts, len(parts), lengths**2, lengths**2, neurons.doubled, neurons.eps)
        for at, products, whole in gram_blocks(few):
            if whole:
                continue
            cosines = products / lengths[at : at + len(products), None] / lengths[None, at:]
            cosines[np.tril_indices(len(products))] = 0.0
            i, j = np.nonzero((np.abs(cosines) if forest.signed else cosines) > COSINE)
            forest.join(members[at + i], members[at + j], np.where(cosines[i, j] < 0, -1.0, 1.0))
    return forest


def stable_rank(
    parts: tuple[Array, ...], *, rng: np.random.Generator | int = 0, squares: float | None = None
) -> float | None:
    """|W|_F^2 / |W|_2^2 of a matrix given by groups of columns; None for W = 0.

    The spectral norm is exact up to rounding where the smaller side has at most 64 entries; beyond, it is approached
    from below by 8 steps of Lanczos bidiagonalisation from a random start (Golub and Kahan 1965), so the stable rank
    is rather too large, by up to about 5 per cent where no singular value stands out and by nothing where one does.

    Args:
        parts: (n, columns) each.
        rng: generator or seed of the start.
        squares: |W|_F^2 where it is known.

    Complexity: O(entries). Source: theory page, condensation.

    >>> stable_rank((np.diag([2.0, 1.0, 1.0]),))
    1.5
    """
    if not parts or not len(parts[0]):
        return None
    if squares is None:
        squares = sum(float(np.einsum("ij,ij->i", part, part).astype(np.float64).sum()) for part in parts)
    if not squares > 0 or not np.isfinite(squares):
        return None
    top, _ = _square_norm(parts, np.random.default_rng(rng))
    return squares / top if top > 0 else None


def _square_norm(
    parts: tuple[Array, ...], rng: np.random.Generator, start: Array | None = None
) -> tuple[float, Array | None]:
    """|W|_2^2, and a vector to start from next time."""
    if min(len(parts[0]), sum(part.shape[1] for part in parts)) <= _DENSE:
        return float(np.linalg.eigvalsh(_small_gram(parts))[-1]), None
    return _lanczos(parts, rng, start)


def _gram_norm(gram: Array, rng: np.random.Generator, start: Array | None = None) -> tuple[float, Array | None]:
    """The same of W from W W^T; from below for more than 64 rows (`stable_rank`)."""
    if len(gram) <= _DENSE:
        return float(np.linalg.eigvalsh(gram.astype(np.float64))[-1]), None
    top, vector = _lanczos((gram,), rng, start)
    return math.sqrt(top), vector


def _small_gram(parts: tuple[Array, ...]) -> FloatArray:
    """W W^T or W^T W, whichever is smaller, in float64."""
    n, columns = len(parts[0]), sum(part.shape[1] for part in parts)
    if n <= columns:
        return np.asarray(np.sum([(part @ part.T).astype(np.float64) for part in parts], axis=0))
    out = np.zeros((columns, columns))
    for at in range(0, n, 256):
        rows = np.concatenate([part[at : at + 256] for part in parts], axis=1).astype(np.float64)
        out += rows.T @ rows
    return out


def _lanczos(parts: tuple[Array, ...], rng: np.random.Generator, start: Array | None = None) -> tuple[float, Array]:
    """Largest squared singular value of the bidiagonal matrix after some steps, at most that of W, and its vector.

    From a vector of an earlier moment few steps do; some of it is random, so that no singular vector is out of reach.
    """
    kind = parts[0].dtype
    left = rng.standard_normal(len(parts[0])).astype(kind)
    left /= kind.type(_norm(left))
    steps = _STEPS
    if start is not None and start.shape == left.shape:
        left = start.astype(kind) + kind.type(_RANDOM) * left
        left /= kind.type(_norm(left))
        steps = _WARM_STEPS
    bidiagonal = np.zeros((steps + 1, steps))
    rows = [left]
    right, beta = None, 0.0
    for k in range(steps):
        new = np.concatenate([left @ part for part in parts])
        if right is not None:
            new -= kind.type(beta) * right
        alpha = bidiagonal[k, k] = _norm(new)
        if not alpha > 0:
            break
        right = new / kind.type(alpha)
        image = _times(parts, right)
        image -= kind.type(alpha) * left
        beta = bidiagonal[k + 1, k] = _norm(image)
        if not beta > 1e-6 * alpha:
            break
        left = image / kind.type(beta)
        rows.append(left)
    values, vectors = np.linalg.eigh(bidiagonal @ bidiagonal.T)
    vector = np.sum([x * row for x, row in zip(vectors[:, -1].astype(kind), rows, strict=False)], axis=0)
    return float(values[-1]), vector


def _norm(vector: Array) -> float:
    return math.sqrt(float(vector @ vector))


def _times(parts: tuple[Array, ...], vector: Array) -> Array:
    out, at = np.zeros(len(parts[0]), vector.dtype), 0
    for part in parts:
        out += part @ vector[at : at + part.shape[1]]
        at += part.shape[1]
    return out


def _sampled_square(parts: tuple[Array, ...], weights: Array, shares: FloatArray, rng: np.random.Generator) -> float:
    """sum_ij p_i p_j cos_ij^2 from some rows j, drawn with probabilities p and evenly along the neurons."""
    places = (np.arange(_SAMPLED) + rng.random()) / _SAMPLED
    rows = np.minimum(np.searchsorted(np.cumsum(shares), places), len(shares) - 1)
    products = np.zeros((_SAMPLED, len(shares)), parts[0].dtype)
    for part in parts:
        products += part[rows] @ part.T
    products *= products
    each = products @ (shares * weights**2).astype(products.dtype)
    return float((each * weights[rows] ** 2).mean())
