"""Integration in time: what is asked for is what comes back, at the accuracy asked for, or an error with the time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiberscope.errors import InputError, IntegrationError
from fiberscope.meanfield.integrators import checked_times, integrate, log_times
from fiberscope.results import Budget

TIMES = np.array([0.0, 0.1, 1.0, 5.0, 20.0])


def rotation(_: float, y: np.ndarray) -> np.ndarray:
    return np.array([y[1], -y[0]])


@pytest.mark.parametrize("method", ["DOP853", "Radau", "BDF", "LSODA"])
def test_every_method_follows_the_circle(method: Any) -> None:
    found = integrate(rotation, np.array([0.0, 1.0]), TIMES, rtol=1e-8, atol=1e-10, method=method)
    assert np.abs(found.states - np.stack([np.sin(TIMES), np.cos(TIMES)], axis=1)).max() < 1e-4
    assert found.complete and found.steps > 0 and found.evaluations >= found.steps


def test_the_error_follows_the_tolerance() -> None:
    """Error per step control of order 8: the global error falls about as fast as the tolerance."""
    exact = np.stack([np.sin(TIMES), np.cos(TIMES)], axis=1)
    tolerances = 10.0 ** -np.arange(4, 12)
    errors = [
        np.abs(integrate(rotation, np.array([0.0, 1.0]), TIMES, rtol=r, atol=r).states - exact).max()
        for r in tolerances
    ]
    slope = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    assert 0.75 < slope < 1.3 and errors[-1] < 1e-9


def test_a_stiff_jacobian_is_used() -> None:
    calls = []

    def jacobian(_: float, y: np.ndarray) -> np.ndarray:
        calls.append(y)
        return np.diag([-1.0, -1e6])

    found = integrate(
        lambda _, y: np.array([-y[0], -1e6 * (y[1] - 1)]), np.array([1.0, 0.0]), np.array([0.0, 3.0]),
        method="Radau", jacobian=jacobian,
    )  # fmt: skip
    assert calls and found.steps < 1000
    assert found.states[-1] == pytest.approx([np.exp(-3), 1.0], rel=1e-7)


@pytest.mark.parametrize("method", ["DOP853", "Radau", "BDF"])
def test_an_explosion_is_an_error_with_the_time_reached(method: Any) -> None:
    with pytest.raises(IntegrationError, match="failed at time 1:") as caught:
        integrate(lambda _, y: y**2, np.ones(1), np.array([0.0, 2.0]), method=method)
    assert 0.99 < caught.value.time < 1.01
    assert np.isfinite(caught.value.state).all()


@pytest.mark.parametrize("method", ["DOP853", "Radau"])
def test_nan_never_comes_out(method: Any) -> None:
    with pytest.raises(IntegrationError):
        integrate(lambda t, y: np.where(t > 0.5, np.nan, y), np.ones(2), np.array([1.0]), method=method)
    with pytest.raises(IntegrationError, match="starting state"):
        integrate(rotation, np.array([np.nan, 1.0]), np.array([1.0]))


@pytest.mark.parametrize(
    ("times", "words"),
    [([], "at least one"), ([-1.0], "time -1"), ([0, np.nan], "time nan"), ([0, 2, 1], "2, 1 in this order"),
     ([[1, 2]], "shape"), ("soon", "give numbers"), ([0, np.inf], "time inf"), ([1, 1], "increasing")],
)  # fmt: skip
def test_times_that_cannot_be_meant(times: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked_times(times)


@pytest.mark.parametrize("rtol", [0.0, -1e-3, 1e-17, 1.0, np.nan])
def test_a_tolerance_that_cannot_be_met(rtol: float) -> None:
    with pytest.raises(InputError, match="rtol"):
        integrate(rotation, np.ones(2), TIMES, rtol=rtol)


def test_log_times() -> None:
    assert log_times(0.5, 8, 5) == pytest.approx([0, 0.5, 1, 2, 4, 8])
    for first, last, count in ((0, 1, 3), (2, 1, 3), (1, 2, 1), (1, np.inf, 4)):
        with pytest.raises(InputError):
            log_times(first, last, count)


def test_only_the_start() -> None:
    found = integrate(rotation, np.array([3.0, 4.0]), np.array([0.0]))
    assert found.states.tolist() == [[3.0, 4.0]] and found.complete


def test_a_spent_budget_keeps_what_was_reached() -> None:
    calls = []

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        calls.append(t)
        return rotation(t, y)

    budget = Budget(cancelled=lambda: len(calls) > 100)
    found = integrate(rate, np.array([0.0, 1.0]), np.linspace(0, 100, 1001), budget=budget)
    assert not found.complete and "budget" in found.reason
    assert 1 < len(found.times) < 1001 and found.states.shape == (len(found.times), 2)
    assert np.abs(found.states[:, 0] - np.sin(found.times)).max() < 1e-6


def test_progress_ends_at_one() -> None:
    seen: list[float | None] = []
    integrate(rotation, np.array([0.0, 1.0]), TIMES, progress=lambda f, _: seen.append(f), text=lambda t, y: f"{t}")
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_an_interrupted_run_gives_the_same_numbers(tmp_path: Path) -> None:
    times = np.linspace(0, 30, 100)
    start = np.array([0.0, 1.0])
    whole = integrate(rotation, start, times, path=tmp_path / "whole.jsonl", task={"of": "circle"})
    calls = []

    def counted(t: float, y: np.ndarray) -> np.ndarray:
        calls.append(t)
        return rotation(t, y)

    path, task = tmp_path / "broken.jsonl", {"of": "circle"}
    stop = Budget(cancelled=lambda: len(calls) > 800)
    first = integrate(counted, start, times, path=path, task=task, budget=stop)
    assert not first.complete and 0 < len(first.times) < 100
    done = len(path.read_text().splitlines()) - 1
    assert 0 < done < 25
    reached = calls[-1]
    calls.clear()
    second = integrate(counted, start, times, path=path, task=task)
    assert min(calls) > 0.5 * reached  # finished legs are not computed again
    assert second.complete and (second.states == whole.states).all()
    calls.clear()
    third = integrate(counted, start, times, path=path, task=task)
    assert not calls and (third.states == whole.states).all() and third.evaluations == whole.evaluations
    assert np.abs(whole.states[:, 0] - np.sin(times)).max() < 1e-7


def test_a_torn_or_foreign_file(tmp_path: Path) -> None:
    path, times = tmp_path / "run.jsonl", np.linspace(0, 3, 7)
    whole = integrate(rotation, np.array([0.0, 1.0]), times, path=path, task=1)
    text = path.read_text()
    path.write_text(text[: int(len(text) * 0.7)])
    assert (integrate(rotation, np.array([0.0, 1.0]), times, path=path, task=1).states == whole.states).all()
    with pytest.raises(InputError, match="another task"):
        integrate(rotation, np.array([0.0, 1.0]), times, path=path, task=2)
    with pytest.raises(InputError, match="another task"):
        integrate(rotation, np.array([0.0, 1.0]), times[:-1], path=path, task=1)
    rows = path.read_text().splitlines()
    row = json.loads(rows[-1])
    row["value"]["states"] = row["value"]["states"][:-8]
    path.write_text("\n".join([*rows[:-1], json.dumps(row)]) + "\n")
    with pytest.raises(InputError, match="cannot be read"):
        integrate(rotation, np.array([0.0, 1.0]), times, path=path, task=1)


@pytest.mark.parametrize("times", [[0.0, 3000.0], [0.0, 1.0, 3000.0], [3000.0], [0.0, 1.0, 2.0, 3.0, 3000.0]])
def test_a_long_gap_between_outputs_is_cut_into_legs(tmp_path: Path, times: list[float]) -> None:
    """Each call has a budget for a sixth of the run: all of them together finish it, with the same numbers."""
    calls: list[float] = []

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        calls.append(t)
        return np.array([y[1], -y[0]]) / (1 + 0.01 * t)

    start, moments = np.array([0.0, 1.0]), np.array(times)
    whole = integrate(rate, start, moments, path=tmp_path / "whole")
    plain = integrate(rate, start, moments)
    enough = whole.evaluations / 6
    assert np.array_equal(whole.times, moments) and np.abs(whole.states - plain.states).max() < 1e-7
    assert 32 <= len((tmp_path / "whole").read_text().splitlines()) - 1 <= 100
    starts = []
    for _ in range(20):
        calls.clear()
        found = integrate(
            rate, start, moments, path=tmp_path / "run", budget=Budget(cancelled=lambda: len(calls) > enough)
        )
        starts.append(calls[0])
        if found.complete:
            break
    assert found.complete and 5 < len(starts) < 20 and starts == sorted(set(starts))
    assert (found.states == whole.states).all() and found.evaluations == whole.evaluations
