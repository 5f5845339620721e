"""Attention and MLP blocks of torch modules, known by the names of their projections, as populations and laws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fiberscope.activations import Activation
from fiberscope.activations import activation as find_activation
from fiberscope.errors import UnsupportedError
from fiberscope.io import torch as torch_io
from fiberscope.training.adapters.torch_labels import Flow, Key, Labels, Stage
from fiberscope.training.architectures.architecture import Population, Role

Names = Mapping[int, str]
"""Names of parameters by the id of the tensor."""
_HF_ROWS = {
    "GELUActivation": "gelu", "NewGELUActivation": "gelu_tanh", "GELUTanh": "gelu_tanh", "SiLUActivation": "silu",
    "gelu": "gelu", "relu": "relu", "silu": "silu", "tanh": "tanh", "sigmoid": "sigmoid",
}  # fmt: skip


@dataclass(frozen=True)
class Projection:
    """A matrix that maps vectors, maybe a part of a fused one.

    Args:
        weight: name of the parameter.
        bias: name of its bias, None without.
        shape: of the stored parameter.
        transposed: whether it is stored as (inputs, outputs).
        part: (which, of how many) outputs are meant, for a fused parameter.
    """

    weight: str
    bias: str | None
    shape: tuple[int, int]
    transposed: bool = False
    part: tuple[int, int] = (0, 1)

    @property
    def n_out(self) -> int:
        """Outputs of the part."""
        return self.shape[1 if self.transposed else 0] // self.part[1]

    @property
    def n_in(self) -> int:
        """Inputs."""
        return self.shape[0 if self.transposed else 1]

    def slots(
        self,
        labels: Labels,
        outs: tuple[tuple[int, tuple[int, Role] | None], ...],
        ins: tuple[tuple[int, tuple[int, Role] | None], ...],
    ) -> tuple[Key, ...]:
        """Name the axes of weight and bias: (length, label) for the axes that outputs, and inputs, are read in."""
        fused = self.part[1] > 1
        lead = ((self.part[1], None),) if fused else ()
        columns = (*ins, *lead, *outs) if self.transposed else (*lead, *outs, *ins)
        where = len(ins) if self.transposed else 0
        take = (where, self.part[0], self.part[0] + 1) if fused else None
        keys = [labels.slot(self.weight, self.shape, [a for _, a in columns], view=[n for n, _ in columns], take=take)]
        if self.bias is not None:
            view, total = (*lead, *outs), self.n_out * self.part[1]
            take = (0, self.part[0], self.part[0] + 1) if fused else None
            shape = (total,)
            keys.append(labels.slot(self.bias, shape, [a for _, a in view], view=[n for n, _ in view], take=take))
        return tuple(keys)


def projection(module: Any, names: Names, part: tuple[int, int] = (0, 1)) -> Projection | None:
    """A Linear, or a Conv1D as in GPT-2, whose weight is a parameter; None for anything else."""
    weight: Any = getattr(module, "weight", None)
    bias: Any = getattr(module, "bias", None)
    kind = type(module).__name__
    if kind not in ("Linear", "NonDynamicallyQuantizableLinear", "Conv1D") or id(weight) not in names:
        return None
    if len(weight.shape) != 2 or (bias is not None and id(bias) not in names):
        return None
    shape = (int(weight.shape[0]), int(weight.shape[1]))
    return Projection(names[id(weight)], None if bias is None else names[id(bias)], shape, kind == "Conv1D", part)


def inputs_of(
    labels: Labels, flow: Flow | None, n_in: int, who: str
) -> tuple[tuple[int, tuple[int, Role] | None], ...]:
    """(length, label) for the axes in which a layer with n_in inputs reads a flow."""
    if flow is None:
        return ((n_in, None),)
    count = labels.of(flow.group).count
    if n_in != count and (not count or n_in % count or not flow.packed):
        labels.pin(flow.group, f"{who} reads {n_in} entries along another axis than the {count} channels")
        return ((n_in, None),)
    label: tuple[int, Role] = (flow.group, "out")
    if n_in == count:
        return ((n_in, label),)
    pair = ((count, label), (n_in // count, None))
    return pair if flow.packed == "major" else pair[::-1]


@dataclass(frozen=True)
class Attention:
    """Projections of an attention layer.

    Args:
        path: of the module.
        query: and the others, the projections.
        heads: number of query heads.
        groups: number of key and value heads.
        rotary: "no", "yes", or a reason why queries and keys have no known law.
        guessed: the condition under which this is so, empty where the layer is one of torch's own.
    """

    path: str
    query: Projection
    key: Projection
    value: Projection
    out: Projection
    heads: int
    groups: int
    rotary: str = "no"
    guessed: str = ""

    @property
    def projections(self) -> tuple[Projection, Projection, Projection, Projection]:
        """All four."""
        return self.query, self.key, self.value, self.out

    def label(self, labels: Labels, flows: tuple[Flow | None, Flow | None, Flow | None], out: int) -> None:
        """Heads, factors and their laws: Q_h Q_h^T - K_h K_h^T, V_h V_h^T - O_h^T O_h, biases as further columns."""
        width = self.query.n_out // self.heads
        flags = Population("", self.groups, "heads", signs=True, null=True)
        heads = labels.fresh(f"{self.path}.heads", self.groups, "heads", flags)
        free = self.rotary == "no"
        flags = Population("", width, "factors", signs=free, null=free, exchangeable=free)
        qk = labels.fresh(f"{self.path}.qk", width, "factors", flags)
        depth = self.value.n_out // self.groups
        flags = Population("", depth, "factors", signs=True, null=True)
        vo = labels.fresh(f"{self.path}.vo", depth, "factors", flags)
        for group in (heads, qk, vo, out, *(flow.group for flow in flows if flow is not None)):
            if self.guessed:
                labels.guess(group, self.guessed)
        shared = ((self.heads // self.groups, None),) if self.heads != self.groups else ()
        keys = []
        rows = ((self.query, qk, shared), (self.key, qk, ()), (self.value, vo, ()))
        for (row, inner, more), flow in zip(rows, flows, strict=True):
            role: Role = "out" if row is self.key else "in"
            side: tuple[tuple[int, tuple[int, Role] | None], ...] = ((self.groups, (heads, "in")), *more)
            side = (*side, (width if inner == qk else depth, (inner, role)))
            found = row.slots(labels, side, inputs_of(labels, flow, row.n_in, self.path))
            keys.append(found)
            if flow is not None:
                labels.read(flow, found[0])
        read: tuple[tuple[int, tuple[int, Role] | None], ...] = (
            (self.groups, (heads, "out")), *shared, (depth, (vo, "out"))
        )  # fmt: skip
        last = self.out.slots(labels, ((self.out.n_out, (out, "in")),), read)
        if self.out.bias is not None:
            labels.write(out, last)
        else:
            labels.write(out, last[:1])
        q, k, v, o = keys[0], keys[1], keys[2], last[:1]
        if self.rotary in ("no", "yes"):
            law = "matrix" if free else "rotary"
            text = f"{self.path}: {_square(self.query, 'Q', '+')} - {_square(self.key, 'K', '-')} in each head"
            labels.law(text if free else f"{text}, by rotated pairs", law, qk, q, k, heads)  # type: ignore[arg-type]
        else:
            labels.skip(f"{self.path}.qk", self.rotary)
        text = f"{self.path}: {_square(self.value, 'V', '+')} - O^T O in each head"
        labels.law(text, "matrix", vo, v, o, heads)


def _square(row: Projection, letter: str, sign: str) -> str:
    bias = f"b_{letter.lower()}"
    return f"{letter} {letter}^T" + ("" if row.bias is None else f" {sign} {bias} {bias}^T")


_TRIPLES = (
    (("q_proj", "k_proj", "v_proj"), ("o_proj", "out_proj", "dense")),
    (("query", "key", "value"), ("output.dense", "out_proj", "dense")),
    (("q_lin", "k_lin", "v_lin"), ("out_lin",)),
    (("to_q", "to_k", "to_v"), ("to_out", "to_out.0")),
    (("wq", "wk", "wv"), ("wo",)),
    (("q", "k", "v"), ("o", "out", "proj")),
)
_HEAD_NORMS = ("q_norm", "k_norm", "norm_q", "norm_k", "q_layernorm", "k_layernorm")
_FUSED = (("c_attn", "c_proj"), ("qkv", "proj"), ("in_proj", "out_proj"))


def attention_of(module: Any, path: str, names: Names, parent: Any = None) -> Attention | str | None:
    """The attention layer that a module is by the names of its parts; a reason if it nearly is one; None if not."""
    if type(module).__name__ == "MultiheadAttention":
        return _multihead(module, path, names)
    found = _named(module, parent, names)
    if found is None:
        return None
    query, key, value, out = found
    config = getattr(module, "config", None)
    heads = _number(module, config, "num_heads", "num_attention_heads", "n_head", "n_heads", "nhead", "heads")
    if heads is None:
        width = _number(module, config, "head_dim", "attention_head_size", "head_size")
        heads = None if width is None or query.n_out % width else query.n_out // width
    if heads is None or query.n_out % heads:
        return "the number of its heads is not in its attributes"
    width = query.n_out // heads
    if key.n_out % width or heads % (key.n_out // width) or value.n_out % (key.n_out // width):
        return f"keys of {key.n_out} entries do not fit {heads} heads of {width}"
    groups = key.n_out // width
    if out.n_in != heads * (value.n_out // groups):
        return f"{out.weight} reads {out.n_in} entries, not those of the heads"
    known = {row.weight for row in found} | {row.bias for row in found}
    own = {names[id(p)] for p in module.parameters() if id(p) in names}
    more = sorted(own - known)
    gains = {names[id(p)] for p in module.parameters() if id(p) in names and tuple(p.shape) == (width,)}
    if more and not (set(more) <= gains and all(n.split(".")[-2] in _HEAD_NORMS for n in more)):
        return f"it has parameters besides its projections: {', '.join(more[:3])}"
    rotary = _rotary(module, config, width) if not more else f"{more[0]} normalises within each head: no law is known"
    guessed = f"{path or type(module).__name__} is plain attention, as the names of its parts suggest"
    return Attention(path, query, key, value, out, heads, groups, rotary, guessed)


def _multihead(module: Any, path: str, names: Names) -> Attention | str:
    out = projection(module.out_proj, names)
    guessed = "" if own_of_torch(module) else f"{path or type(module).__name__} is attention as torch.nn has it"
    if module.bias_k is not None or out is None:
        return "it adds learned keys (add_bias_kv)" if out is not None else "its out_proj.weight is computed"
    bias = None if module.in_proj_bias is None else names.get(id(module.in_proj_bias))
    if module.in_proj_weight is not None:
        fused = names.get(id(module.in_proj_weight))
        if fused is None:
            return "its in_proj_weight is computed, not a parameter"
        shape = tuple(int(n) for n in module.in_proj_weight.shape)
        q, k, v = (Projection(fused, bias, (shape[0], shape[1]), part=(i, 3)) for i in range(3))
    else:
        if bias is not None:
            return "its projections have weights of their own and one bias for all"
        rows = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
        if any(id(w) not in names for w in rows):
            return "its weights are computed, not parameters"
        q, k, v = (Projection(names[id(w)], None, (int(w.shape[0]), int(w.shape[1]))) for w in rows)
    return Attention(path, q, k, v, out, int(module.num_heads), int(module.num_heads), guessed=guessed)


def own_of_torch(module: Any) -> bool:
    """Whether a module is of torch.nn itself, so that its class says what it computes."""
    return type(module).__module__.startswith("torch.nn.")


def _named(module: Any, parent: Any, names: Names) -> tuple[Projection, Projection, Projection, Projection] | None:
    for triple, outs in _TRIPLES:
        rows = [projection(_child(module, name), names) for name in triple]
        if all(row is not None for row in rows):
            # BERT keeps the projection of the heads beside the attention itself
            found = [projection(_child(place, name), names) for place in (module, parent) for name in outs]
            last = next((row for row in found if row is not None), None)
            return None if last is None else (rows[0], rows[1], rows[2], last)  # type: ignore[return-value]
    for fused, final in _FUSED:
        whole, last = projection(_child(module, fused), names), projection(_child(module, final), names)
        if whole is not None and last is not None and whole.n_out == 3 * last.n_in:
            q, k, v = (replace(whole, part=(i, 3)) for i in range(3))
            return q, k, v, last
    return None


def _child(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, "_modules", {}).get(part)
    return module


def _number(module: Any, config: Any, *names: str) -> int | None:
    for place in (module, config):
        for name in names:
            value = getattr(place, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _rotary(module: Any, config: Any, width: int) -> str:
    """Whether queries and keys are rotated by their place; the models that do so say it in their configuration."""
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    base = getattr(config, "rope_theta", None) is not None or bool(settings)
    if not base and not hasattr(module, "rotary_emb"):
        return "no"
    part = getattr(config, "partial_rotary_factor", None) or settings.get("partial_rotary_factor", 1.0)
    if part != 1.0 or width % 2 or getattr(config, "rope_interleave", False):
        return "rotary embeddings turn only a part of each head, or interleaved pairs: no law is known for it here"
    return "yes"


@dataclass(frozen=True)
class Perceptron:
    """Two projections with a function between them, maybe a product with a third.

    Args:
        path: of the module.
        first: projection in front of the activation.
        last: projection behind it.
        stage: the activation.
        linear: a projection that multiplies the activation (SwiGLU).
    """

    path: str
    first: Projection
    last: Projection
    stage: Stage
    linear: Projection | None = None

    def label(self, labels: Labels, name: str) -> None:
        """Hidden units and their law; inputs and outputs stand for themselves."""
        keys = []
        group = -1
        for row in (self.first, self.linear):
            if row is not None:
                fresh = labels.fresh(name, row.n_out)
                found = row.slots(labels, ((row.n_out, (fresh, "in")),), ((row.n_in, None),))
                keys.append(labels.write(fresh, found))
                group = fresh if group < 0 else labels.join(group, fresh, "a product")
        stages: tuple[Stage, ...] = (self.stage,)
        if self.linear is not None:
            labels.of(group).gate = (keys[1],)
            stages = ("gated",)
        if not isinstance(self.stage, Activation) or self.stage.value(np.int64(0)) != 0:  # type: ignore[arg-type]
            labels.of(group).null = False
        flow = Flow(group, -1, None, "", stages)
        out = self.last.slots(labels, ((self.last.n_out, None),), ((self.last.n_in, (group, "out")),))
        labels.read(flow, out[0])


_PAIRS = (
    (("fc1", "fc2")), ("c_fc", "c_proj"), ("lin1", "lin2"), ("linear1", "linear2"), ("dense_h_to_4h", "dense_4h_to_h"),
    ("intermediate.dense", "output.dense"), ("wi", "wo"), ("w_1", "w_2"),
)  # fmt: skip
_GATED = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("wi_0", "wi_1", "wo"))
_FUNCTIONS = ("act", "act_fn", "activation_fn", "activation", "intermediate_act_fn", "intermediate.intermediate_act_fn")


def perceptron_of(module: Any, path: str, names: Names) -> tuple[Perceptron, str] | None:
    """The MLP block that a module holds by the names of its parts, and its first layer's path; else None."""
    for gate, up, down in _GATED:
        rows = [projection(_child(module, name), names) for name in (gate, up, down)]
        if all(row is not None for row in rows) and rows[0].n_out == rows[1].n_out == rows[2].n_in:  # type: ignore[union-attr]
            stage = function_of(module)
            return Perceptron(path, rows[0], rows[2], stage, rows[1]), _join(path, gate)  # type: ignore[arg-type]
    for first, last in _PAIRS:
        a, b = projection(_child(module, first), names), projection(_child(module, last), names)
        if a is not None and b is not None and a.n_out == b.n_in:
            return Perceptron(path, a, b, function_of(module)), _join(path, first)
    return None


def function_of(module: Any) -> Stage:
    """The activation that a block names as its own, "pointwise" if it has no row here."""
    for name in _FUNCTIONS:
        found = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if callable(found):
            return stage_of(found)
    return "pointwise"


def stage_of(function: Any) -> Stage:
    """The row of an activation, given as a module or a function; "pointwise" if it has none."""
    name = type(function).__name__
    if name in _HF_ROWS:
        return find_activation(_HF_ROWS[name])
    if name == "LinearActivation":
        return "drop"
    if type(function).__module__.startswith("torch.nn.modules"):
        try:
            return torch_io._row_of(function, np.float32)
        except (UnsupportedError, KeyError):
            return "pointwise"
    plain = getattr(function, "__name__", "")
    return find_activation(_HF_ROWS[plain]) if plain in _HF_ROWS else "pointwise"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
