"""What the second layer of a three-layer ReLU network shows or hides of the first: kinks on the faces of an orthant.

With y = relu(z) >= 0 and the canonical form of the layers above, g(y) = l + L y + sum_h J_h relu(alpha_h y + beta_h),
the hyperplane z_i = 0 is a kink of f where D_i(y) = L_i + sum of J_h alpha_hi over the active h is nonzero at y_i = 0.
Everything is decided over Q; floats with their error bounds only save work. Source: arXiv 2605.18319.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.domains import Box
from fiberscope.errors import InputError, ScopeError
from fiberscope.fibers.chain import with_bias
from fiberscope.network import Network

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Point = tuple[Fraction, ...]

_PRIME = 2**61 - 1
_EPS = float(np.finfo(np.float64).eps)
_TRIES = 48
_TRACE_TRIES = 6


@dataclass(frozen=True, eq=False)
class OrthantForm:
    """g(y) = l + L y + sum_h J_h relu(alpha_h y + beta_h) on y >= 0, every hyperplane through the open orthant.

    Args:
        constant: l, (n3,).
        linear: L, (n3, n1).
        jumps: J, (n3, H), no zero column.
        alpha: (H, n1), no two rows of [alpha, beta] proportional.
        beta: (H,).

    Raises:
        InputError: if the shapes do not fit.

    >>> OrthantForm(*map(np.array, ([0.0], [[1.0, 0.0]], [[1.0]], [[1.0, -1.0]], [-2.0]))).slab(1)
    Fraction(0, 1)
    """

    constant: ExactArray
    linear: ExactArray
    jumps: ExactArray
    alpha: ExactArray
    beta: ExactArray

    def __post_init__(self) -> None:
        """Check the shapes."""
        n3, n1 = self.linear.shape
        shapes = (self.constant.shape, self.jumps.shape, self.alpha.shape)
        if shapes != ((n3,), (n3, len(self.beta)), (len(self.beta), n1)):
            raise InputError(f"linear part of shape {(n3, n1)} with l, J, alpha of shapes {shapes}; they do not fit")

    @classmethod
    def of(cls, net: Network) -> OrthantForm:
        """The canonical form of the second and third layer of a three-layer ReLU network.

        Raises:
            ScopeError: for other networks.

        >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0], [1.0]], [-4.0, 1.0]), ([[1.0, 3.0]], [0.0]))
        >>> form = OrthantForm.of(net)  # relu(2 y - 4) + 3 y + 3
        >>> form.linear.tolist(), form.alpha.tolist(), form.beta.tolist(), form.jumps.tolist()
        ([[3.0]], [[1.0]], [-2.0], [[2.0]])
        """
        row = net.activation
        if net.depth != 3 or row is None or row.name != "relu":
            raise ScopeError(
                f"kinks behind a second layer need three affine layers with ReLU; found {net.architecture}"
            )
        from fiberscope.fibers.forms import canonical

        upper = Network(net.layers[1:])
        form = canonical(upper, Box.nonnegative(upper.widths[0]))
        n1, n3 = upper.widths[0], upper.widths[-1]
        if len(form.weights) == 1:
            return cls(form.biases[0], form.weights[0], np.zeros((n3, 0)), np.zeros((0, n1)), np.zeros(0))
        skip = np.zeros((n3, n1)) if form.skip is None else form.skip
        return cls(form.biases[1], skip, form.weights[1], form.weights[0], form.biases[0])

    @property
    def width(self) -> int:
        """n1, the number of coordinates of y."""
        return int(self.linear.shape[1])

    def exact(self, y: Sequence[Fraction | int | float]) -> Point:
        """g(y) over Q."""
        point = _vector(y)
        z = rationals.fractions(rationals.add(rationals.matmul(self.alpha, point), self.beta))
        relu = _vector([max(v, Fraction(0)) for v in z])
        total = rationals.add(rationals.matmul(self.linear, point), rationals.matmul(self.jumps, relu))
        return tuple(rationals.fractions(rationals.add(total, self.constant)))

    # ---- the jump of the gradient across a face

    def jump(self, i: int, y: Sequence[Fraction | int | float]) -> Point:
        """D_i(y), the derivative of g along y_i at y_i = 0+, (n3,), over Q.

        Args:
            i: coordinate.
            y: (n1,) with y_i = 0 and the others >= 0. O(n1 H + n3 H).

        Raises:
            InputError: if y is not on that face.

        >>> form = OrthantForm(*map(np.array, ([0.0], [[1.0, 0.0]], [[5.0]], [[1.0, -1.0]], [-2.0])))
        >>> form.jump(0, [0, 1]), form.jump(1, [3, 0])
        ((Fraction(1, 1),), (Fraction(-5, 1),))
        """
        point = _vector(y)
        if len(point) != self.width or point[i] != 0 or any(v < 0 for v in point):
            raise InputError(f"point {list(map(str, point))} is not on the face y_{i} = 0 of the orthant")
        return self._jump(i, self._signs(point))

    def _jump(self, i: int, signs: npt.NDArray[np.int8]) -> Point:
        """L_i plus J_h alpha_hi over the h that are active just inside the face."""
        column = self.alpha[:, i]
        on = np.flatnonzero((signs > 0) | ((signs == 0) & np.asarray(column > 0, dtype=bool)))
        on = on[np.asarray(column[on] != 0, dtype=bool)]
        total = self.linear[:, i]
        if on.size:
            total = rationals.add(total, rationals.matmul(self.jumps[:, on], column[on]))
        return tuple(rationals.fractions(total))

    def _signs(self, y: ExactArray) -> npt.NDArray[np.int8]:
        """Exact signs of alpha y + beta, (H,): floats where their error allows, else rationals."""
        alpha, beta, reliable = self._float64
        signs = np.zeros(len(beta), dtype=np.int8)
        unsure: BoolArray = np.ones(len(beta), dtype=bool)
        near = rationals.nearest_floats(y)
        if reliable and np.isfinite(near).all():
            z = alpha @ near + beta
            error = _slack(alpha.shape[1]) * (np.abs(alpha) @ np.abs(near) + np.abs(beta)) + 1e-290
            signs = np.sign(z).astype(np.int8)
            unsure = ~(np.abs(z) > error)
        index = np.flatnonzero(unsure)
        if index.size:
            exact = rationals.fractions(rationals.add(rationals.matmul(self.alpha[index], y), self.beta[index]))
            signs[index] = [(v > 0) - (v < 0) for v in exact]
        return signs

    @cached_property
    def _float64(self) -> tuple[FloatArray, FloatArray, bool]:
        """(alpha, beta) rounded, and whether every entry has relative error at most 2^-53."""
        alpha, beta = rationals.nearest_floats(self.alpha), rationals.nearest_floats(self.beta)
        table, exact = np.column_stack([alpha, beta]), np.column_stack([self.alpha != 0, self.beta != 0])
        return alpha, beta, bool(np.isfinite(table).all() and (np.abs(table[exact.astype(bool)]) > 1e-290).all())

    # ---- signs of the hyperplanes and of their traces

    @cached_property
    def _table(self) -> ExactArray:
        """Primitive integer rows of [alpha, beta]: positive factors change no trace."""
        rows, _ = rationals.primitive_rows(with_bias(self.alpha, self.beta))
        return rows

    @cached_property
    def _counts(self) -> tuple[BoolArray, BoolArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Positive and negative entries of [alpha, beta], and their numbers outside each column, (H, n1)."""
        plus, minus = np.asarray(self._table > 0, dtype=bool), np.asarray(self._table < 0, dtype=bool)
        outside = tuple(m.sum(axis=1)[:, None] - m[:, :-1].astype(np.int64) for m in (plus, minus))
        return plus, minus, outside[0], outside[1]

    def _crossing(self, i: int) -> npt.NDArray[np.int64]:
        """The h that read y_i and whose trace meets the open face y_i = 0."""
        plus, minus, more, less = self._counts
        return np.flatnonzero((plus[:, i] | minus[:, i]) & (more[:, i] > 0) & (less[:, i] > 0))

    @cached_property
    def _hashes(self) -> npt.NDArray[Any]:
        """(H, n1): a residue of the trace of h on y_i = 0, normalised; different residues, different traces."""
        live = np.asarray(self._table != 0, dtype=bool)
        mixer = _mixed(self.width + 1, 0x9E3779B97F4A7C15)
        out = np.zeros(self.alpha.shape, dtype=object)
        for h, row in enumerate(self._table):
            values = [int(v) for v in row]
            terms = [int(m) * v for m, v in zip(mixer, values, strict=True)]
            total, places = sum(terms), np.flatnonzero(live[h])[:2].tolist()
            if any(values[k] % _PRIME == 0 for k in places):
                return np.zeros(self.alpha.shape, dtype=object)  # all alike: every pair is then compared over Q
            inverse = [pow(values[k], -1, _PRIME) for k in places]
            for i in range(self.width):
                at = int(places[0] == i) if places else 0
                out[h, i] = (total - terms[i]) * inverse[at] % _PRIME if at < len(places) else 0
        return out

    def _groups(self, i: int) -> tuple[Point, list[tuple[int, Point]]]:
        """D_i = base + sum of steps over distinct traces: (base, [(an h of the trace, its step)]), exactly.

        A trace is oriented so that its first nonzero entry is positive; its step counts on the positive side.
        """
        plus, minus, more, less = self._counts
        seen = plus[:, i] | minus[:, i]
        base = rationals.fractions(self.linear[:, i]).copy()
        constant = np.flatnonzero(seen & (less[:, i] == 0) & ((more[:, i] > 0) | plus[:, i]))
        classes: dict[int, list[tuple[int, ExactArray, ExactArray]]] = {}
        for h in constant.tolist():
            base = base + self._slope(h, i)
        for h in self._crossing(i).tolist():
            step, trace = self._slope(h, i), np.delete(rationals.fractions(self._table[h]), i)
            lead = next(v for v in trace if v != 0)
            if lead < 0:
                base = base + step
            for known in classes.setdefault(self._hashes[h, i], []):
                if (known[1] == trace / lead).all():
                    known[2][:] = known[2] + (step if lead > 0 else -step)
                    break
            else:
                classes[self._hashes[h, i]].append((h, trace / lead, step if lead > 0 else -step))
        steps = [(h, tuple(step)) for members in classes.values() for h, _, step in members]
        return tuple(base), steps

    def _slope(self, h: int, i: int) -> ExactArray:
        """J_h alpha_hi, (n3,)."""
        return np.asarray(rationals.fractions(self.jumps[:, h]) * rationals.as_fraction(self.alpha[h, i]))

    def visible(self) -> BoolArray:
        """Which hyperplanes z_i = 0 are kinks of f somewhere, (n1,): D_i is not identically 0 on y_i = 0.

        Steps across distinct traces that meet the open face are linearly independent, with the constants; so D_i = 0
        exactly if the base value and every step vanish. Mostly O(n1 H) operations, O(n1 H n3) at worst.

        >>> form = OrthantForm(*map(np.array, ([0.0], [[0.0, 0.0]], [[5.0]], [[1.0, -1.0]], [-2.0])))
        >>> form.visible().tolist()  # relu(y_0 - y_1 - 2) does not show y_0 = 0
        [False, True]
        """
        out = np.zeros(self.width, dtype=bool)
        jumping: BoolArray = np.asarray(self.jumps != 0, dtype=bool).any(axis=0).reshape(-1)
        for i in range(self.width):
            found = self._crossing(i)
            hashes = self._hashes[found, i].tolist()
            alone = _singles(hashes)
            if any(jumping[h] and v in alone for h, v in zip(found.tolist(), hashes, strict=True)):
                out[i] = True
                continue
            base, steps = self._groups(i)
            out[i] = any(base) or any(any(step) for _, step in steps)
        return out

    # ---- hidden coordinates

    def slab(self, i: int) -> Fraction | None:
        """tau_i, the largest t such that g does not depend on y_i for 0 < y_i < t; None if it never does.

        Orient h so that alpha_hi > 0: it first meets the slab at -beta_h / alpha_hi if beta_h < 0 and no other entry is
        positive, else at once. tau_i is the least of these if the slope below is 0, and 0 otherwise. O(n1 H).

        >>> form = OrthantForm(*map(np.array, ([0.0], [[0.0, 0.0]], [[5.0]], [[2.0, -1.0]], [-3.0])))
        >>> form.slab(0), form.slab(1)
        (Fraction(3, 2), Fraction(0, 1))
        """
        plus, minus, more, less = self._counts
        up: BoolArray = plus[:, i]
        down: BoolArray = minus[:, i]
        above = np.where(up, more[:, i], less[:, i])  # oriented: entries that push h into the slab
        below = np.where(up, less[:, i], more[:, i])
        seen = up | down
        positive = np.where(up, plus[:, -1], minus[:, -1])
        negative = np.where(up, minus[:, -1], plus[:, -1])
        never = seen & (below == 0)
        late = seen & ~never & (above == 0) & negative & ~positive
        if (seen & ~never & ~late).any():
            return Fraction(0)
        slope = rationals.fractions(self.linear[:, i]).copy()
        for h in np.flatnonzero((never & up) | (late & down)).tolist():
            slope = slope + self._slope(h, i)
        if (slope != 0).any():
            return Fraction(0)
        ends = [
            -rationals.as_fraction(self.beta[h]) / rationals.as_fraction(self.alpha[h, i])
            for h in np.flatnonzero(late).tolist()
        ]
        return min(ends, default=None)

    def hidden(self) -> tuple[int, ...]:
        """The coordinates whose kink can be moved: readers exist, and none is active before y_i > 0.

        Once relu(t) = relu(-t) + t turns readers to alpha_hi > 0: L_i = 0, beta_h <= 0, alpha_hk <= 0 for k != i.

        >>> OrthantForm(*map(np.array, ([0.0], [[0.0, 0.0]], [[5.0]], [[1.0, -1.0]], [0.0]))).hidden()
        (0,)
        """
        plus, minus, more, less = self._counts
        quiet = (plus[:, :-1] & (more == 0)) | (minus[:, :-1] & (less == 0))
        read = plus[:, :-1] | minus[:, :-1]
        out = []
        for i in np.flatnonzero((read <= quiet).all(axis=0) & read.any(axis=0)).tolist():
            turned = np.flatnonzero(minus[:, i])
            slope = self.linear[:, i]
            if turned.size:
                slope = rationals.add(slope, rationals.matmul(self.jumps[:, turned], self.alpha[turned, i]))
            if not np.asarray(slope != 0, dtype=bool).any():
                out.append(i)
        return tuple(out)

    def readers(self, i: int) -> tuple[int, ...]:
        """The hyperplanes h with alpha_hi != 0."""
        return tuple(np.flatnonzero(np.asarray(self.alpha[:, i] != 0, dtype=bool)).tolist())

    # ---- points that show a kink

    def visible_point(self, i: int) -> Point | None:
        """A rational point of the open face y_i = 0, on no hyperplane, with D_i != 0; None exactly if D_i = 0 there.

        Depends on the form only. Some fixed points are tried, then both sides of each trace.

        >>> form = OrthantForm(*map(np.array, ([0.0], [[1.0, 0.0]], [[5.0]], [[1.0, -1.0]], [-2.0])))
        >>> form.visible_point(0)[0], any(form.jump(0, form.visible_point(0)))
        (Fraction(0, 1), True)
        """
        for y in self._points(i, _TRIES):
            signs = self._signs(y)
            if signs.all() and any(self._jump(i, signs)):
                return tuple(y)
        base, steps = self._groups(i)
        moving = [h for h, step in steps if any(step)]
        if not moving and not any(base):
            return None
        tries = 64
        while True:  # generic points of a face or of a trace lie on no other hyperplane: some try succeeds
            sources = [self._beside(h, i, tries) for h in moving] or [self._points(i, tries)]
            for source in sources:
                for y in source:
                    signs = self._signs(y)
                    if signs.all() and any(self._jump(i, signs)):
                        return tuple(y)
            tries *= 4

    def bent_point(self, i: int) -> Point | None:
        """A rational point of the open face y_i = 0 on exactly one hyperplane h, alpha_hi != 0, D_i != 0 beside it.

        Four kinks of f meet there, of which only z_i = 0 is straight. None if the search (a fixed number of points on
        the trace of every reader, which depends on the form only) finds none.

        >>> form = OrthantForm(*map(np.array, ([0.0], [[1.0, 0.0]], [[5.0]], [[1.0, -1.0]], [2.0])))
        >>> y = form.bent_point(0)
        >>> y[0], y[1]
        (Fraction(0, 1), Fraction(2, 1))
        """
        readers = self._crossing(i).tolist()
        for h in readers:
            for y in self._on_trace(h, i, _TRACE_TRIES):
                signs = self._signs(y)
                if signs[h] == 0 and np.count_nonzero(signs) == len(signs) - 1 and self._bends(h, i, signs):
                    return tuple(y)
        return None

    def _bends(self, h: int, i: int, signs: npt.NDArray[np.int8]) -> bool:
        sides = []
        for side in (-1, 1):
            signs[h] = side
            sides.append(any(self._jump(i, signs)))
        return all(sides)

    def _points(self, i: int, count: int) -> Iterator[ExactArray]:
        """Fixed points of the open face at the scales where the hyperplanes are: dyadic with few bits."""
        scales = self._scales
        for t in range(count):
            bits = _mixed(self.width, (t + 1) * 0xD1342543DE82EF95)
            spread, grid = 1 + t % 4 + t // 64, 5 + t.bit_length() // 2
            power = scales[t % len(scales)] + (bits % np.uint64(2 * spread + 1)).astype(np.int64) - spread
            mantissa = 2**grid + ((bits >> np.uint64(20)) % np.uint64(2**grid)).astype(np.int64)
            y = np.empty(self.width, dtype=object)
            y[:] = [Fraction(int(m)) * Fraction(2) ** int(p - grid) for m, p in zip(mantissa, power, strict=True)]
            y[i] = Fraction(0)
            yield y

    @cached_property
    def _scales(self) -> list[int]:
        """Powers of two near |beta_h| / |alpha_h|, from the middle outwards."""
        alpha, beta, _ = self._float64
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            typical = np.log2(np.abs(beta) / np.abs(alpha).mean(axis=1)) if alpha.size else np.zeros(0)
        usual = np.sort(typical[np.isfinite(typical)])
        middle = [int(np.round(np.quantile(usual, q))) for q in (0.5, 0.9, 0.1, 1.0, 0.0)] if usual.size else [0]
        return list(dict.fromkeys([*middle, middle[0] + 4, middle[0] - 4, 0]))

    def _on_trace(self, h: int, i: int, count: int) -> Iterator[ExactArray]:
        """Points of the open face on the trace of h, which meets it: its positive or negative part is rescaled."""
        row = rationals.fractions(self._table[h])
        a, c = row[:-1].copy(), row[-1]
        a[i] = Fraction(0)
        for y in self._points(i, count):
            terms = a * y
            up, down = (sum((v for v in terms if (v > 0) == side and v), Fraction(0)) for side in (True, False))
            grow = up + down + c
            if grow == 0:
                yield y
                continue
            # the side that is too small grows, so that up s + down t + c = 0
            s = (-down - c) / up if up and -down - c > 0 and (grow < 0 or not down) else Fraction(1)
            t = (-up - c) / down if s == 1 and down and up + c > 0 else Fraction(1)
            yield np.array([v * (s if w > 0 else t if w < 0 else 1) for v, w in zip(y, a, strict=True)], dtype=object)

    def _beside(self, h: int, i: int, count: int) -> Iterator[ExactArray]:
        """Points of the open face on both sides of the trace of h, with no other hyperplane in between."""
        row = rationals.fractions(self._table[h])[:-1].copy()
        row[i] = Fraction(0)
        k = next(k for k, v in enumerate(row) if v)
        table = rationals.fractions(self._table)
        for y in self._on_trace(h, i, count):
            values = table[:, :-1] @ y + table[:, -1]
            room = [abs(v / a) for v, a in zip(values, table[:, k], strict=True) if v and a]
            step = min([y[k], *room]) / 2
            for sign in (1, -1):
                moved = y.copy()
                moved[k] = y[k] + sign * step
                yield moved


def _singles(values: list[Any]) -> set[Any]:
    count: dict[Any, int] = {}
    for v in values:
        count[v] = count.get(v, 0) + 1
    return {v for v, n in count.items() if n == 1}


def _slack(n: int) -> float:
    """Relative error of a float64 dot product of n + 1 products of rounded factors, with room to spare."""
    return 2.0 * _EPS * (n + 8)


def _vector(values: Sequence[Any] | ExactArray) -> ExactArray:
    out = np.empty(len(values), dtype=object)
    out[:] = [rationals.as_fraction(v) for v in values]
    return out


def _mixed(count: int, seed: int) -> npt.NDArray[np.uint64]:
    """splitmix64: the same bits on every machine and with every NumPy."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
