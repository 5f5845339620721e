"""The page of condensation: cosines of neurons as matrices, classes by tolerance and over checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

from fiberscope.pages.charts import Curve, Number, numbers, time_axis
from fiberscope.pages.data import Data, View, listing, mapping, rows, whole
from fiberscope.pages.heatmaps import Cosines, matrix_key, matrix_map
from fiberscope.pages.markup import count, el, real
from fiberscope.pages.meanfield import number
from fiberscope.pages.parts import Card, card, table
from fiberscope.pages.plots import plot, side_by_side
from fiberscope.pages.recovery import cut_short

_LOOKS = ("l0", "l1", "l2", "l3", "l4", "l5")
_LAYERS = 4  # layers on a page


def condensation_tiles(data: Data) -> Iterable[Data]:
    """Directions and ranks of the last network."""
    found = rows(data.get("snapshots"))
    last = found[-1] if found else {}
    for layer in rows(last.get("layers"))[:3]:
        if (effective := number(layer.get("effective"))) is not None:
            width = f" of {count(layer['width'])} neurons" if isinstance(layer.get("width"), int) else ""
            yield {"title": real(effective, 3), "rigor": data.get("rigor"),
                   "text": f"effective directions{width}, {layer.get('name') or 'layer'}"}  # fmt: skip
    levels = rows(last.get("levels"))
    if levels and isinstance(levels[-1].get("dimension"), int):
        within = real(number(levels[-1].get("tolerance")))
        yield {"title": count(levels[-1]["dimension"]), "text": f"dimensions of the nearest manifold, within {within}"}
    parameters = data.get("parameters")
    if isinstance(last.get("rank"), int) and isinstance(parameters, int):
        yield {"title": f"{count(last['rank'])} of {count(parameters)}", "text": "model rank, of all parameters"}
    orbit, upper = last.get("orbit"), last.get("orbit_upper")
    if isinstance(orbit, int) or isinstance(upper, int):
        sign = "" if isinstance(orbit, int) else "≤ "
        yield {"title": f"{sign}{count(orbit if isinstance(orbit, int) else upper)}", "text": "dimension of the orbit"}
    yield from cut_short(data)


def condensation_matrices(view: View) -> Card | None:
    """Cosines between the neurons of a layer, ordered by their classes, of the first and of the last network."""
    if view.kind != "condensation":
        return None
    data = view.data
    found = rows(data.get("snapshots"))
    tolerances = numbers(data.get("tolerances"))
    ends = [found[0], found[-1]] if len(found) > 1 else found
    within = f"within {real(tolerances[-1])}" if tolerances and tolerances[-1] is not None else "found"
    made, looks, layers = [], set[bool](), 0
    for layer in range(_LAYERS):
        for snapshot in ends:
            cosines = _cosines(snapshot, layer)
            if cosines is None:
                continue
            name = _layer_name(snapshot, layer)
            title = f"{name}, {_label(snapshot)}" if len(found) > 1 else name
            made.append(matrix_map(title, cosines, within=within))
            looks.add(cosines.folded)
            layers = max(layers, len(rows(snapshot.get("layers"))))
    if not made:
        return None
    keys = [matrix_key(folded=folded, bars=True) for folded in sorted(looks, reverse=True)]
    more = el("p", f"The first {_LAYERS} of {count(layers)} layers.", class_="small") if layers > _LAYERS else None
    lead = (
        "Cosines between the incoming weights (with bias) of all pairs of neurons, in the order of their classes. "
        f"Blocks of full colour are neurons of one direction; lines separate classes {within}."
    )
    return card("Directions of neurons", keys, el("div", made, class_="plots"), more, lead=lead, wide=True,
                anchor=view.anchor("directions"))  # fmt: skip


def _label(snapshot: Data) -> str:
    label = snapshot.get("label")
    return label if isinstance(label, str) else f"checkpoint {real(label)}"


def _layer_name(snapshot: Data, layer: int) -> str:
    found = rows(snapshot.get("layers"))
    name = found[layer].get("name") if layer < len(found) else None
    return str(name or f"layer {layer + 1}")


def _cosines(snapshot: Data, layer: int) -> Cosines | None:
    """The drawing of a layer if its parts fit each other."""
    drawings, layers = listing(snapshot.get("drawings")), rows(snapshot.get("layers"))
    drawn = mapping(drawings[layer]) if layer < len(drawings) else {}
    neurons = [whole(v, -1) for v in listing(drawn.get("neurons"))]
    square = [[v for v in numbers(row) if v is not None] for row in listing(drawn.get("cosines"))]
    n = len(neurons)
    if not n or len(square) != n or any(len(row) != n for row in square):
        return None
    bars = [v for v in numbers(drawn.get("amplitudes")) if v is not None and v >= 0]
    levels = listing(drawn.get("labels"))
    classes = [whole(v) for v in listing(levels[-1])] if levels else []
    folded = layer < len(layers) and layers[layer].get("folded") is True
    return Cosines(neurons, square, bars if len(bars) == n else None, classes if len(classes) == n else [0] * n, folded)


def condensation_levels(view: View) -> Card | None:
    """Numbers of directions against the tolerance, in the last network."""
    if view.kind != "condensation":
        return None
    found = rows(view.data.get("snapshots"))
    levels = [v for v in rows(found[-1].get("levels")) if (number(v.get("tolerance")) or 0) > 0] if found else []
    levels.sort(key=lambda v: float(v["tolerance"]))
    if not levels:
        return None
    places = [number(v["tolerance"]) for v in levels]
    layers = min(len(rows(found[-1].get("layers"))), _LAYERS)
    charts = []
    for k in range(layers):
        curves = [
            Curve(name, [_item(v.get(key), k) for v in levels], look)
            for key, name, look in (("directions", "directions", "l0"), ("neurons", "different neurons", "l1"),
                                    ("classes", "classes that move together", "l2"), ("holding", "hold most", "l3"))
        ]  # fmt: skip
        curves[3] = Curve(f"hold {_percent(view.data)} of the amplitude", curves[3].values, "l3")
        charts.append(plot(f"Classes, {_layer_name(found[-1], k)}", places, curves, across="tolerance",
                           name="number", log_across=True))  # fmt: skip
    body = [
        [real(number(v["tolerance"])), _joined(v.get("directions")), _joined(v.get("holding")),
         _joined(v.get("neurons")), real(v.get("rank")), _joined(v.get("classes")), real(v.get("dimension")),
         real(v.get("distance"), 2)]
        for v in levels
    ]  # fmt: skip
    heads = ["tolerance", "directions", f"hold {_percent(view.data)}", "different neurons", "model rank",
             "move together", "dimension of their manifold", "distance from it"]  # fmt: skip
    last = f" of {_label(found[-1])}" if len(found) > 1 else ""
    lead = (
        f"How many classes there are{last} when neurons within a tolerance count as equal. "
        "Those that nearly move together have equal outgoing weights too."
    )
    made = table("Classes by tolerance", heads, body, numeric=range(len(heads)))
    return card(
        "Classes by tolerance", side_by_side(*charts), made, lead=lead, wide=True, anchor=view.anchor("tolerances")
    )


def _percent(data: Data) -> str:
    share = number(data.get("share"))
    return f"{real(100 * share)} %" if share is not None else "most"


def _item(value: object, place: int) -> Number:
    found = numbers(value)
    return found[place] if place < len(found) else None


def _joined(value: object) -> str:
    found = [real(v) for v in listing(value)]
    return ", ".join(found[:6]) + (", …" if len(found) > 6 else "") or "–"


def condensation_series(view: View) -> Card | None:
    """Directions over the checkpoints."""
    if view.kind != "condensation":
        return None
    data = view.data
    found = rows(data.get("snapshots"))
    if len(found) < 2:
        return None
    named = [number(s.get("label")) for s in found]
    times = [v for v in named if v is not None]
    timed = len(times) == len(found) and all(a < b for a, b in zip(times, times[1:], strict=False))
    places: list[Number] = named if timed else [number(s.get("index")) for s in found]
    if any(p is None for p in places):
        places = [float(k) for k in range(len(found))]
    axis = time_axis(places)
    log = axis is not None and axis.log
    across, texts = "checkpoint", [_label(s) if not timed else real(s.get("label"), 6) for s in found]
    layers = [rows(s.get("layers")) for s in found]
    size = min(_LAYERS, max(map(len, layers)))

    def column(k: int, key: str, at: int | None = None) -> list[Number]:
        values = [own[k].get(key) if k < len(own) else None for own in layers]
        return [number(v) if at is None else _item(v, at) for v in values]

    effective = [Curve(_layer_name(found[-1], k), column(k, "effective"), _LOOKS[k]) for k in range(size)]
    charts = [plot("Effective directions", places, effective, across=across, log_across=log, texts=texts,
                   note="· at most the number of incoming weights")]  # fmt: skip
    tolerances = numbers(data.get("tolerances"))
    for k in range(size):
        curves = [Curve(f"within {real(t)}", column(k, "counts", j), _LOOKS[j]) for j, t in enumerate(tolerances[:6])]
        charts.append(plot(f"Directions, {_layer_name(found[-1], k)}", places, curves, across=across, name="number",
                           log_across=log, texts=texts))  # fmt: skip
    ranks = [Curve(name, [number(s.get(key)) for s in found], look) for key, name, look in _RANKS]
    ranks.append(Curve("dimension of the nearest manifold", [_nearest(s) for s in found], "l3"))
    charts.append(plot("Dimensions", places, ranks, across=across, log_across=log, texts=texts))
    made = side_by_side(*charts)
    total = whole(data.get("checkpoints"))
    lead = f"{count(len(found))} of {count(total)} checkpoints." if total > len(found) else None
    return card("Over the checkpoints", made, lead=lead, wide=True, anchor=view.anchor("series")) if made else None


_RANKS = (("rank", "model rank", "l0"), ("orbit", "dimension of the orbit", "l1"),
          ("orbit_upper", "upper bound of the orbit", "l2"))  # fmt: skip


def _nearest(snapshot: Data) -> Number:
    levels = rows(snapshot.get("levels"))
    return number(levels[-1].get("dimension")) if levels else None
