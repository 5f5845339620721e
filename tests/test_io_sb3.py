"""Stable-Baselines3 models: several networks in one file, settings searched but never run."""

from __future__ import annotations

import base64
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from fiberscope.errors import InputError, UnsupportedError
from fiberscope.io import load
from fiberscope.io.files import zip_bytes
from fiberscope.io.torch_pickle_writer import Writer

RNG = np.random.default_rng(0)


def linear(name, n_in, n_out):
    return {
        f"{name}.weight": RNG.standard_normal((n_out, n_in)).astype("f4"),
        f"{name}.bias": RNG.standard_normal(n_out).astype("f4"),
    }


def policy(tensors) -> bytes:
    writer = Writer()
    entries = {"archive/data.pkl": writer.dumps(OrderedDict(tensors))}
    entries |= {f"archive/data/{k}": block for k, block in enumerate(writer.storages)}
    return zip_bytes(entries)


def model(path, tensors, **settings):
    path.write_bytes(zip_bytes({"data": json.dumps(settings).encode(), "policy.pth": policy(tensors)}))
    return path


ACTOR_CRITIC = (
    linear("mlp_extractor.policy_net.0", 3, 8)
    | linear("mlp_extractor.policy_net.2", 8, 8)
    | linear("mlp_extractor.value_net.0", 3, 6)
    | linear("mlp_extractor.value_net.2", 6, 6)
    | linear("action_net", 8, 2)
    | linear("value_net", 6, 1)
)


def kind(module):
    return {"__module__": module}


def test_policy_and_value_are_parts(tmp_path):
    path = model(tmp_path / "a.zip", ACTOR_CRITIC | {"log_std": np.zeros(2, "f4")})
    with pytest.raises(InputError, match="holds 2 networks: policy, value; choose one with --part NAME"):
        load(path)
    net = load(path, part="policy")
    assert net.architecture == "3-8-8-2 tanh"
    assert np.array_equal(net.layers[2].weight, ACTOR_CRITIC["action_net.weight"])
    assert load(path, part="value").widths == (3, 6, 6, 1)
    assert any("log_std" in note for note in net.source.notes)
    assert net.source.parameter_count == net.parameter_count == 8 * 4 + 8 * 9 + 2 * 9


def test_shared_layers_belong_to_both(tmp_path):
    shared = linear("mlp_extractor.shared_net.0", 3, 5) | linear("mlp_extractor.policy_net.0", 5, 4)
    path = model(tmp_path / "a.zip", shared | linear("action_net", 4, 2) | linear("value_net", 5, 1))
    assert load(path, part="policy").widths == (3, 5, 4, 2)
    assert load(path, part="value").widths == (3, 5, 1)


@pytest.mark.parametrize(
    ("kwargs", "name", "words"),
    [
        ({}, "tanh", "default of its policy class"),
        ({"activation_fn": "<class 'torch.nn.modules.activation.ReLU'>"}, "relu", "ReLU is named"),
    ],
)
def test_the_activation_is_named_as_text_or_the_default(tmp_path, kwargs, name, words):
    path = model(tmp_path / "a.zip", ACTOR_CRITIC, policy_kwargs=kwargs)
    net = load(path, part="policy")
    assert net.activation.name == name
    assert any(words in note for note in net.source.notes)
    assert load(path, part="policy", activation="elu").activation.name == "elu"


def pickled(text: bytes) -> dict[str, str]:
    return {":serialized:": base64.b64encode(text).decode()}


def test_the_activation_is_found_in_a_pickle_without_running_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    for code in (
        b"\x80\x02}X\x0d\x00\x00\x00activation_fnctorch.nn.modules.activation\nELU\ns.",
        b"\x80\x04}\x8c\x0dactivation_fn\x8c\x1btorch.nn.modules.activation\x8c\x03ELU\x93s.",
        b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00x\x85Rctorch.nn.modules.activation\nELU\n.",
    ):
        path = model(tmp_path / "a.zip", ACTOR_CRITIC, policy_kwargs=pickled(code))
        assert load(path, part="policy").activation.name == "elu"


def test_an_activation_that_is_unknown_or_hidden_is_refused(tmp_path):
    named = {"activation_fn": "<class 'torch.nn.modules.activation.SELU'>"}
    with pytest.raises(UnsupportedError, match=r"torch\.nn\.SELU"):
        load(model(tmp_path / "a.zip", ACTOR_CRITIC, policy_kwargs=named), part="policy")
    for own in ({"activation_fn": "<function mine>"}, pickled(b"\x80\x02}X\x0d\x00\x00\x00activation_fncmine\nf\ns.")):
        with pytest.raises(InputError, match="without running code; give --activation"):
            load(model(tmp_path / "a.zip", ACTOR_CRITIC, policy_kwargs=own), part="policy")


def test_q_networks_are_relu(tmp_path):
    tensors = linear("q_net.q_net.0", 3, 8) | linear("q_net.q_net.2", 8, 2)
    tensors |= linear("q_net_target.q_net.0", 3, 8) | linear("q_net_target.q_net.2", 8, 2)
    path = model(tmp_path / "a.zip", tensors, policy_class=kind("stable_baselines3.dqn.policies"))
    with pytest.raises(InputError, match="q_net, q_net_target"):
        load(path)
    assert load(path, part="q_net_target").architecture == "3-8-2 relu"


def test_ars_squashes_continuous_actions(tmp_path):
    tensors = linear("action_net.0", 3, 8) | linear("action_net.2", 8, 2)
    settings = {"policy_class": kind("sb3_contrib.ars.policies"), "policy_kwargs": {"net_arch": [8]}}
    box, discrete = ({":type:": f"<class 'gym.spaces.{name}'>"} for name in ("box.Box", "discrete.Discrete"))
    ends = []
    for space, kwargs in ((box, {}), (discrete, {}), (box, {"squash_output": False})):
        net = load(model(tmp_path / "a.zip", tensors, **{**settings, "policy_kwargs": kwargs}, action_space=space))
        assert net.activation.name == "relu"
        ends.append(net.layers[-1].activation.name)
    assert ends == ["tanh", "identity", "identity"]


def test_actors_and_critics(tmp_path):
    td3 = (
        linear("actor.mu.0", 3, 4)
        | linear("actor.mu.2", 4, 1)
        | linear("critic.qf0.0", 4, 5)
        | linear("critic.qf0.2", 5, 1)
    )
    path = model(tmp_path / "a.zip", td3)
    assert load(path, part="actor").layers[-1].activation.name == "tanh"
    assert load(path, part="critic_qf0").architecture == "4-5-1 relu"
    sac = linear("actor.latent_pi.0", 3, 4) | linear("actor.mu", 4, 1) | linear("actor.log_std", 4, 1)
    net = load(model(tmp_path / "b.zip", sac))
    assert net.layers[-1].activation.name == "identity"
    assert any("before its final tanh" in note for note in net.source.notes)


def test_feature_networks_are_refused(tmp_path):
    tensors = ACTOR_CRITIC | {"features_extractor.cnn.0.weight": np.zeros((2, 2, 3, 3), "f4")}
    with pytest.raises(UnsupportedError, match="feature network"):
        load(model(tmp_path / "a.zip", tensors), part="policy")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"readme": b"1"}, "without policy.pth"),
        ({"policy.pth": b"junk"}, "no torch file"),
        ({"policy.pth": policy({"x.weight": np.ones((1, 1), "f4")})}, "no network that is known"),
        ({"policy.pth": policy(ACTOR_CRITIC), "data": b"{"}, "entry 'data' is no valid JSON"),
    ],
)
def test_zips_that_are_no_models(tmp_path, entries, words):
    (tmp_path / "a.zip").write_bytes(zip_bytes(entries))
    with pytest.raises(InputError, match=words):
        load(tmp_path / "a.zip", part="policy")


def test_real_files_agree_with_torch(shared):
    torch = pytest.importorskip("torch")
    import io
    import zipfile

    files = sorted((shared / "models/sb3_zoo").rglob("*.zip"))
    for path in files:
        with zipfile.ZipFile(path) as archive:
            theirs = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
        try:
            nets = [load(path)]
        except InputError as exc:
            names = str(exc).partition("networks: ")[2].partition(";")[0].split(", ")
            nets = [load(path, part=name) for name in names]
        seen = set()
        for net in nets:
            for layer in net.layers:
                assert np.array_equal(layer.weight, theirs[layer.weight_name].numpy())
                seen |= {layer.weight_name, layer.bias_name}
        assert set(theirs) - seen <= {"log_std"}
    assert len(files) >= 17
