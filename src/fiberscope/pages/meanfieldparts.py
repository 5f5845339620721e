"""The pages of linear, low-dimensional and finite-width flows, and of what a target reduces to."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

from fiberscope.pages.charts import Axis, Curve, Level, Number, axis_of, line_chart, numbers
from fiberscope.pages.data import Data, View, listing, mapping, whole
from fiberscope.pages.markup import Child, count, el, pretty, real
from fiberscope.pages.meanfield import curve, number, rounding_chart, shown, unfinished
from fiberscope.pages.parts import Card, bullets, card, chip, code, pairs

_LOOKS = ("l0", "l1", "l2", "l3", "l4", "l5")


# ---- tiles


def linear_tiles(data: Data) -> Iterable[Data]:
    """The outcome of an odd or a linear flow in a few numbers."""
    gaps = [g for g in numbers(data.get("gap")) if g is not None]
    if gaps:
        yield {
            "title": real(gaps[-1]),
            "text": "risk above the best linear map, at the end",
            "rigor": data.get("rigor"),
        }
    rate, bound, asymptotic = (number(data.get(k)) for k in ("rate", "rate_bound", "rate_asymptotic"))
    if bound is not None:
        yield {"title": real(bound), "text": "proved rate from the start: the risk falls at least like exp(−rate · t)"}
    if rate is not None:
        yield {"title": real(rate), "text": "exact rate in the end"}
    if asymptotic is not None:
        yield {"title": real(asymptotic), "text": "asymptotic rate, from the limit"}
    measured = number(data.get("rate_measured"))
    if measured is not None:
        yield {"title": real(measured), "text": "rate measured at the end of the run", "rigor": "NUMERICAL"}
    yield from unfinished(data)


def flow_tiles(data: Data) -> Iterable[Data]:
    """The outcome of a low-dimensional or finite-width flow in a few numbers."""
    risks = [e for e in numbers(data.get("energy")) if e is not None]
    if risks:
        yield {"title": f"{real(risks[0], 3)} → {real(risks[-1], 3)}", "text": "energy, first and last",
               "rigor": data.get("rigor")}  # fmt: skip
    for key, text in (("mass_plus", "mass of positive neurons"), ("mass_minus", "mass of negative neurons")):
        found = [m for m in numbers(data.get(key)) if m is not None]
        if found:
            yield {"title": real(found[-1]), "text": f"{text}, at the end"}
    for key, text in (
        ("invariance_defect", "largest invariance defect"),
        ("alignment", "alignment with H, at the end"),
    ):
        found = [v for v in numbers(data.get(key)) if v is not None]
        if found:
            yield {"title": real(max(found) if key != "alignment" else found[-1], 3), "text": text}
    yield from unfinished(data)


def reduction_tiles(data: Data) -> Iterable[Data]:
    """What the target reduces to."""
    kind = str(data.get("kind") or "")
    if kind:
        title, text = _CASES.get(kind, (kind, "case"))
        yield {"title": title, "text": text, "rigor": data.get("rigor")}
    before, after = data.get("dimension"), data.get("reduced_dimension")
    if isinstance(before, int) and isinstance(after, int):
        yield {"title": count(after),
               "text": f"{_dimensions(after)} of the dynamics; the inputs have {count(before)}"}  # fmt: skip
    if isinstance(data.get("subspace_dimension"), int):
        size = data["subspace_dimension"]
        yield {"title": count(size), "text": f"{_dimensions(size)} of H, which the target depends on"}


def _dimensions(number_: int) -> str:
    return "dimension" if number_ == 1 else "dimensions"


_CASES = {
    "linear": ("linear", "the network stays linear and follows an ordinary differential equation"),
    "angle": ("one angle", "two measures on the angle between a neuron and H"),
    "lowdim": ("a small sphere", "a measure on the unit sphere of one dimension more than H"),
    "none": ("no reduction", "no statement lowers the dimension"),
}


# ---- linear flows


def weights(view: View) -> Card | None:
    """The linear map of the network against the best one."""
    if view.kind not in ("meanfield-odd", "meanfield-linear"):
        return None
    data, times = view.data, numbers(view.data.get("times"))
    lead = "The network is the linear map w(t) at all times; w* is the best linear map."
    if view.kind == "meanfield-odd":
        limit = number(data.get("w_star_norm"))
        levels = [] if limit is None else [Level("|w*|", limit)]
        chart = line_chart("Length of w", times, [curve(data, "w_norm", "|w(t)|")], levels=levels)
        return shown("The linear map", chart, lead=lead, anchor=view.anchor("weights"))
    known = mapping(data.get("w"))
    ws, best = [numbers(w) for w in listing(known.get("values"))], numbers(data.get("w_star"))
    places = [k for k in listing(known.get("index")) if isinstance(k, int) and 0 <= k < len(times)]
    if len(ws) != len(places) or not ws or any(len(w) != len(ws[0]) for w in ws):
        return None
    times = [times[k] for k in places]
    size = len(ws[0])
    fits = len(best) == size
    order = sorted(range(size), key=lambda k: -abs((best[k] if fits else ws[-1][k]) or 0.0))[: len(_LOOKS)]
    order.sort()
    curves = [Curve(f"w{_lowered(k + 1)}", [w[k] for w in ws], look) for k, look in zip(order, _LOOKS, strict=False)]
    levels = [Level(f"w*{_lowered(k + 1)}", b, quiet=True) for k in order if fits and (b := best[k]) is not None]
    left = f"· the {len(order)} largest of {size}; dashed: w*" if len(order) < size else "· dashed: w*"
    parts = line_chart("Components of w", times, curves, levels=levels, note=left)
    norm = _norms([_minus(w, best) for w in ws]) if fits else []
    far = (
        line_chart("Distance to w*", times, [Curve("|w(t) − w*|", norm)], log=True, axis=_deep(norm)) if norm else None
    )
    return shown("The linear map", parts, far, lead=lead, anchor=view.anchor("weights"))


def _lowered(number_: int) -> str:
    return str(number_).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _minus(a: Sequence[Number], b: Sequence[Number]) -> list[Number]:
    return [None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)]


def _norms(found: Sequence[Sequence[Number]]) -> list[Number]:
    return [None if None in row else math.hypot(*(v for v in row if v is not None)) for row in found]


def _deep(values: Sequence[Number]) -> Axis | None:
    """A logarithmic axis down to rounding."""
    return axis_of(values, log=True, decades=17)


def gap(view: View) -> Card | None:
    """The risk above its infimum with the proved bound and the asymptotic slope."""
    if view.kind not in ("meanfield-odd", "meanfield-linear"):
        return None
    data, times, found = view.data, numbers(view.data.get("times")), numbers(view.data.get("gap"))
    curves = [Curve("Q(w(t)) − Q(w*)", found)]
    start = next((g for g, t in zip(found, times, strict=False) if t == 0 and g is not None), None)
    bound = number(data.get("rate_bound"))
    given = numbers(data.get("bound"))
    if len(given) == len(times):
        curves.append(Curve("proved bound", given, "bound"))
    elif start is not None and bound is not None:
        curves.append(Curve("proved bound", [_decay(start, bound, t) for t in times], "bound"))
    asymptotic = number(data.get("rate_asymptotic")) or number(data.get("rate"))
    curves += _slope(times, found, asymptotic)
    lowest = max([g for g in found if g is not None], default=1.0) * 1e-17
    end = max((t for t, g in zip(times, found, strict=False) if t is not None and g is not None and g > lowest),
              default=0.0)  # fmt: skip
    kept = sum(t is not None and t <= 2 * end for t in times)  # beyond it all curves are below the axis, or the bound
    if kept > 2:
        times, found = times[:kept], found[:kept]
        curves = [Curve(c.name, c.values[:kept], c.look) for c in curves]
    axis = axis_of([g for g in found if g is None or g > lowest], log=True, decades=17)
    chart = line_chart("Risk above the best linear map", times, curves, log=True, log_time=False, axis=axis,
                       name="Q − Q*")  # fmt: skip
    facts: list[tuple[str, Child]] = [
        (text, real(v)) for key, text in _RATES.items() if (v := number(data.get(key))) is not None
    ]
    return shown("Convergence", chart, last=pairs(facts) if facts else None, anchor=view.anchor("gap"),
                 lead="A straight line is exponential decay; the bound holds at all times.")  # fmt: skip


_RATES = {
    "rate_bound": "proved rate", "rate_asymptotic": "asymptotic rate", "rate": "exact rate in the end",
    "rate_measured": "measured rate",
}  # fmt: skip


def _decay(start: float, rate: float, time: Number) -> Number:
    return None if time is None else start * math.exp(-min(rate * time, 700.0))


def _slope(times: Sequence[Number], found: Sequence[Number], rate: Number) -> list[Curve]:
    """The asymptotic rate as a line through the last point that rounding has not reached."""
    known = [(t, g) for t, g in zip(times, found, strict=False) if t is not None and g is not None and g > 0]
    if rate is None or len(known) < 3:
        return []
    best = max(g for _, g in known)
    at, value = [(t, g) for t, g in known if g > 1e-14 * best][-1]
    line = [
        None if t is None or rate * (at - t) > 600 else value * math.exp(max(rate * (at - t), -700.0)) for t in times
    ]
    return [Curve("asymptotic slope", line, "slope")]


def invariants(view: View) -> Card | None:
    """Quantities that the linear dynamics conserve, and how far they drifted."""
    if view.kind != "meanfield-linear":
        return None
    data, times = view.data, numbers(view.data.get("times"))
    drift, values = numbers(data.get("invariant_drift")), numbers(data.get("invariants"))
    chart = None
    if drift and len(drift) == len(times):
        chart = rounding_chart("Drift of the invariants", times, [Curve("largest drift", drift)])
    facts: list[tuple[str, Child]] = []
    single = number(data.get("invariant_drift"))
    if single is not None:
        facts.append(("largest drift along the run", real(single, 2)))
    known = [v for v in values if v is not None]
    if known:
        listed = ", ".join(real(v) for v in known[:8]) + (f", … ({len(known)} in all)" if len(known) > 8 else "")
        facts.append(("eigenvalues of S J", listed))
    if not (chart or facts):
        return None
    lead = (
        "The eigenvalues of S J are constant along the dynamics: S the second moments of the neurons, J = diag(1, −I)."
    )
    return card("Invariants", chart, pairs(facts) if facts else None, lead=lead, anchor=view.anchor("invariants"))


# ---- flows on spheres


def masses(view: View) -> Card | None:
    """Masses of positive and of negative neurons."""
    if view.kind not in ("meanfield-lowdim", "meanfield-particles"):
        return None
    data, times = view.data, numbers(view.data.get("times"))
    curves = [curve(data, "mass_plus", "a > 0", "plus"), curve(data, "mass_minus", "a < 0", "minus")]
    return shown("Masses", line_chart("Masses", times, curves, name="mass", log=True), anchor=view.anchor("masses"),
                 lead="The mass of a neuron is |a| |b|, averaged over the network.")  # fmt: skip


def symmetry(view: View) -> Card | None:
    """Whether the network keeps the symmetry of the target, and whether it finds the subspace."""
    if view.kind != "meanfield-particles":
        return None
    data, times = view.data, numbers(view.data.get("times"))
    defect = [None if v is None else abs(v) for v in numbers(data.get("invariance_defect"))]
    order = whole(data.get("group_order"))
    curves = [Curve("invariance defect", defect)]
    draw = rounding_chart if order > 1 else functools.partial(line_chart, log=True)  # else nothing keeps the symmetry
    chart = draw("Invariance defect", times, curves) if defect else None
    drift = [None if v is None else abs(v) for v in numbers(data.get("balance_drift"))]
    balance = (
        rounding_chart("Drift of the balance |a|² − |b|²", times, [Curve("largest drift", drift)]) if drift else None
    )
    aligned = line_chart("Alignment with H", times, [curve(data, "alignment", "share of mass in H", "l0")],
                         levels=[Level("all in H", 1.0)], axis=axis_of([0.0, 1.0]))  # fmt: skip
    lead = f"The group has {count(order)} elements; the defect is relative." if order > 1 else None
    return shown("Symmetry", chart, aligned, balance, lead=lead, anchor=view.anchor("symmetry"))


# ---- reductions


def reduction(view: View) -> Card | None:
    """Which statements apply to the target, and what they reduce its dynamics to."""
    if view.kind != "meanfield-reduction":
        return None
    data = view.data
    said = [pretty(text) for text in listing(data.get("statements")) if isinstance(text, str)]
    flow = str(data.get("flow") or "")
    given = [f"{key}={_argument(value)}" for key, value in mapping(data.get("arguments")).items()]
    call = code(f"{flow}({', '.join([*given, 'times=...'])})", view.anchor("call")) if flow else None
    group = mapping(data.get("group"))
    facts: list[tuple[str, Child]] = []
    if data.get("parity") in (1, -1):
        facts.append(("parity", "even" if data["parity"] == 1 else "odd"))
    if isinstance(group.get("generators"), int):
        facts.append(("symmetries", [f"{count(group['generators'])} generators ", chip(group.get("rigor"))]))
    blocks = [k for k in listing(group.get("continuous")) if isinstance(k, int)]
    if blocks:
        facts.append(("rotations", ", ".join(f"O({k})" for k in blocks)))
    if not (said or flow):
        return None
    heading = el("h4", "The flow to call") if call else None
    return card("What the target reduces to", bullets(said) if said else None, pairs(facts) if facts else None, heading,
                call, lead="What training can do is confined by the symmetries of the target.",
                anchor=view.anchor("reduces"))  # fmt: skip


def _argument(value: object) -> str:
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"[... {len(value)} rows ...]"
    return real(value) if isinstance(value, float) else str(value)
