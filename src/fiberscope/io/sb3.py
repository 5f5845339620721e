"""Stable-Baselines3 models (.zip): the networks in policy.pth; pickled settings beside it are searched, never run.

The activation is looked for in the settings as text, or by the names of globals in their pickles; else it is the
algorithm's default, which a note says.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import FormatError, InputError, UnsupportedError
from fiberscope.io import state_dicts, torch_files
from fiberscope.io.files import Archive, Options, read_bytes, read_json, shapes, source
from fiberscope.network import Network

Tensor = npt.NDArray[Any]

_ACTIVATIONS = {
    "ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus", "GELU": "gelu", "SiLU": "silu",
    "ELU": "elu", "Hardtanh": "hard_tanh", "Identity": "identity",
}  # fmt: skip
_CLASS = re.compile(r"torch\.nn\.modules\.activation\.(\w+)")
_MAX_SETTINGS = 8 << 20
_ARS = "sb3_contrib.ars.policies"


@dataclass(frozen=True)
class _Role:
    """One network of an algorithm.

    Args:
        part: its name.
        modules: regular expressions of the modules it runs through, in order.
        needs: which of them (by position) must be there.
        squashed: whether its output may go through tanh.
    """

    part: str
    modules: tuple[str, ...]
    needs: int
    squashed: bool = False


_ROLES = (
    _Role("policy", (r"mlp_extractor\.shared_net", r"mlp_extractor\.policy_net", r"action_net"), 2),
    _Role("value", (r"mlp_extractor\.shared_net", r"mlp_extractor\.value_net", r"value_net"), 2),
    _Role("q_net", (r"q_net\.q_net",), 0),
    _Role("q_net_target", (r"q_net_target\.q_net",), 0),
    _Role("quantile_net", (r"quantile_net\.quantile_net",), 0),
    _Role("quantile_net_target", (r"quantile_net_target\.quantile_net",), 0),
    _Role("actor", (r"actor\.latent_pi", r"actor\.mu"), 1, squashed=True),
    _Role("actor_target", (r"actor_target\.mu",), 0, squashed=True),
    *(
        _Role(f"{critic}_{name}{k}", (rf"{critic}\.{name}{k}",), 0)
        for critic in ("critic", "critic_target")
        for name in ("qf", "qf_")
        for k in range(10)
    ),
)


def read(path: Path, options: Options) -> Network:
    """Read one network of a Stable-Baselines3 model.

    Raises:
        InputError: if there are several and no part is named; the error lists them.
        UnsupportedError: if observations go through a feature network.
    """
    data = read_bytes(path)
    archive = Archive(data)
    if "policy.pth" not in archive:
        if any(name.endswith("data.pkl") for name in archive.entries):
            return torch_files.from_tree(path, data, options)
        raise FormatError("is a zip archive without policy.pth; expected a Stable-Baselines3 model")
    found = {
        ".".join(k): v.array() for k, v in torch_files.flatten(torch_files.parse(archive.read("policy.pth"))).items()
    }
    settings = _settings(archive)
    available = _parts(found)
    if not available:
        raise UnsupportedError(f"holds no network that is known; its tensors are {shapes(found)}")
    name = state_dicts.choose(available, options.part)
    role, layers = available[name]
    if any(re.search(r"(features_extractor|cnn)\.", key) for key in found):
        raise UnsupportedError(
            "observations go through a feature network, which is not read; export the policy to ONNX"
        )
    rows, notes = _activations(role, len(layers), settings, options, found)
    own = {key: value for layer in layers for key, value in layer.tensors.items()}
    rest = {
        k: v
        for k, v in found.items()
        if not any(k in layer.tensors for _, group in available.values() for layer in group)
    }
    if rest:
        notes.append(f"Not part of this network: {shapes(rest)}.")
    place = source(path, data, "sb3", own, state_dicts.dtype_of(own), part=name, notes=tuple(notes))
    return state_dicts.chain(layers, rows, place)


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, tuple[_Role, tuple[state_dicts.Dense, ...]]]:
    """The networks by name. A lone `action_net` (ARS) is the policy."""
    layers = [
        layer
        for layer in state_dicts.inventory({k: v for k, v in tensors.items() if v.ndim <= 2}).layers
        if "features_extractor." not in layer.stem
    ]
    out = {}
    for role in _ROLES:
        chain: list[state_dicts.Dense] = []
        required = False
        for k, module in enumerate(role.modules):
            pattern = re.compile(rf"^{module}(\.\d+)?$")
            group = [layer for layer in layers if pattern.match(layer.stem)]
            if group:
                chain += state_dicts.arranged(group, ordered=True)
                required = required or k == role.needs
        if required:
            out[role.part] = (
                role,
                state_dicts.arranged(chain, ordered=True) if len(chain) == 1 else _checked(role, chain),
            )
    return out


def _checked(role: _Role, chain: list[state_dicts.Dense]) -> tuple[state_dicts.Dense, ...]:
    for a, b in zip(chain, chain[1:], strict=False):
        if a.weight.shape[0] != b.weight.shape[1]:
            raise FormatError(
                f"part {role.part}: {a.weight_name} {a.weight.shape} and {b.weight_name} {b.weight.shape} do not fit"
            )
    return tuple(chain)


def _settings(archive: Archive) -> dict[str, Any]:
    if "data" not in archive or archive.entries["data"].file_size > _MAX_SETTINGS:
        return {}
    settings = read_json(archive.read("data"), "entry 'data'")
    return settings if isinstance(settings, dict) else {}


def _activations(
    role: _Role, count: int, settings: Mapping[str, Any], options: Options, tensors: Mapping[str, Tensor]
) -> tuple[list[Activation], list[str]]:
    """One activation per layer, and notes that say where they come from."""
    module = _policy_module(settings)
    last = find_activation("identity")
    notes = []
    if role.squashed or (module == _ARS and _continuous(settings)):
        kwargs = settings.get("policy_kwargs")
        squash = not isinstance(kwargs, dict) or kwargs.get("squash_output", True) is not False
        gaussian = role.part == "actor" and any(key.startswith("actor.latent_pi.") for key in tensors)
        if gaussian:
            notes.append("The actor's mean is read before its final tanh.")
        elif squash:
            last = find_activation("tanh")
            notes.append("The output goes through tanh, as the algorithm does for continuous actions.")
    if options.activation is not None:
        rows = state_dicts.activations_for(count, options.activation)
        return rows, [*notes, "The activation was given."]
    name, note = _hidden(settings, module, role)
    if count > 1:
        notes.append(note)
    return [find_activation(name)] * (count - 1) + [last], notes


def _policy_module(settings: Mapping[str, Any]) -> str:
    kind = settings.get("policy_class")
    return str(kind.get("__module__", "")) if isinstance(kind, dict) else ""


def _continuous(settings: Mapping[str, Any]) -> bool:
    space = settings.get("action_space")
    return isinstance(space, dict) and ".Box'" in str(space.get(":type:", ""))


def _hidden(settings: Mapping[str, Any], module: str, role: _Role) -> tuple[str, str]:
    kwargs = settings.get("policy_kwargs")
    text = _find(kwargs)
    if text is not None:
        if text not in _ACTIVATIONS:
            raise UnsupportedError(f"its activation is torch.nn.{text[:60]}; known are {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[text], f"The activation {text} is named in the file's policy_kwargs."
    if isinstance(kwargs, dict) and ("activation_fn" in kwargs or _mentions(kwargs)):
        raise InputError(
            "names its activation in a way that cannot be read without running code; give --activation NAME"
        )
    tanh = role.part in ("policy", "value") and module != _ARS
    name = "tanh" if tanh else "relu"
    where = module or "no policy class named"
    return name, f"The file names no activation; {name} is the default of its policy class ({where})."


def _find(kwargs: Any) -> str | None:
    """The torch activation class that the settings name, if any."""
    if not isinstance(kwargs, dict):
        return None
    match = _CLASS.search(str(kwargs.get("activation_fn", "")))
    if match:
        return match.group(1)
    for module, name in _globals(kwargs.get(":serialized:")):
        if module == "torch.nn.modules.activation":
            return name
    return None


def _mentions(kwargs: Mapping[str, Any]) -> bool:
    """Whether the pickled settings hold the word, though no known class."""
    try:
        return b"activation_fn" in base64.b64decode(str(kwargs.get(":serialized:", "")), validate=False)
    except (binascii.Error, ValueError):
        return False


def _globals(text: Any) -> Iterator[tuple[str, str]]:
    """(module, name) of the globals in a base64 pickle, from its opcodes; nothing is loaded."""
    if not isinstance(text, str):
        return
    words: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(base64.b64decode(text, validate=False)):
            if opcode.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                yield module, name
            elif opcode.name == "STACK_GLOBAL" and len(words) > 1:
                yield words[-2], words[-1]
            elif isinstance(argument, str):
                words.append(argument)
    except (ValueError, binascii.Error, IndexError, UnicodeError):
        return
