"""What to run next where networks are looked at for what training can do, for targets, and at infinite width."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from fiberscope.pages.data import Data, listing, mapping, rows, whole
from fiberscope.pages.questions import Asked, Step, number_of, path_word, size_of, spelled

_SMALL = 200  # parameters up to which training many times is proposed


def _sims(asked: Asked) -> Iterator[Step]:
    if asked.options.get("--count"):
        if whole(asked.data.get("count_types")) <= 3000:
            yield asked.without("--count").again(why="the list of types, and how they contain each other")
    if asked.file:
        yield asked.on("smallest-sim", asked.file, why="on which of these the parameters lie")
        yield asked.on("orbit", asked.file, why="where training can go from these parameters")
    elif not {"--no-bias", "--no-output-bias"} & asked.options.keys():
        yield from _architecture(asked, "orbit", "conserved")


_SHAPES = {
    "orbit": "how far training can go from generic parameters",
    "conserved": "what training keeps, whatever the loss and the data",
    "sims": "all known invariant manifolds of this architecture",
}


def _architecture(asked: Asked, *commands: str) -> Iterator[Step]:
    """Commands about the same widths and activation."""
    kept = [
        word for key in ("--widths", "--activation") if key in asked.options for word in (key, str(asked.options[key]))
    ]
    for command in commands:
        yield Step((command, *kept), _SHAPES[command])


def _smallest_sim(asked: Asked) -> Iterator[Step]:
    data = asked.data
    confined = whole(data.get("dimension")) < whole(data.get("ambient"))
    if confined and "--reduced" not in asked.options and listing(data.get("reduced_widths")):
        why = "write the network that trains the same, with its learning rates"
        yield asked.again("--reduced", asked.beside("classes"), why=why)
    if asked.options.get("--reduced"):
        yield asked.about("inspect", str(asked.options["--reduced"]), why="the reduced network")
    if not confined and "--tolerance" not in asked.options:
        yield asked.again("--tolerance", "1e-3", why="which neurons nearly move together")
    yield asked.on("lint-init", asked.file, why="is this trapped as a start of training, and what frees it?")
    yield asked.on("orbit", asked.file, why="where training can go from these parameters")


def _orbit(asked: Asked) -> Iterator[Step]:
    if not asked.file:
        yield from _architecture(asked, "sims", "conserved")
        return
    yield asked.on("smallest-sim", asked.file, why="which neurons move together in training")
    yield asked.on("conserved", asked.file, why="the conservation laws that confine it")


def _conserved(asked: Asked) -> Iterator[Step]:
    if not asked.file:
        yield from _architecture(asked, *(["orbit"] if "--no-bias" not in asked.options else []), "sims")
        return
    yield asked.on("orbit", asked.file, why="where training can go from these parameters")
    yield asked.on("smallest-sim", asked.file, why="which neurons move together in training")


def _condensation(asked: Asked) -> Iterator[Step]:
    read = rows(asked.data.get("inputs"))
    if read:
        last = path_word(read[-1].get("path"))
        yield asked.on(
            "smallest-sim", last, "--tolerance", "1e-2", why="which neurons of the last one nearly move together"
        )
        yield asked.on("rank", last, why="how many parameters its function can feel")


def _lint_init(asked: Asked) -> Iterator[Step]:
    made = asked.options.get("--output")
    if made:
        yield asked.about(
            "lint-init", str(made), "--optimiser", str(asked.data.get("optimiser")), why="look at the freed start again"
        )
    elif asked.data.get("trapped"):
        yield asked.again(
            "-o", asked.beside("freed"), why="write a start that is not trapped, with the smallest change"
        )
    elif "--optimiser" not in asked.options:
        yield asked.again("--optimiser", "adam", why="the same for another rule, which keeps other manifolds")
    yield asked.on("smallest-sim", asked.file, why="which neurons move together in training")
    yield asked.on("conserved", asked.file, why="what training keeps, whatever the loss and the data")


def _watch(asked: Asked) -> Iterator[Step]:
    if not asked.data.get("complete"):
        yield asked.without("--print").again(why="follow the run live")
    if not str(asked.data.get("path") or asked.file).endswith(".jsonl"):
        yield asked.on("condensation", asked.file, why="how the neurons condense onto few directions")
    keys = [str(key) for key in listing(asked.data.get("theorems"))]
    if keys:
        yield Step(("cite", *keys), "the statements it rests on")


# ---- when a target is recovered


def _rank(asked: Asked) -> Iterator[Step]:
    widths = _middle(asked.data)
    if widths:
        wide = ",".join(str(2 * w) for w in widths)
        yield asked.on(
            "predict-recovery",
            asked.file,
            "--widths",
            wide,
            why="from how many samples a network twice as wide recovers it",
        )
    yield asked.on("condensation", asked.file, why="how far its neurons have condensed onto few directions")


def _middle(data: Data) -> list[int]:
    """Hidden widths of the first network that was read."""
    return [whole(w) for w in listing(mapping(next(iter(rows(data.get("inputs"))), {})).get("layers"))[1:-1]]


def _predict_recovery(asked: Asked) -> Iterator[Step]:
    given, needed = str(asked.options.get("--widths")), asked.data.get("needed")
    sizes = {key: asked.options[key] for key in ("--no-bias", "--output-bias") if key in asked.options}
    small = all(size_of(listing(row.get("layers"))) <= _SMALL for row in rows(asked.data.get("inputs")))
    if "," not in given and "-" not in given and isinstance(needed, int) and small and len(_middle(asked.data)) == 1:
        samples = f"{max(1, needed // 2)},{needed},{2 * needed}"
        yield asked.on("phase-diagram", asked.file, "--samples", samples, "--widths", given, *spelled(sizes),
                       why="train on samples below and above that number")  # fmt: skip
    wide = [int(word) for word in given.split(",") if word.isdecimal()]
    middle = _middle(asked.data)
    if len(wide) == len(middle) and all(a >= b for a, b in zip(wide, middle, strict=True)):
        yield asked.on("embed", asked.file, "--widths", given, why="a network of that width with the same function")
    yield asked.on("rank", asked.file, why="how many parameters the target can feel")


def _recover(asked: Asked) -> Iterator[Step]:
    made, found = asked.options.get("--output"), asked.data.get("widths")
    if found and not made:
        yield asked.again("-o", asked.beside("found", ".safetensors"), why="write the network that was found")
    elif found:
        yield Step(("inspect", str(made)), "what is redundant in it, and what training can do")
        yield Step(("canonical", str(made)), "its normal form, to compare with a target's")
    elif "--noise" not in asked.options:
        yield asked.again("--noise", "held-out", why="choose a width for data that no network fits exactly")


def _embed(asked: Asked) -> Iterator[Step]:
    made = asked.options.get("--output")
    if not made:
        yield asked.again("-o", asked.beside("wider"), why="write the wider network")
        return
    if "--part" not in asked.options:
        yield asked.on("equal", asked.file, str(made), why="the proof that the function is the same")
    yield asked.about("smallest-sim", str(made), why="the invariant manifold on which the copies lie")


def _strata(asked: Asked) -> Iterator[Step]:
    data, name = asked.data, asked.options.get("--activation")
    widths = f"{whole(data.get('input_dimension'))},{whole(data.get('width'))},1"
    bias = ["--no-output-bias", *([] if asked.options.get("--bias") else ["--no-bias"])]
    if name:
        yield Step(
            ("sims", "--widths", widths, "--activation", str(name), *bias), "the invariant manifolds of that network"
        )
    else:
        yield asked.again("--activation", "tanh", why="check the hypotheses for an activation")
    yield asked.again("--width", str(whole(data.get("width")) + 1), why="one neuron more")


def _diagonal(asked: Asked) -> Iterator[Step]:
    if "--flow" not in asked.options:
        yield asked.again("--flow", why="the flow itself, beside its limit")
    depth = whole(asked.data.get("depth"), 2)
    yield asked.again("--depth", str(depth + 1), why="one factor more: where it ends changes")


def _phase_diagram(asked: Asked) -> Iterator[Step]:
    widths = listing(asked.data.get("widths"))
    if widths:
        yield asked.on(
            "predict-recovery",
            asked.file,
            "--widths",
            str(widths[-1]),
            why="the numbers of samples that theory predicts",
        )
    if "--csv" not in asked.options:
        yield asked.again("--csv", asked.beside("runs", ".csv"), why="a table with one row for each run")


# ---- infinite width


def _refined(asked: Asked) -> Iterator[Step]:
    if "--refine" not in asked.options:
        yield asked.again("--refine", why="run again with more points, and say what changes")


def _angle(asked: Asked) -> Iterator[Step]:
    size, inner = whole(asked.data.get("dimension")), whole(asked.data.get("subspace_dimension"))
    yield from _refined(asked)
    target = ("--target", f"norm:{inner}", "--dimension", str(size))
    yield Step(("meanfield", "reduction", *target), "the statements this flow rests on")
    if size <= 30:
        yield Step(("meanfield", "particles", *target, "--width", "64"), "a finite network on the same target")


def _odd(asked: Asked) -> Iterator[Step]:
    until = number_of(next(reversed(listing(asked.data.get("times"))), None))
    if math.isfinite(until):
        yield asked.without("--times").again("--until", f"{10 * until:g}", why="ten times longer")
    slope, size = number_of(asked.data.get("beta_norm")), whole(asked.data.get("dimension"))
    if math.isfinite(slope) and "--variance" not in asked.options:
        target = f"linear:{','.join([f'{slope:.12g}', *['0'] * (size - 1)])}" if size <= 6 else f"linear:{slope:.12g}"
        yield Step(
            ("meanfield", "reduction", "--target", target, "--dimension", str(size)),
            "the statements this flow rests on",
        )


def _linear(asked: Asked) -> Iterator[Step]:
    until = number_of(next(reversed(listing(asked.data.get("times"))), None))
    if "--centre" not in asked.options:
        yield asked.again("--centre", why="with the means of inputs and labels subtracted")
    if math.isfinite(until):
        yield asked.without("--times").again("--until", f"{10 * until:g}", why="ten times longer")


def _lowdim(asked: Asked) -> Iterator[Step]:
    yield from _refined(asked)
    yield from _targeted(asked, "reduction", "the statements this flow rests on")
    yield from _targeted(asked, "particles", "a finite network on the same target")


def _targeted(asked: Asked, command: str, why: str) -> Iterator[Step]:
    """A command about the same target; a short one needs its dimension."""
    target = str(asked.options.get("--target"))
    short = _short(target)
    inner = (
        asked.data.get("subspace_dimension")
        if asked.command == "meanfield lowdim"
        else asked.options.get("--dimension")
    )
    size = ["--dimension", str(inner)] if short and inner else []
    yield Step(("meanfield", command, "--target", target, *size), why)


def _short(target: str) -> bool:
    """Whether a target is a word such as norm:5, which does not say its dimension."""
    return not target.lstrip().startswith("{") and (":" in target or target in ("abs", "relu"))


def _particles(asked: Asked) -> Iterator[Step]:
    if "--symmetric" not in asked.options and whole(asked.data.get("group_order")) > 1:
        yield asked.again("--symmetric", why="keep the target's symmetry exactly, with one neuron of each orbit")
    yield from _targeted(asked, "reduction", "is there an exact flow for this target, without particles?")


def _reduction(asked: Asked) -> Iterator[Step]:
    data, target = asked.data, str(asked.options.get("--target"))
    kept, inner = mapping(data.get("arguments")), whole(data.get("subspace_dimension"))
    size = ["--dimension", str(whole(data.get("dimension")))] if _short(target) else []
    flow = data.get("flow")
    if flow == "angle_flow":
        words = ["angle", "--dimension", str(whole(kept.get("d"))), "--subspace", str(whole(kept.get("dH")))]
        yield Step(("meanfield", *words), "the exact flow of this target")
    elif flow == "odd_flow":
        words = [
            "odd",
            "--dimension",
            str(whole(kept.get("d"))),
            "--slope-norm",
            f"{number_of(kept.get('beta_norm')):.12g}",
        ]
        yield Step(("meanfield", *words), "the exact flow of this target")
    elif flow == "lowdim_flow" and _short(target):
        yield Step(
            ("meanfield", "lowdim", "--target", target, "--subspace", str(inner), *size),
            "the exact flow of this target",
        )
    yield Step(("meanfield", "particles", "--target", target, *size), "a finite network on this target")


RULES: Mapping[str, Callable[[Asked], Iterable[Step]]] = {
    "sims": _sims,
    "smallest-sim": _smallest_sim,
    "orbit": _orbit,
    "conserved": _conserved,
    "condensation": _condensation,
    "lint-init": _lint_init,
    "watch": _watch,
    "rank": _rank,
    "predict-recovery": _predict_recovery,
    "recover": _recover,
    "embed": _embed,
    "strata": _strata,
    "diagonal": _diagonal,
    "phase-diagram": _phase_diagram,
    "meanfield angle": _angle,
    "meanfield odd": _odd,
    "meanfield linear": _linear,
    "meanfield lowdim": _lowdim,
    "meanfield particles": _particles,
    "meanfield reduction": _reduction,
}
"""What follows, by the command that gave the result."""
