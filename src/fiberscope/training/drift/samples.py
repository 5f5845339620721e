"""What one step of an optimiser shows of every law: the terms that its recursion needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fiberscope.training.architectures.architecture import Parameters
from fiberscope.training.drift.lawvalues import Forms, Pair, Source, reader
from fiberscope.training.drift.recursions import Constants
from fiberscope.training.drift.rules import OptimiserState

Array = npt.NDArray[np.float64]

_PAIRS: dict[str, tuple[Pair, ...]] = {
    "none": (("t", "t"),),
    "gd": (("t", "t"), ("g", "g")),
    "momentum": (("t", "t"), ("v", "v")),
    "nesterov": (("t", "t"), ("g", "g"), ("g", "v"), ("v", "v")),
    "step": (("t", "t"), ("t", "u"), ("u", "u")),
    "mixed": (("t", "t"), ("t", "d"), ("d", "d")),
}
"""Which products of theta, gradient g, velocity v, direction u and step d are needed by which recursion."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One law at one step.

    Args:
        value: Q after the step.
        kind: of its recursion, a kind of `recursions.one_step`; "none" without an optimiser.
        numbers: constants of the step.
        coupled: whether decay is added to the gradient.
        forcing: terms of the recursion, (r, ...); None if the step does not show them.
        cross: <theta, v> after the step, where there is a velocity and it was asked for.
    """

    value: Array
    kind: str = "none"
    numbers: Constants = Constants(0.0)
    coupled: bool = True
    forcing: Array | None = None
    cross: Array | None = None


def sampled(
    forms: Forms,
    parameters: Parameters,
    gradients: Parameters | None = None,
    optimiser: OptimiserState | None = None,
    *,
    crossed: bool = False,
) -> list[Sample]:
    """What the step just taken shows, for every law.

    Args:
        forms: of the architecture.
        parameters: after the step.
        gradients: of the step.
        optimiser: the rule, after the step.
        crossed: whether <theta, v> is wanted too.

    Raises:
        InputError: if parameters do not fit the architecture.

    O(parameters); one pass for each kind of recursion, and there is one kind unless constants differ inside laws.
    """
    plans = [_plan(optimiser, names) for names in forms.names]
    scale = 1.0 if optimiser is None else optimiser.clipping(gradients)
    out: list[Sample] = [Sample(np.zeros(()))] * len(plans)
    for kind in dict.fromkeys(kind for kind, _ in plans):
        members = [k for k, (found, _) in enumerate(plans) if found == kind]
        sources = _sources(kind, parameters, gradients, optimiser, scale)
        solving = kind == "nesterov" and optimiser is not None and optimiser.coupled  # u depends on theta
        extra = (("t", "v"), *((("t", "g"),) if solving else ())) if "v" in sources and (crossed or solving) else ()
        pairs = (*_PAIRS[kind], *extra)
        rows = forms.values(sources, pairs, members)
        for k in members:
            out[k] = _sample(kind, plans[k][1], rows[k], optimiser, scale)
    return out


def _plan(optimiser: OptimiserState | None, names: Sequence[str]) -> tuple[str, Constants]:
    """The recursion of a law and its constants."""
    if optimiser is None:
        return "none", Constants(0.0)
    rows = {
        tuple(optimiser.number(name, what) for what in ("lr", "weight_decay", "momentum", "dampening"))
        for name in names
    }
    if len(rows) > 1:
        return "mixed", Constants(max(row[0] for row in rows))
    lr, decay, momentum, dampening = next(iter(rows))
    if not optimiser.linear or "update" in optimiser.buffers:
        return "step", Constants(lr, 0.0 if optimiser.coupled else decay)
    if optimiser.name in ("gd", "sgd"):
        return "gd", Constants(lr, decay)
    return optimiser.name, Constants(lr, decay, momentum, dampening)


def _sources(
    kind: str, parameters: Parameters, gradients: Parameters | None, optimiser: OptimiserState | None, scale: float
) -> dict[str, Source]:
    theta = reader(parameters)
    if optimiser is None:
        return {"t": theta}
    rule = optimiser

    def gradient(name: str, held: Mapping[str, Array | None]) -> object:
        return None if gradients is None or name not in gradients else gradients[name]

    def velocity(name: str, held: Mapping[str, Array | None]) -> object:
        return rule.buffer("momentum", name)

    def direction(name: str, held: Mapping[str, Array | None]) -> Array | None:
        after = held["t"]
        if after is None or rule.number(name, "lr") == 0:
            return None if after is None else np.zeros_like(after)
        found = gradient(name, held)
        return rule.direction(name, after, None if found is None else np.asarray(found), scale=scale)

    def step(name: str, held: Mapping[str, Array | None]) -> object:
        after, u, c = held["t"], direction(name, held), rule.shrink(name)
        return None if after is None or u is None else after * ((c - 1.0) / c) - u * (rule.number(name, "lr") / c)

    more: dict[str, dict[str, Source]] = {
        "gd": {"g": gradient},
        "momentum": {"v": velocity},
        "nesterov": {"v": velocity, "g": gradient},
        "step": {"u": direction},
        "mixed": {"d": step},
    }
    return {"t": theta, **more[kind]}


def _sample(
    kind: str, numbers: Constants, rows: Mapping[Pair, Array | None], optimiser: OptimiserState | None, scale: float
) -> Sample:
    coupled = optimiser is None or optimiser.coupled
    known = {pair: value for pair, value in rows.items() if value is not None}
    forcing = np.stack(_forcing(kind, numbers, known, coupled, scale)) if len(known) == len(rows) else None
    return Sample(known["t", "t"], kind, numbers, coupled, forcing, known.get(("t", "v")))


def _forcing(
    kind: str, numbers: Constants, rows: Mapping[Pair, Array], coupled: bool, scale: float
) -> tuple[Array, ...]:
    lr = numbers.lr
    if kind == "gd":
        return (scale * scale * rows["g", "g"],)
    if kind == "momentum":
        return (rows["v", "v"],)
    if kind == "step":  # theta before was (theta' + lr u) / c
        return (-lr * (2 * rows["t", "u"] + lr * rows["u", "u"]),)
    if kind == "mixed":  # Q(theta') - Q(theta' - d)
        return (2 * rows["t", "d"] - rows["d", "d"],)
    if kind == "none":
        return (np.zeros_like(rows["t", "t"]),)
    m, w = numbers.momentum, numbers.decay if coupled else 0.0  # (1 - lr w) u = scale g + m v + w theta'
    uu = scale * scale * rows["g", "g"] + 2 * scale * m * rows["g", "v"] + m * m * rows["v", "v"]
    uv = scale * rows["g", "v"] + m * rows["v", "v"]
    if w:
        uu = uu + w * w * rows["t", "t"] + 2 * w * (scale * rows["t", "g"] + m * rows["t", "v"])
        uv = uv + w * rows["t", "v"]
    return uu / (1.0 - lr * w) ** 2, uv / (1.0 - lr * w)
