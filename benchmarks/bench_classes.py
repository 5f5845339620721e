"""Time and memory of finding neuron classes, against one pass of row and column sums over the same matrices.

Run: python benchmarks/bench_classes.py [width] [neurons]

Prints, for a width-width-width network in float32 and float64, unsigned (softplus) and signed (tanh), with random
weights and with planted classes, the time of `colour_classes` as a multiple of `W.sum(0); W.sum(1)` over all matrices
and its peak memory in copies of the weights; then the seconds for a two-layer 33-neurons-1 network with a twentieth as
many planted classes, a null class and signs.
"""

import sys
import time
import tracemalloc

import numpy as np
from timing import best

from fiberscope.network import Network
from fiberscope.neurons import colour_classes

MOST = {"softplus": 10, "tanh": 25}


def copies(rng, width, dtype, activation):
    """An eighth of the neurons are copies, up to sign where the activation allows it."""
    weights = [rng.standard_normal((width, width)).astype(dtype) for _ in range(2)]
    bias = rng.standard_normal(width).astype(dtype)
    new, old = rng.permutation(width)[: width // 4].reshape(2, -1)
    sign = rng.choice([-1, 1], new.size).astype(dtype) if activation == "tanh" else np.ones(new.size, dtype)
    weights[0][new], bias[new] = sign[:, None] * weights[0][old], sign * bias[old]
    weights[1][:, new] = sign * weights[1][:, old]
    return (weights[0], bias), (weights[1], rng.standard_normal(width).astype(dtype))


def eighths(rng, width, dtype, activation):
    """Eight copies, up to sign, of every neuron."""
    (first, bias), (second, last) = random(rng, width, dtype, activation)
    old = np.repeat(np.arange(width // 8), 8)
    sign = rng.choice([-1, 1], width).astype(dtype) if activation == "tanh" else np.ones(width, dtype)
    return (sign[:, None] * first[old], sign * bias[old]), (sign * second[:, old], last)


def random(rng, width, dtype, activation):
    """No classes."""
    pairs = [(rng.standard_normal((width, width)), rng.standard_normal(width)) for _ in range(2)]
    return tuple((w.astype(dtype), b.astype(dtype)) for w, b in pairs)


def peak(function):
    """Peak of the memory that NumPy and Python ask for meanwhile, in bytes."""
    tracemalloc.start()
    function()
    out = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return out


def square(width):
    """Ratios and memory for the three-layer networks."""
    for dtype in (np.float32, np.float64):
        for activation in ("softplus", "tanh"):
            for plant in (random, copies, eighths):
                pairs = plant(np.random.default_rng(0), width, dtype, activation)
                net = Network.from_arrays(*pairs, activation=activation)
                baseline = best(lambda n=net: [layer.weight.sum(axis=a) for layer in n.layers for a in (0, 1)], 5)
                taken = best(lambda n=net: colour_classes(n))
                size = sum(layer.weight.nbytes for layer in net.layers)
                print(
                    f"{width}-{width}-{width} {np.dtype(dtype).name} {activation:8} {plant.__name__:7} "
                    f"{colour_classes(net)[0].count:5} classes: sums {baseline:.3f} s, classes {taken:.3f} s = "
                    f"{taken / baseline:4.1f}x (goal {MOST[activation]}x), "
                    f"peak {peak(lambda n=net: colour_classes(n)) / size:.2f} copies of the weights"
                )


def wide(neurons):
    """Seconds for many neurons with planted signed classes and a null class."""
    rng = np.random.default_rng(0)
    of = rng.integers(0, neurons // 20, neurons)
    rows = rng.standard_normal((neurons // 20, 35))
    rows[0] = 0.0
    rows = rows[of] * rng.choice([-1.0, 1.0], neurons)[:, None]
    net = Network.from_arrays((rows[:, :33], rows[:, 33]), (rows[:, 34:].T, [0.0]), activation="tanh")
    begin = time.perf_counter()
    found = colour_classes(net)[0]
    taken = time.perf_counter() - begin
    known = len(np.unique(of[of > 0]))
    print(
        f"33-{neurons}-1 tanh: {found.count} of {known} planted classes, {len(found.null)} of {int((of == 0).sum())} "
        f"null neurons in {taken:.2f} s (goal 5 s)"
    )


if __name__ == "__main__":
    square(int(sys.argv[1]) if len(sys.argv) > 1 else 4096)
    wide(int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
