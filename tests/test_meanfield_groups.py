"""Orthogonal groups: closure, orders, orbits, representatives, and the refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError
from fiberscope.meanfield.symmetry.groups import (
    OrthogonalGroup,
    antipodal,
    continuous_samples,
    cyclic,
    permutations,
    reflections,
    signed_permutations,
)
from fiberscope.meanfield.targets.automorphisms import keeps_lines, signed_automorphisms


def random_group(seed: int) -> OrthogonalGroup:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 5))
    maps = [(rng.permutation(d), rng.choice([-1.0, 1.0], d)) for _ in range(int(rng.integers(0, 4)))]
    return OrthogonalGroup(maps, d)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_orders_of_the_named_groups(d: int) -> None:
    assert signed_permutations(d).order() == 2**d * math.factorial(d)
    assert permutations(d).order() == math.factorial(d)
    assert reflections(d).order() == 2**d
    assert antipodal(d).order() == 2


def test_large_orders_are_exact() -> None:
    assert signed_permutations(16).order() == 2**16 * math.factorial(16)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_cyclic_groups(n: int) -> None:
    group = cyclic(n, (0, 2), 4)
    assert group.order() == n
    assert group.signed == (n in (1, 2, 4))
    assert len(group.fixed_space) == (4 if n == 1 else 2)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_elements_form_a_group_of_the_order_that_stabilisers_give(seed: int) -> None:
    group = random_group(seed)
    elements = group.elements()
    assert group.order() == len(elements)
    table = {e.tobytes() for e in elements + 0.0}
    assert all((a @ b + 0.0).tobytes() in table for a in elements[:6] for b in elements)
    assert all((e.T + 0.0).tobytes() in table for e in elements)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_orbits_by_elements_and_by_search_agree(seed: int) -> None:
    group = random_group(seed)
    row = np.random.default_rng(seed).integers(-1, 2, size=(1, group.dimension)).astype(float)
    found = {r.tobytes() for r in group.orbit_of(row)}
    assert found == {(e @ row[0] + 0.0).tobytes() for e in group.elements()}


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_representatives_unfold_to_all_rows_without_rounding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = random_group(seed)
    blocks, labels = [], []
    for k in range(3):
        orbit = group.orbit_of(rng.normal(size=(1, group.dimension)))
        blocks.append(orbit)
        labels += [float(k)] * len(orbit)
    order = rng.permutation(len(labels))
    rows, names = np.concatenate(blocks)[order], np.array(labels)[order]
    orbits = group.representatives(rows, names)
    assert (orbits.unfold(rows[orbits.rows]) == rows).all()
    assert sorted(orbits.counts) == sorted(map(len, blocks))
    assert (names[orbits.rows][orbits.label] == names).all()
    # what is equivariant for one set of representatives is so for another
    other = rng.normal(size=(len(orbits.rows), group.dimension))
    unfolded = orbits.unfold(other)
    for k in range(len(group.generators)):
        images = {r.tobytes() for r in group.apply(k, unfolded)}
        assert images == {r.tobytes() for r in unfolded + 0.0}


def test_representatives_of_rotations_and_repeated_rows() -> None:
    group = cyclic(7, (0, 2), 4)
    rows = group.orbit_of(np.random.default_rng(0).normal(size=(2, 4)))
    twice = np.concatenate([rows, rows])
    orbits = group.representatives(twice)
    assert len(orbits.rows) == 4 and (orbits.counts == 7).all()
    np.testing.assert_allclose(orbits.unfold(twice[orbits.rows]), twice, atol=1e-14)


def test_rows_that_are_no_union_of_orbits_are_refused() -> None:
    group = reflections(2)
    rows = group.orbit_of([[1.0, 2.0]])
    with pytest.raises(InputError, match="not a union of orbits: generator 0"):
        group.representatives(rows[:3])
    with pytest.raises(InputError, match="with equal labels"):
        group.representatives(rows, [1.0, 1.0, 1.0, 2.0])
    with pytest.raises(InputError, match="not as many"):
        group.representatives(np.concatenate([rows, rows[:1]]))
    with pytest.raises(InputError, match="not a union of orbits"):
        cyclic(5, (0, 1), 2).representatives(cyclic(5, (0, 1), 2).orbit_of([[1.0, 0.3]])[:4])


def test_maps_that_are_not_orthogonal_are_refused() -> None:
    with pytest.raises(InputError, match=r"generator 1 is not orthogonal: .* 0\.21"):
        OrthogonalGroup([np.eye(2), [[1.1, 0.0], [0.0, 1.0]]], 2)
    with pytest.raises(InputError, match="shape"):
        OrthogonalGroup([np.eye(3)], 2)
    with pytest.raises(InputError, match="no signed permutation"):
        OrthogonalGroup([(np.array([0, 0]), np.ones(2))], 2)
    with pytest.raises(InputError, match="generator 0: NaN or an infinity"):
        OrthogonalGroup([[[np.nan, 0.0], [0.0, 1.0]]], 2)
    with pytest.raises(InputError, match="not orthonormal"):
        OrthogonalGroup([], 2, continuous=[[[1.0, 1.0]]])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: OrthogonalGroup("swap", 2), "generators 'swap'; give a list of matrices"),
        (lambda: OrthogonalGroup(3, 2), "generators 3"),
        (lambda: OrthogonalGroup([["a", "b"]], 2), "generator 0: .*'a'.* is no number"),
        (lambda: OrthogonalGroup([], 2.5), "dimension d: 2.5; give a whole number >= 1"),
        (lambda: OrthogonalGroup([], 2, continuous=4), "continuous part 4"),
        (lambda: permutations(0), "dimension d: 0"),
        (lambda: antipodal("two"), "dimension d: 'two'"),
        (lambda: cyclic(3, 0, 2), "plane 0; give the pair"),
        (lambda: cyclic(3, (0, 0.5), 2), "plane: 0.5"),
        (lambda: cyclic(True, (0, 1), 2), "n: True"),
    ],
)
def test_bad_groups_get_one_clear_line(make: Callable[[], object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()


def test_a_continuous_part_may_be_the_rows_of_one_subspace() -> None:
    group = OrthogonalGroup([], 3, continuous=[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert [len(block) for block in group.continuous] == [2] and len(group.fixed_space) == 1


def test_infinite_groups_stop_at_the_cap() -> None:
    turn = [[math.cos(1.0), -math.sin(1.0)], [math.sin(1.0), math.cos(1.0)]]
    group = OrthogonalGroup([turn], 2)
    assert group.order(cap=100) is None
    with pytest.raises(InputError, match="more than 100"):
        group.elements(cap=100)
    with pytest.raises(InputError, match="more than 100"):
        group.orbit_of([[1.0, 0.0]], cap=100)


def test_signed_permutations_act_as_their_matrices() -> None:
    perm, sign = np.array([2, 0, 1]), np.array([1.0, -1.0, 1.0])
    group = OrthogonalGroup([(perm, sign)], 3)
    rows = np.random.default_rng(0).normal(size=(4, 3))
    assert (group.apply(0, rows) == rows @ group.generators[0].T).all()
    assert (group.apply(0, rows) == rows[:, perm] * sign).all()


def test_defect_and_fixed_space() -> None:
    group = permutations(3)
    points = np.random.default_rng(0).normal(size=(20, 3))
    assert group.defect(lambda x: np.sort(x, axis=1) @ [1.0, 2.0, 3.0], points) < 1e-14
    assert group.defect(lambda x: x[:, 0], points) > 0.1
    np.testing.assert_allclose(np.abs(group.fixed_space), np.full((1, 3), 3**-0.5))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_samples_of_the_continuous_part_are_orthogonal_and_fix_the_complement(k: int) -> None:
    basis = np.linalg.qr(np.random.default_rng(k).normal(size=(4, k)))[0].T
    for turn in continuous_samples(basis, 4):
        np.testing.assert_allclose(turn @ turn.T, np.eye(4), atol=1e-14)
        rest = np.eye(4) - basis.T @ basis
        np.testing.assert_allclose(turn @ rest, rest, atol=1e-14)
        assert np.abs(turn - np.eye(4)).max() > 0.1


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_signed_automorphisms_are_all_that_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, n = int(rng.integers(1, 5)), int(rng.integers(1, 6))
    rows = rng.integers(-1, 2, size=(n, d)).astype(float)
    lines = np.array([r for k, r in enumerate(rows) if not any((r == s).all() or (r == -s).all() for s in rows[:k])])
    lines = lines[np.any(lines != 0, axis=1)].reshape(-1, d)
    colours = rng.integers(0, 2, size=len(lines))
    vectors = rng.integers(-1, 2, size=(int(rng.integers(0, 2)), d)).astype(float)
    found = signed_automorphisms(lines, colours, vectors)
    count = sum(
        keeps_lines(lines, colours, vectors, np.array(p), np.array(s), 1e-9)
        for p in itertools.permutations(range(d))
        for s in itertools.product([1.0, -1.0], repeat=d)
    )
    assert found.complete and OrthogonalGroup(found.generators, d).order() == count
    assert all(keeps_lines(lines, colours, vectors, *g, 0.0) for g in found.generators)


def test_orders_agree_with_sympy() -> None:
    combinatorics = pytest.importorskip("sympy.combinatorics")
    rng = np.random.default_rng(5)
    for _ in range(25):
        d = int(rng.integers(4, 9))
        maps = []
        for _ in range(int(rng.integers(1, 4))):
            # few moved points, so that many different groups come up
            perm = np.arange(d)
            moved = rng.choice(d, size=int(rng.integers(2, 5)), replace=False)
            perm[moved] = np.roll(perm[moved], 1)
            maps.append((perm, rng.choice([-1.0, 1.0], d)))
        points = [[int(p + d * (s < 0)) for p, s in zip(perm, sign, strict=True)] for perm, sign in maps]
        doubled = [combinatorics.Permutation(image + [(i + d) % (2 * d) for i in image]) for image in points]
        assert OrthogonalGroup(maps, d).order() == combinatorics.PermutationGroup(doubled).order()


def test_representatives_of_a_group_that_does_not_commute() -> None:
    turn = cyclic(5, (0, 1), 3).generators[0]
    group = OrthogonalGroup([turn, np.diag([1.0, -1.0, 1.0]), np.diag([1.0, 1.0, -1.0])], 3)
    rows = group.orbit_of(np.random.default_rng(1).normal(size=(2, 3)))
    orbits = group.representatives(rows)
    assert len(rows) == 40 and (orbits.counts == 20).all() and group.order() == 20
    np.testing.assert_allclose(orbits.unfold(rows[orbits.rows]), rows, atol=1e-13)


def fixed_by_brute_force(group: OrthogonalGroup, row: np.ndarray) -> np.ndarray:
    """The mean of the elements that fix a row: the projector on what its stabiliser fixes."""
    elements = group.elements()
    keep = np.linalg.norm(elements @ row - row, axis=1) < 1e-12
    projector: np.ndarray = elements[keep].mean(axis=0)
    return projector


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_fixed_spaces_of_stabilisers_are_those_of_the_elements(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = random_group(seed)
    # few different entries, so that rows lie on mirrors
    starts = rng.integers(-1, 2, size=(3, group.dimension)) * rng.choice([0.3, 0.7])
    rows = np.concatenate([group.orbit_of(r[None]) for r in (*starts, starts[0])])
    rows = rows[rng.permutation(len(rows))]
    found = group.representatives(rows)
    heads = rows[found.rows]
    assert np.array_equal(found.fixed.project(heads), heads)
    other = rng.normal(size=heads.shape)
    projected = found.fixed.project(other)
    expected = np.array([fixed_by_brute_force(group, h) @ x for h, x in zip(heads, other, strict=True)])
    np.testing.assert_allclose(projected, expected, atol=1e-14)
    assert np.array_equal(found.fixed.project(projected), projected)
    # images of what was projected form orbits again, of the same sizes
    again = group.representatives(found.unfold(projected))
    assert sorted(again.counts) == sorted(found.counts)


def test_fixed_spaces_of_other_maps() -> None:
    turn = cyclic(5, (0, 1), 4).generators[0]
    group = OrthogonalGroup([turn, np.diag([1.0, -1.0, 1.0, 1.0]), np.diag([1.0, 1.0, -1.0, 1.0])], 4)
    starts = np.array([[0.0, 0, 0, 1], [0, 0, 1, 2], [1, 0, 0, 1], [1, 0, 2, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
    rows = np.concatenate([group.orbit_of(s[None]) for s in starts])
    orbits = group.representatives(rows)
    assert orbits.counts.tolist() == [1, 2, 5, 10, 20, 1]
    other = np.random.default_rng(0).normal(size=(6, 4))
    expected = [fixed_by_brute_force(group, s) @ x for s, x in zip(starts, other, strict=True)]
    np.testing.assert_allclose(orbits.fixed.project(other), expected, atol=1e-14)
    assert np.array_equal(orbits.fixed.project(other)[4], other[4])  # no stabiliser, no rounding
    assert not orbits.fixed.project(other)[0, :3].any()


def test_a_row_near_an_axis_is_not_on_it() -> None:
    group = cyclic(3, (0, 1), 3)
    rows = group.orbit_of([[1e-10, 0.0, 1.0]], tolerance=1e-13)
    orbits = group.representatives(rows)
    assert len(rows) == 3 and orbits.counts.tolist() == [3]
    tiny = np.concatenate([group.orbit_of([[1.0, 0.0, 1.0]]), [[1e-10, 0.0, 0.0]]])
    with pytest.raises(InputError, match="not a union of orbits"):
        group.representatives(tiny)


def test_labels_of_other_maps_match_exactly_or_as_asked() -> None:
    group = cyclic(3, (0, 1), 3)
    rows = group.orbit_of([[1e6, 2e5, 3e5]])
    with pytest.raises(InputError, match=r"with equal labels\); labels differ by 0\.0002"):
        group.representatives(rows, [1e-4, -1e-4, 1e-4])
    with pytest.raises(InputError, match="with equal labels"):
        group.representatives(rows, [1.0, 1.0, 1.0 + 1e-15])
    assert len(group.representatives(rows, [1.0, 1.0, 1.0 + 1e-15], label_tolerance=1e-14).rows) == 1
    twice = np.concatenate([rows, rows[[1, 2, 0]]])
    orbits = group.representatives(twice, [1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    assert sorted(orbits.counts) == [3, 3] and sorted(orbits.label[:3]) == [0, 0, 0]
