"""Where cells are computed: in this process, in worker processes, or on a Dask cluster."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Self

from fiberscope.errors import InputError, import_optional
from fiberscope.results import jsonable

_CLUSTER_WINDOW = 1024
_LONGEST_ERROR = 2000


def work(function: Callable[[Any], Any], key: str, payload: Any) -> tuple[str, bool]:
    """Compute a cell where it runs: the line of its record, and whether it is an error."""
    try:
        return json.dumps({"key": key, "value": jsonable(function(payload))}, allow_nan=False), False
    except (Exception, SystemExit) as exc:
        return failure(key, exc), True


def failure(key: str, exc: BaseException) -> str:
    """The line of a record that is an error."""
    return json.dumps({"key": key, "error": f"{type(exc).__name__}: {exc}"[:_LONGEST_ERROR]})


def _nothing(function: Callable[[Any], Any]) -> None:
    """Sent to a worker to see whether the function arrives."""


class Pool:
    """Computes in this process; the others override what differs."""

    window = 1

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A future of function(*arguments), here already computed."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def check(self, function: Callable[[Any], Any]) -> None:
        """Refuse a function that does not arrive at a worker."""
        try:
            self.submit(_nothing, function).result()
        except Exception as exc:
            raise InputError(
                f"the workers cannot run {getattr(function, '__qualname__', function)!s:.80} ({exc}); define it at the "
                'top level of a module that they can import; a script needs: if __name__ == "__main__":'
            ) from exc

    def restart(self) -> None:
        """New workers for dead ones."""

    def abandon(self, future: Any) -> bool:
        """Try to cancel; False if the work has begun and is worth waiting for."""
        return bool(future.cancel())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the workers."""


class Processes(Pool):
    """Worker processes, spawned, so that they inherit no threads or locks."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.window = 4 * workers
        self._executor = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, context, initializer=_deaf)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A future of a worker process."""
        return self._executor.submit(function, *arguments)

    def restart(self) -> None:
        """One worker that dies takes the executor with it."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._fresh()

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _deaf() -> None:
    """Leave an interrupt from the keyboard to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Cluster(Pool):
    """A Dask cluster; the scheduler sees a bounded number of cells at a time."""

    window = _CLUSTER_WINDOW

    def __init__(self, client: Any) -> None:
        self._own = isinstance(client, str)
        if self._own:
            distributed = import_optional("distributed", extra="cluster", purpose="compute on a Dask cluster")
            try:
                client = distributed.Client(client)
            except (OSError, ValueError) as exc:
                raise InputError(f"no Dask scheduler answers at {client}: {exc}") from exc
        if not callable(getattr(client, "submit", None)):
            raise InputError(f"client is of type {type(client).__name__}; give a distributed.Client or its address")
        self._client = client

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A future of the cluster; impure, or equal cells would share one result."""
        return self._client.submit(function, *arguments, pure=False)

    def abandon(self, future: Any) -> bool:
        """Drop it, begun or not: a cluster may be far behind."""
        future.cancel()
        return True

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._client.close()


def pool_of(workers: int | None, client: Any) -> Pool:
    """Where to compute."""
    if client is not None:
        return Cluster(client)
    return Pool() if workers is None else Processes(workers)
