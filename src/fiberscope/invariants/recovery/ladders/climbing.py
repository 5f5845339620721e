"""One rung of the ladder: gradient flow on a manifold of r classes, and the search where flow does not interpolate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.errors import InputError
from fiberscope.invariants.dynamics.reduced import ReducedNetwork, reduced_network
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.invariants.recovery.ladders.leastsquares import Fits, levenberg, mixed, survivors
from fiberscope.invariants.recovery.ladders.stiffflow import STIFF_LIMIT, flow
from fiberscope.network import Network
from fiberscope.results import Budget, Stopwatch
from fiberscope.rowclasses import Classes

FloatArray = npt.NDArray[np.float64]

_ROUND = 128
"""Starts of the search that run together; a round that finds an interpolating point is the last."""
_PARENTS = 12
_PROBES = 256
_RANK = 1e-10
_FLOW_STEPS = {True: 600, False: 5000}


@dataclass(frozen=True)
class Rung:
    """What was tried with r classes.

    Args:
        width: r.
        dimension: of the manifold: r (n_0 + n_L), r more with hidden biases, n_L more with an output bias.
        exceeds: whether the different input points outnumber the dimension.
        flows: gradient-flow runs from small random points of the manifold.
        flow_interpolating: how many of them interpolate.
        flow_best: their least loss, None without flows.
        starts: starts of the least-squares search (it is skipped when a flow interpolates).
        search_interpolating: survivors of its last round that interpolate.
        search_best: least loss of the search, None without one.
        best: least loss.
        found_by: "flow", "search" or None.
        rank: rank of the Jacobian of the targets at the best point, to the relative tolerance 1e-10.
        gap: ratio of the singular values around it; None at full rank.
        agreement: largest mean squared difference between interpolating runs at fresh points, over mean y^2.
        complete: whether everything asked for was tried.
    """

    width: int
    dimension: int
    exceeds: bool
    flows: int
    flow_interpolating: int
    flow_best: float | None
    starts: int
    search_interpolating: int
    search_best: float | None
    best: float
    found_by: str | None
    rank: int
    gap: float | None
    agreement: float | None
    complete: bool

    @property
    def interpolates(self) -> bool:
        """Whether some run reached the floor."""
        return self.found_by is not None


class Climb:
    """Fits of the rung below and everything that all rungs share."""

    def __init__(
        self, x: FloatArray, y: FloatArray, activation: str | Activation, wide: int, bias: bool, output_bias: bool,
        starts: int, flows: int, scale: float, goal: float, seed: int,
    ) -> None:  # fmt: skip
        self.x, self.y, self.wide, self.bias, self.output_bias = x, y, wide, bias, output_bias
        self.starts, self.flows, self.scale, self.goal, self.seed = starts, flows, scale, goal, seed
        self.activation = activation
        self.points = len(np.unique(x, axis=0))
        self.row = self._landscape(1).rows[0]
        self.field: Landscape | None = None
        self.fits: FloatArray = np.zeros((0, 0))
        self.small: Landscape | None = None
        self.parents: FloatArray | None = None

    def _landscape(self, r: int) -> Landscape:
        shape = self.x.shape[1], r, self.y.shape[1]
        return Landscape(shape, self.activation, self.x, self.y, bias=self.bias, output_bias=self.output_bias)

    def rung(self, r: int, clock: Stopwatch) -> Rung:
        """Flows, then the search if no flow interpolates, then the record of what was found."""
        near = self.field is not None and self.field.widths[1] == r - 1
        self.small, self.parents = (self.field, self.fits[:_PARENTS]) if near else (None, None)
        field = self.field = self._landscape(r)
        flowed, searched = self._flows(field, clock), Fits(np.zeros((0, field.size)), np.zeros(0), 0)
        tried, by_flow = 0, bool((flowed.losses <= self.goal).any())
        if not by_flow:
            searched, tried = self._search(field, clock)
        theta, losses = np.concatenate([flowed.theta, searched.theta]), np.concatenate([flowed.losses, searched.losses])
        order = np.argsort(losses, kind="stable")
        theta, losses = theta[order], losses[order]
        hit = losses <= self.goal
        self.fits = theta
        if hit.any():
            self.fits = levenberg(field, theta[:1], steps=60, floor=0.0).theta
        elif not len(theta):
            self.fits = field.normal([self.seed], self.scale)
        best = float(field.loss(self.fits[:1])[0])
        rank, gap = _rank(field, self.fits[0])
        by = "flow" if by_flow else "search" if hit.any() else None
        complete = by is not None or (len(flowed.losses) == self.flows and tried == self.starts and not clock.expired)
        return Rung(
            r, field.size, self.points > field.size, len(flowed.losses), int((flowed.losses <= self.goal).sum()),
            _least(flowed), tried, int((searched.losses <= self.goal).sum()), _least(searched), best, by, rank, gap,
            self._agreement(field, theta[hit]), complete,
        )  # fmt: skip

    def _flows(self, field: Landscape, clock: Stopwatch) -> Fits:
        """Gradient flow on the manifold, in the reduced network's metric."""
        if not self.flows or clock.expired:
            return Fits(np.zeros((0, field.size)), np.zeros(0), 0)
        seeds = np.random.SeedSequence([self.seed, field.widths[1], 0]).generate_state(self.flows)
        metric = self._on_manifold(field, np.ones(field.size)).coordinates("linear")[1][field.kept]
        end = flow(
            field, field.normal(seeds.tolist(), self.scale), metric=metric, floor=self.goal, rtol=1e-3,
            steps=_FLOW_STEPS[field.size <= STIFF_LIMIT],
            budget=Budget(None if np.isinf(clock.left) else 0.5 * clock.left, cancelled=lambda: clock.expired),
        )  # fmt: skip
        return Fits(end.theta, end.losses, int(end.steps.sum()))

    def _search(self, field: Landscape, clock: Stopwatch) -> tuple[Fits, int]:
        rng = np.random.default_rng([self.seed, field.widths[1], 1])
        kept, tried = Fits(np.zeros((0, field.size)), np.zeros(0), 0), 0
        while tried < self.starts and not clock.expired:
            count = min(_ROUND, self.starts - tried)
            start = mixed(field, count, rng, self.small, self.parents)
            fits = survivors(field, start, floor=0.01 * self.goal, clock=clock)
            theta, losses = np.concatenate([kept.theta, fits.theta]), np.concatenate([kept.losses, fits.losses])
            order = np.argsort(losses, kind="stable")[: 4 * _PARENTS]
            kept, tried = Fits(theta[order], losses[order], kept.steps + fits.steps), tried + count
            if kept.losses[0] <= self.goal:
                break
        return kept, tried

    def _agreement(self, field: Landscape, theta: FloatArray) -> float | None:
        if len(theta) < 2:
            return None
        rng = np.random.default_rng([self.seed, 2])
        probes = self.x.mean(axis=0) + self.x.std(axis=0) * rng.standard_normal((_PROBES, self.x.shape[1]))
        f = field.outputs(theta, probes)
        return float(((f - f[:1]) ** 2).mean(axis=(1, 2)).max() / max(float((self.y**2).mean()), 1e-300))

    def reduced(self) -> ReducedNetwork:
        """The wide network of the best fit and its quotient, both in floats and equal as functions exactly."""
        if self.field is None:
            raise InputError("no rung was tried")
        return self._on_manifold(self.field, self.fits[0])

    def _on_manifold(self, field: Landscape, theta: FloatArray) -> ReducedNetwork:
        """Every neuron copied into its class, outgoing weights shared alike; few bits are cut so that floats do."""
        small = field.network(theta)
        r = field.widths[1]
        labels = np.sort(np.arange(self.wide) % r)
        sizes = np.bincount(labels, minlength=r)
        inner, outer = small.layers
        share = _short(np.asarray(outer.weight, np.float64) / sizes, int(sizes.max()))
        net = Network.from_arrays(
            (inner.weight[labels], inner.bias[labels]), (share[:, labels], outer.bias), activation=inner.activation
        )
        return reduced_network(net, (Classes(labels, np.array([Fraction(1)] * self.wide, dtype=object)),))


def _short(values: FloatArray, most: int) -> FloatArray:
    """Values rounded to 53 - log2(most) bits, so that their multiples up to `most` are floats."""
    bits = 53 - max(1, most).bit_length()
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits))


def _rank(field: Landscape, theta: FloatArray) -> tuple[int, float | None]:
    """Rank of the Jacobian in units of the data (x_j / std, y / rms), and the ratio of singular values around it."""
    d, r, q = field.widths
    spread, size = field.x[0].std(axis=0), max(float(np.sqrt((field.y**2).mean())), 1e-300)
    inner = np.tile(1.0 / np.where(spread > 0, spread, 1.0), r)
    units = np.concatenate([inner, np.ones(r), np.full(q * r + q, size)])[field.kept]
    jac = field.jacobian(theta[None])[1][0] * units
    if not np.isfinite(jac).all() or not jac.any():
        return 0, None
    values = np.linalg.svd(jac, compute_uv=False)
    rank = int((values > _RANK * values[0]).sum())
    return rank, None if rank == len(values) else float(values[rank - 1] / max(values[rank], 1e-300))


def _least(fits: Fits) -> float | None:
    finite = fits.losses[np.isfinite(fits.losses)]
    return float(finite.min()) if len(finite) else None
