"""The callback of the Hugging Face Trainer in real, short runs of tiny models from scratch."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate, which the Trainer needs, is not installed")

from fiberscope.errors import InputError  # noqa: E402
from fiberscope.training.adapters import transformers as adapter  # noqa: E402
from fiberscope.training.adapters.torch import architecture_of_module, parameters_of_module  # noqa: E402
from fiberscope.training.adapters.transformers import STATE_FILE, TransformersWatch  # noqa: E402
from fiberscope.training.traces.reading import read_trace  # noqa: E402

SIZES: dict[str, Any] = {"vocab_size": 40, "initializer_range": 0.3}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def bert() -> Any:
    config = transformers.BertConfig(
        hidden_size=18, num_hidden_layers=1, num_attention_heads=3, intermediate_size=14, max_position_embeddings=12,
        hidden_act="gelu", **SIZES,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(
        n_embd=18, n_layer=1, n_head=3, n_positions=12, bos_token_id=0, eos_token_id=0, activation_function="relu",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **SIZES,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=3, intermediate_size=14,
        max_position_embeddings=12, **SIZES,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


class Rows(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    def __init__(self, kind: str) -> None:
        generator = torch.Generator().manual_seed(2)
        self.tokens = torch.randint(0, 40, (32, 8), generator=generator)
        self.kind = kind

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, k: int) -> dict[str, Any]:
        label = self.tokens[k, 0] % 2 if self.kind == "bert" else self.tokens[k]
        return {"input_ids": self.tokens[k], "labels": label}


def run(
    model: Any, callback: Any, folder: Path, *, kind: str = "gpt2", resume: str | None = None, **options: Any
) -> Any:
    chosen = {"max_steps": 6, "save_strategy": "no", "learning_rate": 1e-3, **options}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"), report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=2,
        per_device_train_batch_size=4, **chosen,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Rows(kind), callbacks=[callback])
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def example() -> dict[str, Any]:
    return {"input_ids": Rows("gpt2").tokens[:3]}


@pytest.mark.parametrize("make", [bert, gpt2, llama])
def test_blocks_heads_factors_and_the_stream_are_found(make: Any) -> None:
    model = make()
    found = architecture_of_module(model, example())
    kinds = [p.kind for p in found.populations]
    assert sorted(kinds) == ["factors", "factors", "heads", "neurons", "stream"]
    assert {name for name, _ in model.named_parameters()} <= {s.name for s in (*found.slots, *found.skipped)}
    heads = next(p for p in found.populations if p.kind == "heads")
    assert heads.count == 3
    laws = {(law.kind, law.population.rpartition(".")[2]) for law in found.laws}
    if make is llama:
        assert laws == {("rotary", "qk"), ("matrix", "vo"), ("balance", "gate_proj")}
        assert not next(p for p in found.populations if p.name.endswith("qk")).exchangeable
    else:
        assert {("matrix", "qk"), ("matrix", "vo")} <= laws
        assert (("balance", "c_fc") in laws) == (make is gpt2)
    assert all(np.isfinite(v).all() for v in parameters_of_module(model).values())


def test_names_alone_suggest_the_blocks() -> None:
    found = architecture_of_module(gpt2())
    assert [p.name for p in found.populations] == [
        "transformer.h.0.attn.heads", "transformer.h.0.attn.qk", "transformer.h.0.attn.vo", "transformer.h.0.mlp.c_fc"
    ]  # fmt: skip
    slot = next(s for s in found.slots if s.name.endswith("c_attn.weight"))
    assert (slot.view, slot.take) == ((18, 3, 3, 6), (1, 0, 1))
    assert any(s.name == "transformer.wte.weight" for s in found.skipped)


@pytest.mark.parametrize(("make", "kind"), [(bert, "bert"), (gpt2, "gpt2"), (llama, "llama")])
def test_a_run_is_watched(make: Any, kind: str, tmp_path: Path) -> None:
    model = make()
    hooks = [len(m._forward_hooks) for m in model.modules()]
    callback = TransformersWatch(tmp_path / "run.jsonl", every=2, data=example())
    run(model, callback, tmp_path, kind=kind)
    trace = read_trace(tmp_path / "run.jsonl")
    assert [r.step for r in trace.records] == [0, 2, 4, 6]
    assert trace.complete
    assert trace.optimizer is not None
    assert trace.optimizer["name"] == "adamw"
    assert {p[2] for p in trace.populations} == {"neurons", "heads", "factors", "stream"}
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    drift, predicted = trace.last("laws/drift"), trace.last("laws/predicted_drift")
    assert drift is not None
    assert predicted is not None
    assert drift > 0


def test_the_rule_explains_the_drift_at_every_step(tmp_path: Path) -> None:
    callback = TransformersWatch(every=1, drift_every=1)
    model = gpt2().double()
    run(model, callback, tmp_path, optim="sgd", learning_rate=0.05, weight_decay=0.1, max_grad_norm=0.5)
    trace = callback.trace()
    assert [r.step for r in trace.records] == list(range(7))
    drift, gap = trace.last("laws/drift"), trace.last("laws/unexplained")
    assert drift is not None
    assert gap is not None
    assert drift > 1e-5
    assert gap < 1e-6 * drift + 1e-9
    assert any("loss" in r.scalars for r in trace.records)


def test_a_run_resumed_from_a_checkpoint_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    run(gpt2(), TransformersWatch(path, every=2), tmp_path, max_steps=4, save_strategy="steps", save_steps=4)
    saved = tmp_path / "out" / "checkpoint-4"
    assert (saved / STATE_FILE).exists()
    second = TransformersWatch(path, every=2)
    run(gpt2(), second, tmp_path, max_steps=6, resume=str(saved))
    trace = read_trace(path)
    assert [r.step for r in trace.records] == [0, 2, 4, 5, 6]  # the first step after a restart is measured
    assert trace.resumed
    assert second.watcher is not None
    assert second.watcher.state_dict()["step"] == 6


def test_a_used_path_is_refused_and_copies_are_free(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("{}\n")
    callback = TransformersWatch(path, every=7)
    with pytest.raises(InputError, match="exists"):
        run(gpt2(), callback, tmp_path, max_steps=1)
    with pytest.raises(InputError, match="not started"):
        callback.trace()
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (twin.path, twin.every) == (path, 7)
    assert isinstance(callback, transformers.TrainerCallback)
    assert adapter.TransformersWatch is TransformersWatch
    with pytest.raises(AttributeError, match="no attribute"):
        adapter.Nothing  # noqa: B018
