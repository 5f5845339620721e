"""The derivative kernel: rings, nilpotent numbers, jets of activations, the tape, brackets, polynomials in symbols."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.autodiff.families import GradientFamily
from fiberscope.autodiff.jets import FormalJets, TrueJets, rule_of
from fiberscope.autodiff.liebrackets import brackets
from fiberscope.autodiff.nilpotent import Nilpotent
from fiberscope.autodiff.objects import BallJets, ExactJets, Objects, SymbolicJets, proved_sign
from fiberscope.autodiff.rings import PRIME, Floats, Residues
from fiberscope.autodiff.symbols import Counter, Poly
from fiberscope.errors import ScopeError
from fiberscope.models.chains import chain_family
from fiberscope.models.networks import piecewise_family
from fiberscope.network import Network

ANALYTIC = ("tanh", "sigmoid", "softplus", "silu", "gelu", "gelu_tanh", "erf", "gaussian", "sin", "cos", "square")
F = Floats()
R = Residues()

dyadic = st.integers(-256, 256).map(lambda k: Fraction(k, 64))
residues = st.integers(0, PRIME - 1)


# ---- rings


@given(residues, residues, residues)
def test_residues_are_integers_modulo_the_prime(a, b, c):
    x, y, z = (np.array([v], dtype=np.int64) for v in (a, b, c))
    assert int(R.add(x, y)[0]) == (a + b) % PRIME
    assert int(R.multiply(x, y)[0]) == a * b % PRIME
    assert int(R.add(x, R.negative(x))[0]) == 0
    assert int(R.add(R.multiply(x, y), z)[0]) == (a * b + c) % PRIME
    if a:
        assert int(R.multiply(x, R.inverse(x))[0]) == 1
    else:
        with pytest.raises(ZeroDivisionError):
            R.inverse(x)


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_residues_of_rationals_are_a_homomorphism(p, q):
    assert R.constant(p + q) == (R.constant(p) + R.constant(q)) % PRIME
    assert R.constant(p * q) == R.constant(p) * R.constant(q) % PRIME
    both = R.array(np.array([p, q], dtype=object))
    assert both.tolist() == [R.constant(p), R.constant(q)]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_residues_of_floats_are_those_of_the_rationals_they_are(values):
    assert R.array(np.array(values)).tolist() == [R.constant(Fraction(v)) for v in values]


@pytest.mark.parametrize("inner", [1, 3, 8, 9, 40, 700])
@pytest.mark.parametrize("shared", [False, True])
def test_matrix_products_of_residues(inner, shared):
    rng = np.random.default_rng(inner)
    a = R.random(rng, (3, 2, inner))
    b = R.random(rng, (1 if shared else 3, inner, 4))
    a[0], b[0] = PRIME - 1, PRIME - 1  # the largest products
    wanted = (a.astype(object) @ b.astype(object)) % PRIME
    assert (R.matmul(a, b) == wanted).all()


def test_constants_whose_denominator_is_the_prime_are_refused():
    with pytest.raises(ZeroDivisionError):
        R.constant(Fraction(1, PRIME))


@pytest.mark.parametrize("ring", [F, R, Objects()], ids=["floats", "residues", "rationals"])
def test_rings_obey_the_same_laws(ring):
    rng = np.random.default_rng(0)
    a, b, c = (ring.random(rng, (2, 3, 3)) for _ in range(3))

    def same(x, y):
        return np.allclose(x, y) if ring is F else bool((x == y).all())

    assert same(ring.matmul(a, ring.add(b, c)), ring.add(ring.matmul(a, b), ring.matmul(a, c)))
    assert same(ring.matmul(ring.matmul(a, b), c), ring.matmul(a, ring.matmul(b, c)))
    assert same(
        ring.sum(ring.multiply(a, b), -1),
        ring.add(ring.multiply(a, b)[..., :1], ring.sum(ring.multiply(a, b)[..., 1:], -1)),
    )
    assert same(
        ring.multiply(a, ring.inverse(a)), np.ones_like(a) if ring is not R else np.ones(a.shape, dtype=np.int64)
    )
    assert same(
        ring.multiply(a, ring.constant(Fraction(2, 3))),
        ring.multiply(ring.multiply(a, ring.inverse(np.full_like(a, ring.constant(3)))), 2),
    )


# ---- nilpotent numbers


def truncated(parts, order):
    """All coefficients of a nilpotent number as a list over masks."""
    return [parts.get(mask, 0) for mask in range(1 << order)]


@settings(max_examples=25)
@given(st.lists(dyadic, min_size=8, max_size=8), st.lists(dyadic, min_size=8, max_size=8))
def test_products_of_nilpotents_are_those_of_polynomials_modulo_squares(a, b):
    ring = Objects()

    def wrap(values):
        return Nilpotent(ring, {m: np.array([v], dtype=object) for m, v in enumerate(values)})

    product = wrap(a) * wrap(b)
    wanted = [sum((a[m] * b[k ^ m] for m in range(8) if m & k == m), Fraction(0)) for k in range(8)]
    assert [product.parts[m][0] for m in range(8)] == wanted
    assert [(wrap(a) - wrap(b)).parts[m][0] for m in range(8)] == [x - y for x, y in zip(a, b, strict=True)]


@settings(max_examples=40)
@given(st.lists(dyadic, min_size=4, max_size=4), st.integers(0, 5))
def test_expansion_of_a_power_is_repeated_multiplication(values, power):
    ring = Objects()
    x = Nilpotent(ring, {m: np.array([v], dtype=object) for m, v in enumerate(values)})
    jets = [np.array([Fraction(math.perm(power, j)) * values[0] ** max(power - j, 0)], dtype=object) for j in range(3)]
    wanted = Nilpotent(ring, {0: np.array([Fraction(1)], dtype=object)})
    for _ in range(power):
        wanted = wanted * x
    found = x.expand(jets)
    assert [found.parts.get(m, [0])[0] for m in range(4)] == [wanted.parts.get(m, [0])[0] for m in range(4)]


def test_parts_and_directions():
    x = Nilpotent(F, {0: np.array([2.0])}).along(Nilpotent(F, {0: np.array([3.0])}), 0)
    y = x.along(Nilpotent(F, {0: np.array([5.0]), 1: np.array([7.0])}), 1)
    assert x.order == 1 and y.order == 2
    assert {m: float(a[0]) for m, a in y.parts.items()} == {0: 2.0, 1: 3.0, 2: 5.0, 3: 7.0}
    assert {m: float(a[0]) for m, a in y.part(1).parts.items()} == {0: 5.0, 1: 7.0}
    assert y.without(1).parts.keys() == x.parts.keys() and x.part(1) is None


# ---- jets


@pytest.mark.parametrize("name", ANALYTIC)
def test_values_and_slopes_are_those_of_the_table(name):
    row = activation(name)
    z = np.linspace(-3, 3, 41)
    value, slope = TrueJets()(row, z, 1)
    assert np.abs(value - row(z)).max() < 1e-14 and np.abs(slope - row.derivative(z)).max() < 1e-14


@pytest.mark.parametrize("name", ANALYTIC)
def test_derivatives_of_high_order_against_sympy(name):
    sympy = pytest.importorskip("sympy")
    z = sympy.Symbol("z", real=True)
    logistic = 1 / (1 + sympy.exp(-z))
    inner = sympy.sqrt(2 / sympy.pi) * (z + sympy.Rational(44715, 1000000) * z**3)
    formula = {
        "tanh": sympy.tanh(z), "sigmoid": logistic, "softplus": sympy.log(1 + sympy.exp(z)), "silu": z * logistic,
        "gelu": z * (1 + sympy.erf(z / sympy.sqrt(2))) / 2, "gelu_tanh": z * (1 + sympy.tanh(inner)) / 2,
        "erf": sympy.erf(z), "gaussian": sympy.exp(-(z**2)), "sin": sympy.sin(z), "cos": sympy.cos(z), "square": z**2,
    }[name]  # fmt: skip
    points = [Fraction(-5, 4), Fraction(0), Fraction(3, 8)]
    jets = TrueJets()(activation(name), np.array([float(p) for p in points]), 4)
    for order in range(5):
        for k, p in enumerate(points):
            exact = float(formula.subs(z, sympy.Rational(p.numerator, p.denominator)).evalf(30))
            assert abs(jets[order][k] - exact) < 1e-12 * max(1.0, abs(exact))
        formula = sympy.diff(formula, z)


def test_piecewise_linear_jets_and_refusals():
    value, slope, second = TrueJets()(activation("relu"), np.array([-1.0, 0.0, 2.0]), 2)
    assert value.tolist() == [0, 0, 2] and slope.tolist() == [0, 0, 1] and second.tolist() == [0, 0, 0]
    with pytest.raises(ScopeError, match="known are"):
        rule_of(activation("elu"))


@pytest.mark.parametrize(("law", "parities"), [("odd", (-1, 1)), ("even", (1, -1))])
def test_formal_jets_obey_parity(law, parities):
    jets = FormalJets(R, 5, law)
    z = R.random(np.random.default_rng(0), (50,))
    here, there = jets(activation("tanh"), z, 3), jets(activation("tanh"), R.negative(z), 3)
    for j in range(4):
        sign = parities[j % 2]
        wanted = here[j] if sign == 1 else R.negative(here[j])
        assert (there[j] == wanted).all()
    zero = jets(activation("tanh"), np.zeros(1, dtype=np.int64), 3)
    assert [int(v[0]) == 0 for v in zero] == [p == -1 for p in (parities * 2)]


def test_formal_jets_obey_the_equations_and_values_of_their_rule():
    z = R.random(np.random.default_rng(1), (20,))
    zero = np.zeros(1, dtype=np.int64)
    t = FormalJets(R, 2)
    value, slope, second = t(activation("tanh"), z, 2)
    assert (slope == (1 - value * value) % PRIME).all()
    assert (second == (-2 * value % PRIME) * slope % PRIME).all()
    sine, cosine = t(activation("sin"), z, 1)
    assert ((sine * sine + cosine * cosine) % PRIME == 1).all()
    plain = t(activation("sigmoid"), z, 0)[0]
    assert ((plain + t(activation("sigmoid"), R.negative(z), 0)[0]) % PRIME == 1).all()
    assert int(t(activation("tanh"), zero, 0)[0][0]) == 0 and int(t(activation("gelu"), zero, 0)[0][0]) == 0
    assert int(t(activation("cos"), zero, 0)[0][0]) == 1
    null = FormalJets(R, 2, "null")(activation("tanh"), zero, 1)
    assert int(null[0][0]) == 0 and int(null[1][0]) != 0
    generic = FormalJets(R, 2, "generic")(activation("tanh"), zero, 0)
    assert int(generic[0][0]) != 0
    # a function of z, different for another seed
    assert (t(activation("tanh"), z, 0)[0] == FormalJets(R, 2)(activation("tanh"), z, 0)[0]).all()
    assert (t(activation("tanh"), z, 0)[0] != FormalJets(R, 3)(activation("tanh"), z, 0)[0]).any()


def test_polynomial_jets_are_exact_modulo_the_prime():
    row = activation("square")
    z = R.random(np.random.default_rng(1), (9,))
    assert (FormalJets(R, 0)(row, z, 2)[1] == 2 * z % PRIME).all()


# ---- the tape


def everything(tape, blocks, data):
    """Uses every operation of a variable."""
    w, v, b = blocks
    x = tape.constant(data[0])
    h = (x @ w.T + b).apply(activation("tanh"))
    g = (x @ v).apply(activation("gelu"))
    mixed = h * g - h
    parts = mixed.part(0, 2) + mixed.part(1, 3)
    taken = mixed.take(np.array([[0, 2], [2, 2]])).reshape(2, 2).sum(-2)
    scale = (mixed * mixed).sum(-1) + tape.constant(np.ones((1, 1, 1)))
    return (parts + taken.reshape(1, 2)) * scale.inverse()


def everything_family():
    return GradientFamily(
        "everything", (("w", (3, 2)), ("v", (2, 3)), ("b", (3,))), everything,
        lambda ring, rng, count: (ring.random(rng, (count, 1, 2)),), (1, 2),
    )  # fmt: skip


def chains():
    return [chain_family((2, 3, 2), [activation(a)]) for a in ("tanh", "relu", "cos")] + [
        chain_family((1, 2, 2, 1), [activation("gelu"), activation("sigmoid")], samples=3),
        piecewise_family((2, 3, 1), [activation("relu")]),
    ]


@pytest.mark.parametrize("family", [everything_family(), *chains()], ids=lambda f: f.name)
def test_gradients_and_their_derivatives_by_differences(family):
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(family.size)
    data = family.draw(F, rng, 4)
    jets = TrueJets()

    def field(points, order=None):
        return family.fields(Nilpotent(F, {0: points}), data, jets).real

    exact = field(theta[None])
    h = 1e-6

    def value(point):
        out = family.values(Nilpotent(F, {0: point[None]}), data[1:], jets).real
        return (out * data[0]).sum(axis=(1, 2))

    numeric = np.stack([(value(theta + h * e) - value(theta - h * e)) / (2 * h) for e in np.eye(family.size)], axis=1)
    assert np.abs(exact - numeric).max() < 1e-7
    v = rng.standard_normal(family.size)
    slope = family.fields(Nilpotent(F, {0: theta[None], 1: v[None]}), data, jets).part(0)
    numeric = (field((theta + h * v)[None]) - field((theta - h * v)[None])) / (2 * h)
    assert np.abs(slope.real - numeric).max() < 1e-6
    # a batch of points gives each its own field
    points = rng.standard_normal((4, family.size))
    both = field(points)
    for k in range(4):
        one = tuple(a[k : k + 1] for a in data)
        assert np.abs(both[k] - family.fields(Nilpotent(F, {0: points[k : k + 1]}), one, jets).real[0]).max() < 1e-13


def test_chain_values_are_those_of_the_network():
    net = Network.random((2, 3, 2), activation="gelu", seed=0)
    family = chain_family(net.widths, [activation("gelu")])
    x = np.random.default_rng(0).standard_normal((5, 1, 2))
    out = family.values(Nilpotent(F, {0: net.theta[None]}), (x,), TrueJets()).real
    assert np.abs(out[:, 0] - net(x[:, 0])).max() < 1e-15


def test_fields_modulo_the_prime_are_the_residues_of_the_rational_fields():
    family = chain_family((2, 3, 2), [activation("square")])
    ring, rng = Objects(), np.random.default_rng(0)
    theta, data = ring.random(rng, (1, family.size)), family.draw(ring, rng, 3)
    rational = family.fields(Nilpotent(ring, {0: theta}), data, ExactJets()).real
    modular = family.fields(Nilpotent(R, {0: R.array(theta)}), tuple(R.array(a) for a in data), FormalJets(R, 0)).real
    assert (R.array(rational) == modular).all()
    floating = family.fields(
        Nilpotent(F, {0: theta.astype(float)}), tuple(a.astype(float) for a in data), TrueJets()
    ).real
    assert np.abs(floating - rational.astype(float)).max() < 1e-12


# ---- brackets


def jacobian(family, theta, data, jets):
    """DX of one field as a dense matrix, one column for each parameter."""
    columns = []
    for e in np.eye(family.size):
        part = family.fields(Nilpotent(F, {0: theta[None], 1: e[None]}), data, jets).part(0)
        columns.append(np.zeros(family.size) if part is None else part.real[0])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("family", [everything_family(), *chains()[:4]], ids=lambda f: f.name)
def test_first_bracket_is_the_formula_with_jacobians(family):
    rng, jets = np.random.default_rng(2), TrueJets()
    theta = rng.standard_normal(family.size)
    data = [family.draw(F, rng, 3) for _ in range(2)]
    found = brackets(family, Nilpotent(F, {0: theta[None]}), data, jets)
    for k in range(3):
        one = [tuple(a[k : k + 1] for a in d) for d in data]
        y, x = (family.fields(Nilpotent(F, {0: theta[None]}), d, jets).real[0] for d in one)
        dy, dx = (jacobian(family, theta, d, jets) for d in one)
        assert np.abs(found[0].real[k] - y).max() < 1e-13
        assert np.abs(found[1].real[k] - (dy @ x - dx @ y)).max() < 1e-11


def test_second_bracket_by_differences_of_the_first():
    family, jets = chain_family((2, 2, 1), [activation("tanh")]), TrueJets()
    rng = np.random.default_rng(3)
    theta = rng.standard_normal(family.size)
    data = [family.draw(F, rng, 1) for _ in range(3)]

    def first(point):
        return brackets(family, Nilpotent(F, {0: point[None]}), data[:2], jets)[1].real[0]

    x = family.fields(Nilpotent(F, {0: theta[None]}), data[2], jets).real[0]
    h = 1e-6
    moved = (first(theta + h * x) - first(theta - h * x)) / (2 * h)
    wanted = moved - jacobian(family, theta, data[2], jets) @ first(theta)
    assert np.abs(brackets(family, Nilpotent(F, {0: theta[None]}), data, jets)[2].real[0] - wanted).max() < 1e-7


def growth(widths, name, theta, law=None, depth=6, seed=1):
    """Ranks of the brackets of depth 1, 1..2, ... without the output biases."""
    family = chain_family(widths, [activation(name)] * (len(widths) - 2))
    rng, jets = np.random.default_rng(seed), FormalJets(R, seed, law)
    point = Nilpotent(R, {0: R.array(np.array([*theta, *[0.0] * widths[-1]]))[None]})
    found = brackets(family, point, [family.draw(R, rng, family.size + 4) for _ in range(depth)], jets)
    rows = [b.real[:, : -widths[-1]] for b in found]
    return [rationals.rank_mod(np.concatenate(rows[: k + 1]), PRIME) for k in range(depth)]


@pytest.mark.parametrize(
    ("widths", "name", "law", "theta", "wanted"),
    [
        # W1 row by row, b1, W2: without output bias
        ((2, 2, 1), "tanh", None, [0.5, -1, 0.5, -1, 0.25, 0.25, 0.75, -0.5], [4, 7, 8]),
        ((1, 2, 1), "tanh", None, [0, 0, 0, 0, 0.75, -0.5], [2, 2, 4, 5, 5, 6]),
        ((2, 2, 1), "gaussian", "even", [0.5, -1, -0.5, 1, 0.25, -0.25, 0.75, 0.75], [4, 4, 4]),
        ((2, 2, 1), "gaussian", "even", [0, 0, 0, 0, 0, 0, 0.75, 0.25], [1, 1, 1]),
        ((2, 2, 1), "softplus", None, [0.5, -1, -0.5, 1, 0.25, -0.25, 0.75, -0.75], [8]),
        ((2, 2, 1), "tanh", None, [0.5, -1, -0.5, 1, 0.25, -0.25, 0.75, -0.75], [4, 4]),
    ],
)  # fmt: skip
def test_growth_of_brackets_at_special_points(widths, name, law, theta, wanted):
    found = growth(widths, name, theta, law, depth=len(wanted))
    assert found == wanted


def test_growth_of_a_linear_network():
    # 2-2-2-1 without biases: 2, 3, 4 of 10 at a generic point
    def unbiased(tape, blocks, data):
        h = tape.constant(data[0])
        for k in range(3):
            h = h @ blocks[k].T
        return h

    plain = GradientFamily(
        "linear", (("W1", (2, 2)), ("W2", (2, 2)), ("W3", (1, 2))), unbiased,
        lambda ring, rng, count: (ring.random(rng, (count, 1, 2)),), (1, 1),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    point = Nilpotent(R, {0: R.random(rng, (1, 10))})
    found = brackets(plain, point, [plain.draw(R, rng, 16) for _ in range(5)], FormalJets(R, 0))
    ranks = [rationals.rank_mod(np.concatenate([b.real for b in found[: k + 1]]), PRIME) for k in range(5)]
    assert ranks == [2, 3, 4, 4, 4]


# ---- polynomials in symbols, rationals, balls


polys = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(0, 2)), st.integers(-3, 3).filter(bool), max_size=4
).map(lambda d: Poly({tuple((v, e) for v, e in enumerate(m) if e): c for m, c in d.items()}))


@given(polys, polys, dyadic, dyadic)
def test_polynomials_evaluate_as_a_ring(p, q, a, b):
    def at(poly):
        return poly.at(lambda k: (a, b)[k])

    assert at(p + q) == at(p) + at(q) and at(p * q) == at(p) * at(q) and at(p - q) == at(p) - at(q)
    assert (p + q) - q == p and hash(p + q - q) == hash(p)
    content, primitive = p.primitive()
    assert primitive * content == p and content > 0
    assert bool(p) == (p.positive != (-p).positive)
    assert (p * q).derivative(0) == p.derivative(0) * q + p * q.derivative(0)


@given(polys, polys.filter(bool), polys)
def test_division_finds_exactly_the_multiples(p, q, r):
    assert not (p * q).remainder([q])
    left = r.remainder([q])
    assert not (r - left).remainder([q])
    assert left.remainder([q]) == left


@pytest.mark.parametrize("name", ["square", "relu", "tanh"])
def test_symbolic_fields_are_the_fields(name):
    """The polynomials of a field take its rational values when their symbols do."""
    family = chain_family((2, 2, 1), [activation(name)])
    fresh = Counter(family.size)
    ring = Objects(Poly.of(1), fresh)
    theta = np.array([[Poly.symbol(k) for k in range(family.size)]], dtype=object)
    data = family.draw(ring, np.random.default_rng(0), 1)
    jets = SymbolicJets(fresh)
    fields = family.fields(Nilpotent(ring, {0: theta}), data, jets).real[0]
    rng = np.random.default_rng(1)
    values = {k: rng.standard_normal() for k in range(family.size)}
    for a in data:
        values |= {next(iter(p.symbols)): rng.standard_normal() for p in a.reshape(-1)}
    row = activation(name)
    for (_, _, order, z), symbol in jets.known.items():  # in the order of layers
        inner = np.array([float(z.at(lambda k: values[k], float))])
        values[next(iter(symbol.symbols))] = float((row.derivative if order else row)(inner)[0])
    point = np.array([[values[k] for k in range(family.size)]])
    numbers = tuple(np.vectorize(lambda p: values[next(iter(p.symbols))])(a) for a in data)
    wanted = family.fields(Nilpotent(F, {0: point}), numbers, TrueJets()).real[0]
    found = [float(p.at(lambda k: values[k], float)) for p in fields]
    assert np.abs(found - wanted).max() < 1e-12


def test_symbolic_jets_obey_the_laws():
    fresh = Counter(2)
    jets = SymbolicJets(fresh)
    x, y = Poly.symbol(0), Poly.symbol(1)

    def pair(name, z):
        return [a[0] for a in jets(activation(name), np.array([z], dtype=object), 1)]

    z = x * 2 - y
    assert pair("tanh", -z) == [-pair("tanh", z)[0], pair("tanh", z)[1]]
    assert pair("gaussian", -z) == [pair("gaussian", z)[0], -pair("gaussian", z)[1]]
    assert pair("softplus", -z) != pair("softplus", z) and pair("softplus", z) == pair("softplus", z)
    assert pair("softplus", -z)[0] not in (pair("softplus", z)[0], -pair("softplus", z)[0])
    assert pair("softplus", -z)[1] not in (pair("softplus", z)[1], -pair("softplus", z)[1])
    assert pair("hard_tanh", z * 3)[0] != pair("hard_tanh", z)[0] * 3  # bounded: no homogeneity
    assert pair("relu", z * 3) == [pair("relu", z)[0] * 3, pair("relu", z)[1]]
    assert pair("relu", -z)[1] != pair("relu", z)[1]
    assert pair("abs", -z) == [pair("abs", z)[0], -pair("abs", z)[1]]
    zero = Poly({})
    assert pair("tanh", zero)[0] == 0 and pair("gelu", zero)[0] == 0 and pair("softplus", zero)[0] != 0
    assert pair("gaussian", zero) == [1, 0] and pair("cos", zero) == [1, 0] and pair("tanh", zero)[1] != 0
    assert pair("relu", Poly.of(-3)) == [0, 0] and pair("relu", Poly.of(3)) == [3, 1]
    assert pair("square", z) == [z * z, z * 2]
    with pytest.raises(ScopeError):
        jets(activation("tanh"), np.array([z], dtype=object), 2)
    with pytest.raises(ScopeError):
        Objects(Poly.of(1)).inverse(np.array([z], dtype=object))
    with pytest.raises(ScopeError):
        x / y


@pytest.mark.parametrize("name", [n for n in ANALYTIC if n != "square"])
def test_balls_enclose_values_and_slopes_tightly(name):
    row = activation(name)
    for z in (Fraction(-7, 4), Fraction(0), Fraction(1, 3)):
        for j, wanted in enumerate(TrueJets()(row, np.array([float(z)]), 2)):
            low, high = proved_sign(
                lambda ring, j=j, z=z: BallJets(ring)(row, np.array([ring.constant(z)], dtype=object), 2)[j][0]
            )
            assert low - 1e-13 <= wanted[0] <= high + 1e-13 and high - low < 1e-12


def test_balls_of_relu_and_its_kink():
    def relu(z, j):
        return proved_sign(
            lambda ring: BallJets(ring)(activation("relu"), np.array([ring.constant(z)], dtype=object), 1)[j][0]
        )

    assert relu(Fraction(3, 2), 0) == (1.5, 1.5) and relu(Fraction(3, 2), 1) == (1.0, 1.0)
    assert relu(Fraction(-3, 2), 0) == (0.0, 0.0)
    with pytest.raises(ScopeError, match="kink"):
        relu(Fraction(0), 0)
    with pytest.raises(ScopeError, match="kink"):
        ExactJets()(activation("relu"), np.array([Fraction(0)], dtype=object), 1)


@pytest.mark.parametrize("name", ["tanh", "gelu_tanh"])
def test_ball_fields_enclose_the_float_fields(name):
    family = chain_family((2, 3, 2, 1), [activation(name)] * 2)
    ring, rng = Objects(), np.random.default_rng(0)
    theta, data = ring.random(rng, (1, family.size)), family.draw(ring, rng, 1)
    numbers = tuple(a.astype(float) for a in data)
    wanted = family.fields(Nilpotent(F, {0: theta.astype(float)}), numbers, TrueJets()).real[0]

    def entry(balls, k):
        at = Nilpotent(balls, {0: balls.array(theta)})
        return family.fields(at, tuple(balls.array(a) for a in data), BallJets(balls)).real[0, k]

    for k in range(0, family.size, 7):
        low, high = proved_sign(lambda balls, k=k: entry(balls, k))
        assert low - 1e-13 <= wanted[k] <= high + 1e-13 and high - low < 1e-13


@pytest.mark.parametrize("name", ["sin", "tanh", "softplus"])
def test_four_infinitesimals_give_the_fourth_derivative(name):
    z = np.array([0.3, -1.2])
    ones = np.ones(2)
    jets = TrueJets()(activation(name), z, 4)
    out = Nilpotent(F, {0: z, 1: ones, 2: ones, 4: ones, 8: ones}).expand(jets)
    for mask, part in out.parts.items():  # s(z + e1 + e2 + e3 + e4): the part of k of them is s^(k)
        assert np.allclose(part, jets[mask.bit_count()], rtol=1e-12)
    assert len(out.parts) == 16
    if name == "sin":
        assert np.allclose(jets[4], np.sin(z)) and np.allclose(jets[3], -np.cos(z))


def test_products_over_an_empty_sum_are_zero():
    ring = Residues()
    empty = ring.matmul(np.zeros((2, 3, 0), np.int64), np.zeros((1, 0, 4), np.int64))
    assert empty.shape == (2, 3, 4) and not empty.any()
