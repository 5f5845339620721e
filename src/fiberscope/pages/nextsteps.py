"""What to run next: the commands that follow from a result, with its real files; the page and the terminal show them.

A rule for each kind of result names a few; those that the result's own data does not justify are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from fiberscope.pages import nexttraining
from fiberscope.pages.data import Data, listing, mapping, rows, whole
from fiberscope.pages.questions import Asked, Options, Step, asked_of, number_of, path_word, size_of, spelled

_MOST = 3
_LONG = 600  # seconds that are proposed where the budget was too small
_LARGEST = {"orbit": 12_000, "conserved": 6_000, "rank": 6_000}
"""Parameters up to which a command works."""
_OF_TRAINING = frozenset(
    {"smallest-sim", "orbit", "conserved", "condensation", "rank", "lint-init", "predict-recovery"}
)
"""Commands about the parameters that are trained, which a network folded from others does not have."""


def following(data: Data) -> list[Step]:
    """The commands that follow from a result, the most useful first; none where its files are not known.

    Args:
        data: of the result, with what the command was given.

    >>> data = {"schema": "fiberscope/canonical/1", "given": {"arguments": ["net.onnx"], "options": {}}}
    >>> [step.line for step in following(data)][:1]
    ['fiberscope canonical net.onnx -o net-form.json']
    """
    asked = asked_of(data)
    if asked is None or asked.command not in _RULES:
        return []
    longer = list(_longer(asked))
    rest = asked.without("--budget") if longer else asked
    found = [*longer, *(step for step in _RULES[asked.command](rest) if _works(step.words[0], data))]
    return list({step.words: step for step in found}.values())[:_MOST]


def _works(command: str, data: Data) -> bool:
    """Whether a command takes the networks that were read."""
    read = rows(data.get("inputs"))
    if command in _OF_TRAINING and any(row.get("trained") is False for row in read):
        return False
    return all(size_of(listing(row.get("layers"))) <= _LARGEST.get(command, math.inf) for row in read)


def _longer(asked: Asked) -> Iterator[Step]:
    """More time, where the budget ended a run."""
    waits = asked.command.startswith("meanfield") or asked.command in ("recover", "condensation", "phase-diagram")
    if waits and asked.data.get("complete") is False:
        yield asked.again("--budget", str(_LONG), why="let it end: the time given was too short")


# ---- one network


def _inspect(asked: Asked) -> Iterator[Step]:
    data, before, after = asked.data, *_hidden(mapping(asked.data.get("reduction")))
    if rows(data.get("results")):
        worst = next((row for row in rows(data["results"]) if _redundant(row)), None)
        if worst is not None:
            one = Asked("inspect", (path_word(worst["path"]),), {**asked.options, **_part(worst)}, worst)
            yield from (step for step in _inspect(one) if step.words[0] == "reduce")
        yield Step(("fingerprint", *asked.files, *spelled(_networks(asked))), "are some of them the same function?")
        return
    if after < before:
        yield asked.on(
            "reduce", asked.file, "-o", asked.beside("small"), why="write the smaller network, with a certificate"
        )
    elif before and "--domain" not in asked.options:
        yield _smaller_domain(asked)
    classes = mapping(data.get("sim"))
    if whole(classes.get("dimension")) < whole(classes.get("ambient")):
        yield asked.on("smallest-sim", asked.file, why="which neurons move together in training")
    if before:
        yield asked.on("fiber", asked.file, why="all other parameters with the same function")


def _redundant(row: Data) -> bool:
    """Whether a network of a batch has a neuron too many."""
    before, after = _hidden(mapping(row.get("reduction")))
    return after < before and "path" in row


def _part(row: Data) -> Options:
    return {"--part": row["part"]} if row.get("part") else {}


def _smaller_domain(asked: Asked) -> Step:
    why = "name the inputs that matter: on a smaller domain more may be superfluous"
    return asked.on("inspect", asked.file, "--domain", "[0,1]", why=why)


def _networks(asked: Asked) -> Options:
    return {key: asked.options[key] for key in ("--part", "--activation", "--allow-opaque") if key in asked.options}


def _hidden(data: Data) -> tuple[int, int]:
    return whole(data.get("hidden_before")), whole(data.get("hidden_after"))


def _reduce(asked: Asked) -> Iterator[Step]:
    output, (before, after) = mapping(asked.data.get("output")), _hidden(asked.data)
    if rows(asked.data.get("results")):  # chains between opaque nodes: a proof for each
        return
    if output.get("certificate"):
        made, one = str(output.get("path") or ""), "--part" not in asked.options
        if one:
            why = "check the certificate, by code that shares nothing with the search"
            yield asked.on("check", str(output["certificate"]), asked.file, made, why=why)
        yield asked.about("inspect", made, why="what is left to remove, and what training can do")
        if one and mapping(asked.data.get("rounding")).get("kind") not in (None, "exact"):
            domain = [] if "--domain" in asked.options else ["--domain", "[0,1]"]
            yield asked.on("distance", asked.file, made, *domain, why="how much the rounding changes on these inputs")
    elif after < before:
        yield asked.on(
            "reduce", asked.file, "-o", asked.beside("small"), why="write the smaller network, with a certificate"
        )
    elif "--domain" not in asked.options and before:
        yield _smaller_domain(asked)


def _check(asked: Asked) -> Iterator[Step]:
    f, g = asked.files[1:3]
    if asked.data.get("answer") == "YES":
        yield asked.on("inspect", g, why="what is left to remove, and what training can do")
        yield asked.on("fingerprint", f, g, why="the same, from their normal forms alone")
    else:
        yield asked.on("equal", f, g, why="are they the same, whatever this certificate says?")


# ---- which networks are the same


def _equal(asked: Asked) -> Iterator[Step]:
    answer, proof = asked.data.get("answer"), asked.options.get("--certificate")
    if answer == "YES" and proof:
        yield asked.on(
            "check", str(proof), *asked.files, why="check the certificate, by code that shares nothing with the search"
        )
    elif answer == "YES":
        yield asked.again("--certificate", "equal.certificate.json", why="keep the proof, which others can check")
    if answer == "UNDECIDED":
        yield asked.again("--budget", str(_LONG), why="search longer")
    if answer != "YES" and asked.data.get("method") != "architecture":
        domain = [] if "--domain" in asked.options else ["--domain", "[0,1]"]
        yield asked.on("distance", *asked.files, *domain, why="how far they are apart on a box")
        if _alike(asked.data):
            yield asked.on("align", *asked.files, why="which neuron of one is which of the other")


def _alike(data: Data) -> bool:
    """Whether the two networks that were read have the same widths."""
    widths = [listing(row.get("layers")) for row in rows(data.get("inputs"))]
    return len(widths) == 2 and widths[0] == widths[1] and len(widths[0]) > 2


def _distance(asked: Asked) -> Iterator[Step]:
    lower, upper = number_of(asked.data.get("lower")), number_of(asked.data.get("upper"))
    if lower == 0:
        yield asked.on("equal", *asked.files, why="no difference was found: are they exactly the same?")
    if upper > 1.1 * lower and asked.data.get("answer") in (None, "UNDECIDED"):
        yield asked.again("--budget", str(_LONG), why="search longer for a narrower enclosure")
    if lower > 0 and _alike(asked.data):
        yield asked.on("align", *asked.files, why="which neuron of one is which of the other")


def _align(asked: Asked) -> Iterator[Step]:
    made, (f, g) = asked.options.get("--output"), asked.files
    if made:
        yield asked.about("distance", f, str(made), "--domain", "[0,1]", why="how far the functions are apart on a box")
    else:
        named = Asked(asked.command, (g, f), asked.options, asked.data).beside("aligned")
        yield asked.again("-o", named, why="write the second network with its neurons in the order of the first")
    yield asked.on("equal", f, g, why="do they compute the same function?")


def _canonical(asked: Asked) -> Iterator[Step]:
    if "--output" not in asked.options:
        yield asked.again("-o", asked.beside("form", ".json"), why="write the form with its exact weights")
    yield asked.on("fingerprint", asked.file, why="the name of the function, to compare with others")
    yield asked.on("fiber", asked.file, why="all parameters that this form stands for")


def _fingerprint(asked: Asked) -> Iterator[Step]:
    named = [row for row in rows(asked.data.get("results")) if "error" not in row]
    if whole(mapping(asked.data.get("counts")).get("unfinished")) and "--resume" in asked.options:
        yield asked.again(why="go on where it ended")
    if len(named) == 1:
        yield asked.on("canonical", path_word(named[0]["path"]), why="the normal form that has this name")
        yield asked.on("inspect", path_word(named[0]["path"]), why="what is redundant in it")
        return
    by_name: dict[str, list[str]] = {}
    for row in named:
        if not row.get("part"):
            by_name.setdefault(str(row.get("fingerprint")), []).append(path_word(row["path"]))
    same = next((files for files in by_name.values() if len(files) > 1), None)
    if same:
        why = "the proof that two of them compute the same, which others can check"
        yield asked.on("equal", *same[:2], "--certificate", "equal.certificate.json", why=why)
    alone = [files[0] for files in by_name.values()]
    if len(alone) > 1:
        yield asked.on("equal", *alone[:2], why="an input at which two of them differ, or a proof that none is")


def _fiber(asked: Asked) -> Iterator[Step]:
    yield asked.on("canonical", asked.file, why="one member that stands for all")
    yield asked.on("orbit", asked.file, why="where training can go from these parameters")
    yield asked.on("reduce", asked.file, why="a narrower network with the same function, if there is one")


_RULES: Mapping[str, Callable[[Asked], Iterable[Step]]] = {
    "inspect": _inspect,
    "reduce": _reduce,
    "check": _check,
    "equal": _equal,
    "distance": _distance,
    "align": _align,
    "canonical": _canonical,
    "fingerprint": _fingerprint,
    "fiber": _fiber,
    **nexttraining.RULES,
}
"""What follows, by the command that gave the result."""
