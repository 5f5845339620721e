"""Models made ready for the search: their fields, their point, and what is proved about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_finite
from fiberscope.autodiff.families import Family, RestrictedFamily
from fiberscope.autodiff.floats import FloatFamily, NumpyFamily
from fiberscope.domains import Box
from fiberscope.errors import InputError, ScopeError, UnsupportedError
from fiberscope.invariants.arguments import as_names, refuse
from fiberscope.invariants.classes.projections import nearest_on_manifold
from fiberscope.invariants.orbits.ceilings import Ceiling, ceiling, trained_dimension
from fiberscope.invariants.regions import nearby, realised_regions
from fiberscope.models.chains import blocks_of, chain_family
from fiberscope.models.networks import Patterns, piecewise_family
from fiberscope.network import Network
from fiberscope.neurons import colour_classes
from fiberscope.results import Stopwatch

LARGEST = 12_000
"""Dimensions up to which ranks are taken: a matrix of doubles of 1.2 GB."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model made ready: its family, its point, and what is proved about it."""

    name: str
    floats: FloatFamily
    family: Family | None
    exact_theta: npt.NDArray[Any] | None
    top: Ceiling
    polynomial: bool
    notes: tuple[str, ...] = ()
    beyond: Ceiling | None = None
    """The proved upper bound where `top` speaks only of the activation patterns that a search found."""
    bent: bool = False
    """Whether an activation has kinks: then a flow may leave the patterns, and the orbit says nothing of it there."""


def subject_of(model: Any, theta: Any, inputs: Any, at: str, frozen: Sequence[str], domain: Box | str | None, seed: int,
             rng: np.random.Generator, clock: Stopwatch) -> Subject:  # fmt: skip
    """A model as the search needs it; see `search.orbit` for the arguments.

    Raises:
        InputError: if it is no model, or has no point of its own and was given none.
        ScopeError: if its fields are not those of its parameters, or its orbit is too large for a matrix.
    """
    if isinstance(model, Network):
        refuse([("inputs", inputs)], "inputs are for torch modules and JAX functions; a network has a domain")
        return _network(model, theta, at, frozen, domain, seed, rng, clock)
    if domain is not None:
        raise InputError("a domain is for networks; the inputs of other models are drawn as they say")
    if hasattr(model, "family") and not hasattr(model, "draw"):
        model = model.family
    if frozen:
        raise InputError("frozen blocks are for networks; leave the others out of theta")
    if isinstance(model, FloatFamily | Family):
        refuse([("inputs", inputs)], "inputs are for torch modules and JAX functions; a family draws its own")
    if isinstance(model, FloatFamily):
        name = getattr(model, "name", "function")
        return Subject(name, model, None, None, Ceiling(model.size, "all parameters", ()), False)
    if isinstance(model, Family):
        start = rng.standard_normal(model.size) if theta is None else as_finite(theta, "theta")
        if theta is None and at == "theta":
            raise InputError("the model has no parameters of its own: give theta, or at='generic'")
        exact = None if theta is None else rationals.exact_array(theta)
        top = Ceiling(model.size, "all parameters", ())
        name = getattr(model, "name", "family")
        return Subject(name, NumpyFamily(model, start), model, exact, top, bool(getattr(model, "polynomial", False)))
    return _function(model, theta, inputs, at, rng)


def _require_small(dimension: int) -> None:
    if dimension > LARGEST:
        raise ScopeError(
            f"an orbit of up to {dimension:,} dimensions needs a matrix of that size; the limit is {LARGEST:,} "
            "(smallest_sim bounds it from above at any size)"
        )


def _function(model: Any, theta: Any, inputs: Any, at: str, rng: np.random.Generator) -> Subject:
    if hasattr(model, "named_parameters"):
        from fiberscope.autodiff.torch import torch_family

        if inputs is None:
            raise InputError("a torch module needs inputs: example inputs (N, ...), or the shape of one")
        refuse([("theta", theta)], "a torch module has its own parameters; load a state_dict into it")
        family: FloatFamily = torch_family(model, inputs)
        name = type(model).__name__
    elif callable(model):
        from fiberscope.autodiff.jax import jax_family

        if theta is None or inputs is None:
            raise InputError("a function needs theta (a pytree) and inputs: example inputs (N, ...), or a shape")
        family, name = jax_family(model, theta, inputs), getattr(model, "__name__", "function")
    else:
        raise InputError(f"model of type {type(model).__name__}; expected a Network, a torch module or a JAX function")
    if at == "generic":
        family.start = family.start + rng.standard_normal(family.size)  # type: ignore[misc]
    return Subject(name, family, None, None, Ceiling(family.size, "all parameters", ()), False)


def _network(net: Network, theta: Any, at: str, frozen: Sequence[str], domain: Box | str | None, seed: int,
             rng: np.random.Generator, clock: Stopwatch) -> Subject:  # fmt: skip
    net.require_own_parameters("an orbit")
    if theta is not None:
        net = net.with_theta(theta)
    blocks = blocks_of(net.widths)
    names = [name for name, _ in blocks]
    frozen = as_names(frozen, "frozen blocks", names)
    free = [name for name in names if name not in frozen]
    rows = [layer.activation for layer in net.hidden]
    last = None if net.layers[-1].activation.name == "identity" else net.layers[-1].activation
    bent = [row for row in rows if row.pieces is not None and len(row.pieces) > 1]
    notes: tuple[str, ...] = ()
    points, complete, partition = None, True, None
    if last is not None and (bent or last.pieces is not None):
        raise UnsupportedError(
            f"the activation {last.label} after the last layer; orbits of piecewise linear networks have none there"
        )
    if bent and at == "generic":
        family: Family = piecewise_family(net.widths, rows)
        notes = ("all activation patterns (path lifting), not those of one theta",)
    elif bent:
        if any(row.pieces is None for row in rows):
            raise ScopeError("the orbit of a point needs hidden layers that are all smooth or all piecewise linear")
        box = net.domain(domain)
        partition = colour_classes(net)
        _require_small(trained_dimension(net, partition, set(free)) - net.hidden_count)
        beside = nearby(net, seed=seed)
        if not all(c.trivial for c in partition):  # classes stay classes along the orbit
            beside = nearest_on_manifold(beside, partition, exact=True)
        found = realised_regions(net, box, seed=seed, clock=clock, beside=beside)
        if not found.count:
            late = "in the time given" if clock.expired else "by search"
            raise ScopeError(
                f"no input that lies inside the region of an activation pattern was found {late} on {box}; "
                "the orbit needs one: give more time, or a smaller domain"
            )
        held = np.where(found.free, np.nan, box.lower)
        fixed = None if found.free.all() else np.broadcast_to(held, (found.count, net.widths[0]))
        family = piecewise_family(net.widths, rows, Patterns(found.slopes, found.intercepts, fixed))
        points, complete = found.points, found.complete and found.open
        which = "all" if found.complete else "those found"
        notes = (f"local, with the {found.count} activation patterns on {box} ({which}); {found.note}".rstrip("; "),)
    else:
        family = chain_family(net.widths, rows, output=last)
        if domain is not None:
            raise InputError("a domain matters to piecewise linear networks; analytic fields know no bounds of x")
    keep = np.concatenate([np.full(int(np.prod(shape)), name in free) for name, shape in blocks])
    if at == "generic":
        fresh = Network.random(net.widths, activation=rows[0] if rows else "identity", seed=rng).theta
        net = net.with_theta(np.where(keep, fresh, rationals.fractions(rationals.exact_array(net.theta))))
    top = ceiling(net, free, everywhere=at == "generic", points=points, partition=partition)
    beyond = None if points is None or complete else ceiling(net, free, partition=partition)
    _require_small(top.value)
    exact = rationals.exact_array(net.theta)
    start = rationals.nearest_floats(exact)
    if frozen:
        index = np.flatnonzero(keep)
        family, exact, start = RestrictedFamily(family, exact, index), exact[index], start[index]
    every = [*rows, *([last] if last is not None else [])]
    polynomial = all(row.pieces is not None or row.name in ("square", "polynomial") for row in every)
    return Subject(
        net.architecture, NumpyFamily(family, start), family, exact, top, polynomial, notes, beyond, bool(bent)
    )
