"""How a step of an optimiser moves a conserved quantity: linear recursions, run over many steps at once.

Every gradient g of every loss and minibatch has <theta, g> = 0 in the form of a law Q(theta) = <theta, theta>, so the
recursions below are identities, with c = 1 - lr * decay if decay is decoupled and c = 1, w = decay if it is coupled:

    gd, sgd:   Q' = (1 - lr w)^2 c^2 Q + lr^2 Q(g)
    momentum:  B = momentum c A + (1 - dampening) w Q,  Q' = c^2 Q - 2 lr B + lr^2 Q(v'),  A' = B - lr Q(v')
    nesterov:  the same B, Q' = c^2 Q - 2 lr (w Q + momentum B) + lr^2 Q(u),  A' = B - lr <u, v'>

where A = <theta, v>, B = <c theta, v'>. Other rules: Q' = c^2 Q + S with S read off the step itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_PIECES = 8
"""Into how many parts an interval is cut if the rule's constants change in it."""


@dataclass(frozen=True)
class Constants:
    """The constants of a rule for one law.

    Args:
        lr: learning rate.
        decay: rate of decay.
        momentum: 0 for gd and sgd.
        dampening: of the gradient in momentum.
    """

    lr: float
    decay: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0

    def towards(self, other: Constants, part: float) -> Constants:
        """Between this (part 0) and another (part 1)."""
        if part == 1.0 or self == other:
            return other
        mix = ((1 - part) * a + part * b for a, b in zip(self.row, other.row, strict=True))
        return Constants(*mix)

    @property
    def row(self) -> tuple[float, float, float, float]:
        """As numbers."""
        return self.lr, self.decay, self.momentum, self.dampening


def one_step(kind: str, numbers: Constants, coupled: bool) -> tuple[Array, Array]:
    """The matrices (M, b) of z' = M z + b f for z = (Q) or (Q, A).

    Args:
        kind: "gd" with f = Q(g); "momentum" with f = Q(v'); "nesterov" with f = (Q(u), <u, v'>); "step" with f = S.
        numbers: constants of the rule.
        coupled: whether decay is added to the gradient.

    >>> one_step("gd", Constants(0.5, 1.0), True)
    (array([[0.25]]), array([[0.25]]))
    """
    lr, decay, momentum, dampening = numbers.row
    c, w = (1.0, decay) if coupled else (1.0 - lr * decay, 0.0)
    if kind == "step":
        return np.array([[c * c]]), np.array([[1.0]])
    if kind == "gd":
        return np.array([[((1 - lr * w) * c) ** 2]]), np.array([[lr * lr]])
    b = np.array([(1 - dampening) * w, momentum * c])  # B as a row acting on (Q, A)
    if kind == "momentum":
        return np.array([[c * c, 0.0] - 2 * lr * b, b]), np.array([[lr * lr], [-lr]])
    q = np.array([c * c - 2 * lr * w, 0.0]) - 2 * lr * momentum * b
    return np.array([q, b]), np.array([[lr * lr, 0.0], [0.0, -lr]])


def advance(matrix: Array, inflow: Array, z: Array, first: Array, last: Array, steps: int) -> Array:
    """The z after steps of z' = M z + b f_j, j = 1..steps, f_j linear from `first` (j = 0) to `last` (j = steps).

    Args:
        matrix: M, (k, k).
        inflow: b, (k, r).
        z: (k, ...).
        first: (r, ...).
        last: (r, ...).
        steps: how many.

    Exact up to rounding, by repeated squaring: O(log steps) products of small matrices and one with the arrays.

    >>> one = np.eye(1)
    >>> advance(one, one, np.zeros((1, 1)), np.array([[0.0]]), np.array([[3.0]]), 3)  # 1 + 2 + 3
    array([[6.]])
    """
    k, r = inflow.shape
    whole = np.zeros((k + 2 * r, k + 2 * r))  # acts on (z, f, slope of f)
    whole[:k, :k] = matrix
    whole[:k, k : k + r] = whole[:k, k + r :] = inflow
    whole[k : k + r, k : k + r] = whole[k : k + r, k + r :] = whole[k + r :, k + r :] = np.eye(r)
    power = np.linalg.matrix_power(whole, steps)
    state = np.concatenate([z, first, (last - first) / steps])
    return np.asarray(np.tensordot(power[:k], state, axes=1))


def pieces(
    before: Constants, now: Constants, steps: int, *, fresh: bool = False
) -> Iterator[tuple[int, int, Constants]]:
    """Parts (start, stop, constants) of an interval; the constants are those in the middle of the part's steps.

    Args:
        before: constants of the last step before the interval.
        now: of its last step.
        steps: in it.
        fresh: whether its first step is the very first, in which torch does not dampen.
    """
    start = 0
    if fresh and now.dampening:
        start = 1
        early = before.towards(now, 1 / steps)
        yield 0, 1, Constants(early.lr, early.decay, early.momentum, 0.0)
    if start == steps:
        return
    parts = 1 if before == now else min(_PIECES, steps - start)
    ends = [start + (steps - start) * k // parts for k in range(parts + 1)]
    for low, high in zip(ends, ends[1:], strict=False):
        yield low, high, before.towards(now, (low + 1 + high) / 2 / steps)


def propagate(
    kind: str,
    coupled: bool,
    span: tuple[Constants, Constants, int],
    z: Array,
    first: Array,
    last: Array,
    *,
    fresh: bool = False,
) -> Array:
    """The recursion of a rule over an interval between two samples of f, its constants interpolated too.

    Args:
        kind: see `one_step`.
        coupled: whether decay is added to the gradient.
        span: constants before the interval, in its last step, and the number of its steps.
        z: (1, ...) or (2, ...) before the interval.
        first: f before the interval.
        last: f in its last step.
        fresh: see `pieces`.

    With one step it is the exact identity of that step.
    """
    before, now, steps = span
    for low, high, numbers in pieces(before, now, steps, fresh=fresh):
        matrix, inflow = one_step(kind, numbers, coupled)
        a, b = (first + (last - first) * (at / steps) if at < steps else last for at in (low, high))
        z = advance(matrix, inflow, z, a, b, high - low)
    return z
