"""Fields that leave a set of parameters: found in floats, proved over Q or in ball arithmetic, or replayed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_count
from fiberscope.autodiff.families import Data, Family, GradientFamily
from fiberscope.autodiff.floats import FloatFamily, NumpyFamily
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.objects import BallJets, ExactJets, Objects, proved_sign
from fiberscope.autodiff.symbols import Poly
from fiberscope.errors import InputError, ScopeError, UnsupportedError
from fiberscope.invariants.arguments import as_names
from fiberscope.models.chains import chain_family
from fiberscope.network import Network, whole_widths
from fiberscope.results import Answer, Assumption, Verdict

ExactArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

SUSPECT = 1e-9
"""Share of a field normal to the set above which it is examined."""
_MARGIN = 1e6
"""A departure in floats counts from this many times the rounding."""


@dataclass(frozen=True)
class Subject:
    """A model as what it offers: an exact family, the shape of a chain, or floats only."""

    size: int
    floats: FloatFamily
    family: Family | None
    widths: tuple[int, ...] | None
    rows: tuple[Activation, ...]
    blocks: tuple[tuple[str, tuple[int, ...]], ...]
    frozen: tuple[int, ...]

    @property
    def mask(self) -> FloatArray:
        """1 for trained parameters, 0 for frozen ones, (M,)."""
        out = np.ones(self.size)
        out[list(self.frozen)] = 0.0
        return out

    def names(self) -> list[str]:
        """Name of every parameter, "W1[0,1]"."""
        return [
            f"{name}[{','.join(map(str, index))}]" if index else name
            for name, shape in self.blocks
            for index in np.ndindex(*shape)
        ]


def subject_of(model: Any, frozen: Sequence[int | str] | str) -> Subject:
    """What a network, an architecture (widths, activation), a model, or a family of fields offers.

    Raises:
        InputError: if it is none of these, or a frozen parameter does not exist.
        ScopeError: if a network's layers are not the parameters that are trained.
        UnsupportedError: if a network ends in an activation.
    """
    widths: tuple[int, ...] | None = None
    rows: tuple[Activation, ...] = ()
    if isinstance(model, Network):
        model.require_own_parameters("an invariant manifold")
        if model.layers[-1].activation.name != "identity":
            raise UnsupportedError(
                f"the network ends in {model.layers[-1].activation.label}; only outputs without activation are treated"
            )
        widths, rows = model.widths, tuple(layer.activation for layer in model.hidden)
    elif isinstance(model, tuple) and len(model) == 2:
        widths, named = whole_widths(model[0]), model[1]
        each = list(named) if isinstance(named, list | tuple) else [named] * (len(widths) - 2)
        rows = tuple(find_activation(a) for a in each)
        if len(rows) != len(widths) - 2:
            raise InputError(f"{len(rows)} activations for widths {widths}; give one, or one for each hidden layer")
    family: Any = chain_family(widths, rows) if widths is not None else getattr(model, "family", model)
    if widths is None and isinstance(model, FloatFamily):
        floats: FloatFamily = model
        exact = model.family if isinstance(model, NumpyFamily) else None
    elif hasattr(family, "fields") and hasattr(family, "draw"):
        floats, exact = NumpyFamily(family, np.zeros(family.size)), family
    else:
        raise InputError(f"a {type(model).__name__} is no model: give a Network, (widths, activation), or a family")
    size = floats.size
    blocks = getattr(exact if isinstance(exact, GradientFamily) else floats, "shapes", None)
    blocks = blocks or getattr(floats, "blocks", None) or (("theta", (size,)),)
    kept = _frozen(frozen, blocks, size)
    return Subject(size, floats, exact, widths, rows, tuple(blocks), kept)


def _frozen(
    given: Sequence[int | str] | str, blocks: Sequence[tuple[str, tuple[int, ...]]], size: int
) -> tuple[int, ...]:
    """Indices of the parameters that are named one by one or by their blocks."""
    ends = np.cumsum([0, *(int(np.prod(shape)) for _, shape in blocks)])
    places = {name: range(a, b) for (name, _), a, b in zip(blocks, ends, ends[1:], strict=False)}
    out: set[int] = set()
    for entry in given if isinstance(given, Iterable) and not isinstance(given, str) else (given,):
        if isinstance(entry, str):
            out.update(places[as_names(entry, "frozen blocks", places)[0]])
            continue
        k = as_count(entry, "frozen parameter")
        if k >= size:
            raise InputError(f"frozen parameter {k}; indices run from 0 to {size - 1}")
        out.add(k)
    return tuple(sorted(map(int, out)))


@dataclass(frozen=True)
class Suspect:
    """A field whose part along `normal` is not rounding: at `theta` with the data of one field.

    `loose` is (k, high, gradient) for a point of a level set whose k-th coordinate lies between theta[k] and high; the
    normal is then the gradient at that point.
    """

    theta: ExactArray
    data: Data
    normal: ExactArray
    share: float
    text: str
    loose: tuple[int, Fraction, list[Poly]] | None = None


class Search:
    """Fields at points of the set, with the size of their normal part."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self.subject = subject
        self.rng = np.random.default_rng(seed)
        self.largest = 0.0
        self.points = 0

    def try_at(self, theta: ExactArray, normals: ExactArray, texts: Sequence[str], count: int) -> Suspect | None:
        """The most suspicious of `count` fields at theta; normals (k, M)."""
        if not len(normals):
            return None
        data = self._draw(count)
        point = rationals.nearest_floats(theta)
        rates = self.subject.floats.fields(point, tuple(_floats(a) for a in data)) * self.subject.mask
        if not np.isfinite(rates).all():
            raise InputError("the fields hold NaN or infinite numbers at the points tried")
        rows = rationals.nearest_floats(rationals.fractions(normals))
        length = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(rates, axis=1)
        shares = np.abs(rows @ rates.T) / np.where(length > 0, length, 1.0)
        k, j = np.unravel_index(int(np.argmax(shares)), shares.shape)
        self.points += 1
        self.largest = max(self.largest, float(shares[k, j]))
        if shares[k, j] <= SUSPECT:
            return None
        one = tuple(a[j : j + 1] for a in data)
        return Suspect(theta, one, normals[k], float(shares[k, j]), texts[int(k)])

    def _draw(self, count: int) -> Data:
        if self.subject.widths is not None and self.subject.family is not None:
            return self.subject.family.draw(Objects(), self.rng, count)
        return self.subject.floats.draw(self.rng, count)


def _floats(a: ExactArray) -> ExactArray:
    return rationals.nearest_floats(a) if a.dtype == object else a


def refutation(suspect: Suspect, subject: Subject, theorem: str = "tangent-fields") -> Verdict | None:
    """NO, if the suspicion is proved (or, for functions known by their floats, replayed)."""
    shown: dict[str, Any] = {
        "theta": rationals.texts(suspect.theta),
        "data": [rationals.texts(a) if a.dtype.kind == "f" or a.dtype == object else a.tolist() for a in suspect.data],
        "equation": suspect.text,
    }
    if suspect.loose is not None:
        k, high, _ = suspect.loose
        shown["between"] = {"parameter": k, "low": str(suspect.theta[k]), "high": str(high)}
    if subject.family is not None:
        rate = _proved_rate(suspect, subject)
        if rate is None:
            return None
        spelled = str(rate[0]) if rate[0] == rate[1] else f"between {float(rate[0]):.6g} and {float(rate[1]):.6g}"
        return Verdict(
            Answer.NO, f"a field leaves it: {suspect.text} changes at a rate of {spelled}",
            counterexample=shown | {"rate": list(rate), "rigor": "EXACT" if rate[0] == rate[1] else "INTERVAL"},
            method="one field at one rational point, exactly or in ball arithmetic", theorems=(theorem,),
        )  # fmt: skip
    replay = _replay(suspect, subject)
    if replay is None:
        return None
    return Verdict(
        Answer.NO, f"a field leaves it: {suspect.text} changes, {replay['margin']:.1e} times the rounding",
        counterexample=shown | replay | {"rigor": "NUMERICAL"},
        method="float64, flow along one field replayed with two step sizes", theorems=(theorem,),
        assumes=(Assumption("the function's float64 derivatives are right to 1e-6 of the rate", False),),
    )  # fmt: skip


def _proved_rate(suspect: Suspect, subject: Subject) -> tuple[Any, Any] | None:
    """Normal . X enclosed away from 0, or None."""
    family = subject.family
    if family is None:
        return None
    places = [int(k) for k in np.flatnonzero(suspect.normal != 0) if subject.mask[k]]

    def rate(ring: Objects, jets: Any) -> Any:
        theta = ring.array(suspect.theta)
        normal = {k: ring.constant(suspect.normal[k]) for k in places}
        if suspect.loose is not None:
            k, high, gradient = suspect.loose
            theta[k] = theta[k].union(ring.constant(high))
            normal = {k: gradient[k].at(lambda i: theta[i], ring.constant) for k in places}
        at = Nilpotent(ring, {0: theta[None]})
        fields = family.fields(at, tuple(ring.array(a) for a in suspect.data), jets).real[0]
        total = ring.constant(0)
        for k in places:
            total = total + fields[k] * normal[k]
        return total

    if suspect.loose is None:
        try:
            exact = rate(Objects(), ExactJets())
            return (exact, exact) if exact else None
        except (ScopeError, TypeError, ValueError):
            pass
    try:
        low, high = proved_sign(lambda ring: rate(ring, BallJets(ring)))
    except (ScopeError, TypeError, ValueError):
        return None
    return (low, high) if low > 0 or high < 0 else None


def _replay(suspect: Suspect, subject: Subject) -> dict[str, Any] | None:
    """Distances from the set after flowing for a time and half of it, if they agree and are far above rounding."""
    start = rationals.nearest_floats(suspect.theta)
    normal = rationals.nearest_floats(rationals.fractions(suspect.normal))

    def field(theta: FloatArray) -> FloatArray:
        return np.asarray(subject.floats.fields(theta, suspect.data)[0] * subject.mask)

    rates = field(start)
    single = getattr(subject.floats, "dtype", "float64") == "float32"
    rounding = (1.2e-7 if single else 2.3e-16) * float(np.abs(normal) @ np.abs(rates))
    rate = float(normal @ rates)
    margin = abs(rate) / max(rounding, 1e-300)
    step = 1e-3 * (1 + float(np.linalg.norm(start))) / float(np.linalg.norm(rates))
    left = []
    for time in (step, step / 2):
        theta = start
        for _ in range(4):
            h = time / 4
            a = field(theta)
            b = field(theta + h / 2 * a)
            c = field(theta + h / 2 * b)
            theta = theta + h / 6 * (a + 2 * b + 2 * c + field(theta + h * c))
        left.append(float(normal @ (theta - start)))
    agree = all(abs(d / (t * rate) - 1) < 0.25 for d, t in zip(left, (step, step / 2), strict=True))
    if margin < _MARGIN or not agree:
        return None
    return {"rate": rate, "margin": margin, "times": [step, step / 2], "left_by": left}
