"""States of optax as optimisers of no framework: what a state shows is read, what hides in closures is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import shown
from fiberscope.errors import InputError
from fiberscope.training.adapters.jax_trees import Leaves, leaves_of
from fiberscope.training.drift.rules import UNKNOWN, OptimiserState

_MOMENTS = {
    "TraceState": ("momentum", {"trace": "momentum"}),
    "ScaleByAdamState": ("adam", {"mu": "first", "nu": "second"}),
    "ScaleByRmsState": ("rmsprop", {"nu": "second"}),
    "ScaleByRmsWithCountState": ("rmsprop", {"nu": "second"}),
    "ScaleByRStdDevState": ("rmsprop", {"mu": "first", "nu": "second"}),
    "ScaleByRStdDevWithCountState": ("rmsprop", {"mu": "first", "nu": "second"}),
    "ScaleByRssState": ("adagrad", {"sum_of_squares": "second"}),
}
"""Rule and buffers of the states of optax that have a meaning here."""
_ASSUMED_MOMENTUM = (
    "optax: plain momentum is assumed; Nesterov's has the same state, so say rule='momentum', rule='nesterov', or give "
    "the updates"
)
_ASSUMED = (
    "optax: Adam is assumed; NAdam, Adamax and LAMB have the same state, so say rule='adam', rule='nadam', or give the "
    "updates"
)
_WRAPPERS = {"InjectHyperparamsState", "InjectStatefulHyperparamsState", "ApplyIfFiniteState", "MaskedState"}
_SILENT = {"EmptyState", "ScaleByScheduleState", "WrappedScheduleState", "MaskedNode"}
_KEYS = {
    "learning_rate": "lr", "momentum": "momentum", "decay": "momentum", "b1": "beta1", "b2": "beta2", "eps": "eps",
    "eps_root": "eps_root", "weight_decay": "weight_decay",
}  # fmt: skip


@dataclass
class _Found:
    """What a walk through a state meets."""

    rules: list[str] = field(default_factory=list)
    buffers: dict[str, Leaves] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    empty: int = 0
    schedules: int = 0
    centred: bool = False
    reasons: list[str] = field(default_factory=list)


def optimiser_of_optax(
    opt_state: Any,
    *,
    lr: float | Callable[[int], Any] | None = None,
    rule: str | None = None,
    momentum: float | None = None,
    nesterov: bool | None = None,
    betas: tuple[float, float] | None = None,
    eps: float | None = None,
    eps_root: float | None = None,
    weight_decay: float | None = None,
    coupled: bool | None = None,
    clip: float | None = None,
    groups: Mapping[str, Mapping[str, float]] | None = None,
    updates: Any = None,
) -> OptimiserState:
    """The optimiser behind a state of optax, as it was in the step just taken.

    Moments, counts and what `optax.inject_hyperparams` shows are read from the named tuples of the state. Everything
    else is closed over by optax and must be given: the learning rate always, a momentum where there is a trace, decay
    where the chain has stateless members that may be a decay. Betas and eps are optax's defaults if not given.

    Args:
        opt_state: what `tx.init` or `tx.update` returned; or an object with one, such as `nnx.Optimizer` or a
            `TrainState`.
        lr: learning rate, or a schedule: a function of the number of steps before this one.
        rule: gd, sgd, momentum, nesterov, adam, adamw, nadam, nadamw, rmsprop or adagrad; None reads it off the state.
            The state of Adam is also that of NAdam, Adamax and LAMB: with None, Adam is assumed and a note says so.
        momentum: decay of the trace.
        nesterov: whether the trace is Nesterov's, or Adam is NAdam. The states of plain and of Nesterov's momentum are
            the same: with neither this nor `rule`, the plain one is assumed and a note says so.
        betas: of the moments; RMSprop's decay is the second.
        eps: added to the root of the second moment.
        eps_root: added inside the root.
        weight_decay: rate of decay; 0 says that there is none.
        coupled: whether decay is added to the gradients before the rule; None: not for Adam, else yes.
        clip: bound of the gradients' norm (`clip_by_global_norm`).
        groups: numbers that differ for single parameters, such as {"params/Dense_0/bias": {"weight_decay": 0.0}}
            for a masked decay.
        updates: what was added to the parameters in this step (the first value of `tx.update`): then any
            transformation is understood.

    Returns:
        The state; "unknown" with a note for transformations without a meaning here (Lion, several rules in one).

    Raises:
        InputError: if a number is hidden that was not given (all of them are named), or the rule does not fit.

    O(leaves); buffers are converted when they are read.

    >>> import collections
    >>> TraceState = collections.namedtuple("TraceState", "trace")
    >>> state = optimiser_of_optax((TraceState({"w": np.ones(2)}), ()), lr=0.1, momentum=0.9)
    >>> state.name, state.buffer("momentum", "w").tolist()
    ('momentum', [1.0, 1.0])
    """
    found = _Found()
    _walk(getattr(opt_state, "opt_state", opt_state), found)
    steps = max(found.counts, default=0)
    if updates is not None:
        note = "its updates are given"
        return OptimiserState(UNKNOWN, 1.0, buffers={"update": _Negated(leaves_of(updates))}, steps=steps, note=note)
    ahead = found.rules == ["adam"] and (nesterov or (rule or "").lower().startswith("nadam"))
    name, note = _rule(found, rule, nesterov)
    given: dict[str, Any] = {"momentum": momentum, "eps": eps, "eps_root": eps_root, "weight_decay": weight_decay}
    given["lr"] = lr(max(0, steps - 1)) if callable(lr) else lr
    if betas is not None and (not isinstance(betas, tuple | list) or len(betas) != 2):
        raise InputError(f"betas = {betas!r}; give the pair (beta1, beta2)")
    given["beta1"], given["beta2"] = betas if betas is not None else (None, None)
    numbers = {**found.numbers, **{key: _number(v, key) for key, v in given.items() if v is not None}}
    if name == UNKNOWN:
        return OptimiserState(UNKNOWN, numbers.get("lr", 0.0), steps=steps, note=note)
    numbers = {**_defaults(name), **numbers}
    _complete(name, found, numbers, clip)
    options: dict[str, Any] = {
        "coupled": not name.startswith("adam") if coupled is None else coupled, "centred": found.centred, "clip": clip,
        "groups": groups or {}, "buffers": dict(found.buffers), "steps": steps, "note": note, "lookahead": ahead,
        **numbers,
    }  # fmt: skip
    return OptimiserState(name, **options)


def _number(value: Any, name: str) -> float:
    try:
        found = np.asarray(value)
    except ValueError:
        raise InputError(f"{name} = {shown(value)}; give a number") from None
    if found.ndim or found.dtype.kind not in "fiu":
        raise InputError(f"{name} = {shown(value)}; give a number")
    return float(found)


def _walk(state: Any, found: _Found) -> None:
    kind = type(state).__name__
    if kind in _MOMENTS:
        rule, fields = _MOMENTS[kind]
        found.rules.append(rule)
        found.centred |= kind.startswith("ScaleByRStdDev")
        found.buffers.update({buffer: leaves_of(getattr(state, name)) for name, buffer in fields.items()})
        found.counts += _count(state)
    elif kind in _WRAPPERS:
        for key, value in getattr(state, "hyperparams", {}).items():
            if key in _KEYS:
                found.numbers[_KEYS[key]] = float(
                    np.asarray(value.get_value() if hasattr(value, "get_value") else value)
                )
        before = len(found.rules)
        if hasattr(state, "hyperparams"):
            found.counts += _count(state)
        _walk(state.inner_state, found)
        if kind == "MaskedState" and len(found.rules) > before:
            found.reasons.append("its rule is masked: the gradients of other parameters pass through")
    elif kind in _SILENT:
        found.empty += kind == "EmptyState"
        found.schedules += kind == "ScaleByScheduleState"
        found.counts += _count(state)
    elif kind in ("MultiStepsState", "PartitionState", "MultiTransformState"):
        what = "adds up gradients of several steps" if kind == "MultiStepsState" else "has a rule for each group"
        found.reasons.append(f"{kind} {what}")
    elif isinstance(state, tuple) and not hasattr(state, "_fields"):
        for part in state:
            _walk(part, found)
    elif isinstance(state, list):
        found.reasons.append("its state is a list, not a state of optax")
    elif state is not None:
        found.reasons.append(f"{kind} has no meaning here")


def _count(state: Any) -> list[int]:
    if "count" not in getattr(state, "_fields", ()):
        return []
    count = state.count
    return [int(np.asarray(count.get_value() if hasattr(count, "get_value") else count))]


def _rule(found: _Found, rule: str | None, nesterov: bool | None) -> tuple[str, str]:
    """(name, note) of the rule."""
    if found.reasons:
        return UNKNOWN, f"optax: {'; '.join(dict.fromkeys(found.reasons))}"
    if found.rules == ["rmsprop", "momentum"]:
        return UNKNOWN, "optax: momentum of steps that are scaled by RMSprop and the rate"
    if len(found.rules) > 1:
        return UNKNOWN, f"optax: several rules in one chain ({', '.join(found.rules)})"
    shown = found.rules[0] if found.rules else "sgd"
    if nesterov and shown not in ("momentum", "adam"):
        raise InputError(f"nesterov=True does not fit the state, which is one of {shown}: it has no momentum")
    name = "nesterov" if nesterov and shown == "momentum" else shown
    plain = _ASSUMED_MOMENTUM if shown == "momentum" and nesterov is None else ""
    if rule is None:
        return name, _ASSUMED if shown == "adam" and not nesterov else plain
    if not isinstance(rule, str):
        raise InputError(f"rule is a {type(rule).__name__}; give a name such as 'adam', or None to have it read")
    key = rule.lower()
    if shown == "adam":
        key = {"nadam": "adam", "nadamw": "adamw"}.get(key, key)
    key = {"gd": "sgd"}.get(key, key) if shown == "sgd" else key
    fits = {"momentum": {"momentum", "nesterov"}, "adam": {"adam", "adamw"}}.get(shown, {shown})
    if key == "sgd" and shown == "momentum":
        return name, plain
    if key not in fits:
        raise InputError(
            f"rule={rule!r} does not fit the state, which is one of {' or '.join(sorted(fits))}"
            + (" (or nadam, nadamw)" if shown == "adam" else "")
        )
    return key, ""


def _defaults(name: str) -> dict[str, float]:
    """Numbers that are optax's own defaults."""
    if name in ("adam", "adamw"):
        return {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    if name == "rmsprop":
        return {"beta2": 0.9, "eps": 0.0, "eps_root": 1e-8}
    return {"eps": 0.0, "eps_root": 1e-7} if name == "adagrad" else {}


def _complete(name: str, found: _Found, numbers: dict[str, float], clip: float | None) -> None:
    """Refuse a state some of whose numbers nobody said."""
    missing = [] if "lr" in numbers else ["lr"]
    if name in ("momentum", "nesterov") and "momentum" not in numbers:
        missing.append("momentum")
    own = max(0, 1 - found.schedules) + (name in ("sgd", "rmsprop"))  # the rate, and where a momentum might be
    spare = found.empty - own - (clip is not None)
    if spare > 0 and "weight_decay" not in numbers:
        missing.append("weight_decay (or clip; 0 if the chain has none)")
    if missing:
        raise InputError(
            f"a state of optax does not show everything: give {', '.join(missing)} for this {name}, or wrap the "
            "optimiser in optax.inject_hyperparams"
        )


class _Negated(Mapping[str, npt.NDArray[Any]]):
    """What is subtracted, where updates are added."""

    def __init__(self, values: Leaves) -> None:
        self._values = values

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return np.negative(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
