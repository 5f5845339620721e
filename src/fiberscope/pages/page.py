"""The page around the parts: head with its content policy, header, index, one section per result, raw data."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from fiberscope._version import __version__
from fiberscope.pages import (
    answers,
    classparts,
    comparison,
    condensing,
    dynamics,
    fiberparts,
    forms,
    meanfield,
    meanfieldneurons,
    meanfieldparts,
    orbits,
    phases,
    proofs,
    recovery,
    sections,
    simparts,
    staircases,
    starts,
    tour,
    traces,
)
from fiberscope.pages.data import Data, View, listing, mapping, view_of, whole
from fiberscope.pages.figures import share_bar
from fiberscope.pages.markup import Child, Markup, count, el, plain, real
from fiberscope.pages.parts import Card, chip, table
from fiberscope.results import Rigor

_RAW = 70_000  # characters of raw data on a page, shared by its results
_LONG = 48  # entries of a list shown when the raw data is shortened


@functools.cache
def _asset(name: str) -> str:
    return resources.files("fiberscope.pages").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def document(
    found: Sequence[Data], title: str | None, *, live: bool = False, chapters: Sequence[tour.Chapter] = ()
) -> str:
    """The document for the data of several results; a live one listens to the server that sent it.

    Chapters, if there are any, hold the results in their order: one for each of their commands.
    """
    views = [_view(data, k + 1) for k, data in enumerate(found)]
    body = el(
        "body", el("a", "Skip to the results", href="#results", class_="skip"), _top(views, title),
        _status() if live else None, _main(views, chapters),
        el("footer", f"fiberscope {__version__} · every number on this page was computed in the run it reports"),
    )  # fmt: skip
    timed = live or any(f'class="{look}"' in body for look in ("charted", "film", "heat", "heat drawn"))
    style, script = (_asset(f"page.{kind}") + (_asset(f"charts.{kind}") if timed else "") for kind in ("css", "js"))
    script += _asset("live.js") if live else ""
    style += _asset("tour.css") if chapters else ""
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    ) + ("; connect-src 'self'" if live else "")
    name = title or (views[0].name if len(views) == 1 else f"{len(views)} networks")
    head = el(
        "head", el("meta", charset="utf-8"), el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content=f"fiberscope {__version__}"),
        el("title", f"{name} · fiberscope report"), el("style", Markup(style)), el("script", Markup(script)),
    )  # fmt: skip
    return "<!doctype html>\n" + el("html", head, body, lang="en") + "\n"


def main_part(found: Sequence[Data]) -> str:
    """The part of a live document that changes with the data."""
    return _main([_view(data, k + 1) for k, data in enumerate(found)])


def _main(views: Sequence[View], chapters: Sequence[tour.Chapter] = ()) -> Markup:
    results = [_result(v, len(views), proposing=not chapters) for v in views]
    if chapters:
        return el("main", tour.contents(chapters), tour.told(chapters, results), id="results")
    return el("main", _index(views) if len(views) > 1 else None, results, id="results")


def _status() -> Markup:
    said = el("span", "connecting", role="status")
    return el("p", said, el("button", "Pause", type="button", hidden=True), id="live")


# ---- header


def _top(views: Sequence[View], title: str | None) -> Markup:
    used = [r for r in Rigor if any(_mentions([v.data, v.tiles], r.name) for v in views)]
    legend = [el("div", el("dt", chip(r.name)), el("dd", r.value)) for r in used]
    button = el("button", "Dark", type="button", id="theme", hidden=True)
    heading = el("div", el("h1", title or "fiberscope report"), el("p", "fiberscope ", __version__, class_="version"))
    line = el("p", "Every number names how it was obtained:", class_="small") if legend else None
    box = el("div", line, el("dl", legend, class_="legend"), class_="rigor") if legend else None
    return el("header", el("div", heading, button, class_="bar-top"), box, class_="top")


def _mentions(value: Any, name: str) -> bool:
    """Whether some entry `rigor` has this name."""
    if isinstance(value, list | tuple):
        return any(_mentions(v, name) for v in value)
    if not isinstance(value, dict):
        return False
    return value.get("rigor") == name or any(_mentions(v, name) for v in value.values())


def _identity(view: View) -> Markup:
    """File, hash with a button to copy it, architecture, format, domain."""
    net = view.network
    items: list[Child] = []
    if net.get("architecture"):
        items.append(el("li", el("strong", str(net["architecture"]))))
    elif view.widths:
        items.append(el("li", el("strong", "–".join(map(str, view.widths)))))
    file, chain = net.get("parameters_file"), net.get("parameters_chain")
    if isinstance(file, int):
        unlike = isinstance(chain, int) and chain != file
        items.append(
            el("li", f"{count(file)} parameters" + (f" in the file, {count(chain)} in the chain" if unlike else ""))
        )
    kinds = [str(net[k]) for k in ("format", "dtype") if net.get(k)]
    items += [el("li", " ".join(kinds))] if kinds else []
    items += [el("li", "part ", el("bdi", str(net["part"])))] if net.get("part") else []
    items += [el("li", "on ", view.domain)] if view.domain else []
    sha = str(net.get("sha256") or "")
    if sha:
        copy = el(
            "button",
            "copy",
            type="button",
            class_="copy",
            data_copy=sha,
            aria_label="Copy the full sha256",
            hidden=True,
        )
        items.append(el("li", "sha256 ", el("code", sha[:12], title=sha), copy))
    wall = view.data.get("wall_s")
    items += [el("li", f"computed in {real(float(wall), 2)} s")] if isinstance(wall, int | float) else []
    return el(
        "div",
        el("h2", el("bdi", view.name), id=view.anchor("name")),
        el("ul", items, class_="facts"),
        class_="identity",
    )


def _index(views: Sequence[View]) -> Markup:
    body = []
    for view in views:
        before, after = whole(view.reduction.get("hidden_before")), whole(view.reduction.get("hidden_after"))
        bar = share_bar(after, before, f"{count(after)} of {count(before)} hidden neurons matter") if before else None
        arch = str(view.network.get("architecture") or "–".join(map(str, view.widths)))
        numbers = [count(before), count(after)] if before else ["–", "–"]
        link = el("a", el("bdi", view.name), href=f"#result-{view.position}")
        body.append([link, arch, *numbers, el("div", bar, class_="thin")])
    heads = ["file", "architecture", "hidden neurons", "that matter", "share"]
    inner = table("Index of networks", heads, body, numeric=(2, 3), tools=len(body) > 5)
    return el("nav", el("h2", f"{len(views)} results"), inner, class_="card index", aria_label="Index of results")


# ---- one result


def _result(view: View, total: int, *, proposing: bool) -> Markup:
    """Everything about one result, and what to run next if `proposing`."""
    cards = [_other(view)] if view.kind == "other" else []
    for band in _LAYOUT:
        cards += _rows([c for part in band if (c := part(view))])
    back = el("p", el("a", "Back to the index", href="#results"), class_="back") if total > 1 else None
    first, last = answers.answer(view, proposing=proposing), answers.what_next(view) if proposing else None
    return el(
        "article", _identity(view), first, sections.tiles(answers.other_tiles(view)),
        el("div", cards, last, class_="cards"), _raw(view, _RAW // total), back,
        id=f"result-{view.position}", aria_labelledby=view.anchor("name"),
    )  # fmt: skip


_TILES = {
    "equal": comparison.equal_tiles,
    "distance": comparison.distance_tiles,
    "align": comparison.align_tiles,
    "canonical": forms.canonical_tiles,
    "fiber": fiberparts.fiber_tiles,
    "fingerprint": forms.fingerprint_tiles,
    "orbit": orbits.orbit_tiles,
    "conserved": orbits.conserved_tiles,
    "smallest-sim": classparts.sim_tiles,
    "meanfield-angle": meanfield.angle_tiles,
    "meanfield-odd": meanfieldparts.linear_tiles,
    "meanfield-linear": meanfieldparts.linear_tiles,
    "meanfield-lowdim": meanfieldparts.flow_tiles,
    "meanfield-particles": meanfieldparts.flow_tiles,
    "meanfield-reduction": meanfieldparts.reduction_tiles,
    "rank": recovery.rank_tiles,
    "predict-recovery": recovery.predict_tiles,
    "recover": recovery.recover_tiles,
    "select-width": recovery.select_tiles,
    "embed": recovery.embed_tiles,
    "strata": recovery.strata_tiles,
    "diagonal": staircases.diagonal_tiles,
    "phase-diagram": phases.phase_tiles,
    "condensation": condensing.condensation_tiles,
    "watch": traces.trace_tiles,
    "lint-init": starts.start_tiles,
    "check": proofs.check_tiles,
    "cite": proofs.cite_tiles,
}


def _view(data: Data, position: int) -> View:
    view = view_of(data, position)
    if view.kind.startswith("meanfield-"):
        view = replace(view, name=meanfield.name_of(data, view.kind))
    if view.kind == "watch":
        view = replace(view, name=traces.name_of(data) or view.name)
    if view.kind in recovery.KINDS:
        view = replace(view, name=recovery.name_of(data, view.kind) or view.name)
    made = _TILES.get(view.kind)
    return view if made is None else replace(view, tiles=tuple(made(data)))


_LAYOUT = (
    (proofs.checked, proofs.statements, proofs.bibtex),
    (comparison.certificate, comparison.enclosure, comparison.alignment, forms.form, comparison.networks,
     comparison.why, comparison.witness, forms.uniqueness, comparison.counterexample, forms.names,
     fiberparts.slice_drawing, fiberparts.dimension, fiberparts.neurons, fiberparts.equations,
     fiberparts.symmetries, fiberparts.walk),
    (orbits.orbit, orbits.methods, orbits.laws, orbits.local_laws, simparts.manifolds_card),
    (meanfield.densities, meanfieldneurons.neurons, meanfield.masses, meanfield.distances, meanfieldparts.weights,
     meanfieldparts.gap, meanfieldparts.invariants, meanfieldparts.masses, meanfield.energy, meanfieldparts.symmetry,
     meanfield.balance, meanfield.identity, meanfieldparts.reduction, meanfield.run),
    (recovery.ladder, recovery.strata_card, phases.phase_fractions, phases.phase_errors,
     staircases.staircase, staircases.diagonal_flows, condensing.condensation_matrices,
     condensing.condensation_series, condensing.condensation_levels),
    (recovery.selection, recovery.predict_card, recovery.rank_card, recovery.embedding, phases.phase_setup,
     staircases.diagonal_end, recovery.notes, recovery.hypotheses),
    (traces.warned, traces.nearness, traces.losses, traces.drift, traces.classes, traces.silence, traces.layers,
     traces.run),
    (starts.findings,),
    (starts.widths,),
    (classparts.sim_summary, classparts.sim_network, classparts.sim_levels, classparts.sim_tree),
    (sections.findings, sections.reduction, sections.network, dynamics.training, dynamics.fiber, dynamics.balance),
    (sections.layers,),
    (sections.scope, sections.small_print),
)  # fmt: skip
"""Bands of the page. A band has two columns; cards that want the full width follow it."""


def _rows(band: Sequence[Card]) -> list[Markup]:
    """The first two cards side by side, the others below them so that the columns end close together."""
    narrow = [c for c in band if not c.wide]
    best = min(
        itertools.product((0, 1), repeat=max(0, len(narrow) - 2)),
        key=lambda sides: abs(sum(c.height * (1, -1)[s] for c, s in zip(narrow, (0, 1, *sides), strict=False))),
    )
    columns: tuple[list[Markup], list[Markup]] = ([], [])
    for found, side in zip(narrow, (0, 1, *best), strict=False):
        columns[side].append(found.markup)
    stacks = [el("div", column, class_="stack") for column in columns if column]
    look = "stacks" if len(stacks) == 2 else "stacks one"
    return [el("div", stacks, class_=look)] * bool(stacks) + [c.markup for c in band if c.wide]


def _other(view: View) -> Markup:
    """A result this page has no drawing for: its plain values."""
    plain_values = [(k, v) for k, v in view.data.items() if isinstance(v, str | int | float | bool)]
    body = [[key.replace("_", " "), real(value)] for key, value in plain_values]
    return el("section", el("h3", "Values"), table("Values", ["name", "value"], body), class_="card wide")


# ---- raw data


def _raw(view: View, limit: int) -> Markup:
    text, cut = _dump(view.data), False
    if len(text) > limit:
        data = {**view.data, "frames": _shortened(view.data["frames"], 4)} if "frames" in view.data else view.data
        text, cut = _dump(_shortened(data, _LONG)), True
    if len(text) > limit:
        text = _dump(_shortened(view.data, 6))
    note = el("p", "Long lists are shortened on this page; --json prints all of it.", class_="small") if cut else None
    tools = el(
        "p", el("button", "Copy", type="button", class_="copy", data_from=view.anchor("raw"), hidden=True),
        el("button", "Download", type="button", class_="download", data_from=view.anchor("raw"),
           data_name=plain(view.name).replace("/", "_") + ".json", hidden=True), class_="buttons",
    )  # fmt: skip
    content = el("pre", text, id=view.anchor("raw"), tabindex=0)
    return el("details", el("summary", "Raw data (JSON)"), tools, note, content, class_="card raw")


def _dump(value: Any) -> str:
    return "\n".join(_lines(value, 0))


def _lines(value: Any, depth: int) -> Iterator[str]:
    """JSON with short values on one line."""
    flat = json.dumps(value, ensure_ascii=False, default=str)
    pad, inner = " " * depth, " " * (depth + 1)
    if len(flat) + depth <= 140 or not isinstance(value, dict | list | tuple) or not value:
        yield flat
        return
    keyed = isinstance(value, dict)
    items = list(value.items()) if isinstance(value, dict) else [("", v) for v in value]
    yield "{" if keyed else "["
    for n, (key, item) in enumerate(items):
        made = list(_lines(item, depth + 1))
        made[0] = inner + (f"{json.dumps(str(key), ensure_ascii=False)}: " if keyed else "") + made[0]
        made[-1] += "," if n + 1 < len(items) else ""
        yield from made
    yield pad + ("}" if keyed else "]")


def _shortened(value: Any, limit: int) -> Any:
    if isinstance(value, dict):
        return {k: _shortened(v, limit) for k, v in value.items()}
    found = listing(value)
    if not found:
        return value
    kept = [_shortened(v, limit) for v in found[:limit]]
    return kept if len(found) <= limit else [*kept, f"... and {len(found) - limit} more"]


def data_of(result: Any) -> Data:
    """The data of a result, or the mapping itself."""
    return mapping(result) or mapping(result.to_dict())
