"""Time of the command line against plain baselines measured in the same run.

`fiberscope --help` against `python -c 'import click'`; `fiberscope inspect` of a 784-512-256-10 network against reading
its arrays with NumPy and computing row and column sums once.

Run: python benchmarks/bench_cli.py [repeats]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fiberscope as fs
from fiberscope.errors import MissingDependencyError

SOURCE = Path(fs.__file__).parent.parent
WIDTHS = (784, 512, 256, 10)
BASELINE = """
import sys, numpy as np
with np.load(sys.argv[1]) as data:
    for name in data.files:
        if data[name].ndim == 2:
            data[name].sum(0), data[name].sum(1)
"""


def median(words: list[str], repeats: int) -> float:
    """Median wall time of a command in seconds, process start included."""
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, env=env)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def show(name: str, seconds: float, plain: str, baseline: float) -> None:
    """One line."""
    print(f"{name}: {seconds:.3f} s; {plain}: {baseline:.3f} s; ratio {seconds / baseline:.1f}")


def main(repeats: int) -> None:
    """Print one line for each comparison."""
    fiberscope = ["-m", "fiberscope"]
    median([*fiberscope, "--help"], 1)  # compiled once
    click = median(["-c", "import click"], repeats)
    show("fiberscope --help", median([*fiberscope, "--help"], repeats), "import click", click)
    show("fiberscope inspect --help", median([*fiberscope, "inspect", "--help"], repeats), "import click", click)
    net = fs.Network.random(WIDTHS, activation="relu", seed=0, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "net.npz"
        fs.save(net, arrays)
        baseline = median(["-c", BASELINE, str(arrays)], repeats)
        for suffix in (".npz", ".safetensors", ".onnx"):
            path = Path(folder) / f"net{suffix}"
            try:
                fs.save(net, path, force=True)
            except MissingDependencyError as exc:
                print(f"{suffix}: {exc}")
                continue
            seconds = median([*fiberscope, "inspect", str(path)], repeats)
            name = f"fiberscope inspect {'-'.join(map(str, WIDTHS))} {suffix}"
            show(name, seconds, "numpy load and sums", baseline)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
