"""Small calls of public functions: what each cites, and examples in which a hypothesis of a theorem fails.

`EXAMPLES` holds for every theorem a call of each function that `docs/theory/claims.toml` names for it; what lies
outside the theorems is in `gallery_limits`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from fiberscope.activations import activation
from fiberscope.certificates import Certificate
from fiberscope.domains import Box
from fiberscope.fibers.alignment import Move, moved
from fiberscope.invariants.dynamics.backprop import Batch
from fiberscope.invariants.dynamics.updates import optimiser
from fiberscope.invariants.submanifolds.sets import LinearSet
from fiberscope.meanfield.symmetry.groups import antipodal, reflections
from fiberscope.meanfield.targets.finite import Linear, Teacher
from fiberscope.meanfield.targets.zonal import NormH
from fiberscope.models import chain
from fiberscope.network import Network
from fiberscope.neurons import colour_classes
from fiberscope.results import Assumption
from fiberscope.training.architectures.chains import chain_architecture
from fiberscope.training.drift.recursions import Constants
from fiberscope.training.drift.rules import OptimiserState
from fiberscope.training.lint.starts import read_start

Run = Callable[..., Any]
build = Network.from_arrays


@dataclass(frozen=True)
class Example:
    """A call: `make` is given the function of that name and calls it."""

    function: str
    make: Callable[[Run], Any]
    refused: bool = False
    """Whether the call has to end in an error of the library."""
    says: str = ""
    """A piece of the hypothesis that the result has to show as failing."""

    def run(self) -> Any:
        """Call the function of that name."""
        found = resolve(self.function)
        calls: list[int] = []

        def told(*values: Any, **options: Any) -> Any:
            calls.append(1)
            return found(*values, **options)

        out = self.make(told)
        assert calls, f"{self.function} was not called"
        return out


def resolve(dotted: str) -> Any:
    """The object of a dotted name."""
    found: Any = importlib.import_module("fiberscope")
    for part in dotted.split(".")[1:]:
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(f"{found.__name__}.{part}")
    return found


def cited(found: Any) -> frozenset[str]:
    """The keys that a result and all its parts name."""
    return frozenset(key for part in parts(found) for key in _keys(part))


def parts(found: Any) -> Iterator[Any]:
    """A result and everything inside it that is data: fields, members of sequences, values of mappings."""
    seen: set[int] = set()
    todo = [found]
    while todo:
        here = todo.pop()
        if id(here) in seen or isinstance(here, str | bytes | np.ndarray | Network | type):
            continue
        seen.add(id(here))
        if is_dataclass(here):
            yield here
            hidden = getattr(here, "hidden", frozenset())
            todo += [getattr(here, f.name) for f in fields(here) if f.name not in hidden]
        elif isinstance(here, Mapping):
            todo += here.values()
        elif isinstance(here, list | tuple | set | frozenset):
            todo += here


def _keys(part: Any) -> tuple[str, ...]:
    if hasattr(part, "theorems"):
        return tuple(part.theorems)
    one = getattr(part, "theorem", "")
    return (one,) if isinstance(one, str) and one and getattr(part, "applies", True) else ()


def assumptions(found: Any) -> list[Assumption]:
    """All hypotheses that a result and its parts list."""
    out = [part for part in parts(found) if isinstance(part, Assumption)]
    for part in parts(found):
        for name in ("hypotheses", "assumes", "assumptions"):
            out += [a for a in getattr(part, name, ()) or () if isinstance(a, Assumption)]
    return list(dict.fromkeys(out))


# ---- networks


PAIR = build(([[1.0], [1.0]], [0.5, 0.5]), ([[2.0, 2.0]], [0.0]), activation="tanh")
TANH = Network.random((2, 3, 1), activation="tanh", seed=0)
RELU = Network.random((2, 3, 1), seed=0)
DEEP = Network.random((2, 3, 2, 1), activation="tanh", seed=0)
COPIES = build(([[1.0], [1.0]], None), ([[2.0, 2.0]], None), activation="square")
GELU = Network.random((2, 3, 1), activation="gelu", seed=0)
SQUARE = Network.random((1, 2, 1), activation="square", seed=0)
BOTTLENECK = Network.random((2, 2, 3, 1), seed=1)
FORM = build(
    ([[2, 1], [0, -1]], [1, 2]), ([[-1, -3], [-3, -3], [-2, 2]], [2, 1, 0]), ([[1, 2, 0]], [0])
)  # meets all hypotheses of the three-layer form
FOLDED = moved(RELU, [Move(0, (1, 0, 2), (Fraction(1),) * 3)])
FOLDED_PAIR = moved(PAIR, [Move(0, (1, 0), (Fraction(1),) * 2)])
MULTIPLES = build(([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]], [0.5, 1.0, 0.0]), ([[1.0, 2.0, 1.0]], [0.0]))
DEAD = (([[1.0], [-1.0]], [0, 0]), ([[-1.0, -2.0], [1.0, 1.0]], [0, 0]), ([[1.0, 1.0]], [0]))
COPY = build(([[1.0], [2.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
SWAPPED = build(([[-2.0], [1.0]], [2.0, 0.0]), ([[0.5, 6.0]], [0.0]))
PLAIN = build(([[2.0], [-1.0]], [0.0, 1.0]), ([[3.0, 1.0]], [0.0]))
SOFT = build(([[1.0]], None), ([[2.0]], None), activation="softplus")
REDUCIBLE = build(([[1.0], [1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]), activation="tanh")
SIGNED = build(([[1.0], [-1.0]], [0.5, -0.5]), ([[2.0, -2.0]], [0.0]), activation="tanh")
GELU_HALVED = GELU.with_theta(np.asarray(GELU.theta, np.float64) * (1 + 1e-15))
BRANCH = build(([[1.0, 2.0], [-1.0, -2.0]], None), ([[1.0, -2.0]], None), activation="tanh")
TARGET = build(([[1.0, 2.0]], None), ([[3.0]], None), activation="tanh")
DATA = Batch(np.array([[0.5], [1.0]]), np.array([[0.1], [1.5]]))
DATA2 = Batch(np.array([[0.5, 1.0], [1.0, -1.0]]), np.array([[0.1], [1.5]]))
CIRCLE = ([1.0, 1.0], [[2.0, 1.0], [1.0, 2.0]])
SWAP = [[0.0, 1.0], [1.0, 0.0]]
ODD = ([1.0, -1.0], [[2.0, 1.0], [-2.0, -1.0]])
EDGES = LinearSet([[1, -1, 0, 0, 0, 0, 0], [0, 0, 1, -1, 0, 0, 0], [0, 0, 0, 0, 1, -1, 0]])
CONFINED = {
    "kind": "confinement", "widths": [1, 2, 1], "activations": ["softplus"], "frozen": [],
    "classes": [{"labels": [0, 0], "factors": ["1", "1"]}], "constants": [],
}  # fmt: skip
TWINS = "W1[0] = W1[1]; b1[0] = b1[1]; W2[:,0] = W2[:,1]"


def nearly(net: Network) -> Network:
    """The same with one weight a little larger."""
    theta = np.array(net.theta, dtype=np.float64)
    theta[0] += 1e-3
    return net.with_theta(theta)


TREE_F = build(([[1, 0], [0, 1]], [0, 0]), ([[-1, 2], [-1, 1]], [0, 0]), ([[1, -1]], [0]))
TREE_G = build(([[-2, 3], [-1, 2]], [0, 0]), ([[-1, 2], [-1, 1]], [0, 0]), ([[1, -1]], [0]))


@cache
def proof(kind: str) -> tuple[Certificate, Network, Network]:
    """A certificate of a reduction, of an equality by moves, or by cases; and its networks."""
    from fiberscope.fibers import equal
    from fiberscope.reduction import reduce

    if kind == "reduction":
        small = reduce(COPY)
        return small.certificate, COPY, small.network
    if kind == "near":
        wide = build(([[1.0], [1.001]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]), activation="tanh")
        near = reduce(wide, "[-1,1]", tolerance=0.1)
        return near.certificate, wide, near.network
    pair = (TREE_F, TREE_G) if kind == "cases" else (PLAIN, SWAPPED)
    return equal(*pair).certificate, *pair


def checked(kind: str) -> Callable[[Run], Any]:
    """Check a certificate as it is."""
    return lambda check: check(*proof(kind))


def corrupted(kind: str) -> Callable[[Run], Any]:
    """Check a certificate against a network that differs in one weight: the answer is no."""

    def make(check: Run) -> Any:
        certificate, f, g = proof(kind)
        data = certificate.to_dict()
        other = nearly(g)
        data["target"] = {**data["target"], "digest": other.digest, "sha256": None}
        found = check(data, f, other)
        assert found.answer.name == "NO"
        return found

    return make


def drift(rule: str = "gd", name: str = "relu") -> Callable[[Run], Any]:
    """The report after one step."""

    def make(track: Run) -> Any:
        model = chain_architecture((1, 2, 1), activation=name)
        rng = np.random.default_rng(0)
        start = {s.name: rng.standard_normal(s.shape) for s in model.slots}
        slope = {s.name: rng.standard_normal(s.shape) for s in model.slots}
        state = OptimiserState(rule, 0.1)
        found = track(model, start, optimiser=state)
        found.observe(1, {k: v - 0.1 * slope[k] for k, v in start.items()}, slope, state)
        return found.report()

    return make


def particles(**options: Any) -> Callable[[Run], Any]:
    """Two symmetric neurons for a short time."""
    target = Teacher([1.0, 1.0], [[1.0, 0.0], [-1.0, 0.0]])
    rows = [[1.0, 0.5], [-1.0, 0.5], [1.0, -0.5], [-1.0, -0.5]]
    return lambda flow: flow([1.0] * 4, rows, target, [0, 0.1], **options)


def noisy(run: Run) -> Any:
    """Recover from data that no width of the list interpolates."""
    x = np.linspace(-2, 2, 12)[:, None]
    return run((x, np.random.default_rng(0).standard_normal(12)), (1,), flows=0, starts=4)


def spread(run: Run) -> Any:
    """Recover one neuron."""
    x = np.linspace(-2, 2, 12)[:, None]
    return run((x, 3 * np.tanh(x[:, 0] - 0.5)), (1,), flows=1, starts=8)


@cache
def split_target() -> Any:
    from fiberscope.invariants.recovery import embed

    return embed(TARGET, [2])


INV, REC, FIB = "fiberscope.invariants", "fiberscope.invariants.recovery", "fiberscope.fibers"
MF, TRAIN, DYN = "fiberscope.meanfield", "fiberscope.training", "fiberscope.invariants.dynamics"
SIM, ORBIT, SIMS = f"{INV}.smallest_sim", f"{INV}.orbit", f"{INV}.manifolds.architectures.sims"
FIXED = f"{INV}.manifolds.subgroups.fixed_spaces"
LATTICE = f"{INV}.manifolds.lattice.two_layer_lattice"
IS_INVARIANT = f"{INV}.submanifolds.invariance.is_invariant"
CONFINE = f"{INV}.submanifolds.confinement.check_invariance"
CONSERVED = f"{INV}.laws.counting.conserved"
REDUCED, KEEPS = f"{DYN}.reduced.reduced_network", f"{DYN}.keeping.optimiser_keeps"
GROWTH, SIDES = f"{DYN}.instability.growth", f"{DYN}.instability.side_by_side"
LINT, SILENT = f"{TRAIN}.lint.linting.lint_init", f"{TRAIN}.lint.starts.silent_neurons"
DRIFT, PROPAGATE = f"{TRAIN}.drift.predictions.Drift", f"{TRAIN}.drift.recursions.propagate"
INSPECT, REDUCE, CHECK = "fiberscope.inspection.inspect", "fiberscope.reduction.reduce", "fiberscope.certificates.check"
DIMENSION, LAWS = "fiberscope.symmetries.fiber_dimension", "fiberscope.symmetries.laws"
CANONICAL, EQUAL, DISTANCE = f"{FIB}.canonical", f"{FIB}.equal", f"{FIB}.distance"
FIBER, ALIGN, FINGERPRINT = f"{FIB}.fiber", f"{FIB}.align", f"{FIB}.fingerprint"
BOUNDS, DIFFERENCE = "fiberscope.bounds.preactivation_bounds", "fiberscope.bounds.difference_bound"
SYMMETRY, ANTI = f"{MF}.symmetry.invariance.check_invariance", f"{MF}.symmetry.invariance.check_antisymmetry"
PARTICLES, REDUCTION = f"{MF}.particles.flow.particle_flow", f"{MF}.reductions.reduction_of"
LINEAR, ODD_FLOW = f"{MF}.linear.flow.linear_flow", f"{MF}.linear.odd.odd_flow"
ANGLE, LOWDIM = f"{MF}.angles.flow.angle_flow", f"{MF}.lowdim.flow.lowdim_flow"
RANK, SIZE = f"{REC}.model_rank", f"{REC}.optimistic_sample_size"
RECOVER, PREDICT = f"{REC}.recover", f"{REC}.predict_recovery"
EMBED, VERIFY, DIAGONAL = f"{REC}.embed", f"{REC}.verify", f"{REC}.diagonal"
STRATA, LOCATE = f"{REC}.strata", f"{REC}.locate"


def of(*values: Any, **options: Any) -> Callable[[Run], Any]:
    """Call with these arguments."""
    return lambda run: run(*values, **options)


def ex(function: str, *values: Any, **options: Any) -> Example:
    """An example that is a plain call."""
    return Example(function, of(*values, **options))


def _reduced(run: Run) -> Any:
    return run(PAIR, colour_classes(PAIR))


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "orbit-invariance": (ex(SIM, PAIR), ex(ORBIT, COPIES, method="flow"), ex(SIMS, (1, 2, 1), "tanh")),
    "bracket-rank": (ex(ORBIT, COPIES, method="flow"), ex(CONSERVED, (1, 2, 1))),
    "equitable-sim": (ex(SIM, PAIR), ex("fiberscope.neurons.colour_classes", PAIR), ex(INSPECT, PAIR)),
    "symmetry-fixed-space": (
        ex(SIMS, (1, 2, 1), "tanh"), ex(FIXED, (1, 2, 1), activation("tanh")), ex(LINT, PAIR),
    ),
    "silent-neurons": (
        Example(SILENT, lambda run: run(read_start(build(*DEAD)))), ex(LINT, build(*DEAD)),
    ),
    "tangent-fields": (
        ex(IS_INVARIANT, TWINS, ((1, 2, 1), "softplus")), ex(CONFINE, CONFINED, EDGES, (1, 2, 1), "softplus"),
    ),
    "reduced-network": (
        Example("fiberscope.symmetries.quotient", _reduced), ex(SIM, PAIR), Example(REDUCED, _reduced),
    ),
    "optimiser-equivariance": (
        Example(REDUCED, _reduced), ex(KEEPS, "adam", "permutation"), ex(GROWTH, PAIR, DATA, steps=5),
        ex(SIDES, PAIR, DATA, optimiser("adam", 0.01), steps=5), ex(LINT, PAIR),
    ),
    "two-layer-sims": (
        ex(LATTICE, 2, 3, 1, signs=True, null=True), ex(SIM, PAIR), ex(SIMS, (1, 2, 1), "softplus"),
    ),
    "relu-fiber-dimension": (ex(DIMENSION, BOTTLENECK), ex(FIBER, BOTTLENECK), ex(INSPECT, BOTTLENECK)),
    "permutation-scaling": (
        ex("fiberscope.symmetries.scaling_rank", RELU), ex(FIBER, RELU), ex(EQUAL, PLAIN, SWAPPED),
        ex(ALIGN, PLAIN, SWAPPED),
    ),
    "tanh-identifiability": (ex(DIMENSION, TANH), ex(FIBER, TANH), ex(CANONICAL, TANH)),
    "scaling-balance": (ex(INSPECT, RELU), ex(LAWS, RELU), Example(DRIFT, drift())),
    "balance-steps": (
        Example(DRIFT, drift()),
        ex(PROPAGATE, "gd", True, (Constants(0.1, 0.0, 0.0), Constants(0.1, 0.0, 0.0), 1), *np.ones((3, 1, 1))),
    ),
    "lossless-moves": (ex(REDUCE, COPY), Example(CHECK, checked("reduction"))),
    "interval-enclosure": (
        ex(BOUNDS, RELU, Box.parse("[-1,1]", 2)), Example(CHECK, checked("near")), ex(INSPECT, RELU),
    ),
    "lipschitz-difference": (
        ex(DIFFERENCE, RELU, nearly(RELU), Box.parse("[-1,1]", 2)), Example(CHECK, checked("near")),
        ex(DISTANCE, RELU, nearly(RELU), "[-1,1]", below=1.0),
    ),
    "block-balance": (ex(LAWS, RELU, [[0.0, 1.0]]), ex(CONSERVED, COPY, data=[[1.0], [2.0]])),
    "canonical-form": (ex(CANONICAL, RELU), ex(EQUAL, PLAIN, SWAPPED), Example(CHECK, checked("moves"))),
    "two-layer-form": (ex(CANONICAL, RELU), ex(FINGERPRINT, RELU), ex(FIBER, RELU)),
    "three-layer-form": (ex(CANONICAL, FORM), ex(FINGERPRINT, FORM)),
    "case-tree": (ex(EQUAL, TREE_F, TREE_G), Example(CHECK, checked("cases"))),
    "difference-zonotope": (ex(DISTANCE, RELU, nearly(RELU), "[-1,1]", below=1e-2),),
    "law-count": (ex(CONSERVED, (1, 2, 1)), ex(CONSERVED, COPY, data=[[1.0], [2.0]])),
    "symmetry-laws": (
        Example("fiberscope.models.flow", lambda run: run(chain((1, 2, 1)))), ex(CONSERVED, (1, 2, 1)),
    ),
    "meanfield-symmetry": (
        Example(PARTICLES, particles(group=reflections(2))), ex(SYMMETRY, CIRCLE, SWAP), ex(REDUCTION, NormH((3, 1))),
    ),
    "meanfield-antisymmetry": (
        ex(ANTI, ODD), ex(SYMMETRY, ODD, antipodal(2), sign=-1), ex(REDUCTION, Linear([1.0, 0.0])),
    ),
    "odd-linear": (
        ex(ODD_FLOW, 0.15, 3, [0, 1]), ex(LINEAR, np.eye(2), [0.0, 1.0], 2.0, [0, 1]), ex(ANTI, ODD),
        ex(REDUCTION, Linear([1.0, 0.0])),
    ),
    "linear-rate": (ex(LINEAR, np.eye(2), [0.0, 1.0], 2.0, [0, 1]), ex(ODD_FLOW, 0.15, 3, [0, 1], slope=1.0)),
    "angle-reduction": (ex(ANGLE, 3, 1, [0, 1], nodes=4), ex(REDUCTION, NormH((3, 1)))),
    "lowdim-reduction": (
        ex(LOWDIM, Teacher([1.0], [[1.0, 0.0]]), 2, [0.0, 1.0], nodes=4),
        ex(REDUCTION, Teacher([1.0], [[1.0, 0, 0]])),
    ),
    "mass-identity": (ex(ANGLE, 3, 1, [0, 1], nodes=4),),
    "model-rank": (ex(RANK, TANH), ex(f"{REC}.locally_recoverable", TANH, [[0.0, 1.0]]), ex(SIZE, TARGET)),
    "optimistic-size": (ex(SIZE, TARGET), ex(SIZE, [[1, 2], [2, 4]]), ex(PREDICT, TARGET, 2)),
    "sim-recovery": (Example(RECOVER, spread), ex(PREDICT, TARGET, 2)),
    "embedding-principle": (ex(EMBED, TARGET, [2]), Example(VERIFY, lambda run: run(split_target()))),
    "near-minima": (ex(STRATA, 3, 1, 1), ex(LOCATE, BRANCH, TARGET)),
    "diagonal-limit": (ex(DIAGONAL, [[2, 1]], [2]),),
}  # fmt: skip
"""Calls that cite the key, or return something that cites nothing."""
