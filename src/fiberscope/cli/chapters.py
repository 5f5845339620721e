"""The chapters of the guided tour: what each looks at, which commands it runs, and how it says what they found.

A chapter writes the files it needs, names its commands, and turns what they print with --json into sentences. It holds
no number of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fiberscope.pages.data import KINDS
from fiberscope.results import outward

Data = Mapping[str, Any]

DIGITS, TWOS = "digits-mlp.safetensors", "twos-tanh.safetensors"
"""The bundled networks."""

_PIXELS = ("--domain", "[0,1]")


@dataclass(frozen=True)
class Step:
    """One command: its words, paths for files of the tour.

    Args:
        words: without the name of the program.
        shown: whether the page has its result.
        needs: a file without which it is left out, because an earlier command did not come to write it.
    """

    words: tuple[str | Path, ...]
    shown: bool = True
    needs: Path | None = None


@dataclass(frozen=True)
class Plan:
    """One chapter before it is run.

    Args:
        key: a word for it.
        title: the question in short.
        asked: what is looked at.
        hint: a command for the reader's own file.
        files: what it writes, by the name inside the folder.
        prepare: writes what the commands read; (folder, seed).
        steps: the commands; of the folder.
        told: the answers, from the data of the commands in order; the first one is the most important.
    """

    key: str
    title: str
    asked: str
    hint: str
    files: tuple[str, ...]
    prepare: Callable[[Path, int], None]
    steps: Callable[[Path], tuple[Step, ...]]
    told: Callable[[Sequence[Data]], list[str]]


def plans() -> tuple[Plan, ...]:
    """All chapters, in order. Later ones read files of earlier ones."""
    return (
        Plan(
            "redundant", "What is redundant?",
            "digits-mlp is a ReLU network for pictures of digits, trained with L1 shrinkage. Which of its neurons does "
            "its function need?",
            "fiberscope reduce MODEL.onnx -o SMALL.onnx", (DIGITS, _small(DIGITS), _proof(_small(DIGITS))),
            _bundled(DIGITS), _redundant, _redundant_told,
        ),
        Plan(
            "same", "Which networks are the same?",
            "An export has shuffled the neurons of digits-mlp and rescaled them by powers of two; another one has "
            "rounded its weights to half precision. Which is still the same function?",
            "fiberscope equal BEFORE.onnx AFTER.onnx", (_shuffled(), _proof("equal"), _HALF),
            _copies, _same, _same_told,
        ),
        Plan(
            "training", "Where can training go?",
            "twos-tanh tells twos from other digits. It was trained from a careless start: one neuron began as a copy "
            "of another, and one with all weights zero. Does training repair that?",
            "fiberscope lint-init START.safetensors", (TWOS,), _bundled(TWOS), _training, _training_told,
        ),
        Plan(
            "width", "What happens at infinite width?",
            "A two-layer ReLU network of infinite width learns |x_H|, the length of the part of x in a subspace H. "
            "Nothing is sampled: the flow is that of two measures on one angle.",
            "fiberscope meanfield reduction --target YOURS", (), _nothing, _width, _width_told,
        ),
        Plan(
            "recovery", "When do samples determine the network?",
            "Given points labelled by twos-tanh: from how many on is a network that fits them the network itself?",
            "fiberscope recover DATA.csv --widths 1-4", (_small(TWOS), _proof(_small(TWOS)), _SAMPLES, _FOUND),
            _samples, _recovery, _recovery_told,
        ),
        Plan(
            "run", "Is a run trapped, and does it drift?",
            "A ReLU network of eight neurons learns twos-tanh with momentum. Two of its neurons begin almost equal. "
            "fs.watch looked on, at every step of this small loop.",
            "fiberscope watch RUN.jsonl", (_RUN,), _watched, _watching, _run_told,
        ),
    )  # fmt: skip


def _small(name: str) -> str:
    return f"small-{name}"


def _proof(name: str) -> str:
    return f"{name}.certificate.json"


def _nothing(place: Path, seed: int) -> None:
    pass


def _bundled(name: str) -> Callable[[Path, int], None]:
    """Copy a bundled network."""

    def copy(place: Path, seed: int) -> None:
        from fiberscope.io.files import atomic_write

        atomic_write(place / name, (resources.files("fiberscope") / "data" / name).read_bytes(), True)

    return copy


def _sentence(text: object) -> str:
    """Words of a result as a sentence of its own."""
    return f"{str(text)[:1].upper()}{str(text)[1:]}."


def _widths(found: Any) -> str:
    return "-".join(map(str, found))


# ---- 1: what is redundant


def _redundant(place: Path) -> tuple[Step, ...]:
    model, small = place / DIGITS, place / _small(DIGITS)
    return (
        Step(("inspect", model), shown=False),
        Step(("inspect", model, *_PIXELS)),
        Step(("reduce", model, "-o", small, *_PIXELS), shown=False),
        Step(("check", place / _proof(small.name), model, small), shown=False),
    )


def _redundant_told(found: Sequence[Data]) -> list[str]:
    wide, _, reduced, checked = found
    before, after = reduced["widths_before"], reduced["widths_after"]
    kinds = ", ".join(f"{row['count']} {KINDS.get(row['kind'], row['kind'])}" for row in reduced["removed"])
    bound = reduced["rounding"]["bound"] or {"constant": 0.0, "slope": 0.0}
    moved = _bound(bound["constant"], up=True)
    moved += f" + {_bound(bound['slope'], up=True)} max|x|" if bound["slope"] else ""
    rounded = (
        f"the new weights are rounded to {reduced['rounding']['dtype']}, which moves no output by more than {moved}"
    )
    everywhere, on_pixels = wide["reduction"]["hidden_after"], reduced["hidden_after"]
    scope = "for all inputs" if everywhere == on_pixels else f"for all inputs, {on_pixels} for pixels in [0, 1]"
    return [
        f"{everywhere} of {reduced['hidden_before']} hidden neurons are enough {scope}: {kinds} can go.",
        f"Reduced without loss: {_widths(before)} -> {_widths(after)}; "
        f"{'no weight is rounded' if reduced['rounding']['kind'] == 'exact' else rounded}.",
        f"The certificate, read by a checker that shares no code with the search: {checked['answer']}, "
        f"{checked['reason']}.",
    ]


# ---- 2: which networks are the same

_HALF = f"half-{DIGITS}"


def _shuffled() -> str:
    """The export, as ONNX where that can be written."""
    return "exported-digits-mlp." + ("onnx" if importlib.util.find_spec("onnx") else "npz")


def _copies(place: Path, seed: int) -> None:
    import numpy as np

    from fiberscope.io import load, save
    from fiberscope.network import Network

    net, rng = load(place / DIGITS), np.random.default_rng(seed)
    rows = [[row.weight64.astype(np.float32), np.asarray(row.bias, np.float32)] for row in net.layers]
    half = [(w.astype(np.float16).astype(np.float32), b.astype(np.float16).astype(np.float32)) for w, b in rows]
    save(Network.from_arrays(*half, activation="relu"), place / _HALF, force=True)
    for here, above in zip(rows, rows[1:], strict=False):
        order, scale = rng.permutation(len(here[1])), 2.0 ** rng.integers(-2, 3, len(here[1]))
        here[0], here[1] = (here[0][order] * scale[:, None]).astype(np.float32), (here[1][order] * scale)
        above[0] = (above[0][:, order] / scale).astype(np.float32)
    shuffled = [(w, b.astype(np.float32)) for w, b in rows]
    save(Network.from_arrays(*shuffled, activation="relu"), place / _shuffled(), force=True)


def _same(place: Path) -> tuple[Step, ...]:
    model, copy, half = place / DIGITS, place / _shuffled(), place / _HALF
    return (
        Step(("equal", model, copy, "--certificate", place / _proof("equal"))),
        Step(("equal", model, half)),
        Step(("fingerprint", model, copy, half)),
        Step(("distance", model, half, *_PIXELS, "--below", "0.1")),
    )


def _same_told(found: Sequence[Data]) -> list[str]:
    same, other, names, far = found
    rows = names["results"]
    groups = "; ".join(
        f"{row['fingerprint'][:13]}... {Path(row['path']).name}" for row in rows if row.get("fingerprint")
    )  # fmt: skip
    return [
        f"The shuffled one: {same['answer']}, {same['reason']}.",
        f"The rounded one: {other['answer']}, {other['reason']}; replayed exactly and in {_dtype(other)}.",
        f"Names of functions, equal for equal ones: {groups}.",
        f"Rounding moves an output by {_bound(far['lower'], up=False)} at one picture, and by no more than "
        f"{_bound(far['upper'], up=True)} at any with pixels in [0, 1]: proved.",
    ]


def _dtype(data: Data) -> str:
    return str(data["inputs"][0]["dtype"])


def _bound(value: Any, *, up: bool) -> str:
    """A bound to three digits, rounded away from what it encloses, so that what is said is proved too."""
    number = value["float"] if isinstance(value, Mapping) else value
    return outward(float(number), up=up, digits=3)


# ---- 3: where training can go


def _training(place: Path) -> tuple[Step, ...]:
    model = place / TWOS
    return (
        Step(("smallest-sim", model)),
        Step(("orbit", model)),
        Step(("sims", "--widths", "3,5,1", "--activation", "tanh")),
        Step(("conserved", "--widths", "3,8,1", "--activation", "relu")),
    )


def _training_told(found: Sequence[Data]) -> list[str]:
    sim, orbit, sims, laws = found
    proved = "proved" if orbit["certified"] else "not certified"
    least = "at least " if orbit["is_lower_bound"] else ""
    count = laws["count"] if laws["count"] is not None else f"at least {laws['independent']}"
    formulas = "; ".join(f"{row['size']} x {row['formula']}" for row in laws["known"])
    return [
        f"No: it is still on an invariant manifold of dimension {sim['dimension']} of {sim['ambient']}; "
        f"{sim['meaning']}."
        if sim["dimension"] < sim["ambient"]
        else f"Yes: it is on no known invariant manifold but all {sim['ambient']} parameters.",
        f"What gradient flow can reach from it, on any data, has dimension {least}{orbit['dimension']}: {proved}.",
        f"A {_widths(sims['widths'])} {sims['activation']} network has {sims['count']} such manifolds, of "
        f"{sims['count_types']} kinds{'; the list is complete' if sims['complete'] else ''}.",
        f"ReLU networks have conservation laws too; {laws['model']}: {count} ({formulas}). Chapter 6 watches them.",
    ]


# ---- 4: infinite width


def _width(place: Path) -> tuple[Step, ...]:
    words = ("meanfield", "angle", "--dimension", "30", "--subspace", "5", "--until", "1000", "--outputs", "16")
    return (Step(words),)


def _width_told(found: Sequence[Data]) -> list[str]:
    (flow,) = found
    at, alpha = flow["critical_time"], flow["alpha"]
    reached = "is never reached" if at is None else f"is passed at time {at:.4g}"
    defect = max(map(abs, flow["identity_defect"]), default=0.0)
    return [
        f"Positive neurons gather in H, negative ones leave it. The positive mass that represents the target, "
        f"{alpha:.4g}, {reached}.",
        f"The risk falls from {flow['energy'][0]:.3g} to {flow['energy'][-1]:.2g} by time {flow['times'][-1]:g}.",
        f"An identity for the masses holds up to {defect:.1g} at every time: a check of the computation.",
    ]


# ---- 5: recovery

_SAMPLES, _FOUND = "samples.csv", "found.safetensors"
_POINTS = 24


def _samples(place: Path, seed: int) -> None:
    import numpy as np

    from fiberscope.io import load
    from fiberscope.io.files import atomic_write

    inputs = np.random.default_rng(seed).uniform(-2.0, 2.0, (_POINTS, 3))
    table = np.hstack([inputs, load(place / TWOS)(inputs)])
    lines = ["upper,middle,lower,output", *(",".join(map(repr, row)) for row in table.tolist())]
    atomic_write(place / _SAMPLES, ("\n".join(lines) + "\n").encode(), True)


def _recovery(place: Path) -> tuple[Step, ...]:
    target, found = place / _small(TWOS), place / _FOUND
    return (
        Step(("reduce", place / TWOS, "-o", target), shown=False),
        Step(("predict-recovery", target, "--widths", "5", "--output-bias")),
        Step(("recover", place / _SAMPLES, "--widths", "1-3", "--output-bias", "--starts", "8", "-o", found)),
        Step(("distance", target, found, "--domain", "[-2,2]", "--below", "1e-9"), needs=found),
    )


def _recovery_told(found: Sequence[Data]) -> list[str]:
    reduced, predicted, recovered, *rest = found
    told = [
        f"On the manifold of the {_widths(reduced['widths_after'])} network that is in it, a fit is the network from "
        f"{predicted['smallest'] + 1} points on; among all parameters from {predicted['unconstrained']}.",
        f"With {recovered['points']} points, width {recovered['width']} is the narrowest of 1 to 3 that fits exactly."
        if recovered["width"] is not None
        else f"With {recovered['points']} points none of the widths 1 to 3 fits exactly.",
    ]
    proved = "What it found differs from the network by at most {} on [-2, 2]^3, proved."
    return [*told, *(proved.format(_bound(far["upper"], up=True)) for far in rest)]


# ---- 6: a watched run

_RUN = "run.jsonl"
_RATE, _MOMENTUM, _STEPS, _EVERY, _GAP = 0.05, 0.9, 500, 25, 1e-6


def _watched(place: Path, seed: int) -> None:
    """Train, and watch: what the quickstart of fs.watch shows, for a loop of plain NumPy."""
    import numpy as np

    from fiberscope.io import load
    from fiberscope.training.architectures.chains import architecture_of
    from fiberscope.training.drift.rules import OptimiserState
    from fiberscope.training.traces.watchers import watch

    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(256, 3))
    labels = load(place / TWOS)(inputs)
    theta = _start(rng)
    memory = {name: np.zeros_like(value) for name, value in theta.items()}

    def state(steps: int) -> OptimiserState:
        return OptimiserState("momentum", lr=_RATE, momentum=_MOMENTUM, buffers={"momentum": memory}, steps=steps)

    shape = architecture_of(theta, activation="relu")
    with watch(theta, place / _RUN, architecture=shape, optimizer=state(0), every=_EVERY, drift_every=1, data=inputs,
               force=True, seed=seed) as watcher:  # fmt: skip
        for step in range(1, _STEPS + 1):
            loss, gradients = _loss(theta, inputs, labels)
            memory = {name: _MOMENTUM * memory[name] + gradients[name] for name in theta}
            theta = {name: theta[name] - _RATE * memory[name] for name in theta}
            watcher.step(theta, loss=loss, gradients=gradients, optimizer=state(step))


def _start(rng: Any) -> dict[str, Any]:
    """A 3-8-1 network whose first two neurons are almost equal."""
    first, bias, second = rng.normal(size=(8, 3)), 0.1 * rng.normal(size=8), 0.5 * rng.normal(size=(1, 8))
    first[1], bias[1], second[:, 1] = first[0] + _GAP, bias[0], second[:, 0]
    return {"0.weight": first, "0.bias": bias, "1.weight": second, "1.bias": 0.0 * second[:, 0]}


def _loss(theta: Mapping[str, Any], inputs: Any, labels: Any) -> tuple[float, dict[str, Any]]:
    """Half the mean squared error, and its gradients."""
    before = inputs @ theta["0.weight"].T + theta["0.bias"]
    active = before * (before > 0)
    error = active @ theta["1.weight"].T + theta["1.bias"] - labels
    loss, error = float((error**2).mean()) / 2, error / len(inputs)
    back = (error @ theta["1.weight"]) * (before > 0)
    return loss, {
        "0.weight": back.T @ inputs, "0.bias": back.sum(axis=0), "1.weight": error.T @ active,
        "1.bias": error.sum(axis=0),
    }  # fmt: skip


def _watching(place: Path) -> tuple[Step, ...]:
    return (Step(("watch", place / _RUN)),)


def _run_told(found: Sequence[Data]) -> list[str]:
    (run,) = found

    def ends(name: str) -> Iterator[float]:
        seen = [value for row in run["records"] if (value := row["scalars"].get(f"fiberscope/{name}")) is not None]
        yield from (seen[0], seen[-1])

    (near, far), (_, drift), (_, ratio) = ends("sims/nearest_distance"), ends("laws/drift"), ends("laws/ratio")
    last = run["records"][-1]
    return [
        f"Distance to the manifold on which the two neurons are equal: {near:.2g} at the start, {far:.2g} after "
        f"{last['step']} steps, at a loss of {last['scalars']['loss']:.2g}.",
        f"Conserved quantities drifted by {drift:.2g} of their size: {ratio:.3f} times what momentum at this rate "
        "explains.",
    ]


__all__ = ["DIGITS", "TWOS", "Plan", "Step", "plans"]
