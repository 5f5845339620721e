"""What moves the parameters: gradient flow, heavy ball, mirror flow; each with its laws from affine symmetries.

Let grad F . xi = 0 for all outputs F and xi = A theta + c. Gradient flow keeps theta.A theta / 2 + c.theta for
symmetric A; the heavy ball theta'' + tau theta' = -grad keeps e^(tau t) theta'.A theta for skew A (angular momentum);
the mirror flow theta_i' = -theta_i grad_i on a set of coordinates keeps the sum of A_ii theta_i there plus that of
A_ii theta_i^2 / 2 elsewhere for diagonal A. Sources: arXiv 2307.00144, arXiv 2405.12888.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import shown
from fiberscope.autodiff.families import Data, Family
from fiberscope.autodiff.jets import Jets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Floats, Ring
from fiberscope.errors import InputError
from fiberscope.models.affine import AffineFields
from fiberscope.models.model import Model, Symmetry, offsets_of

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LawFamily:
    """Several conserved functions of the state.

    Args:
        name: of the symmetry that they come from.
        formula: plain text.
        latex: the same in LaTeX.
        size: number of functions.
        values: the functions at a float state, (size,).
        rows: their gradients over a ring at a state (N,), (size, N), up to a common nonzero factor.
    """

    name: str
    formula: str
    latex: str
    size: int
    values: Callable[[FloatArray], FloatArray]
    rows: Callable[[Ring, Array], Array]


@dataclass(frozen=True, eq=False)
class Flow:
    """A model under a dynamics.

    Args:
        name: of the dynamics.
        family: the fields on the state.
        laws: what symmetries give.
        state: a random state over a ring from a random theta.
        bound: proved upper bound of the orbit dimension, and why; None for none.
    """

    name: str
    family: Family
    laws: tuple[LawFamily, ...]
    state: Callable[[Ring, np.random.Generator], Array]
    bound: tuple[int, str] | None


def flow(model: Model, dynamics: str = "gradient") -> Flow:
    """The fields of a dynamics and the laws that the model's symmetries give it.

    Args:
        model: any model.
        dynamics: "gradient"; "heavy_ball" or "heavy_ball:tau" with friction tau, state (t, theta, theta');
            "mirror" (all coordinates) or "mirror:U,W1" (these blocks) for theta_i' = -theta_i grad_i there;
            "mirror_momentum", with blocks as well, for theta' = z - theta, z_i' = -z_i grad_i(theta) on them and
            -grad_i elsewhere, state (t, theta, z) (arXiv 1603.04245).

    Raises:
        InputError: for another dynamics, a block that the model does not have, or a bad tau.

    >>> from fiberscope.models.networks import deep_linear
    >>> [law.formula for law in flow(deep_linear((2, 2, 2)), "heavy_ball").laws]
    ["e^(tau t) theta'.A theta: neurons of layer 1 rotated"]
    """
    if not isinstance(model, Model):
        raise InputError(f"model: {shown(model)}; give a Model, as `fiberscope.models.chain` makes one")
    kind, _, rest = dynamics.partition(":") if isinstance(dynamics, str) else ("", "", "")
    if dynamics == "gradient":
        laws = tuple(_gradient_law(s) for s in model.symmetries if s.fields.parity == 1)
        return Flow("gradient flow", model.family, laws, model.theta, model.bound)
    if kind == "heavy_ball":
        return _heavy_ball(model, rest or "0")
    if kind in ("mirror", "mirror_momentum"):
        names = [name for name in rest.split(",") if name]
        mirrored = _places(model, names)
        return (_mirror if kind == "mirror" else _mirror_momentum)(model, mirrored, ",".join(names) or "all")
    known = "'gradient', 'heavy_ball[:tau]', 'mirror[:blocks]', 'mirror_momentum[:blocks]'"
    raise InputError(f"dynamics {dynamics!r}; known are {known}")


def _gradient_law(s: Symmetry) -> LawFamily:
    def values(theta: FloatArray) -> FloatArray:
        constant = _offset(s.fields)
        moved = s.fields.at(Floats(), theta)
        return np.asarray((moved @ theta + constant @ theta) / 2)

    return LawFamily(s.name, s.formula, s.latex, s.fields.count, values, s.fields.at)


def _offset(fields: AffineFields) -> FloatArray:
    return fields.at(Floats(), np.zeros(fields.size))


# ---- states of twice the size: heavy ball and mirror flow with momentum


@dataclass(frozen=True, eq=False)
class Doubled(abc.ABC):
    """Fields a (1, p, q) + (0, 0, r X) on (t, theta, u), a any number and X in a family; p, q, r depend on (theta, u).

    Args:
        family: of the X.
    """

    family: Family

    @property
    def size(self) -> int:
        """2 M + 1."""
        return 2 * self.family.size + 1

    def draw(self, ring: Ring, rng: np.random.Generator, count: int) -> Data:
        """The numbers a, then the data of X."""
        return (ring.random(rng, (count, 1)), *self.family.draw(ring, rng, count))

    def fields(self, theta: Nilpotent, data: Data, jets: Jets) -> Nilpotent:
        """The fields, (batch, 2 M + 1)."""
        m, ring = self.family.size, theta.ring
        place, partner = theta.map(lambda a: a[:, 1 : m + 1]), theta.map(lambda a: a[:, m + 1 :])
        amount = Nilpotent(ring, {0: data[0]})
        one = Nilpotent(ring, {0: np.pad(data[0], ((0, 0), (0, 2 * m)))})
        move, kick = self._parts(place, partner, amount, self.family.fields(place, data[1:], jets))
        moves = move.map(lambda a: np.pad(a, ((0, 0), (1, m))))
        kicks = kick.map(lambda a: np.pad(a, ((0, 0), (m + 1, 0))))
        return one + moves + kicks

    @abc.abstractmethod
    def _parts(
        self, place: Nilpotent, partner: Nilpotent, amount: Nilpotent, force: Nilpotent
    ) -> tuple[Nilpotent, Nilpotent]:
        """How theta and u move, (batch, M) each: `place` is theta, `partner` u, `amount` a and `force` X(theta)."""


@dataclass(frozen=True, eq=False)
class HeavyBall(Doubled):
    """The fields a (1, v, -tau v) + (0, 0, X) on (t, theta, v).

    Args:
        family: of the X.
        friction: tau.
    """

    friction: Fraction

    def _parts(
        self, place: Nilpotent, partner: Nilpotent, amount: Nilpotent, force: Nilpotent
    ) -> tuple[Nilpotent, Nilpotent]:
        slowed = partner.scaled(place.ring.constant(-self.friction))
        return partner * amount, slowed * amount + force


def _heavy_ball(model: Model, text: str) -> Flow:
    try:
        friction = Fraction(text)
    except (ValueError, ZeroDivisionError) as exc:
        raise InputError(f"friction {text!r} of the heavy ball is no number") from exc
    laws = tuple(_momentum(s, friction) for s in model.symmetries if s.fields.parity == -1)

    def state(ring: Ring, rng: np.random.Generator) -> Array:
        theta = model.theta(ring, rng)
        return np.concatenate([ring.random(rng, (1,)), theta, ring.random(rng, theta.shape)])

    return Flow(f"heavy ball with friction {friction}", HeavyBall(model.family, friction), laws, state, None)


def _momentum(s: Symmetry, friction: Fraction) -> LawFamily:
    m, back = s.fields.size, s.fields.transposed()

    def values(state: FloatArray) -> FloatArray:
        turned = s.fields.at(Floats(), state[1 : m + 1])
        return np.asarray(np.exp(float(friction) * state[0]) * (turned @ state[m + 1 :]))

    def rows(ring: Ring, state: Array) -> Array:
        theta, speed = state[1 : m + 1], state[m + 1 :]
        turned = s.fields.at(ring, theta)
        spin = ring.sum(ring.multiply(turned, speed[None, :]), -1)
        return np.concatenate([ring.multiply(spin, ring.constant(friction)), back.at(ring, speed), turned], axis=1)

    formula = f"e^(tau t) theta'.A theta: {s.formula}"
    latex = rf"e^{{\tau t}} \dot\theta \cdot A \theta, \quad {s.latex}"
    return LawFamily(s.name, formula, latex, s.fields.count, values, rows)


# ---- mirror flows


@dataclass(frozen=True, eq=False)
class MirrorFlow:
    """The fields theta_i X_i on the mirrored coordinates, X_i on the others.

    Args:
        family: of the X.
        mirrored: (M,) booleans.
    """

    family: Family
    mirrored: npt.NDArray[np.bool_]

    @property
    def size(self) -> int:
        """M."""
        return self.family.size

    def draw(self, ring: Ring, rng: np.random.Generator, count: int) -> Data:
        """The data of X."""
        return self.family.draw(ring, rng, count)

    def fields(self, theta: Nilpotent, data: Data, jets: Jets) -> Nilpotent:
        """The fields, (batch, M)."""
        return self.family.fields(theta, data, jets) * _metric(theta, self.mirrored)


def _places(model: Model, names: list[str]) -> npt.NDArray[np.bool_]:
    places = offsets_of(model.blocks)
    unknown = [name for name in names if name not in places]
    if unknown:
        raise InputError(f"no block {', '.join(unknown)} in {model.name}; it has {', '.join(places)}")
    mirrored = np.zeros(model.size, dtype=bool)
    for name in names or places:
        mirrored[places[name]] = True
    return mirrored


def _mirror(model: Model, mirrored: npt.NDArray[np.bool_], what: str) -> Flow:
    laws = tuple(law for s in model.symmetries if (law := _mirror_law(s, mirrored)) is not None)
    return Flow(f"mirror flow of {what}", MirrorFlow(model.family, mirrored), laws, model.theta, model.bound)


@dataclass(frozen=True, eq=False)
class MirrorMomentum(Doubled):
    """The fields a (1, z - theta, 0) + (0, 0, D X(theta)) on (t, theta, z), D = z where mirrored and 1 elsewhere.

    Args:
        family: of the X.
        mirrored: (M,) booleans.
    """

    mirrored: npt.NDArray[np.bool_]

    def _parts(
        self, place: Nilpotent, partner: Nilpotent, amount: Nilpotent, force: Nilpotent
    ) -> tuple[Nilpotent, Nilpotent]:
        return (partner - place) * amount, force * _metric(partner, self.mirrored)


def _metric(theta: Nilpotent, mirrored: npt.NDArray[np.bool_]) -> Nilpotent:
    ones = np.where(mirrored, 0, 1)[None, :].astype(theta.real.dtype)
    return theta.map(lambda a: np.where(mirrored[None, :], a, 0)) + Nilpotent(theta.ring, {0: ones})


def _mirror_momentum(model: Model, mirrored: npt.NDArray[np.bool_], what: str) -> Flow:
    def state(ring: Ring, rng: np.random.Generator) -> Array:
        return np.concatenate([ring.random(rng, (1,)), model.theta(ring, rng), model.theta(ring, rng)])

    return Flow(f"mirror flow of {what} with momentum", MirrorMomentum(model.family, mirrored), (), state, None)


def _mirror_law(s: Symmetry, mirrored: npt.NDArray[np.bool_]) -> LawFamily | None:
    if s.fields.parity != 1 or len(s.fields.constant[0]):
        return None
    which, row, column, value = s.fields.linear
    straight = np.ones(s.fields.count, dtype=bool)
    straight[which[row != column]] = False
    index = np.flatnonzero(straight)
    if not len(index):
        return None
    table = np.zeros((s.fields.count, s.fields.size), dtype=np.int64)
    np.add.at(table, (which, row), value)
    table = table[index]
    if not (table % 2).any():
        table //= 2

    def values(theta: FloatArray) -> FloatArray:
        return np.asarray(table @ np.where(mirrored, theta, theta**2 / 2))

    def rows(ring: Ring, theta: Array) -> Array:
        metric = np.where(mirrored, ring.constant(1), theta)
        return ring.multiply(ring.array(table), metric[None, :])

    formula = f"{s.formula}, with sums of entries for squares (halved elsewhere) on the mirrored blocks"
    latex = r"\sum_{\mathrm{mirrored}} A_{ii} \theta_i + \tfrac12 \sum_{\mathrm{others}} A_{ii} \theta_i^2"
    return LawFamily(s.name, formula, latex, len(index), values, rows)
