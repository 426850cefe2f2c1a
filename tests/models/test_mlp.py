"""`MLP` as the starter's users know it, without its fault on the logits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from mindtrace.config.sections import DataSettings, ModelSettings, TrainSettings
from mindtrace.data import MNIST, Digits
from mindtrace.models import CNN, MLP
from mindtrace.preprocess import decode, normalise

# Lightning 2.6 calls torch 2.14 in a way that torch would like changed.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")


@pytest.fixture
def model() -> MLP:
    torch.manual_seed(0)
    return MLP().eval()


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def by_the_one_path(model: MLP, data: bytes) -> torch.Tensor:
    spec = model.model_config.spec
    return model(torch.from_numpy(normalise(decode(data, spec)[None], spec)))


@pytest.mark.parametrize("dim", [[784, 10], [784, 100, 10], [64, 50, 30, 20, 7]])
def test_logits_are_neither_rectified_nor_dropped(dim: list[int]) -> None:
    kinds = [type(layer).__name__ for layer in MLP(dim=dim, dropout=0.5).network]
    assert kinds == ["Flatten"] + ["Linear", "ReLU", "Dropout"] * (len(dim) - 2) + ["Linear"]


def test_a_batch_gives_logits_and_classes(model: MLP) -> None:
    x = torch.randn(64, 1, 28, 28)
    logits = model(x)
    assert (logits.shape, logits.dtype) == ((64, 10), torch.float32)
    assert (logits < 0).any(dim=0).all()
    assert torch.equal(model(x[0]), model(x[:1])), "three dimensions are a batch of one"
    assert torch.equal(model(x.flatten(1)), logits), "flat values are images"
    expected = model.predict(x)
    assert (expected.shape, expected.dtype) == ((64,), torch.int64)
    assert torch.equal(expected, logits.argmax(1))
    assert torch.equal(model.predict(x.flatten(1)), expected)
    assert not model.training
    model.train()
    assert all(torch.equal(model.predict(x), expected) for _ in range(3)), "drops nothing"
    assert model.training


@pytest.mark.parametrize(
    "made",
    [
        MLP([64, 30, 10], 0.3, lr=0.02, schedule="one_cycle"),
        CNN(10, 8, 0.3, lr=0.02),
        MLP([64, 10]),
    ],
)
def test_a_checkpoint_keeps_the_arguments(made: MLP | CNN, tmp_path: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(made, Digits())
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    again = type(made).load_from_checkpoint(tmp_path / "a.ckpt")

    assert dict(again.hparams) == dict(made.hparams)
    assert (again.lr, again.schedule) == (made.lr, made.schedule)
    assert again.model_config == made.model_config
    assert made.model_config.architecture == type(made).__name__.lower()
    assert again.model_config.arguments["dropout"] == made.hparams["dropout"]
    assert (again.model_config.spec.height, len(again.model_config.class_names)) == (8, 10)
    same = zip(again.state_dict().values(), made.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    # Classes of the test images, batch by batch.
    classes = torch.cat(trainer.predict(again, Digits()))  # type: ignore[arg-type]
    assert torch.equal(classes, again.predict(Digits().normalise(Digits().test.images)))


def test_the_defaults_are_those_of_the_command_line() -> None:
    model, train = ModelSettings(), TrainSettings()
    for made in (MLP(), CNN()):
        assert (made.lr, made.schedule) == (train.lr, train.schedule)
        assert made.hparams["dropout"] == model.dropout
    assert MLP().hparams["dim"] == (784, model.hidden, 10)
    assert (model.hidden, model.dropout) == (100, 0.2), "the starter's"
    assert MNIST().batch_size == DataSettings().batch_size
    with pytest.raises(ValueError, match="schedule = 'cosine': constant or one_cycle"):
        MLP(schedule="cosine")


def test_a_picture_and_its_array_go_through_mnists_preprocessing(
    model: MLP, image: Image.Image
) -> None:
    x = (np.asarray(image, np.float64) / 255 - 0.1307) / 0.3081
    expected = model(torch.from_numpy(x).float()[None, None])
    for given in (image, np.asarray(image), np.asarray(image)[..., None]):
        torch.testing.assert_close(model(given), expected)
    assert model.predict(image).tolist() == [int(expected.argmax())]
    with pytest.raises(TypeError, match="uint8"):
        model(np.random.default_rng(0).random((28, 28)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_a_picture_of_any_mode_is_read_as_its_file_is(model: MLP, mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 65536, (40, 30, 4)).astype(np.uint16)
    eight_bits = (noise >> 8).astype(np.uint8)
    deep = mode == "I;16"
    picture = Image.fromarray(noise[..., 0]) if deep else Image.fromarray(eight_bits).convert(mode)
    assert picture.mode == mode
    torch.testing.assert_close(model(picture), by_the_one_path(model, encoded(picture)))


def test_the_rotation_in_exif_counts_for_an_opened_picture_too(
    model: MLP, image: Image.Image
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        torch.testing.assert_close(model(opened), by_the_one_path(model, data))
    torch.testing.assert_close(by_the_one_path(model, data), model(image.rotate(-90)))


@pytest.mark.parametrize("dim", [[], [784], [783, 10]])
def test_a_dim_that_makes_no_network_is_refused(dim: list[int]) -> None:
    with pytest.raises(ValueError, match="dim ="):
        MLP(dim=dim)
