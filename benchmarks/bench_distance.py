"""Certified distances of ACAS Xu networks from perturbed copies, on the boxes of properties 1, 3 and 4.

Each pair is f and a copy with neurons permuted, positively rescaled, and all weights perturbed by relative noise until
the largest sampled difference on the box hits a target. `distance(below=0.05)` must prove the pairs under 0.05 and
refute those above. Inputs and outputs are normalised, as in the networks' ONNX files. Seconds are CPU
seconds of one core.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_distance.py [models] [seconds] [properties] [targets]
Defaults: ../shared/models 60 1,3,4 0.005,0.01,0.02,0.026,0.035,0.07
"""

import sys
import time
from pathlib import Path

import numpy as np

import fiberscope
from fiberscope.domains import Box
from fiberscope.fibers.ascent import Ascent
from fiberscope.fibers.distances import distance
from fiberscope.network import Network
from fiberscope.results import Budget

BELOW = 0.05
MEAN = np.array([19791.091, 0.0, 0.0, 650.0, 600.0])
RANGE = np.array([60261.0, 6.28318530718, 6.28318530718, 1100.0, 1200.0])
RAW = {
    3: ([1500, -0.06, 3.10, 980, 960], [1800, 0.06, 3.141593, 1200, 1200]),
    4: ([1500, -0.06, 0, 1000, 700], [1800, 0.06, 0, 1200, 800]),
}
BOXES = {k: Box(*((np.array(end) - MEAN) / RANGE for end in ends)) for k, ends in RAW.items()}
BOXES[1] = Box(np.array([0.6, -0.5, -0.5, 0.45, -0.5]), np.array([0.679857769, 0.5, 0.5, 0.5, -0.45]))


def networks(folder: Path) -> list[tuple[str, Network]]:
    """The networks of a folder, without the normalisation of inputs and outputs."""
    out = []
    for path in sorted(folder.glob("acasxu_nnet/nnet/*.nnet")):
        net = fiberscope.load(path)
        out.append((path.name[13:16], Network.from_arrays(*(layer.own for layer in net.layers))))
    return out


def perturbed(net: Network, noise: float, rng: np.random.Generator) -> Network:
    """All weights and biases times 1 + noise * Gaussian."""
    theta = np.asarray(net.theta, dtype=np.float64)
    return net.with_theta(theta * (1 + noise * rng.standard_normal(theta.size)))


def scrambled(net: Network, rng: np.random.Generator) -> Network:
    """Neurons of each hidden layer permuted and rescaled by factors from 1/4 to 4, rounded to float64."""
    pairs = [(layer.weight64, layer.bias64) for layer in net.layers]
    for k in range(len(pairs) - 1):
        order = rng.permutation(len(pairs[k][1]))
        factor = np.exp(rng.uniform(-1.4, 1.4, len(order)))
        (weight, bias), (above, shift) = pairs[k], pairs[k + 1]
        pairs[k] = weight[order] * factor[:, None], bias[order] * factor
        pairs[k + 1] = above[:, order] / factor, shift
    return Network.from_arrays(*pairs)


def sampled(f: Network, g: Network, box: Box, samples: int = 20000) -> float:
    """Largest difference seen at samples, corners and after ascent."""
    search = Ascent(f, g, box, seed=1)
    search.search(samples, 64, 30)
    return search.value


def pair(net: Network, box: Box, target: float, seed: int) -> tuple[Network, float, float]:
    """(g, noise, sampled difference): noise found by bisection in the logarithm, for one Gaussian direction."""
    low, high = 1e-6, 1.0
    for _ in range(18):
        noise = float(np.sqrt(low * high))
        near = perturbed(net, noise, np.random.default_rng(seed))
        found = sampled(net, near, box, 4000)
        if abs(found / target - 1) < 0.02:
            break
        low, high = (noise, high) if found < target else (low, noise)
    return scrambled(near, np.random.default_rng(seed + 1)), noise, sampled(net, near, box)


def main(folder: str, seconds: float, properties: list[int], targets: list[float]) -> None:
    """One line for each pair."""
    counts: dict[tuple[int, float, str], int] = {}
    print("prop net  target  noise    sampled   lower     upper     verdict    boxes      s    cpu s  boxes/s")
    for k in properties:
        for name, net in networks(Path(folder)):
            for target in targets:
                g, noise, seen = pair(net, BOXES[k], target, seed=1000 * k + int(1e5 * target))
                start = time.process_time()
                budget = Budget(cancelled=lambda start=start: time.process_time() - start > seconds)
                found = distance(net, g, BOXES[k], below=BELOW, budget=budget)
                spent = time.process_time() - start
                answer = found.answer.name if found.answer is not None else "-"
                wrong = (answer == "YES" and seen >= BELOW) or (answer == "NO" and float(found.exact) < BELOW)
                counts[k, target, answer] = counts.get((k, target, answer), 0) + 1
                print(
                    f"{k:4d} {name} {target:7.3f}  {noise:7.1e}  {seen:7.4f}  {found.lower:8.5f}  {found.upper:8.3g}  "
                    f"{answer:9s} {found.boxes:8,} {found.wall_s:6.1f}  {spent:6.1f}  {found.boxes / spent:7.0f}"
                    f"{'  WRONG' if wrong else ''}",
                    flush=True,
                )
    for (k, target, answer), count in counts.items():
        print(f"property {k}, target {target}: {answer} {count}")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        given[0] if given else "../shared/models",
        float(given[1]) if len(given) > 1 else 60.0,
        [int(v) for v in (given[2] if len(given) > 2 else "1,3,4").split(",")],
        [float(v) for v in (given[3] if len(given) > 3 else "0.005,0.01,0.02,0.026,0.035,0.07").split(",")],
    )
