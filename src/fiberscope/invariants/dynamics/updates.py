"""Update rules of training as small references, and what their updates are as functions of the gradients.

On the manifold of a partition every gradient is e_i f_j G_AB / n_A with the gradient G_AB of the reduced network. Rules
linear in the gradient are followed by scaling it; rules that commute with orthogonal maps in the coordinates
sqrt(n_A / n_B) R, whose metric is that of the wide network; elementwise odd rules in its entries R / n_B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.errors import InputError

Array = npt.NDArray[Any]
Family = Literal["linear", "orthogonal", "elementwise"]

FAMILIES: dict[str, Family] = {
    "gd": "linear", "sgd": "linear", "momentum": "linear", "nesterov": "linear", "muon": "orthogonal",
    "adam": "elementwise", "adamw": "elementwise", "rmsprop": "elementwise", "adagrad": "elementwise",
    "sign": "elementwise",
}  # fmt: skip
"""What an update is as a function of the history of gradients: linear; commuting with orthogonal maps from the left and
right of every matrix; or one odd function for every entry. Clipping the global norm of the wide gradient fits all."""

_CUT = 1e-9
"""Singular values below this part of the largest count as zero in the polar factor."""


@dataclass(frozen=True)
class State:
    """What a rule remembers: number of steps, first and second moments."""

    steps: int = 0
    first: Array | None = field(default=None, repr=False)
    second: Array | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Optimiser:
    """An update rule theta -> theta - rate * u(gradients) with weight decay, acting on one vector of parameters.

    Args:
        name: a key of `FAMILIES`.
        rate: learning rate.
        momentum: of momentum, nesterov, muon; beta_1 of Adam.
        second: beta_2 of Adam, decay of RMSprop's average.
        eps: added to the root of the second moment.
        decay: weight decay; `coupled` adds decay * theta to the gradient, else theta shrinks by 1 - rate * decay.
        clip: bound of the gradient's Euclidean norm, applied before decay.
        floor: `sign` reads entries up to this part of the largest as zero.

    Formulas as in torch.optim. Coupled decay shrinks theta by the same factor for "gd" and "sgd".

    >>> rule = optimiser("momentum", 0.5)
    >>> theta, state = rule.step(np.array([1.0]), np.array([1.0]), State())
    >>> rule.step(theta, np.array([0.0]), state)[0].round(12).tolist()
    [0.05]
    """

    name: str
    rate: float
    momentum: float = 0.0
    second: float = 0.999
    eps: float = 1e-8
    decay: float = 0.0
    coupled: bool = True
    clip: float | None = None
    floor: float = 0.0

    @property
    def family(self) -> Family:
        """How the update depends on the gradients."""
        return FAMILIES[self.name]

    def step(
        self,
        theta: Array,
        gradient: Array,
        state: State,
        *,
        norm: float | None = None,
        blocks: Sequence[tuple[slice, tuple[int, int]]] = (),
    ) -> tuple[Array, State]:
        """One step.

        Args:
            theta: parameters (M,).
            gradient: (M,).
            state: what the rule remembers.
            norm: the norm that `clip` bounds; |gradient| if None.
            blocks: where the matrices are, with their shapes; only "muon" asks.

        Returns:
            New parameters and state; nothing is changed in place.
        """
        if self.clip is not None:
            size = float(np.linalg.norm(gradient)) if norm is None else norm
            gradient = gradient * min(1.0, self.clip / size) if size > 0 else gradient
        if self.decay and self.coupled:
            gradient = gradient + self.decay * theta
        update, new = self._update(gradient, state, blocks)
        if self.decay and not self.coupled:
            theta = theta * (1.0 - self.rate * self.decay)
        return theta - self.rate * update, new

    def _update(self, g: Array, state: State, blocks: Sequence[tuple[slice, tuple[int, int]]]) -> tuple[Array, State]:
        zero = np.zeros_like(g)
        m, v, t = (
            zero if state.first is None else state.first,
            zero if state.second is None else state.second,
            state.steps + 1,
        )
        if self.name in ("adam", "adamw"):
            m, v = self.momentum * m + (1 - self.momentum) * g, self.second * v + (1 - self.second) * g * g
            root = np.sqrt(v) / math.sqrt(1 - self.second**t) + self.eps
            return m / (1 - self.momentum**t) / root, State(t, m, v)
        if self.name in ("rmsprop", "adagrad"):
            v = v + g * g if self.name == "adagrad" else self.second * v + (1 - self.second) * g * g
            return g / (np.sqrt(v) + self.eps), State(t, None, v)
        if self.name == "sign":
            return np.where(np.abs(g) > self.floor * np.abs(g).max(initial=0.0), np.sign(g), 0.0), State(t)
        m = self.momentum * m + g
        new = State(t, m)
        if self.name == "nesterov":
            return g + self.momentum * m, new
        if self.name == "muon":
            out = m.copy()
            for place, shape in blocks:
                out[place] = _polar(m[place].reshape(shape)).reshape(-1)
            return out, new
        return m, new


def _polar(matrix: Array) -> Array:
    """U V^T of the singular value decomposition, on the range of the matrix only."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    live = values > _CUT * values.max(initial=0.0)
    return np.asarray(left[:, live] @ right[live])


def optimiser(name: str, rate: float, **options: Any) -> Optimiser:
    """A rule with its usual constants: momentum 0.9, Adam (0.9, 0.999, 1e-8), RMSprop 0.99, Adagrad eps 1e-10.

    Args:
        name: a key of `FAMILIES`: gd, sgd, momentum, nesterov, muon, adam, adamw, rmsprop, adagrad, sign.
        rate: learning rate.
        options: fields of `Optimiser`; adamw has decoupled decay 0.01 unless told otherwise.

    Raises:
        InputError: for an unknown name or option.

    >>> optimiser("adamw", 1e-3).coupled
    False
    """
    if name not in FAMILIES:
        raise InputError(f"unknown optimiser {name!r}; known: {', '.join(FAMILIES)}")
    usual: dict[str, Any] = {}
    if name in ("momentum", "nesterov", "adam", "adamw", "muon"):
        usual["momentum"] = 0.9
    if name == "adamw":
        usual |= {"decay": 0.01, "coupled": False}
    if name == "rmsprop":
        usual["second"] = 0.99
    if name == "adagrad":
        usual["eps"] = 1e-10
    known = set(Optimiser.__dataclass_fields__) - {"name", "rate"}
    if not set(options) <= known:
        raise InputError(f"unknown option {sorted(set(options) - known)[0]!r}; known: {', '.join(sorted(known))}")
    return replace(Optimiser(name, rate), **(usual | options))
