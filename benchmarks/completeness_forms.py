"""Float normal forms of bottleneck three-layer ReLU networks, with the tolerance that trained parameters need.

The exact forms are in `fiberscope.fibers`; parameters found by an optimiser satisfy equations only to about 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Widths = tuple[int, int, int, int]
Neuron = tuple[Array, float, Array]
"""(u, c, v) for v relu(u . y + c)."""
ZERO = 1e-6
CLOSE = 1e-4


def split(theta: Array, widths: Widths) -> list[Array]:
    """W1, b1, W2, b2, W3, b3 from (..., M) parameters, each with the leading axes of theta."""
    n0, n1, n2, n3 = widths
    shapes = [(n1, n0), (n1,), (n2, n1), (n2,), (n3, n2), (n3,)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [
        part.reshape(*theta.shape[:-1], *shape)
        for part, shape in zip(np.split(theta, ends, axis=-1), shapes, strict=True)
    ]


def types(theta: Array, widths: Widths) -> str:
    """One letter for each second-layer neuron: A always active, D dead, S split, 0 without effect."""
    w1, _, u, c, v, _ = split(theta, widths)
    letters = []
    for row, bias, out in zip(u * np.linalg.norm(w1, axis=1), c, v.T, strict=True):
        size = max(np.abs(row).max(), abs(bias), 1e-300)
        both = np.append(row, bias) / size
        if np.abs(out).max() * size < ZERO:
            letters.append("0")
        else:
            letters.append("D" if (both <= ZERO).all() else "A" if (both >= -ZERO).all() else "S")
    return "".join(sorted(letters))


@dataclass
class Form:
    """const + linear y + sum of v relu(u . y + c), y = relu of the rows (unit weights, bias); then fans."""

    rows: Array
    linear: Array
    const: Array
    neurons: list[Neuron]
    size: float
    hidden: list[int] = field(default_factory=list)
    fans: list[tuple[Array, Array]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    def zero(self, values: Array | float) -> bool:
        """Whether outputs are small beside those of the network."""
        return bool(np.abs(values).max(initial=0) <= ZERO * self.size)

    def sees(self, neuron: Neuron, rows: list[int]) -> bool:
        """Whether a neuron uses one of these rows."""
        return bool((neuron[0][rows] != 0).any())

    def keep(self, rows: npt.NDArray[np.int64]) -> None:
        """Forget the other rows."""
        self.rows, self.linear = self.rows[rows], self.linear[:, rows]
        self.neurons = [(u[rows], c, v) for u, c, v in self.neurons]


def form_of(theta: Array, widths: Widths) -> Form:
    """The generic normal form: fold, drop, merge, shift and turn until nothing changes."""
    w1, b1, u, c, v, d = split(theta, widths)
    norms = np.linalg.norm(w1, axis=1)
    neurons = [(u[j] * norms, float(c[j]), v[:, j]) for j in range(widths[2])]
    size = max(np.abs(np.outer(v, np.append(u, c))).max() for u, c, v in neurons)
    form = Form(np.column_stack([w1, b1]) / norms[:, None], np.zeros((widths[3], widths[1])), d.copy(), neurons, size)
    settle(form)
    return form


def settle(form: Form) -> None:
    """Tidy and shift to a fixpoint, then turn hidden neurons."""
    tidy(form)
    while shift(form):
        tidy(form)
    for i in form.hidden:
        turn(form, i)


def tidy(form: Form) -> None:
    """Unit rows u; dead neurons dropped, always-active ones folded, parallel ones merged, unseen rows dropped."""
    kept: list[Neuron] = []
    for u, c, v in form.neurons:
        norm = float(np.linalg.norm(u))
        if form.zero(v * max(norm, abs(c))):
            continue
        if norm < ZERO * max(1.0, abs(c)):
            form.const = form.const + v * max(c, 0.0)
            continue
        u, c, v = u / norm, c / norm, v * norm
        u, c = np.where(np.abs(u) < ZERO, 0.0, u), 0.0 if abs(c) < ZERO else c
        if (u <= 0).all() and c <= 0:
            continue
        if (u >= 0).all() and c >= 0:
            form.linear, form.const = form.linear + np.outer(v, u), form.const + v * c
            continue
        merge(form, kept, u, c, v)
    form.neurons = [neuron for neuron in kept if not form.zero(neuron[2])]
    form.linear = np.where(np.abs(form.linear) <= ZERO * form.size, 0.0, form.linear)
    seen = (form.linear != 0).any(axis=0)
    for u, _, _ in form.neurons:
        seen |= u != 0
    form.keep(np.flatnonzero(seen))


def merge(form: Form, kept: list[Neuron], u: Array, c: float, v: Array) -> None:
    """Add a neuron to a parallel one, if there is one: v relu(-t) = v relu(t) - v t."""
    for place, (u0, c0, v0) in enumerate(kept):
        for sign in (1, -1):
            if np.abs(u - sign * u0).max() < ZERO and abs(c - sign * c0) < ZERO * (1 + abs(c)):
                kept[place] = (u0, c0, v0 + v)
                if sign < 0:
                    form.linear, form.const = form.linear - np.outer(v, u0), form.const - v * c0
                return
    kept.append((u, c, v))


def toward(form: Form, i: int) -> tuple[Array, Array, list[Neuron]]:
    """The same function with u_i >= 0 in every neuron: linear part, constant, neurons."""
    linear, const, neurons = form.linear.copy(), form.const.copy(), []
    for u, c, v in form.neurons:
        if u[i] < 0:
            linear, const, u, c = linear + np.outer(v, u), const + v * c, -u, -c
        neurons.append((u, c, v))
    return linear, const, neurons


def shift(form: Form) -> bool:
    """Move the first hidden row to its boundary; whether something is left to tidy."""
    form.hidden = []
    for i in range(len(form.rows)):
        linear, const, neurons = toward(form, i)
        seeing = [(u, c) for u, c, _ in neurons if u[i] > 0]
        if not seeing or not form.zero(linear[:, i]):
            continue
        if any(c > 0 or (np.delete(u, i) > 0).any() for u, c in seeing):
            continue
        step = min(-c / u[i] for u, c in seeing)
        linear[:, i] = 0
        form.linear, form.const = linear, const
        form.rows[i, -1] -= step
        form.neurons = [(u, c + u[i] * step if u[i] > 0 else c, v) for u, c, v in neurons]
        alone = any(not np.delete(u, i).any() and abs(c + u[i] * step) < ZERO for u, c in seeing)
        if step > ZERO or alone:
            return True
        form.hidden.append(i)
    return False


def turn(form: Form, i: int) -> None:
    """Rows that only the neurons of a hidden row see, all in one ratio, get a positive leading weight."""
    form.linear, form.const, form.neurons = toward(form, i)
    for k in range(len(form.rows)):
        ratios = [u[k] / u[i] for u, _, _ in form.neurons if u[i] > 0]
        others = any(u[k] != 0 for u, _, _ in form.neurons if u[i] == 0)
        if k == i or ratios[0] == 0 or np.ptp(ratios) > 10 * ZERO or others or not form.zero(form.linear[:, k]):
            continue
        weights = form.rows[k, :-1]
        if weights[np.abs(weights) > CLOSE][0] > 0:
            continue
        replace(form, i, form.rows[i] + ratios[0] * form.rows[k])
        form.rows[k] *= -1


def replace(form: Form, i: int, row: Array) -> None:
    """Give row i another value, keeping unit weights."""
    norm = float(np.linalg.norm(row[:-1]))
    form.rows[i] = row / norm
    form.linear[:, i] *= norm
    scale = np.ones(len(form.rows))
    scale[i] = norm
    form.neurons = [(u * scale, c, v) for u, c, v in form.neurons]


# ------------------------------------------------------------------------------- identities beyond the generic form


def extend(form: Form) -> Form:
    """Absorb homogeneous blocks and corners into the form, in place."""
    while block(form) or corner(form):
        settle(form)
    return form


def blocks(form: Form) -> Iterator[tuple[list[int], list[Neuron]]]:
    """Rows that neurons join, directly or not, with these neurons; at least two rows."""
    left = set(range(len(form.rows)))
    while left:
        rows: set[int] = set()
        more = {left.pop()}
        while more:
            rows |= more
            left -= more
            joined = [neuron for neuron in form.neurons if form.sees(neuron, sorted(rows))]
            more = {int(i) for u, _, _ in joined for i in np.flatnonzero(u)} - rows
        if len(rows) > 1:
            yield sorted(rows), joined


def block(form: Form) -> bool:
    """Replace a block whose neurons all have c = 0, a homogeneous function about an apex, by what it computes."""
    for rows, joined in blocks(form):
        if any(abs(c) > 10 * ZERO for _, c, _ in joined):
            continue
        weights, biases = form.rows[rows, :-1], form.rows[rows, -1]
        apex = -np.linalg.pinv(weights) @ biases
        form.fans.append((apex, rays(form, *rows, joined) if len(rows) == 2 else cone(form, rows, joined)))
        form.used.append("fan" if len(rows) == 2 else "cone")
        form.neurons = [neuron for neuron in form.neurons if not form.sees(neuron, rows)]
        form.keep(np.delete(np.arange(len(form.rows)), rows))
        form.hidden = []
        return True
    return False


def cone(form: Form, rows: list[int], joined: list[Neuron]) -> Array:
    """The projector onto the span of the rows, and values of the block at fixed points: three rows or more."""
    weights, biases = form.rows[rows, :-1], form.rows[rows, -1]
    x = 10 * np.random.default_rng(0).standard_normal((500, weights.shape[1]))
    y = np.zeros((len(x), len(form.rows)))
    y[:, rows] = np.maximum(x @ weights.T + biases, 0)
    values = y @ form.linear.T
    for u, _, v in joined:
        values += np.maximum(y @ u, 0)[:, None] * v
    projector = np.linalg.pinv(weights) @ weights
    return np.concatenate([projector.ravel(), values.ravel()])[None]


def rays(form: Form, i: int, k: int, seeing: list[Neuron]) -> Array:
    """For each ray from the apex along which a kink runs: unit direction in the span of two rows, jump of the slope."""
    weights = form.rows[[i, k], :-1]
    lift = np.linalg.pinv(weights)

    def gradient(angle: float) -> Array:
        y = np.maximum([np.cos(angle), np.sin(angle)], 0.0)
        slope = form.linear[:, [i, k]] * (y > 0)
        for u, _, v in seeing:
            if u[[i, k]] @ y > 0:
                slope = slope + np.outer(v, u[[i, k]] * (y > 0))
        return np.asarray(slope @ weights)

    angles = [0.0, np.pi / 2, np.pi, 3 * np.pi / 2]
    angles += [float(np.arctan2(abs(u[i]), abs(u[k]))) for u, _, _ in seeing if u[i] * u[k] < 0]
    turns = np.unique(np.round(angles, 9))
    middles = (turns + np.append(turns[1:], turns[0] + 2 * np.pi)) / 2
    found = []
    for place, angle in enumerate(turns):
        along = lift @ [np.cos(angle), np.sin(angle)]
        along /= np.linalg.norm(along)
        across = lift @ [-np.sin(angle), np.cos(angle)]
        across -= along * (along @ across)
        jump = (gradient(middles[place]) - gradient(middles[place - 1])) @ (across / np.linalg.norm(across))
        if not form.zero(jump):
            found.append(np.concatenate([along, jump]))
    return np.array(found).reshape(len(found), lift.shape[0] + len(form.const))


def corner(form: Form) -> bool:
    """relu(z) - relu(relu(z) - b) + relu(relu(g) - relu(z)) = relu(b - relu(b - z) + relu(g - z)), b >= 0.

    The left side is the one looked for: z is row i, g row k, and nobody else sees them.
    """
    for rows, seeing in blocks(form):
        if len(rows) != 2 or len(seeing) != 2:
            continue
        for i, k in (rows, rows[::-1]):
            linear, const, turned = _facing(form, i, k, seeing)
            single = [neuron for neuron in turned if not np.delete(neuron[0], i).any() and neuron[1] <= 0]
            double = [n for n in turned if n[0][k] > 0 > n[0][i] and abs(n[1]) < 10 * ZERO]
            if len(single) != 1 or len(double) != 1 or np.delete(double[0][0], [i, k]).any():
                continue
            (p, pc, pv), (u, _, v) = single[0], double[0]
            low, high = -u[i], u[k]
            if not all(
                np.abs(x).max() < CLOSE * form.size for x in (pv * p[i] + v * low, linear[:, i] - v * low, linear[:, k])
            ):
                continue
            b = -pc * low / p[i]
            z, g = low * form.rows[i], high * form.rows[k]
            top = -z
            top[-1] += b
            form.neurons = [neuron for neuron in form.neurons if not form.sees(neuron, [i, k])]
            linear[:, [i, k]] = 0
            form.linear, form.const = linear, const
            unit = np.eye(len(form.rows))
            form.neurons.append((unit[k] - unit[i], b, v))
            replace(form, i, top)
            replace(form, k, g - z)
            form.used.append("corner")
            return True
    return False


def _facing(form: Form, i: int, k: int, seeing: list[Neuron]) -> tuple[Array, Array, list[Neuron]]:
    """The neurons of a pair with u_k > 0, or u_i > 0 if they do not see k."""
    linear, const, turned = form.linear.copy(), form.const.copy(), []
    for u, c, v in seeing:
        if (u[k] if u[k] != 0 else u[i]) < 0:
            linear, const, u, c = linear + np.outer(v, u), const + v * c, -u, -c
        turned.append((u, c, v))
    return linear, const, turned


# ----------------------------------------------------------------------------------------------------------- comparison


def matched(first: Array, second: Array, tolerance: float) -> npt.NDArray[np.int64] | None:
    """The assignment p with first[i] close to second[p[i]] for all i, or None."""
    from scipy.optimize import linear_sum_assignment

    if first.shape != second.shape:
        return None
    if not first.size:
        return np.arange(len(first))
    apart = np.abs(first[:, None] - second[None]).max(axis=-1) / (1 + np.abs(first).max(axis=-1))[:, None]
    rows, columns = linear_sum_assignment(apart)
    return columns if apart[rows, columns].max() < tolerance else None


def oriented(form: Form, order: npt.NDArray[np.int64], size: float) -> tuple[Array, Array, Array]:
    """Linear part, constant and (u, c, v) with a positive leading weight, rows in a given order."""
    linear, const, found = form.linear[:, order], form.const, []
    for u, c, v in form.neurons:
        u = u[order]
        norm = np.linalg.norm(u)
        u, c, v = u / norm, c / norm, v * norm
        if u[np.abs(u) > ZERO][0] < 0:
            linear, const, u, c = linear + np.outer(v, u), const + v * c, -u, -c
        found.append(np.concatenate([u, [c], v / size]))
    return linear, const, np.array(found).reshape(len(found), len(order) + 1 + len(const))


def same(first: Form, second: Form) -> bool:
    """Whether two forms agree to the tolerance."""
    order = matched(first.rows, second.rows, CLOSE)
    if order is None or len(first.fans) != len(second.fans):
        return False
    for (apex, here), (other, there) in zip(first.fans, second.fans, strict=True):
        if np.abs(apex - other).max() > CLOSE * (1 + np.abs(apex).max()) or matched(here, there, CLOSE) is None:
            return False  # blocks are few: that they come in one order is no restriction here
    linear, const, neurons = oriented(first, np.arange(len(first.rows)), first.size)
    linear2, const2, neurons2 = oriented(second, order, first.size)
    limit = CLOSE * max(first.size, 1.0)
    close = np.abs(linear - linear2).max(initial=0) < limit and np.abs(const - const2).max() < limit
    return close and matched(neurons, neurons2, CLOSE) is not None
