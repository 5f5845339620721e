"""The page of the angle dynamics: densities over time, masses against alpha, distances, energy, the mass identity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fiberscope.pages.charts import Curve, Level, Number, axis_of, line_chart, numbers
from fiberscope.pages.data import Data, View, listing, mapping, whole
from fiberscope.pages.films import Densities, density_film
from fiberscope.pages.markup import Child, Markup, count, el, real
from fiberscope.pages.parts import Card, card, chip, mark, pairs

KIND = "meanfield-angle"
ROUNDING = 2.220446049250313e-16
"""Distance between 1 and the next float: what "machine precision" means on these pages."""
_FLOOR = 1e-17


def angle_tiles(data: Data) -> Iterable[Data]:
    """The outcome in a few numbers."""
    alpha, excess = number(data.get("alpha")), overshoot(data)
    if alpha is not None:
        yield {"title": real(alpha), "text": "α, the mass in H at which the target is met", "rigor": data.get("rigor")}
    critical = number(data.get("critical_time"))
    if critical is not None:
        yield {"title": f"t* = {real(critical, 7)}", "text": "first time at which τ₊ has mass α",
               "rigor": data.get("rigor")}  # fmt: skip
    elif excess is not None:
        yield {"title": "not reached", "text": "mass α, up to the last time"}
    if excess is not None and excess[0] > 0:
        yield {"title": f"+{real(excess[0])}", "text": f"largest excess of mass over α, at t = {real(excess[1])}",
               "rigor": data.get("rigor")}  # fmt: skip
    worst = largest_error(data)
    if worst is not None:
        yield {"title": f"≈ {real(worst[1], 2)}", "text": f"largest estimated error, of {worst[0]}"}
    yield from unfinished(data)


def overshoot(data: Data) -> tuple[float, float] | None:
    """The largest m+ - alpha, and when: over the whole run where the data tell, else over the output times."""
    largest = mapping(mapping(data.get("overshoot")).get("largest"))
    told = number(largest.get("excess")), number(largest.get("time"))
    if told[0] is not None and told[1] is not None:
        return told[0], told[1]
    alpha, times, masses = number(data.get("alpha")), numbers(data.get("times")), numbers(data.get("mass_plus"))
    if alpha is None:
        return None
    found = [(m - alpha, t) for m, t in zip(masses, times, strict=False) if m is not None and t is not None]
    return max(found, default=None, key=lambda row: row[0])


def largest_error(data: Data) -> tuple[str, float] | None:
    """The largest number among the estimated errors, and what it belongs to."""
    found = [(key.replace("_", " "), v) for key, value in mapping(data.get("error")).items()
             if (v := _largest(value)) is not None and "time" not in key]  # fmt: skip
    return max(found, default=None, key=lambda row: row[1])


def _largest(value: object) -> float | None:
    found = [abs(v) for v in [*numbers(value), number(value)] if v is not None]
    return max(found, default=None)


def unfinished(data: Data) -> Iterable[Data]:
    """A tile for a run that did not reach its last time."""
    if data.get("complete") is False:
        times = [t for t in numbers(data.get("times")) if t is not None]
        reached = f"t = {real(times[-1])}" if times else "start"
        yield {"title": reached, "text": f"reached; {data.get('reason') or 'the run ended early'}", "look": "open"}


def number(value: object) -> Number:
    """A finite number, else None."""
    return numbers([value])[0]


def curve(data: Data, key: str, name: str, look: str = "l0") -> Curve:
    """A column of the data as a curve."""
    return Curve(name, numbers(data.get(key)), look)


def shown(title: str, *figures: Markup | None, lead: Child = None, anchor: str, last: Child = None) -> Card | None:
    """A card around those figures that exist; none without any."""
    found = [f for f in figures if f]
    return card(title, *found, last, lead=lead, anchor=anchor) if found else None


# ---- the film


def densities(view: View) -> Card | None:
    """The two densities over time."""
    if view.kind != KIND:
        return None
    found = _densities(view.data)
    if found is None:
        return None
    marks = (
        ("swatch wing-plus", "τ₊: neurons with a > 0, upwards"), ("swatch wing-minus", "τ₋: a < 0, downwards"),
        ("stroke ghost", "both at the first time"),
    )  # fmt: skip
    key = el("ul", [el("li", el("span", class_=k, aria_hidden="true"), t) for k, t in marks], class_="key")
    about = (
        "Where the neurons point: 0 is the subspace H that the target depends on, π/2 its complement. "
        "Areas in the histograms are masses; the scale is logarithmic and the same at all times."
    )
    return card("Densities of τ₊ and τ₋ over time", key, density_film(found), lead=about,
                anchor=view.anchor("densities"))  # fmt: skip


def _densities(data: Data) -> Densities | None:
    histogram = mapping(data.get("histogram"))
    edges = [e for e in numbers(histogram.get("edges")) if e is not None]
    times = numbers(histogram.get("times"))
    plus, minus = ([numbers(row) for row in listing(histogram.get(side))] for side in ("plus", "minus"))
    if len(edges) < 2 or sorted(edges) != edges or not 0 <= edges[0] < edges[-1] <= math.pi / 2 + 1e-9:
        return None
    known = [t for t in times if t is not None]
    if not known or len(known) != len(times) or not len(plus) == len(minus) == len(times):
        return None
    if any(len(row) != len(edges) - 1 for row in (*plus, *minus)):
        return None
    return Densities(known, edges, plus, minus, moments(data, known))


def moments(data: Data, times: Sequence[float]) -> list[str]:
    """What to say about each of these times, with the masses where the data have them."""
    columns = [numbers(data.get(key)) for key in ("times", "mass_plus", "mass_minus")]
    known = {t: (p, m) for t, p, m in zip(*columns, strict=False) if t is not None}
    out = []
    for time in times:
        plus, minus = known.get(time, (None, None))
        masses_ = "" if plus is None else f", positive neurons have mass {real(plus)} and negative ones {real(minus)}"
        out.append(f"At time {real(time)}{masses_}.")
    return out


# ---- the charts


def masses(view: View) -> Card | None:
    """Both masses against alpha, and what goes beyond alpha."""
    if view.kind != KIND:
        return None
    data, times = view.data, numbers(view.data.get("times"))
    alpha = number(data.get("alpha"))
    levels = [] if alpha is None else [Level("α", alpha)]
    levels += critical(data)
    both = line_chart(
        "Masses", times, [curve(data, "mass_plus", "τ₊", "plus"), curve(data, "mass_minus", "τ₋", "minus")],
        name="mass", levels=levels, log=True,
    )  # fmt: skip
    return shown(
        "Masses against α", both, _excess(data, times),
        lead="At α, with all of τ₊ in H and nothing in τ₋, the network is the target.", anchor=view.anchor("masses"),
    )  # fmt: skip


def critical(data: Data) -> list[Level]:
    """The line at the critical time."""
    at = number(data.get("critical_time"))
    return [] if at is None else [Level(f"t* = {real(at)}", at, across=True)]


def _excess(data: Data, times: Sequence[Number]) -> Markup | None:
    """m+ - alpha and the two terms that it is the difference of, enlarged around zero."""
    alpha = number(data.get("alpha"))
    plus, minus = numbers(data.get("mass_plus")), numbers(data.get("mass_minus"))
    if alpha is None or len(plus) != len(times):
        return None
    beyond = [None if m is None else m - alpha for m in plus]
    curves = [Curve("mass of τ₊ − α", beyond, "plus"), Curve("mass of τ₋", minus, "minus")]
    rest = [None if m is None or b is None else m - b for m, b in zip(minus, beyond, strict=False)]
    curves.append(Curve("E[R]/λ₀", rest, "l3"))
    highest = max((b for b in beyond if b is not None), default=0.0)
    scale = highest if highest > 0 else max((m for m in minus if m is not None), default=alpha)
    window = axis_of([-0.7 * scale, 1.2 * scale])
    return line_chart("Beyond α", times, curves, name="mass", levels=[Level("0", 0.0), *critical(data)],
                      axis=window, note="· the first is the second minus the third")  # fmt: skip


def distances(view: View) -> Card | None:
    """How far both measures, normalised, are from where they concentrate."""
    if view.kind != KIND:
        return None
    data, times = view.data, numbers(view.data.get("times"))
    w2 = line_chart("Wasserstein-2 distance", times, [curve(data, "w2_plus", "τ₊ to 0", "plus"),
                    curve(data, "w2_minus", "τ₋ to π/2", "minus")], name="radians", log=True)  # fmt: skip
    means = line_chart("Mean angle to H", times, [curve(data, "mean_plus", "τ₊", "plus"),
                       curve(data, "mean_minus", "τ₋", "minus")], name="radians",
                       levels=[Level("π/2", math.pi / 2), Level("H", 0.0)])  # fmt: skip
    lead = "Each measure normalised to mass one; the limits are the point masses at 0 and at π/2."
    return shown("Distances to the limits", w2, means, lead=lead, anchor=view.anchor("distances"))


def energy(view: View) -> Card | None:
    """The risk and how fast it falls."""
    if view.kind not in (KIND, "meanfield-lowdim", "meanfield-particles"):
        return None
    data, times = view.data, numbers(view.data.get("times"))
    risk = line_chart("Energy", times, [curve(data, "energy", "½ E[(f* − f)²]", "l0")], name="energy", log=True)
    slope = [None if v is None else abs(v) for v in numbers(data.get("dissipation"))]
    rate = line_chart("Dissipation", times, [Curve("−d energy / dt", slope)], name="energy per time", log=True)
    return shown("Energy", risk, rate, lead="Gradient flow never raises it.", anchor=view.anchor("energy"))


def balance(view: View) -> Card | None:
    """Whether what the energy lost is what was dissipated: a check of the whole run."""
    if view.kind != "meanfield-lowdim":
        return None
    missing = [None if v is None else abs(v) for v in numbers(view.data.get("dissipation_defect"))]
    chart = rounding_chart("Energy lost less what was dissipated", numbers(view.data.get("times")),
                           [Curve("|difference|", missing)])  # fmt: skip
    return shown("Energy balance", chart, lead="Zero but for errors of the run.", anchor=view.anchor("balance"))


def identity(view: View) -> Card | None:
    """How well the mass identity holds, which ties the masses to the mean residual."""
    if view.kind != KIND:
        return None
    data, times = view.data, numbers(view.data.get("times"))
    defect = [None if v is None else abs(v) for v in numbers(data.get("identity_defect"))]
    chart = rounding_chart("Defect of the identity", times, [Curve("|defect|", defect)], "|left − right|")
    worst = max((v for v in defect if v is not None), default=None)
    formula = el("p", el("span", "m₊ − α = m₋ − E[R]/λ₀", class_="formula"), class_="big long")
    said: Child = None
    if worst is not None:
        said = el("p", mark(worst < 1e-12), f" largest defect {real(worst, 2)}; below 10⁻¹² is rounding.")
    about = (
        "It holds at every time, so τ₊ has more mass than α exactly when E[R] < λ₀ m₋. "
        "R = f* − f is the residual, λ₀ the first eigenvalue of the kernel."
    )
    return shown("The mass identity", formula, chart, lead=about, anchor=view.anchor("identity"), last=said)


def rounding_chart(title: str, times: Sequence[Number], curves: Sequence[Curve], name: str = "") -> Markup | None:
    """Defects that are rounding or not, with the level of machine precision; zeros at the lower edge."""
    seen = [v for c in curves for v in c.values]
    axis = axis_of([_FLOOR, 1e-12, *seen], log=True, decades=30)
    return line_chart(title, times, curves, name=name, log=True, floor=_FLOOR, axis=axis,
                      levels=[Level("machine precision", ROUNDING)])  # fmt: skip


def run(view: View) -> Card | None:
    """How the numbers were obtained."""
    if not view.kind.startswith("meanfield-") or view.kind == "meanfield-reduction":
        return None
    data = view.data
    times = [t for t in numbers(data.get("times")) if t is not None]
    facts: list[tuple[str, Child]] = [
        (text, _fact(data[key])) for key, text in _FACTS.items() if isinstance(data.get(key), int | float | str)
    ]
    if times:
        facts.append(("times", f"{count(len(times))}, from {real(times[0])} to {real(times[-1])}"))
    if data.get("rigor"):
        facts.append(("how", chip(data.get("rigor"))))
    if isinstance(data.get("complete"), bool):
        facts.append(("reached the last time", mark(data["complete"])))
    return card("How it was computed", pairs(facts), _errors(data), anchor=view.anchor("run")) if facts else None


def _fact(value: object) -> str:
    return real(value) if not isinstance(value, str) else value


_FACTS = {
    "dimension": "dimension d", "subspace_dimension": "dimension of H", "width": "neurons", "rows": "neurons evolved",
    "group_order": "order of the group", "beta_norm": "|β|", "variance": "variance of the inputs",
    "scale": "V = E[a² + |b|²/d] at the start",
    "nodes": "particles of each sign", "modes": "modes", "initial": "start", "activation": "activation", "loss": "loss",
    "expectation": "expectations", "form": "potential of the target", "potential_error": "its error",
    "side_points": "nodes orthogonal to H", "method": "integrator", "steps": "steps",
    "evaluations": "right-hand sides",
}  # fmt: skip


def _errors(data: Data) -> Child:
    """The estimated error of each quantity."""
    found = [(key.replace("_", " "), real(v, 2)) for key, value in mapping(data.get("error")).items()
             if (v := _largest(value)) is not None]  # fmt: skip
    if "error" in data and not found:
        return el("p", "Errors were not estimated; --refine, or refine(), does.", class_="small")
    return [el("h4", "Largest change under refinement"), pairs(found)] if found else None


def name_of(data: Data, kind: str) -> str:
    """What a mean-field result is about."""
    sizes = {"d": whole(data.get("dimension")), "dim H": whole(data.get("subspace_dimension")),
             "m": whole(data.get("width"))}  # fmt: skip
    words = ", ".join(f"{key} = {count(value)}" for key, value in sizes.items() if value)
    title = _TITLES.get(kind, "Mean field")
    return f"{title}: {words}" if words else title


_TITLES = {
    KIND: "Angle dynamics", "meanfield-odd": "Odd target", "meanfield-linear": "Linear dynamics",
    "meanfield-lowdim": "Target on a subspace", "meanfield-particles": "Finite network",
    "meanfield-reduction": "Reduction of a target",
}  # fmt: skip
