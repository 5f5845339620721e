"""The page of a phase diagram: shares of recovering seeds and test errors as heat maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fiberscope.pages.charts import Number, numbers
from fiberscope.pages.data import Data, View, listing, mapping, rows, whole
from fiberscope.pages.heatmaps import Edge, Range, heat_key, heat_table
from fiberscope.pages.markup import Child, count, el, real
from fiberscope.pages.meanfield import number
from fiberscope.pages.parts import Card, card, mark, pairs
from fiberscope.pages.recovery import cut_short

_SCALES = 8  # panels on a page


def phase_tiles(data: Data) -> Iterable[Data]:
    """How often the target was found, and the number that it is measured by."""
    found = [v for g in rows(data.get("grids")) for row in listing(g.get("fraction")) for v in numbers(row)]
    known = [v for v in found if v is not None]
    if known:
        share = sum(known) / len(known)
        yield {"title": f"{real(100 * share, 3)} %", "rigor": data.get("rigor"),
               "text": f"of all runs recovered the target, in {count(len(known))} cells"}  # fmt: skip
    if isinstance(data.get("optimistic"), int):
        sign = "" if data.get("optimistic_exact") is True else "≤ "
        yield {"title": f"{sign}{count(data['optimistic'])}", "text": "optimistic sample size of the target"}
    halves = [t["half"] for t in rows(data.get("thresholds")) if isinstance(t.get("half"), int)]
    if halves:
        low, high = min(halves), max(halves)
        title = f"n ≥ {count(low)}" if low == high else f"n ≥ {count(low)} to {count(high)}"
        yield {"title": title, "text": "half of the seeds recover it, by width and scale"}
    yield from cut_short(data, "some cells are not finished")


def phase_fractions(view: View) -> Card | None:
    """The share of seeds that found the target."""
    if view.kind != "phase-diagram":
        return None
    data = view.data
    panels = _panels(data, "fraction")
    if not panels:
        return None
    colours, edges = Range(0.0, 1.0), _edges(data)
    made = [
        heat_table(f"Share of seeds that recover the target{scale}", _row_names(data), _columns(data), grid, colours,
                   corner=_corner(), edges=edges, more=_thresholds(data, at))
        for scale, at, grid in panels
    ]  # fmt: skip
    seeds, limit = len(listing(data.get("seeds"))), number(data.get("recovered"))
    lead = "Each cell trains networks of one width on so many samples"
    lead += f", from {count(seeds)} starts" if seeds else ""
    lead += f"; recovered means a test error below {real(limit)}." if limit is not None else "."
    unknown = any(v is None for _, _, grid in panels for row in grid for v in row)
    return card("Recovery by samples and width", heat_key(colours, "share", edges, unknown=unknown),
                el("div", made, class_="heats"), _unseen(data, edges), lead=lead, wide=True,
                anchor=view.anchor("recovered"))  # fmt: skip


def phase_errors(view: View) -> Card | None:
    """Median test errors."""
    if view.kind != "phase-diagram":
        return None
    data = view.data
    panels, edges = _panels(data, "median_error"), _edges(data)
    positive = [v for _, _, grid in panels for row in grid for v in row if v is not None and v > 0]
    if not positive:
        return None
    colours = Range(max(positive), max(min(positive), max(positive) * 1e-30), log=True)
    made = [
        heat_table(f"Median test error{scale}", _row_names(data), _columns(data), grid, colours,
                   corner=_corner(), digits=1, edges=edges)
        for scale, _, grid in panels
    ]  # fmt: skip
    unknown = any(v is None for _, _, grid in panels for row in grid for v in row)
    return card("Median test error", heat_key(colours, "error", edges, unknown=unknown),
                el("div", made, class_="heats"), lead="Strong colours are small errors; the scale is logarithmic.",
                wide=True, anchor=view.anchor("errors"))  # fmt: skip


def _corner() -> Child:
    return [el("span", "samples →"), " ", el("span", "width ↓")]


def _columns(data: Data) -> list[float]:
    return [n for n in numbers(data.get("samples")) if n is not None]


def _widths(data: Data) -> list[int]:
    return [whole(w) for w in listing(data.get("widths"))]


def _parameters(data: Data) -> list[Number]:
    known = {str(key): m for key, m in mapping(data.get("parameters")).items()}
    return [number(known.get(str(w))) for w in _widths(data)]


def _row_names(data: Data) -> list[Child]:
    return [
        [f"m = {count(w)}", el("span", f" M = {real(m)}", class_="small") if m is not None else None]
        for w, m in zip(_widths(data), _parameters(data), strict=True)
    ]


def _panels(data: Data, key: str) -> list[tuple[str, Number, list[list[Number]]]]:
    """(words for the scale, scale, grid) of each scale whose grid fits the widths and samples."""
    high, wide = len(_widths(data)), len(_columns(data))
    found = rows(data.get("grids"))
    out = []
    for row in found[:_SCALES]:
        grid = [numbers(line) for line in listing(row.get(key))]
        scale = number(row.get("scale"))
        words = f", scale {real(scale)}" if len(found) > 1 and scale is not None else ""
        if high and wide and len(grid) == high and all(len(line) == wide for line in grid):
            out.append((words, scale, grid))
    return out


def _edges(data: Data) -> list[Edge]:
    """The optimistic sample size and the number of parameters of each width."""
    least, found = number(data.get("optimistic")), _parameters(data)
    out = []
    if least is not None:
        size = el("span", "O", el("sub", "f"))
        exact = data.get("optimistic_exact") is True
        name = ["from here n ≥ ", size, f" = {real(least)}"] if exact else [f"from here n ≥ {real(least)} ≥ ", size]
        out.append(Edge(el("span", name), "size", [least] * len(found)))
    if any(m is not None for m in found):
        out.append(Edge("from here n ≥ M, the number of parameters", "full", found))
    return out


def _unseen(data: Data, edges: Sequence[Edge]) -> Child:
    """Says where a line lies beyond all samples."""
    samples = _columns(data)
    beyond = [
        f"m = {count(w)}" for e in edges if e.look == "full"
        for w, m in zip(_widths(data), e.from_, strict=True) if m is not None and m > max(samples)
    ]  # fmt: skip
    return el("p", f"M is beyond all samples for {', '.join(beyond[:12])}.", class_="small") if beyond else None


def _thresholds(data: Data, scale: Number) -> list[tuple[str, list[Child]]]:
    """From how many samples on half of the seeds, and all of them, recover."""
    found = {whole(t.get("width")): t for t in rows(data.get("thresholds")) if number(t.get("scale")) == scale}
    if not found:
        return []
    return [
        (head, [real(found.get(w, {}).get(key)) for w in _widths(data)])
        for head, key in (("half from", "half"), ("all from", "all"))
    ]


def phase_setup(view: View) -> Card | None:
    """What was trained on what."""
    if view.kind != "phase-diagram":
        return None
    data = view.data
    facts: list[tuple[str, Child]] = []
    for key, name in (("target", "target"), ("activation", "activation of the trained networks")):
        if isinstance(data.get(key), str):
            facts.append((name, data[key]))
    scales = [s for s in numbers(data.get("scales")) if s is not None]
    if scales:
        facts.append(("scales of the first weights", ", ".join(real(s) for s in scales)))
    seeds = listing(data.get("seeds"))
    if seeds:
        facts.append(("runs of a cell", count(len(seeds))))
    grids = [numbers(row) for g in rows(data.get("grids")) for row in listing(g.get("interpolating"))]
    known = [v for row in grids for v in row if v is not None]
    if known:
        facts.append(("runs that interpolate their data", f"{real(100 * sum(known) / len(known), 3)} %"))
    if isinstance(data.get("complete"), bool):
        facts.append(("all cells finished", [mark(data["complete"])]))
    return card("What was trained", pairs(facts), anchor=view.anchor("trained")) if facts else None
