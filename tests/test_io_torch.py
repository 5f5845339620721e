"""torch files without torch, with torch as the oracle; torch modules through torch.fx."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fiberscope.activations import activation
from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io import load, save, to_torch
from fiberscope.io.torch_files import flatten, parse
from fiberscope.io.torch_pickle import Storage, Tensor, loads
from fiberscope.network import Network

torch = pytest.importorskip("torch")
nn = torch.nn


def bytes_of(value, **options) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


VALUES = {
    "a": torch.arange(12.0).reshape(3, 4).t(),
    "b": torch.arange(20, dtype=torch.float64)[3:15:2],
    "c": {"d": [torch.tensor(3.5), (torch.zeros(0, 3), "text", 2**70, -1, 1.5, True, None)]},
    "e": torch.arange(6, dtype=torch.int64).reshape(2, 3)[:, 1],
    "f": torch.linspace(-2, 2, 7).to(torch.bfloat16),
    "g": torch.linspace(-2, 2, 7).to(torch.float16),
    "h": nn.Parameter(torch.ones(2, 2)),
    "i": torch.tensor([True, False]),
    "j": torch.Size([1, 2]),
}


def leaves(tree, path=()):
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(tree, list | tuple):
        for key, value in enumerate(tree):
            yield from leaves(value, (*path, str(key)))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_those_of_torch(zipped):
    data = bytes_of(VALUES, _use_new_zipfile_serialization=zipped)
    ours = flatten(parse(data))
    theirs = dict(leaves(torch.load(io.BytesIO(data), weights_only=True)))
    assert set(ours) == set(theirs)
    for path, tensor in theirs.items():
        expected = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        assert ours[path].dtype == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(ours[path].array(), expected.numpy(), strict=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_a_chain(tmp_path, zipped):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
    torch.save(model.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"does not say the activation; give it with --activation NAME"):
        load(tmp_path / "a.pt")
    net = load(tmp_path / "a.pt", activation="tanh")
    x = torch.randn(7, 3)
    np.testing.assert_allclose(net(x.numpy()), model(x).detach().numpy(), atol=1e-6)
    assert net.source.parameter_count == sum(p.numel() for p in model.parameters())
    assert [n for n, _ in net.source.tensors] == list(model.state_dict())


def test_what_save_writes_torch_reads(tmp_path):
    net = Network.random((3, 4, 2), activation="tanh", seed=0, dtype=np.float32)
    save(net, tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model.load_state_dict(state)
    x = torch.randn(5, 3)
    np.testing.assert_allclose(net(x.numpy()), model(x).detach().numpy(), atol=1e-6)
    assert load(tmp_path / "a.pt").same_as(net)  # the activation is in the metadata


@pytest.mark.parametrize("zipped", [True, False])
def test_a_copy_keeps_names_containers_and_other_values(tmp_path, zipped):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    extra = torch.arange(5).to(torch.bfloat16)
    tree = {"epoch": 7, "state_dict": model.state_dict(), "best": (0.5, None, "x"), "extra": extra}
    torch.save(tree, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    net = load(tmp_path / "a.pt", activation="relu")
    first, second = net.layers
    smaller = net.with_layers(
        [replace(first, weight=first.weight[:2], bias=first.bias[:2]), replace(second, weight=second.weight[:, :2])]
    )
    save(smaller, tmp_path / "b.pt", drop_in=True)
    again = torch.load(tmp_path / "b.pt", weights_only=True)
    assert list(again) == list(tree)
    assert (again["epoch"], again["best"]) == (7, (0.5, None, "x"))
    assert torch.equal(again["extra"], extra) and again["extra"].dtype == torch.bfloat16
    assert isinstance(again["state_dict"], OrderedDict) and again["state_dict"]._metadata is not None
    small = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    small.load_state_dict(again["state_dict"])
    assert load(tmp_path / "b.pt", activation="relu").same_as(smaller)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/fiberscope_was_here",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_named_and_not_executed(tmp_path, zipped, monkeypatch):
    import os

    calls = []
    data = bytes_of({"0.weight": torch.ones(1, 1), "x": Evil()}, _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(os, "system", lambda *a: calls.append(a))
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(
        InputError, match=r"the pickle asks for (posix|nt)\.system; nothing was executed; save with torch\.save"
    ):
        load(tmp_path / "a.pt")
    assert calls == []


def test_a_whole_module_is_refused_by_its_class(tmp_path):
    torch.save(nn.Sequential(nn.Linear(1, 1)), tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"asks for torch\.nn\.modules\.container\.Sequential"):
        load(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_plain_pickle_is_no_torch_file(tmp_path, zipped):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"0.weight": [[1.0]]}, protocol=2 if zipped else 4))
    with pytest.raises(InputError, match="no torch file"):
        load(tmp_path / "a.pt")


def test_files_without_networks_say_what_they_hold(tmp_path):
    for value, words in (
        (None, "saw None"),
        (torch.zeros(5, 6), r"saw one tensor \(5, 6\)"),
        ({"a": torch.zeros(3)}, r"saw a \(3,\)"),
        ({"a": 1}, "saw a dict without tensors"),
        (3, "saw an int without tensors"),
        ({"0.weight": torch.zeros(4, 3, 2, 2)}, "is a convolution"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict(), "normalisation layer"),
        ({"0.weight": torch.full((1, 1), float("nan"))}, r"weight\[0, 0\] is nan"),
    ):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(InputError, match=words):
            load(tmp_path / "a.pt", activation="relu")


def test_a_single_layer_module_is_a_network():
    module = nn.Linear(2, 3)
    net = load(module)
    assert net.architecture == "2-3 affine" and net.dtype == np.float32
    assert np.array_equal(net.layers[0].weight, module.weight.detach().numpy())
    with pytest.raises(UnsupportedError, match="^LSTM: module LSTM 0 is not supported; known are"):
        load(nn.LSTM(2, 3))


def test_what_to_torch_takes_is_what_load_takes():
    module = to_torch({"0.weight": [[1, 2]]})  # the weights of one layer, in integers
    assert module(torch.tensor([[1.0, 1.0]], dtype=torch.float64)).item() == 3.0
    with pytest.raises(InputError, match="cannot read a network from an object of type NoneType"):
        to_torch(None)


def test_the_shape_of_one_input_may_be_a_number():
    assert load(nn.Sequential(nn.Linear(2, 1)), input_shape=2).widths == (2, 1)
    with pytest.raises(InputError, match="input_shape: 'a'; give a whole number >= 1"):
        load(nn.Sequential(nn.Linear(2, 1)), input_shape="a")


# ---- the pickle machine


def tensor(size, stride, offset=0, count=6):
    storage = Storage("FloatStorage", "0", count)
    from fiberscope.io.torch_pickle import _tensor

    return _tensor(storage, offset, size, stride)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 3), (4, 1), 0),
        ((3,), (2,), 2),
        ((1,), (1,), 6),
        ((2,), (1 << 47,), 0),
        ((100, 6), (0, 1), 0),
    ],
)
def test_views_outside_their_storage_are_refused(size, stride, offset):
    with pytest.raises(InputError, match="reaches outside its storage"):
        tensor(size, stride, offset)


@pytest.mark.parametrize(
    ("size", "stride"), [((-1,), (1,)), ((2,), (-1,)), ((2, 3), (1,)), ((True,), (1,)), ((1.0,), (1,))]
)
def test_sizes_that_are_no_counts_are_refused(size, stride):
    with pytest.raises(InputError, match="no numbers >= 0"):
        tensor(size, stride)


def test_views_inside_their_storage_are_read():
    view = tensor((2, 2), (2, 1), 2)
    assert isinstance(view, Tensor)
    view.storage.fill(np.arange(6, dtype="<f4").tobytes())
    assert view.array().tolist() == [[2.0, 3.0], [4.0, 5.0]]
    with pytest.raises(InputError, match="declares 6 items"):
        view.storage.fill(b"\0" * 20)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02](",
        b"\x80\x02t.",
        b"\x80\x02h\x05.",
        b"\x80\x02}K\x01s.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02K\x01K\x02R.",
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8d" + b"\xff" * 8 + b".",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02)\x81.",
        b"\x80\x02}(K\x01K\x02)}\x93.",
        b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.",
        b"(lp0\nI1\na0.",
        b"\x80\x02\x8a\xff" + b"\x01" * 10,
    ],
)
def test_damaged_pickles_are_refused(data):
    with pytest.raises(InputError):
        loads(data)


def test_tuples_are_no_keys():
    # hash(t) of t = ((((), ()), ((), ())), ...) takes 2^depth steps
    deep = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(200))
    with pytest.raises(InputError, match="dict key of type tuple"):
        loads(b"\x80\x02}" + deep + b"K\x01s.")


def test_shared_containers_are_not_walked_for_ever():
    deep = b"]" + b"".join(
        b"q" + bytes([k]) + b"]q" + bytes([k + 100]) + b"h" + bytes([k]) + b"ah" + bytes([k]) + b"a" for k in range(60)
    )
    value = loads(b"\x80\x02(" + deep + b"t.")[0]
    with pytest.raises(InputError, match="nested too deeply"):
        flatten([value, [[[value]]]])


# ---- modules


def agree(model, net, *shape, atol=1e-5):
    model.eval()
    x = torch.randn(16, *shape)
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(net(x.numpy().reshape(16, -1)), expected.reshape(16, -1), atol=atol)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = torch.flatten(x, 1)
        x = torch.relu(self.fc1(x))
        x = self.drop(x)
        x = self.fc2(x).tanh()
        return self.out(x.view(x.size(0), -1))


def test_a_module_with_its_own_forward_is_traced():
    model = Plain()
    net = load(model)
    agree(model, net, 2, 3)
    assert [layer.activation.name for layer in net.layers] == ["relu", "tanh", "identity"]
    assert net.layers[1].weight_name == "fc2.weight" and net.folded == ()
    assert net.source.parameter_count == sum(p.numel() for p in model.parameters()) == net.parameter_count
    assert "training mode" in load(model.train()).source.notes[0]


def test_convolution_batch_norm_and_pooling_become_affine_layers():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 2 * 2, 5),
        nn.BatchNorm1d(5, affine=False),
        nn.SiLU(),
        nn.Linear(5, 3),
    )
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    net = load(model.eval(), input_shape=(2, 8, 7))
    agree(model, net, 2, 8, 7)
    assert "Conv 0 unrolled" in net.layers[0].folded[0]
    assert net.source.approximations
    assert net.layers[1].frame is None  # the pooling before it is no diagonal map
    with pytest.raises(UnsupportedError, match="input_shape"):
        load(model)


def test_batch_norm_after_linear_is_a_frame():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)).eval()
    net = load(model)
    agree(model, net, 3)
    weight, bias = net.layers[0].own
    assert weight.tolist() == model[0].weight.tolist() and bias.tolist() == model[0].bias.tolist()


MODULES = {
    "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.3), "hard_tanh": nn.Hardtanh(), "clip": nn.Hardtanh(-2, 0.5),
    "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "softplus": nn.Softplus(), "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"), "silu": nn.SiLU(), "elu": nn.ELU(0.7),
}  # fmt: skip


@pytest.mark.parametrize("name", [*MODULES, "relu6"])
def test_activation_modules(name):
    module = MODULES.get(name, nn.ReLU6())
    model = nn.Sequential(nn.Linear(3, 8), module, nn.Linear(8, 1))
    net = load(model)
    assert net.layers[0].activation.name == {"relu6": "clip"}.get(name, name)
    agree(model, net, 3)
    agree(to_torch(net), net, 3)
    assert load(to_torch(net)).same_as(net)


def test_the_threshold_of_softplus_is_said():
    for model in (nn.Sequential(nn.Linear(1, 2), nn.Softplus(), nn.Linear(2, 1)),):
        assert "within 2.1e-9" in load(model).source.approximations[0]
    with pytest.raises(UnsupportedError, match="beta 2"):
        load(nn.Sequential(nn.Linear(1, 1), nn.Softplus(beta=2)))


def test_a_slope_is_the_float32_that_torch_computes_with():
    net = load(nn.Sequential(nn.Linear(1, 1), nn.LeakyReLU(0.1)))
    assert net.layers[0].activation.parameters == (Fraction(float(np.float32(0.1))),)


@pytest.mark.parametrize("name", ["erf", "sin", "cos", "abs", "square", "gaussian"])
def test_activations_without_a_module_of_torch(name):
    net = Network.random((3, 4, 1), activation=name, seed=0, dtype=np.float32)
    agree(to_torch(net), net, 3)


def test_heads_are_kept():
    for module, name in ((nn.Softmax(dim=-1), "softmax"), (nn.LogSoftmax(dim=1), "log_softmax")):
        net = load(nn.Sequential(nn.Linear(3, 4), module))
        assert net.head == name
        assert load(to_torch(net)).head == name
    with pytest.raises(UnsupportedError, match="follows softmax"):
        load(nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=-1), nn.Linear(4, 1)))
    with pytest.raises(UnsupportedError, match="axis 0"):
        load(nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=0)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return torch.relu(self.fc(x)) + x


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Residual(), "branches or merges at fc"),
        (Branching(), "cannot trace Branching"),
        (nn.Sequential(nn.Conv2d(1, 1, 2), nn.MaxPool2d(2)), "MaxPool2d 1 is not supported"),
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "LayerNorm 1"),
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 1)), "takes 4 inputs but gets 3"),
        (nn.Sequential(nn.ReLU()), "input_shape"),
        (nn.Sequential(nn.Identity()), "no affine layer"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), "no running statistics"),
    ],
)
def test_modules_that_are_no_chain_are_named(model, words):
    with pytest.raises(InputError, match=words):
        load(model, input_shape=(1, 5, 5) if "MaxPool" in words else None)


def test_parts_of_a_module_and_state_dicts_in_memory():
    model = nn.ModuleDict(
        {"actor": nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), "critic": nn.Linear(2, 1)}
    )
    net = load(model, part="actor")
    agree(model["actor"], net, 2)
    with pytest.raises(InputError, match="it has actor, critic"):
        load(model, part="nobody")
    same = load(model["actor"].state_dict(), activation=activation("tanh"))
    assert same.same_as(net)
    half = load({k: v.bfloat16() for k, v in model["actor"].state_dict().items()}, activation="tanh")
    assert half.layers[0].weight.dtype == np.float32


def test_real_files(shared):
    """Files of custom modules: read as chains where they are, refused in one line where not."""
    refused = {}
    for path in sorted((shared / "models/lyapunov_stable").rglob("*.pth")):
        data = path.read_bytes()
        theirs = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        ours = flatten(parse(data))
        for key, value in leaves(theirs):
            np.testing.assert_array_equal(ours[key].array(), value.detach().numpy())
        try:
            net = load(path, activation="relu")
            assert net.source.parameter_count == net.parameter_count
        except InputError as exc:
            refused[path.name] = str(exc)
            assert "\n" not in str(exc)
    assert "saw None" in refused["Vmin_x_pgd_init.pth"]
    assert "one tensor (520, 6)" in refused["x_pgd_verifier_init.pth"]
    assert "controller.net, lyapunov.net" in refused["lyaloss_init.pth"]
