"""Wide and reduced networks side by side, how rounding leaves an invariant manifold, and the time of a step.

Run: python benchmarks/bench_reduced.py [steps]

Prints distances to the manifold of a 2-4-4-4-1 tanh network under gradient descent in float32 and float64 with the
fitted growth exponent, the same run re-projected in every step, the gap between the wide and the reduced network, and
the seconds that `reduced_network` takes on a 33-n-n-1 network with classes of 20.
"""

import sys
import time
from fractions import Fraction

import numpy as np

from fiberscope.invariants.dynamics.averages import Averages
from fiberscope.invariants.dynamics.backprop import Batch
from fiberscope.invariants.dynamics.instability import growth, side_by_side
from fiberscope.invariants.dynamics.reduced import reduced_network
from fiberscope.invariants.dynamics.updates import optimiser
from fiberscope.network import Network
from fiberscope.neurons import Classes


def classes(labels):
    """Unsigned classes."""
    return Classes(np.array(labels), np.full(len(labels), Fraction(1), dtype=object))


def planted(partition, rng):
    """A random 2-4-4-4-1 tanh network on the manifold, up to rounding made exact by dyadic class sizes."""
    net = Network.random((2, 4, 4, 4, 1), activation="tanh", seed=rng)
    theta = np.round(np.asarray(net.theta) * 64) / 16
    return net.with_theta(Averages(net, partition).nearest(theta))


def main() -> None:
    """Print the measurements."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    rng = np.random.default_rng(6)
    partition = [classes([0, 0, 1, 1]), classes([0, 0, 0, 0]), classes([0, 0, 1, 1])]
    net = planted(partition, rng)
    x = rng.standard_normal((20, 2))
    data, rule = Batch(x, np.sign(x[:, :1] * x[:, 1:])), optimiser("gd", 0.1)
    for dtype in (np.float32, np.float64):
        print(growth(net, data, steps=steps, rule=rule, partition=partition, dtype=dtype))
    print(growth(net, data, steps=steps, rule=rule, partition=partition, reproject=True))
    for reproject in (False, True):
        print(side_by_side(net, data, rule, steps=steps, partition=partition, reproject=reproject))
    for width in (100, 400, 1000):
        labels = np.repeat(np.arange(width // 20), 20)
        one = np.random.default_rng(0).integers(-8, 9, (width // 20, 33)) / 8
        two = np.random.default_rng(1).integers(-8, 9, (width // 20, width // 20)) / 8
        wide = Network.from_arrays(
            (one[labels], np.zeros(width)),
            (two[labels][:, labels], np.zeros(width)),
            (two[:1][:, labels], np.zeros(1)),
            activation="tanh",
        )
        start = time.perf_counter()
        small = reduced_network(wide, [classes(labels)] * 2)
        print(
            f"33-{width}-{width}-1 -> {'-'.join(map(str, small.network.widths))}: {time.perf_counter() - start:.2f} s"
        )


if __name__ == "__main__":
    main()
