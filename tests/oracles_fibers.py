"""Exact moves inside a fiber, written for clarity only, and generators of networks to move."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from fiberscope.network import Network

ARCHITECTURES = (
    (2, 2, 3, 1), (3, 3, 4, 2), (4, 2, 5, 3), (5, 4, 6, 1), (6, 1, 4, 2), (3, 2, 2, 2), (2, 1, 3, 1), (4, 4, 3, 2),
)  # fmt: skip
"""Bottleneck shapes; NARROW are the others."""
NARROW = ((2, 4, 3, 1), (1, 3, 3, 2))
MODES = ("generic", "hidden", "single", "active", "dead", "degenerate")


def vectors():
    """(name, case) of the stored vectors."""
    path = Path(__file__).parent / "data" / "fibers.json"
    return [(case["name"], case) for case in json.loads(path.read_text(encoding="utf-8"))]


def vector_network(part):
    """One side of a stored vector."""
    read = lambda key: np.array([[Fraction(v) for v in row] for row in part[key]], dtype=object)  # noqa: E731
    bias = lambda key: np.array([Fraction(v) for v in part[key]], dtype=object)  # noqa: E731
    return Network.from_arrays(*((read(f"W{k}"), bias(f"b{k}")) for k in (1, 2, 3)))


def table(values):
    """An object array of Fractions."""
    values = np.asarray(values)
    out = np.empty(values.shape, dtype=object)
    for place, value in np.ndenumerate(values):
        out[place] = value if isinstance(value, Fraction) else Fraction(float(value))
    return out


class Net3:
    """W1, b1, W2, b2, W3, b3 over Q with moves that keep the function of a three-layer ReLU network."""

    def __init__(self, *parts):
        self.W1, self.b1, self.W2, self.b2, self.W3, self.b3 = (table(p) for p in parts)

    def network(self):
        return Network.from_arrays((self.W1, self.b1), (self.W2, self.b2), (self.W3, self.b3))

    def copy(self):
        return Net3(self.W1, self.b1, self.W2, self.b2, self.W3, self.b3)

    # ---- moves

    def permute(self, rng):
        p, q = rng.permutation(len(self.b1)), rng.permutation(len(self.b2))
        self.W1, self.b1, self.W2 = self.W1[p], self.b1[p], self.W2[:, p]
        self.W2, self.b2, self.W3 = self.W2[q], self.b2[q], self.W3[:, q]

    def scale(self, rng):
        for i in range(len(self.b1)):
            e = positive(rng)
            self.W1[i], self.b1[i], self.W2[:, i] = self.W1[i] * e, self.b1[i] * e, self.W2[:, i] / e
        for j in range(len(self.b2)):
            e = positive(rng)
            self.W2[j], self.b2[j], self.W3[:, j] = self.W2[j] * e, self.b2[j] * e, self.W3[:, j] / e

    def _add(self, u, c, v):
        """One more second-layer neuron."""
        self.W2 = np.concatenate([self.W2, table([u])])
        self.b2 = np.concatenate([self.b2, table([c])])
        self.W3 = np.concatenate([self.W3, table(v).reshape(-1, 1)], axis=1)

    def _column(self, rng):
        return table(rng.integers(-3, 4, len(self.b3)))

    def dead(self, rng):
        self._add(-rng.integers(0, 4, len(self.b1)), -int(rng.integers(0, 4)), self._column(rng))

    def unread(self, rng):
        self._add(rng.integers(-3, 4, len(self.b1)), int(rng.integers(-3, 4)), np.zeros(len(self.b3)))

    def constant(self, rng):
        v, c = self._column(rng), int(rng.integers(1, 4))
        self._add(np.zeros(len(self.b1)), c, v)
        self.b3 = self.b3 - v * c

    def duplicate(self, rng):
        j, part, e = rng.integers(len(self.b2)), self._column(rng), positive(rng)
        self._add(self.W2[j] * e, self.b2[j] * e, part / e)
        self.W3[:, j] = self.W3[:, j] - part

    def twin(self, rng):
        """A first-layer neuron split into two proportional ones."""
        i, part, e = rng.integers(len(self.b1)), table(rng.integers(-2, 3, len(self.b2))), positive(rng)
        self.W1, self.b1 = (
            np.concatenate([self.W1, self.W1[i : i + 1] * e]),
            np.concatenate([self.b1, [self.b1[i] * e]]),
        )
        self.W2 = np.concatenate([self.W2, (part / e).reshape(-1, 1)], axis=1)
        self.W2[:, i] = self.W2[:, i] - part

    def active_pair(self, rng):
        u, c, v = rng.integers(0, 4, len(self.b1)), int(rng.integers(0, 3)), self._column(rng)
        self._add(u, c, v)
        self._add(2 * u, 2 * c + 1, -v / 2)
        self.b3 = self.b3 + v / 2

    def turned(self, rng):
        """relu(t) = relu(-t) + t, the linear t paid by two always-active neurons."""
        j = rng.integers(len(self.b2))
        u, c, v = self.W2[j].copy(), self.b2[j], self.W3[:, j].copy()
        self.W2[j], self.b2[j] = -u, -c
        self._add([max(w, 0) for w in u], max(c, 0), v)
        self._add([max(-w, 0) for w in u], max(-c, 0), -v)

    def shift(self, rng):
        """Move a hidden kink; nothing where none is hidden in plain sight."""
        for i in range(len(self.b1)):
            readers = [j for j in range(len(self.b2)) if self.W2[j, i] != 0]
            quiet = all(
                self.W2[j, i] > 0 and self.b2[j] <= 0 and all(w <= 0 for k, w in enumerate(self.W2[j]) if k != i)
                for j in readers
            )
            if readers and quiet:
                room = max(self.b2[j] / self.W2[j, i] for j in readers)
                by = room + Fraction(int(rng.integers(0, 9)), 4)
                self.b1[i] += by
                for j in readers:
                    self.b2[j] -= self.W2[j, i] * by
                return

    def turn_first(self, rng):
        """z_i <- z_i + rho z_k, z_k <- -z_k where one second-layer neuron hides i and is alone."""
        del rng
        if len(self.b2) != 1 or len(self.b1) < 2:
            return
        u, c = self.W2[0], self.b2[0]
        for i in range(len(u)):
            if u[i] > 0 and c <= 0 and all(w < 0 for k, w in enumerate(u) if k != i):
                k = (i + 1) % len(u)
                rho = u[k] / u[i]
                self.W1[i], self.b1[i] = self.W1[i] + rho * self.W1[k], self.b1[i] + rho * self.b1[k]
                self.W1[k], self.b1[k] = -self.W1[k], -self.b1[k]
                return


MOVES = (
    "permute", "scale", "dead", "unread", "constant", "duplicate", "twin", "active_pair", "turned", "shift",
    "turn_first",
)  # fmt: skip


def positive(rng):
    return Fraction(int(rng.integers(1, 8)), int(rng.integers(1, 8)))


def net3(rng, widths, mode="generic", size=9):
    """A three-layer network with independent rows, its second layer of the kind that `mode` names."""
    n0, n1, n2, n3 = widths
    while True:
        first = rng.integers(-size, size + 1, (n1, n0))
        if np.linalg.matrix_rank(first) == min(n1, n0):
            break
    b1 = rng.integers(-size, size + 1, n1)
    nonzero = lambda *shape: rng.integers(1, size + 1, shape) * rng.choice([-1, 1], shape)  # noqa: E731
    upper, b2, out, b3 = nonzero(n2, n1), nonzero(n2), nonzero(n3, n2), nonzero(n3)
    if mode in ("hidden", "single"):
        upper, b2 = -abs(upper), -abs(b2)
        upper[:, 0] *= -1
        if mode == "single":
            upper, b2, out = upper[:1], b2[:1], out[:, :1]
    elif mode == "active":
        upper[: n2 // 2 + 1], b2[: n2 // 2 + 1] = abs(upper[: n2 // 2 + 1]), abs(b2[: n2 // 2 + 1])
    elif mode == "dead":
        upper[0], b2[0] = -abs(upper[0]), -abs(b2[0])
    elif mode == "degenerate":
        upper, b2, out = (rng.integers(-1, 2, a.shape) for a in (upper, b2, out))
        b1 = rng.integers(-1, 2, b1.shape)
    return Net3(first, b1, upper, b2, out, b3)


def scrambled(net, rng, moves=6):
    """An equal network after random moves; and their names."""
    out, names = net.copy(), []
    for name in sorted(
        rng.choice(MOVES, moves), key=lambda name: name == "twin"
    ):  # a shift of one twin is no bottleneck
        getattr(out, name)(rng)
        names.append(str(name))
    return out, names


def ladder(net, rng, points=24):
    """Inputs that reach every cell by chance: wide, narrow, on and beside first-layer kinks; exact."""
    n0 = net.widths[0]
    rows = [[Fraction(int(v), 4) for v in rng.integers(-40, 41, n0)] for _ in range(points)]
    rows += [[Fraction(int(v)) for v in rng.integers(-400, 401, n0)] for _ in range(points // 3)]
    weight, bias = table(net.layers[0].weight), table(net.layers[0].bias)
    for w, b in zip(weight, bias, strict=True):
        i = next((k for k, v in enumerate(w) if v != 0), None)
        if i is not None:
            x = list(rows[int(rng.integers(points))])
            x[i] = -(b + sum(v * q for k, (v, q) in enumerate(zip(w, x, strict=True)) if k != i)) / w[i]
            rows += [x, [q + Fraction(1, 64) for q in x]]
    return rows


def same_values(f, g, rng, points=24):
    """Whether two networks agree exactly on many inputs."""
    return all(f.exact(x) == g.exact(x) for x in (*ladder(f, rng, points), *ladder(g, rng, points // 2)))


def value(net, x):
    """Exact output of a ReLU network, loop by loop."""
    y = [Fraction(v) for v in x]
    for k, layer in enumerate(net.layers):
        z = [
            sum((Fraction(w) * v for w, v in zip(row, y, strict=True)), Fraction(b))
            for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        y = z if k == net.depth - 1 else [max(v, Fraction(0)) for v in z]
    return tuple(y)


def holders(net, rng, dtype):
    """The network in a float dtype, and a permuted copy rescaled by powers of two in it."""
    out = [(np.array(layer.weight, dtype=dtype), np.array(layer.bias, dtype=dtype)) for layer in net.layers]
    moved = [(w.copy(), b.copy()) for w, b in out]
    for k in range(len(out) - 1):
        order, e = rng.permutation(len(out[k][1])), (2.0 ** rng.integers(-3, 4, len(out[k][1]))).astype(dtype)
        w, b = moved[k]
        moved[k] = ((w * e[:, None])[order], (b * e)[order])
        moved[k + 1] = ((moved[k + 1][0] / e)[:, order], moved[k + 1][1])
    return out, moved


def near_miss(pairs, rng, kind):
    """The arrays with one weight changed by one ulp, one sign turned, or one bias moved."""
    out = [(w.copy(), b.copy()) for w, b in pairs]
    k = int(rng.integers(len(out)))
    target = out[k][1] if kind == "bias" else out[k][0]
    place = tuple(int(rng.integers(n)) for n in target.shape)
    if kind == "ulp":
        target[place] = np.nextafter(target[place], target.dtype.type(np.inf))
    elif kind == "sign":
        target[place] = -target[place]
    else:
        target[place] += target.dtype.type(rng.choice([-1, 1]) * 2.0 ** int(rng.integers(-20, 1)))
    return out


KINDS = ("ulp", "sign", "bias")
