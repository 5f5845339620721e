"""Gated models: GLU and its relatives, and mixtures of linear experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.arguments import as_choice, as_sizes, as_switch
from fiberscope.autodiff.families import Data, GradientFamily
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable
from fiberscope.models.affine import AffineFields, paired
from fiberscope.models.formulas import exponential, shares
from fiberscope.models.model import Model, Symmetry, balances, offsets_of
from fiberscope.models.networks import PATHS

Array = npt.NDArray[Any]


def glu(inputs: int, hidden: int, outputs: int, gate: str | Activation = "sigmoid") -> Model:
    """W_2 (s(W_1 x) * (V x)): GLU, ReGLU, GEGLU, SwiGLU, bilinear, by the gate s.

    Laws: |V_i|^2 - |W2_i|^2 for each unit i; where s is homogeneous of degree d also |W1_i|^2 - d |W2_i|^2.

    Args:
        inputs: d.
        hidden: number of units.
        outputs: m.
        gate: s.

    Raises:
        InputError: for a size that is no whole number >= 1, or an unknown gate.

    Source: arXiv 2606.17816, theorem 4.2.

    >>> glu(3, 4, 2, "silu").symmetries[0].fields.count
    4
    """
    inputs, hidden, outputs = as_sizes(inputs=inputs, hidden=hidden, outputs=outputs)
    row = find_activation(gate)
    free = row.pieces is not None and row.name != "identity"
    shapes = (("W1", (hidden, inputs)), ("V", (hidden, inputs)), ("W2", (outputs, hidden)))

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        x = tape.constant(data[0])
        z = x @ blocks[0].T
        opened = z * tape.constant(data[1]) if free else z.apply(row)
        return (opened * (x @ blocks[1].T)) @ blocks[2].T

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        x = ring.random(rng, (count, 1, inputs))
        return (x, ring.random(rng, (count, 1, hidden))) if free else (x,)

    places = offsets_of(shapes)
    size, out = hidden * (2 * inputs + outputs), places["W2"].T
    units = [(i, i) for i in range(hidden)]
    symmetries = [balances(paired(size, places["V"], out, units), "V_i", "W2_i")]
    if row.homogeneity is not None and row.homogeneity >= 1:
        fields = paired(size, places["W1"], out, units, degree=row.homogeneity)
        symmetries.append(balances(fields, "W1_i", "W2_i", row.homogeneity))
    family = GradientFamily(f"GLU {inputs}-{hidden}-{outputs} {row.label}", shapes, forward, draw, (1, outputs))
    polynomial = row.pieces is not None or row.name in ("square", "polynomial")
    source = "arXiv 2606.17816, theorem 4.2"
    return Model(family.name, family, tuple(symmetries), source, polynomial, note=PATHS if free else "")


def swiglu(inputs: int, hidden: int, outputs: int) -> Model:
    """W_2 (silu(W_1 x) * (V x)).

    Raises:
        InputError: for a size that is no whole number >= 1.

    >>> swiglu(3, 4, 2).size
    32
    """
    return glu(inputs, hidden, outputs, "silu")


def mixture(
    inputs: int,
    experts: int,
    outputs: int = 1,
    *,
    gate: Literal["softmax", "sigmoid"] = "softmax",
    claim: bool | None = None,
) -> Model:
    """sum_k g_k(x) E_k x with g = softmax(U x), or normalised sigmoids sigma(u_k.x) / sum_j sigma(u_j.x).

    Adding one vector to all u_k changes no softmax: sum_k u_k is constant. For normalised sigmoids that is no symmetry
    and no law; `claim` lists it all the same, for `conserved` to refute.

    Args:
        inputs: d.
        experts: number of experts.
        outputs: of each expert.
        gate: of the mixture.
        claim: whether the law of softmax is listed; None: where it holds.

    Raises:
        InputError: for a size that is no whole number >= 1, or an unknown gate.

    >>> mixture(2, 3).symmetries[0].fields.count
    2
    """
    inputs, experts, outputs = as_sizes(inputs=inputs, experts=experts, outputs=outputs)
    as_choice(gate, "gate", ("softmax", "sigmoid"))
    listed = gate == "softmax" if claim is None else as_switch(claim, "claim")
    shapes = (("U", (experts, inputs)), ("E", (experts * outputs, inputs)))
    spread = np.repeat(np.arange(experts), outputs)

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        x = tape.constant(data[0])
        z = x @ blocks[0].T
        weights = exponential(z) if gate == "softmax" else z.apply(find_activation("sigmoid"))
        answers = (shares(weights).take(spread) * (x @ blocks[1].T)).reshape(experts, outputs)
        return answers.sum(-2)

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        return (ring.random(rng, (count, 1, inputs)),)

    size = experts * inputs * (1 + outputs)
    columns = np.arange(experts * inputs).reshape(experts, inputs)
    shifts = [(j, int(columns[k, j]), 1) for j in range(inputs) for k in range(experts)]
    shift = AffineFields.of(size, inputs, [], shifts)
    law = Symmetry("shift", "sum_k u_k", r"\textstyle\sum_k u_k", shift)
    family = GradientFamily(f"mixture of {experts} experts, {gate}", shapes, forward, draw, (1, outputs))
    return Model(family.name, family, (law,) if listed else (), "shift of softmax", polynomial=False)
