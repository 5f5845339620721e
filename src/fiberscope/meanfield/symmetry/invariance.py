"""Symmetries of trained two-layer networks: how far from invariant, how far from odd and from linear.

What Propositions 3.2.1 and 3.2.2 of arXiv 2211.08771 promise of training, as checks of a network at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fiberscope.activations import Activation
from fiberscope.arguments import as_choice, as_number, shown
from fiberscope.errors import InputError
from fiberscope.meanfield.symmetry.groups import antipodal
from fiberscope.meanfield.symmetry.hypotheses import Hypotheses, screen, target_defect
from fiberscope.meanfield.symmetry.measures import (
    Neurons,
    is_signed,
    maps_of,
    measure_distance,
    neurons_of,
    relative_difference,
    same_exactly,
    sphere_points,
)
from fiberscope.results import Assumption, Result, Rigor

FloatArray = NDArray[np.float64]
Kind = Literal["measure", "function"]


@dataclass(frozen=True, eq=False)
class InvarianceCheck(Result):
    """How far a network is from invariance under a group.

    Args:
        group: its name.
        order: of the part that the generators make, None when it is too large to know.
        sign: +1 for (a, b) -> (a, T b), -1 for (a, b) -> (-a, T b).
        activation: of the hidden layer.
        neurons: m.
        dimension: d.
        measure_defects: for each map T, the W2 distance of the neurons to their image, relative to their size.
        function_defects: for each T, |f - sign f(T^-1 .)| / |f| in L2 of the sphere.
        exact: for signed permutations, whether the neurons are permuted exactly by all T (None for other maps).
        exact_rays: the same for what an activation of degree 1 sees of the neurons: the mass on each ray.
        tolerance: what counts as invariant.
        invariant: whether no measure defect exceeds it.
        function_invariant: whether no function defect exceeds it.
        start_defect: largest measure defect of the network at the start of training, None if not given.
        target_defect: largest |f*(T x) - sign f*(x)| over samples, relative to the root mean square of f*; or None.
        assumptions: the hypotheses of the proposition, those that were checked and those that were not.
        conclusion: what follows.
        rigor: EXACT if the neurons are permuted exactly, SAMPLED if a function defect was sampled, else NUMERICAL.
    """

    group: str
    order: int | None
    sign: int
    activation: str
    neurons: int
    dimension: int
    measure_defects: tuple[float, ...]
    function_defects: tuple[float, ...]
    exact: bool | None
    exact_rays: bool | None
    tolerance: float
    invariant: bool
    function_invariant: bool
    start_defect: float | None
    target_defect: float | None
    assumptions: tuple[Assumption, ...]
    conclusion: str
    rigor: Rigor
    theorems: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One screen."""
        how = {True: "exactly permuted", False: "not exactly permuted", None: "no exact test for these maps"}[
            self.exact
        ]
        if self.exact is False and self.exact_rays:
            how += ", but exactly the same mass on every ray"
        measured = [
            f"neurons: relative W2 distance to their image {max(self.measure_defects, default=0.0):.3g} ({how})",
            f"function: relative L2 distance to its image {max(self.function_defects, default=0.0):.3g}",
        ]
        head = (
            f"{self.neurons} {self.activation} neurons in R^{self.dimension} under {self.group}, "
            f"(a, b) -> ({'-' if self.sign < 0 else ''}a, T b)"
        )
        return screen(head, measured, self.assumptions, self.conclusion, self.rigor)


@dataclass(frozen=True, eq=False)
class AntisymmetryCheck(Result):
    """How far a network is from odd, and from linear.

    Args:
        activation: of the hidden layer.
        neurons: m.
        dimension: d.
        measure_defect: W2 distance of {(a, b)} to {(-a, -b)}, relative to its size.
        oddness_defect: |even part of f| / |f| in L2 of the sphere.
        linearity_defect: |f - w.x| / |f| there.
        linear_part: (k, d) w = d E[f(x) x].
        exact: whether {(a, b)} = {(-a, -b)} exactly.
        linear_promised: whether an odd network with this activation must be linear (ReLU and its leaky forms).
        tolerance: what counts as odd, linear, antisymmetric.
        antisymmetric: of the neurons.
        odd: of the function.
        linear: of the function.
        start_defect: as measure_defect, at the start of training, None if not given.
        target_defect: largest |f*(-x) + f*(x)| over samples, relative to the root mean square of f*, or None.
        assumptions: the hypotheses.
        conclusion: what follows.
        rigor: EXACT if {(a, b)} = {(-a, -b)} exactly, else SAMPLED or NUMERICAL.
    """

    activation: str
    neurons: int
    dimension: int
    measure_defect: float
    oddness_defect: float
    linearity_defect: float
    linear_part: FloatArray
    exact: bool
    linear_promised: bool
    tolerance: float
    antisymmetric: bool
    odd: bool
    linear: bool
    start_defect: float | None
    target_defect: float | None
    assumptions: tuple[Assumption, ...]
    conclusion: str
    rigor: Rigor
    theorems: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One screen."""
        measured = [
            f"neurons: relative W2 distance to their image {self.measure_defect:.3g}"
            + (" (exactly permuted)" if self.exact else ""),
            f"function: even part {self.oddness_defect:.3g}, not linear {self.linearity_defect:.3g} of its norm",
            f"|w| = {float(np.linalg.norm(self.linear_part)):.6g} of the linear part",
        ]
        head = f"{self.neurons} {self.activation} neurons in R^{self.dimension} under (a, b) -> (-a, -b)"
        return screen(head, measured, self.assumptions, self.conclusion, self.rigor)


def invariance_defect(
    net: Any,
    group: Any,
    *,
    sign: int = 1,
    kind: Kind = "measure",
    activation: str | Activation = "relu",
    at: int = -1,
    samples: int = 4096,
    seed: int = 0,
) -> float:
    """Largest distance of a network to its image under (a, b) -> (sign a, T b), T the generators, relative to its size.

    "measure": W2 distance of the two sets of neurons (for activations of degree 1 each neuron is taken with
    |a| = |b|); "function": |f - sign f(T^-1 .)| / |f| in L2(U(S^{d-1})), for ReLU by the arc-cosine kernel down to
    1e-5, by seeded samples below and for other activations.

    Args:
        net: a `Network` with one hidden layer (biases are coordinates that T fixes), arrays (a, B), or a flow.
        group: an `OrthogonalGroup`, or orthogonal matrices (d, d) or (g, d, d).
        sign: +1 or -1.
        kind: what is compared.
        activation: for arrays and flows.
        at: index of the time, for flows.
        samples: number of points.
        seed: of the points.

    Raises:
        InputError: for maps that are not orthogonal, shapes that do not fit, another sign.

    Complexity: O(m^2 d) a generator; O(m^3) where neurons must be matched by assignment.
    Source: arXiv 2211.08771, Propositions 3.2.1 (sign +1) and 3.2.2 (sign -1).

    >>> swap = [[0.0, 1.0], [1.0, 0.0]]
    >>> invariance_defect(([1.0, 1.0], [[2.0, 1.0], [1.0, 2.0]]), swap)
    0.0
    >>> round(invariance_defect(([1.0], [[1.0, 0.0]]), swap), 12)  # both neurons have norm sqrt(2)
    1.0
    """
    found = neurons_of(net, activation=activation, at=at)
    _checked_sign(sign)
    _, maps = maps_of(group, found.dimension)
    if as_choice(kind, "kind", get_args(Kind)) == "measure":
        return max((measure_distance(found, found.image(t, sign)) for t in maps), default=0.0)
    points = sphere_points(samples, found.dimension, seed)
    return max((_function_defect(found, t, sign, points)[0] for t in maps), default=0.0)


def check_invariance(
    net: Any,
    group: Any,
    *,
    sign: int = 1,
    target: Any = None,
    start: Any = None,
    tolerance: float = 1e-6,
    activation: str | Activation = "relu",
    at: int = -1,
    samples: int = 4096,
    seed: int = 0,
) -> InvarianceCheck:
    """Proposition 3.2.1 (sign +1) or 3.2.2 (sign -1) at a trained network, with the hypotheses that can be checked.

    The proposition: if f*(T x) = sign f*(x), the input law is invariant under T, and the measure at the start is
    invariant under (a, b) -> (sign a, T b), then it stays so under gradient flow, for any activation. A network that
    is not invariant was thus trained from another start, on a sample that is not invariant, with noise or steps that
    break the symmetry, or for another target.

    Args:
        net: as in `invariance_defect`.
        group: as in `invariance_defect`.
        sign: +1 or -1.
        target: a `Target` or a function of points (n, d), to check its symmetry on samples.
        start: the network before training.
        tolerance: what counts as invariant.
        activation: for arrays and flows.
        at: index of the time, for flows.
        samples: number of points.
        seed: of the points.

    Raises:
        InputError: as `invariance_defect`.

    >>> check = check_invariance(([1.0, 1.0], [[2.0, 1.0], [1.0, 2.0]]), [[0.0, 1.0], [1.0, 0.0]])
    >>> check.exact, check.invariant, check.rigor.name
    (True, True, 'EXACT')
    """
    found = neurons_of(net, activation=activation, at=at)
    _checked_sign(sign)
    known, maps = maps_of(group, found.dimension)
    tolerance = as_number(tolerance, "tolerance", least=0)
    points = sphere_points(samples, found.dimension, seed)
    measure = tuple(measure_distance(found, found.image(t, sign)) for t in maps)
    function = [_function_defect(found, t, sign, points) for t in maps]
    exact, rays = _exactly(found, maps, sign) if known.signed and not len(known.continuous) else (None, None)
    first = None
    if start is not None:
        begin = neurons_of(start, activation=activation, at=0)
        first = max((measure_distance(begin, begin.image(t, sign)) for t in maps), default=0.0)
    held = Hypotheses(first, target_defect(target, maps, sign, points), tolerance)
    invariant = max(measure, default=0.0) <= tolerance
    rigor = Rigor.EXACT if exact else Rigor.SAMPLED if any(s for _, s in function) else Rigor.NUMERICAL
    phrase = "f*(T x) = f*(x)" if sign > 0 else "f*(T x) = -f*(x)"
    key = "meanfield-symmetry" if sign > 0 else "meanfield-antisymmetry"
    return InvarianceCheck(
        group=known.name or f"{len(maps)} map{'s' if len(maps) != 1 else ''}", order=known.order(), sign=sign,
        activation=found.row.label, neurons=len(found.b), dimension=found.dimension, measure_defects=measure,
        function_defects=tuple(v for v, _ in function), exact=exact, exact_rays=rays, tolerance=tolerance,
        invariant=invariant, function_invariant=max((v for v, _ in function), default=0.0) <= tolerance,
        start_defect=first, target_defect=held.target, assumptions=held.assumptions(phrase, sign),
        conclusion=held.conclusion(invariant), rigor=rigor, theorems=held.cited(key),
    )  # fmt: skip


def check_antisymmetry(
    net: Any,
    *,
    target: Any = None,
    start: Any = None,
    tolerance: float = 1e-6,
    activation: str | Activation = "relu",
    at: int = -1,
    samples: int = 4096,
    seed: int = 0,
) -> AntisymmetryCheck:
    """Proposition 3.2.2 for T = -I and what it entails: an odd ReLU network is linear on all of R^d.

    The even part of a ReLU network without biases is sum a_j |b_j.x| / 2, so that w = sum a_j b_j / 2 is its linear
    part and |f - w.x| its even part. Other activations stay odd only.

    Args:
        net: as in `invariance_defect`.
        target: a `Target` or a function of points (n, d), to check that it is odd on samples.
        start: the network before training.
        tolerance: what counts as odd or linear.
        activation: for arrays and flows.
        at: index of the time, for flows.
        samples: number of points.
        seed: of the points.

    Raises:
        InputError: as `invariance_defect`.

    >>> check = check_antisymmetry(([1.0, -1.0], [[2.0, 1.0], [-2.0, -1.0]]))
    >>> check.exact, check.linear, check.linear_part.tolist()
    (True, True, [[2.0, 1.0]])
    """
    found = neurons_of(net, activation=activation, at=at)
    tolerance = as_number(tolerance, "tolerance", least=0)
    d = found.dimension
    _, maps = maps_of(antipodal(d), d)
    points = sphere_points(samples, d, seed)
    image = found.image(maps[0], -1)
    measure = measure_distance(found, image)
    difference, sampled = relative_difference(found, image, points)
    odd = 0.5 * difference
    linear, w, also = _linearity(found, odd, points)
    exact = same_exactly(found, maps[0], -1)[0]
    first = None
    if start is not None:
        begin = neurons_of(start, activation=activation, at=0)
        first = measure_distance(begin, begin.image(maps[0], -1))
    held = Hypotheses(first, target_defect(target, maps, -1, points), tolerance)
    promised = found.bias is None and _odd_part_is_linear(found.row)
    rigor = Rigor.EXACT if exact else Rigor.SAMPLED if sampled or also else Rigor.NUMERICAL
    keys = ("meanfield-antisymmetry", *(("odd-linear",) if promised else ()))
    return AntisymmetryCheck(
        activation=found.row.label, neurons=len(found.b), dimension=d, measure_defect=measure, oddness_defect=odd,
        linearity_defect=linear, linear_part=w, exact=exact, linear_promised=promised, tolerance=tolerance,
        antisymmetric=measure <= tolerance, odd=odd <= tolerance, linear=linear <= tolerance, start_defect=first,
        target_defect=held.target, assumptions=held.assumptions("f*(-x) = -f*(x)", -1),
        conclusion=held.conclusion(measure <= tolerance), rigor=rigor, theorems=held.cited(*keys),
    )  # fmt: skip


def _checked_sign(sign: int) -> None:
    if isinstance(sign, bool) or not isinstance(sign, int | float | np.number) or sign not in (1, -1):
        raise InputError(f"sign {shown(sign)}; give 1 or -1")


def _function_defect(net: Neurons, turn: FloatArray, sign: int, points: FloatArray) -> tuple[float, bool]:
    return relative_difference(net, net.image(turn, sign), points)


def _exactly(net: Neurons, maps: list[FloatArray], sign: int) -> tuple[bool | None, bool | None]:
    if not all(is_signed(t) for t in maps):
        return None, None
    found = [same_exactly(net, t, sign) for t in maps]
    rays = None if any(r is None for _, r in found) else all(r for _, r in found)
    return all(p for p, _ in found), rays


def _odd_part_is_linear(row: Activation) -> bool:
    # of degree 1: s(z) = c z for z > 0 and c' z for z < 0, with odd part (c + c') z / 2
    return row.homogeneity == 1


def _linearity(net: Neurons, odd: float, points: FloatArray) -> tuple[float, FloatArray, bool]:
    """|f - w.x| / |f|, w (k, d), and whether it was sampled."""
    if net.bias is None and net.constant is None and _odd_part_is_linear(net.row):
        a, b, _, _ = net.floats()
        up, down = net.row(np.array([1.0, -1.0]))
        return odd, 0.5 * (up - down) * (a.T @ b), False
    values = net.values(points)
    # the linear part on the sphere is the least squares fit over it
    fit: FloatArray = np.linalg.lstsq(points, values, rcond=None)[0].astype(float)
    size = float(np.linalg.norm(values))
    return float(np.linalg.norm(values - points @ fit)) / size if size else 0.0, fit.T, True
