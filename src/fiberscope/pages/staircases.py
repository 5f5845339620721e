"""The page of a diagonal network: the stages of the limit, and the flow from finite starts against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fiberscope.pages.charts import Curve, Number, numbers
from fiberscope.pages.data import Data, View, listing, mapping, rows, whole
from fiberscope.pages.markup import Child, Markup, count, el, pretty, real
from fiberscope.pages.meanfield import number
from fiberscope.pages.parts import Card, card, mark, pairs, table
from fiberscope.pages.plots import plot, side_by_side

_LOOKS = ("l0", "l1", "l2", "l3", "l4", "l5")
_SEVERAL = " (one of several minimisers)"
_FLOWS = 4  # charts of flows on a page


def value(found: object) -> Number:
    """The float of a number or of an exact one."""
    return number(mapping(found).get("float")) if isinstance(found, dict) else number(found)


def diagonal_tiles(data: Data) -> Iterable[Data]:
    """Where the limit ends, and whether two ways to find it agree."""
    stages, other = rows(data.get("stages")), mapping(data.get("comparison"))
    if "norm" in data and value(data["norm"]) is not None:
        yield {"title": real(data["norm"]), "text": "weighted l1 norm of the limit", "rigor": data.get("rigor")}
    if stages:
        fitting = _fitting(data, stages)
        size = len(listing(fitting[-1].get("support")))
        more = f"; {count(len(stages) - len(fitting))} more fit rounding" if len(fitting) < len(stages) else ""
        yield {"title": count(len(fitting)), "text": f"stages; {count(size)} coordinates are not 0 at the end{more}"
               + ("" if stages[-1].get("unique") is not False else " of one of several minimisers")}  # fmt: skip
    if isinstance(other.get("agrees"), bool):
        agrees = other["agrees"]
        yield {"title": "agrees" if agrees else "disagrees", "look": "yes" if agrees else "no",
               "text": "the linear program for the least weighted l1 norm"}  # fmt: skip
    if data.get("unique") is False:
        yield {"title": "not unique", "text": "some stage determines the predictions only", "look": "open"}
    worst = _largest(rows(data.get("flows")))
    if worst is not None:
        yield {"title": real(worst[0], 2), "rigor": "NUMERICAL",
               "text": f"largest relative error of a predicted time, start {worst[1]}"}  # fmt: skip
    if data.get("finished") is False:
        yield {"title": "not complete", "text": "the budget ended before the last stage", "look": "open"}


def _largest(flows: Sequence[Data]) -> tuple[float, str] | None:
    """The worst prediction of the flow from the smallest start."""
    for flow in sorted(flows, key=lambda f: -(number(f.get("log_scale")) or 0.0)):
        pairs_ = zip(numbers(flow.get("drops")), numbers(flow.get("predicted")), strict=False)
        found = [abs(a - b) / b for a, b in pairs_ if a is not None and b is not None and b > 0]
        if found:
            return max(found), str(flow.get("scale"))
    return None


def staircase(view: View) -> Card | None:
    """The stages of the limit: when, which coordinate, which loss."""
    if view.kind != "diagonal":
        return None
    data = view.data
    stages = [s for s in rows(data.get("stages")) if value(s.get("time")) is not None]
    if not stages:
        return None
    drawn = _fitting(data, stages)
    times: list[Number] = [0.0, *(value(s["time"]) for s in drawn)]
    losses = [value(data.get("start_loss")), *(value(s.get("loss")) for s in drawn)]
    if len(drawn) < len(stages):  # the last loss goes on for a while, as it does in the flow
        times, losses = [*times, 1.25 * (times[-1] or 0.0)], [*losses, losses[-1]]
    across = _time(data)
    charts = [plot("Loss of the limit", times, [Curve("loss", losses)], across=across, name="loss", steps=("l0",),
                   ends=False), _coordinates(drawn, times, across)]  # fmt: skip
    body = [["0", "0", "–", "–", "none", real(data.get("start_loss"))]] if "start_loss" in data else []
    body += [
        [count(k), real(s["time"]), real(s.get("duration")), _grown(s),
         _names(s.get("support")) + (_SEVERAL if s.get("unique") is False else ""), real(s.get("loss"))]
        for k, s in enumerate(stages, start=1)
    ]  # fmt: skip
    if len(drawn) < len(stages):
        for row in body[-(len(stages) - len(drawn)) :]:
            row[0] += " ~"
    heads = ["stage", "time", "wait", "grows", "not 0 afterwards", "loss afterwards"]
    several = any(s.get("unique") is False for s in stages)
    made = table("Stages", heads, body, numeric=(0, 1, 2, 5))
    lead = (
        "From an infinitesimal start s the flow jumps from saddle to saddle. Time is in units of "
        f"{pretty(data.get('unit') or 'log(1/s)')}."
    ) + (
        " In some stage only X k and the loss are determined: k and what is not 0 are there those of one of several "
        "minimisers, and the flow may go to another." if several else ""
    )  # fmt: skip
    said = (
        f"~ After stage {count(len(drawn))} only rounding of the data is left: these stages fit it, flows end before "
        "them, and the charts leave them out."
    )
    note = el("p", said, class_="small") if len(drawn) < len(stages) else None
    return card("The staircase", side_by_side(*charts), made, note, lead=lead, wide=True, anchor=view.anchor("stages"))


def _fitting(data: Data, stages: Sequence[Data]) -> Sequence[Data]:
    """The stages that fit the data, without those at the end that only fit its rounding."""
    last = data.get("fitted_after")
    return stages[:last] if isinstance(last, int) and 0 < last < len(stages) else stages


def _time(data: Data) -> str:
    return f"time / {pretty(data.get('unit'))}" if isinstance(data.get("unit"), str) else "time"


def _coordinates(stages: Sequence[Data], times: Sequence[Number], across: str) -> Markup | None:
    """The largest coordinates by stage."""
    ks = [[value(v) for v in listing(s.get("k"))] for s in stages]
    ks += ks[-1:] * (len(times) - 1 - len(ks))
    if not ks[0] or any(len(k) != len(ks[0]) for k in ks):
        return None
    sizes = [max(abs(k[i] or 0.0) for k in ks) for i in range(len(ks[0]))]
    order = sorted(sorted(range(len(sizes)), key=lambda i: -sizes[i])[: len(_LOOKS)])
    curves = [
        Curve(f"k{_lowered(i + 1)}", [0.0, *(k[i] for k in ks)], look)
        for i, look in zip((i for i in order if sizes[i] > 0), _LOOKS, strict=False)
    ]
    some = f"· the {len(_LOOKS)} largest" if sum(s > 0 for s in sizes) > len(_LOOKS) else None
    return plot("Coordinates of the limit", times, curves, across=across, name="k", steps=_LOOKS, ends=False, note=some)


def _lowered(number_: int) -> str:
    return str(number_).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _grown(stage: Data) -> str:
    found = [v for v in listing(stage.get("reached")) if isinstance(v, int) and v]
    words = [f"k{_lowered(abs(v))}\u00a0{'>' if v > 0 else '<'}\u00a00" for v in found]
    return ", ".join(words[:6]) + (", …" if len(words) > 6 else "") or "–"


def _names(value_: object) -> str:
    found = [v for v in listing(value_) if isinstance(v, int)]
    words = [f"k{_lowered(v + 1)}" for v in found]
    return ", ".join(words[:16]) + (f", … ({count(len(words))})" if len(words) > 16 else "") or "none"


def diagonal_flows(view: View) -> Card | None:
    """The flow from finite starts against the limit."""
    if view.kind != "diagonal":
        return None
    data = view.data
    flows = rows(data.get("flows"))
    limit = [(value(s.get("time")), value(s.get("loss"))) for s in rows(data.get("stages"))]
    steps = [(t, v) for t, v in limit if t is not None and v is not None]
    across, start = _time(data), value(data.get("start_loss"))
    charts = []
    for flow in flows[:_FLOWS]:
        times, losses = numbers(flow.get("times")), numbers(flow.get("losses"))
        curves = [Curve(f"flow from s = {flow.get('scale')}", losses)]
        if start is not None:
            curves.append(Curve("limit", [_stair(steps, start, t) for t in times], "l1"))
        charts.append(plot(f"Loss from s = {flow.get('scale')}", times, curves, across=across, name="loss",
                           steps=("l1",), ends=False))  # fmt: skip
    made = side_by_side(*charts)
    body = [
        [str(flow.get("scale")), count(k), real(b), real(a), real(None if not (a and b) else a / b - 1, 2), real(w, 2)]
        for flow in flows[:_FLOWS]
        for k, (a, b, w) in enumerate(zip(*(numbers(flow.get(key)) for key in ("drops", "predicted", "spread")),
                                          strict=False), start=1)
    ]  # fmt: skip
    heads = ["start s", "stage", "predicted", "drop of the flow", "relative error", "spread"]
    rows_ = table("Drops against prediction", heads, body[:300], numeric=range(1, 6)) if body else None
    if not (made or rows_):
        return None
    ends: list[tuple[str, Child]] = [
        (f"loss at the end, s = {flow.get('scale')}", real(number(flow.get("final_loss")), 3)) for flow in flows[:8]
    ]
    more = (
        el("p", f"The first {_FLOWS} of {count(len(flows))} starts.", class_="small") if len(flows) > _FLOWS else None
    )
    lead = "Integrated from finite starts; the smaller the start, the nearer to the limit."
    return card("The flow against the limit", made, rows_, pairs(ends), more, lead=lead, wide=True,
                anchor=view.anchor("flows"))  # fmt: skip


def _stair(steps: Sequence[tuple[float, float]], start: float, time: Number) -> Number:
    """The loss of the limit at a time: that of the last stage before it."""
    return None if time is None else next((v for t, v in reversed(steps) if t <= time), start)


def diagonal_end(view: View) -> Card | None:
    """The limit and the linear program, coordinate by coordinate."""
    if view.kind != "diagonal":
        return None
    data = view.data
    own, growth = listing(data.get("k")), mapping(data.get("growth"))
    other = mapping(data.get("comparison"))
    plus, minus, linear = listing(growth.get("plus")), listing(growth.get("minus")), listing(other.get("k"))
    body = [
        [f"k{_lowered(i + 1)}", real(k), real(_get(linear, i)), real(_get(plus, i)), real(_get(minus, i))]
        for i, k in enumerate(own)
    ]
    if not body:
        return None
    facts: list[tuple[str, Child]] = [
        (name, real(data[key])) for key, name in _DIAGONAL.items() if isinstance(data.get(key), int | float)
    ]
    if value(other.get("value")) is not None:
        facts.append(("least weighted l1 norm", real(other["value"])))
    if isinstance(other.get("unique"), bool):
        facts.append(("its minimiser is unique", [mark(other["unique"])]))
    if isinstance(growth.get("method"), str):
        facts.append(("growth times", str(growth["method"])))
    heads = ["", "limit", "linear program", "growth time +", "growth time −"]
    made = table("Coordinates", heads, body, numeric=range(1, 5), tools=len(body) > 8)
    cut = whole(data.get("features")) - len(body)
    more = el("p", f"{count(cut)} more coordinates.", class_="small") if cut > 0 else None
    lead = "Among the best fits the limit has the least weighted l1 norm; the weights are the growth times."
    return card("Where it ends", pairs(facts), made, more, lead=lead, anchor=view.anchor("end"))


_DIAGONAL = {
    "samples": "samples",
    "features": "features",
    "depth": "factors L",
    "margin": "least relative gap of a wait",
}


def _get(values: Sequence[object], place: int) -> object:
    return values[place] if place < len(values) else None
