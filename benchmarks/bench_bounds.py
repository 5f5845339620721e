"""Time of certified enclosures of MNIST-sized ReLU networks: intervals, backward substitution, difference of two.

Run: python benchmarks/bench_bounds.py [repeats]
"""

import sys

import numpy as np
from timing import best

from fiberscope.bounds import difference_bound, preactivation_bounds
from fiberscope.domains import Box
from fiberscope.network import Network

WIDTHS = ((784, 512, 256, 10), (784, *[256] * 6, 10))


def main(repeats: int) -> None:
    """Print the times, and how much tighter the logits get by substitution."""
    for widths in WIDTHS:
        net = Network.random(widths, seed=0, dtype=np.float32)
        near = net.with_theta(np.asarray(net.theta) * (1 + 1e-6))
        box = Box.parse("[0.45,0.55]", widths[0])
        interval = best(lambda n=net, b=box: preactivation_bounds(n, b, method="interval"), repeats)
        backward = best(lambda n=net, b=box: preactivation_bounds(n, b), repeats)
        difference = best(lambda f=net, g=near, b=box: difference_bound(f, g, b), repeats)
        wide, tight = (
            float((bounds.upper[-1] - bounds.lower[-1]).mean())
            for bounds in (preactivation_bounds(net, box, method="interval"), preactivation_bounds(net, box))
        )
        print(
            f"{net.architecture}: interval {interval * 1e3:.1f} ms, backward {backward:.2f} s (logits "
            f"{wide / tight:.1f}x tighter), difference {difference * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
