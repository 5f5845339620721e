"""Does the overshoot of the mean-field dynamics for the target ||x_H|| last? The angle dynamics to very long times.

Run: python benchmarks/long_time_study.py [d] [dH] [t] [nodes] [modes] [--gauss 256] [--ladder]     (default 30 5 1e13)

Three computations of the same flow: (a) labels in panels that are split where the flow map becomes steep, (b) the same
with more nodes, more modes and 10 to 100 times smaller tolerances, (c) a fixed Gauss rule of labels, no adaptation.
Prints for each time the mass m- and m+ - alpha of (b), the relative differences of m- between (b) and (a), (c), the
energy A with its exponent -d log A / d log t, the time up to which A certifies m+ > alpha, and the interval that holds
m- at ten times t. Then the time t* at which m+ first reaches alpha, by (c) and another integrator.
--ladder: the limits of the flows of the first N harmonics alone, with the certificate of their convergence.
Statements and proofs: docs/theory/overshoot.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve
from scipy.optimize import brentq

from fiberscope.meanfield.angles.system import AngleSystem, exponents
from fiberscope.meanfield.harmonics.jacobi import jacobi_values
from fiberscope.meanfield.integrators import integrate

FloatArray = NDArray[np.float64]

# RODAS (Hairer and Wanner, Solving Ordinary Differential Equations II, section VI.4): order 4, L-stable, error order 3
_GAMMA = 0.25
_LAST = [1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950]
_A = [
    [],
    [1.544],
    [0.9466785280815826, 0.2557011698983284],
    [3.314825187068521, 2.896124015972201, 0.9986419139977817],
    _LAST,
    [*_LAST, 1.0],
]
_C = [
    [],
    [-5.6688],
    [-2.430093356833875, -0.2063599157091915],
    [-0.1073529058151375, -9.594562251023355, -20.47028614809616],
    [7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160],
    [8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054],
]


class Stepper:
    """Stiff steps whose linear systems cost O(m N^2): particles meet only through the N harmonics.

    The Jacobian is D + X Y, D with a 2 x 2 block for each particle and X Y of rank N (Woodbury).
    """

    def __init__(self, system: AngleSystem) -> None:
        self._system = system
        self._exponents = exponents(system.dimension, system.subspace_dimension)
        self.steps = 0

    def advance(self, y: FloatArray, t: float, end: float, step: float, rtol: float) -> tuple[FloatArray, float]:
        """From (t, y) to the end with this first step; the state there and the step to go on with."""
        while t < end:
            step = min(step, end - t)
            with np.errstate(over="ignore", invalid="ignore"):
                new, error = self._step(y, step)
            size = float(np.abs(error).max()) / rtol if np.isfinite(new).all() else math.inf
            if size <= 1:
                t = end if step == end - t else t + step
                y = new
                self.steps += 1
            step *= max(0.1, min(5.0 if size <= 1 else 0.7, 0.85 * max(size, 1e-9) ** -0.25))
            if step < 1e-13 * max(t, 1.0):
                raise ArithmeticError(f"steps too small at time {t:g}")
        return y, step

    def _step(self, y: FloatArray, step: float) -> tuple[FloatArray, FloatArray]:
        self._factor(y, 1.0 / (_GAMMA * step))
        slopes: list[FloatArray] = []
        for row, corrections in zip(_A, _C, strict=True):
            stage, right = y.copy(), np.zeros_like(y)
            for a, c, k in zip(row, corrections, slopes, strict=True):
                stage += a * k
                right += (c / step) * k
            slopes.append(self._solve(self._system.rate(0.0, stage) + right))
        return stage + slopes[-1], slopes[-1]

    def _factor(self, y: FloatArray, shift: float) -> None:
        half = len(y) // 2
        signs, angles = self._system.signs(len(y)), y[half:]
        loads = np.exp(y[:half]) * signs
        values, slopes = jacobi_values(self._system.modes, *self._exponents, np.cos(2 * angles))
        values *= self._system.eigenvalues[:, None]
        slopes *= self._system.eigenvalues[:, None] * (-2 * np.sin(2 * angles))
        _, first, second = self._system.potential(self._system.drive - values @ loads, angles)
        self._shift = shift
        self._inverse = 1.0 / (shift - signs * second)
        self._cross = 2 * signs * first / shift
        self._right = np.hstack([values * loads, slopes * loads])
        self._left = self._local(-np.hstack([2 * signs * values, signs * slopes]).T)
        self._small = lu_factor(np.eye(self._system.modes) - self._right @ self._left)

    def _local(self, right: FloatArray) -> FloatArray:
        """The inverse of shift - D, applied to (2m,) or to columns (2m, N)."""
        half = len(right) // 2
        inverse, cross = self._inverse, self._cross
        if right.ndim == 2:
            inverse, cross = inverse[:, None], cross[:, None]
        turned = right[half:] * inverse
        return np.concatenate([right[:half] / self._shift + cross * turned, turned])

    def _solve(self, right: FloatArray) -> FloatArray:
        near = self._local(right)
        found: FloatArray = near + self._left @ lu_solve(self._small, self._right @ near)
        return found


@dataclass
class Panels:
    """Labels of one sign: K intervals of the starting angle with p Gauss-Legendre nodes each.

    Angle and log growth of the mass are smooth functions of the label: a panel on which the last Legendre
    coefficients are not small is split in two by interpolation, before the flow map has become steep there.
    """

    edges: FloatArray  # (K, 2)
    growth: FloatArray  # (K, p), log of mass over starting mass
    angles: FloatArray  # (K, p)

    @staticmethod
    def start(d: int, dH: int, nodes: int, count: int = 6, least: float = 1e-13) -> Panels:
        """Equal panels of [0, pi/2], without those of next to no mass."""
        ends = np.linspace(0, math.pi / 2, count + 1)
        edges = np.column_stack([ends[:-1], ends[1:]])
        panels = Panels(edges, np.zeros((count, nodes)), np.zeros((count, nodes)))
        panels.angles = panels.labels()
        kept = panels.log_shares(d, dH).max(axis=1) > math.log(least)
        return Panels(edges[kept], panels.growth[kept], panels.angles[kept])

    def labels(self) -> FloatArray:
        """The starting angles, (K, p)."""
        points, _ = legendre.leggauss(self.angles.shape[1])
        found: FloatArray = self.edges.mean(axis=1)[:, None] + np.diff(self.edges, axis=1) / 2 * points
        return found

    def log_shares(self, d: int, dH: int) -> FloatArray:
        """The log of the starting masses (1/2 in total), (K, p); density cos^(dH-1) sin^(dp-1), normalised."""
        _, weights = legendre.leggauss(self.angles.shape[1])
        labels = self.labels()
        norm = math.lgamma(dH / 2) + math.lgamma((d - dH) / 2) - math.lgamma(d / 2)
        found: FloatArray = (
            (dH - 1) * np.log(np.cos(labels)) + (d - dH - 1) * np.log(np.sin(labels)) - norm
            + np.log(np.diff(self.edges, axis=1) / 2 * weights)
        )  # fmt: skip
        return found

    def steep(self, d: int, dH: int, tolerance: float) -> NDArray[np.bool_]:
        """Panels whose mass times last Legendre coefficients exceeds the tolerance, (K,)."""
        nodes = self.angles.shape[1]
        back = np.linalg.inv(legendre.legvander(legendre.leggauss(nodes)[0], nodes - 1)).T
        mass = np.exp(self.growth + self.log_shares(d, dH)).sum(axis=1)
        tail = np.maximum(np.abs(self.angles @ back)[:, -2:], np.abs(self.growth @ back)[:, -2:]).max(axis=1)
        found: NDArray[np.bool_] = (tail * mass > tolerance) & (np.diff(self.edges, axis=1)[:, 0] > 1e-12)
        return found

    def split(self, which: NDArray[np.bool_]) -> Panels:
        """The same with some panels halved."""
        nodes = self.angles.shape[1]
        points, _ = legendre.leggauss(nodes)
        back = np.linalg.inv(legendre.legvander(points, nodes - 1))
        halves = [legendre.legvander((points + side) / 2, nodes - 1) @ back for side in (-1, 1)]
        middle = self.edges[which].mean(axis=1)
        edges = np.concatenate([
            self.edges[~which],
            np.column_stack([self.edges[which, 0], middle]),
            np.column_stack([middle, self.edges[which, 1]]),
        ])  # fmt: skip
        growth, angles = (
            np.concatenate([a[~which], *(a[which] @ half.T for half in halves)]) for a in (self.growth, self.angles)
        )
        order = np.argsort(edges[:, 0])
        return Panels(edges[order], growth[order], angles[order])


Row = dict[str, float]


def adaptive(
    d: int, dH: int, times: Sequence[float], nodes: int, modes: int, rtol: float, tolerance: float
) -> Iterator[tuple[Row, AngleSystem, FloatArray]]:
    """The flow with labels in panels, one row for each time; a leg on which panels became steep is done again."""
    system = AngleSystem(d, dH, modes)
    parts = [Panels.start(d, dH, nodes) for _ in range(2)]
    now, step, begun = 0.0, 1e-3, time.perf_counter()
    for end in times:
        while True:
            shares = [part.log_shares(d, dH) for part in parts]
            masses = [(part.growth + share).ravel() for part, share in zip(parts, shares, strict=True)]
            state = np.concatenate([*masses, *(part.angles.ravel() for part in parts)])
            system.counts = (parts[0].angles.size, parts[1].angles.size)
            stepper = Stepper(system)
            state, next_step = stepper.advance(state, now, end, step, rtol)
            pieces = np.split(state, np.cumsum([*system.counts, system.counts[0]]))
            after = [
                Panels(part.edges, piece.reshape(share.shape) - share, angle.reshape(share.shape))
                for part, piece, angle, share in zip(parts, pieces[:2], pieces[2:], shares, strict=True)
            ]
            steep = [part.steep(d, dH, tolerance) for part in after]
            if not any(mask.any() for mask in steep):
                break
            parts = [part.split(mask) for part, mask in zip(parts, steep, strict=True)]
        parts, now, step = after, end, next_step
        row = observed(system, state, end)
        row |= {"particles": float(sum(system.counts)), "seconds": time.perf_counter() - begun}
        yield row, system, state


def fixed(
    d: int, dH: int, times: Sequence[float], nodes: int, modes: int, rtol: float
) -> Iterator[tuple[Row, AngleSystem, FloatArray]]:
    """The flow with `nodes` Gauss-Jacobi labels for each sign."""
    system = AngleSystem(d, dH, modes)
    state, now, step = system.gauss_start(nodes), 0.0, 1e-3
    for end in times:
        state, step = Stepper(system).advance(state, now, end, step, rtol)
        now = end
        yield observed(system, state, end), system, state


def observed(system: AngleSystem, state: FloatArray, t: float) -> Row:
    """What is printed, and the certificates: horizon of m+ > alpha, interval of m- at 10 t (theorem 2)."""
    found = {name: float(values[0]) for name, values in system.observables(state[None]).items()}
    mass, energy = found["mass_minus"], found["energy"]
    room = math.sqrt(max(0.0, 9 * t * energy / 2))
    return {
        "t": t, "m-": mass, "over": found["mass_plus"] - system.alpha, "A": energy,
        "horizon": t + horizon(mass, energy, float(system.eigenvalues[0])),
        "low": max(0.0, math.sqrt(mass) - room) ** 2, "high": (math.sqrt(mass) + room) ** 2,
    }  # fmt: skip


def horizon(mass: float, energy: float, first: float) -> float:
    """For so long after a state of this m- and A the excess m+ - alpha stays positive (corollary 3)."""
    need = math.sqrt(math.sqrt(2 * energy) / first)  # m- above |E R| / lam_0 <= sqrt(2A) / lam_0 suffices
    return 2 * max(0.0, math.sqrt(mass) - need) ** 2 / energy


def capture(system: AngleSystem, state: FloatArray) -> tuple[float, float, float]:
    """Theorem 6 for the flow of the harmonics kept: (smallest rate mu, 8 kappa^2 A / mu^2, radius of sqrt(m-)).

    If the second is at most 1, m- of that flow converges, and sqrt(m-) stays within the radius for ever.
    """
    half, ab = len(state) // 2, exponents(system.dimension, system.subspace_dimension)
    lam = system.eigenvalues[:, None]

    def table(angles: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, slopes = jacobi_values(system.modes, *ab, np.cos(2 * angles))
        return lam * values, lam * slopes * (-2 * np.sin(2 * angles))

    values, slopes = table(state[half:])
    masses = np.exp(state[:half])
    mu = float(np.linalg.eigvalsh((2 * values * masses) @ values.T + (slopes * masses) @ slopes.T)[0])
    # kappa^2 is at most a trigonometric polynomial of degree 4 (N - 1): its maximum is read off a fine grid
    count = 64 * system.modes
    grid = np.pi * np.arange(count + 1) / (2 * count)
    values, slopes = table(grid)
    second = np.array([system.potential(row, grid)[2] for row in np.eye(system.modes)])
    sums = 4 * values**2 + 2 * slopes**2 + 4 * (2 * values + second) ** 2
    kappa2 = float(sums.sum(axis=0).max()) / math.cos(4 * (system.modes - 1) * math.pi / (4 * count))
    energy = 0.5 * float((system.residual(state) ** 2).sum())
    if mu <= 0:
        return mu, math.inf, math.inf
    return mu, 8 * kappa2 * energy / mu**2, 2 * math.sqrt(energy / mu)


def first_crossing(d: int, dH: int, nodes: int, modes: int) -> float:
    """t*, the first time with m+ = alpha, by DOP853."""
    system = AngleSystem(d, dH, modes)
    start = system.gauss_start(nodes)

    def excess(t: float) -> float:
        state = integrate(system.rate, start, np.array([t]), rtol=1e-12, atol=1e-13).states[-1:]
        return float(system.observables(state)["mass_plus"][0]) - system.alpha

    last = 4.0
    while excess(last) < 0:
        last *= 1.5
    return float(brentq(excess, last / 1.5, last, xtol=1e-9))


def ladder(d: int, dH: int, end: float, most: int) -> None:
    """The flows of N harmonics: where m- ends, and whether that is certified."""
    print("\n N        m-(t)         A(t)       mu  8 kappa^2 A/mu^2   radius of sqrt m-  certified at")
    for modes in range(2, most + 1):
        for row, system, state in adaptive(d, dH, times_to(end), 12, modes, 1e-7, 1e-8):  # noqa: B007
            mu, ratio, radius = capture(system, state)
            if ratio <= 1 and radius < 1e-6:
                break
        word = f"{row['t']:.0e}" if ratio <= 1 else "not"
        print(f"{modes:2d}  {row['m-']:.9f}  {row['A']:.3e}  {mu:.1e}  {ratio:16.1e}  {radius:18.1e}  {word}")


def times_to(end: float) -> list[float]:
    """10, 30, 75, 150, ..., then four a decade; short legs let the panels keep up with the flow."""
    first = [10.0, 30.0, 75.0, 150.0, 300.0, 1000.0, 3000.0]
    quarters = [round(10 ** (k / 4), 6) for k in range(16, 1 + math.floor(4 * math.log10(end) + 1e-9))]
    return [t for t in first if t < end] + [float(t) for t in quarters if t < end] + [end]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("d", type=int, nargs="?", default=30)
    parser.add_argument("dH", type=int, nargs="?", default=5)
    parser.add_argument("t", type=float, nargs="?", default=1e13)
    parser.add_argument("nodes", type=int, nargs="?", default=12, help="nodes of a panel")
    parser.add_argument("modes", type=int, nargs="?", default=100, help="harmonics kept")
    parser.add_argument("--gauss", type=int, default=256, help="labels a sign of (c)")
    parser.add_argument("--ladder", type=int, default=0, metavar="N", help="only the flows of 2 to N harmonics")
    given = parser.parse_args()
    d, dH, nodes, modes = given.d, given.dH, given.nodes, given.modes
    if given.ladder:
        return ladder(d, dH, given.t, given.ladder)
    times = times_to(given.t)
    coarse = adaptive(d, dH, times, nodes, modes, 1e-7, 1e-8)
    fine = adaptive(d, dH, times, nodes + 4, modes + 40, 1e-8, 1e-9)
    gauss = fixed(d, dH, times, given.gauss, modes, 1e-8)
    print(f"d={d} dH={dH}: panels of {nodes} and {nodes + 4} nodes, {modes} and {modes + 40} modes; ", end="")
    print(f"{given.gauss} Gauss labels")
    print("        t          m-   m+ - alpha  (a)/(b)-1  (c)/(b)-1          A   slope", end="")
    print("   m+ > alpha to           m- at 10 t  particles  s")
    last: Row | None = None
    for (a, _, _), (b, _, _), (c, _, _) in zip(coarse, fine, gauss, strict=True):
        slope = math.nan if last is None else -math.log(b["A"] / last["A"]) / math.log(b["t"] / last["t"])
        others = "   ".join(f"{x['m-'] / b['m-'] - 1:+.1e}" for x in (a, c))
        print(
            f"{b['t']:9.3g}  {b['m-']:.8f}  {b['over']:+.8f}   {others}  {b['A']:.3e}  {slope:6.2f}  "
            f"{b['horizon']:14.2e}  [{b['low']:.5f}, {b['high']:.5f}]  {b['particles']:9.0f}  {b['seconds']:.0f}",
            flush=True,
        )
        last = b
    stars = [first_crossing(d, dH, m, n) for m, n in ((32, 60), (64, 100))]
    print(f"t* = {stars[1]:.8f}, other discretisation {stars[0] - stars[1]:+.1e}")
    return None


if __name__ == "__main__":
    main()
