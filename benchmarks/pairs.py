"""Pairs of float32 ReLU networks with a known answer to "do they compute the same function?", of eight kinds.

A pair is two chains of (W, b) with He weights, drawn from a seed. The second one is disguised: its hidden neurons are
permuted, and rescaled by powers of two, which is exact in floating point. Run: python benchmarks/pairs.py FOLDER
writes all of them as .npz files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import fiberscope as fs
from fiberscope.network import Network
from fiberscope.results import Answer

Array = npt.NDArray[np.float32]
Chain = list[tuple[Array, Array]]
Random = np.random.Generator
Planted = tuple[Chain, Chain, Answer, str]

SIZES = {
    "5-5-5-1": (5, 5, 5, 1),
    "10-8-16-3": (10, 8, 16, 3),
    "5-50x6-5": (5, *[50] * 6, 5),
    "784-64-64-10": (784, 64, 64, 10),
    "784-512-256-10": (784, 512, 256, 10),
}
BOX = "[-1,1]"
"""The box on which pairs are compared by methods that need one."""


class Pair(NamedTuple):
    """Two networks, whether they are the same function, and what was done to the second."""

    f: Network
    g: Network
    expected: Answer
    note: str


def pair(kind: str, widths: tuple[int, ...], seed: int = 0) -> Pair:
    """The pair of one of the `KINDS` with the given widths (n_0, ..., n_L), at least one of them hidden.

    Raises:
        KeyError: if there is no such kind.
    """
    plant = KINDS[kind]
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind), *widths])
    f, g, expected, note = plant(he(widths, rng), rng)
    return Pair(Network.from_arrays(*f), Network.from_arrays(*g), expected, note)


def he(widths: tuple[int, ...], rng: Random) -> Chain:
    """Gaussian weights of variance 2/n_in and biases of deviation 0.1, in float32."""
    return [
        (
            (rng.standard_normal((rows, columns)) * np.sqrt(2 / columns)).astype(np.float32),
            (0.1 * rng.standard_normal(rows)).astype(np.float32),
        )
        for columns, rows in zip(widths, widths[1:], strict=False)
    ]


def permuted(chain: Chain, rng: Random) -> Chain:
    """The same function with the hidden neurons of every layer in another order."""
    out = list(chain)
    for k in range(len(out) - 1):
        order = rng.permutation(len(out[k][1]))
        out[k] = (out[k][0][order], out[k][1][order])
        out[k + 1] = (out[k + 1][0][:, order], out[k + 1][1])
    return out


def rescaled(chain: Chain, draw: Callable[[int], npt.NDArray[np.float64]]) -> Chain:
    """Hidden neurons times positive factors, their outgoing weights divided by them, each product rounded to float32.

    Args:
        chain: the network.
        draw: n factors, (n,).
    """
    out = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in chain]
    for k in range(len(out) - 1):
        factors = draw(len(out[k][1]))
        out[k] = (out[k][0] * factors[:, None], out[k][1] * factors)
        out[k + 1] = (out[k + 1][0] / factors, out[k + 1][1])
    return [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in out]


def disguised(chain: Chain, rng: Random) -> Chain:
    """Permuted, and rescaled by powers of two from 1/8 to 8: the same function exactly."""
    return rescaled(permuted(chain, rng), lambda n: np.exp2(rng.integers(-3, 4, n)))


def widened(chain: Chain, rng: Random) -> Chain:
    """Every hidden layer gets a copy of one of its neurons, which takes half of the outgoing weights, and a dead one.

    The dead neuron has a negative bias; its weights are zero in the first layer and nonpositive in later ones, where
    inputs are nonnegative. Its outgoing weights are random.
    """
    out = list(chain)
    for k in range(len(out) - 1):
        (weight, bias), (above, shift) = out[k], out[k + 1]
        twin = int(rng.integers(len(bias)))
        dead = np.zeros_like(weight[:1]) if k == 0 else -np.abs(weight[rng.integers(len(bias), size=1)])
        out[k] = (np.concatenate([weight, weight[[twin]], dead]), np.append(bias, [bias[twin], np.float32(-1)]))
        above = np.concatenate([above, above[:, [twin]] / 2, rng.permutation(above[:, [twin]])], axis=1)
        above[:, twin] /= 2
        out[k + 1] = (above, shift)
    return out


def _copy(chain: Chain) -> Chain:
    return [(weight.copy(), bias.copy()) for weight, bias in chain]


def _live(chain: Chain, layer: int, rng: Random) -> int:
    """A neuron of a hidden layer that is active at some of 256 random points of the box."""
    net = Network.from_arrays(*chain)
    points = 2 * rng.random((256, net.widths[0])) - 1
    return int(rng.choice(np.flatnonzero((net.preactivations(points)[layer] > 0).any(axis=0))))


def _eq_perm(chain: Chain, rng: Random) -> Planted:
    return chain, permuted(chain, rng), Answer.YES, "hidden neurons permuted"


def _eq_pow2(chain: Chain, rng: Random) -> Planted:
    return chain, disguised(chain, rng), Answer.YES, "hidden neurons permuted and rescaled by powers of two"


def _gen(chain: Chain, rng: Random) -> Planted:
    other = rescaled(permuted(chain, rng), lambda n: rng.uniform(0.3, 3, n))
    return (
        chain,
        other,
        Answer.NO,
        "permuted and rescaled by factors in [0.3, 3]; float32 rounding changes the function",
    )


def _eq_wide(chain: Chain, rng: Random) -> Planted:
    note = "each hidden layer widened by half of a split neuron and a dead one, then disguised"
    return chain, disguised(widened(chain, rng), rng), Answer.YES, note


def _eq_dead(chain: Chain, rng: Random) -> Planted:
    f = _copy(chain)
    silent = [int(rng.integers(len(bias))) for _, bias in f[:-1]]
    for k, i in enumerate(silent):
        f[k + 1][0][:, i] = 0
    g = _copy(f)
    for k, i in reversed(list(enumerate(silent))):
        g[k][0][i] = rng.permutation(g[k][0][i]) + np.float32(0.5)
        g[k + 1][0][:, i] = 0  # the row of the silent neuron above has changed too
    note = "a neuron of each hidden layer has zero outgoing weights; its own weights differ; disguised"
    return f, disguised(g, rng), Answer.YES, note


def _neq_out(chain: Chain, rng: Random) -> Planted:
    g = _copy(chain)
    row, i = int(rng.integers(len(g[-1][1]))), _live(chain, len(chain) - 2, rng)
    g[-1][0][row, i] += np.float32(0.01)
    return chain, disguised(g, rng), Answer.NO, f"weight {row}, {i} of the last layer + 0.01; disguised"


def _neq_bias(chain: Chain, rng: Random) -> Planted:
    g = _copy(chain)
    i = _live(chain, 0, rng)
    g[0][1][i] += np.float32(1e-4)
    return chain, disguised(g, rng), Answer.NO, f"bias {i} of the first layer + 1e-4; disguised"


def _neq_corner(chain: Chain, rng: Random) -> Planted:
    f = _copy(chain)
    n, i = f[0][0].shape[1], int(rng.integers(len(f[0][1])))
    corner = rng.choice([-1.0, 1.0], n).astype(np.float32)
    f[0][0][i], f[0][1][i] = corner, -15 * n / 16
    f[1][0][:, i] = 0
    g = _copy(f)
    g[1][0][:, i] = 4 * np.abs(rng.standard_normal(len(g[1][1]))) + 1
    note = f"f drops first-layer neuron {i}, active where sum |x - corner| < {n}/16 on the box only; disguised"
    return f, disguised(g, rng), Answer.NO, note


KINDS: dict[str, Callable[[Chain, Random], Planted]] = {
    "eq_perm": _eq_perm,
    "eq_pow2": _eq_pow2,
    "gen": _gen,
    "eq_wide": _eq_wide,
    "eq_dead": _eq_dead,
    "neq_out": _neq_out,
    "neq_bias": _neq_bias,
    "neq_corner": _neq_corner,
}
"""Name of a kind: what is planted into a random chain, as (f, g, expected answer, note)."""


def main(folder: Path) -> None:
    """Write every pair as FOLDER/size-kind-f.npz and -g.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    for size, widths in SIZES.items():
        for kind in KINDS:
            made = pair(kind, widths)
            for name, net in (("f", made.f), ("g", made.g)):
                fs.save(net, folder / f"{size}-{kind}-{name}.npz")
            print(f"{size} {kind}: {made.expected.name}, {made.note}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
