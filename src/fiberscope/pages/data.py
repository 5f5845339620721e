"""What the page draws, read from the data of a result: missing keys are missing parts, never errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fiberscope.pages.markup import outward, pretty

Data = Mapping[str, Any]

KINDS = {
    "duplicate": "duplicate",
    "sign_duplicate": "duplicate up to sign",
    "proportional": "proportional",
    "linear": "superfluous in a linear block",
    "near_duplicate": "nearly a multiple",
    "zero_output": "read by nobody",
    "constant": "constant output",
    "dead": "dead",
}
"""Reasons for which a neuron is removable, in the order in which bars show them."""

SILENT = frozenset({"dead", "constant", "zero_output"})
"""Kinds of neurons that carry nothing of the input to the output."""

_WORDS = {
    **KINDS,
    "single": "on its own",
    "alone": "on their own",
    "kept": "on its own",
    "merged": "merged",
    "linear": "linear block",
}


@dataclass(frozen=True)
class Group:
    """Neurons of one layer that share a fate: a class, a neuron on its own, or neurons without effect.

    `colour` counts the shared classes of the layer; None for neurons on their own and those without effect.
    """

    layer: int
    label: str
    kind: str
    members: tuple[int, ...]
    factors: tuple[str, ...] = ()
    new: tuple[int, ...] | None = None
    colour: int | None = None

    @property
    def silent(self) -> bool:
        """Whether the neurons have no effect that depends on the input."""
        return self.kind in SILENT

    @property
    def words(self) -> str:
        """The kind in plain words."""
        if self.kind == "merged":
            signed = any(f.startswith("-") for f in self.factors)
            scaled = any(f.lstrip("-") != "1" for f in self.factors)
            return "multiples of one function" if scaled else "same up to sign" if signed else "same function"
        return _WORDS.get(self.kind, self.kind.replace("_", " "))


@dataclass(frozen=True)
class View:
    """One result as the page sees it."""

    position: int
    data: Data
    kind: str
    name: str
    network: Data = field(default_factory=dict)
    reduction: Data = field(default_factory=dict)
    widths: tuple[int, ...] = ()
    groups: tuple[Group, ...] = ()
    layers: tuple[Data, ...] = ()
    weights: tuple[Any, ...] = ()
    tiles: tuple[Data, ...] = ()

    @property
    def domain(self) -> str:
        """The domain in words, "" where the result has none."""
        return pretty(domain_words(mapping(self.data.get("domain")) or mapping(self.reduction.get("domain"))))

    def anchor(self, part: str) -> str:
        """The id of a part of this result's section."""
        return f"result-{self.position}-{part}"

    def layer_name(self, index: int) -> str:
        """What people call the layer: hidden 1 is layer 0 of the data."""
        return f"hidden {index + 1}"


def mapping(value: Any) -> Data:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listing(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def rows(value: Any) -> list[Data]:
    """The mappings in a list."""
    return [v for v in listing(value) if isinstance(v, Mapping)]


def whole(value: Any, default: int = 0) -> int:
    """The value if it is a whole number, else the default."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def view_of(data: Data, position: int) -> View:
    """Read the data of an Inspection, a Reduction, or any other result."""
    if "widths_before" in data:
        return _reduction_view(data, position)
    if isinstance(data.get("network"), Mapping):
        return _inspection_view(data, position)
    kind = _kind_of(data)
    return View(position, data, kind, _other_name(data, kind) or f"result {position}")


_COMMAND = re.compile(r"fiberscope/([a-z-]+)/\d+")
_TELLING = {
    "equal": {"answer", "certificate", "counterexample", "method"},
    "canonical": {"fingerprint", "hypotheses", "move_counts"},
    "fingerprint": {"results", "groups", "counts"},
    "distance": {"lower", "upper", "witness"},
    "align": {"moves", "before", "after", "rounds"},
    "fiber": {"dimension", "lower_bound", "hidden_neurons"},
    "orbit": {"dimension", "ambient", "estimates", "upper_reason"},
    "conserved": {"dynamics", "orbit_dimension", "known", "independent"},
    "sims": {"count_types", "families", "levels"},
    "smallest-sim": {"linear_dimension", "reduced_widths", "activation_class"},
    "meanfield-angle": {"times", "alpha", "w2_plus"},
    "meanfield-odd": {"times", "beta_norm", "w_norm"},
    "meanfield-linear": {"times", "w_star", "decay_rate"},
    "meanfield-lowdim": {"times", "form", "side_points"},
    "meanfield-particles": {"times", "width", "group_order"},
    "meanfield-reduction": {"reduced_dimension", "flow", "statements"},
    "rank": {"rank", "parameters", "class_count", "quiet"},
    "predict-recovery": {"needed", "unconstrained", "optimistic"},
    "recover": {"rungs", "criterion", "floor"},
    "select-width": {"scores", "folds", "criterion"},
    "embed": {"degrees_of_freedom", "sim_dimension", "together", "apart"},
    "strata": {"full_threshold", "least_threshold", "branches"},
    "diagonal": {"stages", "norm", "growth"},
    "phase-diagram": {"grids", "thresholds", "recovered"},
    "condensation": {"snapshots", "tolerances", "checkpoints"},
    "watch": {"records", "measurements", "torn"},
    "lint-init": {"findings", "trapped", "effective_widths"},
    "check": {"answer", "certificate", "bound"},
    "cite": {"bibtex", "statements"},
}
"""Kinds of results with parts of their own on the page, and keys by which one without a schema is known."""


def _kind_of(data: Data) -> str:
    command = _COMMAND.fullmatch(str(data.get("schema") or ""))
    if command is not None:
        return command[1] if command[1] in _TELLING else "other"
    return next((kind for kind, keys in _TELLING.items() if keys <= data.keys()), "other")


def _other_name(data: Data, kind: str) -> str:
    """What the result is about: its files, else what it says."""
    files = [base_name(row.get("path")) or "network in memory" for row in rows(data.get("inputs"))]
    if kind == "fingerprint":
        return f"{len(rows(data.get('results'))):,} networks"
    if kind == "cite":
        return "Theorems"
    if kind == "sims" and not files:
        return f"{'-'.join(map(str, listing(data.get('widths'))))} {data.get('activation')}"
    plain = data.get("name") or data.get("model") or data.get("schema") or (kind if kind != "other" else "")
    return " and ".join(files) or str(plain)


def _inspection_view(data: Data, position: int) -> View:
    network, reduction = mapping(data.get("network")), mapping(data.get("reduction"))
    widths = tuple(whole(w) for w in listing(network.get("widths")) or listing(reduction.get("widths_before")))
    found = rows(data.get("classes"))
    places = _new_places(reduction)
    groups = _from_classes(found, places) if found else _from_map(reduction)
    weights = _matrices(mapping(data.get("weights_preview")).get("layers"), widths)
    name = base_name(network.get("path")) or "network in memory"
    listed, tiles = tuple(rows(data.get("layers"))), tuple(rows(data.get("tiles")))
    return View(position, data, "inspection", name, network, reduction, widths, groups, listed, weights, tiles)


def _reduction_view(data: Data, position: int) -> View:
    network = (
        mapping(data.get("network")) or mapping(data.get("source")) or mapping(next(iter(rows(data.get("inputs"))), {}))
    )
    widths = tuple(whole(w) for w in listing(data.get("widths_before")))
    name = base_name(network.get("path")) or f"reduction {position}"
    return View(
        position, data, "reduction", name, network, data, widths, _from_map(data), (), (), tuple(_reduction_tiles(data))
    )


def _reduction_tiles(data: Data) -> Iterable[Data]:
    rigors = {str(row.get("rigor")) for row in rows(data.get("removed"))}
    rigor = "INTERVAL" if "INTERVAL" in rigors else "EXACT"
    for key, text in (("hidden", "hidden neurons"), ("parameters", "parameters")):
        before, after = (whole(data.get(f"{key}_{when}")) for when in ("before", "after"))
        same = before == after
        yield {
            "title": f"{before:,}" if same else f"{before:,} → {after:,}",
            "text": f"{text}, none removed" if same else text,
            "rigor": rigor,
        }
    rounding = mapping(data.get("rounding"))
    bound = mapping(rounding.get("bound"))
    if rounding.get("kind") == "exact":
        yield {"title": "lossless", "text": f"the {rounding.get('dtype')} file keeps every output", "rigor": rigor}
    elif isinstance(bound.get("constant"), float):
        slope = f" + {outward(bound['slope'], up=True, digits=2)}·max|x|" if bound.get("slope") else ""
        text = f"largest change by rounding to {rounding.get('dtype')}"
        title = f"≤ {outward(bound['constant'], up=True, digits=2)}{slope}"
        yield {"title": title, "text": text, "rigor": "INTERVAL"}


def base_name(path: Any) -> str:
    r"""The last part of a path, in either spelling of folders.

    >>> base_name("a\\b/c.onnx")
    'c.onnx'
    """
    return re.split(r"[\\/]", str(path or "").rstrip("\\/"))[-1]


def domain_words(box: Data) -> str:
    """A box in words; its own `text` where it has one.

    >>> domain_words({"lower": ["-inf"], "upper": ["inf"]})
    'all real inputs'
    """
    if box.get("text"):
        return str(box["text"])
    low, high = listing(box.get("lower")), listing(box.get("upper"))
    if not low or len(low) != len(high):
        return str(box.get("origin") or "")
    if all(v == "-inf" for v in low) and all(v == "inf" for v in high):
        return "all real inputs"
    if len(set(map(str, low))) == 1 and len(set(map(str, high))) == 1:
        return f"[{_end(low[0])}, {_end(high[0])}]^{len(low)}"
    return f"a box in R^{len(low)}"


def _end(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _matrices(value: Any, widths: tuple[int, ...]) -> tuple[Any, ...]:
    """The weight matrices if their shapes fit the widths, else none."""
    found = listing(value)
    shapes = list(zip(widths[1:], widths, strict=False))
    if len(found) != len(shapes):
        return ()
    for matrix, (n_out, n_in) in zip(found, shapes, strict=True):
        if len(listing(matrix)) != n_out or any(len(listing(row)) != n_in for row in matrix):
            return ()
    return tuple(found)


def _integers(value: Any) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return tuple(v for v in listing(value) if isinstance(v, int))


def _new_places(reduction: Data) -> dict[tuple[int, int], tuple[int, ...]]:
    """(layer, old neuron) -> new neurons."""
    return {
        (whole(layer.get("layer")), old): _integers(row.get("new"))
        for layer in rows(reduction.get("neuron_map"))
        for row in rows(layer.get("map"))
        for old in _integers(row.get("old"))
    }


def _factor(value: Any) -> str:
    return str(value["exact"]) if isinstance(value, Mapping) and "exact" in value else str(value)


def _from_classes(found: list[Data], places: Mapping[tuple[int, int], tuple[int, ...]]) -> tuple[Group, ...]:
    out, used = [], dict[int, int]()
    for row in found:
        layer, kind = whole(row.get("layer")), str(row.get("kind") or "single")
        members = _integers(row.get("members"))
        if not members:
            continue
        new = _integers(row["new"]) if row.get("new") is not None else places.get((layer, members[0]))
        colour = None
        if kind not in SILENT and (len(members) > 1 or kind == "linear"):
            colour = used.setdefault(layer, 0)
            used[layer] += 1
        label = "" if kind in SILENT else str(row.get("label") or "")
        factors = tuple(_factor(f) for f in listing(row.get("factors")))
        out.append(Group(layer, label, kind, members, factors, new, colour))
    return tuple(out)


def _from_map(reduction: Data) -> tuple[Group, ...]:
    found: list[Data] = []
    for layer in rows(reduction.get("neuron_map")):
        letter = 0
        for row in rows(layer.get("map")):
            kind = {"kept": "single"}.get(str(row.get("how")), str(row.get("how")))
            alive = kind not in SILENT
            found.append({
                "layer": layer.get("layer"), "label": letters(letter) if alive else "", "kind": kind,
                "members": row.get("old"), "factors": row.get("factors"), "new": row.get("new") or [],
            })  # fmt: skip
            letter += alive
    return _from_classes(found, {})


def letters(k: int) -> str:
    """A, B, ..., Z, AA, AB, ...

    >>> letters(0), letters(27)
    ('A', 'AB')
    """
    text = ""
    while k >= 0:
        text, k = chr(65 + k % 26) + text, k // 26 - 1
    return text


def spans(numbers: Iterable[int]) -> list[str]:
    """Numbers in order, runs of three and more written with a dash.

    >>> spans([0, 1, 2, 3, 7, 9, 10])
    ['0\u20133', '7', '9', '10']
    """
    out: list[str] = []
    run: list[int] = []
    for number in [*sorted(numbers), None]:
        if run and (number is None or number != run[-1] + 1):
            out += [str(n) for n in run] if len(run) < 3 else [f"{run[0]}\u2013{run[-1]}"]
            run = []
        if number is not None:
            run.append(number)
    return out
