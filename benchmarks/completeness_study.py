"""Are the fibers complete? Students are trained to fit teachers exactly; which have another normal form, and why?

Run: python benchmarks/completeness_study.py [--path RUN.jsonl] [--teachers 12] [--starts 96] [--workers N]
The run is resumable; without --path it is kept in memory. Theory: docs/theory/completeness.md, arXiv 2605.18319.
"""

from __future__ import annotations

import argparse
import collections
import functools
import sys
import time
from typing import Any

import numpy as np
from completeness_forms import Array, Widths, extend, form_of, same, split, types

from fiberscope.sweeps import Record, sweep

WIDTHS: tuple[Widths, ...] = ((2, 2, 2, 1), (2, 2, 3, 1), (3, 2, 3, 2), (3, 3, 3, 1))
MODES = {
    "generic": "all weights random",
    "hidden": "all live neurons hide one first-layer neuron",
    "single": "one live neuron, which hides one; the others dead",
    "dead": "one dead neuron, the others random",
    "A": "one always-active neuron",
    "AA": "two always-active neurons",
}
TRAINED = (1.0, 3.0, 10.0, 100.0)
SCALES = (1.0, 3.0, 30.0, 300.0, 1e4, 1e6)
FITTED = 1e-9
REASONS = ("fan", "cone", "corner", "rank", "other")


# ------------------------------------------------------------------------------------------------ teachers and students


def draw(widths: Widths, count: int, rng: np.random.Generator) -> Array:
    """(count, M) random parameters, all standard normal."""
    n0, n1, n2, n3 = widths
    return rng.standard_normal((count, n1 * (n0 + 1) + n2 * (n1 + 1) + n3 * (n2 + 1)))


def teacher(widths: Widths, mode: str, rng: np.random.Generator) -> Array:
    """Parameters of a mode, not close to a boundary of its region, and not of a constant function."""
    while True:
        theta = draw(widths, 1, rng)[0]
        w1, _, w2, b2, _, _ = split(theta, widths)
        if mode in ("hidden", "single"):
            live = widths[2] if mode == "hidden" else 1
            w2[:], b2[:] = -np.abs(w2), -np.abs(b2)
            w2[:live, 0] *= -1
        if mode in ("A", "AA"):
            w2[: len(mode)], b2[: len(mode)] = np.abs(w2[: len(mode)]), np.abs(b2[: len(mode)])
        if mode == "dead":
            w2[-1], b2[-1] = -np.abs(w2[-1]), -np.abs(b2[-1])
        clear = min(np.abs(theta).min(), np.linalg.svd(w1)[1].min()) > 0.1
        if clear and set(types(theta, widths)) & {"A", "S"}:
            return theta


def evaluate(theta: Array, widths: Widths, x: Array, derivative: bool = False) -> tuple[Array, Array | None]:
    """Outputs (B, N, n3) of B networks, and their derivatives (B, N n3, M)."""
    w1, b1, w2, b2, w3, b3 = split(theta, widths)
    z = x @ w1.swapaxes(1, 2) + b1[:, None]
    y = np.maximum(z, 0)
    t = y @ w2.swapaxes(1, 2) + b2[:, None]
    h = np.maximum(t, 0)
    out = h @ w3.swapaxes(1, 2) + b3[:, None]
    if not derivative:
        return out, None
    count, points, outputs = out.shape
    by_t = w3[:, None] * (t > 0)[:, :, None]
    by_z = (by_t @ w2[:, None]) * (z > 0)[:, :, None]
    eye = np.broadcast_to(np.eye(outputs), (count, points, outputs, outputs))
    blocks = [
        by_z[..., None] * x[None, :, None, None],
        by_z,
        by_t[..., None] * y[:, :, None, None],
        by_t,
        eye[..., None] * h[:, :, None, None],
        eye,
    ]
    return out, np.concatenate([b.reshape(count, points * outputs, -1) for b in blocks], axis=-1)


def fit(theta: Array, widths: Widths, x: Array, y: Array, weight: Array, rounds: int = 400) -> tuple[Array, Array]:
    """Levenberg-Marquardt for many students at once; parameters and weighted root mean square errors.

    Students that are done, or that gain less than a tenth in 40 rounds, leave the batch.
    """
    theta, damping = theta.copy(), np.full(len(theta), 0.1)
    aim, weight = (1e-12 * max(1.0, np.abs(weight[:, None] * y).max())) ** 2, weight[:, None]
    cost = np.mean((weight * (evaluate(theta, widths, x)[0] - y)) ** 2, axis=(1, 2))
    before, live = cost.copy(), np.arange(len(theta))
    for turn in range(1, rounds + 1):
        live = live[cost[live] > aim]
        if turn % 40 == 0:
            live, before = live[cost[live] < 0.9 * before[live]], cost.copy()
        if not live.size:
            break
        out, jacobian = evaluate(theta[live], widths, x, derivative=True)
        assert jacobian is not None
        residual = (weight * (out - y)).reshape(len(live), -1, 1)
        jacobian *= np.repeat(weight, widths[3], axis=0)
        normal = jacobian.swapaxes(1, 2) @ jacobian
        diagonal = np.einsum("bii->bi", normal)  # a view
        diagonal += damping[live, None] * (diagonal + 1e-3 * diagonal.mean(axis=1, keepdims=True) + 1e-9)
        trial = theta[live] - np.linalg.solve(normal, jacobian.swapaxes(1, 2) @ residual)[..., 0]
        reached = np.mean((weight * (evaluate(trial, widths, x)[0] - y)) ** 2, axis=(1, 2))
        better = reached < cost[live]
        theta[live[better]], cost[live[better]] = trial[better], reached[better]
        damping[live] = np.where(better, np.maximum(damping[live] / 5, 1e-14), np.minimum(damping[live] * 4, 1e8))
    return theta, np.sqrt(cost)


# ------------------------------------------------------------------------------------------------------ how exact a fit


def deviation(first: Array, second: Array, widths: Widths, x: Array) -> float:
    """Largest difference on these points, relative to the largest value, or to 1 if that is larger."""
    a, b = evaluate(np.stack([first, second]), widths, x)[0]
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def kinks(theta: Array, widths: Widths, scale: float, rng: np.random.Generator, count: int = 40) -> Array:
    """Points where one neuron changes sign: bisection on random segments."""
    w1, b1, w2, b2, _, _ = split(theta, widths)

    def active(x: Array, neuron: int) -> Array:
        z = x @ w1.T + b1
        return np.concatenate([z, np.maximum(z, 0) @ w2.T + b2], axis=1)[:, neuron] > 0

    ends = scale * rng.standard_normal((2, count, widths[0]))
    found = [np.zeros((1, widths[0]))]
    for neuron in range(widths[1] + widths[2]):
        crosses = active(ends[0], neuron) != active(ends[1], neuron)
        low, high = ends[:, crosses]
        at_low = active(low, neuron)
        for _ in range(60):
            middle = (low + high) / 2
            stay = (active(middle, neuron) == at_low)[:, None]
            low, high = np.where(stay, middle, low), np.where(stay, high, middle)
        found.append(low)
    return np.concatenate(found)


def exactness(student: Array, theta: Array, widths: Widths, rng: np.random.Generator) -> str:
    """The word "exact", or where the student is wrong: "elsewhere", or in a narrow "strip" between two kinks."""
    for scale in SCALES:
        if deviation(student, theta, widths, scale * rng.standard_normal((1500, widths[0]))) > FITTED:
            return "elsewhere"
    for scale in SCALES:
        points = np.concatenate([kinks(net, widths, scale, rng) for net in (student, theta)])
        if deviation(student, theta, widths, points) > 10 * FITTED:
            return "strip"
    return "exact"


def reason(student: Array, theta: Array, widths: Widths) -> str:
    """Why a student that computes the teacher's function has another normal form, or "same"."""
    form = form_of(student, widths)
    if same(form_of(theta, widths), form):
        return "same"
    if len(form.rows) and np.linalg.svd(form.rows[:, :-1])[1].min() < 1e-5:
        return "rank"
    wide = extend(form)
    if not same(extend(form_of(theta, widths)), wide):
        return "other"
    return next((name for name in ("corner", "cone", "fan") if name in wide.used), "corner")


def cell(payload: dict[str, Any], starts: int) -> dict[str, Any]:
    """Train students for one teacher and sort them: how many fit, are exact, have its form, and the others."""
    widths, mode = tuple(payload["widths"]), payload["mode"]
    rng = np.random.default_rng([*widths, list(MODES).index(mode), payload["teacher"]])
    theta = teacher(widths, mode, rng)
    scale = np.repeat(TRAINED, 300 // len(TRAINED))
    x = scale[:, None] * rng.standard_normal((len(scale), widths[0]))
    y = evaluate(theta[None], widths, x)[0][0]
    students, errors = fit(draw(widths, starts, rng), widths, x, y, 1 / scale)
    fitted = students[errors < FITTED * max(1.0, np.abs(y / scale[:, None]).max())]
    counts: collections.Counter[str] = collections.Counter(starts=starts, fitted=len(fitted))
    outside = []
    for student in fitted:
        how = exactness(student, theta, widths, rng)
        counts[how] += 1
        if how == "exact":
            why = reason(student, theta, widths)
            counts[why] += 1
            if why != "same":
                outside.append({"why": why, "types": types(student, widths), "student": student})
    return {"types": types(theta, widths), "teacher": theta, "counts": dict(counts), "outside": outside}


# ----------------------------------------------------------------------------------------------------------- the tables

COLUMNS = ("starts", "fitted", "elsewhere", "strip", "exact", "same", *REASONS)


def spare(letters: str, widths: list[int]) -> bool:
    """Whether the function needs fewer neurons: one is dead, or the always-active block has deficient rank."""
    return "D" in letters or letters.count("A") > min(widths[1], widths[3])


def table(title: str, groups: dict[str, collections.Counter[str]]) -> None:
    """One Markdown table."""
    print(f"| {title} | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    for name, counts in groups.items():
        print(f"| {name} | " + " | ".join(str(counts[column]) for column in COLUMNS) + " |")
    print()


def report(records: list[Record], cells: list[dict[str, Any]]) -> None:
    """Sum up by mode, by widths and by spare capacity."""
    by: dict[str, dict[str, collections.Counter[str]]] = {"mode": {}, "widths": {}, "teacher": {}}
    seen: collections.Counter[str] = collections.Counter()
    for record, payload in zip(records, cells, strict=True):
        if record.error is not None:
            print(f"{record.key}: {record.error}", file=sys.stderr)
            continue
        kind = "spare neurons" if spare(record.value["types"], payload["widths"]) else "no spare neuron"
        names = {"mode": payload["mode"], "widths": "-".join(map(str, payload["widths"])), "teacher": kind}
        for group, name in names.items():
            for key in (name, "all"):
                by[group].setdefault(key, collections.Counter()).update(record.value["counts"])
        for student in record.value["outside"]:
            seen[f"{student['why']}: {record.value['types']} by {student['types']}"] += 1
    for title, groups in by.items():
        total = groups.pop("all", collections.Counter())
        table(title, {**groups, "all": total})
    for name, count in seen.most_common():
        print(f"{count:5d} {name}")


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="file of the run, to resume it")
    parser.add_argument("--teachers", type=int, default=12, help="for each architecture and mode")
    parser.add_argument("--starts", type=int, default=96, help="students for each teacher")
    parser.add_argument("--workers", type=int, help="processes; by default this one")
    parser.add_argument("--seconds", type=float, help="stop after this time; a run with --path can be resumed")
    options = parser.parse_args()
    cells: list[dict[str, Any]] = [
        {"widths": list(widths), "mode": mode, "teacher": number}
        for number in range(options.teachers)
        for widths in WIDTHS
        for mode in MODES
    ]
    start = time.perf_counter()
    shown = functools.partial(print, end="\r", file=sys.stderr, flush=True)
    run = sweep(
        functools.partial(cell, starts=options.starts),
        cells,
        path=options.path,
        task={"study": "completeness", "version": 2, "starts": options.starts},
        workers=options.workers,
        budget=options.seconds,
        progress=lambda fraction, text: shown(f"{text}   "),
    )
    print(f"{run}; {time.perf_counter() - start:.0f} s\n")
    if run.complete:
        report(list(run), cells)


if __name__ == "__main__":
    main()
