"""The Lightning callback in real, short fits."""

from __future__ import annotations

import copy
import logging
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # noqa: E402

from fiberscope.errors import InputError  # noqa: E402
from fiberscope.training.adapters import lightning as adapter  # noqa: E402
from fiberscope.training.adapters.lightning import LightningWatch  # noqa: E402
from fiberscope.training.traces.reading import read_trace  # noqa: E402


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Small(pl.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, *, fail_at: int = -1, two: bool = False) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        self.fail_at, self.two = fail_at, two
        self.automatic_optimization = not two

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Any:
        if self.global_step == self.fail_at:
            raise RuntimeError("planned")
        loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        if self.two:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        if self.two:
            return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.net[0], self.net[2])]
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.5, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def data() -> Any:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(48, 4, generator=generator), torch.randint(0, 3, (48,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)


def fit(callback: Any, folder: Path, *, module: Any = None, ckpt: str | None = None, **options: Any) -> Any:
    chosen = {"logger": False, "max_steps": 5, **options}
    trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
        max_epochs=20, callbacks=[callback], **chosen,
    )  # fmt: skip
    trainer.fit(Small() if module is None else module, data(), ckpt_path=ckpt)
    return trainer


def test_a_fit_is_watched_and_logged(tmp_path: Path) -> None:
    callback = LightningWatch(tmp_path / "run.jsonl", every=2, data=torch.randn(16, 4), log=True)
    module = Small()
    hooks = [len(m._forward_hooks) for m in module.modules()]
    trainer = fit(callback, tmp_path, module=module, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trace = read_trace(tmp_path / "run.jsonl")
    assert [r.step for r in trace.records] == [0, 2, 4, 5]
    assert trace.complete
    assert trace.error is None
    assert [(p[0], p[1]) for p in trace.populations] == [("net.0", 8)]
    assert [len(m._forward_hooks) for m in module.modules()] == hooks
    text = (Path(trainer.logger.log_dir) / "metrics.csv").read_text()
    assert "fiberscope/sims/nearest_distance" in text.splitlines()[0]
    assert len(text.splitlines()) == 1 + len(trace.records)
    assert module.training


def test_steps_are_optimizer_steps_and_the_rule_explains_the_drift(tmp_path: Path) -> None:
    callback = LightningWatch(every=1, drift_every=1)
    fit(callback, tmp_path, module=Small().double(), accumulate_grad_batches=2, gradient_clip_val=0.1, precision=64)
    trace = callback.trace()
    assert [r.step for r in trace.records] == [0, 1, 2, 3, 4, 5]
    drift, gap = trace.last("laws/drift"), trace.last("laws/unexplained")
    assert drift is not None
    assert gap is not None
    assert drift > 1e-5
    # to rounding: clipped gradients, and the rates from before the scheduler moved them
    assert gap < 1e-9
    losses = [r.scalars["loss"] for r in trace.records if "loss" in r.scalars]
    assert 0.5 < np.mean(losses) < 2.5


def test_log_true_needs_a_logger(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="logger"):
        fit(LightningWatch(log=True), tmp_path)
    fit(LightningWatch(log=None), tmp_path, max_steps=1)


def test_an_exception_closes_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with pytest.raises(RuntimeError, match="planned"):
        fit(LightningWatch(path, every=1), tmp_path, module=Small(fail_at=3))
    trace = read_trace(path)
    assert trace.complete
    assert "planned" in str(trace.error)


def test_a_checkpoint_carries_the_callbacks_state(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first = LightningWatch(path, every=2)
    trainer = fit(first, tmp_path, max_steps=4)
    trainer.save_checkpoint(tmp_path / "four.ckpt")
    stored = torch.load(tmp_path / "four.ckpt", weights_only=False)["callbacks"]
    assert stored[first.state_key]["step"] == 4
    second = LightningWatch(path, every=2)
    fit(second, tmp_path, max_steps=8, ckpt=str(tmp_path / "four.ckpt"))
    trace = read_trace(path)
    assert [r.step for r in trace.records] == [0, 2, 4, 5, 6, 8]  # the first step after a restart is measured
    assert trace.resumed == (4,)
    assert LightningWatch("other.jsonl").state_key != first.state_key


def test_a_second_fit_goes_on_and_a_stranger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    module, callback = Small(), LightningWatch(path, every=2)
    fit(callback, tmp_path, module=module, max_steps=2)
    fit(callback, tmp_path, module=module, max_steps=4)
    assert read_trace(path).records[-1].step == 4
    with pytest.raises(InputError, match="exists"):
        fit(LightningWatch(path), tmp_path, max_steps=1)
    fit(LightningWatch(path, force=True), tmp_path, max_steps=1)
    assert [r.step for r in read_trace(path).records] == [0, 1]


def test_a_part_is_watched_and_several_optimizers_predict_nothing(tmp_path: Path) -> None:
    callback = LightningWatch(every=1, part="net")
    fit(callback, tmp_path, module=Small(two=True), max_steps=4)
    trace = callback.trace()
    assert [p[0] for p in trace.populations] == ["0"]
    assert trace.optimizer is None
    with pytest.raises(InputError, match="no submodule 'body'; it has net"):
        fit(LightningWatch(part="body"), tmp_path)


def test_only_the_first_process_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.Trainer, "global_rank", property(lambda self: 1))
    callback = LightningWatch(tmp_path / "run.jsonl", every=1)
    fit(callback, tmp_path, max_steps=2, enable_checkpointing=False)
    assert not (tmp_path / "run.jsonl").exists()


def test_the_callback_copies_and_pickles(tmp_path: Path) -> None:
    callback = LightningWatch(tmp_path / "run.jsonl", every=3)
    with pytest.raises(InputError, match="not started"):
        callback.trace()
    fit(callback, tmp_path, max_steps=1)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (twin.path, twin.every, twin.watcher) == (callback.path, 3, None)
    assert isinstance(callback, pl.Callback)
    assert adapter.LightningWatch is LightningWatch
    with pytest.raises(AttributeError, match="no attribute"):
        adapter.Nothing  # noqa: B018
