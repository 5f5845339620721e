"""The parts of the page about two networks: verdicts, certificates, counterexamples, distances, alignments."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from fiberscope.pages.data import Data, View, base_name, listing, mapping, rows, whole
from fiberscope.pages.figures import enclosure_line
from fiberscope.pages.markup import Child, Markup, count, el, outward, pretty, real
from fiberscope.pages.moves import counted, moves_table
from fiberscope.pages.parts import Card, bullets, card, chip, code, copied, pairs, table, widths_text

_ANSWERS = {
    "YES": ("the same function", "yes"),
    "NO": ("different functions", "no"),
    "UNDECIDED": ("neither proved nor refuted", "open"),
}
_BOUNDED = {
    "YES": "every output differs by less than {}, proved",
    "NO": "some output differs by {} or more",
    "UNDECIDED": "not decided whether all differ by less than {}",
}
_SHOWN = 40


def equal_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    answer = str(data.get("answer") or "")
    words, look = _ANSWERS.get(answer, ("", "open"))
    proof, against = mapping(data.get("certificate")), mapping(data.get("counterexample"))
    exact = "EXACT" if proof or against.get("exact") else "INTERVAL" if against.get("x") else None
    yield {"title": answer or "no answer", "text": words, "rigor": exact, "look": look}
    if data.get("method"):
        tried = data["method"] == "samples"
        yield {"title": "trying inputs" if tried else str(data["method"]), "text": "the method that decided"}
    if proof and "moves" in proof:
        cases = proof.get("cases")
        number, noun = (whole(cases), "case") if cases else (whole(proof.get("moves")), "move")
        size = f"{count(number)} {noun}{'' if number == 1 else 's'}"
        yield {"title": size, "text": "in the certificate, accepted by the checker", "rigor": "EXACT"}
    if against.get("difference") is not None:
        yield {"title": real(against["difference"]), "text": f"f − g at output {against.get('output')}", "rigor": exact}


def distance_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    answer, below = str(data.get("answer")), data.get("below")
    if answer in _BOUNDED:
        yield {
            "title": str(answer),
            "text": _BOUNDED[answer].format(real(below)),
            "look": _ANSWERS[answer][1],
        }
    yield {"title": _at_least(data.get("lower")), "text": "difference shown by an input", "rigor": "EXACT"}
    if data.get("upper") is not None:
        yield {
            "title": f"≤ {outward(data['upper'], up=True)}",
            "text": "on the whole domain",
            "rigor": data.get("rigor"),
        }
    if isinstance(data.get("boxes"), int):
        yield {"title": count(data["boxes"]), "text": "boxes looked at"}


def _at_least(value: Any) -> str:
    return f"≥ {outward(value, up=False)}"


def align_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    moved = sum(i != j for row in rows(data.get("moves")) for i, j in enumerate(listing(row.get("permutation"))))
    yield {"title": count(moved), "text": "neurons in another place", "rigor": data.get("rigor")}
    for name, words in (("before", "largest relative distance of a layer before"), ("after", "after")):
        values = [v for v in listing(data.get(name)) if isinstance(v, int | float)]
        if values:
            yield {"title": real(float(max(values))), "text": words, "rigor": "NUMERICAL"}


# ---- the networks


def networks(view: View) -> Card | None:
    """The files that were compared, with buttons to copy their hashes."""
    found = rows(view.data.get("inputs"))
    if view.kind not in ("equal", "check", "distance", "align", "canonical", "fiber") or not found:
        return None
    body = []
    for name, row in zip(("f", "g"), found, strict=False):
        widths = widths_text(listing(row.get("layers")))
        file = el("bdi", base_name(row.get("path")) or "in memory", title=str(row.get("path") or ""))
        body.append([name, file, widths, str(row.get("dtype") or ""), copied(str(row.get("sha256") or ""), 12)])
    heads = ["", "file", "widths", "dtype", "sha256"]
    if len(found) < 2:
        body, heads = [line[1:] for line in body], heads[1:]
    title = "The networks" if len(found) > 1 else "The network"
    return card(title, table(title, heads, body, mono=(len(heads) - 3,)), anchor=view.anchor("networks"))


# ---- equal


def certificate(view: View) -> Card | None:
    """What the certificate of a YES consists of, and how to check it."""
    proof = mapping(view.data.get("certificate"))
    if view.kind != "equal" or not proof:
        return None
    counts = mapping(proof.get("move_counts")) or counted([*rows(proof.get("steps")), *rows(proof.get("back"))])
    lead = {
        "equality": "Moves on both networks that lead to one and the same network, weight by weight.",
        "reduction": "Moves that lead from the first network to the second.",
        "cases": "A tree of cases: in each, both networks are the same affine map, or no input falls into it.",
    }.get(str(proof.get("kind")), None)
    path, files = proof.get("path"), [str(row.get("path")) for row in rows(view.data.get("inputs"))]
    if path:
        how = code(shlex.join(["fiberscope", "check", str(path), *files]), view.anchor("check"))
    else:
        how = el("p", "The certificate was not kept; --certificate FILE writes it for ", el("code", "fiberscope check"),
                 ".", class_="small")  # fmt: skip
    facts = [("cases", count(whole(proof["cases"])))] if proof.get("cases") else []
    return card("Certificate", pairs(facts) if facts else None, moves_table(counts), el("h4", "Check it yourself"), how,
                lead=lead, anchor=view.anchor("certificate"))  # fmt: skip


def counterexample(view: View) -> Card | None:
    """The input of a NO, both networks' outputs there side by side, and Python that shows it."""
    found = mapping(view.data.get("counterexample"))
    if view.kind != "equal" or not listing(found.get("x")):
        return None
    snippet = str(found.get("snippet") or "")
    shown = [el("h4", "In Python"), code(snippet, view.anchor("snippet"))] if snippet else None
    return card("Counterexample", el("h4", "Input"), _point(listing(found["x"])), el("h4", "Outputs there"),
                _outputs(found), shown, lead=_how(found), wide=True, anchor=view.anchor("counterexample"))  # fmt: skip


def _how(found: Data) -> str:
    exact = found.get("exact") is True
    hidden = listing(found.get("replay_f")) == listing(found.get("replay_g"))
    text = (
        "Both networks were evaluated at this input in rational arithmetic."
        if exact
        else "Both networks were enclosed at this input, and the enclosures are disjoint."
    )
    return text + (" The rounding of the file's own dtype hides the difference." if hidden else "")


def _point(x: list[Any]) -> Markup:
    """An input: its entries, only those other than 0 where most are 0."""
    live = [i for i, v in enumerate(x) if _number(v) != 0]
    sparse = len(live) < len(x) / 2 and len(x) > 4
    shown = (live if sparse else list(range(len(x))))[:_SHOWN]
    body = [[f"x[{i}]", _exact(x[i]), real(_number(x[i]), 9)] for i in shown]
    notes = [f"All {'other ' * bool(live)}entries of the {count(len(x))} are 0."] if sparse else []
    left = (len(live) if sparse else len(x)) - len(shown)
    notes += [f"{count(left)} more entries are in the raw data."] if left > 0 else []
    made = (
        table("Input", ["entry", "exact", "decimal"], body, numeric=(2,), mono=(0, 1), tools=len(body) > 12)
        if body
        else Markup("")
    )
    return Markup(made + (el("p", " ".join(notes), class_="small") if notes else ""))


def _number(value: Any) -> Any:
    return value.get("float") if isinstance(value, dict) else value


def _exact(value: Any) -> Child:
    """p/q, or a decimal that shows it where it is long; of an enclosure both ends."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(real(_number(v), 12) for v in value) + "]"
    text = str(value.get("exact")) if isinstance(value, dict) else str(value)
    if len(text) <= 22:
        return text.replace("-", "−")
    return el("span", "≈ ", real(_number(value), 12), title=text[:2000])


def _outputs(found: Data) -> Markup:
    f, g = listing(found.get("f")), listing(found.get("g"))
    near_f, near_g = listing(found.get("replay_f")), listing(found.get("replay_g"))
    kinds = [str(d) for d in listing(found.get("dtypes"))] or ["float", "float"]
    chosen = whole(found.get("output"), -1)
    body, keys = [], []
    for k, (a, b) in enumerate(zip(f, g, strict=False)):
        if k >= _SHOWN and k != chosen:
            continue
        name: Child = [str(k), el("span", " ← here", class_="where")] if k == chosen else str(k)
        floats = [real(v[k], 9) if k < len(v) else "–" for v in (near_f, near_g)]
        gap = _gap(a, b)
        if gap is None and k == chosen:
            gap = _number(found.get("difference"))
        body.append([name, _exact(a), _exact(b), real(gap, 6), *floats])
        keys.append("chosen" if k == chosen else None)
    heads = ["output", "f exact", "g exact", "f − g", f"f in {kinds[0]}", f"g in {kinds[-1]}"]
    if found.get("exact") is not True:
        heads[1:3] = ["f enclosed", "g enclosed"]
    made = table("Outputs of both networks", heads, body, numeric=(3, 4, 5), mono=(1, 2), keys=keys)
    left = len(f) - len(body)
    return Markup(made + el("p", f"{count(left)} more outputs are in the raw data.", class_="small")) if left else made


def _gap(a: Any, b: Any) -> float | None:
    """The difference of two outputs over the rationals: the floats beside them may agree."""
    try:
        return float(Fraction(mapping(a)["exact"]) - Fraction(mapping(b)["exact"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


def why(view: View) -> Card | None:
    """What was excluded before the search ended, or the sentence of a verdict that nothing else explains."""
    data = view.data
    if view.kind != "equal" or not data.get("reason"):
        return None
    reason = str(data["reason"])
    if data.get("answer") != "UNDECIDED":
        if listing(mapping(data.get("counterexample")).get("x")):
            return None
        return card("In one sentence", el("p", pretty(reason[:1].upper() + reason[1:]), "."), anchor=view.anchor("why"))
    more = el("p", "More time (--budget), a smaller domain (--domain), or ", el("code", "fiberscope distance"),
              " may tell more.", class_="small")  # fmt: skip
    return card("What is known", bullets([pretty(t) for t in reason.split("; ")]), more,
                lead="No proof of equality and no input with different outputs was found.",
                anchor=view.anchor("why"))  # fmt: skip


# ---- distance and alignment


def enclosure(view: View) -> Card | None:
    """The enclosure on a number line, beside the limit that was asked for."""
    data = view.data
    if view.kind != "distance":
        return None
    lower, upper, below = (_finite(data.get(key)) for key in ("lower", "upper", "below"))
    line = None if lower is None else enclosure_line(lower, upper, below)
    facts: list[tuple[str, Child]] = [
        ("at least", [outward(data.get("lower"), up=False), " ", chip("EXACT")]),
        ("at most", [outward(data.get("upper"), up=True), " ", chip(data.get("rigor"))]),
    ]
    facts += [("asked: below", real(below))] if below is not None else []
    facts += [("method", str(data["method"]))] if data.get("method") else []
    reason = el("p", pretty(data["reason"])) if data.get("reason") else None
    return card("The largest difference of any output", line, pairs(facts), reason,
                lead="The largest |f − g| over the domain lies in this interval.",
                anchor=view.anchor("distance"))  # fmt: skip


def _finite(value: Any) -> float | None:
    number = _number(value)
    return float(number) if isinstance(number, int | float) and math.isfinite(number) else None


def witness(view: View) -> Card | None:
    """The input at which the lower end is taken."""
    if view.kind != "distance":
        return None
    found = view.data.get("witness")
    x = listing(mapping(found).get("x")) or listing(found)
    if not x:
        return None
    return card("Where they differ by the lower end", _point(x), anchor=view.anchor("witness"))


def alignment(view: View) -> Card | None:
    """Layer by layer: how far apart the weights were and are, and what moved."""
    data = view.data
    if view.kind != "align":
        return None
    before, after, moves = listing(data.get("before")), listing(data.get("after")), rows(data.get("moves"))
    body = []
    for k, (old, new) in enumerate(zip(before, after, strict=False)):
        move = moves[k] if k < len(moves) else {}
        order, factors = listing(move.get("permutation")), listing(move.get("factors"))
        away = f"{sum(i != j for i, j in enumerate(order))} of {len(order)}" if order else "–"
        scaled = str(sum(_number(q) != 1 for q in factors)) if factors else "–"
        body.append([f"layer {k + 1}", real(old, 3), real(new, 3), away, scaled])
    heads = ["layer", "distance before", "after", "neurons moved", "rescaled"]
    return card("Weights of g beside those of f", table("Layers", heads, body, numeric=(1, 2, 3, 4)),
                lead="Relative distance of each layer's weights and biases. The function of g stays exactly as it was.",
                anchor=view.anchor("alignment"))  # fmt: skip
