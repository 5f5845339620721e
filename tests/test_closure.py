"""What stays invariant under unions, intersections, leaves and products, with dimensions by exact ranks of brackets."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.autodiff.families import GradientFamily
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.autodiff.jets import FormalJets
from fiberscope.autodiff.liebrackets import brackets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.rings import PRIME, Residues
from fiberscope.invariants.submanifolds.equations import from_equations
from fiberscope.invariants.submanifolds.invariance import is_invariant
from fiberscope.invariants.submanifolds.sets import LevelSet, LinearSet
from fiberscope.models.chains import blocks_of, chain_family
from fiberscope.results import Answer

R = Residues()


def orbit_dimension(family, theta, depth=4, seed=0, law=None):
    """Rank modulo the prime of all brackets up to a depth at theta."""
    rng = np.random.default_rng(seed)
    point = Nilpotent(R, {0: R.array(np.array(theta, dtype=object))[None]})
    found = brackets(
        family, point, [family.draw(R, rng, family.size + 4) for _ in range(depth)], FormalJets(R, seed, law)
    )
    rows = [np.broadcast_to(b.real, (family.size + 4, family.size)) for b in found]
    return rationals.rank_mod(np.concatenate(rows), PRIME)


def separable(factors, inputs=None):
    """F = sum_i (product of the factors of i) x_i, with one independent feature x_i for each i."""
    n = len(factors)
    shapes = tuple((f"t{i}", (1, k)) for i, k in enumerate(factors))

    def forward(tape, blocks, data):
        total = None
        for i, block in enumerate(blocks):
            value = block.part(0, 1)
            for k in range(1, factors[i]):
                value = value * block.part(k, k + 1)
            term = value * tape.constant(data[0]).part(i, i + 1)
            total = term if total is None else total + term
        return total

    def draw(ring, rng, count):
        return (ring.random(rng, (count, 1, n)),)

    return GradientFamily("separable", shapes, forward, inputs or draw, (1, 1))


@pytest.mark.parametrize(
    ("factors", "theta", "dimension"),
    [
        ((2, 2, 2), [1, 2, 3, 4, 5, 6], 3),
        ((2, 2, 2), [0, 0, 3, 4, 5, 6], 2),  # a pair (0, 0) stands still
        ((2, 2, 2), [0, 2, 3, 4, 5, 6], 3),  # a pair (0, b) does not
        ((2, 2, 2), [0, 0, 0, 0, 0, 0], 0),
        ((3, 3), [1, 2, 3, 4, 5, 6], 2),
        ((3, 3), [0, 2, 3, 4, 5, 6], 2),  # one factor 0: a curve
        ((3, 3), [0, 0, 3, 4, 5, 6], 1),  # two factors 0: a point
        ((3, 2), [0, 0, 3, 0, 0], 0),
    ],
)
def test_orbits_of_separable_models_are_products(factors, theta, dimension):
    family = separable(factors)
    assert orbit_dimension(family, theta) == dimension
    parts = np.split(np.array(theta), np.cumsum(factors)[:-1])
    each = [orbit_dimension(separable((k,)), part.tolist()) for k, part in zip(factors, parts, strict=True)]
    assert sum(each) == dimension and all(v in (0, 1) for v in each)


def test_sets_of_separable_models():
    family = separable((2, 2))
    still = LinearSet([[1, 0, 0, 0], [0, 1, 0, 0]])
    balanced = LinearSet([[0, 0, 1, -1]])
    assert is_invariant(still, family) and is_invariant(balanced, family)
    assert is_invariant(still.intersection(balanced), family)
    assert is_invariant(LinearSet([[1, 0, 0, 0]]), family).answer is Answer.NO  # a = 0 alone
    assert is_invariant(LevelSet.of(lambda t: t[0] ** 2 - t[1] ** 2 - 5, 4), family)
    assert is_invariant(LevelSet.of(lambda t: t[0] * t[1] - 5, 4), family).answer is Answer.NO
    # coupled through one feature the two pairs share their speed: a - b of either is still kept, sums are not
    product = LevelSet.of(lambda t: [t[0] ** 2 - t[1] ** 2, t[2] ** 2 - t[3] ** 2 - 1], 4)
    assert is_invariant(product, family)  # a product of invariant sets
    mixed = LevelSet.of(lambda t: t[0] ** 2 + t[2] ** 2 - 1, 4)
    assert is_invariant(mixed, family).answer is Answer.NO


def test_signs_of_sums_and_differences_are_kept_not_those_of_the_factors():
    family = NumpyFamily(separable((2,)), [1.0, 0.2])
    theta = family.start
    for _ in range(2000):  # a' = -b, b' = -a
        rate = family.fields(theta, (np.array([[[-1.0]]]), np.array([[[1.0]]])))[0]
        theta = theta + 1e-3 * rate
    assert theta[0] + theta[1] > 0 and theta[0] - theta[1] > 0
    assert theta[1] < 0 < family.start[1]
    assert abs((theta[0] ** 2 - theta[1] ** 2) - 0.96) < 5e-3


@pytest.mark.parametrize(("features", "dimension"), [((0, 1, 2), 3), ((0, 1, 1), 2), ((2, 2, 2), 1)])
def test_orbits_of_linear_models_are_translates_of_the_span_of_the_features(features, dimension):
    """F = theta . phi(x) with phi_i(x) = x^features[i], which may repeat."""

    def forward(tape, blocks, data):
        x = tape.constant(data[0])
        powers = [x * x - x * x + tape.constant(np.ones_like(data[0])) if True else x]
        for _ in range(2):
            powers.append(powers[-1] * x)
        total = None
        for i, k in enumerate(features):
            term = blocks[0].part(i, i + 1) * powers[k]
            total = term if total is None else total + term
        return total

    family = GradientFamily(
        "linear", (("t", (1, 3)),), forward, lambda ring, rng, count: (ring.random(rng, (count, 1, 1)),), (1, 1)
    )
    for theta in ([0, 0, 0], [1, 2, 3]):
        assert orbit_dimension(family, theta, depth=3) == dimension
        assert orbit_dimension(family, theta, depth=1) == dimension  # constant fields commute
    span = {tuple(int(j == i) for j in features) for i in set(features)}
    normal = LinearSet(np.array([[1, -1, 0]])) if features[0] == features[1] else None
    assert len(span) == dimension
    for level in (0, Fraction(2, 3)):
        moved = LinearSet([[0, 1, -1]], [level])
        assert is_invariant(moved, family).answer is (Answer.YES if features[1] == features[2] else Answer.NO)
    if normal is not None:
        assert is_invariant(normal, family)


WIDTHS = (2, 3, 1)
BLOCKS = blocks_of(WIDTHS)


def equal(i, j, sign=""):
    return from_equations(f"W1[{i}] = {sign}W1[{j}]; b1[{i}] = {sign}b1[{j}]; W2[:,{i}] = {sign}W2[:,{j}]", BLOCKS)


def null(i):
    return from_equations(f"W1[{i}] = 0; b1[{i}] = 0; W2[:,{i}] = 0", BLOCKS)


def test_intersections_of_invariant_sets_are_invariant():
    sets = [equal(0, 1), equal(1, 2), equal(0, 1, "-"), equal(0, 2, "-"), null(0), null(2)]
    for a, b in itertools.combinations(sets, 2):
        both = a.intersection(b)
        assert is_invariant(both, (WIDTHS, "tanh"))
        # the orbit of a random point fills the intersection: the classification has dimension D K + output bias
        theta = both.draw(np.random.default_rng(0))
        family = chain_family(WIDTHS, [activation("tanh")])
        assert orbit_dimension(family, theta, depth=3) == both.dimension
    # equal and opposite at once: a null pair
    pair = equal(0, 1).intersection(equal(0, 1, "-"))
    assert pair.dimension == null(0).intersection(null(1)).dimension == 5


def test_the_union_of_crossing_sets_is_invariant_but_no_manifold():
    a, b = equal(0, 1), equal(1, 2)
    union = LevelSet.of(lambda t: [g * h for g in rows(a, t) for h in rows(b, t)], 13)
    # every product of an equation of one and an equation of the other changes by products again
    family = chain_family(WIDTHS, [activation("tanh")])
    for part in (a, b):
        theta = part.draw(np.random.default_rng(1))
        assert union.contains(theta)
        slopes = np.array([[d.at(lambda k, p=theta: p[k]) for d in row] for row in union.gradients()], dtype=object)
        assert rationals.rank(slopes) == 13 - part.dimension == 4
        rates = NumpyFamily(family, np.zeros(13)).fields(
            theta.astype(float), NumpyFamily(family, np.zeros(13)).draw(np.random.default_rng(2), 8)
        )
        assert np.abs(rates @ slopes.astype(float).T).max() < 1e-12
    crossing = a.intersection(b).draw(np.random.default_rng(3))
    assert union.contains(crossing)
    assert not any(d.at(lambda k: crossing[k]) for row in union.gradients() for d in row)  # singular there
    assert not union.contains(LinearSet(np.zeros((0, 13))).draw(np.random.default_rng(4)))


def rows(linear, t):
    return [sum(c * v for c, v in zip(row, t, strict=True) if c) for row in linear.equations]


def test_dimension_falls_on_the_boundary_of_an_orbit():
    """Closures: the strata in the closure of a generic orbit have every smaller dimension D K + 1."""
    family = chain_family(WIDTHS, [activation("softplus")])
    chain = [LinearSet(np.zeros((0, 13))), equal(0, 1), equal(0, 1).intersection(equal(1, 2))]
    found = [orbit_dimension(family, s.draw(np.random.default_rng(0)), depth=3) for s in chain]
    assert found == [s.dimension for s in chain] == [13, 9, 5]


def test_leaves_of_an_even_activation():
    """Two neurons of constant value move by one direction: every leaf a_0 - a_1 = const is invariant."""
    for level in (0, Fraction(-5, 7)):
        leaf = from_equations("W1[0] = 0; b1[0] = 0; W1[1] = 0; b1[1] = 0", BLOCKS).intersection(
            LinearSet([[0] * 9 + [1, -1, 0, 0]], [level])
        )
        assert is_invariant(leaf, (WIDTHS, "gaussian"))
    point = from_equations("W1[0] = 0; b1[0] = 0; W2[0,0] = 1", BLOCKS)
    assert is_invariant(point, (WIDTHS, "gaussian")).answer is Answer.NO


def test_deep_leaves_partition_the_manifold():
    """1-3-3-1: five directions are travelled and the four numbers of the deviation D are frozen."""
    family = chain_family((1, 3, 3, 1), [activation("softplus")] * 2)
    magic = [1, 1, 1, 0, 0, 0, 1, 5, 9, 6, 7, 2, 8, 3, 4, 0, 0, 0, 1, 1, 1, 0]
    flat = [1, 1, 1, 0, 0, 0, *[5] * 9, 0, 0, 0, 1, 1, 1, 0]
    rows_only = [1, 1, 1, 0, 0, 0, 1, 5, 9, 5, 1, 9, 9, 5, 1, 0, 0, 0, 1, 2, 4, 0]
    assert orbit_dimension(family, magic, depth=4) == orbit_dimension(family, flat, depth=4) == 6
    assert orbit_dimension(family, rows_only, depth=4) == 22


def test_components_are_separated_by_a_wall_of_codimension_one():
    """Even s, one input, no bias: {w = 0} is invariant, so the sign of w is kept."""
    widths = (1, 1, 1)
    wall = from_equations("W1 = 0; b1 = 0", blocks_of(widths))
    assert is_invariant(wall, (widths, "gaussian"), frozen=[1])
    assert is_invariant(from_equations("b1 = 0", blocks_of(widths)), (widths, "gaussian")).answer is Answer.NO
    assert is_invariant(wall, (widths, "tanh"), frozen=[1]).answer is Answer.NO
