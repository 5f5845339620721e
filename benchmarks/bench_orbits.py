"""Orbit dimensions at size: seconds against the plain way, the rank of all brackets stacked, measured in the same run.

Run: python benchmarks/bench_orbits.py [--quick]
The plain way: FLINT's rank modulo the prime for exact ranks, numpy.linalg.matrix_rank for numerical ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fiberscope import rationals
from fiberscope.autodiff.elimination import rank_of
from fiberscope.autodiff.families import Family, RestrictedFamily
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.liebrackets import brackets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import PRIME, Residues
from fiberscope.invariants.orbits import orbit
from fiberscope.models.chains import blocks_of, chain_family
from fiberscope.models.networks import piecewise_family
from fiberscope.network import Network

CASES: tuple[tuple[tuple[int, ...], str, bool, str, bool], ...] = (
    ((8, 8, 8), "identity", False, "exact", True),
    ((16, 16, 16), "identity", False, "exact", True),
    ((16, 16, 16, 16), "identity", False, "exact", True),
    ((24, 24, 24), "identity", False, "exact", False),
    ((32, 32, 32), "identity", False, "exact", False),
    ((44, 44, 44), "identity", False, "exact", False),
    ((10, 16, 16, 10), "relu", True, "exact", True),
    ((784, 5, 5, 10), "relu", True, "exact", False),
    ((24, 24, 24), "identity", False, "flow", True),
    ((10, 20, 20, 10), "relu", True, "flow", True),
    ((32, 32, 32), "identity", False, "flow", False),
    ((10, 64, 64, 10), "relu", True, "flow", False),
    ((64, 64, 64), "identity", False, "flow", False),
)
"""Widths, activation, biases, method, whether --quick measures it too."""
PLAIN_SIZE = 2200
"""Parameters up to which the plain way is measured."""


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Value, wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def family_of(net: Network, biases: bool) -> Family:
    """The fields, all gates free, without the biases if they are not trained."""
    rows = [layer.activation for layer in net.hidden]
    family = piecewise_family(net.widths, rows) if rows[0].name == "relu" else chain_family(net.widths, rows)
    if biases:
        return family
    keep = [np.full(int(np.prod(shape)), name[0] == "W") for name, shape in blocks_of(net.widths)]
    return RestrictedFamily(family, np.zeros(family.size), np.flatnonzero(np.concatenate(keep)))


def plain(net: Network, biases: bool, method: str) -> int:
    """The rank of M + 8 brackets of depths 1 and 2 each, stacked."""
    family, rng = family_of(net, biases), np.random.default_rng(0)
    if method == "exact":
        ring = Residues()
        theta = Nilpotent(ring, {0: ring.random(rng, (1, family.size))})
        data = [family.draw(ring, rng, family.size + 8) for _ in range(2)]
        terms = brackets(family, theta, data, FormalJets(ring, 0))
        return rationals.rank_mod(np.concatenate([t.real for t in terms]), ring.prime)
    floats = NumpyFamily(family, rng.standard_normal(family.size))
    found = floats.brackets(floats.start, [floats.draw(rng, family.size + 8) for _ in range(2)])
    rows = np.concatenate([t / np.linalg.norm(t, axis=1, keepdims=True).clip(1e-300) for t in found])
    return int(np.linalg.matrix_rank(rows, tol=1e-9 * np.sqrt(len(rows))))


def special() -> tuple[Network, Network]:
    """Two-layer tanh networks 20-40-2 with a pair of equal neurons and a zero one; with w = 0 in one neuron only."""
    rng = np.random.default_rng(0)
    out = []
    for merged in (True, False):
        w, b, a = rng.standard_normal((40, 20)), rng.standard_normal(40), rng.standard_normal((2, 40))
        w[0], b[0] = 0, 0
        if merged:
            a[:, 0], w[2], b[2], a[:, 2] = 0, w[1], b[1], a[:, 1]
        out.append(Network.from_arrays((w, b), (a, rng.standard_normal(2)), activation="tanh"))
    return out[0], out[1]


def main(quick: bool) -> None:
    """Print the table."""
    orbit(Network.random((2, 2, 1), activation="tanh", seed=0))  # imports
    print(
        f"{'network':26} {'M':>6} {'method':>8} {'dimension':>9} {'wall s':>8} {'CPU s':>8} {'plain s':>8} {'ratio':>7}"
    )
    for widths, name, biases, method, small in CASES:
        if quick and not small:
            continue
        net = Network.random(widths, activation=name, seed=0, bias=biases)
        frozen = () if biases else tuple(f"b{k}" for k in range(1, len(widths)))
        found, wall, cpu = timed(lambda n=net, m=method, f=frozen: orbit(n, at="generic", method=m, frozen=f))
        base = ratio = "-"
        if found.ambient <= PLAIN_SIZE:
            value, seconds, _ = timed(lambda n=net, b=biases, m=method: plain(n, b, m))
            base, ratio = f"{seconds:.2f}", f"{seconds / wall:.1f}x"
            if value != found.dimension:
                base += f" ({value}!)"
        label = "-".join(map(str, widths)) + f" {name}" + (" bias" if biases else "")
        print(
            f"{label:26} {found.ambient:6} {method:>8} {found.dimension:9} {wall:8.2f} {cpu:8.2f} {base:>8} {ratio:>7}",
            flush=True,
        )
    for label, net in zip(("equal + zero neurons", "one w = 0"), special(), strict=True):
        found, wall, cpu = timed(lambda n=net: orbit(n))
        print(f"{'20-40-2 tanh, ' + label:34.34} {found.ambient} at theta {found.dimension:7} {wall:8.2f} {cpu:8.2f}")
    print("\nrank modulo 2^31 - 1 of a random n x n matrix")
    rng = np.random.default_rng(0)
    for n in (100, 300, 600, 1000) if quick else (100, 300, 600, 1000, 2000, 4000):
        table = rng.integers(0, PRIME, (n, n))
        _, wall, cpu = timed(lambda t=table: rank_of(t))
        base = ratio = "-"
        if n <= 2000:
            _, seconds, _ = timed(lambda t=table: rationals.rank_mod(t, PRIME))
            base, ratio = f"{seconds:.2f}", f"{seconds / wall:.1f}x"
        print(f"{n:26} {'':34} {wall:8.3f} {cpu:8.3f} {base:>8} {ratio:>7}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    main(parser.parse_args().quick)
