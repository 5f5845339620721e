"""Ranks modulo a prime and in floating point by blocks, against FLINT, singular values and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.autodiff import elimination
from fiberscope.autodiff.elimination import Echelon, rank_of
from fiberscope.autodiff.families import Family, RestrictedFamily
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import PRIME, Residues
from fiberscope.errors import InputError
from fiberscope.invariants.orbits.methods import exact_rank
from fiberscope.invariants.orbits.spans import GrowingSpan, span_of
from fiberscope.models.chains import blocks_of, chain_family
from fiberscope.models.networks import piecewise_family


def deficient(rng: np.random.Generator, rows: int, columns: int, rank: int, prime: int) -> np.ndarray:
    """Random residues of at most the given rank, with zero and repeated rows and columns."""
    left = rng.integers(0, prime, (1, rows, rank), dtype=np.int64)
    right = rng.integers(0, prime, (1, rank, columns), dtype=np.int64)
    out = Residues(prime).matmul(left, right)[0] if rank else np.zeros((rows, columns), dtype=np.int64)
    if rows > 3:
        out[rng.integers(rows)] = 0
        out[rng.integers(rows)] = out[rng.integers(rows)]
    if columns > 3:
        out[:, : rng.integers(columns)] = 0  # the first pivots must be looked for
        out[:, rng.integers(columns)] = out[:, rng.integers(columns)]
    return out


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 90), st.sampled_from([2, 3, 7, 65521, PRIME]),
       st.integers(0, 2**32 - 1), st.integers(1, 90))  # fmt: skip
def test_blocked_elimination_agrees_with_flint(
    rows: int, columns: int, rank: int, prime: int, seed: int, cut: int
) -> None:
    rng = np.random.default_rng(seed)
    table = deficient(rng, rows, columns, min(rank, rows, columns), prime)
    space = Echelon(columns, prime)
    gained = space.add(table[:cut])
    assert gained == rationals.rank_mod(table[:cut], prime)
    assert gained + space.add(table[cut:]) == space.rank == rationals.rank_mod(table, prime)
    assert space.add(table) == 0


@pytest.mark.parametrize(("rows", "columns", "rank"), [(400, 300, 300), (300, 700, 260), (1100, 620, 600)])
def test_several_blocks_and_chunks(rows: int, columns: int, rank: int) -> None:
    rng = np.random.default_rng(rows)
    table = deficient(rng, rows, columns, rank, PRIME)
    table[:, : columns // 3] = table[:, columns // 3 : 2 * (columns // 3)]  # dependent columns, all over
    assert rank_of(table) == rationals.rank_mod(table, PRIME)


def test_the_worst_residues_are_exact() -> None:
    """Entries of the largest size and one sign: sums in float64 come closest to 2^53."""
    half = PRIME // 2
    n = 300
    rng = np.random.default_rng(0)
    for values in ([half, half + 1], [half], [1, half, half + 1, PRIME - 1]):
        table = rng.choice(np.array(values, dtype=np.int64), (n, n))
        space = Echelon(n)
        space.add(table)
        assert space.rank == rationals.rank_mod(table, PRIME)
    # [I | V] and a row that is a known combination, all entries large, positive and odd: the largest sums there are
    k = elimination._BLOCK
    block = np.concatenate([np.eye(k, dtype=np.int64), half - 2 * rng.integers(0, 500, (k, 40))], axis=1)
    factors = half - 2 * rng.integers(0, 2**20, (1, k))
    row = Residues().matmul(factors[None], block[None])[0]
    space = Echelon(k + 40)
    assert space.add(block) == k
    assert space.add(row) == 0
    row[0, -1] = (row[0, -1] + 1) % PRIME
    assert space.add(row) == 1


def test_what_is_no_residue_matrix_is_refused() -> None:
    with pytest.raises(InputError, match="modulus"):
        Echelon(3, 2**31 + 11)
    with pytest.raises(InputError, match="expected integers"):
        Echelon(3).add(np.ones((2, 4), dtype=np.int64))
    with pytest.raises(InputError, match="expected integers"):
        Echelon(3).add(np.ones((2, 3)))


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_a_growing_span_agrees_with_singular_values(
    rows: int, columns: int, rank: int, seed: int, ordered: bool
) -> None:
    rng = np.random.default_rng(seed)
    rank = min(rank, rows, columns)
    table = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    if ordered and rows > 2:
        table[1] = table[0]  # a dependent row before independent ones
    whole = span_of(table)
    space = GrowingSpan(columns)
    cuts = np.sort(rng.integers(0, rows + 1, 2))
    gained = [space.add(part) for part in np.split(table, cuts)]
    assert sum(gained) == space.rank == whole.rank
    assert space.span.rank == whole.rank
    assert space.dropped < 1e-9 < space.kept
    assert space.add(table) == 0


def chain(widths: tuple[int, ...], name: str, *, biases: bool) -> Family:
    """A chain as a family; path lifting for ReLU."""
    rows = [activation(name)] * (len(widths) - 2)
    family = piecewise_family(widths, rows) if name == "relu" else chain_family(widths, rows)
    if biases:
        return family
    keep = np.concatenate([np.full(int(np.prod(shape)), block[0] == "W") for block, shape in blocks_of(widths)])
    return RestrictedFamily(family, np.zeros(family.size), np.flatnonzero(keep))


def generic(family: Family, seed: int = 0) -> Nilpotent:
    ring = Residues()
    return Nilpotent(ring, {0: ring.random(np.random.default_rng(seed), (1, family.size))})


@pytest.mark.parametrize(
    ("widths", "name", "biases", "growth"),
    [
        ((16, 16, 16), "identity", False, [256, 376, 376]),
        ((16, 16, 16, 16), "identity", False, [256, 496, 496]),
        ((10, 14, 14, 10), "relu", True, [486, 486]),  # 514 parameters, one law for each of 28 hidden neurons
    ],
)
def test_ranks_depth_by_depth(widths: tuple[int, ...], name: str, biases: bool, growth: list[int]) -> None:
    family = chain(widths, name, biases=biases)
    jets, rng, space = FormalJets(Residues(), 0), np.random.default_rng(3), Echelon(family.size)
    found = [exact_rank(family, generic(family), d, jets, rng, family.size, space) for d in range(1, len(growth) + 1)]
    assert found == growth
    anew = exact_rank(family, generic(family), len(growth), jets, rng, family.size)
    assert anew == growth[-1]
    # floats find the same, in one factorisation
    floats = NumpyFamily(family, np.random.default_rng(5).standard_normal(family.size))
    span = GrowingSpan(family.size)
    for depth in range(1, len(growth) + 1):
        data = [floats.draw(np.random.default_rng(7 * depth + k), family.size) for k in range(depth)]
        span.add(floats.brackets(floats.start, data)[-1])
        assert span.rank == growth[depth - 1]
    assert span.span.clear


def test_a_proved_bound_ends_the_search() -> None:
    family = chain((16, 16, 16), "identity", biases=False)
    jets, rng = FormalJets(Residues(), 0), np.random.default_rng(0)
    assert exact_rank(family, generic(family), 3, jets, rng, 376) == 376
    assert exact_rank(family, generic(family), 1, jets, rng, 300) == 256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "name", "biases", "growth"),
    [((32, 32, 32), "identity", False, [1024, 1520]), ((784, 5, 5, 10), "relu", True, [4005, 4005])],
)
def test_ranks_of_thousands_of_parameters(widths: tuple[int, ...], name: str, biases: bool, growth: list[int]) -> None:
    family = chain(widths, name, biases=biases)
    jets, rng, space = FormalJets(Residues(), 0), np.random.default_rng(3), Echelon(family.size)
    for depth, expected in enumerate(growth, start=1):
        assert exact_rank(family, generic(family), depth, jets, rng, family.size, space) == expected
