"""How many conservation laws training has, which ones are known, and which polynomial ones can be found.

The number of independent local laws near theta is M minus the largest orbit dimension nearby (Frobenius; arXiv
2307.00144), which is the orbit dimension of a generic point. A rank modulo a prime at a random point bounds it from
below, known laws bound it from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.activations import Activation
from fiberscope.arguments import as_count, as_finite, as_switch, shown
from fiberscope.autodiff.families import Family
from fiberscope.autodiff.jets import FormalJets, TrueJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Floats, Residues
from fiberscope.domains import Box
from fiberscope.errors import InputError, ScopeError, UnsupportedError
from fiberscope.invariants.arguments import refuse
from fiberscope.invariants.laws.growth import RankGrowth, lie_growth
from fiberscope.invariants.laws.local import LocalCount, local_count
from fiberscope.invariants.laws.polynomials import PolynomialLaws, SkewAnsatz, law_ansatz, polynomial_laws
from fiberscope.invariants.orbits import orbit
from fiberscope.invariants.orbits.certified import proves_rank
from fiberscope.models.dynamics import Flow, HeavyBall, LawFamily, flow
from fiberscope.models.model import Model
from fiberscope.models.networks import chain, weight_places
from fiberscope.network import Network, whole_widths
from fiberscope.results import Budget, Result, Rigor, Stopwatch

Array = npt.NDArray[Any]

_LARGEST = 6000
"""Parameters up to which a rank modulo a prime takes minutes."""
_BALL_SIZE = 60
"""Largest number of parameters for a rank proved in ball arithmetic."""
_SKEW = 37
"""Largest number of parameters for a search of all rotations."""
_CHECKS = 8
"""Fields along which each law is differentiated."""


@dataclass(frozen=True, eq=False)
class KnownLaws(Result):
    """A family of laws that a symmetry gives.

    Args:
        name: of the symmetry.
        formula: plain text.
        latex: the same in LaTeX.
        size: number of functions.
        holds: whether their derivatives along random fields at a random point vanish modulo the prime.
        residual: the largest |dh.X| / (|dh| |X|) in floats at another random point.
        values: the functions at the theta that was given, else empty.
    """

    name: str
    formula: str
    latex: str
    size: int
    holds: bool
    residual: float
    values: tuple[float, ...] = ()

    def __str__(self) -> str:
        """One line."""
        how = f"|dh.X| <= {self.residual:.0e}" if self.holds else f"NOT conserved, |dh.X| = {self.residual:.1e}"
        return f"{self.size} x {self.formula} ({how} in floats)"


@dataclass(frozen=True, eq=False)
class Conserved(Result):
    """The conservation laws of a model under a dynamics.

    Args:
        model: its name.
        dynamics: gradient flow, heavy ball, mirror flow.
        count: number of independent local laws: dimension - orbit dimension; an upper bound where `open` says so.
        at_least: number of laws that are proved independent.
        dimension: of the state: M, for the heavy ball 2 M + 1.
        orbit_dimension: largest dimension of an orbit, that of generic points.
        growth: ranks of brackets by depth at a random point.
        known: laws of known symmetries.
        independent: rank of their gradients at a random point.
        refuted: laws that were claimed and do not hold.
        discovered: polynomial laws found by linear algebra.
        here: the count at the given parameters on the given domain, for piecewise linear networks.
        rigor: EXACT if ranks modulo a prime meet the known laws, INTERVAL if a rank proved in ball arithmetic does,
            else GENERIC.
        open: what is not proved, "" for nothing.
        prime: the modulus.
        seed: of the random points.
        notes: what the count refers to.
        theorems: keys.
    """

    model: str
    dynamics: str
    count: int
    at_least: int
    dimension: int
    orbit_dimension: int
    growth: tuple[int, ...]
    known: tuple[KnownLaws, ...]
    independent: int
    refuted: tuple[KnownLaws, ...]
    discovered: tuple[PolynomialLaws, ...]
    here: LocalCount | None
    rigor: Rigor
    open: str
    prime: int
    seed: int
    notes: tuple[str, ...] = ()
    theorems: tuple[str, ...] = ("law-count", "bracket-rank")

    def __str__(self) -> str:
        """One screen."""
        most = "at most " if self.open.startswith("the growth") else ""
        lines = [
            f"{self.model} under {self.dynamics}: {most}{self.count} independent conservation laws",
            f"  {self.dimension} dimensions - {self.orbit_dimension} of a generic orbit "
            f"(ranks of brackets by depth: {', '.join(map(str, self.growth))}); {self.rigor.value}",
        ]
        lines += [f"  known: {law}" for law in self.known] or ["  known: none"]
        if self.known:
            lines.append(f"  {self.independent} of them independent")
        lines += [f"  refuted: {law}" for law in self.refuted]
        lines += [f"  searched: {laws}" for laws in self.discovered]
        if self.open:
            lines.append(f"  open: {self.open}")
        if self.here is not None:
            lines.append(str(self.here))
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def conserved(
    model: Any,
    dynamics: str = "gradient",
    *,
    activation: str | Activation | Sequence[str | Activation] | None = None,
    bias: bool = True,
    theta: Any = None,
    inputs: Any = None,
    domain: Box | str | None = None,
    data: npt.ArrayLike | None = None,
    degree: int = 2,
    seed: int = 0,
    budget: Budget | float | None = None,
) -> Conserved:
    """Count the conservation laws of a model under a dynamics; list the known ones and find polynomial ones.

    count = dim(state) - max over nearby points of dim(orbit). Brackets of random fields at a random point modulo a
    prime give a rank r: a minor that is not zero modulo the prime is a polynomial that is not zero, so a generic orbit
    has dimension >= r. Laws whose gradients have rank k at a point (also modulo a prime) give dimension <= N - k. If
    r = N - k the count k is proved.

    Args:
        model: a `Network`, a `models.Model`, widths (n_0, ..., n_L), or a torch module or JAX function, whose laws are
            counted in floating point and not named.
        dynamics: "gradient", "heavy_ball[:tau]", "mirror[:blocks]", "mirror_momentum[:blocks]": see `models.flow`.
        activation: of the hidden layers, for widths only; relu if None.
        bias: whether biases are trained, output biases among them; False needs widths, or a network whose biases are
            all zero.
        theta: parameters (M,) at which the known laws are evaluated; a network's own by default. For JAX functions
            the pytree of parameters near which laws are counted.
        inputs: for torch and JAX, as in `orbit`.
        domain: of the inputs of a network, for the count at its parameters: a `Box`, text, None for all of R^n.
        data: inputs (N, n_0) instead of a domain.
        degree: of the polynomial laws sought where known laws leave some unexplained; 0: none are sought.
        seed: of the random points.
        budget: seconds.

    Raises:
        InputError: for an unknown dynamics, or arguments that do not fit or say nothing about this kind of model.
        ScopeError: if a network's layers were folded, its activation has no derivatives of every order here, or there
            are more than 6,000 parameters.

    Complexity: about (M - k) gradients at 3^depth times their cost and an M x M rank modulo a prime.
    Source: arXiv 2307.00144, arXiv 2405.12888.

    >>> found = conserved((2, 3, 1), activation="identity", bias=False)
    >>> found.count, found.orbit_dimension, found.growth, found.rigor.name
    (6, 3, (2, 3), 'EXACT')
    """
    seed, degree, bias = as_count(seed, "seed"), as_count(degree, "degree"), as_switch(bias, "bias")
    clock = Budget.of(budget).start()
    _check_fit(model, dynamics, activation, inputs, domain, data)
    if not isinstance(model, Network | Model | Sequence | np.ndarray):
        return _of_function(model, theta, inputs, seed, clock)
    subject, net = _subject(model, activation, bias)
    moved = flow(subject, dynamics)
    values = _values(moved, theta if net is None or theta is not None else _own(net, bias))
    ring, rng = Residues(), np.random.default_rng(seed)
    point = moved.state(ring, rng)
    checked = [_checked(law, moved, ring, point, seed) for law in moved.laws]
    kept = [law for law, holds in zip(moved.laws, checked, strict=True) if holds[0]]
    gradients = np.concatenate([np.zeros((0, len(point)), np.int64), *(law.rows(ring, point) for law in kept)])
    independent = rationals.rank_mod(gradients, ring.prime)
    size = moved.family.size
    ceiling = min(size - independent, size if moved.bound is None else moved.bound[0])
    found = lie_growth(moved.family, point, ring, rng, ceiling=ceiling, clock=clock, seed=seed)
    known = [
        KnownLaws(law.name, law.formula, law.latex, law.size, holds, residual, values.get(k, ()))
        for k, (law, (holds, residual)) in enumerate(zip(moved.laws, checked, strict=True))
    ]
    discovered: tuple[PolynomialLaws, ...] = ()
    if size - found.rank > independent and degree:
        discovered = _discover(subject, moved, gradients, point, ring, degree, size - found.rank, seed, clock)
    explained = independent + max((laws.beyond for laws in discovered), default=0)
    rigor, open_ = _rigor(subject, moved, found, ceiling, explained, seed, clock)
    here, notes = None, _notes(subject, moved, net)
    if net is not None and dynamics == "gradient":
        if clock.expired:
            notes = (*notes, "the time was over before the count at the network's own weights")
        else:
            here = local_count(net, domain=domain, data=data, bias=bias, seed=seed, clock=clock)
    named = ("symmetry-laws",) if any(k.holds for k in known) else ()
    return Conserved(
        subject.name, moved.name, size - found.rank, size - ceiling, size, found.rank, found.ranks,
        tuple(k for k in known if k.holds), independent, tuple(k for k in known if not k.holds), discovered, here,
        rigor, open_, ring.prime, seed, notes, ("law-count", "bracket-rank", *named),
    )  # fmt: skip


def _check_fit(model: Any, dynamics: str, activation: Any, inputs: Any, domain: Any, data: Any) -> None:
    """Refuse what says nothing about this kind of model, rather than leave it aside."""
    if isinstance(model, str):
        raise InputError(f"model {shown(model)}; read a file first: fs.load({shown(model)})")
    given = [("activation", activation)]
    if isinstance(model, Network):
        refuse(given, f"the network has its own ({model.architecture}); an activation goes with widths")
    elif isinstance(model, Model):
        refuse(given, f"the model has its own ({model.name}); an activation goes with widths")
    elif not isinstance(model, Sequence | np.ndarray):
        refuse(given, "a torch module or JAX function has its own; an activation goes with widths")
        if dynamics != "gradient":
            raise InputError(f"dynamics {dynamics!r} of a user function; only gradient flow is built for those")
    if isinstance(model, Network | Model | Sequence | np.ndarray):
        refuse([("inputs", inputs)], "inputs are for torch modules and JAX functions; a network has a domain")
    if not isinstance(model, Network):
        where = "a domain or data say where a Network's own weights are counted; give a Network"
        refuse([("domain", domain), ("data", data)], where)
    if dynamics != "gradient" and (domain is not None or data is not None):
        raise InputError("the count on a domain or on data is that of gradient flow; leave out the dynamics")
    if domain is not None and data is not None:
        raise InputError("give a domain or data, not both")


def _subject(model: Any, activation: Any, bias: bool) -> tuple[Model, Network | None]:
    """The model whose laws are counted, and the network that brings its own parameters."""
    net = model if isinstance(model, Network) else None
    if net is not None:
        model = _chain_of(net, bias)
    elif not isinstance(model, Model):
        model = chain(whole_widths(model), "relu" if activation is None else activation, bias=bias)
    elif not bias:
        raise InputError(f"bias=False, but {model.name} has the blocks it has; bias goes with widths and networks")
    if model.size > _LARGEST:
        raise ScopeError(
            f"laws are counted by ranks of matrices with a column for each parameter: {model.size:,} here, at most "
            f"{_LARGEST:,}; the known ones of a network of any size are those of fiberscope.symmetries.laws"
        )
    return model, net


def _chain_of(model: Network, bias: bool) -> Model:
    model.require_own_parameters("a conservation law")
    if model.layers[-1].activation.name != "identity":
        raise UnsupportedError(
            f"the activation {model.layers[-1].activation.label} after the last layer; laws are counted without one"
        )
    if not bias and any(np.any(layer.bias != 0) for layer in model.layers):
        raise InputError("bias=False, but the network has biases that are not zero")
    return chain(model.widths, [layer.activation for layer in model.hidden], bias=bias)


def _of_function(model: Any, theta: Any, inputs: Any, seed: int, clock: Stopwatch) -> Conserved:
    """Laws of a user function: parameters minus the orbit dimension at a random point, in floating point."""
    found = orbit(model, theta, inputs=inputs, at="generic", seed=seed, budget=clock.left)
    said = "the rank may be too small, so that there may be fewer laws" if found.is_lower_bound else ""
    open_ = said or (
        "" if found.codimension == 0 else "which functions they are: no symmetry of a user function is known"
    )
    return Conserved(
        found.model, "gradient flow", found.codimension, 0, found.ambient, found.dimension, found.estimates[0].growth,
        (), 0, (), (), None, found.rigor, open_, 0, seed, found.notes, ("law-count", "bracket-rank"),
    )  # fmt: skip


def _own(net: Network, bias: bool) -> Array:
    return net.theta if bias else net.theta[weight_places(net.widths)]


def _notes(subject: Model, moved: Flow, net: Network | None) -> tuple[str, ...]:
    notes = [subject.note] if subject.note else []
    if moved.bound is not None:
        notes.append(moved.bound[1])
    if net is not None and not subject.note:
        notes.append("generic points are dense: the count is that near every theta, whatever the orbit of theta itself")
    return tuple(notes)


def _checked(law: LawFamily, moved: Flow, ring: Residues, point: Array, seed: int) -> tuple[bool, float]:
    """Whether dh . X = 0 modulo the prime, and the largest relative |dh . X| in floats."""
    rng = np.random.default_rng((seed, 2))
    fields = _fields(moved.family, ring, point, rng, FormalJets(ring, seed))
    exact = not np.any(ring.matmul(law.rows(ring, point)[None], fields.T[None]))
    floats = Floats()
    state = moved.state(floats, rng)
    moves = _fields(moved.family, floats, state, rng, TrueJets())
    rows = law.rows(floats, state)
    lengths = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(moves, axis=1)[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(rows @ moves.T) / lengths
    return exact, float(np.nanmax(relative, initial=0.0))


def _fields(family: Family, ring: Any, point: Array, rng: np.random.Generator, jets: Any) -> Array:
    data = family.draw(ring, rng, _CHECKS)
    found = family.fields(Nilpotent(ring, {0: point[None, :]}), data, jets).real
    return np.broadcast_to(found, (_CHECKS, family.size))


def _values(moved: Flow, theta: npt.ArrayLike | None) -> dict[int, tuple[float, ...]]:
    if theta is None or not moved.laws or isinstance(moved.family, HeavyBall):
        return {}
    vector = as_finite(theta, "theta")
    if vector.shape != (moved.family.size,):
        raise InputError(f"theta has shape {vector.shape}; the model has {moved.family.size} parameters")
    return {k: tuple(float(v) for v in law.values(vector)) for k, law in enumerate(moved.laws)}


def _discover(
    subject: Model,
    moved: Flow,
    gradients: Array,
    point: Array,
    ring: Residues,
    degree: int,
    count: int,
    seed: int,
    clock: Stopwatch,
) -> tuple[PolynomialLaws, ...]:
    """Ansatz after ansatz until all laws are explained."""
    out: list[PolynomialLaws] = []
    known = rationals.rank_mod(gradients, ring.prime)
    draw = None if subject.point is None else moved.state
    if isinstance(moved.family, HeavyBall) and subject.size <= _SKEW:
        skew = SkewAnsatz(subject.size, moved.family.friction)
        text = "e^(tau t) theta'.A theta with skew A, theta numbered from 0"
        found = polynomial_laws(
            subject.family, skew, text, known=gradients, point=point, ring=ring, seed=seed, draw=subject.point,
            lift=skew.lift,
        )  # fmt: skip
        out.append(found)
        if known + found.beyond >= count:
            return tuple(out)
    for ansatz, text in law_ansatz(subject.blocks, moved.family.size, degree, gradient=moved.name == "gradient flow"):
        if clock.expired:
            break
        found = polynomial_laws(
            moved.family, ansatz, text, known=gradients, point=point, ring=ring, seed=seed, draw=draw
        )
        out.append(found)
        if known + found.beyond >= count:
            break
    return tuple(out)


def _rigor(
    subject: Model, moved: Flow, found: RankGrowth, ceiling: int, explained: int, seed: int, clock: Stopwatch
) -> tuple[Rigor, str]:
    if not found.stable:
        least = moved.family.size - ceiling
        return Rigor.GENERIC, f"the growth of ranks did not end ({found.stopped}): at least {least}, at most the count"
    if found.rank > ceiling:
        reason = moved.bound[1] if moved.bound is not None else "laws that were checked at random points"
        return Rigor.GENERIC, f"the rank {found.rank} is above the claimed bound {ceiling} ({reason})"
    met = found.rank == ceiling
    if subject.polynomial and met:
        return Rigor.EXACT, ""
    if subject.polynomial:
        missing = moved.family.size - found.rank - explained
        what = f"{missing} laws have no formula here" if missing else "some laws are only checked at random points"
        return Rigor.GENERIC, f"{what}; that there are none less rests on ranks at random points modulo the prime"
    if met and moved.family.size <= _BALL_SIZE and not clock.expired and _proved(moved, found, seed):
        return Rigor.INTERVAL, ""
    return Rigor.GENERIC, "random derivatives stand for those of the activation: a generic one of its class"


def _proved(moved: Flow, found: RankGrowth, seed: int) -> bool:
    """Whether brackets at some float point are proved to have the rank."""
    for attempt in range(2):
        rng = np.random.default_rng((seed, 3, attempt))
        point = moved.state(Floats(), rng)
        try:
            if proves_rank(moved.family, point, found.rank, len(found.ranks), rng):
                return True
        except ScopeError:
            return False
    return False
