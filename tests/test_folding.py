"""Affine maps composed exactly: every builder against a direct evaluation in rationals."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.errors import FormatError, UnsupportedError
from fiberscope.io import folding
from fiberscope.io.folding import Affine, Window


def apply(affine: Affine, y: list[Fraction]) -> list[Fraction]:
    """z = W y + b, entry by entry."""
    weight, bias = rationals.fractions(affine.weight), rationals.fractions(affine.offset)
    return [
        sum((w * v for w, v in zip(row, y, strict=True)), Fraction(0)) + b for row, b in zip(weight, bias, strict=True)
    ]


def point(rng: np.random.Generator, n: int) -> list[Fraction]:
    return [Fraction(int(a), int(b)) for a, b in zip(rng.integers(-9, 9, n), rng.integers(1, 7, n), strict=True)]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.lists(st.sampled_from(["take", "scale", "shift", "linear"]), min_size=1, max_size=6))
def test_a_chain_of_maps_is_their_composition(seed: int, steps: list[str]) -> None:
    rng = np.random.default_rng(seed)
    affine = Affine.identity(3)
    start = point(rng, 3)
    value = list(start)
    for step in steps:
        n = len(value)
        if step == "take":
            index = rng.integers(-1, n, int(rng.integers(1, 5)))
            affine, value = affine.take(index), [value[i] if i >= 0 else Fraction(0) for i in index]
        elif step == "scale":
            factors = folding.reciprocal(rng.integers(1, 5, n).astype(float))
            affine = affine.scaled(factors)
            value = [v * q for v, q in zip(value, rationals.fractions(factors), strict=True)]
        elif step == "shift":
            constant = rng.standard_normal(n).astype(np.float32)
            affine = affine.shifted(constant)
            value = [v + Fraction(float(c)) for v, c in zip(value, constant, strict=True)]
        else:
            weight = rng.standard_normal((int(rng.integers(1, 4)), n)).astype(np.float32)
            affine = affine.linear(weight)
            value = [
                sum((Fraction(float(w)) * v for w, v in zip(row, value, strict=True)), Fraction(0)) for row in weight
            ]
    assert affine.n_out == len(value)
    assert apply(affine, start) == value
    other = Affine.identity(3).scaled(np.array([3.0, 1.0, 2.0])).take([2, 0, 1]).shifted(np.array([1.0, 0.0, 5.0]))
    assert apply(other.then(affine), start) == apply(affine, apply(other, start))


def test_untouched_arrays_keep_their_dtype_and_identity() -> None:
    weight = np.array([[1.5, 2.0]], np.float16)
    affine = Affine.identity(2).linear(weight)
    assert affine.weight is weight
    assert affine.offset.dtype == np.float16
    assert Affine.identity(2).take([0, 1]).scaled(np.ones(2)).shifted(np.zeros(2)).is_identity


def test_matrix_product_stays_in_floats_only_when_nothing_is_rounded() -> None:
    exact = folding.matrix_product(np.array([[1.0, -1.0]]), np.array([[0.75], [0.5]]))
    assert exact.dtype == np.float64 and exact.tolist() == [[0.25]]
    a, b = np.array([[1.0, 1.0]]), np.array([[1.0], [2.0**-60]])
    assert rationals.fractions(folding.matrix_product(a, b))[0, 0] == 1 + Fraction(1, 2**60)


@settings(max_examples=80)
@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_product_is_exact(x: float, y: float) -> None:
    out = folding.product(np.array([x]), np.array([y]))
    assert rationals.fractions(out)[0] == Fraction(x) * Fraction(y)


def test_inverse_of_a_diagonal_map() -> None:
    affine = Affine.identity(2).scaled(np.array([3.0, -0.5])).shifted(np.array([1.0, 2.0]))
    inverse = affine.inverted()
    assert inverse is not None
    y = [Fraction(5, 7), Fraction(-2)]
    assert apply(inverse, apply(affine, y)) == y
    assert Affine.identity(2).scaled(np.array([0.0, 1.0])).inverted() is None
    assert Affine.identity(2).take([1, 0]).inverted() is None


def slow_convolution(weight: np.ndarray, x: np.ndarray, window: Window, groups: int) -> np.ndarray:
    """Convolution by its definition, in integers."""
    out_space = window.output(x.shape[1:])
    out = np.zeros((weight.shape[0], *out_space))
    per_in, per_out = weight.shape[1], weight.shape[0] // groups
    for m, *at in itertools.product(range(weight.shape[0]), *(range(n) for n in out_space)):
        for c, *k in itertools.product(range(per_in), *(range(n) for n in window.kernel)):
            place = [
                a * s + d * o - p[0]
                for a, s, d, o, p in zip(at, window.strides, window.dilations, k, window.pads, strict=True)
            ]
            if all(0 <= q < n for q, n in zip(place, x.shape[1:], strict=True)):
                out[(m, *at)] += weight[(m, c, *k)] * x[(m // per_out * per_in + c, *place)]
    return out


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 2), st.booleans())
def test_convolution_against_its_definition(seed: int, axes: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    groups = 2 if grouped else 1
    space = tuple(int(n) for n in rng.integers(3, 6, axes))
    window = Window(
        tuple(int(n) for n in rng.integers(1, 3, axes)),
        tuple(int(n) for n in rng.integers(1, 3, axes)),
        tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (axes, 2))),
        tuple(int(n) for n in rng.integers(1, 3, axes)),
    )
    channels, outputs = 2 * groups, 3 * groups
    weight = rng.integers(-4, 5, (outputs, channels // groups, *window.kernel)).astype(np.float32)
    x = rng.integers(-4, 5, (channels, *space)).astype(float)
    matrix, shape = folding.convolution(weight, (channels, *space), window, groups)
    expected = slow_convolution(weight, x, window, groups)
    assert shape == expected.shape and matrix.dtype == np.float32
    assert np.array_equal(matrix @ x.reshape(-1), expected.reshape(-1))


def test_average_pool_counts_padding_only_when_told() -> None:
    window = Window((3,), (1,), ((1, 1),), (1,))
    pooled, shape = folding.average_pool((1, 2), window)
    assert shape == (1, 2)
    assert rationals.fractions(pooled.weight).tolist() == [[Fraction(1, 2)] * 2] * 2
    padded, _ = folding.average_pool((1, 2), window, include_pad=True)
    assert rationals.fractions(padded.weight).tolist() == [[Fraction(1, 3)] * 2] * 2


def test_normalisation_rounds_the_root_once_and_says_so() -> None:
    gamma, beta, mean = np.array([2.0, -3.0]), np.array([1.0, 0.5]), np.array([4.0, 0.25])
    scale, shift, exact = folding.normalisation(gamma, beta, mean, np.array([4.0, 2.0]), Fraction(0))
    assert not exact
    assert scale[0] == 1.0 and shift[0] == -3.0
    assert scale[1] == -float(np.float64(3.0 / np.sqrt(np.longdouble(2.0))))
    assert rationals.fractions(shift)[1] == Fraction(1, 2) - Fraction(1, 4) * Fraction(float(scale[1]))
    with pytest.raises(FormatError, match="positive"):
        folding.normalisation(gamma, beta, mean, np.array([-1.0, 2.0]), Fraction(0))


@settings(max_examples=200)
@given(st.fractions(min_value=Fraction(1, 10**12), max_value=10**12))
def test_square_root_is_exact_or_correctly_rounded(q: Fraction) -> None:
    root, exact = folding.square_root(q)
    if exact:
        assert root * root == q
        return
    value = float(root)
    below, above = (Fraction(math.nextafter(value, end)) for end in (0.0, math.inf))
    assert ((below + root) / 2) ** 2 < q < ((above + root) / 2) ** 2


def test_limits_and_refusals() -> None:
    with pytest.raises(UnsupportedError, match="more than"):
        folding.convolution(np.ones((64, 3, 3, 3)), (3, 224, 224), Window((3, 3), (1, 1), ((1, 1),) * 2, (1, 1)))
    with pytest.raises(UnsupportedError, match="divides by zero"):
        folding.reciprocal(np.array([1.0, 0.0]))
    with pytest.raises(FormatError, match="does not fit"):
        Window((5,), (1,), ((0, 0),), (1,)).output((3,))
    with pytest.raises(FormatError, match="positive"):
        Window((1,), (0,), ((0, 0),), (1,)).output((3,))
    with pytest.raises(UnsupportedError, match="too large to unroll"):
        folding.average_pool((1, 3), Window((200_000,), (1,), ((0, 200_000),), (1,)))
    with pytest.raises(UnsupportedError, match="beyond"):
        Window((1,), (1,), ((0, 2**62),), (1,)).output((3,))
    with pytest.raises(FormatError, match="takes 3 inputs"):
        Affine.identity(2).linear(np.ones((1, 3)))
    with pytest.raises(UnsupportedError, match="more than"):
        Affine.identity(10**5).weight  # noqa: B018
