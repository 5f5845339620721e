"""Exact arithmetic: against Fraction arithmetic entry by entry."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fiberscope import rationals

floats = st.floats(min_value=-1e18, max_value=1e18, allow_nan=False)
wild = st.floats(allow_nan=False, allow_infinity=False)
matrices = hnp.arrays(np.float64, (3, 4), elements=floats)
exact = st.fractions(min_value=-10, max_value=10, max_denominator=50)


def as_fractions(array):
    return [Fraction(v) if isinstance(v, Fraction) else Fraction(float(v)) for v in np.asarray(array).reshape(-1)]


@given(hnp.arrays(np.float64, 5, elements=wild), hnp.arrays(np.float64, 5, elements=wild))
def test_sum_is_exact(a, b):
    got = as_fractions(rationals.add(a, b))
    assert got == [Fraction(x) + Fraction(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


def test_sum_stays_float_exactly_when_nothing_rounds():
    assert rationals.add(np.array([0.5]), np.array([0.25])).dtype == np.float64
    assert rationals.is_rational(rationals.add(np.array([1.0]), np.array([2.0**-60])))


@given(hnp.arrays(np.float64, 4, elements=wild), exact)
def test_scale_is_exact(a, factor):
    assert as_fractions(rationals.scale(a, factor)) == [Fraction(x) * factor for x in a.tolist()]


@given(matrices, hnp.arrays(np.float64, (4, 2), elements=floats))
def test_matmul_is_exact(a, b):
    got = rationals.matmul(a, b)
    x, y = rationals.fractions(a), rationals.fractions(b)
    for i in range(3):
        for j in range(2):
            assert Fraction(got[i, j]) == sum((x[i, k] * y[k, j] for k in range(4)), Fraction(0))


@given(hnp.arrays(np.float64, (2, 3), elements=wild))
def test_dyadic_gives_back_every_float(a):
    ints, exponent = rationals.dyadic(a)
    assert [int(v) * Fraction(2) ** exponent for v in ints.reshape(-1)] == as_fractions(a)


def test_dyadic_never_overflows_in_a_row_sum():
    ints, _ = rationals.dyadic(np.array([2.0**40, 1.0]))
    assert ints.dtype == np.int64
    ints, _ = rationals.dyadic(np.full(8, 2.0**60) + np.array([0.0] * 7 + [2.0**8]))
    assert sum(ints.tolist()) == 8 * 2**52 + 1


@given(st.lists(exact, min_size=6, max_size=6))
def test_row_reduce_keeps_the_row_space(values):
    matrix = rationals.exact_array(np.array(values, dtype=object).reshape(2, 3))
    pivots, form = rationals.row_reduce(matrix)
    assert len(pivots) == len(form) == rationals.rank(matrix)
    stacked = rationals.exact_array(np.concatenate([rationals.fractions(matrix), rationals.fractions(form)]))
    assert rationals.rank(stacked) == len(pivots)
    for row, pivot in enumerate(pivots):
        column = [Fraction(form[i, pivot]) for i in range(len(pivots))]
        assert column == [Fraction(int(i == row)) for i in range(len(pivots))]


def test_rank_sees_what_floats_cannot():
    third = Fraction(1, 3)
    nearly = rationals.exact_array(np.array([[1, third], [3, 1 + Fraction(1, 10**40)]], dtype=object))
    assert rationals.rank(nearly) == 2
    assert rationals.rank(rationals.exact_array(np.array([[1, third], [3, 1]], dtype=object))) == 1
    prime = 2**61 - 1  # a determinant that vanishes modulo the prime only
    assert rationals.rank(rationals.exact_array(np.array([[prime, 0], [0, 1]], dtype=object))) == 2


@given(exact, st.sampled_from([np.float16, np.float32, np.float64]))
def test_rounding_is_to_the_nearest(q, dtype):
    got = rationals.rounded(np.array([q], dtype=object), dtype)[0]
    gap = abs(Fraction(float(got)) - q)
    for side in (np.inf, -np.inf):
        assert gap <= abs(Fraction(float(np.nextafter(got, dtype(side)))) - q)


def test_rounding_ties_go_to_even_without_double_rounding():
    one_and_half_ulp = Fraction(1) + Fraction(1, 2**24)  # halfway between 1 and the next float32
    assert rationals.rounded(np.array([one_and_half_ulp], dtype=object), np.float32)[0] == np.float32(1)
    above = one_and_half_ulp + Fraction(1, 2**80)  # rounds to the tie in float64 first
    assert rationals.rounded(np.array([above], dtype=object), np.float32)[0] == np.nextafter(
        np.float32(1), np.float32(2)
    )


def test_rounding_refuses_overflow():
    with pytest.raises(OverflowError, match="float16"):
        rationals.rounded(np.array([Fraction(10**6)], dtype=object), np.float16)
    with pytest.raises(OverflowError, match="float16"):
        rationals.rounded(np.array([1e6]), np.float16)


def test_texts_round_trip():
    array = rationals.exact_array(np.array([[Fraction(1, 3), Fraction(-2)]], dtype=object))
    back = rationals.from_texts(rationals.texts(array), (1, 2))
    assert rationals.equal(array, back)
    with pytest.raises(ValueError, match="entries"):
        rationals.from_texts(["1"], (2,))


def test_exact_array_refuses_what_is_no_number():
    with pytest.raises(TypeError, match="complex"):
        rationals.exact_array(np.array([1 + 2j]))
    with pytest.raises(TypeError, match="rational"):
        rationals.exact_array(np.array(["a"], dtype=object))


def test_longdouble_is_kept_exactly():
    value = np.longdouble(1) + np.longdouble(2) ** -60
    got = rationals.exact_array(np.array([value]))[0]
    assert Fraction(got) == Fraction(*value.as_integer_ratio())


def test_big_integers_are_kept_exactly():
    assert Fraction(rationals.exact_array(np.array([2**53 + 1]))[0]) == 2**53 + 1


def test_dyadic_leaves_room_for_the_sum_of_a_row():
    row = np.full(1000, 2.0**53 - 1)
    ints, exponent = rationals.dyadic(row)
    assert int(ints.sum()) * 2**exponent == 1000 * (2**53 - 1)


def test_rounding_next_to_ties_below_a_power_of_two():
    tie = Fraction(1) - Fraction(1, 2**25)  # halfway between 1 and the float32 below it
    for shift, expected in ((0, 1.0), (1, 1.0), (-1, float(np.nextafter(np.float32(1), np.float32(0))))):
        q = tie + shift * Fraction(1, 2**90)
        assert float(rationals.rounded(np.array([q], dtype=object), np.float32)[0]) == expected
