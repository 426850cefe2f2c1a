"""Digits, and trainings of them that take a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import pytorch_lightning as pl
import torch

from mindtrace.config.settings import load_settings
from mindtrace.data import build_data
from mindtrace.models import ImageClassifier, build_model
from mindtrace.preprocess import ImageSpec

NAMES = ("ant", "bee", "cat")
GREY = ImageSpec("L", 12, 9, (0.5,), (0.5,))
COLOUR = ImageSpec("RGB", 32, 32, (0.5,) * 3, (0.5,) * 3)

# The networks of timm that the documentation lists.
TESTED = (
    *("tf_efficientnet_lite0", "tf_efficientnet_lite2", "efficientnet_b0", "resnet18", "resnet50"),
    *("mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"),
    *("convnext_tiny", "regnety_004", "densenet121", "vit_tiny_patch16_224"),
)

Fitted = tuple[ImageClassifier, pl.Trainer]
Train = Callable[..., Fitted]


def built(name: str, spec: ImageSpec = GREY, *sets: str) -> ImageClassifier:
    """A network for images of three classes, its random weights always the same."""
    what = load_settings(sets=["data.source=digits", f"model.name={name}", *sets], environ={})
    torch.manual_seed(1)
    return build_model(what.model, what.train, spec, NAMES)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks are quickest with one, above all where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def train() -> Train:
    """`train("train.lr=0.1", chunk=32)`: an MLP on digits, through a plain Trainer."""

    def train(*sets: str, chunk: int = 1, max_epochs: int = 2, module: bool = True) -> Fitted:
        settings = load_settings(sets=["data.source=digits", "model.dropout=0", *sets])
        data = build_data(settings)
        torch.manual_seed(settings.train.seed)
        model = build_model(settings.model, settings.train, data.spec, data.class_names)
        if chunk > 1:
            data.chunk = chunk
            model.automatic_optimization = False
            model.steps_per_epoch = -(-len(data.split("train")) // data.batch_size)
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if module:
            trainer.fit(model, datamodule=data)
        else:
            trainer.fit(model, data.train_dataloader(), data.val_dataloader())
        return model, trainer

    return train
