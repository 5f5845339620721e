"""Time of finding neuron classes against one pass of row and column sums over the same matrices.

Run: python benchmarks/bench_classes.py [width]
"""

import sys

import numpy as np
from timing import best

from fiberscope.network import Network
from fiberscope.neurons import colour_classes, proportional_rows


def main(width: int) -> None:
    """Print the ratios for random, and for planted, float32 and float64 networks."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for planted in (0, width // 8):
            weights = [rng.standard_normal((width, width)).astype(dtype) for _ in range(2)]
            biases = [rng.standard_normal(width).astype(dtype) for _ in range(2)]
            copies = rng.permutation(width)[: 2 * planted].reshape(2, -1)
            weights[0][copies[0]], biases[0][copies[0]] = weights[0][copies[1]], biases[0][copies[1]]
            weights[1][:, copies[0]] = weights[1][:, copies[1]]
            net = Network.from_arrays(*zip(weights, biases, strict=True), activation="relu")
            baseline = best(lambda w=weights: [m.sum(axis=a) for m in w for a in (0, 1)])
            rows = best(lambda n=net: [proportional_rows(layer) for layer in n.hidden])
            classes = best(lambda n=net: colour_classes(n))
            print(
                f"{width}-{width}-{width} {np.dtype(dtype).name} with {planted} copies: sums {baseline:.3f} s, "
                f"equal rows {rows / baseline:.1f}x, equitable classes {classes / baseline:.1f}x"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4096)
