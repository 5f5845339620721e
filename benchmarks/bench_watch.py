"""What watching costs: a 784-512-256-10 network in torch, Adam, batch 128, one measurement every 100 steps.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_watch.py [steps]. Blocks of steps and measurements alternate in one run,
so that both see the same machine; medians of wall time and of CPU time (all threads) are printed, since only the
second means something on a machine with other work. The budget is 1% of the step time and one copy of the parameters.
"""

from __future__ import annotations

import gc
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fiberscope.activations import activation
from fiberscope.training.architectures.chains import chain_architecture
from fiberscope.training.measures.measurements import measured

WIDTHS = (784, 512, 256, 10)
EVERY = 100
BATCH = 128
FEW = 5


def model_and_step(seed: int = 0) -> tuple[nn.Sequential, torch.optim.Optimizer, Callable[[], None]]:
    """The network, its optimiser, and one training step on random images with labels of a random linear rule."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in zip(WIDTHS, WIDTHS[1:], strict=False):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(model.parameters())
    images = torch.rand(4096, WIDTHS[0])
    labels = (images - 0.5).matmul(torch.randn(WIDTHS[0], WIDTHS[-1])).argmax(dim=1)
    order = np.random.default_rng(seed)

    def step() -> None:
        batch = torch.from_numpy(order.integers(0, len(images), BATCH))
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimiser.step()

    return model, optimiser, step


def views(model: nn.Module) -> dict[str, Any]:
    """Parameters as arrays that share their memory."""
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


Seconds = tuple[float, float]


def seconds(function: Callable[[], object], repeats: int = 1) -> Seconds:
    """Wall and CPU time of some calls."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        function()
    return time.perf_counter() - wall, time.process_time() - cpu


def resident() -> float:
    """Resident memory in MB now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(name: str, plain: list[Seconds], extra: list[Seconds], steps: int) -> None:
    """Overhead at the default cadence: the median over all measurements of their time in steps taken beside them.

    Args:
        name: of what is measured.
        plain: times of blocks of steps.
        extra: times of the measurements after each.
        steps: in a block.
    """
    for k, clock in enumerate(("wall", "CPU")):
        ones = np.array([row[k] / steps for row in plain])
        costs = np.array([row[k] for row in extra])
        parts = 100 * costs / (EVERY * ones)
        print(
            f"{name:20s} {clock:4s} step {1e3 * np.median(ones):6.2f} ms, measurement {1e3 * np.median(costs):6.2f} ms,"
            f" {np.median(parts):5.2f} % at one in {EVERY} (quartiles {np.quantile(parts, 0.25):.2f}"
            f" .. {np.quantile(parts, 0.75):.2f} %)"
        )


def memory(model: nn.Module) -> None:
    """Peak of what one measurement allocates, against one copy of the parameters."""
    copy = sum(p.numel() * p.element_size() for p in model.parameters())
    architecture = chain_architecture(WIDTHS, names=["0", "2", "4"], activation=activation("relu"))
    measured(views(model), architecture)
    gc.collect()
    tracemalloc.start()
    measured(views(model), architecture)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"peak of one measurement: {peak / 1e6:.2f} MB; one copy of the parameters: {copy / 1e6:.2f} MB")


def compare(repeats: int = 40) -> None:
    """`measured` alone, and everything that `Watcher.step` does when it measures, each after a few steps."""
    from fiberscope.training.traces.watchers import watch

    model, optimiser, step = model_and_step()
    architecture = chain_architecture(WIDTHS, names=["0", "2", "4"], activation=activation("relu"))
    seconds(step, 30)
    kept: dict[str, Any] = {}
    measured(views(model), architecture, memory=kept)
    alone: tuple[list[Seconds], list[Seconds]] = ([], [])
    whole: tuple[list[Seconds], list[Seconds]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        with watch(model, Path(folder) / "run.jsonl", optimizer=optimiser, every=FEW) as watcher:
            for k in range(2 * repeats + 2):
                steps = seconds(step, FEW)
                for _ in range(FEW - 1):
                    watcher.step()
                cost = seconds(watcher.step)
                if k > 1:
                    whole[0].append(steps)
                    whole[1].append(cost)
                if k % 2:
                    alone[0].append(seconds(step, FEW))
                    alone[1].append(seconds(lambda: measured(views(model), architecture, memory=kept)))
    print(f"{torch.get_num_threads()} threads")
    report("measured()", *alone, FEW)
    report("watch(): all of it", *whole, FEW)
    memory(model)


def watched(steps: int) -> None:
    """A long run as users have it: the watcher's own figure, early looks included, and resident memory."""
    from fiberscope.training.traces.watchers import watch

    model, optimiser, step = model_and_step()
    seconds(step, 30)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        sizes = []
        plain, extra = 0.0, 0.0
        with watch(
            model, path, optimizer=optimiser
        ) as watcher:  # the default cadence, put off to stay below 1% of the time
            for k in range(steps):
                plain += seconds(step)[1]
                extra += seconds(watcher.step)[1]
                if k in (2 * EVERY, steps - 1):
                    gc.collect()
                    sizes.append(resident())
        print(
            f"{steps} steps: {100 * extra / plain:.2f} % of their CPU time in all; resident {sizes[0]:.1f} MB after "
            f"{2 * EVERY}, {sizes[-1]:.1f} MB at the end; trace {path.stat().st_size / 1e3:.0f} kB"
        )


def main() -> None:
    """All of it."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    compare()
    watched(steps)


if __name__ == "__main__":
    main()
