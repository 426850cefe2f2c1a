"""`[data] augment = light`: what it does to images, and which images it does it to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mindtrace.config.settings import load_settings
from mindtrace.data import Digits, build_data
from mindtrace.data.augment import light


def draw(turn: float = 0.0, across: float = 0.0, down: float = 0.0) -> torch.Tensor:
    return torch.tensor([[turn, across, down]])


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_no_turn_and_no_shift_is_the_image() -> None:
    images = noise(1, 3, 20, 30)
    moved = light(images, draw())
    assert moved.dtype == torch.float32
    assert torch.allclose(moved, images.float(), atol=1e-2)


def test_the_largest_shift_is_a_fourteenth_and_what_comes_in_is_black() -> None:
    images = noise(1, 1, 28, 14) | 1
    assert torch.allclose(
        light(images, draw(across=1.0))[..., :-1], images[..., 1:].float(), atol=1e-2
    )
    down = light(images, draw(down=-1.0))
    assert torch.allclose(down[:, :, 2:], images[:, :, :-2].float(), atol=1e-2)
    assert float(down[:, :, :2].abs().max()) < 1e-2


@pytest.mark.parametrize("shape", [(41, 41), (31, 61)])
def test_the_largest_turn_is_ten_degrees_about_the_centre(shape: tuple[int, int]) -> None:
    """Pillow turns the same image about the same point."""
    pixels = np.zeros(shape, np.uint8)
    pixels[10:-10, 12:-14] = 200
    expected = Image.fromarray(pixels).rotate(10, Image.Resampling.BILINEAR)
    turned = light(torch.from_numpy(pixels)[None, None], draw(turn=1.0))[0, 0].numpy()
    assert np.abs(turned - np.asarray(expected)).max() < 8
    assert abs(turned.sum() / pixels.sum() - 1) < 1e-3


def test_channels_move_together() -> None:
    grey = noise(4, 1, 16, 16)
    draws = torch.rand(4, 3) * 2 - 1
    colour = light(grey.expand(-1, 3, -1, -1), draws)
    for channel in range(3):
        assert torch.equal(colour[:, channel], light(grey, draws)[:, 0])


def digits(augment: str) -> Digits:
    data = Digits()
    data.augment = augment
    return data


def epoch(data: Digits, number: int) -> torch.Tensor:
    data.set_epoch(number)
    return torch.cat([x for x, _ in data.train_dataloader()])


def test_only_images_that_train_are_changed() -> None:
    plain, changed = digits("none"), digits("light")
    assert not torch.equal(
        next(iter(plain.train_dataloader()))[0], next(iter(changed.train_dataloader()))[0]
    )
    for stage in ("val", "test"):
        for (x, _), (u, _) in zip(
            getattr(plain, f"{stage}_dataloader")(),
            getattr(changed, f"{stage}_dataloader")(),
            strict=True,
        ):
            assert torch.equal(x, u)
    assert plain.digests() == changed.digests()
    assert torch.equal(plain.sample()[0], changed.sample()[0])


def test_labels_and_order_stay() -> None:
    for (x, y), (u, v) in zip(
        digits("none").train_dataloader(), digits("light").train_dataloader(), strict=True
    ):
        assert torch.equal(y, v) and x.shape == u.shape
        assert 0.1 < float((x - u).abs().mean()) < 0.9


def test_a_resumed_training_draws_the_same() -> None:
    data, again = digits("light"), digits("light")
    first, third = epoch(data, 0), epoch(data, 2)
    torch.manual_seed(99)
    assert torch.equal(epoch(again, 2), third)
    assert torch.equal(epoch(again, 0), first)
    again.seed = 1
    assert not torch.equal(epoch(again, 0), first)


def test_an_image_is_changed_in_another_way_each_epoch() -> None:
    data = digits("light")
    seen = []
    for number in (0, 1):
        images = epoch(data, number)
        order = data.order.indices(len(images))
        seen.append(images[order.argsort()])
    assert float((seen[0] - seen[1]).abs().mean()) > 0.2


@pytest.mark.parametrize("chunk", [3, 100])
def test_chunks_hold_the_same_batches(chunk: int) -> None:
    plain, chunked = digits("light"), digits("light")
    chunked.chunk = chunk
    batches = [batch for several in chunked.train_dataloader() for batch in several]
    for (x, y), (u, v) in zip(plain.train_dataloader(), batches, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_the_images_in_memory_are_left_alone() -> None:
    data = digits("light")
    before = data.split("train").images.clone()
    assert len(list(data.train_dataloader())) == 21
    assert torch.equal(data.split("train").images, before)


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="augment = 'heavy': none, light"):
        digits("heavy").train_dataloader()


def test_the_settings_say_it(root: Path) -> None:
    settings = load_settings(sets=("data.source=digits", "data.augment=light"))
    assert build_data(settings).augment == "light"
    assert build_data(load_settings(sets=("data.source=digits",))).augment == "none"
