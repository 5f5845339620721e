"""Orbits of gradient fields: where training can go from a given point, whatever the data and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_choice, as_count, shown
from fiberscope.domains import Box
from fiberscope.errors import FiberscopeError, InputError, ScopeError
from fiberscope.invariants.orbits.certified import proves_rank
from fiberscope.invariants.orbits.methods import METHODS
from fiberscope.invariants.orbits.outcome import Estimate, Orbit
from fiberscope.invariants.orbits.subjects import Subject, subject_of
from fiberscope.results import Budget, Progress, Rigor

FloatArray = npt.NDArray[np.float64]

_EXACT_SIZE = 100
"""Parameters up to which the automatic choice adds the exact method at a given theta."""
_TRANSPORT_SIZE = 40
_BRACKETS_SIZE = 1600
"""Parameters up to which brackets at the point itself are taken as well."""
_BALL_SIZE, _BALL_WORK = 150, 25_000
"""Parameters, and parameters times 4^depth, up to which a rank is proved in ball arithmetic."""


def orbit(
    model: Any,
    theta: Any = None,
    *,
    inputs: Any = None,
    at: str = "theta",
    method: str = "auto",
    frozen: Sequence[str] = (),
    domain: Box | str | None = None,
    seed: int = 0,
    budget: Budget | float | None = None,
    progress: Progress | None = None,
) -> Orbit:
    """The orbit of a point under all gradient fields of a model: its dimension, tangent space and how sure they are.

    Gradient flow of any loss on any data stays in the orbit O(theta) of the family {grad_theta <c, F(theta)(x)>}; SIMs
    are unions of orbits (arXiv 2510.09564). dim O is constant on the orbit, so theta is first moved along random flows
    to a regular point of its orbit, where brackets are deepened until their rank is stable (a stable rank at theta
    itself proves nothing). Transport of fields along flows, and exact ranks modulo a prime, check the result.

    Args:
        model: a `Network`; a family of gradient fields (`fiberscope.models`); a torch module; or any JAX function
            (theta, x) -> outputs.
        theta: the point, for models without one: an array (M,) or, for JAX, a pytree.
        inputs: for torch and JAX: example inputs (N, ...) that the data are taken from, or one input's shape for
            Gaussian inputs.
        at: "theta", or "generic" for the architecture's generic dimension.
        method: "auto" (flow, and the others where they are cheap), one of "flow", "transport", "exact", or "all".
        frozen: names of blocks that are not trained, such as "b2"; all others are, output biases too.
        domain: of the inputs of a piecewise linear network, whose fields are those of the activation patterns there.
        seed: of all random draws.
        budget: seconds; methods not begun by then are left out.
        progress: called with (fraction, text).

    Raises:
        InputError: if blocks are unknown, a model without a point was given none, or an argument says nothing about
            the kind of model.
        ScopeError: if the layers are not the parameters that are trained.

    Complexity: O(M) gradients and a singular value decomposition O(M^3); 2 depth - 1 times the gradients for brackets.

    >>> from fiberscope.network import Network
    >>> net = Network.from_arrays(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
    >>> found = orbit(net)
    >>> found.dimension, found.ambient, found.certified
    (4, 7, True)
    """
    as_choice(at, "at", ("theta", "generic"))
    as_choice(method, "method", ("auto", "flow", "transport", "exact", "all"))
    seed = as_count(seed, "seed")
    if progress is not None and not callable(progress):
        raise InputError(f"progress={shown(progress)}; give a function of (fraction, text), or None")
    clock = Budget.of(budget).start()
    rng = np.random.default_rng(seed)
    subject = subject_of(model, theta, inputs, at, frozen, domain, seed, rng, clock)
    tell = progress or (lambda _fraction, _text: None)
    found: list[Estimate] = []
    tangent: FloatArray | None = None
    growth: tuple[int, ...] = ()
    for name in _methods(subject, method, at):
        settled = method == "auto" and any(e.rigor is Rigor.EXACT and e.dimension == subject.top.value for e in found)
        if found and (clock.expired or (settled and name != "brackets")):
            continue
        tell(None, f"orbit by {name}" + (f": {found[-1].dimension} so far" if found else ""))
        estimate, basis = METHODS[name](subject, at, seed, rng, clock, found)
        found.append(estimate)
        if basis is not None and (tangent is None or len(basis) > len(tangent)):
            tangent = basis
        if name == "brackets":
            growth = estimate.growth
    outcome = _verdict(subject, at, found, tangent, growth)
    if outcome.is_lower_bound and clock.expired:
        outcome = replace(outcome, notes=("the time was over: the dimension may be larger", *outcome.notes))
    if outcome.rigor is Rigor.NUMERICAL and outcome.certified and not clock.expired:
        tell(None, f"proving rank {outcome.dimension} in ball arithmetic")
        outcome = _proved(subject, outcome, rng)
    return outcome


def _proved(subject: Subject, outcome: Orbit, rng: np.random.Generator) -> Orbit:
    """The same outcome, with its rigor raised where the lower bound can be proved."""
    if outcome.dimension == 0:
        return replace(outcome, rigor=Rigor.EXACT)  # the upper bound says it all
    family, order = subject.family, outcome.order
    if family is None or subject.exact_theta is None or order is None:
        return outcome
    if family.size > _BALL_SIZE or 4**order * family.size > _BALL_WORK:
        return outcome
    if not proves_rank(family, subject.exact_theta, outcome.dimension, order, rng):
        return outcome
    return replace(outcome, rigor=Rigor.INTERVAL)


def _methods(subject: Subject, method: str, at: str) -> list[str]:
    size = subject.floats.size
    able = subject.family is not None
    if method == "all":
        chosen = ["flow", "brackets", "transport", *(["exact"] if able else [])]
    elif method != "auto":
        if method == "exact" and not able:
            raise ScopeError("the exact method needs a Network or a model of fiberscope.models, not a user function")
        chosen = [method]
    elif at == "generic":
        chosen = ["exact"] if subject.polynomial and able and size <= 4200 else ["flow"]
        chosen += ["exact"] if able and not subject.polynomial and size <= _EXACT_SIZE else []
    else:
        chosen = ["exact"] if subject.polynomial and able and size <= 15 * _EXACT_SIZE else []
        chosen += ["flow", *(["brackets"] if size <= _BRACKETS_SIZE else [])]
        chosen += ["transport"] if size <= _TRANSPORT_SIZE else []
        chosen += ["exact"] if able and not subject.polynomial and size <= _EXACT_SIZE else []
    return [m for m in chosen if at == "theta" or m != "brackets"]


def _verdict(subject: Subject, at: str, found: Sequence[Estimate], tangent: FloatArray | None,
             growth: tuple[int, ...]) -> Orbit:  # fmt: skip
    top, notes = subject.top, list(subject.notes)
    proved = [e.dimension for e in found if e.rigor is Rigor.EXACT]
    fair = [e for e in found if e.clear and e.dimension <= top.value]
    beyond = [e for e in found if e.dimension > top.value]
    wrong = next((e for e in beyond if e.rigor is Rigor.EXACT), None)
    if wrong is not None:
        raise FiberscopeError(f"a proved rank of {wrong.dimension} contradicts the bound {top.value} ({top.reason})")
    for e in beyond:
        notes.append(
            f"{e.method} found {e.dimension}, above the proved {top.value}: rounding left the manifold, ignored"
        )
    low = max([*proved, *(e.dimension for e in fair if e.rigor is not Rigor.GENERIC)], default=0)
    generic = [e.dimension for e in found if e.rigor is Rigor.GENERIC]
    if not fair:
        low = max((e.dimension for e in found if e.dimension <= top.value), default=0)
    stable = [
        e.dimension for e in found if at == "generic" and e.method == "exact" and e.growth[-1:] == e.growth[-2:-1]
    ]
    if proved and max(proved) == low == top.value:
        rigor = Rigor.EXACT
    elif proved and max(proved) == low and low in stable:
        rigor = Rigor.GENERIC
    elif generic and not any(e.rigor is Rigor.NUMERICAL for e in fair):
        low, rigor = max(generic), Rigor.GENERIC
    else:
        rigor = Rigor.NUMERICAL
    certified = low == top.value and bool(fair or proved)
    sampled = subject.beyond is not None and certified and low < subject.beyond.value
    if subject.beyond is not None:
        notes.append(f"{top.value} is the upper bound for the patterns found: {top.reason}")
        top = subject.beyond
    if sampled:
        certified, rigor = False, Rigor.SAMPLED
    disagree = {e.dimension for e in fair if e.method in ("flow", "transport")}
    missed = subject.beyond is not None and low < subject.beyond.value
    solid = bool(stable) or any(e.method in ("flow", "transport") for e in fair)
    open_ = missed or (not certified and (len(disagree) > 1 or not solid))
    if len(disagree) > 1 and not certified:
        notes.append(f"methods disagree ({', '.join(map(str, sorted(disagree)))}): a lower bound")
    if generic and max(generic) > low and at == "theta" and rigor is Rigor.NUMERICAL:
        notes.append(f"a generic activation of this class has {max(generic)} here")
    gaps = [(e.kept, e.dropped) for e in fair if e.kept is not None and e.dimension == low]
    gap = max(gaps, key=lambda g: g[0] or 0.0) if gaps else None
    if at == "generic":
        growth = next((e.growth for e in found if e.dimension == low), ())
    order = next((d for d, r in enumerate(growth, start=1) if r == low), None)
    kept = () if subject.bent else ("orbit-invariance",)
    return Orbit(
        model=subject.name, dimension=low, ambient=subject.floats.size, rigor=rigor, is_lower_bound=open_,
        upper=top.value, upper_reason=top.reason, certified=certified, order=order, growth=growth,
        gap=None if gap is None else (float(gap[0] or 0.0), float(gap[1] or 0.0)), estimates=tuple(found), at=at,
        notes=tuple(notes), theorems=(*kept, "bracket-rank", *top.theorems),
        tangent=tangent.T if tangent is not None and len(tangent) == low else None,
    )  # fmt: skip
