"""`MLP` as the starter's users know it, without its fault on the logits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from mindtrace.models import MLP
from mindtrace.preprocess import decode, normalise


@pytest.fixture
def model() -> MLP:
    torch.manual_seed(0)
    return MLP().eval()


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def by_the_one_path(model: MLP, data: bytes) -> torch.Tensor:
    spec = model.model_config.spec
    return model(torch.from_numpy(normalise(decode(data, spec)[None], spec)))


def test_it_is_a_lightning_module_with_the_starters_defaults(model: MLP) -> None:
    shapes = [
        tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Linear)
    ]

    assert isinstance(model, pl.LightningModule)
    assert shapes == [(100, 784), (10, 100)]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.2]


@pytest.mark.parametrize("dim", [[784, 10], [784, 100, 10], [64, 50, 30, 20, 7]])
def test_logits_are_neither_rectified_nor_dropped(dim: list[int]) -> None:
    layers = list(MLP(dim=dim, dropout=0.5).network)

    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Flatten"] + ["Linear", "ReLU", "Dropout"] * (len(dim) - 2) + ["Linear"]


def test_some_logits_are_negative_and_none_is_dropped(model: MLP) -> None:
    logits = model.train()(torch.randn(256, 1, 28, 28))

    assert (logits < 0).any(dim=0).all()
    assert (logits != 0).all()


def test_a_batch_gives_logits_and_classes(model: MLP) -> None:
    x = torch.randn(5, 1, 28, 28)

    assert model(x).shape == (5, 10)
    assert model(x).dtype == torch.float32
    assert model.predict(x).shape == (5,)
    assert model.predict(x).dtype == torch.int64
    assert torch.equal(model.predict(x), model(x).argmax(1))


def test_three_dimensions_are_a_batch_of_one(model: MLP) -> None:
    x = torch.randn(1, 28, 28)

    assert model(x).shape == (1, 10)
    assert torch.equal(model(x), model(x[None]))


def test_a_picture_and_its_array_go_through_mnists_preprocessing(
    model: MLP, image: Image.Image
) -> None:
    x = (np.asarray(image, np.float64) / 255 - 0.1307) / 0.3081
    expected = model(torch.from_numpy(x).float()[None, None])

    torch.testing.assert_close(model(image), expected)
    torch.testing.assert_close(model(np.asarray(image)), expected)
    torch.testing.assert_close(model(np.asarray(image)[..., None]), expected)
    assert model.predict(image).tolist() == [int(expected.argmax())]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_a_picture_of_any_mode_is_read_as_its_file_is(model: MLP, mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 30, 4), np.uint8)
    picture = Image.fromarray(noise).convert(mode)

    torch.testing.assert_close(model(picture), by_the_one_path(model, encoded(picture)))


def test_a_picture_of_16_bits_is_read_as_its_file_is(model: MLP) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (40, 30)).astype(np.uint16)
    picture = Image.fromarray(deep)

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


def test_an_array_that_is_not_uint8_is_refused_and_not_guessed_at(model: MLP) -> None:
    with pytest.raises(TypeError, match="uint8"):
        model(np.random.default_rng(0).random((28, 28)))


def test_predict_drops_nothing_and_leaves_the_mode_as_it_was(model: MLP) -> None:
    x = torch.randn(64, 1, 28, 28)
    expected = model.eval().predict(x)

    model.train()
    assert all(torch.equal(model.predict(x), expected) for _ in range(3))
    assert model.training
    model.eval()
    model.predict(x)
    assert not model.training


@pytest.mark.parametrize("dim", [[], [784], [783, 10]])
def test_a_dim_that_makes_no_network_is_refused(dim: list[int]) -> None:
    with pytest.raises(ValueError, match="dim ="):
        MLP(dim=dim)


def test_its_card_says_how_to_build_it_again() -> None:
    card = MLP(dim=[64, 50, 3], dropout=0.1).model_config

    assert card.architecture == "mlp"
    assert card.arguments == {"dim": [64, 50, 3], "dropout": 0.1}
    assert (card.spec.height, card.spec.width, card.class_names) == (8, 8, ("0", "1", "2"))
