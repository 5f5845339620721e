"""All manifolds of an architecture: counts against brute force and known sequences, geometry, and real gradients."""

from __future__ import annotations

import itertools
import json
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.activations import activation, names
from fiberscope.errors import InputError
from fiberscope.invariants.manifolds import architectures, counts, members, subgroups
from fiberscope.invariants.manifolds.counts import ClassRules
from fiberscope.invariants.manifolds.lattice import Profile, profile_count, profiles, two_layer_lattice
from fiberscope.invariants.manifolds.members import LayerClasses, Manifold
from fiberscope.invariants.manifolds.rules import class_rules
from fiberscope.network import Network
from fiberscope.pages import simparts
from fiberscope.pages.data import View
from oracles import gradient
from oracles_sims import (
    covers,
    dense_rows,
    echelon,
    intersections,
    signed_permutations,
    symmetric_spaces,
    two_layer_actions,
)
from oracles_sims import subgroups as all_subgroups

sims = architectures.sims

# OEIS A000110, A007405 (Dowling numbers of Z_2), A000041, and A000070 for its partial sums
BELL = [1, 1, 2, 5, 15, 52, 203, 877, 4140, 21147, 115975, 678570, 4213597, 27644437]
DOWLING = [1, 2, 6, 24, 116, 648, 4088, 28640, 219920, 1832224, 16430176, 157554048, 1606879040]
PARTITIONS = [1, 1, 2, 3, 5, 7, 11, 15, 22, 30, 42, 56, 77]
PARTITIONS_WITH_ZERO = [1, 2, 4, 7, 12, 19, 30, 45, 67, 97, 139, 195, 272]

RULES = {
    "generic": ClassRules(),
    "odd": ClassRules(signs=True, null=True),
    "vanishing": ClassRules(null=True),
    "even": ClassRules(signs=True, even=True, quiet=True, constant=True),
}
NAMES = {"generic": "softplus", "odd": "tanh", "vanishing": "gelu", "even": "gaussian"}


def stirling(n, k):
    """Partitions of n things into k blocks, by inclusion and exclusion."""
    return sum((-1) ** i * math.comb(k, i) * (k - i) ** n for i in range(k + 1)) // math.factorial(k)


# ---- counts


def test_counts_are_the_known_sequences_to_12() -> None:
    for m in range(13):
        assert counts.manifold_count(m, RULES["generic"]) == BELL[m]
        assert counts.manifold_count(m, RULES["odd"]) == DOWLING[m]
        assert counts.manifold_count(m, RULES["vanishing"]) == BELL[m + 1]
        signed = [sum(stirling(n, k) * 2 ** (n - k) for k in range(n + 1)) for n in range(m + 1)]
        assert counts.manifold_count(m, RULES["odd"]) == sum(math.comb(m, z) * signed[m - z] for z in range(m + 1))
        even = sum(math.comb(m, z) * BELL[z] * signed[m - z] for z in range(m + 1))
        assert counts.manifold_count(m, RULES["even"]) == even
        assert counts.type_count(m, RULES["generic"]) == PARTITIONS[m]
        for kind in ("odd", "vanishing"):
            assert counts.type_count(m, RULES[kind]) == PARTITIONS_WITH_ZERO[m]
        assert counts.type_count(m, RULES["even"]) == sum(PARTITIONS[z] * PARTITIONS[m - z] for z in range(m + 1))


def test_counts_of_the_vectors() -> None:
    """The numbers of the shared vectors, m = 1..5."""
    expected = {
        "bell": ("softplus", [1, 2, 5, 15, 52]),
        "dowling_Z2": ("tanh", [2, 6, 24, 116, 648]),
        "bell_shift": ("gelu", [2, 5, 15, 52, 203]),
    }
    for name, numbers in expected.values():
        assert [sims((2, m, 1), name).count for m in range(1, 6)] == numbers
    assert [sims((2, m, 1), "softplus").count_types for m in range(1, 6)] == [1, 2, 3, 5, 7]
    assert [sims((2, m, 1), "tanh").count_types for m in range(1, 6)] == [2, 4, 7, 12, 19]
    assert [sims((2, m, 1), "gaussian").count for m in range(1, 4)] == [2, 7, 31]


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("m", [0, 1, 2, 5, 9])
def test_types_and_levels_sum_to_the_count(kind: str, m: int) -> None:
    rules = RULES[kind]
    found = list(profiles(m, rules))
    assert len(found) == len(set(found)) == counts.type_count(m, rules)
    assert sum(profile_count(p, rules) for p in found) == counts.manifold_count(m, rules)
    by_level: dict[tuple[int, int], list[int]] = {}
    for p in found:
        cell = by_level.setdefault((len(p.sizes), len(p.quiet)), [0, 0])
        cell[0] += 1
        cell[1] += profile_count(p, rules)
    assert counts.level_counts(m, rules) == {key: cell[1] for key, cell in by_level.items()}
    assert counts.level_types(m, rules) == {key: cell[0] for key, cell in by_level.items()}


def test_a_thousand_neurons_are_counted() -> None:
    # Touchard: Bell(p^k + n) = k Bell(n) + Bell(n + 1) modulo p
    assert counts.manifold_count(997 + 2, RULES["generic"]) % 997 == (BELL[2] + BELL[3]) % 997
    found = sims((10, 1000, 3), "tanh")
    assert found.types == () and found.levels == () and len(str(found.count)) == 2176
    assert json.loads(found.to_json())["count"] == found.count
    wide = sims((2, 100, 1), "tanh")
    assert sum(level.count for level in wide.levels) == wide.count
    assert sum(level.types for level in wide.levels) == wide.count_types


# ---- brute force on the labelled manifolds


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_members_are_the_fixed_spaces_of_all_groups(kind: str, m: int) -> None:
    found = sims((1, m, 1), NAMES[kind])
    listed = [echelon(manifold.matrix()) for manifold in found.members()]
    assert len(listed) == len(set(listed)) == found.count
    assert set(listed) == symmetric_spaces(m, kind)


_LONG = [pytest.param(kind, 3, marks=pytest.mark.slow) for kind in ("odd", "even")]


@pytest.mark.parametrize(("kind", "m"), [("generic", 3), ("odd", 2), ("even", 2), *_LONG])
def test_every_subgroup_is_covered(kind: str, m: int) -> None:
    """Fixed spaces of really all subgroups, not of intersections."""
    groups = all_subgroups(list(signed_permutations(m, kind != "generic")))
    action = list(two_layer_actions(m, kind))
    eye = np.eye(3 * m + 1, dtype=int)
    fixed = {echelon(np.concatenate([action[key] - eye for key in group])) for group in groups}
    assert fixed == {echelon(manifold.matrix()) for manifold in sims((1, m, 1), NAMES[kind]).members()}
    assert len(groups) == {("generic", 3): 6, ("odd", 2): 10, ("even", 2): 10}.get((kind, m), 98)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_edges_are_the_covering_relations(kind: str, m: int) -> None:
    found = sims((1, m, 1), NAMES[kind])
    lattice = found.hasse()
    assert len(lattice.nodes) == found.count
    labelled = covers([node.projector().astype(float) for node in lattice.nodes])
    assert set(lattice.edges) == labelled
    place = {t.layers[0]: k for k, t in enumerate(found.types)}
    kinds = [place[node.layers[0].profile] for node in lattice.nodes]
    assert set(found.edges) == {(kinds[a], kinds[b]) for a, b in labelled}
    assert [kinds.count(k) for k in range(len(found.types))] == [t.count for t in found.types]


@pytest.mark.parametrize(("widths", "name"), [((1, 2, 3, 1), "gelu"), ((1, 2, 2, 1), "tanh"), ((1, 3, 2, 1), "cos")])
@pytest.mark.parametrize("bias", [True, False])
def test_edges_of_deep_networks_are_the_covering_relations(widths: tuple[int, ...], name: str, bias: bool) -> None:
    found = sims(widths, name, bias=bias)
    lattice = found.hasse()
    assert len({echelon(node.matrix()) for node in lattice.nodes}) == len(lattice.nodes) == found.count
    assert sum(t.count for t in found.types) == found.count and len(found.types) == found.count_types
    labelled = covers([node.projector().astype(float) for node in lattice.nodes])
    assert set(lattice.edges) == labelled
    place = {t.layers: k for k, t in enumerate(found.types)}
    kinds = [place[tuple(layer.profile for layer in node.layers)] for node in lattice.nodes]
    assert set(found.edges) == {(kinds[a], kinds[b]) for a, b in labelled}


def test_the_lattice_of_types_is_the_one_of_two_layer_networks() -> None:
    for kind, per_quiet in (("generic", 0), ("odd", 0), ("even", 2)):
        rules = RULES[kind]
        own = two_layer_lattice(5, 3 + 1 + 2, 2, signs=rules.signs, null=rules.null, per_quiet=per_quiet)
        lattice = sims((3, 5, 2), NAMES[kind]).lattice
        assert lattice is not None

        def named(found):
            return {(found.types[a].profile, found.types[b].profile) for a, b in found.edges}

        assert set(lattice.types) == set(own.types) and named(lattice) == named(own)


# ---- geometry of one manifold


def some_layers(rules: ClassRules, width: int) -> st.SearchStrategy[LayerClasses]:
    return st.sampled_from(list(members.layer_members(width, rules)))


@st.composite
def manifolds(draw: st.DrawFn) -> Manifold:
    rules = RULES[draw(st.sampled_from(sorted(RULES)))]
    hidden = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    layers = tuple(draw(some_layers(rules, n)) for n in hidden)
    widths = (draw(st.integers(1, 2)), *hidden, draw(st.integers(1, 2)))
    flags = [draw(st.booleans()) for _ in range(3)]
    return Manifold(widths, layers, rules, bias=flags[0], output_bias=flags[1], condensed=flags[2])


@settings(max_examples=40)
@given(manifolds(), st.integers(0, 2**32 - 1))
def test_equations_projector_and_dimension_agree(manifold: Manifold, seed: int) -> None:
    matrix, projector = manifold.matrix(), manifold.projector()
    size = manifold.ambient
    assert len(manifold.names) == len(set(manifold.names)) == size
    assert matrix.shape == (manifold.codimension, size) and set(np.unique(matrix)) <= {-1, 0, 1}
    assert (rationals.rank(rationals.exact_array(matrix)) if matrix.size else 0) == size - manifold.dimension
    assert (projector == projector.T).all() and (projector @ projector == projector).all()
    assert sum(projector[i, i] for i in range(size)) == manifold.dimension
    assert not (matrix.astype(object) @ projector).any()
    theta = np.random.default_rng(seed).integers(-4, 5, size).astype(float)
    near = manifold.project(theta)
    assert (rationals.fractions(near) == projector @ rationals.fractions(theta)).all()
    assert manifold.contains(near) and manifold.contains(theta) == (not (matrix @ theta).any())
    assert manifold.leaf_dimension <= manifold.dimension <= manifold.equitable.dimension
    assert manifold.equitable.contains(near)


def test_dimensions_of_the_theory() -> None:
    """D K for a type of K classes, and the box formula for deep partitions, also with null neurons."""
    for name, d in (("softplus", 2 + 1 + 3), ("tanh", 6), ("gelu", 6)):
        for t in sims((2, 4, 3), name).types:
            assert t.dimension == t.leaf_dimension == t.linear_dimension == d * len(t.layers[0].sizes) + 3
    for t in sims((2, 4, 3), "gaussian").types:
        (p,) = t.layers
        assert t.dimension == 6 * len(p.sizes) + 3 * len(p.quiet) + 3
        assert t.leaf_dimension == 6 * len(p.sizes) + 3
    for t in sims((2, 4, 3), "gaussian", output_bias=False).types:
        (p,) = t.layers
        assert t.leaf_dimension == 6 * len(p.sizes) + 3 * bool(p.quiet)
    for t in sims((2, 4, 3), "square", output_bias=False).types:
        assert t.leaf_dimension == 6 * len(t.layers[0].sizes)
    widths = (2, 3, 3, 2)
    for t in sims(widths, "tanh").types:
        k = (2, *(len(p.sizes) for p in t.layers), 2)
        box = sum(a * b + (n - a) * (m - b) for a, b, n, m in zip(k[1:], k, widths[1:], widths, strict=False)) + sum(
            k[1:]
        )
        assert t.linear_dimension == box
        moves = [a * (b + 1) for a, b in zip(k[1:], k, strict=False)]
        assert t.dimension == sum(moves)
        assert t.leaf_dimension == (moves[-1] if k[2] == 0 else sum(moves[1:]) if k[1] == 0 else t.dimension)
    single = next(
        t for t in sims((1, 3, 3, 1), "softplus", output_bias=False).types if t.layers == (Profile((3,)),) * 2
    )
    assert (single.leaf_dimension, single.linear_dimension, single.reduced_widths) == (5, 9, (1, 1, 1, 1))


def test_types_have_the_numbers_of_their_members() -> None:
    for widths, name in (((2, 3, 2), "gaussian"), ((1, 2, 2, 1), "tanh"), ((1, 2, 3, 1), "cos"), ((3, 2), "tanh")):
        for bias, output_bias in itertools.product((True, False), repeat=2):
            found = sims(widths, name, bias=bias, output_bias=output_bias)
            assert sum(t.count for t in found.types) == found.count == sum(1 for _ in found.members())
            for t in found.types:
                one = found.manifold(*t.layers)
                assert (one.dimension, one.leaf_dimension, one.equitable.dimension, one.reduced_widths) == (
                    t.dimension, t.leaf_dimension, t.linear_dimension, t.reduced_widths,
                )  # fmt: skip
                assert one.ambient == found.parameters


def test_equations_in_words_say_what_the_matrix_says() -> None:
    """Each line, read as numpy on the matrices of a point, holds on the manifold; together they cut it out."""
    rng = np.random.default_rng(3)
    for name in NAMES.values():
        found = sims((2, 3, 2), name)
        for manifold in found.members():
            rows = []
            for unit in np.eye(found.parameters):
                net = Network.random((2, 3, 2), seed=0).with_theta(unit)
                values = {"W1": net.layers[0].weight64, "b1": net.layers[0].bias64, "W2": net.layers[1].weight64}
                column = []
                for line in manifold.equations():
                    sides = [np.atleast_1d(eval(side, {}, values)) for side in line.split(" = ")]
                    for left, right in itertools.pairwise(sides):
                        column.append(np.zeros(len(left)) + left - right)
                rows.append(np.concatenate(column) if column else np.zeros(0))
            said = np.array(rows).T
            assert said.shape[0] == manifold.codimension
            point = np.asarray(manifold.project(rng.integers(-9, 9, found.parameters)), dtype=float)
            assert not manifold.codimension or np.abs(said @ point).max() < 1e-12
            assert not manifold.codimension or np.linalg.matrix_rank(said) == manifold.codimension


def test_points_with_and_without_missing_biases() -> None:
    found = sims((1, 2, 1), "tanh", bias=False, output_bias=False)
    pair = found.manifold(Profile((2,)))
    assert pair.names == ("W1[0,0]", "W1[1,0]", "W2[0,0]", "W2[0,1]") and found.parameters == 4
    assert pair.contains([1, 1, 3, 3]) and not pair.contains([1, 1, 3, -3])
    assert pair.contains([1, 1, 0, 0, 3, 3, 0]) and not pair.contains([1, 1, 5, 5, 3, 3, 0])
    assert pair.project([1, 2, 9, 9, 0, 1, 9]).tolist() == [1.5, 1.5, 0, 0, 0.5, 0.5, 0]
    net = pair.project(Network.random((1, 2, 1), seed=0, activation="tanh"))
    assert pair.contains(net) and net.layers[1].bias64.tolist() == [0.0]
    third = pair.project([Fraction(1, 3), Fraction(0), Fraction(0), Fraction(0)])
    assert third[0] == Fraction(1, 6)
    with pytest.raises(InputError, match=r"\(5,\)"):
        pair.contains([0.0] * 5)
    with pytest.raises(InputError, match=r"\(1, 3, 1\)"):
        pair.project(Network.random((1, 3, 1), seed=0))


# ---- gradients stay


def flat_gradient(net: Network, rng: np.random.Generator, points: int = 5) -> np.ndarray:
    """The gradient of a random loss on random data."""
    total = np.zeros(net.parameter_count)
    for _ in range(points):
        x, c = rng.standard_normal(net.widths[0]), rng.standard_normal(net.widths[-1])
        parts = gradient(net, x, c, lambda row, z: row.derivative(z))
        total += np.concatenate([np.concatenate([w.reshape(-1), b]) for w, b in parts])
    return total


def offset(manifold: Manifold, vector: np.ndarray) -> float:
    return float(np.abs(vector - np.asarray(manifold.project(vector), dtype=float)).max())


@pytest.mark.parametrize(
    "name", ["tanh", "softplus", "gelu", "gaussian", "cos", "relu", "abs", "square", "sin", "elu", "hard_tanh"]
)
def test_gradients_stay_in_every_member(name: str) -> None:
    rng = np.random.default_rng(5)
    for widths in ((2, 3, 2), (2, 2, 3, 1)):
        found = sims(widths, name)
        listed = list(found.members())
        for k in rng.permutation(len(listed))[:20]:
            for manifold in (listed[k], listed[k].equitable):
                net = manifold.project(Network.random(widths, activation=name, seed=int(k)))
                moved = flat_gradient(net, rng)
                assert offset(manifold, moved) < 1e-12
                # the frozen part of an equitable manifold does not move either: the gradient is condensed
                assert offset(listed[k], moved) < 1e-12


@pytest.mark.parametrize(
    ("name", "rules"), [("softplus", RULES["odd"]), ("gelu", RULES["odd"]), ("tanh", RULES["even"])]
)
def test_gradients_leave_what_is_no_invariant_manifold(name: str, rules: ClassRules) -> None:
    """Signs, null and quiet classes that the activation does not have are left at once."""
    signed = LayerClasses(((0, 1), (2,)), (1, -1, 1))
    for layer in (signed, LayerClasses.standard(Profile((2,), 0, (1,)) if rules.quiet else Profile((2,), 1))):
        if name == "gelu" and layer.null:
            continue  # that one it has
        manifold = Manifold((2, 3, 1), (layer,), rules)
        net = manifold.project(Network.random((2, 3, 1), activation=name, seed=1))
        assert offset(manifold, flat_gradient(net, np.random.default_rng(0))) > 1e-3


def test_row_sums_alone_are_left() -> None:
    """Half of the equations of an equitable manifold do not make one."""
    manifold = sims((1, 2, 2, 1), "softplus").manifold(Profile((2,)), Profile((2,))).equitable
    net = manifold.project(Network.random((1, 2, 2, 1), activation="softplus", seed=2))
    assert manifold.contains(net) and manifold.dimension == 7
    theta = np.asarray(net.theta, float)
    theta[manifold.names.index("W2[0,0]")] += 0.25
    theta[manifold.names.index("W2[1,0]")] += 0.25  # column sums of the block differ now, row sums do not
    assert not manifold.contains(theta)
    moved = flat_gradient(net.with_theta(theta), np.random.default_rng(1))
    assert offset(manifold, moved) > 1e-3


@pytest.mark.parametrize(
    ("widths", "name"), [((1, 2, 2, 1), "tanh"), ((2, 3, 3, 1), "softplus"), ((1, 2, 2, 1), "cos")]
)
def test_gradients_stay_in_every_fixed_space(widths: tuple[int, ...], name: str) -> None:
    rng = np.random.default_rng(2)
    for space in sims(widths, name).symmetric():
        values = rng.standard_normal(len(space.code))
        point = np.array([0.0 if c == 0 else math.copysign(1, c) * values[abs(c) - 1] for c in space.code])
        assert space.contains(point)
        moved = flat_gradient(Network.random(widths, activation=name).with_theta(point), rng)
        expected = np.array([0.0 if c == 0 else math.copysign(1, c) * moved[abs(c) - 1] for c in space.code])
        assert np.abs(moved - expected).max() < 1e-12


# ---- symmetries of deep networks


def deep_action(widths: tuple[int, ...], choice: list[np.ndarray], even: bool) -> np.ndarray:
    """Matrix of W_l -> g_l W_l g_(l-1)^T, b_l -> g_l b_l by applying it to unit vectors."""
    rho = [np.eye(widths[0]), *choice, np.eye(widths[-1])]
    net = Network.random(widths, seed=0)
    columns = []
    for unit in np.eye(net.parameter_count):
        layers = net.with_theta(unit).layers
        parts = []
        for layer, right, left in zip(layers, rho, rho[1:], strict=False):
            right = abs(right) if even else right
            parts += [(left @ layer.weight64 @ right.T).reshape(-1), left @ layer.bias64]
        columns.append(np.concatenate(parts))
    return np.array(columns).T


@pytest.mark.parametrize(
    ("widths", "name"),
    [((1, 2, 2, 1), "softplus"), ((1, 2, 2, 1), "tanh"), ((1, 3, 2, 1), "gelu"), ((1, 1, 2, 1), "gaussian")],
)
def test_fixed_spaces_of_deep_networks_by_linear_algebra(widths: tuple[int, ...], name: str) -> None:
    row = activation(name)
    found = subgroups.fixed_spaces(widths, row)
    signs = class_rules(row).signs
    choices = itertools.product(*(list(signed_permutations(n, signs)) for n in widths[1:-1]))
    actions = [deep_action(widths, list(c), row.parity == "even") for c in choices]
    assert len(actions) == subgroups.group_order(widths, row)
    size = len(actions[0])
    known = intersections([echelon(np.rint(a - np.eye(size)).astype(int)) for a in actions])
    assert sum(v.count for v in found) == len(known)
    for space in found:
        equations = np.eye(size, dtype=int)
        for c, value in enumerate(space.code):
            if value:
                equations[c, abs(value) - 1] -= 1 if value > 0 else -1
        assert echelon(equations) in known
        assert space.dimension == size - len(echelon(equations))
    orbits = {
        frozenset(echelon(dense_rows(space, size) @ a.astype(int)) for a in actions) for space in known
    }  # equations E of V become E g^-1, and g runs through the group
    assert len(orbits) == len(found)


def test_two_layers_have_no_other_fixed_spaces() -> None:
    for name in ("softplus", "tanh", "gaussian"):
        found = sims((2, 3, 1), name)
        spaces = found.symmetric()
        assert sum(v.count for v in spaces) == found.count and len(spaces) == found.count_types
        assert sorted((v.dimension, v.count) for v in spaces) == sorted((t.dimension, t.count) for t in found.types)


def test_a_group_on_two_layers_at_once() -> None:
    """1-2-2-1: exchanging both layers together fixes 6 dimensions, of which training sees 5."""
    found = sims((1, 2, 2, 1), "softplus", output_bias=False)
    spaces = found.symmetric()
    (coupled,) = [v for v in spaces if not v.condensed]
    assert (coupled.dimension, coupled.leaf_dimension, coupled.count) == (6, 5, 1)
    assert coupled.classes == (((0, 1),), ((0, 1),))
    both = found.manifold(Profile((2,)), Profile((2,)))
    assert (both.dimension, both.equitable.dimension) == (5, 6)
    # here the equitable manifold is the fixed space; on 3-3 neurons it is larger than every fixed space
    square = [[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]
    magic = Network.from_arrays(
        ([[1.0]] * 3, [0.5] * 3), (square, [0.25] * 3), ([[2.0] * 3], [0.0]), activation="softplus"
    )
    wide = sims((1, 3, 3, 1), "softplus")
    block = wide.manifold(Profile((3,)), Profile((3,)))
    assert block.equitable.contains(magic) and not block.contains(magic)
    holding = [v for v in wide.symmetric() if v.dimension <= block.equitable.dimension]
    for space in holding:
        for g in itertools.product(itertools.permutations(range(3)), repeat=2):
            layers = magic.layers
            moved = magic.with_layers([
                layers[0],
                type(layers[1])(layers[1].weight[np.ix_(g[1], g[0])], layers[1].bias, layers[1].activation),
                layers[2],
            ])  # fmt: skip
            assert not space.contains(moved)


# ---- beyond the list


def test_what_lies_beyond_is_said_for_every_activation() -> None:
    expected = {
        "tanh": set(), "sigmoid": set(), "softplus": set(), "erf": set(), "elu": set(),
        "gelu": {"critical class"}, "gelu_tanh": {"critical class"}, "silu": {"critical class"},
        "gaussian": {"leaves of quiet neurons"},
        "sin": {"critical class", "zero class", "shifts"},
        "cos": {"critical class", "zero class", "shifts", "leaves of quiet neurons"},
        "square": {"leaves of quiet neurons", "level sets of balancedness"},
        "relu": {"weighted classes", "level sets of balancedness", "inactive neurons"},
        "leaky_relu": {"weighted classes", "level sets of balancedness"},
        "abs": {"weighted classes", "level sets of balancedness"},
        "identity": {"linear model"}, "clip": {"inactive neurons"}, "hard_tanh": {"inactive neurons"},
    }  # fmt: skip
    assert set(expected) == set(names()) - {"polynomial"}
    for name, families in expected.items():
        found = sims((2, 3, 1), name)
        assert {f.name for f in found.families} == families
        assert found.complete == (name in ("tanh", "sigmoid", "softplus", "erf"))
        assert ("two-layer-sims" in found.theorems) == found.complete
        assert all(f.name in str(found) for f in found.families)
        assert not sims((2, 3, 3, 1), name).complete and not sims((3, 2), name).complete
    # without biases there is no other place for a critical class or a zero
    assert {f.name for f in sims((2, 3, 1), "gelu", bias=False).families} == set()
    assert {f.name for f in sims((2, 3, 1), "cos", bias=False).families} == {"leaves of quiet neurons"}
    cubic = sims((2, 3, 1), activation("polynomial", 0, -3, 0, 1))
    assert {f.name: f.points for f in cubic.families} == {
        "critical class": (-1.0, 1.0), "zero class": pytest.approx((-math.sqrt(3), math.sqrt(3))),
    }  # fmt: skip
    assert sims((2, 3, 1), activation("polynomial", 1, 2)).kind == "affine"
    assert sims((2, 2, 1), activation("polynomial", 0, 0, 0, 1)).families[0].points == (0.0,)


def step(name: object, theta: np.ndarray, seed: int = 0) -> np.ndarray:
    """The gradient at a 1-2-1 network, theta = (w1, w2, b1, b2, a1, a2, c)."""
    return flat_gradient(Network.random((1, 2, 1), activation=name).with_theta(theta), np.random.default_rng(seed))


def test_critical_and_zero_classes_and_leaves_are_invariant() -> None:
    (critical,) = sims((1, 2, 1), "gelu").families
    b = critical.points[0]
    g = step("gelu", np.array([0.0, 0.0, b, b, 0.7, -1.5, 0.2]))
    value = float(activation("gelu")(np.array([b]))[0])
    assert np.abs(g[:4]).max() < 1e-12 and g[4] == pytest.approx(g[5]) == pytest.approx(value * g[6])
    off = step("gelu", np.array([0.0, 0.0, b + 0.1, b, 0.7, -1.5, 0.2]))
    assert abs(off[0]) > 1e-3
    cubic = activation("polynomial", 0, -3, 0, 1)
    g = step(cubic, np.array([0.0, 0.5, math.sqrt(3), 0.3, 0.0, 1.0, 0.2]))
    assert max(abs(g[0]), abs(g[2]), abs(g[4])) < 1e-12 < abs(g[5])
    g = step("gaussian", np.array([0.0, 0.0, 0.0, 0.0, 0.7, -1.5, 0.2]))
    assert np.abs(g[:4]).max() == 0 and g[4] == pytest.approx(g[6]) and g[5] == pytest.approx(g[6]) and abs(g[6]) > 1e-3
    g = step("square", np.array([0.0, 0.4, 0.0, 0.1, 0.7, -1.5, 0.2]))
    assert g[0] == g[2] == g[4] == 0


def test_shifts_and_weighted_classes_are_invariant() -> None:
    for shift, sign in ((2 * math.pi, 1.0), (math.pi, -1.0)):
        g = step("cos", np.array([0.6, 0.6, 0.3, 0.3 + shift, 0.9, sign * 0.9, 0.0]))
        assert g[1] == pytest.approx(g[0]) and g[3] == pytest.approx(g[2]) and g[5] == pytest.approx(sign * g[4])
        g = step("cos", np.array([0.6, 0.6, 0.3, 0.3 + shift / 2, 0.9, 0.9, 0.0]))
        assert abs(g[1] - g[0]) > 1e-3
    g = step("relu", np.array([0.6, 1.8, 0.3, 0.9, 0.5, 1.5, 0.0]))
    assert g[[1, 3, 5]] == pytest.approx(3 * g[[0, 2, 4]]) and np.abs(g[:6]).min() > 1e-3


# ---- the result


def test_the_data_is_json_and_has_the_lattice() -> None:
    found = sims((2, 3, 1), "gaussian")
    data = json.loads(found.to_json())
    lattice = data["lattice"]
    assert [row["count"] for row in lattice["types"]] == [t.count for t in found.types]
    assert [tuple(e) for e in lattice["edges"]] == list(found.edges)
    quiet = next(row for row in lattice["types"] if row["layer_type"] == "2 quiet 1")
    assert quiet["equations"] == [
        "W1[0] = W1[1]", "b1[0] = b1[1]", "W2[:,0] = W2[:,1]", "W1[2] = 0", "b1[2] = 0",
    ]  # fmt: skip
    assert data["rigor"] == "EXACT" and data["families"][0]["equations"]
    deep = json.loads(sims((1, 2, 2, 1), "tanh").to_json())
    assert len(deep["lattice"]["types"]) == 16 and "Result" not in str(deep)
    for text in (str(found), str(sims((2, 30, 1), "tanh")), str(sims((4, 2), "relu"))):
        assert len(text.splitlines()) < 40


def test_large_enumerations_are_refused_with_the_number() -> None:
    with pytest.raises(InputError, match="4,213,597"):
        sims((2, 12, 1), "softplus").members()
    with pytest.raises(InputError, match="4,213,597"):
        sims((2, 12, 1), "softplus").hasse()
    with pytest.raises(InputError, match="46,080"):
        sims((2, 6, 1), "tanh").symmetric()
    with pytest.raises(InputError, match="more than 40 fixed spaces"):
        subgroups.fixed_spaces((1, 3, 3, 1), activation("softplus"), limit=40)
    for widths in ((3,), (2, 0, 1), (2, 2.5, 1), (2, 1501, 1)):
        with pytest.raises(InputError):
            sims(widths)  # type: ignore[arg-type]


def test_classes_that_are_none_are_refused() -> None:
    found = sims((1, 3, 1), "softplus")
    for layer in (
        LayerClasses(((0, 1),), (1, 1, 1)),
        LayerClasses(((0, 1), (2,)), (1, -1, 1)),
        LayerClasses(((0, 1),), (1, 1, 1), null=(2,)),
        LayerClasses(((0, 1),), (1, 1, 1), quiet=((2,),)),
        LayerClasses(((1, 0), (2,)), (1, 1, 1)),
    ):
        with pytest.raises(InputError):
            found.manifold(layer)
    with pytest.raises(InputError, match="2 layers"):
        found.manifold(Profile((3,)), Profile((3,)))
    with pytest.raises(InputError):
        counts.manifold_count(-1, ClassRules())


# ---- the card


def card_of(found: architectures.Sims | dict) -> str:
    made = found if isinstance(found, dict) else json.loads(found.to_json())
    card = simparts.manifolds_card(View(1, made, "sims", "x"))
    assert card is not None
    return str(card.markup)


def test_the_card_draws_every_kind_with_its_equations() -> None:
    for widths, name in (((2, 4, 1), "tanh"), ((2, 3, 2), "gaussian"), ((1, 2, 3, 1), "softplus")):
        found = sims(widths, name)
        text = card_of(found)
        said = re.findall(r'<g class="kind"[^>]*data-id="(\d+)" data-details="([^"]*)"', text)
        assert sorted(int(i) for i, _ in said) == list(range(len(found.types)))
        assert text.count('class="link') == len(found.edges)
        for i, words in said:
            t = found.types[int(i)]
            assert f"Dimension {t.dimension} of {found.parameters}" in words
            assert (
                t.dimension == found.parameters or "trains like " + "\u2013".join(map(str, t.reduced_widths)) in words
            )
            for line in found.manifold(*t.layers).equations():
                assert line in words
            inside = [found.types[a].name for a, b in found.edges if b == int(i)]
            assert not inside or f"Directly inside: {', '.join(inside[:6])}" in words
        circles = len(re.findall("<circle", text))
        assert circles == len(found.types) * sum(widths[1:-1])


def test_wide_layers_are_shown_by_dimension() -> None:
    found = sims((2, 30, 1), "tanh")
    text = card_of(found)
    assert "<circle" not in text and text.count('scope="row"') == len(found.levels) == 31
    assert "3.15\u00d710\u00b3\u2070" in text and "28,629 kinds" in text
    huge = card_of(sims((2, 1000, 1), "softplus"))
    assert "2.99\u00d710\u00b9\u2079\u00b2\u2077" in huge and "<svg" not in huge
    many = card_of(sims((2, 200, 1), "softplus"))
    assert many.count('scope="row"') == 41 and "one dimension in 5" in many


def test_the_card_trusts_no_words_and_shows_nothing_for_other_results() -> None:
    made = json.loads(sims((2, 3, 1), "gelu").to_json())
    made["families"][0].update(name="<b>", equations=["<b>"], meaning="<b>")
    made["lattice"]["types"][0].update(layer_type='"><b>', equations=["<b>"])
    made.update(statement="<b>", activation="<b>", kind="<b>")
    assert "<b>" not in card_of(made)
    assert simparts.manifolds_card(View(1, {"answer": "YES"}, "equal", "x")) is None


def test_patterns_that_are_one_set_are_counted_as_patterns() -> None:
    # a layer between two layers of null neurons has no parameters without biases
    found = sims((1, 1, 1, 1, 1), "tanh", bias=False)
    sets = {rationals.canonical_bytes(member.projector()) for member in found.members()}
    assert (found.count, len(sets)) == (8, 7)
    assert "counted are patterns" in found.statement
    assert "counted are patterns" not in sims((1, 1, 1, 1, 1), "tanh").statement
