"""Self-attention as a model: the matrix laws of queries and keys, and of values and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.arguments import as_sizes, as_switch
from fiberscope.autodiff.families import Data, GradientFamily
from fiberscope.autodiff.rings import Ring
from fiberscope.autodiff.tape import Tape, Variable
from fiberscope.errors import InputError
from fiberscope.models.affine import AffineFields, paired
from fiberscope.models.formulas import exponential, shares
from fiberscope.models.model import Model, Symmetry, offsets_of

Array = npt.NDArray[Any]


def attention(
    inputs: int,
    keys: int,
    values: int,
    *,
    heads: int = 1,
    outputs: int | None = None,
    tokens: int = 3,
    rotary: bool = False,
) -> Model:
    """sum_h softmax(X Q_h^T K_h X^T) X V_h^T O_h^T without biases.

    Laws of each head: Q Q^T - K K^T and V V^T - O^T O, rows of Q, K, V in the head dimension (written Q^T Q - K^T K for
    the transposed matrices): k (k + 1) / 2 + v (v + 1) / 2. With rotary positions Q and K may only be scaled in each
    frequency block of two rows: |Q^(j)|^2 - |K^(j)|^2.

    Args:
        inputs: d.
        keys: k, of each head; even for rotary positions.
        values: v, of each head.
        heads: number of heads.
        outputs: m, None for d.
        tokens: length of the sequences.
        rotary: whether positions rotate queries and keys, by a fixed angle for each frequency.

    Raises:
        InputError: for a size that is no whole number >= 1, or an odd number of keys with rotary positions.

    Source: arXiv 2606.17816, theorems 4.3 and 4.4.

    >>> attention(3, 2, 2).size
    24
    """
    inputs, keys, values, heads, tokens = as_sizes(inputs=inputs, keys=keys, values=values, heads=heads, tokens=tokens)
    (m,) = as_sizes(outputs=inputs if outputs is None else outputs)
    rotary = as_switch(rotary, "rotary")
    if rotary and keys % 2:
        raise InputError(f"{keys} keys; rotary positions turn pairs of them")
    shapes = tuple(
        (f"{name}{h}", shape) for h in range(1, heads + 1)
        for name, shape in (("Q", (keys, inputs)), ("K", (keys, inputs)), ("V", (values, inputs)), ("O", (m, values)))
    )  # fmt: skip

    def forward(tape: Tape, blocks: Sequence[Variable], data: Data) -> Variable:
        x = tape.constant(data[0])
        out: Variable | None = None
        for h in range(heads):
            q, k, v, o = blocks[4 * h : 4 * h + 4]
            query, key = x @ q.T, x @ k.T
            if rotary:
                query, key = _turned(query, tokens), _turned(key, tokens)
            share = (shares(exponential(query @ key.T)) @ (x @ v.T)) @ o.T
            out = share if out is None else out + share
        return out if out is not None else x

    def draw(ring: Ring, rng: np.random.Generator, count: int) -> Data:
        return (ring.random(rng, (count, tokens, inputs)),)

    symmetries = tuple(s for h in range(1, heads + 1) for s in _head(shapes, h, rotary))
    name = f"attention, {heads} head{'s' * (heads > 1)}{' with rotary positions' * rotary}"
    family = GradientFamily(name, shapes, forward, draw, (tokens, m))
    source = f"arXiv 2606.17816, theorem 4.{4 if rotary else 3}"
    return Model(name, family, symmetries, source, polynomial=False)


def _head(shapes: tuple[tuple[str, tuple[int, ...]], ...], h: int, rotary: bool) -> list[Symmetry]:
    places = offsets_of(shapes)
    size = sum(index.size for index in places.values())
    q, k, v, o = (places[f"{name}{h}"] for name in "QKVO")
    if rotary:
        blocks = [[(q[j : j + 2].reshape(-1), 2), (k[j : j + 2].reshape(-1), -2)] for j in range(0, len(q), 2)]
        text, latex = f"|Q{h}^(j)|^2 - |K{h}^(j)|^2", rf"\lVert Q_{h}^{{(j)}} \rVert^2 - \lVert K_{h}^{{(j)}} \rVert^2"
        first = [Symmetry("frequency", text, latex, AffineFields.diagonal(size, blocks))]
    else:
        first = _matrix(size, q, k, f"Q{h} Q{h}^T - K{h} K{h}^T", rf"Q_{h} Q_{h}^\top - K_{h} K_{h}^\top")
    return first + _matrix(size, v, o.T, f"V{h} V{h}^T - O{h}^T O{h}", rf"V_{h} V_{h}^\top - O_{h}^\top O_{h}")


def _matrix(size: int, incoming: Array, outgoing: Array, text: str, latex: str) -> list[Symmetry]:
    first, second = np.triu_indices(len(incoming))
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    out = [Symmetry("matrix", text, latex, paired(size, incoming, outgoing, pairs))]
    skew = [(i, j) for i, j in pairs if i != j]
    if skew:
        turned = paired(size, incoming, outgoing, skew, sign=-1)
        out.append(Symmetry("rotation", f"rotations behind {text}", latex, turned))
    return out


def _turned(rows: Variable, tokens: int) -> Variable:
    """Pair j of the columns of row t rotated t times by a rational angle of its own."""
    ring, width = rows.tape.ring, rows.shape[-1]
    cosines = np.zeros((1, tokens, width), dtype=rows.value.real.dtype)
    sines = np.zeros_like(cosines)
    for j in range(width // 2):
        for t, (c, s) in enumerate(_powers(j, tokens)):
            cosines[0, t, 2 * j : 2 * j + 2] = ring.constant(c)
            sines[0, t, 2 * j], sines[0, t, 2 * j + 1] = ring.constant(-s), ring.constant(s)
    swapped = rows.take(np.arange(width).reshape(-1, 2)[:, ::-1].reshape(-1))
    return rows * rows.tape.constant(cosines) + swapped * rows.tape.constant(sines)


def _powers(j: int, count: int) -> list[tuple[Fraction, Fraction]]:
    """(cos, sin) of 0, a, 2 a, ... for the angle a with tan(a / 2) = 1 / (j + 2), no rational multiple of pi."""
    half = Fraction(1, j + 2)
    c, s = (1 - half**2) / (1 + half**2), 2 * half / (1 + half**2)
    out = [(Fraction(1), Fraction(0))]
    while len(out) < count:
        a, b = out[-1]
        out.append((a * c - b * s, a * s + b * c))
    return out
