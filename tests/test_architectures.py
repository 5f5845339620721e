"""Architectures: chains, exchange of neurons in models written out in NumPy, and colour refinement against oracles."""

import itertools
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io.state_dicts import activations_for
from fiberscope.network import Network
from fiberscope.neurons import colour_classes
from fiberscope.symmetries import laws
from fiberscope.training.architectures.architecture import Architecture, Axis, Law, Population, Slot
from fiberscope.training.architectures.chains import architecture_of, chain_architecture, flattened, parameters_of
from fiberscope.training.architectures.exchange import confirmed, defects, exchanged
from fiberscope.training.architectures.refinement import constant_blocks, refine


def slot(name, shape, *axes, view=None, take=None):
    labels = tuple(None if a is None else Axis(a[1:], "in" if a[0] == ">" else "out") for a in axes)
    return Slot(name, shape, view or shape, labels, take)


# ---- models in NumPy

RELU = activation("relu")


def cnn(seed=0, dtype=np.float64):
    """Convolution, ReLU, batch normalisation with fixed statistics, flatten, dense: (architecture, parameters, f)."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv.weight": (5, 2, 3, 3), "conv.bias": (5,), "next.weight": (4, 5, 2, 2),
        "bn.weight": (4,), "bn.bias": (4,), "bn.mean": (4,), "bn.var": (4,),
        "fc.weight": (3, 4 * 9), "fc.bias": (3,),
    }  # fmt: skip
    parameters = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    parameters["bn.var"] = np.abs(parameters["bn.var"]) + dtype(0.1)
    x = rng.standard_normal((3, 2, 6, 6)).astype(dtype)
    slots = (
        slot("conv.weight", shapes["conv.weight"], ">conv", None, None, None), slot("conv.bias", (5,), ">conv"),
        slot("next.weight", shapes["next.weight"], ">next", "<conv", None, None),
        *(slot(f"bn.{k}", (4,), ">next") for k in ("weight", "bias", "mean", "var")),
        slot("fc.weight", (3, 36), None, "<next", None, view=(3, 4, 9)), slot("fc.bias", (3,), None),
    )  # fmt: skip
    populations = (
        Population("conv", 5, "channels", RELU, null=True),
        Population("next", 4, "channels", RELU, null=True, normalised=True),
    )
    rules = (
        Law("|conv.weight|^2 + conv.bias^2 - |next.weight|^2", "balance", "conv", (0, 1), (2,)),
        Law("bn.weight^2 + bn.bias^2 - |fc.weight|^2", "balance", "next", (3, 4), (7,)),
        Law("|next.weight|^2", "scale", "next", (2,)),
    )

    def convolved(h, kernel):
        windows = np.lib.stride_tricks.sliding_window_view(h, kernel.shape[2:], axis=(2, 3))
        return np.einsum("ncijkl,ockl->noij", windows, kernel)

    def evaluate(p, *, batch=False):
        h = np.maximum(convolved(x, p["conv.weight"]) + p["conv.bias"][:, None, None], 0)
        h = convolved(h, p["next.weight"])[:, :, :3, :3]
        mean, var = (h.mean((0, 2, 3)), h.var((0, 2, 3))) if batch else (p["bn.mean"], p["bn.var"])
        h = (h - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
        h = np.maximum(h * p["bn.weight"][:, None, None] + p["bn.bias"][:, None, None], 0)
        return h.reshape(3, -1) @ p["fc.weight"].T + p["fc.bias"]

    return Architecture(slots, populations, rules), parameters, evaluate


def attention(seed=0, rotary=False):
    """Embedding, a fused self-attention, a residual matrix on the stream and a head: (architecture, parameters, f)."""
    rng = np.random.default_rng(seed)
    s, heads, d = 6, 3, 4
    shapes = {
        "emb": (7, s), "gain": (s,), "qkv": (3 * heads * d, s), "qkv.bias": (3 * heads * d,),
        "o": (s, heads * d), "mix": (s, s), "head": (2, s),
    }  # fmt: skip
    parameters = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    slots = [slot("emb", (7, s), None, ">stream"), slot("gain", (s,), ">stream")]
    for k, (name, role) in enumerate((("qk", ">"), ("qk", "<"), ("vo", ">"))):
        part = (0, k * heads, (k + 1) * heads)
        slots += [
            slot("qkv", shapes["qkv"], ">heads", role + name, "<stream", view=(3 * heads, d, s), take=part),
            slot("qkv.bias", shapes["qkv.bias"], ">heads", role + name, view=(3 * heads, d), take=part),
        ]
    slots += [
        slot("o", shapes["o"], ">stream", "<heads", "<vo", view=(s, heads, d)),
        slot("mix", (s, s), ">stream", "<stream"),
        slot("head", (2, s), None, "<stream"),
    ]
    populations = (
        Population("stream", s, "stream"),
        Population("heads", heads, "heads", null=True),
        Population("qk", d, "factors", signs=not rotary, null=not rotary, exchangeable=not rotary),
        Population("vo", d, "factors", signs=True, null=True),
    )
    kind = "rotary" if rotary else "matrix"
    rules = (
        Law("Q Q^T - K K^T", kind, "qk", (2, 3), (4, 5), per="heads"),
        Law("V V^T - O^T O", "matrix", "vo", (6, 7), (8,), per="heads"),
    )
    tokens = rng.integers(0, 7, (2, 5))

    def turned(v):
        if not rotary:
            return v
        angle = np.arange(5)[:, None] * 0.7 ** np.arange(d // 2)
        a, b = v[..., : d // 2], v[..., d // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=-1)

    def evaluate(p):
        h = p["emb"][tokens]
        n = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * p["gain"]
        q, k, v = (n @ p["qkv"].T + p["qkv.bias"]).reshape(2, 5, 3, heads, d).transpose(2, 0, 3, 1, 4)
        weight = np.exp(turned(q) @ turned(k).swapaxes(-1, -2) / 8)
        out = (weight / weight.sum(-1, keepdims=True)) @ v
        h = h + out.transpose(0, 2, 1, 3).reshape(2, 5, heads * d) @ p["o"].T
        h = h + h @ p["mix"].T
        return h @ p["head"].T

    return Architecture(tuple(slots), populations, rules), parameters, evaluate


MODELS = {"cnn": cnn, "attention": attention}


# ---- chains


def chain_value(model, parameters, x):
    h = x
    for dense in model.chain:
        weight = parameters[dense.weight].T if dense.transposed else parameters[dense.weight]
        h = dense.activation(h @ weight.T + (0 if dense.bias is None else parameters[dense.bias]))
    return h


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["relu", "tanh", "square", "identity", "sigmoid"])
def test_a_network_and_its_architecture_are_the_same_function(name, transposed):
    net = Network.random((3, 4, 5, 2), activation=name, seed=1)
    model, values = chain_architecture(net, transposed=transposed), parameters_of(net, transposed=transposed)
    x = np.random.default_rng(0).standard_normal((6, 3))
    np.testing.assert_allclose(chain_value(model, values, x), net(x), rtol=1e-12)
    np.testing.assert_array_equal(model.network(values)(x), net(x))
    assert model == chain_architecture((3, 4, 5, 2), activation=name, transposed=transposed)
    assert model.parameter_count == net.parameter_count == sum(v.size for v in values.values())
    assert [p.signs for p in model.populations] == [name in ("tanh", "identity")] * 2
    assert [p.null for p in model.populations] == [name != "sigmoid"] * 2
    assert {law.kind for law in model.laws} == {
        "relu": {"balance"}, "square": {"balance"}, "identity": {"matrix"}, "tanh": set(), "sigmoid": set()
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", ["relu", "square", "abs"])
def test_balances_have_the_values_of_the_known_laws(name):
    net = Network.random((2, 3, 4, 2), activation=name, seed=2)
    model, values = chain_architecture(net), parameters_of(net)
    known = [law for law in laws(net).entries if law.name == "balance"]
    assert len(known) == len(model.laws) == 2
    theta = np.array([float(v) for v in net.theta])
    for law, expected in zip(model.laws, known, strict=True):
        q = sum((rows**2).sum(axis=1) for s, rows in model.rows(values, law.population) if s in law.plus)
        q = q - law.degree * sum((r**2).sum(axis=1) for s, r in model.rows(values, law.population) if s in law.minus)
        np.testing.assert_allclose(q, expected.evaluate(theta), rtol=1e-12)


def test_names_of_laws_and_parameters():
    model = chain_architecture((2, 3, 1), names=["fc1", "fc2"])
    assert model.laws[0].name == "|fc1.weight|^2 + fc1.bias^2 - |fc2.weight|^2"
    model = chain_architecture((2, 3, 1), names=["a", "b"], transposed=True, biases=False, activation="identity")
    assert model.laws[0].name == "a.kernel^T a.kernel - b.kernel b.kernel^T"
    assert [s.shape for s in model.slots] == [(2, 3), (3, 1)]
    with pytest.raises(InputError, match="2 names"):
        chain_architecture((2, 3, 4, 1), names=["a", "b"])
    with pytest.raises(InputError, match="at least two"):
        chain_architecture((2,))


def test_a_network_read_from_tensors_keeps_their_names(tmp_path):
    import fiberscope as fs

    tensors = {"body.fc1.weight": np.ones((3, 2)), "body.fc1.bias": np.ones(3), "body.fc2.weight": np.ones((1, 3))}
    net = fs.load(tensors, activation="relu")
    model, values = chain_architecture(net), parameters_of(net)
    assert list(values) == list(tensors) and [p.name for p in model.populations] == ["body.fc1"]
    assert [s.name for s in model.slots] == list(tensors)


@pytest.mark.parametrize("model", [
    chain_architecture((2, 3, 4, 1), activation=["leaky_relu", "tanh"]), cnn()[0], attention()[0],
    chain_architecture((2, 3, 1)).without("1", "why not"),
])  # fmt: skip
def test_documents_go_round(model):
    again = Architecture.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again == model


def test_a_chain_is_guessed_from_flat_and_nested_names():
    shapes = [(3, 4), (4, 5), (5, 2)]
    nested = {"params": {f"Dense_{k}": {"kernel": np.ones(s), "bias": np.ones(s[1])} for k, s in enumerate(shapes)}}
    model = architecture_of(nested, activation="tanh")
    assert [(p.name, p.count) for p in model.populations] == [("params/Dense_0", 4), ("params/Dense_1", 5)]
    assert model.chain[0].transposed and len(model.chain) == 3 and not model.skipped
    values = {k: np.random.default_rng(0).standard_normal(v.shape) for k, v in flattened(nested).items()}
    x = np.random.default_rng(1).standard_normal((4, 3))
    h = np.tanh(np.tanh(x @ values["params/Dense_0/kernel"] + values["params/Dense_0/bias"])
                @ values["params/Dense_1/kernel"] + values["params/Dense_1/bias"])  # fmt: skip
    expected = h @ values["params/Dense_2/kernel"] + values["params/Dense_2/bias"]
    np.testing.assert_allclose(model.network(values)(x), expected, rtol=1e-10)

    flat = {"0.weight": np.ones((4, 3)), "2.weight": np.ones((2, 4)), "log_std": np.ones(4), "count": np.array(3)}
    model = architecture_of(flat, activation="relu")
    assert [d.bias for d in model.chain] == [None, None]
    assert [s.name for s in model.skipped] == ["log_std", "count"] and model.populations


def test_what_names_do_not_tell_is_not_guessed():
    dense = {"fc1.weight": np.ones((4, 3)), "fc2.weight": np.ones((2, 4))}
    norm = architecture_of({**dense, "norm.weight": np.ones(4), "norm.bias": np.ones(4)}, activation="relu")
    assert not norm.populations and not norm.laws and "norm.weight has 4 entries" in norm.skipped[-1].reason
    with pytest.raises(UnsupportedError, match="convolution"):
        architecture_of({"c.weight": np.ones((4, 3, 3, 3)), **dense}, activation="relu")
    with pytest.raises(UnsupportedError, match="no weights"):
        architecture_of({"a": np.ones(3)}, activation="relu")
    plain = architecture_of(dense)
    assert plain.populations == (Population("fc1", 4),) and not plain.laws and not plain.chain
    assert "not given" in plain.skipped[0].reason
    with pytest.raises(InputError, match="not a tensor"):
        architecture_of({**dense, "name": "x"}, activation="relu")


def test_chains_beside_each_other():
    rng = np.random.default_rng(0)
    sizes = {"pi.0": (8, 3), "pi.2": (2, 8), "v.0": (6, 3), "v.2": (1, 6)}
    values = {f"{k}.weight": rng.standard_normal(s) for k, s in sizes.items()}
    model = architecture_of(values, activation="tanh")
    assert [(p.name, p.count) for p in model.populations] == [("pi.0", 8), ("v.0", 6)] and not model.chain
    one = architecture_of(values, activation="tanh", part="v")
    assert [p.name for p in one.populations] == ["v.0"] and [s.name for s in one.skipped][0] == "pi.0.weight"
    with pytest.raises(InputError, match="2 chains"):
        architecture_of(values, activation=["tanh", "relu"])
    with pytest.raises(InputError, match="no part"):
        architecture_of(values, activation="tanh", part="q")


# ---- exchange


@pytest.mark.parametrize("kind", MODELS)
def test_exchange_keeps_function_and_distances(kind):
    model, values, f = MODELS[kind]()
    _, others, _ = MODELS[kind](seed=1)
    rng = np.random.default_rng(5)
    for p in model.populations:
        order = np.roll(np.arange(p.count), 1)
        signs = rng.choice([-1, 1], p.count) if p.signs else None
        new = exchanged(model, values, p.name, order, signs)
        np.testing.assert_allclose(f(new), f(values), rtol=1e-9, atol=1e-9)
        assert max(np.abs(np.asarray(new[k]) - values[k]).max() for k in values) > 0.1  # something moved
        moved = exchanged(model, others, p.name, order, signs)
        before = sum(((values[k] - others[k]) ** 2).sum() for k in values)
        assert sum(((new[k] - moved[k]) ** 2).sum() for k in values) == pytest.approx(before)
        back = exchanged(model, new, p.name, np.argsort(order), None if signs is None else signs[np.argsort(order)])
        assert all(np.array_equal(back[k], values[k]) for k in values)


def test_slices_go_where_the_permutation_says():
    model, values, _ = cnn()
    order = [3, 1, 4, 0, 2]
    new = exchanged(model, values, "conv", order)
    np.testing.assert_array_equal(new["next.weight"], values["next.weight"][:, order])
    np.testing.assert_array_equal(new["conv.bias"], values["conv.bias"][order])
    assert new["fc.weight"] is values["fc.weight"]
    for wrong in ([0, 1, 2, 3, 3], [0, 1], [0, 1, 2, 3, 5]):
        with pytest.raises(InputError, match="permutation"):
            exchanged(model, values, "conv", wrong)
    with pytest.raises(InputError, match="not odd"):
        exchanged(model, values, "conv", order, [1, -1, 1, 1, 1])
    with pytest.raises(InputError, match="no population"):
        exchanged(model, values, "x", order)
    with pytest.raises(InputError, match="shape"):
        exchanged(model, {**values, "conv.bias": np.ones(4)}, "conv", order)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_right_labels_are_confirmed(dtype):
    model, values, f = cnn(dtype=dtype)
    assert confirmed(model, values, f) == model
    assert confirmed(model, values, f, training=lambda p: f(p, batch=True)) == model
    assert max(defects(model, values, f).values()) == 0
    small = {**values, "bn.var": np.array([1e-3, 1e-3, 1e-3, 9.0], dtype)}
    assert confirmed(model, small, f) == model  # variances stay positive
    for rotary in (False, True):
        model, values, f = attention(rotary=rotary)
        assert confirmed(model, values, f) == model
    zero = {name: np.zeros_like(v) for name, v in values.items()}
    assert confirmed(model, zero, f) == model  # nothing is hidden by the given point


WRONG = {
    "cnn flatten order": ("cnn", "fc.weight", dict(view=(3, 9, 4), axes=(None, None, Axis("next", "out")))),
    "cnn missing bias": ("cnn", "conv.bias", dict(axes=(None,))),
    "cnn missing reader": ("cnn", "next.weight", dict(axes=(Axis("next", "in"), None, None, None))),
    "cnn missing variance": ("cnn", "bn.var", dict(axes=(None,))),
    "attention missing gain": ("attention", "gain", dict(axes=(None,))),
    "attention heads and factors": ("attention", "o", dict(view=(6, 4, 3), axes=(
        Axis("stream", "in"), Axis("vo", "out"), Axis("heads", "out")))),
    "attention residual": ("attention", "mix", dict(axes=(Axis("stream", "in"), None))),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_label_is_caught_and_nothing_else(case):
    kind, name, change = WRONG[case]
    model, values, f = MODELS[kind]()
    wrong = replace(model, slots=tuple(replace(s, **change) if s.name == name else s for s in model.slots))
    lost = {
        "cnn flatten order": {"next"}, "cnn missing bias": {"conv"}, "cnn missing reader": {"conv"},
        "cnn missing variance": {"next"}, "attention missing gain": {"stream"},
        "attention heads and factors": {"heads", "vo"}, "attention residual": {"stream"},
    }[case]  # fmt: skip
    found = confirmed(wrong, values, f)
    assert set(model.named) - set(found.named) == lost
    reasons = {s.name: s.reason for s in found.skipped}
    assert all("changes the output by" in reasons[p] for p in lost)
    worst = defects(wrong, values, f)
    assert all((worst[p] > 1e-3) == (p in lost) for p in worst)
    equal = {k: np.ones_like(v) for k, v in values.items()}
    assert set(model.named) - set(confirmed(wrong, equal, f).named) == lost


def test_laws_with_wrong_sides_are_caught():
    model, values, f = cnn()
    first, second, third = model.laws
    for law in (
        replace(first, plus=(0,)), replace(first, minus=()), replace(first, degree=2.0), replace(second, plus=(3,)),
        Law("bn.weight^2", "scale", "next", (3,)), Law("matrix", "matrix", "conv", (0, 1), (2,)),
    ):  # fmt: skip
        found = confirmed(replace(model, laws=(law, second)), values, f, training=lambda p: f(p, batch=True))
        assert found.laws == (second,), law
        assert found.skipped[0].name == law.name and "not conserved" in found.skipped[0].reason
        assert found.populations == model.populations
    bare = replace(model, laws=(third,), populations=tuple(replace(p, normalised=False) for p in model.populations))
    assert not confirmed(bare, values, f).laws  # fixed statistics break it
    model, values, f = attention()
    one, two = model.laws
    for law in (replace(one, minus=()), replace(one, plus=(2,)), replace(two, plus=(6,)), replace(two, minus=(4, 5))):
        found = confirmed(replace(model, laws=(law,)), values, f)
        assert not found.laws and len(found.skipped) == 1
    model, values, f = attention(rotary=True)
    assert not confirmed(replace(model, laws=(replace(model.laws[0], kind="balance"),)), values, f).laws
    found = confirmed(replace(model, laws=(replace(two, plus=(0,)),)), values, f)
    assert not found.laws and "no axis" in found.skipped[0].reason
    silent = tuple(replace(p, null=True) for p in model.populations)
    found = confirmed(replace(model, populations=silent), values, f)
    assert {p.name for p in found.populations if p.null} == {"heads", "vo"}  # rotations mix pairs, norms the stream


def test_wrong_signs_and_wrong_silence_are_taken_back():
    net = Network.random((3, 5, 2), activation="sigmoid", seed=0)
    model, values = chain_architecture(net), parameters_of(net)
    x = np.random.default_rng(0).standard_normal((7, 3))

    def f(p):
        return chain_value(model, p, x)  # noqa: E704

    claim = replace(model, populations=(replace(model.populations[0], signs=True, null=True),))
    found = confirmed(claim, values, f)
    assert found.populations == model.populations and len(found.skipped) == 2 and not found.chain
    assert confirmed(model, values, f) == model
    gelu = Network.random((3, 5, 2), activation="gelu", seed=0)
    found = confirmed(chain_architecture(net.widths), values, lambda p: chain_value(chain_architecture(gelu), p, x))
    assert found.named["1"].null and not found.laws and not found.chain
    relu = chain_architecture(net.widths)  # the wrong activation: its law fails, its classes may not be weighted
    found = confirmed(replace(relu, chain=relu.chain), values, f)
    assert not found.laws and not found.chain and not found.named["1"].null


def test_what_cannot_be_seen_is_not_confirmed():
    model = chain_architecture((2, 4, 1))
    values = parameters_of(Network.random((2, 4, 1), seed=0))
    found = confirmed(model, values, lambda p: np.ones(3))
    assert not found.populations and "could not be confirmed" in found.skipped[0].reason
    assert np.isnan(defects(model, values, lambda p: np.ones(3))["1"])
    found = confirmed(model, values, lambda p: np.full(3, np.nan))
    assert not found.populations and "not finite" in found.skipped[0].reason


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_few_neurons_are_confirmed_too(count, seed):
    """Two neurons have one permutation, three have five: tearing must not permute all tensors alike."""
    low = Architecture(
        (slot("A", (count, 4), ">r", None), slot("B", (3, count), None, "<r")), (Population("r", count),)
    )
    rng = np.random.default_rng(seed)
    values, x = {"A": rng.standard_normal((count, 4)), "B": np.zeros((3, count))}, rng.standard_normal((5, 4))
    assert confirmed(low, values, lambda p: x @ p["A"].T @ p["B"].T, seed=seed) == low
    found = confirmed(low, values, lambda p: x @ p["A"].T @ [[1], [2], [3]][:count], seed=seed)
    assert "not understood" in found.skipped[0].reason


def test_one_labelled_tensor_can_be_confirmed():
    """Tied weights, x -> tanh(x W^T) W: a single axis indexes the hidden neurons."""
    tied = Architecture((slot("W", (4, 3), ">h", None),), (Population("h", 4),))
    values, x = {"W": np.ones((4, 3))}, np.random.default_rng(1).standard_normal((5, 3))
    assert confirmed(tied, values, lambda p: np.tanh(x @ p["W"].T) @ p["W"]) == tied
    assert defects(tied, values, lambda p: np.tanh(x @ p["W"].T) @ p["W"]) == {"h": 0.0}
    found = confirmed(tied, values, lambda p: x)
    assert "could not be confirmed" in found.skipped[0].reason
    found = confirmed(tied, values, lambda p: p["W"])
    assert "not understood" in found.skipped[0].reason


# ---- refinement


def as_sets(classes):
    return {frozenset(m) for m in classes.members}


def planted(rng, name, depth):
    """A network of hidden classes with planted multiples: R blown up, plus zero-sum parts inside the blocks."""
    row = activation(name)
    sides = [(np.arange(2), np.ones(2), np.ones(2))]
    for _ in range(depth):
        sizes = rng.integers(1, 4, rng.integers(1, 4))
        label = np.repeat(np.arange(len(sizes)), sizes)
        e = rng.choice([-1.0, 1.0], label.size) if row.parity else np.ones(label.size)
        weighted = row.homogeneity == 1 and row.parity is None
        if weighted:
            e = rng.choice([0.5, 1.0, 2.0], label.size)
        if rng.random() < 0.3 and row.value(Fraction(0)) == 0:
            e[label == 0] = 0.0
        sides.append((label, e, np.abs(e) if row.parity == "even" else e))
    sides.append((np.arange(2), np.ones(2), np.ones(2)))
    pairs = []
    for (below, _, out), (here, inner, _) in itertools.pairwise(sides):
        weight = rng.integers(-3, 4, (here.max() + 1, below.max() + 1)).astype(float)
        weight = inner[:, None] * weight[here][:, below] * out
        for a, b in itertools.product(range(here.max() + 1), range(below.max() + 1)):
            i, j = np.flatnonzero(here == a), np.flatnonzero(below == b)
            if len(i) > 1 and len(j) > 1:  # a zero-sum part needs factors 1 and -1
                d = np.zeros((len(i), len(j)))
                d[0, 0], d[0, 1], d[1, 0], d[1, 1] = 1, -1, -1, 1
                if (np.abs(inner[i]) == 1).all() and (np.abs(out[j]) == 1).all():
                    weight[np.ix_(i, j)] += rng.integers(-2, 3) * inner[i][:, None] * d * out[j]
        pairs.append((weight, inner * rng.integers(-2, 3, here.max() + 1)[here]))
    return Network.from_arrays(*pairs, activation=name)


@pytest.mark.parametrize("name", ["softplus", "tanh", "relu", "gelu", "abs", "square", "gaussian", "identity"])
@given(seed=st.integers(0, 10**9), depth=st.integers(1, 3))
@settings(max_examples=25)
def test_chains_agree_with_the_colour_classes(name, seed, depth):
    net = planted(np.random.default_rng(seed), name, depth)
    model, values = chain_architecture(net), parameters_of(net)
    found = refine(model, values, seed=seed)
    for p, expected in zip(model.populations, colour_classes(net), strict=True):
        np.testing.assert_array_equal(found[p.name].labels, expected.labels)
        factors = zip(found[p.name].factors, expected.factors, expected.labels, strict=True)
        assert all(a == b for a, b, label in factors if label >= 0)
    near = refine(model, values, tolerance=1e-9, seed=seed)
    if activation(name).parity != "even":
        assert all(as_sets(near[k]) == as_sets(found[k]) and near[k].null == found[k].null for k in found)


def slow_classes(model, parameters):
    """Refinement from the coarsest colouring on the double cover, with dictionaries and Fractions."""
    signs = {p.name: (1, -1) if p.signs else (1,) for p in model.populations}
    colour = {(p.name, i, s): (None if p.null else 0) for p in model.populations
              for i in range(p.count) for s in signs[p.name]}  # fmt: skip

    def signature(name, i, sign):
        out = []
        for s, axis, _ in model.places[name]:
            part = model.slots[s]
            tensor = np.moveaxis(part.read(parameters), axis, 0)[i]
            own, others = part.axes[axis], [a for k, a in enumerate(part.axes) if k != axis]
            pairs = {"heads", "qk", "vo"}  # a head and a factor are one neuron together
            others = [a if a is None or (a.role != own.role and not {a.population, own.population} <= pairs) else None
                      for a in others]  # fmt: skip
            sums = {}
            for index in np.ndindex(tensor.shape):
                cover = [[(j, 1)] if a is None else [(colour[a.population, j, t], t) for t in signs[a.population]]
                         for j, a in zip(index, others, strict=True)]  # fmt: skip
                for choice in itertools.product(*cover):
                    if any(c is None for c, _ in choice):
                        continue
                    key = tuple(c for c, _ in choice)
                    turn = np.prod([t for _, t in choice]) if choice else 1
                    sums[key] = sums.get(key, 0) + sign * int(turn) * Fraction(float(tensor[index]))
            out.append(tuple(sorted((k, v) for k, v in sums.items() if v)))
        return tuple(out)

    while True:
        table, new = {}, {}
        for name, i, sign in colour:
            seen = signature(name, i, sign)
            if colour[name, i, sign] is None and not any(seen):
                new[name, i, sign] = None
                continue
            key = (name, str(colour[name, i, sign]), seen)
            new[name, i, sign] = table.setdefault(key, len(table))
        if len(set(new.values())) == len(set(colour.values())) and sum(v is None for v in new.values()) == sum(
            v is None for v in colour.values()
        ):
            break
        colour = new
    out = {}
    for p in model.populations:
        null = {i for i in range(p.count) if colour[p.name, i, 1] is None}
        groups = {}
        for i in set(range(p.count)) - null:
            groups.setdefault(frozenset(colour[p.name, i, s] for s in signs[p.name]), set()).add(i)
        out[p.name] = ({frozenset(g) for g in groups.values()}, null)
    return out


@pytest.mark.parametrize("kind", MODELS)
@given(seed=st.integers(0, 10**9))
@settings(max_examples=12)
def test_tensors_agree_with_a_slow_refinement(kind, seed):
    """Small integers in random patterns: many accidental and planted coincidences in all tensors."""
    rng = np.random.default_rng(seed)
    model, shapes, _ = MODELS[kind]()
    values = folded(model, shapes, rng, coupled=True)
    expected = slow_classes(model, values)
    found, near = refine(model, values, seed=seed), refine(model, values, tolerance=1e-8, seed=seed)
    for p in model.populations:
        for classes in (found, near):
            assert as_sets(classes[p.name]) == expected[p.name][0]
            assert set(classes[p.name].null) == expected[p.name][1]


def folded(model, shapes, rng, *, coupled):
    """Random parameters with neurons folded onto others.

    `coupled`: of small integers, with parts of zero sums inside the blocks, so that slices of a class differ.
    """
    draw = (lambda n: rng.integers(-1, 2, n) * (rng.random() < 0.7) * 1.0) if coupled else rng.standard_normal
    values, classes = {k: draw(v.shape) for k, v in shapes.items()}, {}
    for p in model.populations:
        target = np.where(rng.random(p.count) < 0.6, 0, np.arange(p.count))
        sign = rng.choice([-1.0, 1.0], p.count) if p.signs else np.ones(p.count)
        sign = np.where(rng.random(p.count) < 0.2, 0.0, sign) if p.null else sign
        for s, axis, _ in model.places[p.name]:
            part = model.slots[s].cut(values[model.slots[s].name].reshape(model.slots[s].view))
            part[...] = np.moveaxis(np.moveaxis(part, axis, -1)[..., target] * sign, -1, axis)
        classes[p.name] = [(t, e) for t, e in zip(target, sign, strict=True)]
    for part in model.slots if coupled else ():
        tensor = part.cut(values[part.name].reshape(part.view))
        indices = {"in": [], "out": []}
        for role, found in indices.items():  # (index, class, sign) over all axes of one role
            axes = [k for k, a in enumerate(part.axes) if a is not None and a.role == role]
            for index in itertools.product(*(range(tensor.shape[k]) for k in axes)):
                own = [classes[part.axes[k].population][i] for k, i in zip(axes, index, strict=True)]
                sign = np.prod([e for _, e in own])
                if sign:
                    found.append((dict(zip(axes, index, strict=True)), tuple(t for t, _ in own), sign))
        both = all(found and found[0][0] for found in indices.values())
        for _ in range(4 if both else 0):
            twins = []
            for found in indices.values():
                label = found[rng.integers(len(found))][1]
                members = [row for row in found if row[1] == label]
                twins.append([members[k] for k in rng.choice(len(members), 2)])
            rest = {k: rng.integers(tensor.shape[k]) for k, a in enumerate(part.axes) if a is None}
            for a, b in itertools.product((0, 1), (0, 1)):
                row, column = twins[0][a], twins[1][b]
                at = {**rest, **row[0], **column[0]}
                tensor[tuple(at[k] for k in range(tensor.ndim))] += (-1) ** (a + b) * row[2] * column[2]
    return values


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("kind", MODELS)
@given(seed=st.integers(0, 10**9))
@settings(max_examples=5)
def test_gradient_steps_keep_the_classes(kind, coupled, seed):
    rng = np.random.default_rng(seed)
    model, shapes, f = MODELS[kind]()
    values = folded(model, shapes, rng, coupled=coupled)
    if kind == "cnn":
        values["bn.var"] = np.abs(values["bn.var"]) + 1.0
    found, c = refine(model, values), rng.standard_normal(f(values).shape)

    def loss(p):
        out = f(p)
        return (c * out).sum() + (np.abs(c) * out**2).sum() / 20

    slope = {}
    for name, value in values.items():
        slope[name] = np.zeros_like(value)
        for i in np.ndindex(value.shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = value.copy()
                moved[i] += h
                ends.append(loss({**values, name: moved}))
            slope[name][i] = (ends[0] - ends[1]) / 2e-5
    size = max(np.abs(g).max() for g in slope.values())
    after = refine(model, {k: v - slope[k] * 0.1 / max(size, 1e-9) for k, v in values.items()}, tolerance=1e-4)
    for p in model.populations:
        assert set(found[p.name].null) <= set(after[p.name].null), p.name
        for members in found[p.name].members:
            assert len({after[p.name].labels[i] for i in members}) == 1, p.name


def duplicated(model, values, name, groups, sign=1.0):
    """Copies of the first neuron of each group."""
    new = {k: v.copy() for k, v in values.items()}
    for s, axis, _ in model.places[name]:
        part = np.moveaxis(model.slots[s].cut(new[model.slots[s].name].reshape(model.slots[s].view)), axis, 0)
        for first, *rest in groups:
            part[rest] = sign * part[first]
    return new


@pytest.mark.parametrize("kind, name, groups", [
    ("cnn", "conv", [(0, 3), (1, 4)]), ("cnn", "next", [(0, 2, 3)]), ("attention", "heads", [(0, 2)]),
    ("attention", "stream", [(1, 2), (3, 5)]), ("attention", "vo", [(0, 1, 2)]), ("attention", "qk", [(1, 3)]),
])  # fmt: skip
def test_planted_duplicates(kind, name, groups):
    model, values, f = MODELS[kind]()
    rng = np.random.default_rng(0)
    twins = duplicated(model, values, name, groups)
    found = refine(model, twins)
    assert {m for m in as_sets(found[name]) if len(m) > 1} == {frozenset(g) for g in groups}
    assert all(c.trivial for k, c in found.items() if k != name)
    assert all(constant_blocks(model, twins, found).values())
    noisy = {k: v * (1 + 1e-4 * rng.standard_normal(v.shape)) for k, v in twins.items()}
    assert refine(model, noisy)[name].trivial and refine(model, noisy, tolerance=1e-6)[name].trivial
    assert as_sets(refine(model, noisy, tolerance=1e-2)[name]) == as_sets(found[name])
    assert not all(constant_blocks(model, noisy, found).values())
    if model.named[name].signs:
        flipped = refine(model, duplicated(model, values, name, groups, sign=-1.0))
        assert as_sets(flipped[name]) == as_sets(found[name])
        assert flipped[name].factors[groups[0][1]] == -1
        assert all(constant_blocks(model, duplicated(model, values, name, groups, -1.0), flipped).values())


def test_one_unit_in_the_last_place_separates():
    model, values, _ = cnn(dtype=np.float32)
    twins = duplicated(model, values, "conv", [(0, 3)])
    twins["next.weight"][1, 3, 0, 1] = np.nextafter(twins["next.weight"][1, 3, 0, 1], np.float32(9))
    assert refine(model, twins)["conv"].trivial
    assert refine(model, twins, tolerance=1e-6)["conv"].count == 4


def test_silent_channels():
    model, values, _ = cnn()
    silent = {k: v.copy() for k, v in values.items()}
    for s, axis, _ in model.places["conv"]:
        np.moveaxis(silent[model.slots[s].name].reshape(model.slots[s].view), axis, 0)[2] = 0
    found = refine(model, silent)
    assert found["conv"].null == (2,) and constant_blocks(model, silent, found)["conv"]
    silent["next.weight"][0, 2, 0, 0] = 1e-30  # it will start to move
    assert refine(model, silent)["conv"].null == ()
    assert refine(model, silent, tolerance=1e-9)["conv"].null == (2,)
    assert refine(replace(model, populations=(replace(model.populations[0], null=False), model.populations[1])),
                  silent)["conv"].trivial  # fmt: skip


def test_heads_and_factors_do_not_silence_each_other():
    model, values, _ = attention()
    for k, name in enumerate(("Q", "K", "V")):
        only = {**values, "qkv": np.zeros((3, 12, 6)), "qkv.bias": np.zeros(36), "o": np.zeros((6, 12))}
        only["qkv"][k] = np.random.default_rng(k).standard_normal((12, 6))
        only["qkv"] = only["qkv"].reshape(36, 6)
        found = refine(model, only)
        assert found["heads"].trivial, name
        assert found["vo" if name == "V" else "qk"].trivial and len(found["qk" if name == "V" else "vo"].null) == 4


def test_every_index_without_a_population_counts_for_itself():
    model = Architecture((slot("k", (2, 2, 2), ">c", None, None),), (Population("c", 2, "channels"),))
    for pair in (
        ([[0, 1], [0, 0]], [[0, 0], [1, 0]]),
        ([[1, 0], [0, 0]], [[0, 0], [0, 1]]),
        ([[1, 0], [0, 0]], [[0, 1], [0, 0]]),
    ):
        for tolerance in (0.0, 1e-3):
            assert refine(model, {"k": np.array(pair, float)}, tolerance=tolerance)["c"].trivial
            assert refine(model, {"k": np.array(pair[:1] * 2, float)}, tolerance=tolerance)["c"].count == 1


def test_coupled_classes_are_no_duplicates():
    """A circulant second layer: one class per layer, by class sums only; cutting the chain keeps the answer."""
    circulant = np.array([[1.0, 2, 4], [4, 1, 2], [2, 4, 1]])
    net = Network.from_arrays(([[1.0]] * 3, None), (circulant, None), ([[1.0] * 3], None), activation="softplus")
    model, values = chain_architecture(net), parameters_of(net)
    for used in (model, replace(model, chain=())):
        found = refine(used, values)
        assert [found[k].count for k in ("1", "2")] == [1, 1]
        assert constant_blocks(used, values, found) == {"1": False, "2": False}
    with pytest.raises(InputError, match="no classes"):
        constant_blocks(model, values, {"1": found["1"]})


def test_a_split_travels_down_up_and_down_again():
    # columns of the third unit split 0 and 1; that splits the first two units of the second layer; that splits 2 and 3
    second = [[1.0, 2, 5, 6], [2, 1, 6, 5], [1, 3, 7, 7]]
    first = [[1.0], [1], [2], [2]]
    net = Network.from_arrays((first, None), (second, None), ([[1.0, 1, 2]], None), activation="softplus")
    for tolerance in (0.0, 1e-6):
        assert all(c.trivial for c in refine(chain_architecture(net), parameters_of(net), tolerance=tolerance).values())
    second[2][1] = 1.0
    net = Network.from_arrays((first, None), (second, None), ([[1.0, 1, 2]], None), activation="softplus")
    assert [c.count for c in refine(chain_architecture(net), parameters_of(net)).values()] == [2, 2]


def test_null_neurons_with_weights_among_them_are_coupled():
    first, last = ([[1.0], [1.0], [0.0]], [0.5, 0.5, 0]), ([[1.0, 1.0, 0.0]], [0])
    for inner, plain in ((7.0, False), (0.0, True)):
        second = ([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, inner]], [0.1, 0.1, 0])
        net = Network.from_arrays(first, second, last, activation="tanh")
        model, values = chain_architecture(net), parameters_of(net)
        found = refine(model, values)
        assert [c.null for c in found.values()] == [(2,), (2,)]
        assert constant_blocks(model, values, found) == {"1": plain, "2": plain}


def test_the_tolerance_is_relative_to_the_slice():
    """Class sums are divided by the root of the class size: a hundred equal readers weigh as their entries do."""
    model = Architecture((slot("w", (2, 100), ">a", "<b"),), (Population("a", 2), Population("b", 100)))
    weight = np.array([[1.0], [1.01]]) * np.ones((1, 100))
    assert refine(model, {"w": weight}, tolerance=2e-2)["a"].count == 1
    assert refine(model, {"w": 1e-6 * weight}, tolerance=2e-2)["a"].count == 1
    assert refine(model, {"w": weight}, tolerance=5e-3)["a"].count == 2
    assert refine(model, {"w": weight}, tolerance=2e-2)["b"].count == 1
    assert refine(model, {"w": weight})["b"].count == 1


def test_weighted_classes_only_in_chains():
    net = Network.from_arrays(([[1.0, 2.0], [3.0, 6.0]], [1.0, 3.0]), ([[5.0, 15.0]], [0.0]))
    model, values = chain_architecture(net), parameters_of(net)
    assert (
        refine(model, values)["1"].factors.tolist() == [1, 3]
        and constant_blocks(model, values, refine(model, values))["1"]
    )
    assert refine(replace(model, chain=()), values)["1"].trivial
    assert refine(model, values, tolerance=1e-9)["1"].count == 1


def test_nothing_merges_in_generic_wide_models():
    net = Network.random((300, 500, 400, 10), seed=1, dtype=np.float32)
    model, values = chain_architecture(net), parameters_of(net)
    for tolerance in (0.0, 1e-6, 0.1):
        assert all(c.trivial for c in refine(model, values, tolerance=tolerance).values())
    values = {k: v.copy() for k, v in values.items()}
    for s, axis, _ in model.places["1"]:
        part = np.moveaxis(values[model.slots[s].name], axis, 0)
        part[[100, 499]] = part[7] * np.float32(1 + 1e-5)
    assert as_sets(refine(model, values)["1"]) == {frozenset({100, 499})} | {
        frozenset({i}) for i in range(500) if i not in (100, 499)
    }
    assert as_sets(refine(model, values, tolerance=1e-3)["1"]) == {frozenset({7, 100, 499})} | {
        frozenset({i}) for i in range(500) if i not in (7, 100, 499)
    }
    with pytest.raises(InputError, match="tolerance"):
        refine(model, values, tolerance=-1.0)
    with pytest.raises(InputError, match="tolerance"):
        refine(model, values, tolerance=float("nan"))


def test_activations_of_chains_are_given_like_everywhere():
    model = chain_architecture((1, 2, 3, 1), activation=["relu", "tanh"])
    assert [d.activation for d in model.chain] == activations_for(3, ["relu", "tanh"])
    assert [p.activation.name for p in model.populations] == ["relu", "tanh"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: chain_architecture(None), "widths None; give at least two numbers"),
        (lambda: chain_architecture((2, 2.5, 1)), "widths: 2.5; give a whole number >= 1"),
        (lambda: chain_architecture((2, 3, 1), names="ab"), "names 'ab'; give a list of 2 names"),
        (lambda: parameters_of("net.onnx"), "str is no Network"),
        (lambda: architecture_of([1.0], activation="relu"), "parameters are a list; give a mapping"),
        (lambda: refine("chain", {}), "architecture is a str"),
        (lambda: refine(chain_architecture((1, 2, 1)), 3), "parameters are a int"),
        (lambda: refine(chain_architecture((1, 2, 1)), {}, tolerance=None), "tolerance None"),
        (lambda: confirmed(chain_architecture((1, 2, 1)), {}, None), "evaluate is a NoneType; give a function"),
    ],
)
def test_wrong_arguments_get_one_clear_line(call, words):
    with pytest.raises(InputError, match=words):
        call()
