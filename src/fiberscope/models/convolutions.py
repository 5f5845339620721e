"""One-dimensional convolutions as a model: one law for each hidden channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_sizes, as_switch
from fiberscope.autodiff.families import Data, GradientFamily
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable
from fiberscope.errors import InputError
from fiberscope.models.affine import paired
from fiberscope.models.model import Model, Symmetry, balances, offsets_of
from fiberscope.models.networks import PATHS

Array = npt.NDArray[Any]


def convolution(
    inputs: int, channels: int, outputs: int, *, kernel: int = 2, length: int = 5, linear: bool = False
) -> Model:
    """conv1d - relu - conv1d without biases: |C1[i]|^2 - |C2[:, i]|^2 for each hidden channel i.

    Args:
        inputs: input channels.
        channels: hidden channels.
        outputs: output channels.
        kernel: width of both kernels.
        length: of the input signal, at least 2 kernel - 1.
        linear: no activation between the convolutions: a whole matrix of laws, <C1[i], C1[j]> - <C2[:, i], C2[:, j]>.

    Raises:
        InputError: for a size that is no whole number >= 1, or a signal too short for both kernels.

    Source: arXiv 2506.06194.

    >>> convolution(1, 3, 2).symmetries[0].fields.count
    3
    """
    inputs, channels, outputs, kernel, length = as_sizes(
        inputs=inputs, channels=channels, outputs=outputs, kernel=kernel, length=length
    )
    linear = as_switch(linear, "linear")
    middle = length - kernel + 1
    end = middle - kernel + 1
    if end < 1:
        raise InputError(f"signals of length {length}; two kernels of {kernel} need at least {2 * kernel - 1}")
    shapes = (("C1", (channels, inputs * kernel)), ("C2", (outputs, channels * kernel)))
    first = _patches(inputs, length, kernel)
    second = _patches(channels, middle, kernel)

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        hidden = tape.constant(data[0][:, first]) @ blocks[0].T
        if not linear:
            hidden = hidden * tape.constant(data[1])
        return hidden.T.reshape(channels * middle).take(second) @ blocks[1].T

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        x = ring.random(rng, (count, inputs * length))
        return (x,) if linear else (x, ring.random(rng, (count, middle, channels)))

    places = offsets_of(shapes)
    size = sum(index.size for index in places.values())
    above = places["C2"].reshape(outputs, channels, kernel).transpose(1, 0, 2).reshape(channels, -1)
    rows, columns = np.triu_indices(channels)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True)) if linear else [(i, i) for i in range(channels)]
    fields = paired(size, places["C1"], above, pairs)
    name = f"conv1d {inputs}-{channels}-{outputs}, kernels of {kernel}{', linear' * linear}"
    family = GradientFamily(name, shapes, forward, draw, (end, outputs))
    law = balances(fields, "C1[i]", "C2[:, i]")
    if linear:
        latex = r"\langle C_{1,i}, C_{1,j} \rangle - \langle C_{2,:i}, C_{2,:j} \rangle"
        law = Symmetry("matrix", "C1[i].C1[j] - C2[:, i].C2[:, j]", latex, fields)
    return Model(name, family, (law,), "arXiv 2506.06194", note="" if linear else PATHS)


def _patches(channels: int, length: int, kernel: int) -> npt.NDArray[np.int64]:
    """Indices (positions, channels * kernel) of each window in a signal stored channel by channel."""
    count = length - kernel + 1
    window = np.arange(count)[:, None, None] + np.arange(kernel)[None, None, :]
    return np.asarray(window + length * np.arange(channels)[None, :, None]).reshape(count, channels * kernel)
