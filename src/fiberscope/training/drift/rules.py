"""What an optimiser is and remembers, as data of no framework, and the direction of its last step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError
from fiberscope.invariants.dynamics.updates import FAMILIES, Family, Optimiser
from fiberscope.training.architectures.architecture import Parameters

Array = npt.NDArray[Any]

UNKNOWN = "unknown"
"""Name of a rule that is not understood; only its decay is predicted, unless its updates are given."""
BUFFERS = ("momentum", "first", "second", "maximum", "update")
"""What `OptimiserState.buffers` may hold, each a mapping from parameter names to arrays, after the step."""
_NUMBERS = ("lr", "momentum", "dampening", "beta1", "beta2", "eps", "eps_root", "weight_decay")
_BLOCK = 1 << 15
"""Entries of a direction that are computed at a time."""
_LINEAR = ("gd", "sgd", "momentum", "nesterov")


@dataclass(frozen=True, eq=False)
class OptimiserState:
    """An update rule with its constants and what it remembers, as they were in the step just taken.

    One step is, with c = 1 - lr * weight_decay if decay is decoupled and c = 1 else,

        theta' = c theta - lr u,
        h = g + weight_decay theta if decay is coupled, g else (g the gradient, clipped),
        gd, sgd:   u = h
        momentum:  v' = momentum v + (1 - dampening) h, u = v' (in the very first step v' = h)
        nesterov:  the same v', u = h + momentum v'
        adam(w):   m' = beta1 m + (1 - beta1) h, s' = beta2 s + (1 - beta2) h^2,
                   u = n / (sqrt(s' / (1 - beta2^t) + eps_root) + eps), n = m' / (1 - beta1^t), or as in optax's nadam
                   n = beta1 m' / (1 - beta1^(t + 1)) + (1 - beta1) h / (1 - beta1^t)
        rmsprop:   s' likewise, u = h / (sqrt(s' + eps_root) + eps); with momentum, v' = momentum v + that, u = v'
        adagrad:   s' = s + h^2, u = h / (sqrt(s' + eps_root) + eps)
        sign:      u = sign(h)

    as in torch.optim; optax's rmsprop and adagrad have their eps inside the root: `eps_root`.

    Args:
        name: gd, sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, sign, muon or unknown.
        lr: the learning rate that the step used (a scheduler may since have changed it).
        momentum: of momentum, nesterov and rmsprop.
        dampening: as in torch.optim.SGD.
        beta1: of Adam.
        beta2: of Adam; the average's decay in RMSprop.
        eps: added to the root of the second moment.
        eps_root: added inside the root.
        weight_decay: rate of decay.
        coupled: whether decay is added to the gradient, else theta shrinks by itself. Alike for gd and sgd up to
            the rounding of a float.
        centred: whether RMSprop subtracts the square of the mean gradient ("first").
        clip: bound of the Euclidean norm of all gradients, to be applied to the gradients as they are given; None if
            they are clipped already (`clip_grad_norm_` works in place).
        groups: numbers that differ for single parameters: {"fc.bias": {"weight_decay": 0.0}}.
        frozen: parameters that the optimiser does not change.
        buffers: what it remembers, after the step: {"momentum": {name: v'}}, "first" (m'), "second" (s'),
            "maximum" (AMSGrad, used instead of "second"), "update" (u itself, of any rule). Values may be converted
            lazily: any mapping whose values `numpy.asarray` takes.
        steps: number t of steps taken, the last included; one number, or one for each parameter.
        note: why the rule is not understood, for "unknown"; else what is assumed of it.
        lookahead: whether Adam is NAdam, as in optax.

    Raises:
        InputError: for an unknown name, buffer or number.

    >>> state = OptimiserState("momentum", 0.1, momentum=0.9, groups={"b": {"weight_decay": 0.5}})
    >>> state.number("b", "weight_decay"), state.number("w", "weight_decay"), state.rule().momentum
    (0.5, 0.0, 0.9)
    """

    name: str
    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: float = 0.0
    coupled: bool = True
    centred: bool = False
    clip: float | None = None
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    buffers: Mapping[str, Parameters] = field(default_factory=dict, repr=False)
    steps: int | Mapping[str, int] = 0
    note: str = ""
    lookahead: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not isinstance(self.name, str) or (self.name not in FAMILIES and self.name != UNKNOWN):
            raise InputError(f"unknown optimiser {self.name!r}; known: {', '.join(FAMILIES)}, {UNKNOWN}")
        for key in _NUMBERS:
            value = getattr(self, key)
            plain = isinstance(value, int | float | np.number) or getattr(value, "ndim", None) == 0
            if isinstance(value, bool) or not plain:
                raise InputError(f"{key} of {self.name}: {value!r}; give a number")
        for key in ("groups", "buffers"):
            if not isinstance(getattr(self, key), Mapping):
                raise InputError(f"{key} of {self.name}: {getattr(self, key)!r}; give a mapping of names")
        strange = set(self.buffers) - set(BUFFERS)
        if strange:
            raise InputError(f"unknown buffer {sorted(strange)[0]!r}; known: {', '.join(BUFFERS)}")
        if not all(isinstance(row, Mapping) for row in self.groups.values()):
            raise InputError(f"groups of {self.name}: {self.groups!r}; give numbers by name for each parameter")
        strange = {key for row in self.groups.values() for key in row} - set(_NUMBERS)
        if strange:
            raise InputError(f"unknown number {sorted(strange)[0]!r} in groups; known: {', '.join(_NUMBERS)}")

    @classmethod
    def from_name(cls, name: str, lr: float, *, nesterov: bool = False, **options: Any) -> OptimiserState:
        """A rule by a name that people use, such as "SGD" or "AdamW", with torch's usual constants.

        Args:
            name: a name of `OptimiserState`, in any case; SGD with a momentum becomes "momentum" or "nesterov".
            lr: learning rate.
            nesterov: whether SGD's momentum is Nesterov's, or Adam is optax's NAdam.
            options: fields of `OptimiserState`, or betas=(beta1, beta2).

        Returns:
            The state; "unknown" with a note for a name without a meaning here (Lion, LBFGS, ...).

        Raises:
            InputError: for an unknown option.

        >>> OptimiserState.from_name("SGD", 0.1, momentum=0.9).name
        'momentum'
        >>> OptimiserState.from_name("LBFGS", 1.0).note
        'the steps of LBFGS are not understood'
        """
        if "betas" in options:
            options["beta1"], options["beta2"] = options.pop("betas")
        known = {f.name for f in fields(cls)} - {"name", "lr"}
        if not set(options) <= known:
            raise InputError(f"unknown option {sorted(set(options) - known)[0]!r}; known: {', '.join(sorted(known))}")
        key = name.lower()
        if key in ("sgd", "gd") and options.get("momentum"):
            key = "nesterov" if nesterov else "momentum"
        usual: dict[str, Any] = {}
        if key in ("momentum", "nesterov", "muon"):
            usual = {"momentum": 0.9}
        elif key == "adamw":
            usual = {"weight_decay": 0.01, "coupled": False, "lookahead": nesterov}
        elif key == "adam":
            usual = {"lookahead": nesterov}
        elif key == "rmsprop":
            usual = {"beta2": 0.99}
        elif key == "adagrad":
            usual = {"eps": 1e-10}
        elif key not in FAMILIES:
            key, usual = UNKNOWN, {"note": f"the steps of {name} are not understood"}
        return replace(cls(key, lr), **(usual | options))

    @property
    def family(self) -> Family | None:
        """How the update depends on the gradients; None for an unknown rule."""
        return FAMILIES.get(self.name)

    @property
    def linear(self) -> bool:
        """Whether the rule is linear in the gradients, so that laws predict its drift from sizes of gradients alone."""
        return self.name in _LINEAR

    def rule(self) -> Optimiser:
        """The same as `invariants.dynamics.updates.Optimiser`, for `optimiser_keeps`.

        Raises:
            InputError: for an unknown rule.
        """
        if self.name == UNKNOWN:
            raise InputError(self.note or "the optimiser is not understood")
        first = self.beta1 if self.name.startswith("adam") else self.momentum
        return Optimiser(
            self.name, self.lr, first, self.beta2, self.eps, self.weight_decay, self.coupled, clip=self.clip
        )

    def number(self, parameter: str, what: str) -> float:
        """A constant of the rule for one parameter: lr, momentum, dampening, beta1, beta2, eps, eps_root, weight_decay.

        Parameters that the optimiser does not hold have lr 0.
        """
        if what == "lr" and parameter in self.frozen:
            return 0.0
        value = self.groups.get(parameter, {}).get(what)
        return float(getattr(self, what) if value is None else value)

    def shrink(self, parameter: str) -> float:
        """The factor c of decoupled decay; 1 if decay is coupled."""
        return 1.0 if self.coupled else 1.0 - self.number(parameter, "lr") * self.number(parameter, "weight_decay")

    def count(self, parameter: str) -> int:
        """Number of steps the parameter has taken."""
        return int(self.steps.get(parameter, 0)) if isinstance(self.steps, Mapping) else int(self.steps)

    def buffer(self, what: str, parameter: str) -> Array | None:
        """What the rule remembers of a parameter, None if nothing."""
        held = self.buffers.get(what)
        if held is None or parameter not in held:
            return None
        value = held[parameter]
        return None if value is None else np.asarray(value)

    def direction(self, parameter: str, after: Array, gradient: Array | None, *, scale: float = 1.0) -> Array | None:
        """The u of the step just taken, theta' = c theta - lr u, from what is remembered; None if that is not enough.

        Args:
            parameter: its name.
            after: its value theta' after the step.
            gradient: g of the step; Adam does without.
            scale: factor of clipping.

        Returns:
            An array of the parameter's shape, float32 or float64 as what it is made from; O(size), one array of it.

        >>> state = OptimiserState("gd", 0.5, weight_decay=1.0)  # theta = 2, g = 1: u = 3, theta' = 0.5
        >>> state.direction("w", np.array([0.5]), np.array([1.0]))
        array([3.])
        """
        given = self.buffer("update", parameter)
        if given is not None:
            return _floats(given)
        if self.name in ("adam", "adamw"):
            top = self.buffer("first", parameter)
            return self._adaptive(parameter, self._ahead(parameter, top, gradient, scale) if self.lookahead else top)
        held = self.buffer("momentum", parameter)
        if self.name == "momentum" or (self.name == "rmsprop" and self.number(parameter, "momentum")):
            return None if held is None else _floats(held)
        if gradient is None or self.name in ("muon", UNKNOWN):
            return None
        g = _floats(gradient) if scale == 1.0 else _floats(gradient) * scale
        rate = self.number(parameter, "lr")
        decay = self.number(parameter, "weight_decay") if self.coupled else 0.0
        if self.name in ("gd", "sgd", "nesterov"):
            if self.name == "nesterov":
                if held is None:
                    return None
                g = g + self.number(parameter, "momentum") * _floats(held)
            if decay:  # h = g + decay theta and theta = theta' + rate u, solved for u
                g = g + decay * after
                g /= 1.0 - rate * decay
            return g
        if decay:
            return None  # theta before the step is no longer known, and u depends on it entry by entry
        return np.sign(g) if self.name == "sign" else self._adaptive(parameter, g)

    def _ahead(self, parameter: str, first: Array | None, gradient: Array | None, scale: float) -> Array | None:
        """What NAdam has instead of m', before the division by 1 - beta1^t."""
        if first is None or gradient is None or (self.coupled and self.number(parameter, "weight_decay")):
            return None  # theta before the step, part of h, is no longer known
        beta, count = self.number(parameter, "beta1"), max(1, self.count(parameter))
        factor = beta * (1.0 - beta**count) / (1.0 - beta ** (count + 1))
        return factor * _floats(first) + (1.0 - beta) * scale * _floats(gradient)

    def _adaptive(self, parameter: str, top: Array | None) -> Array | None:
        bottom = self.buffer("maximum", parameter)
        bottom = self.buffer("second", parameter) if bottom is None else bottom
        if top is None or bottom is None:
            return None
        count, below, above = max(1, self.count(parameter)), 1.0, 1.0
        if self.name in ("adam", "adamw"):
            below = 1.0 / (1.0 - self.number(parameter, "beta2") ** count)
            above = 1.0 / (1.0 - self.number(parameter, "beta1") ** count)
        mean = self.buffer("first", parameter) if self.centred else None
        if self.centred and mean is None:
            return None
        root, eps = self.number(parameter, "eps_root"), self.number(parameter, "eps")
        shape = bottom.shape
        top, bottom = np.atleast_1d(_floats(top)), np.atleast_1d(_floats(bottom))
        out = np.empty(top.shape, np.result_type(top, bottom))
        step = max(1, _BLOCK * len(out) // max(out.size, 1))
        factor = 1.0
        if not root and mean is None:  # the root of `below` then comes out of the sum
            factor = math.sqrt(below)
            eps, below = eps / factor, 1.0
        for at in range(0, len(out), step):  # a part that stays in the cache
            part, square = out[at : at + step], bottom[at : at + step]
            if below != 1.0 or root or mean is not None:
                square = np.multiply(square, below, out=part)
            if mean is not None:
                part -= np.square(_floats(mean).reshape(top.shape)[at : at + step])
                np.maximum(part, 0.0, out=part)
            if root:
                part += root
            np.sqrt(square, out=part)
            part += eps
            if not eps:
                part[part == 0] = np.inf  # u = 0 where the gradient was always 0
            np.divide(top[at : at + step], part, out=part)
            if above != factor:
                part *= above / factor
        return out.reshape(shape)

    def clipping(self, gradients: Parameters | None) -> float:
        """The factor that clipping gives all gradients; O(parameters) if there is a bound, else O(1).

        >>> OptimiserState("gd", 0.1, clip=1.0).clipping({"w": np.array([3.0, 4.0])})
        0.2
        """
        if self.clip is None or gradients is None:
            return 1.0
        squares = (_square(gradients[name]) for name in gradients)
        size = math.sqrt(math.fsum(squares))
        return min(1.0, self.clip / size) if size > 0 else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The rule and its constants, JSON-ready, without what it remembers.

        >>> OptimiserState("gd", 0.1).to_dict()["name"]
        'gd'
        """
        left_out = ("buffers", "steps", "groups", "frozen")
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {**out, "groups": {k: dict(v) for k, v in self.groups.items()}, "frozen": sorted(self.frozen)}


def _square(gradient: Any) -> float:
    if gradient is None:
        return 0.0
    flat = _floats(gradient).reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def _floats(value: Any) -> Array:
    found = np.asarray(value)
    if found.dtype in (np.float32, np.float64):
        return found
    return found.astype(np.float32 if found.dtype.itemsize <= 2 else np.float64)  # halves and bfloat16 fit exactly
