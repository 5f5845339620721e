"""Embeddings: exact conditions against slow loops, critical points, inertia, manifolds of copies and leaving them."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.certificates import check
from fiberscope.errors import InputError, ScopeError, UnsupportedError
from fiberscope.invariants.classes.smallest import smallest_sim
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.recovery.embeddings.checks import Inertia, transfer, verify
from fiberscope.invariants.recovery.embeddings.embedding import KINDS, embed
from fiberscope.invariants.recovery.embeddings.separation import break_symmetry
from fiberscope.invariants.recovery.ladders.landscapes import Landscape
from fiberscope.network import Network
from fiberscope.results import Answer


def rational_net(rng, widths, row, zeros=0.0):
    pairs = []
    for a, b in zip(widths, widths[1:], strict=False):
        weight = np.array([[Fraction(int(v), 12) for v in r] for r in rng.integers(-20, 21, (b, a))], dtype=object)
        weight[rng.random((b, a)) < zeros] = Fraction(0)
        pairs.append((weight, np.array([Fraction(int(v), 7) for v in rng.integers(-9, 10, b)], dtype=object)))
    return Network.from_arrays(*pairs, activation=row)


def critical_point(widths, row, seed, n=40, bias=True, output_bias=True):
    """A minimum near a teacher of the same widths whose outputs carry noise, and the data."""
    rng = np.random.default_rng(seed)
    x = 1.5 * rng.standard_normal((n, widths[0]))
    plain = Landscape(widths, row, x, np.zeros((n, widths[-1])), bias=bias, output_bias=output_bias)
    theta = rng.choice([-1.0, 1.0], (1, plain.size)) * rng.uniform(0.5, 1.2, (1, plain.size))
    y = plain.outputs(theta)[0] + 0.02 * rng.standard_normal((n, widths[-1]))
    field = Landscape(widths, row, x, y, bias=bias, output_bias=output_bias)
    residual, slope = (lambda t, k=k: field.jacobian(t[None])[k][0] for k in range(2))
    theta = least_squares(residual, theta[0], slope, method="lm", xtol=1e-12).x[None]
    for _ in range(6):
        _, g, h = field.curvature(theta)
        theta = theta - np.linalg.lstsq(h[0], g[0], rcond=1e-12)[0]
    _, g, h = field.curvature(theta)
    net = field.network(theta[0])
    assert np.abs(g).max() < 1e-13 and np.linalg.eigvalsh(h[0]).min() > 1e-7, "no critical point"
    assert (net(x).std(axis=0) > 0.1).all(), "a constant"
    return net, (x, y)


# ---- 40 embeddings of critical points

POINTS = [((2, 2, 1), "tanh", 0), ((2, 2, 2), "softplus", 1), ((2, 2, 2, 1), "tanh", 0)]
WAYS = [
    ("split", {}), ("split", {"alpha": "random"}), ("split", {"alpha": Fraction(2, 7)}), ("null", {}),
    ("null", {"alpha": "random"}), ("mixed", {}), ("mixed", {"alpha": "random"}), ("compatible", {"seed": 1}),
    ("compatible", {"seed": 2}), ("compatible", {"seed": 3, "factors": True}),
]  # fmt: skip


@pytest.fixture(scope="module")
def points():
    """Three minima, and a saddle: the first one embedded."""
    minima = [critical_point(*p) for p in POINTS]
    net, data = minima[0]
    saddle = embed(net, [3], alpha=Fraction(3, 2)).floats()
    assert verify(embed(net, [3], alpha=Fraction(3, 2)), data).inertia_after.negative
    return [*minima, (saddle, data)]


def test_forty_embeddings_keep_criticality_and_lose_no_curvature(points):
    done = 0
    for net, data in points:
        for how, options in WAYS:
            wide = embed(net, [w + 2 - k % 2 for k, w in enumerate(net.widths[1:-1])], how=how, **options)
            found = verify(wide, data)
            assert found.passed, (how, options, str(found))
            assert found.output_change <= 1e-12
            assert found.gradient_norm[1] <= 1e-10
            assert found.nondecreasing
            assert found.inertia_after.clear, str(found)
            assert found.inertia_after.zero >= wide.degrees_of_freedom  # the set of embeddings is critical
            done += 1
    assert done == 40


def test_perturbed_control_fails(points):
    net, data = points[0]
    wide = embed(net, [4], how="compatible")
    theta = np.asarray(wide.floats().theta, dtype=np.float64)
    moved = wide.network.with_theta(theta + 1e-2 * np.random.default_rng(0).standard_normal(theta.size))
    found = verify(wide, data, network=moved)
    assert not found.passed and found.gradient_norm[1] > 1e-3 and found.output_change > 1e-4
    assert any("gradient" in text for text in found.failures) and any("output" in text for text in found.failures)
    assert "FAILED" in str(found)
    flat = wide.network.with_theta(np.zeros(theta.size))
    assert any("inertia falls" in text for text in verify(wide, data, network=flat).failures)


def test_gradient_and_hessian_are_handed_over_at_any_point():
    rng = np.random.default_rng(5)
    net = Network.random((2, 2, 3, 2), activation="tanh", seed=5)
    data = rng.standard_normal((7, 2)), rng.standard_normal((7, 2))
    wide = embed(net, [4, 5], how="compatible", seed=4, factors=True)
    found = verify(wide, data)
    assert found.passed and found.gradient_norm[0] > 1e-2 and found.hessian_error < 1e-12
    t, s = transfer(wide)
    assert np.abs(t.T @ s - np.eye(net.parameter_count)).max() < 1e-12
    other = net.with_theta(rng.standard_normal(net.parameter_count))
    moved = wide.apply(other)
    shift = np.asarray(moved.theta, float) - np.asarray(wide.network.theta, float)
    assert np.abs(shift - t @ (np.asarray(other.theta) - np.asarray(net.theta, float))).max() < 1e-12
    # the gradient of another loss too
    for loss, y in (("mse", data[1]), ("cross_entropy", rng.integers(0, 2, 7))):
        batch = Batch(data[0], y, loss=loss)
        g = Chain(net).gradient(np.asarray(net.theta, float), batch)[1]
        g_wide = Chain(wide.network).gradient(np.asarray(wide.network.theta, float), batch)[1]
        assert np.abs(g_wide - s @ g).max() < 1e-12


def test_inertia_counts_and_gap():
    found = Inertia.of(np.diag([3.0, 1e-4, 1e-13, -1e-14, -2.0]), 1e-9)
    assert found.counts == (2, 2, 1) and found.gap == pytest.approx(1e9) and found.clear
    assert not Inertia.of(np.diag([1.0, 2e-9, 5e-10]), 1e-9).clear
    assert Inertia.of(np.zeros((2, 2)), 1e-9).counts == (0, 2, 0)


# ---- exactness


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.sampled_from(["relu", "leaky_relu", "square", "hard_tanh"]))
def test_functions_are_equal_over_q(seed, how, row):
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 4))
    widths = (2, *rng.integers(1, 4, depth).tolist(), 2)
    net = rational_net(rng, widths, row, zeros=0.3)
    alpha = rng.choice(["random", "none"])
    wide = embed(
        net, [w + int(rng.integers(0, 4)) for w in widths[1:-1]], how=how, seed=seed,
        alpha=None if alpha == "none" else "random", factors=bool(rng.integers(2)),
    ).network  # fmt: skip
    for _ in range(3):
        x = [Fraction(int(v), 5) for v in rng.integers(-30, 31, 2)]
        assert wide.exact(x) == net.exact(x)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_slow_conditions_of_the_definition(seed, how):
    """Definition 5.2: alpha_ij = w'_ij / w_st has row sums 1 or 0, and beta-weighted column sums beta_j or 0."""
    rng = np.random.default_rng(seed)
    net = rational_net(rng, (2, 2, 3, 1), "tanh")
    if any((a.weight == 0).any() for a in net.layers):
        return
    wide = embed(net, [4, 6], how=how, seed=seed, alpha="random" if how != "compatible" else None)
    ends = [range(2), *(m.labels.tolist() for m in wide.map), range(1)]
    betas = [None, *(m.shares.tolist() for m in wide.map), [Fraction(1)]]
    for k, (old, new) in enumerate(zip(net.layers, wide.network.layers, strict=True)):
        below, above = ends[k], ends[k + 1]
        w, v = rationals.fractions(old.weight), rationals.fractions(new.weight)
        for i, s in enumerate(above):
            for t in range(old.n_in):
                sums = sum(v[i, j] / (w[s, t] if s >= 0 else 1) for j in range(new.n_in) if below[j] == t)
                assert sums == (1 if s >= 0 else 0)
        for j, t in enumerate(below if k else ()):
            for s in range(old.n_out):
                back = sum(
                    betas[k + 1][i] * v[i, j] / (w[s, t] if t >= 0 else 1) for i in range(new.n_out) if above[i] == s
                )
                assert back == (betas[k][j] if t >= 0 else 0)


def test_compatible_embeddings_have_a_free_part():
    net = Network.random((2, 2, 2, 1), activation="tanh", seed=0)
    plain = embed(net, [3, 4], how="mixed", seed=1, alpha="random")
    free = embed(net, [3, 4], how="compatible", seed=1)
    assert all(part is None for part in plain.free) and free.free[1] is not None
    null = free.map[1].null
    assert verify(embed(Network.random((2, 2, 2, 1), activation="softplus", seed=0), [4, 4], how="compatible")).passed
    assert null.size and (free.network.layers[1].weight[null] != 0).any()  # a null neuron that reads, and cancels


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["split", "compatible"]))
def test_corrupted_embeddings_are_refused(seed, how):
    rng = np.random.default_rng(seed)
    wide = embed(rational_net(rng, (2, 2, 2, 1), "tanh"), [3, 4], how=how, seed=seed)
    layer = int(rng.integers(3))
    own = wide.network.layers[layer]
    weight, bias = rationals.fractions(own.weight).copy(), rationals.fractions(own.bias).copy()
    if rng.integers(2):
        bias[int(rng.integers(own.n_out))] += Fraction(1, 10**9)
    else:
        weight[int(rng.integers(own.n_out)), int(rng.integers(own.n_in))] += Fraction(1, 10**9)
    layers = list(wide.network.layers)
    layers[layer] = replace(own, weight=weight, bias=bias)
    with pytest.raises(InputError, match=f"layer {layer + 1}"):
        replace(wide, network=wide.network.with_layers(layers))


def test_conditions_are_told_apart():
    net = Network.from_arrays(
        ([[1.0], [2.0]], [0, 0]), ([[3.0, 4.0], [1.0, 5.0]], [0, 1]), ([[1.0, 2.0]], [0]), activation="tanh"
    )
    wide = embed(net, [3, 3], labels=[[0, 1, 1], [0, 1, 0]])
    weight = rationals.fractions(wide.network.layers[1].weight).copy()
    for entry, text in (((0, 0), "pre-activations"), ((0, 1), "errors")):
        bad = weight.copy()
        bad[entry] += 1
        if text == "errors":
            bad[0, 2] -= 1  # rows still add up, columns do not
        layers = list(wide.network.layers)
        layers[1] = replace(layers[1], weight=bad)
        with pytest.raises(InputError, match=text):
            replace(wide, network=wide.network.with_layers(layers))
    shares = wide.map[0].shares.copy()
    shares[1] += 1
    with pytest.raises(InputError, match="add up to 1"):
        replace(wide, map=(replace(wide.map[0], shares=shares), wide.map[1]))
    turned = wide.map[0].factors.copy()
    turned[1] = Fraction(2)
    with pytest.raises(InputError, match="forgive"):
        replace(wide, map=(replace(wide.map[0], factors=turned), wide.map[1]))
    for row, factor in (("gaussian", -1), ("square", 2), ("tanh", 0)):
        other = embed(Network.random((1, 1, 1), activation=row, seed=0), [2])
        factors = np.array([Fraction(1), Fraction(factor)], dtype=object)
        with pytest.raises(InputError, match="forgive"):
            replace(other, map=(replace(other.map[0], factors=factors),))
    silent = embed(Network.random((1, 1, 1), activation="gaussian", seed=0), [2], how="null")
    with pytest.raises(InputError, match="no bias above"):
        replace(silent, trained=(True, False))
    with pytest.raises(InputError, match="null neurons of hidden layer 1 have shares"):
        replace(silent, map=(replace(silent.map[0], shares=np.array([Fraction(1)] * 2, dtype=object)),))
    with pytest.raises(InputError, match="other widths"):
        replace(wide, map=(embed(net, [4, 3]).map[0], wide.map[1]))


# ---- the dimension of the family


@pytest.mark.parametrize(("widths", "wide", "how"), [
    ((2, 2, 1), (5,), "split"), ((2, 2, 1), (5,), "mixed"), ((1, 2, 2, 1), (4, 4), "split"),
    ((1, 2, 2, 1), (4, 5), "compatible"), ((1, 2, 1, 2), (4, 3), "compatible"),
    ((1, 1, 1, 1, 1), (3, 3, 2), "compatible"),
])  # fmt: skip
def test_degrees_of_freedom_are_the_rank_of_the_family(widths, wide, how):
    """Move shares (with sum 1), null offsets and the free part one by one, over floats."""
    net = Network.random(widths, activation="sin", seed=3)
    made = embed(net, wide, how=how, seed=5, alpha="random" if how != "compatible" else None)
    labels = [m.labels for m in made.map]
    added = [len(own) - narrow for own, narrow in zip(labels, widths[1:-1], strict=True)]
    assert made.degrees_of_freedom == sum(added) + sum(a * b for a, b in zip(added, added[1:], strict=False))

    sizes = [len(own) for own in labels]
    count = 2 * sum(sizes) + sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))

    def point(p):
        """The family over floats, by the formulas of the module."""
        at, sides = 0, [(np.eye(widths[0]), np.eye(widths[0]), np.zeros(widths[0]))]
        for own, narrow, m in zip(labels, widths[1:-1], made.map, strict=True):
            e, b, c = np.zeros((len(own), narrow)), np.zeros((len(own), narrow)), np.zeros(len(own))
            for t in range(narrow):
                kin = np.flatnonzero(own == t)
                raw = m.shares[kin].astype(float) + p[at + kin]
                e[kin, t], b[kin, t] = 1.0, raw - (raw.sum() - 1) / len(kin)
            at += len(own)
            c[own < 0] = 0.3 * (np.arange((own < 0).sum()) + 1) + p[at + np.flatnonzero(own < 0)]
            at += len(own)
            sides.append((e, b, c))
        sides.append((np.eye(widths[-1]), np.eye(widths[-1]), np.zeros(widths[-1])))
        out = []
        for k, layer in enumerate(net.layers):
            (e0, b0, c0), (e1, b1, c1) = sides[k], sides[k + 1]
            weight = e1 @ layer.weight64 @ b0.T
            if 0 < k < net.depth - 1:
                part = np.random.default_rng(k).standard_normal((len(e1), len(e0)))
                part += p[at : at + part.size].reshape(part.shape)
                at += part.size
                weight = weight + (np.eye(len(e1)) - e1 @ b1.T) @ part @ (np.eye(len(e0)) - e0 @ b0.T)
            quiet = (e0 == 0).all(axis=1)
            out += [weight.ravel(), e1 @ layer.bias64 + c1 - weight[:, quiet] @ np.sin(c0[quiet])]
        assert at == count
        return np.concatenate(out)

    h = 1e-5
    jac = np.array([(point(h * d) - point(-h * d)) / (2 * h) for d in np.eye(count)])
    values = np.linalg.svd(jac, compute_uv=False)
    assert int((values > 1e-7 * values[0]).sum()) == made.degrees_of_freedom


def test_a_neuron_nobody_reads_gives_no_freedom_of_shares():
    net = Network.from_arrays(([[1.0], [2.0]], [0.0, 0.5]), ([[3.0, 0.0]], [0.0]), activation="tanh")
    assert embed(net, [3], labels=[[0, 1, 1]]).degrees_of_freedom == 0
    assert embed(net, [3], labels=[[0, 1, 0]]).degrees_of_freedom == 1
    assert embed(net, [3], labels=[[0, 1, -1]]).degrees_of_freedom == 1
    assert embed(net, [3], labels=[[0, 1, -1]], bias=False).degrees_of_freedom == 0


# ---- certificates


@pytest.mark.parametrize(
    ("row", "how"), [("relu", "split"), ("relu", "mixed"), ("tanh", "compatible"), ("tanh", "null")]
)
def test_certificate_of_the_way_back(row, how):
    net = Network.random((2, 2, 2, 1), activation=row, seed=7)
    wide = embed(net, [4, 3], how=how, seed=2, factors=True)
    verdict = wide.certify()
    assert verdict.answer is Answer.YES
    assert check(verdict.certificate, wide.network, net).answer is Answer.YES
    assert check(verdict.certificate, wide.network, net.with_theta(np.asarray(net.theta) * 2)).answer is not Answer.YES


def test_no_certificate_for_a_reducible_narrow_network():
    net = Network.from_arrays(([[1.0], [1.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="tanh")
    verdict = embed(net, [3]).certify()
    assert verdict.answer is Answer.UNDECIDED and "1-1-1" in verdict.reason


# ---- manifolds of copies


@pytest.mark.parametrize("row", ["tanh", "softplus", "relu"])
def test_equal_shares_never_separate(row):
    net = Network.random((2, 2, 3, 1), activation=row, seed=1)
    wide = embed(net, [4, 5], how="split", seed=0)
    assert wide.sim.dimension == net.parameter_count == smallest_sim(net).dimension
    assert all(sum(len(g) - 1 for g in layer) == 2 for layer in wide.together) and wide.apart == ((), ())
    assert "never separates" in wide.statement
    uneven = embed(net, [3, 3], how="split", alpha=Fraction(1, 3), seed=0)
    assert uneven.sim.dimension == uneven.network.parameter_count and len(uneven.apart[0]) == 1
    assert "unequal shares" in uneven.statement and "never" not in uneven.statement


def test_one_step_separates_copies_in_the_ratio_of_their_shares():
    net = Network.random((2, 1, 1), activation="tanh", seed=1)
    rng = np.random.default_rng(0)
    batch = Batch(rng.standard_normal((5, 2)), rng.standard_normal((5, 1)))
    for alpha, ratio in ((None, 1.0), (Fraction(1, 4), 1 / 3)):
        wide = embed(net, [2], alpha=alpha)
        gradient = Chain(wide.network).gradient(np.asarray(wide.network.theta, float), batch)[1]
        assert gradient[2:4] == pytest.approx(ratio * gradient[:2])


def test_null_neurons_stay_silent_or_are_said_to_move_together():
    net = Network.random((2, 2, 1), activation="tanh", seed=1)
    wide = embed(net, [5], how="null")
    assert wide.sim.dimension == net.parameter_count and wide.sim.null == ((2, 3, 4),)
    assert "3 silent neurons" in wide.statement and wide.together == ((),)
    shifted = embed(net, [5], how="null", alpha=0.5)
    assert shifted.together == (((2, 3, 4),),) and shifted.sim.null == ((),)
    spread = embed(net, [5], how="null", alpha="random")
    assert len({str(b) for b in spread.map[0].offsets[2:]}) > 1


@pytest.mark.parametrize("how", KINDS)
def test_shares_break_the_symmetry_and_keep_the_function_exactly(how):
    net = rational_net(np.random.default_rng(2), (2, 2, 2, 1), "relu")
    wide = embed(net, [4, 4], how=how)
    moved = break_symmetry(wide, Fraction(1, 8), seed=3)
    assert moved.change == (0.0, 0.0)
    if how != "compatible":  # which is off the manifold already
        assert moved.dimension_before < moved.dimension_after == smallest_sim(moved.network).dimension
        assert moved.dimension_after == moved.network.parameter_count and moved.distance > 1e-3
    for v in np.random.default_rng(0).integers(-90, 91, (20, 2)):
        x = [Fraction(int(q), 7) for q in v]
        assert moved.network.exact(x) == net.exact(x)


def test_noise_breaks_the_symmetry_within_a_proved_bound():
    net = Network.random((2, 3, 1), activation="tanh", seed=2)
    wide = embed(net, [6])
    x = np.random.default_rng(1).uniform(-1, 1, (2000, 2))
    for size in (1e-6, 1e-3):
        moved = break_symmetry(wide, size, how="noise", domain="[-1,1]")
        seen = np.abs(moved.network(x) - net(x)).max()
        assert 0 < seen <= moved.change[0] + moved.change[1] and moved.change[0] < 1e3 * size
        assert moved.dimension_after == moved.network.parameter_count and moved.distance > 0
        assert "changes by more than" in str(moved)
    with pytest.raises(InputError, match="size"):
        break_symmetry(wide, 0.0)
    with pytest.raises(InputError, match="how"):
        break_symmetry(wide, how="luck")


# ---- biases that are not trained, and activations


def test_null_neurons_need_a_bias_that_hears_their_constant():
    net = Network.from_arrays(([[1.0], [2.0]], None), ([[3.0, 4.0]], None), activation="softplus")
    assert embed(net, [3], how="null").degrees_of_freedom == 1
    for options in ({"output_bias": False}, {"bias": False, "output_bias": False}):
        with pytest.raises(ScopeError, match="constant"):
            embed(net, [3], how="null", **options)
        assert embed(net, [3], how="split", **options).trained == tuple(
            options.get(k, True) for k in ("bias", "output_bias")
        )
    with pytest.raises(ScopeError, match="hidden biases"):
        embed(net, [3], how="null", alpha=1.0, bias=False)
    gauss = Network.from_arrays(([[1.0]], None), ([[3.0]], None), activation="gaussian")
    with pytest.raises(ScopeError):
        embed(gauss, [2], how="null", output_bias=False)


@pytest.mark.parametrize(("bias", "output_bias"), [(False, False), (True, False), (False, True)])
def test_criticality_with_biases_that_are_not_trained(bias, output_bias):
    net, data = critical_point((2, 2, 1), "tanh", 0, bias=bias, output_bias=output_bias)
    for how in KINDS:
        found = verify(embed(net, [5], how=how, bias=bias, output_bias=output_bias), data)
        assert found.passed and found.gradient_norm[1] <= 1e-10, str(found)


def test_relu_null_neurons_sit_off_the_kink():
    wide = embed(Network.random((1, 2, 1), seed=0), [3], how="null")
    assert wide.map[0].offsets[2] == -1 and wide.network.layers[0].bias[2] == -1
    leaky = embed(Network.random((1, 2, 1), activation="leaky_relu", seed=0), [3], how="null")
    assert leaky.map[0].offsets[2] != 0
    still = embed(Network.random((1, 2, 1), activation="leaky_relu", seed=0), [3], how="null", output_bias=False)
    assert still.map[0].offsets[2] == 0


def test_factors_are_those_the_activation_forgives():
    for row, allowed in (("tanh", {-1, 1}), ("sigmoid", {1}), ("gaussian", {1}), ("relu", {Fraction(1, 2), 1, 2, 4})):
        wide = embed(Network.random((2, 2, 2), activation=row, seed=0), [9], factors=True, seed=1)
        found = set(wide.map[0].factors.tolist())
        assert found <= allowed and (len(found) > 1) == (len(allowed) > 1)
        assert verify(wide).passed and activation(row).label in str(wide)


# ---- options and reports


def test_options_are_checked():
    net = Network.random((2, 3, 1), activation="tanh", seed=0)
    for widths, options, text in (
        ([2], {}, "at least"), ([4, 4], {}, "each hidden layer"), ([4], {"how": "half"}, "give 'null'"),
        ([4], {"alpha": "big"}, "alpha"), ([4], {"alpha": 0.5, "how": "mixed"}, "goes with"),
        ([4], {"labels": [[0, 1, 2]]}, "hidden widths"), ([4], {"labels": [[0, 1, 1, 1]]}, "name each"),
        ([4], {"labels": [[0, 1, 2, 3]]}, "name each"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            embed(net, widths, **options)
    with pytest.raises(InputError, match="no hidden layer"):
        embed(Network.random((2, 1), seed=0), [3])
    assert embed(net, (2, 5, 1)).network.widths == embed(net, [5]).network.widths == (2, 5, 1)
    folded = net.with_layers([replace(net.layers[0], folded=("Conv",)), net.layers[1]])
    with pytest.raises(ScopeError):
        embed(folded, [4])
    wide = embed(net, [4])
    with pytest.raises(InputError, match="widths"):
        wide.apply(wide.network)
    with pytest.raises(InputError, match="expected"):
        verify(wide, network=net)
    with pytest.raises(UnsupportedError):
        verify(wide, ([[0.0, 0.0]], [0.0]), loss="hinge")
    with pytest.raises(InputError):
        verify(wide, ([[0.0]], [0.0]))


def test_given_shares_and_the_first_copy_keeps_the_rest():
    net = Network.from_arrays(([[1.0]], [0.0]), ([[1.0]], [0.0]), activation="tanh")
    wide = embed(net, [3], alpha=Fraction(1, 8))
    assert wide.network.layers[1].weight.tolist() == [[0.75, 0.125, 0.125]]
    assert embed(net, [4]).network.layers[1].weight.tolist() == [[0.25] * 4]


def test_reports():
    net = Network.random((2, 2, 2, 1), activation="tanh", seed=0)
    wide = embed(net, [4, 5], how="compatible", seed=2)
    data = json.loads(wide.to_json())
    assert data["widths"] == [2, 4, 5, 1] and data["added"] == [2, 3] and data["kind"] == "compatible"
    assert data["layers"][0]["labels"] == wide.map[0].labels.tolist() and data["sim_dimension"] == wide.sim.dimension
    assert str(wide).startswith("compatible embedding of 2-2-2-1 tanh into 2-4-5-1 (EXACT)")
    found = verify(wide, ([[0.0, 1.0], [1.0, 0.5]], [0.0, 1.0]))
    data = json.loads(found.to_json())
    assert data["passed"] is True and data["inertia_after"]["positive"] >= data["inertia_before"]["positive"]
    assert "H' T = S H" in str(found) and json.loads(verify(wide).to_json())["loss"] is None
    assert json.loads(break_symmetry(wide).to_json())["change"] == [0.0, 0.0]
    assert wide.floats(np.float32).dtype == np.float32


def test_alpha_may_be_text_of_a_number() -> None:
    net = Network.from_arrays(([[1.0], [2.0]], [0.5, -0.5]), ([[3.0, 4.0]], [0.25]), activation="tanh")
    third = embed(net, [3], how="split", alpha=Fraction(1, 3)).network
    assert embed(net, [3], how="split", alpha="1/3").network == third
    for wrong in ("a third", "1/0", "1e9999999", "nan", float("inf"), [1]):
        with pytest.raises(InputError, match="^alpha .*; give a finite number, 'random' or None$"):
            embed(net, [3], how="split", alpha=wrong)  # type: ignore[arg-type]
