"""What the benchmarks share."""

import time
from collections.abc import Callable


def best(function: Callable[[], object], repeats: int = 3) -> float:
    """Shortest wall time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
