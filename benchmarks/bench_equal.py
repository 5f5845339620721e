"""Deciding equality of pairs of eight kinds, beside random inputs, weight matching and a mixed-integer program.

Run: python benchmarks/bench_equal.py              every kind at every size, one Markdown table
     python benchmarks/bench_equal.py --sizes      growth with the size, and where the time goes
     python benchmarks/bench_equal.py --scrambled  thousands of random members and near misses
Options choose sizes, kinds and limits: see --help.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from baselines import Baseline, mixed_integer, random_inputs, weight_matching
from pairs import BOX, KINDS, SIZES, Pair, pair

import fiberscope as fs
from fiberscope.errors import FiberscopeError
from fiberscope.network import Network
from fiberscope.results import Answer, Verdict

T = TypeVar("T")

GROWTH = (
    (5, 5, 5, 1),
    (5, 8, 8, 1),
    (10, 8, 16, 3),
    (784, 64, 64, 10),
    (784, 128, 128, 10),
    (784, 256, 128, 10),
    (784, 512, 256, 10),
    (784, 1024, 512, 10),
    (784, 2048, 1024, 10),
)
MEMBERS = (
    (2, 2, 3, 1), (3, 3, 4, 2), (4, 2, 5, 3), (5, 4, 6, 1), (6, 1, 4, 2), (4, 4, 4, 4), (2, 4, 3, 1), (3, 6, 4, 2),
    (4, 5, 3), (3, 4, 4, 3, 2),
)  # fmt: skip
"""Architectures of --scrambled: the first six are bottleneck ones, then wider, two-layer and deeper ones."""
MISSES = ("ulp", "sign", "bias")


def timed(function: Callable[..., T], *arguments: object, **options: object) -> tuple[T, float]:
    """What a call returns, and seconds of wall time."""
    start = time.perf_counter()
    value = function(*arguments, **options)
    return value, time.perf_counter() - start


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def brief(seconds: float) -> str:
    """Two digits that matter."""
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.0995 else f"{seconds:.2g} s"


def proof(verdict: Verdict, f: Network, g: Network) -> str:
    """What stands behind a verdict, done again: the certificate checked, or the counterexample evaluated exactly."""
    if verdict.answer is Answer.YES:
        checked, seconds = timed(fs.check, verdict.certificate, f, g)
        return f"certificate {'accepted' if checked.answer is Answer.YES else 'REFUSED'}, {brief(seconds)}"
    if verdict.answer is Answer.NO:
        found = verdict.counterexample
        (first, second), seconds = timed(lambda: (f.exact(found.x), g.exact(found.x)))
        gap = max((abs(a - b) for a, b in zip(first, second, strict=True)), key=abs)
        seen = "float32 shows it" if found.shows_in_dtype else "float32 hides it"
        return f"{float(gap):.1e} exactly{'' if gap else ' NO DIFFERENCE'}, {seen}, {brief(seconds)}"
    return verdict.reason


def certified(made: Pair, limit: float) -> str:
    """The certified distance on the box."""
    if not limit:
        return ""
    bound, seconds = timed(fs.distance, made.f, made.g, made.f.domain(BOX), budget=limit)
    return f"[{float(bound.lower):.1e}, {float(bound.upper):.1e}], {brief(seconds)}"


def said(baseline: Baseline, expected: Answer) -> str:
    """A baseline's word, marked where it is not the right one."""
    right = {"equal": Answer.YES, "different": Answer.NO}.get(baseline.word)
    mark = "" if right is expected or right is None else " WRONG"
    return f"{baseline.word}{mark}, {baseline.detail}, {brief(baseline.seconds)}"


def compare(sizes: Sequence[str], kinds: Sequence[str], limit: float, distance: float, milp: float, seed: int) -> str:
    """Every kind at every size: one row each."""
    rows = []
    right = Counter[str]()
    for size in sizes:
        for kind in kinds:
            made = pair(kind, SIZES[size], seed)
            print(size, kind, file=sys.stderr)
            verdict, seconds = timed(fs.equal, made.f, made.g, budget=limit)
            boxed, inside = timed(fs.equal, made.f, made.g, BOX, budget=limit)
            right += Counter(word(v, made.expected) for v in (verdict, boxed))
            program = mixed_integer(made.f, made.g, milp) if milp else Baseline("", "", 0.0)
            rows.append(
                [
                    size, kind, f"{verdict.answer.name} ({verdict.method})", brief(seconds),
                    proof(verdict, made.f, made.g), f"{boxed.answer.name} ({boxed.method})", brief(inside),
                    "" if made.expected is Answer.YES else certified(made, distance),
                    said(random_inputs(made.f, made.g), made.expected),
                    said(weight_matching(made.f, made.g), made.expected),
                    said(program, made.expected) if milp else "",
                    f"{program.seconds / inside:.0f}" if milp else "",
                ]
            )  # fmt: skip
    head = (
        "size", "kind", "on R^n", "time", "proof, done again", f"on {BOX}", "time", "certified distance",
        "random inputs", "weight matching", "MILP", "MILP time / time on the box",
    )  # fmt: skip
    return table(head, rows) + "\nVerdicts: " + ", ".join(f"{n} {name}" for name, n in right.items()) + "\n"


def word(verdict: Verdict, expected: Answer) -> str:
    """Right, UNDECIDED or WRONG."""
    if verdict.answer is Answer.UNDECIDED:
        return "UNDECIDED"
    return "right" if verdict.answer is expected else "WRONG"


def growth(limit: float, milp: float, seed: int) -> str:
    """Growth of `equal` with the size of an exactly equal pair, and of its parts, each on freshly loaded networks."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for widths in GROWTH:
            print("-".join(map(str, widths)), file=sys.stderr)
            rows.append(_grown(pair("eq_pow2", widths, seed), Path(folder), limit, milp))
    head = (
        "size", "parameters", "load both", "equal", "full normal forms of both", "check again",
        "one ulp in the middle layer", "MILP on the box", "MILP / equal",
    )  # fmt: skip
    return table(head, rows)


def _grown(made: Pair, folder: Path, limit: float, milp: float) -> list[object]:
    """One row of the table of growth."""

    def load() -> list[Network]:
        return [fs.load(folder / f"{name}.safetensors") for name in "fg"]

    for name, net in (("f", made.f), ("g", made.g)):
        fs.save(net, folder / f"{name}.safetensors", force=True)
    nets, loading = timed(load)
    verdict, deciding = timed(fs.equal, *nets, budget=limit)
    _, forming = timed(lambda nets: [fs.canonical(net) for net in nets], load())
    checked, checking = timed(fs.check, verdict.certificate, *load())
    other, refuting = timed(fs.equal, made.f, _one_ulp(made.g), budget=limit)
    program = mixed_integer(made.f, made.g, milp) if milp else Baseline("", "not run", 0.0)
    return [
        "-".join(map(str, made.f.widths)), made.f.parameter_count, brief(loading),
        f"{verdict.answer.name}, {brief(deciding)}", brief(forming), f"{checked.answer.name}, {brief(checking)}",
        f"{other.answer.name}, {brief(refuting)}", f"{program.word}, {program.detail}, {brief(program.seconds)}",
        f"{'' if program.word == 'equal' else '> '}{program.seconds / deciding:.0f}",
    ]  # fmt: skip


def _one_ulp(net: Network) -> Network:
    """One weight of the middle layer moved to the next float32."""
    pairs = [(layer.weight.copy(), layer.bias) for layer in net.layers]
    weight = pairs[len(pairs) // 2][0]
    i, j = np.unravel_index(np.argmax(np.abs(weight)), weight.shape)
    weight[i, j] = np.nextafter(weight[i, j], weight.dtype.type(np.inf))
    return Network.from_arrays(*pairs)


def scrambled(count: int, limit: float, seed: int) -> str:
    """Random members of the fiber of `count` networks an architecture, and three near misses of each: verdicts."""
    relatives = importlib.import_module("fiberscope.fibers.relatives")
    rows, total = [], Counter[str]()
    for widths in MEMBERS:
        print("-".join(map(str, widths)), file=sys.stderr)
        tally, spent = Counter[str](), []
        for k in range(count):
            rng = np.random.default_rng([seed, k, *widths])
            net = planted(widths, k, rng)
            tasks = [("members", member(net, k, rng))]
            tasks += [("misses", relatives.near_miss(tasks[0][1], kind, rng)[0]) for kind in MISSES]
            for group, other in tasks:
                try:
                    verdict, seconds = timed(fs.equal, net, other, budget=limit)
                except (FiberscopeError, ArithmeticError) as exc:
                    print(f"{group}, network {k}: {type(exc).__name__}: {exc}", file=sys.stderr)
                    tally.update([group, "errors"])
                    continue
                spent.append(seconds)
                tally.update(judged(group, net, other, verdict))
        total += tally
        times = f"{brief(float(np.median(spent)))}, {brief(max(spent))}"
        rows.append(["-".join(map(str, widths)), *(tally[c] for c in _COLUMNS), times])
        print(dict(tally), times, file=sys.stderr)
    rows.append(["all", *(total[c] for c in _COLUMNS), ""])
    return table(("size", *_COLUMNS, "median, longest"), rows)


def planted(widths: tuple[int, ...], k: int, rng: np.random.Generator) -> Network:
    """A network: of three layers and small rationals with every type of neuron in turn, else with float weights."""
    relatives = importlib.import_module("fiberscope.fibers.relatives")
    if len(widths) != 4 or widths[1] > widths[0]:
        return Network.random(widths, seed=rng, dtype=(np.float32, np.float64)[k % 2])
    n2 = widths[2]
    types = ("S" * n2, "S" * n2, "S" + "D" * (n2 - 1), "SA".ljust(n2, "S"), "AAS".ljust(n2, "D")[:n2], "A" * n2)[k % 6]
    if widths[1] == 1:  # a row with one entry has no mixed signs
        types = types.replace("S", "A")
    hidden = 0 if k % 6 in (1, 2) and "A" not in types else None
    return relatives.typed_network(widths, types, hidden=hidden, seed=rng)


def member(net: Network, k: int, rng: np.random.Generator) -> Network:
    """The network after eight random moves; every second one also with a copy, a constant, a dead or unread neuron."""
    walks, relatives = (importlib.import_module(f"fiberscope.fibers.{name}") for name in ("walks", "relatives"))
    other, _ = walks.random_walk(net, 8, rng)
    if k % 2 or net.depth < 3:
        return other
    layer = int(rng.integers(1, net.depth - 1))
    grow = (
        lambda n: relatives.split_neuron(n, layer, int(rng.integers(n.widths[layer + 1]))),
        lambda n: relatives.add_constant(n, layer, rng),
        lambda n: relatives.add_dead(n, layer, rng),
        lambda n: relatives.add_unread(n, layer, rng),
    )[k // 2 % 4]
    return walks.random_walk(grow(other), 4, rng)[0]


_COLUMNS = (
    "members", "members YES", "members UNDECIDED", "misses", "misses NO", "misses YES", "misses UNDECIDED",
    "certificates accepted", "WRONG", "errors",
)  # fmt: skip


def judged(group: str, f: Network, g: Network, verdict: Verdict) -> list[str]:
    """What to count for one decision; a miss may be equal (a change in a dead neuron), but only with a certificate."""
    out = [group, f"{group} {verdict.answer.name}"]
    if verdict.answer is Answer.NO:
        x = verdict.counterexample.x
        return [*out, "WRONG"] if group == "members" or f.exact(x) == g.exact(x) else out
    points = np.random.default_rng(0).integers(-40, 41, (16, f.widths[0])) / 8
    same = all(f.exact(x) == g.exact(x) for x in points.tolist())
    if group == "members" and not same:
        raise SystemExit(f"the generator is wrong: {f} and a member of its fiber differ")
    if verdict.answer is Answer.UNDECIDED:
        return out
    accepted = fs.check(verdict.certificate, f, g).answer is Answer.YES
    return [*out, *(["certificates accepted"] if accepted else []), *([] if same and accepted else ["WRONG"])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=SIZES, help="only this size; may be repeated")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for each decision")
    parser.add_argument("--distance", type=float, default=5.0, help="seconds for each certified distance; 0 for none")
    parser.add_argument("--milp", type=float, default=20.0, help="seconds for each mixed-integer program; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", action="store_true", help="growth with the size instead")
    parser.add_argument("--scrambled", type=int, nargs="?", const=200, metavar="N", help="N networks a size instead")
    options: Any = parser.parse_args(arguments)
    fs.equal(*pair("eq_pow2", (5, 5, 5, 1))[:2])  # imports are not what is measured
    if options.sizes:
        print(growth(options.budget, options.milp, options.seed))
    elif options.scrambled:
        print(scrambled(options.scrambled, options.budget, options.seed))
    else:
        sizes, kinds = options.size or list(SIZES), options.kind or list(KINDS)
        print(compare(sizes, kinds, options.budget, options.distance, options.milp, options.seed))


if __name__ == "__main__":
    main()
