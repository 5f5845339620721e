"""The phase diagram of recovery, and how fast its runs are beside plain gradient descent in the same process.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_recovery.py [table|wide|speed|cluster ...]

table: m = 9, M = 63, the target of arXiv 2307.08921 eq. (15), 8 seeds, 7 sample counts, two initial scales.
wide: m = 30, M = 210, 4 seeds.
speed: seconds of a run of the stiff flow, and gradient descent's run-steps a second and what it reaches in that time.
cluster: a Dask LocalCluster of two workers against two worker processes and against this process.
"""

import sys
import time

import numpy as np

from fiberscope.invariants.recovery.ladders.stiffflow import flow
from fiberscope.invariants.recovery.phases.diagrams import Plan, phase_diagram
from fiberscope.network import Network

ROWS = [[0.6, 0.8, 1, 0, 0], [0, 0.6, 0.8, 1, 0], [0, 0, 0.6, 0.8, 1]]
TARGET = Network.from_arrays((ROWS, None), ([[1.0, 1, 1]], None), activation="tanh")
SAMPLES = (24, 27, 30, 34, 40, 48, 63)


def timed(function):
    """(value, wall seconds, CPU seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def show(name, diagram, wall, cpu) -> None:
    """A diagram and what its runs cost."""
    frame = diagram.to_frame(runs=True)
    runs, steps = len(frame["steps"]), sum(frame["steps"])
    print(diagram)
    print(f"{name}: {runs} runs in {wall:.1f} s ({cpu:.1f} s of this process), {wall / runs:.2f} s a run")
    print(f"{steps / wall:,.0f} run-steps/s, {sum(frame['binding'])} of {steps} steps bound by the cap\n", flush=True)


def table() -> None:
    """M = 63."""
    show("m = 9", *timed(lambda: phase_diagram(TARGET, samples=SAMPLES, widths=[9], scales=[1e-10, 1.0], seeds=8)))


def wide() -> None:
    """M = 210."""
    show("m = 30", *timed(lambda: phase_diagram(TARGET, samples=(40, 48, 63), widths=[30], seeds=4)))


def descent(landscape, theta, rate, seconds):
    """Plain gradient descent for so many seconds: (steps, losses)."""
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for _ in range(50):
            theta = theta - rate * landscape.slopes(theta)[1]
        steps += 50
    return steps, landscape.loss(theta)


def speed() -> None:
    """The same runs by both, gradient descent given as long as the flow took."""
    print(f"{'m':>3} {'n':>3} {'flow s/run':>10} {'flow max loss':>13} {'GD run-steps/s':>14} {'GD max loss':>11}")
    for width, count, seeds in ((3, 40, 8), (9, 40, 8), (30, 63, 4)):
        landscape = Plan(TARGET).landscape(width, count, range(seeds))
        start = landscape.normal(range(seeds), 1e-10)
        end, wall, _ = timed(lambda field=landscape, at=start: flow(field, at, rtol=1e-4))
        steps, losses = descent(landscape, start.copy(), 0.05, wall)
        print(f"{width:>3} {count:>3} {wall / seeds:>10.3f} {end.losses.max():>13.1e} "
              f"{steps * seeds / wall:>14,.0f} {np.max(losses):>11.1e}", flush=True)  # fmt: skip
    print()


def cluster() -> None:
    """One table, three ways; the tables are equal."""
    from distributed import Client, LocalCluster

    options = {"samples": (24, 30, 40, 63), "widths": [3, 9], "scales": [1e-6], "seeds": 8}
    here, wall, _ = timed(lambda: phase_diagram(TARGET, **options))
    print(f"in this process     {wall:6.1f} s")
    found, wall, _ = timed(lambda: phase_diagram(TARGET, **options, workers=2))
    print(f"two processes       {wall:6.1f} s, equal: {found.to_frame(runs=True) == here.to_frame(runs=True)}")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as machines,
        Client(machines) as client,
    ):
        found, wall, _ = timed(lambda: phase_diagram(TARGET, **options, client=client))
    print(f"Dask, two workers   {wall:6.1f} s, equal: {found.to_frame(runs=True) == here.to_frame(runs=True)}")


if __name__ == "__main__":
    parts = {"table": table, "wide": wide, "speed": speed, "cluster": cluster}
    for part in sys.argv[1:] or parts:
        parts[part]()
