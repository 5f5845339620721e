"""What users hand over is read, or refused in one line that names it."""

from fractions import Fraction

import numpy as np
import pytest

from fiberscope.arguments import as_count, as_exact, as_float_dtype, as_floats, as_generator, shown
from fiberscope.errors import InputError

BAD = [
    ("a", "floats or integers|floats, integers or rationals"),
    ([["a"]], "expected"),
    ([1j], "expected"),
    (None, "None"),
    ([None, 1], "None"),
    ({"a": 1}, "expected"),
    ([[1], [1, 2]], "rows of different lengths"),
    (np.array(["2020-01-01"], dtype="M8[D]"), "expected"),
]


@pytest.mark.parametrize(("given", "words"), BAD)
@pytest.mark.parametrize("read", [as_exact, as_floats])
def test_what_is_no_array_of_numbers_is_refused_by_name(read, given, words):
    with pytest.raises(InputError, match=rf"^data: .*({words})") as caught:
        read(given, "data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [as_exact, as_floats])
def test_tensors_of_torch_are_arrays(read):
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        assert read(torch.tensor([1, 2]).to(dtype), "data").tolist() == [1.0, 2.0]
    assert read(torch.ones(2, requires_grad=True), "data").tolist() == [1.0, 1.0]


def test_dtypes_and_nan_are_kept():
    assert as_floats([np.float32(0.1)], "data", None).dtype == np.float32
    assert as_floats([1, 2], "data", None).dtype == np.float64
    assert np.isnan(as_floats([np.nan], "data")).all()
    assert as_floats([Fraction(1, 3), 10**400], "data").tolist() == [1 / 3, np.inf]
    mine = np.zeros(2)
    assert as_floats(mine, "data") is mine  # not copied, so never to be written to


@pytest.mark.parametrize("endless", [np.inf, float("-inf"), np.float32("nan")])
def test_infinities_beside_rationals_are_floats_but_not_exact(endless):
    mixed = [Fraction(1, 4), endless, 2**70]
    np.testing.assert_array_equal(as_floats(mixed, "data"), [0.25, endless, 2.0**70])
    np.testing.assert_array_equal(as_floats([2**70, endless], "data"), [2.0**70, endless])
    with pytest.raises(InputError, match="NaN or an infinity"):
        as_exact(mixed, "data")


@pytest.mark.parametrize("whole", [2**53 + 1, -(2**70) - 1, np.uint64(2**63 + 1)])
def test_integers_beside_floats_are_not_rounded(whole):
    """NumPy makes 2^53 of 2^53 + 1 where a float, or an integer of another kind, stands beside it."""
    for other in (0.5, np.int8(1)):
        assert [Fraction(v) for v in as_exact([[whole, other]], "data")[0].tolist()] == [int(whole), other]
    assert as_exact([np.float32(1e30), np.float32(1)], "data").dtype == np.float32


@pytest.mark.parametrize("given", [-1, 1.0, "1", None, True, np.True_, [1], np.nan])
def test_counts(given):
    assert as_count(np.int8(3), "width", 1) == 3
    with pytest.raises(InputError, match="^width: .*; give a whole number >= 0$"):
        as_count(given, "width")


@pytest.mark.parametrize("given", ["float12", "int8", complex, 3, "f16"])
def test_dtypes(given):
    assert as_float_dtype(np.float16).name == "float16"
    with pytest.raises(InputError, match="choose float16, float32 or float64"):
        as_float_dtype(given)


@pytest.mark.parametrize("given", [-1, 1.5, "a"])
def test_seeds(given):
    before = np.random.get_state()[1].copy()
    rng = as_generator(3)
    assert as_generator(rng) is rng and as_generator(np.int64(3)).random() == as_generator(3).random()
    with pytest.raises(InputError, match="seed .*give a whole number >= 0 or a numpy.random.Generator"):
        as_generator(given)
    assert (np.random.get_state()[1] == before).all()


def test_messages_stay_short():
    assert len(shown(np.zeros((50, 50)))) == 60 and "\n" not in shown(np.zeros((50, 50)))
