"""Targets: closed forms against vectors, quadrature and finite differences; parity, subspace, symmetry, reduction."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.errors import InputError
from fiberscope.meanfield.harmonics.jacobi import first_coordinate_rule, gauss_jacobi, jacobi_values, sphere_rule
from fiberscope.meanfield.harmonics.kernels import (
    alpha_of,
    arccos_gradients,
    arccos_gram,
    arccos_potential,
    arccos_value,
    half_gamma_ratio,
    relu_eigenvalue,
    relu_eigenvalues,
    relu_slab,
)
from fiberscope.meanfield.reductions import norm_factor, reduction_of, restricted
from fiberscope.meanfield.targets import (
    Constant,
    Linear,
    NormH,
    Polynomial,
    Projected,
    Sampled,
    Scaled,
    SingleIndex,
    Sum,
    Target,
    Teacher,
    cross_moment,
    lifted,
)
from fiberscope.meanfield.targets.documents import teacher_of
from fiberscope.meanfield.targets.moments import norm_moment
from fiberscope.meanfield.targets.sampled import sphere_points
from fiberscope.results import Rigor

VECTORS = json.loads((Path(__file__).parent / "data" / "meanfield.json").read_text())
RNG = np.random.default_rng(7)


def frame(d: int, k: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0][:k]


def targets(d: int) -> dict[str, Target]:
    rng = np.random.default_rng(d)
    v, rows = rng.normal(size=d), rng.normal(size=(4, d))
    basis = frame(d, min(2, d - 1))
    high = {
        (3, *[0] * (d - 1)): 1.0,
        (2, 2, *[0] * (d - 2)): -2.0,
        (4, *[0] * (d - 2), 2): 1.5,
        (1, 1, *[0] * (d - 2)): 0.5,
    }
    found: dict[str, Target] = {
        "teacher": Teacher(rng.normal(size=4), rows),
        "linear": Linear(v),
        "constant": Constant(1.3, d),
        "quadratic": Polynomial.quadratic(rng.normal(size=(d, d)), v, 0.3),
        "polynomial": Polynomial(high),
        "kinked": SingleIndex(v, lambda t: np.abs(t - 0.1) + np.tanh(t), kinks=(0.1,)),
        "norm": NormH(basis),
        "coordinate": NormH((d, 1)),
        "projected": Projected(lambda z: np.exp(z @ np.arange(1.0, 1 + z.shape[1])), basis),
    }
    if d > 2:
        found["framed"] = Polynomial({(2, 1): 1.0, (0, 4): 1.0, (1, 0): -1.0}, frame=basis)
    found["sum"] = Sum(
        [found["teacher"], 0.5 * found["kinked"], -2.0 * found["polynomial"], found["norm"], found["linear"]]
    )
    return found


# ---- kernels and rules


@pytest.mark.parametrize("d", VECTORS["relu_eigs"])
def test_eigenvalues_of_the_relu(d: str) -> None:
    given_ = VECTORS["relu_eigs"][d]
    np.testing.assert_allclose(relu_eigenvalues(int(d), 11), given_["even_0_2_4_to_20"], rtol=4e-15)
    assert relu_eigenvalue(int(d), 1) == pytest.approx(given_["lambda1"], rel=1e-15)
    assert relu_eigenvalue(int(d), 7) == 0.0


@pytest.mark.parametrize("d", [2, 3, 4, 9])
def test_eigenvalues_are_integrals_of_zonal_harmonics(d: int) -> None:
    s, w = gauss_jacobi(200, 0.0, 0.0)
    angle = (s + 1) * np.pi / 4
    weight = w * np.sin(angle) ** (d - 2) / 2
    weight *= half_gamma_ratio(d - 1) / math.sqrt(math.pi) * np.pi  # density of the angle on [0, pi/2]
    x = np.cos(angle)
    before, now = np.ones_like(x), x.copy()
    assert weight @ x == pytest.approx(relu_eigenvalue(d, 0), rel=1e-13)
    for n in range(1, 9):
        assert weight @ (x * now) == pytest.approx(relu_eigenvalue(d, n), abs=1e-14)
        before, now = now, ((2 * n + d - 2) * x * now - n * before) / (n + d - 2)


def test_alpha_and_ratios() -> None:
    for k, value in VECTORS["alpha"].items():
        assert alpha_of(int(k)) == pytest.approx(value, rel=2e-15)
    # r(n) r(n+1) = n/2 joins the two branches of the ratio
    for n in (1, 57, 299, 300, 301, 302, 10_000):
        assert half_gamma_ratio(n) * half_gamma_ratio(n + 1) == pytest.approx(n / 2, rel=1e-14)
    with pytest.raises(InputError, match="dH >= 1"):
        alpha_of(0)
    with pytest.raises(InputError, match="d >= 1"):
        relu_eigenvalues(0, 3)


def test_arc_cosine_values() -> None:
    for row in VECTORS["arccos"]:
        assert arccos_value([row["u"]], [row["v"]])[0] == pytest.approx(row["E"], rel=1e-12)
        assert arccos_gram([row["u"]], [row["v"]])[0, 0] == pytest.approx(row["E"], abs=1e-17)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, np.pi - 0.05, np.pi - 1e-3, np.pi - 1e-6, np.pi])
def test_arc_cosine_kernel_near_the_ends(angle: float) -> None:
    u, v = np.array([[2.0, 0.0]]), np.array([[math.cos(angle), math.sin(angle)]])
    rest = math.pi - angle
    exact = 2 * (math.sin(angle) + rest * math.cos(angle)) if rest > 0.01 else 2 * (rest**3 / 3 - rest**5 / 30)
    assert arccos_value(u, v)[0] == pytest.approx(exact / (4 * np.pi), rel=1e-9)
    gradient = arccos_gradients(u, v)
    assert gradient @ u[0] == pytest.approx(arccos_value(u, v), abs=1e-16)
    np.testing.assert_allclose(gradient, arccos_potential(u, v, [1.0])[1], atol=1e-16)


def test_arc_cosine_gradients_by_differences_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    u, v, w = RNG.normal(size=(7, 3)), RNG.normal(size=(5, 3)), RNG.normal(size=5)
    v[1] = 0.0
    value, gradient = arccos_potential(u, v, w)
    np.testing.assert_allclose(value, arccos_gram(u, v) @ w, atol=1e-15)
    for i in range(3):
        step = 1e-6 * np.eye(3)[i]
        difference = (arccos_gram(u + step, v) - arccos_gram(u - step, v)) @ w / 2e-6
        np.testing.assert_allclose(gradient[:, i], difference, atol=1e-9)
    monkeypatch.setattr("fiberscope.meanfield.harmonics.kernels._CHUNK", 11)
    np.testing.assert_allclose(arccos_potential(u, v, w)[1], gradient, atol=1e-16)
    zero = arccos_potential(np.zeros((1, 3)), v, w)
    assert zero[0] == 0 and not zero[1].any()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 25, 129])
def test_relu_slab_integrates_what_the_coordinate_rule_integrates(n: int) -> None:
    y, w = first_coordinate_rule(n, 3000 if n <= 2 else 700)
    a, b = np.array([0.3, -0.3, 0.8, -0.8, 0.0]), np.array([0.7, 0.7, 0.2, 0.2, 0.5])
    value, by_a, by_b = relu_slab(a, b, n)
    z = a[:, None] + b[:, None] * y
    np.testing.assert_allclose(value, np.maximum(z, 0) @ w, atol=2e-5)
    np.testing.assert_allclose(by_a, (z > 0) @ w + 0.5 * ((z == 0) @ w), atol=4e-3)
    np.testing.assert_allclose(by_b, ((z > 0) * y) @ w, atol=4e-3)
    np.testing.assert_allclose(value, by_a * a + by_b * b, atol=1e-15)


@pytest.mark.parametrize(("a", "b"), [(-0.5, -0.5), (-0.5, 0.0), (0.0, -0.5), (-0.5, 0.5), (0.0, 0.0), (11.5, 1.5)])
def test_jacobi_polynomials_are_orthonormal(a: float, b: float) -> None:
    from scipy.special import roots_jacobi

    x, w = roots_jacobi(45, a, b)
    values, slopes = jacobi_values(40, a, b, x)
    np.testing.assert_allclose(values * (w / w.sum()) @ values.T, np.eye(40), atol=1e-11)
    nodes, weights = gauss_jacobi(45, a, b)
    np.testing.assert_allclose(nodes, x, atol=1e-14)
    np.testing.assert_allclose(weights, w / w.sum(), rtol=1e-10)
    inner = x[(abs(x) < 0.9)]
    shifted = [jacobi_values(40, a, b, inner + h)[0] for h in (1e-6, -1e-6)]
    difference = (shifted[0] - shifted[1]) / 2e-6
    np.testing.assert_allclose(slopes[:, abs(x) < 0.9], difference, rtol=1e-5, atol=1e-6 * abs(difference).max())


def test_sphere_rules_are_exact_to_their_degree() -> None:
    for n in (1, 2, 3, 4):
        points, weights = sphere_rule(n, 5)
        assert weights.min() > 0 and weights.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-14)
        for power in range(10):
            # E s^(2k) = (1/2)_k / (n/2)_k
            exact = 0.0 if power % 2 else math.prod((0.5 + k) / (n / 2 + k) for k in range(power // 2))
            direction = frame(n, n)[0]
            assert weights @ (points @ direction) ** power == pytest.approx(exact, abs=1e-13)
    with pytest.raises(InputError, match="ask for fewer"):
        sphere_rule(9, 20)
    with pytest.raises(InputError, match="above -1"):
        gauss_jacobi(4, -1.0, 0.0)


# ---- potentials and moments


@pytest.mark.parametrize(("d", "name"), [(d, name) for d in (2, 3, 5) for name in targets(d)])
def test_potentials_and_moments_against_an_oracle(d: int, name: str) -> None:
    target = targets(d)[name]
    if d == 5:
        points = sphere_points(d, 1 << 17, 5)
        weights = np.full(len(points), 1.0 / len(points))
    else:
        points, weights = sphere_rule(d, {2: 20_000, 3: 260}[d])
    close = {2: 2e-8, 3: 3e-5, 5: 4e-3}[d]
    rows = np.random.default_rng(1).normal(size=(5, d)) * 1.7
    values = target(points)
    value, gradient = target.potential(rows)
    scale = math.sqrt(target.second_moment) * 3
    np.testing.assert_allclose(value, (weights * values) @ np.maximum(points @ rows.T, 0), atol=close * scale)
    assert target.second_moment == pytest.approx(weights @ values**2, abs=close * scale**2)
    np.testing.assert_allclose(target.linear_part, (weights * values) @ points, atol=close * scale)
    assert target.mean == pytest.approx(weights @ values, abs=close * scale)
    # gradients by differences, homogeneity, and the direction 0
    for i in range(d):
        step = 1e-5 * np.eye(d)[i]
        difference = (target.potential(rows + step)[0] - target.potential(rows - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[:, i], difference, atol=2e-7 * scale)
    np.testing.assert_allclose(np.einsum("md,md->m", gradient, rows), value, atol=1e-13 * scale)
    tripled = target.potential(3.0 * rows)
    np.testing.assert_allclose(tripled[0], 3 * value, atol=1e-13 * scale)
    np.testing.assert_allclose(tripled[1], gradient, atol=1e-10 * scale)
    zero = target.potential(np.zeros((1, d)))
    assert zero[0][0] == 0.0 and not zero[1].any()


def test_two_formulas_for_one_function_agree() -> None:
    for d in (2, 3, 4, 5, 10, 30):
        rng = np.random.default_rng(d)
        v, rows = rng.normal(size=d), rng.normal(size=(20, d))
        rows[0], rows[1], rows[2] = v, -v, v + 1e-9 * rows[2]
        unit = v / np.linalg.norm(v)
        pairs: list[tuple[Target, Target]] = [
            (SingleIndex(v, np.abs), Teacher([1.0, 1.0], [v, -v])),
            (SingleIndex(v, lambda t: np.maximum(t, 0)), Teacher([1.0], [v])),
            (SingleIndex(v, lambda t: t * t), Polynomial.quadratic(np.outer(v, v))),
            (
                SingleIndex(v, lambda t: t**3 - t),
                Polynomial({(3,): np.linalg.norm(v) ** 3, (1,): -np.linalg.norm(v)}, frame=unit[None]),
            ),
            (NormH(unit[None]), Teacher([1.0, 1.0], [unit, -unit])),
            (NormH((d, d)), Constant(1.0, d)),
        ]
        for left, right in pairs:
            for a, b in zip(left.potential(rows), right.potential(rows), strict=True):
                np.testing.assert_allclose(a, b, atol=3e-10 * max(1.0, float(v @ v) ** 1.5))
            assert left.second_moment == pytest.approx(right.second_moment, rel=1e-12)
            assert left.parity == right.parity


@pytest.mark.parametrize("k", [1, 2, 3, 5, 12])
def test_the_norm_is_an_average_of_teachers(k: int) -> None:
    d = 13
    target = NormH((d, k))
    angle = np.concatenate([np.linspace(0, np.pi / 2, 9), [1e-3, 1e-7]])
    rows = np.zeros((len(angle), d))
    rows[:, 0], rows[:, -1] = np.cos(angle), np.sin(angle)
    # alpha E_v K(v, b) with v.b = cos(angle) s; Gauss in the angle of s, where the kernel is smooth
    w, mass = gauss_jacobi(400, 0.0, 0.0)
    s, density = np.sin(w * np.pi / 2), np.cos(w * np.pi / 2) ** (k - 2.0) * mass if k > 1 else None
    if density is None:
        s, density = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    c = np.clip(np.cos(angle)[:, None] * s, -1, 1)
    kernel = (np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c) / (2 * np.pi * d)
    expected = alpha_of(k) * (kernel @ density) / density.sum()
    np.testing.assert_allclose(target.potential(rows)[0], expected, atol=1e-9)


def test_the_norm_seen_by_itself_is_its_second_moment() -> None:
    # |x_H| = alpha E relu(v.x), so E f^2 = alpha E_v potential(v): the potential at angle 0
    for d, k in ((3, 1), (3, 2), (30, 5), (7, 6)):
        target = NormH((d, k))
        assert target.alpha * target.potential(np.eye(d)[:1])[0][0] == pytest.approx(k / d, rel=1e-13)


@pytest.mark.parametrize("d", [2, 3])
def test_products_of_all_pairs(d: int) -> None:
    found = targets(d)
    points, weights = sphere_rule(d, {2: 20_000, 3: 260}[d])
    values = {name: target(points) for name, target in found.items()}
    for left in found:
        for right in found:
            exact = float(weights @ (values[left] * values[right]))
            value, rigor = cross_moment(found[left], found[right])
            assert value == pytest.approx(exact, abs=3e-4), (left, right)
            assert rigor is Rigor.NUMERICAL


def test_products_of_two_lines_are_accurate() -> None:
    rng = np.random.default_rng(3)
    for d in (2, 3, 4, 7):
        u, v = rng.normal(size=d), rng.normal(size=d)
        left, right = SingleIndex(u, np.abs), SingleIndex(v, lambda t: np.maximum(t - 0.1, 0) ** 2, kinks=(0.1,))
        teacher = Teacher([1.0, 1.0], [u, -u])
        exact = float(teacher.c @ right.potential(teacher.B)[0])
        assert left.moment_with(right) == pytest.approx(exact, rel=1e-9)
        assert left.moment_with(SingleIndex(-2 * u, np.abs)) == pytest.approx(2 * left.second_moment, rel=1e-11)


def test_products_of_norms_and_polynomials() -> None:
    total = NormH((10, 6)) + Polynomial({(2,) + (0,) * 9: 1.0})
    # E |x_H| x_1^2 = E |x_H|^3 / 6
    ratio = half_gamma_ratio(6) / half_gamma_ratio(10) * (7 / 2) / (11 / 2)
    assert total.second_moment == pytest.approx(6 / 10 + 3 / (10 * 12) + 2 * ratio / 6, rel=1e-14)
    assert total.rigor is Rigor.NUMERICAL and total.exact
    rng = np.random.default_rng(4)
    for d, n in ((3, 1), (3, 2), (3, 3)):
        points, weights = sphere_rule(d, 120)
        powers = [(4, 0, 2), (2, 2, 2), (0, 6, 0), (1, 1, 0), (3, 0, 1), (0, 0, 0), (1, 0, 0), (2, 1, 1)]
        p = Polynomial({e[:d]: float(rng.normal()) for e in powers})
        for norm in (NormH((d, n)), NormH(frame(d, n, seed=n))):
            for g in (p, Polynomial({(2, 0): 1.0, (3, 1): 2.0, (1, 0): 1.0}, frame=frame(d, 2, seed=9))):
                value, rigor = cross_moment(norm, g)
                assert value == pytest.approx(weights @ (norm(points) * g(points)), abs=2e-5)
                assert rigor is Rigor.NUMERICAL
    # a turned pair has the product of the pair
    turn = frame(7, 7, seed=1)
    straight = cross_moment(NormH((7, 5)), Polynomial({(2, 0, 4): 1.0, (0, 1, 1): 1.0}, frame=np.eye(7)[[0, 1, 6]]))
    turned = cross_moment(NormH(turn[:5]), Polynomial({(2, 0, 4): 1.0, (0, 1, 1): 1.0}, frame=turn[[0, 1, 6]]))
    assert turned[0] == pytest.approx(straight[0], rel=1e-12) and turned[1] is Rigor.NUMERICAL


def test_a_sum_with_a_sampled_product_says_so() -> None:
    total = NormH((12, 6)) + NormH(frame(12, 7))
    assert total.second_moment_rigor is Rigor.SAMPLED and total.rigor is Rigor.SAMPLED
    assert (2.0 * total).rigor is Rigor.SAMPLED
    # the smaller of the two spheres is integrated over
    assert cross_moment(NormH((12, 6)), NormH(frame(12, 3)))[1] is Rigor.NUMERICAL
    # too many derivatives: the closed form is left
    many, projector = {(8, 8, 8, 8, 4, 4): 1.0}, frame(6, 3).T @ frame(6, 3)
    assert norm_moment(many, projector, 3, 6) is None
    assert norm_moment(many, np.diag([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]), 3, 6) is not None


def test_zonal_coefficients() -> None:
    target = SingleIndex([2.0, 0.0, 0.0], lambda t: (t / 2) ** 2)
    # s^2 = 1/3 + (2/3) P_2, E P_2^2 = 1/5
    assert [target.zonal_coefficient(n) for n in range(4)] == pytest.approx([1 / 3, 0.0, 2 / 15, 0.0], abs=1e-14)


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_harmonic_parts_add_up_and_are_orthogonal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 5))
    polynomial = Polynomial({tuple(rng.integers(0, 4, size=d).tolist()): float(rng.normal()) for _ in range(4)})
    degree = max(sum(e) for e in polynomial.terms)
    parts = [polynomial.harmonic(n) for n in range(degree + 1)]
    points = sphere_points(d, 32, seed)
    np.testing.assert_allclose(sum(p(points) for p in parts), polynomial(points), atol=1e-12)
    for i, left in enumerate(parts):
        for right in parts[:i]:
            assert abs(left.inner(right)) < 1e-13
    assert sum(p.second_moment for p in parts) == pytest.approx(polynomial.second_moment, rel=1e-10)


def test_expansions_of_projections_and_the_direct_rule() -> None:
    basis = frame(5, 2)
    rows = RNG.normal(size=(10, 5))
    norm = NormH(basis)
    expanded = Projected(lambda z: np.linalg.norm(z, axis=1), basis)
    ruled = Projected(lambda z: np.linalg.norm(z, axis=1), basis, counts=(48, 48))
    off = np.abs(expanded.potential(rows)[0] - norm.potential(rows)[0]).max()
    assert off < 20 * expanded.error < 1e-4
    assert np.abs(ruled.potential(rows)[0] - norm.potential(rows)[0]).max() < 20 * ruled.error < 2e-2
    assert expanded.linear_part == pytest.approx(np.zeros(5), abs=1e-13)
    skew = [Projected(lambda z: np.exp(z[:, 0] + z[:, 1]), basis, counts=counts) for counts in (None, (48, 48))]
    for a, b in zip(skew[0].potential(rows), skew[1].potential(rows), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    line = Projected(lambda z: np.abs(z[:, 0]), basis[:1])
    np.testing.assert_allclose(line.potential(rows)[0], NormH(basis[:1]).potential(rows)[0], atol=1e-11)


def test_lifts_agree_with_the_function_of_the_projection() -> None:
    basis = frame(6, 2)
    points = sphere_points(6, 50, 0)
    inner: list[Target] = [
        Teacher([1.0, -2.0], RNG.normal(size=(2, 2))),
        Linear([1.0, 2.0]),
        Constant(2.0, 2),
        NormH((2, 1)),
        SingleIndex([0.3, 0.4], np.tanh),
        Polynomial({(2, 1): 1.0, (0, 0): 0.5}),
        Projected(lambda z: z[:, 0] ** 2, (2, 1)),
        Teacher([1.0], [[1.0, 1.0]]) + NormH((2, 1)),
        Scaled(2.0, Linear([1.0, 0.0])),
    ]
    for target in inner:
        lift = lifted(target, basis)
        assert lift is not None
        np.testing.assert_allclose(lift(points), target(points @ basis.T), atol=1e-14)
        projected = Projected(target, basis)
        np.testing.assert_allclose(projected.potential(points)[0], lift.potential(points)[0], atol=1e-15)
    assert lifted(Teacher([1.0], [[2.0]]), basis[:1]).B == pytest.approx(2 * basis[:1])  # dH = 1
    with pytest.raises(InputError, match="product rules"):
        Projected(lambda z: z[:, 0], (9, 6))


@pytest.mark.parametrize("rule", ["sobol+cv", "sobol", "mc"])
def test_samples_are_as_close_as_they_say(rule: str) -> None:
    v = np.array([1.0, -0.5, 0.2, 0.0])
    target = Sampled(lambda x: np.abs(x @ v) + x[:, 0] + 1.0, 4, rule=rule, count=4096, seed=3)
    exact = Teacher([1.0, 1.0], [v, -v]) + Linear(np.eye(4)[0]) + Constant(1.0, 4)
    rows = np.random.default_rng(2).normal(size=(30, 4))
    gap = np.abs(target.potential(rows)[0] - exact.potential(rows)[0])
    assert np.sqrt(np.mean(gap**2)) < 3 * np.sqrt(np.mean(target.potential_error(rows) ** 2))
    assert gap.max() < {"sobol+cv": 0.02, "sobol": 0.02, "mc": 0.1}[rule]
    assert target.rigor is Rigor.SAMPLED and not target.exact
    again = Sampled(lambda x: np.abs(x @ v) + x[:, 0] + 1.0, 4, rule=rule, count=4096, seed=3)
    assert (again.potential(rows)[0] == target.potential(rows)[0]).all()


def test_the_control_variate_removes_linear_functions() -> None:
    f = lambda x: 3.0 + x @ np.array([1.0, 2.0, 3.0])  # noqa: E731
    exact = Linear([1.0, 2.0, 3.0]) + Constant(3.0, 3)
    rows = RNG.normal(size=(10, 3))
    errors = {
        rule: np.abs(Sampled(f, 3, rule=rule, count=1024).potential(rows)[0] - exact.potential(rows)[0]).max()
        for rule in ("sobol+cv", "sobol")
    }
    assert errors["sobol+cv"] < 0.2 * errors["sobol"]


# ---- parity, subspace, symmetry


def test_parity_from_the_form() -> None:
    e = np.eye(3)
    assert Teacher([1.0, -1.0], [e[0], -e[0]]).parity == -1  # relu(t) - relu(-t) = t
    assert Teacher([1.0, 1.0], [e[0], -e[0]]).parity == 1
    assert Teacher([1.0], [e[0]]).parity is None
    assert Teacher([1.0, -1.0], [e[0], e[0]]).parity == 1  # zero
    assert Polynomial({(1, 0): 1.0, (3, 0): -1.0, (1, 2): -1.0}).parity == 1  # x(1 - |x|^2) = 0 on the circle
    assert Polynomial({(1, 0): 1.0, (2, 0): 1.0}).parity is None
    assert SingleIndex(e[0], np.sin).parity == -1 and SingleIndex(e[0], np.exp).parity is None
    assert Sampled(lambda x: x[:, 0] ** 3, 3, count=64).parity == -1
    assert Projected(lambda z: np.cos(z[:, 0] * z[:, 1]), (4, 2)).parity == 1
    assert (Linear(e[0]) + SingleIndex(e[1], np.sin)).parity == -1
    assert (Linear(e[0]) + Constant(1.0, 3)).parity is None


def test_the_canonical_form_is_the_function() -> None:
    rows = RNG.normal(size=(4, 3))
    target = Teacher([1.0, -2.0, 0.5, 1.5, 0.7], np.concatenate([rows, -2 * rows[:1]]))
    beta, signs, lines = target.canonical
    points = sphere_points(3, 20, 1)
    np.testing.assert_allclose(points @ beta + np.abs(points @ lines.T) @ signs, target(points), atol=1e-13)
    assert len(lines) == 4


def test_subspaces() -> None:
    assert len(Teacher([1.0, -1.0], [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]).subspace) == 0
    assert Teacher([1.0], [[0.0, 2.0, 0.0]]).subspace.tolist() == [[0.0, 1.0, 0.0]]
    assert Polynomial({(2, 0, 0): 1.0, (0, 2, 0): 1.0}).subspace.tolist() == [[0.0, 0.0, 1.0]]
    assert len(Polynomial.quadratic(np.eye(3)).subspace) == 0
    v = np.array([1.0, 2.0, -2.0, 0.0, 0.0]) / 3
    found = Sampled(lambda x: np.tanh(x @ v) + x[:, 4], 5, count=64).subspace
    np.testing.assert_allclose(found.T @ found, np.outer(v, v) + np.diag([0, 0, 0, 0, 1.0]), atol=1e-6)
    assert len(Sampled(lambda x: np.abs(x).max(axis=1), 4, count=64).subspace) == 4


@pytest.mark.parametrize(
    ("target", "order", "rigor"),
    [
        (Teacher(np.ones(6), np.concatenate([np.eye(3), -np.eye(3)])), 48, Rigor.EXACT),
        (Teacher(np.ones(3), np.eye(3)), 6, Rigor.EXACT),
        (Teacher([1.0, 2.0], np.eye(2)), 1, Rigor.EXACT),
        (Teacher([1.0, 1.0, 1.0], [[1, 0], [math.cos(2.1), math.sin(2.1)], [0, 1]]), 1, Rigor.EXACT),
        (Linear([1.0, 1.0, 0.0]), 4, Rigor.NUMERICAL),  # O(beta-perp) has a rounded basis
        (Linear([1.0, 0.0, 0.0]), 8, Rigor.EXACT),
        (NormH((4, 2)), 64, Rigor.NUMERICAL),
        (SingleIndex([1.0, 1.0, 0.0], np.abs), 8, Rigor.SAMPLED),
        (SingleIndex([1.0, 0.0, 0.0], np.exp), 8, Rigor.EXACT),
        (Polynomial({(1, 1, 0, 0): 1.0, (0, 0, 1, 1): 1.0}), 32, Rigor.NUMERICAL),  # O(2) of a turned plane
        (Polynomial({(2, 0, 0): 1.0, (0, 2, 0): 1.0}), 16, Rigor.EXACT),
        (Polynomial({(2, 0, 0): 1.0, (1, 1, 0): 1e-12}), 4, Rigor.EXACT),
        (Teacher([1.0, 1.0, 1e-13, 1e-13], [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]), 8, Rigor.EXACT),
        (Teacher([1.0, 2.0**-60, 1.0], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 2, Rigor.NUMERICAL),
        (Polynomial({(1, 1, 1): 1.0}), 24, Rigor.EXACT),
        (Sampled(lambda x: np.abs(x).max(axis=1), 3, count=64), 48, Rigor.SAMPLED),
        (Projected(lambda z: np.abs(z).max(axis=1), (3, 2)), 16, Rigor.SAMPLED),
    ],
)
def test_detected_groups(target: Target, order: int, rigor: Rigor) -> None:
    group = target.group
    assert group.order() == order
    assert group.rigor is rigor
    assert group.defect(target, sphere_points(target.dimension, 40, 9)) < 1e-14


def test_parity_of_polynomials_of_tiny_norm() -> None:
    assert Polynomial({(1,) * 15 + (0,) * 85: 1.0}).parity == -1
    assert Polynomial({(1,) * 11 + (0,) * 773: 1.0}).parity == -1
    assert Polynomial({(15,) + (0,) * 999: 1.0}).parity == -1
    # a part of tiny norm is a part
    assert Polynomial({(1,) * 15 + (0,) * 85: 1.0, (2,) + (0,) * 99: 1.0}).parity is None
    assert Polynomial({(1, 0): 1e-30, (2, 0): 1.0}).parity is None
    # 2 + 0.1 x (|x|^2 - 1), and 0.3 x + (|x|^2 - 1) |x|^2
    assert Polynomial({(0, 0, 0): 2.0, (1, 0, 0): -0.1, (3, 0, 0): 0.1, (1, 2, 0): 0.1, (1, 0, 2): 0.1}).parity == 1
    assert Polynomial({(1, 0): 0.3, (4, 0): 1.0, (2, 2): 2.0, (0, 4): 1.0, (2, 0): -1.0, (0, 2): -1.0}).parity == -1
    # in a frame x_H fills a ball, where nothing cancels
    terms = {(0, 0): 2.0, (1, 0): -1.0, (3, 0): 1.0, (1, 2): 1.0}
    assert Polynomial(terms).parity == 1 and Polynomial(terms, frame=np.eye(3)[:2]).parity is None


@pytest.mark.parametrize(
    ("c", "rows", "beta", "kinks", "exact"),
    [
        ([1e13, -1e13, 1, 1], [[1, 0], [1, 0], [0, 1], [0, -1]], [0, 0], [[0, 1]], True),
        # what is left of two coordinates stays where the terms that cancel are large
        ([1e16, -1e16, 1], [[1, 0], [1, 0], [1, 1]], [0.5, 0.5], [[0.5, 0.5]], True),
        ([1, 1, 1e-13, 1e-13], [[1, 0], [-1, 0], [0, 1], [0, -1]], [0, 0], [[1, 0], [0, 1e-13]], True),
        ([3, -1], [[0.1, 0.2], [0.3, 0.6]], None, [], False),  # 3 * 0.1 is not 0.3
        ([0.1, 0.2, -0.3], [[1, 2], [1, 2], [1, 2]], [0, 0], [], False),
        ([0.1, 0.1, -0.2], [[1, 2], [1, 2], [1, 2]], [0, 0], [], True),
        # rows that differ by 1e-13 and cancel are two lines: 1e13 times their difference is of size 1
        ([1e13, -1e13], [[1, 0], [1, 1e-13]], [0, -0.5], [[5e12, 0], [5e12, 0.5]], None),
        ([1, -1, 1], [[1, 1e-3], [-2, -2e-3], [1e200, 0]], [1.5 + 5e199, 1.5e-3], [[5e199, 0], [0.5, 5e-4]], None),
    ],
)
def test_what_cancels_in_a_teacher(
    c: list[float], rows: list[list[float]], beta: list[float] | None, kinks: list[list[float]], exact: bool | None
) -> None:
    form = Teacher(c, rows).form
    if beta is not None:
        np.testing.assert_allclose(form.beta, beta, rtol=1e-12, atol=0)
    found = sorted(np.abs(form.lines).tolist(), reverse=True)
    assert len(found) == len(kinks)
    np.testing.assert_allclose(np.array(found), np.array(sorted(kinks, reverse=True)), rtol=1e-12)
    assert exact is None or form.exact is exact


def test_terms_that_cancel_leave_the_kink_of_the_others() -> None:
    found = reduction_of(Teacher([1e13, -1e13, 1.0, 1.0], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    assert (found.kind, found.subspace_dimension) == ("angle", 1)
    found = reduction_of(Teacher([1.0, 1.0, 1e-13, 1e-13], [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]))
    assert (found.kind, found.subspace_dimension) == ("lowdim", 2)
    assert [len(block) for block in found.group.continuous] == [1]
    with pytest.raises(InputError, match="range of floats"):
        Teacher([1e300], [[1e300]]).parity  # noqa: B018


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_canonical_forms_of_small_integers_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    c = rng.integers(-2, 3, size=6).astype(float)
    rows = rng.integers(-2, 3, size=(6, 2)).astype(float)
    form = Teacher(c, rows).form
    points = np.array([[3.0, 1.0], [-1.0, 7.0], [-5.0, -3.0], [2.0, -9.0]])
    np.testing.assert_allclose(
        points @ form.beta + np.abs(points @ form.lines.T) @ form.signs, np.maximum(points @ rows.T, 0) @ c, atol=1e-12
    )
    crossed = [abs(a[0] * b[1] - a[1] * b[0]) for k, a in enumerate(form.lines) for b in form.lines[:k]]
    assert not crossed or min(crossed) > 1e-3  # no line twice
    assert form.beta.tolist() == (c @ rows / 2).tolist()


def test_a_parity_that_is_given_is_compared_with_the_function() -> None:
    e = np.eye(3)[0]
    for parity in (1, -1):
        with pytest.raises(InputError, match="but h is not"):
            SingleIndex(e, lambda t: np.maximum(t, 0), parity=parity)
        with pytest.raises(InputError, match="but f is not"):
            Sampled(lambda x: np.maximum(x[:, 0], 0), 3, count=64, parity=parity)
    # the value at a jump does not matter
    assert SingleIndex(e, lambda t: np.where(t >= 0, 1.0, -1.0), parity=-1).parity == -1
    for target in (SingleIndex(e, np.sin, parity=-1), SingleIndex(e, np.sin), 2.0 * SingleIndex(e, np.sin)):
        found = reduction_of(target)
        assert found.kind == "linear" and found.rigor is Rigor.SAMPLED
        assert [a.checked for a in found.assumes if "-f*(x)" in a.statement] == [False]
    exact = reduction_of(Polynomial({(3, 0, 0): 1.0}))
    assert [a.checked for a in exact.assumes if "-f*(x)" in a.statement] == [True]


def test_hypotheses_seen_on_samples_are_not_checked() -> None:
    def flags(target: Target, words: str) -> list[bool]:
        return [a.checked for a in reduction_of(target).assumes if words in a.statement]

    assert flags(Sampled(lambda x: np.exp(x[:, 0]), 3, count=64), "f*(x_H)") == [False]
    assert flags(SingleIndex([1.0, 0.0, 0.0], np.exp), "f*(x_H)") == [True]
    assert flags(SingleIndex([1.0, 0.0, 0.0], np.exp), "f*(Tx)") == [True]
    assert flags(SingleIndex([1.0, 0.0, 0.0], np.cos), "f*(Tx)") == [False]
    assert flags(NormH((3, 1)) + SingleIndex([1.0, 0.0, 0.0], np.exp), "f*(x_H)") == [True]
    assert flags(Sampled(lambda x: 0 * x[:, 0] + 1.0, 3, count=64), "constant") == [False]
    assert flags(Constant(1.0, 3), "constant") == [True]


def test_even_functions_of_one_variable_are_constant() -> None:
    constant: list[Target] = [
        Teacher([1.0, 1.0], [[1.0], [-1.0]]), NormH((1, 1)), Polynomial({(4,): 1.0}), SingleIndex([1.0], np.cos),
        2.0 * Teacher([1.0, 1.0], [[1.0], [-1.0]]),
    ]  # fmt: skip
    for target in constant:
        found = reduction_of(target)
        assert (found.kind, found.subspace_dimension, found.reduced_dimension) == ("none", 0, 0)
        assert "constant" in found.statements[0] and norm_factor(target) is None
    assert reduction_of(Teacher([1.0], [[1.0]])).statements[0].startswith("no statement")
    assert reduction_of(Teacher([1.0, -1.0], [[1.0], [-1.0]])).kind == "linear"


def test_groups_in_high_dimension_keep_to_memory() -> None:
    group = Teacher([1.0], np.eye(1, 900)).group
    assert not group.generators and [len(b) for b in group.continuous] == [899] and group.rigor is Rigor.EXACT
    with pytest.raises(InputError, match="d up to 4096"):
        NormH((1_000_000, 1)).group  # noqa: B018


def test_cycles_are_found_for_teachers_and_polynomials() -> None:
    ring = np.eye(8) + np.roll(np.eye(8), 1, axis=0)
    both = np.concatenate([ring, -ring])
    assert Teacher(np.ones(16), both).group.order() == 32  # the dihedral group, and x -> -x
    terms = {tuple(int(k in (i, (i + 1) % 5)) for k in range(5)): 1.0 for i in range(5)}
    assert Polynomial(terms).group.order() == 20


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_potentials_are_equivariant_under_the_detected_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 5))
    rows = rng.integers(-1, 2, size=(3, d)).astype(float)
    for target in (
        Teacher(rng.integers(1, 3, size=3).astype(float), rows),
        Polynomial({tuple(rng.integers(0, 3, size=d).tolist()): 1.0 for _ in range(3)}),
        NormH((d, int(rng.integers(1, d)))),
    ):
        tests = rng.normal(size=(6, d))
        value, gradient = target.potential(tests)
        group = target.group
        for k in range(len(group.generators)):
            moved, turned = target.potential(group.apply(k, tests))
            np.testing.assert_allclose(moved, value, atol=1e-12)
            np.testing.assert_allclose(turned, group.apply(k, gradient), atol=1e-12)
        assert group.defect(lambda x, t=target: t.potential(x)[0], tests) < 1e-12


def test_detection_at_thirty_dimensions_is_complete() -> None:
    target = Teacher(np.ones(60), np.concatenate([np.eye(30), -np.eye(30)]))
    group = target.group
    assert len(group.generators) <= 60 and group.rigor is Rigor.EXACT
    # transitive on the 60 points +-e_i, and the stabiliser moves all others
    assert len(group.orbit_of(np.eye(30)[:1])) == 60
    assert len(group.orbit_of((3.0 * np.eye(30)[0] + np.eye(30)[1])[None])) == 60 * 58


# ---- sums and refusals


def test_sums_merge_and_scale() -> None:
    total = Teacher([1.0], [[1.0, 0.0]]) + Linear([0.0, 1.0]) + Teacher([2.0], [[0.0, 1.0]]) + 3.0 * Linear([1.0, 0.0])
    assert isinstance(total, Sum) and len(total.parts) == 2
    assert total.linear_part == pytest.approx([(1 / 2 + 3) / 2, (2 / 2 + 1) / 2])
    points = sphere_points(2, 9, 0)
    expected = np.maximum(points[:, 0], 0) + 2 * np.maximum(points[:, 1], 0) + 3 * points[:, 0] + points[:, 1]
    np.testing.assert_allclose(total(points), expected, atol=1e-15)
    assert Scaled(0.0, NormH((3, 1))).parity == 1
    with pytest.raises(InputError, match="dimensions"):
        Sum([Linear([1.0, 0.0]), Linear([1.0])])
    with pytest.raises(InputError, match="no targets"):
        Sum([])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Teacher([1.0], [[1.0, 0.0], [0.0, 1.0]]), "for 1 outer weights"),
        (lambda: Teacher([np.nan], [[1.0]]), "finite"),
        (lambda: Linear([]), "vector"),
        (lambda: Constant(math.inf, 2), "finite"),
        (lambda: Polynomial({}), "terms {}; give a polynomial as {exponents: coefficient}"),
        (lambda: Polynomial({(1, 0): 1.0, (1,): 1.0}), "lengths"),
        (lambda: Polynomial({(50,): 1.0}), "degrees up to"),
        (lambda: Polynomial({(-1,): 1.0}), "give a whole number >= 0"),
        (lambda: Polynomial({(1,): 1.0}, frame=[[1.0, 1.0]]), "orthonormal"),
        (lambda: SingleIndex([0.0, 0.0], np.abs), "v = 0"),
        (lambda: SingleIndex([1.0, 0.0], np.log), "not finite"),
        (lambda: SingleIndex([1.0, 0.0], np.sum), "entry by entry"),
        (lambda: NormH((3, 0)), "1 <= dH <= d"),
        (lambda: NormH([[1.0, 1.0]]), "not orthonormal"),
        (lambda: Projected(lambda z: z, (4, 2)), "one number a row"),
        (lambda: Sampled(lambda x: x, 3), "one number a row"),
        (lambda: Sampled(lambda x: np.log(x[:, 0]), 3), "not finite"),
        (lambda: Sampled(lambda x: x[:, 0], 3, rule="grid"), "rule"),
        (lambda: Linear([1.0, 0.0]).potential(np.zeros((1, 3))), "rows"),
        (lambda: Linear("abc"), "beta: 'abc' is no number"),
        (lambda: Linear([[1.0], [1.0, 2.0]]), "rows of different lengths"),
        (lambda: Constant("one", 2), "constant: 'one'"),
        (lambda: Constant(1.0, 2.5), "dimension of a target: 2.5"),
        (lambda: Polynomial([1.0, 2.0]), "give a polynomial as {exponents: coefficient}"),
        (lambda: Polynomial({(1, 0): "x"}), "coefficient of"),
        (lambda: Polynomial({("a", 0): 1.0}), "exponents"),
        (lambda: SingleIndex([1.0, 0.0], "tanh"), "h 'tanh'; give a function"),
        (lambda: SingleIndex([1.0, 0.0], np.abs, kinks=0.0), "kinks 0.0; give a list"),
        (lambda: SingleIndex([1.0, 0.0], np.abs, rtol=-1), "rtol: -1"),
        (lambda: SingleIndex([1.0, 0.0], np.abs, parity=2), "parity 2; give 1, -1 or None"),
        (lambda: NormH("H"), "subspace H: 'H' is no number"),
        (lambda: Projected("f", (4, 2)), "f_H 'f'; give a function"),
        (lambda: Projected(lambda z: z[:, 0], (4, 2), counts=4), "counts 4; give the pair"),
        (lambda: Sampled(3.0, 3), "f 3.0; give a function"),
        (lambda: Sampled(lambda x: x[:, 0], "3"), "dimension d: '3'"),
        (lambda: Sampled(lambda x: x[:, 0], 3, rule="sobol-cv"), "did you mean 'sobol\\+cv'"),
        (lambda: Sampled(lambda x: x[:, 0], 3, count=2.5), "count of samples: 2.5"),
        (lambda: Sampled(lambda x: x[:, 0], 3, seed=-1), "seed -1"),
        (lambda: Sampled(lambda x: x[:, 0], 3, seed=np.random.default_rng(0)), "give a whole number"),
        (lambda: 2.0j * Linear([1.0]), "factor of a target"),
        (lambda: reduction_of("norm:2"), "is no target"),
        (lambda: teacher_of("net.onnx"), "str is no network"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_targets_get_one_clear_line(make: object, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


# ---- reductions


def test_reductions() -> None:
    angle = reduction_of(NormH((30, 5)))
    assert (angle.kind, angle.reduced_dimension, angle.arguments) == ("angle", 1, {"d": 30, "dH": 5})
    assert {"angle-reduction", "mass-identity", "meanfield-symmetry"} <= set(angle.theorems)
    absolute = reduction_of(Teacher([1.0, 1.0], [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
    assert (absolute.kind, absolute.subspace_dimension) == ("angle", 1)
    odd = reduction_of(Polynomial({(3, 0, 0): 1.0}))
    assert odd.kind == "linear" and odd.arguments["beta_norm"] == pytest.approx(0.2)  # E x^4 = 3/15
    assert {"odd-linear", "meanfield-antisymmetry"} <= set(odd.theorems)
    low = reduction_of(2.0 * NormH((5, 2)))
    assert low.kind == "lowdim" and low.reduced_dimension == 2
    none = reduction_of(Teacher(np.ones(3), RNG.normal(size=(3, 3))))
    assert none.kind == "none" and "no statement" in str(none)
    assert reduction_of(NormH((4, 4))).kind == "none"
    assert reduction_of(Sampled(lambda x: np.tanh(x[:, 0]), 4, count=64)).rigor is Rigor.SAMPLED
    for found in (angle, absolute, odd, low, none):
        assert json.loads(found.to_json())["kind"] == found.kind
        assert "Infinity" not in found.to_json() and found.flow in str(found)


def test_norm_factors() -> None:
    assert norm_factor(-3.0 * NormH((4, 2))) == -3.0
    assert norm_factor(Linear([1.0, 0.0])) is None
    assert norm_factor(Teacher([1.0], [[1.0, 0.0]])) is None
    assert norm_factor(Teacher([1.0, 1.0, 1.0, 1.0], [[1, 0], [-1, 0], [0, 1], [0, -1.0]])) is None


@pytest.mark.parametrize(
    "target",
    [
        Teacher([1.0, 2.0], [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]),
        3.0 * NormH((4, 2)),
        Polynomial({(2, 1, 0, 0): 1.0, (2, 0, 0, 0): 1.0}),
        Polynomial({(2, 0, 0, 0): 1.0, (0, 2, 0, 0): 1.0, (0, 0, 2, 0): 1.0}),
        Sampled(lambda x: np.exp(x[:, 0]), 4, count=64),
        Projected(lambda z: np.exp(z[:, 0] * z[:, 1]), frame(4, 2)),
        NormH((4, 1)) + SingleIndex([0.0, 1.0, 0.0, 0.0], np.exp),
    ],
)
def test_what_lowdim_flows_get_is_the_target(target: Target) -> None:
    found = reduction_of(target)
    assert found.kind == "lowdim"
    basis = target.subspace
    inner = found.arguments["target_on_H"]
    assert inner.dimension == len(basis)
    points = sphere_points(4, 30, 2)
    np.testing.assert_allclose(inner(points @ basis.T), target(points), atol=1e-9)
    assert type(restricted(target, basis)) is type(inner)
