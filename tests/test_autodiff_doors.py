"""JAX functions and torch modules as families of gradient fields: the same numbers as our own kernel."""

from __future__ import annotations

import numpy as np
import pytest

from fiberscope.activations import activation
from fiberscope.autodiff.floats import ROWS, FloatFamily, Inputs, NumpyFamily, in_chunks
from fiberscope.autodiff.jax import jax_family
from fiberscope.autodiff.torch import torch_family
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.invariants.submanifolds.invariance import is_invariant
from fiberscope.models.chains import chain_family
from fiberscope.results import Answer

THETA = np.random.default_rng(0).standard_normal(13)


def kernel(name="tanh"):
    return NumpyFamily(chain_family((2, 3, 1), [activation(name)]), THETA)


def of_jax(name="tanh", theta=THETA, **options):
    jax = pytest.importorskip("jax")
    slope = {"tanh": jax.numpy.tanh, "gelu": lambda z: jax.nn.gelu(z, approximate=False)}[name]
    parameters = [
        {"kernel": theta[:6].reshape(3, 2), "shift": theta[6:9]},
        {"kernel": theta[9:12].reshape(1, 3), "shift": theta[12:]},
    ]

    def function(p, x):
        h = slope(p[0]["kernel"] @ x + p[0]["shift"])
        return p[1]["kernel"] @ h + p[1]["shift"]

    return jax_family(function, parameters, (2,), **options)


def of_torch(name="tanh", theta=THETA, **options):
    torch = pytest.importorskip("torch")
    middle = {"tanh": torch.nn.Tanh, "gelu": torch.nn.GELU}[name]()
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), middle, torch.nn.Linear(3, 1)).double()
    torch.nn.utils.vector_to_parameters(torch.tensor(theta), net.parameters())
    return torch_family(net, (2,), **options)


def of_kernel_data(data):
    """The kernel keeps the sample axis and the shape of the output."""
    return tuple(a[:, None] for a in data)


@pytest.mark.parametrize("name", ["tanh", "gelu"])
@pytest.mark.parametrize("door", [of_jax, of_torch])
def test_the_doors_agree_with_the_kernel(door, name):
    family, own = door(name), kernel(name)
    assert isinstance(family, FloatFamily) and isinstance(own, FloatFamily)
    assert family.size == 13 and np.array_equal(family.start, THETA)
    rng = np.random.default_rng(1)
    data = [family.draw(rng, 5) for _ in range(3)]
    same = [of_kernel_data(d) for d in data]
    assert np.abs(family.fields(THETA, data[0]) - own.fields(THETA, same[0])).max() < 1e-14
    points = rng.standard_normal((5, 13))
    assert np.abs(family.fields(points, data[0]) - own.fields(points, same[0])).max() < 1e-14
    assert np.array_equal(family.fields(THETA[None], data[0]), family.fields(THETA, data[0]))
    vectors = rng.standard_normal((4, 13))
    one, one_own = tuple(a[:1] for a in data[0]), tuple(a[:1] for a in same[0])
    assert np.abs(family.tangent(THETA, vectors, one) - own.tangent(THETA, vectors, one_own)).max() < 1e-14
    found, wanted = family.brackets(THETA, data), own.brackets(THETA, same)
    assert len(found) == 3 and all(np.abs(a - b).max() < 1e-13 for a, b in zip(found, wanted, strict=True))
    assert np.abs(wanted[2]).max() > 1e-3


def test_order_of_parameters_and_their_names():
    jax = pytest.importorskip("jax")
    family = of_jax()
    assert [name for name, _ in family.blocks] == ["[0]['kernel']", "[0]['shift']", "[1]['kernel']", "[1]['shift']"]
    assert np.array_equal(family.unravel(THETA)[1]["kernel"], THETA[9:12].reshape(1, 3))
    swapped = jax_family(lambda p, x: p["b"] * x + p["a"], {"b": np.array(2.0), "a": np.array(5.0)}, ())
    assert swapped.start.tolist() == [5.0, 2.0]  # keys are sorted
    del jax
    assert [name for name, _ in of_torch().blocks] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_no_global_state_changes():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    family = of_jax()
    field = family.fields(THETA, family.draw(np.random.default_rng(0), 2))
    assert field.dtype == np.float64 and jax.config.jax_enable_x64 == before
    assert jax.numpy.ones(1).dtype == (np.float64 if before else np.float32)


@pytest.mark.parametrize("door", [of_jax, of_torch])
def test_single_precision(door):
    exact, single = door(), door(dtype="float32")
    data = exact.draw(np.random.default_rng(0), 6)
    error = np.abs(exact.fields(THETA, data) - single.fields(THETA, data)).max()
    assert 1e-9 < error < 1e-5
    with pytest.raises(InputError, match="float16"):
        door(dtype="float16")


def attention(jax):
    rng = np.random.default_rng(3)
    names = ("query", "key", "value", "out")
    parameters = {n: rng.standard_normal((4, 4)) / 2 for n in names}

    def function(p, x):  # x (tokens, 4)
        scores = (x @ p["query"]) @ (x @ p["key"]).T / 2
        return jax.nn.softmax(scores, axis=-1) @ (x @ p["value"]) @ p["out"]

    return parameters, function


def test_attention_brackets_in_both_frameworks():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    parameters, function = attention(jax)
    examples = np.random.default_rng(4).standard_normal((6, 3, 4))
    left = jax_family(function, parameters, examples)

    def same(p, x):
        scores = (x @ p["query"]) @ (x @ p["key"]).T / 2
        return torch.softmax(scores, dim=-1) @ (x @ p["value"]) @ p["out"]

    tensors = {name: torch.tensor(parameters[name]) for name in sorted(parameters)}
    right = torch_family((same, tensors), examples, batch=False)
    assert np.array_equal(left.start, right.start)
    rng = np.random.default_rng(5)
    data = [left.draw(rng, 3) for _ in range(2)]
    assert all(any(np.array_equal(x, e) for e in examples) for x in data[0][1])
    for a, b in zip(left.brackets(left.start, data), right.brackets(left.start, data), strict=True):
        assert np.abs(a - b).max() < 1e-11 * np.abs(a).max()
    # Q^T Q - K^T K is conserved: its symmetries are orthogonal to every field
    field = left.fields(left.start, data[0])
    p = left.unravel(field[0])
    law = parameters["query"].T @ p["query"] - parameters["key"].T @ p["key"]
    assert np.abs(law + law.T).max() < 1e-13 and np.abs(law).max() > 1e-3


def convolution(torch):
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 2)
    ).eval()  # fmt: skip


def test_modules_with_buffers_and_derivatives_by_differences():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    encoder = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    for net, shape in ((convolution(torch), (1, 6, 6)), (encoder, (3, 4))):
        before = {name: t.clone() for name, t in net.state_dict().items()}
        family = torch_family(net, shape)
        rng = np.random.default_rng(0)
        one = family.draw(rng, 1)
        v = rng.standard_normal(family.size)
        h = 1e-5
        sides = family.fields(
            np.stack([family.start + h * v, family.start - h * v]), tuple(np.repeat(a, 2, 0) for a in one)
        )
        difference = (sides[0] - sides[1]) / (2 * h)
        exact = family.tangent(family.start, v[None], one)[0]
        assert np.abs(difference - exact).max() < 1e-5 * max(1.0, np.abs(exact).max())
        outputs = family.brackets(family.start, [family.draw(rng, 2) for _ in range(2)])
        assert np.isfinite(outputs[1]).all()
        after = net.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(p.grad is None and p.dtype == torch.float32 for p in net.parameters())


def test_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    net = convolution(torch).double()
    net[0].weight.requires_grad_(False)  # not trained, so no coordinate of theta
    family = torch_family(net, (1, 6, 6))
    assert "0.weight" not in [name for name, _ in family.blocks]
    c, x = family.draw(np.random.default_rng(0), 1)
    (net(torch.tensor(x)) * torch.tensor(c)).sum().backward()
    wanted = np.concatenate([p.grad.numpy().reshape(-1) for p in net.parameters() if p.requires_grad])
    assert np.abs(family.fields(family.start, (c, x))[0] - wanted).max() < 1e-13


def test_tokens_as_inputs():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Flatten(), torch.nn.Linear(6, 2))
    family = torch_family(net, np.array([[0, 1], [2, 2]]))
    fields = family.fields(family.start, family.draw(np.random.default_rng(0), 20))
    assert fields.shape == (20, family.size)
    assert np.abs(fields[:, 9:15]).max() == 0 and np.abs(fields[:, :9]).max() > 0  # tokens 3 and 4 do not occur


def test_refusals_of_torch():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    with pytest.raises(InputError, match=r"Dropout \(1\) is in training mode"):
        torch_family(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), (2,))
    torch_family(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)), (2,))
    with pytest.raises(InputError, match="batch"):
        torch_family(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), (2,))
    with pytest.raises(InputError, match="requires gradients"):
        torch_family(nn.Linear(2, 2).requires_grad_(False), (2,))
    with pytest.raises(UnsupportedError, match="fails on one input"):
        torch_family(nn.Linear(2, 2), (3,))

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(2, 2)

        def forward(self, x):
            return nn.functional.dropout(self.part(x), 0.5, True)

    noisy = torch_family(Noisy(), (2,))
    with pytest.raises(UnsupportedError, match="random"):
        noisy.fields(noisy.start, noisy.draw(np.random.default_rng(0), 2))
    deep = of_torch()
    with pytest.raises(InputError, match="depth 6"):
        deep.brackets(THETA, [deep.draw(np.random.default_rng(0), 1)] * 6)


def test_refusals_of_jax():
    jax = pytest.importorskip("jax")
    with pytest.raises(InputError, match="float arrays"):
        jax_family(lambda p, x: p[0] * x, [np.array(1.0), np.array(2)], (1,))
    with pytest.raises(InputError, match="float arrays"):
        jax_family(lambda p, x: x, [jax.numpy.tanh], (1,))
    with pytest.raises(InputError, match="no number"):
        jax_family(lambda p, x: x, [], (1,))
    with pytest.raises(UnsupportedError, match="cannot trace"):
        jax_family(lambda p, x: p["absent"], {"a": np.ones(2)}, (1,))
    with pytest.raises(InputError, match="real floats"):
        jax_family(lambda p, x: 1j * p["a"], {"a": np.ones(2)}, (1,))
    deep = of_jax()
    with pytest.raises(InputError, match="depth 5"):
        deep.brackets(THETA, [deep.draw(np.random.default_rng(0), 1)] * 5)


def test_inputs():
    rng = np.random.default_rng(0)
    rows = np.arange(6.0).reshape(3, 2)
    assert {tuple(r) for r in Inputs.of(rows).draw(rng, 50)} == {(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)}
    assert Inputs.of((2, 3)).draw(rng, 4).shape == (4, 2, 3)
    assert Inputs.of(lambda g, n: g.uniform(2, 3, (n, 2))).draw(rng, 4).min() >= 2
    for bad in (np.zeros((0, 2)), np.array(["a"]), np.array([[np.nan]]), np.float64(3.0), lambda g, n: np.zeros(3)):
        with pytest.raises(InputError):
            Inputs.of(bad)


def test_chunks_change_nothing():
    family = kernel()
    data = family.draw(np.random.default_rng(0), ROWS + 7)
    fields = family.fields(THETA, data)
    assert fields.shape == (ROWS + 7, 13)
    assert np.array_equal(fields[-1], family.fields(THETA, tuple(a[-1:] for a in data))[0])
    assert in_chunks(lambda s: np.arange(10.0)[s, None], 10, 3).reshape(-1).tolist() == list(range(10))
    with pytest.raises(InputError, match="13 parameters"):
        NumpyFamily(family.family, np.zeros(3))


@pytest.mark.parametrize("door", [of_jax, of_torch])
def test_invariant_sets_of_functions(door):
    family = door()
    names = [name for name, _ in family.blocks]
    equations = np.zeros((4, 13))
    for row, (i, j) in enumerate(((0, 2), (1, 3), (6, 7), (9, 10))):  # neurons 0 and 1 are equal
        equations[row, i], equations[row, j] = 1, -1
    assert is_invariant(equations, family).answer is Answer.UNDECIDED
    verdict = is_invariant(equations[:3], family)  # but not if the outgoing weights differ
    assert verdict.answer is Answer.NO and verdict.counterexample["rigor"] == "NUMERICAL"
    assert names[0] in verdict.counterexample["equation"] or names[1] in verdict.counterexample["equation"]
