"""Functions on the tape that activations do not give: exp, softmax, and 1 / sqrt by Newton steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fiberscope.activations import activation
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import Residues
from fiberscope.autodiff.tape import Variable
from fiberscope.errors import InputError

Array = npt.NDArray[Any]


def number(like: Variable, value: int) -> Variable:
    """A constant, of the dtype and dimensions of a variable."""
    real = like.value.real
    constant = like.tape.ring.constant(value)
    return like.tape.constant(np.full((1,) * real.ndim, constant, dtype=real.dtype))


def exponential(z: Variable) -> Variable:
    """e^z = g(z) / g(-z) with g the logistic function: over residues formal, with exp' = exp and exp(-z) = 1 / exp(z).

    >>> from fiberscope.autodiff.jets import TrueJets
    >>> from fiberscope.autodiff.rings import Floats
    >>> from fiberscope.autodiff.tape import Tape
    >>> tape = Tape(Floats(), TrueJets())
    >>> float(exponential(tape.constant(np.array([[0.0]]))).value.real[0, 0])
    1.0
    """
    row = activation("sigmoid")
    return z.apply(row) * (number(z, 0) - z).apply(row).inverse()


def shares(weights: Variable) -> Variable:
    """Entries over the sum of their row: softmax after `exponential`."""
    return weights * weights.sum(-1).inverse()


def inverse_root(r: Variable) -> Variable:
    """1 / sqrt(r), entry by entry.

    Over residues one of the two square roots; a root h = r^(-1/2) satisfies h^2 r = 1, so that its derivatives follow.

    Raises:
        InputError: if r is no square modulo the prime, or not positive; choose theta with `square_norms`.
    """
    ring, value = r.tape.ring, r.value
    if isinstance(ring, Residues):
        root = ring.power(value.real, (ring.prime + 1) // 4)  # the prime is 3 modulo 4
        if (root * root % ring.prime != value.real).any() or (value.real == 0).any():
            raise InputError("a squared norm is no square modulo the prime; draw theta again")
        start = ring.inverse(root)
    else:
        if not (value.real > 0).all():
            raise InputError("1 / sqrt of a number that is not positive")
        start = 1 / np.sqrt(value.real)
    guess = Nilpotent(ring, {0: start})
    three, half = Nilpotent(ring, {0: np.full_like(start, ring.constant(3))}), _half(r)
    for _ in range(value.order.bit_length()):  # each step doubles the order of the error
        guess = (guess * (three - value * guess * guess)).scaled(half)
    # the last step is recorded: Newton's map does not depend on its argument to first order at the root
    last = r.tape.variable(guess)
    return last * (number(r, 3) - r * last * last) * r.tape.constant(np.full((1,) * start.ndim, half))


def _half(r: Variable) -> Any:
    from fractions import Fraction

    return r.tape.ring.constant(Fraction(1, 2))
