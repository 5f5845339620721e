"""The page of a watched run: how near it is to invariant manifolds, which neurons are dead, what drifts and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fiberscope.pages.charts import Curve, Level, Number
from fiberscope.pages.data import Data, View, base_name, listing, mapping, rows
from fiberscope.pages.markup import Child, Markup, count, el, pretty, real
from fiberscope.pages.meanfield import number, shown
from fiberscope.pages.parts import Card, bullets, card, pairs, table
from fiberscope.pages.plots import plot

_OWN = "fiberscope/"
_LOOKS = ("l0", "l1", "l2", "l3", "l4", "l5")
_WARNED = 12
_FLOOR = 1e-16
_ROWS = 400


def _series(data: Data, name: str) -> list[Number]:
    """A scalar at every measurement, None where it is missing."""
    return [number(mapping(row.get("scalars")).get(name)) for row in rows(data.get("records"))]


def _curve(data: Data, key: str, name: str, look: str) -> Curve:
    return Curve(name, _series(data, _OWN + key), look)


def _steps(data: Data) -> list[Number]:
    return [number(row.get("step")) for row in rows(data.get("records"))]


def _last(data: Data, key: str) -> Number:
    return next((v for v in reversed(_series(data, _OWN + key)) if v is not None), None)


def _newest(data: Data, part: str) -> object:
    """The newest measurement that has a part."""
    return next((row[part] for row in reversed(rows(data.get("records"))) if row.get(part)), None)


def trace_tiles(data: Data) -> Iterable[Data]:
    """Where the run is, and what it shows."""
    steps = [s for s in _steps(data) if s is not None]
    if steps:
        ended = "steps, ended by " + str(data["error"]) if data.get("error") else "steps; the run has ended"
        state = ended if data.get("complete") else "steps so far; not closed"
        yield {"title": count(int(steps[-1])), "text": state, "look": None if data.get("complete") else "open"}
    classes, neurons = _last(data, "sims/classes_numerical"), _last(data, "sims/neurons")
    if classes is not None and neurons is not None:
        yield {"title": f"{count(int(classes))} of {count(int(neurons))}", "rigor": "NUMERICAL",
               "text": "neurons differ numerically; those that nearly move together count once"}  # fmt: skip
    near = _last(data, "sims/nearest_relative")
    if near is not None:
        rate = _last(data, "sims/growth_exponent")
        grows = "" if rate is None else f"; it changes like exp({real(rate, 2)} step)"
        yield {"title": real(near, 3), "rigor": "NUMERICAL",
               "text": f"of a neuron's size to the nearest invariant manifold{grows}"}  # fmt: skip
    on_data, always = _last(data, "dead/on_data"), _last(data, "dead/every_input")
    if always is not None:
        seen = "not looked for on data" if on_data is None else f"{count(int(on_data))} on the data"
        yield {"title": f"{count(int(always))} dead", "text": f"neurons for every input; {seen}", "rigor": "EXACT"}
    drift, ratio = _last(data, "laws/drift"), _last(data, "laws/ratio")
    if drift is not None:
        told = "" if ratio is None else f": {real(ratio, 3)} times what the optimiser explains"
        text = f"drift of conserved quantities over their size at the start{told}"
        yield {"title": real(drift, 3), "text": text, "rigor": "NUMERICAL"}


def name_of(data: Data) -> str | None:
    """The file of the run; its path is in the card of the run."""
    return base_name(data.get("path")) or None


def warned(view: View) -> Card | None:
    """What the run says in words, problems among it."""
    if view.kind != "watch":
        return None
    parts = ("warnings", "problems", "notes")
    found = [str(v) for part in parts for v in listing(view.data.get(part))]
    if view.data.get("torn"):
        found.append("the last line of the file is torn, as after a crash; all lines before it are whole")
    told: list[Child] = [pretty(text[:1].upper() + text[1:]) for text in found[:_WARNED]]
    if len(found) > _WARNED:
        told.append(f"and {count(len(found) - _WARNED)} more")
    body = bullets(told) if told else el("p", "No warning, no problem, no note.", class_="small")
    return card("What it says", body, anchor=view.anchor("said"))


def losses(view: View) -> Card | None:
    """The numbers the training loop reported itself."""
    if view.kind != "watch":
        return None
    names = dict.fromkeys(
        str(name) for row in rows(view.data.get("records")) for name in mapping(row.get("scalars"))
        if not str(name).startswith(_OWN)
    )  # fmt: skip
    figures = []
    for name in list(names)[:4]:
        values = _series(view.data, name)
        known = [v for v in values if v is not None]
        log = bool(known) and min(known) > 0 and max(known) > 30 * min(known)
        figures.append(_over(view.data, name.rpartition("/")[2], [Curve(name, values)], log=log))
    return shown("Reported by the loop", *figures, anchor=view.anchor("losses"))


def _over(
    data: Data, title: str, curves: Sequence[Curve], *, log: bool = False, levels: Sequence[Level] = ()
) -> Markup | None:
    known = [v for curve in curves for v in curve.values if v is not None]
    least = min((v for v in known if v > 0), default=_FLOOR)
    floor = min(least / 10, _FLOOR) if log and min(known, default=1.0) <= 0 else None  # 0 is drawn at the bottom
    return plot(title, _steps(data), curves, across="step", log=log, levels=levels, ends=False, floor=floor)


def nearness(view: View) -> Card | None:
    """Distance to the nearest manifolds over the run, and which those are now."""
    if view.kind != "watch":
        return None
    data = view.data
    chart = _over(data, "Distance to the nearest manifold",
                  [_curve(data, "sims/nearest_distance", "distance", "l0"),
                   _curve(data, "sims/nearest_relative", "over the neuron's size", "l1")], log=True)  # fmt: skip
    rate = _over(data, "Growth exponent of the distance, per step",
                 [_curve(data, "sims/growth_exponent", "exponent", "l0")],
                 levels=[Level("0", 0.0, quiet=True)])  # fmt: skip
    found = rows(_newest(data, "nearest"))[:16]
    lead = (
        "Two neurons with equal weights, opposite ones behind an odd activation, or a neuron of zeros stay so under "
        "gradient flow on any data: these are the invariant manifolds nearest to the parameters. A growing distance "
        "means that the manifold repels here."
    )
    inner = [v for v in (chart, rate, _nearest_table(found) if found else None) if v]
    return card("Invariant manifolds", *inner, lead=lead, anchor=view.anchor("near")) if inner else None


_NEAR = {"merge": "equal", "flip": "opposite", "null": "all zero"}


def _nearest_table(found: Sequence[Data]) -> Child:
    body: list[list[Child]] = []
    for row in found:
        neurons = ", ".join(str(n) for n in listing(row.get("neurons")))
        rate = number(row.get("exponent"))
        body.append([
            str(row.get("population", "")), neurons, _NEAR.get(str(row.get("kind")), str(row.get("kind"))),
            real(number(row.get("distance")), 3), real(number(row.get("relative")), 3),
            "–" if rate is None else real(rate, 3),
        ])  # fmt: skip
    heads = ["layer", "neurons", "manifold", "distance", "relative", "exponent"]
    return table("Nearest manifolds now", heads, body, numeric=(3, 4, 5), tools=len(body) > 5)


def classes(view: View) -> Card | None:
    """Numbers of classes and of directions over the run."""
    if view.kind != "watch":
        return None
    data = view.data
    neurons = _last(data, "sims/neurons")
    levels = [Level(f"{count(int(neurons))} neurons", neurons)] if neurons else []
    kinds = (("exact", "equal up to rounding"), ("numerical", "numerically equal"), ("approximate", "nearly equal"))
    many = _over(data, "Classes of neurons",
                 [_curve(data, f"sims/classes_{key}", name, look)
                  for (key, name), look in zip(kinds, _LOOKS, strict=False)],
                 levels=levels)  # fmt: skip
    held = (
        ("directions", "directions"),
        ("effective_directions", "effective directions"),
        ("stable_rank", "stable rank"),
    )
    condensed = _over(data, "Directions of incoming weights",
                      [_curve(data, f"condensation/{key}", name, look)
                       for (key, name), look in zip(held, _LOOKS, strict=False)],
                      )  # fmt: skip
    lead = "Neurons of one class train like one. Fewer classes than neurons: the network trains like a narrower one."
    return shown("Condensation", many, condensed, lead=lead, anchor=view.anchor("classes"))


def silence(view: View) -> Card | None:
    """Dead neurons over the run: on the data, and for every input."""
    if view.kind != "watch":
        return None
    curves = [_curve(view.data, "dead/on_data", "on the data", "l0"),
              _curve(view.data, "dead/every_input", "for every input", "l1")]  # fmt: skip
    units = _last(view.data, "dead/units")
    # only zeros would get an axis from -1 to 1
    levels = (
        [] if units is None or any(any(c.values) for c in curves) else [Level(f"{count(int(units))} looked at", units)]
    )
    chart = _over(view.data, "Dead neurons", curves, levels=levels)
    lead = (
        "Dead on the data: no sample of the probe activates the neuron, so nothing it could learn from is there. "
        "For every input: proved from the weights."
    )
    return shown("Dead neurons", chart, lead=lead, anchor=view.anchor("dead"))


def drift(view: View) -> Card | None:
    """Drift of conserved quantities beside what the optimiser explains."""
    if view.kind != "watch":
        return None
    data = view.data
    rule = mapping(data.get("optimizer"))
    curves = [_curve(data, "laws/drift", "measured", "l0")]
    if rule:
        curves += [_curve(data, "laws/predicted_drift", "predicted for the optimiser", "l1"),
                   _curve(data, "laws/unexplained", "not explained", "l2")]  # fmt: skip
    moved = [Curve(c.name, [v or None for v in c.values], c.look) for c in curves]  # a logarithm has no place for 0
    chart = _over(data, "Relative drift of conserved quantities", moved, log=True)
    ratio = _over(data, "Measured over predicted", [_curve(data, "laws/ratio", "ratio", "l0")],
                  levels=[Level("1", 1.0, quiet=True)])  # fmt: skip
    found = rows(_newest(data, "laws"))
    facts = _constants(rule)
    keys = {"drift": "drift", "predicted": "predicted", "ratio": "ratio", "error": "error of the prediction"}
    if not rule:
        keys = {"drift": "drift"}
    body = [[pretty(row.get("name") or ""), *(real(number(row.get(k)), 3) for k in keys)] for row in found[:_ROWS]]
    rest = [
        table("Laws", ["law", *keys.values()], body, numeric=range(1, len(keys) + 1), tools=len(body) > 5)
        if body
        else None,
        [el("h4", "Optimiser at the start"), pairs(facts)] if facts else None,
    ]
    lead = (
        "Gradient flow conserves these. The drift is relative to the size of each neuron's weights at the start (or to "
        "the mean of its layer, where that is larger). Finite steps, momentum and weight decay move these quantities"
        + (", by an amount that the update rule predicts. A ratio near 1 is as it should be; where only some steps are "
           "looked at, those between are estimated." if rule else ". No optimiser is known, so nothing is predicted.")
    )  # fmt: skip
    last = el("div", rest) if any(rest) else None
    return shown("Conservation laws", chart, ratio, lead=lead, anchor=view.anchor("drift"), last=last)


_NAMES = {
    "name": "rule", "lr": "learning rate", "momentum": "momentum", "dampening": "dampening", "beta1": "beta1",
    "beta2": "beta2", "eps": "eps", "eps_root": "eps inside the root", "centred": "centred", "lookahead": "as NAdam",
    "weight_decay": "weight decay", "clip": "clipped at norm", "note": "note",
}  # fmt: skip
_OF_RULE = {
    "momentum": {"momentum", "dampening"}, "nesterov": {"momentum", "dampening"}, "sign": {"momentum"},
    "muon": {"momentum"}, "adam": {"beta1", "beta2", "eps", "eps_root", "lookahead"},
    "adamw": {"beta1", "beta2", "eps", "eps_root", "lookahead"},
    "rmsprop": {"momentum", "beta2", "eps", "eps_root", "centred"}, "adagrad": {"eps", "eps_root"},
}  # fmt: skip
"""Constants of an optimiser's rule beside those that all have."""
_OF_ALL = frozenset({"name", "lr", "weight_decay", "clip", "note"})


def _constants(rule: Data) -> list[tuple[str, Child]]:
    """The rule with the constants that it has; those of other rules are in the data too, at their defaults."""
    own = _OF_ALL | _OF_RULE.get(str(rule.get("name")), set())
    facts: list[tuple[str, Child]] = []
    for key in (key for key in _NAMES if key in own and rule.get(key)):
        value = rule[key]
        facts.append((_NAMES[key], "yes" if value is True else real(value, 4)))
    if rule.get("weight_decay"):
        facts.append(
            ("the decay", "is added to the gradient" if rule.get("coupled") else "shrinks the weights by itself")
        )
    return facts


def layers(view: View) -> Card | None:
    """The newest table of layers."""
    if view.kind != "watch":
        return None
    found = mapping(_newest(view.data, "layers"))
    names = list(dict.fromkeys(str(key) for row in found.values() for key in mapping(row)))
    if not names:
        return None
    body = [[str(name), *(_cell(mapping(row).get(key)) for key in names)] for name, row in list(found.items())[:_ROWS]]
    heads = ["layer", *(key.removeprefix("sims/").replace("/", ": ").replace("_", " ") for key in names)]
    inner = table("Layers at the last measurement", heads, body, numeric=range(1, len(heads)), tools=len(body) > 5)
    return card("Layers at the last measurement", inner, wide=True, anchor=view.anchor("layers"))


def _cell(value: object) -> Child:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if listing(value):
        return ", ".join(str(_cell(v)) for v in listing(value))
    found = number(value)
    return real(found, 4) if found is not None else "–" if value is None else str(value)


def run(view: View) -> Card | None:
    """How the run was watched."""
    if view.kind != "watch":
        return None
    data = view.data
    records = rows(data.get("records"))
    facts: list[tuple[str, Child]] = [("file", str(data["path"]))] if data.get("path") else []
    for key, name in (("measurements", "measurements"), ("every", "steps between them")):
        if isinstance(data.get(key), int) and data[key]:
            facts.append((name, count(data[key])))
    if records and (seconds := number(records[-1].get("time"))) is not None:
        facts.append(("time to the last one", f"{real(seconds, 3)} s"))
    if (share := number(data.get("overhead"))) is not None:
        facts.append(("spent on watching", f"{real(100 * share, 2)} % of the time"))
    for key, name in (("created", "begun"), ("version", "written by fiberscope")):
        if isinstance(data.get(key), str) and data[key]:
            facts.append((name, re.sub(r"T(\d\d:\d\d):\d\d(\.\d+)?\+00:00$", r" \1 UTC", str(data[key]))))
    return card("The run", pairs(facts), anchor=view.anchor("run")) if facts else None
