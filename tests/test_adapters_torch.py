"""torch modules: channels followed through the data flow, blocks known by name, laws, optimizers, watched loops."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import fiberscope  # noqa: E402
from fiberscope.errors import InputError, UnsupportedError  # noqa: E402
from fiberscope.training.adapters import torch_shapes as shapes  # noqa: E402
from fiberscope.training.adapters.torch import (  # noqa: E402
    ModuleSubject,
    architecture_of_module,
    optimiser_of_torch,
    parameters_of_module,
)
from fiberscope.training.adapters.torch_evaluation import Evaluation  # noqa: E402
from fiberscope.training.adapters.torch_labels import Flow  # noqa: E402
from fiberscope.training.adapters.torch_modules import shadow, unwrapped  # noqa: E402
from fiberscope.training.adapters.torch_states import gradients_of  # noqa: E402
from fiberscope.training.architectures.architecture import Architecture, Law  # noqa: E402
from fiberscope.training.architectures.exchange import exchanged  # noqa: E402
from fiberscope.training.drift.predictions import Drift  # noqa: E402
from fiberscope.training.traces.subjects import Subject  # noqa: E402
from fiberscope.training.traces.watchers import watch  # noqa: E402

FloatArray = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Any) -> Any:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(y)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6, 5), Block(6, 4))
        self.deep = nn.Conv2d(6, 6, 3, groups=6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        x = self.deep(self.blocks(functional.relu(self.stem(x))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class ResidualMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.gate, self.value, self.out = nn.Linear(8, 7), nn.Linear(8, 7), nn.Linear(7, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        x = self.inp(x)
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        x = x + self.scale * self.out(functional.silu(self.gate(x)) * self.value(x))
        return self.head(x)


class Tokens(nn.Module):
    def __init__(self, *, norm_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 12)
        self.place = nn.Parameter(0.1 * torch.randn(1, 4, 12))
        layer = nn.TransformerEncoderLayer(12, 3, 10, dropout=0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 1 if norm_first else 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 3)

    def forward(self, t: Any) -> Any:
        return self.head(self.encoder(self.embed(t) + self.place).mean(dim=1))


class Heads(nn.Module):
    """Grouped-query attention written by hand; `tilt` tells the heads apart, as ALiBi does."""

    def __init__(self, *, tilt: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.tilt = 6, tilt
        self.q_proj, self.k_proj = nn.Linear(9, 18), nn.Linear(9, 9)
        self.v_proj, self.out_proj = nn.Linear(9, 9), nn.Linear(18, 9)

    def forward(self, x: Any) -> Any:
        n, t = x.shape[:2]
        q = self.q_proj(x).view(n, t, 6, 3).transpose(1, 2)
        k, v = (f(x).view(n, t, 3, 3).transpose(1, 2).repeat_interleave(2, dim=1) for f in (self.k_proj, self.v_proj))
        scores = q @ k.transpose(-1, -2) + self.tilt * torch.arange(6.0)[:, None, None] * torch.arange(t)
        return self.out_proj((torch.softmax(scores.to(v.dtype), -1) @ v).transpose(1, 2).reshape(n, t, 18))


class Attending(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inp, self.attn, self.head = nn.Linear(4, 9), Heads(**options), nn.Linear(9, 2)

    def forward(self, x: Any) -> Any:
        x = self.inp(x)
        return self.head(x + self.attn(x))


class Patches(nn.Module):
    """A vision transformer's body written by hand: parameters of its own, reshapes, a class token, raw matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 7, 2, stride=2)
        self.token = nn.Parameter(0.1 * torch.randn(1, 1, 7))
        self.place = nn.Parameter(0.1 * torch.randn(1, 5, 7))
        self.norm, self.up = nn.LayerNorm(7), nn.Linear(7, 6, bias=False)
        self.down = nn.Parameter(0.5 * torch.randn(6, 7))
        self.weight, self.bias = nn.Parameter(0.5 * torch.randn(3, 7)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Any) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.place
        x = x + torch.relu(self.up(self.norm(x))) @ self.down
        return functional.linear(x[:, 0], self.weight, self.bias)


class Squeeze(nn.Module):
    """Channels rescaled by a small network of their means, as in squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.a, self.b, self.out = nn.Conv2d(3, 5, 3), nn.Linear(5, 4), nn.Linear(4, 5), nn.Conv2d(5, 2, 1)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.inp(x))
        n, c = x.size(0), x.size(1)
        s = torch.sigmoid(self.b(torch.relu(self.a(x.mean(dim=(2, 3))))))
        return self.out(x * s.view(n, c, 1, 1))


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.LeakyReLU(),
        nn.Linear(5, 7), nn.ReLU(), nn.BatchNorm1d(7), nn.Linear(7, 3),
    )  # fmt: skip


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(5 * 4, 7), nn.LeakyReLU(), nn.Linear(7, 3),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 3))


MODELS: dict[str, tuple[Any, Any]] = {
    "mlp": (mlp, lambda: torch.randn(8, 4)),
    "conv": (conv_net, lambda: torch.randn(4, 3, 10, 10)),
    "resnet": (ResNet, lambda: torch.randn(4, 3, 7, 7)),
    "residual": (ResidualMLP, lambda: torch.randn(8, 5)),
    "tokens": (Tokens, lambda: torch.randint(0, 11, (5, 4))),
    "prenorm": (lambda: Tokens(norm_first=True), lambda: torch.randint(0, 11, (5, 4))),
    "normalised": (normalised, lambda: torch.randn(9, 4)),
    "patches": (Patches, lambda: torch.randn(5, 3, 4, 4)),
    "squeeze": (Squeeze, lambda: torch.randn(5, 3, 5, 5)),
    "attending": (Attending, lambda: torch.randn(4, 5, 4)),
}


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> tuple[nn.Module, Any]:
    make, data = MODELS[request.param]
    return make(), data()


def covered(found: Architecture, module: nn.Module) -> bool:
    known = {s.name for s in found.slots} | {s.name for s in found.skipped}
    return {name for name, _ in module.named_parameters()} <= known


def law_values(found: Architecture, law: Law, parameters: Any) -> FloatArray:
    """The definition, slot by slot."""
    total: Any = 0.0
    for places, factor in ((law.plus, 1.0), (law.minus, -1.0 if law.kind == "matrix" else -law.degree)):
        for s in places:
            slot = found.slots[s]
            values = np.asarray(slot.read(parameters), dtype=np.float64)
            axis, head = slot.where(law.population), None if law.per is None else slot.where(law.per)
            assert axis is not None
            values = np.moveaxis(values, axis, 0) if head is None else np.moveaxis(values, (head, axis), (0, 1))
            lead = 1 if head is None else 2
            flat = values.reshape(*values.shape[:lead], -1)
            square = flat @ np.swapaxes(flat, -1, -2) if law.kind == "matrix" else (flat**2).sum(-1)
            total = total + factor * square
    half = np.shape(total)[-1] // 2
    return total[..., :half] + total[..., half:] if law.kind == "rotary" else np.asarray(total)


def conserved(module: nn.Module, found: Architecture, loss: Any) -> dict[str, float]:
    """|dQ/dt| along the gradient over the size of its terms; Q is quadratic, so a central difference is exact."""
    module.zero_grad()
    loss().backward()
    theta = {name: p.detach().numpy().copy() for name, p in module.named_parameters()}
    g = {
        name: np.zeros_like(theta[name]) if p.grad is None else p.grad.numpy() for name, p in module.named_parameters()
    }
    out = {}
    for law in found.laws:
        up, down = ({k: theta[k] + h * g[k] for k in theta} for h in (1.0, -1.0))
        size = np.abs(
            law_values(found, Law(**{**law.__dict__, "minus": ()}), {k: abs(theta[k]) + abs(g[k]) for k in g})
        )
        out[law.name] = float(np.abs(law_values(found, law, up) - law_values(found, law, down)).max() / size.max())
    return out


# ---- the architecture


def test_every_parameter_is_in_a_slot_or_named(model: tuple[nn.Module, Any]) -> None:
    module, data = model
    for found in (architecture_of_module(module), architecture_of_module(module, data)):
        assert covered(found, module)
        assert Architecture.from_dict(found.to_dict()) == found


def test_permuting_every_population_keeps_the_function(model: tuple[nn.Module, Any]) -> None:
    module, data = model
    found, rng = architecture_of_module(module, data), np.random.default_rng(1)
    assert found.populations
    run, theta = Evaluation(shadow(module)), {k: v + 0.1 for k, v in parameters_of_module(module).items()}
    reference = run(data, theta)
    for p in found.populations:
        signs = rng.choice([-1, 1], p.count) if p.signs else None
        moved = exchanged(found, theta, p.name, np.roll(np.arange(p.count), 1), signs)
        assert any((moved[k] != theta[k]).any() for k in theta)
        np.testing.assert_allclose(run(data, moved), reference, rtol=1e-5, atol=1e-6)


def test_what_the_data_flow_says_passes_its_test(model: tuple[nn.Module, Any]) -> None:
    module, data = model
    said = architecture_of_module(module, data, confirm=False)
    tested = architecture_of_module(module, data)
    assert [p.name for p in said.populations] == [p.name for p in tested.populations]
    assert [law.name for law in said.laws] == [law.name for law in tested.laws]


def test_the_laws_are_conserved_by_every_gradient(model: tuple[nn.Module, Any]) -> None:
    module, data = model
    module = module.double()
    data = data.double() if data.is_floating_point() else data
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eps = 1e-14  # its eps breaks the law of scale a little
    found = architecture_of_module(module, data)
    assert found.laws
    target = torch.randint(0, 2, (len(data),))

    def loss() -> Any:
        out = module(data)
        return functional.cross_entropy(out.reshape(len(data), -1), target)

    drifts = conserved(module, found, loss)
    assert max(drifts.values()) < 1e-12, drifts


def test_a_wrong_law_is_not_conserved() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    found = architecture_of_module(module)
    assert not found.laws
    wrong = Architecture(found.slots, found.populations, (Law("wrong", "balance", "0", (0, 1), (2,)),))
    x = torch.randn(8, 4).double()
    assert conserved(module, wrong, lambda: module(x).square().sum())["wrong"] > 1e-4


def test_a_chain_is_read_as_a_chain() -> None:
    module = mlp()
    found = architecture_of_module(module)
    assert [d.weight for d in found.chain] == ["0.weight", "2.weight", "4.weight", "5.weight"]
    assert [d.activation.name for d in found.chain] == ["relu", "tanh", "identity", "identity"]
    flags = {p.name: (p.count, p.signs, p.null) for p in found.populations}
    assert flags == {"0": (6, False, True), "2": (5, True, True), "4": (4, True, True)}
    assert [(law.kind, law.population) for law in found.laws] == [("balance", "0"), ("matrix", "4")]
    x = torch.randn(5, 4)
    net = found.network(parameters_of_module(module))
    np.testing.assert_allclose(net(x.numpy()), module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("end", [nn.Softmax(-1), nn.LogSoftmax(-1)])
def test_a_head_does_not_end_the_chain(end: nn.Module) -> None:
    found = architecture_of_module(nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), end))
    assert len(found.chain) == 2


def test_channels_behind_a_flattening() -> None:
    found = architecture_of_module(conv_net())
    assert not found.chain
    slot = next(s for s in found.slots if s.name == "8.weight")
    assert (slot.view, [a and (a.population, a.role) for a in slot.axes]) == (
        (7, 5, 4), [("8", "in"), ("4", "out"), None]
    )  # fmt: skip
    first, second, third = found.populations
    assert (first.kind, first.normalised, first.signs, third.activation and third.activation.name) == (
        "channels", True, False, "leaky_relu"
    )  # fmt: skip
    assert not second.normalised
    texts = {(law.kind, law.population): law.name for law in found.laws}
    assert texts["scale", "0"] == "|0.weight|^2 + 0.bias^2"
    assert texts["balance", "0"] == "|1.weight|^2 + 1.bias^2 - |4.weight|^2"


def test_a_residual_stream_is_one_population_across_its_layers() -> None:
    found = architecture_of_module(ResNet())
    stream = found.named["stem"]
    assert (stream.kind, stream.count, stream.activation, stream.signs) == ("stream", 6, None, False)
    names = {found.slots[s].name for s, _, _ in found.places["stem"]}
    assert {"stem.weight", "blocks.0.conv2.weight", "blocks.1.bn2.weight", "deep.weight", "fc.weight"} <= names
    assert {found.slots[s].name for s, _, role in found.places["stem"] if role == "out"} == {
        "blocks.0.conv1.weight", "blocks.1.conv1.weight", "fc.weight"
    }  # fmt: skip
    assert [p.count for p in found.populations] == [6, 5, 4]


def test_laws_around_normalisations() -> None:
    found = architecture_of_module(normalised())
    assert [(law.kind, law.name) for law in found.laws] == [
        ("balance", "|1.weight|^2 + 1.bias^2 - |3.weight|^2"),
        ("balance", "|4.weight|^2 + 4.bias^2 - |6.weight|^2"),
        ("balance", "|8.weight|^2 + 8.bias^2 - |9.weight|^2"),
        ("scale", "|3.weight|^2 + 3.bias^2"),
    ]
    assert [(p.normalised, p.activation and p.activation.name) for p in found.populations] == [
        (True, "relu"), (True, "leaky_relu"), (False, None)
    ]  # fmt: skip


def test_reshapes_tokens_and_raw_matrices_are_followed_where_shapes_are_known() -> None:
    found = architecture_of_module(Patches(), torch.randn(5, 3, 4, 4))
    assert [(p.name, p.count, p.kind) for p in found.populations] == [("patch", 7, "stream"), ("up", 6, "neurons")]
    assert {found.slots[s].name for s, _, _ in found.places["patch"]} == {
        "patch.weight", "patch.bias", "token", "place", "norm.weight", "norm.bias", "up.weight", "down", "weight"
    }  # fmt: skip
    assert [law.name for law in found.laws] == ["|up.weight|^2 - |down|^2"]
    squeeze = architecture_of_module(Squeeze(), torch.randn(5, 3, 5, 5))
    assert [p.count for p in squeeze.populations] == [5, 4]


def test_heads_and_factors_of_attention() -> None:
    found = architecture_of_module(Attending())
    assert {p.name: (p.count, p.kind) for p in found.populations} == {
        "inp": (9, "stream"), "attn.heads": (3, "heads"), "attn.qk": (3, "factors"), "attn.vo": (3, "factors")
    }  # fmt: skip
    views = {s.name: s.view for s in found.slots}
    assert views["attn.q_proj.weight"] == (3, 2, 3, 9)  # key heads, queries of each, factors, stream
    assert {(law.kind, law.per) for law in found.laws} == {("matrix", "attn.heads")}


def test_heads_that_are_told_apart_are_found_by_the_test() -> None:
    module, data = Attending(tilt=0.5), torch.randn(4, 5, 4)
    assert "attn.heads" in architecture_of_module(module).named
    found = architecture_of_module(module, data)
    assert "attn.heads" not in found.named
    assert "not understood" in next(s.reason for s in found.skipped if s.name == "attn.heads")
    assert "attn.vo" in found.named


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        return self.c(torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], dim=1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.lstm, self.c = nn.Linear(3, 4), nn.LSTM(4, 5), nn.Linear(5, 2)

    def forward(self, x: Any) -> Any:
        return self.c(self.lstm(torch.relu(self.a(x)))[0])


class Branching(nn.Module):
    """Control flow that torch.fx cannot trace; its body is followed by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
        self.extra = nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        return self.extra(self.body(x)) if x.sum() > 0 else self.extra(x)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.loop, self.out = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Any) -> Any:
        x = torch.tanh(self.inp(x))
        return self.out(torch.tanh(self.loop(torch.tanh(self.loop(x)))))


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        return self.c(torch.relu(self.b(x + torch.relu(self.a(x)))))


def weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 1))


def group_norm(groups: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(groups, 4), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize(
    ("module", "shape", "name", "word"),
    [
        (Concatenated(), (6, 3), "a", "concatenated"),
        (Recurrent(), (6, 2, 3), "lstm.weight_ih_l0", "LSTM"),
        (Branching(), (6, 3), "Branching", "trace"),
        (Skip(), (6, 4), "a", "sum"),
        (weight_norm(), (6, 3), "0.parametrizations.weight.original0", "Parametrized"),
        (grouped(), (6, 4, 3, 3), "0", "groups"),
        (group_norm(2), (6, 3, 3, 3), "0", "groups"),
    ],
)
def test_what_is_not_understood_is_named(module: nn.Module, shape: tuple[int, ...], name: str, word: str) -> None:
    found = architecture_of_module(module, torch.randn(shape))
    assert covered(found, module)
    assert name not in found.named
    assert word in next(s.reason for s in found.skipped if s.name == name)


def test_parts_of_what_cannot_be_traced_are_followed() -> None:
    found = architecture_of_module(Branching(), torch.ones(4, 3))
    assert [(p.name, p.count) for p in found.populations] == [("body.0", 8)]
    assert [law.name for law in found.laws] == ["|body.0.weight|^2 + body.0.bias^2 - |body.2.weight|^2"]


def test_a_weight_used_twice_ties_what_it_connects() -> None:
    module, data = Shared(), torch.randn(6, 3)
    found = architecture_of_module(module, data)
    assert [(p.name, p.count, p.signs) for p in found.populations] == [("inp", 5, False)]
    loop = next(s for s in found.slots if s.name == "loop.weight")
    assert [a and (a.population, a.role) for a in loop.axes] == [("inp", "in"), ("inp", "out")]


def test_other_normalisations() -> None:
    one = architecture_of_module(group_norm(1), torch.randn(4, 3, 3, 3))
    each = architecture_of_module(group_norm(4), torch.randn(4, 3, 3, 3))
    assert [p.normalised for p in one.populations + each.populations] == [True, True]
    assert (one.populations[0].null, each.populations[0].null) == (False, True)


def test_a_value_used_before_and_after_its_activation_has_none() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            z = self.a(x)
            return self.b(torch.tanh(z)) * 2.0 + self.c(z).sum(dim=-1, keepdim=True)

    found = architecture_of_module(Twice(), torch.randn(5, 3))
    assert [(p.activation, p.signs) for p in found.populations] == [(None, False)]
    assert not found.laws


def test_shapes_keep_track_of_the_channels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        rank = int(rng.integers(2, 5))
        before = tuple(int(n) for n in rng.integers(2, 4, rank))
        axis = int(rng.integers(1, rank))
        values = np.broadcast_to(np.arange(before[axis]).reshape([-1 if k == axis else 1 for k in range(rank)]), before)
        start = int(rng.integers(0, rank))
        end = int(rng.integers(start, rank))
        flat = values.reshape(*before[:start], -1, *before[end + 1 :])
        found = shapes.flattened(Flow(0, axis, rank), start, end)
        if found is not None:
            _same_channels(found, flat, before[axis])
        again = shapes.reshaped(Flow(0, axis, rank), before[axis], before, flat.shape)
        if again is not None:
            _same_channels(again, flat, before[axis])
        order = rng.permutation(rank)
        turned = shapes.permuted(Flow(0, axis, rank), order.tolist(), rank)
        assert turned is not None
        _same_channels(turned, values.transpose(order), before[axis])


def _same_channels(flow: Flow, values: npt.NDArray[Any], count: int) -> None:
    """Along the flow's axis, the channel of each entry is what `packed` says."""
    axis = flow.axis % values.ndim
    n = values.shape[axis]
    expected = np.arange(n) // (n // count) if flow.packed == "major" else np.arange(n) % count
    np.testing.assert_array_equal(np.moveaxis(values, axis, -1), np.broadcast_to(expected, (
        *np.moveaxis(values, axis, -1).shape[:-1], n)))  # fmt: skip


# ---- nothing of the user's is touched


def _state_of(module: nn.Module) -> tuple[Any, ...]:
    hooks = [sorted((k, len(v)) for k, v in m.__dict__.items() if "hooks" in k and isinstance(v, dict))
             for m in module.modules()]  # fmt: skip
    buffers = {k: v.clone() for k, v in module.state_dict().items()}
    return hooks, [m.training for m in module.modules()], buffers, torch.random.get_rng_state().clone()


def _same_state(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    same = all(torch.equal(a[2][k], b[2][k]) for k in a[2])
    return bool(a[0] == b[0] and a[1] == b[1] and same and torch.equal(a[3], b[3]))


def test_reading_and_running_leaves_the_module_alone(model: tuple[nn.Module, Any]) -> None:
    module, data = model
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    next(iter(module.children())).eval()
    before = _state_of(module)
    subject = ModuleSubject(module, example=data)
    assert isinstance(subject, Subject)
    assert subject.architecture().populations
    assert subject.evaluate(data) is not None
    subject.activations(data)
    subject.close()
    assert _same_state(before, _state_of(module))
    assert not calls
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_parameters_are_views_and_convert_lazily() -> None:
    module = mlp()
    values = parameters_of_module(module)
    assert np.shares_memory(values["0.weight"], module[0].weight.detach().numpy())  # type: ignore[index]
    narrow = parameters_of_module(nn.Linear(2, 3).to(torch.bfloat16))["weight"]
    assert narrow.dtype == np.float32
    assert "0.weight" in values
    assert len(values) == 8


def test_wrappers_are_taken_off() -> None:
    module = mlp()
    assert unwrapped(nn.DataParallel(module)) is module
    compiled = type("OptimizedModule", (nn.Module,), {})()
    compiled._orig_mod = nn.DataParallel(module)
    assert unwrapped(compiled) is module
    assert [p.name for p in architecture_of_module(nn.DataParallel(module)).populations] == ["0", "2", "4"]
    kind = type("FullyShardedDataParallel", (nn.Sequential,), {})
    with pytest.raises(UnsupportedError, match="FullyShardedDataParallel"):
        architecture_of_module(kind(nn.Linear(2, 2)))


@pytest.mark.slow
def test_a_compiled_module_is_unwrapped() -> None:
    module = mlp()
    assert unwrapped(torch.compile(module)) is module


def test_activations_are_what_the_readers_get() -> None:
    module, x = conv_net().eval(), torch.randn(4, 3, 10, 10)
    subject = ModuleSubject(module, example=x)
    found = subject.activations(x)
    assert found is not None
    with torch.no_grad():
        first = module[3](module[2](module[1](module[0](x))))  # type: ignore[index]
        second = module[5](module[4](first))  # type: ignore[index]
    np.testing.assert_allclose(found["0"], first.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["4"], second.numpy().reshape(4, 5, 4), rtol=1e-6)
    assert found["8"].shape == (4, 7)
    with torch.no_grad():
        module[0].weight.data = torch.zeros_like(module[0].weight)  # type: ignore[index]  # other memory
        module[1].running_mean += 100.0  # type: ignore[index, operator]
        module[1].bias.fill_(1.0)  # type: ignore[index, union-attr, operator]
    moved = subject.activations(x)
    assert moved is not None
    assert not moved["0"].any()


def test_a_module_that_cannot_run_on_the_data_is_a_problem_and_no_crash() -> None:
    subject = ModuleSubject(mlp())
    assert subject.evaluate(torch.randn(3, 5)) is None
    assert subject.activations(torch.randn(3, 5)) == {}
    assert any("cannot be run" in text for text in subject.problems())


# ---- optimizers


def _run(optimizer: Any, module: nn.Module, steps: int, schedule: Any = None) -> Any:
    """Drift of a run that is shown every step, with gradients."""
    subject = ModuleSubject(module, optimizer)
    drift = Drift(subject.architecture(), subject.parameters(), step=0, optimiser=subject.optimiser(), exact=True)
    generator = torch.Generator().manual_seed(3)
    for k in range(steps):
        x = torch.randn(16, 4, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (module(x) - x[:, :3].square()).square().mean().backward()
        optimizer.step()
        drift.observe(k + 1, subject.parameters(), subject.gradients(), subject.optimiser())
        if schedule is not None:
            schedule.step()
    return drift.report()


def relu_net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "decay": lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.05, dampening=0.3),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.003),
    "centred": lambda p: torch.optim.RMSprop(p, 0.003, centered=True, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05, lr_decay=0.1),
}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_optimizer_explains_the_drift_of_every_law(name: str) -> None:
    module = relu_net()
    report = _run(OPTIMIZERS[name](module.parameters()), module, 30)
    assert report.drift > 1e-4
    assert report.unexplained < 1e-9 * max(1.0, report.drift)


def test_a_schedule_and_groups_are_followed() -> None:
    module = relu_net()
    groups = [{"params": module[0].parameters()}, {"params": module[2].parameters(), "lr": 0.02, "weight_decay": 0.3}]  # type: ignore[index]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.5)
    report = _run(optimizer, module, 20, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9))
    assert report.unexplained < 1e-9
    state = optimiser_of_torch(optimizer, dict(module.named_parameters()))
    assert state.number("2.weight", "weight_decay") == 0.3
    assert state.number("0.weight", "weight_decay") == 0.0


def test_numbers_buffers_and_frozen_parameters() -> None:
    module = relu_net()
    module[0].bias.requires_grad_(False)  # type: ignore[index, union-attr, operator]
    names = dict(module.named_parameters())
    optimizer = torch.optim.AdamW([p for n, p in names.items() if n != "2.bias"], lr=0.25, betas=(0.5, 0.75), eps=1e-3)
    module(torch.ones(1, 4).double()).sum().backward()
    optimizer.step()
    state = optimiser_of_torch(optimizer, names, rates=[0.125])
    assert (state.name, state.lr, state.beta1, state.beta2, state.eps) == ("adamw", 0.125, 0.5, 0.75, 1e-3)
    assert (state.weight_decay, state.coupled, state.frozen) == (0.01, False, frozenset({"0.bias", "2.bias"}))
    assert state.count("0.weight") == 1
    np.testing.assert_array_equal(state.buffers["first"]["0.weight"], 0.5 * names["0.weight"].grad.numpy())


def test_maximising_turns_the_gradients() -> None:
    module = relu_net()
    report = _run(torch.optim.SGD(module.parameters(), 1e-4, momentum=0.5, maximize=True), module, 10)
    assert report.unexplained < 1e-12
    names = dict(module.named_parameters())
    plain, turned = gradients_of(names), gradients_of(names, torch.optim.SGD(names.values(), 0.1, maximize=True))
    assert plain is not None
    assert turned is not None
    np.testing.assert_array_equal(plain["0.weight"], -turned["0.weight"])


def test_unknown_optimizers_are_named() -> None:
    class Odd(torch.optim.SGD):  # type: ignore[misc]
        def step(self, closure: Any = None) -> None:
            """Does nothing."""

    module = relu_net()
    names = dict(module.named_parameters())
    for optimizer in (Odd(module.parameters(), 0.1), torch.optim.Rprop(module.parameters(), 0.1)):
        state = optimiser_of_torch(optimizer, names)
        assert state.name == "unknown"
        assert type(optimizer).__name__ in state.note
    kept = type("Named", (torch.optim.SGD,), {})(module.parameters(), 0.1)
    assert optimiser_of_torch(kept, names).name == "sgd"


SCHEDULED: dict[str, tuple[Any, Any]] = {
    "sgd": (lambda p: torch.optim.SGD(p, 0.1), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
    "tensor": (
        lambda p: torch.optim.Adam(p, torch.tensor(0.02)),
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.8),
    ),
    "cycled": (
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.05),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=40),
    ),
}
"""Optimizers and schedules; the last moves the momentum too."""


@pytest.mark.parametrize("name", sorted(SCHEDULED))
@pytest.mark.parametrize("order", ["optimizer, schedule, watcher", "optimizer, watcher, schedule"])
def test_a_schedule_may_step_before_or_after_the_watcher(name: str, order: str) -> None:
    module, (make, plan) = relu_net(), SCHEDULED[name]
    optimizer = make(module.parameters())
    schedule = plan(optimizer)
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], 1.0)  # another of the same run
    with watch(module, optimizer=optimizer, every=20, drift_every=1) as w:
        for _ in range(20):
            for _ in range(2):  # gradients are added up
                x = torch.randn(16, 4, dtype=torch.float64)
                ((module(x) - x[:, :3].square()).square().mean() / 2).backward()
            optimizer.step()
            other.step()
            if order.endswith("watcher"):
                schedule.step()
            w.step()
            if order.endswith("schedule"):
                schedule.step()
            optimizer.zero_grad()
    assert w.last["fiberscope/laws/ratio"] == pytest.approx(1.0, abs=1e-6)
    assert w.last["fiberscope/laws/drift"] > 1e-4


def test_constants_are_kept_of_every_optimizer_that_steps() -> None:
    module = relu_net()
    names = dict(module.named_parameters())
    first, second = torch.optim.SGD(names.values(), 0.5), torch.optim.SGD(names.values(), 0.25)
    subject = ModuleSubject(module, first)
    subject.update(optimizer=second)
    for optimizer in (first, second):
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 7.0  # as a schedule does
    found = []
    for optimizer in (first, second):
        subject.update(optimizer=optimizer)
        state = subject.optimiser()
        assert state is not None
        found.append(state.lr)
    assert found == [0.5, 0.25]


def test_the_optimizers_hook_is_taken_off() -> None:
    module = relu_net()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    hooks = optimizer._optimizer_step_post_hooks
    with watch(module, optimizer=optimizer) as w:
        assert len(hooks) == 1
        assert not copy.deepcopy(optimizer)._optimizer_step_post_hooks
        assert not pickle.loads(pickle.dumps(optimizer))._optimizer_step_post_hooks
        w.step(optimizer=optimizer)
        assert len(hooks) == 1
    assert not hooks
    subject = ModuleSubject(module, optimizer)
    assert len(hooks) == 1
    del subject  # forgotten without being closed
    gc.collect()
    assert not hooks


# ---- watched loops


def _loop(module: nn.Module, data: Any, steps: int = 6, **options: Any) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), 0.02, momentum=0.5)
    target = torch.randint(0, 2, (len(data),))
    with watch(module, optimizer=optimizer, every=2, data=data, **options) as w:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = functional.cross_entropy(module(data).reshape(len(data), -1), target)
            loss.backward()
            optimizer.step()
            w.step(loss=loss)
    return w


def test_a_loop_is_watched_without_a_trace_in_the_module(model: tuple[nn.Module, Any]) -> None:
    module, data = model
    twin = copy.deepcopy(module)
    hooks = _state_of(module)[0]
    torch.manual_seed(5)
    w = _loop(module, data)
    torch.manual_seed(5)
    target = torch.randint(0, 2, (len(data),))
    optimizer = torch.optim.SGD(twin.parameters(), 0.02, momentum=0.5)
    for _ in range(6):
        optimizer.zero_grad()
        functional.cross_entropy(twin(data).reshape(len(data), -1), target).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), twin.state_dict().values(), strict=True))
    assert _state_of(module)[0] == hooks
    trace = w.trace()
    assert [r.step for r in trace.records] == [0, 2, 4, 6]
    assert trace.complete
    assert trace.last("sims/nearest_distance") is not None
    assert len([k for k in w.last if k.startswith("fiberscope/")]) <= 20


def test_an_exception_leaves_no_hook_and_ends_the_trace() -> None:
    module, data = conv_net(), torch.randn(4, 3, 10, 10)
    before = _state_of(module)
    watcher = watch(module, data=data)
    with pytest.raises(RuntimeError, match="planned"), watcher:
        raise RuntimeError("planned")
    assert _same_state(before, _state_of(module))
    assert "planned" in str(watcher.trace().error)


def test_planted_twins_stay_together_and_a_dead_channel_is_counted() -> None:
    module, data = conv_net(), torch.randn(6, 3, 10, 10)
    with torch.no_grad():
        for k in (4, 8):
            part = module[k]  # type: ignore[index]
            if k == 4:
                part.weight[1], part.bias[1] = part.weight[0], part.bias[0]
                part.bias[3] = -100.0
            else:
                view = part.weight.view(7, 5, 4)
                view[:, 1] = view[:, 0]
    module[7].p = 0.0  # type: ignore[index]  # dropout would tell the twins apart
    w = _loop(module, data)
    assert w.last["fiberscope/sims/nearest_distance"] < 1e-5
    near = w.trace().records[-1].nearest[0]
    text = str(near)
    assert "'4'" in text
    assert w.last["fiberscope/dead/on_data"] >= 1


# ---- what each rule is for


def test_dropout_between_linear_layers_leaves_the_diagonal_only() -> None:
    kinds = [
        [law.kind for law in architecture_of_module(nn.Sequential(nn.Linear(3, 4), *between, nn.Linear(4, 2))).laws]
        for between in ([], [nn.Dropout(0.1)])
    ]
    assert kinds == [["matrix"], ["balance"]]


@pytest.mark.parametrize("between", [[nn.Tanh(), nn.MaxPool2d(2)], [nn.BatchNorm2d(4), nn.Tanh()]])
def test_signs_do_not_pass_through_maxima_and_gains(between: list[nn.Module]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), *between, nn.Conv2d(4, 2, 1))
    assert [p.signs for p in architecture_of_module(module).populations] == [False]
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 2, 1))
    assert [p.signs for p in architecture_of_module(module).populations] == [True]


def test_what_is_also_read_without_its_normalisation_has_no_law_of_scale() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.c = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x: Any) -> Any:
            y = self.a(x)
            return self.c(torch.relu(self.norm(y)) + y)

    found = architecture_of_module(Both())
    assert [p.name for p in found.populations] == ["a"]
    assert not found.laws


def test_channels_tied_to_inputs_one_by_one_stand_for_themselves() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1, groups=3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    found = architecture_of_module(module)
    assert [p.name for p in found.populations] == ["2"]
    assert any(s.name == "0" and "cannot be exchanged" in s.reason for s in found.skipped)


def test_rmsprops_average_is_its_alpha() -> None:
    module = relu_net()
    state = optimiser_of_torch(
        torch.optim.RMSprop(module.parameters(), 0.1, alpha=0.75), dict(module.named_parameters())
    )
    assert (state.name, state.beta2) == ("rmsprop", 0.75)


def test_running_statistics_are_those_of_the_moment() -> None:
    module, x = conv_net(), torch.randn(4, 3, 10, 10)
    subject = ModuleSubject(module, example=x)
    first = subject.activations(x)
    module[1].running_mean += 100.0  # type: ignore[index, operator]
    second = subject.activations(x)
    assert first is not None
    assert second is not None
    assert first["0"].any()
    assert not second["0"].any()


def test_data_of_a_wrong_shape_is_said_once() -> None:
    with watch(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), data=torch.ones(4, 7)) as watcher:
        watcher.step()
    assert sum("cannot be" in text or "mat1" in text for text in watcher.problems) == 1
    assert watcher.problems[0].startswith("Sequential cannot be run on the data: mat1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"activation": "tanh"}, "activation='tanh' beside a torch module"),
        ({"optimizer": {"lr": 1.0}}, "optimizer is a dict; expected one of torch.optim"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; expected"),
        ({"domain": "nonsense"}, "no such file"),
    ],
)
def test_wrong_arguments_beside_a_module_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        watch(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), **options)


def test_stock_adamw_looked_at_now_and_then_raises_no_alarm() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))
    x, y = torch.randn(64, 5), torch.randint(0, 2, (64,))
    rule = torch.optim.AdamW(net.parameters(), lr=1e-2)
    with watch(net, optimizer=rule, every=100) as watcher:
        for _ in range(101):
            rule.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            rule.step()
            watcher.step()
    assert watcher.last["fiberscope/laws/ratio"] == pytest.approx(1, abs=0.25)
    assert not watcher.trace().warnings


@pytest.mark.parametrize("count", [1, 6])
def test_a_trained_slope_belongs_to_its_neuron(count: int) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.PReLU(count), nn.Linear(6, 3)).double()
    data = torch.randn(8, 4, dtype=torch.float64)
    found = architecture_of_module(module, data)
    assert [(p.name, p.guessed) for p in found.populations] == [("0", "")]
    assert [law.kind for law in found.laws] == ["balance"]
    assert not found.skipped
    target = torch.randint(0, 3, (8,))
    drifts = conserved(module, found, lambda: functional.cross_entropy(module(data), target))
    assert max(drifts.values()) < 1e-12
    assert bool(architecture_of_module(module).populations[0].guessed) == (count > 1)


def test_fixed_statistics_are_an_affine_map() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 3))
    kinds = [law.kind for law in architecture_of_module(module).laws]
    assert "scale" in kinds
    module[1].eval()
    found = architecture_of_module(module)
    assert [(p.name, p.normalised, p.null) for p in found.populations] == [("0", False, False)]
    assert not found.laws
    module[1].running_mean[2] = 1.0  # the channels are told apart
    assert not architecture_of_module(module).populations
    module.eval()  # a whole module in evaluation mode is read as it trains
    assert [law.kind for law in architecture_of_module(module).laws] == kinds


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_layers_without_neurons_are_read() -> None:
    module = nn.Sequential(nn.Linear(4, 0), nn.Tanh(), nn.Linear(0, 3))
    assert [p.count for p in architecture_of_module(module).populations] == [0]


def test_a_mask_may_tell_heads_apart() -> None:
    class Masked(nn.Module):
        def __init__(self, mask: Any) -> None:
            super().__init__()
            self.a, self.h = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)
            self.register_buffer("mask", mask)

        def forward(self, x: Any) -> Any:
            return self.h(self.a(x, x, x, attn_mask=self.mask)[0])

    with_mask = architecture_of_module(Masked(torch.zeros(8, 5, 5)))
    assert "mask" in with_mask.named["a.heads"].guessed
    assert Architecture.from_dict(with_mask.to_dict()) == with_mask
    without = architecture_of_module(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    assert not {"guessed", "factors"} & set(without.to_dict()["populations"][0])


class _Branching(nn.Module):
    """Its forward depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x: Any) -> Any:
        return self.body(x) if x.sum() > 0 else -self.body(x)


@pytest.mark.parametrize("given", [False, True])
def test_modules_read_by_names_ask_for_data(given: bool) -> None:
    with watch(_Branching(), data=torch.ones(4, 3) if given else None) as watcher:
        watcher.step()
    assert any("give data=" in note for note in watcher.trace().notes) is not given
    with watch(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))) as plain:
        plain.step()
    assert not any("give data=" in note for note in plain.trace().notes)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.nn.Sequential(torch.nn.Linear(2, 3, device="meta")), "0.weight is on the meta device"),
        (lambda: torch.nn.Sequential(torch.nn.LazyLinear(3)), "0.weight is of a lazy layer"),
        (lambda: torch.jit.trace(torch.nn.Sequential(torch.nn.Linear(2, 3)), torch.ones(1, 2)), "shows no layers"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_without_values_or_layers_are_refused_in_one_line(make, words):
    module = make()
    for call in (
        architecture_of_module,
        parameters_of_module,
        fiberscope.measure,
        fiberscope.lint_init,
        fiberscope.watch,
    ):
        with pytest.raises(UnsupportedError, match=words):
            call(module)


@pytest.mark.parametrize("given", [None, torch.nn.Linear, [1.0], "net.pt"])
def test_what_is_no_module_is_named(given):
    for call in (architecture_of_module, parameters_of_module):
        with pytest.raises(InputError, match="give a torch.nn.Module"):
            call(given)
