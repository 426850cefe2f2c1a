"""Lightning's own Trainer takes the data modules, and orders them by its epochs."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy

from mindtrace.data import Digits

# Lightning 2.6 asks torch for a class that torch 2.14 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")


class Linear(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(64, 10)
        self.seen: list[list[int]] = []
        self.judged: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        batches = batch if isinstance(batch, list) and isinstance(batch[0], tuple) else [batch]
        losses = []
        for x, y in batches:
            self.seen[-1] += y.tolist()
            losses.append(cross_entropy(self.net(x.flatten(1)), y))
        return torch.stack(losses).mean()

    def validation_step(self, batch: Any, index: int) -> None:
        """Lightning calls val_dataloader for it."""

    def test_step(self, batch: Any, index: int) -> None:
        self.judged += batch[1].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def trainer() -> pl.Trainer:
    return pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("chunk", [1, 8])
def test_fit_and_test(chunk: int) -> None:
    data, model = Digits(), Linear()
    data.chunk = chunk
    fitting = trainer()
    fitting.fit(model, data)
    assert fitting.global_step == 3 * len(data.train_dataloader())
    for epoch, seen in enumerate(model.seen):
        data.set_epoch(epoch)
        order = data.order.indices(len(seen))
        assert seen == data.split("train").labels[order].tolist()
    fitting.test(model, data, verbose=False)
    assert model.judged == data.split("test").labels.tolist()


def test_loaders_alone_are_taken_too() -> None:
    data, model = Digits(), Linear()
    trainer().fit(model, data.train_dataloader(), data.val_dataloader())
    assert len({tuple(seen) for seen in model.seen}) == 3
