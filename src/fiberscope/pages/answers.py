"""The first and the last thing about a result: how many neurons suffice and how that is known; what to run next."""

from __future__ import annotations

from collections.abc import Sequence

from fiberscope.pages.data import Data, View, listing, rows
from fiberscope.pages.figures import share_bar
from fiberscope.pages.markup import Child, Markup, count, el, real
from fiberscope.pages.nextsteps import following
from fiberscope.pages.parts import chip, command_line
from fiberscope.results import Rigor


def answer(view: View, *, proposing: bool = True) -> Markup | None:
    """The panel above the tiles, with the command that follows; None where nothing was said about hidden neurons."""
    before, after = (view.reduction.get(f"hidden_{when}") for when in ("before", "after"))
    if view.kind not in ("inspection", "reduction") or not (isinstance(before, int) and isinstance(after, int)):
        return None
    if not before:
        return None
    rigor = "INTERVAL" if any(r.get("rigor") == "INTERVAL" for r in rows(view.reduction.get("removed"))) else "EXACT"
    noun = "hidden neuron" if before == 1 else "hidden neurons"
    words = f"{noun} suffice" if after < before else f"{noun}: none was found to be superfluous"
    title = f"{count(after)} of {count(before)}" if after < before else count(before)
    said = el("p", el("strong", title, class_="hero"), " ", el("span", words), class_="headline")
    bar = share_bar(after, before, f"{count(after)} of {count(before)} hidden neurons suffice")
    return el(
        "section", el("div", said, bar, el("p", _why(view, before - after, rigor))),
        _first(view) if proposing else None, class_="answer", aria_label="In short",
    )  # fmt: skip


def other_tiles(view: View) -> Sequence[Data]:
    """The tiles that do not say again what the panel says."""
    if answer(view) is None:
        return view.tiles
    return [tile for tile in view.tiles if not str(tile.get("text") or "").startswith("hidden neurons")]


def _why(view: View, gone: int, rigor: str) -> list[Child]:
    """What removing the others keeps, and how that is known."""
    where = f"on {view.domain}" if view.domain else ""
    if not gone:
        return [f"No rule applies {where}. Other rules, or another domain, may find more."]
    data = view.reduction
    layers = [" + ".join(map(str, listing(data.get(f"widths_{when}"))[1:-1])) for when in ("before", "after")]
    by_layer = f" Layer by layer: {layers[0]} → {layers[1]}." if "+" in layers[0] and len(layers[0]) < 40 else ""
    near = data.get("tolerance")
    kept = f"changes no output by more than {real(near)} {where}" if near else f"keeps the function {where}"
    proof = f"{Rigor[rigor].value} "
    return [f"Removing the other {count(gone)} {kept}: {proof}", chip(rigor), ". ", by_layer.strip()]


def _first(view: View) -> Markup | None:
    """The command that follows from the answer, to be copied."""
    steps = following(view.data)[:1]
    told = [(el("p", f"Next: {step.why}", class_="small"), command_line(*step.words)) for step in steps]
    return el("div", told, class_="next") if told else None


def what_next(view: View) -> Markup | None:
    """The panel at the end: the commands that follow from this result, with its files."""
    steps = following(view.data)
    if not steps:
        return None
    lines = [
        el("li", el("p", step.why[:1].upper() + step.why[1:], class_="small"), command_line(*step.words))
        for step in steps
    ]
    anchor = view.anchor("next")
    return el(
        "section",
        el("h3", "What to run next", id=anchor),
        el("ol", lines),
        class_="card wide steps",
        aria_labelledby=anchor,
    )
