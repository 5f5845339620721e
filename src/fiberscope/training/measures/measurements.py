"""One measurement of a model in training: at most 20 numbers, and what they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_generator
from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.network import Network
from fiberscope.results import jsonable
from fiberscope.training.architectures.architecture import Architecture, Array, Parameters, checked_architecture
from fiberscope.training.measures.classcounts import APPROXIMATE, count_classes, levels_of
from fiberscope.training.measures.condensing import DirectionSearch
from fiberscope.training.measures.nearest import Near, PairSearch, nearest_null
from fiberscope.training.measures.pairs import Neurons, gram_blocks
from fiberscope.training.measures.silence import silent_units

PREFIX = "fiberscope"
_WIDE = 256
"""Neurons up to which all pairs are compared exactly; above, contracted ones are, which proves less."""
_BINS = 24


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured at one moment.

    Args:
        scalars: by name, `fiberscope/<group>/<name>`; a number that does not apply is left out, none is NaN.
        layers: by population, the numbers that the scalars sum up, JSON-ready.
        nearest: of every population the nearest manifolds, nearest first.
        histograms: by population and quantity, on request: {"edges": [...], "counts": [...]}.
        notes: what was left out, and why.
    """

    scalars: dict[str, float]
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    nearest: tuple[Near, ...] = ()
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "scalars": jsonable(self.scalars), "layers": jsonable(self.layers), "nearest": jsonable(self.nearest),
            "histograms": jsonable(self.histograms), "notes": list(self.notes),
        }  # fmt: skip


def measure(
    params: Any, architecture: Architecture | None = None, *, data: Any = None,
    activations: Mapping[str, Array] | None = None, domain: Box | str | None = None,
    tolerances: Sequence[float | None] | None = None, tables: bool = False, histograms: bool = False,
    orbit: bool = False, thorough: bool = False, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Numbers that say how near a model is to merging, condensing or losing neurons, by name.

    * `sims/nearest_distance`: distance of the parameters to the nearest manifold where two neurons are equal, opposite
      (odd activations), or one has no weights; `sims/nearest_relative`: the smallest such distance over the median
      length of the neurons of its layer (perhaps of another layer).
    * `sims/classes_exact`, `_numerical`, `_approximate`: different neurons that are not null, at three tolerances;
      `sims/neurons`: how many there are.
    * `condensation/directions`, `/effective_directions`: directions of the incoming weights and their participation
      ratio, summed over layers; `/stable_rank`: the smallest of a layer.
    * `dead/on_data` (with data or activations), `dead/every_input` (proved), of `dead/units`.
    * `orbit/dimension`, on request: of the smallest known invariant manifold that holds the parameters (plain chains).

    Args:
        params: mapping of names to arrays, a Network, or a torch module.
        architecture: which axes index neurons; may be None for a Network or a torch module.
        data: (samples, inputs) for plain chains. Costs a forward pass: 128 samples are much in a training of batch 128.
        activations: outputs by population, (samples, neurons, ...), instead of data.
        domain: of the inputs, for `dead/every_input` of plain chains; all real inputs without.
        tolerances: exact, numerical and approximate, relative; None for the defaults (see `levels_of`).
        tables: also `<group>/<name>/<population>` of every layer.
        histograms: also the deciles of the lengths of neurons, `histograms/length_<p>/<population>`.
        orbit: also the orbit dimension.
        thorough: compare all pairs also in layers of more than 256 neurons. There by default random contractions to
            1/8 of the entries find candidates: what is near is found all the same, and classes and directions are
            exact, but the distance of a nearest pair that is not near may be some per cent too large (`Near.lower`
            says what is proved), and `effective_directions` is an estimate.
        seed: of random contractions.

    Returns:
        At most 13 numbers by default, all finite.

    Raises:
        InputError: if parameters and architecture do not fit, or a mapping comes without one.

    Complexity: O(sum over populations of n^2 D) by matrix products for n <= 256 neurons of D entries, 1/8 of that
    above; no copy of the parameters is made, only of one part of them where an axis must be moved.
    Source: arXiv 2510.09564 (invariant manifolds), theory page (detection, condensation).

    >>> net = Network.from_arrays(([[1.0], [1.0], [3.0]], [0, 0, 0]), ([[2.0, 2.0, 1.0]], [0]), activation="tanh")
    >>> found = measure(net)
    >>> found["fiberscope/sims/nearest_distance"], found["fiberscope/sims/classes_exact"]
    (0.0, 2.0)
    """
    found = measured(
        params, architecture, data=data, activations=activations, domain=domain, tolerances=tolerances,
        histograms=histograms, orbit=orbit, thorough=thorough, seed=seed,
    )  # fmt: skip
    out = dict(found.scalars)
    if tables:
        for name, row in found.layers.items():
            for key, value in row.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and "/" in key:
                    out[f"{PREFIX}/{key}/{name}"] = float(value)
    for name, columns in found.histograms.items():
        for p, value in zip((0, 10, 50, 90, 100), columns["length"]["deciles"], strict=True):
            out[f"{PREFIX}/histograms/length_{p}/{name}"] = float(value)
    return out


def measured(
    params: Any, architecture: Architecture | None = None, *, data: Any = None,
    activations: Mapping[str, Array] | None = None, domain: Box | str | None = None,
    tolerances: Sequence[float | None] | None = None, histograms: bool = False, orbit: bool = False,
    thorough: bool = False, seed: int = 0, memory: dict[str, Array] | None = None,
) -> Measurement:  # fmt: skip
    """The numbers of `measure` with the layers, nearest manifolds and histograms behind them.

    Args: see `measure`; and
        memory: what one measurement of a run leaves to the next, a vector of each wide layer. Written in place: give
            the same dictionary again, empty at first. Stable ranks then come faster, and a little nearer to the truth.

    Raises:
        InputError: if parameters and architecture do not fit.

    >>> net = Network.from_arrays(([[1.0], [1.0], [3.0]], [0, 0, 0]), ([[2.0, 2.0, 1.0]], [0]), activation="tanh")
    >>> [near.neurons for near in measured(net).nearest]
    [(0, 1), (0,)]
    """
    model, values = _model_of(params, None if architecture is None else checked_architecture(architecture))
    rng = as_generator(seed)
    if memory is not None and not isinstance(memory, dict):
        raise InputError(f"memory is a {type(memory).__name__}; give the same dictionary at every measurement, or None")
    layers: dict[str, dict[str, Any]] = {p.name: {"kind": p.kind, "neurons": p.count} for p in model.populations}
    nearest: list[Near] = []
    pictures: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for p in model.populations:
        if not p.exchangeable:
            continue
        neurons = Neurons.of(model, values, p.name)
        if neurons is None:
            notes.append(f"{p.name}: no weights, or some are not finite; left out")
            continue
        row, found = _population(model, values, neurons, tolerances, rng, thorough, {} if memory is None else memory)
        layers[p.name].update(row)
        nearest += found
        if histograms:
            pictures[p.name] = {"length": _histogram(neurons.lengths)}
    silence = silent_units(model, values, data=data, activations=activations, domain=domain)
    for name, silent in silence.items():
        layers[name]["dead/units"] = len(silent.every_input)
        layers[name]["dead/every_input"] = int(silent.every_input.sum())
        if silent.on_data is not None:
            layers[name]["dead/on_data"] = int(silent.on_data.sum())
    nearest.sort(key=lambda near: near.distance)
    scalars = _scalars(layers, nearest)
    if orbit:
        dimension, note = _orbit_dimension(model, values)
        if dimension is not None:
            scalars[f"{PREFIX}/orbit/dimension"] = float(dimension)
        notes += [note] if note else []
    return Measurement(scalars, layers, tuple(nearest), pictures, tuple(notes))


def _model_of(params: Any, architecture: Architecture | None) -> tuple[Architecture, Parameters]:
    from fiberscope.training.architectures.chains import chain_architecture, parameters_of

    if isinstance(params, Network):
        return architecture or chain_architecture(params), parameters_of(params)
    if isinstance(params, Mapping):
        if architecture is None:
            raise InputError(
                "arrays alone do not say which axes index neurons; give architecture=, for instance "
                "architecture_of(params, activation=...) for a plain chain"
            )
        return architecture, params
    if hasattr(params, "named_parameters"):
        from fiberscope.training.adapters.torch import architecture_of_module, parameters_of_module

        return architecture or architecture_of_module(params), parameters_of_module(params)
    raise InputError(f"expected a mapping of names to arrays, a Network or a torch module, got {type(params).__name__}")


def _population(
    model: Architecture, values: Parameters, neurons: Neurons, tolerances: Sequence[float | None] | None,
    rng: np.random.Generator, thorough: bool, memory: dict[str, Array],
) -> tuple[dict[str, Any], list[Near]]:  # fmt: skip
    """Everything about one population that its slices tell; the Gram matrices are gone through once."""
    p = neurons.population
    levels = levels_of(neurons, tolerances)
    source = neurons if thorough or neurons.count <= _WIDE else neurons.contracted(rng)
    pairs = PairSearch(neurons, source, max(levels[2], APPROXIMATE))
    layered = p.kind in ("neurons", "channels") and neurons.incoming > 0
    directions = DirectionSearch(neurons, source) if layered else None
    for at, products, whole in gram_blocks(source):
        if whole:
            pairs.block(at, products)
        elif directions is not None:
            directions.block(at, products)
    counts = count_classes(neurons, pairs.near.groups(), levels, pairs.shortlist)
    found = [near for near in (pairs.nearest(model, values), nearest_null(model, values, neurons)) if near is not None]
    row: dict[str, Any] = {
        "sims/classes_exact": counts[0], "sims/classes_numerical": counts[1], "sims/classes_approximate": counts[2],
        "typical_length": neurons.typical, "tolerances": list(levels),
    }  # fmt: skip
    if found:
        row["sims/nearest_distance"] = min(near.distance for near in found)
        row["sims/nearest_relative"] = min(near.relative for near in found)
        row["sims/nearest_proved"] = min(near.lower for near in found)  # the nearest found may not be the nearest
    if directions is not None:
        state, vector = directions.result(rng, memory.get(p.name))
        if vector is not None:
            memory[p.name] = vector
        row["condensation/directions"] = state.directions
        row["effective_directions_exact"] = state.exact
        for key, value in (("effective_directions", state.effective_directions), ("stable_rank", state.stable_rank)):
            if value is not None:
                row[f"condensation/{key}"] = value
    return row, found


def _scalars(layers: Mapping[str, Mapping[str, Any]], nearest: Sequence[Near]) -> dict[str, float]:
    out: dict[str, float] = {}
    if nearest:
        out[f"{PREFIX}/sims/nearest_distance"] = float(nearest[0].distance)
        out[f"{PREFIX}/sims/nearest_relative"] = float(min(near.relative for near in nearest))
    counted = [row for row in layers.values() if "sims/classes_exact" in row]
    if counted:
        out[f"{PREFIX}/sims/neurons"] = float(sum(row["neurons"] for row in counted))
    for key in (
        "sims/classes_exact", "sims/classes_numerical", "sims/classes_approximate", "condensation/directions",
        "condensation/effective_directions", "dead/on_data", "dead/every_input", "dead/units",
    ):  # fmt: skip
        values = [row[key] for row in layers.values() if key in row]
        if values:
            out[f"{PREFIX}/{key}"] = float(sum(values))
    ranks = [row["condensation/stable_rank"] for row in layers.values() if "condensation/stable_rank" in row]
    if ranks:
        out[f"{PREFIX}/condensation/stable_rank"] = float(min(ranks))
    return out


def _histogram(lengths: npt.NDArray[np.float64]) -> dict[str, Any]:
    top = float(lengths.max(initial=0.0))
    counts, edges = np.histogram(lengths, bins=_BINS, range=(0.0, top if top > 0 else 1.0))
    deciles = np.quantile(lengths, [0.0, 0.1, 0.5, 0.9, 1.0]) if lengths.size else np.zeros(5)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "deciles": deciles.tolist()}


def _orbit_dimension(model: Architecture, values: Parameters) -> tuple[int | None, str]:
    """Dimension of the smallest known manifold: what the orbit fills, as far as is known, or why there is none."""
    from fiberscope.invariants.classes.smallest import smallest_sim

    if not model.chain:
        return None, "orbit/dimension: only for plain chains of dense layers"
    if model.parameter_count > _LARGEST_ORBIT:
        return None, f"orbit/dimension: {model.parameter_count} parameters, at most {_LARGEST_ORBIT}"
    try:
        return smallest_sim(model.network(values)).dimension, ""
    except InputError as exc:
        return None, f"orbit/dimension: {exc}"


_LARGEST_ORBIT = 20_000_000
