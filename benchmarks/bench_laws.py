"""Time of counting conservation laws: two suites of 50 random architectures, and the growth with the parameters.

Run: python benchmarks/bench_laws.py [largest number of parameters]
"""

import sys
import time

import numpy as np

from fiberscope.invariants.laws.counting import conserved
from fiberscope.network import Network


def suite(name: str, largest: int, activation: str) -> None:
    """Fifty architectures of depth 2 to 4 without biases, as in the official notebooks of arXiv 2307.00144."""
    rng = np.random.default_rng(0)
    start, right = time.perf_counter(), 0
    for _ in range(50):
        widths = tuple(int(n) for n in rng.integers(2, largest + 1, rng.integers(3, 6)))
        found = conserved(widths, activation=activation, bias=False)
        known = found.independent if activation == "identity" else sum(widths[1:-1])
        right += found.rigor.name == "EXACT" and found.count == known
    print(f"{name}: {right} of 50 proved, {time.perf_counter() - start:.2f} s")


def main(most: int) -> None:
    """Print the times."""
    suite("linear, widths 2-5", 5, "identity")
    suite("ReLU, widths 2-9", 9, "relu")
    cases = [((n,) * 3, "identity", False) for n in (8, 16, 24, 32, 40)]
    cases += [((16, 16, 16, 16), "identity", False), ((20, 100, 1), "relu", True), ((10, 32, 32, 10), "relu", True)]
    cases += [((4, 16, 2), "gelu", True), ((8, 64, 4), "tanh", True)]
    for widths, activation, bias in cases:
        size = sum(a * b + b * bias for a, b in zip(widths, widths[1:], strict=False))
        if size > most:
            continue
        start = time.perf_counter()
        found = conserved(widths, activation=activation, bias=bias, degree=0)
        took = time.perf_counter() - start
        print(f"{found.model}: M = {size}, ranks {found.growth}, {found.count} laws, {found.rigor.name}, {took:.2f} s")
    for widths in ((3, 4, 4, 2), (2, 8, 8, 1), (3, 6, 6, 6, 1)):
        start = time.perf_counter()
        here = conserved(Network.random(widths, seed=0), degree=0).here
        took = time.perf_counter() - start
        print(
            f"{widths} at its own weights: {here.count} laws, {here.patterns} patterns, {here.rigor.name}, {took:.2f} s"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2500)
