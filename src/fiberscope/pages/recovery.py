"""The pages of recovery: model rank, predicted samples, the ladder, the choice of a width, embeddings, branches."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fiberscope.pages.charts import Curve, Level, numbers
from fiberscope.pages.data import Data, View, listing, mapping, rows, spans, whole
from fiberscope.pages.manifolds import compact
from fiberscope.pages.markup import Child, count, el, pretty, real
from fiberscope.pages.meanfield import number
from fiberscope.pages.parts import Card, bullets, card, change, chip, mark, pairs, table, widths_text
from fiberscope.pages.plots import plot, side_by_side

_LISTED = 300
_METHODS = {
    "classes": "classes of neurons with the same derivatives", "formula": "closed form",
    "lattice": "factors of the weights", "residues": "derivatives at random inputs, modulo a prime",
    "svd": "singular values at random inputs",
}  # fmt: skip
_TITLES = {
    "recover": "Recovery", "strata": "Branches of exact fits", "diagonal": "Diagonal network",
    "phase-diagram": "Phase diagram", "condensation": "Condensation", "rank": "Model rank",
    "predict-recovery": "Samples for recovery", "embed": "Embedding", "select-width": "Choice of a width",
}  # fmt: skip
KINDS = frozenset(_TITLES)
"""Kinds of results whose pages are made here and in `phases`, `condensing` and `staircases`."""


def name_of(data: Data, kind: str) -> str | None:
    """What a result is about where its files do not tell; None where the files do."""
    files = [row for row in rows(data.get("inputs")) if row.get("path")]
    if files and len(files) < 4:
        return None
    if files:
        return f"{_TITLES[kind]}: {count(len(files))} networks"
    sizes = {
        "n": whole(data.get("points")) or whole(data.get("samples")), "d": whole(data.get("features")),
        "m": whole(data.get("width")) if kind == "strata" else 0, "m₀": whole(data.get("target_width")),
    }  # fmt: skip
    words = ", ".join(f"{key} = {count(value)}" for key, value in sizes.items() if value)
    return f"{_TITLES[kind]}: {words}" if words else _TITLES[kind]


def cut_short(data: Data, what: str = "the budget was spent before the end") -> Iterable[Data]:
    """A tile for a result that is not complete."""
    if data.get("complete") is False:
        yield {"title": "not complete", "text": str(data.get("reason") or what), "look": "open"}


def hypotheses(view: View) -> Card | None:
    """What the conclusion rests on."""
    if view.kind not in KINDS:
        return None
    found = [*rows(view.data.get("assumptions")), *rows(mapping(view.data.get("selection")).get("assumptions"))]
    items: list[Child] = [
        [mark(row.get("holds") if row.get("checked", True) else None), " ", pretty(row.get("statement") or "")]
        for row in found
    ]
    lead = "The statements on this page hold if these do."
    return card("Assumed", bullets(items, "checks"), lead=lead, anchor=view.anchor("assumed")) if items else None


def notes(view: View) -> Card | None:
    """What a reader should know."""
    if view.kind not in KINDS:
        return None
    found = [str(text) for key in ("notes", "failed") for text in listing(view.data.get(key))]
    found += [text] if isinstance(text := view.data.get("note"), str) and text else []
    told = [pretty(text[:1].upper() + text[1:]) for text in found if text]
    return card("Notes", bullets(told), anchor=view.anchor("notes")) if told else None


# ---- model rank


def rank_tiles(data: Data) -> Iterable[Data]:
    """The rank and how it was found."""
    rank, parameters = data.get("rank"), data.get("parameters")
    if isinstance(rank, int) and isinstance(parameters, int):
        yield {"title": f"{count(rank)} of {count(parameters)}", "rigor": data.get("rigor"),
               "text": "model rank: directions of parameters that change the function"}  # fmt: skip
        if rank < parameters:
            yield {"title": count(parameters - rank), "text": "directions that do not change it, to first order"}
    if isinstance(data.get("class_count"), int):
        yield {"title": count(data["class_count"]), "text": "different live neurons"}
    if data.get("clear") is False:
        yield {"title": "doubtful", "text": "the singular values have no clear gap", "look": "open"}


def rank_card(view: View) -> Card | None:
    """How the rank comes about."""
    if view.kind != "rank":
        return None
    data = view.data
    facts: list[tuple[str, Child]] = []
    if isinstance(method := data.get("method"), str):
        facts.append(("found by", [_METHODS.get(method, method), " ", chip(data.get("rigor"))]))
    if isinstance(formula := data.get("formula"), str) and formula:
        facts.append(("comes from", pretty(formula)))
    gap = numbers(data.get("gap"))
    if len(gap) == 2 and None not in gap:
        facts.append(("singular values", f"smallest kept {real(gap[0], 2)}, largest dropped {real(gap[1], 2)}"))
    quiet = [q for q in listing(data.get("quiet")) if isinstance(q, int)]
    if quiet:
        facts.append(("neurons without inputs", ", ".join(spans(quiet))))
    sizes = [whole(s) for s in listing(data.get("class_sizes"))]
    many = [s for s in sizes if s > 1]
    if many:
        alone = len(sizes) - len(many)
        listed = ", ".join(map(count, many[:12])) + (", …" if len(many) > 12 else "")
        facts.append(("sizes of classes", listed + (f", and {count(alone)} alone" if alone else "")))
    lead = (
        "The dimension of the span of all parameter derivatives of the network function. "
        "So many generic data determine the problem linearised at this parameter."
    )
    return card("Model rank", pairs(facts), lead=lead, anchor=view.anchor("rank")) if facts else None


# ---- predicted samples


def predict_tiles(data: Data) -> Iterable[Data]:
    """From how many samples interpolation means recovery."""
    kind = str(data.get("optimistic_kind") or "")
    if isinstance(data.get("samples"), int):
        yield {"title": f"n ≥ {count(data['samples'])}", "rigor": data.get("rigor"),
               "text": "zero loss on the smallest manifold is a criterion of recovery"}  # fmt: skip
    elif isinstance(data.get("smallest"), int):
        yield {"title": "no criterion", "text": "zero loss on the smallest manifold says nothing here", "look": "open"}
    elif "samples" in data:
        yield {"title": "too narrow", "text": "no manifold is known to hold the target", "look": "open"}
    if isinstance(data.get("optimistic"), int):
        sign = "" if kind == "exact" else "≤ "
        yield {"title": f"{sign}{count(data['optimistic'])}", "text": f"optimistic sample size ({kind or 'local'})"}
    if isinstance(data.get("unconstrained"), int):
        yield {"title": f"n ≥ {count(data['unconstrained'])}", "text": "the same criterion with all parameters"}


def predict_card(view: View) -> Card | None:
    """Every manifold that holds the target, with the samples that it needs."""
    if view.kind != "predict-recovery":
        return None
    data = view.data
    found = [row for row in rows(data.get("rows")) if isinstance(row.get("dimension"), int)]
    body = [
        [widths_text(listing(row.get("widths"))), count(row["dimension"]), [mark(row.get("contains"))],
         real(row.get("samples")), _STATUS.get(str(row.get("status")), str(row.get("status"))),
         compact(whole(row.get("count"))) if isinstance(row.get("count"), int) else "–"]
        for row in found[:_LISTED]
    ]  # fmt: skip
    held = [r for r in found if len(listing(r.get("widths"))) == 1 and isinstance(r.get("samples"), int)]
    held = sorted((r for r in held if number(r["widths"][0]) is not None), key=lambda r: float(r["widths"][0]))
    levels = []
    if (least := number(data.get("optimistic"))) is not None:
        levels.append(Level(f"optimistic sample size {real(least)}", least))
    chart = plot("Samples from which zero loss is a criterion", [number(r["widths"][0]) for r in held],
                 [Curve("n", [number(r.get("samples")) for r in held])], across="classes of neurons", name="samples",
                 levels=levels) if len(held) > 1 else None  # fmt: skip
    heads = ["width", "dimension", "holds the target", "from n", "status", "manifolds"]
    rows_ = table("Manifolds by width", heads, body, numeric=(1, 3, 5)) if body else None
    facts: list[tuple[str, Child]] = [
        (name, widths_text(value)) for key, name in _WIDTHS.items() if (value := listing(data.get(key)))
    ]
    lead = "Invariant manifolds of the wider network by the number of classes of neurons that move together."
    return card("Samples by manifold", pairs(facts) if facts else None, chart, rows_, lead=lead,
                anchor=view.anchor("samples")) if chart or rows_ else None  # fmt: skip


_WIDTHS = {"widths": "widths to be trained", "needed": "widths that the target needs"}
_STATUS = {
    "theorem": "theorem", "no criterion": "no criterion", "unconstrained": "all parameters", "no": "–",
    "not found": "not found",
}  # fmt: skip


# ---- the ladder


def recover_tiles(data: Data) -> Iterable[Data]:
    """Whether data are explained, and whether that means recovery."""
    width, points, found = data.get("width"), data.get("points"), rows(data.get("rungs"))
    if isinstance(width, int):
        met = data.get("criterion") is True
        text = "zero loss, but a hypothesis of the criterion fails: this explains nothing"
        if met:
            text = "zero loss, and more points than dimensions: recovery, if what is assumed holds"
        yield {"title": "criterion met" if met else "criterion not met", "text": text, "rigor": data.get("rigor"),
               "look": "yes" if met else "open"}  # fmt: skip
        yield {"title": f"width {count(width)}", "text": "is the narrowest tried that explains the data exactly"}
    elif found:
        yield {"title": "none", "text": "of the widths tried explains the data exactly", "look": "open"}
    own = next((r for r in found if r.get("width") == width), None)
    if own is not None and isinstance(own.get("dimension"), int) and isinstance(points, int):
        sign = ">" if own.get("exceeds") is True else "≤"
        yield {"title": f"{count(points)} {sign} {count(own['dimension'])}", "text": "points against dimensions"}
    chosen = mapping(data.get("selection"))
    if isinstance(chosen.get("width"), int):
        yield {"title": f"width {count(chosen['width'])}", "rigor": chosen.get("rigor"),
               "text": f"preferred by {_criterion(chosen)}; a preference, not an explanation"}  # fmt: skip
    yield from cut_short(data)


def select_tiles(data: Data) -> Iterable[Data]:
    """The width that a criterion prefers."""
    if isinstance(data.get("width"), int):
        yield {"title": f"width {count(data['width'])}", "rigor": data.get("rigor"),
               "text": f"preferred by {_criterion(data)}; a preference, not an explanation"}  # fmt: skip
    yield from cut_short(data)


def _criterion(data: Data) -> str:
    name = str(data.get("criterion") or "")
    return {"held-out": "held-out error", "bic": "the Bayesian information criterion"}.get(name, name)


def ladder(view: View) -> Card | None:
    """The rungs: loss and dimension against the number of points, and every number."""
    if view.kind != "recover":
        return None
    data = view.data
    found = sorted((r for r in rows(data.get("rungs")) if number(r.get("width")) is not None), key=lambda r: r["width"])
    if not found:
        return None
    places = [number(r["width"]) for r in found]
    floor, points = number(data.get("floor")), number(data.get("points"))
    ends = [("best", "best", "l0"), ("flow_best", "gradient flow", "l1"), ("search_best", "search", "l2")]
    tried = [Curve(name, [number(r.get(key)) for r in found], look) for key, name, look in ends]
    levels = [] if not floor else [Level("interpolates below this line", floor)]
    seen = [v for c in tried for v in [*c.values, floor] if v is not None and v > 1e-200]
    lowest = 10.0 ** (math.floor(math.log10(min(seen))) - 1) if seen else None  # where a loss of zero is drawn
    losses = plot("Least training loss", places, tried, across="width", name="loss", levels=levels, log=True,
                  floor=lowest)  # fmt: skip
    sizes = plot("Dimension of the manifold", places, [Curve("dimension", [number(r.get("dimension")) for r in found])],
                 across="width", levels=[] if points is None else [Level(f"{real(points)} points", points)],
                 note="· recovery needs a rung below the line")  # fmt: skip
    figures = side_by_side(losses, sizes)
    heads = ["width", "dimension", "more points", "best loss", "interpolates", "found by", "flows", "search", "rank",
             "runs differ by", "verdict"]  # fmt: skip
    body = [_rung(r) for r in found]
    made = table("Rungs", heads, body, numeric=(0, 1, 3, 6, 7, 8, 9))
    facts: list[tuple[str, Child]] = [
        (name, real(data[key]) if not isinstance(data[key], str) else data[key])
        for key, name in _LADDER.items() if isinstance(data.get(key), int | float | str)
    ]  # fmt: skip
    for key, name in (("widths", "network found"), ("embedded_widths", "the same in the wide network")):
        if value := listing(data.get(key)):
            facts.append((name, widths_text(value)))
    lead = (
        "Each rung is an invariant manifold on which a wide network trains like one of that width. "
        "The criterion asks for zero loss and for more different points than dimensions; it is no certificate."
    )
    return card("The ladder", figures, made, pairs(facts), lead=lead, wide=True, anchor=view.anchor("ladder"))


_LADDER = {"points": "points", "targets": "targets", "activation": "activation", "floor": "interpolating loss"}


def _rung(row: Data) -> list[Child]:
    got, exceeds = row.get("found_by") is not None, row.get("exceeds") is True
    verdict = ("criterion met" if exceeds else "fits anything") if got else "does not fit"
    verdict += "" if row.get("complete", True) is not False else " (budget spent)"
    flows = f"{real(row.get('flow_interpolating'))} of {real(row.get('flows'))}"
    starts = f"{real(row.get('search_interpolating'))} ({real(row['starts'])} starts)" if row.get("starts") else "–"
    rank = real(row.get("rank"))
    return [real(row.get("width")), real(row.get("dimension")), [mark(exceeds)], real(row.get("best"), 3),
            [mark(got)], str(row.get("found_by") or "–"), flows, starts, rank, real(row.get("agreement"), 2),
            el("span", verdict, class_="num")]  # fmt: skip


def selection(view: View) -> Card | None:
    """The widths for noisy data by their scores."""
    data = mapping(view.data.get("selection")) if view.kind == "recover" else view.data
    if view.kind not in ("recover", "select-width") or not rows(data.get("scores")):
        return None
    found = sorted((r for r in rows(data["scores"]) if number(r.get("width")) is not None), key=lambda r: r["width"])
    places = [number(r["width"]) for r in found]
    curves = [Curve("held-out error", [number(r.get("held_out")) for r in found]),
              Curve("training error", [number(r.get("train")) for r in found], "l1")]  # fmt: skip
    chart = plot("Mean squared errors", places, curves, across="width", name="error", log=True)
    body = [
        [real(r["width"]), [mark(True)] if r["width"] == data.get("width") else None,
         real(r.get("dimension")), real(r.get("train"), 3), real(r.get("held_out"), 3),
         real(r.get("standard_error"), 2), real(number(r.get("bic")), 5)]
        for r in found
    ]  # fmt: skip
    heads = ["width", "chosen", "parameters", "training error", "held-out error", "standard error", "BIC"]
    folds = whole(data.get("folds"))
    lead = f"Chosen by {_criterion(data)}" + (f", {count(folds)} folds" if folds else "") + "; nothing is recovered."
    return card("Widths for noisy data", chart, table("Scores", heads, body, numeric=range(2, 7)), lead=lead,
                anchor=view.anchor("selection"))  # fmt: skip


# ---- embeddings


def embed_tiles(data: Data) -> Iterable[Data]:
    """What grew, and what did not change."""
    old, new = listing(data.get("original_widths")), listing(data.get("widths"))
    if old and new:
        yield {"title": f"{widths_text(old)} → {widths_text(new)}", "rigor": data.get("rigor"),
               "text": f"{data.get('kind') or 'an'} embedding with the same function"}  # fmt: skip
    before, after = data.get("original_parameters"), data.get("parameters")
    if isinstance(before, int) and isinstance(after, int):
        yield {"title": change(before, after), "text": "parameters"}
    if isinstance(data.get("degrees_of_freedom"), int):
        yield {"title": count(data["degrees_of_freedom"]), "text": "dimensions, at least, of such embeddings here"}
    if isinstance(data.get("sim_dimension"), int):
        yield {"title": count(data["sim_dimension"]), "text": "dimensions of the manifold that training stays on"}


def embedding(view: View) -> Card | None:
    """What holds, and where every neuron of the wide network comes from."""
    if view.kind != "embed":
        return None
    data = view.data
    said = [pretty(part) for part in str(data.get("statement") or "").split(". ") if part]
    said = [part if part.endswith(".") else f"{part}." for part in said]
    tables: list[Child] = []
    for k, layer in enumerate(rows(data.get("layers"))):
        labels, factors, shares = (listing(layer.get(key)) for key in ("labels", "factors", "shares"))
        body = [
            [count(i), count(label) if isinstance(label, int) and label >= 0 else "silent",
             _at(factors, i), _at(shares, i)]
            for i, label in enumerate(labels[:_LISTED])
        ]  # fmt: skip
        if body:
            heads = ["neuron", "copy of", "incoming weights times", "outgoing weights times"]
            name = view.layer_name(k)
            tables += [el("h4", name), table(f"Neurons of {name}", heads, body, numeric=range(4), tools=True)]
        if len(labels) > len(body):
            tables.append(el("p", f"{count(len(labels) - len(body))} more; --json has all of them.", class_="small"))
    if not (said or tables):
        return None
    return card("The embedding", bullets(said) if said else None, tables, anchor=view.anchor("embedding"))


def _at(values: list[object], place: int) -> str:
    return str(values[place]).replace("-", "−") if place < len(values) else "–"


# ---- branches of exact fits


def strata_tiles(data: Data) -> Iterable[Data]:
    """How many branches there are, and when they are stable."""
    if isinstance(data.get("branches"), int):
        yield {"title": compact(data["branches"]), "text": "affine branches of exact fits", "rigor": data.get("rigor")}
    if isinstance(data.get("least_threshold"), int):
        yield {"title": count(data["least_threshold"]), "text": "samples separate the most stable branches"}
    if isinstance(data.get("full_threshold"), int):
        yield {"title": f"n > {count(data['full_threshold'])}", "text": "all branches are stable"}
    if data.get("applies") is False:
        yield {"title": "not proved here", "look": "no",
               "text": f"the hypothesis on the activation fails for {data.get('activation') or 'it'}"}  # fmt: skip


def strata_card(view: View) -> Card | None:
    """Every kind of branch."""
    if view.kind != "strata":
        return None
    data = view.data
    found = rows(data.get("rows"))
    if not found:
        return None
    null = any(whole(r.get("null")) for r in found)
    keys = ["r", *["null"] * null, "count", "dimension", "codimension", "threshold", "least_deficiency", "morse_bott"]
    heads = [_STRATA[k] for k in keys]
    body = [[compact(v) if isinstance(v := r.get(k), int) else real(v) for k in keys] for r in found[:_LISTED]]
    facts: list[tuple[str, Child]] = [
        (name, real(data[key])) for key, name in _SIZES.items() if isinstance(data.get(key), int)
    ]
    facts += [("activation", str(data["activation"]))] if data.get("activation") else []
    if isinstance(data.get("signs"), bool):
        facts.append(("w and −w count as equal", [mark(data["signs"])]))
    lead = (
        "From the samples of a row on, almost all data separate its branches from other exact fits of the data; "
        "a local statement."
    )
    made = table("Branches by number of classes", heads, body, numeric=range(len(heads)), tools=True)
    return card("Branches", pairs(facts), made, lead=lead, wide=True, anchor=view.anchor("branches"))


_STRATA = {
    "r": "classes", "null": "null neurons", "count": "branches", "dimension": "dimension",
    "codimension": "codimension", "threshold": "samples", "least_deficiency": "neurons alone, least",
    "morse_bott": "Morse–Bott",
}  # fmt: skip
_SIZES = {"width": "neurons", "target_width": "neurons of the target", "input_dimension": "inputs of a neuron"}
