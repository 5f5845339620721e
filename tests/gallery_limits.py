"""Examples in which a hypothesis of a theorem fails: it must not be cited there.

`LIMITS` holds for every hypothesis of every theorem an example in which it fails and the theorem is not cited (or the
call is refused), or a sentence that says why there is none; `ELSEWHERE` more results that must not cite a theorem.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from fiberscope.activations import activation
from fiberscope.fibers.alignment import Move, moved
from fiberscope.invariants.dynamics.updates import optimiser
from fiberscope.meanfield.symmetry.groups import reflections
from fiberscope.meanfield.targets.finite import Linear, Teacher
from fiberscope.meanfield.targets.zonal import NormH
from fiberscope.network import Network
from fiberscope.neurons import colour_classes
from gallery import (
    ANGLE,
    ANTI,
    CANONICAL,
    CHECK,
    CIRCLE,
    CONSERVED,
    COPY,
    DATA2,
    DEAD,
    DEEP,
    DIAGONAL,
    DIMENSION,
    DISTANCE,
    DRIFT,
    EMBED,
    EQUAL,
    FIBER,
    FOLDED,
    FOLDED_PAIR,
    GELU,
    GELU_HALVED,
    GROWTH,
    INSPECT,
    IS_INVARIANT,
    LAWS,
    LINEAR,
    LINT,
    LOCATE,
    MULTIPLES,
    ODD,
    ODD_FLOW,
    ORBIT,
    PAIR,
    PARTICLES,
    PLAIN,
    PREDICT,
    RANK,
    REC,
    RECOVER,
    REDUCE,
    REDUCED,
    REDUCIBLE,
    REDUCTION,
    RELU,
    SIGNED,
    SIM,
    SIMS,
    SIZE,
    SOFT,
    SQUARE,
    STRATA,
    SWAP,
    SWAPPED,
    SYMMETRY,
    TANH,
    TWINS,
    VERIFY,
    Example,
    build,
    corrupted,
    drift,
    ex,
    nearly,
    noisy,
    of,
    particles,
    split_target,
)


def refused(function: str, *values: Any, **options: Any) -> Example:
    """An example that has to end in an error of the library."""
    return Example(function, of(*values, **options), refused=True)


def fails(statement: str, function: str, *values: Any, **options: Any) -> Example:
    """An example whose result has to say that this hypothesis fails."""
    return Example(function, of(*values, **options), says=statement)


def three(*layers: Any) -> Network:
    """A three-layer ReLU network that may miss one hypothesis of the normal form."""
    return build(*layers)


_TRAINED = "a fact of the training loop; results list it as an assumption that is not checked"
_MACHINE = "a fact of the machine"
_SPHERE = "the flow is that of inputs on the sphere and takes no others"
_START = "the flow starts from such a measure and takes no other"
_SAMPLES = "about samples that are not drawn yet; listed as an assumption that is not checked"
_UNIQUE = "about solutions of the flow; nothing here could refute it"

LIMITS: dict[str, tuple[Example | str, ...]] = {
    "orbit-invariance": (ex(SIM, COPY),),
    "bracket-rank": ("the statement says what holds without it",),
    "equitable-sim": (ex(INSPECT, FOLDED_PAIR), _TRAINED),
    "symmetry-fixed-space": (refused(LINT, FOLDED_PAIR), _TRAINED),
    "silent-neurons": (
        refused(LINT, moved(build(*DEAD), [Move(0, (1, 0), (Fraction(1),) * 2)])),
        ex(LINT, build(*DEAD, activation="softplus")),
        ex(LINT, build(*DEAD), optimiser="adam+decay"),
    ),
    "tangent-fields": (
        "kinks are listed as an assumption that is not checked", refused(IS_INVARIANT, TWINS, FOLDED_PAIR),
    ),
    "reduced-network": (ex(INSPECT, FOLDED_PAIR),),
    "optimiser-equivariance": (refused(REDUCED, FOLDED_PAIR, colour_classes(PAIR)), _MACHINE),
    "two-layer-sims": (ex(SIM, DEEP), ex(SIM, GELU)),
    "permutation-scaling": (ex(INSPECT, TANH),),
    "relu-fiber-dimension": (
        fails("three affine layers", DIMENSION, Network.random((2, 2, 2, 2, 1), seed=0)),
        fails("n1 <= n0", FIBER, Network.random((1, 2, 2, 1), seed=0)),
        fails("no second-layer weight", INSPECT, three(
            ([[1, 0], [0, 1]], [1, 1]), ([[1, 0], [1, -1]], [1, 1]), ([[1, 1]], [0]))),
    ),
    "tanh-identifiability": (
        fails("three affine layers", FIBER, DEEP),
        fails("no hidden neuron is constant", FIBER, build(
            ([[1.0], [0.0]], [0, 1]), ([[1, 1]], [0]), activation="tanh")),
        fails("equal up to sign", FIBER, PAIR),
    ),
    "scaling-balance": (ex(INSPECT, TANH), ex(INSPECT, FOLDED)),
    "balance-steps": ("with several rates the terms are read off the step", "the same"),
    "block-balance": (ex(LAWS, RELU), refused(LAWS, FOLDED)),
    "law-count": (refused(CONSERVED, (2, 3, 1), activation="elu"), "the count says of which points it is"),
    "symmetry-laws": (ex(CONSERVED, (1, 2, 1), activation="tanh"),),
    "lossless-moves": (Example(CHECK, corrupted("reduction")),),
    "canonical-form": (Example(CHECK, corrupted("moves")),),
    "two-layer-form": (
        fails("piecewise linear, tanh or sigmoid", CANONICAL, GELU),
        fails("the domain has an interior", CANONICAL, RELU, "[1,1]"),
        fails("the last layer has no activation", CANONICAL, RELU.with_layers(
            [RELU.layers[0], replace(RELU.layers[1], activation=activation("relu"))])),
    ),
    "three-layer-form": (
        fails("rows are linearly independent", CANONICAL, three(
            ([[-1, 1], [-1, 1]], [0, 2]), ([[0, 1], [-1, -3], [-1, 1]], [-3, 1, 3]), ([[1, 2, -1]], [0]))),
        fails("passes through y = 0", CANONICAL, three(
            ([[1, 0], [-2, 1]], [0, 1]), ([[1, -2], [2, 0], [-1, -1]], [0, 2, 2]), ([[-2, -2, 1]], [0]))),
        fails("share a trace", CANONICAL, three(
            ([[-2, 1], [-1, -1]], [-2, 2]), ([[3, -3], [1, -1], [0, 3]], [-2, -1, -1]), ([[-2, 1, 1]], [0]))),
        fails("bend", CANONICAL, three(
            ([[2, -2], [-2, -1]], [0, -1]), ([[-2, 2], [3, 1], [-3, -3]], [-2, 1, 2]), ([[-1, 0, 1]], [0]))),
        fails("read by two", CANONICAL, three(([[1, 0], [0, 1]], [0, 0]), ([[3, -1]], [-1]), ([[1]], [0]))),
    ),
    "case-tree": (ex(EQUAL, TANH, TANH), Example(CHECK, corrupted("cases"))),
    "difference-zonotope": (ex(DISTANCE, SQUARE, nearly(SQUARE), budget=0.5), _MACHINE),
    "interval-enclosure": (_MACHINE,),
    "lipschitz-difference": (ex(DISTANCE, SQUARE, nearly(SQUARE), budget=0.5),),
    "meanfield-symmetry": (
        Example(PARTICLES, particles(group=reflections(2), data=([[1.0, 0.0], [0.6, 0.8]], [1.0, 2.0])), refused=True),
        ex(SYMMETRY, CIRCLE, SWAP, start=([1.0, 1.0], [[2.0, 1.0], [1.0, 3.0]])),
        _UNIQUE,
    ),
    "meanfield-antisymmetry": (
        _SPHERE, ex(ANTI, ODD, start=([1.0, -1.0], [[2.0, 1.0], [-2.0, 1.0]])),
        "the loss is not given to the check; listed as an assumption", _UNIQUE,
    ),
    "odd-linear": (
        ex(ANTI, ODD, activation="tanh"), _SPHERE, ex(ANTI, ODD, start=([1.0, -1.0], [[2.0, 1.0], [-2.0, 1.0]])),
        ex(LINEAR, np.eye(2), [0.0, 1.0], None, [0, 1], moments=np.diag([2.0, 1.0, 0.5])),
    ),
    "linear-rate": (ex(REDUCTION, NormH((3, 1))),),
    "angle-reduction": (_SPHERE, "the flow is that of ReLU", _START, _START, refused(ANGLE, 3, 3, [0, 1])),
    "lowdim-reduction": (_SPHERE, "the flow is that of ReLU", _START, _START),
    "mass-identity": (refused(ANGLE, 3, 3, [0, 1]),),
    "model-rank": (ex(RANK, DEEP), ex(RANK, Network.random((2, 3, 1), activation="sin", seed=0)), ex(RANK, build(
        ([[1.0], [0.0]], [0.5, 0.0]), ([[1.0, 1.0]], [0.0])))),
    "optimistic-size": (
        fails("f is analytic", SIZE, RELU, output_bias=True), _SAMPLES, "the report says so",
    ),
    "sim-recovery": (
        fails("the activation is analytic", PREDICT, RELU, 4, output_bias=True), _SAMPLES, Example(RECOVER, noisy),
        "the example with noise again",
    ),
    "embedding-principle": (
        refused(EMBED, FOLDED_PAIR, [3]), refused(VERIFY, None),
        refused(EMBED, SOFT, [2], how="null", output_bias=False),
    ),
    "near-minima": (
        refused(LOCATE, build(([[1.0], [2.0]], None), ([[1.0, 1.0]], None), activation="tanh"), build(
            ([[1.0], [1.0]], None), ([[1.0, 1.0]], None), activation="tanh")),
        ex(STRATA, 3, 1, 1, activation="softplus"),
    ),
    "diagonal-limit": (ex(DIAGONAL, [[1, 1]], [2]), "the growth times are computed from the shape"),
}  # fmt: skip
"""For every hypothesis in the order of the table: where it fails the key is not cited, or why there is no example."""

ELSEWHERE: tuple[tuple[str, Example], ...] = (
    ("optimiser-equivariance", ex(GROWTH, MULTIPLES, DATA2, rule=optimiser("adam", 0.01), steps=3)),
    ("optimiser-equivariance", ex(LINT, MULTIPLES, optimiser="adam")),
    ("optimiser-equivariance", ex(LINT, RELU)),
    ("symmetry-fixed-space", ex(LINT, RELU)),
    ("orbit-invariance", ex(ORBIT, COPY, method="flow")),
    ("orbit-invariance", ex(SIMS, (1, 2, 1), "relu")),
    ("two-layer-sims", ex(SIMS, (1, 2, 1), "gelu")),
    ("two-layer-sims", ex(SIMS, (1, 2, 2, 1), "tanh")),
    ("balance-steps", Example(DRIFT, drift(name="tanh"))),
    ("scaling-balance", Example(DRIFT, drift(name="tanh"))),
    ("scaling-balance", ex(LAWS, build(([[1.0]], [0.5]), ([[1.0]], [0.0]), activation="hard_tanh"), [[0.0]])),
    ("interval-enclosure", ex(REDUCE, COPY)),
    ("lipschitz-difference", ex(REDUCE, COPY)),
    ("lipschitz-difference", ex(DISTANCE, RELU, RELU, "[-1,1]")),
    ("case-tree", ex(EQUAL, PLAIN, nearly(SWAPPED))),
    ("canonical-form", ex(EQUAL, PLAIN, PLAIN)),
    ("permutation-scaling", ex(EQUAL, SIGNED, PAIR)),
    ("canonical-form", ex(EQUAL, GELU, GELU_HALVED, budget=2.0)),
    ("meanfield-symmetry", ex(SYMMETRY, CIRCLE, SWAP, target=Linear([1.0, 0.0]))),
    ("meanfield-symmetry", Example(PARTICLES, particles())),
    ("meanfield-antisymmetry", ex(ANTI, ODD, target=Teacher([1.0], [[1.0, 0.0]]))),
    ("meanfield-antisymmetry", ex(REDUCTION, NormH((3, 1)))),
    ("odd-linear", ex(ODD_FLOW, 0.15, 3, [0, 1], slope=1.0)),
    ("odd-linear", ex(LINEAR, np.eye(2), [0.0, 1.0], 2.0, [0, 1], slope=1.0)),
    ("odd-linear", ex(REDUCTION, NormH((3, 1)))),
    ("angle-reduction", ex(REDUCTION, Teacher([2.0, 2.0], [[1.0, 0, 0], [-1.0, 0, 0]]))),
    ("lowdim-reduction", ex(REDUCTION, Linear([1.0, 0.0, 0.0]))),
    ("model-rank", ex(RANK, TANH, method="svd")),
    ("model-rank", ex(SIZE, [[1, 2], [2, 4]])),
    ("model-rank", ex(f"{REC}.empirical_rank", TANH, [[0.0, 1.0]])),
    ("optimistic-size", ex(PREDICT, RELU, 4, output_bias=True)),
    ("embedding-principle", Example(VERIFY, lambda run: run(split_target(), network=nearly(split_target().floats())))),
    (
        "near-minima",
        ex(
            LOCATE,
            Network.random((1, 3, 1), activation="softplus", seed=0),
            Network.random((1, 1, 1), activation="softplus", seed=1),
        ),
    ),
    ("near-minima", ex(STRATA, 3, 1, 1, activation="sin", bias=True)),
    ("two-layer-form", ex(FIBER, build(([[1.0], [2.0]], [0, 0]), ([[1.0, 1.0]], [0.0])))),
    ("lossless-moves", Example(EMBED, lambda run: run(REDUCIBLE, [3]).certify())),
)
"""More calls that must not cite a theorem."""
