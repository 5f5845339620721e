"""Model ranks and optimistic sample sizes: vectors, singular values of a plain NumPy oracle, invariance, minimality."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.autodiff.families import GradientFamily
from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.recovery.ranking.optimistic import merged, optimistic_sample_size
from fiberscope.invariants.recovery.ranking.ranks import empirical_rank, locally_recoverable, model_rank
from fiberscope.invariants.recovery.ranking.tangents import EXACT_ROWS, neuron_groups, sparse_rank, tangent_rows
from fiberscope.invariants.recovery.ranking.tied import DiagonalProduct, MatrixProduct, TiedNetwork
from fiberscope.models import chain, matrix_factorisation
from fiberscope.models.model import Model
from fiberscope.network import Network
from fiberscope.results import Rigor

VECTORS = json.loads((Path(__file__).parent / "data" / "recovery.json").read_text())
TRUTH = VECTORS["ground_truth"]
MEASURED = {row["name"]: row for row in VECTORS["measured"]["two_layer_ranks"]}


def decimal(rows):
    """The rationals that are printed, not the floats that are near them."""
    array = np.array(rows, dtype=object)
    return np.array([Fraction(str(v)) for v in array.reshape(-1)], dtype=object).reshape(array.shape)


def row_of(name):
    return activation(name, 0.25) if name == "leaky_relu" else activation(name)


# ---- oracle: singular values of derivatives written out by hand


def svd_rank(theta, index, outer, row, output_bias=False, seed=0):
    """Rank of the derivatives of sum_n outer_n s(theta[index_n] . (x, 1)); index -1 is the number 0."""
    rng = np.random.default_rng(seed)
    p, neurons = outer.shape
    d, size = index.shape[1] - 1, len(theta)
    count = 3 * (size + outer.size) + 30
    x = rng.standard_normal((count, d)) * np.exp(rng.uniform(-1, 1.5, (count, 1)))
    full = np.column_stack([x, np.ones(count)])
    z = full @ np.append(theta, 0.0)[index].T
    columns = []
    for t in range(size):
        hit = (index == t).astype(float)
        columns.append(np.einsum("sn,pn,sn->sp", row.derivative(z), outer, full @ hit.T).reshape(-1))
    for o in range(p):
        for n in range(neurons):
            part = np.zeros((count, p))
            part[:, o] = row(z[:, n])
            columns.append(part.reshape(-1))
    columns += [np.tile(np.eye(p)[o], (count, 1)).reshape(-1) for o in range(p) if output_bias]
    matrix = np.column_stack(columns)
    matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    values = np.linalg.svd(matrix, compute_uv=False)
    rank = int((values > 1e-9 * values[0]).sum())
    assert rank == len(values) or values[rank] < 1e-4 * values[rank - 1]  # the oracle knows what it says
    return rank


def tied_net(theta, index, outer, row, output_bias=False):
    rows = np.append(theta, 0.0)[index]
    return TiedNetwork(rows, index, outer, row, output_bias)


def random_tied(seed, name):
    """A network with an arbitrary pattern of ties, small integers, copies, zeros."""
    rng = np.random.default_rng(seed)
    neurons, d, size = int(rng.integers(1, 7)), int(rng.integers(1, 4)), int(rng.integers(2, 9))
    theta = rng.choice([-2.0, -1.0, 1.0, 2.0, 0.5], size)
    index = rng.integers(-1, size, (neurons, d + 1))
    index[:, 0] = rng.integers(0, size, neurons)  # no neuron without inputs: those are tested by hand
    if rng.random() < 0.5:
        index[:, -1] = -1
    used, compact = np.unique(index[index >= 0], return_inverse=True)
    index[index >= 0] = compact.reshape(-1)
    outer = rng.integers(-2, 3, (int(rng.integers(1, 3)), neurons)).astype(float)
    return theta[used], index, outer, row_of(name), bool(rng.random() < 0.3)


@pytest.mark.parametrize("name", EXACT_ROWS)
def test_exact_rank_is_that_of_singular_values(name):
    for seed in range(12):
        case = random_tied(seed, name)
        found = model_rank(tied_net(*case), method="exact")
        assert found.rigor is Rigor.EXACT
        assert found.rank == svd_rank(*case), (name, seed)


@pytest.mark.parametrize("name", EXACT_ROWS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_copies_opposites_and_quiet_neurons(name, outputs):
    """Classes of every kind in one dense network; the fast path and the sparse one must both be right."""
    rng = np.random.default_rng(outputs)
    for _ in range(3):
        w = rng.integers(-3, 4, (7, 2)).astype(float)
        b = rng.integers(1, 4, 7).astype(float)
        w[1], b[1] = -w[0], -b[0]
        w[2], b[2] = w[0], b[0]
        w[3] = w[6] = 0
        w[4], b[4] = 2 * w[0], 2 * b[0]
        a = rng.integers(-2, 3, (outputs, 7)).astype(float)
        row = row_of(name)
        net = Network.from_arrays((w, b), (a, None), activation=row)
        for bias in (True, False):
            for last in (True, False):
                exact = model_rank(net, method="exact", bias=bias, output_bias=last)
                index = np.arange(21).reshape(7, 3)
                if bias:
                    assert exact.rank == svd_rank(np.column_stack([w, b]).reshape(-1), index, a, row, last)
                numeric = model_rank(net, method="svd", bias=bias, output_bias=last)
                assert numeric.clear is row.analytic and exact.rank == numeric.rank
                assert exact.parameters == numeric.parameters
                tied = TiedNetwork.of(net, bias=bias, output_bias=last)
                assert sparse_rank(tangent_rows(tied, neuron_groups(tied))) == exact.rank


@pytest.mark.parametrize(("name", "rank"), [("tanh", 4), ("sigmoid", 5), ("softplus", 7), ("relu", 6), ("abs", 3)])
def test_two_opposite_neurons(name, rank):
    """By hand: tau and 3 slopes; sigmoid leaves 1, softplus and relu leave x1, x2, 1; |u| is one of its slopes."""
    net = TiedNetwork.dense([[1, 2], [-1, -2]], [3, -3], [1, 1], name)
    assert model_rank(net, method="exact").rank == rank


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(EXACT_ROWS), st.booleans(), st.booleans())
def test_classes_with_both_signs_leave_polynomials(seed, name, bias, last):
    """The closed form for dense networks against the rank over Q of all derivatives, with many copies of few rows."""
    rng = np.random.default_rng(seed)
    p, d, count = (int(rng.integers(1, high)) for high in (4, 4, 9))
    heads = rng.integers(-2, 3, (3, d + 1)).astype(float)
    e = rng.choice([-2.0, -1.0, 1.0], count) if row_of(name).homogeneity == 1 else rng.choice([-1.0, 1.0], count)
    rows = heads[rng.integers(0, 3, count)] * e[:, None]
    still = (rows == 0).all(axis=1)
    rows[still, -1] = rng.choice([-4.0, 4.0], int(still.sum()))  # away from kinks
    outer = rng.integers(-1, 2, (p, count)).astype(float)
    net = TiedNetwork.dense(rows[:, :-1], rows[:, -1], outer, row_of(name), output_bias=last, fixed_bias=not bias)
    assert model_rank(net, method="exact").rank == sparse_rank(tangent_rows(net, neuron_groups(net)))


# ---- vectors


def measured_networks():
    """The networks behind the measured ranks, with weights of our own."""
    rng = np.random.default_rng(5)
    out = {}
    for k in range(6):
        w, a = np.zeros((5, 3)), np.zeros(5)
        w[:k], a[:k] = rng.standard_normal((k, 3)), 1 + rng.random(k)
        out[f"FC m=5 d=3 null embedding of k={k}"] = TiedNetwork.dense(w, None, a)
    w = rng.standard_normal((5, 3))
    pair = w[[0, 1, 0, 1, 0]] * np.array([[1], [1], [-1], [1], [1]])
    out["FC condensed +-: m_w=2,m_a=2"] = TiedNetwork.dense(pair, None, [1, 2, 3, 4, 5])
    out["FC one a=0,w!=0: m_w=5,m_a=4"] = TiedNetwork.dense(w, None, [1, 2, 3, 4, 0])
    null = w.copy()
    null[4] = 0
    out["FC one w=0,a!=0: m_w=4,m_a=5"] = TiedNetwork.dense(null, None, [1, 2, 3, 4, 5])
    for k in (1, 2):
        kernels, a = rng.standard_normal((k, 3)), 1 + rng.random((k, 3))
        out[f"CNN1D share d=5 s=3 k={k}"] = TiedNetwork.convolution(kernels, a, 5)
        out[f"CNN1D noshare d=5 s=3 k={k}"] = TiedNetwork.convolution(kernels, a, 5, shared=False)
        out[f"CNN1D fn in FC d=5 s=3 k={k}"] = TiedNetwork.convolution(kernels, a, 5).connected()
    kernel = rng.standard_normal(3)
    twice = [kernel, kernel]
    out["CNN1D duplicate kernel, a independent: m_K=1,m_a=2"] = TiedNetwork.convolution(
        twice, [[1, 2, 3], [1, -1, 2]], 5
    )
    out["CNN1D duplicate kernel, a dependent: m_K=1,m_a=1"] = TiedNetwork.convolution(twice, [[1, 2, 3], [2, 4, 6]], 5)
    out["CNN1D shifted kernels (paper formula gives 2(d+1)=12)"] = TiedNetwork.convolution(
        [[0, 2, 3], [2, 3, 0]], [[1, 2, 3], [2, 5, 7]], 5
    )
    image, a = rng.standard_normal((1, 2, 2)), 1 + rng.random((1, 3, 3))
    out["CNN2D share d=4 s=2 k=1"] = TiedNetwork.convolution(image, a, (4, 4))
    out["CNN2D noshare d=4 s=2 k=1"] = TiedNetwork.convolution(image, a, (4, 4), shared=False)
    return out


def test_all_measured_ranks():
    networks = measured_networks()
    assert set(networks) == set(MEASURED)
    for name, net in networks.items():
        found = model_rank(net)
        assert found.rigor is Rigor.EXACT and found.rank == MEASURED[name]["exact"], name
        assert model_rank(net, method="svd").rank == MEASURED[name]["exact"], name


def test_a_shared_kernel_of_zeros_moves_polynomials_only():
    net = TiedNetwork.convolution([[0, 0, 0], [1, 2, 3]], [[1, 2, 3], [1, 1, 1]], 5)
    theta, index = np.array([0.0, 0, 0, 1, 2, 3]), net.index
    assert model_rank(net, method="exact").rank == svd_rank(theta, index, net.outer, net.activation) == 6 + 3


def test_shared_weights_of_neurons_without_inputs():
    """d f / d w = (s'(1) - s'(2)) x is not rational in any basis here, so singular values must say that it is not 0."""
    net = TiedNetwork(np.array([[0.0, 1], [0, 2]]), np.array([[0, 1], [0, 2]]), np.array([[1.0, -1]]), row_of("tanh"))
    with pytest.raises(ScopeError, match="shared"):
        model_rank(net, method="exact")
    assert model_rank(net).rank == 2 and model_rank(net).method == "svd"


def test_images_of_28_by_28():
    kernels, a = np.arange(1, 10).reshape(1, 3, 3), np.ones((1, 26, 26))
    net = TiedNetwork.convolution(kernels, a, (28, 28))
    assert model_rank(net).rank == 9 + 26**2 == 685
    assert model_rank(net.unshared()).rank == (9 + 1) * 26**2 == 6760
    assert model_rank(net.connected()).rank == 26**2 * (28**2 + 1) == 530660
    sizes = [optimistic_sample_size(net, kind) for kind in ("cnn", "cnn-unshared")]
    assert [(s.value, s.exact) for s in sizes] == [(685, True), (6760, True)]


def f_nl():
    """t0 + t1 x1 + t2 t3 x2."""

    def forward(tape, blocks, data):
        t, x = blocks[0], data[0]
        first = t.part(0, 1) + t.part(1, 2) * tape.constant(x[:, :, :1])
        return first + t.part(2, 3) * t.part(3, 4) * tape.constant(x[:, :, 1:])

    family = GradientFamily(
        "t0 + t1 x1 + t2 t3 x2", (("t", (4,)),), forward, lambda ring, rng, n: (ring.random(rng, (n, 1, 2)),), (1, 1)
    )
    return Model(family.name, family)


def test_nonlinear_toy():
    ranks = TRUTH["f_NL"]["rank_theta"]
    for theta, wanted in [([1, 2, 0, 0], ranks["t2=t3=0"]), ([1, 2, 3, 0], ranks["else"]), ([1, 2, 3, 4], 3)]:
        assert model_rank(f_nl(), at=theta).rank == wanted
        numeric = model_rank(f_nl(), at=theta, method="svd")
        assert numeric.rank == wanted and numeric.rigor is Rigor.NUMERICAL
    assert TRUTH["f_NL"]["O_f"] == {"a2=0": 2, "a2!=0": 3}


def test_diagonal_products():
    rng = np.random.default_rng(3)
    for depth in (2, 3, 5):
        a = rng.integers(-1, 2, (depth, 9)).astype(float)
        net = DiagonalProduct.of(a)
        found = model_rank(net)
        assert found.rank == sum((column == 0).sum() <= 1 for column in a.T)
        assert found.rank == np.linalg.matrix_rank(np.asarray(net.jacobian(), dtype=float))
        size = optimistic_sample_size([0, 3, 0, -1, 0], depth=depth)
        assert (size.value, size.exact, size.thresholds["parameters"]) == (2, True, 5 * depth)


def test_matrix_factorisation():
    for r, wanted in enumerate(TRUTH["matrix_fact"]["d4"]):
        target = np.diag([1.0] * r + [0.0] * (4 - r))
        size = optimistic_sample_size(target)
        assert (size.value, size.exact) == (wanted, True)
        assert model_rank(MatrixProduct.of(target, target)).rank == wanted == 16 - (4 - r) ** 2
    for name in ("M1", "M2", "M3"):
        matrix = TRUTH["matrices"][name]
        size = optimistic_sample_size(decimal(matrix["rows"]))
        assert (size.neurons, size.value) == (matrix["rank_exact"], matrix["O_f"])
    # the printed M5* is M3*: rank 2 and 12 samples, not rank 3 and 15
    assert optimistic_sample_size(decimal(TRUTH["matrices"]["M3"]["rows"])).value == 12


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_products_of_matrices_against_their_jacobian(widths, seed):
    rng = np.random.default_rng(seed)
    factors = [rng.integers(-1, 2, (b, a)).astype(float) for a, b in zip(widths, widths[1:], strict=False)]
    net = MatrixProduct.of(*factors)
    rank = model_rank(net).rank
    assert rank == np.linalg.matrix_rank(np.asarray(net.jacobian(), dtype=float))
    if len(factors) == 2:
        (_, q), (p, _) = factors[0].shape, factors[1].shape
        r_b, r_a = (np.linalg.matrix_rank(w) for w in factors)
        assert rank == p * q - (p - r_a) * (q - r_b)
    # no parameter that expresses the product has a smaller rank
    least = optimistic_sample_size(net.product(), "deep-linear", widths=widths[1:-1] or None)
    assert least.value <= rank or len(factors) == 1


def test_deep_linear_networks_and_their_models():
    net = Network.random((3, 2, 4, 2), activation="identity", seed=1)
    exact, numeric = model_rank(net), model_rank(net, method="svd")
    # slopes of rank 2 out of (3, 2) are all of R^6, and two biases
    assert (exact.rank, exact.method, exact.rigor) == (8, "lattice", Rigor.EXACT) and numeric.rank == 8
    factors = [layer.weight for layer in net.layers]
    assert model_rank(net, bias=False, output_bias=False).rank >= model_rank(MatrixProduct.of(*factors)).rank
    model = matrix_factorisation(3, 2, 4)
    theta = np.random.default_rng(0).integers(-3, 4, model.size)
    u, v = theta[:6].reshape(3, 2), theta[6:].reshape(4, 2)
    assert model_rank(model, at=theta).rank == model_rank(MatrixProduct.of(v.T, u)).rank == 10
    tanh = chain((2, 3, 1), "tanh")
    theta = np.random.default_rng(1).standard_normal(tanh.size)
    assert model_rank(tanh, at=theta).rank == 13 and model_rank(tanh, at=np.zeros(13)).rank == 1


def test_polynomial_networks():
    for seed in range(4):
        net = Network.random((2, 3, 2, 1), activation="square", seed=seed)
        assert model_rank(net, method="exact").rank == model_rank(net, method="svd").rank
    # four squares of linear forms in two variables span three quadratic forms, and no more
    w = np.array([[1, 0], [0, 1], [1, 1], [1, -2]])
    net = Network.from_arrays((w, None), (np.ones((1, 4)), None), activation="square")
    assert model_rank(net, bias=False, output_bias=False).rank == 3


def test_deep_networks_by_singular_values():
    net = Network.random((3, 4, 3, 2), activation="tanh", seed=2)
    found = model_rank(net)
    assert (found.rank, found.method) == (net.parameter_count, "svd") and found.clear
    doubled = Network.from_arrays(
        *(
            (np.repeat(np.repeat(layer.weight, 1 + (k < 2), 0) / (1 + (k > 0)), 1 + (k > 0), 1),
             np.repeat(layer.bias, 1 + (k < 2)))
            for k, layer in enumerate(net.layers)
        ),
        activation="tanh",
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((5, 3))
    assert np.allclose(doubled(x), net(x))
    assert model_rank(doubled).rank == net.parameter_count  # equal copies with equal outputs add nothing
    with pytest.raises(ScopeError):
        model_rank(net, method="exact")


# ---- invariance


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["tanh", "erf", "gaussian", "softplus", "relu", "sigmoid"]))
def test_rank_does_not_see_order_signs_or_units(seed, name):
    rng = np.random.default_rng(seed)
    row = activation(name)
    w, b, a = (rng.integers(-2, 3, shape).astype(float) for shape in ((5, 2), (5,), (1, 5)))
    w[(w == 0).all(axis=1)] = 1.0
    rank = model_rank(TiedNetwork.dense(w, b, a, row)).rank
    order = rng.permutation(5)
    assert model_rank(TiedNetwork.dense(w[order], b[order], a[:, order], row)).rank == rank
    if row.parity is not None:
        e = rng.choice([-1.0, 1.0], 5)
        back = e if row.parity == "odd" else 1
        assert model_rank(TiedNetwork.dense(w * e[:, None], b * e, a * back, row)).rank == rank
    if row.homogeneity == 1:
        e = 2.0 ** rng.integers(-3, 4, 5)
        assert model_rank(TiedNetwork.dense(w * e[:, None], b * e, a / e, row)).rank == rank
    assert model_rank(TiedNetwork.dense(w * 3, b * 3, a * 5, row)).rank == rank


def test_sparse_rank_against_dense():
    rng = np.random.default_rng(0)
    for _ in range(60):
        matrix = rng.integers(-1, 2, (6, 7)) * (rng.random((6, 7)) < 0.4)
        rows = [{("c", j): Fraction(int(v)) for j, v in enumerate(row) if v} for row in matrix]
        assert sparse_rank(rows) == np.linalg.matrix_rank(matrix)


# ---- optimistic sizes


def fig4():
    truth = TRUTH["fig4_target"]
    kernel, a = decimal([[0.6, 0.8, 1]]), [[1, 1, 1]]
    rows = decimal(truth["W"])
    net = TiedNetwork.convolution(kernel, a, 5, bias=[0])
    assert (net.rows[:, :-1] == rows).all()
    return truth, net


def test_three_architectures_of_one_target():
    truth, net = fig4()
    dense = optimistic_sample_size(net, "fc", widths=9)
    assert (dense.value, dense.exact, dense.neurons) == (truth["O_f"]["fc"], True, 3)
    alone = optimistic_sample_size(net, "cnn-unshared")
    assert (alone.value, alone.exact) == (truth["O_f"]["cnn_noshare"], True)
    shared = optimistic_sample_size(net, "cnn", widths=1)
    assert (shared.value, shared.exact) == (truth["O_f"]["cnn"], True)
    for m, m_fc, m_cnn in zip(truth["widths"], truth["M_fc"], truth["M_cnn"], strict=True):
        assert optimistic_sample_size(net, "fc", widths=m).thresholds["parameters"] == m_fc
        assert optimistic_sample_size(net, "cnn", widths=m // 3).thresholds["parameters"] == m_cnn
    assert optimistic_sample_size(net.network(), widths=2).value is None


def test_shifted_kernels_are_only_an_upper_bound():
    net = TiedNetwork.convolution([[0, 2, 3], [2, 3, 0]], [[1, 2, 3], [2, 5, 7]], 5)
    found = optimistic_sample_size(net, "cnn")
    assert (found.value, found.exact) == (10, False)
    alone = optimistic_sample_size(TiedNetwork.convolution([[0, 2, 3]], [[1, 2, 3]], 5), "cnn")
    assert (alone.value, alone.exact) == (6, False)  # minimality is proved for full kernels only
    full = TiedNetwork.convolution([[1, 2, 3], [2, 3, 1]], [[1, 2, 3], [2, 5, 7]], 5)
    assert (optimistic_sample_size(full, "cnn").value, optimistic_sample_size(full, "cnn").exact) == (12, True)


def test_windows_without_outgoing_weights():
    d, s, k = 5, 3, 2
    net = TiedNetwork.convolution([[1, 2, 3], [3, 1, 1]], [[1, 0, 3], [2, 5, 0]], d)
    # at this theta the formula with m_null = 2 holds; the minimum sets those windows to zero altogether
    assert model_rank(net.unshared()).rank == k * (s + 1) * (d + 1 - s) - s * 2
    assert optimistic_sample_size(net, "cnn-unshared").value == (s + 1) * (k * (d + 1 - s) - 2)
    assert model_rank(net.connected()).rank == k * (d + 1) * (d + 1 - s) - d * 2
    assert optimistic_sample_size(net, "fc", bias=False).value == (d + 1) * (k * (d + 1 - s) - 2)
    assert optimistic_sample_size(net, "cnn").value == model_rank(net).rank == k * (d + 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(EXACT_ROWS), st.integers(1, 2), st.booleans())
def test_no_parameter_that_expresses_the_target_has_a_smaller_rank(seed, name, outputs, last):
    """Split the neurons of a target in random ways, add neurons that are silent: the rank is never below the size."""
    rng = np.random.default_rng(seed)
    row = row_of(name)
    w = rng.integers(-3, 4, (3, 2)).astype(float) + np.eye(3, 2) / 4  # only the last may be 0
    b, a = rng.integers(-2, 3, 3).astype(float), rng.integers(-2, 3, (outputs, 3)).astype(float)
    target = Network.from_arrays((w, b), (a, None), activation=row)
    size = optimistic_sample_size(target, output_bias=last)
    copies = rng.integers(0, 3, 3)
    extra = rng.integers(-2, 3, (outputs, int(copies.sum()))).astype(float)
    source = np.repeat(np.arange(3), copies)
    left = a.copy()
    np.subtract.at(left, (slice(None), source), extra)
    silent = rng.integers(-2, 3, (2, 2)).astype(float) + np.array([[0.25, 0], [0, 0.25]])
    wide = Network.from_arrays(
        (np.concatenate([w, w[source], silent]), np.concatenate([b, b[source], [1.0, 0.0]])),
        (np.concatenate([left, extra, np.zeros((outputs, 2))], axis=1), None), activation=row,
    )  # fmt: skip
    x = rng.standard_normal((4, 2))
    assert np.allclose(wide(x), target(x))
    rank = model_rank(wide, output_bias=last).rank
    if size.exact:
        assert size.value <= rank
    again = optimistic_sample_size(wide, output_bias=last)
    assert (again.value, again.exact, again.neurons) == (size.value, size.exact, size.neurons)
    small = size.witness.network()
    gap = target(x) - small(x)
    assert np.allclose(gap, gap[:1] if last else 0.0)  # output biases may do what a neuron without inputs does
    assert model_rank(small, output_bias=last).rank == size.value or not len(size.witness.rows)


def test_signs_leave_a_remainder_for_sigmoid_but_not_for_tanh():
    pair = ([[1, 2], [-1, -2]], [1, -1]), ([[1, 1]], None)
    assert optimistic_sample_size(Network.from_arrays(*pair, activation="tanh")).value == 0
    found = optimistic_sample_size(Network.from_arrays(*pair, activation="sigmoid"))
    assert not found.exact and found.neurons == 2  # s(z) + s(-z) = 1 is more than a class
    assert merged(TiedNetwork.dense([[1, 2], [-1, -2]], [1, -1], [1, 1], "softplus")).outer.tolist() == [[1.0, 1.0]]


def test_a_scaling_of_relu_counts_once():
    net = TiedNetwork.dense([[1, 2], [2, 1]], [1, 0], [[1, 1], [1, 2]], "relu")
    size = optimistic_sample_size(net)
    assert (size.value, size.exact) == (2 * (3 + 2 - 1), True)
    assert [a.holds for a in size.assumes if a.checked] == [False]  # the theorem is about analytic models
    shared = optimistic_sample_size(TiedNetwork.convolution([[1, 2, 3]], [[1, 1, 2]], 5, activation="relu"), "cnn")
    assert (shared.value, shared.exact) == (3 + 3 - 1, True)


def test_a_silent_sigmoid_does_not_exist():
    nothing = Network.from_arrays(([[1.0]], [0.0]), ([[0.0]], None), activation="sigmoid")
    assert optimistic_sample_size(nothing).value == 1
    assert optimistic_sample_size(Network.from_arrays(([[1.0]], [0.0]), ([[0.0]], None), activation="tanh")).value == 0


def test_deep_targets_have_an_upper_bound():
    net = Network.random((3, 2, 4, 1), activation="tanh", seed=0).with_theta(np.arange(1, 26) / 8)
    shift = Network.from_arrays(
        *((q.weight, None if k == 2 else q.bias) for k, q in enumerate(net.layers)), activation="tanh"
    )
    found = optimistic_sample_size(shift, widths=(5, 6))
    assert (found.value, found.exact) == (3 * 2 + 2 * 4 + 4 + 2 + 4, False)
    assert found.thresholds["parameters"] == 3 * 5 + 5 * 6 + 6 + 5 + 6
    assert optimistic_sample_size(shift, widths=(1, 6)).value is None
    assert model_rank(shift, output_bias=False).rank <= found.value
    with pytest.raises(InputError, match="output bias"):
        optimistic_sample_size(net)


# ---- data


def test_local_recovery_needs_as_many_samples_as_the_rank():
    """The theorem: n >= O_f generic inputs are enough at the best parameter of a wide network, n = O_f - 1 are not."""
    target = TiedNetwork.dense([[1, 2], [2, -1]], [1, 0], [1, 3])
    size = optimistic_sample_size(target)
    w, b, a = np.zeros((6, 2)), np.zeros(6), np.zeros((1, 6))
    w[:2], b[:2], a[0, :2] = [[1, 2], [2, -1]], [1, 0], [1, 3]
    wide = Network.from_arrays((w, b), (a, None), activation="tanh")
    x = np.random.default_rng(0).standard_normal((size.value, 2))
    assert size.value == 8 and model_rank(wide, output_bias=False).rank == 8
    assert locally_recoverable(wide, x, output_bias=False)
    short = locally_recoverable(wide, x[:-1], output_bias=False)
    assert not short and short.empirical.rank == 7
    same = np.repeat(x[:4], 4, axis=0)
    assert not locally_recoverable(wide, same, output_bias=False)  # enough data, but not generic


def test_entries_of_a_matrix():
    net = MatrixProduct.of([[1, 1, 1]], [[1], [2], [3]])
    every = [(i, j) for i in range(3) for j in range(3)]
    assert locally_recoverable(net, entries=every)
    cross = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]
    block = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    assert locally_recoverable(net, entries=cross) and not locally_recoverable(net, entries=block)
    assert empirical_rank(net, x=np.eye(3)).rank == 5 and empirical_rank(net, x=np.eye(3)[:1]).rank == 3
    assert empirical_rank(DiagonalProduct.of([[1, 2], [3, 4]]), [[1, 0], [2, 0]]).rank == 1
    linear = Network.from_arrays(([[1.0, 2.0]], [1.0]), ([[3.0]], [0.0]), activation="identity")
    found = empirical_rank(linear, [[0, 0], [1, 0], [0, 1], [1, 1]])
    assert (found.rank, found.rigor) == (3, Rigor.EXACT)


# ---- what is refused, what is written


def test_refusals():
    net = TiedNetwork.dense([[1, 2]], None, [1])
    for call in (
        lambda: model_rank(net, method="guess"),
        lambda: model_rank(net, at=[1, 2, 3]),
        lambda: model_rank(f_nl()),
        lambda: model_rank(f_nl(), at=[1, 2]),
        lambda: model_rank([1, 2]),
        lambda: empirical_rank(net, [[1, 2, 3]]),
        lambda: empirical_rank(net),
        lambda: MatrixProduct.of([[1, 2]], [[1, 2]]),
        lambda: DiagonalProduct.of([1, 2]),
        lambda: TiedNetwork.convolution([[1, 2, 3]], [[1, 1, 1, 1]], 5),
        lambda: TiedNetwork.convolution([[1, 2, 3]], [[1]], 2),
        lambda: optimistic_sample_size(net, "rnn"),
        lambda: optimistic_sample_size(net, "diagonal"),
        lambda: optimistic_sample_size(net, "cnn"),
        lambda: optimistic_sample_size([1, 2], "fc"),
        lambda: optimistic_sample_size([1, 2], "factorisation"),
        lambda: optimistic_sample_size(TiedNetwork.dense([[1]], [1], [1]), bias=False),
    ):
        with pytest.raises(InputError):
            call()
    kink = Network.from_arrays(([[0.0]], [0.0]), ([[1.0]], None), activation="relu")
    with pytest.raises(ScopeError, match="no derivative at 0"):
        model_rank(kink, method="exact")
    assert model_rank(kink).method == "svd"
    sine = Network.from_arrays(([[1.0], [1.0], [1.0]], [0, 1, 2]), ([[1, 1, 1]], None), activation="sin")
    assert model_rank(sine).method == "svd"
    with pytest.raises(ScopeError):
        optimistic_sample_size(sine)


def test_biases_trained_on_some_neurons_only():
    """Five tanh parameters of two neurons that differ: all count, whichever of the neurons has the trained bias."""
    rows, index = np.array([[1.0, 0.5], [2.0, 0.3]]), np.array([[0, 1], [2, -1]])
    for order in ([0, 1], [1, 0]):
        net = TiedNetwork(rows[order], index[order], np.array([[1.0, 1.0]]), activation("tanh"))
        assert not net.untied and net.parameters == 5
        assert model_rank(net, method="exact").rank == model_rank(net, method="svd").rank == 5


def test_tied_entries_are_equal():
    index = np.array([[0, -1], [0, -1]])
    for rows in (np.array([[1.0, 0], [2, 0]]), np.array([[Fraction(1), Fraction(0)], [Fraction(2), Fraction(0)]])):
        with pytest.raises(InputError, match="parameter 0 differ"):
            TiedNetwork(rows, index, np.array([[1.0, 1.0]]), activation("tanh"))
    assert TiedNetwork(np.array([[2.0, 1], [2, 3]]), index, np.array([[1.0, 1.0]]), activation("tanh")).parameters == 3


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs"])
def test_singular_values_of_kinked_networks_are_a_lower_bound(name):
    """The second neuron's kink is far from all inputs: there it seems to do nothing, or to be linear."""
    net = Network.from_arrays(([[1.0], [1.0]], [0.5, -1e6]), ([[1.0, 2.0]], None), activation=row_of(name))
    found = model_rank(net, method="svd")
    assert found.lower and not found.clear and found.to_dict()["lower"] is True and "at least" in str(found)
    assert found.rank < model_rank(net, method="exact").rank
    tied = model_rank(TiedNetwork.of(net), method="svd")
    assert tied.lower and not tied.clear
    assert "at least" in str(
        locally_recoverable(Network.random((2, 3, 3, 1), activation=row_of(name), seed=0), np.eye(2))
    )
    far = Network.from_arrays(([[1.0]], [-1e6]), ([[1.0]], [0.0]), ([[1.0]], [0.0]), activation=row_of(name))
    local = locally_recoverable(far, np.linspace(0, 4e6, 9)[:, None])  # data on both sides of the far kink
    assert local.model.lower and local.model.rank >= local.empirical.rank
    smooth = model_rank(Network.random((2, 3, 1), activation="tanh", seed=0), method="svd")
    assert smooth.clear and not smooth.lower and "at least" not in str(smooth) and "linearised" in str(smooth)


def test_reports_are_json():
    net = TiedNetwork.dense([[1, 2], [1, 2], [0, 0]], [1, 1, 2], [1, 2, 3])
    for result in (
        model_rank(net),
        model_rank(net, method="svd"),
        locally_recoverable(net, np.eye(2)),
        optimistic_sample_size(net, widths=7),
        optimistic_sample_size([[1, 2], [2, 4]], widths=1),
        optimistic_sample_size([[1, 2], [2, 5]], widths=1),
    ):
        assert json.loads(result.to_json())["theorems"] == list(result.theorems) and str(result)
    assert model_rank(net).to_dict()["class_sizes"] == [2] and model_rank(net).quiet == (2,)
