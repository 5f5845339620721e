"""When a watched run is measured: every so many steps, but never for more than a share of the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 100
"""Steps between measurements where nothing else is asked for."""
SHARE = 0.008
"""The part of the time that measurements may then take: with opening and closing, watching stays below 1%."""
FREE = 0.2
"""Seconds of measuring that are free: short runs are looked at in full."""


class Cadence:
    """Says at which steps there is something to do, and keeps account of what measuring takes.

    Args:
        every: steps between measurements.
        looks: steps between looks at the conserved quantities; None for the steps that are measured.
        share: the part of the time since it was made that may be spent; None for no limit.

    >>> cadence = Cadence(10, looks=4)
    >>> cadence.measured = 10
    >>> [cadence.due(step) for step in (10, 12)], cadence.measures(19), cadence.measures(20)
    ([12, 16], False, True)
    """

    def __init__(self, every: int, looks: int | None = None, share: float | None = None) -> None:
        """The clock starts."""
        self.every, self.looks, self.share = every, looks, share
        self.measured = -1
        self._opened = time.perf_counter()
        self._spent = 0.0
        self._last = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._opened

    def due(self, step: int) -> int:
        """The next step at which there is something to do."""
        out = _following(step, self.every)
        early = 1 << step.bit_length()  # most of the drift happens at once: steps 1, 2, 4, 8, ... are looked at
        if step >= 0 and early < self.every:
            out = min(out, early)
        return out if self.looks is None else min(out, _following(step, self.looks))

    def measures(self, step: int) -> bool:
        """Whether a measurement is due at a step that was reached."""
        return step >= _following(self.measured, self.every)

    def looks_at(self, step: int) -> bool:
        """Whether the conserved quantities are to be shown this step, measured or not."""
        return self.looks is not None and step % self.looks == 0

    def affords(self) -> bool:
        """Whether one more measurement, taken to be like the last, stays within the share of the time."""
        return self.share is None or self._spent + self._last <= max(FREE, self.share * self.elapsed)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count the time of a measurement."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._last = time.perf_counter() - begin
            self._spent += self._last

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Count the time of a look, unless looks were asked for."""
        begin = time.perf_counter()
        yield
        if self.looks is None:
            self._spent += time.perf_counter() - begin


def _following(step: int, every: int) -> int:
    """The first multiple after a step; 0 before the first step."""
    return (step // every + 1) * every if step >= 0 else 0
