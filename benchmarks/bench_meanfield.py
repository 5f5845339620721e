"""Mean-field dynamics: time and error of the exact methods beside plain Monte-Carlo Euler, at the paper's settings.

Three figures of arXiv 2211.08771 (angles, a net of 1024 neurons for ||x_H||, the linear dynamics), then the cost and
error of one gradient. Errors are against a refined run of the exact method, at the times the baseline reached.

Run: python benchmarks/bench_meanfield.py [--steps N] [--width M] [--skip FIGURE ...]
--steps ends each baseline after N steps; its whole time is then extrapolated, and the line says so.
"""

import argparse
import resource
import time

import numpy as np
from montecarlo import Angles, Network
from timing import best

from fiberscope.meanfield.angles.flow import angle_flow
from fiberscope.meanfield.linear.flow import linear_flow
from fiberscope.meanfield.particles.flow import initial_neurons, particle_flow
from fiberscope.meanfield.particles.forces import population_forces
from fiberscope.meanfield.targets import NormH, Teacher

MASSES = ("mass_plus", "mass_minus")
ALL = (*MASSES, "w2_plus", "w2_minus")


def memory() -> str:
    """Peak of the process so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


def baseline(run, whole: int, steps: int, outputs: int = 10) -> tuple[list, list, float]:
    """Times, what was observed there, and seconds a step."""
    steps = min(steps, whole)
    marks = set(np.unique(np.geomspace(1, steps, outputs).round().astype(int)).tolist())
    times, seen, spent = [], [], 0.0
    for k in range(1, steps + 1):
        start = time.perf_counter()
        run.step()
        spent += time.perf_counter() - start
        if k in marks:
            times.append(run.time)
            seen.append(run.observed)
    return times, seen, spent / steps


def told(name: str, per_step: float, whole: int, steps: int, error: str) -> None:
    """One line of a baseline."""
    done = min(steps, whole)
    note = "" if done == whole else f" (extrapolated from {done} steps; error up to there)"
    print(f"  {name}: {per_step * whole:8.1f} s{note}, {1e3 * per_step:.2f} ms a step, error {error}; peak {memory()}")


def largest(flow, seen, names) -> str:
    """Largest deviations of a baseline."""
    return ", ".join(f"{n} {max(abs(getattr(flow, n)[k] - s[n]) for k, s in enumerate(seen)):.1e}" for n in names)


def angles(steps: int) -> None:
    """Figure 3.3: d = 30, dH = 5, 20000 steps to t = 3000."""
    print("angles, d = 30, dH = 5, t = 3000")
    marks = [0, 1.5, 15, 30, 75, 150, 300, 750, 1500, 3000]
    fine = angle_flow(30, 5, marks, nodes=96, rtol=1e-12)
    for nodes, rtol in ((8, 1e-6), (16, 1e-8), (32, 1e-9)):
        flow = angle_flow(30, 5, marks, nodes=nodes, rtol=rtol)
        took = best(lambda nodes=nodes, rtol=rtol: angle_flow(30, 5, marks, nodes=nodes, rtol=rtol))
        error = ", ".join(f"{n} {np.abs(getattr(flow, n) - getattr(fine, n)).max():.1e}" for n in ALL)
        print(f"  exact kernel, {nodes} nodes a sign, rtol {rtol:g}: {took:8.3f} s, error {error}; peak {memory()}")
    times, seen, per_step = baseline(Angles(), 20_000, steps)
    at = angle_flow(30, 5, times, nodes=64, rtol=1e-10)
    told("Monte-Carlo Euler, m = 1024, N = 1000", per_step, 20_000, steps, largest(at, seen, ALL))


def network(steps: int, width: int) -> None:
    """Figure 3.2: a net for ||x_H||, d = 20, dH = 5, batches of 256, 5000 steps to t = 5000."""
    print("a whole net, d = 20, dH = 5, t = 5000")
    target = NormH((20, 5))
    start = time.perf_counter()
    flow = angle_flow(20, 5, [0, 5000], nodes=48, rtol=1e-9)
    took = time.perf_counter() - start
    fine = angle_flow(20, 5, [0, 5000], nodes=96, rtol=1e-11)
    error = ", ".join(f"{n} {abs(getattr(flow, n)[-1] - getattr(fine, n)[-1]):.1e}" for n in MASSES)
    print(f"  angles, 48 nodes a sign: {took:8.3f} s, error {error}; peak {memory()}")
    times, seen, per_step = baseline(Network(20, 1024, 20 * 5e-2, target=target), 5000, steps)
    at = angle_flow(20, 5, times, nodes=64, rtol=1e-10)
    told("SGD, m = 1024, batches of 256", per_step, 5000, steps, largest(at, seen, MASSES))
    start = time.perf_counter()
    particles = particle_flow(*initial_neurons(20, width), target, times, rtol=1e-4)
    took = time.perf_counter() - start
    error = ", ".join(f"{n} {np.abs(getattr(particles, n) - getattr(at, n)).max():.1e}" for n in MASSES)
    print(f"  exact gradient flow of a random net, m = {width}, to t = {times[-1]:g}: {took:8.1f} s, error {error} "
          f"(of the width); {particles.evaluations} evaluations")  # fmt: skip


def linear(steps: int) -> None:
    """Figure 3.1: full-batch descent on an odd dataset, d = 60, n = 100, 10000 steps to t = 100."""
    print("linear dynamics, d = 60, n = 100, t = 100")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 60))
    beta = rng.standard_normal(60)
    y = x @ (3.0 * beta / np.linalg.norm(beta))
    even = np.concatenate([x, -x]), np.concatenate([y, -y])
    moments = x.T @ x / 100, x.T @ y / 100
    marks = np.linspace(0, 100, 10_001)
    fine = linear_flow(*moments, 1 + 1 / 60, marks, rtol=1e-13)
    for rtol in (1e-6, 1e-9, 1e-11):
        flow = linear_flow(*moments, 1 + 1 / 60, marks, rtol=rtol)
        took = best(lambda rtol=rtol: linear_flow(*moments, 1 + 1 / 60, marks, rtol=rtol))
        print(f"  closed equation, 10001 outputs, rtol {rtol:g}: {took:8.3f} s, error in w "
              f"{np.abs(flow.w - fine.w).max():.1e}; peak {memory()}")  # fmt: skip
    times, seen, per_step = baseline(Network(60, 1024, 1e-2, data=even), 10_000, steps)
    at = linear_flow(*moments, 1 + 1 / 60, times, rtol=1e-11)
    error = max(np.abs(s["w"] - at.w[k]).max() for k, s in enumerate(seen))
    told("full-batch descent, m = 1024", per_step, 10_000, steps, f"in w {error:.1e}")


def gradient() -> None:
    """One gradient of a random net, d = 20, m = 256."""
    print("one gradient, d = 20, m = 256, a teacher of 3 neurons")
    rng = np.random.default_rng(2)
    target = Teacher(rng.standard_normal(3), rng.standard_normal((3, 20)))
    net = Network(20, 256, target=target)
    exact = np.concatenate([part.ravel() for part in population_forces(net.a, net.b, target)])
    took = best(lambda: population_forces(net.a, net.b, target))
    print(f"  closed form: {1e3 * took:9.2f} ms")
    for net.batch in (256, 1000, 10_000, 100_000):
        took = best(net.gradients, 1 if net.batch > 10_000 else 3)
        found = [np.concatenate([part.ravel() for part in net.gradients()]) for _ in range(3)]
        error = np.mean([np.linalg.norm(f - exact) for f in found]) / np.linalg.norm(exact)
        print(f"  {net.batch:6d} samples: {1e3 * took:9.2f} ms, relative error {error:.3f}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000, help="most steps of a baseline")
    parser.add_argument("--width", type=int, default=256, help="neurons of the exact gradient flow")
    parser.add_argument("--skip", nargs="*", default=[], choices=["angles", "network", "linear", "gradient"])
    chosen = parser.parse_args()
    if "angles" not in chosen.skip:
        angles(chosen.steps)
    if "network" not in chosen.skip:
        network(chosen.steps, chosen.width)
    if "linear" not in chosen.skip:
        linear(chosen.steps)
    if "gradient" not in chosen.skip:
        gradient()


if __name__ == "__main__":
    main()
