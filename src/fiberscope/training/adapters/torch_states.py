"""torch optimizers as data: the rule, its constants for every parameter, and what it remembers, read lazily."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fiberscope.training.adapters.torch_modules import ModuleParameters
from fiberscope.training.drift.rules import UNKNOWN, OptimiserState

_KNOWN = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")
_BUFFERS = {
    "momentum_buffer": "momentum", "exp_avg": "first", "exp_avg_sq": "second", "max_exp_avg_sq": "maximum",
    "square_avg": "second", "grad_avg": "first", "sum": "second",
}  # fmt: skip
"""Names in the state of torch.optim, and those of `OptimiserState`."""
_SCHEDULED = ("lr", "momentum", "betas", "weight_decay")
"""Constants that schedules move."""


def optimiser_of_torch(
    optimizer: Any, names: Mapping[str, Any], *, rates: Sequence[float | Mapping[str, Any]] | None = None
) -> OptimiserState:
    """The rule of a torch optimizer with its state, by the names of the parameters.

    SGD (momentum, Nesterov, dampening), Adam, AdamW, RMSprop and Adagrad, also as subclasses that keep their `step`;
    any other is "unknown", with a note. With `maximize` the gradients count with the other sign (`gradients_of`).
    Without `rates` the constants are those of the moment, which a scheduler may have moved since the step.

    Args:
        optimizer: from torch.optim, maybe wrapped as by accelerate or Lightning.
        names: names and tensors of the parameters that are watched.
        rates: of each of its groups the learning rate in the step just taken, or a mapping of all that a scheduler may
            have moved since (`StepConstants.last`).

    Returns:
        An `OptimiserState`; its buffers are views that convert one tensor at a time.

    O(number of tensors).

    >>> torch = __import__("torch")  # doctest: +SKIP
    >>> weight = torch.nn.Parameter(torch.zeros(2))  # doctest: +SKIP
    >>> optimiser_of_torch(torch.optim.SGD([weight], lr=0.5, momentum=0.9), {"w": weight}).name  # doctest: +SKIP
    'momentum'
    """
    optimizer = bare(optimizer)
    kind = _kind(optimizer)
    rows = list(optimizer.param_groups)
    if rates is not None and len(rates) == len(rows):
        used = (rate if isinstance(rate, Mapping) else {"lr": rate} for rate in rates)
        rows = [{**group, **numbers} for group, numbers in zip(rows, used, strict=True)]
    held = {id(p): group for group in rows for p in group["params"]}
    groups = {name: held[id(p)] for name, p in names.items() if id(p) in held}
    frozen = frozenset(name for name, p in names.items() if name not in groups or not p.requires_grad)
    title = type(optimizer).__name__
    first = next(iter(groups.values()), rows[0])
    if kind is None or not groups:
        why = "holds none of the watched parameters" if kind is not None else "its steps are not understood"
        decay = _number(first.get("weight_decay", 0.0))
        return OptimiserState(
            UNKNOWN, _number(first.get("lr", 0.0)), weight_decay=decay, frozen=frozen, note=f"{title}: {why}"
        )
    base = _numbers(kind, first)
    tensors: dict[str, dict[str, Any]] = {}
    steps: dict[str, int] = {}
    own: dict[str, dict[str, float]] = {}
    for name, group in groups.items():
        state = optimizer.state.get(names[name], {})
        steps[name] = int(_number(state.get("step", 0)))
        for key, value in state.items():
            if key in _BUFFERS and value is not None:
                tensors.setdefault(_BUFFERS[key], {})[name] = value
        here = _numbers(kind, group)
        if group.get("lr_decay"):
            here["lr"] /= 1.0 + (max(1, steps[name]) - 1) * _number(group["lr_decay"])
        if different := {k: v for k, v in here.items() if base.get(k) != v or group.get("lr_decay")}:
            own[name] = different
    every = list(groups.values())
    momentum = any(_number(g.get("momentum", 0.0)) for g in every)
    kind = kind.lower()
    if kind == "sgd" and momentum:
        kind = "nesterov" if first.get("nesterov") else "momentum"
    coupled = not (kind == "adamw" or first.get("decoupled_weight_decay"))
    odd = [
        k
        for k in ("nesterov", "centered", "amsgrad", "decoupled_weight_decay")
        if len({bool(g.get(k)) for g in every}) > 1
    ]
    if odd:
        note = f"{title}: its groups of parameters differ in {odd[0]}"
        decay = base["weight_decay"]
        return OptimiserState(
            UNKNOWN, base["lr"], weight_decay=decay, coupled=coupled, groups=own, frozen=frozen, note=note
        )
    buffers = {key: ModuleParameters(rows) for key, rows in tensors.items()}
    state = OptimiserState(
        kind, coupled=coupled, groups=own, frozen=frozen, steps=steps, buffers=buffers, lr=base["lr"]
    )
    numbers: dict[str, Any] = {**base, "centred": bool(first.get("centered"))}
    return replace(state, **numbers)


class StepConstants:
    """Remembers what the groups of an optimizer held in its last step: a scheduler may step before anyone looks.

    A hook on the optimizer stores a few numbers after each of its steps, about a microsecond for each group. It goes
    with `remove`, or with this object; pickles and deep copies of the optimizer do not have it.

    Args:
        optimizer: from torch.optim, maybe wrapped; of any other type nothing is remembered.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = bare(optimizer)
        self.last: list[dict[str, Any]] | None = None
        """Of each group, None before the first step."""
        register = getattr(self.optimizer, "register_step_post_hook", None)
        own = weakref.ref(self)

        def keep(stepped: Any, *_: Any) -> None:
            here = own()
            if here is not None:
                here.last = [{key: _copied(g[key]) for key in _SCHEDULED if key in g} for g in stepped.param_groups]

        self._handle = register(keep) if callable(register) else None

    def remove(self) -> None:
        """Take the hook off; may be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.remove()

    def __del__(self) -> None:
        """No hook outlives what it tells."""
        if getattr(self, "_handle", None) is not None:
            self.remove()


def _copied(value: Any) -> Any:
    """Schedulers change a rate that is a tensor in place."""
    return value.detach().clone() if hasattr(value, "detach") else value


def gradients_of(names: Mapping[str, Any], optimizer: Any = None) -> Mapping[str, Any] | None:
    """Gradients of what is minimised, by name, converted lazily; None if there are none.

    Parameters that an optimizer maximises for have the negative of their `grad`.
    """
    turned: set[int] = set()
    if optimizer is not None:
        groups = bare(optimizer).param_groups
        turned = {id(p) for group in groups if group.get("maximize") for p in group["params"]}
    found = {name: p.grad for name, p in names.items() if p.grad is not None and not p.grad.is_sparse}
    if turned:
        found = {name: -g if id(names[name]) in turned else g for name, g in found.items()}
    return ModuleParameters(found) if found else None


def bare(optimizer: Any) -> Any:
    """The optimizer of torch inside accelerate's or Lightning's wrapper."""
    seen = 0
    while not type(optimizer).__module__.startswith("torch.optim") and seen < 5:
        inner = getattr(optimizer, "optimizer", None)
        if inner is None or not hasattr(inner, "param_groups"):
            break
        optimizer, seen = inner, seen + 1
    return optimizer


def _kind(optimizer: Any) -> str | None:
    """Name of the class of torch.optim whose `step` it uses."""
    own = getattr(type(optimizer), "step", None)
    for cls in type(optimizer).__mro__:
        if cls.__module__.startswith("torch.optim") and cls.__name__ in _KNOWN:
            return cls.__name__ if own is cls.__dict__.get("step", own) else None
    return None


def _numbers(kind: str, group: Mapping[str, Any]) -> dict[str, float]:
    """Constants of a group under the names of `OptimiserState`."""
    out = {"lr": _number(group["lr"]), "weight_decay": _number(group.get("weight_decay", 0.0))}
    if kind in ("SGD", "RMSprop"):
        out["momentum"] = _number(group.get("momentum", 0.0))
    if kind == "SGD":
        out["dampening"] = _number(group.get("dampening", 0.0))
    if "betas" in group:
        out["beta1"], out["beta2"] = (_number(b) for b in group["betas"])
    if kind == "RMSprop":
        out["beta2"] = _number(group["alpha"])
    if "eps" in group:
        out["eps"] = _number(group["eps"])
    return out


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)
