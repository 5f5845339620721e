"""The fiber of a network: all parameters of its widths with its function, described, measured, sampled and walked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.arguments import as_count, as_float_dtype, as_generator
from fiberscope.bounds import difference_bound
from fiberscope.domains import Box
from fiberscope.errors import ScopeError
from fiberscope.fibers.equations import Condition, System
from fiberscope.fibers.generators import Symmetry, continuous_symmetries, discrete_symmetries, tangent_basis
from fiberscope.fibers.jacobians import DimensionCheck, kernel_dimension
from fiberscope.fibers.kinks import OrthantForm
from fiberscope.fibers.paths import Path, connect
from fiberscope.fibers.roles import Roles, count_roles
from fiberscope.fibers.walks import Move, random_walk
from fiberscope.network import Network, require_network
from fiberscope.results import Assumption, Budget, Result, Rigor, Verdict, jsonable, outward
from fiberscope.symmetries import NeuronTypes, fiber_dimension, hidden_neurons, neuron_types

FloatArray = npt.NDArray[np.float64]

_LISTED = 64


@dataclass(frozen=True)
class HiddenNeuron(Result):
    """A first-layer neuron whose kink the second layer hides.

    Args:
        neuron: its index.
        readers: live second-layer neurons that read it.
        slab: tau, by which its output may fall (b may move by any t >= -tau); 0 if it may only rise.
    """

    neuron: int
    readers: tuple[int, ...]
    slab: Fraction

    def __str__(self) -> str:
        """One phrase."""
        names = ", ".join(map(str, self.readers[:6])) + (", ..." if len(self.readers) > 6 else "")
        return f"neuron {self.neuron} behind {names} of layer 2, tau = {float(self.slab):.4g}"


@dataclass(frozen=True, eq=False)
class Member(Result):
    """A sampled parameter of a fiber.

    Args:
        network: the parameter.
        moves: how it was reached.
        constant, slope: |f(x) - g(x)| <= constant + slope |x| (largest entries) on the domain asked for, rounded
            outward; both 0 for exact members.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network"})

    network: Network
    moves: tuple[Move, ...]
    constant: float = 0.0
    slope: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether it computes exactly the same function."""
        return self.constant == 0 and self.slope == 0

    def __str__(self) -> str:
        """One line: how it was reached, and how far rounding moved the function."""
        counts = Counter(str(move["move"]) for move in self.moves)
        made = ", ".join(f"{name} {n}" for name, n in counts.items()) or "no move"
        text = f"{self.network.architecture} after {made}"
        if self.exact:
            return f"{text}; exactly the same function"
        slope = f" + {outward(self.slope, up=True, digits=2)} max|x|" if self.slope else ""
        return f"{text}; rounded: every output changes by at most {outward(self.constant, up=True, digits=2)}{slope}"


@dataclass(frozen=True, eq=False)
class Fiber(Result):
    """All parameters of the same widths that compute the function of a network on all of R^n.

    Args:
        network: the parameter it was built from.
        dimension: near that parameter, None where no theorem gives it.
        lower_bound: dimension of the scalings (EXACT).
        rigor: of `dimension`.
        formula: how it arises.
        types: of second-layer neurons (three-layer ReLU networks).
        visible: for each first-layer neuron whether its hyperplane is a kink of f somewhere (bottleneck networks).
        hidden_neurons: first-layer neurons whose kink can be shifted, and what hides them.
        components: labelings, orientations and turns, counted.
        hypotheses: of the dimension, each with what code found.
        theorem: key of the theorem behind it.
        notes: what this description leaves out.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"network", "theorem"})

    network: Network = field(repr=False)
    dimension: int | None
    lower_bound: int
    rigor: Rigor | None
    formula: str
    types: NeuronTypes | None
    visible: tuple[bool, ...] | None
    hidden_neurons: tuple[HiddenNeuron, ...]
    components: Roles | None
    hypotheses: tuple[Assumption, ...]
    theorem: str
    notes: tuple[str, ...]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what was computed meanwhile."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    # ---- symmetries and equations

    @cached_property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The known symmetries at this parameter: continuous ones with generators, then discrete ones."""
        return (*continuous_symmetries(self.network), *discrete_symmetries(self.network))

    @cached_property
    def _system(self) -> System | None:
        system = System(self.network)
        try:
            _ = system.equations
        except ScopeError:
            return None
        return system

    @property
    def equations(self) -> tuple[Condition, ...]:
        """Equations of the part of the fiber where neurons keep their roles; empty where they are not known."""
        return self._system.equations if self._system is not None else ()

    @property
    def inequalities(self) -> tuple[Condition, ...]:
        """The inequalities that go with them."""
        return self._system.inequalities if self._system is not None else ()

    def latex(self) -> str:
        """Equations and inequalities as one LaTeX `aligned` block.

        Raises:
            ScopeError: if they are not known for this network.
        """
        return self._known().latex()

    def sympy(self) -> dict[str, Any]:
        """Equations and inequalities over SymPy symbols; needs the extra `sympy`.

        Raises:
            ScopeError: if they are not known for this network.
            InputError: above 500 parameters.
        """
        return self._known().sympy()

    def _known(self) -> System:
        if self._system is None:
            raise ScopeError(f"no equations are known for the fiber of {self.network.architecture}")
        return self._system

    def tangent(self) -> FloatArray:
        """Orthonormal basis of the span of the continuous symmetries' generators, (M, k), in float64.

        k is the exact rank; it equals `dimension` for generic parameters. O(k M^2): for small networks.

        Raises:
            InputError: if the array of generators is too large.
        """
        return tangent_basis(self.network)

    def check_dimension(self, seed: int = 0, *, exact: bool = False) -> DimensionCheck:
        """M - rank of the derivative of theta -> f over sampled activity patterns, to compare with `dimension`.

        Args:
            seed: of the probes.
            exact: rank over Q: then M - rank is a proved upper bound.

        Raises:
            InputError: above 3,000 parameters.
            ScopeError: for activations other than ReLU, tanh and sigmoid; if `exact`, other than ReLU.
        """
        return kernel_dimension(self.network, seed, expected=self.dimension, exact=exact)

    # ---- members

    def sample(
        self, n: int = 1, seed: int = 0, *, steps: int = 12, dtype: npt.DTypeLike | None = None,
        domain: Box | str | None = None,
    ) -> tuple[Member, ...]:  # fmt: skip
        """Random members, each by `steps` random moves from the network; other labelings and orientations included.

        Args:
            n: how many.
            seed: of the walks.
            steps: moves of each walk.
            dtype: None for exact rationals; else weights are rounded, and the deviation is bounded.
            domain: where it is bounded; default all of R^n (then it grows with |x|).

        Raises:
            InputError: if `n` or `steps` is no whole number >= 0, or `seed`, `dtype` or `domain` does not fit.

        >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
        >>> [member.network.exact([3]) for member in fiber(net).sample(2)]
        [(Fraction(2, 1),), (Fraction(2, 1),)]
        """
        box, target = self.network.domain(domain), None if dtype is None else as_float_dtype(dtype)
        streams = as_generator(seed).spawn(as_count(n, "number of members"))
        return tuple(self._member(rng, as_count(steps, "steps"), target, box) for rng in streams)

    def _member(self, rng: np.random.Generator, steps: int, dtype: np.dtype[Any] | None, box: Box) -> Member:
        net, moves = random_walk(self.network, steps, rng)
        if dtype is None:
            return Member(net, tuple(moves))
        pairs = [(rationals.rounded(la.weight, dtype), rationals.rounded(la.bias, dtype)) for la in net.layers]
        rounded = Network.from_arrays(*pairs, activation=[la.activation for la in net.layers], head=net.head)
        return Member(rounded, tuple(moves), *difference_bound(net, rounded, box))

    def contains(self, g: Network, *, budget: Budget | float | None = None) -> Verdict:
        """Whether another parameter computes the same function (`equal`); of other widths too, as a relative.

        >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [1.0]))
        >>> fiber(net).contains(Network.from_arrays(([[2.0]], [0.0]), ([[1.0]], [1.0]))).answer.name
        'YES'
        """
        from fiberscope.fibers.equality import equal

        return equal(self.network, g, budget=budget)

    def path(self, g: Network) -> Path:
        """A path inside the fiber from the network to g, exact at every rational time.

        Raises:
            InputError: if g is no `Network`.
            ScopeError: if none is known: the message names what is discrete, or different.
        """
        return connect(self.network, g)

    # ---- reports

    @property
    def theorems(self) -> tuple[str, ...]:
        """What it rests on; the theorem only where its hypotheses hold."""
        scalings = ("permutation-scaling",) if self.lower_bound else ()
        return scalings + ((self.theorem,) if self.theorem and self.dimension is not None else ())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; equations and symmetries one by one for networks of up to 64 hidden neurons."""
        out = super().to_dict()
        out["architecture"] = self.network.architecture
        out["parameters"] = self.network.parameter_count
        out["theorems"] = list(self.theorems)
        out["symmetry_counts"] = dict(self._counts)
        listed = self.network.hidden_count <= _LISTED
        out["symmetries"] = [jsonable(s) for s in self.symmetries] if listed else None
        for name in ("equations", "inequalities"):
            out[name] = [c.to_dict() for c in getattr(self, name)] if listed else None
        return out

    @property
    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for s in self.symmetries:
            counts[s.name] += max(s.size, 1)
        return counts

    def __str__(self) -> str:
        """One screen for a newcomer."""
        net = self.network
        lines = [f"fiber of {net.architecture}: all parameters (of {net.parameter_count} numbers) with its function"]
        if self.dimension is None:
            lines.append(f"dimension: at least {self.lower_bound} (scalings); no theorem gives the value")
            lines += [f"  not met: {h.statement}" for h in self.hypotheses if h.checked and not h.holds]
        else:
            how = self.rigor.value if self.rigor is not None else ""
            lines.append(f"dimension: {self.dimension} ({self.formula}), {how}")
        if self.types is not None:
            lines.append(f"second layer: {self.types}")
        if self.visible is not None:
            seen = sum(self.visible)
            lines.append(f"first layer: {seen} of {len(self.visible)} hyperplanes show as kinks")
        lines += [f"  hidden: {h}" for h in self.hidden_neurons]
        kinds = {s.name: s.kind for s in self.symmetries}
        for kind in ("continuous", "discrete"):
            found = [f"{name} {n}" if kind == "continuous" else name for name, n in self._counts.items()
                     if kinds[name] == kind]  # fmt: skip
            lines.append(f"{kind} symmetries: {', '.join(found) or 'none known'}")
        if self.components is not None:
            lines.append(f"parts of the fiber for generic parameters: {self.components}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def fiber(net: Network) -> Fiber:
    """Describe the fiber of a network: the set of all parameters of its widths that compute its function.

    Complete for generic bottleneck three-layer ReLU networks (n1 <= n0, rank W1 = n1), two-layer ReLU and two-layer
    tanh networks; for others only symmetries that every chain has, and a lower bound of the dimension.

    Args:
        net: any chain.

    Raises:
        InputError: if it is no `Network`.

    Complexity: O(n0 n1^2) for the rank, O(n1 n2 n3) for the rest; symmetries and equations when asked for.
    Source: arXiv 2605.18319.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> found = fiber(net)
    >>> found.dimension, [str(h) for h in found.hidden_neurons]
    (3, ['neuron 0 behind 0 of layer 2, tau = 2'])
    """
    require_network(net)
    row = net.activation
    name = row.name if row is not None else ""
    if net.depth == 3 and name == "relu":
        return _three_layer(net)
    if net.depth == 2 and name == "relu":
        return _two_layer(net)
    found = fiber_dimension(net)
    rigor = Rigor.EXACT if found.exact is not None else None
    little = f"little is known of fibers of {net.architecture}: symmetries of any chain only"
    notes = () if found.theorem or found.exact is not None else (little,)
    about = (found.exact, found.lower_bound, rigor, found.formula.partition(": ")[2])
    return Fiber(net, *about, None, None, (), None, found.hypotheses, found.theorem, notes)


def _three_layer(net: Network) -> Fiber:
    found = fiber_dimension(net)
    second = net.layers[1]
    types = neuron_types(second.weight, second.bias)
    bottleneck = all(h.holds for h in found.hypotheses[:2]) and net.layers[-1].activation.name == "identity"
    form = OrthantForm.of(net)
    notes = []
    if bottleneck:
        visible: tuple[bool, ...] | None = tuple(form.visible().tolist())
    else:
        visible = None
        notes.append(
            "no bottleneck (n1 <= n0, rank W1 = n1): types refer to all y >= 0, of which only a part may occur"
        )
    if bottleneck and found.exact is None:
        notes.append("not generic: other parts of the fiber, with neurons in other roles, may meet here")
    live = np.ones(second.n_out, dtype=bool)
    live[list(types.dead)] = False
    hidden = []
    for i in form.hidden():
        readers = np.flatnonzero(live & np.asarray(second.weight[:, i] != 0, dtype=bool))
        hidden.append(HiddenNeuron(i, tuple(readers.tolist()), form.slab(i) or Fraction(0)))
    rigor = Rigor.GENERIC if found.exact is not None else None
    return Fiber(
        net, found.exact, found.lower_bound, rigor, _formula(net, types), types, visible, tuple(hidden),
        count_roles(net), found.hypotheses, found.theorem, tuple(notes),
    )  # fmt: skip


def _formula(net: Network, types: NeuronTypes) -> str:
    """The terms of the dimension, in words."""
    _, n1, _, n3 = net.widths
    s, d, a = len(types.split), len(types.dead), len(types.active)
    if not s + a:
        return "M - n3: nothing but the output bias matters"
    r = min(a, n1, n3)
    terms = [f"{n1} + {s} scalings"]
    terms += [f"{d * (n1 + 1 + n3)} of dead neurons"] if d else []
    terms += [f"{a * (n1 + n3 + 1) - r * (n1 + n3 - r)} of the always-active block"] if a else []
    terms += ["1 shift of a hidden kink"] if hidden_neurons(net) else []
    return " + ".join(terms)


def _two_layer(net: Network) -> Fiber:
    """Distinct hyperplanes and the jumps across them are read off f, so nearby members differ by scalings only."""
    from dataclasses import replace

    from fiberscope.activations import activation
    from fiberscope.neurons import proportional_rows

    first, last = net.layers
    moving = bool(np.asarray(first.weight != 0, dtype=bool).any(axis=1).all())
    read = bool(np.asarray(last.weight != 0, dtype=bool).any(axis=0).all())
    # abs forgives every nonzero factor, so its classes are the hyperplanes
    distinct = proportional_rows(replace(first, activation=activation("abs"))).count == first.n_out
    end = last.activation.label
    hypotheses = (
        Assumption("no hidden neuron is constant", True, moving),
        Assumption("every hidden neuron is read by an output", True, read),
        Assumption("no two hidden neurons lie on one hyperplane", True, distinct),
        Assumption(f"the last layer has no activation (found {end})", True, end == "identity"),
    )
    exact = net.widths[1] if all(h.holds for h in hypotheses) else None
    lower = fiber_dimension(net).lower_bound
    notes = ("flips, relu(z) = relu(-z) + z, need a set of neurons whose v w^T add up to 0",)
    rigor = Rigor.EXACT if exact is not None else None
    formula = f"{net.widths[1]} scalings"
    return Fiber(net, exact, lower, rigor, formula, None, None, (), None, hypotheses, "two-layer-form", notes)
