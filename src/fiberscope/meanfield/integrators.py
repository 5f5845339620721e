"""Integration in time: adaptive steps, outputs where asked, no NaN ever returned, runs that can be taken up again."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fiberscope.arguments import as_count, as_floats, as_number, shown
from fiberscope.errors import InputError, IntegrationError
from fiberscope.meanfield.arguments import check_run
from fiberscope.results import Budget, Progress
from fiberscope.sweeps.journal import Journal, canonical

FloatArray = NDArray[np.float64]
Rate = Callable[[float, FloatArray], FloatArray]
Method = Literal["DOP853", "Radau", "BDF", "LSODA"] | Callable[..., Any]
"""A solver of `scipy.integrate`, or what makes one: (rate, t, y, end, rtol, atol) -> object that steps as these do."""
_FINEST = 3e-14
_LEGS = 32
"""A run with a file is cut into about so many pieces, each no longer than two of that many equal parts of the time."""
_HALVINGS = 16
"""Cuts of the first part of the first long gap, at half of it, a quarter, and so on: runs are busy at the beginning."""


@dataclass(frozen=True)
class Trajectory:
    """States at the output times.

    Args:
        times: (T,), those asked for up to where the run ended.
        states: (T, n).
        steps: accepted steps.
        evaluations: calls of the right-hand side.
        complete: whether every time asked for was reached.
        reason: why not.
    """

    times: FloatArray
    states: FloatArray
    steps: int
    evaluations: int
    complete: bool = True
    reason: str = ""


def checked_times(times: ArrayLike) -> FloatArray:
    """Output times as an array.

    Raises:
        InputError: unless they are finite, nonnegative and strictly increasing.

    >>> checked_times([0, 1.5])
    array([0. , 1.5])
    """
    try:
        found: FloatArray = np.atleast_1d(as_floats(times, "times")) + 0.0
    except InputError:
        raise InputError(f"times {shown(times)}; give numbers, for instance [0, 10, 100]") from None
    if found.ndim != 1 or not found.size:
        raise InputError(f"times of shape {found.shape}; give a list of at least one time")
    if not np.isfinite(found).all() or (found < 0).any():
        bad = found[~(np.isfinite(found) & (found >= 0))][0]
        raise InputError(f"time {bad:g}; times start at 0 and are finite")
    if (np.diff(found) <= 0).any():
        at = int(np.argmax(np.diff(found) <= 0))
        raise InputError(f"times {found[at]:g}, {found[at + 1]:g} in this order; give increasing times")
    return found


def integrate(
    rate: Rate,
    start: FloatArray,
    times: FloatArray,
    *,
    rtol: float = 1e-9,
    atol: float | FloatArray = 1e-12,
    method: Method = "DOP853",
    max_step: float = math.inf,
    jacobian: Callable[[float, FloatArray], FloatArray] | None = None,
    path: str | os.PathLike[str] | None = None,
    task: Any = None,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
    text: Callable[[float, FloatArray], str] | None = None,
) -> Trajectory:
    """Solve y' = rate(t, y), y(0) = start, and give y at the times.

    With a path the run is cut into legs that each start afresh, and each finished leg is one line of the file: a run
    taken up again gives the same numbers, bit for bit, as one that was never disturbed. Legs depend on the times only;
    none is longer than a sixteenth of the time span, so that what a crash or a spent budget can cost is little, however
    few the times are.

    Args:
        rate: the right-hand side.
        start: (n,), the state at time 0.
        times: (T,), from `checked_times`.
        rtol: relative tolerance for each step.
        atol: absolute tolerance, a number or (n,).
        method: of `scipy.integrate`; "Radau" and "BDF" are for stiff tails.
        max_step: longest step of any method. What lies between two steps is interpolated; where stability and not
            accuracy limits an explicit method the steps can be too long for that.
        jacobian: (n, n) derivative of the rate, for the stiff methods.
        path: file of the run, made if missing.
        task: JSON-ready data that names the run; a file of another task is refused.
        budget: seconds, or `Budget`; a spent budget ends the run at the last time reached.
        progress: called with the fraction of the time span done.
        text: what to show beside it, from (t, y).

    Raises:
        IntegrationError: if the steps become too small or the state is no longer finite; it has the time reached.
        InputError: for a file that belongs to another run, or a tolerance that no float64 run can meet.

    Complexity: one evaluation of the rate per stage; 12 per step for DOP853. O(n^3) per step for the stiff methods.

    >>> path = integrate(lambda t, y: -y, np.ones(1), np.array([0.0, 1.0]))
    >>> f"{path.states[1, 0]:.6f}"
    '0.367879'
    """
    if not _FINEST <= as_number(rtol, "rtol") < 1:
        raise InputError(f"rtol {rtol:g}; give a relative tolerance between {_FINEST:g} and 1")
    check_run(path, budget, progress)
    run = _Run(rate, rtol, atol, method, max_step, jacobian, Budget.of(budget), progress, text, float(times[-1]))
    if path is None:
        return run.leg(0.0, np.array(start, float), times)
    return _in_legs(run, np.array(start, float), times, path, task)


class _Run:
    """What stays the same from leg to leg."""

    def __init__(
        self,
        rate: Rate,
        rtol: float,
        atol: float | FloatArray,
        method: Method,
        max_step: float,
        jacobian: Callable[[float, FloatArray], FloatArray] | None,
        budget: Budget,
        progress: Progress | None,
        text: Callable[[float, FloatArray], str] | None,
        end: float,
    ) -> None:
        self._rate = rate
        self._options: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_step": max_step}
        if method in ("Radau", "BDF") and jacobian is not None:
            self._options["jac"] = jacobian
        self._method = method
        self._clock = budget.start()
        self._progress = progress
        self._text = text
        self._end = end

    def leg(self, begin: float, start: FloatArray, times: FloatArray) -> Trajectory:
        """From (begin, start) through these times."""
        from scipy import integrate as methods

        states = np.empty((len(times), len(start)))
        done = int(np.searchsorted(times, begin, side="right"))
        states[:done] = start
        if done == len(times):
            return Trajectory(times, states, 0, 0)
        if not np.isfinite(start).all():
            raise IntegrationError("the starting state is not finite", begin, start)
        steps, before = 0, (begin, start)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                make: Any = getattr(methods, self._method) if isinstance(self._method, str) else self._method
                solver = make(self._rate, begin, start, float(times[-1]), **self._options)
                while done < len(times):
                    if self._clock.expired:
                        kept = Trajectory(times[:done], states[:done], steps, int(solver.nfev), False, "budget spent")
                        return kept
                    before = float(solver.t), solver.y
                    message = solver.step()
                    steps += 1
                    if solver.status == "failed" or not np.isfinite(solver.y).all():
                        raise _failure(message, *before)
                    done = self._output(solver, times, states, done)
            except (ValueError, np.linalg.LinAlgError) as exc:  # NaN in a factorisation
                if isinstance(exc, IntegrationError):
                    raise
                raise _failure(str(exc), *before) from exc
        return Trajectory(times, states, steps, int(solver.nfev))

    def _output(self, solver: Any, times: FloatArray, states: FloatArray, done: int) -> int:
        """Fill in the states at the times that the last step passed."""
        last = int(np.searchsorted(times, solver.t, side="right"))
        if last > done:
            states[done:last] = solver.dense_output()(times[done:last]).T
            if times[last - 1] == solver.t:
                states[last - 1] = solver.y
            if not np.isfinite(states[done:last]).all():
                raise _failure("the state between two steps is not finite", float(solver.t_old), solver.y)
        if self._progress is not None:
            note = "" if self._text is None else self._text(float(solver.t), solver.y)
            self._progress(float(solver.t) / self._end if self._end else 1.0, f"t = {solver.t:.4g} {note}".rstrip())
        return last


def _failure(message: str | None, time: float, state: FloatArray) -> IntegrationError:
    why = (message or "the state is no longer finite").rstrip(".")
    return IntegrationError(
        f"the integration failed at time {time:.6g}: {why}; ask for earlier times, or for another rtol or method",
        time,
        state,
    )


def _in_legs(run: _Run, state: FloatArray, times: FloatArray, path: str | os.PathLike[str], task: Any) -> Trajectory:
    """The same, leg by leg; finished legs are read from the file."""
    whole = {"task": task, "times": times.tolist()}
    pieces = _pieces(times)
    parts: list[Trajectory] = []
    begin = 0.0
    with Journal.open(path, canonical(whole), retry=False) as journal:
        for k, piece in enumerate(pieces):
            key = f"leg {k + 1} of {len(pieces)}"
            if journal.todo(key):
                part = run.leg(begin, state, piece)
                if part.complete:
                    journal.add(key, json.dumps({"key": key, "value": _packed(part)}), failed=False)
            else:
                (record,) = journal.records([key])
                part = _unpacked(record.value, piece, len(state), path)
            parts.append(part)
            if not part.complete:
                break
            begin, state = float(piece[-1]), part.states[-1]
    found, states = np.concatenate([p.times for p in parts]), np.concatenate([p.states for p in parts])
    asked = np.isin(found, times)  # legs end at other times too
    return Trajectory(
        found[asked], states[asked], sum(p.steps for p in parts), sum(p.evaluations for p in parts),
        parts[-1].complete, parts[-1].reason,
    )  # fmt: skip


def _pieces(times: FloatArray) -> list[FloatArray]:
    """The legs, each the times at which its states are wanted; it ends at the last of them.

    They end at some of the times, and within a long gap at more: at equal parts of it, in the first one also at halves.

    >>> [piece.tolist() for piece in _pieces(np.array([0.0, 1.0]))][-2:], len(_pieces(np.array([0.0, 1.0])))
    ([[0.96875], [1.0]], 49)
    """
    end = float(times[-1])
    size = math.ceil(len(times) / _LEGS)
    cuts = [float(t) for t in times[size - 1 :: size]]
    cuts += [end] * (cuts[-1] < end)
    ends: list[float] = []
    begin, long = 0.0, False
    for cut in cuts:
        parts = math.ceil((cut - begin) * _LEGS / end) if (cut - begin) * _LEGS > 2 * end else 1
        inner = [begin + (cut - begin) * k / parts for k in range(1, parts)]
        if inner and not long:
            long, first = True, inner[0] - begin
            inner = [begin + first / 2.0**k for k in range(_HALVINGS, 0, -1)] + inner
        # a gap of few floats has no room for so many cuts
        ends += [t for t in dict.fromkeys(inner) if begin < t < cut] + [cut]
        begin = cut
    nodes = np.union1d(times, ends)
    places = np.searchsorted(nodes, ends, side="right")
    return [piece for piece in np.split(nodes, places) if len(piece)]


def _packed(part: Trajectory) -> dict[str, Any]:
    data = np.ascontiguousarray(part.states, dtype="<f8").tobytes()
    return {"states": base64.b64encode(data).decode(), "steps": part.steps, "evaluations": part.evaluations}


def _unpacked(value: Any, times: FloatArray, size: int, path: str | os.PathLike[str]) -> Trajectory:
    try:
        flat = np.frombuffer(base64.b64decode(value["states"], validate=True), dtype="<f8")
        states = flat.reshape(len(times), size).astype(float)
        return Trajectory(times, states, int(value["steps"]), int(value["evaluations"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{os.fspath(path)}: a finished leg cannot be read ({exc}); give another path") from exc


def log_times(first: float, last: float, count: int) -> Sequence[float]:
    """0 and `count` times evenly spaced in log t, both ends included.

    >>> log_times(1, 100, 3)
    [0.0, 1.0, 10.0, 100.0]
    """
    first, last, count = as_number(first, "first"), as_number(last, "last"), as_count(count, "count")
    if not 0 < first < last < math.inf or count < 2:
        raise InputError(f"times from {first:g} to {last:g}, {count} of them; give 0 < first < last and at least 2")
    found = np.geomspace(first, last, count)
    found[0], found[-1] = first, last
    return [0.0, *found.tolist()]
