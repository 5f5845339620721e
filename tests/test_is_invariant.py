"""Whether a set is a structural invariant manifold: proofs, counterexamples, refused certificates."""

from __future__ import annotations

import copy
from fractions import Fraction

import numpy as np
import pytest

from fiberscope.activations import activation
from fiberscope.autodiff.families import GradientFamily
from fiberscope.autodiff.floats import NumpyFamily
from fiberscope.errors import CertificateError, InputError, ScopeError, UnsupportedError
from fiberscope.invariants.submanifolds.confinement import check_invariance
from fiberscope.invariants.submanifolds.equations import from_equations
from fiberscope.invariants.submanifolds.invariance import is_invariant
from fiberscope.invariants.submanifolds.sets import LevelSet, LinearSet, Parametrised, null_basis
from fiberscope.models.chains import blocks_of, chain_family
from fiberscope.network import Network
from fiberscope.results import Answer

PAIR = "W1[0] = W1[1]; b1[0] = b1[1]; W2[:,0] = W2[:,1]"
OPPOSITE = "W1[0] = -W1[1]; b1[0] = -b1[1]; W2[:,0] = -W2[:,1]"
TWICE = "W1[1] = 2 * W1[0]; b1[1] = 2 * b1[0]; W2[:,1] = 2 * W2[:,0]"
NULL = "W1[0] = 0; b1[0] = 0; W2[:,0] = 0"

KNOWN = [
    (PAIR, (2, 3, 1), "softplus", "YES"),
    (PAIR, (2, 3, 2), "gelu", "YES"),
    (OPPOSITE, (2, 3, 1), "tanh", "YES"),
    (OPPOSITE, (2, 3, 1), "softplus", "NO"),
    (OPPOSITE, (2, 3, 1), "sigmoid", "NO"),
    ("W1[0] = -W1[1]; b1[0] = -b1[1]; W2[:,0] = W2[:,1]", (2, 3, 1), "gaussian", "YES"),
    ("W1[0] = -W1[1]; b1[0] = -b1[1]; W2[:,0] = W2[:,1]", (2, 3, 1), "tanh", "NO"),
    ("W1[0] = W1[1]; b1[0] = b1[1]", (2, 2, 1), "tanh", "NO"),  # the outgoing weights differ
    ("W1[0] = W1[1]; b1[0] = b1[1]; W2[:,0] = -W2[:,1]", (2, 2, 1), "tanh", "NO"),
    ("W2 = 0", (2, 2, 1), "tanh", "NO"),
    ("W1 = 0", (2, 2, 1), "softplus", "NO"),
    (TWICE, (2, 2, 1), "tanh", "NO"),
    (TWICE, (2, 2, 1), "relu", "YES"),
    (TWICE, (2, 2, 1), "leaky_relu", "YES"),
    ("W1[1] = -W1[0]; b1[1] = -b1[0]; W2[:,1] = -W2[:,0]", (2, 2, 1), "relu", "NO"),
    (NULL, (2, 2, 1), "gelu", "YES"),
    (NULL, (2, 2, 1), "tanh", "YES"),
    (NULL, (2, 2, 1), "softplus", "NO"),
    ("W1 = 0; b1 = 0; W2 = 0", (2, 2, 1), "tanh", "YES"),
    ("W1 = 0; b1 = 0; W2 = 0; b2 = 0", (2, 2, 1), "tanh", "NO"),  # the output bias moves
    # two neurons of value s(0) = 1 move by one common direction; one does not stand still
    ("W1 = 0; b1 = 0; W2[0,0] - W2[0,1] = 3/4", (2, 2, 1), "gaussian", "YES"),
    ("W1[0] = 0; b1[0] = 0; W2[0,0] - b2[0] = 1", (2, 2, 1), "gaussian", "YES"),
    ("W1[0] = 0; b1[0] = 0; W2[0,0] = 1", (2, 2, 1), "gaussian", "NO"),
    ("W1[0] = 0; b1[0] = 0", (2, 2, 1), "cos", "YES"),
    ("W1[0] = 0; b1[0] = 0", (2, 2, 1), "tanh", "NO"),
    ("W1[0] = 0; b1[0] = -1; W2[0,0] = 5", (2, 2, 1), "relu", "YES"),  # a dead neuron
    ("W1[0] = 0; b1[0] = 1; W2[0,0] = 5", (2, 2, 1), "relu", "NO"),
]


@pytest.mark.parametrize(("text", "widths", "name", "answer"), KNOWN)
def test_known_sets(text, widths, name, answer):
    verdict = is_invariant(text, (widths, name))
    assert verdict.answer.name == answer, verdict.reason
    if verdict:
        check_invariance(verdict.certificate, from_equations(text, blocks_of(widths)), widths, name)
    else:
        check_counterexample(verdict.counterexample, widths, name)


def check_counterexample(shown, widths, name):
    """The output's central differences along the parameters change the equation at the rate that was proved."""
    theta = np.array([float(Fraction(v)) for v in shown["theta"]])
    cotangent, x = (np.vectorize(lambda v: float(Fraction(v)))(np.array(a)) for a in shown["data"])
    net = Network.random(widths, activation=name, seed=0)

    def output(point):
        return float((net.with_theta(point)(x[0]) * cotangent[0]).sum())

    h = 1e-6
    field = np.array([(output(theta + h * e) - output(theta - h * e)) / (2 * h) for e in np.eye(theta.size)])
    target = from_equations(shown["equation"], blocks_of(widths))  # the text can be read back
    row = target.equations[0].astype(float)
    low, high = (float(v) for v in shown["rate"])
    assert low <= high and low * high > 0
    assert low - 1e-6 <= row @ field <= high + 1e-6


def projector_set(widths, columns):
    """V_P = {W P = P W, b in range P} as equations, from the class vectors of the hidden layers."""

    def projector(e):
        e = np.array([[Fraction(v) for v in row] for row in e], dtype=object)
        out = np.full((len(e), len(e)), Fraction(0), dtype=object)
        for column in e.T:
            out = out + np.outer(column, column) / sum(v * v for v in column)
        return out

    def eye(n):
        return projector(np.eye(n, dtype=int))

    p = [eye(widths[0]), *(projector(e) for e in columns), eye(widths[-1])]
    size = sum(n * (m + 1) for m, n in zip(widths, widths[1:], strict=False))
    rows, at = [], 0
    for k, (m, n) in enumerate(zip(widths, widths[1:], strict=False)):
        for i in range(n):
            for j in range(m):
                row = np.full(size, Fraction(0), dtype=object)
                for a in range(m):
                    row[at + i * m + a] += p[k][a, j]
                for a in range(n):
                    row[at + a * m + j] -= p[k + 1][i, a]
                rows.append(row)
        at += n * m
        for i in range(n):
            row = np.full(size, Fraction(0), dtype=object)
            row[at : at + n] = p[k + 1][i]
            row[at + i] -= 1
            rows.append(row)
        at += n
    return LinearSet(np.array(rows, dtype=object))


def leaf_through(whole, widths, theta, columns):
    """The leaf theta + {W = P W P, b in range P}: all linear functions of theta that the fields cannot change."""
    basis = []
    sides = [np.eye(widths[0], dtype=int), *columns, np.eye(widths[-1], dtype=int)]
    at = 0
    for k, (m, n) in enumerate(zip(widths, widths[1:], strict=False)):
        for column in np.array(sides[k + 1]).T:
            for other in np.array(sides[k]).T:
                v = np.zeros(whole.size, dtype=int)
                v[at : at + n * m] = np.outer(column, other).reshape(-1)
                basis.append(v)
            v = np.zeros(whole.size, dtype=int)
            v[at + n * m : at + n * m + n] = column
            basis.append(v)
        at += n * (m + 1)
    equations = null_basis(np.array(basis, dtype=float)).T
    return LinearSet(equations, [sum(a * b for a, b in zip(row, theta, strict=True)) for row in equations])


MAGIC = [[1, 5, 9], [6, 7, 2], [8, 3, 4]]
ONES = [[1], [1], [1]]


def test_the_magic_square_and_its_leaf_are_invariant_for_softplus():
    widths = (1, 3, 3, 1)
    whole = projector_set(widths, [ONES, ONES])
    assert whole.dimension == 1 + 1 + (1 + 4) + 1 + 1 + 1
    verdict = is_invariant(whole, (widths, "softplus"))
    assert verdict and verdict.certificate["classes"][1]["labels"] == [0, 0, 0]
    theta = [Fraction(v) for v in [1, 1, 1, 0, 0, 0, *sum(MAGIC, []), 0, 0, 0, 1, 1, 1, 0]]
    assert whole.contains(theta)
    leaf = leaf_through(whole, widths, theta, [ONES, ONES])
    assert leaf.dimension == 6 and leaf.contains(theta)
    assert is_invariant(leaf, (widths, "softplus"), theta=theta)
    # a set between the leaf and V_P
    cut = next(k for k, row in enumerate(leaf.equations) if (whole.directions.T @ row).any())
    middle = LinearSet(leaf.equations[cut : cut + 1], leaf.offset[cut : cut + 1]).intersection(whole)
    assert leaf.dimension < middle.dimension < whole.dimension
    assert is_invariant(middle, (widths, "softplus"))
    # a point of the plain symmetric space off the leaf is not kept by fewer directions
    smaller = leaf.intersection(from_equations("b3 = 0", blocks_of(widths)))
    assert is_invariant(smaller, (widths, "softplus")).answer is Answer.NO


def test_row_sums_alone_are_not_invariant():
    rows = "sum(W2[0]) = sum(W2[1]); sum(W2[1]) = sum(W2[2]); b2[0] = b2[1]; b2[1] = b2[2]; " \
        "W1[0] = W1[1]; W1[1] = W1[2]; b1[0] = b1[1]; b1[1] = b1[2]; W3[0,0] = W3[0,1]; W3[0,1] = W3[0,2]"  # fmt: skip
    assert is_invariant(rows, ((1, 3, 3, 1), "softplus")).answer is Answer.NO
    columns = "; ".join(f"sum(W2[:,{a}]) = sum(W2[:,{b}])" for a, b in ((0, 1), (1, 2)))
    assert is_invariant(rows + "; " + columns, ((1, 3, 3, 1), "softplus"))


def test_signed_deep_class_of_tanh_with_null_neuron():
    widths = (2, 3, 3, 1)
    signed = [[[1, 0], [-1, 0], [0, 1]], [[1], [-1], [0]]]
    whole = LinearSet(projector_set(widths, signed).equations)
    assert is_invariant(whole, (widths, "tanh"))
    assert is_invariant(whole, (widths, "softplus")).answer is Answer.NO


def test_a_symmetry_that_acts_on_two_layers_is_found_by_the_expansion():
    # both hidden layers are exchanged together: a block circulant W2, of which the classes alone give the leaf
    fixed = "W1[0] = W1[1]; b1[0] = b1[1]; W2[0,0] = W2[1,1]; W2[0,1] = W2[1,0]; b2[0] = b2[1]; W3[0,0] = W3[0,1]"
    for name in ("tanh", "softplus"):
        verdict = is_invariant(fixed, ((1, 2, 2, 1), name))
        assert verdict, verdict.reason
    broken = fixed.replace("W2[0,1] = W2[1,0]", "W2[0,1] = 2 * W2[1,0]")
    assert is_invariant(broken, ((1, 2, 2, 1), "tanh")).answer is Answer.NO


def test_range_of_a_projector_and_intersections():
    blocks = blocks_of((2, 3, 1))
    a = from_equations(PAIR, blocks)
    b = from_equations(PAIR.replace("0", "2"), blocks)
    both = a.intersection(b)
    d = both.directions
    gram = np.array([[sum(x * y for x, y in zip(u, v, strict=True)) for v in d.T] for u in d.T], dtype=object)
    inverse = inverse_of(gram)
    again = LinearSet.fixed_by(np.array((d @ inverse) @ d.T, dtype=object))
    assert again.dimension == both.dimension == 5
    for s in (a, b, both, again):
        assert is_invariant(s, ((2, 3, 1), "softplus"))


def inverse_of(matrix):
    n = len(matrix)
    both = np.concatenate([matrix, np.array([[Fraction(int(i == j)) for j in range(n)] for i in range(n)])], axis=1)
    from fiberscope import rationals

    return rationals.fractions(rationals.row_reduce(both)[1])[:, n:]


def test_frozen_parameters():
    equal = "W1[0] = W1[1]; W2[:,0] = W2[:,1]"
    model = ((2, 2, 1), "tanh")
    assert is_invariant("b1 = 0; b2 = 0; W1[0] = W1[1]; W2[0,0] = W2[0,1]", model).answer is Answer.NO
    biases = [4, 5, 8]
    verdict = is_invariant("b1 = 0; b2 = 0; " + equal, model, frozen=biases)
    assert verdict
    target = from_equations("b1 = 0; b2 = 0; " + equal, blocks_of((2, 2, 1)))
    check_invariance(verdict.certificate, target, (2, 2, 1), "tanh", biases)
    with pytest.raises(CertificateError, match="other parameters"):
        check_invariance(verdict.certificate, target, (2, 2, 1), "tanh")
    assert is_invariant("W1[0] = W1[1]", model, frozen=range(6)).answer is Answer.YES


def corruptions(certificate):
    """Certificates with one thing changed each."""
    for key in ("kind", "widths", "classes", "constants", "activations", "frozen"):
        broken = copy.deepcopy(certificate)
        del broken[key]
        yield broken
    for labels in ([0, 1, 2], [0, 0, 0], [0, 1, 1], [0, 0], [0, 0, 5], [-1, 0, 1]):
        broken = copy.deepcopy(certificate)
        broken["classes"][0]["labels"] = labels
        yield broken
    for factors in (["1", "-1", "1"], ["1", "2", "1"], ["1", "0", "1"], ["1", "x", "1"], ["1", "1/0", "1"]):
        broken = copy.deepcopy(certificate)
        broken["classes"][0]["factors"] = factors
        yield broken
    for constants in ([[0, 0, "0"]], [[0, 9, "0"]], [[7, 0, "0"]], ["abc"]):
        broken = copy.deepcopy(certificate)
        broken["constants"] = constants
        yield broken
    for key, value in (("widths", [2, 3, 2]), ("activations", ["tanh"]), ("frozen", [0]), ("kind", "identity")):
        yield copy.deepcopy(certificate) | {key: value}


def test_corrupted_certificates_are_refused():
    target = from_equations(PAIR, blocks_of((2, 3, 1)))
    good = is_invariant(target, ((2, 3, 1), "softplus")).certificate
    check_invariance(good, target, (2, 3, 1), "softplus")
    count = 0
    for broken in corruptions(good):
        with pytest.raises(CertificateError):
            check_invariance(broken, target, (2, 3, 1), "softplus")
        count += 1
    assert count == 25
    for other in ("W1[0] = W1[1]", PAIR + "; b2 = 0", "W1[0] = W1[2]"):  # the certificate of another set
        with pytest.raises(CertificateError):
            check_invariance(good, from_equations(other, blocks_of((2, 3, 1))), (2, 3, 1), "softplus")
    with pytest.raises(CertificateError):
        check_invariance(good, target, (2, 3, 1), "tanh")


def test_level_sets():
    relu = ((2, 2, 1), "relu")
    balance = "sum(W1[0]^2) + b1[0]^2 = W2[0,0]^2"
    assert is_invariant(balance, relu)
    assert is_invariant(balance.replace("= ", "= 3 + "), relu)  # every level
    assert is_invariant(balance, ((2, 2, 1), "leaky_relu"))
    assert is_invariant("sum(W1[0]^2) + b1[0]^2 = 2 * sum(W2[:,0]^2)", ((2, 2, 2), "square"))
    assert is_invariant("sum(W1[0]^2) + b1[0]^2 = sum(W2[:,0]^2)", ((2, 2, 2), "square")).answer is not Answer.YES
    # the balance matrix of a linear network, one level of it
    bilinear = chain_family((2, 2, 2), [activation("identity")])
    assert is_invariant("sum(W1[0] * W1[1]) + b1[0] * b1[1] = sum(W2[:,0] * W2[:,1])", bilinear)
    assert is_invariant("W1[0,0] * W1[1,0] = W2[0,0] * W2[0,1] + b2[0]", ((1, 2, 1), "identity")).answer is Answer.NO
    tanh = is_invariant("sum(W1[0]^2) + b1[0]^2 = W2[0,0]^2 + W2[0,1]", ((2, 2, 1), "tanh"))
    assert tanh.answer is Answer.NO and "W1[0,0]^2" in tanh.counterexample["equation"]


def test_level_sets_without_rational_points_at_hand():
    model = ((1, 1, 1), "tanh")
    for text in ("sum(W1[0]^2) + W2[0,0]^2 = 3", "W1[0,0]^3 = W2[0,0]^2 + 2"):
        verdict = is_invariant(text, model)
        assert verdict.answer is Answer.NO and verdict.counterexample["rigor"] == "INTERVAL"
        place = verdict.counterexample["between"]
        low, high = Fraction(place["low"]), Fraction(place["high"])
        target = from_equations(text, blocks_of((1, 1, 1)))
        theta = [Fraction(v) for v in verdict.counterexample["theta"]]
        ends = [[v if k != place["parameter"] else end for k, v in enumerate(theta)] for end in (low, high)]
        a, b = (target.polynomials[0].at(lambda k, p=p: p[k]) for p in ends)
        assert a * b <= 0 and 0 < high - low < Fraction(1, 10**20)
    # a sum of squares is never found, and balancedness has no linear variable either but is conserved
    empty = is_invariant("W1[0,0]^2 + W2[0,0]^2 = -1", model)
    assert empty.answer is Answer.UNDECIDED and "no rational point" in empty.reason


def test_a_single_level_may_be_invariant_where_others_are_not():
    # F = a b x: a' = b x, b' = a x, so (a - b)(a + b) = 0 is kept factor by factor, and so is a b (a^2 - b^2) = 0 not
    def forward(tape, blocks, data):
        return blocks[0] * blocks[1] * tape.constant(data[0])

    family = GradientFamily(
        "ab", (("a", (1,)), ("b", (1,))), forward, lambda r, g, n: (r.random(g, (n, 1, 1)),), (1, 1)
    )
    assert is_invariant(LevelSet.of(lambda t: t[0] ** 2 - t[1] ** 2, 2), family)
    assert is_invariant(LinearSet([[1, -1]]), family)  # the rate of a - b is -x (a - b)
    assert is_invariant(LinearSet([[1, -1]], [1]), family).answer is Answer.NO
    cubic = LevelSet.of(lambda t: (t[0] - t[1]) * (t[0] ** 2 - t[1] ** 2 - 3), 2)
    verdict = is_invariant(cubic, family)
    assert verdict, verdict.reason
    assert "combination" in verdict.reason
    assert is_invariant(LevelSet.of(lambda t: t[0] * t[1] - 1, 2), family).answer is Answer.NO
    # the hyperbola a^2 - b^2 = 1 is no polynomial image, but the line a = b is
    assert is_invariant(Parametrised.of(lambda s: [s[0], s[0]], 1), family)
    curve = Parametrised.of(lambda s: [s[0], s[0] ** 2], 1)
    assert is_invariant(curve, family).answer is Answer.NO
    bent = Parametrised.of(lambda s: [s[0] ** 3 + s[0], s[0] ** 3 + s[0]], 1)
    found = is_invariant(bent, family)
    assert found and "immersion" in found.assumes[-1].statement


def test_images_of_polynomial_maps():
    # rank-one matrices theta = u v^T under fields that act from the left and the right
    widths = (2, 1, 2)

    def product(s):
        return [s[0], s[1], s[2], s[3], s[4], s[5], s[6]]

    assert is_invariant(Parametrised.of(product, 7), (widths, "identity"))
    assert (
        is_invariant(Parametrised.of(lambda s: [s[0], s[0], s[1] ** 2, s[1]], 2), ((1, 1, 1), "tanh")).answer
        is Answer.NO
    )
    with pytest.raises(InputError, match="immersion"):
        is_invariant(
            Parametrised.of(lambda s: [s[0] * s[0] + s[1], s[0] ** 2 + s[1], s[0] * 0, s[0] * 0], 2),
            ((1, 1, 1), "tanh"),
        )


def test_samples_are_no_proof():
    # a family whose inputs are three samples: an identity at one sample must not be taken for all
    samples = np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]])

    def draw(ring, rng, count):
        return (ring.array(samples[rng.integers(0, 3, count)][:, None, :]),)

    family = chain_family((2, 1, 1), [activation("tanh")], inputs=draw)
    verdict = is_invariant("W1[0,0] = 3/4", family)
    assert verdict.answer is Answer.NO
    tame = chain_family(
        (2, 1, 1), [activation("tanh")], inputs=lambda r, g, n: (r.array(samples[:2][g.integers(0, 2, n)][:, None]),)
    )
    verdict = is_invariant("W1[0,0] = 3/4", tame)
    assert verdict.answer is Answer.UNDECIDED and "samples" in verdict.reason


def test_floats_only():
    family = NumpyFamily(chain_family((2, 2, 1), [activation("tanh")]), np.zeros(9))

    class Hidden:
        size, start, dtype = 9, np.zeros(9), "float64"
        draw, fields, tangent, brackets = family.draw, family.fields, family.tangent, family.brackets

    hidden = Hidden()
    yes = is_invariant(from_equations(PAIR, blocks_of((2, 2, 1))), hidden)
    assert yes.answer is Answer.UNDECIDED and "no field leaves it" in yes.reason
    no = is_invariant(from_equations(TWICE, blocks_of((2, 2, 1))), hidden)
    assert no.answer is Answer.NO and no.counterexample["rigor"] == "NUMERICAL" and no.counterexample["margin"] > 1e6
    a, b = no.counterexample["left_by"]
    assert 1.5 < a / b < 2.5


def test_networks_and_refusals():
    net = Network.random((2, 3, 1), activation="tanh", seed=0)
    assert is_invariant(PAIR, net)
    assert is_invariant(np.zeros((0, 13)), net)  # the whole space
    with pytest.raises(InputError, match="13"):
        is_invariant(np.zeros((1, 12)), net)
    with pytest.raises(InputError, match="not on the set"):
        is_invariant(PAIR, net, theta=net.theta)
    with pytest.raises(UnsupportedError, match="ends in"):
        is_invariant("b1 = 0", Network.from_arrays(([[1.0]], [0.0]), activation=["tanh"]))
    with pytest.raises(InputError, match="no model"):
        is_invariant("b1 = 0", 3)
    with pytest.raises(InputError, match="frozen"):
        is_invariant("b1 = 0", net, frozen=[13])
    for bad, words in (
        ("W9 = 0", "unknown parameter"), ("W1", "left = right"), ("W1[0] = b1", "do not fit"), ("", "no equation"),
        ("W1[7] = 0", "cannot read"), ("exp(b1) = 0", "cannot read"), ("b1 = 1; b1 = 2", "empty"),
        ("b1 / b1 = 1", "read"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            is_invariant(bad, net)
    with pytest.raises(InputError, match="projector"):
        LinearSet.fixed_by([[2]])
    with pytest.raises(InputError, match="polynomials"):
        LevelSet.of(lambda t: "x", 2)


def test_expired_budget_decides_nothing_it_has_not_shown():
    verdict = is_invariant(PAIR, ((2, 3, 1), "tanh"), budget=0.0)
    assert verdict.answer is Answer.UNDECIDED


@pytest.mark.parametrize("seed", range(6))
def test_random_linear_sets_agree_with_gradients(seed):
    """A random subset of the equations of a known manifold: the verdict equals tangency at many random points."""
    rng = np.random.default_rng(seed)
    widths, name = (2, 3, 1), ["tanh", "softplus", "gaussian"][seed % 3]
    lines = [line.strip() for line in (PAIR + "; " + NULL.replace("0]", "2]")).split(";")]
    chosen = [line for line in lines if rng.random() < 0.7] or lines[:1]
    target = from_equations("; ".join(chosen), blocks_of(widths))
    verdict = is_invariant(target, (widths, name))
    family = NumpyFamily(chain_family(widths, [activation(name)]), np.zeros(13))
    worst = 0.0
    for _ in range(20):
        theta = target.draw(rng).astype(float)
        x = family.fields(theta, family.draw(rng, 10))
        worst = max(worst, float(np.abs(x @ target.equations.astype(float).T).max()))
    assert verdict.answer is (Answer.YES if worst < 1e-12 else Answer.NO)


def test_points_and_directions():
    target = from_equations("W1[0] = 2 * W1[1] + 1; b2 = W2[0,0] - 0.1", blocks_of((2, 2, 1)))
    rng = np.random.default_rng(0)
    for _ in range(5):
        theta = target.draw(rng)
        assert target.contains(theta) and theta[8] == theta[6] - Fraction(1, 10)
    assert target.dimension == 6 and target.directions.shape == (9, 6)
    level = LevelSet.of(lambda t: [t[0] * t[1] - 2, t[2] ** 2 + t[3] - t[0]], 4)
    point = level.draw(rng)
    assert point is not None and level.contains(point) and point[0] * point[1] == 2
    with pytest.raises(ScopeError):
        is_invariant(LevelSet.of(lambda t: t[0] / t[1], 13), ((2, 3, 1), "tanh"))


DEEP_EQUAL = "W1[0] = W1[1]; b1[0] = b1[1]; b2[0] = b2[1]; W3[0,0] = W3[0,1]"
FORGED = [
    (NULL, (2, 2, 1), "softplus", [[-1, 0]], [["0", "1"]], []),
    (OPPOSITE, (2, 2, 1), "softplus", [[0, 0]], [["1", "-1"]], []),
    (TWICE, (2, 2, 1), "tanh", [[0, 0]], [["1", "2"]], []),
    (DEEP_EQUAL + "; sum(W2[0]) = sum(W2[1])", (1, 2, 2, 1), "softplus", [[0, 0], [0, 0]], [["1", "1"]] * 2, []),
    (DEEP_EQUAL + "; sum(W2[:,0]) = sum(W2[:,1])", (1, 2, 2, 1), "softplus", [[0, 0], [0, 0]], [["1", "1"]] * 2, []),
    ("W1[0] = 0; b1[0] = 0; W2[0,0] = 1", (2, 2, 1), "gaussian", [[0, 1]], [["1", "1"]], [[0, 0, "0"]]),
    ("W1[0] = 0; b1[0] = 1/2", (2, 2, 1), "gaussian", [[0, 1]], [["1", "1"]], [[0, 0, "1/2"]]),
    ("W1[0] = 0; b1[0] = 0", (2, 2, 1), "tanh", [[0, 1]], [["1", "1"]], [[0, 0, "0"]]),
]


@pytest.mark.parametrize(("text", "widths", "name", "labels", "factors", "constants"), FORGED)
def test_certificates_forged_for_sets_that_are_not_invariant(text, widths, name, labels, factors, constants):
    forged = {
        "kind": "confinement", "widths": list(widths), "activations": [name] * (len(widths) - 2), "frozen": [],
        "classes": [{"labels": a, "factors": f} for a, f in zip(labels, factors, strict=True)], "constants": constants,
    }  # fmt: skip
    with pytest.raises(CertificateError):
        check_invariance(forged, from_equations(text, blocks_of(widths)), widths, name)
    assert is_invariant(text, (widths, name)).answer is Answer.NO
